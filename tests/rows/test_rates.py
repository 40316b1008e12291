"""Rows: how factors come to rates, by hand-worked numbers."""

import math

import pytest
import torch
from torch import nn

import nnlr
from nnlr._declare.factor import Factor, Step
from nnlr._rows.rates import Bases, combine, product


def rates(*factors, lr=0.1, weight_decay=0.01, decay="coupled"):
    """What the factors come to, said by f0, f1 and so on."""
    trace = tuple(Step(f"f{i}", factor) for i, factor in enumerate(factors))
    return combine(trace, Bases(lr=lr, weight_decay=weight_decay, decay=decay), "w")


def linear(*schemes, **settings):
    """A plan for one layer."""
    return nnlr.resolve(nn.Linear(1, 1), *schemes, **{"lr": 0.1, "weight_decay": 0.01} | settings)


class TestProducts:
    def test_no_factors_are_the_base_rates(self):
        """The identity is 1."""
        found = rates()
        assert (0.1, 0.01, 1, 1, 1, 1, 1) == (
            found.lr,
            found.weight_decay,
            found.lr_mult,
            found.wd_mult,
            found.eps_mult,
            found.init_mult,
            found.unlocked_lr_mult,
        )

    def test_everything_multiplies(self):
        """Each of the four multipliers is its own product."""
        factor = Factor(lr_mult=0.5, wd_mult=2, eps_mult=4, init_mult=8)
        found = rates(factor, factor)
        assert (0.25, 4, 16, 64) == (
            found.lr_mult,
            found.wd_mult,
            found.eps_mult,
            found.init_mult,
        )

    def test_zero_absorbs_and_is_remembered_around(self):
        """A locked row knows what it would be unlocked."""
        found = rates(Factor(lr_mult=0.5), Factor(lr_mult=0), Factor(lr_mult=4))
        assert (0, 0, 2) == (found.lr, found.lr_mult, found.unlocked_lr_mult)

    def test_a_product_is_the_same_in_any_order(self):
        """0.1 * 3 * 0.7 differs from 0.7 * 3 * 0.1 in floats; sorted they are one."""
        assert 0.1 * 3 * 0.7 != 0.7 * 3 * 0.1 or 0.1 * 0.7 * 3 != 0.1 * 3 * 0.7
        assert product([0.1, 3, 0.7]) == product([3, 0.7, 0.1]) == product([0.7, 0.1, 3])


class TestAbsoluteRates:
    def test_they_become_factors(self):
        """An lr of 0.05 at a base of 0.1 is a factor of a half, and multiplies on."""
        found = rates(Factor(lr=0.05, weight_decay=0.02), Factor(lr_mult=0.5))
        assert (0.25, 2) == (found.lr_mult, found.wd_mult)
        assert (0.025, 0.02) == (found.lr, found.weight_decay)

    def test_zero_locks(self):
        """An absolute rate of 0 is a lock like any other 0."""
        plan = linear(nnlr.rule("bias", lr=0))
        assert plan["bias"].locked

    def test_decay_over_a_base_of_zero_is_an_error(self):
        """No multiplier of 0 gives 0.1; 0 itself is harmless."""
        with pytest.raises(
            nnlr.NnlrError, match=r"rule 'bias' sets weight_decay=0.1, but the base"
        ):
            linear(nnlr.rule("bias", weight_decay=0.1), weight_decay=0)
        plan = linear(nnlr.rule("bias", weight_decay=0), weight_decay=0)
        assert 0 == plan.with_rates(weight_decay=0.1)["bias"].weight_decay

    @pytest.mark.parametrize("field", ["lr", "weight_decay"])
    def test_two_absolute_rates_that_meet_are_an_error(self, field):
        """Their product would be neither; the message names both rules."""
        one, two = nnlr.rule("bias", **{field: 0.1}), nnlr.rule("*", **{field: 0.2})
        with pytest.raises(nnlr.ConfigError, match=f"{field} of 'bias' is set absolutely") as e:
            linear(one, two)
        assert "0.1 by rule 'bias', 0.2 by rule '*'" in str(e.value)
        assert 0.1 == pytest.approx(getattr(linear(nnlr.rules([one, two]))["bias"], field))

    def test_out_of_range_is_an_error_not_a_lock(self):
        """A share that underflows to 0 must not lock in silence."""
        with pytest.raises(nnlr.NnlrError, match=r"sets lr=1e-320, which is 0.0 times the base"):
            linear(nnlr.rule("bias", lr=1e-320), lr=1e10)
        with pytest.raises(nnlr.NnlrError, match=r"sets weight_decay=1e\+300, which is inf times"):
            linear(nnlr.rule("bias", weight_decay=1e300), weight_decay=1e-300)


