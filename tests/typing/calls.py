"""What users write, with the types that they get: read by mypy alone (`make type`)."""

from functools import partial
from typing import Any, assert_type

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from torch.utils.hooks import RemovableHandle

import nnlr
from nnlr.integrations.lightning import RateMonitor, configure
from nnlr.integrations.transformers import optimizer as optimizer_of_trainer


class Halving(nnlr.Scheme):
    """A user's own scheme."""

    def factors(self, model: nnlr.ModelInfo) -> list[nnlr.Factor]:
        """Half the rate of everything, for lack of a better idea."""
        return [nnlr.Factor(lr_mult=0.5, why=param.name) for param in model.params]


def declared(net: nn.Sequential) -> nn.Sequential:
    """Declarations return the module that they got."""
    layer = nnlr.learning_rate(nnlr.weight_decay(nn.Linear(2, 2), "bias", 0), "weight", 0.1)
    assert_type(layer, nn.Linear)
    assert_type(nnlr.annotate(net, "weight", lr_mult=2.0, wd_mult=0), nn.Sequential)
    net.append(layer)
    rates, decays = nnlr.get_optim_config(net, 0.1, 0.01)
    assert_type(rates, Tensor)
    assert_type(decays, Tensor)
    return net


def schemes() -> nnlr.Scheme:
    """Products, restrictions and lists are schemes."""
    scheme = nnlr.layer_decay(0.75) * nnlr.no_weight_decay() * nnlr.rule("head.*", lr_mult=10)
    scheme *= nnlr.rule(nnlr.glob("*.bias") & ~nnlr.role("norm"), wd_mult=0, optional=True)
    scheme = scheme * Halving() * nnlr.roles({"embedding": 3, "head": {"lr": 1e-4}})
    assert_type(scheme.where(nnlr.ndim(2)), nnlr.Scheme)
    assert_type(scheme.within("backbone"), nnlr.Scheme)
    rules = [nnlr.rule("a.*", lr_mult=0.1), nnlr.rule("*", options={"betas": (0.9, 0.95)})]
    return (
        scheme
        * nnlr.rules(rules, complete=True)
        * nnlr.rule(
            nnlr.module_type(nn.LayerNorm) | nnlr.predicate(lambda p: p.ndim < 2),
            weight_decay=0.0,
        )
    )


def resolved(model: nn.Module, pairs: list[tuple[str, Tensor]]) -> nnlr.Plan:
    """Models, names of tensors, and what a plan knows."""
    plan = nnlr.resolve(model, schemes(), nnlr.freeze("stem.*"), lr=1e-3, weight_decay=0.05)
    assert_type(plan, nnlr.Plan)
    nnlr.resolve(dict(pairs), lr=1, weight_decay=0)
    nnlr.resolve(pairs, lr=1, weight_decay=0)
    row = plan["head.weight"]
    assert_type(row, nnlr.PlanRow)
    assert_type(row.lr, float)
    assert_type([row.name for row in plan], list[str])
    assert_type(plan.explain("head.weight"), str)
    assert_type(plan.to_dict(), dict[str, Any])
    assert_type(nnlr.Plan.from_json(plan.to_json()), nnlr.Plan)
    return plan.with_rates(lr=1e-4)


def optimizers(plan: nnlr.Plan) -> None:
    """An optimizer has the type of its class, or of what the function returns."""
    assert_type(plan.optimizer(torch.optim.AdamW), torch.optim.AdamW)
    assert_type(plan.optimizer(torch.optim.SGD, momentum=0.9), torch.optim.SGD)
    assert_type(plan.optimizer(nnlr.optim.AdamW, betas=(0.9, 0.95)), nnlr.optim.AdamW)
    assert_type(plan.optimizer(partial(torch.optim.AdamW, fused=True)), torch.optim.AdamW)
    assert_type(plan.optimizer(lambda groups: torch.optim.SGD(groups, 0.1)), torch.optim.SGD)
    torch.optim.AdamW(plan.param_groups())
    torch.optim.AdamW(nnlr.param_groups(nn.Linear(2, 2), lr=1e-3, weight_decay=0))
    rates, decays = plan.vectors()
    assert_type(rates, Tensor)
    assert_type(decays, Tensor)


def chain(optimizer: torch.optim.Optimizer) -> LRScheduler:
    """A scheduler made of several."""
    parts: list[LRScheduler] = [LinearLR(optimizer), CosineAnnealingLR(optimizer, T_max=10)]
    return SequentialLR(optimizer, parts, milestones=[3])


