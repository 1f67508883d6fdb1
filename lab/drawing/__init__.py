"""Drawn fundus photographs, for tests and for demonstrations without patients, and paint for real ones.

    texture    random textures and soft edges
    retina     where disc, fovea and field of view lie; background, pigment, choroid, macula, disc and cup
    vessels    branching arteries and veins
    lesions    five kinds of lesion, each with its mask
    camera     light, haze, focus, field of view, sensor
    dataset    a photograph from one random generator, and folders of them in MVTec AD's layout
    painter    lesions painted into real healthy photographs, with exact masks
    variants   normal variants painted into them: winding and choroidal vessels, reflexes

Drawn photographs look like real ones and show nobody: no figure measured on them says anything about patients.
"""

from lab.drawing.dataset import DrawnPhoto, draw_photo, write_dataset
from lab.drawing.lesions import LESION_KINDS, LesionKind, LesionMask
from lab.drawing.retina import Eye

__all__ = ["LESION_KINDS", "DrawnPhoto", "Eye", "LesionKind", "LesionMask", "draw_photo", "write_dataset"]
