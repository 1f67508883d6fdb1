"""The commands of `resad-indexer`; each imports what it needs when it runs.

build       build
score       score
calibrate   calibrate
versions    list, inspect, verify, activate, add, remove, merge, diff, rollback, gc, export, import
console     output streams, common options, warnings, loading an index
"""
