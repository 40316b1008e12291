"""roles: rates by role, as a table."""

import pytest
from torch import nn

import nnlr
from nnlr.schemes import roles
from nnlr.testing import SchemeLaws, rates
from tests import zoo

LR, WD = 1e-3, 0.1


def resolve(model, *schemes, **kwargs):
    """A plan at the base rates of these tests."""
    return nnlr.resolve(model, *schemes, lr=LR, weight_decay=WD, **kwargs)


@pytest.mark.no_cover
class TestRolesLaws(SchemeLaws):
    """Tables keep the laws of schemes."""

    def schemes(self):
        """Every kind of entry, with and without a default."""
        return [
            roles({"bias": 2, "embedding": 10, "norm": 0}, optional=True),
            roles({"bias": {"lr": 0.01, "options": {"eps": 1e-6}}}, default=0.5),
            roles({"bias": 1}, default={"wd_mult": 0.3, "weight_decay": None}),
        ]

    def models(self):
        """Models that have biases."""
        return [model for model in super().models() if not _lacks_bias(model)]


def _lacks_bias(model):
    return not any(name.endswith("bias") for name, _ in model.named_parameters())


def test_a_number_is_the_lr_mult_of_a_role():
    """Embedding 10, head 2; all other parameters stay at the base rates."""
    plan = resolve(zoo.plain(), roles({"embedding": 10, "head": 2}))
    expected = {row.name: 1.0 for row in plan} | {
        "embed.weight": 10.0,
        "head.weight": 2.0,
    }
    assert expected == {row.name: row.lr_mult for row in plan}


def test_a_mapping_sets_all_that_a_rule_sets():
    """lr, weight_decay, wd_mult and options do what they do in a rule of the same role."""
    settings = [
        {"lr_mult": 0.5, "wd_mult": 0.2, "options": {"betas": (0.8, 0.95)}},
        {"lr": 0.01, "weight_decay": 0.3},
        {"wd_mult": 0},
        {"lr_mult": 0},
    ]
    for entry in settings:
        expected = resolve(zoo.plain(), nnlr.rule(nnlr.role("norm"), **entry))
        assert rates(expected) == rates(resolve(zoo.plain(), roles({"norm": entry})))


def test_the_default_is_for_every_other_role():
    """Roles of the table do not get the default as well."""
    plan = resolve(zoo.plain(), roles({"norm": {"wd_mult": 0}}, default=0.5))
    for row in plan:
        expected = (1.0, 0.0) if row.role == "norm" else (0.5, 1.0)
        assert expected == (row.lr_mult, row.wd_mult)


def test_the_trace_names_the_entry():
    """It says which entry of the table set a rate."""
    plan = resolve(zoo.plain(), roles({"norm": 3}, default=0.5))
    assert "roles['norm']: role norm" in plan.explain("blocks.0.norm.weight")
    assert "the default of roles: any other role" in plan.explain("head.weight")


def test_a_tied_head_has_the_role_embedding():
    """One tensor, one role: the table reaches it by all of its names."""
    plan = resolve(zoo.tied(), roles({"embedding": 10}))
    assert plan["head.weight"].lr_mult == 10
    both = roles({"embedding": 10}) * nnlr.rule("head.weight", lr_mult=0.5)
    assert resolve(zoo.tied(), both)["embed.weight"].lr_mult == 5


def test_a_role_that_the_model_lacks_is_an_error():
    """A user wrote it, so it must match; the message lists the roles there are."""
    with pytest.raises(
        nnlr.PatternError,
        match=r"roles\['conv'\] matches no parameter of Net .*\n  Roles it has: bias, emb",
    ) as caught:
        resolve(zoo.plain(), roles({"conv": 2, "norm": 1}))
    assert caught.value.pattern == "conv"
    with pytest.raises(nnlr.PatternError, match=r"tied: embed.weight = head.weight has the role"):
        resolve(zoo.tied(), roles({"head": 2}))
    with pytest.raises(nnlr.PatternError, match="Roles it has: none"):
        resolve(nn.Identity(), roles({"head": 2}))


def test_a_tied_output_layer_is_only_mentioned_if_it_explains_something():
    """Not for another role, and not if nothing is tied."""
    untied = nn.Sequential(nn.Embedding(9, 4))
    for model, role in ((zoo.tied(), "conv"), (untied, "head")):
        with pytest.raises(nnlr.PatternError, match="matches no parameter") as caught:
            resolve(model, roles({role: 2}))
        assert "tied" not in str(caught.value)


