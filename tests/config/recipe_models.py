# ruff: noqa: E501
"""Models of the architectures that published recipes are for, small and as published."""

import functools

import timm
import torch
import transformers
from torch import nn

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
}
IMAGE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}


class Tower(nn.Module):
    """A ViTDet as detectron2 has it: a backbone with a pyramid, and heads."""

    def __init__(self, width=16, depth=2, image=32):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.net = timm.models.vision_transformer.VisionTransformer(
            img_size=image, embed_dim=width, depth=depth, num_heads=2, num_classes=0
        )
        self.backbone.simfp_2 = nn.Sequential(nn.ConvTranspose2d(width, 8, 2), nn.LayerNorm(8))
        self.roi_heads = nn.Linear(8, 4)


class Gaussians(nn.Module):
    """A scene as gsplat has it."""

    def __init__(self, points=7):
        super().__init__()
        shapes = {"means": 3, "scales": 3, "quats": 4, "opacities": 1, "sh0": 3, "shN": 45}
        self.splats = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(points, size)) for name, size in shapes.items()}
        )


class S4Layer(nn.Module):
    """A diagonal S4: what sets time scales, and a projection."""

    def __init__(self, width=8):
        super().__init__()
        self.kernel = nn.Module()
        for name in ("log_dt", "log_A_real", "A_imag", "C"):
            self.kernel.register_parameter(name, nn.Parameter(torch.zeros(width, 4)))
        self.output_linear = nn.Linear(width, width)


class S4Model(nn.Module):
    """Layers of S4 between an encoder and a decoder."""

    def __init__(self, width=8, depth=2):
        super().__init__()
        self.encoder = nn.Linear(3, width)
        self.layers = nn.ModuleList(S4Layer(width) for _ in range(depth))
        self.decoder = nn.Linear(width, 10)


class FTTransformer(nn.Module):
    """The parts of rtdl_revisiting_models' class of this name."""

    def __init__(self, width=8, depth=2):
        super().__init__()
        self.cls_embedding = nn.Embedding(1, width)
        self.cont_embeddings = nn.Module()
        self.cont_embeddings.weight = nn.Parameter(torch.zeros(4, width))
        self.backbone = nn.Module()
        self.backbone.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attention": nn.Linear(width, width),
                    "ffn_normalization": nn.LayerNorm(width),
                    "ffn": nn.Linear(width, width),
                }
            )
            for _ in range(depth)
        )
        self.backbone.output = nn.ModuleDict(
            {"normalization": nn.LayerNorm(width), "linear": nn.Linear(width, 1)}
        )


class Reviews(nn.Module):
    """An AWD-LSTM below a classifier, by fastai's names."""

    def __init__(self, width=8):
        super().__init__()
        self.encoder = nn.Embedding(20, width)
        self.rnns = nn.ModuleList(nn.LSTM(width, width) for _ in range(3))
        self.head = nn.Linear(width, 2)


class Chat(nn.Module):
    """A GPT by nanochat's names."""

    def __init__(self, width=32, depth=2):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(64, width),
                "h": nn.ModuleList(
                    nn.ModuleDict(
                        {
                            "attn": nn.ModuleDict(
                                {
                                    key: nn.Linear(width, width, bias=False)
                                    for key in ("c_q", "c_k", "c_v", "c_proj")
                                }
                            ),
                            "mlp": nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width, bias=False)}),
                        }
                    )
                    for _ in range(depth)
                ),
            }
        )
        self.lm_head = nn.Linear(width, 64, bias=False)


def adapted(model):
    """A model with low-rank adapters, and a projector as LLaVA has one."""
    import peft

    config = peft.LoraConfig(r=4, target_modules=["query", "value"])
    return peft.get_peft_model(model, config)


class Llava(nn.Module):
    """Adapters on a language model, beside a projector."""

    def __init__(self):
        super().__init__()
        self.language_model = adapted(of("BertModel", **TEXT))
        self.mm_projector = nn.Linear(8, 32)


def of(name, **settings):
    """A model of transformers with a configuration of its own class."""
    cls = getattr(transformers, name)
    return cls(cls.config_class(**settings))


def from_timm(name, **small):
    """A model of timm: small, or as it is."""
    return functools.partial(timm.create_model, name, **small)


def hf(name, **settings):
    """A model of transformers: small."""
    return functools.partial(of, name, **settings)


