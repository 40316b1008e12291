"""Selectors: what they choose, how they read, and what is said when they choose nothing."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr._select.selector import Selector
from tests.cost import calls


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


class Net(nn.Module):
    """Names with a prefix that is a segment elsewhere: head, heading, blocks.0.head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(2, 3)
        self.heading = nn.Linear(2, 3, bias=False)


def chosen(selector, model=None):
    """The names that a selector chooses in a model."""
    info = describe(Net() if model is None else model)
    return [info.params[i].name for i in sorted(selector.matches(info))]


class TestGlob:
    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("head", []),
            ("head.weight", ["head.weight"]),
            ("head.*", ["head.weight", "head.bias"]),
            ("head*", ["head.weight", "head.bias", "heading.weight"]),
            ("head*weight", ["head.weight", "heading.weight"]),
            ("hea?.weight", ["head.weight"]),
            ("blocks.[1].norm.*", ["blocks.1.norm.weight", "blocks.1.norm.bias"]),
            (
                "blocks.*.bias",
                [f"blocks.{i}.{m}.bias" for i in (0, 1) for m in ("attn", "norm")],
            ),
            (
                "*.norm.*",
                [f"blocks.{i}.norm.{p}" for i in (0, 1) for p in ("weight", "bias")],
            ),
            ("*0*norm*bias", ["blocks.0.norm.bias"]),
            ("**.head.**", []),
            ("Head.*", []),
            ("*weightweight", []),
            ("head.weight*head.weight", []),
        ],
    )
    def test_a_glob_covers_the_whole_name(self, pattern, expected):
        """Stars cross dots, case counts, and nothing matches as a substring."""
        assert expected == chosen(nnlr.glob(pattern))

    def test_a_star_alone_chooses_everything(self):
        """'*' is every parameter."""
        assert len(list(Net().parameters())) == len(chosen(nnlr.glob("*")))

    def test_overlapping_ends_do_not_match(self):
        """'ab*ba' needs four characters: the ends may not share letters."""
        model = {"aba": torch.zeros(1), "abba": torch.zeros(1)}
        assert ["abba"] == chosen(nnlr.glob("ab*ba"), model)

    @pytest.mark.parametrize("bad", ["", None, 3, ["head.*"]])
    def test_what_is_no_pattern_is_refused(self, bad):
        """Only a string that is not empty is a pattern."""
        with pytest.raises(nnlr.NnlrError, match="glob needs a pattern such as"):
            nnlr.glob(bad)


