"""The way back from a plan to the model that it was made for, which it must not keep alive."""

import weakref
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from nnlr._model.describe import ModelInfo
from nnlr._model.names import Source, inside_ddp, unwrapping
from nnlr.errors import NnlrError

Reference = Callable[[], Source | None]


def unknown() -> None:
    """The reference of a plan that remembers no model: it was loaded or copied."""


def reference_to(model: Source, info: ModelInfo) -> Reference:
    """A weak reference to the model, or to each of its tensors if they came without a module."""
    if isinstance(model, nn.Module):
        # A compile wrapper is often a temporary; what it wraps is not. DDP has to be seen,
        # and so has a wrapper with parameters of its own, such as PEFT's prompts.
        target, *inside = unwrapping(model)
        for module in inside:
            has_all = len(list(module.parameters())) == len(info.params)
            if has_all and inside_ddp(module) == inside_ddp(model):
                target = module
        return weakref.ref(target)
    references = {places[0].name: weakref.ref(places[0].tensor) for places in info.places}

    def tensors() -> Mapping[str, Tensor] | None:
        alive = {name: tensor for name, ref in references.items() if (tensor := ref()) is not None}
        return alive if len(alive) == len(references) else None

    return tensors


def model_of(reference: Reference, label: str) -> Source:
    """The model behind a reference; an error if there is none (any more)."""
    if reference is unknown:
        raise NnlrError("This plan was loaded or copied and remembers no model: pass model=.")
    model = reference()
    if model is None:
        raise NnlrError(f"The model this plan was made for ({label}) is gone: pass model=.")
    return model
