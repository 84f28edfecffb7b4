"""Studies that never ran, with everything a report has to cope with: made by a formula, judged for real."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pandas as pd

import ablate
from ablate.analysis import judge
from ablate.analysis.plan import rules
from ablate.analysis.rates import RateRules, RateTrial, first_rates, next_rates
from ablate.analysis.rates import rate_sweep as rate_sweep_of
from ablate.data.facts import DataFacts
from ablate.report.contents import Tracking
from ablate.report.summary import Material
from ablate.study import design, spec
from ablate.study.looks import LookPlan
from ablate.study.record import ArmRecord, CandidateRecord, PlanRecord, RunRecord, TunedArm
from ablate.study.seeds import REEVALUATED_FROM

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

TEXT = """\
study: width-and-friends
question: Do wider networks help, and what else does?
metric: val/accuracy
margin: 0.005
baseline:
  data: {name: cifar10, validation: 0.1}
  model: {name: cnn, depth: 3, width: 64, dropout: 0.25}
  optimizer: {name: sgd, lr: 0.05}
  training: {epochs: 20, batch_size: 256}
factors:
  model.width: [16, 32, 128, 256]
  model.dropout: [0.0, 0.5]
  optimizer.lr: [1.0]
  augment: [null]
seeds: {initial: 5, max: 10}
"""

# arm → final accuracy, its noise, compute, parameters, how much it over-fits
SHAPES = {
    "baseline": (0.842, 0.0018, 1.0, 0.42e6, 0.05),
    "model.width=16": (0.782, 0.0024, 0.09, 0.03e6, 0.0),
    "model.width=32": (0.8255, 0.0018, 0.27, 0.11e6, 0.02),
    "model.width=128": (0.8575, 0.0016, 3.9, 1.66e6, 0.12),
    "model.width=256": (0.8585, 0.0042, 15.4, 6.6e6, 0.35),
    "model.dropout=0.0": (0.8375, 0.0028, 1.0, 0.42e6, 0.5),
    "model.dropout=0.5": (0.8422, 0.0012, 1.0, 0.42e6, 0.0),
    "optimizer.lr=1.0": (0.55, 0.03, 1.0, 0.42e6, 0.0),
    "augment=null": (0.814, 0.002, 0.98, 0.42e6, 0.6),
}
LEVELS = {
    "model.width=16": ("model.width", 16),
    "model.width=32": ("model.width", 32),
    "model.width=128": ("model.width", 128),
    "model.width=256": ("model.width", 256),
    "model.dropout=0.0": ("model.dropout", 0.0),
    "model.dropout=0.5": ("model.dropout", 0.5),
    "optimizer.lr=1.0": ("optimizer.lr", 1.0),
    "augment=null": ("augment", None),
}
BASE = {"model.width": 64, "model.dropout": 0.25, "optimizer.lr": 0.05, "augment": {"flip": True, "crop": 4}}


def record(
    arms,
    levels,
    *,
    base=BASE,
    design="one-at-a-time",
    metric="val/accuracy",
    margin=0.005,
    looks=(5, 10),
    classes=CLASSES,
    **more,
):
    """A recorded plan, as `Plan.record()` makes it. levels: arm → (factor, level)."""
    reference, *others = arms

    def entry(name):
        factor, level = levels.get(name, (None, None))
        here = (
            dict(level) if isinstance(level, dict) and factor is None else {factor: level} if factor else {}
        )
        return {
            "reference": None,
            "name": name,
            "factor": factor,
            "level": level,
            "levels": base | here,
            "config": {
                "data": {"name": "cifar10", "subset": None},
                "model": {"name": "cnn", "depth": 3, "width": 64, "dropout": 0.25, "batch_norm": True},
                "optimizer": {"name": "sgd", "lr": 0.05},
                "training": {"epochs": 20, "batch_size": 256},
            },
            "data": DataFacts("f00d", 45_000, 5_000, 10_000, (3, 32, 32), tuple(classes)),
            "code": "c0de",
        }

    resolution, text = more.pop("resolution", 1 / 5_000), more.pop("text", TEXT)
    factors = {}
    for name in others:
        factor, level = levels[name]
        if factor is not None:
            factors.setdefault(factor, []).append({factor: level})
    declared = {
        "study": "width-and-friends",
        "question": "Do wider networks help, and what else does?",
        "metric": metric,
        "direction": "maximize",
        "margin": margin,
        "resolution": None,
        "design": design,
        "seeds": list(looks),
        "noise_floor": False,
        "confirm": False,
        "deterministic": False,
        "train": None,
        "baseline": {},
        "factors": [{"name": f, "levels": rows} for f, rows in factors.items()],
    } | more
    return PlanRecord(
        id="5f0c93d7a1b2",
        declared=declared,
        text=text,
        resolution=resolution,
        reference=reference,
        arms=tuple(ArmRecord(**entry(name)) for name in arms),
        runs=tuple(
            RunRecord(name, seed, "report", f"{name}-{seed}") for seed in range(looks[-1]) for name in arms
        ),
        looks=LookPlan(looks[-1], tuple(looks)),
    )


def replicate(arm, seed, value, *, outcome="finished", phase="report", **more):
    name = hashlib.sha256(f"{arm}{seed}{phase}".encode()).hexdigest()
    return {
        "arm": arm,
        "seed": seed,
        "phase": phase,
        "outcome": outcome,
        "value": value if outcome == "finished" else math.nan,
        "test": value - 0.004 if outcome == "finished" else math.nan,
        "weights": name[:16],
        "trace": name[16:32],
        "seconds": 61.0,
        "flops": 1e12,
        "parameters": 1e5,
        "epochs": 20,
        "run_id": name[:32],
        "device": "cuda:0",
        "torch": "2.11.0",
        "fused": None,
        "reason": None,
        "source_run": None,
    } | more


SEARCH = """\
study: look
question: Which rate and width look best?
margin: 0.005
baseline:
  data: {name: digits}
  model: {name: cnn, depth: 2, width: 16}
