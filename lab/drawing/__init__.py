"""Drawn fundus photographs: for the tests, for a demonstration without patients, for the probe of an index.

    scene      where things are: field of view, optic disc, fovea, left or right
    retina     background, pigment, choroid, macula, optic disc and cup
    vessels    branching arteries and veins (they grow in vessel_tree)
    lesions    five kinds, each with its mask (their forms in lesion_shapes, drawn with spots)
    camera     light, haze, focus, field of view, sensor
    photo      all of them in this order, from one random generator
    dataset    folders of them in MVTec's layout

They look like photographs and are none: no figure measured on them says anything about patients.
"""

from lab.drawing.dataset import DrawnPhoto, draw_photo, write_dataset
from lab.drawing.lesions import LESION_KINDS, LesionKind, LesionMask
from lab.drawing.retina import Eye

__all__ = ["LESION_KINDS", "DrawnPhoto", "Eye", "LesionKind", "LesionMask", "draw_photo", "write_dataset"]
