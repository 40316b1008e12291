"""Whose rates and settings count after a checkpoint, and how a schedule goes on."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import AveragedModel

import nnlr
from nnlr.checkpoint import fit_state, last_report, on_load
from tests.helpers import same_weights

LR, DECAY = 0.05, 0.1


class Net(nn.Module):
    """Two layers, of which the lower learns slower."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.head(self.body(inputs))


def slower(by=0.1, **head):
    """The body at a tenth; with options the head is a group of other settings too."""
    return nnlr.rule("body.*", lr_mult=by) * nnlr.rule("head.*", **head)


def build(model, scheme=None, cls=torch.optim.AdamW, *, lr=LR, wd=DECAY, **settings):
    plan = nnlr.resolve(model, slower() if scheme is None else scheme, lr=lr, weight_decay=wd)
    return plan.optimizer(cls, **settings)


def step(model, optimizer, number):
    source = torch.Generator().manual_seed(number)
    optimizer.zero_grad()
    model(torch.randn(8, 3, generator=source)).square().mean().backward()
    optimizer.step()


def train(model, optimizer, scheduler, numbers):
    for number in numbers:
        step(model, optimizer, number)
        scheduler.step()


def through_a_file(*states):
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def rates(optimizer, key="lr"):
    return {
        name: float(group[key]) for group in optimizer.param_groups for name in group["param_names"]
    }


def by_hand(model, curve, mults, numbers, decays):
    """The uninterrupted run, of one group for each parameter and no line of nnlr."""
    optimizer = torch.optim.AdamW(
        [{"params": [p]} for p in model.parameters()], lr=LR, weight_decay=DECAY
    )
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=LR)
    two = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=DECAY)
    factory, kwargs = curve
    curves = [factory(one, **kwargs), decays(two)]
    for number in numbers:
        for (name, _), group in zip(model.named_parameters(), optimizer.param_groups, strict=True):
            group["lr"] = one.param_groups[0]["lr"] * mults[name.partition(".")[0]]
            group["betas"] = one.param_groups[0]["betas"]
            group["weight_decay"] = two.param_groups[0]["lr"]
        step(model, optimizer, number)
        one.step()
        two.step()
        for each in curves:
            each.step()


CURVES = {
    "cosine": (lrs.CosineAnnealingLR, {"T_max": 8, "eta_min": 0.002}),
    "one_cycle": (lrs.OneCycleLR, {"max_lr": 0.1, "total_steps": 9}),
    "step": (lrs.StepLR, {"step_size": 2, "gamma": 0.3}),
}


def decay_curve(optimizer):
    return lrs.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.01)


ORDERS = {
    "schedule, optimizer, its state": "bos",
    "schedule, its state, optimizer": "bso",
    "optimizer, schedule, its state": "obs",
}


def resume(order, optimizer, state, make, progress):
    """Build the schedule, and load its state and the optimizer's, in an order."""
    for part in ORDERS[order]:
        if part == "b":
            scheduler = make(optimizer)
        elif part == "o":
            optimizer.load_state_dict(state)
        else:
            scheduler.load_state_dict(progress)
    return scheduler


