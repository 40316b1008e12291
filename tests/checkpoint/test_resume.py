"""Resume: what training moved continues, what the code wrote is the code's."""

import copy
import gzip
import pickle
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr.checkpoint import fit_named_state, last_report, load_dcp
from tests.helpers import same_weights

LR, DECAY = 0.05, 0.05


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def planned(net, *, mult=0.1, lr=LR, decay=DECAY, cls=torch.optim.AdamW, more=None, **settings):
    scheme = nnlr.rule("0.*", lr_mult=mult)
    scheme = scheme if more is None else scheme * more
    locked = {"locked": "keep"} if mult == 0 else {}
    plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=decay)
    return plan.optimizer(cls, **settings, **locked)


def train(net, optimizer, numbers, *schedules):
    for number in numbers:
        source = torch.Generator().manual_seed(number)
        optimizer.zero_grad()
        net(torch.randn(8, 3, generator=source)).square().mean().backward()
        optimizer.step()
        for schedule in schedules:
            schedule.step()


def by_group(optimizer, key):
    """A setting of the first and of the last layer."""
    value = {
        name[0]: group[key] for group in optimizer.param_groups for name in group["param_names"]
    }
    return value["0"], value["1"]


def reload(optimizer, saved):
    """Load in silence, and return the lines of the report."""
    with warnings.catch_warnings(action="ignore", category=nnlr.NnlrWarning):
        optimizer.load_state_dict(copy.deepcopy(saved))
    return str(last_report(optimizer))


class Growing(torch.optim.SGD):
    """Estimates a distance as Prodigy does: it grows in the groups, and multiplies the rate."""

    def __init__(self, params, lr=1.0, momentum=0.0, weight_decay=0.0, d0=0.1):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)
        for group in self.param_groups:
            group |= {"d": d0, "k": 0}
        self.defaults |= {"d": d0, "k": 0}

    def step(self, closure=None):
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["d"], group["k"] = group["d"] * 1.25, group["k"] + 1
            group["lr"] = group["lr"] * group["d"]
        super().step(closure)
        for group, lr in zip(self.param_groups, rates, strict=True):
            group["lr"] = lr


RUNS = {
    "AdamW": ({}, []),
    "AdamW, tensor rates, cosine": ({"tensor_lr": True}, [(lrs.CosineAnnealingLR, {"T_max": 9})]),
    "SGD, momentum cycled": (
        {"cls": torch.optim.SGD, "momentum": 0.9},
        [(lrs.OneCycleLR, {"max_lr": 0.1, "total_steps": 9})],
    ),
    "AdamW, betas cycled beside": (
        {},
        [
            (lrs.OneCycleLR, {"max_lr": LR, "total_steps": 9}),
            (lrs.LinearLR, {"start_factor": 0.5, "total_iters": 4}),
        ],
    ),
    "a multiplier of 0 that is kept": ({"mult": 0}, [(lrs.CosineAnnealingLR, {"T_max": 9})]),
    "a distance that grows": ({"cls": Growing, "momentum": 0.5}, []),
    "a slow cosine": ({}, [(lrs.CosineAnnealingLR, {"T_max": 10**6})]),
}


def scheduled(optimizer, courses):
    made = []
    for at, (factory, settings) in enumerate(courses):
        beside = {"beside": made[0]} if at else {}
        made.append(nnlr.schedule(optimizer, factory, **beside, **settings))
    return made


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("order", ["scheduler first", "optimizer first"])
@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_uninterrupted_one(name, order):
    """To the last bit, and without a word, in a new process and in the same one."""
    settings, courses = RUNS[name]
    whole, halted = network(), network()
    optimizer = planned(whole, **settings)
    train(whole, optimizer, range(6), *scheduled(optimizer, courses))
    first = planned(halted, **settings)
    schedules = scheduled(first, courses)
    train(halted, first, range(3), *schedules)
    saved = copy.deepcopy(
        (halted.state_dict(), first.state_dict(), [each.state_dict() for each in schedules])
    )
    train(halted, first, range(3, 5), *schedules)  # it goes on, and comes back
    for optimizer in (planned(halted, **settings), first):
        live = schedules if optimizer is first else scheduled(optimizer, courses)
        halted.load_state_dict(saved[0])
        if order == "optimizer first":
            optimizer.load_state_dict(copy.deepcopy(saved[1]))
        for each, state in zip(live, saved[2], strict=True):
            each.load_state_dict(copy.deepcopy(state))
        if order == "scheduler first":
            optimizer.load_state_dict(copy.deepcopy(saved[1]))
        assert () == last_report(optimizer).differences
        train(halted, optimizer, range(3, 6), *live)
        assert same_weights(whole, halted)


