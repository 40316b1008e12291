"""What is told of multipliers that move: in tables, explanations, differences, during a run."""

import csv
import io

import pytest
import torch
from torch import nn

import nnlr
from nnlr.cli._show import _by_options
from nnlr.report._table import LIMIT
from nnlr.report._text import WIDTH


def rising(t, layer):
    """To 1, the sooner the higher the layer."""
    return min(1.0, t * (1 + layer.depth))


def falling(t):
    """From 1 to 0."""
    return 1 - t


class Block(nn.Module):
    """A norm and a linear layer."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(2), nn.Linear(2, 2)


def network(blocks=4):
    """A stem, blocks, and a head that is frozen in part."""
    net = nn.Sequential()
    net.add_module("blocks", nn.Sequential(*[Block() for _ in range(blocks)]))
    net.add_module("head", nn.Linear(2, 1))
    net.head.bias.requires_grad_(False)
    return net


def layers(blocks):
    """The layers of such a network."""
    return {f"blocks.{at}.*": at for at in range(blocks)} | {"head.*": blocks}


def planned(blocks=4, function=rising, decay=0.5):
    """A network and its plan; layers move, the decay of the head too."""
    net = network(blocks)
    scheme = nnlr.layer_decay(decay, indexer=layers(blocks)).at(function)
    scheme = scheme * nnlr.rule("head.*").at(falling, setting="weight_decay")
    return net, nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.01)


def attached(steps, blocks=4):
    """A plan, its optimizer, and what moves it, after some of 10 steps."""
    net, plan = planned(blocks)
    optimizer = plan.optimizer(torch.optim.SGD)
    work = nnlr.attach(optimizer, plan, total_steps=10, model=net)
    for _ in range(steps):
        optimizer.step()
    return plan, optimizer, work


class TestTable:
    """`print(plan)` and its like."""

    def test_what_moves_is_marked_and_the_foot_says_how(self):
        """A note on each row that moves, none on a frozen one, and a line for each scheme."""
        plan = planned()[1]
        lines = str(plan).splitlines()
        assert [line.endswith("moves") for line in lines if line.startswith("blocks.")]
        assert next(line for line in lines if line.startswith("head.bias")).endswith("frozen")
        foot = " ".join(" ".join(lines[-6:]).split())
        assert ".at(rising) moves the rate of 17 parameters (42) in 5 units: by rising" in foot
        assert "moves the decay of 1 parameter (2) in 1 unit: by falling" in foot
        assert "nnlr.attach(optimizer, plan, total_steps=...) moves them" in foot
        assert max(map(len, lines)) <= WIDTH
        assert len(lines) <= LIMIT

    def test_many_phases_are_one_line_and_of_a_plan_from_json_few(self):
        """What one move does is told once; JSON does not tell which schemes are one."""
        phases = [{"train": f"blocks.{at}.*", "epoch": 12 - at} for at in range(11, -1, -1)]
        net = network(12)
        scheme = nnlr.unfreeze([{"train": "head.*"}, *phases])
        plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.01)
        text = " ".join(str(plan).split())
        assert "unfreeze phase 12 ... unfreeze phase 1 moves the rate of 48 parameters" in text
        read = nnlr.Plan.from_json(plan.to_json()).table()
        assert "... and 6 more lines of what moves: see table(columns='+moves')" in read
        assert "--columns +moves" in _by_options(read)
        work = nnlr.attach(plan.optimizer(torch.optim.SGD), plan, model=net)
        assert "unfreeze phase 12 ... unfreeze phase 1: rate" in str(work)
        assert "phase{1..12}" in str(work)
        assert repr(work) == "attach(unfreeze phase 12 ... unfreeze phase 1: 12 units, step 0)"

    def test_a_decay_that_moves_alone_says_so(self):
        """The mark tells which of the two moves."""
        scheme = nnlr.rule("head.*").at(falling, setting="weight_decay")
        plan = nnlr.resolve(network(), scheme, lr=0.1, weight_decay=0.01)
        row = next(line for line in str(plan).splitlines() if line.startswith("head.weight"))
        assert row.endswith("decay moves")

    def test_rows_that_move_otherwise_share_no_line(self):
        """Equal rates that one scheme moves in two ways are two lines."""
        net = nn.Sequential(nn.PReLU(), nn.PReLU())
        scheme = nnlr.rule("0.*").at(falling) * nnlr.rule("1.*").at(lambda t: t)
        both = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
        alike = nnlr.resolve(net, nnlr.rule("*").at(falling), lr=0.1, weight_decay=0)
        assert "0.weight" in str(both)
        assert "{0,1}.weight" in str(alike)

    def test_columns_tell_units_and_ways(self):
        """`unit` and `moves` can be chosen."""
        text = planned()[1].table(columns="unit,moves", full=True)
        row = next(line for line in text.splitlines() if line.startswith("blocks.2.fc.weight"))
        assert row.split() == ["blocks.2.fc.weight", "layer2", "rate", "by", "rising", "moves"]

    def test_markdown_and_csv_tell_it_too(self):
        """The mark, the foot, and a column of their own."""
        plan = planned()[1]
        assert "| moves |" in plan.to_markdown()
        assert "moves the decay of 1 parameter" in plan.to_markdown()
        rows = list(csv.DictReader(io.StringIO(plan.to_csv())))
        assert {row["name"]: row["moves"] for row in rows}["head.weight"] == (
            "layer4: lr by rising; moving: weight_decay by falling"
        )
        assert rows[-1]["moves"] == ""


class TestExplain:
    """`plan.explain(name, optimizer)`."""

    def test_before_the_run_it_says_what_will_move(self):
        """The unit in the state, and the scheme with its words among the factors."""
        text = planned()[1].explain("blocks.1.fc.weight")
        assert "its multipliers move while training, as unit layer1" in " ".join(text.split())
        assert "      x moves      layer_decay(0.5" in text
        assert "now" not in text

    def test_during_the_run_it_says_how_far_that_is(self):
        """Multipliers of the moment, and the rate that they make."""
        plan, optimizer, _ = attached(2)
        text = plan.explain("head.weight", optimizer)
        assert "      x 1 now      layer_decay" in text
        assert "  lr now        0.1 = 0.1 x 1, at step 2 of 10" in text
        assert "  decay now     0.008 = 0.01 x 0.8, at step 2 of 10" in text
        low = plan.explain("blocks.0.fc.weight", optimizer)
        assert "  lr now        0.00125 = 0.1 x 0.0125, at step 2 of 10" in low
        assert "decay now" not in low
        assert "now" not in plan.explain("head.bias", optimizer)  # which is frozen

    def test_a_unit_may_have_groups_of_several_rates(self):
        """The rate is that of the row's own group, and so is the size of an update."""
        net = nn.Linear(2, 1)
        scheme = nnlr.rule("*").at(falling) * nnlr.rule("bias", lr_mult=4)
        plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.Adam)
        nnlr.attach(optimizer, plan, total_steps=4)
        optimizer.step()
        assert "  lr now        0.3 = 0.1 x 3, at step 1 of 4" in plan.explain("bias", optimizer)
        weight = plan.explain("weight", optimizer)
        assert "  lr now        0.075 = 0.1 x 0.75, at step 1 of 4" in weight
        assert "RMS about 0.015 to 0.075: 0.2 to 1 x lr" in weight

    def test_a_multiplier_of_zero_leaves_the_base_untold(self):
        """Where nothing is left of the rate, the base cannot be read from it."""
        plan, optimizer, _ = attached(0)
        text = plan.explain("blocks.0.fc.weight", optimizer)
        assert "  lr now        0 = base x 0, at step 0 of 10" in text

    def test_what_the_optimizer_does_not_move_is_told_as_before(self):
        """A frozen row, and an optimizer to which nothing is attached."""
        plan, optimizer, work = attached(1)
        work.remove()
        assert "x moves" in plan.explain("blocks.0.fc.weight", optimizer)
        frozen = nnlr.resolve(network(), lr=0.1, weight_decay=0.01).explain("head.bias")
        assert "move" not in frozen


