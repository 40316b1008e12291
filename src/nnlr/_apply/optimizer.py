"""Build an optimizer on a plan's groups, and check that it reads what they say."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._apply.moving import wait_for_attach
from nnlr._apply.options import judge_options
from nnlr._apply.param_groups import FittedPlan, ParamGroup
from nnlr._apply.signature import (
    ADAPTIVE_L2,
    Signature,
    refuse_other_update,
    refuse_rates,
    refuse_several,
    refuse_unfit,
    refuse_unmatched,
)
from nnlr._rows.rates import Bases, OneBase
from nnlr._schedule.moved import MOVED
from nnlr._schedule.origin import note_origin
from nnlr._text import nearest_hint, warn
from nnlr.checkpoint import Policy, on_load
from nnlr.checkpoint._guard import guard
from nnlr.checkpoint._hook import learn, runs_hooks
from nnlr.errors import ConfigError
from nnlr.optim._members import common_defaults, unnamed
from nnlr.optim._mixed import Mixed

Opt = TypeVar("Opt", bound=Optimizer)

_RATES: Final = ("lr", "weight_decay")

# What a plan writes into its groups besides settings of the optimizer.
NOTES: Final = ("name", "lr_mult", "wd_mult", MOVED)


@dataclass(frozen=True, slots=True)
class Part:
    """What one class is built with: its groups and the arguments of its constructor."""

    factory: Callable[..., Any]
    signature: Signature
    fit: FittedPlan
    settings: Mapping[str, Any]
    groups: Sequence[ParamGroup]

    @classmethod
    def of(
        cls,
        factory: Callable[..., Any],
        settings: Mapping[str, Any],
        fit: FittedPlan,
        bases: Bases,
        *,
        names: bool,
        tensor_lr: bool,
    ) -> Self:
        """Fit a class to the groups; refuse what its signature tells that it cannot do.

        ``bases`` are those of the plan, for all algorithms.
        """
        signature = Signature.of(factory)
        algorithm = fit.groups[0].algorithm if fit.groups else None
        refuse_rates(signature, settings, bases, algorithm)
        refuse_other_update(signature, settings, fit.groups, fit.located)
        refuse_unfit(signature, fit.groups, fit.located)
        eps = {**signature.defaults, **settings}.get("eps")
        groups = fit.param_groups(names=names, tensor_lr=tensor_lr, eps=eps)
        for setting in settings:
            if not signature.knows(setting):
                hint = nearest_hint(setting, signature.defaults)
                raise ConfigError(
                    f"{signature.name} has no argument {setting!r}. {hint}".rstrip(),
                    setting=setting,
                )
        return cls(factory, signature, fit, settings, groups)

    def declared(self) -> list[ParamGroup]:
        """The groups as its constructor gets them."""
        return without_decay(self.groups, self.signature)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the constructor: its settings, and the base rates where it has them."""
        base = self.fit.bases.of(None)
        arguments = dict(self.settings)
        if "lr" in self.signature.defaults:
            # Constructors check what they do with a tensor on this one only.
            is_tensor = isinstance(self.groups[0]["lr"], Tensor)
            arguments["lr"] = torch.tensor(base.lr) if is_tensor else base.lr
        if "weight_decay" in self.signature.defaults:
            arguments["weight_decay"] = base.weight_decay
        return arguments

    def build(self) -> Any:  # noqa: ANN401 - whatever the factory gives
        """The optimizer, which is what the plan says."""
        optimizer = _constructed(
            self.factory, self.signature.name, self.arguments(), self.declared()
        )
        self.finish(optimizer)
        return optimizer

    def finish(self, optimizer: Any) -> None:  # noqa: ANN401 - whatever the factory gave
        """Check that the optimizer is what the plan says, and make the bases its defaults."""
        _refuse_other_rates(self.signature.name, optimizer, self.groups, self.fit.located)
        settings = {**self.signature.bound, **self.settings}
        judge_options(optimizer, self.fit.groups, self.fit.located, settings)
        defaults = getattr(optimizer, "defaults", None)
        if isinstance(defaults, dict):
            set_bases(defaults, self.fit.bases)
        warn_about_decay(optimizer, self.groups, self.fit.bases)


