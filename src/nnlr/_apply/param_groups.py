"""Put a model's tensors into the groups of a plan, in torch's form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from nnlr._apply.initial_weights import refuse_unscaled
from nnlr._apply.locate import Located, locate
from nnlr._apply.lock import Locks, plan_locks
from nnlr._arguments import choice, flag, number
from nnlr._model.names import Source
from nnlr._rows.groups import Group, Locked, make_groups
from nnlr._rows.rates import Bases
from nnlr._rows.row import PlanRow
from nnlr._schedule.moved import MOVED, note
from nnlr.errors import NnlrError
from nnlr.optim._members import ALGORITHM

ParamGroup = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FittedPlan:
    """A plan on one model: checked, and no tensor changed yet."""

    groups: tuple[Group, ...]  # that have a tensor there; a pipeline stage lacks some
    located: Sequence[Located]  # the rows and their tensors
    locks: Locks
    bases: Bases
    algorithms: tuple[str, ...]  # of the whole plan, with those that train nothing here
    model: Source

    @classmethod
    def of(
        cls,
        rows: Sequence[PlanRow],
        bases: Bases,
        model: Source,
        *,
        partial: bool,
        locked: Locked,
        init: str | None,
    ) -> Self:
        """Fit the rows of a plan; the arguments are those of ``Plan.param_groups``."""
        choice(locked, "locked", ("drop", "keep"))
        located = locate(rows, model, partial=flag(partial, "partial"))
        refuse_unscaled(rows, model, init)
        names = {param.row.name for param in located}
        return cls(
            groups=tuple(
                group
                for group in make_groups(rows, bases.algorithms, locked=locked)
                if not names.isdisjoint(group.names)
            ),
            located=located,
            locks=plan_locks(located, model, keep=locked == "keep"),
            bases=bases,
            algorithms=tuple(
                dict.fromkeys([*bases.algorithms, *(r.algorithm for r in rows if r.algorithm)])
            ),
            model=model,
        )

    def part(self, algorithm: str) -> Self:
        """What one algorithm trains of it."""
        groups = tuple(group for group in self.groups if group.algorithm == algorithm)
        names = {name for group in groups for name in group.names}
        base = self.bases.of(algorithm)
        return replace(
            self,
            groups=groups,
            located=[param for param in self.located if param.row.name in names],
            bases=Bases(lr=base.lr, weight_decay=base.weight_decay, decay=base.decay),
        )

    def param_groups(
        self, *, names: bool = True, tensor_lr: bool = False, eps: object = None
    ) -> list[ParamGroup]:
        """The groups with their tensors, in the form that ``torch.optim`` takes.

        A group is split where its tensors live on different device meshes, which no optimizer
        step can mix. Tensors that are elsewhere (pipeline stages) are left out. The arguments
        are those of ``Plan.param_groups``.
        """
        tensor_of = {param.row.name: param.tensor for param in self.located}
        ready: list[ParamGroup] = []
        for group in self.groups:
            by_mesh: dict[object, list[str]] = {}
            for name in group.names:
                if name in tensor_of:
                    mesh = getattr(tensor_of[name], "device_mesh", None)
                    by_mesh.setdefault(mesh, []).append(name)
            for position, members in enumerate(by_mesh.values()):
                lr = torch.tensor(group.lr, dtype=torch.float32) if tensor_lr else group.lr
                ready.append(
                    {
                        "params": [(n, tensor_of[n]) if names else tensor_of[n] for n in members],
                        "lr": lr,
                        "weight_decay": group.weight_decay,
                        **group.options,
                        **_scaled_eps(group, eps),
                        **({} if group.algorithm is None else {ALGORITHM: group.algorithm}),
                        "name": group.name if len(by_mesh) == 1 else f"{group.name}_mesh{position}",
                        "lr_mult": group.lr_mult,
                        "wd_mult": group.wd_mult,
                        **({MOVED: note()} if group.unit else {}),
                    }
                )
        return ready


def _scaled_eps(group: Group, eps: object) -> dict[str, float]:
    """The group's setting ``eps``; nothing if it is the optimizer's."""
    if group.eps_mult == 1:
        return {}
    base = group.options.get("eps", eps)
    if base is None:
        raise NnlrError(
            f"Group {group.name!r} multiplies the optimizer's eps by {group.eps_mult:g}, "
            "and there is no eps to multiply: pass eps=, for example eps=1e-8."
        )
    return {"eps": number(base, f"eps of group {group.name!r}") * group.eps_mult}
