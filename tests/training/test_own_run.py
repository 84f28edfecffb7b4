"""What a function may ask of its run, how it is called, and what is kept of it."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from ablate.code_digest import training_code
from ablate.errors import TrainingError
from ablate.events import Bundle, EpochEnd, Failed, Finished, Task, is_last
from ablate.executors.local import LocalExecutor, cpu_slots
from ablate.training import function, own_run, runs
from ablate.training.payload import Folders, RunPayload

MODULE = """
import functools, os, signal, subprocess, sys, time
from pathlib import Path

def resumes(config, seed, run):
    saved = run.checkpoint / "epoch"
    begun = int(saved.read_text()) if saved.exists() else 0
    left = [item.name for item in run.folder.iterdir()]
    (run.folder / "rubbish").write_text("of this attempt")
    for epoch in range(begun, 3):
        if epoch == 2 and begun == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        saved.write_text(str(epoch + 1))
        yield {"begun": begun, "attempt": run.attempt, "left": len(left)}

def stops(config, seed, run):
    yield {"val/accuracy": 0.5}
    while not run.stopping:
        time.sleep(0.005)
    (run.checkpoint / "seen").touch()
    yield {"val/accuracy": 0.6}
    return {"test/accuracy": 0.7}

def keeps(config, seed, run):
    (run.folder / "plot.txt").write_text("a plot")
    (run.folder / "some" / "deep").mkdir(parents=True)
    (run.folder / "some" / "deep" / "b.bin").write_bytes(bytes(5))
    run.log_artifact(run.folder / "plot.txt")
    run.log_artifact(str(run.folder / "some"))
    run.log_artifact(run.folder / "plot.txt", "other/name.txt")
    yield {"val/accuracy": 0.5}

def keeps_what_is_not_there(config, seed, run):
    run.log_artifact("nowhere.txt")
    yield {"val/accuracy": 0.5}

def keeps_elsewhere(config, seed, run):
    run.log_artifact(__file__, "../../elsewhere")
    yield {"val/accuracy": 0.5}

def prints(config, seed):
    print("by print")
    print("to stderr", file=sys.stderr)
    os.write(1, b"by the system\\n")
    yield {"val/accuracy": 0.5}
    subprocess.run(["echo", "by a child"], check=True)
    if config.get("lines"):
        for _ in range(config["lines"]):
            sys.stdout.write("y" * 99 + "\\n")
    if config.get("fails"):
        raise ValueError("after all")

def leaves_a_process_that_prints(config, seed):
    subprocess.Popen(["sleep", "60"])
    print("done")
    yield {"val/accuracy": 0.5}

def device(config, seed, *, device):
    yield {"is cpu": float(device == "cpu")}

def logs_to_mlflow(config, seed):
    its_own = "runs/logs_to_mlflow/" in os.environ["MLFLOW_TRACKING_URI"]
    yield {"in its folder": float(its_own), "run": float("MLFLOW_RUN_ID" in os.environ)}

def interrupts(config, seed):
    yield {"val/accuracy": 0.5}
    raise KeyboardInterrupt

def counts(config, seed, counted=[]):
    counted.append(1)
    yield {"calls": len(counted)}

def pid(config, seed):
    yield {"val/accuracy": 0.5}

def late(config, seed):
    if config.get("edit"):
        Path("lately.py").write_text("X = 2\\n")
    import lately

    yield {"x": lately.X}

# how it may be called
def usual(config, seed): yield {"c": config["c"], "s": seed}
def other_names(cfg, number): yield {"c": cfg["c"], "s": number}
def swapped(seed, config): yield {"c": config["c"], "s": seed}
def by_name(*, config, seed): yield {"c": config["c"], "s": seed}
def half_named(seed, cfg): yield {"c": cfg["c"], "s": seed}
def with_default(config, seed, rate=0.1): yield {"c": config["c"], "s": seed}
def with_all(run, device, seed, config): yield {"c": config["c"], "s": seed}
def anything(*args, **kwargs): yield {"c": args[0]["c"], "s": args[1]}
def named_anything(config, **kwargs): yield {"c": config["c"], "s": kwargs["seed"]}
def positional(config, seed, /): yield {"c": config["c"], "s": seed}
def three(config, seed, extra): yield {"c": config["c"], "s": seed}
part = functools.partial(three, extra=1)
def timed(f):
    @functools.wraps(f)
    def inner(*a, **k): return f(*a, **k)
    return inner
decorated = timed(usual)
class Callable_:
    def __call__(self, config, seed): yield {"c": config["c"], "s": seed}
an_object = Callable_()

# how it may not
a_lambda = lambda config, seed: iter([{"val/accuracy": 0.5}])
async def coroutine(config, seed): return {"val/accuracy": 0.5}
async def agenerator(config, seed): yield {"val/accuracy": 0.5}
number = 3
def no_seed(config): yield {}
def nothing(): yield {}
def returns_nothing(config, seed):
    def inner(): return 3
    inner()
