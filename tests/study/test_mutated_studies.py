"""Study files, damaged at random: whatever they hold, the answer is a plan or one sentence, and nothing else happens."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mutations import Watch, mutated_study, peak_bytes
from rich.console import Console

from ablate import console, launch
from ablate.data.facts import DataFacts
from ablate.errors import AblateError, StudyError
from ablate.scheduling import coordinate  # noqa: F401 — imported before files are watched
from ablate.study import design, spec
from ablate.study.forecast import further, searching
from ablate.study.record import PlanRecord
from ablate.text import shown

HOUSE = Path(__file__).parents[2]
MOST_BYTES = 300 * 2**20
"""What the memory of a process may grow by while it reads damaged files, one after the other."""

FUNCTION = """\
study: own
train: toy:fit
baseline: {gain: 0.0, epochs: 2, net: {width: 8, tags: [a, b]}, "on": true}
factors: {gain: [0.1, 0.2], net.width: [16], both: {zip: {epochs: [3, 4], "on": [false, true]}}}
metric: val/accuracy
margin: 0.02
seeds: {initial: 3, max: 6}
"""
COMMAND = """\
study: mine
command: [python, train.py, --epochs, "{epochs}", --lr, "{lr}", --seed, "{seed}", "{amp?--amp}"]
env: {THREADS: "1", LR: "{lr}"}
metrics:
  accuracy: {line: 'epoch (?P<step>\\d+).*accuracy[^\\d]*([\\d.]+)'}
  loss: {file: out.csv, column: loss}
  f1: {json: scores.f1}
metric: accuracy
margin: 0.01
baseline: {epochs: 2, lr: 0.1, amp: false}
factors: {lr: [0.05, 0.2], amp: [true]}
until: {epoch: 20}
silence: 10m
seeds: [3, 5, 10]
isolate: true
"""
MODEL = """\
study: model
metric: val/f1_macro
margin: 0.01
baseline:
  data: {name: digits, subset: 200}
  model: {name: import, target: "nets:build", args: {width: 8, dropout: 0.0}}
  training: {epochs: 1, batch_size: 32}
factors:
  model.args.width: [16]
  model.args.dropout: [0.2]
nuisance: {optimizer.lr: {log: [0.001, 1], trials: 6}}
confirm: true
noise_floor: true
seeds: 3
"""


def studies() -> list[str]:
    files = [*HOUSE.glob("studies/**/*.yaml"), *HOUSE.glob("docs/examples/*/study.yaml")]
    return [FUNCTION, COMMAND, MODEL, *(path.read_text() for path in sorted(files))]


PERMISSIONS = {"imports": ("toy", "nets"), "commands": (True,)}


def facts(config: Any) -> DataFacts:
    """Return facts of data that nobody prepares: reading files of data has tests of its own."""
    return DataFacts(fingerprint=hashlib.sha256(repr(config.tree().get("data")).encode()).hexdigest()[:16])


def planned(path: Path, sets: tuple[str, ...] = ()) -> None:
    """Do what `ablate run --dry-run` does with a study's file, and make the record that a run writes."""
    study = spec.read(path, sets=sets)
    launch.check_permission(study, PERMISSIONS)
    plan = design.plan(study, facts)
    record = plan.record()
    text = json.dumps(record.to_json(), allow_nan=False)
    text.encode()
    again = PlanRecord.from_json(json.loads(text))
    assert json.loads(json.dumps(again.to_json())) == json.loads(text)
    design.from_record(again)
    sizes = len(plan.names) + further(plan)
    preview = launch.Preview(plan, None, sizes, 1, 1, searching(plan) * len(plan.arms))
    printed = io.StringIO()
    Console(file=printed, width=100).print(console.preview(preview))
    assert "\x1b" not in printed.getvalue()
    printed.getvalue().encode()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Iterator[tuple[Path, Watch]]:
    """A folder with the modules that the studies name, and a watch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))  # where what is known of code may be kept
    (tmp_path / "toy.py").write_text("def fit(config, seed):\n    yield {'val/accuracy': 1.0}\n")
    (tmp_path / "nets.py").write_text("def build(classes, channels, width=8, dropout=0.0): ...\n")
    (tmp_path / "train.py").write_text("print('epoch 1 accuracy 0.5')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path, Watch()


def is_short(error: AblateError) -> bool:
    """Return whether a message is one line, with a hint, that can be printed anywhere."""
    shown(str(error)).encode()
    return 0 < len(str(error)) < 3000 and "\n" not in error.message


def check(project: tuple[Path, Watch], number: int, seed: int) -> Mapping[str, int]:
    """Plan damaged studies. Returns how many ended how."""
    folder, watch = project
    rng = random.Random(seed)
    originals = studies()
    outcomes: Counter[str] = Counter()
    path = folder / "study.yaml"
    for text in originals:
        path.write_text(text)
        with watch.on(folder / "cache"):
            planned(path)
    before = peak_bytes()
    for _ in range(number):
        content = mutated_study(rng.choice(originals), rng)
        path.write_bytes(content)
        try:
            with watch.on(folder / "cache"):
                planned(path)
        except AblateError as error:
            outcomes["refused" if is_short(error) else f"said {error}"] += 1
        except Exception as error:
            kept = Path(f"/tmp/mutated-study-{seed}-{sum(outcomes.values())}.yaml")
            kept.write_bytes(content)
            raise AssertionError(f"kept as {kept}") from error
        else:
            outcomes["planned"] += 1
        assert watch.started == [], content
        assert watch.written == [], content
        assert peak_bytes() - before < MOST_BYTES, content
    return outcomes


def test_damaged_studies_are_planned_or_refused_and_nothing_else_happens(project):
    outcomes = check(project, 100, 0)
    assert set(outcomes) == {"planned", "refused"}
    assert outcomes["planned"] > 5


GOOD = studies()[0]
FOUND = {
    "a path that is a long number": GOOD.replace("gain: [0.1", f"{10**4000}: [0.1"),
    "a path that is long": GOOD.replace("gain: [0.1", f"{'a.' * 3000}b: [0.1"),
    "levels that are long": GOOD.replace("gain: [0.1, 0.2]", f"gain: [{'x' * 9000}, {'x' * 9000}]"),
    "an arm named as another is, at length": GOOD.replace(
        "gain: [0.1, 0.2]",
        f"gain: [{'x' * 9000}], 'gain={'x' * 9000}': {{zip: {{net.width: [9], epochs: [9]}}}}",
    ),
    "half a character": GOOD.replace("0.1, 0.2", '"\\ud83d"'),
    "a byte of a name": GOOD.replace("own\n", 'own\nquestion: "caf\\udce9"\n'),
    "a key with half a character": GOOD.replace("tags", '"\\udc80"'),
    "NUL": GOOD.replace("[a, b]", '["a\\0"]'),
}
"""Studies that ended in a traceback, in a page of digits, or only after all of their runs."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_refused_in_a_line(project, name):
    folder, _ = project
    (folder / "study.yaml").write_text(FOUND[name])
    with pytest.raises(StudyError) as refused:
        planned(folder / "study.yaml")
    assert is_short(refused.value)


def test_what_json_writes_as_two_halves_is_one_character(project):
    folder, _ = project
    (folder / "study.yaml").write_text(GOOD.replace("0.1, 0.2", '"\\ud83d\\ude00"'))
    assert [arm.level for arm in design.plan(spec.read(folder / "study.yaml"), facts).arms[1:2]] == ["😀"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
def test_ten_thousand_damaged_studies(project, seed):
    outcomes = check(project, 500, seed)
    assert set(outcomes) == {"planned", "refused"}
