"""``detectron2(config)``: the configurations that detectron2 and MaskFormer ship."""

from functools import partial

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from tests.schemes.test_detectron2 import NORMALISES, twin


class DictConfig:
    """What LazyConfigs are made of: like a mapping, with attributes, and none."""

    def __init__(self, **values):
        self.__dict__["values"] = values

    def keys(self):
        return self.values.keys()

    def __getitem__(self, key):
        return self.values[key]

    def __getattr__(self, key):
        return self.values[key]


def get_default_optimizer_params():
    """What LazyConfigs call; only its name is read."""


def lazy(cls=torch.optim.AdamW, *, lr, weight_decay, **params):
    """The node ``optimizer`` of a LazyConfig."""
    params = {"_target_": get_default_optimizer_params, "weight_decay_norm": 0.0, **params}
    return DictConfig(_target_=cls, params=DictConfig(**params), lr=lr, weight_decay=weight_decay)


def get_vit_lr_decay_rate(name, lr_decay_rate=1.0, num_layers=12):
    """The published rule in plain words: blocks from the head down, all else at full rate."""
    below = 0
    if name.startswith("backbone"):
        if ".pos_embed" in name or ".patch_embed" in name:
            below = num_layers + 1
        elif ".blocks." in name and ".residual." not in name:
            below = num_layers - int(name.split(".blocks.")[1].split(".")[0])
    return lr_decay_rate**below


class ViT(nn.Module):
    """A plain ViT as detectron2 names it, with blocks of a convolution."""

    def __init__(self, blocks):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, 4, 1)})
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(4),
                    "attn": nn.Linear(4, 4),
                    "residual": nn.ModuleDict({"conv1": nn.Conv2d(4, 4, 1)}),
                }
            )
            for _ in range(blocks)
        )


def detector(net, leaves=()):
    """A backbone with a pyramid, and heads; raw parameters of these names in its first module."""
    for leaf in leaves:
        net.register_parameter(leaf, nn.Parameter(torch.zeros(3, 4)))
    pyramid = nn.Sequential(nn.ConvTranspose2d(4, 4, 2), nn.LayerNorm(4))
    return nn.ModuleDict(
        {
            "backbone": nn.ModuleDict({"net": net, "simfp_2": pyramid}),
            "proposal_generator": nn.Conv2d(4, 4, 1),
            "roi_heads": nn.ModuleDict({"box_head": nn.Linear(4, 4), "query": nn.Embedding(3, 4)}),
        }
    )


def resnet():
    """A backbone with batch norm."""
    return detector(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)))


MVIT = ("rel_pos_h", "rel_pos_w")
SWIN = ("relative_position_bias_table",)

NO_DECAY = {"weight_decay": 0.0}


def vit(blocks, rate, **params):
    """The optimizer of ViTDet on a ViT of so many blocks."""
    decay = partial(get_vit_lr_decay_rate, lr_decay_rate=rate, num_layers=blocks)
    node = lazy(lr=1e-4, weight_decay=0.1, **{"lr_factor_func": decay, **params})
    return node, partial(detector, ViT(blocks))


