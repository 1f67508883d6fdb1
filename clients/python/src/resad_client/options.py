"""What the commands share: the two streams, options that several take."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from resad_client.errors import SettingError
from resad_client.protocol import Eye, Layout, PictureKind

OUT: Final = Console()
ERR: Final = Console(stderr=True)

Url = Annotated[str, typer.Option(help="Address of the service.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the API key; without it the variable RESAD_KEY is taken, if it is set."),
]
Index = Annotated[str | None, typer.Option(help="Name of the index (else the service's choice).")]
Fpr = Annotated[
    float | None,
    typer.Option(help="False-positive rate of the verdict, between 0 and 1 (else the service's choice)."),
]
EyeOption = Annotated[
    Eye | None,
    typer.Option("--eye", help="Which eye, for places in words; a CSV's column eye goes before it."),
]
Csv = Annotated[Path | None, typer.Option(help="Table with a row for each photograph.")]
FindingsCsv = Annotated[Path | None, typer.Option(help="Table with a row for each finding.")]
Coco = Annotated[Path | None, typer.Option(help="All findings as one COCO document.")]
GeoJson = Annotated[Path | None, typer.Option("--geojson", help="Folder for a NAME.geojson each.")]
Json = Annotated[Path | None, typer.Option(help="Folder for a NAME.json each.")]
Overlays = Annotated[Path | None, typer.Option(help="Folder for a NAME_overlay.png (or .jpg) each.")]
LayoutOption = Annotated[
    Layout, typer.Option("--layout", help="Of overlays: the map over the photograph, or the two side by side.")
]
OverlayFormat = Annotated[
    PictureKind, typer.Option(help="Of overlays: png, or jpeg, which is much faster and smaller.")
]
Concurrency = Annotated[int, typer.Option(min=1, max=64, help="Photographs sent at a time.")]
Patience = Annotated[
    float,
    typer.Option(min=0, help="Seconds that a photograph waits for a service that is busy, restarting or gone."),
]


def key_from(file: Path | None) -> str | None:
    """Never an argument itself: every user of the machine sees those.  Raises `SettingError`."""
    if file is None:
        return os.environ.get("RESAD_KEY")
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--key-file {file} cannot be read") from error


def say(line: str) -> None:
    """A line of the answer, as it is."""
    OUT.print(line, highlight=False, soft_wrap=True, markup=False)


def warn(line: str) -> None:
    """A line beside the answer, as it is."""
    ERR.print(line, highlight=False, soft_wrap=True, markup=False)
