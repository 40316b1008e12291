"""Checkpoints of other optimizers of several algorithms: training goes on in a Mixed one."""

import copy
import io
import warnings
from functools import partial

import pytest
import timm.optim
import torch
from torch import nn
from torch.distributed.checkpoint import state_dict as dcp

import nnlr
from nnlr.checkpoint import fit_named_state, fit_state, last_report, on_load, split
from tests.checkpoint import foreign

LR = {"muon": 0.02, "adamw": 3e-3}
DECAY = {"muon": 0.01, "adamw": 0.1}
TWINS = {"muon": foreign.Muon, "adamw": partial(foreign.Adam, eps=1e-8)}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 4)).double()


def train(model, *optimizers, steps=4, first=0):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator)
        for optimizer in optimizers:
            optimizer.step()


def matrices(model):
    return [p for p in model.parameters() if p.ndim == 2]


def others(model):
    return [p for p in model.parameters() if p.ndim != 2]


def names_of(model):
    """The names of the parameters in the order of the old groups: matrices, then others."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in (*matrices(model), *others(model))]


def mixed(model, classes=TWINS, *, multiplier=1.0, **settings):
    """A Mixed optimizer in other groups than the old one had."""
    every = dict.fromkeys([*classes], 1e-3)
    plan = nnlr.resolve(
        model,
        nnlr.rule("*", algorithm=list(classes)[-1]).where(~nnlr.glob("*.weight")),
        nnlr.rule("*.weight", algorithm="muon"),
        nnlr.rule("0.*", lr_mult=multiplier),
        lr={**every, **{name: LR[name] for name in classes if name in LR}},
        weight_decay={**every, **{name: DECAY[name] for name in classes if name in DECAY}},
    )
    return plan.optimizer(classes, **settings)


def groups_of(model, *, key, muon=True, adam=False, **settings):
    """The groups of an old optimizer: matrices, then others."""
    return [
        {
            "params": matrices(model),
            "lr": LR["muon"],
            "momentum": 0.9,
            "weight_decay": DECAY["muon"],
            key: muon,
            **settings,
        },
        {
            "params": others(model),
            "lr": LR["adamw"],
            "betas": (0.8, 0.95),
            "eps": 1e-9,
            "weight_decay": DECAY["adamw"],
            key: adam,
        },
    ]


def separate(model):
    muon, adam = groups_of(model, key="nothing")
    for group in (muon, adam):
        del group["nothing"]
    return foreign.Muon([muon]), foreign.Adam([adam])


def with_aux_adam(model):
    return (foreign.MuonWithAuxAdam(groups_of(model, key="use_muon")),)


def nanochat(model):
    groups = groups_of(model, key="kind", muon="muon", adam="adamw", ns_steps=5, beta2=0.9)
    return (foreign.MuonAdamW(groups),)


def saved_by(old):
    """What is on the disk: of several a list."""
    file = io.BytesIO()
    states = [optimizer.state_dict() for optimizer in old]
    torch.save(states if len(states) > 1 else states[0], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def continued(model, saved, optimizer):
    """Load by the names of the old order, without a word about anything but settings."""
    on_load(optimizer, model=model, saved_names=names_of(model))
    with warnings.catch_warnings(action="ignore"):
        optimizer.load_state_dict(saved)
    report = last_report(optimizer)
    assert (len(report.moved), report.fresh, report.unused) == (5, (), {})
    return optimizer


class TestGoesOn:
    """Training goes on as if it had not been interrupted, to the last bit."""

    @pytest.mark.parametrize("layout", [separate, with_aux_adam, nanochat])
    def test_in_other_groups(self, layout):
        """State, momentum, betas and eps are the old ones; the rates are equal in the code."""
        model = network()
        old = layout(model)
        train(model, *old)
        twin = copy.deepcopy(model)
        optimizer = continued(twin, saved_by(old), mixed(twin))
        train(model, *old, first=4)
        train(twin, optimizer, first=4)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(p, q)

    def test_a_mapping_names_the_algorithms(self):
        """As split gives it."""
        model = network()
        muon, adam = old = separate(model)
        train(model, *old)
        twin = copy.deepcopy(model)
        saved = copy.deepcopy({"muon": muon.state_dict(), "adamw": adam.state_dict()})
        optimizer = continued(twin, saved, mixed(twin))
        train(model, *old, first=4)
        train(twin, optimizer, first=4)
        assert all(map(torch.equal, model.parameters(), twin.parameters()))

    def test_dion_sums_gradients(self):
        """Its steps are counted in groups; the mean is 1 - mu of its sum, up to rounding."""
        model = network()
        settings = {"weight_decay": 0.01, "mu": 0.9, "epsilon": 1e-9}
        old = foreign.DionMuon(
            [
                {"params": matrices(model), "lr": LR["muon"], **settings},
                {"params": others(model), "lr": LR["adamw"], "algorithm": "adamw", **settings},
            ]
        )
        train(model, old)
        twin = copy.deepcopy(model)
        saved = saved_by((old,))
        optimizer = mixed(twin)
        for group in optimizer.param_groups:
            group["weight_decay"] = group["origin"]["weight_decay"] = 0.01
        continued(twin, saved, optimizer)
        assert optimizer.state[twin[0].bias]["step"] == 4
        train(model, old, first=4)
        train(twin, optimizer, first=4)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=1e-12, atol=1e-12)

    def test_dions_lion(self):
        """Its momentum is what other classes call exp_avg."""
        model = network()
        old = foreign.DionMuon(
            [
                {"params": matrices(model), "mu": 0.5},
                {"params": others(model), "algorithm": "lion", "lr": 1e-3},
            ]
        )
        train(model, old)
        twin = copy.deepcopy(model)
        classes = {"muon": foreign.Muon, "lion": foreign.Lion}
        optimizer = continued(twin, saved_by((old,)), mixed(twin, classes))
        for p, q in zip(others(model), others(twin), strict=True):
            assert torch.equal(old.state[p]["momentum"], optimizer.state[q]["exp_avg"])

    def test_names_in_the_groups(self):
        """Nothing else is needed then."""
        model = network()
        names = dict(model.named_parameters())
        weights = [pair for pair in names.items() if pair[1].ndim == 2]
        biases = [pair for pair in names.items() if pair[1].ndim == 1]
        old = torch.optim.Muon(weights, lr=0.02), torch.optim.AdamW(biases, lr=3e-3)
        train(model, *old)
        twin = copy.deepcopy(model)
        classes = {"muon": torch.optim.Muon, "adamw": nnlr.optim.AdamW}
        optimizer = mixed(twin, classes)
        with warnings.catch_warnings(action="ignore"):
            optimizer.load_state_dict(saved_by(old))
        for group in optimizer.param_groups:
            group["weight_decay"] = {"muon": 0.1, "adamw": 0.01}[group["algorithm"]]
        train(model, *old, first=4)
        train(twin, optimizer, first=4)
        assert all(map(torch.equal, model.parameters(), twin.parameters()))

    @pytest.mark.parametrize("flag", [False, True])
    def test_timm(self, flag):
        """The real one, routed by its own rules or by flags; its fallback is an AdamW."""
        model = network()
        groups = [{"params": list(model.parameters())}]
        if flag:
            groups = [
                {"params": matrices(model)},
                {"params": others(model), "use_fallback": True},
            ]
        old = timm.optim.Muon(groups, lr=0.02, fallback_lr_scale=0.5)
        train(model, old)
        twin = copy.deepcopy(model)
        timms = partial(timm.optim.Muon, ns_coefficients="quintic")
        classes = {"muon": timms, "adamw": timm.optim.AdamWLegacy}
        plan = nnlr.resolve(
            twin,
            nnlr.rule("*", algorithm="adamw").where(~nnlr.glob("*.weight")),
            nnlr.rule("*.weight", algorithm="muon"),
            lr={"muon": 0.02, "adamw": 0.01},
            weight_decay=0.0,
        )
        optimizer = plan.optimizer(classes)
        saved = saved_by((old,))
        names = names_of(twin) if flag else [name for name, _ in twin.named_parameters()]
        on_load(optimizer, model=twin, saved_names=names)
        with warnings.catch_warnings(action="ignore"):
            optimizer.load_state_dict(saved)
        train(model, old, first=4)
        train(twin, optimizer, first=4)
        for p, q in zip(matrices(model), matrices(twin), strict=True):
            assert torch.equal(p, q)
        for p, q in zip(others(model), others(twin), strict=True):
            assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)  # in another order of products

    def test_several_by_name(self):
        """What torch's distributed checkpoints give of two optimizers is one already."""
        model = network()
        old = separate(model)
        train(model, *old)
        saved = copy.deepcopy(dcp.get_optimizer_state_dict(model, old))
        twin = copy.deepcopy(model)
        optimizer = mixed(twin)
        twin.zero_grad()
        with warnings.catch_warnings(action="ignore"):
            state, report = fit_named_state(saved, optimizer, twin)
        assert len(report.moved) == 5
        dcp.set_optimizer_state_dict(twin, optimizer, state)
        train(model, *old, first=4)
        train(twin, optimizer, first=4)
        assert all(map(torch.equal, model.parameters(), twin.parameters()))

    def test_rates_of_timms_fallback(self):
        """Where the checkpoint's rates count, those of its AdamW are scaled as it scales them."""
        model = network()
        old = timm.optim.Muon(model.named_parameters(), lr=0.5, fallback_lr_scale=0.25)
        train(model, old)
        optimizer = mixed(model, resume="checkpoint")
        with warnings.catch_warnings(action="ignore"):
            optimizer.load_state_dict(old.state_dict())
        rates = {group["algorithm"]: group["lr"] for group in optimizer.param_groups}
        assert rates == {"muon": 0.5, "adamw": 0.125}

    def test_a_schedule_has_moved_the_rates(self):
        """They go on in proportion to the code's bases."""
        model = network()
        old = with_aux_adam(model)
        train(model, *old)
        for group in old[0].param_groups:
            group["initial_lr"], group["lr"] = group["lr"], group["lr"] / 4
        optimizer = continued(model, saved_by(old), mixed(model, multiplier=0.5))
        for group in optimizer.param_groups:
            assert group["lr"] == LR[group["algorithm"]] * group["lr_mult"] / 4


