"""What a width scheme compares a model with: a base model, its stored shapes, or widths."""

import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from nnlr._model.describe import ModelInfo, describe
from nnlr._model.names import nodes, resolve_name
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import NnlrError

Dims = tuple[int | None, ...]

Mults = tuple[float | None, ...]

# What the size of one attention head is called.
_HEAD_SIZES: Final = ("head_dim", "attention_head_size", "dim_head")

AnyBase = nn.Module | Mapping[Any, Any] | str | os.PathLike[str]


def shapes(base: AnyBase, delta: AnyBase | None = None) -> dict[str, list[int | None]]:
    """Base shapes to store, in the form ``mup`` writes: ``None`` for a finite dimension.

    Args:
        base: The base model (on the meta device will do), or its shapes.
        delta: The same model with every width changed; what is equal in both is finite.

    Returns:
        ``{name: dims}``, which JSON and YAML can hold. ``nnlr.mup`` and ``nnlr.complete_p``
        take it, or the path of a file with it, as ``base``.

    Examples:
        >>> shapes(nn.Linear(3, 8), nn.Linear(3, 16))
        {'weight': [8, None], 'bias': [8]}
    """
    return {name: list(dims) for name, dims in _read_both(base, delta).known.items()}


class YamlMissingError(NnlrError, ModuleNotFoundError):
    """A file of shapes is to be read, and PyYAML cannot be imported."""


class Base(ABC):
    """What a model is compared with.

    Attributes:
        spreads: Standard deviations of the base's own initial weights, where it has any.
        heads: Path of each attention module -> the size of its heads, where it is known.
    """

    spreads: Mapping[str, float] = MappingProxyType({})
    heads: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def mults(self, model: ModelInfo, *, any_depth: bool = False) -> list[Mults]:
        """For each parameter, how much each dimension has grown, ``None`` where finite.

        Args:
            model: The model.
            any_depth: Whether the model may have more blocks than the base, or fewer.
        """

    def outgrown(self, model: ModelInfo) -> list[str]:
        """Parameters of which a dimension said to be finite differs from the base."""
        return []


def as_base(base: object, delta: object = None) -> Base:
    """Understand what a user gave as the base of a width scheme."""
    widths = _as_widths(base)
    if delta is not None and (base is None or widths is not None):
        raise NnlrError(
            "delta says which dimensions of a base model grow: pass that model or its shapes "
            f"as base, not {shown(base)}."
        )
    if base is None:
        return _Marked()
    return _read_both(base, delta) if widths is None else _Widths(widths)


def _as_widths(base: object) -> dict[int, int] | None:
    """What a mapping says of widths; ``None`` if it is about something else."""
    if not isinstance(base, Mapping) or not any(isinstance(key, int) for key in base):
        return None
    for width, narrow in base.items():
        if None in {width, narrow} or not (_is_dim(width) and _is_dim(narrow)):
            raise NnlrError(
                "base={width: base width} maps whole numbers > 0, such as {1024: 256, "
                f"4096: 1024}}; got {shown(width)}: {shown(narrow)}."
            )
    return dict(base)


def _read_both(base: object, delta: object) -> "_Shapes":
    read = _read(base, "base")
    if delta is None:
        return read
    other = _read(delta, "delta")
    if apart := sorted(read.known.keys() ^ other.known.keys()):
        raise NnlrError(
            f"base and delta are not one model at two widths: only one of them has "
            f"{listed(apart)}.",
            names=apart,
        )
    known = {}
    for name, dims in read.known.items():
        also = other.known[name]
        if len(dims) != len(also):
            raise _unlike(name, dims, also, "delta")
        pairs = zip(dims, also, strict=True)
        known[name] = tuple(None if one == two else one for one, two in pairs)
    label = f"{read.label}, delta={other.label}"
    both = _Shapes(known, read.sizes, label, settled=True)
    both.spreads, both.heads = read.spreads, read.heads
    return both


