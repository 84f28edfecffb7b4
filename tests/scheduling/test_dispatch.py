"""What the dispatcher decides about runs of which it knows no more than their keys: attempts, slots, company, claims."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
import staged
from staged import StagedExecutor

from ablate.errors import TrainingError
from ablate.events import Failed, Finished, Started, Task, is_last
from ablate.executors import Slot
from ablate.scheduling import dispatch
from ablate.scheduling.dispatch import Client, Companions, Dispatcher, Job, run_jobs

GOOD = ("start", "epoch", "finish")


@dataclass(frozen=True)
class Item:
    """scripts: of each attempt; the last of them serves for all that follow."""

    key: str
    scripts: tuple[tuple[str, ...], ...] = (GOOD,)


def item(key: str, *scripts: tuple[str, ...]) -> Item:
    return Item(key, scripts or (GOOD,))


@dataclass
class Recorder(Client[Item]):
    """Notes what it is told. before: attempts on record. added: runs that are added as slots become free."""

    before: int = 0
    added: list[Item] = field(default_factory=list)
    started: list[tuple[str, int, str]] = field(default_factory=list)
    fused: list[str] = field(default_factory=list)
    seen: list[tuple[str, int, str]] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    waited_for: list[str] = field(default_factory=list)

    def task(self, work, attempt, slot, *, fuse):
        self.fused += [work.key] if fuse else []
        number = attempt - self.before - 1
        return Task(work.key, attempt, work.scripts[min(number, len(work.scripts) - 1)])

    def attempts(self, work):
        return self.before

    def more(self, room):
        taken, self.added = self.added[: max(room, 0)], self.added[max(room, 0) :]
        return taken

    def starting(self, work, attempt, slot):
        self.started.append((work.key, attempt, slot.name))

    def event(self, flight, event):
        assert flight.events[-1] is event
        assert [e.seq for e in flight.events] == list(range(len(flight.events)))
        self.seen.append((flight.key, event.attempt, how(event)))
        return False

    def outcome(self, flight, event):
        assert flight.key not in self.outcomes, "a run has one outcome"
        self.outcomes[flight.key] = how(event)

    def interrupted(self, flight, event):
        self.left[flight.key] = event.reason

    def elsewhere(self, work):
        self.waited_for.append(work.key)


def how(event) -> str:
    if isinstance(event, Failed):
        return event.kind
    return event.outcome if isinstance(event, Finished) else type(event).__name__


def dispatched(
    work: Iterable[Item], client: Client[Item] | None = None, slots: int = 1, **options
) -> tuple[Recorder, StagedExecutor]:
    client, executor = client or Recorder(), StagedExecutor(slots)
    Dispatcher(executor, client, **options).run(work)
    return client, executor


class Pairs:
    """Runs whose keys begin with the same letter share a slot. saved: keys that have one checkpoint together."""

    def __init__(self, saved: frozenset[str] = frozenset()) -> None:
        self.saved = saved
        self.alone: list[str] = []
        self.left: list[float] = []

    def choose(self, first, waiting, left, slot):
        self.left.append(left)
        chosen = [each for each in waiting if each.key[0] == first.key[0]]
        keys = frozenset({first.key, *(each.key for each in chosen)})
        return Companions(chosen, resumed=bool(self.saved) and keys == self.saved)

    def remaining(self, work, events):
        return 1 - events / 4

    def unfusable(self, work):
        self.alone.append(work.key)

    def resumable(self, work):
        return work.key in self.saved


# --- slots and order --------------------------------------------------------------------------------------------------


def test_runs_begin_in_their_order_each_in_a_slot_that_is_free():
    client, executor = dispatched([item(key) for key in "abcde"], slots=2)
    assert [key for key, *_ in client.started] == list("abcde")
    assert {slot for *_, slot in client.started} == {"slot-0", "slot-1"}
    assert client.outcomes == dict.fromkeys("abcde", "finished")
    assert [runs for _, runs in executor.submitted] == [(key,) for key in "abcde"]


def test_what_the_client_adds_is_asked_for_only_as_slots_become_free():
    client = Recorder(added=[item(key) for key in "abc"])
    dispatched([item("x")], client, slots=2)
    assert [key for key, *_ in client.started] == ["x", "a", "b", "c"]
    assert client.outcomes == dict.fromkeys("xabc", "finished")


def test_a_slot_that_the_executor_has_lost_is_given_nothing_more():
    executor, client = StagedExecutor(2), Recorder()

    class Losing(Recorder):
        def event(self, flight, event):
            executor.slots = executor.slots[1:] if len(executor.slots) == 2 else executor.slots
            return super().event(flight, event)

    client = Losing()
    Dispatcher(executor, client).run([item(key) for key in "abcd"])
    assert [slot for _, _, slot in client.started] == ["slot-0", "slot-1", "slot-1", "slot-1"]
    assert client.outcomes == dict.fromkeys("abcd", "finished")


# --- attempts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True], ids=["alone", "in a bundle"])
@pytest.mark.parametrize(
    ("kind", "again"),
    [("error", True), ("memory", True), ("crash", True), ("cancelled", False), ("pruned", False)],
)
def test_a_run_that_fails_is_tried_once_more_unless_someone_ended_it(kind, again, together):
    work = [item("a1", ("start", kind), ("start", kind))] + [item("a2")] * together
    client, executor = dispatched(work, company=Pairs() if together else None)
    assert client.outcomes["a1"] == kind
    assert [attempt for key, attempt, _ in client.started if key == "a1"] == [1, 2][: 1 + again]
    if together:
        assert executor.submitted[0][1] == ("a1", "a2")
        assert ("slot-0", ("a1",)) in executor.submitted or not again
        assert client.outcomes["a2"] == "finished"


def test_a_second_attempt_that_succeeds_is_the_outcome_and_its_events_are_its_own():
    client, _ = dispatched([item("a", ("start", "epoch", "error"), GOOD)])
    assert client.outcomes == {"a": "finished"}
    assert client.seen == [
        *(("a", 1, what) for what in ("Started", "EpochEnd", "error")),
        *(("a", 2, what) for what in ("Started", "EpochEnd", "finished")),
    ]


def test_attempts_are_counted_on_from_those_on_record():
    client, _ = dispatched([item("a", ("start", "error"), GOOD)], Recorder(before=3))
    assert [attempt for _, attempt, _ in client.started] == [4, 5]


def test_a_run_that_found_too_little_memory_is_tried_again_while_nothing_else_runs():
    hungry = item("a", ("start", "memory"), ("start", "epoch", "finish"))
    client, _ = dispatched([hungry, *(item(key) for key in "bcdef")], slots=3)
    assert client.outcomes == dict.fromkeys("abcdef", "finished")
    begun = next(i for i, (key, attempt, _) in enumerate(client.seen) if (key, attempt) == ("a", 2))
    during = [key for key, *_ in client.seen[begun:][:3]]
    assert during == ["a"] * 3
    before, after = client.seen[:begun], client.seen[begun + 3 :]
    for key in "bcdef":
        events = [what for k, _, what in before if k == key], [what for k, _, what in after if k == key]
        assert [] in events, f"{key} ran beside the run that needs the memory"


class Clock:
    """In place of the module `time`: time passes as somebody sleeps, however busy the machine is."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The clock of the dispatcher and of its executor."""
    clock = Clock()
    for module in (dispatch, staged):
        monkeypatch.setattr(module, "time", clock)


