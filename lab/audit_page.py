"""An audit as one HTML page that needs nothing beside it."""

from collections.abc import Mapping
from html import escape
from typing import Final

from lab.audit import Audit, AuditedPhoto

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } .use { border-left: 4px solid #b34700; padding-left: .8rem; }
figure { margin: 2rem 0; } figure img { width: 100%; background: #000; }
figcaption b { font-size: 1.1rem; margin-right: .8rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr { border-bottom: 1px solid #ddd; }
code { overflow-wrap: anywhere; }
"""
_HEADINGS: Final = ("rank", "photograph", "score", "p", "spreads", "quality", "patient", "camera", "file")
_NUMBERS: Final = ("rank", "score", "p", "spreads")


def audit_page(found: Audit, pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        pictures: data URLs by the photographs' ids; those with one are shown first, in the order of their ranks.
    """
    title = f"Audit of {found.name} {found.version}"
    shown = "".join(_figure(one, pictures[one.id]) for one in found.photos if one.id in pictures)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>
<style>{_STYLE}</style></head>
<body>
<h1>{escape(title)}</h1>
<p class="use"><strong>{escape(found.intended_use)}</strong></p>
<p>{len(found.photos)} reference photographs, each scored against the memories of the others; the highest first.
{_matched(found)} <b>p</b> is the rank among the others: of healthy photographs, too, one is the highest.
<b>Spreads</b> tell more: the distance from the median score, in robust standard deviations. Two photographs with
the same rare signs vouch for each other and rank lower: look beyond the first, and audit again after removing
some.</p>
{shown}
<h2>All photographs</h2>
{_table(found)}
</body>
</html>
"""


def _matched(found: Audit) -> str:
    if found.matched is None:
        return "The photographs were not given, so that none is shown."
    return f"{found.matched} of them were found among the given photographs."


def _figure(one: AuditedPhoto, url: str) -> str:
    words = f"score {one.score:#.4g}, {one.spreads:+.1f} spreads, p {one.p:.4f}"
    named = escape(one.place or one.id)
    return (
        f'<figure id="{escape(one.id)}"><figcaption><b>{one.rank}. {escape(one.id)}</b>{words}'
        f"{''.join(f', {escape(reason)}' for reason in one.reasons)}<br><code>{named}</code></figcaption>"
        f'<img src="{url}" alt="{named} and its anomaly map"></figure>\n'
    )


def _table(found: Audit) -> str:
    head = "".join(f"<th{_class(name)}>{name}</th>" for name in _HEADINGS)
    rows = "\n".join(_row(one) for one in found.photos)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"


def _row(one: AuditedPhoto) -> str:
    cells = (
        str(one.rank), one.id, f"{one.score:#.4g}", f"{one.p:.4f}", f"{one.spreads:+.1f}", ", ".join(one.reasons),
        one.patient or "", one.camera or "", one.place or "",
    )  # fmt: skip
    filled = zip(_HEADINGS, cells, strict=True)
    return "<tr>" + "".join(f"<td{_class(name)}>{escape(cell)}</td>" for name, cell in filled) + "</tr>"


def _class(name: str) -> str:
    return ' class="number"' if name in _NUMBERS else ""
