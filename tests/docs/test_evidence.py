"""The figures of docs/evidence.md, the README and the demo are those of the cells that were run."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import example

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "benchmarks" / "evidence"

pytestmark = pytest.mark.no_cover


@pytest.fixture(scope="module")
def scripts():
    """The scripts of benchmarks/evidence by name; they import each other by bare names."""
    sys.path.insert(0, str(EVIDENCE))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(EVIDENCE))


def page():
    """docs/evidence.md."""
    return (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["new_eye", "locked_layer"])
def test_the_page_has_the_tables_of_the_cells(scripts, name):
    """Line by line, and at least ten seeds that no task was chosen on, each with all its cells."""
    script = scripts(name)
    cells = scripts("_paired").read(script.CELLS)
    assert {str(seed) for seed in script.SEEDS} == {cell["seed"] for cell in cells}
    runs = {(cell["seed"], cell["optimizer"], cell["arm"], cell["lr"]) for cell in cells}
    swept = sum(map(len, script.RATES.values()))
    assert len(cells) == len(runs) == len(script.SEEDS) * len(script.ARMS) * swept
    missing = [line for line in script.report(cells).splitlines() if line not in page()]
    assert [] == missing


@pytest.mark.parametrize(
    "name", ["mup_transfer", "lora_plus_width", "freeze_out_cost", "hyperball_transfer"]
)
def test_the_page_has_the_table_of_a_report(scripts, name):
    """Line by line; at least ten seeds are in it."""
    script = scripts(name)
    rows = scripts("_cells").cells(script)
    assert len({row["seed"] for row in rows}) >= 10
    missing = [line for line in script.report(rows).splitlines() if line not in page()]
    assert [] == missing


def test_the_demo_and_the_page_tell_the_ten_seeds(scripts):
    """The text beside the demo's chart, and the short table of the page."""
    script = scripts("new_eye")
    text = "\n".join(script.summary(scripts("_paired").read(script.CELLS)))
    example("digits/demo")
    assert f"\n\n{text}\n" in sys.modules["show"].TEN_SEEDS
    assert f"\n{text}\n" in page()


def test_the_demo_tells_what_locking_costs(scripts):
    """The best of each arm and the difference, as in the table."""
    script = scripts("locked_layer")
    row = script.report(scripts("_paired").read(script.CELLS)).partition("| the best of each | ")[2]
    example("digits/demo")
    figures = re.findall(r"-?\d+\.\d\d ± \d\.\d\d", sys.modules["show"].SAME)
    assert figures == row.partition(" |\n")[0].split(" | ")


def test_the_readme_tells_nothing_else(scripts):
    """Each figure with a spread in the lines below the picture is one of the tables."""
    script = scripts("new_eye")
    tables = script.report(scripts("_paired").read(script.CELLS))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = readme.partition("docs/pictures/new_eye.png")[2].partition("\n## ")[0]
    figures = re.findall(r"[+-]?\d+\.\d ± \d+\.\d", lines)
    assert len(figures) >= 3
    assert [] == [figure for figure in figures if figure not in tables]


def test_the_demo_runs_rates_that_were_swept(scripts):
    """So that its chart may stand beside the text."""
    script = scripts("new_eye")
    assert set(script.eye.RATES) < set(script.RATES["adamw"])
    assert len({len(rates) for rates in script.RATES.values()}) == 1  # one budget


class TestPaired:
    """benchmarks/evidence/_paired.py."""

    def test_an_interval_is_students(self, scripts):
        """2.262 standard errors for ten values, 12.71 for two."""
        interval = scripts("_paired").interval
        mean, half = interval(range(10))
        assert (4.5, pytest.approx(2.262 * np.std(range(10), ddof=1) / 10**0.5, rel=1e-3)) == (
            mean,
            half,
        )
        assert pytest.approx((1.0, 12.71), rel=1e-3) == interval([0, 2])

    def test_a_rate_is_scored_on_seeds_that_did_not_choose_it(self, scripts):
        """Noise that chooses a rate gains nothing by it."""
        paired = scripts("_paired")
        first = np.array([[9.0, 0.0], [0.0, 9.0]])  # each seed likes the other rate
        second = np.ones((2, 2))
        assert 0 == paired.best(first)
        assert [-1, -1] == paired.cross_fitted(first, second).tolist()

    def test_a_table_needs_two_seeds(self, scripts):
        """There is no interval of one."""
        with pytest.raises(SystemExit, match=r"two seeds.*Fix: pass --seeds"):
            scripts("_paired").tables([], {"sgd": [1]}, ["one"])

    def test_a_run_goes_on_where_it_was(self, scripts, tmp_path):
        """What is in the file is not run again."""
        paired = scripts("_paired")
        path, rates = tmp_path / "cells.csv", {"sgd": (0.1, 1.0)}
        assert [("sgd", "one", 0.1), ("sgd", "one", 1.0)] == paired.missing(path, 7, rates, ["one"])
        cell = {"seed": 7, "optimizer": "sgd", "arm": "one", "lr": "0.1", "right": 3, "tested": 4}
        paired.append(path, cell)
        assert [("sgd", "one", 1.0)] == paired.missing(path, 7, rates, ["one"])
        paired.append(path, cell | {"lr": "1", "right": 1})
        for lr in ("0.1", "1"):
            paired.append(path, cell | {"seed": 10, "lr": lr, "right": 2})
        paired.append(path, cell | {"seed": 11})  # the other rate is still to come
        assert [[75, 50], [25, 50]] == paired.tables(paired.read(path), rates, ["one"])["sgd"][
            "one"
        ].tolist()
