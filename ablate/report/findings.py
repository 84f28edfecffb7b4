"""The top of a report, its verdicts in words, and the table of arms."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from ablate.analysis import pairing, words
from ablate.analysis.blocks import ENOUGH_BLOCKS
from ablate.analysis.compare import TUNE
from ablate.analysis.contents import ArmSummary, Comparison, Effect
from ablate.analysis.intervals import ENOUGH_PAIRS
from ablate.report import palette, scales, wording
from ablate.report.contents import (
    GROUPS,
    INTERACTIONS,
    Axis,
    Cost,
    Crossing,
    Finding,
    FindingGroup,
    Interactions,
    Interval,
    Kind,
    Notice,
    Row,
)
from ablate.report.reading import Reading, trouble
from ablate.study.record import PlanRecord
from ablate.text import counted, joined, measured


def answer(reading: Reading) -> tuple[str, str]:
    """Return the finding, and how settled it is; of a factorial design with its best combination."""
    first, second = _answer(reading)
    return first, f"{second} {best_cell(reading)}".strip()


def _answer(reading: Reading) -> tuple[str, str]:
    analysis = reading.analysis
    if reading.rules.design == "search":
        candidates = [tuned.candidates for tuned in reading.record.tuned.values()]
        if not candidates:
            return "The search is not over yet.", "Its trials so far are below."
        means = [c.mean for c in candidates[0] if c.mean is not None]
        if not means:
            return "The search found nothing: none of its trials finished and could be re-evaluated.", ""
        best = wording.plain(reading.shown(means[0]), reading.digits)
        over = (
            f"The search found {counted(len(candidates[0]), 'candidate')}; the first came to {reading.rules.metric} "
            f"{f'{best} {reading.value_unit}'.strip()} on fresh seeds."
        )
        return over, "A candidate has no verdict: it was chosen because it scored best."
    first = words.headline(analysis)
    if analysis.error:
        return first, "No arm is judged until that is fixed."
    items = reading.items
    unit = reading.rules.unit
    void = [item for item in items if item.verdict in {"not independent", "no override"}]
    open_items = [item for item in items if item.verdict == "inconclusive"]
    noun = "effect" if reading.rules.factorial else "arm"
    if analysis.provisional:
        runs = analysis.runs
        return first, (
            f"This is provisional: {runs.finished + runs.diverged} of {counted(runs.planned, 'run')} are in, "
            f"and verdicts fall at {counted(analysis.next_look.pairs, unit)}."
        )
    if not open_items:
        if len(void) == len(items):
            return first, "Nothing was compared, so there is no verdict."
        every = f"Every {noun} is" if len(items) > 1 else f"The {noun} is"
        every = f"Every other {noun} is" if void else every
        most = " at most" if unit != "block" else ""
        return first, f"{every} settled, with {counted(max(item.n for item in items), unit)} each{most}."
    prices = [item.more_seeds for item in open_items if item.more_seeds]
    n80 = sorted(price.n80 for price in prices if price.n80)
    open_count = f"{counted(len(open_items), noun)} {wording.verb(len(open_items), 'is', 'are')} still open"
    if not any(item.more_seeds for item in open_items):
        if any(item.n >= ENOUGH_PAIRS for item in open_items):  # no noise to judge by: a notice says so
            return (
                first,
                f"{open_count}, without an interval to settle {wording.verb(len(open_items), 'it', 'them')} by.",
            )
        enough = ENOUGH_BLOCKS if unit == "block" else ENOUGH_PAIRS
        return (
            first,
            f"{open_count}: with fewer than {enough} {unit}s there is no interval, and so no verdict.",
        )
    if (beyond := words.beyond(analysis, reading.record.study)) is not None:
        return first, f"{open_count}. {beyond}"
    limit = reading.rules.most
    if len(n80) < len(prices) or n80[-1] > limit:
        chances = [price.chance or 0.0 for price in prices]
        least, most = words.percent(min(chances)), words.percent(max(chances))
        likely = f"{least} %" if least == most else f"{least} to {most} %"
        return (
            first,
            f"{open_count}; a verdict by the most of {counted(limit, unit)} has a probability of {likely}.",
        )
    number = str(n80[0]) if n80[0] == n80[-1] else f"{n80[0]} to {n80[-1]}"
    reach = f"{number} {unit}s{' of each' if unit == 'run' else ''}"
    which = "" if len(n80) == len(open_items) else f" ({len(n80)} of them)"
    return (
        first,
        f"{open_count}: to settle {wording.verb(len(open_items), 'it', 'them')}{which} with a probability of 80 % takes {reach} in all.",
    )


def best_cell(reading: Reading) -> str:
    """Return the best combination of a factorial design as a sentence; empty where there are none, or runs are due."""
    analysis = reading.analysis
    cells = [s for s in (analysis.baseline, *analysis.cells) if s.mean is not None]
    if not reading.rules.factorial or len(cells) < 2 or analysis.provisional:
        return ""
    best = max(cells, key=lambda s: reading.rules.sign * (s.mean or 0.0))
    mean = (
        f"{wording.plain(reading.shown_value(best.mean), reading.value_digits)} {reading.value_unit}".strip()
    )
    name = reading.label(best.arm) if best.arm != reading.rules.reference else reading.the(best.arm)
    return (
        f"The best combination is {name[:1].lower() + name[1:]}, with {mean} on average; it was picked as the best of "
        f"{len(cells)}, so expect less of it on fresh seeds."
    )


def notices(reading: Reading) -> Iterable[Notice]:
    """Return what to know before reading on: errors, what is not in yet, what failed, what is mixed."""
    analysis, runs = reading.analysis, reading.analysis.runs
    if analysis.error:
        yield Notice("error", _sentence(words.capitalized(words.caution(analysis.error, reading.rules))))
    elif analysis.provisional and reading.rules.design != "search":
        yield Notice(
            "provisional",
            f"{runs.finished + runs.diverged} of {counted(runs.planned, 'run')} are in. "
            "Verdicts are read when a look is complete; until then an effect is only a first impression.",
        )
    elif runs.missing:
        yield Notice(
            "provisional",
            f"{counted(runs.missing, 'run')} of {runs.planned} {wording.verb(runs.missing, 'is', 'are')} not in yet. "
            "Settled verdicts are final; open ones may change.",
        )
    if runs.failed:
        yield Notice(
            "warning",
            f"{counted(runs.failed, 'run')} failed and {wording.verb(runs.failed, 'counts', 'count')} as missing; "
            f"the {wording.verb(runs.failed, 'reason is', 'reasons are')} under Runs.",
        )
    for line in reading.material.damaged:
        yield Notice("warning", _sentence(words.capitalized(line)))
    for note in reading.record.data_notes:
        yield Notice("warning", _sentence(f"Data: {note}"))
    for caution in analysis.warnings:
        # The error is shown first already, and the methods say which runs were stacked.
        if caution != analysis.error and caution.code != "stacked-and-single":
            called = reading.subject(caution.subject)
            # A caveat bounds what the verdicts are worth, and stands in every form of the report.
            bounds = caution.code in {"direction-against-name", "judged-on-test", "judged-before"}
            kind: Literal["caveat", "warning"] = "caveat" if bounds else "warning"
            yield Notice(kind, _sentence(words.caution(caution, reading.rules, called)))


def facts(reading: Reading) -> Iterable[tuple[str, str]]:
    """Return what was compared, on what data, by which metric, at what cost: (name, text)."""
    record, analysis = reading.record, reading.analysis
    reference = reading.arms[reading.rules.reference]
    fraction = record.fraction.words if record.fraction else ""
    design = {
        "one-at-a-time": "one change at a time",
        "leave-one-out": "one component left out at a time",
        "both": "one change at a time, and one component left out at a time",
        "factorial": "all combinations",
        "fractional": f"a fraction of all combinations, {fraction}".rstrip(", "),
        "path": "a greedy path, one change on top of another",
    }.get(reading.rules.design, reading.rules.design)
    arms = counted(len(reading.arms) - 1, "arm")
    search = record.search if reading.rules.design == "search" else None
    if search is not None:
        pruner = f", {search.pruner} pruner" if search.pruner != "none" else ""
        yield (
            "Searched",
            f"{joined(record.space)}: {search.trials} trials, {search.sampler} sampler{pruner}",
        )
    else:
        yield "Compared", f"{arms} with {reading.the(reading.rules.reference)}: {design}, {_seeds(reading)}"
    if training := _outline(reference.config, reading.levels(reading.rules.reference)):
        yield "Baseline" if reading.rules.reference == "baseline" else "Reference", training
    data = reference.data
    data_block = reference.config.get("data")
    name = data_block.get("name", "") if isinstance(data_block, Mapping) else ""
    if data.train:
        sizes = f"{data.train:,} images to train on, {data.validation:,} to validate, {data.test:,} to test"
        yield "Data", f"{name}: {sizes}" if name else sizes
    elif name:
        yield "Data", str(name)
    orientation = "higher is better" if reading.rules.direction == "maximize" else "lower is better"
    threshold = "" if search is not None else f"; a difference counts from {reading.margin_words}"
    cost = f", against {search.cost}" if search is not None and search.cost else ""
    yield "Judged by", f"{reading.rules.metric}, {orientation}{threshold}{cost}"
    if (gain := pairing.gain([analysis])) is not None:
        yield "Pairing", words.capitalized(words.gained(gain))
    yield "Cost", _cost_words(reading)
    looks = len(reading.rules.schedule())
    state = (
        f"look {analysis.look} of {looks}"
        if analysis.look
        else f"before the first of {counted(looks, 'look')}"
    )
    yield "Plan", record.id if search is not None else f"{record.id}, {state}"


def _seeds(reading: Reading) -> str:
    seeds = [c.n for c in reading.analysis.comparisons] or [reading.analysis.baseline.n]
    low, high = min(seeds), max(seeds)
    if not high:
        return f"no {reading.rules.unit} in yet"
    unit = reading.rules.unit
    return f"{counted(high, unit)} each" if low == high else f"{low} to {high} {unit}s each"


def _cost_words(reading: Reading) -> str:
    runs = reading.analysis.runs
    ended = runs.finished + runs.diverged
    runs_text = f"{ended} of {runs.planned} runs" if ended != runs.planned else counted(ended, "run")
    if reading.rules.design == "search":
        runs_text = counted(len(reading.replicates), "run")
    elif tried := int((reading.replicates["phase"] == TUNE).sum()):
        runs_text += f" and {tried} of tuning"
    parts = [runs_text]
    if "seconds" in reading.replicates.columns and not reading.replicates.empty:
        seconds = pd.to_numeric(reading.replicates["seconds"], errors="coerce")
        copied = reading.copied()
        spent = float(seconds[[not c for c in copied]].sum())
        if spent > 0:
            parts.append(f"{wording.duration(spent)} of device time")
        if any(copied):
            parts.append(f"{counted(sum(copied), 'run')} taken from earlier studies")
    return ", ".join(parts)


def axis(reading: Reading, rows: Sequence[Row]) -> Axis:
    """Return the scale on which all intervals are drawn; it holds the margin, and leaves out what is far beyond the rest."""
    shown = [
        [e for e in (row.interval.lo, row.interval.hi, row.interval.estimate) if e is not None]
        for row in rows
        if row.kind != "baseline"
    ]
    # By arm, not by end: the near end of an interval must not be the step that lets its far end in.
    limit = scales.reach((max(abs(e) for e in ends) for ends in shown if ends), 4.0 * reading.margin)
    ends = [e for row in shown for e in row]
    low = max(-limit, min([*ends, -1.5 * reading.margin]))
    high = min(limit, max([*ends, 1.5 * reading.margin]))
    pad = 0.04 * (high - low)
    cut = any(e < low - pad or e > high + pad for e in ends)
    return Axis(
        low - pad,
        high + pad,
        reading.margin,
        reading.unit,
        reading.digits,
        scales.ticks(low - pad, high + pad),
        cut,
    )


def groups(reading: Reading) -> tuple[FindingGroup, ...]:
    """Return findings by verdict, the largest effects first; the interactions of a factorial design are a group of their own."""
    items = [(item, i) for i, item in enumerate(reading.items)]
    reference = reading.the(reading.rules.reference)
    together = [(item, i) for item, i in items if isinstance(item, Effect) and len(item.terms) > 1]
    alone = [pair for pair in items if pair not in together]
    filled = []

    def add(
        key: str, title: str, meaning: str, members: Sequence[tuple[Comparison | Effect, int]], verdict: str
    ) -> None:
        findings = tuple(_finding(reading, item, i) for item, i in members)
        filled.append(FindingGroup(key, title, meaning, findings, verdict))

    for key, title, meaning, verdicts in GROUPS:
        members = [(item, i) for item, i in alone if item.verdict in verdicts]
        sign = {"worked": -1.0, "hurt": 1.0}.get(key)
        if sign is not None:
            members.sort(key=lambda pair: sign * (reading.interval(pair[0]).estimate or 0.0))
        if members:
            over_all = {"worked": "better", "hurt": "worse"} if reading.rules.factorial else {}
            says = (
                f"{over_all[key]} on average over all combinations"
                if key in over_all
                else meaning.replace("the baseline", reference)
            )
            add(key, title, says, members, members[0][0].verdict)
    if together:
        settled = [verdict for _, _, _, verdicts in GROUPS[:3] for verdict in verdicts]
        order = {verdict: i for i, verdict in enumerate(settled)}
        together.sort(
            key=lambda pair: (
                order.get(pair[0].verdict, len(order)),
                -abs(reading.interval(pair[0]).estimate or 0.0),
            )
        )
        add(*INTERACTIONS, together, "")
    return tuple(filled)


def _finding(reading: Reading, item: Comparison | Effect, index: int) -> Finding:
    sentence = words.verdict_sentence(item, reading.rules)
    if isinstance(item, Effect):
        name, label, anchor = (
            words.effect_code(item.terms),
            words.effect_label(item.terms),
            f"effect-{index}",
        )
        notes: tuple[str, ...] = ()
    else:
        name, label, anchor = item.arm, reading.label(item.arm), reading.anchors[item.arm]
        notes = _notes(reading, item)
    return Finding(
        name,
        label,
        sentence.subject,
        str(sentence),
        item.verdict,
        reading.interval(item),
        notes,
        anchor,
    )


def _notes(reading: Reading, item: Comparison) -> tuple[str, ...]:
    notes = []
    if item.cost_ratio is not None:
        notes.append(wording.share(item.cost_ratio, "device time" if item.cost_is_time else "compute"))
    if item.parameter_ratio is not None:
        notes.append(wording.share(item.parameter_ratio, "parameters"))
    if item.test_effect is not None:
        notes.append(
            f"test {measured(wording.signed(reading.shown(item.test_effect), reading.digits), reading.unit)}"
        )
    if wrong := trouble(item.failed, item.diverged, item.missing):
        notes.append(wrong)
    return tuple(notes)


def rows(reading: Reading) -> tuple[Row, ...]:
    """Return the rows of references, arms and effects, then of what is outside the family."""
    analysis = reading.analysis
    if reading.rules.design == "search":
        return ()
    table = [raw_row(reading, summary, "baseline") for summary in (analysis.baseline, *reading.others)]
    table += [_comparison_row(reading, item) for item in analysis.comparisons]
    table += [
        Row(
            "effect",
            words.effect_code(effect.terms),
            words.effect_label(effect.terms),
            f"effect-{i}",
            _verdict_words(effect),
            reading.interval(effect),
            effect.p_adjusted,
            effect.n,
        )
        for i, effect in enumerate(analysis.effects)
    ]
    if analysis.confirmation is not None:
        row = _comparison_row(reading, analysis.confirmation)
        label = f"{row.label}, on fresh seeds"
        table.append(dataclasses.replace(row, kind="confirmation", label=label, anchor=""))
    if analysis.aa is not None:
        row = _comparison_row(reading, analysis.aa)
        table.append(dataclasses.replace(row, kind="A/A", anchor=""))
    return tuple(table)


def _comparison_row(reading: Reading, item: Comparison) -> Row:
    raw = raw_row(reading, item.summary, "arm")
    return dataclasses.replace(
        raw,
        arm=item.arm,
        label=reading.label(item.arm),
        anchor=reading.anchors.get(item.arm, ""),
        verdict=_verdict_words(item),
        interval=reading.interval(item),
        p=item.p_adjusted,
        n=item.n,
        test_effect=reading.shown(item.test_effect),
        cost_ratio=item.cost_ratio,
        cost_is_time=item.cost_is_time,
        parameter_ratio=item.parameter_ratio,
        fit=tuple(d.words for d in item.fit),
        trouble=trouble(item.failed, item.diverged, item.missing),
    )


def raw_row(reading: Reading, raw: ArmSummary, kind: Kind) -> Row:
    """Return a row without a verdict: an arm's own figures."""
    levels = reading.levels(raw.arm)
    return Row(
        kind,
        raw.arm,
        reading.label(raw.arm),
        reading.anchors.get(raw.arm, ""),
        "",
        Interval(None, None, None, ""),
        None,
        raw.n,
        mean=reading.shown_value(raw.mean),
        sd=reading.shown_value(raw.sd),
        test=reading.shown_value(raw.test),
        seconds=raw.seconds,
        parameters=raw.parameters,
        fit=tuple(d.words for d in raw.fit),
        trouble=trouble(raw.failed, raw.diverged, raw.missing),
        levels=tuple((name, wording.level(value)) for name, value in levels.items()),
        present=tuple(levels.get(f) == _only_level(reading.record, f) for f in components(reading)),
    )


