"""Small architectures of many kinds, and the order in which each runs its parts.

Each is a function that builds a model, with statements on its order: ``a < b`` for parts of
which the second takes, by whatever way, what the first gives (``a <= b`` if they may be in one
layer), ``a | b`` for parts of which neither takes what the other gives. Those that are certain
have to be read, the others are read rightly or refused.
"""

from itertools import pairwise

from torch import nn

from tests import zoo

CERTAIN, OPEN = [], []


def certain(*order):
    """Mark an architecture whose order widths and containers tell."""

    def mark(build):
        CERTAIN.append((build, order))
        return build

    return mark


def unsure(*order):
    """Mark an architecture that may be refused."""

    def mark(build):
        OPEN.append((build, order))
        return build

    return mark


def net(**parts):
    """A module of a class of its own, with these parts."""
    made = type("Net", (nn.Module,), {})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def mlp(*widths):
    """Linear layers in a row."""
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(*widths):
    """Convolutions with their norms in a row."""
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers)


def blocks(width, count=2):
    """Residual blocks in a list."""
    return nn.ModuleList(zoo.Block(width) for _ in range(count))


class MLP(nn.Module):
    """Two layers as attributes."""

    def __init__(self, a, b, c):
        super().__init__()
        self.fc1 = nn.Linear(a, b)
        self.fc2 = nn.Linear(b, c)


class Encoder(nn.Module):
    """An embedding, blocks and a norm."""

    def __init__(self, width=8, count=2):
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.layers = blocks(width, count)
        self.norm = nn.LayerNorm(width)


class Vision(nn.Module):
    """Patches, blocks and a norm."""

    def __init__(self, width=8, count=2):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.layers = blocks(width, count)
        self.norm = nn.LayerNorm(width)


class DoubleConv(nn.Module):
    """Two convolutions."""

    def __init__(self, a, b):
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, padding=1)
        self.conv2 = nn.Conv2d(b, b, 3, padding=1)


class GraphConv(nn.Module):
    """A layer with a matrix of its own."""

    def __init__(self, a, b):
        super().__init__()
        self.lin = nn.Linear(a, b, bias=False)
        self.own_bias = nn.Parameter(nn.init.zeros_(nn.Linear(1, b).bias.detach().clone()))


# --- reinforcement learning


@certain("actor | critic", "actor.0 < actor.2", "critic.0 < critic.2 < critic.4")
def actor_critic():
    """Actor critic."""
    return net(actor=mlp(4, 16, 2), critic=mlp(4, 16, 16, 1))


@unsure("actor | critic")
def actor_critic_of_one_width():
    """Actor critic of one width."""
    return net(actor=mlp(8, 16, 8), critic=mlp(8, 16, 1))


@certain("actor | critic", "actor.fc1 < actor.fc2")
def actor_critic_classes():
    """Actor critic classes."""
    return net(actor=MLP(4, 16, 2), critic=MLP(4, 16, 1))


@unsure("actor | critic")
def actor_critic_classes_of_one_width():
    """Actor critic classes of one width."""
    return net(actor=MLP(8, 16, 8), critic=MLP(8, 16, 8))


@certain("trunk < actor", "trunk < critic", "actor | critic")
def actor_critic_with_a_trunk():
    """Actor critic with a trunk."""
    return net(trunk=mlp(4, 32, 16), actor=nn.Linear(16, 2), critic=nn.Linear(16, 1))


@certain("features < value", "features < adv", "value | adv", "value.0 < value.2", "adv.0 < adv.2")
def dueling():
    """Dueling."""
    features = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
    return net(features=features, value=mlp(16, 16, 1), adv=mlp(16, 16, 2))


@certain("fc1 < fc2 < value", "fc2 < adv", "value | adv")
def dueling_layers():
    """Dueling layers."""
    return net(
        fc1=nn.Linear(4, 16), fc2=nn.Linear(16, 16), value=nn.Linear(16, 1), adv=nn.Linear(16, 2)
    )


@unsure("fc1 < value_fc < value_out", "fc1 < adv_fc < adv_out", "value_fc | adv_fc")
def dueling_attributes():
    """Dueling attributes."""
    return net(
        fc1=nn.Linear(4, 16),
        value_fc=nn.Linear(16, 16),
        value_out=nn.Linear(16, 1),
        adv_fc=nn.Linear(16, 16),
        adv_out=nn.Linear(16, 2),
    )


@unsure("features < value", "features < adv", "value | adv")
def dueling_of_one_width():
    """Dueling of one width."""
    return net(features=mlp(16, 16, 16), value=mlp(16, 16, 16), adv=mlp(16, 16, 16))


@certain("l1 < l2 < l3", "l4 < l5 < l6", "l3 | l6", "l1 | l4")
def twin_critics_as_attributes():
    """Twin critics as attributes."""
    sizes = {1: (8, 16), 2: (16, 16), 3: (16, 1), 4: (8, 16), 5: (16, 16), 6: (16, 1)}
    return net(**{f"l{at}": nn.Linear(*size) for at, size in sizes.items()})


