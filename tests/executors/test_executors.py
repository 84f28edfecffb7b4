"""The contract of executors, held against every kind with real processes (conftest.py); then what is particular to workers."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import scripted
from scripted import task

from ablate.errors import StudyError
from ablate.events import Bundle, EpochEnd, Failed, Finished, Started, in_one_line, is_last
from ablate.executors import Slot
from ablate.executors.inline import InlineExecutor
from ablate.executors.local import LocalExecutor, accelerator_slots, cpu_slots, together

PATIENCE = 120
HERE = str(Path(scripted.__file__).parent)


def local(training=scripted.train, slots=1):
    return LocalExecutor(training, cpu_slots(slots))


def collect(executor, *bundles: Bundle):
    """Submit bundles to slots 0, 1, … and return all events until each run has had its last."""
    for bundle, slot in zip(bundles, executor.slots, strict=False):
        executor.submit(bundle, slot)
    return drain(executor, {run for bundle in bundles for run in bundle.runs})


def drain(executor, runs: set[str]):
    events, begun = [], time.monotonic()
    while runs:
        assert time.monotonic() - begun < PATIENCE, f"still waiting for {runs} after {events}"
        for event in executor.wait(timeout=1):
            events.append(event)
            runs = runs - {event.run} if is_last(event) else runs
    return events


def shape(events):
    return [(e.run, e.attempt, e.seq, type(e).__name__) for e in events]


# --- the contract -------------------------------------------------------------------------------------------------


def test_events_of_a_run_arrive_in_order_and_whole(make):
    with make(scripted.train) as executor:
        events = collect(executor, Bundle((task("a", attempt=3),)))
    assert shape(events) == [
        ("a", 3, 0, "Started"),
        ("a", 3, 1, "EpochEnd"),
        ("a", 3, 2, "EpochEnd"),
        ("a", 3, 3, "Finished"),
    ]
    assert [e.metrics for e in events if isinstance(e, EpochEnd)] == [
        {"val/accuracy": 0.1},
        {"val/accuracy": 0.2},
    ]
    assert events[-1].files == {"a.bin": b"\0" * 300_000}
    assert (events[-1].epoch, events[-1].metrics) == (2, {"test/accuracy": 0.5})


def test_a_slot_takes_bundle_after_bundle(make):
    with make(scripted.train) as executor:
        for name in "abcde":
            assert shape(collect(executor, Bundle((task(name),))))[-1] == (name, 1, 3, "Finished")


def test_every_run_of_a_bundle_has_its_own_sequence_and_its_own_end(make):
    with make(scripted.train) as executor:
        events = collect(executor, Bundle((task("a"), task("b", "start", "diverge"), task("c"))))
    for run, kinds in {"a": "SEEF", "b": "SF", "c": "SEEF"}.items():
        mine = [e for e in events if e.run == run]
        assert "".join(type(e).__name__[0] for e in mine) == kinds
        assert [e.seq for e in mine] == list(range(len(mine)))


def test_runs_of_a_bundle_may_take_turns(make):
    with make(scripted.interleaved) as executor:
        events = collect(executor, Bundle((task("a"), task("b"))))
    assert [e.run for e in events] == ["a", "b"] * 4
    assert {e.run for e in events if isinstance(e, Finished)} == {"a", "b"}


def test_a_training_that_raises_fails_its_run_with_one_line_and_the_traceback(make):
    with make(scripted.train) as executor:
        events = collect(executor, Bundle((task("a", "start", "epoch", "raise"),)))
    last = events[-1]
    assert shape(events)[-1] == ("a", 1, 2, "Failed")
    assert (last.kind, last.reason) == ("error", "ValueError: the dog ate it")
    assert "Traceback" in last.detail
    assert "and the second line" in last.detail


def test_a_training_that_raises_takes_only_the_open_runs_of_its_bundle_along(make):
    with make(scripted.train) as executor:
        events = collect(executor, Bundle((task("a"), task("b", "start", "raise"), task("c"))))
    ends = {e.run: e for e in events if is_last(e)}
    assert isinstance(ends["a"], Finished)
    assert [(run, ends[run].kind, ends[run].seq) for run in "bc"] == [("b", "error", 1), ("c", "error", 0)]


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (scripted.not_a_generator, "TypeError: 'NoneType' object is not an iterator"),
        (scripted.raises_at_once, "RuntimeError: no"),
    ],
)
def test_a_training_that_is_no_generator_fails_its_runs(make, training, reason):
    with make(training) as executor:
        events = collect(executor, Bundle((task("a"), task("b"))))
    assert [(e.run, e.seq, e.kind, e.reason) for e in events] == [
        ("a", 0, "error", reason),
        ("b", 0, "error", reason),
    ]


@pytest.mark.parametrize("script", [("return",), ("start", "epoch", "return"), ("start", "epoch")])
def test_a_training_that_ends_without_a_result_has_failed(make, script):
    with make(scripted.train) as executor:
        last = collect(executor, Bundle((task("a", *script),)))[-1]
    assert (last.kind, last.reason, last.seq) == (
        "error",
        "training ended without a result",
        len([s for s in script if s != "return"]),
    )


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("nonsense", "TypeError: training yielded int where an event belongs"),
        ("foreign", "ValueError: training yielded an event of the run 'nobody' which is not in the bundle"),
        ("old attempt", "event 1 of attempt 0 of the run 'a', where event 1 of attempt 1 was due"),
        ("gap", "event 6 of attempt 1 of the run 'a', where event 1 of attempt 1 was due"),
    ],
)
def test_a_stream_that_breaks_the_contract_is_cut_off_and_never_passed_on(make, step, said):
    with make(scripted.train) as executor:
        events = collect(executor, Bundle((task("a", "start", step, "epoch", "finish"),)))
    assert shape(events) == [("a", 1, 0, "Started"), ("a", 1, 1, "Failed")]
    assert events[-1].kind == "error"
    assert said in events[-1].reason


def test_nothing_follows_the_last_event_even_where_training_goes_on(make):
    with make(scripted.talkative) as executor:
        assert shape(collect(executor, Bundle((task("a"),)))) == [("a", 1, 0, "Finished")]
        assert executor.wait(timeout=0.1) == []
        assert shape(collect(executor, Bundle((task("a", attempt=2),)))) == [("a", 2, 0, "Finished")]


def test_an_event_of_a_run_that_has_ended_fails_those_that_have_not(make):
    with make(scripted.talkative) as executor:
        events = collect(executor, Bundle((task("a"), task("b"))))
    assert shape(events) == [("a", 1, 0, "Finished"), ("b", 1, 0, "Failed")]
    assert "of the run 'a' after its last" in events[-1].reason


def test_a_training_that_fails_while_it_is_closed_changes_no_result(make):
    with make(scripted.stubborn) as executor:
        assert shape(collect(executor, Bundle((task("a"),))))[-1] == ("a", 1, 1, "Finished")


def test_a_training_hears_of_a_cancellation_between_its_events():
    with local() as executor:
        executor.submit(
            Bundle((task("a", "start", "until cancelled", "epoch", "finish"),)), executor.slots[0]
        )
        events = executor.wait(PATIENCE)
        executor.cancel("a")
        events += drain(executor, {"a"})
    assert events[-1].kind == "cancelled"


@pytest.mark.parametrize("end", ["finish spent", "fail spent"])
def test_a_process_that_is_spent_trains_nothing_else(end):
    with local() as executor:
        pids = [
            collect(executor, Bundle((task(name, "start", end),)))[0].facts["pid"]
            for name, end in (("a", "finish"), ("b", end), ("c", "finish"), ("d", "finish"))
        ]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_training_that_exits_has_failed_and_takes_nobody_along(make):
    with make(scripted.train) as executor:
        last = collect(executor, Bundle((task("a", "start", "exit"),)))[-1]
        assert (last.kind, last.reason, last.seq) == ("error", "SystemExit: 3", 1)
        assert shape(collect(executor, Bundle((task("b"),))))[-1] == ("b", 1, 3, "Finished")


def test_cancelling_breaks_a_run_off_at_its_next_event_and_leaves_the_others_alone(make, tmp_path):
    go = tmp_path / "go"
    scripts = (task("a", "start", ("await", str(go)), *["epoch"] * 3000, "finish"), task("b"))
    with make(scripted.train) as executor:
        executor.submit(Bundle(scripts), executor.slots[0])
        first = executor.wait(timeout=PATIENCE)
        executor.cancel("a")
        executor.cancel("nobody")
        # A worker hears of it in its own time: give it long enough that only a deaf one would finish.
        go.touch()
        events = first + drain(executor, {"a", "b"})
    mine = [e for e in events if e.run == "a"]
    assert (type(mine[-1]), mine[-1].kind) == (Failed, "cancelled")
    assert [e.seq for e in mine] == list(range(len(mine)))
    assert len(mine) < 52
    assert shape(e for e in events if e.run == "b")[-1] == ("b", 1, 3, "Finished")


def test_cancelling_one_of_several_that_take_turns(make):
    with make(scripted.interleaved) as executor:
        executor.submit(Bundle((task("a"), task("b"), task("c"))), executor.slots[0])
        executor.cancel("b")
        events = drain(executor, {"a", "b", "c"})
    ends = {e.run: type(e) for e in events if is_last(e)}
    assert (ends["a"], ends["c"]) == (Finished, Finished)
    # A cancellation and the end may cross on their way; either way there is one last event.
    assert len([e for e in events if e.run == "b" and is_last(e)]) == 1


def test_a_cancelled_run_may_be_run_again(make):
    with make(scripted.train) as executor:
        executor.submit(Bundle((task("a"),)), executor.slots[0])
        executor.cancel("a")
        drain(executor, {"a"})
        assert shape(collect(executor, Bundle((task("a", attempt=2),))))[-1] == ("a", 2, 3, "Finished")


def test_waiting_for_nothing_returns_at_once(make):
    with make(scripted.train) as executor:
        assert executor.wait() == []
        assert executor.wait(timeout=PATIENCE) == []


def test_a_taken_slot_is_not_given_twice(make, tmp_path):
    with make(scripted.train) as executor:
        executor.submit(Bundle((task("a", "start", ("await", str(tmp_path / "go"))),)), executor.slots[0])
        with pytest.raises(AssertionError, match="taken"):
            executor.submit(Bundle((task("b"),)), executor.slots[0])


def test_leaving_the_context_ends_what_runs_and_yields_nothing_more(make, tmp_path):
    after = tmp_path / "after"
    script = ("start", ("await", str(tmp_path / "never")), ("note", str(after)))
    with make(scripted.train) as executor:
        executor.submit(Bundle((task("a", *script),)), executor.slots[0])
        executor.wait(timeout=PATIENCE)
    assert executor.wait(timeout=0.1) == []
    assert not after.exists()


def test_a_killed_slot_fails_the_open_runs_of_its_bundle_as_crashed_and_can_be_used_again(make, tmp_path):
    never = str(tmp_path / "never")
    with make(scripted.train) as executor:
        [slot] = executor.slots
        bundle = Bundle((task("a"), task("b", "start", "epoch", ("await", never)), task("c")))
        executor.submit(bundle, slot)
        events = []
        while not (events and events[-1].run == "b" and isinstance(events[-1], EpochEnd)):
            events += executor.wait(timeout=PATIENCE)
        executor.kill(slot)
        events += drain(executor, {"b", "c"})
        ends = {e.run: e for e in events if is_last(e)}
        assert isinstance(ends["a"], Finished), "what had ended stays as it was"
        assert [(ends[run].kind, ends[run].attempt, ends[run].seq) for run in "bc"] == [
            ("crash", 1, 2),
            ("crash", 1, 0),
        ]
        assert "killed" in ends["b"].reason
        assert shape(collect(executor, Bundle((task("b", attempt=2),))))[-1] == ("b", 2, 3, "Finished")


@pytest.mark.parametrize("used", [False, True], ids=["never used", "used before"])
def test_killing_a_free_slot_fails_nothing_and_leaves_it_free(make, used):
    with make(scripted.train) as executor:
        [slot] = executor.slots
        if used:
            collect(executor, Bundle((task("a"),)))
        executor.kill(slot)
        assert executor.wait(timeout=0) == []
        assert shape(collect(executor, Bundle((task("b"),)))) == shape(
            collect(executor, Bundle((task("b"),)))
        )


def test_a_slot_may_be_killed_twice_and_before_its_first_event(make, tmp_path):
    with make(scripted.train) as executor:
        executor.submit(Bundle((task("a", ("await", str(tmp_path / "never"))),)), executor.slots[0])
        executor.kill(executor.slots[0])
        executor.kill(executor.slots[0])
        assert shape(drain(executor, {"a"})) == [("a", 1, 0, "Failed")]
        assert executor.wait(timeout=0) == []


def test_what_a_training_prints_in_this_process_goes_to_stderr(capsys):
    with InlineExecutor(scripted.train) as executor:
        collect(executor, Bundle((task("a", "start", "print", "finish"),)))
    assert capsys.readouterr() == ("", "a training prints\n")


# --- workers ------------------------------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    """Whether a process has ended, all its threads included; nobody may have fetched its exit code yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until(condition, seconds: float = PATIENCE):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"not within {seconds} s"
        time.sleep(0.005)


