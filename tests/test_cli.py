"""The command line from end to end: real training, real Optuna, a real MLflow store, read back with MLflow's own client."""

from __future__ import annotations

import errno
import json
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import typer.main

from ablate import cli, launch

DIGITS = """
study: digits
question: Does width matter?
margin: 0.02
baseline:
  data: {name: digits, validation: 0.25, subset: 400}
  model: {name: cnn, depth: 2, width: 8}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  training: {epochs: 3, batch_size: 64}
factors:
  model.width: [2]
seeds: 3
"""


@pytest.fixture
def digits(workplace):
    (workplace.root / "digits.yaml").write_text(DIGITS)
    return workplace


def test_a_study_goes_from_its_file_to_a_report_and_everything_on_the_way_is_recorded(digits):
    output = digits.train("digits.yaml", "--workers", "2")
    assert "Width 2" in output

    replicates = digits.runs("digits")
    assert sorted((r.data.tags["ablate.arm"], int(r.data.tags["ablate.seed"])) for r in replicates) == [
        (arm, seed) for arm in ("baseline", "model.width=2") for seed in range(3)
    ]
    arms = {run.info.run_id: run.data.tags["ablate.arm"] for run in digits.runs("digits", "arm")}
    for run in replicates:
        assert run.info.status == "FINISHED"
        assert run.data.tags["ablate.outcome"] == "finished"
        assert arms[run.data.tags["mlflow.parentRunId"]] == run.data.tags["ablate.arm"]
        assert run.data.params["optimizer.lr"] == "0.1"
        assert json.loads(run.data.tags["ablate.config"])["model"]["width"] == int(
            run.data.params["model.width"]
        )
        for metric in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"):
            history = digits.client.get_metric_history(run.info.run_id, metric)
            assert [point.step for point in history] == [1, 2, 3]
        for metric in (
            "test/loss",
            "test/accuracy",
            "test/precision_macro",
            "test/recall_macro",
            "test/f1_macro",
        ):
            assert run.data.metrics[metric] >= 0
        assert run.data.metrics["model/parameters"] > 0
        assert run.data.metrics["model/flops"] > 0
        assert run.data.metrics["time/train_seconds"] > 0
        files = {item.path for item in digits.client.list_artifacts(run.info.run_id)}
        assert {
            "confusion_matrix.json",
            "confusion_matrix.svg",
            "layers.json",
            "config.json",
            "predictions.npz",
        } <= files
    predictions = np.load(digits.client.download_artifacts(replicates[0].info.run_id, "predictions.npz"))
    accuracy = float((predictions["test_truth"] == predictions["test_predicted"]).mean())
    assert accuracy == pytest.approx(replicates[0].data.metrics["test/accuracy"])
    [report] = digits.runs("digits", "report")
    assert report.info.status == "FINISHED"

    digits.ablate("report", "digits")
    html = Path("reports/digits.html").read_text()
    assert "Does width matter?" in html

    # What MLflow's own pages show of it: data sets, verdicts as columns, the answer, the page and the study's file.
    [report] = digits.runs("digits", "report")
    files = {item.path for item in digits.client.list_artifacts(report.info.run_id)}
    assert files >= {"report.html", "study.yaml", "plan.json", "verdicts.json"}
    assert "Does width matter?" in report.data.tags["mlflow.note.content"]
    assert "Width 2 " in report.data.tags["mlflow.note.content"]
    for run in digits.runs("digits", "arm"):
        [used] = run.inputs.dataset_inputs
        assert used.dataset.name == "digits"
        assert json.loads(used.dataset.profile)["train"] == 300
        assert run.data.metrics["n"] == 3
        assert run.data.tags["ablate.verdict"]
        assert run.data.tags["mlflow.note.content"]
    verdicts = json.loads(digits.ablate("report", "digits", "--format", "json"))
    assert verdicts["runs"] == {"planned": 6, "finished": 6, "failed": 0, "diverged": 0, "missing": 0}
    [arm] = verdicts["arms"]
    assert (arm["arm"], arm["factor"], arm["level"], arm["n"]) == ("model.width=2", "model.width", 2, 3)
    differences = [
        _last_accuracy(digits, "model.width=2", seed) - _last_accuracy(digits, "baseline", seed)
        for seed in range(3)
    ]
    assert arm["effect"] == pytest.approx(np.mean(differences))
    assert arm["ci"][0] < arm["effect"] < arm["ci"][1]

    assert "6 finished of at most 6 runs" in digits.ablate("status")
    assert digits.ablate("list").strip() == "digits"


