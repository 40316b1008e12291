"""nnlr.check: what it takes, how it answers, and how it tries things without touching them."""

import copy
import functools
import inspect
import logging
import random
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.optim.swa_utils import SWALR

import nnlr
from nnlr._checks.fixes import frozen
from nnlr._findings import Finding, Findings
from tests.checks import algorithm_cases
from tests.cost import calls
from tests.frozen_state import state_of

LR = 0.1


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def layered(model, cls=torch.optim.SGD, mult=0.01, **settings):
    """The first layer is slow."""
    plan = nnlr.resolve(model, nnlr.rule("0.*", lr_mult=mult), lr=LR, weight_decay=0.0)
    return plan.optimizer(cls, **settings)


def kinds(*args, **kwargs):
    """The kinds of what is found; nothing may change by looking."""
    before = state_of(args, kwargs)
    found = [finding.kind for finding in nnlr.check(*args, **kwargs)]
    assert before == state_of(args, kwargs)
    return found


def finding(severity, kind="sort", names=()):
    return Finding(severity=severity, kind=kind, names=names, cause="It is so", fix="Change: it()")


class TestAnswer:
    def test_the_worst_comes_first_and_each_is_a_paragraph(self):
        """Severity, kind, cause and names; the fix on a line of its own."""
        found = Findings([finding("note"), finding("error", names=("a", "b")), finding("warning")])
        assert ["error", "warning", "note"] == [each.severity for each in found]
        assert str(found) == (
            "error [sort]: It is so (a, b).\n  Change: it()\n"
            "warning [sort]: It is so.\n  Change: it()\n"
            "note [sort]: It is so.\n  Change: it()"
        )

    def test_it_counts_itself(self):
        """The short form has the numbers, a plain one if there are none."""
        assert "Findings(2 errors, 1 note)" == repr(
            Findings([finding("error"), finding("note"), finding("error")])
        )
        assert "Findings(nothing found)" == repr(Findings())
        assert "nothing found" == str(Findings())

    def test_no_line_is_wider_than_a_terminal(self):
        """80 columns, also with many long names."""
        net = nn.ModuleDict({f"a_layer_with_a_long_name_{i}": network() for i in range(9)})
        optimizer = torch.optim.SGD(copy.deepcopy(net).named_parameters(), lr=LR)
        text = str(nnlr.check(net, optimizer))
        assert "stale-parameter" in text
        assert "and 31 more" in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 80

    @pytest.mark.parametrize(
        ("raise_on", "raised"), [("error", False), ("warning", True), ("note", True)]
    )
    def test_it_raises_from_a_severity_on(self, raise_on, raised):
        """The error has the text of what is grave enough, and all findings."""
        net = network()
        optimizer = layered(net, names=False)
        optimizer.add_param_group({"params": []})
        assert ["empty-group"] == kinds(net, optimizer)
        if not raised:
            assert 1 == len(nnlr.check(net, optimizer, raise_on=raise_on))
            return
        with pytest.raises(nnlr.ConfigError, match=r"^warning \[empty-group\]") as caught:
            nnlr.check(net, optimizer, raise_on=raise_on)
        assert ["empty-group"] == [each.kind for each in caught.value.findings]

    def test_a_fix_is_a_call_that_works(self):
        """The line for a scheduler has the user's class and arguments."""
        net = network()
        optimizer = layered(net)
        scheduler = lrs.CosineAnnealingLR(optimizer, 30, eta_min=0.01)
        (found,) = nnlr.check(net, optimizer, scheduler)
        code = found.fix.rpartition(": ")[2]
        optimizer = layered(net)
        names = {"nnlr": nnlr, "optimizer": optimizer, **vars(lrs)}
        exec(code, names)  # noqa: S102 - it is offered to be pasted
        assert [] == kinds(net, optimizer, names["scheduler"])
        assert (30, 0.01) == (names["scheduler"].T_max, names["scheduler"].eta_min)


