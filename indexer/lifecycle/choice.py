"""Which photographs of an index the options --photo and --group mean, looked up in every version.

Ids (r-00041) and patients' numbers (p-00003) are the index's own: those of the version at hand.  A purge looks for
what that version does not have in all others, too, as an interrupted purge leaves it.  One's own ids of patients
and file names are resolved by a list of one's photographs (--photos CSV), matched by content.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from indexer.build.state import file_sha256
from indexer.calibration.calibrate import CalibrationRecord, calibration_records
from indexer.calibration.lines import first_names
from indexer.photos.listing import ReferencePhoto, list_photos
from indexer.photos.naming import parse_name
from resad import index
from resad.errors import IndexInvalid, SettingError
from resad.examples import read_example_records
from resad.index import file_record, tombstone, tombstones
from resad.manifest import (
    CALIBRATION_FILE,
    EXAMPLE_RECORDS_FILE,
    PHOTOS_FILE,
    ReferenceRecord,
    read_manifest,
    read_records,
)
from resad.marks import marked_hashes, read_entries

_GROUPS: Final = ("patient", "camera")
_PATIENT_NUMBER: Final = re.compile(r"p-\d{5,}")
_MARKED: Final = "m-"
"""How the ids of marked photographs begin."""
_MAX_NAMES: Final = 20
"""Files named in a message, at most."""


@dataclass(frozen=True, slots=True)
class HeldPhoto:
    """A photograph in a version.  patient: as the version numbers or names it.  name: of its file, if stored."""

    id: str
    content_sha256: str
    patient: str | None
    camera: str | None
    eye: str | None = None
    name: str | None = None

    @property
    def is_reference(self) -> bool:
        """Whether it is a reference photo; photographs of a separate calibration have numbers of their own."""
        return self.id.startswith("r-")

    @property
    def is_marked(self) -> bool:
        """Whether it is a photograph that readers marked, of which a version has patches alone."""
        return self.id.startswith(_MARKED)


@dataclass(frozen=True, slots=True)
class VersionPhotos:
    """The photographs of a version.  fault: why its records cannot be trusted; it may hold any photograph then."""

    version: str
    photos: tuple[HeldPhoto, ...]
    fault: str | None = None

    @property
    def hashes(self) -> frozenset[str]:
        """Content hashes of the photographs that its records name."""
        return frozenset(photo.content_sha256 for photo in self.photos)


def photos_of(version: Path) -> tuple[HeldPhoto, ...]:
    """The reference photos of a version, those of its separate calibration, and marked ones.

    Raises `IndexInvalid`.
    """
    records: list[ReferenceRecord | CalibrationRecord] = [*read_records(version / PHOTOS_FILE)]
    records += calibration_records(version)
    photos = []
    for record in records:
        eye, name = (record.eye, record.name) if isinstance(record, ReferenceRecord) else (None, None)
        photos.append(HeldPhoto(record.id, record.content_sha256, record.patient, record.camera, eye, name))
    marked = {record.photo: record.content_sha256 for record in read_example_records(version)}
    photos += [HeldPhoto(photo, content, None, None) for photo, content in marked.items()]
    return tuple(photos)


def read_version(version: Path) -> VersionPhotos:
    """The photographs of ROOT/NAME/VERSION, and whether its records are as they were written."""
    try:
        stated = {file.name: file for file in read_manifest(version / index.MANIFEST).files}
        for name in (PHOTOS_FILE, CALIBRATION_FILE, EXAMPLE_RECORDS_FILE):
            file = version / name
            if (name in stated or file.exists()) and file_record(file, name) != stated.get(name):
                return VersionPhotos(version.name, (), f"{name} was changed after the index was written (SHA-256)")
        return VersionPhotos(version.name, photos_of(version))
    except (IndexInvalid, OSError) as error:
        return VersionPhotos(version.name, (), str(error))


def read_versions(place: Path) -> tuple[VersionPhotos, ...]:
    """The photographs of every version of ROOT/NAME, oldest first."""
    return tuple(read_version(place / version) for version in index.versions(place))


Reach = Literal["version", "index"]
"""Where photographs are looked up: in the version at hand, or in all (for a purge)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Photographs that were named, by content hash.  warnings: what was named and is nowhere in the index."""

    hashes: frozenset[str]
    warnings: tuple[str, ...]
    _search: "_Search"

    @property
    def files(self) -> Mapping[str, ReferencePhoto]:
        """Content hash -> file where it is known, and what one's own list states of it; reads all these files."""
        return self._search.named | self._search.listed