def build(
    factory: Callable[..., Optimizer] | Mapping[str, Callable[..., Optimizer]],
    settings: Mapping[str, Any],
    fit: FittedPlan,
    *,
    names: bool,
    tensor_lr: bool,
    resume: Policy | None,
) -> Optimizer:
    """Build an optimizer on a fitted plan; see ``Plan.optimizer``, whose arguments these are.

    Both bases go to the constructor where its signature has them, and to
    ``optimizer.defaults`` in any case: schedulers read ``optimizer.defaults["lr"]``.
    """
    optimizer: Optimizer
    parts = parts_of(factory, settings, fit, names=names, tensor_lr=tensor_lr)
    if isinstance(factory, Mapping):
        classes = {
            name: partial(parts[name].factory, **parts[name].arguments())
            if name in parts
            else _at_bases(factory[name], fit.bases.of(name))
            for name in fit.algorithms
            if name in factory
        }
        groups = [group for part in parts.values() for group in part.declared()]
        optimizer = _constructed(Mixed, "Mixed", {"algorithms": classes}, groups)
        for name, part in parts.items():
            part.finish(optimizer.algorithms[str(name)])
        optimizer.defaults.update(common_defaults(optimizer.algorithms.values()))
    else:
        optimizer = parts[None].build()
    note_origin(optimizer.param_groups)
    _match_on_load(optimizer, fit, resume)
    fit.locks.apply(optimizer)
    wait_for_attach(optimizer, fit.located)
    return optimizer


def parts_of(
    factory: Callable[..., Optimizer] | Mapping[str, Callable[..., Optimizer]],
    settings: Mapping[str, Any],
    fit: FittedPlan,
    *,
    names: bool = True,
    tensor_lr: bool = False,
) -> dict[str | None, Part]:
    """What each class is built with, by its algorithm; of one class under ``None``."""
    if not isinstance(factory, Mapping):
        refuse_several(factory, fit)
        part = Part.of(factory, settings, fit, fit.bases, names=names, tensor_lr=tensor_lr)
        return {None: part}
    refuse_unmatched(factory, settings, fit)
    return {
        name: Part.of(
            factory[name], {}, fit.part(name), fit.bases, names=names, tensor_lr=tensor_lr
        )
        for name in dict.fromkeys(group.algorithm for group in fit.groups)
        if name is not None
    }


def _at_bases(factory: Callable[..., Any], base: OneBase) -> Callable[..., Any]:
    """A class that trains nothing here at its base rates, to which schedules refer."""
    declared = Signature.of(factory).defaults
    return partial(factory, **{key: getattr(base, key) for key in _RATES if key in declared})


def _constructed(
    factory: Callable[..., Opt],
    name: str,
    arguments: Mapping[str, Any],
    groups: Sequence[ParamGroup],
) -> Opt:
    """The optimizer, with the names and notes of its groups.

    Some classes sort their tensors, or refuse groups with keys that they do not know: they
    get tensors and settings alone, and the rest is written into their groups afterwards.
    """
    bare = [
        {
            **{key: value for key, value in group.items() if key not in NOTES},
            "params": [unnamed(param) for param in group["params"]],
        }
        for group in groups
    ]
    error: Exception | None = None
    for attempt in (groups, bare):
        try:
            optimizer = factory([dict(group) for group in attempt], **arguments)
        except Exception as failure:  # noqa: BLE001 - anyone's constructor
            error = error or failure
        else:
            _write_notes(optimizer, groups)
            return optimizer
    raise ConfigError(
        f"{name} cannot be built on the plan's {len(groups)} groups: "
        f"{type(error).__name__}: {error}"
    ) from error


def _write_notes(optimizer: object, groups: Sequence[ParamGroup]) -> None:
    """Pair names and tensors by identity in an optimizer's groups, and note what they are."""
    planned, names = {}, {}
    for group in groups:
        for param in group["params"]:
            tensor = unnamed(param)
            planned[id(tensor)] = group
            if isinstance(param, tuple):
                names[id(tensor)] = param[0]
    for built in getattr(optimizer, "param_groups", None) or ():
        ids = [id(tensor) for tensor in built["params"]]
        sources = {id(planned[key]): planned[key] for key in ids if key in planned}
        if len(sources) == 1:
            (source,) = sources.values()
            built.update({key: source[key] for key in NOTES if key in source and key not in built})
        if ids and names.keys() >= set(ids):
            built["param_names"] = [names[key] for key in ids]


