"""What the user has to allow before code of theirs that a study names is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Permission:
    """key: of the study, that names the code. setting: under `[tool.ablate]` in pyproject.toml, a list of what is allowed, or `true`.

    value: what must be on the list; True: the setting is `true`. action: what the study would do, as in "would import 'my_package'". option: of `ablate run`,
    which allows it for one command.
    """

    key: str
    setting: str
    value: str | Literal[True]
    action: str
    option: str


def to_import(key: str, target: str) -> Permission:
    """Return the permission to import what a key names as `package.module:name`."""
    package = target.partition(":")[0].partition(".")[0]
    return Permission(key, "imports", package, f"import {package!r}", f"--allow-import {package}")
