"""Folding: a line stands for exactly the names that its label says."""

import re
from fnmatch import fnmatchcase
from itertools import product

import pytest
import torch
from torch import nn

import nnlr
from nnlr.report._fit import fitted
from nnlr.report._fold import Folding, Line
from nnlr.report._label import broken, label_of
from nnlr.report._table import _key, _loose
from tests.cost import calls
from tests.helpers import thinned

# An alternative in braces, or what stands between; a backslash takes the meaning away.
_PART = re.compile(r"\{((?:[^{}\\]|\\.)*)\}|((?:[^{}\\]|\\.)+)")


def expanded(label: str) -> set[str]:
    """The names that a label stands for, as patterns, with its braces written out."""
    choices = []
    for inside, plain in _PART.findall(label):
        texts = re.split(r"(?<!\\),", inside) if inside else [plain]
        ends = [re.fullmatch(r"(\d+)\.\.(\d+)", text) if inside else None for text in texts]
        choices.append(
            [
                text
                for end, whole in zip(ends, texts, strict=True)
                for text in (map(str, range(int(end[1]), int(end[2]) + 1)) if end else [whole])
            ]
        )
    return {
        "".join(re.sub(r"\\(.)", r"[\1]", part) for part in parts) for parts in product(*choices)
    }


def matches(label: str, name: str) -> bool:
    """Whether a name is one of those that a label stands for."""
    return any(fnmatchcase(name, pattern) for pattern in expanded(label))


def folding(rows) -> Folding:
    """Rows folded as a table folds them."""
    return Folding(rows, list(map(_key, rows)), list(map(_loose, rows)))


def assert_lines_say_their_names(rows, lines: list[Line]) -> None:
    """Each row is in one line, and each label says which rows its line has."""
    assert sorted(row.name for row in rows) == sorted(r.name for ln in lines for r in ln.rows)
    for line in lines:
        names = {row.name for row in line.rows}
        if len(names) == 1 and line.kind is None:
            assert names == {line.label}
            continue
        patterns = expanded(line.label)
        if line.kind is None:  # every name written out is one of its rows, and no row is missing
            assert len(patterns) == len(names)
        (key,) = {_key(row) for row in line.rows}
        alike = (row.name for row in rows if _key(row) == key)
        assert names == {name for name in alike if any(fnmatchcase(name, p) for p in patterns)}


class Block(nn.Module):
    """Attention with separate projections, an MLP and norms."""

    def __init__(self, width: int, *, experts: int = 0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({f"{x}_proj": nn.Linear(width, width) for x in "qkvo"})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, width), "fc2": nn.Linear(width, width)})
        if experts:
            self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(experts))


def towers() -> nn.Module:
    """Two towers of blocks, of other depth, and a head."""
    return nn.ModuleDict(
        {
            "text": nn.ModuleDict({"layers": nn.ModuleList(Block(4) for _ in range(3))}),
            "vision": nn.ModuleDict(
                {
                    "stages": nn.ModuleList(
                        nn.ModuleList(Block(4, experts=n) for _ in range(n)) for n in (1, 2, 2)
                    )
                }
            ),
            "head": nn.Linear(4, 2),
        }
    )


def unet() -> nn.Module:
    """Down and up blocks, some of which have attention."""

    def resnet():
        return nn.ModuleDict({f"conv{k}": nn.Conv2d(2, 2, 3) for k in (1, 2)})

    return nn.ModuleDict(
        {
            f"{way}{k}": nn.ModuleDict(
                {"resnets": nn.ModuleList(resnet() for _ in range(k + 1))}
                | ({"attentions": nn.ModuleList([Block(4)])} if k else {})
            )
            for way in ("down", "up")
            for k in range(3)
        }
    )


def odd() -> nn.Module:
    """Names with what means something in a label, numbers that are not, deep and flat ones."""
    names = ["a{b", "a,b", "x*", "01", "007", "层1", "层2", "w_1_x", "w_2_x", "café", "1", "2"]
    model = nn.ModuleDict({name: nn.ModuleDict({"p": nn.PReLU()}) for name in names})
    model.register_parameter("top", nn.Parameter(torch.ones(2)))
    return model


SCHEMES = {
    "one": lambda: nnlr.rule("*"),
    "decay": lambda: nnlr.rule("*bias", wd_mult=0, optional=True),
    "by layer": lambda: (
        nnlr.rule("*.0.*", lr_mult=0.1, optional=True)
        * nnlr.rule("*.2.*", lr_mult=0.5, optional=True)
        * nnlr.rule("*bias", wd_mult=0, optional=True)
    ),
    "locked": lambda: nnlr.rule("*1*.weight", lr_mult=0, optional=True),
    "all other": lambda: nnlr.rule("*") * Each(),
}


