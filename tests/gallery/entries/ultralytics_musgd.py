"""Ultralytics MuSGD: matrices and filters by Muon and SGD at once, class heads 3 times faster.

Tensors with two or four axes have `use_muon`: a fifth of an update of Muon on top of that of SGD,
which alone trains the rest. Weights decay by 5e-4; biases and batch norms do not. What predicts
classes, `cv3` of the last layer, learns with 3 times the rate of 0.01.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.entries._error import error_of
from tests.gallery.tree import tree

REPOSITORY = "ultralytics/ultralytics"
SOURCE = "ultralytics/engine/trainer.py, BaseTrainer.build_optimizer"
FAMILY = "algorithms"


def model():
    """The custom backbone of the thread: its detection head is layer 3."""
    return tree(
        {
            "model.0.conv": nn.Conv2d(3, 2, 3, bias=False),
            "model.0.bn": nn.BatchNorm2d(2),
            "model.1.gamma": nn.Parameter(torch.ones(2, 1, 1)),
            "model.2.proj": nn.Linear(2, 2),
            "model.3.cv2.0": nn.Conv2d(2, 2, 1),
            "model.3.cv3.0": nn.Conv2d(2, 2, 1),
        }
    )


def by_hand(net):
    """Four kinds, each once for the head and once for the rest."""
    kinds = {}
    for path, module in net.named_modules():
        for name, p in module.named_parameters(recurse=False):
            muon = p.ndim in {2, 4}
            free = not muon and (name == "bias" or isinstance(module, nn.BatchNorm2d))
            boosted = ".3.cv3" in path
            kinds.setdefault((muon, free, boosted), []).append(p)
    return [
        {
            "params": params,
            "lr": 0.03 if boosted else 0.01,
            "weight_decay": 0.0 if free else 5e-4,
            **({"use_muon": True} if muon else {}),
        }
        for (muon, free, boosted), params in kinds.items()
    ]


def with_nnlr(net):
    """Three factors for three decisions."""
    muon = nnlr.rule(nnlr.ndim(min=2, max=2) | nnlr.ndim(min=4, max=4), options={"use_muon": True})
    scheme = muon * nnlr.no_weight_decay("yolov5") * nnlr.rule("model.3.cv3.*", lr_mult=3)
    return nnlr.resolve(net, scheme, lr=0.01, weight_decay=5e-4)


THREAD = "ultralytics/ultralytics#25532"
FAULT = (
    "The head was taken for layer 23 by a pattern in the code. In models of another depth the "
    "pattern matched nothing, and class heads silently learned at a third of their rate. In nnlr "
    "a pattern that matches nothing is an error, with the nearest that would."
)


def shown():
    """The rule for layer 23 on the model of the thread."""
    rule = nnlr.rule("model.23.cv3.*", lr_mult=3)
    return error_of(nnlr.resolve, model(), rule, lr=0.01, weight_decay=5e-4)
