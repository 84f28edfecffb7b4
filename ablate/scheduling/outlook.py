"""What a plan will cost and which effects it can detect, before its first run: from earlier runs, or else by measuring."""

from __future__ import annotations

import itertools
import math
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
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
from ablate.scheduling.seed_check import SeedCheck
from ablate.study.design import Plan
from ablate.study.forecast import Forecast, RunCost, forecast
from ablate.study.seeds import REPLICATES
from ablate.tracking.frames import plan_frames
from ablate.tracking.plans import stored_plans, study_names
from ablate.tracking.runs import finished_runs, metric_values, run_costs
from ablate.tracking.store import Store
from ablate.training import trainer_of

DISAGREEMENTS = (0.05, 0.25)
"""Share of validation images on which two trainings of one network are taken to disagree while nothing is known: from networks that
are nearly always right to those that are right on two thirds of the images (docs/plan.md).
"""


@dataclass(frozen=True)
class Noise:
    """sd: of a paired difference, in the metric's units; None where nothing is known. source: where it comes from, in words.

    known_from: `this study`, `the same baseline`, an `assumption`, or nothing. typical: a value of the metric, where one is known.
    most: where it is an assumption, what it may be as well; sd is the least then.
    """

    sd: float | None
    known_from: Literal["this study", "the same baseline", "assumption", ""]
    source: str
    typical: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Outlook:
    """reaches: what each declared look can detect; without an interval, or where the noise is unknown, its effect is NaN.

    done: how many of its runs, to the last look, are in the store; None where they are still to be searched
    for, or tuned. in_sds: the detectable effect of each look in standard deviations of a paired difference, infinite below 3 pairs. family: how many
    intervals share the error. seed: what it does to the user's own training; None where that is known, or does not matter.
    """

    plan: Plan
    cost: Forecast
    done: int | None
    slots: int
    noise: Noise
    reaches: tuple[Reach, ...]
    in_sds: tuple[float, ...]
    family: int
    seed: SeedCheck | None = None


def outlook(
    plan: Plan,
    store: Store,
    measuring: Executor,
    seed: SeedCheck | None = None,
    seeds: int | None = None,
) -> Outlook:
    """Return the outlook of a plan, after the looks that were taken of it. measuring: an executor that runs
    `ablate.measuring.probe.measure`, on the slots that the study will have. seeds: where to look, instead of where the file says.
    """
    plan = _after_looks_taken(plan, store, seeds)
    known, starting = run_cost_of_arms(plan, store, measuring)
    noise = expected_noise(plan, store)
    record = plan.record()
    rules = recorded_plan.rules(record)
    looks = rules.schedule()
    sd = math.nan if noise.sd is None else noise.sd
    in_sds = tuple(power.detectable_by(rules, look) for look in looks)
    reaches = tuple(
        Reach(in_sd * sd, in_sd * sd <= plan.study.margin, sd, look.pairs, look.alpha)
        for look, in_sd in zip(looks, in_sds, strict=True)
    )
    slots = len(measuring.slots)
    cost = forecast(plan, known, slots, starting)
    done = len(finished_runs(store, {run.key for run in record.runs})) if plan.settled else None
    return Outlook(plan, cost, done, slots, noise, reaches, in_sds, rules.k, seed)


def _after_looks_taken(plan: Plan, store: Store, seeds: int | None) -> Plan:
    """Return a plan with the looks that the store's record of it says were taken before those that are asked for."""
    name = plan.study.name
    stored = stored_plans(store, name) if name in study_names(store) else []
    taken = [each.record.looks for each in stored if each.record.id in (plan.id, plan.earlier_id)]
    if not taken or not taken[-1].taken:
        return plan
    looks = taken[-1]
    return replace(plan, looks=looks.resumed(plan.study.looks) if seeds is None else looks.until(seeds))


