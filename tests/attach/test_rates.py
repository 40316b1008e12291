"""The rates of moving groups: whoever moves the base, they are base times multiplier."""

import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr import NnlrWarning
from tests.attach.moving import (
    BASE,
    DECAY,
    LAYERS,
    TOTAL,
    backward,
    blink,
    close,
    half_cosine,
    network,
    plan_of,
    rates,
    train,
)


def falling(t):
    """1, 1/2, 1/3 and so on."""
    return 1 / (1 + t.step)


SCHEME = nnlr.rule("0.*", lr_mult=0.5).at(blink) * nnlr.rule("1.*", lr_mult=0.3).at(falling)
MOVES = {"0.weight": (0.5, blink), "1.weight": (0.3, falling), "2.weight": (1.0, lambda t: 1.0)}

SCHEDULERS = {
    "closed form": lambda opt: lrs.LambdaLR(opt, lambda step: 1 / (step + 1)),
    "chained": lambda opt: lrs.ExponentialLR(opt, 0.9),
    "recursive": lambda opt: lrs.CosineAnnealingLR(opt, TOTAL),
    "by notes": lambda opt: lrs.OneCycleLR(opt, max_lr=BASE, total_steps=TOTAL),
    "from 0": lambda opt: lrs.LambdaLR(opt, lambda step: max(0.0, (step - 2) / 3)),
}


@pytest.mark.parametrize("first", ["scheduler", "attach"])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_scheduler_of_torch_moves_what_moves(kind, first):
    """Under any scheduler each step uses the scheduler's base times plan times move."""
    alone = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=BASE)
    net = network()
    plan = plan_of(net, SCHEME)
    optimizer = plan.optimizer(torch.optim.SGD)
    scheduler = SCHEDULERS[kind](optimizer) if first == "scheduler" else None
    nnlr.attach(optimizer, plan, total_steps=TOTAL)
    used = []
    scheduler = scheduler or SCHEDULERS[kind](optimizer)
    optimizer.register_step_pre_hook(lambda *_: used.append(rates(optimizer)))
    reference = SCHEDULERS[kind](alone)
    for step in range(7):
        backward(net, step)
        optimizer.step()
        base, now = alone.param_groups[0]["lr"], nnlr.Progress(step, TOTAL)
        assert used[-1] == close({n: base * m * move(now) for n, (m, move) in MOVES.items()})
        alone.step()
        scheduler.step()
        reference.step()


@pytest.mark.parametrize("keeping", ["before", "after"])
def test_keep_ratios_goes_by_a_group_that_does_not_move(keeping):
    """keep_ratios takes a still group for the reference, whichever hook is the first."""
    net = network()
    plan = plan_of(net, nnlr.rule("[012].*").at(falling) * nnlr.rule("3.*", lr_mult=0.5))
    optimizer = plan.optimizer(torch.optim.SGD)
    attach = lambda: nnlr.attach(optimizer, plan)  # noqa: E731
    keep = lambda: nnlr.keep_ratios(optimizer)  # noqa: E731
    for call in (keep, attach) if keeping == "before" else (attach, keep):
        call()
    assert nnlr.rate_summary(optimizer)["lr"] == BASE / 2
    used = []
    optimizer.register_step_pre_hook(lambda *_: used.append(rates(optimizer)))
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = BASE / 2 * 0.9**step  # a scheduler that knows one rate
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NnlrWarning)
            optimizer.step()
        base = BASE * 0.9**step
        assert used[-1] == close({"0.weight": base / (step + 1), "3.weight": base / 2})


@pytest.mark.parametrize("kind", ["chained", "closed form", "by notes"])
def test_a_foreign_scheduler_is_refused_where_everything_moves(kind):
    """Nothing tells the base then, and the message names the way out, which works."""
    net = network()
    plan = plan_of(net, nnlr.rule("*").at(falling))
    optimizer = plan.optimizer(torch.optim.SGD)
    attached = nnlr.attach(optimizer, plan, total_steps=TOTAL)
    scheduler = SCHEDULERS[kind](optimizer)
    with pytest.raises(nnlr.ConfigError, match=r"All groups move.*nnlr\.schedule\(optimizer"):
        train(net, optimizer, attached, 3, scheduler)
    optimizer = plan.optimizer(torch.optim.SGD)
    attached = nnlr.attach(optimizer, plan, total_steps=TOTAL)
    schedule = nnlr.schedule(optimizer, SCHEDULERS[kind])
    train(net, optimizer, attached, 3, schedule)
    assert rates(optimizer) == close({"0.weight": schedule.base_lr / 4})


