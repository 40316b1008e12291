"""blockwise: rates by kind of block, against hand-written lists for real models."""

import re

import pytest
import torch
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr.schemes import blockwise
from nnlr.schemes._transformer_blocks import BLOCKS, PROJECTIONS, classify
from nnlr.testing import SchemeLaws

LR, WD = 1e-3, 0.1


def resolve(model, *schemes, **settings):
    """A plan at the base rates of these tests."""
    return nnlr.resolve(model, *schemes, lr=LR, weight_decay=WD, **settings)


class Attention(nn.Module):
    """An attention whose projections bear the names given."""

    def __init__(self, *names, width=8):
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(width, width))


def gpt(*projections, ffn="mlp", tied=True):
    """A language model of two blocks, whose attention has the projections given."""
    model = nn.Module()
    model.wte = nn.Embedding(20, 8)
    model.wpe = nn.Embedding(16, 8)
    model.h = nn.ModuleList()
    for _ in range(2):
        block = nn.Module()
        block.ln_1 = nn.LayerNorm(8)
        block.attn = Attention(*projections)
        block.ln_2 = nn.LayerNorm(8)
        block.add_module(ffn, nn.ModuleDict({"up": nn.Linear(8, 16), "down": nn.Linear(16, 8)}))
        model.h.append(block)
    model.ln_f = nn.LayerNorm(8)
    model.lm_head = nn.Linear(8, 20, bias=False)
    if tied:
        model.lm_head.weight = model.wte.weight
    return model


SPLIT = ("q_attn", "k_attn", "v_attn", "c_proj")


class TestBlockwiseLaws(SchemeLaws):
    """Blockwise rates keep the laws of schemes."""

    def schemes(self):
        """The defaults, other ratios, and a map of blocks."""
        return [
            blockwise(),
            blockwise(qk=3, norm=0, fused=0.7, head=2),
            blockwise(blocks={"*": "qk"}),
        ]

    def models(self):
        """Models with an attention."""
        frozen = nn.TransformerEncoderLayer(8, 2, 16)
        frozen.linear1.requires_grad_(False)
        return [gpt(*SPLIT), gpt("qkv", "proj", tied=False), frozen]


def expected_in_gpt(name):
    """The groups of the authors' GPT-2 script, which go by parts of names."""
    for part, ratio in (
        ("wte", 10),
        ("wpe", 1),
        ("ln", 1),
        ("q_attn", 8),
        ("k_attn", 8),
        ("v_attn", 4),
        ("attn.c_proj", 4),
        ("mlp", 6),
    ):
        if part in name:
            return ratio
    raise AssertionError(name)


def test_equal_to_the_authors_gpt_2():
    """With split projections and a tied head, biases included, as their script groups."""
    plan = resolve(gpt(*SPLIT), blockwise())
    assert {row.name: expected_in_gpt(row.name) for row in plan} == {
        row.name: row.lr_mult for row in plan
    }
    assert {1.0} == {row.wd_mult for row in plan}


