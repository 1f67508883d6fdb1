"""Which reference photographs are left out of the bank together: they would vouch for each other."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from indexer.look_alikes import Hashed, Likeness, same_among


def groups_of(patients: Sequence[str | None], alike: Sequence[Likeness] = ()) -> list[frozenset[int]]:
    """Per photo which ones are left out with it, itself among them: its patient's, copies, theirs, and so on.

    Args:
        patients: whose photo it is, where known.
        alike: pairs that show the same.
    """
    firsts: dict[str, int] = {}
    pairs = [(firsts.setdefault(who, number), number) for number, who in enumerate(patients) if who is not None]
    pairs += [(pair.first, pair.second) for pair in alike]
    ends = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    count = len(patients)
    links = coo_array((np.ones(len(pairs), dtype=np.int8), (ends[0], ends[1])), shape=(count, count))
    labels = connected_components(links, directed=False)[1].tolist() if count else []
    members: dict[int, list[int]] = {}
    for number, label in enumerate(labels):
        members.setdefault(label, []).append(number)
    groups = {label: frozenset(numbers) for label, numbers in members.items()}
    return [groups[label] for label in labels]


def left_out_groups(patients: Sequence[str | None], photos: Sequence[Hashed]) -> list[frozenset[int]]:
    """`groups_of` these photographs, with all that are copies or mirror images of each other."""
    return groups_of(patients, same_among(photos))