class TestQuestion:
    def test_every_sort_of_model(self):
        """A plan, a module, a mapping, pairs, and an iterator that can be used once."""
        net = network()
        plan = nnlr.resolve(net, lr=LR, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        pairs = list(net.named_parameters())
        for model in (plan, net, dict(pairs), pairs, net.named_parameters()):
            assert "nothing found" == str(nnlr.check(model, optimizer))

    def test_a_plan_that_knows_no_model_is_told_one(self):
        """As everywhere else."""
        net = network()
        plan = nnlr.Plan.from_json(nnlr.resolve(net, lr=LR, weight_decay=0).to_json())
        with pytest.raises(nnlr.NnlrError, match="pass model="):
            nnlr.check(plan)
        assert [] == kinds(plan, model=net)
        assert [] == kinds(net, model=net)

    def test_a_stage_of_the_model_is_none_of_its_faults(self):
        """Rows that have no tensor here are elsewhere."""
        net = network()
        plan = nnlr.resolve(net, lr=LR, weight_decay=0)
        stage = nn.Sequential(net[0])
        optimizer = plan.optimizer(torch.optim.SGD, model=stage, partial=True)
        assert [] == kinds(plan, optimizer, model=stage, partial=True)
        assert ["plan-mismatch"] == kinds(plan, optimizer, model=stage)

    @pytest.mark.parametrize(
        ("args", "kwargs", "match"),
        [
            ((5,), {}, "model must be a torch.nn.Module, .* got 5"),
            (("",), {}, "model must be a torch.nn.Module, .* got ''"),
            (("net",), {}, "model must be a torch.nn.Module, .* got 'net'"),
            (([],), {}, "list has no parameter to look at"),
            (({},), {}, "dict has no parameter to look at"),
            ((iter([]),), {}, "list has no parameter to look at"),
            ((nn.ReLU(),), {}, "ReLU has no parameter"),
            ((network(), 5), {}, "needs a torch optimizer, or a list of them, got 5"),
            ((network(), None, 5), {}, "needs a scheduler, or a list of them, got 5"),
            ((network(), None, {"scheduler": 5}), {}, "needs a scheduler"),
            ((network(),), {"raise_on": "fatal"}, "raise_on must be one of 'error'"),
            ((network(),), {"deepspeed": 5}, "deepspeed must be the configuration"),
            (
                (network(),),
                {"deepspeed": "no.json"},
                "deepspeed='no.json' cannot be read",
            ),
        ],
    )
    def test_what_is_none_of_these_is_refused(self, args, kwargs, match):
        """At the call, with what is wanted."""
        with pytest.raises(nnlr.NnlrError, match=match):
            nnlr.check(*args, **kwargs)

    def test_a_configuration_may_be_a_file(self, tmp_path):
        """JSON, of an object; the path as text or not."""
        path = tmp_path / "deepspeed.json"
        path.write_text('{"optimizer": {"type": "AdamW"}}', encoding="utf-8")
        net = network()
        for given in (path, str(path)):
            assert ["deepspeed-optimizer"] == kinds(net, deepspeed=given)
        path.write_text("[1]", encoding="utf-8")
        with pytest.raises(nnlr.ConfigError, match=r"holds \[1\], not an object"):
            nnlr.check(net, deepspeed=path)

    def test_several_optimizers_and_schedulers(self):
        """Each scheduler goes with its optimizer, whatever the order."""
        net = network()
        both = [torch.optim.SGD(net[at].parameters(), lr=LR) for at in (0, 2)]
        schedulers = [lrs.StepLR(each, 5) for each in reversed(both)]
        assert [] == kinds(net, both, schedulers)
        assert ["untrained-parameter", "other-optimizer"] == kinds(net, both[:1], schedulers)

    def test_averaging_waits_beside_a_schedule(self):
        """Torch's SWA recipe steps one of the two, and then the other: they do not cross."""
        net = network()
        optimizer = layered(net)
        scheduler = nnlr.schedule(optimizer, lrs.StepLR, step_size=5)
        assert ["schedule-drift"] == kinds(net, optimizer, [scheduler, SWALR(optimizer, LR)])

    def test_a_scheduler_without_its_optimizer_is_not_looked_at(self):
        """There is nothing that it could be wrong for."""
        net = network()
        assert [] == kinds(net, None, lrs.CosineAnnealingLR(layered(net), 9, 0.05))

    def test_two_mistakes_are_two_findings(self):
        """One does not hide the other."""
        net = network()
        optimizer = layered(net, names=False)
        optimizer.param_groups[0]["lr"] = torch.nan
        optimizer.add_param_group({"params": []})
        assert {"bad-value", "empty-group"} <= set(kinds(net, optimizer))


# --- optimizers: what each of torch's does with its groups

OPTIMIZERS = {
    name: each
    for name, each in vars(torch.optim).items()
    if inspect.isclass(each)
    and issubclass(each, torch.optim.Optimizer)
    and each is not torch.optim.Optimizer
}


class TestOptimizers:
    @pytest.mark.parametrize("name", sorted(OPTIMIZERS))
    def test_each_of_torch_reads_the_rates_of_its_groups(self, name):
        """All but LBFGS, which refuses a second group, and is found to."""
        cls = OPTIMIZERS[name]
        weights = {key: nn.Parameter(torch.randn(4, 4)) for key in "ab"}
        plan = nnlr.resolve(weights, nnlr.rule("a", lr_mult=0.1), lr=1e-2, weight_decay=0)
        if name == "LBFGS":
            optimizer = cls(weights.values(), lr=1e-2)
            assert {"refuses-rates", "plan-differs"} == set(kinds(plan, optimizer))
        else:
            assert [] == kinds(plan, plan.optimizer(cls))

    @pytest.mark.parametrize("name", sorted(OPTIMIZERS))
    def test_each_of_torch_that_has_decay_reads_it(self, name):
        """And of those that have not, one that is given some is found out."""
        cls = OPTIMIZERS[name]
        if name == "LBFGS":
            return
        weights = [nn.Parameter(torch.randn(4, 4)) for _ in "ab"]
        groups = [
            {"params": [w], "weight_decay": d} for w, d in zip(weights, (0.1, 0.0), strict=True)
        ]
        optimizer = cls(groups, lr=1e-2)
        knows = "weight_decay" in optimizer.defaults
        expected = [] if knows else ["ignores-decay"]
        assert expected == kinds(dict(zip("ab", weights, strict=True)), optimizer)
        assert knows == (name not in {"Rprop", "SparseAdam"})

    @pytest.mark.parametrize(
        ("cls", "key", "one", "other"),
        [
            (torch.optim.SGD, "momentum", 0.9, 0.5),
            (torch.optim.SGD, "nesterov", True, False),
            (torch.optim.SGD, "maximize", True, False),
            (torch.optim.AdamW, "betas", (0.9, 0.99), (0.8, 0.99)),
            (torch.optim.AdamW, "eps", 1e-8, 1e-7),
            (torch.optim.AdamW, "amsgrad", True, False),
            (torch.optim.RMSprop, "alpha", 0.9, 0.99),
        ],
    )
    def test_an_option_that_counts_is_no_finding(self, cls, key, one, other):
        """Also one whose effect is small, or comes late."""
        net = network()
        settings = {"momentum": 0.9} if key == "nesterov" else {}
        groups = [
            {"params": list(net[0].parameters()), key: one},
            {"params": list(net[2].parameters()), key: other},
        ]
        assert [] == kinds(net, cls(groups, lr=LR, weight_decay=0, **settings))

    def test_notes_that_anyone_keeps_in_groups_are_left_alone(self):
        """A depth, a tag and a scheduler's notes are no settings of the step."""
        net = network()
        optimizer = layered(net)
        for depth, group in enumerate(optimizer.param_groups):
            group.update(layer_id=depth, tag="x" * depth, swa_lr=0.1 * depth)
        assert [] == kinds(net, optimizer)

    def test_an_optimizer_that_wants_the_loss_is_given_it(self):
        """It cannot step without a closure."""

        class Wants(torch.optim.SGD):
            def step(self, closure):
                closure()
                return super().step()

        net = network()
        assert [] == kinds(net, layered(net, Wants))

    def test_an_optimizer_may_take_float32_only(self):
        """Then it is tried on that."""

        class Single(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    if any(p.dtype != torch.float32 for p in group["params"]):
                        raise RuntimeError("float32 only")
                return super().step(closure)

        net = network()
        assert [] == kinds(net, layered(net, Single))

    def test_an_optimizer_that_does_not_move_is_not_judged(self):
        """Nothing can be told from tensors that stay."""

        class Still(torch.optim.SGD):
            def step(self, closure=None):
                """Nothing."""

        net = network()
        (found,) = nnlr.check(net, layered(net, Still))
        assert "unprobed" == found.kind
        assert "nothing moved in 25 steps" in found.cause

    @pytest.mark.parametrize("key", ["weight_decay", "momentum"])
    def test_an_optimizer_that_refuses_what_is_tried_is_not_judged(self, key):
        """A note says what it said."""

        class Picky(torch.optim.SGD):
            def step(self, closure=None):
                if len({group[key] for group in self.param_groups}) > 1:
                    raise RuntimeError(f"one {key} only")
                return super().step(closure)

        weights = [nn.Parameter(torch.randn(4, 4)) for _ in "ab"]
        groups = [{"params": [w], key: d} for w, d in zip(weights, (0.1, 0.0), strict=True)]
        (found,) = nnlr.check(dict(zip("ab", weights, strict=True)), Picky(groups, lr=LR))
        assert "unprobed" == found.kind
        assert f"reads {key} could not be tried" in found.cause
        assert f"RuntimeError: one {key} only" in found.cause

    def test_hooks_on_all_optimizers_do_not_see_the_trial(self):
        """Whoever counts steps counts those of the run."""
        seen = []
        net = network()
        optimizer = layered(net)
        handles = [
            register_optimizer_step_pre_hook(lambda *_: seen.append("pre")),
            register_optimizer_step_post_hook(lambda *_: seen.append("post")),
        ]
        try:
            assert [] == kinds(net, optimizer)
            assert [] == seen
            optimizer.step()
            assert ["pre", "post"] == seen
        finally:
            for handle in handles:
                handle.remove()

    def test_numpy_need_not_be_there(self, monkeypatch):
        """Its random state is kept where it is loaded; it is not loaded for that."""
        net = network()
        optimizer = layered(net)
        monkeypatch.delitem(sys.modules, "numpy")
        assert "nothing found" == str(nnlr.check(net, optimizer))
        assert "numpy" not in sys.modules

    def test_rates_that_are_read_at_construction_only_are_not_read(self):
        """No scheduler would move them."""

        class Early(torch.optim.SGD):
            def __init__(self, params, lr):
                super().__init__(params, lr=lr)
                self.lrs = [group["lr"] for group in self.param_groups]

            def step(self, closure=None):
                for group, lr in zip(self.param_groups, self.lrs, strict=True):
                    for tensor in group["params"]:
                        tensor.data.sub_(tensor.grad, alpha=lr)

        net = network()
        assert ["ignores-rate"] == kinds(net, layered(net, Early))

    def test_what_is_tried_is_neither_heard_nor_drawn_from(self, capsys):
        """Prints, logs, warnings and all random states are kept inside."""

        class Loud(torch.optim.SGD):
            def __init__(self, params, lr):
                super().__init__(params, lr=lr)
                print(random.random(), np.random.rand(), torch.rand(1))  # noqa: S311, T201
                print("loud", file=sys.stderr)  # noqa: T201
                logging.getLogger("loud").error("loud")
                warnings.warn("loud", stacklevel=2)

        net = network()
        with pytest.warns(UserWarning, match="loud"):
            optimizer = layered(net, Loud)
        capsys.readouterr()
        assert [] == kinds(net, optimizer)  # a warning would be an error
        assert ("", "") == capsys.readouterr()
        logging.getLogger("loud").error("heard again")
        assert ("", "heard again\n") == capsys.readouterr()


# --- schedulers: what each of torch's does with the groups

KEEP, LOSE = [], ["schedule-drift"]
SCHEDULERS = {
    "LambdaLR": (KEEP, lambda o: lrs.LambdaLR(o, lambda step: 0.9**step)),
    "MultiplicativeLR": (KEEP, lambda o: lrs.MultiplicativeLR(o, lambda _: 0.9)),
    "StepLR": (KEEP, lambda o: lrs.StepLR(o, 3)),
    "MultiStepLR": (KEEP, lambda o: lrs.MultiStepLR(o, [2, 4])),
    "ConstantLR": (KEEP, lrs.ConstantLR),
    "LinearLR": (KEEP, lrs.LinearLR),
    "ExponentialLR": (KEEP, lambda o: lrs.ExponentialLR(o, 0.9)),
    "PolynomialLR": (KEEP, lambda o: lrs.PolynomialLR(o, 9)),
    "CosineAnnealingLR": (KEEP, lambda o: lrs.CosineAnnealingLR(o, 9)),
    "CosineAnnealingLR, floor": (LOSE, lambda o: lrs.CosineAnnealingLR(o, 9, 1e-6)),
    "CosineAnnealingWarmRestarts": (
        KEEP,
        lambda o: lrs.CosineAnnealingWarmRestarts(o, 5),
    ),
    "CosineAnnealingWarmRestarts, floor": (
        LOSE,
        lambda o: lrs.CosineAnnealingWarmRestarts(o, 5, eta_min=1e-3),
    ),
    "OneCycleLR": (
        KEEP,
        lambda o: lrs.OneCycleLR(o, [LR, LR * 0.01], total_steps=20),
    ),
    "OneCycleLR, one peak": (LOSE, lambda o: lrs.OneCycleLR(o, LR, total_steps=20)),
    "CyclicLR": (KEEP, lambda o: lrs.CyclicLR(o, [0.01, 1e-4], [0.1, 1e-3])),
    "CyclicLR, one peak": (LOSE, lambda o: lrs.CyclicLR(o, 0.01, 0.1)),
    "ReduceLROnPlateau": (KEEP, lambda o: lrs.ReduceLROnPlateau(o, eps=0)),
    "ReduceLROnPlateau, floor": (LOSE, lambda o: lrs.ReduceLROnPlateau(o, min_lr=1e-3)),
    "ReduceLROnPlateau, of a maximum": (
        LOSE,
        lambda o: lrs.ReduceLROnPlateau(o, "max", patience=50, min_lr=1e-3),
    ),
    "SequentialLR": (
        KEEP,
        lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o), lrs.ExponentialLR(o, 0.9)], [5]),
    ),
    "SequentialLR, floor": (
        LOSE,
        lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o), lrs.CosineAnnealingLR(o, 9, 1e-3)], [500]),
    ),
    "SequentialLR, to a last step": (
        KEEP,
        lambda o: lrs.SequentialLR(
            o, [lrs.LinearLR(o), lrs.OneCycleLR(o, [LR, LR * 0.01], total_steps=9)], [5]
        ),
    ),
    "ChainedScheduler": (
        KEEP,
        lambda o: lrs.ChainedScheduler([lrs.LinearLR(o), lrs.StepLR(o, 5)]),
    ),
    "ChainedScheduler, floor": (
        LOSE,
        lambda o: lrs.ChainedScheduler([lrs.LinearLR(o), lrs.CosineAnnealingLR(o, 9, 1e-3)]),
    ),
    "ChainedScheduler, to a last step": (
        KEEP,
        lambda o: lrs.ChainedScheduler(
            [lrs.OneCycleLR(o, [LR, LR * 0.01], total_steps=9), lrs.StepLR(o, 50)]
        ),
    ),
    "SWALR": (KEEP, lambda o: SWALR(o, [0.05, 0.0005], anneal_strategy="linear")),
    "SWALR, one rate": (LOSE, lambda o: SWALR(o, 0.05)),
    # long ones are looked at in places
    "long cosine": (KEEP, lambda o: lrs.CosineAnnealingLR(o, 10**6)),
    "long cosine, floor": (LOSE, lambda o: lrs.CosineAnnealingLR(o, 10**6, 1e-3)),
    "long restarts, floor": (
        LOSE,
        lambda o: lrs.CosineAnnealingWarmRestarts(o, 10**6, eta_min=1e-3),
    ),
    "long warmup, floor": (
        LOSE,
        lambda o: lrs.SequentialLR(
            o,
            [lrs.LinearLR(o, total_iters=10**5), lrs.CosineAnnealingLR(o, 10**6, 1e-3)],
            [10**5],
        ),
    ),
}