@pytest.mark.usefixtures("one_thread")
class TestSchedules:
    """A schedule of nnlr and a checkpoint, loaded in every order."""

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("curve", CURVES)
    @pytest.mark.parametrize("after", ["same", "split", "plain", "unnamed"])
    @pytest.mark.no_cover
    def test_every_order_of_loading_gives_the_uninterrupted_run(self, order, curve, after):
        """Bit for bit the loop by hand, into the same groups and others."""
        factory, kwargs = CURVES[curve]
        whole = Net()
        model = copy.deepcopy(whole)
        mults = {"body": 0.1, "head": 1.0}
        by_hand(whole, CURVES[curve], mults, range(6), decay_curve)

        def scheduled(optimizer):
            return nnlr.schedule(optimizer, factory, weight_decay=decay_curve, **kwargs)

        first = build(model)
        scheduler = scheduled(first)
        train(model, first, scheduler, range(3))
        state, progress = through_a_file(first.state_dict(), scheduler.state_dict())
        if after == "plain":  # groups of one's own, without multipliers
            groups = [
                {"params": [pair], "lr": LR * mults[pair[0].partition(".")[0]]}
                for pair in model.named_parameters()
            ]
            second = torch.optim.AdamW(groups, lr=LR, weight_decay=DECAY)
            on_load(second, model=model)
        else:
            split = nnlr.rule("*.bias", options={"maximize": False})
            scheme = slower() * split if after == "split" else slower()
            second = build(model, scheme, names=after != "unnamed")
        scheduler = resume(order, second, state, scheduled, progress)
        train(model, second, scheduler, range(3, 6))
        assert same_weights(whole, model)

    @pytest.mark.parametrize("order", ORDERS)
    def test_tensor_rates_continue_too(self, order):
        """Each group's own float32 tensor, filled to the same value."""
        whole = Net()
        model = copy.deepcopy(whole)
        factory, kwargs = CURVES["cosine"]
        runs = [
            (whole, build(whole, tensor_lr=True)),
            (model, build(model, tensor_lr=True)),
        ]
        schedules = [nnlr.schedule(o, factory, **kwargs) for _, o in runs]
        train(whole, runs[0][1], schedules[0], range(6))
        train(model, runs[1][1], schedules[1], range(3))
        state, progress = through_a_file(runs[1][1].state_dict(), schedules[1].state_dict())
        second = build(
            model,
            slower() * nnlr.rule("*.bias", options={"maximize": False}),
            tensor_lr=True,
        )
        scheduler = resume(
            order,
            second,
            state,
            lambda o: nnlr.schedule(o, factory, **kwargs),
            progress,
        )
        train(model, second, scheduler, range(3, 6))
        assert same_weights(whole, model)

    @pytest.mark.parametrize("order", ORDERS)
    def test_a_changed_multiplier_counts_from_the_first_step(self, order):
        """The base rate of the schedule, times the code's multiplier."""
        model = Net()
        factory, kwargs = CURVES["cosine"]
        first = build(model)
        scheduler = nnlr.schedule(first, factory, **kwargs)
        train(model, first, scheduler, range(3))
        base = scheduler.base_lr
        state, progress = through_a_file(first.state_dict(), scheduler.state_dict())
        second = build(model, slower(0.3))
        with pytest.warns(nnlr.NnlrWarning, match=r"lr_mult is 0\.1 in the checkpoint"):
            scheduler = resume(
                order,
                second,
                state,
                lambda o: nnlr.schedule(o, factory, **kwargs),
                progress,
            )
        assert base * 0.3 == rates(second)["body.weight"]
        assert base == rates(second)["head.weight"]

    def test_a_group_that_cycles_its_betas_goes_on_cycling(self):
        """Its note travels, and the option of another group stays what it was."""
        scheme = slower(options={"betas": (0.5, 0.9)})
        model = Net()
        factory, kwargs = CURVES["one_cycle"]
        first = build(model, scheme)
        scheduler = nnlr.schedule(first, factory, **kwargs)
        train(model, first, scheduler, range(3))
        before = rates(first, "lr"), [g["betas"] for g in first.param_groups]
        second = build(model, scheme)
        second.load_state_dict(*through_a_file(first.state_dict()))
        assert before == (rates(second), [g["betas"] for g in second.param_groups])
        assert {((0.5, 0.9), (0.5, 0.9)), ((0.9, 0.999), before[1][1])} == {
            (group["origin"]["betas"], group["betas"]) for group in second.param_groups
        }

    def test_an_option_that_the_code_gives_ends_the_cycling(self):
        """The plan's option counts, and the schedule will ask anew."""
        model = Net()
        factory, kwargs = CURVES["one_cycle"]
        first = build(model)
        scheduler = nnlr.schedule(first, factory, **kwargs)
        train(model, first, scheduler, range(3))
        second = build(model, slower(options={"amsgrad": False, "betas": (0.5, 0.9)}))
        with pytest.warns(nnlr.NnlrWarning, match=r"betas is \(0\.9, 0\.999\) in the checkpoint"):
            second.load_state_dict(first.state_dict())
        head, body = second.param_groups
        assert (0.5, 0.9) == head["betas"]
        assert (0.5, 0.9) == head["origin"]["betas"]
        assert (first.param_groups[1]["betas"], (0.9, 0.999)) == (
            body["betas"],
            body["origin"]["betas"],
        )


PLAIN = {
    "step": lambda o: lrs.StepLR(o, 2, 0.3),
    "cosine": lambda o: lrs.CosineAnnealingLR(o, 8),
    "cosine with a floor": lambda o: lrs.CosineAnnealingLR(o, 8, eta_min=0.01),
    "one peak": lambda o: lrs.OneCycleLR(o, 0.1, total_steps=9),
    "peaks": lambda o: lrs.OneCycleLR(o, [0.1, 0.01], total_steps=9),
    "cyclic": lambda o: lrs.CyclicLR(o, 0.01, 0.1, 2),
    "lambdas": lambda o: lrs.LambdaLR(o, [lambda s: 0.9**s, lambda s: 0.5**s]),
    "chain": lambda o: lrs.ChainedScheduler([lrs.ExponentialLR(o, 0.9)]),
}