def choose(
    version: Path,
    photos: Sequence[str],
    groups: Sequence[str],
    source: Path | None = None,
    *,
    reach: Reach = "version",
) -> Choice:
    """The photographs that --photo and --group name.

    Args:
        version: ROOT/NAME/VERSION whose numbers ids and patients are.
        photos: ids, content hashes, files, folders or CSVs; with `source` also names of its files.
        groups: `patient=ID` or `camera=NAME`; upper and lower case of a camera are the same.
        source: a folder or CSV of one's photographs; the column patient of a CSV goes before the index's numbers.
    Raises:
        SettingError: nothing is named, or a name is of no photograph, or perhaps of several; the message has all
            such names.
    """
    if not photos and not groups:
        raise SettingError("nothing is named: give --photo or --group")
    pairs = [_parse_group(text) for text in groups]
    search = _Search(version, source, reach)
    hashes: set[str] = set()
    warnings: list[str] = []
    faults: list[str] = []
    requests: list[tuple[Callable[[str], _Match], str]] = [(search.photo, text) for text in photos]
    requests += [(search.camera if kind == "camera" else search.patient, value) for kind, value in pairs]
    for find, name in requests:
        try:
            match = find(name)
        except SettingError as error:
            faults.append(str(error))
            continue
        hashes |= match.hashes
        warnings += match.warnings
    if faults:
        raise SettingError("; ".join(faults))
    return Choice(frozenset(hashes), tuple(warnings), search)


def _parse_group(text: str) -> tuple[str, str]:
    kind, equals, value = text.partition("=")
    if kind not in _GROUPS or not equals or not value:
        raise SettingError(f"--group {text!r}: expected patient=ID or camera=NAME")
    return kind, value


@dataclass(frozen=True, slots=True)
class _Match:
    """What a name stands for, and what of it is not in the index."""

    hashes: frozenset[str] | set[str] = frozenset()
    warnings: tuple[str, ...] = ()


class _Search:
    """Looks names up; each lookup raises `SettingError` where it finds nothing, or cannot tell which."""

    def __init__(self, version: Path, source: Path | None, reach: Reach) -> None:
        self.named: dict[str, ReferencePhoto] = {}
        self._version, self._source, self._everywhere = version, source, reach == "index"
        self._here = VersionPhotos(version.name, photos_of(version))
        self._barred = tombstones(version.parent) if self._everywhere else frozenset()
        self._listed = () if source is None else list_photos(source)

    @cached_property
    def _other_versions(self) -> tuple[VersionPhotos, ...]:
        return tuple(
            photos for photos in read_versions(self._version.parent) if photos.version != self._here.version
        )

    @cached_property
    def _reached(self) -> tuple[VersionPhotos, ...]:
        """The versions in which photographs are looked up, the one at hand first."""
        return (self._here, *self._other_versions) if self._everywhere else (self._here,)

    @cached_property
    def _reached_hashes(self) -> frozenset[str]:
        journal = marked_hashes(self._version.parent) if self._everywhere else frozenset()
        return journal.union(*(version.hashes for version in self._reached))

    @cached_property
    def listed(self) -> dict[str, ReferencePhoto]:
        """One's own list, by content."""
        return by_content(self._listed)

    def photo(self, text: str) -> _Match:
        """By id, content hash, file, or the name of a file in one's own list."""
        name = parse_name(text)
        if name.kind == "id":
            return self._id(name.value)
        if name.kind == "hash":
            return self._contents(f"--photo {text}", {name.value: None})
        path = Path(text)
        if path.exists():
            paths = [photo.path for photo in list_photos(path)]
        else:
            paths = [photo.path for photo in self._listed if _is_named(photo.path, text)]
            if len(paths) > 1:
                raise SettingError(f"--photo {text}: {len(paths)} photographs of {self._source} have this name")
        if not paths:
            also = f", and no file of {self._source}" if self._source is not None else ""
            raise SettingError(
                f"--photo {text!r} is no id (as r-00041), no content hash (64 hex digits), and no file{also}"
            )
        return self._contents(f"--photo {text}", {_content(path): path for path in paths})

    def camera(self, name: str) -> _Match:
        """All photographs of a camera."""
        hashes = {
            photo.content_sha256
            for version in self._reached
            for photo in version.photos
            if photo.camera is not None and photo.camera.casefold() == name.casefold()
        }
        return _Match(hashes) if hashes else self._nothing(f"--group camera={name}", gone=True)

    def patient(self, patient: str) -> _Match:
        """All photographs of a patient: by one's own list, or else by the index's numbers or names."""
        option = f"--group patient={patient}"
        files = {content: photo.path for content, photo in self.listed.items() if photo.patient == patient}
        if files:
            match = self._contents(option, files)
            return _Match(self._of_same_people(option, match.hashes, patient), match.warnings)
        numbered = _PATIENT_NUMBER.fullmatch(patient) is not None
        hashes, *parts = (_of_patient(version, patient) for version in self._reached)
        parts = [part for part in parts if part]
        if not numbered:
            hashes = hashes.union(*parts)
        elif not hashes and parts:
            # A number may be another person's in a version with another history.
            hashes = self._only(option, parts, "people by this number")
        if not hashes:
            hint = "; the index numbers its patients, and --photos CSV resolves your own ids"
            return self._nothing(option, gone=numbered, hint="" if numbered or self._source else hint)
        return _Match(self._of_same_people(option, hashes))

    def _id(self, photo_id: str) -> _Match:
        option = f"--photo {photo_id}"
        if hashes := _of_id(self._here, photo_id):
            return _Match(hashes)
        parts = {version.version: _of_id(version, photo_id) for version in self._other_versions}
        versions = [version for version, part in parts.items() if part]
        if versions and self._everywhere:
            return _Match(self._only(option, [parts[version] for version in versions], "photographs by this id"))
        hint = f"; version {versions[-1]} has it, and --purge would delete that, too" if versions else ""
        if photo_id.startswith(_MARKED):
            entries = read_entries(self._version.parent) if self._everywhere else ()
            hashes = {entry.photo.content_sha256 for entry in entries if entry.photo.id == photo_id}
            return _Match(hashes) if hashes else self._nothing(option, gone=True, hint=hint)
        return self._nothing(option, gone=int(photo_id[2:]) <= self._last_number, hint=hint)

    @property
    def _last_number(self) -> int:
        """The highest number that an id of the version at hand ever had."""
        stated = read_manifest(self._version / index.MANIFEST).numbered or 0
        return max([stated, *(int(photo.id[2:]) for photo in self._here.photos if not photo.is_marked)])

    def _contents(self, option: str, files: Mapping[str, Path | None]) -> _Match:
        """Photographs by content; those that are nowhere in the index are named, if some are in it."""
        present = {
            content for content in files if content in self._reached_hashes or tombstone(content) in self._barred
        }
        missing = [str(path) for content, path in files.items() if content not in present and path is not None]
        names = first_names(missing, _MAX_NAMES)
        if not present:
            return self._nothing(option, hint=f": {names}" if len(missing) > 1 else "")
        self.named |= {content: ReferencePhoto(path) for content, path in files.items() if path is not None}
        warning = f"{option}: {len(missing)} of {len(files)} are not in the index: {names}"
        return _Match(present, (warning,) if missing else ())

    def _only(self, option: str, parts: Iterable[set[str]], kind: str) -> set[str]:
        """The only one of several sets of photographs, or the only one whose purge has begun.

        Sets that share a photograph count as one.
        """
        united = _united(parts)
        in_purge = [part for part in united if any(tombstone(content) in self._barred for content in part)]
        if len(in_purge or united) > 1:
            raise SettingError(
                f"{option}: older versions have different {kind}; name the file or its content hash"
            )
        return (in_purge or united)[0]

    def _of_same_people(self, option: str, hashes: Iterable[str], patient: str | None = None) -> set[str]:
        """These photographs, and all that some version states of the same patients.

        Args:
            patient: of these photographs in one's own list.
        """
        people = [part for version in self._reached for part in _by_patient(version)]
        start = frozenset(hashes)
        same, size = set(start), -1
        while len(same) > size:  # versions may state different photographs of a person
            size = len(same)
            same.update(*(part for part in people if not part.isdisjoint(same)))
        for content in sorted(same - start) if patient is not None else ():
            file = self.listed.get(content)
            if file is not None and file.patient is not None:
                raise SettingError(
                    f"{option}: to the index {file.path} is of the same patient, {self._source} states "
                    f"{file.patient}; name the photographs by --photo"
                )
        return same

    def _nothing(self, option: str, *, gone: bool = False, hint: str = "") -> _Match:
        """Raise, or only warn where a purge that came to its end explains it.

        Args:
            gone: the name may have been that of a photograph.
        """
        place = self._version.parent
        if gone and self._barred:
            return _Match(warnings=(f"{option}: no version of {place} has such a photograph any more",))
        where = f"no version of {place} has" if self._everywhere else f"{self._version} holds no"
        raise SettingError(f"{option}: {where} such photograph{hint}")


