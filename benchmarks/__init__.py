"""Benchmarks: the scripts behind docs/results.md, each run as `python -m benchmarks.NAME [--quick] [--json FILE]`.

presets      presets and ablations on IDRiD
findings     findings and maps against marked lesions
calibration  p-values on unseen normals, ranks of planted diseased photographs
quality      the quality gate on damaged photographs
search       searches of a large memory bank
latency      each step of one photograph
coreset      the greedy beside the textbook loop and anomalib's
indexing     a large build in bounded memory, a killed build resumed
lifecycle    photographs added and removed
service      start, single requests, load, new versions, SIGTERM
attack       attacks on the service: what others get meanwhile, what is left behind
cluster      a build over Ray workers
gpu          the tests and benchmarks of a GPU

_bench       printing, timing, memory
_idrid       indexes and figures on IDRiD
_service     a service as a process, and clients that load it
_costly_files  files that take much work to decode
_anomalib    one side of a comparison with anomalib
"""
