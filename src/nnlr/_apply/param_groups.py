"""Put a model's tensors into the groups of a plan, in torch's form."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nnlr._apply.locate import Located
from nnlr._apply.lock import Locks
from nnlr._arguments import number
from nnlr._rows.groups import Group
from nnlr._rows.rates import Bases
from nnlr.errors import NnlrError

ParamGroup = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fit:
    """A plan on one model: checked, and nothing touched yet.

    Attributes:
        groups: The groups that have a tensor there; a pipeline stage lacks some.
        located: The rows and their tensors.
        locks: The locks that go with the groups.
        bases: The base rates.
    """

    groups: tuple[Group, ...]
    located: Sequence[Located]
    locks: Locks
    bases: Bases

    @classmethod
    def of(
        cls,
        groups: Iterable[Group],
        located: Sequence[Located],
        locks: Locks,
        bases: Bases,
    ) -> "Fit":
        """Keep the groups that have a tensor among the located ones."""
        here = {found.row.name for found in located}
        present = (group for group in groups if not here.isdisjoint(group.names))
        return cls(tuple(present), located, locks, bases)

    def fill(
        self, *, names: bool = True, tensor_lr: bool = False, eps: object = None
    ) -> list[ParamGroup]:
        """The groups with their tensors; see :func:`param_groups`."""
        return param_groups(self.groups, self.located, names=names, tensor_lr=tensor_lr, eps=eps)


def param_groups(
    groups: Iterable[Group],
    located: Iterable[Located],
    *,
    names: bool = True,
    tensor_lr: bool = False,
    eps: object = None,
) -> list[ParamGroup]:
    """Put tensors into groups, in the form that ``torch.optim`` takes.

    A group is split where its tensors live on different device meshes, which no optimizer
    step can mix. Tensors that are elsewhere (pipeline stages) are left out.

    Args:
        groups: The groups of a plan.
        located: Rows and their tensors.
        names: Give ``(name, tensor)`` pairs, from which torch fills ``param_names``.
        tensor_lr: Give each group its own 0-dim tensor as ``lr``.
        eps: The optimizer's ``eps``, which ``eps_mult`` multiplies.

    Raises:
        NnlrError: If a group has an ``eps_mult`` and there is no ``eps`` to multiply.
    """
    tensor_of = {found.row.name: found.tensor for found in located}
    ready: list[ParamGroup] = []
    for group in groups:
        by_mesh: dict[object, list[str]] = {}
        for name in group.names:
            if name in tensor_of:
                by_mesh.setdefault(getattr(tensor_of[name], "device_mesh", None), []).append(name)
        for position, members in enumerate(by_mesh.values()):
            params: list[Any] = [(n, tensor_of[n]) if names else tensor_of[n] for n in members]
            ready.append(
                {
                    "params": params,
                    "lr": _tensor(group.lr) if tensor_lr else group.lr,
                    "weight_decay": group.weight_decay,
                    **group.options,
                    **_eps(group, eps),
                    "name": group.name if len(by_mesh) == 1 else f"{group.name}_mesh{position}",
                    "lr_mult": group.lr_mult,
                    "wd_mult": group.wd_mult,
                }
            )
    return ready


def _tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


def _eps(group: Group, eps: object) -> dict[str, float]:
    if group.eps_mult == 1:
        return {}
    base = group.options.get("eps", eps)
    if base is None:
        raise NnlrError(
            f"Group {group.name!r} multiplies the optimizer's eps by {group.eps_mult:g}, "
            "and there is no eps to multiply: pass eps=, for example eps=1e-8."
        )
    return {"eps": number(base, f"eps of group {group.name!r}") * group.eps_mult}
