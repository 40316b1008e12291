"""Numbers that fall or rise by one factor from layer to layer, as a power of it."""

from collections.abc import Iterator, Sequence
from typing import Final

# How far beyond the layers the exponent may be 0: the head, the embeddings.
_BEYOND: Final = 100
_DIGITS: Final = 6


def power(values: Sequence[float], start: int, base: float) -> str | None:
    """An expression in ``i`` that gives the numbers for ``i = start, start + 1, ...``, bit for bit.

    One that begins with ``base`` is preferred, and is the only one for two numbers, of which any
    have a ratio; ``None`` if there is none.

    Examples:
        >>> power([0.1 * 0.75**2, 0.1 * 0.75, 0.1], 5, 0.1)
        '0.1 * 0.75 ** (7 - i)'
    """
    if min(values) <= 0 or values[0] == values[1]:
        return None
    rising = values[0] < values[1]
    ratio = values[0] / values[1] if rising else values[1] / values[0]
    layers = range(start, start + len(values))
    for only_base in (True, False)[: len(values) - 1]:
        for factor in _rounded(ratio):
            for beyond in range(_BEYOND):
                offset = layers[-1] + beyond if rising else start - beyond
                exponents = [abs(offset - i) for i in layers]
                if not (factor ** max(exponents)):
                    break  # too small a number
                first = values[-1 if rising else 0] / factor**beyond
                for scale in [base] if only_base else _rounded(first):
                    made = (scale * factor**exponent for exponent in exponents)
                    if all(one == two for one, two in zip(made, values, strict=True)):
                        return f"{scale!r} * {factor!r}{_exponent(offset, rising)}"
    return None


def _rounded(value: float) -> Iterator[float]:
    """The number with few digits, then with more."""
    return iter(dict.fromkeys(float(f"{value:.{digits}g}") for digits in range(1, _DIGITS + 1)))


def _exponent(offset: int, rising: bool) -> str:
    """The power, of an expression in ``i``."""
    if rising:
        return f" ** ({offset} - i)"
    return "**i" if offset == 0 else f" ** (i {'+' if offset < 0 else '-'} {abs(offset)})"
