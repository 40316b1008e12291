"""What is told of each algorithm: its base rates, how much it trains, and its state."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from nnlr._rows.rates import Bases
from nnlr._rows.row import PlanRow
from nnlr._text import plural, printable
from nnlr.checkpoint._made import Maker
from nnlr.errors import NnlrError
from nnlr.optim._members import ALGORITHM
from nnlr.optim._mixed import member_of
from nnlr.optim._update_size import ADAM, FACTOR, FACTORS, is_muon, update_size
from nnlr.report._text import amount, rate


class Stepped(NamedTuple):
    """A group of an optimizer, and the optimizer of the class that steps it."""

    group: Mapping[str, Any]
    part: Optimizer


def stepped(optimizer: Optimizer) -> list[Stepped]:
    """Each group with the optimizer of the class that steps it."""
    return [Stepped(group, member_of(optimizer, group)) for group in optimizer.param_groups]


def algorithm_lines(
    rows: Sequence[PlanRow], bases: Bases, mode: str, optimizer: Optimizer | None
) -> list[str]:
    """A line for each algorithm, or for the only one."""
    trained: dict[str | None, list[PlanRow]] = {}
    for row in rows:
        if row.trainable:
            trained.setdefault(row.algorithm, []).append(row)
    routed = [name for name in trained if name is not None]
    lines = []
    if not bases.algorithms:
        lines.append(f"{_rates(bases, None)}{mode}")
    for name in dict.fromkeys([*bases.algorithms, *routed, *(trained if routed else ())]):
        members = trained.get(name, [])
        parts = [_rates(bases, name) + mode] * bool(bases.algorithms)
        size = amount(sum(row.numel for row in members))
        parts.append(f"{plural(len(members), 'tensor')} ({size})")
        if optimizer is not None:
            parts.append(_state(optimizer, name))
        lines.append(f"{printable(name or 'no algorithm')}: {', '.join(parts)}")
    if optimizer is not None and not lines[1:]:
        lines[0] += f", {_state(optimizer, None)}"
    return lines


def state_bytes(optimizer: Optimizer) -> dict[str, int | None]:
    """For each parameter how many bytes its state takes, or will take; unknown is ``None``."""
    sizes: dict[str, int | None] = {}
    makers: dict[int, Maker] = {}
    for group, part in stepped(optimizer):
        maker = makers.setdefault(id(part), Maker(part, packed=False))
        for name, tensor in zip(group.get("param_names", ()), group["params"], strict=False):
            sizes[name] = _bytes(part, group, tensor, maker)
    return sizes


def update_sizes(optimizer: Optimizer | None) -> Callable[[PlanRow], tuple[float, ...]]:
    """What tells of a row the least and the largest RMS of a step; nothing where unknown.

    Without an optimizer that is told for algorithms called after Adam.
    """
    groups = [] if optimizer is None else stepped(optimizer)
    group_of = {name: each for each in groups for name in each.group.get("param_names", ())}

    def sizes(row: PlanRow) -> tuple[float, ...]:
        if each := group_of.get(row.name):
            size = update_size(type(each.part), each.group, row.shape)
        else:
            size = ADAM if optimizer is None and "adam" in (row.algorithm or "").lower() else None
        return () if size is None else (size.low * row.lr, size.high * row.lr)

    return sizes


def _rates(bases: Bases, name: str | None) -> str:
    """The base rates of an algorithm."""
    base = bases.of(name)
    return f"base lr {rate(base.lr)}, base weight decay {rate(base.weight_decay)}"


def _state(optimizer: Optimizer, algorithm: str | None) -> str:
    """The class of an algorithm, and how many bytes its state takes, or will take."""
    groups = [s for s in stepped(optimizer) if algorithm in {None, s.group.get(ALGORITHM)}]
    names = dict.fromkeys(type(part).__name__ for _, part in groups)
    maker_of = {id(part): Maker(part, packed=False) for _, part in groups}
    sizes = [
        _bytes(part, group, tensor, maker_of[id(part)])
        for group, part in groups
        for tensor in group["params"]
    ]
    unknown = sizes.count(None)
    text = f"{size_text(sum(size for size in sizes if size is not None))} of state"
    if unknown:
        text += f" beside that of {plural(unknown, 'tensor')}, which is not known"
    return f"{text} ({', '.join(names) or 'no class'})"


def _bytes(part: Optimizer, group: Mapping[str, Any], tensor: Tensor, maker: Maker) -> int | None:
    """The bytes of a parameter's state; before a first step those that it will have."""
    state = part.state.get(tensor) or maker.made(group, tensor)
    return None if state is None else sum(v.nbytes for v in _tensors(state.values()))


def _tensors(values: Iterable[object]) -> Iterable[Tensor]:
    return (value for value in values if isinstance(value, Tensor))


def size_text(count: float) -> str:
    """A number of bytes.

    Examples:
        >>> size_text(336), size_text(2_500_000)
        ('336 bytes', '2.5 MB')
    """
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**4, "kB")):
        if count >= size:
            return f"{count / (10**3 if unit == 'kB' else size):.1f} {unit}"
    return f"{count:.0f} bytes"


def update_lines(row: PlanRow, optimizer: Optimizer | None) -> list[str]:
    """How large an update of a parameter is, as far as its class, or its shape, tells."""
    lr = row.lr
    if optimizer is None:
        name = (row.algorithm or "").lower()
        if "muon" in name and len(row.shape) == 2:
            lines = [f"  {'update':<14}lr times the shape factor of Muon, by its {FACTOR}:"]
            for word, factor in FACTORS.items():
                times = factor(*row.shape)
                size = lr * times / max(row.shape) ** 0.5
                lines.append(
                    f"      {word:<16} {rate(lr * times)} = lr x {rate(times)}, {_rms(size)}"
                )
            return lines
        if "adam" in name:
            sizes = _rms(ADAM.low * lr, ADAM.high * lr)
            return [f"  {'update':<14}{sizes}, if it is Adam's: {ADAM.low:g} to {ADAM.high:g} x lr"]
        return []
    group, part = _group_of(row.name, optimizer)
    cls = type(part)
    size = update_size(cls, group, row.shape)
    if size is None:
        return [f"  {'update':<14}by {cls.__name__}, whose size is not known"]
    if is_muon(cls, group):
        times = size.low * max(row.shape) ** 0.5
        word = group[FACTOR] or next(iter(FACTORS))
        what = f"the shape factor {word!r} of {cls.__name__}, {_rms(size.low * lr)}"
        return [f"  {'update':<14}{rate(lr * times)} = lr x {rate(times)}, {what}"]
    sizes = _rms(size.low * lr, size.high * lr)
    return [f"  {'update':<14}by {cls.__name__}, {sizes}: {size.low:g} to {size.high:g} x lr"]


def _rms(low: float, high: float | None = None) -> str:
    """The root mean square of an update."""
    return f"RMS about {rate(low)}" + ("" if high is None else f" to {rate(high)}")


def _group_of(name: str, optimizer: Optimizer) -> Stepped:
    """The group that trains a parameter, by its name."""
    for each in stepped(optimizer):
        if name in each.group.get("param_names", ()):
            return each
    raise NnlrError(
        f"No group of {type(optimizer).__name__} names {name!r}: pass the optimizer that the plan "
        "has built, plan.optimizer(...).",
        name=name,
    )
