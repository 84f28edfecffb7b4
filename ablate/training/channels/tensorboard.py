"""Scalars that a command writes for TensorBoard, by their tags: `metrics: {accuracy: {tensorboard: val/accuracy}}`.

They are read from event files anywhere in the folder of the run, and in the copy of its folder where the command runs in one. The
package `tensorboard` reads them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablate.errors import StudyError
from ablate.text import cut
from ablate.training.channels.json_lines import check_names
from ablate.training.channels.reading import Findings, Found, Places


class TensorboardChannel:
    """Scalars of event files."""

    key = "tensorboard"
    others: tuple[str, ...] = ()

    @staticmethod
    def check(metric: str, spec: Mapping[str, Any]) -> None:
        check_names(metric, spec)
        if importlib.util.find_spec("tensorboard") is None:
            raise StudyError(
                "the package tensorboard, which reads event files, is not installed",
                place=f"metrics.{metric}.tensorboard",
                hint="pip install tensorboard",
            )

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], places: Places) -> None:
        self._specs = specs
        self._folder = places.run
        self._loaders: dict[Path, Any] = {}
        self._tags: dict[str, None] = {}
        self._found: set[str] = set()

    def line(self, text: str) -> Findings:  # noqa: ARG002 — it reads files
        return []

    def look(self, ended: bool) -> list[Findings]:  # noqa: ARG002 — what is written there is whole
        groups: list[Findings] = []
        for file in sorted(self._folder.rglob("*tfevents*")):
            for tag, value, step in self._new_scalars(file):
                self._tags[tag] = None
                metrics = [metric for metric, spec in self._specs.items() if spec["tensorboard"] == tag]
                self._found.update(metrics)
                groups += [[Found(metric, value, step)] for metric in metrics]
        return groups

    def _new_scalars(self, file: Path) -> Iterator[tuple[str, float, int]]:
        """Yield tag, value and step of the scalars that were added to a file."""
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util

        if file not in self._loaders:
            self._loaders[file] = EventFileLoader(str(file))
        for event in self._loaders[file].Load():
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                if kind == "simple_value":
                    yield value.tag, float(value.simple_value), int(event.step)
                elif kind == "tensor" and value.metadata.plugin_data.plugin_name in ("scalars", ""):
                    array = tensor_util.make_ndarray(value.tensor)
                    if array.size == 1 and array.dtype.kind in "fiu":
                        yield value.tag, float(array.item()), int(event.step)

    def missing(self) -> Mapping[str, str]:
        told = (
            f"there is {cut(', '.join(self._tags))}"
            if self._tags
            else "there are no event files; let the command write them there"
        )
        return {
            metric: f"no scalar in {{run_dir}} has the tag {spec['tensorboard']!r}; {told}"
            for metric, spec in self._specs.items()
            if metric not in self._found
        }