def test_rates_written_by_hand_are_the_base_where_they_fit_the_multipliers():
    """Code that writes base(t) * lr_mult before each step, as MAE's does, goes on so."""
    net = network()
    plan = plan_of(net, nnlr.layer_decay(0.5, indexer=LAYERS).at(falling))
    optimizer = plan.optimizer(torch.optim.SGD)
    attached = nnlr.attach(optimizer, plan)
    used = []
    optimizer.register_step_pre_hook(lambda *_: used.append(rates(optimizer)))
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = BASE * 0.9**step * group["lr_mult"]
        written = rates(optimizer)
        train(net, optimizer, attached, 1)
        assert used[-1] == written
    assert rates(optimizer)["3.weight"] == close(BASE * 0.9**3 / 5)
    optimizer.param_groups[0]["lr"] = 1.0
    with pytest.raises(nnlr.ConfigError, match="writes the lr of"):
        train(net, optimizer, attached, 1)


def test_all_rates_of_0_are_left_alone_where_everything_moves():
    """A warm-up may begin at 0, which tells nothing yet."""
    net = network()
    plan = plan_of(net, nnlr.layer_decay(0.5, indexer=LAYERS).at(falling))
    optimizer = plan.optimizer(torch.optim.SGD)
    scheduler = SCHEDULERS["from 0"](optimizer)
    attached = nnlr.attach(optimizer, plan)
    train(net, optimizer, attached, 2, scheduler)
    train(net, optimizer, attached, 1)
    assert set(rates(optimizer).values()) == {0.0}
    scheduler.step()
    with pytest.raises(nnlr.ConfigError, match="All groups move"):
        train(net, optimizer, attached, 1)


@pytest.mark.parametrize("setting", ["lr", "weight_decay"])
def test_what_does_not_move_is_nobodys_business(setting):
    """Attach writes neither the other setting of a moving group, nor any of a still one."""
    net = network()
    other = {"lr": "weight_decay", "weight_decay": "lr"}[setting]
    plan = plan_of(net, nnlr.rule("[01].*").at(falling, setting=setting))
    optimizer = plan.optimizer(torch.optim.AdamW)
    for group in optimizer.param_groups:
        group[other] = 0.07
    attached = nnlr.attach(optimizer, plan)
    train(net, optimizer, attached, 1)
    assert rates(optimizer, other) == {"0.weight": 0.07, "2.weight": 0.07}
    base = BASE if setting == "lr" else DECAY
    assert rates(optimizer, setting) == close({"0.weight": base / 2, "2.weight": base})


def test_a_decay_that_others_write_moves_what_moves():
    """DINO writes one decay into every group before each step: a still group tells the base."""
    net = network()
    scheme = nnlr.rule("0.*").at(falling, setting="weight_decay") * nnlr.rule("1.*", wd_mult=0)
    plan = plan_of(net, scheme)
    optimizer = plan.optimizer(torch.optim.AdamW)
    nnlr.attach(optimizer, plan)
    used = []
    optimizer.register_step_pre_hook(lambda *_: used.append(rates(optimizer, "weight_decay")))
    for step in range(3):
        decay = 0.05 + 0.1 * step
        for group in optimizer.param_groups[:2]:
            group["weight_decay"] = decay
        optimizer.step()
        due = {"0.weight": decay / (step + 1), "1.weight": 0.0, "2.weight": decay}
        assert used[-1] == close(due)


@pytest.mark.parametrize("first", ["schedule", "attach"])
def test_schedules_of_nnlr_and_moves_multiply(first):
    """Beside, after, new courses in mid-run, set_base_lr and patterns of groups all hold."""
    net = network()
    plan = plan_of(net, SCHEME)
    optimizer = plan.optimizer(torch.optim.AdamW)
    cosine = lambda opt: lrs.CosineAnnealingLR(opt, TOTAL)  # noqa: E731
    schedule = nnlr.schedule(optimizer, cosine) if first == "schedule" else None
    attached = nnlr.attach(optimizer, plan, total_steps=TOTAL)
    schedule = schedule or nnlr.schedule(optimizer, cosine)

    def hold():
        now, base = attached.progress, schedule.base_lr
        return rates(optimizer) == close(
            {n: base * m * move(now) for n, (m, move) in MOVES.items()}
        )

    train(net, optimizer, attached, 3, schedule)
    assert hold()
    beside = nnlr.schedule(
        optimizer, lrs.LinearLR, beside=schedule, start_factor=0.1, total_iters=4
    )
    train(net, optimizer, attached, 2, schedule, beside)
    assert hold()
    schedule.set_base_lr(0.7)
    assert hold()
    train(net, optimizer, attached, 1, schedule)
    schedule = nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.8)  # layer 0 is at 0 now
    assert schedule.base_lr == BASE
    assert hold()
    train(net, optimizer, attached, 3, schedule)
    assert hold()
    later = nnlr.schedule(optimizer, lrs.ConstantLR, after=schedule, factor=0.5)
    train(net, optimizer, attached, 2, later)
    assert hold()
    courses = {"moving*": lambda opt: lrs.ExponentialLR(opt, 0.5), "*": None}
    by_groups = nnlr.schedule(optimizer, courses)
    train(net, optimizer, attached, 2, by_groups)
    now = attached.progress
    due = {n: BASE * m * move(now) / 4 for n, (m, move) in MOVES.items()} | {"2.weight": BASE}
    assert rates(optimizer) == close(due)