class TestRates:
    def test_without_a_schedule_another_base_counts(self):
        """Nobody moved the rate; decay likewise."""
        net = network()
        first = planned(net)
        train(net, first, [0])
        second = planned(net, lr=0.2, decay=0.1)
        said = reload(second, first.state_dict())
        assert ((0.2 * 0.1, 0.2), (0.1, 0.1)) == (
            by_group(second, "lr"),
            by_group(second, "weight_decay"),
        )
        assert "lr is 0.05 in the checkpoint and 0.2 in the code: 0.2 counts (code), for 4" in said

    def test_a_rate_set_by_hand_goes_on_in_proportion(self):
        """Group by group, exactly the saved value where the bases are equal."""
        net = network()
        first = planned(net)
        train(net, first, [0])
        first.param_groups[0]["lr"] = 0.0123
        for lr, wanted in ((LR, 0.0123), (2 * LR, 0.0246)):
            second = planned(net, lr=lr)
            reload(second, first.state_dict())
            assert (lr * 0.1, wanted) == by_group(second, "lr")

    @pytest.mark.parametrize("mult", [0.1, 0.3])
    def test_a_multiplier_moved_by_hand_goes_on(self, mult):
        """Whatever the code's is now; it is told where that has changed."""
        net = network()
        first = planned(net)
        train(net, first, [0])
        first.param_groups[1] |= {"lr_mult": 0.02, "lr": LR * 0.02}
        second = planned(net, mult=mult, lr=2 * LR)
        said = reload(second, first.state_dict())
        assert (0.02, 1.0) == by_group(second, "lr_mult")
        assert (pytest.approx(2 * LR * 0.02), 2 * LR) == by_group(second, "lr")
        assert (mult != 0.1) == ("lr_mult is 0.02 in the checkpoint and 0.3" in said)

    def test_a_multiplier_of_the_code_counts_beside_a_rate_that_moved(self):
        """The two are judged apart."""
        net = network()
        first = planned(net)
        schedule = nnlr.schedule(first, lrs.ExponentialLR, gamma=0.5)
        train(net, first, range(2), schedule)
        second = planned(net, mult=0.4, lr=2 * LR)
        reload(second, first.state_dict())
        assert (0.4, 1.0) == by_group(second, "lr_mult")
        assert pytest.approx((2 * LR * 0.4 / 4, 2 * LR / 4)) == by_group(second, "lr")

    def test_a_kept_multiplier_of_0_that_the_code_raises_joins_the_others(self):
        """At the progress that they have."""
        net = network()
        first = planned(net, mult=0)
        train(net, first, range(2), nnlr.schedule(first, lrs.ExponentialLR, gamma=0.5))
        second = planned(net, mult=0.5)
        reload(second, first.state_dict())
        assert pytest.approx((LR * 0.5 / 4, LR / 4)) == by_group(second, "lr")

    def test_after_a_regroup_the_new_plan_is_the_origin(self):
        """Its rates give way to the code's, and what had moved before goes on."""
        net = network()
        first = planned(net, cls=Growing, momentum=0.5)
        train(net, first, range(2))
        plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.5), lr=0.2, weight_decay=0)
        nnlr.regroup(first, plan)
        train(net, first, range(2, 4))
        second = planned(net, mult=0.25, lr=0.4, decay=0, cls=Growing, momentum=0.7)
        reload(second, first.state_dict())
        assert (0.4 * 0.25, 0.4) == by_group(second, "lr")
        assert (0.7, 0.7) == by_group(second, "momentum")
        assert by_group(first, "d") == by_group(second, "d")
        assert (4, 4) == by_group(second, "k")

    def test_rates_that_moved_apart_cannot_be_one(self):
        """The first group's progress counts, and it is told for whom that is another."""
        net = network()
        first = planned(net)
        train(net, first, [0])
        first.param_groups[0]["lr"] = 0.02
        second = planned(net, mult=1)
        said = reload(second, first.state_dict())
        assert (0.02, 0.02) == by_group(second, "lr")
        assert "lr is 0.005 in the checkpoint and 0.02 in the code" in said

    def test_none_is_no_rate(self):
        """torch-optimi keeps max_lr=None in its groups."""

        class Optimi(torch.optim.SGD):
            def __init__(self, params, lr=0.1, weight_decay=0.0):
                super().__init__(params, lr=lr, weight_decay=weight_decay)
                self.defaults["max_lr"] = None
                for group in self.param_groups:
                    group["max_lr"] = None

        net = network()
        first = planned(net, cls=Optimi)
        schedule = nnlr.schedule(first, lrs.ExponentialLR, gamma=0.5)
        train(net, first, range(2), schedule)
        second = planned(net, mult=0.2, cls=Optimi)
        reload(second, first.state_dict())
        assert pytest.approx((LR * 0.2 / 4, LR / 4)) == by_group(second, "lr")
        assert (None, None) == by_group(second, "max_lr")
        nnlr.regroup(first, nnlr.resolve(net, lr=LR, weight_decay=0))
        assert LR / 4 == first.param_groups[0]["lr"]


