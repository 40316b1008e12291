"""Discriminative rates: fastai's and ULMFiT's numbers over ordered groups."""

import math

import numpy as np
import pytest
import timm
import torch
import transformers
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr.depth._layer import Indexer, Layer
from nnlr.errors import CoverageError, NnlrError, PatternError
from nnlr.schemes import _layer_groups as layer_groups
from nnlr.testing import SchemeLaws
from tests import zoo

SPLIT = ["embed.*", "blocks.0.*", "blocks.1.*", "head.*"]


def even_mults(start, stop, n):
    """Fastai's geometric steps, written from its formula."""
    if n == 1:
        return [stop]
    step = (stop / start) ** (1 / (n - 1))
    return [start * step**i for i in range(n)]


def set_hyper(value, n):
    """What fastai makes of a hyperparameter for n groups."""
    if isinstance(value, slice):
        if value.start:
            return even_mults(value.start, value.stop, n)
        return [value.stop / 10] * (n - 1) + [value.stop]
    return list(value)


def stack(n, width=2):
    """N linear layers in a row."""
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(n)))


def rates(model, scheme, *, lr=1.0, weight_decay=0.0):
    """Every parameter's learning rate by name."""
    plan = nnlr.resolve(model, scheme, lr=lr, weight_decay=weight_decay)
    return {row.name: row.lr for row in plan}


def of_layers(n):
    """One pattern for each layer of a stack."""
    return [f"{i}.*" for i in range(n)]


def layer_number(param):
    """The layer of a stack that a parameter is in."""
    return int(param.name.split(".")[0])


def children(net):
    """A splitter: every layer of a stack by itself."""
    return list(net)


class Given(Indexer):
    """Layers as a test wrote them."""

    def __init__(self, *layers):
        self.given = layers

    def layers(self, model):
        return list(self.given)

    def __repr__(self):
        return "Given()"


@pytest.fixture
def given_auto(monkeypatch):
    """Let `auto` find the layers that a test wrote."""

    def put(*layers):
        monkeypatch.setattr(layer_groups, "auto", lambda: Given(*layers))

    return put


def tower(count, name="", *, headed=True):
    """One parameter for each layer of a tower."""
    parts = ["block"] * (count - 1) + ["head" if headed else "block"]
    return [Layer(i, count - 1, name, parts[i]) for i in range(count)]


@pytest.mark.no_cover
class TestDiscriminativeLaws(SchemeLaws):
    def schemes(self):
        def halves(model):
            tensors = list(model.parameters())
            return [tensors[:1], tensors[1:]]

        return [
            nnlr.discriminative(2.6, ["0.*", "*"]),
            nnlr.discriminative(slice(1e-5, 1e-2), ["0.*", "*"]),
            nnlr.discriminative(slice(1e-2), ["0.weight", "*"]),
            nnlr.discriminative(lr_mults=[0.1, 3], groups=halves),
            nnlr.discriminative(2, nnlr.depth.by_function(lambda p: int(p.leaf != "weight"))),
        ]

    def models(self):
        return [model for model in super().models() if len(list(model.parameters())) > 2]


