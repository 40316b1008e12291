"""no_weight_decay: our own rule, and the published ones against their originals.

``tests/reference/no_weight_decay.json.gz`` holds names of exempt parameters as computed by
transformers 5.23 and timm 1.0.31 from models on the meta device; its ``origin`` says how.
Where an original cannot be installed, a twin here follows its published predicate over
``named_modules`` and ``named_parameters``, sharing no code with the package.
"""

import copy
import gzip
import json
import re
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nnlr
from nnlr._model.describe import describe
from nnlr._model.roles import ROLES
from nnlr.schemes._no_weight_decay import no_weight_decay
from nnlr.schemes._no_weight_decay_presets import DECAYED_ROLES, EXEMPT_ROLES, PRESETS
from nnlr.testing import SchemeLaws
from tests import zoo

REFERENCE = Path(__file__).parents[1] / "reference" / "no_weight_decay.json.gz"


@pytest.fixture(scope="module")
def reference():
    """The frozen names."""
    return json.loads(gzip.decompress(REFERENCE.read_bytes()))


def exempt(model, preset="nnlr", **options):
    """Names of the parameters that a preset exempts."""
    info = describe(model)
    factors = no_weight_decay(preset, **options).factors(info)
    pairs = zip(info.params, factors, strict=True)
    return {param.name for param, factor in pairs if factor.wd_mult == 0}


def plan_of(model, *args, **options):
    """A plan with base decay 0.1."""
    return nnlr.resolve(model, no_weight_decay(*args, **options), lr=1e-3, weight_decay=0.1)


def from_timm(name):
    """A model of timm on meta."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        return timm.create_model(name)


class Tree(nn.Module):
    """Modules and raw parameters made from dotted names and shapes."""

    def __init__(self, shapes):
        super().__init__()
        for name, shape in shapes.items():
            *path, leaf = name.split(".")
            module = self
            for attr in path:
                if attr not in module._modules:
                    module.add_module(attr, Tree({}))
                module = module._modules[attr]
            module.register_parameter(leaf, nn.Parameter(torch.zeros(shape)))


@pytest.mark.no_cover
class TestLaws(SchemeLaws):
    """The laws of all schemes."""

    def schemes(self):
        """One scheme for each way in which presets look at a model."""
        others = ("timm", "hf", "open_clip", "yolov5", "big_vision")
        return [
            no_weight_decay(),
            no_weight_decay(embeddings=True),
            *(no_weight_decay(preset) for preset in others),
        ]

    def models(self):
        """Besides the usual: hooks, and hooks inside something else."""
        return [*super().models()[:2], Backbone(), nn.Sequential(Backbone())]


class Backbone(nn.Module):
    """Names parameters of its own, by name and by glob."""

    def __init__(self):
        super().__init__()
        self.table = nn.Linear(2, 3)
        self.rates = nn.Linear(3, 3)
        self.rest = nn.Linear(3, 1)

    def no_weight_decay(self):
        return {"table.weight", "rates.*"}


# ------------------------------------------------------------------------ our own rule


def test_every_role_has_a_verdict():
    """Each role either decays or does not, and says why."""
    assert not set(EXEMPT_ROLES) & set(DECAYED_ROLES)
    assert set(ROLES) == set(EXEMPT_ROLES) | set(DECAYED_ROLES)
    assert all({**EXEMPT_ROLES, **DECAYED_ROLES}.values())


# What decays of the zoo's models; everything else in them is exempt.
DECAYS = {
    zoo.plain: {"embed.weight", "blocks.0.fc.weight", "blocks.1.fc.weight"} | {"head.weight"},
    zoo.norms: {"linear.weight", "pre.fn.weight"},
    zoo.gains: set(),
    zoo.attention: {"in_proj_weight", "out_proj.weight"},
    zoo.attention_of_three_widths: {"q_proj_weight", "k_proj_weight", "v_proj_weight"}
    | {"out_proj.weight"},
    zoo.gru_cell: {"weight_ih", "weight_hh"},
    zoo.weight_norm: {"conv.parametrizations.weight.original1"},
    zoo.lora_by_hand: {"0.base.weight", "0.lora_A.weight", "0.lora_B.weight"},
    zoo.tied: {"embed.weight", "blocks.0.fc.weight", "blocks.1.fc.weight"},
    zoo.own_classes: {"b.table", "c.w", "d.kernel", "e.weight"},
    zoo.raw_parameters: {"mixer.in_proj.weight", "dictionary.D", "vision.kernel"}
    | {f"attention.{leaf}" for leaf in ("query", "key", "w_query")},
}


@pytest.mark.parametrize("make", DECAYS, ids=lambda make: make.__name__)
def test_the_default_decays_weights_and_nothing_else(make):
    """Norms, biases, gains, tokens, positions, scalars and states are exempt."""
    model = make()
    names = {param.name for param in describe(model).params}
    if make is zoo.weight_norm:
        expected = {name for name in names if name.endswith("original1")}
    else:
        expected = DECAYS[make]
    assert expected == names - exempt(model)


class PerHeadLayerNorm(nn.Module):
    """A norm of queries with a vector for each head, as in Cohere's models."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 8))


