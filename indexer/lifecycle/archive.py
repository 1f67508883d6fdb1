"""`resad-indexer export` and `import`: a version as one file, signed if asked."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from resad_client.files import replacing

from resad.errors import IndexInvalid, SettingError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519
import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Final

from resad import index
from resad.index import check_files, check_not_purged, move_into_place, staging_folder
from resad.manifest import Manifest, parse_manifest


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
_MAX_MANIFEST: Final = 256 * 10**6
"""Bytes; a manifest of a million files is smaller."""
_SEAL_BYTES: Final = 64
"""Bytes of a checksum in hexadecimal digits, and of a signature."""
_BLOCK: Final = 2**20


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


def import_version(file: Path, root: Path, *, live: bool = True, key: Path | None = None) -> Imported:
    """Put the version in `file` into its place below `root`; after any error no part of it remains.

    Args:
        live: make it the live version.
        key: public key; an archive that is not signed with its private half is refused.
    Raises:
        IndexInvalid: the archive is damaged, was changed, holds purged photographs, or the version exists.
        SettingError: the key cannot be used, or another process writes to the index.
    """
    if not file.is_file():
        raise SettingError(f"{file}: no such file")
    with _opened(file) as archive:
        members = iter(archive)
        manifest_json = _content(archive, next(members, None), _MAX_MANIFEST, file)
        checksum = _content(archive, next(members, None), _SEAL_BYTES, file)
        if hashlib.sha256(manifest_json).hexdigest().encode() != checksum:
            raise IndexInvalid(f"{file}: the manifest was changed after it was exported (SHA-256)")
        manifest = parse_manifest(manifest_json, str(file))
        folder = _folder(manifest)
        files = list(members)
        signature = None
        if files and files[0].name == f"{folder}/{SIGNATURE}":
            signature = _content(archive, files.pop(0), _SEAL_BYTES, file)
        if key is not None:
            check_signature(manifest_json, signature, key, str(file))
        with staging_folder(root, manifest.name) as scratch:
            place, staging = root / manifest.name, scratch / "version"
            if (place / manifest.version).exists():
                raise IndexInvalid(f"{place} has a version {manifest.version} already")
            staging.mkdir()
            (staging / index.MANIFEST).write_bytes(manifest_json)
            _unpack(archive, files, folder, manifest, staging, file)
            check_files(staging)
            check_not_purged(place, staging)
            version = move_into_place(staging, place, manifest, live=live)
    return Imported(version, manifest, signature is not None)


def _folder(manifest: Manifest) -> str:
    """NAME/VERSION; raises `IndexInvalid` or `SettingError` for names that could lead out of that folder."""
    index.check_name(manifest.name)
    index.check_version(manifest.version)
    for record in manifest.files:
        path = PurePosixPath(record.name)
        if path.is_absolute() or ".." in path.parts or "\0" in record.name or path.as_posix() != record.name:
            raise IndexInvalid(f"the manifest names a file {record.name!r}, which could be outside the index")
    return f"{manifest.name}/{manifest.version}"


def _unpack(
    archive: tarfile.TarFile,
    members: Sequence[tarfile.TarInfo],
    folder: str,
    manifest: Manifest,
    staging: Path,
    file: Path,
) -> None:
    """Unpack the files of the manifest, each once, as regular files of the stated sizes."""
    missing = {f"{folder}/{record.name}": record for record in manifest.files}
    needed = sum(record.bytes for record in manifest.files)
    if needed > (free := shutil.disk_usage(staging).free):
        raise SettingError(f"{file} takes {needed:,} bytes, and {free:,} are free where the index goes")
    for member in members:
        record = missing.pop(member.name, None)
        if record is None or not member.isreg() or member.size != record.bytes:
            raise IndexInvalid(
                f"{file}: {member.name!r} is not a file of the manifest, or not as the manifest states"
            )
        target = staging / record.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with _reading(archive, member, file) as content, target.open("xb") as out:
            shutil.copyfileobj(content, out, _BLOCK)
    if missing:
        raise IndexInvalid(f"{file} is incomplete: {next(iter(missing))} is missing")


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as archive:
            yield archive
    except tarfile.TarError as error:
        raise IndexInvalid(f"{file} is not an archive of an index, or it is damaged ({error})") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo | None, most: int, file: Path) -> bytes:
    """The bytes of a small file in the archive."""
    if member is None or not member.isreg() or member.size > most:
        raise IndexInvalid(f"{file} is not an archive of an index: it does not begin with a manifest and its hash")
    with _reading(archive, member, file) as content:
        return content.read()


def _reading(archive: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> IO[bytes]:
    content = archive.extractfile(member)
    if content is None:
        raise IndexInvalid(f"{file}: {member.name!r} is not a file")
    return content


def _put(archive: tarfile.TarFile, name: PurePosixPath, size: int, content: IO[bytes]) -> None:
    """Add a file without its owner and time."""
    member = tarfile.TarInfo(name.as_posix())
    member.size, member.mode = size, 0o644
    archive.addfile(member, content)
