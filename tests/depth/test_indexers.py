"""The published depth indexers against the tables of their reference implementations.

The names are those of the official models, the layers are written out by hand from the
papers' code; models of timm and transformers follow, built without weights.
"""

import pytest
import timm as timm_package
import torch
import transformers
from timm.optim import param_groups_layer_decay
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr.depth import as_indexer
from tests.schemes.naming import Holder, module_of


def layers(model, indexer):
    """Name -> layer of every parameter."""
    info = describe(model)
    found = as_indexer(indexer).layers(info)
    return {param.name: layer for param, layer in zip(info.params, found, strict=True)}


def depths(model, indexer):
    """Name -> number of the layer, and the last layer of all."""
    found = layers(model, indexer)
    (last,) = {layer.last for layer in found.values() if layer}
    return {name: layer and layer.depth for name, layer in found.items()}, last


def parts(model, indexer):
    """Part -> names."""
    named = {}
    for name, layer in layers(model, indexer).items():
        named.setdefault(layer and layer.part, []).append(name)
    return named


# ------------------------------------------------------------------ vision transformers

# BEiT's and MAE's rule on a model of three blocks.
BEIT = {
    "cls_token": 0,
    "mask_token": 0,
    "pos_embed": 0,
    "patch_embed.proj.weight": 0,
    "patch_embed.proj.bias": 0,
    "rel_pos_bias.relative_position_bias_table": 4,
    "blocks.0.norm1.weight": 1,
    "blocks.0.gamma_1": 1,
    "blocks.0.attn.qkv.weight": 1,
    "blocks.1.mlp.fc1.bias": 2,
    "blocks.2.mlp.fc2.weight": 3,
    "norm.weight": 4,
    "norm.bias": 4,
    "fc_norm.weight": 4,
    "head.weight": 4,
    "decoder_blocks.0.norm1.weight": 4,
    "pos_embed_of_decoder": 4,
    "lm_head.bias": 4,
}


def test_vit_numbers_as_beit_and_mae_do():
    """Tokens and patches 0, block i in i + 1, the rest on top, with the final norm."""
    assert (BEIT, 4) == depths(module_of(BEIT), "vit")
    found = parts(module_of(BEIT), "vit")
    assert ["cls_token", "mask_token", "pos_embed"] == found["stem"]
    assert ["patch_embed.proj.weight", "patch_embed.proj.bias"] == found["patch_embed"]
    assert ["norm.weight", "norm.bias"] == found["final_norm"]


def test_vit_has_a_layer_for_a_head_that_is_not_there():
    """BEiT's number of layers is depth + 2 whatever the model holds; timm's is not."""
    bare = module_of(["patch_embed.proj.weight", "blocks.0.w", "blocks.1.w", "norm.w"])
    ids = {"patch_embed.proj.weight": 0, "blocks.0.w": 1, "blocks.1.w": 2}
    assert (ids | {"norm.w": 3}, 3) == depths(bare, "vit")
    last_block = nnlr.depth.vit("last_block")
    assert (ids | {"norm.w": 2}, 2) == depths(bare, last_block)


def test_vit_reads_torchvisions_names():
    """As timm's model of that shape: the stem, the blocks, and the norm with the head."""
    names = {
        "class_token": 0,
        "conv_proj.weight": 0,
        "encoder.pos_embedding": 0,
        "encoder.layers.encoder_layer_0.ln_1.weight": 1,
        "encoder.layers.encoder_layer_1.mlp.0.weight": 2,
        "encoder.ln.weight": 3,
        "heads.head.weight": 3,
    }
    assert (names, 3) == depths(module_of(names), "vit")


