"""One schedule moves the algorithms of a Mixed optimizer by one factor."""

import copy
import pickle
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr import keep_ratios, rate_summary, schedule
from nnlr._schedule.course_state import inventory
from tests.schedule.cases import BASE, STEPS, TORCH, advance, saved
from tests.schedule.test_courses import MAKERS

BASES = {"muon": BASE, "adamw": 0.3 * BASE}
CLASSES = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}
ADAMW = [nnlr.rule("*", algorithm="adamw").where(~nnlr.glob("*.weight"))]
SAMPLE = ["OneCycleLR-0", "CyclicLR-0", "ReduceLROnPlateau-1", "ChainedScheduler-0"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))


def mixed(model=None, *, bases=BASES, decay=0.1, classes=CLASSES, body=0.7, **settings):
    """Matrices to Muon, biases to AdamW; the body at another multiplier on both sides."""
    model = network() if model is None else model
    plan = nnlr.resolve(
        model,
        nnlr.rule("*.weight", algorithm="muon"),
        *ADAMW,
        nnlr.rule("0.*", lr_mult=body),
        lr=bases,
        weight_decay=decay,
    )
    return plan.optimizer(classes, **settings)


def by_hand():
    """The same multipliers in an optimizer of one class."""
    tensors = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [
        {"params": [tensor], "lr": BASE * mult, "lr_mult": mult}
        for tensor, mult in zip(tensors, (1.0, 0.7), strict=True)
    ]
    return torch.optim.SGD(groups, lr=BASE, momentum=0.9)


def stepped(scheduler, step=0):
    with warnings.catch_warnings(action="ignore"):
        scheduler.optimizer.step()
    advance(scheduler, step)


def rates(optimizer, algorithm, key="lr"):
    return [g[key] for g in optimizer.param_groups if g["algorithm"] == algorithm]


