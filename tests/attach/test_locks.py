"""What a move locks: no gradient, no state if it says so, and nothing of it in later plans."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import nnlr
from tests.attach.moving import backward, blink, network, plan_of, rates, train


class Blink(nnlr.Move):
    """0 and 1 in turns of two steps; at 0 there are no gradients."""

    locks = True

    def mults(self, now, units):
        """The same for all units."""
        return [blink(now)] * len(units)


class Forgetting(Blink):
    """The same, and the state is dropped."""

    drops_state = True


def make(move=None, cls=torch.optim.AdamW, **settings):
    """Layer 0 is locked in steps 0 and 1, trained in 2 and 3, and so on."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(move or Blink()))
    optimizer = plan.optimizer(cls, **settings)
    return net, plan, optimizer, nnlr.attach(optimizer, plan)


CLASSES = [
    (torch.optim.AdamW, {}),
    (torch.optim.AdamW, {"foreach": True}),
    (torch.optim.AdamW, {"fused": True}),
    (torch.optim.SGD, {"momentum": 0.9}),
    (nnlr.optim.AdamW, {}),
    (nnlr.optim.SGD, {"momentum": 0.9}),
]


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize(("cls", "settings"), CLASSES, ids=map(str, range(len(CLASSES))))
def test_locked_parameters_stand_still_in_every_kernel(cls, settings, forgets):
    """Neither momentum nor decay moves them, and state is kept or dropped as the move says."""
    net, _, optimizer, attached = make(Forgetting() if forgets else Blink(), cls, **settings)
    weight = net[0].weight
    for step in range(8):
        before = weight.detach().clone()
        train(net, optimizer, attached, 1)
        locked = step // 2 % 2 == 0
        assert torch.equal(weight, before) == locked
        if not locked:
            state = optimizer.state[weight]
            begun = float(state["step"]) if "step" in state else None
            assert begun in {None, step % 2 + 1 if forgets else step // 4 * 2 + step % 2 + 1}
        next_locked = (step + 1) // 2 % 2 == 0
        assert weight.requires_grad != next_locked
        begun = step >= 2 if not forgets else not locked and not next_locked
        assert bool(optimizer.state.get(weight)) == begun


def test_gradients_that_come_all_the_same_are_dropped():
    """Others may switch gradients on, or write them: a step does not see them."""
    net, _, optimizer, attached = make()
    net.requires_grad_(True)
    before = net[0].weight.detach().clone()
    train(net, optimizer, attached, 1)
    assert torch.equal(net[0].weight, before)
    assert net[0].weight not in optimizer.state
    net[0].weight.grad = torch.ones(3, 3)
    optimizer.step()
    assert net[0].weight.grad is None


def test_clipping_counts_what_is_trained():
    """The norm is that of the trained parameters."""
    net, *_ = make()
    backward(net, 0)
    norm = nnlr.clip_grad_norm_(net.parameters(), 1.0)
    still = network()
    backward(still, 0)
    assert norm == torch.nn.utils.get_total_norm([p.grad for p in still[1:].parameters()])


def test_locks_leave_marks_that_later_plans_and_unlock_respect():
    """A lock of a move is one of nnlr: a new plan trains the parameter, unlock gives it back."""
    net, plan, *_ = make()
    assert not net[0].weight.requires_grad
    assert nnlr.resolve(net, lr=0.1, weight_decay=0)["0.weight"].trainable
    plan.unlock()
    assert net[0].weight.requires_grad
    make_again = plan.optimizer(torch.optim.SGD)
    nnlr.attach(make_again, plan)
    assert not net[0].weight.requires_grad
    plan_of(net).optimizer(torch.optim.SGD)
    assert net[0].weight.requires_grad


def test_a_checkpoint_locks_and_unlocks():
    """After a load gradients are as the step wants them, whatever they were before."""
    saved = {}
    for steps in (1, 2):
        net, _, optimizer, attached = make()
        train(net, optimizer, attached, steps)
        saved[steps] = optimizer.state_dict()
    for steps in (2, 1, 2):
        optimizer.load_state_dict(saved[steps])
        assert net[0].weight.requires_grad == (steps == 2)


def test_regrouping_keeps_locks_of_moves_and_takes_off_those_of_old_ones():
    """Also where the layer is locked at that moment."""
    net, _, optimizer, attached = make()
    again = plan_of(net, nnlr.rule("0.*").at(Blink()) * nnlr.rule("1.*", lr_mult=0.1))
    nnlr.regroup(optimizer, again)
    assert not net[0].weight.requires_grad
    train(net, optimizer, attached, 2)
    assert net[0].weight.requires_grad
    train(net, optimizer, attached, 2)
    nnlr.regroup(optimizer, plan_of(net))
    assert net[0].weight.requires_grad


def test_two_locking_moves_of_one_parameter_lock_where_either_does():
    """It is trained where both are above 0."""

    class Late(Blink):
        """0 in the first three steps."""

        def mults(self, now, units):
            """The same for all units."""
            return [float(now.step >= 3)] * len(units)

    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(Blink()) * nnlr.rule("0.weight").at(Late()))
    optimizer = plan.optimizer(torch.optim.SGD)
    attached = nnlr.attach(optimizer, plan)
    trained = []
    for _ in range(5):
        trained.append([net[0].weight.requires_grad, net[0].bias.requires_grad])
        train(net, optimizer, attached, 1)
    assert trained == [[False, False]] * 2 + [[False, True], [True, True], [False, False]]


