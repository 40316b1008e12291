"""One row of a plan: a parameter, its rates, and the trace that led to them."""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from nnlr._declare.factor import Trace
from nnlr._model.describe import ParamInfo
from nnlr._rows.rates import (
    Bases,
    Rates,
    combine,
)


class PlanRow(NamedTuple):
    """What a plan says of one parameter.

    A named tuple, as nothing else that cannot be changed is made as quickly: a plan may have
    40,000 of them.

    Attributes:
        name: Canonical name.
        aliases: Other names of a tied tensor.
        shape: Global shape.
        numel: Number of elements.
        role: What the parameter is for; see :data:`nnlr._model.roles.ROLES`.
        role_basis: How the role was found.
        tower: The part of a many-tower model that it belongs to, once a scheme asked.
        depth: Its layer, ``(k, n)``, once a scheme asked.
        lr: Effective learning rate, ``base * lr_mult``.
        weight_decay: Effective weight decay, ``base * wd_mult``.
        lr_mult: Product of the factors on the learning rate.
        wd_mult: Product of the factors on the weight decay, after the decay mode.
        eps_mult: Product of the factors on the optimizer's ``eps``.
        init_mult: Product of the factors on the initial weights.
        unlocked_lr_mult: Product of the factors that are not 0; used when it is unlocked.
        options: Other settings of its group.
        tag: Name of the optimizer that should take it; ``None`` for the only one.
        locked: Whether ``lr_mult`` is 0: no gradient, no optimizer state.
        trainable: Whether it is neither locked nor frozen by the user.
        trace: Every factor, with who said it and why.
        group: Name of its parameter group; ``None`` if it is in none.
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    numel: int
    role: str
    role_basis: str
    tower: str | None
    depth: tuple[int, int] | None
    lr: float
    weight_decay: float
    lr_mult: float
    wd_mult: float
    eps_mult: float
    init_mult: float
    unlocked_lr_mult: float
    options: Mapping[str, Any]
    tag: str | None
    locked: bool
    trainable: bool
    trace: Trace
    group: str | None = None

    @property
    def frozen(self) -> bool:
        """Whether the user froze it: ``requires_grad`` was off, and not by nnlr."""
        return not self.trainable and not self.locked

    @property
    def state(self) -> str:
        """One word: ``"trained"``, ``"locked"`` or ``"frozen"``."""
        return "locked" if self.locked else "trained" if self.trainable else "frozen"


def with_bases(rows: Iterable[PlanRow], bases: Bases) -> list[PlanRow]:
    """The same rows on other base rates, with the state that their traces lead to."""
    known: dict[tuple[int, ...], Rates] = {}
    changed = []
    for row in rows:
        key = tuple(map(id, row.trace))
        if key not in known:
            known[key] = combine(row.trace, bases, row.name)
        rates = known[key]
        wanted = row.locked or row.trainable  # not frozen by the user
        locked = rates.lr_mult == 0 and wanted
        now = row._replace(
            **rates._asdict(),
            locked=locked,
            trainable=wanted and not locked,
            group=None,
        )
        changed.append(now)
    return changed


def with_groups(rows: Iterable[PlanRow], group_of: Mapping[str, str]) -> tuple[PlanRow, ...]:
    """The same rows with the names of their groups."""
    name_of = group_of.get
    # The group is the last field; this is _replace at a third of the time.
    return tuple([PlanRow._make((*row[:-1], name_of(row.name))) for row in rows])


_described = attrgetter("name", "aliases", "shape", "numel", "role", "role_basis")


def make_rows(
    params: Iterable[ParamInfo], traces: Mapping[int, Trace], bases: Bases
) -> list[PlanRow]:
    """Build a row for each parameter from its trace."""
    known: dict[tuple[int, ...], Rates] = {}
    rows = []
    for index, param in enumerate(params):
        trace = traces.get(index, ())
        # Steps are shared between parameters, so equal traces are worked out once.
        key = tuple(map(id, trace))
        rates = known.get(key)
        if rates is None:
            rates = known[key] = combine(trace, bases, param.name)
        locked = rates.lr_mult == 0 and param.requires_grad
        trainable = param.requires_grad and not locked
        # In the order of the fields; by keyword it takes twice as long.
        rows.append(PlanRow._make((*_described(param), *rates, locked, trainable, trace, None)))
    return rows