class Apart(lrs.LRScheduler):
    """It has another course for all but the first group, and nobody said so."""

    def __init__(self, optimizer, factor):
        self.factor = factor
        super().__init__(optimizer)

    def get_lr(self):
        first, *others = self.base_lrs
        return [first, *(rate * self.factor(self.last_epoch) for rate in others)]


class TestSchedulers:
    def test_every_scheduler_of_torch_is_here(self):
        """One that is added fails here until it has an entry."""
        known = {name.partition(",")[0] for name in SCHEDULERS}
        assert set(lrs.__all__) - {"LRScheduler"} <= known

    @pytest.mark.parametrize("tensor_lr", [False, True])
    @pytest.mark.parametrize("name", SCHEDULERS)
    def test_each_is_seen_to_keep_the_ratios_or_to_lose_them(self, name, tensor_lr):
        """By a copy that runs to its end; the real one and its groups stay as they are."""
        net = network()
        expected, make = SCHEDULERS[name]
        optimizer = layered(net, momentum=0.9, tensor_lr=tensor_lr)
        scheduler = make(optimizer)
        found = kinds(net, optimizer, scheduler)
        assert expected == [each for each in found if each != "ratio-drift"]
        # A peak is written into all groups at once, which the groups show by themselves.
        assert ("ratio-drift" in found) == (name.endswith("one peak"))

    @pytest.mark.parametrize("name", SCHEDULERS)
    @pytest.mark.no_cover
    def test_each_is_seen_in_the_middle_of_a_run(self, name):
        """Three steps on, the answer is the same."""
        net = network()
        expected, make = SCHEDULERS[name]
        optimizer = layered(net, momentum=0.9)
        scheduler = make(optimizer)
        metric = isinstance(scheduler, lrs.ReduceLROnPlateau)
        for _ in range(3):
            optimizer.step()
            scheduler.step(*([1.0] if metric else []))
        found = kinds(net, optimizer, scheduler)
        assert expected == [each for each in found if each != "ratio-drift"]

    @pytest.mark.parametrize("name", SCHEDULERS)
    @pytest.mark.no_cover
    def test_with_schedule_each_is_clean(self, name):
        """Whatever its floors are, they are those of the base rate."""
        if "OneCycle" in name or "Cyclic" in name or "last step" in name:
            return  # those with lists are refused, one for each group
        net = network()
        optimizer = layered(net, momentum=0.9)
        make = SCHEDULERS[name][1]
        if name == "SWALR":
            make = SCHEDULERS["SWALR, one rate"][1]
        assert [] == kinds(net, optimizer, nnlr.schedule(optimizer, make))

    def test_the_smallest_change_of_a_plateau_stops_slow_groups_first(self):
        """At usual rates even one without a floor loses the ratios, by its eps of 1e-8."""
        net = network()
        plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.01), lr=1e-3, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.AdamW)
        assert LOSE == kinds(plan, optimizer, lrs.ReduceLROnPlateau(optimizer))

    def test_the_numbers_are_those_of_the_run(self):
        """Step and rates in the text are what a run by hand comes to."""
        net = network()
        optimizer = layered(net)
        make = SCHEDULERS["SequentialLR, floor"][1]
        (found,) = nnlr.check(net, optimizer, make(optimizer))
        optimizer = layered(net)
        scheduler = make(optimizer)
        for _ in range(509):
            optimizer.step()
            scheduler.step()
        fast, slow = (group["lr"] for group in optimizer.param_groups)
        assert "509 steps on, 'lr0.01_wd1' has a rate of " in found.cause
        assert f"a rate of {slow:.3g} instead of {fast * 0.01:.3g}" in found.cause

    def test_held_ratios_are_no_finding(self):
        """keep_ratios mends them before each step; watching alone does not."""
        net = network()
        plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0), lr=LR, weight_decay=0)
        for optimizer, lost in (
            (layered(net), "schedule-drift"),
            (plan.optimizer(torch.optim.SGD, locked="keep"), "zero-wakes"),
        ):
            scheduler = lrs.CosineAnnealingLR(optimizer, 9, 0.01)
            handle = nnlr.keep_ratios(optimizer, correct=False)
            assert lost in kinds(net, optimizer, scheduler)
            handle.remove()
            nnlr.keep_ratios(optimizer)
            assert lost not in kinds(net, optimizer, scheduler)

    def test_rates_that_are_multiplied_already_are_the_ratios(self):
        """Beside an ``lr_scale`` that a scheduler of timm would multiply in once more."""
        net = network()
        groups = [
            {"params": net[0].parameters(), "lr": LR, "lr_scale": 1.0},
            {"params": net[2].parameters(), "lr": LR * 0.5, "lr_scale": 0.5},
        ]
        optimizer = torch.optim.SGD(groups, lr=LR)
        assert ["squared-rate"] == kinds(net, optimizer, lrs.StepLR(optimizer, 5))

    def test_equal_groups_have_nothing_to_lose(self):
        """A function for each group, and no multipliers: it is meant so."""
        net = network()
        groups = [{"params": net[0].parameters()}, {"params": net[2].parameters()}]
        optimizer = torch.optim.SGD(groups, lr=LR)
        scheduler = lrs.LambdaLR(optimizer, [lambda _: 1.0, lambda _: 0.5])
        assert [] == kinds(net, optimizer, scheduler)

    def test_a_group_without_a_multiplier_is_not_compared(self):
        """As what a fine-tuning callback adds, beside groups that carry one."""
        net = network()
        optimizer = layered(net, names=False)
        extra = nn.Linear(1, 1)
        optimizer.add_param_group({"params": extra.parameters(), "lr": 0.3})
        model = nn.ModuleList([net, extra])
        scheduler = lrs.ExponentialLR(optimizer, 0.9)
        assert [] == kinds(model, optimizer, scheduler)

    def test_a_group_that_stops_is_as_bad_as_one_that_wakes(self):
        """A rate of 0 where there should be one has no factor, and is the worst."""
        net = network()
        optimizer = layered(net)
        (found,) = nnlr.check(net, optimizer, Apart(optimizer, lambda e: 1.0 * (e < 3)))
        assert "'lr0.01_wd1' has a rate of 0 instead of 0.001" in found.cause

    @pytest.mark.parametrize("name", [name for name in SCHEDULERS if "floor" in name])
    def test_the_fix_is_the_call_with_the_users_arguments(self, name):
        """Of a chain too, part by part: the base rate then has the course of the fast group."""
        net = network()
        optimizer = layered(net, momentum=0.9)
        scheduler = SCHEDULERS[name][1](optimizer)
        found = next(each for each in nnlr.check(net, optimizer, scheduler))
        plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
        alone = SCHEDULERS[name][1](plain)
        optimizer = layered(net, momentum=0.9)
        script = {"nnlr": nnlr, "optimizer": optimizer, "scheduler": scheduler, **vars(lrs)}
        exec(found.fix.rpartition(": ")[2], script)  # noqa: S102 - it is offered to be pasted
        metric = [1.0] * isinstance(alone, lrs.ReduceLROnPlateau)
        for _ in range(20):
            assert [plain.param_groups[0]["lr"]] == [script["scheduler"].base_lr]
            plain.step()
            optimizer.step()
            alone.step(*metric)
            script["scheduler"].step(*metric)
        assert [] == kinds(net, optimizer, script["scheduler"])

    def test_a_function_is_taken_from_the_scheduler(self):
        """Code cannot show it, and the old scheduler is at hand."""

        class Floored(lrs.LambdaLR):
            def get_lr(self):
                return [max(rate, LR * 0.008) for rate in super().get_lr()]

        net = network()
        optimizer = layered(net)
        (found,) = nnlr.check(net, optimizer, Floored(optimizer, lambda step: 0.9**step))
        assert found.fix.endswith("Floored, lr_lambda=scheduler.lr_lambdas[0])")

    def test_arguments_that_cannot_be_read_are_dots(self):
        """What the scheduler does not keep is left to the user."""
        net = network()
        optimizer = layered(net)
        (found,) = nnlr.check(net, optimizer, SWALR(optimizer, 0.05))
        assert "nnlr.schedule(optimizer, SWALR, swa_lr=0.05, ...)" in found.fix

        class Secretive(lrs.LRScheduler):
            def __init__(self, optimizer, floor, last_epoch=-1):
                self._hidden = floor
                super().__init__(optimizer, last_epoch)

            def get_lr(self):
                return [max(0.9 * group["lr"], self._hidden) for group in optimizer.param_groups]

        optimizer = layered(net)
        found = nnlr.check(net, optimizer, Secretive(optimizer, 0.01))[0]
        assert "nnlr.schedule(optimizer, Secretive, floor=...)" in found.fix

    def test_anyones_scheduler_is_run(self):
        """With a metric, with positions as timm's, or with nothing; never by its name."""

        class Metric:
            def __init__(self, optimizer):
                self.optimizer = optimizer

            def step(self, metric):
                for group in self.optimizer.param_groups:
                    group["lr"] = max(group["lr"] / 2, 1e-3)

        class Positions(Metric):
            def step(self, epoch):
                for group in self.optimizer.param_groups:
                    group["lr"] = 1 / (1 + epoch)

        class Nothing(Metric):
            def step(self):
                for group in self.optimizer.param_groups:
                    group["lr"] += 0.1

        net = network()
        for kind in (Metric, Positions, Nothing):
            optimizer = layered(net)
            assert LOSE == kinds(net, optimizer, kind(optimizer))

    def test_positions_may_be_told_twice(self):
        """As by timm: each epoch and, if there is a method for it, each update."""

        class Updates:
            def __init__(self, optimizer):
                self.optimizer, self.length = optimizer, 40

            def step(self, epoch, metric=None):
                """Epochs do not count."""

            def step_update(self, update):
                for group in self.optimizer.param_groups:
                    group["lr"] = 1 / (1 + update)

        net = network()
        optimizer = layered(net)
        assert LOSE == kinds(net, optimizer, Updates(optimizer))

    def test_how_long_it_is_may_be_in_its_functions(self):
        """Transformers hides the number of steps in a partial; the floor is at its end."""

        def late(step, *, warmup):
            return 1.0 if step < warmup else 0.5

        class Floored(lrs.LambdaLR):
            def get_lr(self):
                return [max(rate, LR * 0.008) for rate in super().get_lr()]

        net = network()
        optimizer = layered(net)
        for warmup in (700, 10**6):
            scheduler = Floored(optimizer, functools.partial(late, warmup=warmup))
            assert LOSE == kinds(net, optimizer, scheduler)

    def test_a_metric_may_move_rates_for_ever(self):
        """Then it is followed for as long as others are."""

        class Restless:
            def __init__(self, optimizer):
                self.optimizer = optimizer

            def step(self, metric):
                for group in self.optimizer.param_groups:
                    group["lr"] *= 0.999

        net = network()
        optimizer = layered(net)
        assert [] == kinds(net, optimizer, Restless(optimizer))

    @pytest.mark.parametrize(
        ("step", "why"),
        [
            (lambda self, loss, epoch: None, "TypeError: its step takes loss, epoch"),
            (lambda self: 1 / 0, "it raised ZeroDivisionError"),
        ],
    )
    def test_what_cannot_be_run_is_said(self, step, why):
        """A note, with what it said."""

        class Odd:
            def __init__(self, optimizer):
                self.optimizer = optimizer

        Odd.step = step
        net = network()
        optimizer = layered(net)
        (found,) = nnlr.check(net, optimizer, Odd(optimizer))
        assert "unrehearsed" == found.kind
        assert why in found.cause

    def test_no_parameter_is_copied(self):
        """A scheduler that holds the model, the trainer's way, costs no memory."""

        class Uncopyable(nn.Parameter):
            def __deepcopy__(self, memo):
                raise MemoryError

        net = network()
        net[0].weight = Uncopyable(net[0].weight.detach())
        optimizer = layered(net)
        scheduler = lrs.CosineAnnealingLR(optimizer, 9, 0.01)
        scheduler.model = net
        scheduler.weights = [net[0].weight]
        assert LOSE == kinds(net, optimizer, scheduler)
        pairs = list(net.named_parameters())
        assert LOSE == kinds(pairs, optimizer, lrs.CosineAnnealingLR(optimizer, 9, 0.01))


