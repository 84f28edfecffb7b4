"""The user's own training: a function, named by import path, that yields a dict of metrics an epoch.

    def train(config: dict, seed: int):
        for epoch in range(config["epochs"]):
            ...
            yield {"train/loss": 0.7, "val/accuracy": 0.81}

The last dict may add `test/…` metrics, which are kept apart from those that arms are chosen by; a dict that is returned adds to the last
epoch. A function that only returns a dict has one epoch. Beside `config` and `seed` it may have the parameters `device` (text, such as
`cuda:0`) and `run` (`OwnRun`).

Runs are kept apart: each begins with seeded generators of random numbers, in the working folder, with the environment and the settings
that there were before the first. A process whose run has left anything else behind trains nothing else (`state`).
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import multiprocessing
import os
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ablate.code_digest import digest_of, is_users, look_in_working_folder, training_code, training_folder
from ablate.config import Config, FreeConfig, whole_reals
from ablate.data.facts import DataFacts
from ablate.errors import AblateError, StudyError, TrainingError, nearest
from ablate.events import Task
from ablate.text import cut
from ablate.training.inputs import Inputs
from ablate.training.left_figures import left_figures
from ablate.training.outcome import (
    CANCELLED,
    Failure,
    Message,
    MetricsError,
    Result,
    Steps,
    failure,
    is_end,
    place_of,
    short_path,
)
from ablate.training.output import OUTPUT
from ablate.training.own import OwnTrainer, messages, shown_value
from ablate.training.own_run import OwnRun
from ablate.training.payload import TORCH, Folders, RunPayload
from ablate.training.permission import Permission, to_import
from ablate.training.source_files import PlannedData, data_fingerprint
from ablate.training.state import ProcessState, seed_everything, worker_state
from ablate.training.surroundings import Surroundings, scratch_mlflow

FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""What `train:` looks like: `package.module:function`."""

GIVEN = ("config", "seed", "device", "run")
"""Parameters that a function may have, by name; others take the configuration and the seed in this order."""

LONGEST_LEFT = 300
"""Characters of the names of what a run left behind, in its record."""

Fit = Callable[..., Any]


# --- the function -----------------------------------------------------------------------------------------------------


def load(path: str) -> Fit:
    """Import the function that `package.module:function` names, from the working folder too, and check that it can be a training.

    Raises TrainingError.
    """
    module_name, _, name = path.partition(":")
    look_in_working_folder()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs code of the user's, which may raise anything
        where = place_of(error)
        raise TrainingError(
            f"cannot import {module_name!r}: {_in_words(error)}" + (f" ({where})" if where else ""),
            place=path,
        ) from error
    fit = getattr(module, name, None)
    if fit is None:
        functions = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise TrainingError(f"{module_name} has no {name!r}", place=path, hint=nearest(name, functions))
    if complaint := _complaint(fit, name):
        raise TrainingError(
            complaint,
            place=path,
            hint=f"write `def {name}(config, seed):` that yields a dict of metrics an epoch",
        )
    return cast("Fit", fit)