@certain("l1 < l2 < mean", "l2 < log_std", "mean | log_std")
def gaussian_policy():
    """Gaussian policy."""
    return net(
        l1=nn.Linear(4, 16), l2=nn.Linear(16, 16), mean=nn.Linear(16, 2), log_std=nn.Linear(16, 2)
    )


@unsure("l1 < mean", "l1 < log_std", "mean | log_std")
def gaussian_policy_of_one_width():
    """Gaussian policy of one width."""
    return net(l1=nn.Linear(4, 16), mean=nn.Linear(16, 16), log_std=nn.Linear(16, 16))


@certain("conv1 < conv2 < conv3 < fc1 < fc2")
def nature_dqn():
    """Nature dqn."""
    return net(
        conv1=nn.Conv2d(4, 32, 8, 4),
        conv2=nn.Conv2d(32, 64, 4, 2),
        conv3=nn.Conv2d(64, 64, 3),
        fc1=nn.Linear(64 * 49, 32),
        fc2=nn.Linear(32, 6),
    )


# --- towers


@certain("user | item", "user.0 < user.1 < user.3", "item.0 < item.1 < item.3")
def two_tower_recommender():
    """Two tower recommender."""

    def tower(count):
        return nn.Sequential(nn.Embedding(count, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

    return net(user=tower(10), item=tower(20))


@certain(
    "user_table | item_table",
    "user_table < user_fc",
    "item_table < item_fc",
    "user_fc | item_fc",
)
def two_towers_of_attributes():
    """Two towers of attributes."""
    return net(
        user_table=nn.Embedding(10, 8),
        item_table=nn.Embedding(20, 8),
        user_fc=nn.Linear(8, 4),
        item_fc=nn.Linear(8, 4),
    )


@certain("tables.0 | tables.1", "tables.1 | tables.2", "tables.0 < top", "top.0 < top.2")
def tables_in_a_list():
    """Tables in a list."""
    return net(tables=nn.ModuleList(nn.Embedding(9, 8) for _ in range(3)), top=mlp(24, 16, 1))


@certain("tables.0 | tables.1", "tables.2 < top.0 < top.2")
def tables_in_a_list_that_are_summed():
    """Tables in a list that are summed."""
    return net(tables=nn.ModuleList(nn.Embedding(9, 8) for _ in range(3)), top=mlp(8, 8, 1))


@unsure("tables.0 | tables.1", "bottom | tables", "bottom < top", "tables < top")
def dlrm():
    """Dlrm."""
    tables = nn.ModuleList(nn.EmbeddingBag(9, 8) for _ in range(3))
    return net(tables=tables, bottom=mlp(5, 16, 8), top=mlp(14, 16, 1))


@unsure("tables.0 | tables.1", "bottom | tables", "bottom < top", "tables < top")
def dlrm_in_another_order():
    """Dlrm in another order."""
    tables = nn.ModuleList(nn.EmbeddingBag(9, 8) for _ in range(3))
    return net(bottom=mlp(5, 16, 8), tables=tables, top=mlp(14, 16, 1))


@unsure("wide | deep", "tables < deep")
def wide_and_deep():
    """Wide and deep."""
    tables = nn.ModuleDict({"a": nn.Embedding(9, 4), "b": nn.Embedding(9, 4)})
    return net(wide=nn.Linear(30, 1), tables=tables, deep=mlp(8, 16, 1))


@unsure("user | item", "user < layers", "item < layers", "layers.0 < layers.1 < out")
def neural_collaborative_filtering():
    """Neural collaborative filtering."""
    return net(
        user=nn.Embedding(9, 8),
        item=nn.Embedding(9, 8),
        layers=nn.ModuleList([nn.Linear(16, 8), nn.Linear(8, 4)]),
        out=nn.Linear(4, 1),
    )


@certain("left | right", "left < head", "right < head")
def siamese_halves():
    """Siamese halves."""
    return net(left=mlp(8, 16, 4), right=mlp(8, 16, 4), head=nn.Linear(8, 1))


@unsure("left | right")
def siamese_of_one_width():
    """Siamese of one width."""
    return net(left=mlp(8, 8, 8), right=mlp(8, 8, 8), head=nn.Linear(8, 1))


@certain("rgb | depth", "rgb.0 < rgb.3", "depth.0 < depth.3")
def two_image_encoders():
    """Two image encoders."""
    return net(rgb=cnn(3, 8, 16), depth=cnn(1, 8, 16), head=nn.Linear(32, 2))


@certain("left | right")
def two_image_encoders_of_one_kind():
    """Two image encoders of one kind."""
    return net(left=cnn(3, 8, 16), right=cnn(3, 8, 16))


@certain("left | right", "left.patch < left.layers.0 < left.layers.1")
def two_vision_encoders():
    """Two vision encoders."""
    return net(left=Vision(), right=Vision())


@certain(
    "visual | text",
    "visual.patch < visual.layers.0",
    "text.embed < text.layers.0 < text.layers.1",
)
def clip_like():
    """Clip like."""
    return net(visual=Vision(8), text=Encoder(12, 3), project=nn.Linear(8, 12))


@unsure("patch < image.0 < image.1", "tokens < text.0 < text.1", "image | text")
def clip_like_flat():
    """Clip like flat."""
    return net(
        patch=nn.Conv2d(3, 8, 4), image=blocks(8), tokens=nn.Embedding(9, 8), text=blocks(8, 3)
    )


@unsure("patch < image.0 < image.1", "tokens < text.0 < text.1", "image | text")
def clip_like_flat_with_text_first():
    """Clip like flat with text first."""
    return net(
        tokens=nn.Embedding(9, 8), text=blocks(8, 3), patch=nn.Conv2d(3, 8, 4), image=blocks(8)
    )


@unsure("audio | video")
def towers_of_plain_encoders():
    """Towers of plain encoders."""
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    return net(
        audio=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        video=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
    )


@unsure("tokens < blocks.0 < cross.0 < blocks.1 < cross.1")
def coca_like_lists_in_turn():
    """Coca like lists in turn."""
    return net(tokens=nn.Embedding(9, 8), blocks=blocks(8, 3), cross=blocks(8, 3))


@unsure("codes.0 | codes.1", "codes < layers.0 < layers.1 < layers.2 < layers.3 < heads")
def codebook_embeddings():
    """Codebook embeddings."""
    return net(
        codes=nn.ModuleList(nn.Embedding(9, 8) for _ in range(4)),
        layers=blocks(8, 4),
        heads=nn.ModuleList(nn.Linear(8, 9) for _ in range(4)),
    )


@unsure("members.0 | members.1", "members.0.0 < members.0.2")
def ensemble_in_a_list():
    """Ensemble in a list."""
    return net(members=nn.ModuleList(mlp(8, 16, 1) for _ in range(3)))


@unsure("members.0 | members.1", "members.0.fc1 < members.0.fc2")
def ensemble_of_classes():
    """Ensemble of classes."""
    return net(members=nn.ModuleList(MLP(8, 16, 1) for _ in range(3)))


@unsure("experts.0 | experts.1", "experts < head")
def mixture_of_experts():
    """Mixture of experts."""
    return net(
        experts=nn.ModuleList(mlp(8, 16, 8) for _ in range(4)),
        gate=nn.Linear(8, 4),
        head=nn.Linear(8, 1),
    )


@unsure("experts.0 | experts.1", "experts < head")
def mixture_of_single_experts():
    """Mixture of single experts."""
    return net(
        gate=nn.Linear(8, 4),
        experts=nn.ModuleList(nn.Linear(8, 8) for _ in range(4)),
        head=nn.Linear(8, 1),
    )


@unsure("shared < tasks", "tasks.a | tasks.b", "shared.0 < shared.2")
def many_tasks():
    """Many tasks."""
    tasks = nn.ModuleDict({"a": mlp(16, 16, 1), "b": mlp(16, 16, 1)})
    return net(shared=mlp(4, 16, 16), tasks=tasks)


# --- in a row


@certain("fc1 < fc2 < fc3")
def plain_attributes():
    """Plain attributes."""
    return net(fc1=nn.Linear(20, 16), fc2=nn.Linear(16, 8), fc3=nn.Linear(8, 2))


@certain("fc1 < fc2 < fc3 < fc4")
def plain_attributes_of_one_width():
    """Plain attributes of one width."""
    return net(
        fc1=nn.Linear(20, 16), fc2=nn.Linear(16, 16), fc3=nn.Linear(16, 16), fc4=nn.Linear(16, 2)
    )


@certain("conv1 < conv2 < fc1 < fc2 < fc3")
def lenet():
    """Lenet."""
    return net(
        conv1=nn.Conv2d(1, 6, 5),
        conv2=nn.Conv2d(6, 16, 5),
        fc1=nn.Linear(400, 120),
        fc2=nn.Linear(120, 84),
        fc3=nn.Linear(84, 10),
    )


@unsure("fc1 < fc2 < out")
def attributes_out_of_order():
    """Attributes out of order."""
    return net(out=nn.Linear(16, 2), fc1=nn.Linear(20, 16), fc2=nn.Linear(16, 16))


@unsure("q | k", "k | v", "v < o")
def attention_layers():
    """Attention layers."""
    return net(**{name: nn.Linear(8, 8) for name in "qkvo"})


@unsure("w1 | w3", "w1 < w2")
def gated():
    """Gated."""
    return net(w1=nn.Linear(8, 8), w3=nn.Linear(8, 8), w2=nn.Linear(8, 8))


@certain("first < hidden.0 < hidden.1 < hidden.2 < out")
def hidden_layers_in_a_list():
    """Hidden layers in a list."""
    hidden = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
    return net(first=nn.Linear(4, 16), hidden=hidden, out=nn.Linear(16, 2))


@certain("layers.0 < layers.1 < layers.2 < sigma", "layers.2 < rgb")
def nerf_like():
    """Nerf like."""
    layers = nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
    return net(layers=layers, sigma=nn.Linear(16, 1), rgb=nn.Linear(16, 3))


@unsure("pts.0 < pts.1 < pts.2 < feature < views < rgb", "pts.2 < alpha")
def nerf_with_views():
    """Nerf with views."""
    return net(
        pts=nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(22, 16)]),
        views=nn.ModuleList([nn.Linear(19, 8)]),
        feature=nn.Linear(16, 16),
        alpha=nn.Linear(16, 1),
        rgb=nn.Linear(8, 3),
    )


