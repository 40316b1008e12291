"""``big_vision(...)``: parity with the published update, step by step."""

import math
import re

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, CoverageError, NnlrError, PatternError
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


@pytest.mark.no_cover
class TestLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.big_vision(),
            nnlr.big_vision([(".*bias", 2)], [(".*", 0.5)]),
            nnlr.big_vision(schedule=[(".*bias", None), (".*", {})]),
        ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.no_cover
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
        ({"schedule": {"base": 1}}, "a schedule has no 'base'. Write mult"),
        ({"schedule": {"total_steps": 1}}, r"no 'total_steps'. Pass it later: courses\(total_"),
        ({"schedule": {"decay_type": "cos"}}, "decay_type of a schedule must be one of"),
        ({"schedule": {"warmup_steps": -1}}, "warmup_steps of a schedule must be a finite"),
        ({"schedule": {"warmup_percent": 5}}, "warmup_percent of a schedule must be .* <= 1"),
        ({"schedule": {"scale_with_batchsize": 1}}, "scale_with_batchsize of a schedule must be"),
        (
            {"schedule": {"warmup_steps": 1, "warmup_epochs": 2}},
            "a schedule has warmup_steps and warmup_epochs: drop one",
        ),
        ({"schedule": {"steps": [1]}}, r"must be lists of equal length, got \[1\] and \(\)"),
        ({"schedule": {"steps": ["a"], "mults": [1]}}, "each of steps of a schedule must be"),
        ({"schedule": {"steps": [1], "mults": ["a"]}}, "each of mults of a schedule must be"),
        ({"schedule": {"steps": [3, 1], "mults": [1, 1]}}, "steps of a schedule must rise"),
        ({"schedule": {"timescale": 0}}, "timescale of a schedule must be a finite number > 0"),
        ({"lr_mults": {"lr": 1, "wd_mutls": []}}, "the configuration has the key 'wd_mutls'"),
        ({"lr_mults": {"lr": 1}, "wd_mults": []}, "a whole configuration, or its parts; not both"),
        ({"name_of": "x"}, "name_of must be a function of ParamInfo"),
    ],
)
def test_malformed_settings_are_refused(settings, message):
    """At the call."""
    with pytest.raises(NnlrError, match=message):
        nnlr.big_vision(**settings)


def test_names_of_a_configurations_own_are_passed_over():
    """As big_vision's users write them."""
    config = {"lr": 1e-3, "wd": 1e-4, "schedule_base": {}, "discriminator_schedule": []}
    plan = nnlr.resolve(zoo.plain(), nnlr.big_vision(config), lr=1e-3, weight_decay=0.1)
    assert not plan.findings


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


def reference(
    total_steps,
    batch_size=None,
    data_size=None,
    *,
    mult=1.0,
    decay_type="stair",
    scale_with_batchsize=False,
    **kw,
):
    """The published schedule in plain words: the value at each step."""

    def duration(phase):
        if f"{phase}_steps" in kw:
            return kw[f"{phase}_steps"]
        for unit, size in {
            "examples": lambda: 1 / batch_size,
            "epochs": lambda: data_size / batch_size,
            "percent": lambda: total_steps,
        }.items():
            if f"{phase}_{unit}" in kw:
                return max(1, round(kw[f"{phase}_{unit}"] * size()))
        return 0

    warm_up, cool_down = duration("warmup"), duration("cooldown")
    values = []
    for step in range(total_steps):
        value = mult * (batch_size / 256 if scale_with_batchsize else 1)
        progress = min(max((step - warm_up) / (total_steps - warm_up), 0), 1)
        if decay_type in {"linear", "polynomial"}:
            zero = kw.get("end", kw.get("linear_end", 0))
            value = zero + (value - zero) * (1 - progress) ** kw.get("power", 1)
        elif decay_type == "cosine":
            value *= 0.5 * (1 + math.cos(math.pi * progress))
        elif decay_type == "rsqrt":
            t = kw.get("timescale", 10_000)
            if "timescale_examples" in kw:
                t = kw["timescale_examples"] / batch_size
            shift = kw.get("shift", 0)
            late = step - warm_up if warm_up <= step else 0
            value /= math.sqrt(1 + (late + shift) / t)
        else:
            value *= [1.0, *kw.get("mults", [])][sum(s < step + 1 for s in kw.get("steps", []))]
        value *= min(1, step / warm_up) if warm_up else 1
        value *= min(1, (total_steps - step) / cool_down) if cool_down else 1
        values.append(value)
    return values