class TestPlans:
    def test_a_plan_is_compared_in_mid_run(self):
        """What a scheduler moved is not another plan; its notes, or it, are the witness."""
        net = network()
        plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.1), lr=LR, weight_decay=0.0)
        for make in ("OneCycleLR", "StepLR", "ReduceLROnPlateau"):
            optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
            if make == "OneCycleLR":
                scheduler = lrs.OneCycleLR(optimizer, [LR, LR * 0.1], total_steps=9)
            elif make == "StepLR":
                scheduler = lrs.StepLR(optimizer, 1)
            else:
                scheduler = lrs.ReduceLROnPlateau(optimizer, patience=0, eps=0)
            for _ in range(4):
                optimizer.step()
                scheduler.step(*([1.0] if make == "ReduceLROnPlateau" else []))
            assert LR != optimizer.param_groups[0]["lr"]
            assert [] == kinds(plan, optimizer, scheduler)

    def test_another_base_is_seen_under_a_scheduler(self):
        """The optimizer's default tells it from the progress of a schedule."""
        net = network()
        plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.1), lr=LR, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        scheduler = lrs.StepLR(optimizer, 5)
        other = plan.with_rates(lr=LR / 2)
        assert [] == kinds(plan, optimizer, scheduler)
        assert ["plan-differs"] == kinds(other, optimizer, scheduler)

    def test_what_the_plan_does_not_train_is_not_compared(self):
        """Parameters that it does not know have a finding of their own."""
        net = network()
        plan = nnlr.resolve(net[0], lr=LR, weight_decay=0)
        optimizer = torch.optim.SGD(copy.deepcopy(net[2]).parameters(), lr=0.5)
        found = kinds(plan, optimizer)
        assert {"stale-parameter", "untrained-parameter"} == set(found)

    def test_an_eps_that_the_plan_multiplies_is_not_an_option(self):
        """The group holds the product."""
        net = network()
        both = nnlr.rule("0.*", options={"eps": 1e-6})

        class Widened(nnlr.Scheme):
            def factors(self, model):
                return [nnlr.Factor(eps_mult=0.5)] * len(model.params)

        plan = nnlr.resolve(net, both, Widened(), lr=LR, weight_decay=0)
        assert [] == kinds(plan, plan.optimizer(torch.optim.AdamW))

    def test_statistics_of_a_model_that_is_not_at_hand(self):
        """Without modules nobody can say whether they move: the finding stays."""
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        plan = nnlr.resolve(net, nnlr.rule("1.*", lr_mult=0), lr=LR, weight_decay=0)
        pairs = dict(net.named_parameters())
        assert "running-statistics" in kinds(plan, model=pairs)


