"""docs/recipe.md has a page of words for every field of the recipe, and none for a field that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest
from pydantic import BaseModel

from ablate.config import RunConfig

PAGE = (Path(__file__).parent.parent / "docs" / "recipe.md").read_text()
BLOCKS = ("optimizer", "schedule", "training", "augment")


def blocks(annotation) -> list[type[BaseModel]]:
    """The blocks that a field of a config may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [block for part in inner for block in blocks(part)]


KINDS = {name: blocks(RunConfig.model_fields[name].annotation) for name in BLOCKS}
FIELDS = sorted(
    {f"{block}.{field}" for block, kinds in KINDS.items() for kind in kinds for field in kind.model_fields}
    - {f"{block}.name" for block in BLOCKS}
)
SECTIONS = dict(re.findall(r"^### `([a-z_.0-9]+)`\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_is_explained_with_its_range_and_its_source(path):
    assert path in SECTIONS, f"docs/recipe.md has no section on `{path}`"
    words = SECTIONS[path]
    assert len(words.split()) >= 30
    assert "**Range:**" in words
    assert "**Source:**" in words


def test_nothing_is_explained_that_is_not_there():
    assert sorted(SECTIONS) == FIELDS
    assert {"optimizer.lr", "schedule.warmup", "training.patience", "augment.mixup"} <= set(FIELDS)


def test_every_optimizer_schedule_and_loss_is_named():
    names = [kind.model_fields["name"].default for block in BLOCKS[:2] for kind in KINDS[block]]
    names += get_args(KINDS["training"][0].model_fields["loss"].annotation)
    assert len(names) == 3 + 4 + 2
    assert [name for name in names if f"`{name}`" not in PAGE.replace("name: sgd", "sgd")] == []
