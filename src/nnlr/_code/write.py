"""The text: functions that build a plan's groups and its optimizer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn

from nnlr._apply.locate import Located
from nnlr._apply.lock import Locks
from nnlr._apply.optimizer import Part, parts_of
from nnlr._apply.param_groups import FittedPlan, ParamGroup
from nnlr._apply.signature import refuse_nothing
from nnlr._code.classes import Imports
from nnlr._code.fold import Folder
from nnlr._code.groups import GroupsWriter
from nnlr._code.lines import Brackets, comment, literal, quoted
from nnlr._model.names import Slot, Source, unwrapping, wrapped_attrs
from nnlr._rows.groups import make_groups
from nnlr._rows.rates import Bases, only
from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural, printable
from nnlr.errors import ConfigError
from nnlr.optim._members import ALGORITHM

# Wrappers that come and go as a model is run; PEFT's are part of the model.
_AROUND: Final = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)

_SCALE: Final = '''\


@torch.no_grad()
def scale_initial_weights(model: nn.Module) -> None:
    """Scale the weights of a new model, once, before it trains; never those of a checkpoint."""
{table}
    rows = [(re.compile(translate(pattern)), factor) for pattern, factor in table]
    for name, param in model.named_parameters():
        for regex, factor in rows:
            if regex.match(name):
                param.mul_(factor)'''


def code(
    rows: Sequence[PlanRow],
    bases: Bases,
    label: str,
    source: Source | None,
    *,
    cls: Any,  # noqa: ANN401 - what Plan.optimizer takes
    settings: Mapping[str, Any],
) -> str:
    """The functions of a plan; see ``Plan.to_code``, whose arguments these are."""
    _refuse_moves(rows)
    fit = _fit(rows, bases, source)
    parts: Mapping[str | None, Part] = {}
    if cls is None:
        groups = _without_class(fit, settings)
    else:
        parts = parts_of(cls, settings, fit)
        groups = [group for part in parts.values() for group in part.declared()]
    several = isinstance(cls, Mapping) or (cls is None and any(ALGORITHM in g for g in groups))
    imports = Imports()
    made = {name: imports.call(part, _argument(name)) for name, part in parts.items()}
    scaled = {p.places[0].raw(): p.row.init_mult for p in fit.located if p.row.init_mult != 1}
    names = {param.row.name: param.places[0].raw() for param in fit.located}
    locked = {param.row.name for param in fit.located if param.row.locked}
    apart = {p.row.name for p in fit.located if only(p.row.trace, "group", p.row.name)}
    lines = [
        *_heading(rows, label, len(groups)),
        "import re",
        "from fnmatch import translate",
        "",
        *(["import torch"] if made or scaled else []),
        *imports.lines(),
        "",
        "",
        *GroupsWriter(groups, names, locked, fit.bases, several=several, apart=apart).lines(),
        *(_optimizer(made, several=several) if made else []),
    ]
    if scaled:
        lines.append(_SCALE.format(table="\n".join(_factors(list(names.values()), scaled))))
    return "\n".join(lines) + "\n"


def _refuse_moves(rows: Sequence[PlanRow]) -> None:
    """Refuse a plan whose rates change by layer while training."""
    trained = (row for row in rows if row.trainable)
    steps = (step for row in trained for step in row.trace if step.factor.moves is not None)
    if sources := list(dict.fromkeys(step.source for step in steps)):
        raise ConfigError(
            f"This plan moves multipliers while training, by {listed(sources)}, and groups of "
            "plain torch stay as they are: code for it would train something else. Resolve a "
            "scheme without that (scheme in place of scheme.at(...)) and write the rest by hand "
            "into group['lr'], or stay with nnlr: plan.optimizer(...) and nnlr.attach(...).",
            sources=sources,
        )


def _fit(rows: Sequence[PlanRow], bases: Bases, source: Source | None) -> FittedPlan:
    """The plan on its model without wrappers, or on its own names and shapes without a model."""
    if isinstance(source, nn.Module):
        source = next(each for each in unwrapping(source) if not _is_around(type(each)))
    if source is not None:
        fit = FittedPlan.of(rows, bases, source, partial=False, locked="drop", init="done")
        return replace(fit, located=[_off_meta(param) for param in fit.located])
    located = [
        Located(row, (Slot(row.name, _small(row.shape, torch.float32), None, ""),)) for row in rows
    ]
    algorithms = dict.fromkeys([*bases.algorithms, *(r.algorithm for r in rows if r.algorithm)])
    return FittedPlan(
        groups=make_groups(rows, bases.algorithms),
        located=located,
        locks=Locks((), ()),
        bases=bases,
        algorithms=tuple(algorithms),
        model={},
    )


def _off_meta(param: Located) -> Located:
    """A parameter with a small tensor in place of one without data, which some classes refuse."""
    if not param.tensor.is_meta:
        return param
    tensor = _small(param.row.shape, param.tensor.dtype)
    return Located(param.row, tuple(replace(place, tensor=tensor) for place in param.places))


def _small(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of as many axes."""
    return torch.empty([min(size, 1) for size in shape], dtype=dtype)


