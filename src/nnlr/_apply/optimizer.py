"""An optimizer is built on groups, and checked to read what they say."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._apply.param_groups import ParamGroup
from nnlr._apply.signature import ADAPTIVE_L2, Signature, no_decay
from nnlr._arguments import choice
from nnlr._model.names import Source
from nnlr._rows.rates import Bases
from nnlr._text import listed, nearest_hint
from nnlr.checkpoint import Policy, on_load
from nnlr.checkpoint._hook import runs_hooks
from nnlr.checkpoint._on_load import POLICIES
from nnlr.errors import ConfigError, NnlrWarning

Opt = TypeVar("Opt", bound=Optimizer)

# What nnlr puts in a group beside the settings of the optimizer.
_OURS: Final = {"params", "name", "lr", "weight_decay", "lr_mult", "wd_mult"}

_RATES: Final = ("lr", "weight_decay")


def build(
    factory: Callable[..., Opt],
    groups: Sequence[ParamGroup],
    located: Sequence[Located],
    bases: Bases,
    settings: Mapping[str, Any],
) -> Opt:
    """Construct the optimizer on ready groups, with the base rates as its defaults.

    Both bases go to the constructor where its signature has them, and to
    ``optimizer.defaults`` in any case: schedulers read ``optimizer.defaults["lr"]``.

    Raises:
        ConfigError: If the constructor fails, or the optimizer would not read what the
            groups say.
    """
    signature = Signature.of(factory)
    given = dict(settings)
    for setting in given:
        if not signature.knows(setting):
            hint = nearest_hint(setting, signature.defaults)
            raise ConfigError(
                f"{signature.name} has no argument {setting!r}. {hint}".rstrip(),
                setting=setting,
            )
    if "lr" in signature.defaults:
        # Constructors check what they do with a tensor on this one only.
        tensor = isinstance(groups[0]["lr"], Tensor)
        given["lr"] = torch.tensor(bases.lr) if tensor else bases.lr
    if "weight_decay" in signature.defaults:
        given["weight_decay"] = bases.weight_decay
    ready = without_decay(groups, signature)
    said = {key for group in ready for key in group}
    try:
        optimizer = factory(ready, **given)
    except Exception as error:
        named = isinstance(groups[0]["params"][0], tuple)
        confused = named and "tuple" in str(error)
        hint = " It may want plain tensors: pass names=False." if confused else ""
        raise ConfigError(
            f"{signature.name} cannot be built on the plan's {len(ready)} groups: "
            f"{type(error).__name__}: {error}{hint}"
        ) from error
    defaults = getattr(optimizer, "defaults", None)
    if isinstance(defaults, dict):
        _check_heard(signature.name, defaults, groups, said)
    _check_kept(signature.name, optimizer, groups, located)
    if isinstance(defaults, dict):
        set_bases(defaults, bases)
    warn_about_decay(optimizer, groups, bases)
    return optimizer


def check_resume(resume: object) -> None:
    """Refuse a word that is no policy for loading.

    Raises:
        NnlrError: If it is neither one nor ``None``.
    """
    if resume is not None:
        choice(resume, "resume", POLICIES)


def match_on_load(
    optimizer: Optimizer,
    model: Source | None,
    located: Iterable[Located],
    resume: Policy | None,
) -> None:
    """Let an optimizer load checkpoints by name.

    Wrappers that run no hooks cannot, nor those that train tensors of their own besides.
    """
    if resume is None or not runs_hooks(optimizer):
        return
    known = model if isinstance(model, nn.Module) else named_tensors(located)
    with contextlib.suppress(ConfigError):
        on_load(optimizer, model=known, policy=resume)


def named_tensors(located: Iterable[Located]) -> list[tuple[str, Tensor]]:
    """Tensors under each of their names."""
    return [(place.name, place.tensor) for found in located for place in found.places]


def without_decay(groups: Sequence[ParamGroup], signature: Signature) -> list[ParamGroup]:
    """Copies of the groups, less a weight decay of 0 that the optimizer has no word for."""
    drop = () if signature.knows("weight_decay") else ("weight_decay",)
    return [{k: v for k, v in group.items() if k not in drop} for group in groups]


def _check_heard(
    name: str,
    defaults: Mapping[str, Any],
    groups: Sequence[ParamGroup],
    said: set[str],
) -> None:
    """Refuse an optimizer whose step would not read what the groups say."""
    if "lr" not in defaults:
        raise ConfigError(
            f"{name} has no setting 'lr', so it would train every group alike. Its "
            f"settings are {listed(sorted(defaults), 10) or 'none'}."
        )
    decays = [group["weight_decay"] for group in groups]
    if any(decays) and "weight_decay" not in defaults:
        raise no_decay(name, decays)
    if unknown := sorted(said - _OURS - defaults.keys()):
        raise ConfigError(
            f"{name} does not know the option {unknown[0]!r}; its settings are "
            f"{listed(sorted(defaults), 10)}.",
            option=unknown[0],
        )


def _check_kept(
    name: str,
    optimizer: object,
    groups: Sequence[ParamGroup],
    located: Sequence[Located],
) -> None:
    """Refuse an optimizer that does not hold each parameter at the rates it was given."""
    held = getattr(optimizer, "param_groups", None)
    if held is None:
        raise ConfigError(
            f"{name} gave {type(optimizer).__name__}, which has no param_groups and so is "
            "no optimizer."
        )
    said, kept = _rates_by_id(groups), _rates_by_id(held)
    for found in located:
        wanted, actual = (rates.get(id(found.tensor), {}) for rates in (said, kept))
        if not _agree(wanted, actual):
            raise ConfigError(
                f"{name} does not keep the groups of the plan: {found.row.name!r} trains "
                f"{_spelled(actual)}; the plan trains it {_spelled(wanted)}. Use a class or "
                "function that hands the groups to the optimizer as they are.",
                name=found.row.name,
            )


def _rates_by_id(groups: Iterable[ParamGroup]) -> dict[int, dict[str, float]]:
    """The rates at which groups train each of their tensors, named or not."""
    rates = {}
    for group in groups:
        # A scheduler that a factory attached may have moved lr already, and says from where.
        start = {**group, "lr": group.get("initial_lr", group.get("lr"))}
        own = {rate: float(start[rate]) for rate in _RATES if start.get(rate) is not None}
        for param in group["params"]:
            rates[id(param[1] if isinstance(param, tuple) else param)] = own
    return rates


def _agree(wanted: Mapping[str, float], actual: Mapping[str, float]) -> bool:
    """Whether rates are the same, up to float32; some optimizers have no decay."""
    if not wanted or not actual:
        return not wanted and not actual
    return "lr" in actual and all(
        math.isclose(wanted[rate], value, rel_tol=1e-6) for rate, value in actual.items()
    )


def _spelled(rates: Mapping[str, float]) -> str:
    if not rates:
        return "not at all"
    return "at " + ", ".join(f"{rate}={value:g}" for rate, value in rates.items())


def set_bases(defaults: dict[str, Any], bases: Bases) -> None:
    """Make the base rates an optimizer's defaults, where it has such settings."""
    for name, value in (("lr", bases.lr), ("weight_decay", bases.weight_decay)):
        if name in defaults:
            defaults[name] = value


def warn_about_decay(optimizer: object, groups: Sequence[ParamGroup], bases: Bases) -> None:
    """Warn where a decay mode is asked of an optimizer in which it means nothing."""
    if bases.decay == "coupled" or not isinstance(optimizer, ADAPTIVE_L2):
        return
    decoupled = optimizer.defaults.get("decoupled_weight_decay")  # AdamW sets it
    if not decoupled and any(group["weight_decay"] for group in groups):
        warnings.warn(
            f"decay={bases.decay!r} has no clear meaning with "
            f"{type(optimizer).__name__}: it adds decay to the gradient and rescales the "
            "sum, so lr * weight_decay is not what shrinks a weight. Use AdamW or SGD, or "
            "decay='coupled'.",
            NnlrWarning,
            stacklevel=4,  # the caller of plan.optimizer or nnlr.regroup
        )
