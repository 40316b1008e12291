"""Depth found in models: by their own matchers, and by their repeated blocks."""

import copy
import doctest
import gzip
import itertools
import json
import random
import re
import string
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

import nnlr
from docs import _markers, make_depth_table
from nnlr._model.describe import describe
from nnlr.depth._auto import auto, places_by_structure
from nnlr.depth._layer import numbered_layers
from nnlr.depth._timm import modules_with_matchers, places_in_tower
from nnlr.errors import NnlrError
from tests import zoo

SOURCES = Path(nnlr.__file__).parent
# timm_layers.json.gz there: model -> layer of each parameter, in order, as timm 1.0.31
# numbers them for param_groups_layer_decay, on models that it builds by default.
REFERENCE = Path(__file__).parents[1] / "reference"


def layers_of(model):
    """Name -> layer, as the structure alone says."""
    info = describe(model)
    layers = numbered_layers(places_by_structure(info))
    return {param.name: layer for param, layer in zip(info.params, layers, strict=True)}


def depths_of(model):
    """Name -> depth; None outside every tower."""
    return {name: layer and layer.depth for name, layer in layers_of(model).items()}


def by_module(model):
    """Path of each module with parameters -> depth of its first one."""
    found = {}
    for name, depth in depths_of(model).items():
        found.setdefault(name.rpartition(".")[0], depth)
    return found


def blocks_of(model):
    """Tower -> number of its blocks."""
    blocks = {}
    for layer in layers_of(model).values():
        if layer is not None and layer.part == "block":
            blocks.setdefault(layer.tower, set()).add(layer.depth)
    return {tower: len(depths) for tower, depths in blocks.items()}


def from_timm(name, **settings):
    """A model of timm on meta."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        return timm.create_model(name, **settings)


def attributes(**parts):
    """A module of a user's own class, with these parts."""
    made = type("Net", (nn.Module,), {})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def mlp(width=4):
    """A block."""
    return zoo.Block(width)


def reader(width=4):
    """An embedding and three blocks."""
    return attributes(
        tokens=nn.Embedding(9, width), body=nn.ModuleList(mlp(width) for _ in range(3))
    )