@pytest.mark.parametrize("stays", ["linger", "hang"])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.usefixtures("clock")
def test_a_run_that_takes_too_long_is_asked_to_end_then_killed_and_of_a_bundle_each_is_tried_by_itself(
    members, stays
):
    work = [item(f"a{i}", ("start", stays)) for i in range(members)]
    client, executor = dispatched([*work, item("b")], slots=2, timeout=0.02, company=Pairs())
    assert client.outcomes == {each.key: "timeout" for each in work} | {"b": "finished"}
    assert [runs for _, runs in executor.submitted if runs != ("b",)] == [
        tuple(each.key for each in work),
        *(((each.key,)) for each in work[::-1] if members > 1),
    ]


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.usefixtures("clock")
def test_what_a_machine_takes_until_a_run_begins_is_not_the_runs_time(members):
    work = [item(f"a{i}", ("load", "load", "start", "epoch", "finish")) for i in range(members)]
    client, executor = dispatched(work, timeout=0.04, company=Pairs())
    assert client.outcomes == {each.key: "finished" for each in work}
    assert len(executor.submitted) == 1


@pytest.mark.usefixtures("clock")
def test_a_run_that_hangs_before_it_begins_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(dispatch, "STARTING", 0.02)
    client, _ = dispatched([item("a", ("hang",)), item("b")], timeout=0.02)
    assert client.outcomes == {"a": "timeout", "b": "finished"}


