"""Pictures and files of results.

overlay: the photo under its map's colors, findings outlined, with a color bar on the absolute scale.
map_files: anomaly maps as PNG, TIFF and NPY that carry their scale.
evidence: crops of healthy patches, and strips of a finding beside its evidence.
"""