def components(reading: Reading) -> tuple[str, ...]:
    """Return the factors that are present or not, one level each: what a table can tick off."""
    if reading.rules.design not in {"leave-one-out", "factorial", "fractional", "both"}:
        return ()
    factors = reading.record.factors
    return tuple(f.name for f in factors) if all(len(f.levels) == 1 for f in factors) else ()


def costs(reading: Reading) -> tuple[Cost, ...]:
    """Return every arm with a known cost, the baseline at 1; `best` by what no other arm beats on both counts."""
    candidates: list[tuple[str, float, ArmSummary, str | None]] = []
    base = reading.analysis.baseline
    if any(c.cost_ratio is not None for c in reading.analysis.comparisons):
        candidates.append((reading.label(base.arm), 1.0, base, None))
    candidates += [
        (reading.label(c.arm), c.cost_ratio, c.summary, c.verdict)
        for c in reading.analysis.comparisons
        if c.cost_ratio is not None and c.cost_ratio > 0 and c.reference == reading.rules.reference
    ]
    measured = [
        (label, cost, raw, verdict) for label, cost, raw, verdict in candidates if raw.mean is not None
    ]
    sign = reading.rules.sign
    costs = []
    for label, cost, raw, verdict in measured:
        assert raw.mean is not None
        beaten = any(
            other.mean is not None
            and (c <= cost and sign * other.mean >= sign * raw.mean)
            and (c < cost or sign * other.mean > sign * raw.mean)
            for _, c, other, _ in measured
        )
        low, high = raw.mean if raw.low is None else raw.low, raw.mean if raw.high is None else raw.high
        costs.append(
            Cost(
                label,
                cost,
                raw.mean * reading.factor,
                low * reading.factor,
                high * reading.factor,
                verdict,
                not beaten,
            )
        )
    return tuple(costs) if len({c.cost for c in costs}) > 1 else ()


