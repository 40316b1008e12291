"""Which steps count, and when moves measure: scalers, closures, compiled steps."""

import pytest
import torch
from torch import nn

import nnlr
from tests.attach.moving import BASE, backward, close, network, plan_of, rates, same_weights, train


def falling(t):
    """1, 1/2, 1/3 and so on."""
    return 1 / (1 + t.step)


class Norms(nnlr.Move):
    """1 over the gradient's norm of this very step."""

    def __init__(self):
        self.seen = []

    def measures(self, now, units):
        """At every step."""
        return True

    def measure(self, now, units):
        """Note the norm."""
        self.seen.append([float(unit.tensors[0].grad.norm()) for unit in units])

    def due(self, now, units):
        """Only after a measurement."""
        return False

    def mults(self, now, units):
        """What was measured."""
        return [1 / norm for norm in (self.seen or [[1.0] * len(units)])[-1]]


@pytest.mark.parametrize(("cls", "fused"), [(torch.optim.SGD, True), (torch.optim.AdamW, False)])
def test_steps_that_a_scaler_skips_are_not_counted(cls, fused):
    """Infinite gradients are no progress, whether the scaler or the kernel skips them."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(falling))
    optimizer = plan.optimizer(cls, fused=fused)
    attached = nnlr.attach(optimizer, plan)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(4):
        net.zero_grad()
        loss = net(torch.ones(1, 3) * (torch.inf if step in {0, 2} else 1.0)).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert attached.progress.step == 2
    assert rates(optimizer)["0.weight"] == close(BASE / 3)


@pytest.mark.parametrize("given", ["none", "positional", "named"])
@pytest.mark.parametrize("cls", [torch.optim.AdamW, nnlr.optim.AdamW], ids=["torch", "nnlr"])
def test_moves_measure_the_gradients_of_the_step(cls, given):
    """A closure computes them within the step, as Lightning has it: then it is called first."""
    runs = []
    for way in ("none", given):
        net, move = network(), Norms()
        plan = plan_of(net, nnlr.layer_decay(1.0, indexer={"0.*": 0, "[123].*": 1}).at(move))
        optimizer = plan.optimizer(cls)
        nnlr.attach(optimizer, plan)
        for step in range(3):

            def closure(net=net, step=step):
                backward(net, step)
                return torch.tensor(1.0 + step)

            if way == "none":
                closure()
                optimizer.step()
            elif way == "named":
                assert optimizer.step(closure=closure) == 1 + step
            else:
                assert optimizer.step(closure) == 1 + step
        runs.append((net, move.seen))
    assert runs[0][1] == runs[1][1]
    assert same_weights(runs[0][0], runs[1][0])


def test_a_closure_that_is_called_often_is_one_step_and_one_measurement():
    """LBFGS evaluates the loss many times."""
    net, move = network(), Norms()
    plan = plan_of(net, nnlr.rule("*").at(move), weight_decay=0.0)
    optimizer = plan.optimizer(torch.optim.LBFGS)
    attached = nnlr.attach(optimizer, plan)

    def closure():
        backward(net, 0)
        return net(torch.ones(1, 3)).square().sum()

    optimizer.step(closure)
    assert attached.progress.step == len(move.seen) == 1


def test_accumulated_gradients_are_one_step():
    """Progress counts steps of the optimizer, not backward passes."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(falling))
    optimizer = plan.optimizer(torch.optim.SGD)
    attached = nnlr.attach(optimizer, plan)
    for batch in range(6):
        net(torch.full((1, 3), 1.0 + batch)).sum().backward()
        if batch % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
    assert attached.progress.step == 2


CLASSES = [
    (torch.optim.AdamW, {"foreach": True}),
    (torch.optim.AdamW, {"fused": True}),
    (torch.optim.AdamW, {"tensor_lr": True}),
    (nnlr.optim.AdamW, {}),
    (nnlr.optim.Adam, {}),
    (nnlr.optim.SGD, {}),
]


@pytest.mark.parametrize(("cls", "settings"), CLASSES, ids=map(str, range(len(CLASSES))))
def test_every_kernel_sees_the_rates_of_the_moment(cls, settings):
    """Steps by fast kernels are those of plain ones, whose rates are written by hand."""
    one, other = network(), network()
    plan = plan_of(one, nnlr.rule("0.*").at(lambda t: float(t.step % 3)))
    optimizer = plan.optimizer(cls, **settings)
    attached = nnlr.attach(optimizer, plan)
    by_hand = plan_of(other, nnlr.rule("0.*", group="0"))
    base = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}
    plain = by_hand.optimizer(base[cls.__name__])
    for step in range(7):
        backward(other, step)
        plain.param_groups[-1]["lr"] = BASE * (step % 3)
        plain.step()
        train(one, optimizer, attached, 1)
    assert plain.param_groups[-1]["name"] == "0"
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.full  # 15 s
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cls", [torch.optim.AdamW, nnlr.optim.AdamW], ids=["torch", "nnlr"])
def test_a_compiled_step_goes_on_moving(cls):
    """torch.compile of the step: as without, but for what it computes in another order."""
    torch._dynamo.reset()
    one, other = network(), network()
    runs = []
    for net, compiled in ((one, False), (other, True)):
        plan = plan_of(net, nnlr.rule("0.*").at(falling))
        optimizer = plan.optimizer(cls, tensor_lr=True)
        attached = nnlr.attach(optimizer, plan)
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for at in range(12):
            backward(net, at)
            step()
        assert attached.progress.step == 12
        runs.append(rates(optimizer))
    assert runs[0] == runs[1]
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_wrappers_are_looked_through_and_what_runs_no_hooks_is_refused():
    """As the message says: attach the optimizer inside."""

    class Wrapper(torch.optim.Optimizer):
        """As Accelerate's, and one that hides what it wraps."""

        def __init__(self, optimizer, name):
            setattr(self, name, optimizer)
            self.param_groups = optimizer.param_groups

        def step(self):
            """Step what is inside."""
            self.optimizer.step()

    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(falling))
    optimizer = plan.optimizer(torch.optim.SGD)
    with pytest.raises(
        nnlr.ConfigError, match=r"runs no step hooks\. Attach the optimizer that it"
    ):
        nnlr.attach(Wrapper(optimizer, "hidden"), plan)
    attached = nnlr.attach(wrapper := Wrapper(optimizer, "optimizer"), plan)
    backward(net, 0)
    wrapper.step()
    assert attached.progress.step == 1