class TestDiff:
    """`plan.diff(other)`."""

    def test_another_move_is_a_change(self):
        """The two ways side by side, and the schemes behind."""
        old, new = planned()[1], planned(function=lambda t, layer: 1.0)[1]
        text = str(old.diff(new))
        assert "rate by rising -> rate by function" in text
        assert "now layer_decay(0.5" in text
        change = old.diff(new).to_dict()["changed"][0]["changes"]
        assert change == {
            "moves": [["rate by rising, as unit layer0"], ["rate by function, as unit layer0"]]
        }
        assert "`rate by rising → rate by function`" in old.diff(new).to_markdown()
        assert "rate by rising" in old.diff(new).to_html()

    def test_the_same_move_on_other_rates_is_none(self):
        """Of a row whose rate stays nothing has changed."""
        old, new = planned()[1], planned(decay=0.25)[1]
        assert "head.weight" not in {row.name for row, _ in old.diff(new).changed}
        assert "moves" not in old.diff(new).to_dict()["changed"][0]["changes"]

    def test_what_begins_to_move_was_still(self):
        """Beside a plan that does not move, and where only the unit is another."""
        new = planned()[1]
        old = nnlr.resolve(
            network(), nnlr.layer_decay(0.5, indexer=layers(4)), lr=0.1, weight_decay=0.01
        )
        assert "no -> rate by rising" in str(old.diff(new))
        apart = nnlr.Factor(moves=("lr", "a", "x")), nnlr.Factor(moves=("lr", "b", "x"))
        one, two = (nnlr.resolve(nn.PReLU(), Stating(f), lr=1, weight_decay=0) for f in apart)
        assert "unit a" in one.diff(two).to_html()


