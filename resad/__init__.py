"""The method and the index on disk: photographs -> patch features -> memory bank -> anomaly map -> result.

No web, no command line.  `Engine` in `resad.engine` is the way in: bytes or a path -> a result.

config: settings, presets, fingerprint.
errors: every error raised on purpose.
runtime: process-wide settings, device and memory of the machine.

photo: bytes -> upright RGB picture.
tiff: the pages of a TIFF: which one is the photograph, and what keeps it from being read.
jpeg: the segments of a JPEG in front of its picture.
photo_work: how much work a file asks for, before it is decoded.
decoder_pool, decoder_process: decoding in processes that can be ended.
dicom: DICOM photographs in, results as DICOM objects out.
field_of_view: find the disc, or the lit region, that shows the retina.
lit_regions: what is brighter than the dark surround.
rim: fit the disc's rim: circles, and ellipses where a photograph was squashed.
preparation: photograph -> prepared square, and the frame that leads back to the photograph's pixels.
near_duplicates: photographs that show the same: hashes, pairs, groups for the calibration.
quality: whether a photograph is good enough to be scored.

bundled: the trunk inside the package.
backbone: trunks and their weights.
resc: region and spatial combination of the stages' features.
encoder: prepared photographs -> patch features.
device: copies to and from a device, full float32.

memory_bank: the healthy patch features and their search.
neighbors: nearest memories of patches and of their mirror images.
search: ways to search a memory bank.

anomaly_map: patch distances -> map -> image score.
detector: prepared photograph -> detection.
calibration: p-values, thresholds, decision rules.
optic_disc: where the optic disc lies.
findings: regions of a map above a level, and their place in words.
engine: bytes or path -> result (`resad_client.records.Result`).

manifest: records of an index: `manifest.json` and `photos.jsonl`.
index_warnings: what makes an index's verdicts doubtful.
index: versions on disk: resolve, check, publish, activate, purge.
loaded_index: an index in memory, ready to score.

pictures: overlays, map files, pictures of evidence.
"""
