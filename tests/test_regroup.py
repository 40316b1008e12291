"""regroup: a new plan for a live optimizer, which keeps what it knows."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau
from torch.optim.optimizer import required

import nnlr

LR, DECAY = 0.1, 0.01


def network():
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))


def resolved(model, *schemes, lr=LR, weight_decay=DECAY, decay="coupled"):
    return nnlr.resolve(model, *schemes, lr=lr, weight_decay=weight_decay, decay=decay)


def steps(model, optimizer, count=3, seed=1):
    """Train for some steps on inputs that are the same for every model."""
    source = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(4, 3, generator=source)).square().mean().backward()
        optimizer.step()


def by_name(optimizer, key):
    return {name: group[key] for group in optimizer.param_groups for name in group["param_names"]}


def snapshot(optimizer, model):
    """All that regroup may change."""
    return (
        [dict(group) for group in optimizer.param_groups],
        list(map(id, optimizer.param_groups)),
        dict(optimizer.state),
        dict(optimizer.defaults),
        [parameter.requires_grad for parameter in model.parameters()],
    )


def unchanged(before, after):
    """Equal without comparing tensors, which are the same objects anyway."""
    groups, ids, state, defaults, flags = before
    assert ids == after[1]
    for old, new in zip(groups, after[0], strict=True):
        assert list(map(id, old.pop("params"))) == list(map(id, new.pop("params")))
        assert old == new
    assert {id(k): id(v) for k, v in state.items()} == {id(k): id(v) for k, v in after[2].items()}
    assert (defaults, flags) == (after[3], after[4])


CONTINUED = {
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "Adam": (torch.optim.Adam, {}),
    "AdamW": (torch.optim.AdamW, {"amsgrad": True}),
    "RMSprop": (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    "Adagrad": (torch.optim.Adagrad, {}),
}


class TestState:
    """What the optimizer knows of a parameter stays with it."""

    @pytest.mark.parametrize("name", sorted(CONTINUED))
    def test_other_groups_with_the_same_rates_continue_bit_for_bit(self, name):
        """One group or one for each layer: the numbers are those of one run."""
        cls, settings = CONTINUED[name]
        one = network()
        other = copy.deepcopy(one)
        split = nnlr.rule("1.*", options={"foreach": False})
        start = resolved(one).optimizer(cls, **settings)
        steps(one, start, 6)
        optimizer = resolved(other).optimizer(cls, **settings)
        source = torch.Generator().manual_seed(1)
        for count in range(6):
            if count == 3:
                nnlr.regroup(optimizer, resolved(other, split))
                assert 2 == len(optimizer.param_groups)
            optimizer.zero_grad()
            other(torch.randn(4, 3, generator=source)).square().mean().backward()
            optimizer.step()
        for expected, actual in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(expected, actual)

    def test_parameters_whose_rate_did_not_change_continue_as_before(self):
        """Independent parameters: only those whose rate changed go another way."""
        values = {"a": torch.ones(2), "b": torch.ones(2)}
        runs = [nn.ParameterDict(copy.deepcopy(values)) for _ in range(2)]
        slow = nnlr.rule("b", lr_mult=0.1)
        optimizers = [resolved(run).optimizer(torch.optim.Adam) for run in runs]
        for count in range(6):
            for run, optimizer in zip(runs, optimizers, strict=True):
                for parameter in run.values():
                    parameter.grad = torch.tensor([0.5, -1.0]) * (count + 1)
                optimizer.step()
            if count == 2:
                nnlr.regroup(optimizers[1], resolved(runs[1], slow))
        assert torch.equal(runs[0]["a"], runs[1]["a"])
        assert not torch.equal(runs[0]["b"], runs[1]["b"])

    def test_state_follows_the_name_where_the_tensor_was_replaced(self):
        """load_state_dict(assign=True) puts new parameters in."""
        one = network()
        other = copy.deepcopy(one)
        optimizers = [resolved(m).optimizer(torch.optim.Adam) for m in (one, other)]
        for model, optimizer in zip((one, other), optimizers, strict=True):
            steps(model, optimizer)
        other.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)
        nnlr.regroup(optimizers[1], resolved(other))
        assert set(optimizers[1].state) == set(other.parameters())
        for model, optimizer in zip((one, other), optimizers, strict=True):
            steps(model, optimizer, seed=2)
        for expected, actual in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(expected, actual)

    def test_raw_names_of_an_optimizer_built_elsewhere_are_understood(self):
        """An optimizer made from a wrapped model knows `_orig_mod.0.weight`."""
        net = network()
        named = [(f"_orig_mod.{n}", p) for n, p in net.named_parameters()]
        optimizer = torch.optim.Adam(named, lr=LR)
        steps(net, optimizer)
        moments = [optimizer.state[p]["exp_avg"] for p in net.parameters()]
        net.load_state_dict(copy.deepcopy(net.state_dict()), assign=True)
        nnlr.regroup(optimizer, resolved(net))
        kept = [optimizer.state[p]["exp_avg"] for p in net.parameters()]
        assert list(map(id, moments)) == list(map(id, kept))

    def test_replaced_tensors_without_names_are_reported(self):
        """Nothing says which of the new ones they are, so their state is dropped."""
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), lr=LR)
        steps(net, optimizer)
        net[2] = nn.Linear(3, 1)
        with pytest.warns(
            nnlr.NnlrWarning,
            match=r"knows 2 tensors .* what it knows of them is dropped",
        ) as caught:
            nnlr.regroup(optimizer, resolved(net))
        assert [__file__] == [warning.filename for warning in caught]
        assert set(optimizer.state) == set(net[:2].parameters())

    def test_a_replaced_tensor_of_another_shape_starts_afresh(self):
        """Its old state would not fit."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.Adam)
        steps(net, optimizer)
        net[2] = nn.Linear(3, 5)
        with pytest.warns(
            nnlr.NnlrWarning, match=r"2 parameters does not fit .*: 2\.weight, 2\.bias"
        ):
            nnlr.regroup(optimizer, resolved(net))
        assert net[2].weight not in optimizer.state
        assert net[0].weight in optimizer.state
        steps(net, optimizer)

    def test_a_tensor_whose_data_was_resized_starts_afresh(self):
        """A vocabulary that grew in the same parameter: its averages would not fit."""
        net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 1))
        optimizer = resolved(net).optimizer(torch.optim.Adam)
        net(torch.arange(3)).sum().backward()
        optimizer.step()
        weight = net[0].weight
        weight.data = torch.cat([weight.data, torch.ones(2, 3)])
        weight.grad = None
        plan = resolved(net)
        before = snapshot(optimizer, net)
        with pytest.raises(nnlr.NnlrWarning, match="state of 1 parameter does not fit"):
            nnlr.regroup(optimizer, plan)
        unchanged(before, snapshot(optimizer, net))
        with pytest.warns(nnlr.NnlrWarning, match=r"dropped, so that .* afresh: 0\.weight"):
            nnlr.regroup(optimizer, plan)
        assert weight not in optimizer.state
        assert net[1].weight in optimizer.state
        net(torch.arange(7)).sum().backward()
        optimizer.step()

    def test_state_of_nothing_is_no_misfit(self):
        """SGD of older versions notes None where there is no momentum yet."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.SGD, momentum=0.9)
        for parameter in net.parameters():
            optimizer.state[parameter] = {"momentum_buffer": None}
        nnlr.regroup(optimizer, resolved(net))
        steps(net, optimizer)

    def test_locked_parameters_are_dropped_with_their_state(self):
        """No gradient, no state."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.Adam)
        steps(net, optimizer)
        locked = net[0].weight
        nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0)))
        assert locked not in optimizer.state
        assert locked.grad is None
        assert not locked.requires_grad
        assert {"1.weight", "1.bias", "2.weight", "2.bias"} == by_name(optimizer, "lr").keys()

    def test_unlocked_parameters_start_afresh(self):
        """Their first step is that of a new optimizer."""
        net = network()
        head = nnlr.rule("0.*", lr_mult=0)
        optimizer = resolved(net, head).optimizer(torch.optim.Adam)
        steps(net, optimizer)
        nnlr.regroup(optimizer, resolved(net))
        assert net[0].weight.requires_grad
        assert net[0].weight not in optimizer.state
        steps(net, optimizer, 1)
        assert [1.0, 4.0] == [optimizer.state[net[i].weight]["step"].item() for i in (0, 1)]

    def test_locked_parameters_can_be_kept(self):
        """At rate 0, in the last group, with their state."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.Adam)
        steps(net, optimizer)
        plan = resolved(net, nnlr.rule("0.*", lr_mult=0))
        nnlr.regroup(optimizer, plan, locked="keep")
        assert [LR, 0.0] == [group["lr"] for group in optimizer.param_groups]
        assert net[0].weight in optimizer.state
        assert net[0].weight.requires_grad

    def test_state_that_belongs_to_no_parameter_stays(self):
        """Some optimizers keep something about all of them."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.Adam)
        optimizer.state["global"] = {"count": 7}
        nnlr.regroup(optimizer, resolved(net))
        assert {"count": 7} == optimizer.state["global"]


