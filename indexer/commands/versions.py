"""The commands that list, check, change, move and delete versions of an index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from resad_client.text import counted

from indexer.commands import console
from indexer.commands.checks import check_device, check_place, check_source
from indexer.commands.console import Device, Index, Live, OneIndex, Root
from resad import index as index_store
from resad import runtime
from resad.errors import IndexInvalid, SettingError

if TYPE_CHECKING:
    from indexer.lifecycle.derive import NewVersion


def list_command(root: Root) -> None:
    """List the indexes and their versions."""
    if not root.is_dir():
        raise SettingError(f"{root} is no folder")
    for folder in sorted(path for path in root.iterdir() if index_store.versions(path)):
        live = index_store.live_version(folder)
        for version in index_store.versions(folder):
            mark = "live" if version == live else "    "
            console.say(f"{folder.name} {version} {mark} {_contents(folder / version)}")


def inspect_command(
    index: Index,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="With --photos: your photographs (folder or CSV), matched by content, to show which number is "
            "whose."
        ),
    ] = None,
    photos: Annotated[
        bool, typer.Option("--photos", help="List every photograph with its number and its patient's.")
    ] = False,
) -> None:
    """Show settings, counts and calibration of an index, or which number is whose."""
    if not photos and source is not None:
        raise SettingError(f"{source}: your photographs are matched with --photos alone")
    version = index_store.resolve(index)
    if photos:
        _list_photos(version, source)
        return

    from indexer import tables
    from indexer.photos.listing import PatientCounts
    from resad.manifest import PHOTOS_FILE, read_manifest, read_records

    live = index_store.live_version(version.parent) == version.name
    manifest = read_manifest(version / index_store.MANIFEST)
    people = PatientCounts.of(record.patient for record in read_records(version / PHOTOS_FILE))
    console.OUT.print(tables.index_table(version, manifest, people, live=live))


def _list_photos(version: Path, source: Path | None) -> None:
    """Every photograph of a version, and those of one's own that it does not have."""
    from indexer import tables
    from indexer.calibration.lines import first_names
    from indexer.lifecycle.choice import by_content, photos_of
    from indexer.photos.listing import list_photos

    indexed = photos_of(version)
    files = {} if source is None else by_content(list_photos(source))
    console.say(f"{version}: {counted(len(indexed), 'photograph')}")
    for line in tables.photo_lines(indexed, files):
        console.say(line)
    hashes = {photo.content_sha256 for photo in indexed}
    if missing := [str(photo.path) for content, photo in files.items() if content not in hashes]:
        console.warn(f"{len(missing)} of {len(files)} in {source} are not in the index: {first_names(missing)}")


def verify_command(index: Index, device: Device = "auto") -> None:
    """Check an index: hashes, fingerprint, and the probe photograph's score."""
    index_store.resolve(index)
    check_device(device)

    from resad.loaded_index import check_probe

    loaded = console.load(index, device)
    index_store.check_files(index_store.resolve(index))
    deviation = check_probe(loaded, index)
    manifest = loaded.manifest
    checked = f"{counted(len(manifest.files), 'file')} as written, fingerprint fits, probe scores as built"
    console.say(f"{manifest.name} {manifest.version}: {checked} (relative deviation {deviation:.1e})")


def activate_command(
    index: Annotated[Path, typer.Argument(help="ROOT/NAME.")],
    version: Annotated[str, typer.Argument(help="One of `resad-indexer list`.")],
    device: Device = "auto",
) -> None:
    """Verify a version, then make it the live one."""
    check_device(device)
    if version not in index_store.versions(index):
        index_store.activate(index, version)  # refuses, naming the versions there are
    from resad.loaded_index import check_probe

    check_probe(console.load(index / version, device), index / version)
    index_store.activate(index, version)
    console.say(f"{index.name}: {version} is live")


def _contents(version: Path) -> str:
    from resad.manifest import read_manifest

    try:
        manifest = read_manifest(version / index_store.MANIFEST)
    except IndexInvalid as error:
        return f"cannot be read: {error}"
    counts = manifest.counts
    return f"{counted(counts.photos, 'photo')}, {counts.memories} memories, by {manifest.history[-1].operation}"


def add_command(
    index: Index,
    photos: Annotated[Path, typer.Argument(help="Folder of healthy photographs, or CSV as for build.")],
    activate: Live = True,
    strict: Annotated[bool, typer.Option(help="Refuse instead of skipping unusable photographs.")] = False,
    device: Device = "auto",
) -> None:
    """Add healthy photographs to an index, as a new version.

    No photograph of the index is encoded again.
    """
    index_store.resolve(index)
    check_device(device)
    check_source(photos)
    console.warn_unused(photos)

    from indexer.build.progress import Stages
    from indexer.lifecycle.add import AddOptions, add

    options = AddOptions(index, photos, runtime.pick_device(device), strict=strict, live=activate)
    with console.naming_skipped():
        report = add(options, Stages(console.ERR))
    console.warn_skipped(report.skipped, report.duplicates)
    console.warn_near_duplicates(report.near_duplicates)
    if report.strangers:
        console.warn(
            f"counted as new: {counted(report.strangers, 'patient')}; the index knows earlier ones by number "
            "alone. Photographs of one of those are to say so, by that number (as p-00003) in the column patient"
        )
    console.say(f"{counted(report.added, 'photograph')} added")
    print_version(report.derived, live=activate)


