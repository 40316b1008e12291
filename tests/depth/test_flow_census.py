"""Depth by one forward on models of timm and transformers, against what others say of them."""

import functools
import warnings

import pytest
import torch

import nnlr
from nnlr._model.describe import describe
from nnlr.depth import flow

full = pytest.mark.full

# A small model of each of timm's families with a matcher -> how many of 1000 pairs of its
# parameters are in the opposite order, at most. Where that is not 0, a class token joins late
# (cait, convit, volo, xcit), or branches of blocks run side by side (hrnet).
FAMILIES = {
    **dict.fromkeys(
        [
            *("beit_base_patch16_224", "resnet18", "coat_tiny", "convmixer_768_32"),
            *("convnext_tiny", "crossvit_9_240", "cspresnet50", "davit_tiny"),
            *("deit_tiny_patch16_224", "densenet121", "dla34", "dpn68", "edgenext_small"),
            *("efficientformer_l1", "efficientformerv2_s0", "efficientnet_b0"),
            *("efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224"),
            *("fasternet_t0", "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny"),
            *("ghostnet_100", "hgnet_tiny", "hiera_tiny_224", "inception_next_tiny"),
            *("inception_resnet_v2", "inception_v3", "inception_v4", "levit_128s"),
            *("mambaout_femto", "maxvit_tiny_rw_224", "mixer_s32_224"),
            *("mobilenetv3_small_100", "mvitv2_tiny", "nest_tiny", "nextvit_small"),
            *("dm_nfnet_f0", "pnasnet5large", "pvt_v2_b0", "rdnet_tiny", "regnety_002"),
            *("repghostnet_100", "repvit_m1", "resnetv2_50", "rexnet_100", "selecsls42"),
            *("seresnet50", "sequencer2d_s", "swin_tiny_patch4_window7_224"),
            *("swinv2_tiny_window8_256", "tiny_vit_5m_224", "tnt_s_patch16_224"),
            *("twins_pcpvt_small", "vgg11_bn", "visformer_tiny", "vit_tiny_patch16_224"),
            *("ese_vovnet19b_dw", "xception41", "nasnetalarge"),
        ],
        0,
    ),
    "cait_xxs24_224": 7,
    "convit_tiny": 10,
    "volo_d1_224": 9,
    "xcit_nano_12_p16_224": 5,
    "hrnet_w18_small": 15,
    "nasnetalarge": 38,
}

# Families of which every multiplier is equal to timm's, at least.
IDENTICAL = {
    *("resnet18", "convmixer_768_32", "convnext_tiny", "crossvit_9_240", "davit_tiny"),
    *("deit_tiny_patch16_224", "dpn68", "gcvit_xxtiny", "hiera_tiny_224", "mixer_s32_224"),
    *("mobilenetv3_small_100", "nextvit_small", "regnety_002", "repvit_m1", "resnetv2_50"),
    *("seresnet50", "sequencer2d_s", "swin_tiny_patch4_window7_224", "tiny_vit_5m_224"),
    *("swinv2_tiny_window8_256", "tnt_s_patch16_224", "vit_tiny_patch16_224", "xception41"),
}


