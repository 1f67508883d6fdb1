"""Files of marks that other programs write: COCO, and CSV with a polygon in each row."""

import json
from pathlib import Path
from typing import Any, Final

from resad_client.csv_text import locate, read_table

from resad.errors import SettingError
from resad.marks import check_label, label_of

Polygon = tuple[str, list[tuple[float, float]]]
"""A label and its points, px of the photograph."""
_COLUMNS: Final = ("photo", "label", "points")


def read_marks(file: Path, photos: Path) -> dict[Path, list[Polygon]]:
    """Photograph -> its polygons.

    Args:
        file: JSON for COCO, anything else is a CSV.
        photos: the folder that file names are relative to.
    Raises:
        SettingError: the file cannot be read, names a photograph that is not there, or marks nothing.
    """
    marks: dict[Path, list[Polygon]] = {}
    for name, polygon in _coco(file) if file.suffix.lower() == ".json" else _csv(file):
        path = locate(photos, name)
        if not path.is_file():
            raise SettingError(f"{file}: there is no photograph {path}")
        marks.setdefault(path, []).append(polygon)
    if not marks:
        raise SettingError(f"{file} marks nothing")
    return marks


def _csv(file: Path) -> list[tuple[str, Polygon]]:
    table = read_table(file)
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing:
        raise SettingError(f"{file} has no column {', '.join(missing)}; it needs {', '.join(_COLUMNS)}")
    places = [table.columns.index(column) for column in _COLUMNS]
    rows = []
    for line in table.lines:
        where = f"{file}, line {line.number}"
        photo, label, points = (line.cells[place] if place < len(line.cells) else "" for place in places)
        try:
            values = [float(value) for value in points.replace(",", " ").split()]
        except ValueError as error:
            raise SettingError(f"{where}: points are numbers: x y x y ...") from error
        rows.append((photo, (check_label(label), _pairs(values, where))))
    return rows


def _coco(file: Path) -> list[tuple[str, Polygon]]:
    try:
        document: Any = json.loads(file.read_bytes())
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        labels = {entry["id"]: label_of(str(entry["name"])) for entry in document["categories"]}
        rows = []
        for entry in document["annotations"]:
            where = f"{file}, annotation {entry.get('id')}"
            parts = entry.get("segmentation") or [_corners(*map(float, entry["bbox"]))]
            if not isinstance(parts, list):
                raise SettingError(f"{where}: run lengths are not read; export polygons")
            polygons = (_pairs([float(value) for value in part], where, shift=0.5) for part in parts)
            rows += [(names[entry["image_id"]], (labels[entry["category_id"]], points))
                     for points in polygons]  # fmt: skip
    except OSError as error:
        raise SettingError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SettingError(
            f"{file} is no COCO file of polygons or boxes ({type(error).__name__}: {error})"
        ) from error
    return rows


def _corners(left: float, top: float, width: float, height: float) -> list[float]:
    right, bottom = left + width, top + height
    return [left, top, right, top, right, bottom, left, bottom]


def _pairs(values: list[float], where: str, shift: float = 0.0) -> list[tuple[float, float]]:
    """Points as pixel indexes; COCO counts from the corner of the first pixel, half a pixel further."""
    if len(values) < 6 or len(values) % 2:
        raise SettingError(f"{where}: {len(values)} numbers are no polygon: x y x y ..., at least three points")
    return [(x - shift, y - shift) for x, y in zip(values[::2], values[1::2], strict=True)]
