"""What a plan will cost and what it can see, before its first run: from the record where it knows, else by measuring."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ablate.analysis import judge, power
from ablate.analysis import plan as recorded_plan
from ablate.analysis.effects import spread
from ablate.analysis.intervals import ENOUGH_PAIRS
from ablate.analysis.power import Reach
from ablate.analysis.words import term_code
from ablate.events import Event
from ablate.executors import Executor, Slot
from ablate.measuring.probe import ProbePayload
from ablate.scheduling.dispatch import Job, run_jobs
from ablate.study.design import Plan
from ablate.study.forecast import Forecast, RunCost, forecast
from ablate.study.seeds import REPLICATES
from ablate.tracking.frames import plan_frames
from ablate.tracking.runs import metric_values, run_costs
from ablate.tracking.store import Store
from ablate.training import trainer_of

DISAGREEMENT = 0.05
"""Share of validation images on which two trainings of one network are taken to disagree while nothing is known."""


@dataclass(frozen=True)
class Noise:
    """sd: of a paired difference, in the metric's units; None where there is nothing to go by. source: in words.

    known_from: `this study`, `the same baseline`, an `assumption`, or nothing. typical: a value of the metric, where one is known.
    """

    sd: float | None
    known_from: Literal["this study", "the same baseline", "assumption", ""]
    source: str
    typical: float | None = None


@dataclass(frozen=True)
class Outlook:
    """reaches: what each declared look can see; without an interval, or where the noise is unknown, its effect is NaN.

    in_sds: the detectable effect of each look in SDs of a paired difference, infinite below 3 pairs. family: how many
    intervals share the error.
    """

    plan: Plan
    cost: Forecast
    slots: int
    noise: Noise
    reaches: tuple[Reach, ...]
    in_sds: tuple[float, ...]
    family: int


def outlook(plan: Plan, store: Store, measuring: Executor) -> Outlook:
    """measuring: an executor that runs `ablate.measuring.probe.measure`, on the slots that the study will have."""
    known, starting = costs(plan, store, measuring)
    noise = expected_noise(plan, store)
    rules = recorded_plan.rules(plan.record())
    looks = rules.schedule()
    sd = math.nan if noise.sd is None else noise.sd
    reaches = tuple(
        power.reach(rules.k, look.pairs, look.alpha, noise=sd, margin=plan.study.margin) for look in looks
    )
    in_sds = tuple(power.detectable(rules.k, look.pairs, look.alpha) for look in looks)
    slots = len(measuring.slots)
    return Outlook(plan, forecast(plan, known, slots, starting), slots, noise, reaches, in_sds, rules.k)


def costs(plan: Plan, store: Store, measuring: Executor) -> tuple[dict[str, RunCost], float | None]:
    """What a run of each arm costs, and the seconds until the workers of all slots were ready (None: none was needed).

    As the store remembers runs of the same key, on this machine and this kind of device; else as a little training shows,
    on all slots at once, because in the study too they share the machine.
    """
    device = measuring.slots[0].device.partition(":")[0]
    found: dict[str, RunCost] = {}
    for arm in plan.arms:
        keys = [plan.run(arm.name, i).key for i in range(plan.study.looks[-1])]
        before = [
            run for run in run_costs(store, keys) if run.device == device and run.host == platform.node()
        ]
        if before:
            middle = statistics.median(run.seconds for run in before)
            found[arm.name] = RunCost(middle, before[0].parameters, before[0].flops)
        elif trainer_of(arm.config).same_cost(arm.config) is None:
            found[arm.name] = RunCost()
    # Rates and schedules cost nothing: arms that differ in them alone are measured once.
    wanted: dict[str, ProbePayload] = {}
    alike: dict[str, str] = {}
    for arm in plan.arms:
        same = trainer_of(arm.config).same_cost(arm.config)
        if arm.name in found or same is None:
            continue
        data = plan.data[arm.name]
        alike[arm.name] = same
        images = (data.train, data.validation, data.test)
        wanted[same] = ProbePayload(arm.config.tree(), images, len(data.classes))
    if not wanted:
        return found, None
    measured, starting = _measure(wanted, measuring)
    return found | {arm: measured[name] for arm, name in alike.items()}, starting


def _measure(payloads: Mapping[str, ProbePayload], measuring: Executor) -> tuple[dict[str, RunCost], float]:
    """Run each probe on every slot at the same time, one probe after another → the median over slots, by probe.

    Also returns the seconds until the workers of all slots were ready.
    """
    began = time.monotonic()
    ready: set[str] = set()
    starting = 0.0

    def told(event: Event) -> None:
        nonlocal starting
        ready.add(event.run)
        if not starting and len(ready) == len(measuring.slots):
            starting = time.monotonic() - began

    costs: dict[str, RunCost] = {}
    with measuring:
        for name, payload in payloads.items():

            def on(slot: Slot, payload: ProbePayload = payload) -> ProbePayload:
                return replace(payload, device=slot.device)

            # As many as there are slots, so that each slot takes one.
            results = run_jobs(measuring, [Job(str(i), on) for i in range(len(measuring.slots))], told)
            seconds = statistics.median(result.metrics["seconds"] for result in results.values())
            facts = results["0"].facts
            costs[name] = RunCost(seconds, facts["parameters"], facts["flops"])
    return costs, starting


def expected_noise(plan: Plan, store: Store) -> Noise:
    """SD of a paired difference (of an effect, in factorial designs) to be expected, and where that figure comes from.

    The reference's own runs are known by their keys: other settings, other data or other code are other runs.
    """
    import numpy as np

    record = plan.record()
    rules = recorded_plan.rules(record)
    share = spread(rules)
    replicates, _ = plan_frames(store, record)
    if len(replicates):
        seen = judge(rules, replicates)
        if seen.noise is not None:
            said = "from this study's own runs so far"
            return Noise(seen.noise, "this study", said, seen.baseline.mean)
    keys = (
        plan.run(plan.reference, i, phase).key
        for phase in ("report", "A/A", "confirm")
        for i in range(REPLICATES)
    )
    values = metric_values(store, keys, plan.study.metric)
    sd = power.assumed_noise(np.asarray(values)) if len(values) >= ENOUGH_PAIRS else None
    if sd:
        return Noise(
            sd * share,
            "the same baseline",
            f"from {len(values)} earlier runs of the same baseline, as if pairing gained nothing",
            float(np.mean(values)),
        )
    images = plan.data[plan.reference].validation
    if plan.study.metric == "val/accuracy" and images:
        return Noise(
            math.sqrt(DISAGREEMENT / images) * share,
            "assumption",
            f"assumed: two trainings disagree on {100 * DISAGREEMENT:g} % of the {images:,} validation images",
        )
    return Noise(None, "", "unknown: no earlier runs of this baseline")


def to_json(found: Outlook) -> dict[str, Any]:
    """The outlook as plain values: times in seconds, effects in the metric's units; None for what is not known."""
    study, cost = found.plan.study, found.cost
    return {
        "study": study.name,
        "plan": found.plan.id,
        "metric": study.metric,
        "margin": study.margin,
        "resolution": found.plan.resolution,
        "slots": found.slots,
        "family": found.family,
        "fraction": _fraction(found.plan),
        "arms": [
            {
                "arm": arm.arm,
                "parameters": arm.parameters,
                "flops": arm.flops,
                "seconds": arm.seconds,
                "runs": {"first": arm.first, "most": arm.most},
            }
            for arm in cost.arms
        ],
        "runs": {"first": cost.runs_first, "most": cost.runs_most},
        "seconds": {"first": cost.first, "most": cost.most},
        "noise": {"sd": found.noise.sd, "from": found.noise.known_from or None, "source": found.noise.source},
        "looks": [
            {
                "pairs": reach.pairs,
                "alpha": reach.alpha,
                "detectable": _finite(reach.effect),
                "detectable_sds": _finite(in_sds),
                "margin_in_reach": reach.within if math.isfinite(reach.effect) else None,
            }
            for reach, in_sds in zip(found.reaches, found.in_sds, strict=True)
        ],
    }


def _fraction(plan: Plan) -> dict[str, Any] | None:
    """What a fractional design runs, and which effects it cannot tell apart."""
    fraction = plan.study.fraction
    if fraction is None:
        return None
    return {
        "cells": fraction.cells,
        "resolution": fraction.resolution,
        "generators": {factor: list(of) for factor, of in fraction.generators.items()},
        "effects": [
            {
                "terms": [term_code(term) for term in c.terms],
                "aliases": [[term_code(term) for term in alias] for alias in c.aliases],
            }
            for c in recorded_plan.rules(plan.record()).contrasts
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
