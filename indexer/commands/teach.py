"""`resad-indexer teach`: what readers have marked becomes a new version of the index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from resad_client.text import counted

from indexer.commands import console
from indexer.commands.checks import check_device, check_source
from indexer.commands.console import Device, Index, Live
from resad import index as index_store
from resad import runtime

if TYPE_CHECKING:
    from indexer.lifecycle.teach import Lesson
    from resad.loaded_index import LoadedIndex


def teach_command(
    index: Index,
    preview: Annotated[bool, typer.Option("--preview", help="Write nothing; show what would change.")] = False,
    photos: Annotated[
        Path | None,
        typer.Option(
            help="With --preview: photographs (folder or CSV) that are scored before and after, as normals of the "
            "index and photographs with marks."
        ),
    ] = None,
    activate: Live = True,
    device: Device = "auto",
) -> None:
    """Make a version that has learned what readers marked: normal variants, artifacts, known lesions."""
    version = index_store.resolve(index)
    check_device(device)
    if photos is not None:
        check_source(photos)

    from indexer.lifecycle.teach import TeachOptions, learn, teach

    if preview:
        loaded = console.load(index, device)
        lesson = learn(version.resolve().parent, loaded)
        _tell(lesson)
        if photos is not None:
            _compare(loaded, lesson, photos)
        return
    report = teach(TeachOptions(index, runtime.pick_device(device), live=activate))
    _tell(report.lesson)
    derived = report.derived
    console.say(f"{derived.version} is {'live' if activate else 'written; activate it to use it'}")


def _tell(lesson: "Lesson") -> None:
    from rich.table import Table

    marks = counted(len(lesson.added), "mark")
    console.say(f"{marks} to learn, {counted(len(lesson.removed), 'mark')} taken back, {_by_label(lesson)}")
    added = set(lesson.added)
    table = Table("mark", "label", "distance to healthy", "afterwards", "doubt")
    for change in lesson.changes:
        if change.id in added or change.doubt:
            table.add_row(
                change.id, change.label, f"{change.before:#.4g}", f"{change.after:#.4g}", change.doubt or "-"
            )
    if table.row_count:
        console.OUT.print(table)
    for mark in lesson.unused:
        console.warn(f"not learned: {mark.id} ({mark.label}): {mark.reason}")


def _by_label(lesson: "Lesson") -> str:
    counts = lesson.examples.counts()
    return "in all " + (", ".join(f"{count} {label}" for label, count in counts.items()) or "none")


def _compare(loaded: "LoadedIndex", lesson: "Lesson", photos: Path) -> None:
    """Print scores and findings of photographs with the version and with what it would become."""
    from rich.table import Table

    from indexer.build.progress import Stages
    from indexer.photos.listing import list_photos
    from resad.engine import Engine
    from resad.errors import PhotoError

    before, after = Engine(loaded), Engine(loaded.with_examples(lesson.examples))
    listed = [photo.path for photo in list_photos(photos)]
    table = Table("photograph", "score", "afterwards", "findings", "afterwards")
    changed = 0
    with Stages(console.ERR).stage("score", len(listed), "photos") as advance:
        for path in listed:
            try:
                was, becomes = (engine.score(path).result for engine in (before, after))
            except PhotoError as error:
                console.warn(f"skipped {path}: {error}")
                continue
            finally:
                advance(1)
            counts = len(was.findings), len(becomes.findings)
            if was.image_score != becomes.image_score or counts[0] != counts[1]:
                changed += 1
                scores = f"{was.image_score:#.4g}", f"{becomes.image_score:#.4g}"
                table.add_row(path.name, *scores, *map(str, counts))
    if changed:
        console.OUT.print(table)
    console.say(f"{changed} of {counted(len(listed), 'photograph')} would change")