class TestRefused:
    """What is torn names what is missing; nothing is loaded."""

    @pytest.mark.parametrize(
        ("layout", "damage", "words"),
        [
            (separate, lambda s: s[1].pop("param_groups"), "optimizer 1 lacks 'param_groups'"),
            (separate, lambda s: s.append(3), "optimizer 2 lacks 'param_groups', 'state'"),
            (separate, lambda s: s[1].update(param_groups={}), "'param_groups' must be a list"),
            (separate, lambda s: s[1].update(state=None), "'state' must be a dictionary"),
            (separate, lambda s: s[0]["param_groups"][0].pop("params"), r"\['params'\] must be"),
            (with_aux_adam, lambda s: s["param_groups"][0].update(params=3), "got 3"),
            (
                with_aux_adam,
                lambda s: s["state"].update({4: 3}),
                "Group 1 .* cannot be read: 'int'",
            ),
            (with_aux_adam, lambda s: s["state"][4].update(step="x"), "cannot be read: could not"),
            (with_aux_adam, lambda s: s["state"][4].pop("exp_avg"), "lacks 'exp_avg'"),
            (with_aux_adam, lambda s: s["state"].update({0: {"step": 1}}), "'momentum_buffer'"),
            (nanochat, lambda s: s["state"][3].pop("step"), "Group 1 .* lacks 'step'"),
            (
                nanochat,
                lambda s: s["state"][0].update(momentum_buffer=torch.zeros(1, 4, 4)),
                "holds 1 parameter of a group of 3",
            ),
        ],
    )
    def test_a_torn_one(self, layout, damage, words):
        """The optimizer is as it was."""
        model = network()
        old = layout(model)
        train(model, *old)
        saved = saved_by(old)
        damage(saved)
        optimizer = mixed(model)
        on_load(optimizer, model=model, saved_names=names_of(model))
        before = copy.deepcopy(optimizer.state_dict())
        with pytest.raises(nnlr.NnlrError, match=words):
            optimizer.load_state_dict(saved)
        assert str(optimizer.state_dict()["param_groups"]) == str(before["param_groups"])
        assert not optimizer.state

    def test_another_algorithm_of_dion(self):
        """Whose state no other class keeps."""
        model = network()
        old = foreign.DionMuon([{"params": model.parameters(), "algorithm": "dion2"}])
        optimizer = mixed(model)
        with pytest.raises(nnlr.NnlrError, match="'dion2' is of no use elsewhere"):
            optimizer.load_state_dict(old.state_dict())

    def test_a_part_of_a_distributed_run(self):
        """Buffers of nanochat on one of several ranks say how many there are."""
        model = network()
        old = nanochat(model)
        saved = old[0].state_dict()  # before the first step there is nothing to take
        optimizer = mixed(model)
        on_load(optimizer, model=model, saved_names=names_of(model))
        with warnings.catch_warnings(action="ignore"):
            optimizer.load_state_dict(saved)
        assert last_report(optimizer).moved == ()

    def test_names_are_needed(self):
        """Groups of other sizes do not tell which is which."""
        model = network()
        old = with_aux_adam(model)
        train(model, *old)
        optimizer = mixed(model, multiplier=0.1)
        with pytest.raises(nnlr.NnlrError, match="saved_names"):
            optimizer.load_state_dict(old[0].state_dict())

    def test_a_whole_checkpoint(self):
        """The optimizer's part of it is asked for."""
        optimizer = mixed(network())
        whole = {"model": {}, "optimizer": optimizer.state_dict()}
        with pytest.raises(nnlr.NnlrError, match="without 'state' and 'param_groups'"):
            optimizer.load_state_dict(whole)

    @pytest.mark.parametrize("state", [3, {"muon": {}}, {}, [], {"state": {}}])
    def test_what_is_nothing(self, state):
        """Neither one state nor several."""
        optimizer = mixed(network())
        with pytest.raises(nnlr.NnlrError, match=r"lacks|without 'state' and 'param_|no param"):
            optimizer.load_state_dict(state)