def test_vit_takes_blocks_of_two_digits_in_their_order():
    """Twelve blocks give layers 1 to 12 and a head in 13."""
    names = ["patch_embed.w", *(f"blocks.{i}.w" for i in range(12)), "head.w"]
    expected = dict(zip(names, range(14), strict=True))
    assert (expected, 13) == depths(module_of(names), "vit")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"num_classes": 0}),
        ("vit_tiny_patch16_224", {"num_classes": 0, "global_pool": "avg"}),
        pytest.param(
            "vit_tiny_patch16_224", {"num_classes": 0, "final_norm": False}, marks=pytest.mark.full
        ),
        ("vit_small_patch14_reg4_dinov2", {}),
        ("vit_base_patch16_clip_224", {}),
        pytest.param("deit3_small_patch16_224", {}, marks=pytest.mark.full),
    ],
)
@pytest.mark.no_cover
def test_vit_with_the_norm_in_the_last_block_is_timms(name, settings):
    """Equal to timm's groups on its VisionTransformer: registers, pre-norm, no head."""
    with torch.device("meta"):
        model = timm_package.create_model(name, **settings)
    plan = nnlr.resolve(
        model,
        nnlr.layer_decay(0.75, nnlr.depth.vit("last_block")),
        lr=1,
        weight_decay=0,
    )
    named = {id(tensor): name for name, tensor in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=0.75)
    expected = {named[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
    assert expected == pytest.approx({r.name: r.lr for r in plan}, rel=1e-12)


def test_dinov2_puts_every_token_at_the_bottom():
    """Registers of DINOv2 and DINOv3 too; heads of self-supervision are on top."""
    ids = {
        "backbone.cls_token": 0,
        "backbone.pos_embed": 0,
        "backbone.register_tokens": 0,
        "backbone.storage_tokens": 0,
        "backbone.mask_token": 0,
        "backbone.patch_embed.proj.weight": 0,
        "backbone.blocks.0.attn.qkv.weight": 1,
        "backbone.blocks.1.ls1.gamma": 2,
        "backbone.norm.weight": 3,
        "backbone.local_cls_norm.weight": 3,
        "dino_head.mlp.0.weight": 3,
        "dino_head.last_layer.weight_v": 3,
    }
    assert (ids, 3) == depths(module_of(ids), "dinov2")


def test_dinov2_knows_the_registers_of_timm():
    """The same model there calls them ``reg_token``; they are in layer 0 as well."""
    with torch.device("meta"):
        model = timm_package.create_model("vit_small_patch14_reg4_dinov2")
    found, last = depths(model, "dinov2")
    tokens = {"cls_token", "reg_token", "pos_embed", "patch_embed.proj.weight"}
    assert tokens <= {name for name, depth in found.items() if depth == 0}
    assert 13 == last == found["norm.weight"]
    assert 12 == found["blocks.11.ls2.gamma"]


def test_dinov2_reads_blocks_held_in_chunks():
    """``blocks.<chunk>.<block>``: the second number counts through all chunks."""
    ids = {
        "patch_embed.proj.weight": 0,
        "blocks.0.0.norm1.weight": 1,
        "blocks.0.1.norm1.weight": 2,
        "blocks.1.2.norm1.weight": 3,
        "blocks.1.3.norm1.weight": 4,
        "norm.weight": 5,
    }
    assert (ids, 5) == depths(module_of(ids), "dinov2")


def test_dinov2s_patch_embedding_is_slower_still():
    """0.2 of its layer, and nothing else in the stem."""
    model = module_of(["cls_token", "patch_embed.w", "blocks.0.w", "head.w"])
    scheme = nnlr.layer_decay(0.5, "dinov2", patch_embed_mult=0.2)
    plan = nnlr.resolve(model, scheme, lr=1, weight_decay=0)
    expected = {"cls_token": 1 / 4, "patch_embed.w": 1 / 20, "blocks.0.w": 1 / 2}
    assert expected | {"head.w": 1} == {row.name: row.lr for row in plan}


# detectron2's rule on a feature pyramid over two blocks.
VITDET = {
    "backbone.net.pos_embed": 0,
    "backbone.net.cls_token": 3,
    "backbone.net.patch_embed.proj.weight": 0,
    "backbone.net.blocks.0.attn.rel_pos_h": 1,
    "backbone.net.blocks.1.mlp.fc1.weight": 2,
    "backbone.net.blocks.1.residual.conv1.weight": 3,
    "backbone.net.blocks.1.attn.residual.weight": 3,
    "backbone.simfp_2.0.weight": 3,
    "proposal_generator.rpn_head.conv.weight": 3,
    "roi_heads.blocks.0.weight": 3,
}


def test_vitdet_numbers_only_what_is_under_backbone():
    """Residual convolutions, class token, pyramid and heads are on top, as released."""
    assert (VITDET, 3) == depths(module_of(VITDET), "vitdet")
    assert ["backbone.net.patch_embed.proj.weight"] == parts(module_of(VITDET), "vitdet")[
        "patch_embed"
    ]


# -------------------------------------------------------------------------------- stages

# SimMIM's rule on stages of 1, 3 and 2 blocks.
SWIN = {
    "mask_token": 0,
    "absolute_pos_embed": 7,
    "patch_embed.proj.weight": 0,
    "patch_embed.norm.weight": 0,
    "layers.0.blocks.0.attn.qkv.weight": 1,
    "layers.0.downsample.reduction.weight": 1,
    "layers.0.downsample.norm.weight": 1,
    "layers.1.blocks.0.norm1.weight": 2,
    "layers.1.blocks.1.norm1.weight": 3,
    "layers.1.blocks.2.norm1.weight": 4,
    "layers.1.downsample.reduction.weight": 4,
    "layers.2.blocks.0.norm1.weight": 5,
    "layers.2.blocks.1.norm1.weight": 6,
    "norm.weight": 7,
    "head.weight": 7,
}


def test_swin_numbers_as_simmim_does():
    """Blocks through all stages, downsampling with the last block before it."""
    assert (SWIN, 7) == depths(module_of(SWIN), "swin")
    assert ["norm.weight"] == parts(module_of(SWIN), "swin")["final_norm"]


def test_swins_position_embedding_can_be_put_where_it_belongs():
    """The original forgets it, so that it learns like the head."""
    mended = SWIN | {"absolute_pos_embed": 0}
    assert (mended, 7) == depths(module_of(SWIN), nnlr.depth.swin(pos_embed="stem"))


def test_swin_of_timm_has_its_downsampling_at_the_start_of_a_stage():
    """It is the same layer between the same two blocks, and gets the same number."""
    with torch.device("meta"):
        model = timm_package.create_model("swin_tiny_patch4_window7_224")
    found, last = depths(model, "swin")
    assert 13 == last
    assert [2, 4, 10] == [
        found[f"layers.{stage}.downsample.reduction.weight"] for stage in (1, 2, 3)
    ]
    assert 11 == found["layers.3.blocks.0.norm1.weight"]


def convnext_names(blocks):
    yield "downsample_layers.0.0.weight"
    for stage, count in enumerate(blocks):
        if stage:
            yield f"downsample_layers.{stage}.0.weight"
        for block in range(count):
            yield f"stages.{stage}.{block}.dwconv.weight"
    yield "norm.weight"
    yield "head.weight"


def test_convnext_cuts_the_third_stage_in_threes():
    """27 blocks are layers 3 to 11, the last stage is 12, the head 13."""
    found, last = depths(module_of(convnext_names((3, 3, 27, 3))), "convnext")
    assert 13 == last
    assert [0, 2, 3, 12] == [found[f"downsample_layers.{i}.0.weight"] for i in range(4)]
    assert {1} == {found[f"stages.0.{block}.dwconv.weight"] for block in range(3)}
    assert {2} == {found[f"stages.1.{block}.dwconv.weight"] for block in range(3)}
    threes = [layer for layer in range(3, 12) for _ in range(3)]
    assert threes == [found[f"stages.2.{block}.dwconv.weight"] for block in range(27)]
    assert {12} == {found[f"stages.3.{block}.dwconv.weight"] for block in range(3)}
    assert (13, 13) == (found["norm.weight"], found["head.weight"])


@pytest.mark.parametrize(("count", "last_stage"), [(9, 6), (6, 5), (5, 5), (1, 4)])
def test_convnext_counts_smaller_models(count, last_stage):
    """9 blocks give the 6 of ConvNeXt-T in detection; an odd rest is a layer too."""
    names = list(convnext_names((1, 1, count, 1)))
    found, last = depths(module_of(names), "convnext")
    assert last_stage + 1 == last == found["head.weight"]
    assert last_stage == found["stages.3.0.dwconv.weight"]
    assert last_stage - 1 == found[f"stages.2.{count - 1}.dwconv.weight"]


def test_convnext_of_timm_has_the_layers_of_the_official_one():
    """The same number of layers, while timm's own matcher gives every block one."""
    with torch.device("meta"):
        model = timm_package.create_model("convnext_small")
    found, last = depths(model, "convnext")
    assert 13 == last
    assert [0, 2, 3, 12, 13] == [
        found[name]
        for name in (
            "stem.0.weight",
            "stages.1.downsample.1.weight",
            "stages.2.downsample.1.weight",
            "stages.3.downsample.1.weight",
            "head.norm.weight",
        )
    ]
    assert 11 == found["stages.2.blocks.26.gamma"]
    ends = ["head.norm.weight", "head.norm.bias"]
    assert ends == parts(model, "convnext")["final_norm"]


def test_convnext_numbers_four_stages_only():
    """The rule says nothing of others, and the message says so."""
    names = list(convnext_names((1, 1, 3)))
    with pytest.raises(nnlr.NnlrError, match="this model has 3 stages"):
        layers(module_of(names), "convnext")


# ------------------------------------------------------------------------------ language


def electra():
    config = transformers.ElectraConfig(
        num_hidden_layers=2,
        hidden_size=8,
        embedding_size=4,
        num_attention_heads=2,
        intermediate_size=8,
        vocab_size=9,
    )
    with torch.device("meta"):
        return transformers.ElectraForSequenceClassification(config)


@pytest.mark.parametrize(("form", "head"), [("as_released", 4), ("as_published", 3)])
def test_electra_leaves_a_layer_out_as_released(form, head):
    """Two layers: embeddings 0, layers 1 and 2, the head in 4, or in 3 as it was meant."""
    found, last = depths(electra(), nnlr.depth.electra(form))
    assert head == last
    assert {0} == {depth for name, depth in found.items() if name.startswith("electra.embeddings")}
    for layer in (0, 1):
        prefix = f"electra.encoder.layer.{layer}."
        assert {layer + 1} == {d for n, d in found.items() if n.startswith(prefix)}
    assert {head} == {d for n, d in found.items() if n.startswith("classifier.")}
    rates = nnlr.resolve(
        electra(),
        nnlr.layer_decay(0.8, nnlr.depth.electra(form)),
        lr=1,
        weight_decay=0,
    )
    top = rates["electra.encoder.layer.1.output.dense.weight"]
    assert 0.8 ** (head - 2) == top.lr_mult


@pytest.mark.parametrize("form", ["as_released", "as_published"])
def test_xlnet_decays_its_layers_and_nothing_else(form):
    """The top layer learns at 1, and so do embeddings and head.

    As released so does what the original holds for all layers in one tensor.
    """
    config = transformers.XLNetConfig(n_layer=3, d_model=8, n_head=2, d_inner=8, vocab_size=9)
    with torch.device("meta"):
        model = transformers.XLNetForSequenceClassification(config)
    scheme = nnlr.layer_decay(0.75, nnlr.depth.xlnet(form))
    plan = nnlr.resolve(model, scheme, lr=1, weight_decay=0)
    stacked = {"r_w_bias", "r_r_bias", "r_s_bias", "seg_embed"}
    assert stacked <= {row.name.split(".")[-1] for row in plan}
    for row in plan:
        name = row.name.split(".")
        inside = name[1] == "layer"
        if form == "as_released" and name[-1] in stacked:
            inside = False
        assert inside == (row.depth is not None), row.name
        layer = int(name[2]) if inside else 2
        assert 0.75 ** (2 - layer) == row.lr_mult, row.name
    assert plan["transformer.layer.1.ff.layer_1.weight"].depth == (1, 2)
    assert plan["transformer.word_embedding.weight"].depth is None


# -------------------------------------------------------------------------- transformers

SIZES = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}


def of_transformers(name, config):
    with torch.device("meta"):
        return getattr(transformers, name)(config)


@pytest.mark.parametrize(
    ("name", "config", "indexer", "expected"),
    [
        (
            "ViTForImageClassification",
            transformers.ViTConfig(num_hidden_layers=2, **SIZES),
            "vit",
            {"embeddings.cls": 0, "patch": 0, "layernorm.": 3, "classifier": 3},
        ),
        (
            "ViTForImageClassification",
            transformers.ViTConfig(num_hidden_layers=2, **SIZES),
            nnlr.depth.vit("last_block"),
            {"embeddings.cls": 0, "patch": 0, "layernorm.": 2, "classifier": 3},
        ),
        (
            "BeitForImageClassification",
            transformers.BeitConfig(
                num_hidden_layers=2, use_shared_relative_position_bias=True, **SIZES
            ),
            "vit",
            {"patch": 0, "relative_position_bias_table": 3, "pooler.layernorm": 3},
        ),
        (
            "Dinov2WithRegistersForImageClassification",
            transformers.Dinov2WithRegistersConfig(
                num_hidden_layers=2, hidden_size=8, num_attention_heads=2
            ),
            "dinov2",
            {"register_tokens": 0, "mask_token": 0, "patch": 0, "classifier": 3},
        ),
        (
            "DINOv3ViTModel",
            transformers.DINOv3ViTConfig(num_hidden_layers=2, **SIZES),
            "dinov2",
            {"patch_embeddings.": 0, "layer.0.": 1, "layer.1.": 2},
        ),
        (
            "SwinForImageClassification",
            transformers.SwinConfig(
                depths=[1, 2],
                num_heads=[1, 2],
                embed_dim=8,
                use_absolute_embeddings=True,
            ),
            "swin",
            {
                "patch_embeddings": 0,
                "embeddings.norm": 0,
                "embeddings.position": 4,
                "layers.0.": 1,
                "layers.1.blocks.1.": 3,
                "classifier": 4,
            },
        ),
        (
            "SwinForImageClassification",
            transformers.SwinConfig(
                depths=[1, 2],
                num_heads=[1, 2],
                embed_dim=8,
                use_absolute_embeddings=True,
            ),
            nnlr.depth.swin("stem"),
            {"embeddings.position": 0, "swin.layernorm": 4},
        ),
        (
            "SwinForMaskedImageModeling",
            transformers.SwinConfig(depths=[1, 2], num_heads=[1, 2], embed_dim=8, encoder_stride=2),
            "swin",
            {"mask_token": 0, "layers.1.blocks.1.": 3, "decoder": 4},
        ),
        (
            "ConvNextForImageClassification",
            transformers.ConvNextConfig(depths=[1, 1, 4, 1], hidden_sizes=[4, 4, 4, 4]),
            "convnext",
            {
                "embeddings": 0,
                "stages.1.downsampling_layer": 2,
                "stages.2.layers.3.": 4,
                "stages.3.": 5,
                "convnext.layernorm": 6,
                "classifier": 6,
            },
        ),
        (
            "VitDetModel",
            transformers.VitDetConfig(
                num_hidden_layers=2,
                hidden_size=8,
                num_attention_heads=2,
                residual_block_indices=[1],
            ),
            "vitdet",
            {"embeddings.": 0, "layer.0.": 1, "layer.1.norm": 2, "residual": 3},
        ),
    ],
)
def test_the_same_architectures_of_transformers(name, config, indexer, expected):
    """Their names differ, their layers do not: fragments of names and their layers."""
    found, last = depths(of_transformers(name, config), indexer)
    for fragment, depth in expected.items():
        names = [each for each in found if fragment in each]
        assert names, fragment
        assert {depth} == {found[each] for each in names}, fragment
    assert max(expected.values()) <= last


@pytest.mark.parametrize(
    ("name", "config", "indexer", "norm"),
    [
        (
            "ViTModel",
            transformers.ViTConfig(num_hidden_layers=1, **SIZES),
            "vit",
            "layernorm",
        ),
        (
            "DINOv3ViTModel",
            transformers.DINOv3ViTConfig(num_hidden_layers=1, **SIZES),
            "dinov2",
            "norm",
        ),
        (
            "SwinModel",
            transformers.SwinConfig(depths=[1, 1], num_heads=[1, 1], embed_dim=8),
            "swin",
            "layernorm",
        ),
        (
            "ConvNextModel",
            transformers.ConvNextConfig(depths=[1] * 4, hidden_sizes=[4] * 4),
            "convnext",
            "layernorm",
        ),
    ],
)
def test_the_final_norm_of_transformers_is_known(name, config, indexer, norm):
    """So that ``final_norm`` of layer_decay can move it."""
    found = parts(of_transformers(name, config), indexer)
    assert [f"{norm}.weight", f"{norm}.bias"] == found["final_norm"]


# ------------------------------------------------------------------------ towers, errors


@pytest.mark.parametrize(
    ("indexer", "table", "last"),
    [("vit", BEIT, 4), ("vitdet", VITDET, 3), ("swin", SWIN, 7)],
)
def test_a_wrapper_around_the_model_changes_nothing(indexer, table, last):
    """Below a prefix the same layers; what stands beside the model is a head."""
    held = Holder(module_of(table), criterion=nn.Linear(1, 1))
    expected = {f"model.{name}": depth for name, depth in table.items()}
    expected |= {"criterion.weight": last, "criterion.bias": last}
    assert (expected, last) == depths(held, indexer)


def test_two_towers_are_numbered_apart():
    """Each with its own blocks; what is in neither has no layer."""
    small = ["patch_embed.w", "blocks.0.w", "norm.w"]
    large = ["patch_embed.w", "blocks.0.w", "blocks.1.w", "norm.w"]
    model = Holder(module_of(small), other=module_of(large), head=nn.Linear(1, 1))
    found = layers(model, "vit")
    assert (2, 2, "model") == found["model.norm.w"][:3]
    assert (2, 3, "other") == found["other.blocks.1.w"][:3]
    assert found["head.weight"] is None
    model = Holder(module_of(small), model_ema=module_of(large))
    found = layers(model, "vit")
    assert (0, 3, "model_ema", "patch_embed") == found["model_ema.patch_embed.w"]
    assert (0, 2, "model", "patch_embed") == found["model.patch_embed.w"]


def test_blocks_inside_a_tower_or_without_a_stem_are_no_tower():
    """A decoder below or beside the encoder learns like a head."""
    inside = module_of(["patch_embed.w", "blocks.0.w", "neck.patch_embed.w", "neck.blocks.5.w"])
    assert 2 == layers(inside, "vit")["neck.blocks.5.w"].depth
    held = layers(Holder(inside, criterion=nn.Linear(1, 1)), "vit")
    assert (2, 2, "", "head") == held["criterion.weight"]
    beside = module_of(["e.patch_embed.w", "e.blocks.0.w", "d.blocks.5.w"])
    assert 2 == layers(beside, "vit")["d.blocks.5.w"].depth


def test_names_and_tensors_are_enough():
    """Without a module, as for a state dict, the names say the same."""
    tensors = dict(module_of(BEIT).named_parameters())
    assert (BEIT, 4) == depths(tensors, "vit")


def test_a_stage_without_blocks_still_counts():
    """Its downsampling is in the layer of the last block before it."""
    ids = {"patch_embed.w": 0, "layers.0.blocks.0.w": 1, "layers.2.downsample.w": 1}
    assert (ids, 2) == depths(module_of(ids), "swin")


def test_blocks_inside_blocks_are_no_blocks():
    """The outermost number counts, also where a block holds nothing beside its own."""
    ids = {"patch_embed.w": 0, "blocks.0.blocks.3.w": 1, "blocks.1.blocks.0.w": 2}
    ids |= {"head.w": 3}
    assert (ids, 3) == depths(module_of(ids), "vit")
    held = {f"model.{name}": depth for name, depth in ids.items()}
    assert (held, 3) == depths(Holder(module_of(ids)), "vit")


def test_blocks_inside_the_patch_embedding_are_none():
    """The first rule of the original that fits a name decides."""
    ids = {"backbone.net.patch_embed.blocks.0.w": 0, "head.w": 1}
    assert (ids, 1) == depths(module_of(ids), "vitdet")


NAMED = ["vit", "dinov2", "vitdet", "swin", "convnext", "electra", "xlnet"]


@pytest.mark.parametrize("indexer", NAMED)
def test_names_that_do_not_fit_are_an_error_that_says_what_was_looked_for(indexer):
    """Never one silent layer: what is wanted, what there is, and what else may help."""
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    message = (
        rf"^{indexer}\(\) finds no .* in Sequential \(4 parameters\)\.\n"
        r"  At the top or below a prefix it looks for:\n(    '.*\n)+"
        r"  Names begin with: 0, 1\.\n  For other names use nnlr\.depth\.auto\(\)"
    )
    with pytest.raises(nnlr.NnlrError, match=message) as caught:
        layers(model, indexer)
    assert max(map(len, str(caught.value).splitlines())) <= 88


@pytest.mark.parametrize("indexer", NAMED)
def test_similar_names_of_another_architecture_do_not_fit(indexer):
    """Blocks alone are not enough: what stands below them must be there as well."""
    config = transformers.LlamaConfig(num_hidden_layers=2, vocab_size=9, **SIZES)
    with pytest.raises(nnlr.NnlrError, match=r"Names begin with: model, lm_head\."):
        layers(of_transformers("LlamaForCausalLM", config), indexer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nnlr.depth.vit("top"), "final_norm must be one of 'head', 'last_b"),
        (lambda: nnlr.depth.swin("top"), "pos_embed must be one of 'head', 'stem'"),
        (lambda: nnlr.depth.electra("fixed"), "form must be one of 'as_released', "),
        (lambda: nnlr.depth.xlnet("mended"), "form must be one of .*; got 'mended'"),
        (lambda: nnlr.depth.timm(fallback=1), "fallback must be True or False, got 1"),
    ],
)
def test_a_wrong_option_is_refused_at_the_call(make, message):
    """With the words that there are."""
    with pytest.raises(nnlr.NnlrError, match=message):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "vit(final_norm='last_block')",
        "swin(pos_embed='stem')",
        "electra(form='as_published')",
        "xlnet(form='as_published')",
        "timm(fallback=True)",
    ],
)
def test_an_indexer_is_shown_as_its_call(text):
    """``repr`` is what a user would write behind ``nnlr.depth.``."""
    assert text == repr(eval(text, vars(nnlr.depth) | dict(nnlr.depth.INDEXERS)))  # noqa: S307


