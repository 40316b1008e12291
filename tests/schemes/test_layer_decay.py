"""layer_decay: its arithmetic by hand, and timm's groups parameter by parameter."""

import copy
import gzip
import json
from math import inf
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

import nnlr
from nnlr import Plan, layer_decay, no_weight_decay
from nnlr.testing import SchemeLaws
from tests.helpers import thinned
from tests.schemes.naming import Holder, module_of

VIT = ["cls_token", "patch_embed.w", "blocks.0.w", "blocks.1.w", "norm.w", "head.w"]
LAST_BLOCK = nnlr.depth.vit("last_block")


def plan_of(scheme, model=None):
    model = module_of(VIT) if model is None else model
    return nnlr.resolve(model, scheme, lr=1, weight_decay=0.1)


def rates(scheme, model=None):
    return [row.lr_mult for row in plan_of(scheme, model)]


@pytest.mark.no_cover
class TestLayerDecayLaws(SchemeLaws):
    """The laws, for every kind of indexer and every argument."""

    def schemes(self):
        return [
            layer_decay(1, self.number),
            layer_decay(0.75, self.number),
            layer_decay(0.5, self.number, min_mult=0.3),
            layer_decay(0.5, self.number, lock_below=0.3),
            layer_decay(0.5, {"0.*": 0, "1.*": 4}, lock_below=0.1),
        ]

    @staticmethod
    def number(param):
        return int(param.name.split(".")[0])


@pytest.mark.no_cover
class TestNamedLaws(SchemeLaws):
    """The laws, where parts of layers are known."""

    def schemes(self):
        return [
            layer_decay(0.75, "vit"),
            layer_decay(0.75, "vit", final_norm="last_block", patch_embed_mult=0.2),
            layer_decay(0.75, "dinov2", min_mult=0.5, patch_embed_mult=2),
            layer_decay(0.75, LAST_BLOCK, final_norm="head", lock_below=0.4),
        ]

    def models(self):
        tied = module_of(VIT)
        tied.head.w = tied.cls_token
        frozen = module_of(VIT)
        frozen.blocks.requires_grad_(False)
        return [module_of(VIT), tied, frozen, Holder(module_of(VIT))]


# ---------------------------------------------------------------------------- arithmetic


def test_each_layer_learns_a_factor_slower_than_the_one_above():
    """Factor decay ** (last - layer): stem 0, two blocks, norm and head in layer 3."""
    assert [1 / 8, 1 / 8, 1 / 4, 1 / 2, 1, 1] == rates(layer_decay(0.5, "vit"))


def test_decay_one_changes_nothing():
    """The neutral value of the scheme."""
    assert [1] * 6 == rates(layer_decay(1, "vit"))


def test_weight_decay_is_left_to_other_schemes():
    """Only learning rates are scaled."""
    assert [1] * 6 == [row.wd_mult for row in plan_of(layer_decay(0.5, "vit"))]


def test_min_mult_is_the_least_of_all_layers():
    """max(min_mult, decay ** k), as timm's min_scale."""
    assert [0.3, 0.3, 0.3, 0.5, 1, 1] == rates(layer_decay(0.5, "vit", min_mult=0.3))


def test_the_patch_embedding_gets_one_more_factor():
    """After min_mult, and nothing else in the stem does."""
    scheme = layer_decay(0.5, "vit", min_mult=0.25, patch_embed_mult=0.2)
    assert [0.25, 0.25 * 0.2, 0.25, 0.5, 1, 1] == rates(scheme)


@pytest.mark.parametrize("indexer", ["vit", LAST_BLOCK])
def test_the_final_norm_goes_where_it_is_told(indexer):
    """With any indexer that knows it, and the rest stays."""
    head = layer_decay(0.5, indexer, final_norm="head")
    block = layer_decay(0.5, indexer, final_norm="last_block")
    assert [1 / 8, 1 / 8, 1 / 4, 1 / 2, 1, 1] == rates(head)
    assert [1 / 8, 1 / 8, 1 / 4, 1 / 2, 1 / 2, 1] == rates(block)


