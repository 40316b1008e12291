"""What CONTRIBUTING.md asks of tests, held by a test."""

import ast
from pathlib import Path

import pytest

from tests.helpers import syntax

ROOT = Path(__file__).parents[1]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def functions(path: Path) -> list[ast.FunctionDef]:
    """Every test function of a file."""
    tree = syntax(path)
    blocks = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    return [
        node
        for block in blocks
        for node in block.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    ]


def unmatched_raises(path: Path) -> list[int]:
    """Lines where an error is expected without a word on its text."""
    return [
        node.lineno
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"raises", "warns"}
        and "match" not in {keyword.arg for keyword in node.keywords}
    ]


@pytest.mark.no_cover
def test_every_test_states_its_claim():
    """A test without a docstring says what it does, not what it is for."""
    tests = [(path.name, test) for path in TESTS for test in functions(path)]
    assert [] == [(file, test.name) for file, test in tests if not ast.get_docstring(test)]


@pytest.mark.no_cover
def test_expected_errors_are_matched():
    """`raises` and `warns` without `match` pass on the wrong error."""
    assert [] == [(path.name, lines) for path in TESTS if (lines := unmatched_raises(path))]


def test_the_checks_themselves_can_fail(tmp_path):
    """A file that breaks both rules is found out."""
    bad = tmp_path / "test_bad.py"
    bad.write_text("def test_x():\n    with pytest.raises(ValueError):\n        pass\n")
    assert [test.name for test in functions(bad) if not ast.get_docstring(test)] == ["test_x"]
    assert unmatched_raises(bad) == [2]
