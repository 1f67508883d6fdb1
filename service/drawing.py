"""A scored photograph -> its map as a file, or a picture of it, drawn on the pool."""

from dataclasses import dataclass

from resad.config import PhotoLimits
from resad.loaded_index import LoadedIndex
from resad.rendering import Layout, PictureKind
from service.account import PhotoAccount
from service.maps import MapType, encoded_map, encoded_overlay
from service.scorer import Scored
from service.steps import Steps


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws on the pool.  max_overlay_side: longest side of an overlay, px, whatever is asked."""

    steps: Steps
    limits: PhotoLimits
    max_overlay_side: int

    async def map(
        self, kind: MapType, scored: Scored, loaded: LoadedIndex, size: int | None, own: PhotoAccount
    ) -> bytes:
        """The map in the photo's frame, its longer side at most `size` px."""
        frame, manifest = scored.photo.frame, loaded.manifest
        return await self.steps.pooled(
            "render", lambda: encoded_map(kind, scored.detection, frame, manifest, size), own
        )

    async def overlay(
        self,
        data: bytes,
        scored: Scored,
        loaded: LoadedIndex,
        own: PhotoAccount,
        *,
        size: int | None,
        layout: Layout,
        kind: PictureKind,
    ) -> bytes:
        """The photo, whose file `data` is, with its map, findings and color bar."""
        detection, frame, result, manifest = scored.detection, scored.photo.frame, scored.result, loaded.manifest
        longest = min(size or self.max_overlay_side, self.max_overlay_side)

        def drawn() -> bytes:
            return encoded_overlay(
                data,
                self.limits,
                detection,
                frame,
                result,
                manifest,
                longest,
                layout=layout,
                kind=kind,
            )

        return await self.steps.pooled("render", drawn, own)
