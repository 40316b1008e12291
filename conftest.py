"""Runs the examples of README.md and docs/, and keeps the long tests for `make full`."""

import gc
import os
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE

import pytest
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

import tests.torchvision_shim  # noqa: F401 - before anything imports torchvision

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
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden"
    )


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
