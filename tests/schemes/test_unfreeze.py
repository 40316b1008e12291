"""Phases of training: what is trained from when, how fast, and what the rest does meanwhile."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr.errors import CoverageError, NnlrError, NnlrWarning, PatternError
from nnlr.testing import SchemeLaws

HEAD_FIRST = [{"train": "3.*"}, {"train": "*", "epoch": 1}]


@pytest.mark.no_cover
class TestUnfreezeLaws(SchemeLaws):
    def schemes(self):
        phases = [{"train": "*weight"}, {"train": "*", "step": 2, "lr_mult": 0.5, "earlier": 0}]
        return [nnlr.unfreeze(phases, restore_best=True)]


def stack(n=4):
    """N linear layers in a row."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))


def batch_normed():
    """Convolution, batch norm, and a head; the norm in the middle has no parameters."""
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2, affine=False))
    return nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), bare, nn.Conv1d(2, 2, 1))


def attached(net, scheme, *, lr=1.0, total_steps=None, cls=torch.optim.Adam):
    """The plan's optimizer, with its moves at work."""
    plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=0)
    optimizer = plan.optimizer(cls)
    return optimizer, nnlr.attach(optimizer, plan, total_steps=total_steps)


def rates(optimizer):
    """The rate of each parameter."""
    return {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}


def of_layers(optimizer, n=4):
    """The rate of each layer's weight, in order."""
    by_name = rates(optimizer)
    return [by_name[f"{layer}.weight"] for layer in range(n)]


def step(net, optimizer, at=0, width=2):
    """A step on data that depend on a number."""
    torch.manual_seed(at)
    optimizer.zero_grad()
    net(torch.randn(4, width)).square().sum().backward()
    optimizer.step()


def test_phases_begin_at_the_ends_of_epochs_and_what_waits_has_no_gradient_and_no_state():
    """The groups are there from the start; before its phase a layer costs nothing."""
    net = stack()
    phases = [{"train": -1}, {"train": [-2, "1.bias"], "epoch": 1, "lr_mult": 0.5}]
    phases.append({"train": "*", "epoch": 3, "lr": 0.125, "earlier": 0.25})
    optimizer, run = attached(net, nnlr.unfreeze(phases, groups="auto"))
    groups = [id(group) for group in optimizer.param_groups]
    seen = []
    for epoch in range(4):
        step(net, optimizer, epoch)
        seen.append(of_layers(optimizer))
        assert [rate > 0 for rate in seen[-1]] == [
            p.requires_grad for p in list(net.parameters())[::2]
        ]
        assert all((param in optimizer.state) == param.requires_grad for param in net.parameters())
        run.end_epoch()
    assert [[0, 0, 0, 1], [0, 0, 0.5, 1], [0, 0, 0.5, 1], [0.125, 0.125, 0.125, 0.25]] == seen
    assert groups == [id(group) for group in optimizer.param_groups]


def test_a_phase_begins_by_steps_or_by_a_part_of_the_run_and_warms_up():
    """The rate rises over the steps since the phase began, in equal parts."""
    net = stack(3)
    phases = [
        {"train": "2.*", "warmup": 2},
        {"train": "1.*", "step": 2, "warmup": 4},
        {"train": "0.*", "fraction": 0.5},
    ]
    optimizer, _ = attached(net, nnlr.unfreeze(phases), total_steps=10)
    seen = []
    for at in range(7):
        seen.append(of_layers(optimizer, 3))
        step(net, optimizer, at)
    first, second, third = zip(*seen, strict=True)
    assert (0.5, *[1.0] * 6) == third
    assert (0, 0, 0.25, 0.5, 0.75, 1, 1) == second
    assert (0, 0, 0, 0, 0, 1, 1) == first


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_phase_begins_when_the_metric_stalls_or_at_its_epoch(mode):
    """Less than min_delta is no progress; the counter starts again with each phase."""
    phases = [{"train": "2.*"}, {"train": "1.*", "epoch": 9}, {"train": "0.*", "epoch": 7}]
    phases[1]["epoch"], phases[2]["epoch"] = 6, 7
    scheme = nnlr.unfreeze(phases, patience=2, min_delta=0.1, mode=mode)
    optimizer, run = attached(stack(3), scheme)
    opened = []
    for metric in (1.0, 0.8, 0.75, 0.74, 0.5, 0.6, None, 0.3):
        sign = -1 if mode == "max" else 1
        run.end_epoch(None if metric is None else sign * metric)
        opened.append(sum(rate > 0 for rate in of_layers(optimizer, 3)))
    assert [1, 1, 1, 2, 2, 2, 3, 3] == opened  # stalled at 0.74; at epoch 7 whatever the metric is