def _read(source: object, what: str) -> "_Shapes":
    if isinstance(source, nn.Module):
        info = describe(source)
        dims: dict[str, Dims] = {name: param.shape for param in info.params for name in param.names}
        read = _Shapes(dims, dims, info.label, settled=False)
        read.spreads = {
            name: width
            for param, places in zip(info.params, info.places, strict=True)
            if (width := spread(places[0].tensor)) is not None
            for name in param.names
        }
        read.heads = {
            node.path: size
            for node in nodes(source)
            if (size := head_size(node.module)) is not None
        }
        return read
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        dims = _checked(_load(path, what), what)
        return _Shapes(dims, {}, repr(path), settled=True)
    if isinstance(source, Mapping) and source:
        dims = _checked(source, what)
        settled = any(None in each for each in dims.values())
        label = f"{{{plural(len(dims), 'shape')}}}"
        return _Shapes(dims, {} if settled else dims, label, settled=settled)
    raise NnlrError(
        f"{what} must be a model (on the meta device will do), {{name: shape}}, the path of "
        f"a file with shapes, or {{width: base width}}; got {shown(source, typed=True)}.",
        value=source,
    )


def _load(path: str, what: str) -> Mapping[Any, Any]:
    """The mapping that a file of shapes holds."""
    try:
        import yaml  # reads JSON as well
    except ModuleNotFoundError as error:
        raise YamlMissingError(
            f"{what}={path!r} is a file, and reading it needs PyYAML, which is not installed.\n"
            '  Fix: pip install "nnlr[cli]"'
        ) from error
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise NnlrError(f"{what}={path!r} cannot be read: {error}") from error
    if not isinstance(content, Mapping) or not content:
        raise NnlrError(f"{what}={path!r} holds no mapping of names to shapes.")
    return content


def _checked(given: Mapping[Any, Any], what: str) -> dict[str, Dims]:
    known = {}
    for name, dims in given.items():
        shape = getattr(dims, "shape", dims)  # a tensor will do
        good = isinstance(shape, Sequence) and not isinstance(shape, str)
        if not isinstance(name, str) or not good or not all(map(_is_dim, shape)):
            raise NnlrError(
                f"{what} must map names to shapes such as {{'fc.weight': (64, 3)}}, with None "
                f"for a finite dimension, but has {shown(name)}: {shown(dims)}."
            )
        known[name] = tuple(shape)
    return known


def _is_dim(dim: object) -> bool:
    whole = isinstance(dim, int) and not isinstance(dim, bool)
    return dim is None or (whole and dim > 0)  # type: ignore[operator]


def _unlike(name: str, base: Dims, dims: Dims, whose: str) -> NnlrError:
    return NnlrError(
        f"{name!r} has shape {base} in the base and {dims} in the {whose}: they are not one "
        "model at two widths.",
        name=name,
    )


def _grown(shape: Sequence[int], base: Dims) -> Mults:
    """The growth of each dimension; of a stored ``None``, none."""
    pairs = zip(shape, base, strict=True)
    return tuple(None if one is None else dim / one for dim, one in pairs)


