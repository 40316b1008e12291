"""Try what settings an optimizer takes and reads: run a small one of its class.

Neither a signature nor ``optimizer.defaults`` tells what a step reads from its groups, and no
constructor looks at settings that stand in a group. A small optimizer of the same class does.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nnlr._sandbox import arguments, undisturbed

_STEPS: Final = 3  # the third finds what two have left behind

_SIDE: Final = 8  # the longest side of a small tensor

# Elements that a tensor may have to be tried in its true shape.
_LARGE: Final = 2**20


@dataclass(frozen=True)
class Trial:
    """How a small optimizer fared."""

    read: frozenset[str]  # settings of its group that it asked for
    built: bool
    stepped: bool
    finite: bool  # whether all tensors were finite after the steps
    moved: bool  # whether the steps moved one of them
    error: Exception | None  # of the constructor or the step


class Recorded(dict[str, Any]):
    """A parameter group that notes which settings are asked for before anybody has written them."""

    def __init__(self, group: Mapping[str, Any]) -> None:
        super().__init__(group)
        self.read: set[str] = set()
        self._written: set[str] = set()

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - a setting may be anything
        self._note(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - as above
        self._note(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:  # noqa: ANN401 - as above
        self._note(key)
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - as above
        self._note(key)
        return super().setdefault(key, default)

    def __iter__(self) -> Iterator[str]:  # also of copies and ``**group``
        return iter(self.keys())

    def keys(self) -> Any:  # noqa: ANN401 - dict_keys
        self._note(*super().keys())
        return super().keys()

    def items(self) -> Any:  # noqa: ANN401 - dict_items
        self._note(*super().keys())
        return super().items()

    def __setitem__(self, key: str, value: object) -> None:
        self._written.add(key)
        super().__setitem__(key, value)

    def _note(self, *keys: Any) -> None:
        self.read.update(key for key in keys if key not in self._written)


def arguments_of(cls: type[Optimizer], optimizer: Optimizer) -> dict[str, Any]:
    """The arguments that build such an optimizer again, as far as its defaults tell."""
    accepted = arguments(cls)
    return copy.deepcopy({k: v for k, v in optimizer.defaults.items() if k in accepted})


def small(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Small tensors on the CPU, one for each number of axes."""
    return [_cut(tensor, _SIDE, "cpu") for tensor in _smallest(tensors)]


def true_to(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors like the smallest of each number of axes, on their devices, unless they are large."""
    return [
        _cut(t, int(_LARGE ** (1 / t.ndim)) if t.numel() > _LARGE else t.numel(), t.device)
        for t in _smallest(tensors)
    ]


def _cut(tensor: Tensor, side: int, device: str | torch.device) -> Tensor:
    """A tensor of the same shape, but for longer sides."""
    shape = [min(length, side) for length in tensor.shape]
    return torch.empty(shape, dtype=tensor.dtype, device=device)


def _smallest(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The smallest tensor of each number of axes, if there is one not an empty one."""
    largest_first = sorted(tensors, key=lambda tensor: tensor.numel() or math.inf, reverse=True)
    return list({tensor.ndim: tensor for tensor in largest_first}.values())


def try_settings(
    cls: type[Optimizer],
    settings: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    like: Sequence[Tensor],
) -> Trial:
    """Build an optimizer of groups of random tensors, like these in each, and let it step.

    Where processes train together it does not step: another process might not, and a step may
    wait for it.
    """
    source = torch.Generator("cpu").manual_seed(0)

    def noise(tensor: Tensor) -> Tensor:
        values = torch.randn(tensor.shape, generator=source, device="cpu")
        return values.to(tensor.device, tensor.dtype)

    recorded: list[Recorded] = []
    built = stepped = finite = moved = False
    error: Exception | None = None
    with undisturbed(), torch.compiler.set_stance("force_eager"):
        params = [nn.Parameter(noise(tensor)) for _ in groups for tensor in like]
        before = [param.detach().clone() for param in params]
        try:
            count = len(like)
            recorded = [
                Recorded({"params": params[start : start + count], **group})
                for start, group in zip(range(0, len(params), count), groups, strict=True)
            ]
            optimizer = cls(recorded, **copy.deepcopy(dict(settings)))
            built = True
            if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
                for position, copied in enumerate(optimizer.param_groups):
                    if not isinstance(copied, Recorded):
                        recorded.append(Recorded(copied))
                        optimizer.param_groups[position] = recorded[-1]
                _steps(optimizer, params, noise)
                stepped = True
                finite = all(bool(param.isfinite().all()) for param in params)
                moved = not all(map(torch.equal, params, before))
        except Exception as failure:  # noqa: BLE001 - anyone's optimizer
            error = failure
    read = frozenset().union(*(each.read for each in recorded))
    return Trial(read, built, stepped, finite, moved, error)


def _steps(optimizer: Optimizer, params: Sequence[nn.Parameter], noise: Any) -> None:  # noqa: ANN401
    """Some steps on random gradients, in the way that the optimizer wants them."""
    getattr(optimizer, "train", lambda: None)()  # schedule-free ones ask for it
    for _ in range(_STEPS):
        gradients = [noise(param) for param in params]

        def loss(gradients: Sequence[Tensor] = gradients, *, sparse: bool = False) -> Any:  # noqa: ANN401 - a float, or so
            for param, gradient in zip(params, gradients, strict=True):
                param.grad = gradient.to_sparse(1) if sparse else gradient.clone()
            return gradients[0].sum()

        _first_that_runs(
            lambda: (loss(), optimizer.step()),
            lambda: optimizer.step(loss),  # it may want to evaluate the loss
            lambda: (loss(sparse=True), optimizer.step()),
        )


def _first_that_runs(*ways: Callable[[], object]) -> None:
    """Do a thing in the first way that raises nothing; if all do, raise what the first did."""
    errors = []
    for way in ways:
        try:
            way()
        except Exception as error:  # noqa: BLE001 - anyone's optimizer
            errors.append(error)
        else:
            return
    raise errors[0]


def mentions(cls: type, key: str) -> bool:
    """Whether the code of an optimizer's class, or of one it derives from, has a word in it."""
    own = cls.__mro__[: cls.__mro__.index(Optimizer)] if issubclass(cls, Optimizer) else ()
    functions = [inspect.unwrap(value) for base in own for value in vars(base).values()
                 if inspect.isfunction(value)]  # fmt: skip
    return any(key in _words(function.__code__) for function in functions)


def _words(code: CodeType) -> set[str]:
    """The texts in a function and the functions in it."""
    words: set[str] = set()
    waiting: list[Any] = list(code.co_consts)
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            words.add(item)
        elif isinstance(item, CodeType):
            waiting += item.co_consts
        elif isinstance(item, tuple | frozenset):
            waiting += item
    return words
