"""Offline: a folder of healthy fundus photographs becomes an index on disk."""