def residual(width=4, *, wider=False):
    """A convolutional block, the first of its stage with a shortcut."""
    block = type("Residual", (nn.Module,), {})
    made = RESIDUAL.setdefault("cls", block)()
    made.conv = nn.Conv2d(width // 2 if wider else width, width, 3)
    made.norm = nn.BatchNorm2d(width)
    if wider:
        made.shortcut = nn.Conv2d(width // 2, width, 1)
    return made


RESIDUAL = {}


class ConvNorm(nn.Module):
    """A convolution and its norm."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)
        self.norm = nn.BatchNorm2d(outputs)


class Inverted(nn.Module):
    """A block made of several such layers."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.body = nn.Sequential(ConvNorm(inputs, 4 * inputs), ConvNorm(4 * inputs, outputs))


def u_shaped(down, up):
    """Parts of one class on the way down, and of another on the way up."""
    model = attributes(stem=ConvNorm(3, 4))
    ways = {"Down": [], "Up": []}
    for width in down:
        body = nn.Sequential(ConvNorm(width, 2 * width))
        ways["Down"].append(attributes(body=body))
    for width in reversed(up):
        body = ConvNorm(2 * width, width)
        up_by = nn.ConvTranspose2d(2 * width, width, 2)
        ways["Up"].append(attributes(up=up_by, body=body))
    at = 0
    for name, parts in ways.items():
        cls = type(name, (nn.Module,), {})
        for part in parts:
            part.__class__ = cls
            setattr(model, f"part{at}", part)
            at += 1
    model.out = attributes(conv=nn.Conv2d(4, 2, 1))
    return model


def stage(width, blocks):
    """A stage of residual blocks."""
    first = residual(width, wider=True)
    return nn.Sequential(first, *(residual(width) for _ in range(blocks - 1)))


class TestMatchers:
    def test_the_outermost_modules_with_a_matcher_are_towers(self):
        """Each by its own path; everything else has no depth."""
        model = attributes(
            eye=from_timm("vit_tiny_patch16_224", num_classes=0),
            ear=from_timm("resnet18", num_classes=0),
            head=nn.Linear(4, 4),
        )
        info = describe(model)
        layers = auto().layers(info)
        assert Counter({"eye": 148 + 2, "ear": 60, None: 2}) == Counter(
            layer and layer.tower for layer in layers
        )

    def test_towers_without_a_matcher_are_found_beside_those_with_one(self):
        """A pair of which timm made one; a head or a decoder beside is no tower."""
        eye = from_timm("resnet18", num_classes=0)
        model = attributes(eye=eye, read=reader(), project=nn.Linear(512, 4))
        layers = auto().layers(describe(model))
        assert {"eye": 8, "read": 3, None: None} == {
            layer and layer.tower: layer and layer.last for layer in layers
        }
        body = nn.ModuleList([mlp(512), mlp(512)])
        model = attributes(eye=eye, body=body, project=nn.Linear(512, 4))
        layers = auto().layers(describe(model))
        assert {"eye", None} == {layer and layer.tower for layer in layers}

    def test_beside_a_matcher_nothing_need_be_repeated(self):
        """What is outside has no depth then."""
        inner = attributes(body=nn.Linear(2, 2), stem=nn.Embedding(2, 2))
        inner.group_matcher = lambda coarse: {"stem": "^s", "rest": "^b"}
        layers = auto().layers(describe(attributes(inner=inner, out=nn.Linear(2, 2))))
        assert [1, 1, 0, None, None] == [layer and layer.depth for layer in layers]

    @pytest.mark.parametrize("step", [57, pytest.param(1, marks=pytest.mark.full)])
    @pytest.mark.no_cover
    def test_layers_of_a_matcher_are_those_of_timm(self, step):
        """On the reference sample, number by number."""
        text = gzip.decompress((REFERENCE / "timm_layers.json.gz").read_bytes())
        for name, expected in list(json.loads(text).items())[::step]:
            model = from_timm(name)
            info = describe(attributes(inner=model))
            [(node, matcher)] = modules_with_matchers(info)
            layers = numbered_layers(places_in_tower(info, node.path, matcher))
            assert expected == [layer.depth for layer in layers], name

    def test_a_mapping_is_read_in_its_order(self):
        """First hit, captured numbers, suffixes; what is 99999 joins the layer before."""
        model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b", "c", "d", "e")})
        info = describe(model)
        matcher = {
            "none": None,
            "first": "^e",
            "rest": [(r"^[ab]", (0,)), (r"^c", (99999,)), (r"^(d)?e", None)],
        }
        found = numbered_layers(places_in_tower(info, "", matcher))[::2]
        assert [1, 1, 1, 2, 0] == [layer.depth for layer in found]
        assert ["block"] * 3 + ["head", "block"] == [layer.part for layer in found]

    def test_a_function_may_give_a_number_or_a_tuple(self):
        """Its lowest key is the stem."""
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2))
        keys = {"0": 0, "1": (1, 2), "2": (1, 99999)}
        places = places_in_tower(describe(model), "", lambda name: keys[name[0]])
        assert ["patch_embed", "block", "final_norm"] == [p.part for p in places[::2]]
        assert [0, 1, 1] == [layer.depth for layer in numbered_layers(places)[::2]]

    def test_a_matcher_that_fails_or_is_none_is_named(self):
        """With the class that brings it."""

        class Odd(nn.Linear):
            def __init__(self, matcher):
                super().__init__(2, 2)
                self.matcher = matcher

            def group_matcher(self, coarse):
                return self.matcher.pop() if isinstance(self.matcher, list) else coarse

        with pytest.raises(NnlrError, match=r"Odd.group_matcher\(coarse=False\) failed"):
            auto().layers(describe(Odd([])))
        with pytest.raises(NnlrError, match="must give a mapping of patterns"):
            auto().layers(describe(Odd(None)))
        with pytest.raises(NnlrError, match="puts all of its parameters into one layer"):
            auto().layers(describe(attributes(a=Odd([{}]))))


