"""How far each layer moved in training, beside the rates that a plan gave it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from nnlr._arguments import instance, text, whole
from nnlr._model.names import resolve_name, slots
from nnlr._rows.row import PlanRow
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import NnlrError, PlanMismatchError
from nnlr.report._label import broken
from nnlr.report._movement_chart import axis, draw_track, number, ticks
from nnlr.report._plot_style import WIDTH as PICTURE_WIDTH
from nnlr.report._plot_style import as_path, as_width
from nnlr.report._text import WIDTH, columns_of, rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nnlr._plan import Plan

TITLE: Final = "How far each layer moved: |Δw| / |w|"
_MOST_LINES: Final = 60  # of the chart; with more layers, names are cut and layers joined
_TRACK: Final = (20, 36)  # columns of the scale, at least and at most


@dataclass(frozen=True, slots=True)
class MovedLayer:
    """How far the parameters of one module moved together.

    Attributes:
        name: The module that owns them, or a pattern (``blocks.3.*``) for several modules.
        params: Canonical names of its parameters.
        numel: Their elements.
        lr_mult: Their relative learning rates, each once.
        state: ``"trained"``, ``"locked"`` or ``"frozen"``; ``"mixed"`` if they differ.
        distance: Euclidean norm of ``after - before`` over all elements.
        norm: Euclidean norm of ``before`` over all elements.
        moved_locked: Names of locked or frozen parameters that moved all the same.
        moves: Whether the plan moves one of their multipliers while training.
    """

    name: str
    params: tuple[str, ...]
    numel: int
    lr_mult: tuple[float, ...]
    state: str
    distance: float
    norm: float
    moved_locked: tuple[str, ...]
    moves: bool = False

    @property
    def relative(self) -> float:
        """``distance / norm``; 0 if nothing moved, infinite if only zeros did."""
        if self.norm == 0:
            return math.inf if self.distance else 0.0
        return self.distance / self.norm

    @property
    def rates(self) -> str:
        """The relative learning rates in short: ``locked``, ``1``, ``0.1 / 0.2``, ``0.1..1 ~``."""
        if self.state in {"locked", "frozen"}:
            return self.state
        text = " / ".join(map(rate, self.lr_mult))
        if len(self.lr_mult) > 2:
            text = f"{rate(min(self.lr_mult))}..{rate(max(self.lr_mult))}"
        return f"{text} ~" if self.moves else text


@dataclass(frozen=True)
class Movement:
    """What :func:`nnlr.report.movement` measured; ``print`` it, plot it, or read its rows.

    Attributes:
        label: What to call the run: the heading of its column, its entry in a legend.
        rows: One for each module that owns parameters, in the order of the plan.
    """

    label: str
    rows: tuple[MovedLayer, ...]

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain dicts and lists, fit for JSON; ``None`` for what is not finite."""

        def plain(value: object) -> object:
            if isinstance(value, tuple):
                return list(value)
            return None if isinstance(value, float) and not math.isfinite(value) else value

        layers = [asdict(row) | {"relative": row.relative} for row in self.rows]
        layers = [{key: plain(value) for key, value in layer.items()} for layer in layers]
        return {"label": self.label, "layers": layers}

    def __str__(self) -> str:
        """The chart."""
        return self.table()

    def table(
        self, other: "Movement | None" = None, *, title: str = TITLE, width: int = WIDTH
    ) -> str:
        """The movement of every layer as a number, and as a mark on a logarithmic scale.

        An exact 0 stands apart at the left end of the scale. Layers of a large model are joined
        until they fit into 60 lines (``blocks.3.*``); a flat model has nothing to join by.

        Args:
            other: Another run on the same layers, to show beside this one.
            title: The first line.
            width: Columns at most, at least 48; below about 60 there is no room for the scale.

        Raises:
            NnlrError: If an argument is none of these, or ``other`` has other layers.
        """
        title = text(title, "title")
        width = whole(width, "width", minimum=48)
        runs = self._runs(other)
        layers = list(zip(*runs, strict=True))
        columns = [["lr_mult"]]
        for pair in layers:
            flag = " !" if any(row.moved_locked for row in pair) else ""
            columns[0].append(pair[0].rates + flag)
        labels = [self.label] if other is None else [self.label, other.label]
        for label, run in zip(labels, runs, strict=True):
            cells = [label, *(number(row.relative) for row in run)]
            columns.append([cell.rjust(max(map(len, cells))) for cell in cells])
        names = ["layer", *(row.name for row in runs[0])]
        longest = max(map(len, names))
        taken = sum(3 + max(map(len, column)) for column in columns)
        track = min(_TRACK[1], width - taken - 3 - min(longest, 20))
        if track >= _TRACK[0]:
            marks = ticks(runs)
            tracks = [draw_track(pair, marks, track) for pair in layers]
            columns.append([axis(marks, track), *tracks])
            taken += 3 + track
        room = min(longest, max(width - taken, 8))

        lines = [title]
        widths = [max(map(len, column)) for column in columns]
        for name, *cells in zip(names, *columns, strict=True):
            first, *further = broken(name, room, columns_of)
            padded = [cell.ljust(size) for cell, size in zip(cells, widths, strict=True)]
            lines.append("   ".join([first.ljust(room), *padded]).rstrip())
            lines += further
        lines.insert(2, "─" * min(width, room + sum(3 + size for size in widths)))
        if other is not None and track >= _TRACK[0]:
            lines.append(f"● {self.label}   ○ {other.label}   ◉ both")
        moved = dict.fromkeys(name for run in runs for row in run for name in row.moved_locked)
        if moved:
            lines.append(f"! moved although locked or frozen: {listed(moved)}")
        if any(row.moves for run in runs for row in run):
            lines.append("~ moves while training: its lr_mult is the plan's")
        if any(row.distance > 0 == row.norm for run in runs for row in run):
            lines.append("inf: every element was 0 before")
        return "\n".join(lines)

    def plot(
        self,
        path: str | Path | None = None,
        other: "Movement | None" = None,
        *,
        title: str = TITLE,
        width: float = PICTURE_WIDTH,
    ) -> "Figure":
        """Draw the movement of every layer on a logarithmic scale; an exact 0 stands apart.

        Args:
            path: Where to save the picture; its suffix gives the format. ``None`` saves nothing.
            other: Another run on the same layers, to draw beside this one.
            title: What stands above.
            width: Width in inches, from 2.5 to 30.

        Returns:
            The figure, of matplotlib; in a notebook it shows itself.

        Raises:
            NnlrError: If an argument is none of these, matplotlib is not installed, or ``other``
                has other layers.
            OSError: If the file cannot be written.
        """
        from nnlr.report._plot_movement import draw_movement

        place = None if path is None else as_path(path)
        runs = self._runs(other)
        labels = [self.label] if other is None else [self.label, other.label]
        figure = draw_movement(runs, labels, text(title, "title"), as_width(width))
        if place is not None:
            figure.savefig(place)
        return figure

    def _runs(self, other: "Movement | None") -> list[list[MovedLayer]]:
        """The rows of this run and of the other, joined until they fit."""
        runs = [list(self.rows)]
        if other is not None:
            instance(other, "other", Movement)
            if [row.params for row in other.rows] != [row.params for row in self.rows]:
                raise NnlrError(
                    f"{self.label!r} and {other.label!r} have different layers: they cannot "
                    "be compared.\n  Fix: measure both runs on models with the same names."
                )
            runs.append(list(other.rows))
        depth = max((row.name.count(".") for row in self.rows), default=0)
        while len(runs[0]) > _MOST_LINES and depth > 0:
            runs = [_joined(run, depth) for run in runs]
            depth -= 1
        return runs


