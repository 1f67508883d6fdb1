"""An index measured on labeled photographs.

measuring  score every test photograph, count its pixels against its masks
figures    the figures of an evaluation, each with an interval
metrics    AUROC, average precision, AUPRO ...: of image scores, and of pixels
froc       lesions touched against false regions per healthy photograph
painted    painted lesions found, by kind, size and contrast
agreement  readers who marked the same photographs, with each other and with the index
bootstrap  percentile bootstrap over photographs
tables     CSV per photograph, tables of the command line
paper      the paper's figures
"""

from lab.evaluate.figures import Figures, figures, figures_json
from lab.evaluate.measuring import Measurement, measure_dataset, measure_with

__all__ = ["Figures", "Measurement", "figures", "figures_json", "measure_dataset", "measure_with"]
