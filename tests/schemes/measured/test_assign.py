"""Measured multipliers at work: what is read, when, and what becomes of the rates."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError
from nnlr.testing import SchemeLaws
from tests.helpers import same_weights


def network():
    """Three linear layers and a batch norm, the same at every call."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)
    )


def attached(scheme, cls=torch.optim.SGD, **settings):
    """A network, an optimizer that a plan built, and what moves it."""
    net = network()
    plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.01)
    optimizer = plan.optimizer(cls, **settings)
    return net, optimizer, nnlr.attach(optimizer, plan)


def step(net, optimizer, at):
    """One step on data that depend on its number."""
    torch.manual_seed(at)
    optimizer.zero_grad()
    net(torch.randn(16, 4)).square().sum().backward()
    optimizer.step()


def rates(net, optimizer, key="lr"):
    """The rate of each parameter."""
    of = {id(p): group[key] for group in optimizer.param_groups for p in group["params"]}
    return {name: of[id(p)] for name, p in net.named_parameters() if id(p) in of}


def rgn(net):
    """The relative gradient norm of each tensor."""
    return {n: float(p.grad.norm() / p.detach().norm()) for n, p in net.named_parameters()}


def test_rates_are_by_the_mean_over_batches():
    """Over the first batches of a period; then rates hold until the next."""
    weights = nnlr.glob("*.weight")
    scheme = nnlr.assign("rgn", "max", every=4, batches=2, by="tensor").where(weights)
    net, optimizer, _ = attached(scheme)
    sums = {}
    for at in range(7):
        torch.manual_seed(at)
        optimizer.zero_grad()
        net(torch.randn(16, 4)).square().sum().backward()
        if at % 4 < 2:
            now = rgn(net)
            sums = {n: now[n] + (sums[n] if at % 4 else 0) for n in now if n.endswith("weight")}
        optimizer.step()
        if at % 4 == 1:
            expected = {n: 0.1 * value / max(sums.values()) for n, value in sums.items()}
        if at:
            assert rates(net, optimizer) == pytest.approx(
                {n: expected.get(n, 0.1) for n in rgn(net)}
            )


def test_a_ramp_is_a_straight_line_from_rate_to_rate():
    """From where a unit is to where it is sent, over so many steps, also on the way."""
    targets = iter([[3.0], [1.0]])

    def mapping(values):
        return next(targets)

    scheme = nnlr.assign(lambda unit: 1.0, mapping, every=2, ramp=4).where("0.*")
    net, optimizer, moves = attached(scheme)
    seen = []
    for at in range(4):
        step(net, optimizer, at)
        seen.append(moves.units[0].mult)
    assert seen == [1.5, 2.0, 1.75, 1.5]


def test_epochs_are_those_that_are_ended():
    """It measures at the first step, and again at the first one after an epoch."""
    read = []
    scheme = nnlr.assign(lambda unit: read.append(unit.name) or 1.0, "max", every="epoch")
    net, optimizer, moves = attached(scheme.where("0.*"))
    for at in range(6):
        step(net, optimizer, at)
        if at == 3:
            moves.end_epoch()
    assert read == ["0", "0"]
    assert moves.seconds.keys() == {moves.units[0].source}


def test_decay_moves_alone():
    """With setting="weight_decay" the rate stays."""
    scheme = nnlr.assign("weight_norm", "linear(0.5, 2)", every=1, setting="weight_decay")
    net, optimizer, _ = attached(scheme, torch.optim.AdamW)
    step(net, optimizer, 0)
    decays = rates(net, optimizer, "weight_decay")
    assert sorted({*decays.values()})[:: len({*decays.values()}) - 1] == [0.005, 0.02]
    assert {*rates(net, optimizer).values()} == {0.1}


