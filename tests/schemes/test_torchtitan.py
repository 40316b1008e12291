"""``torchtitan(...)``: parity with the published rule, and what its objects become."""

import re
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, CoverageError, NnlrError, PatternError
from nnlr.testing import SchemeLaws
from tests import zoo
from tests.schemes.real_models import MODELS, model

LR, WEIGHT_DECAY = 8e-4, 0.1


def entry(pattern, lr=LR, weight_decay=WEIGHT_DECAY, **settings):
    """An entry of the list."""
    return {"pattern": pattern, "lr": lr, "weight_decay": weight_decay, **settings}


ALL = entry(".*")
GROUPS = [
    entry(r"bias$", 1e-3, 0.0),
    entry(r"norm|bn|ln", 2e-3, 0.01, betas=(0.9, 0.99)),
    entry(r"\.0\.", 3e-4, eps=1e-9),
    entry(r"weight", 5e-4, 0.3),
    ALL,
]


def twin(net, groups):
    """The published rule in plain words: the first entry found in each trainable name."""
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    left, result, used = set(names), {}, []
    for group in groups:
        taken = {name for name in left if re.search(group["pattern"], name)}
        if taken:
            used.append(group)
        left -= taken
        result |= dict.fromkeys(taken, group)
    assert not left
    return result, used


@pytest.mark.no_cover
class TestLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.torchtitan([ALL]),
            nnlr.torchtitan([entry("bias", 1e-3, 0.0), entry("weight", eps=1e-9)]),
        ]

    def models(self):
        return [m for m in super().models() if any("bias" in n for n, _ in m.named_parameters())]


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_published_rule(name):
    """Rates and settings of every trainable parameter, tied and frozen ones included."""
    net = model(name)
    expected, used = twin(net, GROUPS)
    plan = nnlr.resolve(net, nnlr.torchtitan(used), lr=LR, weight_decay=WEIGHT_DECAY)
    names = {id(p): n for n, p in net.named_parameters()}
    groups = plan.param_groups(names=False)
    assert len(expected) == sum(len(group["params"]) for group in groups)
    for group in groups:
        for tensor in group["params"]:
            wanted = expected[names[id(tensor)]]
            for setting in wanted.keys() - {"pattern"}:
                assert group[setting] == pytest.approx(wanted[setting], rel=1e-12, abs=0)


@dataclass(kw_only=True, slots=True)
class ParamGroupConfig:
    """What older versions of torchtitan have."""

    pattern: str
    optimizer_name: str = "AdamW"
    optimizer_kwargs: dict = field(default_factory=dict)


class AdamW:
    """What newer versions of torchtitan have."""

    @dataclass(kw_only=True, slots=True)
    class Config:
        """Its settings."""

        pattern: str
        lr: float = 8e-4
        betas: tuple = (0.9, 0.95)
        eps: float = 1e-8
        weight_decay: float = 0.1
        foreach: bool | None = None
        fused: bool | None = True
        moment_dtype: str = "parameter"


class Muon:
    """An optimizer beside it."""

    @dataclass(kw_only=True, slots=True)
    class Config:
        """Its settings."""

        pattern: str
        lr: float = 1e-3
        weight_decay: float = 0.1


def plan_of(groups, net=None, **kwargs):
    """A plan on a plain model."""
    scheme = nnlr.torchtitan(groups, **kwargs)
    return nnlr.resolve(net or zoo.plain(), scheme, lr=LR, weight_decay=WEIGHT_DECAY)


