"""Changes an index: each operation writes a new version.

derive      the steps that add, remove and merge share: a new version derived from an existing one
add         more photographs
choice      which photographs --photo and --group mean
remove      fewer photographs
purge       photographs gone for good: barred, and deleted from every version
merge       two indexes into one
archive     a version as one file, with an optional signature
members     the members of an archive, read with bounds
versions    compare versions, delete old ones, find the previous one
"""
