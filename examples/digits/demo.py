"""Train a small network twice, show how far each layer moved, and give it a new eye.

    python examples/digits/demo.py [--optimizer sgd|adamw|torch7] [--data DIR] [--out DIR]

Once at the rates declared on its layers (the first convolution locked, the second slow), once at
one rate for all, from the same initial weights and on the same batches. Then the first gets
another camera, and learns from twenty images at one rate and at layer-wise rates. On scikit-learn's
digits this takes less than a minute on two cores; MNIST is 40 times as large. Needs scikit-learn
and matplotlib.
"""

import argparse
import copy
import io
import json
import platform
import sys
import textwrap
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile

import torch
from data import load
from eye import ARMS, PER_DIGIT, RATES, fine_tune, prepare
from network import network
from rich.console import Console
from rich.text import Text
from show import RUNS, plural, progress, show_eye, show_head, show_results
from train import RECIPES, batch_count, train

import nnlr

NUMBERS, PICTURE = "movement.json", "movement.png"  # what --out writes
PACKAGES = ("torch", "numpy", "scikit-learn", "matplotlib")


def parse(arguments=None):
    """The options, from the command line unless given."""
    summary, _, details = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(description=f"{summary} {details}", allow_abbrev=False)
    add = parser.add_argument
    text = (
        "folder with MNIST's four IDX files, plain or .gz, instead of scikit-learn's 1,797 digits"
    )
    add("--data", type=Path, metavar="DIR", help=text)
    bases = ", ".join(f"{name} {r.lr:g} and {r.weight_decay:g}" for name, r in RECIPES.items())
    text = "how to train: torch.optim.SGD or AdamW, or Torch7's way with a vector of rates, which"
    text += f" comes to the same as sgd; base lr and weight decay: {bases} (%(default)s)"
    add("--optimizer", choices=RECIPES, default="sgd", help=text)
    numbers = {
        "--epochs": (6, 1, "passes over the training images"),
        "--batch-size": (64, 2, "images in each step, what is left over is spread"),
        "--seed": (0, 0, "of the split, the initial weights and the batches"),
    }
    for option, (default, lowest, meaning) in numbers.items():
        text = f"{meaning}; at least {lowest} (%(default)s)"
        add(option, type=int, default=default, metavar="N", help=text)
    text = "where to train: cpu, cuda, cuda:1, mps, ... (%(default)s)"
    add("--device", default="cpu", metavar="NAME", help=text)
    add("--out", type=Path, metavar="DIR", help=f"folder to write {NUMBERS} and {PICTURE} to")
    options = parser.parse_args(arguments)
    for option, (_, lowest, _) in numbers.items():
        value = getattr(options, option[2:].replace("-", "_"))
        if not lowest <= value < 2**32:
            parser.error(f"argument {option}: {value} is not from {lowest} to {2**32 - 1}")
    return options


def run(options, console):
    """Train the network twice, show what each layer did, and return what ``--out`` writes."""
    begin = time.perf_counter()
    recipe, device = RECIPES[options.optimizer], usable_device(options.device)
    if options.out is not None:
        prepare_folder(options.out)
    data = load(options.data, options.seed, device)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay
        torch.default_generator.manual_seed(options.seed)
        net = network().to(device)
    plan = nnlr.resolve(net, lr=recipe.lr, weight_decay=recipe.weight_decay)
    epochs = plural(options.epochs, "epoch")
    show_head(console, options, data, epochs)
    console.print(Text(f"\n{plan}\n"), soft_wrap=True)

    before, twin = copy.deepcopy(net.state_dict()), copy.deepcopy(net)
    # Bare tensors instead of the module: nothing is declared on them.
    bare = dict(twin.named_parameters())
    uniform_plan = nnlr.resolve(bare, lr=plan.lr, weight_decay=plan.weight_decay)
    runs, movements = {}, []
    steps = options.epochs * batch_count(len(data.train_labels), options.batch_size)
    with progress(console) as bar:
        for name, model, rates in zip(RUNS, (net, twin), (plan, uniform_plan), strict=True):
            tick = partial(bar.advance, bar.add_task(RUNS[name], total=steps))
            runs[name] = train(model, rates, data, options, tick)
            movements.append(nnlr.report.movement(before, model, rates, label=name))
    check_locked(before, net, plan)
    title = f"How far each layer moved in {epochs}: |Δw| / |w|"
    declared, uniform = movements
    chart = declared.table(uniform, title=title, width=max(console.width, 48))
    show_results(console, title, chart, runs, plan)
    eye = new_eye(net, data, options.seed, console)

    facts = collect(options, data, plan, runs, movements) | {"new_eye": eye}
    facts["seconds"] = round(time.perf_counter() - begin, 3)
    if options.out is not None:
        title = f"How far each layer moved ({epochs}, {options.optimizer})"
        write(options.out, facts, movements, title)
        places = f"{options.out / NUMBERS} and {options.out / PICTURE}"
        console.print(Text(f"Wrote {places}"), soft_wrap=True)
    return facts


