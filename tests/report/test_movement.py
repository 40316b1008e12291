"""nnlr.report.movement: how far each layer moved, as numbers, text and picture."""

import copy
import json
import math
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

import nnlr
from nnlr.report import Movement, movement
from nnlr.report._movement import MovedLayer


def two_layers():
    """A network of two layers and its plan: the first is locked."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0), lr=0.1, weight_decay=0.0)
    return net, plan, copy.deepcopy(net.state_dict())


def run(label, *relative, moved_locked=()):
    """A run whose layers moved by these shares of their norms."""
    rows = [
        MovedLayer(f"layer{k}", (f"layer{k}.weight",), 1, (1.0,), "trained", distance, norm, ())
        for k, (distance, norm) in enumerate(
            (1.0, 0.0) if value == math.inf else (value, 1.0) for value in relative
        )
    ]
    return Movement(label, tuple(rows))


def shift(tensor, by):
    """Add to a parameter in place."""
    with torch.no_grad():
        tensor.add_(by)


class TestNumbers:
    def test_it_is_the_distance_over_the_norm_of_the_whole_layer(self):
        """Weight and bias together, against plain arithmetic."""
        net = nn.Sequential(nn.Linear(2, 1))
        plan = nnlr.resolve(net, nnlr.rule("*.bias", lr_mult=0.5), lr=0.1, weight_decay=0)
        before = {"0.weight": torch.tensor([[1.0, 2.0]]), "0.bias": torch.tensor([2.0])}
        after = {"0.weight": torch.tensor([[1.0, 2.0]]), "0.bias": torch.tensor([5.0])}
        (row,) = movement(before, after, plan).rows
        assert ("0", ("0.weight", "0.bias"), 3) == (row.name, row.params, row.numel)
        assert (3.0, 3.0, 1.0) == (row.distance, row.norm, row.relative)
        assert ("trained", (1.0, 0.5), "1 / 0.5") == (row.state, row.lr_mult, row.rates)

    def test_a_layer_of_zeros(self):
        """Infinite once it moved, 0 until then; JSON has no number for it."""
        net = nn.Linear(2, 1, bias=False)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        zeros, ones = {"weight": torch.zeros(1, 2)}, {"weight": torch.ones(1, 2)}
        moved = movement(zeros, ones, plan)
        assert math.inf == moved.rows[0].relative
        assert "inf: every element was 0 before" in str(moved)
        assert "inf" in str(moved).splitlines()[3]
        assert moved.to_dict()["layers"][0]["relative"] is None
        assert 0.0 == movement(zeros, {"weight": torch.zeros(1, 2)}, plan).rows[0].relative

    def test_a_parameter_of_the_root_is_in_a_layer_called_like_the_model(self):
        """There is no dot in its name."""
        net = nn.Linear(2, 1)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        assert ["Linear"] == [row.name for row in movement(copy.deepcopy(net), net, plan).rows]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
    def test_any_type_of_number(self, dtype):
        """Half precision is not lost in the difference; complex numbers have a length."""
        net = nn.Linear(3, 1, bias=False, dtype=dtype)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        before = {"weight": torch.full((1, 3), 2, dtype=dtype)}
        after = {"weight": torch.full((1, 3), 2.5, dtype=dtype)}
        assert 0.25 == movement(before, after, plan).rows[0].relative

    def test_they_are_fit_for_json(self):
        """All that the rows hold."""
        net, plan, before = two_layers()
        shift(net[1].bias, 1)
        facts = json.loads(json.dumps(movement(before, net, plan, label="run").to_dict()))
        assert "run" == facts["label"]
        locked, trained = facts["layers"]
        assert ("0", "locked", 0.0, []) == tuple(
            locked[key] for key in ("name", "state", "relative", "moved_locked")
        )
        assert (["1.weight", "1.bias"], 3, [1.0]) == tuple(
            trained[key] for key in ("params", "numel", "lr_mult")
        )
        assert trained["relative"] == pytest.approx(trained["distance"] / trained["norm"])


class TestNames:
    def test_buffers_are_left_out(self):
        """A state dict has them beside the parameters, and other things too."""
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        before = {**copy.deepcopy(net.state_dict()), "0._extra_state": None, 7: torch.ones(1)}
        assert ["0", "1"] == [row.name for row in movement(before, net, plan).rows]

    def test_prefixes_of_wrappers(self):
        """As DDP and torch.compile put them, in one state dict or both, or in a module."""
        net, plan, before = two_layers()
        wrapped = {f"module._orig_mod.{name}": value for name, value in before.items()}
        shift(net[1].weight, 1)
        expected = movement(before, net, plan)
        assert expected == movement(wrapped, net.state_dict(), plan)
        assert expected == movement(wrapped, nn.DataParallel(net), plan)

    def test_a_tied_tensor_counts_once(self):
        """Where it is first, whatever names the state dict has."""
        net = nn.ModuleDict({"embed": nn.Embedding(3, 2), "head": nn.Linear(2, 3, bias=False)})
        net["head"].weight = net["embed"].weight
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        before = copy.deepcopy(net.state_dict())
        del before["embed.weight"]
        shift(net["embed"].weight, 1)
        (row,) = movement(before, net, plan).rows
        assert ("embed", 6) == (row.name, row.numel)
        assert math.sqrt(6) == pytest.approx(row.distance)

    def test_a_missing_parameter_is_refused(self):
        """With the argument, the name and the way out."""
        net, plan, before = two_layers()
        del before["1.bias"]
        with pytest.raises(
            nnlr.PlanMismatchError, match=r"before lacks 1 parameter of the plan: 1\.bias"
        ) as caught:
            movement(before, net, plan)
        assert "1.bias" == caught.value.name

    def test_a_module_with_other_parameters_is_refused(self):
        """They would be left out in silence."""
        net, plan, before = two_layers()
        net.append(nn.Linear(1, 1))
        with pytest.raises(
            nnlr.PlanMismatchError, match=r"after has 2 parameters that the plan does not know: 2\."
        ):
            movement(before, net, plan)

    def test_another_shape_is_refused(self):
        """Rather than broadcast."""
        net, plan, before = two_layers()
        before["1.bias"] = torch.ones(())
        with pytest.raises(nnlr.PlanMismatchError, match=r"'1\.bias' has the shape \(\) in before"):
            movement(before, net, plan)

    def test_other_arguments_are_refused(self):
        """A file name, an iterator, a plan in the wrong place."""
        net, plan, before = two_layers()
        with pytest.raises(nnlr.NnlrError, match="before must be a state dict or a module, got 's"):
            movement("start.pt", net, plan)
        with pytest.raises(nnlr.NnlrError, match="after must be a state dict or a module, got a g"):
            movement(before, net.named_parameters(), plan)
        with pytest.raises(nnlr.NnlrError, match=r"plan must be a Plan, got .*after, plan\)"):
            movement(plan, before, net)


class TestSnapshots:
    @pytest.mark.parametrize("before", [lambda net: net, nn.Module.state_dict])
    def test_one_that_trains_along_is_refused(self, before):
        """A module and itself, or its own state dict: with what to do instead."""
        net, plan, _ = two_layers()
        with pytest.raises(
            nnlr.NnlrError,
            match=r"share the memory of 4 parameters: .*\n.*copy\.deepcopy\(model\.state_dict",
        ):
            movement(before(net), net, plan)

    def test_one_shared_tensor_is_refused_too(self):
        """It would not have moved, whatever training did."""
        net, plan, before = two_layers()
        before["1.bias"] = net[1].bias
        with pytest.raises(nnlr.NnlrError, match=r"share the memory of 1 parameter: 1\.bias"):
            movement(before, net, plan)

    def test_nothing_is_recorded_for_gradients(self):
        """And no gradient of the model is touched."""
        net, plan, before = two_layers()
        net(torch.ones(1, 2)).sum().backward()
        grad = net[1].weight.grad.clone()
        movement(before, net, plan)
        assert torch.equal(grad, net[1].weight.grad)


@pytest.fixture
def mesh(tmp_path):
    """A mesh of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield dist.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")
