"""Layers as data, and the ways a user says which parameter is in which."""

import numpy as np
import pytest
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr.depth import INDEXERS, as_indexer, by_function, by_pattern, with_final_norm
from nnlr.depth._layer import (
    FINAL_NORMS,
    PARTS,
    Indexer,
    Layer,
    LayerPlace,
    as_layer,
    layers_of,
    numbered_layers,
)


def net():
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))


def depths(indexer, model=None):
    layers = as_indexer(indexer).layers(describe(net() if model is None else model))
    return [layer and layer.depth for layer in layers]


def test_a_layer_says_where_it_is_and_how_far_below_the_last():
    """``str`` counts from 0 to the last and names the tower; ``below`` is the exponent."""
    assert "layer 4 of 13" == str(Layer(4, 13))
    assert "layer 4 of 13 of model.visual" == str(Layer(4, 13, "model.visual"))
    assert 9 == Layer(4, 13).below


def test_parts_and_places_of_a_final_norm_are_listed():
    """The words that layers use, in the order from input to output."""
    assert ("stem", "patch_embed", "block", "final_norm", "head") == PARTS
    assert ("head", "last_block") == FINAL_NORMS


def test_counted_numbers_each_tower_by_itself_without_gaps():
    """Orders are sorted within a tower; equal orders share a layer; parts are kept."""
    places = [
        LayerPlace("a", (7.0,), "head"),
        LayerPlace("a", (1.0, 2.0), "block"),
        None,
        LayerPlace("b", (3.0,), "block"),
        LayerPlace("a", (1.0,), "stem"),
        LayerPlace("a", (1.0, 2.0), "final_norm"),
    ]
    expected = [
        Layer(2, 2, "a", "head"),
        Layer(1, 2, "a", "block"),
        None,
        Layer(0, 0, "b", "block"),
        Layer(0, 2, "a", "stem"),
        Layer(1, 2, "a", "final_norm"),
    ]
    assert expected == numbered_layers(iter(places))


STEM, FIRST, SECOND = Layer(0, 3, "", "stem"), Layer(1, 3), Layer(2, 3)
NORM_LOW, NORM_HIGH = Layer(2, 3, "", "final_norm"), Layer(3, 3, "", "final_norm")
HEAD = Layer(3, 3, "", "head")


def test_the_final_norm_of_a_tower_with_a_head_moves_alone():
    """Between the last block and the head, and no other layer changes."""
    low = [STEM, FIRST, SECOND, NORM_LOW, HEAD]
    high = [STEM, FIRST, SECOND, NORM_HIGH, HEAD]
    for given in (low, high):
        assert high == with_final_norm(given, "head")
        assert low == with_final_norm(given, "last_block")


def test_a_tower_that_ends_with_its_norm_gains_or_loses_a_layer():
    """Without a head the norm in the last block leaves nothing above the blocks."""
    low = [layer._replace(last=2) for layer in (STEM, FIRST, SECOND, NORM_LOW)]
    high = [STEM, FIRST, SECOND, NORM_HIGH]
    for given in (low, high):
        assert high == with_final_norm(given, "head")
        assert low == with_final_norm(given, "last_block")


def test_towers_without_a_final_norm_or_blocks_are_left_alone():
    """Each tower is judged by itself, and what is in no tower stays there."""
    layers = [
        FIRST._replace(tower="a"),
        HEAD._replace(tower="a"),
        None,
        NORM_LOW._replace(tower="b"),
        SECOND._replace(tower="c"),
        NORM_LOW._replace(tower="c"),
    ]
    moved = with_final_norm(layers, "head")
    assert layers[:4] == moved[:4]
    assert [(2, 3), (3, 3)] == [layer[:2] for layer in moved[4:]]


@pytest.mark.parametrize("layers", ["all", None, [1], [FIRST, (0, 1)], [Layer(2, 1)]])
def test_a_final_norm_is_moved_among_layers_only(layers):
    """The message says what a layer is."""
    with pytest.raises(nnlr.NnlrError, match="layers must be a list in which each is None, or"):
        with_final_norm(layers, "head")


def test_a_function_numbers_the_layers():
    """Gaps stay as they were given; ``None`` is outside; numpy's integers count."""
    chosen = {"0": np.int64(0), "1": None, "2": 5}
    indexer = by_function(lambda param: chosen[param.name[0]])
    layers = indexer.layers(describe(net()))
    assert [Layer(0, 5), None, Layer(5, 5)] == layers[::2]
    assert all(type(layer.depth) is int for layer in layers if layer)


