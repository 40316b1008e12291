"""``nnlr.check``: run every function that looks for mistakes, and collect what they find."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Final

from torch import nn
from torch.optim import Optimizer

from nnlr._arguments import choice, flag, is_listing
from nnlr._checks import (
    algorithms,
    epochs,
    groups,
    model,
    moves,
    optimizer,
    order,
    plan,
    relative,
    schedule,
    state,
    trainer,
)
from nnlr._checks.subject import Subject, unwrapped_optimizers, unwrapped_schedulers
from nnlr._findings import SEVERITIES, Finding, Findings, Severity
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._schedule.rehearsal import Scheduling
from nnlr._text import shown
from nnlr.depth._flow import as_example
from nnlr.errors import ConfigError, NnlrError

# The functions that look, each for the findings of one sort.
LOOKS: Final[tuple[Callable[[Subject], Iterator[Finding]], ...]] = (
    schedule.rehearsed,  # before what a schedule has done to rates
    plan.resolved,
    plan.mismatched,
    plan.differing,
    plan.decayed_norms,
    plan.tiny_rates,
    order.contradictions,
    model.stale,
    model.left_out,
    model.not_trained,
    model.repeated,
    model.mixed_meshes,
    model.gradients,
    model.vanishing_updates,
    groups.empty_or_alike,
    groups.bad_values,
    groups.missing_settings,
    groups.shared_rates,
    groups.base_rates,
    groups.drift,
    groups.zero_rates,
    groups.lr_scales,
    state.misfits,
    moves.not_attached,
    moves.without_base,
    moves.other_length,
    moves.unlocked,
    schedule.asleep,
    schedule.unscheduled,
    schedule.crossed,
    optimizer.probed,
    optimizer.hookless,
    optimizer.unresumable,
    algorithms.unfit,
    algorithms.fused,
    algorithms.normalised_momentum,
    algorithms.unequal_updates,
    algorithms.high_rates,
    algorithms.rerouted_rates,
    relative.high_rates,
    relative.shared_groups,
    schedule.attached,
    epochs.untold,
    trainer.deepspeed_optimizer,
    trainer.deepspeed_scheduler,
    trainer.deepspeed_offload,
)


def check(
    plan_or_model: Plan | Source,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    scheduler: Scheduling | Sequence[Scheduling] | None = None,
    *,
    model: Source | None = None,
    partial: bool = False,
    deepspeed: Mapping[str, Any] | str | PathLike[str] | None = None,
    inputs: object = None,
    raise_on: Severity | None = None,
) -> Findings:
    """Look for what makes layer-wise rates go wrong in silence, before the run or in it.

    Nothing is changed: what an optimizer does with its groups is tried on a small one of its
    class, and what a scheduler does to them on a copy that is run to its end. Call it when
    everything is built and wrapped, and after a first backward, which shows parameters that
    get no gradient.

    Args:
        plan_or_model: The plan, which says most; or the model, or ``(name, tensor)`` pairs.
        optimizer: The optimizer, or all of several that share the model in a list.
            Accelerate's and Lightning's wrappers are looked through.
        scheduler: The scheduler, or a list of them; of torch, transformers, timm or anyone.
        model: The model, for a plan that was loaded or copied.
        partial: The model is one stage or shard of the plan's.
        deepspeed: A DeepSpeed configuration, or the path to its JSON file.
        inputs: What the model is called with: a tuple, a mapping of named arguments, or
            ``nnlr.depth.flow(...)``. The model is run once, as that indexer does it, and the
            plan's layers are compared with the order of computation.
        raise_on: ``"error"``, ``"warning"`` or ``"note"``: raise if something is found that
            is at least as severe.

    Returns:
        The findings, the worst first; print them.

    Raises:
        ConfigError: With ``raise_on``; the findings are its attribute ``findings``.
        NnlrError: If an argument is of another kind, the plan knows no model, or the model
            cannot be called with ``inputs``.

    Examples:
        >>> import nnlr, torch
        >>> from torch.optim.lr_scheduler import CosineAnnealingLR
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
        >>> plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.1), lr=0.1, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.SGD)
        >>> scheduler = CosineAnnealingLR(optimizer, 100, eta_min=0.01)
        >>> print(nnlr.check(plan, optimizer, scheduler))
        error [schedule-drift]: CosineAnnealingLR does not keep the ratios of 1 group:
          100 steps on, 'lr0.1_wd1' has a rate of 0.01 instead of 0.001 (lr0.1_wd1).
          Schedule the base rate, which keeps them: scheduler =
            nnlr.schedule(optimizer, CosineAnnealingLR, T_max=100, eta_min=0.01)
        >>> scheduler = nnlr.schedule(optimizer, CosineAnnealingLR, T_max=100, eta_min=0.01)
        >>> print(nnlr.check(plan, optimizer, scheduler))
        nothing found
    """
    if raise_on is not None:
        choice(raise_on, "raise_on", SEVERITIES)
    given_plan = plan_or_model if isinstance(plan_or_model, Plan) else None
    if isinstance(plan_or_model, Plan):
        source = plan_or_model._model(model)
    else:
        if model is not None and not isinstance(plan_or_model, nn.Module):
            raise NnlrError(
                f"model= is for a plan that was loaded or copied, got {shown(plan_or_model)} and a "
                "model. Pass the plan first, or the model alone: nnlr.check(model, optimizer).",
                argument="model",
            )
        source = plan_or_model if model is None else model
    if not isinstance(source, nn.Module | Mapping) and is_listing(source):
        source = list(source)  # an iterator can be walked only once
    if inputs is not None and given_plan is None:
        raise NnlrError(
            "inputs= is for comparing the order of computation with the layers of a plan: pass "
            "the plan, nnlr.check(plan, inputs=inputs).",
            argument="inputs",
        )
    subject = Subject(
        source=source,
        plan=given_plan,
        partial=flag(partial, "partial"),
        optimizers=unwrapped_optimizers(optimizer),
        schedulers=unwrapped_schedulers(scheduler),
        deepspeed=trainer.configuration(deepspeed),
        example=None if inputs is None else as_example(inputs),
    )
    if not subject.slots and given_plan is None:  # the first is an error if it is no model
        raise NnlrError(
            f"{type(source).__name__} has no parameter to look at: pass the model that the "
            "optimizer trains, or its plan.",
            argument="plan_or_model",
        )
    findings = Findings(finding for look in LOOKS for finding in look(subject))
    if raise_on is not None and (severe := findings.at_least(raise_on)):
        raise ConfigError(str(severe), findings=findings)
    return findings