class TestNumbers:
    @pytest.mark.parametrize("n", [1, 2, 3, 5, 14])
    @pytest.mark.parametrize(
        "value", [slice(1e-5, 1e-3), slice(1e-3, 1e-5), slice(0.02), slice(0, 0.02)]
    )
    def test_slices_are_those_of_fastai(self, value, n):
        """slice(a, b) and slice(b) give what fastai's set_hyper gives, for any n."""
        expected = set_hyper(value, n)
        actual = rates(stack(n), nnlr.discriminative(value, of_layers(n)), lr=0.3)
        for i, rate in enumerate(expected):
            assert math.isclose(rate, actual[f"{i}.weight"], rel_tol=1e-12)
            assert math.isclose(rate, actual[f"{i}.bias"], rel_tol=1e-12)

    @pytest.mark.parametrize("factor", [1, 2, 2.6, 10])
    def test_a_number_is_the_factor_between_neighbours(self, factor):
        """The multiplier is factor ** -(n - 1 - i), on whatever base rate."""
        actual = rates(stack(5), nnlr.discriminative(factor, of_layers(5)), lr=0.01)
        for i in range(5):
            expected = 0.01 * factor ** -(4 - i)
            assert math.isclose(expected, actual[f"{i}.weight"], rel_tol=1e-12)

    def test_the_default_is_ulmfits(self):
        """Without a number, neighbours are 2.6 apart."""
        actual = rates(stack(2), nnlr.discriminative(groups=of_layers(2)))
        assert math.isclose(1 / 2.6, actual["0.weight"], rel_tol=1e-12)

    def test_text_recipe(self):
        """Fastai's slice(lr / 2.6**4, lr) over five groups is the factor 2.6."""
        by_slice = nnlr.discriminative(slice(1e-2 / 2.6**4, 1e-2), of_layers(5))
        by_factor = nnlr.discriminative(2.6, of_layers(5))
        one, two = rates(stack(5), by_slice, lr=7), rates(stack(5), by_factor, lr=1e-2)
        for name, rate in one.items():
            assert math.isclose(rate, two[name], rel_tol=1e-12)

    @pytest.mark.parametrize("kind", [list, tuple, np.array])
    def test_a_list_has_a_rate_for_each_group(self, kind):
        """Lists, tuples and arrays are absolute rates, group by group."""
        scheme = nnlr.discriminative(kind([1e-5, 1e-4, 1e-2]), of_layers(3))
        actual = rates(stack(3), scheme, lr=0.7)
        expected = [1e-5, 1e-4, 1e-2]
        assert expected == pytest.approx([actual[f"{i}.weight"] for i in range(3)], rel=1e-12)

    def test_absolute_rates_do_not_follow_the_base(self):
        """with_rates scales what is relative and leaves what is absolute."""
        split = of_layers(2)
        for scheme, expected in [
            (nnlr.discriminative([0.1, 0.2], split), [0.1, 0.2]),
            (nnlr.discriminative(lr_mults=[0.1, 0.2], groups=split), [0.5, 1.0]),
        ]:
            plan = nnlr.resolve(stack(2), scheme, lr=1, weight_decay=0).with_rates(lr=5)
            assert expected == pytest.approx([plan["0.weight"].lr, plan["1.weight"].lr], rel=1e-12)

    def test_multipliers_take_slices_too(self):
        """lr_mults=slice(a, b) runs from a to b times the base."""
        scheme = nnlr.discriminative(lr_mults=slice(0.01, 1), groups=of_layers(3))
        actual = rates(stack(3), scheme, lr=0.5)
        assert [0.005, 0.05, 0.5] == pytest.approx(
            [actual[f"{i}.weight"] for i in range(3)], rel=1e-12
        )

    def test_a_rate_of_zero_in_a_list_freezes_the_group(self):
        """An entry of 0 is meant: the group is locked."""
        plan = nnlr.resolve(
            stack(2), nnlr.discriminative([0, 0.1], of_layers(2)), lr=1, weight_decay=0
        )
        assert plan["0.weight"].locked
        assert plan["1.weight"].trainable

    def test_both_ends_of_a_slice_are_exact(self):
        """No rounding at the first and the last group."""
        for n in range(2, 20):
            scheme = nnlr.discriminative(slice(3e-5, 7e-3), of_layers(n))
            factors = scheme.factors(describe(stack(n)))
            assert (3e-5, 7e-3) == (factors[0].lr, factors[-1].lr)

    def test_weight_decay_is_left_alone(self):
        """Groups say nothing of decay."""
        plan = nnlr.resolve(stack(2), nnlr.discriminative(2, of_layers(2)), lr=1, weight_decay=0.1)
        assert {1.0} == {row.wd_mult for row in plan}


