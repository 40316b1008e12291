"""Findings: what is legal, and probably not what was meant."""

import pytest
from torch import nn

import nnlr


def findings(model, *schemes):
    """Findings of a plan by kind."""
    found = nnlr.resolve(model, *schemes, lr=0.1, weight_decay=0.01).findings
    assert len(found) == len({finding.kind for finding in found})
    return {finding.kind: finding for finding in found}


def normed(**settings):
    """A convolution, a batch norm, a head."""
    norm = nn.BatchNorm2d(2, **settings)
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), norm), nn.Conv2d(2, 1, 1))


class TestRulesOnFrozen:
    def test_a_rule_that_reaches_only_frozen_parameters(self):
        """It does nothing, which is worth a warning with its names."""
        model = normed()
        model[0].requires_grad_(False)
        found = findings(model, nnlr.rule("0.*", lr_mult=0.5), nnlr.rule("1.*", lr_mult=0.5))
        finding = found["rule-on-frozen"]
        assert "warning" == finding.severity
        assert "rule '0.*' reaches only parameters that are frozen" in finding.cause
        assert ("0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias") == finding.names

    def test_one_trainable_parameter_is_enough(self):
        """A rule that does anything is no finding."""
        model = normed()
        model[0].requires_grad_(False)
        assert {} == findings(model, nnlr.rule("*", lr_mult=0.5))

    def test_rules_in_a_list_and_declarations(self):
        """The same holds for a list's rules and for what is declared on modules."""
        model = normed()
        model[0].requires_grad_(False)
        table = nnlr.rules([nnlr.rule("0.*", lr_mult=0.5), nnlr.rule("*")])
        assert "rule 0 '0.*' reaches" in findings(model, table)["rule-on-frozen"].cause
        nnlr.learning_rate(model[0], "weight", 0.5)
        assert "declared on the module reaches" in findings(model)["rule-on-frozen"].cause

    def test_what_nnlr_locked_is_not_frozen(self):
        """A lock of nnlr does not make a later rule a mistake."""
        model = normed()
        nnlr.resolve(model, nnlr.rule("1.*", lr_mult=0), lr=1, weight_decay=0).lock()
        assert "rule-on-frozen" not in findings(model, nnlr.rule("1.*", lr_mult=0.5))

    def test_a_recipe_may_speak_of_frozen_parameters(self):
        """Schemes that are not aimed at names are no finding."""

        class Half(nnlr.Scheme):
            def factors(self, model):
                return [nnlr.Factor(lr_mult=0.5)] * len(model.params)

        assert {} == findings(nn.Linear(1, 1).requires_grad_(False), Half())


class TestAbsoluteLooking:
    @pytest.mark.parametrize(("value", "expected"), [(1e-4, True), (1.1e-4, False), (0, False)])
    def test_a_relative_rate_that_looks_absolute(self, value, expected):
        """Above 0 and at most 1e-4 it was probably meant as a rate."""
        found = findings(nn.Linear(1, 1), nnlr.rule("bias", lr_mult=value))
        assert expected == ("looks-absolute" in found)
        model = nnlr.learning_rate(nn.Linear(1, 1), "bias", value)
        assert expected == ("looks-absolute" in findings(model))

    def test_it_names_the_value_and_the_way(self):
        """The text has the value, and lr= as the fix."""
        finding = findings(nn.Linear(1, 1), nnlr.rule("*", lr_mult=2e-5))["looks-absolute"]
        assert "rule '*' gives the relative rate 2e-05" in str(finding)
        assert "rule(..., lr=)" in str(finding)
        assert ("weight", "bias") == finding.names

    @pytest.mark.parametrize(("value", "expected"), [(1e-4, True), (1.1e-4, False), (0, False)])
    def test_a_relative_decay_that_looks_absolute(self, value, expected):
        """Above 0 and at most 1e-4 it was probably meant as a weight decay."""
        found = findings(nn.Linear(1, 1), nnlr.rule("bias", wd_mult=value))
        assert expected == ("looks-absolute" in found)
        if expected:
            text = str(found["looks-absolute"])
            assert "gives the relative weight decay 0.0001, which looks" in text
            assert "rule(..., weight_decay=) to set a weight decay" in text

    def test_absolute_rates_and_recipes_are_fine(self):
        """lr= is what it looks like, and a deep recipe may come to tiny multipliers."""

        class Deep(nnlr.Scheme):
            def factors(self, model):
                return [nnlr.Factor(lr_mult=1e-6)] * len(model.params)

        assert {} == findings(nn.Linear(1, 1), nnlr.rule("*", lr=1e-5))
        assert {} == findings(nn.Linear(1, 1), Deep())


