"""Freezing by a selector or by depth, and what a lock saves."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr.depth._layer import Indexer, Layer
from nnlr.errors import NnlrError, PatternError
from nnlr.testing import SchemeLaws
from tests import zoo

SPLIT = ["0.*", "1.*", "2.*", "3.*"]


def stack(n=4):
    """N linear layers in a row."""
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))


def batch_normed():
    """Convolution and batch norm, and a head."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))


def resolved(model, *schemes, weight_decay=0.1):
    """The plan at a base rate of 1."""
    return nnlr.resolve(model, *schemes, lr=1, weight_decay=weight_decay)


def locked(model, *schemes):
    """Names of what is locked."""
    return [row.name for row in resolved(model, *schemes) if row.locked]


def layer_number(param):
    """The layer of a stack that a parameter is in."""
    return int(param.name.split(".")[0])


class TwoTowers(Indexer):
    """Parameters 0-2 are the layers of one tower, 3 and 4 of another, 5 is outside."""

    def layers(self, model):
        return [
            *(Layer(i, 2, "a") for i in range(3)),
            *(Layer(i, 1, "b") for i in (0, 1)),
            None,
        ]

    def __repr__(self):
        return "TwoTowers()"


@pytest.mark.no_cover
class TestFreezeLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.freeze("0.*"),
            nnlr.freeze(~nnlr.glob("0.weight")),
            nnlr.freeze("*", keep="0.weight"),
            nnlr.freeze(below=1, groups=["0.weight", "*"]),
            nnlr.freeze("nothing", optional=True),
            nnlr.freeze("0.*", keep=nnlr.role("norm"), optional=True),
        ]


class TestSelectors:
    def test_what_is_chosen_is_locked_and_nothing_else(self):
        """lr_mult is 0 exactly on what the selector matches; decay is left alone."""
        plan = resolved(stack(), nnlr.freeze("0.*") * nnlr.freeze("2.bias"))
        assert ["0.weight", "0.bias", "2.bias"] == [r.name for r in plan if r.locked]
        assert {1.0} == {row.wd_mult for row in plan}
        assert {1.0} == {row.lr_mult for row in plan if not row.locked}

    def test_all_but_the_head(self):
        """~glob('head.*') is linear probing."""
        plan = resolved(zoo.plain(), nnlr.freeze(~nnlr.glob("head.*")))
        assert ["head.weight"] == [row.name for row in plan if row.trainable]

    def test_composes_with_other_schemes(self):
        """0 absorbs: what is frozen stays so whatever else speaks of it."""
        decayed = nnlr.layer_decay(0.5, nnlr.depth.by_function(layer_number))
        plan = resolved(stack(), decayed, nnlr.freeze("0.*"), nnlr.rule("*", lr_mult=8))
        assert (0, 2, 4, 8) == tuple(plan[f"{i}.weight"].lr for i in range(4))
        assert 1 == plan["0.weight"].unlocked_lr_mult

    def test_restriction(self):
        """Where and within act on freezing as on any scheme."""
        assert ["0.bias"] == locked(stack(), nnlr.freeze("0.*").where("*.bias"))
        net = nn.ModuleDict({"a": stack(2), "b": stack(2)})
        assert ["b.0.weight", "b.0.bias"] == locked(net, nnlr.freeze("0.*").within("b"))

    def test_a_member_of_rules(self):
        """In an ordered list it claims as a rule does."""
        table = nnlr.rules([nnlr.rule("0.bias", lr_mult=2), nnlr.freeze("0.*")])
        plan = resolved(stack(), table)
        assert ["0.weight"] == [row.name for row in plan if row.locked]
        assert 2 == plan["0.bias"].lr

    def test_trace_and_explanation_name_it(self):
        """The trace says freeze, with the selector as it was written."""
        (step,) = resolved(stack(), nnlr.freeze("0.*"))["0.weight"].trace
        assert "freeze '0.*'" == step.source
        assert "frozen" == step.factor.why
        assert step.explicit

    def test_keep_norms(self):
        """Normalisation layers stay trained, as with fastai's train_bn."""
        net = batch_normed()
        expected = ["0.weight", "0.bias"]
        assert expected == locked(net, nnlr.freeze("[01].*", keep=nnlr.role("norm")))

    def test_optional(self):
        """With optional=True nothing need be found, nor kept."""
        assert [] == locked(stack(), nnlr.freeze("a.*", optional=True))
        assert ["0.weight", "0.bias"] == locked(
            stack(), nnlr.freeze("0.*", keep=nnlr.role("norm"), optional=True)
        )
        assert [] == locked(stack(), nnlr.freeze("0.*", keep="0.*", optional=True))

    def test_of_bare_tensors(self):
        """Names are all that a pattern needs."""
        tensors = dict(stack().named_parameters())
        assert ["1.weight", "1.bias"] == locked(tensors, nnlr.freeze("1.*"))