# ---------------------------------------------------------------------------------- timm


class Matched(nn.Module):
    """A model that brings a matcher."""

    def __init__(self, matcher):
        super().__init__()
        self.stem = nn.Linear(1, 1, bias=False)
        self.blocks = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(2))
        self.head = nn.Linear(1, 1, bias=False)
        self.matcher = matcher

    def group_matcher(self, coarse=False):
        return self.matcher


MATCHER = {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None)]}


def test_timm_reads_the_models_own_matcher():
    """Stem, blocks, and what nothing matches on top."""
    expected = {"stem.weight": 0, "blocks.0.weight": 1, "blocks.1.weight": 2}
    assert (expected | {"head.weight": 3}, 3) == depths(Matched(MATCHER), "timm")


def test_timm_finds_matchers_below_and_keeps_towers_apart():
    """The outermost count; what is beside them is in no layer."""
    one, other = Matched(MATCHER), Matched(MATCHER)
    other.stem.inner = Matched({"stem": "^nothing"})
    model = Holder(one, other=other, loss=nn.Linear(1, 1))
    found = layers(model, "timm")
    assert (3, 3, "model") == found["model.head.weight"][:3]
    assert (0, 3, "other") == found["other.stem.inner.stem.weight"][:3]
    assert found["loss.weight"] is None


