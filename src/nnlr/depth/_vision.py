"""Depth in vision models, as the code of the papers numbers it.

Each indexer uses the names of its reference implementation, below any prefix, and those of
the same architecture in transformers (for Swin and ConvNeXt also timm's). The number of
blocks is counted in the model. What the original does by accident is done here as well,
said in the docstring, and where that is a mistake there is an argument to undo it.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Literal, get_args

from nnlr._arguments import as_call, choice
from nnlr._text import plural
from nnlr.depth._family import Family, Found, Shape, Spelling, Stack
from nnlr.depth._layer import FINAL_NORMS, FinalNorm, Indexer
from nnlr.errors import NnlrError

PosEmbed = Literal["head", "stem"]

_VIT_OF_TRANSFORMERS: Final = Spelling(
    "'layers.<n>' beside 'embeddings.patch_embeddings' (transformers)",
    block=r"(?:layers|(?:encoder|model)\.layer)\.(\d+)\.",
    patch_embed=r"embeddings\.patch_embeddings\.",
    stem=r"embeddings\.",
    final_norm=r"(?:layer)?norm\.",
)


def vit(final_norm: FinalNorm = "head") -> Indexer:
    """Vision transformer: as in BEiT and MAE, or as in timm.

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
    return _Vit(choice(final_norm, "final_norm", FINAL_NORMS))


class _Vit(Stack):
    what = "vision transformer"

    def __init__(self, final_norm: FinalNorm) -> None:
        self.final_norm = final_norm

    @property
    def spellings(self) -> Sequence[Spelling]:
        official = Spelling(
            "'blocks.<n>' beside 'patch_embed'",
            block=r"blocks\.(\d+)\.",
            patch_embed=r"patch_embed",
            stem=r"(?:cls_token|mask_token|pos_embed)$",
            final_norm=r"norm\.",
        )
        if self.final_norm == "last_block":
            official = official._replace(stem=r"cls_token|reg_token|pos_embed|norm_pre")
        return official, _VIT_OF_TRANSFORMERS

    def depth(self, found: Found, shape: Shape) -> int | None:
        if found.part == "final_norm" and self.final_norm == "last_block":
            return shape.blocks[0]
        return super().depth(found, shape)

    def last(self, shape: Shape) -> int:
        bare = self.final_norm == "last_block" and "head" not in shape.parts
        return shape.blocks[0] + (not bare)

    def __repr__(self) -> str:
        return as_call(vit, final_norm=self.final_norm)


def dinov2() -> Indexer:
    """DINOv2 and DINOv3 (arXiv 2304.07193): tokens, positions and patches in layer 0.

    pos_embed, patch_embed, mask_token, cls_token and the registers (``register_tokens``,
    in DINOv3 ``storage_tokens``, in timm ``reg_token``) are in layer 0, block i in layer
    i + 1, also where blocks are held in chunks (``blocks.<chunk>.<i>``), and everything
    else, the heads of self-supervision among it, in layer L + 1. The original runs
    patch_embed at 0.2 of that:
    ``layer_decay(0.9, "dinov2", patch_embed_mult=0.2)``.
    """
    return _Dinov2()


class _Dinov2(Stack):
    what = "vision transformer"

    @property
    def spellings(self) -> Sequence[Spelling]:
        official = Spelling(
            "'blocks.<n>' beside 'patch_embed'",
            block=r"blocks\.(?:\d+\.)?(\d+)\.",
            patch_embed=r"patch_embed",
            stem=r"pos_embed|(?:mask|cls|reg|register|storage)_token",
            final_norm=r"norm\.",
        )
        return official, _VIT_OF_TRANSFORMERS

    def __repr__(self) -> str:
        return "dinov2()"


def vitdet() -> Indexer:
    """ViTDet (arXiv 2203.16527), the rule of detectron2: only what is under ``backbone``.

    ``backbone….pos_embed`` and ``.patch_embed`` are in layer 0 and ``backbone….blocks.i`` in
    layer i + 1. All else is in layer L + 1: the feature pyramid, the heads, and by accident
    or not also the convolutions named ``residual`` inside blocks and a ``cls_token``, whose
    name the rule does not list. In detectron2 a model without a ``backbone`` gets 1
    everywhere; here that is an error.
    """
    return _VitDet()


