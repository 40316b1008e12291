"""For every kind of finding a run that produces it, and a healthy twin that has none.

A case is a function of ``ill``: whether the mistake is made. It returns the arguments of
``nnlr.check``. Everything in it is real: the sharding, the merge, the scheduler's steps.
"""

import copy
import json
import math
import threading
import warnings
from collections import defaultdict

import pytest
import torch
from timm.scheduler import MultiStepLRScheduler
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

import nnlr
from nnlr.integrations.timm import to_timm

# Kind -> its cases.
CASES = defaultdict(list)

LR = 0.1

# The models of the case that was built last: plans hold theirs weakly.
MODELS = []

# What a script has beside what check was given; lines to paste speak of it.
SCRIPT = {}


def case(kind):
    """Register a case of a kind."""

    def register(function):
        CASES[kind].append(function)
        return function

    return register


def network(*layers):
    torch.manual_seed(0)
    layers = layers or (nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    MODELS.append(nn.Sequential(*layers))
    return MODELS[-1]


def resolved(model, *schemes, lr=LR, weight_decay=0.0):
    SCRIPT.update(scheme=math.prod(schemes, start=nnlr.rule("*")), lr=lr, wd=weight_decay)
    SCRIPT["plan"] = nnlr.resolve(model, SCRIPT["scheme"], lr=lr, weight_decay=weight_decay)
    return SCRIPT["plan"]


def layered(model, cls=torch.optim.AdamW, mult=0.01, **settings):
    """A plan by which the first layer is slow, and its optimizer."""
    plan = resolved(model, nnlr.rule("0.*", lr_mult=mult))
    return plan, plan.optimizer(cls, **settings)


def backward(model):
    model(torch.ones(2, 4)).square().mean().backward()


def by_hand(model, **second):
    """Two groups, of the first layer and of the second."""
    return [
        {"params": list(model[0].parameters())},
        {"params": list(model[2].parameters()), **second},
    ]


# --- the model and the optimizer


@case("stale-parameter")
def sharded_afterwards(ill):
    """FSDP2 puts new parameters in: 0 of them move, and nothing is said."""
    from torch.distributed.fsdp import fully_shard

    net = network()
    plan = resolved(net)
    if ill:
        optimizer = plan.optimizer(torch.optim.AdamW)
    fully_shard(net)
    if not ill:
        optimizer = plan.optimizer(torch.optim.AdamW)
    return plan, optimizer


@case("stale-parameter")
def materialised_afterwards(ill):
    with torch.device("meta"):
        net = network()
    if not ill:
        net.to_empty(device="cpu")
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0)
    if ill:
        net.to_empty(device="cpu")
    return net, optimizer


@case("stale-parameter")
def loaded_by_assignment(ill):
    net = network()
    optimizer = resolved(net).optimizer(torch.optim.AdamW)
    net.load_state_dict(copy.deepcopy(net.state_dict()), assign=ill)
    return net, optimizer


@case("stale-parameter")
def parametrization_removed(ill):
    net = network()
    parametrizations.weight_norm(net[0])
    if not ill:
        parametrize.remove_parametrizations(net[0], "weight")
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    if ill:
        parametrize.remove_parametrizations(net[0], "weight")
    return net, optimizer


@case("untrained-parameter")
def half_of_the_model(ill):
    net = network()
    first = torch.optim.SGD(net[0].parameters(), lr=LR)
    second = torch.optim.SGD(net[2].parameters(), lr=LR)
    return net, first if ill else [first, second]


@case("not-locked")
def unfrozen_by_another(ill):
    net = network()
    plan, optimizer = layered(net, mult=0)
    if ill:
        net.requires_grad_(True)
    return plan, optimizer


@case("frozen-with-gradient")
def frozen_in_mid_run(ill):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    backward(net)
    net[0].requires_grad_(not ill)
    return net, optimizer


@case("locked-in-group")
def built_from_no_plan(ill):
    net = network()
    plan = resolved(net, nnlr.rule("0.*", lr_mult=0))
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    if not ill:
        optimizer = plan.optimizer(torch.optim.SGD)
    plan.lock()
    return net, optimizer


@case("frozen-in-group")
def frozen_afterwards(ill):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    net[0].requires_grad_(not ill)
    return net, optimizer


@case("repeated-parameter")
def twice_in_a_group(ill):
    net = network()
    again = [net[0].weight] if ill else []
    with warnings.catch_warnings(action="ignore"):  # torch says it at construction only
        optimizer = torch.optim.SGD([*net.parameters(), *again], lr=LR)
    return net, optimizer


