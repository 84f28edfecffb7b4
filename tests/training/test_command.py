"""Training by any command: real scripts in temporary folders."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from file_times import wait_past
from hypothesis import given
from hypothesis import strategies as st

from ablate.errors import AblateError, StudyError
from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started, Task, is_last
from ablate.study import spec
from ablate.study.keys import Study
from ablate.tracking.plans import stored_plan
from ablate.training import arguments, outcome, runs, trainer_of
from ablate.training.channels.file import FileChannel
from ablate.training.channels.reading import Places
from ablate.training.command_inputs import CommandInputs
from ablate.training.payload import Folders, RunPayload
from ablate.training.source_files import FolderCode, data_fingerprint

# --- the shapes of four projects, and what their studies say ---------------------------------------------------------

# argparse with a seed; the metric is a share.
MNIST = """
    import argparse, random
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--lr", type=float, default=1.0)
    parser.add_argument("--no-accel", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    random.seed(args.seed)
    for epoch in range(1, args.epochs + 1):
        for batch in range(0, 300, 100):
            print(f"Train Epoch: {epoch} [{batch}/300 (0%)]\\tLoss: {random.random() / epoch:.6f}")
        correct = int(90 + 3 * args.lr + random.gauss(0, 1))
        print(f"\\nTest set: Average loss: 0.0500, Accuracy: {correct}/100 ({correct}%)\\n")
"""
MNIST_STUDY: dict[str, Any] = {
    "study": "mnist",
    "command": [
        "python",
        "main.py",
        "{accel?--no-accel}",
        "--epochs",
        "{epochs}",
        "--lr",
        "{lr}",
        "--seed",
        "{seed}",
    ],
    "baseline": {"epochs": 2, "lr": 1.0, "accel": True},
    "factors": {"lr": [0.3], "accel": [False]},
    "metric": "accuracy",
    "metrics": {"accuracy": {"line": r"Accuracy: (\d+)/(\d+)"}, "train/loss": {"line": r"Loss: ([\d.]+)"}},
    "margin": 0.005,
    "seeds": 3,
}

# A step counter on another line than the metric; no seed among the arguments but in the environment.
MAKEMORE = """
    import os, random, sys
    steps, width = int(sys.argv[sys.argv.index("--max-steps") + 1]), int(os.environ["WIDTH"])
    random.seed(os.environ["ABLATE_SEED"])
    for step in range(0, steps, 10):
        print(f"step {step} | loss {3 / (step + width) + random.random():.4f} | step time 1.00ms")
        if step % 20 == 0:
            print(f"train loss: {2 + random.random():.6f} test loss: {1 + random.random():.6f}", file=sys.stderr)
"""
MAKEMORE_STUDY: dict[str, Any] = {
    "study": "makemore",
    "command": ["python", "makemore.py", "--max-steps", "{steps}"],
    "env": {"WIDTH": "{n.embd}"},
    "baseline": {"steps": 60, "n": {"embd": 16}},
    "factors": {"n.embd": [32]},
    "metric": "val/loss",
    "metrics": {
        "val/loss": {"line": r"test loss: ([\d.]+)"},
        "train/loss": {"line": r"step (?P<step>\d+) \\| loss ([\d.]+)".replace("\\\\", "\\")},
    },
    "margin": 0.05,
    "seeds": 3,
}

# Dotted overrides of a configuration, values read as Python's literals, quotes included.
MINGPT = """
    import ast, json, random, sys
    from pathlib import Path
    config = {"system": {"seed": 3407, "work_dir": "./out"}, "model": {"layers": [48]}, "trainer": {"learning_rate": 5e-4}}
    for argument in sys.argv[1:]:
        key, value = argument.split("=", maxsplit=1)
        assert key.startswith("--"), argument
        try:
            value = ast.literal_eval(value)
        except ValueError:
            pass
        block, name = key[2:].split(".")
        assert name in config[block], name
        config[block][name] = value
    folder = Path(config["system"]["work_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    random.seed(config["system"]["seed"])
    for score in range(1, 4):
        print(f"iter_dt 0.00ms; iter {500 * score}: train loss {random.random():.5f}")
        right = int(500 - 20 * random.random() - len(config["model"]["layers"]))
        print(f"train final score: {right}/500 = {right / 5:.2f}% correct")
"""
MINGPT_STUDY: dict[str, Any] = {
    "study": "adder",
    "command": [
        *("python", "projects/adder.py", "--system.work_dir='{run_dir}'", "--system.seed={seed}"),
        *("--model.layers={model.layers}", "--trainer.learning_rate={trainer.learning_rate}"),
    ],
    "baseline": {"model": {"layers": [48, 48]}, "trainer": {"learning_rate": 5e-4}},
    "factors": {"model.layers": [[48, 48, 48]], "trainer.learning_rate": [1e-3]},
    "metric": "accuracy",
    "metrics": {
        "accuracy": {"line": r"final score: (\d+)/(\d+)"},
        "train/loss": {"line": r"train loss ([\d.]+)"},
    },
    "margin": 0.01,
    "seeds": 3,
}

# The network is chosen by a comment; no seed at all; a progress bar that needs a terminal; results beside itself.
CIFAR = """
    import os, random, sys
    net, width = "ResNet18", 64
    # net, width = "VGG", 32
    _, columns = os.popen("stty size", "r").read().split()
    bar = int(columns) // 40
    os.makedirs("checkpoint", exist_ok=True)
    for epoch in range(2):
        print(f"\\nEpoch: {epoch}")
        right = 0
        for batch in range(1, 5):
            right += 20 + int(5 * random.random())
            sys.stdout.write(f" [{'=' * bar}] Loss: {random.random():.3f} | Acc: {right / batch / 25:.3%} ({right}/{25 * batch})")
            sys.stdout.write(" 4/4 \\n" if batch == 4 else f" {batch}/4 \\r")
            sys.stdout.flush()
    with open("checkpoint/ckpt.pth", "a") as file:
        file.write(f"{right}\\n")
    print(len(open("checkpoint/ckpt.pth").readlines()), "checkpoint")
"""
CIFAR_STUDY: dict[str, Any] = {
    "study": "cifar",
    "command": ["python", "main.py", "--lr", "{lr}"],
    "tty": True,
    "isolate": True,
    "baseline": {"lr": 0.1},
    "factors": {"lr": [0.01]},
    "metric": "accuracy",
    "metrics": {"accuracy": {"line": r"\((\d+)/(100)\)"}, "epochs": {"line": r"^Epoch: (?P<step>\d+)"}},
    "margin": 0.01,
    "seeds": 3,
}


ALLOWED = "[tool.ablate]\ncommands = true\n"


def write_project(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))


def read_study(place: Path, plain: dict[str, Any], **changes: Any) -> Study:
    """A study file in a folder, read. A key that is None is left out."""
    file = place / "study.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in (plain | changes).items() if v is not None}))
    return spec.read(file)


def events_of(
    study: Study,
    store: Path,
    *,
    seed: int = 0,
    attempt: int = 1,
    device: str = "cpu",
    change: dict[str, Any] | None = None,
) -> list[Event]:
    """All events of one run of a study's baseline. change: overrides."""
    config = study.baseline.override(change or {}).with_seed(seed)
    trainer_of(config).preparer()(config)
    payload = RunPayload(config.tree(), seed, device=device, source=config.source, metric=study.metric)
    task = Task(f"run-{seed}", attempt, payload)
    return list(runs.train(Bundle((task,)), Folders.under(store / "mlruns")))


def epochs(events: list[Event]) -> list[tuple[int, dict[str, float]]]:
    return [(event.epoch, dict(event.metrics)) for event in events if isinstance(event, EpochEnd)]


def finished(events: list[Event]) -> Finished:
    end = events[-1]
    assert isinstance(end, Finished), end
    return end


def failed(events: list[Event]) -> Failed:
    end = events[-1]
    assert isinstance(end, Failed), end
    return end


def output(events: list[Event]) -> str:
    end = events[-1]
    assert isinstance(end, Finished | Failed)
    return end.files["output.txt"].decode()


def prints(folder: Path, *lines: str) -> Study:
    """A study of a command that prints these lines, in which `accuracy` is a word and a number."""
    write_project(folder, {"main.py": "\n".join(f"print({line!r}, flush=True)" for line in lines)})
    return read_study(folder, SIMPLE_STUDY)


SIMPLE_STUDY: dict[str, Any] = {
    "study": "simple",
    "command": ["python", "main.py", "{lr}"],
    "baseline": {"lr": 0.1},
    "factors": {"lr": [0.2]},
    "metric": "accuracy",
    "metrics": {"accuracy": {"line": r"accuracy (\S+)"}},
    "margin": 0.01,
    "seeds": 3,
}


def script(place: Path, text: str, **changes: Any) -> Study:
    """A study of a script."""
    write_project(place, {"main.py": text})
    return read_study(place, SIMPLE_STUDY, **changes)


# --- four projects, untouched ---------------------------------------------------------------------------------------------


def test_argparse_with_a_seed(tmp_path):
    write_project(tmp_path, {"main.py": MNIST})
    study = read_study(tmp_path, MNIST_STUDY)
    events = events_of(study, tmp_path)
    end = finished(events)
    assert [number for number, _ in epochs(events)] == [1, 2]
    assert all(set(metrics) == {"accuracy", "train/loss"} for _, metrics in epochs(events))
    assert (end.epoch, end.outcome, end.facts["resolution"]) == (2, "finished", 0.01)
    assert "Train Epoch: 2 [200/300 (0%)]" in output(events)
    assert epochs(events_of(study, tmp_path)) == epochs(events)
    assert epochs(events_of(study, tmp_path, seed=1)) != epochs(events)
    # Of several values in an epoch the last counts.
    losses = [line.rpartition(" ")[2] for line in output(events).splitlines() if "Loss" in line]
    assert [metrics["train/loss"] for _, metrics in epochs(events)] == [float(losses[2]), float(losses[5])]


def test_a_step_counter_on_another_line_than_the_metric(tmp_path):
    write_project(tmp_path, {"makemore.py": MAKEMORE})
    study = read_study(tmp_path, MAKEMORE_STUDY)
    events = events_of(study, tmp_path)
    assert [number for number, _ in epochs(events)] == [1, 21, 41], (
        "steps that begin with 0 are counted from 1"
    )
    assert finished(events).epoch == 41
    assert epochs(events_of(study, tmp_path, seed=1)) != epochs(events)


def test_a_trial_counts_the_steps_that_a_pattern_without_a_value_tells(tmp_path):
    study = script(
        tmp_path, "for n in 1, 2: print('Epoch', n), print('accuracy', n / 4)", metrics=WITH_A_COUNTER
    )
    shown = tried(study)
    assert "  n: step 2  ←  Epoch 2" in shown
    assert shown[-2:] == ["accuracy: found 2 times", "n: found 2 times"]


def tried(study: Study) -> list[str]:
    payload = RunPayload(study.baseline.tree(), 0, source=study.baseline.source)
    return list(trainer_of(study.baseline).trial(Task("trial", 1, payload)))


def test_a_trial_shows_the_line_that_counts(tmp_path):
    text = "for n in range(9): print('accuracy', n / 10)\nprint('best accuracy 0.95')"
    study = script(tmp_path, text, metrics={"accuracy": {"line": r"accuracy (\S+)"}})
    shown = tried(study)
    assert "  accuracy = 0.2  ←  accuracy 0.2" in shown
    assert "  accuracy = 0.3  ←  accuracy 0.3" not in shown
    assert shown[-2:] == [
        "accuracy: found 10 times; the last counts",
        "  accuracy = 0.95  ←  best accuracy 0.95",
    ]


@pytest.mark.parametrize("isolate", [False, True])
def test_a_trial_names_the_files_that_runs_would_share(tmp_path, isolate):
    """A checkpoint that a program goes on from, say, would be another run's."""
    text = """
        import os
        from pathlib import Path
        Path("new").mkdir(exist_ok=True)
        for path in ("new/model.pt", "log.txt", os.environ["ABLATE_RUN_DIR"] + "/own.pt"):
            Path(path).write_text("x")
        Path("__pycache__").mkdir(exist_ok=True)
        Path("__pycache__/main.pyc").write_text("x")
        print("accuracy 0.5")
    """
    write_project(tmp_path, {"log.txt": "of an earlier run", "kept.txt": "as it is"})
    study = script(tmp_path, text, metrics={"accuracy": {"line": r"accuracy (\S+)"}}, isolate=isolate)
    last = tried(study)[-1]
    assert last.startswith("accuracy: found" if isolate else "it wrote log.txt and new/model.pt in ")


def test_dotted_overrides_and_quotes_that_are_passed_on_as_they_are(tmp_path):
    write_project(tmp_path, {"projects/adder.py": MINGPT})
    study = read_study(tmp_path, MINGPT_STUDY)
    events = events_of(study, tmp_path, change={"model.layers": [48, 48, 48]})
    assert [number for number, _ in epochs(events)] == [1, 2, 3]
    config = yaml.safe_load((tmp_path / "mlruns/runs/run-0/config.json").read_text())
    assert config["system"] == {"seed": 0, "work_dir": str(tmp_path / "mlruns/runs/run-0")}
    assert config["model"] == {"layers": [48, 48, 48]}


def test_a_terminal_and_a_copy_of_the_folder_for_a_script_that_asks_for_its_size_and_writes_beside_itself(
    tmp_path,
):
    write_project(tmp_path, {"main.py": CIFAR})
    study = read_study(tmp_path, CIFAR_STUDY)
    for seed in (0, 1):
        events = events_of(study, tmp_path, seed=seed)
        assert [number for number, _ in epochs(events)] == [1, 2]
        assert "1 checkpoint" in output(events)
    assert not (tmp_path / "checkpoint").exists()
    assert (tmp_path / "mlruns/runs/run-1/folder/checkpoint/ckpt.pth").exists()
    code = study.baseline.code()
    write_project(tmp_path, {"main.py": (tmp_path / "main.py").read_text().replace("# net", "net")})
    assert read_study(tmp_path, CIFAR_STUDY).baseline.code() != code, "another network is another run"


def test_a_whole_study_of_a_command_ends_in_a_verdict(workplace):
    write_project(workplace.root, {"main.py": MNIST})
    read_study(workplace.root, MNIST_STUDY, factors={"lr": [0.0]}, margin=0.02)
    refusal = workplace.ablate("run", "study.yaml", "--executor", "inline", code=2)
    assert "would run the command" in refusal
    assert "commands = true" in refusal
    assert not (workplace.root / "mlruns" / "runs").exists(), "nothing was run"
    workplace.ablate("run", "study.yaml", "--executor", "inline", "--allow-command", "-q")
    report = workplace.ablate("report", "mnist", "--format", "json")
    assert '"verdict"' in report
    assert stored_plan(workplace.store, "mnist").record.resolution == 0.01, "as it was printed"
    write_project(workplace.root, {"pyproject.toml": ALLOWED})
    again = workplace.ablate("run", "study.yaml", "--executor", "inline")
    assert "0 of 6" not in again


def test_a_baseline_is_tried_out_before_anything_is_recorded(workplace):
    write_project(workplace.root, {"main.py": MNIST})
    read_study(workplace.root, MNIST_STUDY)
    assert "would run the command" in workplace.ablate("run", "study.yaml", "--try", code=2)
    shown = workplace.ablate("run", "study.yaml", "--try", "--allow-command", "--set", "epochs=1")
    assert "$ python main.py --no-accel --epochs 1 --lr 1.0 --seed 0" in shown
    assert "accuracy = 0.9" in shown
    assert "Test set: Average loss: 0.0500, Accuracy: 9" in shown, "the line in which it was found"
    assert "train/loss: found 3 times" in shown
    assert "epoch 1: " in shown
    assert "epoch 2: " not in shown
    read_study(workplace.root, MNIST_STUDY, metrics={"accuracy": {"line": r"Acuracy: (\d+)"}})
    shown = workplace.ablate("run", "study.yaml", "--try", "--allow-command", code=2)
    assert "no line matched 'Acuracy: (\\d+)'" in shown
    assert "Train Epoch: 2 [200/300 (0%)]" in shown
    assert not workplace.client.get_experiment_by_name("mnist")


@pytest.mark.slow
def test_a_search_of_a_command_is_confirmed_by_a_study_that_lies_elsewhere(workplace):
    write_project(workplace.root, {"project/main.py": MNIST, "studies/keep": "", "pyproject.toml": ALLOWED})
    search = {"trials": 2, "sampler": "random", "candidates": 2}
    read_study(
        workplace.root / "studies",
        MNIST_STUDY,
        folder="../project",
        design="search",
        factors={"lr": {"range": [0.1, 3.0]}},
        search=search,
        seeds=1,
    )
    workplace.ablate("run", "studies/study.yaml", "--executor", "inline", "-q")
    workplace.ablate("init", "--from", "mnist", "-o", "best.yaml")
    confirming = yaml.safe_load((workplace.root / "best.yaml").read_text())
    assert confirming["folder"] == "project"
    assert {"env", "devices", "data", "until"} & confirming.keys() == set(), "only what was declared"
    assert spec.read(workplace.root / "best.yaml").baseline.code() != ""


# --- arguments and environment --------------------------------------------------------------------------------------------

SHOWS = """
    import json, os, sys
    print("accuracy 1")
    print(json.dumps({"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "python": sys.executable}))
"""


def shown(events: list[Event]) -> dict[str, Any]:
    return dict(json.loads(output(events).splitlines()[1]))


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("{lr}", ["0.1"]),
        ("--lr={lr}", ["--lr=0.1"]),
        ("{small}", ["1e-05"]),
        ("{model.width}", ["64"]),
        ("--width={ model.width }", ["--width=64"]),
        ("{model.sizes}", ["1", "2"]),
        ("--sizes={model.sizes}", ["--sizes=[1, 2]"]),
        ("{empty}", []),
        ("{model}", ['{"sizes": [1, 2], "width": 64}']),
        ("{amp?--amp}", ["--amp"]),
        ("{off?--off}", []),
        ("{nothing?--off}", []),
        ("x{amp?y}{off?z}", ["xy"]),
        ("{amp}", ["true"]),
        ("{nothing}", ["null"]),
        ("{name}", ["a b 'c' \"d\" $HOME `ls` {x} *"]),
        ("'{name}'", ["'a b 'c' \"d\" $HOME `ls` {x} *'"]),
        ("{{lr}} {{{lr}}}", ["{lr} {0.1}"]),
        ("{seed}:{device}:{attempt}", ["0:cpu:1"]),
        ("", [""]),
        ("$HOME; ls | cat > x", ["$HOME; ls | cat > x"]),
        (3, ["3"]),
        (0.5, ["0.5"]),
        ("é–🙂", ["é–🙂"]),
    ],
)
def test_what_the_arguments_are_that_a_template_makes(tmp_path, argument, expected):
    baseline = {
        "lr": 0.1,
        "small": 1e-5,
        "model": {"width": 64, "sizes": [1, 2]},
        "empty": [],
        "amp": True,
        "off": False,
        "nothing": None,
        "name": "a b 'c' \"d\" $HOME `ls` {x} *",
    }
    study = script(tmp_path, SHOWS, baseline=baseline, command=["python", "main.py", argument, "{lr}"])
    assert shown(events_of(study, tmp_path))["argv"] == [*expected, "0.1"]


@given(st.text(), st.text())
def test_any_text_is_passed_on_as_it_is_and_only_doubled_braces_change(before, after):
    escaped = [text.replace("{", "{{").replace("}", "}}") for text in (before, after)]
    template = arguments.parse("{lr}".join(escaped), "command")
    assert template.paths == ("lr",)
    assert template.text(lambda _: 0.1) == f"{before}0.1{after}"


@given(st.text(alphabet="{}?a. '", max_size=12))
def test_any_template_is_one_or_a_mistake_that_is_named(text):
    with contextlib.suppress(StudyError):
        assert isinstance(arguments.parse(text, "command").text(lambda _: None), str)


WITH_A_COUNTER = {"accuracy": {"line": r"accuracy (\S+)"}, "n": {"line": r"Epoch (?P<step>\d+)"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": ["python", "{l}"]}, "{l} is no setting of the baseline"),
        ({"command": ["python", "{lr"]}, "a brace without its other half"),
        ({"command": ["python", "{lr}", '{"a": 1}']}, "is no setting"),
        ({"command": ["python", "{}"]}, "a placeholder without a name"),
        ({"command": ["python", "{lr?--lr}"]}, "needs true or false"),
        ({"command": "python main.py --lr 'a b'"}, 'command: ["python", "main.py", "--lr", "a b"]'),
        ({"command": ["python", ["a"]]}, "an argument should be text or a number"),
        ({"command": ["python", {"lr": None}]}, "a placeholder needs quotes"),
        ({"command": ["python"]}, "`lr` reaches neither the command nor its environment"),
        ({"command": ["{e}"], "baseline": {"lr": 1, "e": []}, "factors": {"e": [["a"]]}}, "names no program"),
        ({"baseline": {"lr": 1, "run_dir": "x"}}, "`{run_dir}` is what ablate fills in"),
        ({"env": {"A": "{x}"}}, "{x} is no setting"),
        ({"env": {"A-B": "x"}}, "cannot name a variable"),
        ({"env": ["A=1"]}, "should be names of variables"),
        ({"metrics": None}, "`metrics:` is missing"),
        ({"metrics": {"accuracy": {"lines": "x"}}}, "did you mean 'line'"),
        ({"metrics": {"accuracy": {"line": "x"}}}, "no group for the value"),
        ({"metrics": {"accuracy": {"line": "(x"}}}, "not a regular expression"),
        ({"metrics": {"accuracy": {"line": "(x)", "json": "x"}}}, "more than one place"),
        ({"metrics": {"accuracy": "(x)"}}, "should say where the metric is found"),
        ({"metrics": {"accuracy": {"json": 3}}}, "should be text"),
        ({"metrics": {"accuracy": {"file": "{lr}.csv"}}}, "only {run_dir}"),
        ({"metrics": {"loss": {"line": "(x)"}}}, "'accuracy' is not a metric of this training"),
        ({"epoch": "loss"}, "'loss' is not one of the metrics"),
        ({"epoch": "n", "metrics": WITH_A_COUNTER}, "epoch: 'n' tells only a step, and no value"),
        ({"metric": "n", "metrics": WITH_A_COUNTER}, "'n' is not a metric of this training"),
        ({"until": {"epoch": 0}}, "at least 1"),
        ({"silence": "soon"}, "is not a time"),
        ({"devices": 0}, "at least 1"),
        ({"data": "x.csv"}, "a list of paths"),
        ({"train": "a:b"}, "a study has one"),
        ({"folder": 3}, "should be text"),
        # What a program is given is text.
        ({"baseline": {"lr": 1}, "factors": {"lr": ["1"]}}, "level '1' is the baseline's own"),
        ({"baseline": {"lr": None}, "factors": {"lr": ["null"]}}, "level 'null' is the baseline's own"),
        ({"baseline": {"lr": 1}, "factors": {"lr": [0.5, "0.5"]}}, "level '0.5' stands here twice"),
        ({"baseline": {"lr": None}, "factors": {"lr": [False, "false"]}}, "level 'false' stands here twice"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(StudyError) as caught:
        script(tmp_path, SHOWS, **changes)
    assert message in str(caught.value)
    assert "study.yaml" in str(caught.value)


def test_a_key_of_a_command_belongs_to_a_study_with_one(tmp_path):
    with pytest.raises(StudyError, match="belongs to studies with `command:`"):
        read_study(tmp_path, SIMPLE_STUDY, command=None, metrics=None, train="a:b", tty=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": ["no-such-program", "{lr}"]}, "there is no program 'no-such-program'"),
        ({"command": ["./main.py", "{lr}"]}, "may not be executed"),
        ({"folder": "nowhere"}, "does not exist"),
        ({"python": ".venv/bin/python"}, "there is no program"),
        ({"data": ["train.csv"]}, "there is no"),
    ],
)
def test_what_cannot_be_started_is_named_before_anything_runs(tmp_path, changes, message):
    study = script(tmp_path, SHOWS, **changes)
    with pytest.raises(AblateError) as caught:
        events_of(study, tmp_path)
    assert message in str(caught.value)
    assert caught.value.place in ("command", "folder", "python", "data")


def test_the_environment_of_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ours")
    monkeypatch.setenv("MLFLOW_RUN_ID", "ours")
    monkeypatch.setenv("OF_THE_USER", "kept")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    study = script(tmp_path, SHOWS, env={"RATE": "{lr}", "OMP_NUM_THREADS": 4})
    about = shown(events_of(study, tmp_path, seed=7, attempt=2))
    run = tmp_path / "mlruns" / "runs" / "run-7"
    expected = {
        "ABLATE_SEED": "7",
        "ABLATE_RUN_DIR": str(run),
        "ABLATE_DEVICE": "cpu",
        "ABLATE_ATTEMPT": "2",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "4",
        "RATE": "0.1",
        "OF_THE_USER": "kept",
        "CUDA_VISIBLE_DEVICES": "",
        "MLFLOW_TRACKING_URI": (run / "mlflow").as_uri(),
    }
    assert {name: about["env"].get(name) for name in expected} == expected
    assert "MLFLOW_RUN_ID" not in about["env"]
    assert (about["cwd"], about["python"]) == (str(tmp_path), sys.executable)
    on_gpu = shown(events_of(study, tmp_path, device="cuda:0"))
    assert (on_gpu["env"]["CUDA_VISIBLE_DEVICES"], on_gpu["env"]["ABLATE_DEVICE"]) == ("3", "cuda:0")


def test_the_folder_is_relative_to_the_study_and_python_to_the_folder(tmp_path):
    project = tmp_path / "project"
    write_project(project, {"main.py": SHOWS, "sub/helper": ""})
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (project / ".venv" / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    studies = tmp_path / "studies"
    studies.mkdir()
    study = read_study(studies, SIMPLE_STUDY, folder="../project", python=".venv/bin/python")
    events = events_of(study, tmp_path)
    about = shown(events)
    assert about["cwd"] == str(project)
    assert about["python"] == str(project / ".venv" / "bin" / "python")
    assert about["env"]["PATH"].startswith(str(project / ".venv" / "bin") + os.pathsep)
    assert isinstance(events[0], Started)
    assert events[0].facts["interpreter"] == about["python"]


def test_the_model_of_a_gpu_is_recorded_as_the_driver_has_it(tmp_path, monkeypatch):
    write_project(tmp_path, {f"gpus/{i}/information": "Model: \t\t NVIDIA H200\nIRQ: 1\n" for i in range(2)})
    monkeypatch.setattr(outcome, "_DRIVER", tmp_path / "gpus")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert outcome.machine("cuda:0")["device"] == "cuda: NVIDIA H200"
    write_project(tmp_path, {"gpus/2/information": "Model: another\n"})
    assert outcome.machine("cuda:0")["device"] == "cuda: cuda:0"


# --- the curve -------------------------------------------------------------------------------------------------------------


def test_rounded_losses_are_no_copies_and_printed_decimals_are_a_resolution(tmp_path):
    text = "print('accuracy 0.91'); print('train loss 0.5')"
    metrics = {"accuracy": {"line": r"accuracy (\S+)"}, "train/loss": {"line": r"loss (\S+)"}}
    end = finished(events_of(script(tmp_path, text, metrics=metrics), tmp_path))
    assert end.facts["resolution"] == 0.01
    assert "trace" not in end.facts


def test_losses_with_all_their_digits_tell_copies(tmp_path):
    text = "print('train loss', 2 / 3); print('accuracy 0.91')"
    metrics = {"accuracy": {"line": r"accuracy (\S+)"}, "train/loss": {"line": r"loss (\S+)"}}
    study = script(tmp_path, text, metrics=metrics)
    assert (
        finished(events_of(study, tmp_path)).facts["trace"]
        == finished(events_of(study, tmp_path, seed=1)).facts["trace"]
    )


def test_many_rounded_losses_tell_copies_too(tmp_path):
    text = "for i in range(8): print(f'train loss {2 / (i + 3):.4f}')\nprint('accuracy 0.91')"
    metrics = {"accuracy": {"line": r"accuracy (\S+)"}, "train/loss": {"line": r"loss (\S+)"}}
    assert "trace" in finished(events_of(script(tmp_path, text, metrics=metrics), tmp_path)).facts


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN"])
def test_a_metric_or_a_loss_that_is_not_finite_is_diverged(tmp_path, value):
    text = f"import time\nprint('accuracy 0.5')\nprint('accuracy', {value!r}, flush=True)\ntime.sleep(1000)"
    end = finished(events_of(script(tmp_path, text), tmp_path))
    assert (end.outcome, end.epoch) == ("diverged", 2)
    assert "accuracy not finite in epoch 2" in end.facts["reason"]


def test_another_metric_that_is_not_finite_is_no_divergence(tmp_path):
    text = "print('grad nan'); print('accuracy 0.5')"
    metrics = {"accuracy": {"line": r"accuracy (\S+)"}, "grad": {"line": r"grad (\S+)"}}
    assert finished(events_of(script(tmp_path, text, metrics=metrics), tmp_path)).outcome == "finished"


def test_a_command_that_breaks_off_because_its_loss_is_nan_is_diverged(tmp_path):
    text = "print('accuracy 0.5'); print('loss nan'); raise SystemExit(3)"
    metrics = {"accuracy": {"line": r"accuracy (\S+)"}, "train/loss": {"line": r"loss (\S+)"}}
    assert finished(events_of(script(tmp_path, text, metrics=metrics), tmp_path)).outcome == "diverged"


def test_another_metric_may_end_an_epoch(tmp_path):
    text = "for i in (1, 2):\n    print('accuracy', i / 4)\n    print('loss', i)\nprint('test 0.7')"
    metrics = {
        "accuracy": {"line": r"accuracy (\S+)"},
        "loss": {"line": r"loss (\S+)"},
        "test/accuracy": {"line": r"test (\S+)"},
    }
    events = events_of(script(tmp_path, text, metrics=metrics, epoch="loss"), tmp_path)
    assert epochs(events) == [(1, {"accuracy": 0.25, "loss": 1.0}), (2, {"accuracy": 0.5, "loss": 2.0})]
    assert finished(events).metrics["test/accuracy"] == 0.7


def test_the_epoch_that_counts_is_the_last_with_the_metric_of_the_study(tmp_path):
    text = "for i in range(1, 6):\n    if i % 2 == 0: print('accuracy', i / 10)\n    print('loss', i)"
    metrics = {"accuracy": {"line": r"accuracy (\S+)"}, "loss": {"line": r"loss (\S+)"}}
    end = finished(events_of(script(tmp_path, text, metrics=metrics, epoch="loss"), tmp_path))
    assert end.epoch == 4


def test_a_progress_bar_that_shows_the_metric_again_and_again_is_one_epoch_where_its_step_says_so(tmp_path):
    text = """
        import sys
        for epoch in (1, 2):
            for part in (0.1, 0.2, 0.3):
                sys.stdout.write(f"\\repoch {epoch} accuracy {epoch / 10 + part:.1f}")
        print()
    """
    metrics = {"accuracy": {"line": r"epoch (?P<step>\d+) accuracy (\S+)"}}
    assert epochs(events_of(script(tmp_path, text, metrics=metrics), tmp_path)) == [
        (1, {"accuracy": 0.4}),
        (2, {"accuracy": 0.5}),
    ]


# --- how it ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("print('accuracy 0.5'); raise ValueError('no data here')", "error", "exited with 1"),
        ("import os; os.kill(os.getpid(), 11)", "crash", "SIGSEGV"),
        ("print('acc is 0.7')", "metrics", "'accuracy' was never found: no line matched"),
        ("print('accuracy high')", "metrics", "which is no number"),
        (
            "print('accuracy 1,234'); print('accuracy 0,93')",
            "metrics",
            "'0,93', and a decimal comma is not read",
        ),
        ("pass", "metrics", "it printed nothing"),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "memory", "exited with 1"),
    ],
)
def test_how_a_run_fails(tmp_path, text, kind, reason):
    end = failed(events_of(script(tmp_path, text), tmp_path))
    assert (end.kind, reason in end.reason) == (kind, True), end.reason
    assert "$ " in end.detail or "decimal comma" in reason


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("python -c 'raise ValueError(1)'; echo accuracy 0.5", "ValueError: 1"),
        ("echo accuracy 0.5; python -c 'raise ValueError(1)' | cat; echo done", "ValueError: 1"),
        (
            "echo accuracy 0.5; python -c 'try: 1/0\nexcept ValueError: 1'; echo",
            "ZeroDivisionError: division by zero",
        ),
        ("echo accuracy 0.5; bash -c 'kill -9 $$'; echo", "Killed"),
        (
            "echo accuracy 0.5; echo 'Exception ignored in: x'; echo 'Traceback (most recent call last)'; echo Error",
            "",
        ),
        ("echo accuracy 0.5; echo no Error in line 3", ""),
    ],
)
def test_an_error_that_a_command_tells_of_is_kept_although_it_ends_well(tmp_path, text, error):
    write_project(tmp_path, {"main.sh": text})
    study = read_study(tmp_path, SIMPLE_STUDY, command=["bash", "main.sh", "{lr}"])
    end = finished(events_of(study, tmp_path))
    assert end.facts.get("reason", "") == (f"ended well, but told of {error}" if error else "")