class TestOtherSelectors:
    def test_a_regex_matches_the_whole_name(self):
        """A regex is a full match."""
        assert [] == chosen(nnlr.regex("head"))
        assert ["head.weight", "head.bias"] == chosen(nnlr.regex(r"head\.(weight|bias)"))

    @pytest.mark.parametrize(
        ("bad", "message"),
        [("(", "no regular expression"), (3, "a string"), (b"a", "a string")],
    )
    def test_what_is_no_regex_is_refused(self, bad, message):
        """A broken expression is refused at once, not at resolve."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.regex(bad)

    def test_a_module_type_reaches_everything_below(self):
        """A block's type chooses the parameters of its parts; a subclass counts."""
        assert ["embed.weight"] == chosen(nnlr.module_type(nn.Embedding))
        assert 8 == len(chosen(nnlr.module_type(Block)))
        assert 8 + 1 == len(chosen(nnlr.module_type(Block, nn.Embedding)))
        assert 12 == len(chosen(nnlr.module_type(nn.Module)))

    def test_without_modules_no_type_matches(self):
        """Bare tensors have no module types."""
        assert [] == chosen(nnlr.module_type(nn.Linear), {"a.weight": torch.zeros(2, 2)})

    def test_a_tied_tensor_is_of_both_types(self):
        """Any alias may match, also by type."""
        net = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False))
        net[1].weight = net[0].weight
        assert ["0.weight"] == chosen(nnlr.module_type(nn.Linear), net)
        assert ["0.weight"] == chosen(nnlr.module_type(nn.Embedding), net)
        assert [] == chosen(nnlr.module_type(nn.LayerNorm), net)

    def test_a_name_of_a_class_means_it_and_its_subclasses(self):
        """Short, or with its module; mixed with classes; of a tied tensor any owner's."""
        for cls in (nn.Embedding, Block, nn.Module):
            for name in (cls.__name__, f"{cls.__module__}.{cls.__qualname__}"):
                assert chosen(nnlr.module_type(cls)) == chosen(nnlr.module_type(name))
        assert 8 + 1 == len(chosen(nnlr.module_type("Block", nn.Embedding)))
        assert "module_type('Block', Embedding)" == repr(nnlr.module_type("Block", nn.Embedding))
        net = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False))
        net[1].weight = net[0].weight
        assert ["0.weight"] == chosen(nnlr.module_type("Linear"), net)

    def test_an_unknown_class_is_an_error_that_lists_those_of_the_model(self):
        """As for roles: what is there helps most."""
        with pytest.raises(nnlr.PatternError, match=r"\n  Classes it has: .*Embedding.*LayerNorm"):
            nnlr.resolve(Net(), nnlr.rule(nnlr.module_type("Embeding")), lr=1, weight_decay=0)
        with pytest.raises(nnlr.PatternError, match="Classes it has: none"):
            nnlr.resolve(
                {"w": torch.zeros(2)}, nnlr.rule(nnlr.module_type("Linear")), lr=1, weight_decay=0
            )

    @pytest.mark.parametrize("bad", [(), (nn.Linear(1, 1),), ("",)])
    def test_what_is_no_type_is_refused(self, bad):
        """module_type takes classes."""
        with pytest.raises(nnlr.NnlrError, match="module_type needs classes"):
            nnlr.module_type(*bad)

    def test_a_role_chooses_by_purpose(self):
        """Roles do not depend on names."""
        assert 4 == len(chosen(nnlr.role("norm")))
        assert 5 == len(chosen(nnlr.role("norm", "embedding")))

    def test_what_is_no_role_is_refused(self):
        """An unknown role names those there are, and the nearest."""
        with pytest.raises(nnlr.NnlrError, match=r"'norms' is no role.*Nearest: 'norm'"):
            nnlr.role("norms")
        with pytest.raises(nnlr.NnlrError, match="at least one role"):
            nnlr.role()

    def test_ndim_includes_both_ends(self):
        """Both min and max belong to the range."""
        assert 7 == len(chosen(nnlr.ndim(max=1)))
        assert 5 == len(chosen(nnlr.ndim(min=np.int64(2))))
        assert 12 == len(chosen(nnlr.ndim(min=1, max=2)))
        assert [] == chosen(nnlr.ndim(min=3))

    @pytest.mark.parametrize(
        ("bounds", "message"),
        [
            ({}, "needs min=, max= or both"),
            ({"min": 2, "max": 1}, "can never match"),
            ({"min": 1.5}, r"min of ndim must be a whole number >= 0, got 1.5"),
            ({"max": True}, "max of ndim must be a whole number >= 0, got True"),
        ],
    )
    def test_what_is_no_range_is_refused(self, bounds, message):
        """A range that means nothing is refused at once."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.ndim(**bounds)

    def test_a_predicate_sees_each_parameter(self):
        """Any function of ParamInfo will do."""
        small = nnlr.predicate(lambda param: param.numel == 3)
        assert ["head.bias"] == chosen(small)
        with pytest.raises(nnlr.NnlrError, match="test of predicate must be a function"):
            nnlr.predicate("head")


class First(Selector):
    """A selector of a user's own."""

    def matches(self, model):
        return frozenset([0])