# Every optimizer in detectron2's repository whose rates vary, on a small model of its structure.
SHIPPED = {
    "common/optim.py: SGD": (lazy(torch.optim.SGD, lr=0.02, weight_decay=1e-4), resnet),
    "common/optim.py: AdamW": (lazy(lr=1e-4, weight_decay=0.1, base_lr="${..lr}"), resnet),
    "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py": (
        lazy(torch.optim.SGD, lr=0.1, weight_decay=4e-5),
        resnet,
    ),
    "Misc/torchvision_imagenet_R_50.py": (
        lazy(torch.optim.SGD, lr=0.1, weight_decay=1e-4, weight_decay_norm=None),
        resnet,
    ),
    "ViTDet/mask_rcnn_vitdet_b_100ep.py": vit(12, 0.7, overrides={"pos_embed": NO_DECAY}),
    "ViTDet/mask_rcnn_vitdet_l_100ep.py": vit(24, 0.8, overrides={"pos_embed": NO_DECAY}),
    "ViTDet/mask_rcnn_vitdet_h_75ep.py": vit(32, 0.9, overrides={}, weight_decay_norm=None),
    "ViTDet/cascade_mask_rcnn_mvitv2_b_in21k_100ep.py": (
        lazy(lr=8e-5, weight_decay=0.1, overrides={"pos_embed": NO_DECAY}),
        partial(detector, nn.Linear(4, 4), MVIT),
    ),
    "ViTDet/cascade_mask_rcnn_swin_b_in21k_50ep.py": (
        lazy(lr=4e-5, weight_decay=0.05, overrides={"relative_position_bias_table": NO_DECAY}),
        partial(detector, nn.Linear(4, 4), SWIN),
    ),
    "detrex: dino_r50_4scale_24ep.py": (
        lazy(lr=1e-4, weight_decay=1e-4, lr_factor_func=lambda n: 0.1 if "backbone" in n else 1),
        resnet,
    ),
    "MViTv2/mask_rcnn_mvitv2_t_3x.py": (
        lazy(
            lr=1.6e-4,
            weight_decay=0.1,
            overrides={"pos_embed": NO_DECAY, "rel_pos_h": NO_DECAY, "rel_pos_w": NO_DECAY},
        ),
        partial(detector, nn.Linear(4, 4), MVIT),
    ),
}


def plain(node):
    """The arguments that the twin takes."""
    kept = ("weight_decay_norm", "bias_lr_factor", "lr_factor_func", "overrides")
    return {key: node.params[key] for key in kept if key in node.params.values}