class TestMembers:
    def test_gradients_that_cannot_be_counted_are_not_called_zero(self):
        """Sparse ones, and on the meta device."""
        net = nn.Embedding(3, 2, sparse=True)
        net(torch.tensor([1])).sum().backward()
        net.weight.grad = net.weight.grad * 0
        assert [] == kinds(net, torch.optim.SGD(net.parameters(), lr=LR))

    def test_half_precision_really_stands_still(self):
        """What is reported does not move in a real step; what is not, does."""
        for lr, found in ((1e-6, ["vanishing-update"]), (0.5, [])):
            layer = nn.Linear(64, 64, bias=False).bfloat16()
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            before = layer.weight.detach().clone()
            optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=0)
            assert found == kinds(layer, optimizer)
            layer(torch.ones(1, 64, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()
            assert bool(found) == torch.equal(before, layer.weight)

    def test_numpy_scalars_really_cannot_be_loaded(self, tmp_path):
        """The reason for the finding: weights_only refuses the checkpoint."""
        import pickle

        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=np.float64(LR))
        torch.save(optimizer.state_dict(), tmp_path / "state.pt")
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            torch.load(tmp_path / "state.pt", weights_only=True)
        assert ["unsafe-value"] == kinds(net, optimizer)

    def test_multipliers_that_are_all_0_have_no_ratio(self):
        """No group stands for a base."""
        net = network()
        optimizer = layered(net)
        for group in optimizer.param_groups:
            group.update(lr=0.0, lr_mult=0.0)
        assert [] == kinds(net, optimizer)

    def test_tensors_and_nested_plain_values_are_safe(self):
        """What every checkpoint can hold is no finding; a function is one."""
        net = network()
        optimizer = layered(net)
        group = optimizer.param_groups[0]
        group.update(one=[1, (2.0, "x")], two=torch.ones(2), three=torch.Size([1]))
        assert [] == kinds(net, optimizer)
        for each in optimizer.param_groups:
            each["four"] = layered
        (found,) = nnlr.check(net, optimizer)
        assert "unsafe-value" == found.kind
        assert 2 == len(found.names)


def _fixed_by_hand(optimizer):
    """A loop that schedules without a scheduler."""

    def step():
        for group in optimizer.param_groups:
            group["lr"] *= 0.5

    return SimpleNamespace(step=step)


def _cycle(optimizer):
    peaks = [LR * group["lr_mult"] for group in optimizer.param_groups]
    low = [peak / 10 for peak in peaks]
    return lrs.CyclicLR(optimizer, low, peaks, cycle_momentum=False)


@pytest.mark.parametrize(
    "schedule",
    [
        _fixed_by_hand,
        _cycle,
        lambda optimizer: lrs.ExponentialLR(optimizer, 0.9),
        lambda optimizer: lrs.ReduceLROnPlateau(optimizer, patience=0, eps=0),
    ],
    ids=["by_hand", "cycle", "exponential", "plateau"],
)
def test_a_schedule_that_was_not_passed_moves_all_rates_alike(schedule):
    """Then they are still those of the plan; the same before a step is a wrong base."""
    net = network()
    plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.01), lr=LR, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.AdamW)
    scheduler = schedule(optimizer)
    for _ in range(3):
        net(torch.ones(2, 4)).square().mean().backward()
        optimizer.step()
        scheduler.step(*[1.0] * isinstance(scheduler, lrs.ReduceLROnPlateau))
    assert optimizer.param_groups[0]["lr"] != LR
    assert [] == kinds(plan, optimizer)
    halved = plan.with_rates(lr=LR / 2).optimizer(torch.optim.AdamW)
    assert ["plan-differs"] == kinds(plan, halved)[:1]