class TestCombination:
    def test_a_selector_of_ones_own_combines_too(self):
        """It is written as its class."""
        assert ["embed.weight"] == chosen(First() & "*")
        assert "First() | ~First()" == repr(First() | ~First())

    def test_the_signs_are_set_operations(self):
        """& is both, | is either, ~ is all others; strings may stand on either side."""
        norms, heads = nnlr.role("norm"), nnlr.glob("head*")
        assert [] == chosen(norms & heads)
        assert 7 == len(chosen(norms | heads))
        assert 8 == len(chosen(~norms))
        assert ["head.bias"] == chosen("*.bias" & heads)
        assert ["head.bias"] == chosen(heads & "*.bias")
        assert 7 == len(chosen("head*" | norms))
        assert 9 == len(chosen(~(heads & ~nnlr.glob("nothing"))))

    def test_and_or_not_are_refused(self):
        """Python's words would drop one side without a word."""
        norm = nnlr.role("norm")
        for slip in (
            lambda: "*.weight" and norm and "x",
            lambda: norm or "*.weight",
            lambda: not norm,
        ):
            with pytest.raises(
                nnlr.NnlrError,
                match=r"role\('norm'\) is not true or false: .* &, \| and ~, not and",
            ):
                slip()

    def test_something_else_is_refused(self):
        """A selector combines with selectors and strings only."""
        with pytest.raises(nnlr.NnlrError, match=r"& needs a selector: .* got 3"):
            nnlr.role("norm") & 3

    def test_without_a_rule_of_its_own_a_selector_cannot_be_made(self):
        """A subclass says what it matches and how it reads."""
        with pytest.raises(TypeError, match="abstract"):
            Selector()

    @pytest.mark.parametrize(
        "text",
        [
            "'head.*'",
            "regex('a|b')",
            "role('norm', 'bias')",
            "ndim(min=1, max=2)",
            "ndim(max=1)",
            "glob('a') & glob('b')",
            "~glob('a')",
            "~(role('norm') | glob('a'))",
            "(glob('a') & glob('b')) | ~(regex('c') & role('bias'))",
        ],
    )
    def test_a_selector_reads_as_it_is_written(self, text):
        """Its repr gives the expression back."""
        names = {name: getattr(nnlr, name) for name in ("glob", "regex", "role", "ndim")}
        value = eval(text, names)  # noqa: S307 - our own texts
        assert text == repr(nnlr.glob(value) if isinstance(value, str) else value)

    def test_types_and_functions_read_by_name(self):
        """Classes and functions appear under their own names."""

        def large(param):
            return param.numel > 10

        assert "module_type(Linear, LayerNorm)" == repr(nnlr.module_type(nn.Linear, nn.LayerNorm))
        assert "predicate(large)" == repr(nnlr.predicate(large))
        assert repr(nnlr.predicate(print.__class__.__call__)).startswith("predicate(")


class TestTied:
    def tied(self):
        """An embedding and a head that share a weight."""
        net = nn.ModuleDict({"embed": nn.Embedding(3, 2), "head": nn.Linear(2, 3)})
        net["head"].weight = net["embed"].weight
        return net

    @pytest.mark.parametrize(
        ("selector", "reach"),
        [
            (nnlr.glob("embed.*"), ("embed.weight",)),
            (nnlr.glob("head.*"), ("head.weight",)),
            (nnlr.glob("*"), ("embed.weight", "head.weight")),
            (nnlr.regex("head.*"), ("head.weight",)),
            (nnlr.role("embedding"), ("embed.weight", "head.weight")),
            (nnlr.role("norm"), ()),
            (nnlr.module_type(nn.Linear), ("head.weight",)),
            (nnlr.role("embedding") & "head.*", ("head.weight",)),
            (nnlr.glob("embed.*") & "head.*", ("embed.weight", "head.weight")),
            (nnlr.glob("embed.*") | "head.*", ("embed.weight", "head.weight")),
            ((nnlr.glob("embed.*") & "none.*") | "head.*", ("head.weight",)),
            (~nnlr.glob("head.*"), ()),
            (~nnlr.glob("none.*"), ("embed.weight", "head.weight")),
        ],
        ids=repr,
    )
    def test_any_alias_may_match(self, selector, reach):
        """A tied tensor is chosen if one of its names is, and ~ turns that round."""
        info = describe(self.tied())
        assert (0 in selector.matches(info)) == bool(reach)
        assert set(reach) == selector.reach(info, 0)


