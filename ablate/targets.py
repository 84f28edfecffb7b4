"""Code of the user's that a study names as `package.module:name`: its form, importing it, and its arguments."""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from ablate.code_digest import look_in_working_folder
from ablate.errors import StudyError, nearest
from ablate.text import cut

PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""What a target looks like."""

ABLATE = str(Path(__file__).parent)


def _checked(target: str) -> str:
    if not re.fullmatch(PATTERN, target):
        raise ValueError("names no function: write `package.module:function`")
    return target


Target = Annotated[str, AfterValidator(_checked), WithJsonSchema({"type": "string", "pattern": PATTERN})]
"""A field of a configuration block that names code of the user's."""


def load(target: str, place: str) -> Callable[..., Any]:
    """Import what a target names, from the working folder too. place: the field that names it. Raises StudyError."""
    module_name, _, name = target.partition(":")
    look_in_working_folder()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise StudyError(
                f"there is no module {error.name!r} to import",
                place=place,
                hint="install it, or run from the folder that holds it",
            ) from error
        raise _failed(f"importing {module_name!r}", error, place) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"importing {module_name!r}", error, place) from error
    found = getattr(module, name, None)
    if not callable(found):
        functions = [
            other for other, value in vars(module).items() if callable(value) and not other.startswith("_")
        ]
        is_absent = found is None and not hasattr(module, name)
        raise StudyError(
            f"{module_name} has no {name!r}" if is_absent else f"{target} is no function or class",
            place=place,
            hint=nearest(name, functions) if functions else None,
        )
    if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
        raise StudyError(f"{target} is `async`, and nobody would await it", place=place)
    function: Callable[..., Any] = found
    return function


def arguments(
    function: Callable[..., Any],
    target: str,
    given: Mapping[str, Any],
    offered: Mapping[str, Any],
    place: str,
) -> dict[str, Any]:
    """Return the keyword arguments to call a target with: those given, and those offered that its signature names.

    given: by the study. offered: by ablate, under all the names that they may have; what is given replaces them. place: the field
    with the given ones. Raises StudyError for one that the function does not take, and for one that it lacks.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some classes in C have none
        return dict(given)
    by_name = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in given:
        if name not in by_name and not takes_any:
            raise StudyError(
                f"{target} takes no argument {cut(name)!r}",
                place=f"{place}.{name}",
                hint=nearest(name, by_name) if by_name else "it takes no arguments by name",
            )
    arguments = {name: value for name, value in offered.items() if name in by_name} | dict(given)
    for name, parameter in parameters.items():
        is_single = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if is_single and parameter.default is parameter.empty and name not in arguments:
            raise StudyError(
                f"{target} needs the argument {name!r}",
                place=place,
                hint=f"write `{place.rpartition('.')[2]}: {{{name}: VALUE}}`",
            )
    return arguments


def call(
    function: Callable[..., Any], name: str, arguments: Mapping[str, Any], place: str, *positional: Any
) -> Any:
    """Return what the user's code returns. name: of it, for the message. positional, arguments: what it is called with.

    Raises StudyError, in one line with the place in its file, where it raises.
    """
    try:
        return function(*positional, **arguments)
    except (Exception, SystemExit) as error:
        raise _failed(name, error, place) from error


def _failed(action: str, error: BaseException, place: str) -> StudyError:
    return StudyError(f"{action} raised {described(error)}", place=place)


def described(error: BaseException) -> str:
    """Return an error of the user's code in one line: its kind, its first line, and where in that code it was raised."""
    text = (str(error).strip().splitlines() or [""])[0]
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ABLATE)
    ]
    own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename[:1] != "<"]
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {cut(text, 200)}{where}" if text else f"{type(error).__name__}{where}"
