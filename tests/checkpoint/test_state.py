"""Which saved state goes on: that which the next step can read. What fails leaves all as it was."""

import copy
import itertools
import math
import warnings

import pytest
import torch
from torch import nn

import nnlr
from nnlr.checkpoint import fit_state, last_report, on_load


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def planned(net, cls=torch.optim.AdamW, **settings):
    plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.1), lr=0.01, weight_decay=0)
    return plan.optimizer(cls, **settings)


def train(net, optimizer, count=2):
    for number in range(count):
        for at, p in enumerate(net.parameters()):
            p.grad = torch.full_like(p, 0.1 * (number + at + 1))
        optimizer.step()
    return optimizer


def loaded(optimizer, saved):
    """Load in silence; what was said."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        optimizer.load_state_dict(copy.deepcopy(saved))
    return "\n".join(str(warning.message) for warning in caught)


def plain(said):
    """What was said, as one line."""
    return " ".join(said.split())


def snapshot(optimizer):
    """All that a load may change."""
    return (
        [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
        [[id(p) for p in group["params"]] for group in optimizer.param_groups],
        {id(p): {k: (id(v), v) for k, v in s.items()} for p, s in optimizer.state.items()},
    )


CLASSES = {
    "AdamW": (torch.optim.AdamW, {}),
    "SGD": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "RMSprop": (torch.optim.RMSprop, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "NAdam": (torch.optim.NAdam, {}),
    "Adafactor": (torch.optim.Adafactor, {}),
    "ASGD": (torch.optim.ASGD, {}),
    "Rprop": (torch.optim.Rprop, {}),
    "Adadelta": (torch.optim.Adadelta, {}),
}

# Pairs that keep something, and the same of a parameter, if not in the same way.
SHORT = {
    ("AdamW", "momentum"),
    ("SGD", "AdamW"),
    ("RMSprop", "AdamW"),
    ("momentum", "AdamW"),
    ("NAdam", "ASGD"),
}


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(*pair, marks=() if pair in SHORT else pytest.mark.full)
        for pair in itertools.permutations(CLASSES, 2)
        if not set(pair) <= {"SGD", "momentum"}
    ],
)
def test_state_of_another_class_is_named_and_starts_afresh(before, after, noted):
    """Whether the class is noted or not; the steps that follow run, on state of their own."""
    net = network()
    cls, settings = CLASSES[before]
    pairs = list(net.named_parameters())
    first = planned(net, cls, **settings) if noted else cls(pairs, lr=0.01, **settings)
    train(net, first)
    cls, settings = CLASSES[after]
    second = planned(net, cls, **settings)
    said = loaded(second, first.state_dict())
    report = last_report(second)
    assert 4 == len(report.fresh) or after == "SGD"
    if first.state and after != "SGD":
        whose = type(first).__name__ if noted else "another optimizer"
        assert f"the state that {whose} saved does not fit {cls.__name__}, so" in plain(said)
        assert {"kind"} == set(report.unused.values())
    if before == "SGD":
        assert f"saved no state of parameters that {cls.__name__} could go on with" in plain(said)
    train(net, second)
    apart = network()
    alone = train(apart, planned(apart, cls, **settings))
    for one, other in zip(net.parameters(), apart.parameters(), strict=True):
        keys = second.state[one].keys() if one in second.state else set()
        assert keys == (alone.state[other].keys() if other in alone.state else set())


def test_another_class_that_keeps_the_same_is_named():
    """RAdam's averages are those of AdamW; it is said whose they were."""
    net = network()
    first = train(net, planned(net, torch.optim.RAdam))
    second = planned(net)
    said = loaded(second, first.state_dict())
    assert 4 == len(last_report(second).moved)
    assert "RAdam saved this state; AdamW keeps the same of each parameter" in plain(said)


def test_state_without_data_is_refused():
    """What ``torch.load(map_location="meta")`` gives has shapes only."""
    net = network()
    saved = train(net, planned(net)).state_dict()
    saved["state"] = {
        at: {key: value.to("meta") for key, value in state.items()}
        for at, state in saved["state"].items()
    }
    second = train(net, planned(net))
    before = snapshot(second)
    with pytest.raises(nnlr.NnlrError, match=r"meta device, without data.*map_location='cpu'"):
        second.load_state_dict(saved)
    assert str(before) == str(snapshot(second))


def test_other_kernels_are_no_trouble():
    """Which of them run changes no result: the report says so, and no warning."""
    net = network()
    saved = train(net, planned(net, foreach=False)).state_dict()
    second = planned(net, fused=True)
    assert "" == loaded(second, saved)
    assert ["fused"] == [each.setting for each in last_report(second).differences]