class TestGroups:
    def test_the_first_pattern_that_matches_counts(self):
        """A parameter that two patterns match is in the earlier group."""
        actual = rates(zoo.plain(), nnlr.discriminative(2, ["embed.*", "blocks.0.*", "*"]))
        assert (0.25, 0.5, 1.0, 1.0) == tuple(
            actual[f"{name}.weight"] for name in ("embed", "blocks.0.fc", "blocks.1.fc", "head")
        )

    def test_selectors_of_any_kind(self):
        """Roles and combinations make groups as patterns do."""
        split = [nnlr.role("embedding"), ~nnlr.glob("head.*"), "head.*"]
        actual = rates(zoo.plain(), nnlr.discriminative([1, 2, 3], split))
        assert (1, 2, 3) == tuple(
            actual[f"{name}.weight"] for name in ("embed", "blocks.0.fc", "head")
        )

    def test_a_splitter_of_modules_and_parameters(self):
        """Modules, parameters, lists and generators of them, as fastai's splitters give."""

        def splitter(net):
            return [
                net.embed,
                [net.blocks[0].norm, *net.blocks[0].fc.parameters()],
                (p for p in net.blocks[1].parameters()),
                net.head.weight,
            ]

        by_name = rates(zoo.plain(), nnlr.discriminative(2.6, SPLIT))
        assert by_name == rates(zoo.plain(), nnlr.discriminative(2.6, splitter))

    def test_a_splitter_sees_the_model_inside_its_wrappers(self):
        """It is called with the user's model, compiled or not."""
        net = stack(2)
        scheme = nnlr.discriminative(2, lambda model: [model[0], model[1]])
        compiled = torch.compile(net, backend="eager")
        assert rates(net, scheme) == rates(compiled, scheme)

    def test_a_splitter_within_a_part(self):
        """Within a submodule it is called with that submodule."""
        net = nn.ModuleDict({"body": stack(2), "head": nn.Linear(2, 1)})
        scheme = nnlr.discriminative(2, lambda body: [body[0], body[1]]).within("body")
        actual = rates(net, scheme)
        assert (0.5, 1, 1) == tuple(
            actual[f"{name}.weight"] for name in ("body.0", "body.1", "head")
        )

    def test_a_tied_tensor_counts_where_it_comes_first(self):
        """A tied head may be listed again: it is one tensor, in the embedding's group."""

        def splitter(net):
            return [net.embed, net.blocks, net.head]

        actual = rates(zoo.tied(), nnlr.discriminative(2, splitter))
        assert 0.25 == actual["embed.weight"]

    def test_every_layer_a_group(self):
        """An indexer's layers are groups, with gaps as they were numbered."""
        actual = rates(stack(3), nnlr.discriminative(2, nnlr.depth.by_function(layer_number)))
        assert (0.25, 0.5, 1) == tuple(actual[f"{i}.weight"] for i in range(3))
        gaps = {"0.*": 0, "1.*": 1, "2.*": 4}
        assert 1 / 16 == rates(stack(3), nnlr.discriminative(2, gaps))["0.weight"]

    def test_layers_as_groups_are_layer_decay(self):
        """discriminative(f, indexer) is layer_decay(1 / f, indexer)."""
        indexer = nnlr.depth.by_function(layer_number)
        one = rates(stack(6), nnlr.discriminative(2.6, indexer))
        two = rates(stack(6), nnlr.layer_decay(1 / 2.6, indexer))
        for name, rate in one.items():
            assert math.isclose(rate, two[name], rel_tol=1e-12)

    def test_every_tower_has_its_own_groups(self, given_auto):
        """Two towers of unlike depth both end at the top rate, and all else has it too."""
        layers = [*tower(2, "a"), *tower(4, "b"), None]
        net = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in layers])
        indexer = Given(*layers)
        actual = rates(net, nnlr.discriminative(2, indexer))
        assert [0.5, 1, 0.125, 0.25, 0.5, 1, 1] == list(actual.values())
        given_auto(*layers)
        actual = rates(net, nnlr.discriminative(slice(0.1, 10), 2))
        assert [0.1, 10, 0.1, 0.1, 0.1, 10, 10] == pytest.approx(list(actual.values()))

    @pytest.mark.parametrize(
        ("count", "headed", "expected"),
        [
            (1, True, [0] * 7),
            (2, True, [0] * 6 + [1]),
            (3, True, [0, 0, 0, 1, 1, 1, 2]),
            (4, True, [0, 0, 1, 1, 2, 2, 3]),
            (5, True, [0, 0, 1, 2, 2, 3, 4]),
            (7, True, list(range(7))),
            (3, False, [0, 0, 0, 1, 1, 2, 2]),
            (7, False, list(range(7))),
        ],
    )
    def test_a_number_of_groups_cuts_the_layers(self, given_auto, count, headed, expected):
        """Contiguous groups of nearly equal size, and a head by itself."""
        given_auto(*tower(7, headed=headed))
        net = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(7)])
        scheme = nnlr.discriminative(lr_mults=list(range(1, count + 1)), groups=count)
        actual = rates(net, scheme)
        assert [group + 1 for group in expected] == list(actual.values())

    @pytest.mark.parametrize("count", range(1, 14))
    def test_groups_of_layers_differ_by_at_most_one(self, given_auto, count):
        """No group is empty, none is more than a layer larger, and they are in order."""
        given_auto(*tower(13, headed=False))
        net = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(13)])
        actual = list(
            rates(net, nnlr.discriminative(lr_mults=range(1, count + 1), groups=count)).values()
        )
        sizes = [actual.count(group + 1) for group in range(count)]
        assert max(sizes) - min(sizes) <= 1
        assert sorted(actual) == actual

    def test_by_default_five_groups_or_one_for_each_layer(self, given_auto):
        """2.6 over the layers of a deep model reaches 2.6**-4, of a shallow one less."""
        for layers, lowest in [(13, 2.6**-4), (3, 2.6**-2)]:
            given_auto(*tower(layers))
            net = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(layers)])
            assert math.isclose(lowest, rates(net, nnlr.discriminative())["0"], rel_tol=1e-12)

    def test_a_list_says_by_itself_how_many_groups(self, given_auto):
        """Without groups, the layers are cut into as many as there are entries."""
        given_auto(*tower(9))
        net = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(9)])
        actual = rates(net, nnlr.discriminative([1, 2, 3]))
        assert [1] * 4 + [2] * 4 + [3] == list(actual.values())

    def test_frozen_parameters_may_be_in_no_group(self):
        """What the user froze needs no rate."""
        net = stack(3)
        net[0].requires_grad_(False)
        plan = nnlr.resolve(net, nnlr.discriminative(2, ["1.*", "2.*"]), lr=1, weight_decay=0)
        assert plan["0.weight"].frozen
        assert 0.5 == plan["1.weight"].lr


