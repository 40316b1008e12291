"""``mmengine(optim_wrapper)``: which constructor it means, and what each makes of a model."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.testing import SchemeLaws

REFERENCE = Path(__file__).parents[1] / "reference" / "mm_configs.json.gz"

MMPRETRAIN = "LearningRateDecayOptimWrapperConstructor"
MMDET = "LearningRateDecayOptimizerConstructor"
BEIT = "LayerDecayOptimizerConstructor"
INTERN = "CustomLayerDecayOptimizerConstructor"
FORCED = "ForceDefaultOptimWrapperConstructor"


def wrapper(constructor=None, optimizer=None, **paramwise_cfg):
    """An optim_wrapper as a configuration has it."""
    adamw = {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.05}
    whole = {"type": "AmpOptimWrapper", "optimizer": optimizer or adamw, "clip_grad": None}
    whole["paramwise_cfg"] = paramwise_cfg
    return {**whole, "constructor": constructor} if constructor else whole


def named(name, *bases, **attributes):
    """An empty module of a class of some name."""
    return type(name, bases or (nn.Module,), attributes)()


def tree(names, classes=(), shapes=None):
    """A model on the meta device with parameters of these names.

    ``classes`` maps paths to modules that stand there.
    """
    classes = dict(classes)
    root = classes.get("") or nn.Module()
    for name in names:
        *path, leaf = name.split(".")
        owner = root
        for depth, part in enumerate(path):
            if part not in owner._modules:
                owner.add_module(part, classes.get(".".join(path[: depth + 1])) or nn.Module())
            owner = owner._modules[part]
        shape = (shapes or {}).get(name, (2, 2) if leaf == "weight" else (2,))
        owner.register_parameter(leaf, nn.Parameter(torch.empty(shape, device="meta")))
    return root


VIT = [
    *("backbone.cls_token", "backbone.pos_embed", "backbone.patch_embed.projection.weight"),
    *(f"backbone.layers.{i}.attn.qkv.{leaf}" for i in range(3) for leaf in ("weight", "bias")),
    *("backbone.ln1.weight", "backbone.ln1.bias", "head.fc.weight", "head.fc.bias"),
]


def states_depth(name):
    """What a ViT of mmpretrain with three blocks returns."""
    if name.startswith("backbone.layers"):
        return int(name.split(".")[2]) + 1, 5
    return (4 if name.startswith(("head", "backbone.ln")) else 0), 5


def vit():
    """It, with the method."""
    model = tree(VIT)
    model.get_layer_depth = states_depth
    return model


def beit(name="BEiT"):
    """A segmentor whose backbone is of this class."""
    return tree(VIT, {"backbone": named(name)})


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
            nnlr.mmengine(wrapper(FORCED, force_default_settings=True, bias_decay_mult=0)),
        ]


def rates(model, scheme, lr=1.0, weight_decay=1.0):
    """The rates of each parameter by its name."""
    plan = nnlr.resolve(model, scheme, lr=lr, weight_decay=weight_decay)
    return {row.name: (row.lr, row.weight_decay) for row in plan}


def entries():
    """The models and rates that ``docs/make_mmengine_table.py`` has written."""
    return json.loads(gzip.decompress(REFERENCE.read_bytes()))


def rebuilt(entry):
    """A model with the names, shapes and kinds of modules of a saved one."""
    made = {"LayerNorm": lambda: nn.LayerNorm(1), "GroupNorm": lambda: nn.GroupNorm(1, 1)}
    made |= {"BatchNorm2d": lambda: nn.BatchNorm2d(1), "Conv2d": lambda: nn.Conv2d(2, 2, 1)}
    made["depthwise"] = lambda: nn.Conv2d(2, 2, 1, groups=2)
    classes = {
        path: made.get(kind, lambda kind=kind: named(kind))() for path, kind in entry["classes"]
    }
    for module in classes.values():
        module._parameters.clear()
    shapes = dict(entry["shapes"])
    model = tree(shapes, classes, shapes)
    for name in entry["frozen"]:
        model.get_parameter(name).requires_grad_(False)
    return model


def differing(entry, wrapper_of):
    """Names whose rates are not those of the constructor in its package."""
    model = rebuilt(entry)
    differences = []
    for index, of, pairs in entry["runs"]:
        optim_wrapper = wrapper_of[index]
        optimizer = optim_wrapper["optimizer"]
        got = rates(model, nnlr.mmengine(optim_wrapper), optimizer["lr"], optimizer["weight_decay"])
        trained = [name for name, _ in entry["shapes"] if name not in entry["frozen"]]
        for name, at in zip(trained, of, strict=True):
            if got[name] != pytest.approx(tuple(pairs[at]), rel=1e-12, abs=0):
                differences.append((entry["config"], name, got[name], pairs[at]))
    return differences


def test_constructors_of_the_packages_are_equal_on_their_models():
    """Names, shapes and rates of real models of mmpretrain, mmseg and mmdet."""
    saved = entries()
    short = [entry for entry in saved["models"] if entry["short"]]
    assert len(short) >= 6
    assert [] == [found for entry in short for found in differing(entry, saved["wrappers"])]


@pytest.mark.full  # 10 s
def test_constructors_of_the_packages_are_equal_on_more_models():
    """The same on the rest of the saved models."""
    saved = entries()
    assert len(saved["models"]) >= 20
    more = [entry for entry in saved["models"] if not entry["short"]]
    assert [] == [found for entry in more for found in differing(entry, saved["wrappers"])]


def test_every_optim_wrapper_of_the_packages_is_taken():
    """None of the distinct ones is refused, also as a recipe."""
    for optim_wrapper in entries()["wrappers"]:
        scheme = nnlr.mmengine(optim_wrapper)
        assert "mmengine" in repr(scheme)
        if hasattr(torch.optim, optim_wrapper["optimizer"]["type"]):
            recipe = nnlr.config.from_mmengine(optim_wrapper)
            assert optim_wrapper["optimizer"]["lr"] == recipe.lr


def test_a_whole_dict_without_constructor_is_the_default_one():
    """The same as its paramwise_cfg alone; and the optimizer of mmcv 1 has it inside."""
    inner = {"custom_keys": {"head": {"lr_mult": 10}}, "bias_decay_mult": 0}
    expected = rates(vit(), nnlr.mmengine(inner))
    assert expected == rates(vit(), nnlr.mmengine(wrapper(**inner)))
    old = {"type": "AdamW", "lr": 1, "weight_decay": 1, "paramwise_cfg": inner}
    assert expected == rates(vit(), nnlr.mmengine(old))
    assert rates(vit(), nnlr.mmengine(None)) == rates(vit(), nnlr.mmengine({"type": "SGD"}))
    assert expected["head.fc.weight"] == (10, 1)


@pytest.mark.parametrize(
    "spelling",
    [MMDET, f"mmdet.{MMDET}", f"mmseg.engine.optimizers.x.{MMDET}", type(MMDET, (), {})],
    ids=["plain", "package", "module", "class"],
)
def test_a_constructor_goes_by_its_name_in_any_spelling(spelling):
    """With and without a package, and as a class, as lazy configurations have it."""
    scheme = nnlr.mmengine(wrapper(spelling, num_layers=3, decay_rate=0.5))
    expected = nnlr.mmengine(wrapper(MMDET, num_layers=3, decay_rate=0.5))
    assert rates(beit(), expected) == rates(beit(), scheme)
    assert MMDET in str(scheme.written_as())


def test_a_config_dict_is_as_good_as_a_dict():
    """Also with classes in it, and with what belongs to the trainer."""
    config = pytest.importorskip("mmengine").ConfigDict(
        wrapper(MMPRETRAIN, layer_decay_rate=0.5), accumulative_counts=2
    )
    plain = nnlr.mmengine(wrapper(MMPRETRAIN, layer_decay_rate=0.5))
    assert rates(vit(), plain) == rates(vit(), nnlr.mmengine(config))


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


def test_rules_overrule_keys_where_forced():
    """Mmsegmentation's ForceDefault: the rules act after the key, and on what they reach only."""
    keys = {"head": {"lr_mult": 10, "weight_decay": 7, "momentum": 0.5}}
    config = {"custom_keys": keys, "bias_lr_mult": 2, "bias_decay_mult": 0}
    forced = nnlr.mmengine(wrapper(FORCED, **config, force_default_settings=True))
    got = rates(vit(), forced)
    assert got["head.fc.weight"] == (10, 7)
    assert got["head.fc.bias"] == (2, 0)
    plan = nnlr.resolve(vit(), forced, lr=1, weight_decay=1)
    assert plan["head.fc.bias"].options == {"momentum": 0.5}
    assert "rules-cancelled" not in {found.kind for found in plan.findings}
    plain = nnlr.mmengine(wrapper(FORCED, **config))
    assert rates(vit(), nnlr.mmengine(config)) == rates(vit(), plain)