class Each(nnlr.Scheme):
    """A rate of its own for every parameter."""

    def factors(self, model):
        """One factor for each."""
        return [nnlr.Factor(lr_mult=1 / (1 + at)) for at, _ in enumerate(model.params)]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", [towers, unet, odd])
@pytest.mark.no_cover
def test_a_label_says_which_rows_its_line_has(model, scheme):
    """At every level: braces come to exactly the names, and a star to all of these settings."""
    rows = nnlr.resolve(model(), SCHEMES[scheme](), lr=1e-3, weight_decay=0.05).rows
    folded = folding(rows)
    for level in range(folded.exact + 1):
        assert_lines_say_their_names(rows, folded.at(level))
    assert len(folded.at(folded.exact)) <= len(folded.at(0)) <= len(rows)
    for level in range(folded.exact + 1, folded.last + 1):
        lines = folded.at(level)
        assert sorted(row.name for row in rows) == sorted(r.name for ln in lines for r in ln.rows)


def labels(model, *schemes, level: int) -> list[str]:
    """The labels of a level; counted from the last exact one if it is below 0."""
    folded = folding(nnlr.resolve(model, *schemes, lr=1e-3, weight_decay=0.05).rows)
    return [line.label for line in folded.at(level if level >= 0 else folded.exact + 1 + level)]


class TestLevels:
    """What each level does."""

    def test_numbers_first(self):
        """Blocks that are alike share lines; parts that leave gaps are not papered over."""
        found = labels(towers(), level=0)
        assert "text.layers.{0..2}.attn.q_proj.weight" in found
        assert "vision.stages.0.0.norm1.bias" in found
        assert "vision.stages.{1,2}.{0,1}.norm1.bias" in found

    def test_then_words(self):
        """Siblings of one make share a line, and the segment that differs is kept."""
        found = labels(towers(), nnlr.rule(nnlr.role("norm", "bias"), wd_mult=0), level=3)
        assert "text.layers.{0..2}.attn.{q,k,v,o}_proj.weight" in found
        assert "text.layers.{0..2}.norm{1,2}.{weight,bias}" in found

    def test_layers_of_other_rates_stay_apart(self):
        """However far it goes, no line mixes rates before the last levels."""
        scheme = nnlr.rule("text.layers.1.*", lr_mult=0.5)
        found = labels(towers(), scheme, level=-1)
        assert {"text.layers.1.*", "text.layers.{0,2}.*"} < set(found)

    def test_what_no_role_tells_stays_open(self):
        """Where one projection of several is locked, its name stays."""
        scheme = nnlr.rule("text.layers.*.attn.q_proj.*", lr_mult=0)
        found = labels(towers(), scheme, level=-2)
        assert "text.layers.{0..2}.attn.q_proj.{weight,bias}" in found
        assert "text.layers.{0..2}.attn.{k,v,o}_proj.{weight,bias}" in found

    def test_at_last_the_inner_layers_of_other_rates(self):
        """What does not fit otherwise: the outermost layers stay, those within are one line."""
        model = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(80))
        folded = folding(nnlr.resolve(model, Each(), lr=1e-3, weight_decay=0.05).rows)
        lines = folded.at(folded.last - 2)
        assert ["0.weight", "1.weight", "{2..77}.weight", "78.weight", "79.weight"] == [
            line.label for line in lines
        ]
        assert 76 == len(lines[2].rows)

    def test_two_rates_under_one_label(self):
        """Matrices and norms of other rates, under one star, share the line of inner layers."""

        def layer():
            made = (nn.Linear(1, 1, bias=False), nn.LayerNorm(1, bias=False))
            parts = [nn.ModuleDict({name: part}) for name, part in zip("ab", made, strict=True)]
            for name in "cde":
                made = (nn.Linear(1, 1, bias=False), nn.LayerNorm(1, bias=False))
                parts = [
                    nn.ModuleDict({f"{name}{name}": old, f"{name}_{key}": new})
                    for old, new, key in zip(parts, made, "lm", strict=True)
                ]
            return nn.ModuleDict({"left": parts[0], "right": parts[1]})

        model = nn.ModuleList(layer() for _ in range(9))
        scheme = nnlr.layer_decay(0.5) * nnlr.rule(nnlr.role("norm"), lr_mult=3)
        folded = folding(nnlr.resolve(model, scheme, lr=1e-3, weight_decay=0.05).rows)
        assert 72 == sum(len(line.rows) for line in folded.at(folded.last))

    def test_a_name_that_ends_where_another_goes_on(self):
        """A star stands for one segment or more: the shorter name has a line without it."""
        names = ("s0.k", "s0.q.a", "s1.q.a.a", "s1.q.b", "s2.q")
        plan = nnlr.resolve({name: torch.zeros(2) for name in names}, lr=1, weight_decay=0)
        folding = Folding(plan.rows, [1] * 5, [1] * 5)
        for level in range(folding.last + 1):
            for line in folding.at(level):
                assert all(matches(line.label, row.name) for row in line.rows), line.label