class TestRealModels:
    """Models of timm and transformers on meta, split as their users split them."""

    @pytest.mark.parametrize("value", [slice(1e-6, 1e-4), slice(3e-3), [1e-5, 1e-4, 1e-3], 2.6])
    def test_a_resnet_as_fastai_cuts_it(self, value):
        """Fastai's body and head, its splitter, and its rates, parameter by parameter."""
        with torch.device("meta"):
            body = list(timm.create_model("resnet34").children())[:-2]
            net = nn.Sequential(
                nn.Sequential(*body),
                nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 7)),
            )

        def splitter(model):
            return [
                [p for part in parts for p in part.parameters()]
                for parts in (model[0][:6], model[0][6:], model[1:])
            ]

        if isinstance(value, float):
            expected = [0.01 * value**-2, 0.01 / value, 0.01]
        else:
            expected = set_hyper(value, 3)
        name_of = {id(p): name for name, p in net.named_parameters()}
        actual = rates(net, nnlr.discriminative(value, splitter), lr=0.01)
        seen = 0
        for rate, group in zip(expected, splitter(net), strict=True):
            for parameter in group:
                seen += 1
                assert math.isclose(rate, actual[name_of[id(parameter)]], rel_tol=1e-12)
        assert len(actual) == seen

    def test_a_vision_transformer_by_layers(self):
        """Five groups of timm's ViT: stem and blocks in four, the head by itself."""
        with torch.device("meta"):
            net = timm.create_model("vit_tiny_patch16_224")
        actual = rates(net, nnlr.discriminative())
        for name, group in [
            ("patch_embed.proj.weight", 0),
            ("blocks.2.mlp.fc1.weight", 0),
            ("blocks.3.mlp.fc1.weight", 1),
            ("blocks.8.mlp.fc1.weight", 2),
            ("blocks.11.mlp.fc1.weight", 3),
            ("head.weight", 4),
        ]:
            assert math.isclose(2.6 ** (group - 4), actual[name], rel_tol=1e-12)

    def test_the_same_transformer_by_patterns_and_by_layers(self):
        """For a BERT, patterns in the order of its layers are the indexer's groups."""
        with torch.device("meta"):
            net = transformers.BertForSequenceClassification(
                transformers.BertConfig(num_hidden_layers=4)
            )
        split = ["bert.embeddings.*", *(f"*.layer.{i}.*" for i in range(4)), "*"]
        by_pattern = rates(net, nnlr.discriminative(slice(1e-5, 1e-3), split))
        assert by_pattern == rates(net, nnlr.discriminative(slice(1e-5, 1e-3), "auto"))


# Its matcher says nothing of its blocks, so that "auto" refuses it.
WITHOUT_DEPTH = {"mobilenetv5_300m_enc"}