def interactions(reading: Reading) -> Interactions | None:
    """Return the square of main effects and interactions; None where there is at most one factor to show."""
    mains = [e.terms[0] for e in reading.analysis.effects if len(e.terms) == 1]
    if len(mains) < 2:
        return None
    estimates = {frozenset(e.terms): reading.shown(e.estimate) for e in reading.analysis.effects}
    square = tuple(tuple(estimates.get(frozenset((a, b))) for b in mains) for a in mains)
    return Interactions(
        tuple(words.effect_label((main,)) for main in mains), square, reading.unit, reading.digits
    )


MOST_CROSSINGS = 6
"""Pairs of factors that are drawn, those that interact most first."""


def crossings(reading: Reading) -> tuple[Crossing, ...]:
    """Return each pair of factors of a full factorial design. In a fraction a pair is aliased with others, so none is drawn."""
    if reading.rules.design != "factorial":
        return ()
    cells = {s.arm: s for s in (reading.analysis.baseline, *reading.analysis.cells)}
    levels: dict[str, dict[str, list[str]]] = {}
    places: dict[str, dict[str, Any]] = {}
    for arm in reading.arms:
        for factor, level in reading.levels(arm).items():
            levels.setdefault(factor, {}).setdefault(wording.level(level), []).append(arm)
            places.setdefault(factor, {})[wording.level(level)] = level
    for factor, by_name in places.items():
        if all(isinstance(level, int | float) and not isinstance(level, bool) for level in by_name.values()):
            levels[factor] = {
                name: levels[factor][name] for name in sorted(by_name, key=lambda n: float(by_name[n]))
            }
    strength: dict[frozenset[str], float] = {}
    for effect in reading.analysis.effects:
        if len(effect.terms) == 2 and effect.estimate is not None:
            pair = frozenset(str(term.factor) for term in effect.terms)
            strength[pair] = max(strength.get(pair, 0.0), abs(effect.estimate))

    def mean(arms: set[str]) -> float | None:
        means = [cells[arm].mean for arm in arms if arm in cells]
        finite = [value for value in means if value is not None]
        # A mean without one of its cells would say more of the cell that is missing.
        return statistics.fmean(finite) * reading.factor if finite and len(finite) == len(arms) else None

    pairs = sorted(itertools.combinations(levels, 2), key=lambda pair: -strength.get(frozenset(pair), 0.0))
    return tuple(
        Crossing(
            wording.title(first),
            wording.title(second),
            tuple(levels[first]),
            tuple(
                (name, tuple(mean(set(arms) & set(levels[first][level])) for level in levels[first]))
                for name, arms in levels[second].items()
            ),
            reading.rules.metric,
            reading.value_unit,
        )
        for first, second in pairs[:MOST_CROSSINGS]
        if len(levels[second]) <= len(palette.NEUTRALS) + 1
    )


