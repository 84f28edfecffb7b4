r"""Any command: a program of the user's, whose metrics are read from what it prints and writes. Nothing of it is imported.

    command: [python, main.py, --lr, "{lr}", --seed, "{seed}"]
    metrics: {accuracy: {line: 'Accuracy: (\d+)/(\d+)'}}

The command is a list of arguments, never text for a shell. Each run has a process, a process group and a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

from ablate.code_digest import code_elsewhere, digest_of
from ablate.config import Config, FreeConfig, canonical
from ablate.data.facts import DataFacts
from ablate.errors import StudyError, nearest
from ablate.events import LONGEST_REASON, Task
from ablate.lines import plain_text
from ablate.metrics import reads_test_set, words_of_split
from ablate.text import counted, cut, format_value, joined, parse_duration
from ablate.training.arguments import GIVEN, CommandTemplate, Lookup
from ablate.training.channels import open_channels, tells_only_steps
from ablate.training.channels.reading import Findings, Found, Places
from ablate.training.command_inputs import CommandInputs
from ablate.training.curves import CurveBuilder
from ablate.training.isolation import FolderCopy, Footprint
from ablate.training.left_figures import left_figures
from ablate.training.outcome import (
    CANCELLED,
    Epoch,
    Failure,
    Message,
    Result,
    Start,
    is_end,
    machine,
    says_out_of_memory,
    shown,
)
from ablate.training.output import OUTPUT, KeptOutput
from ablate.training.own import OwnTrainer
from ablate.training.payload import NO_FOLDERS, Folders, RunPayload
from ablate.training.permission import Permission
from ablate.training.process import Process, check_startable
from ablate.training.source_files import (
    FolderCode,
    PlannedData,
    data_fingerprint,
    folder_code,
    folder_code_again,
    named_files,
)
from ablate.training.surroundings import NOT_PASSED_ON, scratch_mlflow
from ablate.training.told_errors import TOLD, ToldErrors

OF_TEST = "was judged by a line of the test set: "
"""What the reason of a run begins with that has its last value from such a line, and others from other lines, before the line."""

SHOWN_LINES = 20
"""Last lines of a command that failed which are shown."""

SHOWN_MATCHES = 3
"""Lines in which a metric was found that a trial shows."""

COPY = "folder"
"""Where in the folder of a run the copy of its command's folder is, which `isolate: true` makes."""

TICK = 0.5
"""Seconds after which files are looked at while the command prints nothing."""

WITHOUT_EFFECT = frozenset({"folder", "silence", "resume", "tty", "data"})
"""Keys of a study that change no result of a command, or whose content counts in another way. `isolate` is none of them: who adds it may
have runs that read each other's files.
"""