def test_slots_work_side_by_side(tmp_path):
    # Each waits for the other to begin: one after the other they would never end.
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    with local(slots=2) as executor:
        events = collect(
            executor,
            Bundle((task("a", "start", ("note", one), ("await", two), "finish"),)),
            Bundle((task("b", "start", ("note", two), ("await", one), "finish"),)),
        )
    assert {e.run for e in events if isinstance(e, Finished)} == {"a", "b"}
    assert len({e.facts["pid"] for e in events if isinstance(e, Started)}) == 2


def test_a_worker_is_kept_from_bundle_to_bundle():
    with local() as executor:
        pids = {collect(executor, Bundle((task(run),)))[0].facts["pid"] for run in "abc"}
    assert len(pids) == 1
    assert pids != {os.getpid()}


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "the worker was killed by SIGKILL"),
        (signal.SIGSEGV, "the worker was killed by SIGSEGV"),
        (signal.SIGRTMIN + 1, f"the worker was killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_a_killed_worker_fails_its_run_within_a_second_and_its_slot_works_again(tmp_path, number, reason):
    script = ("start", "epoch", ("await", str(tmp_path / "never")))
    took: list[float] = []
    with local() as executor:
        while min(took, default=1) >= 1:  # a machine may be held up for longer, but not again and again
            assert len(took) < 3, took
            executor.submit(Bundle((task("a", *script),)), executor.slots[0])
            events = []
            while len(events) < 2:
                events += executor.wait(timeout=PATIENCE)
            killed = time.monotonic()
            os.kill(events[0].facts["pid"], number)
            events += drain(executor, {"a"})
            took.append(time.monotonic() - killed)
            assert shape(events) == [("a", 1, 0, "Started"), ("a", 1, 1, "EpochEnd"), ("a", 1, 2, "Failed")]
            assert (events[-1].kind, events[-1].reason) == ("crash", reason)
        assert shape(collect(executor, Bundle((task("a", attempt=2),))))[-1] == ("a", 2, 3, "Finished")


def test_a_worker_that_dies_before_its_first_event_fails_its_run():
    with local() as executor:
        events = collect(executor, Bundle((task("a", "kill"),)))
        assert shape(events) == [("a", 1, 0, "Failed")]
        assert (events[0].kind, events[0].reason) == ("crash", "the worker was killed by SIGKILL")
        assert shape(collect(executor, Bundle((task("b"),))))[-1] == ("b", 1, 3, "Finished")


def test_a_worker_that_leaves_by_the_back_door_fails_its_run():
    with local() as executor:
        last = collect(executor, Bundle((task("a", "start", "quit"),)))[-1]
    assert (last.kind, last.reason, last.seq) == ("crash", "the worker exited with 7", 1)


def test_a_dying_worker_takes_only_the_open_runs_of_its_own_bundle_along():
    with local(slots=2) as executor:
        events = collect(
            executor,
            Bundle((task("a"), task("b", "start", "kill"), task("c"))),
            Bundle((task("d", "start", *["epoch"] * 20, "finish"),)),
        )
    ends = {e.run: e for e in events if is_last(e)}
    assert isinstance(ends["a"], Finished)
    assert isinstance(ends["d"], Finished)
    assert [(ends[run].kind, ends[run].seq) for run in "bc"] == [("crash", 1), ("crash", 0)]


def test_what_a_worker_said_before_it_died_is_heard():
    with local() as executor:
        events = collect(executor, Bundle((task("a"), task("b", *["epoch"] * 200, "kill"))))
    assert len([e for e in events if e.run == "b"]) == 201
    assert isinstance(next(e for e in events if e.run == "a" and is_last(e)), Finished)


def test_a_worker_killed_between_two_bundles_is_replaced():
    with local() as executor:
        pid = collect(executor, Bundle((task("a"),)))[0].facts["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gone(pid))
        events = collect(executor, Bundle((task("b"),)))
        assert shape(events)[-1] == ("b", 1, 3, "Finished")
        assert events[0].facts["pid"] != pid


def test_killing_one_slot_leaves_the_others_alone(tmp_path):
    go = str(tmp_path / "go")
    with local(slots=2) as executor:
        executor.submit(Bundle((task("a", "start", ("await", go), "finish"),)), executor.slots[0])
        executor.submit(Bundle((task("b", "start", ("await", go), "finish"),)), executor.slots[1])
        executor.kill(executor.slots[1])
        assert drain(executor, {"b"})[-1].reason == "the worker was killed by SIGKILL"
        Path(go).touch()
        assert shape(drain(executor, {"a"}))[-1] == ("a", 1, 1, "Finished")


def test_what_a_training_started_goes_with_its_worker(tmp_path):
    with local() as executor:
        script = ("spawn", ("await", str(tmp_path / "never")))
        executor.submit(Bundle((task("a", *script),)), executor.slots[0])
        facts = executor.wait(timeout=PATIENCE)[0].facts
        os.kill(facts["pid"], signal.SIGKILL)
        assert drain(executor, {"a"})[-1].kind == "crash"
        wait_until(lambda: gone(facts["child"]))
        executor.submit(Bundle((task("b", *script),)), executor.slots[0])
        facts = executor.wait(timeout=PATIENCE)[0].facts
    wait_until(lambda: gone(facts["pid"]) and gone(facts["child"]))


@pytest.mark.parametrize(
    ("step", "seq"), [("unpicklable", 1), ("unpicklable finish", 1)], ids=["on the way", "the last one"]
)
def test_an_event_that_cannot_leave_the_worker_fails_the_run_not_the_worker(step, seq):
    with local() as executor:
        events = collect(executor, Bundle((task("a", "epoch", step, "epoch", "finish"), task("b"))))
        assert shape(events) == [("a", 1, 0, "EpochEnd"), ("a", 1, seq, "Failed"), ("b", 1, 0, "Failed")]
        assert {e.kind for e in events[1:]} == {"error"}
        assert "an event cannot leave the process" in events[1].reason
        assert shape(collect(executor, Bundle((task("c"),))))[-1] == ("c", 1, 3, "Finished")


def test_an_event_that_cannot_be_read_fails_the_run_and_nothing_else():
    with local() as executor:
        last = collect(executor, Bundle((task("a", "unreadable", "finish"),)))[-1]
        assert (last.kind, last.reason) == (
            "crash",
            "the worker sent what cannot be read: ArithmeticError: it does not come out",
        )
        assert shape(collect(executor, Bundle((task("c"),))))[-1] == ("c", 1, 3, "Finished")


def test_a_bundle_that_cannot_be_sent_leaves_the_slot_free():
    with local() as executor:
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
            executor.submit(Bundle((task("a", ("start", lambda: None)),)), executor.slots[0])
        assert shape(collect(executor, Bundle((task("b"),))))[-1] == ("b", 1, 3, "Finished")


def test_a_worker_sees_the_environment_of_its_parent_and_of_its_slot(monkeypatch):
    monkeypatch.setenv("ABLATE_TEST_PARENT", "set after the forkserver began")
    monkeypatch.setenv("ABLATE_TEST_BOTH", "parent")
    monkeypatch.delenv("ABLATE_TEST_ABSENT", raising=False)
    names = ("ABLATE_TEST_PARENT", "ABLATE_TEST_BOTH", "ABLATE_TEST_ABSENT", "CUDA_VISIBLE_DEVICES")
    slots = (
        Slot("one", "cuda:0", {"CUDA_VISIBLE_DEVICES": "3", "ABLATE_TEST_BOTH": "slot"}),
        Slot("two", "cuda:0", {"CUDA_VISIBLE_DEVICES": "5"}),
    )
    with LocalExecutor(scripted.train, slots) as executor:
        script = (("environment", *names), "finish")
        events = collect(executor, Bundle((task("a", *script),)), Bundle((task("b", *script),)))
    facts = {e.run: tuple(e.facts[n] for n in names) for e in events if isinstance(e, Started)}
    assert facts == {
        "a": ("set after the forkserver began", "slot", None, "3"),
        "b": ("set after the forkserver began", "parent", None, "5"),
    }


def test_workers_inherit_no_cuda_context_and_may_use_data_loaders_with_workers_of_their_own():
    script = (task("a", "threads", "finish"), task("b", "loader", "finish"))
    with local() as executor:
        facts = {e.run: e.facts for e in collect(executor, Bundle(script)) if isinstance(e, Started)}
    assert facts == {"a": {"cuda": False}, "b": {"sum": 45.0}}


def test_a_worker_finds_the_modules_that_its_parent_finds_now(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "only_there_for_executors.py").write_text("VALUE = 17")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "there"))
    with local() as executor:
        events = collect(
            executor,
            Bundle(
                (task("a", ("imports", "only_there_for_executors"), "finish"), task("b", "state", "finish"))
            ),
        )
    assert events[0].facts == {"value": 17}
    state = next(e for e in events if e.run == "b").facts
    assert state["cwd"] == str(tmp_path / "here")
    assert state["path"] == sys.path


