"""State files: of a saved model names and shapes are read, which suffice for a plan."""

import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn

from nnlr._model.describe import describe
from nnlr._text import listed, nearest_hint, plural
from nnlr.depth._blocks.names import module_from_names
from nnlr.errors import NnlrError

_PICKLED: Final = {".pt", ".pth", ".bin", ".ckpt"}
SUFFIXES: Final = (".safetensors", *sorted(_PICKLED))

# The files of a folder that hold a model's state, the first there is.
_IN_FOLDER: Final = (
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "model.safetensors",
    "pytorch_model.bin",
)

# Where checkpoints keep the model, the most usual first.
_KEYS: Final = ("model", "state_dict", "model_state_dict", "module", "net", "network", "weights")

# Buffers of floating point, by the end of their names.
_BUFFERS: Final = re.compile(
    r"(.*\.)?(running_mean|running_var|num_batches_tracked|inv_freq|original_inv_freq"
    r"|position_ids|relative_position_index|relative_coords_table|attn_mask|causal_mask"
    r"|masked_bias|rope_freqs|pixel_mean|pixel_std|_extra_state)"
)

# Types of safetensors with a name of their own in torch.
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}


class State(NamedTuple):
    """A model made of names and shapes, and what to say of it."""

    model: nn.Module
    remarks: list[str]


def read(path: Path, key: str | None) -> State:
    """A model with the parameters of a state file; their values are not read.

    Args:
        path: The file, an index of shards, or a folder that holds either.
        key: Where in the file the model is; ``None`` looks for it.

    Raises:
        NnlrError: If the file holds no parameters, or cannot be read.
    """
    remarks: list[str] = []
    if path.is_dir():
        path = _file_in(path)
    if path.name.endswith(".index.json"):
        tensors: Mapping[str, Tensor] = _sharded(path)
    elif path.suffix == ".safetensors":
        tensors = _safetensors(path)
    elif path.suffix in _PICKLED:
        tensors = _chosen(_pickled(path), key, path, remarks)
    else:
        raise NnlrError(
            f"{str(path)!r} is no file that nnlr reads: these end in {', '.join(SUFFIXES)}.",
            value=str(path),
        )
    params = {name: t for name, t in tensors.items() if _is_parameter(name, t)}
    if not params:
        raise NnlrError(f"{str(path)!r} holds no parameters.", value=str(path))
    if nameless := [name for name in params if "" in name.split(".")]:
        raise NnlrError(
            f"{str(path)!r} holds names that no model has: {listed(map(repr, nameless), 3)}.",
            value=nameless,
        )
    buffers = [name for name in tensors if name not in params]
    if buffers:
        remarks.append(f"left out {plural(len(buffers), 'buffer')}: {listed(buffers, 2)}")
    order = ", and the order from numbers" if ".safetensors" in path.name else ""
    remarks.append(f"of {path.name} names and shapes are read: roles and depth follow{order}")
    config = path.with_name("config.json")
    if config.is_file():
        remarks.append(f"the model's own classes tell more: transformers:{config.parent}")
    return State(_skeleton(params, path.name), remarks)


