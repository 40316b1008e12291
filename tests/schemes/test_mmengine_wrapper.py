"""``mmengine(optim_wrapper)``: which constructor a dict means, and what it refuses."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.schemes._frameworks.mmengine.keys import known_words
from tests.schemes.mm_models import (
    BEIT,
    FORCED,
    INTERN,
    MMDET,
    MMPRETRAIN,
    SWIN,
    beit,
    named,
    rates,
    tree,
    vit,
    wrapper,
)

REFERENCE = Path(__file__).parents[1] / "reference" / "mm_configs.json.gz"


def entries():
    """The models and rates that ``docs/make_mmengine_table.py`` has written."""
    return json.loads(gzip.decompress(REFERENCE.read_bytes()))


def rebuilt(entry):
    """A model with the names, shapes and kinds of modules of a saved one."""
    made = {"LayerNorm": lambda: nn.LayerNorm(1), "GroupNorm": lambda: nn.GroupNorm(1, 1)}
    made |= {"BatchNorm2d": lambda: nn.BatchNorm2d(1), "Conv2d": lambda: nn.Conv2d(2, 2, 1)}
    made["depthwise"] = lambda: nn.Conv2d(2, 2, 1, groups=2)
    classes = {
        path: made.get(kind, lambda kind=kind: named(kind))() for path, kind in entry["classes"]
    }
    for module in classes.values():
        module._parameters.clear()
    shapes = dict(entry["shapes"])
    model = tree(shapes, classes, shapes)
    for name in entry["frozen"]:
        model.get_parameter(name).requires_grad_(False)
    return model


def differing(entry, wrapper_of):
    """Names whose rates are not those of the constructor in its package."""
    model = rebuilt(entry)
    differences = []
    for index, of, pairs in entry["runs"]:
        optim_wrapper = wrapper_of[index]
        optimizer = optim_wrapper["optimizer"]
        got = rates(model, nnlr.mmengine(optim_wrapper), optimizer["lr"], optimizer["weight_decay"])
        trained = [name for name, _ in entry["shapes"] if name not in entry["frozen"]]
        for name, at in zip(trained, of, strict=True):
            if got[name] != pytest.approx(tuple(pairs[at]), rel=1e-12, abs=0):
                differences.append((entry["config"], name, got[name], pairs[at]))
    return differences


def test_constructors_of_the_packages_are_equal_on_their_models():
    """Names, shapes and rates of real models of mmpretrain, mmseg and mmdet."""
    saved = entries()
    short = [entry for entry in saved["models"] if entry["short"]]
    assert len(short) >= 6
    assert [] == [found for entry in short for found in differing(entry, saved["wrappers"])]


@pytest.mark.full  # 10 s
def test_constructors_of_the_packages_are_equal_on_more_models():
    """The same on the rest of the saved models."""
    saved = entries()
    assert len(saved["models"]) >= 20
    more = [entry for entry in saved["models"] if not entry["short"]]
    assert [] == [found for entry in more for found in differing(entry, saved["wrappers"])]


def test_every_optim_wrapper_of_the_packages_is_taken():
    """None of the distinct ones is refused, also as a recipe."""
    for optim_wrapper in entries()["wrappers"]:
        scheme = nnlr.mmengine(optim_wrapper)
        assert "mmengine" in repr(scheme)
        if hasattr(torch.optim, optim_wrapper["optimizer"]["type"]):
            recipe = nnlr.config.from_mmengine(optim_wrapper)
            assert optim_wrapper["optimizer"]["lr"] == recipe.lr


def test_a_whole_dict_without_constructor_is_the_default_one():
    """The same as its paramwise_cfg alone; and the optimizer of mmcv 1 has it inside."""
    inner = {"custom_keys": {"head": {"lr_mult": 10}}, "bias_decay_mult": 0}
    expected = rates(vit(), nnlr.mmengine(inner))
    assert expected == rates(vit(), nnlr.mmengine(wrapper(**inner)))
    old = {"type": "AdamW", "lr": 1, "weight_decay": 1, "paramwise_cfg": inner}
    assert expected == rates(vit(), nnlr.mmengine(old))
    assert rates(vit(), nnlr.mmengine(None)) == rates(vit(), nnlr.mmengine({"type": "SGD"}))
    assert expected["head.fc.weight"] == (10, 1)


@pytest.mark.parametrize(
    "spelling",
    [MMDET, f"mmdet.{MMDET}", f"mmseg.engine.optimizers.x.{MMDET}", type(MMDET, (), {})],
    ids=["plain", "package", "module", "class"],
)
def test_a_constructor_goes_by_its_name_in_any_spelling(spelling):
    """With and without a package, and as a class, as lazy configurations have it."""
    scheme = nnlr.mmengine(wrapper(spelling, num_layers=3, decay_rate=0.5))
    expected = nnlr.mmengine(wrapper(MMDET, num_layers=3, decay_rate=0.5))
    assert rates(beit(), expected) == rates(beit(), scheme)
    assert MMDET in str(scheme.written_as())


def test_a_config_dict_is_as_good_as_a_dict():
    """Also with classes in it, and with what belongs to the trainer."""
    config = pytest.importorskip("mmengine").ConfigDict(
        wrapper(MMPRETRAIN, layer_decay_rate=0.5), accumulative_counts=2
    )
    plain = nnlr.mmengine(wrapper(MMPRETRAIN, layer_decay_rate=0.5))
    assert rates(vit(), plain) == rates(vit(), nnlr.mmengine(config))


def test_rules_overrule_keys_where_forced():
    """Mmsegmentation's ForceDefault: the rules act after the key, and on what they reach only."""
    keys = {"head": {"lr_mult": 10, "weight_decay": 7, "momentum": 0.5}}
    config = {"custom_keys": keys, "bias_lr_mult": 2, "bias_decay_mult": 0}
    forced = nnlr.mmengine(wrapper(FORCED, **config, force_default_settings=True))
    got = rates(vit(), forced)
    assert got["head.fc.weight"] == (10, 7)
    assert got["head.fc.bias"] == (2, 0)
    plan = nnlr.resolve(vit(), forced, lr=1, weight_decay=1)
    assert plan["head.fc.bias"].options == {"momentum": 0.5}
    assert "rules-cancelled" not in {found.kind for found in plan.findings}
    plain = nnlr.mmengine(wrapper(FORCED, **config))
    assert rates(vit(), nnlr.mmengine(config)) == rates(vit(), plain)


