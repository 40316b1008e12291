"""Try whether an optimizer reads a setting: run a small one of its class on two tensors.

Whether an optimizer reads a setting of its groups is not in its name or its signature. Two
equal tensors get equal gradients and settings that differ in one thing; how far each has moved
after some steps tells whether that thing counts. Groups also note which of their settings a
step looks up, for settings whose effect needs more than a few steps or larger tensors.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._apply.trial import Recorded
from nnlr._checks.subject import SettingsOfGroup, Subject, highest_lr
from nnlr._sandbox import arguments, undisturbed
from nnlr._schedule.origin import ORIGIN, PLAIN

# How much slower the second tensor is to learn.
SLOWER: Final = 0.1

# Some optimizers round the result, or weigh rates: a factor of three either way counts as read.
_READ: Final = (SLOWER / 10**0.5, SLOWER * 10**0.5)

# Steps of a trial; more where nothing has moved by then, as in a warm-up of the class's own.
_STEPS: Final = (5, 25)

# Settings of how a step is computed, off for the trial: they ask for certain devices.
_PLAIN_STEP: Final = {
    "fused": None,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
}

# What a group has beside the settings of a step.
_NOTES: Final = frozenset(
    {
        *("params", "param_names", "name", "lr", "lr_mult", "wd_mult", "lr_scale", "algorithm"),
        *("initial_lr", "initial_weight_decay", "max_lr", "min_lr", "swa_lr", ORIGIN),
        *_PLAIN_STEP,
    }
)

# Elements of a tensor that is filled with zeros for a trial.
_MOST: Final = 2**16


class _Kind(NamedTuple):
    """What the tensors of a trial are, and their gradients."""

    dtype: torch.dtype = torch.float64
    sparse: bool = False
    graph: bool = False  # whether gradients can be differentiated again


_Settings = Mapping[str, Any]  # in which one group differs from the other

# The usual kind first: some classes take sparse gradients, or no doubles, or need the graph.
_KINDS: Final = (
    _Kind(),
    _Kind(torch.float32),
    _Kind(sparse=True),
    _Kind(torch.float32, graph=True),
)


class ProbeError(Exception):
    """A trial that could not be made; the text says why."""


class RefusalError(ProbeError):
    """The optimizer runs, and refuses what was to be tried."""


class _Run(NamedTuple):
    """What a trial came to."""

    moves: list[Tensor]  # how far each tensor has moved
    read: set[str]  # the settings that the steps looked up


class Probe:
    """Trials of an optimizer's class with its present settings; the optimizer takes no step."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._cls = type(optimizer)
        accepted = arguments(self._cls)
        settings = {**copy.deepcopy(optimizer.defaults), **_PLAIN_STEP}
        self._settings = {key: value for key, value in settings.items() if key in accepted}
        for argument in list(accepted.values())[1:]:  # what it must be told, and keeps
            value = getattr(optimizer, argument.name, ...)
            if argument.default is argument.empty and isinstance(value, PLAIN):
                self._settings.setdefault(argument.name, value)
        fastest = max(optimizer.param_groups, key=lambda group: highest_lr(group) or 0.0)
        self._lr = highest_lr(fastest) or 1e-3
        self._group = _settings_of(fastest)
        kind = self._first_that_runs([{}, {}])
        if isinstance(kind, str):  # it may still train a single group
            alone = self._first_that_runs([{}])
            raise (ProbeError if isinstance(alone, str) else RefusalError)(kind)
        self._kind = kind

    def _first_that_runs(self, groups: Sequence[_Settings]) -> _Kind | str:
        """A kind of tensors on which it runs, or its error on the usual kind."""
        failures = []
        for kind in _KINDS:
            try:
                self._run(kind, groups)
            except Exception as error:  # noqa: BLE001 - anyone's optimizer
                failures.append(f"{type(error).__name__}: {error}")
            else:
                return kind
        return failures[0]

    def ratio(self) -> float:
        """How far the second tensor moves, relative to the first, at a tenth of the rate."""
        no_decay = {"weight_decay": 0.0} if "weight_decay" in self._group else {}
        groups = {"lr": self._lr, **no_decay}, {"lr": self._lr * SLOWER, **no_decay}
        for steps in _STEPS:
            fast, slow = self._try(groups, steps=steps).moves
            distance = float(fast.norm())
            if 0 < distance < math.inf:
                return float(slow.norm()) / distance
        raise ProbeError(f"nothing moved in {_STEPS[-1]} steps")

    def reads(self, key: str, one: object, other: object, group: SettingsOfGroup) -> bool:
        """Whether a group's step goes by a setting, or looks it up; ``...`` leaves it out."""
        settings = _settings_of(group)
        if one is ... and self._runs([settings]) and not self._runs([{**settings, key: ...}]):
            return True  # the step raises without it
        run = self._try([{**settings, key: one}, {**settings, key: other}])
        return key in run.read or not torch.equal(*run.moves)

    def needs(self, keys: Iterable[str]) -> list[str]:
        """The settings without which a step raises."""
        return [key for key in keys if not self._runs([{}], without=key)]

    def _runs(self, groups: Sequence[_Settings], without: str | None = None) -> bool:
        """Whether a step runs on groups of these settings, or on groups that lack one."""
        try:
            self._run(self._kind, groups, without=without)
        except Exception:  # noqa: BLE001 - anyone's optimizer
            return False
        return True

    def step_is_the_rate(self) -> bool:
        """Whether a step is about as large as the rate, whatever the size of the gradient."""
        small, large = (self._try([{}], gradient=size).moves[0].norm() for size in (1.0, 1e3))
        return bool(large < 10 * small)

    def adds_up(self, dtype: torch.dtype) -> bool:
        """Whether steps under the resolution of a type of weights move them in time.

        So they do where an optimizer keeps what rounding takes, or rounds at random.
        """
        tiny = torch.finfo(dtype).eps / 4  # of a weight between 1 and 2
        kind = self._kind._replace(dtype=dtype, sparse=False)
        (moved,) = self._try([{"lr": tiny}], kind=kind, gradient=0.0, start=1.5).moves
        return bool(moved.any())

    def raises_with(
        self, tensor: Tensor, group: SettingsOfGroup, state: Mapping[str, Any]
    ) -> str | None:
        """What the next step of a parameter says of its state; ``None`` if it runs.

        Small parameters are copied for that; of large ones the shapes are tried. Nothing is said
        where not even a state of its own can be tried so, or has the same keys and shapes.
        """
        copied = tensor.numel() <= _MOST and not tensor.is_meta
        device = "cpu" if copied else "meta"
        settings = {"lr": self._lr, **_settings_of(group)}
        try:
            param = torch.nn.Parameter(_moved(tensor, device))
            optimizer = self._cls([{"params": [param], **settings}], **self._settings)
            getattr(optimizer, "train", lambda: None)()
            _step_with(optimizer, param, None)
            fresh = _moved(optimizer.state[param], device)
            _step_with(optimizer, param, fresh)
            real = _moved(state, device)
        except Exception:  # noqa: BLE001 - anyone's optimizer
            return None
        if _form_of(fresh).items() <= _form_of(real).items():
            return None
        try:
            _step_with(optimizer, param, real)
        except Exception as error:  # noqa: BLE001 - anyone's optimizer
            return f"{type(error).__name__}: {error}"
        return None

    def _try(self, groups: Sequence[_Settings], *, kind: _Kind | None = None, **trial: Any) -> _Run:
        """Run on groups of different settings; what it refuses is told."""
        try:
            return self._run(kind or self._kind, groups, **trial)
        except Exception as error:
            raise RefusalError(f"{type(error).__name__}: {error}") from error

    def _run(
        self,
        kind: _Kind,
        differing: Sequence[_Settings],
        *,
        steps: int = _STEPS[0],
        without: str | None = None,
        gradient: float = 1.0,
        start: float | None = None,
    ) -> _Run:
        """Step equal tensors, each in a group of its own."""
        source = torch.Generator("cpu").manual_seed(0)

        def noise() -> Tensor:
            return torch.randn(4, 4, generator=source, dtype=torch.float64, device="cpu")

        begin, push = noise().to(kind.dtype), noise()
        if start is not None:
            begin = torch.full_like(begin, start)
        tensors = [torch.nn.Parameter(begin.clone()) for _ in differing]
        groups = [
            {"params": [tensor], "lr": self._lr, **self._group, **settings}
            for tensor, settings in zip(tensors, differing, strict=True)
        ]
        optimizer = self._cls(
            [{k: v for k, v in {**g, "lr": self._lr}.items() if v is not ...} for g in groups],
            **self._settings,
        )
        rate_of = {id(group["params"][0]): group["lr"] for group in groups}
        for group in optimizer.param_groups:  # as a scheduler does, which comes later
            group["lr"] = rate_of[id(group["params"][0])]
            if without is not None:
                group.pop(without, None)
        watched = [Recorded(group) for group in optimizer.param_groups]
        optimizer.param_groups[:] = watched
        getattr(optimizer, "train", lambda: None)()  # schedule-free ones ask for it
        for step in range(steps):
            # One direction, shrinking, so that running means and maxima differ.
            grad = ((push + 0.1 * noise()) * 0.8**step * gradient).to(kind.dtype)
            if not gradient:
                grad = torch.ones_like(begin)

            def loss(grad: Tensor = grad) -> Any:  # noqa: ANN401 - a float, or so
                for tensor in tensors:
                    if kind.graph:
                        tensor.grad = None
                        total = (tensor * grad).sum() + 0 * tensor.pow(2).sum()
                        torch.autograd.backward(total, create_graph=True)
                    else:
                        tensor.grad = grad.to_sparse(1) if kind.sparse else grad.clone()
                return grad.sum()

            loss()
            try:
                optimizer.step()
            except Exception:  # noqa: BLE001 - it may want to evaluate the loss
                optimizer.step(loss)
        moves = [tensor.detach() - begin for tensor in tensors]
        return _Run(moves, set().union(*(group.read for group in watched)))


