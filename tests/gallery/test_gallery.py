"""Fifty group functions of public repositories, and the same in at most three lines."""

import inspect

import pytest

from docs import make_gallery
from tests.gallery.entries_of import NAMES, body, by_hand, entry, with_nnlr


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_the_rates_of_the_function(name):
    """The same rate, decay, algorithm and options, on two models; what is in no group is locked."""
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
    """Of at most 100 characters, without semicolons; both sides call nothing that is not shown."""
    module = entry(name)
    lines = body(module.with_nnlr)
    assert (True, True) == (len(lines) <= 3, max(map(len, lines)) <= 100)
    assert [line for line in lines if ";" in line] == []
    assert set(inspect.getclosurevars(module.with_nnlr).globals) == {"nnlr"}
    names = set(inspect.getclosurevars(module.by_hand).globals)
    assert names <= {"nn", "re", "model"}  # the last one as an attribute


def test_there_are_as_many_as_the_title_says():
    """Fifty functions, forty repositories, fifteen faults with the numbers of their threads."""
    modules = list(map(entry, NAMES))
    faults = [module for module in modules if hasattr(module, "THREAD")]
    true = [module for module in faults if not module.FAULT.startswith("A question")]
    repositories = {module.REPOSITORY for module in modules}
    assert (True, True, True) == (len(modules) >= 50, len(repositories) >= 40, len(true) >= 15)
    assert all(module.THREAD.partition("#")[2].isdigit() for module in faults)


@pytest.mark.parametrize("page", [*make_gallery.FAMILIES, "index"])
def test_the_pages_are_those_of_the_entries(page):
    """`python docs/make_gallery.py` would write the same, with the text on each fault."""
    text = make_gallery.text(page)
    assert make_gallery.read(page) == text
    assert "```text\n```" not in text