@certain("encoder.0 < encoder.2 < decoder.0 < decoder.2")
def autoencoder():
    """Autoencoder."""
    return net(encoder=mlp(20, 16, 4), decoder=mlp(4, 16, 20))


@unsure("encoder < decoder")
def autoencoder_of_one_width():
    """Autoencoder of one width."""
    return net(encoder=mlp(8, 4, 8), decoder=mlp(8, 4, 8))


@unsure("encoder < decoder")
def autoencoder_decoder_first():
    """Autoencoder decoder first."""
    return net(decoder=mlp(4, 16, 20), encoder=mlp(20, 16, 4))


@certain(
    "encoder.0 < encoder.2 < mu < decoder.0 < decoder.2",
    "encoder < logvar < decoder",
    "mu | logvar",
)
def variational_autoencoder():
    """Variational autoencoder."""
    return net(
        encoder=mlp(20, 16, 12),
        mu=nn.Linear(12, 4),
        logvar=nn.Linear(12, 4),
        decoder=mlp(4, 16, 20),
    )


@certain("fc1 < fc21 < fc3 < fc4", "fc1 < fc22 < fc3", "fc21 | fc22")
def variational_autoencoder_of_attributes():
    """Variational autoencoder of attributes."""
    return net(
        fc1=nn.Linear(20, 16),
        fc21=nn.Linear(16, 4),
        fc22=nn.Linear(16, 4),
        fc3=nn.Linear(4, 16),
        fc4=nn.Linear(16, 20),
    )


