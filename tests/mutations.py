"""Files damaged at random, and a watch over what reading them does. Each generator takes a seeded `random.Random`."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import re
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

SECONDS = 5
"""Processor time that reading one damaged file may take."""

_STARTS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn"}
_CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}  # fmt: skip


class Watch:
    """What code does while it is watched. started: programs, connections and modules of strangers. written: files that it changes.

    A connection is refused, as where there is no network. inside: the folders in which files may be changed.
    """

    def __init__(self) -> None:
        self.started: list[str] = []
        self.written: list[str] = []
        self.inside: tuple[Path, ...] = ()
        self.seconds: float = SECONDS
        self._is_on = False
        sys.addaudithook(self._note)

    @contextlib.contextmanager
    def on(self, *inside: Path) -> Iterator[None]:
        """Watch, and end with AssertionError what takes more processor time than a damaged file may."""

        def too_long(_number: int, _frame: object) -> None:
            raise AssertionError(f"more than {self.seconds} s of processor time")

        self.inside, self._is_on = inside, True
        before = signal.signal(signal.SIGPROF, too_long)
        signal.setitimer(signal.ITIMER_PROF, self.seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)
            self._is_on = False

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        self._is_on = False
        yield
        self._is_on = True

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event in _STARTS:
            if event == "subprocess.Popen" and "core.fsmonitor=false" in arguments[1]:
                return  # git, which runs nothing that a repository asks for (tests/test_repository.py)
            self.started.append(f"{event} {arguments}")
        elif event in {"socket.connect", "socket.getaddrinfo"}:
            raise OSError("there is no network")
        elif event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(str(mode)) & set("wax+")
            if writes and not isinstance(path, int):
                self._changed(event, path, follows=not flags & os.O_NOFOLLOW)
        elif event in _CHANGES:
            self._changed(event, arguments[0], follows=False)

    def _changed(self, event: str, path: Any, *, follows: bool) -> None:
        with self.off():
            folder, name = os.path.split(os.fsdecode(path))
            place = os.path.realpath(path) if follows else os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
        is_inside = any(f"{place}/".startswith(f"{folder}/") for folder in self.inside)
        # The folders of the tests may lie in one of /dev/shm.
        if is_inside or re.match(r"/dev/(?!shm/.*/)|/proc/", place):
            return
        self.written.append(f"{event} {place}")


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- bytes ------------------------------------------------------------------------------------------------------------

PIECES = (
    *(b",", b";", b"\t", b"\n", b"\r", b'"', b"'", b"{", b"}", b"[", b"]", b"\0", b"\xff", b"%", b"/", b":", b"&a *a", b"!!python/name:os.system"),
    *(b"nan", b"inf", b"-inf", b"1e999", b"-", b"\xe2\x88\x92", b"=1+1", b"__import__('os').system('touch executed')", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"9" * 400, b"(" * 300, b"{" * 300, b"[" * 5000, b"1/0", b"seed", b"arm", b"file", b"epoch", b" - ", b"__MIN", b"<script>", b"\\d", b"$(touch executed)"),
)  # fmt: skip
"""What is put into a file somewhere."""

STUDY_PIECES = (
    *PIECES,
    *(b"<<: *a", b"&a ", b"*a", b"? ", b"- ", b"---\n", b"...\n", b"!!binary ", b"!!set ", b"!!timestamp ", b"%YAML 9.9\n", b"# ", b"|\n", b">\n", b"\xe2\x80\xae", b"\x1b[2J"),
    *(b"\xc2\x85", b"\xe2\x80\xa8", b'"\\ud800"', b'"\\0"', b"\r\n", b": {", b"zip: ", b"{seed}", b"{}", b"{x?--x}", b"baseline", b"factors", b"data", b"name: ", b"trials: "),
)  # fmt: skip


def mutated(data: bytes, rng: random.Random, pieces: Sequence[bytes] = PIECES) -> bytes:
    """Change bytes in up to six places: put something in, cut out, repeat, exchange, cut short, shuffle the lines."""
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:at] + rng.choice(pieces) + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + rng.randint(1, 20) :]
        elif kind == 2:
            other = rng.randrange(len(data) + 1)
            data = data[: min(at, other)] + data[min(at, other) : max(at, other)] * 2 + data[max(at, other) :]
        elif kind == 3:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == 4:
            data = data[:at]
        else:
            lines = data.split(b"\n")
            rng.shuffle(lines)
            data = b"\n".join(lines)
        if len(data) > 200_000:
            data = data[:200_000]
    return data


# --- trees of plain values ------------------------------------------------------------------------------------------

TEXTS = (
    *("", " ", "~", "null", "true", "no", "0", "-0", "1e400", "NaN", "\0", "\x1b[31m", "\x7f", "\n", "\r\n", "\t", "\ufeff", "\u202e", "\u2066", "\ud800", "\udcff", "é", "e\u0301"),
    *("..", ".", "/", "../x", "/etc/passwd", "a/b", "~root", "$HOME", "$(touch executed)", "`touch executed`", "%s%n", "{}", "{seed}", "{x!r}", "{0}", "{{", "}}", "{device}{run_dir}"),
    *("(", "(a+)+$", "(?P<step>.*)", "[", "\\", "(" * 500, ".*" * 200, "x" * 5000, "a." * 200, ".".join("ab" * 30), ".", "..", "a..b", ".a", "a.", " a", "a b", "a,b", "a=b", "a: b"),
    *("<script>", "=cmd|' /C calc'!A0", "'; DROP TABLE runs; --", "os:system", "toy:fit", "toy:", ":fit", "toy.x:fit", "os.path:join", "a b:c", "builtins:eval", "test:train", "a:b:c"),
    *("digits", "cifar10", "folder", "import", "cnn", "lenet", "resnet", "sgd", "adam", "cosine", "step", "one-at-a-time", "leave-one-out", "both", "factorial", "fractional", "path", "search"),
    *("val/accuracy", "val/loss", "test/accuracy", "val/\udcff", "maximize", "minimize", "baseline", "A/A", "seed", "data", "model", "model.width", "optimizer.lr", "data.root", "training.epochs"),
    *("90s", "30m", "-1h", "0", "1e9d", "99999999999999999999999d", "lr\u200b", "ﬁ", "٣", "1_000", "0x10", "1:30", "2026-01-01", "<<", "=", "?"),
)  # fmt: skip

NUMBERS = (
    *(0, -0.0, 1, -1, 2, 3, 7, 16, 64, 100, 999, 1000, 1001, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**30, 10**308, 10**309, 10**400, 10**4000),
    *(0.5, 0.1, 1e-5, 1e-308, 5e-324, 1e308, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"), 0.999999999, 1.0, 3.0, True, False, None),
)  # fmt: skip


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    """Return a value that does not belong where it is put."""
    kind = rng.randrange(10 if depth < 3 else 6)
    if kind < 3:
        return rng.choice(TEXTS)
    if kind < 6:
        return rng.choice(NUMBERS)
    if kind == 6:
        return [odd_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 5)))]
    if kind == 7:
        return {odd_key(rng): odd_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3)))}
    if kind == 8:
        value: Any = rng.choice(NUMBERS)
        for _ in range(rng.choice((2, 20, 45, 60))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return [rng.choice(NUMBERS[:12])] * rng.choice((2, 100, 6000)) if depth == 0 else []


def near_value(value: Any, rng: random.Random) -> Any:
    """Return another value of the same kind, which often has a meaning where it is put."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float) and abs(value) < 10**100:
        return rng.choice(
            (value + 1, value - 1, value * 2, value / 2, -value, value * 1000, float(value), round(value))
        )
    if isinstance(value, list):
        return rng.choice(
            (value[::-1], value[:1], value + value, value + [near_value(v, rng) for v in value])
        )
    if isinstance(value, dict):
        return dict(reversed(value.items()))
    return (
        rng.choice((value.upper(), value[:-1], value + value, *TEXTS[-60:]))
        if isinstance(value, str)
        else value
    )


