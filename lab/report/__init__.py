"""An evaluation as one HTML file that needs nothing else: no scripts, no requests, in light and in dark."""

from lab.report.page import report

__all__ = ["report"]
