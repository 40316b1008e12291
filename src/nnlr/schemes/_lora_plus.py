"""LoRA+: the second matrix of a low-rank adapter learns faster than the first.

    lr(A) = base,   lr(B) = ratio * base,   where W' = W + scale * B A and B starts at 0

Hayou, Ghosh and Yu 2024 (arXiv 2402.12354): with one rate for both, features are not learned
efficiently in wide models; B needs a rate larger by a factor that grows with width, in
practice a constant such as 16.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from torch import nn

from nnlr._arguments import Written, as_call, choice, number
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._model.names import Slot, lineage
from nnlr.errors import ConfigError, NnlrError

Grouping = Literal["nnlr", "peft"]

# PEFT's default for `loraplus_lr_embedding`, an absolute rate.
PEFT_EMBEDDING_LR: Final = 1e-6

_EMBEDDING_B: Final = re.compile(r"(^|\.)lora_?embedding_?b")

_EMBEDDING: Final = "peft.tuners.lora.layer.Embedding"


def lora_plus(
    ratio: float = 16.0,
    *,
    embedding_ratio: float | None = None,
    grouping: Grouping = "nnlr",
    embedding_lr: float | None = None,
) -> Scheme:
    """LoRA+: ``lr_mult = ratio`` for every B of a low-rank adapter, 1 for all else.

    What has role ``lora_b`` is a B: PEFT's ``lora_B`` and ``lora_embedding_B`` of whatever
    adapter, and those written by hand under such names. DoRA magnitudes, biases and
    ``modules_to_save`` keep the base rate. Weight decay is left alone. Reference: arXiv
    2402.12354.

    Args:
        ratio: Learning rate of B by that of A, > 0. The paper suggests 2**4 with a base rate
            below LoRA's usual one, by about a half; the two are tuned together. Below 1 it
            is for adapters whose A starts at 0.
        embedding_ratio: The same for adapters of embeddings, > 0; by default ``ratio``.
        grouping: ``"nnlr"`` as above, or ``"peft"`` for exactly what
            ``peft.optimizers.create_loraplus_optimizer`` does: ``ratio`` also for every 1-D
            parameter (trained biases, norms, DoRA magnitudes), no decay for those of them
            that are called bias or sit in a LayerNorm, and an absolute rate for both
            matrices of embeddings. Its ``loraplus_weight_decay`` is the base weight decay.
        embedding_lr: That absolute rate, >= 0, for ``grouping="peft"``; by default PEFT's
            1e-6.

    Raises:
        NnlrError: If a number is out of range; at resolve, if ``grouping="peft"`` is given
            tensors without their model.
        ConfigError: If an argument of one grouping is given to the other.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> adapter = nn.ModuleDict(
        ...     {"lora_A": nn.Linear(8, 2, bias=False), "lora_B": nn.Linear(2, 8, bias=False)}
        ... )
        >>> plan = nnlr.resolve(adapter, lora_plus(16), lr=1e-4, weight_decay=0)
        >>> [row.lr_mult for row in plan]
        [1.0, 16.0]
    """
    ratio = number(ratio, "ratio", above=0)
    if choice(grouping, "grouping", get_args(Grouping)) == "peft":
        if embedding_ratio is not None:
            raise ConfigError(
                "grouping='peft' gives embeddings an absolute rate: pass embedding_lr= "
                "instead of embedding_ratio=."
            )
        absolute = PEFT_EMBEDDING_LR if embedding_lr is None else embedding_lr
        return PeftLoraPlus(ratio, number(absolute, "embedding_lr"))
    if embedding_lr is not None:
        raise ConfigError(
            "embedding_lr= is a part of grouping='peft'. Pass embedding_ratio=, or add a rule "
            "for the absolute rate: nnlr.rule('*lora_embedding_*', lr=...)."
        )
    embedding_ratio = ratio if embedding_ratio is None else embedding_ratio
    return LoraPlus(ratio, number(embedding_ratio, "embedding_ratio", above=0))


@dataclass(frozen=True, repr=False, eq=False)
class LoraPlus(Scheme):
    """LoRA+ by role; made by :func:`lora_plus`."""

    ratio: float
    embedding_ratio: float

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The ratio for every B."""
        other = Factor(lr_mult=self.ratio, why="second matrix of an adapter (B)")
        embedding = Factor(
            lr_mult=self.embedding_ratio, why="second matrix of an embedding's adapter (B)"
        )
        # PEFT calls the adapter of an embedding lora_embedding_A and lora_embedding_B.
        return [
            NEUTRAL
            if param.role != "lora_b"
            else (embedding if _EMBEDDING_B.search(param.name.lower()) else other)
            for param in model.params
        ]

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """No B at all, or none that is trained."""
        return _without_b(self, model)

    def written_as(self) -> Written:
        """The call of :func:`lora_plus`."""
        embedding_ratio = None if self.embedding_ratio == self.ratio else self.embedding_ratio
        return as_call(lora_plus, self.ratio, embedding_ratio=embedding_ratio)