def llama(**sizes):
    """A small LLaMA on the meta device."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**COMMON, intermediate_size=96, vocab_size=100, **sizes)
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(config)


COMMON = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}


def test_equal_to_the_authors_llama():
    """As their script groups; the head at the base rate unless told, 10 as others have it."""
    parts = {
        "embed": 10,
        "norm": 1,
        "q_proj": 8,
        "k_proj": 8,
        "v_proj": 4,
        "o_proj": 4,
        "mlp": 6,
    }
    for given, head in ((blockwise(), 1), (blockwise(head=10), 10)):
        plan = resolve(llama(), given)
        for row in plan:
            (expected,) = [
                ratio for part, ratio in {**parts, "lm_head": head}.items() if part in row.name
            ]
            assert expected == row.lr_mult, row.name


# Name, numbers as N -> kind of block; written by hand from what the layers do.
EXPECTED = {
    "llama": {
        "model.embed_tokens.weight": "embedding",
        "model.layers.N.self_attn.q_proj.weight": "qk",
        "model.layers.N.self_attn.k_proj.weight": "qk",
        "model.layers.N.self_attn.v_proj.weight": "vo",
        "model.layers.N.self_attn.o_proj.weight": "vo",
        "model.layers.N.mlp.gate_proj.weight": "ffn",
        "model.layers.N.mlp.up_proj.weight": "ffn",
        "model.layers.N.mlp.down_proj.weight": "ffn",
        "model.layers.N.input_layernorm.weight": "norm",
        "model.layers.N.post_attention_layernorm.weight": "norm",
        "model.norm.weight": "norm",
        "lm_head.weight": "head",
    },
    "gpt2": {
        "transformer.wte.weight": "embedding",
        "transformer.wpe.weight": "position",
        "transformer.h.N.ln_1": "norm",
        "transformer.h.N.attn.c_attn": "fused",
        "transformer.h.N.attn.c_proj": "vo",
        "transformer.h.N.ln_2": "norm",
        "transformer.h.N.mlp.c_fc": "ffn",
        "transformer.h.N.mlp.c_proj": "ffn",
        "transformer.ln_f": "norm",
    },
    "bert": {
        "bert.embeddings.word_embeddings.weight": "embedding",
        "bert.embeddings.position_embeddings.weight": "position",
        "bert.embeddings.token_type_embeddings.weight": "embedding",
        "bert.embeddings.LayerNorm": "norm",
        "bert.encoder.layer.N.attention.self.query": "qk",
        "bert.encoder.layer.N.attention.self.key": "qk",
        "bert.encoder.layer.N.attention.self.value": "vo",
        "bert.encoder.layer.N.attention.output.dense": "vo",
        "bert.encoder.layer.N.attention.output.LayerNorm": "norm",
        "bert.encoder.layer.N.intermediate.dense": "ffn",
        "bert.encoder.layer.N.output.dense": "ffn",
        "bert.encoder.layer.N.output.LayerNorm": "norm",
        "cls.predictions.bias": "embedding",  # of the tied output layer
        "cls.predictions.transform.dense": "other",
        "cls.predictions.transform.LayerNorm": "norm",
    },
    "vit": {
        "vit.embeddings.cls_token": "other",
        "vit.embeddings.position_embeddings": "position",
        "vit.embeddings.patch_embeddings.projection": "other",
        "vit.layers.N.attention.q_proj": "qk",
        "vit.layers.N.attention.k_proj": "qk",
        "vit.layers.N.attention.v_proj": "vo",
        "vit.layers.N.attention.o_proj": "vo",
        "vit.layers.N.layernorm_before": "norm",
        "vit.layers.N.layernorm_after": "norm",
        "vit.layers.N.mlp.fc1": "ffn",
        "vit.layers.N.mlp.fc2": "ffn",
        "vit.layernorm": "norm",
        "classifier": "head",
    },
    "mixtral": {
        "model.embed_tokens.weight": "embedding",
        "model.layers.N.self_attn.q_proj.weight": "qk",
        "model.layers.N.self_attn.k_proj.weight": "qk",
        "model.layers.N.self_attn.v_proj.weight": "vo",
        "model.layers.N.self_attn.o_proj.weight": "vo",
        "model.layers.N.mlp.gate.weight": "other",
        "model.layers.N.mlp.experts.gate_up_proj": "ffn",
        "model.layers.N.mlp.experts.down_proj": "ffn",
        "model.layers.N.input_layernorm.weight": "norm",
        "model.layers.N.post_attention_layernorm.weight": "norm",
        "model.norm.weight": "norm",
        "lm_head.weight": "head",
    },
    "t5": {
        "shared.weight": "embedding",
        **{
            f"{side}.block.N.layer.N.SelfAttention.{name}.weight": block
            for side in ("encoder", "decoder")
            for name, block in {
                "q": "qk",
                "k": "qk",
                "v": "vo",
                "o": "vo",
                "relative_attention_bias": "position",
            }.items()
        },
        **{
            f"decoder.block.N.layer.N.EncDecAttention.{name}.weight": block
            for name, block in {"q": "qk", "k": "qk", "v": "vo", "o": "vo"}.items()
        },
        **{
            f"{side}.{name}.weight": block
            for side in ("encoder", "decoder")
            for name, block in {
                "block.N.layer.N.layer_norm": "norm",
                "block.N.layer.N.DenseReluDense.wi": "ffn",
                "block.N.layer.N.DenseReluDense.wo": "ffn",
                "final_layer_norm": "norm",
            }.items()
        },
    },
    "deepseek": {
        "model.embed_tokens.weight": "embedding",
        "model.layers.N.self_attn.q_a_proj.weight": "qk",
        "model.layers.N.self_attn.q_a_layernorm.weight": "norm",
        "model.layers.N.self_attn.q_b_proj.weight": "qk",
        "model.layers.N.self_attn.kv_a_proj_with_mqa.weight": "fused",
        "model.layers.N.self_attn.kv_a_layernorm.weight": "norm",
        "model.layers.N.self_attn.kv_b_proj.weight": "fused",
        "model.layers.N.self_attn.o_proj.weight": "vo",
        **{
            f"model.layers.N.mlp.{part}{name}_proj.weight": "ffn"
            for part in ("", "shared_experts.")
            for name in ("gate", "up", "down")
        },
        "model.layers.N.mlp.experts.gate_up_proj": "ffn",
        "model.layers.N.mlp.experts.down_proj": "ffn",
        "model.layers.N.mlp.gate.weight": "other",
        "model.layers.N.input_layernorm.weight": "norm",
        "model.layers.N.post_attention_layernorm.weight": "norm",
        "model.norm.weight": "norm",
        "lm_head.weight": "head",
    },
    "timm_vit": {
        "cls_token": "other",
        "pos_embed": "position",
        "patch_embed.proj": "other",
        "blocks.N.norm1": "norm",
        "blocks.N.attn.qkv": "fused",
        "blocks.N.attn.proj": "vo",
        "blocks.N.norm2": "norm",
        "blocks.N.mlp.fc1": "ffn",
        "blocks.N.mlp.fc2": "ffn",
        "norm": "norm",
        "head": "head",
    },
    "timm_swin": {
        "patch_embed.proj": "other",
        "patch_embed.norm": "norm",
        "layers.N.blocks.N.norm1": "norm",
        "layers.N.blocks.N.attn.relative_position_bias_table": "position",
        "layers.N.blocks.N.attn.qkv": "fused",
        "layers.N.blocks.N.attn.proj": "vo",
        "layers.N.blocks.N.norm2": "norm",
        "layers.N.blocks.N.mlp.fc1": "ffn",
        "layers.N.blocks.N.mlp.fc2": "ffn",
        "layers.N.downsample.norm": "norm",
        "layers.N.downsample.reduction.weight": "other",
        "norm": "norm",
        "head.fc": "head",
    },
    "jamba": {
        "model.embed_tokens.weight": "embedding",
        "model.layers.N.mamba.A_log": "other",
        "model.layers.N.mamba.D": "other",
        "model.layers.N.mamba.conv1d": "other",
        "model.layers.N.mamba.in_proj.weight": "other",
        "model.layers.N.mamba.x_proj.weight": "other",
        "model.layers.N.mamba.dt_proj": "other",
        "model.layers.N.mamba.out_proj.weight": "other",
        "model.layers.N.mamba.dt_layernorm.weight": "norm",
        "model.layers.N.mamba.b_layernorm.weight": "norm",
        "model.layers.N.mamba.c_layernorm.weight": "norm",
        "model.layers.N.self_attn.q_proj.weight": "qk",
        "model.layers.N.self_attn.k_proj.weight": "qk",
        "model.layers.N.self_attn.v_proj.weight": "vo",
        "model.layers.N.self_attn.o_proj.weight": "vo",
        "model.layers.N.feed_forward.gate_proj.weight": "ffn",
        "model.layers.N.feed_forward.up_proj.weight": "ffn",
        "model.layers.N.feed_forward.down_proj.weight": "ffn",
        "model.layers.N.feed_forward.router.weight": "other",
        "model.layers.N.feed_forward.experts.gate_up_proj": "ffn",
        "model.layers.N.feed_forward.experts.down_proj": "ffn",
        "model.layers.N.input_layernorm.weight": "norm",
        "model.layers.N.pre_ff_layernorm.weight": "norm",
        "model.final_layernorm.weight": "norm",
        "lm_head.weight": "head",
    },
}


def real(name):
    """A small model of a kind, on the meta device."""
    if name.startswith("timm"):
        timm = pytest.importorskip("timm")
        names = {
            "timm_vit": "vit_tiny_patch16_224",
            "timm_swin": "swin_tiny_patch4_window7_224",
        }
        with torch.device("meta"):
            return timm.create_model(names[name])
    if name == "llama":
        return llama()
    transformers = pytest.importorskip("transformers")
    words = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    ffn = {"intermediate_size": 96}
    cls, config = {
        "gpt2": (
            "GPT2LMHeadModel",
            lambda t: t.GPT2Config(n_layer=2, n_embd=64, n_head=4, **words),
        ),
        "bert": ("BertForMaskedLM", lambda t: t.BertConfig(**COMMON, **ffn, **words)),
        "vit": ("ViTForImageClassification", lambda t: t.ViTConfig(**COMMON, **ffn)),
        "mixtral": (
            "MixtralForCausalLM",
            lambda t: t.MixtralConfig(**COMMON, **ffn, **words, num_local_experts=4),
        ),
        "t5": (
            "T5ForConditionalGeneration",
            lambda t: t.T5Config(
                num_layers=2, d_model=64, d_ff=96, num_heads=4, d_kv=16, vocab_size=100
            ),
        ),
        "deepseek": (
            "DeepseekV3ForCausalLM",
            lambda t: t.DeepseekV3Config(
                **(COMMON | {"num_hidden_layers": 4}),
                **ffn,
                **words,
                moe_intermediate_size=32,
                num_key_value_heads=4,
                n_routed_experts=8,
            ),
        ),
        "jamba": (
            "JambaForCausalLM",
            lambda t: t.JambaConfig(
                **(COMMON | {"num_hidden_layers": 8}),
                **ffn,
                **words,
                num_experts=4,
                num_key_value_heads=4,
                use_mamba_kernels=False,
            ),
        ),
    }[name]
    with torch.device("meta"):
        return getattr(transformers, cls)(config(transformers))


def kind_by_hand(name, expected):
    """The entry of a hand-written list for a parameter: its name, or its layer's."""
    name = re.sub(r"(?<=\.)\d+(?=\.)", "N", name)
    return expected.get(name) or expected[name.rpartition(".")[0]]