class WeightNorm(PerHeadLayerNorm):
    """Not a norm of activations, whatever its name: it owns a matrix."""


class TemporalEmbeddings(nn.Module):
    """A class of embeddings that holds positions and tokens itself, and a table."""

    def __init__(self):
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.zeros(1, 5, 4))
        self.latents = nn.Parameter(torch.zeros(3, 4))
        self.words = nn.Parameter(torch.zeros(9, 4))


def test_norms_with_a_vector_for_each_head_are_exempt():
    """Two axes do not make a gain a matrix."""
    assert {"weight"} == exempt(PerHeadLayerNorm())
    assert set() == exempt(WeightNorm())


def test_positions_and_tokens_are_exempt_in_a_class_of_embeddings_too():
    """The parameter's own name says more than the class's."""
    assert {"position_embeddings", "latents"} == exempt(TemporalEmbeddings())


def test_biases_of_recurrent_layers_are_exempt():
    """LSTM biases are called bias_ih_l0; its projections decay as its weights do."""
    decays = {p.name for p in describe(zoo.lstm()).params} - exempt(zoo.lstm())
    assert decays
    assert all(name.startswith("weight_") for name in decays)


def test_mixtures_decay_routers_and_experts_but_not_their_biases():
    """A bias with an axis for experts is a bias."""
    actual = exempt(zoo.mixtures())
    assert "stacked.gate_up_proj_bias" in actual
    assert "stacked.gate_up_proj" not in actual
    assert "moe.gate.weight" not in actual


def test_an_adapters_vectors_are_exempt_and_its_matrices_are_not():
    """IA3's rescaling vectors, (n, 1) or (1, n), are gains; LoRA's halves are matrices."""
    peft = pytest.importorskip("peft")
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    config = peft.IA3Config(target_modules=["0"], feedforward_modules=[])
    ia3 = exempt(peft.get_peft_model(net, config))
    assert {name for name in ia3 if "ia3" in name}
    config = peft.LoraConfig(target_modules=["1"], use_dora=True)
    adapted = peft.get_peft_model(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), config)
    actual = {name for name in exempt(adapted) if "lora" in name}
    assert all("magnitude" in name for name in actual)
    assert actual


def test_a_table_of_one_row_is_exempt():
    """A token in torch's clothes, as in SAM: there is nothing to look up."""
    assert {"iou_token.weight"} == exempt(
        nn.ModuleDict({"iou_token": nn.Embedding(1, 4), "points": nn.Embedding(2, 4)})
    )


def test_embeddings_decay_unless_asked():
    """One option for tables; positions and tokens never decay."""
    assert "embed.weight" not in exempt(zoo.plain())
    more = exempt(zoo.plain(), embeddings=True) - exempt(zoo.plain())
    assert {"embed.weight"} == more


def test_a_tied_table_counts_as_an_embedding():
    """One tensor, one verdict: the head that shares it follows."""
    plan = plan_of(zoo.tied(), embeddings=True)
    assert 0 == plan["embed.weight"].weight_decay == plan["head.weight"].weight_decay


def test_embeddings_adds_to_any_preset():
    """With nanoGPT, which decays its tables, it is nanoGPT's rule and no tables."""
    before = exempt(zoo.plain(), "nanogpt")
    assert before | {"embed.weight"} == exempt(zoo.plain(), "nanogpt", embeddings=True)


