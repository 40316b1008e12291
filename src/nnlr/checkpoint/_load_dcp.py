"""Load a distributed checkpoint into an optimizer with other groups or another number of ranks.

Torch's DCP reads into a state dict that must have the layout of the checkpoint, and a new plan
has another. Here the layout is read from the checkpoint itself.
"""

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nnlr._arguments import flag, text
from nnlr._text import listed, shown
from nnlr.checkpoint._fit import fitted
from nnlr.checkpoint._hook import Policy, hook_of
from nnlr.checkpoint._names import matched, names_of, pairs_of, require_names
from nnlr.checkpoint._on_load import check, mark
from nnlr.checkpoint._report import Report, warn_about
from nnlr.checkpoint._saved import read_named
from nnlr.checkpoint._tensors import replicated
from nnlr.errors import ConfigError, NnlrError

if TYPE_CHECKING:  # heavy, and missing from some builds of torch
    from torch.distributed import ProcessGroup
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.storage import StorageReader

Path = tuple[Any, ...]


def load_dcp(
    checkpoint: "str | os.PathLike[str] | StorageReader",
    optimizer: Optimizer,
    model: nn.Module,
    *,
    key: str | None = None,
    policy: Policy = "code",
    partial: bool = False,
    process_group: "ProcessGroup | None" = None,
) -> Report:
    """Load optimizer state from a distributed checkpoint into the optimizer's present groups.

    The checkpoint is one that ``torch.distributed.checkpoint.save`` wrote of what
    ``get_optimizer_state_dict`` gave, flattened or not, with any optimizer's groups, on any
    number of processes. Each process reads the shards that it holds, once. The model's
    weights and a schedule are loaded by torch itself, before or after.

    Args:
        checkpoint: Its directory, or a reader of it.
        optimizer: The optimizer, with or without state. It is changed when all is read.
        model: The model whose parameters it trains: plain, wrapped or sharded, and on its
            device.
        key: Under what the optimizer's part was saved, such as ``"optimizer"``; ``None``
            for the only such part.
        policy: Whose rates and multipliers count, as in :func:`fit_state`.
        partial: The model is one stage of it: parameters of other stages are passed over
            in silence.
        process_group: The processes that load together; all of them must call.

    Returns:
        The report on the loaded state, which :func:`last_report` returns too.

    Raises:
        ConfigError: If the checkpoint has no such part or several, no name fits, a group
            would need two values of one setting, or the model is on the meta device.
        NnlrError: If an argument is none of these.
        OSError, CheckpointException: If the directory or a file is missing or cannot be read;
            as with any other error, the optimizer is as it was.

    Examples:
        >>> import tempfile, torch, warnings
        >>> import torch.distributed.checkpoint as dcp
        >>> from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
        >>> net = torch.nn.Linear(2, 1)
        >>> old = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> net(torch.ones(2)).backward()
        >>> old.step()
        >>> path = tempfile.mkdtemp()
        >>> saved = {"optimizer": get_optimizer_state_dict(net, old)}
        >>> with warnings.catch_warnings(action="ignore"):  # that it is one process
        ...     _ = dcp.save(saved, checkpoint_id=path)
        >>> new = torch.optim.SGD(
        ...     [{"params": [pair]} for pair in net.named_parameters()], lr=0.1, momentum=0.9
        ... )
        >>> print(load_dcp(path, new, net))
        Optimizer state: 2 moved, 0 fresh, 0 unused.
    """
    check(optimizer, "load_dcp", policy)
    flag(partial, "partial")
    if key is not None:
        text(key, "key", "optimizer")
    tensors = _tensors(optimizer, model)
    from torch.distributed import get_rank, is_initialized
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.storage import StorageReader

    if not isinstance(checkpoint, StorageReader | str | os.PathLike) or checkpoint == "":
        raise NnlrError(
            f"checkpoint must be a directory or a reader of one, got {shown(checkpoint)}.",
            value=checkpoint,
        )
    is_path = not isinstance(checkpoint, StorageReader)
    reader: StorageReader = FileSystemReader(checkpoint) if is_path else checkpoint  # type: ignore[arg-type, assignment]
    paths, outline = _outline(reader.read_metadata(), key)

    def read(values: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            # Torch warns of one process without a process group; here that is fine.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(values, storage_reader=reader, process_group=process_group)

    # First read the settings; with the outline of the state they tell what goes where.
    settings = {
        name: value if value is None else torch.empty_like(value, device="cpu")
        for name, value in outline.items()
        if value is None or _is_setting(paths[name])
    }
    read(settings)
    outline |= settings
    nested = _nested({paths[name]: value for name, value in outline.items()})
    if "param_groups" in nested:
        nested.setdefault("state", {})  # SGD without momentum has no state
    saved = read_named(nested)
    names = names_of(optimizer, pairs_of(model))
    require_names(optimizer, names)
    if partial:
        saved = saved.only(matched(saved.names, names.id_of))
    state_dict, report = fitted(saved, optimizer, names, policy, whole=True)
    buffers: dict[str, Any] = {}  # to read into, by the checkpoint's keys
    key_of = {id(value): name for name, value in outline.items()}

    def allocated(value: Any, tensor: Tensor | None) -> Any:  # noqa: ANN401 - any state
        """Return state with a buffer in place of each empty tensor."""
        if isinstance(value, Tensor) and id(value) in key_of:
            buffer = buffers[key_of[id(value)]] = _buffer(value, tensor)
            return buffer
        if isinstance(value, Mapping):
            return {key: allocated(inner, tensor) for key, inner in value.items()}
        if isinstance(value, list):
            return [allocated(inner, tensor) for inner in value]
        return value

    state_dict["state"] = {
        index: allocated(value, tensors[index] if isinstance(index, int) else None)
        for index, value in state_dict["state"].items()
    }
    read(buffers)
    mark(state_dict, optimizer)
    optimizer.load_state_dict(state_dict)
    hook = hook_of(optimizer)
    if hook is not None:
        hook.report = report
    # The report is the same in all processes, except in the stages of a pipeline.
    if partial or not is_initialized() or get_rank(process_group) == 0:
        warn_about(report)
    return report


def _tensors(optimizer: Optimizer, model: object) -> list[Tensor]:
    """The tensors of an optimizer, or refuse those that nothing can be loaded for."""
    if not isinstance(model, nn.Module):
        raise NnlrError(f"load_dcp needs the model, got {shown(model)}.")
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if any(tensor.is_meta for tensor in tensors):
        raise ConfigError(
            "The model is on the meta device, where nothing can be loaded. Materialise it "
            "first: model.to_empty(device=...)."
        )
    return tensors


def _outline(
    metadata: "Metadata", key: str | None
) -> tuple[dict[str, Path], dict[str, Tensor | None]]:
    """Return what the optimizer's part of a checkpoint holds, by the checkpoint's keys.

    The path of each value within that part, and an empty tensor on the meta device, or
    ``None`` for what is no tensor.
    """
    # The way to each value, where nested dictionaries were saved; DCP joins it to one key.
    nested_paths = metadata.planner_data or {}
    split = {name: _split(nested_paths.get(name, (name,))) for name in metadata.state_dict_metadata}
    parts = {".".join(above): None for above, within in split.values() if _is_setting(within)}
    if key is None and len(parts) == 1:
        key = next(iter(parts))
    if key not in parts:
        choices = f"it has {listed(map(repr, parts))}: pass key=" if parts else "it has none"
        raise ConfigError(
            "The checkpoint has no state of an optimizer "
            f"{'that is the only one' if key is None else f'under {key!r}'}; {choices}. What "
            "get_optimizer_state_dict gives is looked for, with its 'param_groups'.",
            keys=list(parts),
        )
    paths: dict[str, Path] = {}
    outline: dict[str, Tensor | None] = {}
    for name, (above, within) in split.items():
        if within and ".".join(above) == key:
            paths[name] = within
            stored: Any = metadata.state_dict_metadata[name]
            outline[name] = None
            if getattr(stored, "size", None) is not None:
                dtype = stored.properties.dtype
                outline[name] = torch.empty(stored.size, dtype=dtype, device="meta")
    return paths, outline


def _split(path: Path) -> tuple[Path, Path]:
    """Split a path into that to the optimizer's part, and that within it (empty elsewhere)."""
    for at, step in enumerate(path):
        if str(step).partition(".")[0] in {"state", "param_groups"}:
            return tuple(map(str, path[:at])), path[at:]
    return tuple(map(str, path)), ()


def _is_setting(path: Path) -> bool:
    """Whether a path within the optimizer's part leads to a setting of a group."""
    return bool(path) and str(path[0]).partition(".")[0] == "param_groups"


def _nested(values: Mapping[Path, Any]) -> Any:  # noqa: ANN401 - a dict, a list or a value
    """Return nested dictionaries, and lists where the steps of paths are numbers."""
    if () in values:
        return values[()]
    parts: dict[Any, dict[Path, Any]] = {}
    for path, value in values.items():
        parts.setdefault(path[0], {})[path[1:]] = value
    built = {step: _nested(inner) for step, inner in parts.items()}
    if all(isinstance(step, int) for step in built):
        return [built[step] for step in sorted(built)]
    return built


def _buffer(empty: Tensor, tensor: Tensor | None) -> Tensor:
    """Return a tensor to read saved state of a parameter into, sharded like the parameter."""
    if tensor is None or empty.ndim == 0:  # step counters are the same everywhere
        return torch.empty_like(empty, device="cpu")
    if empty.shape == tensor.shape:
        return torch.empty_like(tensor.detach(), dtype=empty.dtype)
    buffer = torch.empty_like(empty, device=tensor.device)
    # Factors of a matrix have no axis of their own to be sharded along.
    return replicated(buffer, getattr(tensor, "device_mesh", None))  # type: ignore[no-any-return]
