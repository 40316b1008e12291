"""3D Gaussian splatting: a rate for each property of a splat, for positions by the scene.

Positions learn with 1.6e-4 times the extent of the cameras (5 here, about what COLMAP gives), base
colours with 0.0025, the other harmonics with a twentieth of that, opacities with 0.025, scales with
0.005 and rotations with 0.001. Nothing decays. In training the rate of positions falls to a
hundredth, which groups do not say: the recipe `gsplat/3dgs` has such a schedule.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "graphdeco-inria/gaussian-splatting"
SOURCE = "scene/gaussian_model.py, GaussianModel.training_setup"
FAMILY = "fields"


def model():
    """Two splats with harmonics of degree 1."""
    shapes = {
        "_xyz": (2, 3),
        "_features_dc": (2, 1, 3),
        "_features_rest": (2, 3, 3),
        "_scaling": (2, 3),
        "_rotation": (2, 4),
        "_opacity": (2, 1),
    }
    return tree({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})


def by_hand(net):
    """Six groups of one tensor each."""
    return [
        {"params": [net._xyz], "lr": 1.6e-4 * 5, "weight_decay": 0},
        {"params": [net._features_dc], "lr": 0.0025, "weight_decay": 0},
        {"params": [net._features_rest], "lr": 0.0025 / 20, "weight_decay": 0},
        {"params": [net._opacity], "lr": 0.025, "weight_decay": 0},
        {"params": [net._scaling], "lr": 0.005, "weight_decay": 0},
        {"params": [net._rotation], "lr": 0.001, "weight_decay": 0},
    ]


def with_nnlr(net):
    """A rule for each property; rotations have the base rate."""
    rates = {"features_dc": 0.0025, "features_rest": 0.000125, "opacity": 0.025, "scaling": 0.005}
    rules = nnlr.rules([nnlr.rule(f"_{part}", lr=rate) for part, rate in rates.items()])
    return nnlr.resolve(net, rules * nnlr.rule("_xyz", lr=1.6e-4 * 5), lr=0.001, weight_decay=0)
