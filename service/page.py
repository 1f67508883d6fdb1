"""The page at `/`, its files under `/web/`: plain modules and styles, nothing inline or from elsewhere."""

from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import FileResponse, Response
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


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page itself."""
    return FileResponse(_FOLDER / "index.html", headers=HEADERS)
