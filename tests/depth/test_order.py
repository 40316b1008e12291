"""Depth by `auto`: the order is right, or refused; never guessed."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr.depth import auto
from nnlr.errors import NnlrError
from tests import zoo
from tests.depth.architectures import CERTAIN, OPEN, net

WAYS_OUT = ("indexer={", "INDEXERS", "nnlr.depth.flow(")


def wrong_in(model, order):
    """The statements of an order that the layers of a model contradict."""
    info = describe(model)
    layers = dict(zip((p.name for p in info.params), auto().layers(info), strict=True))
    pairs = [
        words[at : at + 3]
        for words in (text.split() for text in order)
        for at in range(0, len(words) - 2, 2)
    ]
    return [" ".join(pair) for pair in pairs if not _holds(*pair, layers)]


def _holds(first, sign, second, layers):
    a, b = (
        [layer for name, layer in layers.items() if f"{name}.".startswith(f"{part}.")]
        for part in (first, second)
    )
    assert a, first
    assert b, second
    a, b = ([layer for layer in part if layer] for part in (a, b))
    if not a or not b:  # outside: nothing is said
        return True
    apart = {layer.tower for layer in a}.isdisjoint(layer.tower for layer in b)
    top = min(layer.below for layer in a)
    if sign == "|":
        return apart or top == min(layer.below for layer in b)
    return not apart and top - (sign == "<") >= max(layer.below for layer in b)


def ids(architectures):
    """Names for the report."""
    return [build.__name__ for build, _ in architectures]


@pytest.mark.parametrize(("build", "order"), CERTAIN, ids=ids(CERTAIN))
def test_an_order_that_widths_and_containers_tell_is_read(build, order):
    """Every statement about the architecture holds."""
    assert [] == wrong_in(build(), order)


@pytest.mark.parametrize(("build", "order"), OPEN, ids=ids(OPEN))
def test_an_order_that_is_not_certain_is_right_or_refused(build, order):
    """With the three ways out."""
    try:
        wrong = wrong_in(build(), order)
    except NnlrError as error:
        wrong = [way for way in WAYS_OUT if way not in str(error)]
    assert [] == wrong


class Runs(nn.Module):
    """A layer, three blocks and a head, which runs."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(zoo.Block(8) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def by_name(model):
    """Name of each parameter -> its depth."""
    info = describe(model)
    layers = auto().layers(info)
    return {p.name: layer and layer.depth for p, layer in zip(info.params, layers, strict=True)}


class TestNames:
    @pytest.mark.parametrize(
        "without_classes",
        [
            lambda net: dict(net.named_parameters()),
            lambda net: net.state_dict(),
            lambda net: list(net.named_parameters()),
            lambda net: torch.export.export(net, (torch.zeros(2, 6),)).module(),
            lambda net: torch.export.unflatten(torch.export.export(net, (torch.zeros(2, 6),))),
            torch.fx.symbolic_trace,
        ],
        ids=["mapping", "state", "pairs", "exported", "unflattened", "fx"],
    )
    @pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch's own
    def test_a_model_that_lost_its_classes_is_read_by_its_names(self, without_classes):
        """As it is read with them."""
        model = Runs()
        assert by_name(model) == by_name(without_classes(model))

    def test_a_plain_sequence_that_lost_its_classes_is_a_row(self):
        """Its numbers have gaps where the activations stood."""
        layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)]
        state = nn.Sequential(*layers).state_dict()
        assert [0, 0, 1, 1, 2, 2] == list(by_name(state).values())

    def test_numbers_are_ordered_as_numbers(self):
        """Though files are sorted by letters."""
        names = sorted(f"layers_{at}.fc.weight" for at in range(12))
        state = {"embed.weight": torch.zeros(9, 8), **{name: torch.zeros(8, 8) for name in names}}
        found = by_name(state)
        assert list(range(1, 13)) == [found[f"layers_{at}.fc.weight"] for at in range(12)]
        assert 0 == found["embed.weight"]

    def test_the_towers_of_a_state_file_count_their_own_layers(self):
        """Of an image encoder below a language model, whatever classes their parts had."""
        state = {"vision_tower.patch_embed.weight": torch.zeros(4, 3, 2, 2)}
        for stack, size in (("vision_tower.encoder", 3), ("language_model", 4)):
            if stack == "language_model":
                state[f"{stack}.embed_tokens.weight"] = torch.zeros(9, 4)
            for at in range(size):
                state[f"{stack}.layers.{at}.up.weight"] = torch.zeros(8, 4)
                state[f"{stack}.layers.{at}.down.weight"] = torch.zeros(4, 8)
        layers = auto().layers(describe(state))
        assert {("vision_tower", 3), ("language_model", 4)} == {
            (layer.tower, layer.last) for layer in layers
        }

    def test_several_stacks_are_towers_or_refused(self):
        """With an embedding each they are apart; without, nothing tells."""
        state = {}
        for tower in ("encoder", "decoder"):
            state[f"{tower}.embed.weight"] = torch.zeros(9, 8)
            state |= {f"{tower}.layer.{at}.fc.weight": torch.zeros(8, 8) for at in range(3)}
        info = describe(state)
        assert {"encoder", "decoder"} == {layer.tower for layer in auto().layers(info)}
        bare = {name: tensor for name, tensor in state.items() if "embed" not in name}
        with pytest.raises(NnlrError, match=r"'decoder' .* takes both"):
            by_name(bare)

    def test_shapes_tell_the_layers(self):
        """Convolutions, recurrent layers, norms, and what is none of them."""
        rnn = nn.GRU(32, 8, bidirectional=True)
        state = {
            "conv.weight": torch.zeros(4, 3, 3, 3),
            "depthwise.weight": torch.zeros(4, 1, 3, 3),
            "norm.weight": torch.zeros(4),
            **{f"rnn.{name}": tensor for name, tensor in rnn.named_parameters()},
            "out.weight": torch.zeros(2, 16),
            "scale": torch.zeros(()),
            "odd.thing": torch.zeros(2),
        }
        found = by_name(state)
        expected = {"conv.weight": 0, "depthwise.weight": 1, "norm.weight": 1, "out.weight": 3}
        assert expected == {name: found[name] for name in expected}
        assert 2 == found["rnn.weight_hh_l0"]


