"""Layer sampling: a few blocks are trained at a time, so that gradients and state fit in memory.

    lr_mult(b, t) = 1 if b is in S(step // every) else 0, locked        |S(k)| = active

LISA (Pan et al. 2024, arXiv 2403.17919) draws S(k) anew for each period, uniformly, and trains
embeddings and head all the time. BAdam (Luo, Yu and Li 2024, arXiv 2404.02827) takes the blocks one
after another. S is a function of seed and period alone: the same on all ranks, and after a resume.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from random import Random
from typing import TYPE_CHECKING, Final, Literal, get_args

from nnlr._arguments import Written, as_call, choice, flag, is_listing, whole
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.moves import Move, Moves, Progress, own_name, unit_of
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo
from nnlr._text import plural, shown
from nnlr.depth._given import as_indexer, written_indexer
from nnlr.depth._layer import Indexer, Layer, layers_of
from nnlr.errors import NnlrError
from nnlr.schemes._layer_decay import AnyIndexer

if TYPE_CHECKING:
    from nnlr._rows.units import Unit

Order = Literal["random", "shuffled", "descending", "ascending"]
_ORDERS: Final[tuple[Order, ...]] = get_args(Order)

Of = Literal["blocks", "layers"]
_OF: Final[tuple[Of, ...]] = get_args(Of)

_WORDS: Final[dict[Order, str]] = {
    "random": "drawn anew",
    "shuffled": "each once in random order, the next",
    "descending": "from the last to the first, the next",
    "ascending": "from the first to the last, the next",
}


def layer_sampling(
    active: int = 2,
    every: int = 20,
    *,
    order: Order | Sequence[int] = "random",
    of: Of = "blocks",
    keep_state: bool = False,
    seed: int = 0,
    indexer: AnyIndexer = "auto",
) -> Scheme:
    """Layer sampling, as LISA and BAdam have it: a few blocks are trained at a time.

    For ``every`` steps ``active`` blocks are trained, then others. The rest of the blocks is
    locked: no gradient, and no state of the optimizer. What is in no block, as embeddings and the
    head, is trained all the time. Which blocks is a function of seed and step alone. References:
    arXiv 2403.17919 (LISA, the defaults), 2404.02827 (BAdam: ``layer_sampling(1, 50,
    order="descending")``).

    Args:
        active: How many blocks are trained at a time, >= 1.
        every: For how many optimizer steps, >= 1.
        order: ``"random"`` draws uniformly, anew each time, as LISA; ``"shuffled"`` has each block
            once before any comes again; ``"descending"``, from the output to the input, and
            ``"ascending"`` go round; a list of numbers of blocks, from 0 at the input, goes round
            these, and the others are not trained at all.
        of: ``"blocks"``, or ``"layers"``: what stands before the blocks and after them are layers
            that take their turns too, as BAdam's ``include_embedding``.
        keep_state: Keep the optimizer's state of locked blocks: they go on with it, and it needs
            the memory of all.
        seed: Of what is random.
        indexer: Which block a parameter is in, as in :func:`layer_decay`; a mapping names the
            blocks only.

    Raises:
        NnlrError: If an argument is out of range; at resolve, if there are fewer blocks than
            ``active``, than a number in ``order``, or than two.

    Examples:
        >>> import nnlr, torch
        >>> from torch import nn
        >>> blocks = [nn.TransformerEncoderLayer(4, 1, 8) for _ in range(6)]
        >>> net = nn.Sequential(nn.Linear(2, 4), *blocks, nn.Linear(4, 1))
        >>> plan = nnlr.resolve(net, layer_sampling(every=5), lr=0.1, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.AdamW)
        >>> attached = nnlr.attach(optimizer, plan)
        >>> for _ in range(3):
        ...     print([unit.name for unit in attached.units if unit.mult])
        ...     for _ in range(5):
        ...         optimizer.step()
        ['layer4', 'layer6']
        ['layer1', 'layer2']
        ['layer1', 'layer5']
    """
    scheme = LayerSampling(
        whole(active, "active", minimum=1),
        whole(every, "every", minimum=1),
        order=_as_order(order),
        of=choice(of, "of", _OF),
        keep_state=flag(keep_state, "keep_state"),
        seed=whole(seed, "seed"),
        indexer=as_indexer(indexer),
    )
    if isinstance(scheme.order, tuple) and len(scheme.order) < scheme.active:
        raise NnlrError(
            f"order={shown(order)} has {plural(len(scheme.order), 'block')}, and "
            f"active={scheme.active} are to be trained at a time.",
            value=order,
        )
    return scheme


def _as_order(value: object) -> "Order | tuple[int, ...]":
    """Return one of the words, or numbers of blocks, or refuse anything else."""
    if isinstance(value, str):
        return choice(value, "order", _ORDERS)
    numbers: tuple[int, ...] = ()
    if is_listing(value) and not isinstance(value, Mapping):
        numbers = tuple(whole(at, f"order[{i}]", minimum=0) for i, at in enumerate(value))
    if not numbers or len(set(numbers)) < len(numbers):
        raise NnlrError(
            f"order must be one of {', '.join(map(repr, _ORDERS))}, or a list of different numbers "
            f"of blocks, from 0 at the input; got {shown(value)}.",
            value=value,
        )
    return numbers


@dataclass(frozen=True, repr=False, eq=False)
class LayerSampling(Scheme):
    """Layer sampling; made by :func:`layer_sampling`."""

    active: int
    every: int
    _: KW_ONLY
    order: Order | tuple[int, ...]
    of: Of
    keep_state: bool
    seed: int
    indexer: Indexer

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """A factor of 1 and with the move for each block; nothing outside."""
        layers = layers_of(self.indexer, model)
        sampled = dict.fromkeys(layer for layer in layers if layer and self._takes(layer))
        towers = [layer.tower for layer in sampled]
        in_order = sorted(sampled, key=lambda layer: (towers.index(layer.tower), layer.depth))
        names = list(dict.fromkeys(map(unit_of, in_order)))
        self._check(len(names), model)
        move = Sampling(self, names)
        factor_of: dict[Layer | None, Factor] = {
            layer: Factor(
                why=f"{self.of[:-1]} {names.index(unit_of(layer))} of {len(names)}",
                layer=layer,
                moves=Moves("lr", unit_of(layer), self._how(len(names))),
                move=move,
            )
            for layer in in_order
        }
        return [factor_of.get(layer, NEUTRAL) for layer in layers]

    def _takes(self, layer: Layer) -> bool:
        """Whether a layer takes its turn."""
        return self.of == "layers" or layer.part == "block"

    def _check(self, count: int, model: ModelInfo) -> None:
        """Refuse a model with too few blocks."""
        last = self.order if isinstance(self.order, tuple) else (0,)
        needed = max(2, self.active, max(last) + 1)
        if count < needed:
            layers = " or let layers take turns, of='layers'," if self.of == "blocks" else ""
            raise NnlrError(
                f"{self.indexer!r} finds {plural(count, self.of[:-1])} in {model.label}, and "
                f"{self!r} needs at least {needed}. Name them by a mapping, indexer="
                f"{{'layers.0.*': 0, 'layers.1.*': 1, ...}},{layers} or lower the numbers.",
                blocks=count,
            )

    def _how(self, count: int) -> str:
        """The move in words."""
        words = (
            _WORDS[self.order] if isinstance(self.order, str) else f"of {[*self.order]}, the next"
        )
        return f"{self.active} of {count} {self.of} at a time, {words} after {self.every} steps"

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The indexer's."""
        return self.indexer.findings(model)

    def written_as(self) -> Written:
        """The call of :func:`layer_sampling`."""
        return as_call(
            layer_sampling,
            active=self.active,
            every=self.every,
            order=self.order if isinstance(self.order, str) else [*self.order],
            of=self.of,
            keep_state=self.keep_state,
            seed=self.seed,
            indexer=written_indexer(self.indexer),
        )


