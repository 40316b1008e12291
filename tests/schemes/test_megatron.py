"""``megatron(...)``: parity with the published rules, and its silences broken."""

import fnmatch

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.schemes._frameworks.megatron import ParamKey
from nnlr.testing import SchemeLaws
from tests import zoo
from tests.schemes.real_models import MODELS, model

LR, WEIGHT_DECAY = 1e-3, 0.1


def is_matrix(param):
    """Whether it has two axes."""
    return param.dim() == 2


def is_early(param, name):
    """Whether it is of a first layer."""
    return ".0." in name


OVERRIDES = {
    ParamKey(name="*.bias", predicate=lambda param: param.dim() == 1): {"wd_mult": 0.0},
    ParamKey(name=("*.0.*", "*1*")): {"max_lr": 3e-4, "min_lr": 3e-5},
    ParamKey(predicate=is_matrix): {"eps": 1e-9, "betas": (0.9, 0.95)},
    ParamKey(with_name_predicate=is_early): {"max_lr": 3e-4, "start_wd": 0.01},
    "*weight": {"end_wd": 0.2},
}


def plain_key(key):
    """The four parts of a key, each as a list."""
    if isinstance(key, str):
        return [key], [], [], []
    parts = (key.name, key.attr, key.predicate, key.with_name_predicate)
    return [list(part) if isinstance(part, tuple) else [part] for part in parts]


def twin(net, overrides):
    """The published merge in plain words: overrides of every trainable parameter."""
    result = {}
    for name, param in net.named_parameters():
        if not param.requires_grad:
            continue
        merged = {}
        for key, override in overrides.items():
            names, attrs, tests, named_tests = plain_key(key)
            hit = any(fnmatch.fnmatchcase(name, n) for n in names)
            hit = hit or any(getattr(param, attr, False) for attr in attrs)
            hit = hit or any(test(param) for test in tests)
            if hit or any(test(param, name) for test in named_tests):
                for setting, value in override.items():
                    assert merged.setdefault(setting, value) == value
        rates = (
            merged.pop("max_lr", LR),
            WEIGHT_DECAY * merged.pop("wd_mult", 1.0),
        )
        result[name] = (rates, merged)
    return result


def standard(apply_wd_to_qk_layernorm=False):
    """What Megatron makes of its own settings."""

    def spared(param, name):
        if apply_wd_to_qk_layernorm and ("q_layernorm." in name or "k_layernorm." in name):
            return False
        return len(param.shape) == 1 or name.endswith(".bias")

    return {ParamKey(with_name_predicate=spared): {"wd_mult": 0.0}}


@pytest.mark.no_cover
class TestLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.megatron(),
            nnlr.megatron(decoupled_lr=1e-4),
            nnlr.megatron({"*weight": {"max_lr": 0.5}, nnlr.ndim(max=1): {"wd_mult": 0}}),
        ]


def check(net, scheme, expected):
    """Compare a plan with what the twin says."""
    plan = nnlr.resolve(net, scheme, lr=LR, weight_decay=WEIGHT_DECAY)
    names = {id(p): n for n, p in net.named_parameters()}
    found = 0
    for places, row in zip(nnlr._model.describe.describe(net).places, plan, strict=True):
        if row.trainable:
            rates, options = expected[names[id(places[0].tensor)]]
            assert rates == pytest.approx((row.lr, row.weight_decay), rel=1e-12, abs=0)
            assert options == dict(row.options)
            found += 1
    assert len(expected) == found


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_published_merge(name):
    """Rates and options under overlapping overrides, tied and frozen ones included."""
    scheme = nnlr.megatron(OVERRIDES, strict=False)
    check(model(name), scheme, twin(model(name), OVERRIDES))


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_standard_overrides(name):
    """No decay for biases and vectors."""
    check(model(name), nnlr.megatron(), twin(model(name), standard()))


