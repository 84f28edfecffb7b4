"""Colours, and what they stand for. Every colour has a twin for dark screens; a figure uses none that is not here.

Hues follow Okabe & Ito (2008), which stay apart for the common kinds of colour blindness, darkened or lightened until
text reaches a contrast of 4.5 and marks one of 3 against their ground. No meaning rests on a colour alone: each verdict
also has its own mark.
"""

from __future__ import annotations

from dataclasses import dataclass

INK, MUTED, FAINT, GROUND = "#1a2027", "#5a6470", "#cfd6dd", "#ffffff"

DARK_OF: dict[str, str] = {
    INK: "#e8ecf1",
    MUTED: "#9aa6b2",
    FAINT: "#39434e",
    GROUND: "#12171d",
    "#00609c": "#63b3ed",  # blue
    "#b3430d": "#f4935c",  # vermillion
    "#8f5f00": "#e3b341",  # ochre
    "#9b2c6f": "#e48dc2",  # purple
    "#007a5a": "#4cc9a0",  # green
    # Grounds that carry text.
    "#7fb5dd": "#1f5f8f",
    "#eda27a": "#8f4420",
}

BLUE, VERMILLION, OCHRE, PURPLE, GREEN = "#00609c", "#b3430d", "#8f5f00", "#9b2c6f", "#007a5a"
MORE, LESS = "#7fb5dd", "#eda27a"
SERIES = (BLUE, VERMILLION, GREEN)
"""For curves that share a figure, the reference aside."""


@dataclass(frozen=True)
class Mark:
    """How a verdict is drawn. tone: its name in the style sheet. symbol: plotly's. colour: in light."""

    tone: str
    symbol: str
    colour: str
    sign: str


MARKS: dict[str, Mark] = {
    "helps": Mark("helps", "triangle-up", BLUE, "▲"),
    "hurts": Mark("hurts", "triangle-down", VERMILLION, "▼"),
    "no practical effect": Mark("none", "square", MUTED, "■"),
    "inconclusive": Mark("open", "circle-open", OCHRE, "○"),
    "unstable": Mark("unstable", "x", PURPLE, "✕"),
    "not independent": Mark("void", "diamond-open", MUTED, "◇"),
    "no override": Mark("void", "diamond-open", MUTED, "◇"),
    "": Mark("void", "circle", INK, "●"),
}
BASELINE = Mark("baseline", "diamond", INK, "◆")


def mark(verdict: str | None) -> Mark:
    """The mark of a verdict, of no verdict (empty), or of the reference itself (None)."""
    return BASELINE if verdict is None else MARKS[verdict]


def fade(colour: str, opacity: float) -> str:
    """A colour of this palette, see-through. opacity in [0, 1]."""
    return f"{colour}{round(255 * opacity):02x}"