def test_optional_allows_roles_that_the_model_lacks():
    """One table for several models."""
    plan = resolve(zoo.plain(), roles({"conv": 2, "norm": 3}, optional=True))
    assert {1.0, 3.0} == {row.lr_mult for row in plan}


def test_complete_demands_an_entry_for_every_trained_role():
    """What is frozen need not be in the table."""
    model = zoo.plain()
    table = {"embedding": 1, "norm": 1, "matrix": 1, "bias": 1}
    with pytest.raises(
        nnlr.CoverageError, match=r"every role but head: 1 .* head.weight \(head\)"
    ) as caught:
        resolve(model, roles(table, complete=True))
    assert ["head.weight"] == caught.value.names
    model.head.requires_grad_(False)
    assert len(resolve(model, roles(table, complete=True))) == len(resolve(model))


def test_a_role_given_by_the_user_counts():
    """resolve(..., roles=) moves a parameter to another row of the table."""
    given = {"blocks.0.fc.weight": "router"}
    plan = resolve(zoo.plain(), roles({"router": 0.5}), roles=given)
    assert plan["blocks.0.fc.weight"].lr_mult == 0.5


def test_a_restriction_that_leaves_nothing_is_an_error():
    """Roles are a user's words, so where() must leave something of them."""
    with pytest.raises(nnlr.PatternError, match="has no effect"):
        resolve(zoo.plain(), roles({"norm": 2}).where("head.*"))


def test_a_table_for_frozen_parameters_only_is_a_finding():
    """As for a rule: it does nothing."""
    model = zoo.plain()
    model.head.requires_grad_(False)
    actual = resolve(model, roles({"head": 2})).findings
    assert ["rule-on-frozen"] == [finding.kind for finding in actual]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: roles({}), nnlr.NnlrError, r"needs a table .* got \{\}"),
        (lambda: roles(["norm"]), nnlr.NnlrError, "needs a table"),
        (lambda: roles({"embeding": 1}), nnlr.NnlrError, "Nearest: 'embedding'"),
        (lambda: roles({"norm": -1}), nnlr.NnlrError, r"roles\['norm'\] must .* >= 0"),
        (lambda: roles({"norm": "1"}), nnlr.NnlrError, "finite number >= 0, got '1'"),
        (lambda: roles({"norm": {}}), nnlr.NnlrError, "sets nothing. Known: lr_mult"),
        (lambda: roles({"norm": {"lr": None}}), nnlr.NnlrError, "sets nothing. Known"),
        (
            lambda: roles({"norm": 1}, default={}),
            nnlr.NnlrError,
            "the default of roles sets nothing",
        ),
        (lambda: roles({"norm": {"lr_mul": 1}}), nnlr.NnlrError, "Nearest: 'lr_mult'"),
        (
            lambda: roles({"norm": {"lr": 1, "lr_mult": 2}}),
            nnlr.NnlrError,
            r"roles\['norm'\]: lr=1 is absolute and lr_mult=2 is relative",
        ),
        (
            lambda: roles({"norm": {"options": {"lr": 1}}}),
            nnlr.ConfigError,
            r"options of roles\['norm'\] may not set 'lr'",
        ),
        (
            lambda: roles({"norm": 1}, default=-1),
            nnlr.NnlrError,
            "the default of roles must be a finite number >= 0",
        ),
        (
            lambda: roles({"norm": 1}, default=1, complete=True),
            nnlr.ConfigError,
            "complete=True and a default",
        ),
        (
            lambda: roles({"norm": 1}, complete=1),
            nnlr.NnlrError,
            "complete must be True",
        ),
        (
            lambda: roles({"norm": 1}, optional=0),
            nnlr.NnlrError,
            "optional must be True",
        ),
    ],
)
def test_bad_tables_are_refused_at_the_call(call, error, message):
    """The message names the entry, the range and what is near."""
    with pytest.raises(error, match=message):
        call()


def test_the_repr_is_the_call():
    """It can be pasted, and gives the same scheme."""
    scheme = roles(
        {"norm": {"wd_mult": 0, "options": {"eps": 1e-6}}, "head": 2},
        default=0.5,
        optional=True,
    )
    text = (
        "roles({'norm': {'wd_mult': 0.0, 'options': {'eps': 1e-06}}, 'head': 2.0}, "
        "default=0.5, optional=True)"
    )
    assert text == repr(scheme)
    assert text == repr(eval(text, {"roles": roles}))  # noqa: S307