@pytest.mark.parametrize("begin", [0, 7])
def test_the_step_of_a_long_schedule_is_the_one_that_is_meant(begin):
    """Positions that were jumped over count: it is 200,000 steps to the floor, not 200."""
    net = network()
    optimizer = layered(net)
    scheduler = lrs.CosineAnnealingLR(optimizer, 200_000, eta_min=LR / 100)
    for _ in range(begin):
        optimizer.step()
        scheduler.step()
    (found,) = nnlr.check(net, optimizer, scheduler)
    assert f"{200_000 - begin:,} steps on" in found.cause


def test_a_chain_counts_from_its_start():
    """The floor of the second part comes after the first."""
    net = network()
    optimizer = layered(net)
    parts = [
        lrs.LinearLR(optimizer, total_iters=50_000),
        lrs.CosineAnnealingLR(optimizer, 100_000, eta_min=LR / 100),
    ]
    (found,) = nnlr.check(net, optimizer, lrs.SequentialLR(optimizer, parts, [50_000]))
    assert "150,000 steps on" in found.cause


def test_two_thousand_tensors_take_no_time():
    """Each is looked at a few times, whatever their number: far less than a step of training."""
    net = nn.ModuleList([nn.Linear(2, 2) for _ in range(1000)])
    rates = [nnlr.rule(f"{digit}*", lr_mult=0.9**digit) for digit in range(1, 10)]
    plan = nnlr.resolve(net, *rates, lr=LR, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.AdamW)
    scheduler = lrs.CosineAnnealingLR(optimizer, 100_000)
    assert "nothing found" == str(nnlr.check(plan, optimizer, scheduler))
    check = functools.partial(nnlr.check, plan, optimizer, scheduler)
    assert calls(check) < 100 * len(plan.rows)


