"""What is said to likely slips: short, and with what to write instead."""

import re

import pytest
import torch
from torch import nn

import nnlr
from nnlr._text import shown

RATES = {"lr": 0.1, "weight_decay": 0.1}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(2)
        self.attn = nn.Linear(2, 2)


class Net(nn.Module):
    """Twelve blocks of four parameters, and a head of two."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(12))
        self.head = nn.Linear(2, 2)


def make(groups, lr, **settings):
    return torch.optim.SGD(groups, lr=lr, **settings)


def plan_of(model):
    return nnlr.resolve(model, **RATES)


NET = Net()
ADAM = torch.optim.AdamW(NET.parameters())


class TestShown:
    def test_short_values_are_shown_as_written(self):
        """With the type where it is asked for."""
        assert "'0.1'" == shown("0.1")
        assert "'0.1' (str)" == shown("0.1", typed=True)
        assert repr("x" * 78) == shown("x" * 78)

    def test_long_values_are_named_by_their_type(self):
        """More than 80 characters, or more than one line, would bury the message."""
        assert "a str" == shown("x" * 79)
        assert "a Net" == shown(NET, typed=True)
        assert "an AdamW" == shown(ADAM)
        assert "a Tensor" == shown(torch.zeros(2, 2))

    def test_what_cannot_be_written_is_named_by_its_type(self):
        """Python refuses to print an integer of 5,000 digits; the message must come out."""
        assert "an int" == shown(10**5000)
        with pytest.raises(nnlr.NnlrError, match="lr_mult must be a finite number"):
            nnlr.rule("*", lr_mult=10**5000)


SLIPS = {
    "swapped": (
        lambda: nnlr.resolve(nnlr.rule("*"), NET, **RATES),
        r"got a Net\. The model comes first: resolve\(model, scheme, \.\.\.\)\.",
    ),
    "list-as-selector": (
        lambda: nnlr.rule(["head.*", "norm.*"]),
        r"\(list\)\. Join patterns with \|: nnlr\.glob\('head\.\*'\) \| 'norm\.\*'",
    ),
    "list-as-glob": (lambda: nnlr.glob(["a"]), r"got \['a'\]\. Join patterns with \|"),
    "class-as-selector": (
        lambda: nnlr.rule(nn.Linear),
        r"Of a class: nnlr\.module_type\(Linear\)\.",
    ),
    "compiled-as-selector": (
        lambda: nnlr.rule(re.compile("a.*")),
        r"Of a regular expression: nnlr\.regex\('a\.\*'\)\.",
    ),
    "model-as-selector": (lambda: nnlr.rule(NET), r"got a Net\.$"),
    "list-as-role": (
        lambda: nnlr.role(["norm"]),
        r"one by one, such as role\('norm'\), got \['norm'\]\.$",
    ),
    "model-as-role": (
        lambda: nnlr.resolve(NET, roles={"*": NET}, **RATES),
        r"a Net is no role",
    ),
    "module-as-type": (lambda: nnlr.module_type(NET), r"got a Net\.$"),
    "optimizer-as-class": (
        lambda: plan_of(NET).optimizer(ADAM),
        r"got an AdamW\. Pass the class: AdamW\.$",
    ),
    "model-as-rates": (lambda: nnlr.rule("*", lr_mult=NET), r">= 0, got a Net\.$"),
    "model-as-options": (lambda: nnlr.rule("*", options=NET), r"got a Net\.$"),
    "tensor-as-option": (
        lambda: nnlr.rule("*", options={"a": torch.zeros(9, 9)}),
        r"got a Tensor\.$",
    ),
    "model-as-switch": (lambda: nnlr.rule("*", optional=NET), r"got a Net\.$"),
    "model-as-tag": (lambda: nnlr.Factor(tag=NET), r"got a Net\.$"),
    "model-as-rule": (lambda: nnlr.rules([NET]), r"member 0 is a Net\."),
    "model-as-rules": (lambda: nnlr.rules(NET), r"got a Net\.$"),
    "model-as-path": (lambda: nnlr.rule("*").within(NET), r"got a Net\.$"),
    "model-as-roles": (lambda: nnlr.resolve(NET, roles=NET, **RATES), r"got a Net\.$"),
    "model-as-ties": (lambda: nnlr.resolve(NET, tied=NET, **RATES), r"got a Net\.$"),
    "model-as-decay": (lambda: nnlr.resolve(NET, decay=NET, **RATES), r"got a Net\.$"),
    "model-as-name": (lambda: plan_of(NET)[NET], r"no parameter a Net\."),
    "model-as-locked": (
        lambda: plan_of(NET).param_groups(locked=NET),
        r"got a Net\.$",
    ),
    "model-as-declared-name": (
        lambda: nnlr.annotate(Net(), NET, lr_mult=1),
        r"got a Net\.$",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named_in_a_line(slip):
    """Without the contents of the object, and with the way out where it is known."""
    call, message = SLIPS[slip]
    with pytest.raises(nnlr.NnlrError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


class TestArguments:
    def test_an_unknown_argument_is_named_with_the_nearest(self):
        """Before the class can raise a TypeError of its own."""
        with pytest.raises(
            nnlr.ConfigError, match=r"^AdamW has no argument 'beta'\. Nearest: 'betas'"
        ):
            plan_of(NET).optimizer(torch.optim.AdamW, beta=(0.9, 0.95))

    def test_a_factory_may_take_any(self):
        """What it hands on is not ours to know."""
        optimizer = plan_of(NET).optimizer(make, momentum=0.9)
        assert {0.9} == {group["momentum"] for group in optimizer.param_groups}


def nearest(pattern, model=NET):
    """The advice on a pattern that matches nothing."""
    with pytest.raises(nnlr.PatternError, match="matches no parameter") as caught:
        nnlr.resolve(model, nnlr.rule(pattern), **RATES)
    lines = str(caught.value).splitlines()
    return lines[1].removeprefix("  Nearest: ") if len(lines) == 3 else None


class TestGlobs:
    @pytest.mark.parametrize(
        ("pattern", "count"),
        [
            (".*norm.*", 24),
            ("(blocks|head).*", 50),
            (r"blocks\.\d+\.norm1\.weight", 12),
            ("blocks.*norm.*", 24),
        ],
    )
    def test_a_regular_expression_is_offered_as_one(self, pattern, count):
        """The pattern as it is, in nnlr.regex."""
        assert f"nnlr.regex({pattern!r}) ({count} parameters)." == nearest(pattern)

    def test_a_misspelled_glob_is_no_regular_expression(self):
        """It would be one by chance."""
        assert "'head.*' (2 parameters)." == nearest("hea.*")

    @pytest.mark.parametrize("pattern", ["(zzz", "zzz{99999999999999999999}"])
    def test_what_does_not_compile_is_not_offered(self, pattern):
        """Nor does it fail: the message says what names begin with."""
        assert nearest(pattern) == "  Names begin with: blocks, head."

    @pytest.mark.parametrize("pattern", ["(hea|q)+.*q?.*", r"|.*.*.*.*.*.*.*\.weight"])
    def test_what_may_run_for_years_is_not_tried(self, pattern):
        """A repeated group, or many repeats over many names, even where it would match."""
        many = {f"some.module.{i}.weight": torch.zeros(1) for i in range(1000)}
        model = {**many, "head": torch.zeros(1)}
        assert re.fullmatch(pattern, "head" if "q" in pattern else "a.0.weight")
        assert "nnlr.regex" not in str(nearest(pattern, model))
