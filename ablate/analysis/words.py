"""Verdicts, effects and cautions in plain words, made from data alone: the one place where they become text.

Numbers are rounded as far as they can be without saying something else than the verdict: an interval above zero is
never shown as starting at zero.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.analysis.contents import Analysis, Caution, Comparison, Effect, PairingGain
from ablate.analysis.family import Term, Terms
from ablate.analysis.power import MOST_PAIRS, MoreSeeds
from ablate.analysis.rules import Rules
from ablate.study.seeds import NOISE_FLOOR
from ablate.text import counted, cut, format_duration, format_level, joined, measured, visible

_SMALLEST = 30
"""More decimals than this are written of no declared number."""

MOST_DECIMALS = 12

NOISE = 1e-9
"""A share of the largest of several numbers. Where two of them differ by less, arithmetic has made the difference: 0.9 − 0.8 is not 0.1."""

MOST_NAMES = 6
"""Arms that a caution names one by one; more are counted."""

LONGEST_REASON = 200
"""Characters of why a run ended as it did, in a caution."""

_ABBREVIATIONS = {"lr": "learning rate"}


@dataclass(frozen=True)
class Sentence:
    """A verdict in words. subject: the arm or effect it begins with; predicate: the rest, with its full stop."""

    subject: str
    predicate: str

    def __str__(self) -> str:
        return f"{self.subject} {self.predicate}"


def label(arm: str, rules: Rules) -> str:
    """Return what an arm is called at the head of a sentence: `model.width=128` → "Width 128"; full minus one → "Without …".

    On a greedy path an arm is one change on top of others: "Width 128 on top of learning rate 0.1".
    """
    if arm == NOISE_FLOOR or arm not in {rule.name for rule in rules.arms}:
        return visible(arm)
    rule = rules.arm(arm)
    if rule.factor is None:
        return visible(arm)
    if rules.reference_of(rule) == "full":
        return f"Without {_name(rule.factor)}"
    before = changes(rules.reference_of(rule), rules)
    below = f" on top of {joined(before)}" if before else ""
    return capitalized(setting(rule.factor, rule.level)) + below


def changes(arm: str, rules: Rules) -> list[str]:
    """Return what a greedy path has changed where it comes to an arm, in the order of its steps; nothing elsewhere."""
    steps = []
    while rules.steps and arm != rules.reference:
        rule = rules.arm(arm)
        steps.append(setting(str(rule.factor), rule.level))
        arm = rules.reference_of(rule)
    return steps[::-1]


def sentence(item: Comparison | Effect, rules: Rules) -> str:
    """Return the one-sentence reading of a verdict, with its effect, its interval and what it costs.

    "Width 128 helps: +1.8 points (1.1 to 2.5, 5 seeds), at 2.6× the compute; it over-fits from epoch 14."
    """
    return str(verdict_sentence(item, rules))


def verdict_sentence(item: Comparison | Effect, rules: Rules) -> Sentence:
    """Return the sentence of a verdict, its subject and the rest apart."""
    comparison = item if isinstance(item, Comparison) else None
    if isinstance(item, Comparison):
        subject, reference = label(item.arm, rules), item.reference
    else:
        subject, reference = effect_subject(item.terms), rules.reference
    verdict = _verdict(item, rules, reference)
    if item.verdict in {"not independent", "no override"}:
        return Sentence(subject, visible(f"{verdict}."))
    cost = "" if comparison is None else _cost(comparison)
    clauses = [verdict + cost, *_qualifications(item, rules)]
    if comparison is not None:
        clauses += _remarks(comparison)
    return Sentence(subject, visible(f"{'; '.join(clauses)}."))


def verdict_word(item: Comparison | Effect) -> str:
    """Return a verdict as tables have it. An interaction is `positive` or `negative`: it is not better or worse than anything."""
    if isinstance(item, Effect) and len(item.terms) > 1:
        return {"helps": "positive", "hurts": "negative"}.get(item.verdict, item.verdict)
    return item.verdict


def term_code(term: Term) -> str:
    """Return a term as JSON and CSV have it: `path=level`, a block as JSON, text as it is; or `the rest`.

    For scripts to show; nothing reads it back.
    """
    if term.factor is None:
        return "the rest"
    level = term.level
    if isinstance(level, Mapping) and set(level) == {"name"}:
        level = level["name"]
    text = level if isinstance(level, str) else json.dumps(level, sort_keys=True, default=str)
    return f"{term.factor}={text}"


def effect_code(terms: Terms) -> str:
    """Return an effect as tables of scripts name it: `a=1 × b=2`."""
    return " × ".join(map(term_code, terms))


def term(side: Term) -> str:
    """Return a term within a sentence: "width 128", "no augment", "the rest"."""
    return "the rest" if side.factor is None else setting(side.factor, side.level)


def effect_label(terms: Terms) -> str:
    """Return what an effect is called in tables and figures: "Width 128 × Flip off"."""
    return " × ".join(term(side) if side.factor is None else capitalized(term(side)) for side in terms)


def effect_subject(terms: Terms) -> str:
    """Return what an effect is called at the head of a sentence: "Width 128", "The interaction of width 128 and flip off"."""
    sides = [term(side) for side in terms]
    return capitalized(sides[0]) if len(sides) == 1 else f"The interaction of {joined(sides)}"


def subject(item: Caution, rules: Rules) -> str | None:
    """Return what the arm or effect of a caution is called in sentences; None where it is about the whole study."""
    if item.subject is None:
        return None
    return label(item.subject, rules) if isinstance(item.subject, str) else effect_label(item.subject)


def caution(item: Caution, rules: Rules, called: str | None = None) -> str:
    """Return a caution as a sentence. called: what its arm or effect is called; None: by its code, as in the JSON."""
    return visible(_caution(item, rules, called))


def _caution(item: Caution, rules: Rules, called: str | None) -> str:
    if item.subject is not None and called is None:
        called = item.subject if isinstance(item.subject, str) else "×".join(map(term_code, item.subject))
    about = f"{called}: " if item.subject is not None else ""
    figures = item.figures
    match item.code:
        case "reference-failed":
            number = int(figures["runs"]) if "runs" in figures else len(item.seeds)
            where = f"in all {number} runs" if "runs" in figures else f"under all {number} seeds"
            return (
                f"the {called} failed {where if number > 1 else 'in its only run'}{_because(item)}: nothing can be compared with it. "
                "See to what failed and run it again, or choose another baseline"
            )
        case "arm-failed":
            return f"{about}every run failed{_because(item)}."
        case "reference-diverged" | "reference-not-finite":
            advice = (
                f"Lower its learning rate, see that {rules.metric} is a number, or choose another baseline"
            )
            if "runs" in figures:
                return f"the {called} diverged in {counted(int(figures['runs']), 'run')}: nothing can be compared with it. {advice}"
            if item.code == "reference-diverged":
                return f"the {called} diverged {_under(item.seeds)}{_because(item)}: nothing can be compared with it. {advice}"
            return (
                f"the {called} has no finite value {_under(item.seeds)}, though its outcome is `finished`, and counts as diverged: "
                "nothing can be compared with it. Give the value, leave out the rows of these seeds if it is lost, or choose "
                "another baseline"
            )
        case "direction-against-name":
            usual = "higher" if rules.direction == "minimize" else "lower"
            return (
                f"{rules.metric} is {rules.direction}d here, as the direction that was given says; of a metric of that name {usual} is "
                "better as a rule. If the direction is wrong, so is every verdict."
            )
        case "judged-on-test":
            return (
                f"Arms are chosen on the test set ({rules.metric}): the best of them looks better than it is on new data, and no "
                "untouched data are left to show by how much."
            )
        case "read-before-the-end":
            return (
                f"In {int(figures['runs'])} of {counted(int(figures['of']), 'run')} {rules.metric} was read at an epoch before the "
                f"last, up to {counted(int(figures['epochs']), 'epoch')} earlier: no later one has it."
            )
        case "told-of-errors":
            arms = joined(item.arms) if len(item.arms) <= MOST_NAMES else counted(len(item.arms), "arm")
            return (
                f"In {int(figures['runs'])} of {counted(int(figures['of']), 'run')}, of {arms}, the program ended well, but told of an error "
                f"({cut(item.reason, 100)}): see that training came to its end. With `set -e`, and `set -o pipefail`, a script fails where "
                "a program in it does."
            )
        case "read-from-test-line":
            return (
                f"In {int(figures['runs'])} of {counted(int(figures['of']), 'run')} the last value of {rules.metric}, which counts, is from a "
                f"line of the test set ({cut(item.reason, 100)}): give it a pattern that finds only the others, or say `judged_on: test`."
            )
        case "judged-before":
            plans = counted(int(figures["plans"]), "other plan")
            return (
                f"Runs of this plan were judged by {plans}: each plan's 5 % holds for that plan alone, and "
                "reading the same runs more than once is not corrected for."
            )
        case "coarse-metric":
            return (
                f"The margin ({figures['margin']:g}) is less than twice the metric's resolution ({figures['resolution']:g}), the smallest "
                "step that it can make: measure it on more data, or declare a larger margin."
            )
        case "aa-differs":
            return (
                "A/A, the baseline under other seeds, differs from the baseline: something besides the overrides varies, "
                "or this is the one study in twenty where chance does it."
            )
        case "aa-repeats":
            return "A/A repeats the baseline exactly: the seed does not reach the training."
        case "single-runs":
            arms = joined(item.arms) if len(item.arms) <= MOST_NAMES else counted(len(item.arms), "arm")
            runs = f"{arms} {'have' if len(item.arms) > 1 else 'has'} one run{' each' if len(item.arms) > 1 else ''}"
            if "spread" not in figures:
                return f"{runs}, and nothing was repeated: how much seeds alone change is not known, so there is no verdict."
            scale = rules.scale()
            spread = measured(f"{figures['spread'] * scale.factor:.2g}", scale.unit)
            return (
                f"{runs}, which gives no verdict: seeds alone make two single runs of one arm differ by up to "
                f"{spread} here (95 %)."
            )
        case "no-noise" if rules.unit == "run":
            return (
                f"{about}all runs of the arm or of the {rules.reference} agree to the last digit, which leaves no noise to judge "
                "by. State the metric's resolution, or see that these are independent runs."
            )
        case "no-noise" if rules.unit == "seed" and figures.get("alike"):
            nothing = (
                "; where nothing in it is random, say `deterministic: true`" if rules.has_study_file else ""
            )
            return (
                f"{about}neither its runs nor those of the {rules.reference} differ from seed to seed, which leaves no noise to judge by. "
                f"See that the seed reaches the training{nothing}."
            )
        case "no-noise":
            return (
                f"{about}the differences agree to the last digit {'under' if rules.unit == 'seed' else 'in'} every {rules.unit}, which leaves no noise to judge by. "
                f"State the metric's resolution{', or `deterministic: true` if that is meant' if rules.has_study_file else ''}."
            )
        case "repeated-values":
            arms = joined(item.arms) if len(item.arms) <= MOST_NAMES else counted(len(item.arms), "arm")
            return (
                f"Runs of {arms} under different seeds have the same {rules.metric} to the last digit: are they copies? "
                "See that every seed reaches the training: copies are no more runs, and the intervals take them for some."
            )
        case "values-of-reference":
            arms = joined(item.arms) if len(item.arms) <= MOST_NAMES else counted(len(item.arms), "arm")
            return (
                f"Every run of {arms} has the same {rules.metric} as that of the {rules.reference} under its seed: see that what was "
                "changed reaches the training."
            )
        case "noisy" if rules.unit == "run":
            return f"{about}its runs vary {figures['times']:.1f} times as much as the typical arm's."
        case "noisy":
            misses = (
                ": over so few seeds its interval may miss more often than it says"
                if "narrow" in figures
                else ""
            )
            return (
                f"{about}from {rules.unit} to {rules.unit} its differences vary {figures['times']:.1f} times as much as the typical "
                f"arm's{misses}."
            )
        case "skewed":
            arms = f"{', '.join(item.arms)} spread{'s' if len(item.arms) == 1 else ''} differently from the baseline"
            if rules.unit == "run":
                arms += f", or {'has' if len(item.arms) == 1 else 'have'} many more or fewer runs"
            return f"The metric is strongly skewed over {rules.unit}s, and {arms}: intervals may miss more often than they say."
        case "margin-out-of-reach":
            scale = rules.scale()
            detectable, margin = (
                measured(text, scale.unit)
                for text in (
                    f"{figures['detectable'] * scale.factor:.2g}",
                    f"{figures['margin'] * scale.factor:g}",
                )
            )
            return (
                f"The margin is out of reach: with this noise {'the declared seeds' if rules.planned else 'these runs'} detect "
                "differences of about "
                f"{detectable}, and the margin is {margin}."
            )
        case "mixed-devices" | "mixed-torch":
            kinds = "kinds of device" if item.code == "mixed-devices" else "versions of torch"
            groups = ", ".join(f"{name} ({n} run{'' if n == 1 else 's'})" for name, n in item.counts)
            return f"Runs of different {kinds} are compared with each other: {groups}."
        case "mixed-inputs":
            names = joined([cut(name, 80) for name, _ in item.counts[:MOST_NAMES]])
            return (
                f"Runs that read different contents of {names} are compared with each other: "
                f"{'it has' if len(item.counts) == 1 else 'these have'} changed between them."
            )
        case "shared-files":
            names = joined([cut(name, 80) for name, _ in item.counts[:MOST_NAMES]])
            return (
                f"Runs of one arm may have read what those of another wrote: {names}. If what they hold depends on a setting, arms were "
                "mixed up: let each run write to a folder of its own."
            )
        case "mixed-units":
            groups = " and ".join(f"{counted(n, 'run')} as {name}" for name, n in item.counts)
            return f"{rules.metric} seems to come in two units: of {groups}. Then no effect between them means anything."
        case "unequal-epochs":
            least, most = (f"{figures[name]:g}" for name in ("least", "most"))
            fewest, longest = (f"{figures[f'others {name}']:g}" for name in ("least", "most"))
            arms = joined(item.arms) if len(item.arms) <= MOST_NAMES else counted(len(item.arms), "arm")
            return (
                f"{rules.metric} is compared after different numbers of epochs: the runs of the baseline end after "
                f"{least if least == most else f'{least} to {most}'}, those of {arms} after "
                f"{fewest if fewest == longest else f'{fewest} to {longest}'}."
            )
        case "stacked-and-single":
            return "The comparisons mix stacked and single runs: the same computation, but for the last digits of its sums."
        case "aliased":
            return (
                f"{figures['aliased']} of {figures['effects']} effects cannot be told from others in this fraction: each "
                "estimate is the sum of its aliases, up to their signs. They are named with the effect; a factorial study of a "
                "few factors tells them apart."
            )


def _under(seeds: Sequence[int]) -> str:
    """Return `under seeds 0, 1, 2`, or how many there are."""
    if len(seeds) > MOST_NAMES:
        return f"under {len(seeds)} seeds"
    return f"under seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _because(item: Caution) -> str:
    return f" ({cut(item.reason, LONGEST_REASON)})" if item.reason else ""


def gained(gain: PairingGain) -> str:
    """Return what pairing gained, as a sentence."""
    correlation = f"{gain.correlation:.2f}".replace("-", "−")
    text = f"over seeds the arms correlate with their reference by {correlation} on average"
    if gain.seeds is None or gain.unpaired_seeds is None:
        return f"{text}: pairing {'narrows the intervals' if gain.correlation > 0 else 'gains nothing'}"
    saved = gain.unpaired_seeds - gain.seeds
    if saved > 0:
        return (
            f"{text}: without pairing, intervals as narrow would take about {gain.unpaired_seeds} seeds instead of {gain.seeds}, "
            f"so that it saved {counted(saved, 'seed')}"
        )
    return f"{text}: pairing saved no seeds, about as many would give intervals as narrow without it"


def headline(analysis: Analysis) -> str:
    """Return what the study found, in one sentence."""
    rules = analysis.rules
    if analysis.error is not None:
        return f"No verdict: {caution(analysis.error, rules)}."
    if rules.steps:
        return _path(analysis)
    items: tuple[Comparison | Effect, ...] = analysis.effects if rules.factorial else analysis.comparisons
    if not items:
        return "Nothing to compare: the study has no arms besides its baseline."
    # An interaction is not better or worse than anything: it says how far two changes together differ from their sum.
    together = [e for e in analysis.effects if len(e.terms) > 1] if rules.factorial else []
    items = tuple(item for item in items if item not in together) or items
    kind = "main effect" if together else "effect" if rules.factorial else "arm"
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
        gain = _with_unit(_number(best.effect or 0.0, *_rounding(best, rules), sign=True), best, rules)
        top = f", the best being {_within(best.arm, rules)} with {gain}{_way(rules)}"
    [(common, _)] = counts.most_common(1)
    if len(items) == 1:
        whole = f"The only {kind} {_COUNTED[common][0]}{top.replace(', the best being ', ': ')}"
    elif len(counts) == 1:
        whole = f"{'Both' if len(items) == 2 else f'All {len(items)}'} {kind}s {_COUNTED[common][1]}{top}"
    else:
        whole = f"Of {len(items)} {kind}s, {joined(parts)}{top}"
    if together and len(items) < len(analysis.effects):
        kinds: Counter[str] = Counter(effect.verdict for effect in together)
        what = [f"{kinds[v]} {pair[kinds[v] != 1]}" for v, pair in _TOGETHER.items() if kinds[v]]
        if len(together) == 1:
            whole += f"; the interaction {what[0][2:]}"
        elif len(kinds) == 1:
            number = "both" if len(together) == 2 else f"all {len(together)}"
            whole += f"; {number} interactions {what[0].split(' ', 1)[1]}"
        else:
            whole += f"; of {len(together)} interactions {joined(what)}"
    if rules.mixed:
        real = sum(e.verdict in {"helps", "hurts"} for e in analysis.effects)
        whole += f"; {real} of {len(analysis.effects)} factors {'interacts' if real == 1 else 'interact'} with the rest"
    return f"{whole}{' (provisional: the first look is not complete)' if analysis.provisional else ''}."


def _path(analysis: Analysis) -> str:
    """Return a greedy path in words: its steps in order, each with what it added on top of those before."""
    rules = analysis.rules
    steps = []
    for step in map(analysis.comparison, rules.path):
        gain = ""
        if step.effect is not None:
            worth = _number(step.effect, *_rounding(step, rules), sign=True)
            gain = f", {_with_unit(worth, step, rules, named=False)}"
        change = setting(str(step.factor), step.level)
        steps.append(f"{change} ({step.verdict}{gain})")
    if not steps:
        return "The path has not left the baseline (provisional: its first step is not decided)."
    rest = " (provisional: it has not come to its end)" if rules.walking else ""
    return f"The greedy path from the {rules.reference}: {', then '.join(steps)}{rest}."


_COUNTED: dict[str, tuple[str, str]] = {
    "helps": ("helps", "help"),
    "hurts": ("hurts", "hurt"),
    "no practical effect": ("makes no practical difference", "make no practical difference"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
    "unstable": ("is unstable", "are unstable"),
    "not independent": ("repeats one run", "repeat one run"),
    "no override": ("changed nothing", "changed nothing"),
}


def _verdict(item: Comparison | Effect, rules: Rules, reference: str) -> str:
    """Return the verdict, with effect and interval where there are any."""
    if item.verdict == "not independent":
        if rules.unit != "seed":
            return f"is no comparison: repeats are copies of one run, its own or the {reference}'s"
        return (
            "is no comparison: runs under different seeds are identical, "
            "so the seed does not reach the training"
        )
    if item.verdict == "no override":
        return f"is no comparison: the override changed nothing, every run is the {reference}'s"
    clearly = "clearly " if item.clearly else ""
    says = {
        "helps": f"{clearly}helps",
        "hurts": f"{clearly}hurts",
        "no practical effect": "makes no practical difference",
        "inconclusive": "is inconclusive",
        "unstable": "is unstable",
    }[item.verdict]
    if isinstance(item, Effect) and len(item.terms) > 1:
        says = {"helps": f"is {clearly}positive", "hurts": f"is {clearly}negative"}.get(item.verdict, says)
    effect = _effect(item)
    if item.withheld == "reference diverged":
        return f"cannot be judged: the {reference} diverged"
    if effect is None:
        none = "no run has finished together with its counterpart"
        if rules.unit == "run":
            none = f"no run has finished, or none of the {reference}"
        return f"{says}: {_diverged(item) or none}"
    figure = _figure(item, rules)
    if item.withheld in {"too few pairs", "too few runs", "too few blocks"}:
        figure = f"{figure} in {_size(item, rules)}, too few for an interval"
    elif item.withheld == "no noise" and rules.unit == "run":
        figure = f"{figure} in {_size(item, rules)}, and all runs of one arm are alike, which leaves no noise to judge by"
    elif item.withheld == "no noise":
        under = "under" if rules.unit == "seed" else "in"
        figure = f"{figure} {under} each of {_size(item, rules)}, which leaves no noise to judge by"
    if item.verdict == "unstable":
        diverged = _diverged(item)
        return f"{says}: {f'{diverged}, ' if diverged else ''}{figure} among those that finished"
    return f"{says}: {figure}"


def _figure(item: Comparison | Effect, rules: Rules) -> str:
    """+1.8 points (1.1 to 2.5, 5 seeds)."""
    decimals, factor = _rounding(item, rules)
    figure = _with_unit(_number(_effect(item) or 0.0, decimals, factor, sign=True), item, rules)
    if item.lo is None or item.hi is None:
        return figure + _way(rules)
    lo, hi = _number(item.lo, decimals, factor), _number(item.hi, decimals, factor)
    notes = [_size(item, rules)]
    looks = rules.schedule()
    # A confirmation has a look of its own, which is none of the schedule's.
    if (
        0 < item.look <= len(looks)
        and looks[item.look - 1].alpha == item.alpha
        and not looks[item.look - 1].declared
    ):
        notes.append("an extra look")
    positive = "; positive is better" if rules.direction == "minimize" else ""
    return f"{figure} ({lo} to {hi}, {', '.join(notes)}{positive})"


def _size(item: Comparison | Effect, rules: Rules) -> str:
    """Return what the figure is the mean of: `5 seeds`, `4 runs against 5`, `6 blocks`, `3 runs of each arm`."""
    size = counted(item.n, rules.unit)
    if isinstance(item, Effect) and not rules.paired:
        return f"{size} of each arm"
    against = item.n_reference if isinstance(item, Comparison) else None
    return size if against is None else f"{size} against {against:,}"


def _qualifications(item: Comparison | Effect, rules: Rules) -> list[str]:
    """Return what limits or extends the verdict: what is real, what is ruled out, what certainty would cost."""
    clauses = []
    factor = _rounding(item, rules)[1]
    if isinstance(item, Effect) and len(item.terms) > 1:
        than = {"helps": "better", "hurts": "worse"}.get(item.verdict)
        if than is not None and all(side.factor is not None for side in item.terms):
            clauses.append(f"together they do {than} than the sum of what each does alone")
    margin = _number(rules.margin, _decimals(rules.margin * factor), factor)
    margin = _with_unit(margin, item, rules, named=False)
    if item.real:
        clauses.append(f"the effect is real, but below the margin of {margin}")
    if item.ruled_out is not None:
        clauses.append(f"a {item.ruled_out} of {margin} or more is ruled out")
    if item.more_seeds is not None:
        clauses.append(_price(item.more_seeds, rules))
    if isinstance(item, Effect) and item.apart is not None:
        alone, given = (_number(v, *_rounding(item, rules), sign=True) for v in item.apart)
        given = _with_unit(given, item, rules, named=False)
        clauses.append(f"alone it is worth {alone}, given the rest {given}")
    if isinstance(item, Effect) and item.aliases:
        others = [" × ".join(map(term, alias)) for alias in item.aliases]
        clauses.append(f"this fraction cannot tell it from {joined(others, 'or')}")
    if item.provisional:
        clauses.append("provisional, because the first look is not complete")
    if 0 < rules.retunes < 3 and item.lo is not None:
        clauses.append(f"at the values found, tuning was run {'once' if rules.retunes == 1 else 'twice'}")
    return clauses


def _price(price: MoreSeeds, rules: Rules) -> str:
    unit = "runs of each" if rules.unit == "run" else f"{rules.unit}s"
    where = "" if rules.unit == "block" else " in an extra look"
    most = price.most
    if most is not None and (price.n80 is None or price.n80 > most):
        # What lies beyond the most seeds would be an extra look, at a small part of the error: another price.
        even = f"even chance of a verdict by {price.n50} {unit}, " if (price.n50 or most + 1) < most else ""
        chance = f"{percent(price.chance or 0.0)} %{'' if even else ' chance of a verdict'}"
        return f"{even}{chance} by the most of {most}{'' if even else f' {unit}'}{_device_time(price.seconds_most)}"
    if price.n50 is None:
        return f"no number of {unit} up to {MOST_PAIRS} gives it an even chance of a verdict{where}"
    text = f"even chance of a verdict by {price.n50} {unit}"
    text += f", 80 % by {price.n80}" if price.n80 is not None else ""
    text += _device_time(price.seconds50 if price.n80 is None else price.seconds80)
    if most is None:
        return text + where
    # N_any takes the noise as it was measured, the probabilities do not: it may be smaller than they are, and then adds nothing.
    if price.n_any is not None and (price.n80 or price.n50) < price.n_any <= most:
        text += f", by about {price.n_any} whatever the effect"
    return text


def percent(probability: float) -> str:
    """Return a probability in percent, without the sign: neither 0 nor 100 where it is not."""
    shown = round(100.0 * probability)
    if shown == 0 and probability > 0.0:
        return "under 1"
    return "over 99" if shown == 100 and probability < 1.0 else str(shown)


def _device_time(seconds: float | None) -> str:
    return "" if seconds is None else f" ({format_duration(seconds)} of device time)"


def beyond(analysis: Analysis, study: str = "NAME") -> str | None:
    """Return what settles the undecided arms once the most seeds are used up, and which way is cheaper; None before.

    study: what commands call the study.
    """
    price, rules = analysis.beyond, analysis.rules
    if price is None:
        return None
    noun = "effect" if rules.factorial else "arm"
    items: tuple[Comparison | Effect, ...] = (*analysis.comparisons, *analysis.effects)
    single = price.undecided == 1
    subject = f"the undecided {noun}" if single else f"each of the {price.undecided} undecided {noun}s"
    # Too few runs have no interval, and nothing says what would settle them.
    if sum(item.verdict == "inconclusive" for item in items) > price.undecided:
        subject += f" that {'has' if single else 'have'} an interval"
    unit = f"{rules.unit}s"
    extra = (
        f"an extra look takes {counted(price.extra, f'more {rules.unit}', f'more {unit}')}{' of each' if rules.unit == 'run' else ''}"
        if price.extra is not None
        else f"an extra look takes more than {MOST_PAIRS} {unit}"
    )
    head = f"To settle {subject} with a probability of 80 %, {extra}"
    top_up = f"`ablate top-up {study} --seeds {price.extra}`"
    if not price.writable:
        return f"{head}{f': {top_up}' if rules.planned and price.extra is not None else ''}."
    alone = "it" if price.undecided == 1 else "them"
    fresh = (
        f"a study of {alone} alone on fresh {unit} takes {price.fresh}"
        if price.fresh is not None
        else f"a study of {alone} alone would take more than {MOST_PAIRS} too"
    )
    if price.recommended is None:
        return f"{head}, and {fresh}: only less noise or a larger margin would."
    if not rules.planned:
        way = (
            "the fresh ones, judged in a file of their own"
            if price.recommended == "fresh"
            else "the extra look"
        )
    else:
        way = f"`ablate init {study}-again --from {study}`" if price.recommended == "fresh" else top_up
    return f"{head}, and {fresh}; cheaper: {way}."


_IMPLIED_DIAGNOSIS = {
    "unstable": "diverged",
    "hurts": "too-slow-for-its-gain",
    "no practical effect": "too-slow-for-its-gain",
}
"""Verdict → the diagnosis that it, or its cost, states already."""


def _remarks(comparison: Comparison) -> list[str]:
    """Return what else happened: diagnoses, and runs without a result."""
    diagnoses = [d.words for d in comparison.fit if d.code != _IMPLIED_DIAGNOSIS.get(comparison.verdict)]
    remarks = [f"it {joined(diagnoses)}"] if diagnoses else []
    if comparison.failed:
        remarks.append(f"{counted(comparison.failed, 'run')} failed")
    if comparison.missing and not comparison.provisional:
        remarks.append(f"{counted(comparison.missing, 'run')} missing")
    return remarks


def _cost(comparison: Comparison) -> str:
    """Stated where it differs by a tenth: without a word a reader may assume the same."""
    ratio = comparison.cost_ratio
    if ratio is None or comparison.effect is None or 0.9 <= ratio <= 1.1:
        return ""
    return f", at {_times(ratio)}× the {'time' if comparison.cost_is_time else 'compute'}"


def _rounding(item: Comparison | Effect, rules: Rules) -> tuple[int, float]:
    """Decimals and factor: the fewest that keep every order of interval, zero and margin as it is."""
    to = rules.scale(item.summary.mean if isinstance(item, Comparison) else None)
    ends = [v * to.factor for v in (item.lo, item.hi) if v is not None]
    margin = rules.margin * to.factor
    noise = NOISE * max(map(abs, [*ends, margin]))
    if to.unit:
        first = 1
    else:
        size = (ends[1] - ends[0]) / 2.0 if len(ends) == 2 else margin
        first = max(0, 1 - math.floor(math.log10(size))) if size > noise else 3
    first = max(first, _decimals(margin))
    for decimals in range(first, first + MOST_DECIMALS):
        kept = all(
            _order(round(v, decimals), round(mark, decimals)) == _order(v, mark, noise)
            for v in ends
            for mark in (0.0, margin, -margin)
        )
        if kept:
            return decimals, to.factor
    return first + MOST_DECIMALS, to.factor


def _decimals(value: float) -> int:
    """Decimals that a declared number is written with."""
    return next(
        (d for d in range(_SMALLEST) if math.isclose(round(value, d), value, rel_tol=1e-9)), _SMALLEST
    )


def _order(one: float, other: float, noise: float = 0.0) -> int:
    """Return 1 where one is the larger, −1 where it is the smaller, and 0 where they differ by no more than noise."""
    return (one > other + noise) - (one < other - noise)


def _number(value: float, decimals: int, factor: float, *, sign: bool = False) -> str:
    shown = f"{abs(value * factor):.{decimals}f}"
    zero = float(shown) == 0.0
    if value < 0 and not zero:
        return f"−{shown}"
    return f"+{shown}" if sign and not zero else shown


def _with_unit(number: str, item: Comparison | Effect, rules: Rules, *, named: bool = True) -> str:
    """named: a number without a unit says which metric it is of."""
    to = rules.scale(item.summary.mean if isinstance(item, Comparison) else None)
    return measured(number, to.unit or (f"in {rules.metric}" if named else ""))


def _way(rules: Rules) -> str:
    """Effects are oriented, which needs a word where less of the metric is better."""
    return " (positive is better)" if rules.direction == "minimize" else ""


def _effect(item: Comparison | Effect) -> float | None:
    return item.effect if isinstance(item, Comparison) else item.estimate


def _diverged(item: Comparison | Effect) -> str:
    if not isinstance(item, Comparison):
        return "runs of its cells diverged" if item.verdict == "unstable" else ""
    runs = item.summary.n + item.failed + item.diverged
    return f"{item.diverged} of {counted(runs, 'run')} diverged" if item.diverged else ""


_TOGETHER: dict[str, tuple[str, str]] = {
    **_COUNTED,
    "helps": ("is positive", "are positive"),
    "hurts": ("is negative", "are negative"),
}
"""How interactions are counted: none of them helps or hurts."""


def setting(factor: str, level: Any) -> str:
    """Return a factor at a level, in lower case: "width 128", "flip off", "no crop", "model cnn (depth 2, width 8)"."""
    if isinstance(level, Mapping):
        if "name" in level:
            fields = ", ".join(setting(field, value) for field, value in level.items() if field != "name")
            return f"{_name(factor)} {visible(str(level['name']))}" + (f" ({fields})" if fields else "")
        return joined([setting(path, value) for path, value in level.items()])
    if level is None:
        return f"no {_name(factor)}"
    if isinstance(level, bool):
        return f"{_name(factor)} {'on' if level else 'off'}"
    return f"{_name(factor)} {visible(format_level(level, ('on', 'off')))}"


def _name(factor: str) -> str:
    """Return what a dotted path is called: its last part, or the one before where that is `name`."""
    parts = factor.split(".")
    last = parts[-2] if parts[-1] == "name" and len(parts) > 1 else parts[-1]
    return visible(_ABBREVIATIONS.get(last, last.replace("_", " ")))


def capitalized(text: str) -> str:
    """Return text with its first letter as at the head of a sentence."""
    return text[:1].upper() + text[1:]


def _within(arm: str, rules: Rules) -> str:
    """What an arm is called within a sentence. A name that somebody gave keeps its capitals."""
    text = label(arm, rules)
    return text if text == visible(arm) or text[:2].isupper() else text[:1].lower() + text[1:]


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2g}"
