"""freeze_out: the schedule of the authors' code, locks, norms in eval mode, and resuming."""

import io
import pickle
from math import cos, pi

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError
from nnlr.testing import SchemeLaws
from tests.helpers import same_weights

STAGES = {f"{at}.*": at for at in range(4)}


@pytest.mark.no_cover
class TestFreezeOutLaws(SchemeLaws):
    """The laws, while layers freeze."""

    def schemes(self):
        by_number = nnlr.depth.by_function(lambda param: int(param.name.split(".")[0]))
        return [nnlr.freeze_out(indexer=by_number)]


def stage(batch_norm=True, affine=True):
    """A convolution, with a batch norm that has parameters or has not."""
    norm = [nn.BatchNorm2d(3, affine=affine)] if batch_norm else []
    return nn.Sequential(nn.Conv2d(3, 3, 1), *norm, nn.ReLU())


def make(scheme, *, total=20, optimizer=torch.optim.SGD, affine=True, schedule=False, **settings):
    """A network of four stages with the last one a head, attached."""
    torch.manual_seed(0)
    net = nn.Sequential(stage(), stage(affine=affine), stage(), stage(batch_norm=False))
    plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.01)
    optimizer = plan.optimizer(optimizer, **settings)
    attached = nnlr.attach(optimizer, plan, total_steps=total)
    if schedule:
        nnlr.schedule(optimizer, nnlr.WarmupDecay, total_steps=total, warmup=0.1, shape="constant")
    return net, plan, optimizer, attached


def train(net, optimizer, attached, steps):
    """Some steps, on data that depend on the step."""
    for _ in range(steps):
        torch.manual_seed(attached.progress.step)
        optimizer.zero_grad()
        net(torch.randn(4, 3, 2, 2)).square().sum().backward()
        optimizer.step()


def reference(layers, total, t_0, power, scale):
    """The rates at each step, as the authors' update_lr comes to, and None once it has frozen.

    It visits layers in order, and compares the step with ``max_j = total * ratio``.
    """
    ratios = [(t_0 + (1 - t_0) * at / (layers - 1)) ** power for at in range(layers)]
    rates = []
    for j in range(total):
        now = []
        for ratio in ratios:
            half = 0.05 * (1 + cos(pi * j / (total * ratio)))
            now.append(None if j > total * ratio else half / ratio if scale else half)
        rates.append(now)
    return rates


@pytest.mark.parametrize(
    ("t_0", "shape", "power", "scale"),
    [
        (0.8, "cubic", 3, True),
        (0.5, "linear", 1, False),  # max_j of the first layer is a whole step
        (0.3, "squared", 2, True),
        (1, "linear", 1, True),
    ],
)
def test_rates_are_those_of_the_authors_code(t_0, shape, power, scale):
    """At every step, for every layer: the same rate, and frozen when it is dropped there.

    Where the last step of a layer is a whole one, its rate in it is 0 there and it is frozen here.
    """
    scheme = nnlr.freeze_out(t_0, shape, scale=scale, indexer=STAGES)
    net, _, optimizer, _ = make(scheme, total=40)
    expected = reference(4, 40, t_0, power, scale)
    by_layer = [net[at][0].weight for at in range(4)]
    for rates in expected:
        for at, rate in enumerate(rates):
            (group,) = [g for g in optimizer.param_groups if by_layer[at] in {*g["params"]}]
            assert group["lr"] == pytest.approx(rate or 0.0, rel=1e-12, abs=0)
            assert by_layer[at].requires_grad == bool(rate)
        optimizer.step()


def test_some_numbers_by_hand():
    """With defaults 0.8 cubed is 0.512: 1.953 times at first, half of that in the middle."""
    scheme = nnlr.freeze_out(indexer=STAGES)
    _, _, optimizer, attached = make(scheme, total=1000)
    assert attached.units[0].mult == pytest.approx(1 / 0.512)
    assert [attached.units[3].mult, attached.units[3].name] == [1, "layer3"]
    for _ in range(256):
        optimizer.step()
    assert attached.units[0].mult == pytest.approx(0.5 / 0.512)