class TestBlocks:
    def test_an_encoder_has_stem_blocks_norm_and_head(self):
        """The norm counts with the last block, as in timm."""
        model = attributes(
            tokens=nn.Embedding(9, 4),
            body=nn.ModuleList([mlp(), mlp(), mlp()]),
            norm=nn.LayerNorm(4),
            out=nn.Linear(4, 9),
        )
        found = layers_of(model)
        assert (0, "stem") == found["tokens.weight"][::3]
        assert (1, "block") == found["body.0.fc.weight"][::3]
        assert (3, "final_norm") == found["norm.weight"][::3]
        assert (4, "head") == found["out.weight"][::3]

    def test_experts_and_heads_in_blocks_are_no_layers(self):
        """The outermost list of blocks counts."""
        model = attributes(body=nn.ModuleList(zoo.Mixture(4, 8) for _ in range(3)))
        assert {"": 3} == blocks_of(model)

    def test_a_list_of_two_kinds_of_blocks_is_one_stack(self):
        """Hybrids, and mixtures whose first layers are dense."""
        dense = attributes(up=nn.Linear(4, 8), down=nn.Linear(8, 4))
        layers = [dense, *(zoo.Mixture(4, 3) for _ in range(3)), mlp(), mlp()]
        assert {"": 6} == blocks_of(attributes(body=nn.ModuleList(layers)))

    def test_stages_follow_one_another(self):
        """As attributes, as a list, and as a plain sequence of them."""
        stages = [stage(8, 2), stage(16, 3), stage(32, 1)]
        named = attributes(stem=nn.Conv2d(3, 4, 3), a=stages[0], b=stages[1], c=stages[2])
        listed = attributes(stem=nn.Conv2d(3, 4, 3), body=nn.ModuleList(stages))
        plain = nn.Sequential(nn.Conv2d(3, 4, 3), *stages)
        depths = [list(depths_of(model).values()) for model in (named, listed, plain)]
        assert depths[0] == depths[1] == depths[2]
        assert 6 == max(depths[0])
        assert 0 == min(depths[0])

    def test_what_opens_a_stage_joins_its_first_block_and_what_closes_it_its_last(self):
        """Downsampling before and after the blocks; registered after, but run before."""
        down = nn.Conv2d(4, 8, 2)
        before = nn.ModuleList(
            [
                attributes(body=stage(4, 2)),
                attributes(down=down, body=nn.Sequential(*[residual(8)] * 2)),
            ]
        )
        assert 2 == by_module(attributes(s=before))["s.1.down"]
        after = nn.ModuleList(
            [
                attributes(body=stage(4, 2), down=down),
                attributes(body=nn.Sequential(residual(8), residual(8))),
            ]
        )
        assert 1 == by_module(attributes(s=after))["s.0.down"]
        late = nn.ModuleList(
            [
                attributes(body=stage(4, 2)),
                attributes(
                    body=nn.Sequential(residual(8), residual(8)),
                    down=nn.Conv2d(4, 8, 1),
                ),
            ]
        )
        assert 2 == by_module(attributes(s=late))["s.1.down"]

    def test_parallel_lists_make_one_layer_of_each_position(self):
        """Attention, norm and feed-forward lists; lists of convolutions and of norms."""
        model = attributes(
            tokens=nn.Embedding(9, 4),
            attention=nn.ModuleList(nn.MultiheadAttention(4, 1) for _ in range(3)),
            norm=nn.ModuleList(nn.LayerNorm(4) for _ in range(3)),
            forward_=nn.ModuleList(mlp() for _ in range(3)),
        )
        found = by_module(model)
        assert [2, 2, 2] == [found[f"{a}.1"] for a in ("attention", "norm")] + [
            found["forward_.1.norm"]
        ]
        graph = attributes(
            convs=nn.ModuleList(nn.Linear(4, 4) for _ in range(3)),
            norms=nn.ModuleList(nn.BatchNorm1d(4) for _ in range(3)),
            out=nn.Linear(4, 2),
        )
        assert [0, 1, 2, 0, 1, 2, 3] == list(by_module(graph).values())

    def test_lists_of_equal_length_that_do_not_fit_follow_one_another(self):
        """The way down and the way up of a U-shaped net."""
        down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3), nn.BatchNorm2d(b))
            for a, b in itertools.pairwise((3, 8, 16, 32))
        )
        up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3), nn.BatchNorm2d(b))
            for a, b in ((32 + 16, 16), (16 + 8, 8), (8 + 3, 4))
        )
        found = by_module(attributes(down=down, up=up))
        assert [0, 1, 2] == [found[f"down.{i}.0"] for i in range(3)]

    def test_downsampling_in_a_list_of_its_own_joins_the_stage_it_opens(self):
        """The layout of the official ConvNeXt."""
        model = attributes(
            down=nn.ModuleList(
                nn.Sequential(nn.Conv2d(a, b, 2), nn.BatchNorm2d(b))
                for a, b in ((3, 4), (4, 8), (8, 16))
            ),
            stages=nn.ModuleList(
                nn.Sequential(*(residual(width) for _ in range(2))) for width in (4, 8, 16)
            ),
            out=nn.Linear(16, 2),
        )
        found = by_module(model)
        assert [0, 3, 5] == [found[f"down.{i}.0"] for i in range(3)]
        assert [1, 3, 5] == [found[f"stages.{i}.0.conv"] for i in range(3)]
        assert 7 == found["out"]

    def test_each_layer_of_a_plain_sequence_counts(self):
        """Norms and vectors join the layer before them."""
        layers = [nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 4)]
        found = by_module(nn.Sequential(*layers, nn.PReLU(4), nn.Linear(4, 2)))
        assert [0, 0, 1, 1, 2] == list(found.values())
        two = attributes(
            features=nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)),
            classifier=nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        )
        assert [0, 1, 2, 3] == list(by_module(two).values())
        nested = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        assert [0, 1] == list(by_module(nested).values())

    def test_each_layer_of_a_recurrent_module_counts(self):
        """Both directions of a layer together."""
        model = attributes(
            tokens=nn.Embedding(9, 4),
            body=nn.LSTM(4, 4, num_layers=3, bidirectional=True),
            out=nn.Linear(8, 9),
        )
        found = depths_of(model)
        assert [1, 2, 3] == [found[f"body.weight_ih_l{i}_reverse"] for i in range(3)]
        assert 4 == found["out.weight"]
        one = attributes(body=nn.LSTM(4, 4), next=nn.Sequential(mlp(), mlp()))
        assert {"": 2} == blocks_of(one)

    def test_equal_layers_side_by_side_are_blocks_too(self):
        """In no list, but of one class; a block's own parts are none."""
        many = attributes(**{f"block{at}": mlp() for at in range(5)}, out=nn.Linear(4, 2))
        assert [0, 1, 2, 3, 4, 5] == sorted(set(depths_of(many).values()))
        two = attributes(stem=nn.Linear(4, 4), b1=mlp(), b2=mlp(), out=nn.Linear(4, 2))
        assert {"": 2} == blocks_of(two)
        stages = attributes(
            s1=attributes(b1=residual(8), b2=residual(8)),
            s2=attributes(**{f"b{at}": residual(8) for at in range(6)}),
        )
        assert {"": 8} == blocks_of(stages)

    def test_the_way_up_counts_like_the_way_down(self):
        """A U-shaped net of attributes: each class a way, the blocks of one in a list."""
        found = by_module(u_shaped((4, 8, 16, 32), (4, 8, 16, 32)))
        assert [0, *range(1, 9), 9] == sorted(set(found.values()))
        assert [4, 5, 8, 9] == [
            found[name] for name in ("part3.body.0.conv", "part4.up", "part7.up", "out.conv")
        ]

    @pytest.mark.parametrize("up", [(16, 32), (1, 2, 1, 3)])
    def test_fewer_or_lighter_parts_of_another_class_are_no_way_up(self, up):
        """They are heads."""
        found = by_module(u_shaped((4, 8, 16, 32), up))
        assert {5} == {found["part4.up"], found[f"part{3 + len(up)}.up"]}

    def test_what_is_a_block_in_one_stage_is_one_in_all(self):
        """Though it holds a list of layers in one of them."""
        held, *plain = (
            copy.deepcopy(attributes(fc=nn.Linear(4, 4), parts=nn.Identity())) for _ in range(4)
        )
        for block in plain:
            block.__class__ = held.__class__
        held.parts = nn.ModuleList([mlp(), mlp()])
        body = nn.ModuleList([nn.Sequential(held), nn.Sequential(*plain)])
        assert {"": 4} == blocks_of(attributes(body=body))

    def test_a_stage_of_one_block_in_no_list_is_a_stage(self):
        """The blocks of the others tell."""
        one = attributes(x=residual(8))
        six = attributes(**{f"b{at}": residual(8) for at in range(6)})
        assert {"": 7} == blocks_of(attributes(s1=one, s2=six))

    def test_layers_that_blocks_are_made_of_open_and_close_a_list(self):
        """Blocks none of which is like another, between two convolutions."""
        widths = (4, 8, 12, 20)
        blocks = [Inverted(a, b) for a, b in itertools.pairwise(widths)]
        features = nn.Sequential(ConvNorm(3, 4), *blocks, ConvNorm(20, 32))
        found = by_module(attributes(features=features, out=nn.Linear(32, 2)))
        assert [0, 1, 2, 3, 3, 4] == [
            found[name]
            for name in (
                "features.0.conv",
                "features.1.body.0.conv",
                "features.2.body.0.conv",
                "features.3.body.0.conv",
                "features.4.conv",
                "out",
            )
        ]

    def test_small_lists_in_stem_and_head_are_no_blocks(self):
        """Layers of a stem that are found inside blocks; heads without a norm."""
        model = attributes(
            stem=nn.Sequential(mlp(), mlp()),
            body=nn.ModuleList(attributes(a=mlp(), b=mlp()) for _ in range(3)),
            heads=nn.ModuleList(attributes(a=nn.Linear(4, 4), b=nn.Linear(4, 2)) for _ in range(3)),
        )
        found = by_module(model)
        assert [0, 1, 4] == [found[name] for name in ("stem.1.fc", "body.0.a.fc", "heads.2.b")]

    def test_heads_embeddings_and_scalars_are_known_wherever_they_stand(self):
        """A head that is registered first, an embedding last, a temperature anywhere."""
        model = attributes(
            out=nn.Linear(4, 9),
            body=nn.ModuleList([mlp(), mlp()]),
            tokens=nn.Embedding(9, 4),
        )
        model.scale = nn.Parameter(torch.zeros(()))
        model.mask = nn.Parameter(torch.zeros(4))
        found = depths_of(model)
        assert (3, 0, 3, 0) == tuple(
            found[name] for name in ("out.weight", "tokens.weight", "scale", "mask")
        )

    def test_a_head_that_is_registered_first_is_no_stem(self):
        """Though an image has as many channels as it has classes."""
        see = attributes(patch=nn.Conv2d(3, 4, 2), body=nn.Sequential(mlp(), mlp()))
        assert 3 == by_module(attributes(out=nn.Linear(4, 3), see=see))["out"]

    def test_a_linear_layer_whose_output_is_seen_as_a_map_is_a_stem(self):
        """The first layer of a generator: channels times a square of pixels."""
        body = nn.Sequential(residual(8), residual(8))
        for taken, pixels, expected in ((5, 16, 0), (8, 16, 0), (5, 15, 0), (8, 15, 2)):
            model = attributes(noise=nn.Linear(taken, 8 * pixels), body=body)
            assert expected == by_module(model)["noise"]

    def test_embeddings_in_a_module_of_their_own_are_stem(self):
        """With their norm, and after the blocks; then the norm there is still the last."""
        model = attributes(
            body=nn.ModuleList([mlp(), mlp()]),
            source=nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4)),
            norm=nn.LayerNorm(4),
            mix=nn.Sequential(nn.Embedding(2, 4), nn.Linear(4, 4)),
            out=nn.Linear(4, 9),
        )
        found = layers_of(model)
        expected = {"source.0": 0, "source.1": 0, "norm": 2, "mix.0": 0, "out": 3}
        assert expected == {at: found[f"{at}.weight"].depth for at in expected}
        assert "final_norm" == found["norm.weight"].part

    def test_a_bare_matrix_that_projects_the_output_is_a_head(self):
        """From the width of the blocks to another, or a square; positions are none."""
        model = attributes(body=nn.ModuleList([mlp(), mlp()]))
        shapes = {
            "out": (4, 6),
            "square": (4, 4),
            "positions": (9, 4),
            "more": (1, 4, 6),
            "odd": (9, 6),
        }
        for name, shape in shapes.items():
            setattr(model, name, nn.Parameter(torch.zeros(shape)))
        found = depths_of(model)
        assert [3, 3, 0, 0, 0] == [found[name] for name in shapes]
        wide = (attributes(a=nn.Linear(4, 8), b=nn.Linear(8, 4)) for _ in range(2))
        model = attributes(body=nn.ModuleList(wide))
        model.positions = nn.Parameter(torch.zeros(8, 4))
        assert 0 == depths_of(model)["positions"]

    def test_a_tied_head_counts_as_the_embedding(self):
        """Registered before or after it."""
        found = depths_of(zoo.tied())
        assert (0, 2) == (found["embed.weight"], max(found.values()))

    def test_a_convolution_that_a_head_takes_counts_with_the_last_block(self):
        """A convolution that nothing takes is the head."""
        body = nn.Sequential(residual(4), residual(4))
        taken = attributes(
            body=body,
            conv=nn.Conv2d(4, 8, 1),
            norm=nn.BatchNorm2d(8),
            out=nn.Linear(8, 2),
        )
        assert [1, 1, 2] == list(by_module(taken).values())[-3:]
        assert 2 == by_module(attributes(body=body, out=nn.Conv2d(4, 2, 1)))["out"]

    def test_projections_of_the_stem_are_the_patch_embedding(self):
        """Weight and bias."""
        found = layers_of(nn.Sequential(nn.Linear(2, 4), mlp(), mlp()))
        assert {"patch_embed"} == {found["0.weight"].part, found["0.bias"].part}

    def test_the_work_grows_with_the_number_of_stages_and_not_with_its_square(self):
        """Counted in calls, which no other load on the machine changes."""

        def calls(stages):
            net = nn.ModuleList(nn.Sequential(residual(2), residual(2)) for _ in range(stages))
            info, seen = describe(net), Counter()
            sys.setprofile(lambda frame, event, arg: seen.update([event]))
            try:
                places = places_by_structure(info)
            finally:
                sys.setprofile(None)
            assert 2 * stages == len(set(places))
            return seen["call"]

        assert calls(200) < 5 * calls(50)