def test_a_schedule_of_weight_decay_and_moves_multiply():
    """base(t) * wd_mult(t), with the rate beside it."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(falling, setting="weight_decay"))
    optimizer = plan.optimizer(torch.optim.AdamW)
    attached = nnlr.attach(optimizer, plan)
    half = lambda opt: lrs.ExponentialLR(opt, 0.5)  # noqa: E731
    schedule = nnlr.schedule(optimizer, half, weight_decay=half)
    train(net, optimizer, attached, 2, schedule)
    due = {"0.weight": DECAY / 4 / 3, "1.weight": DECAY / 4}
    assert rates(optimizer, "weight_decay") == close(due)


@pytest.mark.parametrize("scheduled", [True, False])
def test_rates_that_are_tensors_stay_the_same_tensors(scheduled):
    """A compiled or captured step reads them where they are."""
    net = network()
    plan = plan_of(net, SCHEME)
    optimizer = plan.optimizer(torch.optim.AdamW, tensor_lr=True)
    attached = nnlr.attach(optimizer, plan)
    schedule = [nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.9)] if scheduled else []
    tensors = [group["lr"] for group in optimizer.param_groups]
    train(net, optimizer, attached, 3, *schedule)
    assert all(g["lr"] is t for g, t in zip(optimizer.param_groups, tensors, strict=True))
    base = BASE * (0.9**3 if scheduled else 1)
    assert rates(optimizer)["1.weight"] == close(base * 0.3 / 4)
    if not scheduled:
        optimizer.param_groups[0]["lr"].fill_(0.5)  # the reference
        train(net, optimizer, attached, 1)
        assert rates(optimizer)["1.weight"] == close(0.5 * 0.3 / 5)


def test_moves_of_one_parameter_multiply():
    """Of two moves and two settings each acts on what it is for."""
    net = network()
    scheme = nnlr.layer_decay(1.0, indexer=LAYERS).at(half_cosine)
    scheme *= nnlr.rule("*").at(falling) * nnlr.rule("0.*").at(falling, setting="weight_decay")
    plan = plan_of(net, scheme)
    optimizer = plan.optimizer(torch.optim.AdamW)
    attached = nnlr.attach(optimizer, plan, total_steps=TOTAL)
    train(net, optimizer, attached, 3)
    for name, rate in rates(optimizer).items():
        layer = nnlr.depth.Layer(*plan[name].depth)
        assert rate == close(BASE * half_cosine(3 / TOTAL, layer) / 4)
    assert rates(optimizer, "weight_decay")["0.weight"] == close(DECAY / 4)
    assert rates(optimizer, "weight_decay")["1.weight"] == DECAY


class Half(nnlr.Move):
    """A half for all."""

    def mults(self, now, units):
        """The same for all units."""
        return [0.5] * len(units)


def test_one_move_may_move_both_settings():
    """Each setting has units of its own, though the move is one object."""
    net = network()
    half = Half()
    plan = plan_of(net, nnlr.rule("*").at(half) * nnlr.rule("*").at(half, setting="weight_decay"))
    optimizer = plan.optimizer(torch.optim.AdamW)
    attached = nnlr.attach(optimizer, plan)
    assert [(u.setting, u.mult) for u in attached.units] == [("lr", 0.5), ("weight_decay", 0.5)]
    assert {*rates(optimizer).values()} == {BASE / 2}
    assert {*rates(optimizer, "weight_decay").values()} == {DECAY / 2}


def test_a_scheme_that_is_there_twice_moves_twice():
    """Where one scheme reaches a parameter a second time, its factor counts a second time."""
    net = network()
    half = nnlr.rule("*").at(Half())
    plan = plan_of(net, half * half.where("0.weight"))
    optimizer = plan.optimizer(torch.optim.SGD)
    attached = nnlr.attach(optimizer, plan)
    assert rates(optimizer) == {"0.weight": BASE / 4, "0.bias": BASE / 2}
    assert [len(unit.names) for unit in attached.units] == [8, 1]
    assert plan.explain("0.weight", optimizer).count("x 0.5 now") == 2


def test_a_function_of_layers_gets_those_of_its_own_scheme():
    """Another scheme by depth before it, of which each has its layers, changes nothing."""
    net = network()
    pairs = {"[01].*": 0, "[23].*": 1}
    got = {}

    def note(_, layer):
        got[layer.depth, layer.last] = True
        return 1.0

    scheme = nnlr.layer_decay(0.5, indexer=LAYERS) * nnlr.layer_decay(1, indexer=pairs).at(note)
    plan = plan_of(net, scheme)
    attached = nnlr.attach(plan.optimizer(torch.optim.SGD), plan)
    assert [*got] == [(0, 1), (1, 1)]
    assert [unit.layer.depth for unit in attached.units] == [0, 1]
    assert plan["3.weight"].depth == (3, 3)


def test_independent_decay_divides_by_the_static_part():
    """decay='independent' makes wd_mult / lr_mult of the plan; a move does not touch it."""
    net = network()
    scheme = nnlr.rule("0.*", lr_mult=0.5).at(falling)
    plan = nnlr.resolve(net, scheme, lr=BASE, weight_decay=DECAY, decay="independent")
    optimizer = plan.optimizer(torch.optim.AdamW)
    attached = nnlr.attach(optimizer, plan)
    train(net, optimizer, attached, 3)
    assert rates(optimizer, "weight_decay") == close({"0.weight": 2 * DECAY, "1.weight": DECAY})


def test_groups_that_are_added_later_are_not_touched():
    """add_param_group keeps the moves of the rest going, and its own rate."""
    net = network()
    plan = plan_of(net, SCHEME)
    optimizer = plan.optimizer(torch.optim.AdamW, names=False)
    attached = nnlr.attach(optimizer, plan)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.3})
    for step in range(2):
        backward(net, step)
        optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == close([0.1, 0.05, 0.03 / 3, 0.3])
    assert attached.progress.step == 2


def test_a_group_that_is_added_later_tells_the_base_if_all_others_move():
    """With a multiplier it shows where others have brought the base rate."""
    net = network()
    plan = plan_of(net, nnlr.rule("*").at(falling))
    optimizer = plan.optimizer(torch.optim.SGD, names=False)
    nnlr.attach(optimizer, plan)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr_mult": 1.0})
    optimizer.step()
    optimizer.param_groups[-1]["lr"] = BASE / 5
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == close(BASE / 5 / 3)


def test_the_base_is_read_off_a_group_that_is_at_the_base():
    """A scheduler with a floor for all groups leaves ten times the base less than ten times it."""
    net = network()
    plan = plan_of(net, nnlr.rule("0.*").at(falling) * nnlr.rule("1.*", lr_mult=10))
    optimizer = plan.optimizer(torch.optim.SGD)
    nnlr.attach(optimizer, plan)
    for group in optimizer.param_groups:
        if group["lr_mult"] == 1 and "2.weight" in group["param_names"]:
            group["lr"] = BASE / 2
    optimizer.step()
    assert rates(optimizer) == close(
        {"0.weight": BASE / 4, "1.weight": BASE * 10, "2.weight": BASE / 2}
    )


def test_several_algorithms_move_each_on_its_own_base():
    """One optimizer of two classes: the moves act in both."""
    net = network()
    scheme = nnlr.rule("*.weight", algorithm="muon") * nnlr.rule("*.bias", algorithm="adamw")
    scheme *= nnlr.rule("[12].*", lr_mult=0.5).at(falling)
    lr = {"muon": 0.02, "adamw": 0.003}
    plan = plan_of(net, scheme, lr=lr, weight_decay=0.0)
    optimizer = plan.optimizer({"muon": torch.optim.Muon, "adamw": nnlr.optim.AdamW})
    attached = nnlr.attach(optimizer, plan)
    schedule = nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.9)
    train(net, optimizer, attached, 3, schedule)
    for name, rate in rates(optimizer).items():
        row = plan[name]
        move = 1 / 4 if row.moves else 1.0
        assert rate == close(lr[row.algorithm] * row.lr_mult * move * 0.9**3)


@pytest.mark.parametrize(("decay", "mult"), [(0.0, 1.0), (DECAY, 0.0)])
def test_a_base_of_0_moves_nothing(decay, mult):
    """Without weight decay a move of it leaves 0, and divides nothing by it."""
    net = network()
    scheme = nnlr.rule("0.*").at(falling, setting="weight_decay") * nnlr.rule("*", wd_mult=mult)
    plan = plan_of(net, scheme, weight_decay=decay)
    optimizer = plan.optimizer(torch.optim.AdamW)
    with pytest.warns(nnlr.NnlrWarning, match="all that it moves has a weight decay of 0"):
        attached = nnlr.attach(optimizer, plan)
    train(net, optimizer, attached, 2)
    assert set(rates(optimizer, "weight_decay").values()) == {0.0}
