"""Which images each arm classified correctly, from the predictions that its runs left."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.errors import StoreError
from ablate.study.record import ArmRecord, PlanRecord
from ablate.study.seeds import is_reported, replicate_of
from ablate.text import counted
from ablate.tracking import frames, predictions
from ablate.tracking.frames import WORTH_SAVING
from ablate.tracking.predictions import CorrectBits, CorrectFrames, KnownImages, Predictions
from ablate.tracking.queries import StoredRun, artifacts
from ablate.tracking.runs import counted_runs
from ablate.tracking.store import Store

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd


@dataclass(frozen=True)
class ImageResults:
    """What the finished runs of a plan predicted, image by image.

    confusion: arm → (classes, classes) counts on the test images, summed over seeds, rows the truth. validation, test: arm → whether
    each image was classified correctly, a frame (index: seeds, columns: position of the image among the training, or the test
    images). They hold only arms that were evaluated on the same images as their reference, under every seed: the test images are
    the same whatever the split and the subset; A/A has the seeds that it is compared with. validation is empty unless the metric is
    val/accuracy, or val/top5_accuracy: an image then counts as correct where its class is among the five likeliest. truth: (images,) classes of the test images.
    damaged: what could not be read, and is left out, in sentences.
    """

    confusion: Mapping[str, npt.NDArray[Any]]
    validation: Mapping[str, pd.DataFrame]
    test: Mapping[str, pd.DataFrame]
    truth: npt.NDArray[Any]
    damaged: tuple[str, ...] = ()


_VALIDATION = {"val/accuracy": "validation", "val/top5_accuracy": "validation_top"}
"""Metrics that are means over the validation images → the predictions that they count."""


def image_results(store: Store, plan: PlanRecord, runs: Mapping[str, StoredRun]) -> ImageResults:
    """Return what the finished report and A/A runs of a plan predicted. runs: of `counted_runs`."""
    planned = plan.runs_by_key()
    finished = [
        (planned[key], run)
        for key, run in runs.items()
        if is_reported(planned[key].phase) and run.tags.get("ablate.outcome") == "finished" and run.has_result
    ]
    classes = {arm.name: len(arm.data.classes) for arm in plan.arms}
    runs_with_classes = [
        (run, classes.get(replicate.arm, classes[plan.reference])) for replicate, run in finished
    ]
    read, damaged = _predictions(store, runs_with_classes, plan.study)
    matrices: dict[str, list[npt.NDArray[np.int32]]] = {}
    validation: dict[str, dict[int, CorrectBits]] = {}
    test: dict[str, dict[int, CorrectBits]] = {}
    of_metric = _VALIDATION.get(plan.metric)
    for replicate, run in finished:
        arm, seed = replicate.arm, replicate_of(replicate.seed)
        predicted = read.runs[run.run_id, run.end or 0.0]
        if predicted.confusion.size and replicate.phase == "report":
            of_arm = matrices.setdefault(arm, [])
            if not of_arm or of_arm[0].shape == predicted.confusion.shape:
                of_arm.append(predicted.confusion)
        counts = getattr(predicted, of_metric) if of_metric is not None else None
        if counts is not None and counts.images and replicate.phase == "report":
            validation.setdefault(arm, {})[seed] = counts
        if predicted.test.images:
            test.setdefault(arm, {})[seed] = predicted.test
    validation, test = _on_same_images(plan, validation), _on_same_images(plan, test)
    digest = next((bits.images for bits in test.get(plan.reference, {}).values()), predictions.NO_IMAGES)
    return ImageResults(
        {arm: np.add.reduce(np.stack(of_arm), dtype=np.int64) for arm, of_arm in matrices.items()},
        CorrectFrames(validation, read),
        CorrectFrames(test, read),
        read.images[digest].truth,
        damaged,
    )


def fill_caches(store: Store, plan: PlanRecord) -> None:
    """Sum up the ended runs of a plan for reports: curves and predictions, in the caches beside the store.

    A report does the same for what it does not find there. Of thousands of runs that takes seconds, which nobody waits for when they
    have just been trained. What cannot be read is left to the report.
    """
    with contextlib.suppress(StoreError, OSError):
        runs = counted_runs(store, plan)
        frames.metric_columns(store, list(runs.values()), plan.study)
        image_results(store, plan, runs)


def _on_same_images(
    plan: PlanRecord, results: Mapping[str, dict[int, CorrectBits]]
) -> dict[str, dict[int, CorrectBits]]:
    """Return the arms whose runs were all evaluated on the images of their reference, and so on up to the plan's reference."""
    arms = {arm.name: arm for arm in plan.arms}
    root = plan.reference
    digests = {name: {bits.images for bits in by_seed.values()} for name, by_seed in results.items()}

    def is_same(name: str) -> bool:
        if len(digests.get(name, ())) != 1:
            return False
        if name == root:
            return True
        # A/A is the reference itself.
        arm = arms.get(name, arms[root])
        reference = arm.reference or root
        return (
            digests[name] == digests.get(reference)
            and _same_source(arm, arms[reference])
            and is_same(reference)
        )

    return {name: by_seed for name, by_seed in results.items() if is_same(name)}


_PROCESSING = frozenset({"subset", "validation", "split", "normalize", "resize", "channels"})
"""Fields of `data` that change neither which images there are nor their order."""


def _same_source(arm: ArmRecord, reference: ArmRecord) -> bool:
    """Return whether two arms have the same images, though they may be of another size or colour.

    Positions and classes do not tell: two folders with as many images of each class have those in common.
    """

    def source(record: ArmRecord) -> Any:
        data = record.config.get("data")
        return {k: v for k, v in data.items() if k not in _PROCESSING} if isinstance(data, dict) else data

    same_content = arm.data.fingerprint == reference.data.fingerprint
    return same_content or bool(source(arm) == source(reference))


def _predictions(
    store: Store, runs: list[tuple[StoredRun, int]], experiment: str
) -> tuple[Predictions, tuple[str, ...]]:
    """Return the predictions of finished runs: as far as possible from the cache beside the store, else from their artifacts.

    runs: each with the number of classes of its data. Also returns what could not be read, in sentences.
    """
    path = store.cache(experiment, f"predictions-{predictions.LAYOUT}")
    cached = predictions.load(path)
    missing = [(run, classes) for run, classes in runs if (run.run_id, run.end or 0.0) not in cached.runs]
    damaged: Counter[str] = Counter()
    if missing:
        known: KnownImages = {}
        whole = dict(cached.runs)
        torn: dict[tuple[str, float], predictions.RunPredictions] = {}
        for run, classes in missing:
            confusion, predicted = artifacts(store, run, predictions.FILES)
            its_own, wrong = predictions.read(confusion, predicted, known, classes)
            # What is torn is read, and named, every time.
            (torn if wrong else whole)[run.run_id, run.end or 0.0] = its_own
            damaged.update(wrong)
        images = {**cached.images, **dict(known.values())}
        if len(whole) - len(cached.runs) >= WORTH_SAVING:
            predictions.save(path, predictions.Predictions(whole, images))
        cached = predictions.Predictions({**whole, **torn}, images)
    lines = [
        f"{name} of {counted(number, 'run')} is damaged, and left out of what is made from it"
        for name, number in damaged.items()
    ]
    return cached, tuple(lines)
