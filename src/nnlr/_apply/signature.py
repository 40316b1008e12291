"""Which settings an optimizer class takes, and whether a plan's groups fit it."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._apply.param_groups import FittedPlan
from nnlr._rows.groups import Group
from nnlr._rows.rates import Bases
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, CoverageError
from nnlr.optim import _adam, _sgd
from nnlr.optim._update_size import FACTOR, is_muon

# Optimizers that add decay to the gradient and then divide by a running scale of it, so
# that decay does not act on the weights in proportion to lr * weight_decay.
ADAPTIVE_L2: Final = (
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
)

# Optimizers whose kind of steps (Update) is known.
_OF_A_KIND: Final = (
    *ADAPTIVE_L2,
    *(torch.optim.AdamW, torch.optim.SGD),
    *(_adam.Adam, _adam.AdamW, _sgd.SGD),  # the same numbers
)

# Newer than the oldest torch that nnlr supports.
_MUON: Final = getattr(torch.optim, "Muon", ())

# How to share a model between Muon and another optimizer.
_ROUTE: Final = """Let another class train them, in one optimizer:
  plan = nnlr.resolve(model, nnlr.route("muon", "adamw"), lr={"muon": 0.02, "adamw": 1e-3},
                      weight_decay=0.1)
  optimizer = plan.optimizer({"muon": torch.optim.Muon, "adamw": torch.optim.AdamW})"""

# The kind of a Muon whose shape factor no scheme is for.
_OTHER_FACTOR: Final = "muon with another shape factor"

_KEYWORDS: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Signature:
    """Which settings an optimizer takes."""

    cls: Callable[..., Any]  # its class, or the function that builds it
    name: str  # of that
    defaults: Mapping[str, Any]  # of its settings, None where there is none
    bound: Mapping[str, Any] = field(default_factory=dict)  # fixed by a functools.partial
    open: bool = False  # whether it may know other settings too, which only building it can tell

    @classmethod
    def of(cls, factory: Callable[..., Any]) -> "Signature":
        """Read the signature of an optimizer class, a partial of one, or a function."""
        if not callable(factory):
            fix = (
                f" Pass the class: {type(factory).__name__}."
                if isinstance(factory, Optimizer)
                else ""
            )
            raise ConfigError(
                "optimizer needs an optimizer class such as torch.optim.AdamW, or a function "
                f"that builds one, got {shown(factory, typed=True)}.{fix}"
            )
        partial = factory if isinstance(factory, functools.partial) else None
        inner = partial.func if partial else factory
        try:
            parameters = list(inspect.signature(factory).parameters.values())
        except ValueError:  # written in C: it does not say
            parameters = []
        _refuse_other_first(inner, next((each.name for each in parameters), ""))
        return cls(
            cls=inner,
            name=getattr(inner, "__name__", type(inner).__name__),
            defaults={
                setting.name: None if setting.default is setting.empty else setting.default
                for setting in parameters[1:]  # the first takes the groups
                if setting.kind in _KEYWORDS
            },
            bound=partial.keywords if partial else {},
            open=not parameters
            or not isinstance(inner, type)
            or any(setting.kind is setting.VAR_KEYWORD for setting in parameters),
        )

    @classmethod
    def of_live(cls, optimizer: Optimizer) -> "Signature":
        """What the groups of an optimizer that exists may hold: what is declared, or is there."""
        present = {key: None for group in optimizer.param_groups for key in group}
        return cls(type(optimizer), type(optimizer).__name__, {**present, **optimizer.defaults})

    def knows(self, setting: str) -> bool:
        """Whether it takes a setting; ``True`` also where only building it can tell."""
        return self.open or setting in self.defaults


def _refuse_other_first(cls: Callable[..., Any], first: str) -> None:
    """Refuse a class that is built from something else than parameters, as its first argument."""
    if not isinstance(cls, type):
        return
    name = cls.__name__
    if first in {"model", "module", "named_parameters"}:
        raise ConfigError(
            f"{name} takes {first!r} and groups the parameters itself, so it cannot train them in "
            "the groups of a plan. Use an optimizer that takes groups of parameters."
        )
    if first in {"optimizer", "base_optimizer"}:
        raise ConfigError(
            f"{name} is built around an optimizer. Pass a function that builds both:\n  "
            "plan.optimizer(lambda groups, lr, weight_decay: "
            f"{name}(torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)))"
        )


def refuse_rates(
    signature: Signature, settings: Mapping[str, Any], bases: Bases, algorithm: str | None
) -> None:
    """Refuse parameters and base rates beside those of the plan, for one of its algorithms."""
    arguments = {**signature.bound, **settings}
    if "params" in arguments and "params" not in signature.defaults:
        raise ConfigError(
            "params is not passed here: the plan gives the parameters that it trains, in groups. "
            f"Leave it out: plan.optimizer({signature.name}).",
            setting="params",
        )
    _refuse_bases(arguments, bases, [algorithm])


def _refuse_bases(
    arguments: Mapping[str, Any], bases: Bases, algorithms: Collection[str | None]
) -> None:
    """Refuse base rates for algorithms beside those of the plan."""
    for base in ("lr", "weight_decay"):
        if base in arguments:
            value, present = shown(arguments[base]), getattr(bases, base)
            if isinstance(present, Mapping):
                value = "{" + ", ".join(f"{name!r}: {value}" for name in algorithms) + "}"
            raise ConfigError(
                f"{base}={value} is not passed here: the plan has {base}={present!r}. Use "
                f"plan.with_rates({base}={value}).",
                setting=base,
            )


def refuse_unfit(signature: Signature, groups: Sequence[Group], located: Sequence[Located]) -> None:
    """Refuse groups that the optimizer cannot take, as far as its class and signature tell."""
    name = signature.name
    refuse_nothing(groups, name)
    scaled = sum(group.eps_mult != 1 and "eps" not in group.options for group in groups)
    if scaled and not signature.knows("eps"):
        raise ConfigError(
            f"{name} has no setting eps, and the plan multiplies that of {scaled} of "
            f"{len(groups)} groups. Use an optimizer that has one."
        )
    # Two classes of torch take less than any others.
    cls = signature.cls
    if not isinstance(cls, type):
        return
    if issubclass(cls, torch.optim.LBFGS) and len(groups) > 1:
        raise ConfigError(
            f"{name} takes one parameter group, and the plan has {len(groups)}. "
            "It has one step size for all parameters; use another optimizer for "
            "layer-wise rates."
        )
    if issubclass(cls, _MUON):
        trained = {member for group in groups for member in group.names}
        unfit = [
            param.row.name
            for param in located
            if param.row.name in trained and param.tensor.ndim != 2
        ]
        if unfit:
            raise ConfigError(
                f"{name} trains matrices only, and {len(unfit)} parameters have "
                f"another number of axes: {listed(unfit)}. {_ROUTE}",
                names=unfit,
            )
        if parts := [p.row.name for p in located if p.row.name in trained and _is_part(p.tensor)]:
            raise ConfigError(
                f"{name} of torch needs whole matrices, and of {plural(len(parts), 'parameter')} "
                f"each process has a part: {listed(parts)}. It would gather each of them fifteen "
                "times a step, and sum in bfloat16 in an order that depends on the number of "
                "processes. Use a class that shards the work, as those of dion do, or leave the "
                "matrices whole (DistributedDataParallel). To have it all the same, pass a "
                "function: lambda groups, **settings: torch.optim.Muon(groups, **settings).",
                names=parts,
            )


def _is_part(tensor: Any) -> bool:  # noqa: ANN401 - may be a DTensor
    """Whether each process has a part of a tensor."""
    mesh = getattr(tensor, "device_mesh", None)
    return mesh is not None and any(
        placement.is_shard() and mesh.size(at) > 1 for at, placement in enumerate(tensor.placements)
    )


def refuse_nothing(groups: Sequence[Group], name: str) -> None:
    """Refuse to build an optimizer of nothing."""
    if not groups:
        raise ConfigError(
            "The plan trains nothing: every parameter of the model, or of this stage, is "
            f"locked or frozen, so there is nothing to give {name}."
        )


def refuse_several(factory: object, fit: FittedPlan) -> None:
    """Refuse one class for a plan of several algorithms."""
    names = list(dict.fromkeys(group.algorithm for group in fit.groups))
    if len(names) > 1:
        classes = ", ".join(f"{name!r}: ..." for name in names if name is not None)
        raise ConfigError(
            f"The plan routes parameters to {listed(map(repr, names))}, and {shown(factory)} is "
            f"one class. Pass one for each: plan.optimizer({{{classes}}}).",
            algorithms=names,
        )


def refuse_unmatched(
    classes: Mapping[str, Any], settings: Mapping[str, Any], fit: FittedPlan
) -> None:
    """Refuse classes by name that are not those of the plan's algorithms."""
    _refuse_bases(settings, fit.bases, fit.bases.algorithms)
    if settings:
        first = next(iter(settings))
        raise ConfigError(
            f"{first}= would go to all of {listed(map(repr, classes))}: bind it to one, "
            f"functools.partial(cls, {first}=...).",
            setting=first,
        )
    refuse_unrouted(classes, fit)
    algorithms = dict.fromkeys(g.algorithm for g in fit.groups if g.algorithm is not None)
    if missing := [name for name in algorithms if name not in classes]:
        hint = nearest_hint(missing[0], map(str, classes))
        raise ConfigError(
            f"The plan routes parameters to {missing[0]!r}, and no class has that name: "
            f"{listed(map(repr, classes)) or 'there is none'}. {hint}".rstrip(),
            algorithms=missing,
        )
    if strays := [name for name in classes if name not in fit.algorithms]:
        raise ConfigError(
            f"The plan routes nothing to {shown(strays[0])}: its algorithms are "
            f"{listed(map(repr, fit.algorithms)) or 'none'}. Leave the class out, or route "
            "parameters to it.",
            algorithms=strays,
        )
    refuse_nothing(fit.groups, " or ".join(map(repr, classes)))