class TestOneFactor:
    """``base(t) * (base[algorithm] / base[reference]) * lr_mult``, exactly."""

    @pytest.mark.parametrize("name", SAMPLE)
    def test_a_sample(self, name):
        """Some that cycle, follow a metric or have a floor."""
        self.check(name)

    @pytest.mark.full
    @pytest.mark.parametrize("name", MAKERS)
    def test_every_scheduler(self, name):
        """Of torch and of transformers."""
        self.check(name)

    def check(self, name):
        """The reference's rates are those of one class, to the last bit; the rest follows."""
        plain, scheduler = MAKERS[name](by_hand()), MAKERS[name](mixed())
        for step in range(STEPS):
            stepped(plain, step)
            stepped(scheduler, step)
            assert plain.get_last_lr() == rates(scheduler.optimizer, "muon")
            ratio = BASES["adamw"] / BASES["muon"]
            expected = [plain.base_lr * ratio * mult for mult in (1.0, 0.7)]
            assert expected == rates(scheduler.optimizer, "adamw")
            assert scheduler.base_lr == plain.base_lr

    def test_no_scheduler_of_torch_is_left_out(self):
        """All but the base class."""
        assert len(TORCH) - 1 == len({name.rpartition("-")[0] for name in MAKERS} & TORCH.keys())

    def test_a_peak_speaks_of_the_reference(self):
        """The others are in proportion to it."""
        scheduler = schedule(mixed(), lrs.OneCycleLR, max_lr=10 * BASE, total_steps=10)
        peaks = [0.0, 0.0]
        for _ in range(9):
            stepped(scheduler)
            now = rates(scheduler.optimizer, "muon") + rates(scheduler.optimizer, "adamw")
            peaks = [max(peaks[0], now[0]), max(peaks[1], now[2])]
        assert peaks[1] / peaks[0] == pytest.approx(0.3)

    def test_weight_decay(self):
        """Likewise, also where the first algorithm has none."""
        optimizer = mixed(decay={"muon": 0.0, "adamw": 0.4})
        halve = partial(lrs.ExponentialLR, gamma=0.5)
        scheduler = schedule(optimizer, lrs.ConstantLR, factor=1.0, weight_decay=halve)
        stepped(scheduler)
        assert rates(optimizer, "muon", "weight_decay") == [0.0, 0.0]
        assert rates(optimizer, "adamw", "weight_decay") == [0.2, 0.2]
        with pytest.raises(nnlr.NnlrError, match=r"Every group .* weight_decay=0"):
            schedule(mixed(decay=0.0), lrs.ConstantLR, weight_decay=halve)

    def test_set_base_lr_and_multipliers(self):
        """The whole is scaled; a new multiplier is written at the next step."""
        scheduler = schedule(mixed(), lrs.ExponentialLR, gamma=0.5)
        scheduler.set_base_lr(2 * BASE)
        scheduler.optimizer.param_groups[-1]["lr_mult"] = 0.25
        stepped(scheduler)
        assert rates(scheduler.optimizer, "muon") == pytest.approx([BASE, 0.7 * BASE])
        assert rates(scheduler.optimizer, "adamw") == pytest.approx([0.3 * BASE, 0.075 * BASE])
        assert scheduler.base_lrs[0] == 2 * BASE
        assert scheduler.base_lrs[2] == pytest.approx(0.6 * BASE)

    def test_groups_without_multipliers(self):
        """Each algorithm's largest rate is its base."""
        tensors = [nn.Parameter(torch.ones(4, 4)) for _ in range(3)]
        pairs = zip(tensors, (0.02, 0.01, 3e-4), ("muon", "muon", "adamw"), strict=True)
        groups = [{"params": [t], "lr": lr, "algorithm": name} for t, lr, name in pairs]
        optimizer = nnlr.optim.Mixed(groups, CLASSES)
        scheduler = schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
        assert [g["lr_mult"] for g in optimizer.param_groups] == [1.0, 0.5, 1.0]
        stepped(scheduler)
        assert scheduler.get_last_lr() == [0.01, 0.005, 1.5e-4]
        late = {"params": [nn.Parameter(torch.ones(2))], "lr": 3e-4, "algorithm": "adamw"}
        optimizer.add_param_group(late)
        adopting = schedule(optimizer, lrs.ExponentialLR, gamma=0.5, adopt=True)
        stepped(adopting)
        assert optimizer.param_groups[-1]["lr_mult"] == 1.0

    def test_an_algorithm_without_multipliers(self):
        """Its groups are left alone, with one warning."""
        tensors = [nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
        pairs = zip(tensors, (0.02, 3e-4), ("muon", "adamw"), strict=True)
        groups = [{"params": [t], "lr": lr, "algorithm": name} for t, lr, name in pairs]
        groups[0]["lr_mult"] = 1.0
        optimizer = nnlr.optim.Mixed(groups, CLASSES)
        with pytest.warns(nnlr.NnlrWarning, match="1 of 2 groups have no 'lr_mult'"):
            scheduler = schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
        stepped(scheduler)
        assert scheduler.get_last_lr() == [0.01, 3e-4]


class TestCycles:
    """Each class has its own key."""

    def test_momentum_and_betas(self):
        """Both get what an optimizer of one class gets."""
        make = MAKERS["OneCycleLR-0"]
        plain, scheduler = make(by_hand()), make(mixed())
        for step in range(10):
            stepped(plain, step)
            stepped(scheduler, step)
            momentum = plain.optimizer.param_groups[0]["momentum"]
            assert rates(scheduler.optimizer, "muon", "momentum") == [momentum] * 2
            assert rates(scheduler.optimizer, "adamw", "betas") == [(momentum, 0.999)] * 2

    def test_the_next_schedule_gives_them_back(self):
        """As built, on both sides; and a state that is loaded puts them where they were."""
        optimizer = mixed()
        first = MAKERS["OneCycleLR-0"](optimizer)
        for step in range(5):
            stepped(first, step)
        state = copy.deepcopy(first.state_dict())
        values = rates(optimizer, "muon", "momentum"), rates(optimizer, "adamw", "betas")
        with warnings.catch_warnings(action="error"):
            stepped(schedule(optimizer, lrs.ConstantLR))
        assert rates(optimizer, "muon", "momentum") == [0.95] * 2
        assert rates(optimizer, "adamw", "betas") == [(0.9, 0.999)] * 2
        again = MAKERS["OneCycleLR-0"](optimizer)
        again.load_state_dict(state)
        assert values == (rates(optimizer, "muon", "momentum"), rates(optimizer, "adamw", "betas"))

    def test_a_class_with_neither(self):
        """It is named, with the ways out; nothing is changed."""
        classes = {"muon": torch.optim.Muon, "adamw": torch.optim.Adafactor}
        optimizer = mixed(classes=classes)
        with pytest.raises(nnlr.ConfigError, match=r"Adafactor has neither.*cycle_momentum=False"):
            schedule(optimizer, lrs.OneCycleLR, max_lr=1.0, total_steps=9)
        schedule(optimizer, lrs.OneCycleLR, max_lr=1.0, total_steps=9, cycle_momentum=False)
        alone = torch.optim.Adafactor(network().parameters())
        with pytest.raises(nnlr.ConfigError, match="Adafactor has neither"):
            schedule(alone, lrs.OneCycleLR, max_lr=1.0, total_steps=9)
        with pytest.raises(ValueError, match="total_steps"):  # the scheduler's own complaint
            schedule(optimizer, lrs.OneCycleLR, max_lr=1.0)


class TestCoursesOfTheirOwn:
    """Keys are names of algorithms."""

    def test_each_starts_at_its_own_base(self):
        """Absolute settings speak of that."""
        courses = {
            "muon": partial(lrs.CosineAnnealingLR, T_max=2, eta_min=0.1 * BASE),
            "adamw": partial(lrs.CosineAnnealingLR, T_max=2, eta_min=0.2 * BASE),
        }
        scheduler = schedule(mixed(), courses)
        assert rates(scheduler.optimizer, "adamw") == rates(mixed(), "adamw")
        for _ in range(2):
            stepped(scheduler)
        assert rates(scheduler.optimizer, "muon") == pytest.approx([0.1 * BASE, 0.07 * BASE])
        assert rates(scheduler.optimizer, "adamw") == pytest.approx([0.2 * BASE, 0.14 * BASE])
        assert scheduler.base_lr == pytest.approx(0.1 * BASE)

    def test_of_an_algorithm_that_trains_nothing_here(self):
        """As in a stage of a model; it begins where the others are, once there is something."""
        model = network()
        steps = partial(lrs.ExponentialLR, gamma=0.5)
        routes = nnlr.rule("*.weight", algorithm="muon"), *ADAMW
        plan = nnlr.resolve(model, *routes, lr=BASES, weight_decay=0)
        biases = {name: param for name, param in model.named_parameters() if "bias" in name}
        for courses in ({"muon": steps}, {"muon": steps, "adamw": None}):
            optimizer = plan.optimizer(CLASSES, model=biases, partial=True)
            assert set(optimizer.algorithms) == {"adamw"}
            scheduler = schedule(optimizer, courses)
            stepped(scheduler)
            assert rates(optimizer, "adamw") == [BASES["adamw"]]
        nnlr.regroup(optimizer, plan, model=model)
        assert rates(optimizer, "muon") == [0.5 * BASE]
        assert rates(optimizer, "adamw") == [BASES["adamw"]]
        with pytest.raises(nnlr.ConfigError, match="'sgd' matches no group"):
            schedule(optimizer, {"sgd": steps})

    def test_absolute_settings_where_the_reference_trains_nothing(self):
        """Each stage of a model takes the course of the whole, in proportion."""
        model = network()
        routes = nnlr.rule("*.weight", algorithm="muon"), *ADAMW
        plan = nnlr.resolve(model, *routes, lr=BASES, weight_decay=0)
        biases = {name: param for name, param in model.named_parameters() if "bias" in name}
        both = [
            plan.optimizer(CLASSES, resume=None),
            plan.optimizer(CLASSES, model=biases, partial=True, resume=None),
        ]
        whole, stage = (
            schedule(each, lrs.CosineAnnealingLR, T_max=4, eta_min=0.5 * BASE) for each in both
        )
        for step in range(3):
            stepped(whole, step)
            stepped(stage, step)
            assert rates(both[0], "adamw") == pytest.approx(rates(both[1], "adamw"))
        assert stage.state_dict()["lr"]["bases"] == whole.state_dict()["lr"]["bases"]
        nnlr.regroup(both[0], plan, model=biases, partial=True)
        stepped(whole, 3)
        stepped(stage, 3)
        assert whole.base_lr == pytest.approx(stage.base_lr)
        assert rates(both[0], "adamw") == pytest.approx(rates(both[1], "adamw"))
        other = torch.nn.Parameter(torch.ones(4, 4))
        pair = [("other.weight", other)] if "param_names" in both[1].param_groups[0] else [other]
        both[1].add_param_group({"params": pair, "algorithm": "muon", "lr": BASE, "lr_mult": 1.0})
        stepped(stage, 4)
        assert rates(both[1], "muon")[0] == pytest.approx(stage.base_lr)

    def test_classes_without_a_rate_that_train_nothing(self):
        """Nothing tells their base."""
        groups = [{"params": network()[0].bias, "algorithm": "adamw", "lr": BASE}]
        optimizer = nnlr.optim.Mixed(groups, CLASSES)
        stepped(schedule(optimizer, lrs.CosineAnnealingLR, T_max=2))
        assert [group["lr"] for group in optimizer.param_groups] == [0.5 * BASE]

    def test_names_with_the_signs_of_patterns(self):
        """A name matches itself."""
        model = network()
        plan = nnlr.resolve(model, nnlr.rule("*", algorithm="sgd[0]"), lr=BASE, weight_decay=0)
        optimizer = plan.optimizer({"sgd[0]": torch.optim.SGD})
        stepped(schedule(optimizer, {"sgd[0]": partial(lrs.ExponentialLR, gamma=0.5)}))
        assert rates(optimizer, "sgd[0]") == [0.5 * BASE]

    def test_each_cycles_its_own(self):
        """Betas here, nothing there."""
        cycle = partial(lrs.OneCycleLR, max_lr=BASE, total_steps=9)
        scheduler = schedule(mixed(), {"adamw": cycle})
        stepped(scheduler)
        assert rates(scheduler.optimizer, "muon", "momentum") == [0.95] * 2
        assert rates(scheduler.optimizer, "adamw", "betas")[0][0] != 0.9
        assert rates(scheduler.optimizer, "muon") == [BASE, 0.7 * BASE]

    def test_decay_of_one(self):
        """The other's stays, as does that of an algorithm without any."""
        optimizer = mixed(decay={"muon": 0.0, "adamw": 0.4})
        halve = partial(lrs.ExponentialLR, gamma=0.5)
        decay = {"adamw": halve, "muon": halve}
        stepped(schedule(optimizer, lrs.ConstantLR, factor=1.0, weight_decay=decay))
        assert rates(optimizer, "muon", "weight_decay") == [0.0, 0.0]
        assert rates(optimizer, "adamw", "weight_decay") == [0.2, 0.2]

    def test_resume_at_another_base_of_one(self):
        """Its course is the code's, run again; a floor stays where the code has it."""
        courses = {
            "muon": partial(lrs.CosineAnnealingLR, T_max=9),
            "adamw": partial(lrs.CosineAnnealingLR, T_max=9, eta_min=0.2 * BASE),
        }
        first = schedule(mixed(), courses)
        for _ in range(9):
            stepped(first)
        second = schedule(mixed(bases={**BASES, "adamw": 0.6 * BASE}), courses)
        second.load_state_dict(saved(first))
        assert rates(second.optimizer, "adamw") == pytest.approx([0.2 * BASE, 0.14 * BASE])


class TestTogether:
    """Beside and after another."""

    def test_beside(self):
        """Both courses multiply."""
        warm = schedule(mixed(), lrs.LinearLR, start_factor=0.5, total_iters=4)
        plateau = schedule(
            warm.optimizer, lrs.ReduceLROnPlateau, factor=0.5, patience=0, beside=warm
        )
        for _ in range(2):
            stepped(plateau)
        assert rates(warm.optimizer, "muon")[0] == pytest.approx(0.25 * BASE)
        assert rates(warm.optimizer, "adamw")[0] == pytest.approx(0.25 * 0.3 * BASE)

    @pytest.mark.parametrize("courses", [None, ["muon", "adamw"]])
    def test_after(self, courses):
        """It takes over from the reference's rate, for all by one factor."""
        first = partial(lrs.ExponentialLR, gamma=0.5)
        optimizer = mixed()
        earlier = schedule(optimizer, dict.fromkeys(courses, first) if courses else first)
        later = schedule(optimizer, lrs.ConstantLR, factor=0.5, total_iters=9, after=earlier)
        stepped(earlier)
        stepped(later)
        assert rates(optimizer, "muon")[0] == pytest.approx(0.25 * BASE)
        assert rates(optimizer, "adamw")[0] == pytest.approx(0.25 * 0.3 * BASE)


class TestKeeping:
    """State dicts, copies, other bases, other groups."""

    @pytest.mark.parametrize("name", SAMPLE)
    @pytest.mark.parametrize("how", ["state", "deepcopy", "pickle"])
    def test_goes_on(self, name, how):
        """As if it had not been interrupted."""
        model = network()
        first = MAKERS[name](mixed(model))
        for step in range(7):
            stepped(first, step)
        if how == "state":
            second = MAKERS[name](mixed(network()))
            states = saved(first), saved(first.optimizer)
            second.load_state_dict(states[0])
            second.optimizer.load_state_dict(states[1])
        elif name == "CyclicLR-0" and how == "pickle":
            return  # torch's own cannot
        else:
            copied = copy.deepcopy if how == "deepcopy" else lambda x: pickle.loads(pickle.dumps(x))
            second = copied(first)
        for step in range(7, 20):
            stepped(first, step)
            stepped(second, step)
            assert first.get_last_lr() == second.get_last_lr()
            for one, other in zip(
                first.optimizer.param_groups, second.optimizer.param_groups, strict=True
            ):
                assert one.get("betas", one.get("momentum")) == other.get(
                    "betas", other.get("momentum")
                )

    def test_other_bases(self):
        """Per algorithm the code's, in proportion, in either order of loading."""
        first = schedule(mixed(), lrs.ExponentialLR, gamma=0.5)
        for _ in range(3):
            stepped(first)
        states = saved(first), saved(first.optimizer)
        for order in (1, -1):
            bases = {"muon": 4 * BASE, "adamw": 0.8 * BASE}
            second = schedule(mixed(bases=bases), lrs.ExponentialLR, gamma=0.5)
            with warnings.catch_warnings(action="ignore"):
                for target, state in [*zip((second, second.optimizer), states, strict=True)][
                    ::order
                ]:
                    target.load_state_dict(state)
            stepped(second)
            assert rates(second.optimizer, "muon") == pytest.approx([0.25 * BASE, 0.175 * BASE])
            assert rates(second.optimizer, "adamw") == pytest.approx([0.05 * BASE, 0.035 * BASE])

    def test_the_checkpoints_bases(self):
        """Where those count, they are in the schedule's state."""
        first = schedule(mixed(resume="checkpoint"), lrs.ExponentialLR, gamma=0.5)
        stepped(first)
        bases = {"muon": 4 * BASE, "adamw": 0.8 * BASE}
        second = schedule(mixed(bases=bases, resume="checkpoint"), lrs.ExponentialLR, gamma=0.5)
        second.load_state_dict(saved(first))
        assert first.get_last_lr() == second.get_last_lr()

    def test_a_torn_state(self):
        """Bases are numbers by name."""
        scheduler = schedule(mixed(), lrs.ExponentialLR, gamma=0.5)
        for bases, words in (([1.0], "not a dictionary"), ({"adamw": "x"}, "the base of 'adamw'")):
            state = copy.deepcopy(scheduler.state_dict())
            state["lr"]["bases"] = bases
            with pytest.raises(nnlr.ConfigError, match="is missing: it is torn"):
                scheduler.load_state_dict(state)
            state["lr"]["keys"] = inventory({k: v for k, v in state["lr"].items() if k != "keys"})
            with pytest.raises(nnlr.ConfigError, match=words):
                scheduler.load_state_dict(state)

    def test_the_state_of_one_class(self):
        """Its position goes on; each algorithm's base is the code's."""
        first = schedule(by_hand(), lrs.ExponentialLR, gamma=0.5)
        stepped(first)
        second = schedule(mixed(), lrs.ExponentialLR, gamma=0.5)
        second.load_state_dict(saved(first))
        assert rates(second.optimizer, "adamw")[0] == 0.5 * 0.3 * BASE


class TestOthersSchedulers:
    """keep_ratios holds the ratios within each algorithm and between them."""

    @pytest.mark.parametrize(
        ("cls", "settings"),
        [
            (lrs.CosineAnnealingLR, {"T_max": 4, "eta_min": 1e-4}),
            (lrs.CyclicLR, {"base_lr": 1e-4, "max_lr": 1e-2, "cycle_momentum": False}),
        ],
    )
    def test_a_floor_or_a_peak(self, cls, settings):
        """The reference is right, and the rest follows."""
        optimizer = mixed()
        keep_ratios(optimizer)
        scheduler = cls(optimizer, **settings)
        for _ in range(4):
            with warnings.catch_warnings(action="ignore"):
                optimizer.step()
                scheduler.step()
                optimizer.step()
            reference = rates(optimizer, "muon")[0]
            assert rates(optimizer, "muon")[1] == pytest.approx(0.7 * reference)
            assert rates(optimizer, "adamw") == pytest.approx([0.3 * reference, 0.21 * reference])

    def test_one_rate_for_all(self):
        """As a finder writes it; groups that are added later follow their algorithm."""
        optimizer = mixed()
        keep_ratios(optimizer)
        late = {"params": [("late", nn.Parameter(torch.ones(2)))], "lr_mult": 0.5, "lr": 1.0}
        optimizer.add_param_group({**late, "algorithm": "adamw"})
        for group in optimizer.param_groups:
            group["lr"] = 0.5
        with pytest.warns(nnlr.NnlrWarning, match="ratios between groups were lost"):
            optimizer.step()
        assert rates(optimizer, "muon") == pytest.approx([0.5, 0.35])
        assert rates(optimizer, "adamw") == pytest.approx([0.15, 0.105, 0.075])

    def test_in_proportion_nothing_is_said(self):
        """A plain scheduler without a floor keeps the ratios by itself."""
        optimizer = mixed()
        keep_ratios(optimizer)
        scheduler = lrs.ExponentialLR(optimizer, 0.5)
        with warnings.catch_warnings(action="error"):
            for _ in range(3):
                optimizer.step()
                scheduler.step()

    def test_built_by_hand(self):
        """With multipliers of each algorithm's own rate."""
        tensors = [nn.Parameter(torch.ones(4, 4)) for _ in range(3)]
        triples = zip(tensors, (0.02, 0.01, 3e-4), (1.0, 0.5, 1.0), strict=True)
        groups = [{"params": [t], "lr": lr, "lr_mult": mult} for t, lr, mult in triples]
        for group, name in zip(groups, ("muon", "muon", "adamw"), strict=True):
            group["algorithm"] = name
        optimizer = nnlr.optim.Mixed(groups, CLASSES)
        keep_ratios(optimizer)
        optimizer.param_groups[0]["lr"] = 0.2
        with pytest.warns(nnlr.NnlrWarning, match="lost"):
            optimizer.step()
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.2, 0.1, 3e-3])

    def test_rate_summary(self):
        """The first algorithm's rate is the reference, whatever its multipliers are."""
        optimizer = mixed(body=4.0)
        assert rate_summary(optimizer) == {
            "lr": BASE,
            "lr_min": pytest.approx(0.3 * BASE),
            "lr_max": 4 * BASE,
            "lr_muon": BASE,
            "lr_adamw": pytest.approx(0.3 * BASE),
        }
