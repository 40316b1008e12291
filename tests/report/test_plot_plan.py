"""plan.plot: the rate of every layer as a picture."""

import io
import pickle
import sys

import pytest
from torch import nn

import nnlr
from nnlr.report._plot_series import SERIES, layout_of, series_of
from nnlr.report._plot_style import Scale, marks, new_figure, short_name, styled

LAYERED = nnlr.layer_decay(0.5)


def chain(count=4):
    """Linear layers in a row."""
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(count)))


def plan_of(scheme, net=None, **rates):
    """A plan of a chain, or of another network."""
    return nnlr.resolve(net or chain(), scheme, **{"lr": 0.1, "weight_decay": 0.2} | rates)


def lines(axes):
    """What is drawn, each as x and y, without empty lines."""
    drawn = [[*map(list, line.get_data())] for line in axes.lines]
    return [[list(map(float, xs)), list(map(float, ys))] for xs, ys in drawn if xs]


def legend(figure):
    """The words of all legends."""
    boxes = [axes.get_legend() for axes in figure.axes]
    return [text.get_text() for box in boxes if box for text in box.get_texts()]


def panels(figure):
    """The axes on which something is drawn."""
    return [axes for axes in figure.axes if axes.lines]


def ticks(axes, which="y"):
    """The words at an axis, with their places."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    texts = [text.get_text() for text in axis.get_ticklabels()]
    return dict(zip(texts, map(float, axis.get_ticklocs()), strict=True))


class TestLayers:
    def test_the_rate_of_every_layer(self):
        """One line where all parameters of a layer have one rate, on a logarithmic scale."""
        figure = plan_of(LAYERED).plot()
        (axes,) = panels(figure)
        line = [[0, 1, 2, 3], [0.0125, 0.025, 0.05, 0.1]]
        assert [line, line] == lines(axes)  # joined, and its dots
        assert ("learning rate (log scale)", "log") == (axes.get_ylabel(), axes.get_yscale())
        assert "layer, from the input on" == axes.get_xlabel()
        assert "Sequential: 8 parameters, 4 groups" == figure.get_suptitle()
        assert [] == legend(figure)

    def test_decays_that_differ_have_a_panel(self):
        """On a linear scale, where 0 is at its place; the legend says what is what."""
        figure = plan_of(LAYERED * nnlr.no_weight_decay()).plot()
        _, decays = panels(figure)
        assert ["matrix, head", "bias"] == legend(figure)
        assert [[0, 1, 2, 3], [0.2] * 4] in lines(decays)
        assert [[0, 1, 2, 3], [0.0] * 4] in lines(decays)
        assert ("weight decay", "linear") == (decays.get_ylabel(), decays.get_yscale())

    def test_decays_far_apart_have_a_logarithmic_scale(self):
        """Independent decay divides by the rate."""
        scheme = nnlr.layer_decay(0.1) * nnlr.no_weight_decay()
        _, decays = panels(plan_of(scheme, decay="independent").plot())
        assert "weight decay (log scale)" == decays.get_ylabel()
        assert "0" in ticks(decays)

    def test_locked_layers_stand_on_a_strip(self):
        """Below the scale, under their word; lines end there."""
        figure = plan_of(LAYERED * nnlr.rule("[01].*", lr_mult=0)).plot()
        (axes,) = panels(figure)
        strip = ticks(axes)["locked"]
        assert 0 < strip < 0.05
        assert [[[2, 3], [0.05, 0.1]], [[0, 1, 2, 3], [strip, strip, 0.05, 0.1]]] == lines(axes)
        assert "4 of them locked" in figure.get_suptitle()

    def test_frozen_ones_are_told_from_locked_ones(self):
        """Who froze them matters."""
        net = chain()
        net[0].requires_grad_(False)
        figure = plan_of(LAYERED * nnlr.rule("1.*", lr_mult=0), net).plot()
        assert "locked/frozen" in ticks(panels(figure)[0])

    def test_roles_with_other_rates_have_lines_of_their_own(self):
        """Those with the same rates share one."""
        figure = plan_of(LAYERED * nnlr.rule(nnlr.role("bias"), lr_mult=2)).plot()
        assert ["matrix, head", "bias"] == legend(figure)

    def test_a_role_that_differs_within_a_layer_is_divided_by_names(self):
        """Here the projections of attention."""
        net = nn.ModuleList(nn.TransformerEncoderLayer(2, 1, 2) for _ in range(2))
        scheme = LAYERED * nnlr.rule("*.linear1.weight", lr_mult=2)
        figure = plan_of(scheme, net).plot()
        assert ["all others", "linear1.weight"] == legend(figure)

    def test_names_that_differ_by_number_only_are_dots(self):
        """No line joins several values of one place."""
        net = nn.ModuleList(nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in "ab") for _ in "abc")
        figure = plan_of(LAYERED * nnlr.rule("*.1.weight", lr_mult=3), net).plot()
        (axes,) = panels(figure)
        ((layers, rates),) = lines(axes)
        assert [0, 0, 1, 1, 2, 2] == layers
        assert pytest.approx([0.025, 0.075, 0.05, 0.15, 0.1, 0.3]) == rates

    def test_several_algorithms(self):
        """Each with its name."""
        net = nn.ModuleList(nn.TransformerEncoderLayer(2, 1, 2) for _ in range(2))
        matrix = nnlr.role("matrix")
        scheme = LAYERED * nnlr.rule(matrix, algorithm="muon")
        scheme *= nnlr.rule(~matrix, algorithm="adamw")
        figure = plan_of(scheme, net, lr={"muon": 0.02, "adamw": 0.001}).plot()
        assert ["muon: matrix", "adamw: bias, norm"] == legend(figure)

    def test_towers_beside_each_other_and_what_is_outside(self):
        """A panel for each, with its name, under one scale."""
        net = nn.ModuleDict({"text": chain(2), "image": chain(3), "scale": nn.Linear(1, 1)})
        scheme = LAYERED.within("text") * LAYERED.within("image")
        figure = plan_of(scheme, net).plot()
        text, image, outside = panels(figure)
        assert ["text", "image", ""] == [axes.get_title("left") for axes in panels(figure)]
        assert {"outside": 0.0} == ticks(outside, "x")
        assert 1 == len({axes.get_ylim() for axes in panels(figure)})
        assert [[0], [0.1]] == lines(outside)[-1]
        assert (2, 3) == (len(lines(text)[0][0]), len(lines(image)[0][0]))

    def test_many_towers(self):
        """The largest twelve in rows; the others are named."""
        names = [f"tower{k}" for k in range(14)]
        net = nn.ModuleDict({name: chain(3 if name == "tower3" else 2) for name in names})
        scheme = nnlr.layer_decay(0.5).within(names[0])
        for name in names[1:]:
            scheme *= nnlr.layer_decay(0.5).within(name)
        figure = plan_of(scheme, net).plot(width=4)
        assert 12 == len(panels(figure))
        assert "Not drawn: tower12, tower13." == figure.get_supxlabel()

    def test_more_kinds_than_colours(self):
        """The smallest share one."""
        names = [f"part{'abcdefghi'[k]}" for k in range(9)]
        parts = {name: nn.Linear(2, 9 - k, bias=False) for k, name in enumerate(names)}
        net = nn.ModuleDict({"stem": nn.ModuleDict(parts), "head": nn.Linear(2, 2)})
        scheme = nnlr.layer_decay(0.5, indexer={"stem.*": 0, "head.*": 1})
        for k, name in enumerate(names):
            scheme *= nnlr.rule(f"stem.{name}.weight", lr_mult=k + 2)
        words = legend(plan_of(scheme, net).plot())
        assert SERIES == len(words)
        assert "3 other kinds" == words[-1]


class TestModules:
    def test_without_depth_there_is_a_row_for_each_module(self):
        """At the highest level that tells all: from top to bottom, in the order of the model."""
        net = nn.ModuleDict({"backbone": chain(), "head": nn.Linear(2, 2)})
        figure = plan_of(nnlr.rule("head.*", lr_mult=10), net).plot()
        (axes,) = panels(figure)
        assert {"backbone": 0.0, "head": 1.0} == ticks(axes)
        assert [[[0.1, 1.0], [0, 1]]] == lines(axes)
        assert axes.yaxis_inverted()

    def test_a_level_lower_where_modules_differ_inside(self):
        """Two layers of the backbone are locked."""
        net = nn.ModuleDict({"backbone": chain(), "head": nn.Linear(2, 2)})
        scheme = nnlr.rule("backbone.[01].*", lr_mult=0) * nnlr.no_weight_decay()
        rates, decays = panels(plan_of(scheme, net).plot(width=3.4))
        assert ["backbone.0", "backbone.1", "backbone.2", "backbone.3", "head"] == list(
            ticks(rates)
        )
        assert "locked" in ticks(rates, "x")
        assert "learning rate\n(log scale)" == rates.get_xlabel()
        assert "weight decay" == decays.get_xlabel()

    def test_too_many_to_be_named(self):
        """They are numbered."""
        net = chain(50)
        scheme = nnlr.rules([nnlr.rule(f"{k}.*", lr_mult=1 / (k + 1)) for k in range(50)])
        (axes,) = panels(plan_of(scheme, net).plot())
        assert "module, in the order of the model" == axes.get_xlabel()
        assert 50 == len(lines(axes)[0][0])

    def test_one_parameter(self):
        """It has no module, and stands for the model."""
        figure = plan_of(nnlr.rule("*"), nn.Linear(1, 1, bias=False)).plot()
        assert ["the model"] == list(ticks(panels(figure)[0]))
        assert "Linear: 1 parameter, 1 group" == figure.get_suptitle()

    def test_no_parameter(self):
        """There is nothing to draw."""
        with pytest.raises(nnlr.NnlrError, match="Identity has no parameters"):
            plan_of(nnlr.no_weight_decay(), nn.Identity()).plot()

    def test_everything_locked(self):
        """The strip alone."""
        figure = plan_of(nnlr.rule("*", lr_mult=0)).plot()
        (axes,) = panels(figure)
        assert ["locked"] == list(ticks(axes, "x"))
        assert "Sequential: 8 parameters, all locked, 0 groups" == figure.get_suptitle()


class TestFigure:
    def test_nothing_global_is_touched(self):
        """No pyplot, no other setting, and the picture looks the same under any style."""
        import matplotlib

        plan = plan_of(LAYERED * nnlr.no_weight_decay() * nnlr.rule("0.*", lr_mult=0))
        before = dict(matplotlib.rcParams)
        loaded = "matplotlib.pyplot" in sys.modules
        plain = drawn(plan.plot(width=3.4))
        assert before == dict(matplotlib.rcParams)
        assert loaded == ("matplotlib.pyplot" in sys.modules)
        matplotlib.style.use("dark_background")
        try:
            assert plain == drawn(plan.plot(width=3.4))
        finally:
            matplotlib.rcParams.update(before)

    def test_it_is_as_wide_as_asked_for_and_shows_itself(self):
        """A notebook calls `_repr_png_`; a copy does too."""
        figure = plan_of(LAYERED).plot(width=3.4)
        assert 3.4 == figure.get_figwidth()
        assert figure._repr_png_().startswith(b"\x89PNG")
        assert pickle.loads(pickle.dumps(figure))._repr_png_().startswith(b"\x89PNG")

    def test_names_are_no_formulas(self):
        """A dollar in a name is a dollar."""
        net = nn.ModuleDict({"a$b$": nn.Linear(1, 1), "$x": nn.Linear(1, 1)})
        figure = plan_of(nnlr.rule("*"), net).plot()
        assert drawn(figure)
        assert not any(text.get_parse_math() for text in panels(figure)[0].get_yticklabels())

    def test_no_word_is_small_and_none_leaves_the_page(self):
        """At the width of a column."""
        net = nn.ModuleDict({f"a_rather_long_name_of_a_module_{k}": chain(2) for k in range(3)})
        figure = plan_of(nnlr.no_weight_decay(), net).plot(width=3.4)
        drawn(figure)
        page = figure.bbox
        words = [text for text in figure.findobj(is_word) if text.get_visible()]
        assert 7 == min(text.get_fontsize() for text in words)
        below = [text for axes in figure.axes for text in axes.get_xticklabels()]
        for text in words:
            if text in below:  # some are beyond the scale, where they are not drawn
                continue
            box = text.get_window_extent()
            assert page.x0 - 1 <= box.x0, text
            assert box.x1 <= page.x1 + 1, text

    def test_without_matplotlib(self, monkeypatch):
        """What to install."""
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(nnlr.NnlrError, match=r"pip install 'nnlr\[plot\]'"):
            plan_of(LAYERED).plot()

    @pytest.mark.parametrize("width", [0, 2.4, 31, "7", None])
    def test_no_width(self, width):
        """In inches."""
        with pytest.raises(
            nnlr.NnlrError, match=r"width must be a finite number >= 2\.5 and <= 30"
        ):
            plan_of(LAYERED).plot(width=width)


def drawn(figure):
    """The pixels of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=50)
    return buffer.getvalue()


