"""The laws of combination: what a product of schemes may depend on, and what not."""

import functools
import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import nnlr
from nnlr.testing import rates
from tests.laws.strategies import MULTS, bracketings, cases, models, selectors, tables

pytestmark = pytest.mark.no_cover


def decided(model, *schemes, **settings):
    """Everything decided for each parameter."""
    return rates(nnlr.resolve(model, *schemes, **{"lr": 0.1, "weight_decay": 0.3} | settings))


@given(st.data())
def test_order_and_nesting_change_no_bit(data):
    """Any bracketing of any permutation is one product, also through where and within."""
    model, members = data.draw(cases(least=2))
    decay = data.draw(st.sampled_from(["coupled", "independent", "sqrt"]))
    expected = decided(model, *members, decay=decay)
    assert expected == decided(model, data.draw(bracketings(members)), decay=decay)


@given(st.data())
def test_a_restriction_goes_into_a_product(data):
    """(a * b).where(s) is a.where(s) * b.where(s), and within is the same."""
    model, members = data.draw(cases(least=2))
    chosen = data.draw(selectors())
    product = functools.reduce(operator.mul, members)
    each = [member.where(chosen, optional=True) for member in members]
    assert decided(model, product.where(chosen, optional=True)) == decided(model, *each)


@given(cases(most=1))
def test_one_is_neutral(case):
    """Rules that set nothing change nothing, from either side."""
    model, (scheme,) = case
    one = nnlr.rule("*")
    expected = decided(model, scheme)
    assert expected == decided(model, scheme * one) == decided(model, one * scheme)


@given(cases())
def test_zero_absorbs(case):
    """A zero locks whatever else is said, and the rest is remembered."""
    model, members = case
    before = decided(model, *members)
    after = nnlr.resolve(model, *members, nnlr.rule("*", lr_mult=0), lr=0.1, weight_decay=0.3)
    for row in after:
        assert (0, 0) == (row.lr, row.lr_mult)
        assert before[row.name][6] == row.unlocked_lr_mult
        assert not row.trainable


@given(cases(most=1), selectors())
def test_a_scheme_is_the_product_of_its_parts(case, chosen):
    """Restricted to a choice and to the rest, the two parts are the whole."""
    model, (scheme,) = case
    inside = scheme.where(chosen, optional=True)
    outside = scheme.where(~chosen, optional=True)
    assert decided(model, scheme) == decided(model, inside * outside)


@given(models(), tables(), selectors())
def test_where_is_the_identity_outside(model, scheme, chosen):
    """Inside the choice the scheme acts as before, outside everything is 1."""
    whole, restricted = (
        decided(model, scheme),
        decided(model, scheme.where(chosen, optional=True)),
    )
    base = decided(model)
    info = nnlr._model.describe.describe(model)
    inside = {info.params[i].name for i in chosen.matches(info)}
    assert {n: (whole if n in inside else base)[n] for n in whole} == restricted


@given(st.data())
def test_within_is_the_submodule_alone(data):
    """Each row of the part is what the part would get by itself; the rest is 1."""
    model, scheme = data.draw(models()), data.draw(tables())
    index = data.draw(st.integers(0, len(model) - 1))
    part = decided(model[index], scheme)
    whole = decided(model, scheme.within(str(index)))
    tensors = dict(model.named_parameters(remove_duplicate=False))
    name_of = {id(t): n for n, t in model.named_parameters()}
    base, seen = decided(model), set()
    plan = nnlr.resolve(model, lr=1, weight_decay=0)
    for name, found in part.items():
        full = plan[f"{index}.{name}"].name
        assert found == whole[full]
        seen.add(full)
    assert all(base[name] == whole[name] for name in whole.keys() - seen)
    assert len(name_of) == len(whole) <= len(tensors)


@given(st.lists(MULTS, max_size=6))
def test_a_product_of_numbers_is_the_sorted_product(values):
    """The value of a product is math.prod(sorted(values)), nothing else."""
    members = [nnlr.rule("*", lr_mult=value) for value in values]
    row = nnlr.resolve(nn.Linear(1, 1), *members, lr=1, weight_decay=0).rows[0]
    assert math.prod(sorted(values)) == row.lr_mult


@given(st.data())
def test_rules_by_names_decide_or_disagree_in_every_order_alike(data):
    """With tied tensors reached by different names: one answer, or an error, never both."""
    model = data.draw(models())
    names = sorted({n for n, _ in model.named_parameters(remove_duplicate=False)})
    names = [name for name in names if "parametrizations" not in name]
    members = data.draw(
        st.lists(
            st.builds(
                lambda name, lr: nnlr.rule(name, lr_mult=lr, optional=True),
                st.sampled_from([*names, "*"]),
                st.sampled_from([0.5, 0.5, 0.1]),
            ),
            min_size=2,
            max_size=4,
        )
    )
    assert outcome(model, members) == outcome(model, data.draw(st.permutations(members)))


def outcome(model, members):
    """What is decided, or that there is an error."""
    try:
        return decided(model, *members)
    except nnlr.NnlrError as error:
        return str(error).partition("two declarations that reach it disagree")[1]


def test_the_strategy_makes_the_odd_cases():
    """Tied weights, shared modules and frozen parameters do come up."""
    found = set()

    @given(models())
    def look(model):
        plan = nnlr.resolve(model, lr=1, weight_decay=0)
        modules = list(model.named_modules(remove_duplicate=False))
        if any(row.aliases for row in plan):
            found.add("tied")
        if len(modules) > len({id(module) for _, module in modules}):
            found.add("shared")
        if any(row.frozen for row in plan):
            found.add("frozen")

    look()
    assert {"tied", "shared", "frozen"} == found


def test_a_law_can_fail():
    """A plain product in the order given is not the same bit for bit."""
    values = [0.1, 3.0, 0.7]
    with pytest.raises(AssertionError, match="assert"):
        assert math.prod(values) == math.prod(reversed(values))
