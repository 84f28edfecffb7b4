"""Mistakes on the command line, in the form of all other messages: what is wrong, where, the nearest valid name, what to do."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typer.core
import typer.main
from typer.exceptions import TyperException

from ablate.errors import StudyError, nearest
from ablate.interrupts import EXIT_CODE, MESSAGE
from ablate.text import NUMBERS, cut, parse_real, parse_whole, shown, without_password

# Typer's messages about a value, and those that are printed instead.
_REWORDED = (
    (r"Input should be a valid integer.*", "should be a whole number"),
    (r"Input should be a valid number.*", "should be a number"),
    (r"Input should be greater than or equal to (.*)", r"should be at least \1"),
    (r"Input should be less than or equal to (.*)", r"should be at most \1"),
    (r"Input should", "should"),
)


Function = TypeVar("Function", bound=Callable[..., None])


def command(app: typer.Typer, name: str | None = None) -> Callable[[Function], Function]:
    """Return a decorator that makes a function a command, as `app.command(name)` does, but reads its options only when it is used.

    Typer reads those of all commands at once, which took longer than everything else that `--help` does after its imports.
    """

    def add(function: Function) -> Function:
        def listed() -> None:
            raise NotImplementedError

        listed.__name__, listed.__doc__ = function.__name__, function.__doc__
        vars(listed)["function"] = function
        app.command(name, cls=Command)(listed)
        return function

    return add


class Command(typer.core.TyperCommand):
    """A command of `command`. Its options and what it calls are there once one of them is asked for."""

    def __init__(self, name: str | None, *, callback: Any, **about: Any) -> None:
        super().__init__(name, callback=callback, **about)
        self._function = callback.function
        del self.params, self.callback

    def __getattr__(self, name: str) -> Any:
        if name not in ("params", "callback"):
            raise AttributeError(name)
        alone = typer.Typer(add_completion=False)
        alone.command()(self._function)
        whole = typer.main.get_command(alone)
        self.params, self.callback = whole.params, whole.callback
        for parameter in self.params:
            kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
            if kind in (int, float):  # by the rule of studies: Typer's takes `1_000`
                convert = functools.partial(_number, parameter, kind, parameter.process_value)
                vars(parameter)["process_value"] = convert
        return vars(self)[name]


class Commands(typer.core.TyperGroup):
    """The group of all commands. Its usage errors are reported like every other mistake."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command as Typer does, with messages of our own. Exits, with 2 for a mistake, unless `standalone_mode` is false."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except TyperException as error:
            if not standalone_mode:
                raise
            if type(error).__name__ == "NoArgsIsHelpError":  # not a mistake: its message is the help
                print(shown(error.format_message()), file=sys.stderr)
            else:
                print(shown(without_password(f"error: {mistake(error)}")), file=sys.stderr)
            sys.exit(error.exit_code)
        if standalone_mode:
            if code == EXIT_CODE:  # of an interrupt, wherever it came; Typer says nothing of it
                print(MESSAGE, file=sys.stderr)
            # Typer returns the code of an `Exit` as if it were a result; our commands return nothing.
            sys.exit(code if isinstance(code, int) else 0)
        return code

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            is_study = args[0].endswith((".yaml", ".yml"))
            meant = (
                f"did you mean `{ctx.command_path} run {args[0]}`?"
                if is_study
                else nearest(args[0], self.list_commands(ctx))
            )
            raise StudyError(
                f"there is no command {args[0]!r}",
                place=ctx.command_path,
                hint=f"{meant}\n  `{ctx.command_path} --help` lists them all",
            )
        return super().resolve_command(ctx, args)


def _number(parameter: Any, kind: type, convert: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    """Return the value of an option that is a number. Raises StudyError for what is written otherwise than in a study."""
    is_almost = isinstance(value, str) and re.search(r"\d|nan|inf", value, re.IGNORECASE)
    if is_almost and (parse_whole if kind is int else parse_real)(value) is None:
        name = _shown_name(parameter)
        what = "a whole number" if kind is int else "a finite number"
        raise StudyError(f"should be {what} (got {cut(value)!r})", place=name, hint=NUMBERS)
    return convert(ctx, value)


def mistake(error: TyperException) -> StudyError:
    """Turn Typer's error into a StudyError."""
    # Typer's classes for these are private, so their attributes are read instead.
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    option: str | None = getattr(error, "option_name", None)
    command = context.command_path if context is not None else "ablate"
    see_help = f"`{command} --help` lists what there is"
    kind, message = type(error).__name__, error.format_message()
    if kind == "NoSuchOption" and option is not None:
        options = [
            name
            for known in (context.command.get_params(context) if context is not None else ())
            for name in (*known.opts, *known.secondary_opts)
            if name.startswith("--")
        ]
        close = nearest(option, options)
        return StudyError(
            f"there is no option {option}",
            place=command,
            hint=f"{close}\n  {see_help}" if close.startswith("did") else see_help,
        )
    if kind == "MissingParameter" and parameter is not None:
        name = _shown_name(parameter)
        return StudyError(f"{name} is missing", place=command, hint=_meaning(parameter) or see_help)
    if kind == "BadOptionUsage" and option is not None and "requires an argument" in message:
        return StudyError("needs a value", place=option, hint=f"write it after the option: `{option} …`")
    if parameter is not None:
        reworded = error.message
        for pattern, replacement in _REWORDED:
            reworded = re.sub(pattern, replacement, reworded)
        name = _shown_name(parameter)
        return StudyError(reworded, place=name, hint=_meaning(parameter) or see_help)
    if extra := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        return StudyError(f"takes no further arguments (got {extra[1]!r})", place=command, hint=see_help)
    return StudyError(message[:1].lower() + message[1:].rstrip("."), place=command, hint=see_help)


def _shown_name(parameter: Any) -> str:
    """Return an option, or an argument as the help names it."""
    if parameter.param_type_name != "argument":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper()).rstrip("…")


def _meaning(parameter: Any) -> str | None:
    """Return the help of an option or an argument as a hint."""
    text: str | None = getattr(parameter, "help", None)
    return f"it means: {text[:1].lower()}{text[1:].rstrip('.')}" if text else None