def test_a_mapping_numbers_the_layers():
    """Globs and selectors; patterns may overlap where they agree."""
    assert [0, 0, 1, 1, 3, 3] == depths({"0.*": 0, "1.*": 1, "2.*": 3, "2.bias": 3})
    selectors = {nnlr.regex("[01].*"): 0, nnlr.glob("2.*"): 1}
    assert [0, 0, 0, 0, 1, 1] == depths(selectors)
    assert [0, None, 1, None, None, None] == depths({"0.weight": 0, "1.weight": 1})


def test_indexers_are_shown_as_a_user_writes_them():
    """Functions by their names, mappings as mappings, published ones as calls."""

    def of_module(param):
        return int(param.name[0])

    assert "of_module" == repr(by_function(of_module))
    assert "{'0.*': 0, '1.*': 1}" == repr(by_pattern({"0.*": 0, "1.*": 1}))
    assert [f"{name}()" for name in INDEXERS] == [repr(as_indexer(name)) for name in INDEXERS]


def test_every_indexer_is_found_in_depth():
    """By attribute, in ``dir`` and as a string; made ones pass through."""
    for name, make in INDEXERS.items():
        assert getattr(nnlr.depth, name) is make
        assert name in dir(nnlr.depth)
        made = make()
        assert made is as_indexer(made)
    with pytest.raises(AttributeError, match="no attribute 'resnet'"):
        _ = nnlr.depth.resnet


class Mine(Indexer):
    """Every parameter in a layer of its own."""

    def layers(self, model):
        last = len(model.params) - 1
        return [Layer(index, last) for index in range(last + 1)]


def test_an_indexer_of_ones_own_is_used():
    """A subclass says the layers of the whole model at once."""
    assert [0, 1, 2, 3, 4, 5] == depths(Mine())
    assert "layer_decay(0.5, indexer=Mine())" == repr(nnlr.layer_decay(0.5, Mine()))
    plan = nnlr.resolve(net(), nnlr.layer_decay(0.5, Mine()), lr=1, weight_decay=0)
    assert [0.5**k for k in (5, 4, 3, 2, 1, 0)] == [row.lr for row in plan]


class Given(Indexer):
    """Whatever it was given, right or wrong."""

    def __init__(self, given):
        self.given = given

    def layers(self, model):
        return self.given


def test_what_an_indexer_says_is_checked_and_kept():
    """Layers and ``None``, one for each parameter."""
    said = [Layer(0, 1), None, *[Layer(1, 1)] * 4]
    assert said is layers_of(Given(said), describe(net()))


def test_an_indexer_is_asked_once_for_each_description():
    """Factors and findings of one plan share the answer; another plan asks again."""
    asked = []

    def layer_of(param):
        asked.append(param.name)
        return int(param.name[0])

    scheme = nnlr.layer_decay(0.5, by_function(layer_of))
    for _ in range(2):
        nnlr.resolve(net(), scheme, lr=1, weight_decay=0)
        assert 6 == len(asked)
        asked.clear()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"gave None \(NoneType\) for the 6 parameters of Sequential: layers\("),
        ([Layer(0, 1)] * 5, r"gave 5 layers for the 6 parameters .* each, in order\.$"),
        ((layer for layer in ()), r"gave a generator for the 6 parameters"),
        ([0] * 6, r"gave 0 for '0\.weight': it must be None, or an nnlr\.depth\.Layer"),
        ([None, (0, 1), *[None] * 4], r"gave \(0, 1\) for '0\.bias': it must be None"),
        ([Layer(2, 1)] * 6, r"gave Layer\(depth=2, .* 0 <= depth <= last, "),
        ([Layer(-1, 1)] * 6, r"gave Layer\(depth=-1, "),
        ([Layer(0.5, 1)] * 6, r"gave Layer\(depth=0\.5, .* of whole numbers"),
        ([Layer(0, 1.5)] * 6, r"gave Layer\(depth=0, last=1\.5, .* of whole numbers"),
        ([Layer(0, 1, None)] * 6, r"gave Layer\(.*tower=None.* whose tower is a path"),
        (
            [Layer(0, 1, "", "blocks")] * 6,
            r"gave .* whose part is one of 'stem', 'patch",
        ),
    ],
)
def test_an_indexer_that_errs_is_told_so(given, message):
    """What came, for which parameter, and what is wanted; no decay from nonsense."""
    scheme = nnlr.layer_decay(0.5, Given(given))
    with pytest.raises(nnlr.NnlrError, match=rf"^Given\(\) {message}"):
        nnlr.resolve(net(), scheme, lr=1, weight_decay=0)


