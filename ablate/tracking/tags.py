"""Numbers in tags. Anybody can change a tag of a run in MLflow, so one that holds no number counts as absent."""

from __future__ import annotations

from collections.abc import Mapping


def number(tags: Mapping[str, str], name: str, default: float) -> float:
    """Return the number that a tag holds, `default` where it is absent or holds none."""
    try:
        return float(tags.get(name, default))
    except ValueError:
        return default


def whole(tags: Mapping[str, str], name: str, default: int) -> int:
    """Return the whole number that a tag holds, `default` where it is absent or holds none."""
    text = tags.get(name, "")
    return int(text) if is_whole(text) else default


def is_whole(text: str) -> bool:
    """Return whether a text is a whole number, not negative, of at most nine digits."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def is_number(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
