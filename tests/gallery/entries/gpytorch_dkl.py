"""GPyTorch deep kernel learning: the network decays, the kernel learns a hundred times slower.

A DenseNet below a variational Gaussian process, by SGD with 0.1. The network decays by 1e-4; mean
and kernel learn with 0.001, the variational distribution and the likelihood with 0.1, all three
without decay.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "cornellius-gp/gpytorch"
SOURCE = "examples/06_PyTorch_NN_Integration_DKL, Deep_Kernel_Learning_DenseNet_CIFAR_Tutorial"
FAMILY = "fields"


def model():
    """Network, Gaussian process and likelihood."""
    return tree(
        {
            "feature_extractor.features.conv0": nn.Conv2d(3, 2, 1, bias=False),
            "gp_layer.mean_module.raw_constant": nn.Parameter(torch.tensor(0.0)),
            "gp_layer.covar_module.raw_outputscale": nn.Parameter(torch.tensor(0.0)),
            "gp_layer.covar_module.base_kernel.raw_lengthscale": nn.Parameter(torch.zeros(1, 1)),
            "gp_layer.variational_strategy._variational_distribution.mean": nn.Parameter(
                torch.ones(3)
            ),
            "likelihood.mixing_weights": nn.Parameter(torch.zeros(3, 2)),
        }
    )


def by_hand(net):
    """Four groups; the two of the process are told apart by the library."""
    process = list(net.gp_layer.named_parameters())
    variational = [p for name, p in process if "_variational_distribution" in name]
    hyper = [p for name, p in process if "_variational_distribution" not in name]
    return [
        {"params": list(net.feature_extractor.parameters()), "lr": 0.1, "weight_decay": 1e-4},
        {"params": hyper, "lr": 0.1 * 0.01, "weight_decay": 0},
        {"params": variational, "lr": 0.1, "weight_decay": 0},
        {"params": list(net.likelihood.parameters()), "lr": 0.1, "weight_decay": 0},
    ]


def with_nnlr(net):
    """A factor for each decision."""
    kernel = nnlr.rule(nnlr.glob("gp_layer.mean*") | "gp_layer.covar*", lr_mult=0.01)
    scheme = kernel * nnlr.rule(~nnlr.glob("feature_extractor.*"), wd_mult=0)
    return nnlr.resolve(net, scheme, lr=0.1, weight_decay=1e-4)
