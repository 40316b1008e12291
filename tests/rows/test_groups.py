"""From rows to parameter groups: merged, split, ordered, named."""

import copy
import functools
import math

import pytest
import torch
from torch import nn

import nnlr
from nnlr._rows.groups import Group


class Scalars(nn.Module):
    """Parameters of the given sizes, named a, b, c, ..."""

    def __init__(self, *sizes):
        super().__init__()
        for name, size in zip("abcdefgh", sizes, strict=False):
            self.register_parameter(name, nn.Parameter(torch.ones(size)))


class Say(nnlr.Scheme):
    """One factor for each parameter, by name."""

    def __init__(self, **factors):
        self.said = factors

    def factors(self, model):
        return [self.said.get(param.name, nnlr.Factor()) for param in model.params]


def mults(**pairs):
    """A scheme of (lr_mult, wd_mult) for each name."""
    return Say(**{k: nnlr.Factor(lr_mult=a, wd_mult=b) for k, (a, b) in pairs.items()})


def resolved(model, scheme, *, lr=0.1, weight_decay=0.5):
    return nnlr.resolve(model, scheme, lr=lr, weight_decay=weight_decay)


def members(groups):
    return [list(group.names) for group in groups]


class TestMerging:
    """Parameters share a group exactly where all their settings are equal."""

    def test_equal_rates_share_a_group_in_model_order(self):
        """Nothing is lost, doubled or reordered."""
        plan = resolved(Scalars(1, 2, 3, 4), mults(a=(0.5, 1), c=(0.5, 1)))
        assert [["b", "d"], ["a", "c"]] == members(plan.groups)
        assert [6, 4] == [group.numel for group in plan.groups]

    def test_without_decay_rows_of_any_wd_mult_share_a_group(self):
        """With a base decay of 0 they are alike; the group keeps the largest wd_mult."""
        plan = resolved(Scalars(1, 1), mults(a=(1, 0)), weight_decay=0)
        assert [["a", "b"]] == members(plan.groups)
        assert (0.0, 1.0) == (plan.groups[0].weight_decay, plan.groups[0].wd_mult)

    def test_negative_zero_is_zero(self):
        """-0.0 as a multiplier neither makes a group nor shows in its name."""
        plan = resolved(Scalars(1, 1, 1), mults(a=(1, -0.0), b=(1, 0.0), c=(-0.0, 1)))
        assert [["a", "b"]] == members(plan.groups)
        assert ["lr1_wd0"] == [group.name for group in plan.groups]
        assert plan["c"].locked
        assert 1.0 == math.copysign(1.0, plan["a"].weight_decay)

    def test_options_of_other_types_make_other_groups(self):
        """1, 1.0 and True are equal to Python and not to an optimizer."""
        options = {"a": 1, "b": 1.0, "c": True, "d": 1}
        scheme = Say(**{k: nnlr.Factor(options={"x": v}) for k, v in options.items()})
        plan = resolved(Scalars(1, 1, 1, 1), scheme)
        assert [["a", "d"], ["b"], ["c"]] == members(plan.groups)
        assert [int, float, bool] == [type(g.options["x"]) for g in plan.groups]
        assert 3 == len({group.name for group in plan.groups})

    def test_nested_options_are_compared_by_value(self):
        """Lists and tuples of equal numbers are one setting, in any order of keys."""
        scheme = Say(
            a=nnlr.Factor(options={"betas": [0.9, 0.5], "eps": 1e-6}),
            b=nnlr.Factor(options={"eps": 1e-6, "betas": (0.9, 0.5)}),
        )
        plan = resolved(Scalars(1, 1), scheme)
        assert [["a", "b"]] == members(plan.groups)

    @pytest.mark.parametrize("setting", [{"eps_mult": 0.5}, {"algorithm": "muon"}])
    def test_eps_mult_and_algorithm_make_groups(self, setting):
        """Each is a setting of the group, and shows in its name."""
        plan = resolved(Scalars(1, 2), Say(a=nnlr.Factor(**setting)))
        of_a = next(group for group in plan.groups if group.names == ("a",))
        ((key, value),) = setting.items()
        text = {"eps_mult": "lr1_wd1_epsx0.5", "algorithm": "muon_lr1_wd1"}[key]
        assert {"lr1_wd1", text} == {group.name for group in plan.groups}
        assert text == of_a.name
        assert value == getattr(of_a, key)

    def test_groups_of_frozen_and_locked_parameters_do_not_exist(self):
        """No group is ever empty."""
        model = Scalars(1, 1)
        model.a.requires_grad_(False)
        plan = resolved(model, mults(b=(0, 1)))
        assert () == plan.groups
        assert [] == plan.param_groups()