@case("repeated-parameter")
def in_two_optimizers(ill):
    net = network()
    first = torch.optim.SGD(net[0].parameters(), lr=LR)
    second = torch.optim.SGD((net if ill else net[2]).parameters(), lr=LR)
    return net, (first, second)


@case("repeated-parameter")
def in_the_first_of_two(ill):
    net = network()
    plan = resolved(net, nnlr.rule("0.*", lr_mult=0.1))
    part = dict(net[2].named_parameters("2"))
    both = [
        plan.optimizer(torch.optim.SGD),
        plan.optimizer(torch.optim.Adam, model=part, partial=True),
    ]
    if not ill:
        part = dict(net[0].named_parameters("0"))
        both[0] = plan.optimizer(torch.optim.SGD, model=part, partial=True)
    return net, both


@case("repeated-parameter")
def all_in_two_optimizers(ill):
    net = network()
    both = [torch.optim.SGD(net.parameters(), lr=LR) for _ in range(2 if ill else 1)]
    return net, both


@case("mixed-mesh")
def partly_sharded(ill):
    from torch.distributed.tensor import distribute_module, init_device_mesh

    net = network()
    distribute_module(net[0], init_device_mesh("cpu", (1,)))
    plan = resolved(net)
    if ill:
        return net, torch.optim.SGD(net.parameters(), lr=LR)
    return net, plan.optimizer(torch.optim.SGD)


@case("no-gradient")
def not_used(ill):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    (net[0](torch.ones(2, 4)).sum() if ill else net(torch.ones(2, 4)).sum()).backward()
    return net, optimizer


@case("zero-gradient")
def behind_zeros(ill):
    """After a step: before it zeros are the rule, as LoRA's A is behind a B of zeros."""
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=0)
    if not ill:
        nn.init.zeros_(net[2].weight)
        backward(net)
        return net, optimizer
    backward(net)
    optimizer.step()
    optimizer.zero_grad()
    nn.init.zeros_(net[2].weight)
    backward(net)
    return net, optimizer


@case("vanishing-update")
def half_precision(ill):
    net = network().bfloat16()
    plan = resolved(net, nnlr.rule("0.*", lr_mult=1e-3 if ill else 1), lr=1e-2)
    return plan, plan.optimizer(torch.optim.AdamW)


# --- what is written in groups


@case("empty-group")
def nothing_left(ill):
    net = network()
    groups = [{"params": net.parameters()}, *([{"params": []}] if ill else [])]
    return net, torch.optim.SGD(groups, lr=LR)


@case("duplicate-name")
def one_name_for_two(ill):
    net = network()
    groups = by_hand(net, name="layer")
    groups[0]["name"] = "layer" if ill else "other"
    return net, torch.optim.SGD(groups, lr=LR)


def _with(key, value):
    def build(ill):
        net = network()
        optimizer = torch.optim.SGD(by_hand(net), lr=LR)
        if ill:
            optimizer.param_groups[1][key] = value
        return net, optimizer

    build.__name__ = f"{key}={value!r}"
    return build


for key, value in [
    *(("lr", each) for each in (torch.nan, torch.inf, -1.0, True, "0.1")),
    *(("weight_decay", -1.0), ("momentum", torch.nan), ("lr", torch.tensor(-1.0))),
]:
    case("bad-value")(_with(key, value))


@case("bad-value")
def a_part_of_a_setting(ill):
    net = network()
    plan = resolved(net)
    optimizer = plan.optimizer(torch.optim.AdamW)
    if ill:
        optimizer.param_groups[0]["betas"] = (0.9, float("nan"))
    return plan, optimizer


@case("missing-setting")
def without_a_rate(ill):
    net = network()
    plan = resolved(net)
    optimizer = plan.optimizer(torch.optim.AdamW)
    if ill:
        del optimizer.param_groups[0]["lr"]
    return plan, optimizer


@case("unsafe-value")
def scalar_of_numpy(ill):
    import numpy as np

    net = network()
    rate = np.float64(LR) if ill else LR
    return net, torch.optim.SGD(net.parameters(), lr=rate)


@case("bad-value")
def in_the_second_of_two(ill):
    net = network()
    both = [torch.optim.SGD(net[at].parameters(), lr=LR) for at in (0, 2)]
    if ill:
        both[1].param_groups[0]["lr"] = -1.0
    return net, both


