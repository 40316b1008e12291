"""What a width scheme compares a model with: a base model, its stored shapes, or widths."""

import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from nnlr._model.describe import ModelInfo, describe
from nnlr._model.names import nodes, resolve_name
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import NnlrError

Dims = tuple[int | None, ...]

Mults = tuple[float | None, ...]

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
    return {name: list(dims) for name, dims in _read_both(base, delta).dims.items()}


class YamlMissingError(NnlrError, ModuleNotFoundError):
    """A file of shapes is to be read, and PyYAML cannot be imported."""


class Base(ABC):
    """What a model is compared with."""

    # Of a base model: the standard deviations of its own initial weights, by name, and the
    # sizes of heads by the paths of attention modules.
    spreads: Mapping[str, float] = MappingProxyType({})
    heads: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def mults(self, model: ModelInfo, *, any_depth: bool = False) -> list[Mults]:
        """For each parameter, how much each dimension has grown, ``None`` where finite.

        With ``any_depth`` the model may have more blocks than the base, or fewer.
        """

    def outgrown(self, model: ModelInfo) -> list[str]:
        """Parameters of which a finite dimension differs from the base."""
        return []

    @abstractmethod
    def written_as(self) -> object:
        """The argument that stands for it, if it is data; else itself."""


def as_base(base: object, delta: object = None) -> Base:
    """Return the base that a user gave to a width scheme."""
    widths = _as_widths(base)
    if delta is not None and (base is None or widths is not None):
        raise NnlrError(
            "delta says which dimensions of a base model grow: pass that model or its shapes "
            f"as base, not {shown(base)}."
        )
    if base is None:
        return _Marked()
    if widths is None:
        return _read_both(base, delta)
    for width, narrow in widths.items():
        if any(size is None or not _is_dim(size) for size in (width, narrow)):
            raise NnlrError(
                "base={width: base width} maps whole numbers > 0, such as {1024: 256, "
                f"4096: 1024}}; got {shown(width)}: {shown(narrow)}."
            )
    return _Widths(dict(widths))


def _as_widths(base: object) -> Mapping[Any, Any] | None:
    """The mapping of widths that a base is, if it is one; JSON has their numbers as text."""
    if not isinstance(base, Mapping):
        return None
    of_json = all(isinstance(key, str) and key.isdecimal() for key in base)
    if of_json and all(isinstance(size, int) for size in base.values()):
        base = {int(key): size for key, size in base.items()}
    return base if any(isinstance(key, int) for key in base) else None


def _read_both(base: object, delta: object) -> "_Shapes":
    """The shapes of a base, with what is equal in the delta marked as finite."""
    read = _read(base, "base")
    if delta is None:
        return read
    other = _read(delta, "delta")
    if apart := sorted(read.dims.keys() ^ other.dims.keys()):
        raise NnlrError(
            f"base and delta are not one model at two widths: only one of them has "
            f"{listed(apart)}.",
            names=apart,
        )
    dims: dict[str, Dims] = {}
    for name, narrow in read.dims.items():
        wide = other.dims[name]
        if len(narrow) != len(wide):
            raise _unlike(name, narrow, wide, "delta")
        pairs = zip(narrow, wide, strict=True)
        dims[name] = tuple(None if one == two else one for one, two in pairs)
    # Without a finite dimension the shapes alone would not tell that they are settled.
    tells = any(None in shape for shape in dims.values())
    source = dims if tells and read.source is not None and other.source is not None else None
    label = f"{read.label}, delta={other.label}"
    return replace(read, dims=dims, label=label, settled=True, source=source)


def _read(source: object, what: str) -> "_Shapes":
    """The shapes of a model, a file or a mapping."""
    if isinstance(source, nn.Module):
        info = describe(source)
        dims: dict[str, Dims] = {name: param.shape for param in info.params for name in param.names}
        spreads = {
            name: width
            for param, places in zip(info.params, info.places, strict=True)
            if (width := spread(places[0].tensor)) is not None
            for name in param.names
        }
        sizes = {node.path: head_size(node.module) for node in nodes(source)}
        heads = {path: size for path, size in sizes.items() if size is not None}
        return _Shapes(dims, dims, info.label, settled=False, spreads=spreads, heads=heads)
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        dims = _checked(_load(path, what), what)
        return _Shapes(dims, {}, repr(path), settled=True, source=path)
    if isinstance(source, Mapping) and source:
        dims = _checked(source, what)
        settled = any(None in shape for shape in dims.values())
        label = f"{{{plural(len(dims), 'shape')}}}"
        return _Shapes(dims, {} if settled else dims, label, settled=settled, source=dims)
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


def _checked(shapes: Mapping[Any, Any], what: str) -> dict[str, Dims]:
    """The shapes that a user wrote or stored, checked."""
    checked = {}
    for name, dims in shapes.items():
        shape = getattr(dims, "shape", dims)  # a tensor will do
        is_list = isinstance(shape, Sequence) and not isinstance(shape, str)
        if not isinstance(name, str) or not is_list or not all(map(_is_dim, shape)):
            raise NnlrError(
                f"{what} must map names to shapes such as {{'fc.weight': (64, 3)}}, with None "
                f"for a finite dimension, but has {shown(name)}: {shown(dims)}."
            )
        checked[name] = tuple(shape)
    return checked


def _is_dim(dim: object) -> bool:
    """Whether it is a whole number > 0, or ``None``."""
    return dim is None or (isinstance(dim, int) and not isinstance(dim, bool) and dim > 0)


