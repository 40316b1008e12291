"""kohya sd-scripts: adapters of text encoder and U-Net at two rates, LoRA+ on top.

Adapters are named after the part that they change, `lora_te_...` and `lora_unet_...`. Those of the
U-Net learn with `unet_lr` (1e-4), those of the text encoder with `text_encoder_lr`, for which the
documentation proposes 5e-5; with a LoRA+ ratio (4 here) every `lora_up` learns that many times
faster than its `lora_down`. All decay by AdamW's 0.01.
"""

import prodigyopt
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "kohya-ss/sd-scripts"
SOURCE = "networks/lora.py, LoRANetwork.prepare_optimizer_params"
FAMILY = "adapters"


def model():
    """Two low-rank adapters, each one module of the network of adapters."""
    return tree(
        {
            f"{place}.{part}": nn.Linear(2, 2, bias=False)
            for place in (
                "lora_te_text_model_encoder_layers_0_mlp_fc1",
                "lora_unet_down_blocks_0_attentions_0_proj_in",
            )
            for part in ("lora_down", "lora_up")
        }
    )


def by_hand(net):
    """Two groups for each of the two parts."""
    groups = []
    for part, lr in (("lora_te", 5e-5), ("lora_unet", 1e-4)):
        adapters = [(name, p) for name, p in net.named_parameters() if name.startswith(part)]
        down = [p for name, p in adapters if "lora_up" not in name]
        up = [p for name, p in adapters if "lora_up" in name]
        groups.append({"params": down, "lr": lr, "weight_decay": 0.01})
        groups.append({"params": up, "lr": 4 * lr, "weight_decay": 0.01})
    return groups


def with_nnlr(net):
    """Two factors, which multiply."""
    scheme = nnlr.lora_plus(4) * nnlr.rule("lora_te_*", lr_mult=0.5)
    return nnlr.resolve(net, scheme, lr=1e-4, weight_decay=0.01)


THREAD = "kohya-ss/sd-scripts#1929"
FAULT = (
    "LoRA+ was switched on together with Prodigy, which has one rate for all groups and raises in "
    "the first step, after all data was prepared. `nnlr.check` tries it before."
)


def shown():
    """The check of Prodigy on the rates of the thread: 1, and 4 for `lora_up`."""
    net = model()
    groups = [{**group, "lr": lr} for group, lr in zip(by_hand(net), (1, 4, 1, 4), strict=True)]
    return str(nnlr.check(net, prodigyopt.Prodigy(groups)))
