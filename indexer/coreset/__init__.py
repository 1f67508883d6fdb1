"""Selects the memories of an index.

projected_features    the greedy's points: projected features in memory or in a file
k_center              greedy k-center over shards of points, and its checkpoint
selection             features -> memories; `extend` adds memories to a bank
"""
