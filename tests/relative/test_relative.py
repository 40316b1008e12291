"""Relative updates: LARS and LAMB equal timm's, and a rate that is the relative change."""

import copy
import gc
import pickle
import re
import weakref
from functools import partial

import pytest
import torch
from torch import nn

import nnlr
from nnlr._relative.update import updates_of
from nnlr.errors import ConfigError, NnlrError, NnlrWarning, PatternError

WIDTHS = (6, 8, 5)


def net(dtype=torch.float32):
    """A convolution, a matrix and vectors; the same at every call."""
    torch.manual_seed(0)
    layers = nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 5)
    return nn.Sequential(*layers).to(dtype)


def train(model, optimizer, steps=3, seed=1, scale=1.0):
    """Some steps on random data, the same at every call."""
    source = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        batch = torch.randn(7, 3, 8, generator=source).to(dtype)
        optimizer.zero_grad()
        (scale * model(batch).square().mean()).backward()
        optimizer.step()


def matrices(model):
    """The weights that are acted on, copied."""
    return [p.detach().clone() for p in model.parameters() if p.ndim > 1]


def changes(model, optimizer, steps=1, **how):
    """The relative change of each matrix by the last step."""
    train(model, optimizer, steps - 1, **how)
    before = matrices(model)
    train(model, optimizer, 1, seed=steps, **how)
    return [float((w - b).norm() / b.norm()) for w, b in zip(matrices(model), before, strict=True)]


def equal(one, other):
    """Whether two models have the same weights to the last bit."""
    return all(map(torch.equal, one.parameters(), other.parameters()))


# --- equal to timm ----------------------------------------------------------------------

SETTINGS = [
    {"wd": 0.05},
    {"wd": 0.05, "trust_clip": True},
    {"wd": 0.0, "always_adapt": True},
    {"wd": 0.05, "always_adapt": True, "trust_clip": True, "dtype": torch.float64},
]


