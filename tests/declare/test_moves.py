"""Moves as declared: functions of progress, and what is refused of them."""

import math
import operator

import pytest
from torch import nn

import nnlr


def half(t):
    """Half of what is left."""
    return (1 - t) / 2


def test_progress_is_a_number_that_knows_its_steps():
    """The part that is done, at most 1, and NaN where nobody said how long the run is."""
    now = nnlr.Progress(3, 4, epoch=1)
    assert (now, now.step, now.total_steps, now.epoch) == (0.75, 3, 4, 1)
    assert nnlr.Progress(9, 4) == 1
    assert math.isnan(nnlr.Progress(9))
    assert [repr(nnlr.Progress(9)), repr(now)] == ["step 9", "step 3 of 4"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (3, r"at must be a function such as lambda t: 1 - t, got 3 \(int\)"),
        (nnlr.Move, r"at needs a move, not its class. Make one: Move\(...\)"),
        (lambda: 1.0, r"at needs a function of progress, f\(t\), or .* of 0 arguments"),
        (lambda t, layer, more: 1.0, r"f\(t, layer\), got .* of 3 arguments"),
    ],
)
def test_functions_of_something_else_are_refused(function, message):
    """At the call that has them, by what they take."""
    with pytest.raises(nnlr.NnlrError, match=message):
        nnlr.rule("*").at(function)


def test_what_moves_is_the_rate_or_the_decay():
    """Nothing else can."""
    with pytest.raises(nnlr.NnlrError, match="setting must be one of 'lr', 'weight_decay'"):
        nnlr.rule("*").at(half, setting="eps")


def test_defaults_are_no_arguments_and_functions_of_c_have_one():
    """A function with settings, and one that tells nothing of its arguments."""
    for function in (lambda t, power=2: t**power, operator.attrgetter("step")):
        plan = nnlr.resolve(nn.PReLU(), nnlr.rule("*").at(function), lr=1, weight_decay=0)
        assert plan.groups[0].unit == "moving"


def test_layers_where_there_are_none_are_an_error_that_says_what_to_use():
    """A rule knows no layers; the way out works."""
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))

    def falling(t, layer):
        return 1 - t

    with pytest.raises(nnlr.NnlrError, match=r"knows no layers of Sequential.*layer_decay\(1\.0\)"):
        nnlr.resolve(net, nnlr.rule("*").at(falling), lr=1, weight_decay=0)
    plan = nnlr.resolve(net, nnlr.layer_decay(1.0).at(falling), lr=1, weight_decay=0)
    assert [group.unit for group in plan.groups] == ["layer0", "layer1"]


def test_a_scheme_that_moves_reads_as_it_is_written():
    """With the name of the function, and brackets around a product."""
    both = nnlr.no_weight_decay() * nnlr.rule("*")
    assert repr(both.at(half)) == "(no_weight_decay() * rule('*')).at(half)"
    assert repr(nnlr.rule("*").at(half, setting="weight_decay")) == (
        "rule('*').at(half, setting='weight_decay')"
    )
    assert repr(nnlr.rule("*").at(lambda t: 1)) == "rule('*').at(function)"


def test_a_move_without_multipliers_says_what_to_write():
    """A class that forgets the one method."""

    class Nothing(nnlr.Move):
        pass

    with pytest.raises(nnlr.NnlrError, match=r"Nothing does not define mults\(self, now, units\)"):
        Nothing().mults(nnlr.Progress(0), [])