class TestOrder:
    """The reference group comes first, because some trainers look only there."""

    def test_lr_mult_1_comes_first_and_the_others_by_size_of_the_rate(self):
        """Even where another has a larger rate."""
        model = Scalars(1, 1, 1, 1)
        plan = resolved(model, mults(a=(0.1, 1), b=(10, 1), d=(0.5, 1)))
        assert [["c"], ["b"], ["d"], ["a"]] == members(plan.groups)

    def test_without_lr_mult_1_the_largest_comes_first(self):
        """The rate that a logger of group 0 shows is the largest one."""
        plan = resolved(Scalars(1, 1), mults(a=(0.1, 1), b=(0.3, 1)))
        assert [["b"], ["a"]] == members(plan.groups)

    def test_then_wd_mult_1_then_more_elements_then_the_larger_decay(self):
        """Each rule breaks the ties of those before it."""
        model = Scalars(1, 5, 3, 3, 3)
        pairs = {"b": (1, 0.5), "c": (1, 0), "d": (1, 2), "e": (1, 0.25)}
        plan = resolved(model, mults(**pairs))
        assert [["a"], ["b"], ["d"], ["e"], ["c"]] == members(plan.groups)

    def test_the_order_does_not_depend_on_the_order_of_parameters(self):
        """Two models with the same parameters in another order agree."""
        one = resolved(Scalars(2, 3, 4), mults(a=(0.5, 1), b=(2, 1)))
        pairs = [(name, torch.ones(size)) for name, size in zip("cba", (4, 3, 2), strict=True)]
        other = resolved(
            {name: tensor.requires_grad_() for name, tensor in pairs},
            mults(a=(0.5, 1), b=(2, 1)),
        )
        assert members(one.groups) == members(other.groups)

    def test_a_kept_group_of_rate_0_comes_last(self):
        """locked="keep" keeps gradients on, and the group out of the loggers' way."""
        model = Scalars(1, 1, 1)
        plan = resolved(model, mults(a=(0, 1), b=(0.1, 1)))
        model.a.grad = torch.ones(1)
        groups = plan.param_groups(locked="keep")
        assert [1.0, 0.1, 0.0] == [group["lr_mult"] for group in groups]
        assert (0.0, 0.5) == (groups[-1]["lr"], groups[-1]["weight_decay"])
        assert model.a.requires_grad
        assert model.a.grad is not None


