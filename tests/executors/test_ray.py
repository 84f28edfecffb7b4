"""What is particular to Ray: machines that are lost, resources that are not there, and what people are told.

The contract that it shares with the other executors is in test_executors.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scripted
from clusters import MEMORY, on_ray
from scripted import task

from ablate.errors import StudyError
from ablate.events import Bundle, Failed, Finished, Started, is_last
from ablate.executors import Wanted, left_by_parent
from ablate.executors import ray as ray_executor
from ablate.executors.ray import RayExecutor, Request

PATIENCE = 60


def drain(executor, runs: set[str]):
    events, begun = [], time.monotonic()
    while runs:
        assert time.monotonic() - begun < PATIENCE, f"still waiting for {runs} after {events}"
        for event in executor.wait(timeout=1):
            events.append(event)
            runs = runs - {event.run} if is_last(event) else runs
    return events


def ready(executor, number: int):
    """Wait for so many slots."""
    begun = time.monotonic()
    while len(executor.slots) != number:
        assert time.monotonic() - begun < PATIENCE, f"{executor.slots} where {number} slots are due"
        time.sleep(0.05)
    return executor.slots


@pytest.fixture
def third_machine(ray_cluster, tmp_path, request):
    """The process group of a third machine with one processor and two GPUs, which a test may kill. Its parameter: whether it has ablate."""
    environment = dict(os.environ)
    if not getattr(request, "param", True):
        # Ray looks where the command looks for modules, too, so that all of this machine find it.
        (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['ablate'] = None")
        environment["PYTHONPATH"] = str(tmp_path)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--address={ray_cluster}"),
        *(
            "--num-cpus=1",
            "--num-gpus=2",  # made up: Ray believes it, and says which of them a run may see
            f"--object-store-memory={MEMORY}",
            "--disable-usage-stats",
            '--resources={"third": 1}',
        ),
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
    import ray

    begun = time.monotonic()
    while ray.cluster_resources().get("third") != 1:
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() - begun < PATIENCE, (tmp_path / "log").read_text()
        time.sleep(0.1)
    yield process
    with_all(process, signal.SIGKILL)
    begun = time.monotonic()
    while "third" in ray.cluster_resources():
        assert time.monotonic() - begun < PATIENCE, "the cluster does not notice that a machine is lost"
        time.sleep(0.05)


def with_all(process: subprocess.Popen, number: int) -> None:
    """Send a signal to a process and to all that descend from it: Ray gives its own a group each."""
    children = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in children.splitlines())}
    family = {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    for pid in family:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    process.wait()


@pytest.mark.slow  # the next one has runs on three machines at a time
def test_bundles_run_side_by_side_on_all_machines(ray_cluster, tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    with on_ray(workers=None) as executor:
        first, second = ready(executor, 2)
        executor.submit(Bundle((task("a", "start", ("note", one), ("await", two), "finish"),)), first)
        executor.submit(Bundle((task("b", "start", ("note", two), ("await", one), "finish"),)), second)
        events = drain(executor, {"a", "b"})
    assert {event.run for event in events if isinstance(event, Finished)} == {"a", "b"}


def test_a_ray_worker_that_dies_fails_its_run_and_none_on_another_machine(ray_cluster, tmp_path):
    go = str(tmp_path / "go")
    with on_ray(workers=None) as executor:
        for run, slot in zip("ab", ready(executor, 2), strict=True):
            executor.submit(Bundle((task(run, "start", ("await", go), "finish"),)), slot)
        events: list = []
        while len(events) < 2:
            events += executor.wait(timeout=1)
        [training] = (event.facts["pid"] for event in events if event.run == "b")
        os.kill(_parent(_parent(training)), signal.SIGKILL)  # its parent is the forkserver of Ray's worker
        events += drain(executor, {"b"})
        Path(go).touch()
        events += drain(executor, {"a"})
    lost, finished = (event for event in events if is_last(event))
    assert (type(lost), lost.run, lost.kind, lost.seq) == (Failed, "b", "crash", 1)
    assert (type(finished), finished.run) == (Finished, "a")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# A machine takes seconds: one test has all of its life.
@pytest.mark.slow
def test_a_machine_that_comes_later_is_used_shows_a_run_its_gpus_alone_and_fails_no_other_runs_when_it_is_lost(
    ray_cluster, request, tmp_path
):
    with on_ray(workers=None) as executor:
        ready(executor, 2)
        third_machine = request.getfixturevalue("third_machine")
        ready(executor, 3)
    with RayExecutor(scripted.train, Request(0, 2)) as executor:
        [slot] = ready(executor, 1)
        executor.submit(Bundle((task("a", ("environment", "CUDA_VISIBLE_DEVICES"), "finish"),)), slot)
        begun = drain(executor, {"a"})[0]
    assert (slot.device, begun.facts) == ("cuda:0", {"CUDA_VISIBLE_DEVICES": "0,1"})
    go = str(tmp_path / "go")
    with on_ray(workers=None) as executor:
        slots = ready(executor, 3)
        for run, slot in zip("abc", slots, strict=True):
            executor.submit(Bundle((task(run, "environment", "start", ("await", go), "finish"),)), slot)
        events: list = []
        while sum(event.seq == 1 for event in events) < 3:
            events += executor.wait(timeout=1)
        with_all(third_machine, signal.SIGKILL)
        lost: list = []
        while not any(is_last(event) for event in lost):
            lost += executor.wait(timeout=1)
        [end] = [event for event in lost if is_last(event)]
        assert (type(end), end.kind, end.seq) == (Failed, "crash", 2)
        assert end.reason  # of the machine or of the worker, whichever was missed first
        Path(go).touch()
        others = drain(executor, set("abc") - {end.run})
        assert {type(event) for event in others if is_last(event)} == {Finished}
        # The run of the lost machine goes to one that is left.
        [slot, _] = ready(executor, 2)
        executor.submit(Bundle((task(end.run, attempt=2),)), slot)
        assert isinstance(drain(executor, {end.run})[-1], Finished)


@pytest.mark.slow
def test_the_free_slots_of_a_lost_machine_are_left_out(third_machine):
    """Whatever was given to them would fail."""
    with on_ray(workers=None) as executor:
        ready(executor, 3)
        with_all(third_machine, signal.SIGKILL)
        ready(executor, 2)


@pytest.mark.slow
@pytest.mark.parametrize("third_machine", [False], indirect=True)
def test_a_machine_without_ablate_that_comes_later_is_left_out_and_ends_nothing(third_machine, capfd):
    with on_ray(workers=2) as executor:
        ready(executor, 2)
        executor._workers = None  # as if it had come now
        said, begun = "", time.monotonic()
        while "nothing is trained on" not in said:
            assert time.monotonic() - begun < PATIENCE, said
            assert len(executor.slots) == 2
            said += capfd.readouterr().err
        assert len(executor.slots) == 2


def test_leaving_ends_what_the_trainings_started_and_leaves_no_folder(ray_cluster, tmp_path):
    with on_ray() as executor:
        [slot] = executor.slots
        executor.submit(Bundle((task("a", "spawn", ("await", str(tmp_path / "never"))),)), slot)
        facts = executor.wait(timeout=PATIENCE)[0].facts
        forkserver = _parent(facts["pid"])
        folder = _environment(forkserver)[left_by_parent.FOLDER]
        assert Path(folder).is_dir()
    assert not Path(folder).exists()
    assert not _lives(forkserver)
    begun = time.monotonic()
    while any(_lives(pid) for pid in (facts["pid"], facts["child"])):
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.02)


def _environment(pid: int) -> dict[str, str]:
    """The variables with which a process began."""
    texts = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(text.split("=", 1) for text in texts if text)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_training_sees_the_settings_of_ablate_and_the_folder_of_the_command(
    ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv("ABLATE_TEST", "told")
    monkeypatch.setenv("OF_THIS_MACHINE", "alone")
    monkeypatch.chdir(tmp_path)
    with on_ray() as executor:
        [slot] = executor.slots
        names = ("ABLATE_TEST", "OF_THIS_MACHINE")
        executor.submit(
            Bundle((task("a", ("environment", *names), "finish"), task("b", "state", "finish"))), slot
        )
        begun = [event for event in drain(executor, {"a", "b"}) if isinstance(event, Started)]
    assert begun[0].facts == {"ABLATE_TEST": "told", "OF_THIS_MACHINE": None}
    assert begun[1].facts["cwd"] == str(tmp_path)


def test_a_machine_without_the_folder_says_so(ray_cluster, tmp_path, monkeypatch):
    # The actor looks for the folder when it begins, and by then it is gone, as it would be on another machine.
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    monkeypatch.setattr(ray_executor.Path, "cwd", lambda: folder)
    with pytest.raises(StudyError, match=r"has no folder .*gone") as error, on_ray():
        pass
    assert "share" in error.value.hint


TWO = {"a": {"CPU": 4.0, "GPU": 2.0}, "b": {"CPU": 8.0}}


@pytest.mark.parametrize(
    ("machines", "wanted", "request_", "slots"),
    [
        (TWO, Wanted(), Request(1, 1), 2),
        (TWO, Wanted("cpu"), Request(1, 0), 12),
        (TWO, Wanted("cuda", per_device=2), Request(0, 0.5), 4),
        (TWO, Wanted(each=2), Request(1, 2), 1),
        (TWO, Wanted("cpu", each=4), Request(4, 0), 3),
        # A run takes the processors of a machine that has fewer, as without a cluster.
        (TWO, Wanted("cpu", each=99), Request(8, 0), 1),
        ({"a": {"CPU": 0.0}, "b": {"CPU": 2.0}}, Wanted(), Request(1, 0), 2),
    ],
)
def test_a_slot_asks_for_the_devices_of_a_run(machines, wanted, request_, slots):
    asked = ray_executor._request(machines, wanted)
    assert asked == request_
    assert sum(asked.fitting(resources) for resources in machines.values()) == slots


@pytest.mark.parametrize("per_device", range(1, 40))
def test_as_many_runs_share_a_gpu_as_were_asked_for(per_device):
    asked = ray_executor._request({"a": {"CPU": 1.0, "GPU": 1.0}}, Wanted(per_device=per_device))
    # Ray rounds to ten-thousandths, and places no actor beyond a whole.
    assert round(asked.gpus * 10_000) * per_device <= 10_000
    assert asked.fitting({"CPU": 1.0, "GPU": 1.0}) >= per_device


@pytest.mark.parametrize(
    ("machines", "wanted", "place", "words"),
    [
        (TWO, Wanted(each=3), "--executor ray", "no machine with 3 GPUs for a run"),
        (TWO, Wanted("cuda", each=2, per_device=2), "--runs-per-device", "a run takes 2 GPUs"),
        ({"b": {"CPU": 8.0}}, Wanted("cuda"), "--executor ray", "no GPU for a run"),
        ({"b": {"CPU": 0.0}}, Wanted(), "--executor ray", "no CPU for a run"),
        ({}, Wanted(each=2), "--executor ray", "no CPU for a run"),
        ({"a": {"CPU": 0.0, "GPU": 1.0}}, Wanted(), "--executor ray", "no GPU and CPU for a run"),
    ],
)
def test_what_no_machine_has_is_said(machines, wanted, place, words):
    with pytest.raises(StudyError, match=words) as error:
        ray_executor._request(machines, wanted)
    assert error.value.place == place


@pytest.mark.parametrize(
    ("resources", "request_", "number"),
    [
        ({"CPU": 4.0}, Request(), 4),
        ({"CPU": 0.0, "memory": 1e9}, Request(), 0),
        ({}, Request(), 0),
        ({"CPU": 8.0, "GPU": 2.0}, Request(1, 1), 2),
        ({"CPU": 1.0, "GPU": 2.0}, Request(1, 1), 1),
        ({"CPU": 8.0, "GPU": 2.0}, Request(0, 1 / 3), 6),
        ({"CPU": 8.0}, Request(0, 1 / 3), 0),
    ],
)
def test_a_machine_has_room_for_what_its_resources_allow(resources, request_, number):
    assert request_.fitting(resources) == number


@pytest.mark.parametrize(
    ("devices", "place", "message"),
    [
        ("cuda", "--executor ray", "the cluster has no GPU for a run"),
        ("cuda:0", "--devices", "the cluster decides"),
    ],
)
def test_what_the_cluster_has_not_is_said_at_once(ray_cluster, devices, place, message):
    with pytest.raises(StudyError, match=message) as error:
        ray_executor.create(scripted.train, Wanted(devices), tuple, ())
    assert error.value.place == place


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "auto", "no-such-host.invalid:6379", "nonsense"]
)
def test_an_address_where_no_cluster_answers_is_said(address, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1\n")  # of a cluster that is gone
    code = (
        "import sys\n"
        "from ablate.executors import Wanted, ray\n"
        "try:\n    ray.create(print, Wanted(address=sys.argv[1]), tuple, ())\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, address],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | {"RAY_TMPDIR": str(tmp_path)},
    ).stdout
    assert output.startswith(f"StudyError --address: no Ray cluster answers at {address}")
