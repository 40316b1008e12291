"""Depth in language models, as ELECTRA and XLNet number it.

The originals are TensorFlow; the names here are those of the same models in transformers,
below any prefix.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final, Literal, get_args

from nnlr._arguments import choice
from nnlr.depth._family import Family, NamedPart, NamePatterns, TowerSize
from nnlr.depth._layer import Indexer

Form = Literal["as_released", "as_published"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)


def electra(form: Form = "as_released") -> Indexer:
    """ELECTRA (arXiv 2003.10555), and models named like it (BERT, RoBERTa).

    ``embeddings`` and ``embeddings_project`` are in layer 0, ``encoder.layer.i`` in layer
    i + 1, the head above the L layers of the encoder.

    Args:
        form: ``"as_released"``: the head is in layer L + 2, none in L + 1, so that the top
            of the encoder gets ``decay**2``. Its author calls that a small mistake (issues
            51 and 64 of the ELECTRA repository); the numbers of the paper were made with
            it. ``"as_published"``: the head is in layer L + 1, the top gets ``decay``.

    Raises:
        NnlrError: If ``form`` is neither; at resolve, if the names do not fit.
    """
    return Electra(form=choice(form, "form", FORMS))


@dataclass(frozen=True, repr=False)
class Electra(Family):
    what = "ELECTRA encoder"

    _: KW_ONLY
    form: Form = "as_released"

    implementations = (
        NamePatterns(
            "'encoder.layer.<n>' beside 'embeddings'",
            block=r"encoder\.layer\.(\d+)\.",
            stem=r"embeddings(?:_project)?\.",
        ),
    )

    def last(self, size: TowerSize) -> int:
        return super().last(size) + (self.form == "as_released")


def xlnet(form: Form = "as_released") -> Indexer:
    """XLNet (arXiv 1906.08237): the top layer at 1, each one below it ``decay`` slower.

    Embeddings, mask embedding and heads are outside: they learn at 1, the embeddings too,
    although every layer above them is slower. ``nnlr.depth.auto()`` puts them below.

    The original multiplies the clipped *gradients* before Adam, which hardly changes an
    Adam step: it divides by their size. Here, as everywhere in nnlr, the learning rates are
    multiplied, which is what the paper says.

    Args:
        form: ``"as_released"``: the biases of relative attention (``r_w_bias``,
            ``r_r_bias``, ``r_s_bias``) and ``seg_embed`` learn at 1 as well. The original
            holds each for all layers in one tensor, outside of what it decays.
            ``"as_published"``: all of a layer is in that layer, as the paper has it.

    Raises:
        NnlrError: If ``form`` is neither; at resolve, if the names do not fit.
    """
    return XlNet(form=choice(form, "form", FORMS))


@dataclass(frozen=True, repr=False)
class XlNet(Family):
    _call = "xlnet"
    what = "XLNet"

    _: KW_ONLY
    form: Form = "as_released"

    @property
    def implementations(self) -> Sequence[NamePatterns]:
        shared = r"(?!r_[wrs]_bias$|seg_embed$)" if self.form == "as_released" else ""
        return (
            NamePatterns(
                "'layer.<n>.rel_attn' beside 'word_embedding'",
                block=rf"layer\.(\d+)\.(?:rel_attn|ff)\.{shared}",
                stem=r"mask_emb|word_embedding",
            ),
        )

    def depth(self, named: NamedPart, size: TowerSize) -> int | None:
        return named.numbers[0] if named.part == "block" else None

    def last(self, size: TowerSize) -> int:
        return size.blocks[0] - 1


LANGUAGE: Final = (electra, xlnet)
