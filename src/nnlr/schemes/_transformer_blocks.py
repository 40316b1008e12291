"""The kind of block that each parameter of a transformer is in, by role, name and place.

Norms, embeddings and output layers are known by their roles. The projections of an attention
are told apart by their names, by :data:`PROJECTIONS`; feed-forward is what is called so, or
stands beside an attention in the same numbered block. Nothing else is guessed.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Final, Literal, NamedTuple, get_args

from nnlr._model.describe import ModelInfo, ParamInfo

Block = Literal["embedding", "position", "qk", "vo", "fused", "ffn", "norm", "head", "other"]

BLOCKS: Final[tuple[Block, ...]] = get_args(Block)

# What may stand around the word in the name of a projection: to_q, wq, linear_q, q_proj,
# q_a_proj (low rank), kv_a_proj_with_mqa, in_proj_weight.
_BEFORE: Final = r"(to_|linear_|attn_|pos_|w_?)?"

_AFTER: Final = (
    r"((_[ab])?_?(proj|projection|lin|linear|attn|layer|head"
    r"|global|with_mqa|weight|bias))*"
)


class Projection(NamedTuple):
    """One row of the table of projections.

    Attributes:
        block: The kind of block.
        parts: Which projections are in the tensor: of q, k, v and o.
        name: Regular expression for the whole name in lower case.
    """

    block: Block
    parts: str
    name: str


# The projections of an attention, by the attribute that holds them (or the raw parameter's
# own name). It speaks only inside an attention. The first that fits wins.
PROJECTIONS: Final = (
    Projection("qk", "q", rf"{_BEFORE}(q|query){_AFTER}"),
    Projection("qk", "k", rf"{_BEFORE}(k|key){_AFTER}"),
    Projection("qk", "qk", rf"{_BEFORE}(qk|query_key){_AFTER}"),
    Projection("vo", "v", rf"{_BEFORE}(v|value){_AFTER}"),
    Projection("fused", "kv", rf"{_BEFORE}(kv|key_value){_AFTER}"),
    Projection("fused", "qkv", rf"{_BEFORE}(qkvo?|query_key_value|pack){_AFTER}"),
    Projection("fused", "qkv", r"c_attn|att_proj|in_proj(_weight|_bias)?"),
    Projection("vo", "o", rf"{_BEFORE}(o|out|output){_AFTER}"),
    Projection("vo", "o", r"proj(ection)?|(c|post|resid|linear)_proj|dense|attn_out"),
)

# An attention, by the attribute that holds it or by its class; or else by holding a query, a
# key and a value side by side.
_ATTENTION: Final = re.compile(r"(?!.*(blocks|layers)).*(attn|attention).*")

_ATTENTION_CLASS: Final = re.compile(r".*(attn|attention)(_?v?\d+)?")

# A feed-forward network, by any attribute around the weight. Without such a name it is every
# matrix beside an attention in a numbered block.
_FFN: Final = re.compile(r".*(mlp|ffn|ffwd|feed_?forward|experts?).*|denserelu.*")

# Names that convolutions of other kinds bear too.
_FFN_MATRIX: Final = re.compile(r"ff\d?|linear[12]|fc[12]")

OF_ATTENTION: Final[frozenset[Block]] = frozenset(["qk", "vo", "fused"])

# The blocks of roles that are blocks by themselves.
_BY_ROLE: Final[Mapping[str, Block]] = {
    "embedding": "embedding",
    "position": "position",
    "norm": "norm",
    "head": "head",
}


def classify(model: ModelInfo) -> list[Block]:
    """The kind of block of each parameter, by its role, names and surroundings."""
    places = [_place(param) for param in model.params]
    attentions = _attentions(model, places)
    found: list[Block | None] = [
        _BY_ROLE.get(param.role) or _projection(param, place, attentions)
        for param, place in zip(model.params, places, strict=True)
    ]
    # Feed-forward is what stands beside an attention, in the same numbered block.
    beside = {
        _numbered(param.owner)
        for param, block in zip(model.params, found, strict=True)
        if block in OF_ATTENTION
    } - {None}
    recurrent = {param.owner for param in model.params if param.role == "state"}
    for index, param in enumerate(model.params):
        if found[index] is None and _is_ffn(param, beside, recurrent):
            found[index] = "ffn"
    return _with_biases(model, found)


class Place(NamedTuple):
    """Where the name of a projection stands: the module around it, and the name."""

    parent: str
    attr: str


def _place(param: ParamInfo) -> Place:
    """The attribute that holds a layer, or a raw parameter's own name; numbers are skipped."""
    if not param.leaf.startswith(("weight", "bias")):
        return Place(param.owner, param.leaf.lower())
    path = param.owner.split(".")
    while path and path[-1].isdigit():
        path.pop()
    return Place(".".join(path[:-1]), path[-1].lower() if path else "")