def by_content(photos: Iterable[ReferencePhoto]) -> dict[str, ReferencePhoto]:
    """Content hash -> photograph; files that cannot be read are left out."""
    contents = ((file_sha256(photo.path), photo) for photo in photos)
    return {content: photo for content, photo in contents if content is not None}


def _of_id(version: VersionPhotos, photo_id: str) -> set[str]:
    return {photo.content_sha256 for photo in version.photos if photo.id == photo_id}


def _of_patient(version: VersionPhotos, patient: str) -> set[str]:
    return {photo.content_sha256 for photo in version.photos if photo.is_reference and photo.patient == patient}


def _by_patient(version: VersionPhotos) -> Collection[set[str]]:
    """The photographs of each patient."""
    people: dict[str, set[str]] = {}
    for photo in version.photos:
        if photo.is_reference and photo.patient is not None:
            people.setdefault(photo.patient, set()).add(photo.content_sha256)
    return people.values()


def _content(path: Path) -> str:
    content = file_sha256(path)
    if content is None:
        raise SettingError(f"{path} cannot be read: its content is not known")
    return content


def _is_named(path: Path, text: str) -> bool:
    """Whether `text` is the end of a path, with or without the suffix: `7.jpg`, `p1/7.jpg` or `7` for p1/7.jpg."""
    parts = Path(text).parts
    return bool(parts) and parts in (path.parts[-len(parts) :], path.with_suffix("").parts[-len(parts) :])


def _united(parts: Iterable[set[str]]) -> list[set[str]]:
    """Sets that share a member, united."""
    united: list[set[str]] = []
    for part in parts:
        touching = [earlier for earlier in united if earlier & part]
        united = [earlier for earlier in united if not earlier & part]
        united.append(set(part).union(*touching))
    return united