class QKNorm(nn.Module):
    """Attention as Megatron names it."""

    def __init__(self):
        super().__init__()
        self.linear_qkv = nn.Linear(4, 12)
        self.q_layernorm = nn.LayerNorm(4)
        self.k_layernorm = nn.LayerNorm(4)


def test_norms_of_queries_and_keys_may_decay():
    """apply_wd_to_qk_layernorm, and a finding where no name asks for it."""
    net = nn.ModuleDict({"attention": QKNorm()})
    scheme = nnlr.megatron(apply_wd_to_qk_layernorm=True)
    check(net, scheme, twin(net, standard(apply_wd_to_qk_layernorm=True)))
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=1)
    assert plan["attention.q_layernorm.bias"].weight_decay == 1
    assert () == plan.findings
    plan = nnlr.resolve(zoo.plain(), scheme, lr=1, weight_decay=1)
    assert ["no-effect"] == [found.kind for found in plan.findings]


def test_shapes_and_names_part_what_decays():
    """A bias of two axes does not, a scalar and a root's own matrix called bias do."""
    net = nn.ModuleDict({"fc": nn.Linear(2, 2)})
    net["fc"].bias = nn.Parameter(torch.zeros(2, 2))
    net.scale = nn.Parameter(torch.zeros(()))
    net.bias = nn.Parameter(torch.zeros(2, 2))
    for qk in (False, True):
        scheme = nnlr.megatron(apply_wd_to_qk_layernorm=qk)
        check(net, scheme, twin(net, standard(apply_wd_to_qk_layernorm=qk)))
        plan = nnlr.resolve(net, scheme, lr=1, weight_decay=1)
        assert ["fc.bias"] == [row.name for row in plan if row.weight_decay == 0]


def test_the_decoupled_rate_is_that_of_embedding_and_output_layers():
    """By role, and by Megatron's own mark where there is one."""
    scheme = nnlr.megatron(decoupled_lr=3e-4, decoupled_min_lr=3e-5)
    plan = nnlr.resolve(zoo.plain(), scheme, lr=LR, weight_decay=WEIGHT_DECAY)
    slow = {row.name for row in plan if row.lr == 3e-4}
    assert {"embed.weight", "head.weight"} == slow
    assert {"min_lr": 3e-5} == plan["head.weight"].options
    assert ["min-lr"] == [found.kind for found in plan.findings]
    net = zoo.plain()
    net.head.weight.is_embedding_or_output_parameter = True
    plan = nnlr.resolve(net, scheme, lr=LR, weight_decay=WEIGHT_DECAY)
    assert {"head.weight"} == {row.name for row in plan if row.lr == 3e-4}
    assert "embedding and output layers" in plan.explain("head.weight")


class ForeignKey:
    """Any object that can say what it matches, such as Megatron's own."""

    def matches(self, param, param_name):
        return param_name == "head.weight"


def test_own_overrides_replace_the_standard_ones_unless_asked_for():
    """As in Megatron; ``standard=True`` joins both."""
    mine = {ForeignKey(): {"lr_mult": 0.5, "optimizer": "muon"}}
    alone = nnlr.resolve(zoo.plain(), nnlr.megatron(mine), lr=1, weight_decay=1)
    assert alone["blocks.0.norm.weight"].weight_decay == 1
    assert (0.5, "muon") == (alone["head.weight"].lr, alone["head.weight"].algorithm)
    assert ["lr-mult"] == [found.kind for found in alone.findings]
    joined = nnlr.megatron(mine, standard=True)
    plan = nnlr.resolve(zoo.plain(), joined, lr=1, weight_decay=1)
    assert plan["blocks.0.norm.weight"].weight_decay == 0
    assert all(row.trace == () for row in resolved(nnlr.megatron({})))


def resolved(scheme):
    """A plan on a plain model."""
    return nnlr.resolve(zoo.plain(), scheme, lr=1, weight_decay=1)