@pytest.mark.parametrize("name", EXPECTED)
def test_every_parameter_of_real_models_is_in_its_block(name):
    """As written by hand; and every line of the list is used."""
    info = describe(real(name))
    expected = EXPECTED[name]
    assert {p.name: kind_by_hand(p.name, expected) for p in info.params} == dict(
        zip([p.name for p in info.params], classify(info), strict=True)
    )
    seen = {re.sub(r"(?<=\.)\d+(?=\.)", "N", p.name) for p in info.params}
    layers = {name.rpartition(".")[0] for name in seen}
    assert set() == expected.keys() - seen - layers


@pytest.mark.parametrize("name", ["llama", "mixtral", "timm_vit"])
def test_names_alone_are_enough(name):
    """Bare tensors, without modules, get the same blocks."""
    model = real(name)
    tensors = {key: tensor.detach() for key, tensor in model.named_parameters()}
    assert classify(describe(model)) == classify(describe(tensors))


def kinds(model):
    """Parameter -> kind of block."""
    info = describe(model)
    return dict(zip([p.name for p in info.params], classify(info), strict=True))


def test_every_name_of_the_table():
    """Spellings of projections, of libraries and papers."""
    spelled = {
        "qk": "q k query key wq wk to_q to_k q_proj k_proj query_proj q_lin linear_k "
        "W_q q_a_proj pos_key_proj query_layer key_global qk q_head k_head",
        "vo": "v value wv to_v v_proj o wo out_proj o_proj out_lin proj c_proj dense "
        "linear_proj to_out attn_out value_layer output v_head post_proj "
        "projection resid_proj",
        "fused": "qkv Wqkv qkv_proj c_attn query_key_value linear_qkv kv to_kv "
        "key_value att_proj in_proj W_pack qkvo",
        "other": "gate r relation linear_pos queue kernel",
    }
    for block, names in spelled.items():
        found = kinds(gpt(*names.split()))
        for name in names.split():
            assert block == found[f"h.0.attn.{name}.weight"], name
            assert block == found[f"h.1.attn.{name}.bias"], name
    assert {"qk", "vo", "fused"} == {row.block for row in PROJECTIONS}


