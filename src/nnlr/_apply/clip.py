"""Clip gradients of which some are sharded and some are not."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from nnlr._arguments import flag, is_listing, number
from nnlr._text import shown
from nnlr.checkpoint._tensors import replicated
from nnlr.errors import NnlrError


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """``torch.nn.utils.clip_grad_norm_`` for parameters on any mixture of device meshes.

    Torch's own raises where some parameters are sharded (``fully_shard``, tensor parallelism)
    and others are plain, or are sharded over another mesh. Here the norm of each kind is
    taken, the norms are combined, and all gradients are scaled by one factor. On a model of
    one kind it does what torch's does. Call it in every process. A plain parameter counts
    once, so its gradient must be the same in every process before, as it must be for training.

    Args:
        parameters: Tensors with gradients; those without are passed over.
        max_norm: The largest norm that is left, >= 0; infinite to measure the norm only.
        norm_type: The p of the norm, > 0; ``float("inf")`` for the largest element.
        error_if_nonfinite: Raise if the norm is NaN or infinite, before anything is scaled.
        foreach: As in torch.

    Returns:
        The norm of all gradients before clipping, a plain 0-dim tensor.

    Raises:
        NnlrError: If an argument is none of these.
        RuntimeError: If the norm is not finite and ``error_if_nonfinite`` is set.

    Examples:
        >>> import nnlr, torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> nnlr.clip_grad_norm_([weight], 1.0)
        tensor(5.)
        >>> weight.grad
        tensor([0.6000, 0.8000])
    """
    tensors = _tensors(parameters)
    most = number(max_norm, "max_norm", infinite=True)
    p = number(norm_type, "norm_type", above=0, infinite=True)
    flag(error_if_nonfinite, "error_if_nonfinite")
    if foreach is not None:
        flag(foreach, "foreach")
    by_mesh: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.grad is not None:
            mesh = getattr(tensor.grad, "device_mesh", None)
            by_mesh.setdefault(mesh, []).append(tensor)
    norms = []
    for members in by_mesh.values():
        grads = [tensor.grad for tensor in members if tensor.grad is not None]
        norm = get_total_norm(grads, p, foreach=foreach)
        norms.append(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    total = norms[0] if len(norms) == 1 else get_total_norm(norms, p)
    if error_if_nonfinite and not total.isfinite():
        raise RuntimeError(
            f"The norm of the gradients is {total.item()}, so they cannot be clipped; they "
            "are as they were. Pass error_if_nonfinite=False to scale them all the same."
        )
    for mesh, members in by_mesh.items():
        # Torch does not scale shards by a plain tensor.
        clip_grads_with_norm_(members, most, replicated(total, mesh), foreach)
    return total


def _tensors(parameters: object) -> list[Tensor]:
    """The tensors, or refuse what holds something else."""
    if isinstance(parameters, Tensor):
        return [parameters]
    use = "Pass model.parameters()."
    if not is_listing(parameters) or isinstance(parameters, Mapping):
        raise NnlrError(
            f"parameters must be a tensor or a list of tensors, got {shown(parameters)}. {use}",
            value=parameters,
        )
    tensors = list(parameters)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise NnlrError(
                f"parameters must hold tensors only, and holds {shown(tensor)}. {use}",
                value=tensor,
            )
    return tensors
