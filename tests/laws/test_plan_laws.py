"""The laws of plans: nothing lost, nothing touched, nothing that depends on the wrapping."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nnlr
from nnlr.testing import rates
from tests.laws.strategies import MULTS, cases, models, schemes

pytestmark = pytest.mark.no_cover

SETTINGS = st.fixed_dictionaries(
    {
        "lr": st.floats(1e-5, 10),
        "weight_decay": st.just(0.0) | st.floats(1e-5, 10),
        "decay": st.sampled_from(["coupled", "independent", "sqrt"]),
    }
)


@given(cases(), SETTINGS)
def test_every_trainable_parameter_is_in_exactly_one_group(case, settings):
    """The groups are a partition of what trains, by name and by tensor."""
    model, members = case
    plan = nnlr.resolve(model, *members, **settings)
    grouped = [name for group in plan.groups for name in group.names]
    assert sorted(row.name for row in plan if row.trainable) == sorted(grouped)
    tensors = [id(tensor) for group in plan.param_groups() for _, tensor in group["params"]]
    assert len(tensors) == len(set(tensors)) == len(grouped)
    by_name = dict(model.named_parameters(remove_duplicate=False))
    training = {id(tensor) for tensor in by_name.values() if tensor.requires_grad}
    assert training == set(tensors)


@given(cases(), SETTINGS)
def test_merging_loses_nothing(case, settings):
    """A group's settings are those of each of its rows; no two groups have the same."""
    model, members = case
    plan = nnlr.resolve(model, *members, **settings)
    for group in plan.groups:
        for name in group.names:
            row = plan[name]
            assert group.name == row.group
            assert (group.lr, group.weight_decay, group.options) == (
                row.lr,
                row.weight_decay,
                row.options,
            )
        assert sum(plan[name].numel for name in group.names) == group.numel > 0
    settings_of = [(group.lr, group.weight_decay) for group in plan.groups]
    assert len(settings_of) == len(set(settings_of))
    assert len(plan.groups) == len({group.name for group in plan.groups})


@given(cases(), SETTINGS)
def test_round_trips_are_exact(case, settings):
    """A dict, JSON and a deep copy give the plan back, to the last bit."""
    model, members = case
    plan = nnlr.resolve(model, *members, **settings)
    assert plan == nnlr.Plan.from_dict(plan.to_dict())
    assert plan == nnlr.Plan.from_json(plan.to_json())
    assert plan == copy.deepcopy(plan)


@given(cases(), SETTINGS)
def test_resolve_is_deterministic_and_touches_nothing(case, settings):
    """Twice the same plan; every module, tensor and flag as before."""
    model, members = case
    before = snapshot(model)
    first = nnlr.resolve(model, *members, **settings)
    assert first == nnlr.resolve(model, *members, **settings)
    assert before == snapshot(model)


def snapshot(model):
    """Everything that hangs on the modules and tensors of a model, by identity and value."""
    return [
        (
            path,
            {
                key: repr(sorted(map(repr, value))) if isinstance(value, dict) else repr(value)
                for key, value in vars(module).items()
            },
            [
                (name, id(t), t.requires_grad, t.grad, t._version, sorted(vars(t)))
                for name, t in module._parameters.items()
                if t is not None
            ],
        )
        for path, module in model.named_modules()
    ]


@given(st.data(), SETTINGS)
def test_with_rates_is_resolving_at_the_new_rates(data, settings):
    """Also where rules set absolute rates."""
    model, members = data.draw(cases())
    absolute = nnlr.rule(
        "*",
        lr=data.draw(st.floats(1e-5, 10)),
        weight_decay=data.draw(st.floats(1e-5, 1)),
    )
    if settings["weight_decay"]:
        members = [*members, absolute]
    other = {
        "lr": data.draw(st.floats(1e-5, 10)),
        "weight_decay": data.draw(st.floats(1e-5, 10)),
    }
    moved = nnlr.resolve(model, *members, **settings).with_rates(**other)
    assert nnlr.resolve(model, *members, **settings | other) == moved


@given(st.data())
def test_wrapping_changes_nothing(data):
    """A compiled, averaged or data-parallel model has the rates of the model inside."""
    model = data.draw(models())
    # Paths of within are canonical too.
    scheme = data.draw(schemes(model))
    nnlr.learning_rate(model[0], "weight", data.draw(MULTS))
    expected = rates(nnlr.resolve(model, scheme, lr=0.1, weight_decay=0.3))
    for wrapped in (
        torch.compile(model, backend="eager"),
        AveragedModel(model),
        nn.DataParallel(model),
        torch.compile(AveragedModel(model), backend="eager"),
    ):
        assert expected == rates(nnlr.resolve(wrapped, scheme, lr=0.1, weight_decay=0.3))


@given(models(), MULTS, MULTS)
def test_three_spellings_are_one_plan(model, one, two):
    """Disjoint rules in a list, as a product, and as declarations decide the same."""
    weights = nnlr.predicate(lambda param: param.leaf == "weight")
    biases = nnlr.predicate(lambda param: param.leaf == "bias")
    one_rule = nnlr.rule(weights, lr_mult=one, wd_mult=two)
    two_rule = nnlr.rule(biases, lr_mult=two, wd_mult=one)

    def decided(*schemes):
        return rates(nnlr.resolve(model, *schemes, lr=0.1, weight_decay=0.3))

    listed, product = (
        decided(nnlr.rules([one_rule, two_rule])),
        decided(two_rule * one_rule),
    )
    nnlr.annotate(model, "weight", lr_mult=one, wd_mult=two)
    nnlr.annotate(model, "bias", lr_mult=two, wd_mult=one)
    assert listed == product == decided()
