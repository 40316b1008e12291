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
