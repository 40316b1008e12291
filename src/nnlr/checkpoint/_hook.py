"""What an optimizer's hooks remember, so that its state can be saved and loaded by name."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from math import isclose
from typing import Any, Final, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nnlr._model.names import Source
from nnlr._schedule.base_rate import MULTIPLIERS, scheduled
from nnlr.checkpoint._names import Pairs, names_of, pairs_of
from nnlr.checkpoint._rates import NOISE, NOTE
from nnlr.checkpoint._report import Report

StateDict = dict[str, Any]

Policy = Literal["code", "checkpoint"]

_LOADING: Final = "_optimizer_load_state_dict_pre_hooks"

_SAVED: Final = "_optimizer_state_dict_post_hooks"


class Hook:
    """What ``load_state_dict`` calls first: names, held weakly, and what to do.

    Args:
        optimizer: The optimizer; it is read here, and not kept.
        model: The model.
        saved_names: Names for checkpoints without.
        policy: Whose rates count.
        load: What to do.

    Attributes:
        saved_names: The same.
        policy: The same.
        report: What became of the state that was loaded last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: Source | None,
        saved_names: Sequence[str] | None,
        policy: Policy,
        load: "Callable[[Hook, Optimizer, StateDict], StateDict | None]",
    ) -> None:
        self._model = weakref.ref(model) if isinstance(model, nn.Module) else None
        # For when the module is gone: it may have been a wrapper that nobody kept.
        self._names: list[tuple[str, weakref.ref[Tensor]]] = []
        self.saved_names = None if saved_names is None else list(saved_names)
        self.policy, self._load = policy, load
        self._based = [key for key in MULTIPLIERS if _follows(optimizer, key)]
        self.report: Report | None = None

    def learn(self, pairs: Pairs) -> None:
        """Remember names of tensors."""
        new = [(name, weakref.ref(tensor)) for name, tensor in pairs]
        known = {(name, id(ref())) for name, ref in new}
        past = [
            (name, ref)
            for name, ref in self._names
            if (tensor := ref()) is not None and (name, id(tensor)) not in known
        ]
        self._names = [*new, *past]

    def pairs(self) -> Pairs:
        """The names of the moment."""
        model = None if self._model is None else self._model()
        held = [(name, ref()) for name, ref in self._names]
        past = [(name, tensor) for name, tensor in held if tensor is not None]
        return [*pairs_of(model), *past]

    def bases(self, optimizer: Optimizer) -> dict[str, float]:
        """The base rates that the groups start from: the defaults, if they did at first."""
        return {key: float(optimizer.defaults[key]) for key in self._based}

    def note(self, optimizer: Optimizer, state_dict: StateDict) -> None:
        """What ``state_dict`` calls last: add what the groups do not say themselves."""
        self.mark(optimizer, state_dict["param_groups"], fitted=False)

    def mark(self, optimizer: Optimizer, packed: Sequence[StateDict], *, fitted: bool) -> None:
        """Note in each group of a state dict where its rates start, and names if it has none.

        Args:
            optimizer: The optimizer.
            packed: The groups, which are changed.
            fitted: Whether they fit this optimizer already, so that loading takes them as
                they are.
        """
        # Always the same keys: distributed checkpoints miss those that come and go.
        bases = {**dict.fromkeys(MULTIPLIERS), **self.bases(optimizer)}
        known = all("param_names" in group for group in optimizer.param_groups)
        names = {} if known and not fitted else names_of(optimizer, self.pairs()).first
        for group, each in zip(optimizer.param_groups, packed, strict=True):
            found = [names.get(id(tensor)) for tensor in group["params"]]
            unnamed = "param_names" not in group and None not in found
            own = {"names": found} if unnamed else {}
            order = in_order(group, names) if fitted else None
            each[NOTE] = {"fitted": order, **bases, **own}

    def __call__(self, optimizer: Optimizer, state_dict: StateDict) -> StateDict | None:
        """Let the state fit."""
        return self._load(self, optimizer, state_dict)

    def install(self, optimizer: Optimizer) -> RemovableHandle:
        """Hook into an optimizer, in the place of an earlier one."""
        before, after = getattr(optimizer, _LOADING), getattr(optimizer, _SAVED)
        for key in [key for key, each in before.items() if isinstance(each, Hook)]:
            del before[key], after[key]
        handle = RemovableHandle(before, extra_dict=after)
        before[handle.id], after[handle.id] = self, self.note
        return handle


def in_order(group: StateDict, names: Mapping[int, str]) -> str:
    """The parameters of a group, by which it is known again."""
    return " ".join(names.get(id(tensor), "?") for tensor in group["params"])


def _follows(optimizer: Optimizer, key: str) -> bool:
    """Whether the groups start from the optimizer's default of a rate, by multipliers."""
    mult, base = MULTIPLIERS[key], float(optimizer.defaults.get(key) or 0.0)
    marked = [group for group in optimizer.param_groups if mult in group]
    rate = scheduled(optimizer).get(key)
    # A group that was added to a schedule begins at the base rate of that moment.
    now = base if rate is None else rate.value()
    return (
        bool(marked)
        and bool(base)
        and all(
            any(
                isclose(float(start), each * float(group[mult]), rel_tol=NOISE)
                for start, each in _starts(group, key, base, now)
            )
            for group in marked
            if key in group
        )
    )


def _starts(group: StateDict, key: str, base: float, now: float) -> list[tuple[Any, float]]:
    """What a group says of where it started, and the base rate it would be of."""
    if f"initial_{key}" in group:
        return [(group[f"initial_{key}"], base)]
    return [(group[key], base), (group[key], now)]


def hook_of(optimizer: Optimizer) -> Hook | None:
    """The hook of an optimizer, if it has one."""
    hooks = getattr(optimizer, _LOADING, {})
    return next((each for each in hooks.values() if isinstance(each, Hook)), None)


def runs_hooks(optimizer: object) -> bool:
    """Whether an optimizer is one of torch's kind, and not a wrapper without hooks."""
    return isinstance(optimizer, Optimizer) and hasattr(optimizer, _LOADING)


def learn_names(optimizer: Optimizer, pairs: Pairs) -> None:
    """Tell an installed hook the names of tensors that came to the optimizer later."""
    hook = hook_of(optimizer)
    if hook is not None:
        hook.learn(pairs)
