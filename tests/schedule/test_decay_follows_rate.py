"""Weight decay that follows the rate: AdamC on any optimizer, and published decay schedules."""

from functools import partial
from math import cos, pi

import pytest
import timm.optim
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr._schedule.base_rate import BaseRate
from nnlr.errors import NnlrError

LR, DECAY, STEPS = 0.01, 0.5, 30
WARM = {"total_steps": STEPS, "warmup": 0.2, "floor": 0.1}


def network(dtype=torch.float64):
    """Two layers, the same each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype)


def optimizer_of(kind, *schemes, lr=LR, weight_decay=DECAY):
    """An optimizer of the network, which it keeps alive."""
    net = network()
    classes = dict.fromkeys(lr, kind) if isinstance(lr, dict) else kind
    return nnlr.resolve(net, *schemes, lr=lr, weight_decay=weight_decay).optimizer(classes)


def rate_at(step):
    """The course of the tests, by hand."""
    if step < 6:
        return LR * step / 6
    return LR * (1 - 0.9 * (1 - cos(pi * (step - 6) / 24)) / 2)


def train(net, optimizer, *, scheduler=None):
    """Thirty steps; without a scheduler rates are written by hand."""
    for step in range(STEPS):
        torch.manual_seed(step)
        if scheduler is None:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step)
        optimizer.zero_grad()
        net(torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return torch.cat([param.detach().flatten() for param in net.parameters()])


def corrected(kind, **settings):
    """The weights after thirty steps with decay that follows the rate."""
    net = network()
    plan = nnlr.resolve(net, lr=LR, weight_decay=DECAY)
    optimizer = plan.optimizer(kind, **settings)
    scheduler = nnlr.schedule(optimizer, nnlr.WarmupDecay, weight_decay="lr", **WARM)
    return train(net, optimizer, scheduler=scheduler)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, nnlr.optim.AdamW], ids=["torch", "nnlr"])
def test_adamw_is_timms_with_corrected_decay(kind):
    """To 1e-12, after 30 steps of a warm-up and a cosine; and not without the correction."""
    net = network()
    settings = {"lr": LR, "weight_decay": DECAY}
    reference = timm.optim.AdamWLegacy(net.parameters(), **settings, corrected_weight_decay=True)
    expected = train(net, reference)
    torch.testing.assert_close(corrected(kind), expected, rtol=1e-12, atol=1e-12)
    plain = train(net := network(), timm.optim.AdamWLegacy(net.parameters(), **settings))
    assert not torch.allclose(plain, expected, rtol=1e-3)


def test_adamw_is_adamc_of_pytorch_optimizer():
    """Its class for normalised layers, where it is installed."""
    peers = pytest.importorskip("pytorch_optimizer")
    net = network()
    groups = [{"params": list(net.parameters()), "normalized": True}]
    expected = train(net, peers.AdamC(groups, lr=LR, weight_decay=DECAY))
    torch.testing.assert_close(corrected(torch.optim.AdamW), expected, rtol=1e-6, atol=1e-6)


def test_other_optimizers_with_decoupled_decay():
    """Timm's Lion and SGDW, with their own correction and with ours."""
    for kind, settings in ((timm.optim.Lion, {}), (timm.optim.SGDW, {"momentum": 0.9})):
        net = network()
        expected = train(
            net,
            kind(net.parameters(), LR, weight_decay=DECAY, corrected_weight_decay=True, **settings),
        )
        torch.testing.assert_close(corrected(kind, **settings), expected, rtol=1e-12, atol=1e-12)


def test_it_is_for_the_layers_that_are_named():
    """A mapping of groups, as AdamC is for normalised layers; the decay of others is constant."""
    net = network()
    scheme = nnlr.rule("0.*", group="normalised") * nnlr.rule("*.weight", lr_mult=0.1, wd_mult=2)
    plan = nnlr.resolve(net, scheme, lr=LR, weight_decay=DECAY)
    optimizer = plan.optimizer(torch.optim.AdamW)
    follows = {"normalised*": "lr"}
    scheduler = nnlr.schedule(optimizer, nnlr.WarmupDecay, weight_decay=follows, **WARM)
    for step in range(12):
        for group in optimizer.param_groups:
            part = rate_at(step) / LR if "normalised" in group["name"] else 1
            assert group["lr"] == pytest.approx(rate_at(step) * group["lr_mult"], abs=1e-15)
            assert group["weight_decay"] == pytest.approx(DECAY * group["wd_mult"] * part)
        optimizer.step()
        scheduler.step()


