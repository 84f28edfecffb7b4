"""What `ablate judge` asks at a terminal: whatever was not told, with what is seen of the results to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ablate.text import cut, joined, parse_real

Ask = Callable[[str, str | None], str]
"""Takes a question and an answer to propose, if any; returns what was typed."""

_SHOWN = 20


def choose(question: str, options: Sequence[str], ask: Ask, *, proposed: str | None = None) -> str:
    """Return one of some options, by its name or its number from 1. Asks again until it is one."""
    listed = joined((f"{i} {cut(option, 40)}" for i, option in enumerate(options[:_SHOWN], 1)), "or")
    more = f", or one of {len(options) - _SHOWN} more" if len(options) > _SHOWN else ""
    while True:
        answer = ask(f"{question} ({listed}{more})", proposed).strip()
        if answer in options:
            return answer
        if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(options):
            return options[int(answer) - 1]
        question = f"{cut(answer)!r} is none of them. {question.rpartition('. ')[2]}"


def positive(question: str, ask: Ask) -> float:
    """Return a positive number. Asks again until it is one."""
    while True:
        answer = ask(question, None).strip()
        number = parse_real(answer)
        if number is not None and number > 0:
            return number
        question = f"{cut(answer)!r} is no positive number. {question.rpartition('. ')[2]}"


def yes(question: str, ask: Ask) -> bool:
    """Return whether the answer is yes. Asks again until it is yes or no."""
    while True:
        answer = ask(f"{question} (yes or no)", None).strip().lower()
        if answer in {"y", "yes", "n", "no"}:
            return answer.startswith("y")
