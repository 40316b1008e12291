"""Small architectures of many kinds, and the order in which each runs its parts.

Each is a function that builds a model; its docstring says the order: ``a < b`` for parts of
which the second takes, by whatever way, what the first gives (``a <= b``: if not in one layer), ``a | b`` for parts of which
neither takes what the other gives. Those in ``CERTAIN`` have to be read, the others are read
rightly or refused.
"""

from torch import nn

from tests import zoo

CERTAIN, OPEN = [], []


def certain(build):
    """An architecture whose order widths and containers tell."""
    CERTAIN.append(build)
    return build


def unsure(build):
    """An architecture that may be refused."""
    OPEN.append(build)
    return build


def net(**parts):
    """A module of a class of its own, with these parts."""
    made = type("Net", (nn.Module,), {})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def mlp(*widths):
    """Linear layers in a row."""
    layers = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(*widths):
    """Convolutions with their norms in a row."""
    layers = []
    for a, b in zip(widths, widths[1:], strict=False):
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


@certain
def actor_critic():
    """actor | critic; actor.0 < actor.2; critic.0 < critic.2 < critic.4"""
    return net(actor=mlp(4, 16, 2), critic=mlp(4, 16, 16, 1))


@unsure
def actor_critic_of_one_width():
    """actor | critic"""
    return net(actor=mlp(8, 16, 8), critic=mlp(8, 16, 1))


@certain
def actor_critic_classes():
    """actor | critic; actor.fc1 < actor.fc2"""
    return net(actor=MLP(4, 16, 2), critic=MLP(4, 16, 1))


@unsure
def actor_critic_classes_of_one_width():
    """actor | critic"""
    return net(actor=MLP(8, 16, 8), critic=MLP(8, 16, 8))


@certain
def actor_critic_with_a_trunk():
    """trunk < actor; trunk < critic; actor | critic"""
    return net(trunk=mlp(4, 32, 16), actor=nn.Linear(16, 2), critic=nn.Linear(16, 1))


@certain
def dueling():
    """features < value; features < adv; value | adv; value.0 < value.2; adv.0 < adv.2"""
    features = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
    return net(features=features, value=mlp(16, 16, 1), adv=mlp(16, 16, 2))


@certain
def dueling_layers():
    """fc1 < fc2 < value; fc2 < adv; value | adv"""
    return net(
        fc1=nn.Linear(4, 16), fc2=nn.Linear(16, 16), value=nn.Linear(16, 1), adv=nn.Linear(16, 2)
    )


@unsure
def dueling_attributes():
    """fc1 < value_fc < value_out; fc1 < adv_fc < adv_out; value_fc | adv_fc"""
    return net(
        fc1=nn.Linear(4, 16),
        value_fc=nn.Linear(16, 16),
        value_out=nn.Linear(16, 1),
        adv_fc=nn.Linear(16, 16),
        adv_out=nn.Linear(16, 2),
    )


@unsure
def dueling_of_one_width():
    """features < value; features < adv; value | adv"""
    return net(features=mlp(16, 16, 16), value=mlp(16, 16, 16), adv=mlp(16, 16, 16))


@certain
def twin_critics_as_attributes():
    """l1 < l2 < l3; l4 < l5 < l6; l3 | l6; l1 | l4"""
    sizes = {1: (8, 16), 2: (16, 16), 3: (16, 1), 4: (8, 16), 5: (16, 16), 6: (16, 1)}
    return net(**{f"l{at}": nn.Linear(*size) for at, size in sizes.items()})


@certain
def gaussian_policy():
    """l1 < l2 < mean; l2 < log_std; mean | log_std"""
    return net(
        l1=nn.Linear(4, 16), l2=nn.Linear(16, 16), mean=nn.Linear(16, 2), log_std=nn.Linear(16, 2)
    )


@unsure
def gaussian_policy_of_one_width():
    """l1 < mean; l1 < log_std; mean | log_std"""
    return net(l1=nn.Linear(4, 16), mean=nn.Linear(16, 16), log_std=nn.Linear(16, 16))


@certain
def nature_dqn():
    """conv1 < conv2 < conv3 < fc1 < fc2"""
    return net(
        conv1=nn.Conv2d(4, 32, 8, 4),
        conv2=nn.Conv2d(32, 64, 4, 2),
        conv3=nn.Conv2d(64, 64, 3),
        fc1=nn.Linear(64 * 49, 32),
        fc2=nn.Linear(32, 6),
    )