def test_areas_are_equal_when_scaled():
    """The sum of a layer's rates over the run is that of a layer trained to the end."""
    scheme = nnlr.freeze_out(0.5, indexer=STAGES)
    _, _, optimizer, attached = make(scheme, total=100)
    areas = torch.zeros(4)
    for _ in range(100):
        areas += torch.tensor([unit.mult for unit in attached.units])
        optimizer.step()
    # Half a step of the first rate is the error of the sum.
    assert areas.tolist() == pytest.approx([50.5 + (1 / part - 1) / 2 for part in PARTS], rel=2e-3)


PARTS = [0.5**3, (0.5 + 0.5 / 3) ** 3, (0.5 + 1 / 3) ** 3, 1.0]


@pytest.mark.parametrize("affine", [True, False])
def test_a_frozen_layer_stands_still(affine):
    """No gradient, no step, and running statistics as they are, whatever train() says.

    Of a norm without parameters the module around it decides. Another optimizer's hooks apart,
    nothing below the lowest trained layer is in the graph.
    """
    net, _, optimizer, attached = make(
        nnlr.freeze_out(0.5, "linear", indexer=STAGES), affine=affine
    )
    train(net, optimizer, attached, 14)
    assert [param.requires_grad for param in net.parameters()] == [
        *[False] * (4 + (4 if affine else 2)),
        *[True] * 6,
    ]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    train(net, optimizer, attached, 1)
    moved = {
        name.split(".")[0]
        for name, value in net.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"2", "3"}
    assert all(module.training for module in net.modules())
    assert not net[1](net[0](torch.randn(4, 3, 2, 2))).requires_grad
    frozen, images = net[0][1], torch.randn(4, 3, 2, 2)
    expected = frozen.eval()(images)
    assert torch.equal(frozen.train()(images), expected)


def test_norms_follow_their_locks_in_copies_too():
    """A pickled model has them frozen, and a plan that trains them again has them go on."""
    net, _, optimizer, attached = make(nnlr.freeze_out(0.5, "linear", indexer=STAGES))
    train(net, optimizer, attached, 12)
    copied = pickle.loads(pickle.dumps(net))
    mean = copied[0][1].running_mean.clone()
    copied(torch.randn(4, 3, 2, 2))
    assert torch.equal(copied[0][1].running_mean, mean)
    plain = nnlr.resolve(net, nnlr.rule("*").at(lambda t: 1.0), lr=0.1, weight_decay=0.01)
    nnlr.regroup(optimizer, plan=plain)
    net(torch.randn(4, 3, 2, 2))
    assert not torch.equal(net[0][1].running_mean, mean)
    assert not net[0][1]._forward_pre_hooks
    assert not net[0][1]._forward_hooks


def test_bare_tensors_have_no_norms():
    """A plan for named tensors is attached all the same."""
    net = nn.Sequential(stage(), stage())
    tensors = dict(net.named_parameters())
    plan = nnlr.resolve(
        tensors, nnlr.freeze_out(indexer={"0.*": 0, "1.*": 1}), lr=1, weight_decay=0
    )
    optimizer = plan.optimizer(torch.optim.SGD, model=tensors)
    nnlr.attach(optimizer, plan, model=tensors, total_steps=4)
    for _ in range(3):
        optimizer.step()
    assert [tensor.requires_grad for tensor in tensors.values()] == [False] * 4 + [True] * 4


def test_past_the_end_rates_stay():
    """A step more than was said trains the last layer at its last rate, and does not fail."""
    net, _, optimizer, attached = make(nnlr.freeze_out(indexer=STAGES))
    train(net, optimizer, attached, 19)
    last = attached.units[3].mult
    assert 0 < last < 0.01
    train(net, optimizer, attached, 3)
    assert attached.units[3].mult == last


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, nnlr.optim.AdamW], ids=["torch", "nnlr"])
def test_a_resumed_run_goes_on_to_the_last_bit(optimizer):
    """With layers that are frozen by then, and one that freezes after."""
    scheme = nnlr.freeze_out(0.5, "linear", indexer=STAGES)
    whole = make(scheme, optimizer=optimizer)
    train(whole[0], *whole[2:], 12)
    file = io.BytesIO()
    torch.save([whole[0].state_dict(), whole[2].state_dict()], file)
    train(whole[0], *whole[2:], 6)
    resumed = make(scheme, optimizer=optimizer)
    file.seek(0)
    for part, state in zip((resumed[0], resumed[2]), torch.load(file), strict=True):
        part.load_state_dict(state)
    assert not resumed[0][0][0].weight.requires_grad
    train(resumed[0], *resumed[2:], 6)
    assert same_weights(whole[0], resumed[0])