class _Shapes(Base):
    """Shapes by name: of a base model, or stored.

    Args:
        known: For each name its dimensions, ``None`` for a finite one.
        sizes: The same with the sizes of finite dimensions, where these are known.
        label: How to show it.
        settled: Whether every number is an infinite dimension, grown or not; else only a
            dimension that differs from the model's is infinite.
    """

    def __init__(
        self,
        known: Mapping[str, Dims],
        sizes: Mapping[str, Dims],
        label: str,
        *,
        settled: bool,
    ) -> None:
        self.known = known
        self.sizes = sizes
        self.label = label
        self.settled = settled

    def mults(self, model: ModelInfo, *, any_depth: bool = False) -> list[Mults]:
        found = []
        names = self._names(model, any_depth=any_depth)
        for param, name in zip(model.params, names, strict=True):
            dims = self.known[name]
            if len(dims) != param.ndim:
                raise _unlike(param.name, dims, param.shape, "model")
            mults = _grown(param.shape, dims)
            if not self.settled:
                mults = tuple(None if mult == 1 else mult for mult in mults)
            found.append(mults)
        return found

    def outgrown(self, model: ModelInfo) -> list[str]:
        if not self.settled:
            return []
        return [
            param.name
            for param in model.params
            for name in param.names
            if name in self.sizes
            and any(
                one is None and size != dim
                for one, size, dim in zip(
                    self.known[name], self.sizes[name], param.shape, strict=True
                )
            )
        ]

    def _names(self, model: ModelInfo, *, any_depth: bool) -> list[str]:
        """The name that each parameter has in the base."""
        # Not the list, which would be searched from its start for every name.
        spelled = dict.fromkeys(model.spellings[0])
        theirs = {resolve_name(name, spelled) or name: name for name in self.known}
        if any_depth:
            theirs = self._at_any_depth(theirs, spelled)
        names = [
            next((theirs[name] for name in param.names if name in theirs), None)
            for param in model.params
        ]
        pairs = zip(model.params, names, strict=True)
        missing = [param.name for param, name in pairs if name is None]
        extra = sorted(theirs.keys() - spelled.keys())
        if missing or extra:
            raise self._apart(model, missing, extra)
        return [name for name in names if name is not None]

    def _at_any_depth(self, theirs: Mapping[str, str], spelled: Iterable[str]) -> dict[str, str]:
        """Names of the base for each name of a model with another number of blocks.

        Where the numbers in names differ, all blocks of the base must have one shape, which
        then goes for all blocks of the model.
        """
        ours, base = _by_stem(spelled), _by_stem(theirs)
        found = {name: theirs[name] for stem in base.keys() - ours for name in base[stem]}
        for stem, names in ours.items():
            blocks = base.get(stem, [])
            if set(names) == set(blocks):
                found |= {name: theirs[name] for name in names}
            elif len({self.known[theirs[block]] for block in blocks}) == 1:
                found |= dict.fromkeys(names, theirs[blocks[0]])
        return found

    def _apart(self, model: ModelInfo, missing: list[str], extra: list[str]) -> NnlrError:
        lines = [f"The base {self.label} is not {model.label} at another width:"]
        if missing:
            lines.append(
                f"  {plural(len(missing), 'parameter')} of the model without one in the base: "
                f"{listed(missing)}. {nearest_hint(missing[0], self.known)}".rstrip()
            )
        if extra:
            lines.append(
                f"  {plural(len(extra), 'parameter')} of the base that the model lacks: "
                f"{listed(extra)}."
            )
        lines.append(
            "  Build the base with the code and the options of the model, with its widths "
            "smaller; mup also needs the same number of blocks (complete_p scales depth)."
        )
        return NnlrError("\n".join(lines), missing=missing, extra=extra)

    def __repr__(self) -> str:
        return self.label


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Names that differ in numbers only."""
    stems: dict[str, list[str]] = defaultdict(list)
    for name in names:
        segments = name.split(".")
        stems[".".join("*" if s.isdigit() else s for s in segments)].append(name)
    return stems


class _Widths(Base):
    """Sizes that are widths, and what each of them is in the base."""

    def __init__(self, widths: dict[int, int]) -> None:
        self.widths = widths

    def mults(self, model: ModelInfo, *, any_depth: bool = False) -> list[Mults]:
        sizes = {size for param in model.params for size in param.shape}
        if absent := self.widths.keys() - sizes:
            raise NnlrError(
                f"base={self!r} maps widths of the model to widths of the base, and no "
                f"parameter of {model.label} has a dimension of "
                f"{listed(map(str, sorted(absent)))}.",
                absent=absent,
            )
        grown = {width: width / base for width, base in self.widths.items()}
        return [tuple(map(grown.get, param.shape)) for param in model.params]

    def __repr__(self) -> str:
        return repr(self.widths)


class _Marked(Base):
    """What ``mup.set_base_shapes`` has left on the parameters."""

    def mults(self, model: ModelInfo, *, any_depth: bool = False) -> list[Mults]:
        found = [base_dims(places[0].tensor) for places in model.places]
        pairs = list(zip(model.params, found, strict=True))
        if bare := [param.name for param, dims in pairs if dims is None]:
            raise NnlrError(
                "Without a base, what mup.set_base_shapes has left on the parameters counts, "
                f"and {listed(bare)} of {model.label} carry nothing. Pass a base: "
                "mup(base=small_model).",
                names=bare,
            )
        return [_grown(param.shape, dims or ()) for param, dims in pairs]

    def __repr__(self) -> str:
        return "None"


def base_dims(tensor: object) -> Dims | None:
    """The base dimensions that mup has attached to a tensor, if it has."""
    marked = getattr(tensor, "infshape", None)
    if not isinstance(marked, tuple):
        return None
    return tuple(getattr(dim, "base_dim", None) for dim in marked)


def head_size(module: nn.Module) -> int | None:
    """The size of one head of an attention module, by the names most models use for it."""
    sizes = (getattr(module, name, None) for name in _HEAD_SIZES)
    return next((size for size in sizes if type(size) is int), None)


@torch.no_grad()
def spread(tensor: Tensor) -> float | None:
    """The standard deviation of a tensor's values, where it has any to look at."""
    plain = type(tensor) in {Tensor, nn.Parameter} and tensor.is_floating_point()
    if not plain or tensor.is_meta or tensor.numel() < 2:
        return None
    return tensor.float().std().item()
