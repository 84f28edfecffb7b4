"""Ablation studies that end in a verdict with an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.comparing import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: `import ablate` alone loads nothing."""
    if name in __all__:
        from ablate import comparing

        return getattr(comparing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