def is_word(artist):
    """Whether an artist is a text that is seen."""
    return hasattr(artist, "get_fontsize") and bool(getattr(artist, "get_text", str)())


class TestParts:
    @pytest.mark.parametrize("low", [1e-9, 3e-4, 0.9])
    @pytest.mark.parametrize("factor", [3, 40, 1e5, 1e20])
    def test_marks_are_few_and_within(self, low, factor):
        """One to six round numbers for any range."""
        values = marks(low, low * factor)
        assert 1 <= len(values) <= 6
        assert low <= values[0] <= values[-1] <= low * factor

    def test_a_scale_of_one_value(self):
        """It stands in the middle."""
        scale = Scale([0.1], "y", 2.0)
        assert scale.low < 0.1 < scale.high
        assert pytest.approx(0.1 / scale.low) == scale.high / 0.1

    def test_a_scale_down_to_the_smallest_numbers(self):
        """A strip for zeros has room below them."""
        scale = Scale([1e-300, 1.0, 0.0], "y", 2.0, strip=0.3)
        assert 0 < scale.zero < scale.low
        figure = plan_of(
            nnlr.rules([nnlr.rule("0.*", lr_mult=0), nnlr.rule("1.*", lr_mult=1e-300)])
        ).plot()
        assert all(0 < axes.get_xlim()[0] for axes in panels(figure))

    def test_long_names_keep_their_ends(self):
        """What tells them apart."""
        assert "…" + "b" * 9 == short_name("a" * 40 + "b" * 9, 10)
        assert "a\\nb" == short_name("a\nb")

    def test_series_are_those_of_the_plan(self):
        """Each row's value is in one of them, at its place."""
        plan = plan_of(LAYERED * nnlr.no_weight_decay() * nnlr.rule("2.bias", lr_mult=3))
        layout = layout_of(plan.rows, lambda row: row.lr)
        series = series_of(plan.rows, layout, lambda row: row.lr)
        for row in plan.rows:
            place = layout.place_of[row.name]
            assert any(row.lr in each.values.get(place, ()) for each in series)
        assert sum(row.numel for row in plan.rows) == sum(each.numel for each in series)

    def test_a_white_page(self):
        """Readable on a dark one too."""
        with styled():
            assert (1, 1, 1, 1) == new_figure(1, 1).get_facecolor()