def _step_with(
    optimizer: Optimizer, param: torch.nn.Parameter, state: Mapping[str, Any] | None
) -> None:
    """Step one parameter that has this state, or begins."""
    if state is not None:
        optimizer.state[param] = state
    param.grad = torch.zeros_like(param)
    optimizer.step()


def _moved(state: Any, device: str) -> Any:  # noqa: ANN401 - a part of a state
    """A copy of a state on the CPU, or its shapes; of a sharded tensor those of the whole."""
    if isinstance(state, Mapping):
        return {key: _moved(value, device) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_moved(value, device) for value in state)
    if not isinstance(state, Tensor):
        if not isinstance(state, PLAIN):
            raise ProbeError(f"a state of {type(state).__name__}")
        return state
    if device == "meta" and state.ndim:
        return torch.empty(state.shape, dtype=state.dtype, device=device)
    if hasattr(state, "full_tensor"):
        return torch.zeros(state.shape, dtype=state.dtype, device="cpu")
    return state if state.is_meta else state.detach().to("cpu", copy=True)


def _form_of(state: Mapping[str, Any]) -> dict[str, object]:
    """The keys of a state, with the shapes of its tensors."""
    return {key: value.shape if isinstance(value, Tensor) else None for key, value in state.items()}


def _settings_of(group: SettingsOfGroup) -> dict[str, Any]:
    """Copies of the settings of a group, without its rate and what others note there."""
    return {
        key: copy.deepcopy(value)
        for key, value in group.items()
        if key not in _NOTES and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    """Whether a setting is a number, a word, a small tensor, or a sequence of such."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN) or (isinstance(value, Tensor) and value.numel() == 1)


def is_read(ratio: float) -> bool:
    """Whether tensors moved about in the ratio of their rates."""
    return _READ[0] < ratio < _READ[1]


def probe_of(subject: Subject, optimizer: Optimizer) -> Probe:
    """The trials of an optimizer's class; one that cannot be built raises each time."""
    if id(optimizer) not in subject.probes:
        subject.probes[id(optimizer)] = Probe(optimizer)
    probe: Probe = subject.probes[id(optimizer)]
    return probe


def step_needs(subject: Subject, optimizer: Optimizer, keys: Sequence[str]) -> list[str]:
    """Which settings a step of an optimizer's class raises without.

    Where that cannot be tried, they are those which its constructor has.
    """
    with undisturbed():
        try:
            return probe_of(subject, optimizer).needs(keys)
        except Exception:  # noqa: BLE001 - anyone's optimizer
            return sorted(arguments(type(optimizer)).keys() & set(keys))
