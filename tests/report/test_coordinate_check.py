"""The coordinate check: what it measures, what it finds, what it leaves alone."""

import math
import random
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nnlr
from nnlr.errors import NnlrError, PatternError
from nnlr.report import CoordinateCheck, coordinate_check
from nnlr.report._scaling.coordinate_result import Coordinate, Fault
from nnlr.report._scaling.pictures import _apart, _shown
from nnlr.report._scaling.runs import power
from tests.helpers import public_names

WIDTHS = [32, 64, 128, 256]
X = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
Y = X[:, :5].argmax(dim=1)  # something to learn: all layers have to move for it
NAN = float("nan")

pytestmark = pytest.mark.usefixtures("one_thread")


def perceptron(width):
    """Input layer, hidden layer, readout."""
    return nn.Sequential(
        nn.Linear(12, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 5),
    )


def loss(model):
    """The same batch at every call."""
    return F.cross_entropy(model(X), Y)


def adam(model, *rates, lr=0.01):
    """Adam with a factor on the rate of each Linear's weight."""
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    groups = [
        {"params": [layer.weight], "lr": lr * rate}
        for layer, rate in zip(linears, rates, strict=True)
    ]
    groups.append({"params": [layer.bias for layer in linears]})
    return model, torch.optim.Adam(groups, lr=lr)


def standard(width):
    """One rate for all."""
    return adam(perceptron(width), 1, 1, 1)


def mup(width):
    """MuP from width 32 on, by hand: the rates of hidden layer and folded readout shrink."""
    model, ratio = perceptron(width), width / 32
    with torch.no_grad():
        model[4].weight.mul_(ratio**-0.5)
    return adam(model, 1, 1 / ratio, 1 / ratio)


def too_slow(width):
    """The rates of input layer and biases shrink with width, and should not."""
    model, optimizer = mup(width)
    for group in (optimizer.param_groups[0], optimizer.param_groups[-1]):
        group["lr"] *= 32 / width
    return model, optimizer


def too_large(width):
    """Weights of variance 1 whatever the fan-in is."""
    model, optimizer = mup(width)
    nn.init.normal_(model[2].weight)
    return model, optimizer


def still(model):
    """An optimizer that changes nothing."""
    return model, torch.optim.SGD(model.parameters(), lr=0.0)


class TestVerdict:
    """Which parametrizations are found faulty, and where."""

    def test_one_rate_for_all_blows_up(self):
        """Under the standard parametrization hidden layer and readout move more with width."""
        faults = coordinate_check(standard, WIDTHS, loss).faults()
        assert {"2", "3", "4"} == set(faults)
        assert {"blows up"} == {fault.kind for fault in faults.values()}
        assert faults["4"].exponent > 0.7

    def test_mup_is_flat(self):
        """Under muP every module moves alike, although the readout starts smaller and smaller."""
        check = coordinate_check(mup, WIDTHS, loss)
        assert {} == check.faults()
        [start] = [g for g in check.growth() if (g.module, g.step) == ("4", 0)]
        assert start.size < -0.4

    def test_a_rate_that_shrinks_too_much_vanishes(self):
        """A layer that learns less the wider the model is, is found, though its size is flat."""
        check = coordinate_check(too_slow, WIDTHS, loss)
        faults = check.faults()
        assert {"0", "1"} == set(faults)
        assert "vanishes" == faults["0"].kind
        assert -1 == pytest.approx(faults["0"].exponent, abs=0.1)
        [size] = [g.size for g in check.growth() if (g.module, g.step) == ("0", 3)]
        assert 0 == pytest.approx(size, abs=0.1)

    def test_a_wrong_initialisation_blows_up_at_once(self):
        """Activations that start larger in wider models are a fault at step 0."""
        faults = coordinate_check(too_large, WIDTHS, loss, modules=["2"]).faults()
        assert 0 == faults["2"].step
        assert 0.5 == pytest.approx(faults["2"].exponent, abs=0.1)
        assert str(faults["2"]).startswith("2 blows up: size ~ width^0.")

    def test_what_diverges_blows_up(self):
        """NaN and infinity are the steepest growth there is."""

        def prepare(width):
            model, optimizer = standard(width)
            if width == 8:
                nn.init.constant_(model[4].weight, NAN)
            return model, optimizer

        check = coordinate_check(prepare, [4, 8], loss, steps=1, seeds=[0])
        assert math.inf == check.faults()["4"].exponent
        assert "inf" in check.table()

    def test_what_never_changes_is_no_fault(self):
        """Dropout gets the same masks at every step: without learning nothing changes at all."""

        def prepare(width):
            return still(nn.Sequential(nn.Linear(12, width), nn.Dropout(0.5)))

        check = coordinate_check(prepare, [8, 16], lambda m: m(X).sum(), steps=2, seeds=[0])
        assert {0.0} == {row.change for row in check.rows}
        assert {} == check.faults()
        assert "-" in check.table().splitlines()[4].split()

    def test_tolerance_decides(self):
        """An exponent within the tolerance is flat; a negative tolerance is refused."""
        check = by_hand(a=lambda w: w**0.3)
        assert {"a": Fault("a", "blows up", 1, pytest.approx(0.3))} == check.faults()
        assert {} == check.faults(tolerance=0.31)
        with pytest.raises(NnlrError, match="tolerance must be a finite number >= 0"):
            check.faults(tolerance=-1)

    def test_a_fault_says_what_it_is(self):
        """One sentence: module, kind, step, exponent."""
        fault = by_hand(a=lambda w: w**0.5).faults()["a"]
        assert "a blows up: change after 1 step ~ width^0.50" == str(fault)

    def test_power_laws_are_found_exactly(self):
        """The exponent is that of the power law; all zeros have none, some zeros do."""
        assert -0.5 == pytest.approx(power([(w, 3 * w**-0.5) for w in (2, 4, 8)]))
        assert math.isnan(power([(2, 0.0), (4, 0.0)]))
        assert power([(2, 1.0), (4, 0.0)]) < -10
        assert math.inf == power([(2, 1.0), (4, NAN)])


