"""A version as one file: the same bytes every time, and nothing in it is trusted."""

import hashlib
import io
import json
import math
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.lifecycle.archive import CHECKSUM, export_version, import_version
from resad import index
from resad.errors import ArtifactError, IndexInvalid, ResadError, SettingError
from resad.index import check_files
from resad.loaded_index import check_probe
from tests.conftest import Run
from tests.indexer.lifecycle.small import build_index, copy_photos, load_on_cpu


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
        (_escaping, "is not a file of the manifest"), (_linked, "is not a regular file"),
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


def with_header(archive: Path, suffix: str, change: Callable[[bytearray], None], extra: bytes = b"") -> Path:
    """The archive with the header of one member changed by hand, its checksum made to fit.

    Args:
        extra: bytes that are put before that header.
    """
    with tarfile.open(archive) as tar:
        at = next(member.offset for member in tar if member.name.endswith(suffix))
    content = bytearray(archive.read_bytes())
    header = content[at : at + tarfile.BLOCKSIZE]
    change(header)
    content[at : at + tarfile.BLOCKSIZE] = extra + sealed(header)
    target = archive.with_name("crafted.tar")
    target.write_bytes(content)
    return target


def sealed(header: bytearray) -> bytes:
    """The header with the checksum of its bytes."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def base_256(number: int) -> bytes:
    """A size as GNU's tar writes one that octal digits do not hold."""
    return (number & ((1 << 96) - 1)).to_bytes(12, "big")


def pax(keywords: dict[str, str]) -> bytes:
    """A pax header in front of a member, as the library writes it."""
    header: bytes = tarfile.TarInfo._create_pax_generic_header(keywords, tarfile.XHDTYPE, "utf-8")  # type: ignore[attr-defined]
    return header


def _negative(header: bytearray) -> None:
    header[124:136] = base_256(-tarfile.BLOCKSIZE)


def _huge(header: bytearray) -> None:
    header[124:136] = b"\x80" + base_256(2**80)[1:]


def _sparse(header: bytearray) -> None:
    """A member of 512 bytes that says it is 394 MB long, as `tar --sparse` packs a hole."""
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[257:265] = b"ustar  \0"
    header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % 512
    header[483:495] = b"%011o\0" % 394_000_000


def _typed(kind: bytes) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[156:157] = kind
        header[157:167] = b"/etc/hosts"

    return change


def _as_it_is(header: bytearray) -> None:
    return None


@pytest.mark.parametrize(
    ("suffix", "change", "extra", "message"),
    [
        ("left_out.safetensors", _negative, b"", "bytes by its header"),
        ("manifest.json", _negative, b"", "bytes by its header"),
        ("manifest.sha256", _negative, b"", "bytes by its header"),
        ("memory_bank.faiss", _huge, b"", "bytes by its header"),
        ("memory_bank.faiss", _sparse, b"", "not a regular file"),
        ("memory_bank.faiss", _typed(tarfile.LNKTYPE), b"", "not a regular file"),
        ("memory_bank.faiss", _typed(tarfile.FIFOTYPE), b"", "not a regular file"),
        ("memory_bank.faiss", _typed(tarfile.CHRTYPE), b"", "not a regular file"),
        ("memory_bank.faiss", _typed(tarfile.DIRTYPE), b"", "not a regular file"),
        ("memory_bank.faiss", _typed(tarfile.XGLTYPE), b"", "not a regular file"),
        ("memory_bank.faiss", _typed(tarfile.GNUTYPE_LONGNAME), b"", "not a regular file"),
        ("memory_bank.faiss", _as_it_is, pax({"size": "-512"}), "bytes by its header"),
        ("memory_bank.faiss", _as_it_is, pax({"size": "9" * 18}), "bytes by its header"),
        ("memory_bank.faiss", _as_it_is, pax({"path": "../../x"}), "is not a file of the manifest"),
        ("memory_bank.faiss", _as_it_is, pax({"GNU.sparse.major": "1"}), "what no export writes"),
        ("memory_bank.faiss", _as_it_is, pax({"linkpath": "/etc/hosts"}), "what no export writes"),
        ("memory_bank.faiss", _as_it_is, pax({"path": "x" * 70_000}), "the limit is"),
    ],
)
def test_no_header_leads_astray(
    plain: Path, tmp_path: Path, suffix: str, change: Callable[[bytearray], None], extra: bytes, message: str
) -> None:
    """Refused by the list of members alone: before a folder is made, and whatever the signature says."""
    export_version(plain, tmp_path / "eyes.tar")
    crafted = with_header(tmp_path / "eyes.tar", suffix, change, extra)
    with pytest.raises(IndexInvalid, match=message):
        import_version(crafted, tmp_path / "far")
    assert not (tmp_path / "far").exists()


