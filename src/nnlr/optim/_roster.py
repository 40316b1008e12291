"""Who is stepped how: found once, checked at every step, found anew when anything moved."""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor

from nnlr.optim import _fast_path as obstacles
from nnlr.optim._numba.use_numba import sheets
from nnlr.optim._state import MOMENTUM, State, adopt, begin
from nnlr.optim._table import Call, Caller, Lane, Row, Run, Table, same
from nnlr.optim._threads import one_thread

Group = dict[str, Any]

_GRAD: Final = attrgetter("grad")

_PARAMS: Final = itemgetter("params")

_LR: Final = itemgetter("lr")

_WEIGHT_DECAY: Final = itemgetter("weight_decay")

# What a group says beside its rates, of all that the three optimizers know.
_SETTINGS: Final = (
    "betas",
    "eps",
    "momentum",
    "dampening",
    "nesterov",
    "amsgrad",
    "maximize",
    "foreach",
    "fused",
    "capturable",
    "differentiable",
    "decoupled_weight_decay",
)


class Stepped(Protocol):
    """What a roster asks of its optimizer."""

    defaults: dict[str, Any]
    param_groups: list[Group]
    state: Any

    def _obstacle(self) -> str | None: ...
    def _unfit(self, param: Tensor) -> str | None: ...
    def _prepare(self, group: Group, params: list[Tensor]) -> None: ...
    def _moments(self, group: Group) -> tuple[str, ...]: ...
    def _call(
        self,
        group: Group,
        first: bool,
        moments: list[list[Tensor]],
        steps: list[Tensor],
    ) -> Call: ...


class Slow(NamedTuple):
    """A parameter that makes torch's own step, and why."""

    group: int
    param: Tensor
    why: str
    lasting: bool  # as long as settings and state are as they are


