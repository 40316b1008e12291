"""``mmengine(paramwise_cfg)``: live parity with MMEngine, and its silences broken."""

import logging
import random
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.schemes._frameworks.mmengine import paramwise
from nnlr.testing import SchemeLaws
from tests.schemes.real_models import MODELS, every_norm, model, trainable

LR, WEIGHT_DECAY = 0.01, 0.05

RULES = {
    "norm_decay_mult": 0.0,
    "bias_decay_mult": 0.5,
    "bias_lr_mult": 2.0,
    "dwconv_decay_mult": 0.25,
    "flat_decay_mult": 0.125,
    "dcn_offset_lr_mult": 0.1,
    "bypass_duplicate": True,
}

CONFIGS = {
    "rules": RULES,
    "norms only": {"norm_decay_mult": 0.0, "bypass_duplicate": True},
    "biases only": {"bias_decay_mult": 0.0, "bypass_duplicate": True},
    "flat": {"flat_decay_mult": 0.0, "bias_lr_mult": None, "bypass_duplicate": True},
    "keys": {
        **RULES,
        "custom_keys": {
            "weight": {"lr_mult": 0.1, "decay_mult": 0.9},
            "bias": {"lr_mult": 0.2},
            ".0.": {"decay_mult": 0.3, "momentum": 0.5},
            ".1.": {"lr": 0.007, "weight_decay": 0.002},
            "norm": {},
        },
    },
}


def peer(net, config, lr=LR, weight_decay=WEIGHT_DECAY):
    """What MMEngine's own constructor gives each parameter: lr, weight decay, momentum."""
    optim = pytest.importorskip("mmengine.optim")
    logging.disable(logging.CRITICAL)
    try:
        wrapper = optim.DefaultOptimWrapperConstructor(
            {
                "type": "OptimWrapper",
                "optimizer": {
                    "type": "SGD",
                    "lr": lr,
                    "momentum": 0.9,
                    "weight_decay": weight_decay,
                },
            },
            config,
        )(net)
    finally:
        logging.disable(logging.NOTSET)
    of = {
        id(tensor): (group["lr"], group["weight_decay"], group["momentum"])
        for group in wrapper.optimizer.param_groups
        for tensor in group["params"]
    }
    named = net.named_parameters()
    return {name: of[id(p)] for name, p in named if p.requires_grad}


def ours(net, config, **kwargs):
    """The same of a plan, by raw names."""
    scheme = nnlr.mmengine(config, **kwargs)
    plan = nnlr.resolve(net, scheme, lr=LR, weight_decay=WEIGHT_DECAY)
    of = {
        id(tensor): (group["lr"], group["weight_decay"], group.get("momentum", 0.9))
        for group in plan.param_groups(names=False)
        for tensor in group["params"]
    }
    return {n: of[id(p)] for n, p in net.named_parameters() if p.requires_grad}


@pytest.mark.no_cover
class TestLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.mmengine(None),
            nnlr.mmengine(RULES),
            nnlr.mmengine({"custom_keys": {".": {"lr_mult": 0.1}}}),
        ]


SAMPLE = [(config, name) for config in ("rules", "keys") for name in MODELS] + [
    (config, name)
    for config in ("norms only", "biases only", "flat")
    for name in ("every_norm", "attention", "tied", "mobilenet")
]


@pytest.mark.parametrize(("config", "name"), SAMPLE)
@pytest.mark.no_cover
def test_equals_mmengine(config, name):
    """Rates of every trainable parameter equal MMEngine's own to 1e-12."""
    expected = peer(model(name), CONFIGS[config])
    actual = ours(model(name), CONFIGS[config], strict=False)
    assert expected.keys() == actual.keys()
    for parameter, rates in expected.items():
        assert actual[parameter] == pytest.approx(rates, rel=1e-12, abs=0), parameter


def drawn(net, rng):
    """A random configuration, with pieces of the model's names as keys."""
    names = [name if "." in name else f".{name}" for name, _ in net.named_parameters()]
    keys = {}
    for name in rng.choices(names, k=4):
        start, stop = sorted(rng.sample(range(len(name) + 1), 2))
        item = {"lr_mult": 0.1, "decay_mult": 0, "lr": 0.007, "momentum": 0.4}
        kept = rng.sample(sorted(item), rng.randrange(3))
        keys[name[start:stop]] = {setting: item[setting] for setting in kept}
    rules = rng.sample([rule for rule in RULES if rule.endswith("mult")], 3)
    values = {rule: rng.choice([0.3, 1.0, 2.5, None]) for rule in rules}
    return {**values, "bypass_duplicate": True, "custom_keys": keys}


