"""YAML that other people wrote: neither its aliases nor its depth nor its tags take time, memory or code."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.errors import AblateError
from ablate.importing import runs, yaml_values
from ablate.study import document


def laughs(first: str, level: Callable[[int], str]) -> str:
    return f"a0: &a0 {first}\n" + "".join(f"a{i}: &a{i} {level(i)}\n" for i in range(1, 10))


TEXTS = {
    "aliases in lists": laughs("[x, x]", lambda i: f"[{', '.join([f'*a{i - 1}'] * 9)}]"),
    "aliases in a list": "- "
    + "\n- ".join(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9 if i else 'xx')}]" for i in range(10)),
    "aliases in blocks": laughs(
        "{k: x}", lambda i: "{" + ", ".join(f"k{j}: *a{i - 1}" for j in range(9)) + "}"
    ),
    "merged blocks": laughs("{k: x}", lambda i: f"{{<<: [{', '.join([f'*a{i - 1}'] * 9)}], k{i}: 1}}"),
    "a list within itself": "&a [*a]",
    "a block within itself": "&a {x: *a}",
    "brackets": "[" * 100_000,
    "braces": "{a: " * 100_000,
    "blocks": "".join(" " * i + "a:\n" for i in range(1_000)),
    "dashes": "- " * 50_000,
    "a date that is none": "a: !!timestamp abc",
    "a truth that is none": "a: !!bool maybe",
    "a number that is none": "a: !!int ''",
    "a measure that is none": "a: !!float ''",
    "a call": "a: !!python/object/apply:os.mkdir [called]",
    "an object": "a: !!python/object/new:os.mkdir {args: [called]}",
    "a module": "a: !!python/module:antigravity",
    "a name": "a: !!python/name:os.system",
    "a key that is a list": "? [a]\n: b",
    "a merge of text": "<<: x",
    "an alias of nothing": "a: *nothing",
    "a long number": "a: " + "9" * 10_000,
    "a day that is none": "a: 2001-99-99",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_read_or_refused_at_once(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    file = Path("settings.yaml")
    file.write_text(text)
    started = time.process_time()
    for read in (lambda: document.load(text, "study.yaml"), lambda: yaml_values.load(text)):
        with contextlib.suppress(AblateError, ValueError):
            read()
    assert isinstance(runs.settings(file), dict)
    assert isinstance(runs.overrides(file), dict)
    assert time.process_time() - started < 4
    assert [path.name for path in Path().iterdir()] == ["settings.yaml"]


def test_plain_settings_are_read():
    assert yaml_values.load("a: {b: &x [1, no], c: *x}") == {"a": {"b": [1, False], "c": [1, False]}}
    assert yaml_values.load("") is None
