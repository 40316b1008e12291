"""Depth by one forward: architectures whose order of registration says too little."""

import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnlr._model.describe import describe
from nnlr.depth import flow
from tests import zoo


def exponents(model, *inputs, **settings):
    """Path of each module with parameters, or name of a bare one -> its exponent."""
    info = describe(model)
    layers = flow(*inputs, **settings).layers(info)
    exponents = {}
    for param, layer in zip(info.params, layers, strict=True):
        path = param.owner if param.leaf in {"weight", "bias"} else param.name
        below = layer and layer.below
        assert below == exponents.setdefault(path, below), param.name
    return exponents


def by_layer(model, *inputs, **settings):
    """The modules in each layer, by exponent, from the input on."""
    layers = {}
    for path, below in exponents(model, *inputs, **settings).items():
        layers.setdefault(below, set()).add(path)
    return [layers[below] for below in sorted(layers, reverse=True)]


class Calls(nn.Module):
    """A module whose parts are run by a function."""

    def __init__(self, run, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = run

    def forward(self, *inputs, **kwargs):
        return self.run(self, *inputs, **kwargs)


def mlp(*widths):
    """Linear layers of these widths, with activations between."""
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convs(*channels):
    """Convolutions, each with a norm."""
    return [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in pairwise(channels)
    ]


class CrossBlock(nn.Module):
    """A block that attends to a memory."""

    def __init__(self, width=4):
        super().__init__()
        self.own = nn.MultiheadAttention(width, 1)
        self.cross = nn.MultiheadAttention(width, 1)
        self.mlp = nn.Linear(width, width)

    def forward(self, x, memory):
        x = x + self.own(x, x, x)[0]
        x = x + self.cross(x, memory, memory)[0]
        return x + self.mlp(x)


IDS = torch.tensor([[3, 1, 2]])
VECTOR = torch.zeros(2, 4)


class TestParallel:
    def test_actor_and_critic(self):
        """Each counts for itself, whatever the other one's length."""
        net = Calls(
            lambda m, x: (m.actor(x), m.critic(x)), actor=mlp(4, 8, 2), critic=mlp(4, 8, 8, 1)
        )
        assert [{"critic.0"}, {"actor.0", "critic.2"}, {"actor.2", "critic.4"}] == by_layer(
            net, VECTOR
        )

    def test_users_and_items(self):
        """Two towers of lookups that meet in a product."""

        def tower():
            return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

        net = Calls(lambda m, u, i: (m.user(u) * m.item(i)).sum(), user=tower(), item=tower())
        expected = [{f"{tower}.{at}" for tower in ("user", "item")} for at in (0, 1, 3)]
        assert expected == by_layer(net, IDS, IDS)

    def test_tables_side_by_side(self):
        """DLRM: tables in a list, dense features below, and all together into the top."""

        def run(m, dense, ids):
            rows = [table(ids[:, at]) for at, table in enumerate(m.tables)]
            return m.top(torch.cat([m.bottom(dense), *rows], 1))

        tables = nn.ModuleList(nn.EmbeddingBag(9, 4) for _ in range(3))
        net = Calls(run, tables=tables, bottom=mlp(4, 8, 4), top=mlp(16, 8, 1))
        assert [
            {"bottom.0"},
            {"bottom.2", "tables.0", "tables.1", "tables.2"},
            {"top.0"},
            {"top.2"},
        ] == by_layer(net, VECTOR, torch.zeros(2, 3, 1, dtype=torch.long))

    def test_dueling_heads_registered_first(self):
        """Both heads stand on the features, which come last in the file."""

        def run(m, x):
            features = m.features(x)
            return m.value(features) + m.adv(features)

        net = Calls(run, value=mlp(8, 8, 1), adv=mlp(8, 8, 3), features=mlp(4, 8, 8))
        assert [
            {"features.0"},
            {"features.2"},
            {"value.0", "adv.0"},
            {"value.2", "adv.2"},
        ] == by_layer(net, VECTOR)

    def test_two_image_encoders(self):
        """Left and right, then what joins them."""

        def run(m, x, y):
            both = torch.cat([m.left(x), m.right(y)], 1).mean((2, 3))
            return m.head(both)

        left, right = (nn.Sequential(*convs(3, 4, 4, 4)) for _ in range(2))
        net = Calls(run, left=left, right=right, head=nn.Linear(8, 2))
        image = torch.zeros(1, 3, 8, 8)
        found = exponents(net, image, image)
        for at in range(3):
            for side in ("left", "right"):
                assert found[f"{side}.{at}.0"] == found[f"{side}.{at}.1"] == 3 - at
        assert found["head"] == 0

    def test_parallel_convolutions(self):
        """ASPP: rates side by side are one layer."""

        def run(m, x):
            x = m.stem(x)
            return m.project(torch.cat([conv(x) for conv in m.rates], 1))

        rates = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=r, dilation=r) for r in (1, 2, 3))
        net = Calls(run, stem=nn.Conv2d(3, 4, 1), rates=rates, project=nn.Conv2d(12, 2, 1))
        assert [{"stem"}, {"rates.0", "rates.1", "rates.2"}, {"project"}] == by_layer(
            net, torch.zeros(1, 3, 8, 8)
        )

    def test_one_table_for_each_codebook(self):
        """MusicGen: four tables and four blocks are not four layers of pairs."""

        def run(m, ids):
            x = sum(table(ids) for table in m.tables)
            for block in m.blocks:
                x = block(x)
            return x

        net = Calls(
            run,
            tables=nn.ModuleList(nn.Embedding(9, 4) for _ in range(4)),
            blocks=nn.ModuleList(zoo.Block(4) for _ in range(4)),
        )
        found = exponents(net, IDS)
        assert {4} == {found[f"tables.{at}"] for at in range(4)}
        assert [3, 2, 1, 0] == [found[f"blocks.{at}.fc"] for at in range(4)]