def odd_key(rng: random.Random) -> Any:
    return rng.choice(TEXTS) if rng.random() < 0.8 else rng.choice([n for n in NUMBERS if n == n])  # noqa: PLR0124 — NaN is no key


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a tree with each of its keys or positions."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        keys = (
            list(holder)
            if isinstance(holder, dict)
            else range(len(holder))
            if isinstance(holder, list)
            else ()
        )
        for key in keys:
            yield holder, key
            waiting.append(holder[key])


def mutated_tree(tree: Any, rng: random.Random) -> Any:
    """Change a tree of dicts and lists in one to four places: exchange, remove, rename, double, move, nest. Changes what it is given."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        everywhere = list(places(tree))
        if not everywhere:
            return odd_value(rng)
        holder, key = rng.choice(everywhere)
        kind = rng.randrange(12)
        if kind <= 3:
            holder[key] = odd_value(rng)
        elif kind >= 9:
            holder[key] = near_value(holder[key], rng)
        elif kind == 4:
            del holder[key]
        elif kind == 5 and isinstance(holder, dict):
            holder[odd_key(rng)] = holder.pop(key)
        elif kind == 6:
            other, place = rng.choice(everywhere)
            with contextlib.suppress(KeyError, IndexError):
                holder[key] = _copy(other[place])
        elif kind == 7:
            holder[key] = rng.choice(([holder[key]], {"zip": holder[key]}, {"name": holder[key]}, {"a": holder[key]}, [holder[key]] * 2))  # fmt: skip
        elif isinstance(holder, list):
            holder.append(odd_value(rng))
        else:
            holder[odd_key(rng)] = odd_value(rng)
    return tree


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


# --- studies -----------------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml(tree: Any, rng: random.Random) -> str:
    """Write a tree as YAML, in one of its styles."""
    style = rng.choice((None, None, None, True))
    return yaml.dump(tree, Dumper=_Dumper, default_flow_style=style, allow_unicode=rng.random() < 0.7, sort_keys=rng.random() < 0.2)  # fmt: skip


def mutated_study(text: str, rng: random.Random) -> bytes:
    """Change a study's file: its bytes, its values, or how YAML writes them."""
    kind = rng.randrange(10)
    if kind < 3:
        return mutated(text.encode(), rng, STUDY_PIECES)
    if kind < 8:
        changed = as_yaml(mutated_tree(yaml.safe_load(text), rng), rng)
        return changed.encode("utf-8", rng.choice(("backslashreplace", "surrogatepass")))
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    odd = rng.choice((*TEXTS[:60], *map(str, NUMBERS)))
    name, colon, value = lines[at].partition(": ")
    match rng.randrange(8):
        case 0 if colon:
            lines[at] = f"{name}: &a {value}"
            lines.append(rng.choice(("question: *a", "<<: *a", "b: [*a, *a]", "seeds: *a")))
        case 1 if colon:
            tag = rng.choice(("!!str", "!!int", "!!float", "!!bool", "!!null", "!!binary", "!!set", "!!omap", "!!pairs", "!!timestamp", "!!merge", "!x", "!!python/object/apply:os.system"))  # fmt: skip
            lines[at] = f"{name}: {tag} {value}"
        case 2:
            lines.insert(at, lines[rng.randrange(len(lines))])
        case 3:
            bomb = [
                "a0: &a0 [x, x]",
                *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)),
            ]
            lines[at:at] = bomb
        case 4 if colon:
            lines[at] = f"{name}: {odd}"
        case 5 if colon:
            lines[at] = f"{odd}: {value}"
        case 6:
            lines[at] = lines[at].replace(":", ": " + "[" * rng.choice((10, 100, 3000)), 1)
        case _:
            lines[at] = " " * rng.randrange(9) + lines[at]
    ending = rng.choice(("\n", "\n", "\n", "\r\n", "\r", "\x85", "\u2028"))
    codec = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"))
    return ending.join(lines).encode(codec, "backslashreplace")


