"""`resad-indexer remove`, also with --purge."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from resad_client.text import counted

from indexer.commands import console
from indexer.commands.checks import check_device, check_source
from indexer.commands.console import Device, Index, Live, Yes
from indexer.commands.versions import print_version
from resad import index as index_store
from resad import runtime
from resad.errors import ResadError, SettingError

if TYPE_CHECKING:
    from indexer.lifecycle.choice import Choice
    from indexer.lifecycle.purge import PurgePlan, PurgeReport
    from indexer.lifecycle.remove import RemoveReport


def remove_command(
    index: Index,
    photo: Annotated[
        list[str] | None,
        typer.Option(
            help="Id (r-00041), content hash, or the file itself (a folder or CSV of them, too); with --photos "
            "also the name of one of its files."
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="camera=NAME, or patient=ID: the number that the index gave (p-00003), or with --photos CSV your "
            "own id."
        ),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            help="Your photographs (folder or CSV), matched by content. The column patient resolves your own "
            "ids; photographs that stay are encoded again to repair what was covered, and to calibrate, where "
            "the index keeps no features."
        ),
    ] = None,
    do_purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Destroy every version that holds them, and bar them: for good, with no way back."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go, and stop.")] = False,
    yes: Yes = False,
    activate: Live = True,
    device: Device = "auto",
) -> None:
    """Remove photographs from an index, with everything made of them, as a new version."""
    version = index_store.resolve(index).resolve()
    place = version.parent
    check_device(device)
    if photos is not None:
        check_source(photos)
    if do_purge and not activate:
        raise SettingError("--purge destroys the version that is live now: it cannot go with --no-activate")
    if do_purge and version.name != index_store.live_version(place):
        raise SettingError(f"--purge changes the whole index and not one version: name {place}")

    from indexer.lifecycle.choice import choose

    choice = choose(version, photo or (), group or (), photos, reach="index" if do_purge else "version")
    for line in choice.warnings:
        console.warn(line)
    if do_purge:
        _purge(place, choice, photos, device, dry_run=dry_run, yes=yes)
        return
    if dry_run:
        _say_chosen(version, choice)
        return

    from indexer.build.progress import Stages
    from indexer.lifecycle.remove import RemoveOptions, remove

    options = RemoveOptions(index, choice.hashes, runtime.pick_device(device), photos=photos, live=activate)
    _print_removed(remove(options, Stages(console.ERR)), photos, live=activate, purged=False)


def _say_chosen(version: Path, choice: "Choice") -> None:
    """What `remove` without --purge would take out."""
    from indexer import tables
    from indexer.lifecycle.choice import photos_of

    chosen = [photo for photo in photos_of(version) if photo.content_sha256 in choice.hashes]
    for line in tables.photo_lines(chosen, choice.files):
        console.say(line)
    console.say(f"{counted(len(chosen), 'photograph')} would be removed; nothing was changed (--dry-run)")


def _purge(place: Path, choice: "Choice", photos: Path | None, device: str, *, dry_run: bool, yes: bool) -> None:
    """Print what a purge deletes, ask, delete it, and print what could not be deleted."""
    from indexer.lifecycle.purge import plan_purge

    plan = plan_purge(place, choice.hashes)
    _say_plan(place, plan, choice, photos)
    if dry_run:
        console.say("nothing was changed (--dry-run)")
        return
    if not plan.empty:
        console.confirm(
            f"Destroy {counted(len(plan.photos), 'photograph')} for good?", "nothing is purged", yes=yes
        )

    from indexer.build.progress import Stages
    from indexer.lifecycle.purge import purge
    from indexer.lifecycle.remove import RemoveOptions

    options = RemoveOptions(place, choice.hashes, runtime.pick_device(device), photos=photos)
    try:
        report = purge(
            options, Stages(console.ERR),
            on_removal=lambda removal: _print_removed(removal, photos, live=True, purged=True),
        )  # fmt: skip
    except ResadError:
        raise
    except BaseException:
        console.warn("the purge is NOT complete: the same command goes on with it")
        raise
    _say_purged(report)


def _say_plan(place: Path, plan: "PurgePlan", choice: "Choice", photos: Path | None) -> None:
    from indexer import tables
    from indexer.calibration.lines import first_names
    from resad.manifest import read_manifest

    if plan.photos:
        console.say(f"goes from {place}, for good:")
        for line in tables.photo_lines(plan.photos, choice.files):
            console.say(f"  {line}")
    else:
        console.say(f"no version of {place} holds these photographs")
    for version in plan.versions:
        what = (
            counted(version.photos, "photograph")
            if version.fault is None
            else (f"damaged, so that it may hold them: {version.fault}")
        )
        console.say(f"goes: version {version.version} ({what})")
    if plan.beside:
        ids = first_names([photo.id for photo in plan.beside])
        console.say(
            f"goes with these versions, since no version that stays has it: "
            f"{counted(len(plan.beside), 'photograph')} that you did not name ({ids})"
        )
    if plan.work:
        console.say(f"goes: the unfinished build in {place / index_store.WORK}")
    if plan.marks:
        console.say(f"goes: {counted(plan.marks, 'entry', 'entries')} of the journal of marks")
    if plan.leftovers:
        console.say(f"goes: {counted(plan.leftovers, 'leftover')} of killed processes")
    if plan.live:
        manifest = read_manifest(index_store.resolve(place) / index_store.MANIFEST)
        console.say(f"version {manifest.version} is live: a new version without them takes its place")
        if photos is None and not manifest.keeps_features:
            console.warn(
                "the index keeps no features: afterwards p-values may be too low. --photos FOLDER with all that "
                "stay avoids it; there is no rollback after a purge"
            )


def _print_removed(report: "RemoveReport", photos: Path | None, *, live: bool, purged: bool) -> None:
    from indexer.calibration.lines import first_names

    memories = counted(report.lost, "memory", "memories")
    ids = ", ".join(report.removed)
    console.say(f"{counted(len(report.removed), 'photograph')} removed, with {memories}: {ids}")
    if report.fell_back:
        console.warn("too few photographs of the calibration are left: calibrated on the reference photos instead")
    after = report.derived.after
    if report.missing:
        names = first_names(report.missing)
        console.warn(
            f"{len(report.missing)} of the {counted(after.counts.photos, 'photograph')} that stay were not found "
            f"in {photos}: {names}"
        )
    print_version(report.derived, live=live)
    if after.calibrated == "stale" and after.calibration.source == "left-out" and not purged:
        console.warn("or: resad-indexer rollback, and remove with --photos, a folder with all that stay")


def _say_purged(report: "PurgeReport") -> None:
    from indexer.lifecycle.purge import BEYOND_REACH

    done = "purged" if not report.remaining else "NOT yet purged"
    barred = counted(report.barred, "photograph is", "photographs are")
    versions = counted(len(report.versions), "version is", "versions are")
    console.say(f"{done}: {barred} barred, {versions} deleted")
    if report.work:
        console.say("deleted: the unfinished build")
    if report.marks:
        console.say(f"deleted: {counted(report.marks, 'entry', 'entries')} of the journal of marks")
    for place in report.elsewhere:
        console.warn(f"NOT PURGED: {place.path} of another index {place.reason}: remove them there, too")
    for path in report.unknown:
        console.warn(f"out of reach: {path} is no part of the index, and was not looked into")
    for copy in BEYOND_REACH:
        console.warn(f"out of reach: {copy}")
    if report.remaining:
        for place in report.remaining:
            console.warn(f"STILL HELD: {place.path}: {place.reason}")
        raise SettingError(
            f"the purge is NOT complete: {counted(len(report.remaining), 'place')} may still hold the photographs"
            "; remove what keeps them from being deleted, and repeat the command"
        )
