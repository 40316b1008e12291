"""Configurations with random mistakes in them: read as they are, or refused as an error of ours."""

import copy
import json
import random

import jsonschema
import pytest

import nnlr
from nnlr.config import dump, load, schema, scheme
from tests.config.test_load import DATA, OTHERS
from tests.config.test_scheme import CASES, FORMS

ODD = (
    *(None, True, 0, -1, 2.5, "x", "*", "", "1e-3", "norm", "auto", "os:system", [], {}, [1, 2]),
    *([[1, 2]], {"a": 1}, {"slice": [1]}, {"role": "norm"}, {"select": "a"}, {"1024": 256}),
    *(1e308, 10**30, float("inf"), [["a", 1]], {"class": "AdamW"}),
)


def plain(data):
    """Data as a file would have them."""
    return json.loads(json.dumps(data))


SCHEMES = [plain(dump(case)) for cases in CASES.values() for case in cases]
SCHEMES += [plain(data) for data, _ in FORMS]
RECIPES = [DATA, *OTHERS]


def places(data, path=()):
    """The way to each value in data."""
    items = data.items() if isinstance(data, dict) else ()
    for key, value in enumerate(data) if isinstance(data, list) else items:
        yield *path, key
        yield from places(value, (*path, key))


def at(data, path):
    """The value to which a way leads."""
    for key in path:
        data = data[key]
    return data


VALUES = [at(data, path) for data in (*SCHEMES, *RECIPES) for path in places(data)]
KEYS = sorted({key for value in VALUES if isinstance(value, dict) for key in value})


def mutated(data, draw):
    """The same data with up to three changes."""
    whole = [copy.deepcopy(data)]
    for _ in range(draw.choice([1, 1, 2, 3])):
        *way, key = draw.choice([*places(whole)])
        parent, value = at(whole, way), copy.deepcopy(draw.choice([*VALUES, *ODD * 10]))
        change = draw.random()
        if change < 0.6:
            parent[key] = value
        elif isinstance(parent, list):
            parent.insert(key, value)
        elif change < 0.8:  # another name for the same value
            parent[draw.choice(KEYS)] = parent.pop(key)
        else:
            parent[draw.choice(KEYS)] = value
    return whole[0]


@pytest.mark.parametrize(
    "examples",
    [150, pytest.param(10_000, marks=pytest.mark.full)],  # 10 seconds
)
def test_what_is_read_fits_the_schema_and_comes_back(examples):
    """Never another error; and what the loader accepts the schema accepts, and dump writes."""
    draw = random.Random(examples)  # noqa: S311 - no secret
    parts = {"scheme": (scheme, SCHEMES), "recipe": (load, RECIPES)}
    validators = {part: jsonschema.Draft202012Validator(schema(part)) for part in parts}
    accepted = 0
    for _ in range(examples):
        part = draw.choice(["scheme", "scheme", "recipe"])
        read, originals = parts[part]
        data = mutated(draw.choice(originals), draw)
        if part == "recipe" and isinstance(data, str):  # the path of a file
            continue
        try:
            made = read(data)
        except nnlr.NnlrError:
            continue
        accepted += 1
        assert [] == [error.message for error in validators[part].iter_errors(data)], data
        again = plain(dump(made))
        assert again == plain(dump(read(again))), data
    assert accepted > examples // 20