def test_roles_that_a_user_sets_count():
    """resolve(roles=...) moves a parameter to the other side."""
    plan = nnlr.resolve(
        nn.Linear(2, 2),
        no_weight_decay(),
        lr=1,
        weight_decay=0.1,
        roles={"weight": "gain"},
    )
    assert 0 == plan["weight"].weight_decay


def test_frozen_parameters_get_the_factor_too():
    """What is frozen now may be trained later: no special case."""
    net = nn.Linear(2, 2).requires_grad_(False)
    assert {"bias"} == exempt(net)


def test_bare_tensors_go_by_names():
    """The default works on names alone."""
    shapes = {"embed.weight": (5, 4), "norm.weight": (4,), "head.weight": (2, 4)}
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    assert {"norm.weight"} == exempt(tensors)
    assert () == plan_of(tensors).findings


# ------------------------------------------------------------- declarations in the model


class Attention(nn.Module):
    """A part with a hook of its own."""

    def __init__(self):
        super().__init__()
        self.heat = nn.Linear(2, 2, bias=False)
        self.table = nn.Linear(2, 2, bias=False)
        self.scores = nn.Linear(2, 2, bias=False)
        self.other = nn.Linear(2, 2, bias=False)

    def no_weight_decay(self):
        return ["heat.*"]

    def no_weight_decay_keywords(self):
        return {"table.weight"}

    def no_weight_decay_patterns(self):
        return ("sco*",)


def test_hooks_of_any_module_are_honoured_by_the_default():
    """Names, globs, patterns and keywords, relative to the module that brings them."""
    net = nn.Sequential(Backbone(), nn.Sequential(Attention()))
    expected = {"0.table.weight", "0.rates.weight"}
    expected |= {"1.0.heat.weight", "1.0.table.weight", "1.0.scores.weight"}
    biases = {"0.table.bias", "0.rates.bias", "0.rest.bias"}
    assert expected | biases == exempt(net)


def test_open_clip_takes_names_to_the_letter():
    """Its no_weight_decay() knows no globs; its patterns and keywords are globs."""
    actual = exempt(nn.Sequential(Backbone(), Attention()), "open_clip")
    weights = {name for name in actual if name.endswith("weight")}
    assert {"0.table.weight", "1.table.weight", "1.scores.weight"} == weights


class Positions(nn.Module):
    """The biases of Swin V2: a network, and a keyword that is its name."""

    def __init__(self):
        super().__init__()
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 4, bias=False))
        self.qkv = nn.Linear(4, 12, bias=False)
        self.cpb_mlp_out = nn.Linear(4, 4, bias=False)

    def no_weight_decay_keywords(self):
        return {"cpb_mlp"}


def test_a_keyword_may_name_a_module():
    """Swin V2's cpb_mlp is a part of names; to open_clip it is the end of none."""
    assert {"cpb_mlp.0.weight"} == exempt(Positions())
    assert {"0.cpb_mlp.0.weight"} == exempt(nn.Sequential(Positions()))
    assert set() == exempt(Positions(), "open_clip") == open_clip(Positions())


@pytest.mark.parametrize("preset", ["nnlr", "timm"])
def test_a_hook_that_is_no_method_is_pointed_out(preset):
    """A set where a method is expected, on the instance or on the class."""
    net = Backbone()
    net.no_weight_decay = {"rest.weight"}
    on_class = type("Listing", (nn.Linear,), {"no_weight_decay": {"weight"}})(2, 2)
    for model in (net, on_class):
        (finding,) = plan_of(model, preset).findings
        assert "no_weight_decay() TypeError: 'set' object is not callable" in str(finding)


def test_a_hook_is_found_through_wrappers():
    """Compiled, averaged or inside a trainer's module: timm's rule, not a silent loss."""
    expected = exempt(Backbone(), "timm")
    assert {"table.weight", "rates.weight"} < expected
    compiled = torch.compile(Backbone(), backend="eager")
    assert expected == exempt(compiled, "timm")
    assert expected == exempt(AveragedModel(Backbone()), "timm")
    inner = {f"model.{name}" for name in expected}
    assert inner == exempt(nn.ModuleDict({"model": compiled}), "timm")


