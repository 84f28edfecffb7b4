"""The page of a sweep of learning rates: the curve over rates, the curves of every rate, and the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablate.report import rate_figures
from ablate.report.render import FigureGroup, figures_html

if TYPE_CHECKING:
    from ablate.analysis.rates import RateSweep, RateTrial


def page(sweep: RateSweep, study: str) -> str:
    """Return the page of a sweep as one HTML file that needs no network."""
    rules = sweep.rules
    if sweep.suggestion is None:
        answer, more = "No suggestion:", f"{sweep.reason}."
    else:
        answer = f"Suggested baseline: {sweep.suggestion:g}."
        sentences = [f"{limit[0].upper()}{limit[1:]}." for limit in sweep.limits]
        if sweep.levels:
            sentences.append(f"As levels: {', '.join(f'{rate:g}' for rate in sweep.levels)}.")
        more = " ".join(sentences)
    responses = [(rules.metric, rate_figures.response(sweep, is_value=True))]
    if rules.ranked_by != rules.metric:
        responses.insert(0, (rules.ranked_by, rate_figures.response(sweep, is_value=False)))
    return figures_html(
        "Learning rate",
        study,
        answer,
        more,
        [
            FigureGroup(
                "Over the rate",
                f"A dot for each training. Short ones are ranked by {rules.ranked_by}; {rules.metric} decides among whole ones, as far as "
                "it tells them apart. At the edge, a dot lies beyond it, and a cross diverged or failed. Dotted: the suggestion.",
                responses,
                "Learning rates",
                small=len(responses) > 1,
            ),
            FigureGroup(
                f"{rules.ranked_by} by epoch",
                "Grey: the short training of a rate; in full contrast: the whole one; behind them all others.",
                rate_figures.curves(sweep),
                f"{rules.ranked_by} by epoch at a learning rate of",
                small=True,
            ),
        ],
        [
            ("rate", "epochs", "seed", rules.ranked_by, rules.metric, "outcome"),
            *(_row(trial) for trial in sorted(sweep.trials, key=lambda t: (t.rate, t.epochs, t.seed))),
        ],
    )


def _row(trial: RateTrial) -> tuple[str, ...]:
    numbers = ("" if value is None else f"{value:.4f}" for value in (trial.score, trial.value))
    return f"{trial.rate:g}", f"{trial.epochs}", f"{trial.seed}", *numbers, trial.reason or trial.outcome
