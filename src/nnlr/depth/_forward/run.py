"""How the operations of one watched forward are run, and everything put back afterwards.

Without values where that can be done: shapes are enough to see what flows where. What is
computed from small constants and inputs alone keeps its values, as models look at these
(`ids.max().item()`). With values, what an operation writes into is saved before.
"""

import gc
import logging
import random
import sys
import traceback
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from inspect import isframe
from types import FunctionType, ModuleType
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakIdKeyDictionary

from nnlr._text import listed, plural
from nnlr.errors import NnlrError

# Elements up to which a result of constants and inputs is computed.
_SMALL: Final = 2**16

# Reads of a value, which a parameter that has values answers too.
_READS: Final = ("aten::_local_scalar_dense", "aten::equal")

Container = dict[Any, Any] | list[Any] | set[Any] | deque[Any]
_OPAQUE: Final = (nn.Module, Tensor, type, ModuleType, FunctionType)
_MANY: Final = 1000  # containers that are looked for in one attribute
_CONTAINERS: Final = (dict, list, set, OrderedDict, defaultdict, deque)


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors in the arguments or the results of an operation."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def storage_key(tensor: Tensor) -> int | None:
    """A number that all tensors with the memory of this one share; ``None`` if it has none."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # sparse and nested tensors
        return None


class Storages:
    """A set of storages that stays true when some of them are freed."""

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._pins: dict[int, StorageWeakRef] = {}
        for tensor in tensors:
            self.add(tensor)

    def add(self, tensor: Tensor) -> None:
        """Add the storage of a tensor."""
        key = storage_key(tensor)
        if key is not None and key not in self._pins:  # the weak reference keeps the address
            self._pins[key] = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether the memory of a tensor is among them."""
        return storage_key(tensor) in self._pins


class WithValues:
    """Runs operations as they are; what they write into can be restored."""

    def __init__(self, module: nn.Module) -> None:
        self._made = Storages()
        self._saved = Storages()
        self._copies: list[tuple[Any, Any]] = []
        for buffer in module.buffers():  # batch norms write without a declaration
            self._save(buffer)

    def _save(self, tensor: Tensor) -> None:
        if tensor not in self._saved and storage_key(tensor) is not None:
            self._saved.add(tensor)
            storage = tensor.untyped_storage()
            self._copies.append((storage, storage.clone()))  # type: ignore[no-untyped-call]

    def __call__(
        self,
        operation: OpOverload,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: Sequence[Tensor],
        written: Sequence[Tensor],
    ) -> object:
        """Run one operation."""
        for tensor in written:
            if tensor not in self._made:
                self._save(tensor)
        result = operation(*args, **kwargs)
        shared = Storages(tensors_in([*args, *kwargs.values()]))
        for tensor in tensors_in(result):
            if tensor not in shared:
                self._made.add(tensor)
        return result

    key = staticmethod(storage_key)

    def stand_in(self, tensor: Tensor) -> Tensor:
        """The tensor that the model sees in place of one of its own."""
        return tensor

    def enter(self, module: nn.Module) -> None:
        """Prepare the model: nothing has to be done."""

    def close(self) -> None:
        """Restore what was written into."""
        for storage, copy in self._copies:
            storage.copy_(copy)