def test_torchtitans_own_objects_are_taken():
    """Older and newer ones, and mappings, give the same plan."""
    older = [
        ParamGroupConfig(pattern="bias", optimizer_kwargs={"lr": 1e-3, "weight_decay": 0.0}),
        ParamGroupConfig(pattern=".*", optimizer_kwargs={"lr": 8e-4, "weight_decay": 0.1}),
    ]
    newer = [
        AdamW.Config(pattern="bias", lr=1e-3, weight_decay=0.0),
        AdamW.Config(pattern=".*"),
    ]
    plain = [entry("bias", 1e-3, 0.0), ALL]
    expected = [(row.lr, row.weight_decay) for row in plan_of(plain)]
    for groups in (older, newer):
        assert expected == [(row.lr, row.weight_decay) for row in plan_of(groups)]
    fields = AdamW.Config(pattern=".*", moment_dtype="bfloat16")
    assert "bfloat16" == plan_of([fields])["head.weight"].options["moment_dtype"]
    net = zoo.plain()
    optimizer = plan_of(newer, net).optimizer(torch.optim.AdamW)
    assert {True} == {group["fused"] for group in optimizer.param_groups}


@dataclass
class Plain:
    """A user's own entry, in the words of a mapping."""

    pattern: str
    optimizer: str = "SGD"
    lr: float = 1e-3
    weight_decay: float = 0.1


def test_objects_of_ones_own_name_their_optimizer():
    """Only a class called Config is named by the class around it."""
    plan = plan_of([Plain("bias"), Muon.Config(pattern="fc"), Plain(".*", "AdamW")])
    assert "SGD" == plan["blocks.0.fc.bias"].algorithm
    assert "Muon" == plan["blocks.0.fc.weight"].algorithm
    assert "AdamW" == plan["head.weight"].algorithm

    class Adagrad:
        """An optimizer defined in a function."""

        Config = type("Config", (Plain,), {"__qualname__": "f.<locals>.Adagrad.Config"})

    plan = plan_of([Adagrad.Config("bias"), Plain(".*")])
    assert "Adagrad" == plan["blocks.0.fc.bias"].algorithm


def test_several_optimizers_become_algorithms():
    """One alone needs none."""
    net = zoo.plain()
    muon, adamw = Muon.Config(pattern=r"fc\.weight"), AdamW.Config(pattern=".*")
    mixed = plan_of([muon, adamw], net)
    assert "Muon" == mixed["blocks.0.fc.weight"].algorithm
    assert "AdamW" == mixed["head.weight"].algorithm
    with pytest.raises(NnlrError, match="routes parameters to 'AdamW', 'Muon'"):
        mixed.optimizer(torch.optim.AdamW)
    assert {None} == {row.algorithm for row in plan_of([ALL])}


def test_the_trace_tells_what_came_later():
    """``explain`` names the entry and those that it hid."""
    plan = plan_of([entry("bias", 1e-3), entry(r"norm"), ALL])
    told = plan.explain("blocks.0.norm.bias")
    assert "entry 0 'bias'" in told
    assert "entry 'norm'" in told
    assert "'.*'" not in told
    last = plan_of([entry("bias", 1e-3), entry("embed|head"), entry(r"norm|fc")])
    assert "entry 'norm|fc'" in last.explain("blocks.0.norm.bias")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [entry("haed"), ALL],
            "entry 0 'haed' .* in Net: it matches no .* Nearest: 'head'. Fix the pattern or",
        ),
        (
            [entry("bias"), entry(r"norm\.bias"), ALL],
            r"entry 1 .* all it matches \(2 parameters\) is claimed by earlier entries",
        ),
    ],
)
def test_an_entry_with_nothing_to_claim_is_an_error(groups, message):
    """As in torchtitan, but with the reason."""
    with pytest.raises(PatternError, match=message):
        plan_of(groups)


