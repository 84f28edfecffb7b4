"""What a person sees in the terminal while a study runs."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console
from rich.text import Text

from ablate import console, progress
from ablate.data.facts import DataFacts
from ablate.events import EpochEnd, Failed, Finished
from ablate.executors import Slot
from ablate.study import design, spec

STUDY = """
study: toy
margin: 0.02
baseline: {{data: {{name: digits}}, model: {{name: cnn}}, training: {{epochs: 2}}}}
factors: {{model.width: {levels}}}
seeds: [2, 4]
"""


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100, height=24)


def display(screen, levels="[2, 8]"):
    plan = design.plan(spec.parse(STUDY.format(levels=levels)), lambda _: DataFacts(train=500))
    return plan, progress.Display(plan, screen)


def picture(shown, screen) -> list[str]:
    paper = Console(file=io.StringIO(), width=screen.width, height=screen.height)
    paper.print(shown._picture())
    return [line.rstrip() for line in paper.file.getvalue().splitlines()]


def runs(plan, seeds=range(2)):
    return list(plan.replicates(plan.names, seeds))


def test_the_grid_fills_with_what_is_done_failed_and_under_way(screen):
    plan, shown = display(screen)
    first, second, third, *_ = runs(plan)
    shown.looking(1, 2, 6, 0)
    shown.settled(first, "finished", 0.7)
    shown.settled(second, "diverged", 0.1)
    shown.running(third, Slot("cpu-0", "cpu"), 2)
    lines = picture(shown, screen)
    assert lines[0] == "toy  look 1 · 2 seeds per arm of at most 4"
    assert [line.split()[:2] for line in lines[3:6]] == [
        ["baseline", "■·"],
        ["model.width=2", "≈·"],
        ["model.width=8", "▸·"],
    ]
    assert lines[6] == "▸ running   ■ finished   ≈ diverged"
    assert lines[7].startswith("cpu-0  model.width=8 · seed 0  ━")
    assert lines[7].endswith("attempt 2 · starting")
    shown.event(third, Failed(third.key, 2, 1, 0.0, "error", "it was told to"))
    assert "model.width=8 · seed 0: attempt 2 failed: it was told to" in screen.file.getvalue()
    assert [line.split()[:2] for line in picture(shown, screen)][5] == ["model.width=8", "✗·"]


def test_effects_so_far_are_of_the_seeds_that_both_arms_have_and_become_verdicts(screen):
    plan, shown = display(screen)
    shown.looking(1, 2, 6, 0)
    values = {"baseline": (0.70, 0.80), "model.width=2": (0.85, 0.90), "model.width=8": (0.60,)}
    for run in runs(plan):
        if run.seed < len(values[run.arm]):
            shown.settled(run, "finished", values[run.arm][run.seed])
    lines = picture(shown, screen)
    assert lines[4].split() == ["model.width=2", "■■", "0.875", "+12.5", "points", "so", "far"]
    assert lines[5].split() == ["model.width=8", "■·", "0.600", "−10.0", "points", "so", "far"]


def test_time_left_counts_what_is_under_way_too(screen, monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    plan, shown = display(screen)
    first, second, *_ = runs(plan)
    shown.looking(1, 2, 6, 0)
    for run, slot in ((first, "cpu-0"), (second, "cpu-1")):
        shown.running(run, Slot(slot, "cpu"), 1)
    assert "left" not in picture(shown, screen)[1]
    now = 110.0
    for run in (first, second):
        shown.event(run, EpochEnd(run.key, 1, 1, 0.0, 1, {"val/accuracy": 0.5}))
    # Two halves of a run in 10 s, five more to go; 2 × 500 images in 10 s.
    assert picture(shown, screen)[1].endswith("0/6 runs · 100 images/s · about 50 s left")
    # Another look counts for itself.
    shown.looking(2, 4, 12, 6)
    now = 112.0
    shown.event(first, EpochEnd(first.key, 1, 2, 0.0, 2, {"val/accuracy": 0.5}))
    assert "6/12 runs · 250 images/s" in picture(shown, screen)[1]


@pytest.mark.parametrize("kind", [progress.Display, progress.Lines])
def test_totals_go_on_from_look_to_look(screen, monkeypatch, kind):
    monkeypatch.setattr(progress, "err", screen)
    plan, _ = display(screen)
    shown = kind(plan) if kind is progress.Lines else kind(plan, screen)

    def line() -> str:
        if kind is progress.Display:
            return picture(shown, screen)[1]
        return screen.file.getvalue().splitlines()[-1]

    every = runs(plan)
    if kind is progress.Display:
        assert line() == "starting, and looking up what is done already"
    shown.looking(1, 2, 6, 2)
    for run in every[:2]:
        shown.settled(run, "finished", 0.7)
    for number, run in enumerate(every[2:6], 3):
        shown.event(run, Finished(run.key, 1, 1, 0.0, "finished", 1))
        shown.settled(run, "finished", 0.7)
        assert f"{number}/6" in line()
    # Two of three arms go on: 4 of their 8 runs are done.
    shown.looking(2, 4, 8, 4)
    if kind is progress.Lines:
        assert line() == "look 2: 4 seeds per arm, 4 more runs"
    shown.event(every[0], Finished(every[0].key, 1, 1, 0.0, "finished", 1, {}, {}, {}))
    assert "7/10" in line()


def test_lines_and_json_say_why_a_run_diverged(monkeypatch, capsys):
    screen = console.SafeConsole(file=io.StringIO(), width=100)
    monkeypatch.setattr(progress, "err", screen)
    plan, _ = display(screen)
    (run, *_) = runs(plan)
    facts = {"reason": "train/loss not finite in epoch 2"}
    event = Finished(run.key, 1, 1, 0.0, "diverged", 2, {"time/train_seconds": 1.0}, {}, facts)
    progress.Lines(plan).event(run, event)
    assert "diverged in 1.0 s: train/loss not finite in epoch 2" in screen.file.getvalue()
    progress.JsonLines().event(run, event)
    assert json.loads(capsys.readouterr().out)["reason"] == facts["reason"]


@pytest.mark.parametrize("width", [80, 100])
def test_of_what_a_slot_trains_only_the_name_of_the_arm_is_cut(width):
    screen = console.SafeConsole(file=io.StringIO(), width=width, height=30)
    plan, shown = display(screen, levels="[8], optimizer.weight_decay: [0.00012345678912345]")
    for number, run in enumerate([run for run in runs(plan) if "decay" in run.arm]):
        shown.running(run, Slot(f"cuda:{number}", "cpu"), 2)
        shown.event(run, EpochEnd(run.key, 2, 1, 0.0, 1, {"val/accuracy": 0.5}))
    lines = picture(shown, screen)[-2:]
    for number, line in enumerate(lines):
        assert line.startswith(f"cuda:{number}  ")
        assert f" · seed {number}" in line
        assert line.endswith("attempt 2 · epoch 1/2 · val/accuracy 0.5000")


def test_more_arms_than_lines_leave_room_for_what_is_under_way(screen):
    plan, shown = display(screen, levels=str(list(range(1, 41))))
    last = runs(plan, range(1))[-1]
    shown.running(last, Slot("cpu-0", "cpu"), 1)
    lines = picture(shown, screen)
    assert len(lines) <= screen.height
    assert any(line.startswith(last.arm) for line in lines[:-2])
    assert re.search(r"… and \d+ more arms", "\n".join(lines))
    assert lines[-1].startswith("cpu-0")


def test_a_run_at_a_terminal_shows_what_the_store_had_already_as_done(workplace, screen, monkeypatch):
    frames = []
    monkeypatch.setattr(progress, "is_terminal", lambda: True)
    monkeypatch.setattr(progress, "err", screen)
    study = workplace.study(factors="{gain: [0.2]}", seeds="[2, 3]")
    workplace.ablate("run", study, "--executor", "inline", "--seeds", "2")
    judged = progress.Display.judged

    def watched(self, analysis):
        judged(self, analysis)
        frames.append(picture(self, screen))

    monkeypatch.setattr(progress.Display, "judged", watched)
    output = workplace.ablate("run", study, "--executor", "inline")
    assert "Gain 0.2" in output
    assert [frame[3].split()[:2] for frame in frames] == [["baseline", "■■"], ["baseline", "■■■"]]
    assert frames[-1][4].split()[-1] == "helps"


def test_in_a_narrow_terminal_names_are_cut_and_seeds_give_way_but_no_verdict_is(screen):
    narrow = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80, height=24)
    plan, shown = display(narrow, levels="[{}]".format(", ".join(str(n) for n in range(11, 14))))
    shown.looking(2, 60, 240, 0)
    for run in runs(plan, range(50)):
        shown.settled(run, "finished", 0.7 + run.seed / 1000)
    shown._verdicts = {"model.width=11": "no practical effect"}
    line = next(line for line in picture(shown, narrow) if "no practical effect" in line)
    assert len(line) <= 80
    name, cells, *_ = line.split()
    assert name in ("model.width…", "model.width=…")  # as versions of rich divide what there is
    assert cells == "…" + "■" * 7 + "·" * 9, "what is under way stands in the middle"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_sentence_goes_on_further_in_at_a_terminal_and_is_one_line_in_a_file(terminal):
    paper = Console(file=io.StringIO(), width=40, soft_wrap=not terminal)
    paper.print(console._Hanging(Text("Width 8 hurts: −6.6 points (−12.8 to −0.3, 5 seeds).")))
    lines = paper.file.getvalue().splitlines()
    assert " ".join(line.strip() for line in lines) == "Width 8 hurts: −6.6 points (−12.8 to −0.3, 5 seeds)."
    assert [len(line) - len(line.lstrip()) for line in lines] == ([2, 4] if terminal else [2])
