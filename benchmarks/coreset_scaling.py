"""How time and memory of the coreset grow with the patches: real ReSC features, and drawn ones beyond.

Run as `python -m benchmarks.coreset_scaling`; takes RESAD_DATA.
"""

import json as json_module
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import numpy as np
import typer
from PIL import Image

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._chart import Series, chart
from benchmarks._idrid import encoder_for, healthy
from indexer.feature_store import FeatureStore
from indexer.synthetic import draw_photo
from resad.config import PhotoLimits, PreparationConfig
from resad.preparation import PreparedPhoto, prepare

_REAL: Final = (25_000, 50_000, 100_000, 200_000)
_MIXED: Final = 400_000
_SHARE: Final = 0.02
_SIDE: Final = 784

Plot = Annotated[Path | None, typer.Option("--plot", help="Write the curves here, as SVG.")]


@dataclass(frozen=True, slots=True)
class Selected:
    """One size.  Seconds: median.

    grown: the largest memory of the process's own less that before, bytes; pages of mapped files are not counted.
    """

    patches: int
    dimension: int
    memories: int
    drawn: bool
    held_seconds: float
    stored_seconds: float
    held_grown: float
    stored_grown: float
    same: bool


def main(quick: Quick = False, json: Json = None, plot: Plot = None) -> None:
    """Select from ever more patches, with the points in memory and in a file."""
    shared = shared_data()
    side, real, mixed, repeats = (128, (1_000, 2_000), 4_000, 1) if quick else (_SIDE, _REAL, _MIXED, 3)
    print_header(
        "The coreset by number of patches",
        f"ResNet-18 features of IDRiD's healthy photographs at {side} px, preset resad, share {_SHARE}, the "
        f"Johnson-Lindenstrauss projection included, CPU, medians of {repeats}; each run is a process of its own; "
        "mapped files are not counted as memory.",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "features"
        known = _fill(folder, shared, side, mixed)
        found = [_selected(folder, known, wanted, mixed, repeats) for wanted in (*real, mixed)]
    _print(found)
    if plot is not None:
        plot.write_text(_chart(found))
    write_json(json, found)


def _fill(folder: Path, shared: Path, side: int, wanted: int) -> list[tuple[int, bool]]:
    """Patches of each photograph that was stored, and whether it is drawn: real ones first."""
    photos = healthy(shared, side)
    encoder = encoder_for(photos, shared, side)
    store, known, total = FeatureStore(folder), [], 0
    described = []
    for photo, drawn in _photos(photos, encoder.config.preparation):
        patches = encoder.encode([photo])[0]
        store.append(patches)
        known.append((len(patches.cells), drawn))
        described.append((patches.grid, len(patches.cells)))
        total += len(patches.cells)
        if total >= wanted:
            break
    (folder / "known.json").write_text(json_module.dumps(described))
    return known


def _photos(real: Sequence[PreparedPhoto], preparation: PreparationConfig) -> Iterator[tuple[PreparedPhoto, bool]]:
    """The real ones, then drawn ones without end; and whether each is drawn."""
    for photo in real:
        yield photo, False
    number = 0
    while True:
        drawn, file = draw_photo(np.random.default_rng(number), height=512), BytesIO()
        Image.fromarray(drawn.pixels).save(file, "PNG")
        yield prepare(file.getvalue(), preparation, PhotoLimits()), True
        number += 1


def _selected(folder: Path, known: Sequence[tuple[int, bool]], wanted: int, mixed: int, repeats: int) -> Selected:
    """The first photographs that have so many patches; the real ones alone, unless that is more than they have."""
    sums = np.cumsum([count for count, _ in known])
    photos = min(int(np.searchsorted(sums, wanted)) + 1, len(known))
    held, stored = ([_run(folder, photos, where) for _ in range(repeats)] for where in ("held", "stored"))
    first = held[0]
    return Selected(
        patches=int(first["patches"]),
        dimension=int(first["dimension"]),
        memories=int(first["memories"]),
        drawn=any(drawn for _, drawn in known[:photos]),
        held_seconds=median(one["seconds"] for one in held),
        stored_seconds=median(one["seconds"] for one in stored),
        held_grown=max(one["peak"] for one in held),
        stored_grown=max(one["peak"] for one in stored),
        same=all(one["radius"] == first["radius"] for one in (*held, *stored)),
    )


def _run(folder: Path, photos: int, where: str) -> dict[str, float]:
    line = [sys.executable, "-m", "benchmarks._coreset_run", str(folder), str(photos), str(_SHARE), where]
    ran = subprocess.run(line, capture_output=True, text=True, check=True)
    found: dict[str, float] = json_module.loads(ran.stdout)
    return found


def _print(found: Sequence[Selected]) -> None:
    print_table(
        "Points held in memory, and in a file that is read block by block",
        ("patches", "d", "memories", "held, s", "stored, s", "held, MB more", "stored, MB more", "same radius"),
        [
            (
                f"{one.patches:,}{' (some drawn)' if one.drawn else ''}",
                f"{one.dimension}",
                f"{one.memories:,}",
                f"{one.held_seconds:.1f}",
                f"{one.stored_seconds:.1f}",
                f"{one.held_grown / 1e6:.0f}",
                f"{one.stored_grown / 1e6:.0f}",
                "yes" if one.same else "NO",
            )
            for one in found
        ],
    )


def _chart(found: Sequence[Selected]) -> str:
    patches = [float(one.patches) for one in found]
    return chart(
        "patches",
        (
            ("seconds", (Series("held", patches, [one.held_seconds for one in found]),
                         Series("stored", patches, [one.stored_seconds for one in found]))),
            ("MB more than before", (Series("held", patches, [one.held_grown / 1e6 for one in found]),
                                     Series("stored", patches, [one.stored_grown / 1e6 for one in found]))),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
