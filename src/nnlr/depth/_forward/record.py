"""One forward, watched: which parameters had reached the data that each one first meets.

Every tensor has a *trail*: whether an input reaches it, and which parameters do, one bit
each. Where data meets tensors that are made of parameters alone, these parameters enter, with
what had flowed into the data until then. So a class token is where it joins the patches, and
both parts of a weight norm are where the weight is used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import FunctionType
from typing import Any, Final, NamedTuple

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from nnlr._model.describe import ModelInfo
from nnlr._model.names import wrapped_attrs
from nnlr.depth._forward.run import (
    Storages,
    WithoutValues,
    WithValues,
    forget_frames,
    tensors_in,
    untouched,
)
from nnlr.errors import NnlrError


class Trail(NamedTuple):
    """What has flowed into a tensor."""

    data: bool = False  # whether an input reaches it
    flow: int = 0  # the parameters that do, as bits; 0 after detach and in whole numbers
    touched: int = 0  # the same without these two cuts

    def __or__(self, other: "Trail") -> "Trail":
        """What has flowed into both."""
        return Trail(self.data or other.data, self.flow | other.flow, self.touched | other.touched)


# Of a tensor that comes from outside and is not the model's.
_INPUT: Final = Trail(data=True)

# Objects that are looked through for tensors.
_MANY: Final = 10_000


@dataclass(frozen=True)
class Recording:
    """What one forward has shown."""

    before: dict[int, int]  # of each parameter that was used: those before it, as bits
    touched: int  # the parameters that reach an output
    real: str = ""  # why it had to be run with values, if that was tried without
    training: bool = False  # whether it was run in train mode


def record(
    model: ModelInfo, call: Callable[[nn.Module], object], example: object, *, fake: bool | None
) -> Recording:
    """Run one forward and watch it.

    Args:
        model: The described model.
        call: Runs the forward of a module.
        example: What the forward is given, to see which tensors are its inputs.
        fake: Whether to run it without values; ``None`` tries that first.
    """
    module = _runnable(model)
    if model.module is None or module is None:
        raise NnlrError(
            f"nnlr.depth.flow runs the model, and {model.label} have none. Pass the model itself.",
            label=model.label,
        )
    for places in model.places:
        if hasattr(places[0].tensor, "device_mesh"):
            raise NnlrError(
                f"nnlr.depth.flow cannot run a sharded model, and {places[0].name!r} is sharded. "
                "Resolve before sharding; the plan's optimizer can be built after it."
            )
    on_meta = any(places[0].tensor.is_meta for places in model.places)
    if fake is False and on_meta:
        raise NnlrError(
            "fake=False runs the forward with values, and the model is on the meta device, "
            "where there are none. Leave fake out, or load the weights first."
        )
    real = ""
    if fake is not False:
        outcome = _watched(model, module, call, example, fake=True)
        if isinstance(outcome, Recording):
            return outcome
        if fake or on_meta:
            raise outcome
        real = f"{type(outcome).__name__}: {str(outcome).partition(chr(10))[0]}"
    outcome = _watched(model, module, call, example, fake=False)
    if isinstance(outcome, Exception):
        raise outcome
    return replace(outcome, real=real)


def _runnable(model: ModelInfo) -> nn.Module | None:
    """The model without wrappers that talk to other processes, or compile."""
    module = model.module
    while module is not None:
        cls: type = type(module)
        attrs = wrapped_attrs(cls) & {"module", "_orig_mod"}
        if not attrs:
            break
        module = module._modules[min(attrs)]
    return module


def _watched(
    model: ModelInfo,
    module: nn.Module,
    call: Callable[[nn.Module], object],
    example: object,
    *,
    fake: bool,
) -> Recording | Exception:
    """What a forward shows, or the exception that it raised."""
    run = WithoutValues(module) if fake else WithValues(module)
    has_inputs = any(True for _ in tensors_of(example))
    recorder = Recorder(model, module, run, has_inputs=has_inputs)
    try:
        with untouched(module):
            run.enter(module)
            with recorder:
                outputs = call(module)
            touched = recorder.touched_by(outputs)
            del outputs
    except Exception as error:  # noqa: BLE001 - whatever a user's model raises
        forget_frames(error)
        return error
    else:
        return Recording(recorder.before, touched, training=module.training)
    finally:
        run.close()


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the trail of every tensor in a forward."""

    supports_higher_order_operators = True  # to refuse them in our own words

    def __init__(
        self,
        model: ModelInfo,
        module: nn.Module,
        run: WithValues | WithoutValues,
        *,
        has_inputs: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.before: dict[int, int] = {}
        self._entered = 0
        self._run = run
        # What is made of nothing; without any input it is where data begins.
        self._constant = Trail(data=not has_inputs)
        self._trails = WeakIdKeyDictionary()
        # Of storages that were written into: what into any part, and what into all of it.
        self._written: dict[int, tuple[Trail, Trail]] = {}
        self._pins = Storages()  # so that no other storage gets their keys
        self._params = params = [run.stand_in(places[0].tensor) for places in model.places]
        for tensor in _constants(module):
            self._trails[run.stand_in(tensor)] = Trail()
        for at, tensor in enumerate(params):
            self._trails[tensor] = Trail(False, 1 << at, 1 << at)

    def __torch_dispatch__(
        self,
        func: object,
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run an operation, and note what flows into its results."""
        if not isinstance(func, OpOverload):
            raise NnlrError(
                f"nnlr.depth.flow cannot look into {func}, an operation that is given functions "
                "(torch.cond, flex_attention). Switch it off for this forward, or say which "
                "layer is which with a mapping of patterns."
            )
        kwargs = kwargs or {}
        tensors = list(tensors_in([*args, *kwargs.values()]))
        written = list(_written(func, args, kwargs)) if func._schema.is_mutable else []
        trail = self._meeting(tensors)
        if not tensors or _is_valueless(func._schema.name):
            trail = self._constant
        result = self._run(func, args, kwargs, tensors, written)
        if trail.data and func._schema.name in {"aten::detach", "aten::detach_"}:
            trail = trail._replace(flow=0)
        for tensor in written:
            self._write(tensor, trail)
        for tensor in tensors_in(result):
            if not any(tensor is other for other in written):
                self._trails[tensor] = _as_of(tensor, trail)
        return result

    def _meeting(self, tensors: Iterable[Tensor]) -> Trail:
        """The trails of several tensors together; parameters that meet data enter."""
        trails = [self._trail(tensor) for tensor in tensors]
        data = Trail()
        others = Trail()
        for trail in trails:
            if trail.data:
                data |= trail
            else:
                others |= trail
        new = others.flow & ~self._entered if data.data else 0
        self._entered |= new
        while new:
            lowest = new & -new
            self.before[lowest.bit_length() - 1] = data.flow
            new ^= lowest
        return data | others

    def _trail(self, tensor: Tensor) -> Trail:
        trail: Trail = self._trails.get(tensor, _INPUT)  # type: ignore[no-untyped-call]
        if self._written and (key := self._run.key(tensor)) in self._written:
            part, whole = self._written[key]
            trail |= part if _covers(tensor) else whole
        return trail

    def _write(self, tensor: Tensor, trail: Trail) -> None:
        """Note what was written into a tensor, for all that share its memory."""
        key = self._run.key(tensor)
        if key in self._storages_of_params:
            return
        trail = _as_of(tensor, trail)
        self._trails[tensor] = trail
        if key is None:
            return
        self._pins.add(tensor)
        part, whole = self._written.get(key, (Trail(), Trail()))
        self._written[key] = part | trail, whole | trail if _covers(tensor) else whole

    @cached_property
    def _storages_of_params(self) -> set[int | None]:
        return {self._run.key(tensor) for tensor in self._params}

    def touched_by(self, outputs: object) -> int:
        """The parameters that reach the outputs of the forward."""
        touched = 0
        for tensor in tensors_of(outputs):
            touched |= self._trail(tensor).touched
        return touched


def _written(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operation writes into."""
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            yield from tensors_in(value)


def _is_valueless(name: str) -> bool:
    """Whether the results of an operation hold no values of its arguments."""
    return name.endswith("_like") or name.startswith(("aten::new_", "aten::lift_fresh"))


def _as_of(tensor: Tensor, trail: Trail) -> Trail:
    """The trail of a tensor: nothing flows through whole numbers."""
    differentiable = tensor.is_floating_point() or tensor.is_complex()
    return trail if differentiable else trail._replace(flow=0)


def _covers(tensor: Tensor) -> bool:
    """Whether a tensor takes up the whole of its storage."""
    return bool(tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes())


def _constants(module: nn.Module) -> Iterator[Tensor]:
    """Buffers, and tensors in plain attributes of modules."""
    for part in module.modules():
        for name, value in vars(part).items():
            if name != "_parameters":
                yield from tensors_in(list(value.values()) if isinstance(value, dict) else value)


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors in anything that a forward takes or gives, or that a function refers to."""
    stack: list[object] = [value]
    seen: set[int] = set()
    while stack and len(seen) < _MANY:
        item = stack.pop()
        if id(item) in seen or isinstance(item, nn.Module | type | str | bytes | int | float):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
        elif isinstance(item, FunctionType):
            stack.extend(cell.cell_contents for cell in item.__closure__ or ())
        elif hasattr(item, "__dict__"):
            stack.extend(vars(item).values())
