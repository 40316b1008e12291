"""What may move between two steps is noticed: nothing is stepped by stale lists."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import nnlr
from tests.optim.twins import (
    NAMES,
    USUAL,
    assert_equal,
    assert_same_state,
    classes,
    pair,
    parameters,
    thirds,
    train,
)

pytestmark = pytest.mark.parametrize("name", NAMES)


def both(optimizers, change):
    """Do the same to both optimizers."""
    for optimizer in optimizers:
        change(optimizer)


def finish(sides, optimizers, start=3):
    """Go on after a change, and compare."""
    train(sides, optimizers, 4, start=start)
    assert_equal(*sides)
    assert_same_state(*optimizers)


def test_a_group_added_later(name):
    """Parameters that come in the middle of a run begin at their first step."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 3)
    for params, optimizer in zip(sides, optimizers, strict=True):
        more = parameters()[:3]
        params.extend(more)
        optimizer.add_param_group({"params": more, "lr": 0.003})
    finish(sides, optimizers)


def test_settings_changed_in_a_group(name):
    """Groups are plain dicts that anybody may write to."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 3)
    setting = {"momentum": 0.5} if name == "SGD" else {"betas": (0.8, 0.95)}
    both(optimizers, lambda one: one.param_groups[1].update(setting, maximize=True))
    both(optimizers, lambda one: one.param_groups[2].update(weight_decay=0.3))
    finish(sides, optimizers)


def test_a_list_in_a_group_written_to(name):
    """Betas as configurations have them; torch reads them anew at each step."""
    sides, optimizers = pair(name)
    both(optimizers, lambda one: one.param_groups[0].update(betas=[0.9, 0.99]))
    train(sides, optimizers, 3)
    for optimizer in optimizers:
        optimizer.param_groups[0]["betas"][0] = 0.5
    finish(sides, optimizers)


def test_groups_that_come_to_share_rates_and_part_again(name):
    """A warm-up from zero gives all groups one rate, then each its own."""
    sides, optimizers = pair(name)
    for rates in ([0.0] * 3, [0.1, 0.2, 0.3], [0.1] * 3, [0.3, 0.1, 0.3], [0.0] * 3):
        for optimizer in optimizers:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        for params in sides:
            for param in params:
                param.grad = torch.ones_like(param)
        both(optimizers, lambda one: one.step())
    assert_equal(*sides)
    assert_same_state(*optimizers)


def test_parameters_replaced_in_a_group(name):
    """As pruning and density control do: another tensor, its state moved by hand."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 3)
    for params, optimizer in zip(sides, optimizers, strict=True):
        old, new = params[0], nn.Parameter(params[0].detach()[:2].clone())
        kept = optimizer.state.pop(old)
        optimizer.state[new] = {
            key: value[:2].clone() if value.ndim else value.clone() for key, value in kept.items()
        }
        params[0] = optimizer.param_groups[0]["params"][0] = new
    finish(sides, optimizers)


def test_a_parameter_moved_to_another_group(name):
    """The lists of two groups change, their sum does not."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 3)

    def move(optimizer):
        first, second, _ = optimizer.param_groups
        second["params"].insert(0, first["params"].pop())

    both(optimizers, move)
    finish(sides, optimizers)


def test_state_that_is_replaced(name):
    """The whole mapping, one entry, one tensor of an entry; and what is written in place."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 3)
    key = "momentum_buffer" if name == "SGD" else "exp_avg"

    def renew(optimizer, change):
        for param in optimizer.param_groups[0]["params"]:
            change(optimizer.state, param)

    changes = [
        lambda state, param: state[param].update({key: torch.ones_like(param)}),
        lambda state, param: state.update({param: dict(state[param])}),
        lambda state, param: state[param][key].zero_(),
        lambda state, param: state.pop(param) if name != "SGD" else None,
    ]
    for start, change in enumerate(changes, start=3):
        both(optimizers, lambda one, change=change: renew(one, change))
        train(sides, optimizers, 1, start=start)
    both(optimizers, lambda one: setattr(one, "state", copy.copy(one.state)))
    finish(sides, optimizers, start=7)


