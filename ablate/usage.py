"""Mistakes on the command line, in the voice of all others: what is wrong, where, the nearest valid thing, what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer.core
from typer.exceptions import TyperException

from ablate.errors import StudyError, nearest

# What Typer says of a value, and what is said here.
_SHOULD = (
    (r"Input should be a valid integer.*", "should be a whole number"),
    (r"Input should be a valid number.*", "should be a number"),
    (r"Input should be greater than or equal to (.*)", r"should be at least \1"),
    (r"Input should be less than or equal to (.*)", r"should be at most \1"),
    (r"Input should", "should"),
)


INTERRUPTED = "interrupted: what is finished is kept, and the same command goes on from there"


class Commands(typer.core.TyperGroup):
    """The commands as one group, whose usage errors are mistakes like any other."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As Typer's own, but for the words. Ends the process, with 2 for a mistake, unless `standalone_mode` is false."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except TyperException as error:
            if not standalone_mode:
                raise
            if type(error).__name__ == "NoArgsIsHelpError":  # not a mistake: the help, which is its message
                print(error.format_message(), file=sys.stderr)
            else:
                print(f"error: {mistake(error)}", file=sys.stderr)
            sys.exit(error.exit_code)
        if standalone_mode:
            # Typer hands the code of an `Exit` back as if it were a result; commands here return nothing.
            sys.exit(code if isinstance(code, int) else 0)
        return code

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # Typer ends the process with 130, and without a word
            print(INTERRUPTED, file=sys.stderr)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise StudyError(
                f"there is no command {args[0]!r}",
                place=ctx.command_path,
                hint=f"{nearest(args[0], self.list_commands(ctx))}\n  `{ctx.command_path} --help` says what each does",
            )
        return super().resolve_command(ctx, args)


def mistake(error: TyperException) -> StudyError:
    """What Typer found wrong, as a mistake of ours."""
    # Typer's classes for these are its own affair; what they carry is looked at instead.
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    option: str | None = getattr(error, "option_name", None)
    command = context.command_path if context is not None else "ablate"
    more = f"`{command} --help` says what there is"
    kind, message = type(error).__name__, error.format_message()
    if kind == "NoSuchOption" and option is not None:
        known = [
            name
            for one in (context.command.get_params(context) if context is not None else ())
            for name in (*one.opts, *one.secondary_opts)
            if name.startswith("--")
        ]
        close = nearest(option, known)
        return StudyError(
            f"there is no option {option}",
            place=command,
            hint=f"{close}\n  {more}" if close.startswith("did") else more,
        )
    if kind == "MissingParameter" and parameter is not None:
        name = parameter.name.upper() if parameter.param_type_name == "argument" else parameter.opts[0]
        return StudyError(f"{name} is missing", place=command, hint=_about(parameter) or more)
    if kind == "BadOptionUsage" and option is not None and "requires an argument" in message:
        return StudyError("needs a value", place=option, hint=f"write it after the option: `{option} …`")
    if parameter is not None:
        said = error.message
        for pattern, words in _SHOULD:
            said = re.sub(pattern, words, said)
        name = parameter.name.upper() if parameter.param_type_name == "argument" else parameter.opts[0]
        return StudyError(said, place=name, hint=_about(parameter) or more)
    if extra := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        return StudyError(f"takes no more arguments, so what is {extra[1]!r}?", place=command, hint=more)
    return StudyError(message[:1].lower() + message[1:].rstrip("."), place=command, hint=more)


def _about(parameter: Any) -> str | None:
    """What the help says of an option or an argument."""
    words: str | None = getattr(parameter, "help", None)
    return f"it means: {words[:1].lower()}{words[1:].rstrip('.')}" if words else None