class TestNames:
    """Group names are unique, short and say what the group is."""

    def test_names_have_three_digits_unless_more_are_needed(self):
        """As many as tell the rates apart, for all names alike."""
        short = resolved(Scalars(1, 1), mults(a=(0.75**9, 0)))
        assert ["lr1_wd1", "lr0.0751_wd0"] == [group.name for group in short.groups]
        long = resolved(Scalars(1, 1, 1), mults(a=(0.75**9, 1), b=(0.07512, 1)))
        assert ["lr1_wd1", "lr0.07512_wd1", "lr0.07508_wd1"] == [
            group.name for group in long.groups
        ]

    def test_neighbouring_floats_are_told_apart(self):
        """Seventeen digits, if it must be."""
        near = math.nextafter(0.1, 1)
        plan = resolved(Scalars(1, 1), mults(a=(0.1, 1), b=(near, 1)), lr=1.0)
        assert 2 == len({group.name for group in plan.groups})
        assert "lr0.10000000000000001_wd1" == plan.groups[1].name

    def test_options_appear_in_names_where_the_rates_do_not_suffice(self):
        """Tuples are joined; the plain group keeps its plain name."""
        scheme = Say(a=nnlr.Factor(options={"betas": (0.9, 0.95), "amsgrad": True}))
        plan = resolved(Scalars(1, 2), scheme)
        assert ["lr1_wd1", "lr1_wd1_amsgradTrue_betas0.9-0.95"] == [
            group.name for group in plan.groups
        ]

    def test_names_that_still_collide_are_numbered(self):
        """Also where a number is taken by another group's own name."""
        options = {"a": "v", "b": ("v",), "c": "v_2", "d": ("v", "2")}
        scheme = Say(**{k: nnlr.Factor(options={"x": v}) for k, v in options.items()})
        plan = resolved(Scalars(1, 1, 1, 1), scheme)
        names = [group.name for group in plan.groups]
        assert ["lr1_wd1_xv", "lr1_wd1_xv_2", "lr1_wd1_xv_2_2", "lr1_wd1_xv-2"] == names

    def test_rows_know_the_name_of_their_group(self):
        """None for those that are in none."""
        plan = resolved(Scalars(1, 1), mults(a=(0, 1)))
        assert [None, "lr1_wd1"] == [row.group for row in plan.rows]