class TestPlainSchedulers:
    """What torch's own schedulers and loops leave in groups."""

    @pytest.mark.parametrize("resume", ["code", "checkpoint"])
    @pytest.mark.parametrize("kind", PLAIN)
    @pytest.mark.no_cover
    def test_the_same_groups_continue_bit_for_bit(self, kind, resume):
        """As with torch alone, ratios lost or not, and nothing to warn of."""
        make = PLAIN[kind]
        whole = Net()
        model = copy.deepcopy(whole)
        optimizer = build(whole)
        train(whole, optimizer, make(optimizer), range(6))
        first = build(model)
        scheduler = make(first)
        train(model, first, scheduler, range(3))
        state, progress = through_a_file(first.state_dict(), scheduler.state_dict())
        second = build(model, resume=resume)
        scheduler = make(second)
        second.load_state_dict(state)
        scheduler.load_state_dict(progress)
        train(model, second, scheduler, range(3, 6))
        assert same_weights(whole, model)

    @pytest.mark.parametrize("tensor_lr", [False, True])
    def test_rates_that_nobody_noted_are_known_by_their_base(self, tensor_lr):
        """The plateau scheduler and loops by hand note nothing; the saved base does."""
        model = Net()
        first = build(model, tensor_lr=tensor_lr)
        step(model, first, 0)
        plateau = lrs.ReduceLROnPlateau(first, factor=0.5, patience=0)
        for loss in (1.0, 2.0, 3.0):
            plateau.step(loss)
        before = rates(first)
        assert pytest.approx(LR / 4) == before["head.bias"]
        second = build(model, tensor_lr=tensor_lr)
        second.load_state_dict(first.state_dict())
        assert before == rates(second)
        third = build(model, lr=LR * 2, tensor_lr=tensor_lr)
        with pytest.warns(nnlr.NnlrWarning, match=r"lr is 0\.05 in the checkpoint and 0\.1"):
            third.load_state_dict(second.state_dict())
        assert pytest.approx(LR / 2) == rates(third)["head.bias"]
        assert all("initial_lr" not in group for group in third.param_groups)

    @pytest.mark.parametrize("tensor_lr", [False, True])
    def test_a_group_added_by_hand_gets_the_notes_of_the_others(self, tensor_lr):
        """Schedulers are built on what the load gives, whichever group a parameter was in."""
        model = Net()
        first = build(model.body, nnlr.rule("*"), tensor_lr=tensor_lr)
        scheduler = nnlr.schedule(first, lrs.StepLR, step_size=1, gamma=0.5)
        first.add_param_group(
            {
                "params": [*model.head.parameters()],
                "param_names": ["head.weight", "head.bias"],
                "lr_mult": 2.0,
            }
        )
        step(model, first, 0)
        scheduler.step()
        saved = first.state_dict()
        assert ["initial_lr" in group for group in saved["param_groups"]] == [
            True,
            False,
        ]
        saved["param_groups"][0]["param_names"] = ["body.weight", "body.bias"]
        second = build(model, nnlr.rule("body.*", lr_mult=0.5), tensor_lr=tensor_lr)
        with pytest.warns(nnlr.NnlrWarning, match="lr_mult of 4 parameters: 2 -> 1"):
            second.load_state_dict(saved)
        assert {LR, LR / 2} == {float(group["initial_lr"]) for group in second.param_groups}
        again = nnlr.schedule(second, lrs.StepLR, step_size=1, gamma=0.5)
        again.load_state_dict(scheduler.state_dict())
        assert pytest.approx(LR / 2) == rates(second)["head.bias"]
        assert pytest.approx(LR / 4) == rates(second)["body.bias"]

    def test_a_live_optimizer_goes_back_to_an_earlier_checkpoint(self):
        """The rates of the moment are not taken for the code's."""
        model = Net()
        optimizer = build(model)
        step(model, optimizer, 0)
        saved = copy.deepcopy(optimizer.state_dict())
        for group in optimizer.param_groups:
            group["lr"] *= 0.125
        optimizer.load_state_dict(saved)
        assert {LR, LR * 0.1} == set(rates(optimizer).values())

    def test_rates_without_note_or_base_are_the_codes(self):
        """Of an optimizer that nnlr did not build, they may be new bases."""
        model = Net()
        old = torch.optim.SGD(model.named_parameters(), lr=0.3)
        new = torch.optim.SGD(model.named_parameters(), lr=0.1)
        with pytest.warns(
            nnlr.NnlrWarning,
            match=r"lr is 0\.3 in the checkpoint and 0\.1 in the code: 0\.1 counts \(code\)",
        ):
            state, report = fit_state(old.state_dict(), new)
        assert [0.1] == [group["lr"] for group in state["param_groups"]]
        (difference,) = report.differences
        assert ("lr", 0.3, 0.1, "code") == (
            difference.setting,
            difference.old,
            difference.new,
            difference.winner,
        )
        assert tuple(dict(model.named_parameters())) == difference.names

    @pytest.mark.parametrize("built", [True, False])
    @pytest.mark.parametrize("tensor_lr", [False, True])
    def test_progress_carries_over_to_the_codes_base(self, built, tensor_lr):
        """It is the new initial rate times old rate by old initial rate, built before or after."""
        model = Net()
        first = torch.optim.SGD(model.named_parameters(), lr=0.4)
        scheduler = lrs.LambdaLR(first, lambda s: 0.5**s)
        first.step()
        scheduler.step()
        base = torch.tensor(0.1) if tensor_lr else 0.1
        second = torch.optim.SGD([{"params": [pair]} for pair in model.named_parameters()], lr=base)
        if built:
            lrs.LambdaLR(second, lambda s: 0.5**s)
        with pytest.warns(nnlr.NnlrWarning, match="lr is"):
            state, _ = fit_state(first.state_dict(), second)
        for group in state["param_groups"]:
            assert pytest.approx(0.05) == float(group["lr"])
            assert pytest.approx(0.1) == float(group["initial_lr"])
            assert tensor_lr == isinstance(group["lr"], torch.Tensor)
        second.load_state_dict(state)
        pointers = {id(group["lr"]) for group in second.param_groups}
        assert not tensor_lr or 4 == len(pointers)

    @pytest.mark.parametrize("built", [True, False])
    def test_one_cycle_notes_are_in_proportion(self, built):
        """Its peak is what the code's rate is compared with."""
        model = Net()
        first = build(model)
        scheduler = lrs.OneCycleLR(first, [LR, LR * 0.1], total_steps=9)
        train(model, first, scheduler, range(2))
        saved = copy.deepcopy(first.state_dict())
        second = build(model, lr=LR * 2)
        if built:
            lrs.OneCycleLR(second, [LR * 2, LR * 0.2], total_steps=9)
        with pytest.warns(nnlr.NnlrWarning, match=r"lr is 0\.05 in the checkpoint and 0\.1"):
            second.load_state_dict(saved)
        for old, new in zip(saved["param_groups"], second.param_groups, strict=True):
            for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                assert pytest.approx(2 * old[key]) == new[key]
            assert old["max_momentum"] == new["max_momentum"]
            assert old["betas"] == new["betas"]

    def test_a_group_that_was_at_rate_0_takes_the_progress_of_the_others(self):
        """Nothing can be relative to 0."""
        model = Net()
        first = build(model, slower(0), locked="keep")
        scheduler = lrs.LambdaLR(first, lambda s: 0.5**s)
        train(model, first, scheduler, range(2))
        second = build(model)
        with pytest.warns(nnlr.NnlrWarning, match=r"lr_mult is 0 in the checkpoint"):
            second.load_state_dict(first.state_dict())
        assert pytest.approx(LR * 0.1 * 0.25) == rates(second)["body.weight"]

    def test_where_all_groups_were_at_rate_0_there_is_no_progress(self):
        """Then the code's rates are taken as they are."""
        model = Net()
        first = torch.optim.SGD(model.named_parameters(), lr=0.0)
        first.param_groups[0]["initial_lr"] = 0.0
        second = torch.optim.SGD(model.named_parameters(), lr=LR)
        with pytest.warns(nnlr.NnlrWarning, match=r"lr is 0 in the checkpoint"):
            state, _ = fit_state(first.state_dict(), second)
        assert LR == state["param_groups"][0]["lr"]

    def test_new_parameters_take_the_progress_of_the_others(self):
        """A group of nothing but new ones goes along with the schedule."""
        model = Net()
        first = build(model)
        scheduler = nnlr.schedule(first, lrs.LambdaLR, lr_lambda=lambda s: 0.5**s)
        train(model, first, scheduler, range(2))
        model.extra = nn.Linear(2, 2)
        second = build(model, slower() * nnlr.rule("extra.*", lr_mult=3))
        second.load_state_dict(first.state_dict())
        assert LR * 0.25 * 3 == rates(second)["extra.weight"]
        assert LR * 3 == rates(second, "initial_lr")["extra.weight"]
        assert ("extra.weight", "extra.bias") == last_report(second).fresh


