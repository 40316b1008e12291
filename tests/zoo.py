"""Odd models, one small factory each: what describe, select and plans must cope with."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune


class Block(nn.Module):
    """A residual block: norm, linear, activation."""

    def __init__(self, width=4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.relu(self.fc(self.norm(x)))


class Net(nn.Module):
    """Embedding, two blocks and a head: the plain model that others are made from."""

    def __init__(self, width=4):
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 10, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def plain():
    """Embedding, two blocks and a head."""
    return Net()


def tied():
    """The head's weight is the embedding's."""
    net = Net()
    net.head.weight = net.embed.weight
    return net


class Calling(nn.Module):
    """Parts, called in an order that only its forward knows."""

    def forward(self, x):
        return x


def calling(**parts):
    """A model of these parts."""
    model = Calling()
    for name, part in parts.items():
        setattr(model, name, part)
    return model


class Speaking(Calling):
    """A model that says that it has no output layer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.between = nn.Linear(4, 8)

    def get_output_embeddings(self):
        return None


class Hooked(nn.Module):
    """A model that says itself which layers are its input and its output."""

    def __init__(self, *, head_first=False):
        super().__init__()
        self.out = nn.Linear(4, 10, bias=False)
        self.wte = nn.Embedding(10, 4)
        if head_first:
            self.out.weight = self.wte.weight

    def get_input_embeddings(self):
        return self.wte

    def get_output_embeddings(self):
        return self.out


def hooked():
    """Output and input under names that say little."""
    return Hooked()


def tied_head_first():
    """A tied head that is registered before the embedding."""
    return Hooked(head_first=True)


def shared_module():
    """One layer under three names, one of them deeper."""
    layer = nn.Linear(3, 3)
    return nn.ModuleDict({"a": layer, "b": layer, "c": nn.Sequential(layer)})


def inside_itself():
    """A module that holds itself, as some trainers' modules do."""
    net = nn.Module()
    net.fc = nn.Linear(2, 2)
    net.again = net
    net.fc.owner = net
    return net


def deeply_shared():
    """Each level holds the level below twice: 2**6 places for one layer."""
    module = nn.Linear(2, 2)
    for _ in range(6):
        module = nn.ModuleList([module, module])
    return module


def weight_norm():
    """Weight norm, new style: magnitude and direction behind a parametrization."""
    return nn.Sequential(OrderedDict(fc=parametrizations.weight_norm(nn.Linear(3, 4))))


def old_weight_norm():
    """Weight norm, old style: `weight_g` and `weight_v` beside a computed `weight`."""
    layer = nn.Linear(3, 4)
    direction = layer._parameters.pop("weight")
    layer.weight_g = nn.Parameter(direction.norm(dim=1, keepdim=True).detach())
    layer.weight_v = nn.Parameter(direction.detach())
    layer.weight = layer.weight_v.detach()  # what the pre-hook computes
    return nn.Sequential(OrderedDict(fc=layer))


def spectral_norm():
    """Spectral norm: one parametrized weight."""
    return nn.Sequential(OrderedDict(fc=parametrizations.spectral_norm(nn.Linear(3, 4))))


def orthogonal():
    """An orthogonal weight."""
    return nn.Sequential(OrderedDict(fc=parametrizations.orthogonal(nn.Linear(4, 4))))


def pruned():
    """A pruned weight: `weight_orig`, a mask buffer and a computed `weight`."""
    layer = prune.l1_unstructured(nn.Linear(3, 4), "weight", amount=0.5)
    with torch.no_grad():  # recompute `weight` without a graph, which cannot be copied
        layer(torch.zeros(1, 3))
    return nn.Sequential(OrderedDict(fc=layer))


def attention():
    """Multi-head attention with packed projections and learned key and value biases."""
    return nn.MultiheadAttention(8, 2, add_bias_kv=True)


def attention_of_three_widths():
    """Multi-head attention with separate query, key and value projections."""
    return nn.MultiheadAttention(8, 2, kdim=4, vdim=6)


def lstm():
    """A bidirectional LSTM with projections: sixteen-odd parameters in one module."""
    return nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)


def gru_cell():
    """A single recurrent cell."""
    return nn.GRUCell(3, 4)


def transformer_layer():
    """An encoder layer of torch's own."""
    return nn.TransformerEncoderLayer(8, 2, 16)


class Bag(nn.Module):
    """Raw parameters of all sorts, directly and in lists and dicts."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.weights = nn.ParameterList([torch.zeros(2, 3), torch.zeros(3, 2)])
        self.extras = nn.ParameterDict({"bias": torch.zeros(3), "gamma": torch.ones(3)})
        self.missing = None
        self.register_parameter("absent", None)


def bag():
    """Parameter lists and dicts, a 0-dim parameter, parameters that are None."""
    return Bag()


def complex_linear():
    """A linear layer of complex numbers."""
    return nn.Linear(2, 2, dtype=torch.complex64)


def sparse_embedding():
    """An embedding and an embedding bag whose gradients are sparse, and one dense."""
    return nn.ModuleDict(
        {
            "a": nn.Embedding(5, 2, sparse=True),
            "b": nn.EmbeddingBag(5, 2, sparse=True),
            "c": nn.Embedding(5, 2),
        }
    )


def int8():
    """A frozen int8 weight with a trained scale, as quantised layers have."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    layer.scale = nn.Parameter(torch.ones(2))
    return nn.Sequential(layer)


