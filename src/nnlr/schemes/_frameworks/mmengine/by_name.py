"""Layer decay by names, of mmsegmentation, mmdetection, mmpose, BEiT and InternImage.

    lr(p) = base_lr * decay_rate ** (num_layers + 1 - layer)

and no decay for biases and tensors with one axis. The names below ``backbone.`` say the
layer; it hangs on the class of the backbone and ``decay_type`` how:

    ViT (with BEiT or MAE in its class's name; in BEiT and mmpose any): block n is layer n + 1,
        stem 0
    ConvNeXt, layer_wise: the third stage in threes, the last stage is layer num_layers
    ConvNeXt, stage_wise: stage n is layer n + 1, all downsampling layer 0
    InternImage: blocks counted through the stages by depths, downsampling with the last block

What is not named so has the full rate.

After ``LearningRateDecayOptimizerConstructor`` of mmsegmentation 1.2 and mmdetection 3.3,
``LayerDecayOptimizerConstructor`` of BEiT (unilm), ViT-Adapter, EVA and mmsegmentation,
``LayerDecayOptimWrapperConstructor`` of mmpose 1.3, and
``CustomLayerDecayOptimizerConstructor`` of InternImage (OpenGVLab; it differs between its
detectors and its segmentors, which have a ``decode_head``).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from nnlr._arguments import Written, choice
from nnlr._declare.factor import Factor
from nnlr._findings import Finding, warning
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._model.names import unwrap
from nnlr._model.scopes import module_class
from nnlr._text import plural
from nnlr.depth._layer import Layer
from nnlr.errors import NnlrError
from nnlr.schemes._frameworks.claims import Imported
from nnlr.schemes._frameworks.mmengine.settings import Constructor, Settings

_TOKENS: Final = ("backbone.cls_token", "backbone.mask_token", "backbone.pos_embed")

_TYPES: Final = ("layer_wise", "layer_wise_vit", "stage_wise")

# Of the segmentors of ViT-Adapter, EVA and InternImage: parts of the head that are in layer 0.
_QUERIES: Final = ("mask_embed", "cls_embed", "level_embed", "query_embed", "query_feat")

_ADAPTER_STEM: Final = (
    "backbone.visual_embed",
    *(f"decode_head.{part}" for part in _QUERIES),
)

_WAY_OUT: Final = "Take the constructor out and multiply with nnlr.layer_decay(rate)."


# Gives the layer of a name, and a factor on the rate beside that of the layer.
Reading = Callable[[str], tuple[int, float]]


@dataclass(frozen=True, repr=False, eq=False)
class ByName(Imported):
    """Layer decay by names; made by :func:`nnlr.mmengine`."""

    num_layers: int
    decay_rate: float
    decay_type: str

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The rate of the layer, and no decay for biases and tensors with one axis."""
        self.slots(model)  # which needs modules
        read = self.reading(model)
        factors = []
        for param in model.params:
            try:
                depth, beside = read(param.name)
            except (IndexError, KeyError, ValueError) as error:
                raise NnlrError(
                    f"{param.name!r} is in no layer that {self.decay_type} knows, so the "
                    f"constructor fails on it. {_WAY_OUT}",
                    name=param.name,
                ) from error
            last = self.num_layers + 1
            decays = not self.is_exempt(param)
            parts = [f"{self.decay_rate:g}^{last - depth}", f"layer {depth} of {last}"]
            parts += [f"times {beside:g}"] * (beside != 1) + ["no decay"] * (not decays)
            factors.append(
                Factor(
                    lr_mult=self.decay_rate ** (last - depth) * beside,
                    wd_mult=float(decays),
                    why=", ".join(parts),
                    layer=Layer(depth, last) if depth <= last else None,
                )
            )
        return factors

    def reading(self, model: ModelInfo) -> Reading:
        """What gives the layer of a name in this model."""
        backbone = _part(model, "backbone")
        name = "" if backbone is None else module_class(unwrap(backbone)).__name__
        if "ConvNeXt" in name:
            return self._stage if self.decay_type == "stage_wise" else self._convnext
        if ("BEiT" in name or "MAE" in name) and self.decay_type != "stage_wise":
            return self._vit
        raise NnlrError(
            "The constructor knows the layers of ConvNeXt, and layer_wise those of BEiT and MAE, "
            f"by the class of model.backbone, which is {name or 'missing'} in {model.label}. "
            f"{_WAY_OUT}"
        )

    def is_exempt(self, param: ParamInfo) -> bool:
        """Whether a parameter does not decay."""
        name = param.name
        return param.ndim == 1 or name.endswith(".bias") or name in {"pos_embed", "cls_token"}

    def _vit(self, name: str) -> tuple[int, float]:
        """BEiT and MAE; their blocks are ``layers``, in BEiT's own code ``blocks``."""
        if name in _TOKENS or name.startswith("backbone.patch_embed"):
            return 0, 1
        if name.startswith(("backbone.layers", "backbone.blocks")):
            return int(name.split(".")[2]) + 1, 1
        return self.num_layers + 1, 1

    def _convnext(self, name: str) -> tuple[int, float]:
        """ConvNeXt, its third stage in threes."""
        last = self.num_layers
        if name in _TOKENS:
            return 0, 1
        if name.startswith("backbone.downsample_layers"):
            return {0: 0, 1: 2, 2: 3, 3: last}[int(name.split(".")[2])], 1
        if name.startswith("backbone.stages"):
            stage, block = map(int, name.split(".")[2:4])
            return {0: 1, 1: 2, 2: 3 + block // 3, 3: last}[stage], 1
        return last + 1, 1

    def _stage(self, name: str) -> tuple[int, float]:
        """ConvNeXt by stages."""
        if name in _TOKENS or name.startswith("backbone.downsample_layers"):
            return 0, 1
        if name.startswith("backbone.stages"):
            return int(name.split(".")[2]) + 1, 1
        return self.num_layers + 1, 1

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Layers beyond ``num_layers``, which learn faster than the head."""
        beyond = [
            param.name
            for param, factor in zip(model.params, self.factors(model), strict=True)
            if factor.layer is None
        ]
        if not beyond:
            return self.watch.noted
        cause = (
            f"num_layers={self.num_layers} is too small for this model: "
            f"{plural(len(beyond), 'parameter')} in deeper layers learn faster than the head"
        )
        fix = "Set num_layers to the number of layers of the backbone."
        return [*self.watch.noted, warning("beyond-num-layers", beyond, cause, fix)]


@dataclass(frozen=True, repr=False, eq=False)
class Beit(ByName):
    """The layer decay of BEiT and its followers; made by :func:`nnlr.mmengine`."""

    def reading(self, model: ModelInfo) -> Reading:
        """What gives the layer of a name in this model: names alone, if it has blocks."""
        names = [param.name for param in model.params]
        # What has a backbone.blocks comes with a constructor of its own, not mmsegmentation's.
        if any(re.match(r"backbone\.blocks\.\d+\.", name) for name in names):
            return self._adapter
        if any(re.match(r"backbone\.layers\.\d+\.(?!blocks\.)", name) for name in names):
            return self._vit
        return super().reading(model)

    def _adapter(self, name: str) -> tuple[int, float]:
        """BEiT, ViT-Adapter and EVA, whose segmentors have queries in layer 0."""
        return (0, 1) if name.startswith(_ADAPTER_STEM) else self._vit(name)


@dataclass(frozen=True, repr=False, eq=False)
class Pose(ByName):
    """The layer decay of mmpose, for a ViT of any class; made by :func:`nnlr.mmengine`."""

    def reading(self, _: ModelInfo) -> Reading:
        """What gives the layer of a name in this model."""
        return self._vit

    def is_exempt(self, param: ParamInfo) -> bool:
        """Whether a parameter does not decay."""
        return param.ndim == 1 or param.name.endswith(".bias") or "pos_embed" in param.name


@dataclass(frozen=True, repr=False, eq=False)
class InternImage(ByName):
    """InternImage's layer decay; made by :func:`nnlr.mmengine`."""

    depths: tuple[int, ...]
    offset_lr_scale: float
    backbone_small_lr: bool
    dino_head: bool

    def reading(self, model: ModelInfo) -> Reading:
        """What gives the layer of a name in this model, with the factor of small rates."""
        is_segmentor = _part(model, "decode_head") is not None
        stem = ["backbone.patch_embed"]
        if is_segmentor:
            stem += ["backbone.cb_modules.0.patch_embed"]
            stem += [f"decode_head.{part}" for part in _QUERIES]

        def read(name: str) -> tuple[int, float]:
            depth = 0
            if not name.startswith(tuple(stem)) and "level_embeds" not in name:
                depth = self._block(name)
            beside = 1.0
            if self.backbone_small_lr and self.decay_rate ** (self.num_layers + 1 - depth) < 1:
                beside *= 0.1
            if "sampling_offsets" in name or "reference_points" in name:
                if self.dino_head and depth == self.num_layers + 1:
                    beside *= 0.1
                elif not is_segmentor or "backbone" in name:
                    beside *= self.offset_lr_scale
            return depth, beside

        return read

    def _block(self, name: str) -> int:
        """The block, counted through the stages; the full depth for what is in none."""
        if not name.startswith(("backbone.layers", "backbone.levels")):
            return self.num_layers + 1
        _, _, stage, part, *rest = name.split(".")
        if part in {"downsample", "norm"}:
            return 1 + sum(self.depths[: min(int(stage) + 1, 3)])
        return 1 + sum(self.depths[: min(int(stage), 3)]) + int(rest[0])

    def is_exempt(self, param: ParamInfo) -> bool:
        """Whether a parameter does not decay."""
        exempt = ("relative_position", "norm", "sampling_offsets")
        ends = param.name.endswith(".bias")
        return param.ndim == 1 or ends or any(part in param.name for part in exempt)


def _part(model: ModelInfo, name: str) -> nn.Module | None:
    """A direct part of the model."""
    part = getattr(unwrap(model.module), name, None) if model.module is not None else None
    return part if isinstance(part, nn.Module) else None


def _learning_rate_decay(settings: Settings, call: Written) -> ByName:
    """The scheme of mmsegmentation and mmdetection."""
    decay_type = choice(settings.values.get("decay_type", "layer_wise"), "decay_type", _TYPES)
    count, rate = settings.count("num_layers"), settings.number("decay_rate")
    return ByName(settings.watch, call, count, rate, decay_type)


def _layer_decay(settings: Settings, call: Written) -> Beit:
    """The scheme of BEiT."""
    count, rate = settings.count("num_layers"), settings.number("layer_decay_rate")
    return Beit(settings.watch, call, count, rate, "layer_wise_vit")


def _pose(settings: Settings, call: Written) -> Pose:
    """The scheme of mmpose."""
    count, rate = settings.count("num_layers"), settings.number("layer_decay_rate")
    return Pose(settings.watch, call, count, rate, "layer_wise_vit")


def _intern_image(settings: Settings, call: Written) -> InternImage:
    """The scheme of InternImage."""
    return InternImage(
        settings.watch,
        call,
        settings.count("num_layers"),
        settings.number("layer_decay_rate"),
        "InternImage",
        settings.counts("depths"),
        settings.number("offset_lr_scale", 1.0),
        settings.flag("backbone_small_lr"),
        settings.flag("dino_head"),
    )


LEARNING_RATE_DECAY: Final = Constructor(
    ("num_layers", "decay_rate", "decay_type"), _learning_rate_decay
)

LAYER_DECAY: Final = Constructor(("num_layers", "layer_decay_rate"), _layer_decay)

POSE: Final = Constructor(("num_layers", "layer_decay_rate"), _pose)

INTERN_IMAGE: Final = Constructor(
    (
        *("num_layers", "layer_decay_rate", "depths", "offset_lr_scale"),
        *("backbone_small_lr", "dino_head"),
    ),
    _intern_image,
)
