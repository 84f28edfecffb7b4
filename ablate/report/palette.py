"""Colours, and what they mean. Every colour has a twin for dark screens; a figure uses none that is not in this file.

One meaning a colour, on the whole page: blue is better (an arm that helps), orange worse (one that hurts), ochre not known
yet, purple trouble, grey and black everything that is no verdict: the baseline, levels, trials, shares. What has no verdict,
or has the same one, is distinguished by lightness, line style and name.

Hues follow Okabe & Ito (2008), which stay apart for the common kinds of colour blindness, darkened or lightened until
text reaches a contrast of 4.5 and marks one of 3 against their ground. No meaning rests on a colour alone: each verdict
also has its own mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

INK, MUTED, FAINT, GROUND = "#1a2027", "#5a6470", "#cfd6dd", "#ffffff"
BLUE, ORANGE, OCHRE, PURPLE = "#00609c", "#b3430d", "#8f5f00", "#9b2c6f"
BETTER, WORSE, SHARE = "#7fb5dd", "#eda27a", "#b9c2cb"
"""Grounds that carry text: of what is better, worse, or only more."""

NEUTRALS = (INK, "#4a545f", "#8a94a0")
"""For lines without a verdict that share a figure, dark to light. Grey itself is the baseline's."""

SHADES: dict[str, tuple[str, str, str]] = {
    BLUE: ("#003a61", BLUE, "#4092cb"),
    ORANGE: ("#6e2605", ORANGE, "#d97038"),
    OCHRE: ("#573a00", OCHRE, "#b5852a"),
    PURPLE: ("#5e1342", PURPLE, "#c76aa3"),
    MUTED: NEUTRALS,
    INK: NEUTRALS,
}
"""Colour of a verdict → its shades from dark to light, for arms with the same verdict that share a figure."""

DARK_OF: dict[str, str] = {
    INK: "#e8ecf1",
    MUTED: "#9aa6b2",
    FAINT: "#39434e",
    GROUND: "#12171d",
    "#8a94a0": "#78848f",
    "#4a545f": "#b9c3cd",
    BLUE: "#63b3ed",
    "#4092cb": "#3d80b5",
    "#003a61": "#a8d8fa",
    ORANGE: "#f4935c",
    "#d97038": "#c0683a",
    "#6e2605": "#ffc5a3",
    OCHRE: "#e3b341",
    "#b5852a": "#b08a2c",
    "#573a00": "#f6dc9c",
    PURPLE: "#e48dc2",
    "#c76aa3": "#b0608f",
    "#5e1342": "#f7c3e2",
    BETTER: "#1f5f8f",
    WORSE: "#8f4420",
    SHARE: "#46525f",
}


@dataclass(frozen=True)
class Mark:
    """How a verdict is drawn. tone: its name in the style sheet. symbol: plotly's. colour: on light screens."""

    tone: str
    symbol: str
    colour: str
    sign: str


MARKS: dict[str, Mark] = {
    "helps": Mark("helps", "triangle-up", BLUE, "▲"),
    "hurts": Mark("hurts", "triangle-down", ORANGE, "▼"),
    "no practical effect": Mark("none", "square", MUTED, "■"),
    "inconclusive": Mark("open", "circle-open", OCHRE, "○"),
    "unstable": Mark("unstable", "x", PURPLE, "✕"),
    "not independent": Mark("void", "diamond-open", MUTED, "◇"),
    "no override": Mark("void", "diamond-open", MUTED, "◇"),
    "": Mark("void", "circle", INK, "●"),
}
BASELINE = Mark("baseline", "diamond", INK, "◆")


def mark(verdict: str | None) -> Mark:
    """Return the mark of a verdict, of no verdict (empty), or of the reference itself (None)."""
    return BASELINE if verdict is None else MARKS[verdict]


def fade(colour: str, opacity: float) -> str:
    """Return a colour of this palette, see-through. opacity in [0, 1]."""
    return f"{colour}{round(255 * opacity):02x}"


def lines(verdicts: Sequence[str | None]) -> list[str]:
    """Return the colours of arms that share a figure, at most three with the same verdict.

    An arm has the colour of its verdict; arms with the same colour get shades of it that are as far apart as can be.
    """
    shades = [SHADES[mark(verdict).colour] for verdict in verdicts]
    colours = []
    for i, own in enumerate(shades):
        alike, before = shades.count(own), shades[:i].count(own)
        if alike == 1:
            colours.append(own[0] if own is NEUTRALS else own[1])
        else:
            colours.append(own[2 * before] if alike == 2 else own[before])
    return colours
