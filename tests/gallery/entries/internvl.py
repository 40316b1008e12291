"""InternVL: layer decay in the vision tower and in the language side.

Each tower counts its own layers: embeddings and the learned queries are layer 0, block i is i + 1,
and what lies above the n blocks n + 2. The rate is `0.9 ** (n + 1 - layer)` of the base rate, and
never more than it, so that the top block has 0.9 and what follows 1. Vectors and biases do not
decay. The function takes all numbers from outside; here 0.9, a rate of 1e-5 and a decay of 0.05.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "OpenGVLab/InternVL"
SOURCE = "internvl_chat/internvl/train/trainer_monkey_patch.py, create_optimizer"
FAMILY = "multimodal"


def model():
    """Two blocks of vision, three of language, and what joins them."""
    parts = [f"vision_model.encoder.layers.{i}.mlp.fc{k}" for i in range(2) for k in (1, 2)]
    parts += [f"qllama.model.layers.{i}.mlp.{k}_proj" for i in range(3) for k in ("up", "down")]
    blocks = {part: nn.Linear(4, 4) for part in parts}
    return tree(
        {
            "vision_model.embeddings.patch_embedding": nn.Conv2d(3, 4, 2),
            "query_tokens": nn.Parameter(torch.zeros(1, 2, 4)),
            "qllama.model.embed_tokens": nn.Embedding(7, 4),
            **blocks,
            "qllama.model.norm": nn.LayerNorm(4),
            "clip_projector.proj": nn.Linear(4, 4),
            "itm_head": nn.Linear(4, 2),
        }
    )


def by_hand(net):
    """A rate for each layer of each tower."""
    groups = []
    for name, p in net.named_parameters():
        last = 3 if name.startswith(("vision_model.", "clip_projector.")) else 4
        layer = last + 1
        if ".layers." in name:
            layer = int(name.split(".layers.")[1].split(".")[0]) + 1
        elif "embed" in name or name == "query_tokens":
            layer = 0
        decay = 0.0 if p.ndim == 1 else 0.05
        scale = min(1.0, 0.9 ** (last - layer))
        groups.append({"params": [p], "lr": 1e-5 * scale, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """Layers as the structure says; the vision tower has no last norm above its blocks."""
    layers = nnlr.layer_decay(0.9, final_norm="head") * nnlr.rule("vision_model.*", lr_mult=0.9)
    tokens, no_decay = nnlr.rule("query_tokens", lr_mult=0.9**4), nnlr.no_weight_decay("megatron")
    return nnlr.resolve(net, layers * tokens * no_decay, lr=1e-5, weight_decay=0.05)