def _unlike(name: str, base: Dims, dims: Dims, whose: str) -> NnlrError:
    """The error about a parameter with more axes in one model than in the other."""
    return NnlrError(
        f"{name!r} has shape {base} in the base and {dims} in the {whose}: they are not one "
        "model at two widths.",
        name=name,
    )


def _grown(shape: Sequence[int], base: Dims) -> Mults:
    """The growth of each dimension; of a stored ``None``, none."""
    pairs = zip(shape, base, strict=True)
    return tuple(None if one is None else dim / one for dim, one in pairs)


@dataclass(repr=False, eq=False)
class _Shapes(Base):
    """Shapes by name: of a base model, or stored."""

    dims: Mapping[str, Dims]  # None for a finite dimension
    sizes: Mapping[str, Dims]  # the same with the sizes of finite dimensions, where a base has them
    label: str
    _: KW_ONLY
    # Whether every number is an infinite dimension, grown or not; else only a dimension that
    # differs from the model's is infinite.
    settled: bool
    spreads: Mapping[str, float] = field(default_factory=dict)
    heads: Mapping[str, int] = field(default_factory=dict)
    source: object = None  # what a user wrote, where that is data

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle; version 0.1 called ``dims`` otherwise."""
        self.__dict__.update({"dims" if name == "known" else name: state[name] for name in state})

    def mults(self, model: ModelInfo, *, any_depth: bool = False) -> list[Mults]:
        mults = []
        names = self._names(model, any_depth=any_depth)
        for param, name in zip(model.params, names, strict=True):
            dims = self.dims[name]
            if len(dims) != param.ndim:
                raise _unlike(param.name, dims, param.shape, "model")
            grown = _grown(param.shape, dims)
            if not self.settled:
                grown = tuple(None if mult == 1 else mult for mult in grown)
            mults.append(grown)
        return mults

    def outgrown(self, model: ModelInfo) -> list[str]:
        if not self.settled:
            return []
        outgrown = []
        for param in model.params:
            for name in self.sizes.keys() & set(param.names):
                triples = zip(self.dims[name], self.sizes[name], param.shape, strict=True)
                if any(dim is None and size != now for dim, size, now in triples):
                    outgrown.append(param.name)
        return outgrown

    def _names(self, model: ModelInfo, *, any_depth: bool) -> list[str]:
        """The name that each parameter has in the base."""
        # Not the list, which would be searched from its start for every name.
        spelled = dict.fromkeys(model.spellings[0])
        theirs = {resolve_name(name, spelled) or name: name for name in self.dims}
        if any_depth:
            theirs = self._at_any_depth(theirs, spelled)
        names, missing = [], []
        for param in model.params:
            if name := next((theirs[name] for name in param.names if name in theirs), None):
                names.append(name)
            else:
                missing.append(param.name)
        extra = sorted(theirs.keys() - spelled.keys())
        if not missing and not extra:
            return names
        lines = [f"The base {self.label} is not {model.label} at another width:"]
        if missing:
            lines.append(
                f"  {plural(len(missing), 'parameter')} of the model without one in the base: "
                f"{listed(missing)}. {nearest_hint(missing[0], self.dims)}".rstrip()
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
        raise NnlrError("\n".join(lines), missing=missing, extra=extra)

    def _at_any_depth(self, theirs: Mapping[str, str], spelled: Iterable[str]) -> dict[str, str]:
        """Names of the base for each name of a model with another number of blocks.

        Where the numbers in names differ, all blocks of the base must have one shape, which
        then goes for all blocks of the model.
        """
        ours, base = _by_stem(spelled), _by_stem(theirs)
        matching = {name: theirs[name] for stem in base.keys() - ours for name in base[stem]}
        for stem, names in ours.items():
            blocks = base.get(stem, [])
            if set(names) == set(blocks):
                matching |= {name: theirs[name] for name in names}
            elif len({self.dims[theirs[block]] for block in blocks}) == 1:
                matching |= dict.fromkeys(names, theirs[blocks[0]])
        return matching

    def written_as(self) -> object:
        return self if self.source is None else self.source

    def __repr__(self) -> str:
        return self.label


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Names that differ in numbers only."""
    stems: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stem = ".".join("*" if part.isdigit() else part for part in name.split("."))
        stems[stem].append(name)
    return stems


@dataclass(repr=False, eq=False)
class _Widths(Base):
    """Sizes that are widths, and the size of each in the base."""

    widths: dict[int, int]

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

    def written_as(self) -> object:
        return self.widths

    def __repr__(self) -> str:
        return repr(self.widths)


class _Marked(Base):
    """The marks that ``mup.set_base_shapes`` has left on the parameters."""

    def mults(self, model: ModelInfo, *, any_depth: bool = False) -> list[Mults]:
        marks = [
            (param, base_dims(model.places[i][0].tensor)) for i, param in enumerate(model.params)
        ]
        if bare := [param.name for param, dims in marks if dims is None]:
            raise NnlrError(
                "Without a base, what mup.set_base_shapes has left on the parameters counts, "
                f"and {listed(bare)} of {model.label} carry nothing. Pass a base: "
                "mup(base=small_model).",
                names=bare,
            )
        return [_grown(param.shape, dims or ()) for param, dims in marks]

    def written_as(self) -> object:
        return None

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
    names = ("head_dim", "attention_head_size", "dim_head")
    sizes = (getattr(module, name, None) for name in names)
    return next((size for size in sizes if type(size) is int), None)


@torch.no_grad()
def spread(tensor: Tensor) -> float | None:
    """The standard deviation of a tensor's values, where it has any to look at."""
    plain = type(tensor) in {Tensor, nn.Parameter} and tensor.is_floating_point()
    if not plain or tensor.is_meta or tensor.numel() < 2:
        return None
    return tensor.float().std().item()
