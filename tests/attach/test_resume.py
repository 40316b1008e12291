"""What moves has come to is saved with the optimizer, and goes on from there."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr import NnlrError, NnlrWarning
from tests.attach.moving import (
    BASE,
    LAYERS,
    TOTAL,
    backward,
    blink,
    close,
    half_cosine,
    network,
    plan_of,
    rates,
    same_weights,
    train,
)


class ByGradient(nnlr.Move):
    """1 / (1 + the sum of gradient norms at each third step): it remembers."""

    def measures(self, now, units):
        """Every third step."""
        return now.step % 3 == 0

    def measure(self, now, units):
        """Add the norms."""
        for unit in units:
            norm = float(unit.tensors[0].grad.norm())
            unit.memory["sum"] = unit.memory.get("sum", 0.0) + norm

    def end_epoch(self, now, units, metric):
        """Remember the best metric."""
        for unit in units:
            unit.memory["best"] = max(metric, unit.memory.get("best", -math.inf))

    def due(self, now, units):
        """Only after a measurement."""
        return False

    def mults(self, now, units):
        """What the sum gives."""
        return [1 / (1 + unit.memory.get("sum", 0.0)) for unit in units]


def everything():
    """Two moves of rates, one that measures, and one of decay."""
    return (
        nnlr.rule("0.*", lr_mult=0.5).at(blink)
        * nnlr.layer_decay(0.5, indexer=LAYERS).at(half_cosine)
        * nnlr.layer_decay(1.0, indexer=LAYERS).at(ByGradient()).where(nnlr.glob("[12].*"))
        * nnlr.rule("3.*").at(lambda t: 1 + t, setting="weight_decay")
    )


def make(
    scheme=everything, *, cls=torch.optim.AdamW, total=TOTAL, attach=True, lr=BASE, **settings
):
    """A network, its plan, its optimizer, and what is attached."""
    net = network()
    plan = plan_of(net, scheme(), lr=lr)
    optimizer = plan.optimizer(cls, **settings)
    attached = nnlr.attach(optimizer, plan, total_steps=total) if attach else None
    return net, plan, optimizer, attached


def decayed(decay, function=half_cosine):
    """A layer decay that moves, or not."""
    scheme = nnlr.layer_decay(decay, indexer=LAYERS)
    return lambda: scheme if function is None else scheme.at(function)


def saved_on_disk(value):
    """The value as it comes from a file."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file)


def into_attached(run, saved, _path):
    """Load into an attached optimizer."""
    run[2].load_state_dict(saved)
    return run


def before_attach(run, saved, _path):
    """Load, and attach then."""
    fresh = make(attach=False)
    fresh[2].load_state_dict(saved)
    return *fresh[:3], nnlr.attach(fresh[2], fresh[1], total_steps=TOTAL)


def fitted(run, saved, _path):
    """Load what fit_state gave."""
    run[2].load_state_dict(nnlr.checkpoint.fit_state(saved, run[2])[0])
    return run


def by_dcp(run, _saved, path):
    """Load by torch's distributed checkpoints, into the layout of this optimizer."""
    part = {"optimizer": get_optimizer_state_dict(run[0], run[2])}
    assert run[3].progress.step == 0  # the step by which torch makes state is none
    dcp.load(part, checkpoint_id=path)
    set_optimizer_state_dict(run[0], run[2], part["optimizer"])
    return run


def by_dcp_before_attach(run, _saved, path):
    """The same, and attach then."""
    fresh = make(attach=False)
    by_dcp((*fresh[:3], run[3]), None, path)
    return *fresh[:3], nnlr.attach(fresh[2], fresh[1], total_steps=TOTAL)


def by_load_dcp(run, _saved, path):
    """Load by the layout of the checkpoint."""
    nnlr.checkpoint.load_dcp(path, run[2], run[0])
    return run


