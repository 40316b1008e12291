"""What an optimizer class can be told, and whether a plan's groups fit it."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._declare.factor import Update
from nnlr._rows.groups import Group
from nnlr._rows.rates import Bases
from nnlr._text import listed, nearest_hint, shown
from nnlr.errors import ConfigError

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

# Optimizers whose steps are of a kind that schemes ask for.
_OF_A_KIND: Final = (*ADAPTIVE_L2, torch.optim.AdamW, torch.optim.SGD)

# Newer than the oldest torch that nnlr supports.
_MUON: Final = getattr(torch.optim, "Muon", ())

_KEYWORDS: Final = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


@dataclass(frozen=True, slots=True)
class Signature:
    """What an optimizer can be told.

    Attributes:
        cls: Its class, or the function that builds it.
        name: The name of that.
        defaults: Its settings and their defaults, ``None`` where there is none.
        bound: Settings that a ``functools.partial`` has fixed.
        open: Whether it may know other settings too, which only building it can tell.
    """

    cls: Callable[..., Any]
    name: str
    defaults: Mapping[str, Any]
    bound: Mapping[str, Any] = field(default_factory=dict)
    open: bool = False

    @classmethod
    def of(cls, factory: Callable[..., Any]) -> "Signature":
        """Read the signature of an optimizer class, a partial of one, or a function.

        Raises:
            ConfigError: If it cannot be called.
        """
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
        return cls(
            cls=inner,
            name=getattr(inner, "__name__", type(inner).__name__),
            defaults={
                each.name: None if each.default is each.empty else each.default
                for each in parameters[1:]  # the first takes the groups
                if each.kind in _KEYWORDS
            },
            bound=partial.keywords if partial else {},
            open=not parameters
            or not isinstance(inner, type)
            or any(each.kind is each.VAR_KEYWORD for each in parameters),
        )

    @classmethod
    def of_live(cls, optimizer: Optimizer) -> "Signature":
        """What the groups of an optimizer that exists may hold."""
        return cls(type(optimizer), type(optimizer).__name__, optimizer.defaults)

    def knows(self, setting: str) -> bool:
        """Whether a setting means something to it, as far as one can tell."""
        return self.open or setting in self.defaults


def refuse_rates(signature: Signature, settings: Mapping[str, Any], bases: Bases) -> None:
    """Refuse base rates beside those of the plan.

    Raises:
        ConfigError: If ``lr`` or ``weight_decay`` is among the settings.
    """
    given = {**signature.bound, **settings}
    for base in ("lr", "weight_decay"):
        if base in given:
            raise ConfigError(
                f"{base}={shown(given[base])} is not passed here: the plan has {base}="
                f"{getattr(bases, base)!r}. Use plan.with_rates({base}={shown(given[base])}).",
                setting=base,
            )


def refuse_unfit(signature: Signature, groups: Sequence[Group], located: Sequence[Located]) -> None:
    """Refuse groups that the optimizer would ignore, swallow or fail on later.

    Raises:
        ConfigError: With the parameters concerned and the way out.
    """
    name = signature.name
    if not groups:
        raise ConfigError(
            "The plan trains nothing: every parameter of the model, or of this stage, is "
            f"locked or frozen, so there is nothing to give {name}."
        )
    if len(tags := {group.tag for group in groups}) > 1:
        raise ConfigError(
            f"The plan sends parameters to {len(tags)} optimizers "
            f"({listed(sorted(map(repr, tags)))}); plan.optimizer builds one. Use "
            "plan.groups and build each yourself."
        )
    for group in groups:
        for option in group.options:
            if not signature.knows(option):
                hint = nearest_hint(option, signature.defaults)
                raise ConfigError(
                    f"{name} does not know the option {option!r} of group {group.name!r} "
                    f"({listed(group.names, 2)}). {hint}".rstrip(),
                    option=option,
                )
    decays = [group.weight_decay for group in groups]
    if any(decays) and not signature.knows("weight_decay"):
        raise no_decay(name, decays)
    scaled = sum(group.eps_mult != 1 for group in groups)
    if scaled and not signature.knows("eps"):
        raise ConfigError(
            f"{name} has no eps, and the plan multiplies that of {scaled} of {len(groups)} "
            "groups. Use an optimizer that has one."
        )
    _refuse_special(signature, groups, located)


def no_decay(name: str, decays: Sequence[float]) -> ConfigError:
    """The error for decay on an optimizer that has none."""
    return ConfigError(
        f"{name} has no weight decay, and the plan decays {sum(map(bool, decays))} of "
        f"{len(decays)} groups. Resolve with weight_decay=0, or use another optimizer."
    )


def _refuse_special(
    signature: Signature, groups: Sequence[Group], located: Sequence[Located]
) -> None:
    cls = signature.cls
    if not isinstance(cls, type):
        return
    if issubclass(cls, torch.optim.LBFGS) and len(groups) > 1:
        raise ConfigError(
            f"{signature.name} takes one parameter group, and the plan has {len(groups)}. "
            "It has one step size for all parameters; use another optimizer for "
            "layer-wise rates."
        )
    if issubclass(cls, _MUON):
        given = {name for group in groups for name in group.names}
        unfit = [
            found.row.name
            for found in located
            if found.row.name in given and found.tensor.ndim != 2
        ]
        if unfit:
            raise ConfigError(
                f"{signature.name} trains matrices only, and {len(unfit)} parameters have "
                f"another number of axes: {listed(unfit)}. Give it a plan that locks them, "
                "or resolve a mapping of the matrices alone and give the rest to another "
                "optimizer.",
                names=unfit,
            )


def refuse_other_update(
    signature: Signature,
    settings: Mapping[str, Any],
    groups: Sequence[Group],
    located: Sequence[Located],
) -> None:
    """Raise ``ConfigError`` where a scheme's factors are for another kind of steps."""
    kind = _update(signature, settings)
    if kind is None:
        return
    fits = {kind, None}
    if kind != "sgd" and not any(group.weight_decay for group in groups):
        fits |= {"adam", "adamw"}  # they differ in decay only
    trained = (found.row for found in located if found.row.group is not None)
    for step in (step for row in trained for step in row.trace):
        if step.factor.update not in fits:
            raise ConfigError(
                f"{signature.name} does not go with {step.source}, whose factors are for "
                f"optimizer={step.factor.update!r}. Pass optimizer={kind!r} to the scheme, "
                "if it has that argument, or use an optimizer of its kind.",
            )


def _update(signature: Signature, settings: Mapping[str, Any]) -> Update | None:
    """The kind of an optimizer's steps, of torch's classes and what steps like these."""
    cls = signature.cls
    known = _stepping(cls)
    if known is None:
        return None
    if issubclass(known, torch.optim.SGD):
        return "sgd"
    given = {**signature.defaults, **signature.bound, **settings}
    decoupled = issubclass(known, torch.optim.AdamW) or given.get("decoupled_weight_decay")
    return "adamw" if decoupled else "adam"


def _stepping(cls: Callable[..., Any]) -> type[Optimizer] | None:
    """The class of torch whose steps a class makes, if it makes none of its own."""
    if not isinstance(cls, type) or not issubclass(cls, _OF_A_KIND):
        return None
    known = next(base for base in cls.__mro__ if base in _OF_A_KIND)
    # Torch wraps the method when a first instance is built.
    same = inspect.unwrap(cls.step) is inspect.unwrap(known.step)
    return known if same else None