def test_overrides_that_disagree_are_an_error():
    """Unequal values of one setting; equal ones are merged."""
    agree = {"head.*": {"wd_mult": 0}, "*.weight": {"wd_mult": 0}}
    assert 0 == resolved(nnlr.megatron(agree))["head.weight"].weight_decay
    clash = {"head.*": {"wd_mult": 0}, nnlr.glob("*.weight"): {"wd_mult": 1}}
    with pytest.raises(ConfigError, match=r"wd_mult of 'head.weight' is set to 0 by .*to 1"):
        resolved(nnlr.megatron(clash))
    clash = {"head.*": {"max_lr": 1}, "*.weight": {"lr_mult": 1}}
    with pytest.raises(ConfigError, match=r"'head.weight' gets max_lr by .* and lr_mult by"):
        resolved(nnlr.megatron(clash))


def test_frozen_parameters_may_clash():
    """Megatron looks at trainable parameters only."""
    net = zoo.plain()
    net.head.requires_grad_(False)
    clash = {"head.*": {"wd_mult": 0}, "*.weight": {"wd_mult": 1}}
    plan = nnlr.resolve(net, nnlr.megatron(clash), lr=1, weight_decay=1)
    assert () == plan["head.weight"].trace


def test_megatrons_scheduler_gives_each_group_its_rates():
    """Its rule, max_lr and wd_mult of the group, as the page says to set them."""
    scheme = nnlr.megatron({"head.*": {"max_lr": 0.1, "wd_mult": 0.5}})
    net = zoo.plain()
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0.2)
    for group in plan.param_groups():
        group["max_lr"] = group["lr"]
        row = plan[group["params"][0][0]]
        assert row.lr == group.get("max_lr", 1)
        assert row.weight_decay == pytest.approx(0.2 * group.get("wd_mult", 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"config_overrides": {"*": {"wd_mul": 0}}},
            "'wd_mul', which does nothing(?s:.*)'wd_mult'",
        ),
        (
            {"config_overrides": {"*": {"lr": 1}}},
            "sets 'lr', which Megatron's scheduler overwrites(?s:.*)Set 'max_lr'",
        ),
        (
            {"config_overrides": {}, "decoupled_lr": 1},
            "decoupled_lr belongs to the standard overrides(?s:.*)standard=True",
        ),
        ({"decoupled_min_lr": 1}, "no effect without decoupled_lr"),
    ],
)
def test_what_megatron_ignores_is_an_error(arguments, message):
    """Or a finding, and the setting is left out."""
    with pytest.raises(ConfigError, match=message):
        nnlr.megatron(**arguments)
    plan = resolved(nnlr.megatron(**arguments, strict=False))
    assert 1 == len(plan.findings)
    assert all(row.options == {} and row.lr == 1 for row in plan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config_overrides": [1]}, "config_overrides must be a mapping of keys"),
        (
            {"config_overrides": {3: {}}},
            "must be a pattern, a selector or a ParamKey, got 3",
        ),
        (
            {"config_overrides": {ParamKey: {}}},
            "must be a pattern, a selector or a ParamKey, got",
        ),
        ({"config_overrides": {"*": 1}}, "override for '\\*' must be a mapping"),
        (
            {"config_overrides": {"*": {"max_lr": -1}}},
            "max_lr of override for .* must be",
        ),
        (
            {"config_overrides": {"*": {"min_lr": "a"}}},
            "min_lr of override for .* must be",
        ),
        (
            {"config_overrides": {"*": {"max_lr": 1, "lr_mult": 1}}},
            "sets max_lr and lr_mult",
        ),
        (
            {"config_overrides": {"*": {"optimizer": 1}}},
            "optimizer of .* must be a name",
        ),
        ({"config_overrides": {"*": {"eps": {}}}}, "option 'eps' of override"),
        ({"standard": 1}, "standard must be True or False"),
        ({"decoupled_lr": -1}, "decoupled_lr must be a finite number >= 0"),
        ({"decoupled_lr": 1, "decoupled_min_lr": -1}, "decoupled_min_lr must be"),
        (
            {"apply_wd_to_qk_layernorm": 1},
            "apply_wd_to_qk_layernorm must be True or False",
        ),
    ],
)
def test_malformed_settings_are_refused(arguments, message):
    """At the call."""
    with pytest.raises(NnlrError, match=message):
        nnlr.megatron(**arguments)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("hed.*", "key 'hed.\\*' matches no parameter of Net(?s:.*)Nearest: 'head'"),
        (ParamKey(attr="is_router"), r"ParamKey\(attr='is_router'\)"),
        (ParamKey(predicate=lambda p: False), r"ParamKey\(predicate=<lambda>\)"),
    ],
)
def test_a_key_without_effect_is_an_error(key, message):
    """Megatron passes over it."""
    with pytest.raises(PatternError, match=message):
        resolved(nnlr.megatron({key: {"wd_mult": 0}}))
    plan = resolved(nnlr.megatron({key: {"wd_mult": 0}}, strict=False))
    assert ["no-effect"] == [found.kind for found in plan.findings]