def beside_timm(theirs, ours, kind, *, wd, dtype=torch.float32, extra=(), **settings):
    """The largest difference after six steps with vectors of no decay, from a zero bias."""
    models = net(dtype), net(dtype)
    for model in models:
        nn.init.zeros_(model[2].bias)
    groups = [
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": wd},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": wd / 2},
            {"params": [nn.Parameter(torch.ones(3, dtype=dtype))], "weight_decay": 0.0},
        ]
        for model in models
    ]
    optimizers = theirs(groups[0], **settings, **dict(extra)), ours(groups[1])
    nnlr.relative(optimizers[1], kind, **settings, **dict(extra))
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, steps=6)
    pairs = zip(*(model.parameters() for model in models), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("settings", SETTINGS)
def test_lars_is_timms(settings):
    """SGD with momentum under "lars" is timm's Lars to the last bit, of any decay and shape."""
    from timm.optim import Lars

    how = {"lr": 0.3, "momentum": 0.9}
    ours = partial(torch.optim.SGD, **how)
    extra = {"trust_coeff": 0.02, "eps": 1e-6}
    assert beside_timm(partial(Lars, **how), ours, "lars", extra=extra, **settings) == 0


@pytest.mark.parametrize("settings", SETTINGS)
def test_lamb_is_timms(settings):
    """AdamW under "lamb" is timm's Lamb but for rounding, of any decay and shape."""
    from timm.optim import Lamb

    how = {"lr": 0.01, "eps": 1e-6}
    difference = beside_timm(
        partial(Lamb, max_grad_norm=None, **how),
        partial(torch.optim.AdamW, **how),
        "lamb",
        **settings,
    )
    assert difference < (1e-14 if settings.get("dtype") else 2e-7)


# --- the rate is the relative change ----------------------------------------------------

CLASSES = [
    partial(torch.optim.AdamW, weight_decay=0),
    partial(torch.optim.AdamW, weight_decay=0, foreach=True, capturable=False),
    partial(torch.optim.Adam, fused=True),
    partial(torch.optim.SGD, momentum=0.9),
    partial(nnlr.optim.AdamW, weight_decay=0),
    nnlr.optim.SGD,
    torch.optim.RMSprop,
    partial(torch.optim.Adafactor, weight_decay=0),
]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_rate_is_the_relative_change(cls):
    """Whatever the class, a matrix changes by the rate of its group times its own norm."""
    model = net()
    optimizer = cls(model.parameters(), lr=0.02)
    nnlr.relative(optimizer, "relative")
    assert changes(model, optimizer, steps=3) == pytest.approx([0.02] * 3, rel=1e-4)


@pytest.mark.parametrize("cls", CLASSES)
def test_hyperball_keeps_norms_and_turns_by_the_rate(cls):
    """Norms stay those before the first step; vectors are stepped as without it at first."""
    model, plain = net(), net()
    optimizer = cls(model.parameters(), lr=0.02)
    nnlr.relative(optimizer, "hyperball")
    before = [w.norm() for w in matrices(model)]
    train(plain, cls(plain.parameters(), lr=0.02), steps=1)
    train(model, optimizer, steps=1)
    assert torch.equal(model[2].bias, plain[2].bias)
    # The part of an update along the weight is undone.
    assert all(0.6 * 0.02 < change < 1.001 * 0.02 for change in changes(model, optimizer, steps=3))
    after = [w.norm() for w in matrices(model)]
    torch.testing.assert_close(after, before, rtol=1e-6, atol=0)


def test_hyperball_is_its_formula():
    """A step is that of the paper, written out."""
    model, plain = net(torch.float64), net(torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    nnlr.relative(optimizer, "hyperball")
    before = plain[4].weight.detach().clone()
    train(plain, torch.optim.Adam(plain.parameters(), lr=0.1), steps=1)
    train(model, optimizer, steps=1)
    radius, update = before.norm(), plain[4].weight.detach() - before
    moved = before + 0.1 * radius * update / update.norm()
    torch.testing.assert_close(model[4].weight.detach(), radius * moved / moved.norm())


def test_multipliers_and_schedules_are_those_of_the_relative_change():
    """Under a plan and a schedule each layer changes by base times multiplier."""
    model = net()
    scheme = nnlr.rule("2.*", lr_mult=0.1) * nnlr.rule("4.*", lr_mult=3)
    plan = nnlr.resolve(model, scheme, lr=0.01, weight_decay=0)
    optimizer = plan.optimizer(nnlr.optim.AdamW)
    nnlr.relative(optimizer, "relative")
    schedule = nnlr.schedule(optimizer, torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda t: 2**t)
    assert changes(model, optimizer) == pytest.approx([0.01, 0.001, 0.03], rel=1e-4)
    schedule.step()
    assert changes(model, optimizer) == pytest.approx([0.02, 0.002, 0.06], rel=1e-4)


def test_a_rate_in_a_tensor_counts():
    """A learning rate may be a tensor."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.02), weight_decay=0)
    nnlr.relative(optimizer, "relative")
    assert changes(model, optimizer) == pytest.approx([0.02] * 3, rel=1e-4)


def test_a_rate_of_0_moves_nothing():
    """At rate 0 weights stay to the last bit, and the radius is noted."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    nnlr.relative(optimizer, "hyperball")
    train(model, optimizer)
    assert equal(model, net())
    norm = float(model[2].weight.detach().norm())
    assert optimizer.state[model[2].weight]["radius"] == pytest.approx(norm)


def test_sixteen_bits_are_measured_in_32():
    """Weights of 16 bits are rescaled in float32, so that only the result is rounded."""
    model = net(torch.bfloat16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    nnlr.relative(optimizer, "hyperball")
    before = [w.float().norm() for w in matrices(model)]
    assert changes(model, optimizer) == pytest.approx([0.1] * 3, rel=0.1)
    after = [w.float().norm() for w in matrices(model)]
    torch.testing.assert_close(after, before, rtol=2e-3, atol=0)
    lars = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    nnlr.relative(lars, "lars", trust_coeff=0.1)
    assert max(changes(model, lars)) < 0.05


# --- which parameters -------------------------------------------------------------------


class Experts(nn.Module):
    """Three matrices in one tensor."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(3, 4, 5) * torch.tensor([1.0, 4, 9]).view(3, 1, 1))

    def forward(self, x):
        return torch.einsum("eoi,bi->beo", self.table, x)


def move_experts(optimizer, model, only=(0, 1, 2)):
    """The relative change of each expert in a step in which some of them are used."""
    before = model.table.detach().clone()
    optimizer.zero_grad()
    model(torch.ones(2, 5))[:, list(only)].sum().backward()
    optimizer.step()
    difference = (model.table.detach() - before).flatten(1).norm(dim=1)
    return (difference / before.flatten(1).norm(dim=1)).tolist()


@pytest.mark.parametrize("kind", ["relative", "hyperball"])
def test_each_matrix_of_a_stack_has_a_norm(kind):
    """Experts in one tensor change by the rate each, and one without a gradient stays."""
    model = Experts()
    optimizer = nnlr.resolve(model, lr=0.01, weight_decay=0).optimizer(torch.optim.SGD)
    nnlr.relative(optimizer, kind)
    norms = model.table.detach().flatten(1).norm(dim=1)
    moved = move_experts(optimizer, model, only=(0, 2))
    assert moved == pytest.approx([0.01, 0, 0.01], rel=0.2)
    if kind == "hyperball":
        assert optimizer.state[model.table]["radius"] == pytest.approx(norms.tolist())


def test_stacks_are_told_or_said():
    """Names tell a stack from a kernel, ``stacked`` overrules them; without names there is none."""
    model = Experts()
    one = torch.optim.SGD(model.named_parameters(), lr=0.01)
    for stacked in (None, "table"):
        handle = nnlr.relative(one, "relative", stacked=stacked)
        assert move_experts(one, model) == pytest.approx([0.01] * 3, rel=1e-4)
        handle.remove()
    other = torch.optim.SGD(model.parameters(), lr=0.01)
    nnlr.relative(other, "relative", model=model).remove()
    for optimizer, how in ((one, {"stacked": False}), (other, {})):
        handle = nnlr.relative(optimizer, "relative", **how)
        moved = move_experts(optimizer, model)
        handle.remove()
        assert moved[0] > 2 * moved[1] > 2 * moved[2]


def test_a_convolution_is_one_matrix():
    """Kernels of a convolution have one norm, with a plan's model too."""
    model = net()
    optimizer = nnlr.resolve(model, lr=0.01, weight_decay=0).optimizer(torch.optim.Adam)
    nnlr.relative(optimizer, "relative")
    assert changes(model, optimizer) == pytest.approx([0.01] * 3, rel=1e-4)


def test_a_selector_chooses():
    """Only what is selected is acted on, vectors too; the others make the class's own step."""
    model, plain = net(), net()
    optimizer = torch.optim.Adam(model.named_parameters(), lr=0.01)
    nnlr.relative(optimizer, "relative", select=nnlr.regex(r"(2|4)\.weight") | "4.bias")
    before = model[4].bias.detach().clone()
    train(model, optimizer, 1)
    train(plain, torch.optim.Adam(plain.parameters(), lr=0.01), 1)
    assert torch.equal(model[0].weight, plain[0].weight)
    change = (model[4].bias.detach() - before).norm() / before.norm()
    assert float(change) == pytest.approx(0.01, rel=1e-4)


def test_lars_leaves_out_part_of_a_group():
    """What a selector leaves out of a group keeps its decay, as in plain SGD."""
    model, plain = net(), net()
    how = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9}
    optimizer = torch.optim.SGD(model.named_parameters(), **how)
    nnlr.relative(optimizer, "lars", select="2.*")
    train(model, optimizer, 1)
    train(plain, torch.optim.SGD(plain.parameters(), **how), 1)
    torch.testing.assert_close(model[0].weight, plain[0].weight)
    assert not torch.allclose(model[2].weight, plain[2].weight)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


def test_lars_maximizes():
    """With maximize=True the decay still shrinks weights, and the gradient is climbed."""
    models = net(), net()
    signs = {False: 1.0, True: -1.0}
    for (maximize, sign), model in zip(signs.items(), models, strict=True):
        how = {"lr": 0.3, "weight_decay": 0.5, "maximize": maximize}
        optimizer = torch.optim.SGD(model.named_parameters(), **how)
        nnlr.relative(optimizer, "lars", select="2.*")
        train(model, optimizer, 2, scale=sign)
    assert equal(*models)


def test_parameters_without_a_gradient_stay():
    """What has no gradient in a step is not moved and not renormalised."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    nnlr.relative(optimizer, "hyperball")
    train(model, optimizer, 2)
    with torch.no_grad():
        model[2].weight.mul_(2)
    before = model[2].weight.detach().clone()
    model[2].weight.requires_grad_(False)
    train(model, optimizer, 2)
    assert torch.equal(model[2].weight, before)


def closure_of(model, optimizer):
    """A closure, as trainers pass them to a step."""

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 3, 8)).square().sum()
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize(("kind", "cls"), [("lars", torch.optim.SGD), ("lamb", nnlr.optim.AdamW)])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_closure_may_come_with_a_step(kind, cls, by_name):
    """What a closure computes in a step counts as what was computed before it."""
    models = net(), net()
    for model, inside in zip(models, (True, False), strict=True):
        optimizer = cls(model.parameters(), lr=0.1, weight_decay=0.1)
        nnlr.relative(optimizer, kind)
        closure = closure_of(model, optimizer)
        for _ in range(2):
            if not inside:
                loss = closure()
                optimizer.step()
            elif by_name:
                loss = optimizer.step(closure=closure)
            else:
                loss = optimizer.step(closure)
            assert loss > 0
        assert model[0].weight.grad.norm() > 0.1
    assert equal(*models)


def test_a_closure_may_leave_some_without_a_gradient():
    """What has not been stepped yet has no radius, which classes would take for their state."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    nnlr.relative(optimizer, "hyperball")
    closure = closure_of(model, optimizer)
    for part, trains in ((model[2], False), (model[2], True)):
        part.requires_grad_(trains)
        before = part.weight.detach().clone()
        optimizer.step(closure)
        assert torch.equal(part.weight, before) is not trains
        assert ("radius" in optimizer.state[part.weight]) is trains


def test_a_closure_may_end_it():
    """Where a training step removes the handle, the step is the class's own."""
    model, plain = net(), net()
    how = {"lr": 0.1, "weight_decay": 0.1}
    optimizer = torch.optim.SGD(model.parameters(), **how)
    handle = nnlr.relative(optimizer, "lars")
    closure = closure_of(model, optimizer)
    optimizer.step(lambda: (handle.remove(), closure())[1])
    other = torch.optim.SGD(plain.parameters(), **how)
    other.step(closure_of(plain, other))
    assert equal(model, plain)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("kind", ["lamb", "lars"])
def test_scalars_beside_a_stack(kind):
    """A number has its own norm, as have the matrices of a stack beside it."""
    model = nn.ParameterDict({"stack": Experts().table.detach(), "scale": torch.tensor(2.0)})
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.01, weight_decay=0.1)
    more = {"trust_coeff": 1.0} if kind == "lars" else {}
    nnlr.relative(optimizer, kind, stacked="stack", **more)
    before = copy.deepcopy(model)
    (model["stack"].square().sum() * model["scale"]).backward()  # all gradients point outwards
    optimizer.step()
    for new, old in zip(model.values(), before.values(), strict=True):
        torch.testing.assert_close(new, old * 0.99)


def test_sparse_gradients():
    """An embedding with a sparse gradient changes by the rate; under lars it is refused."""
    table = nn.Embedding(9, 4, sparse=True)
    optimizer = torch.optim.SGD(table.named_parameters(), lr=0.01)
    handle = nnlr.relative(optimizer, "relative")
    before = table.weight.detach().clone()
    table(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    change = (table.weight.detach() - before).norm() / before.norm()
    assert float(change) == pytest.approx(0.01, rel=1e-4)
    handle.remove()
    optimizer.zero_grad()
    nnlr.relative(optimizer, "lars", always_adapt=True)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(
        ConfigError, match=r"gradient of weight\. Pass sparse=False .* nothing else"
    ):
        optimizer.step()


# --- several algorithms, scalers, regroup, resume ---------------------------------------


def mixed(model):
    """Muon for two matrices, AdamW for the rest."""
    scheme = nnlr.rule("*", algorithm="adamw").where(~nnlr.ndim(min=2, max=2))
    scheme = scheme * nnlr.rule(nnlr.ndim(min=2, max=2), algorithm="muon")
    rates = {"muon": 0.02, "adamw": 0.01}
    plan = nnlr.resolve(model, scheme, lr=rates, weight_decay={"muon": 0.0, "adamw": 0.1})
    return plan.optimizer({"muon": torch.optim.Muon, "adamw": torch.optim.AdamW})


def test_algorithms_have_their_own():
    """Of several algorithms one is under hyperball and the other under LAMB."""
    model = net()
    optimizer = mixed(model)
    nnlr.relative(optimizer, "hyperball", algorithm="muon")
    nnlr.relative(optimizer, "lamb", algorithm="adamw")
    norms = [w.norm() for w in matrices(model)]
    moved = changes(model, optimizer)
    assert moved[0] == pytest.approx(0.01, rel=1e-4)
    assert moved[1:] == pytest.approx([0.02] * 2, rel=0.2)
    torch.testing.assert_close([w.norm() for w in matrices(model)][1:], norms[1:])


def test_check_knows_that_rates_are_relative():
    """Muon's and Adam's own updates are not compared where both are rescaled."""
    kinds = []
    for is_relative in (False, True):
        model = net()
        scheme = nnlr.rule(nnlr.ndim(min=2, max=2), algorithm="muon")
        scheme = scheme * nnlr.rule(~nnlr.ndim(min=2, max=2), algorithm="adamw")
        scheme = scheme * nnlr.rule(nnlr.ndim(max=1), lr_mult=0.01)
        plan = nnlr.resolve(model, scheme, lr={"muon": 0.02, "adamw": 0.1}, weight_decay=0)
        optimizer = plan.optimizer({"muon": torch.optim.Muon, "adamw": torch.optim.AdamW})
        if is_relative:
            nnlr.relative(optimizer, "relative")
        kinds.append({finding.kind for finding in nnlr.check(plan, optimizer)})
    assert {"rate-of-muon", "unequal-updates"} & kinds[0]
    assert not {"rate-of-muon", "unequal-updates"} & kinds[1]


class Scaler:
    """What a gradient scaler leaves to a fused step: a scale, and whether gradients are finite."""

    def __init__(self, optimizer, scale, *, infinite=False):
        optimizer.grad_scale = torch.tensor(scale)
        optimizer.found_inf = torch.tensor(float(infinite))


@pytest.mark.parametrize(("kind", "cls"), [("lars", nnlr.optim.SGD), ("lamb", nnlr.optim.AdamW)])
def test_a_scaler_may_leave_the_scale_to_the_step(kind, cls):
    """Scaled gradients of a fused step give the same weights; a step that is skipped none."""
    models = net(), net()
    for model, scale in zip(models, (1.0, 1024.0), strict=True):
        optimizer = cls(model.named_parameters(), lr=0.1, weight_decay=0.1, fused=True)
        nnlr.relative(optimizer, kind, select="*.weight")
        if scale > 1:
            Scaler(optimizer, scale)
        train(model, optimizer, 2, scale=scale)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)
    before = copy.deepcopy(model)
    Scaler(optimizer, scale, infinite=True)
    train(model, optimizer, 1, scale=float("inf"))
    assert equal(model, before)


def test_a_gradient_scaler_skips_steps():
    """Torch's scaler skips a step with infinite gradients, and the next is as it would be."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    nnlr.relative(optimizer, "hyperball")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        before = copy.deepcopy(model)
        scaler.scale(factor * model(torch.ones(2, 3, 8)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert equal(model, before) == (factor != 1)


def planned(model, cls=torch.optim.AdamW, scheme=None, **kw):
    """An optimizer of a plan, under hyperball."""
    schemes = [] if scheme is None else [scheme]
    optimizer = nnlr.resolve(model, *schemes, lr=0.02, weight_decay=0).optimizer(cls)
    nnlr.relative(optimizer, "hyperball", **kw)
    return optimizer


def test_it_goes_on_after_a_regroup():
    """Regrouping keeps the radius of each weight, and what is unlocked is acted on."""
    model = net()
    optimizer = planned(model, scheme=nnlr.rule("0.*", lr_mult=0))
    train(model, optimizer)
    radius = optimizer.state[model[2].weight]["radius"]
    nnlr.regroup(optimizer, nnlr.resolve(model, lr=0.01, weight_decay=0))
    norm = model[0].weight.detach().norm()
    assert changes(model, optimizer, steps=3) == pytest.approx([0.01] * 3, rel=0.3)
    assert optimizer.state[model[2].weight]["radius"] == radius
    torch.testing.assert_close(model[0].weight.detach().norm(), norm)


@pytest.mark.parametrize("cls", [torch.optim.AdamW, nnlr.optim.SGD])
def test_the_radius_resumes_by_name(cls):
    """A resume into other groups has each weight's radius, to the last bit, also of stacks."""
    model = nn.ModuleDict({"net": net(), "experts": Experts()})
    optimizer = planned(model, cls)

    def step(model, optimizer):
        model["experts"](torch.ones(2, 5)).square().sum().backward()
        train(model["net"], optimizer, 1)

    step(model, optimizer)
    again = copy.deepcopy(model)
    with torch.no_grad():
        again["net"][2].weight.mul_(1.5)
    resumed = planned(again, cls, nnlr.rule("net.4.*", lr_mult=0.5))
    with pytest.warns(NnlrWarning, match="lr_mult is 1 in the checkpoint and 0.5 in the code"):
        resumed.load_state_dict(optimizer.state_dict())
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert resumed.state[other].get("radius") == optimizer.state[one].get("radius")
    step(again, resumed)
    torch.testing.assert_close(
        again["net"][2].weight.detach().norm(), net()[2].weight.detach().norm()
    )


def test_other_stacks_begin_with_a_radius_of_their_own():
    """A saved radius that is of one matrix is not taken for those of a stack."""
    model = Experts()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.01)
    handle = nnlr.relative(optimizer, "hyperball")
    move_experts(optimizer, model)
    handle.remove()
    nnlr.relative(optimizer, "hyperball", stacked="*")
    move_experts(optimizer, model)
    assert len(optimizer.state[model.table]["radius"]) == 3