@pytest.mark.parametrize(
    ("lines", "metric", "line"),
    [
        (["Val: accuracy 0.5", "Test: accuracy 0.4"], "accuracy", "Test: accuracy 0.4"),
        (["accuracy 0.5", "final test accuracy 0.4"], "val/accuracy", "final test accuracy 0.4"),
        (["accuracy 0.5", "test accuracy 0.4"], "test/accuracy", ""),
        (["test accuracy 0.5", "Test accuracy 0.4"], "accuracy", ""),
        (["test accuracy 0.5", "accuracy 0.4"], "accuracy", ""),
        (["accuracy 0.5", "test loss 1, val accuracy 0.4"], "accuracy", ""),
        (["accuracy 0.5", "latest accuracy 0.4"], "accuracy", ""),
    ],
)
def test_a_run_whose_last_value_is_from_a_line_of_the_test_set_says_so(tmp_path, lines, metric, line):
    study = script(
        tmp_path,
        f"for line in {lines!r}: print(line)",
        metrics={metric: {"line": r"accuracy (\S+)"}},
        metric=metric,
        judged_on="test" if metric.startswith("test") else None,
    )
    reason = finished(events_of(study, tmp_path)).facts.get("reason", "")
    assert reason == (f"was judged by a line of the test set: {line}" if line else "")


