"""`make demo`: draw photographs, build an index, serve it and score photographs, with the commands users type.

`make serve` does the same and leaves the service running until Ctrl-C.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from resad_client.records import INTENDED_USE, Result, read_result
from resad_client.tables import warning_lines
from resad_client.text import counted, printable
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy import ndimage

from indexer.photos.listing import PhotoRow, list_references, rows_csv
from resad.calibration import USUAL_RATE, normals_needed
from resad.errors import SettingError

_SECONDS_TO_START: Final = 120.0
_MARK: Final = "MADE_BY_DEMO"
_TEST_PHOTOS: Final = 4
_SIZE: Final = 384
PANEL_HEIGHT: Final = 420
"""Of a picture on the sheet, px."""
Mask: TypeAlias = NDArray[np.bool_]
"""Where lesions were drawn, (H, W) of the photograph."""
_RING: Final = (90, 200, 255)
"""Outline of drawn lesions: a retina has no blue."""


def main() -> None:
    """Run the demo; the pictures and answers stay in the folder `--out`."""
    options = _options()
    out: Path = options.out
    _empty(out)
    split = _split(options.photos, out) if options.photos else None
    drawn = None if split else out / "drawn"
    steps = Steps(total=4 + (drawn is not None), logs=out / "logs")
    if drawn:
        steps.begin("Draw photographs: 30 healthy ones, 4 more and 4 with lesions to be scored")
        steps.run("resad-indexer", "draw", drawn, "--train", "30", "--good", "4", "--diseased", "4")
    healthy, new = split or (
        options.photos or out / "drawn/train/good",
        sorted((out / "drawn/test").glob("*/*.jpg")),
    )
    steps.begin("Build the index from the healthy photographs alone")
    steps.run(
        "resad-indexer", "build", healthy, "--root", out / "indexes", "--name", "demo",
        *_trunk(options), "--size", str(_SIZE), "--coreset", "0.05",
    )  # fmt: skip
    steps.begin("Check every file of the index, and that it scores as when it was built")
    steps.run("resad-indexer", "verify", out / "indexes/demo")
    steps.begin("Serve it over HTTP")
    with _service(steps, out / "indexes") as url:
        steps.begin(f"Score {counted(len(new), 'photograph')} that the index has not seen")
        steps.run("resad-client", "score", *(split[1] if split else [out / "drawn/test"]), "--url", url,
                  "--json", out / "answers", "--overlays", out / "pictures")  # fmt: skip
        seen = _seen(out, new, drawn)
        contact_sheet(seen, out / "pictures.png")
        _print_table(seen)
        print("\n" + "\n".join(sentences(seen, own_index=options.photos is not None)))
        print(f"\npictures:  {out / 'pictures.png'}\nanswers:   {out / 'answers'}\nlogs:      {out / 'logs'}")
        if options.stay:
            _print_addresses(url, new[-1] if drawn else new[0])
            _wait_for_interrupt()
        else:
            print("make serve does the same and leaves the service running, with its web page")


@dataclass(slots=True)
class Steps:
    """Prints the numbered steps; what their commands print goes to a log, but for progress and warnings."""

    total: int
    logs: Path
    programs: Path = Path(sys.executable).parent
    number: int = 0
    log: Path = field(init=False)

    def begin(self, text: str) -> None:
        """Print the next step's line."""
        self.number += 1
        print(f"\n[{self.number}/{self.total}] {text}", flush=True)

    def run(self, program: str, *arguments: object) -> None:
        """Run a command of this project; ends the demo with the command's code and its output if it fails."""
        words = [str(argument) for argument in arguments]
        self.show(f"$ {program} {' '.join(words)}")
        began = time.monotonic()
        with (
            self.open_log(program).open("w", encoding="utf-8") as log,
            subprocess.Popen(
                (self.programs / program, *words), stdout=log, stderr=subprocess.PIPE, text=True, errors="replace"
            ) as process,
        ):
            for line in process.stderr or ():
                log.write(line)
                self.show(line.rstrip())
            code = process.wait()
        if code:
            print(self.log.read_text(encoding="utf-8"), file=sys.stderr)
            sys.exit(code)
        self.show(f"done in {time.monotonic() - began:.0f} s")

    def open_log(self, program: str) -> Path:
        """The path of this step's log."""
        self.logs.mkdir(exist_ok=True)
        self.log = self.logs / f"{self.number}-{program}.log"
        return self.log

    @staticmethod
    def show(line: str) -> None:
        """Print a line below the step's own."""
        print(f"      {printable(line)}", flush=True)