DISTRIBUTED = [by_dcp, by_dcp_before_attach, by_load_dcp]
WAYS = [into_attached, before_attach, fitted, *DISTRIBUTED]


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_loading_goes_on(way, tmp_path):
    """Rates, decays and memories of 7 + 6 steps are those of 7 steps, a load and 6 steps."""
    run = make()
    train(run[0], run[2], run[3], 4)
    run[3].end_epoch(-2.5)
    train(run[0], run[2], run[3], 3)
    weights, saved = saved_on_disk([run[0].state_dict(), run[2].state_dict()])
    if way in DISTRIBUTED:
        dcp.save({"optimizer": get_optimizer_state_dict(run[0], run[2])}, checkpoint_id=tmp_path)
    resumed = way(make(), saved, tmp_path)
    resumed[0].load_state_dict(weights)
    assert (resumed[3].progress.step, resumed[3].progress.epoch) == (7, 1)
    for net, _, optimizer, attached in (run, resumed):
        train(net, optimizer, attached, 6)
    for key in ("lr", "weight_decay", "lr_mult", "wd_mult"):
        assert rates(run[2], key) == close(rates(resumed[2], key))
    memories = [[unit.memory for unit in each[3].units] for each in (run, resumed)]
    assert {"sum", "best"} in [memory.keys() for memory in memories[0]]
    for one, other in zip(*memories, strict=True):
        assert one == close(other)


def test_a_state_dict_in_memory_stays_as_it_was():
    """Later steps do not change notes, memories or rates in it."""
    net, _, optimizer, attached = make()
    train(net, optimizer, attached, 4)
    saved = optimizer.state_dict()
    before = copy.deepcopy(saved["param_groups"])
    train(net, optimizer, attached, 4)
    assert saved["param_groups"] == before


def test_notes_have_the_same_keys_from_the_start():
    """Distributed checkpoints miss keys that come and go."""
    net, _, optimizer, attached = make(attach=False)
    keys = [set(group["moved"]) for group in optimizer.param_groups if "moved" in group]
    attached = nnlr.attach(optimizer, make()[1], model=net, total_steps=TOTAL)
    train(net, optimizer, attached, 4)
    assert keys == [set(group["moved"]) for group in optimizer.param_groups if "moved" in group]


def test_the_static_part_is_the_codes_and_the_progress_the_checkpoints():
    """Another layer decay and base counts at once, at the step that was saved, and is told."""
    old, new = make(decayed(0.5)), make(decayed(0.9), lr=0.2)
    train(old[0], old[2], old[3], 7)
    with pytest.warns(
        NnlrWarning, match=r"lr is 0.1 in the checkpoint and 0.2 in the code"
    ) as told:
        new[2].load_state_dict(old[2].state_dict())
    (text,) = [str(warning.message) for warning in told]
    assert "those of the code count" in text.replace("\n    ", " ")
    assert "the checkpoint's count" not in text.replace("\n    ", " ")
    assert new[3].progress.step == 7
    for name, rate in rates(new[2]).items():
        row = new[1][name]
        move = half_cosine(7 / TOTAL, nnlr.depth.Layer(*row.depth))
        assert rate == close(0.2 * row.lr_mult * move)


def test_resume_by_checkpoint_takes_its_static_part_too():
    """Under resume='checkpoint' everything goes on as it was saved."""
    old, new = make(decayed(0.5)), make(decayed(0.9), lr=0.2, resume="checkpoint")
    train(old[0], old[2], old[3], 7)
    with pytest.warns(NnlrWarning, match=r"0.1\s+counts \(checkpoint\)"):
        new[2].load_state_dict(old[2].state_dict())
    for net, _, optimizer, attached in (old, new):
        train(net, optimizer, attached, 2)
    assert rates(old[2]) == close(rates(new[2]))


def test_code_without_moves_takes_multipliers_as_they_are():
    """They stay where the checkpoint has them, which a warning says, and nothing waits."""
    old, new = make(decayed(0.5)), make(decayed(0.5, None), attach=False)
    train(old[0], old[2], old[3], 7)
    with pytest.warns(
        NnlrWarning, match=r"lr_mult of 8 parameters(.|\s)*the\s+checkpoint's\s+count"
    ):
        new[2].load_state_dict(old[2].state_dict())
    assert rates(new[2]) == rates(old[2])
    assert not any("moved" in group for group in new[2].param_groups)
    backward(new[0], 0)
    new[2].step()


