"""How much wider each parameter is than in a base model, and of what kind it is.

A dimension is *infinite* if it grows with the width of the model, else *finite* (a
vocabulary, the window of a convolution, the colours of a picture). A parameter with two
infinite dimensions is *hidden*; with one that a sum runs over, a *readout*; with one of
another kind, or none, *vector-like*: an embedding, an input layer, a bias, a gain.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._select.selector import Selector
from nnlr._select.suggestions import must_match
from nnlr.errors import NnlrError
from nnlr.schemes._width.base import Base, Mults

# Weights that map inputs to outputs; all other parameters are looked up, added, multiplied.
_WEIGHTS: Final = frozenset(["matrix", "conv", "head", "router", "lora_a", "lora_b"])

# Rows of a table are looked up: however many there are, no sum runs over them.
_TABLES: Final = frozenset(["embedding", "position"])


class Growth(NamedTuple):
    """How much a parameter has grown since the base."""

    mults: Mults  # for each dimension its size relative to the base, None where finite
    fan_in: int | None  # the axis that the layer sums over

    @property
    def infinite(self) -> tuple[float, ...]:
        """The growth of the infinite dimensions."""
        return tuple(mult for mult in self.mults if mult is not None)

    @property
    def kind(self) -> str:
        """``"hidden"``, ``"readout"`` or ``"vector-like"``."""
        if len(self.infinite) == 2:
            return "hidden"
        one = len(self.infinite) == 1
        return "readout" if one and self.width_in is not None else "vector-like"

    @property
    def width_in(self) -> float | None:
        """The growth of what it sums over, ``None`` if that is finite."""
        return None if self.fan_in is None else self.mults[self.fan_in]

    @property
    def width(self) -> float:
        """The growth that counts: of the fan-in, else of the last infinite dimension."""
        return self.width_in or next(reversed(self.infinite), 1.0)

    @property
    def width_out(self) -> float:
        """The growth of what a hidden weight gives out."""
        both = list(self.infinite)
        both.remove(self.width)
        return both[0]


FanIn = Mapping[Selector, int]

AnyFanIn = Mapping[str | Selector, int]


def growths(
    model: ModelInfo, base: Base, fan_in: FanIn, *, any_depth: bool = False
) -> list[Growth]:
    """The growth of every parameter."""
    axes = {}
    for selector, axis in fan_in.items():
        what = f"fan_in={{{selector!r}: {axis}}}"
        for index in must_match(selector, model, what, may_be_optional=False):
            param = model.params[index]
            if not 0 <= axis < param.ndim:
                raise NnlrError(
                    f"{what}: {param.name!r} has shape {param.shape}, whose axes are 0 to "
                    f"{param.ndim - 1}.",
                    name=param.name,
                )
            axes[index] = axis
    grown = []
    pairs = zip(model.params, base.mults(model, any_depth=any_depth), strict=True)
    for index, (param, of_shape) in enumerate(pairs):
        is_table = param.role in _TABLES and param.ndim == 2
        mults = (None, of_shape[1]) if is_table else of_shape
        count = sum(mult is not None for mult in mults)
        if count > 2:
            raise NnlrError(
                f"{param.name!r} {param.shape} differs from the base in {count} dimensions: of "
                "a parameter at most two are widths. Build the base with the same number of "
                "experts, heads' sizes or window, or pass delta= (a model in which only the "
                "widths differ from the base).",
                name=param.name,
            )
        fan_in_axis = axes[index] if index in axes else _summed_axis(param, mults)
        grown.append(Growth(mults, fan_in_axis))
    return grown


def _summed_axis(param: ParamInfo, mults: Mults) -> int | None:
    """The axis that a layer sums over, by the class of its owner and its shape."""
    infinite = [axis for axis, mult in enumerate(mults) if mult is not None]
    if param.role not in _WEIGHTS or param.ndim < 2:
        if len(infinite) > 1:
            raise NnlrError(
                f"{param.name!r} {param.shape}, a {param.role}, differs from the base in two "
                "dimensions, and only one of them can be a width. Pass delta= (a model in "
                "which only the widths differ from the base), or a base in which the other "
                "is the same.",
                name=param.name,
            )
        return None
    cls = param.owner_type or object
    if issubclass(cls, _ConvTransposeNd):
        # The weight, (in, out / groups, *window), shows the number of inputs of one group only
        # together with the fan-in; if it is the groups that grow, no sum gets longer.
        groups = 1
        if mults[0] is not None and mults[1] is None and param.fan_in is not None:
            groups = param.shape[0] * math.prod(param.shape[2:]) // param.fan_in
        return None if groups > 1 and groups % (mults[0] or 1) == 0 else 0
    if cls.__name__ == "Conv1D":
        return 0
    if param.ndim == 2 or issubclass(cls, _ConvNd):
        return 1
    if issubclass(cls, nn.Bilinear):
        return infinite[-1] if infinite and infinite[-1] else None
    # A stack of matrices, whose orientation nothing tells; either will do if both grew alike.
    if not infinite or len({mults[axis] for axis in infinite}) < len(infinite):
        return infinite[-1] if infinite else None
    raise NnlrError(
        f"{param.name!r} {param.shape} is a stack of matrices, and nothing tells which axis "
        f"is its input. Say so: fan_in={{{param.name!r}: {infinite[-1]}}}.",
        name=param.name,
    )
