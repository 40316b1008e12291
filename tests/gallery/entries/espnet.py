"""ESPnet: freeze modules by the beginning of their names.

`--freeze_mods` is a list of prefixes. Parameters that begin with one get no gradient and are left
out of the optimizer, an Adadelta with rate 1.0 without decay unless told otherwise.
"""

from torch import nn

import nnlr
from tests.gallery.entries._error import error_of
from tests.gallery.tree import tree

REPOSITORY = "espnet/espnet"
SOURCE = "espnet/asr/pytorch_backend/asr_init.py, freeze_modules"
FAMILY = "speech"
THREAD = "espnet/espnet#2423"
FAULT = (
    "A user froze what they took for every layer, and the network went on learning. Besides what "
    "is not listed at all, a comma is missing, and the prefix "
    "`encoder.encoders.10.encoder.encoders.11.` matches nothing. In nnlr that is an error."
)


def model():
    """An encoder of two layers, and an output layer."""
    return tree(
        {
            "encoder.embed": nn.Linear(4, 4),
            "encoder.encoders.10": nn.Linear(4, 4),
            "encoder.encoders.11": nn.Linear(4, 4),
            "ctc.ctc_lo": nn.Linear(4, 7),
        }
    )


def by_hand(net):
    """What does not begin with a prefix."""
    frozen = ("encoder.embed.", "encoder.encoders.10.", "encoder.encoders.11.")
    trained = [p for name, p in net.named_parameters() if not name.startswith(frozen)]
    return [{"params": trained, "lr": 1.0, "weight_decay": 0.0}]


def with_nnlr(net):
    """Frozen parameters are locked, and in no group."""
    below = nnlr.glob("encoder.embed.*") | "encoder.encoders.10.*" | "encoder.encoders.11.*"
    return nnlr.resolve(net, nnlr.freeze(below), lr=1.0, weight_decay=0)


def shown():
    """The prefix without its comma."""
    two = nnlr.freeze("encoder.encoders.10.encoder.encoders.11.*")
    return error_of(nnlr.resolve, model(), two, lr=1.0, weight_decay=0)
