"""Rules and lists of rules: who claims a parameter, and what is refused."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr._model.describe import describe
from tests.declare.models import BAD_NUMBERS, Custom, mults, net, plan_of


class TestRule:
    @pytest.mark.parametrize("field", ["lr_mult", "wd_mult"])
    @pytest.mark.parametrize("bad", BAD_NUMBERS, ids=repr)
    def test_bad_numbers_are_refused_at_the_call(self, field, bad):
        """The rule that receives them says so, not resolve."""
        with pytest.raises(nnlr.NnlrError, match=f"{field} must be a finite number"):
            nnlr.rule("*", **{field: bad})

    def test_a_tensor_as_lr_points_to_tensor_lr(self):
        """Whoever wants lr in a tensor is told how."""
        with pytest.raises(nnlr.NnlrError, match=r"plan.optimizer\(..., tensor_lr=True\)"):
            nnlr.rule("*", lr=torch.tensor(0.1))
        with pytest.raises(nnlr.NnlrError, match=r"plan.optimizer\(..., tensor_lr=True\)"):
            plan_of(lr=torch.tensor(0.1))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"options": {"lr": 1}},
                "options of rule 'head.*' may not set 'lr': use lr=",
            ),
            ({"options": []}, "options of rule 'head.*' must be a mapping"),
            ({"options": {"betas": {1}}}, "option 'betas' of rule 'head.*' must be"),
            ({"optional": "yes"}, "optional must be True or False, got 'yes'"),
        ],
    )
    def test_other_arguments_are_checked_at_the_call(self, settings, message):
        """The message names the rule and the setting."""
        with pytest.raises(nnlr.NnlrError, match=message.replace("*", r"\*")):
            nnlr.rule("head.*", **settings)

    def test_no_other_keyword_is_accepted(self):
        """A misspelt keyword is Python's own error."""
        with pytest.raises(TypeError, match="lr_mul"):
            nnlr.rule("*", lr_mul=2)
        with pytest.raises(nnlr.NnlrError, match=r"rule needs a selector: .* got 3"):
            nnlr.rule(3)

    def test_an_optional_rule_may_match_nothing(self):
        """optional=True makes a rule that reaches nothing harmless."""
        assert {} == mults(plan_of(nnlr.rule("decoder.*", lr_mult=2, optional=True)))

    def test_a_rule_and_a_list_have_factors(self):
        """As schemes they give one factor for each parameter."""
        info = describe(net())
        single = nnlr.rule("head.*", lr_mult=2)
        for scheme in (single, nnlr.rules([single])):
            assert [1, 1, 1, 1, 2, 2] == [factor.lr_mult for factor in scheme.factors(info)]


