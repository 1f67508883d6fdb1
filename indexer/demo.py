"""`make demo`: draw photographs, build an index, score, show what came out; each step as a user would type it."""

import argparse
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from torchvision.models import get_model_weights

_BACKBONE: Final = "resnet18"
_SECONDS_TO_TRY: Final = 3.0
_UNTRAINED: Final = "random:0"
_PANEL_WIDTH: Final = 600


def main() -> None:
    """Run the demo; the pictures and answers stay in the folder `--out`."""
    options = _options()
    out: Path = options.out
    weights = options.weights or _weights_at_hand()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    drawn = out / "drawn"
    _run("draw", drawn, "--train", "30", "--good", "4", "--diseased", "4")
    healthy = options.photos or drawn / "train/good"
    tested = (drawn / "test/good", drawn / "test/lesion")
    _run(
        "build", healthy, "--root", out / "indexes", "--name", "demo",
        "--backbone", _BACKBONE, "--weights", weights, "--size", "384", "--coreset", "0.05",
    )  # fmt: skip
    index = out / "indexes/demo"
    _run("verify", index)
    _run("score", index, *tested, "--out", out / "answers")
    _run("evaluate", index, "--data", drawn, "--json", out / "figures.json")
    _contact_sheet(sorted((out / "answers").glob("*_overlay.png")), out / "overlays.png")
    print(f"\nOverlays: {out / 'overlays.png'}   one JSON, map and overlay per photograph: {out / 'answers'}")
    if weights == _UNTRAINED:
        print(
            "NOTE: no trained weights were at hand and none could be downloaded, so the trunk was UNTRAINED: the "
            "pipeline is real, the maps mean little.\nWith your own: make demo WEIGHTS=resnet18.pth PHOTOS=folder"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything; replaced")
    parser.add_argument("--photos", type=Path, help="your own healthy photographs to build from")
    parser.add_argument("--weights", help=f"weights of {_BACKBONE}: a file, or imagenet1k_v1")
    return parser.parse_args()


def _weights_at_hand() -> str:
    """ImageNet weights if torchvision has them here or can fetch them, else an untrained trunk."""
    named = get_model_weights(_BACKBONE)["IMAGENET1K_V1"]
    if (Path(torch.hub.get_dir()) / "checkpoints" / Path(named.url).name).is_file():
        return "imagenet1k_v1"
    try:
        with urllib.request.urlopen(named.url, timeout=_SECONDS_TO_TRY):
            return "imagenet1k_v1"
    except OSError:
        return _UNTRAINED


def _run(*arguments: object) -> None:
    words = [str(argument) for argument in arguments]
    print(f"\n$ resad-indexer {' '.join(words)}", flush=True)
    command = (sys.executable, "-c", "from indexer.cli import main; main()", *words)
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _contact_sheet(paths: list[Path], target: Path) -> None:
    """All overlays in two columns: healthy photographs first."""
    pictures = [_narrowed(path) for path in paths]
    row_height = max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (2 * _PANEL_WIDTH, row_height * ((len(pictures) + 1) // 2)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % 2 * _PANEL_WIDTH, number // 2 * row_height))
    sheet.save(target)


def _narrowed(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB").resize((_PANEL_WIDTH, round(picture.height * _PANEL_WIDTH / picture.width)))


if __name__ == "__main__":
    main()