def test_a_timm_model_inside_a_module_keeps_its_exemptions():
    """Positions and tokens of each tower, by names relative to the tower."""
    alone = exempt(from_timm("vit_tiny_patch16_224"), "timm")
    towers = nn.ModuleDict({name: from_timm("vit_tiny_patch16_224") for name in ("left", "right")})
    expected = {f"{side}.{name}" for side in towers for name in alone}
    assert "pos_embed" in alone
    assert expected == exempt(towers, "timm")


def test_parts_of_a_timm_model_are_not_asked():
    """EdgeNeXt has no hook, though its attention has one that timm never calls."""
    model = from_timm("edgenext_xx_small")
    attention = "stages.1.blocks.1.xca.temperature"
    assert attention not in exempt(model, "timm")
    assert attention in exempt(model)
    assert attention not in exempt(nn.ModuleDict({"model": model}), "timm")


def test_marks_on_parameters_are_honoured():
    """Mamba's _no_weight_decay, S4's _optim with a decay of 0."""
    net = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(4)))
    net[0].weight._no_weight_decay = True
    net[1].weight._optim = {"weight_decay": 0.0, "lr": 0.001}
    net[2].weight._optim = {"weight_decay": 0.1}
    net[3].weight._no_weight_decay = False
    assert {"0.weight", "1.weight"} == exempt(net)
    assert set() == exempt(net, "timm")


def test_an_absolute_rate_in_optim_is_pointed_out():
    """It belongs to the learning rate; the note says what to write."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].weight._optim = {"weight_decay": 0.0, "lr": 0.001}
    net[1].weight._optim = {"weight_decay": 0.01, "lr": 0.001}
    first, second = plan_of(net).findings
    assert ("0.weight", "1.weight") == first.names
    assert (
        "note: _optim asks for lr=0.001, which no_weight_decay does not set (0.weight, "
        "1.weight). Unless another scheme does, add nnlr.rule(..., lr=0.001)." == str(first)
    )
    assert "weight_decay=0.01" in second.cause
    assert () == plan_of(net, "timm").findings


@pytest.mark.parametrize("asked", ["pos_embed", None, {1, 2}], ids=repr)
@pytest.mark.parametrize("preset", ["nnlr", "timm", "open_clip"])
def test_a_hook_that_gives_no_names_is_pointed_out(asked, preset):
    """It exempts nothing, and the plan says so."""
    net = Backbone()
    net.no_weight_decay = lambda: asked
    (finding,) = plan_of(net, preset).findings
    assert finding.severity == "warning"
    assert "Backbone.no_weight_decay() TypeError: expected" in finding.cause
    assert "table.weight" not in exempt(net, preset)


def test_a_hook_that_fails_is_pointed_out():
    """What it raised is in the message."""

    def broken():
        raise RuntimeError("not built yet")

    net = Backbone()
    net.no_weight_decay = broken
    assert "RuntimeError: not built yet" in str(plan_of(net).findings[0])


def test_a_shared_module_is_asked_at_every_place():
    """The default honours a hook whichever of its names a tensor goes by first."""
    part = nn.Linear(2, 2, bias=False)
    holder = nn.Module()
    holder.part = part
    holder.no_weight_decay = lambda: {"part.weight"}
    net = nn.ModuleDict({"first": part, "second": holder})
    assert {"first.weight"} == exempt(net)
    assert set() == exempt(net, "open_clip")


# ------------------------------------------------------------------ messages and traces


def test_an_unknown_preset_is_refused_with_the_nearest():
    """The message lists all and the one probably meant."""
    with pytest.raises(nnlr.NnlrError, match=r"preset must be one of .*Nearest: 'timm'"):
        no_weight_decay("tim")
    with pytest.raises(nnlr.NnlrError, match=r"preset must be one of"):
        no_weight_decay(0.05)


def test_embeddings_is_a_switch():
    """True or False."""
    with pytest.raises(nnlr.NnlrError, match="embeddings must be True or False"):
        no_weight_decay(embeddings="yes")


@pytest.mark.parametrize("preset", [name for name, preset in PRESETS.items() if preset.classes])
def test_rules_that_need_classes_refuse_bare_tensors(preset):
    """Names do not say what a LayerNorm is; guessing would not be the original's rule."""
    with pytest.raises(nnlr.NnlrError, match=r"goes by the classes.*Pass the model"):
        plan_of({"ln_1.weight": torch.zeros(3)}, preset)


