"""What a study found, laid out: one offline page, and the same as Markdown, LaTeX, CSV and JSON.

`summarise` turns a study's material into a `Summary`, which is data; `html` and the functions of `export` lay it out.
"""

from ablate.report.contents import Summary, Tracking
from ablate.report.export import csv, json_text, latex, markdown, verdicts
from ablate.report.render import Entry, html, index_html
from ablate.report.summary import Material, summarise

__all__ = [
    "Entry",
    "Material",
    "Summary",
    "Tracking",
    "csv",
    "html",
    "index_html",
    "json_text",
    "latex",
    "markdown",
    "summarise",
    "verdicts",
]
