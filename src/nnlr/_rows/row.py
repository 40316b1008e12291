"""One row of a plan: a parameter, its rates, and the trace that led to them."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

from nnlr._declare.factor import Trace
from nnlr._model.describe import ParamInfo
from nnlr._model.names import resolve_name
from nnlr._rows.rates import Bases, combine
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, CoverageError, NnlrError

# The rates and state of frozen and other parameters, by the identity of the steps that they share.
_Combined = dict[tuple[bool | int, ...], dict[str, Any]]


class PlanRow(NamedTuple):
    """What a plan says of one parameter.

    A named tuple, as nothing else that cannot be changed is made as quickly: a plan may have
    40,000 of them.

    Attributes:
        name: Canonical name.
        aliases: Other names of a tied tensor.
        shape: Global shape.
        numel: Number of elements.
        role: What the parameter is for; see :func:`nnlr.role`.
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
        algorithm: Name of the algorithm that trains it; ``None`` where there is only one.
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
    algorithm: str | None
    locked: bool
    trainable: bool
    trace: Trace
    group: str | None = None

    @property
    def frozen(self) -> bool:
        """Whether the user froze it: ``requires_grad`` was off, and not by nnlr."""
        return not self.trainable and not self.locked

    @property
    def moves(self) -> bool:
        """Whether a scheme moves one of its multipliers while training."""
        return any(step.factor.moves for step in self.trace)

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
    combined: _Combined = {}
    rows = []
    for index, param in enumerate(params):
        trace = traces.get(index, ())
        row = PlanRow(
            name=param.name,
            aliases=param.aliases,
            shape=param.shape,
            numel=param.numel,
            role=param.role,
            role_basis=param.role_basis,
            **_rates(trace, param.name, bases, combined, frozen=not param.requires_grad),
            trace=trace,
        )
        rows.append(row)
    return rows


def _rates(
    trace: Trace, name: str, bases: Bases, combined: _Combined, *, frozen: bool
) -> dict[str, Any]:
    """The rates and the state of a parameter; equal traces are combined once."""
    key = (frozen, *map(id, trace))
    if key not in combined:
        rates = combine(trace, bases, name)
        locked = rates.lr_mult == 0 and not frozen
        state = {"locked": locked, "trainable": not (frozen or locked)}
        combined[key] = {**rates._asdict(), **state}
    return combined[key]


def refuse_unrouted(rows: Iterable[PlanRow], bases: Bases, label: str) -> None:
    """Refuse base rates of algorithms where no algorithm, or one without rates, trains a row."""
    algorithms = bases.algorithms
    trained = [row for row in rows if row.trainable and algorithms]
    two = ", ".join(map(repr, algorithms[:2]))
    recipe = f"nnlr.route({two}), or " if len(algorithms) > 1 else ""
    if nobodys := [row.name for row in trained if row.algorithm is None]:
        raise CoverageError(
            f"The base rates are those of {listed(map(repr, algorithms))}, and no algorithm trains "
            f"{plural(len(nobodys), 'parameter')} of {label}: {listed(nobodys)}.\n"
            f"  Route them: {recipe}"
            f"nnlr.rule('*', algorithm={algorithms[-1]!r}).",
            names=nobodys,
        )
    for row in trained:
        if row.algorithm not in algorithms:
            source = next(s.source for s in row.trace if s.factor.algorithm == row.algorithm)
            hint = nearest_hint(str(row.algorithm), algorithms)
            raise ConfigError(
                f"{source} sends {row.name!r} to {row.algorithm!r}, which has no base rate: lr and "
                f"weight_decay name {listed(map(repr, algorithms))}. {hint}".rstrip(),
                name=row.name,
            )


def with_bases(rows: Iterable[PlanRow], bases: Bases) -> list[PlanRow]:
    """The same rows on other base rates: rates, locks and states follow from their traces."""
    combined: _Combined = {}
    return [
        row._replace(**_rates(row.trace, row.name, bases, combined, frozen=row.frozen), group=None)
        for row in rows
    ]


def with_groups(rows: Iterable[PlanRow], group_of: Mapping[str, str]) -> tuple[PlanRow, ...]:
    """The same rows with the names of their groups."""
    return tuple([row._replace(group=group_of.get(row.name)) for row in rows])


def find_row(name: object, by_name: Mapping[str, PlanRow], label: str) -> PlanRow:
    """The row of a parameter by canonical name, alias or raw name, or an error with the nearest."""
    canonical = resolve_name(name, by_name) if isinstance(name, str) else None
    if canonical is not None:
        return by_name[canonical]
    text = shown(name).strip("'\"")
    hint = nearest_hint(text, by_name)
    if isinstance(name, Integral | slice):
        hint = "Rows by position: plan.rows[...]."
    elif inside := [param for param in by_name if param.startswith(f"{text}.")]:
        hint = f"Below that: {listed(inside)}."
    message = f"The plan for {label} has no parameter {shown(name)}. {hint}"
    raise NnlrError(message.rstrip(), name=name)
