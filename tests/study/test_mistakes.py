"""Every mistake in a study gives one message that names the place, the key, and what would have been right."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ablate import cli, training
from ablate.errors import StudyError
from ablate.study import spec
from ablate.training.function import FunctionTrainer

GOOD = """\
study: width
question: Do wider networks help?
margin: 0.005
baseline:
  data: {name: digits, subset: 500}
  model:
    name: cnn
    depth: 2
    width: 16
  augment: {flip: true}
  optimizer: {name: sgd, lr: 0.1}
  schedule: {name: cosine}
  training: {epochs: 2}
factors:
  model.width: [8, 32]
design: one-at-a-time
seeds: 3
"""

_FOUR = "[8]\n  model.depth: [3]\n  optimizer.lr: [0.2]\n  augment.flip: [false]\ndesign: fractional"
_EIGHT = {
    "model.depth": 3,
    "model.dropout": 0.3,
    "optimizer.lr": 0.2,
    "optimizer.momentum": 0.5,
    "optimizer.weight_decay": 0.1,
    "augment.flip": "false",
    "augment.crop": 2,
    "augment.rotation": 5,
}

# What is replaced in the good study, by what; then the place and pieces of the message that must come of it.
# One line each, to be read as a table.
# fmt: off
MISTAKES = {
    # --- unknown keys, at every level
    "top level": ("margin:", "margn:", "3: margn", "unknown key 'margn'", "did you mean 'margin'?"),
    "baseline": ("  optimizer:", "  optimiser:", "11: baseline.optimiser", "unknown key", "'optimizer'"),
    "data": ("subset:", "subsett:", "5: baseline.data.subsett", "unknown key 'subsett'", "'subset'"),
    "model": ("depth:", "dept:", "8: baseline.model.dept", "unknown key 'dept'", "'depth'"),
    "augment": ("flip:", "flips:", "10: baseline.augment.flips", "unknown key 'flips'", "'flip'"),
    "optimizer": ("lr:", "learning:", "11: baseline.optimizer.learning", "unknown key", "choose one of: lr, momentum"),
    "of another optimizer": ("lr: 0.1", "beta1: 0.9", "11: baseline.optimizer.beta1", "unknown key 'beta1'", "lr"),
    "schedule": ("{name: cosine}", "{name: cosine, gamma: 0.1}", "12: baseline.schedule.gamma", "unknown key", "name"),
    "training": ("epochs:", "epoch:", "13: baseline.training.epoch", "unknown key 'epoch'", "did you mean 'epochs'?"),
    "seeds": ("seeds: 3", "seeds: {init: 3}", "17: seeds", "unknown key 'init'", "did you mean 'initial'?"),
    "a key that is a number": ("depth:", "3:", "8: baseline.model.3", "unknown key", "choose one of"),
    "a factor's leaf": ("model.width", "model.widht", "15: factors.model.widht", "unknown key 'widht'", "'width'"),
    "a factor's block": ("model.width", "modle.width", "15: factors.modle.width", "unknown key 'modle'", "'model'"),
    "a factor that lacks its block": ("model.width", "width", "15: factors.width", "unknown key", "'model.width'"),
    "a factor below a leaf": ("model.width", "model.width.x", "15", "`model.width` is a value, not a block of keys"),
    "a factor of another model": ("model.width", "model.hidden", "15: factors.model.hidden", "unknown key 'hidden'"),
    "a level's key": ("model.width: [8, 32]", "model: [{name: cnn, dept: 3}]", "15: factors.model", "'dept'", "depth"),
    "zipped": ("model.width: [8, 32]", "a: {zap: {}}", "15: factors.a", "a list of levels, or `{zip:"),
    # --- names
    "model name": ("name: cnn", "name: cmn", "7: baseline.model.name", "unknown name 'cmn'", "did you mean 'cnn'?"),
    "data name": ("digits", "digts", "5: baseline.data.name", "unknown name 'digts'", "did you mean 'digits'?"),
    "name of a list": ("name: cnn", "name: [cnn]", "7: baseline.model.name", "unknown name '[cnn]'"),
    "no name": ("    name: cnn\n", "", "6: baseline.model", "a `name` is missing"),
    "level's name": ("model.width: [8, 32]", "model.name: [small]", "15: factors.model.name", "unknown name 'small'"),
    # --- types
    "true for a number": ("depth: 2", "depth: true", "8: baseline.model.depth", "a whole number (got true)"),
    "text for a number": ("depth: 2", "depth: '2'", "8: baseline.model.depth", "a whole number (got '2')"),
    "a point in a whole number": ("depth: 2", "depth: 2.0", "8: baseline.model.depth", "a whole number (got 2.0)"),
    "a number for true": ("flip: true", "flip: 1", "10: baseline.augment.flip", "true or false (got 1)"),
    "null as a key of a value": ("depth: 2", "depth: {~: 1}", "8: baseline.model.depth", "a whole number (got {null: 1})"),
    "no for false": ("flip: true", "flip: no", "10: baseline.augment.flip", "true or false (got no)"),
    "on for true": ("flip: true", "flip: on", "10: baseline.augment.flip", "true or false (got on)"),
    "octal": ("depth: 2", "depth: 010", "8: baseline.model.depth", "a whole number (got 010)"),
    "base sixty": ("epochs: 2", "epochs: 1:30", "13: baseline.training.epochs", "a whole number (got 1:30)"),
    "NaN": ("lr: 0.1", "lr: .nan", "11: baseline.optimizer.lr", "a finite number (got .nan)"),
    "infinity": ("lr: 0.1", "lr: .inf", "11: baseline.optimizer.lr", "a finite number (got .inf)"),
    "a number beyond floats": ("lr: 0.1", "lr: 1" + "0" * 400, "11: baseline.optimizer.lr", "a number (got 1000", "…"),
    "too small": ("depth: 2", "depth: 0", "8: baseline.model.depth", "at least 1 (got 0)"),
    "too large": ("depth: 2", "depth: 65", "8: baseline.model.depth", "at most 64 (got 65)"),
    "not above": ("lr: 0.1", "lr: 0", "11: baseline.optimizer.lr", "above 0 (got 0)"),
    "not below": ("lr: 0.1", "momentum: 1", "11: baseline.optimizer.momentum", "below 1 (got 1)"),
    "softmax loss": ("epochs: 2", "loss: softmax", "13: baseline.training.loss", "is the cross-entropy of a softmax"),
    "milestones out of order": ("cosine", "step, milestones: [0.8, 0.5]", "12: baseline.schedule.milestones", "in increasing order"),
    "no patience": ("epochs: 2", "patience: 0", "13: baseline.training.patience", "at least 1 (got 0)"),
    "all label smoothed away": ("epochs: 2", "label_smoothing: 1", "13: baseline.training.label_smoothing", "below 1"),
    "no such choice": ("depth: 2", "profile: grow", "8: baseline.model.profile", "grow is not one of 'constant', 'gro"),
    "a rule between fields": ("depth: 2", "profile: wide-middle\n    depth: 2", "6: baseline.model", "needs a depth of at least 3"),
    "text for a block": ("optimizer: {name: sgd, lr: 0.1}", "optimizer: sgd", "11: baseline.optimizer", "sgd is a value"),
    "a list for a block": ("{flip: true}", "[flip]", "10: baseline.augment", "[flip] is a value where a block"),
    "null for a block": ("training: {epochs: 2}", "training:", "13: baseline.training", "null is a value where a block"),
    "a missing block": ("  data: {name: digits, subset: 500}\n", "", "4: baseline.data", "is missing"),
    "baseline is text": (GOOD[GOOD.index("baseline:") : GOOD.index("factors:")], "baseline: x\n", "4: baseline", "a block"),
    "question is a number": ("question: Do wider networks help?", "question: 3", "2: question", "text (got 3)"),
    "a flag that is text": ("seeds: 3", "seeds: 3\nconfirm: yes", "18: confirm", "true or false (got yes)"),
    "a winner among cells": ("design: one-at-a-time", "design: factorial\nconfirm: true", "17: confirm", "no winner", "one arm of"),
    "a winner of a search": (
        "[8, 32]\ndesign: one-at-a-time", "{int: [8, 32]}\nconfirm: true\ndesign: search", "16: confirm", "init NAME --from",
    ),
    # --- name, margin, metric, direction, design
    "a name that is a path": ("study: width", "study: ../width", "1: study", "'../width' cannot name a study"),
    "an absolute name": ("study: width", "study: /tmp/x", "1: study", "cannot name a study", "use up to 100 letters"),
    "a hidden name": ("study: width", "study: .width", "1: study", "cannot name a study"),
    "a name with a line end": ("study: width", 'study: "width\\n"', "1: study", "cannot name a study"),
    "a name that is too long": ("study: width", f"study: {'w' * 101}", "1: study", "cannot name a study"),
    "a name that is a number": ("study: width", "study: 12", "1: study", "text (got 12)", "in quotes"),
    "no name of the study": ("study: width\n", "", "", "`study:` is missing", "study: width"),
    "no margin": ("margin: 0.005\n", "", "", "`margin:` is missing", "half a point"),
    "an empty margin": ("margin: 0.005", "margin:", "", "`margin:` is missing"),
    "a negative margin": ("margin: 0.005", "margin: -0.005", "3: margin", "a number above 0", "(got -0.005)"),
    "a margin of zero": ("margin: 0.005", "margin: 0", "3: margin", "a number above 0", "(got 0)"),
    "a margin of true": ("margin: 0.005", "margin: true", "3: margin", "a number above 0", "(got true)"),
    "a margin of all there is": ("margin: 0.005", "margin: 1", "3: margin", "between 0 and 1", "did you mean 0.01, 1 point"),
    "a margin in points": ("margin: 0.005", "margin: 2.5", "3: margin", "no difference can be 2.5", "0.025, 2.5 points"),
    "a margin of NaN": ("margin: 0.005", "margin: .nan", "3: margin", "a number above 0", "(got .nan)"),
    "a margin of infinity": ("margin: 0.005", "margin: .inf", "3: margin", "a number above 0"),
    "a margin beyond floats": ("margin: 0.005", "margin: 1" + "0" * 400, "3: margin", "a number above 0"),
    "a margin beyond all": ("margin: 0.005", "margin: 1" + "0" * 5000, "", "cannot be read"),
    "a margin in percent": ("margin: 0.005", "margin: 0.5%", "3: margin", "a number above 0", "(got 0.5%)"),
    "a test metric": ("seeds: 3", "seeds: 3\nmetric: test/accuracy", "18: metric", "by the test set", "validation"),
    "no such metric": ("seeds: 3", "seeds: 3\nmetric: val/acc", "18: metric", "'val/acc' is not a metric", "val/accuracy"),
    "no such direction": ("seeds: 3", "seeds: 3\ndirection: maximise", "18: direction", "not a direction", "'maximize'"),
    "no such design": ("one-at-a-time", "one-at-time", "16: design", "'one-at-time' is not a design", "'one-at-a-time'"),
    # --- seeds
    "no seeds": ("seeds: 3", "seeds: 0", "17: seeds", "whole numbers of seeds from 1 to 1,000 (got 0)"),
    "negative seeds": ("seeds: 3", "seeds: -1", "17: seeds", "(got -1)"),
    "true seeds": ("seeds: 3", "seeds: true", "17: seeds", "(got true)"),
    "half a seed": ("seeds: 3", "seeds: 2.5", "17: seeds", "(got 2.5)"),
    "too many seeds": ("seeds: 3", "seeds: 1001", "17: seeds", "(got 1001)"),
    "an empty list of seeds": ("seeds: 3", "seeds: []", "17: seeds", "is empty"),
    "seeds that do not grow": ("seeds: 3", "seeds: [3, 3]", "17: seeds", "more seeds than the one before (got [3, 3])"),
    "seeds that shrink": ("seeds: 3", "seeds: {initial: 5, max: 3}", "17: seeds", "more seeds than the one before"),
    "half a range of seeds": ("seeds: 3", "seeds: {initial: 5}", "17: seeds", "both `initial` and `max`", "one number"),
    "true at the end": ("seeds: 3", "seeds: {initial: 1, max: true}", "17: seeds", "(got true)"),
    "a point at the end": ("seeds: 3", "seeds: {initial: 5, max: 5.0}", "17: seeds", "(got 5.0)"),
    "a seed in the baseline": ("  training:", "  seed: 3\n  training:", "13: baseline.seed", "`seeds:` says how many"),
    "a seed as a factor": ("model.width", "seed", "15: factors.seed", "the seed is not a factor"),
    # --- factors
    "no factors": ("factors:\n  model.width: [8, 32]\n", "", "", "`factors:` is missing", "model.width: [32, 128]"),
    "empty factors": ("factors:\n  model.width: [8, 32]\n", "factors: {}\n", "14: factors", "keys with lists"),
    "a list of factors": ("  model.width: [8, 32]", "  - model.width", "14: factors", "keys with lists of levels"),
    "an empty factor": ("[8, 32]", "[]", "15: factors.model.width", "has no levels", "differs from the baseline"),
    "a factor without levels": ("[8, 32]", "", "15: factors.model.width", "a list of levels (got null)"),
    "a single level": ("[8, 32]", "8", "15: factors.model.width", "a list of levels (got 8)", "write `[8]`"),
    "the baseline as a level": ("[8, 32]", "[8, 16]", "15: factors.model.width", "level 16 is the baseline's own"),
    "a whole baseline block": ("model.width: [8, 32]", "augment: [{flip: true}]", "15: factors.augment", "baseline's own"),
    "the baseline's name": ("model.width: [8, 32]", "model.name: [cnn]", "15: factors.model.name", "baseline's own"),
    "a factor that changes no result": ("model.width: [8, 32]", "training.save_model: [best]", "15: factors.training.save_model", "changes no result", "in the baseline"),
    "a block that changes no result": ("model.width: [8, 32]", "training: [{epochs: 2, save_model: best}]", "15: factors.training", "changes no result", "in the baseline"),
    "tuning what changes no result": ("design: one-at-a-time", "nuisance: {training.save_model: [none, best]}", "16: nuisance.training.save_model", "changes no result", "in the baseline"),
    "tuning a block that changes no result": ("design: one-at-a-time", "nuisance: {training: [{epochs: 3}, {epochs: 2, save_model: best}]}", "16: nuisance.training", "changes no result", "in the baseline"),
    "choices with the same results": ("model.width: [8, 32]\ndesign: one-at-a-time", "training: [{epochs: 3}, {epochs: 3, save_model: best}]\ndesign: search", "15: factors.training", "has the same results", "leave one of them out"),
    "a search of what changes no result": ("model.width: [8, 32]\ndesign: one-at-a-time", "training.save_model: [none, best]\ndesign: search", "15: factors.training.save_model", "changes no result", "in the baseline"),
    "a level twice": ("[8, 32]", "[8, 8]", "15: factors.model.width", "level 8 stands here twice"),
    "a level twice in two notations": ("model.width: [8, 32]", "optimizer.lr: [1, 1.0]", "15", "level 1.0 stands here twice"),
    "true as a level": ("[8, 32]", "[8, true]", "15: factors.model.width", "level true", "a whole number"),
    "NaN as a level": ("model.width: [8, 32]", "optimizer.lr: [.nan]", "15: factors.optimizer.lr", "level .nan", "finite"),
    "text as a level": ("[8, 32]", "[8, big]", "15: factors.model.width", "level big", "a whole number"),
    "text as a block level": ("model.width: [8, 32]", "model: [small_cnn]", "15: factors.model", "small_cnn is a value"),
    "a number as a path": ("model.width:", "3:", "15: factors.3", "3 is not a path such as `model.width`"),
    "null as a path": ("model.width:", "~:", "factors", "null is not a path"),
    "nothing as a path": ("model.width", "''", "15", "unknown key ''"),
    "a path with a hole": ("model.width", "model.", "15", "unknown key ''"),
    "lists of unequal length": ("model.width: [8, 32]", "both: {zip: {model.width: [8, 32], optimizer.lr: [1]}}", "15: factors.both", "equal lengths", "model.width has 2, optimizer.lr has 1"),
    "a zip that is no list": ("model.width: [8, 32]", "a: {zip: {model.width: 3}}", "15: factors.a.zip.model.width", "a list"),
    "an empty zip": ("model.width: [8, 32]", "a: {zip: {}}", "15: factors.a", "a list of levels, or"),
    "a number in a zip": ("model.width: [8, 32]", "a: {zip: {1: [2]}}", "15: factors.a", "1 is not a path"),
    "a zip named like a path": ("model.width: [8, 32]", "a.b: {zip: {model.width: [8], optimizer.lr: [1]}}", "15: factors.a.b", "use a name without dots"),
    "a path in two factors": ("model.width: [8, 32]", "model.width: [8, 32]\n  a: {zip: {model.width: [64]}}", "16: factors.a", "'model.width' is already changed by the factor 'model.width'"),
    "a zip that is the baseline": ("model.width: [8, 32]", "a: {zip: {model.width: [16], optimizer.lr: [0.1]}}", "15: factors.a", "level model.width=16, optimizer.lr=0.1 is the baseline's own"),
    # --- designs
    "two levels to leave out": ("one-at-a-time", "leave-one-out", "15: factors.model.width", "one level a factor", "are 2"),
    "one factor to leave out": ("[8, 32]\ndesign: one-at-a-time", "[8]\ndesign: leave-one-out", "14", "at least two"),
    "too many cells": ("[8, 32]\ndesign: one-at-a-time", "[8, 32]\n  training.batch_size: [" + ", ".join(map(str, range(300, 2300))) + "]\ndesign: factorial", "17: design", "makes 6,003 arms; at most 5,000"),
    "factors inside each other": ("[8, 32]\ndesign: one-at-a-time", "[8]\n  model: [{name: small_cnn}]\ndesign: factorial", "16: factors.model", "`model` and `model.width` cannot both be changed in one arm", "one-at-a-time"),
    "factors that do not go together": ("[8, 32]\ndesign: one-at-a-time", "[8]\n  model.name: [small_cnn]\ndesign: leave-one-out", "16: factors.model.name", "8 of 'model.width' and small_cnn of 'model.name' do not go together: unknown key 'width'"),
    "two factors for both": ("[8, 32]\ndesign: one-at-a-time", "[8]\n  model.depth: [3]\ndesign: both", "14", "at least three factors", "design: factorial"),
    "a path of one step": ("[8, 32]\ndesign: one-at-a-time", "[8]\ndesign: path", "14", "path needs at least two factors"),
    "a path with a choice of ends": ("one-at-a-time", "path", "15: factors.model.width", "the one at the end of the path; here are 2"),
    "a path too long": ("[8, 32]\ndesign: one-at-a-time", "[8]\n" + "".join(f"  {p}: [{v}]\n" for p, v in _EIGHT.items()) + "design: path", "14", "path takes 8 factors at most; here are 9"),
    "a fraction of no size": ("[8, 32]\ndesign: one-at-a-time", _FOUR, "", "how many of all combinations are run", "4 factors: 8 (resolution IV)"),
    "a fraction of an odd size": ("[8, 32]\ndesign: one-at-a-time", _FOUR + "\nfraction: {cells: 6}", "20: fraction.cells", "4 factors take 8 cells (got 6)"),
    "a fraction that is whole": ("[8, 32]\ndesign: one-at-a-time", _FOUR + "\nfraction: {cells: 16}", "20: fraction.cells", "take 8 cells", "`design: factorial`"),
    "a fraction of another design": ("seeds: 3", "seeds: 3\nfraction: {cells: 8}", "18: fraction", "belongs to `design: fractional`"),
    "a generator of no factor": ("[8, 32]\ndesign: one-at-a-time", _FOUR + "\nfraction: {generators: {model.with: [model.width, optimizer.lr]}}", "20: fraction.generators", "'model.with' is no factor", "'model.width'"),
    "a generator of itself": ("[8, 32]\ndesign: one-at-a-time", _FOUR + "\nfraction: {generators: {model.width: [model.width, optimizer.lr]}}", "20: fraction.generators", "cannot be generated from 'model.width'"),
    "a generator of one": ("[8, 32]\ndesign: one-at-a-time", _FOUR + "\nfraction: {generators: {model.width: [optimizer.lr]}}", "20: fraction.generators", "two or more different factors"),
    # --- YAML
    "a key twice": ("seeds: 3", "seeds: 3\nstudy: other", "18", "the key 'study' stands here twice (first on line 1)"),
    "a key twice inside": ("    depth: 2", "    depth: 2\n    depth: 3", "9", "the key 'depth' stands here twice"),
    "a level's key twice": ("[8, 32]", "[8, 32]\n  model.width: [64]", "16", "the key 'model.width' stands here twice"),
    "not YAML": ("[8, 32]", "[8, 32", "16", "is not YAML", "that begins on line 15 is not closed there"),
    "a tab": ("    depth", "\tdepth", "8", "is not YAML", "'\\t'", "never with a tab"),
    "a colon in text": ("study: width", "study: width\nquestion: a: b", "2", "is not YAML", "`: ` in it needs quotes"),
    "a sign before text": ("study: width", "study: @width", "1", "is not YAML", "needs quotes"),
    "two documents": ("seeds: 3", "seeds: 3\n---\nstudy: two", "18", "is not YAML", "another document"),
    "a key that is a list": ("seeds: 3", "? [seeds]\n: 3", "17", "a key must be plain text"),
    "an object": ("seeds: 3", "seeds: !!python/object/apply:os.getcwd []", "17", "is not YAML", "tag"),
    "a tag and a value that disagree": ("seeds: 3", "seeds: 3\nconfirm: !!bool maybe", "", "a value that cannot be read"),
    "a date and a value that disagree": ("seeds: 3", "seeds: !!timestamp maybe", "", "a value that cannot be read"),
    "an unknown alias": ("seeds: 3", "seeds: *three", "17", "is not YAML", "undefined alias 'three'"),
    "an alias of its own block": ("seeds: 3", "seeds: &s [3, *s]", "17", "an alias stands for the block that it is in"),
    "deep nesting": ("seeds: 3", f"seeds: {'[' * 60}{']' * 60}", "", "nested too deeply for a study: more than 50"),
    "very deep nesting": ("seeds: 3", f"seeds: {'[' * 1000}{']' * 1000}", "", "nested too deeply for a study"),
    "a control character": ("seeds: 3", "seeds: 3\x00", "", "is not YAML", "special characters"),
    # --- training of one's own
    "no function": ("seeds: 3", "seeds: 3\ntrain: fit", "18: train", "'fit' does not name a function", "module:function"),
    "a path to a function": ("seeds: 3", "seeds: 3\ntrain: ./fit.py:fit", "18: train", "does not name a function"),
}
# fmt: on


def parse(text, **more):
    return spec.parse(text, source="width.yaml", **more)


def mistake(text, **more) -> StudyError:
    with pytest.raises(StudyError) as caught:
        parse(text, **more)
    return caught.value


def test_the_study_that_the_mistakes_are_made_in_is_good():
    assert parse(GOOD).name == "width"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place(name):
    old, new, place, *pieces = MISTAKES[name]
    assert GOOD.count(old) == 1 or old == GOOD
    error = mistake(GOOD.replace(old, new))
    assert str(error).startswith(f"width.yaml:{place}" if place[:1].isdigit() else "width.yaml")
    assert place in error.place
    for piece in pieces:
        assert piece in str(error)
    assert len(str(error)) < 400, "a message is to be read"


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_study_is_reported_as_empty(text):
    assert str(mistake(text)) in (
        "width.yaml: is empty\n  `studies/` holds examples",
        (
            "width.yaml: is not a study: the top level must be keys such as `study:` and `factors:`\n"
            "  `ablate init NAME` writes one to start from"
        ),
    )


@pytest.mark.parametrize("text", ["3", "- a\n- b\n", "a sentence", "null"])
def test_what_is_no_block_of_keys_is_no_study(text):
    assert "is not a study" in str(mistake(text))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a {x: 1}\nb: {<<: [" + ", ".join(["*a"] * 30_000) + "]}\n",
        "a: [" + ", ".join(["1"] * 20_001) + "]\n",
    ],
)
def test_a_few_bytes_that_unfold_to_a_mountain_are_refused_before_they_do(text):
    assert "more than 20,000 values, with aliases unfolded" in str(mistake(text))


def test_whole_messages_read_like_this():
    def message(old, new, **more):
        return str(mistake(GOOD.replace(old, new), **more))

    assert message("    depth: 2", "    dpeth: 2") == (
        "width.yaml:8: baseline.model.dpeth: unknown key 'dpeth'\n  did you mean 'depth'?"
    )
    assert message("[8, 32]", "[8, 16]") == (
        "width.yaml:15: factors.model.width: level 16 is the baseline's own\n"
        "  leave it out: the baseline always runs"
    )
    assert message("depth: 2", "depth: true") == (
        "width.yaml:8: baseline.model.depth: should be a whole number (got true)"
    )
    assert message("margin: 0.005\n", "") == (
        "width.yaml: `margin:` is missing\n"
        "  say the smallest difference worth having, in the metric's units: 0.005 is half a point of accuracy"
    )
    assert message("", "", sets=["training.epoch=5"]) == (
        "--set training.epoch: unknown key 'epoch'\n  did you mean 'epochs'?"
    )


# --- --set ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "piece"),
    [
        ("training.epochs", "--set", "'training.epochs' is not `path=value`"),
        ("=3", "--set", "'=3' is not `path=value`"),
        ("", "--set", "'' is not `path=value`"),
        ("training.epoch=3", "--set training.epoch", "did you mean 'epochs'?"),
        ("epochs=3", "--set epochs", "did you mean 'training.epochs'?"),
        ("trainin.epochs=3", "--set trainin", "did you mean 'training'?"),
        ("training.epochs.x=3", "--set training.epochs", "is a value, not a block of keys"),
        ("training.epochs=true", "--set training.epochs", "a whole number (got true)"),
        ("training.epochs=", "--set training.epochs", "a whole number (got '')"),
        ("training.epochs=1e3", "--set training.epochs", "a whole number (got 1000.0)"),
        ("training.epochs=[", "--set training.epochs", "'[' is not YAML"),
        ("training.epochs=*a", "--set training.epochs", "undefined alias"),
        ("training.epochs=#3", "--set training.epochs", "'#3' is empty"),
        ("training.epochs=a: b: c", "--set training.epochs", "is not YAML"),
        ("optimizer.lr=.nan", "--set optimizer.lr", "a finite number (got .nan)"),
        ("model=small_cnn", "--set model", "small_cnn is a value where a block of keys belongs"),
        ("model.name=smal_cnn", "--set model.name", "did you mean 'small_cnn'?"),
        ("data.root=/tmp", "--set data.root", "unknown key 'root'"),
        ("data.name=image_folder", "--set data.root", "is missing"),
        ("seed=3", "--set seed", "the seed is not a factor"),
        ("margin=3", "--set margin", "`margin` is not part of the baseline"),
        ("model.profile=wide-middle", "--set model", "needs a depth of at least 3"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_there(text, place, piece):
    error = mistake(GOOD, sets=[text])
    assert error.place == place
    assert piece in str(error)


def test_an_override_that_makes_a_level_the_baselines_own_is_told_at_the_level():
    error = mistake(GOOD, sets=["model.width=32"])
    assert str(error).startswith("width.yaml:15: factors.model.width: level 32 is the baseline's own")


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "width.yaml").write_text(GOOD)
    (tmp_path / "huge.yaml").write_bytes(b"a: " + b"x" * 10_000_000)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "utf16.yaml").write_text(GOOD, encoding="utf-16")
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    return tmp_path


FILES = {
    "widht.yaml": "there is no such file\n  did you mean '{folder}/width.yaml'?",
    "nowhere/qqqq.yaml": "there is no such file\n  name the study's YAML file; `ablate init NAME` writes one",
    "width.yaml/inside": "there is no such file\n  name the study's YAML file",
    "": "is not a file\n  name the study's YAML file",
    "huge.yaml": "10,000,003 bytes is too large for a study; at most 200,000",
    "binary.yaml": "cannot be read as UTF-8 text",
    "utf16.yaml": "cannot be read as UTF-8 text",
    "pipe.yaml": "is not a file",
    "circle.yaml": "is a link that leads nowhere",
    "x" * 300: "cannot be read (File name too long)",
}


@pytest.mark.parametrize("name", FILES, ids=lambda name: name[:20] or "a folder")
def test_a_file_that_cannot_be_a_study_is_named(folder, name):
    with pytest.raises(StudyError) as caught:
        spec.read(folder / name)
    assert FILES[name].format(folder=folder) in str(caught.value)
    assert str(caught.value).startswith(str(folder)[:40])


def test_a_study_asked_for_by_its_name_leads_to_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("studies").mkdir()
    Path("studies/depth.yaml").touch()
    for asked in ("depth", "dept.yaml", "nowhere/depth.yml"):
        with pytest.raises(StudyError) as error:
            spec.read(Path(asked))
        assert error.value.hint == "did you mean 'studies/depth.yaml'?"


def test_messages_of_a_file_name_it(folder):
    bad = folder / "bad.yaml"
    bad.write_text(GOOD.replace("margin", "margn"))
    with pytest.raises(StudyError, match=re.escape(f"{bad}:3: margn: unknown key 'margn'")):
        spec.read(bad)


def test_a_mark_at_the_beginning_of_a_file_is_no_mistake(folder):
    file = folder / "marked.yaml"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert spec.read(file).name == "width"


@pytest.mark.parametrize("name", [*MISTAKES, "file"])
def test_the_command_ends_with_2_without_a_traceback_and_writes_nothing(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    old, new = MISTAKES[name][:2] if name in MISTAKES else ("study", "study")
    (tmp_path / "width.yaml").write_text(GOOD.replace(old, new))
    monkeypatch.setattr("sys.argv", ["ablate", "run", "width.yaml" if name in MISTAKES else "widht.yaml"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith("error: wid")
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["width.yaml"]


def test_the_command_names_its_own_mistakes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["run"])
    assert result.exit_code == 2


# --- keys of the kinds of training ----------------------------------------------------------------------------------


class ThirdTrainer(FunctionTrainer):
    """A kind of training with two keys, for which keys that every study can have stand in."""

    kind = "third"
    keys = ("question", "resolution")


@pytest.mark.parametrize(
    ("keys", "place", "message"),
    [
        ({"train": "own:fit", "question": "why"}, "question", "`train:` names a training already"),
        ({"train": "own:fit", "resolution": 1.0}, "resolution", "belongs to studies with `question:`"),
        ({"resolution": 1.0}, "resolution", "belongs to studies with `question:`"),
    ],
)
def test_keys_of_another_kind_of_training_are_a_mistake(monkeypatch, keys, place, message):
    trainers = (*training.TRAINERS, ThirdTrainer())
    monkeypatch.setattr(training, "TRAINERS", trainers)
    monkeypatch.setattr(spec, "TRAINERS", trainers)
    with pytest.raises(StudyError, match=message) as caught:
        spec.parse(
            yaml.safe_dump({"study": "s", "margin": 1, "baseline": {"a": 1}, "factors": {"a": [2]}} | keys)
        )
    assert caught.value.place.endswith(place)
