"""Everything that a report shows, as records and as one HTML file, which can be mailed, kept and printed."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from resad_client.photos import Eye
from resad_client.records import INTENDED_USE, Evidence, Finding, Result
from resad_client.report import wording

MOST_FINDINGS: Final = 12
"""Findings in the table and framed in the photograph; the strongest ones."""
MOST_DETAILS: Final = 3
"""Findings shown in detail beside healthy patches."""
MOST_PATCHES: Final = 3
"""Healthy patches beside a finding."""
FINDING_HEADINGS: Final = (
    "no.",
    "place",
    "strength",
    "as high in healthy",
    "size",
    "nearest healthy patches, distances",
)
DISCLAIMER: Final = (
    "ReSAD names no disease, its score is not a probability, and a photograph without findings is not a healthy "
    "one."
)
FRAMES_NOTE: Final = "Frames: the strongest findings, by number. Size: share of the field of view."
_TEMPLATE: Final = "page.html.jinja"


@dataclass(frozen=True, slots=True)
class HealthyPatch:
    """A healthy patch beside a finding.  picture: JPEG, turned as the finding was compared with it."""

    evidence: Evidence
    picture: bytes

    @property
    def caption(self) -> str:
        """The photograph, and whether it is healthy or what a reader marked."""
        return wording.patch_caption(self.evidence)


@dataclass(frozen=True, slots=True)
class FindingDetail:
    """A finding from near.  picture: JPEG."""

    finding: Finding
    picture: bytes
    patches: tuple[HealthyPatch, ...]

    @property
    def caption(self) -> str:
        """Number and place."""
        return f"Finding {self.finding.rank}" + (f", {self.finding.place}" if self.finding.place else "")


@dataclass(frozen=True, slots=True)
class PhotoReport:
    """One photograph.

    result: None if it has none, for the reason `fault`.  photo: JPEG with findings numbered; None if only the
    service can decode it: then the overlay has the photograph beside the map.  overlay: JPEG.
    """

    label: str
    eye: Eye | None
    visit: str | None
    result: Result | None
    fault: str | None = None
    photo: bytes | None = None
    overlay: bytes | None = None
    details: tuple[FindingDetail, ...] = ()

    @property
    def heading(self) -> str:
        """Eye and visit, or the name of the photograph."""
        words = [*([f"{self.eye} eye"] if self.eye else []), *([self.visit] if self.visit else [])]
        text = ", ".join(words)
        return f"{text[:1].upper()}{text[1:]}" if words else self.label

    @property
    def verdict(self) -> str:
        """The verdict, or that there is no result."""
        return wording.verdict(self.result) if self.result else "could not be scored"

    @property
    def sentences(self) -> Iterator[str]:
        """What the result means."""
        if self.result is None:
            yield self.fault or "There is no result."
            return
        yield wording.score_sentence(self.result)
        yield wording.p_value_sentence(self.result)
        yield wording.normals_sentence(self.result)
        yield wording.quality_sentence(self.result)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes verdicts of the index doubtful."""
        if self.result is None:
            return ()
        return tuple(f"{text[:1].upper()}{text[1:]}." for text in (w.text for w in self.result.index.warnings))

    @property
    def findings_sentence(self) -> str:
        """How many findings, and how many of them are listed."""
        if self.result is None:
            return ""
        text = wording.findings_sentence(self.result)
        more = len(self.result.findings) - MOST_FINDINGS
        return f"{text} The {MOST_FINDINGS} strongest are listed." if more > 0 else text

    @property
    def finding_rows(self) -> tuple[tuple[str, ...], ...]:
        """The table of findings, by `FINDING_HEADINGS`."""
        if self.result is None:
            return ()
        result, normals = self.result, self.result.normals.photos
        return tuple(
            (
                str(finding.rank),
                wording.finding_place(finding),
                wording.finding_strength(finding, result),
                wording.finding_p_value(finding, normals),
                wording.finding_size(finding),
                wording.evidence_words(finding) or "-",
            )
            for finding in result.findings[:MOST_FINDINGS]
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The photographs of a patient, or one photograph.

    rows: beside each other; None leaves a place empty.  made: when and with what, in words.
    """

    title: str
    rows: tuple[tuple[PhotoReport | None, ...], ...]
    made: str

    @property
    def photos(self) -> tuple[PhotoReport, ...]:
        """All photographs."""
        return tuple(photo for row in self.rows for photo in row if photo is not None)

    @property
    def indexes(self) -> tuple[str, ...]:
        """A sentence for each index that answered; more than one if it changed meanwhile."""
        return tuple(
            dict.fromkeys(
                wording.index_sentence(photo.result) for photo in self.photos if photo.result is not None
            )
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes verdicts doubtful, each once."""
        texts = [text for photo in self.photos for text in photo.warnings]
        if len(self.indexes) > 1:
            texts.append("The index changed between these photographs: their scores cannot be compared.")
        return tuple(dict.fromkeys(texts))


def report_page(report: Report) -> str:
    """The HTML of a report, which needs no other file; every text is escaped, every picture is inside."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("resad_client.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["jpeg_url"] = _jpeg_url
    return environment.get_template(_TEMPLATE).render(
        report=report,
        headings=FINDING_HEADINGS,
        frames_note=FRAMES_NOTE,
        disclaimer=DISCLAIMER,
        notice=INTENDED_USE,
    )


def _jpeg_url(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
