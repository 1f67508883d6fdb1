"""The page at `/`: what this is, and where to go on."""

from html import escape
from string import Template
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from resad.result import INTENDED_USE
from service.routes import In

router: Final = APIRouter()
_PAGE: Final = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ReSAD</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em; }</style>
<h1>ReSAD</h1>
<p>Anomaly maps for fundus photographs, from healthy photographs alone.</p>
<p><strong>$notice</strong></p>
<p>Served here: $indexes.</p>
<pre>curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' $address/v1/score</pre>
<p><a href="docs">All calls</a> · <a href="v1/indexes">Indexes</a></p>
</html>
""")


@router.get("/", include_in_schema=False)
async def page(request: Request, house: In) -> HTMLResponse:
    """A plain page, without anything from elsewhere."""
    names = ", ".join(house.registry.served) or "no index yet"
    address = escape(str(request.base_url).rstrip("/"))
    return HTMLResponse(_PAGE.substitute(notice=escape(INTENDED_USE), indexes=escape(names), address=address))
