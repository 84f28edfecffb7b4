"""Verdicts as JSON: the contract that scripts rely on. Every name and every value stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ablate.analysis import words
from ablate.analysis.contents import (
    Analysis,
    ArmSummary,
    Beyond,
    BlockedAnalysis,
    Comparison,
    Effect,
    PairingGain,
)
from ablate.analysis.pairing import gain
from ablate.analysis.power import MoreSeeds


def to_json(analysis: Analysis, study: str = "") -> dict[str, Any]:
    """Return the contract of `ablate report --format json`: plain Python types, no NaN.

    `effect`, `ci` and `estimate` are oriented; `ci` is null below 3 pairs; the reference stands only in `baseline`.
    """
    rules = analysis.rules
    pairing = {"paired": rules.paired, "n_baseline": analysis.baseline.n}
    not_planned = {} if rules.planned else {"relative": rules.relative}
    return {
        "study": study,
        "metric": rules.metric,
        "direction": rules.direction,
        "judged_on": rules.judged_on,
        "margin": _plain(rules.margin),
        "alpha": _plain(analysis.alpha),
        "look": analysis.look,
        "provisional": analysis.provisional,
        "declared": analysis.declared,
        "design": rules.design,
        "k": rules.k,
        **pairing,
        **not_planned,
        "baseline": _summary_json(analysis.baseline),
        "arms": [_comparison_json(c) for c in analysis.comparisons],
        "effects": [_effect_json(e) for e in analysis.effects],
        "cells": [_summary_json(c) for c in analysis.cells],
        "path": list(rules.path),
        "aa": None if analysis.aa is None else _comparison_json(analysis.aa),
        "confirmation": None if analysis.confirmation is None else _comparison_json(analysis.confirmation),
        "runs": {
            name: int(getattr(analysis.runs, name))
            for name in ("planned", "finished", "failed", "diverged", "missing")
        },
        "warnings": [words.caution(caution, rules) for caution in analysis.warnings],
        "error": None if analysis.error is None else words.caution(analysis.error, rules),
        "noise": _plain(analysis.noise),
        "detectable": _plain(analysis.detectable),
        "pairing": _gain_json(gain([analysis])),
        "most": rules.most,
        "beyond": _beyond_json(analysis.beyond),
    }


def blocks_to_json(blocked: BlockedAnalysis, study: str = "") -> dict[str, Any]:
    """Return the contract for blocks: that of `to_json` over them, and `blocks`, with the arms of each.

    `paired` and `n_baseline` are those of the runs within blocks, all blocks together.
    """
    analyses = [analysis for _, analysis in blocked.within]
    return {
        **to_json(blocked.over, study),
        "paired": all(analysis.rules.paired for analysis in analyses),
        "n_baseline": sum(analysis.baseline.n for analysis in analyses),
        "pairing": _gain_json(gain(analyses)),
        "blocks": [
            {
                "block": block,
                "baseline": _summary_json(analysis.baseline),
                "arms": [_comparison_json(c) for c in analysis.comparisons],
                "warnings": [words.caution(caution, analysis.rules) for caution in analysis.warnings],
            }
            for block, analysis in blocked.within
        ],
    }


def _comparison_json(c: Comparison) -> dict[str, Any]:
    return {
        "arm": c.arm,
        "factor": c.factor,
        "level": _plain(c.level),
        "reference": c.reference,
        "verdict": c.verdict,
        "clearly": c.clearly,
        "real": c.real,
        "n": c.n,
        **({} if c.n_reference is None else {"n_baseline": c.n_reference}),
        "mean": _plain(c.summary.mean),
        "sd": _plain(c.summary.sd),
        "effect": _plain(c.effect),
        "ci": _interval_json(c.lo, c.hi),
        "p_adjusted": _plain(c.p_adjusted),
        "ruled_out": c.ruled_out,
        "ci_new_images": None if c.ci_new_images is None else _interval_json(*c.ci_new_images),
        "cost_ratio": _plain(c.cost_ratio),
        "cost_is_time": c.cost_is_time,
        "seconds_ratio": _plain(c.seconds_ratio),
        "parameter_ratio": _plain(c.parameter_ratio),
        "fit": [d.code for d in c.fit],
        "failed": c.failed,
        "diverged": c.diverged,
        "missing": c.missing,
        "more_seeds": _more_seeds_json(c.more_seeds),
        "test_effect": _plain(c.test_effect),
        "look": c.look,
        "alpha": _plain(c.alpha),
        "provisional": c.provisional,
        "withheld": c.withheld,
        "pairing": None
        if c.pairing is None
        else {"correlation": _plain(c.pairing.correlation), "unpaired_seeds": c.pairing.unpaired_seeds},
    }


def _effect_json(e: Effect) -> dict[str, Any]:
    return {
        "terms": [words.term_code(term) for term in e.terms],
        "estimate": _plain(e.estimate),
        "ci": _interval_json(e.lo, e.hi),
        "p_adjusted": _plain(e.p_adjusted),
        "verdict": e.verdict,
        "clearly": e.clearly,
        "real": e.real,
        "n": e.n,
        "ruled_out": e.ruled_out,
        "more_seeds": _more_seeds_json(e.more_seeds),
        "aliases": [[words.term_code(term) for term in alias] for alias in e.aliases],
        "alone": None if e.apart is None else _plain(e.apart[0]),
        "given_the_rest": None if e.apart is None else _plain(e.apart[1]),
        "look": e.look,
        "alpha": _plain(e.alpha),
        "provisional": e.provisional,
        "withheld": e.withheld,
    }


def _summary_json(s: ArmSummary) -> dict[str, Any]:
    numbers = ("mean", "sd", "low", "high", "test", "seconds", "flops", "parameters", "epochs")
    return {
        "arm": s.arm,
        "n": s.n,
        **{name: _plain(getattr(s, name)) for name in numbers},
        "failed": s.failed,
        "diverged": s.diverged,
        "missing": s.missing,
        "fit": [d.code for d in s.fit],
    }


def _gain_json(found: PairingGain | None) -> dict[str, Any] | None:
    return None if found is None else {name: _plain(value) for name, value in vars(found).items()}


def _beyond_json(price: Beyond | None) -> dict[str, Any] | None:
    return None if price is None else {**vars(price), "recommended": price.recommended}


def _more_seeds_json(price: MoreSeeds | None) -> dict[str, Any] | None:
    if price is None:
        return None
    names = (
        *("n50", "n80", "n_any", "seconds50", "seconds80", "seconds_any"),
        *("most", "chance", "seconds_most", "fresh"),
    )
    return {name: _plain(getattr(price, name)) for name in names}


def _interval_json(lo: float | None, hi: float | None) -> list[Any] | None:
    return None if lo is None or hi is None else [_plain(lo), _plain(hi)]


def _plain(value: Any) -> Any:
    """Numpy scalars, tuples and mappings as plain Python; what JSON cannot say (NaN, infinity) as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
