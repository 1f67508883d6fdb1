"""A report as PDF: A4 pages with the notice at the foot of each."""

import io
import struct
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from fontTools.ttLib import TTFont, TTLibError  # type: ignore[import-untyped]
from fpdf import FPDF
from fpdf.enums import MethodReturnValue, WrapMode, XPos, YPos
from fpdf.fonts import FontFace

from resad_client.records import INTENDED_USE
from resad_client.report.contents import (
    DISCLAIMER,
    FINDING_HEADINGS,
    FRAMES_NOTE,
    PhotoReport,
    Report,
)
from resad_client.report.pictures import size_of

_MARGIN: Final = 14.0
_GAP: Final = 6.0
_DETAIL: Final = 24.0
_SMALLEST: Final = 52.0
"""Width of a detail; the smallest height of pictures beside each other.  All in mm, texts in pt."""
_BODY: Final = 9.0
_WIDTHS: Final = (7, 37, 33, 22, 18, 65)
_FOLDERS: Final = (
    "/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts",
    "/System/Library/Fonts", "C:/Windows/Fonts",
)  # fmt: skip
_PREFERRED: Final = (
    "DejaVuSans.", "NotoSans-Regular.", "Arial.", "arial.", "Arial Unicode.", "NotoSansCJK-Regular.",
    "DroidSansFallbackFull.", "DroidSansFallback.", "wqy-", "msyh.", "msgothic.", "malgun.",
)  # fmt: skip
"""Beginnings of names of fonts with many letters, tried before all others."""
_FONT_FAULTS: Final = (
    OSError, TTLibError, KeyError, AssertionError, TypeError, ValueError, struct.error, NotImplementedError
)  # fmt: skip
"""What unusable fonts raise.  fontTools: `TTLibError` where it finds no font, `KeyError` where a table is missing,
those from `AssertionError` to `struct.error` where one is damaged.  fpdf2: the last, for odd charsets."""


def report_pdf(report: Report) -> bytes:
    """The PDF of a report.

    Letters outside of Latin-1, as in names, are written with fonts of this machine; one that no font has stands as
    its number in Unicode.
    """
    document = _Document(report)
    document.write_head()
    for row in report.rows:
        document.write_row(row)
    for photo in report.photos:
        if photo.result is not None:
            document.write_findings(photo)
    document.write_end()
    return bytes(document.output())


