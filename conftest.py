"""Runs the examples of README.md and docs/, and keeps the long tests for `make full`."""

import gc
import os
from contextlib import contextmanager, suppress
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
MEASURED = pytest.StashKey()

# The same examples every time, and no database that would make one run depend on another.
settings.register_profile(
    "nnlr",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=1000 if FULL else 20,
)
settings.load_profile("nnlr")

pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=ELLIPSIS | NORMALIZE_WHITESPACE),
        SkipParser(),
    ],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    excludes=["docs/gallery/*.md"],  # tests/gallery runs what they show
).pytest()


def pytest_addoption(parser):
    """Add the switch that rewrites golden files."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    """Stop the measurement; it goes on where code of a test runs (:func:`measured`).

    To trace pytest itself takes as long as half of the tests do. In a worker of xdist two others
    measure beside pytest-cov's own, which was started last.
    """
    session.config.stash[MEASURED] = Coverage.current()
    while running := Coverage.current():
        running.stop()
        running.save()  # a worker may end after its measurements are put together


@contextmanager
def measured(node):
    """Measure what is covered by a test or a fixture, unless it is marked ``no_cover``."""
    coverage = node.config.stash[MEASURED]
    if coverage is None or Coverage.current() or node.get_closest_marker("no_cover"):
        yield
        return
    coverage.start()
    try:
        yield
    finally:
        coverage.stop()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_fixture_setup(request):
    """Measure a fixture."""
    with measured(request.node):
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item):
    """Measure a test."""
    with measured(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Let what a test that is not measured starts, not be measured either."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("no_cover"):
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        outcome = yield
    if nextitem is None or nextitem.path != item.path:
        keep_what_is_there()
    return outcome


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Measure the imports of nnlr alone: following those of others takes half a minute.

    Without the garbage collector: nearly all of what is imported and collected stays.
    """
    gc.disable()
    if session.config.stash[MEASURED] is None or session.config.getoption("tx", None):
        return (yield)  # workers collect
    for name in ("lightning", "peft", "timm", "transformers.trainer"):
        with suppress(ImportError):
            import_module(name)
    with measured(session):
        for module in walk_packages(nnlr.__path__, "nnlr."):
            if not module.name.endswith("__main__"):
                with suppress(ImportError):
                    import_module(module.name)
    return (yield)


def pytest_collection_modifyitems(config, items):
    """Run real trainers and processes first, and leave out the long tests, unless asked for.

    A file that takes long and comes last leaves the other cores without work.
    """
    items.sort(key=lambda item: item.path.parent.name != "integrations")
    for item in items:
        if item.path.suffix == ".md":  # what pages show is tested elsewhere too
            item.add_marker("no_cover")
    if FULL:
        return
    long = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_report_header():
    """Say that there is more, which xdist does not count."""
    return None if FULL else "without the long tests: make full runs them"


def keep_what_is_there():
    """What was imported by now stays, so the garbage collector need not look at it.

    A million objects of torch, transformers and others would be gone through at every full
    collection, and trainers ask for one at each start.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish():
    """Begin to collect garbage, of what the tests make."""
    gc.enable()
    keep_what_is_there()