@dataclass(frozen=True, repr=False, eq=False)
class PeftLoraPlus(Scheme):
    """LoRA+ as PEFT groups parameters; made by :func:`lora_plus`."""

    ratio: float
    embedding_lr: float

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for each of PEFT's groups."""
        of_group = {
            "embedding": Factor(lr=self.embedding_lr, why="adapter of an embedding"),
            "B": Factor(lr_mult=self.ratio, why="lora_B, or 1-D"),
            "B without decay": Factor(
                lr_mult=self.ratio, wd_mult=0, why="1-D: a bias, or in a LayerNorm"
            ),
            "A": NEUTRAL,
        }
        return [
            of_group[_peft_group(places[0], param, self)]
            for places, param in zip(model.places, model.params, strict=True)
        ]

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """No B at all, none that is trained, or other 1-D parameters sped up as well."""
        findings = _without_b(self, model)
        vectors = [
            param.name
            for places, param in zip(model.places, model.params, strict=True)
            if param.requires_grad
            and param.role != "lora_b"
            and _peft_group(places[0], param, self).startswith("B")
        ]
        if self.ratio != 1 and vectors:
            findings.append(
                note(
                    "lora-plus-vectors",
                    vectors,
                    f"grouping='peft' trains these {self.ratio:g} times faster too, though they "
                    "are no B of an adapter",
                    "The default grouping='nnlr' leaves them at the base rate.",
                )
            )
        return findings

    def written_as(self) -> Written:
        """The call of :func:`lora_plus`."""
        embedding_lr = None if self.embedding_lr == PEFT_EMBEDDING_LR else self.embedding_lr
        return as_call(lora_plus, self.ratio, grouping="peft", embedding_lr=embedding_lr)


def _peft_group(slot: Slot, param: ParamInfo, who: object) -> str:
    """The group in which PEFT puts a parameter."""
    if slot.node is None:
        raise NnlrError(
            f"{who!r} asks for the classes of modules, but there are only tensors: pass the "
            "model, or use grouping='nnlr'."
        )
    layer = slot.node.parent  # its tensors are in a dict, by the name of the adapter
    cls: type = type(layer.module) if layer and layer.parent else object
    if _EMBEDDING in lineage(cls):
        return "embedding"
    name = slot.raw()
    if "lora_B" not in name and param.ndim != 1:
        return "A"
    decays = "bias" not in name and not any(
        isinstance(up.module, nn.LayerNorm) for up in slot.node.above() if up.parent
    )
    return "B" if decays else "B without decay"


def _without_b(scheme: Scheme, model: ModelInfo) -> list[Finding]:
    """A model on which LoRA+ has nothing to do, and why."""
    seconds = [param for param in model.params if param.role == "lora_b"]
    if any(param.requires_grad for param in seconds):
        return []
    if seconds:
        return [
            warning(
                "lora-b-frozen",
                [param.name for param in seconds],
                f"{scheme!r} reaches only frozen adapters, so it does nothing",
                "Activate one, model.set_adapter(name), or load it with is_trainable=True.",
            )
        ]
    # What may be meant: other adapters, else anything that is trained.
    trained = [param for param in model.params if param.requires_grad]
    adapters = [param for param in trained if param.role in {"adapter", "lora_a"}]
    return [
        warning(
            "no-lora-b",
            [param.name for param in adapters or trained],
            f"{scheme!r} finds no second matrix of a low-rank adapter (role lora_b) in "
            f"{model.label}, so LoRA+ does nothing; look at what is trained",
            "Add the adapters before resolve; for adapters of other names pass "
            "resolve(..., roles={selector: 'lora_b'}).",
        )
    ]
