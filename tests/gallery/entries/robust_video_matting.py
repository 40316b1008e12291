"""RobustVideoMatting: a rate for each part, anew in each of four stages.

Backbone, pyramid, decoder and refiner get rates of their own on the command line, without decay.
Below is the third stage, high resolution: the refiner, new, learns at 2e-4, all else at 1e-5. The
two projections at the end go with the decoder.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "PeterL1n/RobustVideoMatting"
SOURCE = "train.py, Trainer.init_model"
FAMILY = "detection"
THREAD = "PeterL1n/RobustVideoMatting#100"
FAULT = (
    "The parts were listed, and the two projections forgotten: in the published script they "
    "stayed as they were initialised, which the authors call a bug that their own training did "
    "not have. `nnlr.check` names them."
)


def model():
    """Four parts and two projections."""
    return tree(
        {
            "backbone.features.0": nn.Conv2d(1, 2, 1),
            "aspp.aspp1": nn.Conv2d(2, 2, 1),
            "decoder.decode4": nn.Conv2d(2, 2, 1),
            "project_mat.conv": nn.Conv2d(2, 4, 1),
            "project_seg.conv": nn.Conv2d(2, 1, 1),
            "refiner.box_filter": nn.Conv2d(4, 2, 1),
        }
    )


def by_hand(net):
    """A group for each part."""
    rates = {"backbone": 1e-5, "aspp": 1e-5, "decoder": 1e-5, "refiner": 2e-4}
    rates |= {"project_mat": 1e-5, "project_seg": 1e-5}
    return [
        {"params": list(net.get_submodule(part).parameters()), "lr": lr, "weight_decay": 0}
        for part, lr in rates.items()
    ]


def with_nnlr(net):
    """One rule for what differs; the rest cannot be forgotten."""
    return nnlr.resolve(net, nnlr.rule("refiner.*", lr=2e-4), lr=1e-5, weight_decay=0)


def shown():
    """The groups of the published script."""
    net = model()
    parts = [net.backbone, net.aspp, net.decoder, net.refiner]
    groups = [{"params": part.parameters(), "lr": 1e-5} for part in parts]
    return str(nnlr.check(net, torch.optim.Adam(groups)))
