"""Published schemes of measured multipliers: their rates, what they keep, and their calls."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError
from tests.schemes.measured.test_probes import RGN, SNR, batches
from tests.schemes.measured.test_probes import Net as Small
from tests.schemes.measured.test_spectrum import Net, filled

BY_LAYER = ["conv2", "conv3", "fc1", "fc2"]
LINEAR = [1.5, 0.7515715539515639, 0.5831533349886789, 0.5]


def settled(scheme, net, cls=torch.optim.SGD, steps=1):
    """Multipliers by parameter after some steps without gradients."""
    plan = nnlr.resolve(net, scheme, lr=1.0, weight_decay=1.0)
    optimizer = plan.optimizer(cls)
    attached = nnlr.attach(optimizer, plan)
    for _ in range(steps):
        optimizer.step()
    mult = "wd_mult" if "decay" in repr(scheme) else "lr_mult"
    of = {id(p): g[mult] for g in optimizer.param_groups for p in g["params"]}
    return {name: of[id(p)] for name, p in net.named_parameters()}, attached


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (nnlr.temp_balance(), LINEAR),
        (nnlr.temp_balance("log2"), [1.56858237, 0.95671197, 0.78350325, 0.69120239]),
        (nnlr.alpha_decay("linear(0.5, 1.5)"), LINEAR),
        (nnlr.alpha_decay("linear(1, 5)"), [5.0, 2.0062862158, 1.3326133399, 1.0]),
    ],
)
def test_layers_have_the_multipliers_of_the_reference(scheme, expected):
    """Biases and batch norms as their layer; first, last and small ones at the base."""
    mults, attached = settled(scheme, filled(Net()))
    layer_of = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3"}
    by_layer = dict(zip(BY_LAYER, expected, strict=True))
    for name, mult in mults.items():
        module = name.partition(".")[0]
        assert mult == pytest.approx(by_layer.get(layer_of.get(module, module), 1.0), rel=1e-5)
    assert [unit.name for unit in attached.units] == BY_LAYER


def test_first_and_last_can_be_moved_too():
    """Of the first, whose spectrum is small, only if small ones are measured."""
    scheme = nnlr.temp_balance(keep_first=False, keep_last=False, min_eigenvalues=2)
    _, attached = settled(scheme, filled(Net()))
    assert [u.name for u in attached.units] == ["conv1", *BY_LAYER, "small", "fc3"]


class Language(nn.Module):
    """An embedding, two matrices and an output layer, tied if asked."""

    def __init__(self, *, tied=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Embedding(90, 60), nn.LayerNorm(60)
        self.q_proj, self.o_proj = nn.Linear(60, 60), nn.Linear(60, 60)
        self.up_proj, self.lm_head = nn.Linear(60, 60), nn.Linear(60, 90)
        if tied:
            self.lm_head.weight = self.embed.weight


@pytest.mark.parametrize("tied", [False, True])
def test_an_embedding_is_a_first_layer(tied):
    """So that no matrix after it is kept in its place; of a tied model the last is the same."""
    _, attached = settled(nnlr.temp_balance(), Language(tied=tied))
    assert [unit.name for unit in attached.units] == ["q_proj", "o_proj", "up_proj"]


def test_a_model_without_layers_has_no_ends():
    """Nothing is kept then, and nothing moves."""
    plan = nnlr.resolve(nn.LayerNorm(4), nnlr.temp_balance(), lr=0.1, weight_decay=0)
    assert not any(row.moves for row in plan)


@pytest.mark.parametrize("tied", [False, True])
def test_llr_goes_up_from_the_base_in_a_line(tied):
    """Ends at 5 from the start, norms at 1, matrices between 1 and 5 after the ramp."""
    mults, _ = settled(nnlr.llr(ramp=4), Language(tied=tied), steps=2)
    assert mults["embed.weight"] == 5
    assert mults["norm.weight"] == mults["norm.bias"] == 1
    between = sorted(mults[f"{name}.bias"] for name in ("q_proj", "o_proj", "up_proj"))
    assert (between[0], between[-1]) == (1.0, 3.0)
    mults, _ = settled(nnlr.llr(ramp=4), Language(tied=tied), steps=4)
    assert max(mults[f"{name}.weight"] for name in ("q_proj", "o_proj", "up_proj")) == 5


@pytest.mark.parametrize(
    ("scheme", "reference", "mapping"),
    [
        (nnlr.auto_rgn(), RGN, lambda value: value / max(RGN.values())),
        (nnlr.auto_snr(), SNR, lambda value: float(value >= 0.95)),
    ],
)
def test_tensors_have_the_multipliers_of_surgical_fine_tuning(scheme, reference, mapping):
    """After five batches; the batch norm is not trained, as there."""
    net = Small()
    plan = nnlr.resolve(net, scheme, lr=1e-9, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.Adam)
    attached = nnlr.attach(optimizer, plan)
    for loss in batches(net):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert plan["bn1.weight"].locked
    now = {unit.name: unit.mult for unit in attached.units}
    assert now.keys() == {name for name, _ in net.named_parameters() if "bn" not in name}
    expected = {name: mapping(value) for name, value in reference.items()}
    assert {name: now[name] for name in expected} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("classes", "mult"), [(10, 0.0), (21, 1.0)])
def test_an_output_layer_of_few_classes_is_below_the_threshold(classes, mult):
    """Its ratio is (n - 1) / n under cross-entropy; left out by its role it learns."""
    torch.manual_seed(0)
    for scheme in (nnlr.auto_snr(batches=1), nnlr.auto_snr(batches=1).where(~nnlr.role("head"))):
        net = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, classes))
        plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        attached = nnlr.attach(optimizer, plan)
        nn.functional.cross_entropy(net(torch.randn(64, 6)), torch.arange(64) % classes).backward()
        optimizer.step()
        head = {unit.mult for unit in attached.units if unit.name == "2.weight"}
        assert head == (set() if "where" in repr(scheme) else {mult})


def test_balanced_modules_change_by_the_same_share():
    """Under SGD rate times relative gradient norm is one number, within the bounds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    scheme = nnlr.grad_norm_balance(batches=1, most=100, least=0.01)
    plan = nnlr.resolve(net, scheme, lr=1e-9, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.SGD)
    nnlr.attach(optimizer, plan)
    net(torch.randn(16, 4)).square().sum().backward()
    optimizer.step()
    shares = []
    for group in optimizer.param_groups:
        norm = torch.stack([p.grad.norm() for p in group["params"]]).norm()
        shares.append(group["lr_mult"] * float(norm / nn.utils.get_total_norm(group["params"])))
    assert shares == pytest.approx([shares[0]] * 3, rel=1e-5)
    with pytest.raises(ConfigError, match="optimizer='sgd'"):
        plan.optimizer(torch.optim.AdamW)


