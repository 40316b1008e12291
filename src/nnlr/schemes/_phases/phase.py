"""A phase as data: what it trains, from when, and how fast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final, Literal, Required, TypedDict, get_type_hints

from nnlr._arguments import is_listing, number, whole
from nnlr._select.selector import Selector, as_selector
from nnlr._text import nearest_hint, plural, shown
from nnlr.errors import NnlrError

Parts = str | Selector | int | Sequence[str | Selector | int]


class Phase(TypedDict, total=False):
    """A phase of ``nnlr.unfreeze``, as its users write it.

    Attributes:
        train: What is trained from then on: a pattern, a selector, the number of a group of layers
            (-1 is the last), or a list of these.
        epoch: Begin when so many epochs have ended.
        step: Begin when the optimizer has taken so many steps.
        fraction: Begin at this part of the run, above 0 and below 1.
        patience: Begin when the metric has not improved for so many epochs, if that is earlier.
        lr_mult: Factor on the learning rate, > 0.
        lr: Absolute learning rate > 0, instead of ``lr_mult``.
        warmup: Steps over which the rate rises from the beginning of the phase on.
        earlier: Factor on the rates of all earlier phases from then on, >= 0.
    """

    train: Required[Parts]
    epoch: int
    step: int
    fraction: float
    patience: int
    lr_mult: float
    lr: float
    warmup: int
    earlier: float


KEYS: Final = tuple(get_type_hints(Phase))


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The settings of a phase, checked; what it trains stands beside."""

    epoch: int | None = None
    step: int | None = None
    fraction: float | None = None
    patience: int | None = None
    lr_mult: float = 1.0
    lr: float | None = None
    warmup: int = 0
    earlier: float | None = None

    @property
    def by_epochs(self) -> bool:
        """Whether it begins at the end of an epoch."""
        return self.epoch is not None or self.patience is not None

    def fixed(self, point: Literal["epoch", "step"]) -> int:
        """The epoch or step at which it begins, if nothing else can begin it, else 0."""
        points = {key: getattr(self, key) for key in ("epoch", "step", "fraction", "patience")}
        points = {key: value for key, value in points.items() if value is not None}
        return int(points[point]) if [*points] == [point] else 0

    def reached(self, step: int, part: float) -> bool:
        """Whether a step, or a part of the run, has been reached at which it begins."""
        by_step = self.step is not None and step >= self.step
        return by_step or (self.fraction is not None and part >= self.fraction)

    def when(self, better: str = "improved") -> str:
        """When it begins, in words: ``"epoch 2"``; ``better`` is what a metric does."""
        points = []
        if self.patience is not None:
            points.append(f"the metric has not {better} for {plural(self.patience, 'epoch')}")
        if self.epoch is not None:
            points.append(f"epoch {self.epoch}")
        if self.step is not None:
            points.append(f"step {self.step}")
        if self.fraction is not None:
            points.append(f"{self.fraction:.4g} of the run")
        return " or ".join(points) or "the start"

    @property
    def rate(self) -> str:
        """How fast it is trained, in words: ``"x 0.5 over 100 steps"``."""
        rate = f"x {self.lr_mult:.4g}" if self.lr is None else f"lr {self.lr:.4g}"
        return f"{rate} over {plural(self.warmup, 'step')}" if self.warmup else rate


def checked(phase: object, position: int) -> tuple[tuple[Selector | int, ...], Checked]:
    """Check a phase by itself; return what it trains, and its settings."""
    what = f"phases[{position}]"
    if not isinstance(phase, Mapping):
        example = {"train": "head.*"} if not position else {"train": "body.*", "epoch": 2}
        raise NnlrError(f"{what} must be a mapping such as {example}, got {shown(phase)}.")
    for key in phase:
        if key not in KEYS:
            raise NnlrError(
                f"{what} has no setting {shown(key)}. {nearest_hint(str(key), KEYS)}".rstrip()
                + f" There are {', '.join(KEYS)}.",
                what=what,
                value=key,
            )
    if "train" not in phase:
        raise NnlrError(f"{what} does not say what it trains: {{'train': 'head.*', ...}}.")
    settings: dict[str, Any] = {k: v for k, v in phase.items() if k != "train" and v is not None}
    for key in ("epoch", "step", "patience", "warmup"):
        if key in settings:
            minimum = 0 if key == "warmup" else 1
            settings[key] = whole(settings[key], f"{key} of {what}", minimum=minimum)
    for key in ("lr_mult", "lr", "fraction"):
        if key in settings:
            settings[key] = number(settings[key], f"{key} of {what}", above=0)
    if settings.get("fraction", 0) >= 1:
        raise NnlrError(f"fraction of {what} must be < 1, got {shown(phase['fraction'])}.")
    if "earlier" in settings:
        settings["earlier"] = number(settings["earlier"], f"earlier of {what}")
    if {"lr", "lr_mult"} <= settings.keys():
        raise NnlrError(f"{what} has lr, which is absolute, and lr_mult: pass one of them.")
    return _parts(phase["train"], f"train of {what}"), Checked(**settings)


def _parts(value: object, what: str) -> tuple[Selector | int, ...]:
    """What a phase trains, each a selector or the number of a group."""
    several = list(value) if is_listing(value) else [value]
    if not several:
        raise NnlrError(f"{what} is an empty list.")
    return tuple(
        int(each)
        if isinstance(each, Integral) and not isinstance(each, bool)
        else as_selector(each, what)
        for each in several
    )


def in_order(phases: Sequence[Checked]) -> None:
    """Refuse phases that do not begin one after another."""
    if len(phases) < 2:
        raise NnlrError(
            "unfreeze needs at least two phases: [{'train': 'head.*'}, {'train': '*', 'epoch': 2}]."
            " To train one part for the whole run, lock the others: nnlr.freeze('body.*')."
        )
    if phases[0].when() != "the start":
        raise NnlrError(
            f"phases[0] begins with training, and not at {phases[0].when()}. What is trained from "
            "the start comes first."
        )
    if phases[0].earlier is not None:
        raise NnlrError("phases[0] has no earlier phases, and so no 'earlier'.")
    for position, phase in enumerate(phases[1:], 1):
        if phase.when() == "the start":
            raise NnlrError(
                f"phases[{position}] does not say when it begins: 'epoch', 'step', 'fraction' or "
                "'patience'."
            )
        for key in ("epoch", "step", "fraction"):
            mine = getattr(phase, key)
            before = [
                (at, value)
                for at, other in enumerate(phases[:position])
                if (value := getattr(other, key)) is not None
            ]
            if mine is not None and before and mine <= before[-1][1]:
                raise NnlrError(
                    f"phases[{position}] begins at {key} {mine}, and phases[{before[-1][0]}] "
                    f"before it at {before[-1][1]}: phases begin one after another. Put them in "
                    "order, or into one phase.",
                    what=f"phases[{position}]",
                )