SCRIPT = """
import sys, time
print("imported", flush=True)
sys.path.insert(0, {here!r})
import scripted
from ablate.events import Bundle
from ablate.executors.local import LocalExecutor, cpu_slots
# There is no `if __name__ == "__main__"` here, as in many a script.
executor = LocalExecutor(scripted.train, cpu_slots(2))
executor.__enter__()
for run, slot in zip("ab", executor.slots):
    executor.submit(Bundle((scripted.task(run, "state", "print", "spawn", ("await", {never!r})),)), slot)
seen = []
while len(seen) < 4:
    seen += executor.wait()
print(*(e.facts["main"] for e in seen if "main" in e.facts), flush=True)
print(*executor.processes.values(), *(e.facts["child"] for e in seen if "child" in e.facts), flush=True)
{then}
"""


def start(folder: Path, then: str):
    script = folder / "users_script.py"
    script.write_text(SCRIPT.format(here=HERE, never=str(folder / "never"), then=then))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, str(script)], cwd=folder, **pipes)
    lines = [process.stdout.readline().split() for _ in range(3)]
    return process, lines[:2], [int(pid) for pid in lines[2]]


def test_workers_are_gone_within_two_seconds_of_their_parents_violent_death(tmp_path):
    took: list[float] = []
    while min(took, default=2) >= 2:  # as above
        assert len(took) < 3, took
        process, _, pids = start(tmp_path, "time.sleep(60)")
        assert [gone(pid) for pid in pids] == [False] * 4
        process.kill()
        killed = time.monotonic()
        process.communicate()
        wait_until(lambda pids=pids: all(gone(pid) for pid in pids))
        took.append(time.monotonic() - killed)