# Segments of parametrizations are part of MMEngine's names, and of none of ours.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "weight_norm"])
@pytest.mark.no_cover
def test_equals_mmengine_under_random_configurations(name):
    """Three for each model, with pieces of names as keys."""
    rng = random.Random(name)  # noqa: S311  no secret
    for _ in range(3):
        config = drawn(model(name), rng)
        expected = peer(model(name), config)
        actual = ours(model(name), config, strict=False)
        for parameter, rates in expected.items():
            wanted = pytest.approx(rates, rel=1e-12, abs=0)
            assert actual[parameter] == wanted, (config, parameter)


def test_a_configuration_read_by_mmengine_is_taken():
    """Its ``ConfigDict`` is as good as a dict."""
    config = pytest.importorskip("mmengine").Config({"paramwise_cfg": CONFIGS["keys"]})
    net = model("every_norm")
    expected = ours(net, CONFIGS["keys"], strict=False)
    assert expected == ours(net, config.paramwise_cfg, strict=False)


def test_mistakes_are_noted_in_the_order_of_the_configuration():
    """Which one is refused first does not hang on Python's hash seed."""
    unknown = ["zz", "yy", "xx", "ww", "vv", "uu", "tt", "ss"]
    scheme = nnlr.mmengine(dict.fromkeys(unknown, 0), strict=False)
    noted = [found.cause.rpartition(" ")[2] for found in scheme.watch.noted]
    assert [repr(key) for key in unknown] == noted
    others = dict.fromkeys(("num_layers", "decay_rate"), 1)
    with pytest.raises(ConfigError, match="'num_layers'"):
        nnlr.mmengine(others)


@pytest.mark.full
@pytest.mark.parametrize("config", CONFIGS)
def test_equals_mmengine_on_every_25th_timm_model(config):
    """The same over a wide sample of architectures."""
    timm = pytest.importorskip("timm")
    for name in timm.list_models()[::25]:
        with torch.device("meta"):
            net = timm.create_model(name)
        expected = peer(net, CONFIGS[config])
        actual = ours(net, CONFIGS[config], strict=False)
        for parameter, rates in expected.items():
            wanted = pytest.approx(rates, rel=1e-12, abs=0)
            assert actual[parameter] == wanted, (name, parameter)


class Deformable(nn.Module):
    """What mmcv's deformable convolution looks like to the constructor."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4, 3, 3))
        self.bias = nn.Parameter(torch.zeros(4))
        self.conv_offset = nn.Conv2d(4, 18, 3)
        self.conv_offset_norm = nn.BatchNorm2d(18)


def deformable_class(name):
    """A class that calls itself mmcv's."""
    module = f"mmcv.ops.{name}"
    names = {"deform_conv": "DeformConv2d"}
    qualified = names.get(name, "ModulatedDeformConv2d")
    return type(qualified, (Deformable,), {"__module__": module, "__qualname__": qualified})


@pytest.mark.parametrize("kind", ["deform_conv", "modulated_deform_conv"])
def test_offsets_of_deformable_convolutions_equal_mmengine(kind, monkeypatch):
    """dcn_offset_lr_mult, and what a deformable convolution exempts its children from."""
    constructor = pytest.importorskip("mmengine.optim.optimizer.default_constructor")
    cls = deformable_class(kind)
    fake = ModuleType("mmcv.ops")
    fake.DeformConv2d = fake.ModulatedDeformConv2d = cls
    monkeypatch.setitem(sys.modules, "mmcv", ModuleType("mmcv"))
    monkeypatch.setitem(sys.modules, "mmcv.ops", fake)
    monkeypatch.setattr(constructor, "mmcv_full_available", lambda: True)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), cls(), nn.BatchNorm2d(4))
    expected = peer(net, RULES)
    assert expected == ours(net, RULES)
    assert expected["1.conv_offset.bias"][0] == pytest.approx(0.001)
    for rule in RULES:
        others = {key: value for key, value in RULES.items() if key != rule}
        assert peer(net, others) == ours(net, others)
    net[1].conv_offset = torch.compile(net[1].conv_offset, backend="eager")
    compiled = ours(net, RULES)
    assert expected["1.conv_offset.bias"] == compiled["1.conv_offset._orig_mod.bias"]


