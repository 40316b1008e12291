"""Numbers that fall or rise by one factor from layer to layer, as a power of it."""

from collections.abc import Iterator, Sequence
from typing import Final

# How far beyond the layers the exponent may be 0: the head, the embeddings.
_BEYOND: Final = 16
_DIGITS: Final = 6


def power(values: Sequence[float], start: int, base: float) -> str | None:
    """An expression in ``i`` that gives the numbers for ``i = start, start + 1, ...``, bit for bit.

    One that begins with ``base`` is preferred; ``None`` if there is none.

    Examples:
        >>> power([0.1 * 0.75**2, 0.1 * 0.75, 0.1], 5, 0.1)
        '0.1 * 0.75 ** (7 - i)'
    """
    if min(values) <= 0 or len(values) < 3 or values[0] == values[1]:
        return None
    rising = values[1] > values[0]
    ratio = values[0] / values[1] if rising else values[1] / values[0]
    end = start + len(values) - 1
    options = []
    for shift in range(_BEYOND):
        offset = end + shift if rising else start - shift
        exponents = [abs(offset - i) for i in range(start, end + 1)]
        options.append((offset, exponents))
    for only_base in (True, False):
        for factor in _rounded(ratio):
            for offset, exponents in options:
                first = values[-1] / factor ** exponents[-1] if rising else (
                    values[0] / factor ** exponents[0]
                )
                for scale in [base] if only_base else _rounded(first):
                    made = (scale * factor**exponent for exponent in exponents)
                    if all(one == two for one, two in zip(made, values, strict=True)):
                        return f"{scale!r} * {factor!r} ** {_exponent(offset, rising)}"
    return None


def _rounded(value: float) -> Iterator[float]:
    """The number with few digits, then with more."""
    return iter(dict.fromkeys(float(f"{value:.{digits}g}") for digits in range(1, _DIGITS + 1)))


def _exponent(offset: int, rising: bool) -> str:
    """The exponent as an expression in ``i``."""
    if rising:
        return f"({offset} - i)"
    return "i" if offset == 0 else f"(i {'+' if offset < 0 else '-'} {abs(offset)})"
