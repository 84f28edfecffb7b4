"""Ablation studies that end in a verdict with an interval."""

from __future__ import annotations

import sys

# `python -m ablate` looks for every module in the working folder first, where somebody else may have put one of any name.
if sys.argv[:1] == ["-m"] and "ablate" in sys.orig_argv and not sys.flags.safe_path:
    del sys.path[0]

TYPE_CHECKING = (
    False  # as typing has it, whose import would take longer than all the rest here (see `interrupts`)
)
if TYPE_CHECKING:
    from typing import Any

    from ablate.comparing import compare
    from ablate.comparisons import ArmVerdict, Comparisons
    from ablate.errors import AblateError
    from ablate.from_python import load, run

__all__ = ["AblateError", "ArmVerdict", "Comparisons", "compare", "load", "run"]

_HOMES = {
    "AblateError": "errors",
    "ArmVerdict": "comparisons",
    "Comparisons": "comparisons",
    "compare": "comparing",
    "load": "from_python",
    "run": "from_python",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: `import ablate` alone loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"ablate.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