def test_a_plan_that_locks_all_and_keeps_it_has_no_progress_to_tell():
    """Every rate is 0, so none tells how far a schedule has come."""
    model = network()
    plan = nnlr.resolve(model, nnlr.rule("*", lr_mult=0), lr=LR, weight_decay=0.0)
    optimizer = plan.optimizer(torch.optim.SGD, locked="keep")
    assert "plan-differs" not in kinds(plan, optimizer)


class TestTrials:
    """What is said of optimizers that are hard to try."""

    def test_what_an_optimizer_must_be_told_and_keeps_is_passed_on(self):
        """Without it nothing could be tried."""

        class Told(torch.optim.SGD):
            def __init__(self, params, steps, lr):
                self.steps = steps
                super().__init__(params, lr=lr / steps)

        net = network()
        groups = [{"params": net[0].parameters(), "lr": 0.01}, {"params": net[2].parameters()}]
        assert [] == kinds(net, Told(groups, steps=2, lr=LR))

    def test_a_step_that_copies_its_group_has_read_it_all(self):
        """Nobody can say which setting it goes by."""

        class Copying(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    assert dict(group).keys() == set(group)
                super().step(closure)

        net = network()
        groups = [
            {"params": net[0].parameters(), "alpha": 0.5},
            {"params": net[2].parameters(), "alpha": 0.6},
        ]
        assert [] == kinds(net, Copying(groups, lr=LR))
        assert ["ignores-option"] == kinds(net, torch.optim.SGD(groups, lr=LR))

    def test_settings_of_what_cannot_be_tried_are_those_of_its_constructor(self):
        """A default that it does not declare is none."""

        class Peculiar(torch.optim.SGD):
            def __init__(self, params, secret, lr, momentum=0.0):
                super().__init__(params, lr=lr, momentum=momentum)
                self.defaults["noted"] = 1
                self._hidden = secret

        net = network()
        optimizer = Peculiar(net.parameters(), secret=1, lr=LR)
        assert "missing-setting" not in kinds(net, optimizer)
        del optimizer.param_groups[0]["momentum"]
        (found,) = [f for f in nnlr.check(net, optimizer) if f.kind == "missing-setting"]
        assert "has no momentum" in found.cause
        # Nor are its steps, or its state, judged.
        half = network().bfloat16()
        optimizer = Peculiar(half.parameters(), secret=1, lr=1e-6)
        optimizer.state[half[0].weight] = {"momentum_buffer": torch.zeros(1, 2)}
        assert [] == kinds(half, optimizer)

    def test_half_precision_in_the_second_of_two(self):
        """Each weight is judged by its own optimizer."""
        net = network().bfloat16()
        first = torch.optim.SGD(net[0].parameters(), lr=0.5)
        second = torch.optim.AdamW(net[2].parameters(), lr=1e-6, weight_decay=0)
        assert ["vanishing-update"] == kinds(net, [first, second])

    @pytest.mark.parametrize("part", [[torch.zeros(3)], object()], ids=["list", "object"])
    def test_states_of_other_things_than_tensors(self, part):
        """Lists are looked into; of what cannot be copied so nothing is said."""

        class Keeping(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    for param in group["params"]:
                        self.state[param].setdefault("part", part)
                        self.state[param].setdefault("mean", torch.zeros_like(param))
                        self.state[param]["mean"] += param.grad

        net = network()
        optimizer = Keeping(net.parameters(), lr=LR)
        for tensor in net.parameters():
            tensor.grad = torch.ones_like(tensor)
        optimizer.step()
        optimizer.zero_grad()
        assert [] == kinds(net, optimizer)
        optimizer.state[net[0].weight]["mean"] = torch.zeros(7)
        assert [*["wrong-state"] * isinstance(part, list)] == kinds(net, optimizer)

    def test_a_state_that_lacks_something_and_steps_all_the_same(self):
        """SGD makes a momentum where there is none: another form is no fault by itself."""
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)
        for tensor in net.parameters():
            optimizer.state[tensor] = {"step": 3}
        assert [] == kinds(net, optimizer)

    def test_many_states_that_do_not_fit_are_dropped_together(self):
        """The line to paste names at most eight parameters."""
        net = nn.ModuleList([nn.Linear(2, 2) for _ in range(9)])
        optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=0)
        for tensor in net.parameters():
            optimizer.state[tensor] = {"momentum_buffer": torch.zeros(2)}
        (found,) = nnlr.check(net, optimizer)
        assert found.fix.endswith("optimizer.state.clear()")

    def test_a_state_of_a_sharded_parameter_is_compared_as_a_whole(self):
        """By its global shape, without its values."""

        class Sharded(torch.Tensor):
            def full_tensor(self):
                raise AssertionError("a collective call")

        net = nn.Linear(2, 2, bias=False)
        optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=0)
        net.weight.grad = torch.ones(2, 2)
        optimizer.step()
        optimizer.zero_grad()
        state = optimizer.state[net.weight]
        for shape, expected in (((2, 2), []), ((3, 2), ["wrong-state"])):
            state["exp_avg"] = torch.zeros(shape).as_subclass(Sharded)
            assert expected == kinds(net, optimizer)


