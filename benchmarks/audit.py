"""Where diseased photographs rank that were planted among the normals: alone, and two at a time.

Run as `python -m benchmarks.audit [--size 256]`; takes RESAD_DATA.  Each of IDRiD's diseased test photographs is
put among the 36 healthy training photographs, the bank is made of them all, and each is scored without its own
memories, as `build` does.  Planted in pairs, two may vouch for each other.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import typer

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._held import Rows, Seen, index_of, look_at
from benchmarks._idrid import CORESET, Variant, data_set
from resad import runtime

_SEED: Final = 0
_PER_TENTH: Final = 10


@dataclass(frozen=True, slots=True)
class Planted:
    """One diseased photograph.  rank: 1 for the highest score.  beside: what was planted with it."""

    photo: str
    beside: str | None
    rank: int
    of: int


def main(
    size: Annotated[int, typer.Option(help="Side of the prepared square, px.")] = 256,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Print the table."""
    shared = shared_data()
    runtime.configure("exact")
    folder = data_set(shared)
    normals = sorted((folder / "train" / "good").iterdir())
    diseased = sorted((folder / "test" / "lesion").iterdir())
    if quick:
        size, normals, diseased = 128, normals[:8], diseased[:4]
    weights = str(shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors")
    seen = look_at([*normals, *diseased], Variant("resad"), size, weights)
    names = [path.stem for path in diseased]
    ill = np.arange(len(normals), len(normals) + len(diseased))
    alone = [one for row in ill for one in _plant(seen, np.array([row]), len(normals), names)]
    # A ring: each photograph once with the next one in a random order, and once with the one before.
    ring = np.random.default_rng(_SEED).permutation(ill)
    pairs = np.stack([ring, np.roll(ring, 1)], axis=1)
    paired = [one for pair in pairs for one in _plant(seen, pair, len(normals), names)]
    print_header(
        "Diseased photographs planted among the normals",
        f"ResNet-18 (ImageNet), size {size}, coreset {CORESET}; {len(normals)} healthy training photographs and "
        f"{len(diseased)} diseased test photographs of IDRiD.",
    )
    headings = ["planted", "cases", "first", "in the first three", "in the first tenth", "median rank", "worst"]
    print_table("Rank by the left-out score", headings, [_row("one", alone), _row("two", paired)])
    write_json(json, (alone, paired))


def _plant(seen: Seen, rows: Rows, normals: int, names: list[str]) -> list[Planted]:
    """The ranks of the photographs `rows` among the normals and themselves."""
    everyone = np.concatenate([np.arange(normals), rows])
    encoded = seen.fitted(everyone)
    scores = np.array(index_of(encoded, everyone).left_out.scores)
    found = []
    for place, row in enumerate(rows):
        # The others that were planted stand aside: what is asked is which normals come before.
        above = int((scores[:normals] > scores[normals + place]).sum())
        beside = [names[other - normals] for other in rows if other != row]
        found.append(Planted(names[row - normals], beside[0] if beside else None, above + 1, normals + 1))
    return found


def _row(name: str, planted: list[Planted]) -> list[str]:
    ranks = np.array([one.rank for one in planted])
    tenth = -(-planted[0].of // _PER_TENTH)
    shares = (f"{np.mean(ranks <= limit):.0%}" for limit in (1, 3, tenth))
    return [name, str(len(ranks)), *shares, f"{np.median(ranks):g} of {planted[0].of}", str(ranks.max())]


if __name__ == "__main__":
    typer.run(main)