class TestOrder:
    def test_attributes_out_of_order(self):
        """The forward says what comes first."""
        net = Calls(
            lambda m, x: m.last(m.middle(m.first(x))),
            last=nn.Linear(4, 2),
            first=nn.Linear(4, 4),
            middle=nn.Linear(4, 4),
        )
        assert [{"first"}, {"middle"}, {"last"}] == by_layer(net, VECTOR)

    def test_convolutions_then_recurrent_then_dense(self):
        """Speechbrain's CRDNN is one sequence."""

        def run(m, x):
            x = m.cnn(x).flatten(2).transpose(1, 2)
            return m.dnn(m.rnn(x)[0])

        net = Calls(
            run,
            cnn=nn.Sequential(*convs(1, 4, 4)),
            rnn=nn.LSTM(4, 4, 2, batch_first=True),
            dnn=mlp(4, 8, 8, 2),
        )
        found = exponents(net, torch.zeros(1, 1, 4, 4))
        assert found["cnn.0.0"] >= found["cnn.1.0"] > found["rnn.weight_ih_l0"]
        assert found["rnn.weight_ih_l0"] > found["rnn.weight_ih_l1"] > found["dnn.0"] >= 0

    def test_middle_registered_last(self):
        """UNet2DConditionModel: down, up, and then the middle in the file."""

        def run(m, x):
            skips = []
            for block in m.down:
                x = block(x)
                skips.append(x)
            x = m.mid(x)
            for block in m.up:
                x = block(x + skips.pop())
            return x

        net = Calls(
            run,
            down=nn.ModuleList(convs(4, 4, 4)),
            up=nn.ModuleList(convs(4, 4, 4)),
            mid=nn.Sequential(*convs(4, 4)[0]),
        )
        found = exponents(net, torch.zeros(1, 4, 8, 8))
        assert found["down.0.0"] > found["down.1.0"] > found["up.0.0"] > found["up.1.0"] == 0
        assert found["down.1.0"] > found["mid.0"] >= found["up.0.0"]

    @staticmethod
    def of_u_net(widths, joined):
        """The exponents of a U-Net, the head last, whose decoder takes these widths."""

        def run(m, x):
            features = [x]
            for block in m.encoder:
                features.append(F.max_pool2d(block(features[-1]), 2))
            x = features.pop()
            for block in m.decoder:
                x = block(torch.cat(joined(F.interpolate(x, scale_factor=2), features.pop()), 1))
            return m.head(x)

        net = Calls(
            run,
            encoder=nn.ModuleList(convs(3, 4, 8)),
            decoder=nn.ModuleList([convs(width, 4)[0] for width in widths]),
            head=nn.Conv2d(4, 1, 1),
        )
        found = exponents(net, torch.zeros(1, 3, 8, 8))
        names = ("encoder.0.0", "encoder.1.0", "decoder.0.0", "decoder.1.0", "head")
        return [found[name] for name in names]

    def test_decoder_is_above_the_encoder(self):
        """Smp's Unet: the new decoder's bottom is above the pretrained encoder's top."""
        assert [4, 3, 2, 1, 0] == self.of_u_net((12, 7), lambda x, skip: [x, skip])

    def test_a_decoder_whose_widths_do_not_show_its_order(self):
        """It takes skips, and means of both: no width says that its members follow each other."""

        def joined(x, skip):
            return [x, skip, *(each.mean(1, keepdim=True) for each in (skip, x))]

        assert [4, 3, 2, 1, 0] == self.of_u_net((14, 9), joined)

    def test_an_input_of_another_width_beside_a_table(self):
        """Both are below the blocks, whatever their widths are."""

        def run(m, ids, numbers):
            x = m.table(ids) + m.numbers(numbers)
            for block in m.blocks:
                x = block(x)
            return m.head(x)

        net = Calls(
            run,
            table=nn.Embedding(9, 4),
            numbers=nn.Linear(7, 4),
            blocks=nn.ModuleList(zoo.Block(4) for _ in range(2)),
            head=nn.Linear(4, 2),
        )
        found = exponents(net, IDS, torch.zeros(1, 3, 7))
        assert found["table"] == found["numbers"] == 3
        assert found["head"] == 0

    def test_a_graph_network(self):
        """Its input layer is below the convolutions."""

        def run(m, x, graph):
            x = m.inward(x)
            for block in m.blocks:
                x = graph @ block(x)
            return m.out(x)

        net = Calls(
            run,
            out=nn.Linear(4, 2),
            blocks=nn.ModuleList(zoo.Block(4) for _ in range(2)),
            inward=nn.Linear(9, 4),
        )
        found = exponents(net, torch.zeros(3, 9), torch.eye(3))
        assert [3, 2, 1, 0] == [
            found[name] for name in ("inward", "blocks.0.fc", "blocks.1.fc", "out")
        ]

    def test_bare_parameters_are_where_they_act(self):
        """Deformable-DETR: queries and level embeddings stand at the root of the model."""

        def run(m, x):
            for block in m.encoder:
                x = block(x)
            memory = x + m.level
            query = m.query.unsqueeze(1).expand(-1, x.shape[1], -1)
            for block in m.decoder:
                query = block(query, memory)
            return m.head(query)

        net = Calls(
            run,
            encoder=nn.ModuleList(zoo.Block(4) for _ in range(2)),
            decoder=nn.ModuleList(CrossBlock() for _ in range(2)),
            head=nn.Linear(4, 2),
            level=nn.Parameter(torch.zeros(4)),
            query=nn.Parameter(torch.zeros(5, 4)),
        )
        found = exponents(net, torch.zeros(3, 1, 4))
        assert [4, 3, 2, 1, 0] == [
            found[name]
            for name in (
                "encoder.0.fc",
                "encoder.1.fc",
                "decoder.0.mlp",
                "decoder.1.mlp",
                "head",
            )
        ]
        assert found["level"] == found["query"] == 2

    def test_a_class_token_that_joins_late(self):
        """CaiT: it is with the first block that sees it."""

        def run(m, x):
            for at, block in enumerate(m.blocks):
                if at == 2:
                    x = torch.cat([m.token.expand(len(x), -1, -1), x], 1)
                x = block(x)
            return x

        net = Calls(
            run,
            token=nn.Parameter(torch.zeros(1, 1, 4)),
            blocks=nn.ModuleList(zoo.Block(4) for _ in range(4)),
        )
        found = exponents(net, torch.zeros(1, 3, 4))
        assert found["token"] == found["blocks.2.fc"] == 1

    def test_lists_that_take_turns(self):
        """CoCa: two lists run by zip have a layer for each turn."""

        def run(m, x, memory):
            for block, cross in zip(m.blocks, m.crosses, strict=True):
                x = cross(block(x), memory)
            return m.head(x)

        net = Calls(
            run,
            blocks=nn.ModuleList(zoo.Block(4) for _ in range(3)),
            crosses=nn.ModuleList(CrossBlock() for _ in range(3)),
            head=nn.Linear(4, 2),
        )
        found = exponents(net, torch.zeros(3, 1, 4), torch.zeros(2, 1, 4))
        for at in range(3):
            assert found[f"blocks.{at}.fc"] == found[f"crosses.{at}.mlp"] == 3 - at

    def test_several_lists_that_take_turns(self):
        """VITS: convolutions, norms, convolutions and norms in lists of their own."""

        def run(m, x):
            for parts in zip(m.wide, m.norms_1, m.deep, m.norms_2, strict=True):
                for part in parts:
                    x = part(x)
            return m.out(x)

        def lists(make):
            return nn.ModuleList(make() for _ in range(3))

        net = Calls(
            run,
            wide=lists(lambda: nn.Linear(4, 4)),
            deep=lists(lambda: nn.Linear(4, 4)),
            norms_1=lists(lambda: nn.LayerNorm(4)),
            norms_2=lists(lambda: nn.LayerNorm(4)),
            out=nn.Linear(4, 2),
        )
        info = describe(net)
        order = flow(VECTOR)._order(info)[1]
        assert [] == order.circles
        found = exponents(net, VECTOR)
        assert max(found, key=found.get) == "wide.0"
        assert found["wide.0"] > found["wide.1"] > found["wide.2"] > found["out"] == 0


