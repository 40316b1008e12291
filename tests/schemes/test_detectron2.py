"""``detectron2(...)``: parity with the published rule, and its silences broken."""

from unittest.mock import Mock

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.testing import SchemeLaws
from tests.schemes.real_models import MODELS, every_norm, model

LR, WEIGHT_DECAY = 0.02, 1e-4


def by_depth(name):
    """A function like detectron2's for ViT: by a number or a dot in the name."""
    return 0.5 if ".0." in name or ".1." in name or name.startswith(".") else 1.0


CONFIGS = {
    "default": {},
    "norms": {"weight_decay_norm": 0.0},
    "biases": {"bias_lr_factor": 2.0, "weight_decay_bias": 0.0},
    "stopped": {"bias_lr_factor": 0.0},
    "all": {
        "weight_decay_norm": 0.002,
        "bias_lr_factor": 2.0,
        "weight_decay_bias": 0.0003,
        "lr_factor_func": by_depth,
    },
    "overrides": {
        "weight_decay_norm": 0.0,
        "bias_lr_factor": None,
        "lr_factor_func": by_depth,
        "overrides": {
            "weight": {"lr": 0.007, "momentum": 0.5},
            "bias": {"weight_decay": 0.3},
        },
    },
}

# The classes that the published rule names.
NORMALISES = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm),
)


def twin(
    net,
    *,
    weight_decay_norm=None,
    bias_lr_factor=1.0,
    weight_decay_bias=None,
    lr_factor_func=None,
    overrides=None,
):
    """The published rule in plain words: what each trainable tensor gets, by identity."""
    replaced = {leaf: dict(values) for leaf, values in (overrides or {}).items()}
    if bias_lr_factor not in {None, 1.0}:
        replaced.setdefault("bias", {})["lr"] = LR * bias_lr_factor
    if weight_decay_bias is not None:
        replaced.setdefault("bias", {})["weight_decay"] = weight_decay_bias
    result = {}
    for path, module in net.named_modules():
        for leaf, tensor in module.named_parameters(recurse=False):
            if not tensor.requires_grad or id(tensor) in result:
                continue
            rates = {"lr": LR, "weight_decay": WEIGHT_DECAY, "momentum": 0.9}
            if weight_decay_norm is not None and isinstance(module, NORMALISES):
                rates["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                rates["lr"] *= lr_factor_func(f"{path}.{leaf}")
            result[id(tensor)] = rates | replaced.get(leaf, {})
    return result


@pytest.mark.no_cover
class TestLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.detectron2(weight_decay_norm=0.0, bias_lr_factor=2),
            nnlr.detectron2(lr_factor_func=by_depth, overrides={"weight": {"lr": 0.1}}),
        ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.no_cover
def test_equals_the_published_rule(name, config):
    """Rates and options of every trainable tensor, tied and frozen ones included."""
    net, settings = model(name), CONFIGS[config]
    scheme = nnlr.detectron2(**settings, strict=False)
    plan = nnlr.resolve(net, scheme, lr=LR, weight_decay=WEIGHT_DECAY)
    expected = twin(net, **settings)
    actual = {
        id(tensor): {
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "momentum": group.get("momentum", 0.9),
        }
        for group in plan.param_groups(names=False, locked="keep")
        for tensor in group["params"]
    }
    assert expected.keys() == actual.keys()
    for tensor, rates in expected.items():
        assert actual[tensor] == pytest.approx(rates, rel=1e-12, abs=0)


def test_every_batch_norm_of_one_and_three_dimensions_counts():
    """All classes of the published list are known."""
    net = nn.ModuleList(cls(4) for cls in NORMALISES if cls is not nn.GroupNorm)
    plan = nnlr.resolve(net, nnlr.detectron2(weight_decay_norm=0), lr=1, weight_decay=1)
    assert {0.0} == {row.weight_decay for row in plan}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_factor_func": 0.5}, "lr_factor_func must be a function.*got 0.5"),
        ({"weight_decay_norm": -1}, "weight_decay_norm must be a finite number >= 0"),
        ({"bias_lr_factor": "2"}, "bias_lr_factor must be a finite number"),
        ({"weight_decay_bias": float("nan")}, "weight_decay_bias must be a finite"),
        ({"overrides": {"weight": 1}}, "override 'weight' must be a mapping"),
        ({"overrides": Mock()}, "overrides must be a mapping, got .*Mock"),
        ({"overrides": {"weight": {"lr": -1}}}, "lr of override 'weight' must be"),
        ({"overrides": {"weight": {"lr_mult": 1}}}, "'lr_mult', which does nothing"),
        ({"overrides": {"weight": {"params": 1}}}, "may not set 'params'"),
        (
            {"overrides": {"bias": {"lr": 1}}, "weight_decay_bias": 0},
            "'bias' beside bias_lr_factor or weight_decay_bias",
        ),
    ],
)
def test_malformed_settings_are_refused(settings, message):
    """At the call."""
    with pytest.raises(NnlrError, match=message):
        nnlr.detectron2(**settings)


