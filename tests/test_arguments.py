"""Checks of the numbers and settings that users hand in."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from nnlr._arguments import (
    RESERVED_OPTIONS,
    as_call,
    choice,
    flag,
    function,
    instance,
    names,
    number,
    options,
    text,
    whole,
)
from nnlr.errors import ConfigError, NnlrError


class TestNumber:
    """`number`."""

    @pytest.mark.parametrize(
        "value",
        [0.5, np.float64(0.5), np.float32(0.5), np.float16(0.5), Fraction(1, 2)],
        ids=repr,
    )
    def test_any_real_number_becomes_a_float(self, value):
        """Numpy scalars and fractions are numbers; what comes out is a plain float."""
        result = number(value, "lr_mult")
        assert result == 0.5
        assert type(result) is float

    def test_integers_become_floats(self):
        """1 is as good as 1.0."""
        assert type(number(1, "lr_mult")) is float
        assert type(number(np.int64(1), "lr_mult")) is float

    @pytest.mark.parametrize(
        "value", [True, False, np.True_, "0.1", None, 1j, [0.1], float, np.array([0.1])]
    )
    def test_what_is_no_number_is_refused(self, value):
        """A bool is a slip, not a number; so is a string."""
        with pytest.raises(NnlrError, match="lr_mult must be a finite number >= 0, got"):
            number(value, "lr_mult")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1, -1e-9])
    def test_out_of_range_is_refused(self, value):
        """NaN, infinity and negative numbers never get in."""
        with pytest.raises(NnlrError, match="finite number >= 0, got"):
            number(value, "wd_mult")

    def test_a_number_too_large_for_a_float_is_refused(self):
        """An integer beyond the floats is infinite for our purposes."""
        with pytest.raises(NnlrError, match="finite number"):
            number(10**400, "lr")

    def test_strict_bounds(self):
        """`above` excludes the bound itself."""
        assert number(1e-300, "lr", above=0) == 1e-300
        with pytest.raises(NnlrError, match="lr must be a finite number > 0, got 0"):
            number(0, "lr", above=0)

    def test_negative_zero_is_zero(self):
        """-0.0 passes as a number >= 0 and must not print as one below it."""
        assert str(number(-0.0, "lr_mult")) == "0.0"

    def test_tensors_get_the_way_out(self):
        """A Tensor lr points at tensor_lr; any other tensor at .item()."""
        with pytest.raises(NnlrError, match=r"plan\.optimizer\(\.\.\., tensor_lr=True\)"):
            number(torch.tensor(0.1), "lr", above=0)
        with pytest.raises(NnlrError, match=r"wd_mult\.item\(\)"):
            number(torch.tensor(0.1), "wd_mult")

    def test_the_error_carries_the_facts(self):
        """Name and value can be read off the exception."""
        with pytest.raises(NnlrError, match="eps_mult") as caught:
            number(-1, "eps_mult")
        assert caught.value.what == "eps_mult"
        assert caught.value.value == -1


class TestOptions:
    """`options`."""

    def test_plain_values_pass_and_numpy_becomes_plain(self):
        """What a checkpoint can hold passes; lists become tuples."""
        given = {
            "betas": [np.float64(0.9), 0.95],
            "foreach": False,
            "steps": np.int32(3),
            "mode": "x",
            "nothing": None,
            "limit": float("inf"),
        }
        result = options(given, "a rule")
        assert result["betas"] == (0.9, 0.95)
        assert list(map(type, result["betas"])) == [float, float]
        assert type(result["steps"]) is int
        assert result["foreach"] is False
        assert (result["mode"], result["nothing"], result["limit"]) == (
            "x",
            None,
            float("inf"),
        )

    @pytest.mark.parametrize("key", sorted(RESERVED_OPTIONS))
    def test_reserved_keys_are_refused(self, key):
        """A key that nnlr or torch writes would be overwritten in silence."""
        with pytest.raises(ConfigError, match=f"may not set '{key}'"):
            options({key: 1}, "a rule")

    @pytest.mark.parametrize("key", [1, "not a name", ""])
    def test_keys_are_argument_names(self, key):
        """Anything else cannot be an optimizer argument."""
        with pytest.raises(ConfigError, match="must be the name of an optimizer argument"):
            options({key: 1}, "a rule")

    @pytest.mark.parametrize("value", [torch.tensor(1.0), {1}, object(), {"a": 1}, np.zeros(2)])
    def test_exotic_values_are_refused(self, value):
        """What torch.load(weights_only=True) could not read back is refused at once."""
        with pytest.raises(ConfigError, match="option 'x' of a rule must be a number, a string"):
            options({"x": value}, "a rule")

    def test_nan_is_refused(self):
        """NaN is never meant."""
        with pytest.raises(ConfigError, match="option 'eps' of a rule is NaN"):
            options({"eps": float("nan")}, "a rule")

    def test_a_mapping_is_needed(self):
        """A list of pairs is not one."""
        with pytest.raises(ConfigError, match="options of a rule must be a mapping"):
            options([("betas", 1)], "a rule")


class TestOthers:
    """The checkers of whole numbers, texts, names, objects, functions and switches."""

    @pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, 6, np.float64(2)])
    def test_whole_numbers(self, value):
        """No bool, no float, nothing outside of the bounds."""
        with pytest.raises(NnlrError, match=r"steps must be a whole number >= 0 and <= 5, got"):
            whole(value, "steps", minimum=0, maximum=5)
        assert whole(np.int64(3), "steps") == 3
        with pytest.raises(NnlrError, match="steps must be a whole number, got None"):
            whole(None, "steps")

    def test_texts(self):
        """Bytes are none."""
        assert text("a", "label") == "a"
        with pytest.raises(NnlrError, match=r"label must be a string, got b'a' \(bytes\)"):
            text(b"a", "label")
        with pytest.raises(NnlrError, match=r"path must be a string such as 'a\.b', got 3"):
            text(3, "path", "a.b")

    @pytest.mark.parametrize("value", ["ab", b"xy", [1], None, 3, torch.tensor(1.0)])
    def test_names(self, value):
        """One string is no list of names."""
        with pytest.raises(
            NnlrError, match=r"modules must be a list of names such as \['a'\], got"
        ):
            names(value, "modules", "['a']")

    def test_objects(self):
        """A class is not yet an object; what to pass is said."""
        with pytest.raises(NnlrError, match=r"got Linear\(.*\. Pass the plan"):
            instance(torch.nn.Linear(1, 1), "plan", Fraction, "Pass the plan.")
        with pytest.raises(
            NnlrError, match=r"must be a Fraction, got .* Make one: Fraction\(\.\.\.\)"
        ):
            instance(Fraction, "plan", Fraction)

    def test_functions(self):
        """Something that can be called."""
        with pytest.raises(NnlrError, match=r"train must be a function such as len, got 3 \(int\)"):
            function(3, "train", "len")

    @pytest.mark.parametrize("value", ["no", 0, 1, None, np.True_])
    def test_switches(self, value):
        """What Python takes for true or false is no answer to a question."""
        with pytest.raises(NnlrError, match="full must be True or False, got"):
            flag(value, "full")

    def test_text_that_is_no_number_is_only_shown(self):
        """What reads as a number is offered as one."""
        with pytest.raises(NnlrError, match=r"got '1e-3' \(str\)\. It is text: pass 0\.001\.$"):
            number("1e-3", "lr")
        with pytest.raises(NnlrError, match=r"got 'fast' \(str\)\.$"):
            number("fast", "lr")

    def test_numbers_may_be_infinite_where_it_is_said(self):
        """NaN never."""
        assert number(float("inf"), "p", infinite=True) == float("inf")
        with pytest.raises(NnlrError, match="p must be a number >= 0, got nan"):
            number(float("nan"), "p", infinite=True)

    def test_an_option_that_holds_itself_is_refused(self):
        """As a checkpoint cannot hold it."""
        endless = [1]
        endless.append(endless)
        with pytest.raises(ConfigError, match="option 'betas' of a rule holds itself"):
            options({"betas": endless}, "a rule")


class TestRange:
    def test_a_largest_value_is_kept_and_said(self):
        """The bound itself is allowed; the message says both ends."""
        assert 1 == number(1, "decay", above=0, maximum=1)
        with pytest.raises(
            NnlrError, match=r"decay must be a finite number > 0 and <= 1, got 1\.5"
        ):
            number(1.5, "decay", above=0, maximum=1)


class TestChoice:
    def test_a_known_word_is_returned(self):
        """A choice is one of the words."""
        assert "sgd" == choice("sgd", "optimizer", ("adam", "sgd"))

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("adma", "got 'adma'. Nearest: 'adam'."),
            ("x", "got 'x'."),
            (None, "got None."),
        ],
    )
    def test_other_values_are_refused_with_the_list(self, value, said):
        """The message lists what there is, and the nearest."""
        with pytest.raises(NnlrError, match="optimizer must be one of 'adam', 'sgd'") as error:
            choice(value, "optimizer", ("adam", "sgd"))
        assert str(error.value).endswith(said)


class TestAsCall:
    def test_defaults_are_left_out(self):
        """The call is written as short as a user would."""

        def power(base, exponent=2): ...

        assert "power(3)" == repr(as_call(power, 3, exponent=2))
        assert "power(3, exponent=4)" == repr(as_call(power, 3, exponent=4))
        assert "power(base=3, more=1)" == repr(as_call(power, base=3, more=1))
