"""What Megatron's ``OptimizerConfig`` and ``overrides_config`` say, for ``megatron``."""

from collections.abc import Mapping
from math import isclose
from typing import Any, Final, TypeGuard

from nnlr._arguments import flag, number, word
from nnlr._findings import note
from nnlr._text import nearest_hint, shown
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import Watch, like_mapping, mapping

_PARTS: Final = ("optimizers", "default", "matchers")

# How overrides name the group of a recipe that a parameter is in; two groups clash.
TARGET: Final = "param_group"


def is_config(value: object) -> bool:
    """Whether it is an ``OptimizerConfig``, or the arguments of the command line."""
    return all(hasattr(value, name) for name in ("lr", "decoupled_lr", "optimizer"))


def read_config(config: Any) -> dict[str, Any]:  # noqa: ANN401 - an object of Megatron's
    """The arguments in an ``OptimizerConfig``."""
    names = ("lr", "min_lr", "decoupled_lr", "decoupled_min_lr")
    values = {name: getattr(config, name, None) for name in names}
    rates = [None if value is None else number(value, name) for name, value in values.items()]
    base, base_floor, decoupled, floor = rates
    # A floor in proportion is that of the schedule.
    if base and base_floor is not None and decoupled and floor is not None:
        in_proportion = isclose(floor / decoupled, base_floor / base, rel_tol=1e-9)
        floor = None if in_proportion else floor
    return {
        "config_overrides": getattr(config, "overrides_config", None),
        "apply_wd_to_qk_layernorm": getattr(config, "apply_wd_to_qk_layernorm", False),
        "decoupled_lr": decoupled,
        "decoupled_min_lr": floor,
        "optimizer": config.optimizer,
    }


def is_recipe(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether it has a part of an ``overrides_config``, which no parameter is called."""
    return isinstance(value, Mapping) and not value.keys().isdisjoint(_PARTS)


def read_recipe(recipe: Mapping[str, Any], watch: Watch) -> tuple[dict[str, Any], dict[str, Any]]:
    """The overrides of an ``overrides_config`` by patterns, and that of all other parameters."""
    recipe = _fields(recipe, "overrides_config", _PARTS)
    for part in _PARTS[:2]:
        if part not in recipe:
            raise ConfigError(f"overrides_config needs {part!r}.", key=part)
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for name, item in mapping(recipe["optimizers"], "optimizers").items():
        what = f"optimizer {name!r}"
        optimizer = _fields(item, what, ("type", "kwargs", "param_groups"))
        if optimizer.get("kwargs"):
            cause = f"the kwargs of {what} are for its class: {shown(optimizer['kwargs'])}"
            fix = "Pass functools.partial(cls, ...) to plan.optimizer."
            watch.noted.append(note("optimizer-kwargs", (), cause, fix))
        for group, settings in mapping(optimizer.get("param_groups"), f"groups of {what}").items():
            of_group = mapping(settings, f"param_group {group!r} of {what}")
            groups[name, group] = {TARGET: f"{name}.{group}", "optimizer": name, **of_group}

    def target(item: Mapping[str, Any], what: str) -> dict[str, Any]:
        key = str(item.get("optimizer")), str(item.get("param_group"))
        if key not in groups:
            names = [".".join(names) for names in groups]
            hint = nearest_hint(".".join(key), names) or f"Groups: {', '.join(names)}."
            raise ConfigError(f"{what} is for no group of an optimizer: {'.'.join(key)}. {hint}")
        return groups[key]

    overrides = {}
    for name, item in mapping(recipe.get("matchers", {}), "matchers").items():
        what = f"matcher {name!r}"
        matcher = _fields(item, what, ("type", "pattern", "optimizer", "param_group", "enabled"))
        if not flag(matcher.get("enabled", False), f"enabled of {what}"):
            continue
        if matcher.get("type") != "glob":
            raise ConfigError(f"type of {what} must be 'glob', got {shown(matcher.get('type'))}.")
        pattern = word(matcher.get("pattern"), f"pattern of {what}")
        if pattern in overrides:
            raise ConfigError(f"{what} has the pattern of an earlier one: {pattern!r}.")
        overrides[pattern] = target(matcher, what)
    default = _fields(recipe["default"], "default", ("optimizer", "param_group"))
    return overrides, target(default, "default")


def _fields(item: object, what: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """A part of a recipe with none but these fields."""
    if not like_mapping(item) and hasattr(item, "__dict__"):  # as the command line has it
        item = vars(item)
    settings = mapping(item, what)
    if strays := [key for key in settings if key not in fields]:
        hint = nearest_hint(strays[0], fields) or f"Known: {', '.join(fields)}."
        raise ConfigError(f"{what} has the field {strays[0]!r}. {hint}", key=strays[0])
    return settings