class TestTowers:
    def test_parts_with_an_input_of_their_own_are_towers(self):
        """An embedding, or a width that nothing before gives; the rest has no depth."""
        see = attributes(patch=nn.Conv2d(3, 4, 2), body=nn.Sequential(mlp(), mlp()))
        read = attributes(tokens=nn.Embedding(9, 4), body=nn.ModuleList([mlp(), mlp(), mlp()]))
        model = attributes(read=read, see=see, project=nn.Linear(4, 4))
        model.scale = nn.Parameter(torch.zeros(()))
        found = depths_of(model)
        assert {"read": 3, "see": 2} == blocks_of(model)
        assert (None, None) == (found["project.weight"], found["scale"])
        assert {"a": 2, "b": 3} == blocks_of(nn.ModuleDict({"a": see, "b": read}))

    def test_parts_that_take_what_was_computed_continue_the_tower(self):
        """Through what projects between them; norms join the part before."""
        encoder = attributes(
            patch=nn.Conv2d(3, 4, 2),
            body=nn.ModuleList([mlp(), mlp()]),
            n=nn.LayerNorm(4),
        )
        decoder = attributes(body=nn.ModuleList([mlp(8), mlp(8)]), n=nn.LayerNorm(8))
        model = attributes(a=encoder, project=nn.Linear(4, 8), b=decoder)
        found = by_module(model)
        assert {"": 4} == blocks_of(model)
        assert [2, 3, 3, 4] == [found[name] for name in ("a.n", "project", "b.body.0.fc", "b.n")]

    @pytest.mark.parametrize("width", [4, 8])
    def test_a_tower_that_is_spread_over_its_module_is_one(self, width):
        """A contrastive pair: the text model's ends stand beside it, bare or as modules.

        Both have a stem, blocks, a final norm and a projection, whatever their widths.
        """
        see = attributes(
            patch=nn.Conv2d(3, 8, 2),
            body=nn.Sequential(mlp(8), mlp(8)),
            norm=nn.LayerNorm(8),
        )
        see.project = nn.Parameter(torch.zeros(8, 6))
        model = attributes(
            early=nn.Linear(width, 3),
            see=see,
            read=attributes(body=nn.Sequential(mlp(width), mlp(width), mlp(width))),
            tokens=nn.Embedding(9, width),
            norm=nn.LayerNorm(width),
            other=nn.LayerNorm(5),
        )
        model.positions = nn.Parameter(torch.zeros(7, width))
        model.project = nn.Parameter(torch.zeros(width, 6))
        model.scale = nn.Parameter(torch.zeros(()))
        found = layers_of(model)
        expected = {
            "see.patch.weight": ("see", 0, 3, "patch_embed"),
            "see.norm.weight": ("see", 2, 3, "final_norm"),
            "see.project": ("see", 3, 3, "head"),
            "tokens.weight": ("read", 0, 4, "stem"),
            "positions": ("read", 0, 4, "stem"),
            "read.body.2.fc.weight": ("read", 3, 4, "block"),
            "norm.weight": ("read", 3, 4, "final_norm"),
            "project": ("read", 4, 4, "head"),
        }
        assert expected == {
            name: (found[name].tower, *found[name][:2], found[name].part) for name in expected
        }
        beside = ("early.weight", "scale", "other.weight")
        assert [None] * 3 == [found[name] for name in beside]

    def test_a_tower_with_an_embedding_of_its_own_takes_no_other(self):
        """What else is looked up beside it has no depth."""
        see = attributes(patch=nn.Conv2d(3, 4, 2), body=nn.Sequential(mlp(), mlp()))
        model = attributes(see=see, read=reader(), kinds=nn.Embedding(2, 4))
        assert {"see": 2, "read": 3} == blocks_of(model)
        assert depths_of(model)["kinds.weight"] is None

    def test_what_stands_beside_tells_no_tower_when_it_may_be_for_the_first(self):
        """Two parts without a stem, and embeddings after both, are one chain."""
        first, second = (attributes(body=nn.Sequential(*(mlp() for _ in range(n)))) for n in (2, 3))
        ends = {"source": nn.Embedding(9, 4), "target": nn.Embedding(7, 4)}
        assert {"": 5} == blocks_of(attributes(part1=first, part2=second, **ends))
        see = attributes(patch=nn.Conv2d(3, 4, 2), body=nn.Sequential(mlp(), mlp()))
        tokens = ends["source"]
        middle = attributes(body=nn.Sequential(mlp(), mlp()))
        for parts, blocks in (
            ({"part2": second, "out": nn.Linear(4, 2), "tokens": tokens}, 5),
            ({"project": nn.Linear(4, 4), "part2": second, "tokens": tokens}, 5),
            ({"part2": middle, "part3": second, "tokens": tokens}, 7),
        ):
            assert {"": blocks} == blocks_of(attributes(part1=see, **parts))

    def test_branches_of_recurrent_modules_only(self):
        """They have no layer before their blocks, and no unit that is a whole block."""
        alike = nn.ModuleList(nn.LSTM(4, 4, num_layers=2) for _ in range(2))
        assert {"": 2} == blocks_of(attributes(body=alike))
        apart = nn.ModuleList(nn.GRU(3, 4, num_layers=2) for _ in range(3))
        expected = {"body.0": 2, "body.1": 2, "body.2": 2}
        assert expected == blocks_of(attributes(body=apart, out=nn.Linear(4, 2)))

    def test_whole_models_in_a_list_are_towers(self):
        """An ensemble, and a dict of encoders of one class."""
        encoder = copy.deepcopy(zoo.Net(6))
        assert {"0": 2, "1": 2} == blocks_of(nn.ModuleList([zoo.Net(6), encoder]))
        assert {"a": 2, "b": 2} == blocks_of(nn.ModuleDict({"a": zoo.Net(6), "b": encoder}))

    def test_parts_between_towers_of_one_chain_belong_to_it(self):
        """What is after the last of several towers does not."""
        see = attributes(patch=nn.Conv2d(3, 4, 2), body=nn.Sequential(mlp(), mlp()))
        model = attributes(
            first=attributes(tokens=nn.Embedding(3, 8), b=nn.Sequential(mlp(8), mlp(8))),
            see=see,
            project=nn.Linear(4, 8),
            more=attributes(body=nn.Sequential(mlp(8), mlp(8))),
            out=nn.Linear(8, 2),
        )
        found = layers_of(model)
        assert "see" == found["project.weight"].tower
        assert "see" == found["more.body.0.fc.weight"].tower
        assert found["out.weight"] is None

    def test_a_tensor_of_two_towers_counts_in_the_first(self):
        """The shared embedding of an encoder and a decoder."""
        found = layers_of(zoo.from_transformers("t5", "T5ForConditionalGeneration"))
        assert ("encoder", 0) == (
            found["shared.weight"].tower,
            found["shared.weight"].depth,
        )

    @pytest.mark.parametrize(
        ("kind", "head", "expected"),
        [
            ("bert", "BertForMaskedLM", {"": 2}),
            ("gpt2", "GPT2LMHeadModel", {"": 2}),
            ("llama", "LlamaForCausalLM", {"": 2}),
            ("t5", "T5ForConditionalGeneration", {"encoder": 2, "decoder": 2}),
            ("bart", "", {"encoder": 2, "decoder": 2}),
            ("whisper", "", {"encoder": 2, "decoder": 2}),
            ("clip", "", {"text_model": 12, "vision_model": 12}),
            ("llava", "", {"vision_tower": 24, "language_model": 32}),
            ("detr", "", {"": 20}),
            ("vit_mae", "ViTMAEForPreTraining", {"": 10}),
            ("resnet", "", {"": 16}),
            ("swin", "", {"": 12}),
            ("xlm", "", {"": 2}),
            ("mixtral", "", {"": 2}),
            ("mamba", "", {"": 2}),
            ("switch_transformers", "", {"encoder": 2, "decoder": 2}),
        ],
    )
    def test_towers_of_real_models(self, kind, head, expected):
        """As many blocks as the configuration says, in as many towers as there are."""
        assert expected == blocks_of(zoo.from_transformers(kind, head))

    def test_a_light_feature_extractor_is_the_stem_of_what_follows(self):
        """Seven convolutions below twelve blocks."""
        model = zoo.from_transformers("wav2vec2", num_hidden_layers=12)
        assert {"": 12} == blocks_of(model)