SIZES = {"total_steps": 24, "batch_size": 64, "data_size": 512}

# The schedules that big_vision ships, shortened to 24 steps.
SHIPPED = {
    "vit_i1k, bit_i1k, transfer, flexivit": {"decay_type": "cosine", "warmup_steps": 6},
    "mlp_mixer_i1k": {"decay_type": "linear", "warmup_steps": 6, "linear_end": 1e-5},
    "gsam": {"decay_type": "linear", "warmup_steps": 6, "linear_end": 0.01},
    "vit_i21k, vit_g": {
        "decay_type": "rsqrt",
        "timescale": 5,
        "warmup_steps": 5,
        "cooldown_steps": 9,
    },
    "clippo": {"decay_type": "rsqrt", "timescale": 10, "warmup_steps": 5, "cooldown_steps": 5},
    "givt, jet": {"decay_type": "cosine", "warmup_percent": 0.1},
    "vae_nyu_depth": {"decay_type": "cosine", "warmup_steps": 0.1},
    "lit_coco": [("embed/.*", None), (".*", {"decay_type": "cosine", "warmup_steps": 6})],
    "paligemma": [
        ("embed/.*", None),
        ("blocks/.*", {"decay_type": "cosine", "warmup_percent": 0.05}),
        ("head/.*", {"decay_type": "cosine", "warmup_percent": 0.05}),
    ],
}

# What the function can and no shipped configuration does.
SHAPES = {
    "shapes": [
        ("embed/.*", {"decay_type": "cosine", "mult": 0.1, "warmup_epochs": 1}),
        ("blocks/0/.*", {"decay_type": "rsqrt", "timescale_examples": 640, "shift": 3}),
        ("head/.*", {"decay_type": "stair", "steps": [4, 9], "mults": [0.5, 0.1], "mult": 2}),
        (".*", {"decay_type": "polynomial", "power": 2, "end": 0.1, "warmup_examples": 128}),
    ],
    "ends": [
        ("embed/.*", {"decay_type": "linear", "linear_end": 0.1}),
        (".*", {"decay_type": "linear", "linear_end": 0.1, "mult": 0.3}),
    ],
    "mults": [
        (".*bias", None),
        ("embed/.*", {"decay_type": "linear"}),
        (".*", {"decay_type": "linear", "mult": 0.3}),
    ],
    "batch": {
        "decay_type": "linear",
        "end": 0.02,
        "scale_with_batchsize": True,
        "cooldown_percent": 0.2,
    },
    "none": {},
}


@pytest.mark.parametrize("schedule", [*SHIPPED.values(), *SHAPES.values()])
def test_schedules_equal_the_published_function_step_by_step(schedule):
    """The rate, and the rate times decay, of every parameter at every step."""
    net = zoo.plain()
    lr_mults = [("head/.*", 3.0)]
    scheme = nnlr.big_vision({"lr": LR, "wd": WD, "lr_mults": lr_mults, "schedule": schedule})
    plan = nnlr.resolve(net, scheme, lr=LR, weight_decay=WD / LR)
    optimizer = plan.optimizer(torch.optim.SGD)
    scheduler = nnlr.schedule(optimizer, scheme.courses(**SIZES))
    pairs = schedule if isinstance(schedule, list) else [(".*", schedule)]
    due = {}
    for param in nnlr._model.describe.describe(net).params:
        course = first(pairs, flax_name(param), "uncovered")
        if course is not None:
            due[param.name] = flax_name(param), reference(**SIZES, **course)
    groups = {name: group for group in optimizer.param_groups for name in group["param_names"]}
    assert due.keys() == groups.keys()
    for step in range(SIZES["total_steps"]):
        for name, (flax, values) in due.items():
            lr = values[step] * LR * first(lr_mults, flax, 1.0)
            decay = values[step] * WD * first([(".*/kernel$", 1.0)], flax, 0.0)
            group = groups[name]
            assert lr == pytest.approx(group["lr"], rel=1e-9, abs=1e-15)
            assert decay == pytest.approx(group["lr"] * group["weight_decay"], rel=1e-9, abs=1e-15)
        optimizer.step()
        scheduler.step()


