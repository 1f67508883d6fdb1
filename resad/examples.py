"""What readers have taught a version of an index: normal variants, and examples of known lesions.

`examples.npz` holds the patches, `examples.jsonl` a line for each mark that they come from.  A version without
these files answers as if this module did not exist.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from resad_client.records import Evidence, Resemblance

from resad.errors import IndexInvalid, first_fault
from resad.manifest import EXAMPLE_RECORDS_FILE as EXAMPLE_RECORDS_FILE
from resad.marks import HEALTHY_LABELS
from resad.memory_bank import MemoryBank, Provenance

EXAMPLES_FILE: Final = "examples.npz"
REACH: Final = 0.4
"""Of a patch's distance to healthy memories: a normal variant counts if it is nearer than that."""
VOTES: Final = 8
"""Nearest examples that say what a finding resembles."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ExampleRecord:
    """A mark that a version has learned: a line of `examples.jsonl`.

    id: of the mark.  photo: id of its photograph.  label: as of `resad.marks`.  patches: how many came of it.
    """

    id: str
    photo: str
    content_sha256: str
    label: str
    patches: int


_RECORD: Final = TypeAdapter(ExampleRecord)


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The patches under the marks that a version has learned.

    features: float32 (n, D).  record: int32 (n,), row of `records`.  cell: int16 (n, 2), (y, x) on the patch grid.
    gpu: number of the GPU to search on; None for the CPU.
    """

    records: tuple[ExampleRecord, ...]
    features: NDArray[np.float32]
    record: NDArray[np.int32]
    cell: NDArray[np.int16]
    gpu: int | None = None

    @cached_property
    def _is_healthy(self) -> NDArray[np.bool_]:
        labels = np.array([record.label in HEALTHY_LABELS for record in self.records], np.bool_)
        return labels[self.record]

    @cached_property
    def variants(self) -> MemoryBank | None:
        """The patches under normal variants and artifacts; None without any."""
        return self._bank(self._is_healthy)

    @cached_property
    def lesions(self) -> MemoryBank | None:
        """The patches under known lesions; None without any."""
        return self._bank(~self._is_healthy)

    def _bank(self, chosen: NDArray[np.bool_]) -> MemoryBank | None:
        if not chosen.any():
            return None
        rows = np.flatnonzero(chosen)
        origin = Provenance(self.record[rows], self.cell[rows], np.arange(len(rows), dtype=np.int32))
        return MemoryBank(self.features[rows], origin, gpu=self.gpu)

    def ready(self) -> "Examples":
        """These, with their searches set up: on a GPU only one thread may do that."""
        _ = self.variants, self.lesions
        return self

    def counts(self) -> dict[str, int]:
        """Marks of each label."""
        labels = sorted(record.label for record in self.records)
        return {label: labels.count(label) for label in dict.fromkeys(labels)}

    def photo_ids(self) -> frozenset[str]:
        """Ids of the marked photographs."""
        return frozenset(record.photo for record in self.records)

    def evidence(self, bank: MemoryBank, row: int, distance: float, *, mirrored: bool) -> Evidence:
        """A patch of `variants` or `lesions` as evidence."""
        origin = bank.provenance
        record = self.records[origin.photo[row]]
        y, x = origin.cell[row].tolist()
        return Evidence(record.photo, distance, y, x, mirrored, record.label)

    def resembles(self, features: NDArray[np.float32], healthy_distance: float, count: int) -> Resemblance | None:
        """The kind of lesion that a region resembles; None without examples of lesions.

        Each patch's `VOTES` nearest examples vote for their kinds.

        Args:
            features: float32 (N, D), of the region's patches, that of its peak first.
            healthy_distance: of the peak, feature units.
            count: how many examples of the kind are named, nearest to the peak first.
        """
        bank = self.lesions
        if bank is None:
            return None
        of = min(VOTES, len(bank))
        nearest = bank.search(features, of)
        labels = [record.label for record in self.records]
        kinds = sorted(set(labels))
        number = np.array([kinds.index(label) for label in labels])[bank.provenance.photo]
        votes = np.bincount(number[nearest.rows].ravel(), minlength=len(kinds))
        # Of equal kinds the one that the peak's nearest example has.
        at_peak = number[nearest.rows[0]]
        best = max(range(len(kinds)), key=lambda kind: (votes[kind], -_first(at_peak, kind)))
        rows = np.flatnonzero(at_peak == best)[:count]
        of_kind = bank.memories[number == best]
        distance = float(np.sqrt(((of_kind - features[0]) ** 2).sum(axis=1).min()))
        return Resemblance(
            kind=kinds[best],
            share=float(votes[best] / votes.sum()),
            votes=int((at_peak == best).sum()),
            of=of,
            distance=distance,
            healthy_distance=healthy_distance,
            examples=tuple(
                self.evidence(
                    bank, int(nearest.rows[0, place]), float(nearest.distances[0, place]), mirrored=False
                )
                for place in rows
            ),
        )

    def quieted(
        self,
        features: NDArray[np.float32],
        mirrored: NDArray[np.float32] | None,
        distances: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Distances in which normal variants and artifacts count as healthy.

        A patch takes its distance to the nearest variant if that is less than `REACH` of its distance to the
        memories, and less than its distance to the nearest example of a lesion; other patches keep theirs.
        Variants that simply joined the memories would hide lesions of other photographs
        (docs/decisions/18-teaching.md).

        Args:
            features, mirrored: float32 (N, D); `mirrored` where mirror images are searched.
            distances: float32 (N,), to the memories.
        """
        if self.variants is None:
            return distances
        looks = [features] if mirrored is None else [features, mirrored]
        to_variant = np.min([_nearest(self.variants, look) for look in looks], axis=0)
        rows = np.flatnonzero(to_variant < REACH * distances)
        if self.lesions is not None and rows.size:
            lesions = self.lesions
            to_lesion = np.min([_nearest(lesions, look[rows]) for look in looks], axis=0)
            rows = rows[to_variant[rows] < to_lesion]
        result = distances.copy()
        result[rows] = to_variant[rows]
        return result

    def may_quiet(
        self,
        features: NDArray[np.float32],
        mirrored: NDArray[np.float32] | None,
        distances: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        """bool (N,): patches that `quieted` may change, if their distances are these or smaller."""
        if self.variants is None:
            return np.zeros(len(features), np.bool_)
        looks = [features] if mirrored is None else [features, mirrored]
        near: NDArray[np.bool_] = (
            np.min([_nearest(self.variants, look) for look in looks], axis=0) < REACH * distances
        )
        return near

    def save(self, folder: Path) -> None:
        """Write both files into `folder`."""
        np.savez(folder / EXAMPLES_FILE, features=self.features, record=self.record, cell=self.cell)
        lines = (_RECORD.dump_json(record) + b"\n" for record in self.records)
        (folder / EXAMPLE_RECORDS_FILE).write_bytes(b"".join(lines))

    def only(self, keep: Sequence[bool]) -> "Examples":
        """The examples of these records alone."""
        rows = np.flatnonzero(keep)
        chosen = np.isin(self.record, rows)
        number = np.searchsorted(rows, self.record[chosen]).astype(np.int32)
        records = tuple(self.records[row] for row in rows)
        return Examples(records, self.features[chosen], number, self.cell[chosen], self.gpu)

    def with_others(self, others: "Examples") -> "Examples":
        """These and the others; a mark that is in both is taken from these."""
        known = {record.id for record in self.records}
        others = others.only([record.id not in known for record in others.records])
        if not others.records:
            return self
        if not self.records:
            return others
        return Examples(
            (*self.records, *others.records),
            np.concatenate([self.features, others.features]),
            np.concatenate([self.record, others.record + np.int32(len(self.records))]),
            np.concatenate([self.cell, others.cell]),
            self.gpu,
        )


def no_examples(dimension: int, gpu: int | None = None) -> Examples:
    """Of a version that has learned nothing."""
    return Examples(
        (), np.zeros((0, dimension), np.float32), np.zeros(0, np.int32), np.zeros((0, 2), np.int16), gpu
    )


def load_examples(folder: Path, dimension: int, gpu: int | None = None) -> Examples:
    """What the version in `folder` has learned; raises `IndexInvalid` for damaged files."""
    path = folder / EXAMPLES_FILE
    if not path.is_file():
        return no_examples(dimension, gpu)
    records = read_example_records(folder)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features, record, cell = arrays["features"], arrays["record"], arrays["cell"]
    except Exception as error:  # NumPy and its zip reader raise about ten types for a damaged file
        raise IndexInvalid(f"{path} cannot be read") from error
    counts = [entry.patches for entry in records]
    if (
        features.dtype != np.float32
        or features.shape != (len(record), dimension)
        or record.dtype.kind != "i"
        or cell.shape != (len(record), 2)
        or (record < 0).any()
        or np.bincount(record, minlength=len(records)).tolist() != counts
    ):
        raise IndexInvalid(f"{path} does not hold the patches of {EXAMPLE_RECORDS_FILE}")
    return Examples(records, features, record, cell, gpu)


def read_example_records(folder: Path) -> tuple[ExampleRecord, ...]:
    """The marks that the version in `folder` has learned; raises `IndexInvalid`, naming the line."""
    path = folder / EXAMPLE_RECORDS_FILE
    records = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], start=1):
        try:
            records.append(_RECORD.validate_json(line))
        except ValidationError as error:
            raise IndexInvalid(f"{path}, line {number}: {first_fault(error)}") from error
    return tuple(records)


def _nearest(bank: MemoryBank, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (N,): the distance of each patch to its nearest memory."""
    distances: NDArray[np.float32] = bank.search(features, 1).distances[:, 0]
    return distances


def _first(values: NDArray[np.intp], wanted: int) -> float:
    places = np.flatnonzero(values == wanted)
    return float(places[0]) if places.size else math.inf
