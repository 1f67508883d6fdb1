"""Pictures of evidence: what a reference photo shows around the patch that a finding was compared with."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Response

from resad.evidence_crops import Pixels, crop_around, jpeg, keeps_crops, read_square
from resad.loaded_index import LoadedIndex
from service import problems
from service.house import House
from service.problems import NO_EVIDENCE, Refusal, documented
from service.routes import In
from service.security import REFUSED, needs

router: Final = APIRouter()
_JPEG: Final = "image/jpeg"
_PICTURE: Final[dict[str, Any]] = {_JPEG: {"schema": {"type": "string", "format": "binary"}}}
_PRIVATE: Final = {"Cache-Control": "private, no-store"}
"""Pictures of patients do not belong into any cache."""


@router.get(
    "/v1/indexes/{name}/evidence/{photo}/{y}/{x}",
    summary="What a healthy patch looks like",
    response_class=Response,
    dependencies=[Depends(needs("evidence"))],
    responses={
        200: {"description": "The surroundings of the cell, which is framed.", "content": _PICTURE},
        **documented(
            (*REFUSED, problems.UNKNOWN_INDEX, NO_EVIDENCE, problems.INVALID_REQUEST, problems.NOT_READY)
        ),
    },
)
async def evidence(
    house: In,
    name: Annotated[str, Path(description="As in `GET /v1/indexes`.")],
    photo: Annotated[str, Path(max_length=64, description="`photo` of an item of `evidence`.")],
    y: Annotated[int, Path(ge=0, le=9999, description="Its `y`.")],
    x: Annotated[int, Path(ge=0, le=9999, description="Its `x`.")],
    version: Annotated[
        str | None,
        Query(max_length=64, description="`index.version` of the result: 404 where another one answers by now."),
    ] = None,
) -> Response:
    """A JPEG, where the index was built with `--keep-crops`.

    An id means another photograph in another version: name the version that the result states.  The picture is
    as the reference photo is: where the item is `mirrored`, turn it left to right beside the finding.
    """
    async with house.shelf.lent(house.registry.answering(name)) as loaded:
        square = await asyncio.to_thread(_square, house, loaded, photo, version)
        grid = loaded.manifest.counts.grid
    if y >= grid[0] or x >= grid[1]:
        raise Refusal(NO_EVIDENCE, f"cell {y}, {x}: the patch grid has {grid[0]} x {grid[1]} cells")
    return Response(jpeg(crop_around(square, (y, x), grid)), headers=_PRIVATE, media_type=_JPEG)


def _square(house: House, loaded: LoadedIndex, photo: str, version: str | None) -> Pixels:
    manifest = loaded.manifest
    if version is not None and version != manifest.version:
        raise Refusal(NO_EVIDENCE, f"{manifest.name} answers with another version by now")
    if not keeps_crops(manifest):
        raise Refusal(NO_EVIDENCE, NO_EVIDENCE.example)
    # Only an id that the index has ever becomes part of a path.
    if all(record.id != photo for record in loaded.photos):
        raise Refusal(NO_EVIDENCE, f"{manifest.name} has no such reference photo")
    square = read_square(house.settings.root / manifest.name / manifest.version, manifest, photo)
    if square is None:
        raise Refusal(NO_EVIDENCE, f"{manifest.name} keeps no picture of this reference photo")
    return square
