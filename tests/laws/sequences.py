"""Operations on a training run, played on nnlr and on the plain reference side by side."""

import contextlib
import copy
import functools
import io
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from tests.laws import reference_curves as curves
from tests.laws import reference_run as plain
from tests.laws.reference_run import Layout, Recipe, ReferenceRun

# --- the network --------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(2),
            nn.Linear(2, 3),
            nn.Linear(3, 2),
        )


class Network(nn.Module):
    """A small language model; it is never run, see Run.loss."""

    def __init__(self, layout):
        super().__init__()
        self.tok = nn.Embedding(4, 2)
        self.blocks = nn.ModuleList(Block() for _ in range(layout.blocks))
        self.norm, self.head = nn.LayerNorm(2), nn.Linear(2, layout.classes)
        if layout.tied:
            self.head.weight = self.tok.weight
        if layout.adapter:
            self.adapter = nn.Linear(2, 2, bias=False)
        self.double()


WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
    "both": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
}

# --- nnlr's words for what the reference calls a recipe, a schedule and an optimizer ---------


def scheme(recipe, option):
    """The product of a recipe's parts."""

    def rule(pattern, lr_mult, wd_mult):
        return nnlr.rule(pattern, lr_mult=lr_mult, wd_mult=wd_mult)

    def own(pattern, value):
        value = (value, plain.BETA2) if option == "betas" else value
        return nnlr.rule(pattern, options={option: value})

    makers = {
        "rule": rule,
        "own": own,
        "list": lambda rules: nnlr.rules([rule(*each) for each in rules]),
        "freeze": nnlr.freeze,
        "layers": nnlr.layer_decay,
        "no decay": nnlr.no_weight_decay,
    }
    return [makers[kind](*rest) for kind, *rest in recipe.parts]


def after(steps):
    """A function that pickle can take."""
    return 1 / (1 + steps)


def warm_up(opt, eta_min=curves.FLOOR):
    parts = [
        lrs.LinearLR(opt, 0.25, total_iters=4),
        lrs.CosineAnnealingLR(opt, 8, eta_min),
    ]
    return lrs.SequentialLR(opt, parts, milestones=[4])


SCHEDULERS = {
    "steps": functools.partial(lrs.StepLR, step_size=3, gamma=0.3),
    "exponential": functools.partial(lrs.ExponentialLR, gamma=0.9),
    "function": functools.partial(lrs.LambdaLR, lr_lambda=after),
    "cosine": functools.partial(lrs.CosineAnnealingLR, T_max=12, eta_min=curves.FLOOR),
    "restarts": functools.partial(lrs.CosineAnnealingWarmRestarts, T_0=5, eta_min=curves.FLOOR),
    "warm up": warm_up,
    "one cycle": functools.partial(lrs.OneCycleLR, max_lr=curves.PEAK, total_steps=curves.CYCLE),
    "plateau": functools.partial(
        lrs.ReduceLROnPlateau, factor=0.5, patience=1, min_lr=curves.FLOOR
    ),
}


def scheduler(kind, floor):
    """The scheduler of a kind, with another floor if it has one."""
    name = FLOORS.get(kind)
    return functools.partial(SCHEDULERS[kind], **{name: floor}) if name else SCHEDULERS[kind]


# What the argument for the floor is called.
FLOORS = {"cosine": "eta_min", "restarts": "eta_min", "warm up": "eta_min", "plateau": "min_lr"}


@dataclass(frozen=True)
class Setup:
    """Where a sequence begins."""

    schedule: tuple = ()  # one kind, or two
    recipe: Recipe = field(default_factory=Recipe)
    layout: Layout = field(default_factory=Layout)
    adaptive: bool = True
    step: str = "for-loop"  # or "foreach", "fused"
    tensor_lr: bool = False

    def optimizer(self, plan, model, keep):
        """On the groups of a plan."""
        cls = torch.optim.AdamW if self.adaptive else torch.optim.SGD
        settings = {} if self.adaptive else {"momentum": plain.MOMENTUM}
        settings |= {"foreach": self.step == "foreach", "fused": self.step == "fused"}
        return plan.optimizer(
            cls,
            model=model,
            locked="keep" if keep else "drop",
            tensor_lr=self.tensor_lr,
            **settings,
        )


