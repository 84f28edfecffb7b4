"""The errors that ablate raises on purpose.

    AblateError
    ├── StudyError     a mistake in the study file or on the command line
    ├── DataError      a data set that is missing, unreadable or cannot be fetched
    ├── StoreError     the tracking store: locked, unreadable, of another version
    └── TrainingError  a training that cannot start: an image too small for the network, an unknown import

The user can correct each of them, so each states what is wrong, where, and what to do next; the command line prints it
without a traceback and exits with 2. Any other exception that reaches the user is a bug of ablate.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

# What a machine or its file system refuses, whatever ablate does; not every system has all of them.
_REFUSED = frozenset(
    {
        *("EACCES", "EAGAIN", "EBUSY", "EDQUOT", "EFBIG", "EHOSTDOWN", "EIO", "EISDIR", "ELOOP", "EMFILE"),
        *("ENAMETOOLONG", "ENFILE", "ENODEV", "ENOLCK", "ENOMEM", "ENOSPC", "ENOSYS", "ENOTCONN", "ENOTDIR"),
        *("ENOTSUP", "ENXIO", "EOPNOTSUPP", "EPERM", "EREMOTEIO", "EROFS", "ESTALE", "ETIMEDOUT", "ETXTBSY"),
    }
)

_BREAKS = r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"


class AblateError(Exception):
    """A mistake that the user can correct. message: what is wrong. place: where. hint: what to do about it.

    Message and place are one line each, also where they quote a file's name, or what a library says in several.
    """

    def __init__(self, message: str, *, place: str | None = None, hint: str | None = None) -> None:
        message = re.sub(rf"\s*{_BREAKS}\s*", " ", message)
        super().__init__(message)
        self.message = message
        self.place = place and re.sub(_BREAKS, lambda found: ascii(found[0])[1:-1], place)
        self.hint = hint

    @property
    def sentence(self) -> str:
        """Place and message, in one line."""
        return f"{self.place}: {self.message}" if self.place else self.message

    def __str__(self) -> str:
        return f"{self.sentence}\n  {self.hint}" if self.hint else self.sentence

    def __reduce__(self) -> tuple[object, ...]:
        # Errors are pickled between processes; the default way would lose the keyword arguments.
        return (_rebuild, (type(self), self.message, self.place, self.hint))


class StudyError(AblateError):
    pass


class DataError(AblateError):
    pass


class StoreError(AblateError):
    pass


class TrainingError(AblateError):
    pass


def _rebuild(kind: type[AblateError], message: str, place: str | None, hint: str | None) -> AblateError:
    return kind(message, place=place, hint=hint)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint: the known word closest to `word`, or all known words where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose one of: {', '.join(known)}" if known else ""


def _lacks_memory(error: BaseException) -> bool:
    """Whether a library could not be loaded for want of memory, by what the loader says. An error may quote it, or be raised from it."""
    if re.search(
        r"failed to map segment(?!.*not permitted)|cannot allocate memory", str(error), re.IGNORECASE
    ):
        return True
    before = error.__cause__ or error.__context__
    return isinstance(before, MemoryError) or (before is not None and _lacks_memory(before))


def refused_by_machine(error: BaseException) -> tuple[str, str] | None:
    """Return what the machine has refused and what to do about it, for an error that is no bug; None for any other error."""
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and _lacks_memory(error)):
        return "there is not enough memory", "`ulimit -v` and `free` say how much this process may have"
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return (
            "no thread can be started",
            "`ulimit -u` says how many processes and threads you may have",
        )
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error.strerror):
        return (
            "there is no folder for temporary files that may be written",
            "the environment variable TMPDIR names one",
        )
    if not isinstance(error, OSError) or errno.errorcode.get(error.errno or 0) not in _REFUSED:
        return None
    place = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.EAGAIN:
        place = "no process can be started (`ulimit -u`): "
    return f"{place}{error.strerror}", "what is finished is kept; the same command continues from there"
