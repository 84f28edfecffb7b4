"""`training.save_model: best`: the network comes back from MLflow, and is the one that was trained."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.errors import StudyError
from ablate.events import Bundle, EpochEnd, Task
from ablate.study import spec
from ablate.tracking.spool import Tracker

STUDY = """
study: kept
margin: 0.02
metric: {metric}
baseline:
  data: {{name: digits, subset: 300, validation: 0.2}}
  model: {{name: cnn, depth: 1, width: 8, dropout: 0.1, batch_norm: false}}
  optimizer: {{name: sgd, lr: 0.1}}
  training: {{epochs: 3, batch_size: 32, save_model: {save}}}
factors:
  {factor}
seeds: 1
"""


def study(
    workplace, metric="val/accuracy", save="best", factor="model.dropout: [0.3]", name="kept.yaml"
) -> str:
    (workplace.root / name).write_text(STUDY.format(metric=metric, save=save, factor=factor))
    return name


def test_a_model_comes_back_from_mlflow_and_sees_the_test_images_as_it_did_in_training(
    workplace, monkeypatch
):
    import mlflow

    from ablate.training.builtin import choose

    monkeypatch.setattr(choose, "pays", lambda *_: True)
    said = workplace.ablate("run", study(workplace, metric="val/loss"), "--executor", "inline")
    assert "no saved model" not in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workplace.store.uri)
    mlflow.set_tracking_uri(workplace.store.uri)
    data = datasets.prepare(RunConfig.parse({"data": {"name": "digits"}, "model": {"name": "cnn"}}).data)
    runs = workplace.runs("kept")
    # Both were stacked: each has its own network, as trained among others.
    assert [run.data.tags["ablate.fused"] for run in runs] == ["stacked 2", "stacked 2"]
    for run in runs:
        model = mlflow.pytorch.load_model(f"runs:/{run.info.run_id}/model")
        import torch

        with torch.no_grad():
            logits = model(torch.from_numpy(np.array(data.test_images)))
        accuracy = float(np.mean(logits.argmax(1).numpy() == data.test_labels))
        # The loss falls to the end here, so that the best epoch is the last, whose weights were tested.
        assert run.data.tags["ablate.model"].startswith("epoch 3, val/loss ")
        assert "test metrics" not in run.data.tags["ablate.model"]
        assert accuracy == pytest.approx(run.data.metrics["test/accuracy"], abs=1e-12)
    about = mlflow.models.get_model_info(f"runs:/{run.info.run_id}/model").metadata
    assert about["epoch"] == 3
    assert about["classes"] == list("0123456789")
    assert not list((workplace.store.root / "models").iterdir())

    # In another study a run is copied, and its model with it.
    text = (workplace.root / "kept.yaml").read_text().replace("study: kept", "study: again")
    (workplace.root / "again.yaml").write_text(text)
    workplace.ablate("run", "again.yaml", "--executor", "inline")
    for run in workplace.runs("again"):
        assert "ablate.source_run" in run.data.tags
        assert {item.path for item in workplace.client.list_artifacts(run.info.run_id, "model")}


def test_a_run_trained_without_saving_is_reused_and_reported_to_have_no_model(workplace):
    workplace.ablate("run", study(workplace, save="none"), "--executor", "inline")
    said = workplace.ablate("run", study(workplace), "--executor", "inline")
    assert "2 of the runs already done have no saved model" in said
    assert len(workplace.runs("kept")) == 2


def test_keeping_a_model_changes_no_key_and_so_is_no_factor(workplace):
    keeping = spec.read(workplace.root / study(workplace)).baseline
    without = spec.read(workplace.root / study(workplace, save="none")).baseline
    assert keeping != without
    assert keeping.recipe("data") == without.recipe("data")
    assert keeping.recipe("data") != keeping.override({"training.checkpoint": "best"}).recipe("data")
    with pytest.raises(StudyError, match="changes no result"):
        spec.read(workplace.root / study(workplace, save="none", factor="training.save_model: [best]"))


def test_numpys_network_is_no_torch_module_and_says_so():
    tree = {"data": {"name": "digits"}, "model": {"name": "numpy_mlp"}, "training": {"save_model": "best"}}
    with pytest.raises(StudyError, match="save_model to none"):
        RunConfig.parse(tree)


def test_a_network_that_cannot_be_read_is_reported_and_delivery_continues(workplace):
    from ablate.events import Finished, Started
    from ablate.study.design import Run

    config = RunConfig.parse({"data": {"name": "digits"}, "model": {"name": "cnn"}})
    torn = workplace.store.folder("models") / f"{'k' * 16}-1.pt"
    torn.write_bytes(b"half of a file")
    tracker = Tracker(workplace.store, "kept")
    run = Run("k" * 16, "r" * 16, "baseline", 0, "report")
    tracker.event(Started(run.key, 1, 0, 1.0), run, config, "plan")
    tracker.event(
        Finished(run.key, 1, 1, 2.0, "finished", 1, {"test/loss": 0.5}, model=str(torn)), run, config, "plan"
    )
    tracker.settle()
    assert tracker.close()
    [found] = workplace.runs("kept")
    assert found.info.status == "FINISHED"
    assert found.data.tags["ablate.model"].startswith("not saved: ")
    assert not torn.exists()


def test_of_equal_epochs_the_later_is_kept_and_a_worse_one_never(tmp_path):
    import torch

    from ablate.training.builtin.best import Best
    from ablate.training.builtin.evaluation import Evaluation

    def seen(loss, accuracy):
        none = np.zeros(0, np.uint8)
        return Evaluation(loss, accuracy, none, none, np.zeros((2, 2), np.int64))

    kept = {}
    epochs = [(0.5, 0.8), (0.4, 0.9), (0.3, 0.9), (0.2, 0.7), (0.6, 0.1)]
    for metric in ("train/accuracy", "train/loss"):
        best = Best(metric, tmp_path / "deep" / "weights.pt")
        for epoch, values in enumerate(epochs, 1):
            if best.is_better(seen(*values)):
                best.take(epoch, seen(*values), {"w": torch.tensor([float(epoch)])})
        file, said = best.write((1, 2, 2), np.zeros(1), np.ones(1), ("a", "b"), tested=4)
        content = torch.load(file, weights_only=True)
        kept[best.metric] = (json.loads(content["about"])["epoch"], content["weights"]["w"].item(), said)
    assert kept == {
        "val/accuracy": (3, 3.0, "epoch 3, val/accuracy 0.9; the test metrics are those of epoch 4"),
        "val/loss": (4, 4.0, "epoch 4, val/loss 0.2"),
    }


def test_a_run_that_resumes_after_a_crash_keeps_the_best_epoch_from_before_it(tmp_path):
    import torch

    from ablate.training.payload import Folders, RunPayload
    from ablate.training.runs import train

    config = RunConfig.parse(
        {
            "data": {"name": "digits", "subset": 200},
            "model": {"name": "cnn", "depth": 1, "width": 4},
            # So large a rate that the first epoch is the best.
            "optimizer": {"name": "sgd", "lr": 0.5},
            "schedule": {"name": "constant"},
            "training": {"epochs": 4, "save_model": "best"},
        }
    )
    payload = RunPayload(config.tree(), seed=0, metric="val/loss", checkpoint_every=0.0)

    def run(folder, stop_at):
        folders = Folders.under(tmp_path / folder)
        for event in train(Bundle((Task("run", 1, payload),)), folders):
            if isinstance(event, EpochEnd) and event.epoch == stop_at:
                return None
        return event

    whole = run("whole", None)
    assert run("broken", 4) is None
    resumed = run("broken", None)
    assert resumed.facts["model"] == whole.facts["model"]
    one, other = (torch.load(result.model, weights_only=True) for result in (whole, resumed))
    assert one["about"] == other["about"]
    assert all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])
