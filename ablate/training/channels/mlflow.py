"""Metrics that a command logs to MLflow: `metrics: {accuracy: {mlflow: val_acc}}`.

The command finds MLFLOW_TRACKING_URI pointing at a store of its own in the folder of its run, never at that of the study. Its layout, a
text file for each metric, is read as it stands: MLflow is not needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.text import cut
from ablate.training.channels.json_lines import check_names
from ablate.training.channels.reading import Findings, Found, Places


class MlflowChannel:
    """Metrics of all runs in the store of a command, by their names."""

    key = "mlflow"
    others: tuple[str, ...] = ()

    @staticmethod
    def check(metric: str, spec: Mapping[str, Any]) -> None:
        check_names(metric, spec)

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], places: Places) -> None:
        self._specs = specs
        self._scratch = places.scratch
        self._read: dict[Path, int] = {}
        self._last_step: dict[Path, int] = {}
        self._found: set[str] = set()

    def line(self, text: str) -> Findings:  # noqa: ARG002 — it reads a store
        return []

    def look(self, ended: bool) -> list[Findings]:  # noqa: ARG002 — what is written there is whole
        points: list[tuple[int, Found]] = []
        for metric, spec in self._specs.items():
            for file in sorted(self._scratch.glob("*/*/metrics")):
                points += self._new_points(metric, file / spec["mlflow"])
        # Of one millisecond, what has the same step was logged together.
        by_time: dict[tuple[int, int], Findings] = {}
        for time, found in points:
            by_time.setdefault((time, found.step or 0), []).append(found)
        return [by_time[when] for when in sorted(by_time)]

    def _new_points(self, metric: str, file: Path) -> list[tuple[int, Found]]:
        """Return the points that were added to a file, each with its time in milliseconds."""
        try:
            content = file.read_bytes()
        except OSError:
            return []
        start = self._read.get(file, 0)
        end = content.rfind(b"\n") + 1
        self._read[file] = max(start, end)
        points = []
        for row in content[start:end].decode(errors="replace").splitlines():
            try:
                time, value, step = row.split()[:3]
                point = (int(time), float(value), int(step))
            except ValueError:
                continue
            # Who gives MLflow no steps has every point at step 0.
            same = self._last_step.get(file) == point[2]
            self._last_step[file] = point[2]
            self._found.add(metric)
            points.append((point[0], Found(metric, point[1], None if same else point[2])))
        return points

    def missing(self) -> Mapping[str, str]:
        names = sorted(
            str(file.relative_to(folder))
            for folder in self._scratch.glob("*/*/metrics")
            for file in folder.rglob("*")
            if file.is_file()
        )
        told = f"it logged {cut(', '.join(names))}" if names else "it logged none to MLflow"
        return {
            metric: f"the command logged no metric {spec['mlflow']!r}; {told}"
            for metric, spec in self._specs.items()
            if metric not in self._found
        }