def check_cut(name, count=5):
    """Cut the layers of a model of timm, and look at every group."""
    with torch.device("meta"):
        net = timm.create_model(name)
    scheme = nnlr.discriminative(lr_mults=range(1, count + 1), groups=count)
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
    levels = {}  # tower -> depth -> rates
    for row in plan:
        if row.depth is None:
            assert count == row.lr, f"{name}: {row.name}"
        else:
            depths = levels.setdefault((row.tower, row.depth[1]), {})
            depths.setdefault(row.depth[0], set()).add(row.lr)
    for depths in levels.values():
        by_depth = [depths[depth] for depth in sorted(depths)]
        assert all(len(actual) == 1 for actual in by_depth), f"{name}: torn layers"
        row_of_rates = [next(iter(actual)) for actual in by_depth]
        assert sorted(row_of_rates) == row_of_rates, f"{name}: not in order"
        assert set(range(1, count + 1)) == set(row_of_rates), f"{name}: empty groups"


class TestEveryArchitecture:
    @pytest.mark.no_cover
    def test_groups_of_layers_on_a_sample(self):
        """Every 300th model of timm: whole layers, in order, no group empty."""
        for name in timm.list_models()[::300]:
            check_cut(name, 3)

    @pytest.mark.full
    @pytest.mark.parametrize("part", range(24))
    def test_groups_of_layers_on_all(self, part):
        """The same on all of them, a part at a time."""
        for name in timm.list_models()[part::24]:
            if name not in WITHOUT_DEPTH:
                check_cut(name, 3)


class TestTrace:
    def test_explain_shows_group_and_layer(self):
        """The trace has the power, the group and the layer."""
        plan = nnlr.resolve(
            stack(3),
            nnlr.discriminative(2.6, nnlr.depth.by_function(layer_number)),
            lr=1,
            weight_decay=0,
        )
        (step,) = plan["0.weight"].trace
        assert "2.6^-2, group 0 of 2, layer 0 of 2" == step.factor.why
        assert (0, 2) == plan["0.weight"].depth

    def test_explain_shows_an_absolute_rate(self):
        """The absolute rate and what it is of the base are both told."""
        plan = nnlr.resolve(
            stack(2),
            nnlr.discriminative(slice(1e-4, 1e-2), of_layers(2)),
            lr=0.1,
            weight_decay=0,
        )
        text = str(plan.explain("0.weight"))
        assert "0.0001" in text
        assert "group 0 of 1" in text

    @pytest.mark.parametrize(
        ("scheme", "text"),
        [
            (nnlr.discriminative(), "discriminative(2.6)"),
            (
                nnlr.discriminative(2, ["a.*", "b"]),
                "discriminative(2.0, groups=['a.*', 'b'])",
            ),
            (
                nnlr.discriminative(slice(1e-5, 1), 3),
                "discriminative(slice(1e-05, 1.0), groups=3)",
            ),
            (nnlr.discriminative(slice(0.5)), "discriminative(slice(0.5))"),
            (
                nnlr.discriminative(lr_mults=[1, 2], groups="auto"),
                "discriminative(groups=auto(), lr_mults=[1.0, 2.0])",
            ),
            (
                nnlr.discriminative(2, layer_number),
                "discriminative(2.0, groups=layer_number)",
            ),
        ],
    )
    def test_repr_is_the_call(self, scheme, text):
        """A scheme prints as it was written."""
        assert text == repr(scheme)