def test_at_most_one_phase_begins_at_the_end_of_an_epoch():
    """As in finetuning-scheduler, a phase that is late does not swallow the next."""
    phases = [{"train": "2.*"}, {"train": "1.*", "patience": 1}, {"train": "0.*", "epoch": 1}]
    optimizer, run = attached(stack(3), nnlr.unfreeze(phases))
    opened = []
    for metric in (1.0, 1.0, 1.0):
        run.end_epoch(metric)
        opened.append(sum(rate > 0 for rate in of_layers(optimizer, 3)))
    assert [1, 2, 3] == opened


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (nnlr.unfreeze("ulmfit", "auto"), [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]),
        (
            nnlr.unfreeze("ulmfit", ["[01].*", "2.*", "3.*"], epochs=2),
            [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]],
        ),
        (nnlr.unfreeze("lp_ft", "auto", epochs=2), [[0, 0, 0, 1]] * 2 + [[0.1] * 4]),
        (
            nnlr.unfreeze("fine_tune", "auto")
            * nnlr.discriminative(groups="auto", lr_mults=slice(0.001, 1)),
            [[0, 0, 0, 1], [0.0005, 0.005, 0.05, 0.5]],
        ),
    ],
)
def test_published_orders(scheme, expected):
    """ULMFiT opens one group more each epoch; the others the last, then everything."""
    optimizer, run = attached(stack(), scheme)
    for layers in expected:
        assert pytest.approx(layers) == of_layers(optimizer)
        run.end_epoch()


def test_ulmfits_order_takes_towers_side_by_side():
    """A tower with fewer groups is open earlier."""
    net = nn.ModuleDict({"a": stack(3), "b": stack(2)})

    class Towers(nnlr.depth.Indexer):
        def layers(self, model):
            lasts = {"a": 2, "b": 1}
            names = [param.name.split(".") for param in model.params]
            return [nnlr.depth.Layer(int(at), lasts[tower], tower) for tower, at, _ in names]

    scheme = nnlr.unfreeze("ulmfit", Towers())
    optimizer, run = attached(net, scheme)
    opened = []
    for _ in range(3):
        opened.append(
            sorted(name[:3] for name, rate in rates(optimizer).items() if rate and "bias" in name)
        )
        run.end_epoch()
    assert [["a.2", "b.1"], ["a.1", "a.2", "b.0", "b.1"]] == opened[:2]
    assert 5 == len(opened[2])


def test_each_parameter_has_the_factor_of_its_phase():
    """What is in none has a neutral one."""
    phases = [{"train": "3.*"}, {"train": "2.*", "step": 1, "lr_mult": 0.5}]
    model = describe(stack())
    factors = nnlr.unfreeze(phases, rest="trained").factors(model)
    assert [1, 1, 0.5, 1] == [factor.lr_mult for factor in factors[::2]]
    assert nnlr.Factor() == factors[0]