def test_a_negative_size_ends_through_the_process(plain: Path, tmp_path: Path) -> None:
    export_version(plain, tmp_path / "eyes.tar")
    crafted = with_header(tmp_path / "eyes.tar", "backbone.safetensors", _negative)
    outcome = subprocess.run(
        [sys.executable, "-c", "from indexer.cli import main; main()", "import", crafted, "--root", tmp_path],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("resad-indexer: ")
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_signature_is_checked_before_the_manifest_is_read(plain: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "ours")
    export_version(plain, tmp_path / "eyes.tar", key=private)

    def nonsense(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        return member, b"{" if member.name.endswith(index.MANIFEST) else content

    with pytest.raises(IndexInvalid, match="not signed with the key"):
        import_version(rewritten(tmp_path / "eyes.tar", nonsense), tmp_path / "far", key=public)


def test_members_twice_and_members_too_many_are_refused(plain: Path, tmp_path: Path) -> None:
    export_version(plain, tmp_path / "eyes.tar")
    for name in ("probe.png", "more.png"):
        target = Path(shutil.copy(tmp_path / "eyes.tar", tmp_path / f"{name}.tar"))
        with tarfile.open(target) as tar:
            original = next(member for member in tar if member.name.endswith("probe.png"))
        with tarfile.open(target, "a") as tar:
            added = tarfile.TarInfo(original.name.replace("probe.png", name))
            tar.addfile(added)
        with pytest.raises(IndexInvalid, match=f"{name}' is not a file of the manifest"):
            import_version(target, tmp_path / "far")
    (tmp_path / "longer.tar").write_bytes((tmp_path / "eyes.tar").read_bytes() + b"more".ljust(10240, b"\0"))
    with pytest.raises(IndexInvalid, match="behind its end"):
        import_version(tmp_path / "longer.tar", tmp_path / "far")
    assert not (tmp_path / "far").exists()


def _set(document: Any, path: str, value: object) -> None:
    *folders, last = path.split(".")
    for key in folders:
        document = document[int(key) if isinstance(document, list) else key]
    document[int(last) if isinstance(document, list) else last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("calibration.patches.-1.value", 0.0, "calibration"),
        ("calibration.patches.-1.value", math.inf, "is inf"),
        ("calibration.patches.3.value", -1.0, "not ascending"),
        ("calibration.patches", [{"at": 1.0, "value": 0.0}], "no scale"),
        ("calibration.patches", [], "not ascending"),
        ("calibration.scores", [], "scores are not"),
        ("calibration.scores.0", math.nan, "is nan"),
        ("calibration.peaks.0", 1e300, "peaks are not"),
        ("counts.grid", [10**9, 10**9], r"counts\.grid"),
        ("counts.grid", [0, 16], r"counts\.grid"),
        ("counts.memories", -1, r"counts\.memories"),
        ("counts.patches", 10**12, r"counts\.patches"),
        ("quality.covering_radius", math.nan, "is nan"),
        ("probe_score", math.nan, "is nan"),
        ("probe_score", 0.0, "probe_score"),
        ("probe_score", 123.0, "the probe photograph scores"),
        ("counts.photos", 10**6, "the manifest says"),
        ("counts.dimension", 7, "as the manifest says"),
        ("counts.grid", [2, 2], r"counts\.patches"),
        ("counts.grid", [8, 64], "as the manifest says"),
        ("files.0.bytes", -5, "no size or hash"),
        ("files.0.name", "manifest.json", "twice"),
        ("files.0.name", "probe.png", "twice"),
        ("files.0.name", "probe.png/x", "twice"),
        ("files.0.name", "a\u202eb\x1b", "outside the index"),
        ("files.0.sha256", "", "no size or hash"),
    ],
)
def test_absurd_values_never_become_live(
    plain: Path, tmp_path: Path, path: str, value: object, message: str
) -> None:
    export_version(plain, tmp_path / "eyes.tar")

    def absurd(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        if member.name.endswith(index.MANIFEST):
            document = json.loads(content)
            _set(document, path, value)
            content = json.dumps(document).encode()
        return member, content

    crafted = rewritten(tmp_path / "eyes.tar", absurd)
    with pytest.raises(ResadError, match=message):
        import_version(crafted, tmp_path / "far")
    assert not (tmp_path / "far").exists()


def test_an_index_with_absurd_values_is_refused_wherever_it_is_read(plain: Path, run: Run) -> None:
    version = index.resolve(plain)
    document = json.loads((version / index.MANIFEST).read_text())
    _set(document, "calibration.patches.-1.value", math.inf)
    (version / index.MANIFEST).write_text(json.dumps(document))
    outcome = run("inspect", plain)
    assert outcome.code == 2
    assert "value is inf; no index was written with that" in outcome.err


def test_long_names_and_large_sizes_are_still_read(photos: list[Path], tmp_path: Path) -> None:
    """Exports write what a plain header cannot hold into a pax header."""
    name = "e" * 64
    place = build_index(
        copy_photos(photos[:5], tmp_path / "photos"), tmp_path / "first", name=name, keep_features=True
    )
    export_version(place, tmp_path / "long.tar")
    assert b"PaxHeader" in (tmp_path / "long.tar").read_bytes()
    imported = import_version(tmp_path / "long.tar", tmp_path / "far")
    assert check_files(imported.version) == check_files(index.resolve(place))