def test_attributes_of_parameters_count():
    """As Megatron's ``attr``."""
    net = zoo.plain()
    net.head.weight.is_router = True
    scheme = nnlr.megatron({ParamKey(attr=("x", "is_router")): {"wd_mult": 0}})
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=1)
    assert ["head.weight"] == [row.name for row in plan if row.weight_decay == 0]


def test_the_plan_builds_an_optimizer():
    """Settings that the optimizer knows reach its groups."""
    scheme = nnlr.megatron({"*.weight": {"eps": 1e-9}, "*": {"betas": [0.9, 0.95]}})
    net = zoo.plain()
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=1)
    groups = plan.optimizer(torch.optim.AdamW).param_groups
    assert {1e-9, 1e-8} == {group["eps"] for group in groups}


def test_a_pattern_for_a_part_of_names_gets_a_whole_one():
    """A key has to match all of a name, and the message shows one."""
    with pytest.raises(PatternError, match=r"must match a whole name, such as head.weight"):
        resolved(nnlr.megatron({"head": {"wd_mult": 0}}))


def test_a_configuration_of_two_optimizers_builds():
    """What no override names one for goes to that of the configuration."""
    net = zoo.plain()
    scheme = nnlr.megatron({"blocks.*.fc.weight": {"optimizer": "muon"}}, standard=True)
    rates = {"muon": 0.02, "adam": 3e-4}
    plan = nnlr.resolve(net, scheme, lr=rates, weight_decay=0.1)
    assert {"muon", "adam"} == {row.algorithm for row in plan}
    assert ("adam", 3e-4) == (plan["head.weight"].algorithm, plan["head.weight"].lr)
    optimizer = plan.optimizer({"muon": torch.optim.Muon, "adam": torch.optim.AdamW})
    assert {"muon", "adam"} == set(optimizer.algorithms)
    other = nnlr.megatron({"blocks.*.fc.weight": {"optimizer": "muon"}}, optimizer="sgd")
    assert "sgd" == resolved(other)["head.weight"].algorithm
    assert "optimizer='sgd'" in repr(nnlr.megatron(optimizer="sgd"))


def test_one_optimizer_needs_no_name():
    """An override that names that of the configuration routes nothing."""
    plan = resolved(nnlr.megatron({"head.*": {"optimizer": "adam"}}))
    assert {None} == {row.algorithm for row in plan}
    net = zoo.plain()
    net.head.weight.requires_grad_(False)
    routed = nnlr.megatron({"blocks.*": {"optimizer": "muon"}})
    plan = nnlr.resolve(net, routed, lr=1, weight_decay=1)
    assert None is plan["head.weight"].algorithm
    with pytest.raises(nnlr.NnlrError, match="optimizer must be a name, got ''"):
        nnlr.megatron(optimizer="")
