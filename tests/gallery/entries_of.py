"""The entries of the gallery, and what the tests and the pages ask of them."""

import inspect
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parent / "entries"

NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))

# What every group has; the rest of a group written by hand is an option of its rows.
RATES = {"params", "lr", "weight_decay", "algorithm", "name"}


def entry(name):
    """The module of an entry."""
    return import_module(f"tests.gallery.entries.{name}")


def body(function):
    """The lines of a function below its docstring, without their indent."""
    text = inspect.getsource(function)
    code = text.partition(f'"""{function.__doc__}"""')[2]
    return inspect.cleandoc(code).splitlines()


def by_hand(module, net):
    """Name of a parameter -> its rates, algorithm and options in the groups written by hand."""
    name_of = {param: name for name, param in net.named_parameters()}
    settings = {}
    for group in module.by_hand(net):
        options = {key: value for key, value in group.items() if key not in RATES}
        of_group = (group["lr"], group["weight_decay"], group.get("algorithm"), options)
        for param in group["params"]:
            assert name_of[param] not in settings, f"{name_of[param]} is in two groups"
            settings[name_of[param]] = of_group
    return settings


def with_nnlr(module, net):
    """The same of the plan."""
    return {
        row.name: (row.lr, row.weight_decay, row.algorithm, dict(row.options))
        for row in module.with_nnlr(net)
        if row.trainable
    }