class TestDepth:
    @pytest.mark.parametrize("n", [1, 2, 3, -1, -2, -3])
    def test_is_fastais_freeze_to(self, n):
        """Groups before n are frozen, counted from the end if n is negative."""
        first_trained = n if n >= 0 else len(SPLIT) + n
        expected = [
            f"{group}.{leaf}" for group in range(first_trained) for leaf in ("weight", "bias")
        ]
        assert expected == locked(stack(), nnlr.freeze(below=n, groups=SPLIT))

        def splitter(net):
            return list(net)

        assert expected == locked(stack(), nnlr.freeze(below=n, groups=splitter))
        by_layer = nnlr.depth.by_function(layer_number)
        assert expected == locked(stack(), nnlr.freeze(below=n, groups=by_layer))

    def test_every_tower_counts_its_own(self):
        """below=-1 leaves the last layer of each tower, and what is in none."""
        net = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(6)])
        for below, expected in [(-1, ["0", "1", "3"]), (1, ["0", "3"])]:
            scheme = nnlr.freeze(below=below, groups=TwoTowers())
            assert expected == locked(net, scheme)

    def test_with_discriminative_rates_over_the_same_groups(self):
        """Fastai's freeze_to and slice together."""
        scheme = nnlr.discriminative(2, SPLIT) * nnlr.freeze(below=2, groups=SPLIT)
        plan = resolved(stack(), scheme)
        assert (0, 0, 0.5, 1) == tuple(plan[f"{i}.weight"].lr for i in range(4))

    def test_keep_with_depth(self):
        """Biases of frozen layers may stay trained (BitFit within)."""
        scheme = nnlr.freeze(below=2, groups=SPLIT, keep="*.bias")
        assert ["0.weight", "1.weight"] == locked(stack(), scheme)

    def test_what_the_user_froze_may_be_in_no_group(self):
        """Groups need to hold what is trained only."""
        net = stack()
        net[0].requires_grad_(False)
        plan = resolved(net, nnlr.freeze(below=1, groups=SPLIT[1:]))
        assert ["1.weight", "1.bias"] == [row.name for row in plan if row.locked]
        assert plan["0.weight"].frozen

    def test_a_tied_tensor_is_where_its_first_name_is(self):
        """A tied head is frozen with the embedding, and a rule for it contradicts that."""
        scheme = nnlr.freeze(below=1, groups=["embed.*", "*"])
        (finding,) = resolved(zoo.tied(), scheme).findings
        assert "tied-frozen" == finding.kind
        assert ("head.weight",) == finding.names
        with pytest.raises(NnlrError, match=r"head\.weight"):
            resolved(zoo.tied(), scheme * nnlr.rule("head.*", lr_mult=10))

    def test_a_resnet_up_to_its_head(self):
        """Timm's ResNet: all but the head, norms kept or not."""
        with torch.device("meta"):
            net = timm.create_model("resnet18")
        plan = resolved(net, nnlr.freeze(below=-1))
        assert ["fc.weight", "fc.bias"] == [row.name for row in plan if row.trainable]
        assert locked(net, nnlr.freeze(~nnlr.glob("fc.*"))) == locked(net, nnlr.freeze(below=-1))
        kept = resolved(net, nnlr.freeze(below=-1, keep=nnlr.role("norm")))
        assert {"conv"} == {row.role for row in kept if row.locked}
        assert () == kept.findings


class TestLock:
    def test_no_state_no_gradient_and_back(self):
        """Frozen parameters have neither, and a later plan trains them again."""
        net = stack()
        x = torch.ones(1, 2)
        optimizer = resolved(net, nnlr.freeze(below=-1, groups=SPLIT)).optimizer(torch.optim.AdamW)
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        net(x).sum().backward()
        optimizer.step()
        assert {net[3].weight, net[3].bias} == set(optimizer.state)
        for name, parameter in net.named_parameters():
            moved = not torch.equal(before[name], parameter)
            assert moved == name.startswith("3.")
            assert (parameter.grad is None) == (not name.startswith("3."))
        wider = nnlr.freeze(below=-2, groups=SPLIT)
        nnlr.regroup(optimizer, resolved(net, wider))
        assert net[2].weight.requires_grad
        assert not net[1].weight.requires_grad
        assert net[3].weight in optimizer.state

    def test_batch_norm_statistics_are_pointed_out(self):
        """A frozen BatchNorm still moves its statistics; one that is kept is no news."""
        frozen = resolved(batch_normed(), nnlr.freeze("[01].*"))
        assert ["running-statistics"] == [actual.kind for actual in frozen.findings]
        kept = resolved(batch_normed(), nnlr.freeze("[01].*", keep=nnlr.role("norm")))
        assert () == kept.findings

    def test_freezing_what_is_frozen_is_pointed_out(self):
        """It does nothing, as a rule on frozen parameters does nothing."""
        net = stack()
        net[0].requires_grad_(False)
        (finding,) = resolved(net, nnlr.freeze("0.*")).findings
        assert "rule-on-frozen" == finding.kind
        assert "freeze '0.*' reaches only" in finding.cause


