"""Unsloth: layer decay for each stack of layers by itself.

Layers are found by `layers.<i>.` or `blocks.<i>.` in the name; what stands before it tells the
stacks apart. Layer i of n learns with `0.9 ** (n - 1 - i)` of the rate (2e-5 here), embeddings as
the lowest layer of the deepest stack, all else with the whole rate. Decay 0.01, none on biases.
As in the pull request below, which was open in autumn 2026.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "unslothai/unsloth"
SOURCE = "unsloth/optimizers/layerwise_lr.py, make_layerwise_lr_param_groups"
FAMILY = "multimodal"
THREAD = "unslothai/unsloth#7834"
FAULT = (
    "The first version took the number alone: layers of the vision tower and of the language "
    "model were one stack, and where the tower is deeper, the top of the language model learned "
    "too slowly. nnlr counts each tower by itself, and the layers of a plan show it."
)


def model():
    """Three layers of vision, four of language."""
    parts = [f"vision_tower.encoder.layers.{i}.mlp.fc{k}" for i in range(3) for k in (1, 2)]
    above = [f"language_model.layers.{i}.mlp.{k}_proj" for i in range(4) for k in ("up", "down")]
    return tree(
        {
            "vision_tower.patch_embed": nn.Conv2d(3, 4, 2),
            **{part: nn.Linear(4, 4) for part in parts},
            "language_model.embed_tokens": nn.Embedding(7, 4),
            **{part: nn.Linear(4, 4) for part in above},
            "lm_head": nn.Linear(4, 7, bias=False),
        }
    )


def by_hand(net):
    """The depth of each stack first, then a rate for each layer."""
    names = [name for name, _ in net.named_parameters() if ".layers." in name]
    places = {name: name.split(".layers.") for name in names}
    depth_of = {}
    for stack, rest in places.values():
        depth_of[stack] = max(depth_of.get(stack, 0), int(rest.split(".")[0]) + 1)
    groups = []
    for name, p in net.named_parameters():
        below = max(depth_of.values()) - 1 if "embed" in name else 0
        if name in places:
            stack, rest = places[name]
            below = depth_of[stack] - 1 - int(rest.split(".")[0])
        decay = 0.0 if "bias" in name else 0.01
        groups.append({"params": [p], "lr": 2e-5 * 0.9**below, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """Layers as the structure says, the embeddings raised to the layer above them."""
    layers = nnlr.layer_decay(0.9) * nnlr.rule("*.embed_tokens.*", lr_mult=1 / 0.9)
    return nnlr.resolve(net, layers * nnlr.no_weight_decay("hf"), lr=2e-5, weight_decay=0.01)


def shown():
    """What the structure says."""
    return str(with_nnlr(model()).layers)