class TestSettings:
    def test_what_nobody_moved_is_the_codes(self):
        """Changed in the code, it counts, and is told; the same, it is not."""
        net = network()
        first = planned(net, betas=(0.8, 0.9))
        train(net, first, [0])
        second = planned(net, betas=(0.7, 0.9), eps=1e-6)
        said = reload(second, first.state_dict())
        assert ((0.7, 0.9), (0.7, 0.9)) == by_group(second, "betas")
        assert "betas is (0.8, 0.9) in the checkpoint and (0.7, 0.9) in the code" in said
        assert "eps is 1e-08" in said

    def test_a_cycled_momentum_goes_on(self):
        """Into other groups; where the code starts it elsewhere, its start counts."""
        net = network()
        first = planned(net, cls=torch.optim.SGD, momentum=0.9)
        schedule = nnlr.schedule(first, lrs.OneCycleLR, max_lr=0.1, total_steps=9)
        train(net, first, range(3), schedule)
        moved = first.param_groups[0]["momentum"]
        assert moved != 0.9
        for momentum, wanted in ((0.9, moved), (0.8, 0.8)):
            second = planned(net, mult=0.2, cls=torch.optim.SGD, momentum=momentum)
            reload(second, first.state_dict())
            assert (wanted, wanted) == by_group(second, "momentum")

    def test_settings_that_moved_apart_cannot_be_one(self):
        """Then the code's counts, and it is told."""
        net = network()
        first = planned(net)
        train(net, first, [0])
        first.param_groups[0]["eps"] = 1e-4
        second = planned(net, mult=1)
        said = reload(second, first.state_dict())
        assert (1e-8, 1e-8) == by_group(second, "eps")
        assert "eps is 0.0001 in the checkpoint and 1e-08 in the code" in said

    def test_the_checkpoint_counts_in_all_on_request(self):
        """And in the note, so that a later run knows what was moved."""
        net = network()
        first = planned(net, betas=(0.8, 0.9))
        train(net, first, range(2), nnlr.schedule(first, lrs.ExponentialLR, gamma=0.5))
        second = planned(net, mult=0.3, lr=0.2, resume="checkpoint")
        reload(second, first.state_dict())
        for key in ("lr", "lr_mult", "betas", "origin"):
            assert by_group(first, key) == by_group(second, key)