class TestFindings:
    def test_the_factor_over_many_layers_is_pointed_out(self):
        """2.6 over 14 groups leaves the first 4e-6 of the top rate: a warning."""
        net = stack(14)
        scheme = nnlr.discriminative(2.6, nnlr.depth.by_function(layer_number))
        (finding,) = nnlr.resolve(net, scheme, lr=1, weight_decay=0).findings
        assert "steep-groups" == finding.kind
        assert ("0.weight", "0.bias") == finding.names
        assert "2.6 between each of 14 groups leaves the first 4e-06" in finding.cause

    @pytest.mark.parametrize(("layers", "steep"), [(8, False), (9, True)])
    def test_steep_is_below_a_thousandth(self, layers, steep):
        """2.6**-7 is 0.0012 and nothing to say, 2.6**-8 is 0.0005."""
        scheme = nnlr.discriminative(2.6, of_layers(layers))
        actual = nnlr.resolve(stack(layers), scheme, lr=1, weight_decay=0).findings
        assert steep == bool(actual)

    @pytest.mark.parametrize("groups", [of_layers(5), children])
    def test_few_groups_are_fine(self, groups):
        """Nothing to say of the published use."""
        scheme = nnlr.discriminative(2.6, groups)
        assert () == nnlr.resolve(stack(5), scheme, lr=1, weight_decay=0).findings

    def test_slices_are_the_users_own(self):
        """A slice is as steep as it says."""
        scheme = nnlr.discriminative(slice(1e-9, 0.1), of_layers(5))
        assert () == nnlr.resolve(stack(5), scheme, lr=1, weight_decay=0).findings

    @pytest.mark.parametrize(
        ("scheme", "kind"),
        [
            (nnlr.discriminative([0.1, 1], of_layers(2)), "looks-relative"),
            (nnlr.discriminative(slice(2.6), of_layers(2)), "looks-relative"),
            (
                nnlr.discriminative(lr_mults=[1e-5, 1e-3], groups=of_layers(2)),
                "looks-absolute",
            ),
            (
                nnlr.discriminative(lr_mults=slice(1e-5, 1e-3), groups=of_layers(2)),
                "looks-absolute",
            ),
            (
                nnlr.discriminative(lr_mults=[0.01, 0.01], groups=of_layers(2)),
                "looks-absolute",
            ),
        ],
    )
    def test_rates_and_factors_taken_for_each_other(self, scheme, kind):
        """A learning rate of 1, or factors that are all tiny, are probably a slip."""
        (finding,) = nnlr.resolve(stack(2), scheme, lr=1e-3, weight_decay=0).findings
        assert kind == finding.kind
        assert "warning" == finding.severity

    def test_factors_that_only_lower_are_fine(self):
        """Multipliers of which the largest is 1 are the usual ones."""
        scheme = nnlr.discriminative(lr_mults=slice(1e-5, 1), groups=of_layers(2))
        assert () == nnlr.resolve(stack(2), scheme, lr=1e-3, weight_decay=0).findings


