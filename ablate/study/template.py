"""The study that `ablate init` writes: commented, and ready to run as it stands."""

from __future__ import annotations

from pathlib import Path

from ablate.errors import StudyError
from ablate.study import schema, spec
from ablate.text import cut

SCHEMA_FILE = "study.schema.json"
HEADER = f"# yaml-language-server: $schema=./{SCHEMA_FILE}"
"""First line of a study: names the schema with which an editor completes and checks it."""

_BODY = """\
# Run it:        ablate run {file}          about a minute on two cores; nothing to download
# Look at it:    ablate report {name}
# Beforehand:    ablate plan {file}         what it costs, and what it could see
study: {name}
question: Does a wider network recognise digits better, and does dropout help it?
metric: val/accuracy               # what arms are compared by; never a test metric
margin: 0.02                       # smallest difference worth having: two points of accuracy

baseline:                          # the run that every arm is compared with; docs/fields.md has every field
  data: {{name: digits, validation: 0.25}}          # also: `ablate data`; your own images: name: image_folder, root: FOLDER
  model: {{name: cnn, depth: 2, width: 16}}         # also: `ablate models`
  augment: null                                   # for photographs: {{flip: true, crop: 4}}
  optimizer: {{name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 5.0e-4}}
  schedule: {{name: onecycle}}
  training: {{epochs: 8, batch_size: 64}}

factors:                           # a path into the baseline: the levels that are tried besides the baseline's own
  model.width: [8, 32]
  model.dropout: [0.25]

design: one-at-a-time              # each arm changes one thing; docs/designs.md has the others
seeds: {{initial: 5, max: 10}}       # undecided arms go on from 5 seeds to 10
"""


def text(name: str, file: str | None = None) -> str:
    """Return a commented study. file: how its comments name it. Raises StudyError where no study can have the name."""
    content = f"{HEADER}\n{_BODY.format(name=name, file=file or f'{name}.yaml')}"
    try:
        spec.parse(content)
    except StudyError as error:
        raise StudyError(error.message, place=f"init {cut(name)}", hint=error.hint) from None
    return content


def create(name: str, folder: Path) -> Path:
    """Write a commented study into a folder, with the schema beside it where there is none, and return its path. Overwrites nothing."""
    path = folder / f"{name}.yaml"
    content = text(name, path.as_posix())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
        if not (schema_file := folder / SCHEMA_FILE).exists():
            schema_file.write_text(schema.text(), encoding="utf-8")
    except FileExistsError:
        raise StudyError(
            "is there already, and is not overwritten",
            place=str(path),
            hint=f"choose another name, or run it: `ablate run {path}`",
        ) from None
    except OSError as error:
        raise StudyError(f"cannot be written ({error.strerror})", place=str(path)) from None
    return path
