"""The laws that other schemes' tests inherit: kept by ours, broken by what is broken."""

import itertools

import pytest
from torch import nn

import nnlr
from nnlr.scheme import Step
from nnlr.testing import SchemeLaws, rates


class ByDepth(nnlr.Scheme):
    """A scheme of somebody's own: halves from the last parameter down."""

    def factors(self, model):
        last = len(model.params) - 1
        return [
            nnlr.Factor(lr_mult=0.3 ** (last - i), why=f"0.3^{last - i}")
            for i in range(last + 1)
        ]


class TestRuleLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.rule("*.weight", lr_mult=0.3),
            nnlr.rule("*", lr=0.01, weight_decay=0.2, options={"betas": (0.9, 0.95)}),
            nnlr.rule(nnlr.role("bias") | nnlr.role("norm"), wd_mult=0),
            nnlr.rule("nothing", lr_mult=0, optional=True),
            nnlr.rule("*.bias", lr_mult=0),
        ]


class TestRulesLaws(SchemeLaws):
    def schemes(self):
        listed = [
            nnlr.rule("*.bias", lr_mult=2),
            nnlr.rule("*", lr_mult=0.7, wd_mult=0.1),
        ]
        return [nnlr.rules(listed), nnlr.rules(listed, complete=True).where("*.weight")]


class TestCustomLaws(SchemeLaws):
    def schemes(self):
        return [ByDepth(), ByDepth() * ByDepth(), ByDepth().within("1")]

    def models(self):
        return super().models()[1:2]


LAWS = sorted(name for name in vars(SchemeLaws) if name.startswith("test_"))


class Counting(ByDepth):
    """Says something else each time."""

    calls = itertools.count(1)

    def factors(self, model):
        return [nnlr.Factor(lr_mult=next(self.calls))] * len(model.params)


class Touching(ByDepth):
    """Writes on the model it should only read."""

    def factors(self, model):
        if model.module is not None:
            model.module.touched = True
        return super().factors(model)


class Scaling(ByDepth):
    """Changes the weights in place."""

    def factors(self, model):
        for tensor in model.module.parameters():
            tensor.data.mul_(0.5)
        return super().factors(model)


class Grabbing(ByDepth):
    """Says nothing of others when multiplied from the right."""

    def __mul__(self, other):
        return other


class ByWrapper(ByDepth):
    """Looks at the class of the outermost module."""

    def factors(self, model):
        mult = 2 if isinstance(model.module, nn.Sequential) else 3
        return [nnlr.Factor(lr_mult=mult)] * len(model.params)


class Stray(ByDepth):
    """Speaks of a parameter that does not exist."""

    def steps(self, model):
        return {999: (Step("stray", nnlr.Factor(lr_mult=2)),)}


class Unrestricted(ByDepth):
    """Acts on everything, whatever where says."""

    def where(self, selector, *, optional=False):
        return self


class Nowhere(ByDepth):
    """Acts on nothing under where."""

    def where(self, selector, *, optional=False):
        return nnlr.rule("*")


class Unwritable(ByDepth):
    """Leaves something in the trace that is not text."""

    def steps(self, model):
        return {0: (Step(3, nnlr.Factor(lr_mult=2)),)}


class Short(ByDepth):
    """Forgets the last parameter."""

    def factors(self, model):
        return super().factors(model)[:-1]


class Greedy(ByDepth):
    """Remembers the base rate it saw first, so that other base rates mean something else."""

    def steps(self, model):
        trace = super().steps(model)
        return {
            i: (Remembering(steps[0].source, steps[0].factor),)
            for i, steps in trace.items()
        }


class Remembering(Step):
    """A step that is never equal to another, so that no plan equals its repetition."""

    __slots__ = ()

    def __eq__(self, other):
        return False

    __hash__ = None


BROKEN = {
    "test_every_parameter_gets_one_finite_row": [Stray, Short],
    "test_resolve_gives_the_same_plan_twice": [Counting, Greedy],
    "test_resolve_leaves_the_model_alone": [Touching, Scaling],
    "test_a_rule_that_sets_nothing_is_neutral": [Grabbing],
    "test_order_and_nesting_of_a_product_change_no_bit": [Grabbing],
    "test_wrapping_changes_no_row": [ByWrapper],
    "test_where_everything_is_the_scheme_itself": [Nowhere],
    "test_where_nothing_is_the_identity": [Unrestricted],
    "test_outside_of_where_nothing_changes": [Unrestricted, Nowhere],
    "test_a_plan_survives_a_dict_and_json": [Unwritable],
    "test_other_base_rates_give_the_same_plan_by_both_ways": [Greedy],
}


def laws_for(scheme):
    """The laws of one scheme, as its author would write them."""

    class Laws(SchemeLaws):
        def schemes(self):
            return [scheme]

    return Laws()


@pytest.mark.parametrize("law", LAWS)
def test_every_law_can_fail(law):
    """For each law there is a broken scheme that it finds out, and the sound one passes."""
    for broken in BROKEN[law]:
        with pytest.raises((AssertionError, nnlr.NnlrError), match=r"\w+"):
            getattr(laws_for(broken()), law)()
    getattr(laws_for(ByDepth()), law)()


def test_every_law_says_which_scheme_broke_it():
    """The message names the scheme, as nobody explains these asserts."""
    with pytest.raises(AssertionError, match=r"Counting\(\) says something else"):
        laws_for(Counting()).test_resolve_gives_the_same_plan_twice()
    with pytest.raises(AssertionError, match=r"Touching\(\) changed .*the model"):
        laws_for(Touching()).test_resolve_leaves_the_model_alone()


def test_schemes_must_be_given():
    """Laws for no scheme would pass without testing anything."""
    with pytest.raises(nnlr.NnlrError, match=r"SchemeLaws must say which schemes\(\)"):
        SchemeLaws().test_resolve_gives_the_same_plan_twice()

    class Empty(SchemeLaws):
        def schemes(self):
            return []

    with pytest.raises(AssertionError, match=r"Empty.schemes\(\) is empty"):
        Empty().test_resolve_gives_the_same_plan_twice()


def test_rates_tell_plans_apart():
    """Everything that a plan decides is in its rates."""
    model = nn.Linear(1, 1)
    base = rates(nnlr.resolve(model, lr=1, weight_decay=1))
    for settings in (
        {"lr_mult": 2},
        {"wd_mult": 2},
        {"lr_mult": 0},
        {"options": {"eps": 1}},
    ):
        scheme = nnlr.rule("*", **settings)
        assert base != rates(nnlr.resolve(model, scheme, lr=1, weight_decay=1))
