"""Labeled photographs.

dataset     records (`Dataset`, `LabeledPhoto`), and masks of lesions read as arrays
published   IDRiD and ADAM as they are downloaded
layouts     data sets of one's own: MVTec AD's layout, a folder per disease, a CSV
catalog     the data sets by name
"""

from indexer.photos.listing import LesionMask, Marked
from lab.datasets.dataset import Dataset, LabeledPhoto
from resad.config import Eye

__all__ = ["Dataset", "Eye", "LabeledPhoto", "LesionMask", "Marked"]