# By architecture, as small as its names allow.
SMALL = {
    "vit": from_timm("vit_tiny_patch16_224", depth=2, img_size=32),
    "mae": hf("ViTMAEForPreTraining", **IMAGE, intermediate_size=48, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_intermediate_size=48, decoder_num_attention_heads=2),
    "beit": from_timm("beit_base_patch16_224", depth=2, embed_dim=48, num_heads=3, img_size=32),
    "deit": from_timm("deit_tiny_distilled_patch16_224", depth=2, img_size=32),
    "eva02": from_timm("eva02_tiny_patch14_224", depth=2, img_size=28),
    "dinov2": from_timm("vit_small_patch14_dinov2", depth=2, img_size=28, embed_dim=48, num_heads=3),
    "swin": from_timm("swin_tiny_patch4_window7_224", depths=(1, 1, 2, 1), embed_dim=24),
    "swinv2": from_timm("swinv2_tiny_window8_256", depths=(1, 1, 2, 1), embed_dim=24),
    "convnext": from_timm("convnext_tiny", depths=(1, 1, 3, 1), dims=(8, 8, 8, 8)),
    "convnextv2": from_timm("convnextv2_atto", depths=(1, 1, 3, 1), dims=(8, 8, 8, 8)),
    "videomae": hf("VideoMAEForVideoClassification", **IMAGE, intermediate_size=48),
    "clip-vision": hf("CLIPVisionModel", **IMAGE, intermediate_size=48),
    "vitdet": Tower,
    "detr": hf("DetrForObjectDetection", d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32),
    "deformable-detr": hf("DeformableDetrForObjectDetection", d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32),
    "mask2former": hf("Mask2FormerForUniversalSegmentation"),
    "upernet-swin": hf("UperNetForSemanticSegmentation", hidden_size=16, backbone_config=transformers.SwinConfig(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"])),
    "upernet-beit": hf("UperNetForSemanticSegmentation", hidden_size=16, backbone_config=transformers.BeitConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, out_features=["stage1", "stage2", "stage3", "stage4"])),
    "segformer": hf("SegformerForSemanticSegmentation", hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], depths=[1, 1, 1, 1]),
    "sam2": hf("Sam2Model"),
    "bert": hf("BertForSequenceClassification", **TEXT),
    "roberta": hf("RobertaForSequenceClassification", **TEXT),
    "electra": hf("ElectraForSequenceClassification", **TEXT),
    "deberta": hf("DebertaV2ForSequenceClassification", **TEXT),
    "xlnet": hf("XLNetForQuestionAnsweringSimple", d_model=32, n_layer=2, n_head=2, d_inner=32, vocab_size=64),
    "modernbert": hf("ModernBertForMaskedLM", **TEXT | {"pad_token_id": 0}),
    "awd-lstm": Reviews,
    "wav2vec2": hf("Wav2Vec2ForCTC", **TEXT),
    "hubert": hf("HubertForCTC", **TEXT),
    "data2vec-audio": hf("Data2VecAudioForCTC", **TEXT),
    "whisper": hf("WhisperForConditionalGeneration", d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=64, encoder_attention_heads=2, decoder_attention_heads=2, pad_token_id=0),
    "clip": hf("CLIPModel", text_config=TEXT, vision_config=IMAGE | {"intermediate_size": 48}),
    "llava": hf("LlavaForConditionalGeneration", text_config=transformers.LlamaConfig(**TEXT), vision_config=transformers.CLIPVisionConfig(**IMAGE, intermediate_size=48)),
    "internvl": hf("InternVLForConditionalGeneration", text_config=transformers.Qwen2Config(**TEXT, num_key_value_heads=2), vision_config=transformers.InternVLVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)),
    "lora": Llava,
    "gpt2": hf("GPT2LMHeadModel", n_embd=32, n_layer=2, n_head=2, vocab_size=64),
    "nanochat": Chat,
    "pythia": hf("GPTNeoXForCausalLM", **TEXT),
    "olmo2": hf("Olmo2ForCausalLM", **TEXT),
    "llama": hf("LlamaForCausalLM", **TEXT),
    "gaussians": Gaussians,
    "s4": S4Model,
    "ft-transformer": FTTransformer,
}  # fmt: skip


CLIP_L = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}  # fmt: skip