@certain("generator.0 < generator.2", "discriminator.0 < discriminator.2")
def generator_and_discriminator():
    """Generator and discriminator."""
    return net(generator=mlp(5, 16, 20), discriminator=mlp(20, 16, 1))


@unsure("generator.0 < generator.2", "discriminator.0 < discriminator.2")
def discriminator_and_generator():
    """Discriminator and generator."""
    return net(discriminator=mlp(20, 16, 1), generator=mlp(5, 16, 20))


@unsure("there | back")
def cycle_gan():
    """Cycle gan."""
    return net(there=cnn(3, 8, 3), back=cnn(3, 8, 3), judge=cnn(3, 8, 1))


@certain("fc < up1 < up2 < out")
def deconvolution_generator():
    """Deconvolution generator."""
    return net(
        fc=nn.Linear(10, 16 * 16),
        up1=nn.ConvTranspose2d(16, 12, 4),
        up2=nn.ConvTranspose2d(12, 8, 4),
        out=nn.Conv2d(8, 3, 3),
    )


@certain("cnn.0 < cnn.1 < rnn < dnn.0 <= dnn.2")
def crdnn():
    """Crdnn."""
    return net(
        cnn=nn.Sequential(DoubleConv(1, 8), DoubleConv(8, 16)),
        rnn=nn.LSTM(16 * 10, 12, num_layers=2, bidirectional=True),
        dnn=nn.Sequential(MLP(24, 16, 16), nn.ReLU(), MLP(16, 16, 10)),
    )


@certain("cnn.0 < cnn.3 < rnn < out")
def crnn_of_layers():
    """Crnn of layers."""
    return net(cnn=cnn(1, 8, 16), rnn=nn.GRU(16 * 4, 12, bidirectional=True), out=nn.Linear(24, 5))


@unsure("encoder.embed < encoder.rnn", "decoder.embed < decoder.rnn < decoder.out")
def seq2seq():
    """Seq2seq."""
    return net(
        encoder=net(embed=nn.Embedding(9, 8), rnn=nn.GRU(8, 12)),
        decoder=net(embed=nn.Embedding(9, 8), rnn=nn.GRU(8, 12), out=nn.Linear(12, 9)),
    )


@unsure("source < encoder", "target < decoder < out")
def seq2seq_of_attributes():
    """Seq2seq of attributes."""
    return net(
        source=nn.Embedding(9, 8),
        target=nn.Embedding(9, 8),
        encoder=nn.LSTM(8, 12, num_layers=2),
        decoder=nn.LSTM(8, 12, num_layers=2),
        out=nn.Linear(12, 9),
    )


@certain("embed < rnn < out")
def text_classifier():
    """Text classifier."""
    return net(embed=nn.Embedding(9, 8), rnn=nn.LSTM(8, 12), out=nn.Linear(12, 2))


@unsure("embed < hidden < out")
def neural_language_model():
    """Neural language model."""
    return net(embed=nn.Embedding(9, 8), hidden=nn.Linear(24, 16), out=nn.Linear(16, 9))


@unsure("embed < convs < fc", "convs.0 | convs.1")
def text_cnn():
    """Text cnn."""
    convs = nn.ModuleList(nn.Conv1d(8, 6, size) for size in (3, 4, 5))
    return net(embed=nn.Embedding(9, 8), convs=convs, fc=nn.Linear(18, 2))


