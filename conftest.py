"""Runs the examples of README.md and docs/, and keeps the long tests for `make full`."""

import gc
import os
from contextlib import suppress
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from importlib import import_module
from pkgutil import walk_packages

import pytest
from coverage import Coverage
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

import nnlr

FULL = os.environ.get("NNLR_FULL") == "1"

# The same examples every time, and no database that would make one run depend on another.
settings.register_profile(
    "nnlr",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=1000 if FULL else 60,
)
settings.load_profile("nnlr")

pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=ELLIPSIS | NORMALIZE_WHITESPACE),
        SkipParser(),
    ],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
).pytest()


def pytest_addoption(parser):
    """Add the switch that rewrites golden files."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session):
    """End what else measures a worker of xdist: two that were started before pytest-cov's own.

    It pauses only its own for tests that are marked ``no_cover``.
    """
    while hasattr(session.config, "workerinput") and (other := Coverage.current()):
        other.stop()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Measure the imports of nnlr alone: following those of others takes half a minute."""
    measured = Coverage.current()
    if measured is None or session.config.getoption("tx", None):  # its workers collect
        return (yield)
    measured.stop()
    for name in ("lightning", "peft", "timm", "transformers.trainer"):
        with suppress(ImportError):
            import_module(name)
    measured.start()
    for module in walk_packages(nnlr.__path__, "nnlr."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                import_module(module.name)
    measured.stop()
    collected = yield
    measured.start()
    return collected


def pytest_collection_modifyitems(items):
    """Skip the long tests unless they were asked for."""
    if FULL:
        return
    skip = pytest.mark.skip(reason="long: set NNLR_FULL=1 or run make full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)


def pytest_collection_finish():
    """What was imported by now stays, so the garbage collector need not look at it.

    A million objects of torch, transformers and others would be gone through at every full
    collection, and trainers ask for one at each start.
    """
    gc.collect()
    gc.freeze()
