"""What cannot become an index is refused as soon as that is certain, and not after everything was encoded."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from cluster.build import ClusterWorkers
from cluster.worker_pool import Cluster, PoolOptions, WorkerSize
from indexer.build.build import BuildOptions, build, forecast_only
from indexer.build.progress import Stages
from indexer.photos.listing import ReferencePhoto, check_listed
from indexer.settings import method_config
from resad.errors import SettingError

CPU = torch.device("cpu")
SOURCE = Path("photos.csv")


def photos_of(*patients: str | None) -> list[ReferencePhoto]:
    return [ReferencePhoto(Path(f"{number}.jpg"), who) for number, who in enumerate(patients)]


def check(listed: list[ReferencePhoto], coreset: str = "0.1", neighbors: int = 3) -> None:
    config = method_config("resad", coreset=coreset, settings=[f"search.neighbors={neighbors}"])
    check_listed(SOURCE, listed, config)


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        ([None], r"photos\.csv holds 1 photograph, an index needs at least 2$"),
        (["p"], r"photos\.csv holds 1 photograph, an index needs at least 2$"),
        (["p"] * 12, r"photos\.csv holds 12 photographs of 1 patient, an index needs at least 2 patients$"),
    ],
)
def test_a_list_that_is_too_short_is_refused(patients: list[str | None], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check(photos_of(*patients))


@pytest.mark.parametrize("patients", [[None, None], ["p", None], ["p", "p", "q"]])
def test_two_who_may_be_two_people_are_enough(patients: list[str | None]) -> None:
    check(photos_of(*patients))


@pytest.mark.parametrize("people", [2, 3, 8])
@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_a_count_is_refused_where_no_spread_of_the_memories_does(people: int, neighbors: int) -> None:
    """The fewest that are taken: spread as evenly as can be, each person's leave as many as are searched."""
    listed = photos_of("twice", *map(str, range(people - 1)), "twice")
    accepted_counts = []
    for count in range(1, 3 * neighbors + 2):
        most_of_patient = max(len(range(first, count, people)) for first in range(people))
        if count - most_of_patient >= neighbors:
            check(listed, str(count), neighbors)
            accepted_counts.append(count)
            continue
        with pytest.raises(
            SettingError, match=rf"--coreset {count}: .* fewer than the {neighbors} neighbors"
        ) as error:
            check(listed, str(count), neighbors)
    assert str(error.value).endswith(f"it takes at least {accepted_counts[0]}")


def test_nothing_is_loaded_or_encoded_before(tmp_path: Path, drawn: Path) -> None:
    """The weights do not exist: loading them would be another error."""
    config = method_config("resad", backbone="bundled", size=64, coreset="3")
    options = BuildOptions(drawn / "train/good", tmp_path, "eyes", config, "missing.safetensors", CPU)
    pool = PoolOptions(Cluster(None), WorkerSize(1, 0))
    for workers in (None, ClusterWorkers(pool)):
        with pytest.raises(SettingError, match="--coreset 3"):
            build(options, Stages(Console(quiet=True)), workers=workers)
        with pytest.raises(SettingError, match="--coreset 3"):
            forecast_only(options, workers)


def test_a_count_beyond_all_patches_is_refused_with_the_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Path
) -> None:
    """At 64 px a photograph has at most 16 x 16 patches, and there are eight of them."""
    photos = drawn / "train/good"
    forecasts: list[object] = []
    for count in (2048, 2049):
        config = method_config("resad", backbone="bundled", size=64, coreset=str(count))
        options = BuildOptions(photos, tmp_path, "eyes", config, "bundled", CPU)
        message = (
            "asked of 8 photographs, which have at most 2048 patches"
            if count > 2048
            else r"2048 memories asked of \d+ p"
        )
        with pytest.raises(SettingError, match=message):
            build(options, Stages(Console(quiet=True)), forecasts.append)
    assert len(forecasts) == 1
