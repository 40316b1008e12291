"""Layer decay of mmpretrain, mmsegmentation, mmdetection, mmpose and InternImage, by hand."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import NnlrError
from nnlr.testing import SchemeLaws
from tests.schemes.mm_models import (
    BEIT,
    FORCED,
    INTERN,
    MMDET,
    MMPRETRAIN,
    POSE,
    VIT,
    beit,
    named,
    rates,
    states_depth,
    tree,
    vit,
    wrapper,
)


@pytest.mark.no_cover
class TestLaws(SchemeLaws):
    def models(self):
        model = named("Net", get_layer_depth=lambda _, name: ("blocks.2" in name, 3))
        model.backbone = named("MAE")
        model.backbone.blocks = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
        model.backbone.blocks[0].requires_grad_(False)
        part = nn.ModuleDict({"blocks": nn.Sequential(nn.LayerNorm(2))})
        model.backbone.levels = nn.Sequential(part)
        model.head = nn.Linear(2, 2)
        model.head.weight = model.backbone.blocks[2].weight
        return [model]

    def schemes(self):
        intern = {"num_layers": 3, "layer_decay_rate": 0.9, "depths": [2], "offset_lr_scale": 0.5}
        return [
            nnlr.mmengine(wrapper(MMPRETRAIN, layer_decay_rate=0.5, norm_decay_mult=0)),
            nnlr.mmengine(wrapper(MMDET, num_layers=3, decay_rate=0.9)),
            nnlr.mmengine(wrapper(BEIT, num_layers=3, layer_decay_rate=0.9)),
            nnlr.mmengine(wrapper(INTERN, **intern, backbone_small_lr=True)),
            nnlr.mmengine(wrapper(POSE, num_layers=3, layer_decay_rate=0.9)),
            nnlr.mmengine(wrapper(FORCED, force_default_settings=True, bias_decay_mult=0)),
        ]


def test_mmpretrain_rates_by_hand():
    """Rate ** (layers - 1 - depth), and decay by key, norm, bias or one axis; names as they are."""
    model = vit()
    model.backbone.ln1.__class__ = nn.LayerNorm
    model.register_parameter("scale", nn.Parameter(torch.zeros(2)))
    scheme = nnlr.mmengine(
        wrapper(
            MMPRETRAIN,
            layer_decay_rate=0.5,
            norm_decay_mult=0.25,
            bias_decay_mult=0.5,
            flat_decay_mult=0.75,
            custom_keys={".cls_token": {"decay_mult": 0}, "head": {"weight_decay": 3}},
        )
    )
    got = rates(model, scheme, lr=16)
    assert got["backbone.cls_token"] == (1, 0)
    assert got["backbone.pos_embed"] == (1, 0.75)
    assert got["backbone.layers.0.attn.qkv.weight"] == (2, 1)
    assert got["backbone.layers.2.attn.qkv.bias"] == (8, 0.5)
    assert got["backbone.ln1.bias"] == (16, 0.25)
    assert got["head.fc.bias"] == (16, 3)
    plan = nnlr.resolve(model, scheme, lr=16, weight_decay=1)
    assert "0.5^3, layer 1 of 4" in plan.explain("backbone.layers.0.attn.qkv.weight")
    root = nnlr.mmengine(
        wrapper(MMPRETRAIN, custom_keys={".scale": {"decay_mult": 0}}), strict=False
    )
    assert rates(model, root)["scale"][1] == 1  # mmpretrain puts no dot before names at the root


def test_a_backbone_may_state_the_layers():
    """As mmpretrain's classifiers ask it, also in a segmentor or detector without the method."""
    model = tree(VIT)

    def of_backbone(name, prefix=""):
        assert prefix == "backbone."
        return states_depth(name)

    model.backbone.get_layer_depth = of_backbone
    scheme = nnlr.mmengine(wrapper(MMPRETRAIN, layer_decay_rate=0.5))
    assert rates(vit(), scheme) == rates(model, scheme)
    assert rates(vit(), scheme) == rates(tree(VIT), scheme)  # by names


