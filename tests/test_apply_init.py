"""apply_init: the one explicit step that touches weights."""

import copy
import pickle

import pytest
import torch
from torch import nn

import nnlr


class Scale(nnlr.Scheme):
    """Halve the weights of matrices."""

    def __init__(self, value=0.5):
        self.value = value

    def factors(self, model):
        return [nnlr.Factor(init_mult=self.value if len(p.shape) > 1 else 1) for p in model.params]


def network():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    return net


def resolved(net, *schemes):
    return nnlr.resolve(net, *(schemes or (Scale(),)), lr=0.1, weight_decay=0.01)


def values(net):
    return [parameter.flatten()[0].item() for parameter in net.parameters()]


class TestApplyInit:
    """Weights are multiplied in place, once."""

    def test_it_scales_and_names_what_has_a_multiplier(self):
        """The others are left alone; the tensors stay the same objects."""
        net = network()
        before = list(map(id, net.parameters()))
        assert ["0.weight", "1.weight"] == nnlr.apply_init(net, resolved(net))
        assert [0.5, 1.0, 0.5, 1.0] == values(net)
        assert before == list(map(id, net.parameters()))
        assert all(parameter.grad_fn is None for parameter in net.parameters())

    def test_frozen_locked_and_tied_weights_are_scaled_once(self):
        """The start of training is the same, whoever trains."""
        net = network()
        net[1].weight = net[0].weight
        net[0].bias.requires_grad_(False)
        plan = resolved(net, Scale(), nnlr.rule("0.weight", lr_mult=0))
        assert ["0.weight"] == nnlr.apply_init(net, plan)
        assert [0.5, 1.0, 1.0] == values(net)

    def test_twice_is_an_error(self):
        """Also with another plan."""
        net = network()
        nnlr.apply_init(net, resolved(net))
        with pytest.raises(nnlr.NnlrError, match="this Sequential have been scaled before"):
            nnlr.apply_init(net, resolved(net, Scale(3.0)))
        assert [0.5, 1.0, 0.5, 1.0] == values(net)

    def test_a_plan_that_scales_nothing_does_not_count(self):
        """It has done nothing that a second call could double."""
        net = network()
        assert [] == nnlr.apply_init(net, resolved(net, nnlr.rule("*")))
        assert ["0.weight", "1.weight"] == nnlr.apply_init(net, resolved(net))

    # What torch's compiler imports on its first use; nothing here is scripted.
    @pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
    @pytest.mark.parametrize(
        "travel",
        [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), torch.compile],
        ids=["deepcopy", "pickle", "compile"],
    )
    def test_copies_and_wrappers_know_that_they_are_scaled(self, travel):
        """Their weights are, so a second time would be wrong."""
        net = network()
        nnlr.apply_init(net, resolved(net))
        other = travel(net)
        with pytest.raises(nnlr.NnlrError, match="scaled before"):
            nnlr.apply_init(other, resolved(other))
        assert resolved(other).optimizer(torch.optim.SGD, model=other).param_groups

    def test_the_mark_stays_out_of_the_state_dict(self):
        """A checkpoint holds weights only."""
        net = network()
        before = list(net.state_dict())
        nnlr.apply_init(net, resolved(net))
        assert before == list(net.state_dict())

    def test_meta_weights_are_an_error(self):
        """They have no values yet, and the call may be repeated once they have."""
        net = nn.Sequential(nn.Linear(2, 2, device="meta"))
        plan = resolved(net)
        with pytest.raises(nnlr.NnlrError, match=r"0\.weight are on the meta device"):
            nnlr.apply_init(net, plan)
        net.to_empty(device="cpu")
        nn.init.ones_(net[0].weight)
        assert ["0.weight"] == nnlr.apply_init(net, plan)
        assert 0.5 == net[0].weight[0, 0].item()

    def test_a_plan_for_another_model_is_refused(self):
        """Before anything is scaled."""
        net = network()
        other = nn.Sequential(nn.Linear(2, 2))
        with pytest.raises(nnlr.PlanMismatchError, match=r"does not know: 1\.weight"):
            nnlr.apply_init(net, resolved(other))
        assert [1.0] * 4 == values(net)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (({"a": torch.ones(1)}, None), r"model must be a torch\.nn\.Module"),
            ((nn.Linear(1, 1), Scale()), "plan must be a Plan, got Scale"),
        ],
    )
    def test_other_things_are_refused(self, arguments, message):
        """The message says what it needs."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.apply_init(*arguments)


class TestRefusal:
    """A plan with init_mult trains nothing before apply_init has run."""

    def test_groups_and_optimizers_wait_for_it(self):
        """The message says what to call; nothing is locked."""
        net = network()
        plan = resolved(net, Scale(), nnlr.rule("0.bias", lr_mult=0))
        message = r"initial weights of 2 parameters.*nnlr\.apply_init\(model, plan\) once"
        with pytest.raises(nnlr.NnlrError, match=message) as caught:
            plan.param_groups()
        assert ["0.weight", "1.weight"] == caught.value.names
        with pytest.raises(nnlr.NnlrError, match=message):
            plan.optimizer(torch.optim.SGD)
        assert net[0].bias.requires_grad
        nnlr.apply_init(net, plan)
        assert [["0.weight", "1.weight", "1.bias"]] == [
            group["param_names"] for group in plan.optimizer(torch.optim.SGD).param_groups
        ]

    def test_init_done_says_that_it_was_done_by_hand(self):
        """For weights from a checkpoint, and for bare tensors."""
        net = network()
        assert resolved(net).param_groups(init="done")
        tensors = dict(net.named_parameters())
        with pytest.raises(nnlr.NnlrError, match="scales the initial weights"):
            resolved(tensors).param_groups()
        assert resolved(tensors).optimizer(torch.optim.SGD, init="done")

    def test_regroup_waits_for_it_too(self):
        """The optimizer is as it was."""
        net = network()
        optimizer = resolved(net, nnlr.rule("*")).optimizer(torch.optim.SGD)
        plan = resolved(net)
        with pytest.raises(nnlr.NnlrError, match="scales the initial weights"):
            nnlr.regroup(optimizer, plan)
        assert 0.1 == optimizer.param_groups[0]["lr"]
        nnlr.regroup(optimizer, plan, init="done")
