"""Which parameters get no weight decay: one rule for each codebase, with its source.

Every codebase encodes the same wish differently: no decay for what scales or shifts, which
shrinking does not make simpler. A rule here is a pure function of one parameter. It gives the
reason for which the parameter is exempt, or ``None`` if it decays.

A published rule reads what its original reads: names as ``named_parameters()`` spells them
(without wrappers), numbers of axes, classes of modules. It keeps the original's mistakes. Our
own rule, ``"nnlr"``, reads roles: :data:`EXEMPT_ROLES` and :data:`DECAYED_ROLES` hold every
role of :data:`nnlr._model.roles.ROLES` with the reason.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

from torch import nn

from nnlr._model.describe import ParamInfo
from nnlr._model.names import Slot
from nnlr._model.scopes import module_class
from nnlr.schemes._frameworks.big_vision import WD_MULTS, flax_name
from nnlr.schemes._frameworks.detectron2 import NORMS

EXEMPT_ROLES: Final = {
    "norm": "a gain of 1 and a shift of 0 are neutral, a gain of 0 is not",
    "bias": "a shift adds no capacity that shrinking it would take away",
    "gain": "multiplies what a decayed matrix already bounds",
    "scalar": "a temperature or gate pulled to 0 makes another model, not a simpler one",
    "state": "sets time scales: A_log = 0 is one of them, not the absence of any",
    "token": "an input of its own, whose length the next norm takes away",
    "position": "an input as tokens are; relative-position tables shift attention scores",
    "vector": "whatever it is: one axis scales, shifts or stands for one thing",
}

DECAYED_ROLES: Final = {
    "matrix": "the weights that decay is meant for",
    "conv": "likewise, depthwise ones included",
    "head": "likewise; decay keeps logits from growing without bound",
    "router": "likewise; its logits grow as a head's do",
    "lora_a": "one half of a matrix: decay shrinks the update, not the base",
    "lora_b": "the other half",
    "adapter": "if it is a matrix; a vector among an adapter's parameters does not",
    "embedding": "as in most codebases, tied to a head or not; embeddings=True exempts it",
}


@dataclass(frozen=True)
class ParamView:
    """One parameter, as a rule sees it."""

    param: ParamInfo
    slot: Slot  # the first place where it hangs
    declared: str | None = None  # who asks for no decay in code: a hook, a mark, or nobody

    @cached_property
    def name(self) -> str:
        """Its name as ``named_parameters()`` spells it, without wrappers."""
        return self.slot.raw(wrappers=False)

    @cached_property
    def cls(self) -> type:
        """The class of the module that holds it."""
        return object if self.slot.module is None else module_class(self.slot.module)

    @property
    def ndim(self) -> int:
        """Number of axes, those of length 1 included."""
        return len(self.param.shape)

    def inside(self, kind: type[nn.Module]) -> bool:
        """Whether such a module is around it, other than the model itself."""
        scope = self.param.scope
        while scope.path and scope.cls is not None and scope.above is not None:
            if issubclass(scope.cls, kind):
                return True
            scope = scope.above
        return False


ExemptRule = Callable[[ParamView], str | None]


def _up_to_1d(view: ParamView) -> str | None:
    return f"{view.ndim}-D" if view.ndim <= 1 else None


def _dot_bias(view: ParamView) -> str | None:
    return "named .bias" if view.name.endswith(".bias") else None


def _holds(view: ParamView, *parts: str) -> str | None:
    return next((f"{part!r} in its name" for part in parts if part in view.name), None)


def _nnlr(view: ParamView) -> str | None:
    role = view.param.role
    if role in EXEMPT_ROLES:
        return role
    if role == "adapter" and sum(length != 1 for length in view.param.shape) <= 1:
        return "adapter's vector"
    return view.declared


_HF_NAMES: Final = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def _hf(view: ParamView) -> str | None:
    if view.inside(nn.LayerNorm):
        return "in a LayerNorm"
    match = _HF_NAMES.search(view.name.lower())
    return f"{match[0].strip('.')!r} in its name" if match else None


def _detectron2(view: ParamView) -> str | None:
    return f"in a {view.cls.__name__}" if issubclass(view.cls, NORMS) else None


# By their names, as the original finds them, so that newer torch brings newer norms.
_TORCH_NORMS: Final = tuple(cls for name, cls in vars(nn).items() if "Norm" in name)


def _yolov5(view: ParamView) -> str | None:
    if view.slot.key == "bias":
        return "named bias"
    is_norm = view.slot.key == "weight" and issubclass(view.cls, _TORCH_NORMS)
    return f"weight of a {view.cls.__name__}" if is_norm else None


def _megatron(view: ParamView) -> str | None:
    return ("1-D" if view.ndim == 1 else None) or _dot_bias(view)


def _olmo2(view: ParamView) -> str | None:
    is_table = issubclass(view.cls, nn.Embedding) and view.slot.key == "weight"
    return "an Embedding" if is_table else None


def _big_vision(view: ParamView) -> str | None:
    name = flax_name(view.param)
    decays = any(re.fullmatch(pattern, name) for pattern, _ in WD_MULTS)
    return None if decays else f"{view.param.role}, no kernel"


class Preset(NamedTuple):
    """A rule and what it needs to know."""

    rule: ExemptRule
    source: str  # where the original is
    # Which declarations in code it reads: the no_weight_decay() of the outermost modules that
    # have one, hooks of every module, or ("marks") these and attributes of parameters.
    declared: Literal["", "outermost", "every", "marks"] = ""
    classes: bool = False  # whether it reads classes of modules, so that names will not do


PRESETS: Final = {
    "nnlr": Preset(_nnlr, "roles: EXEMPT_ROLES and DECAYED_ROLES", "marks"),
    "timm": Preset(
        lambda view: _up_to_1d(view) or _dot_bias(view) or view.declared,
        "timm.optim.param_groups_weight_decay",
        "outermost",
    ),
    "timm_layer_decay": Preset(
        lambda view: _up_to_1d(view) or view.declared,
        "timm.optim.param_groups_layer_decay",
        "outermost",
    ),
    "hf": Preset(_hf, "transformers 5, Trainer.get_decay_parameter_names", classes=True),
    "bert_legacy": Preset(
        lambda view: _holds(view, "bias", "LayerNorm.weight"),
        "transformers' example scripts: no_decay = [...]",
    ),
    "nanogpt": Preset(_up_to_1d, "nanoGPT, model.py: configure_optimizers"),
    "detectron2": Preset(
        _detectron2,
        "detectron2.solver.get_default_optimizer_params, WEIGHT_DECAY_NORM = 0",
        classes=True,
    ),
    "yolov5": Preset(_yolov5, "yolov5, utils/torch_utils.py: smart_optimizer", classes=True),
    "open_clip": Preset(
        lambda view: _up_to_1d(view) or view.declared,
        "open_clip, src/open_clip_train/optim.py: make_wd_exclude",
        "every",
    ),
    "open_clip_legacy": Preset(
        lambda view: _up_to_1d(view) or _holds(view, "bn", "ln", "bias", "logit_scale"),
        "open_clip before optim.py, main.py: exclude",
    ),
    "megatron": Preset(
        _megatron, "Megatron-LM, megatron/core/optimizer: get_standard_config_overrides"
    ),
    "megatron_qk_layernorm": Preset(
        lambda view: None if _holds(view, "q_layernorm.", "k_layernorm.") else _megatron(view),
        "the same with apply_wd_to_qk_layernorm",
    ),
    "olmo2": Preset(
        _olmo2,
        "OLMo 2, olmo/optim.py with decay_norm_and_bias and without decay_embeddings",
        classes=True,
    ),
    "dinov2": Preset(
        lambda view: _dot_bias(view) or _holds(view, "norm", "gamma"),
        "dinov2, utils/param_groups.py: get_params_groups_with_decay",
    ),
    "big_vision": Preset(_big_vision, "big_vision, optax.py: wd_mults, by Flax's names"),
}