def test_raw_parameters_of_torch_s_attention():
    """Packed and separate projections; learned key and value biases go with them."""
    packed = kinds(nn.MultiheadAttention(8, 2, add_bias_kv=True))
    assert {
        "in_proj_weight": "fused",
        "in_proj_bias": "fused",
        "bias_k": "fused",
        "bias_v": "fused",
        "out_proj.weight": "vo",
        "out_proj.bias": "vo",
    } == packed
    apart = kinds(nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True))
    assert ("qk", "qk", "vo", "fused") == tuple(
        apart[f"{name}"]
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias")
    )
    assert apart["bias_k"] == "other"  # its owner holds several kinds


def test_an_attention_without_a_telling_name_is_known_by_its_parts():
    """Query, key and value side by side are an attention, whatever holds them."""
    found = kinds(nn.ModuleDict({"mix": Attention("q", "k", "v", "o", "r")}))
    assert ["qk", "qk", "vo", "vo", "other"] == [found[f"mix.{name}.weight"] for name in "qkvor"]
    for parts in ("q", "qk"):
        mix = nn.ModuleDict({part: nn.Linear(4, 4) for part in parts})
        assert {"other"} == set(kinds(nn.ModuleDict({"mix": mix})).values())


def test_numbers_in_the_path_of_a_projection_are_skipped():
    """``to_out.0``, as in diffusers, is the output projection."""
    model = gpt("to_q", "to_k", "to_v")
    for block in model.h:
        block.attn.to_out = nn.Sequential(nn.Linear(8, 8))
    assert kinds(model)["h.0.attn.to_out.0.weight"] == "vo"