def on_meta():
    """A model without storage."""
    with torch.device("meta"):
        return Net()


def convolutions():
    """Grouped, depthwise and transposed convolutions, a bilinear layer."""
    return nn.ModuleDict(
        {
            "grouped": nn.Conv2d(8, 4, 3, groups=2),
            "depthwise": nn.Conv1d(6, 6, 5, groups=6),
            "transposed": nn.ConvTranspose2d(8, 4, 3, groups=2),
            "bilinear": nn.Bilinear(2, 3, 4),
        }
    )


class RMSNormOfMine(nn.Module):
    """A norm that torch does not know."""

    def __init__(self, width, *, bias=False):
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))
        if bias:
            self.shift = nn.Parameter(torch.zeros(width))


class ChannelNorm(nn.Module):
    """A norm over channels of images: parameters of shape (C, 1, 1)."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))


class NormedLinear(nn.Module):
    """Not a norm, whatever its name: it owns a matrix."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 3))
        self.shift = nn.Parameter(torch.zeros(3))


class PreNorm(nn.Module):
    """Not a norm either: it holds one, and a layer, and a vector of its own."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.fn = nn.Linear(3, 3)
        self.offset = nn.Parameter(torch.zeros(3))


class LayerScale(nn.Module):
    """Multiplies by a small vector."""

    def __init__(self, width):
        super().__init__()
        self.lambda1 = nn.Parameter(torch.full((width,), 1e-5))


def norms():
    """Norms of all kinds, and two modules that are none in spite of their names."""
    return nn.ModuleDict(
        {
            "layer": nn.LayerNorm(3),
            "batch": nn.BatchNorm2d(3),
            "group": nn.GroupNorm(3, 6),
            "instance": nn.InstanceNorm1d(3, affine=True),
            "sync": nn.SyncBatchNorm(3),
            "rms": nn.RMSNorm(3),
            "mine": RMSNormOfMine(3),
            "mine_too": RMSNormOfMine(3, bias=True),
            "channel": ChannelNorm(3),
            "linear": NormedLinear(),
            "pre": PreNorm(),
            "bare": nn.LayerNorm(3, elementwise_affine=False),
        }
    )


def gains():
    """Vectors that multiply: PReLU, LayerScale."""
    return nn.ModuleDict({"act": nn.PReLU(3), "ls": LayerScale(3)})


class Mixer(nn.Module):
    """The raw parameters of a state-space layer."""

    def __init__(self):
        super().__init__()
        self.A_log = nn.Parameter(torch.zeros(6, 4))
        self.D = nn.Parameter(torch.ones(6))
        self.dt_bias = nn.Parameter(torch.zeros(6))
        self.in_proj = nn.Linear(3, 6)


class Dictionary(nn.Module):
    """A `D` that is no state: there is no recurrence beside it."""

    def __init__(self):
        super().__init__()
        self.D = nn.Parameter(torch.zeros(6, 4))


class VisionTokens(nn.Module):
    """The raw parameters of vision transformers."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.register_tokens = nn.Parameter(torch.zeros(1, 4, 8))
        self.mask_embed = nn.Parameter(torch.zeros(8))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 8))
        self.rel_pos_h = nn.Parameter(torch.zeros(7, 8))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(49, 2))
        self.gamma_1 = nn.Parameter(torch.ones(8))
        self.logit_scale = nn.Parameter(torch.tensor(2.6))
        self.level_embed = nn.Parameter(torch.zeros(3, 8))
        self.whatever = nn.Parameter(torch.zeros(8))
        self.kernel = nn.Parameter(torch.zeros(8, 8))
        self.query = nn.Parameter(torch.zeros(1, 8))


class RawAttention(nn.Module):
    """Projections as raw matrices: here `query` is no token."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(8, 8))
        self.key = nn.Parameter(torch.zeros(8, 8))
        self.w_query = nn.Parameter(torch.zeros(8, 8))


def raw_parameters():
    """State-space, vision and attention parameters without a module of torch's."""
    return nn.ModuleDict(
        {
            "mixer": Mixer(),
            "dictionary": Dictionary(),
            "vision": VisionTokens(),
            "attention": RawAttention(),
        }
    )


class TopKRouter(nn.Module):
    """Chooses experts with a linear layer of its own."""

    def __init__(self, width, experts):
        super().__init__()
        self.layer = nn.Linear(width, experts)


class StackedExperts(nn.Module):
    """All experts in one tensor."""

    def __init__(self, width, experts):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(experts, width, 2 * width))
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(experts, 2 * width))


class Mixture(nn.Module):
    """Experts and a gate beside them."""

    def __init__(self, width, experts):
        super().__init__()
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width) for _ in range(experts))


