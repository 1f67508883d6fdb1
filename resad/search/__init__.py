"""Ways to search a memory bank; the rest of the project uses them through `resad.memory_bank`.

plan: which search an index uses, and what was measured when it was chosen.
flat: exhaustive searches by FAISS and torch, on the CPU or a GPU, and FAISS's approximate IVF lists.
bounds: lower bounds of distances from quantized vectors, and clusters of similar memories.
pruned: the exact search that measures in full only what the bounds cannot rule out (`proved` in plans).
"""
