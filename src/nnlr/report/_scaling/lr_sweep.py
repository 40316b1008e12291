"""A sweep over learning rates: whether the best one stays the same as the model gets wider.

Train at every width with every learning rate and compare the losses at the end. If the
optimum stays put, a rate found on a narrow model serves a wide one (Yang et al. 2022, arXiv
2203.03466, figure 1); if it drifts, the drift says how far off the rate would be.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from statistics import fmean

from torch import Tensor

from nnlr._arguments import flag, function, instance, text, whole
from nnlr._text import listed, plural, shown
from nnlr.errors import NnlrError
from nnlr.report._scaling.runs import ascending, own_randomness, seed_all, seeds_of, tracked
from nnlr.report._text import load_rich, rate, render


@dataclass(frozen=True, slots=True)
class Trial:
    """The end of one run.

    Attributes:
        width: Width of the model.
        lr: Learning rate.
        seed: Seed of the run.
        loss: What ``train`` returned; infinite if the run diverged.
    """

    width: int
    lr: float
    seed: int
    loss: float


@dataclass(frozen=True, slots=True)
class LrSweep:
    """What :func:`lr_sweep` measured; ``print`` it, plot it, or read its rows.

    Attributes:
        label: What was trained.
        rows: One for each width, learning rate and seed.
    """

    label: str
    rows: tuple[Trial, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths, smallest first."""
        return tuple(sorted({row.width for row in self.rows}))

    @property
    def lrs(self) -> tuple[float, ...]:
        """The learning rates, smallest first."""
        return tuple(sorted({row.lr for row in self.rows}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(dict.fromkeys(row.seed for row in self.rows))

    def losses(self, width: int) -> dict[float, float]:
        """Learning rate -> mean loss over the seeds; infinite if any of them diverged."""
        width = self._width(width)
        runs: dict[float, list[float]] = {lr: [] for lr in self.lrs}
        for row in self.rows:
            if row.width == width:
                runs[row.lr].append(row.loss)
        return {lr: fmean(losses) for lr, losses in runs.items()}

    def _width(self, width: object) -> int:
        """A width at which there are runs, or refuse another."""
        chosen = whole(width, "width")
        if chosen not in self.widths:
            raise NnlrError(f"No run has the width {shown(chosen)}; widths: {self.widths}.")
        return chosen

    @property
    def best(self) -> dict[int, float]:
        """Width -> learning rate of the lowest mean loss; NaN if all diverged."""
        return {width: _argmin(self.losses(width)) for width in self.widths}

    def best_of_seeds(self, width: int) -> tuple[float, ...]:
        """The learning rate of the lowest loss for each seed alone: how sure the best is."""
        width = self._width(width)
        runs: dict[int, dict[float, float]] = {seed: {} for seed in self.seeds}
        for row in self.rows:
            if row.width == width:
                runs[row.seed][row.lr] = row.loss
        return tuple(_argmin(losses) for losses in runs.values())

    @property
    def drift(self) -> float:
        """Octaves (factors of 2) by which the best rate moves, narrowest to widest model."""
        best = self.best
        return math.log2(best[self.widths[-1]] / best[self.widths[0]])

    def regret(self, width: int) -> float:
        """Loss at the narrowest model's best rate, over the lowest loss: 1 is a transfer."""
        losses = self.losses(width)
        carried = self.best[self.widths[0]]
        lowest = min(losses.values())
        return losses.get(carried, math.nan) / lowest if lowest > 0 else math.nan

    def at_edge(self) -> tuple[int, ...]:
        """Widths whose best rate is the smallest or largest tried: the optimum may be beyond."""
        ends = (self.lrs[0], self.lrs[-1])
        return tuple(width for width, lr in self.best.items() if lr in ends)

    def table(self) -> str:
        """Best rates, losses and the drift in 80 columns, one line for each width."""
        rich = load_rich()
        best = self.best
        narrow = self.widths[0]
        box = rich.box.SIMPLE_HEAD
        grid = rich.table.Table(box=box, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
        titles = ["width", "best lr", "log2", "per seed", "loss"]
        titles += [f"loss at lr\nof {narrow}", "ratio"]
        for title in titles:
            grid.add_column(title, justify="right", no_wrap=True)
        for width, lr in best.items():
            losses = self.losses(width)
            grid.add_row(
                str(width),
                rate(lr),
                _octave(lr),
                _range(self.best_of_seeds(width)),
                rate(min(losses.values())),
                rate(losses.get(best[narrow], math.nan)),
                f"{self.regret(width):.2f}",
            )
        lrs = f"{plural(len(self.lrs), 'rate')} from {rate(self.lrs[0])} to {rate(self.lrs[-1])}"
        head = f"{self.label}: {lrs}, {plural(len(self.seeds), 'seed')}"
        last = self.widths[-1]
        per_doubling = self.drift / math.log2(last / narrow)
        moved = f"{self.drift:+.1f} octaves, {per_doubling:+.2f} per doubling of the width"
        lines = [head, render(grid), f"best lr from width {narrow} to {last}: {moved}"]
        if edge := self.at_edge():
            widths = listed(map(str, edge))
            lines.append(f"best lr at the edge for width {widths}: try more rates")
        if diverged := [str(width) for width, lr in best.items() if math.isnan(lr)]:
            lines.append(f"every run diverged at width {listed(diverged)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        """The table."""
        return self.table()

    def plot(self, path: str | Path, *others: "LrSweep") -> None:
        """Draw the loss over the learning rate, a line for each width.

        Args:
            path: Where to save the picture; its suffix gives the format.
            *others: Further sweeps to draw beside it, on the same scale.

        Raises:
            NnlrError: If an argument is none of these, or matplotlib is not installed.
            OSError: If the file cannot be written.
        """
        from nnlr.report._plot_style import as_path
        from nnlr.report._scaling.pictures import draw_sweeps

        sweeps = [instance(sweep, "each of others", LrSweep) for sweep in (self, *others)]
        draw_sweeps(sweeps, as_path(path))


def lr_sweep(
    train: Callable[[int, float], float],
    widths: Iterable[int],
    lrs: Iterable[float],
    *,
    seeds: Iterable[int] = (0, 1, 2),
    label: str = "learning-rate sweep",
    progress: bool = False,
) -> LrSweep:
    """Train at every width with every learning rate, and see where the best rate is.

    Before each run torch and Python's ``random`` are seeded, so that ``train`` need not do
    so; the caller's random states are given back afterwards.

    Args:
        train: Trains a model of a given width at a given base rate, and returns its final
            loss. NaN and infinity mean that it diverged.
        widths: Two or more widths.
        lrs: Three or more learning rates, > 0; factors of 2 from well below to well above
            the best one.
        seeds: Each repeats everything.
        label: What is trained, for the table and the picture.
        progress: Show a bar while it runs.

    Raises:
        NnlrError: If an argument is out of range, or ``train`` returns no number.

    Examples:
        >>> import math, nnlr
        >>> def train(width, lr):  # a stand-in: the best rate is 1 / width
        ...     return 1 + math.log2(lr * width) ** 2
        >>> sweep = nnlr.report.lr_sweep(train, [4, 8], [1/16, 1/8, 1/4, 1/2], seeds=[0])
        >>> sweep.best
        {4: 0.25, 8: 0.125}
        >>> sweep.drift, sweep.regret(8)
        (-1.0, 2.0)
    """
    function(train, "train", "def train(width, lr): return loss")
    text(label, "label")
    flag(progress, "progress")
    widths = ascending(widths, "widths", least=2, integers=True)
    lrs = ascending(lrs, "lrs", least=3)
    seeds = seeds_of(seeds)
    runs = [(width, lr, seed) for width in widths for lr in lrs for seed in seeds]
    rows: list[Trial] = []
    with own_randomness():
        for width, lr, seed in tracked(runs, f"{label}: runs", progress=progress):
            seed_all(seed)
            rows.append(Trial(width, lr, seed, _loss(train(width, lr))))
    return LrSweep(label, tuple(rows))


def _loss(value: object) -> float:
    """A loss as a float, infinite if it is NaN."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_meta:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise NnlrError(
            f"train must return the final loss as a number, got {shown(value)}.", value=value
        )
    loss = float(value)
    return math.inf if math.isnan(loss) else loss


def _argmin(losses: Mapping[float, float]) -> float:
    """The rate of the lowest loss; NaN if all diverged."""
    lr = min(losses, key=losses.__getitem__)
    return lr if math.isfinite(losses[lr]) else math.nan


def _octave(lr: float) -> str:
    """The power of two that a rate is."""
    return f"{math.log2(lr):+.1f}".removesuffix(".0")


def _range(lrs: Iterable[float]) -> str:
    """Smallest and largest, as powers of two."""
    finite = sorted(lr for lr in lrs if not math.isnan(lr))
    ends = list(dict.fromkeys(map(_octave, finite[:1] + finite[-1:])))
    return " to ".join(ends) or "-"
