"""Ultralytics: by modules, and then whatever is left.

Without Muon there are three groups: everything with `bias` in its name, norms and `logit_scale`,
all else. Only the last decays, by 5e-4; the rate is 0.01 for SGD. It goes through the parameters
of each module, so that one of any name is in a group.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "ultralytics/ultralytics"
SOURCE = "ultralytics/engine/trainer.py, BaseTrainer.build_optimizer"
FAMILY = "detection"
THREAD = "ultralytics/ultralytics#2855"
FAULT = (
    "The earlier function asked every module for its `weight` and `bias`. A parameter of another "
    "name was in no group and never trained: here the scale of an attention of text and image. "
    "`nnlr.check` names such parameters."
)


def model():
    """A convolution with its norm, an attention with parameters of its own, a contrastive head."""
    return tree(
        {
            "model.0.conv": nn.Conv2d(1, 4, 1, bias=False),
            "model.0.bn": nn.BatchNorm2d(4),
            "model.1.attn.bias": (2,),
            "model.1.attn.scale": (1, 2, 1, 1),
            "model.1.attn.gl": nn.Linear(4, 4),
            "model.2.cv3.0": nn.Conv2d(4, 3, 1),
            "model.2.cv4.0.logit_scale": (),
        }
    )


def by_hand(net):
    """A group for each parameter."""
    norms, groups = tuple(kind for name, kind in vars(nn).items() if "Norm" in name), []
    for path, module in net.named_modules():
        for name, param in module.named_parameters(prefix=path, recurse=False):
            spared = "bias" in name or "logit_scale" in name or isinstance(module, norms)
            groups.append({"params": [param], "lr": 0.01, "weight_decay": 0 if spared else 5e-4})
    return groups


def with_nnlr(net):
    """The preset of YOLOv5, and one name more."""
    scheme = nnlr.no_weight_decay("yolov5") * nnlr.rule("*.logit_scale", wd_mult=0)
    return nnlr.resolve(net, scheme, lr=0.01, weight_decay=5e-4)


def shown():
    """The groups of the earlier function."""
    net = model()
    weights, norms, biases = [], [], []
    for module in net.modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            biases.append(module.bias)
        if isinstance(getattr(module, "weight", None), nn.Parameter):
            (norms if isinstance(module, nn.BatchNorm2d) else weights).append(module.weight)
    optimizer = torch.optim.SGD(biases, lr=0.01, momentum=0.937, nesterov=True)
    optimizer.add_param_group({"params": weights, "weight_decay": 5e-4})
    optimizer.add_param_group({"params": norms, "weight_decay": 0})
    return str(nnlr.check(net, optimizer))