class TestPolicies:
    def test_the_code_counts_by_default(self):
        """Rates, multipliers and settings that training has not moved, and one warning."""
        model = Net()
        first = build(model, betas=(0.8, 0.9), eps=1e-6)
        step(model, first, 0)
        second = build(model, slower(0.5), lr=0.2, wd=0.3)
        with pytest.warns(nnlr.NnlrWarning, match="optimizer and its checkpoint differ") as caught:
            second.load_state_dict(first.state_dict())
        assert [__file__] == [warning.filename for warning in caught]
        assert {"body": 0.1, "head": 0.2} == {
            name.partition(".")[0]: lr for name, lr in rates(second).items()
        }
        for group in second.param_groups:
            assert ((0.9, 0.999), 1e-8, 0.3) == (
                group["betas"],
                group["eps"],
                group["weight_decay"],
            )
        found = {
            (each.setting, each.old, each.new, each.winner)
            for each in last_report(second).differences
        }
        assert {
            ("lr", LR, 0.2, "code"),
            ("lr_mult", 0.1, 0.5, "code"),
            ("weight_decay", DECAY, 0.3, "code"),
            ("betas", (0.8, 0.9), (0.9, 0.999), "code"),
            ("eps", 1e-6, 1e-8, "code"),
        } == found

    def test_the_checkpoint_counts_on_request(self):
        """Parameter by parameter, into other groups."""
        model = Net()
        first = build(model)
        scheduler = lrs.LambdaLR(first, lambda s: 0.5**s)
        train(model, first, scheduler, range(1))
        second = build(
            model,
            slower() * nnlr.rule("*.bias", options={"maximize": False, "eps": 1e-3}),
            lr=0.2,
            wd=0.3,
            resume="checkpoint",
        )
        with pytest.warns(nnlr.NnlrWarning, match=r"0\.05 counts \(checkpoint\)"):
            second.load_state_dict(first.state_dict())
        assert rates(first) == rates(second)
        for key in ("initial_lr", "lr_mult", "weight_decay", "wd_mult", "eps"):
            assert rates(first, key) == rates(second, key), key

    def test_two_values_for_one_group_are_an_error(self):
        """With both names, both values and the way out; nothing is loaded."""
        model = Net()
        first = build(model)
        step(model, first, 0)
        second = build(model, nnlr.rule("*"), resume="checkpoint")
        with pytest.raises(
            nnlr.ConfigError,
            match=r"Group 'lr1_wd1' can have one lr, and .* two: 'head\.weight' with "
            r"0\.05, 'body\.weight' with 0\.005\. Give .* policy='code'",
        ):
            second.load_state_dict(first.state_dict())
        assert ({}, None) == (dict(second.state), last_report(second))

    def test_tensor_rates_are_told_as_numbers(self):
        """In the error too."""
        model = Net()
        first = build(model, tensor_lr=True)
        step(model, first, 0)
        second = build(model, nnlr.rule("*"), resume="checkpoint", tensor_lr=True)
        with pytest.raises(
            nnlr.ConfigError,
            match=r"'head\.weight' with 0\.05, 'body\.weight' with 0\.005\.",
        ):
            second.load_state_dict(first.state_dict())

    def test_groups_that_agree_are_merged(self):
        """Two saved groups of one rate can be one."""
        model = Net()
        first = build(model, slower(1, options={"maximize": False}))
        step(model, first, 0)
        second = build(model, nnlr.rule("*"), resume="checkpoint")
        second.load_state_dict(first.state_dict())
        assert {LR} == set(rates(second).values())

    def test_rates_without_multipliers_become_multipliers_of_the_codes_base(self):
        """So that a schedule goes on from the rates that were taken over."""
        model = Net()
        old = torch.optim.AdamW(model.named_parameters(), lr=LR / 5, weight_decay=0.2)
        step(model, old, 0)
        new = build(model, resume="checkpoint")
        with pytest.warns(nnlr.NnlrWarning, match=r"lr of 4 parameters: 0\.01 -> 0\.05"):
            new.load_state_dict(old.state_dict())
        assert [pytest.approx(0.2)] == list({*rates(new, "lr_mult").values()})
        assert [pytest.approx(2.0)] == list({*rates(new, "wd_mult").values()})
        scheduler = nnlr.schedule(new, lrs.LambdaLR, lr_lambda=lambda s: 1.0)
        assert LR == scheduler.base_lr
        assert [pytest.approx(LR / 5)] == list({*rates(new).values()})

    def test_fresh_groups_keep_the_codes_rates(self):
        """The checkpoint says nothing of them."""
        model = Net()
        first = build(model)
        step(model, first, 0)
        model.extra = nn.Linear(2, 2)
        second = build(model, slower() * nnlr.rule("extra.*", lr_mult=3), resume="checkpoint")
        second.load_state_dict(first.state_dict())
        assert LR * 3 == rates(second)["extra.bias"]

    def test_a_plans_options_are_the_codes(self):
        """New ones, changed ones and dropped ones."""
        model = Net()
        first = build(model, slower(options={"eps": 1e-3}))
        step(model, first, 0)
        for options, expected in (({"eps": 1e-2}, 1e-2), ({}, 1e-8)):
            second = build(model, slower(options=options))
            with pytest.warns(nnlr.NnlrWarning, match=r"eps is 0\.001 .*\(code\)"):
                second.load_state_dict(first.state_dict())
            assert expected == rates(second, "eps")["head.bias"]
            assert 1e-8 == rates(second, "eps")["body.bias"]

    def test_settings_on_which_saved_groups_differ_are_the_codes(self):
        """One group cannot hold two, and the code says what it is to be."""
        model = Net()
        pairs = list(model.named_parameters())
        old = torch.optim.SGD(
            [{"params": pairs[:2], "momentum": 0.1}, {"params": pairs[2:]}],
            lr=LR,
            momentum=0.2,
        )
        step(model, old, 0)
        new = torch.optim.SGD(pairs, lr=LR, momentum=0.3)
        with pytest.warns(
            nnlr.NnlrWarning,
            match=r"momentum of 4 parameters: 0\.1 -> 0\.3 (?s:.*) 0\.2 -> 0\.3",
        ):
            state, _ = fit_state(old.state_dict(), new)
        assert 0.3 == state["param_groups"][0]["momentum"]

    def test_kernels_are_the_codes_and_state_goes_with_its_settings(self):
        """`foreach` need not exist here; `amsgrad` decides which state there is."""
        model = Net()
        old = torch.optim.Adam(model.named_parameters(), lr=LR, amsgrad=True, foreach=True)
        step(model, old, 0)
        new = torch.optim.AdamW(
            [{"params": [pair], "amsgrad": False} for pair in model.named_parameters()],
            lr=LR,
            weight_decay=0.0,
            foreach=False,
        )
        with pytest.warns(nnlr.NnlrWarning, match=r"decoupled_weight_decay is False .*"):
            state, report = fit_state(old.state_dict(), new)
        assert "foreach" in {each.setting for each in report.differences}
        new.load_state_dict(state)
        for group in new.param_groups:
            assert (False, True, True) == (
                group["foreach"],
                group["amsgrad"],
                group["decoupled_weight_decay"],
            )
        step(model, new, 1)

    def test_groups_that_lack_a_setting_do_not_count_for_it(self):
        """Those of older versions, or as torch's distributed loading leaves them."""
        model = Net()
        pairs = list(model.named_parameters())
        old = torch.optim.SGD([{"params": [pair]} for pair in pairs], lr=LR, momentum=0.5)
        saved = old.state_dict()
        for key in ("lr", "momentum"):
            del saved["param_groups"][0][key]
        new = torch.optim.SGD(pairs, lr=LR, momentum=0.9)
        with pytest.warns(nnlr.NnlrWarning, match=r"(?s)momentum is 0\.5 .* 3\s+param"):
            state, _ = fit_state(saved, new)
        (group,) = state["param_groups"]
        assert (LR, 0.5) == (group["lr"], group["momentum"])

    def test_what_the_code_does_not_have_is_taken_if_it_is_one_thing(self):
        """Notes of others travel with the groups, unless they contradict each other."""
        model = Net()
        pairs = list(model.named_parameters())
        old = torch.optim.SGD([{"params": [pair]} for pair in pairs], lr=LR)
        for at, group in enumerate(old.param_groups):
            group |= {"mine": (1, "a"), "index": at, "one": torch.ones(2)}
        new = torch.optim.SGD(pairs, lr=LR)
        state, _ = fit_state(old.state_dict(), new)
        (group,) = state["param_groups"]
        assert (1, "a") == group["mine"]
        assert "index" not in group
        assert [1.0, 1.0] == group["one"].tolist()
        assert group["one"] is not old.param_groups[0]["one"]

    def test_lists_are_tuples_again(self):
        """Some formats know no tuples; optimizers unpack either, schedules do not."""
        model = Net()
        old = torch.optim.Adam(model.named_parameters(), lr=LR, betas=(0.5, 0.6))
        state = old.state_dict()
        state["param_groups"][0]["betas"] = [0.5, 0.6]
        new = torch.optim.Adam(model.named_parameters(), lr=LR)
        with pytest.warns(nnlr.NnlrWarning, match=r"betas is"):
            fitted, _ = fit_state(state, new)
        assert (0.5, 0.6) == fitted["param_groups"][0]["betas"]

    @pytest.mark.parametrize("resume", [True, "cde"])
    def test_other_words_are_refused(self, resume):
        """At the call that gets them, with the nearest."""
        model = Net()
        with pytest.raises(nnlr.NnlrError, match="resume must be one of 'code', 'check"):
            build(model, resume=resume)
        optimizer = build(model)
        with pytest.raises(nnlr.NnlrError, match="policy must be one of 'code', 'check"):
            on_load(optimizer, policy=resume)

    def test_an_optimizer_without_rates_has_none_to_settle(self):
        """What it calls its settings is its own affair."""
        model = Net()

        class Own(torch.optim.Optimizer):
            def __init__(self, params, speed):
                super().__init__(params, {"speed": speed})

        old, new = (Own(model.named_parameters(), speed) for speed in (1, 2))
        with pytest.warns(nnlr.NnlrWarning, match=r"speed is 1 .* \(checkpoint\)"):
            state, _ = fit_state(old.state_dict(), new)
        assert 1 == state["param_groups"][0]["speed"]


