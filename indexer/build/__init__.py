"""Builds an index.

build            the steps, in this process or over a cluster's workers
references       loading and checking photographs; the facts that are kept, and their records
extraction       photographs -> patch features, with loading, network and writing overlapped
state            ROOT/NAME/.work, with which an interrupted build continues
feature_store    patch features on disk
forecast         time, memory and disk of a build
search_choice    the trial that chooses an index's search
publication      the files of a version
progress         progress on the terminal
"""
