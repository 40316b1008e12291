"""Watch training: what each layer's rate, step and gradient really are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from nnlr._arguments import flag, whole
from nnlr._findings import Finding, Findings
from nnlr._model.names import Source, slots
from nnlr._rows.row import PlanRow
from nnlr._text import listed, nearest_hint, plural, shown, warn
from nnlr.checkpoint._hook import runs_hooks
from nnlr.errors import NnlrError, PlanMismatchError
from nnlr.optim._wrapped import unwrapped
from nnlr.report._monitor.faults import Faults
from nnlr.report._monitor.layers import layer_names
from nnlr.report._monitor.look import Look
from nnlr.report._monitor.outputs import Writer, outputs_of
from nnlr.report._monitor.reading import Reading, joined
from nnlr.report._monitor.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nnlr._plan import Plan

By = Literal["layer", "group", "parameter"] | Callable[[str], str]

_LINES = 12  # of layers in the table that is drawn over


class Monitor:
    r"""Watches an optimizer: per layer the rate, the size of the step, and the gradient.

    At a cadence it copies the weights before a step and compares them after it, so that the
    numbers are right for every optimizer. For each layer, over all elements that the optimizer
    has::

        update   = sqrt(sum((w_after - w_before)**2))
        weight   = sqrt(sum(w_before**2))
        ratio    = update / weight
        gradient = sqrt(sum(g**2)),  g as the step used it: clipped, unscaled, accumulated

    The rate is the one in the optimizer's groups when it stepped. Steps in between cost nothing
    but a counter: no transfer, no wait for the device. It watches until :meth:`close`, or as a
    context manager to the end of the block.

    Over several processes each must have a monitor of the same cadence; all have the same
    numbers, and the first of them writes. Shards of ``fully_shard`` and tensor parallelism are
    measured where they are.

    Args:
        plan: The plan of the run.
        optimizer: The optimizer, or a trainer's wrapper around it.
        every: Steps of the optimizer from one reading to the next, >= 1. The first step is read
            too.
        by: ``"layer"``: by the outermost numbered list in the names (``blocks.3``), else by
            module; ``"group"``, ``"parameter"``, or a function from a parameter's name to what
            it is shown under.
        model: The model; ``None`` for the one the plan was made for.
        partial: The model is one stage or part of it.
        start: Steps that were taken before: 1,000 makes the next one step 1,001.
        patience: Readings in a row without gradient or movement, >= 1, until that is a finding.
        live: Show the readings: on a terminal a table that is drawn over, elsewhere a line each.
        jsonl: A file to which each reading and each finding is appended as a line of JSON.
        tensorboard: A ``SummaryWriter``, or anything with ``add_scalar(tag, value, step)``.
        log: A function of a dict and a step: ``wandb.log``, ``accelerator.log``. Keys are
            ``lr/GROUP``, ``update_ratio/LAYER`` and ``grad_norm/LAYER``.

    Attributes:
        history: The readings, one :class:`Reading` each.

    Raises:
        NnlrError: If an argument is none of these, or the optimizer runs no hooks.
        PlanMismatchError: If the model is not the one of the plan.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.1), lr=0.1, weight_decay=0.0)
        >>> optimizer = plan.optimizer(torch.optim.SGD)
        >>> with nnlr.report.Monitor(plan, optimizer, every=10) as monitor:
        ...     for _ in range(20):
        ...         net(torch.ones(1, 2)).square().sum().backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        >>> [reading.step for reading in monitor.history]
        [1, 10, 20]
        >>> [(layer.name, round(layer.lr, 9)) for layer in monitor.history[-1].layers]
        [('0', 0.01), ('1', 0.1)]
        >>> print(monitor.findings)
        nothing found
    """

    history: list[Reading]

    def __init__(
        self,
        plan: "Plan",
        optimizer: object,
        *,
        every: int = 50,
        by: By = "layer",
        model: Source | None = None,
        partial: bool = False,
        start: int = 0,
        patience: int = 3,
        live: bool = False,
        jsonl: str | Path | None = None,
        tensorboard: Writer | None = None,
        log: Callable[[dict[str, float], int], object] | None = None,
    ) -> None:
        rows = getattr(plan, "rows", None)
        if not isinstance(rows, tuple) or not all(isinstance(row, PlanRow) for row in rows):
            raise NnlrError(
                f"plan must be a Plan, got {shown(plan)}: Monitor(plan, optimizer).", plan=plan
            )
        inner = unwrapped(optimizer)
        if not isinstance(inner, Optimizer) or not runs_hooks(inner):
            raise NnlrError(
                "optimizer must be a torch optimizer that runs the hooks of its step, got "
                f"{shown(optimizer)}. Of a wrapper, pass the optimizer inside."
            )
        self._every = whole(every, "every", minimum=1)
        self._step = whole(start, "start", minimum=0)
        self._first = self._step + 1
        self._by = _checked_by(by)
        self._plan, self._model = plan, model
        self._partial = flag(partial, "partial")
        self._rows, self._tensors = self._located()
        self._layers = layer_names(row.name for row in rows)
        self._title = type(inner).__name__
        self._faults = Faults(whole(patience, "patience", minimum=1))
        self._outputs, self._live = outputs_of(live, jsonl, tensorboard, log, self._short_table)
        self._look: Look | None = None
        self._postponed = False
        self._findings: list[Finding] = []
        self.history = []
        self._hooks = [
            inner.register_step_pre_hook(self._before),
            inner.register_step_post_hook(self._after),
        ]

    # --- watch ----------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether this step is read: nothing may be while a CUDA graph is recorded."""
        due = self._postponed or self._step == self._first or self._step % self._every == 0
        return due and not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())

    def _before(self, optimizer: Optimizer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Count a step, and begin a look if it is due."""
        self._look = None
        if torch.compiler.is_compiling():  # pragma: no cover - traced, not run
            return
        self._step += 1
        if self._due():
            with torch.no_grad():
                self._follow(optimizer)
                self._look = Look(optimizer, self._rows, self._tensors, self._layer_of)
                if not _has_closure(args, kwargs):
                    self._look.see_gradients()

    def _after(self, _: Optimizer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """End the look, if there is one."""
        if self._look is not None:
            look, self._look = self._look, None
            with torch.no_grad():
                if _has_closure(args, kwargs):  # it has made them within the step
                    look.see_gradients()
                self._hand_out(look)

    def _hand_out(self, look: Look) -> None:
        """Hand out what a look has read."""
        result = look.end()
        self._postponed = result is None
        if result is None:
            return
        rates, params = result
        reading = Reading(self._step, rates, joined(params))
        fresh = self._faults.look(self._step, params)
        self.history.append(reading)
        self._findings += fresh
        if not _writes():
            return
        for output in self._outputs:
            output(reading, fresh)
        for finding in fresh:
            if finding.severity != "note":
                warn(str(finding))

    def _follow(self, optimizer: Optimizer) -> None:
        """Find the tensors again if the optimizer has others than those that were found."""
        present = {id(tensor) for tensor in self._tensors.values()}
        params = (tensor for group in optimizer.param_groups for tensor in group["params"])
        if any(id(tensor) not in present for tensor in params):
            try:
                self._rows, self._tensors = self._located()
            except PlanMismatchError as error:  # to watch is not worth a run
                warn(f"The monitor goes on with what it watched: {error}")

    def _located(self) -> tuple[list[PlanRow], dict[str, Tensor]]:
        """The rows with a tensor in the model, and those tensors by name."""
        source = self._plan._model(self._model)
        row_of = {alias: row for row in self._plan.rows for alias in (*row.aliases, row.name)}
        tensors: dict[str, Tensor] = {}
        for slot in slots(source):
            if slot.name not in row_of:
                raise PlanMismatchError(
                    f"The model has the parameter {slot.name!r}, which the plan does not know. "
                    f"{nearest_hint(slot.name, row_of)}".rstrip()
                    + "\n  Fix: resolve the model again, or pass the model of the plan as model=.",
                    name=slot.name,
                )
            tensors.setdefault(row_of[slot.name].name, slot.tensor)
        missing = [row.name for row in self._plan.rows if row.name not in tensors]
        if missing and not self._partial:
            raise PlanMismatchError(
                f"The model lacks {plural(len(missing), 'parameter')} of the plan: "
                f"{listed(missing)}.\n"
                "  Fix: pass the model of the plan, or partial=True if this is a part of it.",
                name=missing[0],
                names=missing,
            )
        if on_meta := [name for name, tensor in tensors.items() if tensor.is_meta]:
            raise NnlrError(
                f"{listed(on_meta)} of the model are on the meta device and have no values yet: "
                "make the monitor when the weights are there.",
                names=on_meta,
            )
        return [row for row in self._plan.rows if row.name in tensors], tensors

    def _layer_of(self, name: str, group: str | None) -> str:
        """What a parameter is shown under."""
        if callable(self._by):
            return str(self._by(name))
        if self._by == "group":
            return group or "(no group)"
        return name if self._by == "parameter" else self._layers[name]

    # --- look -----------------------------------------------------------------------

    @property
    def findings(self) -> Findings:
        """What is wrong: layers that do not move though they should, or move though locked.

        Each is told once, when it is first seen: as a warning, by ``live`` and in ``jsonl``.
        """
        return Findings(self._findings)

    def __str__(self) -> str:
        """The table of the last reading, and the findings."""
        return self.table()

    def table(self, lines: int | None = None) -> str:
        """The last reading as a table of 80 columns, with the course of each layer's ratio.

        Bars share one logarithmic scale over all layers and readings; a dot is an exact 0.

        Args:
            lines: Layers at most, >= 2; ``None`` for all, and the findings in full.

        Raises:
            NnlrError: If it is none of these.
        """
        most = None if lines is None else whole(lines, "lines", minimum=2)
        return table(self.history, self._title, self.findings, most)

    def _short_table(self) -> str:
        return self.table(_LINES)

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw rate, ratio and gradient of each layer over the steps.

        Args:
            path: Where to save the picture; its suffix gives the format. ``None`` saves nothing.

        Returns:
            The figure, of matplotlib; in a notebook it shows itself.

        Raises:
            NnlrError: If there are no readings yet, or matplotlib is not installed.
            OSError: If the file cannot be written.
        """
        from nnlr.report._monitor.picture import draw
        from nnlr.report._plot_style import as_path

        place = None if path is None else as_path(path)
        if not self.history:
            raise NnlrError("There is nothing to draw yet: no step was looked at.")
        figure = draw(self.history, self._title)
        if place is not None:
            figure.savefig(place)
        return figure

    # --- end ------------------------------------------------------------------------

    def close(self) -> None:
        """Stop watching; the readings stay. Closing twice does no harm."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._look = None
        if self._live is not None:
            self._live.end()

    def __enter__(self) -> "Monitor":
        """The monitor, which watches already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self.close()


def _checked_by(by: object) -> Any:  # noqa: ANN401 - a word or a function
    """What readings are joined by, or an error."""
    if callable(by) or (isinstance(by, str) and by in {"layer", "group", "parameter"}):
        return by
    raise NnlrError(
        "by must be 'layer', 'group', 'parameter' or a function of a parameter's name, got "
        f"{shown(by)}.",
        value=by,
    )


def _has_closure(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the step computes its gradients itself; the first argument is the optimizer."""
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    return closure is not None


def _writes() -> bool:
    """Whether this process is the one that writes."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
