"""Names that tell what a parameter is for: tables for :mod:`nnlr._model.roles`."""

import re
from typing import Final, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd


class Trait(NamedTuple):
    """One row of a table of names.

    Attributes:
        role: The role.
        pattern: Regular expression for the whole name in lower case.
        axes: How many axes are longer than 1; torch has at most 64.
        beside: Regular expression for the name of another parameter that the owner must
            have: a ``D`` means little, a ``D`` beside an ``A_log`` a lot.
    """

    role: str
    pattern: str
    axes: range = range(65)
    beside: str | None = None


_VECTOR: Final = range(1, 2)
_MATRIX: Final = range(2, 3)
_UP_TO_VECTOR: Final = range(2)
_FROM_VECTOR: Final = range(1, 65)
_FROM_MATRIX: Final = range(2, 65)

# Parameters of torch.nn's own classes, as these document them. The first that fits wins.
TYPES: Final[tuple[tuple[type | tuple[type, ...], str, str], ...]] = (
    (nn.MultiheadAttention, r"(in|q|k|v)_proj_weight", "matrix"),
    (nn.MultiheadAttention, r"in_proj_bias|bias_k|bias_v", "bias"),
    ((nn.RNNBase, nn.RNNCellBase), r"weight_.*", "matrix"),
    ((nn.RNNBase, nn.RNNCellBase), r"bias_.*", "bias"),
    ((_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), r"weight|bias", "norm"),
    ((nn.Embedding, nn.EmbeddingBag), r"weight", "embedding"),
    (nn.PReLU, r"weight", "gain"),
    (_ConvNd, r"weight", "conv"),
    ((nn.Linear, nn.Bilinear), r"weight", "matrix"),
    ((_ConvNd, nn.Linear, nn.Bilinear), r"bias", "bias"),
)

# Roles above that the name of a subclass may change, and the role it changes them to.
SUBCLASSES: Final = {("matrix", "router"), ("embedding", "position")}

# Learned inputs: vectors that a model takes as they are, as it takes its tokens. They are a
# raw parameter, a module of its own, or an nn.Embedding of which the weight is used, not rows.
_LEVELS: Final = (
    r"((feat|feature|scale|multi_?scale|src|memory|encoder|decoder|spatial|pyramid|fpn)_)?"
    r"(level|lvl)s?_?(emb|enc)\w*"
)
_POINTS: Final = r"(.*_)?(ref(erence)?_?points?(_?emb\w*)?|points?_emb\w*)"

# What such a table of vectors is called. `tokens` alone may as well be words.
LEARNED: Final = re.compile(
    r"(?!(.*_)?(type|word|term|vocab|id|segment|lang\w*|encoder|tower|model|net|branch)s?(_|$))"
    r"(.*_)?(quer(y|ies)|prompts?|prefix|latents?|registers?)(_.*|(emb|feat|pos|tok)\w*)?"
    rf"|{_LEVELS}|{_POINTS}|embed_global|(.*_)?global(_emb\w*)?"
    r"|(.*_)?(cls|class|mask|reg|dist|distillation|det|detection|obj|object|mem|memory|global"
    r"|summary|bottleneck|group|iou|bos|eos|sep|pad|null|special|learnable|learned|soft|virtual"
    r"|extra|instance|presence)_?tokens?(_emb\w*)?"
)
# Names that say nothing: the module around it may.
UNNAMED: Final = re.compile(r"\d+|emb(ed(ding|der)?)?s?|weights?|tables?|default")
# Classes of modules that hold such a table without a name of its own.
LEARNED_CLASSES: Final = re.compile(
    r".*\.\w*(quer(y|ies)|latent|prompt|prefix|register|level)s?_?(emb\w*|tokens?)"
    r"|.*\.\w*(queries|prefixencoder)|peft\..*\.promptencoder"
)
# What queries are compared with: a table of queries beside one of these is looked up.
COMPARED: Final = re.compile(
    r"(.*_)?(doc|document|passage|item|candidate|product|title|answer|context|response|ad)s?(_.*)?"
)
# A table with more rows is looked up: no model takes so many queries at a time.
MOST_LEARNED: Final = 4096

# Raw parameters of users' own classes, by the name of the class. It counts only if the module
# holds no other module with weights.
CLASSES: Final = (
    Trait("gain", r".*layerscale.*", _UP_TO_VECTOR),
    Trait("router", r".*(router|topkgate).*|.*gating(net\w*|layer)?", _FROM_MATRIX),
    Trait("position", r"(?!.*(token|word)).*position.*embed.*", _MATRIX),
    Trait("token", r".*(quer(y|ies)|latent|prompt|register|level)(emb\w*|tokens?)"),
    Trait("token", r".*(queries|latents|registers|prompts?|prompter|promptlearner)"),
    Trait("embedding", r".*embedding.*", _MATRIX),
    Trait("head", r".*(loss|softmax)", _FROM_MATRIX),  # a vector for each class
    Trait("matrix", r".*linear.*", _FROM_MATRIX),
)

