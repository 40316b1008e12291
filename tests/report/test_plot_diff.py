"""PlanDiff.plot: the old and the new rate of every layer."""

import pytest
from torch import nn

import nnlr
from tests.report.test_plot_plan import LAYERED, chain, drawn, legend, lines, panels, plan_of, ticks


def test_rates_that_differ():
    """Where each was and where each is; what is equal is not drawn."""
    figure = plan_of(nnlr.rule("*")).diff(plan_of(LAYERED)).plot()
    (axes,) = panels(figure)
    ends = [(x, y) for (x,), (y,) in lines(axes)]
    assert {(0, 0.1), (0, 0.0125), (1, 0.1), (1, 0.025), (2, 0.1), (2, 0.05)} == set(ends)
    assert ["old", "lower"] == legend(figure)
    assert "6 parameters changed" == figure.get_suptitle()
    assert "2 parameters are the same in both." == figure.get_supxlabel()
    assert drawn(figure)


def test_locked_and_faster_layers_and_decays():
    """A panel of decays; what is locked now goes down to the strip."""
    net = chain()
    old = plan_of(LAYERED * nnlr.no_weight_decay(), net)
    new = plan_of(LAYERED * nnlr.rule("0.*", lr_mult=0) * nnlr.rule("3.*", lr_mult=2), net)
    figure = old.diff(new).plot(width=3.4)
    rates, decays = panels(figure)
    assert [[0.0], [ticks(rates)["locked"]]] in lines(rates)
    assert [[3.0], [0.2]] in lines(rates)
    assert {((0.0,), (0.0,)), ((0.0,), (0.2,))} <= {(tuple(x), tuple(y)) for x, y in lines(decays)}
    assert ["old", "higher", "lower"] == legend(figure)


def test_modules_where_there_is_no_depth():
    """A row for each; rates and decays beside each other."""
    net = nn.ModuleDict({"backbone": chain(), "head": nn.Linear(2, 2)})
    old = plan_of(nnlr.rule("*"), net)
    new = plan_of(nnlr.rule("head.*", lr_mult=10) * nnlr.rule("backbone.*", lr_mult=0), net)
    for width, words in ((7, "learning rate (log scale)"), (3.4, "learning rate\n(log scale)")):
        (rates,) = panels(old.diff(new).plot(width=width))
        assert ["backbone", "head"] == list(ticks(rates))
        assert words == rates.get_xlabel()
        assert [[1.0], [1.0]] in lines(rates)


def test_rows_that_one_plan_lacks():
    """They have one end."""
    figure = plan_of(LAYERED, chain(3)).diff(plan_of(LAYERED, chain(2))).plot()
    assert {"removed", "higher", "old"} == set(legend(figure))
    back = plan_of(LAYERED, chain(2)).diff(plan_of(LAYERED, chain(3))).plot()
    assert "4 parameters changed, 2 added" == back.get_suptitle()
    assert {"added", "lower", "old"} == set(legend(back))


def test_towers():
    """A panel for each, as many as there is room for."""
    net = nn.ModuleDict({f"tower{k}": chain(2) for k in range(3)})
    scheme = LAYERED.within("tower0") * LAYERED.within("tower1") * LAYERED.within("tower2")
    difference = plan_of(scheme, net).diff(plan_of(scheme, net, lr=0.3))
    titles = [axes.get_title("left") for axes in panels(difference.plot())]
    assert ["tower0", "tower1", "tower2"] == titles
    narrow = difference.plot(width=3.4)
    assert ["tower0", "tower1"] == [axes.get_title("left") for axes in panels(narrow)]
    assert "Not drawn: tower2." == narrow.get_supxlabel()


def test_no_difference():
    """A figure all the same, so that a script needs no case for it."""
    plan = plan_of(LAYERED)
    assert "no difference" == plan.diff(plan).plot().get_suptitle()
    options = plan_of(LAYERED * nnlr.rule("*", options={"betas": (0.9, 0.95)}))
    figure = plan.diff(options).plot()
    assert "8 parameters changed" == figure.get_suptitle()
    assert "No rate and no weight decay differs." == figure.get_supxlabel()


def test_no_width():
    """In inches."""
    plan = plan_of(LAYERED)
    with pytest.raises(nnlr.NnlrError, match="width must be a finite number"):
        plan.diff(plan).plot(width="wide")
