"""The commands of `resad-indexer`; each imports what it needs when it runs.

build       build
score       score
calibrate   calibrate
versions    list, inspect, verify, activate, add, merge, diff, rollback, gc, export, import
remove      remove, also with --purge
console     output streams, common options, warnings, loading an index
"""