class TestFixes:
    """The lines that findings offer, where these depend on what is there."""

    def test_a_pattern_stands_for_parameters_only_where_it_has_no_other(self):
        """The shortest prefix of which all are meant, else the name."""
        names = ["a.0.weight", "a.0.bias", "a.1.weight", "a.1.bias", "b"]
        assert "nnlr.freeze('a.*')" == frozen(names[:4], names)
        assert "nnlr.freeze('a.1.bias')" == frozen(names[3:4], names)
        some = frozen([*names[:2], names[2], "b"], names)
        assert "nnlr.freeze(nnlr.glob('a.0.*') | 'a.1.weight' | 'b')" == some

    def test_a_wrapper_that_shows_no_optimizer(self):
        """Then nobody can say what it is called."""

        class Hidden(torch.optim.Optimizer):
            def __init__(self, inner):
                self.param_groups, self.defaults = inner.param_groups, inner.defaults
                self.state, self._all = inner.state, [inner]

            def step(self, closure=None):
                self._all[0].step(closure)

        net = network()
        optimizer = Hidden(torch.optim.SGD(net.parameters(), lr=LR))
        (found,) = nnlr.check(net, optimizer)
        assert "no-hooks" == found.kind
        assert "Pass what it wraps to keep_ratios" in found.fix

    def test_a_base_that_is_bad_itself(self):
        """Then the line has a usual rate."""
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=LR)
        optimizer.defaults["lr"] = optimizer.param_groups[0]["lr"] = torch.nan
        (found,) = nnlr.check(net, optimizer)
        assert found.fix.endswith("optimizer.param_groups[0]['lr'] = 0.001")

    def test_parameters_without_a_model(self):
        """Averages are known by their modules; pairs have none."""
        net = network()
        optimizer = torch.optim.SGD(net[0].parameters(), lr=LR)
        assert ["untrained-parameter"] == kinds(list(net.named_parameters()), optimizer)


def test_something_else_beside_a_model_is_refused():
    """It would not be looked at."""
    net = nn.Linear(2, 1)
    with pytest.raises(nnlr.NnlrError, match="model= is for a plan that was loaded or copied"):
        nnlr.check(True, model=net)


class TestAlgorithms:
    """Muon and what is beside it, where less is known of them than in the cases."""

    def kinds(self, *args):
        return [finding.kind for finding in nnlr.check(*args)]

    def test_a_fused_matrix_of_a_class_without_a_known_factor(self):
        """It is named, and no number is made up; nor a fix where nothing is routed."""
        net = algorithm_cases.decoder(fused=True)
        matrices = [p for p in net.blocks.parameters() if p.ndim == 2]
        rest = [p for name, p in net.named_parameters() if "block" not in name or p.ndim != 2]
        muon = algorithm_cases.FlatMuon(matrices, lr=0.02)
        (found,) = nnlr.check(net, [muon, torch.optim.SGD(rest, lr=0.02)])
        assert found.cause.endswith("'blocks.0.qkv.weight' is 24 x 8")
        assert found.fix.endswith("or send it to the other algorithm.")

    @pytest.mark.parametrize(
        ("name", "shape", "part"),
        [
            ("gate_up_proj", (32, 8), "16 x 8"),
            ("kv", (16, 32), "8 x 32"),
            ("c_attn", (8, 24), "8 x 8"),
            ("Wqkv", (24, 8), "8 x 8"),
            ("linear_qkv", (24, 8), "8 x 8"),
        ],
    )
    def test_parts_of_fused_matrices(self, name, shape, part):
        """Of two and of three layers, in rows and in columns."""
        net = nn.ModuleDict({name: nn.Linear(*shape[::-1], bias=False)})
        (found,) = nnlr.check(net, torch.optim.Muon(net.parameters(), lr=0.02, weight_decay=0))
        assert "fused-matrix" == found.kind
        assert f"{part}, one of its" in found.cause

    def test_a_class_that_cannot_be_tried_is_not_accused(self):
        """Nor one that copies, nor float32 weights."""

        class OtherMuon(torch.optim.SGD):
            def __init__(self, params, *, secret):
                super().__init__(params, lr=0.02, momentum=0.9)

        def made(cls, dtype=torch.bfloat16, **settings):
            net = nn.Sequential(nn.Linear(4, 4, bias=False)).to(dtype)
            optimizer = cls(net.parameters(), **settings)
            optimizer.param_groups[0]["nesterov"] = False
            return net, optimizer

        class Copies(torch.optim.SGD):
            """Called after nothing, and with settings of Newton-Schulz."""

            def __init__(self, params, **settings):
                super().__init__(params, **{"lr": 0.02, "momentum": 0.9, **settings})
                self.param_groups[0]["ns_steps"] = 5

        for args in (
            made(OtherMuon, secret=1),
            made(Copies),
            made(torch.optim.Muon, torch.float32, weight_decay=0),
        ):
            assert "normalised-momentum" not in self.kinds(*args)

    def test_rerouted_to_what_nobody_can_measure(self):
        """SGD goes by the gradient."""
        net = algorithm_cases.decoder()
        rule = nnlr.rule("blocks.0.proj.weight", algorithm="sgd", lr_mult=1e-3)
        rest = nnlr.route("muon", "sgd") * nnlr.no_weight_decay()
        plan = nnlr.resolve(net, rest * rule, lr={"muon": 0.02, "sgd": 0.1}, weight_decay=0.1)
        classes = {"muon": torch.optim.Muon, "sgd": torch.optim.SGD}
        assert [] == self.kinds(plan, plan.optimizer(classes))

    def test_two_adams_may_be_far_apart(self):
        """A head beside a backbone, with a Muon or without."""
        net = algorithm_cases.decoder()
        muon = [net.blocks[0].up.weight]
        head, *others = [p for p in net.parameters() if p is not muon[0]]
        optimizers = [
            torch.optim.Muon(muon, lr=0.02, weight_decay=0),
            torch.optim.AdamW([head], lr=3e-3, weight_decay=0),
            torch.optim.AdamW(others, lr=8e-4, weight_decay=0),
        ]
        assert [] == self.kinds(net, optimizers)
        optimizers[2].param_groups[0]["lr"] = 1e-6
        assert ["unequal-updates"] == self.kinds(net, optimizers)
        assert [] == self.kinds(net, [torch.optim.AdamW(muon), *optimizers[1:]])

    def test_a_group_that_lost_its_algorithm(self):
        """A hand has put it in; it is looked at as one of the whole."""
        _, optimizer = algorithm_cases.routed(algorithm_cases.decoder())
        group = {k: v for k, v in optimizer.param_groups[1].items() if k != "algorithm"}
        optimizer.param_groups[1] = {**group, "lr": -1.0}
        assert "bad-value" in self.kinds(algorithm_cases.MODELS[-1], optimizer)
