"""Depth in vision models, as the code of the papers numbers it.

Each indexer uses the names of its reference implementation, below any prefix, and those of
the same architecture in transformers (for Swin and ConvNeXt also timm's). The number of
blocks is counted in the model. What the original does by accident is done here as well and
noted in the docstring; where that is a mistake there is an argument to undo it.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from typing import Final, Literal, get_args

from nnlr._arguments import choice
from nnlr._text import plural
from nnlr.depth._family import Family, NamedPart, NamePatterns, TowerSize
from nnlr.depth._layer import FINAL_NORMS, FinalNorm, Indexer
from nnlr.errors import NnlrError

PosEmbed = Literal["head", "stem"]

_VIT_OF_TRANSFORMERS: Final = NamePatterns(
    "'layers.<n>' beside 'embeddings.patch_embeddings' (transformers)",
    block=r"(?:layers|(?:encoder|model)\.layer)\.(\d+)\.",
    patch_embed=r"embeddings\.patch_embeddings\.",
    stem=r"embeddings\.",
    final_norm=r"(?:layer)?norm\.",
)

_VIT_OF_TORCHVISION: Final = NamePatterns(
    "'encoder.layers.encoder_layer_<n>' beside 'conv_proj' (torchvision)",
    block=r"encoder\.layers\.encoder_layer_(\d+)\.",
    patch_embed=r"conv_proj\.",
    stem=r"class_token$|encoder\.pos_embedding$",
    final_norm=r"encoder\.ln\.",
)


def vit(final_norm: FinalNorm = "head") -> Indexer:
    """Vision transformer: as in BEiT and MAE, or as in timm; torchvision's names are read too.

    ======================================== ======== ==============
    ..                                       ``head`` ``last_block``
    ======================================== ======== ==============
    cls_token, pos_embed, patch_embed        0        0
    mask_token                               0        L + 1
    reg_token, norm_pre                      L + 1    0
    blocks.i                                 i + 1    i + 1
    norm                                     L + 1    L
    head, fc_norm, rel_pos_bias, all else    L + 1    L + 1
    ======================================== ======== ==============

    L is the number of blocks. The last layer is L + 1, also in a model without a head; as
    in timm, ``last_block`` makes it L there.

    Args:
        final_norm: Where the norm after the last block counts: ``"head"`` as in BEiT
            (arXiv 2106.08254), MAE (arXiv 2111.06377) and SimMIM (arXiv 2111.09886);
            ``"last_block"`` as in timm's matcher for its ``VisionTransformer``.

    Raises:
        NnlrError: If ``final_norm`` is neither; at resolve, if the names do not fit.

    Examples:
        >>> vit(final_norm="last_block")
        vit(final_norm='last_block')
    """
    return Vit(final_norm=choice(final_norm, "final_norm", FINAL_NORMS))


@dataclass(frozen=True, repr=False)
class Vit(Family):
    what = "vision transformer"

    _: KW_ONLY
    final_norm: FinalNorm = "head"

    @property
    def implementations(self) -> Sequence[NamePatterns]:
        official = NamePatterns(
            "'blocks.<n>' beside 'patch_embed'",
            block=r"blocks\.(\d+)\.",
            patch_embed=r"patch_embed",
            stem=r"(?:cls_token|mask_token|pos_embed)$",
            final_norm=r"norm\.",
        )
        if self.final_norm == "last_block":
            official = official._replace(stem=r"cls_token|reg_token|pos_embed|norm_pre")
        return official, _VIT_OF_TRANSFORMERS, _VIT_OF_TORCHVISION

    def depth(self, named: NamedPart, size: TowerSize) -> int | None:
        if named.part == "final_norm" and self.final_norm == "last_block":
            return size.blocks[0]
        return super().depth(named, size)

    def last(self, size: TowerSize) -> int:
        bare = self.final_norm == "last_block" and "head" not in size.parts
        return size.blocks[0] + (not bare)


def dinov2() -> Indexer:
    """DINOv2 and DINOv3 (arXiv 2304.07193): tokens, positions and patches in layer 0.

    pos_embed, patch_embed, mask_token, cls_token and the registers (``register_tokens``, in DINOv3
    ``storage_tokens``, in timm ``reg_token``) are in layer 0, block i in layer i + 1, also where
    blocks are held in chunks (``blocks.<chunk>.<i>``), and everything else, the heads of
    self-supervision among it, in layer L + 1. The original runs patch_embed at 0.2 of that:
    ``layer_decay(0.9, "dinov2", patch_embed_mult=0.2)``.
    """
    return Dinov2()


@dataclass(frozen=True, repr=False)
class Dinov2(Family):
    what = "vision transformer"

    implementations = (
        NamePatterns(
            "'blocks.<n>' beside 'patch_embed'",
            block=r"blocks\.(?:\d+\.)?(\d+)\.",
            patch_embed=r"patch_embed",
            stem=r"pos_embed|(?:mask|cls|reg|register|storage)_token",
            final_norm=r"norm\.",
        ),
        _VIT_OF_TRANSFORMERS,
    )


def vitdet() -> Indexer:
    """ViTDet (arXiv 2203.16527), the rule of detectron2: only what is under ``backbone``.

    ``backbone….pos_embed`` and ``.patch_embed`` are in layer 0 and ``backbone….blocks.i`` in layer
    i + 1. All else is in layer L + 1: the feature pyramid, the heads, and by accident or not also
    the convolutions named ``residual`` inside blocks and a ``cls_token``, whose name the rule does
    not list. In detectron2 a model without a ``backbone`` gets 1 everywhere; here that is an error.
    """
    return VitDet()


@dataclass(frozen=True, repr=False)
class VitDet(Family):
    _call = "vitdet"
    what = "ViTDet backbone"

    implementations = (
        NamePatterns(
            "'backbone.*.blocks.<n>' beside 'backbone.*.patch_embed'",
            block=r"backbone(?:.*?)\.blocks\.(\d+)\.(?!(?:.*\.)?residual\.)",
            patch_embed=r"backbone.*\.patch_embed",
            stem=r"backbone.*\.pos_embed",
        ),
        NamePatterns(
            "'encoder.layer.<n>' beside 'embeddings.projection' (transformers)",
            block=r"encoder\.layer\.(\d+)\.(?!residual\.)",
            patch_embed=r"embeddings\.projection\.",
            stem=r"embeddings\.position_embeddings",
        ),
    )


def swin(pos_embed: PosEmbed = "head") -> Indexer:
    """Swin Transformer, as fine-tuned in SimMIM (arXiv 2111.09886).

    Blocks are counted through all stages: the first is in layer 1. patch_embed and
    mask_token are in layer 0, the downsampling after a stage in the layer of that stage's
    last block, norm and head in layer L + 1. timm holds the same downsampling at the start
    of the next stage; it gets the same layer.

    Args:
        pos_embed: The original does not list ``absolute_pos_embed``, which therefore learns
            like the head. ``"head"`` does the same, ``"stem"`` puts it into layer 0.

    Raises:
        NnlrError: If ``pos_embed`` is neither; at resolve, if the names do not fit.
    """
    return Swin(pos_embed=choice(pos_embed, "pos_embed", get_args(PosEmbed)))


@dataclass(frozen=True, repr=False)
class Swin(Family):
    what = "Swin Transformer"
    staged = True

    _: KW_ONLY
    pos_embed: PosEmbed = "head"

    @property
    def implementations(self) -> Sequence[NamePatterns]:
        in_stem = self.pos_embed == "stem"
        return (
            NamePatterns(
                "'layers.<n>.blocks.<n>' beside 'patch_embed'",
                block=r"layers\.(\d+)\.blocks\.(\d+)\.",
                patch_embed=r"patch_embed",
                stem=r"mask_token$|absolute_pos_embed" if in_stem else r"mask_token$",
                downsample=r"layers\.(\d+)\.downsample\.",
                final_norm=r"norm\.",
            ),
            NamePatterns(
                "'encoder.layers.<n>.blocks.<n>' beside 'embeddings' (transformers)",
                block=r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.",
                patch_embed=r"embeddings\.(?:patch_embeddings|norm)\.",
                stem=r"embeddings\.(?:mask_token|pos)" if in_stem else r"embeddings\.mask_token",
                downsample=r"encoder\.layers\.(\d+)\.downsample\.",
                final_norm=r"layernorm\.",
            ),
        )

    def depth(self, named: NamedPart, size: TowerSize) -> int | None:
        before = [0, *accumulate(size.blocks)]  # blocks below each stage, and all
        match named.numbers:
            case (stage, block):
                return before[stage] + block + 1
            case (stage,):
                starts_a_stage = len(size.blocks) - 1 in size.downsampled
                return before[stage if starts_a_stage else stage + 1]
        return super().depth(named, size)


def convnext() -> Indexer:
    """ConvNeXt (arXiv 2201.03545): four stages, the third cut into groups of three blocks.

    With n blocks in the third stage and N = 3 + ceil(n / 3), which is 12 for the 27 blocks
    of S, B, L and XL, and 6 for the 9 blocks of T in detection:

    ================ =============== ====================
    stage            blocks          downsampling before
    ================ =============== ====================
    1                1               0 (the stem)
    2                2               2
    3                3 + block // 3  3
    4                N               N
    norm, head, rest N + 1
    ================ =============== ====================
    """
    return ConvNext()


@dataclass(frozen=True, repr=False)
class ConvNext(Family):
    _call = "convnext"
    what = "ConvNeXt"
    staged = True

    implementations = (
        NamePatterns(
            "'stages.<n>.<n>' beside 'downsample_layers.0'",
            block=r"stages\.(\d+)\.(\d+)\.",
            patch_embed=r"downsample_layers\.0\.",
            downsample=r"downsample_layers\.(\d+)\.",
            final_norm=r"norm\.",
        ),
        NamePatterns(
            "'encoder.stages.<n>.layers.<n>' beside 'embeddings' (transformers)",
            block=r"encoder\.stages\.(\d+)\.layers\.(\d+)\.",
            patch_embed=r"embeddings\.",
            downsample=r"encoder\.stages\.(\d+)\.downsampling_layer\.",
            final_norm=r"layernorm\.",
        ),
        NamePatterns(
            "'stages.<n>.blocks.<n>' beside 'stem' (timm)",
            block=r"stages\.(\d+)\.blocks\.(\d+)\.",
            patch_embed=r"stem",
            downsample=r"stages\.(\d+)\.downsample\.",
            final_norm=r"(?:norm_pre|head\.norm)\.",
        ),
    )

    def depth(self, named: NamedPart, size: TowerSize) -> int | None:
        if named.part != "block":
            return 0 if named.part == "patch_embed" else self.last(size)
        stage, block = (*named.numbers, 0)[:2]
        if stage == 3:
            return self.last(size) - 1
        return stage + 1 + (block // 3 if stage == 2 else 0)

    def last(self, size: TowerSize) -> int:
        if len(size.blocks) != 4:
            raise NnlrError(
                f"convnext() numbers four stages; this model has "
                f"{plural(len(size.blocks), 'stage')}. Use nnlr.depth.auto().",
                stages=len(size.blocks),
            )
        return 4 + -(-size.blocks[2] // 3)


VISION: Final = (vit, dinov2, swin, convnext, vitdet)