def test_copies_have_no_hooks():
    """Copies and pickles make the class's own steps, with the radius in their state."""
    model = net()
    optimizer = planned(model)
    train(model, optimizer)
    for again in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert not again._optimizer_step_pre_hooks
        assert any("radius" in state for state in again.state.values())


def test_after_the_end_a_radius_is_taken_anew():
    """remove() drops the radius, so that a later call does not go back to an old norm."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with nnlr.relative(optimizer, "hyperball"):
        train(model, optimizer, 1)
    assert not any("radius" in state for state in optimizer.state.values())
    with torch.no_grad():
        model[2].weight.mul_(5)
    norm = model[2].weight.detach().norm()
    nnlr.relative(optimizer, "hyperball")
    train(model, optimizer, 1)
    torch.testing.assert_close(model[2].weight.detach().norm(), norm)


def test_a_handle_may_outlive_the_optimizer():
    """It holds no optimizer, and ends nothing where there is none."""
    optimizer = adam()
    handle, alive = nnlr.relative(optimizer, "hyperball"), weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert alive() is None
    handle.remove()


def fail(*_):
    raise KeyboardInterrupt("stopped")


@pytest.mark.parametrize("kind", ["lars", "lamb"])
def test_the_handle_ends_it(kind):
    """After remove() the steps are the class's own, also after one that failed."""
    model, plain = net(), net()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, weight_decay=0.1)
    handle = nnlr.relative(optimizer, kind)
    train(model, optimizer, 1)
    model.load_state_dict(plain.state_dict())
    failing = optimizer.register_step_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        train(model, optimizer, 1)
    failing.remove()
    handle.remove()
    handle.remove()
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    train(model, optimizer, 2)
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1, weight_decay=0.1), 2)
    assert equal(model, plain)