def _match_on_load(optimizer: Optimizer, fit: FittedPlan, resume: Policy | None) -> None:
    """Let an optimizer load checkpoints by name.

    Wrappers that run no hooks cannot: they are to refuse other parameters. Nor can classes that
    train tensors of their own besides.
    """
    if resume is None or not isinstance(optimizer, Optimizer):
        return
    if not runs_hooks(optimizer):
        guard(optimizer)
        return
    source = fit.model if isinstance(fit.model, nn.Module) else _named(fit.located)
    with contextlib.suppress(ConfigError):
        on_load(optimizer, model=source, policy=resume)
    tell(optimizer, fit.located)


def tell(optimizer: Optimizer, located: Sequence[Located]) -> None:
    """Tell the hook of an optimizer the names of its tensors, and the schemes of the plan."""
    learn(optimizer, _named(located), (s.source for param in located for s in param.row.trace))


def _named(located: Sequence[Located]) -> list[tuple[str, Tensor]]:
    """Tensors under each of their names."""
    return [(place.name, place.tensor) for param in located for place in param.places]


def without_decay(groups: Sequence[ParamGroup], signature: Signature) -> list[ParamGroup]:
    """Copies of the groups, without a ``weight_decay`` that is 0 and that nobody declares."""
    needed = signature.knows("weight_decay") or any(group["weight_decay"] for group in groups)
    drop = () if needed else ("weight_decay",)
    return [{k: v for k, v in group.items() if k not in drop} for group in groups]


def _refuse_other_rates(
    name: str,
    optimizer: object,
    groups: Sequence[ParamGroup],
    located: Sequence[Located],
) -> None:
    """Refuse an optimizer that does not hold each parameter at the rates it was given."""
    built_groups = getattr(optimizer, "param_groups", None)
    if built_groups is None:
        raise ConfigError(
            f"{name} gave {type(optimizer).__name__}, which has no param_groups and so is "
            "no optimizer."
        )
    planned_rates, built_rates = _rates_by_id(groups), _rates_by_id(built_groups)
    for param in located:
        planned = planned_rates.get(id(param.tensor), {})
        built = built_rates.get(id(param.tensor), {})
        # Some optimizers have no decay, and some hold rates in float32.
        agree = ("lr" in built if planned else not built) and all(
            math.isclose(planned[rate], value, rel_tol=1e-6) for rate, value in built.items()
        )
        if not agree:
            raise ConfigError(
                f"{name} does not keep the groups of the plan: {param.row.name!r} trains "
                f"{_spelled(built)}; the plan trains it {_spelled(planned)}. Use a class or "
                "function that hands the groups to the optimizer as they are.",
                name=param.row.name,
            )


def _rates_by_id(groups: Iterable[ParamGroup]) -> dict[int, dict[str, float]]:
    """The rates at which groups train each of their tensors, named or not."""
    rates_by_id = {}
    for group in groups:
        # A scheduler that a factory attached may have moved lr already, and says from where.
        start = {**group, "lr": group.get("initial_lr", group.get("lr"))}
        rates = {rate: float(start[rate]) for rate in _RATES if start.get(rate) is not None}
        for param in group["params"]:
            rates_by_id[id(unnamed(param))] = rates
    return rates_by_id


def _spelled(rates: Mapping[str, float]) -> str:
    """Rates as words of a message."""
    if not rates:
        return "not at all"
    return "at " + ", ".join(f"{rate}={value:g}" for rate, value in rates.items())


def set_bases(defaults: dict[str, Any], bases: Bases) -> None:
    """Make the base rates an optimizer's defaults, where it has such settings.

    It has ``lr``, which schedulers look for there, even if only its groups say so.
    """
    base = bases.of(None)
    defaults["lr"] = base.lr
    if "weight_decay" in defaults:
        defaults["weight_decay"] = base.weight_decay


def warn_about_decay(optimizer: object, groups: Sequence[ParamGroup], bases: Bases) -> None:
    """Warn where a decay mode is asked of an optimizer in which it means nothing."""
    if bases.decay == "coupled" or not isinstance(optimizer, ADAPTIVE_L2):
        return
    decoupled = optimizer.defaults.get("decoupled_weight_decay")  # AdamW sets it
    if not decoupled and any(group["weight_decay"] for group in groups):
        warn(
            f"decay={bases.decay!r} has no clear meaning with "
            f"{type(optimizer).__name__}: it adds decay to the gradient and rescales the "
            "sum, so lr * weight_decay is not what shrinks a weight. Use AdamW or SGD, or "
            "decay='coupled'."
        )
