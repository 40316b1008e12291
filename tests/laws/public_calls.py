"""Every call that users may make, and arguments with which each of them works.

The calls are found in the package: a new public function, or a method of an object that one
returns, is among them at once. What a parameter takes is read from its annotation; ``SAMPLES``
says by its name what to pass where the annotation does not.
"""

import inspect
import json
import random
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import torch
from torch import nn
from torch.distributed.checkpoint import save
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.optim.lr_scheduler import StepLR

import nnlr
from tests.helpers import public_names

MODULES = (
    *(nnlr, nnlr.checkpoint, nnlr.depth, nnlr.optim, nnlr.report, nnlr.schemes),
    *(nnlr.testing, nnlr.torch7, nnlr.config),
)

# Calls whose arguments are judged elsewhere, each with where.
ELSEWHERE = {
    "agree": "needs processes: tests/test_agree.py",
    "attach": "needs an optimizer whose plan moves: tests/attach",
    "RatioScheduler.step": "its arguments are those of the scheduler: tests/schedule",
}


class World:
    """A model, a plan, an optimizer and what else the calls need, all of them fresh.

    Args:
        modules: Where to look for public functions.
    """

    def __init__(self, modules: Sequence[ModuleType] = MODULES) -> None:
        self.modules = modules
        self._things: dict[str, object] = {}
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 1))
        self.scheme = nnlr.rule("0.*", lr_mult=0.1, options={"momentum": 0.5})
        self.selector = nnlr.glob("0.*")
        self.plan = nnlr.resolve(self.model, self.scheme, lr=0.1, weight_decay=0.01)
        self.optimizer = self.plan.optimizer(torch.optim.SGD, momentum=0.9)
        self.before = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model(torch.ones(1, 2)).sum().backward()
        self.optimizer.step()
        self.state = self.optimizer.state_dict()
        self.flat = torch.ones(3)

    @property
    def calls(self) -> "dict[str, Call]":
        """Every call, by its name."""
        return _calls(self.modules)

    def thing(self, label: str) -> object:
        """One of the objects whose methods users call; the same at every call."""
        if label not in self._things:
            self._things[label] = OBJECTS[label](self)
        return self._things[label]

    def fingerprint(self) -> str:
        """All that a refused call must leave as it was."""
        groups = [
            {key: _text(value) for key, value in group.items()}
            for group in self.optimizer.param_groups
        ]
        state = {
            position: {key: _text(v) for key, v in _items(self.optimizer.state.get(tensor))}
            for position, tensor in enumerate(self.model.parameters())
        }
        hooks = {
            name: len(value)
            for name, value in vars(self.optimizer).items()
            if name.endswith("_hooks")
        }
        modules = [
            {key: value for key, value in vars(module).items() if key.startswith("_nnlr")}
            for module in self.model.modules()
        ]
        flags = [(p.requires_grad, _text(p), _text(p.grad)) for p in self.model.parameters()]
        randomness = (
            torch.initial_seed(),
            torch.get_rng_state().sum().item(),
            random.getstate()[1][:8],
        )
        plan = id(self.plan.rows), [dict(row.options) for row in self.plan.rows]
        methods = sorted(name for name in vars(nn.Module) if not name.startswith("_"))
        everything = (groups, state, hooks, modules, flags, plan, methods)
        files = sorted(map(str, Path.cwd().iterdir()))
        return repr((everything, _text(self.flat), randomness, files))


def _items(state: object) -> Iterable[tuple[object, object]]:
    """What an optimizer keeps of a tensor; a load may have put anything there."""
    return state.items() if isinstance(state, dict) else [("all of it", state)]


def _text(value: object) -> str:
    """A value with all of its elements."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {value.tolist() if not value.is_meta else value.shape}"
    if isinstance(value, list):
        return repr([_text(item) for item in value])
    return repr(value)


def _prepare(width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def _loss(model: nn.Module) -> torch.Tensor:
    return model(torch.ones(1, 2)).square().sum()


def by_name(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer by the names of parameters, as distributed checkpoints hold it."""
    named = {
        name: tensor
        for group in optimizer.param_groups
        for name, tensor in zip(group["param_names"], group["params"], strict=True)
    }
    groups = [
        {**group, "params": group["param_names"], "param_names": group["param_names"]}
        for group in optimizer.param_groups
    ]
    state = {name: dict(optimizer.state[tensor]) for name, tensor in named.items()}
    return {"state": state, "param_groups": groups}


@cache
def _studies() -> dict[str, object]:
    """Results of the studies, which cannot be changed."""
    report = nnlr.report
    return {
        "LrSweep": report.lr_sweep(lambda width, lr: 1.0, [1, 2], [0.1, 0.2, 0.4], seeds=[0]),
        "CoordinateCheck": report.coordinate_check(_prepare, [2, 4], _loss, seeds=[0], steps=1),
    }


