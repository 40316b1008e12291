"""Mappings: the reference's numbers, and what happens at the edges."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlr.errors import ConfigError
from nnlr.schemes._measured.mappings import MAPPINGS
from nnlr.schemes._measured.named import named

# Exponents of four layers, and what the reference code of TempBalance and LLR makes of them.
ALPHAS = [2.4554312229156494, 1.7296063899993896, 1.566274642944336, 1.4856326580047607]
REFERENCE = {
    "linear(0.5, 1.5)": [1.5, 0.7515715539515639, 0.5831533349886789, 0.5],
    "linear(1, 5)": [5.0, 2.0062862158062558, 1.3326133399547158, 1.0],
    "sqrt": [1.171027609708884, 0.9828265687908374, 0.9352704354762006, 0.9108753860240774],
    "log2": [1.5685823779375923, 0.9567119721386929, 0.7835032547150697, 0.6912023952086455],
    "rank(0.5, 1.5)": [1.25, 1.0, 0.75, 0.5],
    "sigmoid(4)": [
        *(1.9976459523080008, 0.6068654888506769),
        *(0.14681216995846047, 0.06603928715899524),
    ],
}
ALL = [*REFERENCE, "linear(3, 0.5)", "max", "threshold(1)", "balance", "balance(0.5, 0.2, 5)"]
SCALE_FREE = [name for name in ALL if name not in {"log2", "threshold(1)"}]


def mapped(text, values):
    """What a mapping by name makes of some statistics."""
    return [*named(text, "mapping", MAPPINGS)(values)]


@pytest.mark.parametrize("text", REFERENCE)
def test_equals_the_reference(text):
    """The same multipliers as the published code, on exponents that it measured."""
    assert mapped(text, ALPHAS) == pytest.approx(REFERENCE[text], rel=1e-6)


@pytest.mark.no_cover
@pytest.mark.parametrize("text", ALL)
@settings(max_examples=8)
@given(values=st.lists(st.floats(1, 1e300), min_size=1, max_size=6))
def test_multipliers_are_finite_and_not_negative(text, values):
    """One for each statistic, whatever these are."""
    result = mapped(text, values)
    assert len(result) == len(values)
    assert all(math.isfinite(mult) and mult >= 0 for mult in result)


@pytest.mark.no_cover
@pytest.mark.parametrize("text", SCALE_FREE)
@settings(max_examples=8)
@given(values=st.lists(st.floats(0.125, 64), min_size=1, max_size=6), power=st.integers(-30, 30))
def test_the_unit_of_measurement_does_not_count(text, values, power):
    """Statistics times a constant give the same multipliers."""
    scaled = [x * 2.0**power for x in values]
    assert mapped(text, scaled) == pytest.approx(mapped(text, values), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("value", [1.0, 7.5])
def test_equal_statistics_change_nothing(value):
    """Where nothing tells units apart, each keeps its rate: 1, if 1 is in range."""
    for text in ALL:
        assert mapped(text, [value] * 3) == [1.0] * 3
    assert mapped("linear(2, 4)", [value]) == mapped("rank(4, 2)", [value]) == [3.0]


def test_zeros():
    """All statistics 0 are equal ones; a single 0 is the least, or has the largest share left."""
    for text in ("max", "sqrt", "balance", "sigmoid", "linear(0.5, 1.5)", "rank(0.5, 1.5)"):
        assert mapped(text, [0.0, 0.0]) == [1.0, 1.0]
    assert mapped("log2", [1.0, 1.0]) == [1.0, 1.0]
    assert mapped("max", [0.0, 2.0]) == [0.0, 1.0]
    assert mapped("balance(1, 0.1, 10)", [0.0, 2.0, 8.0]) == pytest.approx([10, 2, 0.5])


@pytest.mark.parametrize(
    ("text", "values", "match"),
    [
        ("log2", [0.5, 2.0], "'log2' is for statistics of at least 1, and one is 0.5"),
        ("sqrt", [-1.0, 2.0], "'sqrt' is for statistics of at least 0, and one is -1"),
        ("max", [-1.0, 2.0], "Use 'linear"),
        ("balance", [-1.0, 2.0], "'balance' is for"),
    ],
)
def test_statistics_that_a_mapping_cannot_take_are_refused(text, values, match):
    """A logarithm of less than 1 would be a negative rate."""
    with pytest.raises(ConfigError, match=match):
        mapped(text, values)
    assert mapped("rank(0.5, 1.5)", values) == [0.5, 1.0]  # the way out that it names


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("lineal(1, 2)", "There is no mapping 'lineal'. Nearest: 'linear'"),
        ("zzz", "There is no mapping 'zzz'. Known: 'linear', 'rank'"),
        ("linear(1)", r"missing a required argument: 's2'. It is linear\(s1, s2\)"),
        ("sigmoid(1, 2)", r"too many positional arguments. It is sigmoid\(k=4.0\)"),
        ("linear(-1, 2)", "s1 must be a finite number >= 0, got -1"),
        ("linear(x, 2)", "must be a name, with numbers in brackets"),
        ("2 + 2", "got '2 . 2'"),
        ("a.b(1)", "must be a name"),
        ("linear(", "must be a name"),
        ("balance(1, 3, 2)", "s1=3 is above s2=2"),
        (3, "got 3 .int."),
    ],
)
def test_what_is_no_mapping_is_refused(text, match):
    """With the nearest name, or the arguments that it takes."""
    with pytest.raises(ConfigError, match=match):
        named(text, "mapping", MAPPINGS)