def test_hooks_that_cannot_be_asked_are_pointed_out():
    """On bare tensors the rule of timm knows no pos_embed."""
    plan = plan_of({"pos_embed": torch.zeros(1, 3, 3)}, "timm")
    assert 0.1 == plan["pos_embed"].weight_decay
    assert "no no_weight_decay()" in str(plan.findings[0])


def test_the_trace_says_why():
    """One short phrase with the preset; what decays carries no entry."""
    net = nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    plan = plan_of(net, embeddings=True)
    (finding,) = [step for step in plan["1.weight"].trace if "preset" in step.factor.why]
    assert "norm (nnlr preset)" == finding.factor.why
    assert "embedding (embeddings=True)" in plan.explain("0.weight")
    assert "1-D (timm preset)" in plan_of(net, "timm").explain("1.weight")
    assert "no_weight_decay" not in plan.explain("2.weight")


def test_it_reads_as_it_was_written():
    """Defaults are left out."""
    assert "no_weight_decay()" == repr(no_weight_decay())
    written = "no_weight_decay('hf', embeddings=True)"
    assert written == repr(no_weight_decay("hf", embeddings=True))


def test_equal_verdicts_share_a_factor():
    """Plans of large models stay cheap."""
    info = describe(zoo.plain())
    factors = no_weight_decay().factors(info)
    assert 3 == len({id(factor) for factor in factors})


# ----------------------------------------------------------- parity: timm, transformers


def with_timm(model, preset):
    """What timm exempts."""
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    make = {
        "timm": param_groups_weight_decay,
        "timm_layer_decay": param_groups_layer_decay,
    }[preset]
    asked = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = make(model, weight_decay=0.05, no_weight_decay_list=asked)
    name = {id(tensor): name for name, tensor in model.named_parameters()}
    free = [group["params"] for group in groups if group["weight_decay"] == 0]
    return {name[id(tensor)] for tensors in free for tensor in tensors}


SIZES = "tiny|small|base|large|huge|giant|nano|pico|femto|atto|xx?s|[0-9]+"


def timm_names():
    """One of timm's models for each family: sizes change neither names nor axes."""
    families = {}
    for name in pytest.importorskip("timm").list_models():
        families.setdefault(re.sub(SIZES, "", name), name)
    return list(families.values())


def check_timm(names):
    """Compare both presets with timm on these models."""
    for name in names:
        model = from_timm(name)
        for preset in ("timm", "timm_layer_decay"):
            assert with_timm(model, preset) == exempt(model, preset), (name, preset)


@pytest.mark.no_cover
def test_timm_presets_equal_timm():
    """Every 100th family of timm, with the model's own no_weight_decay()."""
    check_timm(timm_names()[::100])


@pytest.mark.full
@pytest.mark.parametrize("part", range(4))
def test_timm_presets_equal_timm_on_all_families(part):
    """All of them, in parts that keep below a test's time limit."""
    check_timm(timm_names()[part::4])


def test_timm_decays_a_two_dimensional_bias_in_one_function_only():
    """The weight-decay function looks at the name .bias, the layer-decay one does not."""
    net = Tree({"a.bias": (2, 2), "bias": (2, 2), "a.weight": (2, 2)})
    assert {"a.bias"} == with_timm(net, "timm") == exempt(net, "timm")
    assert set() == with_timm(net, "timm_layer_decay") == exempt(net, "timm_layer_decay")


def test_the_timm_preset_equals_frozen_values(reference):
    """Every 25th model of the frozen table, from timm 1.0.31."""
    check_frozen_timm(reference["timm_layer_decay"], 25)


@pytest.mark.full
def test_the_timm_preset_equals_all_frozen_values(reference):
    """The whole table."""
    check_frozen_timm(reference["timm_layer_decay"], 1)


