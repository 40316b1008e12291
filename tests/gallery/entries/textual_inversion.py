"""Textual inversion: of three networks one table is trained, and of that table one row.

Autoencoder, U-Net and all of the text encoder but its token embedding are frozen; the table learns
with 1e-4 and decays by 0.01. After each step all rows but those of the new word are written back.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "huggingface/diffusers"
SOURCE = "examples/textual_inversion/textual_inversion.py, main"
FAMILY = "adapters"


def model():
    """A layer of each network."""
    return tree(
        {
            "text_encoder.text_model.embeddings.token_embedding": nn.Embedding(5, 2),
            "text_encoder.text_model.embeddings.position_embedding": nn.Embedding(3, 2),
            "text_encoder.text_model.encoder.layers.0.mlp.fc1": nn.Linear(2, 2),
            "text_encoder.text_model.final_layer_norm": nn.LayerNorm(2),
            "unet.conv_in": nn.Conv2d(2, 2, 1),
            "vae.encoder.conv_in": nn.Conv2d(2, 2, 1),
        }
    )


def by_hand(net):
    """One list, after five calls that freeze the rest."""
    table = net.text_encoder.text_model.embeddings.token_embedding
    return [{"params": list(table.parameters()), "lr": 1e-4, "weight_decay": 0.01}]


def with_nnlr(net):
    """Everything else is locked."""
    rest = nnlr.rule(~nnlr.glob("*.token_embedding.*"), lr_mult=0)
    return nnlr.resolve(net, rest, lr=1e-4, weight_decay=0.01)


CANNOT = (
    "that only the rows of new words are trained. A plan has one row for each tensor; parts of a "
    "tensor have no rates of their own in torch either, so writing back stays."
)
