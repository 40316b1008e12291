"""The scheme and the base rates of the command line, and the plan that they come to."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import mul
from pathlib import Path
from typing import Any, Final, cast

from torch import nn

import nnlr
from nnlr import Scheme
from nnlr._rows.rates import Decay
from nnlr._text import nearest_hint
from nnlr.cli._model import Subject, load
from nnlr.cli._terminal import working
from nnlr.config import Recipe, recipe_names
from nnlr.config import load as load_recipe
from nnlr.config import scheme as read_scheme
from nnlr.config._at import At
from nnlr.config._load import KEYS as RECIPE_KEYS
from nnlr.config._published import configuration_of
from nnlr.config._read import read
from nnlr.config._yaml import parsed
from nnlr.errors import NnlrError

# The base rates where nothing else is said; usual for fine-tuning with AdamW.
LR: Final = 1e-3
WEIGHT_DECAY: Final = 0.05

# A product is written with spaces around its sign; the stars of patterns have none.
_TIMES: Final = re.compile(r"\s+\*\s+")

# A published recipe, where a file can be named.
_RECIPE: Final = "recipe:"

# What a side of a comparison is called that has no scheme.
_NONE: Final = "none"

Rates = float | dict[str, float]


@dataclass(frozen=True)
class Options:
    """What the options say of schemes and base rates; ``None`` where they are silent."""

    schemes: Sequence[str] | None = None
    config: Path | None = None
    lr: Sequence[str] | None = None
    weight_decay: Sequence[str] | None = None
    decay: str | None = None
    imports: Sequence[str] | None = None
    arguments: Sequence[str] | None = None

    def subject(self, model: str) -> Subject:
        """The model, or the saved plan, that MODEL names with these arguments.

        Raises:
            NnlrError: If there is none, or it cannot be made.
        """
        return load(model, arguments_of(self.arguments))

    @cached_property
    def recipe(self) -> Recipe:
        """All of it as one recipe; the base rates are the command's where nothing says them.

        The file is read once, and what it may import is called once.

        Raises:
            NnlrError: If an option or the file is wrong.
        """
        lr, weight_decay = rates(self.lr, "--lr"), rates(self.weight_decay, "--weight-decay")
        with _allowing():
            written = {} if self.config is None else configuration(self.config)
            base: dict[str, Any] = {"lr": LR, "weight_decay": WEIGHT_DECAY}
            try:
                recipe = load_recipe({**base, **written}, allow=self.imports or ())
            except NnlrError as error:
                raise NnlrError(f"{self.config}: {error}", **error.facts) from None
            schemes = [] if recipe.scheme is None else [recipe.scheme]
            schemes += [self._scheme(text) for text in self.schemes or ()]
        return replace(
            recipe,
            scheme=reduce(mul, schemes) if schemes else None,
            lr=recipe.lr if lr is None else lr,
            weight_decay=recipe.weight_decay if weight_decay is None else weight_decay,
            decay=cast("Decay", self.decay) or recipe.decay,
        )

    def plan(self, subject: Subject) -> "nnlr.Plan":
        """The plan of a model, or the saved plan with other base rates.

        Raises:
            NnlrError: If an option is wrong, or does not apply to a saved plan.
        """
        if subject.plan is not None:
            for option, value in (
                ("--scheme", self.schemes),
                ("--config", self.config),
                ("--decay", self.decay),
            ):
                if value:
                    raise NnlrError(f"{option} is for a model; a saved plan has its scheme.")
            return subject.plan.with_rates(
                lr=rates(self.lr, "--lr"),
                weight_decay=rates(self.weight_decay, "--weight-decay"),
            )
        recipe = self.recipe
        with working("resolving"):
            return recipe.resolve(cast("nn.Module", subject.model))

    def side(self, text: str, subject: Subject | None) -> "nnlr.Plan":
        """The plan of one side of a comparison: a saved plan, or a scheme or file for the model.

        Raises:
            NnlrError: If it is neither, or needs a model and there is none.
        """
        path = Path(text).expanduser()
        if path.is_file() and (plan := saved_plan(path)) is not None:
            return self.plan(Subject(None, plan))
        is_file = path.is_file() or path.suffix in {".json", ".yaml", ".yml"}
        if is_file:
            _must_exist(path)
        is_file = is_file or bool(_published(text))
        if subject is None:
            raise NnlrError(
                f"{text!r} is no saved plan; of a scheme say for which model: "
                "nnlr diff MODEL A B.\n  nnlr show MODEL --out plan.json saves a plan.",
                value=text,
            )
        if is_file:
            return replace(self, config=path).plan(subject)
        own = [] if text == _NONE else [text]
        return replace(self, schemes=[*own, *(self.schemes or ())]).plan(subject)

    def _scheme(self, text: str) -> Scheme:
        """The scheme of one expression; an error says which."""
        members = [_data(member) for member in _TIMES.split(text.strip())]
        try:
            return read_scheme(members, allow=self.imports or ())
        except NnlrError as error:
            # The place in the data is none that the user wrote.
            message = str(error).removeprefix(f"{error.facts['path']}: ")
            raise NnlrError(f"{text!r}: {message}", **error.facts) from None


def saved_plan(path: Path) -> "nnlr.Plan | None":
    """The plan that a file holds; ``None`` if it holds anything else.

    Raises:
        NnlrError: If it is a plan that cannot be read.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return nnlr.Plan.from_dict(facts) if isinstance(facts, dict) and "nnlr_plan" in facts else None


