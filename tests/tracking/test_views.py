"""The saved views of a study in MLflow's pages."""

from __future__ import annotations

import json

from ablate.tracking import views


def kept(workplace) -> dict[str, dict]:
    tags = workplace.client.get_experiment_by_name("toy").tags
    views_by_name = {
        name.rpartition(".")[2]: text for name, text in tags.items() if "sharedViewState" in name
    }
    return {name: json.loads(json.loads(text)["state"]) for name, text in views_by_name.items()}


def test_a_study_has_views_whose_filters_and_columns_match_its_runs(workplace):
    workplace.trained()
    views_by_name = kept(workplace)
    assert set(views_by_name) == {views.ARMS, views.CURVES}
    experiment = workplace.client.get_experiment_by_name("toy").experiment_id
    arms = workplace.client.search_runs(
        [experiment],
        views_by_name[views.ARMS]["searchFilter"],
        order_by=[f"{views_by_name[views.ARMS]['orderByKey']} ASC"],
    )
    assert [run.info.run_name for run in arms] == ["baseline", "gain=0.2", "gain=0.001"]
    known = {f"metrics.`{name}`" for run in arms for name in run.data.metrics}
    known |= {f"tags.`{name}`" for run in arms for name in run.data.tags}
    columns = views_by_name[views.ARMS]["selectedColumns"]
    # A training of the user's own says nothing of what it costs.
    assert {c for c in columns if not c.startswith("attributes.")} - known <= {"metrics.`cost_ratio`"}
    curves = workplace.client.search_runs([experiment], views_by_name[views.CURVES]["searchFilter"])
    assert len(curves) == 9
    charted = {chart["metricKey"] for chart in views_by_name[views.CURVES]["compareRunCharts"]}
    assert {"val/accuracy", "val/loss", "train/loss"} <= charted & set(curves[0].data.metrics)


def test_a_longer_study_keeps_a_view_that_someone_has_changed(workplace):
    study = workplace.study(factors="{gain: [0.2]}")
    workplace.ablate("run", study, "--executor", "inline", "--quiet", "--seeds", "1")
    experiment = workplace.client.get_experiment_by_name("toy").experiment_id
    name = f"mlflow.sharedViewState.{views.ARMS}"
    workplace.client.set_experiment_tag(experiment, name, '{"state": "{\\"mine\\": 1}"}')
    workplace.ablate("run", study, "--executor", "inline", "--quiet", "--seeds", "2")
    assert kept(workplace)[views.ARMS] == {"mine": 1}
