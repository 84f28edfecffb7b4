"""Saved views of MLflow's run page: the arms with their verdicts, and the curves of an arm's seeds together.

MLflow keeps a view as a tag of the experiment, JSON with a name and the page's state; its "Views" menu lists them, and an
address with the view's key opens it. The format is that of MLflow 3.16's own "Save view": a later MLflow that cannot read
it shows its ordinary table, and nothing is lost.
"""

from __future__ import annotations

import json
from typing import Any

_PREFIX = "mlflow.sharedViewState."
ARMS, CURVES = "ablate-arms", "ablate-curves"
_COLUMNS = {
    "tags.`ablate.verdict`": 205,
    "metrics.`effect`": 95,
    "metrics.`effect_low`": 95,
    "metrics.`effect_high`": 95,
    "metrics.`mean`": 95,
    "metrics.`sd`": 95,
    "metrics.`n`": 50,
    "metrics.`cost_ratio`": 95,
    "attributes.`Description`": 420,
    "attributes.`Dataset`": 150,
}
"""Columns of the arms' table, with their widths in pixels."""


def tags(metric: str, at: float) -> dict[str, str]:
    """Return the experiment tags that are the views. metric: the study's. at: when they are made, in seconds since the epoch."""
    arms = _state("arm", _COLUMNS)
    curves = _state("replicate", {"tags.`ablate.outcome`": 150})
    curves["groupBy"] = {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": "ablate.arm"}],
    }
    metrics = dict.fromkeys([metric, "val/loss", "train/loss", "train/accuracy", "val/accuracy", "lr"])
    curves["compareRunSections"] = [_SECTION]
    curves["compareRunCharts"] = [_curve(name) for name in metrics]
    return {
        f"{_PREFIX}{key}": json.dumps(
            {
                "name": name,
                "createdAt": int(at * 1000),
                "updatedAt": int(at * 1000),
                "state": json.dumps(state),
            }
        )
        for key, name, state in (
            (ARMS, "Arms with their verdicts", arms),
            (CURVES, "Curves, by arm", curves),
        )
    }


def address(experiment: str, view: str) -> str:
    """Return the address of a view, from the root of MLflow's pages on. experiment: its id."""
    chart = "&compareRunsMode=CHART" if view == CURVES else ""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}{chart}"


_SECTION = {
    "uuid": "ablate",
    "name": "Curves: the mean of each arm's seeds",
    "display": True,
    "isReordered": True,
    "deleted": False,
    "isGenerated": False,
}


def _curve(metric: str) -> dict[str, Any]:
    return {
        "uuid": f"ablate-{metric}",
        "type": "LINE",
        "metricSectionId": _SECTION["uuid"],
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": metric,
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": True,
        "xAxisKey": "step",
        "useGlobalXaxisKey": False,
        "selectedXAxisMetricKey": "",
        "xAxisScaleType": "linear",
        "scaleType": "log" if metric == "lr" else "linear",
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
    }


def _state(kind: str, columns: dict[str, int]) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.`ablate.kind` = '{kind}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": columns,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": True,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
