"""The optimizers of several algorithms: built on their groups, or refused with the reason."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from inspect import isclass, signature
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from nnlr._arguments import is_listing
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError

ALGORITHM: Final = "algorithm"  # the key of a group

Group = dict[str, Any]
Factory = Callable[..., Optimizer]

# What torch puts around the step of every class: hooks, which here run around the whole.
_HOOKED: Final = Optimizer.profile_hook_step(lambda: None).__code__


def as_factories(algorithms: object) -> dict[str, Factory]:
    """The classes, by name."""
    if not isinstance(algorithms, Mapping) or not algorithms:
        raise ConfigError(
            "algorithms maps names to optimizer classes, such as "
            "{'muon': torch.optim.Muon, 'adamw': torch.optim.AdamW}; got "
            f"{shown(algorithms, typed=True)}."
        )
    for name, factory in algorithms.items():
        if not isinstance(name, str) or not callable(factory):
            raise ConfigError(
                f"algorithms[{shown(name)}] must be an optimizer class, or a functools.partial "
                f"of one, under a name, got {shown(factory, typed=True)}."
            )
        cls = factory.func if isinstance(factory, partial) else factory
        if isclass(cls):
            _refuse_closure(name, cls)
    return dict(algorithms)


def _refuse_closure(name: str, cls: type) -> None:
    """Refuse a class that cannot step without a closure."""
    closure = signature(getattr(cls, "step", lambda: None)).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(
            f"algorithms[{name!r}]: {cls.__name__} evaluates the loss in its step, perhaps "
            "several times, while the other algorithms stand still. Use it on its own."
        )


def refuse_foreign_keys(state: Mapping[Any, Any], members: Mapping[str, Optimizer]) -> None:
    """Refuse state that belongs to no parameter: two classes may use the same key."""
    keys = [key for key in state if not isinstance(key, Tensor)]
    if keys and len(members) > 1:
        raise ConfigError(
            f"An optimizer of {listed(map(repr, members))} keeps state under {shown(keys[0])}, "
            "which is no parameter, and all share one state. Use its class on its own."
        )


def as_groups(groups: object) -> list[Group]:
    """Copies of the groups, each with a list of its parameters."""
    if not is_listing(groups) or isinstance(groups, Mapping):
        raise ConfigError(f"groups must be a list of parameter groups, got {shown(groups)}.")
    copies = []
    for position, group in enumerate(groups):
        if not isinstance(group, Mapping) or "params" not in group:
            raise ConfigError(
                f"groups[{position}] must be a dict with 'params' and 'algorithm', got "
                f"{shown(group, typed=True)}."
            )
        params = group["params"]
        if isinstance(params, Tensor):
            params = [params]
        copies.append({**group, "params": list(params) if isinstance(params, Iterator) else params})
    if not copies:
        raise ConfigError("Mixed needs at least one parameter group.")
    return copies


def build(name: str, factory: Factory, groups: Sequence[Group]) -> Optimizer:
    """The optimizer of an algorithm, with its groups in their order."""
    try:
        member = factory([{k: v for k, v in g.items() if k != ALGORITHM} for g in groups])
    except Exception as error:
        raise ConfigError(
            f"algorithms[{name!r}] cannot be built on its {plural(len(groups), 'group')}: "
            f"{type(error).__name__}: {error}",
            algorithm=name,
        ) from error
    if not isinstance(member, Optimizer):
        raise ConfigError(
            f"algorithms[{name!r}] built {shown(member, typed=True)}, which is no "
            "torch.optim.Optimizer."
        )
    _refuse_closure(name, type(member))
    if not {"state", "param_groups"} <= vars(member).keys():
        raise ConfigError(
            f"algorithms[{name!r}]: {type(member).__name__} wraps an optimizer that keeps groups "
            "and state itself, so it cannot share those of all."
        )
    if list(map(_tensors, member.param_groups)) != list(map(_tensors, groups)):
        raise ConfigError(
            f"algorithms[{name!r}]: {type(member).__name__} puts its parameters into other groups "
            "than it is given, so it cannot be one of several algorithms."
        )
    for group in member.param_groups:
        if group.setdefault(ALGORITHM, name) != name:
            raise ConfigError(
                f"{type(member).__name__} has a setting {ALGORITHM!r} of its own, "
                f"{shown(group[ALGORITHM])}. Call the algorithm by that name, not {name!r}.",
                algorithm=name,
            )
    return member


def algorithm_of(group: Mapping[str, Any], names: Collection[str]) -> str:
    """The algorithm that a group names: one of these."""
    name = group.get(ALGORITHM)
    if name not in names:
        problem = f"names the algorithm {shown(name)}" if ALGORITHM in group else "names none"
        raise ConfigError(
            f"Each group of a Mixed optimizer has a key 'algorithm', one of "
            f"{listed(map(repr, names))}; a group with the keys {listed(map(repr, group))} "
            f"{problem}. {nearest_hint(str(name), names)}".rstrip(),
            algorithm=name,
        )
    return str(name)


def _tensors(group: Mapping[str, Any]) -> set[int]:
    """The tensors of a group, by identity."""
    return {id(unnamed(param)) for param in group["params"]}


def unnamed(param: Tensor | tuple[str, Tensor]) -> Tensor:
    """The tensor of a parameter that a group has with its name, or without."""
    return param[1] if isinstance(param, tuple) else param


def common_defaults(members: Iterable[Optimizer]) -> dict[str, Any]:
    """The settings that all optimizers have, as the first has them.

    Schedulers cycle betas where there are any, and momentum otherwise: in all groups the same.
    """
    first, *others = [member.defaults for member in members]
    common = {key: value for key, value in first.items() if all(key in d for d in others)}
    if "betas" not in common and any("betas" in d for d in (first, *others)):
        common.pop("momentum", None)
    return common


def undecorated_step(member: Optimizer) -> Callable[..., Any]:
    """The step of a class without torch's hooks, which run around the whole."""
    step: Any = type(member).step
    return step.__wrapped__ if getattr(step, "__code__", None) is _HOOKED else step  # type: ignore[no-any-return]