def check_locked(before, net, plan):
    """Make sure that what is locked is what it was, bit for bit."""
    after = net.state_dict()
    for row in plan.rows:
        if row.locked and not torch.equal(before[row.name], after[row.name]):
            moved = float((after[row.name] - before[row.name]).norm())
            raise nnlr.NnlrError(
                f"{row.name} is locked, yet it moved by {moved:g}. "
                "This is a bug in nnlr; please report it with the command you ran."
            )


def new_eye(net, data, seed, console):
    """Give the trained network another camera, and count what it reads at each rate.

    The images are those that it has not seen. ``None`` if they are too few.
    """
    if min(data.test_labels.bincount(minlength=10)) <= PER_DIGIT:
        return None
    task = prepare(net, data.test_images, data.test_labels, seed)
    right = {arm: {} for arm in ARMS}
    with progress(console) as bar:
        runs = bar.add_task("a new eye", total=len(ARMS) * len(RATES))
        for arm, slow in ARMS.items():
            for rate in RATES:
                right[arm][rate] = fine_tune(task, slow, "adamw", rate)
                bar.advance(runs)
    result = {"optimizer": "adamw", "right": right, "tested": len(task.answers)}
    show_eye(console, result)
    return result


def collect(options, data, plan, runs, movements):
    """What is worth keeping of both runs, as plain data."""
    recipe = RECIPES[options.optimizer]
    layers = [
        {
            "name": row.name,
            "numel": row.numel,
            "lr_mult": {name.rpartition(".")[2]: plan[name].lr_mult for name in row.params},
            "wd_mult": {name.rpartition(".")[2]: plan[name].wd_mult for name in row.params},
            "locked": row.state == "locked",
            "declared": row.relative,
            "uniform": other.relative,
        }
        for row, other in zip(*(movement.rows for movement in movements), strict=True)
    ]
    train, test = len(data.train_labels), len(data.test_labels)
    bases = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    python = {"python": platform.python_version(), "nnlr": nnlr.__version__}
    return {
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
        "optimizer": {"name": recipe.label, **bases, **recipe.settings},
        "data": {"source": data.source, "train": train, "test": test},
        "layers": layers,
        "runs": {name: {"test_accuracy": r.accuracy, **vars(r)} for name, r in runs.items()},
        "versions": {**python, **{package: installed_version(package) for package in PACKAGES}},
    }


def write(folder, facts, movements, title):
    """Write the numbers as JSON, and the picture."""
    text = json.dumps(facts, indent=2, allow_nan=False)
    (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")
    first, second = (f"{run['test_accuracy']:.1%}" for run in facts["runs"].values())
    declared = replace(movements[0], label=f"{RUNS['declared']}, test accuracy {first}")
    uniform = replace(movements[1], label=f"{RUNS['uniform']}, {second}")
    declared.plot(folder / PICTURE, uniform, title=title)


def usable_device(name):
    """Look a device up, put a number on it and read it back."""
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        usable = "cpu"
        if torch.accelerator.is_available():
            usable += f", {torch.accelerator.current_accelerator()}"
        first = str(error).partition("\n")[0].rstrip(".")
        reason = textwrap.shorten(first, 100, placeholder=" ...")
        raise nnlr.NnlrError(
            f"--device {name}: cannot be used ({reason}).\n  Fix: choose what is here: {usable}."
        ) from error
    return device


def prepare_folder(folder):
    """Check, before any training, that the results can be written at its end."""
    try:
        import matplotlib as _  # noqa: F401  only to see that it is there
    except ImportError as error:
        raise nnlr.NnlrError(
            "The picture of --out needs matplotlib, which is not installed.\n"
            "  Fix: pip install matplotlib. Or leave out --out."
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise nnlr.NnlrError(
            f"--out {str(folder)!r} cannot be written to: {error.strerror}.\n"
            "  Fix: pass a folder of yours; it is made if it does not exist."
        ) from error


def installed_version(package):
    """The version of a package, ``None`` if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(arguments=None):
    """Run the demo; an error of nnlr is printed in red, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows '?' for it, rather than a traceback.
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="replace")
    options = parse(arguments)
    if options.data is None:  # small images: two threads would mostly wait for each other
        torch.set_num_threads(1)
    try:
        run(options, Console(highlight=False))
    except nnlr.NnlrError as error:
        text = Text(f"Error: {error}", "red")
        Console(stderr=True, highlight=False).print(text, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