def test_keys_of_other_architectures_are_a_note():
    """One note for all; and keys that longer ones with the same settings cover are another."""
    exempt = {"decay_mult": 0.0}
    keys = [".absolute_pos_embed", "relative_position_bias_table", ".cls_token", "cls_token"]
    config = {"custom_keys": dict.fromkeys(keys, exempt)}
    plan = nnlr.resolve(vit(), nnlr.mmengine(config), lr=1, weight_decay=1)
    notes = {found.kind: found for found in plan.findings}
    assert {"other-architecture", "covered-key"} == notes.keys()
    assert {"note"} == {found.severity for found in plan.findings}
    assert (
        "'relative_position_bias_table', '.absolute_pos_embed'" in notes["other-architecture"].cause
    )
    assert notes["covered-key"].cause.endswith("cover: cls_token")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (".cls_tokne", "'.cls_tokne' matches no parameter(?s:.*)Nearest: 'cls_token'"),
        ("relative_postion_bias_table", "matches no parameter"),
        ("backbone.layers.3.", "'backbone.layers.3.' matches no parameter"),
        ("my_own_thing", "matches no parameter"),
    ],
)
def test_misspelt_keys_and_numbers_that_are_not_there_are_errors(key, message):
    """Also of names that only other architectures have, and indices beyond the last."""
    scheme = nnlr.mmengine({"custom_keys": {key: {"decay_mult": 0}}})
    with pytest.raises(PatternError, match=message):
        rates(vit(), scheme)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (wrapper("LayerDecay"), "constructor 'LayerDecay' is none that nnlr knows"),
        (wrapper("mine.Own"), "Known: Default(?s:.*)subclass of nnlr.Scheme"),
        (wrapper(MMDET, decay_rate=0.9), "LearningRate.* needs 'num_layers' in paramwise_cfg"),
        (wrapper(MMDET, num_layers=1.5, decay_rate=0.9), "num_layers must be a whole number"),
        (wrapper(MMDET, num_layers=1, decay_rate=0.9, decay_type="x"), "decay_type must be one"),
        (wrapper(MMDET, num_layers=1, decay_rate=-1), "decay_rate must be a finite number >= 0"),
        (wrapper(INTERN, num_layers=1, layer_decay_rate=1, depths=4), "depths must be a list"),
        (wrapper(INTERN, num_layers=1, layer_decay_rate=1, depths=[0]), "each of depths must be"),
        (wrapper(BEIT, num_layers=1, decay_rate=1), "'decay_rate', which is for another"),
        (wrapper(force_default_settings=True), "force_default_settings', which is for another"),
        ({"optimizer": 3}, "optimizer must be a mapping"),
        ({"optimizer": {"type": "SGD"}, "paramwise_cgf": {}}, "Nearest: 'paramwise_cfg'"),
        (wrapper(optimizer={"type": "SGD", "lr": 1}, bias_decay_mult=0), "bias_decay_mult is a"),
        (
            wrapper(optimizer={"type": "SGD"}, custom_keys={"a": {"decay_mult": 0}}),
            "decay_mult of custom key 'a' is a factor on the weight_decay of the optimizer",
        ),
        (
            wrapper(MMPRETRAIN, custom_keys={"head": {"lr_mult": 2}}),
            r"'lr_mult', which Learning.* passes over(?s:.*)nnlr.rule\('\*head\*', lr_mult=...\)",
        ),
    ],
)
def test_malformed_wrappers_are_refused(config, message):
    """At the call, with what to do."""
    with pytest.raises(NnlrError, match=message):
        nnlr.mmengine(config)