# A parameter whose name holds one of these is a part of a layer.
_NO_LAYER: Final = r"(?!.*(proj|weight|kernel|matrix|norm|scale|mix|gate|factor|logit))"

# All other raw parameters, by their own name.
TABLE: Final = (
    Trait("lora_a", r".*lora_?(embedding_?)?a\d*|.*lora_?down"),
    Trait("lora_b", r".*lora_?(embedding_?)?b\d*|.*lora_?up"),
    Trait("state", r"(a|nu|theta|gamma)_logs?|log_(a|a_real|dt)|a_imag|dt_bias"),
    Trait("state", r"lambda_(re|im)|(.*_)?decay", _FROM_VECTOR),
    Trait("state", r"ds?|dt|inv_dt", beside=r"a|(a|nu)_logs?|log_a\w*|lambda_re"),
    Trait("state", r"a", beside=r"ds?|dt|dt_bias"),
    Trait("token", r"(?!.*rel).*quer(y|ies)_?pos\w*", _FROM_VECTOR),
    Trait("position", r".*rel(ative)?_?(pos|emb).*|emb_rel.*|.*bias_table", _FROM_VECTOR),
    Trait("position", r".*attention_bias(es)?", _FROM_MATRIX),
    Trait("position", r"(.*_)?(pos|positions?|positional)(_[a-z])?|wpe", _FROM_VECTOR),
    Trait("position", r"(.*_)?pos(ition)?(al)?_?(emb|enc)\w*", _FROM_VECTOR),
    Trait("position", r"(.*_)?pos(ition)?(al)?_(table|bias)", _FROM_VECTOR),
    Trait("position", r"seg(ment)?_emb\w*", range(3, 4)),  # an axis for heads: added to scores
    Trait("position", r"(.*_)?((time|temporal)_?emb[a-z]*|ape|freqs)", _FROM_VECTOR),
    Trait("position", r"(height|width)_rel|rel_(height|width)|(.*_)?rpb", _FROM_VECTOR),
    # A bias of experts, of attention heads or of pairs has axes for these.
    Trait("bias", r"(.*_)?bias(es)?\d*(_[a-z0-9]{0,2})?"),
    Trait("bias", r"b_\w{1,3}", range(3), beside=r"w_\w{1,3}"),
    Trait("bias", r"b\d*|.*_b|beta\d*|shift", _UP_TO_VECTOR),
    Trait("embedding", r"(.*_)?emb(ed[a-z]*)?(_tokens?)?_weight", _MATRIX),
    Trait("matrix", r".*_(weight|kernel|proj|mix(ing)?)", _FROM_MATRIX),
    Trait("matrix", r"(weight|kernel|proj)_quer(y|ies)", _FROM_MATRIX),
    Trait("matrix", r"w_(?!.*emb)\w+", _FROM_MATRIX),
    Trait("matrix", r"quer(y|ies)", _FROM_MATRIX, beside=r"keys?"),
    Trait("embedding", r"((text|word|input)_)?tokens?_?emb[a-z]*", _MATRIX),
    Trait("token", r"(.*_)?(tokens?|registers?)\d*(_\w+)?|probe|ctx", _FROM_VECTOR),
    Trait("token", rf".*quer(y|ies)|{_LEVELS}|{_POINTS}", _FROM_VECTOR),
    Trait("token", rf"{_NO_LAYER}(.*_)?(quer(y|ies)|prompts?|latents?|prefix)_?\w*", _FROM_VECTOR),
    Trait("scalar", r".*", range(1)),
    Trait("gain", r"(.*_)?(gamma|gain|scales?|scaling|alpha)(_?\d|_[a-z]|_\w+_table)?"),
    Trait("gain", r"(.*_)?(gate|g)(_?\d|_[a-z])?|.*magnitude.*", _VECTOR),
    Trait("gain", r"(.*_)?lambda.*|.*layer_?scale.*|ls\d*", _VECTOR),
    Trait("gain", r"modulation"),
    Trait("token", r".*emb(ed\w*)?(_.*)?", _VECTOR),
    Trait("vector", r".*", _VECTOR),
    Trait("embedding", r".*emb(ed\w*)?|(.*_)?code(book|vector)s?", range(2, 4)),
    Trait("matrix", r".*"),
)
