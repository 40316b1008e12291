"""``sgd``: Torch7's step on one vector, with a rate and a decay per element."""

import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from nnlr._arguments import function, number
from nnlr._text import nearest_hint, shown
from nnlr.errors import ConfigError, NnlrError

__all__ = ["sgd"]

_STATE = ("eval_counter", "momentum_buffer")


def sgd(
    opfunc: Callable[[Tensor], tuple[Any, Tensor]],
    x: Tensor,
    config: MutableMapping[str, Any] | None = None,
    state: MutableMapping[str, Any] | None = None,
) -> tuple[Tensor, list[Any]]:
    r"""Do one step of Torch7's ``optim.sgd``, in place on ``x``.

    With :math:`g = \partial f/\partial x`, and :math:`t` steps done before this one:

    .. math::

        g &\leftarrow g + \lambda \odot x \\
        v &\leftarrow g \;\text{(first step)}, \quad
        v \leftarrow \mu v + (1 - \tau) g \;\text{(later)} \\
        u &= g + \mu v \;\text{(nesterov)}, \quad u = v \;\text{(else)} \\
        x &\leftarrow x - \frac{\eta}{1 + t \delta} \; r \odot u

    Decay is part of the gradient before momentum (it is not decoupled), and without
    momentum :math:`u = g`. An element with rate 0 does not move, but its momentum
    keeps accumulating.

    Args:
        opfunc: Called once with ``x``; returns ``(loss, gradient)``. The gradient has
            ``x``'s shape, device and dtype, and is not changed here.
        x: The parameters; usually ``flat`` of :func:`get_parameters`, but any shape.
        config: The settings below, all optional; None stands for the default.

            - ``learning_rate`` (:math:`\eta`, >= 0): 1e-3. Beside ``learning_rates``,
              which are absolute, it is a schedule factor: 1.
            - ``learning_rate_decay`` (:math:`\delta`, >= 0, per step): 0.
            - ``weight_decay`` (:math:`\lambda`, >= 0): 0.
            - ``momentum`` (:math:`\mu`, >= 0): 0.
            - ``dampening`` (:math:`\tau`, >= 0): the value of ``momentum``, unlike
              torch's 0.
            - ``nesterov`` (bool): False. Needs ``momentum`` > 0 and ``dampening`` 0.
            - ``learning_rates`` (:math:`r`): a tensor of ``x``'s shape, instead of 1.
            - ``weight_decays`` (:math:`\lambda`): a tensor of ``x``'s shape.
        state: Where ``eval_counter`` (an int) and ``momentum_buffer`` (a tensor like
            ``x``) are kept between calls; ``config`` itself if not given. A new config
            for each call, without ``state``, therefore never has any momentum or
            learning rate decay: make it once, outside the loop. Both values can be
            saved with ``torch.save``; training then resumes exactly.

    Returns:
        ``(x, [loss])``: the tensor that was passed, and the loss before the step,
        without its graph.

    Raises:
        NnlrError: If a setting is unknown or out of range, two settings contradict
            each other, a vector does not fit ``x`` or (checked at the first step) is
            negative or not finite, the state belongs to another ``x``, or ``opfunc``
            returns something else. ``x`` and the state are then unchanged.

    Examples:
        >>> x = torch.tensor([1.0, 1.0])
        >>> rates = torch.tensor([0.1, 0.0])
        >>> config = {"learning_rates": rates, "momentum": 0.9}
        >>> for _ in range(2):
        ...     x, losses = sgd(lambda x: (x.square().sum(), 2 * x), x, config)
        >>> x
        tensor([0.6040, 1.0000])
        >>> config["eval_counter"]
        2

    References:
        Torch7, `optim.sgd <https://github.com/torch/optim/blob/master/sgd.lua>`_.
    """
    config = {} if config is None else config
    state = config if state is None else state
    _check_arguments(config, state, x)
    function(opfunc, "opfunc", "def opfunc(x): return loss, flat_grad")
    settings = _read_settings(config)
    steps, buffer = _read_state(state, x)
    for key in ("learning_rates", "weight_decays"):
        if (vector := getattr(settings, key)) is not None:
            # Checking the values makes a GPU wait, so only at the first step.
            _check_vector(key, vector, x, check_values=steps == 0)

    with torch.enable_grad():
        loss, gradient = _evaluate(opfunc, x)
    with torch.no_grad():
        update = gradient
        if settings.weight_decays is not None:
            # A vector of higher precision would widen the sum.
            update = torch.addcmul(gradient, settings.weight_decays, x).to(x.dtype)
        elif settings.weight_decay:
            update = torch.add(gradient, x, alpha=settings.weight_decay)
        if settings.momentum:
            if buffer is None:
                buffer = update.clone() if update is gradient else update
            else:
                buffer.mul_(settings.momentum)
                buffer.add_(update, alpha=1 - settings.dampening)
            state["momentum_buffer"] = buffer
            if settings.nesterov:
                update = torch.add(update, buffer, alpha=settings.momentum)
            else:
                update = buffer
        rate = settings.learning_rate / (1 + steps * settings.learning_rate_decay)
        if settings.learning_rates is None:
            x.add_(update, alpha=-rate)
        else:
            x.addcmul_(settings.learning_rates, update, value=-rate)
    state["eval_counter"] = steps + 1
    return x, [loss.detach() if isinstance(loss, Tensor) else loss]


