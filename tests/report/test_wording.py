import pytest

from ablate.analysis import words
from ablate.report import wording


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.5, 2), (5.0, 1), (10.0, 0), (0.01, 3), (1e-9, 10), (1e-99, 30)]
)
def test_decimals_show_the_margin_to_two_digits(margin, expected):
    assert wording.decimals(margin) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.234, "+1.23"),
        (-1.234, "−1.23"),
        (0.0, "0.00"),
        (-0.001, "0.00"),
        (0.001, "0.00"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_a_difference_carries_its_sign_unless_it_is_zero(value, expected):
    assert wording.signed(value, 2) == expected


def test_an_interval_names_both_ends():
    assert wording.span(-0.2, 0.51, 1) == "−0.2 to +0.5"
    assert wording.span(None, 0.5, 1) == "–"


@pytest.mark.parametrize(
    ("lo", "hi", "expected"),
    [
        (0.0003, 15.06, "+0.0003 to +15.1"),
        (-15.06, -0.0003, "−15.1 to −0.0003"),
        (-0.04, 0.51, "−0.04 to +0.5"),
        (0.0, 0.51, "0.0 to +0.5"),
        (1e-15, 0.51, "0.0 to +0.5"),
        (0.0, 0.0, "0.0 to 0.0"),
    ],
)
def test_an_interval_is_written_as_touching_zero_only_where_it_does(lo, hi, expected):
    assert wording.span(lo, hi, 1) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.04940, "0.049"),
        (0.04951, "< 0.05"),
        (0.049999, "< 0.05"),
        (0.05, "0.050"),
        (0.0004, "< 0.001"),
        (0.2, "0.20"),
    ],
)
def test_an_adjusted_p_below_five_percent_is_written_so(p, expected):
    assert wording.p_value(p) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.5, "0.5"), (10.0, "10"), (0.25, "0.25")])
def test_a_declared_number_keeps_its_own_digits(value, expected):
    assert wording.trimmed(value, wording.decimals(value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0712, "0.071×"), (1.0, "1.00×"), (2.64, "2.6×"), (15.4, "15.4×"), (1234.0, "1,234×")],
)
def test_ratios_keep_the_digits_that_tell_something(value, expected):
    assert wording.ratio(value) == expected


def test_a_ratio_of_one_is_said_in_words():
    assert wording.share(1.001, "compute") == "the same compute"
    assert wording.share(2.0, "compute") == "2.0× the compute"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "none"),
        (True, "true"),
        (64, "64"),
        (1e-5, "1e-05"),
        ("adam", "adam"),
        ({"name": "adam", "lr": 0.1}, "adam (lr=0.1)"),
        ({"model.width": 32, "optimizer.lr": 0.1}, "width=32, lr=0.1"),
        ([1, 2], "1, 2"),
    ],
)
def test_every_kind_of_level_has_a_short_form(value, expected):
    assert wording.level(value) == expected


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([4], "seed 4"), ([9, 5, 6, 7, 8], "seeds 5 to 9"), ([0, 1, 5, 6, 7], "seeds 0, 1 and 5 to 7")],
)
def test_neighbouring_seeds_are_drawn_together(numbers, expected):
    assert wording.seeds(numbers) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.0 s"),
        (0.0123, "0.012 s"),
        (0.83, "0.8 s"),
        (40.0, "40 s"),
        (754.0, "13 min"),
        (12_600.0, "3.5 h"),
    ],
)
def test_durations_are_said_in_fitting_units(value, expected):
    assert wording.duration(value) == expected


ALIKE = (
    0,
    "0",
    1,
    "1",
    0.1,
    "0.1",
    0.1000001,
    0.10000012,
    False,
    "false",
    "off",
    True,
    "true",
    "on",
    None,
    "null",
    "none",
    "",
)


def test_a_level_is_never_written_as_another_nor_set_into_a_sentence_as_one():
    for written in (wording.level, lambda value: words.setting("model.dropout", value)):
        assert len({written(value) for value in ALIKE}) == len(ALIKE)
    for plain in ("adam", "relu 6", "v1.2", "no", "3x3"):
        assert (wording.level(plain), words.setting("name", plain)) == (plain, f"name {plain}")


@pytest.mark.parametrize("alike", [["a b", "a b ", " a b", "a  b", "a\u00a0b", "a\tb"], ["", " "]])
def test_texts_that_differ_in_spaces_alone_read_differently_in_sentences(alike):
    said = [" ".join(words.setting("prompt", text).split()) for text in alike]
    assert len(set(said)) == len(alike)