class TestReading:
    def test_a_plain_net_of_attributes_has_a_note(self):
        """A sequence has none."""
        layers = {"fc1": nn.Linear(6, 8), "fc2": nn.Linear(8, 2)}
        scheme = nnlr.layer_decay(0.5)
        plan = nnlr.resolve(net(**layers), scheme, lr=1, weight_decay=0)
        assert ["depth-by-widths"] == [finding.kind for finding in plan.findings]
        plan = nnlr.resolve(nn.Sequential(*layers.values()), scheme, lr=1, weight_decay=0)
        assert () == plan.findings
        blocks = nn.ModuleList(zoo.Block(8) for _ in range(3))
        assert () == nnlr.resolve(net(a=blocks), scheme, lr=1, weight_decay=0).findings

    def test_the_plan_states_its_reading(self):
        """Towers, layers and what is outside: as data, in the table, and in words."""
        read = nn.ModuleDict({"image": zoo.Net(8), "text": zoo.Net(6)})
        model = net(towers=read, scale=nn.Linear(3, 3))
        plan = nnlr.resolve(model, nnlr.layer_decay(0.5), lr=1, weight_decay=0)
        assert ["towers.image", "towers.text"] == list(plan.layers)
        assert ("towers.text.embed.weight",) == plan.layers["towers.text"][0]
        assert 2 == len(plan.layers)
        assert ("scale.weight", "scale.bias") == plan.layers.outside
        summary = "depth: towers.image 3 layers, towers.text 3 layers; 2 parameters outside"
        assert summary == plan.layers.summary
        assert summary in str(plan)
        assert "outside: scale.*" in str(plan.layers)
        lines = ["  0  towers.text.embed.weight", "  1  towers.text.blocks.0.*"]
        assert all(line in str(plan.layers) for line in lines)
        assert "layer" in str(plan)
        assert "layer 0 of 2 of towers.text" in plan.explain("towers.text.embed.weight")

    def test_layers_print_within_eighty_columns(self):
        """Modules are folded where they are whole in one layer; long names are fewer."""
        long = net(**{f"a_module_with_a_long_name_{at}": net(fc=nn.Linear(8, 8)) for at in "ab"})
        model = net(start=nn.Linear(4, 8), blocks=nn.ModuleList([zoo.Block(8), long]))
        model.blocks.append(zoo.Block(8))
        layers = {"start.*": 0, "blocks.0.*": 1, "blocks.1.*": 2, "blocks.2.*.*eight": 3}
        text = str(nnlr.resolve(model, nnlr.layer_decay(0.5, layers), lr=1, weight_decay=0).layers)
        assert {"0  start.*", "1  blocks.0.*", "2  blocks.1.*"} <= {
            *map(str.strip, text.split("\n"))
        }
        assert max(map(len, text.split("\n"))) <= 80

    def test_a_plan_without_depth_has_no_layers(self):
        """Nor a line or a column for them."""
        plan = nnlr.resolve(zoo.Net(), lr=1, weight_decay=0)
        assert {} == dict(plan.layers)
        assert () == plan.layers.outside
        assert "no scheme asked for depth" == str(plan.layers)
        assert "depth" not in str(plan)

    def test_lines_of_several_layers_say_which(self):
        """Equal rates fold, whatever the layer."""
        plan = nnlr.resolve(zoo.Net(), nnlr.layer_decay(1.0), lr=1, weight_decay=0)
        assert "1..2" in str(plan)
