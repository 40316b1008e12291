"""Plans for timm's optimizers and schedulers.

A scheduler of timm multiplies what it computes by the group's ``lr_scale``, and nothing else
of timm reads that. So groups for it hold the base rate and the multiplier apart, where groups
of ``plan.optimizer`` hold their product:

    timm      {"lr": base, "lr_scale": mult}           group["lr"] = value(t) * lr_scale
    nnlr      {"lr": base * mult, "lr_mult": mult}     group["lr"] = value(t) * lr_mult

With both keys the multiplier would be squared; no function of nnlr writes both.
"""

from collections.abc import Callable, Mapping

from torch import nn

from nnlr._apply.param_groups import ParamGroup
from nnlr._arguments import choice, flag, optional_mapping
from nnlr._declare.scheme import Scheme, as_schemes
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._resolve import resolve
from nnlr._rows.groups import Locked
from nnlr._rows.rates import Decay, Rate, make_bases
from nnlr._select.selector import Selector
from nnlr._text import shown
from nnlr.errors import NnlrError

__all__ = ["param_group_fn", "to_timm"]


def to_timm(
    plan: Plan,
    model: Source | None = None,
    *,
    partial: bool = False,
    names: bool = True,
    locked: Locked = "drop",
    eps: float | None = None,
    init: str | None = None,
) -> list[ParamGroup]:
    """The plan's groups for timm's schedulers: one ``lr`` in all, multipliers in ``lr_scale``.

    Building a scheduler of timm on the optimizer, any but ``"none"``, puts the multipliers
    to work. Without one, and under schedulers of torch, transformers or
    :func:`nnlr.schedule`, every group would train at the base rate: use ``plan.optimizer``
    or ``plan.param_groups`` there.

    Args:
        plan: The plan.
        model: The model; ``None`` for the one resolved.
        partial: As in :meth:`nnlr.Plan.param_groups`; so are ``names``, ``locked``, ``eps``
            and ``init``.
        names: See ``partial``.
        locked: See ``partial``.
        eps: See ``partial``.
        init: See ``partial``.

    Returns:
        Groups with ``params``, ``lr``, ``lr_scale``, ``weight_decay``, ``name`` and options.

    Raises:
        NnlrError: If it is no plan; as a ``PlanMismatchError`` if the model is not the one
            resolved.

    Examples:
        >>> import nnlr, torch
        >>> from nnlr.integrations.timm import to_timm
        >>> net = torch.nn.Linear(2, 1)
        >>> plan = nnlr.resolve(net, nnlr.rule("bias", lr_mult=0.5), lr=0.1, weight_decay=0)
        >>> [(group["lr"], group["lr_scale"]) for group in to_timm(plan)]
        [(0.1, 1.0), (0.1, 0.5)]
    """
    if not isinstance(plan, Plan):
        raise NnlrError(
            f"to_timm needs a plan, got {shown(plan)}. Make one: nnlr.resolve(model, scheme, "
            "lr=..., weight_decay=...)."
        )
    groups = plan.param_groups(
        model, partial=partial, names=names, locked=locked, eps=eps, init=init
    )
    bases = plan.algorithms

    def base_of(group: ParamGroup) -> float:
        return bases[group["algorithm"]].lr if "algorithm" in group else plan.lr

    return [
        {key: value for key, value in group.items() if key not in {"lr_mult", "wd_mult"}}
        | {"lr": base_of(group), "lr_scale": group["lr_mult"]}
        for group in groups
    ]


def param_group_fn(
    *schemes: Scheme,
    lr: Rate,
    weight_decay: Rate,
    decay: Decay = "coupled",
    tied: Mapping[str, str] | None = None,
    roles: Mapping[str | Selector, str] | None = None,
    names: bool = True,
    locked: Locked = "drop",
) -> Callable[[nn.Module], list[ParamGroup]]:
    """Schemes for ``timm.optim.create_optimizer_v2(model, opt, lr=lr, param_group_fn=...)``.

    timm calls it with the model and hands what it returns to the optimizer as it is. The
    groups carry their rates, so ``lr`` and ``weight_decay`` of ``create_optimizer_v2`` are
    the optimizer's defaults and nothing else: pass the same numbers.

    Args:
        *schemes: Schemes, which multiply.
        lr: Base learning rate, finite, > 0.
        weight_decay: Base weight decay, finite, >= 0.
        decay: As in :func:`nnlr.resolve`; so are ``tied`` and ``roles``.
        tied: See ``decay``.
        roles: See ``decay``.
        names: As in :func:`to_timm`; so is ``locked``.
        locked: See ``names``.

    Raises:
        NnlrError: If an argument is not what it should be, such as a plan for a scheme.

    Examples:
        >>> import nnlr, torch
        >>> from nnlr.integrations.timm import param_group_fn
        >>> groups_of = param_group_fn(nnlr.rule("bias", wd_mult=0), lr=0.1, weight_decay=0.01)
        >>> [group["weight_decay"] for group in groups_of(torch.nn.Linear(2, 1))]
        [0.01, 0.0]
    """
    # Checked now: the function is called from deep inside timm.
    if any(isinstance(scheme, Plan) for scheme in schemes):
        raise NnlrError(
            "param_group_fn takes schemes, got a plan. A plan has groups already: "
            "param_group_fn=lambda model: to_timm(plan, model)."
        )
    as_schemes(schemes)
    make_bases(lr, weight_decay, decay)
    flag(names, "names")
    optional_mapping(tied, "tied", "{alias: name}")
    optional_mapping(roles, "roles", "{selector: role}")
    choice(locked, "locked", ("drop", "keep"))

    def groups(model: nn.Module) -> list[ParamGroup]:
        plan = resolve(
            model,
            *schemes,
            lr=lr,
            weight_decay=weight_decay,
            decay=decay,
            tied=tied,
            roles=roles,
        )
        return to_timm(plan, names=names, locked=locked)

    return groups
