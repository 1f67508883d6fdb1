"""Changes an index: each operation writes a new version.

derive      the steps that add, remove and merge share: a new version derived from an existing one
add         more photographs
remove      fewer photographs; `purge` deletes every other version that has them
merge       two indexes into one
archive     a version as one file, with an optional signature
versions    compare versions, delete old ones, find the previous one
"""