@pytest.mark.parametrize(
    ("cls", "before", "after", "part"),
    [
        (torch.optim.AdamW, {}, {"amsgrad": True}, "max_exp_avg_sq"),
        (torch.optim.RMSprop, {}, {"centered": True}, "grad_avg"),
        (torch.optim.RMSprop, {}, {"momentum": 0.9}, "momentum_buffer"),
        (torch.optim.SGD, {}, {"momentum": 0.9}, "momentum_buffer"),
    ],
)
def test_what_the_code_switches_on_starts_afresh_and_is_named(cls, before, after, part):
    """The rest of the state goes on, and the next steps run."""
    net = network()
    first = planned(net, cls=cls, **before)
    train(net, first, range(3))
    second = planned(net, cls=cls, **after)
    with pytest.warns(nnlr.NnlrWarning, match=f"{next(iter(after))} is"):
        second.load_state_dict(first.state_dict())
    report = last_report(second)
    if cls is torch.optim.SGD:
        assert 4 == len(report.fresh)
    else:
        assert {(part,)} == set(map(tuple, report.partly.values()))
        assert f"{part} starts afresh: 1.weight" in str(report)
        for state in second.state.values():
            assert (3, 0) == (state["step"], state[part].count_nonzero())
    train(net, second, range(3, 5))
    assert all(part in state for state in second.state.values())


SAVED = pickle.loads(
    gzip.decompress((Path(__file__).parents[1] / "reference/states_by_0_1_0.pkl.gz").read_bytes())
)
OLD = {
    "AdamW, cosine": ({}, [(lrs.CosineAnnealingLR, {"T_max": 8})]),
    "SGD, one cycle": (
        {"cls": torch.optim.SGD, "momentum": 0.9},
        [(lrs.OneCycleLR, {"max_lr": 0.05, "total_steps": 9})],
    ),
    "AdamW, nothing": ({}, []),
}


def tensors(value):
    """What version 0.1.0 saved, with tensors where the file has lists of numbers."""
    if isinstance(value, tuple) and value[:1] == ("tensor",):
        return torch.tensor(value[1], dtype=getattr(torch, value[2]))
    if isinstance(value, dict):
        return {key: tensors(each) for key, each in value.items()}
    return [tensors(each) for each in value] if isinstance(value, list) else value


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("form", ["optimizer", "named", "flat", "files", "flat files"])
@pytest.mark.parametrize("name", OLD)
def test_checkpoints_of_version_0_1_go_on(name, form, tmp_path):
    """To the weights that the version itself ended with, from files and distributed ones."""
    saved = tensors(SAVED[name])
    settings, courses = OLD[name]
    net = network()
    net.load_state_dict(saved["model"])
    optimizer = planned(net, **settings)
    live = scheduled(optimizer, courses)
    for each in live:
        each.load_state_dict(saved["schedule"])
    if form == "optimizer":
        optimizer.load_state_dict(saved["optimizer"])
    elif "files" in form:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            part = saved["flat" if "flat" in form else "named"]
            dcp.save({"optimizer": part}, checkpoint_id=tmp_path)
        load_dcp(tmp_path, optimizer, net)
    else:
        state, _ = fit_named_state(saved[form], optimizer, net)
        set_optimizer_state_dict(net, optimizer, state)
    assert 4 == len(last_report(optimizer).moved)
    train(net, optimizer, range(3, 6), *live)
    for key, value in net.state_dict().items():
        assert torch.allclose(saved["end"][key], value, rtol=1e-6, atol=1e-7)


def test_a_base_that_version_0_1_noted_is_known():
    """So that rates without a scheduler give way to the code's, and halved ones go on halved."""
    saved = tensors(SAVED["AdamW, nothing"])["optimizer"]
    for factor in (1.0, 0.5):
        for group in saved["param_groups"]:
            group["lr"] *= factor
        optimizer = planned(network(), lr=2 * LR)
        said = reload(optimizer, saved)
        assert pytest.approx((2 * LR * 0.1 * factor, 2 * LR * factor)) == by_group(optimizer, "lr")
        assert "lr is 0.05 in the checkpoint and 0.1 in the code" in said
