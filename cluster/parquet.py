"""The rows of a table of scores as Parquet: for programs, with types.  pyarrow is loaded when it is asked for."""

import importlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cluster.score_rows import Row
from resad.errors import SettingError
from resad.result import INTENDED_USE

TABLE: Final = "scores.parquet"
_GROUP: Final = 100_000
"""Rows that are in memory once more while they are written."""


def check_installed() -> None:
    """Raise `SettingError` where pyarrow is not."""
    _pyarrow()


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Replace `path` by these rows; never seen half-written.

    Columns are those of `Row`: fpr, limit, image_score, p_value, threshold float64; bytes, modified_ns int64;
    findings int32; abnormal bool; reasons a list; what a row does not say is null.  Letters of a path that are no
    Unicode are written as `\\udcXX`.
    """
    arrow, parquet = _pyarrow()
    schema = _schema(arrow)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with parquet.ParquetWriter(fresh, schema) as writer:
            for start in range(0, len(rows), _GROUP):
                writer.write_table(
                    arrow.Table.from_pylist(list(map(_typed, rows[start : start + _GROUP])), schema)
                )
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _schema(arrow: Any) -> Any:
    types = {
        "photo": arrow.string(), "bytes": arrow.int64(), "modified_ns": arrow.int64(), "version": arrow.string(),
        "fpr": arrow.float64(), "limit": arrow.float64(), "image_score": arrow.float64(),
        "p_value": arrow.float64(), "threshold": arrow.float64(), "abnormal": arrow.bool_(),
        "findings": arrow.int32(), "reasons": arrow.list_(arrow.string()), "fault": arrow.string(),
    }  # fmt: skip
    return arrow.schema(types).with_metadata({"intended_use": INTENDED_USE})


def _typed(row: Row) -> dict[str, object]:
    return {
        "photo": row.photo.encode(errors="backslashreplace").decode(),
        "bytes": row.bytes,
        "modified_ns": row.modified_ns,
        "version": row.version,
        "fpr": _number(row.fpr),
        "limit": _number(row.limit),
        "image_score": _number(row.image_score),
        "p_value": _number(row.p_value),
        "threshold": _number(row.threshold),
        "abnormal": {"true": True, "false": False}.get(row.abnormal),
        "findings": int(row.findings) if row.findings else None,
        "reasons": None if row.fault else [reason for reason in row.reasons.split(";") if reason],
        "fault": row.fault or None,
    }


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise SettingError(
            "--format parquet needs pyarrow, which is not installed: pip install 'resad[cluster]'"
        ) from error