def test_a_script_that_leaves_its_workers_open_ends_with_them_and_without_having_run_in_them(tmp_path):
    process, said, pids = start(tmp_path, "")
    rest = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    wait_until(lambda: all(gone(pid) for pid in pids))
    # Nor did what the trainings print get among the script's own results.
    assert said == [["imported"], ["None", "None"]]
    assert rest == ("", "a training prints\n" * 2)


IN_A_FOLDER = """
import sys, time
sys.path.insert(0, {here!r})
import scripted
from ablate.events import Bundle
from ablate.executors.local import LocalExecutor, cpu_slots
with LocalExecutor(scripted.train, cpu_slots(1)) as executor:
    executor.submit(Bundle((scripted.task("a", "folder", ("await", {never!r})),)), executor.slots[0])
    print(executor.wait()[0].facts["folder"], flush=True)
    {then}
"""


@pytest.mark.parametrize("then", ["", "time.sleep(60)"])
def test_the_temporary_folder_of_a_run_that_is_killed_goes_with_its_command(tmp_path, then):
    """The command ends in the middle of the run, or is killed itself."""
    script = IN_A_FOLDER.format(here=HERE, never=str(tmp_path / "never"), then=then)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # short enough for the address of a socket
        environment = os.environ | {"TMPDIR": place}
        with subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            folder = Path(process.stdout.readline().strip())
            assert folder.is_relative_to(place)
            if then:
                assert folder.is_dir()
                process.kill()
        wait_until(lambda: not [*Path(place).iterdir()])


