"""An index against labeled photographs: measure once (`measuring`), then figures, curves and a report."""

from indexer.evaluate.figures import Figures, figures, figures_json
from indexer.evaluate.measured import Measured
from indexer.evaluate.measuring import measure_dataset, measure_with

__all__ = ["Figures", "Measured", "figures", "figures_json", "measure_dataset", "measure_with"]