def test_keys_of_other_architectures_are_a_note():
    """One note for all; and keys that longer ones with the same settings cover are another."""
    known_words.cache_clear()  # a test without coverage may have read them
    exempt = {"decay_mult": 0.0}
    keys = [".absolute_pos_embed", "relative_position_bias_table", ".cls_token", "cls_token"]
    keys += ["backbone.stages.0.blocks.1.norm"]
    config = {"custom_keys": dict.fromkeys(keys, exempt)}
    plan = nnlr.resolve(vit(), nnlr.mmengine(config), lr=1, weight_decay=1)
    notes = {found.kind: found for found in plan.findings}
    assert {"other-architecture", "covered-key"} == notes.keys()
    assert {"note"} == {found.severity for found in plan.findings}
    assert (
        "'relative_position_bias_table', '.absolute_pos_embed'" in notes["other-architecture"].cause
    )
    assert notes["covered-key"].cause.endswith("cover: cls_token")


@pytest.mark.parametrize(
    ("key", "names", "meant"),
    [
        ("img_encoder", ["image_encoder.weight"], "image_encoder"),
        (".backbone.classifier", ["backbone.classifier.0.weight"], "backbone.classifier"),
    ],
)
def test_a_key_of_other_models_that_is_like_a_name_here_is_a_warning(key, names, meant):
    """SAN of mmsegmentation and VGG of mmpretrain have these two, which do nothing there."""
    scheme = nnlr.mmengine({"custom_keys": {key: {"lr_mult": 0.1}}})
    (found,) = nnlr.resolve(tree(names), scheme, lr=1, weight_decay=1).findings
    assert ("warning", "near-miss") == (found.severity, found.kind)
    assert found.cause.endswith(f"where there is {meant!r}")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (".cls_tokne", "'.cls_tokne' matches no parameter(?s:.*)Nearest: 'cls_token'"),
        (
            "relative_postion_bias_table",
            "matches no parameter(?s:.*)Nearest in other models: 'relative_position_bias_table'",
        ),
        ("backbone.layers.3.", "'backbone.layers.3.' matches no parameter"),
        ("qqqq", "matches no parameter(?s:.*)Names there"),
        ("cls.token", "matches no parameter(?s:.*)Nearest: 'cls_token'"),
        ("head.*", "matches no parameter(?s:.*)Nearest: 'head'"),
        (" head", "matches no parameter(?s:.*)Nearest: 'head'"),
        ("...", "matches no parameter"),
    ],
)
def test_misspelt_keys_and_numbers_that_are_not_there_are_errors(key, message):
    """Also of names that only other architectures have, and indices beyond the last."""
    scheme = nnlr.mmengine({"custom_keys": {key: {"decay_mult": 0}}})
    with pytest.raises(PatternError, match=message):
        rates(vit(), scheme)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (wrapper("LayerDecay"), "constructor 'LayerDecay' is none that nnlr knows"),
        (wrapper("mine.Own"), "Known: Default(?s:.*)subclass of nnlr.Scheme"),
        (wrapper(MMDET, decay_rate=0.9), "LearningRate.* needs 'num_layers' in paramwise_cfg"),
        (wrapper(MMDET, num_layers=1.5, decay_rate=0.9), "num_layers must be a whole number"),
        (wrapper(MMDET, num_layers=1, decay_rate=0.9, decay_type="x"), "decay_type must be one"),
        (wrapper(MMDET, num_layers=1, decay_rate=-1), "decay_rate must be a finite number >= 0"),
        (wrapper(INTERN, num_layers=1, layer_decay_rate=1, depths=4), "depths must be a list"),
        (wrapper(INTERN, num_layers=1, layer_decay_rate=1, depths=[0]), "each of depths must be"),
        (wrapper(BEIT, num_layers=1, decay_rate=1), "'decay_rate', which is for another"),
        (wrapper(force_default_settings=True), "force_default_settings', which is for another"),
        ({"optimizer": 3}, "optimizer must be a mapping"),
        ({"optimzer": {}}, "'optimzer', which looks like 'optimizer'"),
        ({"optim_wrapper": 3}, "optim_wrapper must be a mapping, got 3"),
        ({"custom_keys": []}, r"custom_keys must be a mapping, got \[\]"),
        ({"optimizer": {}, "paramwise_cfg": []}, r"paramwise_cfg must be a mapping, got \[\]"),
        (wrapper([]), r"constructor '\[\]' is none"),
        (wrapper(SWIN, norm=3), "custom key 'norm' must be a mapping, got 3"),
        (wrapper(SWIN, norm={"lr": 1}), "'lr', which SwinOptimWrapperConstructor passes over"),
        (wrapper(SWIN, num_layers=1), "'num_layers', which is for another"),
        ({"optimizer": {"type": "SGD"}, "paramwise_cgf": {}}, "Nearest: 'paramwise_cfg'"),
        (wrapper(optimizer={"type": "SGD", "lr": 1}, bias_decay_mult=0), "bias_decay_mult is a"),
        (
            wrapper(optimizer={"type": "SGD"}, custom_keys={"a": {"decay_mult": 0}}),
            "decay_mult of custom key 'a' is a factor on the weight_decay of the optimizer",
        ),
        (
            wrapper(MMPRETRAIN, custom_keys={"head": {"lr_mult": 2}}),
            r"'lr_mult', which Learning.* passes over(?s:.*)nnlr.rule\('\*head\*', lr_mult=...\)",
        ),
    ],
)
def test_malformed_wrappers_are_refused(config, message):
    """At the call, with what to do."""
    with pytest.raises(NnlrError, match=message):
        nnlr.mmengine(config)