"""

# Apart from the others: a fresh process imports torch where the module of its function does.
LOADS = """
from torch.utils.data import DataLoader

def loads(config, seed):
    yield {"sum": sum(batch.sum() for batch in DataLoader(range(10), batch_size=2, num_workers=2))}
"""

PRELOAD = ("ablate.training.runs",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own_run")
    (folder / "own_functions.py").write_text(MODULE)
    (folder / "own_loads.py").write_text(LOADS)
    (folder / "lately.py").write_text("X = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        yield folder
    sys.modules.pop("own_functions", None)


@pytest.fixture(scope="module")
def worker(folder):
    training = partial(runs.train, folders=Folders.under(folder / "mlruns"))
    with LocalExecutor(training, cpu_slots(1), PRELOAD) as executor:
        yield executor


def task(name: str, config: dict | None = None, attempt: int = 1, **payload) -> Task:
    source = {"train": name if ":" in name else f"own_functions:{name}", **payload.pop("source", {})}
    return Task(name, attempt, RunPayload(config or {}, 0, source=source, **payload))


def trained(executor, task: Task, told=lambda event: None):
    executor.submit(Bundle((task,)), executor.slots[0])
    events = []
    while not events or not is_last(events[-1]):
        arrived = executor.wait(30)
        assert arrived, "the run hangs"
        for event in arrived:
            told(event)
        events += arrived
    return events


def epochs(events):
    return [event.metrics for event in events if isinstance(event, EpochEnd)]


def test_a_run_that_is_killed_goes_on_from_its_checkpoint_in_a_folder_that_is_else_empty(worker, folder):
    killed = trained(worker, task("resumes"))
    assert (killed[-1].kind, epochs(killed)) == ("crash", [{"begun": 0, "attempt": 1, "left": 1}] * 2)
    resumed = trained(worker, task("resumes", attempt=2))
    assert isinstance(resumed[-1], Finished)
    assert epochs(resumed) == [{"begun": 2, "attempt": 2, "left": 1}], "the checkpoint alone is left"
    assert [item.name for item in (folder / "mlruns" / "runs" / "resumes").iterdir()] == ["rubbish"]


def test_a_function_hears_that_it_is_to_stop_and_is_broken_off_although_it_ends_by_itself(worker, folder):
    def cancel(event):
        if isinstance(event, EpochEnd):
            worker.cancel("stops")

    events = trained(worker, task("stops"), cancel)
    assert events[-1].kind == "cancelled"
    # Either it saw it within the epoch, or it was closed at the yield before.
    assert len(epochs(events)) in (1, 2)


def test_a_checkpoint_that_nobody_will_resume_from_is_discarded_and_nothing_else(tmp_path):
    folders = Folders.under(tmp_path)
    for name in ("checkpoint", "plots"):
        (tmp_path / "runs" / "pruned" / name).mkdir(parents=True)
        (tmp_path / "runs" / "other" / name).mkdir(parents=True)
    own_run.discard_checkpoint(folders, "pruned")
    own_run.discard_checkpoint(folders, "never begun")
    left = sorted(str(path.relative_to(tmp_path / "runs")) for path in (tmp_path / "runs").glob("*/*"))
    assert left == ["other/checkpoint", "other/plots", "pruned/plots"]


def test_files_and_folders_are_kept_with_the_run(worker):
    assert dict(trained(worker, task("keeps"))[-1].files) == {
        "plot.txt": b"a plot",
        "some/deep/b.bin": bytes(5),
        "other/name.txt": b"a plot",
    }


@pytest.mark.parametrize("name", ["keeps_what_is_not_there", "keeps_elsewhere"])
def test_what_cannot_be_kept_is_an_error_of_the_run(worker, name):
    last = trained(worker, task(name))[-1]
    assert isinstance(last, Failed)
    assert "run.log_artifact" in last.reason


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_printed_is_kept_by_whatever_means(worker, fails):
    last = trained(worker, task("prints", {"fails": fails}))[-1]
    assert isinstance(last, Failed) == fails
    lines = last.files["output.txt"].decode().splitlines()
    assert lines == ["by print", "to stderr", "by the system", "by a child"]


def test_of_much_that_is_printed_head_and_tail_are_kept(worker):
    output = trained(worker, task("prints", {"lines": 30_000}))[-1].files["output.txt"]
    assert output.startswith(b"by print\n")
    assert 900_000 < len(output) <= 1_000_000
    assert b"left out" in output


def test_a_process_that_outlives_the_run_does_not_hold_it_up(worker):
    last = trained(worker, task("leaves_a_process_that_prints"))[-1]
    assert isinstance(last, Finished)
    assert last.files["output.txt"] == b"done\n"


def test_a_function_is_told_its_device_and_the_record_too(worker):
    events = trained(worker, task("device", device="cpu"))
    assert epochs(events) == [{"is cpu": 1.0}]
    assert events[0].facts["device"].startswith("cpu")
    assert epochs(trained(worker, task("device", device="cuda:0"))) == [{"is cpu": 0.0}]
    assert trained(worker, task("device", device="cuda:0"))[0].facts["device"] == "cuda: cuda:0"


def test_workers_of_a_data_loader_work(worker):
    assert epochs(trained(worker, task("own_loads:loads"))) == [{"sum": 45.0}]


def test_what_a_function_logs_to_mlflow_goes_to_its_folder(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "ours")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///ours.db")
    training = partial(runs.train, folders=Folders.under(folder / "mlruns"))
    with LocalExecutor(training, cpu_slots(1), PRELOAD) as executor:
        assert epochs(trained(executor, task("logs_to_mlflow"))) == [{"in its folder": 1.0, "run": 0.0}]


def test_ctrl_c_raised_in_a_worker_is_a_failure_like_any_other(worker):
    last = trained(worker, task("interrupts"))[-1]
    assert (last.kind, last.reason.partition(" ")[0]) == ("error", "KeyboardInterrupt")


@pytest.mark.parametrize(
    ("isolate", "calls"), [(None, [1, 1, 1]), ("process", [1, 1, 1]), (True, [1, 1, 1]), (False, [1, 2, 3])]
)
def test_isolate_says_whether_runs_may_meet(folder, isolate, calls):
    training = partial(runs.train, folders=Folders.under(folder / "mlruns"))
    with LocalExecutor(training, cpu_slots(1), PRELOAD) as executor:
        seen = [epochs(trained(executor, task("counts", source={"isolate": isolate}))) for _ in range(3)]
        assert seen == [[{"calls": n}] for n in calls]
        pids = {trained(executor, task("pid", source={"isolate": isolate}))[0].facts["pid"] for _ in range(3)}
    assert len(pids) == (3 if isolate else 1)


@pytest.mark.parametrize(
    ("isolate", "words"),
    [
        (None, "fresh where the run before it had left anything behind"),
        ("process", "; its process was fresh."),
        (True, "; its process was fresh."),
        (False, "Runs shared processes"),
    ],
)
def test_reports_say_how_runs_were_kept_apart(isolate, words):
    config = function.FunctionConfig.parse({"train": "own_functions:usual", "isolate": isolate}, {})
    assert words in function.FunctionTrainer().isolation(config)


@pytest.mark.parametrize(
    "name",
    [
        *("usual", "other_names", "swapped", "by_name", "half_named", "with_default", "with_all", "anything"),
        *("named_anything", "positional", "part", "decorated", "an_object"),
    ],
)
def test_a_function_gets_its_arguments_by_their_names_else_in_their_order(folder, name):
    given = {"config": {"c": 3}, "seed": 7, "device": "cpu", "run": None}
    fit = function.load(f"own_functions:{name}")
    positional, named = function._arguments(fit, given)
    assert next(fit(*positional, **named)) == {"c": 3, "s": 7}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("a_lambda", "'a_lambda' is a lambda, not a function that yields"),
        ("coroutine", "'coroutine' is `async`"),
        ("agenerator", "'agenerator' is `async`"),
        ("Callable_", "'Callable_' is a class, not a function"),
        ("number", "'number' is 3, not a function"),
        ("no_seed", "it has no parameter 'seed'"),
        ("nothing", "it has no parameter 'config'"),
        ("three", "nothing is known for its parameter 'extra'"),
        ("returns_nothing", "'returns_nothing' neither yields metrics nor returns any"),
        ("usuall", "own_functions has no 'usuall'"),
    ],
)
def test_what_cannot_train_is_refused_before_anything_is_trained(folder, worker, name, complaint):
    with pytest.raises(TrainingError) as caught:
        function.load(f"own_functions:{name}")
    assert caught.value.message.startswith(complaint)
    if name in ("a_lambda", "usuall"):
        (last,) = trained(worker, task(name, check=True))
        assert isinstance(last, Failed)
        assert complaint in last.reason


def test_a_run_is_not_trained_by_other_code_than_it_was_planned_with(folder):
    planned = training_code("own_functions:late").digest
    training = partial(runs.train, folders=Folders.under(folder / "mlruns"))
    with LocalExecutor(training, cpu_slots(1), PRELOAD) as executor:
        assert isinstance(trained(executor, task("late", code=planned))[-1], Finished)
        # The worker has the code of before in its memory; it is a fresh one that would import the new.
        (last,) = trained(executor, task("pid", code="0123456789abcdef"))
        assert (last.kind, last.place) == ("code", "own_functions:pid")
        edited = trained(executor, task("late", {"edit": True}, code=planned))[-1]
        assert edited.kind == "code", "it imported what was edited meanwhile"
        assert trained(executor, task("late", code=planned))[-1].kind == "code"
        assert isinstance(
            trained(executor, task("late", code=training_code("own_functions:late").digest))[-1], Finished
        )