@pytest.mark.parametrize(
    ("indexer", "names", "norm"),
    [
        ("dinov2", VIT, "norm.w"),
        (
            "swin",
            ["patch_embed.w", "layers.0.blocks.0.w", "layers.0.blocks.1.w", "norm.w"],
            "norm.w",
        ),
        (
            "convnext",
            ["downsample_layers.0.w", *(f"stages.{i}.0.w" for i in range(4)), "norm.w"],
            "norm.w",
        ),
        (
            "timm",
            "vit_tiny_patch16_224",
            "norm.weight",
        ),
    ],
)
def test_final_norm_and_patch_embed_mult_work_with_indexers_that_have_them(indexer, names, norm):
    """The norm at 1 or one step below, the patch embedding times its factor."""
    if isinstance(names, str):
        with torch.device("meta"):
            model = timm.create_model(names)
    else:
        model = module_of(names)
    high = plan_of(layer_decay(0.5, indexer, final_norm="head"), model)
    scheme = layer_decay(0.5, indexer, final_norm="head", patch_embed_mult=3)
    assert 1 == high[norm].lr_mult
    slower = [
        (row.name, was.lr_mult)
        for row, was in zip(plan_of(scheme, model), high, strict=True)
        if row.lr_mult == 3 * was.lr_mult
    ]
    assert slower
    assert {min(row.lr_mult for row in high)} == {mult for _, mult in slower}
    low = plan_of(layer_decay(0.5, indexer, final_norm="last_block"), model)
    top_block = max(row.lr_mult for row in low if "block" in row.name or "st" in row.name)
    assert top_block == low[norm].lr_mult


def test_what_would_learn_too_little_is_locked():
    """Less than lock_below is 0: strictly less, after every other factor."""
    scheme = layer_decay(0.5, "vit", lock_below=0.25)
    assert [0, 0, 1 / 4, 1 / 2, 1, 1] == rates(scheme)
    patch = layer_decay(0.5, "vit", patch_embed_mult=0.2, lock_below=0.1)
    assert [1 / 8, 0, 1 / 4, 1 / 2, 1, 1] == rates(patch)


def test_what_is_unlocked_later_learns_at_the_rate_of_its_layer():
    """The lock is a factor of its own beside the decay."""
    plan = plan_of(layer_decay(0.5, "vit", lock_below=0.25))
    row = plan["cls_token"]
    assert (True, 1 / 8) == (row.locked, row.unlocked_lr_mult)
    assert ["0.5^3, layer 0 of 3", "locked: less than 0.25"] == [
        step.factor.why for step in row.trace
    ]


def test_a_locked_layer_gets_no_gradient():
    """param_groups turns requires_grad off, as timm's no_opt_scale does."""
    model = module_of(VIT)
    plan_of(layer_decay(0.5, "vit", lock_below=0.25), model).param_groups()
    assert [False, False, True, True, True, True] == [
        tensor.requires_grad for tensor in model.parameters()
    ]


# ------------------------------------------------------------------------------- the plan


def test_explain_names_the_layer():
    """The exponent, the layer out of how many, and what else was multiplied."""
    text = plan_of(layer_decay(0.5, "vit")).explain("blocks.0.w")
    assert "0.5^2, layer 1 of 3" in text
    assert "layer 1 of 3" in text.split("depth")[1].splitlines()[0]
    scheme = layer_decay(0.5, "vit", min_mult=0.25, patch_embed_mult=0.2)
    text = " ".join(plan_of(scheme).explain("patch_embed.w").split())
    assert "0.5^3, layer 0 of 3, not below 0.25, patch embedding x 0.2" in text


def test_rows_and_explain_name_the_tower():
    """Of several towers, the path; what is in none is called outside."""
    model = Holder(module_of(VIT), other=module_of(VIT), head=nn.Linear(1, 1))
    plan = plan_of(layer_decay(0.5, "vit"), model)
    row = plan["other.blocks.0.w"]
    assert ("other", (1, 3)) == (row.tower, row.depth)
    assert "layer 1 of 3 of other" in plan.explain("other.blocks.0.w")
    assert (None, None) == (plan["head.bias"].tower, plan["head.bias"].depth)
    unchanged = "unchanged by  layer_decay(0.5, indexer='vit'): outside every tower"
    assert unchanged in plan.explain("head.bias")
    top = plan.explain("other.head.w")
    assert "indexer='vit'): 0.5^0, layer 3 of 3 of other" in " ".join(top.split())
    assert "lr            1 = 1 x 1\n" in top