class TestTowers:
    @pytest.fixture
    def translator(self):
        """Torch's translation model, with one table for both languages."""
        return Calls(
            lambda m, a, b: m.out(m.body(m.table(a), m.table(b))),
            table=nn.Embedding(9, 4),
            body=nn.Transformer(4, 2, 3, 2, 8, batch_first=True),
            out=nn.Linear(4, 9),
        )

    def test_encoder_and_decoder_apart(self, translator):
        """By default each counts to its own end, though they share the table."""
        found = exponents(translator, IDS, IDS)
        assert [2, 1, 0] == [found[f"body.encoder.layers.{at}.linear1"] for at in range(3)]
        assert [2, 1] == [found[f"body.decoder.layers.{at}.linear1"] for at in range(2)]
        assert [3, 0, 1] == [found[name] for name in ("table", "out", "body.decoder.norm")]

    def test_encoder_and_decoder_in_a_chain(self, translator):
        """`towers="chain"` counts through."""
        found = exponents(translator, IDS, IDS, towers="chain")
        assert [5, 4, 3] == [found[f"body.encoder.layers.{at}.linear1"] for at in range(3)]
        assert [2, 1] == [found[f"body.decoder.layers.{at}.linear1"] for at in range(2)]

    def test_conditioning_starts_no_tower(self):
        """A time step that every block takes is no input of a tower, and no block's own."""

        class Modulated(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.scale = nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, x, time):
                return x + self.fc(x) * self.scale(time)

        def run(m, x, label):
            x, time = m.patch(x), m.labels(label)
            for block in m.blocks:
                x = block(x, time)
            return x

        net = Calls(
            run,
            patch=nn.Linear(3, 4),
            labels=nn.Embedding(9, 4),
            blocks=nn.ModuleList(Modulated() for _ in range(4)),
        )
        found = exponents(net, torch.zeros(1, 2, 3), torch.tensor([[1]]))
        assert [3, 2, 1, 0] == [found[f"blocks.{at}.fc"] for at in range(4)]
        assert found["patch"] == found["labels"] == 4

    def test_a_tower_above_another_with_its_own_table(self):
        """LLaVA: the language model looks words up; the projector heads the vision tower."""

        def run(m, image, ids):
            for block in m.vision:
                image = block(image)
            x = torch.cat([m.projector(image), m.words(ids)], 1)
            for block in m.language:
                x = block(x)
            return x

        net = Calls(
            run,
            vision=nn.ModuleList(zoo.Block(4) for _ in range(2)),
            projector=nn.Linear(4, 4),
            words=nn.Embedding(9, 4),
            language=nn.ModuleList(zoo.Block(4) for _ in range(3)),
        )
        example = torch.zeros(1, 2, 4), IDS
        found = exponents(net, *example)
        assert [2, 1, 0] == [found[n] for n in ("vision.0.fc", "vision.1.fc", "projector")]
        assert [3, 2] == [found[name] for name in ("words", "language.0.fc")]
        chain = exponents(net, *example, towers="chain")
        assert [4, 3, 2] == [chain[f"{n}"] for n in ("vision.0.fc", "vision.1.fc", "projector")]

    def test_names_of_towers(self, translator):
        """By the module around them; none where that does not tell them apart."""
        layers = flow(IDS, IDS).layers(describe(translator))
        assert {"body.encoder", "body.decoder"} == {layer.tower for layer in layers}

        def run(m, image, ids):
            for block in (*m.low, *m.high):
                image = block(image)
            x = torch.cat([image, m.words(ids)], 1)
            for block in (*m.first, *m.second):
                x = block(x)
            return x

        lists = {
            name: nn.ModuleList(zoo.Block(4) for _ in range(2))
            for name in ("low", "high", "first", "second")
        }
        net = Calls(run, words=nn.Embedding(9, 4), spare=nn.Linear(4, 4), **lists)
        info = describe(net)
        layers = dict(
            zip(
                (p.name for p in info.params),
                flow(torch.zeros(1, 2, 4), IDS).layers(info),
                strict=True,
            )
        )
        assert {"", None} == {layer and layer.tower for layer in layers.values()}
        names = ("low.0.fc", "high.1.fc", "words", "first.0.fc", "second.1.fc")
        assert [3, 0, 4, 3, 0] == [layers[f"{name}.weight"].below for name in names]