def test_every_trainable_parameter_must_be_claimed():
    """As in torchtitan, but with the names; frozen ones need no entry."""
    with pytest.raises(CoverageError, match="No entry claims 6 trainable parameters of Net"):
        plan_of([entry("bias")])
    net = zoo.plain()
    for name, param in net.named_parameters():
        param.requires_grad_("bias" in name)
    assert 4 == sum(row.trainable for row in plan_of([entry("bias")], net))
    with pytest.raises(PatternError, match=r"'weight' .* matches no trainable parameter"):
        plan_of([entry("bias"), entry("weight")], net)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("a", "torchtitan needs a list of entries, or .* got 'a'"),
        (ALL, "torchtitan needs a list of entries"),
        (Plain("a"), "torchtitan needs a list of entries"),
        ({"param_groups": {}}, r"\(config.optimizer\), got {'param_groups': {}}"),
        (3, "torchtitan needs a list of entries, or .* got 3"),
        ([], "torchtitan needs at least one entry"),
        ([3], "entry 0 must be a mapping or one of torchtitan's own objects, got 3"),
        ([ParamGroupConfig], "entry 0 must be a mapping or one of"),
        ([{"patern": "a", "lr": 1}], "entry 0 needs a pattern, and has 'patern', 'lr'"),
        ([{}], "entry 0 needs a pattern, and has nothing"),
        ([{"pattern": None}], "pattern of entry 0 must be a string, got None"),
        ([entry("(")], r"pattern of entry 0 '\(' is no regular expression"),
        ([entry("a", -1)], "lr of entry 0 'a' must be a finite number >= 0"),
        ([entry("a", optimizer=3)], "optimizer of entry 0 'a' must be a name, got 3"),
        ([entry("a", optimizer_kwargs=3)], "optimizer_kwargs of entry 0 'a' must be"),
        ([entry("a", initial_lr=3)], "may not set 'initial_lr'"),
        (
            [{"pattern": "a", "optimizer": "lr_scheduler", "lr": 1}],
            "has no weight_decay, and there is no torch.optim.lr_scheduler with",
        ),
        (
            [{"pattern": "a", "optimizer": "Ours", "lr": 1}],
            "has no weight_decay, and there is no torch.optim.Ours with a default",
        ),
        (
            [{"pattern": "a", "optimizer": "SparseAdam", "lr": 1}],
            "has no weight_decay, and there is no torch.optim.SparseAdam with a default",
        ),
    ],
)
def test_malformed_entries_are_refused(groups, message):
    """At the call, with or without leniency."""
    for strict in (True, False):
        with pytest.raises(NnlrError, match=message):
            nnlr.torchtitan(groups, strict=strict)


def test_a_missing_rate_is_the_class_default():
    """Torch's default is what torchtitan takes without a word."""
    plan = plan_of([{"pattern": ".*", "lr": 1e-3}])
    assert [("class-default", "warning")] == [(f.kind, f.severity) for f in plan.findings]
    assert "gets 0.01, the default of AdamW" in plan.findings[0].cause
    assert plan["head.weight"].weight_decay == pytest.approx(0.01)
    plan = plan_of([{"pattern": ".*", "lr": 1e-3, "optimizer": "Adam"}])
    assert ["note"] == [found.severity for found in plan.findings]


@pytest.mark.parametrize("key", ["optimiser", "patern"])
def test_other_misspelt_settings_are_an_error(key):
    """They would become options of the group."""
    with pytest.raises(ConfigError, match=f"entry 0 'a' has the key '{key}', which does nothing"):
        nnlr.torchtitan([entry("a", **{key: "x"})])


def test_a_misspelt_rate_is_an_error():
    """Or a finding that leaves the key out."""
    groups = [entry(".*", weigth_decay=1)]
    with pytest.raises(ConfigError, match="'weigth_decay', which does nothing"):
        nnlr.torchtitan(groups)
    plan = plan_of(groups, strict=False)
    assert ["misspelt-key"] == [found.kind for found in plan.findings]
    assert {} == plan["head.weight"].options


def test_a_pattern_that_cuts_segments_is_pointed_out():
    """``layers.1`` is also in ``layers.10``."""
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(11)))
    plan = plan_of([entry(r"\.1", 1e-4), ALL], nn.ModuleDict({"a": net}))
    (found,) = plan.findings
    assert ("segment-cut", ("a.10.weight", "a.10.bias")) == (found.kind, found.names)
    assert () == plan_of([entry("norm"), entry("weight"), ALL]).findings


