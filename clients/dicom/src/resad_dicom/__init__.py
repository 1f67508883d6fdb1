"""A DICOM node beside a ReSAD service: photographs of a PACS in, result objects back into the PACS.

    A photograph arrives by C-STORE or STOW-RS, is **taken** into the **queue**, is **scored** by the service, and
    its results are **sent** to the PACS.

cli: the command `resad-dicom`.  settings: its options and variables.  node: starts and stops everything.
storage_scp: the DICOM listener.  web: STOW-RS, probes and metrics.  intake: takes what arrives, or refuses it.
queue: photographs and results on disk, from arrival until the PACS has the results.
work: the threads that score and send, and what a fault of a peer costs.  peers: calls to the service and the PACS.
objects: identifiers of a DICOM file.  multipart: bodies of several DICOM files.  metrics: for Prometheus.

The node is a client: it knows `resad_client` and nothing of the server.
"""