@dataclass(frozen=True, slots=True)
class SeenPhoto:
    """A scored photograph.  mask: True where lesions were drawn; None if nobody knows where lesions are."""

    path: Path
    name: str
    result: Result
    overlay: Path
    mask: Mask | None

    @property
    def kind(self) -> str:
        """What is known about it."""
        if self.mask is None:
            return "yours, left out"
        return f"{counted(self.lesions, 'lesion')} drawn" if self.lesions else "drawn, healthy"

    @property
    def lesions(self) -> int:
        """Connected regions of the mask."""
        return 0 if self.mask is None else int(ndimage.label(self.mask, np.ones((3, 3)))[1])

    @property
    def touched(self) -> int:
        """Lesions that a finding touches."""
        if self.mask is None:
            return 0
        covered = Image.new("1", (self.mask.shape[1], self.mask.shape[0]))
        draw = ImageDraw.Draw(covered)
        for finding in self.result.findings:
            draw.polygon(list(finding.contour), fill=1, outline=1)
        numbered, _ = ndimage.label(self.mask, np.ones((3, 3)))
        return len(set(np.unique(numbered[np.asarray(covered)]).tolist()) - {0})


def _seen(out: Path, photos: Sequence[Path], drawn: Path | None) -> list[SeenPhoto]:
    """The answers, in the order of `photos`."""
    seen = []
    for answer in sorted((out / "answers").rglob("*.json")):
        name = json.loads(answer.read_bytes())["file_name"]
        path = next(photo for photo in photos if photo.as_posix().endswith(name))
        place = answer.relative_to(out / "answers").with_suffix("")
        overlay = out / "pictures" / f"{place}_overlay.png"
        mask = _drawn_mask(path, drawn) if drawn else None
        seen.append(SeenPhoto(path, name, read_result(answer.read_bytes()), overlay, mask))
    return sorted(seen, key=lambda photo: photos.index(photo.path))


def _drawn_mask(photo: Path, drawn: Path) -> Mask:
    file = drawn / "ground_truth" / photo.parent.name / f"{photo.stem}_mask.png"
    with Image.open(photo) as image:
        healthy = np.zeros((image.height, image.width), dtype=np.bool_)
    if not file.is_file():
        return healthy
    with Image.open(file) as image:
        return np.asarray(image.convert("L")) > 0


def sentences(seen: Sequence[SeenPhoto], *, own_index: bool) -> list[str]:
    """Three sentences on what was seen.  own_index: the index was built from the user's photographs."""
    normals = seen[0].result.normals.photos
    learned = f"{counted(normals, 'healthy photograph')}{' of yours' if own_index else ''}"
    first = (
        f"The index learned from {learned} what healthy looks like; no diseased photograph and no label took part."
    )
    floor = (
        f"With {normals} healthy photographs no p-value is below 1/{normals + 1} = {1 / (normals + 1):.3f}, and "
        f"about one healthy photograph in {round(1 / USUAL_RATE)} is called abnormal: use more, of one camera."
    )
    ill, well = [photo for photo in seen if photo.lesions], [photo for photo in seen if not photo.lesions]
    false = f"{_abnormal(well)} of {counted(len(well), 'healthy one')}"
    if seen[0].mask is None:
        kept_out = counted(len(seen), "photograph")
        second = f"Of {kept_out} that were kept out of it, {_abnormal(seen)} came out as abnormal."
    elif own_index:
        second = (
            f"The drawn photographs look abnormal beside yours ({_abnormal(ill)} of {len(ill)} with lesions, "
            f"{false}), as those of another camera do."
        )
    else:
        touched, lesions = sum(photo.touched for photo in ill), sum(photo.lesions for photo in ill)
        second = (
            f"{_abnormal(ill)} of {counted(len(ill), 'photograph')} with drawn lesions came out as abnormal, and "
            f"{false}; findings touch {touched} of {counted(lesions, 'lesion')}."
        )
    return [first, second, floor]


