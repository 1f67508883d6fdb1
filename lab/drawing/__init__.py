"""Drawn fundus photographs: for tests, and for demonstrations without patients.

    texture    random textures and soft edges
    retina     where disc, fovea and field of view lie; background, pigment, choroid, macula, disc and cup
    vessels    branching arteries and veins
    lesions    five kinds of lesion, each with its mask
    camera     light, haze, focus, field of view, sensor
    dataset    a photograph from one random generator, and folders of them in MVTec AD's layout

They look like photographs and show nobody: no figure measured on them says anything about patients.
"""

from lab.drawing.dataset import DrawnPhoto, draw_photo, write_dataset
from lab.drawing.lesions import LESION_KINDS, LesionKind, LesionMask
from lab.drawing.retina import Eye

__all__ = ["LESION_KINDS", "DrawnPhoto", "Eye", "LesionKind", "LesionMask", "draw_photo", "write_dataset"]
