"""Arteries and veins: four pairs of trunks leave the optic disc, branch, taper and spare the fovea."""

import numpy as np
from PIL import Image, ImageDraw

from lab.drawing.scene import Scene
from lab.drawing.texture import Texture, fineness
from lab.drawing.vessel_tree import Bounds, Point, grow_tree


def draw_vessels(rng: np.random.Generator, scene: Scene, reflectance: Texture) -> None:
    """Darken `reflectance`, float32 (3, H, W), along veins and arteries (in place)."""
    center = (
        (scene.field_cx - scene.disc_cx) * scene.temporal / scene.unit,
        (scene.field_cy - scene.disc_cy) / scene.unit,
    )
    reach = 1.05 * scene.field_radius / scene.unit
    bounds = Bounds(scene.dip, rng.uniform(0.17, 0.24), center, reach)
    heights = (rng.uniform(0.68, 0.92), rng.uniform(0.68, 0.92))
    strength = rng.uniform(0.75, 1.1)
    veins, arteries = rng.spawn(2)
    for tree, width, loss, reflex in (
        (arteries, rng.uniform(0.022, 0.028), (0.07, 0.36, 0.4), (0.1, 0.26, 0.24)),
        (veins, rng.uniform(0.032, 0.039), (0.17, 0.5, 0.5), (0.04, 0.06, 0.05)),
    ):
        branches = grow_tree(tree, bounds, width, heights)
        body, core = _paint(scene, branches, 1.0), _paint(scene, branches, 0.62)
        light = _paint(scene, [branch for branch in branches if branch[0].width > 0.35 * width], 0.24)
        density = (body + core) * np.float32(0.5 * strength)
        for channel in range(3):
            reflectance[channel] *= np.float32(1) - np.float32(loss[channel]) * density
            reflectance[channel] *= np.float32(1) + np.float32(reflex[channel]) * light


def _paint(scene: Scene, branches: list[list[Point]], share: float) -> Texture:
    """Coverage 0 to 1, float32 (H, W), of the middle `share` of every vessel's width; thin vessels are fainter."""
    fine = fineness(scene.height)
    canvas = Image.new("L", (scene.width * fine, scene.height * fine))
    draw = ImageDraw.Draw(canvas)
    for branch in branches:
        row = np.array([(point.u, point.v, point.heading, point.width) for point in branch])
        side = np.stack([-np.sin(row[:, 2]), np.cos(row[:, 2])], axis=1) * (0.5 * share * row[:, 3:])
        edges = np.stack([row[:, :2] + side, row[:, :2] - side], axis=1) * (scene.unit * fine)
        edges[..., 0] = edges[..., 0] * scene.temporal + scene.disc_cx * fine
        edges[..., 1] += scene.disc_cy * fine
        shades = (255 * np.clip(0.3 + 0.7 * np.sqrt(row[:, 3] / 0.026), 0, 1)).astype(int).tolist()
        corners = np.concatenate([edges[:-1], edges[1:, ::-1]], axis=1).reshape(-1, 8).tolist()
        for corner, shade in zip(corners, shades[1:], strict=True):
            draw.polygon(corner, fill=shade)
    return np.asarray(canvas.reduce(fine), dtype=np.float32) / np.float32(255)