class TestDecayModes:
    @pytest.mark.parametrize(
        ("decay", "wd_mult"), [("coupled", 0.5), ("independent", 2), ("sqrt", 1)]
    )
    def test_modes_divide_by_the_rate(self, decay, wd_mult):
        """At lr_mult 0.25 and wd_mult 0.5: as it is, over 0.25, over its root."""
        assert wd_mult == rates(Factor(lr_mult=0.25, wd_mult=0.5), decay=decay).wd_mult

    def test_independent_decay_shrinks_weights_alike(self):
        """The product lr * weight_decay, what AdamW shrinks by, is that of the base rates."""
        plan = linear(nnlr.rule("bias", lr_mult=0.1), decay="independent")
        shrink = plan["bias"].lr * plan["bias"].weight_decay
        assert 0.1 * 0.01 == pytest.approx(shrink, rel=1e-15)

    @pytest.mark.parametrize("decay", ["independent", "sqrt"])
    def test_locked_rows_keep_their_decay(self, decay):
        """There is nothing to divide by."""
        assert 0.5 == rates(Factor(lr_mult=0, wd_mult=0.5), decay=decay).wd_mult

    @pytest.mark.parametrize("decay", ["independent", "sqrt"])
    def test_no_decay_stays_no_decay(self, decay):
        """0 over anything is 0."""
        assert 0 == rates(Factor(lr_mult=0.5, wd_mult=0), decay=decay).wd_mult

    def test_what_compensates_by_itself_is_left_out(self):
        """A factor that corrects its own decay is not corrected again."""
        own = Factor(lr_mult=0.25, wd_mult=4, compensates_decay=True)
        found = rates(own, Factor(lr_mult=0.5), decay="independent")
        assert (0.125, 8) == (found.lr_mult, found.wd_mult)

    def test_a_mode_that_leaves_the_floats_is_an_error(self):
        """1e-300 under 1e300 is no number."""
        with pytest.raises(nnlr.NnlrError, match="decay='independent' divides it by what lr_mult"):
            rates(Factor(lr_mult=1e-300, wd_mult=1e300), decay="independent")

    @pytest.mark.parametrize("bad", ["independant", None, 0, ["sqrt"]], ids=repr)
    def test_an_unknown_mode_is_an_error(self, bad):
        """The message lists the modes."""
        with pytest.raises(nnlr.NnlrError, match="one of 'coupled', 'independent', 'sqrt'; got"):
            linear(decay=bad)

    def test_the_mode_is_part_of_the_plan(self):
        """It shows in the one line, and stays under other base rates."""
        plan = linear(decay="sqrt")
        assert "decay='sqrt'" in repr(plan)
        assert "sqrt" == plan.with_rates(lr=1).decay

    @pytest.mark.parametrize("decay", ["independent", "sqrt"])
    def test_an_absolute_decay_is_what_was_set(self, decay):
        """It is no multiple that a mode could correct, at other base rates neither."""
        plan = linear(
            nnlr.rule("bias", weight_decay=0.02),
            nnlr.rule("bias", lr_mult=0.25),
            decay=decay,
        )
        assert 0.02 == plan["bias"].weight_decay
        moved = plan.with_rates(lr=3, weight_decay=0.5)
        assert 0.02 == moved["bias"].weight_decay
        assert "divided by" not in plan.explain("bias")


