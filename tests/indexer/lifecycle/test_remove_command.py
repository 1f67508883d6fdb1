"""`remove` and `inspect --photos` as they are typed: whose photographs go is said before they go."""

import csv
import io
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from resad import index
from resad.index import tombstones
from tests.conftest import Run
from tests.indexer.lifecycle.small import add_photos, build_index, copy_photos, load_on_cpu

PEOPLE = ("P009", "P005", "P009", "P001", "P002")
"""Own ids of the first five photographs: the index numbers them in another order, p-00002 is P005."""


def words(text: str) -> str:
    return re.sub(r"[\s│┃]+", " ", text)


@pytest.fixture
def table(photos: list[Path], tmp_path: Path) -> Path:
    """One's own list of the five photographs, and of a sixth that is not in the index."""
    folder = copy_photos(photos[:6], tmp_path / "own")
    file = folder / "photos.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "patient"))
        writer.writerows((photo.name, who) for photo, who in zip(photos[:6], (*PEOPLE, "P005"), strict=True))
    return file


@pytest.fixture
def numbered(photos: list[Path], table: Path, tmp_path: Path) -> Path:
    """ROOT/NAME of an index that was built with these patients, and states them by number."""
    lines = table.read_text().splitlines()
    first = table.with_name("first.csv")
    first.write_text("\n".join(lines[:-1]) + "\n")
    return build_index(first, tmp_path / "numbered")


class Terminal(io.StringIO):
    """Somebody at a terminal, who types this."""

    def isatty(self) -> bool:
        return True


def live_ids(place: Path) -> list[str]:
    return [record.id for record in load_on_cpu(place).photos]


def test_the_ids_of_ones_own_list_are_resolved(run: Run, numbered: Path, table: Path, photos: list[Path]) -> None:
    unknown = run("remove", numbered, "--group", "patient=P005", "--purge", "--yes", "--device", "cpu")
    assert unknown.code == 2
    assert "patient=P005: no version of" in unknown.err
    assert "--photos CSV resolves your own ids" in unknown.err
    command = ("remove", numbered, "--group", "patient=P005", "--photos", table, "--purge", "--device", "cpu")
    preview = run(*command, "--dry-run")
    assert preview.code == 0
    assert re.search(rf"r-00002 p-00002 P005 \S*{photos[1].name}", words(preview.out))
    assert "r-00001" not in preview.out
    assert f"1 of 2 are not in the index: {table.parent / photos[5].name}" in words(preview.err)
    assert "nothing was changed" in preview.out
    refused = run(*command)
    assert (refused.code, "repeat the command with --yes" in refused.err) == (2, True)
    assert (len(index.versions(numbered)), tombstones(numbered)) == (1, frozenset())
    done = run(*command, "--yes")
    assert done.code == 0, done.err
    assert "purged: 1 photograph is barred, 1 version is deleted" in done.out
    assert "rollback" not in done.err.replace("no rollback after a purge", "")
    assert live_ids(numbered) == ["r-00001", "r-00003", "r-00004", "r-00005"]