def _abnormal(seen: Sequence[SeenPhoto]) -> int:
    return sum(bool(photo.result.abnormal) for photo in seen)


def contact_sheet(seen: Sequence[SeenPhoto], target: Path) -> None:
    """Two photographs in a row, each beside its map; drawn lesions are outlined in the photograph."""
    cells = [_side_by_side(photo) for photo in sorted(seen, key=lambda photo: not photo.lesions)]
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    sheet = Image.new("RGB", (2 * width, height * ((len(cells) + 1) // 2)))
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % 2 * width, number // 2 * height))
    sheet.save(target)


def _side_by_side(photo: SeenPhoto) -> Image.Image:
    with Image.open(photo.path) as image:
        picture = image.convert("RGB")
    if photo.mask is not None:
        picture = _outlined(picture, photo.mask)
    with Image.open(photo.overlay) as image:
        panels = [_at_height(picture), _at_height(image.convert("RGB"))]
    cell = Image.new("RGB", (sum(panel.width for panel in panels) + 16, PANEL_HEIGHT + 16), (17, 17, 17))
    draw = ImageDraw.Draw(cell)
    for panel, left in zip(panels, (0, panels[0].width + 4), strict=True):
        cell.paste(panel, (left, 4))
    text = f"{photo.name}: {photo.kind}" + (", outlined in blue" if photo.lesions else "")
    draw.text((10, PANEL_HEIGHT - 10), text, (240, 240, 240), anchor="ls", font_size=15, stroke_width=2,
              stroke_fill=(17, 17, 17))  # fmt: skip
    return cell


def _outlined(picture: Image.Image, mask: Mask) -> Image.Image:
    """The photograph with a ring around each part of the mask, which leaves the lesion uncovered."""
    lesions = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    ring = ImageChops.subtract(lesions.filter(ImageFilter.MaxFilter(9)), lesions.filter(ImageFilter.MaxFilter(5)))
    return Image.composite(Image.new("RGB", picture.size, _RING), picture, ring)


def _at_height(picture: Image.Image) -> Image.Image:
    return picture.resize((round(picture.width * PANEL_HEIGHT / picture.height), PANEL_HEIGHT))


def _print_table(seen: Sequence[SeenPhoto]) -> None:
    table = Table(title="What was seen", title_justify="left")
    table.add_column("photograph", overflow="fold")
    for heading in ("what it is", "score", "p", "verdict", "findings"):
        table.add_column(
            heading, justify="right" if heading in ("score", "p", "findings") else "left", no_wrap=True
        )
    for photo in seen:
        result = photo.result
        verdict = {True: "abnormal", False: "normal", None: "-"}[result.abnormal]
        p_value = "-" if result.p_value is None else f"{result.p_value:.3f}"
        cells = (f"{result.image_score:#.4g}", p_value, verdict, str(len(result.findings)))
        table.add_row(escape(printable(photo.name)), photo.kind, *cells)
    print()
    console = Console()
    console.print(table)
    for line in warning_lines([photo.result.index for photo in seen]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(INTENDED_USE)


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


@contextmanager
def _service(steps: Steps, root: Path) -> Iterator[str]:
    """Start a service on a free port; yields its address once it is ready, and stops it at the end."""
    log = steps.open_log("resad-service")
    steps.show(f"$ resad-service --root {root} --port 0 2> {log} &")
    command = (steps.programs / "resad-service", "--root", root, "--port", "0")
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        line = process.stdout.readline().strip() if process.stdout else ""
        steps.show(line)
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
