"""Plain words: what variables and first lines of docstrings may not be called."""

import ast
from pathlib import Path

import pytest

import nnlr
from tests.helpers import syntax

SOURCES = Path(nnlr.__file__).parent
FILES = sorted(SOURCES.rglob("*.py"))

# Names that say that something is held, not what.
EMPTY = {"found", "given", "said", "known", "held", "kept", "lost", "idle", "here"}

# Words and idioms that a reader who learned English at school stumbles over.
LITERARY = ("anew", "said ", "be it", "what became of", "a surprise", "what is kept", "for good")


def variables(tree: ast.AST) -> dict[str, int]:
    """The variables, arguments and attributes that a file assigns, with a line of each."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] = node.lineno
        elif isinstance(node, ast.arg):
            names[node.arg] = node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names[node.attr.lstrip("_")] = node.lineno
    return names


def first_lines(tree: ast.AST) -> dict[str, int]:
    """The first line of every docstring, with its line."""
    lines = {}
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            lines[text.partition("\n")[0]] = getattr(node, "lineno", 1)
    return lines


@pytest.mark.no_cover
def test_names_say_what_they_hold():
    """`rows` or `unclaimed` tells a reader more than `found` or `lost`."""
    names = [
        (f"{path.relative_to(SOURCES)}:{line}", name)
        for path in FILES
        for name, line in variables(syntax(path)).items()
    ]
    assert [] == [(place, name) for place, name in names if name in EMPTY]


@pytest.mark.no_cover
def test_first_lines_are_plain():
    """A first line is understood at once: no literary words, and not a question."""
    lines = [
        (f"{path.relative_to(SOURCES)}:{line}", text)
        for path in FILES
        for text, line in first_lines(syntax(path)).items()
    ]
    assert [] == [
        (place, text)
        for place, text in lines
        if any(word in text.lower() for word in LITERARY) or text.endswith("?")
    ]


def test_the_checks_themselves_can_fail():
    """A function that breaks both rules is reported."""
    tree = ast.parse('def f(given):\n    """Make it anew."""\n    self._kept = lost = 1')
    assert {"given", "kept", "lost"} == EMPTY & set(variables(tree))
    assert ["Make it anew."] == list(first_lines(tree))
