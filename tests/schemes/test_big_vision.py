"""``big_vision(...)``: parity with the published update, step by step."""

import re

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import CoverageError, NnlrError, PatternError
from nnlr.schemes._frameworks.big_vision import flax_name
from nnlr.testing import SchemeLaws
from tests import zoo
from tests.schemes.real_models import MODELS, model

LR, WD = 1e-3, 1e-4

CONFIGS = {
    "default": {},
    "lists": {
        "lr_mults": [(".*/bias", 2.0), (".*[02].*", 0.1), (".*norm.*", 0.3)],
        "wd_mults": [(".*embedding", 0.5), (".*/kernel", 1.0), (".*1.*", 0.1)],
    },
    "frozen": {
        "lr_mults": [(".*/kernel", 0.5)],
        "schedule": [
            (".*bias", None),
            (".*1.*", {"decay_type": "cosine", "mult": 0.1}),
            (".*", {"decay_type": "cosine"}),
        ],
    },
    "one schedule": {"schedule": {"decay_type": "cosine", "mult": 0.5}},
}


def first(pairs, name, default):
    """The value of the first pattern that matches the whole name."""
    return next((v for p, v in pairs if re.fullmatch(p, name)), default)


def twin(name, lr_mults=(), wd_mults=((".*/kernel$", 1.0),), schedule=None):
    """Speed of the update and of the decay at the peak of the schedule."""
    if not isinstance(schedule, list):
        schedule = [(".*", schedule or {})]
    course = first(schedule, name, "uncovered")
    if course is None:
        return 0.0, 0.0
    peak = course.get("mult", 1.0)
    speed = peak * LR * first(lr_mults, name, 1.0)
    return speed, peak * WD * first(wd_mults, name, 0.0)


class TestLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.big_vision(),
            nnlr.big_vision([(".*bias", 2)], [(".*", 0.5)]),
            nnlr.big_vision(schedule=[(".*bias", None), (".*", {})]),
        ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("config", CONFIGS)
def test_equals_the_published_update(name, config):
    """lr, and lr times weight decay, of every parameter."""
    net, settings = model(name), CONFIGS[config]
    scheme = nnlr.big_vision(**settings, strict=False)
    plan = nnlr.resolve(net, scheme, lr=LR, weight_decay=WD / LR)
    for param in nnlr._model.describe.describe(net).params:
        speed, decay = twin(flax_name(param), **settings)
        row = plan[param.name]
        assert speed == pytest.approx(row.lr, rel=1e-12, abs=0)
        assert decay == pytest.approx(row.lr * row.weight_decay, rel=1e-12, abs=0)
        assert (speed == 0) == (row.lr == 0)


def test_steps_of_sgd_equal_the_published_formula():
    """Ten steps of p -= s (lr lr_mult g + wd wd_mult p), with a schedule."""
    net = zoo.plain()
    lr_mults = [("embed/.*", 0.1), ("blocks/0/.*", 0.5)]
    wd_mults = [(".*/kernel", 1.0), (".*/scale", 0.25)]
    plan = nnlr.resolve(net, nnlr.big_vision(lr_mults, wd_mults), lr=0.1, weight_decay=0.02 / 0.1)
    optimizer = plan.optimizer(torch.optim.SGD)
    speeds = [0.1 * 0.9**t for t in range(10)]
    expected = {n: p.detach().double().clone() for n, p in net.named_parameters()}
    names = {p.name: flax_name(p) for p in nnlr._model.describe.describe(net).params}
    peaks = [group["lr"] for group in optimizer.param_groups]
    for t in range(10):
        for param in net.parameters():
            param.grad = torch.sin(param.detach() + t)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * 0.9**t
        for name, param in net.named_parameters():
            update = speeds[t] * first(lr_mults, names[name], 1.0) * param.grad.double()
            decay = 0.02 * 0.9**t * first(wd_mults, names[name], 0.0) * expected[name]
            expected[name] = expected[name] - update - decay
        optimizer.step()
    for name, param in net.named_parameters():
        assert torch.allclose(expected[name].float(), param, rtol=1e-5, atol=1e-6), name


def test_decay_modes_leave_its_decay_alone():
    """It already compensates for its own lr_mult."""
    net = zoo.plain()
    scheme = nnlr.big_vision([("blocks/.*", 0.1)])
    plans = [
        nnlr.resolve(net, scheme, lr=LR, weight_decay=WD / LR, decay=decay)
        for decay in ("coupled", "independent")
    ]
    for one, two in zip(*plans, strict=True):
        assert one.weight_decay == two.weight_decay


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (zoo.plain, {"embed/embedding", "blocks/0/fc/kernel", "blocks/0/norm/scale"}),
        (
            zoo.attention,
            {"in_proj/kernel", "in_proj/bias", "out_proj/kernel", "k/bias"},
        ),
        (
            zoo.lstm,
            {"ih_l0/kernel", "hh_l0_reverse/kernel", "hr_l0/kernel", "hh_l1/bias"},
        ),
        (
            zoo.VisionTokens,
            {"cls_token", "pos_embed", "gamma_1", "logit_scale", "kernel"},
        ),
        (zoo.weight_norm, {"fc/kernel", "fc/scale", "fc/bias"}),
        (zoo.own_classes, {"c/w/kernel", "c/b"}),
    ],
)
def test_names_are_those_of_flax(make, expected):
    """kernel, scale, embedding and bias; raw parameters keep their names."""
    names = {flax_name(param) for param in nnlr._model.describe.describe(make()).params}
    assert expected == names & expected, names


