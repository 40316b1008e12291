"""Fifty group functions of public repositories, and the same in at most three lines."""

import inspect

import pytest

from docs import make_gallery
from tests.gallery.entries_of import NAMES, body, by_hand, entry, with_nnlr

FAULTY = [name for name in NAMES if hasattr(entry(name), "THREAD")]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_the_rates_of_the_function(name):
    """The same rate, decay, algorithm and options; what is in no group is locked."""
    module = entry(name)
    expected, settings = by_hand(module, module.model()), with_nnlr(module, module.model())
    assert expected.keys() == settings.keys()
    assert [] == [
        (name, hand, ours)
        for name, hand in expected.items()
        if (ours := settings[name])[2:] != hand[2:]
        or ours[:2] != pytest.approx(hand[:2], rel=1e-12, abs=0)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_takes_at_most_three_lines(name):
    """Of at most 100 characters, one statement each at most, of nnlr and the model alone."""
    function = entry(name).with_nnlr
    lines = body(function)
    assert (True, True) == (len(lines) <= 3, max(map(len, lines)) <= 100)
    assert [line for line in lines if ";" in line] == []
    assert set(inspect.getclosurevars(function).globals) == {"nnlr"}


@pytest.mark.parametrize("name", NAMES)
def test_the_function_by_hand_stands_on_the_page_as_a_whole(name):
    """It calls nothing that a page does not show."""
    names = set(inspect.getclosurevars(entry(name).by_hand).globals)
    assert names <= {"nn", "re", "model"}  # the last one as an attribute


@pytest.mark.parametrize("name", FAULTY)
def test_what_went_wrong_is_shown(name):
    """Nnlr's own text on the fault of the function stands on the page."""
    module = entry(name)
    text = module.shown()
    assert text.strip()
    assert module.THREAD.partition("#")[2].isdigit()
    assert make_gallery.fault(module) in make_gallery.read(module.FAMILY)


def test_there_are_at_least_as_many_as_promised():
    """Fifty functions, forty repositories, fifteen faults with the numbers of their threads."""
    repositories = {entry(name).REPOSITORY for name in NAMES}
    faults = [name for name in FAULTY if not entry(name).FAULT.startswith("A question")]
    assert (True, True, True) == (len(NAMES) >= 50, len(repositories) >= 40, len(faults) >= 15)


@pytest.mark.parametrize("page", [*make_gallery.FAMILIES, "index"])
def test_the_pages_are_those_of_the_entries(page):
    """`python docs/make_gallery.py` would write the same."""
    assert make_gallery.read(page) == make_gallery.text(page)
