"""Plans for timm's optimizers and schedulers: multipliers apart, ratios held, once."""

import inspect
import re

import pytest
import torch
from torch import nn

import nnlr
from tests.helpers import same_weights

timm = pytest.importorskip("timm")
optim = pytest.importorskip("timm.optim")
scheduler_of = pytest.importorskip("timm.scheduler").create_scheduler_v2

BASE, DECAY, EPOCHS = 0.1, 0.01, 8
SCHEME = nnlr.rule("body.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
param_group_fn, to_timm = (
    nnlr.integrations.timm.param_group_fn,
    nnlr.integrations.timm.to_timm,
)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def loss_of(model, step):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return (model(x).squeeze(-1) - x.sum(-1)).square().mean()


def built(model, name="adamw", scheme=SCHEME, **settings):
    """The optimizer of timm on the groups of a scheme."""
    groups = param_group_fn(scheme, lr=BASE, weight_decay=DECAY)
    return optim.create_optimizer_v2(
        model, name, lr=BASE, weight_decay=DECAY, param_group_fn=groups, **settings
    )


# A floor, a warm-up that starts low, and noise: what writes absolute rates.
SETTINGS = {
    "num_epochs": EPOCHS,
    "min_lr": 0.03,
    "warmup_lr": 1e-3,
    "warmup_epochs": 3,
    "decay_epochs": 2,
    "decay_milestones": [4, 6],
    "noise": [0.5],
}
UPDATES = {"step_on_epochs": False, "updates_per_epoch": 1}
# Every name that the source compares with; `none` is no schedule.
COMPARED = re.findall(r"sched (?:==|in) (\(.*?\)|'\w+')", inspect.getsource(scheduler_of))
NAMES = sorted(set(re.findall(r"\w+", " ".join(COMPARED))) - {"none"})
# timm says of this one that it is on its way out.
DEPRECATED = pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated")


def test_the_names_of_schedules_are_those_of_the_source():
    """The list is read from the code; were that written otherwise, it would be empty."""
    assert {"cosine", "tanh", "poly", "step", "plateau"} <= set(NAMES)
    for name in set(NAMES) - {"plateau"}:
        assert scheduler_of(built(Tiny()), name, **SETTINGS)[0] is not None


def step_of(scheduler, update):
    """One more epoch, or update."""
    return scheduler.step_update if update else scheduler.step


def by_hand(name, **settings):
    """One rate from timm's schedule, multiplied into four groups of torch."""
    model = Tiny()
    groups = [
        {"params": [model.head.weight], "mult": 1.0, "weight_decay": DECAY},
        {"params": [model.head.bias], "mult": 1.0, "weight_decay": 0.0},
        {"params": [model.body.weight], "mult": 0.1, "weight_decay": DECAY},
        {"params": [model.body.bias], "mult": 0.1, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=BASE)
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler, _ = scheduler_of(one, name, **settings)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = one.param_groups[0]["lr"] * group["mult"]
        loss_of(model, epoch).backward()
        optimizer.step()
        optimizer.zero_grad()
        step_of(scheduler, "updates_per_epoch" in settings)(epoch + 1, 1.0)
    return model


def train(model, optimizer, scheduler, epochs, *, update=False):
    """Returns the ratios between the body's and the head's rate."""
    ratios = []
    for epoch in epochs:
        rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        ratios.append(rates[id(model.body.weight)] / rates[id(model.head.weight)])
        loss_of(model, epoch).backward()
        optimizer.step()
        optimizer.zero_grad()
        step_of(scheduler, update)(epoch + 1, 1.0)
    return ratios


class TestSchedules:
    @pytest.mark.parametrize("updates", [{}, UPDATES], ids=["epochs", "updates"])
    @pytest.mark.parametrize("name", [n for n in NAMES if n != "plateau"])
    def test_ratios_hold_and_training_is_as_by_hand(self, name, updates):
        """With a floor, a warm-up and noise; bit for bit."""
        model = Tiny()
        optimizer = built(model)
        scheduler, _ = scheduler_of(optimizer, name, **SETTINGS, **updates)
        ratios = train(model, optimizer, scheduler, range(EPOCHS), update=bool(updates))
        assert [pytest.approx(0.1)] * EPOCHS == ratios
        assert same_weights(by_hand(name, **SETTINGS, **updates), model)

    @DEPRECATED
    @pytest.mark.parametrize(("floor", "lost"), [(0.0, False), (0.03, True)])
    def test_plateau_knows_no_multiplier_after_the_warmup(self, floor, lost):
        """It multiplies the rates that it finds, and clamps all of them at one floor."""
        model = Tiny()
        optimizer = built(model)
        settings = {**SETTINGS, "min_lr": floor, "noise": None, "patience_epochs": 0}
        scheduler, _ = scheduler_of(optimizer, "plateau", **settings)
        ratios = train(model, optimizer, scheduler, range(EPOCHS))
        assert [pytest.approx(0.1)] * 4 == ratios[:4]
        assert lost == (ratios[-1] > 0.3)

    @DEPRECATED
    @pytest.mark.parametrize("name", NAMES)
    def test_nnlr_schedule_takes_every_schedule_of_timm(self, name):
        """On groups of plan.optimizer: plateau too, and the floor is the base rate's."""
        settings = {**SETTINGS, "patience_epochs": 0}
        model = Tiny()
        plan = nnlr.resolve(model, SCHEME, lr=BASE, weight_decay=DECAY)
        optimizer = plan.optimizer(torch.optim.AdamW)
        scheduler = nnlr.schedule(optimizer, lambda base: scheduler_of(base, name, **settings)[0])
        ratios = train(model, optimizer, scheduler, range(EPOCHS))
        assert [pytest.approx(0.1)] * EPOCHS == ratios
        assert same_weights(by_hand(name, **settings), model)

    def test_nnlr_schedule_follows_updates_too(self):
        """The second way to step in timm: once for every update of the weights."""
        model = Tiny()
        plan = nnlr.resolve(model, SCHEME, lr=BASE, weight_decay=DECAY)
        optimizer = plan.optimizer(torch.optim.AdamW)
        settings = {**SETTINGS, **UPDATES}
        scheduler = nnlr.schedule(
            optimizer, lambda base: scheduler_of(base, "cosine", **settings)[0]
        )
        train(model, optimizer, scheduler, range(EPOCHS), update=True)
        assert same_weights(by_hand("cosine", **settings), model)

    def test_without_a_schedule_of_timm_multipliers_do_nothing(self):
        """What the documentation warns of: `sched="none"`, and schedules of others."""
        optimizer = built(Tiny())
        assert scheduler_of(optimizer, "none")[0] is None
        assert {BASE} == {group["lr"] for group in optimizer.param_groups}

    @pytest.mark.parametrize("name", ["cosine", "wsd"])
    def test_it_resumes(self, name):
        """As timm's script does: the optimizer's state, and the schedule by its count."""
        whole, model = Tiny(), Tiny()
        optimizer = built(whole)
        scheduler, _ = scheduler_of(optimizer, name, **SETTINGS)
        train(whole, optimizer, scheduler, range(EPOCHS))
        optimizer = built(model)
        scheduler, _ = scheduler_of(optimizer, name, **SETTINGS)
        train(model, optimizer, scheduler, range(4))
        state, again = optimizer.state_dict(), Tiny()
        again.load_state_dict(model.state_dict())
        optimizer = built(again)
        optimizer.load_state_dict(state)
        scheduler, _ = scheduler_of(optimizer, name, **SETTINGS)
        scheduler.step(4)
        train(again, optimizer, scheduler, range(4, EPOCHS))
        assert same_weights(whole, again)


# They need a GPU, whatever groups they are given.
GPU = ("bnb", "fused")


class TestGroups:
    @pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
    @pytest.mark.parametrize("name", optim.list_optimizers())
    @pytest.mark.no_cover
    def test_every_optimizer_of_timm_holds_them(self, name):
        """Rates and multipliers are in its groups as they were given."""
        model = Tiny()
        if name.startswith(GPU) and not torch.cuda.is_available():
            with pytest.raises(AssertionError, match="CUDA required"):
                built(model, name)
            return
        optimizer = built(model, name)
        found = {
            id(p): (g["lr"], g["lr_scale"], g["weight_decay"])
            for g in optimizer.param_groups
            for p in g["params"]
        }
        expected = {
            id(model.head.weight): (BASE, 1.0, DECAY),
            id(model.head.bias): (BASE, 1.0, 0.0),
            id(model.body.weight): (BASE, 0.1, DECAY),
            id(model.body.bias): (BASE, 0.1, 0.0),
        }
        assert expected == found

    @pytest.mark.parametrize(
        "name",
        ["vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224",
         "resnet18", "beit_base_patch16_224", "deit3_small_patch16_224"],
    )  # fmt: skip
    @pytest.mark.no_cover
    def test_layer_decay_is_that_of_timm(self, name):
        """`create_optimizer_v2(layer_decay=)`: the same rate, scale and decay for each tensor."""
        with torch.device("meta"):
            model = timm.create_model(name)
        theirs = optim.create_optimizer_v2(
            model, "adamw", lr=BASE, weight_decay=DECAY, layer_decay=0.75
        )
        scheme = nnlr.layer_decay(0.75, "timm") * nnlr.no_weight_decay("timm_layer_decay")
        ours = built(model, scheme=scheme)
        sides = [
            {
                id(p): (g["lr"], g["lr_scale"], g["weight_decay"])
                for g in optimizer.param_groups
                for p in g["params"]
            }
            for optimizer in (theirs, ours)
        ]
        assert sides[0] == sides[1]
        assert len({scale for _, scale, _ in sides[0].values()}) > 3

    def test_neither_multiplier_of_nnlr_is_left(self):
        """With both, a multiplier would count twice."""
        model = Tiny()
        plan = nnlr.resolve(model, SCHEME, lr=BASE, weight_decay=DECAY)
        groups = to_timm(plan)
        keys = {"params", "lr", "lr_scale", "weight_decay", "name"}
        assert [keys] * len(groups) == [set(group) for group in groups]

    def test_arguments_are_those_of_param_groups(self):
        """Plain tensors, kept zeros, options of rules, another model."""
        model, other = Tiny(), Tiny()
        scheme = nnlr.rule("head.*", options={"betas": (0.5, 0.6)})
        scheme *= nnlr.rule("body.*", lr_mult=0)
        plan = nnlr.resolve(model, scheme, lr=BASE, weight_decay=DECAY)
        first, kept = to_timm(plan, other, names=False, locked="keep")
        assert (0.5, 0.6) == first["betas"]
        assert [other.head.weight, other.head.bias] == first["params"]
        assert (BASE, 0.0) == (kept["lr"], kept["lr_scale"])
        assert all(p.requires_grad for p in other.parameters())
        (only,) = to_timm(plan, other)
        assert {"head.weight", "head.bias"} == {name for name, _ in only["params"]}
        assert not other.body.weight.requires_grad

    def test_groups_of_a_plan_go_in_place_of_the_model(self):
        """`create_optimizer_v2` takes groups as they are."""
        model = Tiny()
        plan = nnlr.resolve(model, SCHEME, lr=BASE, weight_decay=DECAY)
        made = optim.create_optimizer_v2(to_timm(plan), "adamw", lr=BASE, weight_decay=DECAY)
        expected = built(model).param_groups
        for one, other in zip(expected, made.param_groups, strict=True):
            assert {*map(id, one["params"])} == {*map(id, other["params"])}
            for key in ("lr", "lr_scale", "weight_decay", "name"):
                assert one[key] == other[key]

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"lr": "1e-3"}, r"lr must be a finite number > 0, got '1e-3' \(str\)"),
            ({"weight_decay": -1}, "weight_decay must be"),
        ],
    )
    def test_wrong_rates_are_refused_where_they_are_given(self, wrong, said):
        """And not from deep inside timm."""
        with pytest.raises(nnlr.NnlrError, match=said):
            param_group_fn(SCHEME, **{"lr": BASE, "weight_decay": DECAY, **wrong})

    def test_plans_and_schemes_are_not_taken_for_each_other(self):
        """Each error says what to write."""
        plan = nnlr.resolve(Tiny(), SCHEME, lr=BASE, weight_decay=DECAY)
        with pytest.raises(nnlr.NnlrError, match=r"lambda model: to_timm\(plan, model"):
            param_group_fn(plan, lr=BASE, weight_decay=DECAY)
        with pytest.raises(nnlr.NnlrError, match="one by one"):
            param_group_fn([SCHEME], lr=BASE, weight_decay=DECAY)
        with pytest.raises(nnlr.NnlrError, match=r"needs a plan, .*nnlr\.resolve\(model"):
            to_timm(SCHEME)

    def test_arguments_of_resolve(self):
        """The function for timm takes them all."""
        groups = param_group_fn(
            nnlr.rule("head.*", lr_mult=0.5),
            lr=BASE,
            weight_decay=DECAY,
            decay="independent",
            roles={"body.bias": "scalar"},
            tied={},
            names=False,
        )(Tiny())
        assert {1.0: DECAY, 0.5: 2 * DECAY} == {
            group["lr_scale"]: group["weight_decay"] for group in groups
        }