@unsure("tokens < layers.0 < layers.1 < head", "numbers < layers.0", "tokens | numbers")
def input_linear_beside_an_embedding():
    """Input linear beside an embedding."""
    return net(
        tokens=nn.Embedding(9, 8),
        numbers=nn.Linear(5, 8),
        layers=blocks(8),
        head=nn.Linear(8, 2),
    )


@unsure("tokens < layers.0 < layers.1 < head", "numbers < layers.0", "tokens | numbers")
def input_linear_of_another_width():
    """Input linear of another width."""
    return net(
        tokens=nn.Embedding(9, 12),
        numbers=nn.Linear(5, 4),
        layers=blocks(16),
        head=nn.Linear(16, 2),
    )


@certain("convs.0 < convs.1 < convs.2 < head")
def graph_network():
    """Graph network."""
    return net(
        convs=nn.ModuleList([GraphConv(9, 16), GraphConv(16, 16), GraphConv(16, 16)]),
        norms=nn.ModuleList(nn.BatchNorm1d(16) for _ in range(3)),
        head=nn.Linear(16, 2),
    )


@unsure("nodes < convs.0 < convs.1 < head", "edges < convs.0", "nodes | edges")
def graph_network_with_encoders():
    """Graph network with encoders."""
    return net(
        nodes=nn.Linear(9, 16),
        edges=nn.Linear(4, 16),
        convs=nn.ModuleList(GraphConv(16, 16) for _ in range(2)),
        head=nn.Linear(16, 2),
    )


@certain("conv1 < conv2")
def graph_network_of_attributes():
    """Graph network of attributes."""
    return net(conv1=GraphConv(9, 16), conv2=GraphConv(16, 7))


@unsure(
    "first < filters.0 < filters.1 < filters.2 < last",
    "filters.0 | gates.0",
    "filters.1 | gates.1",
)
def wavenet():
    """Wavenet."""
    return net(
        first=nn.Conv1d(1, 8, 1),
        filters=nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**at) for at in range(3)),
        gates=nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**at) for at in range(3)),
        skips=nn.ModuleList(nn.Conv1d(8, 4, 1) for _ in range(3)),
        last=nn.Conv1d(4, 9, 1),
    )


@certain("patch < layers.0 < layers.1 < head")
def mlp_mixer():
    """Mlp mixer."""
    layers = [net(tokens=mlp(6, 12, 6), channels=mlp(8, 16, 8)) for _ in range(2)]
    for layer in layers:
        layer.__class__ = type(layers[0])
    return net(patch=nn.Conv2d(3, 8, 4), layers=nn.ModuleList(layers), head=nn.Linear(8, 2))


@unsure("enc1 < enc2 < mid < dec2 < dec1 < out", "up2 <= dec2", "up1 <= dec1")
def unet_by_hand():
    """Unet by hand."""
    return net(
        enc1=DoubleConv(3, 8),
        enc2=DoubleConv(8, 16),
        mid=DoubleConv(16, 32),
        up2=nn.ConvTranspose2d(32, 16, 2, 2),
        dec2=DoubleConv(32, 16),
        up1=nn.ConvTranspose2d(16, 8, 2, 2),
        dec1=DoubleConv(16, 8),
        out=nn.Conv2d(8, 1, 1),
    )


@unsure("enc1 < enc2 < mid < dec2 < dec1 < out")
def unet_of_sequentials():
    """Unet of sequentials."""
    return net(
        enc1=cnn(3, 8, 8),
        enc2=cnn(8, 16, 16),
        mid=cnn(16, 32, 32),
        dec2=cnn(48, 16, 16),
        dec1=cnn(24, 8, 8),
        out=nn.Conv2d(8, 1, 1),
    )


@unsure("downs.0 < downs.1 < mid < ups.0 < ups.1 < out")
def unet_of_lists():
    """Unet of lists."""
    return net(
        downs=nn.ModuleList([DoubleConv(3, 8), DoubleConv(8, 16)]),
        ups=nn.ModuleList([DoubleConv(32 + 16, 16), DoubleConv(16 + 8, 8)]),
        mid=DoubleConv(16, 32),
        out=nn.Conv2d(8, 1, 1),
    )


@unsure("first < down.0 < down.1 < mid < up.0 < up.1 < out", "time < down.1")
def unet_with_the_middle_last():
    """Unet with the middle last."""

    class Res(nn.Module):
        def __init__(self, a, b):
            super().__init__()
            self.conv = nn.Conv2d(a, b, 3)
            self.time = nn.Linear(64, b)
            self.more = nn.Conv2d(b, b, 3)

    class Stage(nn.Module):
        def __init__(self, *pairs):
            super().__init__()
            self.resnets = nn.ModuleList(Res(*pair) for pair in pairs)

    class Middle(Stage):
        pass

    return net(
        first=nn.Conv2d(4, 16, 3),
        time=mlp(16, 64, 64),
        down=nn.ModuleList([Stage((16, 16), (16, 16)), Stage((16, 32), (32, 32))]),
        up=nn.ModuleList([Stage((64, 32), (48, 32)), Stage((48, 16), (32, 16))]),
        mid=Middle((32, 32), (32, 32)),
        out=nn.Conv2d(16, 4, 3),
    )


