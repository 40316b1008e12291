"""The layer of each parameter as mmpretrain's models state it in ``get_layer_depth``.

The stem is layer 0, a block (of ConvNeXt and ResNet a few blocks) one layer each, and the
last layer is what comes after the backbone. A model without the method is read by the names of
its parameters, where these are named as in mmpretrain 1.2:

| names below ``backbone.`` | as |
|---|---|
| ``layers.3.*`` | ViT, BEiT, ViT-SAM |
| ``stages.2.blocks.3.*``, ``stages.2.downsample.*`` | Swin |
| ``layers.2.blocks.3.*`` | MixMIM |
| ``downsample_layers.1.*``, ``stages.2.3.*`` | ConvNeXt |
| ``layer3.5.*`` | ResNet of the published depths |
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from math import ceil
from typing import Final, NamedTuple

from nnlr._model.describe import ModelInfo
from nnlr._model.names import unwrap
from nnlr._text import beginnings
from nnlr.depth._layer import Layer, as_layer
from nnlr.errors import NnlrError

_PREFIX: Final = "backbone."

_WAYS_OUT: Final = (
    "Give the model get_layer_depth(name) -> (depth, number of layers), or take "
    "layer_decay_rate out and multiply with nnlr.layer_decay(rate), which finds the layers of "
    "any architecture."
)


class Reading(NamedTuple):
    """What a kind of backbone makes of names."""

    depth: Callable[[str], int]  # of a name below the backbone
    last: int  # the layer of what comes after the backbone
    neck: int  # the layer of a neck


def layer_depths(model: ModelInfo) -> list[Layer]:
    """The layer of each parameter.

    Raises:
        NnlrError: If the model does not state its layers and is not named like those known.
    """
    names = [param.name for param in model.params]
    depth_of = _own(model) or _by_names(names, model.label)
    layers = []
    for name in names:
        try:
            depth, count = depth_of(name)
            layers.append(as_layer(Layer(int(depth), int(count) - 1)))
        except Exception as error:
            raise NnlrError(
                f"{model.label} gives no layer for {name!r}: {type(error).__name__} {error}. "
                f"{_WAYS_OUT}",
                name=name,
            ) from error
    return layers


def _own(model: ModelInfo) -> Callable[[str], tuple[int, int]] | None:
    """The model's own method, or that of its backbone."""
    module = unwrap(model.module) if model.module is not None else None
    own: Callable[[str], tuple[int, int]] | None = getattr(module, "get_layer_depth", None)
    backbones = getattr(getattr(module, "backbone", None), "get_layer_depth", None)
    return own or (partial(backbones, prefix=_PREFIX) if backbones else None)


def _by_names(names: Sequence[str], label: str) -> Callable[[str], tuple[int, int]]:
    """The method that the names of the model stand for."""
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in names) else ""
    below = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    for pattern, read in _KINDS.items():
        if places := [match for name in below if (match := re.match(pattern, name))]:
            reading = read([tuple(map(int, place.groups())) for place in places])
            break
    else:
        raise NnlrError(
            f"{label} has no get_layer_depth, which mmpretrain's layer decay asks for its layers, "
            f"and its names ({beginnings(below)}) are not those of a backbone of mmpretrain. "
            f"{_WAYS_OUT}"
        )

    def depth_of(name: str) -> tuple[int, int]:
        """What ``get_layer_depth`` returns."""
        depth = reading.neck if name.startswith("neck") else reading.last
        if name.startswith(prefix):
            depth = reading.depth(name.removeprefix(prefix))
        return depth, reading.last + 1

    return depth_of


Places = Sequence[tuple[int, ...]]


def _sizes(places: Places) -> list[int]:
    """The number of blocks of each stage, from (stage, block) pairs."""
    stages = range(max(stage for stage, _ in places) + 1)
    return [max((b + 1 for s, b in places if s == stage), default=0) for stage in stages]