@dataclass(frozen=True, slots=True)
class _Settings:
    """A config with its defaults filled in; the names are the config's own."""

    learning_rate: float
    learning_rate_decay: float
    weight_decay: float
    momentum: float
    dampening: float
    nesterov: bool
    learning_rates: Tensor | None
    weight_decays: Tensor | None


_SETTINGS = tuple(field.name for field in fields(_Settings))


def _read_settings(config: Mapping[str, Any]) -> _Settings:
    """Check a config and fill in its defaults."""
    for key in config:
        if key not in _SETTINGS and key not in _STATE:
            raise ConfigError(
                f"sgd does not know the setting {shown(key)}. {_spelling(key)} It knows "
                f"{', '.join(_SETTINGS)}.",
                key=key,
            )
    values = {key: config[key] for key in _SETTINGS if config.get(key) is not None}

    def read(key: str, default: float) -> float:
        return number(values.get(key, default), key)

    nesterov = values.get("nesterov", False)
    if not isinstance(nesterov, bool):
        raise ConfigError(f"nesterov must be True or False, got {shown(nesterov)}.")
    momentum = read("momentum", 0.0)
    settings = _Settings(
        learning_rate=read("learning_rate", 1.0 if "learning_rates" in values else 1e-3),
        learning_rate_decay=read("learning_rate_decay", 0.0),
        weight_decay=read("weight_decay", 0.0),
        momentum=momentum,
        dampening=read("dampening", momentum),
        nesterov=nesterov,
        learning_rates=values.get("learning_rates"),
        weight_decays=values.get("weight_decays"),
    )
    if nesterov and (not momentum or settings.dampening):
        raise ConfigError(
            "nesterov needs momentum > 0 and dampening 0, got "
            f"momentum={momentum:g} and dampening={settings.dampening:g}. Dampening is "
            "the momentum unless given: pass dampening=0."
        )
    if settings.weight_decay and settings.weight_decays is not None:
        raise ConfigError(
            f"weight_decay={settings.weight_decay:g} beside weight_decays would be "
            "ignored: the vector already holds every element's decay. Drop one of them."
        )
    return settings


def _spelling(key: object) -> str:
    """Return a hint for an unknown key, first of all for Torch7's own spelling."""
    if not isinstance(key, str):
        return "Keys are strings."
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
    if snake in _SETTINGS or snake in _STATE:
        return f"Torch7's {key!r} is {snake!r} here."
    if key == "lr":
        return "Torch's 'lr' is 'learning_rate' here."
    return nearest_hint(snake, _SETTINGS)