def check_frozen_timm(frozen, step):
    """Compare with every so manyth model of the table."""
    for name in list(frozen)[::step]:
        assert set(frozen[name]) == exempt(from_timm(name), "timm_layer_decay"), name


def from_config(kind):
    """A model of transformers on meta, as its default configuration makes it."""
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        return transformers.AutoModel.from_config(transformers.CONFIG_MAPPING[kind]())


def with_trainer(model):
    """What transformers' Trainer exempts."""
    from transformers import Trainer

    decay = set(Trainer.get_decay_parameter_names(None, model))
    return {name for name, _ in model.named_parameters()} - decay


@pytest.mark.no_cover
def test_the_hf_preset_equals_the_trainer(reference):
    """All frozen models: the installed Trainer, the frozen names and ours agree."""
    for kind, frozen in reference["hf"].items():
        model = from_config(kind)
        names = {name for name, _ in model.named_parameters()}
        assert set(frozen) & names == with_trainer(model) == exempt(model, "hf"), kind


@pytest.mark.full
@pytest.mark.parametrize("part", range(5))
def test_the_hf_preset_equals_the_trainer_on_every_architecture(part):
    """Every model type that can be made from its default configuration."""
    transformers = pytest.importorskip("transformers")
    compared = 0
    for kind in list(transformers.CONFIG_MAPPING)[part::5]:
        try:
            model = from_config(kind)
        except Exception:  # noqa: BLE001, S112  no AutoModel, or a backend is missing
            continue
        assert with_trainer(model) == exempt(model, "hf"), kind
        compared += 1
    assert compared > 50


ODD = {
    "ln_1.weight": (3,),
    "gamma": (3,),
    "rope_bias_free.weight": (3, 3),
    "RMSNorm_0.w": (3,),
    "norm1.weight": (3,),
    "Norm.w": (3,),
    "final_norm.w": (3, 3),
    "renorm.w": (3, 3),
    "norm": (3,),
    "a.LayerNormish.w": (3, 3),
}


def test_the_hf_preset_keeps_the_trainers_oddities():
    """Substrings, letter case, and a LayerNorm that is the whole model."""
    models = [Tree(ODD), nn.LayerNorm(3), nn.Sequential(nn.LayerNorm(3))]
    models += [nn.Sequential(nn.BatchNorm1d(3), nn.RMSNorm(3))]
    models += [nn.Sequential(nn.utils.parametrizations.weight_norm(nn.LayerNorm((3, 3))))]
    models += [nn.ModuleDict({"ln": NormWithParts()})]
    for model in models:
        names = {
            raw: ours
            for (raw, _), ours in zip(model.named_parameters(), describe(model).params, strict=True)
        }
        expected = {names[name].name for name in with_trainer(model)}
        assert expected == exempt(model, "hf")


class NormWithParts(nn.LayerNorm):
    """A LayerNorm that holds a linear layer, which nobody would call a norm."""

    def __init__(self):
        super().__init__(3)
        self.mix = nn.Linear(3, 3)


# ------------------------------------------------------ parity: twins of other codebases


def bert_legacy(model):
    """Two substrings."""
    words = ("bias", "LayerNorm.weight")
    return {n for n, _ in model.named_parameters() if any(w in n for w in words)}


def nanogpt(model):
    """Fewer than two axes."""
    return {n for n, p in model.named_parameters() if p.dim() < 2}


def detectron2(model):
    """Parameters of norm classes, by the module that holds them."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    norms += (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    norms += (nn.LayerNorm, nn.LocalResponseNorm)
    return held(model, lambda module, key: isinstance(module, norms))


def yolov5(model):
    """Leaf names, and torch's classes with Norm in their names."""
    norms = tuple(cls for name, cls in nn.__dict__.items() if "Norm" in name)
    return held(
        model,
        lambda module, key: key == "bias" or (key == "weight" and isinstance(module, norms)),
    )


def olmo2(model):
    """Tables of torch's class."""
    return held(model, lambda module, key: key == "weight" and isinstance(module, nn.Embedding))


def held(model, free):
    """Names of parameters of which a function of module and key is true; first ones."""
    actual, seen = set(), set()
    for path, module in model.named_modules():
        for key, tensor in module.named_parameters(recurse=False):
            if id(tensor) not in seen and free(module, key):
                actual.add(f"{path}.{key}" if path else key)
            seen.add(id(tensor))
    return actual


