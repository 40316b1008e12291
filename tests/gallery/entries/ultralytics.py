"""Ultralytics: matrices and kernels to Muon, the class branch three times faster.

`optimizer=auto` takes MuSGD for long runs, rate 0.01, decay 5e-4. What has 2 or 4 axes is marked
`use_muon`; of the rest, biases, norms and `logit_scale` do not decay. The class branch of the last
layer (`cv3`) learns at three times the rate.
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
    "name was in no group and never trained: here the scale of an attention of text and image."
)


def model():
    """A convolution with its norm, an attention with parameters of its own, a head."""
    return tree(
        {
            "model.0.conv": nn.Conv2d(1, 4, 1, bias=False),
            "model.0.bn": nn.BatchNorm2d(4),
            "model.1.attn.bias": (2,),
            "model.1.attn.scale": (1, 2, 1, 1),
            "model.1.attn.gl": nn.Linear(4, 4),
            "model.2.cv2.0": nn.Conv2d(4, 4, 1),
            "model.2.cv3.0": nn.Conv2d(4, 3, 1),
        }
    )


def by_hand(net):
    """A group for each parameter."""
    groups = []
    for name, param in net.named_parameters():
        owner = net.get_submodule(name.rpartition(".")[0])
        spared = "bias" in name or "logit_scale" in name or isinstance(owner, nn.BatchNorm2d)
        lr = 0.03 if ".cv3." in name else 0.01
        if param.ndim in {2, 4}:
            group = {"lr": lr, "weight_decay": 5e-4, "use_muon": True}
        else:
            group = {"lr": lr, "weight_decay": 0 if spared else 5e-4}
        groups.append({"params": [param], **group})
    return groups


def with_nnlr(net):
    """The class branch, what is Muon's, and of the rest what does not decay."""
    matrix = nnlr.ndim(min=2, max=2) | nnlr.ndim(min=4, max=4)
    scheme = nnlr.rule(matrix, options={"use_muon": True}) * nnlr.rule("*.cv3.*", lr_mult=3)
    return nnlr.resolve(net, scheme * nnlr.no_weight_decay("yolov5"), lr=0.01, weight_decay=5e-4)


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
