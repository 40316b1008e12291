"""Schemes: factors, products, restrictions, rules, and what is refused where."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import nnlr
from nnlr._findings import Finding
from nnlr._model.describe import describe
from nnlr.testing import rates
from tests.helpers import public_names

BAD_NUMBERS = [float("nan"), float("inf"), -1, True, "1", None, [1], torch.tensor(1.0)]


def net():
    """Two linear layers in a backbone, and a head."""
    return nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            "head": nn.Linear(2, 1),
        }
    )


def plan_of(*schemes, model=None, **settings):
    """Resolve on the small model at the base rates 1 and 1."""
    return nnlr.resolve(
        net() if model is None else model,
        *schemes,
        **{"lr": 1, "weight_decay": 1} | settings,
    )


def mults(plan):
    """Multipliers by name, where they are not 1."""
    return {row.name: row.lr_mult for row in plan if row.lr_mult != 1}


class Custom(nnlr.Scheme):
    """A scheme that gives whatever its test wants."""

    def __init__(self, answer):
        self.answer = answer

    def factors(self, model):
        return self.answer(model)


class TestFactor:
    @pytest.mark.parametrize("field", ["lr_mult", "wd_mult", "eps_mult", "init_mult"])
    @pytest.mark.parametrize("bad", BAD_NUMBERS, ids=repr)
    def test_bad_multipliers_are_refused_at_once(self, field, bad):
        """No scheme can hand on a NaN, a bool or a tensor."""
        with pytest.raises(nnlr.NnlrError, match=f"{field} must be a finite number"):
            nnlr.Factor(**{field: bad})

    @pytest.mark.parametrize("field", ["eps_mult", "init_mult"])
    def test_scales_cannot_be_zero(self, field):
        """An epsilon or an initial weight of 0 is a mistake."""
        with pytest.raises(nnlr.NnlrError, match=f"{field} must be a finite number > 0, got 0"):
            nnlr.Factor(**{field: 0})

    @pytest.mark.parametrize("field", ["lr", "weight_decay"])
    @pytest.mark.parametrize("bad", [bad for bad in BAD_NUMBERS if bad is not None], ids=repr)
    def test_bad_absolute_rates_are_refused_at_once(self, field, bad):
        """Absolute rates are held to the same."""
        with pytest.raises(nnlr.NnlrError, match=f"{field} must be a finite number >= 0"):
            nnlr.Factor(**{field: bad})

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"lr": 1, "lr_mult": 2}, "lr=1 is absolute and lr_mult=2 is relative"),
            (
                {"weight_decay": 1, "wd_mult": 0},
                "weight_decay=1 is absolute and wd_mult=0 ",
            ),
        ],
    )
    def test_absolute_with_relative_is_an_error(self, settings, message):
        """One factor says one thing."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.Factor(**settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"why": 3}, "why must be a string, got 3"),
            ({"tag": 3}, "tag must be a string, got 3"),
            ({"options": None}, "options of a factor must be a mapping"),
            ({"options": []}, "options of a factor must be a mapping"),
        ],
    )
    def test_other_fields_are_checked_too(self, settings, message):
        """Texts are strings and options are a mapping, also if they are empty."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.Factor(**settings)

    def test_numpy_numbers_become_plain_floats(self):
        """A checkpoint need not know numpy."""
        factor = nnlr.Factor(lr_mult=np.float32(0.5), options={"eps": np.float64(0.25)})
        assert [float, float] == [type(factor.lr_mult), type(factor.options["eps"])]

    def test_a_factor_cannot_be_changed(self):
        """It is frozen, and keeps no hold of the mapping it was given."""
        given = {}
        factor = nnlr.Factor(options=given)
        given["betas"] = (0.9, 0.95)
        assert {} == factor.options
        with pytest.raises(dataclasses.FrozenInstanceError, match="lr_mult"):
            factor.lr_mult = 3


class TestSchemesOfYourOwn:
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (
                lambda model: [],
                r"Custom\(\) gave 0 factors for the 6 parameters of ModuleDict",
            ),
            (lambda model: [nnlr.Factor()] * 7, "gave 7 factors for the 6"),
            (lambda model: None, "gave a NoneType for the 6 parameters"),
            (lambda model: (nnlr.Factor() for _ in model.params), "gave a generator"),
            (
                lambda model: [1.0] * 6,
                r"gave 1.0 for 'backbone.0.weight': .* nnlr.Factor objects",
            ),
        ],
    )
    def test_what_is_not_one_factor_each_is_refused(self, answer, message):
        """Too few, too many, nothing, a generator or plain numbers are all told apart."""
        with pytest.raises(nnlr.NnlrError, match=message):
            plan_of(Custom(answer))

    def test_forgotten_factors_are_an_error(self):
        """A subclass without factors says what to write."""

        class Empty(nnlr.Scheme):
            pass

        with pytest.raises(nnlr.NnlrError, match="Empty does not define factors"):
            plan_of(Empty())

    def test_a_reason_alone_is_kept(self):
        """A factor of 1 with a reason is part of the trace; one without is not."""
        remark = Custom(lambda m: [nnlr.Factor(why="outside every tower")] + [nnlr.Factor()] * 5)
        plan = plan_of(remark)
        assert "outside every tower" == plan.rows[0].trace[0].factor.why
        assert () == plan.rows[1].trace

    def test_it_reads_as_it_is_made(self):
        """Without a repr of its own a scheme shows its class."""
        assert "Custom()" == repr(Custom(None))


class TestProduct:
    def test_multipliers_multiply(self):
        """Two rules on one parameter give the product."""
        both = nnlr.rule("head.*", lr_mult=0.5) * nnlr.rule("*.bias", lr_mult=0.1)
        assert {
            "head.weight": 0.5,
            "head.bias": 0.05,
            "backbone.0.bias": 0.1,
            "backbone.1.bias": 0.1,
        } == mults(plan_of(both))

    def test_a_product_is_flat(self):
        """Nesting leaves no trace in the expression."""
        a, b, c = (nnlr.rule("*", lr_mult=value) for value in (2, 3, 4))
        assert repr(a * (b * c)) == repr((a * b) * c) == repr(a * b * c)

    @pytest.mark.parametrize("other", [0.5, "head.*", None, [nnlr.rule("*")]])
    def test_only_schemes_multiply(self, other):
        """A number or a pattern is not a scheme."""
        with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
            nnlr.rule("*") * other

    def test_combined_schemes_have_no_single_factors(self):
        """Asked for factors, a product says where to look instead."""
        for combined in (
            nnlr.rule("*") * nnlr.rule("*"),
            nnlr.rule("*").where("*"),
            nnlr.rule("*").within("head"),
        ):
            with pytest.raises(nnlr.NnlrError, match="has no single factors"):
                combined.factors(describe(net()))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([nnlr.rule("*")], r"given one by one: resolve\(model, \*schemes"),
            ((nnlr.rule("*"),), r"first match counts is nnlr.rules\(\["),
            (Custom, r"got <class .*Custom'> \(type\). Make one: Custom\(\)"),
            ("head.*", r"say what as well: nnlr.rule\('head.\*', lr_mult=...\)"),
            (
                nnlr.role("norm"),
                r"say what as well: nnlr.rule\(role\('norm'\), lr_mult=",
            ),
            (0.1, r"Expected a scheme such as .* got 0.1 \(float\)\.$"),
            (int, r"got <class 'int'> \(type\)\.$"),
        ],
    )
    def test_resolve_takes_schemes_only(self, given, message):
        """A list, a class or a number in place of a scheme is answered by the fix."""
        with pytest.raises(nnlr.NnlrError, match=message):
            plan_of(given)


class TestWhereAndWithin:
    def test_where_resolves_on_the_whole_model(self):
        """The scheme sees all parameters, but acts on the chosen ones."""
        count = Custom(lambda m: [nnlr.Factor(lr_mult=len(m.params))] * len(m.params))
        assert {"head.weight": 6, "head.bias": 6} == mults(plan_of(count.where("head.*")))

    def test_within_resolves_on_the_part_alone(self):
        """The scheme sees relative names and the part's parameters only."""

        def seen(model):
            return [nnlr.Factor(lr_mult=len(model.params), why=p.name) for p in model.params]

        plan = plan_of(Custom(seen).within("head"))
        assert {"head.weight": 2, "head.bias": 2} == mults(plan)
        assert "weight" == plan["head.weight"].trace[0].factor.why

    def test_within_equals_resolving_the_part_alone(self):
        """Row for row, the part gets what it would get by itself."""
        model = net()
        scheme = nnlr.rule("0.*", lr_mult=0.3) * nnlr.rule("*.bias", wd_mult=0)
        alone = rates(plan_of(scheme, model=model["backbone"]))
        within = rates(plan_of(scheme.within("backbone"), model=model))
        assert alone == {name: within[f"backbone.{name}"] for name in alone}

    def test_within_nests(self):
        """A path inside a path."""
        scheme = nnlr.rule("bias", lr_mult=2).within("1").within("backbone")
        assert {"backbone.1.bias": 2} == mults(plan_of(scheme))

    def test_within_works_on_bare_tensors(self):
        """Without modules the path is a prefix of names."""
        tensors = dict(net().named_parameters())
        assert {"head.bias": 2} == mults(
            plan_of(nnlr.rule("bias", lr_mult=2).within("head"), model=tensors)
        )

    def test_within_reaches_bare_tensors_by_any_name(self):
        """A tied tensor is inside the part if one of its names is."""
        weight = nn.Linear(2, 2).weight
        plan = plan_of(
            nnlr.rule("weight", lr_mult=2).within("head"),
            model={"embed.weight": weight, "head.weight": weight},
        )
        assert {"embed.weight": 2} == mults(plan)

    def test_a_path_that_is_nowhere_is_an_error(self):
        """An unknown path names the nearest."""
        with pytest.raises(nnlr.NnlrError, match=r"no module 'backbnoe'. Nearest: 'backbone'"):
            plan_of(nnlr.rule("*").within("backbnoe"))
        for bad in ("", None, 3):
            with pytest.raises(nnlr.NnlrError, match="within needs a module's path"):
                nnlr.rule("*").within(bad)

    def test_roles_set_by_the_user_hold_within(self):
        """A correction of roles reaches the schemes of a part as well."""
        scheme = nnlr.rule(nnlr.role("head"), lr_mult=2).within("backbone")
        plan = plan_of(scheme, roles={"backbone.1.weight": "head"})
        assert {"backbone.1.weight": 2} == mults(plan)

    def test_a_restriction_is_told_with_its_scheme(self):
        """The trace says who speaks and where, however restrictions nest."""
        rule = nnlr.rule("*", lr_mult=2)
        plan = plan_of(rule.where("bias").within("head"))
        assert ["rule '*' where 'bias' within 'head'"] == [
            step.source for step in plan["head.bias"].trace
        ]
        assert "rule '*' where 'bias' within 'head'" in plan.explain("head.bias")

    def test_restricted_parameters_share_their_steps(self):
        """Rates are worked out once for all that one statement reaches."""
        both = nnlr.rule("*", lr_mult=2) * nnlr.rule("*", wd_mult=3)
        for scheme in (both.where("backbone.*"), both.within("backbone")):
            plan = plan_of(scheme)
            steps = {id(s) for row in plan for s in row.trace}
            assert 2 == len(steps)

    def test_where_without_anything_in_common_is_an_error(self):
        """A scheme that speaks, but of nothing that is chosen, has no effect."""
        apart = nnlr.rule("*.bias", lr_mult=2).where("*.weight", optional=True)
        assert {} == mults(plan_of(apart))
        with pytest.raises(
            nnlr.PatternError,
            match=r"(?s)where\('\*\.weight'\) has no effect: .*such as backbone\.0\.bias",
        ) as caught:
            plan_of(nnlr.rule("*.bias", lr_mult=2).where("*.weight"))
        assert "'*.weight'" == caught.value.pattern
        silent = Custom(lambda model: [nnlr.Factor()] * len(model.params))
        assert {} == mults(plan_of(silent.where("*.weight")))
        recipe = Custom(
            lambda model: [nnlr.Factor(lr_mult=2 if p.role == "bias" else 1) for p in model.params]
        )
        assert {} == mults(plan_of(recipe.where("*.weight")))

    def test_where_must_match_unless_optional(self):
        """A selector that matches nothing is an error, or identity if that is said."""
        with pytest.raises(nnlr.PatternError, match=r"where\('haed.*'\) matches no parameter"):
            plan_of(nnlr.rule("*", lr_mult=2).where("haed.*"))
        assert {} == mults(plan_of(nnlr.rule("*", lr_mult=2).where("haed.*", optional=True)))
        with pytest.raises(nnlr.NnlrError, match="optional must be True or False, got 1"):
            nnlr.rule("*").where("*", optional=1)
        with pytest.raises(nnlr.NnlrError, match="where needs a selector"):
            nnlr.rule("*").where(3)


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
            return Custom(lambda model: [nnlr.Factor(tag=tag)] * len(model.params))

        assert "muon" == plan_of(tagged("muon"), tagged("muon"))["head.bias"].tag
        with pytest.raises(nnlr.ConfigError, match="two optimizers: 'muon' by Custom"):
            plan_of(tagged("muon"), tagged("adam"))