# --- towers


@certain
def two_tower_recommender():
    """user | item; user.0 < user.1 < user.3; item.0 < item.1 < item.3"""

    def tower(count):
        return nn.Sequential(nn.Embedding(count, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

    return net(user=tower(10), item=tower(20))


@certain
def two_towers_of_attributes():
    """user_table | item_table; user_table < user_fc; item_table < item_fc; user_fc | item_fc"""
    return net(
        user_table=nn.Embedding(10, 8),
        item_table=nn.Embedding(20, 8),
        user_fc=nn.Linear(8, 4),
        item_fc=nn.Linear(8, 4),
    )


@certain
def tables_in_a_list():
    """tables.0 | tables.1; tables.1 | tables.2; tables.0 < top; top.0 < top.2"""
    return net(tables=nn.ModuleList(nn.Embedding(9, 8) for _ in range(3)), top=mlp(24, 16, 1))


@certain
def tables_in_a_list_that_are_summed():
    """tables.0 | tables.1; tables.2 < top.0 < top.2"""
    return net(tables=nn.ModuleList(nn.Embedding(9, 8) for _ in range(3)), top=mlp(8, 8, 1))


@unsure
def dlrm():
    """tables.0 | tables.1; bottom | tables; bottom < top; tables < top"""
    tables = nn.ModuleList(nn.EmbeddingBag(9, 8) for _ in range(3))
    return net(tables=tables, bottom=mlp(5, 16, 8), top=mlp(14, 16, 1))


@unsure
def dlrm_in_another_order():
    """tables.0 | tables.1; bottom | tables; bottom < top; tables < top"""
    tables = nn.ModuleList(nn.EmbeddingBag(9, 8) for _ in range(3))
    return net(bottom=mlp(5, 16, 8), tables=tables, top=mlp(14, 16, 1))


@unsure
def wide_and_deep():
    """wide | deep; tables < deep"""
    tables = nn.ModuleDict({"a": nn.Embedding(9, 4), "b": nn.Embedding(9, 4)})
    return net(wide=nn.Linear(30, 1), tables=tables, deep=mlp(8, 16, 1))


@unsure
def neural_collaborative_filtering():
    """user | item; user < layers; item < layers; layers.0 < layers.1 < out"""
    return net(
        user=nn.Embedding(9, 8),
        item=nn.Embedding(9, 8),
        layers=nn.ModuleList([nn.Linear(16, 8), nn.Linear(8, 4)]),
        out=nn.Linear(4, 1),
    )


@certain
def siamese_halves():
    """left | right; left < head; right < head"""
    return net(left=mlp(8, 16, 4), right=mlp(8, 16, 4), head=nn.Linear(8, 1))


@unsure
def siamese_of_one_width():
    """left | right"""
    return net(left=mlp(8, 8, 8), right=mlp(8, 8, 8), head=nn.Linear(8, 1))


@certain
def two_image_encoders():
    """rgb | depth; rgb.0 < rgb.3; depth.0 < depth.3"""
    return net(rgb=cnn(3, 8, 16), depth=cnn(1, 8, 16), head=nn.Linear(32, 2))


@certain
def two_image_encoders_of_one_kind():
    """left | right"""
    return net(left=cnn(3, 8, 16), right=cnn(3, 8, 16))


@certain
def two_vision_encoders():
    """left | right; left.patch < left.layers.0 < left.layers.1"""
    return net(left=Vision(), right=Vision())


@certain
def clip_like():
    """visual | text; visual.patch < visual.layers.0; text.embed < text.layers.0 < text.layers.1"""
    return net(visual=Vision(8), text=Encoder(12, 3), project=nn.Linear(8, 12))


@unsure
def clip_like_flat():
    """patch < image.0 < image.1; tokens < text.0 < text.1; image | text"""
    return net(
        patch=nn.Conv2d(3, 8, 4), image=blocks(8), tokens=nn.Embedding(9, 8), text=blocks(8, 3)
    )


@unsure
def clip_like_flat_with_text_first():
    """patch < image.0 < image.1; tokens < text.0 < text.1; image | text"""
    return net(
        tokens=nn.Embedding(9, 8), text=blocks(8, 3), patch=nn.Conv2d(3, 8, 4), image=blocks(8)
    )


@unsure
def towers_of_plain_encoders():
    """audio | video"""
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    return net(
        audio=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        video=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
    )


@unsure
def coca_like_lists_in_turn():
    """tokens < blocks.0 < cross.0 < blocks.1 < cross.1"""
    return net(tokens=nn.Embedding(9, 8), blocks=blocks(8, 3), cross=blocks(8, 3))


@unsure
def codebook_embeddings():
    """codes.0 | codes.1; codes < layers.0 < layers.1 < layers.2 < layers.3 < heads"""
    return net(
        codes=nn.ModuleList(nn.Embedding(9, 8) for _ in range(4)),
        layers=blocks(8, 4),
        heads=nn.ModuleList(nn.Linear(8, 9) for _ in range(4)),
    )


@unsure
def ensemble_in_a_list():
    """members.0 | members.1; members.0.0 < members.0.2"""
    return net(members=nn.ModuleList(mlp(8, 16, 1) for _ in range(3)))


@unsure
def ensemble_of_classes():
    """members.0 | members.1; members.0.fc1 < members.0.fc2"""
    return net(members=nn.ModuleList(MLP(8, 16, 1) for _ in range(3)))


@unsure
def mixture_of_experts():
    """experts.0 | experts.1; experts < head"""
    return net(
        experts=nn.ModuleList(mlp(8, 16, 8) for _ in range(4)),
        gate=nn.Linear(8, 4),
        head=nn.Linear(8, 1),
    )


@unsure
def mixture_of_single_experts():
    """experts.0 | experts.1; experts < head"""
    return net(
        gate=nn.Linear(8, 4),
        experts=nn.ModuleList(nn.Linear(8, 8) for _ in range(4)),
        head=nn.Linear(8, 1),
    )


@unsure
def many_tasks():
    """shared < tasks; tasks.a | tasks.b; shared.0 < shared.2"""
    tasks = nn.ModuleDict({"a": mlp(16, 16, 1), "b": mlp(16, 16, 1)})
    return net(shared=mlp(4, 16, 16), tasks=tasks)


# --- in a row


@certain
def plain_attributes():
    """fc1 < fc2 < fc3"""
    return net(fc1=nn.Linear(20, 16), fc2=nn.Linear(16, 8), fc3=nn.Linear(8, 2))


@certain
def plain_attributes_of_one_width():
    """fc1 < fc2 < fc3 < fc4"""
    return net(
        fc1=nn.Linear(20, 16), fc2=nn.Linear(16, 16), fc3=nn.Linear(16, 16), fc4=nn.Linear(16, 2)
    )


@certain
def lenet():
    """conv1 < conv2 < fc1 < fc2 < fc3"""
    return net(
        conv1=nn.Conv2d(1, 6, 5),
        conv2=nn.Conv2d(6, 16, 5),
        fc1=nn.Linear(400, 120),
        fc2=nn.Linear(120, 84),
        fc3=nn.Linear(84, 10),
    )


@unsure
def attributes_out_of_order():
    """fc1 < fc2 < out"""
    return net(out=nn.Linear(16, 2), fc1=nn.Linear(20, 16), fc2=nn.Linear(16, 16))


@unsure
def attention_layers():
    """q | k; k | v; v < o"""
    return net(**{name: nn.Linear(8, 8) for name in "qkvo"})


@unsure
def gated():
    """w1 | w3; w1 < w2"""
    return net(w1=nn.Linear(8, 8), w3=nn.Linear(8, 8), w2=nn.Linear(8, 8))


@certain
def hidden_layers_in_a_list():
    """first < hidden.0 < hidden.1 < hidden.2 < out"""
    hidden = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
    return net(first=nn.Linear(4, 16), hidden=hidden, out=nn.Linear(16, 2))


@certain
def nerf_like():
    """layers.0 < layers.1 < layers.2 < sigma; layers.2 < rgb"""
    layers = nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
    return net(layers=layers, sigma=nn.Linear(16, 1), rgb=nn.Linear(16, 3))


@unsure
def nerf_with_views():
    """pts.0 < pts.1 < pts.2 < feature < views < rgb; pts.2 < alpha"""
    return net(
        pts=nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(22, 16)]),
        views=nn.ModuleList([nn.Linear(19, 8)]),
        feature=nn.Linear(16, 16),
        alpha=nn.Linear(16, 1),
        rgb=nn.Linear(8, 3),
    )


