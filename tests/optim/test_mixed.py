"""Several classes in one optimizer: to the last bit what they are one after the other."""

import contextlib
import copy
from functools import partial, wraps

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import nnlr
from tests.optim.database import ALL, OptimizerErrorEnum, inputs
from tests.optim.mixed import (
    ADAMW,
    MUON,
    OUR_ADAMW,
    SETS,
    SGD,
    give_gradients,
    parameters,
    same,
    same_state,
    separate,
    together,
    train,
)
from tests.schedule import cases

Mixed = nnlr.optim.Mixed
PAIR = SETS["muon-adamw"]


def schedulers():
    """Every scheduler of torch and of transformers, by name: a function of an optimizer."""
    made = {
        f"{name}-{at}": partial(lambda make, kw, opt: make(opt, **kw), *case)
        for name, several in cases.TORCH.items()
        for at, case in enumerate(several)
    }
    made |= {
        f"{name}-apart": partial(lambda make, kw, opt: make(opt, **kw, cycle_momentum=False), *case)
        for name in ("CyclicLR", "OneCycleLR")
        for case in cases.TORCH[name]
    }
    with contextlib.suppress(ImportError):
        import transformers

        made |= {
            kind.value: partial(
                lambda kind, settings, opt: transformers.get_scheduler(
                    kind, opt, 2, 30, scheduler_specific_kwargs=settings
                ),
                kind,
                settings,
            )
            for kind, settings in cases.transformers_cases()
        }
    return made


SCHEDULERS = schedulers()
# In the short run each set has one scheduler, and each scheduler one set.
SHORT = dict(zip(SETS, sorted(SCHEDULERS, key=lambda name: name[::-1]), strict=False))


@pytest.mark.filterwarnings("ignore:.*get_last_lr:UserWarning")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(
    "classes",
    [pytest.param(name, marks=() if name == "muon-sgd" else pytest.mark.full) for name in SETS],
)
@pytest.mark.no_cover
def test_every_scheduler_on_every_set(classes, scheduler):
    """Ten steps of one scheduler on one optimizer, and of one each on several."""
    cycles = scheduler in {"CyclicLR-0", "OneCycleLR-0"}
    follow(SETS[classes], SCHEDULERS[scheduler], cycles=cycles)


@pytest.mark.parametrize(("classes", "scheduler"), SHORT.items())
def test_every_set(classes, scheduler):
    """Each with a scheduler of its own."""
    cycles = scheduler in {"CyclicLR-0", "OneCycleLR-0"}
    follow(SETS[classes], SCHEDULERS[scheduler], cycles=cycles)


def follow(classes, make, *, cycles=False):
    """Compare one optimizer under a scheduler with several, each under its own."""
    # Some schedulers of transformers read the default, which is the first one's.
    classes = [partial(cls, lr=0.01) for cls in classes]
    ones, others = parameters(), parameters()
    apart, mixed = separate(classes, ones), together(classes, others)
    cycled = {"betas" if "betas" in each.defaults else "momentum" for each in apart}
    if cycles and (len(cycled) > 1 or not cycled <= mixed.defaults.keys()):
        with pytest.raises(
            ValueError, match="must support momentum or beta1 with `cycle_momentum`"
        ):
            make(mixed)
        return
    schedules, one = [make(optimizer) for optimizer in apart], make(mixed)
    train(ones, apart, range(10), lambda step: [cases.advance(s, step) for s in schedules])
    train(others, [mixed], range(10), lambda step: cases.advance(one, step))
    assert same(ones, others)
    assert same_state(apart, mixed, ones, others)


