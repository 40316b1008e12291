"""``megatron(config)``: OptimizerConfig, overrides_config, and the overrides of its muP."""

from argparse import Namespace
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError
from nnlr.schemes._frameworks.megatron import ParamKey
from tests.schemes.test_megatron import LR, WEIGHT_DECAY, standard

EPS = 1e-8


@dataclass
class OptimizerConfig:
    """What is read of Megatron's."""

    optimizer: str = "adam"
    lr: float | None = LR
    min_lr: float | None = 1e-4
    weight_decay: float = WEIGHT_DECAY
    decoupled_lr: float | None = None
    decoupled_min_lr: float | None = None
    apply_wd_to_qk_layernorm: bool = False
    adam_eps: float = EPS
    overrides_config: dict | None = None


def gpt(*, marked=True):
    """A decoder with Megatron's names and marks."""

    def block():
        attention = nn.ModuleDict(
            {
                "linear_qkv": nn.Linear(4, 12),
                "q_layernorm": nn.LayerNorm(4),
                "k_layernorm": nn.LayerNorm(4),
                "linear_proj": nn.Linear(4, 4),
            }
        )
        mlp = nn.ModuleDict({"linear_fc1": nn.Linear(4, 8), "linear_fc2": nn.Linear(8, 4)})
        norm = nn.LayerNorm(4)
        return nn.ModuleDict({"self_attention": attention, "pre_mlp_layernorm": norm, "mlp": mlp})

    embedding = nn.ModuleDict({"word_embeddings": nn.Embedding(9, 4)})
    decoder = nn.ModuleDict(
        {"layers": nn.ModuleList([block()]), "final_layernorm": nn.LayerNorm(4)}
    )
    output = nn.Linear(4, 9, bias=False)
    net = nn.ModuleDict({"embedding": embedding, "decoder": decoder, "output_layer": output})
    if marked:
        word = embedding["word_embeddings"].weight
        word.is_embedding_parameter = True
        word.is_embedding_or_output_parameter = True
        output.weight.is_embedding_parameter = False
        output.weight.is_embedding_or_output_parameter = True
    return net


def twin(net, config, width=1.0):
    """The published overrides in plain words: rate, decay and eps of each parameter by name."""
    keys = standard(config.apply_wd_to_qk_layernorm)
    (spared, _), *_ = keys.items()
    result = {}
    for name, param in net.named_parameters():
        lr, eps = config.lr, config.adam_eps
        decay = config.weight_decay * (0 if spared.with_name_predicate(param, name) else 1)
        table = name in {"embedding.word_embeddings.weight", "output_layer.weight"}
        own = table and config.decoupled_lr is not None
        is_vector = param.dim() <= 1 or "embedding" in name
        if config.optimizer == "sgd":
            lr *= width if is_vector and not own else 1
        elif not is_vector:
            lr /= 1 if own else width
            eps /= width if "adam" in config.optimizer else 1
        result[name] = (config.decoupled_lr if own else lr, decay, eps)
    return result


CONFIGS = {
    "default": OptimizerConfig(),
    "decoupled": OptimizerConfig(decoupled_lr=3e-4),
    "decoupled, in proportion": OptimizerConfig(decoupled_lr=3e-4, decoupled_min_lr=3e-5),
    "no base": OptimizerConfig(lr=LR, min_lr=None, decoupled_lr=3e-4),
    "qk": OptimizerConfig(apply_wd_to_qk_layernorm=True),
    "sgd": OptimizerConfig(optimizer="sgd", decoupled_lr=3e-4),
    "plain sgd": OptimizerConfig(optimizer="sgd"),
    "lion": OptimizerConfig(optimizer="lion"),
}


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("width", [1.0, 4.0])
@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_and_widths_equal_the_published_overrides(name, width, marked):
    """Rate, decay and eps of every parameter; without marks embedding and head by role."""
    config, net = CONFIGS[name], gpt(marked=marked)
    scheme = nnlr.megatron(config, mup_width_mult=width)
    plan = nnlr.resolve(net, scheme, lr=LR, weight_decay=WEIGHT_DECAY)
    due = twin(net, config, width)
    assert due.keys() == {row.name for row in plan}
    for row in plan:
        actual = row.lr, row.weight_decay, EPS * row.eps_mult
        assert due[row.name] == pytest.approx(actual, rel=1e-12, abs=0)
        assert {} == row.options
    assert () == plan.findings