@certain
def autoencoder():
    """encoder.0 < encoder.2 < decoder.0 < decoder.2"""
    return net(encoder=mlp(20, 16, 4), decoder=mlp(4, 16, 20))


@unsure
def autoencoder_of_one_width():
    """encoder < decoder"""
    return net(encoder=mlp(8, 4, 8), decoder=mlp(8, 4, 8))


@unsure
def autoencoder_decoder_first():
    """encoder < decoder"""
    return net(decoder=mlp(4, 16, 20), encoder=mlp(20, 16, 4))


@certain
def variational_autoencoder():
    """encoder.0 < encoder.2 < mu < decoder.0 < decoder.2; encoder < logvar < decoder; mu | logvar"""
    return net(
        encoder=mlp(20, 16, 12),
        mu=nn.Linear(12, 4),
        logvar=nn.Linear(12, 4),
        decoder=mlp(4, 16, 20),
    )


@certain
def variational_autoencoder_of_attributes():
    """fc1 < fc21 < fc3 < fc4; fc1 < fc22 < fc3; fc21 | fc22"""
    return net(
        fc1=nn.Linear(20, 16),
        fc21=nn.Linear(16, 4),
        fc22=nn.Linear(16, 4),
        fc3=nn.Linear(4, 16),
        fc4=nn.Linear(16, 20),
    )


