"""How the verdicts are made, in words: what an interval means, what it does not cover, how to reproduce it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from ablate.analysis import pairing, words
from ablate.analysis.contents import Caution
from ablate.report import wording
from ablate.report.reading import Reading
from ablate.study.record import JudgedRecord
from ablate.text import counted, joined, measured

_NOISE = """
    The noise of an arm is the spread of its own differences, never below half of the metric’s smallest step. With
    five arms or more it is averaged with what is typical in the study, which counts as up to four more degrees of
    freedom; an arm noisier than that keeps its own. The adjusted p is below 0.05 exactly when the interval excludes 0."""

_RUN_NOISE = """
    The noise of an arm is the spread of its own runs, never below what the metric’s smallest step says. With five
    groups or more, the baseline among them, it is averaged with their mean, which counts as up to four more degrees
    of freedom; a group noisier than that keeps its own. The adjusted p is below 0.05 exactly when the interval excludes 0."""


OF_CLASSES = ("val/f1_macro", "val/precision_macro", "val/recall_macro", "val/balanced_accuracy")
"""Metrics of the built-in training that are means over classes, not over images."""


def looks(reading: Reading) -> tuple[tuple[str, ...], ...]:
    """Return (number, seeds, α, whether it is within the most seeds, state) of every look."""
    if reading.rules.design == "search":
        return ()
    return tuple(
        (
            str(look.index),
            str(look.pairs),
            f"{look.alpha:.4g}",
            ("declared" if reading.rules.planned else "the first") if look.declared else "extra",
            "closed" if look.index <= reading.analysis.look else "to come",
        )
        for look in reading.rules.schedule()
    )


def methods(reading: Reading) -> tuple[tuple[str, str], ...]:
    """Return (heading, paragraph): how the verdicts are made."""
    if reading.rules.design == "search":
        return tuple(
            (heading, " ".join(paragraph.split()))
            for heading, paragraph in _searching(reading).items()
            if paragraph
        )
    k = reading.rules.k
    family = _family(reading)
    fixes = "which fixes the initial weights, the order of batches, augmentation and dropout"
    if own := reading.record.own_training:
        fixes = f"which {own} is handed; what it fixes is up to that code"
    pairs = f"""
        Replicate i of every arm trains under seed i, {fixes}. Arms are compared with their reference seed by seed; what counts is the mean of these differences,
        oriented so that higher is better. {reading.record.isolation}"""
    if (gain := pairing.gain([reading.analysis])) is not None:
        pairs += f" {words.capitalized(words.gained(gain))}."
    interval = f"""
        Each interval is made for the whole study. Its {family} share one error: over all of them and all looks, the
        probability that any interval misses its true effect is at most 5 %. It is a t interval of the paired differences at
        level 1 − α/k, with k = {k} and the α of the look that decided."""
    noise = _NOISE
    if not reading.rules.paired:
        pairs, interval, noise = _not_paired(k, family)
    looking = f"""
        The most seeds, {reading.rules.most}, were fixed before anything was judged; looks within them may be anywhere. Each spends
        its part of 4.5 %, in proportion to the growth of the square of the seeds since the one before; 0.5 % is kept for extra
        looks beyond them, each half of the one before. What is settled at a look keeps its verdict and its interval; only what
        is open goes on, with its reference."""
    margin = f"""
        {reading.margin_words} is the smallest difference worth having, fixed in the study before the first run. An
        interval wholly within ± the margin means no practical effect; otherwise one above 0 means that the arm helps, one
        below 0 that it hurts, clearly so where it lies wholly beyond the margin. Anything else is not known yet."""
    trouble = """
        A failed run counts as missing. A run whose loss is no longer finite has diverged: that is a result, and an arm
        with one is called unstable, unless the others already show that it hurts. Runs that are identical under different
        seeds, or identical to the reference’s, are no comparison; that is decided by weights and losses, never by the metric."""
    paragraphs = {
        "Pairs" if reading.rules.paired else "Runs": pairs,
        "The interval": interval,
        "Looks": looking,
        "The margin": margin,
        "Noise": noise,
        "Failures and divergence": trouble,
        "What the interval does not cover": " ".join(_limits(reading)),
    }
    if own:
        paragraphs["Your own training"] = f"""
            What {own} yields is all that is known of a run: metrics by epoch. Classes, confusion matrices and prediction changes are
            shown for the built-in training alone, whose predictions are kept. A run that is done is used again where its settings, its
            seed and its code are the same, and where the files and variables of the environment that it was seen to read hold what
            they held; {_NOT_IN_A_KEY} are not looked at, and a change of those is not seen."""
    if fused := _fused(reading):
        paragraphs["Runs trained together"] = fused
    return tuple((heading, " ".join(paragraph.split())) for heading, paragraph in paragraphs.items())


_NOT_IN_A_KEY = "installed packages, files that compiled code or other programs open, and the machine"


def _not_paired(k: int, family: str) -> tuple[str, str, str]:
    """Return what is compared, how its interval is made, and its noise, where runs are not paired. family: in words, of k."""
    return (
        """
        The study says `unpaired: true`: no two of its runs share anything, and the number of a seed only tells runs apart.
        What counts is the difference of an arm’s mean from its reference’s, oriented so that higher is better.""",
        f"""
        Each interval is made for the whole study. Its {family} share one error: over all of them and all looks, the
        probability that any interval misses its true effect is at most 5 %. The squares of the half-widths of the means, each
        of a t interval at level 1 − α/k with k = {k} and the α of the look that decided, add up to the square of that of
        their difference (Banerjee 1961). It keeps its level whatever the noise and the number of runs of each, and is wider
        than it need be where they are alike. Looks spend the error that they would spend if runs were paired.""",
        _RUN_NOISE,
    )


def of_judged(reading: Reading, judged: JudgedRecord) -> tuple[tuple[str, str], ...]:
    """Return (heading, paragraph): how the verdicts on results that were there already are made."""
    rules = reading.rules
    unit = rules.unit
    within = "paired by their seed" if judged.options.get("paired") else "not paired"
    what = {
        "seed": f"""
            Runs are paired by {judged.options.get("seed")}: an arm is compared with the baseline seed by seed, and what
            counts is the mean of these differences, oriented so that higher is better. Pairing gains what the two have in
            common under one seed; where a seed fixes nothing, it costs width and no more.""",
        "run": """
            No two runs share anything: what counts is the difference of an arm’s mean from the baseline’s, oriented so
            that higher is better. Each of the two has its own noise and its own number of runs. A seed, where the results
            have one, pairs nothing here; a run counter or the order of rows never does.""",
        "block": f"""
            Over blocks the unit is the block: the difference of the means within it, oriented so that higher is better.
            Runs of different blocks are never pooled. Within a block runs are {within}.""",
    }[unit]
    interval = {
        "seed": f"""
            It is a t interval of the paired differences at level 1 − α/k, with k = {rules.k}.""",
        "run": f"""
            Its half-width is √(t²(1 − α/2k, ν₁)·s₁²/n₁ + t²(1 − α/2k, ν₀)·s₀²/n₀), with k = {rules.k}, the arm first
            and the baseline second (Banerjee 1961). It keeps its level whatever the two variances and numbers of runs are,
            which Welch’s approximation does not.""",
        "block": f"""
            It is a t interval of the differences over blocks at level 1 − α/k, with k = {rules.k}; it needs five blocks.
            Within blocks the intervals are a family of their own, of arms × blocks.""",
    }[unit]
    paragraphs = {
        "Results": f"""
            These are results of {judged.source}, which nobody planned as a study here: {"the looks were declared, and " if rules.planned else ""}the arms, their
            number and the margin are those of the person who judged them. Errors are as small as they are said to be only if
            none of these was chosen by looking at the results.""",
        {"seed": "Pairs", "run": "Runs", "block": "Blocks"}[unit]: what,
        "The interval": f"""
            {f"Over all {rules.k} comparisons together, the probability that any interval misses its true effect" if rules.k > 1 else "The probability that the interval misses the true effect"} is
            at most {100 * rules.spent:.3g} %. {interval}""",
        "Looks": _judged_looks(reading, judged) if len(judged.sizes) > 1 or rules.planned else "",
        "The margin": f"""
            {reading.margin_words} is the smallest difference worth having. An interval wholly within ± the margin means no
            practical effect; otherwise one above 0 means that the arm helps, one below 0 that it hurts, clearly so where it
            lies wholly beyond the margin. Anything else is not known yet.""",
        "Noise": _judged_noise(reading),
        "Failures and divergence": """
            A run without a finite number counts as diverged or as missing, as the person who judged said. An arm with a
            divergence is called unstable, unless the others already show that it hurts. Repeats that agree to the last digit
            are copies of one run, and no comparison."""
        if reading.analysis.runs.diverged
        or any(c.verdict == "not independent" for c in reading.analysis.comparisons)
        else "",
        "What the interval does not cover": " ".join(_judged_limits(reading)),
    }
    return tuple((heading, " ".join(text.split())) for heading, text in paragraphs.items() if text.strip())


def _judged_looks(reading: Reading, judged: JudgedRecord) -> str:
    if reading.rules.planned:
        return """
            Results are read at numbers of seeds that were declared before the first run. Each look spends its part of the
            5 %, in proportion to the squares of its seeds; 0.5 % is kept for looks that were not declared."""
    return f"""
        The results have grown, and were judged {counted(len(judged.sizes), "time")} under this name. The first look spent
        5 %, and each further one half of what was left of another 0.5 %. What was settled at a look keeps its verdict and its interval."""


def _judged_noise(reading: Reading) -> str:
    if reading.rules.unit == "block":
        return "The noise of an arm is the spread of its own differences over the blocks; it borrows from no other arm."
    if reading.rules.unit == "run":
        return _RUN_NOISE
    return _NOISE


def _judged_limits(reading: Reading) -> Iterable[str]:
    rules, analysis = reading.rules, reading.analysis
    if rules.unit == "block":
        yield "It holds for blocks such as these: which blocks there are was chosen by somebody."
    else:
        yield "It holds for the data that the metric was measured on: for new data of the same kind it would be wider."
    if rules.judged_on == "test":
        yield words.caution(Caution("judged-on-test"), rules)
    yield "Whether arms were tuned with equal care, and whether runs are missing because they went badly, is not known."
    if analysis.optimism:
        yield (
            f"The best of {len(analysis.comparisons)} arms that were all equal would look better by about "
            f"{measured(wording.plain(reading.shown(analysis.optimism), reading.digits), reading.unit)}: its effect is partly selection."
        )
    if rules.resolution > 0 and not rules.relative:
        yield f"The metric moves in steps of {measured(wording.plain(reading.shown(rules.resolution), reading.digits + 1), reading.unit)}."


def for_paper(reading: Reading) -> str:
    """Return a paragraph for a paper that answers what the NeurIPS and ICML checklists ask of error bars; '' for a search.

    What varies between runs, what the bars are and how they are computed, n, the assumptions, and the compute where it is
    known (https://neurips.cc/public/guides/PaperChecklist, items 7 and 8).
    """
    rules, analysis = reading.rules, reading.analysis
    if rules.design == "search":
        return ""
    numbers = [item.n for item in reading.items] or [0]
    low, high = min(numbers), max(numbers)
    n = f"n = {high}" if low == high else f"n = {low} to {high}"
    compared = {
        "seed": f"the mean difference from the reference under the same seed ({n} seeds)",
        "run": f"the weighted sum of the means of all arms that is the effect ({n} runs of each)"
        if rules.factorial
        else f"the difference between the mean of an arm and that of the baseline ({n} runs of an arm, {analysis.baseline.n} of the baseline)",
        "block": f"the mean over {n} blocks of the difference from the baseline within the block",
    }[rules.unit]
    squares = "t²(1 − α/2k, ν₁)·s₁²/n₁ + t²(1 − α/2k, ν₀)·s₀²/n₀"
    if rules.factorial:
        squares = "Σ w²·t²(1 − α/2k, ν)·s²/n over all arms, w being the weight of each"
    borrowed = ", each variance being moderated by the typical one (Smyth 2004)"
    formula = {
        "seed": "mean ± t(1 − α/2k, ν)·s/√n with s the standard deviation of the paired differences",
        "run": f"the difference ± √({squares}) (Banerjee 1961)",
        "block": "mean ± t(1 − α/2k, n − 1)·s/√n with s the standard deviation over blocks",
    }[rules.unit] + (borrowed if analysis.moderated else "")
    if rules.relative:
        formula += (
            ", all as shares of the mean of the baseline, whose own error is included (Cochran 1977, 6.3)"
        )
    taken = rules.schedule()[: max(analysis.look, 1)]
    alphas = joined(f"{look.alpha:.4g}" for look in taken)
    spent = f"α = {alphas}" if len(taken) == 1 else f"α = {alphas} at the {len(taken)} looks"
    normal = {
        "seed": "paired differences are about normal",
        "run": "runs are about normal, with a variance of their own in each arm",
        "block": "differences over blocks are about normal",
    }[rules.unit]
    over = {"seed": "seeds", "run": "runs", "block": "blocks"}[rules.unit]
    family = "comparison" if not rules.factorial else "effect"
    before = ""
    if rules.read_before:
        plans = counted(rules.read_before, "other plan")
        before = f" Some of these runs had been judged by {plans}, for which no correction was made."
    return " ".join(
        f"""
        {_varies(reading)} Error bars of effects are simultaneous 95 % confidence intervals of {compared}, computed in closed
        form as {formula}, corrected for k = {counted(rules.k, family)} by Bonferroni; {spent}.{before} They assume that runs
        are independent and that {normal}. ± beside a mean is one standard deviation over {over} (n − 1 below the line), not
        a standard error. Effects are oriented so that positive is better; differences within {reading.margin_words} of 0 were
        taken to be of no practical importance. {_compute(reading)}
        """.split()
    )


def _varies(reading: Reading) -> str:
    judged = reading.record.judged
    if judged is not None:
        if judged.options.get("paired"):
            return f"Runs of an arm differ in their {judged.options.get('seed')}, and in whatever else was not fixed between them."
        return "Runs of an arm are repeats that share nothing; what varied between them was not recorded with the results."
    if not reading.rules.paired:
        return "Runs of an arm are repeats that share nothing: no seed was to make two of them alike."
    if own := reading.record.own_training:
        return f"Runs of an arm differ in the seed that {own} is handed, which is to fix every source of variation."
    base = reading.arms[reading.rules.reference].config
    data = base.get("data") if isinstance(base, Mapping) else None
    fixed = not isinstance(data, Mapping) or data.get("split", "fixed") == "fixed"
    split = (
        "; the split into training and validation data is the same in every run"
        if fixed
        else ", and the split into training and validation data"
    )
    return (
        "Runs of an arm differ in their seed, which fixes initial weights, order of batches, augmentation and "
        f"dropout{split}."
    )


def _compute(reading: Reading) -> str:
    frame = reading.replicates
    if "seconds" not in frame.columns or frame.empty:
        return "The compute is not recorded with the results." if reading.record.judged is not None else ""
    seconds = float(pd.to_numeric(frame["seconds"], errors="coerce").sum())
    if not seconds > 0:
        return ""
    devices = sorted({str(d).partition(":")[0] for d in frame.get("device", []) if isinstance(d, str) and d})
    on = f" on {joined(devices)}" if devices else ""
    each = wording.duration(seconds / len(frame))
    return f"Compute: {counted(len(frame), 'run')}, {wording.duration(seconds)} of device time in all{on}, {each} a run on average, trials of tuning included."


def _searching(reading: Reading) -> dict[str, str]:
    """Return how a search works, and what it does not say."""
    return {
        "Trials": """
            Every trial runs under the same seed, so that the luck of a seed decides nothing; a trial with values that were
            tried before takes the next. A trial that diverged or was pruned counts as worse than any that finished.""",
        "Candidates": """
            The best trials are re-evaluated under fresh seeds, because the best of many is also the luckiest, and ranked by
            the mean of those. Nothing is tested: no interval, no verdict.""",
        "Rankings": wording.RANKING,
        "Data": """
            All of it is read from the validation data. The test set is scored once per finished run and decides nothing; chosen by
            validation data, a candidate is likely to do a little worse there.""",
        "Runs trained together": _fused(reading),
    }


def _fused(reading: Reading) -> str:
    """Return which runs shared their batches with others of their seed, and what that means; '' where none did."""
    frame = reading.replicates
    if "fused" not in frame.columns:
        return ""
    shared = frame[frame["fused"].notna()]
    stacked = shared["fused"].astype(str).str.startswith("stacked")
    parts = []
    if len(shared[stacked]):
        runs = counted(len(shared[stacked]), "run")
        parts.append(f"""
            {runs} were trained as one with others of the same seed and shape, their networks stacked
            ({_arms_and_seeds(reading, shared[stacked])}); they compute the same as a run by itself, up to rounding, which
            training amplifies.""")
    if len(shared[~stacked]):
        runs = counted(len(shared[~stacked]), "run")
        parts.append(f"""
            {runs} were stepped in turn on batches that others of the same seed used too
            ({_arms_and_seeds(reading, shared[~stacked])}), to the bit as each would be by itself.""")
    if parts:
        parts.append("The seconds of such a run are its share of what the runs took together.")
    return " ".join(parts)


def _arms_and_seeds(reading: Reading, rows: pd.DataFrame) -> str:
    """`Baseline: seeds 0–4; Width 32: seeds 0 and 1`."""
    seeds: dict[str, list[int]] = {}
    for arm, seed in zip(rows["arm"], rows["seed"], strict=True):
        seeds.setdefault(str(arm), []).append(int(seed))
    return "; ".join(f"{reading.label(arm)}: {wording.seeds(numbers)}" for arm, numbers in seeds.items())


def _family(reading: Reading) -> str:
    """Return what shares the error of the study."""
    rules = reading.rules
    if rules.edges:
        return f"{rules.k} comparisons that a greedy path might have made (which of them it made depended on the results)"
    if rules.mixed:
        return f"{counted(len(rules.arms), 'arm')} and {counted(rules.k - len(rules.arms), 'interaction')}"
    return counted(rules.k, "effect" if rules.factorial else "arm")


def _limits(reading: Reading) -> Iterable[str]:
    rules, analysis = reading.rules, reading.analysis
    if any(c.ci_new_images for c in analysis.comparisons):
        yield "It holds for these validation images; the wider interval beside it is for new ones."
    elif not reading.record.own_training and rules.metric in OF_CLASSES:
        yield (
            f"It holds for these validation images. {rules.metric} is no mean over images, so there is none for new ones: it would"
            " be wider."
        )
    else:
        yield f"It holds for this {rules.judged_on} set: for new data of the same kind it would be wider."
    if rules.retunes:
        yield f"Tuned settings are at the values that {counted(rules.retunes, 'search', 'searches')} found; a search is noisy too."
    else:
        yield "Nothing was tuned per arm: an arm is compared at the baseline’s other settings."
    if rules.judged_on == "test":
        yield words.caution(Caution("judged-on-test"), rules)
    elif not reading.record.own_training:
        yield "Arms are chosen on validation data. The test set is scored once per finished run, is reported beside the verdicts, and decides nothing."
    if analysis.optimism:
        yield (
            f"The best of {len(analysis.comparisons)} arms that were all equal would look better by about "
            f"{measured(wording.plain(reading.shown(analysis.optimism), reading.digits), reading.unit)}: its effect is partly selection."
        )
    if analysis.detectable and math.isfinite(analysis.detectable):
        yield (
            "At the noise seen, a look at the most seeds finds an effect of about "
            f"{measured(wording.plain(reading.shown(analysis.detectable), reading.digits), reading.unit)} with a probability of 80 %."
        )
    if rules.resolution > 0:
        yield f"The metric moves in steps of {measured(wording.plain(reading.shown(rules.resolution), reading.digits + 1), reading.unit)}."


def reproduce(reading: Reading) -> tuple[str, ...]:
    """Return the commands that reproduce this study, as far as they are known."""
    environment = reading.material.environment
    steps = []
    for name in ("commit", "training_commit"):
        if commit := environment.get(name):
            at = f"git checkout {commit.removesuffix('-dirty')}"
            notes = ["in the folder of the training"] if name == "training_commit" else []
            notes += ["with changes that were not committed"] if commit.endswith("-dirty") else []
            steps.append(f"{at}  # {', '.join(notes)}" if notes else at)
    steps.append(environment.get("command") or f"ablate run {reading.record.study}.yaml")
    steps.append(f"ablate report {reading.record.study}")
    return tuple(steps)
