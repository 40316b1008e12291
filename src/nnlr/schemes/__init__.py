"""Published recipes, one file each, with the paper and the formula on top.

Every one is a scheme: it composes with all others by ``*``, and ``where`` and ``within``
restrict it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnlr.schemes.bigvision import big_vision
    from nnlr.schemes.caffenet import caffe
    from nnlr.schemes.completep import complete_p
    from nnlr.schemes.detectron import detectron2
    from nnlr.schemes.embedding_rates import embedding_lr
    from nnlr.schemes.exempt import no_weight_decay
    from nnlr.schemes.frozen import freeze
    from nnlr.schemes.llrd import layer_decay
    from nnlr.schemes.loraplus import lora_plus
    from nnlr.schemes.paramkeys import megatron
    from nnlr.schemes.paramwise import mmengine
    from nnlr.schemes.role_table import roles
    from nnlr.schemes.sharpness import blockwise
    from nnlr.schemes.tensor_programs import mup
    from nnlr.schemes.titan import torchtitan
    from nnlr.schemes.ulmfit import discriminative

# Scheme -> the module of this package it lives in; loaded when first asked for. No module
# may be called like a scheme: once loaded it would take the scheme's place.
HOME = {
    "layer_decay": "llrd",
    "no_weight_decay": "exempt",
    "discriminative": "ulmfit",
    "freeze": "frozen",
    "lora_plus": "loraplus",
    "caffe": "caffenet",
    "mmengine": "paramwise",
    "detectron2": "detectron",
    "big_vision": "bigvision",
    "megatron": "paramkeys",
    "torchtitan": "titan",
    "mup": "tensor_programs",
    "complete_p": "completep",
    "roles": "role_table",
    "blockwise": "sharpness",
    "embedding_lr": "embedding_rates",
}

__all__ = [
    "big_vision",
    "blockwise",
    "caffe",
    "complete_p",
    "detectron2",
    "discriminative",
    "embedding_lr",
    "freeze",
    "layer_decay",
    "lora_plus",
    "megatron",
    "mmengine",
    "mup",
    "no_weight_decay",
    "roles",
    "torchtitan",
]


def __getattr__(name: str) -> object:
    """Load a scheme from its module."""
    if name not in HOME:
        raise AttributeError(f"module 'nnlr.schemes' has no attribute {name!r}")
    value: object = getattr(import_module(f"nnlr.schemes.{HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The schemes."""
    return list(__all__)