def _last_accuracy(workplace, arm: str, seed: int) -> float:
    [run] = [
        r
        for r in workplace.runs("digits")
        if r.data.tags["ablate.arm"] == arm and r.data.tags["ablate.seed"] == str(seed)
    ]
    return run.data.metrics["val/accuracy"]


def test_the_same_study_in_processes_and_in_this_process_gives_the_same_weights(digits):
    digits.train("digits.yaml", "--workers", "2")
    runs = digits.runs("digits")
    weights = {
        r.data.tags["ablate.arm"]: r.data.tags["ablate.weights"]
        for r in runs
        if r.data.tags["ablate.seed"] == "0"
    }
    digits.ablate("run", "digits.yaml", "--seeds", "1", "--executor", "inline", "--set", "training.epochs=3")
    assert len(digits.runs("digits")) == 6, "the key is the same, so nothing was trained again"
    (digits.root / "again.yaml").write_text(
        DIGITS.replace("study: digits", "study: again").replace("epochs: 3", "epochs: 2")
    )
    digits.ablate("run", "again.yaml", "--seeds", "1", "--executor", "inline")
    digits.ablate("run", "again.yaml", "--seeds", "1", "--executor", "inline", "--set", "training.epochs=3")
    again = [r for r in digits.runs("again") if r.data.params["training.epochs"] == "3"]
    assert {r.data.tags["ablate.arm"]: r.data.tags["ablate.weights"] for r in again} == weights


def test_a_dry_run_shows_the_plan_and_what_is_done_and_writes_nothing(digits):
    before = sorted(path for path in digits.root.rglob("*") if path.is_file())
    output = digits.ablate("run", "digits.yaml", "--dry-run", "--seeds", "2")
    assert "model.width=2" in output
    assert "2 arms, 4 runs" in output
    assert sorted(path for path in digits.root.rglob("*") if path.is_file()) == before
    digits.ablate("run", "digits.yaml", "--seeds", "1", "--executor", "inline")
    assert re.search(
        r"baseline\s+2 seeds\s+1", digits.ablate("run", "digits.yaml", "--dry-run", "--seeds", "2")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("width: 8", "widht: 8"),
            "digits.yaml:7: baseline.model.widht: unknown key 'widht'\n  did you mean 'width'?",
        ),
        (("lr: 0.1", "lr: true"), "baseline.optimizer.lr"),
        (("model.width: [2]", "model.width: [8]"), "is the baseline's own"),
        (("margin: 0.02", "margin: .nan"), "margin"),
        (("study: digits", "study: ../up"), "cannot name a study"),
        (("name: digits, validation", "name: image_folder, root: nowhere, validation"), "nowhere"),
    ],
)
def test_a_mistake_is_one_message_with_exit_code_2_and_nothing_is_written(digits, change, message):
    (digits.root / "digits.yaml").write_text(DIGITS.replace(*change))
    before = sorted(path for path in digits.root.rglob("*") if path.is_file())
    output = digits.ablate("run", "digits.yaml", code=2)
    assert message in output
    assert "Traceback" not in output
    assert sorted(path for path in digits.root.rglob("*") if path.is_file()) == before


def test_a_network_that_shrinks_its_input_to_nothing_says_so_before_anything_trains(digits):
    (digits.root / "digits.yaml").write_text(
        DIGITS.replace("model: {name: cnn, depth: 2, width: 8}", "model: {name: small_cnn}").replace(
            "model.width: [2]", "model.dropout: [0.5]"
        )
    )
    output = digits.ablate("run", "digits.yaml", code=2)
    assert "(W−F+2P)/S+1" in output


