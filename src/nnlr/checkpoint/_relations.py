"""Whether the classes that step an optimizer's groups saved what a checkpoint has of them."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nnlr.checkpoint._names import ALGORITHM, KIND
from nnlr.checkpoint._saved import Saved
from nnlr.checkpoint._sides import Group
from nnlr.checkpoint._state import MOVED, Judge, Verdict
from nnlr.optim._members import ALGORITHM as KEY
from nnlr.optim._mixed import member_of


class Relations:
    """Saved groups beside the classes that step the groups now: one class, or several."""

    def __init__(self, saved: Saved, optimizer: Optimizer) -> None:
        self._saved, self._optimizer = saved, optimizer
        self._relation: dict[tuple[int, int], bool | None] = {}
        self._judges: dict[tuple[int, bool | None], Judge] = {}
        # By what became of state, the classes that saved it and the other classes of today.
        self._others: dict[str, dict[tuple[str, str], None]] = {}

    def of(self, at: int, group: Group) -> bool | None:
        """Whether the class that steps a group saved the one at a position, if that is known."""
        member = member_of(self._optimizer, group)
        key = at, id(member)
        if key not in self._relation:
            self._relation[key] = self._saved.is_of(at, member)
        return self._relation[key]

    def verdict(
        self,
        at: int,
        group: Group,
        state: Any,  # noqa: ANN401 - whatever an optimizer keeps
        tensor: Tensor,
        settings: Group,
        *,
        whole: bool,
    ) -> Verdict:
        """Return what becomes of a state from a saved group in a group of today.

        ``settings`` are those that the group will have; of several algorithms, each keeps its own.
        """
        was, related = self._saved.groups[at], self.of(at, group)
        names = {each.get(KEY) for each in (was, group)} - {None}
        if len(names) > 1 and related is False:
            return Verdict(ALGORITHM)
        member = member_of(self._optimizer, group)
        key = id(member), related
        if key not in self._judges:
            saved = self._saved
            states = (
                saved.state.get(param_id)
                for param_id, of in zip(saved.ids, saved.group_of, strict=True)
                if self.of(of, group) == related
            )
            other, same = related is False, related is True
            self._judges[key] = Judge(member, states, other=other, same=same, packed=True)
        verdict = self._judges[key].verdict(state, tensor, settings, was, whole=whole)
        if related is False:
            pair = (*self._saved.classes(at), "another optimizer")[0], type(member).__name__
            self._others.setdefault(verdict.reason, {})[pair] = None
        return verdict

    def others(self, *, moved: bool) -> tuple[str, str]:
        """Return the classes whose state went to other classes, and to which, or none.

        Those whose state was refused, or that which goes on; others only if none was moved.
        """
        for reason in (KIND, MOVED, *(() if moved else self._others)):
            if reason in self._others:
                saved, present = zip(*self._others[reason], strict=True)
                return " and ".join(dict.fromkeys(saved)), " and ".join(dict.fromkeys(present))
        return "", ""