class Expert(nn.Module):
    """A gated feed-forward layer; its gate sends nothing anywhere."""

    def __init__(self, width):
        super().__init__()
        self.gate = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, width, bias=False)
        self.down = nn.Linear(width, width, bias=False)
        self.act = nn.SiLU()


def mixtures():
    """Routers by class and by name, experts in modules and stacked in one tensor."""
    return nn.ModuleDict(
        {
            "moe": Mixture(4, 3),
            "router": TopKRouter(4, 3),
            "stacked": StackedExperts(4, 3),
        }
    )


class MoeBlock(nn.Module):
    """One block of a mixture-of-experts transformer."""

    def __init__(self, width, experts):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = Mixture(width, experts)


def moe_tree(layers, experts, width=4):
    """A mixture of experts on meta: ``layers * (7 + 3 * experts) + 2`` tensors.

    ``moe_tree(52, 256)`` has 40,302 tensors and 66,928 modules.
    """
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                embed=nn.Embedding(8, width),
                layers=nn.ModuleList(MoeBlock(width, experts) for _ in range(layers)),
                head=nn.Linear(width, 8, bias=False),
            )
        )


class Lora(nn.Module):
    """A low-rank adapter written by hand."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 4)
        self.lora_A = nn.Linear(4, 2, bias=False)
        self.lora_B = nn.Linear(2, 4, bias=False)


def lora_by_hand():
    """A low-rank adapter that no package knows of."""
    return nn.Sequential(Lora())


class AttentionBlock(nn.Module):
    """A block with parts whose names would fit an output layer."""

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(4, 4)
        self.fc_out = nn.Linear(4, 4)


def heads():
    """Output layers, and layers in the middle that only sound like some."""
    return nn.ModuleDict(
        {
            "layers": nn.ModuleList([AttentionBlock(), AttentionBlock()]),
            "classifier": nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
            "fc": nn.Linear(4, 2),
        }
    )


class PositionEmbedding(nn.Embedding):
    """A position table by its class."""


class TableEmbedding(nn.Module):
    """An embedding that is not torch's."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(5, 4))


class FusedLinear(nn.Module):
    """A linear layer that is not torch's."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(5, 4))
        self.b = nn.Parameter(torch.zeros(5))


class StandardizedConv(nn.Module):
    """A convolution that is not torch's, 1 x 1."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(5, 4, 1, 1))


class Conv1D(nn.Module):
    """The transposed linear layer of GPT-2, as transformers has it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 9))
        self.bias = nn.Parameter(torch.zeros(9))


def own_classes():
    """Layers of the user's own classes, known by the names of these."""
    return nn.ModuleDict(
        {
            "a": PositionEmbedding(5, 4),
            "b": TableEmbedding(),
            "c": FusedLinear(),
            "d": StandardizedConv(),
            "e": Conv1D(),
            "positions": nn.Embedding(5, 4),
        }
    )


def user_module_attribute():
    """A user's own `self.module` and `self.model`, which are no wrappers."""
    inner = nn.Sequential(OrderedDict(module=nn.Linear(2, 2)))
    return nn.Sequential(OrderedDict(model=inner, base_layer=nn.Linear(2, 2)))


def empty():
    """No parameters at all."""
    return nn.Sequential(nn.ReLU(), nn.Flatten())


def from_transformers(kind, head="", **settings):
    """A model of transformers with two layers and random weights, on meta."""
    transformers = pytest.importorskip("transformers")
    config = transformers.CONFIG_MAPPING[kind](**settings)
    for name in SHORTENED & set(dir(config)) - settings.keys():
        setattr(config, name, 2)
    with torch.device("meta"):
        if head:
            return getattr(transformers, head)(config)
        return transformers.AutoModel.from_config(config)


SHORTENED = {
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
}


def renamed(model, word):
    """Give every attribute a new name, in place; parameters only on users' own classes.

    Args:
        model: The model; describe it, but do not run it afterwards.
        word: Called without arguments for each new name.
    """
    for module in list(model.modules()):
        if "parametrizations" not in module._modules:
            children = list(module._modules.values())
            module._modules.clear()
            for child in children:
                module._modules[word()] = child
        # torch.nn's layers, and subclasses of these, define what their parameters are called.
        bases = {base.__module__ for base in type(module).__mro__ if base is not nn.Module}
        if not any(base.startswith("torch.nn.modules.") for base in bases):
            parameters = list(module._parameters.values())
            module._parameters.clear()
            for parameter in parameters:
                module._parameters[word()] = parameter
    return model


ZOO = (
    plain,
    tied,
    tied_head_first,
    hooked,
    shared_module,
    inside_itself,
    deeply_shared,
    weight_norm,
    old_weight_norm,
    spectral_norm,
    orthogonal,
    pruned,
    attention,
    attention_of_three_widths,
    lstm,
    gru_cell,
    transformer_layer,
    bag,
    complex_linear,
    sparse_embedding,
    int8,
    on_meta,
    convolutions,
    norms,
    gains,
    raw_parameters,
    mixtures,
    lora_by_hand,
    heads,
    own_classes,
    user_module_attribute,
    empty,
)
