"""From options to a running study: permission, devices, executor, data, recovery, and the coordinator with all it needs.

Nothing heavy is imported before it is needed: a worker pool starts to warm up while the rest is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ablate import interrupts, streams
from ablate.errors import AblateError, StoreError, StudyError
from ablate.text import counted, folded, joined, parse_duration, visible, without_password

if TYPE_CHECKING:
    from ablate.analysis import Analysis, Comparison, Effect
    from ablate.config import Config, RunConfig
    from ablate.data.facts import DataFacts
    from ablate.events import Bundle, Event
    from ablate.executors import Executor, Slot, Wanted
    from ablate.executors.local import LocalExecutor
    from ablate.kept_answer import AnswerLine
    from ablate.scheduling.coordinate import Coordinator, Options, Outcome
    from ablate.scheduling.observer import Observer
    from ablate.scheduling.seed_check import SeedCheck
    from ablate.study.design import Plan
    from ablate.study.keys import Study
    from ablate.study.record import PlanRecord
    from ablate.tracking.plans import StoredPlan
    from ablate.tracking.store import Store
    from ablate.training import Trainer

EXECUTORS = {"local": "a process per slot", "inline": "this process", "ray": "the machines of a Ray cluster"}
"""Where `--executor` lets runs train: modules of `ablate.executors`, each with the functions `create` and `check`."""

MOST_SENTENCES = 20
"""Arms and effects in a plan's description: MLflow takes 8,000 characters."""

MOST_PROJECT_BYTES = 1 << 24
"""Bytes of a pyproject.toml that is read."""

CHECKPOINT_VARIABLE = "ABLATE_CHECKPOINT_EVERY"


def notify(text: str, hint: str | None = None) -> None:
    """Print a line for people: on stderr, so that stdout holds results only. hint: what to do, in lines below it.

    No name in it can pretend to be another line.
    """
    _print(without_password(text), hint)


def announce(text: str, *, quiet: bool = False) -> None:
    """Print what a command does first, before anything is imported for it; at a terminal only, where nothing would look like a hang."""
    if not quiet and sys.stderr.isatty():
        notify(text)


def notify_error(error: AblateError) -> None:
    """Print an error as `notify` does."""
    # One by one: of a place that is called `password`, the message behind it is not what it holds.
    parts = [without_password(part) for part in (error.place, error.message) if part]
    _print(f"error: {': '.join(parts)}", error.hint)


def _print(text: str, hint: str | None) -> None:
    lines = [visible(text)]
    lines += [f"  {visible(without_password(line.strip()))}" for line in (hint or "").splitlines()]
    if (width := streams.width(sys.stderr)) is not None:
        lines = [folded(line, width) for line in lines]
    print("\n".join(lines), file=sys.stderr)


def prepare_process() -> None:
    """Make this process able to work with files. Raises StudyError where the working folder has been removed.

    Every path that a command knows begins there. Its owner may use what a command makes, whatever the umask.
    """
    os.umask(os.umask(0o077) & 0o077)
    global _working_folder  # noqa: PLW0603 — a process has one working folder
    try:
        _working_folder = Path.cwd(), Path.cwd().stat()
    except OSError as error:
        raise StudyError(
            f"the working folder is not there any more ({error.strerror})", hint="change into one that is"
        ) from None


CONTINUES_THERE = "what is finished is in the folder, wherever it lies now; the same command continues there"

_working_folder: tuple[Path, os.stat_result] | None = None
"""Where the command began, and which folder that was."""


def lost_folder() -> Path | None:
    """Return the working folder where it has been moved, renamed or removed since `prepare_process`; else None."""
    if _working_folder is None:
        return None
    folder, about = _working_folder
    try:
        return None if os.path.samestat(folder.stat(), about) else folder
    except OSError:
        return folder


# --- what a command was given -----------------------------------------------------------------------------------------


def seconds(text: str | None, option: str) -> float | None:
    """Return the seconds of an option such as `90s` or `2h`, or None where it was not given. Raises StudyError."""
    return None if text is None else parse_duration(text, option)