def test_json_lines_have_every_run_and_the_verdicts(workplace):
    lines = [
        json.loads(line)
        for line in workplace.ablate("run", workplace.study(), "--json", "--executor", "inline").splitlines()
        if line.startswith("{")
    ]
    page = (Path(__file__).parents[1] / "docs/scripting.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| (.*) \|$", page, re.MULTILINE))
    assert {line["kind"] for line in lines} == {"look", "running", "started", "epoch", "finished", "verdicts"}
    for line in lines:
        for name in line.keys() - {"kind", "run", "arm", "seed", "attempt", "metrics", "epoch"}:
            assert f"`{name}`" in documented[line["kind"]], (
                f"{line['kind']} lines have {name}, which the page does not name"
            )
    finished = [line for line in lines if line["kind"] == "finished"]
    assert len(finished) == 9
    [verdicts] = [line["verdicts"] for line in lines if line["kind"] == "verdicts"]
    for arm in verdicts["arms"]:
        values = {
            str(line["seed"]): line["metrics"]["val/accuracy"]
            for line in finished
            if line["arm"] == arm["arm"]
        }
        assert values == arm["values"]
    assert verdicts == json.loads(workplace.ablate("report", "toy", "--format", "json"))
    assert {arm["arm"]: arm["verdict"] for arm in verdicts["arms"]} == {
        "gain=0.2": "helps",
        "gain=0.001": "no practical effect",
    }


def test_a_report_can_fail_a_pipeline_on_arms_that_hurt_and_names_the_nearest_study(workplace):
    workplace.ablate("run", workplace.study(factors="{gain: [-0.2]}"), "--executor", "inline", "-q")
    assert "hurts: toy: gain=-0.2" in workplace.ablate("report", "toy", "--fail-on", "hurts", code=1)
    workplace.ablate("report", "toy", "--fail-on", "inconclusive")
    assert "did you mean 'toy'?" in workplace.ablate("report", "tyo", code=2)


def test_a_batch_script_is_written_for_a_study_that_its_options_leave_one(workplace):
    study = workplace.study()
    said = workplace.ablate("slurm", study, "--", "--set", "gain=no", "--set", "gian=1", code=2)
    assert "--set gian: unknown key" in said
    assert not list(workplace.root.glob("*.sbatch"))
    workplace.ablate("slurm", study, "--", "--seeds", "4", "-q")
    assert " --seeds 4 -q" in next(workplace.root.glob("*.sbatch")).read_text()


def test_the_suffix_of_the_output_says_the_format_of_a_report(workplace):
    workplace.trained()
    root = workplace.root
    for suffix, begins in {
        ".json": "{",
        ".csv": "arm",
        ".md": "#",
        ".tex": "% toy",
        ".html": "<!doctype html>",
    }.items():
        workplace.ablate("report", "toy", "-o", f"page{suffix}")
        assert (root / f"page{suffix}").read_text().startswith(begins), suffix
    (root / "folder").mkdir()
    for name in ("json", "csv", "md"):
        workplace.ablate("report", "toy", "-o", "folder", "--format", name)
        assert (root / "folder" / f"toy.{name}").read_text() == (root / f"page.{name}").read_text()
    workplace.ablate("report", "toy", "-o", "page.md", "--format", "html")
    assert (root / "page.md").read_text().startswith("<!doctype html>")


def test_watching_writes_the_page_again_until_the_study_has_ended(workplace, monkeypatch):
    import time

    from ablate import reporting

    workplace.trained()
    [run] = workplace.runs(kind="report")
    workplace.client.update_run(run.info.run_id, status="RUNNING")
    page, looks = Path("reports/toy.html"), []

    def end_after_three(_seconds):
        looks.append(page.read_text())
        if len(looks) == 3:
            workplace.client.update_run(run.info.run_id, status="FINISHED")

    monkeypatch.setattr(time, "sleep", end_after_three)
    output = workplace.ablate("report", "toy", "--watch")
    assert output.count("9 runs ended") == 1, "nothing new, nothing written"
    refresh = f'<meta http-equiv="refresh" content="{reporting.RELOAD_EVERY}">'
    assert [refresh in text for text in looks] == [True] * 3
    assert refresh not in page.read_text()
    assert "toy: nothing is running" in workplace.ablate("report", "toy", "--watch")
    assert "leave --format out" in workplace.ablate("report", "toy", "--watch", "--format", "md", code=2)


def test_code_that_a_study_names_is_imported_only_where_the_user_allowed_it(workplace):
    study = workplace.study()
    (workplace.root / "pyproject.toml").unlink()
    output = workplace.ablate("run", study, "--executor", "inline", code=2)
    assert "would import 'toy'" in output
    assert "--allow-import toy" in output
    assert not workplace.client.get_experiment_by_name("toy")
    workplace.ablate("run", study, "--executor", "inline", "--allow-import", "toy", "-q")
    assert len(workplace.runs()) == 9