def test_the_last_lines_of_a_command_that_fails_are_shown(tmp_path):
    text = "for i in range(100): print('line', i)\nraise ValueError('the reason')"
    events = events_of(script(tmp_path, text), tmp_path)
    assert "the reason" in failed(events).reason
    assert "line 99" in failed(events).detail
    assert "line 1\n" in output(events)


def test_silence_ends_a_run(tmp_path):
    text = "import time\nprint('accuracy 0.5', flush=True)\ntime.sleep(1000)"
    end = failed(events_of(script(tmp_path, text, silence="0.3s"), tmp_path))
    assert end.kind == "timeout"
    assert "printed nothing for" in end.reason


def test_a_command_that_never_ends_is_stopped_after_an_epoch_and_counts_as_finished(tmp_path):
    text = """
        import itertools, time
        for epoch in itertools.count(1):
            print(f"accuracy {epoch / 100}", flush=True)
            if epoch > 2:
                time.sleep(1000)
    """
    events = events_of(script(tmp_path, text, until={"epoch": 2}), tmp_path)
    assert [number for number, _ in epochs(events)] == [1, 2]
    assert (finished(events).outcome, finished(events).epoch) == ("finished", 2)


def test_a_run_that_is_cancelled_ends_although_it_prints_nothing(tmp_path):
    study = script(tmp_path, "import time\nprint('accuracy 0.5', flush=True)\ntime.sleep(1000)")
    config = study.baseline
    payload = RunPayload(config.tree(), 0, source=config.source, metric="accuracy")
    cancelled: set[str] = set()
    got = []
    for event in runs.train(Bundle((Task("run", 1, payload),), cancelled=lambda: cancelled)):
        got.append(event)
        if isinstance(event, EpochEnd):
            cancelled.add("run")
    assert isinstance(got[-1], Failed)
    assert got[-1].kind == "cancelled"
    assert is_last(got[-1])


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("resume", [False, True])
def test_a_second_attempt_finds_what_the_first_has_left_only_where_it_resumes(tmp_path, resume, isolate):
    text = """
        import os
        from pathlib import Path
        places = [Path(os.environ["ABLATE_RUN_DIR"]), *([Path()] if %r else [])]
        before = sum((place / "state").exists() for place in places)
        for place in places:
            (place / "state").write_text("saved")
        print("accuracy", before)
    """
    study = script(tmp_path, text % isolate, resume=resume, isolate=isolate)
    expected = (1 + isolate) * resume
    assert epochs(events_of(study, tmp_path)) == [(1, {"accuracy": 0.0})]
    assert epochs(events_of(study, tmp_path, attempt=2)) == [(1, {"accuracy": float(expected)})]
    assert epochs(events_of(study, tmp_path, attempt=1)) == [(1, {"accuracy": 0.0})], "begun anew"