def test_keys_that_a_base_file_hands_on_are_a_finding():
    """RTMDet's ConvNeXt inherits rules that its constructor does not read; _delete says nothing."""
    inherited = {"norm_decay_mult": 0, "bypass_duplicate": True, "_delete": True}
    scheme = nnlr.mmengine(wrapper(BEIT, num_layers=3, layer_decay_rate=0.9, **inherited))
    found = nnlr.resolve(beit(), scheme, lr=1, weight_decay=1).findings
    assert ["unread-key", "unread-key"] == [one.kind for one in found]
    assert "does not read 'norm_decay_mult'" in found[0].cause


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


def test_a_whole_wrapper_is_written_and_read_again():
    """As plain data it keeps what decides: the constructor and its paramwise_cfg."""
    scheme = nnlr.mmengine(wrapper(f"mmseg.{BEIT}", num_layers=3, layer_decay_rate=0.9))
    data = nnlr.config.dump(scheme)
    assert rates(beit(), scheme) == rates(beit(), nnlr.config.scheme(data))


def test_an_unread_key_is_refused_as_a_config_error():
    """A layer decay that the default constructor would pass over is no finding."""
    with pytest.raises(ConfigError, match="Pass the whole optim_wrapper if it names Learning"):
        nnlr.mmengine({"decay_rate": 0.5})