class TestWhateverItIsCalled:
    @pytest.mark.parametrize("kind", ["bert", "clip", "t5", "swin", "xlm", "convnext"])
    def test_names_play_no_part(self, kind):
        """Every attribute renamed at random, and not one depth changes."""
        rng = random.Random(0)  # noqa: S311  names, not secrets

        def word():
            return "".join(rng.choices(string.ascii_lowercase, k=12))

        model = zoo.from_transformers(kind)
        expected = [layer and layer[:2] for layer in layers_of(model).values()]
        renamed = zoo.renamed(model, word)
        assert expected == [layer and layer[:2] for layer in layers_of(renamed).values()]

    @pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet50", "regnetx_002"])
    @pytest.mark.no_cover
    def test_names_play_no_part_in_models_of_timm(self, name):
        """Without the matcher."""
        words = (f"w{number}" for number in itertools.count())
        model = from_timm(name)
        expected = list(depths_of(model).values())
        assert expected == list(depths_of(zoo.renamed(model, lambda: next(words))).values())

    def test_no_architecture_is_named_in_the_sources(self):
        """Neither a model type of transformers nor a family of timm."""
        timm = pytest.importorskip("timm")
        transformers = pytest.importorskip("transformers")
        known = {name.split("_")[0] for name in timm.list_models()}
        known |= set(transformers.CONFIG_MAPPING)
        known |= {kind.replace("_", "").replace("-", "") for kind in known}
        # Words of English, which two architectures happen to be called.
        known -= {"test", "bit", "blt", "dots", "align", "nest", "opt", "lambda", "gc"}
        for file in (
            "depth/_given",
            "depth/_auto",
            "depth/_timm",
            "depth/_blocks/tree",
            "depth/_blocks/names",
            "depth/_blocks/order",
            "depth/_blocks/plain",
            "depth/_blocks/stacks",
            "depth/_blocks/towers",
            "depth/_blocks/layout",
            "_model/describe",
        ):
            text = (SOURCES / f"{file}.py").read_text(encoding="utf-8").lower()
            assert set() == known & set(re.findall(r"[a-z0-9_]+", text)), file

    def test_a_vit_is_the_same_in_timm_and_in_transformers(self):
        """The same multiset of multipliers and numbers of elements."""
        scheme = nnlr.layer_decay(0.75)

        def multiset(model):
            plan = nnlr.resolve(model, scheme, lr=1, weight_decay=0)
            found = Counter()
            for row in plan:
                found[round(row.lr_mult, 12)] += row.numel
            return found

        for head, classes, settings in (
            ("ViTForImageClassification", 10, {"num_labels": 10}),
            ("ViTModel", 0, {}),
        ):
            transformers = pytest.importorskip("transformers")
            config = transformers.ViTConfig(**settings)
            extra = {"add_pooling_layer": False} if head == "ViTModel" else {}
            with torch.device("meta"):
                theirs = getattr(transformers, head)(config, **extra)
            ours = from_timm("vit_base_patch16_224", num_classes=classes)
            assert multiset(ours) == multiset(theirs)


