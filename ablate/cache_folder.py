"""The user's cache folder, and small JSON files in it that tell whether they are whole: what is lost there is made again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate import plain_files
from ablate.errors import DataError

MOST_JSON_BYTES = 1 << 26


def default_folder() -> Path:
    """$ABLATE_CACHE, else $XDG_CACHE_HOME/ablate, else ~/.cache/ablate. Raises DataError where there is no home folder."""
    try:
        if chosen := os.environ.get("ABLATE_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ablate"
    except RuntimeError as error:
        raise DataError(
            "there is no home folder for the cache of decoded data",
            hint="set the environment variable ABLATE_CACHE to a folder",
        ) from error


def with_digest(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value as `read_json` takes it: with a digest of itself."""
    return {**value, "digest": _digest_of(value)}


def read_json(file: Path) -> dict[str, Any]:
    """Return the value that was written with its digest.

    Raises ValueError where the file holds anything else, OSError where it cannot be read.
    """
    with plain_files.open_plain(file) as content:
        text = content.read(MOST_JSON_BYTES + 1)
    if len(text) > MOST_JSON_BYTES:
        raise ValueError("no file of ours")
    value = json.loads(text)
    if not isinstance(value, dict) or value.pop("digest", None) != _digest_of(value):
        raise ValueError("changed")
    return value


def keep(file: Path, value: Mapping[str, Any]) -> None:
    """Write a value with its digest, complete or not at all; where nothing can be written, it is worked out again the next time."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        plain_files.write(file, json.dumps(with_digest(value)).encode(), sync=False)


def kept(file: Path) -> dict[str, Any]:
    """Return what `keep` has written; nothing where it cannot be read."""
    try:
        return read_json(file)
    except (OSError, ValueError, RecursionError):
        return {}


def _digest_of(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
