"""SpeechBrain: two optimizers, one for what was pretrained.

wav2vec 2.0 is trained by Adam with 1e-4, the layers on top of it by Adadelta with 1.0; no decay.
With `freeze_wav2vec` there is only the second.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "speechbrain/speechbrain"
SOURCE = "recipes/CommonVoice/ASR/CTC/train_with_wav2vec.py, ASR.init_optimizers"
FAMILY = "speech"
THREAD = "speechbrain/speechbrain#1201"
FAULT = (
    "A frozen wav2vec 2.0 was still given to its optimizer and counted as trainable. `nnlr.check` "
    "takes both optimizers together, and says what is frozen in them."
)


def model():
    """A pretrained encoder, a batch-normalised layer and the output."""
    return tree(
        {
            "wav2vec2.model.feature_extractor": nn.Conv1d(1, 4, 3),
            "wav2vec2.model.encoder": nn.Linear(4, 4),
            "enc.linear1": nn.Linear(4, 4),
            "enc.bn1": nn.BatchNorm1d(4),
            "ctc_lin": nn.Linear(4, 7),
        }
    )


def by_hand(net):
    """Each optimizer's group."""
    above = [*net.enc.parameters(), *net.ctc_lin.parameters()]
    below = list(net.wav2vec2.parameters())
    return [
        {"params": above, "lr": 1.0, "weight_decay": 0.0, "algorithm": "adadelta"},
        {"params": below, "lr": 1e-4, "weight_decay": 0.0, "algorithm": "adam"},
    ]


def with_nnlr(net):
    """Two algorithms in one plan, which makes one optimizer of both."""
    below = nnlr.rule("wav2vec2.*", algorithm="adam")
    rules = nnlr.rules([below, nnlr.rule("*", algorithm="adadelta")])
    return nnlr.resolve(net, rules, lr={"adam": 1e-4, "adadelta": 1.0}, weight_decay=0)


def shown():
    """Both optimizers, with a frozen wav2vec 2.0."""
    net = model()
    net.wav2vec2.requires_grad_(False)
    adam = torch.optim.Adam(net.wav2vec2.parameters(), lr=1e-4)
    adadelta = torch.optim.Adadelta([*net.enc.parameters(), *net.ctc_lin.parameters()], lr=1.0)
    return str(nnlr.check(net, [adam, adadelta]))
