"""Speculators: tables of the vocabulary leave Muon for AdamW, and take Muon's rate along.

Matrices go to Muon with ten times the rate and decay of AdamW (0.003 and 0.1, by 3e-4 and 0.01 in
the experiments of the thread), vectors to AdamW. Tables that Muon should not orthogonalize (Markov
factors, codebooks) go to AdamW too, at Muon's rate and decay.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "vllm-project/speculators"
SOURCE = "src/speculators/train/optimizers.py, build_optimizers"
FAMILY = "algorithms"


def model():
    """A draft model with one layer and a Markov head."""
    return tree(
        {
            "layers.0.input_layernorm": nn.RMSNorm(8),
            "layers.0.self_attn.q_proj": nn.Linear(8, 8, bias=False),
            "layers.0.mlp.up_proj": nn.Linear(8, 16, bias=False),
            "markov_head.markov_w1": nn.Embedding(12, 4),
            "markov_head.markov_w2": nn.Linear(4, 12, bias=False),
        }
    )


def by_hand(net):
    """Three optimizers."""
    muon, adamw, tables = [], [], []
    for name, p in net.named_parameters():
        if p.ndim != 2:
            adamw.append(p)
        elif any(word in name for word in ("codebook", "markov_w1", "markov_w2")):
            tables.append(p)
        else:
            muon.append(p)
    return [
        {"params": muon, "lr": 3e-3, "weight_decay": 0.1, "algorithm": "muon"},
        {"params": adamw, "lr": 3e-4, "weight_decay": 0.01, "algorithm": "adamw"},
        {"params": tables, "lr": 3e-3, "weight_decay": 0.1, "algorithm": "adamw"},
    ]


def with_nnlr(net):
    """A rule overrules the routing, and says at which rate."""
    tables = nnlr.rule("*markov_w*", algorithm="adamw", lr_mult=10, wd_mult=10)
    rates, decays = {"muon": 3e-3, "adamw": 3e-4}, {"muon": 0.1, "adamw": 0.01}
    return nnlr.resolve(net, nnlr.route("muon", "adamw") * tables, lr=rates, weight_decay=decays)


THREAD = "vllm-project/speculators#1066"
FAULT = (
    "A change had sent the tables to AdamW and, without a word, to its rate and decay, a tenth of "
    "Muon's: the head barely trained. `plan.diff` says what a change of routing does to the "
    "rates."
)


def shown():
    """From the plan that sends the tables to Muon to the one that sends them to AdamW."""
    net = model()
    bases = {
        "lr": {"muon": 3e-3, "adamw": 3e-4},
        "weight_decay": {"muon": 0.1, "adamw": 0.01},
    }
    before, after = (
        nnlr.resolve(
            net, nnlr.route("muon", "adamw") * nnlr.rule("*markov_w*", algorithm=name), **bases
        )
        for name in ("muon", "adamw")
    )
    return str(before.diff(after))
