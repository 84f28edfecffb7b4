r"""Where the metrics of a command come from. A channel is one class and one line in `CHANNELS`.

A study says for each metric under which key its channel finds it: `accuracy: {line: 'Accuracy: ([\d.]+)'}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ablate.errors import StudyError, nearest
from ablate.fields import may_be_recorded
from ablate.lines import parse_pattern
from ablate.text import brief, cut, joined
from ablate.training.channels.file import FileChannel
from ablate.training.channels.json_lines import JsonChannel
from ablate.training.channels.line import LineChannel
from ablate.training.channels.mlflow import MlflowChannel
from ablate.training.channels.reading import Findings, Places
from ablate.training.channels.tensorboard import TensorboardChannel

Specs = Mapping[str, Mapping[str, Any]]
"""Metric → what the study says of where it is found."""


class Channel(Protocol):
    """Finds metrics of one run. key: of the study, under which a metric's channel stands. others: keys that may stand beside it.

    specs: of those metrics that have this channel.
    """

    key: str
    others: tuple[str, ...]

    def __init__(self, specs: Specs, places: Places) -> None: ...

    @staticmethod
    def check(metric: str, spec: Mapping[str, Any]) -> None:
        """Raise StudyError where a metric cannot be found so."""
        ...

    def line(self, text: str) -> Findings:
        """Return what a line of the output tells."""
        ...

    def look(self, ended: bool) -> list[Findings]:
        """Return what there is anew elsewhere than in the output, in the order in which it was written. ended: the command has."""
        ...

    def missing(self) -> Mapping[str, str]:
        """Return the metrics of which nothing was found so far, each with what to say of it."""
        ...


CHANNELS: tuple[type[Channel], ...] = (
    LineChannel,
    JsonChannel,
    FileChannel,
    TensorboardChannel,
    MlflowChannel,
)

METRICS_FORM: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "oneOf": [
            {
                "properties": {name: {"type": "string"} for name in (channel.key, *channel.others)},
                "required": [channel.key],
                "additionalProperties": False,
            }
            for channel in CHANNELS
        ],
    },
}
"""JSON schema of what a study says of its metrics."""


def read_metrics(value: Any) -> dict[str, dict[str, Any]]:
    """Return what a study says of its metrics. Raises StudyError."""
    if not isinstance(value, Mapping) or not value:
        raise StudyError(
            "should be names of metrics with where each is found",
            place="metrics",
            hint=r"for example `metrics: {accuracy: {line: 'Accuracy: ([\d.]+)'}}`",
        )
    for name, spec in value.items():
        place = f"metrics.{name}"
        if not isinstance(name, str) or not may_be_recorded(name):
            raise StudyError(
                f"{cut(str(name))!r} cannot name a metric",
                place=place,
                hint="letters, digits, spaces and . _ - : / make a name",
            )
        keys = [channel.key for channel in CHANNELS]
        if not isinstance(spec, Mapping) or not spec:
            raise StudyError(
                f"should say where the metric is found (got {brief(spec)})",
                place=place,
                hint=f"{{{keys[0]}: '{name}: ([\\d.]+)'}}; or one of {joined(keys[1:], 'or')}"
                if keys[1:]
                else None,
            )
        named = [channel for channel in CHANNELS if channel.key in spec]
        if len(named) != 1:
            unknown = [str(key) for key in spec if key not in keys]
            raise StudyError(
                "names more than one place where it is found"
                if named
                else f"unknown key {cut(unknown[0])!r}",
                place=place,
                hint="a metric has one" if named else nearest(unknown[0], keys),
            )
        channel = named[0]
        for key in spec:
            if key != channel.key and key not in channel.others:
                raise StudyError(
                    f"unknown key {cut(str(key))!r}",
                    place=place,
                    hint=nearest(str(key), (channel.key, *channel.others)),
                )
        channel.check(name, spec)
    return {name: dict(spec) for name, spec in value.items()}


def tells_only_steps(spec: Mapping[str, Any]) -> bool:
    """Return whether what stands under the name of a metric tells where the others are on their curves, and has no value itself."""
    text = spec.get(LineChannel.key)
    return text is not None and not parse_pattern(text, "metrics").has_value


def open_channels(specs: Specs, places: Places) -> Sequence[Channel]:
    """Return the channels that find metrics of one run."""
    opened = []
    for channel in CHANNELS:
        own = {name: spec for name, spec in specs.items() if channel.key in spec}
        if own:
            opened.append(channel(own, places))
    return opened