def test_moves_that_are_new_to_a_checkpoint_begin_and_say_so():
    """The checkpoint is of a run in which nothing moved."""
    old, new = make(decayed(0.5, None), attach=False), make(decayed(0.5))
    backward(old[0], 0)
    old[2].step()
    train(new[0], new[2], new[3], 3)
    with pytest.warns(NnlrWarning, match=r"nothing moved.*half_cosine.*begin now, at step 0"):
        new[2].load_state_dict(old[2].state_dict())
    assert new[3].progress.step == 0
    assert [unit.memory for unit in new[3].units] == [{}] * 4


@pytest.mark.parametrize("late", [True, False])
def test_another_length_of_the_run_is_told(late):
    """The code's counts from the step on; the same length, and none, say nothing."""
    old = make(decayed(0.5))
    train(old[0], old[2], old[3], 5)
    new = make(decayed(0.5), total=2 * TOTAL, attach=not late)
    load = lambda: new[2].load_state_dict(old[2].state_dict())  # noqa: E731
    attach = lambda: nnlr.attach(new[2], new[1], total_steps=2 * TOTAL)  # noqa: E731
    if late:
        load()
    with pytest.warns(NnlrWarning, match=r"20 steps.*total_steps is 40.*step 5"):
        attach() if late else load()
    again = make(decayed(0.5, blink), total=None)
    again[2].load_state_dict(old[2].state_dict())
    assert again[3].progress.step == 5


DAMAGED = [
    5,
    {"step": -1},
    {"step": True},
    {"step": math.nan},
    {"epoch": "2"},
    {"step": 1, "memory": "no"},
    {"step": 1, "memory": 5},
    {"step": 1, "memory": '{"Move": 3}'},
    {"step": 1, "memory": '{"Move": {"best": NaN}}'},
]


@pytest.mark.parametrize("note", DAMAGED)
def test_a_damaged_note_is_refused_and_nothing_is_loaded(note):
    """What no run can have noted is named, with its group."""
    _, _, optimizer, attached = make(decayed(0.5))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["moved"] = note
    before = rates(optimizer)
    with pytest.raises(nnlr.ConfigError, match=r"'layer3_lr1_wd1'.*has moved=.*Nothing was loaded"):
        optimizer.load_state_dict(saved)
    assert (rates(optimizer), attached.progress.step) == (before, 0)


@pytest.mark.parametrize("value", [math.nan, "best", torch.ones(())])
def test_a_memory_that_could_not_be_loaded_is_refused_when_it_is_made(value):
    """unit.memory holds plain numbers."""

    class Forgetful(ByGradient):
        """It notes what it should not."""

        def mults(self, now, units):
            units[0].memory["best"] = value
            return [1.0] * len(units)

    plan = plan_of(net := network(), nnlr.layer_decay(1.0, indexer=LAYERS).at(Forgetful()))
    optimizer = plan.optimizer(torch.optim.SGD)
    with pytest.raises(nnlr.NnlrError, match=r"Forgetful remembers best=.*plain numbers"):
        nnlr.attach(optimizer, plan, model=net)


def test_checkpoints_by_position_and_of_plain_torch_go_on():
    """An optimizer built by hand on the plan's groups loads as torch does."""
    runs = []
    for _ in range(2):
        net = network()
        plan = plan_of(net, decayed(0.5)())
        optimizer = torch.optim.AdamW(plan.param_groups(), lr=BASE)
        runs.append((net, optimizer, nnlr.attach(optimizer, plan, total_steps=TOTAL)))
    (net, optimizer, attached), (_, other, resumed) = runs
    train(net, optimizer, attached, 6)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.progress.step == 6
    assert rates(other) == rates(optimizer)
    nameless = copy.deepcopy(optimizer.state_dict())
    for group in nameless["param_groups"]:
        del group["param_names"]
    third = make(decayed(0.5))
    third[2].load_state_dict(nameless)
    assert third[3].progress.step == 6
    assert rates(third[2]) == close(rates(optimizer))