def test_multipliers_of_other_schemes_and_schedules_multiply():
    """A warm-up and layer decay of another reading of depth, times the half cosine."""
    scheme = nnlr.freeze_out(indexer=STAGES) * nnlr.layer_decay(1.0, {"0.*": 2, "3.*": 7})
    net, _, optimizer, attached = make(scheme * nnlr.rule("0.*", lr_mult=0.1), schedule=True)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0] * 4
    assert [unit.name for unit in attached.units] == ["layer0", "layer1", "layer2", "layer3"]
    multipliers = {
        at: group["lr_mult"]
        for group in optimizer.param_groups
        for at in range(4)
        if net[at][0].weight in {*group["params"]}
    }
    assert multipliers[0] == pytest.approx(0.1 / 0.512)
    assert multipliers[3] == 1


def test_a_plan_says_what_moves():
    """Explain has the course of a layer in words; what is in no layer is a finding."""
    net = nn.Sequential(stage(), stage())
    plan = nnlr.resolve(
        net, nnlr.freeze_out(indexer={"0.*": 0, "1.0.weight": 1}), lr=1, weight_decay=0
    )
    said = {name: " ".join(plan.explain(name).split()) for name in ("0.0.weight", "1.0.bias")}
    assert "cosine from 1.95 to 0 at 51.2% of the run, then locked" in said["0.0.weight"]
    assert "cosine from 1 to 0 at the end" in said["1.0.bias"]
    (finding,) = plan.findings
    assert finding.kind == "freeze-out-outside"
    assert finding.names == ("1.0.bias", "1.1.weight", "1.1.bias")


def test_a_length_is_needed():
    """Without total_steps nobody knows when a layer is done."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    plan = nnlr.resolve(net, nnlr.freeze_out(indexer={"0.*": 0, "1.*": 1}), lr=1, weight_decay=0)
    with pytest.raises(ConfigError, match=r"freeze_out\(.*how long the run is.*total_steps"):
        nnlr.attach(plan.optimizer(torch.optim.SGD), plan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_0": 0}, r"t_0 must be a finite number > 0 and <= 1, got 0"),
        ({"t_0": 1.5}, "t_0 must be .* <= 1"),
        ({"t_0": "0.5"}, r"t_0 must be .*It is text: pass 0\.5"),
        ({"shape": "cubik"}, "shape must be one of 'cubic', 'squared', 'linear'.*'cubic'"),
        ({"scale": 1}, "scale must be True or False"),
        ({"indexer": "autos"}, "indexer must be one of"),
    ],
)
def test_arguments_are_checked_at_the_call(arguments, message):
    """What is wrong is refused where it is written."""
    with pytest.raises(NnlrError, match=message):
        nnlr.freeze_out(**arguments)


def test_the_repr_is_the_call():
    """Defaults are left out."""
    assert repr(nnlr.freeze_out()) == "freeze_out()"
    other = nnlr.freeze_out(0.5, "linear", scale=False, indexer="timm")
    assert repr(other) == "freeze_out(t_0=0.5, shape='linear', scale=False, indexer='timm')"


def test_within_a_part_of_a_model():
    """Units that carry the path of the part are frozen as those of the part alone."""
    net = nn.ModuleDict({"part": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))})
    scheme = nnlr.freeze_out(0.5, "linear", indexer={"0.*": 0, "1.*": 1}).within("part")
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
    attached = nnlr.attach(plan.optimizer(torch.optim.SGD), plan, total_steps=4)
    assert {unit.name: unit.mult for unit in attached.units} == {"part.layer0": 2, "part.layer1": 1}