def test_the_parents_main_module_is_as_it_was_after_workers_were_started():
    main = sys.modules["__main__"]
    before = {name: main.__dict__.get(name, "absent") for name in ("__spec__", "__file__", "__name__")}
    with local() as executor:
        collect(executor, Bundle((task("a"),)))
    assert {name: main.__dict__.get(name, "absent") for name in before} == before


def test_twenty_openings_leave_no_process_and_no_file_behind(record_property):
    def once():
        with local(slots=2) as executor:
            collect(executor, Bundle((task("a"),)), Bundle((task("b"),)))
            return list(executor.processes.values())

    once()
    files = open_files()
    began = time.monotonic()
    pids = [pid for _ in range(20) for pid in once()]
    per_worker = (time.monotonic() - began) / len(pids)
    print(f"a worker with its bundle took {1000 * per_worker:.0f} ms")
    record_property("milliseconds_per_worker", round(1000 * per_worker))
    assert open_files() == files
    assert len(pids) == 40
    wait_until(lambda: all(gone(pid) for pid in pids))


def test_an_interrupt_from_the_keyboard_leaves_workers_to_their_parent(tmp_path):
    go = tmp_path / "go"
    with local() as executor:
        executor.submit(Bundle((task("a", "start", ("await", str(go)), "finish"),)), executor.slots[0])
        os.kill(executor.wait(timeout=PATIENCE)[0].facts["pid"], signal.SIGINT)
        go.touch()
        assert shape(drain(executor, {"a"}))[-1] == ("a", 1, 1, "Finished")