class TestSettings:
    """What the plan does not speak of stays as it was."""

    def test_settings_that_all_groups_share_are_kept(self):
        """Also those that were changed during training."""
        net = network()
        split = nnlr.rule("0.*", lr_mult=0.5)
        optimizer = resolved(net, split).optimizer(torch.optim.Adam, amsgrad=True)
        for group in optimizer.param_groups:
            group["betas"] = (0.5, 0.6)
        nnlr.regroup(optimizer, resolved(net, nnlr.rule("1.*", lr_mult=0.5)))
        assert {(0.5, 0.6)} == set(by_name(optimizer, "betas").values())
        assert {True} == set(by_name(optimizer, "amsgrad").values())

    def test_settings_on_which_groups_differ_are_the_defaults_again(self):
        """They were the old plan's options; the new plan's count now."""
        net = network()
        old = nnlr.rule("0.*", options={"betas": (0.5, 0.6)})
        new = nnlr.rule("1.*", options={"betas": (0.7, 0.8)})
        optimizer = resolved(net, old).optimizer(torch.optim.Adam, betas=(0.8, 0.9))
        nnlr.regroup(optimizer, resolved(net, new))
        betas = by_name(optimizer, "betas")
        assert [(0.8, 0.9), (0.7, 0.8), (0.8, 0.9)] == [betas[f"{i}.weight"] for i in range(3)]

    def test_options_that_the_old_plan_set_for_all_go_with_it(self):
        """They have not moved since, so that the optimizer's own count again."""
        net = network()
        old = nnlr.rule("*", options={"betas": (0.5, 0.6)})
        optimizer = resolved(net, old).optimizer(torch.optim.Adam)
        nnlr.regroup(optimizer, resolved(net))
        assert [(0.9, 0.999)] == [group["betas"] for group in optimizer.param_groups]

    def test_what_others_noted_in_the_groups_is_kept_where_it_is_one_thing(self):
        """Also in tensors of each group's own, if these are equal."""
        net = network()
        split = nnlr.rule("0.*", lr_mult=0.5)
        optimizer = resolved(net, split).optimizer(torch.optim.Adam)
        one = torch.ones(2)
        for index, group in enumerate(optimizer.param_groups):
            group |= {"one": one, "two": torch.ones(2), "count": 3, "index": index}
            group["odd"] = torch.ones(2 + index)
        optimizer.param_groups[0]["mine"] = True
        nnlr.regroup(optimizer, resolved(net))
        (group,) = optimizer.param_groups
        assert (True, 3) == (group["one"] is one, group["count"])
        assert [1.0, 1.0] == group["two"].tolist()
        assert {"odd", "index", "mine"}.isdisjoint(group)

    def test_eps_mult_multiplies_the_default_eps_each_time(self):
        """Never what an earlier plan has multiplied already."""

        class Half(nnlr.Scheme):
            def factors(self, model):
                return [nnlr.Factor(eps_mult=0.5) for _ in model.params]

        net = network()
        optimizer = resolved(net, Half()).optimizer(torch.optim.Adam, eps=1e-4)
        nnlr.regroup(optimizer, resolved(net, Half()))
        assert {5e-5} == set(by_name(optimizer, "eps").values())
        nnlr.regroup(optimizer, resolved(net))
        assert {1e-4} == set(by_name(optimizer, "eps").values())

    def test_both_bases_become_the_defaults(self):
        """HF schedulers built next read them."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.AdamW)
        nnlr.regroup(optimizer, resolved(net, lr=0.5, weight_decay=0.25))
        defaults = optimizer.defaults
        assert (0.5, 0.25) == (defaults["lr"], defaults["weight_decay"])

    def test_unnamed_groups_stay_unnamed(self):
        """An optimizer that sorts or splits its tensors goes on getting tensors."""
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), lr=LR)
        steps(net, optimizer)
        nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0.5)))
        assert [4, 2] == [len(group["params"]) for group in optimizer.param_groups]
        assert all("param_names" not in group for group in optimizer.param_groups)
        assert 6 == len(optimizer.state)
        steps(net, optimizer)

    def test_tensor_rates_stay_tensors_of_their_kind(self):
        """Each group has its own, in the dtype of the old ones."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.AdamW, tensor_lr=True)
        (group,) = optimizer.param_groups
        group["lr"] = group["lr"].double()
        nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0.5)))
        rates = [group["lr"] for group in optimizer.param_groups]
        assert [(torch.float64, 0.1), (torch.float64, 0.05)] == [
            (rate.dtype, rate.item()) for rate in rates
        ]
        assert rates[0].data_ptr() != rates[1].data_ptr()

    def test_optimizers_without_decay_get_no_such_key(self):
        """As when they were built."""
        net = network()
        optimizer = resolved(net, weight_decay=0).optimizer(torch.optim.Rprop)
        nnlr.regroup(optimizer, resolved(net, weight_decay=0))
        assert "weight_decay" not in optimizer.param_groups[0]
        assert "weight_decay" not in optimizer.defaults


