"""Published recipes: the settings of papers and repositories, from the files in recipes/.

A file holds the recipes of a field, each under its name. Its keys are those of a recipe (``lr``,
``weight_decay``, ``scheme``, ``algorithms``, ``schedule``, as in ``docs/configuration.md``), and

    title, source, length, beyond, note    text: what it is, where it stands, what is not covered
    models      architectures of recipes/architectures.toml, the best fit first
    params      millions of parameters of the model that it was published for
    batch       size, of (what it counts); rule ("linear", "sqrt") and per, the batch that lr is for
    like        another recipe, from which all keys come that this one has not
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from textwrap import TextWrapper
from typing import Any, Final, Literal, get_args

from nnlr._arguments import choice, number
from nnlr._rows.rates import Rate
from nnlr._text import listed, nearest_hint, plural, printable, shown
from nnlr.config._dump import dump
from nnlr.config._load import KEYS, load
from nnlr.config._recipe import Recipe
from nnlr.errors import ConfigError

FOLDER: Final = files("nnlr.config") / "recipes"

# The files, in the order in which they are listed.
FIELDS: Final = (
    *("vision", "detection", "text", "speech", "multimodal", "adapters", "language", "fields"),
)

BatchRule = Literal["linear", "sqrt"]
RULES: Final[tuple[BatchRule, ...]] = get_args(BatchRule)

_POWERS: Final = {"linear": 1.0, "sqrt": 0.5}


@dataclass(frozen=True, eq=False, repr=False)
class PublishedRecipe(Recipe):
    """A published recipe, with its source; made by :func:`nnlr.recipe`.

    All that :class:`Recipe` has, and beside it where the values stand and what they leave out.
    ``print`` shows all of it; :func:`nnlr.config.dump` gives the part that is a configuration.

    Attributes:
        name: Its name, ``"mae/vit-b/finetune"``.
        title: What it trains, on what.
        field: The file that holds it, such as ``"vision"``.
        models: The architectures that it is for, the best fit first.
        params: Millions of parameters of the model that it was published for; ``None`` if any.
        batch_size: The batch that ``lr`` is for, as published or as asked for; ``None`` if open.
        batch_of: What the batch counts, such as ``"images"``.
        batch_rule: How the rate goes with the batch: ``"linear"``, ``"sqrt"`` or ``None``.
        scaled: How ``lr`` came about, in words; empty where it is the published rate.
        length: How long training is, and the warm-up.
        source: Where the values stand: repository, file and part, or paper.
        beyond: What belongs to the published settings and is not covered.
        note: What is special, or where paper and code differ.
        reason: Why :func:`nnlr.find_recipes` proposes it; empty otherwise.
    """

    _: KW_ONLY
    name: str
    title: str
    field: str
    models: tuple[str, ...]
    params: float | None
    batch_size: int | None
    batch_of: str
    batch_rule: BatchRule | None
    scaled: str
    length: str
    source: tuple[str, ...]
    beyond: str
    note: str
    reason: str = ""

    def __repr__(self) -> str:
        """The call that makes it; with ``replace`` around where a part was changed."""
        published = entries()[self.name].get("batch", {})
        call = repr(self.name)
        if self.batch_size != published.get("size"):
            call += f", batch_size={self.batch_size}"
        if self.batch_rule != published.get("rule"):
            call += f", batch_rule={self.batch_rule!r}"
        call = f"recipe({call})"
        return call if dump(self) == dump(self._unchanged()) else f"replace({call}, ...)"

    def _unchanged(self) -> Recipe:
        """What it was before ``dataclasses.replace``."""
        return recipe(self.name, batch_size=self.batch_size, batch_rule=self.batch_rule)

    def __str__(self) -> str:
        """All of it, a line for each part."""
        data = dump(self)
        batch = "open" if self.batch_size is None else f"{self.batch_size} {self.batch_of}"
        rule = {"linear": ", rate by batch", "sqrt": ", rate by its root"}.get(
            self.batch_rule or ""
        )
        scaled = self.scaled if self.lr == self._unchanged().lr else " (changed)"
        parts = {
            "lr": f"{_rates(self.lr)}{scaled}",
            "batch": f"{batch}{rule or ''}",
            "weight decay": _rates(self.weight_decay),
            "scheme": self.scheme or "none, the same rates everywhere",
            "algorithms": _in_words(data["algorithms"]),
            "schedule": _in_words(data.get("schedule", "constant")),
            "length": self.length,
            "source": "\n".join(self.source),
            "not covered": self.beyond,
            "note": self.note,
            "proposed as": self.reason,
        }
        lines = [_wrapped(f"  {key:13} ", str(value)) for key, value in parts.items() if value]
        return "\n".join([f"{self.name}: {self.title}", *lines])


def _wrapped(head: str, text: str) -> str:
    """A text of one or more lines beside its name, in 80 columns."""
    beside = " " * len(head)
    wrapper = TextWrapper(
        80,
        initial_indent=beside,
        subsequent_indent=beside,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return head + "\n".join(map(wrapper.fill, text.splitlines()))[len(head) :]


def _rates(rate: Rate) -> str:
    """A base rate, or one for each algorithm, without the noise of floats."""
    if isinstance(rate, Mapping):
        return ", ".join(f"{name} {value:.6g}" for name, value in rate.items())
    return f"{rate:.6g}"


def _in_words(data: Any) -> str:  # noqa: ANN401 - a class as data, or several by name
    """A class with its settings as its call."""
    if not isinstance(data, Mapping):
        return str(data)
    if "class" not in data:
        return ", ".join(f"{key}: {_in_words(value)}" for key, value in data.items())
    settings = [f"{key}={value!r}" for key, value in data.items() if key != "class"]
    return f"{data['class']}({', '.join(settings)})"


def table(name: str) -> dict[str, Any]:
    """A data file of the package."""
    import tomllib

    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def entries() -> Mapping[str, Mapping[str, Any]]:
    """Every recipe by its name, as its file has it, with what ``like`` brings in."""
    recipes: dict[str, Mapping[str, Any]] = {}
    for field in FIELDS:
        for name, entry in table(field).items():
            recipes[name] = {**recipes.get(entry.get("like", ""), {}), **entry, "field": field}
    return recipes


def recipe_names() -> tuple[str, ...]:
    """The names of all published recipes, field by field, as :func:`nnlr.recipe` takes them.

    Examples:
        >>> "mae/vit-b/finetune" in recipe_names()
        True
    """
    return tuple(entries())


def configuration_of(name: str) -> dict[str, Any]:
    """The keys of a published recipe that are a configuration, with the rate for its batch."""
    return dict(dump(recipe(name)))


def recipe(
    name: str, *, batch_size: int | None = None, batch_rule: BatchRule | None = None
) -> PublishedRecipe:
    """A published recipe by its name: rates, scheme, algorithms and schedule, with the source.

    Schedules have their lengths as shares, so that ``recipe.scheduler(optimizer,
    total_steps=...)`` fits any run (:class:`nnlr.WarmupDecay`). A recipe says what its batch
    counts, and how its rate goes with it:

        lr = published lr * batch_size / batch       "linear"
             published lr * sqrt(batch_size / batch) "sqrt"

    Args:
        name: One of :func:`nnlr.config.recipe_names`, ``"mae/vit-b/finetune"``; the page
            ``docs/recipes.md`` has all of them, and ``nnlr recipes`` lists them.
        batch_size: The batch of your run, > 0, in what the recipe counts; by default the
            published one.
        batch_rule: ``"linear"`` or ``"sqrt"``, for a recipe that publishes no rule, or instead
            of its own.

    Raises:
        ConfigError: If there is no such recipe, with the nearest names; or if it has no rule for
            another batch, and none is passed.

    Examples:
        >>> import nnlr
        >>> recipe = nnlr.recipe("mae/vit-b/finetune", batch_size=256)
        >>> recipe.lr, recipe.scheme
        (0.0005, layer_decay(0.65, indexer='vit') * no_weight_decay('timm_layer_decay'))
        >>> print(recipe)
        mae/vit-b/finetune: ViT-B after MAE, ImageNet-1k
          lr            0.0005 = 0.0005 x 256/256
          batch         256 images, rate by batch
          ...
    """
    entry = entries().get(name) if isinstance(name, str) else None
    if entry is None:
        hint = _nearest(str(name))
        everything = f"nnlr.config.recipe_names() has all {len(entries())}."
        raise ConfigError(
            " ".join(filter(None, [f"there is no recipe {shown(name)}.", hint, everything])),
            value=name,
        )
    base = load({key: entry[key] for key in KEYS if key in entry})
    batch = entry.get("batch", {})
    rule = batch.get("rule")
    size: int | None = batch.get("size")
    if batch_rule is not None:
        rule = choice(batch_rule, "batch_rule", RULES)
    per = batch.get("per", size)
    scaled = ""
    if batch_size is not None:
        wanted = number(batch_size, "batch_size", above=0)
        _check_scaling(name, wanted, size, batch.get("of", ""), rule)
        size = int(wanted) if wanted.is_integer() else batch_size
    if rule is not None and size is not None:
        ratio = size / per
        factor = ratio ** _POWERS[rule]
        word = "" if rule == "linear" else "sqrt "
        asked = " (rule asked for)" if batch_rule is not None else ""
        if size != per or batch_size is not None:
            scaled = f" = {_rates(base.lr)} x {word}{size}/{per}{asked}"
        base = replace(base, lr=_times(base.lr, factor))
    return PublishedRecipe(
        **{field.name: getattr(base, field.name) for field in fields(Recipe)},
        name=name,
        title=entry["title"],
        field=entry["field"],
        models=tuple(entry["models"]),
        params=entry.get("params"),
        batch_size=size,
        batch_of=batch.get("of", ""),
        batch_rule=rule,
        scaled=scaled,
        length=entry["length"],
        source=tuple(entry["source"]),
        beyond=entry["beyond"],
        note=entry.get("note", ""),
    )


def _times(rate: Rate, factor: float) -> Rate:
    """A base rate, or one for each algorithm, with a factor."""
    if isinstance(rate, Mapping):
        return {name: value * factor for name, value in rate.items()}
    return rate * factor


def _nearest(name: str) -> str:
    """The recipes with the nearest names, those that begin alike first; or with a part of it."""
    begins = name.lower().partition("/")[0]
    alike = [each for each in entries() if begins in each.partition("/")[0]]
    parts = {part for part in name.lower().split("/") if part}
    near = [each for each in entries() if parts & set(each.split("/"))]
    near = near or [each for each in alike if len(begins) > 2]
    part = f"With a part of it: {listed(map(repr, near))}." if near else ""
    return nearest_hint(name, alike) or nearest_hint(name, entries()) or part


def _check_scaling(
    name: str, wanted: float, size: int | None, counted: str, rule: BatchRule | None
) -> None:
    """Refuse to scale what has no batch, or no rule."""
    if size is None:
        raise ConfigError(
            f"{printable(name)!r} says no batch, so that its rate cannot be scaled to "
            f"{wanted:g}: leave batch_size out.",
            value=wanted,
        )
    if rule is None and wanted != size:
        raise ConfigError(
            f"{printable(name)!r} publishes its rate for {plural(size, counted).removesuffix('s')} "
            f"and no rule for another batch. Leave batch_size out, or pass batch_rule='linear' or "
            "'sqrt'.",
            value=wanted,
        )