BROKEN = {
    "a part is missing": (lambda state: state.pop("exp_avg_sq"), "kind"),
    "it is a text": (lambda state: state.update(exp_avg="lost"), "kind"),
    "it is a number": (lambda state: state.update(exp_avg=3.0), "kind"),
    "it is a list": (lambda state: state.update(exp_avg=[1.0]), "kind"),
    "another shape": (lambda state: state.update(exp_avg=torch.ones(7, 5)), "shape"),
    "transposed": (lambda state: state.update(exp_avg=state["exp_avg"].T.clone()), "shape"),
    "a scalar": (lambda state: state.update(exp_avg_sq=torch.tensor(1.0)), "shape"),
    "step is a text": (lambda state: state.update(step="2"), "kind"),
}


@pytest.mark.parametrize("policy", ["code", "checkpoint"])
@pytest.mark.parametrize("how", BROKEN)
def test_torn_state_is_named_and_starts_afresh(how, policy):
    """Of that parameter alone; the others go on."""
    damage, reason = BROKEN[how]
    net = network()
    saved = copy.deepcopy(train(net, planned(net)).state_dict())
    damage(saved["state"][2])
    name = saved["param_groups"][1]["param_names"][0]
    second = planned(net, resume=policy)
    words = {"kind": "is torn, or another optimizer made it", "shape": "is of another shape"}
    assert f"the saved state {words[reason]}, so these start afresh: {name}" in plain(
        loaded(second, saved)
    )
    assert {name: reason} == last_report(second).unused
    assert ((name,), 3) == (last_report(second).fresh, len(last_report(second).moved))
    train(net, second)


def test_missing_state_does_not_count_as_moved():
    """The report says so."""
    net = network()
    saved = copy.deepcopy(train(net, planned(net)).state_dict())
    del saved["state"][2]
    second = planned(net)
    loaded(second, saved)
    assert ("0.weight",) == last_report(second).fresh
    train(net, second)


def test_no_decay_in_a_group_that_nobody_noted_is_taken():
    """Nothing says that it ever was another; as the groups of timm have it."""
    net = network()
    pairs = list(net.named_parameters())
    groups = [
        {"params": pairs[:2], "weight_decay": 0.0, "wd_mult": 1.0},
        {"params": pairs[2:], "weight_decay": 0.1, "wd_mult": 1.0},
    ]
    saved = train(net, torch.optim.AdamW(groups, lr=0.01)).state_dict()
    for group in saved["param_groups"]:
        del group["lr"]
        assert "origin" not in group
    second = planned(net)
    loaded(second, saved)
    assert 4 == len(last_report(second).moved)


def test_a_tensor_that_nobody_named_is_saved_without_names():
    """It was added later, by hand; its group has none then."""
    net = network()
    optimizer = planned(net, names=False)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    notes = [group["nnlr"] for group in optimizer.state_dict()["param_groups"]]
    assert [True, True, False] == ["names" in note for note in notes]


BAD = [math.nan, math.inf, -0.5, 0.0]


@pytest.mark.parametrize("policy", ["code", "checkpoint"])
@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("key", ["lr", "weight_decay", "lr_mult", "wd_mult"])
@pytest.mark.parametrize("at", [0, 1])
def test_values_that_no_training_makes_are_refused(key, value, policy, at):
    """With group and key; the optimizer is as it was, also one that trains already."""
    net = network()
    plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.1), lr=0.01, weight_decay=0.1)
    first = train(net, plan.optimizer(torch.optim.AdamW))
    saved = copy.deepcopy(first.state_dict())
    saved["param_groups"][at][key] = value
    live = train(net, plan.optimizer(torch.optim.AdamW, resume=policy))
    before = snapshot(live)
    label = saved["param_groups"][at]["name"]
    with pytest.raises(nnlr.ConfigError, match=rf"Group '{label}' of the checkpoint has {key}="):
        live.load_state_dict(saved)
    assert before == snapshot(live)
    assert last_report(live) is None