class TestSchedules:
    """The progress of a scheduler carries over, with a warning to build it anew."""

    @pytest.mark.parametrize("tensor_lr", [False, True])
    def test_progress_carries_over_to_every_new_rate(self, tensor_lr):
        """At half of the base, a new group starts at half of its rate."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.AdamW, tensor_lr=tensor_lr)
        scheduler = LambdaLR(optimizer, lambda step: 0.5**step)
        steps(net, optimizer, 1)
        scheduler.step()
        with pytest.warns(
            nnlr.NnlrWarning,
            match=r"groups continue at 0\.5 of their base rates; build",
        ) as caught:
            nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0.1)))
        assert [__file__] == [warning.filename for warning in caught]
        groups = optimizer.param_groups
        assert [LR / 2, LR / 20] == pytest.approx([float(g["lr"]) for g in groups])
        assert [LR, LR / 10] == pytest.approx([float(g["initial_lr"]) for g in groups])
        assert tensor_lr == isinstance(groups[0]["lr"], torch.Tensor)

    def test_a_scheduler_built_anew_goes_on_from_there(self):
        """It finds initial_lr, as torch asks of a scheduler that resumes."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.SGD)
        scheduler = LambdaLR(optimizer, lambda step: 0.5**step)
        steps(net, optimizer, 1)
        scheduler.step()
        with pytest.warns(nnlr.NnlrWarning, match="A scheduler was built on this optimizer"):
            nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0.1)))
        scheduler = LambdaLR(optimizer, lambda step: 0.5**step, last_epoch=1)
        steps(net, optimizer, 1)
        scheduler.step()
        assert [LR / 8, LR / 80] == pytest.approx([g["lr"] for g in optimizer.param_groups])

    def test_one_cycle_schedules_are_measured_from_their_peak(self):
        """They start far under it, so their first rate is not the base."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.SGD, momentum=0.9)
        scheduler = OneCycleLR(optimizer, max_lr=LR, total_steps=10)
        for _ in range(3):
            steps(net, optimizer, 1)
            scheduler.step()
        before = dict(optimizer.param_groups[0])
        with pytest.warns(nnlr.NnlrWarning, match="A scheduler was built on this optimizer"):
            nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0.1)))
        for group, mult in zip(optimizer.param_groups, (1, 0.1), strict=True):
            for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                assert before[key] * mult == pytest.approx(group[key]), key

    @pytest.mark.parametrize("by", ["plateau", "hand", "nobody"])
    @pytest.mark.parametrize("tensor_lr", [False, True])
    @pytest.mark.parametrize("default", [LR, 7.0, 0.0])
    def test_rates_without_a_schedulers_note_are_replaced(self, by, tensor_lr, default, recwarn):
        """They cannot be told from base rates, so the new plan's own are taken as they are."""
        net = network()
        groups = resolved(net, nnlr.rule("0.*", lr_mult=0.1)).param_groups(tensor_lr=tensor_lr)
        optimizer = torch.optim.SGD(groups, lr=default)
        if by == "plateau":
            scheduler = ReduceLROnPlateau(optimizer, factor=0.001, patience=0)
            for loss in (1.0, 2.0):
                scheduler.step(loss)
        if by == "hand":
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"] * 6
        nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0.5), lr=0.25))
        assert [0.25, 0.125] == [float(g["lr"]) for g in optimizer.param_groups]
        assert [] == list(recwarn)

    def test_an_optimizer_without_defaults_is_given_the_rates(self):
        """What it calls its settings is its own affair."""
        net = network()

        class Own(torch.optim.Optimizer):
            def __init__(self, params):
                super().__init__(params, {})

            def step(self):
                for group in self.param_groups:
                    for tensor in group["params"]:
                        tensor.data.sub_(tensor.grad, alpha=group["lr"])

        optimizer = Own(nnlr.resolve(net, lr=0.1, weight_decay=0).param_groups())
        nnlr.regroup(optimizer, nnlr.resolve(net, lr=0.25, weight_decay=0))
        assert [0.25] == [group["lr"] for group in optimizer.param_groups]

    @pytest.mark.parametrize(
        ("cls", "momentum"),
        [(torch.optim.SGD, "momentum"), (torch.optim.AdamW, "betas")],
    )
    def test_the_old_one_cycle_schedule_can_go_on(self, cls, momentum):
        """What it notes in the groups is there; the new ratio holds."""
        net = network()
        settings = {"momentum": 0.9} if momentum == "momentum" else {}
        optimizer = resolved(net).optimizer(cls, **settings)
        scheduler = OneCycleLR(optimizer, max_lr=LR, total_steps=10)
        steps(net, optimizer, 1)
        scheduler.step()
        with pytest.warns(nnlr.NnlrWarning, match=r"and its next step may fail\."):
            nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0.1)))
        steps(net, optimizer, 1)
        scheduler.step()
        first, second = optimizer.param_groups
        assert first[momentum] == second[momentum]
        assert 0.1 == pytest.approx(second["lr"] / first["lr"])

    def test_a_warning_turned_into_an_error_changes_nothing(self):
        """It comes before the first change."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.SGD)
        LambdaLR(optimizer, lambda step: 1.0)
        before = snapshot(optimizer, net)
        with pytest.raises(nnlr.NnlrWarning, match="A scheduler was built on this optimizer"):
            nnlr.regroup(optimizer, resolved(net, nnlr.rule("0.*", lr_mult=0)))
        unchanged(before, snapshot(optimizer, net))

    def test_the_start_of_a_decay_schedule_is_noted_anew(self):
        """Else a checkpoint that is loaded twice takes where it has come for its start."""

        def halving(optimizer):
            return LambdaLR(optimizer, lambda step: 0.5**step)

        net = network()
        optimizer = resolved(net).optimizer(torch.optim.SGD)
        scheduler = nnlr.schedule(
            optimizer, LambdaLR, lr_lambda=lambda _: 1.0, weight_decay=halving
        )
        optimizer.step()
        scheduler.step()
        nnlr.regroup(optimizer, resolved(net, weight_decay=0.04))
        (group,) = optimizer.param_groups
        assert [0.04, 0.02] == [group["initial_weight_decay"], group["weight_decay"]]
        saved = copy.deepcopy(optimizer.state_dict())
        another = network()
        fresh = resolved(another, weight_decay=0.04).optimizer(torch.optim.SGD)
        fresh.load_state_dict(saved)
        fresh.load_state_dict(saved)
        assert 0.02 == fresh.param_groups[0]["weight_decay"]

    def test_a_decay_mode_that_means_nothing_warns_here_too(self):
        """As when the optimizer is built."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.Adam)
        with pytest.warns(nnlr.NnlrWarning, match="meaning with Adam: it adds") as caught:
            nnlr.regroup(optimizer, resolved(net, decay="sqrt"))
        assert [__file__] == [warning.filename for warning in caught]


