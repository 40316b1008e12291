"""diffusers' DreamBooth LoRA of Flux: the adapters of the text encoder slower, decayed more.

Adapters of the transformer learn with `learning_rate` (1e-4) and decay by 1e-4, those of the first
text encoder with `text_encoder_lr` (5e-6) and 1e-3. The second text encoder, T5, and all base
weights are frozen.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "huggingface/diffusers"
SOURCE = "examples/dreambooth/train_dreambooth_lora_flux.py, main"
FAMILY = "adapters"


def model():
    """Three frozen parts, two of them with an adapter."""
    net = tree(
        {
            f"{place}.{part}": nn.Linear(2, 2, bias=False)
            for place in (
                "transformer.transformer_blocks.0.attn.to_q",
                "text_encoder_one.text_model.encoder.layers.0.self_attn.q_proj",
            )
            for part in ("base_layer", "lora_A.default", "lora_B.default")
        }
        | {"text_encoder_two.encoder.block.0.layer.0.SelfAttention.q": nn.Linear(2, 2, bias=False)}
    )
    for name, parameter in net.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return net


def by_hand(net):
    """A group for each part that has adapters."""
    transformer = [p for p in net.transformer.parameters() if p.requires_grad]
    text_encoder = [p for p in net.text_encoder_one.parameters() if p.requires_grad]
    return [
        {"params": transformer, "lr": 1e-4, "weight_decay": 1e-4},
        {"params": text_encoder, "lr": 5e-6, "weight_decay": 1e-3},
    ]


def with_nnlr(net):
    """One rule; frozen parameters stay frozen."""
    text_encoder = nnlr.rule("text_encoder_one.*", lr=5e-6, weight_decay=1e-3)
    return nnlr.resolve(net, text_encoder, lr=1e-4, weight_decay=1e-4)


THREAD = "huggingface/diffusers#9464"
FAULT = (
    "With Prodigy the script set the rate of the second text encoder's group, by position, and "
    "there is no such group: an IndexError. nnlr goes by names, and warns of a rule that reaches "
    "only what is frozen."
)


def shown():
    """The rule for the group that is not there."""
    net = model()
    plan = nnlr.resolve(net, nnlr.rule("text_encoder_two.*", lr=1), lr=1, weight_decay=0)
    return str(nnlr.check(plan))