def test_generated_phases_are_pairs_from_the_last_parameter_on():
    """finetuning-scheduler's order, with one parameter left over."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), nn.Linear(2, 2))
    plan = nnlr.resolve(net, nnlr.unfreeze("finetuning_scheduler"), lr=1, weight_decay=0)
    assert {1: ["2.weight", "2.bias"], 1e-5: ["0.weight", "1.weight", "1.bias"]} == {
        lr: [row.name for row in plan if row.lr == lr] for lr in (1, 1e-5)
    }
    assert "phase 2" in plan["0.weight"].trace[0].source


def test_kept_norms_are_trained_from_the_start_at_the_rate_of_their_part():
    """And what makes earlier parts slower counts for them from there on."""
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    phases = [{"train": "2.*"}, {"train": "1.*", "epoch": 1, "lr_mult": 0.5, "warmup": 9}]
    phases.append({"train": "0.*", "epoch": 2, "earlier": 0.5})
    optimizer, run = attached(net, nnlr.unfreeze(phases, keep=nnlr.role("norm")))
    seen = []
    for _ in range(3):
        seen.append(of_layers(optimizer, 3))
        run.end_epoch()
    assert [[0, 0.5, 1], [0, 0.5, 1], [1, 0.25, 0.5]] == seen


@pytest.mark.parametrize(("rest", "rate"), [("frozen", None), ("trained", 1)])
def test_parameters_in_no_phase_are_frozen_or_trained_if_that_is_said(rest, rate):
    """Nothing is left to chance: without a word they are an error."""
    phases = [{"train": "3.*"}, {"train": "2.*", "epoch": 1}]
    optimizer, _ = attached(stack(), nnlr.unfreeze(phases, rest=rest))
    assert rate == rates(optimizer).get("0.weight")
    with pytest.raises(
        CoverageError, match=r"4 trainable parameters of Sequential are in no phase"
    ):
        nnlr.resolve(stack(), nnlr.unfreeze(phases), lr=1, weight_decay=0)


def statistics(net, *, train=True):
    """How often a forward in train mode has changed each running mean."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d)]
    before = [norm.running_mean.clone() for norm in norms]
    net.train(train)
    net(torch.randn(4, 1, 3))
    return [
        not torch.equal(old, norm.running_mean) for old, norm in zip(before, norms, strict=True)
    ]


def test_running_statistics_stand_still_until_a_norm_is_trained():
    """However often train() is called; one without parameters goes with what is around it."""
    net = batch_normed()
    phases = [{"train": "3.*"}, {"train": "2.*", "epoch": 1}, {"train": "*", "epoch": 2}]
    _, run = attached(net, nnlr.unfreeze(phases))
    assert [False, False] == statistics(net)
    assert net[1].training
    copied = pickle.loads(pickle.dumps(copy.deepcopy(net)))
    assert [False, False] == statistics(copied)
    run.end_epoch()
    assert [False, True] == statistics(net)
    run.end_epoch()
    assert [True, True] == statistics(net)
    assert [False, False] == statistics(net, train=False)


def test_running_statistics_run_on_if_that_is_said():
    """batch_norm='train' is what a frozen BatchNorm does by itself in torch."""
    net = batch_normed()
    attached(net, nnlr.unfreeze([{"train": "3.*"}, {"train": "*", "epoch": 1}], batch_norm="train"))
    assert [True, True] == statistics(net)


