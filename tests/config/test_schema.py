"""The JSON Schema: it accepts what the loader accepts, and refuses what is plainly wrong."""

import functools
import json
import re

import jsonschema
import pytest

import nnlr
from nnlr.config import dump, load, schema, scheme
from tests.config import test_errors, test_load, test_scheme


@functools.cache
def validator(part):
    """What checks data by the schema of a part."""
    return jsonschema.Draft202012Validator(schema(part))


# What depends on ranges, on words that are no type, or on what the caller allows.
BEYOND = (
    "decay must|pass allow|needs one or two|is no role|preset must|any needs|ndim is one|rates"
    "|without 'class'"
)


def errors(part, data):
    """What is wrong with data, as JSON has them."""
    return [error.message for error in validator(part).iter_errors(json.loads(json.dumps(data)))]


@pytest.mark.no_cover
def test_it_is_a_json_schema():
    """Of the draft that it names."""
    assert "https://json-schema.org/draft/2020-12/schema" == schema()["$schema"]
    jsonschema.Draft202012Validator.check_schema(schema())


def test_other_parts_are_refused():
    """With the nearest word."""
    with pytest.raises(nnlr.NnlrError, match=r"part must be one of .* Nearest: 'recipe'\."):
        schema("recipes")


@pytest.mark.parametrize("name", test_scheme.CASES)
def test_it_accepts_every_scheme(name):
    """As dump writes it."""
    for written in test_scheme.CASES[name]:
        assert [] == errors("scheme", dump(written))


def test_it_accepts_every_short_form():
    """Whatever the loader lets one leave out."""
    for data, _ in test_scheme.FORMS:
        assert [] == errors("scheme", data), data


@pytest.mark.parametrize("data", [test_load.DATA, *test_load.OTHERS])
def test_it_accepts_every_recipe(data):
    """And the schemes in them."""
    assert [] == errors("recipe", data)


def test_it_refuses_what_is_plainly_wrong():
    """Unknown names and keys, values of another type, in schemes and recipes."""
    wrong = []
    for data, _ in test_errors.BAD:
        with pytest.raises(nnlr.ConfigError, match=r"\w") as caught:
            scheme(data)
        if not re.search("plain data|NaN", str(caught.value)):  # what JSON cannot hold
            wrong.append(("scheme", data, str(caught.value)))
    base = {"lr": 1, "weight_decay": 0}
    for more in (
        *({"shceme": 1}, {"decay": "coupeld"}, {"scheme": "cafe"}, {"lr": "x"}, {"lr": [1]}),
        *({"algorithms": "AdmaW"}, {"algorithms": {"class": "AdamW", "btas": 1}}),
        *({"algorithms": {"class": "AdamW", "betas": [1]}}, {"algorithms": {"clas": "AdamW"}}),
        *({"schedule": "SequentialLR"}, {"schedule": {"class": "StepLR", "step_size": "ten"}}),
        {"schedule": {"class": "OneCycleLR", "anneal_strategy": "x"}},
    ):
        with pytest.raises(nnlr.ConfigError, match=r"\w") as caught:
            load({**base, **more})
        wrong.append(("recipe", {**base, **more}, str(caught.value)))
    accepted = [(data, text) for part, data, text in wrong if not errors(part, data)]
    assert [] == [(data, text) for data, text in accepted if not re.search(BEYOND, text)]
    assert len(wrong) > 30


def test_it_tells_what_arguments_are():
    """For the help that editors show."""
    named = schema()["$defs"]["scheme"]["anyOf"][3]["properties"]
    assert named["layer_decay"]["description"].startswith("Layer-wise learning-rate decay")
    arguments = named["layer_decay"]["anyOf"][0]["properties"]
    assert "timm's min_scale" in arguments["min_mult"]["description"]
    assert "nnlr.depth.INDEXERS" in arguments["indexer"]["description"]
    assert all("description" in value for value in arguments.values())
    assert "Base learning rate" in schema()["properties"]["lr"]["description"]
