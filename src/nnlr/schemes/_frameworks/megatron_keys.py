"""Keys of Megatron's overrides: which parameters one is for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Indices, Selector
from nnlr._text import shown

Test = Callable[..., bool]


@runtime_checkable
class KeyLike(Protocol):
    """What this module's ``ParamKey`` and Megatron's own have in common."""

    def matches(self, param: Tensor, param_name: str) -> bool:
        """Whether a parameter is meant."""


@dataclass(frozen=True, slots=True)
class ParamKey:
    """Which parameters an override is for: those for which any of its parts says so.

    The same arguments as Megatron's, whose own objects are taken as well.

    Attributes:
        name: Pattern or patterns over the whole name; ``*`` crosses dots.
        attr: Attribute or attributes of the parameter that must be true.
        predicate: Function or functions of the parameter.
        with_name_predicate: The same, of the parameter and its name.

    Examples:
        >>> import torch
        >>> key = ParamKey(name="*.bias", predicate=lambda param: param.ndim == 1)
        >>> key.matches(torch.zeros(2, 2), "fc.weight"), key.matches(torch.zeros(2), "scale")
        (False, True)
    """

    name: str | tuple[str, ...] = ()
    attr: str | tuple[str, ...] = ()
    predicate: Test | tuple[Test, ...] = ()
    with_name_predicate: Test | tuple[Test, ...] = ()

    def matches(self, param: Tensor, param_name: str) -> bool:
        """Whether a parameter is meant."""
        return (
            any(fnmatchcase(param_name, pattern) for pattern in _many(self.name))
            or any(getattr(param, attr, False) for attr in _many(self.attr))
            or any(test(param) for test in _many(self.predicate))
            or any(test(param, param_name) for test in _many(self.with_name_predicate))
        )

    def __repr__(self) -> str:
        """The call that makes it, with functions by their names."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = [
            f"{name}={getattr(value, '__name__', None) or shown(value)}"
            for name, value in values.items()
            if value != ()
        ]
        return f"ParamKey({', '.join(parts)})"


def _many(value: object) -> Iterable[Any]:
    """A sequence as it is; one value in a tuple."""
    return value if isinstance(value, tuple | list) else (value,)


def vector(param: Tensor) -> bool:
    """Whether a parameter has one axis."""
    return len(param.shape) == 1


def vector_but_not_qk_layernorm(param: Tensor, name: str) -> bool:
    """Whether it is a vector or a bias, and not of the norm of queries or keys."""
    return (vector(param) or name.endswith(".bias")) and not of_qk_layernorm(name)


def of_qk_layernorm(name: str) -> bool:
    """Whether a name is of the norm of queries or keys."""
    return "q_layernorm." in name or "k_layernorm." in name


class Tables(Selector):
    """Embedding and output layers, as marked by Megatron, else by role."""

    def matches(self, model: ModelInfo) -> Indices:
        mark = "is_embedding_or_output_parameter"
        marked = [
            i for i, (slot, *_) in enumerate(model.places) if getattr(slot.tensor, mark, False)
        ]
        by_role = [i for i, param in enumerate(model.params) if param.role in {"embedding", "head"}]
        return frozenset(marked or by_role)

    def __repr__(self) -> str:
        return "embedding and output layers"


@dataclass(frozen=True)
class Width(Selector):
    """What muP scales in Megatron: vectors and embeddings, or the matrices that are left."""

    vectors: bool
    decoupled: bool  # leave embedding and output layers out, which have a rate of their own

    def matches(self, model: ModelInfo) -> Indices:
        """The positions of these parameters."""
        left_out = Tables().matches(model) if self.decoupled else frozenset()
        pairs = enumerate(zip(model.params, model.places, strict=True))
        alike = {
            at
            for at, (param, (slot, *_)) in pairs
            if self.vectors == (len(param.shape) <= 1 or _is_embedding(slot.tensor, param.name))
        }
        return frozenset(alike - left_out)

    def __repr__(self) -> str:
        return "vectors and embeddings" if self.vectors else "matrices"


def _is_embedding(param: Tensor, name: str) -> bool:
    """Whether it is an embedding: by Megatron's marks, else by its name."""
    if getattr(param, "shared_embedding", False):
        return True
    return bool(getattr(param, "is_embedding_parameter", "embedding" in name.lower()))
