"""The figures of a sweep of learning rates: the metric over the rate, and the curves of every rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ablate.analysis.rates import LARGEST
from ablate.report import figure_parts
from ablate.report.figure_parts import Figure
from ablate.report.palette import FAINT, INK, NEUTRALS, fade
from ablate.text import counted, joined

if TYPE_CHECKING:
    from ablate.analysis.rates import RateSweep, RateTrial


def response(sweep: RateSweep, *, is_value: bool) -> Figure:
    """Draw what rates were judged by over the rate: a dot for each training, a line through the means; short ones grey, whole ones black.

    is_value: the study's metric; else what short trainings are ranked by. A cross at the edge: a training that diverged or failed.
    """
    rules = sweep.rules
    metric = rules.metric if is_value else rules.ranked_by
    is_higher_better = rules.is_higher_better if is_value else rules.is_rank_higher_better

    def shown(trial: RateTrial) -> float | None:
        return trial.value if is_value else trial.score

    ends = _limits(sweep, [(t.rate, [shown(t)]) for t in sweep.trials], is_higher_better=is_higher_better)
    edge = ends[0] if is_higher_better else ends[1]

    def clipped(value: float) -> float:
        return min(max(value, ends[0]), ends[1])

    traces: list[Any] = []
    for is_whole, colour in ((False, NEUTRALS[2]), (True, INK)):
        trials = [trial for trial in sweep.trials if trial.is_whole == is_whole]
        if not trials:
            continue
        by_rate: dict[float, list[float]] = {}
        for trial in sorted(trials, key=lambda trial: trial.rate):
            if (value := shown(trial)) is not None:
                by_rate.setdefault(trial.rate, []).append(value)
        means = {rate: sum(values) / len(values) for rate, values in by_rate.items()}
        points = [(t.rate, edge if (value := shown(t)) is None else clipped(value), t) for t in trials]
        traces.append(
            figure_parts.scatter(
                x=list(means),
                y=figure_parts.rounded(map(clipped, means.values())),
                mode="lines",
                line={"color": colour, "width": 2.2 if is_whole else 1.4},
                hoverinfo="skip",
                showlegend=False,
            )
        )
        traces.append(
            figure_parts.scatter(
                x=[rate for rate, _, _ in points],
                y=figure_parts.rounded(y for _, y, _ in points),
                mode="markers",
                marker={
                    "size": 9 if is_whole else 6,
                    "color": colour,
                    "symbol": ["x" if shown(trial) is None else "circle" for _, _, trial in points],
                },
                cliponaxis=False,
                name=counted(trials[0].epochs, "epoch") + (" (all)" if is_whole else ""),
                customdata=[
                    f"{trial.rate:g}: {trial.outcome if (value := shown(trial)) is None else f'{value:.4g}'}"
                    for trial in trials
                ],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    layout = figure_parts.layout(300)
    extent = [math.log10(rules.low) - 0.1, math.log10(rules.high) + 0.1]
    # Without `power` a narrow axis has `100n`, as of metres.
    ticks = {"exponentformat": "power"} | ({"dtick": 1} if extent[1] - extent[0] > 1.5 else {})
    figure_parts.axis(layout, "xaxis", "learning rate", type="log", range=extent, **ticks)
    figure_parts.axis(layout, "yaxis", figure_parts.short(metric), range=ends)
    if sweep.suggestion is not None:
        mark_ = {"x0": sweep.suggestion, "x1": sweep.suggestion, "y0": 0, "y1": 1, "yref": "paper"}
        line = {"color": fade(INK, 0.55), "width": 1.5, "dash": "dot"}
        layout["shapes"] = [{"type": "line", "line": line} | mark_]
    return figure_parts.figure(traces, layout)


def _limits(
    sweep: RateSweep, values: Iterable[tuple[float, Sequence[float | None]]], *, is_higher_better: bool
) -> list[float]:
    """Return the ends of an axis: from the best value to the worst, if that is no further off than twice the worst of the lowest rate.

    values: by rate. How far up the loss of a rate that ruins the network goes says nothing.
    """
    finite = [(rate, v) for rate, some in values for v in some if v is not None and abs(v) < LARGEST]
    lowest = [value for rate, value in finite if rate == sweep.rules.low] or [value for _, value in finite]
    worst, best = (min, max) if is_higher_better else (max, min)
    start, end = best((value for _, value in finite), default=1.0), worst(lowest, default=0.0)
    within = [value for _, value in finite if abs(value - start) <= 2 * abs(end - start)]
    low, high = sorted([start, worst([*within, end])])
    room = 0.12 * ((high - low) or abs(high) or 1.0)
    # In fewer digits than values are drawn with: what lies on an end must not be rounded to beyond it.
    return [float(f"{end:.4g}") for end in (low - room, high + room)]


def curves(sweep: RateSweep) -> list[tuple[str, Figure]]:
    """Return (rate, figure): its training curves, those of every other rate behind them; short trainings grey, whole ones black."""
    ends = _limits(
        sweep,
        [(t.rate, t.curve) for t in sweep.trials],
        is_higher_better=sweep.rules.is_rank_higher_better,
    )
    epochs = max((len(trial.curve) for trial in sweep.trials), default=1)

    def drawn(trial: RateTrial, colour: str, width: float, **more: Any) -> Any:
        return figure_parts.scatter(
            x=list(range(1, len(trial.curve) + 1)),
            # What leaves the figure goes along its edge.
            y=figure_parts.rounded(min(max(value, ends[0]), ends[1]) for value in trial.curve),
            mode="lines" if len(trial.curve) > 1 else "markers",
            line={"color": colour, "width": width},
            marker={"color": colour, "size": 3 * width},
            showlegend=False,
            **more,
        )

    behind = [drawn(trial, FAINT, 1.0, hoverinfo="skip") for trial in sweep.trials]
    result = []
    for rate in sweep.rates:
        own = [trial for trial in sweep.trials if trial.rate == rate]
        hover = {"hovertemplate": "epoch %{x}: %{y:.4~g}<extra></extra>"}
        front = [
            drawn(t, INK if t.is_whole else NEUTRALS[2], 2.2 if t.is_whole else 1.6, **hover) for t in own
        ]
        layout = figure_parts.layout(150)
        ticks: dict[str, Any] = {"dtick": 1} if epochs <= 8 else {"nticks": 4}
        figure_parts.axis(layout, "xaxis", "", range=[0.8, epochs + 0.2], tickformat="d", **ticks)
        figure_parts.axis(layout, "yaxis", "", range=ends, nticks=4)
        layout["margin"] = {"l": 36, "r": 12, "t": 8, "b": 24}
        ended = sorted({trial.outcome for trial in own} - {"finished"})
        name = f"{rate:g}{' (suggested)' if rate == sweep.suggestion else ''}{', ' + joined(ended) if ended else ''}"
        result.append((name, figure_parts.figure([*behind, *front], layout)))
    return result