@pytest.mark.parametrize("mult", [1, 0.5])
def test_groups_without_multipliers_move_and_resume(mult):
    """Of an optimizer of plain torch the rate that it was built with is base times multiplier."""
    runs = []
    for _ in range(2):
        net = network()
        plan = plan_of(net, nnlr.rule("*", lr_mult=mult).at(lambda t: 1 - t))
        optimizer = torch.optim.AdamW(net.parameters(), lr=BASE)
        runs.append((net, optimizer, nnlr.attach(optimizer, plan, total_steps=TOTAL)))
    (net, optimizer, attached), (_, other, resumed) = runs
    train(net, optimizer, attached, 5)
    other.load_state_dict(optimizer.state_dict())
    assert resumed.progress.step == 5
    for each in (optimizer, other):
        assert each.param_groups[0]["lr"] == close(BASE * (1 - 5 / TOTAL))
        kinds = {finding.kind for finding in nnlr.check(net, each)}
        assert ("base-rate" in kinds) == (mult != 1)


def test_the_run_is_as_far_as_the_group_that_is_furthest():
    """The note of a group that was new to a run may be behind."""
    net, _, optimizer, attached = make(decayed(0.5))
    train(net, optimizer, attached, 6)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][-1]["moved"]["step"] = 2
    optimizer.load_state_dict(state)
    assert attached.progress.step == 6


def test_a_foreign_scheduler_goes_on_where_it_was():
    """The checkpoint of a run under a scheduler of torch has its rates."""
    scheme = decayed(0.5)().where("[012].*") * nnlr.rule("3.*", lr_mult=0.5)
    runs = []
    for _ in range(2):
        net = network()
        plan = plan_of(net, scheme)
        optimizer = plan.optimizer(torch.optim.AdamW)
        attached = nnlr.attach(optimizer, plan, total_steps=TOTAL)
        runs.append((net, optimizer, attached, lrs.CosineAnnealingLR(optimizer, TOTAL)))
    one, other = runs
    train(*one[:3], 7, one[3])
    states = saved_on_disk([part.state_dict() for part in (one[0], one[1], one[3])])
    for part, state in zip((other[0], other[1], other[3]), states, strict=True):
        part.load_state_dict(state)
    for run in runs:
        train(*run[:3], 3, run[3])
    assert rates(one[1]) == rates(other[1])
    assert same_weights(one[0], other[0])


def test_a_copy_goes_on_when_it_is_attached_again():
    """Hooks do not travel with copies and pickles, the note does."""
    net, plan, optimizer, attached = make(decayed(0.5))
    train(net, optimizer, attached, 5)
    both = copy.deepcopy((net, optimizer))
    through = pickle.loads(pickle.dumps((net, optimizer)))
    for other, copied in (both, through):
        again = nnlr.attach(copied, copy.deepcopy(plan), model=other, total_steps=TOTAL)
        assert again.progress.step == 5
    train(net, optimizer, attached, 3)
    train(*both, nnlr.attach(both[1], plan, model=both[0], total_steps=TOTAL), 3)
    assert same_weights(net, both[0])


def test_a_second_attach_takes_the_place_of_the_first():
    """Steps are counted once, and a call that is refused leaves the first at work."""
    net, plan, optimizer, attached = make(decayed(0.5))
    train(net, optimizer, attached, 2)
    again = nnlr.attach(optimizer, plan, total_steps=TOTAL)
    train(net, optimizer, again, 2)
    assert (again.progress.step, attached.progress.step) == (4, 2)
    with pytest.raises(nnlr.ConfigError, match="does not train"):
        nnlr.attach(optimizer, plan_of(other := network(), decayed(0.5)()), model=other)
    train(net, optimizer, again, 1)
    assert again.progress.step == 5
    with pytest.raises(NnlrError, match=r"at work no more: .* the last call returned"):
        attached.end_epoch()
    again.remove()
    before = rates(optimizer)
    backward(net, 0)
    optimizer.step()
    assert rates(optimizer) == before