def check_permission(study: Study, allowed: Mapping[str, Sequence[str | bool] | None]) -> None:
    """Refuse to run code that a study file names, in its baseline or in a level, unless the user allowed it.

    allowed: what the options of the command allow, by setting (`Permission.setting`); what is under `[tool.ablate]` in the
    pyproject.toml of the working folder is added. Raises StudyError.
    """
    from ablate.study import design

    check_permissions(design.settings(study), allowed)


def check_permissions(configs: Iterable[Config], allowed: Mapping[str, Sequence[str | bool] | None]) -> None:
    """Refuse to run code that configs name, unless the user allowed it. allowed: as for `check_permission`."""
    from ablate.training import trainer_of

    needed = dict.fromkeys(wanted for config in configs for wanted in trainer_of(config).permissions(config))
    undecided = [wanted for wanted in needed if wanted.value not in (allowed.get(wanted.setting) or ())]
    missing = [wanted for wanted in undecided if wanted.value not in _allowed_by_project(wanted.setting)]
    if not missing:
        if undecided:
            tell_once({setting: _allowed_by_project(setting) for setting in ("imports", "commands")})
        return
    options = " ".join(dict.fromkeys(wanted.option for wanted in missing))
    first = missing[0]
    listed = ", ".join(dict.fromkeys(f'"{w.value}"' for w in missing if w.setting == first.setting))
    line = "true" if first.value is True else f"[{listed}]"
    raise StudyError(
        f"the study would {joined(dict.fromkeys(wanted.action for wanted in missing))}, which you have not allowed",
        place=first.key,
        hint=f"if you trust that code: {options}, or `{first.setting} = {line}` under [tool.ablate] in pyproject.toml",
    )


def tell_once(permitted: Mapping[str, Sequence[Any]]) -> None:
    """Say that the pyproject.toml of the working folder permits code, the first time it does, and whenever it permits other code.

    The folder may have come from somebody else with that file. What was said is remembered in the cache, outside of it.
    """
    import hashlib
    import json

    from ablate.cache_folder import default_folder

    project = Path("pyproject.toml").resolve()
    listed = ", ".join(f"{setting} = {json.dumps(value)}" for setting, value in permitted.items() if value)
    with contextlib.suppress(OSError, AblateError):  # it is said once more, then
        told = (
            default_folder() / "permissions" / hashlib.sha256(os.fsencode(f"{project}\0{listed}")).hexdigest()
        )
        if told.exists():
            return
        told.parent.mkdir(parents=True, exist_ok=True)
        told.touch()
    notify(f"{project} permits the code of this study: {listed} (under [tool.ablate]; said once)")


