"""Models as the packages of OpenMMLab name their parameters, and optim_wrappers for them."""

import torch
from torch import nn

import nnlr

MMPRETRAIN = "LearningRateDecayOptimWrapperConstructor"
MMDET = "LearningRateDecayOptimizerConstructor"
BEIT = "LayerDecayOptimizerConstructor"
INTERN = "CustomLayerDecayOptimizerConstructor"
FORCED = "ForceDefaultOptimWrapperConstructor"
POSE = "LayerDecayOptimWrapperConstructor"
SWIN = "SwinOptimWrapperConstructor"


def wrapper(constructor=None, optimizer=None, **paramwise_cfg):
    """An optim_wrapper as a configuration has it."""
    adamw = {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.05}
    whole = {"type": "AmpOptimWrapper", "optimizer": optimizer or adamw, "clip_grad": None}
    whole["paramwise_cfg"] = paramwise_cfg
    return {**whole, "constructor": constructor} if constructor is not None else whole


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


def rates(model, scheme, lr=1.0, weight_decay=1.0):
    """The rates of each parameter by its name."""
    plan = nnlr.resolve(model, scheme, lr=lr, weight_decay=weight_decay)
    return {row.name: (row.lr, row.weight_decay) for row in plan}
