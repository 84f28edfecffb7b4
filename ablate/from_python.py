"""`ablate.load` and `ablate.run`: studies of the store for notebooks and scripts, as the sequence that `compare` returns."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ablate.comparisons import Comparisons
from ablate.errors import StudyError


def load(study: str | Path, *, plan: str | None = None) -> Comparisons:
    """Return the verdicts of a study in the store of the working folder, or of the server that MLFLOW_TRACKING_URI names.

    study: its name, or its file, of which the latest plan that came from it is meant, else the study's latest. plan: the beginning of an older plan's id; None: the latest. Results that were judged under
    a name are studies too. Raises StoreError where there is no such study, StudyError where it has no such plan.
    """
    from ablate import given_study, launch, reporting
    from ablate.tracking.store import current_store

    store = current_store()
    launch.recover_to_read(store)
    given = given_study.find(store, str(study))
    if given.note and plan is None:
        launch.notify(given.note)
    return reporting.comparisons(store, given.name, plan or given.plan)


def run(
    study: str | Path | Mapping[str, Any],
    *,
    sets: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    executor: str = "local",
    devices: str = "auto",
    workers: int | None = None,
    budget: str | None = None,
    timeout: str | None = None,
    storage: str | None = None,
    fuse: bool = True,
    accept_code: bool = False,
    allow_import: Iterable[str] = (),
    allow_command: bool = False,
    quiet: bool = False,
) -> Comparisons:
    """Train what a study still lacks, look by look, as `ablate run` does, and return its verdicts.

    study: the path of a YAML file, or its content as a mapping. sets: path → value, as `--set`. seeds: one look at so many.
    executor: `local` (a process per slot) or `inline` (this process). devices: `auto`, `cpu` or `cuda:0,cuda:1`. budget,
    timeout: `2h`, of everything and of a run. storage: Optuna's. fuse: train small networks together. accept_code: take runs
    of older code. allow_import, allow_command: what the study may run of your own code. quiet: show no progress.

    Finished runs are taken from the store, so that running a study again costs nothing. Runs that failed are counted in the
    notes of what is returned. Raises StudyError for a mistake in the study, StoreError where the store cannot be written.
    """
    from ablate import launch, progress, reporting
    from ablate.scheduling.coordinate import Options
    from ablate.study import design, spec
    from ablate.text import format_value
    from ablate.tracking.store import current_store

    if sets is not None and not isinstance(sets, Mapping):
        raise StudyError(
            f"a {type(sets).__name__} is no mapping of paths to values",
            place="sets",
            hint="sets={'training.epochs': 2}",
        )
    if seeds is not None:
        seeds = _number_of_seeds(seeds)
    changes = [f"{path}={format_value(value)}" for path, value in (sets or {}).items()]
    if isinstance(study, Mapping):
        parsed = spec.parse(_yaml(study), source="study", sets=changes)
    elif isinstance(study, str | Path):
        parsed = spec.read(Path(study), sets=changes)
    else:
        raise StudyError(
            f"a {type(study).__name__} is no study",
            place="study",
            hint="give the path of a YAML file, or a dict",
        )
    launch.check_permission(parsed, {"imports": list(allow_import), "commands": [allow_command]})
    store = current_store()
    pool = launch.executor(parsed.baseline, executor, devices, workers, 1, store.root)
    pool.warm_up()
    options = Options(
        budget=launch.seconds(budget, "budget"),
        timeout=launch.seconds(timeout, "timeout"),
        accept_code=accept_code,
        fuse=fuse,
    )
    with progress.preparing(quiet=quiet):
        plan = design.plan(parsed, launch.data_lookup(), seeds)
    launch.run(plan, store, pool, options, storage, progress.observer(plan, json=False, quiet=quiet), seeds)
    return reporting.comparisons(store, parsed.name, None)


def _number_of_seeds(seeds: Any) -> int:
    """A look's number of seeds, as the command line takes it. Raises StudyError for what is none."""
    if isinstance(seeds, bool) or not isinstance(seeds, numbers.Integral) or seeds < 1:
        raise StudyError(f"{seeds!r} is no number of seeds", place="seeds", hint="for example seeds=5")
    return int(seeds)


def _yaml(study: Mapping[str, Any]) -> str:
    """A study as the text of its file, which is recorded with it. Raises StudyError for what YAML has no word for."""
    import yaml

    try:
        return str(yaml.safe_dump(_plain(study), sort_keys=False, allow_unicode=True, width=120))
    except yaml.YAMLError as error:
        raise StudyError(
            f"holds what a study file cannot ({str(error).splitlines()[0]})",
            place="study",
            hint="use text, numbers, true and false, None, lists and dicts",
        ) from None


def _plain(value: Any) -> Any:
    """Mappings, tuples and numpy's numbers as YAML knows them."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value
