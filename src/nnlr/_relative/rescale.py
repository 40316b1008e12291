"""LAMB, a relative rate, hyperball: what a step has added to the weights is rescaled."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._relative.batch import Batch, Member, batches
from nnlr._relative.kinds import Group, Hyperball, Rescaling
from nnlr._relative.targets import Target, Targets
from nnlr._relative.update import Update
from nnlr._text import listed, plural, warn
from nnlr.errors import ConfigError
from nnlr.optim._fast_path import local_part

RADIUS: Final = "radius"  # the key in a parameter's state under hyperball

# Where a step is this much smaller than what it is scaled to, and near the spacing of numbers,
# its direction is rounded away.
_BLOWN_UP: Final = 100
_SPACINGS: Final = 32


class Rescale(Update):
    """Copies weights before a step, and rescales what it has added."""

    def __init__(self, kind: Rescaling, targets: Targets) -> None:
        super().__init__(kind, targets)
        self._rule = kind
        self._copied: list[tuple[Member, Tensor]] = []  # and the weights before the step
        self._has_closure = False
        self._buffers: dict[int, Tensor] = {}  # the last copies, by the ids of parameters
        # Of each batch, by its first parameter, as numbers and as a vector.
        self._radii: dict[int, tuple[list[tuple[float, ...]], Tensor]] = {}
        self._is_first = True

    @torch.no_grad()
    def refuse(self, optimizer: Optimizer, members: Sequence[Member]) -> None:
        """Refuse matrices that are 0, and decay of those that keep their norm."""
        if isinstance(self.kind, Hyperball):
            _refuse_decay(optimizer, [group for _, _, group in members])
        if self.kind.only_matrices:
            self._refuse_zeros(optimizer, members)

    @torch.no_grad()
    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        """Copy the weights that a step will change; with a closure nobody knows which."""
        self._has_closure = (args[1] if len(args) > 1 else kwargs.get("closure")) is not None
        members = list(self.members(optimizer, every=self._has_closure))
        self.refuse(optimizer, members)
        params = [param for param, _, _ in members]
        copies = [self._copy(id(param), local_part(param)) for param in params]
        self._copied = list(zip(members, copies, strict=True))
        self._buffers = {
            id(param): copy for param, copy in zip(params, copies, strict=True) if copy.is_cpu
        }

    def _copy(self, key: int, part: Tensor) -> Tensor:
        """A copy of weights; on a CPU in the memory of the last one, as fresh pages take longer."""
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != part.shape or buffer.dtype != part.dtype:
            return part.clone()
        return buffer.copy_(part)

    def finish(self, optimizer: Optimizer) -> None:
        """Rescale what the step has added to the weights."""
        copied, self._copied = self._copied, []
        if self._has_closure:  # which may have computed no gradient for some: they have not moved
            copied = [each for each in copied if each[0][0].grad is not None]
        copies = {id(param): copy for (param, _, _), copy in copied}
        for batch in batches(member for member, _ in copied):
            self._rescale(optimizer, batch, [copies[id(param)] for param in batch.params])
        self._is_first = False

    def restore(self) -> None:
        """Forget the weights before a step that has failed."""
        self._copied = []

    def end(self, optimizer: Optimizer) -> None:
        """Forget the radii too: what acts on the weights later starts from theirs."""
        super().end(optimizer)
        if isinstance(self.kind, Hyperball):
            for param, _, _ in self.members(optimizer):
                optimizer.state.get(param, {}).pop(RADIUS, None)

    def _rescale(self, optimizer: Optimizer, batch: Batch, copies: list[Tensor]) -> None:
        """Rescale what the step has added to the weights of a batch, from copies of them."""
        norms, parts, copies = batch.norms, batch.parts, batch.wide(copies)
        news = batch.wide(parts)
        keeps_norm = isinstance(self.kind, Hyperball)
        sizes = self._radii_of(optimizer, batch, copies) if keeps_norm else norms.of(copies)
        torch._foreach_sub_(news, copies)
        distances, steps = batch.at_rates(sizes), norms.of(news)
        if self._is_first and self.kind.only_matrices:
            _warn_of_rounding(batch, sizes, steps, distances)
        factors = norms.spread(self._rule.factors(distances, steps))
        for new, old, factor in zip(news, copies, factors, strict=True):
            torch.addcmul(old, new, factor, out=new)
        if keeps_norm:
            now = norms.of(news)
            to_radius = torch.where((steps > 0) & (now > 0), sizes / now, 1.0)
            torch._foreach_mul_(news, norms.spread(to_radius))
        batch.write(parts, news)

    def _radii_of(self, optimizer: Optimizer, batch: Batch, copies: list[Tensor]) -> Tensor:
        """The norms that weights keep: those before their first step, which their state holds."""
        states = [optimizer.state[param] for param in batch.params]
        counts = batch.norms.counts
        if any(len(_numbers(s)) != count for s, count in zip(states, counts, strict=True)):
            weights = batch.norms.gathered(batch.norms.of(copies))
            for state, values in zip(states, weights, strict=True):
                if len(_numbers(state)) != len(values):
                    state[RADIUS] = values[0] if len(values) == 1 else values
        radii = [_numbers(state) for state in states]
        key = id(batch.params[0])
        if key not in self._radii or self._radii[key][0] != radii:
            self._radii[key] = radii, batch.norms.scattered(radii, copies[0])
        return self._radii[key][1]

    def _refuse_zeros(self, optimizer: Optimizer, members: Sequence[Member]) -> None:
        """Refuse matrices that are 0, which would stay so; each parameter is looked at once."""
        zeros: list[Target] = []
        words = []
        new = [each for each in members if not each[1].is_measured and not each[0].is_meta]
        for batch in batches(new):
            norms = batch.norms.gathered(batch.norms.of(batch.wide(batch.parts)))
            for target, values in zip(batch.targets, norms, strict=True):
                places = [str(at) for at, value in enumerate(values) if value == 0]
                target.is_measured = not places
                if places:
                    of_stack = f" (matrices {listed(places)})" if len(values) > 1 else ""
                    zeros.append(target)
                    words.append(target.name + of_stack)
        if zeros:
            raise ConfigError(
                f"relative(..., {self.kind.name!r}) moves a matrix by a fraction of its norm: one "
                f"that is 0 would never move. {plural(len(zeros), 'parameter', 'are')} 0: "
                f"{listed(words)}. Call it after the weights are loaded, start from other values, "
                f"or leave out what is 0: {self._targets.without(optimizer, zeros)}.",
                names=[target.name for target in zeros],
            )


def _numbers(state: dict[str, Any]) -> tuple[float, ...]:
    """The radii in a parameter's state, of each of its matrices; none if it has none."""
    radius = state.get(RADIUS, ())
    return (radius,) if isinstance(radius, float) else tuple(radius)


