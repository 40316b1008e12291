"""The readings of the monitor as text: a line for a log, and a table of 80 columns."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from nnlr._findings import Findings
from nnlr._text import plural, printable
from nnlr.report._label import broken
from nnlr.report._monitor.reading import LayerReading, Reading
from nnlr.report._text import WIDTH, columns_of

_BARS: Final = "▁▂▃▄▅▆▇█"
_COURSE: Final = 16  # columns for the course of a ratio
_HEAD: Final = ("layer", "lr", "|Δw| / |w|", "course", "|gradient|")


def line(reading: Reading) -> str:
    """One reading in one line: the extremes over the layers.

    Examples:
        >>> layer = LayerReading("head", "trained", 0.1, 0.1, 0.5, 100.0, 2.0)
        >>> line(Reading(50, {"all": 0.1}, (layer,)))
        'step 50: lr 0.1, |Δw| / |w| 0.005, |gradient| 2'
    """
    layers = [layer for layer in reading.layers if layer.state == "trained"]
    gradients = [layer.gradient for layer in layers if layer.gradient is not None]
    norm = math.hypot(*gradients) if gradients else None
    return (
        f"step {reading.step}: lr {_extremes(reading.rates.values())}, "
        f"|Δw| / |w| {_extremes([layer.ratio for layer in layers])}, "
        f"|gradient| {'none' if norm is None else number(norm)}"
    )


def table(
    history: Sequence[Reading], title: str, findings: Findings, lines: int | None = None
) -> str:
    """The last reading as a table, with the course of each layer's ratio.

    Args:
        history: The readings.
        title: What the optimizer is called.
        findings: What is listed below the table.
        lines: Layers at most; ``None`` for all.
    """
    if not history:
        return f"{title}: no step was looked at yet"
    last = history[-1]
    rows = [_cells(layer, _course(layer.name, history)) for layer in last.layers]
    scale = _scale(history)
    cells = [[*row[:3], _bars(row[3], scale), row[4]] for row in rows]
    layers = list(zip(last.layers, cells, strict=True))
    hidden = 0
    if lines is not None and len(layers) > lines:
        # The first and the last, and others evenly between.
        kept_at = {round(at * (len(layers) - 1) / (lines - 1)) for at in range(lines)}
        hidden = len(layers) - len(kept_at)
        layers = [layers[at] for at in sorted(kept_at)]
    head = list(_HEAD)
    if not any(row[3] for _, row in layers):
        head[3] = ""
    widths = [
        max(len(head[column]), *(len(row[column]) for _, row in layers)) for column in range(1, 5)
    ]
    longest = max(columns_of("layer"), *(columns_of(printable(y.name)) for y, _ in layers))
    room = min(longest, max(12, WIDTH - sum(widths) - 2 * len(widths)))
    text = [_row("layer".ljust(room), head[1:], widths)]
    for layer, row in layers:
        first, *further = broken(printable(layer.name), room, columns_of)
        text += [_row(first + " " * (room - columns_of(first)), row[1:], widths), *further]
    text.insert(1, "─" * min(WIDTH, room + sum(widths) + 2 * len(widths)))
    if hidden:
        text.append(f"... and {plural(hidden, 'more layer')}")
    note = f"{plural(len(history), 'reading')}, step {history[0].step} to {last.step}"
    text.insert(
        0,
        f"{title}, step {last.step} ({note})" if len(history) > 1 else f"{title}, step {last.step}",
    )
    if findings and lines is None:
        text += ["", str(findings)]
    elif findings:
        text += [
            f"{finding.severity} [{finding.kind}]: {_few(finding.names)}" for finding in findings
        ]
    return "\n".join(text)


def number(value: float) -> str:
    """A number with three digits.

    Examples:
        >>> number(0.00123456), number(1234.5), number(1.0)
        ('0.00123', '1.23e+03', '1')
    """
    return f"{value:.3g}"


def _cells(
    layer: LayerReading, course: Sequence[float]
) -> tuple[str, str, str, Sequence[float], str]:
    """Name, rate, ratio, course and gradient of a layer."""
    if layer.state != "trained":
        return layer.name, layer.state, "", (), ""
    rates = {number(layer.lr_min): None, number(layer.lr): None}
    gradient = "none" if layer.gradient is None else number(layer.gradient)
    return layer.name, "..".join(rates), number(layer.ratio), course, gradient


def _course(name: str, history: Sequence[Reading]) -> list[float]:
    """The ratios of a layer in the readings, evenly thinned to what there is room for."""
    ratios = [layer.ratio for reading in history for layer in reading.layers if layer.name == name]
    if len(ratios) <= _COURSE:
        return ratios
    return [ratios[round(at * (len(ratios) - 1) / (_COURSE - 1))] for at in range(_COURSE)]


def _scale(history: Sequence[Reading]) -> tuple[float, float]:
    """Logarithms between which bars grow: of all ratios but the most extreme ones."""
    ratios = [layer.ratio for reading in history for layer in reading.layers]
    logs = sorted(math.log10(ratio) for ratio in ratios if 0 < ratio < math.inf) or [0.0]
    last = len(logs) - 1
    return logs[round(0.03 * last)], logs[round(0.97 * last)]


def _bars(course: Sequence[float], scale: tuple[float, float]) -> str:
    """Ratios as bars on a logarithmic scale; a dot where nothing moved."""
    if len(course) < 2:
        return ""
    low, high = scale
    bars = ""
    for ratio in course:
        if not 0 < ratio < math.inf:
            bars += "·" if ratio == 0 else "!"
            continue
        share = (math.log10(ratio) - low) / (high - low) if high > low else 1.0
        bars += _BARS[max(0, min(7, round(share * 7)))]
    return bars


def _row(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of the table; the course stands at the left of its column."""
    lr, ratio, course, gradient = cells
    padded = [lr.rjust(widths[0]), ratio.rjust(widths[1]), course.ljust(widths[2])]
    return "  ".join([name, *padded, gradient.rjust(widths[3])]).rstrip()


def _extremes(values: Iterable[float]) -> str:
    """One number, or the smallest and the largest."""
    numbers = list(values)
    if not numbers:
        return "none"
    ends = {number(min(numbers)): None, number(max(numbers)): None}
    return "..".join(ends)


def _few(names: Sequence[str]) -> str:
    """The first names, for a line."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(map(printable, names[:2])) + more