def test_schedulers_that_read_the_default_rate_go_by_the_first():
    """Transformers' polynomial one falls to a fraction of it: of all rates the same."""
    pytest.importorskip("transformers")
    classes = (partial(MUON, lr=0.02), partial(ADAMW, lr=0.5))
    params, twins = parameters(), parameters()
    mixed, (muon, _) = together(classes, params), separate(classes, twins)
    schedules = [SCHEDULERS["polynomial"](optimizer) for optimizer in (mixed, muon)]
    starts = [group["initial_lr"] for group in mixed.param_groups]
    train(params, [mixed], range(12), lambda _: schedules[0].step())
    train(twins, [muon], range(12), lambda _: schedules[1].step())
    factor = muon.param_groups[0]["lr"] / muon.param_groups[0]["initial_lr"]
    assert [start * factor for start in starts] == pytest.approx(
        [group["lr"] for group in mixed.param_groups], rel=1e-12
    )


def test_momentum_is_cycled_where_a_class_has_betas_beside_it():
    """Alone such a class cycles betas: with a class without them nothing common is left."""

    class Both(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params, momentum=0.9)
            self.defaults["betas"] = (0.9, 0.99)

    with pytest.raises(ValueError, match="cycle_momentum"):
        SCHEDULERS["OneCycleLR-0"](together((Both, SGD), parameters()))


@pytest.mark.parametrize("classes", [PAIR, SETS["our_sgd-our_adamw"]], ids=["torch", "ours"])
def test_rates_in_tensors(classes):
    """Filled in place by the scheduler."""
    runs = []
    for build in (separate, together):
        params = parameters()
        optimizers = build(classes, params, lr=torch.tensor)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        schedules = [lrs.ExponentialLR(optimizer, 0.9) for optimizer in optimizers]
        train(params, optimizers, range(5), lambda _, s=schedules: [each.step() for each in s])
        assert all(torch.is_tensor(o.param_groups[0]["lr"]) for o in optimizers)
        runs.append(params)
    assert same(*runs)


class TestDatabase:
    """Torch's own inputs, each class alone in a Mixed."""

    @pytest.mark.parametrize(
        ("name", "kwargs"),
        inputs(infos={k: v for k, v in ALL.items() if k not in {"LBFGS", "SparseAdam"}}),
    )
    @pytest.mark.no_cover
    def test_every_input(self, name, kwargs):
        """Five steps equal those of the class by itself."""
        cls, number = ALL[name].optim_cls, 4 if name == "Muon" else 9
        ones, others = parameters()[:number], parameters()[:number]
        alone = cls(ones, **copy.deepcopy(kwargs))
        mixed = Mixed(
            [{"params": others, "algorithm": "only"}],
            {"only": partial(cls, **copy.deepcopy(kwargs))},
        )
        train(ones, [alone], range(5))
        train(others, [mixed], range(5))
        assert same(ones, others)
        assert same_state([alone], mixed, ones, others)
        for key in mixed.defaults:
            assert key in alone.defaults

    def test_sparse_gradients(self):
        """SparseAdam for a table, beside AdamW."""
        runs = []
        for whole in (False, True):
            torch.manual_seed(0)
            table, head = nn.Embedding(9, 3, sparse=True), nn.Linear(3, 1)
            groups = [
                {"params": list(table.parameters()), "lr": 0.1},
                {"params": list(head.parameters()), "lr": 0.01},
            ]
            classes = {"sparse": torch.optim.SparseAdam, "adamw": ADAMW}
            if whole:
                named = [{**g, "algorithm": n} for g, n in zip(groups, classes, strict=True)]
                optimizers = [Mixed(named, classes)]
            else:
                optimizers = [cls([g]) for cls, g in zip(classes.values(), groups, strict=True)]
            for step in range(4):
                for optimizer in optimizers:
                    optimizer.zero_grad()
                head(table(torch.tensor([1, step]))).square().sum().backward()
                for optimizer in optimizers:
                    optimizer.step()
            runs.append([*table.parameters(), *head.parameters()])
        assert same(*runs)

    @pytest.mark.parametrize("name", sorted(ALL.keys() - {"LBFGS"}))
    def test_wrong_inputs_are_refused_in_the_words_of_the_class(self, name):
        """Every wrong input of torch's database."""
        errors = ALL[name].optim_error_inputs_func(device="cpu", dtype=torch.float32)
        for case in errors:
            wrong = case.optimizer_error_input
            # A group may hold one tensor, which torch refuses in the place of groups.
            if case.error_on is not OptimizerErrorEnum.CONSTRUCTION_ERROR or torch.is_tensor(
                wrong.params
            ):
                continue
            groups = wrong.params
            if not groups or not isinstance(groups[0], dict):
                groups = [{"params": groups}]
            groups = [{**group, "algorithm": "only"} for group in groups]
            cls = partial(ALL[name].optim_cls, **wrong.kwargs)
            with pytest.raises((nnlr.ConfigError, case.error_type), match=case.error_regex):
                Mixed(groups, {"only": cls})


