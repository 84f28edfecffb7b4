"""Studies that compare arms by other metrics of classification than accuracy and loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

STUDY = """
study: {name}
metric: {metric}
margin: 0.02
baseline:
  data: {{name: digits, subset: 200, validation: 0.3}}
  model: {{name: cnn, depth: 1, width: 4}}
  training: {{epochs: 1, batch_size: 32}}
factors: {{optimizer.lr: [0.2]}}
seeds: 3
"""


@pytest.fixture
def compared(workplace):
    """Compare the same runs by a metric; the verdicts as JSON."""

    def judged(metric: str) -> dict:
        name = metric.partition("/")[2]
        (workplace.root / f"{name}.yaml").write_text(STUDY.format(name=name, metric=metric))
        workplace.train(f"{name}.yaml", "--executor", "inline", "--no-fuse")
        return json.loads(workplace.ablate("report", name, "--format", "json"))

    return judged


def test_the_same_runs_are_compared_by_each_metric_and_trained_once(workplace, compared):
    first = compared("val/accuracy")
    trained = {run.data.tags["ablate.key"] for run in workplace.runs("accuracy")}
    for metric in ("val/f1_macro", "val/top5_accuracy"):
        name = metric.partition("/")[2]
        verdicts = compared(metric)
        assert verdicts["metric"] == metric
        runs = workplace.runs(name)
        assert {run.data.tags["ablate.key"] for run in runs} == trained
        assert all("ablate.source_run" in run.data.tags for run in runs), "copied, not trained"
        [arm] = verdicts["arms"]
        assert arm["test_effect"] is not None
        # Only a mean over images has an interval for new ones.
        assert (arm["ci_new_images"] is not None) == (metric == "val/top5_accuracy")
        workplace.ablate("report", name)
        page = Path(f"reports/{name}.html").read_text()
        assert (f"{metric} is no mean over images" in page) == (arm["ci_new_images"] is None)
    assert first["arms"][0]["ci_new_images"] is not None

    # What was recorded is what scikit-learn makes of the predictions.
    run = workplace.runs("f1_macro")[0]
    kept = np.load(workplace.client.download_artifacts(run.info.run_id, "predictions.npz"))
    truth, predicted = kept["val_truth"], kept["val_predicted"]
    values = run.data.metrics
    options = {"labels": range(10), "average": "macro", "zero_division": 0}
    assert values["val/f1_macro"] == pytest.approx(reference.f1_score(truth, predicted, **options))
    assert values["val/recall_macro"] == pytest.approx(reference.recall_score(truth, predicted, **options))
    assert values["val/precision_macro"] == pytest.approx(
        reference.precision_score(truth, predicted, **options)
    )
    assert values["val/top5_accuracy"] == pytest.approx(kept["val_in_top5"].mean())
    assert values["val/top5_accuracy"] >= values["val/accuracy"]


def test_an_unknown_metric_names_the_nearest(workplace):
    (workplace.root / "f1.yaml").write_text(STUDY.format(name="f1", metric="val/f1_marco"))
    assert "did you mean 'val/f1_macro'" in workplace.ablate("run", "f1.yaml", code=2)
