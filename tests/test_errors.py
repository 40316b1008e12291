"""The exception tree and the words that messages share."""

import pickle

import pytest
import torch

import nnlr
from nnlr import _text
from nnlr._text import shown


@pytest.mark.parametrize(
    "name", ["PatternError", "CoverageError", "PlanMismatchError", "ConfigError"]
)
def test_every_error_is_an_nnlr_error_and_a_value_error(name):
    """One `except nnlr.NnlrError` or `except ValueError` catches them all."""
    kind = getattr(nnlr, name)
    assert issubclass(kind, nnlr.NnlrError)
    assert issubclass(kind, ValueError)


def test_warnings_are_user_warnings():
    """They can be filtered like any other."""
    assert issubclass(nnlr.NnlrWarning, UserWarning)


def test_facts_are_attributes():
    """What the message is about can be read without parsing it."""
    error = nnlr.PatternError("no match", pattern="a.*", nearest=["b.*"])
    assert (error.pattern, error.nearest) == ("a.*", ["b.*"])
    assert str(error) == "no match"


def test_an_unknown_fact_is_an_attribute_error():
    """`hasattr` works on exceptions as on anything."""
    assert not hasattr(nnlr.NnlrError("x"), "pattern")


def test_errors_survive_pickling():
    """An error from a worker process arrives with its facts."""
    error = pickle.loads(pickle.dumps(nnlr.CoverageError("left over", names=["a"])))
    assert isinstance(error, nnlr.CoverageError)
    assert (str(error), error.names) == ("left over", ["a"])


def test_lists_are_capped_with_a_count():
    """Five names at most, and how many more."""
    assert _text.listed("abc") == "a, b, c"
    assert _text.listed("abcdefg") == "a, b, c, d, e and 2 more"


def test_hints_are_empty_when_nothing_is_near():
    """No hint is better than a wrong one."""
    assert _text.nearest_hint("zzz", ["weight", "bias"]) == ""


def test_warnings_point_at_the_users_line():
    """However many functions of nnlr and torch lie between, the line shown is the user's."""
    model = torch.nn.Linear(1, 1)
    plan = nnlr.resolve(model, lr=0.1, weight_decay=0.1, decay="sqrt")
    with pytest.warns(nnlr.NnlrWarning, match="no clear meaning with Adam") as caught:
        optimizer = plan.optimizer(torch.optim.Adam)
    assert __file__ == caught[0].filename
    with pytest.warns(nnlr.NnlrWarning, match="no clear meaning with Adam") as caught:
        nnlr.regroup(optimizer, plan)
    assert __file__ == caught[0].filename


class TestShown:
    def test_short_values_are_shown_as_written(self):
        """With the type where it is asked for."""
        assert "'0.1'" == shown("0.1")
        assert "'0.1' (str)" == shown("0.1", typed=True)
        assert repr("x" * 78) == shown("x" * 78)

    def test_long_values_are_named_by_their_type(self):
        """More than 80 characters, or more than one line, would bury the message."""
        assert "a str" == shown("x" * 79)
        assert "a Sequential" == shown(torch.nn.Sequential(torch.nn.ReLU()), typed=True)
        assert "an AdamW" == shown(torch.optim.AdamW([torch.ones(1)]))
        assert "a Tensor" == shown(torch.zeros(2, 2))

    def test_what_cannot_be_written_is_named_by_its_type(self):
        """Python refuses to print an integer of 5,000 digits; the message must come out."""
        assert "an int" == shown(10**5000)
        with pytest.raises(nnlr.NnlrError, match="lr_mult must be a finite number"):
            nnlr.rule("*", lr_mult=10**5000)