class TestErrors:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (
                0.5,
                r"rates must be a finite number >= 1, got 0.5. A number is the factor",
            ),
            (float("nan"), "finite number >= 1"),
            (True, "finite number >= 1"),
            ("2.6", r"got '2.6' \(str\)"),
            (torch.tensor(2.6), "got a Tensor"),
            (slice(1, 2, 3), "has a step"),
            (slice(None), "the stop of rates must be a finite number > 0, got None"),
            (slice(-1, 2), "the start of rates must be a finite number >= 0, got -1"),
            (slice("", 2), r"the start of rates must be .* got '' \(str\)"),
            (slice(torch.ones(2), 2), "the start of rates must be .* got a Tensor"),
            ({1e-5, 1e-3}, "finite number >= 1"),
            ({0.1: 1, 0.2: 1}, r"finite number >= 1.* a slice or a list"),
            (b"ab", "finite number >= 1"),
            (np.array(2.6), "finite number >= 1"),
            (slice(1, 0), "the stop of rates must be a finite number > 0, got 0"),
            ([], "a number for each group, got"),
            ([1, -1], r"rates\[1\] must be a finite number >= 0, got -1"),
            ([1, "2"], r"rates\[1\] must be"),
        ],
    )
    def test_bad_rates_are_refused_at_once(self, value, message):
        """Every number has its range, and the message says which it was."""
        with pytest.raises(NnlrError, match=message):
            nnlr.discriminative(value, ["*"])

    @pytest.mark.parametrize("value", [2.6, "0.1", torch.ones(2), {0.1, 1}])
    def test_multipliers_are_a_slice_or_a_list(self, value):
        """One multiplier for all groups needs no groups."""
        with pytest.raises(NnlrError, match="lr_mults must be a slice or a list"):
            nnlr.discriminative(lr_mults=value)

    def test_rates_and_multipliers_exclude_each_other(self):
        """Absolute and relative are told apart by the argument, so one is given."""
        with pytest.raises(NnlrError, match=r"rates=2.6 and lr_mults=\[1\] both say"):
            nnlr.discriminative(2.6, lr_mults=[1])

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            (0, "groups must be >= 1"),
            ([], r"groups must be a list of patterns .* got \[\]"),
            (True, "groups must be a list of patterns"),
            (2.5, "groups must be a list of patterns"),
            (nn.Linear, "groups must be a list of patterns"),
            (nn.Linear(1, 1), "groups must be a list of patterns"),
            ("0.*", r"groups='0.\*' is no indexer .* Patterns come as a list"),
            (nnlr.depth.auto, r"call it, nnlr.depth.auto\(\)"),
            (["a", 3], r"groups\[1\] needs a selector"),
            ([["a", "b"]], r"groups\[0\] needs a selector.* Join patterns with \|"),
        ],
    )
    def test_bad_groups_are_refused_at_once(self, groups, message):
        """What cannot say which group is refused with what can."""
        with pytest.raises(NnlrError, match=message):
            nnlr.discriminative(2, groups)

    def test_the_length_of_a_list_must_fit(self):
        """A list has exactly one rate for each group."""
        scheme = nnlr.discriminative([1, 2], ["0.*", "1.*", "2.*"])
        with pytest.raises(NnlrError, match="rates has 2 entries for the 3 groups that"):
            rates(stack(3), scheme)
        scheme = nnlr.discriminative(lr_mults=[1], groups=of_layers(2))
        with pytest.raises(NnlrError, match="lr_mults has 1 entry for the 2 groups"):
            rates(stack(2), scheme)

    def test_uncovered_parameters_are_named(self):
        """Every trainable parameter is in a group, or the error says which is not."""
        scheme = nnlr.discriminative(2, ["0.*", "1.weight"])
        with pytest.raises(
            CoverageError,
            match=r"1 trainable .* of Sequential is in none of the groups: 1\.bias",
        ) as caught:
            rates(stack(2), scheme)
        assert ["1.bias"] == caught.value.names

    def test_a_pattern_that_matches_nothing(self):
        """With the nearest names, as for any selector of a user."""
        with pytest.raises(PatternError, match=r"groups\[1\] 'block.0.\*' matches no param"):
            rates(zoo.plain(), nnlr.discriminative(2, ["embed.*", "block.0.*", "*"]))

    def test_a_group_that_is_left_with_nothing(self):
        """Earlier groups may not take all of a later one."""
        with pytest.raises(PatternError, match=r"groups\[1\] 'head.\*' is left with no"):
            rates(zoo.plain(), nnlr.discriminative(2, ["*", "head.*"]))

    @pytest.mark.parametrize(
        ("splitter", "message"),
        [
            (lambda net: 3, r"gave 3 \(int\). It is given the model and has to"),
            (
                lambda p: int(p.name[0]),
                "was called with Sequential and failed: .*by_fun",
            ),
            (lambda net: "ab", "It is given the model and has to"),
            (lambda net: net[0].weight, "gave a Parameter. It is given"),
            (lambda net: [net[0], []], "Group 1 of the splitter .* holds no parameter"),
            (
                lambda net: [net, ["1.weight"]],
                "Group 1 .* neither a module nor a param",
            ),
            (lambda net: [net, stack(1)], "Group 1 .* no parameter of Sequential"),
            (
                lambda net: [net, net[1]],
                "'1.weight' is in groups 0 and 1 of the splitter",
            ),
            (
                lambda net: [net[0]],
                "2 trainable parameters of Sequential are in none of",
            ),
        ],
    )
    def test_splitters_that_do_not_split(self, splitter, message):
        """Whatever a splitter gives wrong is an error that names the group."""
        with pytest.raises(NnlrError, match=message):
            rates(stack(2), nnlr.discriminative(2, splitter))

    def test_a_splitter_needs_the_model(self):
        """Bare tensors cannot be split by a function of the model."""
        tensors = dict(stack(2).named_parameters())
        with pytest.raises(NnlrError, match="here are only tensors: give groups as patt"):
            rates(tensors, nnlr.discriminative(2, lambda net: [net[0], net[1]]))

    @pytest.mark.parametrize(("name", "where"), [("", "ParameterList"), ("a", "tower 'a'")])
    def test_more_groups_than_layers(self, given_auto, name, where):
        """So many groups cannot be made; the range is in the message."""
        given_auto(*tower(3, name))
        net = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(3)])
        with pytest.raises(NnlrError, match=rf"groups=4, but {where}.* has 3 layers: pass 1 to 3"):
            rates(net, nnlr.discriminative(2, 4))

    def test_a_rate_too_small_for_a_float(self):
        """Nothing is frozen because a float ended."""
        scheme = nnlr.discriminative(1e200, of_layers(3))
        with pytest.raises(NnlrError, match="a rate that is 0 in a float"):
            rates(stack(3), scheme)
