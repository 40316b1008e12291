"""What work costs, in numbers that a busy machine does not change."""

import sys


def calls(work):
    """How many functions, of Python and of C, are called while ``work()`` runs."""
    count = 0

    def note(_frame, event, _value):
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


class Name(str):
    """A string that counts the comparisons with others of its kind, which no profile shows."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other):
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__