class TestTied:
    def test_the_other_name_is_pointed_out(self):
        """Freezing an embedding freezes the head that is tied to it."""
        (finding,) = resolved(zoo.tied(), nnlr.freeze("embed.*")).findings
        assert "tied-frozen" == finding.kind
        assert ("head.weight",) == finding.names

    def test_both_names_are_no_news(self):
        """Who names both knows."""
        scheme = nnlr.freeze(nnlr.glob("embed.*") | "head.*")
        assert () == resolved(zoo.tied(), scheme).findings

    def test_all_but_the_head_leaves_a_tied_embedding_trained(self):
        """The embedding is the head, and the head is not frozen."""
        plan = resolved(zoo.tied(), nnlr.freeze(~nnlr.glob("head.*")))
        assert ["embed.weight"] == [row.name for row in plan if row.trainable]

    def test_a_contradiction_about_one_tensor_is_an_error(self):
        """Freezing one name and speeding up the other cannot both hold."""
        scheme = nnlr.freeze("embed.*") * nnlr.rule("head.*", lr_mult=10)
        with pytest.raises(NnlrError, match=r"head\.weight"):
            resolved(zoo.tied(), scheme)


class TestRepr:
    @pytest.mark.parametrize(
        ("scheme", "text"),
        [
            (nnlr.freeze("a.*"), "freeze('a.*')"),
            (nnlr.freeze(~nnlr.glob("a.*")), "freeze(~glob('a.*'))"),
            (nnlr.freeze(below=-1), "freeze(below=-1)"),
            (
                nnlr.freeze(below=2, groups=4, keep="*.bias", optional=True),
                "freeze(below=2, groups=4, keep='*.bias', optional=True)",
            ),
            (
                nnlr.freeze("a", keep=nnlr.role("norm")),
                "freeze('a', keep=role('norm'))",
            ),
        ],
    )
    def test_repr_is_the_call(self, scheme, text):
        """A scheme prints as it was written."""
        assert text == repr(scheme)


class TestErrors:
    def test_a_selector_or_a_depth(self):
        """One of the two says what to freeze."""
        with pytest.raises(NnlrError, match="got neither"):
            nnlr.freeze()
        with pytest.raises(NnlrError, match="got both"):
            nnlr.freeze("a", below=1)

    def test_groups_belong_to_below(self):
        """Groups that nothing counts are a mistake."""
        with pytest.raises(NnlrError, match=r"groups=\['a'\] is what below= counts"):
            nnlr.freeze("a", groups=["a"])
        with pytest.raises(NnlrError, match="what below= counts"):
            nnlr.freeze("a", groups=np.array([1, 2]))

    @pytest.mark.parametrize("below", [0, 1.0, True, "1"])
    def test_below_is_a_number_of_groups(self, below):
        """0 would freeze nothing, anything else is no number."""
        with pytest.raises(NnlrError, match="below must be a whole number other than 0"):
            nnlr.freeze(below=below)

    @pytest.mark.parametrize("below", [4, -4, 99])
    def test_below_has_a_range(self, below):
        """Freezing all groups or none is refused with the range."""
        scheme = nnlr.freeze(below=below, groups=SPLIT)
        with pytest.raises(
            NnlrError,
            match=rf"below={below}, but there are 4 groups .* 1 to 3, or -1 to -3",
        ):
            locked(stack(), scheme)

    def test_below_needs_two_groups(self):
        """With one group there is nothing below."""
        with pytest.raises(NnlrError, match=r"there is 1 group in .* a selector instead"):
            locked(stack(), nnlr.freeze(below=1, groups=["*"]))

    def test_bad_selectors(self):
        """What is no selector is refused at once, in both places."""
        with pytest.raises(NnlrError, match="freeze needs a selector"):
            nnlr.freeze(nn.Linear)
        with pytest.raises(NnlrError, match=r"by depth: freeze\(below=-1\)"):
            nnlr.freeze(-1)
        with pytest.raises(NnlrError, match=r"freeze needs a selector.*True \(bool\)"):
            nnlr.freeze(True)
        with pytest.raises(NnlrError, match="keep needs a selector"):
            nnlr.freeze("a", keep=3)
        with pytest.raises(NnlrError, match="optional must be True or False"):
            nnlr.freeze("a", optional=1)

    def test_must_match(self):
        """As every selector that a user writes, with the nearest names."""
        with pytest.raises(PatternError, match=r"freeze 'head' matches no[\s\S]*'head.\*'"):
            locked(zoo.plain(), nnlr.freeze("head"))
        with pytest.raises(PatternError, match=r"keep='norm.\*' matches no parameter"):
            locked(zoo.plain(), nnlr.freeze("blocks.*", keep="norm.*"))

    def test_keep_must_keep_something_and_leave_something(self):
        """Keeping nothing of it, or all of it, is a mistake."""
        with pytest.raises(PatternError, match="has no effect: it matches none of them"):
            locked(zoo.plain(), nnlr.freeze("blocks.*", keep="head.*"))
        with pytest.raises(PatternError, match="leaves nothing to freeze"):
            locked(zoo.plain(), nnlr.freeze("head.*", keep="*"))

    def test_factors_agree_with_steps(self):
        """Asked directly, the scheme gives one factor for each parameter."""
        factors = nnlr.freeze("0.*").factors(describe(stack()))
        assert [0, 0, 1, 1, 1, 1, 1, 1] == [factor.lr_mult for factor in factors]