def test_a_step_that_failed_leaves_nothing_behind():
    """The next step has its own gradients, and the decay that was there or was written since."""
    models = net(), net()
    for model, fails in zip(models, (True, False), strict=True):
        optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, weight_decay=0.1)
        nnlr.relative(optimizer, "lars")
        for written in (0.1, 0.2):
            if fails:
                failing = optimizer.register_step_pre_hook(fail)
                with pytest.raises(KeyboardInterrupt, match="stopped"):
                    train(model, optimizer, 1)
                failing.remove()
            optimizer.param_groups[0]["weight_decay"] = written
            train(model, optimizer, 1)
            assert optimizer.param_groups[0]["weight_decay"] == written
    assert equal(*models)


def test_the_rate_is_that_of_the_step():
    """Hooks of others may write the rate before a step, or that of the next one after it."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=5.0)
    optimizer.register_step_post_hook(lambda *_: optimizer.param_groups[0].update(lr=5.0))
    handle = nnlr.relative(optimizer, "relative")
    optimizer.register_step_pre_hook(lambda *_: optimizer.param_groups[0].update(lr=0.01))
    assert changes(model, optimizer, steps=2) == pytest.approx([0.01] * 3, rel=1e-4)
    handle.remove()


def test_steps_are_prepared_last():
    """A hook that is registered later goes before it from the second step on."""
    model = net()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, weight_decay=0.1)
    handle = nnlr.relative(optimizer, "lars")
    decays = []
    optimizer.register_step_pre_hook(
        lambda *_: decays.append(optimizer.param_groups[0]["weight_decay"])
    )
    train(model, optimizer, 3)
    assert decays == [0, 0.1, 0.1]
    handle.remove()


def test_a_wrapper_is_seen_through():
    """The optimizer inside a trainer's wrapper is acted on."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    wrapper = type("Wrapper", (), {})()
    wrapper.optimizer = optimizer
    nnlr.relative(wrapper, "relative")
    assert changes(model, optimizer) == pytest.approx([0.01] * 3, rel=1e-4)