class TestLabels:
    """The text of a label."""

    @pytest.mark.parametrize(
        ("choices", "text"),
        [
            (("3",), "3"),
            (("0", "1", "2"), "{0..2}"),
            (("2", "0"), "{0,2}"),
            (("0", "1", "5", "7", "8", "9"), "{0,1,5,7..9}"),
            (("conv1", "conv2", "conv3"), "conv{1..3}"),
            (("q_proj", "k_proj"), "{q,k}_proj"),
            (("layernorm_before", "layernorm_after"), "layernorm_{before,after}"),
            (("attn", "attn_norm"), "{attn,attn_norm}"),
            (("01", "02"), "{01,02}"),
            (("a1_x", "a2_x"), "a{1,2}_x"),
        ],
    )
    def test_alternatives(self, choices, text):
        """What words have in common stands outside the braces; runs of numbers are ranges."""
        assert text == label_of((choices,))

    def test_a_long_one_is_broken_at_dots(self):
        """Never within a word or the braces while there is another place."""
        lines = broken("model.encoder.layers.{0..11}.self_attn.{q,k,v}_proj.weight", 30, len)
        assert [
            "model.encoder.layers.{0..11}.",
            "  self_attn.{q,k,v}_proj.",
            "  weight",
        ] == lines

    def test_a_long_word_is_broken_where_it_has_an_edge(self):
        """At hyphens, commas and underscores; a word without any wherever the line ends."""
        lines = broken("a_very_long_name_of_a_module.weight", 12, len)
        assert "a_very_long_name_of_a_module.weight" == "".join(map(str.strip, lines))
        assert all(line.endswith("_") for line in lines[:2])
        assert ["aaaaaaaa", "  aaaaaaaa", "  aaaa"] == broken("a" * 20, 10, len)


def word(number: int) -> str:
    """A word for a number, without digits."""
    return "".join(chr(ord(digit) + 49) for digit in str(number))


# How models that are hard to fold name their tensors, of any number.
SHAPES = {
    "numbered": lambda n: [f"p{at}" for at in range(n)],
    "a list": lambda n: [f"list.{at}" for at in range(n)],
    "lists of lists": lambda n: [f"list.{at // 20}.{at % 20}.weight" for at in range(n)],
    "all different": lambda n: [word(at) for at in range(n)],
    "words in words": lambda n: [f"{word(at % 20)}.{word(at * 7919 % n)}" for at in range(n)],
    "deep": lambda n: [".".join(["a"] * 60) + f".{word(at)}" for at in range(n // 6)],
}


class TestCost:
    """What folding costs."""

    @pytest.mark.parametrize("rates", thinned([1, 3, 10**9], 3))
    @pytest.mark.parametrize("shape", SHAPES)
    def test_it_grows_with_the_number_of_rows_only(self, shape, rates):
        """Twice the rows, about twice the work, however they are named."""
        row = nnlr.resolve(nn.PReLU(), lr=1e-3, weight_decay=0.05).rows[0]

        def cost(count):
            names = enumerate(SHAPES[shape](count))
            rows = [row._replace(name=name, lr=1 + at % rates) for at, name in names]
            return calls(lambda: fitted(folding(rows), 50, len))

        assert cost(1200) < 2.5 * cost(600)

    def test_names_may_be_deep(self):
        """Of a chain of a thousand modules each row is in one line, which says its name."""
        row = nnlr.resolve(nn.PReLU(), lr=1e-3, weight_decay=0.05).rows[0]
        rows = [row._replace(name="a." * depth + "w") for depth in (1, 2, 30, 999, 1000)]
        for level in (0, 1, folding(rows).exact):
            assert_lines_say_their_names(rows, folding(rows).at(level))
