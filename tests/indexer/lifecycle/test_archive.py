"""A version as one file: the same bytes every time, and nothing in it is trusted."""

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.lifecycle.archive import CHECKSUM, export_version, import_version
from resad import index
from resad.errors import ArtifactError, IndexInvalid, ResadError, SettingError
from resad.index import check_files
from resad.loaded_index import check_probe
from tests.indexer.lifecycle.small import load_on_cpu


@pytest.fixture
def archive(place: Path, tmp_path: Path) -> Path:
    export_version(place, tmp_path / "eyes.tar")
    return tmp_path / "eyes.tar"


def rewritten(
    archive: Path, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]
) -> Path:
    """The archive with its members changed, left out, or as they are, and a hash of the manifest that fits."""
    target, checksum = archive.with_name("changed.tar"), b""
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            content = checksum if member.name.endswith(CHECKSUM) else file.read()
            changed = change(member, content)
            if changed is not None:
                if member.name.endswith(index.MANIFEST):
                    checksum = hashlib.sha256(changed[1]).hexdigest().encode()
                changed[0].size = len(changed[1])
                new.addfile(changed[0], io.BytesIO(changed[1]))
    return target


def test_it_comes_back_as_it_was(place: Path, archive: Path, tmp_path: Path) -> None:
    imported = import_version(archive, tmp_path / "other")
    version = index.resolve(place)
    names = sorted(path.relative_to(version) for path in version.rglob("*"))
    assert sorted(path.relative_to(imported.version) for path in imported.version.rglob("*")) == names
    for name in names:
        if (version / name).is_file():
            assert (imported.version / name).read_bytes() == (version / name).read_bytes()
    check_probe(load_on_cpu(tmp_path / "other/eyes"), imported.version)
    export_version(tmp_path / "other/eyes", tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    with pytest.raises(IndexInvalid, match="already"):
        import_version(archive, tmp_path / "other")
    with pytest.raises(SettingError, match="exists already"):
        export_version(place, archive)


def test_it_may_wait(plain: Path, tmp_path: Path) -> None:
    export_version(plain, tmp_path / "eyes.tar")
    imported = import_version(tmp_path / "eyes.tar", tmp_path / "other", live=False)
    assert index.live_version(tmp_path / "other/eyes") is None
    assert index.versions(tmp_path / "other/eyes") == [imported.manifest.version]


def _escaping(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    if member.name.endswith("probe.png"):
        member.name = "../../probe.png"
    return member, content


def _linked(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    if member.name.endswith("probe.png"):
        member.type, member.linkname, content = tarfile.SYMTYPE, "/etc/passwd", b""
    return member, content


def _longer(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member, content + b"\0" if member.name.endswith("probe.png") else content


def _flipped(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member, content[:-1] + bytes([content[-1] ^ 1]) if member.name.endswith("bank.faiss") else content


def _lacking(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes] | None:
    return None if member.name.endswith("bank.faiss") else (member, content)


def _named_elsewhere(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member, content.replace(b'"probe.png"', b'"../../../probe.png"')


def _other_version(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    if member.name.endswith("manifest.json"):
        content = content.replace(b'"name": "eyes"', b'"name": "../x"')
    return member, content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_escaping, "is not a file of the manifest"), (_linked, "is not a file of the manifest"),
        (_longer, "is not a file of the manifest"), (_flipped, "was changed"), (_lacking, "is incomplete"),
        (_named_elsewhere, "could be outside the index"), (_other_version, "cannot name an index"),
    ],
)  # fmt: skip
def test_nothing_in_it_is_trusted(
    plain: Path,
    tmp_path: Path,
    change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]],
    message: str,
) -> None:
    export_version(plain, tmp_path / "eyes.tar")
    changed = rewritten(tmp_path / "eyes.tar", change)
    with pytest.raises(ResadError, match=message):
        import_version(changed, tmp_path / "deep/down/root")
    assert not any(path.is_file() and path.name != ".lock" for path in (tmp_path / "deep").rglob("*"))
    assert not (tmp_path / "probe.png").exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_damaged_is_an_error_and_nothing_is_left(
    plain: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    export_version(plain, folder / "eyes.tar")
    content = bytearray((folder / "eyes.tar").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 6000))
    cut = data.draw(st.booleans())
    if cut:
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    (folder / "damaged.tar").write_bytes(content)
    try:
        imported = import_version(folder / "damaged.tar", folder / "root")
    except ArtifactError:
        assert not (folder / "root").exists()
    else:  # what changed was padding, or a date
        check_files(imported.version)
        assert (imported.version / index.MANIFEST).read_bytes() == (
            index.resolve(plain) / index.MANIFEST
        ).read_bytes()


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A pair as OpenSSL makes it."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_signature_holds_for_what_was_signed_alone(plain: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "ours")
    _, strange = keys(tmp_path, "strange")
    export_version(plain, tmp_path / "eyes.tar", key=private)
    assert import_version(tmp_path / "eyes.tar", tmp_path / "a", key=public).signed
    assert import_version(tmp_path / "eyes.tar", tmp_path / "b").signed
    with pytest.raises(IndexInvalid, match="not signed with the key"):
        import_version(tmp_path / "eyes.tar", tmp_path / "c", key=strange)

    def recalibrated(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        return member, content.replace(b'"device": "cpu"', b'"device": "gpu"')

    with pytest.raises(IndexInvalid, match="not signed with the key"):
        import_version(rewritten(tmp_path / "eyes.tar", recalibrated), tmp_path / "c", key=public)
    export_version(plain, tmp_path / "plain.tar")
    with pytest.raises(IndexInvalid, match="is not signed"):
        import_version(tmp_path / "plain.tar", tmp_path / "c", key=public)
    assert not (tmp_path / "c").exists()
    with pytest.raises(SettingError, match="no private key"):
        export_version(plain, tmp_path / "x.tar", key=public)
    with pytest.raises(SettingError, match="no public key"):
        import_version(tmp_path / "eyes.tar", tmp_path / "c", key=private)
    assert not (tmp_path / "x.tar").exists()
