"""The files that `ablate init --template` writes: each runs as it stands, and is to be changed.

`{name}` is the study's name, `{module}` that as a module's, `{file}` the study's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StarterFiles:
    """about: a line for a list. files: how a file's name ends → its content. main: the ending of the file that is to be changed first.

    then: what to type next.
    """

    about: str
    files: Mapping[str, str]
    then: str
    main: str = ".yaml"


_TOP = """\
# Run it:        ablate run {file}          about a minute on two cores; nothing to download
# Look at it:    ablate report {name}
# Beforehand:    ablate plan {file}         what it costs, and what it could see
study: {name}
"""

_BASELINE = """\
metric: val/accuracy               # what arms are compared by; never a test metric
margin: 0.02                       # smallest difference worth having: two points of accuracy

baseline:                          # the run that every arm is compared with; docs/fields.md has every field
  data: {{name: digits, validation: 0.25}}          # also: `ablate data`; your own images: name: image_folder, root: FOLDER
  model: {{name: cnn, depth: 2, width: 16, batch_norm: false}}         # also: `ablate models`
  augment: null                                   # for photographs: {{flip: true, crop: 4}}
  optimizer: {{name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 5.0e-4}}
  schedule: {{name: onecycle}}
  training: {{epochs: 8, batch_size: 64}}

"""

_END = """
design: one-at-a-time              # each arm changes one thing; docs/designs.md has the others
seeds: {{initial: 5, max: 10}}       # undecided arms go on from 5 seeds to 10
"""

WIDTH = (
    _TOP
    + "question: Does a wider network recognise digits better, and does batch norm help it?\n"
    + _BASELINE
    + """\
factors:                           # a path into the baseline: the levels that are tried besides the baseline's own
  model.width: [8, 32]
  model.batch_norm: [true]
"""
    + _END
)

_LEARNING_RATE = (
    _TOP
    + "question: Which learning rate trains this network best?\n"
    + _BASELINE
    + """\
factors:                           # a path into the baseline: the levels that are tried besides the baseline's own
  optimizer.lr: [1.0e-5, 1.0e-3, 0.01, 0.05, 0.2]      # `ablate lr {file}` suggests some
"""
    + _END
)

_TRAINING = """\
    digits = load_digits()
    train_x, val_x, train_y, val_y = train_test_split(
        digits.data / 16, digits.target, test_size=0.25, random_state=0
    )
    model = SGDClassifier(
        loss="log_loss", penalty="l2", alpha={l2}, learning_rate="constant", eta0={lr}, random_state={seed}
    )
    order = np.random.default_rng({seed})
"""

_FUNCTION = (
    '''\
"""What `ablate run {file} --allow-import {module}_fit` trains. Put your own training in its place."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split


def fit(config, seed):
    """Yield the metrics of every epoch. config: the study's baseline as an arm changes it. seed: of all that is random."""
'''
    + _TRAINING.format(l2='config["l2"]', lr='config["lr"]', seed="seed")
    + """\
    for _ in range(config["epochs"]):
        rows = order.permutation(len(train_x))[: int(config["share"] * len(train_x))]
        model.partial_fit(train_x[rows], train_y[rows], classes=range(10))
        yield {{
            "train/loss": log_loss(train_y, model.predict_proba(train_x)),
            "val/loss": log_loss(val_y, model.predict_proba(val_x)),
            "val/accuracy": model.score(val_x, val_y),
        }}
"""
)

_PROGRAM = (
    '''\
"""A program as any other: it knows nothing of ablate, takes its settings as flags, and prints what it reaches."""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--l2", type=float, default=1e-4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
'''
    + _TRAINING.format(l2="flags.l2", lr="flags.lr", seed="flags.seed")
    + """\
    for epoch in range(1, flags.epochs + 1):
        rows = order.permutation(len(train_x))
        model.partial_fit(train_x[rows], train_y[rows], classes=range(10))
        loss, correct = log_loss(val_y, model.predict_proba(val_x)), int(sum(model.predict(val_x) == val_y))
        print(f"epoch {{epoch}}: validation loss {{loss:.6f}}, {{correct}}/{{len(val_y)}} correct", flush=True)


main()
"""
)

_OWN_END = """\
seeds: {{initial: 5, max: 10}}       # undecided arms go on from 5 seeds to 10
"""

TEMPLATES: dict[str, StarterFiles] = {
    "width": StarterFiles(
        "a built-in network on handwritten digits: width and batch norm",
        {".yaml": WIDTH},
        "`ablate run {file}` trains it in about a minute; the comments say what to change",
    ),
    "learning_rate": StarterFiles(
        "the same network under learning rates from 1e-5 up",
        {".yaml": _LEARNING_RATE},
        "`ablate run {file}` trains it in about a minute; the comments say what to change",
    ),
    "function": StarterFiles(
        "your own training, as a Python function",
        {
            ".yaml": """\
# Run it:        ablate run {file} --allow-import {module}_fit
# Look at it:    ablate report {name}
study: {name}
train: {module}_fit:fit            # the function, in {module}_fit.py
metric: val/accuracy               # one that it yields
# direction: maximize              # or minimize: needed where the metric's name does not say it
margin: 0.01                       # smallest difference worth having, in the metric's units

baseline: {{lr: 0.1, l2: 1.0e-4, epochs: 8, share: 1.0}}    # whatever the function reads from its `config`

factors:                           # a setting of the baseline: the levels that are tried besides the baseline's own
  lr: [0.01, 1.0]
  share: [0.25]
"""
            + _OWN_END,
            "_fit.py": _FUNCTION,
        },
        "`ablate run {file} --allow-import {module}_fit` trains it; the function is in {module}_fit.py",
    ),
    "command": StarterFiles(
        "any program, as a command line",
        {
            ".yaml": """\
# What holds the metric?         ablate run {file} --try --allow-command
# Run it, and look at it:        ablate run {file} --allow-command && ablate report {name}
study: {name}
command: [python, {module}_train.py, --lr, "{{lr}}", --l2, "{{l2}}", --epochs, "{{epochs}}", --seed, "{{seed}}"]
metrics:                           # a pattern for a line, with one group; two groups are a share
  val/loss: {{line: 'validation loss ([\\d.]+)'}}
  val/accuracy: {{line: '(\\d+)/(\\d+) correct'}}
metric: val/accuracy
margin: 0.01                       # smallest difference worth having, in the metric's units

baseline: {{lr: 0.1, l2: 1.0e-4, epochs: 8}}                # what is put into the command

factors:                           # a setting of the baseline: the levels that are tried besides the baseline's own
  lr: [0.01, 1.0]
"""
            + _OWN_END,
            "_train.py": _PROGRAM,
        },
        "`ablate run {file} --try --allow-command` runs the program once; the program is {module}_train.py",
    ),
    "judge": StarterFiles(
        "results that are there already: a table with a row for each run",
        {
            ".csv": """\
optimizer,seed,val/loss
sgd,0,0.6150
sgd,1,0.6123
sgd,2,0.6022
sgd,3,0.6151
sgd,4,0.6256
adam,0,0.6049
adam,1,0.5870
adam,2,0.5817
adam,3,0.6031
adam,4,0.5904
lion,0,0.6135
lion,1,0.6168
lion,2,0.6032
lion,3,0.6180
lion,4,0.6226
"""
        },
        "an example of a table, to put your own results in; "
        "`ablate judge {file} --arm optimizer --metric val/loss --baseline sgd --margin 0.01 --seed seed` judges it",
        main=".csv",
    ),
}