def test_activation_checkpointing_sees_the_locks():
    """Recomputed layers are trained or not as others are."""
    weights = []
    for use in (False, True):
        net, _, optimizer, attached = make()
        for step in range(5):
            net.zero_grad()
            inputs = torch.full((2, 3), 1.0 + step, requires_grad=True)
            for layer in net:
                inputs = checkpoint(layer, inputs, use_reentrant=False) if use else layer(inputs)
            inputs.square().sum().backward()
            optimizer.step()
        weights.append(net[0].weight.detach())
    assert torch.equal(*weights)
    assert attached.progress.step == 5


def test_a_wrapper_that_waits_for_all_gradients_is_refused():
    """DDP without find_unused_parameters would fail at the second step, or with static_graph."""

    class Wrapper(DistributedDataParallel):
        """What DDP is without processes."""

        def __init__(self, module, *, unused, static=False):
            nn.Module.__init__(self)
            self.module, self.find_unused_parameters, self.static_graph = module, unused, static

    net, plan, optimizer, attached = make()
    for wrapper in (Wrapper(net, unused=False), Wrapper(net, unused=True, static=True)):
        with pytest.raises(
            nnlr.ConfigError, match=r"find_unused_parameters=True\), without static"
        ):
            nnlr.attach(optimizer, plan, model=wrapper)
    train(net, optimizer, attached, 2)
    assert rates(optimizer)["0.weight"] == rates(optimizer)["1.weight"]
    assert nnlr.attach(optimizer, plan, model=Wrapper(net, unused=True)).progress.step == 2
    still = plan_of(net, nnlr.rule("0.*").at(blink))
    nnlr.attach(still.optimizer(torch.optim.SGD), still, model=Wrapper(net, unused=False))


def test_several_processes_are_warned_of_a_wrapper_that_comes_later(monkeypatch):
    """DDP that wraps a model afterwards does not exchange what is locked by then."""
    net, plan, optimizer, _ = make()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.warns(nnlr.NnlrWarning, match=r"gradients of 0.weight, 0.bias.*Wrap it first"):
        nnlr.attach(optimizer, plan)
    nnlr.attach(optimizer, plan, model=net)  # nothing wraps it


def test_moves_that_leave_nothing_to_train_are_told_once():
    """Each alone leaves something; together they do not, and a backward pass would fail."""

    class Other(Blink):
        """The turns that `Blink` leaves out."""

        def mults(self, now, units):
            """The same for all units."""
            return [1 - blink(now)] * len(units)

    net = network()
    plan = plan_of(net, nnlr.rule("*").at(Blink()) * nnlr.rule("*").at(Other()))
    optimizer = plan.optimizer(torch.optim.SGD)
    with pytest.warns(nnlr.NnlrWarning, match="All that SGD trains is locked, by rule"):
        nnlr.attach(optimizer, plan)
    for _ in range(4):  # a warning would be an error
        optimizer.step()