# --- files of a store ---------------------------------------------------------------------------------------------------


def damage(path: Path, rng: random.Random, others: Sequence[bytes], outside: Path) -> str:
    """Damage a file, or put something else into its place. others: what it may hold instead. outside: a folder that a link may lead to.

    Returns what was done.
    """
    content = path.read_bytes()
    kind = rng.choice(("tree", "tree", "bytes", "flip", "cut", "empty", "zeros", "other", "link", "link to a folder", "dangling", "loop", "folder", "pipe", "missing", "deep", "pickle", "holes", "device", "no more"))  # fmt: skip
    path.unlink()
    match kind:
        case "tree":
            lines = content.split(b"\n") if path.suffix != ".json" else [content]
            at = rng.randrange(len(lines))
            try:
                lines[at] = json.dumps(mutated_tree(json.loads(lines[at]), rng)).encode()
            except ValueError:
                lines[at] = mutated(lines[at], rng)
            path.write_bytes(b"\n".join(lines))
        case "bytes":
            path.write_bytes(mutated(content, rng))
        case "flip":
            flipped = bytearray(content or b"x")
            for _ in range(rng.randint(1, 8)):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
        case "cut":
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        case "empty":
            path.touch()
        case "zeros":
            path.write_bytes(bytes(len(content)))
        case "other":
            path.write_bytes(rng.choice(others))
        case "link":
            path.symlink_to(next(outside.iterdir()))
        case "link to a folder":
            path.symlink_to(outside)
        case "dangling":
            path.symlink_to(outside / "nothing")
        case "loop":
            path.symlink_to(path.name)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "holes":
            path.write_bytes(content)
            os.truncate(path, 1 << 40)
        case "device":
            path.symlink_to("/dev/zero")
        case "no more":
            path.write_bytes(content)
            path.chmod(0)
        case "deep":
            path.write_bytes(b"[" * 100_000)
        case "pickle":
            path.write_bytes(pickle.dumps(_Executes()))
    return kind


class _Executes:
    """What runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)