def test_a_naming_of_ones_own():
    """Patterns written for another spelling keep theirs."""
    scheme = nnlr.big_vision(
        [("img/head", 5.0)], name_of=lambda param: f"img/{param.name.split('.')[0]}"
    )
    plan = nnlr.resolve(zoo.plain(), scheme, lr=1, weight_decay=1)
    assert 5.0 == plan["head.weight"].lr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"lr_mults": "a"},
            r"lr_mults must be a list of \(pattern, value\) pairs, got 'a'",
        ),
        ({"lr_mults": {"a": 1}}, "lr_mults must be a list of"),
        ({"lr_mults": 3}, "lr_mults must be a list of"),
        (
            {"lr_mults": ["ab", 1]},
            r"lr_mults must hold \(pattern, value\) pairs, got 'ab'",
        ),
        ({"lr_mults": [("/a", 1)]}, "'/a' of lr_mults starts with a slash"),
        ({"lr_mults": [("(", 1)]}, r"'\(' is no regular expression"),
        ({"lr_mults": [(3, 1)]}, "pattern of lr_mults must be a string, got 3"),
        (
            {"lr_mults": [("a", 0)]},
            r"must be a finite number > 0.*schedule=\[\(pattern, None",
        ),
        ({"lr_mults": [("a", "b")]}, "lr_mults must be a finite number > 0, got 'b'"),
        ({"wd_mults": [("a", -1)]}, "wd_mults must be a finite number >= 0"),
        ({"schedule": [("a", 3)]}, "a schedule must be a mapping, got 3"),
        ({"schedule": {"mult": 0}}, "mult of a schedule must be a finite number > 0"),
        (
            {"schedule": [("a", {"warmup_steps": 1}), ("b", {})]},
            "schedule gives different courses.*only mult may differ",
        ),
        (
            {
                "schedule": [
                    ("a", {"decay_type": "linear", "linear_end": 0.1}),
                    ("b", {"decay_type": "linear", "linear_end": 0.1, "mult": 0.1}),
                ]
            },
            "courses of different mult end at 0.1.*give them one mult",
        ),
        (
            {"schedule": [("a", {"end": 0.2}), ("b", {"end": 0.2, "mult": 2})]},
            "courses of different mult end at 0.2",
        ),
        ({"name_of": "x"}, "name_of must be a function of ParamInfo"),
    ],
)
def test_malformed_settings_are_refused(settings, message):
    """At the call."""
    with pytest.raises(NnlrError, match=message):
        nnlr.big_vision(**settings)


class ConfigDict:
    """What big_vision's configurations are made of: like a mapping, and none."""

    def __init__(self, **values):
        self.values = values

    def keys(self):
        return list(self.values)

    def __iter__(self):
        return iter(self.values)

    def __getitem__(self, key):
        return self.values[key]

    def __repr__(self):
        return "".join(f"{key}: {value}\n" for key, value in self.values.items())


def test_a_schedule_may_be_a_config_dict():
    """ml_collections turns every dict of a configuration into one."""
    half = ConfigDict(linear_end=0.1, mult=0.5)
    same = [("embed/.*", half), ("head/.*", None), (".*", half)]
    for schedule in (half, same):
        scheme = nnlr.big_vision(schedule=schedule)
        plan = nnlr.resolve(zoo.plain(), scheme, lr=1, weight_decay=1)
        assert 0.5 == plan["embed.weight"].lr
        assert "\n" not in repr(scheme)


def test_a_pattern_without_effect_is_an_error():
    """One that matches nothing, or only what earlier ones have."""
    net = zoo.plain()
    scheme = nnlr.big_vision([("head/kernal", 0.1)])
    with pytest.raises(PatternError, match=r"lr_mults pattern 'head/kernal' (?s:.*)'head/kernel'"):
        nnlr.resolve(net, scheme, lr=1, weight_decay=1)
    scheme = nnlr.big_vision(wd_mults=[(".*", 1), ("head/kernel", 0.1)])
    with pytest.raises(PatternError, match="'head/kernel' has no effect"):
        nnlr.resolve(net, scheme, lr=1, weight_decay=1)
    scheme = nnlr.big_vision([("hea", 0.1)], strict=False)
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=1)
    assert ["no-effect"] == [found.kind for found in plan.findings]


def test_a_schedule_must_cover_every_parameter():
    """As in big_vision."""
    scheme = nnlr.big_vision(schedule=[("head/.*", {}), ("embed/.*", None)])
    with pytest.raises(CoverageError, match="schedule leaves out 8 parameters of Net"):
        nnlr.resolve(zoo.plain(), scheme, lr=1, weight_decay=1)


def test_a_default_that_decays_nothing_is_pointed_out():
    """A root's own weight is called kernel, without a path, here as in Flax."""
    plan = nnlr.resolve(nn.Linear(2, 2), nnlr.big_vision(), lr=1, weight_decay=1)
    assert ["no-decay"] == [found.kind for found in plan.findings]
    assert () == nnlr.resolve(zoo.plain(), nnlr.big_vision(), lr=1, weight_decay=1).findings


def test_the_trace_names_the_patterns():
    """``explain`` says which pattern decided, and that none did."""
    plan = nnlr.resolve(zoo.plain(), nnlr.big_vision([("head/.*", 2)]), lr=1, weight_decay=1)
    assert "lr_mults 'head/.*'" in plan.explain("head.weight")
    assert "no wd_mults" in plan.explain("embed.weight")
