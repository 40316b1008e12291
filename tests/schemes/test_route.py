"""Routing: Muon for the hidden matrices of every model, the other algorithm for the rest."""

import re

import pytest
import torch
from torch import nn

import nnlr
from docs import _markers, make_route_table
from nnlr._model.describe import describe
from nnlr.errors import NnlrError
from nnlr.testing import SchemeLaws
from tests import zoo
from tests.schemes import route_census
from tests.schemes.route_census import judged


def reasons(model, **choices):
    """Why each parameter goes where it goes; ``None`` for what Muon trains."""
    scheme = nnlr.route("muon", "adamw", **choices)
    info = describe(model)
    pairs = zip(info.params, scheme.factors(info), strict=True)
    return {p.name: None if f.algorithm == "muon" else f.why for p, f in pairs}


@pytest.mark.no_cover
class TestRouteLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.route("muon", "adamw"),
            nnlr.route("a", "b", convolutions=True, experts=True, lora_b=False),
        ]


class TestShapes:
    @pytest.mark.parametrize(
        ("shape", "why"),
        [
            ((4, 4), None),
            ((512, 4), None),
            ((4, 512), None),
            ((3, 8), "a side of 3"),
            ((513, 4), "513 is more than 128 times 4"),
        ],
    )
    def test_sides_and_aspect(self, shape, why):
        """Both sides at least 4, one at most 128 times the other."""
        model = zoo.calling(mix=nn.Linear(*shape, bias=False), norm=nn.LayerNorm(2))
        assert why == reasons(model)["mix.weight"]

    def test_experts_are_stacks_of_matrices(self):
        """They go to Muon by choice only, and thin ones never."""
        experts = nn.Module()
        experts.gate_up_proj = nn.Parameter(torch.zeros(2, 8, 4))
        experts.thin_proj = nn.Parameter(torch.zeros(9, 2, 9))
        experts.deep_proj = nn.Parameter(torch.zeros(2, 8, 4, 4))
        model = zoo.calling(experts=experts, norm=nn.LayerNorm(2))
        assert [*["3 axes"] * 2, "4 axes"] == list(reasons(model).values())[:3]
        chosen = list(reasons(model, experts=True).values())[:3]
        assert [None, "a side of 2", "4 axes"] == chosen

    def test_flat_parameters_are_no_matrices(self):
        """FSDP1 makes vectors of them, whatever their names are."""
        model = {"layer.proj": torch.zeros(64), "layer.weight": torch.zeros(8, 8)}
        assert ["role vector", None] == list(reasons(model).values())


class TestConvolutions:
    @pytest.mark.parametrize(
        ("conv", "why"),
        [
            (nn.Conv2d(8, 8, 3), None),
            (nn.Conv1d(8, 4, 1), None),
            (nn.ConvTranspose2d(8, 4, 2), None),
            (nn.Conv2d(3, 8, 4), "a side of 3"),
            (nn.Conv2d(8, 8, 3, groups=8), "a side of 1"),
            (nn.Conv2d(16, 16, 3, groups=4), "a grouped convolution"),
            (nn.ConvTranspose2d(16, 16, 3, groups=2), "a grouped convolution"),
            (nn.Conv2d(4, 4, 12), "576 is more than 128 times 4"),
        ],
    )
    def test_by_choice(self, conv, why):
        """Flattened, of at least 4 channels in and out, not depthwise and in one group."""
        model = zoo.calling(conv=conv, norm=nn.LayerNorm(2))
        assert reasons(model)["conv.weight"] == "role conv"
        assert why == reasons(model, convolutions=True)["conv.weight"]

    def test_layer_scale_is_never_one(self):
        """(C, 1, 1) is a gain, though it has three axes."""
        model = nn.Module()
        model.gamma = nn.Parameter(torch.ones(64, 1, 1))
        assert reasons(model, convolutions=True, experts=True) == {"gamma": "role gain"}


class TestAdapters:
    def test_b_is_orthogonalized_and_a_is_not(self):
        """Also a long one; rank 2 is a few vectors."""
        model = {
            f"fc.lora_{side}.weight": torch.zeros(shape)
            for side, shape in {"A": (8, 4096), "B": (4096, 8)}.items()
        }
        model["fc2.lora_B.weight"] = torch.zeros(64, 2)
        assert ["role lora_a", None, "a side of 2"] == list(reasons(model).values())
        assert {"role lora_a", "role lora_b"} == set(reasons(model, lora_b=False).values())

    @pytest.mark.full
    @pytest.mark.no_cover
    def test_of_peft(self):
        """What is frozen is in no group, wherever it is sent."""
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=4, target_modules=["fc"])
        model = peft.get_peft_model(zoo.plain(), config)
        plan = route_census.routed(model)
        trained = {row.name: row.algorithm for row in plan if row.trainable}
        assert {"muon"} == {to for name, to in trained.items() if "lora_B" in name}
        assert {"adamw"} == {to for name, to in trained.items() if "lora_A" in name}


