"""Measure what the modules of a model return: how large it is, and how much it changed."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from nnlr._text import listed, nearest_hint
from nnlr.errors import NnlrError, PatternError

# How the output of the whole model is called, where no module of it returned the same.
WHOLE: Final = "(model)"


def matching_modules(model: nn.Module, patterns: tuple[str, ...] | None) -> dict[str, nn.Module]:
    """The modules to watch, by name."""
    named = {name or WHOLE: module for name, module in model.named_modules()}
    if patterns is None:
        return named
    matching: set[str] = set()
    for pattern in patterns:
        names = {name for name in named if fnmatchcase(name, pattern)}
        if not names:
            raise PatternError(
                f"modules: {pattern!r} matches no module of {type(model).__name__} "
                f"({listed(named)}). {nearest_hint(pattern, named)}".rstrip(),
                pattern=pattern,
            )
        matching |= names
    return {name: module for name, module in named.items() if name in matching}


@contextmanager
def watching(
    modules: Mapping[str, nn.Module], first: dict[str, list[Tensor]]
) -> Iterator[dict[str, list[tuple[float, float]]]]:
    """Collect size and change of every output; the first pass fills ``first`` with outputs."""
    measured: dict[str, list[tuple[float, float]]] = {}
    last: list[tuple[Tensor, int]] = []
    filling = not first

    def record(name: str, x: Tensor) -> None:
        if last and last[0][0] is x and last[0][1] == x._version:
            return  # a container that returns what its last module did
        last[:] = [(x, x._version)]
        calls = measured.setdefault(name, [])
        if filling:
            first.setdefault(name, []).append(x.detach().clone())
        before = first.get(name, [])[len(calls) : len(calls) + 1]
        if not before or before[0].shape != x.shape:
            raise NnlrError(
                f"The output of {name} has not the shape that it had at initialisation: "
                "loss must run the model on the same batch at every call.",
                module=name,
            )
        calls.append((_mean(x), _mean(x.detach() - before[0])))

    def look(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        for part, x in _tensors(name, output):
            record(part, x)

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(partial(look, name)))
        yield measured


def _tensors(name: str, output: object) -> Iterator[tuple[str, Tensor]]:
    """The activations in what a module returned; a single number does not count."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.dim() and output.numel():
            yield name, output
    elif isinstance(output, Mapping):
        for key, part in output.items():
            yield from _tensors(f"{name}[{key}]", part)
    elif isinstance(output, list | tuple):
        for index, part in enumerate(output):
            yield from _tensors(f"{name}[{index}]", part)


def _mean(x: Tensor) -> float:
    """The mean absolute value."""
    if x.is_meta:
        raise NnlrError("A model on the meta device has no values to measure: build it on another.")
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.detach().abs().mean(dtype=wide).item()
