"""Multipliers that move, run ahead: the curves are those of the run that follows."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr.report import rates_over_time

LAYERS = {f"{at}.*": at for at in range(3)}


def later(t, layer):
    """From 0 to 1, the sooner the higher the layer."""
    return min(1.0, t * (1 + layer.depth))


def planned(scheme=None):
    """A network of three layers and a head, and its plan: layers move, and the head's decay."""
    net = nn.Sequential(*[nn.Linear(2, 2) for _ in range(3)], nn.Linear(2, 1))
    if scheme is None:
        scheme = nnlr.layer_decay(0.5, indexer=LAYERS).at(later)
        scheme = scheme * nnlr.rule("0.*").at(lambda t: 2 - t, setting="weight_decay")
    return net, nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.2)


def run(optimizer, scheduler, steps):
    """The rates and decays of each group in so many steps of training, by name."""
    names = [group["name"] for group in optimizer.param_groups]
    rows = []
    for step in range(steps):
        if step:
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        rows.append([(g["lr"], g["weight_decay"]) for g in optimizer.param_groups])
    return {
        name: tuple(zip(*column, strict=True))
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def agree(rates, real):
    """Whether rates are those of a run."""
    assert rates.lr.keys() == real.keys()
    for name, (lr, decay) in real.items():
        assert rates.lr[name] == pytest.approx(lr)
        if rates.weight_decay:
            assert rates.weight_decay[name] == pytest.approx(decay)


def cosine(optimizer):
    """Half a cosine over the run."""
    return lrs.CosineAnnealingLR(optimizer, T_max=12)


@pytest.mark.parametrize("factory", [cosine, None], ids=["cosine", "constant"])
def test_before_the_run_the_curves_are_those_of_it(factory):
    """A class of scheduler, or no scheduler: the rates that training then has, decays too."""
    net, plan = planned()
    rates = rates_over_time(plan, factory, 12)
    optimizer = plan.optimizer(torch.optim.SGD)
    nnlr.attach(optimizer, plan, total_steps=12, model=net)
    scheduler = None if factory is None else nnlr.schedule(optimizer, factory)
    agree(rates, run(optimizer, scheduler, 12))
    assert rates.weight_decay
    assert rates.notes == ()
    assert rates.label == ("CosineAnnealingLR" if factory else "constant base rate")


@pytest.mark.parametrize("kind", ["ours", "with decay", "of torch"])
def test_during_the_run_the_curves_go_on_from_there(kind):
    """After some steps, with multipliers that are still 0 and others that are not."""
    net, plan = planned()
    optimizer = plan.optimizer(torch.optim.SGD)
    torchs = cosine(optimizer) if kind == "of torch" else None
    nnlr.attach(optimizer, plan, total_steps=12, model=net)
    decay = {"weight_decay": cosine} if kind == "with decay" else {}
    scheduler = torchs or nnlr.schedule(optimizer, cosine, **decay)
    run(optimizer, scheduler, 4)
    before = [dict(group) for group in optimizer.param_groups]
    rates = rates_over_time(plan, scheduler, 9)
    assert [dict(group) for group in optimizer.param_groups] == before
    agree(rates, run(optimizer, scheduler, 9))
    assert rates.positions == tuple(range(3, 12))


def test_where_all_groups_move_a_scheduler_of_torch_starts_from_the_plan():
    """The rates of the plan, by the scheduler and the moves, which have moved them already."""
    net, plan = planned(nnlr.freeze_out(0.5, indexer=LAYERS))
    optimizer = plan.optimizer(torch.optim.SGD)
    scheduler = cosine(optimizer)
    attached = nnlr.attach(optimizer, plan, total_steps=12, model=net)
    rates = rates_over_time(plan, scheduler, 3)
    assert [rates.lr[group["name"]][0] for group in optimizer.param_groups] == pytest.approx(
        [0.1 * unit.mult for unit in attached.units]
    )


class Remembering(nnlr.Move):
    """A tenth slower each time it is asked, by what it remembers."""

    def mults(self, now, units):
        for unit in units:
            unit.memory["mult"] = 0.9 * unit.memory.get("mult", 1.0)
        return [unit.memory["mult"] for unit in units]


def test_what_is_not_read_is_passed_over_but_by_what_remembers():
    """Of few points the values are those of all of them."""
    plan = planned(nnlr.rule("0.*").at(Remembering()) * nnlr.rule("1.*").at(lambda t: 1 - t))[1]
    whole, few = (rates_over_time(plan, None, 41, points=points) for points in (100, 5))
    assert few.positions == (0, 10, 20, 30, 40)
    for name, values in few.lr.items():
        assert values == tuple(whole.lr[name][at] for at in few.positions)


class Counting(nnlr.Move):
    """Goes by epochs, which it counts itself; not at each step due."""

    def end_epoch(self, now, units, metric):
        for unit in units:
            unit.memory["epochs"] = unit.memory.get("epochs", 0) + 1
            unit.memory["metric"] = metric

    def due(self, now, units):
        return False

    def mults(self, now, units):
        return [1 / (1 + unit.memory.get("epochs", 0)) for unit in units]

    needs_epochs = True


def halving(t):
    """Half as fast after each epoch."""
    return 0.5**t.epoch


@pytest.mark.parametrize(("function", "last"), [(halving, 0.25), (Counting(), 1 / 3)])
def test_epochs_are_run_ahead_where_their_length_is_said(function, last):
    """Without it they stand still; a note says so, or what is assumed."""
    plan = planned(nnlr.rule("*").at(function))[1]
    still = rates_over_time(plan, None, 9)
    assert {*still.lr["moving_lr1_wd1"]} == {0.1}
    assert "goes by epochs, of which epoch_steps= would say how long they are" in still.notes[0]
    rates = rates_over_time(plan, None, 9, epoch_steps=4)
    assert rates.lr["moving_lr1_wd1"][3:5] == pytest.approx((0.1, 0.05))
    assert rates.lr["moving_lr1_wd1"][-1] == pytest.approx(0.1 * last)
    assert "epochs of 4 steps and a metric that never improves are assumed" in rates.notes[0]
    with pytest.raises(nnlr.NnlrError, match="epoch_steps must be a whole number >= 1, got 0"):
        rates_over_time(plan, None, 9, epoch_steps=0)


def test_phases_that_restore_the_best_weights_are_run_ahead():
    """What copies weights copies nothing there; a metric that never improves ends the phase."""
    scheme = nnlr.unfreeze("lp_ft", ["0.*", "[1-3].*"], patience=2, restore_best=True)
    plan = planned(scheme)[1]
    rates = rates_over_time(plan, None, 9, epoch_steps=2)
    assert rates.lr["phase1_lr0.1_wd1"] == pytest.approx((0.0,) * 6 + (0.01,) * 3)


class Looking(nnlr.Move):
    """Measures the network; at half until then."""

    def measures(self, now, units):
        return True

    def mults(self, now, units):
        return [0.5] * len(units)


class Weighing(nnlr.Move):
    """Needs weights all the time."""

    def mults(self, now, units):
        return [float(unit.tensors[0].detach().norm()) for unit in units]


def test_what_cannot_be_told_ahead_stays_and_a_note_says_so():
    """What measures, what needs weights, and what was read from JSON."""
    net, plan = planned(nnlr.rule("0.*").at(Looking()) * nnlr.rule("1.*").at(Weighing()))
    rates = rates_over_time(plan, None, 3)
    assert all({*values} == {0.1} for values in rates.lr.values())
    assert (
        "Looking()) measures the network: its multipliers are drawn as they are at the"
        in (rates.notes[0])
    )
    assert "Weighing()) cannot be run ahead without weights (" in rates.notes[1]
    optimizer = plan.optimizer(torch.optim.SGD)
    nnlr.attach(optimizer, plan, model=net)
    scheduler = nnlr.schedule(optimizer, cosine)
    moved = rates_over_time(plan, scheduler, 1)
    assert (0.05,) in moved.lr.values()
    read = nnlr.Plan.from_json(planned()[1].to_json())
    rates = rates_over_time(read, None, 3)
    assert rates.lr["layer0_moving_lr0.25_wd1"] == pytest.approx((0.025,) * 3)
    assert "was read from JSON, which does not hold how it moves" in rates.notes[0]


def test_what_no_training_can_use_ends_it():
    """A multiplier below 0 at the end of the run is found before the run, as where it ends."""
    plan = planned(nnlr.rule("*").at(lambda t: 0.5 - t))[1]
    rates = rates_over_time(plan, None, 9)
    assert rates.positions == (0, 1, 2, 3, 4)
    assert "at step 5 of 9 must be a finite number >= 0" in str(rates.incomplete)


def test_groups_of_others_do_not_move():
    """An optimizer of another plan, with other groups."""
    plan = planned()[1]
    other = nnlr.resolve(nn.Linear(1, 1), lr=0.3, weight_decay=0)
    scheduler = nnlr.schedule(other.optimizer(torch.optim.SGD, model=nn.Linear(1, 1)), cosine)
    assert rates_over_time(plan, scheduler, 2).lr["lr1_wd1"][0] == 0.3


def test_pictures_and_pages_have_the_notes():
    """Below the picture, in the lead of the page, and in the title of the plan's picture."""
    plan = planned(nnlr.rule("0.*").at(Looking()))[1]
    figure = plan.plot_schedule(None, 5)
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "measures the network" in " ".join(texts.split())
    page = plan.to_html(schedule=rates_over_time(plan, None, 5))
    assert "Constant base rate: the" in page
    assert "measures the network" in page
    assert "moves as moving" in page
    assert plan.plot().get_suptitle() == "Sequential: 8 parameters, 2 move, 2 groups"
    whole = planned(nnlr.rule("*").at(halving))[1]
    assert "all move" in whole.plot().get_suptitle()
