"""How the verdicts are made, in words: what an interval means, what it does not cover, how to reproduce it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from ablate.report import wording
from ablate.report.reading import Reading
from ablate.text import counted


def looks(reading: Reading) -> tuple[tuple[str, ...], ...]:
    """Return (number, seeds, α, whether it was declared, state) of every look."""
    if reading.rules.design == "search":
        return ()
    return tuple(
        (
            str(look.index),
            str(look.pairs),
            f"{look.alpha:.4g}",
            "declared" if look.declared else "undeclared",
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
        oriented so that higher is better."""
    interval = f"""
        Each interval is made for the whole study. Its {family} share one error: over all of them and all looks, the
        probability that any interval misses its true effect is at most 5 %. It is a t interval of the paired differences at
        level 1 − α/k, with k = {k} and the α of the look that decided."""
    looking = """
        Results are read only at numbers of seeds fixed beforehand. Each look spends its part of the 5 %, in proportion to
        the squares of its seeds; 0.5 % is kept for looks that were not planned. What is settled at a look keeps its verdict
        and its interval; only what is open goes on, with its reference."""
    if before := reading.record.read_before:
        looking += f"""
        Runs of this plan were judged by {counted(before, "other plan", "other plans")} of the study as well: each plan’s
        5 % holds for that plan alone, and reading the same runs more than once is not corrected for."""
    margin = f"""
        {reading.margin_words} is the smallest difference worth having, fixed in the study before the first run. An
        interval wholly within ± the margin means no practical effect; otherwise one above 0 means that the arm helps, one
        below 0 that it hurts, clearly so where it lies wholly beyond the margin. Anything else is not known yet."""
    noise = """
        The noise of an arm is the spread of its own differences, never below half of the metric’s smallest step. With
        five arms or more it is averaged with what is typical in the study, which counts as up to four more degrees of
        freedom; an arm noisier than that keeps its own. The adjusted p is below 0.05 exactly when the interval excludes 0."""
    trouble = """
        A failed run counts as missing. A run whose loss is no longer finite has diverged: that is a result, and an arm
        with one is called unstable, unless the others already show that it hurts. Runs that are identical under different
        seeds, or identical to the reference’s, are no comparison; that is decided by weights and losses, never by the metric."""
    paragraphs = {
        "Pairs": pairs,
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
            shown for the built-in training alone, whose predictions are kept."""
    if fused := _fused(reading):
        paragraphs["Runs trained together"] = fused
    return tuple((heading, " ".join(paragraph.split())) for heading, paragraph in paragraphs.items())


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
    unit = f" {reading.unit}" if reading.unit else ""
    if any(c.ci_new_images for c in analysis.comparisons):
        yield "It holds for these validation images; the wider interval beside it is for new ones."
    else:
        yield "It holds for this validation set: for new data of the same kind it would be wider."
    if rules.retunes:
        yield f"Tuned settings are at the values that {counted(rules.retunes, 'search', 'searches')} found; a search is noisy too."
    else:
        yield "Nothing was tuned per arm: an arm is compared at the baseline’s other settings."
    if not reading.record.own_training:
        yield "Arms are chosen on validation data. The test set is scored once per finished run, is reported beside the verdicts, and decides nothing."
    if analysis.optimism:
        yield (
            f"The best of {len(analysis.comparisons)} arms that were all equal would look better by about "
            f"{wording.plain(reading.shown(analysis.optimism), reading.digits)}{unit}: its effect is partly selection."
        )
    if analysis.detectable and math.isfinite(analysis.detectable):
        yield (
            "At the noise seen, the last declared look finds an effect of about "
            f"{wording.plain(reading.shown(analysis.detectable), reading.digits)}{unit} with a probability of 80 %."
        )
    if rules.resolution > 0:
        yield f"The metric moves in steps of {wording.plain(reading.shown(rules.resolution), reading.digits + 1)}{unit}."


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