def test_a_configuration_that_has_an_optim_wrapper_is_as_good():
    """``nnlr.mmengine(cfg)`` and ``from_mmengine(cfg)`` find it there."""
    whole = wrapper(bias_lr_mult=2)
    config = {"model": {}, "optim_wrapper": whole}
    assert rates(vit(), nnlr.mmengine(config)) == rates(vit(), nnlr.mmengine(whole))
    assert str(nnlr.config.from_mmengine(config)) == str(nnlr.config.from_mmengine(whole))


@pytest.mark.parametrize("flat", [True, False])
def test_keys_of_mmactions_swin_multiply(flat):
    """All keys in a name count, whether they stand in custom_keys or in the paramwise_cfg."""
    keys = {"backbone": {"lr_mult": 0.5}, "layers.0": {"lr_mult": 0.5}, "norm": {"decay_mult": 0}}
    keys |= {".cls_token": {"decay_mult": 0.25}, "absolute_pos_embed": {"decay_mult": 0}}
    scheme = nnlr.mmengine(wrapper(SWIN, **(keys if flat else {"custom_keys": keys})))
    got = rates(vit(), scheme)
    for name, pair in got.items():
        due = [1.0, 1.0]
        for key, item in keys.items():
            if key in name:
                due[0] *= item.get("lr_mult", 1)
                due[1] *= item.get("decay_mult", 1)
        assert tuple(due) == pair, name
    assert len({*got.values()}) > 3
    plan = nnlr.resolve(vit(), scheme, lr=1, weight_decay=1)
    assert ["other-architecture"] == [found.kind for found in plan.findings]
    with pytest.raises(PatternError, match=r"'bakcbone' matches no parameter"):
        rates(vit(), nnlr.mmengine(wrapper(SWIN, bakcbone={"lr_mult": 0.5})))