@cache
def _stored() -> str:
    """A distributed checkpoint of one process."""
    world, folder = World(), tempfile.mkdtemp()
    state = {"optimizer": get_optimizer_state_dict(world.model, world.optimizer)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one process without a group
        save(state, checkpoint_id=folder, no_dist=True)
    return folder


@cache
def _accelerator() -> object:
    """Accelerate's, on the CPU."""
    from accelerate import Accelerator

    return Accelerator(cpu=True)


@cache
def _trainer() -> object:
    """One of transformers'."""
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(report_to=[], use_cpu=True, output_dir=tempfile.mkdtemp())
    return Trainer(model=nn.Linear(1, 1), args=args)


# Signs between objects.
_SIGNS = {
    "Plan": ("__getitem__", "__contains__", "__eq__"),
    "Scheme": ("__mul__",),
    "Selector": ("__and__", "__or__", "__rand__", "__ror__"),
}

# What users call methods of, made for a world.
OBJECTS: dict[str, Callable[[World], object]] = {
    "Plan": lambda w: w.plan,
    "Scheme": lambda w: w.scheme,
    "Product": lambda w: w.scheme * nnlr.no_weight_decay(),
    "Selector": lambda w: w.selector,
    "Findings": lambda w: nnlr.check(w.plan, w.optimizer),
    "Recipe": lambda w: nnlr.config.Recipe(lr=0.1, weight_decay=0, algorithms=torch.optim.SGD),
    "ModelInfo": lambda w: nnlr.testing.describe(w.model),
    "PlanDiff": lambda w: w.plan.diff(w.plan.with_rates(lr=1.0)),
    "RatioScheduler": lambda w: nnlr.schedule(w.optimizer, StepLR, step_size=2),
    "optimizer": lambda w: w.optimizer,
    "Movement": lambda w: nnlr.report.movement(w.before, w.model, w.plan),
    "LrSweep": lambda w: _studies()["LrSweep"],
    "CoordinateCheck": lambda w: _studies()["CoordinateCheck"],
}

# By the name of a parameter, or of the call and the parameter: what works, made for a world.
SAMPLES: dict[str, Callable[[World], object]] = {
    "function": lambda w: lambda t: 0.5,
    "phases": lambda w: [{"train": "3.*"}, {"epoch": 1, "train": "*"}],
    "ft_schedule": lambda w: {0: {"params": ["3.*"]}, 1: {"params": ["0.*", "1.*"]}},
    "relative.kind": lambda w: "relative",
    "assign.probe": lambda w: "rgn",
    "assign.mapping": lambda w: "max",
    "assign.every": lambda w: 2,
    "model": lambda w: w.model,
    "module": lambda w: w.model,
    "plan": lambda w: w.plan,
    "plan_or_model": lambda w: w.plan,
    "optimizer": lambda w: w.optimizer,
    "scheduler": lambda w: w.thing("RatioScheduler"),
    "schemes": lambda w: w.scheme,
    "selector": lambda w: "0.*",
    "lr": lambda w: 0.1,
    "weight_decay": lambda w: 0.01,
    "name": lambda w: "weight",
    "value": lambda w: 0.5,
    "facts": lambda w: json.loads(w.plan.to_json()),
    "text": lambda w: w.plan.to_json(),
    "pattern": lambda w: "0.*",
    "types": lambda w: nn.Linear,
    "roles": lambda w: {"0.*": "matrix"},
    "role.roles": lambda w: "bias",
    "test": lambda w: lambda param: param.numel > 2,
    "members": lambda w: [w.scheme],
    "base_lr": lambda w: 0.1,
    "base_weight_decay": lambda w: 0.01,
    "factory": lambda w: torch.optim.lr_scheduler.StepLR,
    "schedule.kwargs": lambda w: {"step_size": 2},
    "parameters": lambda w: list(w.model.parameters()),
    "max_norm": lambda w: 1.0,
    "cls": lambda w: torch.optim.SGD,
    "decay": lambda w: 0.5,
    "resolve.decay": lambda w: "sqrt",
    "param_groups.decay": lambda w: "sqrt",
    "indexer": lambda w: {"0.*": 0, "3.*": 1},
    "preset": lambda w: "hf",
    "rates": lambda w: 2.6,
    "groups": lambda w: ["0.*", "1.*", "3.*"],
    "lr_mults": lambda w: [("0/.*", 0.5)],
    "discriminative.lr_mults": lambda w: [0.1, 0.5, 1.0],
    "wd_mults": lambda w: [("0/.*", 0.5)],
    "base": lambda w: nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Tanh(), nn.Linear(2, 1)),
    "paramwise_cfg": lambda w: {"bias_lr_mult": 2.0},
    "table": lambda w: {"bias": 2.0},
    "torchtitan.param_groups": lambda w: [{"pattern": "0.*", "lr": 0.5}],
    "torchtitan.strict": lambda w: False,
    "mmengine.config": lambda w: {"norm_decay_mult": 0.0},
    "recipe.name": lambda w: nnlr.config.recipe_names()[0],
    "from_mmengine.optim_wrapper": lambda w: {
        "optimizer": {"type": "SGD", "lr": 0.1, "weight_decay": 0.1}
    },
    "caffe_prototxt.prototxt": lambda w: "layer { name: '0' param { lr_mult: 2 } }",
    "fit_named_state.state_dict": lambda w: by_name(w.optimizer),
    "split.state_dict": lambda w: _of_algorithms().state_dict(),
    "state_dict": lambda w: w.state,
    "layer_of": lambda w: lambda param: int(param.name[0]),
    "layers": lambda w: {"0.*": 0, "3.*": 1},
    "with_final_norm.layers": lambda w: [nnlr.depth.Layer(0, 1), nnlr.depth.Layer(1, 1)],
    "where": lambda w: "head",
    "matrices": lambda w: "muon",
    "others": lambda w: "adamw",
    "opfunc": lambda w: lambda x: (x.sum(), torch.ones_like(x)),
    "x": lambda w: w.flat,
    "before": lambda w: w.before,
    "after": lambda w: w.model,
    "train": lambda w: lambda width, lr: 1.0,
    "widths": lambda w: [1, 2],
    "coordinate_check.widths": lambda w: [2, 4],
    "lrs": lambda w: [0.1, 0.2, 0.4],
    "prepare": lambda w: _prepare,
    "loss": lambda w: _loss,
    "seeds": lambda w: [0],
    "steps": lambda w: 1,
    "other": lambda w: w.plan,
    "path": lambda w: "0",
    "Plan.explain.name": lambda w: "0.weight",
    "Plan.__getitem__.name": lambda w: "0.weight",
    "Movement.table.other": lambda w: None,
    "LrSweep.losses.width": lambda w: 1,
    "LrSweep.best_of_seeds.width": lambda w: 1,
    "LrSweep.regret.width": lambda w: 1,
    "index": lambda w: 0,
    "scheme.data": lambda w: {"layer_decay": 0.5},
    "dump.value": lambda w: w.scheme,
    "load.source": lambda w: {"lr": 0.1, "weight_decay": 0, "scheme": "caffe"},
    "severity": lambda w: "note",
    "Scheme.__mul__.other": lambda w: w.scheme,
    **{f"Selector.{sign}.other": lambda w: "3.*" for sign in _SIGNS["Selector"]},
    "accelerator": lambda w: _accelerator(),
    "trainer": lambda w: _trainer(),
    "optimizer.schemes": lambda w: nnlr.rule("0.*", lr_mult=0.1),
    "optimizer.cls": lambda w: torch.optim.SGD,
    "optimizer.lr": lambda w: 0.1,
    "optimizer.weight_decay": lambda w: 0.0,
    "param_group_fn.decay": lambda w: "sqrt",
    "optimizer.decay": lambda w: "sqrt",
    "configure.schedule": lambda w: lambda base: torch.optim.lr_scheduler.StepLR(base, 2),
    "configure.interval": lambda w: "step",
    "checkpoint": lambda w: _stored(),
    "set_base_lr.lr": lambda w: 0.2,
    "RatioScheduler.load_state_dict.state_dict": lambda w: w.thing("RatioScheduler").state_dict(),
    "RatioScheduler.step.args": lambda w: None,
    "inputs": lambda w: torch.ones(1, 2),
    "as_indexer.value": lambda w: "auto",
    # Arguments that are optional each, of which one is needed.
    "annotate.lr_mult": lambda w: 0.5,
    "freeze.selector": lambda w: "0.*",
    "ndim.max": lambda w: 1,
    "complete_p.indexer": lambda w: {"0.*": 0, "1.*": 0, "3.*": 1},
}