def test_the_callers_overrides_stay_as_they_are():
    """detectron2 writes the bias settings into the caller's dict."""
    overrides = {"weight": {"lr": 0.1}}
    nnlr.detectron2(overrides=overrides, bias_lr_factor=2)
    assert {"weight": {"lr": 0.1}} == overrides


def test_a_misspelt_override_is_an_error():
    """Or a finding that leaves the key out."""
    overrides = {"weight": {"weigth_decay": 0}}
    with pytest.raises(ConfigError, match=r"'weigth_decay', which does nothing(?s:.*)Nearest"):
        nnlr.detectron2(overrides=overrides)
    scheme = nnlr.detectron2(overrides=overrides, strict=False)
    plan = nnlr.resolve(nn.Linear(2, 2), scheme, lr=1, weight_decay=1)
    assert ["misspelt-key"] == [found.kind for found in plan.findings]
    assert {} == plan["weight"].options


def test_an_override_without_effect_is_an_error():
    """The names are those of parameters on their modules, not paths."""
    scheme = nnlr.detectron2(overrides={"wieght": {"lr": 0.1}})
    with pytest.raises(PatternError, match=r"override 'wieght' matches no(?s:.*)'weight'"):
        nnlr.resolve(nn.Linear(2, 2), scheme, lr=1, weight_decay=1)


def test_a_bad_factor_names_the_parameter():
    """What the function returns is checked."""
    scheme = nnlr.detectron2(lr_factor_func=lambda name: -1)
    with pytest.raises(NnlrError, match=r"lr_factor_func\('.weight'\) must be"):
        nnlr.resolve(nn.Linear(2, 2), scheme, lr=1, weight_decay=1)


def test_bare_tensors_have_no_classes():
    """The rule needs the modules."""
    tensors = {"a.weight": torch.zeros(2, 2)}
    with pytest.raises(NnlrError, match="detectron2 looks at the classes of modules"):
        nnlr.resolve(tensors, nnlr.detectron2(), lr=1, weight_decay=1)


def kinds(**settings):
    """Findings by kind on a model with every norm."""
    scheme = nnlr.detectron2(**settings)
    plan = nnlr.resolve(every_norm(), scheme, lr=LR, weight_decay=WEIGHT_DECAY)
    return {found.kind: found for found in plan.findings}


def test_norms_of_other_classes_are_pointed_out():
    """weight_decay_norm does not know RMSNorm."""
    assert ("neck.1.weight",) == kinds(weight_decay_norm=0)["norm-not-reached"].names
    assert {} == kinds()


def test_settings_for_biases_that_reach_norms_are_pointed_out():
    """As a warning where they change the decay of norms, else as a note."""
    found = kinds(weight_decay_norm=0.0, weight_decay_bias=1e-4)
    assert "norm-bias" not in found
    assert "warning" == found["norm-decay-replaced"].severity
    assert "backbone.1.bias" in found["norm-decay-replaced"].names
    assert "backbone.0.bias" not in found["norm-decay-replaced"].names
    for settings in (
        {"weight_decay_norm": 0.002, "bias_lr_factor": 2},
        {"weight_decay_norm": 0.002, "weight_decay_bias": 0.002},
        {"weight_decay_bias": 0.1},
    ):
        found = kinds(**settings)
        assert "norm-decay-replaced" not in found
        assert "note" == found["norm-bias"].severity
    linear = nnlr.resolve(nn.Linear(2, 2), nnlr.detectron2(bias_lr_factor=2), lr=1, weight_decay=0)
    assert () == linear.findings


def test_biases_that_lose_the_factor_are_pointed_out():
    """A rate for biases replaces lr_factor_func instead of multiplying."""
    found = kinds(bias_lr_factor=2, lr_factor_func=by_depth)["lr-factor-replaced"]
    assert "backbone.0.bias" in found.names
    assert "lr-factor-replaced" not in kinds(weight_decay_bias=0, lr_factor_func=by_depth)


def test_an_override_that_cancels_other_settings_is_pointed_out():
    """One by the name ``weight`` speaks of norms and of all depths too."""
    found = kinds(
        weight_decay_norm=0,
        lr_factor_func=by_depth,
        overrides={"weight": {"lr": 0.1, "weight_decay": 0.1}},
    )
    assert "backbone.1.weight" in found["norm-decay-replaced"].names
    assert "backbone.0.weight" in found["lr-factor-replaced"].names


def test_the_trace_says_what_decided():
    """``explain`` names the class, the function, and what replaced them."""
    scheme = nnlr.detectron2(weight_decay_norm=0.0, bias_lr_factor=2)
    plan = nnlr.resolve(every_norm(), scheme, lr=LR, weight_decay=WEIGHT_DECAY)
    call = "detectron2(weight_decay_norm=0.0, bias_lr_factor=2)"
    assert f"{call}: norm layer, a bias" in " ".join(plan.explain("backbone.1.bias").split())
