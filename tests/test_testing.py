"""The laws that other schemes' tests inherit: kept by ours, broken by what is broken."""

import itertools
from dataclasses import replace

import pytest
from torch import nn

import nnlr
from nnlr._declare.factor import Step
from nnlr.testing import SchemeLaws, rates


class ByDepth(nnlr.Scheme):
    """A scheme of somebody's own: halves from the last parameter down."""

    def factors(self, model):
        last = len(model.params) - 1
        return [
            nnlr.Factor(lr_mult=0.3 ** (last - i), why=f"0.3^{last - i}") for i in range(last + 1)
        ]


@pytest.mark.no_cover
class TestRuleLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.rule("*.weight", lr_mult=0.3),
            nnlr.rule("*", lr=0.01, weight_decay=0.2, options={"betas": (0.9, 0.95)}),
            nnlr.rule(nnlr.role("bias") | nnlr.role("norm"), wd_mult=0),
            nnlr.rule("nothing", lr_mult=0, optional=True),
            nnlr.rule("*.bias", lr_mult=0),
        ]


@pytest.mark.no_cover
class TestRulesLaws(SchemeLaws):
    def schemes(self):
        listed = [
            nnlr.rule("*.bias", lr_mult=2),
            nnlr.rule("*", lr_mult=0.7, wd_mult=0.1),
        ]
        return [nnlr.rules(listed), nnlr.rules(listed, complete=True).where("*.weight")]


class Moving(nnlr.Scheme):
    """Moves each layer by a move that the scheme holds."""

    def __init__(self, move=None):
        self.move = Halving() if move is None else move

    def factors(self, model):
        return [
            nnlr.Factor(
                lr_mult=0.5,
                moves=("lr", param.name.partition(".")[0], "halved each time"),
                move=self.move,
            )
            for param in model.params
        ]


class Halving(nnlr.Move):
    """Half as fast after each look; a unit remembers how fast it is."""

    def measures(self, now, units):
        return now.step % 2 == 1

    def measure(self, now, units):
        for unit in units:
            unit.memory["mult"] = unit.memory.get("mult", 1.0) / 2

    def mults(self, now, units):
        return [unit.memory.get("mult", 1.0) for unit in units]


class TestMovingLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.rule("*.bias", lr_mult=0.3, optional=True).at(lambda t: 1 - t),
            nnlr.rule("*").at(lambda t: float(t.epoch), setting="weight_decay"),
            Moving(),
        ]

    def models(self):
        return super().models()[1:3]


@pytest.mark.no_cover
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


class Reckoning(ByDepth):
    """Changes the gradients in place."""

    def factors(self, model):
        for tensor in model.module.parameters():
            if tensor.grad is not None:
                tensor.grad.mul_(0.5)
        return super().factors(model)


class Redeclaring(ByDepth):
    """Changes what is declared, which stands on the same modules as before."""

    def factors(self, model):
        for module in model.module.modules():
            for values in vars(module).get("_nnlr", {}).values():
                values["lr_mult"] = 0.7
        return super().factors(model)


class Noting(ByDepth):
    """Writes on a tensor."""

    def factors(self, model):
        next(model.module.parameters()).seen = True
        return super().factors(model)


class Hooking(ByDepth):
    """Wants to hear of a gradient."""

    def factors(self, model):
        list(model.module.parameters())[-1].register_hook(lambda gradient: None)
        return super().factors(model)


class Waiting(ByDepth):
    """Wants to hear when a gradient is there."""

    def factors(self, model):
        tensor = list(model.module.parameters())[-1]
        tensor.register_post_accumulate_grad_hook(lambda parameter: None)
        return super().factors(model)


class Freezing(ByDepth):
    """Switches a gradient off."""

    def factors(self, model):
        model.module.requires_grad_(False)
        return super().factors(model)


class Replacing(ByDepth):
    """Puts an equal tensor in the place of one."""

    def factors(self, model):
        layer = model.module[0]
        layer.weight = nn.Parameter(layer.weight.detach().clone())
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


class Silent(Moving):
    """Says that it moves, and has no move."""

    def factors(self, model):
        return [replace(factor, move=None) for factor in super().factors(model)]


class Forgetting(Moving):
    """Its move remembers by itself, where no checkpoint finds it."""

    def __init__(self):
        super().__init__(Counted())


class Counted(nnlr.Move):
    """Slower at each step."""

    count = 0

    def mults(self, now, units):
        self.count += 1
        return [0.9**self.count] * len(units)


class Negative(Moving):
    """Its move gives what no training can use."""

    def __init__(self):
        super().__init__(Falling())


class Falling(nnlr.Move):
    """One less at each step."""

    def mults(self, now, units):
        return [1.0 - now.step] * len(units)


# What the message names first.
CHANGED = {
    Touching: "attributes of the model'",
    Scaling: "value of 0.weight'",
    Reckoning: "gradient of 0.weight'",
    Redeclaring: "attributes of 0'",
    Noting: "attributes of 0.weight'",
    Hooking: "hooks of 1.bias'",
    Waiting: "hooks of 1.bias'",
    Freezing: "requires_grad of 0.weight'",
    Replacing: "attributes of 0'",
}

BROKEN = {
    "test_every_parameter_gets_one_finite_row": [Stray, Short],
    "test_resolve_gives_the_same_plan_twice": [Counting],
    "test_resolve_leaves_the_model_alone": list(CHANGED),
    "test_a_rule_that_sets_nothing_is_neutral": [Grabbing],
    "test_order_and_nesting_of_a_product_change_no_bit": [Grabbing],
    "test_wrapping_changes_no_row": [ByWrapper],
    "test_where_everything_is_the_scheme_itself": [Nowhere],
    "test_where_nothing_is_the_identity": [Unrestricted],
    "test_outside_of_where_nothing_changes": [Unrestricted, Nowhere],
    "test_a_plan_survives_a_dict_and_json": [Unwritable],
    "test_what_moves_says_how": [Silent],
    "test_rates_are_base_times_plan_times_moves": [Negative],
    "test_a_resumed_run_moves_on_exactly": [Forgetting],
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
    for broken, what in CHANGED.items():
        with pytest.raises(AssertionError, match=rf"{broken.__name__}\(\) changed \['{what}"):
            laws_for(broken()).test_resolve_leaves_the_model_alone()


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
