"""What detectron2's configurations say of rates, as arguments of ``detectron2``.

A LazyConfig calls ``get_default_optimizer_params`` in its ``optimizer``; older configurations have
a section ``SOLVER``, to which MaskFormer and what is built on it add ``WEIGHT_DECAY_EMBED`` and
``BACKBONE_MULTIPLIER``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from nnlr._arguments import number
from nnlr._text import shown
from nnlr.depth._layer import Layer
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import Watch, key_hint, like_mapping, mapping

_FUNCTION: Final = "get_default_optimizer_params"

# Its arguments that are arguments of the scheme, and the others.
_ARGUMENTS: Final = (
    *("weight_decay_norm", "bias_lr_factor", "weight_decay_bias"),
    *("lr_factor_func", "overrides"),
)
_OTHERS: Final = ("_target_", "model", "base_lr", "weight_decay")

# Sections of the older configurations: the argument, and what detectron2 has for it.
_SOLVER: Final[Mapping[str, tuple[str, float | None]]] = {
    "WEIGHT_DECAY_NORM": ("weight_decay_norm", 0.0),
    "BIAS_LR_FACTOR": ("bias_lr_factor", 1.0),
    "WEIGHT_DECAY_BIAS": ("weight_decay_bias", None),
}

# Parameters that MaskFormer's builder does not decay, by their own names on their modules.
_UNDECAYED: Final = ("relative_position_bias_table", "absolute_pos_embed")

# What overrides of detectron2's configurations are for; few models have all of them.
KNOWN_LEAVES: Final = frozenset({"pos_embed", "rel_pos_h", "rel_pos_w", *_UNDECAYED})


@dataclass(frozen=True)
class BackboneFactor:
    """A factor on the rates of every module with ``backbone`` in its path, as in MaskFormer."""

    factor: float

    def __call__(self, name: str) -> float:
        """The factor of the parameter of this name."""
        return self.factor if "backbone" in name.rpartition(".")[0] else 1.0


def read(config: object, watch: Watch) -> dict[str, Any]:
    """The arguments of ``detectron2`` in a configuration, whole or the part about the optimizer."""
    settings = mapping(config, "a detectron2 configuration")
    for key, part in (("SOLVER", _of_solver), ("optimizer", _of_optimizer)):
        if key in settings:
            return part(mapping(settings[key], key), watch)
    is_solver = any(key.isupper() for key in settings)
    return (_of_solver if is_solver else _of_optimizer)(settings, watch)


def _of_solver(solver: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """The arguments in a section ``SOLVER``."""
    read_keys = [*_SOLVER, "WEIGHT_DECAY_EMBED", "BACKBONE_MULTIPLIER"]
    rates = [key for key in solver if "DECAY" in key or "FACTOR" in key or "MULT" in key]
    warm_up = {"WEIGHT_DECAY", "WARMUP_FACTOR", "RESCALE_INTERVAL"}
    watch.misspelt_keys([key for key in rates if key not in warm_up], read_keys, "SOLVER")
    if "WEIGHT_DECAY_EMBED" in solver:
        return {
            "weight_decay_norm": solver.get("WEIGHT_DECAY_NORM", 0.0),
            "weight_decay_embed": solver["WEIGHT_DECAY_EMBED"],
            "lr_factor_func": BackboneFactor(
                number(solver.get("BACKBONE_MULTIPLIER", 0.1), "BACKBONE_MULTIPLIER")
            ),
            "overrides": {leaf: {"weight_decay": 0.0} for leaf in _UNDECAYED},
        }
    factor = solver.get("BACKBONE_MULTIPLIER", 1)
    if factor != 1:
        raise ConfigError(
            f"SOLVER has BACKBONE_MULTIPLIER={shown(factor)} and no WEIGHT_DECAY_EMBED: detectron2 "
            "itself reads neither, and the projects that do differ.\n"
            "  Of MaskFormer pass cfg.SOLVER with its defaults; else drop the key and multiply: "
            f"nnlr.detectron2(...) * nnlr.rule('*backbone*', lr_mult={shown(factor)}).",
            key="BACKBONE_MULTIPLIER",
        )
    return {name: solver.get(key, default) for key, (name, default) in _SOLVER.items()}


def _of_optimizer(optimizer: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """The arguments in the node ``optimizer``, or in its ``params`` alone."""
    params = optimizer.get("params", optimizer)
    if not like_mapping(params):
        raise ConfigError(
            f"params of the optimizer must be the call of {_FUNCTION}, got {shown(params)}."
        )
    settings = mapping(params, "params of the optimizer")
    target = settings.get("_target_", _FUNCTION)
    name = target if isinstance(target, str) else getattr(target, "__qualname__", shown(target))
    if name.rpartition(".")[2] != _FUNCTION:
        raise ConfigError(
            f"params of the optimizer call {name}, and only {_FUNCTION} is known. Write its rules: "
            "nnlr.rule, or nnlr.detectron2(lr_factor_func=...)."
        )
    if unread := [key for key in settings if key not in {*_ARGUMENTS, *_OTHERS}]:
        hint = key_hint(unread[0], _ARGUMENTS)
        raise ConfigError(f"{_FUNCTION} has no argument {unread[0]!r}. {hint}", key=unread[0])
    for own, outer in (("base_lr", "lr"), ("weight_decay", "weight_decay")):
        value, base = settings.get(own), optimizer.get(outer)
        is_other = optimizer is not params and isinstance(value, float | int) and base is not None
        if is_other and value != base:
            cause = (
                f"{own}={shown(value)} of params replaces {outer}={shown(base)} of the optimizer"
            )
            fix = f"Let them agree, and pass that to resolve as {outer}."
            watch.refuse("overridden-key", own, cause, fix)
    return {key: settings[key] for key in _ARGUMENTS if key in settings}


def vit_layer(function: Callable[[str], float] | None, name: str) -> Layer | None:
    """The layer by detectron2's ``get_vit_lr_decay_rate``, if that is what the function is."""
    keywords = vit_decay(function)
    if function is None or keywords is None:
        return None
    last = keywords["num_layers"] + 1
    depth = last
    if name.startswith("backbone"):
        if ".pos_embed" in name or ".patch_embed" in name:
            depth = 0
        elif ".blocks." in name and ".residual." not in name:
            number = re.search(r"\.blocks\.(\d+)", name)
            depth = int(number[1]) + 1 if number else last
    # A function of the same name in another repository may number otherwise.
    same = depth <= last and function(name) == keywords["lr_decay_rate"] ** (last - depth)
    return Layer(depth, last, part="head" if depth == last else "block") if same else None


def vit_decay(function: object) -> dict[str, Any] | None:
    """The rate and the number of blocks of a partial ``get_vit_lr_decay_rate``."""
    if not isinstance(function, partial):
        return None
    if getattr(function.func, "__name__", "") != "get_vit_lr_decay_rate":
        return None
    return {"lr_decay_rate": 1.0, "num_layers": 12, **function.keywords}