def test_each_group_follows_its_own_rate():
    """Under courses by group, and beside another schedule; of two algorithms each its own."""
    net = network()
    plan = nnlr.resolve(net, nnlr.rule("*.bias", group="bias"), lr=LR, weight_decay=DECAY)
    optimizer = plan.optimizer(torch.optim.AdamW)
    courses = {"bias": partial(lrs.ExponentialLR, gamma=0.5), "*": lrs.ConstantLR}
    first = nnlr.schedule(optimizer, courses, weight_decay="lr")
    second = nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.1, beside=first)
    optimizer.step()
    first.step()
    second.step()
    parts = {group["name"]: group["lr"] / LR for group in optimizer.param_groups}
    decays = {group["name"]: group["weight_decay"] / DECAY for group in optimizer.param_groups}
    assert parts == pytest.approx(decays)
    assert parts["bias"] == pytest.approx(0.05)

    routes = nnlr.rules([nnlr.rule("0.*", algorithm="a"), nnlr.rule("1.*", algorithm="b")])
    bases = {"lr": {"a": 0.1, "b": 0.2}, "weight_decay": {"a": 0.3, "b": 0.4}}
    optimizer = optimizer_of(torch.optim.AdamW, routes, **bases)
    scheduler = nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.5, weight_decay="lr")
    optimizer.step()
    scheduler.step()
    rates = [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert rates == [pytest.approx((0.05, 0.15)), pytest.approx((0.1, 0.2))]


def test_the_base_that_is_set_by_hand_is_the_peak():
    """set_base_lr moves rate and peak; the decay stays the part of the curve."""
    optimizer = optimizer_of(torch.optim.AdamW, weight_decay=DECAY)
    scheduler = nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.5, weight_decay="lr")
    optimizer.step()
    scheduler.step()
    scheduler.set_base_lr(10 * LR)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == pytest.approx((5 * LR, DECAY / 2))


def test_a_base_of_0_has_nothing_to_follow():
    """As of an algorithm whose groups all have a rate of 0: the decay is as it is."""
    rate = BaseRate("lr", {"a": 0.1, "b": 0.0})
    assert [rate.relative({"algorithm": name}) for name in "ab"] == [1.0, 1.0]


def test_a_resumed_schedule_goes_on():
    """The decay is that of the moment; a state of another form is refused."""

    def begun(decay="lr"):
        optimizer = optimizer_of(torch.optim.AdamW, weight_decay=DECAY)
        return optimizer, nnlr.schedule(optimizer, nnlr.WarmupDecay, weight_decay=decay, **WARM)

    optimizer, scheduler = begun()
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    other, resumed = begun()
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    (group,) = other.param_groups
    assert group["weight_decay"] == pytest.approx(DECAY * rate_at(10) / LR)
    _, plain = begun(partial(lrs.ExponentialLR, gamma=0.5))
    with pytest.raises(NnlrError, match="one of both has no scheduler"):
        plain.load_state_dict(scheduler.state_dict())


@pytest.mark.parametrize("decay", ["rate", {"*": "Lr"}])
def test_other_words_are_refused(decay):
    """With the one that there is; of the rate itself there is none."""
    optimizer = optimizer_of(torch.optim.AdamW, weight_decay=DECAY)
    with pytest.raises(NnlrError, match=r"Decay that follows the rate is 'lr'"):
        nnlr.schedule(optimizer, lrs.ConstantLR, weight_decay=decay)
    with pytest.raises(NnlrError, match=r"got 'lr'\.$"):
        nnlr.schedule(optimizer, "lr")


def test_dinos_cosine_of_weight_decay():
    """Final + (first - final) * (1 + cos(pi * i / n)) / 2, from 0.04 to 0.4, times wd_mult."""
    net = network()
    plan = nnlr.resolve(net, nnlr.no_weight_decay(), lr=LR, weight_decay=0.04)
    optimizer = plan.optimizer(torch.optim.AdamW)
    rising = partial(lrs.CosineAnnealingLR, T_max=STEPS, eta_min=0.4)
    scheduler = nnlr.schedule(optimizer, nnlr.WarmupDecay, weight_decay=rising, **WARM)
    for step in range(STEPS):
        due = 0.4 + (0.04 - 0.4) * (1 + cos(pi * step / STEPS)) / 2
        for group in optimizer.param_groups:
            assert group["weight_decay"] == pytest.approx(due * group["wd_mult"], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_big_visions_decay_follows_the_schedule_and_not_the_rate():
    """P -= s(t) * (lr * lr_mult * update + wd * p): wd / lr at resolve, and decay="independent"."""
    lr, wd = 1e-2, 1e-3
    net = network()
    scheme = nnlr.rule("0.*", lr_mult=0.1)
    plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=wd / lr, decay="independent")
    optimizer = plan.optimizer(torch.optim.SGD)
    scheduler = nnlr.schedule(optimizer, nnlr.WarmupDecay, **WARM)
    for step in range(STEPS):
        s = rate_at(step) / LR
        before = [param.detach().clone() for param in net.parameters()]
        optimizer.zero_grad()
        net(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
        optimizer.step()
        for at, (param, old) in enumerate(zip(net.parameters(), before, strict=True)):
            rate = lr * (0.1 if at < 2 else 1)
            expected = old - s * (rate * param.grad + wd * old)
            torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=1e-12)
        scheduler.step()


@pytest.mark.parametrize(("total", "cut_frac", "ratio"), [(100, 0.1, 32), (97, 0.25, 10)])
def test_slanted_triangular_rates(total, cut_frac, ratio):
    """ULMFiT: up in a tenth of the steps, then down, from and to a 32nd of the rate."""
    optimizer = optimizer_of(torch.optim.SGD, weight_decay=0)
    cut = int(total * cut_frac)
    scheduler = nnlr.schedule(
        optimizer,
        nnlr.WarmupDecay,
        total_steps=total,
        warmup_steps=cut,
        start=1 / ratio,
        shape="linear",
        floor=1 / ratio,
    )
    for step in range(total):
        p = step / cut if step < cut else 1 - (step - cut) / (total - cut)
        assert scheduler.base_lr == pytest.approx(LR * (1 + p * (ratio - 1)) / ratio)
        optimizer.step()
        scheduler.step()
