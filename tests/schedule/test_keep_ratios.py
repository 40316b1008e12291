"""nnlr.keep_ratios: a trainer's own scheduler writes one rate into every group."""

import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr._schedule import keep_ratios as ratios
from nnlr._schedule.keep_ratios import keep_ratios

MULTS = (0.1, 1.0, 0.0, 2.0)


def optimizer_of(mults=MULTS, *, tensors=False):
    """Groups with true rates and multipliers."""
    groups = [
        {
            "params": [nn.Parameter(torch.ones(1))],
            "lr": torch.tensor(0.5 * mult) if tensors else 0.5 * mult,
            "lr_mult": mult,
        }
        for mult in mults
    ]
    return torch.optim.SGD(groups, lr=0.5)


def rates(optimizer):
    """Rates as floats."""
    return [float(group["lr"]) for group in optimizer.param_groups]


@pytest.mark.parametrize("tensors", [False, True])
def test_every_group_follows_the_reference(tensors):
    """One rate written into all groups becomes ratios again before the step."""
    optimizer = optimizer_of(tensors=tensors)
    keep_ratios(optimizer)
    held = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        if tensors:
            group["lr"].fill_(0.2)
        else:
            group["lr"] = 0.2
    with pytest.warns(nnlr.NnlrWarning, match="group 0 had 0.2 instead of 0.02, group 2 had 0.2"):
        optimizer.step()
    assert [0.02, 0.2, 0.0, 0.4] == pytest.approx(rates(optimizer))
    if tensors:
        assert all(a is g["lr"] for a, g in zip(held, optimizer.param_groups, strict=True))


def test_a_floor_is_a_floor_of_the_reference():
    """Torch's cosine with a floor, over a whole run: said once, right at every step."""
    optimizer = optimizer_of()
    keep_ratios(optimizer)
    scheduler = lrs.CosineAnnealingLR(optimizer, 10, eta_min=0.1)
    optimizer.step()
    scheduler.step()
    with pytest.warns(nnlr.NnlrWarning, match="have been restored"):
        optimizer.step()
    for _ in range(8):  # a second warning would be an error
        scheduler.step()
        optimizer.step()
        base = rates(optimizer)[1]
        assert [base * mult for mult in MULTS] == pytest.approx(rates(optimizer))
    assert 0.1 == pytest.approx(base, rel=0.1)


def test_where_nothing_is_lost_nothing_is_said():
    """A multiplicative scheduler keeps the ratios itself."""
    optimizer = optimizer_of()
    handle = keep_ratios(optimizer)
    scheduler = lrs.ExponentialLR(optimizer, 0.9)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    handle.remove()
    optimizer.param_groups[0]["lr"] = 7.0
    optimizer.step()
    assert 7.0 == rates(optimizer)[0]


def test_what_is_not_lost_is_not_touched():
    """No bit of a healthy run changes, and a slow group is held as closely as a fast one."""
    optimizer = optimizer_of((1.0, 1e-6, 0.0))
    keep_ratios(optimizer)
    slow = 5e-7 * (1 + 1e-12)
    optimizer.param_groups[1]["lr"] = slow
    optimizer.step()
    assert [0.5, slow, 0.0] == rates(optimizer)
    optimizer.param_groups[1]["lr"] = 6e-7
    optimizer.param_groups[2]["lr"] = 1e-9
    with pytest.warns(nnlr.NnlrWarning, match="group 1 had 6e-07 instead of 5e-07"):
        optimizer.step()
    assert [0.5, 5e-7, 0.0] == pytest.approx(rates(optimizer))


def test_groups_without_a_multiplier_are_left_alone():
    """What a fine-tuning callback adds has a rate of its own."""
    optimizer = optimizer_of()
    keep_ratios(optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 9.0})
    optimizer.step()
    assert 9.0 == rates(optimizer)[-1]


def test_without_a_multiplier_of_1_the_largest_is_believed():
    """The reference is never a group that is locked or slower than another."""
    optimizer = optimizer_of((0.1, 0.5, 0.0))
    keep_ratios(optimizer)
    optimizer.param_groups[1]["lr"] = 1.0
    with pytest.warns(nnlr.NnlrWarning, match="group 0 had 0.05 instead of 0.2"):
        optimizer.step()
    assert [0.2, 1.0, 0.0] == pytest.approx(rates(optimizer))


class Flattening(lrs.LRScheduler):
    """A scheduler that nobody has heard of: one rate for all groups, from step 2 on."""

    def get_lr(self):
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return rates if self.last_epoch < 2 else [0.2] * len(rates)


