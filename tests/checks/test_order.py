"""The order of computation against the layers of a plan."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr._checks.check import LOOKS
from nnlr._checks.order import contradictions
from nnlr.errors import NnlrError
from tests import zoo
from tests.checks.cases import network, resolved
from tests.depth.test_flow import IDS, Calls


def test_the_words():
    """Which layers, and where."""
    net = network()
    plan = resolved(net, nnlr.layer_decay(0.5, {"0.*": 1, "2.*": 0}))
    assert str(nnlr.check(plan, inputs=(torch.zeros(2, 4),))) == (
        "warning [order-inverted]: 1 pair of layers are computed in the opposite order:\n"
        "  layer 1 (0.weight) before layer 0 (2.weight) (2.weight, 0.weight).\n"
        "  If that is not meant, take the order from the forward: plan =\n"
        "    nnlr.resolve(model, nnlr.layer_decay(decay, nnlr.depth.flow(*inputs)),\n"
        "    lr=lr, weight_decay=wd)"
    )


def test_learned_rows_may_be_anywhere():
    """A class token in the stem that joins late is no contradiction."""

    def run(m, x):
        for at, block in enumerate(m.blocks):
            x = torch.cat([m.token.expand(len(x), -1, -1), x], 1) if at == 1 else x
            x = block(x)
        return x

    net = Calls(
        run,
        token=nn.Parameter(torch.zeros(1, 1, 4)),
        stem=nn.Linear(4, 4),
        blocks=nn.ModuleList(zoo.Block(4) for _ in range(2)),
    )
    plan = resolved(
        net, nnlr.layer_decay(0.5, {"token": 0, "stem.*": 0, "blocks.0.*": 1, "blocks.1.*": 2})
    )
    assert "nothing found" == str(nnlr.check(plan, inputs=(torch.zeros(1, 3, 4),)))


def test_a_plan_without_layers_has_no_order():
    """There is nothing to compare."""
    net = zoo.plain()
    assert "nothing found" == str(nnlr.check(resolved(net), inputs=(IDS,)))


def test_without_inputs_nothing_is_run():
    """A model whose forward raises can be checked."""
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    plan = resolved(net, nnlr.layer_decay(0.5, {"a.*": 0, "b.*": 1}))
    assert "nothing found" == str(nnlr.check(plan))
    with pytest.raises(NnlrError, match="the forward of ModuleDict in train mode raised"):
        nnlr.check(plan, inputs=(torch.zeros(1, 2),))
    assert contradictions in LOOKS


@pytest.mark.parametrize("inputs", [3, "ids", {1: IDS}, zoo.plain()], ids=repr)
def test_inputs_of_another_kind(inputs):
    """Refused where they are passed."""
    net = zoo.plain()
    with pytest.raises(NnlrError, match="inputs must be what the model is called with"):
        nnlr.check(resolved(net), inputs=inputs)


def test_inputs_without_a_plan():
    """Only a plan has layers."""
    with pytest.raises(NnlrError, match="pass the plan"):
        nnlr.check(zoo.plain(), inputs=(IDS,))
