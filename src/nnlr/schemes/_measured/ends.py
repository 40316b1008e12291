"""What published schemes do not move: first and last layer, embeddings, heads, batch norms."""

from collections.abc import Iterable

from torch.nn.modules.batchnorm import _BatchNorm

from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._model.describe import ModelInfo
from nnlr._select.selectors import module_type
from nnlr.schemes._measured.spectrum import SPECTRAL

Fixed = dict[int, Factor]


def ends(model: ModelInfo, *, first: bool, last: bool) -> Fixed:
    """The parameters of the first layer of the model that has weights, and of its last.

    An embedding is a first layer. The last is what gives the outputs, several heads too, or the
    embedding that does; else the last of all.
    """
    layers = [at for at, p in enumerate(model.params) if p.role in SPECTRAL or _looks_up(model, at)]
    if not layers:
        return {}
    outputs = [at for at in layers if model.params[at].role == "head"]
    tied = [at for at in layers if _looks_up(model, at) and model.params[at].aliases]
    chosen = [layers[0]] * first + (outputs or tied or layers[-1:]) * last
    return dict.fromkeys(_with_their_modules(model, chosen), NEUTRAL)


def embeddings_and_heads(model: ModelInfo, mult: float) -> Fixed:
    """The parameters of embeddings and output layers, with a multiplier of their own."""
    chosen = [at for at, p in enumerate(model.params) if p.role in {"embedding", "head"}]
    factor = Factor(lr_mult=mult, why="an embedding or a head")
    return dict.fromkeys(_with_their_modules(model, chosen), factor)


def locked_batch_norms(model: ModelInfo) -> Fixed:
    """The parameters of batch norms, which are not trained."""
    locked = Factor(lr_mult=0.0, why="a batch norm, which the reference does not train")
    return dict.fromkeys(module_type(_BatchNorm).matches(model), locked)


def _looks_up(model: ModelInfo, index: int) -> bool:
    """Whether a parameter is an embedding."""
    return model.params[index].role == "embedding"


def _with_their_modules(model: ModelInfo, chosen: Iterable[int]) -> list[int]:
    """Everything that belongs to the modules of some parameters."""
    owners = {model.params[index].owner for index in chosen}
    return [index for index, param in enumerate(model.params) if param.owner in owners]
