"""Ways to search a memory bank; `resad.memory_bank` is what the rest of the project sees of them."""