class TestRules:
    def test_the_first_match_claims(self):
        """Later rules do not act on what an earlier one has claimed."""
        table = nnlr.rules([nnlr.rule("*.bias", lr_mult=2), nnlr.rule("head.*", lr_mult=3)])
        assert {
            "backbone.0.bias": 2,
            "backbone.1.bias": 2,
            "head.bias": 2,
            "head.weight": 3,
        } == mults(plan_of(table))

    def test_shadowed_rules_are_part_of_the_trace(self):
        """The method explain shows which rules matched too late."""
        table = nnlr.rules(
            [
                nnlr.rule("*.bias", lr_mult=2),
                nnlr.rule("head.*"),
                nnlr.rule("*", lr_mult=4),
            ]
        )
        plan = plan_of(table)
        step = plan["head.bias"].trace[0]
        assert "rule 0 '*.bias'" == step.source
        assert ("rule 1 'head.*'", "rule 2 '*'") == step.factor.shadowed
        assert "rule 1 'head.*', rule 2 '*'" in plan.explain("head.bias")
        assert "shadowed" not in plan.explain("backbone.0.weight")

    def test_a_wholly_shadowed_rule_is_an_error(self):
        """A rule that can do nothing names the rules that took its matches."""
        table = nnlr.rules([nnlr.rule("*"), nnlr.rule("head.*")])
        with pytest.raises(nnlr.PatternError, match=r"rule 1 'head.*' has no effect.*rule 0") as e:
            plan_of(table)
        assert "'head.*'" == e.value.pattern
        three = nnlr.rules([nnlr.rule("*.weight"), nnlr.rule("*.bias"), nnlr.rule("head.*")])
        with pytest.raises(nnlr.PatternError, match=r"rule 0 '\*.weight' took 1, rule 1 .* took 1"):
            plan_of(three)

    def test_an_optional_rule_may_be_shadowed(self):
        """optional=True says that having nothing to claim is fine."""
        table = nnlr.rules([nnlr.rule("*", lr_mult=2), nnlr.rule("head.*", optional=True)])
        assert 6 == len(mults(plan_of(table)))

    def test_complete_covers_every_trainable_parameter(self):
        """What no rule claims is an error; frozen parameters need no rule."""
        table = nnlr.rules([nnlr.rule("head.*")], complete=True)
        with pytest.raises(nnlr.CoverageError, match="claims 4 trainable parameters of Mod") as e:
            plan_of(table)
        assert [f"backbone.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")] == e.value.names
        model = net()
        model["backbone"].requires_grad_(False)
        assert 6 == len(plan_of(table, model=model))
        model["backbone"][0].bias.requires_grad_(True)
        with pytest.raises(nnlr.CoverageError, match="claims 1 trainable parameter of"):
            plan_of(table, model=model)

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ([], "at least one"),
            (["head.*"], "member 0 is 'head.*'"),
            (
                [nnlr.rule("*"), nnlr.rule("*") * nnlr.rule("*")],
                "member 1 is .*Product",
            ),
            (nnlr.rule("*"), r"takes a list of rules: nnlr.rules\(\[rule\('\*'\)\]\)"),
            (None, r"takes a list of rules: .*, got None"),
            ("head.*", r"takes a list of rules: .*, got 'head"),
        ],
    )
    def test_only_rules_make_a_list(self, members, message):
        """Other schemes multiply, they are not claimed."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.rules(members)

    def test_complete_is_a_switch(self):
        """The argument complete is True or False."""
        with pytest.raises(nnlr.NnlrError, match="complete must be True or False, got 1"):
            nnlr.rules([nnlr.rule("*")], complete=1)


class TestOptions:
    def test_options_join(self):
        """Different settings of two schemes come together in the row."""
        plan = plan_of(
            nnlr.rule("head.*", options={"betas": (0.9, 0.95)}),
            nnlr.rule("*", options={"eps": 1e-6}),
        )
        assert {"betas": (0.9, 0.95), "eps": 1e-6} == plan["head.bias"].options

    def test_a_conflict_names_both_sources(self):
        """One setting with two values is an error, in either order."""
        one = nnlr.rule("head.*", options={"eps": 1e-6})
        two = nnlr.rules([nnlr.rule("*", options={"eps": 1e-8})])
        for schemes in ((one, two), (two, one)):
            with pytest.raises(nnlr.ConfigError, match=r"Option 'eps' of 'head.weight'") as caught:
                plan_of(*schemes)
            assert "rule 'head.*'" in str(caught.value)
            assert "rule 0 '*'" in str(caught.value)

    def test_equal_values_agree(self):
        """The same setting twice is no conflict."""
        rule = nnlr.rule("*", options={"eps": 1e-6})
        assert {"eps": 1e-6} == plan_of(rule * rule)["head.bias"].options

    def test_equal_values_of_two_types_do_not_depend_on_the_order(self):
        """True and 1 are equal and not the same setting; one of them is always kept."""
        rules = [nnlr.rule("*", options={"foreach": value}) for value in (True, 1)]
        kept = [plan_of(*order)["head.bias"].options["foreach"] for order in (rules, rules[::-1])]
        assert ["1", "1"] == list(map(repr, kept))

    def test_two_tags_are_a_conflict(self):
        """A parameter goes to one optimizer."""

        def tagged(tag):
            return Custom(lambda model: [nnlr.Factor(algorithm=tag)] * len(model.params))

        assert "muon" == plan_of(tagged("muon"), tagged("muon"))["head.bias"].algorithm
        with pytest.raises(nnlr.ConfigError, match="two algorithms: 'muon' by Custom"):
            plan_of(tagged("muon"), tagged("adam"))


class TestUnmatchedParts:
    """Patterns inside a combined selector that match nothing."""

    NET = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})

    @pytest.mark.parametrize(
        "scheme",
        [
            nnlr.rule(nnlr.glob("body.*") | "haed.*", lr_mult=0.1),
            nnlr.rules([nnlr.rule("body.*"), nnlr.rule(~nnlr.glob("haed.*"), lr_mult=0.1)]),
            nnlr.freeze(nnlr.glob("body.*") | "haed.*"),
            nnlr.freeze(~nnlr.glob("haed.*"), keep="head.bias"),
            nnlr.rule("*", lr_mult=0.1).where(nnlr.glob("body.*") | "haed.*"),
        ],
        ids=repr,
    )
    def test_a_typo_beside_what_matches_is_found(self, scheme):
        """The rest acts, so that it is no error; the nearest pattern is named."""
        (finding,) = nnlr.resolve(self.NET, scheme, lr=1, weight_decay=0).findings
        assert ("unmatched-part", "warning") == (finding.kind, finding.severity)
        assert "'haed.*' in " in finding.cause
        assert "Write 'head.*' if that is meant" in finding.fix

    @pytest.mark.parametrize(
        "scheme",
        [
            nnlr.rule(nnlr.glob("body.*") | "haed.*", lr_mult=0.1, optional=True),
            nnlr.rule("*", lr_mult=0.1).where(nnlr.glob("body.*") | "haed.*", optional=True),
            nnlr.rule(~nnlr.role("norm"), lr_mult=0.1),
            nnlr.rule(nnlr.glob("body.*") | "head.bias", lr_mult=0.1),
        ],
        ids=repr,
    )
    def test_what_may_match_nothing_is_not(self, scheme):
        """Optional ones, and roles, which are asked of any model."""
        assert () == nnlr.resolve(self.NET, scheme, lr=1, weight_decay=0).findings

    def test_without_a_near_name_it_says_so(self):
        """There is none to offer."""
        rule = nnlr.rule(nnlr.glob("body.*") | "zzz", lr_mult=0.1)
        (finding,) = nnlr.resolve(self.NET, rule, lr=1, weight_decay=0).findings
        assert finding.fix.startswith("Correct it, or drop it; ")
