"""`resad-indexer export` and `import`: a version as one file, signed if asked.

Nothing in an archive is trusted.  Import checks its signature and the list of its members before it reads or
writes anything else, hashes each file while it copies it, and loads the version and scores its probe photograph
before it becomes live.
"""

import hashlib
import io
import re
import shutil
import tarfile
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, BinaryIO, Final

from resad_client.files import replacing

from indexer.lifecycle.members import Member, read_content, read_members, read_pieces
from resad import index
from resad.errors import IndexInvalid, SettingError
from resad.index import check_files, check_not_purged, move_into_place, staging_folder
from resad.manifest import FileRecord, Manifest, parse_manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519


def sign(data: bytes, key_file: Path) -> bytes:
    """The signature, 64 bytes; raises `SettingError` where `key_file` holds no private key that can be used."""
    _check_installed()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise SettingError(f"{key_file} holds no private key without a passphrase, in PEM") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SettingError(f"{key_file} is no key for Ed25519 (openssl genpkey -algorithm ed25519)")
    return key.sign(data)


def check_signature(data: bytes, signature: bytes | None, key_file: Path, what: str) -> None:
    """Raise `IndexInvalid` unless `signature` is that of `data` by the private half of the key in `key_file`.

    Args:
        what: is signed, for messages.
    Raises:
        SettingError: `key_file` holds no public key that can be used.
    """
    key = _public_key(key_file)
    if signature is None:
        raise IndexInvalid(f"{what} is not signed")
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature as error:
        raise IndexInvalid(f"{what} is not signed with the key in {key_file}, or was changed since") from error


def _public_key(file: Path) -> "ed25519.Ed25519PublicKey":
    _check_installed()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except ValueError as error:
        raise SettingError(f"{file} holds no public key in PEM (openssl pkey -pubout)") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise SettingError(f"{file} is no key for Ed25519 (openssl genpkey -algorithm ed25519)")
    return key


def _check_installed() -> None:
    if find_spec("cryptography") is None:
        raise SettingError("signatures take the package cryptography: pip install 'resad[sign]'")


CHECKSUM: Final = "manifest.sha256"
SIGNATURE: Final = "manifest.sig"
_MAX_MANIFEST: Final = 64 * 10**6
"""Bytes; that of 100,000 photographs with features and pictures is smaller."""
_SEAL_BYTES: Final = 64
"""Bytes of a checksum in hexadecimal digits, and of a signature."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The imported version, ROOT/NAME/VERSION.  signed: whether the archive has a signature, checked or not."""

    version: Path
    manifest: Manifest
    signed: bool


def export_version(path: Path, file: Path, *, key: Path | None = None) -> Manifest:
    """Write ROOT/NAME (its live version) or ROOT/NAME/VERSION to `file`, atomically.

    Args:
        key: private key to sign with.
    Raises:
        IndexInvalid: the version is damaged.
        SettingError: `file` exists, or the key cannot be used.
    """
    version = index.resolve(path)
    if file.exists():
        raise SettingError(f"{file} exists already")
    manifest = check_files(version)
    manifest_json = (version / index.MANIFEST).read_bytes()
    signature = None if key is None else sign(manifest_json, key)
    folder = PurePosixPath(manifest.name) / manifest.version
    with (
        replacing(file) as temporary,
        tarfile.open(temporary, "x", format=tarfile.PAX_FORMAT) as archive,
    ):
        _put(archive, folder / index.MANIFEST, len(manifest_json), io.BytesIO(manifest_json))
        checksum = hashlib.sha256(manifest_json).hexdigest().encode()
        _put(archive, folder / CHECKSUM, len(checksum), io.BytesIO(checksum))
        if signature is not None:
            _put(archive, folder / SIGNATURE, len(signature), io.BytesIO(signature))
        for record in manifest.files:
            with (version / record.name).open("rb") as content:
                _put(archive, folder / record.name, record.bytes, content)
    return manifest