class TestSplit:
    """The state dict of each algorithm, and the way back."""

    def test_plain_optimizers_load_it(self):
        """They train on as the Mixed one does, to the last bit."""
        model = network()
        optimizer = mixed(model, {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW})
        train(model, optimizer)
        parts = split(copy.deepcopy(optimizer.state_dict()))
        assert list(parts) == ["muon", "adamw"]
        twin = copy.deepcopy(model)
        plain = torch.optim.Muon(matrices(twin)), torch.optim.AdamW(others(twin))
        for each, part in zip(plain, parts.values(), strict=True):
            each.load_state_dict(part)
            assert not {"nnlr", "origin", "algorithm"} & each.param_groups[0].keys()
        train(model, optimizer, first=4)
        train(twin, *plain, first=4)
        assert all(map(torch.equal, model.parameters(), twin.parameters()))

    @pytest.mark.parametrize("form", [dict, lambda parts: list(parts.values())])
    def test_there_and_back(self, form):
        """A mapping or a list of the parts is a checkpoint."""
        model = network()
        optimizer = mixed(model)
        train(model, optimizer)
        twin = copy.deepcopy(model)
        second = mixed(twin, multiplier=0.5)
        with warnings.catch_warnings(action="ignore"):
            second.load_state_dict(form(split(optimizer.state_dict())))
        assert len(last_report(second).moved) == 5

    def test_by_name(self):
        """The names of a distributed checkpoint stay."""
        model = network()
        optimizer = mixed(model)
        train(model, optimizer)
        parts = split(dcp.get_optimizer_state_dict(model, optimizer))
        assert parts["adamw"]["param_groups"][0]["params"] == ["0.bias", "2.bias"]
        assert sorted(parts["adamw"]["state"]) == ["0.bias", "2.bias"]

    def test_of_one_class(self):
        """It has no algorithms."""
        state = torch.optim.SGD([nn.Parameter(torch.zeros(1))]).state_dict()
        with pytest.raises(nnlr.NnlrError, match="Group 0 of this state names no algorithm"):
            split(state)
        with pytest.raises(nnlr.NnlrError, match="split needs what state_dict"):
            split({"state": {}})


def test_other_optimizers_keep_their_own_layout():
    """A class of others that loads its own checkpoint by name is left alone."""
    model = network()
    (old,) = with_aux_adam(model)
    train(model, old)
    saved = old.state_dict()
    new = foreign.MuonWithAuxAdam(groups_of(model, key="use_muon"))
    state, report = fit_state(saved, new, model=model)
    assert state["param_groups"][0]["use_muon"]
    assert len(report.moved) == 5