@case("zero-rate-group")
def kept_without_a_plan(ill):
    """The bias alone: the weight beside it is trained."""
    net = network()
    groups = [
        {"params": [net[0].weight, *net[2].parameters()]},
        {"params": [net[0].bias], "lr": 0.0 if ill else LR},
    ]
    return net, torch.optim.SGD(groups, lr=LR)


@case("unsafe-value")
def enumeration(ill):
    from enum import StrEnum

    Phase = StrEnum("Phase", ["WARMUP"])  # noqa: N806 - a class
    net = network()
    groups = [{"params": net.parameters(), "phase": Phase.WARMUP if ill else "warmup"}]
    return net, torch.optim.SGD(groups, lr=LR)


@case("missing-setting")
def regrouped_distributed_state(ill):
    """From two groups into four: three of them lose all settings."""
    from torch.distributed.checkpoint import state_dict as dcp

    def trained(count):
        net = network()
        tensors = list(net.parameters())
        parts = [tensors[start::count] for start in range(count)]
        settings = {"weight_decay": 0, "lr": LR}
        optimizer = torch.optim.AdamW([{"params": part} for part in parts], **settings)
        backward(net)
        optimizer.step()
        optimizer.zero_grad()
        return net, optimizer

    saved = dcp.get_optimizer_state_dict(*trained(2))
    net, optimizer = trained(4 if ill else 2)
    dcp.set_optimizer_state_dict(net, optimizer, saved)
    return net, optimizer


@case("shared-rate-tensor")
def one_tensor(ill):
    net = network()
    groups = [
        {**group, "lr_mult": mult} for group, mult in zip(by_hand(net), (1.0, 0.1), strict=True)
    ]
    if not ill:
        return net, layered(net, tensor_lr=True)[1]
    return net, torch.optim.AdamW(groups, lr=torch.tensor(LR), weight_decay=0)


@case("base-rate")
def no_rate_for_the_constructor(ill):
    net = network()
    plan = resolved(net, nnlr.rule("0.*", lr_mult=0.1))
    settings = {} if ill else {"lr": LR}
    optimizer = torch.optim.AdamW(plan.param_groups(), weight_decay=0, **settings)
    nnlr.checkpoint.on_load(optimizer, model=net)
    return plan, optimizer


@case("base-rate")
def no_decay_for_the_constructor(ill):
    net = network()
    plan = resolved(net, nnlr.no_weight_decay(), weight_decay=0.5)
    settings = {} if ill else {"weight_decay": 0.5}
    optimizer = torch.optim.AdamW(plan.param_groups(), lr=LR, **settings)
    nnlr.checkpoint.on_load(optimizer, model=net)
    return plan, optimizer


@case("base-rate")
def another_rate_for_the_constructor_while_all_moves(ill):
    """Multipliers that have moved are not those of the rate at the start."""
    net = network()
    plan = resolved(net, nnlr.rule("*").at(lambda t: 1 / (1 + t.step)))
    optimizer = plan.optimizer(torch.optim.AdamW)
    nnlr.attach(optimizer, plan)
    optimizer.step()
    optimizer.defaults["lr"] *= 2 if ill else 1
    return plan, optimizer


@case("ratio-drift")
def after_a_floor(ill):
    net = network()
    _, optimizer = layered(net)
    scheduler = lrs.CosineAnnealingLR(optimizer, 10, eta_min=0.01 if ill else 0)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    return net, optimizer


@case("ratio-drift")
def decay_by_hand(ill):
    net = network()
    plan = resolved(net, nnlr.no_weight_decay(), weight_decay=0.5)
    optimizer = plan.optimizer(torch.optim.AdamW)
    if ill:
        optimizer.param_groups[1]["weight_decay"] = 0.1
    return net, optimizer


@case("zero-rate-group")
def kept_at_zero(ill):
    net = network()
    plan = resolved(net, nnlr.rule("0.*", lr_mult=0))
    return plan, plan.optimizer(torch.optim.SGD, locked="keep" if ill else "drop")


def scaled(net, *, premultiplied):
    """Groups with timm's key, and rates that have been multiplied already, or not."""
    groups = by_hand(net, lr=LR * 0.5 if premultiplied else LR, lr_scale=0.5)
    return torch.optim.SGD([{**groups[0], "lr_scale": 1.0}, groups[1]], lr=LR)


@case("squared-rate")
def both_factors(ill):
    net = network()
    optimizer = scaled(net, premultiplied=True)
    if not ill:
        for group in optimizer.param_groups:
            group.pop("lr_scale")
    return net, optimizer