# By recipe, of the size that it was published for.
REAL = {
    "mae/vit-b/finetune": from_timm("vit_base_patch16_224"),
    "mae/vit-l/finetune": from_timm("vit_large_patch16_224"),
    "mae/vit-h/finetune": from_timm("vit_huge_patch14_224"),
    "mae/vit-l/pretrain": hf("ViTMAEForPreTraining", **CLIP_L),
    "beit/vit-b/finetune": from_timm("beit_base_patch16_224"),
    "beit/vit-l/finetune": from_timm("beit_large_patch16_224"),
    "beit/vit-b/finetune-22k": from_timm("beit_base_patch16_224"),
    "beit/vit-l/finetune-22k": from_timm("beit_large_patch16_224"),
    "beitv2/vit-b/finetune": from_timm("beitv2_base_patch16_224"),
    "beitv2/vit-l/finetune": from_timm("beitv2_large_patch16_224"),
    "simmim/vit-b/finetune": from_timm("vit_base_patch16_224"),
    "simmim/swin-b/finetune": from_timm("swin_base_patch4_window7_224"),
    "simmim/swinv2-b/finetune": from_timm("swinv2_base_window8_256"),
    "simmim/swin-b/pretrain": from_timm("swin_base_patch4_window7_224"),
    "deit/vit-b/train": from_timm("deit_base_patch16_224"),
    "deit3/vit-b/finetune": from_timm("deit3_base_patch16_224"),
    "swin/swin-t/train": from_timm("swin_tiny_patch4_window7_224"),
    "swin/swin-b/finetune-22k": from_timm("swin_base_patch4_window7_224"),
    "swinv2/swinv2-b/finetune-22k": from_timm("swinv2_base_window8_256"),
    "convnext/convnext-t/train": from_timm("convnext_tiny"),
    "convnext/convnext-b/finetune-384": from_timm("convnext_base"),
    "convnextv2/convnextv2-b/finetune": from_timm("convnextv2_base"),
    "eva02/vit-ti/finetune": from_timm("eva02_tiny_patch14_336"),
    "eva02/vit-s/finetune": from_timm("eva02_small_patch14_336"),
    "eva02/vit-b/finetune": from_timm("eva02_base_patch14_448"),
    "eva02/vit-l/finetune": from_timm("eva02_large_patch14_448"),
    "dinov2/vit-l/pretrain": hf("Dinov2Model", hidden_size=1024, num_hidden_layers=24, num_attention_heads=16),
    "big_vision/vit-s/train": from_timm("vit_small_patch16_224"),
    "videomae/vit-b/finetune": hf("VideoMAEForVideoClassification"),
    "videomae/vit-b/pretrain": hf("VideoMAEForPreTraining"),
    "ft-clip/vit-b/finetune": hf("CLIPVisionModel", patch_size=16),
    "ft-clip/vit-l/finetune": hf("CLIPVisionModel", patch_size=14, **CLIP_L),
    "detr/r50/coco": hf("DetrForObjectDetection"),
    "deformable-detr/r50/coco": hf("DeformableDetrForObjectDetection"),
    "mask2former/r50/coco": hf("Mask2FormerForUniversalSegmentation", backbone_config=transformers.ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])),
    "segformer/mit-b5/ade20k": hf("SegformerForSemanticSegmentation", depths=[3, 6, 40, 3], hidden_sizes=[64, 128, 320, 512], decoder_hidden_size=768),
    "bert/base/glue": hf("BertForSequenceClassification"),
    "roberta/large/mnli": hf("RobertaForSequenceClassification", **CLIP_L, vocab_size=50265, max_position_embeddings=514),
    "roberta/base/pretrain": hf("RobertaForMaskedLM", vocab_size=50265, max_position_embeddings=514),
    "electra/base/finetune": hf("ElectraForSequenceClassification", embedding_size=768, hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    "electra/large/finetune": hf("ElectraForSequenceClassification", embedding_size=1024, **CLIP_L),
    "electra/small/pretrain": hf("ElectraForPreTraining"),
    "deberta-v3/base/mnli": hf("DebertaV2ForSequenceClassification", hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, relative_attention=True, position_buckets=256, share_att_key=True, pos_att_type="p2c|c2p"),
    "deberta-v3/large/mnli": hf("DebertaV2ForSequenceClassification", **CLIP_L, relative_attention=True, position_buckets=256, share_att_key=True, pos_att_type="p2c|c2p"),
    "xlnet/large/squad": hf("XLNetForQuestionAnsweringSimple"),
    "modernbert/base/pretrain": hf("ModernBertForMaskedLM"),
    "wav2vec2/base/finetune-100h": hf("Wav2Vec2ForCTC"),
    "wav2vec2/large/finetune-960h": hf("Wav2Vec2ForCTC", **CLIP_L, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
    "hubert/base/finetune-10h": hf("HubertForCTC"),
    "data2vec/base/pretrain": hf("Data2VecAudioModel"),
    "whisper/small/finetune": hf("WhisperForConditionalGeneration", d_model=768, encoder_layers=12, decoder_layers=12, encoder_attention_heads=12, decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072),
    "open_clip/vit-b-32/pretrain": hf("CLIPModel"),
    "llava-1.5/7b/finetune": hf("LlavaForConditionalGeneration"),
    "nanogpt/gpt2-124m/pretrain": hf("GPT2LMHeadModel"),
    "pythia/410m/pretrain": hf("GPTNeoXForCausalLM", **CLIP_L, vocab_size=50304),
    "tinyllama/1.1b/pretrain": hf("LlamaForCausalLM", hidden_size=2048, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4, intermediate_size=5632),
    "torchtitan/llama3-8b/pretrain": hf("LlamaForCausalLM", vocab_size=128256, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336),
    "olmo2/7b/pretrain": hf("Olmo2ForCausalLM", vocab_size=100352, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008),
}  # fmt: skip


@functools.cache
def small(architecture):
    """A small model of an architecture."""
    with torch.device("meta"):
        return SMALL[architecture]()


def real(name):
    """The model that a recipe was published for."""
    with torch.device("meta"):
        return REAL[name]()
