"""What the demo prints."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import nnlr
from nnlr._text import plural
from nnlr.demo.data import Digits
from nnlr.demo.movement import Layer, ticks
from nnlr.demo.options import Options
from nnlr.demo.record import NUMBERS, PICTURE, Outcome
from nnlr.demo.train import Run, batch_count

# The two series: blue and orange, which every kind of colour vision tells apart, and two
# shapes for when there is no colour.
DECLARED: Final = "declared rates"
UNIFORM: Final = "one rate for all"
_DECLARED: Final = ("●", "bright_blue")
_UNIFORM: Final = ("○", "dark_orange")
_BOTH: Final = ("◉", "bold")
TRACK: Final = 36  # characters of the scale
GAP: Final = 3  # of these, between an exact 0 and the rest
WIDE: Final = 77  # columns that the table takes with its tracks; 38 without


def head(console: Console, options: Options, data: Digits) -> None:
    """Say what will be trained on what."""
    recipe = options.recipe
    settings = "".join(f", {key} {value:g}" for key, value in recipe.settings.items())
    steps = batch_count(len(data.train_labels), options.batch_size)
    threads = f", {plural(torch.get_num_threads(), 'thread')}" if options.device == "cpu" else ""
    lines = {
        "data": data.source,
        "split": f"{len(data.train_labels):,} to train, {len(data.test_labels):,} to test",
        "training": f"{options.duration} of {steps:,} batches, seed {options.seed}, "
        f"on {options.device}{threads}",
        "optimizer": recipe.label + settings,
        "base rates": f"lr {recipe.lr:g}, weight decay {recipe.weight_decay:g}",
    }
    for name, text in lines.items():
        _say(console, Text.assemble((f"{name:12}", "dim"), text))


def show_plan(console: Console, plan: nnlr.Plan) -> None:
    """Print the plan, as ``print(plan)`` does."""
    console.print(Text(f"\n{plan}\n"), soft_wrap=True)


def progress(console: Console) -> Progress:
    """A bar for each run, on a terminal; nothing where the output is kept."""
    return Progress(
        TextColumn("{task.description:17}"),
        BarColumn(bar_width=40),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def outcome(console: Console, options: Options, found: Outcome) -> None:
    """Show how far each layer moved in both runs, and what they came to."""
    title = f"How far each layer moved in {options.duration}: |Δw| / |w|"
    _say(console, Text(title, "bold"))
    console.print(_table(found.layers, console.width))
    if console.width >= WIDE:
        console.print(
            Text.assemble(_DECLARED, f" {DECLARED}   ", _UNIFORM, f" {UNIFORM}   ", _BOTH, " both")
        )
    console.print()
    for name, run in ((DECLARED, found.declared), (UNIFORM, found.uniform)):
        _say(console, _result(name, run))
    still = ", ".join(layer.name for layer in found.layers if layer.locked)
    closing = (
        f"\n{still} is locked and moved by exactly 0 (checked). Its batch norm, bn1, is not "
        "locked: it went on learning."
    )
    _say(console, Text(closing))


def written(console: Console, folder: Path) -> None:
    """Say where the files are."""
    console.print(Text(f"Wrote {folder / NUMBERS} and {folder / PICTURE}"), soft_wrap=True)


def _say(console: Console, text: Text) -> None:
    """Print text without the blanks that rich leaves at the ends of lines it wraps."""
    lines = text.wrap(console, console.width)
    for line in lines:
        line.rstrip()
    console.print(Text("\n").join(lines))


def _result(name: str, run: Run) -> Text:
    return Text.assemble(
        f"{name:18}test accuracy ",
        (f"{run.accuracy:.1%}", "bold"),
        f" ({run.right:,} of {run.tested:,}), last loss {run.losses[-1]:.4f}, {run.seconds:.1f} s",
    )


def _table(layers: Sequence[Layer], width: int) -> Table:
    marks = ticks(layers)
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    grid.add_column("layer", no_wrap=True)
    grid.add_column("lr_mult", no_wrap=True)
    grid.add_column("declared", justify="right", style=_DECLARED[1], no_wrap=True)
    grid.add_column("uniform", justify="right", style=_UNIFORM[1], no_wrap=True)
    if width >= WIDE:
        grid.add_column(_axis(marks), no_wrap=True)
    for layer in layers:
        cells = [
            layer.name,
            layer.rates,
            _number(layer.declared),
            _number(layer.uniform),
        ]
        grid.add_row(*cells, *([_track(layer, marks)] if width >= WIDE else []))
    return grid


def _number(movement: float) -> str:
    if movement == 0:
        return "0"
    return f"{movement:.4f}" if movement >= 0.001 else f"{movement:.1e}"


def _place(movement: float, marks: Sequence[float]) -> int:
    """Column of a movement: 0 for an exact zero, else by its logarithm."""
    if movement == 0:
        return 0
    share = math.log(movement / marks[0]) / math.log(marks[-1] / marks[0])
    return GAP + round(share * (TRACK - GAP - 1))


def _axis(marks: Sequence[float]) -> Text:
    """The numbers above the tracks: 0, both ends, and powers of ten where there is room."""
    line = "0"
    for mark in marks:
        at = _place(mark, marks)
        wanted = mark in (marks[0], marks[-1]) or f"{mark:e}".startswith("1.0")
        if wanted and at > len(line):
            line = f"{line:{at}}{mark:g}"
    return Text(line)


def _track(layer: Layer, marks: Sequence[float]) -> Text:
    """Both movements on one line, joined so that the difference can be seen."""
    ours, theirs = _place(layer.declared, marks), _place(layer.uniform, marks)
    low, high = min(ours, theirs), max(ours, theirs)
    line = " " * GAP + "·" * (TRACK - GAP)
    line = line[:low] + "─" * (high - low) + line[high:]
    cells = [(cell, "dim") for cell in line]
    cells[theirs] = _UNIFORM
    cells[ours] = _BOTH if ours == theirs else _DECLARED
    return Text.assemble(*cells)
