"""The note in each group of the settings as they were built."""

import copy

import torch
from torch import nn

import nnlr
from nnlr.checkpoint import on_load


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def resolved(net, *schemes, lr=0.1, weight_decay=0.05):
    return nnlr.resolve(net, *schemes, lr=lr, weight_decay=weight_decay)


def origins(optimizer):
    return [group["origin"] for group in optimizer.param_groups]


class TestOrigin:
    def test_a_plan_notes_what_it_built(self):
        """Copies, which stay as they are when the settings move; numbers for tensors."""
        net = network()
        optimizer = resolved(net, nnlr.rule("0.*", lr_mult=0.5)).optimizer(
            torch.optim.AdamW, tensor_lr=True, betas=(0.8, 0.9)
        )
        for group in optimizer.param_groups:
            group["lr"].fill_(7.0)
            group["betas"] = (0.1, 0.2)
        for origin, lr in zip(origins(optimizer), (0.1, 0.05), strict=True):
            assert torch.tensor(lr).item() == origin["lr"]
            assert ((0.8, 0.9), 0.05) == (origin["betas"], origin["weight_decay"])
            assert {"params", "param_names", "name", "origin"}.isdisjoint(origin)

    def test_on_load_notes_groups_of_ones_own_once(self):
        """A second call leaves the note as it is."""
        optimizer = torch.optim.SGD(network().named_parameters(), lr=0.3)
        on_load(optimizer)
        optimizer.param_groups[0]["lr"] = 0.1
        on_load(optimizer)
        assert [0.3] == [origin["lr"] for origin in origins(optimizer)]

    def test_after_regroup_it_is_the_new_plans(self):
        """What all old groups shared keeps its old origin, so that it counts as moved still."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.AdamW)
        optimizer.param_groups[0]["betas"] = (0.5, 0.6)
        nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0.5), lr=0.2))
        assert [0.2, 0.1] == [origin["lr"] for origin in origins(optimizer)]
        assert {(0.5, 0.6)} == {group["betas"] for group in optimizer.param_groups}
        assert {(0.9, 0.999)} == {origin["betas"] for origin in origins(optimizer)}

    def test_it_travels_with_the_optimizer(self):
        """In its state and in copies."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.AdamW)
        assert origins(optimizer) == origins(copy.deepcopy(optimizer))
        (saved,) = optimizer.state_dict()["param_groups"]
        assert origins(optimizer) == [saved["origin"]]


class TestAddedGroups:
    """Groups that a hand adds to a plan's have no note, in the code and in the checkpoint."""

    def test_a_rate_of_its_own_goes_on(self):
        """It started where both say, so nothing scales it."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.SGD)
        added = [("added", nn.Parameter(torch.ones(1)))]
        optimizer.add_param_group({"params": added, "lr": 5.0, "lr_mult": 1.0})
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert optimizer.param_groups[-1]["lr"] == 5.0

    def test_one_of_a_scheduled_run_has_no_difference(self):
        """It was added at the rate of the moment; both sides start at the plan's base."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.SGD)
        scheduler = nnlr.schedule(optimizer, torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
        optimizer.step()
        scheduler.step()
        added = [("added", nn.Parameter(torch.ones(1)))]
        optimizer.add_param_group({"params": added, "lr": 0.05, "lr_mult": 1.0, "wd_mult": 1.0})
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert nnlr.checkpoint.last_report(optimizer).differences == ()
        assert optimizer.param_groups[-1]["lr"] == 0.05