def refuse_unrouted(classes: Collection[str], fit: FittedPlan) -> None:
    """Refuse a plan that leaves parameters to none of several algorithms."""
    routed = {name: group for group in fit.groups for name in group.names}
    if nobodys := [name for name, group in routed.items() if group.algorithm is None]:
        names = ", ".join(map(repr, classes))
        recipe = f"resolve(model, nnlr.route({names}), ...), or " if len(classes) == 2 else ""
        raise CoverageError(
            f"No algorithm trains {plural(len(nobodys), 'parameter')}: {listed(nobodys)}.\n"
            f"  Route them: {recipe}nnlr.rule(selector, algorithm=...).",
            names=nobodys,
        )


def refuse_other_update(
    signature: Signature,
    settings: Mapping[str, Any],
    groups: Sequence[Group],
    located: Sequence[Located],
) -> None:
    """Refuse an optimizer whose steps are of another kind than a scheme's factors are for."""
    kind = _kind_of_steps(signature, settings)
    if kind is None:
        return
    fitting = {kind, None}
    if kind in {"adam", "adamw"} and not any(group.weight_decay for group in groups):
        fitting |= {"adam", "adamw"}  # they differ in decay only
    trained = [param.row for param in located if param.row.group is not None]
    pairs = ((row, step) for row in trained for step in row.trace)
    for row, step in pairs:
        if step.factor.update not in fitting:
            raise ConfigError(
                f"{signature.name} does not go with {step.source}, whose factors are for "
                f"optimizer={step.factor.update!r}. {row.name!r} has one. "
                f"{_way_out(kind, row.algorithm)}",
                name=row.name,
            )


