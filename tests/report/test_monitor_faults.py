"""nnlr.report.Monitor: what it finds, each once, and what it leaves alone."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import nnlr
from nnlr.report import Monitor

pytestmark = pytest.mark.filterwarnings("ignore::nnlr.NnlrWarning")


def three(**rules):
    """Three layers under names, with rates of their own."""
    net = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b", "c")})
    schemes = [nnlr.rule(f"{name}.*", lr_mult=mult) for name, mult in rules.items()]
    return net, nnlr.resolve(net, *schemes, lr=0.1, weight_decay=0.0)


def run(net, optimizer, steps=4, used="abc", between=None):
    """Train with the layers that are used."""
    for _ in range(steps):
        x = torch.randn(4, 2).to(next(net.parameters()).dtype)
        for name in used:
            x = net[name](x)
        x.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if between is not None:
            between()


def kinds(monitor):
    """Kind, severity and names of each finding."""
    return {f.kind: (f.severity, f.names) for f in monitor.findings}


class TestHealthy:
    def test_nothing_is_found_in_a_run_that_is_in_order(self):
        """With locked and frozen layers, a warm-up from 0, and accumulation."""
        net, _ = three()
        net["b"].requires_grad_(False)
        plan = nnlr.resolve(net, nnlr.rule("a.*", lr_mult=0), lr=0.1, weight_decay=0.1)
        optimizer = plan.optimizer(torch.optim.AdamW)
        scheduler = nnlr.schedule(optimizer, LambdaLR, lr_lambda=lambda step: min(1, step // 4))
        monitor = Monitor(plan, optimizer, every=1, patience=2)
        run(net, optimizer, steps=8, between=scheduler.step)
        assert 0.0 == monitor.history[2].layers[2].update  # in the warm-up nothing moves
        assert () == monitor.findings
        assert ["locked", "frozen", "trained"] == [y.state for y in monitor.history[-1].layers]

    def test_a_part_that_is_used_now_and_then_is_no_finding(self):
        """An expert without a token in the batches that are looked at moves in the others."""
        net, plan = three()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=2, patience=2)
        for _ in range(5):
            run(net, optimizer, steps=1, used="abc")
            run(net, optimizer, steps=1, used="ac")
        assert [None] * 5 == [reading.layers[1].gradient for reading in monitor.history[1:]]
        assert () == monitor.findings

    def test_locked_parameters_that_stay_in_a_group(self):
        """`locked="keep"`: a group of rate 0."""
        net, plan = three(a=0)
        optimizer = plan.optimizer(torch.optim.AdamW, locked="keep")
        monitor = Monitor(plan, optimizer, every=1, patience=1)
        run(net, optimizer)
        assert "locked" == monitor.history[0].layers[0].state
        assert () == monitor.findings


class TestNoMovement:
    def test_without_a_gradient(self):
        """Named once, after as many readings as patience has; the fix locks it."""
        net, plan = three()
        optimizer = plan.optimizer(torch.optim.AdamW)
        monitor = Monitor(plan, optimizer, every=1)
        run(net, optimizer, steps=2, used="ac")
        assert () == monitor.findings
        run(net, optimizer, steps=5, used="ac")
        assert {"no-gradient": ("warning", ("b.weight", "b.bias"))} == kinds(monitor)
        (finding,) = monitor.findings
        assert "no gradient at 3 looks in a row (steps 1 to 3)" in finding.cause
        scheme = eval(finding.fix.rpartition(": ")[2])  # noqa: S307 - ours
        assert nnlr.resolve(net, scheme, lr=1, weight_decay=0)["b.weight"].locked

    def test_a_gradient_of_zeros_that_decay_moves(self):
        """Weights shrink all the same, so movement between readings is no excuse."""
        net, _ = three()
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0.1)
        optimizer = plan.optimizer(torch.optim.AdamW)
        monitor = Monitor(plan, optimizer, every=1)
        for _ in range(3):
            for name, param in net.named_parameters():
                param.grad = torch.full_like(param, 0.0 if name.startswith("b.") else 1.0)
            optimizer.step()
        assert {"no-gradient": ("warning", ("b.weight", "b.bias"))} == kinds(monitor)
        assert monitor.history[-1].layers[1].update > 0

    def test_with_a_gradient(self):
        """Too small a step for float32: 1e-12 of a weight."""
        net, plan = three(b=1e-12)
        nn.init.ones_(net["b"].weight)
        nn.init.ones_(net["b"].bias)
        optimizer = plan.optimizer(torch.optim.AdamW)
        monitor = Monitor(plan, optimizer, every=1)
        run(net, optimizer)
        assert {"not-moving": ("warning", ("b.weight", "b.bias"))} == kinds(monitor)
        (finding,) = monitor.findings
        eval(finding.fix.rpartition(": ")[2], {"nnlr": nnlr, "plan": plan, "optimizer": optimizer})  # noqa: S307 - ours

    def test_steps_that_are_lost_in_rounding(self):
        """Weights in bfloat16 at a small rate: told so, and not twice; float32 is the fix."""
        net, plan = three()
        net.bfloat16()
        plan = nnlr.resolve(net, lr=1e-6, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.AdamW)
        monitor = Monitor(plan, optimizer, every=1)
        run(net, optimizer)
        assert ["lost-in-rounding"] == list(kinds(monitor))
        assert "the rounding of bfloat16: fewer than 5%" in str(monitor.findings[0])
        assert monitor.findings[0].fix.endswith(": model.float()")
        net.float()
        optimizer = plan.optimizer(torch.optim.AdamW)
        monitor = Monitor(plan, optimizer, every=1)
        run(net, optimizer)
        assert () == monitor.findings

    def test_half_precision_that_moves_is_no_finding(self):
        """At a rate that changes most elements."""
        net, plan = three()
        net.bfloat16()
        optimizer = plan.optimizer(torch.optim.AdamW)
        monitor = Monitor(plan, optimizer, every=1)
        run(net, optimizer)
        assert () == monitor.findings

    def test_in_no_group(self):
        """The grouping by hand that forgets a parameter; regroup is the fix."""
        net, plan = three()
        optimizer = torch.optim.AdamW([*net["a"].parameters(), *net["b"].parameters()])
        monitor = Monitor(plan, optimizer, every=1)
        run(net, optimizer, steps=1)
        assert {"in-no-group": ("error", ("c.weight", "c.bias"))} == kinds(monitor)
        assert "in no group" == monitor.history[0].layers[2].state
        nnlr.regroup(optimizer, plan)
        run(net, optimizer, steps=1)
        assert "trained" == monitor.history[-1].layers[2].state


class TestMovement:
    def test_though_locked_by_another_hand(self):
        """Something writes into it between the readings; one that was only read does not count."""
        net, plan = three(a=0, b=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=1)

        def write():
            net["a"].weight.data.add_(1e-3)  # torch does not count this as a change
            net["b"].weight.data.copy_(net["b"].weight.clone())

        run(net, optimizer, between=write)
        assert {"moves-though-locked": ("error", ("a.weight",))} == kinds(monitor)
        assert 1 == len(monitor.findings)

    def test_though_locked_in_a_group_that_is_not_the_plans(self):
        """Added by hand, at a rate; `regroup` is the fix."""
        net, plan = three(a=0)
        optimizer = plan.optimizer(torch.optim.SGD, names=False)
        net["a"].requires_grad_(True)
        optimizer.add_param_group({"params": list(net["a"].parameters()), "lr": 0.1})
        monitor = Monitor(plan, optimizer, every=1)
        run(net, optimizer, steps=1)
        assert {"moves-though-locked": ("error", ("a.weight", "a.bias"))} == kinds(monitor)
        nnlr.regroup(optimizer, plan)
        run(net, optimizer)
        assert 1 == len(monitor.findings)

    def test_though_frozen_is_a_note(self):
        """A teacher that is an average of the student moves on purpose; so it warns of nothing."""
        net, _ = three()
        net["a"].requires_grad_(False)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=1)
        run(net, optimizer, between=lambda: net["a"].weight.data.lerp_(net["b"].weight.data, 0.1))
        assert {"moves-though-frozen": ("note", ("a.weight",))} == kinds(monitor)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int8, torch.complex64])
    def test_one_bit_is_enough(self, dtype):
        """In any type of number, also where the bytes are no multiple of four."""
        from nnlr.report._monitor.sums import Sums

        def bits(tensor):
            sums = Sums()
            place = sums.bits(tensor)
            return sums.read()[place]

        for size in (1, 3, 4):
            tensor = torch.ones(size + 1, dtype=dtype)[1:]
            other = tensor.clone()
            assert bits(tensor) == bits(other)
            whole = torch.view_as_real(other) if other.is_complex() else other
            whole.reshape(-1).view(torch.int8)[0] ^= 1
            assert bits(tensor) != bits(other)

    def test_formats_of_others_go_by_torchs_count_of_changes(self):
        """A quantized weight may have no bits to look at."""
        from nnlr.report._monitor.sums import Sums

        class Quantized(torch.Tensor):
            def detach(self):
                return self

        sums, tensor = Sums(), torch.ones(2).as_subclass(Quantized)
        first = sums.bits(tensor)
        tensor.add_(1)
        second = sums.bits(tensor)
        numbers = sums.read()
        assert numbers[first] != numbers[second]


class TestNotFinite:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_the_parameters_are_named(self, value):
        """Those whose gradient it was, when it was; and once."""
        net, plan = three()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=1)
        for param in net.parameters():
            param.grad = torch.ones_like(param)
        net["b"].weight.grad[0, 0] = value
        optimizer.step()
        optimizer.step()
        assert {"not-finite": ("error", ("b.weight",))} == kinds(monitor)
        assert "in step 1" in monitor.findings[0].cause
        code = monitor.findings[0].fix.rpartition(": ")[2]
        with pytest.raises(RuntimeError, match="norm of the gradients"):
            eval(code, {"nnlr": nnlr, "model": net})  # noqa: S307 - ours


@pytest.mark.filterwarnings("default::nnlr.NnlrWarning")
def test_each_finding_is_one_warning():
    """At the step that shows it, at the user's line."""
    net, plan = three()
    optimizer = torch.optim.SGD(net["a"].parameters())
    monitor = Monitor(plan, optimizer, every=1)
    net["a"](torch.ones(1, 2)).sum().backward()
    with pytest.warns(nnlr.NnlrWarning, match="the optimizer does not have 4 parameters") as caught:
        optimizer.step()
    with warnings.catch_warnings(action="error"):
        optimizer.step()
    assert 1 == len(caught)
    assert __file__ == caught[0].filename
    assert 1 == len(monitor.findings)
