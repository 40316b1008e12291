"""TSM: Caffe's multipliers, kept beside the rates.

Biases learn twice as fast as weights and do not decay; the new classifier five times as fast, its
bias ten times. Of the batch norms only the first is trained, without decay. The groups say
`lr_mult` and `decay_mult`, which the training loop multiplies in, once an epoch. Rate 0.001
and decay 5e-4, the defaults.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "mit-han-lab/temporal-shift-module"
SOURCE = "ops/models.py, TSN.get_optim_policies; main.py, adjust_learning_rate"
FAMILY = "vision"
THREAD = "mit-han-lab/temporal-shift-module#52"
FAULT = (
    "A question, not a fault: do the multipliers act at all, since torch's SGD does not know "
    "them? The authors point to their loop, which writes the rates at the start of each epoch. "
    "Without the loop, or under a scheduler of torch, the multipliers do nothing; `nnlr.check` "
    "sees groups that say one ratio and learn at another."
)


def model():
    """A stem, a block, the new classifier."""
    return tree(
        {
            "base_model.conv1": nn.Conv2d(1, 2, 1),
            "base_model.bn1": nn.BatchNorm2d(2),
            "base_model.layer1.0.conv1": nn.Conv2d(2, 2, 1),
            "base_model.layer1.0.bn1": nn.BatchNorm2d(2),
            "new_fc": nn.Linear(2, 3),
        }
    )


def by_hand(net):
    """A pair of groups for each type of layer; norms but the first are left out."""
    groups, norms = [], 0
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            norms += 1
            if norms == 1:
                groups.append({"params": [*module.parameters()], "lr": 0.001, "weight_decay": 0})
        elif isinstance(module, nn.Conv2d | nn.Linear):
            lr = 0.005 if isinstance(module, nn.Linear) else 0.001
            groups.append({"params": [module.weight], "lr": lr, "weight_decay": 5e-4})
            groups.append({"params": [module.bias], "lr": 2 * lr, "weight_decay": 0})
    return groups


def with_nnlr(net):
    """The first rule that matches counts: two for norms, one for biases; then the classifier."""
    norms = [nnlr.rule("base_model.bn1.*", wd_mult=0), nnlr.rule(nnlr.role("norm"), lr_mult=0)]
    kinds = nnlr.rules([*norms, nnlr.rule("*.bias", lr_mult=2, wd_mult=0)])
    return nnlr.resolve(net, kinds * nnlr.rule("new_fc.*", lr_mult=5), lr=1e-3, weight_decay=5e-4)


def shown():
    """The policies as the optimizer gets them."""
    net = model()
    groups = [
        {"params": g["params"], "lr_mult": g["lr"] / 1e-3, "decay_mult": g["weight_decay"] / 5e-4}
        for g in by_hand(net)
    ]
    net.get_submodule("base_model.layer1.0.bn1").requires_grad_(False)
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    return str(nnlr.check(net, optimizer).at_least("warning"))