def schedules(plan: nnlr.Plan, net: nn.Module) -> None:
    """Classes with arguments, functions, partials; the result goes into check and into loops."""
    optimizer = plan.optimizer(torch.optim.AdamW)
    scheduler = nnlr.schedule(optimizer, OneCycleLR, max_lr=1e-3, total_steps=100)
    nnlr.schedule(optimizer, chain)
    nnlr.schedule(optimizer, lambda opt: LambdaLR(opt, lambda step: 1 / (1 + step)))
    nnlr.schedule(optimizer, partial(CosineAnnealingLR, T_max=10), weight_decay=ConstantLR)
    nnlr.schedule(optimizer, {"bias*": partial(LinearLR, total_iters=3), "*": None})
    plateau = nnlr.schedule(optimizer, ReduceLROnPlateau, patience=3, beside=scheduler)
    scheduler.step()
    plateau.step(0.5)
    scheduler.load_state_dict(scheduler.state_dict())
    assert_type(nnlr.keep_ratios(optimizer), RemovableHandle)
    assert_type(nnlr.relative(optimizer, "lamb", trust_clip=True), RemovableHandle)
    assert_type(nnlr.rate_summary(optimizer), dict[str, float])

    str(nnlr.check(plan, optimizer, scheduler))
    str(nnlr.check(plan, optimizer, CosineAnnealingLR(optimizer, T_max=10)))
    str(nnlr.check(plan, [optimizer], [scheduler, plateau], raise_on="error"))
    str(nnlr.check(plan, optimizer, nnlr.schedule(optimizer, CosineAnnealingLR, T_max=10)))
    kinds = {finding.kind for finding in nnlr.check(net, optimizer)}
    assert_type(kinds, set[str])
    nnlr.regroup(optimizer, plan)
    assert_type(nnlr.clip_grad_norm_(net.parameters(), 1.0), Tensor)
    nnlr.agree(plan, timeout=10)


def configured(net: nn.Module) -> torch.optim.Optimizer:
    """Recipes and schemes as data."""
    recipe = nnlr.config.load("recipe.yaml", allow=["my.module:*"])
    assert_type(recipe, nnlr.config.Recipe)
    assert_type(recipe.resolve(net), nnlr.Plan)
    scheme = nnlr.config.scheme([{"layer_decay": 0.75}, "no_weight_decay"])
    assert_type(scheme * nnlr.rule(nnlr.module_type("LayerNorm"), wd_mult=0), nnlr.Scheme)
    cosine = partial(CosineAnnealingLR, T_max=10)
    by_hand = nnlr.config.Recipe(
        lr=1e-3, weight_decay=0, scheme=scheme, algorithms=torch.optim.AdamW, schedule=cosine
    )
    nnlr.config.dump(by_hand)
    optimizer = by_hand.optimizer(net, resume="checkpoint")
    by_hand.scheduler(optimizer, T_max=20).step()
    nnlr.config.schema("scheme")
    return optimizer


def errors(model: nn.Module) -> list[str]:
    """The facts of an error are attributes."""
    try:
        nnlr.resolve(model, nnlr.rule("a"), lr=1, weight_decay=0)
    except nnlr.PatternError as error:
        return [str(name) for name in error.nearest]
    return []


def trainers(module: nn.Module, plan: nnlr.Plan) -> dict[str, Any]:
    """What trainers are given."""
    RateMonitor()
    cls, settings = optimizer_of_trainer(schemes(), lr=1e-3, weight_decay=0.01)
    assert_type(settings, dict[str, Any])
    cls()
    nnlr.integrations.transformers.optimizer(schemes(), lr=1e-3, weight_decay=0.01)
    return configure(
        module,
        plan,
        torch.optim.AdamW,
        schedule=lambda opt: OneCycleLR(opt, max_lr=1e-3, total_steps=10),
        interval="step",
        betas=(0.9, 0.95),
    )


def refused(plan: nnlr.Plan, optimizer: torch.optim.Optimizer) -> None:
    """What a type checker can tell is wrong, it tells; each line here is an error."""
    plan.optimizer("AdamW")  # type: ignore[call-overload]
    nnlr.rule("a", lr_mult="fast")  # type: ignore[arg-type]
    nnlr.resolve(nn.Linear(2, 2), lr=1e-3)  # type: ignore[call-arg]
    nnlr.schedule(optimizer, 3)  # type: ignore[arg-type]
    nnlr.check(plan, optimizer, 3)  # type: ignore[arg-type]
    nnlr.check(plan, raise_on="never")  # type: ignore[arg-type]
    schemes() * 2  # type: ignore[operator]