def test_what_moves_together():
    """Tensors, modules with their batch norm, or layers by depth."""

    def units(by, net):
        plan = nnlr.resolve(
            net, nnlr.assign("rgn", "max", every=1, by=by), lr=0.1, weight_decay=0.0
        )
        optimizer = plan.optimizer(torch.optim.SGD)
        return {unit.name: unit.names for unit in nnlr.attach(optimizer, plan).units}

    assert {name: [name] for name, _ in network().named_parameters()} == units("tensor", network())
    assert units("module", network()) == {
        "0": ["0.weight", "0.bias", "1.weight", "1.bias"],
        "2": ["2.weight", "2.bias"],
        "4": ["4.weight", "4.bias"],
    }
    blocks = nn.Sequential()
    blocks.layers = nn.ModuleList([nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in "ab"])
    blocks.head, blocks.scale = nn.Linear(3, 2), nn.Parameter(torch.ones(3))
    assert [*units("layer", blocks)] == ["layer0", "layer1", "layer2", "layer3"]
    assert units("module", nn.Sequential(nn.BatchNorm1d(3), nn.Linear(4, 4))).keys() == {"0", "1"}
    with pytest.raises(NnlrError, match=r"by='layer': .*count layers by\. Pass by='module'"):
        units("layer", nn.Linear(3, 3))
    bare = {name: nn.Parameter(torch.ones(2)) for name in ("a.weight", "a.bias", "scale")}
    assert units("module", bare) == {"a": ["a.weight", "a.bias"], "tensors": ["scale"]}


@pytest.mark.no_cover
@pytest.mark.parametrize(("cls", "ramp"), [(torch.optim.AdamW, 3), (nnlr.optim.SGD, 0)])
def test_a_resumed_run_goes_on_to_the_last_bit(cls, ramp):
    """In the middle of a ramp and of a mean over batches."""
    scheme = nnlr.assign("rgn", "linear(0.5, 2)", every=4, batches=2, ramp=ramp)

    def run(net, optimizer, steps):
        for at in steps:
            step(net, optimizer, at)

    whole, optimizer, _ = attached(scheme, cls)
    run(whole, optimizer, range(11))
    for stop in (1, 5, 7):  # within the first batches, at a second mean, on a ramp
        first, optimizer, _ = attached(scheme, cls)
        run(first, optimizer, range(stop))
        file = io.BytesIO()
        torch.save({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        second, optimizer, _ = attached(scheme, cls)
        second.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        run(second, optimizer, range(stop, 11))
        assert same_weights(whole, second)


def test_regrouping_goes_on_with_what_was_measured():
    """A unit that stays keeps its multiplier; one that comes starts at 1."""
    scheme = nnlr.assign("rgn", "linear(0.5, 2)", every=4, ramp=4)
    net, optimizer, moves = attached(scheme)
    net[4].requires_grad_(False)
    plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.01)
    nnlr.regroup(optimizer, plan)
    for at in range(3):
        step(net, optimizer, at)
    before = {unit.name: unit.mult for unit in moves.units}
    net[4].requires_grad_(True)
    nnlr.regroup(optimizer, nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.01))
    assert {unit.name: unit.mult for unit in moves.units} == {**before, "4": 1.0}
    for at in range(3, 6):
        step(net, optimizer, at)
    assert moves.units[-1].mult != 1.0


def test_a_scheme_does_not_take_up_what_another_has_read():
    """After a regrouping that leaves one out, and the order is another, each has its own."""
    norm = nnlr.assign("weight_norm", "linear(0.5, 2)", every=50, setting="weight_decay")
    net, optimizer, moves = attached(nnlr.assign("rgn", "max", every=50) * norm)
    step(net, optimizer, 0)
    before = {unit.name: unit.mult for unit in moves.units if unit.setting == "weight_decay"}
    nnlr.regroup(optimizer, nnlr.resolve(net, norm, lr=0.1, weight_decay=0.01))
    assert {unit.name: unit.mult for unit in moves.units} == before
    assert len({*before.values()}) == 3

    def largest(unit):
        return max(float(tensor.detach().max()) for tensor in unit.tensors)

    other = nnlr.assign(largest, "max", every=50)
    nnlr.regroup(optimizer, nnlr.resolve(net, other * norm, lr=0.1, weight_decay=0.01))
    assert {unit.mult for unit in moves.units if unit.setting == "lr"} == {1.0}


