"""Groups meet an optimizer: build one, or give a live one new groups."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr.errors import ConfigError, NnlrWarning, listed, nearest_hint
from nnlr.groups import Group, ParamGroup, param_groups
from nnlr.rows import Bases, PlanRow
from nnlr.tensors import Located

# Optimizers that add decay to the gradient and then divide by a running scale of it, so that
# decay does not act on the weights in proportion to lr * weight_decay.
_ADAPTIVE_L2: Final = ("Adam", "Adamax", "Adagrad", "Adadelta", "NAdam", "RAdam", "RMSprop")


class Signature:
    """What an optimizer class (or a factory of one) can be told."""

    def __init__(self, cls: Callable[..., Any]) -> None:
        self.name = getattr(cls, "__name__", repr(cls))
        self.cls = cls
        try:
            parameters = inspect.signature(cls).parameters
        except (TypeError, ValueError):  # a class written in C says nothing
            parameters = {}
        self.open = not parameters or any(
            p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
        )
        self.defaults = {
            name: parameter.default
            for name, parameter in list(parameters.items())[1:]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }

    def knows(self, setting: str) -> bool:
        """Whether a setting can be passed."""
        return self.open or setting in self.defaults


def refuse_unfit(signature: Signature, groups: Sequence[Group], rows: Sequence[PlanRow]) -> None:
    """Refuse groups that the optimizer would ignore, swallow or fail on later.

    Raises:
        ConfigError: With the parameters concerned and the way out.
    """
    name = signature.name
    if not groups:
        raise ConfigError(
            "The plan trains nothing: every parameter is locked or frozen, so there is nothing "
            f"to give {name}."
        )
    if len(tags := {group.tag for group in groups}) > 1:
        raise ConfigError(
            f"The plan sends parameters to {len(tags)} optimizers "
            f"({listed(sorted(map(repr, tags)))}); plan.optimizer builds one. Use plan.groups "
            "and build each yourself."
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
    decayed = [group for group in groups if group.weight_decay]
    if decayed and not signature.knows("weight_decay"):
        raise ConfigError(
            f"{name} has no weight decay, and the plan decays {len(decayed)} of "
            f"{len(groups)} groups. Resolve with weight_decay=0, or use another optimizer.",
        )
    _refuse_special(signature, groups, rows)


def _refuse_special(
    signature: Signature, groups: Sequence[Group], rows: Sequence[PlanRow]
) -> None:
    cls = signature.cls
    if not isinstance(cls, type):
        return
    if issubclass(cls, torch.optim.LBFGS) and len(groups) > 1:
        raise ConfigError(
            f"{signature.name} takes one parameter group, and the plan has {len(groups)}. It "
            "has one step size for all parameters; use another optimizer for layer-wise rates."
        )
    muon = getattr(torch.optim, "Muon", None)
    if muon is not None and issubclass(cls, muon):
        given = {name for group in groups for name in group.names}
        unfit = [row.name for row in rows if row.name in given and len(row.shape) != 2]
        if unfit:
            raise ConfigError(
                f"{signature.name} trains matrices only, and {len(unfit)} parameters have "
                f"another number of axes: {listed(unfit)}. Give Muon a plan that locks them, or "
                "pass it a mapping of the matrices and the rest to another optimizer.",
                names=unfit,
            )


def build(
    cls: Callable[..., Any],
    groups: Sequence[ParamGroup],
    bases: Bases,
    settings: Mapping[str, Any],
) -> Any:
    """Construct the optimizer on ready groups, with the base rates as its defaults.

    Schedulers read ``optimizer.defaults["lr"]``, so both bases go to the constructor where
    its signature has them.

    Raises:
        ConfigError: If the constructor refuses, with its reason.
    """
    signature = Signature(cls)
    given = dict(settings)
    for name, value in (("lr", bases.lr), ("weight_decay", bases.weight_decay)):
        if name in signature.defaults:
            given[name] = value
    takes_decay = signature.knows("weight_decay")
    ready = [
        group if takes_decay else {k: v for k, v in group.items() if k != "weight_decay"}
        for group in groups
    ]
    try:
        optimizer = cls(ready, **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{signature.name} refused the plan's {len(ready)} groups: {error}"
        ) from error
    unknown = sorted({o for g in ready for o in g} - _known_keys(optimizer, ready))
    if unknown:
        raise ConfigError(
            f"{signature.name} does not know the option {unknown[0]!r}; its settings are "
            f"{listed(sorted(optimizer.defaults), 10)}."
        )
    return optimizer


def _known_keys(optimizer: Any, groups: Sequence[ParamGroup]) -> set[str]:
    ours = {"params", "param_names", "name", "lr", "weight_decay", "lr_mult", "wd_mult"}
    return ours | set(getattr(optimizer, "defaults", groups[0]))


def warn_about_decay(
    cls: Callable[..., Any], settings: Mapping[str, Any], groups: Sequence[Group], bases: Bases
) -> None:
    """Warn where a decay mode is asked of an optimizer in which it means nothing."""
    names = {base.__name__ for base in getattr(cls, "__mro__", ())} & set(_ADAPTIVE_L2)
    decoupled = settings.get("decoupled_weight_decay") or "AdamW" in {
        base.__name__ for base in getattr(cls, "__mro__", ())
    }
    if bases.decay == "coupled" or not names or decoupled:
        return
    if any(group.weight_decay for group in groups):
        warnings.warn(
            f"decay={bases.decay!r} has no clear meaning with {Signature(cls).name}: it adds "
            "decay to the gradient and rescales the sum, so lr * weight_decay is not what "
            "shrinks a weight. Use AdamW or SGD, or decay='coupled'.",
            NnlrWarning,
            stacklevel=3,
        )


def regroup(
    optimizer: Optimizer,
    groups: Sequence[Group],
    located: Sequence[Located],
    rows: Sequence[PlanRow],
    bases: Bases,
) -> None:
    """Give a live optimizer new groups; what it knows of a parameter stays with it.

    State follows the tensor, or its name where the tensor was replaced; that of parameters
    which are in no group any more is dropped. Settings that the new groups do not speak of
    keep the value on which all old groups agree. If a scheduler has begun (groups carry
    ``initial_lr``), its progress on the reference group carries over to every new rate.

    Raises:
        ConfigError: If the optimizer refuses; it is then as it was.
    """
    refuse_unfit(Signature(type(optimizer)), groups, rows)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("LBFGS keeps one flat history of all parameters; build it anew.")
    old = list(optimizer.param_groups)
    old_state = dict(optimizer.state)
    agreed = _agreed_settings(old, optimizer.defaults)
    progress = _progress(old)
    ready = param_groups(
        groups,
        located,
        tensor_lr=any(isinstance(group["lr"], Tensor) for group in old),
        eps=agreed.get("eps"),
    )
    fresh = [_with_progress({**agreed, **group}, progress) for group in ready]
    state = _state_by_name(old, old_state, fresh)
    optimizer.param_groups.clear()
    try:
        for group in fresh:
            optimizer.add_param_group(group)
    except (TypeError, ValueError) as error:
        optimizer.param_groups[:] = old
        raise ConfigError(f"{type(optimizer).__name__} refused the new groups: {error}") from error
    optimizer.state.clear()
    optimizer.state.update(state)
    for name, value in (("lr", bases.lr), ("weight_decay", bases.weight_decay)):
        if name in optimizer.defaults:
            optimizer.defaults[name] = value
    if progress is not None:
        warnings.warn(
            "A scheduler was built on this optimizer and still holds the old rates. The new "
            f"groups continue at {progress:g} of their base rates; build the scheduler anew.",
            NnlrWarning,
            stacklevel=3,  # the caller of nnlr.regroup
        )


def _agreed_settings(
    groups: Sequence[ParamGroup], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """For each setting, the value that all groups share; else the optimizer's default."""
    agreed = {}
    for key, default in defaults.items():
        values = [group.get(key, default) for group in groups]
        plain = not any(isinstance(value, Tensor) for value in values)
        agreed[key] = values[0] if plain and all(v == values[0] for v in values) else default
    return agreed


def _progress(groups: Sequence[ParamGroup]) -> float | None:
    """How far a scheduler has moved the reference group, or ``None`` if there is none."""
    for group in groups:
        initial = float(group.get("initial_lr", 0.0))
        if initial > 0:
            return float(group["lr"]) / initial
    return None


def _with_progress(group: ParamGroup, progress: float | None) -> ParamGroup:
    if progress is None:
        return group
    lr = group["lr"]
    return {**group, "initial_lr": lr, "lr": lr * progress}


def _state_by_name(
    old: Sequence[ParamGroup], state: Mapping[Any, Any], fresh: Sequence[ParamGroup]
) -> dict[Any, Any]:
    by_name = {
        name: tensor
        for group in old
        for name, tensor in zip(group.get("param_names", ()), group["params"], strict=False)
    }
    kept = {}
    for group in fresh:
        for name, tensor in group["params"]:
            source = tensor if tensor in state else by_name.get(name)
            if source is not None and source in state and source.shape == tensor.shape:
                kept[tensor] = state[source]
    return kept
