"""The hooks around a step: weights are copied before it, and what it added is rescaled."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._relative.batch import Batch, Member, batches
from nnlr._relative.kinds import Group, Hyperball, Kind, Lars
from nnlr._relative.targets import Targets
from nnlr._text import listed, plural, warn
from nnlr.errors import ConfigError
from nnlr.optim._fast_path import local_part

RADIUS: Final = "radius"  # the key in a parameter's state under hyperball

# Where a step is this much smaller than what it is scaled to, and near the spacing of numbers,
# its direction is rounded away.
_BLOWN_UP: Final = 100
_SPACINGS: Final = 32


class Update:
    """What is done before and after each step of an optimizer."""

    def __init__(self, kind: Kind, targets: Targets) -> None:
        self.kind, self.targets = kind, targets
        self._copied: list[Batch] = []
        self._radii: dict[
            Any, tuple[list[Any], Tensor]
        ] = {}  # the last ones, as numbers and tensor
        self._swapped: list[tuple[Tensor, Tensor, Tensor]] = []  # a parameter, new and old gradient
        self._decays: list[tuple[Group, Any]] = []  # what was switched off for a step
        self._is_first = True
        self.hook_id = -1

    def members(self, optimizer: Optimizer, *, every: bool = True) -> Iterator[Member]:
        """The parameters that are acted on: every one, or those with a gradient."""
        for group, pairs in self.targets.members(optimizer):
            for param, target in pairs:
                if every or param.grad is not None:
                    yield param, target, group

    @torch.no_grad()
    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Copy the weights that a step will change, or change the gradients that it will read."""
        self.restore()
        has_closure = (args[1] if len(args) > 1 else kwargs.get("closure")) is not None
        if isinstance(self.kind, Lars):
            if has_closure:
                raise ConfigError(
                    "relative(..., 'lars') changes gradients before a step, and a closure computes "
                    "them in it. Call the closure first, then optimizer.step() without it."
                )
            self._adapt_gradients(self.kind, optimizer)
            return
        members = list(self.members(optimizer, every=has_closure))
        self.refuse(optimizer, members)
        self._copied = batches(members)
        for batch in self._copied:
            batch.copies = [part.clone() for part in batch.parts]

    @torch.no_grad()
    def after(self, optimizer: Optimizer, *_: object) -> None:
        """Rescale what the step has added to the weights."""
        self.restore()
        copied, self._copied = self._copied, []
        for batch in copied:
            self._rescale(optimizer, batch)
        self._is_first = False
        hooks: Any = optimizer._optimizer_step_pre_hooks  # type: ignore[attr-defined]
        if self.hook_id in hooks:  # others may write rates and decays before the next step
            hooks.move_to_end(self.hook_id)

    def restore(self) -> None:
        """Put gradients and decays back, also those of a step that has failed."""
        for param, new, old in self._swapped:
            if param.grad is new:
                param.grad = old
        for group, decay in self._decays:
            if group["weight_decay"] == 0:
                group["weight_decay"] = decay
        self._swapped, self._decays = [], []

    # --- refused

    @torch.no_grad()
    def refuse(self, optimizer: Optimizer, members: Sequence[Member]) -> None:
        """Refuse what the rule cannot move: matrices that are 0, and decay of a fixed norm."""
        if not self.kind.only_matrices:
            return
        if isinstance(self.kind, Hyperball):
            _refuse_decay(optimizer, [group for _, _, group in members])
        zeros: dict[str, str] = {}
        new = [each for each in members if not each[1].is_measured and not each[0].is_meta]
        for batch in batches(new):
            norms = batch.norms.gathered(batch.norms.of(batch.wide(batch.parts)))
            for target, values in zip(batch.targets, norms, strict=True):
                places = [str(at) for at, value in enumerate(values) if value == 0]
                target.is_measured = not places
                if places:
                    of_stack = f" (matrices {listed(places)})" if len(values) > 1 else ""
                    zeros[target.name] = target.name + of_stack
        if zeros:
            chosen = self.targets.select
            every = "nnlr.ndim(min=2)" if chosen is None else f"({chosen!r})"
            patterns = dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in zeros)
            others = " | ".join(f"nnlr.glob({pattern!r})" for pattern in patterns)
            raise ConfigError(
                f"relative(..., {self.kind.name!r}) moves a matrix by a fraction of its norm: one "
                f"that is 0 would never move. {plural(len(zeros), 'parameter', 'are')} 0: "
                f"{listed(zeros.values())}. Call it after the weights are loaded, start from other "
                f"values, or leave out what is 0: select={every} & ~({others}).",
                names=list(zeros),
            )

    # --- lars

    def _adapt_gradients(self, kind: Lars, optimizer: Optimizer) -> None:
        """Give a step gradients that are adapted, their decay included, and switch its own off."""
        # A gradient scaler may have left it to the step to divide gradients by a scale.
        scale = getattr(optimizer, "grad_scale", None)
        for group, pairs in self.targets.members(optimizer):
            decay = float(group.get("weight_decay", 0.0))
            signed = -decay if group.get("maximize") else decay
            present = [(*pair, group) for pair in pairs if pair[0].grad is not None]
            for param, target, _ in present:
                if param.grad is not None and param.grad.is_sparse:
                    raise ConfigError(
                        f"relative(..., 'lars') cannot adapt the sparse gradient of {target.name}. "
                        "Leave it out with select=, or pass sparse=False to the embedding.",
                        name=target.name,
                    )
            for batch in batches(present):
                grads = [param.grad.clone() for param in batch.params if param.grad is not None]
                parts = [local_part(grad) for grad in grads]
                weights, news = batch.wide(batch.parts), batch.wide(parts)
                if scale is not None:
                    torch._foreach_div_(news, scale)
                norms = batch.norms.of(weights), batch.norms.of(news)
                trust = batch.norms.spread(kind.trust(*norms, group["lr"], decay))
                torch._foreach_add_(news, weights, alpha=signed)
                torch._foreach_mul_(news, trust)
                if scale is not None:
                    torch._foreach_mul_(news, scale)
                batch.write(parts, news)
                for param, grad in zip(batch.params, grads, strict=True):
                    self._swap(param, grad)
            if decay:
                acted_on = {id(param) for param, _ in pairs}
                for param in group["params"]:
                    if param.grad is not None and id(param) not in acted_on:
                        decayed = param * signed if scale is None else param * signed * scale
                        self._swap(param, param.grad + decayed)
                self._decays.append((group, group["weight_decay"]))
                group["weight_decay"] = 0.0

    def _swap(self, param: Tensor, grad: Tensor) -> None:
        """Give a parameter another gradient, until the step is over."""
        if param.grad is not None:
            self._swapped.append((param, grad, param.grad))
        param.grad = grad

    # --- the others

    def _rescale(self, optimizer: Optimizer, batch: Batch) -> None:
        """Rescale what a step has added to the weights of a batch."""
        kind: Any = self.kind
        norms, parts, copies = batch.norms, batch.parts, batch.wide(batch.copies)
        news = batch.wide(parts)
        weights = norms.of(copies)
        radii = (
            self._radii_of(optimizer, batch, weights) if isinstance(kind, Hyperball) else weights
        )
        torch._foreach_sub_(news, copies)
        distances, steps = batch.at_rates(radii), norms.of(news)
        if self._is_first and kind.only_matrices:
            _warn_of_rounding(batch, weights, steps, distances)
        torch._foreach_mul_(news, norms.spread(kind.factors(distances, steps)))
        torch._foreach_add_(news, copies)
        if isinstance(kind, Hyperball):
            sizes = norms.of(news)
            to_radius = torch.where((steps > 0) & (sizes > 0), radii / sizes, 1.0)
            torch._foreach_mul_(news, norms.spread(to_radius))
        batch.write(parts, news)

    def _radii_of(self, optimizer: Optimizer, batch: Batch, weights: Tensor) -> Tensor:
        """The norms that weights keep: those before their first step, which their state holds."""
        states = [optimizer.state[param] for param in batch.params]
        counts = batch.norms.counts
        if any(len(_numbers(s)) != count for s, count in zip(states, counts, strict=True)):
            for state, values in zip(states, batch.norms.gathered(weights), strict=True):
                if len(_numbers(state)) != len(values):
                    state[RADIUS] = values[0] if len(values) == 1 else values
        radii = [_numbers(state) for state in states]
        key = id(batch.params[0])
        if key not in self._radii or self._radii[key][0] != radii:
            self._radii[key] = radii, batch.norms.scattered(radii, weights)
        return self._radii[key][1]


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
            f"scaled up is partly rounding: {listed(names)}. Multiply the loss by 1000 or more, "
            "which changes no rate here, or use a class whose steps do not shrink with the "
            "gradient, such as Adam or Muon."
        )