# --- slots and words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inherited", "devices", "expected"),
    [
        (None, (0, 1), ["0", "1"]),
        (None, (1,), ["1"]),
        ("2,3", (0, 1), ["2", "3"]),
        ("2, 3", (1,), ["3"]),
        ("GPU-aa,GPU-bb", (1, 0), ["GPU-bb", "GPU-aa"]),
    ],
)
def test_a_slot_of_a_gpu_is_mapped_through_the_devices_that_this_process_may_use(
    monkeypatch, inherited, devices, expected
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if inherited is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    slots = accelerator_slots("cuda", devices)
    assert [slot.environment for slot in slots] == [{"CUDA_VISIBLE_DEVICES": real} for real in expected]
    assert {slot.device for slot in slots} == {"cuda:0"}


def test_several_slots_of_a_gpu_have_names_of_their_own_and_gpus_take_turns(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slots = accelerator_slots("cuda", (0, 1), per_device=2)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1", "0", "1"]
    assert len({slot.name for slot in slots}) == 4


def test_slots_of_several_devices_share_none_of_them(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert together(accelerator_slots("cuda", (0, 1)), 1) == accelerator_slots("cuda", (0, 1))
    pairs = together(accelerator_slots("cuda", (0, 1, 2, 3, 4)), 2)
    assert [(slot.name, slot.environment["CUDA_VISIBLE_DEVICES"]) for slot in pairs] == [
        ("cuda-0+1", "0,1"),
        ("cuda-2+3", "2,3"),
    ]
    assert together(accelerator_slots("cuda", (0, 1), per_device=2), 3) == ()
    assert [slot.name for slot in together(cpu_slots(5), 2)] == ["cpu-0+1", "cpu-2+3"]
    assert [slot.name for slot in together(cpu_slots(2), 3)] == ["cpu-0+1"], "a small machine still runs it"


def test_there_is_a_slot_for_every_core_that_may_be_used_unless_told_otherwise():
    assert len(cpu_slots()) == len(os.sched_getaffinity(0))
    assert [slot.name for slot in cpu_slots(3)] == ["cpu-0", "cpu-1", "cpu-2"]
    assert {slot.device for slot in cpu_slots(3)} == {"cpu"}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (ValueError("\n  \n three "), "ValueError: three"),
        (ValueError(), "ValueError"),
        (KeyError("k"), "KeyError: 'k'"),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 385 + "…"),
    ],
)
def test_an_exception_becomes_one_line(error, line):
    assert in_one_line(error) == line