@pytest.mark.parametrize(
    ("key", "value", "need"),
    [
        ("eps", math.nan, "finite"),
        ("eps", -1e-8, "at least 0"),
        ("betas", (math.nan, 0.9), "finite"),
        ("betas", (-0.9, 0.9), "at least 0"),
        ("betas", (0.9, 2.0), "numbers from 0 to 1"),
        ("betas", None, "numbers from 0 to 1"),
        ("initial_lr", -1.0, "at least 0"),
        ("lr", "0.1", "a number"),
        ("lr", torch.ones(2), "a number"),
        ("lr", True, "a number"),
        ("lr_mult", [1.0], "a number"),
        ("nnlr", torch.ones(2), "what nnlr noted there"),
        ("origin", 3, "a dictionary"),
        ("origin", {"lr": math.nan}, "finite"),
    ],
)
def test_other_settings_are_looked_at_too(key, value, need):
    """And the note of what was built."""
    net = network()
    saved = copy.deepcopy(train(net, planned(net)).state_dict())
    saved["param_groups"][0][key] = value
    with pytest.raises(nnlr.ConfigError, match=f"must be {need}"):
        planned(net).load_state_dict(saved)
    with pytest.raises(nnlr.ConfigError, match=f"must be {need}"):
        fit_state(saved, planned(net))


def test_a_damaged_value_that_is_put_right_is_loaded():
    """As the message says."""
    net = network()
    saved = copy.deepcopy(train(net, planned(net)).state_dict())
    saved["param_groups"][0]["lr"] = math.nan
    second = planned(net)
    with pytest.raises(nnlr.ConfigError, match=r"put the value right in its 'param_groups'"):
        second.load_state_dict(saved)
    saved["param_groups"][0]["lr"] = 0.01
    second.load_state_dict(saved)
    assert 4 == len(last_report(second).moved)


def test_values_that_an_optimizer_has_from_the_start_are_none_of_these():
    """An infinite growth rate, a counter that starts at -1, no decay at all."""

    class Odd(torch.optim.SGD):
        def __init__(self, params, lr=0.1, weight_decay=0.0):
            super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=0.5)
            for group in self.param_groups:
                group |= {"growth_rate": math.inf, "lr_max": -1.0}

    net = network()
    saved = train(net, planned(net, Odd)).state_dict()
    second = planned(net, Odd)
    assert "" == loaded(second, saved)
    assert 4 == len(last_report(second).moved)


def test_rates_that_a_schedule_brought_to_0_are_loaded():
    """All of them, or one group of several in its own course."""
    net = network()
    first = planned(net)
    train(net, first)
    for group in first.param_groups:
        group["lr"] = 0.0
    second = planned(net)
    second.load_state_dict(first.state_dict())
    assert [0.0, 0.0] == [group["lr"] for group in second.param_groups]


class Positional(torch.optim.AdamW):
    """Loads by position, and calls no hook, as bitsandbytes does."""

    def load_state_dict(self, state_dict):
        tensors = [p for group in self.param_groups for p in group["params"]]
        state = copy.deepcopy(state_dict["state"])
        groups = [
            {**copy.deepcopy(new), "params": group["params"]}
            for new, group in zip(state_dict["param_groups"], self.param_groups, strict=True)
        ]
        held = {tensors[at]: parts for at, parts in state.items()}
        self.__setstate__({"state": held, "param_groups": groups})


class Swapping(Positional):
    """Loads something else than it is given."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["exp_avg"] = state["exp_avg"] + 1


class Forgetting(Positional):
    """Leaves out a part of what it is given."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for state in self.state.values():
            del state["exp_avg_sq"]


class Halving(Positional):
    """Sets a rate of its own."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.param_groups[0]["lr"] /= 2


class Failing(Positional):
    """Fails when half is done."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.param_groups[0]["lr"] = 7.0
        raise RuntimeError("half done")


