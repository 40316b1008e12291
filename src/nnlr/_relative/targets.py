"""Which parameters a relative update acts on, and which of them are stacks of matrices."""

import weakref
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from nnlr._code.fold import Folder
from nnlr._model.describe import ModelInfo, describe
from nnlr._model.names import Source
from nnlr._relative.kinds import Kind
from nnlr._select.selector import Selector
from nnlr._select.suggestions import must_match
from nnlr.checkpoint._hook import hook_of
from nnlr.checkpoint._names import names_of
from nnlr.errors import ConfigError
from nnlr.optim._members import ALGORITHM

Group = dict[str, Any]


@dataclass
class Target:
    """A parameter: its name, and how many axes at the front count matrices."""

    name: str
    axes: int
    stack: int
    has_name: bool  # whether the name is one of the model's
    is_chosen: bool  # whether it is acted on, if its group is
    is_measured: bool = False  # whether it was looked at, and no matrix of it is 0


class Targets:
    """The parameters of an optimizer that a relative update acts on, also of later groups."""

    def __init__(
        self,
        kind: Kind,
        select: Selector | None,
        stacked: Selector | Literal[False] | None,
        algorithm: str | None,
        model: Source | None,
    ) -> None:
        self.select = select
        self._kind, self._stacked = kind, stacked
        self._algorithm, self._model = algorithm, model
        self._of: dict[int, tuple[weakref.ref[Tensor], Target]] = {}

    def members(self, optimizer: Optimizer) -> list[tuple[Group, list[tuple[Tensor, Target]]]]:
        """The groups that are acted on, each with its parameters that are."""
        groups = [
            group
            for group in optimizer.param_groups
            if self._algorithm in {None, group.get(ALGORITHM)}
        ]
        if any(self._is_new(param) for group in groups for param in group["params"]):
            self._look(optimizer)
        pairs = []
        for group in groups:
            if self.select is None and not self._kind.adapts(group):
                continue
            own = [(param, self._of[id(param)][1]) for param in group["params"]]
            pairs.append((group, [(param, target) for param, target in own if target.is_chosen]))
        return [(group, own) for group, own in pairs if own]

    def without(self, optimizer: Optimizer, strays: Collection[Target]) -> str:
        """The argument that leaves parameters out of what is acted on, as code if they have names.

        It chooses what is acted on now but for them, and nothing else.
        """
        acted_on = [target for _, pairs in self.members(optimizer) for _, target in pairs]
        if not all(target.has_name for target in acted_on):
            return "select= and model=, the model whose parameters it trains"
        left_out = {target.name for target in strays}
        chosen = [target.name for target in acted_on if target.name not in left_out]
        if not chosen:
            return "there is nothing else that it would act on"
        of_all = [target for _, target in self._of.values() if target.has_name]
        folder = Folder([target.name for target in of_all])
        if self.select is not None or not self._kind.only_matrices:
            return f"select={_any_of(folder.fold(chosen))}"
        others = [each.name for each in of_all if each.axes > 1 and each.name not in chosen]
        return f"select=nnlr.ndim(min=2) & ~({_any_of(folder.fold(others))})"

    def _is_new(self, param: Tensor) -> bool:
        """Whether a parameter has not been looked at."""
        entry = self._of.get(id(param))
        return entry is None or entry[0]() is not param

    def _look(self, optimizer: Optimizer) -> None:
        """Decide about every parameter of an optimizer."""
        hook = hook_of(optimizer)
        names = names_of(optimizer, [] if hook is None else hook.pairs()).name_of
        params = {
            id(param): (param, f"param_groups[{at}]['params'][{position}]")
            for at, group in enumerate(optimizer.param_groups)
            for position, param in enumerate(group["params"])
        }
        model = self._model if self._model is not None else hook and hook.model
        if model is None:
            model = [(names[key], param) for key, (param, _) in params.items() if key in names]
        info = describe(model) if model else None
        at_of = {id(places[0].tensor): at for at, places in enumerate(info.places)} if info else {}
        if self._model is not None and params.keys().isdisjoint(at_of):
            raise ConfigError(
                "model= has none of the parameters that the optimizer trains. Pass the model from "
                "whose parameters it was built, or leave model= out."
            )
        chosen = self._chosen(info, self.select, "select")
        stacks = self._chosen(info, self._stacked, "stacked")
        self._of = {}
        for key, (param, place) in params.items():
            at = at_of.get(key)
            name = names.get(key, place) if info is None or at is None else info.params[at].name
            role = None if info is None or at is None else info.params[at].role
            if self.select is None:
                acted_on = not self._kind.only_matrices or _is_matrix(param)
            else:
                acted_on = at in chosen
            is_stack = at in stacks if self._stacked is not None else role == "matrix"
            stack = max(param.ndim - 2, 0) if is_stack else 0
            target = Target(name, param.ndim, stack, has_name=name != place, is_chosen=acted_on)
            self._of[id(param)] = weakref.ref(param), target

    def _chosen(
        self, info: ModelInfo | None, selector: Selector | Literal[False] | None, what: str
    ) -> frozenset[int]:
        """Positions that a selector matches, which must be some."""
        if selector is None or selector is False:
            return frozenset()
        if info is None:
            raise ConfigError(
                f"{what}={selector!r} chooses by name, and the optimizer knows none. Pass model=, "
                "the model whose parameters it trains, or build it with plan.optimizer or from "
                "model.named_parameters()."
            )
        return must_match(selector, info, f"{what}={selector!r}", may_be_optional=False)


def _any_of(patterns: Collection[str]) -> str:
    """A selector of what matches one of these patterns, as code."""
    return " | ".join(f"nnlr.glob({pattern!r})" for pattern in patterns)


def _is_matrix(param: Tensor) -> bool:
    """Whether a parameter has at least two axes that are longer than 1."""
    return sum(length > 1 for length in param.shape) > 1
