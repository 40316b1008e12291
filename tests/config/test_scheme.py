"""Schemes as plain data: each way of writing one, there and back, and what is refused."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn

import nnlr
from nnlr import depth
from nnlr._arguments import Call
from nnlr._select.selector import Selector, as_selector
from nnlr.config import dump, schema, scheme, shapes
from nnlr.config._calls import Callee, indexers, schemes, selectors
from nnlr.config._types import fits
from tests.helpers import public_names

SHAPES = {"0.weight": [4, None], "0.bias": [4]}

# For each scheme calls that differ in what they take.
CASES = {
    "alpha_decay": [nnlr.alpha_decay(), nnlr.alpha_decay("log2", every="epoch", keep_last=False)],
    "assign": [
        nnlr.assign("rgn", "max", every=1),
        nnlr.assign("alpha", "rank(0.5, 2)", every="epoch", setting="weight_decay", by="layer"),
    ],
    "auto_rgn": [nnlr.auto_rgn(), nnlr.auto_rgn(10, by="module", batch_norm="measure")],
    "auto_snr": [nnlr.auto_snr(), nnlr.auto_snr(10, threshold=0.5, batches=1)],
    "big_vision": [
        nnlr.big_vision(),
        nnlr.big_vision([("a/.*", 0.1)], schedule=[("a.*", None), (".*", {"mult": 1})]),
        nnlr.big_vision(iter([("a/.*", 0.1)]), iter([(".*", 1)]), strict=False),
    ],
    "caffe": [nnlr.caffe(), nnlr.caffe(head="fc.*", biases=nnlr.regex(r".*\.b"))],
    "caffe_prototxt": [
        nnlr.caffe_prototxt('layer { name: "a" param { lr_mult: 2 } }', name_of={"a": "a.fc"}),
    ],
    "complete_p": [
        nnlr.complete_p(SHAPES, base_depth=2, residual_out="*.out.*", indexer=depth.vit()),
    ],
    "detectron2": [
        nnlr.detectron2(weight_decay_norm=0.0, overrides={"bias": {"lr": 0.1, "eps": 1e-6}}),
        nnlr.detectron2({"WEIGHT_DECAY_NORM": 0.1, "BIAS_LR_FACTOR": 2.0}),
    ],
    "discriminative": [
        nnlr.discriminative(),
        nnlr.discriminative(slice(0.1)),
        nnlr.discriminative(slice(1e-5, 1e-3), ["a.*", nnlr.role("head")]),
        nnlr.discriminative([1e-5, 1e-4]),
        nnlr.discriminative(2, "auto"),
        nnlr.discriminative(lr_mults=[0.1, 1], groups={"a.*": 0, "b.*": 1}),
    ],
    "freeze": [
        nnlr.freeze("a.*"),
        nnlr.freeze(~nnlr.glob("head.*"), keep=nnlr.role("norm", "bias"), optional=True),
        nnlr.freeze(below=-1, groups=3),
        nnlr.freeze(nnlr.role("norm")),
    ],
    "freeze_out": [
        nnlr.freeze_out(),
        nnlr.freeze_out(0.5, "linear", scale=False, indexer="timm"),
        nnlr.freeze_out(indexer={"a.*": 0, "b.*": 1}),
    ],
    "grad_norm_balance": [nnlr.grad_norm_balance(), nnlr.grad_norm_balance(5, power=0.5, ramp=3)],
    "layer_decay": [
        nnlr.layer_decay(0.75),
        nnlr.layer_decay(0.75, "timm", min_mult=0.1, final_norm="head"),
        nnlr.layer_decay(0.75, depth.timm(fallback=True)),
        nnlr.layer_decay(0.75, {f"{i}.*": i for i in range(9)}),
        nnlr.layer_decay(0.75, {nnlr.role("embedding"): 0, "head.*": 1}),
        *(nnlr.layer_decay(0.9, name) for name in depth.INDEXERS),
        nnlr.layer_decay(0.9, depth.swin("stem")),
    ],
    "llr": [nnlr.llr(), nnlr.llr("sqrt", ramp=0, ends=2)],
    "layer_sampling": [
        nnlr.layer_sampling(),
        nnlr.layer_sampling(1, 50, order="descending", keep_state=True, seed=3),
        nnlr.layer_sampling(order=[3, 1], of="layers", indexer={"a.*": 0, "b.*": 1}),
    ],
    "warmup": [
        nnlr.warmup(100, start=10),
        nnlr.warmup(0, after=20, lock=False),
        nnlr.warmup(5, delay=10, indexer="vit"),
    ],
    "lora_plus": [nnlr.lora_plus(), nnlr.lora_plus(8, grouping="peft", embedding_lr=1e-5)],
    "megatron": [
        nnlr.megatron(),
        nnlr.megatron({"*.bias": {"wd_mult": 0}, nnlr.role("norm"): {"max_lr": 0.1}}),
    ],
    "mmengine": [
        nnlr.mmengine(None),
        nnlr.mmengine({"custom_keys": {"a": {"lr_mult": 0.1}}, "norm_decay_mult": 0}),
        nnlr.mmengine({"bias_lr_mult": 2, "x": 1}, strict=False),
    ],
    "mup": [
        nnlr.mup(),
        nnlr.mup({1024: 256}),
        nnlr.mup({"1024": 256}),
        nnlr.mup(shapes(nn.Linear(2, 4), nn.Linear(2, 8)), decoupled_wd=True),
        nnlr.mup(SHAPES, head_growth={"*.q.*": 2}, fan_in={nnlr.role("matrix"): 1}),
    ],
    "no_weight_decay": [
        nnlr.no_weight_decay(),
        nnlr.no_weight_decay("timm"),
        nnlr.no_weight_decay(embeddings=True),
    ],
    "roles": [
        nnlr.roles({"embedding": 10, "norm": {"wd_mult": 0, "options": {"eps": 1e-6}}}),
        nnlr.roles({"head": 2}, default={"lr": 0.1}, optional=True),
    ],
    "route": [nnlr.route("muon", "adamw"), nnlr.route("muon", "adamw", lora_b=False)],
    "temp_balance": [nnlr.temp_balance(), nnlr.temp_balance("sigmoid(4)", min_eigenvalues=9)],
    "torchtitan": [
        nnlr.torchtitan([{"pattern": ".*", "lr": 0.1, "weight_decay": 0, "betas": (0.9, 0.95)}])
    ],
    "unfreeze": [
        nnlr.unfreeze("ulmfit", ["a.*", "b.*"], epochs=2, patience=3, warmup=5),
        nnlr.unfreeze(
            [{"train": [-1, nnlr.role("norm")]}, {"train": "*", "epoch": 2, "lr": 0.01}],
            4,
            mode="max",
            rest="frozen",
            keep=nnlr.role("bias"),
        ),
    ],
    "rule": [
        nnlr.rule("a.*"),
        nnlr.rule("a.*", lr_mult=0.1, options={"betas": (0.9, 0.95), "fused": None}),
        nnlr.rule(nnlr.role("norm"), lr=1e-3, algorithm="muon", optional=True),
        nnlr.rule((nnlr.glob("a") | "b" | nnlr.regex("c")) & ~nnlr.role("norm") & nnlr.ndim(max=1)),
        nnlr.rule(
            nnlr.glob("a") & (nnlr.glob("b") & "c") & nnlr.module_type("LayerNorm", "Conv2d")
        ),
    ],
    "rules": [
        nnlr.rules([nnlr.rule("a.*", lr_mult=2), nnlr.rule("b.*"), nnlr.freeze("c.*")]),
        nnlr.rules([nnlr.rule("*", lr_mult=2)], complete=True),
    ],
    "combined": [
        nnlr.rule("a") * nnlr.no_weight_decay() * nnlr.layer_decay(0.5),
        (nnlr.rule("a") * nnlr.no_weight_decay()).where("b*"),
        nnlr.no_weight_decay().where("a.*", optional=True),
        nnlr.no_weight_decay().within("b").where(nnlr.role("norm")),
        nnlr.no_weight_decay().where("a").within("b"),
        nnlr.rule("a").within("b").within("c"),
        nnlr.rule("a").where("b").where("c") * nnlr.rule("d"),
    ],
}


def facts(value):
    """All that a scheme is made of, as something that can be compared."""
    if isinstance(value, list | tuple | set | frozenset):
        return [facts(item) for item in value]
    if isinstance(value, dict):
        return [(facts(key), facts(item)) for key, item in value.items()]
    if hasattr(value, "__dict__") and not callable(value):
        return type(value).__name__, facts(
            {k: v for k, v in vars(value).items() if k not in {"_call", "label"}}
        )
    return repr(value)


def test_there_is_a_case_of_every_scheme():
    """What is published can be configured."""
    assert {*public_names(nnlr.schemes), "rule", "rules", "combined"} == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_scheme_is_the_same_after_a_round_trip(name):
    """Through JSON text: the same call, the same contents, the same data again."""
    for written in CASES[name]:
        data = dump(written)
        read = scheme(json.loads(json.dumps(data)))
        assert repr(written) == repr(read)
        assert facts(written) == facts(read)
        assert json.dumps(data) == json.dumps(dump(read))


def test_a_base_and_a_delta_become_shapes():
    """Of two models at two widths, given as shapes, what is finite is data."""
    written = nnlr.mup({"weight": [4, 2]}, delta={"weight": [8, 2]})
    data = {"mup": {"weight": [4, None]}}
    assert data == dump(written) == dump(scheme(data))


FORMS = [
    ("no_weight_decay", nnlr.no_weight_decay()),
    ({"no_weight_decay": None}, nnlr.no_weight_decay()),
    ({"layer_decay": "75e-2"}, nnlr.layer_decay(0.75)),
    (
        {"layer_decay": {"decay": 0.75, "indexer": {"vit": "last_block"}}},
        nnlr.layer_decay(0.75, depth.vit("last_block")),
    ),
    (
        {"layer_decay": {"decay": 0.5, "indexer": {"by_pattern": {"a": 0}}}},
        nnlr.layer_decay(0.5, {"a": 0}),
    ),
    ({"select": "head.*", "lr_mult": "1e1"}, nnlr.rule("head.*", lr_mult=10)),
    ({"freeze": {"role": "norm"}}, nnlr.freeze(nnlr.role("norm"))),
    ({"freeze": {"glob": "a.*"}}, nnlr.freeze("a.*")),
    ({"roles": {"embedding": 10}}, nnlr.roles({"embedding": 10})),
    ({"rule": {"select": {"ndim": 1}}}, nnlr.rule(nnlr.ndim(min=1, max=1))),
    (
        {"rule": {"select": {"any": ["a", {"not": "b"}]}}},
        nnlr.rule(nnlr.glob("a") | ~nnlr.glob("b")),
    ),
    ([["caffe"], {"product": "caffe"}], nnlr.caffe() * nnlr.caffe()),
    (
        {"caffe": {}, "where": {"select": "a", "optional": True}, "within": "b"},
        nnlr.caffe().within("b").where("a", optional=True),
    ),
]


@pytest.mark.parametrize(("data", "meant"), FORMS, ids=lambda form: str(form)[:40])
def test_a_short_form_is_the_call_it_stands_for(data, meant):
    """Whatever can be left out, and in whichever way."""
    assert repr(meant) == repr(scheme(data))


def test_what_can_be_written_is_read_from_signatures():
    """An argument that only says no is left out; names for type checkers are no obstacle."""
    for registry in (schemes, selectors, indexers):
        registry.cache_clear()
    assert {"select", "lr_mult", "algorithm"} < schemes()["rule"].arguments.keys()
    assert (str,) == selectors()["role"].members
    assert () == schemes()["rule"].members
    assert {"timm", "by_pattern"} < indexers().keys()

    def typed(first: "Unheard", *, second=0): ...  # noqa: F821 - for type checkers

    arguments = Callee.of("typed", typed).arguments
    assert [("Unheard",), (Any,)] == [argument.types for argument in arguments.values()]
    assert all(fits(3, argument.types) for argument in arguments.values())


@dataclass(frozen=True)
class Slowed(nnlr.Scheme):
    """What the function below makes, without a line about how it is written."""

    selector: Selector
    share: float

    def factors(self, model):
        return [nnlr.Factor(lr_mult=self.share) for _ in model.params]


def slowed(selector: Selector | str, *, share: float = 0.5) -> nnlr.Scheme:
    """Slow some parameters down."""
    return Slowed(as_selector(selector, "slowed"), share)


def test_a_new_scheme_is_configurable_without_a_line(monkeypatch):
    """What `nnlr.schemes` publishes is read, written if it is its call, and in the schema."""

    class Made(Call, Slowed):
        _call = "slowed"
        __module__ = "nnlr.schemes._slowed"

    monkeypatch.setattr(nnlr.schemes, "slowed", slowed, raising=False)
    schemes.cache_clear()
    try:
        assert 0.25 == scheme({"slowed": {"select": "a.*", "share": "25e-2"}}).share
        data = {"slowed": {"select": {"role": "norm"}, "share": 0.25}}
        assert data == dump(Made(nnlr.role("norm"), 0.25))
        named = schema("scheme")["$defs"]["scheme"]["anyOf"][3]["properties"]["slowed"]
        assert "Slow some parameters down." == named["description"]
        with pytest.raises(nnlr.ConfigError, match=r"\.slowed\.shar: .* Nearest: 'share'\.$"):
            scheme({"slowed": {"select": "a", "shar": 1}})
    finally:
        schemes.cache_clear()