def rates(plan):
    """Rate and decay of each tensor that is trained, by identity."""
    return {
        id(tensor): (group["lr"], group["weight_decay"])
        for group in plan.param_groups(names=False)
        for tensor in group["params"]
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_move_over_unchanged(name, monkeypatch):
    """The rate and decay of every parameter equal those of the published function."""
    node, make = SHIPPED[name]
    net = make()
    plan = nnlr.resolve(net, nnlr.detectron2(node), lr=node.lr, weight_decay=node.weight_decay)
    monkeypatch.setattr("tests.schemes.test_detectron2.LR", node.lr)
    monkeypatch.setattr("tests.schemes.test_detectron2.WEIGHT_DECAY", node.weight_decay)
    due = twin(net, **plain(node))
    actual = rates(plan)
    assert due.keys() == actual.keys()
    for tensor, settings in due.items():
        wanted = settings["lr"], settings["weight_decay"]
        assert wanted == pytest.approx(actual[tensor], rel=1e-12, abs=0)
    assert {found.severity for found in plan.findings} <= {"note"}


def test_a_whole_configuration_will_do():
    """Also the call of get_default_optimizer_params alone; the target may be a string."""
    node = lazy(lr=1e-4, weight_decay=0.1, bias_lr_factor=2.0, base_lr=1e-4)
    target = {"_target_": "detectron2.solver.build.get_default_optimizer_params"}
    forms = [node, DictConfig(optimizer=node, train=3), node.params, {**node.params, **target}]
    plans = [
        nnlr.resolve(resnet(), nnlr.detectron2(form), lr=1e-4, weight_decay=0.1) for form in forms
    ]
    assert 1 == len({tuple((row.lr, row.weight_decay) for row in plan) for plan in plans})
    assert 2e-4 == plans[0]["roi_heads.box_head.bias"].lr


def test_the_decay_of_a_vit_is_recognised():
    """The layer stands in the table and in the trace."""
    node, make = SHIPPED["ViTDet/mask_rcnn_vitdet_b_100ep.py"]
    plan = nnlr.resolve(make(), nnlr.detectron2(node), lr=1.0, weight_decay=0.1)
    assert (3, 13) == plan["backbone.net.blocks.2.attn.weight"].depth
    assert (13, 13) == plan["backbone.net.blocks.2.residual.conv1.weight"].depth
    assert (0, 13) == plan["backbone.net.patch_embed.proj.weight"].depth
    told = plan.explain("backbone.net.blocks.2.attn.weight")
    assert "lr_factor_func, layer 3 of 13" in " ".join(told.split())


def test_another_function_of_that_name_is_only_called():
    """No layer is claimed where the numbers are others."""

    def other(name, lr_decay_rate, num_layers):
        return lr_decay_rate / 3

    other.__name__ = "get_vit_lr_decay_rate"
    for function in (
        partial(other, lr_decay_rate=0.5, num_layers=1),
        partial(by_word, factor=0.5),
        lambda name: 0.5,
    ):
        scheme = nnlr.detectron2(lr_factor_func=function)
        plan = nnlr.resolve(detector(ViT(1)), scheme, lr=1, weight_decay=0.1)
        assert {None} == {row.depth for row in plan}


def by_word(name, factor):
    """Another way to decay."""
    return factor if "blocks" in name else 1.0


@pytest.mark.parametrize(
    ("net", "kind", "cause"),
    [
        (nn.ModuleDict({"trunk": ViT(1)}), "no-effect", "gives 1 for every parameter"),
        (detector(ViT(3)), "too-few-layers", "num_layers=1 is less than the blocks"),
    ],
)
def test_a_decay_that_does_not_fit_the_model_is_pointed_out(net, kind, cause):
    """A backbone under another name is not reached; a deeper one learns faster below."""
    decay = partial(get_vit_lr_decay_rate, lr_decay_rate=0.5, num_layers=1)
    plan = nnlr.resolve(net, nnlr.detectron2(lr_factor_func=decay), lr=1, weight_decay=0.1)
    (found,) = [found for found in plan.findings if found.kind == kind]
    assert cause in found.cause
    assert "warning" == found.severity


def test_overrides_of_other_models_are_a_note_and_typos_an_error():
    """What detectron2's configurations name is no mistake of the user's."""
    scheme = nnlr.detectron2(lazy(lr=1, weight_decay=1, overrides={"rel_pos_h": NO_DECAY}))
    plan = nnlr.resolve(resnet(), scheme, lr=1, weight_decay=1)
    assert [("no-effect", "note")] == [(f.kind, f.severity) for f in plan.findings]
    scheme = nnlr.detectron2(lazy(lr=1, weight_decay=1, overrides={"rel_pos_hh": NO_DECAY}))
    net = detector(nn.Linear(4, 4), MVIT)
    with pytest.raises(PatternError, match=r"'rel_pos_hh' matches no(?s:.*)Nearest: 'rel_pos_h'"):
        nnlr.resolve(net, scheme, lr=1, weight_decay=1)


def maskformer(net, solver):
    """MaskFormer's builder in plain words: rate and decay of each tensor, by identity."""
    result = {}
    for path, module in net.named_modules():
        for leaf, tensor in module.named_parameters(recurse=False):
            lr, decay = solver["BASE_LR"], solver["WEIGHT_DECAY"]
            if "backbone" in path:
                lr *= solver["BACKBONE_MULTIPLIER"]
            if "relative_position_bias_table" in leaf or "absolute_pos_embed" in leaf:
                decay = 0.0
            if isinstance(module, NORMALISES):
                decay = solver["WEIGHT_DECAY_NORM"]
            if isinstance(module, nn.Embedding):
                decay = solver["WEIGHT_DECAY_EMBED"]
            result.setdefault(id(tensor), (lr, decay))
    return result


@pytest.mark.parametrize("make", [resnet, partial(detector, nn.Linear(4, 4), SWIN)])
@pytest.mark.parametrize("embed", [0.0, 0.02])
def test_maskformers_solver_equals_its_builder(make, embed):
    """BACKBONE_MULTIPLIER, WEIGHT_DECAY_EMBED and the two names without decay."""
    solver = {
        "BASE_LR": 1e-4,
        "WEIGHT_DECAY": 0.05,
        "WEIGHT_DECAY_NORM": 0.0,
        "BIAS_LR_FACTOR": 1.0,
        "WEIGHT_DECAY_EMBED": embed,
        "BACKBONE_MULTIPLIER": 0.1,
        "OPTIMIZER": "ADAMW",
    }
    net = make()
    for config in (solver, {"SOLVER": solver, "MODEL": {}}):
        plan = nnlr.resolve(net, nnlr.detectron2(config), lr=1e-4, weight_decay=0.05)
        actual, due = rates(plan), maskformer(net, solver)
        assert due.keys() == actual.keys()
        for tensor, wanted in due.items():
            assert wanted == pytest.approx(actual[tensor], rel=1e-12, abs=0)
    assert "embedding" in plan.explain("roi_heads.query.weight")


@pytest.mark.parametrize(
    ("solver", "settings"),
    [
        ({"BASE_LR": 0.02}, {"weight_decay_norm": 0.0}),
        (
            {"WEIGHT_DECAY_NORM": 1e-3, "BIAS_LR_FACTOR": 2.0, "WEIGHT_DECAY_BIAS": 0.0},
            {"weight_decay_norm": 1e-3, "bias_lr_factor": 2.0, "weight_decay_bias": 0.0},
        ),
        ({"BACKBONE_MULTIPLIER": 1.0}, {"weight_decay_norm": 0.0}),
    ],
)
def test_a_solver_has_detectron2s_defaults(solver, settings):
    """A yaml file alone leaves out what get_cfg has."""
    plans = [
        nnlr.resolve(resnet(), scheme, lr=0.02, weight_decay=1e-4)
        for scheme in (nnlr.detectron2(solver), nnlr.detectron2(**settings))
    ]
    assert [(r.lr, r.weight_decay) for r in plans[0]] == [(r.lr, r.weight_decay) for r in plans[1]]


def get_other_params():
    """A function of a project's own."""


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (3, "a detectron2 configuration must be a mapping, got 3"),
        ({"params": [1]}, r"params of the optimizer must be the call of .* got \[1\]"),
        (
            {"params": {"_target_": get_other_params}},
            "params of the optimizer call get_other_params",
        ),
        ({"params": {"_target_": 3}}, "params of the optimizer call 3"),
        (
            {"params": {"weight_decay_nrom": 0}},
            r"has no argument 'weight_decay_nrom'. Nearest: 'weight_decay_norm'",
        ),
        (
            {"params": {"freeze_layers": []}},
            "has no argument 'freeze_layers'. Known: weight_decay_",
        ),
        ({"lr": 1, "params": {"base_lr": 2}}, r"base_lr=2 of params replaces lr=1 of the"),
        ({"SOLVER": 3}, "SOLVER must be a mapping"),
        (
            {"WEIGHT_DECAY_EMBED": 0.0, "BACKBONE_MULTIPLIER": "x"},
            "BACKBONE_MULTIPLIER must be a finite number",
        ),
        ({"WEIGHT_DECAY_NROM": 0}, "'WEIGHT_DECAY_NROM', which does nothing"),
        (
            {"BACKBONE_MULTIPLIER": 0.1},
            r"BACKBONE_MULTIPLIER=0.1 and no WEIGHT_DECAY_EMBED(?s:.*)rule\('\*backbone\*', lr_mul",
        ),
        ({"lr_factor_func": {"_target_": "f"}}, "lr_factor_func must be a function"),
    ],
)
def test_malformed_configurations_are_refused(config, message):
    """At the call."""
    with pytest.raises(NnlrError, match=message):
        nnlr.detectron2(config)


def test_the_fix_for_a_multiplier_of_another_project_runs():
    """It multiplies what is called backbone."""
    scheme = nnlr.detectron2({"BASE_LR": 1}) * nnlr.rule("*backbone*", lr_mult=0.1)
    plan = nnlr.resolve(resnet(), scheme, lr=1, weight_decay=1)
    assert 0.1 == plan["backbone.net.0.weight"].lr
    assert 1.0 == plan["proposal_generator.weight"].lr


def test_settings_beside_a_configuration_are_refused():
    """They would be two of a kind."""
    with pytest.raises(ConfigError, match="weight_decay_norm stands beside a configuration"):
        nnlr.detectron2(lazy(lr=1, weight_decay=1), weight_decay_norm=0.0)
    node = lazy(lr=1, weight_decay=1, base_lr=2)
    plan = nnlr.resolve(resnet(), nnlr.detectron2(node, strict=False), lr=1, weight_decay=1)
    assert ["overridden-key"] == [found.kind for found in plan.findings]
