"""One row of a plan: a parameter, its rates, and the trace that led to them."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nnlr._declare.factor import Trace
from nnlr._model.describe import ParamInfo
from nnlr._rows.rates import Bases, combine


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
        if self.locked:
            return "locked"
        return "trained" if self.trainable else "frozen"


def make_rows(
    params: Iterable[ParamInfo], traces: Mapping[int, Trace], bases: Bases
) -> list[PlanRow]:
    """Build a row for each parameter from its trace."""
    rates_of: dict[tuple[int, ...], dict[str, Any]] = {}
    rows = []
    for index, param in enumerate(params):
        trace = traces.get(index, ())
        # Parameters share steps, so equal traces are combined once.
        steps = tuple(map(id, trace))
        if steps not in rates_of:
            rates_of[steps] = combine(trace, bases, param.name)._asdict()
        rates = rates_of[steps]
        locked = rates["lr_mult"] == 0 and param.requires_grad
        row = PlanRow(
            name=param.name,
            aliases=param.aliases,
            shape=param.shape,
            numel=param.numel,
            role=param.role,
            role_basis=param.role_basis,
            **rates,
            locked=locked,
            trainable=param.requires_grad and not locked,
            trace=trace,
        )
        rows.append(row)
    return rows


def with_bases(rows: Iterable[PlanRow], bases: Bases) -> list[PlanRow]:
    """The same rows on other base rates: rates, locks and states follow from their traces."""
    rates_of: dict[tuple[int, ...], dict[str, Any]] = {}
    changed = []
    for row in rows:
        steps = tuple(map(id, row.trace))
        if steps not in rates_of:
            rates_of[steps] = combine(row.trace, bases, row.name)._asdict()
        rates = rates_of[steps]
        locked = rates["lr_mult"] == 0 and not row.frozen
        trainable = not row.frozen and not locked
        changed.append(row._replace(**rates, locked=locked, trainable=trainable, group=None))
    return changed


def with_groups(rows: Iterable[PlanRow], group_of: Mapping[str, str]) -> tuple[PlanRow, ...]:
    """The same rows with the names of their groups."""
    return tuple([row._replace(group=group_of.get(row.name)) for row in rows])