def test_a_unit_without_a_statistic_stays():
    """Zeros, and gradients that are not finite, change nothing; where all are, nothing moves."""
    scheme = nnlr.assign("rgn", "max", every=1, by="tensor")
    net, optimizer, moves = attached(scheme)
    with torch.no_grad():
        net[2].bias.zero_()
    step(net, optimizer, 0)
    now = {unit.name: unit.mult for unit in moves.units}
    assert now["2.bias"] == 1.0
    assert min(now.values()) < 0.5
    for parameter in net.parameters():
        parameter.grad.fill_(torch.nan)
    optimizer.step()
    assert {unit.name: unit.mult for unit in moves.units} == now


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_gradient_scaler_the_scale_does_not_count(fused):
    """Also where the optimizer takes it out in its own step, after this has looked."""
    mults = []
    for scale in (1.0, 2.0**14):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scheme = nnlr.assign("snr", "linear(0.5, 2)", every=1)
        net, optimizer, moves = attached(scheme, torch.optim.AdamW, fused=fused)
        scaler.scale(1e-4 * net(torch.ones(8, 4).tril()).square().sum()).backward()
        scaler.step(optimizer)
        mults.append([unit.mult for unit in moves.units])
    assert mults[0] == pytest.approx(mults[1], rel=1e-4)
    assert max(mults[0]) == 2.0


@pytest.mark.parametrize(
    ("probe", "mapping", "match"),
    [
        (lambda unit: "much", "max", r"gave 'much' \(str\) for '0'.*a number, a tensor"),
        (lambda unit: True, "max", r"gave True \(bool\)"),
        (lambda unit: torch.ones(2), "max", r"gave tensor\(\[1., 1.\]\) .*a tensor of one element"),
        (lambda unit: torch.tensor(True), "max", r"gave tensor\(True\)"),
        (lambda unit: 1.0, lambda values: None, "gave None .*a list of multipliers"),
        (lambda unit: 1.0, max, "assign.*max, every=1. gave 1.0 .*a list of multipliers"),
        (lambda unit: 1.0, lambda values: [1.0], "gave 1 multipliers for 3 statistics"),
        (
            lambda unit: 1.0,
            lambda values: [-1.0] * 3,
            "that the mapping of assign.* gives '0' must be a finite number >= 0, got -1",
        ),
        (lambda unit: 1.0, lambda values: [torch.nan] * 3, "must be a finite number"),
        (lambda unit: 0.5, "log2", "'log2' is for statistics of at least 1"),
    ],
)
def test_what_functions_return_is_checked(probe, mapping, match):
    """Before it becomes a rate."""
    net, optimizer, _ = attached(nnlr.assign(probe, mapping, every=1))
    with pytest.raises(NnlrError, match=match):
        step(net, optimizer, 0)
    assert {*rates(net, optimizer).values()} == {0.1}


def test_a_function_may_have_nothing_to_measure():
    """None everywhere leaves all rates; a tensor counts as its number."""
    net, optimizer, _ = attached(nnlr.assign(lambda unit: None, "max", every=1))
    step(net, optimizer, 0)
    assert {*rates(net, optimizer).values()} == {0.1}
    half = nnlr.assign(lambda unit: unit.tensors[0].detach().new_ones(1), "max", every=1)
    net, optimizer, _ = attached(half)
    step(net, optimizer, 0)
    assert {*rates(net, optimizer).values()} == {0.1}