def test_a_group_of_a_schedule_is_in_its_course_only():
    """Ten schedules and more have numbers of which one begins with another."""
    patterns = [f"{at}/.*" for at in range(12)]
    schedule = [
        (pattern, {"steps": [1], "mults": [at + 1.0]}) for at, pattern in enumerate(patterns)
    ]
    scheme = nnlr.big_vision(schedule=schedule)
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(12)))
    plan = nnlr.resolve(net, scheme, lr=1.0, weight_decay=1.0)
    optimizer = plan.optimizer(torch.optim.SGD)
    scheduler = nnlr.schedule(optimizer, scheme.courses(total_steps=3))
    optimizer.step()
    scheduler.step()
    rates = {
        int(name.split(".")[0]): group["lr"]
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert {at: at + 1.0 for at in range(12)} == rates
    assert "schedule '3/.*'" in plan.explain("3.weight")


@pytest.mark.parametrize(
    ("schedule", "sizes", "message"),
    [
        ({"warmup_epochs": 1}, {"batch_size": 1}, r"warmup_epochs needs the data_size: pass"),
        ({"warmup_examples": 9}, {}, "warmup_examples needs the batch_size"),
        ({"scale_with_batchsize": True}, {}, "scale_with_batchsize needs the batch_size"),
        ({"warmup_steps": 9}, {}, "a warm-up of 9 steps is no shorter than the 9"),
        ([(".*", None)], {}, "Every schedule is None"),
        ({}, {"total_steps": 0}, "total_steps must be a whole number >= 1, got 0"),
        ({}, {"data_size": 0.5}, "data_size must be a whole number >= 1, got 0.5"),
    ],
)
def test_courses_say_what_they_need(schedule, sizes, message):
    """At the call of courses."""
    with pytest.raises(NnlrError, match=message):
        nnlr.big_vision(schedule=schedule).courses(**{"total_steps": 9, **sizes})


def test_a_misspelt_setting_of_a_schedule_is_an_error():
    """big_vision takes any key and reads those that it knows."""
    with pytest.raises(
        ConfigError, match=r"'warmup_step', which does nothing(?s:.*)'warmup_steps'"
    ):
        nnlr.big_vision(schedule={"warmup_step": 5})
    scheme = nnlr.big_vision(schedule={"warmup_step": 5}, strict=False)
    plan = nnlr.resolve(zoo.plain(), scheme, lr=1, weight_decay=1)
    assert ["misspelt-key"] == [found.kind for found in plan.findings]
    assert 1.0 == scheme.courses(total_steps=9)["*"].keywords["lr_lambda"](0)


def test_the_state_of_a_course_is_saved_and_goes_on():
    """Resumed in the middle it is where it was."""
    scheme = nnlr.big_vision(schedule=SHAPES["shapes"])

    def built():
        net = zoo.plain()
        plan = nnlr.resolve(net, scheme, lr=1.0, weight_decay=1.0)
        optimizer = plan.optimizer(torch.optim.SGD)
        return optimizer, nnlr.schedule(optimizer, scheme.courses(**SIZES))

    optimizer, scheduler = built()
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    _, resumed = built()
    resumed.load_state_dict(scheduler.state_dict())
    assert scheduler.get_last_lr() == resumed.get_last_lr()
    assert 1 < len(set(resumed.get_last_lr()))


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
