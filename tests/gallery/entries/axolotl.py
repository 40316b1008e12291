"""Axolotl: rates for embeddings and for modules of your choice.

`embedding_lr` is the rate of every table and output layer, which do not decay. `lr_groups` are
names of modules with a rate each; here, as in its documentation, 1e-6 for all `o_proj` and 1e-5
for the `q_proj` of layer 2, where the rest has 2e-5. They act on what decays only: a bias in such
a module keeps the base rate. What decays is up to transformers' `Trainer`.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "axolotl-ai-cloud/axolotl"
SOURCE = (
    "src/axolotl/core/trainers/mixins/optimizer.py, "
    "OptimizerMixin.create_optimizer_grouped_parameters"
)
FAMILY = "language"


def model():
    """Two layers, a norm, and an embedding."""
    return tree(
        {
            "model.embed_tokens": nn.Embedding(7, 4),
            "model.layers.1.self_attn.q_proj": nn.Linear(4, 4),
            "model.layers.1.self_attn.o_proj": nn.Linear(4, 4),
            "model.layers.2.self_attn.q_proj": nn.Linear(4, 4),
            "model.norm": nn.LayerNorm(4),
            "lm_head": nn.Linear(4, 7, bias=False),
        }
    )


def by_hand(net):
    """Five groups by words in the name."""
    rate_of = {"o_proj": 1e-6, "model.layers.2.self_attn.q_proj.weight": 1e-5}
    groups = []
    for name, p in net.named_parameters():
        if "embed_tokens" in name or "lm_head" in name:
            groups.append({"params": [p], "lr": 5e-6, "weight_decay": 0.0})
        elif "bias" in name or "norm" in name:
            groups.append({"params": [p], "lr": 2e-5, "weight_decay": 0.0})
        else:
            rates = [rate for module, rate in rate_of.items() if module in name]
            groups.append({"params": [p], "lr": [*rates, 2e-5][0], "weight_decay": 0.01})
    return groups


def with_nnlr(net):
    """A rule for each rate."""
    words = nnlr.rule(nnlr.glob("*embed_tokens*") | "*lm_head*", lr=5e-6, wd_mult=0)
    rates = nnlr.rule("*.o_proj.weight", lr=1e-6) * nnlr.rule("*.2.*.q_proj.weight", lr=1e-5)
    return nnlr.resolve(net, words * rates * nnlr.no_weight_decay("hf"), lr=2e-5, weight_decay=0.01)
