"""From rows to parameter groups: merged, named, in an order that loggers can rely on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, zip_longest
from typing import Any, Final, Literal

from nnlr._rows.rates import only
from nnlr._rows.row import PlanRow

Locked = Literal["drop", "keep"]

# Digits that numbers in group names start with; more are added until all differ.
_DIGITS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A parameter group as a plan sees it: names, not tensors.

    Attributes:
        name: Unique among the groups of a plan, such as ``"lr0.0751_wd0"``.
        lr: Learning rate.
        weight_decay: Weight decay.
        lr_mult: Learning rate relative to the base.
        wd_mult: Weight decay relative to the base.
        eps_mult: Factor on the optimizer's ``eps``.
        options: Other settings.
        algorithm: Name of the algorithm that trains it; ``None`` where there is only one.
        names: Canonical names of its parameters, in model order.
        numel: Number of elements in all of them.
        unit: What moves with them while training, as ``"layer3"``; empty where nothing moves.
    """

    name: str
    lr: float
    weight_decay: float
    lr_mult: float
    wd_mult: float
    eps_mult: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    algorithm: str | None = None
    names: tuple[str, ...]
    numel: int
    unit: str = ""

    def __setstate__(self, state: list[Any]) -> None:
        """Take the values of a pickle; an older one has no unit."""
        for name, value in zip_longest(self.__slots__, state, fillvalue=""):
            object.__setattr__(self, name, value)


def make_groups(
    rows: Iterable[PlanRow], algorithms: Iterable[str] = (), *, locked: Locked = "drop"
) -> tuple[Group, ...]:
    """Merge rows with equal settings into groups.

    The reference group comes first, because some trainers and optimizers read only that: of
    the first algorithm; ``lr_mult`` 1, else the largest; then ``wd_mult`` 1; then the most
    elements. A group kept at learning rate 0 comes last among those of its algorithm.
    """
    merged: dict[object, list[PlanRow]] = {}
    rank: dict[str | None, int] = {name: at for at, name in enumerate(algorithms)}
    for row in rows:
        if row.trainable or (row.locked and locked == "keep"):
            options = hashable(tuple(sorted(row.options.items())))
            own = only(row.trace, "group", row.name)
            moves = tuple((s.source, s.factor.moves) for s in row.trace if s.factor.moves)
            settings = (row.lr, row.weight_decay, row.eps_mult, options, row.algorithm, own, moves)
            merged.setdefault(settings, []).append(row)
            rank.setdefault(row.algorithm, len(rank))
    groups = [
        Group(
            name=only(members[0].trace, "group", members[0].name) or "",
            lr=members[0].lr,
            weight_decay=members[0].weight_decay,
            lr_mult=members[0].lr_mult,
            # With a base decay of 0, rows of any wd_mult are alike.
            wd_mult=max(row.wd_mult for row in members),
            eps_mult=members[0].eps_mult,
            options=members[0].options,
            algorithm=members[0].algorithm,
            names=tuple(row.name for row in members),
            numel=sum(row.numel for row in members),
            unit=_unit(members[0]),
        )
        for members in merged.values()
    ]
    groups.sort(
        key=lambda g: (
            rank[g.algorithm],
            *(g.lr_mult != 1, -g.lr_mult, g.wd_mult != 1, -g.numel, -g.wd_mult),
        )
    )
    names = _names(groups)
    return tuple(replace(group, name=name) for group, name in zip(groups, names, strict=True))


def _unit(row: PlanRow) -> str:
    """What a row moves with, in names of groups."""
    units = [s.factor.moves.unit for s in row.trace if s.factor.moves and row.trainable]
    return "_".join(dict.fromkeys(filter(None, units))) or "moving" * bool(units)


def hashable(value: object) -> object:
    """A key that tells 1, 1.0 and True apart: equal, but not the same setting of a group."""
    if isinstance(value, tuple):
        return tuple(map(hashable, value))
    return type(value).__name__, value


def _names(groups: Sequence[Group]) -> list[str]:
    """Unique names: own name, algorithm, multipliers; options where these are not enough.

    A group that alone has an own name is called by it.
    """
    lr_texts = _short_texts([group.lr_mult for group in groups])
    wd_texts = _short_texts([group.wd_mult for group in groups])
    begins = ["".join(f"{part}_" for part in (g.name, g.unit, g.algorithm) if part) for g in groups]
    names = [
        f"{begin}lr{lr_texts[g.lr_mult]}_wd{wd_texts[g.wd_mult]}"
        for begin, g in zip(begins, groups, strict=True)
    ]
    own = Counter(group.name for group in groups)
    names = [
        g.name if own[g.name] == 1 and g.name else name
        for g, name in zip(groups, names, strict=True)
    ]
    if len(set(names)) < len(names):
        for position, group in enumerate(groups):
            settings = dict(sorted(group.options.items()))
            if group.eps_mult != 1:
                settings["epsx"] = group.eps_mult
            names[position] += "".join(f"_{k}{_in_a_name(v)}" for k, v in settings.items())
    unique: dict[str, None] = {}
    for name in names:
        candidates = (name if n == 1 else f"{name}_{n}" for n in count(1))
        unique[next(text for text in candidates if text not in unique)] = None
    return list(unique)


def _in_a_name(value: object) -> str:
    """The value of an option as part of a group's name."""
    if isinstance(value, tuple):
        return "-".join(map(_in_a_name, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short_texts(values: Sequence[float]) -> dict[float, str]:
    """The shortest texts that tell the values apart."""
    distinct = set(values)
    texts = ({v: f"{v:.{digits}g}" for v in distinct} for digits in range(_DIGITS, 18))
    # 17 digits tell any two floats apart.
    return next(text_of for text_of in texts if len(set(text_of.values())) == len(distinct))