class TestMeasure:
    """The numbers, and whose they are."""

    def test_size_and_change_are_means_of_absolute_values(self):
        """One layer and one SGD step by hand give the same numbers."""

        def prepare(width):
            layer = nn.Linear(3, width, bias=False)
            nn.init.constant_(layer.weight, 2.0)
            return layer, torch.optim.SGD(layer.parameters(), lr=0.5)

        x = torch.tensor([[1.0, -2.0, 0.5]])  # x @ 2 = -1; the gradient of the sum is x
        check = coordinate_check(prepare, [2, 4], lambda m: m(x).sum(), steps=1, seeds=[7])
        moved = 0.5 * (1 + 4 + 0.25)
        expected = [
            Coordinate(width, 7, step, "(model)", size, change)
            for width in (2, 4)
            for step, size, change in [(0, 1.0, 0.0), (1, 1 + moved, moved)]
        ]
        assert expected == list(check.rows)

    def test_size_is_the_l1_of_mup(self):
        """Module by module and step by step the numbers of the mup package's own check."""
        coord_check = pytest.importorskip("mup.coord_check")

        def model(width):
            torch.manual_seed(width)
            return perceptron(width)

        data = coord_check.get_coord_data(
            {width: lambda width=width: model(width) for width in (4, 8)},
            [(X, Y)],
            optimizer="sgd",
            lr=0.5,
            mup=False,
            nsteps=3,
            nseeds=1,
            cuda=False,
            show_progress=False,
        )
        expected = {
            (row.width, row.t - 1, row.module): row.l1
            for row in data.itertuples()
            if row.module  # the whole model returns what the readout does
        }
        check = coordinate_check(
            lambda width: (
                m := model(width),
                torch.optim.SGD(m.parameters(), lr=0.5),
            ),
            (4, 8),
            loss,
            steps=2,
            seeds=[0],
        )
        actual = {(row.width, row.step, row.module): row.size for row in check.rows}
        assert expected == pytest.approx(actual, rel=1e-6)

    def test_runs_are_the_same_again(self):
        """The check is deterministic, whatever was drawn before."""
        first = coordinate_check(standard, [4, 8], loss, seeds=[3, 1])
        torch.rand(5)
        assert first == coordinate_check(standard, [8, 4], loss, seeds=[3, 1])
        assert ((4, 8), (3, 1), (0, 1, 2, 3)) == (
            first.widths,
            first.seeds,
            first.steps,
        )

    def test_a_batch_drawn_in_the_loss_is_one_batch_and_not_the_weights(self):
        """Random numbers in `loss` repeat at every step and width, and are no initial weights."""
        drawn = []

        def prepare(width):
            drawn.append(torch.rand(2).tolist())
            return standard(width)

        def noisy(model):
            drawn.append(torch.rand(2).tolist())
            return loss(model)

        coordinate_check(prepare, [4, 8], noisy, steps=2, seeds=[0])
        assert drawn[:4] == drawn[4:]
        assert drawn[1] == drawn[2] == drawn[3] != drawn[0]

    def test_parts_of_outputs_have_names(self):
        """Tuples and mappings are taken apart; numbers, integers and the rest are left out."""

        class Parts(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.rnn = nn.LSTM(12, width)

            def forward(self, x):
                out, _state = self.rnn(x)
                return {"out": 2 * out, "loss": out.sum(), "ids": Y, "cache": object()}

        check = coordinate_check(
            lambda width: still(Parts(width)),
            [2, 4],
            lambda m: m(X)["loss"],
            steps=1,
            seeds=[0],
        )
        assert ("rnn[0]", "rnn[1][0]", "rnn[1][1]", "(model)[out]") == check.modules

    def test_handed_on_outputs_count_once(self):
        """Who returns another's output is left out; a ReLU that works in place is not."""

        def prepare(width):
            block = nn.Sequential(nn.Linear(12, width), nn.ReLU(inplace=True))
            return still(nn.Sequential(block, nn.Identity(), nn.Linear(width, 1)))

        check = coordinate_check(prepare, [2, 4], lambda m: m(X).sum(), steps=1, seeds=[0])
        assert ("0.0", "0.1", "2") == check.modules
        assert {0.0} == {row.change for row in check.rows}

    def test_several_calls_are_averaged(self):
        """A module that runs twice in one pass has one row, with the mean of both."""
        net = nn.Linear(1, 1, bias=False)
        nn.init.ones_(net.weight)
        check = coordinate_check(
            lambda _: still(net),
            [1, 2],
            lambda m: m(torch.ones(1, 1)).sum() + m(3 * torch.ones(1, 1)).sum(),
            steps=1,
            seeds=[0],
        )
        assert {2.0} == {row.size for row in check.rows}

    def test_half_precision_is_averaged_in_single(self):
        """A mean over many bfloat16 numbers does not lose them."""
        net = nn.Linear(1, 4096, bias=False, dtype=torch.bfloat16)
        nn.init.ones_(net.weight)
        check = coordinate_check(
            lambda _: still(net),
            [1, 2],
            lambda m: m(torch.ones(1, 1, dtype=torch.bfloat16)).sum(),
            steps=1,
            seeds=[0],
        )
        assert {1.0} == {row.size for row in check.rows}

    def test_modules_can_be_chosen(self):
        """Names and patterns choose; one that matches nothing is an error with the nearest."""
        check = coordinate_check(standard, [4, 8], loss, seeds=[0], modules=["0", "4*"])
        assert ("0", "4") == check.modules
        with pytest.raises(
            PatternError,
            match=r"'hed' matches no module of ModuleDict .*Nearest: 'head'",
        ):
            coordinate_check(
                lambda _: still(nn.ModuleDict({"head": nn.Linear(12, 5)})),
                [4, 8],
                loss,
                modules=["hed"],
            )

    def test_modules_of_some_widths_only_are_left_out(self):
        """Only what every width has is compared; nothing in common is an error."""

        def deep(layers):
            stack = [nn.Linear(12, 12) for _ in range(layers)]
            return still(nn.Sequential(*stack))

        check = coordinate_check(deep, [1, 2], lambda m: m(X).sum(), steps=1, seeds=[0])
        assert ("0",) == check.modules
        assert {"0", "1"} == {row.module for row in check.rows}
        assert ["0"] == [g.module for g in check.growth() if g.step]
        with pytest.raises(NnlrError, match="No module is in the models of every"):
            coordinate_check(
                lambda width: still(nn.ModuleDict({str(width): nn.Linear(12, 5)})),
                [1, 2],
                lambda m: next(iter(m.values()))(X).sum(),
                seeds=[0],
            )


class TestNothingIsLeftBehind:
    """Random states, hooks and modes stay as they were."""

    def test_random_states_come_back(self):
        """Torch's and Python's next numbers are those that would have come."""
        torch.manual_seed(5)
        random.seed(5)
        expected = torch.rand(3), random.getrandbits(32)
        torch.manual_seed(5)
        random.seed(5)
        coordinate_check(standard, [4, 8], loss, seeds=[0])
        actual = torch.rand(3), random.getrandbits(32)
        assert torch.equal(expected[0], actual[0])
        assert expected[1] == actual[1]

    def test_hooks_and_modes_stay(self):
        """The models' own hooks and modes stay, ours go."""
        models = []

        def prepare(width):
            model, optimizer = standard(width)
            model[1].eval()
            model[0].register_forward_hook(lambda *_: None)
            models.append(model)
            return model, optimizer

        coordinate_check(prepare, [4, 8], loss, seeds=[0])
        for model in models:
            assert 1 == sum(len(m._forward_hooks) for m in model.modules())
            assert [True, False, True] == [model[i].training for i in range(3)]

    def test_an_error_leaves_nothing_either(self):
        """A loss that fails loses no random state and leaves no hook."""
        model, optimizer = standard(4)
        before = torch.get_rng_state()

        def fails(model):
            loss(model)
            raise RuntimeError("no more data")

        with pytest.raises(RuntimeError, match="no more data"):
            coordinate_check(lambda _: (model, optimizer), [4, 8], fails)
        assert 0 == sum(len(m._forward_hooks) for m in model.modules())
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": [8]}, r"widths must be 2 or more different positive numbers, got \[8\]"),
        ({"widths": [8, 8]}, r"widths must be 2 or more different .*got \[8, 8\]"),
        ({"widths": [0, 8]}, "each of widths must be a whole number >= 1, got 0"),
        ({"widths": "ab"}, "widths must be 2 or more positive numbers, got 'ab'"),
        ({"widths": 8}, "widths must be 2 or more positive numbers, got 8"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"steps": 1.5}, "steps must be a whole number >= 1, got 1.5"),
        ({"seeds": 3}, r"seeds must be different whole numbers >= 0 such as range\(3\), got 3"),
        ({"seeds": [1, 1]}, r"seeds must be different .* got \[1, 1\]"),
        ({"seeds": [-1]}, "each of seeds must be a whole number >= 0, got -1"),
        ({"modules": "head"}, r"modules must be a list of names .* got 'head'"),
        ({"modules": []}, "modules must hold a name, or be None for all; it is empty"),
        ({"modules": [nn.Linear]}, "modules must be a list of names"),
        ({"modules": 3}, "modules must be a list of names .* got 3"),
        ({"prepare": perceptron}, "prepare must return a model and its optimizer, got a Seq"),
        ({"prepare": lambda w: (perceptron(w), 0.1)}, "prepare must return a model and its"),
        ({"loss": lambda m: 1.0}, "loss must return one number that can be .*, got 1.0"),
        ({"loss": lambda m: m(X)}, "loss must return one number that can be .*, got a Ten"),
        ({"loss": lambda m: loss(m).detach()}, "loss must return one number that can be"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(arguments, message):
    """Bad arguments and callables are refused, with what would be right."""
    given = {"prepare": standard, "widths": [4, 8], "loss": loss, **arguments}
    with pytest.raises(NnlrError, match=message):
        coordinate_check(**given)


@pytest.mark.parametrize("calls", [1, 2], ids=["another shape", "another call"])
def test_another_batch_is_refused(calls):
    """Changes need the same batch: other shapes or more calls than at first are an error."""
    batches = iter([X, X[:-1] if calls == 1 else X])
    counts = iter([1, calls])

    def changing(model):
        x = next(batches)
        return sum(model(x).sum() for _ in range(next(counts)))

    with pytest.raises(NnlrError, match=r"0 has not the shape .*the same batch at every"):
        coordinate_check(standard, [4, 8], changing)


def by_hand(widths=(4, 64), seeds=(0, 1), steps=1, label="by hand", **laws):
    """A check whose changes follow given laws, and whose sizes are 1."""
    return CoordinateCheck(
        label,
        tuple(
            Coordinate(width, seed, step, name, 1.0, law(width) if step else 0.0)
            for seed in seeds
            for width in widths
            for step in range(steps + 1)
            for name, law in laws.items()
        ),
    )


class TestTable:
    """What is printed."""

    def test_every_module_has_its_line(self):
        """Sizes, changes, exponents and the verdict; the same for `print` and `table`."""
        check = by_hand(flat=lambda w: 0.5, up=float, down=lambda w: 1 / w)
        text = str(check)
        assert text == check.table()
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert "flat 1 1 +0.00 0.5 0.5 +0.00 1" in lines
        assert "up 1 1 +0.00 4 64 +1.00 1 blows up" in lines
        assert "down 1 1 +0.00 0.25 0.0156 -1.00 1 vanishes" in lines
        assert text.startswith("by hand: 2 widths, 2 seeds, 1 step\n")
        assert text.endswith("not flat: of 3 modules 1 blow up and 1 vanish (tolerance 0.25)")

    def test_eighty_columns_are_enough(self):
        """Long names are folded, wide numbers fit."""
        name = "model.decoder.layers.31.self_attn.rotary_embedding.projection"
        check = by_hand(widths=(1, 131072), **{name: lambda w: 1.234e-7 * w**0.3})
        assert max(map(len, check.table().splitlines())) <= 80
        assert "blows up" in check.table()

    def test_flat_is_said(self):
        """Nothing found is said with the tolerance."""
        assert by_hand(a=lambda w: 1.0).table(0.1).endswith("flat: 1 module (tolerance 0.1)")


class TestPicture:
    """What is drawn."""

    def test_one_or_several_checks(self, tmp_path):
        """A picture for one check, and a taller one for two, with different steps."""
        one = by_hand(a=lambda w: 1.0, b=float, still=lambda w: 0.0)
        many = {f"layer{i}": lambda w: 1.0 for i in range(13)}
        two = by_hand(steps=4, up=lambda w: w, lost=lambda w: NAN, **many)
        one.plot(tmp_path / "one.png")
        one.plot(str(tmp_path / "two.png"), two)
        sizes = [
            int.from_bytes((tmp_path / name).read_bytes()[20:24], "big")
            for name in ("one.png", "two.png")
        ]
        assert sizes[0] < sizes[1]

    def test_names_do_not_meet(self):
        """Labels keep their distance and their order, and stay around their lines."""
        assert pytest.approx([0.4, 0.5, 0.6]) == _apart([0.5, 0.5, 0.5], 0.1)
        assert pytest.approx([0.8, 0.9, 1.0]) == _apart([1.0, 1.0, 1.0], 0.1)
        assert [0.0, 0.5] == _apart([0.0, 0.5], 0.1)
        heights = _apart([0.0, 0.01, 0.09, 0.15, 0.97, 0.99], 0.1)
        assert min(b - a for a, b in pairwise(heights)) >= 0.1 - 1e-9
        assert max(heights) <= 1

    @pytest.mark.parametrize(
        ("last", "expected"),
        [(1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3]), (9, [0, 1, 5, 9])],
    )
    def test_steps_shown(self, last, expected):
        """Initialisation, first and last step always; few enough to be read."""
        assert expected == _shown(range(last + 1))

    def test_without_matplotlib(self, tmp_path, monkeypatch):
        """The error says what to install."""
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(NnlrError, match=r"pip install 'nnlr\[plot\]'"):
            by_hand(a=lambda w: 1.0).plot(tmp_path / "none.png")


