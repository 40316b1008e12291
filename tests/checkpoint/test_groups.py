"""Optimizers that keep count in their groups, state of odd forms, and dictionaries on their way."""

import copy
import gc
import inspect
import io
import warnings
import weakref

import pytest
import torch
from torch import nn

import nnlr
import nnlr.optim
from nnlr.checkpoint import fit_state, last_report, on_load
from tests.helpers import same_weights

LR = 0.1


def network():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


class ScheduleFree(torch.optim.Optimizer):
    """What schedulefree.SGDScheduleFree does; it counts in its groups."""

    def __init__(self, params, lr=1.0, momentum=0.9, weight_decay=0.0):
        counts = {"k": 0, "weight_sum": 0.0, "lr_max": -1.0}
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, **counts},
        )

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            lr = group["lr"]
            group["lr_max"] = max(lr, group["lr_max"])
            weight = group["lr_max"] ** 2
            group["weight_sum"] += weight
            group["k"] += 1
            share = weight / group["weight_sum"]
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, share)
                p.add_(p.grad, alpha=lr * (group["momentum"] * (1 - share) - 1))
                z.sub_(p.grad, alpha=lr)


class Unknown(torch.optim.Optimizer):
    """An optimizer that cannot be tried out: shapes alone tell what fits."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})


class Open(ScheduleFree):
    """The same behind a constructor that names nothing."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


def train(model, optimizer, numbers):
    for number in numbers:
        source = torch.Generator().manual_seed(number)
        optimizer.zero_grad()
        model(torch.randn(8, 2, generator=source)).square().mean().backward()
        optimizer.step()


def layered(model, cls, **settings):
    plan = nnlr.resolve(model, nnlr.rule("0.*", lr_mult=0.1), lr=LR, weight_decay=0.0)
    return plan.optimizer(cls, **settings)


class TestCounters:
    @pytest.mark.parametrize("live", [True, False])
    @pytest.mark.parametrize("cls", [ScheduleFree, Open])
    def test_counts_in_groups_are_the_checkpoints(self, cls, live):
        """In a new optimizer, and in one that goes back; nothing is said of them."""
        whole = network()
        halted = copy.deepcopy(whole)
        train(whole, layered(whole, cls), range(6))
        first = layered(halted, cls)
        train(halted, first, range(3))
        saved = copy.deepcopy((first.state_dict(), halted.state_dict()))
        if live:
            train(halted, first, range(10, 12))
            halted.load_state_dict(saved[1])
        second = first if live else layered(halted, cls)
        if live:  # as Prodigy notes in its first step, and not before
            saved[0]["param_groups"][0]["d_hat"] = 1.0
            second.param_groups[0]["d_hat"] = 2.0
        second.load_state_dict(saved[0])
        assert () == last_report(second).differences
        train(halted, second, range(3, 6))
        assert same_weights(whole, halted)

    def test_counts_that_cannot_be_one_are_told(self):
        """Of groups that are merged; then the new optimizer counts anew."""
        model = network()
        first = layered(model, ScheduleFree)
        train(model, first, range(2))
        second = nnlr.resolve(model, lr=LR, weight_decay=0.0).optimizer(ScheduleFree)
        with pytest.warns(nnlr.NnlrWarning, match=r"lr_max of 4 parameters: 0\.1 -> -1"):
            second.load_state_dict(first.state_dict())
        (group,) = second.param_groups
        assert (2, 0.0) == (group["k"], group["weight_sum"])

    @pytest.mark.parametrize("cls", [torch.optim.SGD, ScheduleFree, Open])
    def test_what_a_constructor_takes_can_be_an_option(self, cls):
        """A plan's momentum for some groups stays the code's, and is told."""
        model = network()
        first = layered(model, cls, momentum=0.9)
        train(model, first, [0])
        plan = nnlr.resolve(
            model,
            nnlr.rule("0.*", lr_mult=0.1, options={"momentum": 0.5}),
            lr=LR,
            weight_decay=0.0,
        )
        second = plan.optimizer(cls, momentum=0.9)
        with pytest.warns(nnlr.NnlrWarning, match=r"momentum is 0\.9 .* 0\.5 counts"):
            second.load_state_dict(first.state_dict())
        assert [0.9, 0.5] == [group["momentum"] for group in second.param_groups]

    @pytest.mark.parametrize("module", [torch.optim, nnlr.optim])
    def test_torchs_optimizers_count_nothing_in_groups(self, module):
        """Each default of each is a setting: none is taken over without a word."""
        classes = [
            cls
            for cls in vars(module).values()
            if inspect.isclass(cls)
            and issubclass(cls, torch.optim.Optimizer)
            and cls not in {torch.optim.Optimizer, nnlr.optim.Mixed}
        ]
        assert len(classes) >= 3
        for cls in classes:
            old, new = (cls([("w", nn.Parameter(torch.ones(2, 2)))]) for _ in range(2))
            saved = old.state_dict()
            (group,) = saved["param_groups"]
            settings = {
                key
                for key, value in old.defaults.items()
                if key not in {"lr", "weight_decay"} and value is not None
            }
            group |= dict.fromkeys(settings, "other")
            with warnings.catch_warnings(action="ignore"):
                _, report = fit_state(saved, new)
            assert settings == {each.setting for each in report.differences}, cls


