"""Reports: one HTML file that needs nothing else, no script, no request, in light and in dark.

page       the pages of an evaluation with and without a data set, and `render` for the templates of all pages
charts     ROC, precision and recall, region overlap, FROC, histograms, as SVG
pictures   photographs with outlines of lesions, and under their anomaly maps
templates  jinja2 templates: evaluation, unlabeled, audit
"""

from lab.report.page import report, unlabeled_report

__all__ = ["report", "unlabeled_report"]