def test_regrouping_begins_goes_on_and_ends():
    """From a plan without moves to one with them, to other moves, and back."""
    net, _, optimizer, _ = make(decayed(0.5, None), attach=False)
    backward(net, 0)
    optimizer.step()
    moving = plan_of(net, decayed(0.5)())
    nnlr.regroup(optimizer, moving)
    with pytest.raises(nnlr.ConfigError, match="nobody moves them"):
        optimizer.step()
    attached = nnlr.attach(optimizer, moving, total_steps=TOTAL)
    train(net, optimizer, attached, 4)
    other = plan_of(net, nnlr.rule("0.*", lr_mult=0.5).at(blink))
    nnlr.regroup(optimizer, other)
    assert (attached.progress.step, attached.plan) == (4, other)
    train(net, optimizer, attached, 3)
    assert rates(optimizer) == close({"0.weight": BASE / 2, "1.weight": BASE})
    nnlr.regroup(optimizer, plan_of(net, decayed(0.5, None)()))
    assert not any("moved" in group for group in optimizer.param_groups)
    backward(net, 0)
    optimizer.step()
    assert attached.progress.step == 7
    assert rates(optimizer)["0.weight"] == BASE / 8


@pytest.mark.parametrize("scheduled", ["ours", "torch's", "none"])
def test_regrouping_takes_the_base_of_the_moment(scheduled):
    """Where the first groups move, how far a schedule has come is read off the right ones."""
    scheme = nnlr.rule("0.*", lr_mult=2.0).at(lambda t: 1 / (1 + t.step))
    net, _, optimizer, attached = make(lambda: scheme)
    half = lambda opt: lrs.ExponentialLR(opt, 0.5)  # noqa: E731
    schedule = {"ours": lambda opt: nnlr.schedule(opt, half), "torch's": half, "none": None}
    schedulers = [build(optimizer) for build in [schedule[scheduled]] if build]
    train(net, optimizer, attached, 2, *schedulers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A scheduler was built on this optimizer")
        nnlr.regroup(optimizer, plan_of(net, nnlr.rule("1.*", lr_mult=0.1) * scheme, lr=0.2))
    base = 0.2 if scheduled == "none" else 0.05
    due = {"0.weight": 2 * base / 3, "1.weight": base / 10, "2.weight": base}
    assert rates(optimizer) == close(due)


def test_a_stage_of_a_pipeline_attaches_its_part():
    """partial=True, on stages with and without what moves, and through regroup."""
    net = network()
    plan = plan_of(net, nnlr.rule("[01].*").at(lambda t: 1 / (1 + t.step)))
    for stage, moving in ((range(2), True), (range(2, 4), False)):
        part = {name: p for name, p in net.named_parameters() if int(name[0]) in stage}
        optimizer = plan.optimizer(torch.optim.SGD, model=part, partial=True)
        attached = nnlr.attach(optimizer, plan, model=part, partial=True)
        backward(net, 0)
        optimizer.step()
        nnlr.regroup(optimizer, plan, model=part, partial=True)
        assert set(rates(optimizer).values()) == {BASE / 2 if moving else BASE}
        assert len(attached.units) == int(moving)
        assert str(attached).startswith("SGD at step 1")


def test_units_of_two_submodules_are_their_own():
    """A scheme within a part has units of that part, though layers have the same numbers."""
    net = torch.nn.ModuleDict({"a": network(), "b": network()})
    by_layer = nnlr.layer_decay(1.0, indexer=LAYERS).at(half_cosine)
    plan = plan_of(net, by_layer.within("a") * by_layer.within("b"))
    attached = nnlr.attach(plan.optimizer(torch.optim.SGD), plan, total_steps=TOTAL)
    assert sorted(unit.name for unit in attached.units)[::4] == ["a.layer0", "b.layer0"]
    assert len(attached.units) == 8