@case("squared-rate")
def both_keys(ill):
    net = network()
    _, optimizer = layered(net)
    if ill:
        optimizer.param_groups[1]["lr_scale"] = 0.01
    return net, optimizer


@case("lr-scale-alone")
def no_scheduler(ill):
    net = network()
    optimizer = scaled(net, premultiplied=False)
    if not ill:
        for group in optimizer.param_groups:
            group["lr_scale"] = 1.0
    return net, optimizer


@case("lr-scale-unread")
def not_a_scheduler_of_timm(ill):
    net = network()
    optimizer = scaled(net, premultiplied=False)
    if not ill:  # what timm's do
        return net, optimizer, lrs.LambdaLR(optimizer, [lambda _: 1.0, lambda _: 0.5])
    return net, optimizer, lrs.StepLR(optimizer, 5)


@case("lr-scale-unread")
def ours_goes_by_lr_mult(ill):
    net = network()
    optimizer = scaled(net, premultiplied=False)
    if not ill:
        for group in optimizer.param_groups:
            group["lr_mult"] = group.pop("lr_scale")
            group["lr"] *= group["lr_mult"]
    return net, optimizer, nnlr.schedule(optimizer, lrs.StepLR, step_size=5)


# --- optimizers


@case("ignores-rate")
def adapting_by_itself(ill):
    adapting = pytest.importorskip("dadaptation").DAdaptAdan
    net = network()
    return layered(net, adapting if ill else torch.optim.AdamW)


@case("refuses-rates")
def prodigy(ill):
    prodigy = pytest.importorskip("prodigyopt").Prodigy
    net = network()
    plan = resolved(net, nnlr.rule("0.*", lr_mult=0.5 if ill else 1))
    if ill:  # plan.optimizer refuses it
        return plan, prodigy(plan.param_groups(), lr=LR)
    return plan, plan.optimizer(prodigy)


@case("refuses-rates")
def one_group_only(ill):
    """LBFGS trains with one rate what the plan trains with two."""
    net = network()
    plan = resolved(net, nnlr.rule("0.*", lr_mult=0.5 if ill else 1))
    return plan, torch.optim.LBFGS(net.parameters(), lr=LR)


@case("ignores-decay")
def no_word_for_decay(ill):
    net = network()
    groups = [
        {"params": [net[0].weight, net[2].weight], "weight_decay": 0.1},
        {"params": [net[0].bias, net[2].bias], "weight_decay": 0.0},
    ]
    cls = torch.optim.Rprop if ill else torch.optim.SGD
    return net, cls(groups, lr=LR)


@case("ignores-option")
def momentum_of_a_group(ill):
    net = network()
    groups = by_hand(net, momentum=0.5)
    if ill:
        return net, torch.optim.AdamW(groups, lr=LR, weight_decay=0)
    return net, torch.optim.SGD(groups, lr=LR)


@case("ignores-option")
def settings_of_the_constructor_alone(ill):
    class FromDefaults(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                group["momentum"] = self.defaults["momentum"]
            return super().step(closure)

    net = network()
    groups = by_hand(net, momentum=0.5)
    return net, (FromDefaults if ill else torch.optim.SGD)(groups, lr=LR)


class Peculiar(torch.optim.SGD):
    """Needs what its settings do not say."""

    def __init__(self, params, secret, lr):
        super().__init__(params, lr=lr)
        self._hidden = secret


@case("unprobed")
def cannot_be_built(ill):
    net = network()
    groups = by_hand(net, lr=0.01)
    if ill:
        return net, Peculiar(groups, secret=1, lr=LR)
    return net, torch.optim.SGD(groups, lr=LR)


class Lookalike(torch.optim.Optimizer):
    """Wraps an optimizer and skips torch's constructor, as some do."""

    def __init__(self, base):
        self.base = base
        self.param_groups, self.defaults = base.param_groups, base.defaults
        self.state = base.state

    def step(self, closure=None):
        return self.base.step(closure)


@case("no-hooks")
def skipped_constructor(ill):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    return net, Lookalike(optimizer) if ill else optimizer


@case("no-resume-hook")
def travelled(ill):
    net = network()
    _, optimizer = layered(net)
    if ill:
        groups = copy.copy(optimizer.param_groups)
        optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=0)
    return net, optimizer


# --- schedulers