def _skeleton(tensors: Mapping[str, Tensor], label: str) -> nn.Module:
    """A model with parameters of these names and shapes on the meta device, in their order."""
    info = describe(
        {
            name: nn.Parameter(torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"))
            for name, tensor in tensors.items()
        }
    )
    model = module_from_names(info)
    model.__class__ = type(label, (type(model),), {})
    tied: dict[object, nn.Parameter] = {}
    for param, tensor in zip(info.params, tensors.values(), strict=True):
        path, _, leaf = param.name.rpartition(".")
        # By the parts alone, as a part may be called like an attribute: training.weight.
        own = reduce(_part, path.split(".") if path else [], model)._parameters
        own[leaf] = tied.setdefault(_memory_of(tensor), cast("nn.Parameter", own[leaf]))
    return model


def _part(module: nn.Module, name: str) -> nn.Module:
    """A module right below another."""
    return cast("nn.Module", module._modules[name])


def _memory_of(tensor: Tensor) -> object:
    """What tensors share that are one; sparse ones have several storages, and share none."""
    if tensor.layout is not torch.strided:
        return id(tensor)
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape


def _is_parameter(name: str, tensor: Tensor) -> bool:
    """Whether a saved tensor can be trained, and is not known to be a buffer."""
    is_float = tensor.is_floating_point() or tensor.is_complex()
    is_mask = name.endswith(".attn.bias") and tensor.ndim == 4
    return is_float and not is_mask and _BUFFERS.fullmatch(name) is None


def _file_in(folder: Path) -> Path:
    """The state file of a folder."""
    names = {file.name for file in folder.iterdir()}
    for name in _IN_FOLDER:
        if name in names:
            return folder / name
    files = sorted(name for name in names if name.endswith(SUFFIXES))
    if len(files) == 1:
        return folder / files[0]
    there = f"It holds {listed(files)}: name one." if files else "It holds no state file."
    raise NnlrError(f"{str(folder)!r} is a folder. {there}", value=str(folder))


# --- safetensors ----------------------------------------------------------------------


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Empty tensors of the names and shapes in the header, in the order of their numbers.

    The format: 8 bytes that say how long the header is, and the header as JSON.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise NnlrError(f"{str(path)!r} is no safetensors file, or cut off.")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {
            name: torch.empty(
                facts["shape"], dtype=_DTYPES.get(facts["dtype"], torch.int8), device="meta"
            )
            for name, facts in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        if isinstance(error, NnlrError):
            raise
        raise NnlrError(f"{str(path)!r} is no safetensors file, or cut off.") from error
    return dict(sorted(tensors.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names by their numbers, as the file forgets the order of the model.

    Examples:
        >>> sorted(["h.10.w", "h.9.w"], key=_natural)
        ['h.9.w', 'h.10.w']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _sharded(path: Path) -> dict[str, Tensor]:
    """The tensors of all shards that an index lists."""
    try:
        where: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        shards = dict.fromkeys(map(str, where.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NnlrError(f"{str(path)!r} is no index of shards: it has no 'weight_map'.") from error
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        file = path.parent / shard
        if file.parent != path.parent or not file.is_file():
            raise NnlrError(f"{path.name} lists {shard!r}, which is not beside it.", value=shard)
        if file.suffix == ".safetensors":
            tensors |= _safetensors(file)
        else:
            tensors |= _chosen(_pickled(file), None, file, [])
    return dict(sorted(tensors.items(), key=lambda item: _natural(item[0])))


# --- torch.save -----------------------------------------------------------------------


class _Inert:
    """Stands for an object of a class that is not loaded, such as settings, or a whole model."""

    state: object = None

    def __init__(self, *args: object) -> None:
        """What made the object is not called."""

    def __setstate__(self, state: object) -> None:
        """Remember what the object has."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Leave out the items of a dict of another class."""

    def tensors(self) -> dict[str, Tensor]:
        """The parameters of a module, and of those in it; none of anything else."""
        facts = self.state if isinstance(self.state, dict) else {}
        tensors = {
            name: tensor
            for name, tensor in (facts.get("_parameters") or {}).items()
            if isinstance(tensor, Tensor)
        }
        for name, part in (facts.get("_modules") or {}).items():
            below = part.tensors() if isinstance(part, _Inert) else {}
            tensors |= {f"{name}.{leaf}": tensor for leaf, tensor in below.items()}
        return tensors


def _pickled(path: Path) -> object:
    """What torch.save wrote; no code in it is run, and values are mapped, not read."""
    names: list[str] = []
    try:
        if mapped := zipfile.is_zipfile(path):  # not before torch 1.6
            names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        # Whatever is no tensor becomes an empty object; what its class would do is not done.
        inert: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in names]
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        strangers = re.findall(r"GLOBAL ([\w.]+)", str(error)) or names
        if not strangers:
            raise NnlrError(f"{str(path)!r} is not what torch.save writes, or cut off.") from error
        raise NnlrError(
            f"{str(path)!r} holds more than tensors, such as {strangers[0]}, and to load that "
            "would run its code.\n"
            "  Fix: save the state alone, torch.save(model.state_dict(), path).",
            value=str(path),
        ) from error
    except Exception as error:  # a broken file makes torch raise anything
        raise NnlrError(f"{str(path)!r} is not what torch.save writes, or cut off.") from error


def _chosen(saved: object, key: str | None, path: Path, remarks: list[str]) -> Mapping[str, Tensor]:
    """The model's part of a checkpoint."""
    states = dict(_states(saved))
    if not states:
        raise NnlrError(f"{str(path)!r} holds no state of a model.", value=str(path))
    if key is not None:
        if key not in states:
            hint = nearest_hint(key, states) or f"It has: {listed(filter(None, states))}."
            raise NnlrError(f"{path.name} has no {key!r}. {hint}", value=key)
        return states[key]
    usual = [name for name in _KEYS if name in states]
    best = usual[0] if usual else max(states, key=lambda name: len(states[name]))
    if others := [name for name in states if name != best]:
        remarks.append(f"took {best!r}; --arg key=NAME takes another: {listed(others)}")
    return states[best]


def _states(
    value: object, path: str = "", above: tuple[object, ...] = ()
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors, with the keys that lead to it; none of an optimizer."""
    if isinstance(value, _Inert):
        if tensors := value.tensors():
            yield path, tensors
        return
    if not isinstance(value, Mapping) or {"param_groups", "state"} <= value.keys():
        return
    if any(value is other for other in above):  # a pickle can hold itself
        return
    tensors = {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
    if 2 * len(tensors) > len(value):
        yield path, tensors
        return
    for key, item in value.items():
        yield from _states(item, f"{path}.{key}".lstrip("."), (*above, value))