def test_state_that_is_deleted(name):
    """A momentum begins anew; moments of Adam are missed, in torch's words."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    train(sides, optimizers, 3)
    for params, optimizer in zip(sides, optimizers, strict=True):
        del optimizer.state[params[1]]["momentum_buffer" if name == "SGD" else "exp_avg"]
    if name == "SGD":
        train(sides, optimizers, 3, start=3)
        for one, other in zip(*sides, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    else:
        for optimizer in optimizers:
            with pytest.raises(KeyError, match="exp_avg"):
                optimizer.step()


def test_data_under_the_tensors_replaced(name):
    """A snippet that moves optimizers to a device assigns `.data` of everything."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 3)
    for params, optimizer in zip(sides, optimizers, strict=True):
        for param in params:
            param.data = param.data.clone()
            for value in optimizer.state[param].values():
                value.data = value.data.clone()
    finish(sides, optimizers)


def test_a_layout_changed_under_the_optimizer(name):
    """`model.to(memory_format=...)` after some steps; moments follow, numbers stay."""
    torch_class, our_class = classes(name)
    nets = [nn.Conv2d(3, 4, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    expected = torch_class(nets[0].parameters(), **USUAL[name], foreach=False)
    actual = our_class(nets[1].parameters(), **USUAL[name])
    inputs = torch.randn(2, 3, 8, 8)
    for step in range(6):
        for net, optimizer in zip(nets, (expected, actual), strict=True):
            if step == 3:
                net.to(memory_format=torch.channels_last)
            optimizer.zero_grad()
            net(inputs).square().sum().backward()
            optimizer.step()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert actual.fast_path_report().all_fast
    weight = nets[1].weight
    assert all(
        value.stride() == weight.stride() for value in actual.state[weight].values() if value.ndim
    )


def test_a_layout_changed_under_old_gradients(name):
    """Parameters move, gradients and moments stay as they were: copied, not misread."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    train(sides, optimizers, 3)
    for params in sides:
        params[5].data = params[5].data.t().contiguous().t()
    both(optimizers, lambda one: one.step())
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_parameter_turned_in_place(name):
    """The same memory with other strides, under gradients that lie as it did."""
    sides = [[nn.Parameter(torch.arange(9.0).view(3, 3))] for _ in range(2)]
    optimizers = [
        cls(side, **USUAL[name], **how)
        for cls, side, how in zip(classes(name), sides, ({"foreach": False}, {}), strict=True)
    ]
    for side, optimizer in zip(sides, optimizers, strict=True):
        train([side], [optimizer], 3)
        side[0].grad = torch.arange(9.0).view(3, 3)
        side[0].data = side[0].data.t()
        optimizer.step()
    torch.testing.assert_close(*sides, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_type_changed_under_old_gradients(name, dtype):
    """What torch's loop does with it, be it a refusal; a kernel would misread it."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    train(sides, optimizers, 3)
    said = []
    for params, optimizer in zip(sides, optimizers, strict=True):
        params[0].data = params[0].data.to(dtype)
        try:
            optimizer.step()
            said.append(None)
        except RuntimeError as error:
            said.append(str(error))
    assert said[0] == said[1]
    torch.testing.assert_close(sides[0][0], sides[1][0])


@pytest.mark.parametrize(
    "change",
    [lambda data: torch.cat([data, data]), lambda data: data[:2]],
    ids=["grown", "cut"],
)
def test_a_parameter_of_another_size_is_refused_and_not_misread(name, change):
    """More rows than its gradient has, or fewer in the same place: torch's step says so."""
    _, (_, optimizer) = pair(name)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    train([params], [optimizer], 3)
    grown = params[0]
    grown.data = change(grown.data)
    with pytest.raises(RuntimeError, match="size of tensor"):
        optimizer.step()


@pytest.mark.parametrize("every", [2, 3])
def test_parameters_that_take_turns(name, every):
    """Branches that are drawn at random: the lists change at every step."""
    torch_class, our_class = classes(name)
    sides = [parameters() for _ in range(2)]
    optimizers = [
        torch_class(thirds(sides[0]), **USUAL[name], foreach=False),
        our_class(thirds(sides[1]), **USUAL[name]),
    ]
    train(sides, optimizers, 30, skip=lambda step, at: (step + at) % every == 0)
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_other_gradients_at_every_step_need_no_new_lists(name, monkeypatch):
    """A mixture of experts: once all have begun, nothing is made anew, bit for bit."""
    sides, optimizers = pair(name)
    monkeypatch.setattr("tests.optim.twins.change_rates", lambda *_: None)
    train(sides, optimizers, 3)
    monkeypatch.setattr("nnlr.optim._one_pass.Sorting", None)
    chosen = torch.rand(30, len(sides[0])) < 0.5
    train(sides, optimizers, 27, start=3, skip=lambda step, at: bool(chosen[step][at]))
    assert_equal(*sides)
    assert_same_state(*optimizers)


def test_lists_are_made_once_for_many_that_begin_one_by_one(name):
    """A parameter that waits is none of the lists, and comes in with its first gradient."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    train(sides, optimizers, 12, skip=lambda step, at: at > step)
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"maximize": True}])
def test_a_step_in_inference_mode(name, changes):
    """With the lists of before, and with lists made there: the next are ordinary steps."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 1)
    both(optimizers, lambda one: one.param_groups[0].update(changes))
    with torch.inference_mode():
        both(optimizers, lambda one: one.step())
    finish(sides, optimizers)


def test_a_step_without_any_gradient(name):
    """Nothing happens, before the first step and between two."""
    sides, optimizers = pair(name)
    both(optimizers, lambda one: one.step())
    train(sides, optimizers, 2)
    both(optimizers, lambda one: one.zero_grad())
    both(optimizers, lambda one: one.step())
    finish(sides, optimizers)


def test_frozen_and_thawed(name):
    """Gradual unfreezing: gradients of a part begin, end and begin again."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    other = copy.deepcopy(net)
    torch_class, our_class = classes(name)
    runs = [
        (net, torch_class(net.parameters(), **USUAL[name], foreach=False)),
        (other, our_class(other.parameters(), **USUAL[name])),
    ]
    for model, optimizer in runs:
        for step in range(9):
            model[0].requires_grad_(step // 3 != 1)
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
    for one, another in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, another, rtol=1e-5, atol=1e-6)


def test_what_the_check_does_not_understand_takes_torchs_step(name, monkeypatch):
    """Where even new lists do not pass, torch's own step is made; nothing begins twice."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    monkeypatch.setattr("nnlr.optim._table.Table.gradients", lambda _: None)
    train(sides, optimizers, 3)
    assert_equal(*sides)


def test_a_kernel_that_fails_leaves_no_half_begun_state(name, monkeypatch):
    """The error comes through, and the next step begins as the first."""
    (_, params), (_, optimizer) = pair(name)

    def fail(*_, **__):
        raise MemoryError("no room")

    kernels = {"SGD": "_fused_sgd_", "Adam": "_fused_adam_", "AdamW": "_fused_adamw_"}
    with monkeypatch.context() as patched:
        patched.setattr(torch, kernels[name], fail)
        with pytest.raises(MemoryError, match="no room"):
            train([params], [optimizer], 1)
    assert all("momentum_buffer" not in kept for kept in optimizer.state.values())
    train([params], [optimizer], 2)


def test_nothing_holds_what_was_let_go(name):
    """Gradients that are set to none, and moments that a checkpoint has replaced."""
    _, (_, optimizer) = pair(name)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    train([params], [optimizer], 3)
    key = "momentum_buffer" if name == "SGD" else "exp_avg"
    watched = [weakref.ref(param.grad) for param in params]
    watched += [weakref.ref(kept[key]) for kept in optimizer.state.values()]
    optimizer.zero_grad()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    gc.collect()  # torch's loading makes cycles
    assert {None} == {watch() for watch in watched}


def test_an_optimizer_is_freed_without_the_garbage_collector(name):
    """No cycle keeps parameters and moments alive after their optimizer."""
    params = parameters()
    optimizer = getattr(nnlr.optim, name)(params, **USUAL[name])
    train([params], [optimizer], 3)
    watch = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer
        assert watch() is None
    finally:
        gc.enable()