@case("other-optimizer")
def scheduler_of_a_copy(ill):
    net = network()
    _, optimizer = layered(net)
    held = copy.deepcopy(optimizer) if ill else optimizer
    return net, optimizer, lrs.StepLR(held, 5)


@case("schedule-drift")
def floor(ill):
    net = network()
    plan, optimizer = layered(net)
    return plan, optimizer, lrs.CosineAnnealingLR(optimizer, 20, 0.01 if ill else 0)


@case("schedule-drift")
def groups_without_multipliers(ill):
    net = network()
    optimizer = torch.optim.SGD(by_hand(net, lr=0.01), lr=LR)
    return net, optimizer, lrs.CosineAnnealingLR(optimizer, 20, 0.001 if ill else 0)


@case("zero-wakes")
def kept_and_woken(ill):
    """The note on the kept group is for healthy ones too; so that one is not kept."""
    net = network()
    plan = resolved(net, nnlr.rule("0.*", lr_mult=0))
    optimizer = plan.optimizer(torch.optim.SGD, locked="keep" if ill else "drop")
    return plan, optimizer, lrs.CosineAnnealingLR(optimizer, 20, 0.01)


@case("unrehearsed")
def cannot_be_copied(ill):
    net = network()
    _, optimizer = layered(net)
    scheduler = lrs.StepLR(optimizer, 5)
    if ill:
        scheduler.lock = threading.Lock()
    return net, optimizer, scheduler


class Endless(lrs.StepLR):
    """Its step is its own, so its end cannot be jumped to."""

    def step(self, epoch=None):
        super().step(epoch)


@case("unrehearsed")
def too_long_to_run(ill):
    net = network()
    _, optimizer = layered(net)
    return net, optimizer, (Endless if ill else lrs.StepLR)(optimizer, 10**6)


@case("rates-stay-zero")
def after_the_end(ill):
    net = network()
    plan, optimizer = layered(net, torch.optim.SGD)
    scheduler = lrs.PolynomialLR(optimizer, 4)
    for _ in range(4 if ill else 3):
        optimizer.step()
        scheduler.step()
    return plan, optimizer, scheduler


@case("rates-stay-zero")
def nothing_to_multiply(ill):
    """A scheduler of torch on rates that an earlier one has brought to 0."""
    net = network()
    plan, optimizer = layered(net, torch.optim.SGD)
    for group in optimizer.param_groups if ill else ():
        group["lr"] = 0.0
    return plan, optimizer, lrs.ExponentialLR(optimizer, 0.9)


@case("rates-stay-zero")
def set_to_zero(ill):
    net = network()
    plan, optimizer = layered(net, torch.optim.SGD)
    for group in optimizer.param_groups if ill else ():
        group["lr"] = 0.0
    return plan, optimizer


@case("rates-stay-zero")
def built_at_zero(ill):
    net = network()
    return net, torch.optim.SGD(net.parameters(), lr=0.0 if ill else LR)


@case("unscheduled")
def one_of_two(ill):
    net = network()
    both = [torch.optim.SGD(net[at].parameters(), lr=LR) for at in (0, 2)]
    schedulers = [lrs.StepLR(each, 5) for each in both]
    return net, both, schedulers[:1] if ill else schedulers


# --- multipliers that move


class Locking(nnlr.Move):
    """It locks in the first ten steps."""

    locks = True

    def mults(self, now, units):
        return [float(now.step >= 10)] * len(units)


def falling(ill=True, **settings):
    """A plan whose first layer moves, or all of it, and an optimizer to which it is attached."""
    net = network()
    what = "*" if ill else "0.*"
    plan = resolved(net, nnlr.rule(what, group="0").at(lambda t: 1 / (1 + t.step)))
    optimizer = plan.optimizer(torch.optim.AdamW)
    return plan, optimizer, nnlr.attach(optimizer, plan, **settings)


@case("not-attached")
def built_by_hand_on_a_plan_that_moves(ill):
    """A step would train at the rates of the start."""
    plan, *_ = falling(ill=False)
    optimizer = torch.optim.AdamW(plan.param_groups(), lr=LR, weight_decay=0)
    if not ill:
        nnlr.attach(optimizer, plan)
    nnlr.checkpoint.on_load(optimizer)
    return plan, optimizer


@case("not-attached")
def a_copy_of_an_attached_optimizer(ill):
    """Hooks do not travel, and the model alone does not say that anything moves."""
    plan, optimizer, _ = falling(ill=False)
    if ill:
        rebuilt = torch.optim.AdamW(network().parameters())
        rebuilt.__setstate__(optimizer.__getstate__())
        nnlr.checkpoint.on_load(rebuilt)
        optimizer = rebuilt
    return plan, optimizer