def test_the_arguments_of_the_command_line_will_do():
    """A Namespace has the same names."""
    args = Namespace(lr=LR, min_lr=0.0, decoupled_lr=3e-4, decoupled_min_lr=1e-6, optimizer="adam")
    plan = nnlr.resolve(gpt(), nnlr.megatron(args), lr=LR, weight_decay=WEIGHT_DECAY)
    assert (3e-4, {"min_lr": 1e-6}) == (
        plan["output_layer.weight"].lr,
        dict(plan["output_layer.weight"].options),
    )
    assert ["min-lr"] == [found.kind for found in plan.findings]


def test_eps_reaches_the_optimizer():
    """A matrix has an eps smaller by the width, where AdamW's own is the base."""
    net = gpt()
    plan = nnlr.resolve(net, nnlr.megatron(mup_width_mult=4), lr=LR, weight_decay=WEIGHT_DECAY)
    groups = plan.optimizer(torch.optim.AdamW).param_groups
    eps = {name: group["eps"] for group in groups for name in group["param_names"]}
    assert EPS / 4 == eps["decoder.layers.0.mlp.linear_fc1.weight"]
    assert EPS == eps["embedding.word_embeddings.weight"]
    told = plan.explain("decoder.layers.0.mlp.linear_fc1.weight")
    assert "matrices" in told


def test_megatrons_own_overrides_of_mup_move_over():
    """The dict that its function makes of a model, with its own kind of keys."""

    def hidden(param, name):
        return param.dim() > 1 and "embedding" not in name

    override = {"max_lr": LR / 4, "min_lr": 1e-4 / 4, "eps": EPS / 4}
    key = ParamKey(with_name_predicate=hidden)
    plan = nnlr.resolve(
        gpt(), nnlr.megatron({key: override}, standard=True), lr=LR, weight_decay=WEIGHT_DECAY
    )
    due = twin(gpt(), OptimizerConfig(), 4.0)
    for row in plan:
        actual = row.lr, row.weight_decay, row.options.get("eps", EPS)
        assert due[row.name] == pytest.approx(actual, rel=1e-12, abs=0)


RECIPE = {
    "optimizers": {
        "adam": {
            "type": "adam",
            "param_groups": {"default": {"eps": 1e-12}, "vectors": {"wd_mult": 0.0}},
        },
        "fast": {
            "type": "muon",
            "kwargs": {"num_ns_steps": 5},
            "param_groups": {"hidden": {"max_lr": 2e-2, "wd_mult": 0.5}},
        },
    },
    "default": {"optimizer": "adam", "param_group": "default"},
    "matchers": {
        "fc": {
            "type": "glob",
            "pattern": "*.linear_fc?.weight",
            "optimizer": "fast",
            "param_group": "hidden",
            "enabled": True,
        },
        "norms": {
            "type": "glob",
            "pattern": "*layernorm*",
            "optimizer": "adam",
            "param_group": "vectors",
            "enabled": True,
        },
        "off": {"type": "glob", "pattern": "*", "optimizer": "fast", "param_group": "hidden"},
    },
}


@pytest.mark.parametrize("config", [RECIPE, OptimizerConfig(overrides_config=RECIPE)])
def test_an_overrides_config_gives_each_parameter_one_group(config):
    """By the enabled matchers, else the default; nothing is merged, and biases decay."""
    net = gpt()
    plan = nnlr.resolve(net, nnlr.megatron(config), lr=LR, weight_decay=WEIGHT_DECAY)
    for row in plan:
        hits = {
            (item["optimizer"], item["param_group"])
            for item in RECIPE["matchers"].values()
            if item.get("enabled") and fnmatchcase(row.name, item["pattern"])
        }
        optimizer, group = hits.pop() if hits else ("adam", "default")
        settings = dict(RECIPE["optimizers"][optimizer]["param_groups"][group])
        assert optimizer == row.algorithm
        assert settings.pop("max_lr", LR) == pytest.approx(row.lr)
        assert WEIGHT_DECAY * settings.pop("wd_mult", 1.0) == pytest.approx(row.weight_decay)
        assert settings == dict(row.options)
    assert ["optimizer-kwargs"] == [found.kind for found in plan.findings]
    assert "group fast.hidden" in " ".join(
        plan.explain("decoder.layers.0.mlp.linear_fc1.weight").split()
    )
    optimizer = plan.optimizer({"adam": torch.optim.AdamW, "fast": torch.optim.Muon})
    assert {"adam", "fast"} == set(optimizer.algorithms)