def test_steps_that_are_differentiated():
    """Through a class of that setting a gradient flows to what the parameters were made of."""
    start = torch.ones(2, requires_grad=True)
    leaf = start.clone()
    leaf.grad = torch.ones(2)
    sgd = partial(torch.optim.SGD, lr=0.5, differentiable=True)
    Mixed([{"params": leaf, "algorithm": "only"}], {"only": sgd}).step()
    leaf.sum().backward()
    assert torch.equal(start.grad, torch.ones(2))


def closure_of(params, calls):
    def closure():
        calls.append(torch.is_grad_enabled())
        for param in params:
            param.grad = None
        loss = sum((param - 1).square().sum() for param in params)
        loss.backward()
        return loss.detach()

    return closure


class TestStep:
    def test_a_closure_is_evaluated_once(self):
        """Before all: the gradients of all are those of the weights before the step."""
        params, twins, calls = parameters(), parameters(), []
        mixed = together(PAIR, params)
        losses = [float(mixed.step(closure_of(params, calls))) for _ in range(3)]
        assert [True] * 3 == calls
        assert losses[0] > losses[2]
        apart = separate(PAIR, twins)
        for _ in range(3):
            closure_of(twins, [])()
            for optimizer in apart:
                optimizer.step()
        assert same(params, twins)

    def test_hooks_run_once(self):
        """Those of the optimizer and those of all optimizers; a profiler sees its name."""
        params = parameters()
        mixed, calls = together(PAIR, params), []
        handles = [
            mixed.register_step_pre_hook(lambda *_: calls.append("pre")),
            mixed.register_step_post_hook(lambda *_: calls.append("post")),
            register_optimizer_step_pre_hook(lambda o, *_: calls.append(type(o).__name__)),
            register_optimizer_step_post_hook(lambda o, *_: calls.append(type(o).__name__)),
        ]
        give_gradients(0, params)
        with torch.profiler.profile() as profile:
            mixed.step()
        for handle in handles:
            handle.remove()
        assert ["Mixed", "Mixed", "post", "pre"] == sorted(calls)
        names = {each.key for each in profile.key_averages() if "Optimizer.step" in each.key}
        assert {"Optimizer.step#Mixed.step"} == names

    def test_a_hook_may_change_the_arguments(self):
        """It puts in a closure of its own."""
        params, calls = parameters(), []
        mixed = together(PAIR, params)
        mixed.register_step_pre_hook(lambda o, args, kw: ((o, closure_of(params, calls)), {}))
        assert mixed.step() is not None
        assert [True] == calls

    def test_a_class_that_takes_over_the_step_of_another(self):
        """Its own step is called, though it looks like the one that torch has wrapped."""
        ADAMW([nn.Parameter(torch.ones(1))])  # torch wraps its step now

        class Counting(torch.optim.AdamW):
            steps = 0

            @wraps(torch.optim.AdamW.step)
            def step(self, closure=None):
                self.steps += 1
                return super().step(closure)

        params, twins = parameters(), parameters()
        mixed = together((MUON, Counting), params)
        train(params, [mixed], range(3))
        train(twins, separate((MUON, ADAMW), twins), range(3))
        assert same(params, twins)
        assert 3 == mixed.algorithms["second"].steps

    def test_groups_and_state_that_are_replaced(self):
        """Somebody sets new lists: the next step goes by them."""
        params, twins = parameters(), parameters()
        apart, mixed = separate(PAIR, twins), together(PAIR, params)
        train(params, [mixed], range(2))
        train(twins, apart, range(2))
        mixed.param_groups = [dict(group) for group in reversed(mixed.param_groups)]
        mixed.state = copy.copy(mixed.state)
        for group in (*mixed.param_groups, *(g for o in apart for g in o.param_groups)):
            group["lr"] = 0.001
        train(params, [mixed], range(2, 4))
        train(twins, apart, range(2, 4))
        assert same(params, twins)

    def test_an_algorithm_whose_groups_are_taken_away(self):
        """It waits; classes that read their first group are not called."""

        class First(torch.optim.SGD):
            def step(self, closure=None):
                assert self.param_groups[0]["lr"]
                return super().step(closure)

        params = parameters()
        mixed = together((MUON, First), params)
        mixed.param_groups = [g for g in mixed.param_groups if g["algorithm"] == "first"]
        train(params, [mixed], range(2))
        assert same(params[4:], parameters()[4:])

    def test_zero_grad(self):
        """Of all parameters, to None or to zeros."""
        params = parameters()[:-1]
        mixed = together(PAIR, params)
        give_gradients(5, params)
        mixed.zero_grad(set_to_none=False)
        assert all(p.grad is None or not p.grad.any() for p in params)
        mixed.zero_grad()
        assert all(p.grad is None for p in params)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # its own, on import
    @pytest.mark.full
    @pytest.mark.parametrize("name", ["muon-adamw", "sgd-adamw", "our_sgd-our_adamw"])
    def test_compiled(self, name):
        """A compiled step equals compiled ones one after the other; eager steps between."""
        torch._dynamo.reset()
        runs = []
        for build in (separate, together):
            params = parameters()
            optimizers = build(SETS[name], params)
            optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            steps = [torch.compile(each.step, backend="eager") for each in optimizers]
            for step in range(5):
                give_gradients(step + 3, params)
                for compiled, optimizer in zip(steps, optimizers, strict=True):
                    optimizer.step() if step == 3 else compiled()
            runs.append(params)
        for one, other in zip(*runs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=3e-7)