def open_clip(model):
    """One axis, and what any module asks for."""
    exact, globs = set(), []
    for path, module in model.named_modules():
        start = f"{path}." if path else ""
        if hasattr(module, "no_weight_decay"):
            exact |= {start + name for name in module.no_weight_decay()}
        if hasattr(module, "no_weight_decay_patterns"):
            globs += [start + glob for glob in module.no_weight_decay_patterns()]
        if hasattr(module, "no_weight_decay_keywords"):
            globs += [f"{start}*{word}" for word in module.no_weight_decay_keywords()]
    return {
        n
        for n, p in model.named_parameters()
        if p.ndim <= 1 or n in exact or any(fnmatchcase(n, glob) for glob in globs)
    }


def open_clip_legacy(model):
    """Axes and substrings."""
    words = ("bn", "ln", "bias", "logit_scale")
    return {
        n for n, p in model.named_parameters() if p.ndim < 2 or any(word in n for word in words)
    }


def megatron(model):
    """Exactly one axis, or *.bias."""
    return {n for n, p in model.named_parameters() if len(p.shape) == 1 or fnmatch(n, "*.bias")}


def megatron_qk_layernorm(model):
    """The same without the norms of queries and keys."""
    return {
        n
        for n, p in model.named_parameters()
        if (len(p.shape) == 1 or n.endswith(".bias"))
        and not ("q_layernorm." in n or "k_layernorm." in n)
    }


def dinov2(model):
    """Substrings and .bias."""
    return {
        n for n, _ in model.named_parameters() if n.endswith(".bias") or "norm" in n or "gamma" in n
    }


def big_vision(model):
    """Its pattern over names as Flax spells them."""
    flax = {}
    for path, module in model.named_modules():
        dense = isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
        dense = dense or type(module).__name__ == "Conv1D"  # GPT-2's linear layer
        for key, _ in module.named_parameters(recurse=False):
            name = f"{path}.{key}" if path else key
            flax[name] = f"{path}.kernel" if dense and key == "weight" else name
    return {
        name
        for name, _ in model.named_parameters()
        if not re.fullmatch(r".*/kernel$", flax[name].replace(".", "/"))
    }


TWINS = (bert_legacy, nanogpt, detectron2, yolov5, olmo2, open_clip, open_clip_legacy)
TWINS += (megatron, megatron_qk_layernorm, dinov2, big_vision)


def architectures():
    """Real models, and modules with the names that the originals use."""
    pytest.importorskip("timm")
    vision = [
        "vit_tiny_patch16_224",
        "convnext_atto",
        "resnet18",
        "xcit_nano_12_p8_224",
    ]
    vision += [
        "swin_tiny_patch4_window7_224",
        "tiny_vit_5m_224",
        "mobilenetv3_small_050",
    ]
    vision += ["edgenext_xx_small", "cait_xxs24_224", "dm_nfnet_f0", "ese_vovnet19b_dw"]
    for name in vision:
        yield name, from_timm(name)
    for kind in ("bert", "gpt2", "t5", "mamba", "llama", "olmo2", "clip", "wav2vec2"):
        yield kind, zoo.from_transformers(kind)
    yield "names", Tree({**ODD, **NAMES})
    kinds = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    norms = [kind(2, affine=True) for kind in kinds]
    norms += [nn.BatchNorm3d(2), nn.SyncBatchNorm(2), nn.GroupNorm(1, 2), nn.RMSNorm(2)]
    table = nn.Embedding(3, 2)
    table.scores = nn.Parameter(torch.zeros(3, 2))
    yield "classes", nn.Sequential(*norms, table)


