"""The picture of a learning-rate range test, as one offline page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablate.report import figures
from ablate.report.render import figure_html

if TYPE_CHECKING:
    from ablate.analysis.rates import RangeTest


def page(test: RangeTest, study: str) -> str:
    """Return the figure with its answer, as one HTML file that needs no network."""
    if test.suggestion is None:
        answer, rest = "Inconclusive:", f"{test.reason}."
    else:
        answer = f"Suggested baseline: {test.suggestion:g}."
        rest = f"As levels: {', '.join(f'{rate:g}' for rate in test.levels)}."
    return figure_html(
        "Learning-rate range test",
        study,
        answer,
        rest,
        figures.range_test(test),
        label="Loss against learning rate",
        caption="The training images once through, or as often as asked, while the rate rises step by step: a thin line for each seed. Dotted: the levels.",
    )