def test_a_whole_block_that_is_called_attention_has_a_feed_forward_part():
    """What is called so below it is none of its projections, and no convolution either."""
    model = gpt("qkv", "proj")
    for block in model.h:
        block.attn_block = nn.ModuleDict(
            {
                "attn": Attention("qkv", "proj"),
                "mlp": nn.ModuleDict({"fc": nn.Linear(8, 8), "proj": nn.Linear(8, 8)}),
                "fc1": nn.Linear(8, 8),
            }
        )
        block.se = nn.ModuleDict({"fc1": nn.Conv2d(8, 8, 1)})
    found = kinds(model)
    inside = {
        name.removeprefix("h.0.attn_block."): block
        for name, block in found.items()
        if name.startswith("h.0.attn_block.") and name.endswith("weight")
    }
    assert {
        "attn.qkv.weight": "fused",
        "attn.proj.weight": "vo",
        "mlp.fc.weight": "ffn",
        "mlp.proj.weight": "ffn",
        "fc1.weight": "ffn",
    } == inside
    assert found["h.0.se.fc1.weight"] == "other"


def test_what_stands_beside_an_attention_is_feed_forward():
    """In the same numbered block, whatever its name; outside of blocks it is unknown."""
    model = gpt(*SPLIT, ffn="blorp")
    model.pooler = nn.Linear(8, 8)
    found = kinds(model)
    assert found["h.1.blorp.up.weight"] == "ffn"
    assert found["h.1.blorp.up.bias"] == "ffn"
    assert found["pooler.weight"] == found["pooler.bias"] == "other"


