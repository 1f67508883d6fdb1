"""`resad-indexer audit`."""

from pathlib import Path
from typing import Annotated

import typer
from resad_client.files import write_atomically
from resad_client.records import INTENDED_USE

from indexer.build.progress import Stages
from indexer.calibration.calibrate import CalibrationRecord, calibration_records
from indexer.commands import console
from indexer.commands.checks import check_device, check_outputs, check_source
from indexer.commands.console import Device, Index
from indexer.lifecycle.remove import reference_files
from lab.audit import Audit, audit, audit_csv, audit_json, audit_page, audit_picture, audit_table
from resad import index as index_store
from resad.config import PhotoLimits
from resad.manifest import PHOTOS_FILE, ReferenceRecord, read_manifest, read_records
from resad.near_duplicates import left_out_groups

_SHOWN = 10


def audit_command(
    index: Index,
    photos: Annotated[
        Path | None,
        typer.Option(help="The photographs (folder or CSV), matched by content, to name and show them."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures here, in place of what is there.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything here as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line per photograph here.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Photographs shown on the page, highest score first.")] = 20,
    device: Device = "auto",
) -> None:
    """Rank the photographs of an index, least healthy-looking first, to find diseased ones among them."""
    check_outputs(html=html, json=json, csv=csv)
    version = index_store.resolve(index)
    check_device(device)
    if photos is not None:
        check_source(photos)
    manifest = read_manifest(version / index_store.MANIFEST)
    records = read_records(version / PHOTOS_FILE)
    calibration = calibration_records(version)
    places = None if photos is None else reference_files(photos, (*records, *calibration), PhotoLimits())
    result = audit(manifest, records, places, calibration)
    if json is not None:
        write_atomically(json, audit_json(result).encode() + b"\n")
    if csv is not None:
        write_atomically(csv, audit_csv(result).encode())
    if html is not None:
        pictures = _pictures(index, result, (*records, *calibration), places or {}, top, device)
        write_atomically(html, audit_page(result, pictures).encode())
    console.OUT.print(audit_table(result, _SHOWN))
    console.OUT.print(INTENDED_USE)


def _pictures(
    index: Path,
    result: Audit,
    records: tuple[ReferenceRecord | CalibrationRecord, ...],
    places: dict[str, Path],
    top: int,
    device: str,
) -> dict[str, str]:
    """Data URL by id of the highest photographs whose files were found."""
    rows = {record.id: row for row, record in enumerate(records)}
    highest = [photo.id for photo in result.photos[:top] if records[rows[photo.id]].content_sha256 in places]
    if not highest:
        return {}
    loaded = console.load(index, device)
    groups = left_out_groups([record.patient for record in loaded.photos], loaded.photos)
    pictures = {}
    with Stages(console.ERR).stage("draw", len(highest), "photos") as advance:
        for number in highest:
            place = places[records[rows[number]].content_sha256]
            group = groups[rows[number]] if rows[number] < len(groups) else frozenset()  # others are in no bank
            pictures[number] = audit_picture(loaded, group, place, PhotoLimits())
            advance(1)
    return pictures