SWIN = [
    *("patch_embed.projection.weight", "absolute_pos_embed", "stages.0.blocks.1.norm1.weight"),
    *("stages.0.downsample.reduction.weight", "stages.1.blocks.0.w.weight", "norm3.weight"),
]
MIXMIM = [
    *("patch_embed.w.weight", "absolute_pos_embed", "layers.0.blocks.1.norm1.weight"),
    *("layers.0.downsample.norm.weight", "layers.1.blocks.0.w.weight", "norm.weight"),
]
CONVNEXT = [
    *("downsample_layers.0.0.weight", "stages.0.0.gamma", "downsample_layers.1.0.weight"),
    *("stages.1.0.gamma", "downsample_layers.2.0.weight", "stages.2.2.gamma", "stages.2.8.gamma"),
    *("downsample_layers.3.0.weight", "stages.3.0.gamma", "norm3.weight"),
]
RESNET = [
    *("conv1.weight", "layer1.2.w.weight", "layer2.1.w.weight", "layer2.3.w.weight"),
    *("layer3.2.w.weight", "layer3.5.w.weight", "layer4.2.w.weight"),
]


@pytest.mark.parametrize(
    ("names", "below"),
    [
        (SWIN, [4, 0, 2, 2, 1, 0]),
        (MIXMIM, [4, 4, 2, 2, 1, 1]),
        (CONVNEXT, [7, 6, 5, 5, 4, 4, 2, 1, 1, 0]),
        ([*CONVNEXT, "stages.2.9.gamma"], [13, 12, 11, 11, 10, 10, 8, 1, 1, 0, 7]),
        (RESNET, [7, 6, 5, 4, 3, 2, 1]),
    ],
    ids=["swin", "mixmim", "convnext", "convnext-base", "resnet"],
)
def test_models_without_the_method_are_read_by_their_names(names, below):
    """How many layers each is below the head, in the published rules; with a head or bare."""
    scheme = nnlr.mmengine(wrapper(MMPRETRAIN, layer_decay_rate=0.5))
    model = tree([*(f"backbone.{name}" for name in names), "neck.weight", "head.fc.weight"])
    got = rates(model, scheme)
    assert [0.5**layer for layer in below] == [got[f"backbone.{name}"][0] for name in names]
    assert got["head.fc.weight"][0] == 1
    assert got["neck.weight"][0] == (0.5 if names is MIXMIM else 1)
    bare = rates(tree(names), scheme)
    assert [0.5**layer for layer in below] == [bare[name][0] for name in names]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["blocks.0.w.weight"], "has no get_layer_depth(?s:.*)multiply with nnlr.layer_decay"),
        (["layer2.0.w.weight", "layer3.0.w.weight"], "not for one with 1 and 1 blocks"),
        ([*CONVNEXT, "stages.4.0.gamma"], "gives no layer for 'backbone.stages.4.0.gamma'"),
    ],
)
def test_other_models_are_refused_with_the_ways_out(names, message):
    """Not read as what they are not."""
    scheme = nnlr.mmengine(wrapper(MMPRETRAIN, layer_decay_rate=0.5))
    with pytest.raises(NnlrError, match=message):
        rates(tree([f"backbone.{name}" for name in names]), scheme)


def test_a_method_that_fails_is_named():
    """As mmpretrain's classifier does around a backbone that states nothing."""

    def fails(name):
        raise NotImplementedError("no support")

    model = tree(VIT)
    model.get_layer_depth = fails
    scheme = nnlr.mmengine(wrapper(MMPRETRAIN, layer_decay_rate=0.5))
    with pytest.raises(NnlrError, match=r"for 'backbone.cls_token': NotImplementedError no supp"):
        rates(model, scheme)


def test_names_of_beit_by_hand():
    """Block n is layer n + 1 of num_layers + 1; what is not named so has the full rate."""
    for constructor, rate in ((MMDET, "decay_rate"), (BEIT, "layer_decay_rate")):
        scheme = nnlr.mmengine(wrapper(constructor, num_layers=3, **{rate: 0.5}))
        for model in (beit(), beit("MAE"), torch.nn.Sequential(beit())[0]):
            got = rates(model, scheme, lr=16)
            assert got["backbone.cls_token"] == (1, 0)
            assert got["backbone.patch_embed.projection.weight"] == (1, 1)
            assert got["backbone.layers.2.attn.qkv.weight"] == (8, 1)
            assert got["backbone.layers.2.attn.qkv.bias"] == (8, 0)
            assert got["head.fc.weight"] == (16, 1)


