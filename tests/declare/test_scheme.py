"""Schemes: products, restrictions, schemes of a user, findings, layers."""

import copy
import pickle

import pytest
from torch import nn

import nnlr
from nnlr._findings import Finding
from nnlr._model.describe import describe
from nnlr.testing import rates
from tests.declare.models import Custom, mults, net, plan_of
from tests.helpers import public_names


class TestSchemesOfYourOwn:
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (
                lambda model: [],
                r"Custom\(\) gave 0 factors for the 6 parameters of ModuleDict",
            ),
            (lambda model: [nnlr.Factor()] * 7, "gave 7 factors for the 6"),
            (lambda model: None, "gave None for the 6 parameters"),
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
        with pytest.raises(TypeError, match=r"can be combined with schemes only, got"):
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
            (nnlr.recipe("mae/vit-b/finetune"), r"Of a recipe pass the scheme, recipe\.scheme"),
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
        """A selector that matches nothing is an error, or changes nothing if optional."""
        with pytest.raises(nnlr.PatternError, match=r"where\('haed.*'\) matches no parameter"):
            plan_of(nnlr.rule("*", lr_mult=2).where("haed.*"))
        assert {} == mults(plan_of(nnlr.rule("*", lr_mult=2).where("haed.*", optional=True)))
        with pytest.raises(nnlr.NnlrError, match="optional must be True or False, got 1"):
            nnlr.rule("*").where("*", optional=1)
        with pytest.raises(nnlr.NnlrError, match="where needs a selector"):
            nnlr.rule("*").where(3)


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
        actual = {finding.kind: finding for finding in plan.findings}
        assert ("backbone.0.bias", "backbone.1.bias", "head.bias") == actual["bias"].names
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