def import_version(
    file: Path, root: Path, *, live: bool = True, key: Path | None = None, device: str = "auto"
) -> Imported:
    """Put the version in `file` into its place below `root`; after any error no part of it remains.

    Args:
        live: make it the live version.
        key: public key; an archive that is not signed with its private half is refused.
        device: on which the version is loaded and, before it becomes live, its probe photograph scored.
    Raises:
        IndexInvalid: the archive is damaged, was changed, holds purged photographs, or cannot be loaded; or the
            version exists.
        SettingError: the key cannot be used, the disk is too full, or another process writes to the index.
    """
    if not file.is_file():
        raise SettingError(f"{file}: no such file")
    with file.open("rb") as archive:
        contents = _read_contents(archive, file, key)
        manifest = contents.manifest
        place = root / manifest.name
        if (place / manifest.version).exists():
            raise IndexInvalid(f"{place} has a version {manifest.version} already")
        with staging_folder(root, manifest.name) as scratch:
            staging = scratch / "version"
            staging.mkdir()
            _unpack(archive, contents, staging, file)
            check_not_purged(place, staging)
            _try_out(staging, device, score=live)
            version = move_into_place(staging, place, manifest, live=live)
    return Imported(version, manifest, contents.signed)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What an archive holds.  files: each file of the manifest, and where it lies."""

    manifest: Manifest
    manifest_json: bytes
    files: tuple[tuple[FileRecord, Member], ...]
    signed: bool


def _read_contents(archive: BinaryIO, file: Path, key: Path | None) -> _Contents:
    """Check the signature, the manifest and the list of members, in this order; no file of the version is read."""
    members = read_members(archive, file)
    first, second = next(members, None), next(members, None)
    manifest_json = _small(archive, first, index.MANIFEST, range(1, _MAX_MANIFEST + 1), file)
    checksum = _small(archive, second, CHECKSUM, range(_SEAL_BYTES, _SEAL_BYTES + 1), file)
    third = next(members, None)
    signature = None
    if third is not None and third.name.endswith(f"/{SIGNATURE}"):
        signature = _small(archive, third, SIGNATURE, range(_SEAL_BYTES, _SEAL_BYTES + 1), file)
        third = next(members, None)
    if key is not None:
        check_signature(manifest_json, signature, key, str(file))
    if hashlib.sha256(manifest_json).hexdigest().encode() != checksum:
        raise IndexInvalid(f"{file}: the manifest was changed after it was exported (SHA-256)")
    manifest = parse_manifest(manifest_json, str(file))
    records = _records(manifest, file)
    if first is None or first.name != f"{manifest.name}/{manifest.version}/{index.MANIFEST}":
        raise IndexInvalid(f"{file}: its manifest is of {manifest.name} {manifest.version}, and lies elsewhere")
    files = []
    for member in chain(() if third is None else (third,), members):
        record = records.pop(member.name, None)
        if record is None or member.size != record.bytes:
            raise IndexInvalid(
                f"{file}: {member.name!r} is not a file of the manifest, or not as the manifest states"
            )
        files.append((record, member))
    if records:
        raise IndexInvalid(f"{file} is incomplete: {next(iter(records))} is missing")
    return _Contents(manifest, manifest_json, tuple(files), signature is not None)


def _small(archive: BinaryIO, member: Member | None, name: str, sizes: range, file: Path) -> bytes:
    if member is None or PurePosixPath(member.name).name != name or member.size not in sizes:
        raise IndexInvalid(f"{file} is not an archive of an index: it does not begin with a manifest and its hash")
    return read_content(archive, member)


def _records(manifest: Manifest, file: Path) -> dict[str, FileRecord]:
    """Name in the archive -> file of the manifest.

    Raises `IndexInvalid` or `SettingError` for names that could lead out of NAME/VERSION, or to one place twice.
    """
    index.check_name(manifest.name)
    index.check_version(manifest.version)
    folder = f"{manifest.name}/{manifest.version}"
    records: dict[str, FileRecord] = {}
    folders = {parent for record in manifest.files for parent in PurePosixPath(record.name).parents}
    for record in manifest.files:
        path = PurePosixPath(record.name)
        if path.is_absolute() or ".." in path.parts or not record.name.isprintable():
            raise IndexInvalid(f"{file}: the manifest names {record.name!r}, which could be outside the index")
        if (
            path.as_posix() != record.name
            or path in folders
            or record.name in (index.MANIFEST, CHECKSUM, SIGNATURE)
            or f"{folder}/{record.name}" in records
        ):
            raise IndexInvalid(f"{file}: the manifest names {record.name!r} twice, or as a file and a folder")
        if record.bytes < 0 or not _HASH.fullmatch(record.sha256):
            raise IndexInvalid(f"{file}: the manifest states no size or hash of {record.name!r}")
        records[f"{folder}/{record.name}"] = record
    return records


_HASH: Final = re.compile(r"[0-9a-f]{64}")


def _unpack(archive: BinaryIO, contents: _Contents, staging: Path, file: Path) -> None:
    """Write the files; each is hashed while it is copied, so that the first one that was changed ends it."""
    needed = sum(member.size for _, member in contents.files)
    if needed > (free := shutil.disk_usage(staging).free):
        raise SettingError(f"{file} takes {needed:,} bytes, and {free:,} are free where the index goes")
    (staging / index.MANIFEST).write_bytes(contents.manifest_json)
    for record, member in contents.files:
        target, digest = staging / record.name, hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            for piece in read_pieces(archive, member):
                digest.update(piece)
                out.write(piece)
        if digest.hexdigest() != record.sha256:
            raise IndexInvalid(f"{file}: {record.name} was changed after the index was written (SHA-256)")


def _try_out(version: Path, device: str, *, score: bool) -> None:
    """Load the version; score its probe photograph if it is to become live (`activate` does so otherwise)."""
    from resad import runtime
    from resad.loaded_index import check_probe, load_index

    loaded = load_index(version, runtime.pick_device(device))
    runtime.configure(loaded.manifest.config.precision)
    if score:
        check_probe(loaded, version)


def _put(archive: tarfile.TarFile, name: PurePosixPath, size: int, content: IO[bytes]) -> None:
    """Add a file without its owner and time."""
    member = tarfile.TarInfo(name.as_posix())
    member.size, member.mode = size, 0o644
    archive.addfile(member, content)