@pytest.mark.parametrize(
    ("scheme", "call"),
    [
        (nnlr.assign("rgn", "max", every=5), "assign('rgn', 'max', every=5)"),
        (
            nnlr.assign("alpha", "sqrt", every="epoch", setting="weight_decay", ramp=3),
            "assign('alpha', 'sqrt', every='epoch', setting='weight_decay', ramp=3)",
        ),
        (nnlr.auto_rgn(), "auto_rgn()"),
        (nnlr.auto_rgn(10, batch_norm="measure"), "auto_rgn(every=10, batch_norm='measure')"),
        (nnlr.auto_snr(threshold=0.5), "auto_snr(threshold=0.5)"),
        (
            nnlr.temp_balance("sqrt", keep_last=False),
            "temp_balance(mapping='sqrt', keep_last=False)",
        ),
        (nnlr.alpha_decay(every=100), "alpha_decay(every=100)"),
        (nnlr.llr(ends=2), "llr(ends=2.0)"),
        (nnlr.grad_norm_balance(most=4), "grad_norm_balance(most=4.0)"),
    ],
)
def test_the_repr_is_the_call(scheme, call):
    """In Python, and as data there and back."""
    assert repr(scheme) == call
    assert repr(nnlr.config.scheme(nnlr.config.dump(scheme))) == call


def test_functions_are_named():
    """As far as they have a name."""

    def largest(unit):
        return max(float(t.abs().max()) for t in unit.tensors)

    scheme = nnlr.assign(largest, "max", every=5)
    plan = nnlr.resolve(nn.Linear(2, 2), scheme, lr=0.1, weight_decay=0)
    assert plan["weight"].trace[0].factor.moves.how == "by largest, max, every 5 steps"
    assert repr(scheme) == "assign(largest, 'max', every=5)"
    assert not plan["weight"].trace[0].factor.move.needs_epochs
    often = nnlr.resolve(nn.Linear(2, 2), nnlr.assign("rgn", "max", every=1), lr=1, weight_decay=0)
    assert often["weight"].trace[0].factor.moves.how == "by rgn, max, every step"
    assert repr(nnlr.temp_balance(largest)) == "temp_balance(mapping=largest)"


def test_what_is_left_out_is_said():
    """Matrices without a spectrum, with the reason; kept and frozen ones are not among them."""
    net = nn.Sequential(
        *[nn.Linear(60, 60) for _ in range(3)], nn.Linear(60, 20), nn.Linear(20, 60)
    )
    net[2].requires_grad_(False)
    findings = nnlr.resolve(net, nnlr.temp_balance(max_size=60), lr=0.1, weight_decay=0).findings
    assert [(f.kind, f.names) for f in findings] == [("not-measured", ("3.weight",))]
    assert "fewer than 50 eigenvalues" in findings[0].cause
    findings = nnlr.resolve(net, nnlr.llr(max_size=50), lr=0.1, weight_decay=0).findings
    assert ("0.weight", "1.weight") in [f.names for f in findings]
    assert not nnlr.resolve(net, nnlr.auto_rgn(), lr=0.1, weight_decay=0).findings


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: nnlr.auto_rgn(batch_norm="drop"), "batch_norm must be one of 'lock', 'measure'"),
        (lambda: nnlr.auto_snr(threshold=-1), "threshold must be"),
        (lambda: nnlr.temp_balance("lin(1, 2)"), "There is no mapping 'lin'"),
        (lambda: nnlr.temp_balance(keep_first=1), "keep_first must be True or False"),
        (lambda: nnlr.alpha_decay(max_size=1), "max_size must be a whole number >= 2"),
        (lambda: nnlr.llr(ends=0), "ends must be a finite number > 0"),
        (lambda: nnlr.grad_norm_balance(least=2, most=1), "most must be a finite number >= 2"),
    ],
)
def test_arguments_are_checked_at_the_call(call, match):
    """By the name that the caller wrote."""
    with pytest.raises(NnlrError, match=match):
        call()
