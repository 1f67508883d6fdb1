"""`resad-indexer list`, `inspect`, `verify` and `activate`: versions of an index as they lie on disk."""

from pathlib import Path
from typing import Annotated

import typer

from indexer import tables
from indexer.commands import console
from indexer.commands.console import Device, Index, Root
from indexer.people import People
from resad import index as index_store
from resad.errors import IndexInvalid, SettingError
from resad.integrity import check_files
from resad.loaded_index import check_probe
from resad.manifest import read_manifest
from resad.photo_records import PHOTOS_FILE, read_records


def list_command(root: Root) -> None:
    """List the indexes and their versions."""
    if not root.is_dir():
        raise SettingError(f"{root} is no folder")
    for folder in sorted(path for path in root.iterdir() if index_store.versions(path)):
        live = index_store.live_version(folder)
        for version in index_store.versions(folder):
            mark = "live" if version == live else "    "
            console.say(f"{folder.name} {version} {mark} {_contents(folder / version)}")


def inspect_command(index: Index) -> None:
    """Show what an index says of itself."""
    version = index_store.resolve(index)
    live = index_store.live_version(version.parent) == version.name
    manifest = read_manifest(version / index_store.MANIFEST)
    people = People.of(record.patient for record in read_records(version / PHOTOS_FILE))
    console.OUT.print(tables.index_table(version, manifest, people, live=live))


def verify_command(index: Index, device: Device = "auto") -> None:
    """Check an index: hashes, fingerprint, and the probe photograph's score."""
    loaded = console.load(index, device)
    check_files(index_store.resolve(index))
    deviation = check_probe(loaded, index)
    manifest = loaded.manifest
    checked = f"{len(manifest.files)} files as written, fingerprint fits, probe scores as built"
    console.say(f"{manifest.name} {manifest.version}: {checked} (relative deviation {deviation:.1e})")


def activate_command(
    index: Annotated[Path, typer.Argument(help="ROOT/NAME.")],
    version: Annotated[str, typer.Argument(help="One of `resad-indexer list`.")],
    device: Device = "auto",
) -> None:
    """Verify a version, then make it the live one."""
    if version not in index_store.versions(index):
        index_store.activate(index, version)  # refuses, naming the versions there are
    check_probe(console.load(index / version, device), index / version)
    index_store.activate(index, version)
    console.say(f"{index.name}: {version} is live")


def _contents(version: Path) -> str:
    try:
        manifest = read_manifest(version / index_store.MANIFEST)
    except IndexInvalid as error:
        return f"cannot be read: {error}"
    counts = manifest.counts
    return f"{counts.photos} photos, {counts.memories} memories, by {manifest.history[-1].operation}"