# --- channels --------------------------------------------------------------------------------------------------------------


def test_json_lines(tmp_path):
    text = """
        import json
        print("starting {not json}")
        for epoch in (1, 2):
            print(json.dumps({"epoch": epoch, "val/accuracy": 0.25 * epoch, "loss": {"train": 2 / 3}, "flag": True, "none": None}))
        print(json.dumps({"test/accuracy": 0.5}))
    """
    metrics = {
        "accuracy": {"json": "val/accuracy"},
        "train/loss": {"json": "loss.train"},
        "test/accuracy": {"json": "test/accuracy"},
    }
    events = events_of(script(tmp_path, text, metrics=metrics), tmp_path)
    assert epochs(events) == [
        (1, {"accuracy": 0.25, "train/loss": 2 / 3}),
        (2, {"accuracy": 0.5, "train/loss": 2 / 3}),
    ]
    assert finished(events).metrics["test/accuracy"] == 0.5
    assert finished(events).facts["resolution"] == 0.01
    missing = failed(events_of(script(tmp_path, text, metrics=metrics | {"f1": {"json": "flag"}}), tmp_path))
    assert "no line of JSON had a number under 'flag'" in missing.reason


@pytest.mark.parametrize("where", ["{run_dir}/log.csv", "log.csv", "out/log.tsv", "log.jsonl"])
@pytest.mark.parametrize("rewritten", [False, True])
def test_a_file_that_grows(tmp_path, where, rewritten):
    text = """
        import json, os, sys
        from pathlib import Path
        path = Path(sys.argv[2])
        path.parent.mkdir(exist_ok=True)
        joint = "\\t" if path.suffix == ".tsv" else ", "
        rows = []
        for epoch in range(1, 4):
            rows.append({"epoch": epoch, "loss": 1 / epoch, "val_acc": ""})
            rows.append({"epoch": epoch, "loss": "", "val_acc": epoch / 4})
            if path.suffix == ".jsonl":
                lines = [json.dumps({name: value for name, value in row.items() if value != ""}) for row in rows]
            else:
                lines = [joint.join(rows[0])] + [joint.join(str(value) for value in row.values()) for row in rows]
            done = 0 if %r or epoch == 1 else 2 * epoch - 2 + (path.suffix != ".jsonl")
            with path.open("a" if done else "w") as file:
                file.write("\\n".join(lines[done:]) + "\\n")
    """
    metrics = {"accuracy": {"file": where, "column": "val_acc"}, "loss": {"file": where}}
    command = ["python", "main.py", "{lr}", where]
    study = script(tmp_path, text % rewritten, metrics=metrics, command=command, isolate="{" not in where)
    if "{" not in where:
        Path(tmp_path, where).parent.mkdir(exist_ok=True)
        Path(tmp_path, where).write_text("val_acc\n0.99\n")
    expected = [(epoch, {"accuracy": epoch / 4, "loss": 1 / epoch}) for epoch in (1, 2, 3)]
    assert epochs(events_of(study, tmp_path)) == expected