def movement(
    before: Mapping[str, Tensor] | nn.Module,
    after: Mapping[str, Tensor] | nn.Module,
    plan: "Plan",
    *,
    label: str = "moved",
) -> Movement:
    """Measure how far each layer moved, relative to where it began.

    The movement of a layer is ``|after - before| / |before|``: Euclidean norms over all
    elements of its parameters together; dimensionless, 0 for a layer that stayed. It is
    infinite for a layer that was all zeros and moved. A layer is a module that owns
    parameters; a tied tensor counts where it is first. Names may have the prefixes of
    ``torch.compile``, DDP and other wrappers.

    Args:
        before: The weights at the beginning: a copy of the model's ``state_dict()``, or a
            module. A ``state_dict()`` alone is no copy: its tensors go on training.
        after: The same later: the model, or its ``state_dict()``.
        plan: The plan of the run, which says what each layer's rate is and what is locked.
        label: What to call the run in charts.

    Names in a state dict that the plan does not know are taken for buffers and left out.
    Sharded tensors (``DTensor``) are measured where they are: every process must call this.

    Raises:
        PlanMismatchError: If a parameter of the plan is missing or has another shape, or a
            module has parameters that the plan does not know.
        NnlrError: If ``before`` and ``after`` share memory, so that nothing can be compared.

    Examples:
        >>> import copy, nnlr, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0), lr=0.1, weight_decay=0.0)
        >>> optimizer = plan.optimizer(torch.optim.SGD)
        >>> before = copy.deepcopy(net.state_dict())
        >>> net(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> moved = nnlr.report.movement(before, net, plan)
        >>> [(row.name, row.state, row.relative > 0) for row in moved.rows]
        [('0', 'locked', False), ('1', 'trained', True)]
    """
    rows = getattr(plan, "rows", None)
    if not isinstance(rows, tuple) or not all(isinstance(row, PlanRow) for row in rows):
        raise NnlrError(
            f"plan must be a Plan, got {shown(plan)}: movement(before, after, plan).", plan=plan
        )
    text(label, "label")
    starts = _tensors(before, plan, "before")
    ends = _tensors(after, plan, "after")
    shared = [name for name in starts if _address(starts[name]) & _address(ends[name])]
    if before is after or shared:
        raise NnlrError(
            f"before and after share the memory of {plural(len(shared), 'parameter')}: "
            f"{listed(shared)}. Nothing can be compared.\n"
            "  Fix: take before = copy.deepcopy(model.state_dict()) ahead of training.",
            names=shared,
        )
    by_layer: dict[str, list[PlanRow]] = {}
    for row in plan.rows:
        by_layer.setdefault(row.name.rpartition(".")[0], []).append(row)
    layers = [
        _together(
            layer or plan.label,
            [_measured(row, starts[row.name], ends[row.name]) for row in members],
        )
        for layer, members in by_layer.items()
    ]
    return Movement(label, tuple(layers))