def _verdict_words(item: Comparison | Effect) -> str:
    word = words.verdict_word(item)
    if item.clearly:
        return f"clearly {word}"
    if item.real:
        return f"{word} (real, below the margin)"
    return word


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _only_level(record: PlanRecord, factor: str) -> Any:
    for entry in record.factors:
        if entry.name == factor:
            row = entry.levels[0]
            return next(iter(row.values())) if len(row) == 1 else dict(row)
    return None


def _outline(config: Any, levels: Mapping[str, Any]) -> str:
    """Return the reference in a line: its level of every factor, then model, optimizer and epochs, or else its first scalars."""
    parts = [", ".join(words.setting(factor, level) for factor, level in levels.items())] if levels else []
    if not isinstance(config, Mapping):
        return parts[0] if parts else ""
    model, optimizer, training = (config.get(name) for name in ("model", "optimizer", "training"))
    if isinstance(model, Mapping) and "name" in model:
        inside = [
            f"{k.replace('_', ' ')} {wording.level(v)}"
            for k, v in model.items()
            if isinstance(v, int | float) and not isinstance(v, bool) and f"model.{k}" not in levels
        ]
        parts.append(f"{model['name']} ({', '.join(inside[:4])})" if inside else str(model["name"]))
    if isinstance(optimizer, Mapping) and "name" in optimizer:
        known = "lr" in optimizer and "optimizer.lr" not in levels
        rate = f", learning rate {wording.level(optimizer['lr'])}" if known else ""
        parts.append(f"{optimizer['name']}{rate}")
    if isinstance(training, Mapping) and "epochs" in training:
        parts.append(counted(int(training["epochs"]), "epoch"))
    if len(parts) <= bool(levels):
        plain = [
            f"{k} {wording.level(v)}"
            for k, v in config.items()
            if not isinstance(v, Mapping | list) and k not in levels
        ]
        parts += plain[:5]
    return " · ".join(part for part in parts if part)
