"""Fractions of all combinations, against published ones."""

import itertools

import pytest

from ablate.study import fraction

NAMES = "ABCDEFGHIJKLMNO"

# Numbers of words of length 3, 4 and 5 of the minimum-aberration designs: Wu & Hamada, Experiments, 2nd ed., appendix 5A.
PUBLISHED = {
    (4, 8): (0, 1, 0),
    (5, 8): (2, 1, 0),
    (7, 8): (7, 7, 0),
    (5, 16): (0, 0, 1),
    (6, 16): (0, 3, 0),
    (7, 16): (0, 7, 0),
    (8, 16): (0, 14, 0),
    (9, 16): (4, 14, 8),
    (10, 16): (8, 18, 16),
    (15, 16): (35, 105, 168),
    (7, 32): (0, 1, 2),
    (8, 32): (0, 3, 4),
    (9, 32): (0, 6, 8),
    (10, 32): (0, 10, 16),
    (8, 64): (0, 0, 2),
    (9, 64): (0, 1, 4),
}


@pytest.mark.parametrize(("factors", "cells"), PUBLISHED, ids=str)
def test_a_chosen_fraction_has_as_few_short_words_as_the_published_one(factors, cells):
    found = fraction.chosen(NAMES[:factors], cells)
    assert fraction.word_lengths(found.columns, cells, longest=5) == PUBLISHED[factors, cells]
    assert found.resolution == next((i for i, n in enumerate(PUBLISHED[factors, cells], 3) if n), factors + 1)


def test_words_are_counted_as_listing_them_counts_them():
    found = fraction.chosen(NAMES[:9], 32)
    listed = [0] * 7
    for size in range(3, 10):
        for word in itertools.combinations(found.columns, size):
            total = 0
            for column in word:
                total ^= column
            listed[size - 3] += total == 0
    assert fraction.word_lengths(found.columns, 32, longest=9) == tuple(listed)


@pytest.mark.parametrize(("factors", "cells"), [(5, 8), (10, 16), (9, 64)])
def test_every_factor_is_changed_in_half_of_the_cells_and_every_two_together_in_a_quarter(factors, cells):
    found = fraction.chosen(NAMES[:factors], cells)
    rows = [found.changed(cell) for cell in range(cells)]
    assert len(set(rows)) == cells
    assert not any(rows[0]), "the baseline is a cell"
    for f, g in itertools.combinations(range(factors), 2):
        assert sum(row[f] for row in rows) == cells // 2
        assert sum(row[f] and row[g] for row in rows) == cells // 4


def test_named_generators_are_taken():
    found = fraction.generated("ABCDE", {"D": ("A", "B"), "E": ("B", "C")})
    assert (found.cells, found.resolution) == (8, 3)
    assert found.generators == {"D": ("A", "B"), "E": ("B", "C")}
    for cell in range(8):
        a, b, c, d, e = found.changed(cell)
        assert (d, e) == (a != b, b != c)


def test_a_chosen_fraction_says_its_generators_and_they_make_it_again():
    found = fraction.chosen(NAMES[:10], 16)
    assert found.words == "2^(10−6), resolution III"
    again = fraction.generated(NAMES[:10], found.generators)
    assert [again.changed(u) for u in range(16)] == [found.changed(u) for u in range(16)]


def test_possible_sizes_are_told_with_their_resolution():
    assert fraction.possible(5) == {8: 3, 16: 5}
    assert fraction.possible(10) == {16: 3, 32: 4, 64: 4, 128: 5}
