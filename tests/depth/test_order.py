"""Depth by `auto`: the order is right, or refused; never guessed."""

import pytest

from nnlr._model.describe import describe
from nnlr.depth import auto
from nnlr.errors import NnlrError
from tests.depth.architectures import CERTAIN, OPEN


def wrong_in(model, order):
    """The statements of an order that the layers of a model contradict."""
    info = describe(model)
    layers = dict(zip((p.name for p in info.params), auto().layers(info), strict=True))
    return [text for text in _statements(order) if not _holds(text, layers)]


def _statements(order):
    for text in order.split(";"):
        words = text.split()
        for at in range(0, len(words) - 2, 2):
            yield " ".join(words[at : at + 3])


def _holds(text, layers):
    first, sign, second = text.split()
    a, b = (
        [layer for name, layer in layers.items() if name == part or name.startswith(f"{part}.")]
        for part in (first, second)
    )
    assert a, first
    assert b, second
    a, b = ([layer for layer in part if layer] for part in (a, b))
    if not a or not b:  # outside: nothing is said
        return True
    if sign != "|":
        lowest = min(layer.below for layer in a) - (sign == "<")
        return {layer.tower for layer in a} == {layer.tower for layer in b} and (
            lowest >= max(layer.below for layer in b)
        )
    if {layer.tower for layer in a}.isdisjoint(layer.tower for layer in b):
        return True
    return min(layer.below for layer in a) == min(layer.below for layer in b)


@pytest.mark.parametrize("build", CERTAIN, ids=lambda build: build.__name__)
def test_an_order_that_widths_and_containers_tell_is_read(build):
    """Every statement about the architecture holds."""
    assert [] == wrong_in(build(), build.__doc__)


@pytest.mark.parametrize("build", OPEN, ids=lambda build: build.__name__)
def test_an_order_that_is_not_certain_is_right_or_refused(build):
    """With the three ways out."""
    try:
        assert [] == wrong_in(build(), build.__doc__)
    except NnlrError as error:
        for way in ("indexer={", "INDEXERS", "nnlr.depth.flow("):
            assert way in str(error)