factors: {optimizer.lr: {log: [1e-5, 1]}, model.width: {int: [4, 64]}}
design: search
search: {trials: 12, cost: parameters}
"""


def searched():
    """A search for accuracy and few parameters that is over: 12 trials, one of them diverged, and three candidates."""
    plan = design.plan(spec.parse(SEARCH), lambda _: DataFacts("digits", 900, 300, 100))
    rng = np.random.default_rng(0)
    tried = [
        {"optimizer.lr": float(10 ** rng.uniform(-5, 0)), "model.width": int(rng.integers(4, 64))}
        for _ in range(12)
    ]

    def worth(values):
        return 0.9 - 0.03 * abs(math.log10(values["optimizer.lr"]) + 1.5) + 0.001 * values["model.width"]

    best = sorted(tried[1:], key=worth)[-3:][::-1]
    trials = [plan.trial("baseline", values) for values in tried]
    trials += [plan.trial("baseline", values, REEVALUATED_FROM + i) for i in range(3) for values in best]
    rows = [
        replicate(
            "baseline",
            run.seed,
            worth(run.values) + rng.normal(0, 0.005),
            phase="tune",
            outcome="diverged" if run is trials[0] else "finished",
            key=run.key,
            run_id=run.key[:32],
            parameters=100.0 * run.values["model.width"] ** 2,
        )
        for run in trials
    ]
    candidates = tuple(
        CandidateRecord(values, worth(values), 3, 100.0 * values["model.width"] ** 2) for values in best
    )
    record = replace(
        plan.record(),
        runs=tuple(RunRecord("baseline", r.seed, "tune", r.key, dict(r.values)) for r in trials),
        tuned={"baseline": TunedArm(best[0], True, candidates, {"model.width": "upper"}, "search")},
        importances={
            "fANOVA": {"optimizer.lr": 0.8, "model.width": 0.2},
            "PED-ANOVA": {"optimizer.lr": 1.0},
        },
    )
    frame = pd.DataFrame(rows)
    return Material(record, judge(rules(record), frame, EMPTY_CURVES), frame, EMPTY_CURVES)


def curve(arm, seed, final, overfit, rng, epochs=20, stop=None):
    """Rows of the curves frame: losses and accuracies that approach their end, with noise that shrinks."""
    rows = []
    for epoch in range(1, (stop or epochs) + 1):
        part = epoch / epochs
        gain = 1 - math.exp(-4.2 * part)
        noise = rng.normal() * 0.012 * (1.2 - part)
        accuracy = 0.1 + (final - 0.1) * gain / (1 - math.exp(-4.2)) + noise
        train = min(0.999, accuracy + 0.015 + 0.13 * overfit * part)
        metrics = {
            "train/loss": 2.3 * math.exp(-(2.1 + 1.4 * overfit) * part) * (1 + rng.normal() * 0.015) + 0.02,
            "val/loss": 2.25 * (1 - accuracy) ** 0.9
            + 0.9 * overfit * max(0.0, part - 0.45) ** 1.4
            + 0.15
            + abs(rng.normal()) * 0.01,
            "train/accuracy": train,
            "val/accuracy": accuracy if epoch < epochs else final,
            "lr": 0.05 * math.sin(math.pi * part),
        }
        if stop == epoch:
            metrics["train/loss"] = metrics["val/loss"] = math.nan
        rows += [
            {"arm": arm, "seed": seed, "phase": "report", "epoch": epoch, "metric": metric, "value": value}
            for metric, value in metrics.items()
        ]
    return rows


def confusions(shapes, classes=CLASSES):
    rng = np.random.default_rng(5)
    base = rng.dirichlet(np.ones(len(classes)) * 0.4, len(classes))
    found = {}
    for arm, (final, *_) in shapes.items():
        mixed = base + rng.normal(0, 0.02, base.shape).clip(0)
        np.fill_diagonal(mixed, 0)
        mixed /= mixed.sum(axis=1, keepdims=True)
        rights = np.clip(final + rng.normal(0, 0.03, len(classes)), 0.05, 0.99)
        shares = mixed * (1 - rights)[:, None] + np.diag(rights)
        found[arm] = np.round(shares * 5_000).astype(int)
    return found


def seen(arms, classes, seeds=5):
    """What arms get right of forty test images, their classes and pixels: the further down the list, the more an arm gets wrong."""
    rng = np.random.default_rng(11)
    hard = rng.random(40)
    right = {
        arm: pd.DataFrame(
            hard + rng.normal(0, 0.02, (seeds, 40)) < 0.9 - 0.1 * i,
            index=range(seeds),
            columns=range(40),
        )
        for i, arm in enumerate(arms)
    }
    return right, rng.integers(classes, size=40), rng.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)


def material(seeds=5, **more):
    """Eight arms of four factors: a verdict of every common kind, divergences, and a failed run."""
    rng = np.random.default_rng(7)
    plan = record(list(SHAPES), LEVELS, **more)
    shared = rng.normal(0, 0.002, 20)
    rows, curves = [], []
    for arm, (final, noise, compute, parameters, overfit) in SHAPES.items():
        for seed in range(seeds):
            value = round((final + shared[seed] + rng.normal(0, noise)) * 5_000) / 5_000
            costs = {
                "flops": compute * 2.1e14,
                "parameters": parameters,
                "seconds": 40 + 21 * compute + rng.normal(),
            }
            if arm == "optimizer.lr=1.0" and seed in {1, 3}:
                rows.append(
                    replicate(
                        arm,
                        seed,
                        value,
                        outcome="diverged",
                        reason="loss not finite in epoch 3",
                        **costs | {"epochs": 3},
                    )
                )
                curves += curve(arm, seed, value, 0.0, rng, stop=3)
            elif arm == "model.dropout=0.5" and seed == 4:
                reason = "the worker died (signal 9), twice"
                rows.append(
                    replicate(
                        arm, seed, value, outcome="failed", reason=reason, **costs | {"seconds": math.nan}
                    )
                )
            else:
                rows.append(replicate(arm, seed, value, **costs))
                curves += curve(arm, seed, value, overfit, rng)
    frame = pd.DataFrame(rows)
    table = pd.DataFrame(curves)
    correct, truth, pixels = seen(SHAPES, len(CLASSES))
    return Material(
        correct=correct,
        truth=truth,
        pixels=pixels,
        record=plan,
        analysis=judge(rules(plan), frame, table),
        replicates=frame,
        curves=table,
        confusion=confusions({a: s for a, s in SHAPES.items() if a != "optimizer.lr=1.0"}),
        environment={
            "version": "0.1.0",
            "python": "3.13.5",
            "torch": "2.11.0",
            "commit": "6dd71f9a40c1",
            "command": "ablate run studies/width-and-friends.yaml --seeds 5",
            "date": "2026-03-14",
        },
    )


EMPTY_CURVES = pd.DataFrame(columns=["arm", "seed", "phase", "epoch", "metric", "value"])


def small(
    arms, levels, effects, *, seeds=5, outcome=lambda arm, seed: "finished", sign=1.0, more_rows=(), **more
):
    """A study without curves. effects: arm → what it adds to 0.8 (or to `base_value`), before noise."""
    rng = np.random.default_rng(3)
    base_value = more.pop("base_value", 0.8)
    plan = record(arms, levels, **more)
    rows = [
        replicate(
            arm, seed, base_value + sign * effects[arm] + rng.normal(0, 0.001), outcome=outcome(arm, seed)
        )
        for arm in arms
        for seed in range(seeds)
    ]
    rows += more_rows
    columns = list(replicate("x", 0, 0.0))
    frame = pd.DataFrame(rows, columns=columns)
    return Material(plan, judge(rules(plan), frame, EMPTY_CURVES), frame, EMPTY_CURVES)


def large():
    """So many runs that the page keeps most of them compressed."""
    arms = ["baseline", *(f"model.width={width}" for width in (16, 32, 128, 256))]
    levels = {arm: ("model.width", int(arm.partition("=")[2])) for arm in arms[1:]}
    effects = dict(zip(arms, (0.0, -0.02, -0.01, 0.01, 0.02), strict=True))
    return small(arms, levels, effects, seeds=500, looks=(500,))


def leave_one_out():
    """Full, and full minus each of three components."""
    without = {"augment.flip": False, "model.dropout": 0.0, "model.batch_norm": False}
    full = {"augment.flip": True, "model.dropout": 0.25, "model.batch_norm": True}
    arms = ["full", *(f"full but {f}={level}" for f, level in without.items())]
    levels = {arm: (f, without[f]) for arm, f in zip(arms[1:], without, strict=True)}
    effects = dict(zip(arms, (0.0, -0.012, 0.0005, -0.03), strict=True))
    factors = [{"name": f, "levels": [{f: level}]} for f, level in full.items()]
    return small(arms, levels, effects, base=full, design="leave-one-out", reference="full", factors=factors)


def factorial():
    """Two factors with an interaction: cells and effects instead of arms."""
    arms = ["baseline", "model.width=128", "augment.flip=false", "model.width=128,augment.flip=false"]
    levels = {
        "model.width=128": ("model.width", 128),
        "augment.flip=false": ("augment.flip", False),
        "model.width=128,augment.flip=false": (None, {"model.width": 128, "augment.flip": False}),
    }
    effects = dict(zip(arms, (0.0, 0.02, -0.015, 0.015), strict=True))
    made_factors = [
        {"name": "model.width", "levels": [{"model.width": 128}]},
        {"name": "augment.flip", "levels": [{"augment.flip": False}]},
    ]
    return small(
        arms,
        levels,
        effects,
        base={"model.width": 64, "augment.flip": True},
        design="factorial",
        factors=made_factors,
    )


def of_loss():
    """A loss, to be minimized: raw values fall where effects rise."""
    arms = ["baseline", "model.width=128", "model.width=256"]
    levels = {"model.width=128": ("model.width", 128), "model.width=256": ("model.width", 256)}
    effects = dict(zip(arms, (0.0, 0.05, 0.08), strict=True))
    return small(
        arms,
        levels,
        effects,
        sign=-1.0,
        base_value=0.7,
        metric="val/loss",
        direction="minimize",
        margin=0.01,
        resolution=0.0,
    )


def unfinished(seeds=2):
    """A study of which only the first seeds are in."""
    return small(
        ["baseline", "model.width=128"],
        {"model.width=128": ("model.width", 128)},
        {"baseline": 0.0, "model.width=128": 0.02},
        seeds=seeds,
    )


def not_started():
    return unfinished(seeds=0)


def diverged_baseline():
    def outcome(arm, seed):
        return "diverged" if (arm, seed) == ("baseline", 2) else "finished"

    return small(
        ["baseline", "model.width=128"],
        {"model.width=128": ("model.width", 128)},
        {"baseline": 0.0, "model.width=128": 0.02},
        outcome=outcome,
    )


ATTACK = "</script><script>alert('x')</script><img src=x onerror=alert(1)>${7*7}{{7*7}}%{x}<b>bold</b>"


def hostile(attack=ATTACK):
    """Names of everything that a user can name, each of them trying to be code."""
    arms = ["baseline", f"model.name={attack}", f"model.name={attack}2"]
    levels = {arms[1]: ("model.name", attack), arms[2]: ("model.name", attack + "2")}
    effects = dict(zip(arms, (0.0, 0.02, -0.02), strict=True))
    made = small(
        arms,
        levels,
        effects,
        base={"model.name": "cnn"},
        classes=(attack, "bird"),
        outcome=lambda arm, seed: "failed" if (arm, seed) == (arms[2], 1) else "finished",
        study=attack,
        question=attack,
        text=f"study: {attack}\n",
    )
    frame = made.replicates.assign(reason=attack, device=attack, source_run=attack)
    frame["run_id"] = [f"{attack}{i}" for i in range(len(frame))]
    rng = np.random.default_rng(1)
    curves = pd.DataFrame(
        [row for arm in arms for seed in range(5) for row in curve(arm, seed, 0.8, 0.3, rng)]
    )
    curves = pd.concat([curves, curves[curves["metric"] == "lr"].assign(metric=attack)])
    confusion = {arm: np.array([[40, 10 + i], [5, 45]]) for i, arm in enumerate(arms)}
    environment = {"command": attack, "commit": attack, attack: attack}
    analysis = judge(rules(made.record), frame, curves)
    correct, truth, pixels = seen(arms, 2)
    server = Tracking(f"https://mlflow.example/{attack}", attack)
    return Material(
        made.record, analysis, frame, curves, confusion, environment, correct, truth, pixels, server
    )


def rate_sweep(*, learns=True, metric="val/accuracy"):
    """A sweep of learning rates that ends at 0.1, and diverges from 1 on; or one in which nothing is learnt."""
    rules = RateRules(
        1e-5, 10.0, metric, True, "val/loss" if learns else metric, not learns, 0.02, guessing=math.log(10)
    )

    def trial(rate, epochs):
        if rate >= 1:
            return RateTrial(
                rate,
                2000,
                epochs,
                epochs == 8,
                (math.inf,),
                None,
                None,
                "diverged",
                "loss not finite in epoch 1",
            )
        depth = math.exp(-(math.log10(rate / 0.1) ** 2)) * epochs / 9 if learns else 0.0
        curve = tuple(2.3 * (1 - depth * (e + 1) / epochs) for e in range(epochs))
        return RateTrial(rate, 2000, epochs, epochs == 8, curve, curve[-1], 0.1 + depth)

    trials = [trial(rate, 2) for rate in first_rates(rules)]
    for _ in range(4):
        rates, is_whole = next_rates(rules, trials)
        trials += [trial(rate, 8 if is_whole else 2) for rate in rates]
    return rate_sweep_of(rules, trials)


def _results(blocks):
    """Results of a loss that somebody else made, with names that try to be markup. blocks: (name, scale)."""
    rng = np.random.default_rng(4)
    rows = []
    for block, scale in blocks:
        for seed in range(5):
            shared = rng.normal(0, 0.02)
            for arm, gain in (
                ("base", 0.0),
                ("better", -0.06),
                ("worse", 0.05),
                (ATTACK, 0.001),
                ("x" * 90, 0.002),
            ):
                rows.append((block, arm, seed, scale * (0.6 + gain + shared + rng.normal(0, 0.004))))
    return pd.DataFrame(rows, columns=["task", "arm", "seed", "val/loss"])


def judged():
    """The page of results that are not paired, some of which have no number."""
    frame = _results([("one", 1.0)])
    frame.loc[frame.index[7], "val/loss"] = math.nan
    return ablate.compare(
        frame, metric="val/loss", margin=0.01, baseline="base", paired=False, nan="diverged"
    ).page()


def judged_in_blocks():
    """The page of results in blocks, on a common scale."""
    frame = _results([(f"task {i}", 3.0**i) for i in range(6)] + [(ATTACK, 2.0), ("y" * 90, 5.0)])
    return ablate.compare(
        frame, metric="val/loss", margin=0.01, baseline="base", block="task", relative=True
    ).page()


def plotly_takes(figure: dict) -> None:
    """Have plotly look at every field of a figure; nothing where it knows no `#rrggbbaa`, as the library of the page does."""
    import plotly.graph_objects as plotly

    try:
        plotly.Layout(paper_bgcolor="#1a20278c")
    except ValueError:
        return
    plotly.Figure(figure["data"], figure["layout"])
