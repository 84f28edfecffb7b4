"""The study that follows from one in the store: a search's best candidates, or a study's undecided arms on fresh seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import given_study, launch
from ablate.errors import StudyError

if TYPE_CHECKING:
    from ablate.study.record import ArmRecord, PlanRecord
    from ablate.tracking.store import Store


def text(
    source: str, name: str | None, best: int | None, output: Path | None, folder: Path
) -> tuple[Path, str, str]:
    """Return the file and the text of a study that follows from one in the store, and what running it does.

    Of a search: its best candidates against its baseline. Of any other: its undecided arms, on fresh seeds. source: by name or
    file. name: of the new study; None: SEARCH-confirm or STUDY-again. best: how many candidates; None: all. output: the file;
    None: NAME.yaml in `folder`. Raises StudyError where the file exists, and where nothing follows.
    """
    from ablate.study import confirm, spec
    from ablate.tracking.plans import stored_plan
    from ablate.tracking.store import current_store

    store = current_store()
    launch.recover_to_read(store)
    given = given_study.find(store, source)
    if given.note:
        launch.notify(given.note)
    earlier = given.name
    record = stored_plan(store, earlier, given.plan).record
    is_search = record.design == "search"
    if best is not None and not is_search:
        raise StudyError("only a search has candidates", place="--best", hint="leave it out")
    new_name = name or f"{earlier}-{'confirm' if is_search else 'again'}"
    path = output or folder / f"{new_name}.yaml"
    text = (
        confirm.study(record, new_name, best, beside=path.parent)
        if is_search
        else _undecided_again(store, record, new_name, path.parent)
    )
    spec.parse(text, source=str(path))
    if path.exists():
        raise StudyError("exists already", place=str(path), hint="name another file with -o")
    does = (
        "confirms the best candidates on fresh seeds"
        if is_search
        else "judges the undecided arms on fresh seeds"
    )
    return path, text, does


def _undecided_again(store: Store, record: PlanRecord, name: str, beside: Path) -> str:
    """Return the text of a study of a recorded plan's undecided arms, with the seeds that settle them where that is known.

    beside: the folder that its file will be in.
    Raises StudyError where there are none, or where they cannot be asked about alone.
    """
    from ablate.analysis import judge
    from ablate.analysis.family import ANEW
    from ablate.analysis.plan import rules
    from ablate.study import again
    from ablate.study.seeds import is_reported, replicate_of
    from ablate.tracking.frames import plan_frames
    from ablate.tracking.plans import stored_plans, study_names

    place = record.study
    if record.judged is not None:
        raise StudyError(
            "these results were not trained here", place=place, hint="train fresh ones where they come from"
        )
    if record.design not in ANEW:
        raise StudyError(
            f"design {record.design} judges its arms together, so some of them cannot be asked about alone",
            place=place,
            hint=f"`ablate top-up {place} --seeds 5` looks again at all that is undecided",
        )
    analysis = judge(rules(record), plan_frames(store, record)[0])
    if analysis.provisional:
        raise StudyError("it has not been judged yet", place=place, hint="`ablate run` goes on with it")
    undecided = [c.arm for c in analysis.comparisons if c.verdict == "inconclusive"]
    if not undecided:
        raise StudyError("no arm is undecided", place=place, hint="a new question wants a new study")
    # Plans of other studies may have judged these arms too, under further seeds.
    asked = [_without_seed(record.arm(arm)) for arm in undecided]
    plans = [stored.record for study in study_names(store) for stored in stored_plans(store, study)]
    used = [
        replicate_of(run.seed)
        for plan in plans
        if plan.study == place or any(_without_seed(arm) in asked for arm in plan.arms)
        for run in plan.runs
        if is_reported(run.phase)
    ]
    price = analysis.beyond
    seeds = record.stops if price is None or price.fresh is None else (price.fresh,)
    return again.study(record, undecided, name, seeds=seeds, first_seed=1 + max(used), beside=beside)


def _without_seed(arm: ArmRecord) -> dict[str, Any]:
    return {key: value for key, value in arm.config.items() if key != "seed"}