def _of_algorithms() -> torch.optim.Optimizer:
    """An optimizer of several algorithms."""
    group = {"params": [nn.Parameter(torch.ones(2))], "algorithm": "sgd"}
    return nnlr.optim.Mixed([group], {"sgd": torch.optim.SGD})


# Methods that draw pictures, and those that resolve calls with a ModelInfo of its own.
_NOT_CALLED = {"plot", "factors", "steps", "findings", "matches", "reach", "accepted", "via"}
_NOT_CALLED |= {"parts", "written_as"}


@dataclass
class Call:
    """A call: its name, what is called, and its parameters."""

    name: str
    function: Callable[..., object]
    parameters: dict[str, inspect.Parameter]
    kinds: dict[str, object] = field(default_factory=dict)
    method: bool = False

    def made(self, world: World, *args: object, **kwargs: object) -> object:
        """Make the call, on an object of a world if it is a method."""
        if not self.method:
            return self.function(*args, **kwargs)
        label, _, name = self.name.partition(".")
        return getattr(world.thing(label), name)(*args, **kwargs)

    def sample(self, world: World, parameter: str) -> object:
        """What works for one parameter."""
        for key in (self._own(parameter), parameter):
            if key in SAMPLES:
                return SAMPLES[key](world)
        if (default := self.parameters[parameter].default) is not inspect.Parameter.empty:
            return default
        raise AssertionError(f"say in SAMPLES what to pass as {parameter!r} of {self.name}")

    def example(self, world: World, parameter: str) -> object:
        """What works for one parameter, or None where nothing is said of it."""
        with suppress(AssertionError):
            return self.sample(world, parameter)
        return None

    def needs(self, parameter: str) -> bool:
        """Whether a parameter is always passed."""
        required = self.parameters[parameter].default is inspect.Parameter.empty
        return required or self._own(parameter) in SAMPLES

    def _own(self, parameter: str) -> str:
        """The key in SAMPLES of this parameter of this call alone."""
        is_function = self.name.startswith("nnlr.")
        return f"{self.name.rpartition('.')[2] if is_function else self.name}.{parameter}"