class _VitDet(Stack):
    what = "ViTDet backbone"

    @property
    def spellings(self) -> Sequence[Spelling]:
        return (
            Spelling(
                "'backbone.*.blocks.<n>' beside 'backbone.*.patch_embed'",
                block=r"backbone(?:.*?)\.blocks\.(\d+)\.(?!(?:.*\.)?residual\.)",
                patch_embed=r"backbone.*\.patch_embed",
                stem=r"backbone.*\.pos_embed",
            ),
            Spelling(
                "'encoder.layer.<n>' beside 'embeddings.projection' (transformers)",
                block=r"encoder\.layer\.(\d+)\.(?!residual\.)",
                patch_embed=r"embeddings\.projection\.",
                stem=r"embeddings\.position_embeddings",
            ),
        )

    def __repr__(self) -> str:
        return "vitdet()"


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
    return _Swin(choice(pos_embed, "pos_embed", get_args(PosEmbed)))


class _Swin(Family):
    what = "Swin Transformer"
    staged = True

    def __init__(self, pos_embed: PosEmbed) -> None:
        self.pos_embed = pos_embed

    @property
    def spellings(self) -> Sequence[Spelling]:
        listed = self.pos_embed == "stem"
        return (
            Spelling(
                "'layers.<n>.blocks.<n>' beside 'patch_embed'",
                block=r"layers\.(\d+)\.blocks\.(\d+)\.",
                patch_embed=r"patch_embed",
                stem=r"mask_token$" + r"|absolute_pos_embed" * listed,
                downsample=r"layers\.(\d+)\.downsample\.",
                final_norm=r"norm\.",
            ),
            Spelling(
                "'encoder.layers.<n>.blocks.<n>' beside 'embeddings' (transformers)",
                block=r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.",
                patch_embed=r"embeddings\.(?:patch_embeddings|norm)\.",
                stem=r"embeddings\.mask_token" + r"|embeddings\.pos" * listed,
                downsample=r"encoder\.layers\.(\d+)\.downsample\.",
                final_norm=r"layernorm\.",
            ),
        )

    def depth(self, found: Found, shape: Shape) -> int | None:
        before = [0, *accumulate(shape.blocks)]  # blocks below each stage, and all
        match found.numbers:
            case (stage, block):
                return before[stage] + block + 1
            case (stage,):
                starts_a_stage = len(shape.blocks) - 1 in shape.downsampled
                return before[stage if starts_a_stage else stage + 1]
        return 0 if found.part in {"stem", "patch_embed"} else self.last(shape)

    def last(self, shape: Shape) -> int:
        return sum(shape.blocks) + 1

    def __repr__(self) -> str:
        return as_call(swin, pos_embed=self.pos_embed)


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
    return _ConvNext()


class _ConvNext(Family):
    what = "ConvNeXt"
    staged = True

    @property
    def spellings(self) -> Sequence[Spelling]:
        return (
            Spelling(
                "'stages.<n>.<n>' beside 'downsample_layers.0'",
                block=r"stages\.(\d+)\.(\d+)\.",
                patch_embed=r"downsample_layers\.0\.",
                downsample=r"downsample_layers\.(\d+)\.",
                final_norm=r"norm\.",
            ),
            Spelling(
                "'encoder.stages.<n>.layers.<n>' beside 'embeddings' (transformers)",
                block=r"encoder\.stages\.(\d+)\.layers\.(\d+)\.",
                patch_embed=r"embeddings\.",
                downsample=r"encoder\.stages\.(\d+)\.downsampling_layer\.",
                final_norm=r"layernorm\.",
            ),
            Spelling(
                "'stages.<n>.blocks.<n>' beside 'stem' (timm)",
                block=r"stages\.(\d+)\.blocks\.(\d+)\.",
                patch_embed=r"stem",
                downsample=r"stages\.(\d+)\.downsample\.",
                final_norm=r"(?:norm_pre|head\.norm)\.",
            ),
        )

    def depth(self, found: Found, shape: Shape) -> int | None:
        if found.part != "block":
            return 0 if found.part == "patch_embed" else self.last(shape)
        stage, block = (*found.numbers, 0)[:2]
        if stage == 3:
            return self.last(shape) - 1
        return stage + 1 + (block // 3 if stage == 2 else 0)

    def last(self, shape: Shape) -> int:
        if len(shape.blocks) != 4:
            raise NnlrError(
                f"convnext() numbers four stages; this model has "
                f"{plural(len(shape.blocks), 'stage')}. Use nnlr.depth.auto().",
                stages=len(shape.blocks),
            )
        return 4 + -(-shape.blocks[2] // 3)

    def __repr__(self) -> str:
        return "convnext()"