@certain(
    "encoder.stem < encoder.layer1 < encoder.layer2 < decoder.blocks.0 < decoder.blocks.1 < head",
)
def encoder_and_new_decoder():
    """Encoder and new decoder."""
    encoder = net(
        stem=nn.Conv2d(3, 8, 3),
        layer1=nn.Sequential(DoubleConv(8, 8), DoubleConv(8, 8)),
        layer2=nn.Sequential(DoubleConv(8, 16), DoubleConv(16, 16)),
    )
    decoder = net(blocks=nn.ModuleList([DoubleConv(16 + 8, 12), DoubleConv(12 + 8, 6)]))
    return net(encoder=encoder, decoder=decoder, head=nn.Conv2d(6, 2, 1))


@unsure(
    "backbone.0 <= backbone.3 <= convs <= project <= out",
    "convs.0 | convs.1",
    "convs.1 | convs.2",
)
def aspp():
    """Aspp."""
    convs = nn.ModuleList(
        nn.Sequential(nn.Conv2d(16, 4, 3, padding=rate, dilation=rate), nn.BatchNorm2d(4))
        for rate in (1, 2, 4)
    )
    project = nn.Sequential(nn.Conv2d(12, 4, 1), nn.BatchNorm2d(4))
    return net(backbone=cnn(3, 8, 16), convs=convs, project=project, out=nn.Conv2d(4, 2, 1))


@unsure("backbone <= lateral", "lateral <= smooth", "lateral.0 | lateral.1", "smooth.0 | smooth.1")
def feature_pyramid():
    """Feature pyramid."""
    return net(
        backbone=nn.ModuleList([DoubleConv(3, 8), DoubleConv(8, 16), DoubleConv(16, 32)]),
        lateral=nn.ModuleList(nn.Conv2d(width, 12, 1) for width in (8, 16, 32)),
        smooth=nn.ModuleList(nn.Conv2d(12, 12, 3) for _ in range(3)),
    )


@unsure("backbone <= project < encoder.0 < encoder.1 < decoder.0 < decoder.1 < boxes")
def detr_like():
    """Detr like."""
    return net(
        backbone=cnn(3, 8, 16),
        project=nn.Conv2d(16, 8, 1),
        encoder=nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2)),
        decoder=nn.ModuleList(nn.TransformerDecoderLayer(8, 2, 16) for _ in range(2)),
        boxes=mlp(8, 8, 4),
    )


@unsure("patch < encoder.0 < encoder.1 < decoder.0", "project <= decoder.0 < decoder.1 < pixels")
def masked_autoencoder():
    """Masked autoencoder."""
    return net(
        patch=nn.Conv2d(3, 16, 4),
        encoder=blocks(16),
        project=nn.Linear(16, 8),
        decoder=blocks(8),
        pixels=nn.Linear(8, 48),
    )


@unsure("patch < encoder.0 < encoder.1 < decoder.0", "project <= decoder.0 < decoder.1 < pixels")
def masked_autoencoder_of_one_width():
    """Masked autoencoder of one width."""
    return net(
        patch=nn.Conv2d(3, 8, 4),
        encoder=blocks(8),
        project=nn.Linear(8, 8),
        decoder=blocks(8),
        pixels=nn.Linear(8, 48),
    )


@unsure("embed < hyper.0 < hyper.2")
def hypernetwork():
    """Hypernetwork."""
    return net(embed=nn.Embedding(4, 8), hyper=mlp(8, 16, 40), main=nn.Linear(4, 10))


@unsure("body.0 < body.2 < a", "body.2 < b", "a | b")
def squeeze_and_two_heads():
    """Squeeze and two heads."""
    return net(body=mlp(4, 16, 16), a=mlp(16, 16, 16), b=mlp(16, 16, 16))


@unsure("stem < branch1", "stem < branch2", "branch1 | branch2", "branch1 < out")
def inception_branches():
    """Inception branches."""
    return net(
        stem=cnn(3, 8),
        branch1=cnn(8, 8, 8),
        branch2=cnn(8, 8, 8),
        out=nn.Conv2d(16, 2, 1),
    )


@certain("image | text", "image < head", "text < head", "head.0 < head.2")
def fusion_of_image_and_text():
    """Fusion of image and text."""
    return net(
        image=cnn(3, 8, 16),
        text=nn.Sequential(nn.EmbeddingBag(9, 8), nn.Linear(8, 12)),
        head=mlp(28, 16, 2),
    )


@unsure("conv1 < conv2 < conv3 < fc1 < fc2")
def pointnet_like():
    """Pointnet like."""
    return net(
        conv1=nn.Conv1d(3, 8, 1),
        conv2=nn.Conv1d(8, 16, 1),
        conv3=nn.Conv1d(16, 32, 1),
        fc1=nn.Linear(32, 16),
        fc2=nn.Linear(16, 9),
    )