class _Document(FPDF):
    def __init__(self, report: Report) -> None:
        super().__init__("portrait", "mm", "A4")
        self.report = report
        self.set_margins(_MARGIN, _MARGIN, _MARGIN)
        self.set_auto_page_break(True, 18)
        self.c_margin = 0  # texts begin where pictures do
        self.set_lang("en")
        self.letters = _add_fonts(self, _texts(report))
        self.set_title(self.clean(f"{report.title} - ReSAD report"))
        self.set_producer("resad-client")
        self.set_subject(INTENDED_USE)
        self.add_page()

    def footer(self) -> None:
        """The notice, the title and the number of each page."""
        self.set_y(-13)
        self.font(8)
        self.set_text_color(60)
        title = self.clean(self.report.title)
        while len(title) > 1 and self.get_string_width(title) > self.epw / 2:
            title = title[:-1]
        width = self.epw / 3
        self.cell(width, 5, title)
        self.cell(width, 5, INTENDED_USE, align="C")
        self.cell(width, 5, f"page {self.page_no()} of {{nb}}", align="R")
        self.set_text_color(0)

    def font(self, size: float = _BODY, *, bold: bool = False) -> None:
        """Choose the size of what follows."""
        self.set_font(self.letters.family, "B" if bold else "", size)

    def clean(self, text: str) -> str:
        """`text` with letters that no font has, and characters of control, as numbers."""
        composed = unicodedata.normalize("NFC", text)
        return "".join(
            letter if letter in self.letters and letter.isprintable() else f"<U+{ord(letter):04X}>"
            for letter in composed
        )

    def paragraph(
        self, text: str, size: float = _BODY, *, bold: bool = False, width: float = 0, left: float | None = None
    ) -> None:
        """A paragraph that breaks anywhere if a word is wider than the line."""
        if left is not None:
            self.set_x(left)
        self.font(size, bold=bold)
        self.multi_cell(
            width,
            0.46 * size,
            self.clean(text),
            align="L",
            wrapmode=WrapMode.WORD,
            new_x=XPos.LMARGIN,
            new_y=YPos.NEXT,
        )

    def write_head(self) -> None:
        """Title, notice and warnings."""
        self.paragraph(self.report.title, 17, bold=True)
        self.ln(1)
        self.font(10, bold=True)
        self.cell(self.get_string_width(INTENDED_USE) + 4, 6.5, INTENDED_USE, border=1, align="C")
        self.ln(8.5)
        for text in self.report.warnings:
            self.set_fill_color(255, 243, 214)
            self.font(_BODY)
            self.multi_cell(
                0, 4.4, self.clean(f"Index: {text}"), border="L", fill=True, align="L", padding=(1, 1, 1, 2),
                new_x=XPos.LMARGIN, new_y=YPos.NEXT,
            )  # fmt: skip
            self.ln(1)
        self.set_fill_color(255)

    def write_row(self, row: tuple[PhotoReport | None, ...]) -> None:
        """One photograph over the width of the page, or two beside each other."""
        self.ln(2)
        if len(row) == 1 and row[0] is not None:
            self._write_wide(row[0])
            return
        width = (self.epw - _GAP) / 2
        words = max(self._words_height(photo, width) for photo in row)
        space = (self.page_break_trigger - self.get_y() - words) / 2
        if space < _SMALLEST:
            self.add_page()
            space = (self.page_break_trigger - self.get_y() - words) / 2
        top, bottom = self.get_y(), self.get_y()
        for place, photo in enumerate(row):
            left = self.l_margin + place * (width + _GAP)
            self.set_xy(left, top)
            if photo is None:
                self.set_text_color(90)
                self.paragraph("no photograph", width=width, left=left)
                self.set_text_color(0)
            else:
                self._write_column(photo, left, width, max(space, _SMALLEST))
            bottom = max(bottom, self.get_y())
        self.set_xy(self.l_margin, bottom)

    def _write_column(self, photo: PhotoReport, left: float, width: float, highest: float) -> None:
        """Photograph, map and sentences below each other.  highest: of a picture, mm."""
        self._write_heading(photo, left, width)
        for picture in (photo.photo, photo.overlay):
            if picture is not None:
                across, down = size_of(picture)
                height = min(width * down / across, highest)
                self._place(picture, left, self.get_y(), height * across / down)
                self.set_y(self.get_y() + height + 1.5)
        self._write_words(photo, left, width)

    def _write_wide(self, photo: PhotoReport) -> None:
        pictures = [picture for picture in (photo.photo, photo.overlay) if picture is not None]
        # Equal heights: the overlay is wider by its color bar.
        ratios = [size_of(picture)[0] / size_of(picture)[1] for picture in pictures]
        space = self.epw - (len(pictures) - 1) * _GAP / 2
        height = min(space / sum(ratios), 110.0) if pictures else 0.0
        if self.get_y() + height + 45 > self.page_break_trigger:
            self.add_page()
        self._write_heading(photo, self.l_margin, self.epw)
        left, top = self.l_margin, self.get_y()
        for picture, ratio in zip(pictures, ratios, strict=True):
            self._place(picture, left, top, height * ratio)
            left += height * ratio + _GAP / 2
        self.set_y(top + height + 1.5)
        self._write_words(photo, self.l_margin, self.epw)

    def _write_heading(self, photo: PhotoReport, left: float, width: float) -> None:
        self.paragraph(photo.heading, 11, bold=True, width=width, left=left)
        if photo.heading != photo.label:
            self.set_text_color(70)
            self.paragraph(photo.label, 8, width=width, left=left)
            self.set_text_color(0)
        self.ln(0.8)

    def _write_words(self, photo: PhotoReport, left: float, width: float) -> None:
        abnormal = photo.result is not None and photo.result.abnormal
        self.set_text_color(*((138, 28, 28) if abnormal else (0, 0, 0)))
        self.set_draw_color(*((138, 28, 28) if abnormal else (0, 0, 0)))
        self.set_x(left)
        self.font(11, bold=True)
        self.cell(self.get_string_width(photo.verdict) + 5, 6, photo.verdict, border=1, align="C")
        self.set_text_color(0)
        self.set_draw_color(0)
        self.ln(7.5)
        for sentence in photo.sentences:
            self.paragraph(sentence, width=width, left=left)
            self.ln(0.8)

    def _words_height(self, photo: PhotoReport | None, width: float) -> float:
        """About the height of a column without its pictures, mm."""
        if photo is None:
            return 0.0
        self.font(_BODY)
        lines = 0
        for text in photo.sentences:
            broken = self.multi_cell(width, 4, self.clean(text), dry_run=True, output=MethodReturnValue.LINES)
            assert isinstance(broken, list)
            lines += len(broken)
        return 4.3 * lines + 30

    def _place(self, picture: bytes, left: float, top: float, width: float) -> None:
        self.image(io.BytesIO(picture), left, top, width)

    def write_findings(self, photo: PhotoReport) -> None:
        """The table of findings, and details beside healthy patches."""
        if self.get_y() + 40 > self.page_break_trigger:
            self.add_page()
        self.ln(3)
        several = len(self.report.photos) > 1
        self.paragraph(f"Findings: {photo.heading}" if several else "Findings", 12, bold=True)
        self.line(self.l_margin, self.get_y() + 0.5, self.l_margin + self.epw, self.get_y() + 0.5)
        self.ln(1.8)
        rows = photo.finding_rows
        note = f" {FRAMES_NOTE}" if photo.photo and rows else ""
        self.paragraph(photo.findings_sentence + note)
        if rows:
            self.ln(1)
            self.font(8)
            with self.table(
                width=self.epw, col_widths=_WIDTHS, text_align="LEFT", line_height=3.9, padding=0.7,
                borders_layout="HORIZONTAL_LINES", headings_style=FontFace(emphasis="BOLD"),
            ) as table:  # fmt: skip
                for cells in (FINDING_HEADINGS, *rows):
                    table.row([self.clean(cell) for cell in cells])
        if any(detail.patches for detail in photo.details):
            for detail in photo.details:
                patches = [(patch.picture, patch.caption) for patch in detail.patches]
                self._write_details([(detail.picture, detail.caption), *patches])
        elif photo.details:
            self._write_details([(detail.picture, detail.caption) for detail in photo.details])

    def _write_details(self, pictures: Sequence[tuple[bytes, str]]) -> None:
        """Small pictures with their captions in a row."""
        if self.get_y() + _DETAIL + 9 > self.page_break_trigger:
            self.add_page()
        self.ln(2)
        top = bottom = self.get_y()
        for place, (picture, caption) in enumerate(pictures):
            left = self.l_margin + place * (_DETAIL + 5)
            self._place(picture, left, top, _DETAIL)
            self.set_xy(left, top + _DETAIL + 0.5)
            self.paragraph(caption, 7, width=_DETAIL + 4, left=left)
            bottom = max(bottom, self.get_y())
        self.set_xy(self.l_margin, bottom)

    def write_end(self) -> None:
        """The index, and what a report is not."""
        if self.get_y() + 25 > self.page_break_trigger:
            self.add_page()
        self.ln(4)
        self.set_text_color(60)
        for sentence in (*self.report.indexes, DISCLAIMER, self.report.made):
            self.paragraph(sentence, 8)
        self.set_text_color(0)


