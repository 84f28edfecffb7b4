"""Two-level fractions: 2^(k−p) of the 2^k combinations of k factors, chosen so that effects that matter stay apart.

A factor is a column: a vector over {0, 1} with an entry per basic factor, written as the bits of an integer. In cell u it
stands at its level where an odd number of the bits of `column & u` are set, else at the baseline's; so the baseline
itself is always a cell. Columns that add up to nothing make a word of the defining relation, the length of the shortest
word is the resolution (Box & Hunter 1961), and among fractions of equal resolution the one with the fewest short words
has minimum aberration (Fries & Hunter 1980, doi 10.1080/00401706.1980.10486210).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_CELLS = 128
MOST_FACTORS = 31

KEPT = 60
"""Designs carried from one number of factors to the next. Up to 16 cells these are all designs there are."""

LONGEST_WORD = 8
"""Words beyond this length no longer break ties."""

ROMAN = {3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII", 8: "VIII"}


@dataclass(frozen=True)
class Fraction:
    """factors: names. columns: of each factor. cells: how many combinations are run, a power of two."""

    factors: tuple[str, ...]
    columns: tuple[int, ...]
    cells: int

    @property
    def generators(self) -> dict[str, tuple[str, ...]]:
        """Factor → the basic factors whose interaction it takes the place of."""
        basic = {column: f for f, column in zip(self.factors, self.columns, strict=True) if _single(column)}
        return {
            f: tuple(name for bit, name in basic.items() if bit & column)
            for f, column in zip(self.factors, self.columns, strict=True)
            if not _single(column)
        }

    @property
    def resolution(self) -> int:
        """Length of the shortest word: 3 mixes main effects with two-way interactions, 4 those with each other."""
        words = word_lengths(self.columns, self.cells, longest=len(self.columns))
        return next((length for length, count in enumerate(words, start=3) if count), len(self.columns) + 1)

    @property
    def words(self) -> str:
        """The fraction as textbooks write it: `2^(10−6), resolution III`."""
        k, m = len(self.factors), self.cells.bit_length() - 1
        return f"2^({k}−{k - m}), resolution {roman(self.resolution)}"

    def plain(self) -> dict[str, Any]:
        """Return the fraction as plain values, for the record."""
        return dataclasses.asdict(self) | {"words": self.words}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Fraction:
        """Read what `plain` returned."""
        return cls(tuple(plain["factors"]), tuple(plain["columns"]), plain["cells"])

    def changed(self, cell: int) -> tuple[bool, ...]:
        """Return for each factor whether it stands at its own level in this cell; in cell 0 none does."""
        return tuple((column & cell).bit_count() % 2 == 1 for column in self.columns)


def chosen(factors: Sequence[str], cells: int) -> Fraction:
    """Return the fraction of highest resolution, then least aberration. cells: a power of two, len(factors) < cells < 2^k."""
    return Fraction(tuple(factors), _columns(len(factors), cells.bit_length() - 1), cells)


def generated(factors: Sequence[str], generators: Mapping[str, Sequence[str]]) -> Fraction:
    """Return the fraction in which each generated factor takes the place of an interaction of basic ones."""
    basic = [f for f in factors if f not in generators]
    bit = {f: 1 << i for i, f in enumerate(basic)}
    columns = tuple(bit[f] if f in bit else sum(bit[b] for b in generators[f]) for f in factors)
    return Fraction(tuple(factors), columns, 1 << len(basic))


def possible(factors: int) -> dict[int, int]:
    """Return number of cells → the highest resolution that a fraction of so many cells has."""
    names = [str(i) for i in range(factors)]
    sizes = (1 << m for m in range(2, min(factors, MOST_CELLS.bit_length())))
    return {cells: chosen(names, cells).resolution for cells in sizes if factors < cells <= MOST_CELLS}


def roman(resolution: int) -> str:
    return ROMAN.get(resolution, str(resolution))


def word_lengths(columns: Sequence[int], cells: int, longest: int = LONGEST_WORD) -> tuple[int, ...]:
    """Return how many words of length 3, 4, …, `longest` the defining relation has."""
    weights = _parities(cells)[list(columns)].sum(axis=0)
    return tuple(int(n) for n in _patterns(weights[None, :], len(columns), longest)[0])


@functools.cache
def _columns(factors: int, basic: int) -> tuple[int, ...]:
    """Return the columns of the best fraction: extend designs factor by factor, and drop those that seem equivalent to one
    that is kept (Chen, Sun & Wu 1993).

    Equivalent: equal weights of all cells, overall and of the cells in which each column is changed. Designs that differ only
    by the names of their factors always are.
    """
    cells = 1 << basic
    parities = _parities(cells)
    kept: list[tuple[int, ...]] = [tuple(1 << i for i in range(basic))]
    for size in range(basic + 1, factors + 1):
        best: dict[bytes, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        grown = [(*design, c) for design in kept for c in range(1, cells) if c not in design]
        weights = np.stack([parities[list(design)].sum(axis=0) for design in grown])
        patterns = _patterns(weights, size, LONGEST_WORD)
        order = np.lexsort(patterns.T[::-1])
        for i in order:
            design, pattern = grown[i], tuple(int(n) for n in patterns[i])
            best.setdefault(_signature(design, weights[i], parities), (pattern, design))
            if len(best) == KEPT:
                break
        kept = [design for _, design in sorted(best.values(), key=lambda entry: entry[0])]
    return kept[0]


def _signature(
    design: tuple[int, ...], weights: npt.NDArray[np.int64], parities: npt.NDArray[np.int64]
) -> bytes:
    """Return what equivalent designs have in common."""
    counts = [np.bincount(weights[parities[c] == 1], minlength=len(design) + 1) for c in design]
    return np.array(sorted(map(tuple, counts)), dtype=np.int64).tobytes()


@functools.cache
def _parities(cells: int) -> npt.NDArray[np.int64]:
    """Return (columns, cells): 1 where the factor of that column is changed in that cell."""
    return np.array([[(c & u).bit_count() % 2 for u in range(cells)] for c in range(cells)], dtype=np.int64)


def _patterns(weights: npt.NDArray[np.int64], factors: int, longest: int) -> npt.NDArray[np.float64]:
    """Return the numbers of words by length from 3 on, of many designs. weights: (designs, cells), factors changed in each cell.

    The words are the code that is dual to the cells, so MacWilliams' identity counts them without listing them.
    """
    table = np.array(
        [[_krawtchouk(j, w, factors) for j in range(3, longest + 1)] for w in range(factors + 1)], dtype=float
    )
    counts: npt.NDArray[np.float64] = np.rint(table[weights].sum(axis=1) / weights.shape[1])
    return counts


@functools.cache
def _krawtchouk(j: int, w: int, n: int) -> int:
    return sum((-1) ** i * math.comb(w, i) * math.comb(n - w, j - i) for i in range(min(j, w) + 1))


def _single(column: int) -> bool:
    return column.bit_count() == 1
