"""The block-lazy greedy k-centre against the textbook loop: seconds, covering radius and shared picks.

Run as `python -m benchmarks.coreset`; with RESAD_DATA also on real ReSC features.  With `--anomalib PYTHON` also
against anomalib's KCenterGreedy; PYTHON is that of a virtual environment where `pip install anomalib` was done.
`--paper` takes the paper's size alone, on any `--device`, beside the time that its products alone would take.
"""

import json as json_module
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import numpy as np
import torch
import typer
from sklearn.random_projection import SparseRandomProjection
from torch import Tensor

from benchmarks._bench import Json, Quick, median_time, print_header, print_table, product_rate, write_json
from benchmarks._idrid import encoder_for, healthy
from indexer.coreset.k_center import Coreset, greedy_k_center, shards_of
from indexer.coreset.projected_features import BLOCK_ROWS
from resad import runtime

_RANK: Final = 32
"""Of the drawn points: the features of real patches, too, lie near a subspace."""
_SIDE: Final = 784


class Shape(NamedTuple):
    """Points, dimensions after the Johnson-Lindenstrauss projection (eps 0.90) of so many points, and picks."""

    points: int
    dimension: int
    picks: int


_FULL: Final = (Shape(20_000, 244, 2_000), Shape(48_020, 266, 4_802))
_QUICK: Final = (Shape(2_000, 64, 200),)
_PAPER: Final = Shape(1_286_936, 347, 128_694)
_PAPER_QUICK: Final = Shape(20_000, 64, 2_000)


@dataclass(frozen=True, slots=True)
class Compared:
    """Seconds: medians.  Radii: in the points' units.  shared: picks that both made.  in_order: equal ones before
    the first that differs.
    """

    points: str
    textbook_seconds: float
    blocks_seconds: float
    textbook_radius: float
    blocks_radius: float
    shared: int
    in_order: int


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """One run in a process of its own.  grown: the largest resident memory less that before, bytes."""

    seconds: float
    grown: float
    rows: list[int]


@dataclass(frozen=True, slots=True)
class Versus:
    """Both from the same first point; radii by direct distances, in the points' units."""

    points: str
    theirs_seconds: float
    ours_seconds: float
    theirs_grown: float
    ours_grown: float
    theirs_radius: float
    ours_radius: float
    shared: int


@dataclass(frozen=True, slots=True)
class Alone:
    """One size on one device.  seconds: median.  floor: of the products alone, at the rate of large ones.

    device_peak: bytes that torch held on the device at most; 0 on the CPU.
    """

    points: str
    device: str
    seconds: float
    floor: float
    radius: float
    device_peak: int


def main(
    quick: Quick = False,
    json: Json = None,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's size alone, 1.29 million points.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda:N, for --paper.")] = "cpu",
    anomalib: Annotated[Path | None, typer.Option(help="Python that has anomalib installed.")] = None,
) -> None:
    """Time the greedy against the textbook loop."""
    runtime.configure("exact")
    if paper:
        alone = _alone(_PAPER_QUICK if quick else _PAPER, runtime.pick_device(device), 1 if quick else 3)
        _print_alone(alone)
        write_json(json, alone)
        return
    shapes, repeats = (_QUICK, 1) if quick else (_FULL, 3)
    print_header(
        "Greedy k-centre: block-lazy against the textbook loop",
        f"float32 on the CPU, medians of {repeats}; drawn points: Gaussian of rank {_RANK}, a little noise. "
        "The textbook loop is one matrix-vector product and one minimum a pick, in torch.",
    )
    compared, versus = [], []
    for kind, points, picks in _point_sets(shapes, real=not quick):
        name = f"{kind}, {points.shape[0]:,} x {points.shape[1]} -> {picks:,}"
        compared.append(_compare(name, points, picks, repeats))
        if anomalib is not None:
            versus.append(_versus(name, points, picks, anomalib))
    _print(compared)
    if versus:
        _print_versus(versus)
    write_json(json, compared)


def textbook(points: Tensor, first: int, count: int) -> Coreset:
    """One pick after another, each the farthest from all before; every pick reads all points once."""
    points = points - points.mean(dim=0)
    norms = torch.einsum("nd,nd->n", points, points)
    squared = torch.full_like(norms, torch.inf)
    picks = [first]
    while True:
        pick = picks[-1]
        away = torch.addmv(norms, points, points[pick], alpha=-2) + norms[pick]
        torch.minimum(squared, away.clamp_(min=0), out=squared)
        squared[pick] = 0
        if len(picks) == count:
            return Coreset(np.asarray(picks, dtype=np.int64), float(squared.max()) ** 0.5)
        picks.append(int(squared.argmax()))


def _compare(name: str, points: Tensor, picks: int, repeats: int) -> Compared:
    slow = median_time(lambda: textbook(points, 0, picks), repeats)
    fast = median_time(lambda: greedy_k_center(shards_of(points, 16 * BLOCK_ROWS), 0, count=picks), repeats)
    a, b = slow.result, fast.result
    unequal = np.flatnonzero(a.rows != b.rows)
    return Compared(
        points=name,
        textbook_seconds=slow.seconds,
        blocks_seconds=fast.seconds,
        textbook_radius=a.radius,
        blocks_radius=b.radius,
        shared=len(np.intersect1d(a.rows, b.rows)),
        in_order=int(unequal[0]) if len(unequal) else picks,
    )


