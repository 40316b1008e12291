"""Shared by the coordinate check and the sweep: arguments, seeds, progress, fits."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import linear_regression
from typing import TypeVar, cast

import torch

from nnlr._arguments import is_listing, number, whole
from nnlr._text import shown
from nnlr.errors import NnlrError
from nnlr.report._text import load_rich

Run = TypeVar("Run")

Real = TypeVar("Real", bound=float)


def ascending(
    values: Iterable[Real], what: str, *, least: int, integers: bool = False
) -> tuple[Real, ...]:
    """Different positive numbers, smallest first; whole ones, if they must be."""
    if not is_listing(values):
        raise NnlrError(
            f"{what} must be {least} or more positive numbers, got {shown(values)}.", value=values
        )
    one = f"each of {what}"
    checked = [whole(v, one, minimum=1) if integers else number(v, one, above=0) for v in values]
    numbers = cast("list[Real]", sorted(checked))
    if len(set(numbers)) < len(numbers) or len(numbers) < least:
        raise NnlrError(
            f"{what} must be {least} or more different positive numbers, got {numbers}.",
            value=values,
        )
    return tuple(numbers)


def seeds_of(values: Iterable[int]) -> tuple[int, ...]:
    """Different whole numbers, in their order."""
    seeds = (
        tuple(whole(seed, "each of seeds", minimum=0) for seed in values)
        if is_listing(values)
        else ()
    )
    if not seeds or max(seeds) >= 2**63 or len(set(seeds)) < len(seeds):
        raise NnlrError(
            f"seeds must be different whole numbers >= 0 such as range(3), got {shown(values)}.",
            value=values,
        )
    return seeds


@contextmanager
def own_randomness() -> Iterator[None]:
    """Restore the random states of torch and Python afterwards."""
    state = random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(state)


def seed_all(seed: int) -> None:
    """Seed torch and Python alike."""
    random.seed(seed)
    torch.manual_seed(seed)


def tracked(runs: Sequence[Run], what: str, *, progress: bool) -> Iterable[Run]:
    """The runs, with a progress bar on standard error if asked for."""
    if not progress:
        return runs
    console = load_rich().console.Console(stderr=True)
    from rich.progress import track

    return track(runs, what, console=console, transient=True)


def power(points: Iterable[tuple[float, float]]) -> float:
    """The exponent ``e`` of ``y ~ x ** e``, by least squares on logarithms.

    Infinite as soon as one ``y`` is not finite; NaN where every ``y`` is 0. If only some are
    0, they count as the smallest float32 there is.

    Examples:
        >>> round(power([(1, 3), (2, 6), (4, 12)]), 6)
        1.0
    """
    xs, ys = zip(*points, strict=True)
    if not all(y < math.inf for y in ys):  # NaN is not less either
        return math.inf
    if not any(ys):
        return math.nan
    tiny = torch.finfo(torch.float32).tiny
    x_logs = [math.log(x) for x in xs]
    return linear_regression(x_logs, [math.log(max(y, tiny)) for y in ys]).slope
