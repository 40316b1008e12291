"""GPT-SoVITS: text encoders at 0.4 of the rate.

Four groups of the generator: the text embedding, the text encoder and `mrte`, which attends to
text from speech, learn with `text_low_lr_rate` (0.4) of `learning_rate` (1e-4), the rest with all
of it. AdamW's default decay of 0.01 reaches everything.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "RVC-Boss/GPT-SoVITS"
SOURCE = "GPT_SoVITS/s2_train.py, run"
FAMILY = "speech"


def model():
    """The prior encoder, the flow and the decoder."""
    return tree(
        {
            "enc_p.ssl_proj": nn.Conv1d(4, 4, 1),
            "enc_p.text_embedding": nn.Embedding(9, 4),
            "enc_p.encoder_text": nn.Linear(4, 4),
            "enc_p.mrte": nn.Linear(4, 4),
            "dec.conv_pre": nn.Conv1d(4, 4, 3),
            "flow": nn.Linear(4, 4),
        }
    )


def by_hand(net):
    """Everything else by the identity of tensors, then three modules."""
    slow = [net.enc_p.text_embedding, net.enc_p.encoder_text, net.enc_p.mrte]
    ids = [id(p) for module in slow for p in module.parameters()]
    base = [p for p in net.parameters() if id(p) not in ids]
    groups = [{"params": base, "lr": 1e-4, "weight_decay": 0.01}]
    for module in slow:
        rate = 1e-4 * 0.4
        groups.append({"params": list(module.parameters()), "lr": rate, "weight_decay": 0.01})
    return groups


def with_nnlr(net):
    """One rule for three modules."""
    text = nnlr.glob("enc_p.text_embedding.*") | "enc_p.encoder_text.*" | "enc_p.mrte.*"
    return nnlr.resolve(net, nnlr.rule(text, lr_mult=0.4), lr=1e-4, weight_decay=0.01)
