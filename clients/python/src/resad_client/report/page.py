"""A report as one HTML file that needs no other: it can be mailed, kept and printed."""

import base64
from typing import Final

from resad_client.records import INTENDED_USE
from resad_client.report.contents import DISCLAIMER, FINDING_HEADINGS, FRAMES_NOTE, Report

_TEMPLATE: Final = "page.html.jinja"


def report_page(report: Report) -> str:
    """The HTML of a report; every text is escaped, every picture is inside."""
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