@cache
def _calls(modules: tuple[ModuleType, ...]) -> dict[str, Call]:
    """Every public function of the modules, and every public method of the objects."""
    functions: dict[str, Callable[..., object]] = {"nnlr.Factor": nnlr.Factor}
    for module in modules:
        for name in public_names(module):
            value = getattr(module, name)
            home = getattr(value, "__module__", "")
            own = module is nnlr or home.startswith(module.__name__)
            new = value not in functions.values()
            if inspect.isfunction(value) and home.startswith("nnlr") and own and new:
                functions[f"{module.__name__}.{name}"] = value
    calls = {name: _call(name, function) for name, function in functions.items()}
    world = World()
    for label in OBJECTS:
        cls = type(world.thing(label))
        for name in dir(cls):
            method = inspect.getattr_static(cls, name)
            method = getattr(method, "__func__", method)
            ours = (getattr(method, "__module__", "") or "").startswith("nnlr")
            public = not name.startswith("_") and name not in _NOT_CALLED
            if label == "optimizer":
                ours, public = name == "load_state_dict", name == "load_state_dict"
            if inspect.isfunction(method) and ours and (public or name in _SIGNS.get(label, ())):
                full = f"{label}.{name}"
                calls[full] = replace(_call(full, getattr(world.thing(label), name)), method=True)
    return {
        name: call
        for name, call in calls.items()
        if name.removeprefix("nnlr.") not in ELSEWHERE and name not in ELSEWHERE
    }


def _call(name: str, function: Callable[..., object]) -> Call:
    parameters = dict(inspect.signature(function).parameters)
    words = vars(inspect.getmodule(function))
    kinds = {}
    for key, parameter in parameters.items():
        kind = parameter.annotation
        if isinstance(kind, str):
            try:
                kind = eval(kind, {**words})  # noqa: S307 - annotations of the package
            except NameError:  # imported for type checkers only
                kind = object
        kinds[key] = kind
    return Call(name, function, parameters, kinds)


def fits(kind: object, value: object) -> bool | None:
    """Whether a value is of the annotated kind; ``None`` if the annotation does not tell."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        answers = [fits(member, value) for member in inner]
        return True if True in answers else (None if None in answers else False)
    if origin is Literal:
        return any(type(value) is type(word) and value == word for word in inner)
    if isinstance(kind, TypeVar):
        return fits(kind.__bound__, value) if kind.__bound__ else None
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    if isinstance(origin, type):  # what a collection holds is not looked at
        refused = isinstance(value, str) and origin in {Iterable, Sequence}
        origin = Iterable if origin is tuple else origin
        return None if isinstance(value, origin) and not refused else False
    return isinstance(value, kind) if isinstance(kind, type) else None


def _is(number: type, value: object) -> bool:
    """Whether a value is a number of this kind: no bool, not NaN."""
    return isinstance(value, number) and not isinstance(value, bool) and not value != value  # noqa: PLR0124, SIM202 - NaN


_PLAIN: dict[object, Callable[[object], bool | None]] = {
    **dict.fromkeys((Any, object, inspect.Parameter.empty), lambda value: None),
    **dict.fromkeys((None, NoneType), lambda value: value is None),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: _is(Integral, value),
    float: lambda value: _is(Real, value),
}