# --- the run ---------------------------------------------------------------------------------


class Run:
    """A run with nnlr and its reference, and the checkpoints taken on the way."""

    def __init__(self, setup):
        self.setup, self.clock, self.checkpoints = setup, 0, []
        self.ref = ReferenceRun.begin(setup.adaptive, setup.layout, setup.recipe)
        self.begin(setup.layout, setup.recipe)
        self.fill(self.ref.weights)
        if setup.schedule:
            self.ref.schedule(*setup.schedule)
            self.schedule(*setup.schedule)

    def begin(self, layout, recipe):
        """A new model and a new optimizer, as the code of a user builds them."""
        self.model = self.wrapped = Network(layout)
        plan = self.plan(recipe)
        self.optimizer = self.setup.optimizer(plan, self.model, recipe.keep)
        self.scheduler, self.stepped = None, False

    def plan(self, recipe):
        """What nnlr makes of a recipe."""
        schemes = scheme(recipe, "betas" if self.setup.adaptive else "momentum")
        rates = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
        return nnlr.resolve(self.wrapped, *schemes, **rates, decay=recipe.decay)

    def parameters(self):
        """Tensors by name, tied ones once."""
        return dict(self.model.named_parameters())

    def fill(self, weights):
        """Overwrite parameters with the reference's numbers."""
        for name, tensor in self.parameters().items():
            if name in weights:
                tensor.data.copy_(torch.from_numpy(weights[name]))

    def schedule(self, kind, decay_kind=None, floor=curves.FLOOR):
        """Build the scheduler."""
        self.stepped = False
        decay = {"weight_decay": scheduler(decay_kind, floor)} if decay_kind else {}
        self.scheduler = nnlr.schedule(self.optimizer, scheduler(kind, floor), **decay)

    def backward(self, unused=()):
        """Gradients of a loss in which every parameter has a part of its own.

        So a NaN stays where it is, and the reference needs no network.
        """
        tensors = self.parameters()
        for tensor in tensors.values():
            tensor.grad = None
        used = [
            (tensor, plain.numbers(name, tensor.shape, self.clock))
            for name, tensor in tensors.items()
            if tensor.requires_grad and name not in unused
        ]
        ends = [torch.from_numpy(each) + 0.1 * tensor.detach() for tensor, each in used]
        torch.autograd.backward([tensor for tensor, _ in used], ends)

    def tick(self, metric=1.0):
        """Step the scheduler, if there is one with a step left."""
        if not self.scheduler or self.over():
            return False
        takes = isinstance(self.scheduler, lrs.ReduceLROnPlateau)
        self.scheduler.step(metric) if takes else self.scheduler.step()
        self.ref.tick(metric)
        return True

    def over(self):
        """Whether a one-cycle schedule has come to its end."""
        kinds = {curve.kind for curve in self.ref.curves.values()}
        return "one cycle" in kinds and self.ref.curves["lr"].steps >= curves.CYCLE - 1

    def save(self):
        """Bytes, as a file would hold them."""
        file = io.BytesIO()
        held = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.scheduler and self.scheduler.state_dict(),
        }
        torch.save(held, file)
        return file.getvalue()

    def everything(self):
        """All that a refused operation may not change, as it can be compared."""
        held = copy.deepcopy(
            [
                self.model.state_dict(),
                self.optimizer.state_dict(),
                self.scheduler and self.scheduler.state_dict(),
                self.optimizer.defaults,
            ]
        )
        flags = [tensor.requires_grad for tensor in self.model.parameters()]
        live = [id(p) for group in self.optimizer.param_groups for p in group["params"]]
        return [*held, flags, live]

    # --- what holds after every operation

    def check(self):
        """Compare everything with the reference."""
        ref, tensors = self.ref, self.parameters()
        assert [*ref.weights] == [*tensors], "parameters"
        flags = {name: tensor.requires_grad for name, tensor in tensors.items()}
        assert ref.gradient == flags, "gradients on and off"
        defaults = self.optimizer.defaults
        assert ref.bases == {key: defaults[key] for key in ref.bases}, "defaults"
        if self.scheduler:
            rates = [group["lr"] for group in self.optimizer.param_groups]
            assert rates == self.scheduler.get_last_lr(), "get_last_lr"
        weights = {
            f"weight of {name}": (expected, tensors[name]) for name, expected in ref.weights.items()
        }
        # Rates in tensors are float32: a weight at rest near 0 keeps the round-off of the
        # steps that brought it there, up to 0.3 each.
        loose, near = (1e-5, 1e-7) if self.setup.tensor_lr else (1e-9, 1e-12)
        compare(weights | self._rates(tensors) | self._state(tensors), loose, near)

    def _rates(self, tensors):
        """Each trained parameter is in one group, at its rates, under its name."""
        ref, groups = self.ref, self.optimizer.param_groups
        ids = [id(tensor) for group in groups for tensor in group["params"]]
        names = [name for group in groups for name in group["param_names"]]
        assert sorted(ref.members) == sorted(names), "members of groups"
        assert [id(tensors[name]) for name in names] == ids, "tensors of groups"
        assert all(group["params"] for group in groups), "an empty group"
        pairs = {}
        for group in groups:
            cycled = group["betas"][0] if ref.adaptive else group["momentum"]
            signs = {ref.members[name].uphill for name in group["param_names"]}
            assert signs == {group["maximize"]}, "signs of groups"
            for name in group["param_names"]:
                pairs |= {
                    f"lr of {name}": (ref.rate(name), group["lr"]),
                    f"decay of {name}": (ref.decay(name), group["weight_decay"]),
                    f"momentum of {name}": (ref.momentum(name), cycled),
                }
        return pairs

    def _state(self, tensors):
        """State is there for what has been trained, of what is still trained; no more."""
        ref, state = self.ref, self.optimizer.state
        keys = {id(key) for key in state}
        held = {name for name, tensor in tensors.items() if id(tensor) in keys}
        assert set(ref.state) == held, "parameters that have state"
        assert len(held) == len(state), "state of tensors that are gone"
        ours = {"m": "momentum_buffer"}
        if ref.adaptive:
            ours = {"step": "step", "m": "exp_avg", "v": "exp_avg_sq"}
        return {
            f"{key} of {name}": (value, state[tensors[name]][ours[key]])
            for name in held
            for key, value in ref.state[name].items()
        }


def compare(pairs, loose, near):
    """Expected and actual numbers are equal up to rounding, and NaN where NaN is expected."""
    pairs = {
        what: [np.ravel(each.detach() if isinstance(each, torch.Tensor) else each) for each in pair]
        for what, pair in pairs.items()
    }
    whole = map(np.concatenate, zip(*pairs.values(), strict=True))
    if not np.allclose(*whole, loose, near, equal_nan=True):
        wrong = {
            what: pair
            for what, pair in pairs.items()
            if not np.allclose(*pair, loose, near, equal_nan=True)
        }
        what, (expected, actual) = next(iter(wrong.items()))
        raise AssertionError(f"{what}: expected {expected}, got {actual}; {len(wrong)} are wrong")


def equal(one, other):
    """Whether two nests of plain values and tensors are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(
            one.nan_to_num(1e300), other.nan_to_num(1e300)
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@contextlib.contextmanager
def unchanged(run, error, match):
    """Something is refused, and everything is as before, bit for bit."""
    before = run.everything()
    with pytest.raises(error, match=match):
        yield
    assert equal(before, run.everything()), "a refusal left something behind"