@pytest.mark.parametrize(
    ("decay_type", "below"),
    [
        ("layer_wise", [7, 6, 5, 5, 4, 4, 2, 1, 1, 0]),
        ("stage_wise", [7, 6, 7, 5, 7, 4, 4, 7, 3, 0]),
    ],
)
def test_names_of_convnext_by_hand(decay_type, below):
    """By layers, or by stages with all downsampling at the start."""
    names = [*(f"backbone.{name}" for name in CONVNEXT), "backbone.mask_token"]
    model = tree(names, {"backbone": named("ConvNeXtV2")})
    config = {"num_layers": 6, "decay_rate": 0.5, "decay_type": decay_type}
    got = rates(model, nnlr.mmengine(wrapper(MMDET, **config)))
    assert [*(0.5**layer for layer in below), 0.5**7] == [got[name][0] for name in names]


def test_too_few_layers_are_pointed_out():
    """num_layers of a smaller model makes deep layers faster than the head, in silence there."""
    scheme = nnlr.mmengine(wrapper(BEIT, num_layers=1, layer_decay_rate=0.5))
    plan = nnlr.resolve(beit(), scheme, lr=1, weight_decay=1)
    (found,) = plan.findings
    assert found.kind == "beyond-num-layers"
    assert set(found.names) == {f"backbone.layers.2.attn.qkv.{leaf}" for leaf in ("weight", "bias")}
    assert plan["backbone.layers.2.attn.qkv.weight"].lr == 2


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (beit("ResNet"), {}, "the class of model.backbone, which is ResNet in Module"),
        (vit().head, {}, "which is missing in Module"),
        (beit(), {"decay_type": "stage_wise"}, "knows the layers of ConvNeXt"),
        (
            tree(["backbone.stages.4.0.gamma"], {"backbone": named("ConvNeXt")}),
            {},
            "'backbone.stages.4.0.gamma' is in no layer that layer_wise knows",
        ),
    ],
)
def test_what_the_constructors_by_name_do_not_know_is_refused(model, config, message):
    """They raise for other backbones, and fail on other names."""
    scheme = nnlr.mmengine(wrapper(MMDET, num_layers=3, decay_rate=0.5, **config))
    with pytest.raises(NnlrError, match=f"{message}(?s:.*)nnlr.layer_decay"):
        rates(model, scheme)


INTERN_NAMES = [
    *("backbone.patch_embed.conv1.weight", "backbone.levels.0.blocks.1.dcn.w.weight"),
    *("backbone.levels.0.norm.0.weight", "backbone.levels.0.downsample.conv.weight"),
    *("backbone.levels.1.blocks.0.attn.sampling_offsets.weight", "level_embeds"),
    *("backbone.levels.3.blocks.0.w.weight", "neck.sampling_offsets.weight"),
    *(
        "backbone.levels.3.norm.0.weight",
        "neck.relative_position.weight",
        "neck.reference_points.weight",
    ),
]


@pytest.mark.parametrize(
    ("more", "config", "expected"),
    [
        ([], {}, [7, 5, 4, 4, 4, 7, 2, 0, 2, 0, 0]),
        ([], {"offset_lr_scale": 0.5}, [7, 5, 4, 4, 5, 7, 2, 1, 2, 0, 1]),
        (["decode_head.w"], {"offset_lr_scale": 0.5}, [7, 5, 4, 4, 5, 7, 2, 0, 2, 0, 0, 0]),
        (["decode_head.query_embed.w"], {}, [7, 5, 4, 4, 4, 7, 2, 0, 2, 0, 0, 7]),
    ],
)
def test_names_of_intern_image_by_hand(more, config, expected):
    """Blocks counted through the stages; offsets by a scale, in a segmentor's backbone only."""
    names = [*INTERN_NAMES, *more]
    paramwise_cfg = {"num_layers": 6, "layer_decay_rate": 0.5, "depths": [2, 1, 1, 2], **config}
    got = rates(tree(names), nnlr.mmengine(wrapper(INTERN, **paramwise_cfg)))
    assert [0.5**exponent for exponent in expected] == [got[name][0] for name in names]
    exempt = {name for name in names if got[name][1] == 0}
    assert exempt == {
        *("backbone.levels.0.norm.0.weight", "backbone.levels.3.norm.0.weight", "level_embeds"),
        *(
            "backbone.levels.1.blocks.0.attn.sampling_offsets.weight",
            "neck.sampling_offsets.weight",
        ),
        "neck.relative_position.weight",
        *(name for name in more),
    }