@case("moves-without-base")
def a_scheduler_of_torch_where_everything_moves(ill):
    plan, optimizer, _ = falling(ill)
    return plan, optimizer, lrs.ExponentialLR(optimizer, 0.9)


@case("other-length")
def steps_of_one_process_and_of_four(ill):
    plan, optimizer, _ = falling(ill=False, total_steps=400 if ill else 100)
    scheduler = nnlr.schedule(optimizer, lrs.OneCycleLR, max_lr=LR, total_steps=101)
    return plan, optimizer, scheduler


@case("move-unlocked")
def unfrozen_under_a_move(ill):
    net = network()
    plan = resolved(net, nnlr.rule("0.*").at(Locking()))
    optimizer = plan.optimizer(torch.optim.AdamW)
    nnlr.attach(optimizer, plan)
    if ill:
        net.requires_grad_(True)
    return plan, optimizer


@case("crossed-schedulers")
def a_warm_up_beside(ill):
    """The healthy one multiplies the two courses."""
    plan, optimizer = layered(network())
    scheduler = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, T_max=100)
    if ill:
        warm_up = lrs.LinearLR(optimizer, 0.1, total_iters=10)
    else:
        settings = {"start_factor": 0.1, "total_iters": 10, "beside": scheduler}
        warm_up = nnlr.schedule(optimizer, lrs.LinearLR, **settings)
    return plan, optimizer, [scheduler, warm_up]


@case("crossed-schedulers")
def a_factor_by_hand_beside_a_plateau(ill):
    """The fix reads the function from the scheduler; SWALR may wait beside a schedule."""
    plan, optimizer = layered(network())
    plateau = nnlr.schedule(optimizer, lrs.ReduceLROnPlateau)
    if ill:
        return plan, optimizer, [lrs.LambdaLR(optimizer, lambda step: 0.5), plateau]
    return plan, optimizer, [plateau, nnlr.schedule(optimizer, SWALR, swa_lr=LR, after=plateau)]


# --- state


def trained(net, cls=torch.optim.AdamW):
    plan, optimizer = layered(net, cls)
    backward(net)
    optimizer.step()
    optimizer.zero_grad()
    return plan, optimizer


@case("wrong-state")
def resized_in_place(ill):
    """As resize_token_embeddings does: the Parameter stays, its data are others."""
    net = network()
    _, optimizer = trained(net)
    if ill:
        net[2].weight.data = torch.ones(3, 6)
        net[2].bias.data = torch.ones(3)
    return net, optimizer


@case("wrong-state")
def at_the_wrong_position(ill):
    net = network()
    plan, optimizer = trained(net)
    if ill:
        one, other = net[0].weight, net[2].weight
        state = optimizer.state
        state[one], state[other] = state[other], state[one]
    return plan, optimizer


@case("wrong-state")
def of_another_class(ill):
    net = network()
    plan, optimizer = trained(net)
    if ill:
        for tensor in net.parameters():
            optimizer.state[tensor] = {"momentum_buffer": torch.zeros_like(tensor)}
    return plan, optimizer


# --- configurations of DeepSpeed


def configured(sections):
    def build(ill):
        net = network()
        plan, optimizer = layered(net)
        return plan, optimizer, None, sections if ill else {"train_batch_size": 8}

    return build


@case("deepspeed-optimizer")
def optimizer_in_the_configuration(ill):
    sections = {"optimizer": {"type": "AdamW", "params": {"lr": LR}}}
    return configured(sections)(ill)


@case("deepspeed-scheduler")
def warmup_in_the_configuration(ill):
    params = {"warmup_min_lr": 0, "warmup_max_lr": LR if ill else [LR, LR / 100]}
    if not ill:
        params["warmup_min_lr"] = [0, 0]
    sections = {"scheduler": {"type": "WarmupLR", "params": params}}
    return configured(sections)(True)


@case("deepspeed-offload")
def offloaded(ill):
    zero = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    force = {} if ill else {"zero_force_ds_cpu_optimizer": False}
    return configured({"zero_optimization": zero, **force})(True)


# --- plans


@case("plan-mismatch")
def another_head(ill):
    net = network()
    plan = resolved(net)
    if ill:
        net[2] = nn.Linear(6, 3)
    return plan, None