class TestWrappers:
    def test_depth_is_the_same_inside_wrappers(self):
        """Compiled, averaged, wrapped block by block, and in a module with more in it."""
        net = zoo.Net()
        expected = depths_of(net)
        assert expected == depths_of(torch.compile(net, backend="eager"))
        assert expected == depths_of(torch.optim.swa_utils.AveragedModel(net))
        inside = depths_of(attributes(model=net, loss=nn.Linear(10, 1)))
        assert expected == {
            name.removeprefix("model."): depth
            for name, depth in inside.items()
            if name.startswith("model.")
        }
        compiled = zoo.Net()
        for at, block in enumerate(compiled.blocks):
            compiled.blocks[at] = torch.compile(block, backend="eager")
        assert expected == depths_of(compiled)

    def test_adapters_are_where_what_they_adapt_is(self):
        """PEFT's layers, in a tower of the model's own layers."""
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(target_modules=["fc"], modules_to_save=["head"])
        found = depths_of(peft.get_peft_model(zoo.Net(), config))
        assert [1, 2] == [depth for name, depth in found.items() if "lora_A" in name]
        assert 3 == found["head.weight"]
        inner = peft.get_peft_model(zoo.Net(), peft.LoraConfig(target_modules=["fc"]))
        block = inner.base_model.model.blocks[0]
        block.fc = torch.compile(block.fc, backend="eager")
        assert [1, 1, 2, 2] == [depth for name, depth in depths_of(inner).items() if "lora" in name]

    def test_parametrized_layers_count_as_what_they_are(self):
        """Weight norm, and parameters in lists."""
        net = zoo.Net()
        for block in net.blocks:
            nn.utils.parametrizations.weight_norm(block.fc)
            block.extra = nn.ParameterList([torch.zeros(4)])
        assert [1, 1, 1, 1, 1, 1] == [
            depth for name, depth in depths_of(net).items() if name.startswith("blocks.0")
        ]

    def test_sharded_classes_are_what_was_sharded(self):
        """FSDP2 makes a class of its own for each."""
        fsdp = type("FSDPModule", (), {})
        net = zoo.Net()
        sharded = type("FSDPBlock", (fsdp, zoo.Block), {})
        net.blocks[0].__class__ = sharded
        assert depths_of(zoo.Net()) == depths_of(net)