def test_a_scheme_that_only_names_the_layer_has_not_spoken():
    """Without a reason there is nothing to tell but the depth."""

    class Bare(nnlr.Scheme):
        def factors(self, model):
            return [nnlr.Factor(layer=nnlr.depth.Layer(1, 3))] * len(model.params)

    text = plan_of(Bare()).explain("head.w")
    assert "depth         layer 1 of 3\n" in text
    assert "lr            1 = 1 x 1 (no scheme speaks of it)\n" in text
    assert "unchanged by" not in text


def test_a_plan_with_layers_survives_json():
    """Layers, parts and towers come back as they were."""
    model = Holder(module_of(VIT), other=module_of(VIT), head=nn.Linear(1, 1))
    plan = plan_of(layer_decay(0.5, "vit", lock_below=0.2), model)
    back = Plan.from_json(plan.to_json())
    assert plan == back
    layers = [[row.trace[0].factor.layer for row in each if row.trace] for each in (plan, back)]
    assert layers[0] == layers[1]
    assert "patch_embed" == layers[1][1].part


def test_within_a_part_of_the_model_depth_is_that_parts():
    """Resolved on the submodule alone; the rest is untouched."""
    model = Holder(module_of(VIT), other=module_of(VIT))
    plan = plan_of(layer_decay(0.5, "vit").within("other"), model)
    assert [1] * 6 + [1 / 8, 1 / 8, 1 / 4, 1 / 2, 1, 1] == [r.lr_mult for r in plan]
    assert (1, 3) == plan["other.blocks.0.w"].depth


def test_where_keeps_the_depth_of_the_whole():
    """Layers are counted in the whole model, and act on some parameters."""
    plan = plan_of(layer_decay(0.5, "vit").where("blocks.*"))
    assert [1, 1, 1 / 4, 1 / 2, 1, 1] == [row.lr_mult for row in plan]


def test_the_scheme_is_shown_as_a_user_writes_it():
    """Defaults are left out, a plain indexer is its name."""
    assert "layer_decay(0.5)" == repr(layer_decay(0.5))
    assert "layer_decay(0.5, indexer='timm')" == repr(layer_decay(0.5, "timm"))
    every = layer_decay(
        0.5,
        LAST_BLOCK,
        min_mult=0.1,
        final_norm="head",
        patch_embed_mult=0.2,
        lock_below=0.05,
    )
    assert (
        "layer_decay(0.5, indexer=vit(final_norm='last_block'), min_mult=0.1, "
        "final_norm='head', patch_embed_mult=0.2, lock_below=0.05)"
    ) == repr(every)

    def vit(param):
        return 0

    assert "layer_decay(0.5, indexer=vit)" == repr(layer_decay(0.5, vit))
    mapping = layer_decay(0.5, {"a.*": 0, "b.*": 1})
    assert "layer_decay(0.5, indexer={'a.*': 0, 'b.*': 1})" == repr(mapping)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 0}, r"decay must be a finite number > 0 and <= 1, got 0"),
        ({"decay": 1.01}, r"decay must be .* <= 1, got 1\.01"),
        ({"decay": "0.5"}, r"decay must be .*, got '0\.5' \(str\)"),
        ({"decay": True}, r"decay must be .*, got True"),
        ({"min_mult": -0.1}, r"min_mult must be .* >= 0 and <= 1, got -0\.1"),
        ({"min_mult": 2}, r"min_mult must be .* <= 1, got 2"),
        ({"final_norm": "top"}, r"final_norm must be one of 'head', 'last_block'"),
        ({"patch_embed_mult": 0}, r"patch_embed_mult must be .* > 0, got 0"),
        ({"lock_below": 1.5}, r"lock_below must be .* <= 1, got 1\.5"),
        (
            {"lock_below": 0.1, "min_mult": 0.1},
            r"lock_below=0\.1 can lock nothing: min_mult lets .* below 0\.1",
        ),
    ],
)
def test_numbers_out_of_range_are_refused_at_the_call(settings, message):
    """The argument, the range and what came."""
    with pytest.raises(nnlr.NnlrError, match=message):
        layer_decay(**{"decay": 0.5, "indexer": "vit"} | settings)


