"""The result of a coordinate check: rows, exponents, faults, the table.

Theory knows growth in powers of the square root of the width: exponents 0, 1/2 and 1.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final, Literal

from nnlr._arguments import instance, number
from nnlr._text import plural
from nnlr.report._label import broken
from nnlr.report._scaling.runs import power
from nnlr.report._text import WIDTH, columns_of, load_rich, rate, render

# Half way between flat and the slowest growth that theory knows, the square root.
TOLERANCE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Coordinate:
    """How large one module's output is in one run.

    Attributes:
        width: Width of the model.
        seed: Seed of the run.
        step: Optimizer steps taken before this forward pass; 0 is initialisation.
        module: Name of the module; ``[0]`` or ``[key]`` follows where it returns several.
        size: Mean of ``|x|`` over all coordinates.
        change: Mean of ``|x - x at step 0|``.
    """

    width: int
    seed: int
    step: int
    module: str
    size: float
    change: float


@dataclass(frozen=True, slots=True)
class Growth:
    """How one module's numbers grow with width: ``~ width ** exponent``.

    Attributes:
        module: Name of the module.
        step: Optimizer steps taken.
        size: Exponent of the size; NaN if it is 0 at every width.
        change: Exponent of the change; NaN if nothing changed, as at step 0.
    """

    module: str
    step: int
    size: float
    change: float


@dataclass(frozen=True, slots=True)
class Fault:
    """A module whose output depends on width as it should not.

    Attributes:
        module: Name of the module.
        kind: ``"blows up"`` or ``"vanishes"``.
        step: The step where this is clearest; 0 is initialisation.
        exponent: Of the size at step 0, of the change later.
    """

    module: str
    kind: Literal["blows up", "vanishes"]
    step: int
    exponent: float

    def __str__(self) -> str:
        """One sentence."""
        what = f"change after {plural(self.step, 'step')}" if self.step else "size"
        return f"{self.module} {self.kind}: {what} ~ width^{self.exponent:.2f}"


@dataclass(frozen=True, slots=True)
class CoordinateCheck:
    """What :func:`nnlr.report.coordinate_check` measured; ``print`` it, plot it, or read its rows.

    Attributes:
        label: What was checked.
        rows: One for each width, seed, step and module.
    """

    label: str
    rows: tuple[Coordinate, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths, smallest first."""
        return tuple(sorted({row.width for row in self.rows}))

    @property
    def steps(self) -> tuple[int, ...]:
        """The numbers of steps after which was measured, from 0."""
        return tuple(sorted({row.step for row in self.rows}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(dict.fromkeys(row.seed for row in self.rows))

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that ran at every width, seed and step, in the order in which they run."""
        counts = Counter(row.module for row in self.rows)
        runs = len(self.widths) * len(self.seeds) * len(self.steps)
        return tuple(module for module, count in counts.items() if count == runs)

    def growth(self) -> tuple[Growth, ...]:
        """Exponents of growth with width, by least squares over all widths and seeds."""
        points: dict[tuple[str, int], list[Coordinate]] = {}
        common = set(self.modules)
        for row in self.rows:
            if row.module in common:
                points.setdefault((row.module, row.step), []).append(row)
        return tuple(
            Growth(
                module,
                step,
                power((row.width, row.size) for row in rows),
                power((row.width, row.change) for row in rows),
            )
            for (module, step), rows in points.items()
        )

    def faults(self, tolerance: float = TOLERANCE) -> dict[str, Fault]:
        """Modules that blow up or vanish as the model gets wider; none if all is well.

        A module blows up if its size at initialisation, or its change after any number of
        steps, grows faster than ``width ** tolerance``. It vanishes if its change shrinks
        faster than ``width ** -tolerance`` after every number of steps: a wide model does not
        learn there. A size that only shrinks at initialisation is no fault (muP's readout
        starts that way), and neither is a module that never changes.

        Args:
            tolerance: Largest exponent that counts as flat, >= 0. The default is half way
                to the square root.

        Returns:
            Module -> its fault.
        """
        tolerance = number(tolerance, "tolerance")
        faults: dict[str, Fault] = {}
        for first, steepest in _summaries(self.growth()):
            name = first.module
            if first.size > tolerance:
                faults[name] = Fault(name, "blows up", 0, first.size)
            elif steepest.change > tolerance:
                faults[name] = Fault(name, "blows up", steepest.step, steepest.change)
            elif steepest.change < -tolerance:
                faults[name] = Fault(name, "vanishes", steepest.step, steepest.change)
        return faults

    def table(self, tolerance: float = TOLERANCE) -> str:
        """Sizes, changes and their exponents in 80 columns, one line for each module.

        The change is shown after the number of steps where it grows most with width.
        """
        rich = load_rich()
        tolerance = number(tolerance, "tolerance")
        faults = self.faults(tolerance)
        low, high = self.widths[0], self.widths[-1]
        titles = [f"size\n{low}", f"\n{high}", "\nexp."]
        titles += [f"change\n{low}", f"\n{high}", "\nexp.", "\nstep", ""]
        cells = self._cells(faults)
        columns = zip(*cells.values(), strict=True)
        taken = sum(
            max(map(len, [*t.split(), *c])) + 2 for t, c in zip(titles, columns, strict=True)
        )
        box = rich.box.SIMPLE_HEAD
        grid = rich.table.Table(box=box, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        grid.add_column("module", no_wrap=True)
        for title in titles:
            justify: Literal["left", "right"] = "right" if title else "left"
            grid.add_column(title, justify=justify, no_wrap=True)
        for name, row in cells.items():
            grid.add_row(rich.text.Text("\n".join(broken(name, WIDTH - taken, columns_of))), *row)
        widths, seeds = plural(len(self.widths), "width"), plural(len(self.seeds), "seed")
        head = f"{self.label}: {widths}, {seeds}, {plural(self.steps[-1], 'step')}"
        total = plural(len(self.modules), "module")
        kinds = [fault.kind for fault in faults.values()]
        counts = [
            f"{kinds.count(kind)} {verb}"
            for kind, verb in (("blows up", "blow up"), ("vanishes", "vanish"))
            if kind in kinds
        ]
        verdict = f"not flat: of {total} {' and '.join(counts)}" if faults else f"flat: {total}"
        foot = [
            "size: mean |x| at initialisation; change: mean |x - x at initialisation| after",
            "the step given, where it grows most with width; exp.: both ~ width^exp.",
            f"{verdict} (tolerance {tolerance:g})",
        ]
        return "\n".join([head, render(grid), *foot])

    def _cells(self, faults: Mapping[str, Fault]) -> dict[str, list[str]]:
        """Module -> what stands right of its name."""
        by_run: dict[tuple[str, int, int], list[Coordinate]] = {}
        for row in self.rows:
            by_run.setdefault((row.module, row.step, row.width), []).append(row)

        def mean(what: str, growth: Growth, width: int) -> str:
            rows = by_run[growth.module, growth.step, width]
            return rate(float(f"{fmean(getattr(row, what) for row in rows):.3g}"))

        ends = (self.widths[0], self.widths[-1])
        return {
            (name := first.module): [
                *(mean("size", first, width) for width in ends),
                _signed(first.size),
                *(mean("change", steepest, width) for width in ends),
                _signed(steepest.change),
                str(steepest.step),
                faults[name].kind if name in faults else "",
            ]
            for first, steepest in _summaries(self.growth())
        }

    def __str__(self) -> str:
        """The table."""
        return self.table()

    def plot(self, path: str | Path, *others: "CoordinateCheck") -> None:
        """Draw sizes and changes over width, a row of panels for each check.

        Args:
            path: Where to save the picture; its suffix gives the format.
            *others: Further checks to draw below, on the same scale.

        Raises:
            NnlrError: If an argument is none of these, or matplotlib is not installed.
            OSError: If the file cannot be written.
        """
        from nnlr.report._plot_style import as_path
        from nnlr.report._scaling.pictures import draw_coordinates

        checks = [instance(check, "each of others", CoordinateCheck) for check in (self, *others)]
        draw_coordinates(checks, as_path(path))


def _summaries(growth: Iterable[Growth]) -> list[tuple[Growth, Growth]]:
    """For each module: at initialisation, and where its change grows most with width."""
    by_module: dict[str, list[Growth]] = {}
    for entry in growth:
        by_module.setdefault(entry.module, []).append(entry)

    def steepness(growth: Growth) -> float:
        return -math.inf if math.isnan(growth.change) else growth.change

    return [(first, max(later, key=steepness)) for first, *later in by_module.values()]


def _signed(exponent: float) -> str:
    """An exponent with its sign."""
    return "-" if math.isnan(exponent) else f"{exponent:+.2f}"
