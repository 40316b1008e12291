"""Real models, built from configurations on the meta device, for parity with frameworks."""

from functools import cache

import pytest
import torch
from torch import nn

from tests import zoo


def from_timm(name, **settings):
    """A model of timm with random weights, on meta."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        return timm.create_model(name, **settings)


def every_norm():
    """Batch, instance, group, layer and RMS norms, depthwise convolutions, a shared layer."""
    shared = nn.Linear(8, 8)
    return nn.ModuleDict(
        {
            "backbone": nn.Sequential(
                nn.Conv2d(8, 8, 3, groups=8),
                nn.BatchNorm2d(8),
                nn.Conv1d(8, 8, 3, groups=8),
                nn.InstanceNorm2d(8, affine=True),
                nn.Conv2d(8, 8, 1, bias=False),
                nn.GroupNorm(2, 8),
                nn.SyncBatchNorm(8),
            ),
            "neck": nn.ModuleList([nn.LayerNorm(8), nn.RMSNorm(8), shared]),
            "head": nn.Sequential(shared, nn.BatchNorm1d(8), nn.Linear(8, 2)),
        }
    )


def half_frozen():
    """A model whose trunk is frozen."""
    model = every_norm()
    model["backbone"].requires_grad_(False)
    return model


MODELS = {
    "every_norm": every_norm,
    "half_frozen": half_frozen,
    "attention": zoo.attention,
    "lstm": zoo.lstm,
    "tied": zoo.tied,
    "weight_norm": zoo.weight_norm,
    "vit": lambda: from_timm("vit_tiny_patch16_224"),
    "resnet": lambda: from_timm("resnet18"),
    "convnext": lambda: from_timm("convnext_atto"),
    "mobilenet": lambda: from_timm("mobilenetv3_small_050"),
    "swin": lambda: from_timm("swin_tiny_patch4_window7_224"),
    "bert": lambda: zoo.from_transformers("bert", "BertForMaskedLM"),
    "gpt2": lambda: zoo.from_transformers("gpt2", "GPT2LMHeadModel"),
    "t5": lambda: zoo.from_transformers("t5", "T5ForConditionalGeneration"),
    "llama": lambda: zoo.from_transformers("llama", "LlamaForCausalLM"),
}


def trainable(model):
    """Names of trainable parameters, tied ones once."""
    return [name for name, p in model.named_parameters() if p.requires_grad]


@cache
def model(name):
    """One of the models; do not change it."""
    return MODELS[name]()