class TestRanges:
    @pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, None, "0.1"])
    def test_the_base_rate_is_above_zero(self, bad):
        """A base lr is a finite number > 0."""
        with pytest.raises(nnlr.NnlrError, match="lr must be a finite number > 0"):
            linear(lr=bad)

    @pytest.mark.parametrize("bad", [-1, math.nan, math.inf, False, None, torch.tensor(0.0)])
    def test_the_base_decay_is_zero_or_above(self, bad):
        """weight_decay is a finite number >= 0."""
        with pytest.raises(nnlr.NnlrError, match="weight_decay must be a finite number >= 0"):
            linear(weight_decay=bad)

    def test_both_bases_name_the_same_algorithms(self):
        """One number is for all; a name that is missing on one side is an error."""
        with pytest.raises(nnlr.NnlrError, match="weight_decay has no entry for 'muon'"):
            linear(lr={"muon": 0.02, "adamw": 0.1}, weight_decay={"adamw": 0})

    def test_both_bases_are_required(self):
        """There is no default that would be right."""
        with pytest.raises(TypeError, match="weight_decay"):
            nnlr.resolve(nn.Linear(1, 1), lr=0.1)

    @pytest.mark.parametrize("field", ["lr_mult", "wd_mult", "eps_mult", "init_mult"])
    @pytest.mark.parametrize("value", [1e200, 1e-200])
    def test_a_product_out_of_range_is_an_error(self, field, value):
        """Neither inf nor a silent 0."""
        factor = Factor(**{field: value})
        with pytest.raises(nnlr.NnlrError, match=f"{field} of 'w' is out of range"):
            rates(factor, factor)

    def test_an_unlocked_rate_out_of_range_is_an_error(self):
        """What a row would be unlocked is a number too."""
        large = Factor(lr_mult=1e200)
        with pytest.raises(nnlr.NnlrError, match="unlocked_lr_mult of 'w' is out of range"):
            rates(large, Factor(lr_mult=0), large)

    def test_an_effective_rate_out_of_range_is_an_error(self):
        """Base times multiplier may leave the floats as well."""
        with pytest.raises(nnlr.NnlrError, match="lr of 'w' is out of range"):
            rates(Factor(lr_mult=1e-200), lr=1e-200)
        with pytest.raises(nnlr.NnlrError, match="weight_decay of 'w' is out of range"):
            rates(Factor(wd_mult=1e200), weight_decay=1e200)


class TestRows:
    def test_a_row_describes_its_parameter(self):
        """Name, shape, role and state come from the model."""
        model = nn.Sequential(nn.Linear(3, 2))
        model[0].bias.requires_grad_(False)
        plan = nnlr.resolve(model, nnlr.rule("0.weight", lr_mult=0), lr=1, weight_decay=0)
        weight, bias = plan.rows
        assert ("0.weight", (2, 3), 6, "matrix", "type") == (
            weight.name,
            weight.shape,
            weight.numel,
            weight.role,
            weight.role_basis,
        )
        assert (True, False, False, None) == (
            weight.locked,
            weight.trainable,
            weight.frozen,
            weight.group,
        )
        assert (False, False, True, None) == (
            bias.locked,
            bias.trainable,
            bias.frozen,
            bias.group,
        )

    def test_a_frozen_parameter_is_frozen_not_locked(self):
        """A factor of 0 on what the user froze locks nothing."""
        model = nn.Linear(1, 1).requires_grad_(False)
        row = nnlr.resolve(model, nnlr.rule("*", lr_mult=0), lr=1, weight_decay=0)["bias"]
        assert (True, False) == (row.frozen, row.locked)

    def test_sparse_gradients_do_not_decay(self):
        """No optimizer can decay what has sparse gradients; the trace says so."""
        model = nn.Embedding(3, 2, sparse=True)
        row = nnlr.resolve(model, lr=1, weight_decay=1)["weight"]
        assert (0, "sparse gradient") == (row.weight_decay, row.trace[0].source)

    def test_roles_can_be_corrected(self):
        """roles= sets what a selector matches."""
        model = nn.Linear(2, 2)
        plan = nnlr.resolve(
            model,
            roles={"weight": "head", nnlr.glob("bias"): "norm"},
            lr=1,
            weight_decay=0,
        )
        assert [("head", "user"), ("norm", "user")] == [(r.role, r.role_basis) for r in plan]
        with pytest.raises(nnlr.NnlrError, match=r"'haed' is no role.*Nearest: 'head'"):
            nnlr.resolve(model, roles={"*": "haed"}, lr=1, weight_decay=0)
        with pytest.raises(nnlr.NnlrError, match="roles must be a mapping"):
            nnlr.resolve(model, roles=["head"], lr=1, weight_decay=0)

    def test_roles_that_disagree_are_refused(self):
        """A parameter has one role: two entries may reach it if they say the same."""
        model = nn.Linear(2, 2)
        agreeing = {"*": "norm", "bias": "norm"}
        plan = nnlr.resolve(model, roles=agreeing, lr=1, weight_decay=0)
        assert ["norm", "norm"] == [row.role for row in plan]
        with pytest.raises(
            nnlr.NnlrError,
            match=r"'bias': 'norm'} speaks of 'bias', which an earlier .* makes 'head'",
        ):
            nnlr.resolve(model, roles={"*": "head", "bias": "norm"}, lr=1, weight_decay=0)