class Roster:
    """The parameters of an optimizer, sorted by how they are stepped.

    Args:
        optimizer: Its groups and state as they are now. State that a first step needs is
            made here, as torch makes it.
    """

    def __init__(self, optimizer: Stepped) -> None:
        self.groups = groups = list(optimizer.param_groups)
        # Others are none of ours: a subclass may keep what it likes in its groups.
        self.read = itemgetter(*(key for key in _SETTINGS if key in optimizer.defaults))
        self.settings = [_fixed(self.read(group)) for group in groups]
        self.lengths = [len(group["params"]) for group in groups]
        self.flat = list(chain.from_iterable(map(_PARAMS, groups)))
        self.idle: list[Tensor] = []  # those that wait for their first gradient
        self.slow: list[Slow] = []
        self.sheets: list[Any] = []  # of nnlr.optim._numba.sheets, if it is used
        self.first: list[State] = []  # states whose moments this step begins
        self.everywhere = optimizer._obstacle()
        self.tables = self._tables(optimizer)
        self.state = optimizer.state
        self.owners, self.entries = list(self.state), list(self.state.values())
        self.lrs, self.weight_decays = self._rates()
        self.partition = self._partition()
        self.compiled = sheets()
        self.calls = self._arranged(optimizer._call)
        self.settled = False

    def _tables(self, optimizer: Stepped) -> list[Table]:
        rows: dict[tuple[tuple[str, ...], bool], list[Row]] = {}
        for position, group in enumerate(self.groups):
            general = self.everywhere or obstacles.of_group(group)
            names = optimizer._moments(group)
            fast = []
            for param in group["params"]:
                if param.grad is None and not _has_begun(optimizer.state, param, names):
                    self.idle.append(param)
                    continue
                lasting = general or optimizer._unfit(param)
                why = lasting or obstacles.of_parameter(param, param.grad)
                if why is None:
                    fast.append(param)
                else:
                    self.slow.append(Slow(position, param, why, lasting is not None))
            if not fast:
                continue
            optimizer._prepare(group, fast)
            settings = repr(self.settings[position])
            for param in fast:
                state = optimizer.state[param] if names else {}
                first = begin(param, state, names)
                if (why := adopt(param, state, names)) is not None:
                    self.slow.append(Slow(position, param, why, lasting=True))
                    continue
                if first:
                    self.first.append(state)
                sharded = obstacles.is_sharded(param)
                moments = tuple(state[name] for name in names)
                lane = Lane(settings, param.device, param.dtype, first)
                row = Row(position, param, state, moments, lane)
                rows.setdefault((names, sharded), []).append(row)
        return [
            Table(members, names, sharded=sharded) for (names, sharded), members in rows.items()
        ]

    # --- at every step

    def gradients(self, optimizer: Stepped) -> list[list[Tensor]] | None:
        """The gradients for each table, or ``None`` if anything has moved."""
        if (
            self.compiled is not sheets()
            or self._groups_moved(optimizer.param_groups)
            or self._state_moved(optimizer)
        ):
            return None
        found = self._gradients()
        if (
            found is None
            or not self._slow_stays()
            or not all(sheet.stays() for sheet in self.sheets)
        ):
            return None
        lrs, decays = self._rates()
        if same(lrs, self.lrs) and same(decays, self.weight_decays):
            return found
        if _in_other_tensors((*self.lrs, *self.weight_decays), (*lrs, *decays)):
            return None
        self.lrs, self.weight_decays = lrs, decays
        partition = self._partition()
        if partition != self.partition:  # groups have come to share rates, or to differ
            self.partition = partition
            self.calls = self._arranged(optimizer._call)  # of rows that passed just now
            found = self._gradients()
        return found

    def _groups_moved(self, groups: list[Group]) -> bool:
        """Whether anything but rates has changed in the groups; else note them."""
        lists = list(map(_PARAMS, groups))
        if (
            list(map(len, lists)) != self.lengths
            or not same(chain.from_iterable(lists), self.flat)
            or list(map(self.read, groups)) != self.settings
            or any(grad is not None for grad in map(_GRAD, self.idle))
        ):
            return True
        self.groups = groups
        return False

    def _state_moved(self, optimizer: Stepped) -> bool:
        """Whether the state of the optimizer is another, or holds others."""
        state = optimizer.state
        return (
            state is not self.state
            or len(state) != len(self.entries)
            or not same(state, self.owners)
            or not same(state.values(), self.entries)
        )

    def _gradients(self) -> list[list[Tensor]] | None:
        found = []
        for table in self.tables:
            grads = table.gradients()
            if grads is None:
                return None
            found.append(grads)
        return found

    def _slow_stays(self) -> bool:
        """Whether nothing has passed that kept a parameter from the fast path."""
        return all(
            slow.lasting
            or slow.param.grad is None
            or slow.why == obstacles.of_parameter(slow.param, slow.param.grad)
            for slow in self.slow
        )

    def _rates(self) -> tuple[list[Any], list[Any]]:
        return list(map(_LR, self.groups)), list(map(_WEIGHT_DECAY, self.groups))

    def _partition(self) -> list[int]:
        """A number for each group, the same for groups of the same rates."""
        numbers: dict[object, int] = {}
        return [
            numbers.setdefault(
                (lr if isinstance(lr, (float, int)) else id(lr), decay), len(numbers)
            )
            for lr, decay in zip(self.lrs, self.weight_decays, strict=True)
        ]

    def _arranged(self, caller: Caller) -> tuple[list[tuple[int, Run]], ...]:
        """All calls, each with the position of its table: those for small tensors, and the rest.

        What compiled kernels step is not among them.
        """
        self.sheets = []
        calls: list[tuple[int, Run]] = []
        for at, table in enumerate(self.tables):
            runs = table.arrange(self.groups, self.partition, caller)
            if self.compiled is not None:
                made, runs = self.compiled.sheets_of(at, table, runs, self.groups)
                self.sheets.extend(made)
            calls.extend((at, run) for run in runs)
        return (
            [call for call in calls if call[1].small],
            [call for call in calls if not call[1].small],
        )

    def settle(self, optimizer: Stepped) -> None:
        """Prepare for many steps more; called when nothing has moved since the last."""
        if not self.settled:
            self.settled = True
            for table in self.tables:
                table.pack()
            self.calls = self._arranged(optimizer._call)

    def step(
        self,
        grads: Sequence[list[Tensor]],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Step the fast ones.

        Args:
            grads: What :meth:`gradients` gave.
            grad_scale: What to divide gradients by.
            found_inf: 1 if one is not finite: then nothing is stepped.
        """
        if self.first and found_inf is not None and found_inf.item():
            self.forget()  # a moment that begins now would begin with nothing in it
            return
        scaling = _Scaling(grad_scale, found_inf)
        for table in self.tables:
            table.count()
        small, large = self.calls
        for sheet in self.sheets:
            if scaling.said or not sheet.step(grads[sheet.at], self.lrs, self.weight_decays):
                small = [*small, *((sheet.at, run) for run in sheet.runs)]
        if small:
            with one_thread():
                self._call(small, grads, scaling)
        self._call(large, grads, scaling)
        if found_inf is not None:
            for table in self.tables:
                table.take_back(found_inf)

    def _call(
        self,
        calls: Sequence[tuple[int, Run]],
        grads: Sequence[list[Tensor]],
        scaling: "_Scaling",
    ) -> None:
        lrs, weight_decays = self.lrs, self.weight_decays
        for at, run in calls:
            columns = self.tables[at].called(run, grads[at])
            if not columns[0]:
                continue
            lr, more = lrs[run.group], scaling.said
            if more or isinstance(lr, Tensor):
                device = columns[0][0].device
                lr, more = _near(lr, device), scaling.on(device)
            decay = weight_decays[run.group]
            run.function(*columns, lr=lr, weight_decay=decay, **more)

    def forget(self) -> None:
        """Forget the moments that this step was to begin."""
        for state in self.first:
            del state[MOMENTUM]


class _Scaling:
    """What a ``GradScaler`` says, on every device that asks."""

    def __init__(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        said = {"grad_scale": grad_scale, "found_inf": found_inf}
        self.said = {key: value for key, value in said.items() if value is not None}
        self.copies: dict[torch.device, dict[str, Tensor]] = {}

    def on(self, device: torch.device) -> dict[str, Tensor]:
        if self.said and device not in self.copies:
            self.copies[device] = {
                key: value.to(device, non_blocking=True) for key, value in self.said.items()
            }
        return self.copies.get(device, {})


def _has_begun(state: Any, param: Tensor, names: Sequence[str]) -> bool:  # noqa: ANN401
    """Whether a parameter could be stepped again, had it a gradient."""
    kept = state.get(param, {})
    return all(isinstance(kept.get(name), Tensor) for name in names)


def _fixed(settings: tuple[Any, ...]) -> tuple[Any, ...]:
    """Settings that stay as they are now: a list, as configurations have, may be written to."""
    return tuple(list(value) if isinstance(value, list) else value for value in settings)


def _in_other_tensors(old: Sequence[object], new: Sequence[object]) -> bool:
    """Whether a rate that is a tensor has come, gone, or made place for another."""
    return any(
        one is not other and (isinstance(one, Tensor) or isinstance(other, Tensor))
        for one, other in zip(old, new, strict=True)
    )


def _near(lr: Any, device: torch.device) -> Any:  # noqa: ANN401 - a number or a tensor
    """A learning rate where a kernel can read it: any does from the CPU."""
    if isinstance(lr, Tensor) and not lr.is_cpu and lr.device != device:
        return lr.to(device, non_blocking=True)
    return lr