class TestNoDepth:
    @pytest.mark.parametrize(
        "model",
        [
            nn.Linear(2, 2),
            attributes(tokens=nn.Embedding(9, 4), body=nn.ModuleList([mlp()])),
            nn.LSTM(3, 3),
            attributes(a=nn.Sequential(mlp()), b=nn.Sequential(residual())),
        ],
    )
    def test_a_model_without_repeated_blocks_is_refused(self, model):
        """With what to do, never as one silent layer."""
        with pytest.raises(NnlrError, match="finds no repeated blocks") as caught:
            auto().layers(describe(model))
        assert "indexer={'stem.*': 0" in str(caught.value)

    def test_auto_says_what_it_is(self):
        """As a user writes it."""
        assert "auto()" == repr(auto())


class TestCensus:
    def test_the_page_says_what_was_counted(self):
        """Both generated parts."""
        kept = make_depth_table.kept()
        assert make_depth_table.timm_table(kept["timm"]) == _markers.read("depth.md", "timm")
        assert make_depth_table.transformers_table(kept["transformers"]) == _markers.read(
            "depth.md", "transformers"
        )

    def test_more_than_nine_of_ten_are_in_order(self):
        """The aim."""
        found = [entry[1] for entry in make_depth_table.kept()["timm"].values()]
        assert sum(kind != make_depth_table.OTHER for kind in found) > 0.9 * len(found)

    @pytest.mark.parametrize("start", range(4))
    @pytest.mark.full  # the test below takes two of them in the short run
    @pytest.mark.no_cover
    def test_what_was_counted_is_found_again(self, start):
        """On all models, a part at a time."""
        kept = make_depth_table.kept()
        found = json.loads(json.dumps(make_depth_table.census(start, 4)))
        for library, entries in found.items():
            for name, entry in entries.items():
                assert kept[library][name] == entry, name

    @pytest.mark.parametrize(
        ("library", "name"),
        [("timm", "mobilenetv3_small_075"), ("transformers", "sam3_tracker_video")],
    )
    def test_models_that_go_ways_of_their_own(self, library, name):
        """Stages of two classes of blocks; blocks between the spans of their towers."""
        entry = getattr(make_depth_table, f"{library}_entry")(name)
        kept = make_depth_table.kept()[library][name]
        assert kept == json.loads(json.dumps(entry))

    def test_the_examples_of_the_script_run(self):
        """Its small functions."""
        assert 0 == doctest.testmod(make_depth_table).failed