def test_a_terminal_is_asked_and_a_no_changes_nothing(
    run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("remove", plain, "--photo", "r-00002", "--purge", "--device", "cpu")
    before = sorted(path.name for path in plain.iterdir())
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    declined = run(*command)
    assert declined.code == 1
    assert "Destroy 1 photograph for good?" in declined.out + declined.err
    assert sorted(path.name for path in plain.iterdir()) == before
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run(*command).code == 0
    assert live_ids(plain) == ["r-00001", "r-00003", "r-00004", "r-00005"]


def test_a_real_terminal_is_asked(run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a pseudo-terminal."""
    leader, follower = pty.openpty()
    os.write(leader, b"n\n")
    with os.fdopen(follower, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        declined = run("remove", plain, "--photo", "r-00002", "--purge", "--device", "cpu")
    os.close(leader)
    assert declined.code == 1
    assert "r-00002" in declined.out + declined.err
    assert "Destroy 1 photograph for good?" in declined.out + declined.err
    assert len(index.versions(plain)) == 1


def test_what_goes_besides_is_named(run: Run, plain: Path, more: Path) -> None:
    first = index.resolve(plain)
    grown = add_photos(plain, more).derived.version
    index.activate(plain, first.name)
    preview = run("remove", plain, "--photo", "r-00001", "--purge", "--dry-run")
    assert f"goes: version {grown.name} (8 photographs)" in preview.out
    assert f"goes: version {first.name} (5 photographs)" in preview.out
    assert "3 photographs that you did not name (r-00006, r-00007, r-00008)" in words(preview.out)
    assert "is live: a new version without them takes its place" in words(preview.out)
    assert "the index keeps no features" in preview.err


def test_every_name_that_is_unknown_is_said_and_nothing_is_done(run: Run, plain: Path, photos: list[Path]) -> None:
    wrong = ("--photo", "r-00088", "--photo", "r-00002", "--photo", photos[6], "--group", "camera=Nowhere")
    for purge in ((), ("--purge", "--yes")):
        outcome = run("remove", plain, *wrong, *purge, "--device", "cpu")
        assert outcome.code == 2
        for name in ("r-00088", str(photos[6]), "camera=Nowhere"):
            assert name in outcome.err
        assert "r-00002" not in outcome.err
        assert len(index.versions(plain)) == 1


def test_a_dry_run_of_a_removal_changes_nothing(run: Run, plain: Path) -> None:
    outcome = run("remove", plain, "--photo", "r-00003", "--dry-run")
    assert outcome.code == 0
    assert "1 photograph would be removed" in outcome.out
    assert "r-00003" in outcome.out
    assert len(index.versions(plain)) == 1


def test_inspect_shows_which_number_is_whose(run: Run, numbered: Path, table: Path, photos: list[Path]) -> None:
    bare = run("inspect", numbered, "--photos")
    assert bare.code == 0
    assert re.findall(r"r-\d{5}", bare.out) == [f"r-0000{n}" for n in range(1, 6)]
    matched = words(run("inspect", numbered, "--photos", table).out)
    for number, (photo, who) in enumerate(zip(photos[:5], PEOPLE, strict=True), start=1):
        assert re.search(rf"r-0000{number} p-0000\d {who} \S*{photo.name}", matched)
    assert "1 of 6 in" in words(run("inspect", numbered, "--photos", table).err)
    assert run("inspect", numbered, table).code == 2


def test_photographs_are_named_as_ones_own_list_names_them(
    run: Run, numbered: Path, table: Path, photos: list[Path]
) -> None:
    for name in (photos[3].name, photos[3].stem):
        outcome = run("remove", numbered, "--photo", name, "--photos", table, "--dry-run")
        assert outcome.code == 0, outcome.err
        assert "r-00004" in outcome.out
        assert "r-00003" not in outcome.out


def test_names_steer_no_terminal(run: Run, photos: list[Path], tmp_path: Path) -> None:
    """A file and a camera that are called like orders to a terminal."""
    folder = tmp_path / "photos"
    copy_photos(photos[:5], folder)
    hostile = "\x1b]0;owned\x07\x1b[2J"
    (folder / photos[0].name).rename(folder / f"{hostile}.jpg")
    (folder / "note.jpg").with_name(f"note{hostile}\nforged.jpg").write_text("no photograph")
    listed = folder / "list.csv"
    names = sorted(path.name for path in folder.iterdir())
    with listed.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "camera"))
        writer.writerows((name, f"[red]{hostile}") for name in names)
    outcomes = [
        run(
            "build", listed, "--root", tmp_path / "root", "--name", "eyes", "--backbone", "bundled",
            "--size", "64", "--keep-names", "--coreset", "0.3", "--device", "cpu",
        ),
        run("inspect", tmp_path / "root/eyes"),
        run("inspect", tmp_path / "root/eyes", "--photos", listed),
        run("audit", tmp_path / "root/eyes", "--photos", listed),
        run("score", tmp_path / "root/eyes", folder / f"{hostile}.jpg", "--csv", tmp_path / "s.csv"),
        run("score", tmp_path / "root/eyes", tmp_path / f"gone{hostile}.jpg", "--csv", tmp_path / "t.csv"),
        run("remove", tmp_path / "root/eyes", "--group", f"camera={hostile}"),
    ]  # fmt: skip
    assert [outcome.code for outcome in outcomes] == [0, 0, 0, 0, 0, 2, 2], outcomes[0].err
    for outcome in outcomes:
        text = outcome.out + outcome.err
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "owned" in text
    assert r"\nforged.jpg" in outcomes[0].err
