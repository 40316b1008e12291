"""Hooks of an optimizer that let its state be saved and loaded by name."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nnlr._model.names import Source
from nnlr.checkpoint._names import Pairs, names_of, paired, pairs_of
from nnlr.checkpoint._report import Report
from nnlr.checkpoint._sides import NOTE
from nnlr.optim._mixed import member_of

StateDict = dict[str, Any]

Policy = Literal["code", "checkpoint"]

_LOADING: Final = "_optimizer_load_state_dict_pre_hooks"

_SAVED: Final = "_optimizer_state_dict_post_hooks"


class Hook:
    """The hook that ``load_state_dict`` calls first; it remembers names, weakly.

    ``saved_names`` are for checkpoints without names; ``load`` makes a state dict fit.
    """

    def __init__(
        self,
        model: Source | None,
        saved_names: Sequence[str] | None,
        policy: Policy,
        load: "Callable[[Hook, Optimizer, StateDict], StateDict]",
    ) -> None:
        self._model = weakref.ref(model) if isinstance(model, nn.Module) else None
        # In case the module is deleted: it may be a wrapper that nobody else refers to.
        self._names: list[tuple[str, weakref.ref[Tensor]]] = []
        self.saved_names = None if saved_names is None else list(saved_names)
        self.policy, self.fit = policy, load
        self.schemes: Sequence[str] = ()  # of the plan that made the groups
        self.report: Report | None = None  # on the state that was loaded last
        self.has_fitted = False  # whether what is being loaded fits already

    @property
    def model(self) -> Source | None:
        """The module whose parameters the optimizer trains, if it is known and alive."""
        return None if self._model is None else self._model()

    def learn(self, pairs: Pairs) -> None:
        """Remember names of tensors, before the earlier ones."""
        new = {(name, id(tensor)) for name, tensor in pairs}
        earlier = [
            (name, ref)
            for name, ref in self._names
            if (tensor := ref()) is not None and (name, id(tensor)) not in new
        ]
        self._names = [*((name, weakref.ref(tensor)) for name, tensor in pairs), *earlier]

    def pairs(self) -> Pairs:
        """Return the names of tensors: the model's as they are now, then the remembered ones."""
        tensors = [(name, ref()) for name, ref in self._names]
        remembered = [(name, tensor) for name, tensor in tensors if tensor is not None]
        return [*pairs_of(self.model), *remembered]

    def note(self, optimizer: Optimizer, state_dict: StateDict) -> None:
        """Add names and the optimizer's class to a state dict; ``state_dict`` calls this last."""
        self.mark(optimizer, state_dict["param_groups"], fitted=False)

    def mark(self, optimizer: Optimizer, packed: Sequence[StateDict], *, fitted: bool) -> None:
        """Note in each group of a state dict the class, and names if it has none.

        Groups that are ``fitted`` to this optimizer will be loaded as they are.
        """
        names = names_of(optimizer, self.pairs())
        for group, saved in zip(optimizer.param_groups, packed, strict=True):
            # Always the same keys: distributed checkpoints miss those that come and go.
            saved[NOTE] = {
                "fitted": in_order(group, names.name_of) if fitted else None,
                "classes": " ".join(classes_of(member_of(optimizer, group))),
                "schemes": "\n".join(self.schemes),
            }
            if "param_names" in group:
                saved["param_names"] = paired(group, names)
                continue
            group_names = [names.name_of.get(id(tensor)) for tensor in group["params"]]
            if None not in group_names:
                saved[NOTE]["names"] = group_names

    def __call__(self, optimizer: Optimizer, state_dict: StateDict) -> StateDict | None:
        """Make the state fit, unless that was done before."""
        return None if self.has_fitted else self.fit(self, optimizer, state_dict)

    def install(self, optimizer: Optimizer) -> RemovableHandle:
        """Hook into an optimizer, in the place of an earlier one."""
        before, after = getattr(optimizer, _LOADING), getattr(optimizer, _SAVED)
        for key in [key for key, hook in before.items() if isinstance(hook, Hook)]:
            del before[key], after[key]
        handle = RemovableHandle(before, extra_dict=after)
        before[handle.id], after[handle.id] = self, self.note
        return handle


def in_order(group: StateDict, names: Mapping[int, str]) -> str:
    """Return the names of a group's parameters in one text, to recognise the group."""
    return " ".join(names.get(id(tensor), "?") for tensor in group["params"])


def classes_of(optimizer: object) -> list[str]:
    """Return the names of an optimizer's class and of those that it derives from."""
    bases = type(optimizer).mro()
    return [cls.__name__ for cls in bases[: bases.index(Optimizer)]]


def hook_of(optimizer: Optimizer) -> Hook | None:
    """Return the hook of an optimizer, if it has one."""
    hooks = getattr(optimizer, _LOADING, {})
    return next((hook for hook in hooks.values() if isinstance(hook, Hook)), None)


def runs_hooks(optimizer: Optimizer) -> bool:
    """Whether an optimizer runs hooks; a wrapper may not."""
    return hasattr(optimizer, _LOADING)


def learn(optimizer: Optimizer, pairs: Pairs, schemes: Iterable[str]) -> None:
    """Tell an installed hook the names of tensors, and the schemes of the plan of the groups."""
    if (hook := hook_of(optimizer)) is not None:
        hook.learn(pairs)
        hook.schemes = sorted(set(schemes))