class WithoutValues:
    """Runs operations on fake tensors, and those on small constants and inputs as they are."""

    def __init__(self, module: nn.Module) -> None:
        from torch._subclasses import fake_tensor

        self._fake = fake_tensor
        self._mode = fake_tensor.FakeTensorMode()
        self._fakes: WeakIdKeyDictionary = WeakIdKeyDictionary()  # of real tensors
        buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        weights = [*module.parameters(), *buffers]
        self._weights = {id(tensor) for tensor in weights}
        devices = (tensor.device for tensor in weights if not tensor.is_meta)
        # Where tensors on meta are taken to be.
        self._device = next(devices, torch.device("cpu"))
        self._results: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._made = Storages()  # of tensors with values
        self._stale = Storages()  # whose values are not those that the model sees

    def __call__(
        self,
        operation: OpOverload,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: Sequence[Tensor],
        written: Sequence[Tensor],
    ) -> object:
        """Run one operation."""
        if getattr(kwargs.get("device"), "type", "") == "meta":
            kwargs = {**kwargs, "device": self._device}
        has_values = self._have_values(operation, tensors, written)
        try:
            result = self._without(operation, args, kwargs)
        except (self._fake.DataDependentOutputException, self._fake.DynamicOutputShapeException):
            if not has_values:
                raise
        else:
            if not has_values or any(tensor.numel() > _SMALL for tensor in tensors_in(result)):
                for tensor in written:
                    if not self._is_fake(tensor):
                        self._stale.add(tensor)
                return result
        result = operation(*args, **kwargs)
        for tensor in tensors_in(result):
            self._made.add(tensor)
        return result

    def _is_fake(self, tensor: Tensor) -> bool:
        return isinstance(tensor, self._fake.FakeTensor)

    def _have_values(
        self, operation: OpOverload, tensors: Sequence[Tensor], written: Sequence[Tensor]
    ) -> bool:
        """Whether the values of these tensors are there, and may be worked with."""
        reads = operation._schema.name in _READS
        return all(
            not self._is_fake(tensor)
            and not tensor.is_meta
            and tensor not in self._stale
            and (reads or (id(tensor) not in self._weights and tensor.numel() <= _SMALL))
            for tensor in tensors
        ) and all(tensor in self._made for tensor in written)

    def _without(
        self, operation: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> object:
        faked = [self._faked(value) for value in args]
        by_name = {name: self._faked(value) for name, value in kwargs.items()}
        with self._mode:
            result = operation(*faked, **by_name)
        for tensor in tensors_in(result):
            self._results[tensor] = None
        return result

    def _faked(self, value: object) -> object:
        """The same argument with fake tensors in place of real ones."""
        if isinstance(value, Tensor):
            if self._is_fake(value):
                return value
            if value not in self._fakes:
                self._fakes[value] = self._new_fake(value)
            return self._fakes[value]
        if isinstance(value, list | tuple):
            return type(value)(map(self._faked, value))
        return value

    def _new_fake(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            fake: Any = self._fake.FakeTensor(self._mode, tensor.detach(), self._device)
            fake._is_param = isinstance(tensor, nn.Parameter)
            return cast(Tensor, fake)
        return self._mode.from_tensor(tensor, static_shapes=True)

    def stand_in(self, tensor: Tensor) -> Tensor:
        """The tensor that the model sees in place of one of its own: none is on meta."""
        return cast(Tensor, self._faked(tensor)) if tensor.is_meta else tensor

    def enter(self, module: nn.Module) -> None:
        """Put these tensors into the attributes of the model; ``untouched`` takes them out."""
        for part in module.modules():
            for container in containers_in(vars(part)):
                if isinstance(container, dict):
                    pairs = list(container.items())
                elif isinstance(container, list):
                    pairs = list(enumerate(container))
                else:
                    continue
                for key, value in pairs:
                    if isinstance(value, Tensor) and value.is_meta:
                        container[key] = self.stand_in(value)

    def key(self, tensor: Tensor) -> int | None:
        """The key of the storage that a tensor stands for."""
        return storage_key(cast(Tensor, self._faked(tensor)))

    def close(self) -> None:
        """Refuse tensors without values that something still holds for the next forward.

        Raises:
            NnlrError: If there are any; caches of functions are emptied first.
        """
        self._fakes.clear()
        self._mode = self._fake.FakeTensorMode()  # the old one remembers the tensors it made
        if len(self._results):
            gc.collect()
        _empty_caches(self._results)
        if not len(self._results):
            return
        tensor = next(iter(self._results))
        holders = [holder for holder in gc.get_referrers(tensor) if not isframe(holder)]
        classes = dict.fromkeys(type(holder).__name__ for holder in holders)
        raise NnlrError(
            f"The forward of nnlr.depth.flow left {plural(len(self._results), 'tensor')} without "
            f"values behind, one of shape {tuple(tensor.shape)} in: {listed(classes)}. The model "
            "keeps tensors outside of its modules, and its next forward may use them.\n"
            "  In a new process, run it with values: nnlr.depth.flow(..., fake=False)."
        )


def _empty_caches(tensors: WeakIdKeyDictionary) -> None:
    """Empty the caches of functions (``functools.cache``) that hold one of these tensors."""
    for tensor in list(tensors):
        for holder in gc.get_referrers(tensor):
            outer = gc.get_referrers(holder) if isinstance(holder, dict) else ()
            for function in (holder, *outer):
                if hasattr(function, "cache_clear"):
                    function.cache_clear()


def forget_frames(error: BaseException) -> None:
    """Drop the local variables of the frames that an exception came through."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Run a forward in the mode the modules are in, and put attributes and random states back."""
    before = [(part, dict(vars(part))) for part in module.modules()]
    containers = {
        id(container): (container, container.copy())
        for _, attributes in before
        for value in attributes.values()
        for container in containers_in(value)
    }
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    python_state = random.getstate()
    cuda = {tensor.device for tensor in module.parameters() if tensor.is_cuda}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(sorted(device.index for device in cuda)))
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(_layer_by_layer())
        stack.enter_context(_quiet())
        if sys.modules.get("torch._dynamo"):  # without it nothing is compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            yield
        finally:
            for part, attributes in before:
                now = vars(part)
                for name in now.keys() - attributes.keys():
                    del now[name]
                now.update(attributes)
            for container, items in containers.values():
                _refill(container, items)
            random.setstate(python_state)
            if numpy:
                numpy.random.set_state(numpy_state)


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Switch off what joins layers to one operation, and what keeps casted weights."""
    cudnn, attention = torch.backends.cudnn.enabled, torch.backends.mha.get_fastpath_enabled()
    cached = torch.is_autocast_cache_enabled()
    torch.backends.cudnn.enabled = False
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = cudnn
        torch.backends.mha.set_fastpath_enabled(attention)
        torch.set_autocast_cache_enabled(cached)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch logs of an operation that cannot do without values."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = disabled


def containers_in(value: object) -> Iterator[Container]:
    """The dictionaries, lists and sets in an attribute, those in others and in objects too."""
    stack, seen = [value], set[int]()
    while stack and len(seen) < _MANY:
        item = stack.pop()
        if type(item) not in _CONTAINERS:
            if isinstance(item, _OPAQUE) or not hasattr(item, "__dict__"):
                continue
            item = vars(item)
        if id(item) in seen:
            continue
        seen.add(id(item))
        container = cast(Container, item)
        yield container
        stack.extend(container.values() if isinstance(container, dict) else container)


def _refill(container: Container, items: Container) -> None:
    """Give a container back what was in it, if that has changed."""
    pairs = zip(
        *(part.values() if isinstance(part, dict) else part for part in (container, items)),
        strict=False,
    )
    if len(container) == len(items) and all(now is then for now, then in pairs):
        return
    container.clear()
    if isinstance(container, list | deque):
        container.extend(items)
    else:
        container.update(items)