WRITTEN: dict[str, tuple[list[str], list[float]]] = {
    "rows, the last without an end": (["a,acc\n1,0.25\n2,0.5"], [0.25, 0.5]),
    "rows that come one by one, and half ones": (["acc\n0.25\n0.", "acc\n0.25\n0.5"], [0.25, 0.5]),
    "one row, written anew each time": (["acc\n0.25\n", "acc\n0.5\n", "acc\n0.75\n"], [0.25, 0.5, 0.75]),
    "an object, written anew each time": (['{"acc": 0.25}\n', '{"acc": 0.5}\n'], [0.25, 0.5]),
    "all rows written anew, with a column that came": (
        ["acc\n0.25\n", "", "acc,f1\n0.25,\n0.5,1\n"],
        [0.25, 0.5],
    ),
    "values that are the same": (["acc\n0.5\n0.5\n", "acc\n0.5\n0.5\n0.5"], [0.5, 0.5, 0.5]),
    "an object over several lines": (["{\n", '{\n  "acc": 0.5,\n  "more": {}\n}'], [0.5]),
    "a list of objects": (['[\n{"acc": 0.25},\n', '[\n{"acc": 0.25},\n{"acc": 0.5}\n]\n'], [0.25, 0.5]),
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("looks", [True, False], ids=["looked at in between", "looked at in the end"])
def test_all_values_of_a_file_are_read_once_however_it_is_written(tmp_path, how, looks):
    contents, expected = WRITTEN[how]
    file = tmp_path / ("log.json" if "object" in how else "log.csv")
    channel = FileChannel({"acc": {"file": file.name}}, Places(tmp_path, tmp_path, tmp_path))
    groups = []
    for time, content in enumerate(contents):
        file.write_text(content)
        os.utime(file, (time, time))
        groups += channel.look(ended=False) if looks else []
    groups += channel.look(ended=True)
    values = [found.value for group in groups for found in group]
    assert values == (expected if looks or "anew each" not in how else expected[-1:])
    assert channel.look(ended=True) == []


@pytest.mark.parametrize("where", ["log.csv", "../log.csv", "{here}/log.csv"])
def test_metrics_are_not_read_from_a_file_that_runs_share(tmp_path, where):
    """Two runs side by side would each have the values of both."""
    folder = tmp_path / "project"
    folder.mkdir()
    where = where.format(here=tmp_path)
    text = f"open({where!r}, 'w').write('accuracy\\n0.5\\n')"
    study = script(folder, text, metrics={"accuracy": {"file": where}})
    end = failed(events_of(study, folder))
    assert end.kind == "metrics"
    assert "is not the run's own: runs that go side by side write the same file" in end.reason
    assert "isolate: true" in end.reason
    assert "{run_dir}" in end.reason


def test_a_file_without_the_column_and_a_file_that_is_not_there(tmp_path):
    text = "open('log.csv', 'w').write('a,b\\n1,2\\n')"
    study = script(tmp_path, text, metrics={"accuracy": {"file": "log.csv", "column": "c"}}, isolate=True)
    assert "no number in a column 'c'; it has a, b" in failed(events_of(study, tmp_path)).reason
    study = script(tmp_path, "pass", metrics={"accuracy": {"file": "log.csv", "column": "c"}})
    assert "nothing was written to 'log.csv'" in failed(events_of(study, tmp_path)).reason


@pytest.mark.slow  # importing MLflow takes seconds
def test_mlflow_of_the_command_writes_into_a_store_of_its_own_and_is_read_from_there(tmp_path, monkeypatch):
    ours = tmp_path / "ours"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{ours}.db")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    text = """
        import mlflow
        with mlflow.start_run():
            for epoch in (1, 2):
                mlflow.log_metric("train/loss", 1 / epoch, step=epoch)
                mlflow.log_metric("val_acc", epoch / 4, step=epoch)
    """
    metrics = {"accuracy": {"mlflow": "val_acc"}, "train/loss": {"mlflow": "train/loss"}}
    events = events_of(script(tmp_path, text, metrics=metrics), tmp_path)
    assert epochs(events) == [
        (1, {"accuracy": 0.25, "train/loss": 1.0}),
        (2, {"accuracy": 0.5, "train/loss": 0.5}),
    ]
    assert not Path(f"{ours}.db").exists()


def test_the_store_of_mlflow_is_read_as_it_grows_with_steps_or_without(tmp_path):
    text = """
        import os, time
        from pathlib import Path
        folder = Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("file://")) / "0" / "run" / "metrics" / "val"
        folder.mkdir(parents=True)
        with (folder / "acc").open("a") as file:
            for epoch in range(3):
                file.write(f"{1000 + epoch} {epoch / 4} 0\\n")
    """
    study = script(tmp_path, text, metrics={"accuracy": {"mlflow": "val/acc"}})
    assert epochs(events_of(study, tmp_path)) == [
        (1, {"accuracy": 0.0}),
        (2, {"accuracy": 0.25}),
        (3, {"accuracy": 0.5}),
    ]
    study = script(tmp_path, text, metrics={"accuracy": {"mlflow": "acc"}})
    assert "it logged val/acc" in failed(events_of(study, tmp_path)).reason


def test_scalars_of_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: `make install` does")
    text = """
        import os, sys
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        writer = EventFileWriter(os.environ["ABLATE_RUN_DIR"] + "/tb")
        for epoch in (1, 2):
            for tag, value in (("val/acc", epoch / 4), ("train/loss", 1 / epoch)):
                writer.add_event(Event(step=epoch, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])))
        writer.close()
    """
    metrics = {"accuracy": {"tensorboard": "val/acc"}, "train/loss": {"tensorboard": "train/loss"}}
    events = events_of(script(tmp_path, text, metrics=metrics), tmp_path)
    assert epochs(events) == [
        (1, {"accuracy": 0.25, "train/loss": 1.0}),
        (2, {"accuracy": 0.5, "train/loss": 0.5}),
    ]
    study = script(tmp_path, text, metrics={"accuracy": {"tensorboard": "acc"}})
    assert "there is val/acc, train/loss" in failed(events_of(study, tmp_path)).reason


def test_what_is_in_a_file_before_a_line_ends_the_epoch_belongs_to_it(tmp_path):
    text = "open('log.csv', 'w').write('loss\\n0.5\\n0.4\\n')\nprint('accuracy 0.7')"
    metrics = {"accuracy": {"line": r"accuracy (\S+)"}, "loss": {"file": "log.csv"}}
    events = events_of(script(tmp_path, text, metrics=metrics, isolate=True), tmp_path)
    assert epochs(events) == [(1, {"accuracy": 0.7, "loss": 0.4})]


EVERY_CHANNEL = """
    import json, os, random
    from pathlib import Path
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    random.seed(os.environ["ABLATE_SEED"])
    lr, folder = float(os.environ["LR"]), Path(os.environ["ABLATE_RUN_DIR"])
    writer = EventFileWriter(str(folder / "tb"))
    writer.add_event(Event(step=1, summary=Summary(value=[Summary.Value(tag="val/f1", simple_value=0.5)])))
    writer.close()
    logged = Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("file://")) / "0" / "run" / "metrics"
    logged.mkdir(parents=True)
    (logged / "recall").write_text("1000 0.25 1\\n")
    (folder / "log.csv").write_text("epoch,loss\\n1,0.75\\n")
    print(json.dumps({"epoch": 1, "grad": {"norm": 3.5}}))
    print(f"epoch 1: accuracy {lr + random.random() / 100:.6f}")