def _check_arguments(config: object, state: object, x: object) -> None:
    """Refuse a config or state that is no dict, and parameters that are no dense floats."""
    for what, value in (("config", config), ("state", state)):
        if not isinstance(value, MutableMapping):
            raise NnlrError(
                f"{what} of sgd must be a dict, which it also writes to, got "
                f"{shown(value, typed=True)}."
            )
    if not isinstance(x, Tensor):
        raise NnlrError(
            f"x of sgd must be a tensor, got {type(x).__name__}. Flatten a module with "
            "flat, flat_grad = nnlr.torch7.get_parameters(module)."
        )
    if x.is_meta:
        raise NnlrError("x of sgd is on the meta device and has no values.")
    if x.is_inference() and not torch.is_inference_mode_enabled():
        raise NnlrError(
            "x of sgd was made in torch.inference_mode() and cannot be changed in place: make it "
            "outside, or clone it."
        )
    strides = x.stride() if x.layout is torch.strided else x.shape
    if any(step == 0 and size > 1 for size, step in zip(x.shape, strides, strict=True)):
        raise NnlrError("x of sgd is expanded: several elements share one place. Clone it.")
    if x.layout is not torch.strided or not (x.is_floating_point() or x.is_complex()):
        raise NnlrError(
            "x of sgd must be a dense tensor of floating point numbers, got "
            f"{x.dtype} in layout {x.layout}."
        )


def _read_state(state: Mapping[str, Any], x: Tensor) -> tuple[int, Tensor | None]:
    """Return the number of steps done before this one, and the momentum buffer."""
    steps = state.get("eval_counter", 0)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 0 <= steps < 2**63:
        raise NnlrError(
            f"eval_counter counts the steps done: an int >= 0, got {shown(steps)}. Leave it "
            "out to start from step 0."
        )
    buffer = state.get("momentum_buffer")
    if buffer is not None and not isinstance(buffer, Tensor):
        raise NnlrError(
            f"momentum_buffer must be a tensor like x, got {shown(buffer)}. Leave it out to start "
            "without momentum."
        )
    if buffer is not None and _kind(buffer) != _kind(x):
        raise NnlrError(
            f"momentum_buffer is {_text(buffer)}, but x is {_text(x)}: the state belongs "
            "to another x. Pass a fresh state, or convert the buffer with .to(x)."
        )
    return steps, buffer


def _check_vector(key: str, vector: object, x: Tensor, *, check_values: bool) -> None:
    """Refuse a vector of rates or decays that does not fit ``x``."""
    if not isinstance(vector, Tensor):
        raise NnlrError(
            f"{key} must be a tensor of x's shape {tuple(x.shape)}, got "
            f"{type(vector).__name__}. For one value for all use {key[:-1]!r}."
        )
    if not vector.is_floating_point() or vector.layout is not torch.strided:
        raise NnlrError(
            f"{key} must be a dense tensor of real floating point numbers, got "
            f"{vector.dtype} in layout {vector.layout}."
        )
    if (vector.shape, vector.device) != (x.shape, x.device):
        raise NnlrError(
            f"{key} is {_text(vector)}, but x is {_text(x)}: both need one shape and one "
            "device. plan.vectors() and get_parameters() of the same module agree."
        )
    if check_values and not bool((vector.isfinite() & (vector >= 0)).all()):
        raise NnlrError(f"{key} holds a value that is negative, infinite or NaN.")


def _evaluate(opfunc: Callable[[Tensor], tuple[Any, Tensor]], x: Tensor) -> tuple[Any, Tensor]:
    """Call the function, and check the loss and gradient that it returns."""
    result: object = opfunc(x)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise NnlrError(
            "opfunc must return (loss, gradient), got "
            f"{type(result).__name__}. End it with: return loss, flat_grad"
        )
    loss, gradient = result
    if not isinstance(gradient, Tensor):
        raise NnlrError(
            "opfunc must return (loss, gradient) with a tensor as gradient, got "
            f"{type(gradient).__name__}. End it with: return loss, flat_grad"
        )
    if gradient.layout is not torch.strided or _kind(gradient) != _kind(x):
        raise NnlrError(
            f"opfunc returned a gradient that is {_text(gradient)}, but x is {_text(x)}: "
            "the two must agree in shape, device and dtype, and be dense."
        )
    return loss, gradient


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.device, torch.dtype]:
    return tensor.shape, tensor.device, tensor.dtype


def _text(tensor: Tensor) -> str:
    layout = "" if tensor.layout is torch.strided else f" in layout {tensor.layout}"
    shape = tuple(tensor.shape)
    return f"of shape {shape}, {tensor.dtype} on {tensor.device}{layout}"