class TestOwnGroups:
    def test_parameters_of_a_name_are_kept_apart(self):
        """Equal rates merge within the name only; the name begins those of its groups."""
        net = Scalars(1, 1, 1, 1)
        rules = nnlr.rules(
            [
                nnlr.rule("a", group="means"),
                nnlr.rule("b", group="means", lr_mult=2),
                nnlr.rule("c", group="colours"),
                nnlr.rule("*"),
            ]
        )
        plan = nnlr.resolve(net, rules, lr=1, weight_decay=0)
        names = {row.name: row.group for row in plan}
        assert {
            "a": "means_lr1_wd1",
            "b": "means_lr2_wd1",
            "c": "colours",
            "d": "lr1_wd1",
        } == names
        optimizer = plan.optimizer(torch.optim.AdamW)
        half = functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=0.5)
        nnlr.schedule(optimizer, {"means*": half})
        assert {"means_lr1_wd1": 0.5, "means_lr2_wd1": 1.0, "colours": 1.0, "lr1_wd1": 1.0} == {
            group["name"]: group["lr"] for group in optimizer.param_groups
        }
        again = nnlr.Plan.from_json(plan.to_json())
        assert [row.group for row in plan] == [row.group for row in again]

    def test_two_names_are_an_error_unless_a_rule_overrules_a_scheme(self):
        """As with algorithms."""
        twice = nnlr.rule("*", group="one") * nnlr.rule("*", group="two")
        with pytest.raises(nnlr.ConfigError, match="'a' is put into two groups: 'one' by rule"):
            nnlr.resolve(Scalars(1), twice, lr=1, weight_decay=0)
        own = Say(a=nnlr.Factor(group="one", why="of one")) * nnlr.rule("*", group="two")
        assert "two" == nnlr.resolve(Scalars(1), own, lr=1, weight_decay=0)["a"].group

    @pytest.mark.parametrize(
        ("name", "message"),
        [("", "group must be a name"), ("a*", r"group must be a plain name, got 'a\*'")],
    )
    def test_a_name_is_a_plain_one(self, name, message):
        """No pattern, which no key of a schedule could name."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.rule("*", group=name)


class TestParamGroups:
    """What optimizers get."""

    def test_a_group_holds_torchs_keys_and_three_more(self):
        """Never lr_scale, which timm's schedulers would multiply in a second time."""
        model = Scalars(1)
        (group,) = resolved(model, Say()).param_groups()
        expected = {"params", "lr", "weight_decay", "name", "lr_mult", "wd_mult"}
        assert expected == group.keys()
        assert [("a", model.a)] == group["params"]

    def test_names_false_gives_plain_tensors(self):
        """For optimizers that sort or split what they get."""
        model = Scalars(1, 1)
        (group,) = resolved(model, Say()).param_groups(names=False)
        assert [id(model.a), id(model.b)] == [id(tensor) for tensor in group["params"]]

    def test_every_group_has_a_rate_tensor_of_its_own(self):
        """One shared tensor would give the last group's rate to all of them."""
        model = Scalars(1, 1, 1)
        plan = resolved(model, mults(a=(0.5, 1), b=(0.25, 1)))
        rates = [group["lr"] for group in plan.param_groups(tensor_lr=True)]
        assert 3 == len({rate.data_ptr() for rate in rates})
        assert {((), torch.float32)} == {(rate.shape, rate.dtype) for rate in rates}
        assert [0.1, 0.05, 0.025] == pytest.approx([rate.item() for rate in rates])

    @pytest.mark.parametrize("copied", ["deepcopy", "state_dict"])
    def test_rate_tensors_stay_apart_in_copies(self, copied):
        """Filling one group's rate in a copy leaves the others alone."""
        model = Scalars(1, 1)
        plan = resolved(model, mults(a=(0.5, 1)))
        optimizer = plan.optimizer(torch.optim.AdamW, tensor_lr=True)
        if copied == "deepcopy":
            optimizer = copy.deepcopy(optimizer)
        else:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        optimizer.param_groups[0]["lr"].fill_(7.0)
        assert [7.0, 0.05] == pytest.approx(
            [group["lr"].item() for group in optimizer.param_groups]
        )

    def test_groups_of_other_stages_are_left_out(self):
        """A pipeline stage gets the groups that it has parameters of, never an empty one."""
        model = Scalars(1, 1, 1)
        plan = resolved(model, mults(b=(0.5, 1)))
        stage = {"a": model.a, "c": model.c}
        (group,) = plan.param_groups(stage, partial=True)
        assert ["a", "c"] == [name for name, _ in group["params"]]

    def test_eps_is_demanded_before_anything_is_locked(self):
        """There is no default eps without an optimizer class."""
        model = Scalars(1, 1)
        scheme = Say(a=nnlr.Factor(eps_mult=0.5), b=nnlr.Factor(lr_mult=0))
        plan = resolved(model, scheme)
        with pytest.raises(nnlr.NnlrError, match="'lr1_wd1' multiplies the optimizer's"):
            plan.param_groups()
        assert model.b.requires_grad
        assert [5e-9] == [group["eps"] for group in plan.param_groups(eps=1e-8)]

    def test_locked_is_drop_or_keep(self):
        """Anything else is an error that says so."""
        model = Scalars(1)
        with pytest.raises(nnlr.NnlrError, match="locked must be one of 'drop', 'keep'; got 0"):
            resolved(model, Say()).param_groups(locked=0)

    def test_the_shortcut_gives_the_groups_of_the_plan(self):
        """nnlr.param_groups is resolve and param_groups in one call."""
        model = Scalars(1, 1)
        scheme = mults(a=(0.5, 1))
        wanted = resolved(model, scheme).param_groups()
        given = nnlr.param_groups(model, scheme, lr=0.1, weight_decay=0.5)
        assert wanted == given

    def test_a_group_is_plain_data(self):
        """The preview is made of names and numbers."""
        (group,) = resolved(Scalars(3), Say()).groups
        assert group == Group(
            name="lr1_wd1",
            lr=0.1,
            weight_decay=0.5,
            lr_mult=1.0,
            wd_mult=1.0,
            names=("a",),
            numel=3,
        )
