"""The text of each kind of error, whole: what happened, where, why, and what to do.

One golden file for each kind. Look at them when they change: they are what users meet. What
must stand in the answers to likely slips is matched, and not written out whole.
"""

import re

import pytest
import torch
from torch import nn

import nnlr


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.ModuleList(nn.Linear(2, 2) for _ in range(4))


class Bert(nn.Module):
    """An encoder, a table, a head that shares the table's weight."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 2)
        self.encoder = Encoder()
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 5, bias=False)
        self.head.weight = self.embed.weight


def resolve(*schemes, model=None, **settings):
    """Resolve on a fresh model."""
    given = {"lr": 1e-3, "weight_decay": 0.05} | settings
    return nnlr.resolve(Bert() if model is None else model, *schemes, **given)


def declared_twice():
    model = Bert()
    nnlr.learning_rate(model.embed, "weight", 0.1)
    nnlr.learning_rate(model.head, "weight", 1)
    return resolve(model=model)


class Short(nnlr.Scheme):
    def factors(self, model):
        return [nnlr.Factor()]


class Tagged(nnlr.Scheme):
    def __init__(self, algorithm):
        self.algorithm = algorithm

    def factors(self, model):
        return [nnlr.Factor(algorithm=self.algorithm) for _ in model.params]

    def __repr__(self):
        return f"Tagged({self.algorithm!r})"


def edited():
    facts = resolve().to_dict()
    facts["rows"][3]["lr"] = 0.5
    return nnlr.Plan.from_dict(facts)


rule, rules = nnlr.rule, nnlr.rules

CASES = {
    # patterns
    "pattern_typo": lambda: resolve(rule("encoder.layr.*")),
    "pattern_in_a_list": lambda: resolve(rules([rule("norm.*"), rule("encoder.layr.*")])),
    "pattern_without_star": lambda: resolve(rule("head")),
    "pattern_without_prefix": lambda: resolve(rule("layer.0.*")),
    "pattern_with_wrapper": lambda: resolve(rule("module.encoder.*")),
    "pattern_like_nothing": lambda: resolve(rule("decoder_block.*")),
    "pattern_regex": lambda: resolve(rule(nnlr.regex("layer"))),
    "pattern_role": lambda: resolve(rule(nnlr.role("router"))),
    "pattern_combined": lambda: resolve(rule(nnlr.glob("layer.*") & ~nnlr.role("bias"))),
    "pattern_where": lambda: resolve(rule("*").where("haed.*")),
    "pattern_roles": lambda: resolve(roles={"encoder.layr.*": "norm"}),
    "within_nowhere": lambda: resolve(rule("*").within("encoder.layers")),
    "within_nothing_like": lambda: resolve(rule("*").within("backbone")),
    "pattern_no_number": lambda: resolve(rule("3.*")),
    # rules
    "rule_shadowed": lambda: resolve(
        rules([rule("encoder.*"), rule("norm.*"), rule("encoder.layer.0.*")])
    ),
    "rules_incomplete": lambda: resolve(rules([rule("norm.*")], complete=True)),
    "rules_of_something_else": lambda: rules([rule("*") * rule("*")]),
    "rules_of_one_rule": lambda: rules(rule("*")),
    "option_reserved": lambda: rule("head.*", options={"lr": 1e-3}),
    "option_conflict": lambda: resolve(
        rule("norm.*", options={"eps": 1e-6}), rule("*.weight", options={"eps": 1e-8})
    ),
    "absolute_with_relative": lambda: rule("head.*", lr=1e-3, lr_mult=10),
    "absolute_twice": lambda: resolve(rule("norm.*", lr=1e-3), rule("*.bias", lr=1e-2)),
    "absolute_decay_over_zero": lambda: resolve(rule("norm.*", weight_decay=0.1), weight_decay=0),
    "algorithms_two": lambda: resolve(Tagged("muon"), Tagged("adam")),
    # ties
    "tied_rules": lambda: resolve(rule("embed.*", lr_mult=0.1), rule("head.*", lr_mult=1e-2)),
    "tied_modules": declared_twice,
    "tied_unknown": lambda: resolve(tied={"haed.weight": "embed.weight"}),
    "tied_apart": lambda: resolve(tied={"norm.weight": "embed.weight"}),
    # declarations
    "declare_nowhere": lambda: nnlr.learning_rate(Bert(), "wieght", 0.1),
    "declare_no_parameters": lambda: nnlr.learning_rate(nn.ReLU(), "weight", 0.1),
    "declare_range": lambda: nnlr.weight_decay(nn.Linear(1, 1), "weight", -1),
    "declare_tensor": lambda: nnlr.annotate(nn.Linear(1, 1), "weight", lr_mult=torch.tensor(1.0)),
    # numbers
    "number_nan": lambda: rule("*", lr_mult=float("nan")),
    "number_text": lambda: rule("*", lr_mult="0.1"),
    "number_lr_tensor": lambda: resolve(lr=torch.tensor(1e-3)),
    "number_base_zero": lambda: resolve(lr=0),
    "number_out_of_range": lambda: resolve(*[rule("norm.*", lr_mult=1e-200)] * 2),
    "roles_apart": lambda: resolve(roles={"*": "matrix", "norm.*": "norm"}),
    "decay_unknown": lambda: resolve(decay="decoupled"),
    # schemes
    "where_apart": lambda: resolve(rule("*.bias", lr_mult=2).where("head.*")),
    "scheme_list": lambda: resolve([rule("*")]),
    "scheme_class": lambda: resolve(Short),
    "scheme_function": lambda: resolve(nnlr.layer_decay),
    "scheme_short": lambda: resolve(Short()),
    "scheme_product_factors": lambda: (rule("a") * rule("b")).factors(None),
    # plans
    "plan_unknown_name": lambda: resolve()["encoder.layer.0.wieght"],
    "plan_module_name": lambda: resolve()["encoder.layer.0"],
    "plan_model_gone": lambda: resolve().param_groups(),
    "plan_not_one": lambda: nnlr.Plan.from_dict({"lr": 1}),
    "plan_edited": edited,
    "model_of_tensors": lambda: nnlr.resolve(Bert().parameters(), lr=1, weight_decay=0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_whole_text(name, golden):
    """Each error reads as its golden file says, and is one of ours."""
    with pytest.raises(nnlr.NnlrError, match=r"\w") as caught:
        CASES[name]()
    golden(f"error_{name}", f"{type(caught.value).__name__}: {caught.value}")


class Wordless(nnlr.Scheme):
    """A scheme of a user's own, whose factors end without a return."""

    def factors(self, model):
        return None


