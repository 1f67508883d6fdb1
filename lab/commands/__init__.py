"""The research commands of `resad-indexer`."""