class Picky(torch.optim.Optimizer):
    """A third-party optimizer that demands a setting, and starts state by itself."""

    def __init__(self, params, lr=0.1, weight_decay=0.0, flavour=required):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "flavour": flavour})

    def add_param_group(self, param_group):
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            self.state[parameter]["age"] = 0


def flavoured(**flavours):
    """A scheme that gives each layer its flavour."""
    scheme = nnlr.rule("*")
    for layer, flavour in flavours.items():
        one = nnlr.rule(f"{layer[-1]}.*", options={"flavour": flavour})
        scheme = scheme * one
    return scheme


class TestFailure:
    """The optimizer is changed, or not at all."""

    @pytest.mark.parametrize(
        ("scheme", "message"),
        [
            (nnlr.rule("*", lr_mult=0), "The plan trains nothing"),
            (nnlr.rule("0.*", options={"momentum": 0.5}), "does not know the option"),
        ],
    )
    def test_a_plan_that_does_not_fit_changes_nothing(self, scheme, message):
        """Groups, state, defaults and locks are as they were."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.Adam)
        steps(net, optimizer)
        before = snapshot(optimizer, net)
        plan = resolved(net, scheme, nnlr.rule("1.*", lr_mult=0), lr=0.7)
        with pytest.raises(nnlr.ConfigError, match=message):
            nnlr.regroup(optimizer, plan)
        unchanged(before, snapshot(optimizer, net))

    def test_a_group_that_is_refused_late_changes_nothing(self):
        """The first new group is in when the second fails; both are taken out again."""
        net = network()
        both = flavoured(layer0="sweet", layer1="sour", layer2="sour")
        optimizer = resolved(net, both).optimizer(Picky)
        before = snapshot(optimizer, net)
        locks = nnlr.rule("2.*", lr_mult=0)
        plan = resolved(net, flavoured(layer0="sweet"), locks, lr=0.7)
        assert {} == plan.groups[1].options
        with pytest.raises(
            nnlr.ConfigError,
            match=r"Picky refused the new groups: .* parameter flavour",
        ):
            nnlr.regroup(optimizer, plan)
        unchanged(before, snapshot(optimizer, net))

    def test_state_that_add_param_group_starts_is_kept(self):
        """Of fresh parameters; the others keep what they had."""
        net = network()
        first = resolved(net, nnlr.rule("0.*", lr_mult=0))
        optimizer = first.optimizer(Picky, flavour="sweet")
        for state in optimizer.state.values():
            state["age"] = 7
        nnlr.regroup(optimizer, resolved(net, nnlr.rule("1.*", lr_mult=0)))
        assert {"0": 0, "2": 7} == {
            name[0]: optimizer.state[parameter]["age"]
            for name, parameter in net.named_parameters()
            if parameter in optimizer.state
        }

    def test_a_model_that_does_not_fit_changes_nothing(self):
        """The mismatch is found before the optimizer is touched."""
        net = network()
        optimizer = resolved(net).optimizer(torch.optim.Adam)
        plan = resolved(net, lr=0.7)
        net[2].bias = None
        before = snapshot(optimizer, net)
        with pytest.raises(nnlr.PlanMismatchError, match=r"lacks 1 .*: 2\.bias"):
            nnlr.regroup(optimizer, plan)
        unchanged(before, snapshot(optimizer, net))

    def test_lbfgs_is_refused(self):
        """Its history is one flat vector of the old parameters."""
        layer = nn.Linear(2, 1)
        optimizer = torch.optim.LBFGS(layer.parameters())
        with pytest.raises(nnlr.ConfigError, match="LBFGS keeps one flat history"):
            nnlr.regroup(optimizer, resolved(layer, weight_decay=0))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((None, None), "regroup needs a torch optimizer, got NoneType"),
            (
                (torch.optim.SGD([torch.ones(1)]), "plan"),
                "regroup needs a Plan, got str",
            ),
        ],
    )
    def test_other_things_are_refused(self, arguments, message):
        """The message says what it needs."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.regroup(*arguments)


def test_counters_in_tensors_go_on_in_each_group_by_itself():
    """Some classes count steps in a tensor of each group, in place."""

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                group.setdefault("step", torch.zeros(())).add_(1)
            return super().step(closure)

    net = network()
    optimizer = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.5), lr=0.1, weight_decay=0).optimizer(
        Counting
    )
    optimizer.step()
    optimizer.step()
    thirds = nnlr.rule("0.weight", lr_mult=0.5) * nnlr.rule("1.*", lr_mult=0.25)
    nnlr.regroup(optimizer, nnlr.resolve(net, thirds, lr=0.1, weight_decay=0))
    assert [2.0] * len(optimizer.param_groups) == [
        group["step"].item() for group in optimizer.param_groups
    ]
    optimizer.step()
    assert {3.0} == {group["step"].item() for group in optimizer.param_groups}