def test_a_factor_takes_a_layer_or_what_a_file_makes_of_it():
    """A list of two to four entries."""
    layer = Layer(1, 3, "tower", "head")
    assert layer == nnlr.Factor(layer=list(layer)).layer == nnlr.Factor(layer=layer).layer
    assert Layer(1, 3) == as_layer((1, 3))


@pytest.mark.parametrize("value", [4, "12", (1,), (2, 1), (0, "1"), [0, 1, "", "head", 2]])
def test_a_factor_refuses_what_is_no_layer(value):
    """The slip of a scheme that hands on a number instead of the layer."""
    message = r"layer must be an nnlr\.depth\.Layer of whole numbers, .*; got .*\.$"
    with pytest.raises(nnlr.NnlrError, match=message):
        nnlr.Factor(layer=value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("tim", r"indexer must be one of 'auto', 'timm', .*Nearest: 'timm'"),
        (3, r"a function of ParamInfo, or a mapping .*; got 3 \(int\)\.$"),
        (None, r"got None \(NoneType\)"),
        (nnlr.depth.swin, r"indexer is a function: call it, nnlr\.depth\.swin\(\)"),
        (nnlr.depth.auto, r"call it, nnlr\.depth\.auto\(\)"),
        (Mine, r"got .*Mine.* Make one: Mine\(\)\.$"),
        (dict, r"or a mapping of patterns to layer numbers; got .*dict"),
        (nn.Linear(1, 1), r"The model comes first: resolve\(model, layer_decay\("),
        ({}, r"by_pattern needs a mapping such as .*, got \{\}"),
        ({"0.*": -1}, r"The layer of '0\.\*' must be a whole number >= 0, got -1"),
        ({"0.*": True}, r"The layer of '0\.\*' must be .* got True"),
        ({"0.*": 1.0}, r"The layer of '0\.\*' must be .* got 1\.0"),
    ],
)
def test_what_is_no_indexer_is_refused_at_the_call(value, message):
    """What was expected, what came, and the fix if it is a common slip."""
    with pytest.raises(nnlr.NnlrError, match=message):
        nnlr.layer_decay(0.5, value)


def test_by_function_and_by_pattern_refuse_other_things():
    """A mapping is no function, a class neither, and a list no mapping."""
    with pytest.raises(nnlr.NnlrError, match="by_function needs a function"):
        by_function({"0.*": 0})
    with pytest.raises(nnlr.NnlrError, match="by_function needs a function"):
        by_function(int)
    with pytest.raises(nnlr.NnlrError, match="by_pattern needs a mapping"):
        by_pattern(["0.*"])


def test_a_pattern_that_matches_nothing_is_an_error():
    """With the nearest pattern, as everywhere a user writes one."""
    with pytest.raises(nnlr.PatternError, match=r"indexer '3\.\*' matches no parameter"):
        depths({"0.*": 0, "3.*": 1})


def test_two_patterns_may_not_contradict_each_other():
    """The parameter and both layers are named."""
    message = r"match '0\.bias': '0\.\*' says layer 0, '\*\.bias' says layer 1\. Narrow"
    with pytest.raises(nnlr.NnlrError, match=message):
        depths({"0.*": 0, "*.bias": 1})


def test_of_a_tied_tensor_the_first_name_says_the_layer():
    """In whatever order the patterns are given; by its other names they may differ."""
    tied = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.Linear(2, 3))
    tied[2].weight = tied[0].weight
    for order in (["0.*", "1.*", "2.*"], ["2.*", "1.*", "0.*"]):
        mapping = {pattern: int(pattern[0]) for pattern in order}
        assert [0, 1, 1, 2] == depths(mapping, tied)
    tied[1].weight = tied[0].weight
    with pytest.raises(nnlr.NnlrError, match="Two patterns of the indexer match"):
        depths({"1.*": 1, "2.*": 2}, tied)


@pytest.mark.parametrize(
    ("indexer", "found"),
    [
        ({"*": 4}, "0 layers|1 layer"),
        (lambda param: None, "0 layers"),
        (lambda param: 2, "1 layer"),
    ],
)
def test_fewer_than_two_layers_are_no_depth(indexer, found):
    """One silent layer would change nothing, and nobody would notice."""
    message = rf"finds ({found}) in the 6 parameters of Sequential: nothing can be said"
    with pytest.raises(nnlr.NnlrError, match=message):
        depths(indexer)


def test_a_layer_that_is_no_whole_number_names_its_parameter():
    """A function's slip is found at the first parameter."""
    message = r"The layer of '0\.weight' must be a whole number >= 0, got '0'"
    with pytest.raises(nnlr.NnlrError, match=message):
        depths(lambda param: param.name[0])
