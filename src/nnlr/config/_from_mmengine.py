"""An ``optim_wrapper`` of MMEngine as a recipe: base rates, scheme and optimizer at once."""

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch.optim import Optimizer

from nnlr._arguments import number
from nnlr._text import listed, nearest_hint, shown
from nnlr.config._at import root
from nnlr.config._classes import OPTIMIZERS, class_of
from nnlr.config._recipe import Recipe
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import mapping
from nnlr.schemes._frameworks.mmengine.mmengine import mmengine, short_name

# Of the optimizer of mmcv 1, in the same dict as its settings.
_NO_SETTINGS: Final = ("constructor", "paramwise_cfg", "_delete_")


def from_mmengine(optim_wrapper: Mapping[str, Any], *, strict: bool = True) -> Recipe:
    """The recipe of an ``optim_wrapper`` of MMEngine.

    Base rates that the dict leaves out are the defaults of the optimizer's class, as in MMEngine.
    What the trainer does with gradients is no part of a recipe: ``clip_grad``,
    ``accumulative_counts``, ``loss_scale``. Nor is ``param_scheduler``, which stands beside.

    Args:
        optim_wrapper: The dict, or the ``optimizer`` of mmcv 1, with its ``type``, ``lr``,
            ``weight_decay`` and other settings.
        strict: As for :func:`nnlr.mmengine`, which makes the scheme.

    Raises:
        ConfigError: If it has no optimizer or one that torch does not have, or as
            :func:`nnlr.mmengine`.

    Examples:
        >>> import torch
        >>> optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
        >>> recipe = from_mmengine(dict(optimizer=optimizer, paramwise_cfg=dict(bias_lr_mult=2)))
        >>> recipe.lr, recipe.weight_decay, recipe.scheme
        (0.001, 0.05, mmengine({'bias_lr_mult': 2}))
        >>> [group["lr"] for group in recipe.optimizer(torch.nn.Linear(2, 2)).param_groups]
        [0.001, 0.002]
    """
    if isinstance(optim_wrapper, str | Path):
        raise ConfigError(
            f"from_mmengine takes a configuration, got the text {shown(str(optim_wrapper))}. Read "
            "the file first: mmengine.Config.fromfile(path).optim_wrapper."
        )
    whole = mapping(optim_wrapper, "optim_wrapper")
    if "optim_wrapper" in whole:
        whole = mapping(whole["optim_wrapper"], "optim_wrapper")
    settings = mapping(whole.get("optimizer", whole), "optimizer")
    if "type" not in settings:
        raise ConfigError(
            "from_mmengine needs the whole optim_wrapper with its optimizer, such as "
            "{'optimizer': {'type': 'AdamW', 'lr': 1e-3}}, got one with "
            f"{listed(whole) or 'nothing'}. A paramwise_cfg alone is for nnlr.mmengine."
        )
    scheme = mmengine(optim_wrapper, strict=strict)
    kind = settings.pop("type")
    settings = {key: value for key, value in settings.items() if key not in _NO_SETTINGS}
    name = short_name(kind)
    if isinstance(kind, type) and issubclass(kind, Optimizer):
        cls: Any = kind
    elif name in OPTIMIZERS.names:
        cls = OPTIMIZERS.names[name]
    else:
        hint = nearest_hint(name, OPTIMIZERS.names)
        raise ConfigError(
            f"optimizer type {shown(kind)} is no class of torch.optim.{hint and f' {hint}'} Of "
            "another package, put the class itself there: "
            f"optim_wrapper['optimizer']['type'] = {name}.",
            key="type",
        )
    lr, weight_decay = (_rate(cls, settings, rate) for rate in ("lr", "weight_decay"))
    return Recipe(lr=lr, weight_decay=weight_decay, scheme=scheme, algorithms=_with(cls, settings))


def _rate(cls: type, settings: dict[str, Any], rate: str) -> float:
    """A base rate, taken out of the settings, or else the default of the class."""
    value = settings.pop(rate, None)
    parameter = inspect.signature(cls).parameters.get(rate)
    if value is None and parameter is not None:
        value = parameter.default
    if value is None or value is inspect.Parameter.empty:
        raise ConfigError(f"the optimizer needs {rate!r}: {cls.__name__} has no default.", key=rate)
    return number(value, rate)


def _with(cls: Any, settings: dict[str, Any]) -> Any:  # noqa: ANN401 - a class or a partial of it
    """A class with its settings, checked where it is torch's."""
    name = OPTIMIZERS.name_of(cls)
    if name is None:
        return partial(cls, **settings) if settings else cls
    data = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
    return class_of({"class": name, **data}, OPTIMIZERS, root("optimizer", ()))
