r"""Any command: a program of the user's, whose metrics are read from what it prints and writes. Nothing of it is imported.

    command: [python, main.py, --lr, "{lr}", --seed, "{seed}"]
    metrics: {accuracy: {line: 'Accuracy: (\d+)/(\d+)'}}

The command is a list of arguments, never text for a shell. Each run has a process, a process group and a folder of its own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, cast

from ablate.config import Config, FreeConfig
from ablate.data.facts import DataFacts
from ablate.errors import StudyError, nearest
from ablate.events import Task
from ablate.text import cut
from ablate.training.arguments import GIVEN, CommandTemplate, Lookup
from ablate.training.channels import open_channels
from ablate.training.channels.reading import Places
from ablate.training.curves import CurveBuilder
from ablate.training.lines import LineSplitter
from ablate.training.outcome import Failure, Message, Result, Start, machine
from ablate.training.output import KeptOutput
from ablate.training.own import OwnTrainer
from ablate.training.payload import Folders, RunPayload
from ablate.training.permission import Permission

OUTPUT = "output.txt"
"""Artifact of a run with what it printed."""

SHOWN_LINES = 20
"""Last lines of a command that failed which are shown."""

WITHOUT_EFFECT = frozenset({"folder", "silence", "resume", "tty", "isolate"})
"""Keys of a study that change no result of a command, so that its runs are the same runs with other values."""


class CommandConfig(FreeConfig):
    """The configuration of a run whose training is a command."""

    @classmethod
    def parse(
        cls, source: Mapping[str, Any], tree: Mapping[str, Any], *, place: Callable[[str], str] = str
    ) -> Self:
        for name in GIVEN:
            if name in tree:
                raise StudyError(
                    f"`{{{name}}}` is what ablate fills in",
                    place=place(name),
                    hint="give the setting another name",
                )
        config = super().parse(source, tree, place=place)
        config._check()  # noqa: SLF001 — of this class
        return config

    def override(self, changes: Mapping[str, Any]) -> Self:
        changed = super().override(changes)
        places = {path for path, _ in self.template.places()}
        for path in changes:
            if not any(
                f"{each}.".startswith(f"{path}.") or f"{path}.".startswith(f"{each}.") for each in places
            ):
                raise StudyError(
                    f"`{path}` reaches neither the command nor its environment",
                    place=path,
                    hint=f"write {{{path}}} where it belongs in `command:` or `env:`",
                )
        changed._check()  # noqa: SLF001 — of this class
        return changed

    @cached_property
    def template(self) -> CommandTemplate:
        return CommandTemplate.parse(self._source["command"], self._source["env"])

    @property
    def keyed_source(self) -> Mapping[str, Any]:
        return {name: value for name, value in self._source.items() if value and name not in WITHOUT_EFFECT}

    @property
    def folder(self) -> Path:
        """Where the command runs, absolute."""
        return Path(self._source["folder"] or ".").absolute()

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        return cast("Mapping[str, Mapping[str, Any]]", self._source["metrics"])

    def code(self) -> str:
        return ""

    def filled(self, given: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
        """Return the arguments and the variables of a run. given: values of `GIVEN`. Raises StudyError."""
        return self.template.filled(self._lookup(given))

    def _lookup(self, given: Mapping[str, Any]) -> Lookup:
        return lambda path: given[path] if path in given else self.get(path)

    def _check(self) -> None:
        """Raise StudyError where a placeholder names no setting, or one of a value that cannot stand there."""
        tree = self.tree()
        for path, place in self.template.places():
            if path in GIVEN:
                continue
            try:
                self.get(path)
            except StudyError:
                known = [
                    *GIVEN,
                    *self.flatten(),
                    *(name for name, value in tree.items() if isinstance(value, dict)),
                ]
                raise StudyError(
                    f"{{{cut(path)}}} is no setting of the baseline",
                    place=place,
                    hint=f"{nearest(path, known)} Braces that are meant as such are written {{{{ and }}}}",
                ) from None
        self.filled(dict.fromkeys(GIVEN, ""))


class CommandTrainer(OwnTrainer):
    """Training by a command, which a study names under `command:`."""

    kind = "command"
    keys: tuple[str, ...] = ("command", "folder", "env", "metrics")

    def owns(self, config: Config) -> bool:
        return isinstance(config, CommandConfig)

    def parse(
        self, source: Mapping[str, Any], tree: Mapping[str, Any], *, place: Callable[[str], str] = str
    ) -> CommandConfig:
        if not source["metrics"]:
            raise StudyError(
                "`metrics:` is missing",
                hint=r"say where they are found, for example `metrics: {accuracy: {line: 'Accuracy: ([\d.]+)'}}`",
            )
        return CommandConfig.parse(source, tree, place=place)

    def yields(self, config: Config) -> tuple[str, ...]:
        return tuple(_own(config).metrics)

    def permission(self, config: Config) -> Permission:
        return Permission(
            "command", "commands", True, f"run the command {self.code_name(config)!r}", "--allow-command"
        )

    def code_name(self, config: Config) -> str:
        return cut(shlex.join(config.source["command"]), 200)

    def code_folder(self, config: Config) -> Path | None:
        return _own(config).folder

    def preload(self, config: Config) -> tuple[str, ...]:  # noqa: ARG002 — a program has its own process
        return ()

    def preparer(self) -> Callable[[Config], DataFacts]:
        return _prepare

    def messages(self, task: Task, folders: Folders) -> Iterator[Message]:
        payload: RunPayload = task.payload
        config = CommandConfig(payload.source, payload.config, payload.seed)
        with folders.run(task.run) as run_folder:
            yield from _Attempt(config, payload, task.attempt, run_folder).messages()


def _own(config: Config) -> CommandConfig:
    return cast("CommandConfig", config)


def _prepare(config: Config) -> DataFacts:
    """Check that a command can be started. Raises StudyError."""
    own = _own(config)
    if not own.folder.is_dir():
        raise StudyError(
            f"there is no folder {str(own.folder)!r}", place="folder", hint="it is relative to the study file"
        )
    arguments, _ = own.filled(dict.fromkeys(GIVEN, ""))
    program = _program(own, arguments[0])
    if program is None:
        raise StudyError(
            f"there is no program {cut(arguments[0])!r}",
            place="command",
            hint="a program is found along PATH; one in the folder is written ./NAME",
        )
    return DataFacts()


def _program(config: CommandConfig, name: str) -> str | None:
    """Return the path of the program that an argument names; None where there is none."""
    if name in ("python", "python3"):
        return sys.executable
    return shutil.which(str(config.folder / name) if os.sep in name else name)


class Child:
    """A process of its own group."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def output(self) -> Iterator[bytes]:
        """Yield what it prints as it comes."""
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), 1 << 16):
            yield data

    def wait(self) -> int:
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class _Attempt:
    """One attempt of a run."""

    def __init__(self, config: CommandConfig, payload: RunPayload, attempt: int, folder: Path) -> None:
        self._config = config
        self._payload = payload
        self._folder = folder
        given = {"seed": payload.seed, "run_dir": str(folder), "device": payload.device, "attempt": attempt}
        arguments, self._variables = config.filled(given)
        self._arguments = [_program(config, arguments[0]) or arguments[0], *arguments[1:]]
        self._given = given

    def messages(self) -> Iterator[Message]:
        yield Start(machine("cpu"))
        began = time.perf_counter()
        metric = self._payload.metric or next(iter(self._config.metrics))
        curves = CurveBuilder(metric, metric)
        channels = open_channels(self._config.metrics, Places(self._folder, self._config.folder))
        kept, splitter = KeptOutput(), LineSplitter()

        def result(*, diverged: bool) -> Result:
            epoch = curves.counts or (curves.last.number if curves.last else 0)
            final = {**curves.final, "time/train_seconds": time.perf_counter() - began}
            facts: dict[str, Any] = curves.facts()
            if curves.resolution:
                facts["resolution"] = curves.resolution
            if diverged:
                names = ", ".join(curves.not_finite())
                facts["reason"] = f"{names} not finite in epoch {epoch}"
            return Result(diverged, epoch, final, {OUTPUT: kept.content()}, facts)

        with Child(self._arguments, self._config.folder, self._environment()) as child:
            for data in child.output():
                kept.write(data)
                for text in splitter.feed(data):
                    for channel in channels:
                        for epoch in curves.add(channel.line(text)):
                            yield epoch
                            if curves.not_finite():
                                yield result(diverged=True)
                                return
            code = child.wait()
        for text in splitter.end():
            for channel in channels:
                yield from curves.add(channel.line(text))
        yield from curves.end()
        if curves.not_finite():
            yield result(diverged=True)
        elif code != 0:
            yield self._failure(f"the command exited with {code}", kept)
        elif missing := {name: why for channel in channels for name, why in channel.missing().items()}:
            name, why = next(iter(missing.items()))
            yield self._failure(f"the metric {name!r} was never found: {why}", kept)
        else:
            yield result(diverged=False)

    def _failure(self, reason: str, kept: KeptOutput, kind: Literal["error", "memory"] = "error") -> Failure:
        lines = kept.last_lines(SHOWN_LINES)
        last = f"; its last line: {lines[-1]}" if lines else "; it printed nothing"
        return Failure(kind, reason + last, "\n".join([reason, f"$ {shlex.join(self._arguments)}", *lines]))

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ABLATE_SEED": str(self._payload.seed),
            "ABLATE_RUN_DIR": str(self._folder),
            "ABLATE_DEVICE": self._payload.device,
            "ABLATE_ATTEMPT": str(self._given["attempt"]),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": str(self._payload.threads),
            **self._variables,
        }
