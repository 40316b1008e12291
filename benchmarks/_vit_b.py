"""The model of two benchmarks."""

import timm
import torch
from torch import nn

import nnlr


def vit_b() -> tuple[nn.Module, nnlr.Plan]:
    """A ViT-B with gradients, and its usual plan: 152 tensors in 28 groups."""
    model = timm.create_model("vit_base_patch16_224")
    scheme = nnlr.layer_decay(0.75) * nnlr.no_weight_decay()
    plan = nnlr.resolve(model, scheme, lr=1e-3, weight_decay=0.05)
    for tensor in model.parameters():
        tensor.grad = torch.full_like(tensor, 1e-3)
    return model, plan