def test_a_parameter_tied_between_towers_belongs_to_the_first():
    """One row, one layer."""
    one, other = Matched(MATCHER), Matched(MATCHER)
    other.head.weight = one.stem.weight
    found = layers(Holder(one, other=other), "timm")
    assert (0, 3, "model") == found["model.stem.weight"][:3]
    assert "other.head.weight" not in found


def test_timm_without_a_matcher_names_the_ways_out():
    """``auto`` first, timm's own fallback second."""
    message = r"Neither Linear nor .* group_matcher.*depth\.auto\(\).*fallback=True\)"
    with pytest.raises(nnlr.NnlrError, match=message):
        layers(nn.Linear(1, 1), "timm")


@pytest.mark.parametrize("fallback", [False, True])
def test_timm_needs_a_model_to_ask(fallback):
    """Names and tensors bring no matcher; other indexers read names."""
    tensors = dict(nn.Linear(1, 1).named_parameters())
    message = r"^timm\(.*\) reads the group_matcher of a model, and tensors have none\."
    with pytest.raises(nnlr.NnlrError, match=message):
        layers(tensors, nnlr.depth.timm(fallback=fallback))


def test_a_matcher_that_says_nothing_is_an_error():
    """All in one layer: timm goes on with a warning, nnlr does not."""
    flat = Matched({"stem": r"^no"})
    with pytest.raises(nnlr.NnlrError, match="of Matched puts all of its parameters"):
        layers(flat, "timm")
    message = r"group_matcher of Holder\.other puts .* into one layer"
    with pytest.raises(nnlr.NnlrError, match=message):
        layers(Holder(Matched(MATCHER), other=flat), "timm")


