"""Plans as plain dicts, and back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from math import prod
from typing import Any, Final, get_type_hints

from nnlr._arguments import options as checked_options
from nnlr._declare.factor import NEUTRAL, Factor, Step
from nnlr._findings import Finding
from nnlr._model.roles import BASES, ROLES
from nnlr._rows.rates import Bases, make_bases
from nnlr._rows.row import PlanRow, with_bases
from nnlr._rows.typed import members, read_fields, refuse
from nnlr._text import shown
from nnlr.errors import ConfigError, NnlrError

# Raised when the layout changes: an older reader refuses a key that it does not know.
VERSION: Final = 2

# What a layout called otherwise, by version.
_RENAMED: Final = {1: {"tag": "algorithm"}}

_ROW_FIELDS: Final = tuple(name for name in PlanRow._fields if name not in {"trace", "group"})

# What a file holds, by key, and its type.
_PLAN: Final = {
    "model": str,
    **dict.fromkeys(get_type_hints(Bases), object),  # checked as the arguments of resolve are
    **dict.fromkeys(("nnlr_plan", "findings", "steps", "rows"), object),
}
_ROW: Final = {
    **{name: kind for name, kind in get_type_hints(PlanRow).items() if name in _ROW_FIELDS},
    "options": object,
    "trace": tuple[int, ...],
}
_STEP: Final = {**get_type_hints(Step), "factor": object}
_FINDING: Final = get_type_hints(Finding)
_FACTOR: Final = {**get_type_hints(Factor), "options": object}
_FACTOR.pop("move")  # a function, or an object with methods


def plan_facts(
    rows: Sequence[PlanRow], bases: Bases, label: str, findings: Iterable[Finding]
) -> dict[str, Any]:
    """The parts of a plan as plain dicts, lists, strings and numbers."""
    position: dict[int, int] = {}
    steps: list[dict[str, Any]] = []
    for row in rows:
        for step in row.trace:
            if id(step) not in position:
                position[id(step)] = len(steps)
                steps.append(_step_facts(step))
    return {
        "nnlr_plan": VERSION,
        "model": label,
        **asdict(bases),
        "findings": [plain(asdict(finding)) for finding in findings],
        "steps": steps,
        "rows": [
            {
                **{name: plain(getattr(row, name)) for name in _ROW_FIELDS},
                "trace": [position[id(step)] for step in row.trace],
            }
            for row in rows
        ],
    }


def plan_from_facts(facts: object) -> tuple[list[PlanRow], Bases, str, tuple[Finding, ...]]:
    """Read what :func:`plan_facts` wrote."""
    if not isinstance(facts, Mapping) or "nnlr_plan" not in facts:
        raise ConfigError("This is not a plan: it has no 'nnlr_plan' version. See Plan.to_dict.")
    version = facts["nnlr_plan"]
    if type(version) is not int or version not in {*_RENAMED, VERSION}:
        raise ConfigError(f"This plan has the layout {shown(version)}; this nnlr reads {VERSION}.")
    renamed: Mapping[str, Any] = facts
    for old, new in _RENAMED.get(version, {}).items():
        renamed = _renamed(renamed, old, new)
    try:
        written, bases, label, findings = _read_plan(renamed)
        rows = with_bases(written, bases)
    except NnlrError as error:
        raise ConfigError(
            f"This plan cannot be read: {str(error).rstrip('.')}. It must be what Plan.to_dict or "
            "Plan.to_json wrote.",
            **error.facts,
        ) from None
    # What follows from the traces replaces what is written, to which it must be equal.
    for index, (row, expected) in enumerate(zip(written, rows, strict=True)):
        for key, value, right in zip(row._fields, row, expected, strict=True):
            if value != right:
                raise ConfigError(
                    f"This plan has been changed: rows[{index}].{key} of {row.name!r} is "
                    f"{shown(value)}, and {shown(right)} follows from its trace. Change the scheme "
                    "and call nnlr.resolve again.",
                    name=row.name,
                )
    return rows, bases, label, findings


def _read_plan(
    facts: Mapping[str, Any],
) -> tuple[list[PlanRow], Bases, str, tuple[Finding, ...]]:
    """The parts of a plan; an error names the place in the dict."""
    plan = read_fields(_PLAN, facts, "the plan")
    bases = make_bases(**{key: plan[key] for key in get_type_hints(Bases)})
    findings = [
        Finding(**read_fields(_FINDING, finding, at))
        for at, finding in members(plan["findings"], "findings")
    ]
    steps = [_step(step, at) for at, step in members(plan["steps"], "steps")]
    written = [_row(row, steps, at) for at, row in members(plan["rows"], "rows")]
    place_of: dict[str, int] = {}
    for index, row in enumerate(written):
        for name in (row.name, *row.aliases):
            if (earlier := place_of.setdefault(name, index)) != index or not name:
                at = f"the same as in rows[{earlier}]" if name else "empty"
                raise ConfigError(f"rows[{index}] has the name {name!r}, {at}", name=name)
    return written, bases, plan["model"], tuple(findings)


def _step_facts(step: Step) -> dict[str, Any]:
    """A step as a plain dict; fields of its factor that are neutral are left out."""
    factor = {
        f.name: plain(getattr(step.factor, f.name))
        for f in fields(Factor)
        if f.name in _FACTOR and getattr(step.factor, f.name) != getattr(NEUTRAL, f.name)
    }
    return {
        "source": step.source,
        "explicit": step.explicit,
        "via": list(step.via),
        "factor": factor,
    }


def _step(facts: object, path: str) -> Step:
    """The step that :func:`_step_facts` wrote."""
    step = read_fields(_STEP, facts, path)
    at = f"{path}.factor"
    values = read_fields(_FACTOR, step["factor"], at, optional=True)
    try:
        return Step(**{**step, "factor": Factor(**values)})
    except NnlrError as error:
        raise ConfigError(f"{at}: {error}", path=at, **error.facts) from None


def _row(facts: object, steps: Sequence[Step], path: str) -> PlanRow:
    """The row of a plan's dict."""
    row = read_fields(_ROW, facts, path)
    for key, words in (("role", ROLES), ("role_basis", BASES)):
        if row[key] not in words:
            refuse(f"{path}.{key}", f"one of {', '.join(map(repr, words))}", row[key])
    if row["numel"] != prod(row["shape"]):
        refuse(f"{path}.numel", f"{prod(row['shape'])}, the product of its shape", row["numel"])
    if strays := [index for index in row["trace"] if index >= len(steps)]:
        refuse(f"{path}.trace", f"positions in the {len(steps)} steps", strays[0])
    options = checked_options(row["options"], path)
    trace = tuple(steps[index] for index in row["trace"])
    return PlanRow(**{**row, "options": options, "trace": trace})


def _renamed(value: object, old: str, new: str) -> Any:  # noqa: ANN401 - of JSON
    """The same with another key, all the way down but for options, whose keys are a user's."""
    if isinstance(value, list | tuple):
        return [_renamed(item, old, new) for item in value]
    if isinstance(value, Mapping):
        return {
            new if key == old else key: item if key == "options" else _renamed(item, old, new)
            for key, item in value.items()
        }
    return value


def plain(value: object) -> Any:  # noqa: ANN401 - of JSON
    """Tuples as lists, which JSON has, all the way down."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value
