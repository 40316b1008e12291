"""Routing of models whose every matrix was judged by hand, and of all models of transformers."""

import logging
from fnmatch import fnmatchcase

import pytest
import timm
import transformers
from torch import nn

from docs import make_route_table
from tests.model.test_census import built_short
from tests.schemes import route_census, routed_by_hand

pytestmark = [pytest.mark.no_cover, pytest.mark.filterwarnings("ignore")]


def built(name):
    """A model of one of the libraries, without values."""
    with route_census.without_values():
        if name in routed_by_hand.VISION:
            return timm.create_model(name)
        cls = getattr(transformers, name)
        return built_short(cls, cls.config_class)


def matrices(name):
    """The tensors with two axes of a model: those that Muon trains, and those it must train."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model = built(name)
    trained, expected = set(), set()
    for row in route_census.routed(model):
        if row.algorithm == "muon":
            trained.add(row.name)
        path = row.name.removesuffix(".weight")
        owner = model.get_submodule(row.name.rpartition(".")[0])
        if (
            len(row.shape) == 2
            and min(row.shape) >= 4
            and max(row.shape) <= 128 * min(row.shape)
            and not isinstance(owner, nn.Embedding)
            and not any(_fits(path, pattern) for pattern in routed_by_hand.MODELS[name])
        ):
            expected.add(row.name)
    return trained, expected


def _fits(path, pattern):
    return fnmatchcase(path, pattern.replace("N", "[0-9]*"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in routed_by_hand.SAMPLE else [pytest.mark.full])
        for name in routed_by_hand.MODELS
    ],
)
def test_every_matrix_is_where_it_was_judged_to_belong(name):
    """By class and use, before anyone asked nnlr."""
    trained, expected = matrices(name)
    assert trained == expected


@pytest.mark.full
def test_every_model_of_transformers_is_routed_as_it_should_be():
    """And the page counts all of them."""
    found = route_census.judged(route_census.models("transformers"))
    assert make_route_table.kept()["transformers"] == found