class Classifier(nn.Module):
    """A model without a matcher, of so many parameters below the head."""

    def __init__(self, count, classifier):
        super().__init__()
        self.trunk = nn.ParameterList(torch.zeros(1) for _ in range(count))
        self.head = nn.Linear(1, 1)
        self.aux = nn.Linear(1, 1)
        self.pretrained_cfg = {"classifier": classifier}


@pytest.mark.parametrize(
    ("classifier", "in_head"), [("head", ("head",)), (("head", "aux"), ("head", "aux"))]
)
def test_timms_fallback_counts_twelve_parameters_a_layer(classifier, in_head):
    """As ``auto_group_layers``: the names of the trunk in dozens, the head on top."""
    model = Classifier(25, classifier)
    found, last = depths(model, nnlr.depth.timm(fallback=True))
    names = [name for name, _ in model.named_parameters()]
    trunk = [name for name in names if not name.startswith(in_head)]
    expected = {name: index // 12 for index, name in enumerate(trunk)}
    expected |= {name: 3 for name in names if name.startswith(in_head)}
    assert (expected, 3) == (found, last)


def test_timms_fallback_works_below_a_wrapper_and_keeps_matchers_first():
    """The classifier is looked for in the outermost module that names one."""
    held = Holder(Classifier(13, "head"), other=nn.Linear(1, 1))
    held.model.trunk.pretrained_cfg = {"classifier": "0"}
    found = layers(held, nnlr.depth.timm(fallback=True))
    assert (1, 2, "model") == found["model.trunk.12"][:3]
    assert (2, 2, "model") == found["model.head.weight"][:3]
    assert found["other.weight"] is None
    with_matcher = depths(Matched(MATCHER), nnlr.depth.timm(fallback=True))
    assert depths(Matched(MATCHER), "timm") == with_matcher


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(1, 1),
        Classifier(13, None),
        Classifier(13, ""),
    ],
)
def test_timms_fallback_needs_the_name_of_the_head(model):
    """Without it all would be head: timm goes on, nnlr does not."""
    with pytest.raises(nnlr.NnlrError, match="the name of a classifier, which timm's"):
        layers(model, nnlr.depth.timm(fallback=True))
