"""Values of a file, read by the types that a class declares."""

from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
import pytest

from nnlr._rows.typed import members, read, read_fields
from nnlr.errors import ConfigError


class Point(NamedTuple):
    x: int
    y: float | None


class TestRead:
    @pytest.mark.parametrize(
        ("kind", "value", "expected"),
        [
            (str, "a", "a"),
            (bool, True, True),
            (int, np.int64(3), 3),
            (float, 2, 2.0),
            (float, Fraction(1, 2), 0.5),
            (float | None, None, None),
            (Literal["a", "b"], "b", "b"),
            (tuple[int, ...], [1, 2], (1, 2)),
            (tuple[int, str], (1, "a"), (1, "a")),
            (Point, [1, None], Point(1, None)),
            (object, {"any": 1}, {"any": 1}),
        ],
        ids=range(11),
    )
    def test_what_fits_is_taken_as_the_type(self, kind, value, expected):
        """Plain Python values come out."""
        result = read(kind, value, "x")
        assert (expected, type(expected)) == (result, type(result))

    @pytest.mark.parametrize(
        ("kind", "value", "message"),
        [
            (str, 3, r"^x must be a string, got 3 \(int\)$"),
            (bool, 1, "^x must be true or false, got 1"),
            (int, True, "^x must be a whole number >= 0, got True"),
            (int, -1, "^x must be a whole number >= 0, got -1"),
            (int, 2**63, "^x must be a whole number >= 0, got 9"),
            (float, "1", "^x must be a finite number, got '1'"),
            (float, False, "^x must be a finite number, got False"),
            (float, float("inf"), "^x must be a finite number, got inf"),
            (float, 10**400, "^x must be a finite number, got an int"),
            (Literal["a", "b"], "c", "^x must be one of 'a', 'b', got 'c'"),
            (Literal["a", "b"], ["a"], "^x must be one of 'a', 'b', got "),
            (tuple[int, ...], "12", "^x must be a list, got '12'"),
            (tuple[int, ...], [1, 2.5], r"^x\[1\] must be a whole number >= 0, got 2\.5"),
            (tuple[int, str], [1], r"^x must be a list of 2, got \[1\]"),
            (Point, [1, "a"], r"^x\[1\] must be a finite number, got 'a'"),
        ],
        ids=range(15),
    )
    def test_what_does_not_is_refused_by_its_place(self, kind, value, message):
        """With what is wanted there."""
        with pytest.raises(ConfigError, match=message):
            read(kind, value, "x")


KINDS = {"rate": float, "name": str}


class TestFields:
    def test_all_are_needed_and_no_others(self):
        """The nearest is named."""
        assert read_fields(KINDS, {"rate": 1, "name": "a"}, "row") == {
            "rate": 1.0,
            "name": "a",
        }
        with pytest.raises(ConfigError, match=r"^row lacks 'name'$"):
            read_fields(KINDS, {"rate": 1}, "row")
        with pytest.raises(
            ConfigError, match=r"row has 'nmae', which is none of .* Nearest: 'name'"
        ):
            read_fields(KINDS, {"rate": 1, "name": "a", "nmae": "a"}, "row")
        with pytest.raises(ConfigError, match=r"row\.rate must be a finite number, got 'a'"):
            read_fields(KINDS, {"rate": "a", "name": "a"}, "row")
        with pytest.raises(ConfigError, match=r"^row must be a mapping, got \[\]"):
            read_fields(KINDS, [], "row")

    def test_or_any_of_them(self):
        """Where those at their defaults are left out."""
        assert read_fields(KINDS, {"rate": 1}, "row", optional=True) == {"rate": 1.0}

    def test_members_have_places(self):
        """Lists and tuples only."""
        assert members((1, 2), "rows") == [("rows[0]", 1), ("rows[1]", 2)]
        with pytest.raises(ConfigError, match="rows must be a list, got 'ab'"):
            members("ab", "rows")