def test_parts_of_tensors_are_refused():
    """A process that has a shard only would come to rates of its own."""
    plan = nnlr.resolve(network(), nnlr.assign("rgn", "max", every=1), lr=0.1, weight_decay=0.0)
    part = network()
    part[0].weight = nn.Parameter(part[0].weight[:3].detach())
    optimizer = plan.optimizer(torch.optim.SGD, model=part, partial=True)
    nnlr.attach(optimizer, plan, model=part, partial=True)
    with pytest.raises(ConfigError, match=r"'0.weight', of which .* \(3, 4\) of \(6, 4\)"):
        optimizer.step()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"probe": "rgm"}, "There is no probe 'rgm'. Nearest: 'rgn'"),
        ({"probe": 3}, r"probe must be one of 'rgn', .* or a function; got 3 \(int\)"),
        ({"probe": ""}, r"probe must be a name, .* such as 'alpha\(50, 4096\)'; got ''"),
        ({"mapping": "linear"}, "missing a required argument: 's1'"),
        ({"mapping": [1, 2]}, r"mapping must be one of 'linear', .* or a function; got"),
        ({"probe": "alpha(1)"}, "min_eigenvalues must be a whole number >= 2"),
        ({"every": 0}, "every must be a whole number >= 1"),
        ({"every": "day"}, "every must be a number of optimizer steps, or 'epoch'; got 'day'"),
        ({"batches": 5}, r"every=4 steps\. Pass batches=4"),
        ({"ramp": -1}, "ramp must be a whole number >= 0"),
        ({"setting": "wd"}, "setting must be one of"),
        ({"by": "block"}, "by must be one of 'tensor', 'module', 'layer'"),
    ],
)
def test_arguments_are_checked_at_the_call(arguments, match):
    """With the nearest word or the range."""
    with pytest.raises(NnlrError, match=match):
        nnlr.assign(**{"probe": "rgn", "mapping": "max", "every": 4, **arguments})


def test_moves_can_be_copied_and_pickled():
    """A plan with them too."""
    plan = nnlr.resolve(network(), nnlr.temp_balance(min_eigenvalues=4), lr=0.1, weight_decay=0)
    move = plan["2.weight"].trace[0].factor.move
    assert move.needs_epochs
    assert move.mapping([1.0, 2.0]) == [0.5, 1.5]
    for other in (copy.deepcopy(move), pickle.loads(pickle.dumps(move))):
        assert other.rule == move.rule


@pytest.mark.no_cover
class TestMeasured(SchemeLaws):
    """The laws of schemes."""

    def schemes(self):
        return [
            nnlr.assign("rgn", "max", every=2, batches=2, by="tensor"),
            nnlr.alpha_decay(min_eigenvalues=2, keep_first=False),
            nnlr.llr(every=3, min_eigenvalues=2, ramp=2),
        ]


def test_what_was_measured_is_shown():
    """Beside the multipliers that come of it, where something was."""
    net, optimizer, moves = attached(nnlr.assign("weight_norm", "max", every=9))
    assert "statistic" not in str(moves)
    step(net, optimizer, 0)
    lines = {line.split()[0]: line.split()[3:5] for line in str(moves).splitlines()[-3:]}
    assert lines == {
        unit.name: [f"{unit.memory['value']:.4g}", f"{unit.mult:.4g}"] for unit in moves.units
    }


def test_an_epoch_with_fewer_steps_gives_what_it_has():
    """At its end; of one without a step nothing, and the next one is measured anew."""
    net, optimizer, moves = attached(nnlr.auto_rgn(by="module"))
    sums = {"0": 0.0, "2": 0.0, "4": 0.0}
    for at in range(3):
        torch.manual_seed(at)
        optimizer.zero_grad()
        net(torch.randn(16, 4)).square().sum().backward()
        for name in sums:
            params = [*net[int(name)].parameters()]
            grad = nn.utils.get_total_norm([p.grad for p in params])
            sums[name] += float(grad / nn.utils.get_total_norm([p.detach() for p in params]))
        optimizer.step()
    assert {unit.mult for unit in moves.units} == {1.0}
    moves.end_epoch()
    mults = {unit.name: unit.mult for unit in moves.units}
    expected = {name: value / max(sums.values()) for name, value in sums.items()}
    assert mults == pytest.approx(expected)
    moves.end_epoch()
    assert {unit.name: unit.mult for unit in moves.units} == mults
    for at in range(3, 8):
        step(net, optimizer, at)
    assert {unit.memory["batches"] for unit in moves.units} == {5}
    assert {unit.name: unit.mult for unit in moves.units} != mults


