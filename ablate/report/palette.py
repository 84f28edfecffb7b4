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
    "#2b7bb0": "#8cc7f0",  # sky
    # Steps of one ramp, for levels that have an order.
    "#3b1f6b": "#b8a1ec",
    "#2f4b9c": "#8fb0f5",
    "#1f7a9c": "#6cc7dd",
    "#1d8a6c": "#63d2a4",
    "#5c8a1e": "#abd35f",
    "#9c7a00": "#e8cb4f",
}

BLUE, VERMILLION, OCHRE, PURPLE, GREEN, SKY = "#00609c", "#b3430d", "#8f5f00", "#9b2c6f", "#007a5a", "#2b7bb0"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, OCHRE, SKY)
"""For arms without an order."""
RAMP = ("#3b1f6b", "#2f4b9c", "#1f7a9c", "#1d8a6c", "#5c8a1e", "#9c7a00")
"""For arms whose levels have an order, from low to high."""


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
}
BASELINE = Mark("baseline", "diamond", INK, "◆")


def mark(verdict: str | None) -> Mark:
    """The mark of a verdict; of the baseline where there is none."""
    return MARKS.get(verdict or "", BASELINE)


def fade(colour: str, opacity: float) -> str:
    """A colour of this palette, see-through. opacity in [0, 1]."""
    return f"{colour}{round(255 * opacity):02x}"


def ordered(n: int) -> tuple[str, ...]:
    """n colours along the ramp, as far apart as it allows; they repeat beyond its length."""
    if n <= 1:
        return RAMP[2:3] * n
    last = len(RAMP) - 1
    return tuple(RAMP[round(i * last / (n - 1))] for i in range(n)) if n <= len(RAMP) else tuple(RAMP[i % len(RAMP)] for i in range(n))


def unordered(n: int) -> tuple[str, ...]:
    return tuple(SERIES[i % len(SERIES)] for i in range(n))