class Sampling(Move):
    """Which blocks are trained in each period."""

    locks = norm_eval = True

    def __init__(self, scheme: LayerSampling, blocks: Sequence[str]) -> None:
        self.scheme, self.blocks = scheme, blocks
        self.drops_state = not scheme.keep_state

    def due(self, now: Progress, units: "Sequence[Unit]") -> bool:
        """At the first step of each period."""
        return now.step % self.scheme.every == 0

    def mults(self, now: Progress, units: "Sequence[Unit]") -> Sequence[float]:
        """Return 1 for the blocks of this period, 0 for the others."""
        names = [own_name(unit.name, self.blocks) for unit in units]  # without what is frozen
        trained = self._trained(now.step // self.scheme.every, {*names})
        return [float(name in trained) for name in names]

    def _trained(self, period: int, present: set[str]) -> set[str]:
        """Return the names of the blocks that are trained in a period."""
        active, order = self.scheme.active, self.scheme.order
        blocks = self.blocks
        if isinstance(order, tuple):
            blocks = [blocks[at] for at in order]
        blocks = [name for name in blocks if name in present]
        first, draw = period * active, period
        if order == "shuffled":
            periods = -(-len(blocks) // active)  # of a pass, in which each block comes
            draw, first = period // periods, period % periods * active
        if order == "random":
            first = 0
        if order in {"random", "shuffled"}:
            blocks = self._mixed(blocks, draw)
        if order == "descending":
            blocks = blocks[::-1]
        return {blocks[(first + at) % len(blocks)] for at in range(min(active, len(blocks)))}

    def _mixed(self, blocks: list[str], draw: int) -> list[str]:
        """Return the blocks in an order that is random, and a function of seed and draw."""
        random = Random(f"{self.scheme.seed} {draw}")  # noqa: S311 - no secret
        keys = {name: random.random() for name in blocks}
        return sorted(blocks, key=lambda name: keys[name])