def configuration(file: Path) -> dict[str, Any]:
    """The recipe in a file, or a published one, as data; a scheme alone is one without rates.

    Raises:
        NnlrError: If there is no such file, or it cannot be read.
    """
    if published := _published(file.as_posix()):
        return configuration_of(published)
    _must_exist(file)
    data = read(file, At(str(file)))
    return (
        data if isinstance(data, dict) and not {*RECIPE_KEYS}.isdisjoint(data) else {"scheme": data}
    )


def _published(text: str) -> str:
    """The name of the published recipe that is written as ``recipe:NAME``; else nothing."""
    return text.removeprefix(_RECIPE) if text.startswith(_RECIPE) else ""


def _must_exist(file: Path) -> None:
    """Refuse a file that is not there, and name the nearest."""
    if not file.is_file():
        beside = [str(other) for other in file.parent.glob("*")]
        hint = nearest_hint(str(file), beside)
        if str(file) in recipe_names():
            hint = f"The published recipe is {_RECIPE}{file}."
        raise NnlrError(f"There is no file {str(file)!r}. {hint}".rstrip(), value=str(file))


def _data(text: str) -> Any:  # noqa: ANN401 - of YAML
    """A scheme as it is written on the command line, as data of a configuration.

    Examples:
        >>> _data("layer_decay=0.75"), _data("no_weight_decay")
        ({'layer_decay': 0.75}, 'no_weight_decay')
        >>> _data("rule={select: 'head.*', lr_mult: 10}")
        {'rule': {'select': 'head.*', 'lr_mult': 10}}
    """
    if text.startswith(("{", "[")):
        return value_of(text, "--scheme")
    name, sign, value = text.partition("=")
    return {name.strip(): value_of(value, f"--scheme {name}")} if sign else name


def value_of(text: str, what: str) -> Any:  # noqa: ANN401 - of YAML
    """A value as YAML reads it; 1e-3 is a number as well.

    Raises:
        NnlrError: If it is no YAML.

    Examples:
        >>> value_of("3", "depth"), value_of("1e-3", "lr"), value_of("[a, b]", "names")
        (3, 0.001, ['a', 'b'])
    """
    try:
        return parsed(text)
    except ValueError as error:
        raise NnlrError(f"{what}: {text!r} is no value of YAML: {error}.", value=text) from None


def arguments_of(texts: Sequence[str] | None) -> dict[str, Any]:
    """The arguments of ``--arg name=value``.

    Raises:
        NnlrError: If one has no name, or is there twice.
    """
    arguments: dict[str, Any] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise NnlrError(f"--arg is written name=value, such as depth=12; got {text!r}.")
        if name in arguments:
            raise NnlrError(f"--arg {name} is there twice.")
        arguments[name] = value_of(value, f"--arg {name}")
    return arguments


def rates(texts: Sequence[str] | None, option: str) -> Rates | None:
    """A base rate, or one for each algorithm; ``None`` where none is written.

    Raises:
        NnlrError: If one is no number, or there are several without the names of algorithms.

    Examples:
        >>> rates(["1e-3"], "--lr"), rates(["muon=0.02", "adamw=3e-4"], "--lr")
        (0.001, {'muon': 0.02, 'adamw': 0.0003})
    """
    if not texts:
        return None
    named = [text.rpartition("=") for text in texts]
    try:
        values = [float(value) for _, _, value in named]
    except ValueError:
        raise NnlrError(
            f"{option} must be a number such as 1e-3, or muon=0.02 for an algorithm; "
            f"got {', '.join(map(repr, texts))}."
        ) from None
    names = [name.strip() for name, _, _ in named]
    if names == [""]:
        return values[0]
    if not all(names) or len({*names}) < len(names):
        raise NnlrError(
            f"{option} is one number, or one for each algorithm: {option} muon=0.02 "
            f"{option} adamw=3e-4; got {', '.join(map(repr, texts))}."
        )
    return dict(zip(names, values, strict=True))


@contextmanager
def _allowing() -> Iterator[None]:
    """Say how code is allowed on the command line, where a configuration names some."""
    try:
        yield
    except NnlrError as error:
        reference = error.facts.get("reference")
        text = str(error)
        if reference is None or "allow=" not in text:
            raise
        head = text.partition(" If you trust it")[0]
        raise NnlrError(f"{head}\n  Fix: if you trust it, --allow-imports '{reference}'.") from None