def _in_words(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    return f"{type(error).__name__}: {cut(str(error))}" if str(error) else type(error).__name__


def _complaint(fit: Any, name: str) -> str | None:
    """Return why something cannot be a training; None where it can."""
    if inspect.isclass(fit):
        return f"{name!r} is a class, not a function"
    if not callable(fit):
        return f"{name!r} is {cut(repr(fit))}, not a function"
    if getattr(fit, "__name__", "") == "<lambda>":
        return f"{name!r} is a lambda, not a function that yields"
    called = fit if inspect.isroutine(fit) or isinstance(fit, functools.partial) else type(fit).__call__
    if any(
        is_async(each)
        for is_async in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        for each in (fit, called)
    ):
        return f"{name!r} is `async`, and nobody would await it"
    owner = str(getattr(fit, "__module__", None) or type(fit).__module__)
    if not inspect.isfunction(called) and owner.partition(".")[0] in {
        *sys.stdlib_module_names,
        "numpy",
        "torch",
    } - {"functools"}:
        return f"{name!r} is a function of {owner}, and no training"
    try:
        _arguments(fit, dict.fromkeys(GIVEN))
    except TrainingError as error:
        return error.message
    if inspect.isfunction(fit) and not hasattr(fit, "__wrapped__") and _returns_nothing(fit):
        return f"{name!r} neither yields metrics nor returns any"
    return None


def _arguments(fit: Fit, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that a function is called with, by position and by name. given: by the names `GIVEN`.

    Raises TrainingError where it takes other arguments.
    """
    try:
        parameters = list(inspect.signature(fit).parameters.values())
    except (TypeError, ValueError):  # a compiled function tells nothing
        return [given["config"], given["seed"]], {}
    kinds = inspect.Parameter
    left = [name for name in ("config", "seed") if not any(p.name == name for p in parameters)]
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind == kinds.VAR_POSITIONAL:
            positional += [given[name] for name in left]
            left = []
        elif parameter.kind == kinds.VAR_KEYWORD:
            named |= {name: given[name] for name in left}
            left = []
        elif parameter.name in given:
            if parameter.kind == kinds.POSITIONAL_ONLY:
                positional.append(given[parameter.name])
            else:
                named[parameter.name] = given[parameter.name]
        elif left and parameter.kind != kinds.KEYWORD_ONLY:
            if named and parameter.kind == kinds.POSITIONAL_OR_KEYWORD:
                named[parameter.name] = given[left.pop(0)]
            else:
                positional.append(given[left.pop(0)])
        elif parameter.default is kinds.empty:
            raise TrainingError(
                f"nothing is known for its parameter {parameter.name!r}: {', '.join(GIVEN)} are given"
            )
    if left:
        raise TrainingError(f"it has no parameter {left[0]!r}")
    return positional, named


def _returns_nothing(fit: Fit) -> bool:
    """Return whether a function has no `yield`, and no `return` with a value. False where its text cannot be read."""
    if inspect.isgeneratorfunction(fit):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fit))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return False
    waiting: list[ast.AST] = list(ast.iter_child_nodes(tree))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return) and node.value is not None:
            return False
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return True


def _epochs(outcome: Any) -> Generator[Any, None, Any]:
    """Yield the dicts of metrics that calling a function gave, and return the last of them where it returns one."""
    if isinstance(outcome, Mapping):
        yield outcome
        return None
    if isinstance(outcome, Iterator) or (
        isinstance(outcome, Iterable) and not isinstance(outcome, str | bytes)
    ):
        return (yield from outcome)
    raise MetricsError(
        f"training returned {shown_value(outcome)}: `yield` a dict of metrics an epoch, or `return` one"
    )


# --- the trainer ------------------------------------------------------------------------------------------------------


class FunctionConfig(FreeConfig):
    """The configuration of a run whose training is a function of the user's."""

    @property
    def train(self) -> str:
        """The function, as `package.module:function`."""
        return str(self.source["train"])

    @property
    def keyed_source(self) -> Mapping[str, Any]:
        return {"train": self.train}

    def recipe(self, fingerprint: str) -> str:
        # One setting to a person, and yet a function may take 1 for a number of things and 1.0 for all of them.
        own = super().recipe(fingerprint)
        reals = whole_reals(self._values)
        return digest_of([own, reals])[:16] if reals else own

    def code(self) -> str:
        return training_code(self.train).digest


class FunctionTrainer(OwnTrainer):
    """Training by a function of the user's, which a study names under `train:`."""

    imports_code = True
    keys: tuple[str, ...] = ("train", "isolate", "data")

    def owns(self, config: Config) -> bool:
        return isinstance(config, FunctionConfig)

    def parse(
        self, source: Mapping[str, Any], tree: Mapping[str, Any], *, place: Callable[[str], str] = str
    ) -> FunctionConfig:
        train = source["train"]
        if not re.fullmatch(FUNCTION, train):
            raise StudyError(
                f"{cut(train)!r} does not name a function",
                place="train",
                hint="write `package.module:function`",
            )
        return FunctionConfig.parse(source, tree, place=place)

    def permissions(self, config: Config) -> tuple[Permission, ...]:
        return (to_import("train", self.code_name(config)),)

    def code_name(self, config: Config) -> str:
        return cast("FunctionConfig", config).train

    def preparer(self) -> Callable[[Config], DataFacts]:
        return lambda config: DataFacts(data_fingerprint(Path.cwd(), config.source.get("data") or ()))

    def seed_advice(self) -> str:
        return (
            "`random`, NumPy and torch are seeded before every run, so the function draws nothing from them, seeds them anew with a number"
            " of its own, or draws from a generator of its own; seed that with the argument `seed`"
        )

    def isolation(self, config: Config) -> str:
        isolate = config.source.get("isolate")
        if isolate is False:
            return (
                "Runs shared processes, whatever those before them had left behind there (`isolate: false`)."
            )
        left = " where the run before it had left anything behind that could be seen and not be undone"
        return (
            "Every run began with generators of random numbers seeded with its seed, and with the environment and settings of the"
            f" first; its process was fresh{'' if isolate else left}."
        )

    def code_folder(self, config: Config) -> Path | None:
        return training_folder(self.code_name(config))

    def preload(self, config: Config) -> tuple[str, ...]:
        """Return what every fresh process would import again; torch where the training mentions it anywhere: a worker that has it for
        nothing has lost a second or two, one that lacks it as much for every run.
        """
        torch = TORCH if training_code(self.code_name(config)).imports_torch else ()
        return ("ablate.training.runs", *torch)

    def messages(self, task: Task, folders: Folders, cancelled: Collection[str]) -> Iterator[Message]:
        for _, message in self.steps([task], folders, cancelled):
            yield message

    def steps(self, tasks: Sequence[Task], folders: Folders, cancelled: Collection[str]) -> Steps:
        """Train the runs of a bundle one after another."""
        for task in tasks:
            if task.run in cancelled:
                yield task.run, CANCELLED
                continue
            with folders.run(task.run, keep=True) as folder:
                attempt = _FunctionAttempt(task, folder, folders.output(task.run), cancelled)
                with contextlib.closing(attempt.messages()) as its_messages:
                    for message in its_messages:
                        yield task.run, message


_states: dict[str, tuple[Fit, ProcessState | None]] = {}
"""The trainings that this process has imported, with what there was before their first runs."""

_inputs: dict[str, Inputs] = {}
"""What those trainings read."""


class _FunctionAttempt:
    """One attempt of a run. folder: of the run. output: a file for what it prints while it runs."""

    def __init__(self, task: Task, folder: Path, output: Path | None, cancelled: Collection[str]) -> None:
        self._payload: RunPayload = task.payload
        self._train = str(self._payload.source["train"])
        self._is_cancelled: Callable[[], bool] = lambda: task.run in cancelled
        self._run = OwnRun(folder, task.attempt, self._is_cancelled)
        self._output = output
        self._inputs = _inputs.setdefault(self._train, Inputs())
        self._data = PlannedData(Path.cwd(), self._payload.source.get("data") or (), self._payload.data)
        self._called: Any = None
        """What calling the function gave."""

    def messages(self) -> Generator[Message, None, None]:
        """Train, and yield what comes of it. The end comes last, once what the run has left behind is seen to."""
        surroundings = Surroundings(scratch_mlflow(self._run.folder), self._output)
        steps: Generator[Any, None, Any] = _epochs({})
        end: Message = CANCELLED
        try:
            fit = self._loaded(surroundings)
            if self._payload.check:
                yield Result(False, 0, {}, {}, {})
                return
            steps = self._begun(fit, surroundings)
            for message in messages(lambda: steps, self._payload.metric, self._payload.device):
                if is_end(message):
                    end = CANCELLED if self._run.was_broken_off() else message
                    break
                yield message
                if self._is_cancelled():
                    break
        except BaseException as error:
            # Ctrl-C in a process that is no worker means ablate.
            if isinstance(error, GeneratorExit) or (
                isinstance(error, KeyboardInterrupt) and multiprocessing.parent_process() is None
            ):
                raise
            end = self._failure(error)
        finally:
            # A training may fail while it cleans up; that changes no result.
            with contextlib.suppress(Exception):
                steps.close()
            printed = surroundings.end()
            self._run.tidy(done=isinstance(end, Result))
        yield self._concluded(end, printed)

    def _loaded(self, surroundings: Surroundings) -> Fit:
        """Return the function. Where it is imported for the first time, what importing sets remains set."""
        if complaint := self._data.complaint():
            raise _ChangedError(complaint, place="data")
        loaded = set(sys.modules)
        data = [Path(path).expanduser() for path in self._payload.source.get("data") or ()]
        shares = self._payload.source.get("isolate") is False
        self._inputs.begin([self._run.folder, *data], keep=shares)
        if "torch" not in sys.modules:
            os.environ["OMP_NUM_THREADS"] = str(self._payload.threads)  # read where torch is imported
        with surroundings():
            if self._train not in _states:
                # What its modules draw while they are imported, for weights say, is the same in every process. torch begins with
                # another seed in each.
                with contextlib.suppress(StudyError, ImportError):  # `load` says what is wrong
                    if training_code(self._train).imports_torch:
                        importlib.import_module("torch")
                seed_everything(0)
            with self._inputs:
                fit = load(self._train)
        if _states.get(self._train, (None, None))[0] is not fit:
            surroundings.adopt()
            self._inputs.imported()
            self._check_code()
            new = (name for name in set(sys.modules) - loaded if _is_users_module(name))
            modules = {*training_code(self._train).modules, *new}
            _states[self._train] = fit, worker_state(modules)
        state = _states[self._train][1]
        if state is not None:
            state.begin()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self._payload.threads)
        return fit

    def _check_code(self) -> None:
        """Raise where the code is not what the run was planned with: its result would stand under the key of other code."""
        if self._payload.code is not None and training_code(self._train).digest != self._payload.code:
            raise _ChangedError(
                "its code has changed since the plan was made",
                place=self._train,
                hint="run the study again: it makes a plan with the code as it is",
            )

    def _begun(self, fit: Fit, surroundings: Surroundings) -> Generator[Any, None, Any]:
        """Yield what the function yields, each step in its surroundings, and return what it returns."""
        payload = self._payload
        given = {"config": payload.config, "seed": payload.seed, "device": payload.device, "run": self._run}
        positional, named = _arguments(fit, given)
        with surroundings(), self._inputs:
            seed_everything(payload.seed)
            self._called = fit(*positional, **named)
            steps = _epochs(self._called)
        try:
            while True:
                with surroundings(), self._inputs:
                    try:
                        values = next(steps)
                    except StopIteration as end:
                        return end.value
                yield values
        finally:
            with surroundings():
                steps.close()

    def _failure(self, error: BaseException) -> Failure:
        if isinstance(error, _ChangedError):
            reason = f"{error.message}; {error.hint}" if error.hint else error.message
            return Failure("code", reason, place=error.place or self._train)
        end = failure(error, place=_place_of_yield(self._called) if isinstance(error, MetricsError) else "")
        if isinstance(error, AblateError) and error.hint:
            return replace(end, reason=f"{end.reason}; {error.hint}")
        return end

    def _concluded(self, end: Message, printed: bytes) -> Message:
        """Return the end of the attempt with its artifacts, and with whether its process may train anything else."""
        assert isinstance(end, Result | Failure)
        figures = left_figures(self._run.folder) if isinstance(end, Result) else {}
        self._inputs.collect()  # before open files are looked at
        files = {**end.files, **figures, **self._run.files(), **({OUTPUT: printed} if printed else {})}
        _, state = _states.get(self._train, (None, None))
        left = state.left_behind(_is_users_module) if state is not None else []
        if isinstance(end, Result) and any(name.startswith("the module") for name in left):
            # What was imported in the middle of the run may have been edited since the plan was made.
            try:
                self._check_code()
            except _ChangedError as error:
                end = self._failure(error)
        if isinstance(end, Result) and (complaint := self._data.changed()):
            end = Failure("code", complaint, place="data")
        isolate = self._payload.source.get("isolate")
        spent = bool(isolate) or (isolate is None and bool(left)) or isinstance(end, Failure)
        if isinstance(end, Failure):
            return replace(end, files=files, spent=spent)
        facts = {**end.facts, **({"left_behind": cut(", ".join(left), LONGEST_LEFT)} if left else {})}
        if inputs := self._inputs.text(training_code(self._train).files):
            facts["inputs"] = inputs
        return replace(end, files=files, spent=spent, facts=facts)


def _place_of_yield(steps: Any) -> str:
    """Return the file and line at which a generator waits, or the one that it takes its values from; '' where that is not known."""
    place = ""
    while steps is not None:
        frame, steps = getattr(steps, "gi_frame", None), getattr(steps, "gi_yieldfrom", None)
        if frame is not None and is_users(frame.f_code.co_filename):
            place = f"{short_path(frame.f_code.co_filename)}:{frame.f_lineno}"
    return place


class _ChangedError(TrainingError):
    """The code of a training, or its data, is not what it was when its runs were planned."""


def _is_users_module(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and is_users(file)