def test_progress_goes_to_standard_error(capsys):
    """A bar only where one is wanted, and never between the results."""
    coordinate_check(standard, [4, 8], loss, seeds=[0])
    assert ("", "") == capsys.readouterr()
    coordinate_check(standard, [4, 8], loss, seeds=[0], label="bar", progress=True)
    assert "" == capsys.readouterr().out


def test_names_of_the_package():
    """Every name loads, and others are an AttributeError."""
    for name in public_names(nnlr.report):
        assert name == getattr(nnlr.report, name).__name__
    with pytest.raises(AttributeError, match=r"'nnlr\.report' has no attribute 'tabel'"):
        _ = nnlr.report.tabel


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prepare": 3}, r"prepare must be a function such as def prepare\(width\)"),
        ({"loss": 3}, "loss must be a function such as lambda model"),
        ({"progress": "no"}, "progress must be True or False"),
        ({"label": 3}, "label must be a string"),
        ({"steps": True}, "steps must be a whole number >= 1, got True"),
        ({"seeds": "01"}, "seeds must be different whole numbers"),
        ({"device": "meta"}, "A model on the meta device has no values to measure"),
        ({"device": "meta", "modules": ["bias*"]}, "matches no module"),
    ],
)
def test_arguments_are_named(changed, message):
    """Before anything is trained, where that can be."""
    device = changed.pop("device", "cpu")

    def prepare(width):
        model = nn.Linear(2, width, device=device)
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(model):
        return model(torch.ones(1, 2, device=device)).sum()

    arguments = {"prepare": prepare, "widths": [1, 2], "loss": loss, "seeds": [0]} | changed
    with pytest.raises(NnlrError, match=message):
        coordinate_check(**arguments)


def test_pictures_of_results_only(tmp_path):
    """Anything beside the check is refused before it is drawn."""
    check = CoordinateCheck("x", ())
    with pytest.raises(NnlrError, match="each of others must be a CoordinateCheck, got 3"):
        check.plot(tmp_path / "a.png", 3)