class Packing(Positional):
    """Saves in another form than it keeps, as bitsandbytes does."""

    def state_dict(self):
        saved = super().state_dict()
        state = {at: {"packed": dict(parts)} for at, parts in saved["state"].items()}
        return {**saved, "state": state}

    def load_state_dict(self, state_dict):
        state = {at: dict(parts["packed"]) for at, parts in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": state})


Packing.__module__ = "elsewhere"  # it is not of torch, nor of nnlr


class Sorting(torch.optim.AdamW):
    """Sorts its tensors after construction, and not their names, as some Muons do."""

    def __init__(self, params, **settings):
        super().__init__(params, **settings)
        for group in self.param_groups:
            group["params"].reverse()


class TestClassesOfTheirOwn:
    """Optimizers that do not load as torch does."""

    @pytest.mark.parametrize("cls", [Positional, Packing])
    def test_one_that_goes_by_position_is_loaded_by_name(self, cls):
        """Whatever the groups are; the code's rates count, and the report is there."""
        net = network()
        plan = nnlr.resolve(net, lr=0.01, weight_decay=0)
        first = train(net, plan.optimizer(cls))
        moments = {p: state["exp_avg"].clone() for p, state in first.state.items()}
        second = planned(net, cls)
        loaded(second, first.state_dict())
        assert 4 == len(last_report(second).moved)
        assert [0.01, 0.001] == [group["lr"] for group in second.param_groups]
        for p, moment in moments.items():
            assert torch.equal(moment, second.state[p]["exp_avg"])
        assert all("nnlr" not in group for group in second.param_groups)
        train(net, second)

    @pytest.mark.parametrize(
        ("cls", "error", "match"),
        [
            (Swapping, nnlr.ConfigError, r"Swapping holds another 'exp_avg' .*resume=None\)"),
            (Forgetting, nnlr.ConfigError, "Forgetting holds another 'exp_avg_sq'"),
            (Halving, nnlr.ConfigError, "Halving holds another 'lr'"),
            (Failing, RuntimeError, "half done"),
        ],
    )
    def test_a_load_that_fails_is_undone(self, cls, error, match):
        """Also in an optimizer that has trained."""
        net = network()
        saved = copy.deepcopy(train(net, planned(net)).state_dict())
        live = train(net, planned(net, cls))
        before = snapshot(live)
        with pytest.raises(error, match=match):
            live.load_state_dict(saved)
        assert before == snapshot(live)
        assert last_report(live) is None
        train(net, live)
        free = nnlr.resolve(net, lr=0.01, weight_decay=0).optimizer(Positional, resume=None)
        free.load_state_dict(free.state_dict())

    def test_a_class_that_refuses_what_it_took_over_is_as_it_was(self):
        """Torch hands state over before the class looks at it."""

        class Strict(torch.optim.SGD):
            def __setstate__(self, state):
                super().__setstate__(state)
                if any("weird" in group for group in self.param_groups):
                    raise KeyError("weird")

        net = network()
        saved = copy.deepcopy(train(net, planned(net, Strict, momentum=0.9)).state_dict())
        live = train(net, planned(net, Strict, momentum=0.9))
        before = snapshot(live)
        for group in saved["param_groups"]:
            group["weird"] = 1
        with pytest.raises(KeyError, match="weird"):
            live.load_state_dict(saved)
        assert before == snapshot(live)
        for group in saved["param_groups"]:
            del group["weird"]
        live.load_state_dict(saved)
        assert 4 == len(last_report(live).moved)
        assert "__setstate__" not in vars(live)

    def test_removing_the_hook_leaves_loading_to_the_class(self):
        """As for any other."""
        net = network()
        optimizer = Positional([*net.named_parameters()], lr=0.01)
        on_load(optimizer).remove()
        optimizer.load_state_dict(train(net, Positional([*net.parameters()], lr=0.5)).state_dict())
        assert 0.5 == optimizer.param_groups[0]["lr"]

    def test_one_that_nobody_keeps_says_so(self):
        """Its load would go nowhere."""
        net = network()
        optimizer = planned(net, Positional)
        saved, load = optimizer.state_dict(), optimizer.load_state_dict
        del optimizer
        with pytest.raises(nnlr.ConfigError, match="is gone: keep it in a variable"):
            load(saved)

    @pytest.mark.parametrize("saved_by", [Sorting, torch.optim.AdamW])
    @pytest.mark.parametrize("loaded_by", [Sorting, torch.optim.AdamW])
    def test_names_stay_with_their_tensors(self, saved_by, loaded_by):
        """Whatever the optimizer does to its lists, in what is saved and what is loaded."""
        net = network()
        first = train(net, planned(net, saved_by))
        moments = {p: state["exp_avg"].clone() for p, state in first.state.items()}
        second = planned(net, loaded_by)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for p, moment in moments.items():
            assert torch.equal(moment, second.state[p]["exp_avg"])
        names = {id(p): name for name, p in net.named_parameters()}
        for group in second.param_groups:
            assert [names[id(p)] for p in group["params"]] == group["param_names"]
        nnlr.regroup(second, nnlr.resolve(net, lr=0.01, weight_decay=0))
        for p, moment in moments.items():
            assert torch.equal(moment, second.state[p]["exp_avg"])


def test_a_tensor_in_the_place_of_a_number_gives_way():
    """It is told as a difference, and the code's counts."""
    net = network()
    saved = copy.deepcopy(train(net, planned(net)).state_dict())
    saved["param_groups"][0]["eps"] = torch.ones(2)
    second = planned(net)
    assert "eps is " in loaded(second, saved)
    assert 1e-8 == second.param_groups[0]["eps"]