NAMES = {
    "embedding.word_embeddings.weight": (8, 4),
    "layers.0.self_attention.q_layernorm.weight": (4,),
    "layers.0.self_attention.k_layernorm.weight": (4,),
    "layers.0.self_attention.k_layernorm.bias": (4,),
    "layers.0.self_attention.linear_qkv.layer_norm_weight": (4,),
    "layers.0.self_attention.linear_qkv.weight": (12, 4),
    "layers.0.self_attention.linear_qkv.bias": (12,),
    "layers.0.mlp.experts.bias": (2, 4),
    "layers.0.temperature": (),
    "layers.0.LayerNorm.weight": (4, 1),
    "visual.bn1.weight": (4, 1),
    "transformer.resblocks.0.ln_1.weight": (4, 1),
    "logit_scale": (1, 1),
    "blocks.0.ls1.gamma": (4,),
    "blocks.0.gamma_1": (4, 4),
    "cls_token": (1, 1, 4),
    "encoder.pos_embedding": (1, 9, 4),
    "encoder.Dense_0.kernel": (4, 4),
    "encoder.Dense_0.bias": (4,),
    "encoder.LayerNorm_0.scale": (4,),
    "encoder.Embed_0.embedding": (8, 4),
    "encoder.Conv_0.kernel": (3, 3, 4, 4),
}


@pytest.mark.no_cover
def test_other_presets_equal_their_twins():
    """Each published predicate, on each architecture."""
    for name, model in architectures():
        for twin in TWINS:
            expected = twin(model)
            if twin is big_vision:  # raw and split weights of torch have no Flax name
                other = {
                    param.name
                    for param in describe(model).params
                    if param.role_basis == "table" or "parametriz" in param.name
                }
                assert expected - other == exempt(model, "big_vision") - other, name
                continue
            assert expected == exempt(model, twin.__name__), (name, twin.__name__)


def exempt_tensors(model, preset):
    """Identities of the tensors that a preset exempts: names may be spelt differently."""
    info = describe(model)
    factors = no_weight_decay(preset).factors(info)
    pairs = zip(info.places, factors, strict=True)
    return {id(places[0].tensor) for places, factor in pairs if factor.wd_mult == 0}


# What contains itself breaks transformers' recursion.
ODDITIES = [make for make in zoo.ZOO if make is not zoo.inside_itself]


@pytest.mark.parametrize("make", ODDITIES, ids=lambda make: make.__name__)
def test_published_presets_hold_on_odd_models(make):
    """Tied, shared, parametrized, pruned, recurrent: tensor by tensor as the originals."""
    pytest.importorskip("transformers")
    model = make()
    named = dict(model.named_parameters())
    originals = {"hf": with_trainer, **{twin.__name__: twin for twin in TWINS}}
    del originals["big_vision"]  # Flax has no such models
    for preset, original in originals.items():
        expected = {id(named[name]) for name in original(model)}
        assert expected == exempt_tensors(model, preset), preset


def test_big_vision_on_names_of_flax():
    """Kernels decay, and nothing else of what Flax's layers own."""
    model = Tree({name: NAMES[name] for name in NAMES if "encoder" in name})
    assert big_vision(model) == exempt(model, "big_vision")
    assert {"encoder.Dense_0.bias", "encoder.pos_embedding"} < big_vision(model)


def test_every_preset_is_compared_with_something():
    """A preset without an original or a twin fails here."""
    compared = {twin.__name__ for twin in TWINS} | {"timm", "timm_layer_decay", "hf"}
    assert set(PRESETS) - {"nnlr"} == compared
    assert all(preset.source for preset in PRESETS.values())


# --------------------------------------------------------------------------- the page


@pytest.mark.no_cover
def test_the_page_says_what_its_script_makes():
    """The generated tables are those of the models and rules of now."""
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    from docs import _markers, make_weight_decay_table

    for name, text in make_weight_decay_table.parts().items():
        assert text == _markers.read(make_weight_decay_table.PAGE, name), (
            "run docs/make_weight_decay_table.py"
        )


def test_the_page_names_every_preset():
    """No preset without its line in the list of sources."""
    page = Path(__file__).parents[2] / "docs" / "schemes" / "no_weight_decay.md"
    text = page.read_text(encoding="utf-8")
    assert [] == [name for name in PRESETS if f"`{name}`" not in text]


def test_a_copy_loses_marks_but_not_hooks():
    """A Parameter forgets attributes when it is copied; the page warns of it."""
    net = Backbone()
    net.rest.weight._no_weight_decay = True
    assert "rest.weight" in exempt(net)
    assert exempt(copy.deepcopy(net)) == exempt(net) - {"rest.weight"}