def test_a_configuration_of_two_optimizers_builds_and_trains():
    """One call; each entry's settings reach the groups of its own class, and nothing is off."""
    net = zoo.plain()
    entries = [
        {**entry(r"fc\.weight", 0.02), "optimizer": "Muon", "momentum": 0.9, "weight_decay": 0.1},
        {**entry(r"norm|bias", 1e-3), "optimizer": "AdamW", "weight_decay": 0.0},
        {"pattern": ".*", "optimizer": "AdamW", "lr": 8e-4, "weight_decay": 0.1, "eps": 1e-9},
    ]
    plan = plan_of(entries, net)
    optimizer = plan.optimizer({"Muon": torch.optim.Muon, "AdamW": torch.optim.AdamW})
    due = {"Muon": (0.02, 0.1), "AdamW": (1e-3, 0.0)}
    for group in optimizer.param_groups:
        if group.get("eps") != 1e-9:
            assert due[group["algorithm"]] == (group["lr"], group["weight_decay"])
    assert {0.9} == {g["momentum"] for g in optimizer.algorithms["Muon"].param_groups}
    for param in net.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert {"Muon", "AdamW"} == {group["algorithm"] for group in optimizer.param_groups}
    with pytest.raises(ConfigError, match="no class has that name: 'AdamW'"):
        plan.optimizer({"AdamW": torch.optim.AdamW})


def test_a_rule_overrules_an_entry():
    """An entry is a recipe; who says it in a rule means it."""
    entries = [{**entry("weight"), "optimizer": "Muon"}, {**ALL, "optimizer": "AdamW"}]
    scheme = nnlr.torchtitan(entries) * nnlr.rule("head.weight", algorithm="AdamW")
    plan = nnlr.resolve(zoo.plain(), scheme, lr=1e-3, weight_decay=0.1)
    assert "AdamW" == plan["head.weight"].algorithm
    assert "Muon" == plan["blocks.0.fc.weight"].algorithm
    assert "overruled" in plan.explain("head.weight")


@dataclass(kw_only=True, slots=True)
class Config:
    """What ``config.optimizer`` is."""

    param_groups: list = field(default_factory=list)
    implementation: str = "fused"
    optimizer_factory_kwargs_by_name: dict = field(default_factory=dict)


def default_adamw(lr=8e-4, **kwargs):
    """What nearly all of torchtitan's configurations have."""
    settings = {"lr": lr, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, **kwargs}
    return Config(param_groups=[ParamGroupConfig(pattern=".*", optimizer_kwargs=settings)])


def adamw(lr, weight_decay):
    """The settings of its AdamW."""
    return {"lr": lr, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": weight_decay}


# The regular expressions and numbers of the configurations that have more than one entry.
QWEN3 = Config(
    param_groups=[
        ParamGroupConfig(pattern=r"(?:tok_embeddings|output)\.", optimizer_kwargs=adamw(8e-4, 0.0)),
        ParamGroupConfig(
            pattern=r"\.router\.gate\.",
            optimizer_name="Adam",
            optimizer_kwargs={"lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8},
        ),
        ParamGroupConfig(pattern=".*", optimizer_kwargs=adamw(8e-4, 0.1)),
    ]
)

KIMI = Config(
    implementation="foreach",
    param_groups=[
        ParamGroupConfig(
            pattern=(
                r"(?:attention\.(?:wq_a|wq_b|wkv_a|wkv_b|wo)\.weight|"
                r"routed_experts\.inner_experts\.(?:w1_EFD|w2_EDF|w3_EFD)|"
                r"feed_forward\.w[123]\.weight|moe\.router\.gate\.weight|"
                r"moe\.shared_experts\.w[123]\.weight)$"
            ),
            optimizer_name="DistMuon",
            optimizer_kwargs={
                "lr": 2.2e-4,
                "weight_decay": 0.1,
                "foreach": False,
                "adjust_lr_fn": "match_rms_adamw",
            },
        ),
        ParamGroupConfig(pattern=".*", optimizer_kwargs=adamw(2.2e-4, 0.1)),
    ],
    optimizer_factory_kwargs_by_name={"DistMuon": {"bucket_configs": ()}},
)


def moe():
    """A decoder of one dense layer and one of experts, with torchtitan's names."""

    def of(*names):
        return nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in names})

    def layer(**more):
        attention = of("wq_a", "wq_b", "wkv_a", "wkv_b", "wo")
        return nn.ModuleDict({"attention": attention, "attention_norm": nn.RMSNorm(4), **more})

    experts = nn.Module()
    for name in ("w1_EFD", "w2_EDF", "w3_EFD"):
        experts.register_parameter(name, nn.Parameter(torch.zeros(4, 4)))
    routed = nn.ModuleDict({"inner_experts": experts})
    mixture = {
        "router": of("gate"),
        "shared_experts": of("w1", "w2", "w3"),
        "routed_experts": routed,
    }
    layers = {"0": layer(feed_forward=of("w1", "w2", "w3")), "1": layer(moe=nn.ModuleDict(mixture))}
    return nn.ModuleDict(
        {
            "tok_embeddings": nn.Embedding(9, 4),
            "layers": nn.ModuleDict(layers),
            "norm": nn.RMSNorm(4),
            "output": nn.Linear(4, 9, bias=False),
        }
    )


