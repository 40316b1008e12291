"""Where the readings of the monitor go: the terminal, a file, trackers."""

import json
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TextIO

from nnlr._arguments import flag, function
from nnlr._findings import Finding
from nnlr._text import shown
from nnlr.errors import NnlrError
from nnlr.report._monitor.reading import Reading
from nnlr.report._monitor.text import line
from nnlr.report._text import WIDTH, load_rich

# What takes a reading and the findings that are new.
Output = Callable[[Reading, Sequence[Finding]], None]


class Writer(Protocol):
    """What a ``SummaryWriter`` has."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Add a point to a curve."""
        ...


def outputs_of(
    live: object, jsonl: object, tensorboard: object, log: object, table: Callable[[], str]
) -> "tuple[list[Output], Live | None]":
    """The outputs that arguments name, and the one that has to be ended.

    Args:
        live: Whether to show readings on the standard output.
        jsonl: Path of a file.
        tensorboard: A ``SummaryWriter``.
        log: A function of values and a step.
        table: Makes the table that a terminal shows.
    """
    outputs: list[Output] = []
    terminal = None
    if flag(live, "live"):
        terminal = Live(table)
        outputs.append(terminal)
    if jsonl is not None:
        if not isinstance(jsonl, str | PathLike):
            raise NnlrError(
                f"jsonl must be the path of a file, such as 'run.jsonl', got {shown(jsonl)}.",
                value=jsonl,
            )
        path = Path(jsonl)
        if not path.parent.is_dir():
            raise NnlrError(
                f"jsonl: the folder {str(path.parent)!r} does not exist.\n"
                f"  Fix: Path({str(path.parent)!r}).mkdir(parents=True)",
                value=jsonl,
            )
        outputs.append(_to_file(path))
    if tensorboard is not None:
        if not callable(getattr(tensorboard, "add_scalar", None)):
            raise NnlrError(
                "tensorboard must be a SummaryWriter, or something else with add_scalar, got "
                f"{shown(tensorboard, typed=True)}.",
                value=tensorboard,
            )
        outputs.append(_to_writer(tensorboard))
    if log is not None:
        outputs.append(_to_function(function(log, "log", "wandb.log or accelerator.log")))
    return outputs, terminal


def _to_file(path: Path) -> Output:
    """Append a line of JSON for each reading and each finding."""

    def write(reading: Reading, findings: Sequence[Finding]) -> None:
        lines = [reading.to_dict()]
        lines += [{"step": reading.step, "finding": asdict(finding)} for finding in findings]
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(facts) + "\n" for facts in lines)

    return write


def _to_writer(writer: Any) -> Output:  # noqa: ANN401 - a Writer, as was checked
    """Add a point to each curve of TensorBoard."""

    def write(reading: Reading, _: Sequence[Finding]) -> None:
        for tag, value in reading.scalars().items():
            writer.add_scalar(tag, value, reading.step)

    return write


def _to_function(log: Callable[..., Any]) -> Output:
    """Call a tracker's function with values and the step."""

    def write(reading: Reading, _: Sequence[Finding]) -> None:
        log(reading.scalars(), reading.step)

    return write


class Live:
    """The table on a terminal, drawn over at each reading; elsewhere a line for each.

    Args:
        table: Makes the text to show.
    """

    def __init__(self, table: Callable[[], str]) -> None:
        self._table = table
        self._live: Any = None
        self._end: Callable[[], object] | None = None

    def __call__(self, reading: Reading, findings: Sequence[Finding]) -> None:
        """Show a reading and what is new."""
        out = sys.stdout
        if not out.isatty():
            self._write(out, [line(reading), *map(str, findings)])
            return
        rich = load_rich()
        text = rich.text.Text(self._table(), no_wrap=True, overflow="crop")
        if self._live is None:
            console = rich.console.Console(file=out, width=WIDTH, highlight=False)
            self._live = rich.live.Live(console=console, auto_refresh=False)
            self._live.start()
            # It hides the cursor: shown again when the monitor or the program ends.
            self._end = weakref.finalize(self, self._live.stop)
        self._live.update(text, refresh=True)

    def _write(self, out: TextIO, lines: Sequence[str]) -> None:
        """Write lines at once, so that a file that is watched has them."""
        out.write("\n".join(lines) + "\n")
        out.flush()

    def end(self) -> None:
        """Leave the table where it stands."""
        if self._end is not None:
            self._end()
        self._live = self._end = None