def test_small_rates_of_intern_image_by_hand():
    """A tenth for the backbone, and for offsets of DINO's head."""
    config = {"num_layers": 6, "layer_decay_rate": 0.5, "depths": [2, 1, 1, 2]}
    switches = {"backbone_small_lr": True, "dino_head": True}
    got = rates(tree(INTERN_NAMES), nnlr.mmengine(wrapper(INTERN, **config, **switches)))
    assert got["backbone.patch_embed.conv1.weight"][0] == pytest.approx(0.1 * 0.5**7)
    assert got["neck.sampling_offsets.weight"][0] == pytest.approx(0.1)
    assert got["neck.relative_position.weight"][0] == 1


def test_mmpretrain_points_out_norms_that_it_does_not_reach():
    """As the default constructor does."""
    model = tree(VIT, {"backbone.ln1": nn.RMSNorm(2)})
    scheme = nnlr.mmengine(wrapper(MMPRETRAIN, norm_decay_mult=0))
    found = nnlr.resolve(model, scheme, lr=1, weight_decay=1).findings
    assert "norm-not-reached" in {one.kind for one in found}


def test_layers_are_in_the_table():
    """The plan knows the layer of each parameter."""
    scheme = nnlr.mmengine(wrapper(BEIT, num_layers=3, layer_decay_rate=0.9))
    plan = nnlr.resolve(beit(), scheme, lr=1, weight_decay=1)
    assert plan["backbone.layers.1.attn.qkv.weight"].depth == (2, 4)


def test_names_of_vit_adapter_and_eva_by_hand():
    """BEiT's constructor in their repositories: any class, and queries of the head in layer 0."""
    scheme = nnlr.mmengine(wrapper(BEIT, num_layers=3, layer_decay_rate=0.5))
    due = {
        "backbone.pos_embed": 0,
        "backbone.visual_embed.x": 0,
        "backbone.blocks.2.attn.qkv.weight": 3,
        "backbone.spm.conv.weight": 4,
        "decode_head.query_feat.weight": 0,
        "decode_head.transformer.weight": 4,
    }
    model = tree(list(due), {"backbone": named("ViTAdapter")})
    got = rates(model, scheme, lr=16)
    assert {name: 0.5 ** (4 - layer) * 16 for name, layer in due.items()} == {
        name: lr for name, (lr, _) in got.items()
    }
    layers = {name.replace("blocks", "layers"): layer for name, layer in due.items()}
    got = rates(tree(list(layers), {"backbone": named("ViT")}), scheme, lr=16)
    assert (8, 1) == got["backbone.layers.2.attn.qkv.weight"]
    assert (16, 1) == got["decode_head.query_feat.weight"]
    with pytest.raises(NnlrError, match="which is ResNet in Module"):
        rates(tree(["backbone.layer1.0.weight"], {"backbone": named("ResNet")}), scheme)


def test_names_of_mmpose_by_hand():
    """As BEiT, for a backbone of any class; position embeddings do not decay."""
    config = {"num_layers": 3, "layer_decay_rate": 0.5}
    keys = {"bias": {"decay_multi": 0.0}}  # inherited, and not read there
    model = tree(VIT, shapes={"backbone.pos_embed": (1, 4, 2)})
    scheme = nnlr.mmengine(wrapper(POSE, **config, custom_keys=keys))
    got = rates(model, scheme, lr=16)
    assert (1, 0) == got["backbone.pos_embed"]
    assert (8, 1) == got["backbone.layers.2.attn.qkv.weight"]
    assert (8, 0) == got["backbone.layers.2.attn.qkv.bias"]
    assert (16, 1) == got["head.fc.weight"]