def test_lock_below_may_meet_a_patch_embedding_below_min_mult():
    """Its own factor can take it there; one above 1 takes nothing else along."""
    scheme = layer_decay(0.5, "vit", min_mult=0.5, patch_embed_mult=0.1, lock_below=0.2)
    assert [0.5, 0, 0.5, 0.5, 1, 1] == rates(scheme)
    scheme = layer_decay(0.5, "vit", min_mult=0.2, patch_embed_mult=3, lock_below=0.22)
    assert [0, 3 * 0.2, 1 / 4, 1 / 2, 1, 1] == rates(scheme)


@pytest.mark.parametrize("lock_below", [0, 0.1])
def test_a_rate_too_small_for_a_float_is_an_error(lock_below):
    """It would lock the layer, at a rate of its own that is lost."""
    settings = {"lock_below": lock_below} if lock_below else {}
    table = {"cls_token": 0, "head.*": 2000}
    message = r"gives layer 0 of 2000 a multiplier of 0 in a float: 0\.5\^2000"
    with pytest.raises(nnlr.NnlrError, match=message):
        plan_of(layer_decay(0.5, table, **settings))
    kept = plan_of(layer_decay(0.5, table, min_mult=0.1))
    assert 0.1 == kept["cls_token"].lr_mult


def test_an_argument_for_a_part_that_is_not_there_is_a_finding():
    """A mapping knows no final norm and no patch embedding."""
    model = module_of(["a.w", "b.w"])
    mapping = {"a.*": 0, "b.*": 1}
    scheme = layer_decay(0.5, mapping, final_norm="head", patch_embed_mult=2)
    actual = [f for f in plan_of(scheme, model).findings if "layer-decay" in f.kind]
    assert {("warning", ())} == {(each.severity, each.names) for each in actual}
    said = "warning: {'a.*': 0, 'b.*': 1} knows no %s in this model, so %s of layer_decay "
    assert str(actual[0]).startswith(said % ("final norm", "final_norm"))
    assert str(actual[1]).startswith(said % ("patch embed", "patch_embed_mult"))
    assert str(actual[1]).split("decay ")[1].startswith("has no effect. Leave it out")
    silent = layer_decay(0.5, "vit", final_norm="head", patch_embed_mult=2)
    assert not plan_of(silent).findings


def test_what_is_in_no_layer_is_a_note():
    """The parameters that keep their rate are counted and named."""
    scheme = layer_decay(0.5, {"blocks.0.*": 0, "head.*": 1})
    (finding,) = plan_of(scheme).findings
    assert ("note", "layer-decay-outside") == (finding.severity, finding.kind)
    assert ("cls_token", "patch_embed.w", "blocks.1.w", "norm.w") == finding.names
    assert str(finding).startswith(
        "note: {'blocks.0.*': 0, 'head.*': 1} finds no layer for 4 parameters, so "
    )


# ------------------------------------------------------------------------ parity with timm

MODELS = timm.list_models()
REFERENCE = Path(__file__).parents[1] / "reference" / "timm_layer_decay.json.gz"
FROZEN = json.loads(gzip.decompress(REFERENCE.read_bytes()))["models"]

SCHEME = layer_decay(0.75, "timm") * no_weight_decay("timm_layer_decay")


def built(name, **settings):
    with torch.device("meta"):
        return timm.create_model(name, **settings)


def ours(model, scheme=SCHEME):
    """Name -> learning rate and weight decay of what is trained, at bases 1 and 0.05."""
    plan = nnlr.resolve(model, scheme, lr=1, weight_decay=0.05)
    return {row.name: [row.lr, row.weight_decay] for row in plan if row.trainable}