@pytest.mark.parametrize(
    "text",
    [
        "rule('head.*', lr_mult=10.0)",
        "rule('head.*', wd_mult=0.0, lr=0.01, optional=True)",
        "rule('*', weight_decay=0.1, options={'betas': (0.9, 0.95)})",
        "rule(glob('a.*') & ~role('norm'))",
        "rules([rule('a'), rule('*', lr_mult=2.0)], complete=True)",
        "rules([rule('a')])",
        "rule('a') * rule('b') * rules([rule('c')])",
        "rule('a').where('b')",
        "(rule('a') * rule('b')).where(role('norm'), optional=True)",
        "(rule('a') * rule('b')).within('model.backbone') * rule('c')",
        "rule('a').within('b').where('c')",
    ],
)
def test_a_scheme_reads_as_it_is_written(text):
    """Its repr gives the expression back, so that a log can be pasted."""
    names = {name: getattr(nnlr, name) for name in public_names(nnlr)}
    assert text == repr(eval(text, names))  # noqa: S307 - our own texts


def test_schemes_are_copied_and_pickled():
    """A scheme is plain data: it goes into a process or a file and comes back."""
    scheme = nnlr.rules([nnlr.rule("*.bias", lr_mult=2)]) * nnlr.rule("head.*").where("*")
    for again in (copy.deepcopy(scheme), pickle.loads(pickle.dumps(scheme))):
        assert plan_of(scheme) == plan_of(again)
        assert repr(scheme) == repr(again)