def test_sharded_weights(mesh):
    """Beside sharded and beside whole ones, with the same numbers."""
    _, plan, before = two_layers()
    after = {name: value + 1 for name, value in before.items()}
    expected = movement(before, after, plan)

    def sharded(weights):
        return {name: distribute_tensor(value, mesh) for name, value in weights.items()}

    assert expected == movement(sharded(before), sharded(after), plan)
    assert expected == movement(before, sharded(after), plan)
    same = sharded(before)
    with pytest.raises(nnlr.NnlrError, match="share the memory of 4"):
        movement(same, dict(same), plan)
    assert isinstance(DTensor.from_local(torch.ones(1), mesh, [Replicate()]), DTensor)


class TestText:
    def test_one_run(self, golden):
        """A number and a mark for each layer; exact zeros stand apart."""
        golden("movement", str(run("moved", 0.0, 0.0123, 1.5, 0.00021)))

    def test_two_runs(self, golden):
        """Joined marks, one where they meet, none for what is no number."""
        one = run("declared", 0.0, 0.0123, 1.5, 0.00021, 12345.0)
        other = run("uniform", 0.4, 0.2, 1.51, math.nan, 0.5)
        golden("movement_two", one.table(other, title="Both"))

    def test_nothing_moved(self):
        """There is a scale all the same."""
        assert "●  ···" in str(run("moved", 0.0, math.nan))

    def test_a_locked_layer_that_moved_is_marked(self, golden):
        """In its row, and by name under the chart."""
        _, plan, before = two_layers()
        before = {name: torch.ones_like(value) for name, value in before.items()}
        after = {name: value * 2 for name, value in before.items()}
        moved = movement(before, after, plan)
        assert ("0.weight", "0.bias") == moved.rows[0].moved_locked
        assert () == moved.rows[1].moved_locked
        golden("movement_locked", str(moved))

    def test_a_frozen_layer_and_one_that_is_locked_in_part(self):
        """The first says so; the second has both rates."""
        net, _, before = two_layers()
        net[0].requires_grad_(False)
        plan = nnlr.resolve(net, nnlr.rule("1.bias", lr_mult=0), lr=0.1, weight_decay=0)
        frozen, mixed = movement(before, net, plan).rows
        assert ("frozen", "frozen") == (frozen.state, frozen.rates)
        assert ("mixed", "1 / 0") == (mixed.state, mixed.rates)

    def test_layers_of_a_large_model_are_joined(self):
        """Until they fit on a screen, by the beginnings of their names; norms stay exact."""
        block = nn.Sequential(*(nn.Linear(2, 2) for _ in range(7)))
        net = nn.ModuleDict(
            {
                "blocks": nn.ModuleList(copy.deepcopy(block) for _ in range(12)),
                "head": nn.Linear(2, 1),
            }
        )
        plan = nnlr.resolve(net, nnlr.layer_decay(0.5), lr=0.1, weight_decay=0)
        before = copy.deepcopy(net.state_dict())
        shift(net["blocks"][3][0].weight, 3)
        shift(net["blocks"][3][1].weight, 2)
        moved = movement(before, net, plan)
        assert 7 * 12 + 1 == len(moved.rows)
        lines = str(moved).splitlines()
        assert 3 + 12 + 1 == len(lines)
        (line,) = [line for line in lines if line.startswith("blocks.3.*")]
        norm = math.sqrt(sum(row.norm**2 for row in moved.rows if row.name.startswith("blocks.3.")))
        assert f"{math.sqrt(4 * 9 + 4 * 4) / norm:.4f}" in line
        assert any(line.startswith("head ") for line in lines)

    def test_many_rates_of_one_line_are_a_range(self):
        """The lowest and the highest."""
        row = MovedLayer("a.*", (), 3, (0.5, 0.1, 1.0), "trained", 0.0, 1.0, ())
        assert "0.1..1" == row.rates

    def test_more_layers_than_lines_on_one_level_are_all_shown(self):
        """Names without dots cannot be cut."""
        assert 3 + 70 == len(str(run("moved", *(70 * [0.5]))).splitlines())

    @pytest.mark.parametrize("width", [48, 55, 80, 100])
    @pytest.mark.parametrize("name", ["head", "vision_encoder.transformer.blocks.11.attention.out"])
    def test_it_fits_the_width(self, width, name):
        """Names break at dots; the scale goes first."""
        row = MovedLayer(name, ("w",), 1, (0.1, 0.2), "trained", 0.5, 1.0, ())
        moved = Movement("declared", (row,))
        lines = moved.table(moved, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert (width >= 80) == ("◉" in lines[3])
        first_column = [line[: len(name)].partition("   ")[0].strip() for line in lines[3:]]
        assert "".join(first_column).startswith(name)

    def test_other_layers_cannot_be_compared(self):
        """They would stand in the wrong rows."""
        with pytest.raises(nnlr.NnlrError, match="'a' and 'b' have different layers"):
            run("a", 1.0).table(run("b", 1.0, 2.0))


class TestPicture:
    def test_it_is_saved_and_returned(self, tmp_path):
        """One run or two; without a path it is returned only."""
        one, other = run("one", 0.0, 0.1, math.inf), run("other", 0.2, 1e-9, 0.3)
        path = tmp_path / "movement.png"
        figure = one.plot(path, other, title="Both")
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        above, axes = figure.axes
        assert "Both" == figure.get_suptitle()
        assert ["one", "other"] == [text.get_text() for text in above.get_legend().get_texts()]
        assert ["layer0", "layer1", "layer2 (was all 0)"] == labels(axes)
        assert 1 == len(one.plot(width=3.4).axes)

    def test_a_locked_layer_that_moved_is_marked(self):
        """In words and in red; so is a part that was locked."""
        net, _, before = two_layers()
        scheme = nnlr.rule("0.*", lr_mult=0) * nnlr.rule("1.bias", lr_mult=0)
        plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
        shift(net[0].bias, 1)
        shift(net[1].bias, 1)
        (axes,) = movement(before, net, plan).plot().axes
        assert ["0 (locked, but moved)", "1 (lr × 1 / 0, locked part moved)"] == labels(axes)
        assert {"#D55E00"} == {text.get_color() for text in axes.get_yticklabels()}

    def test_without_matplotlib_the_error_says_what_to_install(self, monkeypatch):
        """The extra's name."""
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(nnlr.NnlrError, match=r"pip install 'nnlr\[plot\]'"):
            run("moved", 1.0).plot()


def test_a_layer_that_diverged_is_not_said_to_have_been_zeros():
    """Elements may be infinite, or so large that their squares are: the error is not ours."""
    net = nn.Linear(1, 1).double()
    plan = nnlr.resolve(net, lr=0.1, weight_decay=0.0)
    before = {"weight": torch.ones(1, 1), "bias": torch.zeros(1)}
    for size in (math.inf, 1e200):
        after = {name: tensor.double() * size for name, tensor in before.items()}
        after["bias"] = torch.zeros(1)
        moved = movement(before, after, plan)
        assert size == moved.rows[0].relative
        assert "every element was 0" not in str(moved)
        assert ["Linear"] == labels(moved.plot().axes[0])


def labels(axes):
    """What stands beside the layers."""
    return [text.get_text() for text in axes.get_yticklabels()]


class TestArguments:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m: m.table(3), r"other must be a Movement, got 3 \(int\)"),
            (lambda m: m.table(width="a"), "width must be a whole number >= 48, got 'a'"),
            (lambda m: m.table(width=47), "width must be a whole number >= 48, got 47"),
            (lambda m: m.table(title=3), r"title must be a string, got 3 \(int\)"),
            (lambda m: m.plot(3), "path must be that of a picture, such as 'rates.png', got 3"),
            (lambda m: m.plot("a.abc"), "no pictures in the format 'abc'; it writes .*png"),
            (lambda m: m.plot(None, "x"), "other must be a Movement, got 'x'"),
            (lambda m: m.plot(title=None), "title must be a string, got None"),
        ],
    )
    def test_each_is_named(self, call, message):
        """Nothing is drawn or written."""
        net = nn.Linear(2, 1)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        with pytest.raises(nnlr.NnlrError, match=message):
            call(movement(copy.deepcopy(net.state_dict()), net, plan))

    def test_of_the_measurement(self):
        """A label that is none, a plan that is none, weights that are nowhere."""
        net = nn.Linear(2, 1)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        before = copy.deepcopy(net.state_dict())
        with pytest.raises(nnlr.NnlrError, match="label must be a string, got 3"):
            movement(before, net, plan, label=3)
        with pytest.raises(nnlr.NnlrError, match="plan must be a Plan, got Linear"):
            movement(before, net, net)
        with pytest.raises(nnlr.NnlrError, match="weight, bias of after are on the meta device"):
            movement(before, nn.Linear(2, 1, device="meta"), plan)