"""


def test_a_study_whose_command_has_a_metric_in_every_channel(workplace):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: `make install` does")
    metrics = {
        "accuracy": {"line": r"epoch (?P<step>\d+): accuracy (\S+)"},
        "grad/norm": {"json": "grad.norm"},
        "train/loss": {"file": "{run_dir}/log.csv", "column": "loss"},
        "val/f1": {"tensorboard": "val/f1"},
        "val/recall": {"mlflow": "recall"},
    }
    command, env = ["python", "main.py"], {"LR": "{lr}"}
    write_project(workplace.root, {"numbers/one.txt": "1"})
    script(
        workplace.root, EVERY_CHANNEL, command=command, env=env, metrics=metrics, seeds=1, data=["numbers"]
    )
    said = workplace.ablate("run", "study.yaml", "--allow-command", "--executor", "inline")
    assert "2 runs" in said
    expected = {"grad/norm": 3.5, "train/loss": 0.75, "val/f1": 0.5, "val/recall": 0.25}
    for run in workplace.runs("simple"):
        assert expected.items() <= run.data.metrics.items()
        [point] = workplace.client.get_metric_history(run.info.run_id, "val/f1")
        assert point.step == 1
    [arm, _] = workplace.runs("simple", "arm")
    assert [
        each.dataset.name for each in workplace.client.get_run(arm.info.run_id).inputs.dataset_inputs
    ] == ["numbers"]
    accuracies = {
        run.data.tags["ablate.arm"]: run.data.metrics["accuracy"] for run in workplace.runs("simple")
    }
    assert accuracies["lr=0.2"] - accuracies["baseline"] == pytest.approx(0.1)


# --- the key ---------------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def code(folder: Path, **changes: Any) -> str:
    return read_study(folder, SIMPLE_STUDY, **changes).baseline.code()


EDITS = [
    # What is written where, whether it is committed, and whether it makes other runs: in a repository, and in a folder.
    ({"main.py": "print(2)"}, True, True),
    ({"main.py": "print(1)  # why"}, False, False),
    ({"package/other.py": "x = 1"}, True, True),
    ({"train.sh": "echo"}, True, True),
    ({"README.md": "words"}, False, False),
    ({"other.yaml": "study: other\nmargin: 1\n"}, False, False),
    ({"results.json": "{}"}, False, False),
    ({"mlruns/runs/x/folder/main.py": "print(3)"}, False, False),
    ({".venv/pyvenv.cfg": "home = /\n", ".venv/lib/module.py": "x = 1"}, False, False),
]


@pytest.mark.parametrize(
    ("files", "in_git", "in_folder"), EDITS, ids=[next(iter(files)) for files, *_ in EDITS]
)
@pytest.mark.parametrize("repository", [True, False])
def test_which_edits_make_other_runs(tmp_path, files, in_git, in_folder, repository):
    write_project(tmp_path, {"main.py": "print(1)", ".gitignore": ".venv\nmlruns\n"})
    if repository:
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "main.py")
    before = code(tmp_path)
    write_project(tmp_path, files)
    assert (code(tmp_path) != before) == (in_git if repository else in_folder)
    if repository:
        after = code(tmp_path)
        git(tmp_path, "add", "main.py")
        git(tmp_path, "commit", "-qm", "as it is")
        assert code(tmp_path) == after, "a commit by itself changes nothing"


def test_code_that_was_changed_since_the_plan_fails_the_run_and_the_study_says_so(tmp_path):
    study = script(tmp_path, "print('accuracy 0.5')")
    config = study.baseline
    planned = RunPayload(config.tree(), 0, source=config.source, metric="accuracy", code=config.code())

    def run(number: int) -> Event:
        return list(runs.train(Bundle((Task("run", number, planned),))))[-1]

    assert isinstance(run(1), Finished)
    write_project(tmp_path, {"main.py": "print('accuracy 0.5')  # the same"})
    assert isinstance(run(2), Finished)
    write_project(tmp_path, {"main.py": "print('accuracy 0.6')"})
    end = run(3)
    assert isinstance(end, Failed)
    assert end.kind == "code"
    assert "is not what it was when this study was planned" in end.reason


def test_a_study_whose_metric_is_never_found_ends_once_every_arm_has_shown_it(workplace):
    write_project(workplace.root, {"main.py": "print('acc 0.5')"})
    read_study(workplace.root, SIMPLE_STUDY)
    shown = workplace.ablate("run", "study.yaml", "--executor", "inline", "--allow-command", code=2)
    assert "'accuracy' was never found: no line matched" in shown
    assert "acc 0.5" in shown
    assert len(workplace.runs("simple")) == 2, (
        "each arm was tried once: a second attempt would lack the metric too"
    )


def test_files_that_the_command_names_count_wherever_they_are(tmp_path):
    write_project(tmp_path, {"main.py": "print(1)", "conf/a.yaml": "x: 1", "conf/b.yaml": "x: 1"})
    command = ["python", "main.py", "--config=conf/{name}.yaml", "{lr}"]
    baseline = {"lr": 0.1, "name": "a"}
    before = code(tmp_path, command=command, baseline=baseline)
    write_project(tmp_path, {"conf/b.yaml": "x: 2"})
    assert code(tmp_path, command=command, baseline=baseline) == before, "another arm's"
    write_project(tmp_path, {"conf/a.yaml": "x: 2"})
    assert code(tmp_path, command=command, baseline=baseline) != before


def test_a_repository_runs_nothing_when_it_is_read_and_counts_wherever_it_lies(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write_project(here, {"main.py": "print(1)", "data.txt": "1", ".gitattributes": "*.txt filter=evil\n"})
    git(here, "init", "-q")
    git(here, "add", ".")
    git(here, "commit", "-qm", "first")
    mark = tmp_path / "mark"
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    evil.chmod(0o755)
    for name in ("core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "diff.external", "core.pager"):
        git(here, "config", name, str(evil))
    (here / ".git" / "hooks").mkdir(exist_ok=True)
    for hook in ("post-index-change", "fsmonitor-watchman"):
        (here / ".git" / "hooks" / hook).symlink_to(evil)
    write_project(here, {"data.txt": "2"})
    first = code(here)
    assert not mark.exists()
    git(here, "config", "--unset", "core.fsmonitor")
    subprocess.run(["cp", "-r", str(here), str(there)], check=True)
    assert code(there) == first


def test_what_is_part_of_the_key_of_a_run(tmp_path):
    from ablate.config import key

    write_project(tmp_path, {"main.py": SHOWS, "train.csv": "1"})

    def key_with(**changes: Any) -> str:
        config = read_study(tmp_path, SIMPLE_STUDY, **changes).baseline
        return key(config, trainer_of(config).preparer()(config).fingerprint, config.code())

    plain = key_with()
    assert key_with(folder=".", silence="10m", resume=True, tty=True) == plain
    # Whoever adds it may have runs that have read each other's files.
    assert key_with(isolate=True) != plain
    different = [
        key_with(command=["python", "main.py", "{lr}", "x"]),
        key_with(env={"A": "1"}),
        key_with(baseline={"lr": 0.3}),
        key_with(python=sys.executable),
        key_with(until={"epoch": 3}),
        key_with(devices=2),
        key_with(metrics={"accuracy": {"line": r"accuracy ([\d.]+)"}}),
        key_with(data=["train.csv"]),
    ]
    assert len({plain, *different}) == 1 + len(different)
    write_project(tmp_path, {"train.csv": "2"})
    assert key_with(data=["train.csv"]) not in different


def test_data_are_fingerprinted_by_their_content_wherever_they_lie(tmp_path, monkeypatch):
    write_project(
        tmp_path, {"a/x/1.txt": "1", "a/2.txt": "2", "b/x/1.txt": "1", "b/2.txt": "2", "c/2.txt": "2"}
    )
    assert (
        data_fingerprint(tmp_path, ["a"])
        == data_fingerprint(tmp_path, ["b"])
        != data_fingerprint(tmp_path, ["c"])
    )
    assert data_fingerprint(tmp_path, ["a/2.txt"]) == data_fingerprint(tmp_path, ["c/2.txt"])
    assert data_fingerprint(tmp_path, []) == ""
    # Data sets often stand in a project as links to where there is room.
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "2.txt").write_text("2")
    (tmp_path / "d" / "x").symlink_to(tmp_path / "a" / "x")
    linked = data_fingerprint(tmp_path, ["d"])
    assert linked == data_fingerprint(tmp_path, ["a"])
    wait_past(tmp_path / "a" / "x" / "1.txt")
    (tmp_path / "a" / "x" / "1.txt").write_text("3")
    assert data_fingerprint(tmp_path, ["d"]) != linked
    (tmp_path / "a" / "x" / "round").symlink_to(tmp_path / "d")
    assert data_fingerprint(tmp_path, ["d"])
    monkeypatch.chdir(tmp_path / "a")
    assert data_fingerprint(Path(), ["."]) == data_fingerprint(tmp_path, ["a"])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="gives up the rights of root")
def test_folders_that_may_not_be_listed_are_no_data_unless_named(tmp_path):
    write_project(tmp_path, {"a/1.txt": "1", "a/lost+found/2.txt": "2"})
    (tmp_path / "a" / "lost+found").chmod(0)
    listed = (
        "import os, sys; from pathlib import Path\n"
        "from ablate.errors import DataError\n"
        "from ablate.training.source_files import _data_files, data_fingerprint\n"
        "os.chdir(sys.argv[1]); data_fingerprint(Path(), ['a/1.txt'])\n"  # imports what may lie where nobody else may look
        "os.seteuid(65534)\n"
        "print(*_data_files(Path('a')))\n"
        "try: data_fingerprint(Path(), ['a/lost+found'])\n"
        "except DataError as error: print(error)\n"
    )
    tmp_path.chmod(0o755)  # what lies around it is only for its owner, and not looked at
    done = subprocess.run(
        [sys.executable, "-c", listed, str(tmp_path)], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()[:2]
    assert first == "a/1.txt"
    assert "lost+found cannot be read: Permission denied" in second


READS = "import os, pathlib\n{}\nprint('accuracy', pathlib.Path('data/gain.txt').read_text())\n"


@pytest.mark.parametrize("kind", ["command", "function"])
@pytest.mark.parametrize(
    ("before", "meanwhile", "complaint"),
    [
        ("", "", None),
        ("", "os.utime('data/gain.txt', (5, 5))", None),
        ("", "pathlib.Path('data/.DS_Store').write_text('')", None),
        ("", "pathlib.Path('data/train.arrow.lock').write_text('')", None),
        ("", "os.mkdir('data/mlruns'); pathlib.Path('data/mlruns/mlflow.db').write_text('')", None),
        ("0.7", "", "not what they were when this study was planned ('data/gain.txt' was changed last)"),
        (
            "",
            "pathlib.Path('data/gain.txt').write_text('0.7')",
            "'data/gain.txt' changed while the run trained",
        ),
        ("", "pathlib.Path('data/more.txt').write_text('')", "'data/more.txt' changed while the run trained"),
        ("", "os.rename('data/other.txt', 'data/moved.txt')", "'data/moved.txt' and 1 more changed"),
        ("", "pathlib.Path('data/linked/far.txt').write_text('4')", "'data/linked/far.txt' changed"),
    ],
)
def test_a_result_of_other_data_than_the_plan_s_is_none(
    tmp_path, monkeypatch, kind, before, meanwhile, complaint
):
    monkeypatch.chdir(tmp_path)
    write_project(
        tmp_path,
        {
            "data/gain.txt": "0.5",
            "data/other.txt": "1",
            "far/far.txt": "2",
            "main.py": READS.format(meanwhile),
        },
    )
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "far")
    fingerprint = data_fingerprint(tmp_path, ["data"])
    wait_past(*(tmp_path / "data" / name for name in ("gain.txt", "other.txt", "linked/far.txt")))
    if kind == "command":
        config = script(tmp_path, READS.format(meanwhile), data=["data"]).baseline
        planned = RunPayload(config.tree(), 0, source=config.source, metric="accuracy", data=fingerprint)
    else:
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.delitem(sys.modules, "fit_of_data", raising=False)
        write_project(
            tmp_path,
            {
                "fit_of_data.py": f"import os, pathlib\ndef train(config, seed):\n    {meanwhile or 'pass'}\n"
                "    yield {'accuracy': float(pathlib.Path('data/gain.txt').read_text())}\n"
            },
        )
        source = {"train": "fit_of_data:train", "data": ["data"]}
        planned = RunPayload({}, 0, source=source, metric="accuracy", data=fingerprint)
    if before:
        write_project(tmp_path, {"data/gain.txt": before})
    end = list(runs.train(Bundle((Task("run", 1, planned),))))[-1]
    if complaint is None:
        assert isinstance(end, Finished)
    else:
        assert isinstance(end, Failed)
        assert (end.kind, end.place) == ("code", "data")
        assert complaint in end.reason


def test_folders_of_the_machine_that_stand_in_code_are_no_data(tmp_path):
    data, script = tmp_path / "elsewhere" / "data", tmp_path / "code" / "train.py"
    for file in (data / "train.csv", script):
        file.parent.mkdir(parents=True)
        file.write_text(f"folders = ['{data}', '/proc/sys/kernel/random', '/proc/self/fdinfo']\n")
    about = script.stat()
    code = FolderCode("digest", ((str(script), about.st_mtime_ns, about.st_size),), script.parent)
    text = CommandInputs(code, script.parent, ["/proc/sys/kernel/random"], without=(), variables={}).text()
    assert str(data / "train.csv") in text
    assert "/proc/" not in text