def test_groups_that_somebody_replaces_go_on_by_their_notes():
    """Some loaders put other dictionaries in, or leave groups out; hooks hear nothing of it."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(falling))
    optimizer = plan.optimizer(torch.optim.SGD)
    attached = nnlr.attach(optimizer, plan)
    train(net, optimizer, attached, 2)
    groups = [dict(group) for group in optimizer.param_groups]
    groups[0]["moved"] = groups[1]["moved"] = {"step": 5, "memory": ""}
    optimizer.param_groups[:] = groups
    train(net, optimizer, attached, 1)
    assert attached.progress.step == 6
    assert rates(optimizer)["0.weight"] == close(BASE / 7)
    del optimizer.param_groups[1:]
    with pytest.raises(nnlr.ConfigError, match="does not train"):
        optimizer.step()


def test_groups_in_which_some_move_otherwise_are_refused():
    """A group has one rate; the message says how to build one that fits."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    plan = plan_of(net, nnlr.rule("0.*").at(falling))
    optimizer = torch.optim.SGD([{"params": list(net.parameters()), "lr": BASE, "name": "all"}])
    with pytest.raises(nnlr.ConfigError, match="'all' move in different ways"):
        nnlr.attach(optimizer, plan)
    nnlr.regroup(optimizer, plan)
    nnlr.attach(optimizer, plan)


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan"), "half"])
def test_a_multiplier_that_no_training_can_use_is_refused(value):
    """It is named with the scheme, the unit and the step."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(lambda t: value))
    optimizer = plan.optimizer(torch.optim.SGD)
    with pytest.raises(
        nnlr.NnlrError, match=r"the multiplier that rule\('0.\*'\).*gives unit .moving. at"
    ):
        nnlr.attach(optimizer, plan, total_steps=3)


def test_the_part_of_a_run_of_unknown_length_is_refused():
    """A function that reads it needs total_steps, which the message says."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(lambda t: 1 - t))
    optimizer = plan.optimizer(torch.optim.SGD)
    with pytest.raises(nnlr.ConfigError, match=r"gave NaN at step 0.*total_steps=\.\.\."):
        nnlr.attach(optimizer, plan)
    nnlr.attach(optimizer, plan, total_steps=5)


def test_moves_have_to_give_one_multiplier_for_each_unit():
    """And one that is no Move at all says what to write."""

    class Short(nnlr.Move):
        """It forgets all units but one."""

        def mults(self, now, units):
            """One."""
            return [1.0]

    class Nothing(nnlr.Move):
        """It says nothing."""

    class Needy(Short):
        """It has to know the length of the run."""

        needs_total = True

    net = network()
    by_layer = nnlr.layer_decay(1.0, indexer={"0.*": 0, "[123].*": 1})
    for move, words in (
        (Short(), "gave 1 multipliers for 2 units"),
        (Nothing(), "does not define mults"),
        (Needy(), r"has to know how long the run is.*total_steps="),
    ):
        plan = plan_of(net, by_layer.at(move))
        optimizer = plan.optimizer(torch.optim.SGD)
        with pytest.raises(nnlr.NnlrError, match=words):
            nnlr.attach(optimizer, plan)


def test_a_plan_without_moves_needs_no_attach():
    """It is refused, with what such schemes are."""
    plan = plan_of(net := network())
    optimizer = plan.optimizer(torch.optim.SGD)
    with pytest.raises(nnlr.ConfigError, match="no scheme in it changes any of its parameters"):
        nnlr.attach(optimizer, plan, model=net)


@pytest.mark.parametrize("locked", ["drop", "keep"])
def test_what_is_locked_does_not_move(locked):
    """0 times anything is 0: nothing waits for attach, and attach says why it has nothing to do."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*", lr_mult=0).at(falling))
    optimizer = plan.optimizer(torch.optim.SGD, locked=locked)
    backward(net, 0)
    optimizer.step()
    assert not any("moved" in group for group in optimizer.param_groups)
    with pytest.raises(nnlr.ConfigError, match=r"all that its schemes move is locked"):
        nnlr.attach(optimizer, plan)
