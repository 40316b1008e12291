"""LARS: a step is given gradients of the size of the weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._relative.batch import Batch, Member, batches
from nnlr._relative.kinds import Group, Lars
from nnlr._relative.targets import Targets
from nnlr._relative.update import Call, Update
from nnlr._text import listed
from nnlr.errors import ConfigError
from nnlr.optim._fast_path import local_part


class Gradients(Update):
    """Adapts gradients, their weight decay included, and switches that of the step off."""

    def __init__(self, kind: Lars, targets: Targets) -> None:
        super().__init__(kind, targets)
        self._lars = kind
        self._swapped: list[tuple[Tensor, Tensor, Tensor | None]] = []  # parameter, new, old
        self._decays: list[tuple[Group, Any]] = []  # those that are switched off

    def refuse(self, optimizer: Optimizer, members: Sequence[Member]) -> None:
        """Refuse gradients that are sparse."""
        if sparse := [
            target
            for param, target, _ in members
            if param.grad is not None and param.grad.is_sparse
        ]:
            names = [target.name for target in sparse]
            raise ConfigError(
                f"relative(..., 'lars') cannot adapt the sparse gradient of {listed(names)}. Pass "
                "sparse=False to the embedding, or leave it out: "
                f"{self._targets.without(optimizer, sparse)}.",
                names=names,
            )

    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Call | None:  # noqa: ANN401
        """Adapt the gradients; those that a closure computes, when it has."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._adapt_all(optimizer)
            return None

        def adapted() -> Any:  # noqa: ANN401 - a loss
            self.restore()
            loss = closure()
            if self.is_installed(optimizer):  # which a closure may end
                self._adapt_all(optimizer)
            return loss

        return (args[0], adapted, *args[2:]), {k: v for k, v in kwargs.items() if k != "closure"}

    def finish(self, optimizer: Optimizer) -> None:
        """Put gradients and decays back."""
        self.restore()

    def restore(self) -> None:
        """Put gradients and decays back, unless others have written them since."""
        for param, new, old in self._swapped:
            if param.grad is new:
                param.grad = old
        for group, decay in self._decays:
            if group["weight_decay"] == 0:
                group["weight_decay"] = decay
        self._swapped, self._decays = [], []

    @torch.no_grad()
    def _adapt_all(self, optimizer: Optimizer) -> None:
        """Adapt the gradients of all groups that are acted on."""
        self.restore()
        # A gradient scaler may have left it to the step to divide gradients by a scale.
        scale = getattr(optimizer, "grad_scale", None)
        for group, pairs in self._targets.members(optimizer):
            present = [(*pair, group) for pair in pairs if pair[0].grad is not None]
            self.refuse(optimizer, present)
            decay = float(group.get("weight_decay", 0.0))
            signed = -decay if group.get("maximize") else decay
            for batch in batches(present):
                self._adapt(batch, group["lr"], decay, signed, scale)
            if decay:  # which the other parameters of the group keep
                acted_on = {id(param) for param, _ in pairs}
                for param in group["params"]:
                    if param.grad is not None and id(param) not in acted_on:
                        decayed = param * signed if scale is None else param * signed * scale
                        self._swap(param, param.grad + decayed)
                self._decays.append((group, group["weight_decay"]))
                group["weight_decay"] = 0.0

    def _adapt(
        self,
        batch: Batch,
        lr: float | Tensor,
        decay: float,
        signed: float,
        scale: Tensor | None,
    ) -> None:
        """Adapt the gradients of a batch."""
        grads = [param.grad.clone() for param in batch.params if param.grad is not None]
        parts = [local_part(grad) for grad in grads]
        weights, news = batch.wide(batch.parts), batch.wide(parts)
        if scale is not None:
            torch._foreach_div_(news, scale)
        norms = batch.norms.of(weights), batch.norms.of(news)
        trust = batch.norms.spread(self._lars.trust(*norms, lr, decay))
        torch._foreach_add_(news, weights, alpha=signed)
        torch._foreach_mul_(news, trust)
        if scale is not None:
            torch._foreach_mul_(news, scale)
        batch.write(parts, news)
        for param, grad in zip(batch.params, grads, strict=True):
            self._swap(param, grad)

    def _swap(self, param: Tensor, grad: Tensor) -> None:
        """Give a parameter another gradient until the step is over."""
        self._swapped.append((param, grad, param.grad))
        param.grad = grad