def test_a_result_of_no_use_fails_its_run_and_is_not_tried_again():
    class Strict(Recorder):
        def verified(self, flight, event):
            if isinstance(event, Finished) and flight.key == "a":
                return Failed(event.run, event.attempt, event.seq, event.time, "error", "of no use")
            return event

    client, _ = dispatched([item("a"), item("b")], Strict())
    assert client.outcomes == {"a": "error", "b": "finished"}
    assert [key for key, *_ in client.started] == ["a", "b"]
    assert ("a", 1, "error") in client.seen


def test_a_hopeless_run_is_broken_off_as_pruned_and_not_tried_again():
    class Pruning(Recorder):
        def event(self, flight, event):
            super().event(flight, event)
            return flight.key == "a" and how(event) == "EpochEnd"

    client, _ = dispatched([item("a", ("start", *["epoch"] * 9, "finish")), item("b")], Pruning())
    assert client.outcomes == {"a": "pruned", "b": "finished"}
    assert client.seen.count(("a", 1, "EpochEnd")) == 1


# --- company ----------------------------------------------------------------------------------------------------------


def test_runs_that_share_a_slot_are_one_bundle_and_the_slot_is_free_after_the_last_of_them():
    work = [item("a1", ("fused", "finish")), item("a2", ("fused", "epoch", "epoch", "finish")), item("b1")]
    company = Pairs()
    client, executor = dispatched(work, company=company)
    assert executor.submitted == [("slot-0", ("a1", "a2")), ("slot-0", ("b1",))]
    assert client.fused == ["a1", "a2"]
    assert company.alone == []
    assert client.outcomes == dict.fromkeys(("a1", "a2", "b1"), "finished")


def test_company_is_chosen_by_what_is_left_to_do_parts_of_runs_included():
    company = Pairs()
    dispatched([item("a"), item("b", ("start", "finish")), item("c")], slots=2, company=company)
    # For c: a has had one epoch of four, and nothing waits.
    assert company.left == [3, 1 + 2, 0.75 + 1]


def test_members_that_are_trained_by_themselves_all_the_same_are_told_to_the_company():
    company = Pairs()
    dispatched([item("a1"), item("a2"), item("b")], company=company)
    assert company.alone == ["a1", "a2"]


def test_members_of_a_bundle_that_fails_are_tried_again_each_by_itself():
    work = [item("a1", ("start", "error"), GOOD), item("a2", ("start", "error"), GOOD)]
    client, executor = dispatched(work, company=Pairs())
    assert [runs for _, runs in executor.submitted] == [("a1", "a2"), ("a2",), ("a1",)]
    assert client.fused == ["a1", "a2"]
    assert client.outcomes == {"a1": "finished", "a2": "finished"}


def test_a_bundle_that_crashed_is_resumed_together_once_and_then_each_goes_by_itself():
    work = [item(key, ("start", "crash"), ("start", "crash"), GOOD) for key in ("a1", "a2")]
    client, executor = dispatched(work, company=Pairs(saved=frozenset({"a1", "a2"})))
    assert [set(runs) for _, runs in executor.submitted] == [{"a1", "a2"}, {"a1", "a2"}, {"a1"}, {"a2"}]
    assert client.outcomes == {"a1": "finished", "a2": "finished"}


def test_the_last_of_a_bundle_that_was_broken_off_is_resumed_as_one_of_it():
    client, _ = dispatched([item("a1")], company=Pairs(saved=frozenset({"a1"})))
    assert client.fused == ["a1"]


# --- other processes --------------------------------------------------------------------------------------------------