def _is_around(cls: type) -> bool:
    """Whether modules of a class stand around a model for a while."""
    return not wrapped_attrs(cls).isdisjoint(_AROUND)


def _without_class(fit: FittedPlan, settings: Mapping[str, Any]) -> list[ParamGroup]:
    """The groups for an optimizer that is not named."""
    if settings:
        raise ConfigError(
            f"{listed(settings)}: settings are those of a class, which comes first: "
            f"plan.to_code(torch.optim.AdamW, {next(iter(settings))}=...).",
            setting=next(iter(settings)),
        )
    refuse_nothing(fit.groups, "an optimizer")
    if scaled := [g.name for g in fit.groups if g.eps_mult != 1 and "eps" not in g.options]:
        raise ConfigError(
            f"The plan multiplies the optimizer's eps in {plural(len(scaled), 'group')}: name the "
            "class, whose eps it is: plan.to_code(torch.optim.AdamW).",
            groups=scaled,
        )
    return fit.param_groups()


def _heading(rows: Sequence[PlanRow], label: str, groups: int) -> list[str]:
    """What the code is of, as a comment."""
    frozen = sum(row.locked for row in rows)
    trained = plural(sum(row.trainable for row in rows), "parameter")
    counts = f"{trained} in {plural(groups, 'group')}"
    counts += f", {frozen} frozen" if frozen else ""
    sources = dict.fromkeys(step.source for row in rows for step in row.trace)
    text = f"Parameter groups of {printable(label)}: {counts}."
    lines = comment(text.split(" "))
    if sources:
        lines += comment(f"From {listed(sources)}.".split(" "))
    return lines


def _argument(algorithm: str | None) -> str:
    """The groups of one algorithm."""
    return "param_groups(model)" if algorithm is None else f"groups[{literal(algorithm, '')}]"


def _optimizer(made: Mapping[str | None, Brackets], *, several: bool) -> list[str]:
    """The function that builds the optimizer, or one for each algorithm."""
    if not several:
        (one,) = made.values()
        return [
            "",
            "",
            "def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:",
            '    """Return the optimizer of the groups."""',
            *Brackets(f"return {one.opening}", one.items, ")").lines(4),
        ]
    members = []
    for name, each in made.items():
        opening = f"{literal(name, '')}: {each.opening}"
        members.append(Brackets(opening, each.items, ")"))
    return [
        "",
        "",
        "def make_optimizers(model: nn.Module) -> dict[str, torch.optim.Optimizer]:",
        '    """Return an optimizer for each algorithm.',
        "",
        "    Every one of them needs zero_grad, step, a scheduler of its own, and its part of the",
        "    checkpoint; a GradScaler unscales and steps each before its one update.",
        '    """',
        "    groups = param_groups(model)",
        *Brackets("return {", members, "}", opened=True).lines(4),
    ]


def _factors(names: Sequence[str], scaled: Mapping[str, float]) -> list[str]:
    """The table of factors on initial weights."""
    folder = Folder(names)
    rows = []
    for factor in dict.fromkeys(scaled.values()):
        same = [name for name in names if scaled.get(name) == factor]
        rows += [
            Brackets("(", [quoted(pattern), repr(factor)], ")") for pattern in folder.fold(same)
        ]
    return Brackets("table = [", rows, "]", opened=True).lines(4)
