"""Patterns, powers and lines: the parts of the code."""

import random
from fnmatch import fnmatchcase

import pytest

from nnlr._code.fold import Folder
from nnlr._code.lines import Brackets, comment, literal
from nnlr._code.powers import power
from nnlr._code.table import Loop, table
from nnlr.errors import ConfigError

NAMES = [
    f"{stem}.{i}.{part}.{leaf}"
    for stem in ("enc", "dec.blocks")
    for i in range(3)
    for part in ("attn.qkv", "mlp.fc1", "mlp.fc2", "norm1", "norm2")
    for leaf in ("weight", "bias")
] + ["embed.weight", "head.weight", "head.bias", "token"]


@pytest.mark.parametrize("seed", range(20))
def test_patterns_are_exact(seed):
    """Each name of a random half matches one pattern, and no other name any."""
    draw = random.Random(seed)  # noqa: S311 - no secrets here
    words = draw.sample(["attn", "fc1", "norm", "weight", "enc", "2", "head"], 2)
    wanted = [name for name in NAMES if any(word in name for word in words)]
    patterns = Folder(NAMES).fold(wanted)
    for name in NAMES:
        matches = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
        assert (1 if name in wanted else 0) == len(matches), (name, patterns)


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_exact(seed):
    """Each name is in one row of a table of random groups, and that is its group's."""
    draw = random.Random(seed)  # noqa: S311 - no secrets here
    group_of = {name: draw.randint(0, 2) if draw.random() < 0.2 else 0 for name in NAMES}
    rows = []
    for item in table(group_of):
        rows += item.written_out() if isinstance(item, Loop) else [item]
    for name, group in group_of.items():
        assert [group] == [row.group for row in rows if fnmatchcase(name, row.pattern)], name


def test_few_patterns():
    """What is alike is folded, and what is one thing is named."""
    folder = Folder(NAMES)
    biases = [name for name in NAMES if name.endswith("bias")]
    assert ["*.bias"] == folder.fold(biases)
    assert ["head.*"] == folder.fold(["head.weight", "head.bias"])
    assert ["enc.1.attn.qkv.weight"] == folder.fold(["enc.1.attn.qkv.weight"])
    assert [] == folder.fold([])
    crossing = ["a.b1.c1.w", "a.b2.c3.w", "a.b1.x.c.w"]  # b*.c*.w matches the third too
    patterns = Folder([*crossing, "a.w"]).fold(crossing)
    assert [1, 1, 1] == [sum(fnmatchcase(name, each) for each in patterns) for name in crossing]
    assert not any(fnmatchcase("a.w", each) for each in patterns)


@pytest.mark.parametrize(
    ("values", "start", "expected"),
    [
        ([0.1 * 0.5**k for k in (3, 2, 1)], 0, "0.1 * 0.5 ** (3 - i)"),
        ([0.1 * 0.5**k for k in (1, 2, 3)], 1, "0.1 * 0.5**i"),
        ([0.1 * 0.5**k for k in (1, 2, 3)], 0, "0.1 * 0.5 ** (i + 1)"),
        ([0.1 * 0.5**k for k in (1, 2, 3)], 5, "0.1 * 0.5 ** (i - 4)"),
        ([0.3 * 0.9**k for k in (1, 2, 3)], 1, "0.3 * 0.9**i"),
        ([0.1 * 0.9, 0.1], 4, "0.1 * 0.9 ** (5 - i)"),
        ([0.1, 0.11, 0.2], 0, None),
        ([0.2, 0.2, 0.1], 0, None),
        ([0.0, 0.1, 0.2], 0, None),
        ([1e-300, 1e-3, 0.1], 0, None),
        ([0.07, 0.03], 0, None),
    ],
)
def test_powers(values, start, expected):
    """An expression that gives the same numbers bit for bit, or none."""
    text = power(values, start, 0.1)
    assert expected == text
    if text is not None:
        assert values == [eval(text, {"i": start + at}) for at in range(len(values))]  # noqa: S307


def test_lines_and_literals():
    """Brackets open where a line is too long; settings are written as they are."""
    assert ["(1, 2)"] == Brackets("(", ["1", "2"], ")").lines(0)
    long = ["x" * 60, "y" * 60]
    assert ["[", f"    {long[0]},", f"    {long[1]},", "]"] == Brackets("[", long, "]").lines(0)
    call = Brackets("function(", ["x" * 57, "y" * 35], ")").lines(0)
    assert ["function(", f"    {'x' * 57}, {'y' * 35}", ")"] == call
    assert ["# a", f"# {'b' * 97}"] == comment(["a", "b" * 97])
    values = (True, 3, [0.5, None], (1,), {"a": "it's"}, float("-inf"))
    texts = ["True", "3", "[0.5, None]", "(1,)", '{"a": "it\'s"}', 'float("-inf")']
    assert texts == [literal(value, "x") for value in values]
    with pytest.raises(ConfigError, match=r"x=.*cannot be written as code"):
        literal(object(), "x")