def _vit(places: Places) -> Reading:
    """A chain of blocks."""
    blocks = max(places)[0] + 1

    def depth(name: str) -> int:
        if name in {"cls_token", "pos_embed"} or name.startswith("patch_embed"):
            return 0
        block = re.match(r"layers\.(\d+)\.", name)
        return int(block[1]) + 1 if block else blocks + 1

    return Reading(depth, blocks + 1, blocks + 1)


def _in_stages(places: Places, stages: str, stem: str, after: int) -> Reading:
    """Stages of blocks, whose downsampling is with the last block; ``after`` them a layer."""
    ends = list(accumulate(_sizes(places), initial=0))

    def depth(name: str) -> int:
        if re.match(stem, name):
            return 0
        if block := re.match(rf"{stages}\.(\d+)\.blocks\.(\d+)\.", name):
            return ends[int(block[1])] + int(block[2]) + 1
        stage = re.match(rf"{stages}\.(\d+)\.downsample\.", name)
        return ends[int(stage[1]) + 1] if stage else ends[-1] + after

    return Reading(depth, ends[-1] + 1, ends[-1] + after)


def _swin(places: Places) -> Reading:
    """Swin: a norm at the end is with the head."""
    return _in_stages(places, "stages", "patch_embed", after=1)


def _mixmim(places: Places) -> Reading:
    """MixMIM: a norm at the end and a neck are with the last block."""
    stem = ".*(patch_embed|absolute_pos_embed|pos_embed)"
    return _in_stages(places, "layers", stem, after=0)


def _convnext(places: Places) -> Reading:
    """ConvNeXt: the third stage in threes; six layers in all, or twelve if it is long."""
    last = 12 if _sizes(places)[-2] > 9 else 6

    def depth(name: str) -> int:
        if down := re.match(r"downsample_layers\.(\d+)\.", name):
            return {0: 0, 1: 2, 2: 3, 3: last}[int(down[1])]
        if block := re.match(r"stages\.(\d+)\.(\d+)\.", name):
            return {0: 1, 1: 2, 2: 3 + int(block[2]) // 3, 3: last}[int(block[1])]
        return last + 1

    return Reading(depth, last + 1, last + 1)


# ResNet: blocks of the second and third stage -> how many of them are one layer.
_RESNETS: Final = {
    (4, 6): (2, 3),
    (4, 23): (2, 3),
    (8, 36): (4, 4),
    (24, 36): (4, 4),
    (30, 48): (5, 6),
}


def _resnet(places: Places) -> Reading:
    """ResNet: the second and third stage a few blocks a layer."""
    _, _, second, third, *_ = [*_sizes(places), 0, 0, 0]
    if (second, third) not in _RESNETS:
        raise NnlrError(
            f"mmpretrain states layers for ResNet-50, 101, 152 and 200, not for one with {second} "
            f"and {third} blocks in its second and third stage. {_WAYS_OUT}"
        )
    at_second, at_third = _RESNETS[second, third]
    start = 2 + ceil(second / at_second)
    last = start + ceil(third / at_third)

    def depth(name: str) -> int:
        if block := re.match(r"layer(\d+)\.(\d+)\.", name):
            stage, number = int(block[1]), int(block[2])
            return {1: 1, 2: 2 + number // at_second, 3: start + number // at_third, 4: last}[stage]
        return 0

    return Reading(depth, last + 1, last + 1)


# The first pattern that a name of the backbone has says what it is.
_KINDS: Final[dict[str, Callable[[Places], Reading]]] = {
    r"layers\.(\d+)\.blocks\.(\d+)\.": _mixmim,
    r"layers\.(\d+)\.": _vit,
    r"stages\.(\d+)\.blocks\.(\d+)\.": _swin,
    r"stages\.(\d+)\.(\d+)\.": _convnext,
    r"layer(\d+)\.(\d+)\.": _resnet,
}
