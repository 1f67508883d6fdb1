"""DICOM: photographs in, results out.  Needs the extra `dicom`; nothing here imports torch.

files: bytes -> data set, with bounded work; one frame of several as a file of its own.
header: what the header says of a photograph; which objects are no photograph of the eye.
pixels: a data set's pixels -> RGB.
annotation: text that is burned into the field of view.
results: a result as objects of the photograph's study.
"""

from typing import Final, Literal, get_args

ObjectKind = Literal["map", "findings", "report", "overlay"]
"""What an object shows; a photograph without findings has no object of them."""
OBJECT_KINDS: Final[tuple[ObjectKind, ...]] = get_args(ObjectKind)
