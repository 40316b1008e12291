"""ControlNet: the copy is trained, and of the U-Net its output blocks if they are unlocked.

The optimizer gets the parameters of `control_model` and, where `sd_locked` is off, those of
`model.diffusion_model.output_blocks` and `.out`. All learn with 1e-5 and AdamW's decay of 0.01;
autoencoder, text encoder and the rest of the U-Net are in no group.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "lllyasviel/ControlNet"
SOURCE = "cldm/cldm.py, ControlLDM.configure_optimizers"
FAMILY = "adapters"


def model():
    """The parts of a latent diffusion model, a layer of each."""
    return tree(
        {
            "model.diffusion_model.input_blocks.0": nn.Conv2d(2, 2, 1),
            "model.diffusion_model.middle_block.0": nn.Conv2d(2, 2, 1),
            "model.diffusion_model.output_blocks.0": nn.Conv2d(2, 2, 1),
            "model.diffusion_model.out.0": nn.GroupNorm(1, 2),
            "first_stage_model.encoder": nn.Conv2d(2, 2, 1),
            "cond_stage_model.transformer": nn.Linear(2, 2),
            "control_model.input_blocks.0": nn.Conv2d(2, 2, 1),
            "control_model.zero_convs.0": nn.Conv2d(2, 2, 1),
        }
    )


def by_hand(net):
    """One list; what is not in it is not trained."""
    params = list(net.control_model.parameters())
    params += list(net.model.diffusion_model.output_blocks.parameters())
    params += list(net.model.diffusion_model.out.parameters())
    return [{"params": params, "lr": 1e-5, "weight_decay": 0.01}]


def with_nnlr(net):
    """All else is locked, so that it gets no gradient either."""
    trained = nnlr.glob("control_model.*") | "model.diffusion_model.out*"
    return nnlr.resolve(net, nnlr.rule(~trained, lr_mult=0), lr=1e-5, weight_decay=0.01)