class TestRestored:
    @pytest.mark.parametrize("bare", [False, True])
    def test_what_a_plan_trains_again_is_noted(self, bare):
        """Somebody else may have frozen it since; applying the plan opens it."""
        net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
        source = dict(net.named_parameters()) if bare else net
        net[2].requires_grad_(False)
        lock = nnlr.rule("0.*", lr_mult=0) * nnlr.rule("1.bias", lr_mult=0)
        assert {} == findings(source, lock)
        nnlr.resolve(source, lock, lr=0.1, weight_decay=0).lock()
        assert {} == findings(source, lock)
        found = findings(source, nnlr.rule("0.weight", lr_mult=0))
        assert ["restored"] == list(found)
        assert ("note", ("0.bias", "1.bias")) == (
            found["restored"].severity,
            found["restored"].names,
        )
        nnlr.resolve(source, lr=0.1, weight_decay=0).lock()
        assert {} == findings(source)


class TestRunningStatistics:
    def test_a_locked_batch_norm_still_moves(self):
        """Its statistics follow the data in train mode."""
        finding = findings(normed(), nnlr.rule("0.*", lr_mult=0))["running-statistics"]
        assert ("note", ("0.1",)) == (finding.severity, finding.names)
        assert ".eval()" in finding.fix

    @pytest.mark.parametrize("selector", ["0.0.*", "1.*", "0.1.weight"])
    def test_a_batch_norm_that_learns_is_none(self, selector):
        """Unless all of its own parameters are locked, its statistics belong to it."""
        assert {} == findings(normed(), nnlr.rule(selector, lr_mult=0))

    def test_without_statistics_nothing_moves(self):
        """track_running_stats=False has nothing to update."""
        model = normed(track_running_stats=False)
        assert {} == findings(model, nnlr.rule("0.*", lr_mult=0))

    def test_without_parameters_the_surroundings_decide(self):
        """affine=False: the norm is locked if everything beside it is."""
        locked = findings(normed(affine=False), nnlr.rule("0.*", lr_mult=0))
        assert ("0.1",) == locked["running-statistics"].names
        assert {} == findings(normed(affine=False), nnlr.rule("1.*", lr_mult=0))

    def test_a_norm_beside_nothing_is_left_out(self):
        """Where no parameter says that it is locked, nothing is claimed."""
        model = nn.Sequential(nn.Sequential(nn.BatchNorm1d(2, affine=False)), nn.Linear(2, 1))
        assert {} == findings(model, nnlr.rule("1.*", lr_mult=0))
        assert {} == findings(nn.BatchNorm1d(2, affine=False))

    def test_a_batch_norm_alone(self):
        """The root itself may be the norm."""
        found = findings(nn.BatchNorm1d(2), nnlr.rule("*", lr_mult=0))
        assert ("",) == found["running-statistics"].names

    def test_a_shared_norm_is_named_at_each_place(self):
        """A norm used twice appears under both of its paths."""
        norm = nn.BatchNorm1d(2)
        model = nn.Sequential(norm, nn.Linear(2, 2), norm)
        found = findings(model, nnlr.rule("0.*", lr_mult=0))
        assert ("0", "2") == found["running-statistics"].names

    def test_bare_tensors_have_no_statistics(self):
        """Without modules there is nothing to look at."""
        tensors = dict(normed().named_parameters())
        assert {} == findings(tensors, nnlr.rule("0.*", lr_mult=0))