def run_cost_of_arms(
    plan: Plan, store: Store, measuring: Executor
) -> tuple[dict[str, RunCost], float | None]:
    """Return what a run of each arm costs, and the seconds until the workers of all slots were ready (None: none was needed).

    From runs of the same key in the store, of this machine and this kind of device; else from a little training, on all slots
    at once, because in the study too they share the machine.
    """
    device = measuring.slots[0].device.partition(":")[0]
    costs: dict[str, RunCost] = {}
    keys = {arm.name: [plan.run(arm.name, i).key for i in range(plan.looks.at[-1])] for arm in plan.arms}
    recorded = {
        key: run
        for key, run in run_costs(store, itertools.chain(*keys.values())).items()
        if run.device == device and run.host == platform.node()
    }
    for arm in plan.arms:
        earlier = [recorded[key] for key in keys[arm.name] if key in recorded]
        if earlier:
            seconds = statistics.median(run.seconds for run in earlier)
            costs[arm.name] = RunCost(seconds, earlier[0].parameters, earlier[0].flops)
        elif trainer_of(arm.config).same_cost(arm.config) is None:
            costs[arm.name] = RunCost()
    # Rates and schedules cost nothing: arms that differ in them alone are measured once.
    payloads: dict[str, ProbePayload] = {}
    payload_of: dict[str, str] = {}
    for arm in plan.arms:
        same = trainer_of(arm.config).same_cost(arm.config)
        if arm.name in costs or same is None:
            continue
        data = plan.data[arm.name]
        payload_of[arm.name] = same
        images = (data.train, data.validation, data.test)
        payloads[same] = ProbePayload(arm.config.tree(), images, len(data.classes))
    if not payloads:
        return costs, None
    measured, starting = _measure(payloads, measuring)
    return costs | {arm: measured[name] for arm, name in payload_of.items()}, starting


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
    """Return the standard deviation to be expected of a paired difference (of an effect, in factorial designs), with its source.

    The reference's own runs are found by their keys: other settings, other data or other code are other runs.
    """
    import numpy as np

    record = plan.record()
    rules = recorded_plan.rules(record)
    share = spread(rules)
    replicates, _ = plan_frames(store, record)
    if len(replicates):
        analysis = judge(rules, replicates)
        if analysis.noise is not None:
            source = "from this study's own runs so far"
            return Noise(analysis.noise, "this study", source, analysis.baseline.mean)
    keys = (
        plan.run(plan.reference, i, phase).key
        for phase in ("report", "A/A", "confirm")
        for i in range(-plan.study.first_seed, REPLICATES - plan.study.first_seed)
    )
    values = metric_values(store, keys, plan.study.metric)
    sd = power.assumed_noise(np.asarray(values)) if len(values) >= ENOUGH_PAIRS else None
    if sd:
        return Noise(
            sd * share,
            "the same baseline",
            f"from {len(values)} earlier runs of the same baseline{'' if plan.study.unpaired else ', as if pairing gained nothing'}",
            float(np.mean(values)),
        )
    images = plan.data[plan.reference].validation
    if plan.study.metric == "val/accuracy" and images:
        least, most = (math.sqrt(disagreement / images) * share for disagreement in DISAGREEMENTS)
        low, high = (f"{100 * disagreement:g}" for disagreement in DISAGREEMENTS)
        return Noise(
            least,
            "assumption",
            f"assumed: two trainings disagree on {low} to {high} % of the {images:,} validation images",
            most=most,
        )
    return Noise(None, "", "unknown: no earlier runs of this baseline")


def to_json(outlook: Outlook) -> dict[str, Any]:
    """Return an outlook as plain values: times in seconds, effects in the metric's units; None for what is not known."""
    study, cost = outlook.plan.study, outlook.cost
    return {
        "study": study.name,
        "plan": outlook.plan.id,
        "metric": study.metric,
        "margin": study.margin,
        "resolution": outlook.plan.resolution,
        "data_notes": list(outlook.plan.data_notes),
        "slots": outlook.slots,
        "family": outlook.family,
        "fraction": _fraction(outlook.plan),
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
        "runs": {"first": cost.runs_first, "most": cost.runs_most, "done": outlook.done},
        "seconds": {"first": cost.first, "most": cost.most},
        "seed": None if outlook.seed is None else asdict(outlook.seed),
        "noise": {
            "sd": outlook.noise.sd,
            "sd_most": outlook.noise.most,
            "from": outlook.noise.known_from or None,
            "source": outlook.noise.source,
        },
        "looks": [
            {
                "pairs": reach.pairs,
                "taken": number < outlook.plan.looks.taken,
                "extra": reach.pairs > outlook.plan.looks.most,
                "alpha": reach.alpha,
                "detectable": _finite(reach.effect),
                "detectable_sds": _finite(in_sds),
                "margin_in_reach": reach.within if math.isfinite(reach.effect) else None,
            }
            for number, (reach, in_sds) in enumerate(zip(outlook.reaches, outlook.in_sds, strict=True))
        ],
    }


def _fraction(plan: Plan) -> dict[str, Any] | None:
    """Return what a fractional design runs, and which effects it cannot tell apart."""
    fraction = plan.study.fraction
    if fraction is None:
        return None
    return {
        "cells": fraction.cells,
        "resolution": fraction.resolution,
        "generators": {factor: list(generator) for factor, generator in fraction.generators.items()},
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
