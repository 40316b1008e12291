"""The page on schemes of one's own: as short as it says, and every field of what it lists."""

import dataclasses
import re
from pathlib import Path

import pytest

import nnlr

PAGE = (Path(__file__).parents[2] / "docs" / "custom-schemes.md").read_text(encoding="utf-8")


def schemes_below(heading):
    """The classes and functions in a section's examples, each as its lines."""
    section = re.split(r"^## ", PAGE.partition(f"\n## {heading}")[2], flags=re.MULTILINE)[0]
    return re.findall(r"^>>> (?:class|def) .*\n(?:\.\.\. ?.*\n)+", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "most", "count"), [("In five lines", 5, 1), ("In ten", 10, 2), ("In twenty", 20, 3)]
)
def test_a_scheme_is_as_short_as_its_heading_says(heading, most, count):
    """Every line counts: signature, docstring, body."""
    lengths = [len(scheme.splitlines()) for scheme in schemes_below(heading)]
    assert len(lengths) == count
    assert max(lengths) <= most


def in_table(sentence):
    """What stands in the first column of the table that a sentence introduces."""
    table = re.search(r"\n\|.*?\n\n", PAGE.partition(sentence)[2] + "\n", re.DOTALL)[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.count("|") > 2][2:]
    return sorted(re.findall(r"`(\w+)", " ".join(cells)))


def test_the_tables_list_what_there_is():
    """Each field of a described parameter, of a factor and of a move, and no other."""
    fields = {*nnlr.ParamInfo._fields} - {"scope"}
    fields |= {name for name, value in vars(nnlr.ParamInfo).items() if isinstance(value, property)}
    assert sorted(fields) == in_table("`model.params` are")
    assert sorted(f.name for f in dataclasses.fields(nnlr.Factor)) == in_table("A `Factor` may set")
    assert sorted(name for name in vars(nnlr.Move) if name[0] != "_") == in_table("A `Move` may")