@case("plan-differs")
def another_plan(ill):
    net = network()
    optimizer = resolved(net, nnlr.rule("0.*", lr_mult=0.2)).optimizer(torch.optim.SGD)
    return resolved(net, nnlr.rule("0.*", lr_mult=0.1 if ill else 0.2)), optimizer


@case("plan-differs")
def another_plan_for_timm(ill):
    """Regrouping would write lr_mult, and timm's scheduler would flatten the rates."""
    net = network()
    groups = to_timm(resolved(net, nnlr.rule("0.*", lr_mult=0.2)))
    optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=0)
    plan = resolved(net, nnlr.rule("0.*", lr_mult=0.1 if ill else 0.2))
    return plan, optimizer, MultiStepLRScheduler(optimizer, [3])


@case("plan-differs")
def another_plan_under_a_scheduler(ill):
    """Which holds the rates of the groups that there were."""
    net = network()
    optimizer = resolved(net, nnlr.rule("0.*", lr_mult=0.2)).optimizer(torch.optim.SGD)
    plan = resolved(net, nnlr.rule("0.weight", lr_mult=0.2) if ill else SCRIPT["scheme"])
    return plan, optimizer, lrs.StepLR(optimizer, 5)


@case("plan-differs")
def another_base(ill):
    net = network()
    plan, optimizer = layered(net)
    return plan.with_rates(lr=LR / 2 if ill else LR), optimizer


@case("plan-differs")
def edited_option(ill):
    net = network()
    plan = resolved(net, nnlr.rule("0.*", options={"momentum": 0.5}))
    groups = plan.param_groups()
    if ill:
        groups[0]["momentum"] = 0.25
    optimizer = torch.optim.SGD(groups, lr=LR)
    nnlr.checkpoint.on_load(optimizer, model=net)
    return plan, optimizer


@case("plan-differs")
def lost_decay(ill):
    net = network()
    plan = resolved(net, nnlr.no_weight_decay(), weight_decay=0.1)
    optimizer = plan.optimizer(torch.optim.SGD)
    if ill:
        for group in optimizer.param_groups:
            del group["weight_decay"]
    return plan, optimizer


@case("tiny-rate")
def deep_decay(ill):
    """The first of 14 layers, at 0.5 ** 13 of the base."""
    net = network(*[nn.Linear(2, 2) for _ in range(14)])
    plan = resolved(net, nnlr.layer_decay(0.5 if ill else 0.75))
    return plan, plan.optimizer(torch.optim.AdamW)


@case("tiny-rate")
def deep_decay_beside_a_move_by_layers(ill):
    """What makes the rate tiny is to be named, and not what counts layers after it."""
    net = network(*[nn.Linear(2, 2) for _ in range(14)])
    moving = nnlr.layer_decay(1.0).at(lambda t, layer: 1 / (1 + t.step * layer.below))
    plan = resolved(net, nnlr.layer_decay(0.5 if ill else 0.75) * moving)
    optimizer = plan.optimizer(torch.optim.AdamW)
    nnlr.attach(optimizer, plan)
    return plan, optimizer


@case("tiny-rate")
def deep_steps(ill):
    net = network(*[nn.Linear(4, 4) for _ in range(10)])
    return resolved(net, nnlr.discriminative(20 if ill else 1.5)), None


@case("decayed-norm")
def decayed_all_over(ill):
    net = network(nn.Linear(4, 4, bias=False), nn.LayerNorm(4))
    schemes = [] if ill else [nnlr.no_weight_decay()]
    return resolved(net, *schemes, weight_decay=0.1), None


@case("decayed-norm")
def decayed_without_a_plan(ill):
    net = network()
    decay = {"weight_decay": 0.1}
    parts = ([net[0].weight, net[2].weight], [net[0].bias, net[2].bias])
    groups = [
        {"params": parts[0], **decay},
        {"params": parts[1], **(decay if ill else {})},
    ]
    return net, torch.optim.SGD(groups, lr=LR)


@case("algorithm-without-parameters")
def algorithm_for_nothing(ill):
    to_one = nnlr.rule("*", algorithm="adamw")
    rates = {"sgd": LR, "adamw": LR} if ill else {"adamw": LR}
    return resolved(network(), to_one, lr=rates, weight_decay=dict.fromkeys(rates, 0.0)), None


@case("rule-on-frozen")
def rule_for_nothing(ill):
    net = network()
    net[0].requires_grad_(not ill)
    return resolved(net, nnlr.rule("0.*", lr_mult=0.5)), None


