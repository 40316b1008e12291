"""warmup: YOLOv5's warm-up of biases, DINO's last layer, and layers that begin in turn."""

import io

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError
from nnlr.testing import SchemeLaws
from tests.helpers import same_weights

LAYERS = {f"{at}.*": at for at in range(3)}
BIASES = nnlr.role("bias")


@pytest.mark.no_cover
class TestWarmupLaws(SchemeLaws):
    """The laws, while layers begin."""

    def schemes(self):
        by_number = nnlr.depth.by_function(lambda param: int(param.name.split(".")[0]))
        return [nnlr.warmup(3, delay=2, indexer=by_number)]


def make(scheme, kind=torch.optim.SGD, **settings):
    """Three layers, attached."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
    plan = nnlr.resolve(net, scheme, lr=0.01, weight_decay=0.1)
    optimizer = plan.optimizer(kind, **settings)
    return net, optimizer, nnlr.attach(optimizer, plan)


def train(net, optimizer, attached, steps=1):
    """Some steps, on data that depend on the step."""
    for _ in range(steps):
        torch.manual_seed(attached.progress.step)
        optimizer.zero_grad()
        net(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()


def rates(net, optimizer):
    """The rate of each parameter."""
    rate_of = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: rate_of[param] for name, param in net.named_parameters()}


def test_biases_fall_while_all_else_rises():
    """YOLOv5: interpolated from warmup_bias_lr 0.1, and from 0, to lr0 of 0.01 in 100 steps."""
    scheme = nnlr.warmup(100, start=0.1 / 0.01).where(BIASES) * nnlr.warmup(100).where(~BIASES)
    net, optimizer, _ = make(scheme)
    for step in range(110):
        t = min(step / 100, 1)
        for name, rate in rates(net, optimizer).items():
            first = 0.1 if name.endswith("bias") else 0.0
            assert rate == pytest.approx(first + (0.01 - first) * t, rel=1e-12)
        optimizer.step()


def test_it_multiplies_with_a_schedule():
    """Under a decay of the base rate the ramp is one towards the rate of the moment."""
    net, optimizer, _ = make(nnlr.warmup(4).where("0.*"))
    half = torch.optim.lr_scheduler.StepLR
    schedule = nnlr.schedule(optimizer, half, step_size=1, gamma=0.5)
    for step in range(6):
        lr = rates(net, optimizer)
        assert lr["1.weight"] == pytest.approx(0.01 * 0.5**step)
        assert lr["0.weight"] == pytest.approx(0.01 * 0.5**step * min(step / 4, 1))
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("lock", [True, False])
def test_the_last_layer_begins_later(lock):
    """DINO cancels its gradient for the first epoch: no step, no decay, and no state of AdamW.

    DINOv2 sets its rate to 0: no step and no decay, and the averages of AdamW fill.
    """
    scheme = nnlr.warmup(0, after=5, lock=lock).where("2.*")
    net, optimizer, attached = make(scheme, torch.optim.AdamW)
    first = net[2].weight.detach().clone()
    for step in range(5):
        train(net, optimizer, attached)
        assert torch.equal(net[2].weight, first)
        assert (net[2].weight in optimizer.state) == (not lock)
        assert net[2].weight.requires_grad == (not lock or step == 4)
    assert rates(net, optimizer)["2.weight"] == 0.01
    train(net, optimizer, attached)
    assert not torch.equal(net[2].weight, first)


def test_cancelled_gradients_are_the_same_run():
    """Weights equal those of a loop that sets the last layer's gradients to None."""
    net, optimizer, attached = make(nnlr.warmup(0, after=3).where("2.*"), torch.optim.AdamW)
    train(net, optimizer, attached, 6)
    torch.manual_seed(0)
    other = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
    plain = torch.optim.AdamW(other.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(6):
        torch.manual_seed(step)
        plain.zero_grad()
        other(torch.randn(4, 3)).square().sum().backward()
        for param in other[2].parameters():
            param.grad = param.grad if step >= 3 else None
        plain.step()
    assert same_weights(net, other)


def test_lower_layers_begin_later():
    """Each begins three steps after the one above, at half its rate, and is locked before."""
    net, optimizer, attached = make(nnlr.warmup(2, delay=3, indexer=LAYERS))
    for step in range(10):
        lr = rates(net, optimizer)
        for layer in range(3):
            begins = 3 * (2 - layer)
            expected = 0.0 if step < begins else 0.005 if step == begins else 0.0075
            expected = 0.01 if step > begins + 1 else expected
            assert lr[f"{layer}.weight"] == pytest.approx(expected)
            assert net[layer].weight.requires_grad == (expected > 0)
        train(net, optimizer, attached)


def test_not_all_can_wait():
    """Locks on all that is trained are refused, as a backward pass would fail."""
    with pytest.raises(ConfigError, match=r"warmup\(0, after=5\) locks all .* until step 5.*where"):
        make(nnlr.warmup(0, after=5))
    net, optimizer, attached = make(nnlr.warmup(0, after=1, lock=False))
    train(net, optimizer, attached, 2)
    net, optimizer, attached = make(nnlr.warmup(3, after=5).where("2.*"))
    train(net, optimizer, attached, 7)
    assert rates(net, optimizer)["2.weight"] == pytest.approx(0.01 * (1 / 3 + 2 / 3 * 2 / 3))


def test_what_is_outside_begins_with_the_top():
    """A mapping that leaves a layer out leaves it to begin at once."""
    scheme = nnlr.warmup(0, delay=2, indexer={"0.*": 0, "1.*": 1})
    net, optimizer, attached = make(scheme)
    assert [unit.name for unit in attached.units] == ["layer0", "layer1", "outside"]
    assert list(rates(net, optimizer).values()) == [0, 0, 0.01, 0.01, 0.01, 0.01]


def test_a_resumed_run_goes_on_to_the_last_bit():
    """With one layer at its rate, one on the way, and one that waits."""
    scheme = nnlr.warmup(3, delay=3, start=0.1, indexer=LAYERS)
    whole = make(scheme, torch.optim.AdamW)
    train(*whole, 5)
    file = io.BytesIO()
    torch.save([whole[0].state_dict(), whole[1].state_dict()], file)
    train(*whole, 6)
    resumed = make(scheme, torch.optim.AdamW)
    file.seek(0)
    for part, state in zip(resumed[:2], torch.load(file), strict=True):
        part.load_state_dict(state)
    train(*resumed, 6)
    assert same_weights(whole[0], resumed[0])


def test_a_plan_says_what_moves():
    """The course in words, for each form."""
    for scheme, words in [
        (nnlr.warmup(100, start=10), "from 10 to 1 in 100 steps"),
        (nnlr.warmup(0, after=5), "0, locked, until step 5, then 1"),
        (nnlr.warmup(3, after=5, lock=False), "0 until step 5, then from 0.333 to 1 in 3 steps"),
        (
            nnlr.warmup(3, delay=5, indexer=LAYERS),
            "0, locked, until step 10, then from 0.333 to 1 in 3",
        ),
    ]:
        plan = nnlr.resolve(nn.Sequential(*(nn.Linear(1, 1) for _ in range(3))), scheme, **RATES)
        assert words in " ".join(plan.explain("0.weight").split())


RATES = {"lr": 1, "weight_decay": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1}, "steps must be a whole number >= 0, got -1"),
        ({"steps": 0.1}, "steps must be a whole number >= 0, got 0.1"),
        ({"steps": 5, "start": -1}, "start must be a finite number >= 0, got -1"),
        ({"steps": 5, "after": True}, "after must be a whole number >= 0"),
        ({"steps": 5, "delay": None}, "delay must be a whole number >= 0"),
        ({"steps": 5, "after": 1, "lock": 1}, "lock must be True or False"),
        ({"steps": 0}, r"a warm-up of 0 steps that begins at once has no effect: warmup\(0\)"),
        ({"steps": 0, "after": 3, "start": 2}, "start=2 of 0 steps has no effect"),
        ({"steps": 9, "start": 1}, "a warm-up from 1 to 1 has no effect"),
        (
            {"steps": 9, "after": 2, "start": 0},
            "start=0, which would be one more step of waiting, has",
        ),
        ({"steps": 9, "lock": False}, "lock=False, where nothing waits, has no effect"),
        ({"steps": 9, "indexer": "vit"}, "indexer='vit' without delay has no effect"),
    ],
)
def test_arguments_are_checked_at_the_call(arguments, message):
    """What is wrong, or can do nothing, is refused where it is written."""
    with pytest.raises(NnlrError, match=message):
        nnlr.warmup(**arguments)


def test_the_repr_is_the_call():
    """Defaults are left out."""
    assert repr(nnlr.warmup(100)) == "warmup(100)"
    other = nnlr.warmup(5, start=2, after=3, delay=4, lock=False, indexer="vit")
    assert repr(other) == "warmup(5, start=2.0, after=3, delay=4, lock=False, indexer='vit')"


def test_within_a_part_of_a_model():
    """Units that carry the path of the part begin as those of the part alone."""
    net = nn.ModuleDict({"part": nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))})
    scheme = nnlr.warmup(0, delay=2, indexer=LAYERS).within("part")
    plan = nnlr.resolve(net, scheme, **RATES)
    attached = nnlr.attach(plan.optimizer(torch.optim.SGD), plan)
    assert [unit.mult for unit in attached.units] == [0, 0, 1]