def test_convolutions_of_every_grouping_equal_mmengine():
    """One input channel counts as depthwise, several groups do not; a scalar is not flat."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2))
    net.scale = nn.Parameter(torch.zeros(()))
    expected = peer(net, RULES)
    assert expected == ours(net, RULES)
    assert 0.25 * WEIGHT_DECAY == expected["0.weight"][1]
    assert WEIGHT_DECAY == expected["1.weight"][1] == expected["scale"][1]


def test_an_empty_configuration_says_nothing():
    """``None`` and ``{}`` leave every parameter at the base rates, as in MMEngine."""
    for config in (None, {}):
        plan = nnlr.resolve(every_norm(), nnlr.mmengine(config), lr=1, weight_decay=1)
        assert all(row.trace == () for row in plan)


def test_settings_of_a_key_become_options():
    """Other items of a custom key reach the group."""
    scheme = nnlr.mmengine({"custom_keys": {"head": {"betas": [0.8, 0.9], "lr_mult": 2}}})
    plan = nnlr.resolve(every_norm(), scheme, lr=0.1, weight_decay=0)
    assert {"betas": (0.8, 0.9)} == plan["head.2.weight"].options
    assert plan["head.2.weight"].lr == 0.2


@pytest.mark.parametrize(
    "setting",
    [
        "decoupled_weight_decay",
        "momentum_decay",
        "lr_decay",
        "decay_rate",
        "beta2_decay",
    ],
)
def test_settings_that_only_sound_like_rates_are_settings(setting):
    """Optimizers have arguments such as ``decoupled_weight_decay``."""
    scheme = nnlr.mmengine({"custom_keys": {"head": {setting: 0.5}}})
    plan = nnlr.resolve(every_norm(), scheme, lr=1, weight_decay=1)
    assert {setting: 0.5} == plan["head.2.weight"].options


def test_the_trace_names_the_key_or_the_rules():
    """``explain`` says what decided."""
    config = {"custom_keys": {"head": {"lr_mult": 2}}, **RULES}
    plan = nnlr.resolve(every_norm(), nnlr.mmengine(config), lr=0.1, weight_decay=0.1)
    assert "mmengine(...): custom key 'head'" in plan.explain("head.2.weight")
    assert "bias_lr_mult, bias_decay_mult" in plan.explain("backbone.0.bias")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"norm_decay_mul": 0},
            r"unknown key 'norm_decay_mul'(?s:.*)Nearest: 'norm_decay_mult'",
        ),
        ({"zzz": 0}, r"unknown key 'zzz'(?s:.*)Known: custom_keys"),
        ({"num_layers": 12}, "for another constructor(?s:.*)nnlr.layer_decay"),
        (
            {"custom_keys": {"a": {"lr_mlt": 1}}},
            "key 'lr_mlt', which does nothing(?s:.*)'lr_mult'",
        ),
        (
            {"custom_keys": {"a": {"lr": 1, "lr_mult": 1}}},
            "'lr_mult' beside 'lr', which overrides it",
        ),
    ],
)
def test_what_mmengine_ignores_is_an_error(config, message):
    """Unknown, misspelt and overridden keys are refused at the call, or become findings."""
    with pytest.raises(ConfigError, match=message):
        nnlr.mmengine(config)
    net = nn.ModuleDict({"m": nn.ModuleDict({"a": nn.Linear(1, 1)})})
    lenient = nnlr.mmengine(config, strict=False).within("m")
    (found,) = nnlr.resolve(net, lenient, lr=1, weight_decay=1).findings
    assert () == found.names  # it is about the configuration, not about parameters


@pytest.mark.parametrize(("name", "meant"), [("wd_mult", "decay_mult"), ("lr_scale", "lr_mult")])
def test_names_of_other_frameworks_are_pointed_out(name, meant):
    """Two configurations of MMSegmentation set ``wd_mult``, which does nothing there."""
    scheme = nnlr.mmengine({"custom_keys": {"weight": {name: 0}}})
    plan = nnlr.resolve(nn.Linear(1, 1), scheme, lr=1, weight_decay=1)
    (found,) = plan.findings
    assert "warning" == found.severity
    assert f"{name!r}, which no optimizer reads" in found.cause
    assert meant in found.fix
    assert (1, {}) == (plan["weight"].weight_decay, dict(plan["weight"].options))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([1], "paramwise_cfg must be a mapping"),
        ({3: 1}, "paramwise_cfg has the key 3, which is no string"),
        ({"custom_keys": {"a": 0.1}}, "custom key 'a' must be a mapping"),
        ({"bias_lr_mult": -1}, "bias_lr_mult must be a finite number >= 0, got -1"),
        ({"custom_keys": {"a": {"lr_mult": "x"}}}, "lr_mult of custom key 'a' must be"),
        ({"custom_keys": {"a": {"initial_lr": 1}}}, "may not set 'initial_lr'"),
        ({"bypass_duplicate": 1}, "bypass_duplicate must be True or False"),
    ],
)
def test_malformed_configurations_are_refused(config, message):
    """With or without leniency, and at the call."""
    for strict in (True, False):
        with pytest.raises(NnlrError, match=message):
            nnlr.mmengine(config, strict=strict)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "backbon.",
            "'backbon.' matches no parameter of ModuleDict(?s:.*)Nearest: 'backbone'",
        ),
        ("head.0", "'head.0' has no effect on ModuleDict(?s:.*)tied to another name"),
    ],
)
def test_a_custom_key_without_effect_is_an_error(key, message):
    """One that matches nothing, or only the second name of a tied tensor."""
    config = {"custom_keys": {key: {"lr_mult": 0.1}}}
    net = every_norm()
    with pytest.raises(PatternError, match=message):
        nnlr.resolve(net, nnlr.mmengine(config), lr=1, weight_decay=1)
    scheme = nnlr.mmengine(config, strict=False)
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=1)
    assert ["no-effect"] == [found.kind for found in plan.findings]
    assert all(row.lr == 1 for row in plan)


def test_a_key_for_the_root_may_be_claimed_by_a_longer_one():
    """It does match: the leading dot is part of the names of the root's parameters."""
    config = {"custom_keys": {".weigh": {"lr_mult": 2}, ".weight": {"lr_mult": 3}}}
    with pytest.raises(PatternError, match=r"'\.weigh' has no effect on Linear"):
        nnlr.resolve(nn.Linear(2, 2), nnlr.mmengine(config), lr=1, weight_decay=1)


