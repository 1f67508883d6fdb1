"""`make demo`: draw photographs, build an index, serve it and score photographs, with the commands users type.

`make serve` does the same and leaves the service running until Ctrl-C.
"""

import argparse
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image

from indexer.photos.listing import PhotoRow, list_references, rows_csv
from resad.calibration import USUAL_RATE, normals_needed
from resad.errors import SettingError

_SECONDS_TO_START: Final = 120.0
_MARK: Final = "MADE_BY_DEMO"
_BIN: Final = Path(sys.executable).parent
_PANEL_WIDTH: Final = 600
_TEST_PHOTOS: Final = 4


def main() -> None:
    """Run the demo; the pictures and answers stay in the folder `--out`."""
    options = _options()
    out: Path = options.out
    _empty(out)
    drawn = out / "drawn"
    split = _split(options.photos, out) if options.photos else None
    if split is None:
        _run("resad-indexer", "draw", drawn, "--train", "30", "--good", "4", "--diseased", "4")
    healthy, new = split or (options.photos or drawn / "train/good", [drawn / "test"])
    _run(
        "resad-indexer", "build", healthy, "--root", out / "indexes", "--name", "demo",
        *_trunk(options), "--size", "384", "--coreset", "0.05",
    )  # fmt: skip
    _run("resad-indexer", "verify", out / "indexes/demo")
    if not options.photos:
        _run("resad-indexer", "evaluate", out / "indexes/demo", "--data", drawn, "--json", out / "figures.json")
    with _service(out / "indexes", out / "service.log") as url:
        _run(
            "resad-client", "score", *new, "--url", url,
            "--json", out / "answers", "--overlays", out / "pictures",
        )  # fmt: skip
        _contact_sheet(sorted((out / "pictures").rglob("*.png")), out / "pictures.png")
        print(
            f"\npictures:  {out / 'pictures.png'} (all), {out / 'pictures'} (each)\nanswers:   {out / 'answers'}"
        )
        if split:
            print(f"These {len(new)} of your photographs are not in the index; healthy ones should stay plain.")
        if options.stay:
            _print_addresses(url, new[0] if split else min((drawn / "test/lesion").glob("*.jpg")))
            _wait_for_interrupt()
        else:
            print("make serve does the same and leaves the service running, with its web page")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything; replaced")
    parser.add_argument("--photos", type=Path, help="your own healthy photographs to build from")
    parser.add_argument("--backbone", default="bundled", help="trunk, as of resad-indexer build")
    parser.add_argument("--weights", help="weights of the trunk, as of resad-indexer build")
    parser.add_argument("--stay", action="store_true", help="leave the service running until Ctrl-C")
    return parser.parse_args()


def _split(photos: Path, out: Path) -> tuple[Path, list[Path]] | None:
    """A CSV of the photographs to build from, and up to four photographs of other patients to score.

    None if too few would remain for verdicts; then drawn photographs are scored.
    """
    try:
        references = list_references(photos)
    except SettingError as error:
        sys.exit(f"make demo: {error}")
    test = references[:: max(1, len(references) // _TEST_PHOTOS)][:_TEST_PHOTOS]
    test_patients = {photo.patient for photo in test} - {None}
    train = [photo for photo in references if photo not in test and photo.patient not in test_patients]
    if len(train) < normals_needed(USUAL_RATE):
        print(f"{len(references)} photographs are too few to keep some out of the index. Drawn ones are scored; "
              "they look abnormal beside yours, as photographs of another camera do.", flush=True)  # fmt: skip
        return None
    table = out / "photos.csv"
    rows = (PhotoRow(photo.path, patient=photo.patient, camera=photo.camera) for photo in train)
    table.write_bytes(rows_csv(rows))
    return table, [photo.path for photo in test]


def _empty(out: Path) -> None:
    """Make the demo's folder; replace that of an earlier demo, and refuse any other folder."""
    if out.exists() and not (out / _MARK).is_file():
        sys.exit(f"make demo: {out} exists and was not made by the demo; name another folder with DEMO_OUT=")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).write_text("Made by `make demo`, and replaced by the next.\n")


def _trunk(options: argparse.Namespace) -> list[str]:
    """Options for the trunk; by default the one inside the package, so that the demo needs no network."""
    weights = ["--weights", options.weights] if options.weights else []
    return ["--backbone", options.backbone, *weights]


def _run(program: str, *arguments: object) -> None:
    words = [str(argument) for argument in arguments]
    print(f"\n$ {program} {' '.join(words)}", flush=True)
    code = subprocess.run((_BIN / program, *words), check=False).returncode
    if code:
        sys.exit(code)


@contextmanager
def _service(root: Path, log: Path) -> Iterator[str]:
    """Start a service on a free port; yields its address once it is ready, and stops it at the end."""
    print(f"\n$ resad-service --root {root} --port 0 2> {log} &", flush=True)
    command = (_BIN / "resad-service", "--root", root, "--port", "0")
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        line = process.stdout.readline().strip() if process.stdout else ""
        print(line, flush=True)
        url = next((word for word in line.split() if word.startswith("http://")), "")
        if not _wait_until_ready(url, process):
            sys.exit(f"the service did not become ready:\n{log.read_text()}")
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[str]") -> bool:
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return True
        except (OSError, ValueError):
            time.sleep(0.2)
    return False


def _contact_sheet(paths: list[Path], target: Path) -> None:
    """All pictures on one sheet, in two columns."""
    pictures = [_resized(path) for path in paths]
    row_height = max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (2 * _PANEL_WIDTH, row_height * ((len(pictures) + 1) // 2)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % 2 * _PANEL_WIDTH, number // 2 * row_height))
    sheet.save(target)


def _resized(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        height = round(picture.height * _PANEL_WIDTH / picture.width)
        return picture.convert("RGB").resize((_PANEL_WIDTH, height))


def _print_addresses(url: str, photo: Path) -> None:
    print(f"page:      {url}/\ncontract:  {url}/docs")
    print(f"by hand:   curl -H 'Content-Type: image/jpeg' --data-binary @{photo} {url}/v1/score")


def _wait_for_interrupt() -> None:
    print("serving; Ctrl-C stops", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
