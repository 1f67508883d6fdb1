"""Reports: one HTML file that needs nothing else, no script, no request, in light and in dark.

page       the page of an evaluation, and `render` for the templates of all pages
charts     ROC, precision and recall, region overlap, histograms, as SVG
pictures   photographs with outlines of lesions, and under their anomaly maps
templates  jinja2 templates: evaluation, audit
"""

from lab.report.page import report

__all__ = ["report"]