def test_a_list_that_is_called_attention_is_none():
    """Of ``attention_layers`` each item may be a whole block."""
    for name in ("attention_layers", "attn_blocks"):
        found = kinds(nn.ModuleDict({name: gpt(*SPLIT, ffn="blorp").h}))
        assert found[f"{name}.0.attn.q_attn.weight"] == "qk"
        assert found[f"{name}.0.blorp.up.weight"] == "ffn"


def test_a_state_space_layer_beside_an_attention_is_no_feed_forward():
    """Hybrid blocks run both in parallel, as in Falcon-H1 and Hymba."""
    model = gpt(*SPLIT, ffn="blorp")
    for block in model.h:
        block.mamba = nn.ModuleDict({"in_proj": nn.Linear(8, 8)})
        block.mamba.register_parameter("A_log", nn.Parameter(torch.zeros(8)))
    found = kinds(model)
    assert found["h.0.mamba.in_proj.weight"] == "other"
    assert found["h.0.blorp.up.weight"] == "ffn"
    model.h[1].register_parameter("A_log", nn.Parameter(torch.zeros(8)))
    assert kinds(model)["h.1.blorp.up.weight"] == "ffn"  # the state is the block's own


def test_a_bias_goes_with_its_matrix_though_a_norm_is_beside():
    """Fused layers hold the norm before them as well."""
    model = gpt(*SPLIT)
    model.h[0].mlp["up"].layer_norm_weight = nn.Parameter(torch.ones(8))
    plan = resolve(model, blockwise(), roles={"*.layer_norm_weight": "norm"})
    assert plan["h.0.mlp.up.layer_norm_weight"].lr_mult == 1
    assert plan["h.0.mlp.up.bias"].lr_mult == 6


def test_ratios_by_argument():
    """Each argument moves its own blocks."""
    model = gpt(*SPLIT, tied=False)
    found = kinds(model)
    for block in set(found.values()):
        base, plan = (
            resolve(model, blockwise()),
            resolve(model, blockwise(**{block: 33})),
        )
        for row in plan:
            same = base[row.name].lr_mult
            assert (33 if found[row.name] == block else same) == row.lr_mult


@pytest.mark.parametrize(
    ("given", "ratio"),
    [({}, 4), ({"qk": 2}, 2), ({"vo": 9}, 8), ({"fused": 5}, 5), ({"fused": 0}, 0)],
)
def test_fused_projections_get_the_smaller_ratio(given, ratio):
    """What is safe for every part of the tensor, unless given."""
    plan = resolve(gpt("qkv", "proj"), blockwise(**given))
    assert ratio == plan["h.0.attn.qkv.weight"].lr_mult


def test_blocks_overrules_names():
    """The first entry that matches counts, and biases are named like all else."""
    scheme = blockwise(
        blocks={
            "h.0.attn.gate.*": "vo",
            nnlr.regex(r".*gate.*"): "ffn",
            "wpe.*": "norm",
        }
    )
    model = gpt(*SPLIT, "gate")
    plan = resolve(model, scheme)
    assert plan["h.0.attn.gate.bias"].lr_mult == 4
    assert plan["h.1.attn.gate.weight"].lr_mult == 6
    assert resolve(model, blockwise())["h.1.attn.gate.weight"].lr_mult == 1