def test_keys_that_a_base_file_hands_on_are_a_finding():
    """RTMDet's ConvNeXt inherits rules that its constructor does not read; _delete says nothing."""
    inherited = {"norm_decay_mult": 0, "bypass_duplicate": True, "_delete": True}
    scheme = nnlr.mmengine(wrapper(BEIT, num_layers=3, layer_decay_rate=0.9, **inherited))
    found = nnlr.resolve(beit(), scheme, lr=1, weight_decay=1).findings
    assert ["unread-key", "unread-key"] == [one.kind for one in found]
    assert "does not read 'norm_decay_mult'" in found[0].cause


def test_a_whole_wrapper_is_written_and_read_again():
    """As plain data it keeps what decides: the constructor and its paramwise_cfg."""
    scheme = nnlr.mmengine(wrapper(f"mmseg.{BEIT}", num_layers=3, layer_decay_rate=0.9))
    data = nnlr.config.dump(scheme)
    assert rates(beit(), scheme) == rates(beit(), nnlr.config.scheme(data))


def test_settings_that_mmpretrain_passes_over_do_nothing():
    """A finding where leniency is asked for; the rate is that of the layer."""
    config = {"layer_decay_rate": 0.5, "custom_keys": {"head": {"lr_mult": 2, "lr": 3}}}
    plan = nnlr.resolve(
        vit(), nnlr.mmengine(wrapper(MMPRETRAIN, **config), strict=False), lr=1, weight_decay=1
    )
    assert ["unread-key", "unread-key"] == [found.kind for found in plan.findings]
    assert 1 == plan["head.fc.weight"].lr


def test_a_covered_key_with_other_settings_is_an_error():
    """Its own settings would never act."""
    keys = {"head.fc": {"lr_mult": 2}, "head": {"lr_mult": 3}}
    with pytest.raises(PatternError, match=r"'head' has no effect(?s:.*)claimed by others"):
        rates(vit(), nnlr.mmengine({"custom_keys": keys}))


def test_an_unread_key_is_refused_as_a_config_error():
    """A layer decay that the default constructor would pass over is no finding."""
    with pytest.raises(ConfigError, match="Pass the whole optim_wrapper if it names Learning"):
        nnlr.mmengine({"decay_rate": 0.5})