class Forgetful(nnlr.Scheme):
    """A scheme of a user's own, whose findings end without a return."""

    def factors(self, model):
        return [nnlr.Factor() for _ in model.params]

    def findings(self, model):
        return None


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
    "model-as-tag": (lambda: nnlr.Factor(algorithm=NET), r"got a Net\.$"),
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
    "two-selectors": (
        lambda: nnlr.rule("a.*", nnlr.role("bias"), lr_mult=2),
        r"got 2 arguments\. Join selectors: rule\(glob\('a\.\*'\) \| role\('bias'\), \.\.\.\)\.$",
    ),
    "rate-by-position": (
        lambda: nnlr.rule("a.*", 0.1),
        r"Write rates by name: rule\('a\.\*', lr_mult=0\.1\)\.$",
    ),
    "axes-by-position": (
        lambda: nnlr.ndim(1),
        r"by name: ndim\(min=1, max=1\) is exactly 1, ndim\(max=1\) at most\.$",
    ),
    "sum-of-schemes": (
        lambda: nnlr.rule("a") + nnlr.rule("b") * nnlr.rule("c"),
        r"no other sign combines them: rule\('a'\) \* \(rule\('b'\) \* rule\('c'\)\)\.$",
    ),
    "either-of-schemes": (lambda: nnlr.rule("a") | nnlr.rule("b"), r"Schemes multiply, and no"),
    "sum-of-many-schemes": (lambda: sum([nnlr.rule("a")]), r"with schemes only, got 0\."),
    "not-a-scheme": (lambda: ~nnlr.rule("a"), r"~ is for selectors: write it inside"),
    "difference-of-schemes": (lambda: nnlr.rule("a") - nnlr.rule("b"), r"Schemes multiply, and no"),
    "two-globs": (
        lambda: nnlr.glob("a", "b"),
        r"glob takes one pattern, got 2\. Join them: glob\('a'\) \| glob\('b'\)\.$",
    ),
    "two-expressions": (lambda: nnlr.regex("a", "b"), r"Join them: regex\('a'\) \| regex\('b'\)"),
    "rules-one-by-one": (
        lambda: nnlr.rules(nnlr.rule("a"), nnlr.rule("b")),
        r"takes a list of rules: nnlr\.rules\(\[rule\('a'\), rule\('b'\)\]\)\.$",
    ),
    "row-by-position": (lambda: plan_of(NET)[0], r"no parameter 0\. Rows by position: plan\.rows"),
    "array-as-answer": (
        lambda: nnlr.resolve(NET, nnlr.rule(nnlr.predicate(lambda p: torch.ones(2))), **RATES),
        r"must return True or False, and returns tensor\(\[1\., 1\.\]\) for 'blocks\.0\.norm1",
    ),
    "scheme-without-findings": (
        lambda: nnlr.resolve(NET, Forgetful(), **RATES),
        r"gave None: findings\(model\) returns a list",
    ),
    "number-times-scheme": (
        lambda: 0.5 * nnlr.rule("a"),
        r"is one more scheme: nnlr\.rule\('\*', lr_mult=0\.5\)\.$",
    ),
    "sum-of-selectors": (
        lambda: "b" + nnlr.glob("a"),
        r"by no other sign: glob\('a'\) \| glob\('b'\)\.$",
    ),
    "selector-without-another": (
        lambda: nnlr.role("bias") - nnlr.ndim(max=1),
        r"and ~ \(all others\), and by no other sign: role\('bias'\) \| ndim\(max=1\)\.$",
    ),
    "no-weight-decay": (
        lambda: nnlr.resolve(NET, lr=0.1),
        r"resolve needs weight_decay=, by name: .*weight_decay=0 if nothing should decay\.$",
    ),
    "no-rate": (lambda: nnlr.param_groups(NET, weight_decay=0), r"param_groups needs lr=, by name"),
    "no-tensors": (lambda: nnlr.resolve({}, **RATES), r"nothing to resolve: \{\} holds no tensors"),
    "modules-as-tensors": (
        lambda: nnlr.resolve({"net": NET}, **RATES),
        r"it holds 'net': a Net\. To resolve several modules as one model: torch\.nn\.ModuleDict",
    ),
    "checkpoint-as-model": (
        lambda: nnlr.resolve({"model": NET.state_dict()}, **RATES),
        r"it holds 'model': an OrderedDict\. Of a whole checkpoint pass the part",
    ),
    "nothing-as-tensor": (lambda: nnlr.resolve({"a": None}, **RATES), r"it holds 'a': None\.$"),
    "no-name": (lambda: nnlr.resolve({"": torch.ones(1)}, **RATES), r"has no name: each needs one"),
    "layer-beyond-all": (
        lambda: nnlr.resolve(NET, nnlr.layer_decay(0.5, lambda p: 10**400), **RATES),
        r"must be a whole number >= 0, got an int\.$",
    ),
    "factors-without-return": (
        lambda: nnlr.resolve(NET, Wordless(), **RATES),
        r"gave None for the 50 parameters of Net: factors\(model\) returns a list",
    ),
    "used-up-iterator": (
        lambda: nnlr.resolve(iter([]), **RATES),
        r"a list_iterator holds no tensors\. An iterator such as model\.named_parameters",
    ),
    "optimizer-as-model": (
        lambda: nnlr.resolve(ADAM, **RATES),
        r"got an AdamW\. An optimizer has no names: pass the model",
    ),
    "class-as-model": (lambda: nnlr.resolve(Net, **RATES), r"Make one first: the class has no"),
    "text-as-rate": (
        lambda: nnlr.resolve(NET, lr="1e-3", weight_decay=0),
        r"got '1e-3' \(str\)\. It is text: pass 0\.001\.$",
    ),
    "rates-in-a-list": (lambda: nnlr.resolve(NET, lr=[1e-3], weight_decay=0), r"got \[0\.001\]"),
    "word-as-switch": (lambda: plan_of(NET).table(full="no"), r"full must be True or False, got"),
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


def test_the_calls_that_slips_offer_work():
    """Each line to paste does what was meant."""
    net = Net()
    joined = nnlr.rule(nnlr.glob("blocks.*") | nnlr.role("head"), lr_mult=0.1)
    assert {0.1, 1.0} == {row.lr_mult for row in nnlr.resolve(net, joined, **RATES)}
    by_axes = nnlr.rule(nnlr.ndim(min=1, max=1), lr_mult=2) * nnlr.rule("*", lr_mult=0.5)
    assert {0.5, 1.0} == {row.lr_mult for row in nnlr.resolve(net, by_axes, **RATES)}
    assert nnlr.resolve(net.named_parameters(), lr=0.001, weight_decay=0).lr == 0.001


@pytest.mark.parametrize("slip", ["two-selectors", "axes-by-position", "no-rate", "sum-of-schemes"])
def test_a_call_that_python_would_refuse_is_a_type_error_too(slip):
    """Who catches a TypeError there goes on doing so."""
    with pytest.raises(TypeError, match=SLIPS[slip][1]):
        SLIPS[slip][0]()


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