@pytest.mark.parametrize(
    "project",
    [
        b"tool = 1",
        b"[[tool]]",
        b"tool = 'x'",
        b"[tool]\nablate = 3",
        b"[tool]\nablate = []",
        b"[[tool.ablate]]",
        b"not toml",
        b"\xff\xfe",
        b"[tool.ablate]\nimports = 5",
        b"[tool.ablate]\nimports = {toy = true}",
        b"[tool.ablate]\nimports = [1, [2], {a = 1}]",
        b"",
    ],
)
def test_a_project_file_of_any_content_allows_nothing_and_is_one_line(workplace, project):
    (workplace.root / "pyproject.toml").write_bytes(project)
    printed = workplace.ablate("run", workplace.study(), "--dry-run", code=2)
    assert "pyproject.toml: " in printed or "would import 'toy'" in printed
    assert len(printed.splitlines()) <= 3


@pytest.mark.parametrize(
    "options",
    [
        ["--executor", "foo"],
        ["--devices", "gpu"],
        ["--budget", "soon"],
        ["--timeout", "0s"],
        ["--set", "model.width=true"],
        ["--set", "data.name=image_folder", "--set", "data.root=nowhere"],
    ],
)
def test_a_dry_run_refuses_what_the_run_would_refuse(digits, options):
    assert "error: " in digits.ablate("run", "digits.yaml", "--dry-run", *options, code=2)


def test_a_dry_run_neither_joins_nor_begins_a_cluster(digits):
    """Where it looked for one, nobody would answer."""
    pytest.importorskip("ray")
    options = ("--dry-run", "--executor", "ray", "--address", "127.0.0.1:1")
    assert "2 arms" in digits.ablate("run", "digits.yaml", *options)
    assert "names a device" in digits.ablate("run", "digits.yaml", *options, "--devices", "cuda:0", code=2)


def test_a_data_set_that_is_not_there_is_named_with_the_nearest_that_is(workplace):
    output = workplace.ablate("data", "cifar-10", code=2)
    assert output.startswith("error: data: there is no data set 'cifar-10'\n  did you mean 'cifar10'?")


def test_a_store_without_a_study_says_what_makes_one(workplace):
    for command in ("list", "status"):
        assert "holds no study yet; `ablate init mine` writes one" in workplace.ablate(command)


def test_a_storage_that_optuna_cannot_open_is_one_clear_message(workplace):
    output = workplace.ablate(
        "run", workplace.study(), "--executor", "inline", "--storage", "nonsense", code=2
    )
    assert "--storage nonsense: Optuna cannot open it" in output


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("rnu x", "error: ablate: there is no command 'rnu'\n  did you mean 'run'?\n  `ablate --help`"),
        ("x.yaml", "error: ablate: there is no command 'x.yaml'\n  did you mean `ablate run x.yaml`?\n"),
        ("run --sed 3 x.yaml", "error: ablate run: there is no option --sed\n  did you mean '--seeds'?"),
        (
            "run --zz x.yaml",
            "error: ablate run: there is no option --zz\n  `ablate run --help` lists",
        ),
        ("--nonsense", "error: ablate: there is no option --nonsense"),
        ("judge", "error: ablate judge: FILE is missing\n"),
        ("run x.yaml --dry-run --try", "error: --try: trains, and --dry-run does not\n"),
        ("run x.yaml --dry-run --json", "error: --json: has no events to print with --dry-run\n"),
        ("run x.yaml --try --json", "error: --json: has no events to print with --try\n"),
        ("init x --from y --template judge", "error: --template: does not go with --from\n"),
        ("init x --from y --command z", "error: --command: does not go with --from\n"),
        ("slurm x.yaml -- --sed 3", "error: ablate run: there is no option --sed\n  did you mean '--seeds'?"),
        ("slurm x.yaml -- --seeds 0", "error: --seeds: should be at least 1\n"),
        ("status x", "error: there is no study 'x' in "),
        ("run", "error: ablate run: STUDY is missing\n  it means: the study's YAML file"),
        (
            "run a.yaml b.yaml",
            "error: ablate run: takes no further arguments (got 'b.yaml')\n  `ablate run",
        ),
        (
            "run a.yaml --seeds ten",
            "error: --seeds: should be a whole number\n  it means: look at so many seeds",
        ),
        ("run a.yaml --seeds 0", "error: --seeds: should be at least 1\n"),
        ("ui --port 70000", "error: --port: should be at most 65535\n"),
        ("lr a.yaml --from low", "error: --from: should be a number\n"),
        ("report --format", "error: --format: needs a value\n  write it after the option"),
    ],
)
def test_a_mistyped_command_gets_a_message_like_every_mistake(workplace, typed, message):
    assert workplace.ablate(*typed.split(), code=2).lstrip().startswith(message)


