"""Plans as plain dicts, and back."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from nnlr._declare.factor import NEUTRAL, Factor, Step
from nnlr._findings import Finding
from nnlr._rows.rates import Bases, make_bases
from nnlr._rows.row import PlanRow, with_bases
from nnlr._text import listed
from nnlr.errors import ConfigError

# Raised when the layout changes in a way that older readers would misread.
VERSION: Final = 1

_ROW_FIELDS: Final = tuple(name for name in PlanRow._fields if name not in {"trace", "group"})


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
        "findings": [_with(list, asdict(finding)) for finding in findings],
        "steps": steps,
        "rows": [
            {
                **{name: _with(list, getattr(row, name)) for name in _ROW_FIELDS},
                "trace": [position[id(step)] for step in row.trace],
            }
            for row in rows
        ],
    }


def plan_from_facts(
    facts: Mapping[str, Any],
) -> tuple[list[PlanRow], Bases, str, tuple[Finding, ...]]:
    """Read what :func:`plan_facts` wrote."""
    if not isinstance(facts, Mapping) or "nnlr_plan" not in facts:
        raise ConfigError("This is not a plan: it has no 'nnlr_plan' version. See Plan.to_dict.")
    if facts["nnlr_plan"] != VERSION:
        raise ConfigError(
            f"This plan has the layout {facts['nnlr_plan']!r}; this nnlr reads {VERSION}."
        )
    try:
        steps = [_step(step) for step in facts["steps"]]
        rows = [_row(row, steps) for row in facts["rows"]]
        bases = make_bases(facts["lr"], facts["weight_decay"], facts["decay"])
        findings = tuple(Finding(**_with(tuple, finding)) for finding in facts["findings"])
        derived = with_bases(rows, bases)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"This plan cannot be read ({type(error).__name__}: {error}). It must be what "
            "Plan.to_dict or Plan.to_json wrote."
        ) from error
    counts = Counter(row.name for row in rows)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ConfigError(
            f"This plan has been changed: it has more than one row for {listed(twice)}.",
            name=twice[0],
        )
    for row, expected in zip(rows, derived, strict=True):
        if row != expected:
            raise ConfigError(
                f"This plan has been changed: the rates or the state of {row.name!r} do not "
                "follow from its trace. Change the scheme and call nnlr.resolve again.",
                name=row.name,
            )
    return rows, bases, str(facts["model"]), findings


def _step_facts(step: Step) -> dict[str, Any]:
    """A step as a plain dict; fields of its factor that are neutral are left out."""
    factor = {
        f.name: _with(list, getattr(step.factor, f.name))
        for f in fields(Factor)
        if getattr(step.factor, f.name) != getattr(NEUTRAL, f.name)
    }
    return {
        "source": step.source,
        "explicit": step.explicit,
        "via": list(step.via),
        "factor": factor,
    }


def _step(facts: Mapping[str, Any]) -> Step:
    """The step that :func:`_step_facts` wrote."""
    return Step(
        str(facts["source"]),
        Factor(**_with(tuple, facts["factor"])),
        explicit=bool(facts["explicit"]),
        via=tuple(facts["via"]),
    )


def _row(facts: Mapping[str, Any], steps: Sequence[Step]) -> PlanRow:
    """The row of a plan's dict."""
    values = {name: _with(tuple, facts[name]) for name in _ROW_FIELDS}
    if not all(type(size) is int and size >= 0 for size in values["shape"]):
        raise ConfigError(f"the shape of {values['name']!r} is not made of whole numbers")
    return PlanRow(**values, trace=tuple(steps[index] for index in facts["trace"]))


def _with(kind: type[list[Any] | tuple[Any, ...]], value: object) -> Any:  # noqa: ANN401 - of JSON
    """Sequences as lists, which JSON has, or as tuples, which rows hold, all the way down."""
    if isinstance(value, list | tuple):
        return kind(_with(kind, item) for item in value)
    if isinstance(value, Mapping):
        return {key: _with(kind, item) for key, item in value.items()}
    return value