@certain
def generator_and_discriminator():
    """generator.0 < generator.2; discriminator.0 < discriminator.2"""
    return net(generator=mlp(5, 16, 20), discriminator=mlp(20, 16, 1))


@unsure
def discriminator_and_generator():
    """generator.0 < generator.2; discriminator.0 < discriminator.2"""
    return net(discriminator=mlp(20, 16, 1), generator=mlp(5, 16, 20))


@unsure
def cycle_gan():
    """there | back"""
    return net(there=cnn(3, 8, 3), back=cnn(3, 8, 3), judge=cnn(3, 8, 1))


@certain
def deconvolution_generator():
    """fc < up1 < up2 < out"""
    return net(
        fc=nn.Linear(10, 16 * 16),
        up1=nn.ConvTranspose2d(16, 12, 4),
        up2=nn.ConvTranspose2d(12, 8, 4),
        out=nn.Conv2d(8, 3, 3),
    )


@certain
def crdnn():
    """cnn.0 < cnn.1 < rnn < dnn.0 <= dnn.2"""
    return net(
        cnn=nn.Sequential(DoubleConv(1, 8), DoubleConv(8, 16)),
        rnn=nn.LSTM(16 * 10, 12, num_layers=2, bidirectional=True),
        dnn=nn.Sequential(MLP(24, 16, 16), nn.ReLU(), MLP(16, 16, 10)),
    )


@certain
def crnn_of_layers():
    """cnn.0 < cnn.3 < rnn < out"""
    return net(cnn=cnn(1, 8, 16), rnn=nn.GRU(16 * 4, 12, bidirectional=True), out=nn.Linear(24, 5))


@unsure
def seq2seq():
    """encoder.embed < encoder.rnn; decoder.embed < decoder.rnn < decoder.out"""
    return net(
        encoder=net(embed=nn.Embedding(9, 8), rnn=nn.GRU(8, 12)),
        decoder=net(embed=nn.Embedding(9, 8), rnn=nn.GRU(8, 12), out=nn.Linear(12, 9)),
    )


@unsure
def seq2seq_of_attributes():
    """source < encoder; target < decoder < out"""
    return net(
        source=nn.Embedding(9, 8),
        target=nn.Embedding(9, 8),
        encoder=nn.LSTM(8, 12, num_layers=2),
        decoder=nn.LSTM(8, 12, num_layers=2),
        out=nn.Linear(12, 9),
    )


@certain
def text_classifier():
    """embed < rnn < out"""
    return net(embed=nn.Embedding(9, 8), rnn=nn.LSTM(8, 12), out=nn.Linear(12, 2))


@unsure
def neural_language_model():
    """embed < hidden < out"""
    return net(embed=nn.Embedding(9, 8), hidden=nn.Linear(24, 16), out=nn.Linear(16, 9))


@unsure
def text_cnn():
    """embed < convs < fc; convs.0 | convs.1"""
    convs = nn.ModuleList(nn.Conv1d(8, 6, size) for size in (3, 4, 5))
    return net(embed=nn.Embedding(9, 8), convs=convs, fc=nn.Linear(18, 2))


