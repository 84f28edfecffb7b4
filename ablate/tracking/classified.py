"""Which images each arm classified correctly, from the predictions that its runs left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.study.record import ArmRecord, PlanRecord
from ablate.study.seeds import is_reported, replicate_of
from ablate.tracking import predictions
from ablate.tracking.frames import WORTH_SAVING
from ablate.tracking.predictions import Answers, Predictions
from ablate.tracking.queries import StoredRun, artifact
from ablate.tracking.store import Store

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd


@dataclass(frozen=True)
class ImageResults:
    """What the finished runs of a plan said about the images.

    confusion: arm → (classes, classes) counts on the test images, summed over seeds, rows the truth. validation, test: arm → whether
    each image was classified correctly, a frame (index: seeds, columns: where the image stands among the training, or the test
    images). They hold only arms that saw the same images as what they are held against, under every seed: the test images are the
    same whatever the split and the subset; A/A has the seeds that it is held against. validation is empty unless the metric is
    the share that was right. truth: (images,) classes of the test images.
    """

    confusion: Mapping[str, npt.NDArray[Any]]
    validation: Mapping[str, pd.DataFrame]
    test: Mapping[str, pd.DataFrame]
    truth: npt.NDArray[Any]


def image_results(store: Store, plan: PlanRecord, found: Mapping[str, StoredRun]) -> ImageResults:
    """What the finished report runs of a plan, and those of A/A, said about the images. found: of `chosen`."""
    planned = plan.runs_by_key()
    runs = [
        (planned[key], run)
        for key, run in found.items()
        if is_reported(planned[key].phase) and run.tags.get("ablate.outcome") == "finished" and run.has_result
    ]
    held = _predictions(store, [run for _, run in runs], plan.study)
    confusion: dict[str, Any] = {}
    validation: dict[str, dict[int, predictions.Answers]] = {}
    test: dict[str, dict[int, predictions.Answers]] = {}
    for of, run in runs:
        arm, seed = of.arm, replicate_of(of.seed)
        seen = held.runs[run.run_id, run.end or 0.0]
        if seen.confusion.size and of.phase == "report":
            old = confusion.get(arm)
            usable = old is None or old.shape == seen.confusion.shape
            confusion[arm] = seen.confusion.astype(np.int64) + (0 if old is None else old) if usable else old
        if seen.validation.images and plan.metric == "val/accuracy" and of.phase == "report":
            validation.setdefault(arm, {})[seed] = seen.validation
        if seen.test.images:
            test.setdefault(arm, {})[seed] = seen.test
    validation, test = _on_the_same(plan, validation), _on_the_same(plan, test)
    digest = next((one.images for one in test.get(plan.reference, {}).values()), predictions.NONE)
    return ImageResults(
        confusion,
        predictions.Frames(validation, held),
        predictions.Frames(test, held),
        held.images[digest].truth,
    )


def _on_the_same(
    plan: PlanRecord, answers: Mapping[str, dict[int, Answers]]
) -> dict[str, dict[int, Answers]]:
    """The arms whose runs all saw the same images as those of the arm they are held against, and so on up to the plan's reference."""
    arms = {arm.name: arm for arm in plan.arms}
    root = plan.reference
    saw = {name: {one.images for one in of.values()} for name, of in answers.items()}

    def same(name: str) -> bool:
        if len(saw.get(name, ())) != 1:
            return False
        if name == root:
            return True
        # A/A is the reference itself.
        arm = arms.get(name, arms[root])
        other = arm.reference or root
        return saw[name] == saw.get(other) and _same_source(arm, arms[other]) and same(other)

    return {name: of for name, of in answers.items() if same(name)}


_WHAT_IS_MADE = frozenset({"subset", "validation", "split", "normalize", "resize", "channels"})
"""Fields of `data` that leave it whose images they are, and their order."""


def _same_source(one: ArmRecord, other: ArmRecord) -> bool:
    """Whether two arms have the same images, though they may be of another size or colour.

    Places and classes do not tell: two folders with as many images of each class have those in common.
    """

    def source(arm: ArmRecord) -> Any:
        data = arm.config.get("data")
        return {k: v for k, v in data.items() if k not in _WHAT_IS_MADE} if isinstance(data, dict) else data

    fingerprints = one.data.fingerprint, other.data.fingerprint
    return fingerprints[0] == fingerprints[1] or bool(source(one) == source(other))


def _predictions(store: Store, runs: list[StoredRun], experiment: str) -> Predictions:
    """Of runs that have finished: from the cache beside the store as far as it goes, then from their artifacts."""
    path = store.root / "cache" / f"{experiment}.predictions-{predictions.LAYOUT}.npz"
    cached = predictions.load(path)
    missing = [run for run in runs if (run.run_id, run.end or 0.0) not in cached.runs]
    if missing:
        met: predictions.Met = {}
        added = {}
        for run in missing:
            matrix, predicted = (artifact(store, run, name) for name in predictions.FILES)
            added[run.run_id, run.end or 0.0] = predictions.read(matrix, predicted, met)
        images = {**cached.images, **dict(met.values())}
        cached = predictions.Predictions({**cached.runs, **added}, images)
        if len(missing) >= WORTH_SAVING:
            predictions.save(path, cached)
    return cached
