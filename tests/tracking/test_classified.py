"""Which arms can be compared image by image: trained for real, read from the store."""

from pathlib import Path
from urllib.parse import urlparse

import numpy as np
from PIL import Image

from ablate.study.seeds import seed_of
from ablate.tracking.classified import image_results
from ablate.tracking.frames import plan_frames
from ablate.tracking.plans import stored_plans
from ablate.tracking.runs import counted_runs

STUDY = """
study: seen
margin: 0.05
metric: {metric}
baseline:
  data: {{name: image_folder, root: one, validation: 0.25, split: {split}}}
  model: {{name: numpy_mlp, hidden: [4]}}
  optimizer: {{name: sgd, lr: 0.1, momentum: 0, weight_decay: 0}}
  schedule: {{name: constant}}
  augment: null
  training: {{epochs: 1, batch_size: 8}}
factors:
  data.root: [other]
  data.channels: [grey]
  data.subset: [16]
noise_floor: true
seeds: 3
"""


def paint(root, seed):
    """As many images of each class, whatever the seed: only the pixels differ."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", 12), ("test", 3)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(
                    root / part / name / f"{i}.png"
                )


def classified(workplace, metric="val/accuracy", split="fixed"):
    paint(workplace.root / "one", 0)
    paint(workplace.root / "other", 1)
    (workplace.root / "seen.yaml").write_text(STUDY.format(metric=metric, split=split))
    workplace.ablate("run", "seen.yaml", "--executor", "inline", "--quiet")
    plan = stored_plans(workplace.store, "seen")[-1].record
    runs = counted_runs(workplace.store, plan)
    return plan, runs, image_results(workplace.store, plan, runs)


def test_an_arm_is_compared_with_its_reference_only_on_the_same_images(workplace):
    plan, runs, found = classified(workplace)
    # The other folder has as many images of each class, in the same places: but they are others.
    assert set(found.test) == {"baseline", "A/A", "data.channels=grey", "data.subset=16"}
    assert set(found.validation) == {"baseline", "data.channels=grey"}
    assert set(found.confusion) == {arm.name for arm in plan.arms}
    assert found.truth.tolist() == [0, 0, 0, 1, 1, 1]
    values = {(run.arm, run.seed): run.key for run in plan.runs}
    replicates, _ = plan_frames(workplace.store, plan, runs)
    recorded = replicates.set_index("key")
    for arm, frame in found.test.items():
        assert frame.index.tolist() == [0, 1, 2]
        for replicate, right in frame.iterrows():
            seed = seed_of("A/A" if arm == "A/A" else "report", replicate)
            assert right.mean() == recorded.loc[values[arm, seed], "test"]
    for arm, frame in found.validation.items():
        for seed, right in frame.iterrows():
            assert right.mean() == recorded.loc[values[arm, seed], "value"]
    workplace.ablate("report", "seen")
    page = (workplace.root / "reports" / "seen.html").read_text()
    assert "Of 6 test images" in page


def test_test_images_are_known_whatever_the_split_and_the_metric(workplace):
    _, _, found = classified(workplace, metric="val/loss", split="per-seed")
    assert set(found.test) == {"baseline", "A/A", "data.channels=grey", "data.subset=16"}
    assert set(found.validation) == set()


def test_only_the_run_whose_predictions_are_gone_is_left_out(workplace):
    plan, runs, _ = classified(workplace)
    key = next(run.key for run in plan.runs if (run.arm, run.seed) == ("baseline", 1))
    (Path(urlparse(runs[key].artifacts).path) / "predictions.npz").write_bytes(b"torn")
    found = image_results(workplace.store, plan, runs)
    assert found.test["baseline"].index.tolist() == [0, 2]
    assert found.test["data.channels=grey"].index.tolist() == [0, 1, 2]
    workplace.ablate("report", "seen")