# --- refused ----------------------------------------------------------------------------


def adam(model=None, **kw):
    return torch.optim.Adam((model or net()).named_parameters(), lr=0.01, **kw)


class Hookless(torch.optim.SGD):
    """Skips torch's constructor."""

    def __init__(self, inner):
        self.param_groups = inner.param_groups


class Rateless(torch.optim.Optimizer):
    """Has no learning rate."""

    def __init__(self, params):
        super().__init__(params, {})


REFUSED = {
    "kind": (lambda: nnlr.relative(adam(), "hyperbal"), r"got 'hyperbal'\. Nearest: 'hyperball'"),
    "setting": (
        lambda: nnlr.relative(adam(), "lamb", trust_clib=True),
        r"'lamb' has no setting 'trust_clib'; its settings: trust_clip, always_adapt\. Nearest: ",
    ),
    "none": (
        lambda: nnlr.relative(adam(), "relative", eps=1.0),
        r"'relative' has no setting 'eps'; its settings: none\.",
    ),
    "number": (
        lambda: nnlr.relative(adam(), "lars", eps=-1.0),
        r"eps of relative\(\.\.\., 'lars'\) must be a finite number >= 0, got -1\.0",
    ),
    "switch": (lambda: nnlr.relative(adam(), "lamb", trust_clip=1), "must be True or False, got 1"),
    "optimizer": (lambda: nnlr.relative(net(), "lamb"), "relative needs a torch optimizer, got"),
    "no rate": (
        lambda: nnlr.relative(Rateless(net().named_parameters()), "relative"),
        r"goes by the rate, and the param_groups of Rateless have no 'lr'\. Use a class that has",
    ),
    "inert later": (
        lambda: nnlr.relative(torch.optim.RAdam(net().parameters(), weight_decay=0.1), "lars"),
        "the steps of RAdam hardly depend on the size of gradients",
    ),
    "hooks": (
        lambda: nnlr.relative(Hookless(adam()), "lamb"),
        "Hookless runs no step hooks. Call relative on the optimizer that it wraps",
    ),
    "stacked": (lambda: nnlr.relative(adam(), "lamb", stacked=True), "stacked needs a selector"),
    "selector": (lambda: nnlr.relative(adam(), "lamb", select=3), "select needs a selector"),
    "algorithm": (
        lambda: nnlr.relative(mixed(net()), "relative", algorithm="moun"),
        r"algorithm='moun' is none of the optimizer's: 'muon', 'adamw'\. Nearest: 'muon'\.",
    ),
    "no algorithm": (
        lambda: nnlr.relative(adam(), "relative", algorithm="muon"),
        r"algorithm='muon' is none of the optimizer's: its groups name none\.$",
    ),
    "vectors": (
        lambda: nnlr.relative(torch.optim.SGD([nn.Parameter(torch.ones(3))]), "relative"),
        r"would act on nothing: none of its parameters has two axes longer than 1",
    ),
    "no decay": (
        lambda: nnlr.relative(adam(), "lamb"),
        r"would act on nothing: none of its groups has weight decay; pass always_adapt=True",
    ),
    "not trained": (
        lambda: nnlr.relative(
            torch.optim.SGD((whole := net())[:1].parameters()),
            "relative",
            select="4.*",
            model=whole,
        ),
        r"would act on nothing: select chooses none that it trains",
    ),
    "model": (
        lambda: nnlr.relative(adam(), "relative", model=net()),
        "model= has none of the parameters that the optimizer trains. Pass the model from",
    ),
    "nameless": (
        lambda: nnlr.relative(torch.optim.SGD([nn.Parameter(torch.zeros(2, 2))]), "relative"),
        r"0: param_groups\[0\]\['params'\]\[0\]\..* leave out what is 0: select= and model=, the",
    ),
    "names": (
        lambda: nnlr.relative(
            torch.optim.SGD(net().parameters(), lr=0.1), "relative", select="4.*"
        ),
        r"select='4\.\*' chooses by name, and the optimizer knows none\. Pass model=",
    ),
    "inert": (
        lambda: nnlr.relative(adam(weight_decay=0.1), "lars"),
        r"steps of Adam hardly depend on the size of gradients: with 8 times larger ones.* 1 times",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused(case):
    """What cannot be meant is refused at the call, with what to do."""
    call, message = REFUSED[case]
    with pytest.raises(NnlrError, match=message):
        call()


def test_a_pattern_without_match_is_refused():
    """A selector that matches nothing is answered by the nearest name."""
    with pytest.raises(PatternError, match=r"select='4\.weigth' matches no parameter"):
        nnlr.relative(adam(), "relative", select="4.weigth")


class Odd(nn.Module):
    """Matrices of 0 beside equal names, names of odd signs, and thin tensors of two axes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.odd = nn.ModuleDict({"a[0]": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        for zero in (self.layers[2], self.odd["a[0]"]):
            nn.init.zeros_(zero.weight)


def acted_on(optimizer):
    """The names of what a relative update acts on."""
    (update,) = updates_of(optimizer)
    return [target.name for _, target, _ in update.members(optimizer)]


@pytest.mark.parametrize("select", [None, "*.weight"])
def test_zeros_are_refused_and_the_fix_helps(select):
    """A matrix of zeros would never move; the select that is offered leaves out it and no other."""
    optimizer = adam(Odd())
    with pytest.raises(ConfigError, match=r"never move\. 2 parameters are 0: layers\.2") as error:
        nnlr.relative(optimizer, "relative", select=select)
    assert error.value.names == ["layers.2.weight", "odd.a[0].weight"]
    (fix,) = re.findall(r"select=(.*)\.$", str(error.value))
    assert fix.startswith("nnlr.ndim(min=2) & ~(" if select is None else "nnlr.glob(")
    nnlr.relative(optimizer, "relative", select=eval(fix))  # noqa: S307 - what a user pastes
    assert acted_on(optimizer) == ["layers.0.weight", "layers.1.weight", "odd.b.weight"]


def test_zeros_of_a_stack_are_refused_by_position():
    """One matrix of 0 among experts is refused; where that is all, no select is offered."""
    experts = Experts()
    with torch.no_grad():
        experts.table[1] = 0
    with pytest.raises(ConfigError, match=r"is 0: table \(matrices 1\).*there is nothing else"):
        nnlr.relative(adam(experts), "hyperball", stacked="table")


def test_zeros_that_are_frozen_are_refused_when_they_train():
    """What takes no gradient is not refused before it does."""
    model = net()
    nn.init.zeros_(model[2].weight)
    model[2].weight.requires_grad_(False)
    optimizer = adam(model)
    nnlr.relative(optimizer, "relative")
    train(model, optimizer, 1)
    model[2].weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"1 parameter is 0: 2\.weight"):
        train(model, optimizer, 1)


def test_zeros_that_come_later_are_refused_before_a_step():
    """A group that is added later is looked at before the first step with it."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nnlr.relative(optimizer, "relative")
    late = nn.Parameter(torch.zeros(2, 2))
    optimizer.add_param_group({"params": [late]})
    train(model, optimizer, 1)  # it has no gradient yet
    late.grad = torch.ones(2, 2)
    before = copy.deepcopy(model)
    with pytest.raises(ConfigError, match=r"is 0: param_groups\[1\]\['params'\]\[0\]"):
        optimizer.step()
    assert equal(model, before)


def test_decay_under_hyperball_is_refused_and_the_fix_helps():
    """Weight decay of what keeps its norm is refused, by the name of its group."""
    model = net()
    plan = nnlr.resolve(model, lr=0.01, weight_decay=0.1)
    with pytest.raises(ConfigError, match=r"1 group has weight decay: lr1_wd1\. Build"):
        nnlr.relative(plan.optimizer(torch.optim.AdamW), "hyperball")
    scheme = nnlr.rule(nnlr.ndim(min=2), wd_mult=0)
    optimizer = nnlr.resolve(model, scheme, lr=0.01, weight_decay=0.1).optimizer(torch.optim.AdamW)
    nnlr.relative(optimizer, "hyperball")
    train(model, optimizer, 1)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.1
    with pytest.raises(ConfigError, match=r"1 group has weight decay: lr1_wd0"):
        optimizer.step()


def test_a_parameter_is_acted_on_once():
    """A second call for the same parameters is refused; for others it is not."""
    model = net()
    optimizer = adam(model)
    optimizer.register_step_pre_hook(lambda *_: None)
    first = nnlr.relative(optimizer, "relative", select="2.weight")
    with pytest.raises(ConfigError, match=r"'relative'\) acts on 1 parameter of these already: 2"):
        nnlr.relative(optimizer, "hyperball")
    nnlr.relative(optimizer, "hyperball", select="4.weight")
    first.remove()
    nnlr.relative(optimizer, "lamb", select="2.weight")


def test_shards_of_fsdp1_are_refused():
    """What FSDP1 has flattened is no whole matrix; torch notes it on the parameter."""
    from torch.distributed.fsdp._common_utils import FSDP_FLATTENED

    model = net()
    setattr(model[2].weight, FSDP_FLATTENED, True)
    for kind in ("lamb", "relative"):
        with pytest.raises(ConfigError, match=r"1 parameter is flattened by FSDP1.*: 2\.weight\."):
            nnlr.relative(adam(model, weight_decay=0.1), kind)


def test_complex_numbers_are_refused():
    """Complex parameters are refused by name."""
    model = nn.ParameterDict({"w": torch.ones(2, 2, dtype=torch.complex64), "v": torch.ones(2)})
    optimizer = adam(model, weight_decay=0.1)
    with pytest.raises(ConfigError, match=r"1 parameter is complex: w\. Leave them out: s") as one:
        nnlr.relative(optimizer, "lamb")
    (fix,) = re.findall(r"select=(.*)\.$", str(one.value))
    nnlr.relative(optimizer, "lamb", select=eval(fix))  # noqa: S307 - as above
    assert acted_on(optimizer) == ["v"]


def test_a_class_that_cannot_be_tried_is_taken_at_its_word():
    """LARS on a class of one's own that no trial can build is the user's affair."""

    class Own(torch.optim.SGD):
        def __init__(self, params, key):
            super().__init__(params, lr=0.1, weight_decay=0.1)

    nnlr.relative(Own(net().parameters(), 3), "lars")


def test_steps_below_the_precision_of_weights_are_said():
    """Steps that the weights cannot hold are a warning; its fix gives the steps of doubles."""

    def trained(factor=1, dtype=torch.float32):
        model = net(dtype)
        of_ndim = [[p for p in model.parameters() if (p.ndim == 1) == thin] for thin in (0, 1)]
        groups = [{"params": of_ndim[0]}, {"params": of_ndim[1], "lr": 0.01 / factor}]
        optimizer = torch.optim.SGD(groups, lr=0.01, weight_decay=1e-8 * factor)
        nnlr.relative(optimizer, "relative")
        train(model, optimizer, 1, scale=1e-7 * factor)
        return model

    with pytest.warns(NnlrWarning, match=r"less than 32 spacings of torch\.float32"):
        trained()
    exact = trained(dtype=torch.float64).float()
    for one, other in zip(trained(10**6).parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_meta_tensors_are_looked_at_later():
    """On the meta device there is nothing to measure yet."""
    with torch.device("meta"):
        model = net()
    nnlr.relative(adam(model), "hyperball")