class TestMovingMultipliers:
    """Those that a callback moves are the checkpoint's, whatever the policy."""

    @staticmethod
    def moved(model, by, scheme=None, scheduled=True):
        optimizer = build(model, scheme)
        for group in optimizer.param_groups:
            group["moving"] = ("lr_mult",)
        scheduler = (
            nnlr.schedule(optimizer, lrs.LambdaLR, lr_lambda=lambda s: 0.5**s)
            if scheduled
            else None
        )
        step(model, optimizer, 0)
        for group in optimizer.param_groups:
            group["lr_mult"] *= by
        if scheduler:
            scheduler.step()
        return optimizer, scheduler

    @pytest.mark.parametrize("policy", ["code", "checkpoint"])
    @pytest.mark.parametrize("order", ORDERS)
    def test_they_go_on_from_where_they_were(self, policy, order):
        """And so do the rates, whether the schedule was built before or after."""
        model = Net()
        first, scheduler = self.moved(model, 0.25)
        state, progress = through_a_file(first.state_dict(), scheduler.state_dict())
        second = build(model, resume=policy)
        scheduler = resume(
            order,
            second,
            state,
            lambda o: nnlr.schedule(o, lrs.LambdaLR, lr_lambda=lambda s: 0.5**s),
            progress,
        )
        assert rates(first, "lr_mult") == rates(second, "lr_mult")
        assert rates(first) == rates(second)
        assert {("lr_mult",)} == {group["moving"] for group in second.param_groups}
        step(model, second, 1)
        scheduler.step()
        assert LR * 0.25 * 0.25 == rates(second)["head.weight"]

    def test_without_a_schedule_the_rate_is_the_base_times_the_multiplier(self):
        """As the next one to write rates would have it."""
        model = Net()
        first, _ = self.moved(model, 0.25, scheduled=False)
        second = build(model)
        second.load_state_dict(first.state_dict())
        assert 0.25 == rates(second, "lr_mult")["head.weight"]

    def test_a_changed_base_rate_still_counts(self):
        """Where a static group tells what the old one was."""
        model = Net()
        first = build(model)
        first.param_groups[1]["moving"] = ("lr_mult",)
        scheduler = nnlr.schedule(first, lrs.LambdaLR, lr_lambda=lambda s: 0.5**s)
        step(model, first, 0)
        first.param_groups[1]["lr_mult"] = 0.4
        scheduler.step()
        second = build(model, lr=LR * 2)
        with pytest.warns(nnlr.NnlrWarning, match=r"lr is 0\.05 in the checkpoint and 0\.1"):
            second.load_state_dict(first.state_dict())
        assert pytest.approx(LR * 2 * 0.5 * 0.4) == rates(second)["body.weight"]
        assert pytest.approx(LR * 2 * 0.4) == rates(second, "initial_lr")["body.weight"]

    def test_one_group_cannot_go_on_from_two(self):
        """They have to be given groups of their own."""
        model = Net()
        first, _ = self.moved(model, 0.25)
        second = build(model, nnlr.rule("*"))
        with pytest.raises(
            nnlr.ConfigError,
            match=r"can have one lr_mult, .* Give them groups of their own\.$",
        ):
            second.load_state_dict(first.state_dict())