@case("looks-absolute")
def rate_for_a_multiplier(ill):
    return resolved(network(), nnlr.rule("0.*", lr_mult=1e-5 if ill else 0.1)), None


@case("restored")
def locked_by_an_earlier_plan(ill):
    net = network()
    resolved(net, nnlr.rule("0.*", lr_mult=0)).lock()
    plan = resolved(net)
    return plan, None if ill else plan.optimizer(torch.optim.SGD)


@case("running-statistics")
def locked_under_moving_statistics(ill):
    net = network(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    plan = resolved(net, nnlr.rule("1.*", lr_mult=0))
    optimizer = plan.optimizer(torch.optim.SGD)
    net[1].train(ill)
    return plan, optimizer


# --- the order of computation


def ordered(model, indexer, inputs):
    """A plan by an indexer, and what the model is called with."""
    MODELS.append(model)
    return resolved(model, nnlr.layer_decay(0.5, indexer)), None, None, None, inputs


@case("order-inverted")
def numbered_backwards(ill):
    """The last layer is said to be the first."""
    layers = {"0.*": 1, "2.*": 0} if ill else {"0.*": 0, "2.*": 1}
    return ordered(network(), layers, (torch.zeros(2, 4),))


class ActorCritic(nn.Module):
    """Two towers on one input."""

    def __init__(self):
        super().__init__()
        self.actor, self.critic = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, state):
        return self.actor(state), self.critic(state)


@case("order-parallel")
def critic_above_the_actor(ill):
    """The critic is said to stand on the actor."""
    both = nn.ModuleDict({"stem": nn.Linear(3, 4), "towers": ActorCritic()})
    both.forward = lambda state: both["towers"](both["stem"](state))
    layers = {"stem.*": 0, "towers.actor.*": 1, "towers.critic.*": 2 if ill else 1}
    return ordered(both, layers, {"state": torch.zeros(2, 3)})


@case("order-straddles")
def middle_outside(ill):
    """The first and the last layer are one, and the middle is another."""
    net = network(*(nn.Linear(4, 4) for _ in range(3)))
    layers = {"0.*": 0, "1.*": 1, "2.*": 0 if ill else 2}
    return ordered(net, layers, torch.zeros(2, 4))


@case("order-of-towers")
def encoder_apart(ill):
    """An encoder whose top learns faster than the decoder that it feeds."""
    net = nn.Transformer(4, 2, 2, 2, 8, batch_first=True)
    inputs = nnlr.depth.flow(
        torch.zeros(1, 3, 4), torch.zeros(1, 2, 4), towers="apart" if ill else "chain"
    )
    return ordered(net, inputs, inputs)


def arguments(made):
    """What a case returned as arguments of check."""
    plan, optimizer, *rest = made
    scheduler, deepspeed, inputs = [*rest, None, None, None][:3]
    return (plan, optimizer, scheduler), {"deepspeed": deepspeed, "inputs": inputs}


def as_file(configuration, folder):
    """A configuration of DeepSpeed as its users keep it."""
    path = folder / "deepspeed.json"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    return path


# --- relative updates


def relative(lr, mult=0.1, dtype=torch.float32):
    """A network under hyperball, with vectors at a part of the rate."""
    model = network().to(dtype)
    plan = resolved(model, nnlr.rule(nnlr.ndim(max=1) | "2.weight", lr_mult=mult), lr=lr)
    optimizer = plan.optimizer(torch.optim.Adam)
    nnlr.relative(optimizer, "hyperball")
    return plan, optimizer


@case("high-relative-rate")
def more_than_half_a_matrix(ill):
    return relative(lr=0.9 if ill else 0.02)


@case("two-kinds-of-rate")
def vectors_at_the_rate_of_matrices(ill):
    return relative(lr=0.02, mult=1.0 if ill else 0.1)


@case("vanishing-update")
def a_relative_rate_below_the_spacing(ill):
    return relative(lr=1e-3 if ill else 0.05, dtype=torch.bfloat16)


# --- phases


@case("no-epoch-ended")
def phases_in_a_run_that_tells_of_no_epoch(ill):
    model = network()
    plan = resolved(model, nnlr.unfreeze([{"train": "2.*"}, {"train": "*", "epoch": 1}]))
    optimizer = plan.optimizer(torch.optim.AdamW)
    SCRIPT["attached"] = attached = nnlr.attach(optimizer, plan)
    backward(model)
    optimizer.step()
    optimizer.zero_grad()
    if not ill:
        attached.end_epoch()
    return plan, optimizer