@dataclass
class Claiming(Recorder):
    """held: run → what each question about it is answered with, in turn; then it is taken."""

    held: dict[str, list[str]] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)

    def claim(self, work):
        answers = self.held.get(work.key)
        return answers.pop(0) if answers else "taken"

    def release(self, work):
        self.released.append(work.key)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(dispatch, "TICK", 0.001)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("answers", "trained"),
    [(["elsewhere"] * 3, True), (["elsewhere"] * 3 + ["done"], False), (["done"], False)],
)
def test_a_run_that_another_process_trains_is_waited_for_and_trained_only_without_a_result(answers, trained):
    client = Claiming(held={"b": list(answers)})
    dispatched([item(key) for key in "abc"], client)
    assert set(client.outcomes) == {"a", "c"} | ({"b"} if trained else set())
    assert client.waited_for == (["b"] if "elsewhere" in answers else [])
    assert client.released == (["b"] if trained else []), "nobody is kept from it while it waits for a slot"


@pytest.mark.usefixtures("quick")
def test_companions_that_another_process_trains_stay_behind_and_those_that_are_done_are_left_out():
    client = Claiming(held={"a2": ["elsewhere"], "a3": ["done"]})
    _, executor = dispatched([item(f"a{i}") for i in range(1, 5)], client, company=Pairs())
    assert [runs for _, runs in executor.submitted] == [("a1", "a4"), ("a2",)]


def test_a_retry_asks_for_no_claim():
    client = Claiming(held={"a": ["taken", "elsewhere"]})
    dispatched([item("a", ("start", "error"), GOOD)], client)
    assert client.outcomes == {"a": "finished"}


# --- ends -------------------------------------------------------------------------------------------------------------


@dataclass
class Budget(Recorder):
    """runs: how many may be begun."""

    runs: int = 2
    refused: list[list[str]] = field(default_factory=list)

    def may_start(self, work, waiting):
        if len(self.started) < self.runs:
            return True
        self.refused.append([each.key for each in waiting])
        return False

    def spent(self):
        return bool(self.refused)


def test_a_spent_client_has_nothing_more_begun_and_what_runs_is_finished():
    client = Budget()
    dispatched([item(key) for key in "abcd"], client, slots=2)
    assert client.outcomes == {"a": "finished", "b": "finished"}
    assert client.refused[-1] == ["c", "d"]


class Stopping(Recorder):
    """Wants the end as soon as one run has finished, as someone does who presses Ctrl-C in the middle of a batch."""

    stop = False

    def event(self, flight, event):
        self.stop |= isinstance(event, Finished)
        return super().event(flight, event)

    def poll(self):
        if self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize("slots", [2, 4])
def test_every_event_of_a_batch_is_passed_on_before_an_interruption_ends_the_work(slots):
    scripts = [("start", "finish")] * (slots - 1) + [("start", "epoch", "finish")]
    work = [item(key, script) for key, script in zip("abcdefgh", scripts * 2, strict=False)]
    client = Stopping()
    with pytest.raises(KeyboardInterrupt):
        dispatched(work, client, slots=slots)
    ended = [each.key for each in work[: slots - 1]]
    assert client.outcomes == dict.fromkeys(ended, "finished"), "all that had finished by then count"
    assert client.left == {work[slots - 1].key: "interrupted"}
    assert (work[slots - 1].key, 1, "EpochEnd") in client.seen


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_jobs_are_run_once_each_and_their_results_returned_by_key():
    def payload(slot: Slot) -> tuple[str, ...]:
        slots.append(slot.name)
        return GOOD

    slots: list[str] = []
    events = []
    results = run_jobs(StagedExecutor(3), [Job(str(i), payload) for i in range(5)], events.append)
    assert sorted(results) == ["0", "1", "2", "3", "4"]
    assert slots[:3] == ["slot-0", "slot-1", "slot-2"]
    assert sum(isinstance(event, Started) for event in events) == sum(map(is_last, events)) == 5


@pytest.mark.parametrize("kind", ["error", "memory", "crash"])
def test_a_job_that_fails_is_not_tried_again_and_ends_all(kind):
    executor = StagedExecutor()
    with pytest.raises(TrainingError, match="as the script says"):
        run_jobs(executor, [Job("a", lambda _: ("start", kind)), Job("b", lambda _: GOOD)])
    assert [runs for _, runs in executor.submitted] == [("a",)]
