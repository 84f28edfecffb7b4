"""Verdicts in plain words: one sentence per arm, made from data alone.

Numbers are rounded as far as they can be without saying something else than the verdict: an interval above zero is
never shown as starting at zero.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ablate.analysis.power import MoreSeeds
from ablate.analysis.rules import AA_ARM, Rules
from ablate.analysis.verdict import Analysis, Comparison, Effect

MOST_DECIMALS = 12

_ABBREVIATIONS = {"lr": "learning rate"}


def label(arm: str, rules: Rules) -> str:
    """How an arm is called at the head of a sentence: `model.width=128` → "Width 128"; full minus one → "Without …".

    On a greedy path an arm is one change on top of others: "Width 128 on top of learning rate 0.1".
    """
    if arm == AA_ARM or arm not in {rule.name for rule in rules.arms}:
        return arm
    rule = rules.arm(arm)
    if rule.factor is None:
        return arm
    if rules.reference_of(rule) == "full":
        return f"Without {_name(rule.factor)}"
    said = _setting(rule.factor, rule.level)
    before = changes(rules.reference_of(rule), rules)
    below = f" on top of {_listed(before)}" if before else ""
    return said[:1].upper() + said[1:] + below


def changes(arm: str, rules: Rules) -> list[str]:
    """What a greedy path has changed where it comes to an arm, in the order of its steps; nothing elsewhere."""
    steps = []
    while rules.steps and arm != rules.reference:
        rule = rules.arm(arm)
        steps.append(_setting(str(rule.factor), rule.level))
        arm = rules.reference_of(rule)
    return steps[::-1]


def sentence(item: Comparison | Effect, rules: Rules) -> str:
    """The one-sentence reading of a verdict, with its effect, its interval and what it costs.

    "Width 128 helps: +1.8 points (1.1 to 2.5, 5 seeds), at 2.6× the compute; it over-fits from epoch 14."
    """
    comparison = item if isinstance(item, Comparison) else None
    subject = label(comparison.arm, rules) if comparison is not None else _terms(item)
    reference = comparison.reference if comparison is not None else rules.reference
    verdict = _verdict(item, subject, rules, reference)
    if item.verdict in {"not independent", "no override"}:
        return f"{verdict}."
    cost = "" if comparison is None else _cost(comparison)
    clauses = [verdict + cost, *_qualifications(item, rules)]
    if comparison is not None:
        clauses += _remarks(comparison)
    return "; ".join(clauses) + "."


def headline(analysis: Analysis) -> str:
    """What the study found, in one sentence."""
    rules = analysis.rules
    if analysis.error is not None:
        return f"No verdict: {analysis.error}."
    if rules.steps:
        return _path(analysis)
    items: tuple[Comparison | Effect, ...] = analysis.effects if rules.factorial else analysis.comparisons
    if not items:
        return "Nothing to compare: the study has no arms besides its baseline."
    kind = "effect" if rules.factorial else "arm"
    counts: Counter[str] = Counter(item.verdict for item in items)
    parts = [
        f"{counts[verdict]} {words[counts[verdict] != 1]}"
        for verdict, words in _COUNTED.items()
        if counts[verdict]
    ]
    best = max(
        (c for c in analysis.comparisons if c.verdict == "helps"), key=lambda c: c.effect or 0.0, default=None
    )
    top = ""
    if best is not None:
        gain = _number(best.effect or 0.0, *_rounding(best, rules), sign=True)
        top = f", the best being {_lowered(label(best.arm, rules))} with {gain}{_unit(best, rules)}{_way(rules)}"
    [(common, _)] = counts.most_common(1)
    if len(items) == 1:
        whole = f"The only {kind} {_COUNTED[common][0]}{top.replace(', the best being ', ': ')}"
    elif len(counts) == 1:
        whole = f"{'Both' if len(items) == 2 else f'All {len(items)}'} {kind}s {_COUNTED[common][1]}{top}"
    else:
        whole = f"Of {len(items)} {kind}s, {_listed(parts)}{top}"
    if rules.mixed:
        real = sum(e.verdict in {"helps", "hurts"} for e in analysis.effects)
        whole += f"; {real} of {len(analysis.effects)} factors {'interacts' if real == 1 else 'interact'} with the rest"
    return f"{whole}{' (provisional: the first look is not complete)' if analysis.provisional else ''}."


def _path(analysis: Analysis) -> str:
    """A greedy path in words: its steps in order, each with what it added on top of those before."""
    rules = analysis.rules
    said = []
    for step in map(analysis.comparison, rules.path):
        gain = (
            f", {_number(step.effect, *_rounding(step, rules), sign=True)}" if step.effect is not None else ""
        )
        setting = _setting(str(step.factor), step.level)
        said.append(f"{setting} ({step.verdict}{gain}{_unit(step, rules, named=False) if gain else ''})")
    if not said:
        return "The path has not left the baseline (provisional: its first step is not decided)."
    rest = " (provisional: it has not come to its end)" if rules.walking else ""
    return f"The greedy path from the {rules.reference}: {', then '.join(said)}{rest}."


_COUNTED: dict[str, tuple[str, str]] = {
    "helps": ("helps", "help"),
    "hurts": ("hurts", "hurt"),
    "no practical effect": ("makes no practical difference", "make no practical difference"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
    "unstable": ("is unstable", "are unstable"),
    "not independent": ("repeats itself under every seed", "repeat themselves under every seed"),
    "no override": ("changed nothing", "changed nothing"),
}


def _verdict(item: Comparison | Effect, subject: str, rules: Rules, reference: str) -> str:
    """The verdict, with effect and interval where there are any."""
    if item.verdict == "not independent":
        return (
            f"{subject} is no comparison: runs under different seeds are identical, "
            "so the seed does not reach the training"
        )
    if item.verdict == "no override":
        return f"{subject} is no comparison: the override changed nothing, every run is the {reference}'s"
    clearly = "clearly " if item.clearly else ""
    says = {
        "helps": f"{clearly}helps",
        "hurts": f"{clearly}hurts",
        "no practical effect": "makes no practical difference",
        "inconclusive": "is inconclusive",
        "unstable": "is unstable",
    }[item.verdict]
    effect = _effect(item)
    if item.withheld == "reference diverged":
        return f"{subject} cannot be judged: the {reference} diverged"
    if effect is None:
        none = "no run has finished together with its counterpart"
        return f"{subject} {says}: {_diverged(item) or none}"
    figure = _figure(item, rules)
    if item.withheld == "too few pairs":
        figure = f"{figure} in {_count(item.n, 'seed')}, too few for an interval"
    elif item.withheld == "no noise":
        figure = f"{figure} under each of {_count(item.n, 'seed')}, which leaves no noise to judge by"
    if item.verdict == "unstable":
        diverged = _diverged(item)
        return f"{subject} {says}: {f'{diverged}, ' if diverged else ''}{figure} among those that finished"
    return f"{subject} {says}: {figure}"


def _figure(item: Comparison | Effect, rules: Rules) -> str:
    """+1.8 points (1.1 to 2.5, 5 seeds)."""
    decimals, factor = _rounding(item, rules)
    said = _number(_effect(item) or 0.0, decimals, factor, sign=True) + _unit(item, rules)
    if item.lo is None or item.hi is None:
        return said + _way(rules)
    lo, hi = _number(item.lo, decimals, factor), _number(item.hi, decimals, factor)
    notes = [_count(item.n, "seed")]
    looks = rules.schedule()
    # A confirmation has a look of its own, which is none of the schedule's.
    if (
        0 < item.look <= len(looks)
        and looks[item.look - 1].alpha == item.alpha
        and not looks[item.look - 1].declared
    ):
        notes.append("an undeclared look")
    positive = "; positive is better" if rules.direction == "minimize" else ""
    return f"{said} ({lo} to {hi}, {', '.join(notes)}{positive})"


def _qualifications(item: Comparison | Effect, rules: Rules) -> list[str]:
    """What limits or extends the verdict: what is real, what is ruled out, what certainty would cost."""
    said = []
    factor = _rounding(item, rules)[1]
    margin = _number(rules.margin, _decimals(rules.margin * factor), factor) + _unit(item, rules, named=False)
    if item.real:
        said.append(f"the effect is real, but below the margin of {margin}")
    if item.ruled_out is not None:
        said.append(f"a {item.ruled_out} of {margin} or more is ruled out")
    if item.more_seeds is not None:
        said.append(_price(item.more_seeds))
    if isinstance(item, Effect) and item.apart is not None:
        alone, given = (_number(v, *_rounding(item, rules), sign=True) for v in item.apart)
        said.append(f"alone it is worth {alone}, given the rest {given}{_unit(item, rules, named=False)}")
    if isinstance(item, Effect) and item.aliases:
        others = [" × ".join(_term(term) for term in alias) for alias in item.aliases]
        said.append(f"this fraction cannot tell it from {_listed(others, 'or')}")
    if item.provisional:
        said.append("provisional, because the first look is not complete")
    if 0 < rules.retunes < 3 and item.lo is not None:
        said.append(f"at the values found, tuning was run {'once' if rules.retunes == 1 else 'twice'}")
    return said


def _price(price: MoreSeeds) -> str:
    if price.n50 is None:
        return "no number of seeds up to 999 gives it an even chance of a verdict"
    said = f"even chance of a verdict by {price.n50} seeds"
    said += f", 80 % by {price.n80}" if price.n80 is not None else ""
    dearest = price.seconds50 if price.n80 is None else price.seconds80
    said += f" ({duration(dearest)} of device time)" if dearest is not None else ""
    # N_any takes the noise as it was seen, the chances do not: it may come out first, and then says nothing more.
    if price.n_any is not None and price.n_any > (price.n80 or price.n50):
        said += f", by about {price.n_any} whatever the effect"
    return said


_SAID = {
    "unstable": "diverged",
    "hurts": "too-slow-for-its-gain",
    "no practical effect": "too-slow-for-its-gain",
}
"""Diagnoses that a verdict and its cost say already."""


def _remarks(comparison: Comparison) -> list[str]:
    """What else happened: diagnoses, and runs that are not there."""
    diagnoses = [d.words for d in comparison.fit if d.code != _SAID.get(comparison.verdict)]
    said = [f"it {_listed(diagnoses)}"] if diagnoses else []
    if comparison.failed:
        said.append(f"{_count(comparison.failed, 'run')} failed")
    if comparison.missing and not comparison.provisional:
        said.append(f"{_count(comparison.missing, 'run')} missing")
    return said


def _cost(comparison: Comparison) -> str:
    """Said where it differs by a tenth: a reader who is told nothing may assume the same."""
    ratio = comparison.cost_ratio
    if ratio is None or comparison.effect is None or 0.9 <= ratio <= 1.1:
        return ""
    return f", at {_times(ratio)}× the {'time' if comparison.cost_is_time else 'compute'}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _rounding(item: Comparison | Effect, rules: Rules) -> tuple[int, float]:
    """Decimals and factor: the fewest that keep every order of interval, zero and margin as it is."""
    to = rules.scale(item.summary.mean if isinstance(item, Comparison) else None)
    known = [v * to.factor for v in (item.lo, item.hi) if v is not None]
    margin = rules.margin * to.factor
    if to.unit:
        first = 1
    else:
        size = (known[1] - known[0]) / 2.0 if len(known) == 2 else margin
        first = max(0, 1 - math.floor(math.log10(size))) if size > 0 else 3
    first = max(first, _decimals(margin))
    for decimals in range(first, first + MOST_DECIMALS):
        kept = all(
            _order(round(v, decimals), round(mark, decimals)) == _order(v, mark)
            for v in known
            for mark in (0.0, margin, -margin)
        )
        if kept:
            return decimals, to.factor
    return first + MOST_DECIMALS, to.factor


def _decimals(value: float) -> int:
    """Decimals that a declared number is written with."""
    return next(
        (d for d in range(MOST_DECIMALS) if math.isclose(round(value, d), value, rel_tol=1e-9)), MOST_DECIMALS
    )


def _order(one: float, other: float) -> int:
    return (one > other) - (one < other)


def _number(value: float, decimals: int, factor: float, *, sign: bool = False) -> str:
    shown = f"{abs(value * factor):.{decimals}f}"
    zero = float(shown) == 0.0
    if value < 0 and not zero:
        return f"−{shown}"
    return f"+{shown}" if sign and not zero else shown


def _unit(item: Comparison | Effect, rules: Rules, *, named: bool = True) -> str:
    to = rules.scale(item.summary.mean if isinstance(item, Comparison) else None)
    if to.unit:
        return f" {to.unit}"
    return f" in {rules.metric}" if named else ""


def _way(rules: Rules) -> str:
    """Effects are oriented, which has to be said where less of the metric is better."""
    return " (positive is better)" if rules.direction == "minimize" else ""


def _effect(item: Comparison | Effect) -> float | None:
    return item.effect if isinstance(item, Comparison) else item.estimate


def _diverged(item: Comparison | Effect) -> str:
    if not isinstance(item, Comparison):
        return "runs of its cells diverged" if item.verdict == "unstable" else ""
    runs = item.summary.n + item.failed + item.diverged
    return f"{item.diverged} of {_count(runs, 'run')} diverged" if item.diverged else ""


def _terms(item: Comparison | Effect) -> str:
    assert isinstance(item, Effect)
    said = [_term(term) for term in item.terms]
    if len(said) == 1:
        return said[0][:1].upper() + said[0][1:]
    return f"The interaction of {_listed(said)}"


def _term(term: str) -> str:
    """A term of an effect: `path=level`, a block as JSON; or a name in plain words."""
    factor, equals, level = term.partition("=")
    if not equals:
        return term
    return _setting(factor, json.loads(level) if level.startswith("{") else level)


def _setting(factor: str, level: Any) -> str:
    """A factor at a level, in lower case: "width 128", "flip off", "no crop", "model cnn (depth 2, width 8)"."""
    if isinstance(level, Mapping):
        if "name" in level:
            fields = ", ".join(_setting(field, value) for field, value in level.items() if field != "name")
            return f"{_name(factor)} {level['name']}" + (f" ({fields})" if fields else "")
        return _listed([_setting(path, value) for path, value in level.items()])
    if level is None or level == "null":
        return f"no {_name(factor)}"
    if isinstance(level, bool) or (isinstance(level, str) and level in {"true", "false"}):
        return f"{_name(factor)} {'on' if level in {True, 'true'} else 'off'}"
    return f"{_name(factor)} {level:g}" if isinstance(level, float) else f"{_name(factor)} {level}"


def _name(factor: str) -> str:
    """What a dotted path is called: its last part, or the one before where that is `name`."""
    parts = factor.split(".")
    last = parts[-2] if parts[-1] == "name" and len(parts) > 1 else parts[-1]
    return _ABBREVIATIONS.get(last, last.replace("_", " "))


def _lowered(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2g}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _listed(parts: list[str], word: str = "and") -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}"
