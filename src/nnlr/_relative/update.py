"""What is done before and after each step of an optimizer, for any kind of relative update."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nnlr._relative.batch import Member
from nnlr._relative.kinds import Kind
from nnlr._relative.targets import Targets

# The arguments of a step, by position and by name.
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Update(ABC):
    """A relative update of an optimizer: its hooks."""

    def __init__(self, kind: Kind, targets: Targets) -> None:
        self.kind, self._targets = kind, targets
        self._hook_id: int | None = None

    def members(self, optimizer: Optimizer, *, every: bool = True) -> Iterator[Member]:
        """The parameters that are acted on: every one, or those with a gradient."""
        for group, pairs in self._targets.members(optimizer):
            for param, target in pairs:
                if every or param.grad is not None:
                    yield param, target, group

    @abstractmethod
    def refuse(self, optimizer: Optimizer, members: Sequence[Member]) -> None:
        """Refuse parameters that cannot be acted on; changes nothing."""

    @abstractmethod
    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Call | None:  # noqa: ANN401
        """Prepare a step; what is returned stands in for its arguments."""

    @abstractmethod
    def finish(self, optimizer: Optimizer) -> None:
        """Do what is left to do after a step."""

    @abstractmethod
    def restore(self) -> None:
        """Undo what was prepared for a step that has failed."""

    def end(self, optimizer: Optimizer) -> None:
        """Leave the optimizer as it would be without it."""
        self.restore()

    @torch.no_grad()
    def after(self, optimizer: Any, *_: object) -> None:  # noqa: ANN401 - private attributes
        """Finish a step, and see to it that the next one is prepared last of all.

        The hooks of others may write rates and decays before it.
        """
        self.finish(optimizer)
        optimizer._optimizer_step_pre_hooks.move_to_end(self._hook_id)

    def is_installed(self, optimizer: Any) -> bool:  # noqa: ANN401 - private attributes
        """Whether it still acts on an optimizer."""
        return self._hook_id in optimizer._optimizer_step_pre_hooks

    def install(self, optimizer: Optimizer) -> RemovableHandle:
        """Hook into an optimizer."""
        handle = Handle(optimizer, self)
        self._hook_id = handle.id
        return handle


class Handle(RemovableHandle):
    """Ends a relative update."""

    def __init__(self, optimizer: Any, update: Update) -> None:  # noqa: ANN401 - private attributes
        before, after = (
            optimizer._optimizer_step_pre_hooks,
            optimizer._optimizer_step_post_hooks,
        )
        super().__init__(before, extra_dict=after)
        before[self.id], after[self.id] = update.before, update.after
        after.move_to_end(self.id, last=False)  # others may write the rates of the next step
        self._update, self._optimizer = update, weakref.ref(optimizer)

    def remove(self) -> None:
        super().remove()
        if (optimizer := self._optimizer()) is not None:
            self._update.end(optimizer)


def updates_of(optimizer: Any) -> list[Update]:  # noqa: ANN401 - private attributes
    """The relative updates that act on an optimizer."""
    hooks = getattr(optimizer, "_optimizer_step_pre_hooks", {}).values()
    owners = [getattr(hook, "__self__", None) for hook in hooks]
    return [owner for owner in owners if isinstance(owner, Update)]