class TestNothingMatches:
    @pytest.mark.parametrize(
        ("pattern", "nearest"),
        [
            ("head", ["head.*"]),
            ("blokcs.*", ["blocks.*"]),
            ("*.attn.wieght", ["*.attn.weight"]),
            ("blocks.*.nrom.*", ["blocks.*.norm.*"]),
            ("blocks.2.norm.*", ["blocks.*.norm.*"]),
            ("norm.weight", ["*.norm.weight"]),
            ("norm", ["*.norm.*"]),
            ("blocks.0", ["blocks.0.*"]),
            ("attn.*", ["*.attn.*"]),
            ("module.head.*", ["head.*"]),
            ("embe", ["*embe*"]),
            ("Embed.weight", ["embed.weight"]),
            ("zzz", []),
        ],
    )
    def test_the_nearest_patterns_are_named(self, pattern, nearest):
        """A typo, a missing star, prefix or number is answered by what would match."""
        with pytest.raises(nnlr.PatternError, match="matches no parameter of Net") as caught:
            nnlr.resolve(Net(), nnlr.rule(pattern), lr=1, weight_decay=0)
        assert pattern == caught.value.pattern
        assert nearest == caught.value.nearest[: len(nearest) or 2]

    def test_a_regex_that_would_match_within_names_says_so(self):
        """The usual slip is to forget that the whole name must match."""
        with pytest.raises(
            nnlr.PatternError, match=r"Nearest: nnlr.regex\('.\*\(\?:norm\).\*'\) \(4 "
        ):
            nnlr.resolve(Net(), nnlr.rule(nnlr.regex("norm")), lr=1, weight_decay=0)

    @pytest.mark.parametrize(
        ("pattern", "nearest"),
        [
            ("(?i)NORM", None),  # flags may not stand in the middle
            (r"(n)or\1|norm", r".*(?:(n)or\1|norm).*"),
            (r"norm\.(weight|bias)", r".*(?:norm\.(weight|bias)).*"),
            (r"(\w+\.?)+\.kernel", None),  # tried anywhere in a name, it would not end
            ("q" + ".?" * 24, None),
        ],
    )
    def test_what_is_suggested_for_a_regex_is_one(self, pattern, nearest):
        """One that may match anywhere in a name, if it compiles and can be tried in a moment."""
        with pytest.raises(nnlr.PatternError, match="matches no parameter") as caught:
            nnlr.resolve(Net(), nnlr.rule(nnlr.regex(pattern)), lr=1, weight_decay=0)
        assert nearest == next(iter(caught.value.nearest), None)

    def test_a_role_says_which_roles_there_are(self):
        """No router here, but these."""
        with pytest.raises(nnlr.PatternError, match="Roles it has: bias, embedding, head"):
            nnlr.resolve(Net(), nnlr.rule(nnlr.role("router")), lr=1, weight_decay=0)
        with pytest.raises(nnlr.PatternError, match="Roles it has: none"):
            nnlr.resolve(nn.ReLU(), nnlr.rule(nnlr.role("router")), lr=1, weight_decay=0)

    def test_a_combination_counts_its_parts(self):
        """The part that matches nothing by itself is the one to look at."""
        selector = nnlr.glob("haed.*") & ~nnlr.role("bias")
        with pytest.raises(nnlr.PatternError, match=r"parts match: 'haed.*' 0, role"):
            nnlr.resolve(Net(), nnlr.rule(selector), lr=1, weight_decay=0)

    def test_no_advice_where_there_is_none(self):
        """optional= is offered only by calls that have it."""
        with pytest.raises(nnlr.PatternError, match=r"Fix the pattern\.$"):
            nnlr.resolve(Net(), roles={"x.*": "norm"}, lr=1, weight_decay=0)

    def test_a_typo_among_many_names_costs_little(self):
        """The near misses of a typo in a large model do not keep anyone waiting."""
        names = [
            f"decoder.layers.{layer}.experts.{expert}.{leaf}"
            for layer in range(40)
            for expert in range(25)
            for leaf in ("gate.weight", "up.weight", "down.weight", "down.bias")
        ]
        info = describe({name: torch.empty(1, device="meta") for name in names})
        for pattern, nearest in [
            ("decoder.layer.3.experts.*", "decoder.layers.3.experts.*"),
            ("*.experts.1.dwon.*", "*.experts.1.down.*"),
            ("decoder.layers.1.gate.experts.weight", None),
            ("qqq.*", None),
        ]:
            search = functools.partial(nnlr.rule(pattern).steps, info)

            def refused(search=search):
                with pytest.raises(nnlr.PatternError, match="4,000 parameters") as caught:
                    search()
                return caught.value

            assert nearest is None or nearest in refused().nearest
            # A comparison with each name in full would take hundreds.
            assert calls(refused) < 12 * len(names)