def test_blocks_can_name_the_only_attention():
    """A transformer under names of its own is one as soon as it is said so."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    plan = resolve(model, blockwise(blocks={"0.weight": "qk", "0.bias": "other"}))
    assert [8.0, 1.0, 1.0, 1.0] == [row.lr_mult for row in plan]


def test_findings_name_what_is_fused_unknown_and_experimental():
    """All three are notes; what is frozen is not named."""
    model = gpt("qkv", "proj", "gate")
    model.h[1].attn.requires_grad_(False)
    found = {finding.kind: finding for finding in resolve(model, blockwise()).findings}
    assert [
        "blockwise-experimental",
        "blockwise-fused",
        "blockwise-other",
    ] == list(found)
    qkv = ("h.0.attn.qkv.weight", "h.0.attn.qkv.bias")
    assert qkv == found["blockwise-fused"].names
    assert ("h.0.attn.gate.weight", "h.0.attn.gate.bias") == found["blockwise-other"].names
    assert {"note"} == {finding.severity for finding in found.values()}
    assert "2502.19002" in str(found["blockwise-experimental"])
    assert "2605.22297" in str(found["blockwise-experimental"])


def test_nothing_to_point_out_is_not_pointed_out():
    """Split projections and no unknown layer: only that it is experimental."""
    found = resolve(gpt(*SPLIT), blockwise()).findings
    assert ["blockwise-experimental"] == [finding.kind for finding in found]


def test_adapters_of_a_frozen_attention_keep_the_base_rate():
    """LoRA's matrices are no block of the paper's: listed, and the experimental note too."""
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        llama().to_empty(device="cpu"),
        peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    plan = resolve(model, blockwise())
    found = {finding.kind: finding for finding in plan.findings}
    assert ["blockwise-experimental", "blockwise-other"] == list(found)
    assert {row.name for row in plan if row.trainable} == set(found["blockwise-other"].names)
    assert {1.0} == {row.lr_mult for row in plan if row.trainable}


def test_the_trace_says_the_kind_of_block():
    """One phrase for each kind."""
    plan = resolve(gpt(*SPLIT), blockwise())
    assert "query and key" in plan.explain("h.0.attn.k_attn.weight")
    assert "feed-forward" in plan.explain("h.0.mlp.up.bias")


@pytest.mark.parametrize("name", [block for block in BLOCKS if block != "other"])
def test_every_ratio_has_a_range(name):
    """Finite and >= 0."""
    with pytest.raises(nnlr.NnlrError, match=f"{name} must be a finite number >= 0"):
        blockwise(**{name: -1})


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        (["a"], nnlr.NnlrError, "blocks must be a mapping"),
        ({"*": "q"}, nnlr.NnlrError, r"blocks\['\*'\] must be one of 'embedding'"),
        ({3: "qk"}, nnlr.NnlrError, "blocks needs a selector"),
        ({"*.attnn.*": "qk"}, nnlr.PatternError, r"Nearest: '\*.attn.\*'"),
        ({"*": "qk", "wte.*": "vo"}, nnlr.PatternError, r"\['wte.\*'\] has no effect"),
    ],
)
def test_bad_maps_of_blocks_are_refused(blocks, error, message):
    """At the call, or at resolve if a pattern matches nothing."""
    with pytest.raises(error, match=message):
        resolve(gpt(*SPLIT), blockwise(blocks=blocks))


def test_a_model_without_attention_is_refused():
    """A convolutional network would get nothing but a faster or slower norm."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with pytest.raises(nnlr.NnlrError, match="finds no attention in Sequential"):
        resolve(model, blockwise())


def test_the_repr_is_the_call():
    """Defaults are left out."""
    for text in (
        "blockwise()",
        "blockwise(qk=2.0, fused=3.0, blocks={'*.x': 'ffn'})",
    ):
        assert text == repr(eval(text, {"blockwise": blockwise}))  # noqa: S307