PYTHONS = ("python", "python3")
"""Programs that stand for the interpreter of the study."""


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
        filled_in = {path for path, _ in self.template.places()}
        for path in changes:
            if not any(_overlap(path, each) for each in filled_in):
                raise StudyError(
                    f"`{path}` reaches neither the command nor its environment",
                    place=path,
                    hint=f"write {{{path}}} where it belongs in `command:` or `env:`",
                )
        changed._check()  # noqa: SLF001 — of this class
        changed._folder_code = self._folder_code  # noqa: SLF001 — of this class
        return changed

    def with_seed(self, seed: int) -> Self:
        changed = super().with_seed(seed)
        changed._folder_code = self._folder_code  # noqa: SLF001 — of this class
        return changed

    def _identity(self) -> tuple[str, str, int]:
        # Compared as the program sees it, which cannot tell 1 from "1".
        plain = type(self)(self._source, canonical(self._values), self._seed)
        return self.shape(), json.dumps(plain.filled(dict.fromkeys(GIVEN, "")), sort_keys=True), self._seed

    @cached_property
    def template(self) -> CommandTemplate:
        return CommandTemplate.parse(self._source["command"], self._source["env"])

    @property
    def keyed_source(self) -> Mapping[str, Any]:
        left_out: tuple[Any, ...] = (None, False, 1, [], {})
        return {
            name: value
            for name, value in self._source.items()
            if (value is True or value not in left_out) and name not in WITHOUT_EFFECT
        }

    @property
    def folder(self) -> Path:
        """Where the command runs, absolute."""
        return Path(self._source.get("folder") or ".").absolute()

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        return cast("Mapping[str, Mapping[str, Any]]", self._source["metrics"])

    @property
    def devices(self) -> int:
        """How many devices of a machine it takes."""
        return int(self._source.get("devices") or 1)

    @property
    def silence(self) -> float | None:
        """Seconds without output after which it is ended."""
        text = self._source.get("silence")
        return None if text is None else parse_duration(text, "silence")

    @property
    def last_epoch(self) -> int | None:
        """The epoch after which it is stopped."""
        return cast("int | None", (self._source.get("until") or {}).get("epoch"))

    @cached_property
    def _folder_code(self) -> _FolderCode:
        """Shared by all configs that are made of this one: they have the code as it was when the first of them was asked for it."""
        return _FolderCode(self.folder)

    def code(self) -> str:
        return self._code(self._folder_code.code)

    def code_again(self) -> str:
        """Return what `code` of a new config would, in a hurry."""
        return self._code(folder_code_again(self.folder))

    def _code(self, of_folder: FolderCode) -> str:
        arguments, variables = self.filled(dict.fromkeys(GIVEN, ""))
        parts: list[Any] = [of_folder.digest, named_files(self.folder, [*arguments, *variables.values()])]
        path = variables.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        places = [str(self.folder / place) for place in path.split(os.pathsep) if place]
        elsewhere = code_elsewhere(arguments, self.folder, of_folder.holds, places)
        return digest_of([*parts, elsewhere] if elsewhere else parts)[:16]

    def filled(self, given: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
        """Return the arguments and the variables of a run. given: values of `GIVEN`. Raises StudyError."""
        return self.template.filled(self._lookup(given))

    def _lookup(self, given: Mapping[str, Any]) -> Lookup:
        return lambda path: given[path] if path in given else self.get(path)

    def _check(self) -> None:
        """Raise StudyError where a placeholder names no setting, or one of a value that cannot stand there."""
        for path, place in self.template.places():
            if path in GIVEN:
                continue
            try:
                self.get(path)
            except StudyError:
                blocks = [name for name, value in self.tree().items() if isinstance(value, dict)]
                raise StudyError(
                    f"{{{cut(path)}}} is no setting of the baseline",
                    place=place,
                    hint=f"{nearest(path, [*GIVEN, *self.flatten(), *blocks])}; braces as such are {{{{ and }}}}",
                ) from None
        arguments, _ = self.filled(dict.fromkeys(GIVEN, ""))
        if not arguments:
            raise StudyError("names no program", place="command")

    @property
    def interpreter(self) -> str | None:
        """The Python that the command begins with, absolute; None where it begins with another program. Raises StudyError."""
        program = self._source["command"][0]
        return self.python if program in PYTHONS else None

    @property
    def python(self) -> str:
        """The Python of the study, by default the one that runs ablate. Raises StudyError."""
        named = cast("str | None", self._source.get("python"))
        if named is None:
            return sys.executable
        if os.sep not in named:
            on_path = shutil.which(named)
            if on_path is None:
                raise StudyError(f"there is no program {cut(named)!r}", place="python", hint="write its path")
            return on_path
        # Not resolved: the interpreter of a virtual environment is a link, and knows it by its path.
        path = Path(os.path.normpath(self.folder / Path(named).expanduser()))
        if not os.access(path, os.X_OK) or path.is_dir():
            raise StudyError(
                f"there is no program {str(path)!r}", place="python", hint=f"it is relative to {self.folder}"
            )
        return str(path)

    def inputs(self, run_folder: Path) -> CommandInputs:
        """Return what the command may read besides its code, as it is now. run_folder: of the run that is about to begin."""
        arguments, variables = self.filled(dict.fromkeys(GIVEN, ""))
        data = [self.folder / Path(path).expanduser() for path in self._source.get("data") or ()]
        in_key = [self.folder / path for path in named_files(self.folder, [*arguments, *variables.values()])]
        return CommandInputs(
            folder_code_again(self.folder),
            self.folder,
            [*arguments, *variables.values()],
            without=[run_folder, *data, *in_key],
            variables=variables,
        )

    def environment(self, variables: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a run. variables: the study's, which have the last word. own: ablate's."""
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
        path = [str(Path(self.python).parent), *inherited.get("PATH", os.defpath).split(os.pathsep)]
        return {
            **inherited,
            "PATH": os.pathsep.join(dict.fromkeys(path)),
            "PYTHONUNBUFFERED": "1",
            **own,
            **variables,
        }


class _FolderCode:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def code(self) -> FolderCode:
        return folder_code(self._folder)


def _overlap(path: str, other: str) -> bool:
    """Return whether one of two paths is the other, or a block that holds it."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


class CommandTrainer(OwnTrainer):
    """Training by a command, which a study names under `command:`."""

    keys: tuple[str, ...] = (
        *("command", "folder", "python", "env", "metrics", "epoch", "until", "silence"),
        *("resume", "tty", "isolate", "devices", "data"),
    )

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
        if source["epoch"] is not None and source["epoch"] not in source["metrics"]:
            raise StudyError(
                f"{cut(source['epoch'])!r} is not one of the metrics",
                place="epoch",
                hint=nearest(source["epoch"], source["metrics"]),
            )
        if source["epoch"] is not None and tells_only_steps(source["metrics"][source["epoch"]]):
            raise StudyError(
                f"{cut(source['epoch'])!r} tells only a step, and no value that could end an epoch",
                place="epoch",
                hint="leave `epoch:` out: values have the last step that was told, and the next step ends their epoch",
            )
        return CommandConfig.parse(source, tree, place=place)

    def yields(self, config: Config) -> tuple[str, ...]:
        return tuple(name for name, spec in _own(config).metrics.items() if not tells_only_steps(spec))

    def permissions(self, config: Config) -> tuple[Permission, ...]:
        action = f"run the command {self.code_name(config)!r}"
        return (Permission("command", "commands", True, action, "--allow-command"),)

    def code_name(self, config: Config) -> str:
        return cut(shlex.join(config.source["command"]), 200)

    def seed_advice(self) -> str:
        return "write {seed} in `command:`, or let the program read the variable ABLATE_SEED"

    def code_folder(self, config: Config) -> Path | None:
        return _own(config).folder

    def devices(self, config: Config) -> int:
        return _own(config).devices

    def preload(self, config: Config) -> tuple[str, ...]:  # noqa: ARG002 — a program has its own process
        return ()

    def preparer(self) -> Callable[[Config], DataFacts]:
        return _prepare

    def messages(self, task: Task, folders: Folders, cancelled: Collection[str]) -> Iterator[Message]:
        return self._run(task, folders, cancelled, lambda _findings, _line: None)

    def _run(
        self,
        task: Task,
        folders: Folders,
        cancelled: Collection[str],
        told: Callable[[Findings, str], None],
    ) -> Iterator[Message]:
        payload: RunPayload = task.payload
        config = CommandConfig(payload.source, payload.config, payload.seed)
        if payload.code is not None and config.code_again() != payload.code:
            reason = f"the code in {config.folder} is not what it was when this study was planned"
            yield Failure(
                "code",
                f"{reason}; run the study again: it plans its runs with the code as it is now",
                place="command",
            )
            return
        data = PlannedData(config.folder, config.source.get("data") or (), payload.data)
        if complaint := data.complaint():
            yield Failure("code", complaint, place="data")
            return
        keep = task.attempt > 1 and bool(config.source.get("resume"))
        with folders.run(task.run, keep=keep) as folder, contextlib.ExitStack() as stack:
            place, copy = config.folder, None
            if config.source.get("isolate"):
                stores = () if folders.runs is None else (folders.runs.parent.absolute(),)
                copy = stack.enter_context(_private_copy(config, folder / COPY, stores))
                place = copy.folder
            output = KeptOutput(copy=folders.output(task.run))
            inputs = config.inputs(folder)
            for message in _Attempt(config, task, folder, place, output, told).messages(cancelled):
                if copy is not None and isinstance(message, Result):
                    copy.check()
                if is_end(message):
                    output.discard_copy()
                if isinstance(message, Result) and (complaint := data.changed()):
                    yield Failure("code", complaint, place="data", files=message.files)
                elif isinstance(message, Result) and (text := inputs.text()):
                    yield replace(message, facts={**message.facts, "inputs": text})
                else:
                    yield message

    def trial(self, task: Task) -> Iterator[str]:
        """Show the lines in which metrics were found, the first of each metric and the last, which counts, and where none was found the
        last of the output.
        """
        payload: RunPayload = task.payload
        config = CommandConfig(payload.source, payload.config, payload.seed)
        counts = dict.fromkeys(config.metrics, 0)
        lines: list[str] = []
        last: dict[str, str] = {}

        def told(findings: Findings, line: str) -> None:
            for each in findings:
                if not each.metric:
                    continue
                counts[each.metric] += 1
                if line:
                    value = (
                        f" = {format_value(each.value)}" if isinstance(each, Found) else f": step {each.step}"
                    )
                    shown_line = f"  {each.metric}{value}  ←  {cut(plain_text(line).strip(), 200)}"
                    if counts[each.metric] <= SHOWN_MATCHES:
                        lines.append(shown_line)
                    else:
                        last[each.metric] = shown_line

        given = {
            "seed": payload.seed,
            "run_dir": "RUN_DIR",
            "device": payload.device,
            "attempt": task.attempt,
        }
        yield f"$ {shlex.join(config.filled(given)[0])}  (in {config.folder})"
        footprint = None if config.source.get("isolate") else Footprint(config.folder)
        for message in self._run(task, NO_FOLDERS, (), told):
            yield from lines
            lines.clear()
            yield from shown(message)
            if isinstance(message, Failure):
                yield from message.detail.splitlines()[1:]
        for name, number in counts.items():
            yield f"{name}: found {counted(number, 'time')}{'; the last counts' if name in last else ''}"
            yield from [last[name]] if name in last else []
        if footprint and (written := footprint.written()):
            yield (
                f"it wrote {cut(joined(written), 200)} in {config.folder}, where runs that go side by side write them too: with"
                " `isolate: true` each run has a copy of the folder; or let it write to {run_dir}"
            )


def _own(config: Config) -> CommandConfig:
    return cast("CommandConfig", config)


def _prepare(config: Config) -> DataFacts:
    """Check that a command can be started, and read the data that it names. Raises StudyError, DataError and TrainingError."""
    own = _own(config)
    arguments, variables = own.filled(dict.fromkeys(GIVEN, ""))
    if own.folder.is_dir():
        arguments[0] = own.interpreter or arguments[0]
    check_startable(arguments, own.folder, own.environment(variables, {}))
    return DataFacts(data_fingerprint(own.folder, own.source.get("data") or ()))


def _private_copy(config: CommandConfig, place: Path, without: tuple[Path, ...]) -> FolderCopy:
    """Return a copy of the command's folder, with what an earlier attempt that is resumed has written there."""
    before = place.with_name(f"{place.name}.before")
    if place.exists():
        place.rename(before)
    copy = FolderCopy(
        config.folder, place, data=[Path(path) for path in config.source.get("data") or ()], without=without
    )
    if before.exists():
        shutil.copytree(before, place, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(before)
    return copy


class _Attempt:
    """One attempt of a run. folder: of its own. place: the folder that the command runs in. output: keeps what it prints.

    told: called with everything that is found, and the line in which it was, '' for none.
    """

    def __init__(
        self,
        config: CommandConfig,
        task: Task,
        folder: Path,
        place: Path,
        output: KeptOutput,
        told: Callable[[Findings, str], None] = lambda _findings, _line: None,
    ) -> None:
        payload: RunPayload = task.payload
        given = {
            "seed": payload.seed,
            "run_dir": str(folder),
            "device": payload.device,
            "attempt": task.attempt,
        }
        arguments, variables = config.filled(given)
        arguments[0] = config.interpreter or arguments[0]
        scratch = folder / "mlflow"
        own = {
            "ABLATE_SEED": str(payload.seed),
            "ABLATE_RUN_DIR": str(folder),
            "ABLATE_DEVICE": payload.device,
            "ABLATE_ATTEMPT": str(task.attempt),
            "OMP_NUM_THREADS": str(payload.threads * (config.devices if payload.device == "cpu" else 1)),
            **scratch_mlflow(folder),
        }
        if payload.device == "cpu":  # the worker's own environment names the GPUs of its slot
            own["CUDA_VISIBLE_DEVICES"] = ""
        metric = payload.metric or next(iter(config.metrics))
        self._run = task.run
        self._folder = folder
        self._told = told
        self._config = config
        self._payload = payload
        self._arguments = arguments
        self._ends = config.source.get("epoch") or metric
        self._curves = CurveBuilder(metric, self._ends)
        self._channels = open_channels(config.metrics, Places(folder, place, scratch))
        self._process = Process(
            arguments,
            place,
            config.environment(variables, own),
            terminal=bool(config.source.get("tty")),
            silence=config.silence,
            output=output,
        )
        self._errors = ToldErrors()
        self._metric = metric
        self._has_other_line, self._line_of_test = False, ""
        self._began = time.perf_counter()

    def messages(self, cancelled: Collection[str]) -> Iterator[Message]:
        """Run the command to its end, and yield its epochs and its result."""
        with self._process:
            yield Start(self._facts())
            for epoch in self._epochs():
                if epoch is None:
                    if self._run in cancelled:
                        self._stop()
                        yield replace(CANCELLED, files=self._files())
                        return
                    continue
                yield epoch
                diverged = bool(self._curves.not_finite())
                if diverged or self._is_enough(epoch):
                    self._stop()
                    yield self._result(diverged=diverged)
                    return
            yield self._end()

    def _is_enough(self, epoch: Epoch) -> bool:
        return self._config.last_epoch is not None and epoch.number >= self._config.last_epoch

    def _stop(self) -> None:
        """Ask the command to end, and wait until it has."""
        self._process.stop()
        for _ in self._process.lines(TICK):
            pass

    def _epochs(self) -> Iterator[Epoch | None]:
        """Yield the epochs as they end, and None now and then, until the command has ended."""
        looked = time.monotonic()
        for lines in self._process.lines(TICK):
            for line in lines:
                self._errors.line(line)
                for channel in self._channels:
                    findings = channel.line(line)
                    metrics = {each.metric for each in findings if isinstance(each, Found)}
                    if self._metric in metrics:
                        is_of_test = words_of_split(plain_text(line)) == {"test"}
                        self._has_other_line |= not is_of_test
                        self._line_of_test = plain_text(line).strip() if is_of_test else ""
                    if self._ends in metrics:
                        yield from self._look()  # what was written before the epoch ended belongs to it
                    if findings:
                        self._told(findings, line)
                        yield from self._curves.add(findings)
            if time.monotonic() - looked >= TICK:
                yield from self._look()
                looked = time.monotonic()
            yield None
        yield from self._look(ended=True)
        yield from self._curves.end()

    def _look(self, *, ended: bool = False) -> Iterator[Epoch]:
        """Yield the epochs that have ended by what was written elsewhere than in the output."""
        for channel in self._channels:
            for findings in channel.look(ended):
                self._told(findings, "")
                yield from self._curves.add(findings)

    def _facts(self) -> dict[str, Any]:
        about = machine(self._payload.device)
        # Which versions a program has only the program knows.
        facts = {name: value for name, value in about.items() if name not in ("torch", "python")}
        if self._config.interpreter is not None:
            facts["interpreter"] = self._config.interpreter
        return facts

    def _result(self, *, diverged: bool) -> Result:
        curves = self._curves
        last = curves.last.number if curves.last else 0
        facts: dict[str, Any] = curves.facts()
        if curves.resolution:
            facts["resolution"] = curves.resolution
        if diverged:
            facts["reason"] = f"{', '.join(curves.not_finite())} not finite in epoch {last}"
        elif self._errors.last:
            facts["reason"] = TOLD + self._errors.last
        elif self._line_of_test and self._has_other_line and not reads_test_set(self._metric):
            facts["reason"] = OF_TEST + cut(self._line_of_test, 200)
        final = {**curves.final, "time/train_seconds": time.perf_counter() - self._began}
        epoch = last if diverged else curves.counts or last
        files = {**left_figures(self._folder), **self._files()}
        return Result(diverged, epoch, final, files, facts)

    def _files(self) -> dict[str, bytes]:
        return {OUTPUT: self._process.output.content()}

    def _end(self) -> Message:
        """Return the end of a run whose command has ended."""
        ended = self._process.ended
        assert ended is not None
        if self._curves.not_finite():
            return self._result(diverged=True)
        if not ended.well:
            silent = ended.cause == "silence"
            kind = "timeout" if silent else "crash" if ended.code < 0 else "error"
            return self._failure(f"the command {ended.words}", kind, self._place_of_error())
        for channel in self._channels:
            for name, why in channel.missing().items():
                return self._failure(
                    f"the metric {name!r} was never found: {why}", "metrics", f"metrics.{name}"
                )
        return self._result(diverged=False)

    def _place_of_error(self) -> str:
        """Return file and line of the last Python traceback of the output, else the command's name for itself."""
        frames = re.findall(
            r'File "([^"<>]+)", line (\d+)', "\n".join(self._process.output.last_lines(SHOWN_LINES))
        )
        return ":".join(frames[-1]) if frames else "command"

    def _failure(self, reason: str, kind: Any, place: str) -> Failure:
        lines = self._process.output.last_lines(SHOWN_LINES)
        if kind != "memory" and says_out_of_memory("\n".join(lines)):
            kind = "memory"
        told = f"; its last line: {lines[-1]}" if lines else "; it printed nothing"
        detail = "\n".join([reason, f"$ {shlex.join(self._arguments)}", *lines])
        return Failure(kind, cut(reason + told, LONGEST_REASON), detail, place, self._files())