def _attentions(model: ModelInfo, places: Sequence[Place]) -> set[str]:
    """Paths of modules that are an attention."""
    found: set[str] = set()
    parts: dict[str, set[str]] = {}
    for param, place in zip(model.params, places, strict=True):
        found.update(
            path
            for path in _paths(param.owner)
            if _ATTENTION.fullmatch(path.rpartition(".")[2].lower())
        )
        found.update(
            path
            for path, cls in param.ancestors
            if _ATTENTION_CLASS.fullmatch(cls.__name__.lower())
        )
        if param.role == "matrix" and (row := _row(place.attr)):
            parts.setdefault(place.parent, set()).add(row.parts)
    return found | {path for path, held in parts.items() if {"q", "k", "v"} <= held}


def _projection(param: ParamInfo, place: Place, attentions: Collection[str]) -> Block | None:
    """The block of a projection of an attention."""
    if param.role not in {"matrix", "conv", "bias"}:
        return None
    around = [path for path in ("", *_paths(param.owner)) if path in attentions]
    if not around or _named_ffn(param.owner[len(around[-1]) :], param.role):
        return None  # outside, or in the feed-forward part of a whole block of that name
    if row := _row(place.attr):
        return row.block
    return "other" if param.role != "bias" else None


@cache
def _row(attr: str) -> Projection | None:
    """The row of the table of projections that a name fits."""
    return next((row for row in PROJECTIONS if re.fullmatch(row.name, attr)), None)


def _is_ffn(param: ParamInfo, beside: Collection[str | None], recurrent: Collection[str]) -> bool:
    if param.role not in {"matrix", "conv"}:
        return False
    if _named_ffn(param.name, param.role):
        return True
    block = _numbered(param.owner)
    inside = [path for path in _paths(param.owner) if len(path) > len(block or "")]
    return (
        param.role == "matrix" and block in beside and not any(path in recurrent for path in inside)
    )


def _named_ffn(path: str, role: str) -> bool:
    """Whether a name along a path says feed-forward."""
    names = path.lower().split(".")
    return any(map(_FFN.fullmatch, names)) or (
        role != "conv" and any(map(_FFN_MATRIX.fullmatch, names))
    )


def _with_biases(model: ModelInfo, found: Sequence[Block | None]) -> list[Block]:
    """Biases go with the weights of their layer; what is left is no known block."""
    of_layer: dict[str, set[Block]] = {}
    for param, block in zip(model.params, found, strict=True):
        if param.role != "norm" and block is not None:
            for name in param.names:
                of_layer.setdefault(name.rpartition(".")[0], set()).add(block)
    return [
        block or (_with_layer(param, of_layer) if param.role == "bias" else "other")
        for param, block in zip(model.params, found, strict=True)
    ]


def _with_layer(param: ParamInfo, of_layer: Mapping[str, set[Block]]) -> Block:
    """The block of the layer that a bias belongs to, by any of its names."""
    owners = [name.rpartition(".")[0] for name in param.names]
    blocks = {block for owner in owners for block in of_layer.get(owner, ())}
    return blocks.pop() if len(blocks) == 1 else "other"


def _paths(path: str) -> list[str]:
    """A module's path and those of all modules around it but the root."""
    return list(accumulate(path.split("."), "{}.{}".format)) if path else []


def _numbered(path: str) -> str | None:
    """The innermost module around a path that is an item of a list."""
    return next((p for p in reversed(_paths(path)) if p.rpartition(".")[2].isdigit()), None)
