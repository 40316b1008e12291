"""transformers, Trainer: no decay for norms by class and by name.

`Trainer.create_optimizer` makes two groups. What is in an `nn.LayerNorm`, or has `bias`,
`layernorm`, `rmsnorm` or `norm` as a word of its name, does not decay; the rest does, embeddings
too. All learn with `learning_rate` (5e-5); here with a decay of 0.01.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.entries._error import error_of
from tests.gallery.tree import tree

REPOSITORY = "huggingface/transformers"
SOURCE = "src/transformers/trainer.py, Trainer.get_decay_parameter_names"
FAMILY = "language"
THREAD = "huggingface/transformers#35927"
FAULT = (
    "Until early 2025 the function went by the class `nn.LayerNorm` and the word `bias`, so that "
    "every RMSNorm of a Llama or a Qwen decayed. In nnlr a rule about that class is an error on "
    "such a model, which names the classes that there are."
)


class LlamaRMSNorm(nn.Module):
    """A norm that is none of torch's."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


def model():
    """One layer of a Llama."""
    return tree(
        {
            "model.embed_tokens": nn.Embedding(7, 4),
            "model.layers.0.self_attn.q_proj": nn.Linear(4, 4, bias=False),
            "model.layers.0.input_layernorm": LlamaRMSNorm(4),
            "model.norm": LlamaRMSNorm(4),
            "lm_head": nn.Linear(4, 7, bias=False),
        }
    )


def by_hand(net):
    """Two groups by names."""
    norms = ("bias", "layernorm", "rmsnorm", ".norm.", "_norm.")
    exempt = {name for name, _ in net.named_parameters() if any(word in name for word in norms)}
    decay = [p for name, p in net.named_parameters() if name not in exempt]
    others = [p for name, p in net.named_parameters() if name in exempt]
    return [
        {"params": decay, "lr": 5e-5, "weight_decay": 0.01},
        {"params": others, "lr": 5e-5, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """The preset that equals it."""
    return nnlr.resolve(net, nnlr.no_weight_decay("hf"), lr=5e-5, weight_decay=0.01)


def shown():
    """The older rule on a Llama, where nothing is in an `nn.LayerNorm`."""
    by_class = nnlr.rule(nnlr.module_type(nn.LayerNorm), wd_mult=0)
    return error_of(nnlr.resolve, model(), by_class, lr=5e-5, weight_decay=0.01)
