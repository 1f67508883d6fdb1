"""The page at `/`, its files under `/web/`: plain modules and styles, nothing inline or from elsewhere."""

import re
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

router: Final = APIRouter()
_FOLDER: Final = Path(__file__).with_name("web")

HEADERS: Final = {"Cache-Control": "no-cache"}
"""Asked for again each time, and answered with 304: a new version's modules never meet an old one's."""


class _Files(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


files: Final = _Files(directory=_FOLDER)
"""To be mounted at `/web`."""


_ABOUT_DOCS: Final = re.compile(r"\s*<(\w+)[^>]* data-docs>.*?</\1>", re.DOTALL)
"""An element that leads to /docs; nothing of the same kind lies within it."""


def page_text(*, docs: bool) -> str:
    """The page; without what leads to /docs where these are not served."""
    text = (_FOLDER / "index.html").read_text(encoding="utf-8")
    return text if docs else _ABOUT_DOCS.sub("", text)


@router.get("/", include_in_schema=False)
async def page(request: Request) -> HTMLResponse:
    """The page itself."""
    return HTMLResponse(request.app.state.page, headers=HEADERS)