@pytest.mark.parametrize("key", ["foreach", "fused", "triton"])
def test_kernels_that_were_chosen_are_not_told(key):
    """Where the code leaves the choice open, it is open again, without a word."""
    model = network()
    groups = [{"params": list(model.named_parameters()), key: None}]
    optimizer = torch.optim.Adam(groups, lr=LR)
    saved = optimizer.state_dict()
    saved["param_groups"][0][key] = False
    state, report = fit_state(saved, optimizer)
    assert (None, ()) == (state["param_groups"][0][key], report.differences)


@pytest.mark.parametrize("key", ["lr_scale", "lr_multiplier", "wd_multiplier"])
@pytest.mark.parametrize(("policy", "counts"), [("code", 0.25), ("checkpoint", 0.5)])
def test_multipliers_of_others_go_by_the_policy(key, policy, counts):
    """Those of timm and DINOv2, which their own loops multiply in."""
    model = network()

    def grouped(**own):
        pairs = list(model.named_parameters())
        groups = [{"params": pairs[:2], **own}, {"params": pairs[2:], key: 1.0}]
        return torch.optim.Adam(groups, lr=LR)

    saved = grouped(**{key: 0.5}).state_dict()
    with pytest.warns(nnlr.NnlrWarning, match=rf"{key} is 0\.5 .* {counts} counts"):
        state, _ = fit_state(saved, grouped(**{key: 0.25}), policy=policy)
    assert [counts, 1.0] == [group[key] for group in state["param_groups"]]
    state, _ = fit_state(saved, grouped(), policy=policy)
    assert (policy == "checkpoint") == (key in state["param_groups"][0])


@pytest.mark.parametrize(
    ("shape", "held", "fits"),
    [
        ((1,), {"exp_avg": (1,), "history": (3,)}, True),
        ((1,), {"exp_avg": (2,), "history": (3,)}, False),
        ((1, 1), {"exp_avg": (1, 1), "absmax": (7,)}, True),
        ((), {"exp_avg": (), "step": ()}, True),
        ((), {"exp_avg": (4, 3), "step": ()}, False),  # it was a matrix
    ],
)
def test_parameters_of_one_entry_keep_their_state(shape, held, fits):
    """Whatever else is kept of them."""
    optimizer = Unknown([("w", nn.Parameter(torch.ones(shape)))], lr=LR)
    saved = optimizer.state_dict()
    saved["state"] = {0: {key: torch.ones(size) for key, size in held.items()}}
    with warnings.catch_warnings(action="ignore"):
        _, report = fit_state(saved, optimizer)
    assert fits == (report.moved == ("w",))