def test_all_that_is_saved_is_plain():
    """So that weights_only=True, which trainers use, can load it; also after a load."""
    model = Net()
    first = build(model, tensor_lr=True, names=False)
    scheduler = nnlr.schedule(first, lrs.OneCycleLR, max_lr=0.1, total_steps=9)
    train(model, first, scheduler, range(2))
    second = build(model)
    with warnings.catch_warnings(action="ignore"):
        second.load_state_dict(*through_a_file(first.state_dict()))
    plain = (bool, int, float, str, tuple, list, dict, torch.Tensor, type(None))

    def foreign(value):
        if isinstance(value, dict):
            return [each for item in value.items() for each in foreign(item)]
        if isinstance(value, list | tuple):
            return [each for item in value for each in foreign(item)]
        return [] if type(value) in plain else [value]

    for optimizer in (first, second):
        assert [] == foreign(optimizer.state_dict())
        through_a_file(optimizer.state_dict())


# --- base rates that the code changes ----------------------------------------------------------


def two_layers():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


def two_rates(model, *schemes, lr=LR, weight_decay=DECAY):
    return nnlr.resolve(model, *schemes, lr=lr, weight_decay=weight_decay)


def steps(model, optimizer, scheduler=None, count=2):
    for _ in range(count):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        if scheduler:
            scheduler.step()


