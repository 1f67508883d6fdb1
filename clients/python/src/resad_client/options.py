"""Options and output streams that several commands share."""

import math
import os
from pathlib import Path
from typing import Annotated, Final

import typer

from resad_client.errors import SettingError
from resad_client.photos import Eye
from resad_client.protocol import Layout, PictureKind, Quality, ScoreQuery
from resad_client.terminal import SafeConsole

OUT: Final = SafeConsole()
ERR: Final = SafeConsole(stderr=True)

Url = Annotated[str, typer.Option(help="Address of the service.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the API key; default: the variable RESAD_KEY, if it is set."),
]
Index = Annotated[str | None, typer.Option(help="Name of the index; default: the service's.")]
Fpr = Annotated[
    float | None,
    typer.Option(help="False-positive rate of the verdict, between 0 and 1; default: the service's."),
]
Threshold = Annotated[
    float | None, typer.Option(help="Image score above which a photograph is abnormal, instead of --fpr.")
]
FalseRegions = Annotated[
    float | None,
    typer.Option(
        help="Regions above the level of findings that a healthy photograph shows on average: 0.25, 0.5, 1, 2, 4 "
        "or 8; default: the service's."
    ),
]
Frame = Annotated[int | None, typer.Option(min=1, help="Of DICOM files of several frames: the one to score.")]
Camera = Annotated[str | None, typer.Option(help="Compare with the normals of this camera, if there are enough.")]
RequireQuality = Annotated[
    bool, typer.Option("--require-quality", help="Refuse photographs below the index's limits of quality.")
]
Evidence = Annotated[
    int | None,
    typer.Option(min=0, max=50, help="Healthy patches listed per finding; default: the service's."),
]
Size = Annotated[
    int | None, typer.Option(min=16, help="Longer side of overlays, px, if shorter than the photograph's.")
]
EyeOption = Annotated[
    Eye | None,
    typer.Option("--eye", help="Which eye, for places in words; the column eye of a CSV has precedence."),
]
Csv = Annotated[Path | None, typer.Option(help="Table with a row for each photograph.")]
FindingsCsv = Annotated[Path | None, typer.Option(help="Table with a row for each finding.")]
Coco = Annotated[Path | None, typer.Option(help="All findings as one COCO document.")]
GeoJson = Annotated[Path | None, typer.Option("--geojson", help="Folder for a NAME.geojson each.")]
Json = Annotated[Path | None, typer.Option(help="Folder for a NAME.json each.")]
Overlays = Annotated[Path | None, typer.Option(help="Folder for a NAME_overlay.png (or .jpg) each.")]
LayoutOption = Annotated[
    Layout, typer.Option("--layout", help="Overlays: the map over the photograph, or both side by side.")
]
OverlayFormat = Annotated[PictureKind, typer.Option(help="Overlays as png, or as jpeg, which is smaller.")]
Concurrency = Annotated[int, typer.Option(min=1, max=64, help="Photographs sent at a time.")]
Patience = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Give up a photograph, or a service that is gone, after so many seconds; default: wait until it is "
        "scored.",
    ),
]


def score_query(
    index: str | None,
    fpr: float | None,
    threshold: float | None,
    false_regions: float | None,
    frame: int | None,
    camera: str | None,
    eye: Eye | None,
    evidence: int | None,
    *,
    require_quality: bool,
) -> ScoreQuery:
    """The query of every request; raises `SettingError` for values that the service refuses."""
    if fpr is not None and not 0 < fpr < 1:
        raise SettingError(f"--fpr {fpr:g}: a rate lies between 0 and 1")
    if threshold is not None and not 0 < threshold < math.inf:
        raise SettingError(f"--threshold {threshold:g}: a score is above 0 and finite")
    if false_regions is not None and not 0 < false_regions < math.inf:
        raise SettingError(f"--false-regions {false_regions:g}: a rate of findings is above 0 and finite")
    if fpr is not None and threshold is not None:
        raise SettingError("--fpr and --threshold exclude each other: give one of them")
    # Left out if it is the service's default, so that an older service understands.
    quality: Quality | None = "require" if require_quality else None
    return ScoreQuery(
        index=index, fpr=fpr, threshold=threshold, false_regions=false_regions, frame=frame, camera=camera,
        quality=quality, evidence=evidence, eye=eye,
    )  # fmt: skip


def key_from(file: Path | None) -> str | None:
    """The API key from a file or the variable RESAD_KEY; raises `SettingError`.

    The key is never an argument: every user of the machine can see arguments.
    """
    if file is None:
        return os.environ.get("RESAD_KEY")
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--key-file {file} cannot be read") from error


def in_options(text: str) -> str:
    """The service's message with options in place of query parameters."""
    text = text.replace(
        "this call takes Authorization: Bearer KEY", "name its file with --key-file, or set RESAD_KEY"
    )
    return text.replace("add index=NAME", "add --index NAME")


def say(line: str) -> None:
    """Print a line to stdout, without markup."""
    OUT.say(line)


def warn(line: str) -> None:
    """Print a line to stderr, without markup."""
    ERR.say(line)