def from_timm(name):
    """A model of timm on meta in eval mode, and an example."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
    return model.eval(), torch.zeros(1, *model.default_cfg["input_size"])


def compared(layers, reference):
    """Of 1000 pairs of parameters, how many are related alike, and how many oppositely."""
    pairs = [(a.below, b.below) for a, b in zip(layers, reference, strict=True) if a and b]
    ours, theirs = torch.tensor(pairs).T
    ours = (ours[:, None] - ours).sign()
    theirs = (theirs[:, None] - theirs).sign()
    once = torch.ones_like(ours).tril(-1).bool()
    alike = (ours == theirs)[once].double().mean()
    opposite = (ours * theirs < 0)[once].double().mean()
    return float(1000 * alike), float(1000 * opposite)


@functools.cache
def readings(name):
    """How pairs of parameters are related, and whether all exponents are equal."""
    model, example = from_timm(name)
    info = describe(model)
    layers = flow(example, fake=True).layers(info)
    theirs = nnlr.depth.timm().layers(info)
    equal = [a and a.below for a in layers] == [b.below for b in theirs]
    return compared(layers, theirs), equal


class TestAgainstTimm:
    @pytest.mark.parametrize(
        "name",
        [name if name == "resnet18" else pytest.param(name, marks=full) for name in FAMILIES],
    )
    def test_order(self, name):
        """No two parameters are in the opposite order, and most pairs are related alike."""
        (alike, opposite), identical = readings(name)
        assert opposite <= FAMILIES[name]
        assert alike >= 730
        assert identical or name not in IDENTICAL

    @full
    def test_all_together(self):
        """The numbers of the documentation."""
        results = [readings(name)[0] for name in FAMILIES]
        assert len(results) == 66
        assert sum(alike for alike, _ in results) / len(results) >= 959
        assert sum(opposite for _, opposite in results) / len(results) <= 0.7
        assert sum(identical for _, identical in map(readings, FAMILIES)) >= 27
        assert sum(not opposite for _, opposite in results) >= 61


def from_transformers(kind, head, **settings):
    """A small model with random weights, in eval mode."""
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(kind, **settings)
    cls = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")
    return cls.from_config(config).eval()


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 60,
}
ENCODER_DECODER = {
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "d_ff": 32,
    "vocab_size": 60,
}
TOKENS = torch.tensor([[5, 17, 3, 9, 21, 4]])
TEXT = {"input_ids": TOKENS}
PAIR = {"input_ids": TOKENS, "decoder_input_ids": TOKENS}
IMAGE = {"pixel_values": torch.zeros(1, 3, 32, 32)}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
del VISION["vocab_size"]

# Kind, head, settings and inputs of models that `auto` reads right.
TRANSFORMERS = {
    "bert": ("", SMALL, TEXT),
    "gpt2": ("CausalLM", {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 60}, TEXT),
    "mixtral": (
        "CausalLM",
        {**SMALL, "num_key_value_heads": 2, "num_local_experts": 4},
        TEXT,
    ),
    "llama": ("CausalLM", {**SMALL, "num_key_value_heads": 2}, TEXT),
    "qwen3": ("CausalLM", {**SMALL, "num_key_value_heads": 2, "head_dim": 8}, TEXT),
    "gpt_neox": ("CausalLM", SMALL, TEXT),
    "mamba": ("CausalLM", {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": 60}, TEXT),
    "t5": ("Seq2SeqLM", T5, PAIR),
    "whisper": (
        "SpeechSeq2Seq",
        {**ENCODER_DECODER, "vocab_size": 60, "num_mel_bins": 8, "max_source_positions": 16}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        {"input_features": torch.zeros(1, 8, 32), "decoder_input_ids": TOKENS},
    ),
    "vit": ("ImageClassification", VISION, IMAGE),
    "segformer": (
        "SemanticSegmentation",
        {"hidden_sizes": [8, 16, 16, 16], "num_attention_heads": [1, 2, 2, 2]}
        | {"decoder_hidden_size": 16},
        {"pixel_values": torch.zeros(1, 3, 64, 64)},
    ),
}

# Encoders that feed decoders which count for themselves: a note.
TOWERS = {"t5", "whisper"}


class TestAgainstAuto:
    @pytest.mark.parametrize(
        "kind",
        [
            kind if kind in {"bert", "gpt2", "mixtral"} else pytest.param(kind, marks=full)
            for kind in TRANSFORMERS
        ],
    )
    @pytest.mark.no_cover
    def test_transformers(self, kind):
        """Equal multipliers, where the order of registration is right; and check is silent."""
        head, settings, inputs = TRANSFORMERS[kind]
        with warnings.catch_warnings(action="ignore"):
            model = from_transformers(kind, head, **settings)
            plans = [
                nnlr.resolve(model, nnlr.layer_decay(0.5, indexer), lr=1, weight_decay=0)
                for indexer in (flow(**inputs), "auto")
            ]
        by_flow, by_auto = [{row.name: row.lr_mult for row in plan} for plan in plans]
        assert by_flow == by_auto
        for plan in plans:
            found = {f.kind for f in nnlr.check(plan, inputs=inputs)} - {"flow-real-forward"}
            assert found == ({"order-of-towers"} if kind in TOWERS else set())


class TestCheckIsSilent:
    @pytest.mark.parametrize(
        "name",
        [
            "resnet18",
            *(pytest.param(name, marks=full) for name in sorted(IDENTICAL - {"resnet18"})),
        ],
    )
    def test_timm(self, name):
        """On models whose matchers are right, and on the same plans by structure."""
        model, example = from_timm(name)
        for indexer in ("timm", "auto", flow(example)):
            plan = nnlr.resolve(model, nnlr.layer_decay(0.9, indexer), lr=1, weight_decay=0)
            assert "nothing found" == str(nnlr.check(plan, inputs=(example,)))
