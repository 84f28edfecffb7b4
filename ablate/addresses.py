"""Addresses of a database and of a folder, `sqlite:///…` and `file:///…`: no other module makes one of a path, or a path of one.

A path may hold any character but NUL, and bytes that are no UTF-8; what an address cannot hold as it is stands in it as `%3F`.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

SQLITE = "sqlite:///"

_QUOTED = r"[%?#\x00-\x1f\x7f\ud800-\udfff]"
"""What SQLAlchemy, or whoever shows the address, would take for something else than a part of the path."""

_QUERY = r"\?(\w+=[^?]*)\Z"
"""What may follow the path of a database: options, as in `?timeout=30`."""


def database_address(path: Path) -> str:
    """Return the address of an sqlite database, as people and `mlflow` take it."""
    return SQLITE + re.sub(_QUOTED, lambda found: quote_from_bytes(os.fsencode(found[0])), str(path))


def is_address(address: str) -> bool:
    """Return whether an address has a host where it needs one, a port that there is, and no path with NUL in it."""
    try:
        parts = urlsplit(address)
        return "%00" not in address and (
            parts.scheme not in ("http", "https") or bool(parts.hostname and parts.port != 0)
        )
    except ValueError:  # half an address of IPv6, or a port beyond 65535
        return False


def database_path(address: str) -> Path | None:
    """Return the file of an sqlite database; None for any other address. Options behind the path are left out."""
    if not address.startswith(SQLITE):
        return None
    return Path(_unquoted(re.sub(_QUERY, "", address.removeprefix(SQLITE))))


def resolved(address: str) -> str:
    """Return the address of an sqlite database with its path from the root on, links resolved; another address as it is."""
    path = database_path(address)
    if path is None:
        return address
    options = re.search(_QUERY, address)
    return database_address(path.resolve()) + (options[0] if options else "")


def address_to_open(address: str, *, by_child: bool = False) -> str:
    """Return an address that MLflow can open, of any database; another address is returned as it is.

    MLflow makes folders of the text of an address before SQLAlchemy has read it, so nothing in it may be quoted; before version 2.1
    SQLAlchemy read no quotes either. Where the name of the folder needs them, the kernel's own name for it stands instead, which
    lasts as long as this process. Where there is none, the path begins at the working folder. by_child: the address is for a process
    that this one starts, in whatever folder.
    """
    path = database_path(address)
    if path is None:
        return address
    options = re.search(_QUERY, address)
    folder = str(path.parent)
    if re.search(_QUOTED, folder):
        short = _folder_of_process(folder)
        if short and by_child:
            short = short.replace("self", str(os.getpid()))
        path = Path(short or os.path.relpath(folder), path.name)
    return f"{SQLITE}{path}{options[0] if options else ''}"


@functools.cache
def _folder_of_process(folder: str) -> str | None:
    """Return a name of a folder for this process, which keeps it open; None where the system has none."""
    if not os.path.isdir("/proc/self/fd"):  # noqa: PTH112 — no more of a path than this
        return None
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}"


def folder_address(path: Path) -> str:
    """Return the address of an absolute path, as MLflow takes it for a place of artifacts."""
    return path.as_uri()


def folder_path(address: str) -> Path | None:
    """Return the path in the address of a file or a folder of this machine, or in a plain path; None for any other address."""
    try:
        parts = urlsplit(address)
    except ValueError:  # half an address of IPv6
        return None
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = _unquoted(parts.path)
    elif parts.scheme == "":
        path = _unquoted(address)
    else:
        return None
    return None if "\0" in path else Path(path)  # no system has a path with NUL


def _unquoted(text: str) -> str:
    # Not `unquote`, which makes other bytes of those that are no UTF-8.
    return os.fsdecode(unquote_to_bytes(os.fsencode(text)))
