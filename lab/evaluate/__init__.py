"""An index against labeled photographs: measure once (`measuring`), then figures, curves and a report."""

from lab.evaluate.figures import Figures, figures, figures_json
from lab.evaluate.measuring import Measured, measure_dataset, measure_with

__all__ = ["Figures", "Measured", "figures", "figures_json", "measure_dataset", "measure_with"]