@unsure("student | teacher")
def teacher_and_student():
    """Teacher and student."""
    return net(student=mlp(8, 16, 4), teacher=mlp(8, 16, 4))


@unsure("a < b < c")
def blocks_as_attributes_out_of_order():
    """Blocks as attributes out of order."""
    return net(c=DoubleConv(32, 64), b=DoubleConv(16, 32), a=DoubleConv(3, 16))


@unsure("stem < one", "stem < two", "one | two")
def twin_blocks_as_attributes():
    """Twin blocks as attributes."""
    return net(stem=nn.Linear(4, 8), one=MLP(8, 16, 8), two=MLP(8, 16, 8), out=nn.Linear(8, 1))


@unsure("embed < attention.0 < mix.0 < attention.1 < mix.1 < out")
def lists_of_two_classes_in_turn():
    """Lists of two classes in turn."""
    return net(
        embed=nn.Embedding(9, 8),
        attention=nn.ModuleList(net(q=nn.Linear(8, 8), o=nn.Linear(8, 8)) for _ in range(3)),
        mix=nn.ModuleList(MLP(8, 16, 8) for _ in range(3)),
        out=nn.Linear(8, 9),
    )


@unsure("experts.0 | experts.1", "experts.1 | experts.2", "tasks.0 | tasks.1", "experts <= tasks")
def many_gates():
    """Many gates."""
    return net(
        experts=nn.ModuleList(mlp(8, 16, 8) for _ in range(3)),
        gates=nn.ModuleList(nn.Linear(8, 3) for _ in range(2)),
        tasks=nn.ModuleList(mlp(8, 8, 1) for _ in range(2)),
    )


@certain("encoders.rgb | encoders.ir", "encoders < head")
def encoders_in_a_dict():
    """Encoders in a dict."""
    encoders = nn.ModuleDict({"rgb": mlp(8, 16, 8), "ir": mlp(8, 16, 8)})
    return net(encoders=encoders, head=nn.Linear(16, 2))


@certain("layers.layer1 < layers.layer2 < head")
def layers_in_a_dict():
    """Layers in a dict."""
    layers = nn.ModuleDict({"layer1": zoo.Block(8), "layer2": zoo.Block(8)})
    return net(layers=layers, head=nn.Linear(8, 2))


@certain("body.0 < body.1", "body < heads", "heads.a | heads.b")
def heads_in_a_dict():
    """Heads in a dict."""
    heads = nn.ModuleDict({"a": mlp(8, 8, 8), "b": mlp(8, 8, 8)})
    return net(body=blocks(8, 3), heads=heads)


@certain("encoder.0 < encoder.3 < decoder.0 < decoder.3", "codes < decoder", "encoder | codes")
def vq_autoencoder():
    """An autoencoder of images with a table of codes."""
    return net(encoder=cnn(3, 8, 16), codes=nn.Embedding(32, 16), decoder=cnn(16, 8, 3))


@certain("encoder.0 < encoder.3 < decoder.0 < decoder.3")
def image_autoencoder():
    """Image autoencoder."""
    return net(encoder=cnn(3, 8, 16), decoder=cnn(16, 8, 3))


@unsure(
    "body.0 < body.1 < body.2", "body.2 < first.0 < first.1", "body.2 < second.0", "first | second"
)
def two_decoders():
    """Two decoders."""
    return net(start=nn.Linear(4, 8), body=blocks(8, 3), first=blocks(8, 2), second=blocks(8, 2))


@certain("actor.start < actor.body.0 < actor.body.1 < actor.out", "actor | critic")
def actor_critic_of_blocks():
    """Actor critic of blocks."""

    def part(outputs):
        return net(start=nn.Linear(4, 8), body=blocks(8), out=nn.Linear(8, outputs))

    return net(actor=part(2), critic=part(1))


@certain("start < body.0 < body.1 < out", "condition < body.0")
def an_input_that_is_registered_last():
    """The layer that takes the input is registered after the blocks."""
    return net(
        condition=mlp(3, 8, 16), body=blocks(16), start=nn.Linear(4, 16), out=nn.Linear(16, 2)
    )


@certain("backbone.0 < backbone.1 <= project <= encoder.0 < encoder.1", "backbone < levels")
def an_embedding_of_levels():
    """Added to what the backbone gives, before the encoder: the first convolution takes none."""
    model = net(
        backbone=nn.Sequential(DoubleConv(3, 16), DoubleConv(16, 32)),
        project=nn.Conv2d(32, 8, 1),
        encoder=nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 12) for _ in range(2)),
        out=nn.Linear(8, 3),
    )
    model.levels = nn.Parameter(nn.init.zeros_(nn.Linear(8, 4).weight.detach().clone()))
    return model


@certain("blocks.0 < blocks.1 < out", "kinds < out")
def a_table_of_another_width_after_the_blocks():
    """A table of another width after the blocks."""
    return net(blocks=blocks(8), out=nn.Linear(8, 2), kinds=nn.Embedding(3, 5))


