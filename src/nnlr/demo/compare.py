"""The demo itself: two runs from one beginning, and what came out."""

import copy
import textwrap
import time
from collections.abc import Mapping
from functools import partial

import torch
from rich.console import Console
from torch import nn

import nnlr
from nnlr.demo import record, report
from nnlr.demo.data import Digits, load
from nnlr.demo.movement import layers, weights
from nnlr.demo.network import network
from nnlr.demo.options import Options
from nnlr.demo.record import Outcome
from nnlr.demo.train import Run, batch_count, train


def demo(options: Options, console: Console) -> Outcome:
    """Train the example twice and show what each layer did.

    Args:
        options: What was chosen.
        console: Where to show it.

    Returns:
        The numbers, which are in ``movement.json`` too if ``options.out`` is given.

    Raises:
        NnlrError: If an option, a file or the installation is not as it should be.
    """
    begin = time.perf_counter()
    recipe, device = options.recipe, usable_device(options.device)
    if options.out is not None:
        record.prepare(options.out)
    data = load(options.data, options.seed).to(device)
    net = _initialised(options.seed).to(device)
    plan = nnlr.resolve(net, lr=recipe.lr, weight_decay=recipe.weight_decay)
    report.head(console, options, data)
    report.show_plan(console, plan)

    before, twin = weights(net), copy.deepcopy(net)
    # Bare tensors instead of the module: nothing is declared on them.
    uniform = nnlr.resolve(
        dict(twin.named_parameters()), lr=plan.lr, weight_decay=plan.weight_decay
    )
    pairs = {report.DECLARED: (net, plan), report.UNIFORM: (twin, uniform)}
    runs = _train_each(pairs, data, options, console)
    outcome = Outcome(
        layers=layers(plan, before, weights(net), weights(twin)),
        declared=runs[0],
        uniform=runs[1],
        seconds=time.perf_counter() - begin,
    )
    report.outcome(console, options, outcome)
    if options.out is not None:
        record.write(options.out, options, data, outcome)
        report.written(console, options.out)
    return outcome


def usable_device(name: str) -> torch.device:
    """Look a device up, put a number on it and read it back.

    Raises:
        NnlrError: If torch knows no such device, or this computer has none.

    Examples:
        >>> usable_device("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        here = "cpu"
        if torch.accelerator.is_available():
            here += f", {torch.accelerator.current_accelerator()}"
        first = str(error).partition("\n")[0].rstrip(".")
        reason = textwrap.shorten(first, 100, placeholder=" ...")
        raise nnlr.NnlrError(
            f"--device {name}: cannot be used ({reason}).\n  Fix: choose what is here: {here}.",
            device=name,
        ) from error
    return device


def _initialised(seed: int) -> nn.Sequential:
    """The network with the initial weights of a seed; the caller's random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return network()


def _train_each(
    pairs: Mapping[str, tuple[nn.Module, nnlr.Plan]],
    data: Digits,
    options: Options,
    console: Console,
) -> list[Run]:
    steps = options.epochs * batch_count(len(data.train_labels), options.batch_size)
    runs = []
    with report.progress(console) as bar:
        for name, (net, plan) in pairs.items():
            tick = partial(bar.advance, bar.add_task(name, total=steps))
            runs.append(train(net, plan, data, options, tick))
    return runs
