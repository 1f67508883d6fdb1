"""Reports: one HTML file that needs nothing else, no script, no request, in light and in dark.

page       the pages of an evaluation and of painted lesions, and `render` for the templates of all pages
charts     ROC, precision and recall, region overlap, FROC, histograms, as SVG
pictures   photographs with outlines of lesions, and under their anomaly maps
templates  jinja2 templates: evaluation, painted, audit
"""

from lab.report.page import painted_report, report

__all__ = ["painted_report", "report"]