class _Letters:
    """The letters that can be written.  family: of the first font.  covered: None for Latin-1."""

    def __init__(self, family: str, covered: frozenset[int] | None) -> None:
        self.family = family
        self.covered = covered

    def __contains__(self, letter: str) -> bool:
        return ord(letter) < 256 if self.covered is None else ord(letter) in self.covered


def _add_fonts(document: FPDF, texts: Iterable[str]) -> _Letters:
    """Fonts for `texts`: one of every PDF reader where it has all letters, else fonts of this machine."""
    needed = {
        ord(letter) for text in texts for letter in unicodedata.normalize("NFC", text) if letter.isprintable()
    }
    if all(letter < 256 for letter in needed):
        return _Letters("Helvetica", None)
    covered: frozenset[int] = frozenset()
    families: list[str] = []
    for number, path in enumerate(_font_files()):
        letters = _letters_of(path)
        if not letters & (needed - covered):
            continue
        # By the file: fpdf2 keeps the first font of a name, even if its bold one is refused afterwards.
        family = f"font{number}"
        try:
            document.add_font(family, "", path)
            document.add_font(family, "B", _bold(path, letters & needed))
        except _FONT_FAULTS:
            continue
        families.append(family)
        covered |= letters
        if needed <= covered:
            break
    if not families or not covered.issuperset(range(32, 127)):
        return _Letters("Helvetica", None)
    document.set_fallback_fonts(families[1:], exact_match=False)
    return _Letters(families[0], covered)


def _font_files() -> Iterator[Path]:
    """Fonts of this machine, those with many letters first."""
    paths = [
        path
        for folder in _FOLDERS
        for path in sorted(Path(folder).expanduser().rglob("*.[to]t[fc]"))
        if path.suffix in (".ttf", ".otf", ".ttc")
    ]
    first = [path for name in _PREFERRED for path in paths if path.name.startswith(name)]
    yield from first
    yield from (path for path in paths if path not in first and "Regular" in path.name)


@cache
def _letters_of(path: Path) -> frozenset[int]:
    """The letters of a font, read once for all reports of a run; none of a font that is damaged."""
    try:
        # fontTools leaves a file open that is no font, if it opened it.
        with path.open("rb") as file, TTFont(file, lazy=True, fontNumber=0) as font:
            return frozenset(font.getBestCmap() or ())
    except _FONT_FAULTS:
        return frozenset()


def _bold(path: Path, needed: frozenset[int]) -> Path:
    """The bold font of the same family if it has the letters that are needed, or `path` itself."""
    for name in (path.stem + "-Bold", path.stem.replace("-Regular", "-Bold"), path.stem + "bd"):
        bold = path.with_name(name + path.suffix)
        if bold != path and _letters_of(bold) >= needed:
            return bold
    return path


def _texts(report: Report) -> Iterator[str]:
    yield report.title
    yield report.made
    yield from report.indexes
    yield from report.warnings
    for photo in report.photos:
        yield from (photo.label, photo.heading, photo.findings_sentence, *photo.sentences)
        yield from (cell for cells in photo.finding_rows for cell in cells)