def test_events_and_errors_survive_the_way_between_processes():
    event = Finished("a", 1, 2, 3.0, "diverged", 4, {"x": float("inf")}, {"f": b"\0"}, {"digest": "d"})
    assert pickle.loads(pickle.dumps(event)) == event
    error = StudyError("wrong", place="here", hint="do that")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (StudyError, "here: wrong\n  do that")


def test_importing_executors_imports_no_torch():
    code = "import ablate.executors.local, ablate.executors.inline, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_accelerators_of_other_kinds_are_named_as_torch_names_them(monkeypatch):
    monkeypatch.setenv("ZE_AFFINITY_MASK", "2,5")
    intel = accelerator_slots("xpu", (0, 1))
    assert [(slot.name, slot.device, slot.environment["ZE_AFFINITY_MASK"]) for slot in intel] == [
        ("xpu-0", "xpu:0", "2"),
        ("xpu-1", "xpu:0", "5"),
    ]
    [apple] = accelerator_slots("mps", (0,))
    assert (apple.name, apple.device, apple.environment) == ("mps-0", "mps:0", {})
    assert [slot.name for slot in together(intel, 2)] == ["xpu-0+1"]
    assert together(accelerator_slots("other", (0, 1)), 2) == (), "which it may use cannot be said"


@pytest.mark.parametrize(
    ("soft", "hard", "said"),
    [(16, 16, "a process may open 16 files at once here, and this study needs 64"), (16, 4096, "(64, 4096)")],
)
def test_too_few_files_for_workers_are_raised_or_said_before_any_starts(soft, hard, said):
    program = (
        "import resource\n"
        "from ablate.executors.local import LocalExecutor, cpu_slots\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "LocalExecutor(print, cpu_slots(2))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["spaces and é", "d" * 200, "file"])