def test_a_resumed_run_takes_up_nothing_of_another_scheme():
    """Rates and decay by one probe keep apart, in any order; another mapping starts at 1."""
    lr = nnlr.assign("weight_norm", "linear(0.5, 2)", every=50)
    decay = nnlr.assign("weight_norm", "rank(0.1, 0.2)", every=50, setting="weight_decay")
    net, optimizer, moves = attached(lr * decay)
    step(net, optimizer, 0)
    saved = optimizer.state_dict()
    before = {(unit.name, unit.setting): unit.mult for unit in moves.units}
    _, optimizer, moves = attached(decay * lr)
    optimizer.load_state_dict(saved)
    assert {(unit.name, unit.setting): unit.mult for unit in moves.units} == before
    for other in (
        nnlr.assign("weight_norm", "balance", every=50),
        nnlr.assign("weight_norm", "linear(0.5, 2)", every=50, setting="weight_decay"),
    ):
        _, optimizer, moves = attached(other)
        optimizer.load_state_dict(saved)
        assert {unit.mult for unit in moves.units} == {1.0}


def test_an_optimizer_without_a_direction_is_told():
    """Once a step has been taken, as before that none has."""
    net, optimizer, _ = attached(nnlr.assign("update", "max", every=1))
    step(net, optimizer, 0)
    with pytest.warns(nnlr.NnlrWarning, match="the state of SGD has no direction"):
        step(net, optimizer, 1)


def test_decay_that_is_nowhere_is_told():
    """A multiple of 0 is 0; where something has decay, all is well."""
    net = network()
    plan = nnlr.resolve(net, nnlr.alpha_decay(min_eigenvalues=2), lr=0.1, weight_decay=0)
    with pytest.warns(nnlr.NnlrWarning, match="alpha_decay.* all that it moves has a weight decay"):
        nnlr.attach(plan.optimizer(torch.optim.AdamW), plan)
    attached(nnlr.no_weight_decay() * nnlr.alpha_decay(min_eigenvalues=2), torch.optim.AdamW)


def conv(at, to):
    """A convolution."""
    return nn.Conv2d(at, to, 3)


@pytest.mark.parametrize(
    ("modules", "follows"),
    [
        ({"a": conv(2, 4), "b": conv(4, 4), "bn": nn.BatchNorm2d(4)}, {"bn": "b"}),
        (
            {"a": conv(4, 4), "b": conv(4, 4), "fc": nn.Linear(4, 2)}
            | {"x": nn.BatchNorm2d(4), "y": nn.BatchNorm2d(4)},
            {"x": "a", "y": "b"},
        ),
        (
            {"x": nn.BatchNorm2d(4), "a": conv(4, 4), "y": nn.BatchNorm2d(4)}
            | {"b": conv(4, 4), "shortcut": conv(4, 4)},
            {"x": "a", "y": "b"},
        ),
        ({"a": conv(2, 3), "bn": nn.BatchNorm2d(4), "fc": nn.Linear(4, 2)}, {"bn": "bn"}),
    ],
)
def test_a_batch_norm_moves_with_the_layer_before_it(modules, follows):
    """In a row, with as many layers; where one comes first, each with the layer after it."""
    net = nn.ModuleDict(modules)
    plan = nnlr.resolve(net, nnlr.assign("rgn", "max", every=1), lr=0.1, weight_decay=0)
    units = {name: plan[f"{name}.weight"].trace[0].factor.moves.unit for name in follows}
    assert follows == units