@pytest.mark.parametrize("tensors", [False, True])
def test_watching_warns_once_and_changes_nothing(tensors):
    """The run is bit for bit that without the hook; the warning names what drifted."""
    watched, plain = optimizer_of(tensors=tensors), optimizer_of(tensors=tensors)
    assert not ratios.keeps_ratios(watched)
    keep_ratios(watched, correct=False)
    assert not ratios.keeps_ratios(watched)
    schedulers = [Flattening(watched), Flattening(plain)]
    said = []
    for _ in range(5):
        for optimizer in (watched, plain):
            for group in optimizer.param_groups:
                group["params"][0].grad = torch.ones(1)
        with warnings.catch_warnings(record=True, action="always") as caught:
            watched.step()
        said += [str(each.message) for each in caught]
        plain.step()
        for scheduler in schedulers:
            scheduler.step()
        assert rates(plain) == rates(watched)
        for one, other in zip(plain.param_groups, watched.param_groups, strict=True):
            assert torch.equal(one["params"][0], other["params"][0])
    (only,) = said
    assert only.startswith(
        "The ratios between groups are lost: group 0 had 0.2 instead of 0.02, "
        "group 2 had 0.2 instead of 0, group 3 had 0.2 instead of 0.4."
    )
    assert "nothing was changed, and this is not said again" in only


def test_once_it_has_warned_watching_costs_nothing():
    """Groups are not read any more: even one without a rate does no harm."""
    optimizer = optimizer_of()
    keep_ratios(optimizer, correct=False)
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.warns(nnlr.NnlrWarning, match="group 0 had 0.5 instead of 0.05"):
        optimizer.step()
    optimizer.param_groups[0]["lr_mult"] = "not read"
    optimizer.step()


def test_a_healthy_run_is_watched_in_silence():
    """As with correction."""
    optimizer = optimizer_of()
    handle = keep_ratios(optimizer, correct=False)
    scheduler = lrs.ExponentialLR(optimizer, 0.9)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    handle.remove()
    optimizer.param_groups[0]["lr"] = 7.0
    optimizer.step()


def test_whether_ratios_are_held_can_be_asked():
    """Only a hook that corrects holds them, and only until it is removed."""
    optimizer = optimizer_of()
    handle = keep_ratios(optimizer)
    assert ratios.keeps_ratios(optimizer)
    handle.remove()
    assert not ratios.keeps_ratios(optimizer)


def test_what_cannot_be_held_is_refused():
    """No optimizer, no multipliers, no hooks."""
    with pytest.raises(nnlr.NnlrError, match="keep_ratios needs a torch optimizer"):
        keep_ratios(nn.Linear(1, 1))
    with pytest.raises(nnlr.ConfigError, match="there are no ratios to keep"):
        keep_ratios(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1))

    class Bare(torch.optim.Optimizer):
        def __init__(self):
            """Skips the base class, as some wrappers do."""

    with pytest.raises(nnlr.ConfigError, match="Bare runs no step hooks"):
        keep_ratios(Bare())

    class Hooked(Bare):
        """Has the dicts, and a step that does not look at them."""

        def __init__(self):
            self._optimizer_step_pre_hooks = {}

    with pytest.raises(nnlr.ConfigError, match="Hooked runs no step hooks"):
        keep_ratios(Hooked())


@pytest.mark.parametrize(
    ("position", "key", "bad", "says"),
    [
        (1, "lr", float("nan"), "group 0 would be nan: the rate of the reference group is nan"),
        (1, "lr", float("inf"), "group 0 would be inf"),
        (1, "lr", -1.0, r"group 0 would be -0\.1"),
        (3, "lr_mult", float("nan"), "group 3 would be nan"),
        (0, "lr_mult", -0.1, r"group 0 would be -0\.05"),
    ],
)
def test_a_rate_that_no_training_can_use_is_not_spread(position, key, bad, says):
    """Before the step, and nothing is changed."""
    optimizer = optimizer_of()
    keep_ratios(optimizer)
    optimizer.param_groups[position][key] = bad
    before = repr(rates(optimizer))
    with pytest.raises(nnlr.ConfigError, match=says):
        optimizer.step()
    assert before == repr(rates(optimizer))


def test_a_rate_of_another_group_that_is_nan_is_corrected():
    """The reference group is believed."""
    optimizer = optimizer_of()
    keep_ratios(optimizer)
    optimizer.param_groups[0]["lr"] = float("nan")
    with pytest.warns(nnlr.NnlrWarning, match="group 0 had nan instead"):
        optimizer.step()
    assert [0.05, 0.5, 0.0, 1.0] == pytest.approx(rates(optimizer))


def test_the_switch_is_a_switch():
    """Text is not taken for True."""
    with pytest.raises(nnlr.NnlrError, match="correct must be True or False, got 'no'"):
        keep_ratios(optimizer_of(), correct="no")