def test_workers_start_wherever_temporary_files_are_to_lie(tmp_path, name):
    place = tmp_path / name
    place.touch() if name == "file" else place.mkdir()
    program = (
        "import sys; from pathlib import Path; import scripted; from scripted import task; from multiprocessing import util;"
        "from ablate.events import Bundle; from ablate.executors.local import LocalExecutor, cpu_slots\n"
        "with LocalExecutor(scripted.train, cpu_slots(1)) as executor:\n"
        "    executor.submit(Bundle((task('a'),)), executor.slots[0])\n"
        "    assert executor.wait(), 'nothing was trained'\n"
        "    print(util.get_temp_dir())\n"
    )
    paths = os.pathsep.join(path for path in [HERE, *sys.path] if path)
    environment = os.environ | {"TMPDIR": str(place), "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(done.stdout.strip()).exists(), "the folder of the socket is left"


def test_where_no_process_can_be_started_one_line_says_so_and_nothing_is_left(tmp_path):
    (tmp_path / "no_processes.py").write_text(
        "import os, resource\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
        "if os.getuid() == 0:\n    os.setuid(65534)  # root may start as many as it likes\n"
    )
    program = (
        "import scripted; from scripted import task; from multiprocessing import util;"
        "from ablate.errors import TrainingError; from ablate.events import Bundle;"
        "from ablate.executors.local import LocalExecutor, cpu_slots\n"
        "try:\n"
        "    with LocalExecutor(scripted.train, cpu_slots(1), ('no_processes',)) as executor:\n"
        "        executor.submit(Bundle((task('a'),)), executor.slots[0])\n"
        "except TrainingError as error:\n"
        "    print(util.get_temp_dir(), error.message, sep='\\n')\n"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in [str(tmp_path), HERE, *sys.path] if path)
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    folder, message = done.stdout.splitlines()
    assert (done.returncode, done.stderr, message) == (0, "", "no worker process can be started")
    assert not Path(folder).exists()