def test_the_best_weights_are_restored_when_a_phase_begins():
    """Of all that phases train, and buffers; not where the last epoch was the best."""
    net = batch_normed()
    scheme = nnlr.unfreeze([{"train": "[13].*"}, {"train": "*", "epoch": 3}], restore_best=True)
    optimizer, run = attached(net, scheme)
    states = []
    for epoch, metric in enumerate((1.0, 0.5, 0.7)):
        torch.manual_seed(epoch)
        net(torch.randn(4, 1, 3)).square().sum().backward()
        optimizer.step()
        states.append(copy.deepcopy(net.state_dict()))
        run.end_epoch(metric)
    assert all(torch.equal(value, states[1][key]) for key, value in net.state_dict().items())
    assert not all(torch.equal(value, states[2][key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("later", [{"epoch": 2}, {"step": 2}])
def test_what_was_trained_since_the_best_epoch_is_undone_though_no_metric_followed(later):
    """Where not each epoch is measured, or a phase begins within one; the rest goes along."""
    net = stack()
    phases = [{"train": "3.*"}, {"train": "2.*", **later, "earlier": 0.5}]
    optimizer, run = attached(net, nnlr.unfreeze(phases, rest="trained", restore_best=True))
    step(net, optimizer)
    run.end_epoch(1.0)
    best = copy.deepcopy(net.state_dict())
    step(net, optimizer, 1)
    run.end_epoch()
    assert all(torch.equal(value, best[name]) for name, value in net.state_dict().items())
    assert [1, 1, 1, 0.5] == of_layers(optimizer)


def test_restoring_follows_bare_tensors_and_phases_by_steps():
    """Tensors without a module have no buffers; a phase by steps restores as well."""
    tensors = {"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(2))}
    phases = [{"train": "a"}, {"train": "b", "step": 2}]
    plan = nnlr.resolve(tensors, nnlr.unfreeze(phases, restore_best=True), lr=0.1, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.SGD)
    run = nnlr.attach(optimizer, plan)
    for metric in (1.0, 2.0):
        run.end_epoch(metric)
        tensors["a"].grad = torch.ones(2)
        optimizer.step()
    assert tensors["a"].tolist() == [1, 1]


def resumable(scheme, *, lr=0.1):
    """A network, its attached optimizer and a schedule."""
    net = stack()
    optimizer, run = attached(net, scheme, lr=lr, cls=torch.optim.AdamW)
    schedule = nnlr.schedule(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR, T_max=40)
    return net, optimizer, schedule, run


def go_on(parts, steps, metrics):
    """Steps on data that depend on the step, three to an epoch."""
    net, optimizer, schedule, run = parts
    for _ in range(steps):
        at = run.progress.step
        step(net, optimizer, at)
        schedule.step()
        if at % 3 == 2:
            run.end_epoch(metrics[run.progress.epoch])


@pytest.mark.parametrize("at", [16, *[pytest.param(n, marks=pytest.mark.full) for n in (7, 12)]])
def test_a_resumed_run_goes_on_to_the_last_bit(at):
    """In the middle of a warm-up, of patience, and with the best weights of another epoch."""
    phases = [{"train": "3.*"}, {"train": "2.*", "epoch": 2, "warmup": 4, "earlier": 0.5}]
    phases.append({"train": "*", "patience": 2, "warmup": 5})
    scheme = nnlr.unfreeze(phases, restore_best=True)
    metrics = [1.0, 0.9, 0.8, 0.85, 0.86, 0.7, 0.6]
    whole = resumable(scheme)
    go_on(whole, at, metrics)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in whole[:3]], file)
    go_on(whole, 20 - at, metrics)
    resumed = resumable(scheme)
    file.seek(0)
    for part, state in zip(resumed[:3], torch.load(file), strict=True):
        part.load_state_dict(state)
    go_on(resumed, 20 - at, metrics)
    assert whole[3].progress.epoch == resumed[3].progress.epoch == 6
    assert rates(whole[1]) == rates(resumed[1])
    for one, other in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_sharded_weights_are_not_restored():
    """Each process would save its part in the place of all."""
    net = stack(2)
    net[0].weight.device_mesh = "as a DTensor has it"
    scheme = nnlr.unfreeze([{"train": "1.*"}, {"train": "*", "epoch": 1}], restore_best=True)
    with pytest.raises(nnlr.ConfigError, match=r"restore_best=True .* 0.weight are sharded"):
        attached(net, scheme)


@pytest.mark.parametrize(
    ("phases", "settings", "message"),
    [
        ("ulmfti", {}, r"phases must be one of .*; got 'ulmfti'. Nearest: 'ulmfit'"),
        ({"train": "*"}, {}, "needs a list of phases, or one of 'ulmfit', "),
        ([{"train": "*"}], {}, "at least two phases"),
        (["3.*", "2.*"], {}, r"phases\[0\] must be a mapping such as {'train': 'head.\*'}"),
        ([{"train": "3.*"}, "2.*"], {}, r"phases\[1\] must be a mapping .* 'epoch': 2"),
        ([{"train": "3.*"}, {"trian": "*"}], {}, r"no setting 'trian'. Nearest: 'train'"),
        ([{"train": "3.*"}, {"epoch": 1}], {}, r"phases\[1\] does not say what it trains"),
        ([{"train": "3.*"}, {"train": [], "epoch": 1}], {}, "is an empty list"),
        ([{"train": "3.*"}, {"train": "*"}], {}, r"phases\[1\] does not say when it begins"),
        ([{"train": "3.*", "epoch": 1}, {"train": "*"}], {}, r"phases\[0\] begins with training"),
        ([{"train": "3.*", "earlier": 1}, {"train": "*", "epoch": 1}], {}, "has no earlier phases"),
        ([{"train": "3.*"}, {"train": "*", "epoch": 0}], {}, r"epoch of phases\[1\] must be"),
        ([{"train": "3.*"}, {"train": "*", "epoch": 1, "lr_mult": 0}], {}, "lr_mult of .* > 0"),
        ([{"train": "3.*"}, {"train": "*", "fraction": 1}], {}, r"fraction of phases\[1\] must be"),
        ([{"train": "3.*"}, {"train": "*", "epoch": 1, "earlier": -1}], {}, "earlier of .* >= 0"),
        ([{"train": "3.*"}, {"train": "*", "epoch": 1, "lr": 1, "lr_mult": 1}], {}, "one of them"),
        (
            [{"train": "3.*"}, {"train": "2.*", "epoch": 3}, {"train": "*", "epoch": 3}],
            {},
            "in order",
        ),
        (HEAD_FIRST, {"epochs": 1}, "epochs= is for published orders"),
        (HEAD_FIRST, {"groups": 4}, "groups=4 is what numbers of groups count"),
        (HEAD_FIRST, {"patience": 0}, "patience must be a whole number >= 1"),
    ],
)
def test_what_is_no_list_of_phases_is_refused_at_the_call(phases, settings, message):
    """With the phase, and the nearest word."""
    with pytest.raises(NnlrError, match=message):
        nnlr.unfreeze(phases, **settings)


@pytest.mark.parametrize(
    ("phases", "settings", "error", "message"),
    [
        (
            [{"train": "haed.*"}, {"train": "*", "epoch": 1}],
            {},
            PatternError,
            r"phase 0 of unfreeze, 'haed.\*' matches no parameter",
        ),
        (
            [{"train": "*"}, {"train": "3.*", "epoch": 1}],
            {},
            PatternError,
            r"phase 1 of unfreeze, is left with no parameter .* 3.weight\) is in earlier phases",
        ),
        (
            [{"train": 4}, {"train": "*", "epoch": 1}],
            {},
            NnlrError,
            r"group 4, .* 4 groups .* 0 to 3",
        ),
        (HEAD_FIRST, {"keep": "3.*"}, PatternError, r"keep='3.\*' has no effect"),
        ("ulmfit", {"groups": 1}, NnlrError, r"needs two groups of layers, and Sequential has one"),
    ],
)
def test_phases_that_do_not_fit_the_model_are_refused_at_resolve(phases, settings, error, message):
    """A phase that opens nothing would pass unnoticed."""
    with pytest.raises(error, match=message):
        nnlr.resolve(stack(), nnlr.unfreeze(phases, **settings), lr=1, weight_decay=0)


def test_what_a_hand_has_frozen_is_pointed_out():
    """No phase opens what requires_grad=False keeps shut."""
    net = stack()
    net[0].requires_grad_(False)
    plan = nnlr.resolve(net, nnlr.unfreeze("ulmfit", "auto"), lr=1, weight_decay=0)
    [finding] = [f for f in plan.findings if f.kind == "frozen-in-a-phase"]
    assert finding.names == ("0.weight", "0.bias")


def test_an_epoch_without_a_metric_is_pointed_out_once():
    """Where it is not measured each time, the counter stands."""
    scheme = nnlr.unfreeze([{"train": "3.*"}, {"train": "*", "patience": 1}])
    optimizer, run = attached(stack(), scheme)
    with pytest.warns(NnlrWarning, match=r"An epoch has ended without a metric"):
        run.end_epoch()
    run.end_epoch()
    run.end_epoch(1.0)
    assert of_layers(optimizer) == [0, 0, 0, 1]
    with pytest.raises(NnlrError, match="metric must be a finite number, got nan"):
        run.end_epoch(math.nan)


def test_a_phase_at_a_step_that_the_run_does_not_have_is_pointed_out():
    """Where a step alone begins it; a fraction may begin it too, and then it is never late."""
    late = [{"train": "3.*"}, {"train": "*", "step": 9}]
    with pytest.warns(NnlrWarning, match="waits until step 9, and the run has 9"):
        attached(stack(), nnlr.unfreeze(late), total_steps=9)
    attached(stack(), nnlr.unfreeze(late), total_steps=10)
    attached(stack(), nnlr.unfreeze(late))
    either = [{"train": "3.*"}, {"train": "*", "step": 9, "fraction": 0.5}]
    attached(stack(), nnlr.unfreeze(either), total_steps=9)


def test_a_run_in_which_no_epoch_ends_is_pointed_out_at_its_end():
    """Phases by epochs would never begin, in silence; others have no need of it."""
    net = stack()
    optimizer, _ = attached(net, nnlr.unfreeze(HEAD_FIRST), total_steps=2)
    step(net, optimizer)
    with pytest.warns(
        NnlrWarning, match=r"over after 2 steps, and no epoch .* unfreeze phase 1 goes"
    ):
        step(net, optimizer)
    scheme = nnlr.unfreeze([{"train": "3.*"}, {"train": "*", "step": 1}])
    optimizer, _ = attached(net, scheme, total_steps=2)
    step(net, optimizer)
    step(net, optimizer)


def test_it_can_be_drawn_ahead():
    """With epochs of some steps; the copies of the best weights need no tensors then."""
    net, scheme = stack(), nnlr.unfreeze(HEAD_FIRST, restore_best=True)
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.SGD)
    schedule = nnlr.schedule(optimizer, torch.optim.lr_scheduler.ConstantLR, factor=1)
    course = nnlr.report.rates_over_time(plan, schedule, 4, epoch_steps=2)
    assert [0, 0, 1, 1] == list(course.lr[plan["0.weight"].group])[:4]


def test_explain_says_until_when_a_parameter_is_frozen():
    """In words, with the rate that follows."""
    phases = [{"train": "3.*"}, {"train": "2.*", "epoch": 2, "lr_mult": 0.38}]
    phases += [
        {"train": "1.*", "fraction": 0.5},
        {"train": "0.*", "patience": 1, "step": 9, "earlier": 0.1},
    ]
    scheme = nnlr.unfreeze(phases, warmup=100)
    plan = nnlr.resolve(stack(), scheme, lr=1, weight_decay=0)
    texts = [" ".join(plan.explain(f"{layer}.weight").split()) for layer in range(4)]
    assert (
        "frozen until the metric has not fallen for 1 epoch or step 9, then x 1 over 100"
        in texts[0]
    )
    assert "frozen until 0.5 of the run, then x 1 over 100 steps; x 0.1 from phase 3 on" in texts[1]
    assert "frozen until epoch 2, then x 0.38 over 100 steps; x 0.1 from phase" in texts[2]
    assert "trained from the start, x 1; x 0.1 from phase" in texts[3]


def test_explain_says_which_way_is_better_and_that_what_is_kept_has_no_warm_up():
    """A metric of the wrong sign is seen before the run."""
    phases = [{"train": "3.*"}, {"train": "*", "patience": 2, "warmup": 5}]
    scheme = nnlr.unfreeze(phases, mode="max", keep="0.weight")
    plan = nnlr.resolve(stack(), scheme, lr=1, weight_decay=0)
    waits, kept = (" ".join(plan.explain(f"0.{name}").split()) for name in ("bias", "weight"))
    assert "until the metric has not risen for 2 epochs, then x 1 over 5 steps" in waits
    assert "trained from the start, x 1 weight decay" in kept


def test_within_a_part_of_a_model():
    """Units that carry the path of the part are in the phases of the part alone."""
    net = nn.ModuleDict({"part": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))})
    phases = [{"train": "1.*"}, {"train": "0.*", "epoch": 1}]
    plan = nnlr.resolve(net, nnlr.unfreeze(phases).within("part"), lr=1, weight_decay=0)
    attached = nnlr.attach(plan.optimizer(torch.optim.SGD), plan)
    assert {unit.name: unit.mult for unit in attached.units} == {"part.phase1": 0}
    attached.end_epoch()
    assert {unit.mult for unit in attached.units} == {1}