@unsure
def input_linear_beside_an_embedding():
    """tokens < layers.0 < layers.1 < head; numbers < layers.0; tokens | numbers"""
    return net(
        tokens=nn.Embedding(9, 8),
        numbers=nn.Linear(5, 8),
        layers=blocks(8),
        head=nn.Linear(8, 2),
    )


@unsure
def input_linear_of_another_width():
    """tokens < layers.0 < layers.1 < head; numbers < layers.0; tokens | numbers"""
    return net(
        tokens=nn.Embedding(9, 12),
        numbers=nn.Linear(5, 4),
        layers=blocks(16),
        head=nn.Linear(16, 2),
    )


@certain
def graph_network():
    """convs.0 < convs.1 < convs.2 < head"""
    return net(
        convs=nn.ModuleList([GraphConv(9, 16), GraphConv(16, 16), GraphConv(16, 16)]),
        norms=nn.ModuleList(nn.BatchNorm1d(16) for _ in range(3)),
        head=nn.Linear(16, 2),
    )


@unsure
def graph_network_with_encoders():
    """nodes < convs.0 < convs.1 < head; edges < convs.0; nodes | edges"""
    return net(
        nodes=nn.Linear(9, 16),
        edges=nn.Linear(4, 16),
        convs=nn.ModuleList(GraphConv(16, 16) for _ in range(2)),
        head=nn.Linear(16, 2),
    )


@certain
def graph_network_of_attributes():
    """conv1 < conv2"""
    return net(conv1=GraphConv(9, 16), conv2=GraphConv(16, 7))


@unsure
def wavenet():
    """first < filters.0 < filters.1 < filters.2 < last; filters.0 | gates.0; filters.1 | gates.1"""
    return net(
        first=nn.Conv1d(1, 8, 1),
        filters=nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**at) for at in range(3)),
        gates=nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**at) for at in range(3)),
        skips=nn.ModuleList(nn.Conv1d(8, 4, 1) for _ in range(3)),
        last=nn.Conv1d(4, 9, 1),
    )


@certain
def mlp_mixer():
    """patch < layers.0 < layers.1 < head"""
    layers = [net(tokens=mlp(6, 12, 6), channels=mlp(8, 16, 8)) for _ in range(2)]
    for layer in layers:
        layer.__class__ = type(layers[0])
    return net(patch=nn.Conv2d(3, 8, 4), layers=nn.ModuleList(layers), head=nn.Linear(8, 2))


@unsure
def unet_by_hand():
    """enc1 < enc2 < mid < dec2 < dec1 < out; up2 <= dec2; up1 <= dec1"""
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


@unsure
def unet_of_sequentials():
    """enc1 < enc2 < mid < dec2 < dec1 < out"""
    return net(
        enc1=cnn(3, 8, 8),
        enc2=cnn(8, 16, 16),
        mid=cnn(16, 32, 32),
        dec2=cnn(48, 16, 16),
        dec1=cnn(24, 8, 8),
        out=nn.Conv2d(8, 1, 1),
    )


@unsure
def unet_of_lists():
    """downs.0 < downs.1 < mid < ups.0 < ups.1 < out"""
    return net(
        downs=nn.ModuleList([DoubleConv(3, 8), DoubleConv(8, 16)]),
        ups=nn.ModuleList([DoubleConv(32 + 16, 16), DoubleConv(16 + 8, 8)]),
        mid=DoubleConv(16, 32),
        out=nn.Conv2d(8, 1, 1),
    )


@unsure
def unet_with_the_middle_last():
    """first < down.0 < down.1 < mid < up.0 < up.1 < out; time < down.1"""

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


@certain
def encoder_and_new_decoder():
    """encoder.stem < encoder.layer1 < encoder.layer2 < decoder.blocks.0 < decoder.blocks.1 < head"""
    encoder = net(
        stem=nn.Conv2d(3, 8, 3),
        layer1=nn.Sequential(DoubleConv(8, 8), DoubleConv(8, 8)),
        layer2=nn.Sequential(DoubleConv(8, 16), DoubleConv(16, 16)),
    )
    decoder = net(blocks=nn.ModuleList([DoubleConv(16 + 8, 12), DoubleConv(12 + 8, 6)]))
    return net(encoder=encoder, decoder=decoder, head=nn.Conv2d(6, 2, 1))