class Stating(nnlr.Scheme):
    """Says the same of each parameter."""

    def __init__(self, factor):
        self.factor = factor

    def factors(self, model):
        return [self.factor] * len(model.params)


class Slower(nnlr.Move):
    """Half as fast at each step, which it notes just before."""

    def measures(self, now, units):
        return True

    def measure(self, now, units):
        for unit in units:
            unit.memory["mult"] = 0.5**now.step

    def mults(self, now, units):
        return [unit.memory.get("mult", 1.0) for unit in units]


@pytest.mark.parametrize("monitor_first", [True, False])
def test_a_monitor_reads_the_rates_of_the_step(monitor_first):
    """Whichever came first, and what a phase has just opened; what waits is locked."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    phases = nnlr.unfreeze([{"train": "1.*"}, {"train": "0.*", "step": 2}])
    plan = nnlr.resolve(net, phases * nnlr.rule("1.*").at(Slower()), lr=0.1, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.SGD)
    if monitor_first:
        monitor = nnlr.report.Monitor(plan, optimizer, every=1)
        nnlr.attach(optimizer, plan)
    else:
        nnlr.attach(optimizer, plan)
        monitor = nnlr.report.Monitor(plan, optimizer, every=1)
    with monitor:
        for _ in range(3):
            net(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    told = [[(each.state, each.lr) for each in reading.layers] for reading in monitor.history]
    assert told == [
        [("locked", 0.0), ("trained", 0.1)],
        [("locked", 0.0), ("trained", 0.05)],
        [("trained", 0.1), ("trained", 0.025)],
    ]
    assert str(monitor.findings) == "nothing found"


def test_movement_marks_rates_that_moved():
    """Beside the plan's multiplier, and with a word on it below."""
    net, plan = planned()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    moved = nnlr.report.movement(before, network(), plan)
    assert [row.rates for row in moved.rows][:2] == ["0.0625 ~", "0.0625 ~"]
    assert "~ moves while training: its lr_mult is the plan's" in str(moved)
    assert moved.to_dict()["layers"][0]["moves"] is True


class TestAttached:
    """`print(attached)`."""

    def test_units_with_their_multipliers_and_rates(self):
        """A table for each scheme, one line in the repr."""
        work = attached(2)[2]
        lines = str(work).splitlines()
        assert lines[0] == "SGD at step 2 of 10"
        assert lines[1].startswith("layer_decay(0.5")
        cells = [line.split() for line in lines]
        assert ["layer0", "4", "10", "0.2", "0.00125"] in cells
        assert ["layer4", "1", "2", "1", "0.1"] in cells
        assert ["moving", "1", "2", "0.8", "0.008"] in cells
        assert len(repr(work).splitlines()) == 1

    def test_equal_units_share_a_line(self):
        """Where the multipliers and rates are the same, names are folded."""
        net, plan = planned(decay=1.0)
        work = nnlr.attach(plan.optimizer(torch.optim.SGD), plan, model=net, total_steps=10)
        assert "layer{0..4}" in str(work)

    @pytest.mark.parametrize("blocks", [30, pytest.param(100, marks=pytest.mark.no_cover)])
    def test_many_units_fit_a_screen(self, blocks):
        """At most 60 lines of 80 columns."""
        work = attached(3, blocks)[2]
        lines = str(work).splitlines()
        assert len(lines) <= LIMIT
        assert max(map(len, lines)) <= WIDTH

    def test_units_that_cannot_be_folded_are_cut(self):
        """Names that have nothing in common, each with a multiplier of its own."""

        class Each(nnlr.Scheme):
            move = type(
                "Own", (nnlr.Move,), {"mults": lambda *a: [n / 99 for n in range(len(a[2]))]}
            )()

            def factors(self, model):
                names = ["".join(chr(97 + int(d)) for d in str(n)) for n in range(99)]
                return [nnlr.Factor(moves=("lr", name, "x"), move=self.move) for name in names]

        net = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(99)])
        plan = nnlr.resolve(net, Each(), lr=0.1, weight_decay=0)
        work = nnlr.attach(plan.optimizer(torch.optim.SGD), plan)
        lines = str(work).splitlines()
        assert len(lines) <= LIMIT
        assert lines[-1].endswith("more units: see attached.units")

    def test_epochs_and_the_time_of_measuring_are_told(self):
        """An epoch that has ended, and how long a look took."""
        net = nn.PReLU()
        measuring = type(
            "Measuring",
            (nnlr.Move,),
            {"measures": lambda *_: True, "mults": lambda _, now, units: [0.5] * len(units)},
        )
        scheme = Stating(nnlr.Factor(moves=("lr", "", "x"), move=measuring()))
        plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        work = nnlr.attach(optimizer, plan)
        optimizer.step()
        work.end_epoch()
        head, scheme, *rest = str(work).splitlines()
        assert head == "SGD at step 1, 1 epoch ended"
        assert scheme.startswith("Stating(): rate x (measured in ")
        assert rest[-1].split() == ["all", "1", "1", "0.5", "0.05"]
