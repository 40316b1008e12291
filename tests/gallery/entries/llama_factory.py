"""LLaMA-Factory, BAdam: one block trained at a time.

Two groups, what decays (0.01 here) and what does not, by transformers' rule; rate 5e-5. They are
handed to `BlockOptimizer`, which trains the parameters of one block, and changes to the next one
every 50 steps.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "hiyouga/LLaMA-Factory"
SOURCE = "src/llamafactory/train/trainer_utils.py, _create_badam_optimizer"
FAMILY = "language"
CANNOT = (
    "which block trains when. A plan holds for a whole phase; a plan for each block, by "
    "`freeze(~nnlr.glob('model.layers.0.*'))` and `nnlr.regroup`, would make it 50 steps long."
)


def model():
    """Two layers of a language model."""
    return tree(
        {
            "model.layers.0.mlp.up_proj": nn.Linear(4, 8),
            "model.layers.1.mlp.up_proj": nn.Linear(4, 8),
            "model.norm": nn.LayerNorm(4),
        }
    )


def by_hand(net):
    """Two groups, as the optimizer inside gets them."""
    decay = [p for name, p in net.named_parameters() if "norm" not in name and "bias" not in name]
    others = [p for name, p in net.named_parameters() if "norm" in name or "bias" in name]
    return [
        {"params": others, "lr": 5e-5, "weight_decay": 0.0},
        {"params": decay, "lr": 5e-5, "weight_decay": 0.01},
    ]


def with_nnlr(net):
    """The groups."""
    return nnlr.resolve(net, nnlr.no_weight_decay("hf"), lr=5e-5, weight_decay=0.01)