def _raised_from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EFBIG, "File too large", "x"), "error: x: File too large\n"),
        (OSError(errno.ENOTCONN, "no connection"), "error: no connection\n"),
        (OSError(errno.EAGAIN, "try again"), "error: no process can be started"),
        (MemoryError("malloc of size 192 failed"), "error: there is not enough memory\n"),
        (
            ImportError("p/parsing.so: failed to map segment from shared object"),
            "error: there is not enough memory\n",
        ),
        (
            ImportError("libx.so: cannot open shared object file: Cannot allocate memory"),
            "error: there is not enough memory\n",
        ),
        (_raised_from(ImportError("no C extension"), MemoryError()), "error: there is not enough memory\n"),
        (ImportError("failed to map segment from shared object: Operation not permitted"), None),
        (ImportError("no module named x"), None),
        (RuntimeError("can't start new thread"), "error: no thread can be started\n"),
        (
            OSError(errno.ENOENT, "No usable temporary directory found in ['/x']"),
            "error: there is no folder for",
        ),
        (OSError(errno.ENOENT, "a bug"), None),
        (RuntimeError("a bug"), None),
    ],
    ids=repr,
)
def test_what_the_machine_refuses_is_one_line_and_a_bug_is_none(monkeypatch, capfd, error, message):
    def refuse() -> None:
        raise error

    monkeypatch.setattr("ablate.launch.prepare_process", refuse)
    with pytest.raises(SystemExit if message else type(error)) as ended:
        cli.main()
    said = capfd.readouterr().err
    if message:
        assert ended.value.code == cli.MISTAKE
        assert said.startswith(message)
    assert "Traceback" not in said


def test_what_filled_the_memory_is_let_go_before_a_message_is_written(monkeypatch, capfd):
    class Rows:
        pass

    held: list[weakref.ref[Rows]] = []

    def refuse() -> None:
        rows = Rows()
        held.append(weakref.ref(rows))
        raise MemoryError

    def lost_folder() -> None:
        assert held[0]() is None

    monkeypatch.setattr("ablate.launch.prepare_process", refuse)
    monkeypatch.setattr("ablate.launch.lost_folder", lost_folder)
    with pytest.raises(SystemExit):
        cli.main()
    assert capfd.readouterr().err.startswith("error: there is not enough memory\n")


def test_without_a_command_the_help_is_shown(workplace):
    assert "Usage: ablate" in workplace.ablate(code=2)
    assert "Usage: ablate run" in workplace.ablate("run", "--help")


def test_the_list_of_commands_reads_the_options_of_none(capsys):
    group = typer.main.get_command(cli.app)
    group.main(["--help"], standalone_mode=False)
    assert "Train the runs that a study still lacks" in capsys.readouterr().out
    commands = [command for command in group.commands.values() if "params" not in vars(command)]
    assert len(commands) == len(group.commands) > 15
    assert {command.name for command in commands if not command.params} == {"list"}


def test_the_version_is_printed_and_the_package_runs_as_a_module(workplace):
    import subprocess
    import sys
    from importlib import metadata

    version = f"ablate {metadata.version('ablate')}\n"
    assert workplace.ablate("--version") == version
    done = subprocess.run(
        [sys.executable, "-m", "ablate", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == version


def test_what_a_command_has_loaded_is_taken_apart_at_its_end():
    """Else extension modules such as Triton's report on stderr, over fifty lines long, what they find left."""
    import subprocess
    import sys

    program = """
class Loop:
    def __init__(self): self.itself = self
    def __del__(self, tell=print): tell("taken apart")
loop = Loop()
from ablate.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("taken apart\n")
    assert not done.stderr


def test_a_folder_that_is_left_is_not_lost_and_one_that_is_moved_is(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    launch.prepare_process()
    monkeypatch.chdir(tmp_path)
    assert launch.lost_folder() is None
    (tmp_path / "project").rename(tmp_path / "moved")
    assert launch.lost_folder() == tmp_path / "project"
    (tmp_path / "project").mkdir()  # another one
    assert launch.lost_folder() == tmp_path / "project"
    monkeypatch.chdir(tmp_path / "moved")
    launch.prepare_process()
    assert launch.lost_folder() is None
