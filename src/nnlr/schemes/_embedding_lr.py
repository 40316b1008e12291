"""Learning rates of embedding tables, which scale with width unlike those of matrices.

    decoupled    lr(E) = lr(U) = the rate given        E embeddings, U output layers
    sqrt_width   lr(E) = base_lr * mult * (width / base_width) ** 0.5
    width        lr(E) = base_lr * mult * (width / base_width)

decoupled: ``--decoupled-lr`` of Megatron-LM. sqrt_width: Hayou and Liu 2025, arXiv
2506.15025. width: Kalra and Barkeshli 2026, arXiv 2605.21486.
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal

from torch import nn

from nnlr._arguments import as_call, choice, flag, number
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, warning
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._model.names import Slot
from nnlr._text import plural
from nnlr.errors import ConfigError, PatternError

EmbeddingRule = Literal["decoupled", "sqrt_width", "width"]

_EXPONENT: Final[dict[EmbeddingRule, float]] = {"sqrt_width": 0.5, "width": 1.0}

_RULES: Final[tuple[EmbeddingRule, ...]] = ("decoupled", "sqrt_width", "width")


def embedding_lr(
    rule: EmbeddingRule,
    *,
    lr: float | None = None,
    base_width: float | None = None,
    mult: float = 1.0,
    position: bool = False,
) -> Scheme:
    """Give embedding tables a learning rate of their own.

    ``"decoupled"`` sets the absolute ``lr`` for embeddings and output layers. The other two
    give embeddings alone ``lr_mult = mult * (width / base_width) ** a``, a = 1/2 for
    ``"sqrt_width"`` and 1 for ``"width"``; width is the embedding dimension of each table,
    read from its shape. All are rules for Adam and its like.
    References: Megatron-LM (``--decoupled-lr``), arXiv 2506.15025, arXiv 2605.21486.

    Args:
        rule: Which of the three. There is no default: the papers disagree.
        lr: The rate for ``"decoupled"``, >= 0; the other rules take none.
        base_width: For the other two: the width, > 0, at which ``mult`` was found. It has
            no default either: a ratio means something only relative to a width that was
            tuned. 1 gives the factor ``width`` itself, as in the paper.
        mult: Ratio of embedding to base rate at ``base_width``, >= 0.
        position: Whether position embeddings as wide as an embedding count as well. They do
            not in Megatron-LM, and the papers speak of the embedding layer only.

    Raises:
        NnlrError: If ``rule`` is unknown or a number out of range.
        ConfigError: If an argument is missing, or belongs to another rule.
        PatternError: At resolve, if the model has no embedding.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 64))
        >>> scheme = embedding_lr("sqrt_width", base_width=16)
        >>> plan = nnlr.resolve(net, scheme, lr=0.001, weight_decay=0)
        >>> plan["0.weight"].lr_mult, plan["1.weight"].lr_mult
        (2.0, 1.0)
    """
    choice(rule, "rule", _RULES)
    flag(position, "position")
    if rule == "decoupled":
        if base_width is not None or mult != 1:
            raise ConfigError(
                "embedding_lr('decoupled') takes an absolute lr; base_width and mult belong "
                "to 'sqrt_width' and 'width'."
            )
        if lr is None:
            raise ConfigError(
                "embedding_lr('decoupled') needs the rate: lr=..., a finite number >= 0."
            )
        rate = number(lr, "lr")
        return EmbeddingLR(rule, lr=rate, base_width=None, mult=1.0, position=position)
    if lr is not None:
        raise ConfigError(
            f"embedding_lr({rule!r}) is relative to the base rate and takes no lr; use mult, "
            "or 'decoupled'."
        )
    if base_width is None:
        raise ConfigError(
            f"embedding_lr({rule!r}) needs base_width=..., a finite number > 0: the width at "
            "which the base rate was tuned, or 1 for the bare factor."
        )
    return EmbeddingLR(
        rule,
        lr=None,
        base_width=number(base_width, "base_width", above=0),
        mult=number(mult, "mult"),
        position=position,
    )


class EmbeddingLR(Scheme):
    """Rates of embeddings; made by :func:`embedding_lr`."""

    def __init__(
        self,
        rule: EmbeddingRule,
        *,
        lr: float | None,
        base_width: float | None,
        mult: float,
        position: bool,
    ) -> None:
        self.rule = rule
        self.lr = lr
        self.base_width = base_width
        self.mult = mult
        self.position = position

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for each width of an embedding; neutral for all else."""
        widths = {width(p) for p in model.params if p.role == "embedding"}
        if not widths:
            raise self._no_embedding(model)
        made: dict[int, Factor] = {}
        factors = []
        for param in model.params:
            if not self._speaks_of(param, widths):
                factors.append(NEUTRAL)
                continue
            key = width(param) if self.lr is None else 0
            if key not in made:
                made[key] = self._factor(key)
            factors.append(made[key])
        return factors

    def _no_embedding(self, model: ModelInfo) -> PatternError:
        present = sorted({param.role for param in model.params})
        return PatternError(
            f"{self!r} finds no embedding in {model.label} "
            f"({plural(len(model.params), 'parameter')}).\n"
            f"  Roles it has: {', '.join(present) or 'none'}.\n"
            "  If it has one, say which: resolve(..., roles={pattern: 'embedding'}).",
            pattern="embedding",
            nearest=present,
        )

    def _speaks_of(self, param: ParamInfo, widths: Collection[int]) -> bool:
        if param.role == "position":  # a table of biases is no embedding
            return self.position and width(param) in widths
        return param.role == "embedding" or (self.rule == "decoupled" and param.role == "head")

    def _factor(self, width: int) -> Factor:
        if self.base_width is None:
            return Factor(lr=self.lr, why="decoupled")
        mult = self.mult * (width / self.base_width) ** _EXPONENT[self.rule]
        ratio = f"{width}/{self.base_width:g}"
        why = f"({ratio})^0.5" if self.rule == "sqrt_width" else ratio
        if self.mult != 1:
            why = f"{self.mult:g} x {why}"
        return Factor(lr_mult=mult, why=f"{why}, embedding")

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Tied tables: there the rule for inputs reaches an output layer."""
        tied = [
            param.name
            for param, places in zip(model.params, model.places, strict=True)
            if param.role == "embedding"
            and param.requires_grad
            and len(set(map(_kind, places))) > 1
        ]
        if not tied or self.rule == "decoupled":
            return ()
        return [
            warning(
                "tied-embedding-width",
                tied,
                cause=f"{self!r} raises a tensor that is the output layer as well, whose rate "
                "should not grow with width",
                fix="Untie them, or check the largest model's loss at this rate first.",
            )
        ]

    def __repr__(self) -> str:
        return as_call(
            embedding_lr,
            self.rule,
            lr=self.lr,
            base_width=self.base_width,
            mult=self.mult,
            position=self.position,
        )


def _kind(slot: Slot) -> type | None:
    """What a tensor is in one of its places: scaled embeddings are embeddings too."""
    module = slot.module
    if isinstance(module, nn.Embedding):
        return nn.Embedding
    return None if module is None else type(module)


def width(param: ParamInfo) -> int:
    """The embedding dimension: the last axis of a table of vectors."""
    return param.shape[-1]