def theirs(model, **settings):
    """The same from timm's groups."""
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = param_groups_layer_decay(
        model, weight_decay=0.05, no_weight_decay_list=exempt, **settings
    )
    named = {id(tensor): name for name, tensor in model.named_parameters()}
    return {
        named[id(tensor)]: [group["lr_scale"], group["weight_decay"]]
        for group in groups
        for tensor in group["params"]
    }


def worst(expected, actual):
    """The largest relative difference of any rate; infinite for other parameters."""
    if expected.keys() != actual.keys():
        return inf
    return max(
        abs(want - got) / (want or 1)
        for name, pair in expected.items()
        for want, got in zip(pair, actual[name], strict=True)
    )


def differs_from_timm(name):
    """Whether a model gets other groups than from timm, or none without a matcher."""
    model = built(name)
    if hasattr(model, "group_matcher"):
        return worst(theirs(model), ours(model)) > 1e-12
    with pytest.raises(nnlr.NnlrError, match="has a group_matcher"):
        ours(model)
    return False


@pytest.mark.parametrize("name", thinned(MODELS[::90], 3))
@pytest.mark.no_cover
def test_every_ninetieth_model_of_timm(name):
    """Learning rate and weight decay of each parameter as timm has them."""
    assert not differs_from_timm(name)


@pytest.mark.full
@pytest.mark.parametrize("start", range(30))
def test_all_models_of_timm(start):
    """Those with matchers and those without, a part at a time."""
    assert [] == list(filter(differs_from_timm, MODELS[start::30]))


@pytest.mark.parametrize("name", thinned(FROZEN, 3))
@pytest.mark.no_cover
def test_values_of_timm_1_0_31(name):
    """Stored numbers, whatever version of timm is installed."""
    assert worst(FROZEN[name], ours(built(name))) <= 1e-12


def test_timms_fallback_for_models_without_a_matcher():
    """Dozens of parameters as layers, if asked for."""
    model = built("convformer_s18")
    assert not hasattr(model, "group_matcher")
    scheme = layer_decay(0.75, nnlr.depth.timm(fallback=True))
    both = scheme * no_weight_decay("timm_layer_decay")
    assert worst(theirs(model), ours(model, both)) <= 1e-12


def test_min_mult_and_lock_below_are_timms_min_scale_and_no_opt_scale():
    """The same parameters stay, with the same rates, and the others are locked."""
    model = built("resnet26d")
    exempt = no_weight_decay("timm_layer_decay")
    floor = layer_decay(0.75, "timm", min_mult=0.2) * exempt
    assert worst(theirs(model, min_scale=0.2), ours(model, floor)) <= 1e-12
    lock = layer_decay(0.75, "timm", lock_below=0.2) * exempt
    mine = ours(model, lock)
    assert 0 < len(mine) < len(list(model.parameters()))
    assert worst(theirs(model, no_opt_scale=0.2), mine) <= 1e-12


def test_frozen_parameters_count_as_layers():
    """As in timm: what is frozen gets no group, and moves no other parameter."""
    model = built("resnet26d")
    model.conv1.requires_grad_(False)
    model.layer1.requires_grad_(False)
    assert worst(theirs(model), ours(model)) <= 1e-12


def test_a_compiled_model_has_the_same_plan():
    """In timm itself all names begin with ``_orig_mod``, and so all is one layer."""
    model = built("vit_tiny_patch16_224")
    compiled = torch.compile(model, backend="eager")
    assert ours(model) == ours(compiled)
    assert {1.0} == {lr for lr, _ in theirs(compiled).values()}


def test_a_model_inside_a_module_has_the_same_rates():
    """Below ``model.`` as in a LightningModule; timm's fallback would not see it."""
    model = built("vit_tiny_patch16_224")
    expected = {f"model.{name}": pair for name, pair in ours(model).items()}
    assert expected == ours(Holder(model))


def test_a_tensor_under_two_names_is_one_row():
    """The first name counts, as for timm, which sees no other."""
    model = built("vit_tiny_patch16_224")
    model.blocks[3].mlp.fc1.weight = model.blocks[7].mlp.fc1.weight
    assert worst(theirs(model), ours(model)) <= 1e-12
    shared = copy.deepcopy(model)
    shared.blocks[5] = shared.blocks[4]
    assert worst(theirs(shared), ours(shared)) <= 1e-12