def halved(optimizer):
    """Half the base rates at every step."""
    return nnlr.schedule(
        optimizer,
        lrs.ExponentialLR,
        gamma=0.5,
        weight_decay=lambda opt: lrs.ExponentialLR(opt, 0.5),
    )


def rates_and_decays(optimizer):
    return [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]


@pytest.mark.parametrize("there", [0.0, DECAY])
@pytest.mark.parametrize("regrouped", [False, True])
def test_without_a_schedule_the_codes_decay_counts(there, regrouped):
    """Also where one of the two, code or checkpoint, has none."""
    here = DECAY - there
    old = two_rates(two_layers(), weight_decay=here if regrouped else there)
    model = two_layers()
    first = old.optimizer(torch.optim.AdamW, model=model)
    if regrouped:
        nnlr.regroup(first, two_rates(model, weight_decay=there))
    steps(model, first)
    second = two_rates(model, weight_decay=here).optimizer(torch.optim.AdamW)
    with pytest.warns(nnlr.NnlrWarning, match="weight_decay is"):
        second.load_state_dict(first.state_dict())
    assert [(LR, here)] == rates_and_decays(second)


@pytest.mark.parametrize("order", ["bos", "bso", "obs"])
@pytest.mark.parametrize("resume", ["code", "checkpoint"])
def test_a_schedule_goes_on_at_the_base_rates_that_count(order, resume):
    """Whether it is built, loaded, and the optimizer loaded, in this order or another."""
    model = two_layers()
    first = two_rates(model).optimizer(torch.optim.AdamW)
    scheduler = halved(first)
    steps(model, first, scheduler)
    saved, progress = copy.deepcopy((first.state_dict(), scheduler.state_dict()))
    other = two_rates(model, lr=0.03, weight_decay=0.4)
    second = other.optimizer(torch.optim.AdamW, resume=resume)
    with warnings.catch_warnings(action="ignore", category=nnlr.NnlrWarning):
        for part in order:
            if part == "b":
                scheduler = halved(second)
            elif part == "o":
                second.load_state_dict(saved)
            else:
                scheduler.load_state_dict(progress)
    lr, decay = (0.03, 0.4) if resume == "code" else (LR, DECAY)
    (now,) = rates_and_decays(second)
    assert pytest.approx((lr / 4, decay / 4)) == now
    steps(model, second, scheduler, 1)
    assert pytest.approx((lr / 8, decay / 8)) == rates_and_decays(second)[0]


def test_a_base_rate_that_was_moved_by_hand_stays_moved():
    """In proportion, if the code's base is another now."""
    model = two_layers()
    runs = [two_rates(model, lr=lr).optimizer(torch.optim.SGD) for lr in (LR, LR, 3 * LR)]
    schedules = [halved(each) for each in runs]
    schedules[0].set_base_lr(0.5)
    for each in schedules[1:]:
        each.load_state_dict(copy.deepcopy(schedules[0].state_dict()))
    assert pytest.approx([0.5, 0.5, 1.5]) == [each.base_lr for each in schedules]


def test_states_of_old_and_of_groups_of_ones_own_are_taken_as_they_are():
    """Where nothing says what the default was, or it is not the base, it says nothing."""
    model = two_layers()
    first, second = (two_rates(model, lr=lr).optimizer(torch.optim.SGD) for lr in (LR, 0.1))
    of_then = ("scheduler", "group", "base", "scale")  # what version 0.1 saved
    state = halved(first).state_dict()
    state = {name: {key: each[key] for key in of_then} for name, each in state.items()}
    scheduler = halved(second)
    scheduler.load_state_dict(state)
    assert LR == scheduler.base_lr

    def own(lr, default):
        group = {"params": list(model.named_parameters()), "lr": lr}
        optimizer = torch.optim.SGD([group], lr=default)
        nnlr.checkpoint.on_load(optimizer, model=model)
        return nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.5)

    one, other = own(0.3, default=0.1), own(0.3, default=0.2)
    other.load_state_dict(one.state_dict())
    assert 0.3 == other.base_lr


def test_betas_that_a_schedule_cycles_are_not_the_checkpoints():
    """There they were an option of the plan, which the code has given up."""
    model = two_layers()
    cycle = {"max_lr": 1.0, "total_steps": 20}
    own = nnlr.rule("0.*", options={"betas": (0.5, 0.999)})
    first = two_rates(model, own).optimizer(torch.optim.AdamW)
    scheduler = nnlr.schedule(first, lrs.OneCycleLR, **cycle)
    steps(model, first, scheduler)
    second = two_rates(model, nnlr.rule("0.*", lr_mult=0.5)).optimizer(torch.optim.AdamW)
    resumed = nnlr.schedule(second, lrs.OneCycleLR, **cycle)
    resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    with pytest.warns(nnlr.NnlrWarning, match="optimizer and its checkpoint differ"):
        second.load_state_dict(first.state_dict())
    wanted = resumed.scheduler.optimizer.param_groups[0]["betas"]
    assert [wanted, wanted] == [group["betas"] for group in second.param_groups]