SCALED = {
    "all": (partial(ADAMW, fused=True), OUR_ADAMW),
    "none": (MUON, ADAMW),
    "some": (MUON, partial(ADAMW, fused=True)),
}


class TestScaler:
    @pytest.mark.parametrize("classes", SCALED.values(), ids=SCALED)
    def test_an_overflow_anywhere_steps_nothing(self, classes):
        """One infinite gradient of the one class holds the other too; then all goes on."""
        for bad in (0, 5):
            params, scaler = parameters(), torch.amp.GradScaler("cpu", init_scale=4.0)
            mixed = together(classes, params)
            give_gradients(5, params)
            scaler.scale(torch.ones(()))
            params[bad].grad.view(-1)[0] = float("inf")
            scaler.step(mixed)
            scaler.update()
            assert same(params, parameters())
            give_gradients(6, params)
            scaler.step(mixed)
            assert not any(same([p], [q]) for p, q in zip(params[:-1], parameters(), strict=False))

    @pytest.mark.parametrize("clip", [False, True])
    @pytest.mark.parametrize("classes", SCALED.values(), ids=SCALED)
    def test_it_equals_a_scaler_with_several(self, classes, clip):
        """Unscaled by the classes or by the scaler; clipped over all."""
        runs = []
        for build in (separate, together):
            params, scaler = parameters(), torch.amp.GradScaler("cpu", init_scale=1024.0)
            optimizers = build(classes, params)
            optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            for step in range(4):
                give_gradients(step, params)
                scaler.scale(torch.ones(()))
                for param in params:
                    if param.grad is not None:
                        param.grad *= scaler.get_scale()
                if clip:
                    for optimizer in optimizers:
                        scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(params, 1.0)
                for optimizer in optimizers:
                    scaler.step(optimizer)
                scaler.update()
            # Without a scaler it goes on as if there had never been one.
            train(params, optimizers, range(4, 6))
            runs.append(params)
        assert same(*runs)