def _tensors(source: object, plan: "Plan", argument: str) -> dict[str, Tensor]:
    """The tensor of every row, by canonical name."""
    by_name = {alias: row for row in plan.rows for alias in (*row.aliases, row.name)}
    named: list[tuple[str | None, Tensor]]
    if isinstance(source, nn.Module):
        places = slots(source)
        named = [(slot.name, slot.tensor) for slot in places]
        if unknown := [slot.name for slot in places if slot.name not in by_name]:
            raise PlanMismatchError(
                f"{argument} has {plural(len(unknown), 'parameter')} that the plan does not "
                f"know: {listed(unknown)}. {nearest_hint(unknown[0], by_name)}".rstrip(),
                name=unknown[0],
                names=unknown,
            )
    elif isinstance(source, Mapping):
        named = [
            (resolve_name(key, by_name), tensor)
            for key, tensor in source.items()
            if isinstance(key, str) and isinstance(tensor, Tensor)
        ]
    else:
        raise NnlrError(f"{argument} must be a state dict or a module, got {shown(source)}.")
    tensors: dict[str, Tensor] = {}
    for name, tensor in named:
        if name is not None:
            tensors.setdefault(by_name[name].name, tensor.detach())
    if missing := [row.name for row in plan.rows if row.name not in tensors]:
        raise PlanMismatchError(
            f"{argument} lacks {plural(len(missing), 'parameter')} of the plan: "
            f"{listed(missing)}.\n  Pass the state dict of the model that was resolved, or it.",
            name=missing[0],
            names=missing,
        )
    if on_meta := [row.name for row in plan.rows if tensors[row.name].is_meta]:
        raise NnlrError(
            f"{listed(on_meta)} of {argument} are on the meta device and have no values yet: "
            "measure a model with weights.",
            names=on_meta,
        )
    for row in plan.rows:
        if (shape := tuple(tensors[row.name].shape)) != row.shape:
            raise PlanMismatchError(
                f"{row.name!r} has the shape {shape} in {argument}, the plan was made for "
                f"{row.shape}.",
                name=row.name,
            )
    return tensors


def _address(tensor: Tensor) -> set[int]:
    """Where the elements that this process holds begin in memory; nothing if it holds none."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return {local.data_ptr()} - {0}


@torch.no_grad()
def _measured(row: PlanRow, before: Tensor, after: Tensor) -> MovedLayer:
    """One parameter, as a layer of its own."""
    if hasattr(before, "full_tensor") != hasattr(after, "full_tensor"):  # only one is sharded
        before, after = (
            tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
            for tensor in (before, after)
        )
    # Differences of half-precision weights are too small for half precision.
    dtype = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
    before = before.to(after.device, dtype)
    distance = _norm(after.to(dtype) - before)
    return MovedLayer(
        name=row.name,
        params=(row.name,),
        numel=row.numel,
        lr_mult=(row.lr_mult,),
        state=row.state,
        distance=distance,
        norm=_norm(before),
        moved_locked=() if row.trainable or distance == 0 else (row.name,),
        moves=row.trainable and row.moves,
    )


def _norm(tensor: Tensor) -> float:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    # Sums in float64, except where a device has none.
    dtype = None if tensor.device.type == "mps" else torch.float64
    norm = torch.linalg.vector_norm(tensor, dtype=dtype)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _together(name: str, layers: Sequence[MovedLayer]) -> MovedLayer:
    """Several layers as one."""
    states = {layer.state for layer in layers}
    return MovedLayer(
        name=name,
        params=tuple(param for layer in layers for param in layer.params),
        numel=sum(layer.numel for layer in layers),
        lr_mult=tuple(dict.fromkeys(value for layer in layers for value in layer.lr_mult)),
        state=states.pop() if len(states) == 1 else "mixed",
        distance=math.hypot(*(layer.distance for layer in layers)),
        norm=math.hypot(*(layer.norm for layer in layers)),
        moved_locked=tuple(param for layer in layers for param in layer.moved_locked),
        moves=any(layer.moves for layer in layers),
    )


def _joined(layers: Sequence[MovedLayer], depth: int) -> list[MovedLayer]:
    """Layers whose names begin with the same ``depth`` segments as one each."""
    by_stem: dict[str, list[MovedLayer]] = {}
    for layer in layers:
        stem = ".".join(layer.name.removesuffix(".*").split(".")[:depth])
        by_stem.setdefault(stem, []).append(layer)
    return [
        members[0] if len(members) == 1 else _together(f"{stem}.*", members)
        for stem, members in by_stem.items()
    ]
