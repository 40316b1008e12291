"""Moves of one's own through ``scheme.at``: their units are layers, and the rest is one more."""

import torch
from torch import nn

import nnlr

LAYERS = {"0.*": 0, "1.*": 1}


class Count(nnlr.Move):
    """Unit by unit 1, 2, 3, ..., times a number."""

    def __init__(self, times):
        self.times = times

    def mults(self, now, units):
        return [self.times * (at + 1) for at in range(len(units))]


def attached(scheme):
    """The scheme at work on three layers of which the last is outside of the tower."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.1)
    return nnlr.attach(plan.optimizer(torch.optim.SGD), plan), plan


def test_a_move_has_the_layers_of_a_scheme_as_units():
    """What no layer is known of moves as one more; `explain` names the move as it was called."""
    scheme = nnlr.layer_decay(1.0, indexer=LAYERS) * nnlr.rule("2.*", lr_mult=0.5)
    mover, plan = attached(scheme.at(Count(2)))
    assert {unit.name: unit.mult for unit in mover.units} == {"layer0": 2, "layer1": 4, "moving": 6}
    assert [g["lr_mult"] for g in mover.optimizer.param_groups] == [2.0, 4.0, 3.0]
    assert "by Count(times=2)" in plan.explain("0.weight")
    assert repr(nnlr.rule("*").at(Count(2), setting="weight_decay")) == (
        "rule('*').at(Count(times=2), setting='weight_decay')"
    )