def merge_command(
    first: Index,
    second: Index,
    name: Annotated[str, typer.Option(help="Name of the merged index.")],
    root: Annotated[
        Path | None, typer.Option(help="Folder that holds it; that of the first unless given.")
    ] = None,
    activate: Live = True,
    device: Device = "auto",
) -> None:
    """Merge two indexes with the same settings and weights into a new one."""
    index_store.resolve(second)
    root = index_store.resolve(first).resolve().parent.parent if root is None else root
    check_place(root, name)
    check_device(device)

    from indexer.build.progress import Stages
    from indexer.lifecycle.merge import MergeOptions, merge

    options = MergeOptions(first, second, root, name, runtime.pick_device(device), live=activate)
    report = merge(options, Stages(console.ERR))
    console.warn_near_duplicates(report.near_duplicates)
    if report.recalibrated:
        console.warn("one was calibrated on other photographs; the merged index is calibrated on its references "
                     "(resad-indexer calibrate brings that back)")  # fmt: skip
    console.say(f"{counted(report.doubles, 'photograph is', 'photographs are')} in both")
    print_version(report.derived, live=activate)


def diff_command(
    before: Index,
    after: Index,
    json: Annotated[Path | None, typer.Option(help="Write everything here as JSON.")] = None,
) -> None:
    """Compare two versions or two indexes: photographs, memories, coverage, scores of the references."""
    from resad_client.files import write_atomically

    from indexer import tables
    from indexer.lifecycle.versions import diff, diff_json

    difference = diff(before, after)
    if json is not None:
        write_atomically(json, diff_json(difference).encode() + b"\n")
    console.OUT.print(tables.diff_table(difference))
    for line in tables.diff_lines(difference):
        console.say(line)


def rollback_command(
    index: OneIndex,
    to: Annotated[
        str | None, typer.Option(help="Version; the one that the live version was made from unless given.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Verify an earlier version and make it the live one again; the later one stays."""
    from indexer.lifecycle.versions import version_before

    activate_command(index, version_before(index) if to is None else to, device)


def gc_command(
    index: OneIndex,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep, the live one and the newest others.")],
    work: Annotated[bool, typer.Option("--work", help="Delete an unfinished build, too.")] = False,
    only_say: Annotated[bool, typer.Option("--dry-run", help="Print what would be deleted, and stop.")] = False,
) -> None:
    """Delete old versions, never the live one, and what killed processes have left."""
    from indexer.lifecycle.versions import collect

    report = collect(index, keep, with_work=work, only_say=only_say)
    for version in report.deleted:
        console.say(f"{'would delete' if only_say else 'deleted'} {version}")
    console.say(f"{counted(len(report.kept), 'version stays', 'versions stay')}")
    for folder in report.leftovers:
        console.warn(f"{folder} could not be deleted: see who may write there, or whether it is a link")
    if report.work and not only_say:
        console.warn(f"{index / index_store.WORK} stays: build --resume continues it, gc --work deletes it")


def print_version(derived: "NewVersion", *, live: bool) -> None:
    """Print a new version beside the version that it was made from, and what its calibration rests on."""
    from indexer import tables

    console.OUT.print(tables.new_version_table(derived))
    console.tell_calibration(derived.after.calibration)
    console.warn_stale(derived.after)
    console.say(f"{derived.version} is {'live' if live else 'written; activate it to use it'}")


def export_command(
    index: Index,
    file: Annotated[Path, typer.Argument(help="Archive to be made (.tar).")],
    sign: Annotated[Path | None, typer.Option(help="Private Ed25519 key, PEM, to sign with.")] = None,
) -> None:
    """Write a version to one file, with the hashes of all it holds."""
    index_store.resolve(index)
    if sign is not None and not sign.is_file():
        raise SettingError(f"--sign {sign}: no such file")

    from indexer.lifecycle.archive import export_version

    manifest = export_version(index, file, key=sign)
    kept = ", with all patch features" if manifest.keeps_features else ""
    signed = "signed" if sign else "not signed"
    console.say(
        f"{manifest.name} {manifest.version} is in {file} ({signed}{kept}); a later purge does not reach it"
    )


def import_command(
    file: Annotated[Path, typer.Argument(help="Archive that export made.")],
    root: Root,
    verify: Annotated[
        Path | None,
        typer.Option(help="Public Ed25519 key, PEM; refuses what its private half has not signed."),
    ] = None,
    activate: Live = True,
    device: Device = "auto",
) -> None:
    """Put an exported version into place below a root, its hashes checked."""
    for needed in (file, verify):
        if needed is not None and not needed.is_file():
            raise SettingError(f"{needed}: no such file")
    check_device(device)

    from indexer.lifecycle.archive import import_version

    imported = import_version(file, root, live=activate, key=verify, device=device)
    if verify is None:
        reason = "its signature was not checked (--verify KEY)" if imported.signed else "it is not signed"
        console.warn(f"{file}: {reason}; import indexes only from people you trust")
    console.say(f"{imported.version} is {'live' if activate else 'written; activate it to use it'}")
