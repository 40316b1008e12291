"""The text of each kind of error, whole: what happened, where, why, and what to do.

One golden file for each kind. Look at them when they change: they are what users meet.
"""

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
    def __init__(self, tag):
        self.tag = tag

    def factors(self, model):
        return [nnlr.Factor(tag=self.tag) for _ in model.params]

    def __repr__(self):
        return f"Tagged({self.tag!r})"


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
    "tags_two": lambda: resolve(Tagged("muon"), Tagged("adam")),
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