def _way_out(kind: str, algorithm: str | None) -> str:
    """What to do about a scheme for other steps."""
    if kind == _OTHER_FACTOR:
        return f"Its shape factor depends on width in another way: use {FACTOR}='original'."
    if algorithm is None:
        return (
            f"Pass optimizer={kind!r} to the scheme, if it has that argument, or use an optimizer "
            "of its kind."
        )
    return (
        f"Have a scheme for what {algorithm!r} trains, with optimizer={kind!r} if it has that "
        "argument, and the other for the rest: one.where(selector) * other.where(~selector). "
        "Outside of where(), rates and initial weights stay as they are."
    )


def _kind_of_steps(signature: Signature, settings: Mapping[str, Any]) -> str | None:
    """The kind of an optimizer's steps; ``None`` if they are not those of a class of torch."""
    cls = signature.cls
    arguments = {**signature.defaults, **signature.bound, **settings}
    if not isinstance(cls, type):
        return None
    if is_muon(cls, arguments):
        # By others of its shape factors width counts otherwise.
        return "muon" if arguments.get(FACTOR) in {None, "original", "spectral"} else _OTHER_FACTOR
    if not issubclass(cls, _OF_A_KIND):
        return None
    base = next(base for base in cls.__mro__ if base in _OF_A_KIND)
    # Torch wraps the method when a first instance is built.
    if inspect.unwrap(cls.step) is not inspect.unwrap(base.step):
        return None
    if issubclass(base, torch.optim.SGD):
        return "sgd"
    decoupled = issubclass(base, torch.optim.AdamW) or arguments.get("decoupled_weight_decay")
    return "adamw" if decoupled else "adam"
