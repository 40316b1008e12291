"""The coordinate check: whether activations change by as much in wide models as in narrow ones.

Train the same model at several widths for a few steps, and look at two numbers for each
module's output ``x``, both means over all its coordinates:

    size(t)   = mean |x_t|          change(t) = mean |x_t - x_0|        after t steps

In a parametrization that carries learning rates over from width to width (muP: Yang et al.
2022, arXiv 2203.03466, appendix D), no size grows with width, and every change is as large
at one width as at another.
"""

from collections.abc import Callable, Iterable, Iterator
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nnlr._arguments import flag, function, names, text, whole
from nnlr._text import shown
from nnlr.errors import NnlrError
from nnlr.report._scaling.coordinate_result import Coordinate, CoordinateCheck
from nnlr.report._scaling.runs import ascending, own_randomness, seed_all, seeds_of, tracked
from nnlr.report._scaling.watching import matching_modules, watching

if TYPE_CHECKING:
    from torch.optim import Optimizer


def coordinate_check(
    prepare: Callable[[int], tuple[nn.Module, "Optimizer"]],
    widths: Iterable[int],
    loss: Callable[[nn.Module], Tensor],
    *,
    steps: int = 3,
    seeds: Iterable[int] = (0, 1, 2),
    modules: Iterable[str] | None = None,
    label: str = "coordinate check",
    progress: bool = False,
) -> CoordinateCheck:
    """Train a few steps at several widths and measure how activations depend on width.

    Before each call of ``prepare`` and ``loss``, torch and Python's ``random`` are seeded, so
    that neither need do so; the caller's random states are given back afterwards. Models are
    trained in the mode (``train`` or ``eval``) in which ``prepare`` returns them.

    Args:
        prepare: Makes a fresh model of a given width and the optimizer that trains it.
        widths: Two or more widths; powers of two over a factor of 8 or more tell most.
        loss: Runs a model on a batch, the same at every call, and returns the loss. Dropout
            gets the same random numbers at every call.
        steps: Optimizer steps, >= 1.
        seeds: Each repeats everything, from initialisation on.
        modules: Names of modules to watch, ``*`` stands for anything; ``None`` for all. A
            module that hands on what another returned is left out.
        label: What is checked, for the table and the picture.
        progress: Show a bar while it runs.

    Raises:
        NnlrError: If an argument is out of range, or one of the functions does not return
            what it should.
        PatternError: If one of ``modules`` matches nothing.

    Examples:
        >>> import torch, nnlr
        >>> from torch import nn
        >>> def prepare(width):
        ...     model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))
        ...     return model, torch.optim.Adam(model.parameters(), lr=0.01)
        >>> x = torch.linspace(-1, 1, 256).reshape(32, 8)
        >>> check = nnlr.report.coordinate_check(
        ...     prepare, [32, 128, 512], lambda model: (model(x) - 1).square().mean()
        ... )
        >>> {name: fault.kind for name, fault in check.faults().items()}
        {'2': 'blows up'}
    """
    function(prepare, "prepare", "def prepare(width): return model, optimizer")
    function(loss, "loss", "lambda model: F.cross_entropy(model(x), y)")
    text(label, "label")
    flag(progress, "progress")
    widths = ascending(widths, "widths", least=2, integers=True)
    seeds = seeds_of(seeds)
    steps = whole(steps, "steps", minimum=1)
    patterns = _patterns(modules)
    rows: list[Coordinate] = []
    runs = [(seed, width) for seed in seeds for width in widths]
    with own_randomness():
        for seed, width in tracked(runs, f"{label}: widths", progress=progress):
            rows += _run(prepare, loss, width, seed, steps, patterns)
    check = CoordinateCheck(label, tuple(rows))
    if not check.modules:
        raise NnlrError(
            "No module is in the models of every width: prepare must make models that "
            "differ in width only."
        )
    return check


def _patterns(modules: object) -> tuple[str, ...] | None:
    """The argument ``modules``, or refuse it."""
    if modules is None:
        return None
    patterns = names(modules, "modules", "['blocks.*', 'head']")
    if not patterns:
        raise NnlrError("modules must hold a name, or be None for all; it is empty.", value=modules)
    return patterns


def _run(  # noqa: PLR0917  a call of coordinate_check, with one width and one seed
    prepare: Callable[[int], tuple[nn.Module, "Optimizer"]],
    loss: Callable[[nn.Module], Tensor],
    width: int,
    seed: int,
    steps: int,
    patterns: tuple[str, ...] | None,
) -> Iterator[Coordinate]:
    """Initialise one model, then measure and step in turns."""
    seed_all(seed)
    # Not the seed of the initial weights: a batch drawn in ``loss`` would be like them.
    batch_seed = int(torch.randint(2**31, ()))
    model, optimizer = _prepared(prepare(width))
    first: dict[str, list[Tensor]] = {}
    for step in range(steps + 1):
        seed_all(batch_seed)
        with watching(matching_modules(model, patterns), first) as outputs:
            value = loss(model)
        differentiable = isinstance(value, Tensor) and value.requires_grad and not value.is_meta
        if not differentiable or value.numel() != 1:
            raise NnlrError(
                "loss must return one number that can be differentiated, got "
                f"{shown(value)}. For example: lambda model: F.cross_entropy(model(x), y)",
                value=value,
            )
        for name, numbers in outputs.items():
            size, change = map(fmean, zip(*numbers, strict=True))
            yield Coordinate(width, seed, step, name, size, change)
        if step < steps:
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _prepared(made: tuple[nn.Module, "Optimizer"]) -> tuple[nn.Module, "Optimizer"]:
    """What ``prepare`` returned, or refuse it."""
    match made:
        case (nn.Module() as model, optimizer) if hasattr(optimizer, "zero_grad"):
            return model, optimizer
    raise NnlrError(
        f"prepare must return a model and its optimizer, got {shown(made)}. For example: "
        "return model, torch.optim.Adam(model.parameters(), lr=lr)",
        value=made,
    )