def _allowed_by_project(setting: str) -> list[Any]:
    """Return what the pyproject.toml of the working folder allows. Raises StudyError where it cannot be read."""
    import tomllib

    project = Path("pyproject.toml")
    if not project.is_file():
        return []
    try:
        if project.stat().st_size > MOST_PROJECT_BYTES:
            raise StudyError("is too large to be read", place="pyproject.toml")
        content = tomllib.loads(project.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise StudyError(f"cannot be read ({error})", place="pyproject.toml") from None
    allowed: Any = content
    for table in ("tool", "ablate"):
        allowed = allowed.get(table, {})
        if not isinstance(allowed, dict):
            raise StudyError(
                f"[tool.ablate] cannot be read: `{table}` is no table",
                place="pyproject.toml",
                hint='write [tool.ablate] and below it imports = ["PACKAGE"]',
            )
    allowed = allowed.get(setting, [])
    return allowed if isinstance(allowed, list) else [allowed]


def data_config(
    name: str | None,
    sets: Sequence[str],
    study: Path | None,
    allowed: Mapping[str, Sequence[str | bool] | None],
) -> RunConfig:
    """Return the baseline of a study, or a plain config, on the data set `name`.

    sets: changes as `--set` takes them; the path may leave out `data.`, as in `root=FOLDER`. allowed: as for `check_permission`;
    what the command line names by itself needs no permission. Raises StudyError.
    """
    from ablate.config import RunConfig
    from ablate.study import spec
    from ablate.training import builtin_config

    # `augment=` replaces the block of that name; every other bare name is a field of `data`.
    bare = re.compile(r"(?!augment=)([a-z_]+|args\.[^=]*)=")
    changes = [f"data.{text}" if bare.match(text) else text for text in sets]
    changes = [*([f"data.name={name}"] if name is not None else []), *changes]
    if study is None:
        plain = RunConfig.parse({"data": {"name": "digits"}, "model": {"name": "cnn"}})
        # Arguments of the user's function have no values that a change could replace: they are given as a block.
        of_args = [text for text in changes if text.startswith("data.args.")]
        arguments = {p.removeprefix("data.args."): v for p, v in spec.changes(of_args).items()}
        block = [f"data.args={json.dumps(arguments)}"] if of_args else []
        return spec.override(plain, [*(text for text in changes if text not in of_args), *block])
    baseline = builtin_config(spec.read(study, sets=changes).baseline)
    if baseline is not None:
        check_permissions([baseline], allowed)
    else:
        raise StudyError("the study brings its own training, and its data with it", place=str(study))
    return baseline


# --- devices and executors --------------------------------------------------------------------------------------------


_NAME, _NETWORK = (
    re.compile(r"^study:[ \t]*([\w-]+)\s*$", re.MULTILINE),
    re.compile(r"^[ \t]+model:", re.MULTILINE),
)
"""Of the text of a study: its name, and a sign that it trains a built-in network."""

_OF_NETWORKS = ("torch", "ablate.training.builtin.bundle")
"""What workers that train built-in networks import."""

_MOST_GUESSED_BYTES = 1 << 16
"""Bytes of a study file that is looked at before it is read."""


def begin_workers(study: Path) -> None:
    """Let workers begin to import torch before a study is read, which takes half a second: where it has never run, and is likely to need it.

    study: its file. A guess from its text, which `executor` corrects. Raises StoreError where there can be no store.
    """
    from ablate.executors import local
    from ablate.tracking.store import current_store

    try:
        if not study.is_file() or study.stat().st_size > _MOST_GUESSED_BYTES:
            return
        text = study.read_text("utf-8")
    except (OSError, ValueError):
        return  # which is told when the study is read
    name = _NAME.search(text)
    if name is None or _NETWORK.search(text) is None or current_store().lock_file(name[1]).exists():
        return
    local.begin(_OF_NETWORKS)


def executor(
    config: Config,
    kind: str,
    devices: str,
    workers: int | None,
    per_device: int,
    root: Path,
    address: str | None = None,
) -> Executor:
    """Return the executor that trains configs like `config`. Raises StudyError for an unknown kind or device.

    address: of a cluster. root: the folder of the store, under which training puts checkpoints and networks.
    """
    from ablate.training import runs, trainer_of
    from ablate.training.payload import Folders

    module, wanted = _executor_module(kind, address), _wanted(config, devices, workers, per_device, address)
    train, apart = (
        functools.partial(runs.train, folders=Folders.under(folder)) for folder in (root, Path(root.name))
    )
    created: Executor = module.create(
        train,
        replace(wanted, store=root, apart=apart),
        lambda: slots(devices, workers, per_device, wanted.each),
        trainer_of(config).preload(config),
    )
    return created


def check_executor(
    config: Config, kind: str, devices: str, workers: int | None, per_device: int, address: str | None = None
) -> None:
    """Refuse what `executor` does, as far as that can be told before a cluster is joined or begun. Raises StudyError."""
    module, wanted = _executor_module(kind, address), _wanted(config, devices, workers, per_device, address)
    module.check(wanted, lambda: slots(devices, workers, per_device, wanted.each))


def _executor_module(kind: str, address: str | None) -> ModuleType:
    if kind not in EXECUTORS:
        hint = joined(EXECUTORS, "or")
        raise StudyError(f"{kind!r} is not an executor", place="--executor", hint=hint)
    if address is not None and kind != "ray":
        raise StudyError(
            "is the address of a Ray cluster", place="--address", hint="`--executor ray` uses it"
        )
    import importlib

    return importlib.import_module(f"ablate.executors.{kind}")


def _wanted(
    config: Config, devices: str, workers: int | None, per_device: int, address: str | None
) -> Wanted:
    from ablate.executors import Wanted
    from ablate.training import trainer_of

    return Wanted(devices, workers, per_device, address, trainer_of(config).devices(config))


def local_executor(
    function: Callable[[Bundle], Generator[Event, frozenset[str] | None, None]],
    config: Config,
    devices: str,
    workers: int | None,
    per_device: int = 1,
) -> LocalExecutor:
    """Return worker processes that run `function`, a generator of events, on the slots of the options. config: of what they train."""
    from ablate.executors.local import LocalExecutor
    from ablate.training import trainer_of

    trainer = trainer_of(config)
    on = slots(devices, workers, per_device, trainer.devices(config))
    return LocalExecutor(function, on, trainer.preload(config))


def check_seed(
    plan: Plan, store: Store, devices: str, workers: int | None, per_device: int
) -> SeedCheck | None:
    """Return what the seed does to the training of a plan, where the user's own code trains. Raises StudyError where nothing."""
    from ablate.measuring import first_epochs
    from ablate.scheduling import seed_check

    def executor() -> Executor:
        return local_executor(first_epochs.train, plan.study.baseline, devices, workers, per_device)

    return seed_check.check(plan, store, executor, notify)


def slots(devices: str, workers: int | None, per_device: int, each: int = 1) -> tuple[Slot, ...]:
    """Return the slots of this machine: one per CPU core, or `per_device` per GPU, and no more than `workers`.

    each: devices that a slot has. Raises StudyError where there are fewer.
    """
    from ablate.executors import local

    kind, numbers = _accelerators(devices)
    cores = workers if each == 1 else None
    single = local.accelerator_slots(kind, numbers, per_device) if numbers else local.cpu_slots(cores)
    all_slots = local.together(single, each)
    if not all_slots:
        raise StudyError(
            f"a run takes {each} devices, and there {'is' if len(numbers) == 1 else 'are'} {len(numbers)}",
            place="devices",
            hint="take fewer, or `--devices cpu`",
        )
    return all_slots[:workers] if workers else all_slots


def _accelerators(devices: str) -> tuple[str, tuple[int, ...]]:
    """Return the kind of the accelerators to use, as torch names it, and their numbers; no numbers mean the CPU. Raises StudyError."""
    from ablate.executors.devices import may_have_accelerator

    if devices == "cpu":
        return "cpu", ()
    named = [] if devices == "auto" else [part.strip() for part in devices.split(",")]
    for part in named:
        if part == "cpu" or not re.fullmatch(r"[a-z]+(:[0-9]{1,4})?", part):
            raise StudyError(
                f"{part!r} is not a device",
                place="--devices",
                hint="auto, cpu, or accelerators as torch names them: cuda:0,cuda:1, xpu:0, mps",
            )
    if not named and not may_have_accelerator():
        return "cpu", ()  # importing torch to ask it would take seconds
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind, count = ("cpu", 0) if device is None else (device.type, torch.accelerator.device_count())
    if not named:
        return kind, tuple(range(count))
    asked = {part.partition(":")[0] for part in named}
    numbers = [int(part.partition(":")[2] or 0) for part in named]
    if asked != {kind} or max(numbers) >= count:
        there = f"{counted(count, f'{kind} device')}" if count else "no accelerator that torch can use"
        raise StudyError(f"this machine has {there}", place="--devices", hint="`--devices cpu` needs none")
    return kind, tuple(dict.fromkeys(numbers))


# --- data and plans ---------------------------------------------------------------------------------------------------


def data_lookup() -> Callable[[Config], DataFacts]:
    """Return a function from a config to the facts of its data, which it prepares. Each data set is prepared once.

    The function raises StudyError where the network does not fit the images, and DataError where the data are missing.
    """
    from ablate.training import trainer_of

    preparers: dict[Trainer, Callable[[Config], DataFacts]] = {}

    def facts(config: Config) -> DataFacts:
        trainer = trainer_of(config)
        if trainer not in preparers:
            preparers[trainer] = trainer.preparer()
        return preparers[trainer](config)

    return facts


@dataclass(frozen=True)
class Preview:
    """What a run would do. done: runs in the store by arm; None where data are not prepared yet, so that no key is known.

    configurations: arms and the steps that a path may add. first, most: runs to the first and to the last look.
    search_runs: at most, of a search or of tuning the arms.
    """

    plan: Plan
    done: Mapping[str, int] | None
    configurations: int
    first: int
    most: int
    search_runs: int


def preview(study: Study, store: Store, seeds: int | None = None) -> Preview:
    """Plan a study without preparing data, and look up what the store has of it. seeds: as for `design.plan`.

    Raises StudyError for mistakes in the study.
    """
    from ablate.data.facts import DataFacts
    from ablate.study import design
    from ablate.study.forecast import further, searching
    from ablate.tracking.plans import refuse_deleted
    from ablate.tracking.runs import finished_runs
    from ablate.training import trainer_of

    refuse_deleted(store, study.name)
    prepare = data_lookup()
    prepared: dict[str, bool] = {}

    def facts(config: Config) -> DataFacts:
        data = repr(config.tree().get("data"))
        if data not in prepared:
            prepared[data] = trainer_of(config).is_prepared(config)
        # Two arms on two data sets that are both unknown are not the same run.
        return prepare(config) if prepared[data] else DataFacts(fingerprint=f"unknown: {data}")

    plan = design.plan(study, facts, seeds)
    done = None
    if all(not data.fingerprint.startswith("unknown") for data in plan.data.values()):
        runs = list(plan.replicates(plan.names, range(plan.looks.at[-1])))
        finished = finished_runs(store, [run.key for run in runs])
        done = Counter(run.arm for run in runs if run.key in finished)
    configurations = len(plan.names) + further(plan)
    return Preview(
        plan,
        done,
        configurations,
        configurations * plan.looks.at[0],
        configurations * plan.looks.at[-1],
        searching(plan) * len(plan.arms),
    )


def finished_plan(study: Study, store: Store, seeds: int | None = None) -> StoredPlan | None:
    """Return the latest plan of a study where the last command on it ended it, and the study is as it was; else None.

    Then workers are likely to be started for nothing. The plan of the study, which takes longer, has the last word. seeds: those
    that this command asks for.
    """
    import json

    from ablate.tracking.plans import stored_plans, study_names

    try:
        plans = stored_plans(store, study.name) if study.name in study_names(store) else []
    except AblateError:
        return None
    if not plans:  # none that can be read
        return None
    latest = plans[-1]
    is_the_same = json.dumps(study.plain(), default=str) == json.dumps(latest.record.declared, default=str)
    enough = seeds is None or seeds <= latest.record.looks.last_taken
    return latest if latest.environment.get("ending") == "complete" and is_the_same and enough else None


def answer(store: Store, finished: StoredPlan, plan: Plan) -> list[AnswerLine] | None:
    """Return what a plan with nothing left to do came to, where that is kept; None where it has to be worked out, or something else be done.

    finished: of `finished_plan`.
    """
    from ablate import kept_answer
    from ablate.tracking.plans import unreadable_plans

    if needs_recovery(store) or unreadable_plans(store, plan.study.name):
        return None
    return kept_answer.find(store, finished, plan)


def recorded_plan(record: PlanRecord, name: str, allowed: Mapping[str, Sequence[str | bool] | None]) -> Plan:
    """Return the plan that a record holds. allowed: as for `check_permission`.

    Raises StudyError where code or data have changed, so that new seeds could not be compared, and where the training is not
    allowed.
    """
    from ablate.study import design

    if record.judged is not None:
        raise StudyError(
            "these results were judged, and nothing of them was trained here",
            place=name,
            hint=f"judge the results again when there are more: {record.judged.command}",
        )
    plan = design.from_record(record)
    check_permission(plan.study, allowed)
    data = data_lookup()
    for arm in plan.arms:
        if arm.config.code() != plan.codes[arm.name]:
            raise StudyError(
                "the training code has changed since this study ran, so new seeds would not be comparable",
                place=name,
                hint="run the study again: `ablate run` makes a new plan with the code as it is",
            )
        if data(arm.config) != plan.data[arm.name]:
            raise StudyError(
                "the data have changed since this study ran", place=name, hint="run the study again"
            )
    return plan


def try_baseline(study: Study, devices: str) -> Iterator[str]:
    """Train a study's baseline once, in this process, and yield lines that show what came of it. Nothing is recorded.

    Raises TrainingError where it failed, and StudyError and DataError where it cannot be trained.
    """
    from ablate.errors import TrainingError
    from ablate.events import Task
    from ablate.training import trainer_of
    from ablate.training.payload import RunPayload

    config = study.baseline.with_seed(0)
    trainer = trainer_of(config)
    data_lookup()(config)
    slot = slots(devices, None, 1, trainer.devices(config))[0]
    os.environ.update(slot.environment)
    payload = RunPayload(config.tree(), 0, device=slot.device, source=config.source, metric=study.metric)
    last = ""
    for line in trainer.trial(Task("trial", 1, payload)):
        yield line
        last = line if line.startswith("failed: ") else last
    if last:
        raise TrainingError("the baseline failed", place=study.name, hint="what it printed is above")


# --- running ----------------------------------------------------------------------------------------------------------


def run(
    plan: Plan,
    store: Store,
    executor: Executor,
    options: Options,
    storage: str | None,
    observer: AbstractContextManager[Observer],
    seeds: int | None = None,
) -> Outcome:
    """Train what a plan still lacks. storage: Optuna's, or None for the journal. observer: what shows the progress.

    seeds: take one look, at so many seeds; None: take those of the study file.
    Raises StoreError where another process works on the study or the store cannot be written.
    """
    return _coordinate(
        plan,
        store,
        executor,
        options,
        storage,
        observer,
        lambda coordinator, about: coordinator.run(about, seeds),
    )


def check_code(plan: Plan, executor: Executor, options: Options) -> None:
    """Import the user's code that trains, where runs are trained, and see whether it can be. Raises TrainingError."""
    from ablate.scheduling.dispatch import Job, run_jobs
    from ablate.training import trainer_of
    from ablate.training.payload import RunPayload

    config = plan.study.baseline
    trainer = trainer_of(config)
    if not trainer.imports_code:
        return

    def payload(slot: Slot) -> RunPayload:
        return RunPayload(
            config.tree(),
            config.seed,
            device=slot.device,
            threads=options.threads,
            source=config.source,
            code=plan.codes[plan.reference],
            check=True,
        )

    run_jobs(executor, [Job("check", payload)])


def top_up(
    stored: StoredPlan,
    seeds: int | None,
    plan: Plan,
    store: Store,
    executor: Executor,
    options: Options,
    storage: str | None,
    observer: AbstractContextManager[Observer],
) -> Outcome:
    """Add seeds to the undecided arms of a plan that was judged; see `run`. seeds: None adds as many as the budget allows."""
    return _coordinate(
        plan,
        store,
        executor,
        options,
        storage,
        observer,
        lambda coordinator, about: coordinator.top_up(about, seeds),
        stored,
    )


def _coordinate(
    plan: Plan,
    store: Store,
    executor: Executor,
    options: Options,
    storage: str | None,
    observer: AbstractContextManager[Observer],
    act: Callable[[Coordinator, dict[str, str]], Outcome],
    stored: StoredPlan | None = None,
) -> Outcome:
    """Let a coordinator act, under the study's lock, with tracker, claims and signals around it.

    observer: entered once the study is locked and recovered. stored: the plan as the store has it, where it is extended.
    """
    from ablate import given_study
    from ablate.analysis import to_json
    from ablate.scheduling.coordinate import Coordinator
    from ablate.scheduling.phases import under_recorded_id
    from ablate.scheduling.queue import Queue
    from ablate.tracking.classified import fill_caches
    from ablate.tracking.frames import WORTH_SAVING
    from ablate.tracking.plans import refuse_deleted, unreadable_plans
    from ablate.tracking.rejected import told
    from ablate.tracking.runs import is_gone
    from ablate.tracking.spool import Tracker
    from ablate.tracking.store import Claims
    from ablate.training import trainer_of

    checkpoint_every = seconds(os.environ.get(CHECKPOINT_VARIABLE), CHECKPOINT_VARIABLE)
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.lock(plan.study.name))
        refuse_deleted(store, plan.study.name)
        recover(store, plan.study)
        for error in unreadable_plans(store, plan.study.name):
            notify(
                f"{error.place}: {error.message}; its looks and what was added to it are not known any more"
            )
        if stored is None:
            plan = under_recorded_id(plan, store)
            if note := given_study.other_files(store, plan, command_line()):
                notify(note)
        entered = stack.enter_context(observer)
        for note in plan.data_notes:
            entered.caution(f"data: {note}")
        claims = stack.enter_context(contextlib.closing(Claims(store)))
        tracker = stack.enter_context(Tracker(store, plan.study.name))
        stack.enter_context(executor)
        check_code(plan, executor, options)
        ledger = Queue(plan, store.root, storage, functools.partial(is_gone, store))
        if ledger.rebuilt is not None:
            notify(
                f"Optuna's ledger could not be read, and is now {ledger.rebuilt}; a new one is made from the record"
            )
        about = environment(trainer_of(plan.study.baseline).code_folder(plan.study.baseline))
        try:
            with _interruptible() as stop:
                coordinator = Coordinator(
                    plan,
                    executor=executor,
                    tracker=tracker,
                    ledger=ledger,
                    store=store,
                    claims=claims,
                    options=replace(options, stop=stop, checkpoint_every=checkpoint_every),
                    observer=entered,
                    record=None if stored is None else stored.record,
                )
                outcome = act(coordinator, about)
        except BaseException:
            # A top-up that ends before it has added anything leaves its study as it was.
            as_before = None if stored is None or tracker.planned else stored.environment.get("ending")
            try:
                tracker.end(plan.id, as_before or "interrupted")
            finally:
                tracker.close(timeout=1)  # the next command delivers what is not delivered by then
            raise
        import json

        verdicts = json.dumps(to_json(outcome.analysis, plan.study.name), indent=1)
        description = _description(plan.study.question, outcome.analysis)
        tracker.end(plan.id, outcome.ending, {"verdicts.json": verdicts.encode()}, description)
        tracker.settle(notify=notify)
        delivered = tracker.close(timeout=5)
        if tracker.broken is not None:
            raise tracker.broken
        if delivered and store.database is not None and outcome.trained >= WORTH_SAVING:
            fill_caches(store, outcome.record)
        if not delivered:
            uri = store.place
            notify(
                f"not yet delivered to {uri}: {tracker.undelivered}; the next command delivers it from mlruns/spool"
            )
        rejected = tracker.rejected.records
        if rejected:
            notify(f"the record of {plan.study.name} is incomplete: {told(rejected)}")
        return replace(outcome, is_recorded=delivered and not rejected)