class TestUse:
    def test_what_every_model_has(self):
        """Tables, positions, tokens, routers, state and the head go to the other."""
        model = zoo.plain()
        model.pos_embed = nn.Parameter(torch.zeros(1, 9, 4))
        model.query_tokens = nn.Parameter(torch.zeros(8, 4))
        model.A_log = nn.Parameter(torch.zeros(8, 4))
        model.moe = nn.ModuleDict(
            {"gate": nn.Linear(8, 4), "experts": nn.ModuleList([nn.Linear(4, 4)])}
        )
        by_reason = {}
        for name, why in reasons(model).items():
            by_reason.setdefault(why, []).append(name)
        assert by_reason == {
            "role position": ["pos_embed"],
            "role token": ["query_tokens"],
            "role state": ["A_log"],
            "role embedding": ["embed.weight"],
            "role norm": [f"blocks.{i}.norm.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")],
            None: ["blocks.0.fc.weight", "blocks.1.fc.weight", "moe.experts.0.weight"],
            "role bias": [
                *("blocks.0.fc.bias", "blocks.1.fc.bias"),
                *("moe.gate.bias", "moe.experts.0.bias"),
            ],
            "role head": ["head.weight"],
            "role router": ["moe.gate.weight"],
        }

    @pytest.mark.parametrize("first", ["out", "words"])
    def test_a_tied_table_is_a_table(self, first):
        """Whichever of its places comes first, and whatever they are called."""
        parts = {"out": nn.Linear(8, 16, bias=False), "words": nn.Embedding(16, 8)}
        parts["out"].weight = parts["words"].weight
        order = dict(sorted(parts.items(), key=lambda item: item[0] != first))
        model = zoo.calling(**order, norm=nn.LayerNorm(8))
        assert reasons(model)[f"{first}.weight"] == "role embedding"

    def test_the_output_layer_is_known_by_its_place(self):
        """No name says so; a shared matrix stays one."""
        shared = nn.Linear(8, 8)
        model = nn.Sequential(nn.Embedding(9, 8), shared, shared, nn.ReLU(), nn.Linear(8, 9))
        plan = route_census.routed(model)
        assert [row.algorithm for row in plan if len(row.shape) == 2] == ["adamw", "muon", "adamw"]
        assert plan["4.weight"].trace[0].factor.why == "role head"

    def test_a_rule_overrules_it(self):
        """And the trace keeps what the routing would have done."""
        scheme = nnlr.route("muon", "adamw") * nnlr.rule("blocks.0.fc.weight", algorithm="adamw")
        plan = nnlr.resolve(zoo.plain(), scheme, lr=1, weight_decay=0)
        row = plan["blocks.0.fc.weight"]
        assert row.algorithm == "adamw"
        assert [step.factor.algorithm for step in row.trace] == ["muon", "adamw"]


class TestArguments:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"matrices": 1},
            {"matrices": ""},
            {"others": None},
            {"experts": 1},
            {"convolutions": "no"},
            {"lora_b": 0},
        ],
    )
    def test_are_names_and_flags(self, wrong):
        """Refused where they are passed."""
        with pytest.raises(NnlrError, match=re.escape(next(iter(wrong)))):
            nnlr.route(**{"matrices": "muon", "others": "adamw", **wrong})

    def test_the_repr_is_the_call(self):
        """Defaults are left out."""
        assert repr(nnlr.route("muon", "adamw")) == "route('muon', 'adamw')"
        assert repr(nnlr.route("a", "b", experts=True)) == "route('a', 'b', experts=True)"


class TestCensus:
    def test_the_page_says_what_was_counted(self):
        """The generated table."""
        kept = make_route_table.kept()
        assert make_route_table.table(kept) == _markers.read("schemes/route.md", "counts")

    @pytest.mark.no_cover
    @pytest.mark.filterwarnings("ignore")
    def test_a_sample_is_routed_as_it_should_be(self):
        """One model of many."""
        assert judged(route_census.models("timm", 5, 400))["models"] == 4

    @pytest.mark.full
    @pytest.mark.no_cover
    @pytest.mark.filterwarnings("ignore")
    def test_every_model_of_timm_is_routed_as_it_should_be(self):
        """And the page counts all of them."""
        assert make_route_table.kept()["timm"] == judged(route_census.models("timm"))
