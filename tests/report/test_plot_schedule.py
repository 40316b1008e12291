"""plan.plot_schedule: the rates over time as lines and as a map."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from tests.report.test_plot_plan import LAYERED, chain, drawn, legend, lines, plan_of

HALVED = partial(lrs.ExponentialLR, gamma=0.5)


def maps(figure):
    """The rows of each map, and what stands above it."""
    return {
        axes.get_title("left"): axes.images[0].get_array().tolist()
        for axes in figure.axes
        if axes.images
    }


def curves(figure):
    """The axes of the lines over time."""
    return [axes for axes in figure.axes if axes.lines and "step" in drawstyles(axes)]


def drawstyles(axes):
    """How lines go from point to point."""
    return "".join(line.get_drawstyle() for line in axes.lines)


class TestLines:
    def test_a_line_for_each_course_and_a_row_for_each_layer(self):
        """The rates are those of the schedule; the input is at the bottom."""
        figure = plan_of(LAYERED).plot_schedule(HALVED, 3)
        (axes,) = curves(figure)
        steps = [0, 1, 2]
        expected = [[0.1 * 2.0**-k * share for k in steps] for share in (0.125, 0.25, 0.5, 1)]
        assert [[steps, rates] for rates in expected] == lines(axes)
        assert {"": [pytest.approx(rates) for rates in expected]} == maps(figure)
        assert ["layer 3", "layer 2", "layer 1", "layer 0"] == legend(figure)
        assert "Sequential: ExponentialLR over 3 steps" == figure.get_suptitle()
        assert ("step", "learning rate (log scale)") == (axes.get_xlabel(), axes.get_ylabel())
        assert drawn(figure)

    def test_a_scheduler_that_is_built(self):
        """Its own rates, of torch or of ours, from where it stands."""
        net = chain()
        plan = plan_of(LAYERED, net)
        optimizer = plan.optimizer(torch.optim.SGD)
        scheduler = nnlr.schedule(optimizer, HALVED)
        optimizer.step()
        scheduler.step()
        (axes,) = curves(plan.plot_schedule(scheduler, 2, width=3.4))
        assert [[1, 2], [0.05, 0.025]] == lines(axes)[-1]

    def test_alike_rates_have_a_linear_scale(self):
        """The course looks as it is; one line needs no name."""
        figure = plan_of(nnlr.rule("*")).plot_schedule(HALVED, 3)
        (axes,) = curves(figure)
        assert ("linear", "learning rate") == (axes.get_yscale(), axes.get_ylabel())
        assert [] == legend(figure)

    def test_of_many_courses_some_are_named(self):
        """The fastest, the slowest, and some between."""
        figure = plan_of(LAYERED, chain(11)).plot_schedule(HALVED, 3)
        assert [f"layer {k}" for k in (10, 8, 6, 4, 2, 0)] == legend(figure)

    def test_neighbours_are_named_together(self):
        """Two layers have the rate of the last."""
        scheme = LAYERED * nnlr.rule("[0-1].*", lr_mult=0.125) * nnlr.rule("2.*", lr_mult=2)
        assert "layers 2\N{EN DASH}3" in legend(plan_of(scheme).plot_schedule(HALVED, 3))

    def test_a_scheduled_decay(self):
        """In a panel of its own."""
        figure = plan_of(LAYERED).plot_schedule(HALVED, 3, weight_decay=HALVED)
        _, decays = curves(figure)
        assert [[[0, 1, 2], [0.2, 0.1, 0.05]]] == lines(decays)

    def test_a_rate_of_0_is_not_on_a_logarithmic_scale(self):
        """The line begins where the warm-up has begun."""
        warm = partial(lrs.LambdaLR, lr_lambda=lambda step: step / 2)
        (axes,) = curves(plan_of(LAYERED).plot_schedule(warm, 3))
        assert all(rates[0] != rates[0] for _, rates in lines(axes))  # NaN

    def test_one_step(self):
        """A dot."""
        figure = plan_of(LAYERED).plot_schedule(HALVED, 1)
        axes = next(axes for axes in figure.axes if axes.lines)
        assert [[0], [0.1]] == lines(axes)[-1]
        assert "o" == axes.lines[0].get_marker()
        assert "over 1 step" in figure.get_suptitle()


class TestMaps:
    def test_kinds_and_towers_have_maps_of_their_own(self):
        """Cut to the layers that they are in."""
        net = nn.ModuleDict({"text": chain(2), "image": chain(3)})
        scheme = LAYERED.within("text") * LAYERED.within("image")
        scheme *= nnlr.rule("image.1.bias", lr_mult=3) * nnlr.rule("image.0.bias", lr_mult=3)
        figure = plan_of(scheme, net).plot_schedule(HALVED, 2, width=3.4)
        rows = {name: len(map_) for name, map_ in maps(figure).items()}
        assert {"text, matrix": 2, "image, matrix": 3, "image, bias": 3, "text, bias": 2} == rows

    def test_locked_layers_are_grey(self):
        """They have no rate; a line below says so. What is locked as a whole has no map."""
        scheme = LAYERED * nnlr.rule("[02].*", lr_mult=0) * nnlr.rule("*.bias", lr_mult=0)
        figure = plan_of(scheme).plot_schedule(HALVED, 2)
        (rows,) = maps(figure).values()
        assert [None, None] == [rows[0][0], rows[2][0]]
        assert "6 parameters are locked (grey)." == figure.get_supxlabel()

    def test_modules_have_their_names(self):
        """The input is at the top."""
        net = nn.ModuleDict({"backbone": chain(), "head": nn.Linear(2, 2)})
        figure = plan_of(nnlr.rule("head.*", lr_mult=10), net).plot_schedule(HALVED, 2)
        (axes,) = (axes for axes in figure.axes if axes.images)
        assert ["backbone", "head"] == [text.get_text() for text in axes.get_yticklabels()]
        assert ["head", "backbone"] == legend(figure)
        assert axes.yaxis_inverted()

    def test_no_more_than_eight(self):
        """The others are named."""
        names = [f"tower{k}" for k in range(10)]
        net = nn.ModuleDict({name: chain(2) for name in names})
        scheme = nnlr.layer_decay(0.5).within(names[0])
        for name in names[1:]:
            scheme *= nnlr.layer_decay(0.5).within(name)
        figure = plan_of(scheme, net).plot_schedule(HALVED, 2)
        assert 8 == len(maps(figure))
        assert "Not in the map: tower8, tower9." == figure.get_supxlabel()

    def test_a_place_where_a_kind_is_not_is_white(self):
        """A bias in the first and the last layer."""
        net = chain(3)
        net[1].bias = None
        scheme = LAYERED * nnlr.rule("*.bias", lr_mult=3)
        bias = maps(plan_of(scheme, net).plot_schedule(HALVED, 2))["bias"]
        assert ([None, None], 3) == (bias[1], len(bias))

    def test_a_long_label_is_cut(self):
        """The beginning says the algorithm."""
        net = nn.ModuleList(nn.TransformerEncoderLayer(2, 1, 2) for _ in range(2))
        scheme = LAYERED * nnlr.rule("*.self_attn.*", lr_mult=2)
        names = maps(plan_of(scheme, net).plot_schedule(HALVED, 2))
        assert all(len(name) <= 32 for name in names)
        assert any(name.endswith("…") for name in names)


class TestRemarks:
    def test_a_metric(self):
        """What was assumed."""
        plateau = partial(lrs.ReduceLROnPlateau, patience=1)
        figure = plan_of(LAYERED).plot_schedule(plateau, 5)
        assert "It follows a metric: here one that never improves." == figure.get_supxlabel()

    def test_an_early_end(self):
        """Why there is no more."""
        figure = plan_of(LAYERED).plot_schedule(lrs.OneCycleLR, 9, max_lr=0.1, total_steps=4)
        assert "It ends after step 4: ValueError: Tried to step 5" in figure.get_supxlabel()

    def test_a_scheduler_of_other_groups(self):
        """What to pass instead."""
        net = chain()
        other = plan_of(nnlr.layer_decay(0.9), net).optimizer(torch.optim.SGD)
        with pytest.raises(nnlr.ConfigError, match=r"has the groups .* and not 'lr0\.5_wd1'"):
            plan_of(LAYERED, net).plot_schedule(HALVED(other), 3)
