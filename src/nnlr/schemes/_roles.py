"""Rates by role: one number or one set of settings for embeddings, heads, norms, ...

    lr(p) = base_lr * table[role(p)].lr_mult          likewise weight decay

The shape of the tables that large runs are written in (nanochat, modded-nanogpt, RWKV): what
a parameter is for decides how fast it learns. Roles: :func:`nnlr.role`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from nnlr._arguments import Written, as_call, flag, number
from nnlr._arguments import options as checked_options
from nnlr._declare.factor import NEUTRAL, SETTINGS, Factor, Step, Trace, settings_of
from nnlr._declare.scheme import Scheme
from nnlr._model.describe import ModelInfo, check_role
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, CoverageError, NnlrError, PatternError

Entry: TypeAlias = float | Mapping[str, Any]

# What messages and traces call the default.
_DEFAULT: Final = "the default of roles"


def roles(
    table: Mapping[str, Entry],
    *,
    default: Entry | None = None,
    optional: bool = False,
    complete: bool = False,
) -> Scheme:
    """Rates by role: ``lr_mult`` of a parameter is what the table says of its role.

    Args:
        table: Role -> ``lr_mult`` (finite, >= 0; 0 locks), or -> a mapping with any of
            ``lr_mult``, ``wd_mult``, ``lr``, ``weight_decay`` and ``options``, as in
            ``nnlr.rule``. Roles are those of :func:`nnlr.role`; ``resolve(...,
            roles=...)`` corrects one that was guessed wrong.
        default: The same for every role that is not in the table. ``None`` leaves the others
            as they are.
        optional: Whether the model may lack roles of the table: for one table that serves
            several models.
        complete: Whether every trainable parameter's role must be in the table, so that a
            part added to the model later cannot slip through at the base rates.

    Raises:
        NnlrError: If a role, a setting or a number is none.
        ConfigError: If ``complete`` meets a ``default``, which covers everything anyway.
        PatternError: At resolve, if the model lacks a role of the table.
        CoverageError: At resolve, with ``complete``, if a trainable parameter is left over.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        >>> scheme = roles({"embedding": 10, "norm": {"wd_mult": 0}}, default=0.5)
        >>> plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0.1)
        >>> [(row.name, row.lr, row.weight_decay) for row in plan if "weight" in row.name]
        [('0.weight', 10.0, 0.1), ('1.weight', 1.0, 0.0), ('2.weight', 0.5, 0.1)]
    """
    if not isinstance(table, Mapping) or not table:
        raise NnlrError(
            "roles needs a table such as {'embedding': 10, 'norm': {'wd_mult': 0}}, got "
            f"{shown(table)}.",
            value=table,
        )
    if flag(complete, "complete") and default is not None:
        raise ConfigError(
            "roles got complete=True and a default, which covers every role already: "
            "pass one of them."
        )
    return RoleTable(
        {
            check_role(role): _factor(entry, f"roles[{role!r}]", f"role {role}")
            for role, entry in table.items()
        },
        None if default is None else _factor(default, _DEFAULT, "any other role"),
        flag(optional, "optional"),
        complete,
    )


def _factor(entry: object, where: str, why: str) -> Factor:
    """An entry of the table as a factor."""
    if not isinstance(entry, Mapping):
        return Factor(lr_mult=number(entry, where), why=why)
    if all(value is None for value in entry.values()):
        raise NnlrError(f"{where} sets nothing. Known: {', '.join(SETTINGS)}.")
    settings = dict(entry)
    for key in settings:
        if key not in SETTINGS:
            hint = nearest_hint(str(key), SETTINGS)
            raise NnlrError(
                f"{where} sets {shown(key)}. Known: {', '.join(SETTINGS)}. {hint}".rstrip(),
                setting=key,
            )
    if "options" in settings:
        settings["options"] = checked_options(settings["options"], where)
    try:
        return Factor(**settings, why=why)
    except NnlrError as error:
        raise NnlrError(f"{where}: {error}", entry=entry) from error


@dataclass(frozen=True, repr=False, eq=False)
class RoleTable(Scheme):
    """Rates by role; made by :func:`roles`."""

    table: Mapping[str, Factor]
    default: Factor | None
    optional: bool
    complete: bool

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The entry of each parameter's role; the default, or nothing, where there is none."""
        present = {param.role for param in model.params}
        absent = [role for role in self.table if role not in present]
        if absent and not self.optional:
            raise _missing(absent[0], model)
        missing = [p for p in model.params if p.requires_grad and p.role not in self.table]
        if self.complete and missing:
            raise CoverageError(
                f"roles covers every role but {listed(sorted({p.role for p in missing}))}: "
                f"{plural(len(missing), 'trainable parameter')} of {model.label} left over: "
                f"{listed(f'{p.name} ({p.role})' for p in missing)}.\n"
                "  Add an entry (1 keeps the base rate), or drop complete=True.",
                names=[p.name for p in missing],
            )
        other = NEUTRAL if self.default is None else self.default
        return [self.table.get(param.role, other) for param in model.params]

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """The same as declarations of the user, which are meant to act."""
        shared: dict[int, Trace] = {}
        traces: dict[int, Trace] = {}
        pairs = zip(model.params, self.factors(model), strict=True)
        for index, (param, factor) in enumerate(pairs):
            if factor is NEUTRAL:
                continue
            source = f"roles[{param.role!r}]" if param.role in self.table else _DEFAULT
            step = Step(source, factor, explicit=True)
            if param.aliases:  # a role is the tensor's, by whichever name
                traces[index] = (replace(step, via=param.names),)
            else:
                traces[index] = shared.setdefault(id(factor), (step,))
        return traces

    def written_as(self) -> Written:
        """The call of :func:`roles`."""
        return as_call(
            roles,
            {role: _entry(factor) for role, factor in self.table.items()},
            default=None if self.default is None else _entry(self.default),
            optional=self.optional,
            complete=self.complete,
        )


def _entry(factor: Factor) -> Entry:
    """A factor as an entry of the table."""
    settings = settings_of(factor)
    return settings if settings.keys() - {"lr_mult"} else factor.lr_mult


def _missing(role: str, model: ModelInfo) -> PatternError:
    """The error for a role of the table that no parameter has."""
    present = sorted({param.role for param in model.params})
    count = plural(len(model.params), "parameter")
    lines = [
        f"roles[{role!r}] matches no parameter of {model.label} ({count}).",
        f"  Roles it has: {', '.join(present) or 'none'}.",
    ]
    tied = [p for p in model.params if p.role == "embedding" and p.aliases]
    if role == "head" and tied:
        lines.append(
            f"  The output layer is tied: {' = '.join(tied[0].names)} has the role 'embedding'."
        )
    lines.append(
        "  Correct a role with resolve(..., roles={pattern: role}), drop the entry, or "
        "pass optional=True if the model may lack it."
    )
    return PatternError("\n".join(lines), pattern=role, nearest=present)
