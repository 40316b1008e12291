"""Factors: what is checked, and what a trace shows of them."""

import dataclasses

import numpy as np
import pytest

import nnlr
from tests.declare.models import BAD_NUMBERS


class TestFactor:
    @pytest.mark.parametrize("field", ["lr_mult", "wd_mult", "eps_mult", "init_mult"])
    @pytest.mark.parametrize("bad", BAD_NUMBERS, ids=repr)
    def test_bad_multipliers_are_refused_at_once(self, field, bad):
        """No scheme can hand on a NaN, a bool or a tensor."""
        with pytest.raises(nnlr.NnlrError, match=f"{field} must be a finite number"):
            nnlr.Factor(**{field: bad})

    @pytest.mark.parametrize("field", ["eps_mult", "init_mult"])
    def test_scales_cannot_be_zero(self, field):
        """An epsilon or an initial weight of 0 is a mistake."""
        with pytest.raises(nnlr.NnlrError, match=f"{field} must be a finite number > 0, got 0"):
            nnlr.Factor(**{field: 0})

    @pytest.mark.parametrize("field", ["lr", "weight_decay"])
    @pytest.mark.parametrize("bad", [bad for bad in BAD_NUMBERS if bad is not None], ids=repr)
    def test_bad_absolute_rates_are_refused_at_once(self, field, bad):
        """Absolute rates are held to the same."""
        with pytest.raises(nnlr.NnlrError, match=f"{field} must be a finite number >= 0"):
            nnlr.Factor(**{field: bad})

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"lr": 1, "lr_mult": 2}, "lr=1 is absolute and lr_mult=2 is relative"),
            (
                {"weight_decay": 1, "wd_mult": 0},
                "weight_decay=1 is absolute and wd_mult=0 ",
            ),
        ],
    )
    def test_absolute_with_relative_is_an_error(self, settings, message):
        """One factor says one thing."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.Factor(**settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"why": 3}, "why must be a string, got 3"),
            ({"algorithm": 3}, "algorithm must be a name, got 3"),
            ({"options": None}, "options of a factor must be a mapping"),
            ({"options": []}, "options of a factor must be a mapping"),
            ({"moves": "lr"}, r"moves must be what moves, its unit, and how, such as \('lr'"),
            ({"moves": ("lr", 3, "x")}, "moves must be what moves, its unit, and how"),
            ({"moves": ("rate", "layer3", "x")}, "what moves must be one of 'lr', 'weight_decay'"),
            ({"moves": ("lr", "layer3", "x"), "move": 3}, "move must be a Move, got 3"),
            ({"move": nnlr.Move()}, "with a move says what moves, its unit, and how"),
        ],
    )
    def test_other_fields_are_checked_too(self, settings, message):
        """Texts are strings and options are a mapping, also if they are empty."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.Factor(**settings)

    def test_numpy_numbers_become_plain_floats(self):
        """A checkpoint need not know numpy."""
        factor = nnlr.Factor(lr_mult=np.float32(0.5), options={"eps": np.float64(0.25)})
        assert [float, float] == [type(factor.lr_mult), type(factor.options["eps"])]

    def test_a_factor_cannot_be_changed(self):
        """It is frozen, and keeps no hold of the mapping it was given."""
        given = {}
        factor = nnlr.Factor(options=given)
        given["betas"] = (0.9, 0.95)
        assert {} == factor.options
        with pytest.raises(dataclasses.FrozenInstanceError, match="lr_mult"):
            factor.lr_mult = 3

    def test_update_is_one_of_three_words(self):
        """Whose steps it is right for."""
        assert nnlr.Factor(update="sgd").update == "sgd"
        with pytest.raises(nnlr.NnlrError, match="update must be one of 'adam', 'adamw', 'sgd'"):
            nnlr.Factor(update="lion")

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"why": 3}, "why must be a string, got 3"),
            ({"compensates_decay": 1}, "compensates_decay must be True or False, got 1"),
            ({"shadowed": "rule 2"}, "shadowed must be a list of names such as .*, got 'rule 2'"),
            ({"shadowed": {"rule 2"}}, "shadowed must be a list of names"),
            ({"layer": (1, True)}, "layer must be an nnlr.depth.Layer of whole numbers"),
        ],
        ids=range(5),
    )
    def test_notes_are_checked_too(self, changed, message):
        """What a plan writes to a file must be readable again."""
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.Factor(**changed)