@unsure
def aspp():
    """backbone.0 <= backbone.3 <= convs <= project <= out; convs.0 | convs.1; convs.1 | convs.2"""
    convs = nn.ModuleList(
        nn.Sequential(nn.Conv2d(16, 4, 3, padding=rate, dilation=rate), nn.BatchNorm2d(4))
        for rate in (1, 2, 4)
    )
    project = nn.Sequential(nn.Conv2d(12, 4, 1), nn.BatchNorm2d(4))
    return net(backbone=cnn(3, 8, 16), convs=convs, project=project, out=nn.Conv2d(4, 2, 1))


@unsure
def feature_pyramid():
    """backbone <= lateral; lateral <= smooth; lateral.0 | lateral.1; smooth.0 | smooth.1"""
    return net(
        backbone=nn.ModuleList([DoubleConv(3, 8), DoubleConv(8, 16), DoubleConv(16, 32)]),
        lateral=nn.ModuleList(nn.Conv2d(width, 12, 1) for width in (8, 16, 32)),
        smooth=nn.ModuleList(nn.Conv2d(12, 12, 3) for _ in range(3)),
    )


@unsure
def detr_like():
    """backbone <= project < encoder.0 < encoder.1 < decoder.0 < decoder.1 < boxes"""
    return net(
        backbone=cnn(3, 8, 16),
        project=nn.Conv2d(16, 8, 1),
        encoder=nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2)),
        decoder=nn.ModuleList(nn.TransformerDecoderLayer(8, 2, 16) for _ in range(2)),
        boxes=mlp(8, 8, 4),
    )


@unsure
def masked_autoencoder():
    """patch < encoder.0 < encoder.1 < decoder.0; project <= decoder.0 < decoder.1 < pixels"""
    return net(
        patch=nn.Conv2d(3, 16, 4),
        encoder=blocks(16),
        project=nn.Linear(16, 8),
        decoder=blocks(8),
        pixels=nn.Linear(8, 48),
    )


@unsure
def masked_autoencoder_of_one_width():
    """patch < encoder.0 < encoder.1 < decoder.0; project <= decoder.0 < decoder.1 < pixels"""
    return net(
        patch=nn.Conv2d(3, 8, 4),
        encoder=blocks(8),
        project=nn.Linear(8, 8),
        decoder=blocks(8),
        pixels=nn.Linear(8, 48),
    )


@unsure
def hypernetwork():
    """embed < hyper.0 < hyper.2"""
    return net(embed=nn.Embedding(4, 8), hyper=mlp(8, 16, 40), main=nn.Linear(4, 10))


@unsure
def squeeze_and_two_heads():
    """body.0 < body.2 < a; body.2 < b; a | b"""
    return net(body=mlp(4, 16, 16), a=mlp(16, 16, 16), b=mlp(16, 16, 16))


@unsure
def inception_branches():
    """stem < branch1; stem < branch2; branch1 | branch2; branch1 < out"""
    return net(
        stem=cnn(3, 8),
        branch1=cnn(8, 8, 8),
        branch2=cnn(8, 8, 8),
        out=nn.Conv2d(16, 2, 1),
    )


@certain
def fusion_of_image_and_text():
    """image | text; image < head; text < head; head.0 < head.2"""
    return net(
        image=cnn(3, 8, 16),
        text=nn.Sequential(nn.EmbeddingBag(9, 8), nn.Linear(8, 12)),
        head=mlp(28, 16, 2),
    )


@unsure
def pointnet_like():
    """conv1 < conv2 < conv3 < fc1 < fc2"""
    return net(
        conv1=nn.Conv1d(3, 8, 1),
        conv2=nn.Conv1d(8, 16, 1),
        conv3=nn.Conv1d(16, 32, 1),
        fc1=nn.Linear(32, 16),
        fc2=nn.Linear(16, 9),
    )


@unsure
def teacher_and_student():
    """student | teacher"""
    return net(student=mlp(8, 16, 4), teacher=mlp(8, 16, 4))


@unsure
def blocks_as_attributes_out_of_order():
    """a < b < c"""
    return net(c=DoubleConv(32, 64), b=DoubleConv(16, 32), a=DoubleConv(3, 16))


@unsure
def twin_blocks_as_attributes():
    """stem < one; stem < two; one | two"""
    return net(stem=nn.Linear(4, 8), one=MLP(8, 16, 8), two=MLP(8, 16, 8), out=nn.Linear(8, 1))