def container(net, config):
    """The published container in plain words: class and settings of each parameter by name."""
    result = {}
    for entry_ in config.param_groups:
        names = [name for name, _ in net.named_parameters() if name not in result]
        for name in names:
            if re.search(entry_.pattern, name):
                defaults = {"weight_decay": 0.0} if entry_.optimizer_name == "Adam" else {}
                result[name] = entry_.optimizer_name, {**defaults, **entry_.optimizer_kwargs}
    return result


SHIPPED = {
    **{f"default_adamw(lr={lr:g})": default_adamw(lr) for lr in (8e-4, 5e-3, 1e-6)},
    "rl/examples/dapo_math": default_adamw(1e-6, betas=(0.9, 0.98)),
    "qwen3_debugmodel_moe_param_groups": QWEN3,
    "kimi_k2_7": KIMI,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_move_over_unchanged(name):
    """Class, rates and settings of every parameter, at one base rate or one for each class."""
    config, net = SHIPPED[name], moe()
    due = container(net, config)
    classes = {optimizer for optimizer, _ in due.values()}
    entries = {item.optimizer_name: item.optimizer_kwargs["lr"] for item in config.param_groups}
    several = len(classes) > 1
    for lr in (config.param_groups[-1].optimizer_kwargs["lr"], entries)[: 1 + several]:
        plan = nnlr.resolve(net, nnlr.torchtitan(config), lr=lr, weight_decay=0.1)
        assert due.keys() == {row.name for row in plan}
        for row in plan:
            optimizer, wanted = due[row.name]
            assert row.algorithm == (optimizer if several else None)
            actual = {"lr": row.lr, "weight_decay": row.weight_decay, **row.options}
            assert {*wanted} - {"foreach"} == {*actual}
            for key, value in actual.items():
                is_rate = key in {"lr", "weight_decay"}
                assert wanted[key] == (pytest.approx(value) if is_rate else value)
        by_name = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam}
        factories = {**by_name, "DistMuon": torch.optim.Muon}
        chosen = {optimizer: factories[optimizer] for optimizer in classes}
        built = plan.optimizer(chosen if several else chosen["AdamW"])
        scheduler = nnlr.schedule(built, torch.optim.lr_scheduler.ConstantLR, factor=0.5)
        halves = {name: g["lr"] for g in built.param_groups for name in g["param_names"]}
        assert halves == pytest.approx({name: s["lr"] / 2 for name, (_, s) in due.items()})
        assert 1 <= len(scheduler.get_last_lr())


def test_a_configuration_may_be_a_dict():
    """What ``to_dict`` of it gives."""
    entries = [{"pattern": ".*", "optimizer_name": "AdamW", "optimizer_kwargs": adamw(1e-3, 0.1)}]
    plan = plan_of({"param_groups": entries, "implementation": "fused"})
    assert {1e-3} == {row.lr for row in plan}