def test_state_of_any_form_is_moved():
    """Lists, nested dictionaries, None: as the optimizer keeps it."""
    model = network()
    held = {
        "none": None,
        "list": [torch.ones(2, 2), None, {"deep": torch.zeros(2)}],
        "pair": (1, torch.ones(2)),
        "empty": torch.empty(0),
        3: 4.0,
    }
    old = Unknown(list(model.named_parameters()), lr=LR)
    old.state[model[0].weight] = held
    old.state["all"] = {"count": [1, 2]}
    new = Unknown(list(model.named_parameters())[::-1], lr=LR)
    on_load(new, model=model)
    new.load_state_dict(old.state_dict())
    moved = new.state[model[0].weight]
    assert held.keys() == moved.keys()
    assert (None, 4.0, 1) == (moved["none"], moved[3], moved["pair"][0])
    assert torch.equal(torch.ones(2, 2), moved["list"][0])
    assert {"count": [1, 2]} == new.state["all"]


def numbered(model, optimizer):
    """State by which each parameter is known."""
    for number, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, number)
    optimizer.step()


class TestOnTheWay:
    """What a saved dictionary carries beside torch's own."""

    def test_what_fit_state_gave_is_matched_again_by_other_groups(self):
        """Kept in a file, and loaded into groups of the same sizes, but others."""
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        plans = [
            nnlr.resolve(model, nnlr.rule(f"{at}.*", lr_mult=0.1), lr=LR, weight_decay=0)
            for at in range(2)
        ]
        first, second, third = (
            plan.optimizer(torch.optim.SGD, momentum=0.9) for plan in (plans[0], plans[0], plans[1])
        )
        numbered(model, first)
        state, _ = fit_state(first.state_dict(), second)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        with pytest.warns(nnlr.NnlrWarning, match="lr_mult of 4 parameters: 0.1 -> 1"):
            third.load_state_dict(torch.load(file, weights_only=True))
        held = [third.state[p]["momentum_buffer"] for p in model.parameters()]
        assert [0.0, 1.0, 2.0, 3.0] == [each.mean().item() for each in held]
        assert [LR, pytest.approx(LR * 0.1)] == [g["lr"] for g in third.param_groups]

    def test_groups_carry_the_same_keys_whatever_the_rates(self):
        """Distributed checkpoints ask for every key that the present groups have."""
        model = network()
        optimizers = [
            nnlr.resolve(model, lr=LR, weight_decay=decay).optimizer(torch.optim.AdamW)
            for decay in (0.0, 0.1)
        ]
        optimizers.append(torch.optim.Rprop(model.named_parameters()))
        on_load(optimizers[2], model=model)
        notes = [each.state_dict()["param_groups"][0]["nnlr"] for each in optimizers]
        assert 1 == len({tuple(note) for note in notes})
        assert ["AdamW Adam", "AdamW Adam", "Rprop"] == [note["classes"] for note in notes]

    def test_torch_alone_can_load_it(self):
        """The note stays in the group, where nothing reads it."""
        model = network()
        first = layered(model, torch.optim.AdamW)
        train(model, first, [0])
        plain = layered(model, torch.optim.AdamW, resume=None)
        plain.load_state_dict(first.state_dict())
        train(model, plain, [1])
        again = layered(model, torch.optim.AdamW)
        again.load_state_dict(plain.state_dict())
        assert 4 == len(last_report(again).moved)
        assert "nnlr" not in again.param_groups[0]


def test_an_optimizer_and_its_schedule_are_gone_at_once():
    """Without the collector, though no step was taken: a sweep would pile them up."""
    model = network()
    gc.collect()
    gc.disable()
    try:
        optimizer = layered(model, torch.optim.AdamW)
        scheduler = nnlr.schedule(optimizer, torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
        gone = [weakref.ref(optimizer), weakref.ref(scheduler)]
        del scheduler
        assert gone[1]() is None
        train(model, optimizer, [0])  # the hook of the schedule does no harm
        del optimizer
        assert gone[0]() is None
    finally:
        gc.enable()


def test_a_checkpoint_of_nothing_is_refused():
    """Everything would start afresh, and torch refuses it too."""
    optimizer = layered(network(), torch.optim.AdamW)
    with pytest.raises(nnlr.ConfigError, match="no parameters in its groups"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})
    assert 2 == len(optimizer.param_groups)
