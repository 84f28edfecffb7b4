"""What git tells of a folder, asked so that nothing is run that the folder's repository names.

A folder that came with its `.git` may name programs for git to run: hooks, a file-system monitor, filters, a pager, programs that
show differences, a command that fetches what is missing. All of them are switched off here, and no other file calls git.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablate import plain_files

TIMEOUT = 5.0
"""Seconds that git may take to describe a folder."""

LIST_TIMEOUT = 30.0
"""Seconds that git may take to list files."""

LONGEST_COMMIT = 200
"""Characters of the name of a commit; whatever is longer comes from something else that is called git."""

_SETTINGS = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.untrackedCache": "false",
    "core.pager": "cat",
    "core.sshCommand": "false",
    "core.gitProxy": "",
    "credential.helper": "",
    "diff.external": "",
    "gc.auto": "0",
    "log.showSignature": "false",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
}

_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    # Of a clone without all its objects, git would fetch those that are missing; a repository's own settings allow no more than this.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
}

_KEPT = frozenset({"GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM"})
"""Variables of git's that name no program, no repository and no settings."""

_FILTER = re.compile(r"filter\.(?s:.*)\.(clean|smudge|process|required)")


def ask(folder: Path, *arguments: str) -> bytes | None:
    """Return what git prints of a folder; None where there is no repository, or none that git trusts.

    arguments: of a command that reads no content of files, whose filters it would run: `ls-files`, `rev-parse`.
    """
    answer = _run(folder, arguments, LIST_TIMEOUT)
    return answer.stdout if answer is not None and answer.returncode == 0 else None


def state(folder: Path) -> str | None:
    """Return the commit that a folder is at, with `-dirty` where files have changed; None where git does not tell."""
    answer = _run(folder, ["describe", "--always", "--abbrev=12"], TIMEOUT)
    if answer is None or answer.returncode != 0:
        return None
    commit = answer.stdout.decode(errors="replace").strip()
    filters = _filters(folder)
    if not (0 < len(commit) <= LONGEST_COMMIT and commit.isprintable()) or filters is None:
        return None
    compare = ["diff", "--quiet", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", "HEAD", "--"]
    try:
        with tempfile.TemporaryDirectory() as temporary:
            # Git writes down what it has found to be unchanged: into a copy.
            copy = Path(temporary) / "index"
            index = ask(folder, "rev-parse", "--git-path", "index")
            copy.write_bytes(plain_files.read(folder / os.fsdecode((index or b"").removesuffix(b"\n"))))
            compared = _run(
                folder, compare, TIMEOUT, dict.fromkeys(filters, ""), {"GIT_INDEX_FILE": str(copy)}
            )
    except OSError:  # also where nothing can be written for the moment
        return None
    if compared is None or compared.returncode not in (0, 1):
        return None
    return f"{commit}-dirty" if compared.returncode else commit


def _filters(folder: Path) -> list[str] | None:
    """Return the settings of filters; None where one of them cannot be switched off.

    Without its filters, a file that was touched since git read it counts as changed; one that was not is not read at all.
    """
    answer = _run(folder, ["config", "--list", "--name-only", "-z"], TIMEOUT)
    if answer is None or answer.returncode != 0:
        return None
    names = {os.fsdecode(name) for name in answer.stdout.split(b"\0")}
    filters = sorted(name for name in names if _FILTER.fullmatch(name))
    return None if any("=" in name for name in filters) else filters


def _run(
    folder: Path,
    arguments: Sequence[str],
    timeout: float,
    settings: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes] | None:
    """Run git in a folder. settings, variables: besides those that switch everything off.

    Returns None where it does not run, or takes too long.
    """
    git = shutil.which("git")
    if git is None or not Path(git).is_absolute():  # a relative one would be looked for in the folder
        return None
    options = [
        part
        for name, value in {**_SETTINGS, **(settings or {})}.items()
        for part in ("-c", f"{name}={value}")
    ]
    environment = {n: v for n, v in os.environ.items() if not n.startswith("GIT_") or n in _KEPT}
    try:
        return subprocess.run(
            [git, "--no-pager", *options, *arguments],
            cwd=folder,
            env={**environment, **_ENVIRONMENT, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