def test_a_replaced_tensor_that_is_alive_does_not_keep_its_name():
    """The optimizer was moved to averages; the model that they are of is kept."""
    model = two_layers()
    optimizer = two_rates(model).optimizer(torch.optim.Adam)
    steps(model, optimizer)
    averages = AveragedModel(model)
    nnlr.regroup(optimizer, two_rates(model), model=averages)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert set(averages.module.parameters()) == set(optimizer.state)
    report = nnlr.checkpoint.last_report(optimizer)
    assert ((), 4, {}) == (report.fresh, len(report.moved), report.unused)


@pytest.mark.parametrize("order", ["so", "os"])
def test_betas_that_were_an_option_of_all_groups_cycle_again(order):
    """Training has not moved them, so the code's count, and the schedule cycles those."""
    model = two_layers()
    cycle = {"max_lr": 1.0, "total_steps": 20}
    own = nnlr.rule("*", options={"betas": (0.5, 0.999)})
    first = two_rates(model, own).optimizer(torch.optim.AdamW)
    scheduler = nnlr.schedule(first, lrs.OneCycleLR, **cycle)
    steps(model, first, scheduler)
    second = two_rates(model).optimizer(torch.optim.AdamW)
    with warnings.catch_warnings(action="ignore", category=nnlr.NnlrWarning):
        for part in order:
            if part == "o":
                second.load_state_dict(copy.deepcopy(first.state_dict()))
            else:
                resumed = nnlr.schedule(second, lrs.OneCycleLR, **cycle)
                resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    for _ in range(2):
        wanted = resumed.scheduler.optimizer.param_groups[0]["betas"]
        assert wanted == second.param_groups[0]["betas"]
        steps(model, second, resumed, 1)


def test_a_group_whose_option_was_given_up_cycles_again():
    """Also where the optimizer is loaded first: no note of the old group stays."""
    model = two_layers()
    cycle = {"max_lr": 1.0, "total_steps": 20}
    own = nnlr.rule("0.*", options={"betas": (0.5, 0.999)})
    first = two_rates(model, own).optimizer(torch.optim.AdamW)
    scheduler = nnlr.schedule(first, lrs.OneCycleLR, **cycle)
    steps(model, first, scheduler)
    second = two_rates(model, nnlr.rule("0.*", lr_mult=0.5)).optimizer(torch.optim.AdamW)
    with pytest.warns(nnlr.NnlrWarning, match="optimizer and its checkpoint differ"):
        second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed = nnlr.schedule(second, lrs.OneCycleLR, **cycle)
    resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    wanted = resumed.scheduler.optimizer.param_groups[0]["betas"]
    assert [wanted, wanted] == [group["betas"] for group in second.param_groups]


def test_a_group_added_in_mid_schedule_goes_by_the_same_base():
    """So nothing differs from a checkpoint of the same run; it has no note of its start."""
    model, extra = two_layers(), nn.Linear(2, 2, bias=False)
    optimizer = two_rates(model).optimizer(torch.optim.AdamW)
    scheduler = halved(optimizer)
    steps(model, optimizer, scheduler)
    optimizer.add_param_group(
        {
            "params": [("extra.weight", extra.weight)],
            "lr": 2 * scheduler.base_lr,
            "weight_decay": 0.0,
            "lr_mult": 2.0,
            "wd_mult": 0.0,
        }
    )
    saved = copy.deepcopy(optimizer.state_dict())
    nnlr.checkpoint.on_load(optimizer, model=model)  # as after a copy
    optimizer.load_state_dict(saved)
    assert () == nnlr.checkpoint.last_report(optimizer).differences


@pytest.mark.parametrize("order", ["bos", "bso", "obs"])
@pytest.mark.parametrize(
    ("kind", "counts"),
    [("on_load", 0.03), ("fit_state", LR), ("torch", LR), ("resume=None", LR)],
)
def test_where_nothing_loads_by_name_the_schedule_goes_by_its_own_state(kind, counts, order):
    """In any order; with on_load the code's base counts, as for plan.optimizer."""
    model = two_layers()

    def built(lr):
        if kind == "resume=None":
            return two_rates(model, lr=lr).optimizer(torch.optim.AdamW, resume=None)
        optimizer = torch.optim.AdamW(list(model.named_parameters()), lr=lr)
        if kind == "on_load":
            nnlr.checkpoint.on_load(optimizer, model=model)
        return optimizer

    first = built(LR)
    scheduler = nnlr.schedule(first, lrs.ExponentialLR, gamma=0.5)
    steps(model, first, scheduler)
    saved, progress = copy.deepcopy((first.state_dict(), scheduler.state_dict()))
    second = built(0.03)
    with warnings.catch_warnings(action="ignore", category=nnlr.NnlrWarning):
        for part in order:
            if part == "b":
                scheduler = nnlr.schedule(second, lrs.ExponentialLR, gamma=0.5)
            elif part == "s":
                scheduler.load_state_dict(progress)
            elif kind == "fit_state":
                state, _ = nnlr.checkpoint.fit_state(saved, second)
                second.load_state_dict(state)
            else:
                second.load_state_dict(saved)
    assert pytest.approx(counts / 4) == second.param_groups[0]["lr"]
    steps(model, second, scheduler, 1)
    assert pytest.approx(counts / 8) == second.param_groups[0]["lr"]
