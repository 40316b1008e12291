"""nnlr.optim among plans, schedulers, compilers and other people's subclasses."""

import inspect

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

import nnlr
from tests.helpers import network
from tests.optim.twins import (
    NAMES,
    USUAL,
    assert_equal,
    classes,
    give_gradients,
    parameters,
    thirds,
    train,
)

SCHEME = nnlr.rule("0.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)


def learn(net, optimizer, steps=5, scheduler=None):
    for step in range(steps):
        optimizer.zero_grad()
        net(torch.full((2, 3), 0.1 * step)).square().sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def planned(cls, net=None, **settings):
    """A network and its optimizer, built by a plan."""
    net = net or network(3, 4, 2)
    plan = nnlr.resolve(net, SCHEME, lr=0.05, weight_decay=0.1)
    return net, plan.optimizer(cls, **settings)


def assert_close(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
class TestPlans:
    def test_a_plan_builds_it(self, name):
        """With the groups, rates and names of the plan; the numbers are torch's."""
        torch_class, our_class = classes(name)
        (one, expected), (other, actual) = planned(torch_class), planned(our_class)
        learn(one, expected)
        learn(other, actual)
        assert_close(one, other)
        keys = ["name", "param_names", "lr", "weight_decay", "lr_mult", "wd_mult"]
        for group, found in zip(expected.param_groups, actual.param_groups, strict=True):
            assert [group[key] for key in keys] == [found[key] for key in keys]
        assert actual.fast_path_report().all_fast

    def test_rates_in_tensors(self, name):
        """A tensor for each group, as compiled steps want them."""
        one, expected = planned(classes(name)[0], tensor_lr=True, fused=True)
        other, actual = planned(classes(name)[1], tensor_lr=True)
        learn(one, expected)
        learn(other, actual)
        assert_equal(one.parameters(), other.parameters())

    def test_regrouping(self, name):
        """New groups in the middle of a run; what is known of a parameter stays."""
        torch_class, our_class = classes(name)
        runs = [planned(torch_class, fused=True), planned(our_class)]
        for net, optimizer in runs:
            learn(net, optimizer)
            plan = nnlr.resolve(net, nnlr.rule("2.*", lr_mult=0.5), lr=0.02, weight_decay=0.2)
            nnlr.regroup(optimizer, plan)
            learn(net, optimizer)
        assert_equal(runs[0][0].parameters(), runs[1][0].parameters())

    def test_a_scheme_for_another_kind_is_refused(self, name):
        """The class is recognised as the one of torch whose step it makes."""
        other = "sgd" if name != "SGD" else "adam"
        narrow, wide = (nn.Sequential(nn.Linear(w, w), nn.Linear(w, 1)) for w in (2, 8))
        scheme = nnlr.mup(base=narrow, optimizer=other)
        plan = nnlr.resolve(wide, scheme, lr=0.1, weight_decay=0.1)
        with pytest.raises(nnlr.ConfigError, match=f"{name} does not go with"):
            plan.optimizer(classes(name)[1], init="done")

    def test_unwrapping_its_step_leads_to_torchs(self, name):
        """Who asks which step a class makes finds torch's; signatures are the same."""
        torch_class, our_class = classes(name)
        assert issubclass(our_class, torch_class)
        assert inspect.unwrap(torch_class.step) is inspect.unwrap(our_class.step)
        assert inspect.signature(torch_class) == inspect.signature(our_class)
        assert inspect.signature(torch_class.step) == inspect.signature(our_class.step)


@pytest.mark.parametrize("name", NAMES)
class TestSchedulers:
    @pytest.mark.parametrize(
        ("make", "settings"),
        [
            (CosineAnnealingLR, {"T_max": 10, "eta_min": 1e-3}),
            (OneCycleLR, {"max_lr": 0.1, "total_steps": 20}),
        ],
    )
    def test_torchs_schedulers(self, name, make, settings):
        """They wrap the step of the instance, and cycle momentum and betas."""
        runs = []
        for cls, how in zip(classes(name), ({"fused": True}, {}), strict=True):
            net, optimizer = planned(cls, **how)
            learn(net, optimizer, 10, make(optimizer, **settings))
            runs.append(net)
        assert_equal(runs[0].parameters(), runs[1].parameters())

    def test_ratios(self, name):
        """nnlr.schedule writes all rates at every step."""
        runs = []
        for cls, how in zip(classes(name), ({"fused": True}, {}), strict=True):
            net, optimizer = planned(cls, **how)
            schedule = nnlr.schedule(optimizer, CosineAnnealingLR, T_max=10)
            learn(net, optimizer, 8, schedule)
            runs.append(net)
        assert_equal(runs[0].parameters(), runs[1].parameters())


def test_decay_modes_warn_as_for_torchs():
    """Independent decay means nothing where decay is part of the gradient."""
    net = network(3, 4, 2)
    plan = nnlr.resolve(net, SCHEME, lr=0.1, weight_decay=0.1, decay="independent")
    with pytest.warns(nnlr.NnlrWarning, match="no clear meaning with Adam"):
        plan.optimizer(nnlr.optim.Adam)
    plan.optimizer(nnlr.optim.AdamW)


@pytest.mark.parametrize("name", NAMES)
class TestSubclasses:
    def test_one_that_adds_to_the_step(self, name):
        """`super().step` makes the fast step; hooks of both run as with torch's class."""
        torch_class, our_class = classes(name)

        def subclass(base):
            class Counting(base):
                steps = 0

                def step(self, closure=None):
                    self.steps += 1
                    return super().step(closure)

            return Counting

        sides = [parameters(), parameters()]
        expected = subclass(torch_class)(thirds(sides[0]), **USUAL[name], fused=True)
        actual = subclass(our_class)(thirds(sides[1]), **USUAL[name])
        calls = []
        for optimizer in (expected, actual):
            optimizer.register_step_post_hook(lambda one, *_: calls.append(one))
        train(sides, (expected, actual), 5)
        assert_equal(*sides)
        assert 5 == expected.steps == actual.steps
        assert calls.count(expected) == calls.count(actual)

    def test_one_with_settings_of_its_own(self, name):
        """Other defaults and keys in groups are carried along."""
        our_class = classes(name)[1]

        class Named(our_class):
            def __init__(self, params, mood="calm", **settings):
                super().__init__(params, **settings)
                self.defaults["mood"] = mood
                for group in self.param_groups:
                    group.setdefault("mood", mood)

        params = parameters()
        optimizer = Named(params, **USUAL[name])
        train([params], [optimizer], 3)
        assert optimizer.fast_path_report().all_fast
        assert "calm" == optimizer.state_dict()["param_groups"][0]["mood"]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_that_groups_do_not_have(name):
    """What a subclass keeps of its own is never compared: it may be missing, or an array."""
    params = parameters()
    optimizer = classes(name)[1](params, **USUAL[name])
    optimizer.defaults["mood"] = "calm"
    optimizer.defaults["weights"] = torch.zeros(3)
    for step in range(4):
        optimizer.param_groups[0]["weights"] = torch.rand(3)
        train([params], [optimizer], 1, start=step)
    assert optimizer.fast_path_report().all_fast


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # its own, on import
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_step_is_torchs(name):
    """Compiled after eager steps, and eager again after compiled ones; few graphs."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch_class, our_class = classes(name)
    sides = [parameters([(3, 4), (5,)]) for _ in range(2)]
    expected, actual = (
        cls([{"params": side[:2]}, {"params": side[2:], "lr": 0.02}], **USUAL[name])
        for cls, side in zip((torch_class, our_class), sides, strict=True)
    )
    compiled = torch.compile(actual.step, backend=backend)
    steps = [actual.step] * 3 + [compiled] * 6 + [actual.step] * 3 + [compiled] * 2
    for step, call in enumerate(steps):
        give_gradients(step, *sides)
        expected.step()
        call()
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert 1 <= len(graphs) <= 4
    if name != "SGD":
        assert {14.0} == {float(kept["step"]) for kept in actual.state.values()}


@pytest.mark.parametrize("name", NAMES)
def test_the_profiler_sees_a_step(name):
    """Under the name that torch gives it."""
    params = parameters()
    optimizer = classes(name)[1](params, **USUAL[name])
    give_gradients(0, params)
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert f"Optimizer.step#{name}.step" in {each.key for each in profile.key_averages()}