def test_three_spellings_give_one_plan():
    """Disjoint rules as a list, as a product, and as declarations decide the same."""
    listed = plan_of(
        nnlr.rules([nnlr.rule("*.weight", lr_mult=0.1), nnlr.rule("*.bias", wd_mult=0)])
    )
    product = plan_of(nnlr.rule("*.weight", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0))
    model = nnlr.annotate(nnlr.annotate(net(), "weight", lr_mult=0.1), "bias", wd_mult=0)
    assert rates(listed) == rates(product) == rates(plan_of(model=model))


class Remarks(nnlr.Scheme):
    """A scheme that points at every bias, and knows its layers."""

    def factors(self, model):
        return [
            nnlr.Factor(layer=nnlr.depth.Layer(i, 9, "" if i % 2 else "t"))
            for i, _ in enumerate(model.params)
        ]

    def findings(self, model):
        return [
            Finding(
                severity="note",
                kind="bias",
                names=tuple(p.name for p in model.params if p.leaf == "bias"),
                cause="These are biases",
                fix="Look at them.",
            )
        ]


class TestFindings:
    @pytest.mark.parametrize(
        "scheme",
        [Remarks(), nnlr.rule("*") * Remarks(), Remarks().where("head.*")],
        ids=repr,
    )
    def test_what_a_scheme_points_out_is_in_the_plan(self, scheme):
        """Alone, in a product and restricted, beside what nnlr finds itself."""
        plan = plan_of(scheme)
        found = {finding.kind: finding for finding in plan.findings}
        assert ("backbone.0.bias", "backbone.1.bias", "head.bias") == found["bias"].names
        assert "These are biases" in str(plan)

    def test_within_a_part_names_are_those_of_the_whole(self):
        """What the scheme saw as `0.bias` is `backbone.0.bias`."""
        (finding,) = plan_of(Remarks().within("backbone")).findings
        assert ("backbone.0.bias", "backbone.1.bias") == finding.names

    def test_schemes_point_out_nothing_by_default(self):
        """A scheme need not have findings."""
        assert () == plan_of(Custom(lambda model: [nnlr.Factor()] * 6)).findings


class TestLayer:
    def test_a_layer_shows_in_the_row_and_survives_json(self):
        """Tower and depth of the row come from the factor."""
        plan = plan_of(Remarks())
        assert ("t", (0, 9)) == (plan.rows[0].tower, plan.rows[0].depth)
        assert nnlr.Plan.from_json(plan.to_json()) == plan
        assert "layer 0 of 9 of t" in plan.explain(plan.rows[0].name)

    def test_within_a_part_its_path_stands_before_the_tower(self):
        """Towers are named as seen from the whole model."""
        plan = plan_of(Remarks().within("backbone"))
        towers = [row.tower for row in plan]
        assert [
            "backbone.t",
            "backbone",
            "backbone.t",
            "backbone",
            None,
            None,
        ] == towers

    def test_the_first_scheme_that_knows_the_depth_counts(self):
        """Two schemes may count layers differently; both act, one is shown."""
        other = Custom(lambda m: [nnlr.Factor(layer=nnlr.depth.Layer(1, 2))] * 6)
        assert (1, 2) == plan_of(other, Remarks()).rows[0].depth