def recipe(**changes):
    """The recipe with other parts."""
    return {**RECIPE, **changes}


def matcher(**changes):
    """The recipe with another first matcher."""
    fc = {**RECIPE["matchers"]["fc"], **changes}
    return recipe(matchers={**RECIPE["matchers"], "fc": fc})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (recipe(optimizers={"adam": {"tpye": 1}}), "'adam' has the field 'tpye'. Nearest: 'type'"),
        (recipe(optimizers={"adam": {}}), "groups of optimizer 'adam' must be a mapping, got None"),
        (recipe(default={"a": 1}), "default has the field 'a'. Known: optimizer, param_group"),
        (
            recipe(default={"optimizer": "adam", "param_group": "defualt"}),
            "default is for no group of an optimizer: adam.defualt. Nearest: 'adam.default'",
        ),
        (
            matcher(optimizer="x"),
            r"matcher 'fc' is for no group .*x.hidden. Nearest: 'fast.hidden'",
        ),
        (
            matcher(optimizer=3, param_group=4),
            "no group .*: 3.4. Groups: adam.default, adam.vectors",
        ),
        (matcher(type="regex"), "type of matcher 'fc' must be 'glob', got 'regex'"),
        (matcher(pattern=""), "pattern of matcher 'fc' must be a name"),
        (matcher(pattern="*layernorm*"), "matcher 'norms' has the pattern of an earlier one"),
        ({"optimizers": {}, "defualt": {}}, "has the field 'defualt'. Nearest: 'default'"),
        ({"optimizers": {}, "matchers": {}}, "overrides_config needs 'default'"),
        (matcher(enabled=1), "enabled of matcher 'fc' must be True or False"),
        (OptimizerConfig(decoupled_lr="a"), "decoupled_lr must be a finite number"),
        (OptimizerConfig(overrides_config="a.yaml"), "must be a mapping of keys .* got 'a.yaml'"),
    ],
)
def test_malformed_configurations_are_refused(config, message):
    """At the call."""
    with pytest.raises(NnlrError, match=message):
        nnlr.megatron(config)


def test_a_parameter_of_two_groups_is_an_error():
    """As in Megatron, also where the groups are alike; a Namespace is a part of a recipe too."""
    clash = matcher(pattern="*.linear_fc?.*")["matchers"]["fc"]
    other = SimpleNamespace(
        **{**clash, "pattern": "*.bias", "optimizer": "adam", "param_group": "default"}
    )
    scheme = nnlr.megatron(recipe(matchers={"fc": clash, "bias": other}))
    with pytest.raises(
        ConfigError, match=r"param_group of '.*linear_fc1.bias' is set to 'fast.hid"
    ):
        nnlr.resolve(gpt(), scheme, lr=LR, weight_decay=WEIGHT_DECAY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mup_width_mult": 0}, "mup_width_mult must be a finite number > 0"),
        ({"mup_width_mult": 2, "optimizer": "dist_muon"}, "does not know which matrices Megatron"),
        (
            {"config_overrides": OptimizerConfig(), "decoupled_lr": 1e-4},
            "decoupled_lr stands beside a configuration",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    """At the call."""
    with pytest.raises(NnlrError, match=message):
        nnlr.megatron(**arguments)


def test_an_eps_beside_that_of_mup_is_an_error():
    """As two overrides that disagree."""
    scheme = nnlr.megatron({"*.weight": {"eps": 1e-9}}, mup_width_mult=2)
    with pytest.raises(
        ConfigError, match=r"eps of '.*' is set by ParamKey.* and by mup_width_mult"
    ):
        nnlr.resolve(gpt(), scheme, lr=LR, weight_decay=WEIGHT_DECAY)


def test_marks_of_megatron_come_before_names():
    """A shared embedding is one, whatever it is called."""
    net = gpt()
    net["output_layer"].weight.shared_embedding = True
    plan = nnlr.resolve(net, nnlr.megatron(mup_width_mult=2), lr=LR, weight_decay=WEIGHT_DECAY)
    assert LR == plan["output_layer.weight"].lr
