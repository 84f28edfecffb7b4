"""A command with nothing left to do prints what is kept of its study; it works it out again wherever anything has changed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from ablate import cache_folder, kept_answer, launch
from ablate.study import design, spec


@pytest.fixture
def trained(workplace):
    file = workplace.trained()
    workplace.ablate("run", file, "--executor", "inline", "-q")
    return file


def answer(workplace, file):
    """What is kept of a study, as `ablate run` asks for it; None where it has to be worked out."""
    with contextlib.chdir(workplace.root):
        study = spec.read(Path(file))
        finished = launch.finished_plan(study, workplace.store)
        return finished and launch.answer(workplace.store, finished, design.plan(study, launch.data_lookup()))


def place(workplace):
    return workplace.root / "mlruns" / "cache" / "toy.answer.json"


def test_it_prints_what_the_command_before_it_did_and_runs_nothing(workplace, trained, monkeypatch):
    place(workplace).unlink()
    worked_out = workplace.ablate("run", trained, "--executor", "inline", "-q")
    assert "helps" in worked_out
    with monkeypatch.context() as patch:
        patch.setattr(launch, "run", lambda *_: pytest.fail("the study was run"))
        assert workplace.ablate("run", trained, "--executor", "inline", "-q") == worked_out
        printed = workplace.ablate("run", trained, "--budget", "1h")
    assert worked_out in printed
    assert "nothing left to do: toy is complete" in printed
    assert "`ablate report toy` writes the report" in printed
    assert '"kind": "verdicts"' in workplace.ablate("run", trained, "--executor", "inline", "--json")


def test_what_a_killed_process_was_writing_in_the_cache_is_removed_by_the_next_command(workplace, trained):
    left = place(workplace).with_name(".3684f09c51e6622c.tmp")
    left.write_text('{"of": "')
    workplace.ablate("run", trained, "--executor", "inline", "-q")
    assert not left.exists()


def test_its_options_are_checked(workplace, trained):
    for option, value in (("--budget", "1 fortnight"), ("--executor", "remote"), ("--devices", "toaster")):
        assert f"error: {option}" in workplace.ablate("run", trained, option, value, code=2)


def delete_a_run(workplace):
    workplace.client.delete_run(workplace.runs()[0].info.run_id)


def forget_an_outcome(workplace):
    workplace.client.delete_tag(workplace.runs()[0].info.run_id, "ablate.outcome")


def change_a_tag(workplace):
    workplace.client.set_tag(workplace.runs()[0].info.run_id, "ablate.epoch", "1")


def leave_a_run_running(workplace):
    client, run = workplace.client, workplace.runs()[0]
    other = client.create_run(run.info.experiment_id, tags={"ablate.owner": "x", "ablate.lease": "1"})
    assert other.info.status == "RUNNING"


def break_off_a_command(workplace):
    client = workplace.client
    client.set_tag(workplace.runs(kind="report")[0].info.run_id, "ablate.ending", "killed")


def leave_a_spool(workplace):
    (workplace.root / "mlruns" / "spool").mkdir(exist_ok=True)
    (workplace.root / "mlruns" / "spool" / "left.jsonl").write_text("")


def change_the_recorded_plan(workplace):
    (plan,) = (workplace.root / "mlruns" / "artifacts").rglob("plan.json")
    plan.write_text(
        plan.read_text().replace('"final": 0', '"final": 1').replace('"resolution": 0.0', '"resolution": 0.1')
    )


def lose_the_recorded_plan(workplace):
    for plan in (workplace.root / "mlruns" / "artifacts").rglob("plan.json"):
        plan.unlink()


def edit_a_comment(workplace):
    file = workplace.root / "toy.yaml"
    file.write_text(f"# another\n{file.read_text()}")


def ask_for_more_seeds(workplace):
    file = workplace.root / "toy.yaml"
    file.write_text(file.read_text().replace("seeds: 3", "seeds: 4"))


def change_the_training(workplace):
    file = workplace.root / "toy.py"
    file.write_text(file.read_text().replace("0.001)", "0.002)"))


def lose_the_ledger(workplace):
    (workplace.root / "mlruns" / "optuna.journal").unlink()


def leave_a_checkpoint(workplace):
    (workplace.root / "mlruns" / "checkpoints").mkdir(exist_ok=True)
    (workplace.root / "mlruns" / "checkpoints" / "0123.checkpoint").write_text("")


def cut_what_is_kept(workplace):
    place(workplace).write_bytes(place(workplace).read_bytes()[:-30])


def edit_what_is_kept(workplace):
    place(workplace).write_text(place(workplace).read_text().replace("helps", "hurts"))


def keep_something_else(workplace):
    kept = cache_folder.kept(place(workplace))
    cache_folder.keep(place(workplace), {**kept, "lines": [[1, 2, 3]]})


def lead_it_elsewhere(workplace):
    place(workplace).rename(workplace.root / "elsewhere")
    place(workplace).symlink_to(workplace.root / "elsewhere")


CHANGES = [
    *(delete_a_run, forget_an_outcome, change_a_tag, leave_a_run_running, break_off_a_command, leave_a_spool),
    *(
        change_the_recorded_plan,
        lose_the_recorded_plan,
        edit_a_comment,
        ask_for_more_seeds,
        change_the_training,
    ),
    *(lose_the_ledger, leave_a_checkpoint),
    *(cut_what_is_kept, edit_what_is_kept, keep_something_else, lead_it_elsewhere),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_it_counts_only_while_nothing_has_changed(workplace, trained, change):
    assert answer(workplace, trained)
    change(workplace)
    assert answer(workplace, trained) is None


def test_it_does_not_count_for_another_ablate(workplace, trained, monkeypatch):
    assert answer(workplace, trained)
    files = list(kept_answer._own_files(Path(kept_answer.__file__).parent))
    assert {Path(file).name for file, _, _ in files} >= {"kept_answer.py", "words.py", "judging.py"}
    monkeypatch.setattr(kept_answer, "_own_files", lambda _: [(*files[0][:2], 0), *files[1:]])
    assert answer(workplace, trained) is None


def test_a_study_is_kept_only_where_all_of_it_is_done(workplace):
    file = workplace.study(factors="{raises: [true], gain: [0.2]}")
    workplace.ablate("run", file, "--executor", "inline", "-q", code=1)
    assert not place(workplace).exists()


def test_a_later_plan_of_the_study_takes_its_place(workplace, trained):
    text = Path(trained).read_text()
    assert answer(workplace, trained)
    Path(trained).write_text(text.replace("margin: 0.02", "margin: 0.03"))
    workplace.ablate("run", trained, "--executor", "inline", "-q")
    kept = answer(workplace, trained)
    Path(trained).write_text(text)
    assert answer(workplace, trained) is None
    Path(trained).write_text(text.replace("margin: 0.02", "margin: 0.03"))
    # Its runs were judged by the other plan, which every command says.
    assert kept is None


def test_where_nothing_can_be_written_it_is_worked_out(workplace, trained):
    expected = workplace.ablate("run", trained, "--executor", "inline", "-q")
    place(workplace).unlink()
    folder = place(workplace).parent
    moved = folder.rename(folder.with_name("kept-cache"))
    folder.write_text("no folder")
    assert workplace.ablate("run", trained, "--executor", "inline", "-q") == expected
    folder.unlink()
    moved.rename(folder)
    assert not list(folder.iterdir())
