"""The commands of `resad-indexer`, a file each: parse, call, print."""