class TestKindsOfModels:
    """What the model is made of, or made into, makes no difference."""

    EXPECTED = (3, 2, 1, 0)

    @staticmethod
    def of(model, *inputs, names=("0", "1", "2", "3"), **settings):
        found = exponents(model, *inputs, **settings)
        return tuple(found[next(path for path in found if path.startswith(n))] for n in names)

    @pytest.fixture
    def chain(self):
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))

    def test_exported(self, chain):
        """torch.export's module has no classes left."""
        with warnings.catch_warnings(action="ignore"):  # torch's own
            exported = torch.export.export(chain, (VECTOR,))
            for model in (exported.module(), torch.export.unflatten(exported)):
                assert self.EXPECTED == self.of(model, VECTOR)

    def test_fx(self, chain):
        """A symbolic trace."""
        assert self.EXPECTED == self.of(torch.fx.symbolic_trace(chain), VECTOR)

    @pytest.mark.parametrize("make", ["trace", "script"])
    def test_torchscript(self, chain, make):
        """Parts that python does not run."""
        with warnings.catch_warnings(action="ignore"):
            scripted = (
                torch.jit.trace(chain, VECTOR) if make == "trace" else torch.jit.script(chain)
            )
        assert self.EXPECTED == self.of(scripted, VECTOR)

    def test_compiled(self, chain):
        """Nothing is compiled: wrappers are passed by, parts run as they are."""
        assert self.EXPECTED == self.of(torch.compile(chain, backend="eager"), VECTOR)
        chain[1] = torch.compile(chain[1], backend="eager")
        assert self.EXPECTED == self.of(chain, VECTOR)

    def test_ddp(self, chain, tmp_path):
        """No other process is talked to."""
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
        )
        try:
            wrapped = nn.parallel.DistributedDataParallel(chain)
            assert self.EXPECTED == self.of(wrapped, VECTOR)
        finally:
            torch.distributed.destroy_process_group()

    def test_on_meta(self, chain):
        """Weights that do not exist yet, recurrent ones too, with inputs anywhere."""
        chain.to("meta")
        assert self.EXPECTED == self.of(chain, VECTOR)
        assert self.EXPECTED == self.of(chain, VECTOR.to("meta"))
        net = Calls(
            lambda m, x: m.out(m.rnn(x + torch.zeros(4, device=m.out.weight.device))[0]),
            rnn=nn.GRU(4, 4, 2),
            out=nn.Linear(4, 2),
        ).to("meta")
        found = exponents(net, VECTOR)
        names = ("rnn.weight_hh_l0", "rnn.weight_hh_l1", "out")
        assert [2, 1, 0] == [found[name] for name in names]
        assert all(param.is_meta and type(param) is nn.Parameter for param in net.parameters())
        assert all(each.is_meta for each in net.rnn._flat_weights)
        with torch.device("meta"):
            chain.forward = lambda x: chain[3](chain[2](chain[1](chain[0](x) + torch.arange(4.0))))
            assert self.EXPECTED == self.of(chain, torch.zeros(2, 4, device="cpu"))

    def test_parametrized(self, chain):
        """Weight norms, old and new, are where the weight is used."""
        nn.utils.parametrizations.weight_norm(chain[1])
        nn.utils.parametrizations.orthogonal(chain[2])
        with warnings.catch_warnings(action="ignore"):
            nn.utils.weight_norm(chain[3])
        info = describe(chain)
        layers = flow(VECTOR).layers(info)
        for param, layer in zip(info.params, layers, strict=True):
            assert layer.below == 3 - int(param.name[0]), param.name

    def test_tied(self):
        """A table that is the output layer too counts where it is used first."""
        net = Calls(
            lambda m, x: m.out(m.mix(m.table(x))),
            table=nn.Embedding(9, 4),
            mix=mlp(4, 4, 4),
            out=nn.Linear(4, 9, bias=False),
        )
        net.out.weight = net.table.weight
        assert [{"table"}, {"mix.0"}, {"mix.2"}] == by_layer(net, IDS)

    def test_shared(self):
        """A module that is run twice counts where it runs first, and closes no circle."""
        net = Calls(
            lambda m, x: m.out(m.twice(m.between(m.twice(x)))),
            twice=nn.Linear(4, 4),
            between=nn.Linear(4, 4),
            out=nn.Linear(4, 2),
        )
        assert [{"twice"}, {"between"}, {"out"}] == by_layer(net, VECTOR)

    def test_a_block_in_two_places(self):
        """It counts once."""
        block = zoo.Block(4)
        net = nn.Sequential(nn.Linear(3, 4), block, zoo.Block(4), block, nn.Linear(4, 2))
        found = exponents(net, torch.zeros(2, 3))
        assert [3, 2, 1, 0] == [found[name] for name in ("0", "1.fc", "2.fc", "4")]

    def test_models_side_by_side(self):
        """An ensemble in a list: each member is looked into."""
        net = Calls(
            lambda m, ids: sum(each(ids) for each in m.members),
            members=nn.ModuleList(zoo.plain() for _ in range(3)),
        )
        found = exponents(net, IDS)
        for at in range(3):
            names = ("embed", "blocks.0.fc", "blocks.1.fc", "head")
            assert [3, 2, 1, 0] == [found[f"members.{at}.{name}"] for name in names]

    def test_encoders_side_by_side(self):
        """Equal ones in a list could be blocks, if they were in a row."""

        class Encoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = nn.ModuleList(zoo.Block(4) for _ in range(2))

            def forward(self, x):
                return self.blocks[1](self.blocks[0](x))

        members = nn.ModuleList(Encoder() for _ in range(3))
        beside = Calls(lambda m, x: sum(each(x) for each in m.members), members=members)
        names = [f"members.{at}.blocks.{i}.fc" for at in range(3) for i in range(2)]
        found = exponents(beside, VECTOR)
        assert [1, 0, 1, 0, 1, 0] == [found[name] for name in names]
        blocks = nn.ModuleList(zoo.Block(4) for _ in range(3))
        beside = Calls(lambda m, x: m.out(sum(each(x) for each in m.blocks)), blocks=blocks)
        beside.out = nn.Linear(4, 2)
        found = exponents(beside, VECTOR)
        assert [1, 1, 1, 0] == [found[f"blocks.{at}.fc"] for at in range(3)] + [found["out"]]
        row = Calls(lambda m, x: members[2](members[1](members[0](x))), members=members)
        found = exponents(row, VECTOR)
        assert found[names[0]] > found[names[2]] > found[names[4]]

    def test_recurrent_steps(self):
        """A cell in a loop."""

        def run(m, x):
            state = torch.zeros(len(x), 4)
            for step in x.unbind(1):
                state = m.cell(m.inward(step), state)
            return m.out(state)

        net = Calls(run, inward=nn.Linear(3, 4), cell=nn.GRUCell(4, 4), out=nn.Linear(4, 2))
        found = exponents(net, torch.zeros(2, 5, 3))
        assert [2, 1, 0] == [found[n] for n in ("inward", "cell.weight_hh", "out")]

    def test_attention_is_one_layer(self):
        """The in- and the out-projection of torch's attention are one layer; also in eval mode."""
        net = Calls(
            lambda m, x: m.out(m.attention(x, x, x)[0]),
            attention=nn.MultiheadAttention(4, 1),
            out=nn.Linear(4, 2),
        )
        for model in (net, net.eval()):
            found = exponents(model, torch.zeros(2, 1, 4))
            assert 1 == found["attention.in_proj_weight"] == found["attention.out_proj"]

    def test_layers_of_torch_in_eval_mode(self):
        """Its fused layers are run part by part."""
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        net = nn.Sequential(
            nn.Linear(3, 4),
            nn.TransformerEncoder(layer, 3, enable_nested_tensor=False),
            nn.Linear(4, 2),
        ).eval()
        found = exponents(net, torch.zeros(1, 2, 3))
        assert [3, 2, 1] == [found[f"1.layers.{at}.linear2"] for at in range(3)]
        assert torch.backends.mha.get_fastpath_enabled()

    def test_reentrant_checkpointing(self):
        """What recomputes its activations is seen as it is."""

        def run(m, x):
            for part in m.parts:
                x = torch.utils.checkpoint.checkpoint(part, x, use_reentrant=True)
            return x

        net = Calls(run, parts=nn.ModuleList(nn.Linear(4, 4) for _ in range(3)))
        assert [{"parts.0"}, {"parts.1"}, {"parts.2"}] == by_layer(net, VECTOR)

    def test_in_place(self):
        """Writes into parts of a tensor, and into all of it through a view, are seen."""

        def run(m, x):
            out = torch.zeros(2, 8)
            out[:, :4] = m.first(x)
            out[:, 4:] = x
            flat = out.view(-1)
            flat *= m.gain
            left, right = out.chunk(2, 1)
            left += m.second(right)
            return m.last(out)

        net = Calls(
            run,
            last=nn.Linear(8, 2),
            second=nn.Linear(4, 4),
            first=nn.Linear(4, 4),
            gain=nn.Parameter(torch.ones(())),
        )
        assert [{"first", "gain"}, {"second"}, {"last"}] == by_layer(net, VECTOR)

    def test_grad_mode_inside(self):
        """A forward that switches gradients on."""

        def run(m, x):
            with torch.enable_grad():
                x = m.first(x).view(-1, 4)
                x[:, 0] = 0
                return m.last(x.T.contiguous().T)

        net = Calls(run, last=nn.Linear(4, 2), first=nn.Linear(4, 4))
        assert [{"first"}, {"last"}] == by_layer(net, VECTOR)

    def test_vmap(self):
        """torch.func's transforms."""
        net = Calls(
            lambda m, x: m.last(torch.func.vmap(m.first)(x)),
            last=nn.Linear(4, 2),
            first=nn.Linear(4, 4),
        )
        assert [{"first"}, {"last"}] == by_layer(net, VECTOR)