def test_bare_tensors_have_no_classes():
    """Rules by class need the modules; custom keys do not."""
    tensors = dict(nn.Linear(2, 2).named_parameters())
    with pytest.raises(NnlrError, match="resolve the model itself, not its bare tensors"):
        nnlr.resolve(tensors, nnlr.mmengine(RULES), lr=1, weight_decay=1)
    scheme = nnlr.mmengine({"custom_keys": {"bias": {"lr_mult": 2}}})
    assert nnlr.resolve(tensors, scheme, lr=1, weight_decay=1)["bias"].lr == 2


def kinds(config, net):
    """Findings of a plan by kind."""
    plan = nnlr.resolve(net, nnlr.mmengine(config), lr=1, weight_decay=1)
    return {found.kind: found for found in plan.findings}


def test_a_key_that_cancels_the_rules_is_pointed_out():
    """A custom key wipes other rules (mmengine #846): a slower backbone decays its norms again."""
    config = {"norm_decay_mult": 0, "custom_keys": {"backbone": {"lr_mult": 0.1}}}
    found = kinds(config, every_norm())["rules-cancelled"]
    assert {"backbone.1.weight", "backbone.1.bias"} <= set(found.names)
    assert "backbone.0.weight" not in found.names
    assert "mmengine(...) * nnlr.rule('*backbone*', lr_mult=...)" in found.fix
    config["custom_keys"]["backbone"]["decay_mult"] = 0
    assert "rules-cancelled" not in kinds(config, every_norm())
    config["custom_keys"]["backbone"] = {"weight_decay": 0}
    assert "rules-cancelled" in kinds(config, every_norm())


def test_a_key_that_cuts_segments_is_pointed_out():
    """``1`` of ten layers is also in ``10``; one that always cuts is meant so."""
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(11)))
    found = kinds({"custom_keys": {".1": {"lr_mult": 0.1}}}, nn.ModuleDict({"a": net}))
    assert ("a.10.weight", "a.10.bias") == found["segment-cut"].names
    assert "warning" == found["segment-cut"].severity
    always = {"custom_keys": {"eigh": {"lr_mult": 0.1}}}
    assert "segment-cut" not in kinds(always, net)


def test_norms_of_other_classes_are_pointed_out():
    """norm_decay_mult does not know RMSNorm."""
    found = kinds({"norm_decay_mult": 0}, every_norm())["norm-not-reached"]
    assert ("neck.1.weight",) == found.names


def test_undocumented_reach_of_bias_decay_is_pointed_out():
    """Norm biases without norm_decay_mult, and depthwise biases."""
    found = kinds({"bias_decay_mult": 0, "dwconv_decay_mult": 0}, every_norm())
    assert "backbone.1.bias" in found["norm-bias"].names
    assert ("backbone.0.bias",) == found["dwconv-bias"].names
    plain = kinds({"bias_decay_mult": 0, "dwconv_decay_mult": 0}, nn.Linear(2, 2))
    assert {} == plain


def test_a_parameter_without_a_module_is_in_no_deformable_convolution():
    """Described bare tensors have no parents."""
    info = nnlr._model.describe.describe({"a": torch.zeros(2)})
    assert paramwise._in_deformable(info.places[0][0]) is False


def test_frozen_parameters_stay_out_of_the_groups():
    """MMEngine skips them; so do the groups of a plan."""
    net = model("half_frozen")
    assert set(trainable(net)) == ours(net, RULES).keys()


def test_a_key_with_a_leading_dot_matches_at_the_root():
    """MMEngine joins an empty path and a name with a dot; so a root's own tensor has one."""
    config = {"custom_keys": {".cls_token": {"decay_mult": 0.0}, ".pos_": {"lr_mult": 2}}}
    net = model("vit")
    assert peer(net, config) == ours(net, config)
    assert ours(net, config)["cls_token"][1] == 0
