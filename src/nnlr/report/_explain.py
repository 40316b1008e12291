"""Explain one row: every factor, its source, and why."""

from dataclasses import replace
from textwrap import wrap

from torch.optim import Optimizer

from nnlr._declare.factor import NEUTRAL, Step
from nnlr._declare.moves import Setting
from nnlr._rows.rates import Bases, decay_mode_acts, only
from nnlr._rows.row import PlanRow
from nnlr._schedule.base_rate import as_float
from nnlr._schedule.origin import MULTIPLIERS
from nnlr._text import listed, printable
from nnlr.depth._layer import Layer
from nnlr.report._algorithms import update_lines
from nnlr.report._moves import Now, moving_steps, now_of
from nnlr.report._text import WIDTH, rate


def explain(row: PlanRow, bases: Bases, optimizer: Optimizer | None = None) -> str:
    """Tell how the rates of a parameter came about; see :meth:`nnlr.Plan.explain`."""
    indent = " " * 16
    return "\n".join(
        piece
        for line in explain_lines(row, bases, optimizer)
        for piece in wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False)
    )


def explain_lines(row: PlanRow, bases: Bases, optimizer: Optimizer | None = None) -> list[str]:
    """The explanation in lines of any length: a title and a text each, or a factor, indented."""
    shape = " x ".join(map(str, row.shape)) or "scalar"
    lines = [
        printable(row.name),
        f"  {'shape':<14}{shape}, {row.numel:,} elements",
        f"  {'role':<14}{row.role} (by {row.role_basis})",
    ]
    if row.aliases:
        lines.append(f"  {'tied to':<14}{listed(row.aliases, len(row.aliases))}")
    if row.depth is not None:
        lines.append(f"  {'depth':<14}{Layer(*row.depth, row.tower or '')}")
    lines.append(f"  {'state':<14}{_state(row)}")
    for setting in ("algorithm", "group"):
        lines += _sender_lines(row, setting)
    base = bases.of(row.algorithm)
    now = now_of(row, optimizer)
    lines += _rate_lines(row, "lr", base.lr, now)
    stepped = row._replace(lr=as_float(now.group["lr"])) if now else row
    lines += update_lines(stepped, optimizer) if row.trainable else []
    lines += _rate_lines(row, "weight_decay", base.weight_decay, now)
    if row.lr_mult not in {0, 1} and decay_mode_acts(row.trace, bases):
        how = "lr_mult" if bases.decay == "independent" else "the root of lr_mult"
        lines.append(f"      divided by {how}: decay={bases.decay!r}")
    for name in ("eps_mult", "init_mult"):
        if steps := [step for step in row.trace if getattr(step.factor, name) != 1]:
            lines.append(f"  {name:<14}{rate(getattr(row, name))}")
            lines += [f"      x {rate(getattr(s.factor, name)):<10} {_by(s)}" for s in steps]
    lines += [f"  {'unchanged by':<14}{_by(s)}" for s in row.trace if _explains_no_change(s)]
    for key, value in sorted(row.options.items()):
        source = next(s.source for s in row.trace if key in s.factor.options)
        lines.append(f"  {'option':<14}{key}={value!r} ({source})")
    if shadowed := [name for step in row.trace for name in step.factor.shadowed]:
        lines.append(f"  {'shadowed':<14}{', '.join(shadowed)}")
    return lines


def _state(row: PlanRow) -> str:
    if row.locked:
        unlocked = f"lr_mult {rate(row.unlocked_lr_mult)} once unlocked"
        return f"locked: no gradient, no optimizer state ({unlocked})"
    if row.frozen:
        return "frozen: requires_grad is False, and not by nnlr; the rates below do not act"
    units = listed(dict.fromkeys(moves.unit for _, moves in moving_steps(row)))
    moves = f"; its multipliers move while training, as unit {units}" if units else ""
    return f"trained in group {row.group!r}{moves}"


def _sender_lines(row: PlanRow, setting: str) -> list[str]:
    """The algorithm or group that a parameter is sent to, and who sent it there."""
    steps = [step for step in row.trace if getattr(step.factor, setting) is not None]
    if not steps:
        return []
    value = only(row.trace, setting, row.name)
    lines = [f"  {setting:<14}{value}"]
    for step in steps:
        sent = getattr(step.factor, setting)
        overruled = "" if sent == value else ", overruled"
        lines.append(f"      {sent:<12} {_by(step)}{overruled}")
    return lines


def _rate_lines(row: PlanRow, name: Setting, base: float, now: Now | None) -> list[str]:
    """A rate as base times multiplier, then every step that has a part in it."""
    mult_name = MULTIPLIERS[name]
    parts = []
    for step in row.trace:
        absolute, mult = getattr(step.factor, name), getattr(step.factor, mult_name)
        if absolute is not None:
            text = f"{rate(absolute / base)} = {rate(absolute)} / {rate(base)}" if base else "0"
        elif mult != 1:
            text = rate(mult)
        else:
            continue
        parts.append(f"      x {text:<10} {_by(step)}")
    for step, moves in moving_steps(row):
        if moves.setting == name:
            text = now.mult(step) if now else "moves"
            parts.append(f"      x {text:<10} {step.source}: {moves.how}")
    mult = getattr(row, mult_name)
    title = name.replace("_", " ")
    first = f"  {title:<14}{rate(getattr(row, name))} = {rate(base)} x {rate(mult)}"
    if not parts and mult == 1 and not any(map(_explains_no_change, row.trace)):
        first += " (no scheme speaks of it)"
    if now and (moment := now.rate(name)):
        parts.append(f"  {title.split()[-1] + ' now':<14}{moment}")
    return [first, *parts]


def _explains_no_change(step: Step) -> bool:
    """Whether a scheme has looked at the parameter and says why it changes nothing."""
    bare = replace(step.factor, why="", layer=None)
    return bool(step.factor.why) and bare == NEUTRAL


def _by(step: Step) -> str:
    why = f": {step.factor.why}" if step.factor.why else ""
    via = f" (by the name {', '.join(step.via)})" if step.via else ""
    return f"{step.source}{why}{via}"