def _description(question: str, analysis: Analysis) -> str:
    """Return what MLflow shows as a plan's description, in Markdown: the question, and the answer arm by arm."""
    from ablate.analysis import headline, sentence

    items: tuple[Comparison | Effect, ...] = (*analysis.comparisons, *analysis.effects)
    lines = [f"- {sentence(item, analysis.rules)}" for item in items[:MOST_SENTENCES]]
    rest = [f"- … and {len(items) - MOST_SENTENCES} more"] if len(items) > MOST_SENTENCES else []
    title = [f"**{question}**", ""] if question else []
    return "\n".join([*title, headline(analysis), "", *lines, *rest])


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Yield whether a signal has asked for the end. A second Ctrl-C ends the process at once.

    In a program of the user's, its own handlers are back afterwards; the command line is at its end then.
    """
    is_asked = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal is_asked
        is_asked = True
        interrupts.note()

    handlers = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    previous = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    try:
        for number in previous:
            signal.signal(number, stop)
        yield lambda: is_asked
    finally:
        for number, handler in previous.items():
            if not (is_asked and handler is interrupts.interrupt):
                signal.signal(number, handler)


def recover_to_read(store: Store) -> None:
    """Recover what killed processes left behind; a store that cannot be written is reported, and read all the same.

    Raises StoreError where it cannot be read.
    """
    from ablate.tracking.client import NoAnswerError
    from ablate.tracking.queries import UnreadableStoreError

    try:
        recover(store)
    except (NoAnswerError, UnreadableStoreError):
        raise  # whatever is read next could not be read either
    except StoreError as error:
        notify(f"what killed processes left behind is not counted: {error.sentence}", error.hint)


def recover(store: Store, study: Study | None = None) -> None:
    """Deliver and end what killed processes left behind. study: one whose code may be imported. Raises StoreError."""
    if needs_recovery(store):
        from ablate.tracking import recover as recovery

        ended = recovery.recover(store, notify, functools.partial(_permit, study))
        if ended:
            notify(f"marked {counted(ended, 'run')} of processes that died as killed")


def needs_recovery(store: Store) -> bool:
    """Return whether a killed process may have left something behind. Raises StoreError."""
    from ablate.tracking.runs import orphans

    left = (*store.root.glob("spool/*.*"), *store.root.glob("cache/.*.tmp"))
    return bool(left) or bool(orphans(store))


def _permit(study: Study | None, config: RunConfig) -> None:
    """Raise NotPermittedError where a recorded config names code that the study does not. study: as for `recover`.

    What pyproject.toml allows is allowed to the command that was asked for: a record may have come with it, from somebody else.
    """
    from ablate.study import design
    from ablate.tracking.write import NotPermittedError
    from ablate.training import trainer_of

    settings = design.settings(study) if study is not None else ()
    allowed = {each.value for known in settings for each in trainer_of(known).permissions(known)}
    missing = [each.action for each in trainer_of(config).permissions(config) if each.value not in allowed]
    if missing:
        raise NotPermittedError(
            f"to store it would {joined(dict.fromkeys(missing))}; the next `ablate run` of its study may"
        )


def command_line() -> str:
    """Return the command that runs, as a shell takes it, without passwords: it is recorded."""
    import shlex

    # Each by itself, because quotes may hide one; and all of them, because a password may follow its option.
    return without_password("ablate " + shlex.join(without_password(argument) for argument in sys.argv[1:]))


def environment(
    code: Path | None = None, packages: Sequence[str] = ("torch", "mlflow", "optuna")
) -> dict[str, str]:
    """Return what a study runs with, for its record: command, host, versions, and the commit where there is one.

    code: the folder of the user's code that trains; its commit is recorded too where it is another project than the working folder.
    """
    import platform
    from importlib import metadata

    from ablate import repository

    about = {
        "command": command_line(),
        "version": metadata.version("ablate"),
        "python": platform.python_version(),
        "host": platform.node(),
    }
    for package in packages:
        about[package] = metadata.version(package)
    commit = repository.state(Path.cwd())
    if commit is not None:
        about["commit"] = commit
    if code is not None:
        training_commit = repository.state(code)
        if training_commit is not None and training_commit != commit:
            about["training_commit"] = training_commit
    return about