def _refuse_decay(optimizer: Optimizer, groups: Iterable[Group]) -> None:
    """Refuse groups whose decay would shrink weights that keep their norm."""
    acted_on = {id(group) for group in groups}
    decayed = [
        str(group.get("name", f"param_groups[{at}]"))
        for at, group in enumerate(optimizer.param_groups)
        if id(group) in acted_on and float(group.get("weight_decay", 0.0)) != 0
    ]
    if decayed:
        raise ConfigError(
            "relative(..., 'hyperball') fixes the norm of each matrix, so that weight decay would "
            f"only turn its updates. {plural(len(decayed), 'group', 'have')} weight decay: "
            f"{listed(decayed)}. Build the optimizer with weight_decay=0, or multiply that of "
            "matrices by 0: nnlr.rule(nnlr.ndim(min=2), wd_mult=0).",
            groups=decayed,
        )


def _warn_of_rounding(batch: Batch, weights: Tensor, steps: Tensor, distances: Tensor) -> None:
    """Say which steps are so small that the weights cannot hold their direction."""
    spacing = torch.finfo(batch.params[0].dtype).eps
    tiny = (steps < _SPACINGS * spacing * weights) & (steps * _BLOWN_UP < distances)
    are_tiny = batch.norms.gathered(tiny.to(weights))
    names = [
        target.name
        for param, target, values in zip(batch.params, batch.targets, are_tiny, strict=True)
        if all(values) and param.grad is not None and bool(local_part(param.grad).any())
    ]
    if names:
        warn(
            f"The optimizer's own step changes {plural(len(names), 'parameter')} by less than "
            f"{_SPACINGS} spacings of {batch.params[0].dtype}, so that the direction that is "
            f"scaled up is partly rounding: {listed(names)}. Use a class whose steps do not shrink "
            "with the gradient, such as Adam or Muon. Or multiply the loss and the weight decay by "
            "1000 or more, and divide by it the rates of what is left to the class, whose steps "
            "grow by as much; those of what is acted on are what they were."
        )
