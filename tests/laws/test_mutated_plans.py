"""A plan that was edited, cut or written by something else is read right, or refused.

Plans of several kinds are changed in one or two places, as dicts and as text. What is accepted
is a plan like any other: its rates follow from its traces, and it can be printed and written.
"""

import copy
import math
import random
from functools import cache

import pytest
import torch
from torch import nn

import nnlr
from tests.laws.mutate import mutated
from tests.laws.test_hostile_calls import nonsense_of_plan

pytestmark = pytest.mark.no_cover

SAMPLE = 300
ALL = 5_000


@cache
def plans():
    """Plans with ties, locks, frozen weights, options, layers, towers, findings, odd names."""
    tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5))
    tied[2].weight = tied[0].weight
    tied[1].bias.requires_grad_(False)
    tied[0].register_parameter("a\nb", nn.Parameter(torch.zeros(())))
    nnlr.learning_rate(tied[1], "weight", 0.5)
    rule = nnlr.rule
    options = rule("0.*", options={"betas": (0.9, 0.95), "amsgrad": True}, optional=True)
    layers = nnlr.layer_decay(0.5, {"0.*": 0, "1.*": 1, "2.bias": 2})
    frozen = rule("1.bias", lr_mult=1e-5)
    return (
        nnlr.resolve(
            tied, options, layers, frozen, nnlr.no_weight_decay(), lr=0.1, weight_decay=0.01
        ),
        nnlr.resolve(
            tied, nnlr.freeze("1.*"), rule("0.*", lr=0.3), lr=0.1, weight_decay=0, decay="sqrt"
        ),
        nnlr.resolve(nn.Linear(2, 1), lr=1, weight_decay=0.5),
        nnlr.resolve(nn.ReLU(), lr=1, weight_decay=0),
    )


def trouble_with(number):
    """What is wrong about the answer to one mutated plan: its story, or nothing."""
    rng = random.Random(number)  # noqa: S311 - a seed that can be replayed
    plan = rng.choice(plans())
    stories = []
    if rng.random() < 0.2:
        text = plan.to_json()
        at, end = sorted(rng.choices(range(len(text)), k=2))
        new = rng.choice(["", "NaN", "-", '"', "[", "null", "1e999", "\u0000", text[at:end] * 2])
        text = text[:at] + new + text[rng.choice([at, at + 1, end]) :]
        stories, read, source = [f"{at}: {new!r}"], nnlr.Plan.from_json, text
    else:
        source, read = plan.to_dict(), nnlr.Plan.from_dict
        for _ in range(rng.choice([1, 1, 1, 2])):
            story, source = mutated(source, rng)
            stories.append(story)
    story = f"{number}: {', '.join(stories)}"
    try:
        again = read(source)
        if again != nnlr.Plan.from_json(again.to_json()):
            return f"{story}: is another plan when written and read"
        if trouble := nonsense_of_plan(again) or odd_types(again.to_dict()):
            return f"{story}: {trouble}"
    except nnlr.NnlrError as error:
        str(error)
    except Exception as error:  # noqa: BLE001 - the very thing that must not be
        return f"{story}: raw {type(error).__name__}: {error}"
    return None


def odd_types(facts):
    """Where a plan that was read holds other types than one that was resolved."""
    pattern = next(plan for plan in plans() if len(plan)).to_dict()
    for row in facts["rows"]:
        for key, value in row.items():
            types = {type(other[key]) for other in pattern["rows"]} | {type(None)}
            if key not in {"tower", "depth", "algorithm"} and type(value) not in types:
                return f"{key} is {value!r}"
    return None


def test_mutated_plans_are_refused_or_right():
    """A sample of what `make full` tries."""
    assert [] == list(filter(None, map(trouble_with, range(SAMPLE))))


@pytest.mark.full
def test_thousands_of_mutated_plans():
    """No raw error, and nothing accepted that resolve could not have made."""
    assert [] == list(filter(None, map(trouble_with, range(ALL))))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"nnlr_plan": 1, "rows": ' + "[" * 50_000])
def test_text_that_nests_without_end_is_refused(text):
    """Python's parser gives up with a RecursionError."""
    with pytest.raises(nnlr.ConfigError, match="This is not a plan"):
        nnlr.Plan.from_json(text)


def test_the_generator_can_fail(monkeypatch):
    """It finds a reader that takes anything, and one that raises errors of Python's."""
    broken = copy.copy(plans()[0])
    broken.rows = (broken.rows[0]._replace(lr=math.nan), *broken.rows[1:])
    for reader in ("from_dict", "from_json"):
        monkeypatch.setattr(nnlr.Plan, reader, lambda source: broken)
    assert any("has (nan, " in str(trouble_with(number)) for number in range(5))
    monkeypatch.setattr(nnlr.Plan, "from_dict", lambda facts: facts["rows"][0]["numel"].real)
    assert any("raw" in str(trouble_with(number)) for number in range(20))
