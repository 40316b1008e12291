"""Which published recipes fit a model: by its architecture, then by its size."""

import math
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Final

from nnlr._model.describe import ModelInfo, describe
from nnlr._model.names import Source
from nnlr._model.scopes import Scope
from nnlr.config._published import PublishedRecipe, entries, recipe, table
from nnlr.errors import NnlrError

_PATCHES_OF_VIDEO: Final = 5  # axes: out, in, time, height, width

# The least share of a model's parameters that is of an architecture, so that the model is.
_WHOLE: Final = 0.9

# Units of numbers of parameters, in millions.
_UNITS: Final = (("B", 1e3), ("M", 1.0), ("k", 1e-3))

# How far a recipe that was published for no size is from a model, in logarithms of sizes.
_UNSIZED: Final = 1.0


def find_recipes(model: Source) -> list[PublishedRecipe]:
    """The published recipes that fit a model, the best first; empty where none does.

    A model is recognised by the classes of its modules and the names of its parameters, whatever
    library it comes from. It must be of one architecture: a detector on a Swin is no Swin.
    Recipes that name its architecture first come first, and of these the ones for a model of its
    size. What a recipe was for beside that, such as the pre-training, nobody can see in a model:
    read its title. Each was resolved on this model; what cannot be is left out.

    Args:
        model: The model; the meta device is enough. Or names and tensors, of which no classes
            are known.

    Returns:
        Recipes with a ``reason``. Their rates are the published ones: for another batch,
        ``nnlr.recipe(proposal.name, batch_size=...)``.

    Raises:
        NnlrError: If it is no model.

    Examples:
        >>> import nnlr, timm, torch
        >>> with torch.device("meta"):
        ...     model = timm.create_model("deit_tiny_patch16_224")
        >>> for proposal in nnlr.find_recipes(model)[:2]:
        ...     print(proposal.name, "-", proposal.reason)
        big_vision/vit-s/train - a vision transformer (class VisionTransformer); 5.72 M ...
        ...
        >>> nnlr.find_recipes(torch.nn.Linear(2, 2))
        []
    """
    info = describe(model)
    facts = _Facts(info)
    fitting = ((name, facts.fits(each)) for name, each in _architectures().items())
    name, why = next((fit for fit in fitting if fit[1] is not None), ("", None))
    if why is None:
        return []
    architecture = _architectures()[name]
    own = [name, *architecture.get("like", ())]
    millions = sum(param.numel for param in info.params) / 1e6
    proposals: list[tuple[tuple[int, bool], float, int, str, str]] = []
    for key, entry in entries().items():
        shared = [each for each in own if each in entry["models"]]
        if shared:
            reason, distance = f"{architecture['title']} ({why})", _UNSIZED
            if published := entry.get("params"):
                distance = abs(math.log(millions / published))
                reason += f"; {_count(millions)} parameters, published for {_count(published)}"
            place = (own.index(shared[0]), entry["models"].index(shared[0]) > 0)
            proposals.append((place, distance, len(proposals), key, reason))
    return [
        replace(published, reason=reason)
        for *_, key, reason in sorted(proposals)
        if _resolves(published := recipe(key), model)
    ]


def _count(millions: float) -> str:
    """A number of parameters with its unit.

    Examples:
        >>> [_count(millions) for millions in (0.0549, 0.9996, 86.6, 405_000)]
        ['54.9 k', '1 M', '86.6 M', '405 B']
    """
    unit, size = next((u for u in _UNITS if millions / u[1] >= 0.9995), _UNITS[-1])
    return f"{millions / size:.3g} {unit}"


def _resolves(published: PublishedRecipe, model: Source) -> bool:
    """Whether a recipe makes a plan for a model."""
    try:
        published.resolve(model)
    except NnlrError:
        return False
    return True


@cache
def _architectures() -> Mapping[str, Mapping[str, Any]]:
    """The architectures by name, from special to general."""
    return table("architectures")


class _Facts:
    """What architectures are recognised by: names, roles and classes of a model."""

    def __init__(self, model: ModelInfo) -> None:
        self.sizes = [param.numel for param in model.params]
        self.names = {param.name: index for index, param in enumerate(model.params)}
        self.videos = [p.name for p in model.params if len(p.shape) == _PATCHES_OF_VIDEO]
        self.roles = {param.role for param in model.params}
        self.classes: dict[str, set[int]] = {}  # for each, the parameters below
        for index, param in enumerate(model.params):
            scope: Scope | None = param.scope
            while scope is not None:
                for base in scope.cls.__mro__ if scope.cls is not None else ():
                    self.classes.setdefault(base.__name__, set()).add(index)
                scope = scope.above

    def fits(self, architecture: Mapping[str, Any]) -> str | None:
        """By what it is recognised, in words; ``None`` if it is not, or is a part of the model."""
        for conditions in architecture["has"]:
            parts = [self._part(*condition.split(":", 1)) for condition in conditions]
            inside = set[int]().union(*(indices for _, indices in filter(None, parts)))
            size = sum(self.sizes[index] for index in inside)
            if parts[0] is not None and None not in parts and size >= _WHOLE * sum(self.sizes):
                return parts[0][0]
        return None

    def _part(self, kind: str, pattern: str) -> tuple[str, set[int]] | None:
        """What a pattern means first, in words, and the parameters of the part that has it."""
        if kind == "class":
            matches = [each for each in self.classes if fnmatchcase(each, pattern)]
            inside = set[int]().union(*(self.classes[each] for each in matches))
            return (f"class {matches[0]}", inside) if matches else None
        if kind == "role":  # adapters are a small part, wherever they are
            return (f"role {pattern}", {*self.names.values()}) if pattern in self.roles else None
        among = self.videos if kind == "3d" else self.names
        matches = [each for each in among if fnmatchcase(each, pattern)]
        if kind in {"with", "no"}:
            return ("", set()) if bool(matches) == (kind == "with") else None
        beginning = pattern.split("*")[1]  # "*blocks.0.*": the part is what blocks is in
        parts = {each[: each.index(beginning)] for each in matches}
        inside = {i for name, i in self.names.items() if name.startswith(tuple(parts))}
        return (f"parameter {matches[0]}", inside) if matches else None