def _alone(shape: Shape, device: torch.device, repeats: int) -> Alone:
    print_header(
        "Greedy k-centre at the paper's size",
        f"float32 without TF32, on {device}, medians of {repeats} after one that is not counted; drawn points: "
        f"Gaussian of rank {_RANK}, a little noise.",
    )
    points = _drawn(shape).to(device)

    def pick() -> Coreset:
        return greedy_k_center(shards_of(points, 16 * BLOCK_ROWS), 0, count=shape.picks)

    pick()
    timed = median_time(pick, repeats)
    return Alone(
        points=f"{shape.points:,} x {shape.dimension} -> {shape.picks:,}",
        device=str(device),
        seconds=timed.seconds,
        floor=2.0 * shape.points * shape.dimension * shape.picks / product_rate(device),
        radius=timed.result.radius,
        device_peak=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
    )


def _versus(name: str, points: Tensor, picks: int, python: Path) -> Versus:
    """One run each, processes of their own, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "points.npy"
        np.save(file, points.numpy())
        script = Path(__file__).with_name("_anomalib.py")
        their_run = _ran([str(python), str(script), "greedy", "anomalib", str(file), str(picks)])
        our_run = _ran(
            [
                sys.executable,
                "-m",
                "benchmarks._anomalib",
                "greedy",
                "resad",
                str(file),
                str(picks),
                str(their_run.rows[0]),
            ]
        )
    return Versus(
        points=name,
        theirs_seconds=their_run.seconds,
        ours_seconds=our_run.seconds,
        theirs_grown=their_run.grown,
        ours_grown=our_run.grown,
        theirs_radius=_radius(points, their_run.rows),
        ours_radius=_radius(points, our_run.rows),
        shared=len(set(their_run.rows) & set(our_run.rows)),
    )


def _ran(line: list[str]) -> Ran:
    # Otherwise glibc raises the size from which it gives memory back, and the loop's temporaries stay mapped.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    process = subprocess.run(line, capture_output=True, text=True, check=True, env=env)
    return Ran(**json_module.loads(process.stdout.splitlines()[-1]))


def _radius(points: Tensor, rows: list[int]) -> float:
    """The largest distance from any point to its nearest pick, in float64."""
    picks = points[rows].double()
    return max(float(torch.cdist(block.double(), picks).amin(dim=1).max()) for block in torch.split(points, 2048))


def _point_sets(shapes: tuple[Shape, ...], *, real: bool) -> Iterator[tuple[str, Tensor, int]]:
    for shape in shapes:
        yield "drawn", _drawn(shape), shape.picks
    if real and "RESAD_DATA" in os.environ:
        features = _real_features(Path(os.environ["RESAD_DATA"]))
        for shape in shapes:
            yield "real", _projected(features, shape), shape.picks


def _drawn(shape: Shape) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(shape.points, _RANK, generator=generator)
    basis = torch.randn(_RANK, shape.dimension, generator=generator)
    return spread @ basis + 0.1 * torch.randn(shape.points, shape.dimension, generator=generator)


def _real_features(shared: Path) -> Tensor:
    """All patches (N, 384) of the healthy training photographs, as the preset `resad` combines them."""
    photos = healthy(shared, _SIDE)
    encoder = encoder_for(shared, _SIDE)
    encoded = (encoder.encode([photo])[0] for photo in photos)
    return torch.from_numpy(np.concatenate([patches.features for patches in encoded]))


def _projected(features: Tensor, shape: Shape) -> Tensor:
    """Some of the patches, drawn at random, in the dimensions the greedy would measure them in."""
    rows = np.random.default_rng(0).choice(len(features), shape.points, replace=False)
    projection = SparseRandomProjection(shape.dimension, random_state=0, dense_output=True)
    projected = projection.fit_transform(features[np.sort(rows)].numpy())
    return torch.from_numpy(projected.astype(np.float32))


def _print(compared: list[Compared]) -> None:
    print_table(
        "Same first point, same number of picks",
        (
            "points",
            "textbook, s",
            "block-lazy, s",
            "times faster",
            "radius, textbook",
            "radius, block-lazy",
            "picks shared",
            "same order up to",
        ),
        [
            (
                row.points,
                f"{row.textbook_seconds:.2f}",
                f"{row.blocks_seconds:.2f}",
                f"{row.textbook_seconds / row.blocks_seconds:.1f}",
                f"{row.textbook_radius:.6g}",
                f"{row.blocks_radius:.6g}",
                f"{row.shared:,}",
                f"{row.in_order:,}",
            )
            for row in compared
        ],
    )


def _print_alone(alone: Alone) -> None:
    print_table(
        "Block-lazy greedy; the floor is its distances as one matrix product",
        ("points", "device", "s", "floor, s", "times the floor", "radius", "peak on the device, GB"),
        [
            (alone.points, alone.device, f"{alone.seconds:.2f}", f"{alone.floor:.2f}",
             f"{alone.seconds / alone.floor:.1f}", f"{alone.radius:.6g}",
             f"{alone.device_peak / 1e9:.2f}" if alone.device_peak else "-")
        ],
    )  # fmt: skip


def _print_versus(versus: list[Versus]) -> None:
    print_table(
        "Against anomalib's KCenterGreedy, the same points and first pick, one run each",
        ("points", "anomalib, s", "block-lazy, s", "times faster", "anomalib, MB more", "block-lazy, MB more",
         "radius, anomalib", "radius, block-lazy", "picks shared"),
        [
            (
                row.points,
                f"{row.theirs_seconds:.2f}",
                f"{row.ours_seconds:.2f}",
                f"{row.theirs_seconds / row.ours_seconds:.1f}",
                f"{row.theirs_grown / 1e6:.0f}",
                f"{row.ours_grown / 1e6:.0f}",
                f"{row.theirs_radius:.6g}",
                f"{row.ours_radius:.6g}",
                f"{row.shared:,}",
            )
            for row in versus
        ],
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
