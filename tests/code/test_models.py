"""`plan.to_code` for every scheme on twenty architectures."""

from functools import cache

import pytest
from torch import nn
from torch.optim import SGD, AdamW, Muon

import nnlr
from nnlr.errors import NnlrError
from tests import zoo
from tests.code.written import compare
from tests.helpers import public_names
from tests.schemes.real_models import from_timm

TIMM = (
    *(
        "vit_base_patch16_224",
        "deit3_small_patch16_224",
        "beit_base_patch16_224",
        "eva02_tiny_patch14_224",
    ),
    *(
        "swin_tiny_patch4_window7_224",
        "convnext_tiny",
        "resnet50",
        "regnety_002",
        "efficientnet_b0",
    ),
    *("mobilenetv3_small_050", "densenet121", "mixer_s16_224", "maxvit_tiny_tf_224"),
)
TRANSFORMERS = {
    "bert": "BertForMaskedLM",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "deberta-v2": "DebertaV2ForSequenceClassification",
    "wav2vec2": "Wav2Vec2ForCTC",
    "clip": "CLIPModel",
    "mixtral": "MixtralForCausalLM",
}


@cache
def model(name):
    """One of the models; do not change it."""
    if name in TRANSFORMERS:
        return zoo.from_transformers(name, TRANSFORMERS[name])
    return from_timm(name)


def narrower(model):
    """The shapes of the model at half its width, for muP."""
    return {
        name: [size // 2 if size > 16 and size % 16 == 0 else size for size in param.shape]
        for name, param in model.named_parameters()
    }


def prototxt(model):
    """A Caffe network of the linear layers and convolutions, of which the first half is frozen."""
    kinds = (nn.Linear, nn.Conv2d)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    return "\n".join(
        f'layer {{ name: "{name}" param {{ lr_mult: {0 if at < len(names) / 2 else 2} }} }}'
        for at, name in enumerate(names)
    )


ROUTED = {"muon": Muon, "adamw": AdamW}

# For each scheme what it is called with, and the classes that train it.
SCHEMES = {
    "big_vision": (lambda _: nnlr.big_vision([(".*(bias|scale)", 2.0), (".*", 0.5)]), AdamW),
    "caffe": (lambda _: nnlr.caffe(), SGD),
    "caffe_prototxt": (lambda m: nnlr.caffe_prototxt(prototxt(m), strict=False), SGD),
    "complete_p": (lambda m: nnlr.complete_p(narrower(m), base_depth=2, forward="in_model"), AdamW),
    "detectron2": (lambda _: nnlr.detectron2(weight_decay_norm=0.0, bias_lr_factor=2.0), SGD),
    "discriminative": (lambda _: nnlr.discriminative(slice(1e-5, 1e-3)), AdamW),
    "freeze": (lambda _: nnlr.freeze(nnlr.role("norm")), AdamW),
    "layer_decay": (lambda _: nnlr.layer_decay(0.75) * nnlr.no_weight_decay(), AdamW),
    "lora_plus": (lambda _: nnlr.lora_plus(), AdamW),
    "megatron": (lambda _: nnlr.megatron(standard=True), AdamW),
    "mmengine": (lambda _: nnlr.mmengine({"norm_decay_mult": 0, "bias_lr_mult": 2}), SGD),
    "mup": (lambda m: nnlr.mup(narrower(m), forward="in_model"), AdamW),
    "no_weight_decay": (lambda _: nnlr.no_weight_decay(), AdamW),
    "roles": (lambda _: nnlr.roles({"norm": {"lr_mult": 3, "options": {"eps": 1e-6}}}), AdamW),
    "route": (lambda _: nnlr.route("muon", "adamw") * nnlr.no_weight_decay(), ROUTED),
    "torchtitan": (
        lambda _: nnlr.torchtitan(
            [
                {"pattern": ".*weight", "lr": 0.1, "weight_decay": 0.0},
                {"pattern": ".*", "betas": (0.9, 0.95)},
            ]
        ),
        AdamW,
    ),
}

# Those that move rates while training, which plain groups cannot.
MOVING = {
    "alpha_decay": nnlr.alpha_decay,
    "assign": lambda: nnlr.assign("rgn", "max", every=10),
    "auto_rgn": nnlr.auto_rgn,
    "auto_snr": nnlr.auto_snr,
    "freeze_out": nnlr.freeze_out,
    "grad_norm_balance": nnlr.grad_norm_balance,
    "layer_sampling": lambda: nnlr.layer_sampling(of="layers"),
    "llr": nnlr.llr,
    "temp_balance": nnlr.temp_balance,
    "unfreeze": lambda: nnlr.unfreeze("lp_ft"),
    "warmup": lambda: nnlr.warmup(10),
}

# How many of the models each scheme cannot be resolved on.
APART = {"lora_plus": len(TIMM) + len(TRANSFORMERS), "torchtitan": 2, "mup": 2, "complete_p": 2}


def test_every_scheme_is_tried():
    """There is a call of each."""
    assert set(public_names(nnlr.schemes)) == {*SCHEMES, *MOVING}


@pytest.mark.parametrize("name", MOVING)
def test_schemes_that_move_are_refused(name):
    """Plain groups would stand still."""
    net = nn.Sequential(*[nn.Linear(64, 64) for _ in range(5)])
    plan = nnlr.resolve(net, MOVING[name](), lr=1e-3, weight_decay=0.05)
    with pytest.raises(nnlr.ConfigError, match="moves multipliers while training"):
        plan.to_code()


@pytest.mark.full  # 120 s on an idle machine, all schemes
@pytest.mark.no_cover
@pytest.mark.parametrize("name", SCHEMES)
def test_twenty_models(name):
    """The same groups, the same order, and the same weights after three steps."""
    make, cls = SCHEMES[name]
    failures = {}
    for each in (*TIMM, *TRANSFORMERS):
        net = model(each)
        try:
            plan = nnlr.resolve(net, make(net), lr=1e-3, weight_decay=0.05)
        except NnlrError as error:
            failures[each] = str(error)
            continue
        classes = cls if cls is not ROUTED else {each: ROUTED[each] for each in plan.algorithms}
        text = compare(plan, net, classes)
        again = nnlr.resolve(net, make(net), lr=1e-3, weight_decay=0.05)
        assert text == again.to_code(classes)
    assert len(failures) <= APART.get(name, 0), failures