@unsure("a < d", "b < d")
def an_end_for_two():
    """A layer that may follow two of three parts."""
    return net(a=mlp(4, 6, 8), b=mlp(5, 6, 8), c=mlp(7, 6, 3), d=nn.Linear(8, 2))


@unsure("first | second")
def features_of_several_times_the_width():
    """Features of several times the width."""
    first = net(start=nn.Linear(4, 8), body=blocks(8))
    return net(first=first, second=net(body=blocks(16)))


@unsure("first | second")
def lists_that_do_not_fit():
    """Lists that do not fit."""
    return net(first=blocks(8), second=blocks(11))


@unsure("start < body.0 < body.1 < body.2", "body.2 <= heads", "heads.0 | heads.1")
def small_models_as_heads():
    """Small models as heads."""

    def head():
        return net(start=nn.Linear(32, 4), body=blocks(4), out=nn.Linear(4, 1))

    heads = nn.ModuleList(head() for _ in range(2))
    return net(start=nn.Linear(4, 32), body=blocks(32, 3), heads=heads)


@unsure("body.0.q | body.0.k")
def one_block():
    """One block, whose parts are no layers."""
    return net(body=nn.ModuleList([net(q=nn.Linear(8, 8), k=nn.Linear(8, 8))]))


@unsure("body1.0 < body1.1 < body2.0 < body2.1 < up")
def a_layer_that_takes_what_comes_later():
    """A recurrent state: what the last layer gives is taken by one in the middle."""
    return net(body1=blocks(8), back=nn.Linear(16, 8), body2=blocks(8), up=nn.Linear(8, 16))


@unsure("blocks.0 < blocks.1")
def a_block_that_feeds_none():
    """A part like the blocks that takes and gives other widths."""
    body = nn.ModuleList([DoubleConv(3, 8), DoubleConv(8, 16)])
    return net(blocks=body, beside=DoubleConv(30, 70))


@unsure("start < branches < out", "branches.0 | branches.1", "branches.1 | branches.2")
def branches_put_side_by_side():
    """The layer after a list takes what its members give together: branches, or all layers."""
    branches = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
    return net(start=nn.Linear(4, 8), branches=branches, out=nn.Linear(24, 2))


@unsure("start < aspp < project < out", "aspp.0 | aspp.1", "aspp.1 | aspp.2")
def blocks_put_side_by_side():
    """The same with branches of several layers."""
    aspp = nn.ModuleList(DoubleConv(8, 8) for _ in range(3))
    project = nn.Sequential(nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8))
    return net(start=DoubleConv(3, 8), aspp=aspp, project=project, out=nn.Conv2d(8, 2, 1))


@unsure("start < body.0 < body.1 < body.2", "body.2 < heads.0", "heads.0 | heads.1")
def as_many_heads_as_blocks():
    """Heads of the width of the blocks, as many as there are blocks, are not run in turn."""
    heads = nn.ModuleList(mlp(8, 8, 8) for _ in range(3))
    return net(start=nn.Linear(4, 8), body=blocks(8, 3), heads=heads)


@unsure("down.0 < down.1 < mid < up.0 < up.1")
def a_net_of_widths_registered_upside_down():
    """The way up is registered first, and nothing before it gives what it takes."""
    up = nn.ModuleList([DoubleConv(68, 16), DoubleConv(24, 8)])
    down = nn.ModuleList([DoubleConv(3, 8), DoubleConv(8, 20)])
    return net(up=up, mid=DoubleConv(20, 48), down=down)


@unsure("down.fine < down.coarse < up")
def a_dict_whose_members_follow_one_another():
    """Its names do not count, and its widths make a chain."""
    down = nn.ModuleDict({"fine": nn.Conv2d(3, 8, 3), "coarse": nn.Conv2d(8, 16, 3)})
    return net(down=down, up=nn.Conv2d(16, 3, 3))


class Narrow(nn.Module):
    """Two layers, the inner one half as wide."""

    def __init__(self, width, out=None):
        super().__init__()
        self.down = nn.Linear(width, width // 2)
        self.up = nn.Linear(width // 2, out or width)


@unsure("actor | critic")
def two_parts_of_one_class_and_other_ends():
    """One class, one input, and the first gives what it takes."""
    return net(actor=Narrow(8), critic=Narrow(8, 1))


@unsure("one.layer0 < two.layer0 < one.layer1 < two.layer1")
def dicts_that_take_turns():
    """Lists of equal length under names that count."""
    one = nn.ModuleDict({f"layer{at}": zoo.Block(8) for at in range(2)})
    two = nn.ModuleDict({f"layer{at}": Narrow(8) for at in range(2)})
    return net(start=nn.Linear(4, 8), one=one, two=two, out=nn.Linear(8, 2))


@unsure("down.0 < down.1 < mid < up.0 < up.1")
def a_net_of_single_layers_whose_middle_is_registered_last():
    """Its middle takes what the way down gives, and might take two maps of the way up."""
    down = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)])
    up = nn.ModuleList([nn.Conv2d(32, 8, 3), nn.Conv2d(16, 3, 3)])
    return net(down=down, up=up, mid=nn.Conv2d(16, 16, 3))
