"""Fifty group functions of public repositories, and the same in at most three lines."""

import pytest
import torch

from docs import make_gallery
from tests.gallery.entries_of import NAMES, body, by_hand, entry, with_nnlr

FAULTY = [name for name in NAMES if hasattr(entry(name), "THREAD")]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_the_rates_of_the_function(name):
    """The same rate, decay, algorithm and options; what is in no group is locked."""
    module = entry(name)
    torch.manual_seed(0)
    net = module.model()
    expected, settings = by_hand(module, net), with_nnlr(module, net)
    assert expected.keys() == settings.keys()
    assert [] == [
        (name, hand, ours)
        for name, hand in expected.items()
        if (ours := settings[name])[2:] != hand[2:]
        or ours[:2] != pytest.approx(hand[:2], rel=1e-12, abs=0)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_takes_at_most_three_lines(name):
    """Of at most 100 characters, imports apart."""
    lines = body(entry(name).with_nnlr)
    assert (True, True) == (len(lines) <= 3, max(map(len, lines)) <= 100)


@pytest.mark.parametrize("name", FAULTY)
def test_what_went_wrong_is_shown(name):
    """Nnlr's own text on the fault of the function stands on the page."""
    module = entry(name)
    text = module.shown()
    assert text.strip()
    assert module.THREAD.partition("#")[2].isdigit()
    assert make_gallery.fault(module) in make_gallery.read(module.FAMILY)


@pytest.mark.parametrize("page", [*make_gallery.FAMILIES, "index"])
def test_the_pages_are_those_of_the_entries(page):
    """`python docs/make_gallery.py` would write the same."""
    assert make_gallery.read(page) == make_gallery.text(page)
