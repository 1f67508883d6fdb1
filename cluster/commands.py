"""What `resad-indexer build --cluster` and `score --cluster` call, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cluster.build import build_on, forecast_only_on
from cluster.parquet import TABLE as PARQUET
from cluster.parquet import check_installed, write_parquet
from cluster.score_rows import Row
from cluster.scoring import TABLE, check_scorable, listed, score_on
from cluster.worker_pool import PoolOptions, connected
from indexer.build.progress import Stages
from indexer.commands import console
from resad import index as index_store
from resad.calibration import DecisionRule
from resad.manifest import read_manifest
from resad.result import INTENDED_USE

__all__ = ["build_on", "forecast_only_on", "score_over_cluster", "workers_at"]


@contextmanager
def workers_at(
    address: str, device: str, *, cpus: int, most: int | None, scratch: Path | None = None
) -> Iterator[PoolOptions]:
    """The workers of the cluster at `address`; raises `SettingError` where there is none, or no Ray.

    Args:
        device: `auto` computes on GPUs where the cluster has any.
    """
    with connected(address) as cluster:
        size = cluster.worker_size(cpus, gpu=None if device == "auto" else device.startswith("cuda"))
        yield PoolOptions(cluster, size, most, scratch)


def score_over_cluster(
    address: str, device: str, index: Path, photos: list[Path], out: Path, rule: DecisionRule, *,
    cpus: int, most: int | None, require_quality: bool, table_format: Literal["csv", "parquet"],
) -> None:  # fmt: skip
    """Score photographs over a cluster into OUT/scores.csv, and say what came of it."""
    if table_format == "parquet":
        check_installed()
    with workers_at(address, device, cpus=cpus, most=most) as workers:
        rows = _on_cluster(workers, index, photos, out, rule, require_quality=require_quality)
    _tell_rows(rows, out, table_format)


def _on_cluster(
    workers: PoolOptions, index: Path, photos: list[Path], out: Path, rule: DecisionRule, *, require_quality: bool
) -> dict[str, Row]:
    found = listed(photos)
    console.warn_stale(read_manifest(index_store.resolve(index) / index_store.MANIFEST))
    with Stages(console.ERR).stage("score", len(found), "photos") as advance:
        return score_on(
            workers, index, found, out, device=workers.device, rule=rule, require_quality=require_quality,
            on_rows=lambda new: advance(len(new)),
        )  # fmt: skip


def _tell_rows(rows: dict[str, Row], out: Path, table_format: Literal["csv", "parquet"]) -> None:
    tables = f"{out / TABLE}"
    if table_format == "parquet":
        write_parquet(list(rows.values()), out / PARQUET)
        tables += f" and {out / PARQUET}"
    doubtful = sum(bool(row.reasons) for row in rows.values())
    abnormal = sum(row.abnormal == "true" and not row.reasons for row in rows.values())
    counted = f"{abnormal} abnormal, {doubtful} doubtful" if doubtful else f"{abnormal} abnormal"
    for row in rows.values():
        if row.fault:
            console.warn(f"{row.photo}: {row.fault}")
    console.say(f"{len(rows)} photographs, {counted}, scores in {tables}")
    console.say(INTENDED_USE)
    check_scorable(rows)
