"""Printable reports: photographs of one patient, side by side, with maps, findings, evidence and what they mean.

grouping   which photographs belong on one report: patient, eye and visit, from the CSV or the names
wording    verdict, p-value, quality and index in sentences
contents   everything that a report shows, as records and as one HTML file
pictures   the photograph, its findings in detail, and healthy patches, as JPEG
document   a report as PDF
"""
