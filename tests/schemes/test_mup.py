"""muP: equal to the package ``mup``, group by group and step by step, and flat over widths."""

import functools
import json
import math
from itertools import product

import mup as peer
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
)

import nnlr
from nnlr._model.describe import describe
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.schemes._width.base import as_base, shapes
from nnlr.testing import SchemeLaws
from tests.cost import Name
from tests.helpers import hide_package, thinned

LR, WD = 0.01, 0.1

PEERS = {"adam": peer.MuAdam, "adamw": peer.MuAdamW, "sgd": peer.MuSGD}
TORCH = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def mlp(width, readout=nn.Linear):
    return nn.Sequential(
        nn.Linear(5, width),
        nn.ReLU(),
        nn.Linear(width, 2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, width, bias=False),
        nn.ReLU(),
        readout(width, 3),
    )


def conv(width, readout=nn.Linear):
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3),
        nn.Conv2d(2 * width, 2 * width, 3, groups=2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        readout(2 * width, 3),
    )


class Attention(nn.Module):
    """A transformer of one block, with its sizes growing apart."""

    def __init__(self, width, readout=nn.Linear, ffn=None):
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.pos = nn.Parameter(torch.zeros(1, 7, width))
        self.norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.up = nn.Linear(width, ffn or 3 * width)
        self.down = nn.Linear(ffn or 3 * width, width)
        self.head = readout(width, 11)
        self.gate = nn.Parameter(torch.ones(()))

    def forward(self, tokens):
        x = self.embed(tokens) + self.pos
        y = self.norm(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return self.head(x + self.gate * self.down(F.gelu(self.up(x))))


def gpt(width, vocab=13, layers=1, **options):
    config = GPT2Config(
        n_embd=width,
        n_head=2,
        n_layer=layers,
        vocab_size=vocab,
        n_positions=8,
        bos_token_id=0,
        eos_token_id=0,
        **options,
    )
    return GPT2LMHeadModel(config)


def plan(model, *schemes, lr=LR, weight_decay=WD, **kwargs):
    return nnlr.resolve(model, *schemes, lr=lr, weight_decay=weight_decay, **kwargs)


def call(*args, **kwargs):
    """Arguments; a model by its name, made when it is needed."""
    return args, kwargs


def descent(groups, lr, weight_decay):
    """An optimizer made by a function, whose kind cannot be told."""
    return torch.optim.SGD(groups, lr=lr, weight_decay=weight_decay)


def rates(optimizer, model):
    """(lr, weight decay) of each parameter of a live optimizer, by name."""
    name_of = {id(p): name for name, p in model.named_parameters()}
    return {
        name_of[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors on many threads wait for each other more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.no_cover
class TestMupLaws(SchemeLaws):
    """The laws of schemes hold."""

    def schemes(self):
        return [
            nnlr.mup({8: 2}, optimizer=kind, forward=forward)
            for kind, forward in product(("adamw", "sgd"), ("folded", "in_model"))
        ] + [nnlr.mup({8: 2}, optimizer="muon")]

    def models(self):
        tied = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 8))
        tied[2].weight = tied[1].weight
        frozen = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        frozen[0].requires_grad_(False)
        return [tied, frozen]


class TestParityWithMup:
    """Equal to MuAdam, MuAdamW and MuSGD."""

    @pytest.mark.parametrize("make", [mlp, conv, Attention])
    @pytest.mark.parametrize("kind", PEERS)
    @pytest.mark.parametrize(
        ("base", "delta", "target"),
        [(8, None, 32), (8, 16, 32), (8, 16, 8), (16, 8, 4)],
    )
    def test_groups(self, make, kind, base, delta, target):
        """Lr and weight decay of every parameter, with MuReadout, to 1e-12."""
        wide, narrow = make(target, peer.MuReadout), make(base, peer.MuReadout)
        other = delta and make(delta, peer.MuReadout)
        peer.set_base_shapes(wide, narrow, delta=other)
        expected = rates(PEERS[kind](wide.parameters(), lr=LR, weight_decay=WD), wide)
        for scheme in (
            nnlr.mup(narrow, delta=other, optimizer=kind),
            nnlr.mup(optimizer=kind),
        ):
            found = plan(wide, scheme)
            actual = {row.name: (row.lr, row.weight_decay) for row in found}
            assert expected.keys() == actual.keys()
            for name, pair in expected.items():
                assert pytest.approx(pair, rel=1e-12) == actual[name], name
            assert {1.0} == {row.init_mult for row in found}
            assert {1.0} == {row.eps_mult for row in found}

    @pytest.mark.parametrize("kind", PEERS)
    def test_groups_where_widths_grow_apart(self, kind):
        """MuSGD's ratio of fan-in to fan-out, MuAdam's fan-in: d_ff grows by 6, d by 2."""
        wide = Attention(32, peer.MuReadout, ffn=144)
        narrow = Attention(16, peer.MuReadout, ffn=24)
        peer.set_base_shapes(wide, narrow)
        expected = rates(PEERS[kind](wide.parameters(), lr=LR, weight_decay=WD), wide)
        found = plan(wide, nnlr.mup(narrow, optimizer=kind))
        for row in found:
            assert pytest.approx(expected[row.name], rel=1e-12) == (
                row.lr,
                row.weight_decay,
            ), row.name

    def test_published_example(self):
        """Width 8 to 32: hidden lr x .25 and decay .4 of .1; SGD's vectors x 4 and .025."""
        found = plan(mlp(32), nnlr.mup(mlp(8)), lr=1)
        assert (0.25, 0.4) == (found["2.weight"].lr, found["2.weight"].weight_decay)
        found = plan(mlp(32), nnlr.mup(mlp(8), optimizer="sgd"), lr=1)
        assert (4, 0.025) == (found["0.weight"].lr, found["0.weight"].weight_decay)
        assert (1, 0.1) == (found["6.bias"].lr, found["6.bias"].weight_decay)

    @pytest.mark.parametrize("case", thinned(product([mlp, conv, Attention], PEERS), 2))
    @pytest.mark.no_cover
    def test_folded_model_follows_mup_step_by_step(self, case):
        """A plain model under the plan equals the MuReadout model under mup, 100 steps."""
        make, kind = case
        ours, theirs = make(24).double(), make(24, peer.MuReadout).double()
        theirs.load_state_dict(ours.state_dict())
        peer.set_base_shapes(theirs, make(8, peer.MuReadout))
        found = plan(ours, nnlr.mup(make(8), optimizer=kind))
        nnlr.apply_init(ours, found)
        options = {"momentum": 0.9, "nesterov": True} if kind == "sgd" else {}
        pairs = [
            (ours, found.optimizer(TORCH[kind], **options)),
            (
                theirs,
                PEERS[kind](theirs.parameters(), lr=LR, weight_decay=WD, **options),
            ),
        ]
        inputs = {
            mlp: torch.randn(8, 5).double(),
            conv: torch.randn(4, 3, 7, 7).double(),
            Attention: torch.randint(11, (4, 7)),
        }[make]
        for _ in range(100):
            outs = []
            for model, optimizer in pairs:
                out = model(inputs)
                labels = torch.arange(out.flatten(0, -2).shape[0]) % 3
                F.cross_entropy(out.flatten(0, -2), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
                outs.append(out.detach())
            torch.testing.assert_close(outs[1], outs[0], rtol=1e-6, atol=1e-9)
        assert out.abs().max() > 0.1  # it has learned something

    def test_biases_start_as_in_mup(self):
        """Mup rescales the biases of linear and convolution layers; so does the plan."""
        ours, theirs = mlp(32), mlp(32, peer.MuReadout)
        theirs.load_state_dict(ours.state_dict())
        peer.set_base_shapes(theirs, mlp(8, peer.MuReadout))
        nnlr.apply_init(ours, plan(ours, nnlr.mup(mlp(8))))
        for name, tensor in ours.named_parameters():
            c = 0.25 if name == "6.weight" else 1  # folded
            torch.testing.assert_close(tensor, c * theirs.get_parameter(name))

    def test_shared_readout_of_mup_is_left_to_it(self):
        """MuSharedReadout divides by the width itself, so the tie is no problem."""
        model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8))
        model.append(peer.MuSharedReadout(model[0].weight))
        found = plan(model, nnlr.mup({8: 2}))
        assert (1, 1) == (found["0.weight"].lr_mult, found["0.weight"].init_mult)
        assert ["width-mup-unset"] == [f.kind for f in found.findings]

    def test_decoupled_decay(self):
        """decoupled_wd leaves every decay as it is."""
        found = plan(mlp(32), nnlr.mup(mlp(8), decoupled_wd=True))
        assert {WD} == {row.weight_decay for row in found}

    def test_decay_modes_leave_it_alone(self):
        """Mup compensates decay itself: the independent mode changes nothing."""
        coupled = plan(mlp(32), nnlr.mup(mlp(8)))
        other = plan(mlp(32), nnlr.mup(mlp(8)), decay="independent")
        assert [r.weight_decay for r in coupled] == [r.weight_decay for r in other]


class TestBase:
    """What a model can be compared with."""

    def test_all_forms_agree(self, tmp_path):
        """A module, one on meta, its shapes, stored shapes and widths give one plan."""
        stored = shapes(mlp(8), mlp(16))
        text = tmp_path / "base.json"
        text.write_text(json.dumps(stored))
        yaml = tmp_path / "base.bsh"
        peer.make_base_shapes(mlp(8), mlp(16), savefile=str(yaml))
        with torch.device("meta"):
            meta = mlp(8)
        plain = {name: tensor.shape for name, tensor in mlp(8).named_parameters()}
        tensors = dict(mlp(8).named_parameters())
        bases = [mlp(8), meta, plain, tensors, stored, text, str(yaml), {32: 8, 64: 16}]
        found = [nnlr.testing.rates(plan(mlp(32), nnlr.mup(base))) for base in bases]
        assert [found[0]] * len(bases) == found
        assert nnlr.testing.rates(plan(mlp(32), nnlr.mup(mlp(8), delta=mlp(16)))) == found[0]

    def test_many_tensors(self):
        """Names are looked up, not searched for: once the time grew with their square."""
        names = [Name(f"blocks.{i}.weight") for i in range(1000)]
        tensors = {name: torch.empty(4, 4, device="meta") for name in names}
        model = describe(tensors)
        base = as_base(dict.fromkeys(tensors, (2, 2)))
        before = Name.compared
        assert {(2.0, 2.0)} == set(base.mults(model))
        assert Name.compared - before < 10 * len(names)

    def test_names_of_a_wrapped_base(self):
        """Wrappers around base or model change nothing."""
        wrapped = {f"module.{name}": dims for name, dims in shapes(mlp(8)).items()}
        expected = nnlr.testing.rates(plan(mlp(32), nnlr.mup(mlp(8))))
        assert expected == nnlr.testing.rates(plan(mlp(32), nnlr.mup(wrapped)))
        whole = nn.DataParallel(mlp(32))
        assert expected == nnlr.testing.rates(plan(whole, nnlr.mup(mlp(8))))

    def test_without_modules(self):
        """Names and tensors are enough, and then there is nothing to find."""
        model = dict(mlp(32).named_parameters())
        found = plan(model, nnlr.mup(mlp(8)))
        assert 0.25 == found["2.weight"].lr_mult
        assert () == found.findings

    def test_delta_settles_what_is_finite(self):
        """A vocabulary that differs is no width, if base and delta share theirs."""
        with pytest.raises(NnlrError, match="readout_input"):
            plan(gpt(32, vocab=20), nnlr.mup(gpt(8), init="constant"))
        scheme = nnlr.mup(gpt(8), delta=gpt(16), forward="in_model")
        found = plan(gpt(32, vocab=20), scheme)
        assert 1 == found["transformer.wte.weight"].lr_mult
        assert "width-finite" in [f.kind for f in found.findings]

    def test_rows_of_a_table_are_no_width(self):
        """A longer context or a larger vocabulary does not make an embedding hidden."""
        base = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 3))
        wide = nn.Sequential(nn.Embedding(9, 32), nn.Linear(32, 3))
        assert 1 == plan(wide, nnlr.mup(base))["0.weight"].lr_mult

    def test_shown_as_written(self):
        """The call, without the model's insides."""
        schemes = [
            nnlr.mup(mlp(8), optimizer="sgd"),
            nnlr.mup({32: 8}, head_growth={"*.q.*": 2}, fan_in={"*.up": 1}),
            nnlr.mup({"a": (2, None)}),
            nnlr.mup(mlp(8), delta=mlp(16), init="constant"),
            nnlr.mup(),
        ]
        assert [
            "mup(Sequential, optimizer='sgd')",
            "mup({32: 8}, head_growth={'*.q.*': 2.0}, fan_in={'*.up': 1})",
            "mup({1 shape})",
            "mup(Sequential, delta=Sequential, init='constant')",
            "mup(None)",
        ] == list(map(repr, schemes))

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (call(3), "must be a model"),
            (call({}), "must be a model"),
            (call({64: None}), "maps whole numbers"),
            (call({64: 0}), "maps whole numbers"),
            (call({64: [32]}), "maps whole numbers"),
            (call({True: 2}), "maps whole numbers"),
            (call({"a": "b"}), "must map names to shapes"),
            (call({"a": (2, 0.5)}), "must map names to shapes"),
            (call({"a": (2,), 3: (2,)}), "maps whole numbers"),
            (call({"a": (2,), None: (2,)}), "must map names to shapes"),
            (call("nowhere.bsh"), "cannot be read"),
            (call(delta="mlp"), "delta says which"),
            (call({64: 8}, delta="mlp"), "delta says which"),
            (call("mlp", delta="conv"), "only one of them"),
            (call({"a": (2,)}, delta={"a": (2, 3)}), "not one model"),
            (call("mlp", optimizer="adan"), "optimizer must be one of"),
            (call("mlp", init="he"), "init must be one of"),
            (call("mlp", forward="no"), "forward must be one of"),
            (call("mlp", decoupled_wd=1), "decoupled_wd must be True"),
            (call("mlp", fan_in=3), "fan_in must map"),
            (call("mlp", fan_in={"*": True}), "fan_in must map"),
            (call("mlp", head_growth=2), "head_growth must map"),
            (call("mlp", head_growth={"*": 0}), "head_growth must be"),
        ],
        ids=str,
    )
    def test_refused_at_the_call(self, given, says):
        """Bad arguments are refused where they are given."""
        args, kwargs = given
        models = {"mlp": mlp(8), "conv": conv(8)}
        with pytest.raises(NnlrError, match=says):
            nnlr.mup(
                *(models.get(str(arg), arg) for arg in args),
                **{key: models.get(str(arg), arg) for key, arg in kwargs.items()},
            )

    def test_a_file_without_shapes_is_refused(self, tmp_path):
        """An empty file is no base."""
        path = tmp_path / "empty.bsh"
        path.write_text("")
        with pytest.raises(NnlrError, match="holds no mapping"):
            nnlr.mup(path)

    def test_a_file_without_yaml(self, tmp_path, monkeypatch):
        """The error says what to install; other forms of a base need nothing."""
        hide_package(monkeypatch, "yaml")
        path = tmp_path / "base.bsh"
        path.write_text(json.dumps(shapes(mlp(8))))
        with pytest.raises(NnlrError, match=r'PyYAML, which is not(?s:.*)install "nnlr\[cli\]"'):
            nnlr.mup(path)
        assert 4 == plan(mlp(32), nnlr.mup(mlp(8)))["2.weight"].wd_mult

    @pytest.mark.parametrize(
        ("base", "says"),
        [
            (lambda: mlp(8)[:5], r"1 parameter|without one in the base: 6.weight"),
            (lambda: mlp(8).append(nn.Linear(3, 2)), "that the model lacks: 7.bias"),
            (lambda: {**shapes(mlp(8)), "0.bias": (8, 1)}, "not one model at two"),
            (lambda: {7: 2}, "no parameter of Sequential has a dimension of 7"),
            (lambda: None, "Pass a base"),
        ],
    )
    def test_base_and_model_that_do_not_correspond(self, base, says):
        """Missing and left-over names, other axes, absent widths: refused, with names."""
        with pytest.raises(NnlrError, match=says):
            plan(mlp(32), nnlr.mup(base()))


class TestShapes:
    """Which axis a layer sums over."""

    def test_three_widths_are_refused_as_in_mup(self):
        """Mup raises NotImplementedError; the message says what to do."""
        base, wide = nn.Conv2d(4, 4, 3), nn.Conv2d(8, 8, 5)
        with pytest.raises(NnlrError, match="at most two are widths"):
            plan(wide, nnlr.mup({"weight": base.weight.shape, "bias": (4,)}))

    def test_two_widths_of_something_added_are_refused(self):
        """A position table of another length is not a hidden layer."""
        base, wide = Attention(8), Attention(16)
        wide.pos = nn.Parameter(torch.zeros(1, 9, 16))
        with pytest.raises(NnlrError, match="only one of them can be a width"):
            plan(wide, nnlr.mup(base))
        delta = plan(wide, nnlr.mup(base, delta=Attention(32)))
        assert 1 == delta["pos"].lr_mult

    def test_transposed_weights(self):
        """Transposed convolutions and Conv1D sum over axis 0."""
        grown = {"weight": [4, 2, None, None], "bias": [2]}
        found = plan(nn.ConvTranspose2d(16, 4, 3), nnlr.mup(grown))
        assert 0.25 == found["weight"].lr_mult  # mup takes axis 1, the outputs
        found = plan(nn.ConvTranspose2d(16, 3, 3), nnlr.mup(nn.ConvTranspose2d(4, 3, 3)))
        assert 0.25 == found["weight"].lr_mult  # a readout
        scheme = nnlr.mup(gpt(8), init="constant", forward="in_model", optimizer="sgd")
        wide = gpt(16, n_inner=128)
        found = plan(wide, scheme)
        assert 2 == found["transformer.h.0.mlp.c_fc.weight"].lr_mult  # fan-out x 4, in x 2

    def test_stacked_experts(self):
        """Two alike widths need no orientation; others do, by fan_in."""

        def experts(hidden, ffn):
            with torch.device("meta"):
                return MixtralForCausalLM(
                    MixtralConfig(
                        hidden_size=hidden,
                        intermediate_size=ffn,
                        num_attention_heads=8,
                        num_key_value_heads=2,
                        num_hidden_layers=1,
                        num_local_experts=4,
                        vocab_size=64,
                    )
                )

        name = "model.layers.0.mlp.experts.gate_up_proj"
        scheme = nnlr.mup(experts(64, 128), init="constant")
        found = plan(experts(256, 512), scheme)
        assert (0.25, 0.5) == (found[name].lr_mult, found[name].init_mult)
        gate = found["model.layers.0.mlp.gate.weight"]
        assert (0.25, 4, 0.25) == (gate.lr_mult, gate.eps_mult, gate.init_mult)
        keys = found["model.layers.0.self_attn.k_proj.weight"]
        assert 0.25 == keys.lr_mult  # grouped queries: hidden as any other
        with pytest.raises(NnlrError, match="nothing tells which axis"):
            plan(experts(256, 256), scheme)
        axes = {"*.gate_up_proj": 2, "*.down_proj": 1}
        found = plan(experts(256, 256), nnlr.mup(experts(64, 128), init="constant", fan_in=axes))
        assert 0.25 == found[name].lr_mult
        down = found["model.layers.0.mlp.experts.down_proj"]
        assert 0.25 == down.lr_mult
        with pytest.raises(NnlrError, match="whose axes are 0 to 2"):
            plan(experts(256, 256), nnlr.mup(experts(64, 128), fan_in={"*_proj": 3}))
        with pytest.raises(PatternError, match="matches no parameter"):
            plan(experts(256, 256), nnlr.mup(experts(64, 128), fan_in={"*.w9": 1}))

    def test_bilinear(self):
        """(out, in1, in2): summed over what grows of the inputs."""
        found = plan(nn.Bilinear(3, 16, 2), nnlr.mup(nn.Bilinear(3, 4, 2)))
        assert 0.25 == found["weight"].lr_mult
        found = plan(nn.Bilinear(3, 5, 16), nnlr.mup(nn.Bilinear(3, 5, 4)))
        assert 1 == found["weight"].lr_mult
        found = plan(nn.Bilinear(3, 5, 4), nnlr.mup(nn.Bilinear(3, 5, 4)))
        assert 1 == found["weight"].lr_mult


class TestInitialisation:
    """What is done to the weights once, and that activations then do not grow."""

    def test_multipliers(self):
        """fan_in, constant and mup, for hidden, readout and biases."""
        names = ["0.weight", "0.bias", "2.weight", "2.bias", "6.weight"]
        expected = {
            "fan_in": [1, 1, 1, 2, 0.5],
            "constant": [1, 1, 0.5, 1, 0.25],
            "mup": [1, 1, 1, 1, 0.25],
        }
        for init, mults in expected.items():
            found = plan(mlp(32), nnlr.mup(mlp(8), init=init))
            assert mults == [found[name].init_mult for name in names]

    def test_recurrent_layers(self):
        """Torch draws all of an RNN from 1 / root of its hidden size, inputs too."""
        found = plan(nn.LSTM(3, 16, proj_size=8), nnlr.mup(nn.LSTM(3, 4, proj_size=2)))
        assert [2, 1, 2, 2, 1] == [row.init_mult for row in found]
        found = plan(nn.LSTM(3, 16, proj_size=4), nnlr.mup(nn.LSTM(3, 4, proj_size=2)))
        assert 1 == found["weight_hr_l0"].init_mult  # the hidden size is its axis 1
        assert pytest.approx(2**0.5) == found["weight_hh_l0"].init_mult

    @pytest.mark.parametrize(
        ("make", "init", "tied"), [(mlp, "fan_in", False), (gpt, "constant", True)]
    )
    def test_coordinate_check(self, make, init, tied):
        """Over a factor of 8 in width, activations move by less than a third; SP by 3 x."""
        through = {"readout_input": "transformer.ln_f.*"} if tied else {}
        scheme = nnlr.mup(make(16), init=init, **through)
        watched = "transformer.h.0.mlp" if tied else "4"
        moved = {}
        for given in ((scheme,), ()):
            sizes = []
            for width in (16, 128):
                torch.manual_seed(0)
                model = make(width).eval()
                found = plan(model, *given, weight_decay=0)
                nnlr.apply_init(model, found)
                optimizer = found.optimizer(torch.optim.AdamW)
                seen = []
                model.get_submodule(watched).register_forward_hook(
                    lambda m, i, out, seen=seen: seen.append(out.detach().abs().mean())
                )
                torch.manual_seed(1)
                inputs = torch.randint(13, (16, 8)) if tied else torch.randn(16, 5)
                for _ in range(4):
                    out = model(inputs).logits.flatten(0, 1) if tied else model(inputs)
                    labels = torch.arange(len(out)) % 3
                    F.cross_entropy(out, labels).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                sizes.append(seen[-1] / 1)
            moved[bool(given)] = float(sizes[1] / sizes[0])
        assert 0.67 < moved[True] < 1.5
        assert moved[False] > 3 * moved[True]

    def test_wrong_statement_about_the_initialisation_is_found(self):
        """Measured on hidden weights of base and model, where both have values."""

        def kinds(model, *args, **kwargs):
            return [f.kind for f in plan(model, nnlr.mup(*args, **kwargs)).findings]

        assert ["width-init"] == kinds(mlp(64), mlp(8), init="constant")
        assert [] == kinds(mlp(64), mlp(8))
        delta = mlp(16)
        assert ["width-init"] == kinds(mlp(64), mlp(8), delta=delta, init="constant")
        scheme = {"forward": "in_model"}
        assert ["width-init"] == kinds(gpt(64), gpt(32), **scheme)[:1]
        assert [] == kinds(mlp(64), mlp(8).to("meta"), init="constant")
        assert [] == kinds(mlp(64).to("meta"), mlp(8), init="constant")
        model = mlp(64)
        nnlr.apply_init(model, plan(model, nnlr.mup(mlp(8))))
        assert [] == kinds(model, mlp(8), init="constant")
        deep = nn.Sequential(*(nn.Linear(64, 64) for _ in range(14)))
        narrow = nn.Sequential(*(nn.Linear(8, 8) for _ in range(14)))
        assert [] == kinds(deep, narrow)
        assert [] == kinds(mlp(8), mlp(8), delta=mlp(16), init="constant")  # not grown

    @pytest.mark.parametrize("kind", ["adamw", "sgd"])
    def test_groups_that_grow_are_no_sum(self, kind):
        """A depthwise transposed convolution is vector-like, as in mup, and not a readout."""

        def net(width, groups):
            return nn.ConvTranspose2d(width, width, 3, groups=groups)

        wide, narrow = net(32, 32), net(8, 8)
        peer.set_base_shapes(wide, narrow, rescale_params=False)
        expected = rates(PEERS[kind](wide.parameters(), lr=LR, weight_decay=WD), wide)
        row = plan(wide, nnlr.mup(narrow, optimizer=kind))["weight"]
        assert pytest.approx(expected["weight"]) == (row.lr, row.weight_decay)
        assert 1 == row.init_mult
        found = plan(net(32, 16), nnlr.mup(net(8, 4)))  # two channels in each group
        assert (1, 1) == (found["weight"].lr_mult, found["weight"].init_mult)
        found = plan(net(32, 4), nnlr.mup(net(8, 4)))  # larger groups: hidden
        assert 0.25 == found["weight"].lr_mult
        few = nn.ConvTranspose2d(32, 2, 3, groups=2)
        found = plan(few, nnlr.mup(nn.ConvTranspose2d(8, 2, 3, groups=2)))
        assert 0.25 == found["weight"].lr_mult  # as many groups: a readout

    def test_multihead_attention_starts_from_xavier(self):
        """Its own weights and the learned key and value have Xavier's std, by both fans."""
        sizes = {"kdim": 9, "add_bias_kv": True}
        wide, narrow = (nn.MultiheadAttention(w, 4, **sizes) for w in (64, 16))
        found = plan(wide, nnlr.mup(narrow, init="fan_in"))
        assert pytest.approx(((64 + 9) / (16 + 9)) ** 0.5) == (found["k_proj_weight"].init_mult)
        assert 1 == found["q_proj_weight"].init_mult
        assert 2 == found["bias_k"].init_mult
        for name in ("k_proj_weight", "bias_k"):
            scaled = wide.get_parameter(name).std() * found[name].init_mult
            assert pytest.approx(narrow.get_parameter(name).std().item(), rel=0.5) == (
                scaled.item()
            )


class TestOptimizer:
    """A plan for one kind of optimizer is not given to another."""

    def build(self, cls, kind="adamw", decay=WD, **options):
        model = mlp(32)
        found = plan(model, nnlr.mup(mlp(8), optimizer=kind), weight_decay=decay)
        return found.optimizer(cls, init="done", **options)

    @pytest.mark.parametrize(
        ("kind", "other"),
        [
            ("adamw", torch.optim.SGD),
            ("adam", torch.optim.SGD),
            ("sgd", torch.optim.AdamW),
            ("sgd", torch.optim.RMSprop),
            ("adam", torch.optim.AdamW),
            ("adamw", torch.optim.NAdam),
        ],
    )
    def test_another_kind_is_refused(self, kind, other):
        """The message names the class, the scheme and what to pass."""
        with pytest.raises(
            ConfigError,
            match=rf"{other.__name__} does not go with mup\(.*optimizer='{kind}'\.",
        ):
            self.build(other, kind)

    def test_what_fits(self):
        """Without decay Adam is AdamW; other classes and functions cannot be told."""
        for cls in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
            self.build(cls, "adamw", decay=0)
        self.build(torch.optim.Adam, decoupled_weight_decay=True)
        self.build(descent, "sgd")
        self.build(torch.optim.Adafactor, "sgd")

    @pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
    def test_steps_of_its_own_cannot_be_told(self, kind):
        """A subclass may decay apart from the gradient, whatever it inherits from."""

        class Decoupled(torch.optim.Adam):
            def step(self, closure=None):
                """Its own."""

        class Other(torch.optim.Optimizer):
            def __init__(self, params, lr, eps=1, weight_decay=0, **more):
                known = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
                super().__init__(params, known | more)

        self.build(Decoupled, kind)
        self.build(Other, kind, decoupled_weight_decay=True)

    def test_a_subclass_with_the_same_steps_is_of_the_same_kind(self):
        """Before and after torch has wrapped the method at the first instance."""
        own = type("Own", (torch.optim.Adam,), {})
        for _ in range(2):
            self.build(own, "adam")
            self.build(functools.partial(own, decoupled_weight_decay=True), "adamw")
            with pytest.raises(ConfigError, match="Own does not go with mup"):
                self.build(own, "adamw")

    def test_at_the_width_of_the_base_any_will_do(self):
        """There all factors are 1."""
        model = mlp(8)
        plan(model, nnlr.mup(mlp(8))).optimizer(torch.optim.SGD)

    def test_regroup_refuses_too(self):
        """A live optimizer is of a kind as well."""
        model = mlp(32)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        found = plan(model, nnlr.mup(mlp(8)))
        with pytest.raises(ConfigError, match="SGD does not go with mup"):
            nnlr.regroup(optimizer, found, init="done")

    def test_read_back(self):
        """A stored plan knows it too."""
        model = mlp(32)
        found = plan(model, nnlr.mup(mlp(8)))
        again = nnlr.Plan.from_json(found.to_json())
        assert found == again
        with pytest.raises(ConfigError, match="does not go with"):
            again.optimizer(torch.optim.SGD, model=model, init="done")

    def test_of_a_factor(self):
        """Only kinds that exist."""
        with pytest.raises(NnlrError, match="update must be one of 'adam', 'adamw'"):
            nnlr.Factor(update="lion")


class TestReadout:
    """Where the forward factor goes."""

    def test_told_twice(self):
        """Where to fold, and that nothing is to be folded."""
        with pytest.raises(NnlrError, match="pass one of them"):
            nnlr.mup(gpt(8), readout_input="transformer.ln_f.*", forward="in_model")

    def test_half_a_norm_is_refused(self):
        """Its shift takes the factor as well as its gain."""
        scheme = nnlr.mup(gpt(8), init="constant", readout_input="transformer.ln_f.weight")
        with pytest.raises(NnlrError, match=r"but not 'transformer\.ln_f\.bias'"):
            plan(gpt(32), scheme)

    def test_tied_readout_needs_a_norm(self):
        """The factor cannot go into a weight that is the embedding too."""
        with pytest.raises(NnlrError, match=r"'transformer\.ln_f\.\*' is the last norm"):
            plan(gpt(32), nnlr.mup(gpt(8), init="constant"))
        model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5, bias=False))
        model[1].weight = model[0].weight
        with pytest.raises(NnlrError, match="or untie them"):
            plan(model, nnlr.mup({8: 2}))
        assert 1 == plan(model, nnlr.mup({8: 8}))["0.weight"].lr_mult

    def test_tied_readout_through_the_norm_is_exact(self):
        """Gain and shift of the last norm take 1 / n: equal to dividing in the forward."""

        def model():
            torch.manual_seed(0)
            return gpt(32).double().eval()

        ours, theirs = model(), model()
        through = nnlr.mup(gpt(8), init="constant", readout_input="transformer.ln_f.*")
        explicit = nnlr.mup(gpt(8), init="constant", forward="in_model")
        theirs.lm_head.register_forward_pre_hook(lambda m, args: (args[0] / 4,))
        tokens = torch.randint(13, (4, 8))
        steps = []
        for net, scheme in ((ours, through), (theirs, explicit)):
            found = plan(net, scheme)
            nnlr.apply_init(net, found)
            steps.append((net, found.optimizer(torch.optim.AdamW)))
        for _ in range(30):
            outs = []
            for net, optimizer in steps:
                logits = net(tokens).logits
                F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
                optimizer.step()
                optimizer.zero_grad()
                outs.append(logits.detach())
            torch.testing.assert_close(*outs, rtol=1e-6, atol=1e-9)

    def test_readout_input_without_a_tie_is_refused(self):
        """It would scale the readout twice."""
        with pytest.raises(NnlrError, match="0 such readouts: leave it out"):
            plan(mlp(32), nnlr.mup(mlp(8), readout_input="4.weight"))
        with pytest.raises(PatternError, match="readout_input='ln_f'"):
            plan(gpt(32), nnlr.mup(gpt(8), readout_input="ln_f"))

    def test_computed_weights_take_no_factor(self):
        """Of a weight-normed readout only the direction would be scaled."""

        def net(width):
            return nn.Sequential(nn.Linear(3, width), weight_norm(nn.Linear(width, 2)))

        with pytest.raises(NnlrError, match="is computed from"):
            plan(net(32), nnlr.mup(net(8)))
        plan(net(32), nnlr.mup(net(8), forward="in_model"))

    def test_a_model_and_a_base_that_were_swapped_are_found(self):
        """A model narrower than its base is legal (a check below the base), and noted."""
        notes = {
            width: [f.kind for f in plan(mlp(width), nnlr.mup(mlp(32))).findings]
            for width in (16, 32, 64)
        }
        assert {16: ["width-narrower"], 32: [], 64: []} == notes

    def test_output_layer_with_two_widths_is_found(self):
        """Another vocabulary without a delta makes a readout look hidden."""
        options = {"tie_word_embeddings": False}
        base, wide = gpt(8, **options), gpt(32, vocab=20, **options)
        found = plan(wide, nnlr.mup(base, init="constant"))
        assert ["width-head"] == [f.kind for f in found.findings if "head" in f.kind]

    def test_a_forgotten_width_is_found(self):
        """Without 64 among the widths, a hidden layer looks like a second readout."""
        found = plan(mlp(32), nnlr.mup({32: 8}))
        assert [("2.weight", "6.weight")] == [f.names for f in found.findings]
        assert () == plan(mlp(32), nnlr.mup({32: 8, 64: 16})).findings

    def test_mup_layers_without_base_shapes_are_found(self):
        """MuReadout cannot run before set_base_shapes."""
        found = plan(mlp(32, peer.MuReadout), nnlr.mup(mlp(8)))
        assert ["width-mup-unset"] == [f.kind for f in found.findings]


class Heads(nn.Module):
    """Attention with separate projections, and heads that grow."""

    def __init__(self, width, *, norm=False):
        super().__init__()
        self.head_dim = width // 2
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        if norm:
            self.q_norm = nn.LayerNorm(width)

    def forward(self, x):
        return (self.q_proj(x) @ self.k_proj(x).mT / math.sqrt(self.head_dim)).softmax(-1)


class TestAttention:
    """Heads that grow: 1 / size instead of its root."""

    def test_growth_is_found(self):
        """A warning, until the queries are scaled."""
        found = plan(Heads(32), nnlr.mup(Heads(8)))
        assert [("",)] == [f.names for f in found.findings if "attention" in f.kind]
        found = plan(Heads(32), nnlr.mup(Heads(8), delta=Heads(16)))
        assert ["width-attention"] == [f.kind for f in found.findings]
        scaled = nnlr.mup(Heads(8), head_growth={"q_proj.*": 4})
        assert () == plan(Heads(32), scaled).findings
        nested = nn.Sequential(nn.Linear(3, 32), Heads(32))
        base = nn.Sequential(nn.Linear(3, 8), Heads(8))
        scaled = nnlr.mup(base, head_growth={"1.q_proj.*": 4})
        assert () == plan(nested, scaled).findings
        assert [("1",)] == [f.names for f in plan(nested, nnlr.mup(base)).findings]

    def test_folded_queries_divide_by_the_size(self):
        """The logits become those of 1 / size, equal at the base."""
        wide = Heads(32).double()
        x = torch.randn(3, 32).double()
        with torch.no_grad():
            q, k = wide.q_proj(x), wide.k_proj(x)
            expected = (q @ k.mT / 16 * math.sqrt(4)).softmax(-1)  # root of the base's size
        scheme = nnlr.mup(Heads(8), init="mup", head_growth={"q_proj.*": 4})
        found = plan(wide, scheme)
        nnlr.apply_init(wide, found)
        torch.testing.assert_close(expected, wide(x).detach())
        assert 0.5 == found["q_proj.bias"].lr_mult
        assert 0.125 == found["q_proj.weight"].lr_mult

    def test_half_a_projection_is_refused(self):
        """The bias of the queries is scaled with their weight."""
        scheme = nnlr.mup(Heads(8), head_growth={"q_proj.weight": 4})
        with pytest.raises(NnlrError, match=r"but not 'q_proj\.bias'"):
            plan(Heads(32), scheme)
        kinds = [nn.MultiheadAttention(width, 2, kdim=5) for width in (8, 32)]
        scheme = nnlr.mup(kinds[0], head_growth={"q_proj_weight": 4})
        assert 0.125 == plan(kinds[1], scheme)["q_proj_weight"].lr_mult

    def test_a_norm_behind_the_queries_is_refused(self):
        """It would undo the factor."""
        scheme = nnlr.mup(Heads(8, norm=True), head_growth={"q_proj.*": 4})
        with pytest.raises(NnlrError, match="followed by the norm 'q_norm'"):
            plan(Heads(32, norm=True), scheme)


def test_residual_network_of_transformers():
    """A convolutional network from a config: every 2-D+ weight but the stem is hidden."""

    def resnet(width):
        config = ResNetConfig(
            embedding_size=width,
            hidden_sizes=[width, 2 * width],
            depths=[1, 1],
            layer_type="basic",
        )
        return ResNetForImageClassification(config)

    found = plan(resnet(16), nnlr.mup(resnet(8)))
    weights = [row for row in found if len(row.shape) > 1]
    assert 1 == weights[0].lr_mult
    assert {0.5} == {row.lr_mult for row in weights[1:]}


def test_base_of_something_else():
    """The base is described once; a plan does not change when the base trains on."""
    base = mlp(8)
    scheme = nnlr.mup(base)
    assert as_base(base).mults(describe(mlp(8))) == [
        (None,) * len(p.shape) for p in base.parameters()
    ]
    before = nnlr.testing.rates(plan(mlp(32), scheme))
    with torch.no_grad():
        base[0].weight.zero_()
    assert before == nnlr.testing.rates(plan(mlp(32), scheme))


def test_equal_factors_share_one_step():
    """Parameters that grow alike share a step, so that large plans stay small."""
    base, wide = (nn.Sequential(nn.Linear(4, w), nn.Linear(w, w), nn.Linear(w, w)) for w in (8, 16))
    plan = nnlr.resolve(wide, nnlr.mup(base), lr=1, weight_decay=0)
    assert len({id(row.trace[0]) for row in plan}) < len(plan.rows)
    assert plan["1.bias"].trace[0] is plan["2.bias"].trace[0]


class TestMuon:
    """muP beside, and for, an optimizer that orthogonalizes."""

    @pytest.mark.parametrize("kind", ["hidden", "input", "readout"])
    def test_an_update_moves_features_alike_at_every_width(self, kind):
        """Its spectral norm goes like the root of out / in, by a real step of torch's class."""
        sizes = []
        for width in (32, 128):
            out = 6 if kind == "readout" else width
            fan_in = 6 if kind == "input" else width
            net, base = (
                nn.Linear(fan_in, out, bias=False),
                nn.Linear(6 if kind == "input" else 32, 6 if kind == "readout" else 32, bias=False),
            )
            scheme = nnlr.mup(base, optimizer="muon", forward="in_model")
            plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
            (row,) = plan
            assert row.lr_mult * row.wd_mult == pytest.approx(1)
            optimizer = plan.optimizer(torch.optim.Muon, init="done")
            before = net.weight.detach().clone()
            torch.manual_seed(0)
            net.weight.grad = torch.randn_like(net.weight)
            optimizer.step()
            norm = float(torch.linalg.matrix_norm(net.weight.detach() - before, 2))
            sizes.append(norm / (out / fan_in) ** 0.5)
        assert sizes[0] == pytest.approx(sizes[1], rel=0.25)  # Newton-Schulz comes near only

    def test_kernels_count_as_matrices(self):
        """Of outputs by all else; what both grow by cancels out."""

        def net(n):
            return nn.Sequential(nn.Conv2d(3, n, 3), nn.Conv2d(n, n, 3), nn.Conv2d(n, 2, 1))

        scheme = nnlr.mup(net(8), optimizer="muon", forward="in_model")
        plan = nnlr.resolve(net(32), scheme, lr=1, weight_decay=0)
        rates = [row.lr_mult for row in plan if row.role != "bias"]
        # 8 by 27 was wide; 32 by 27 is tall, and torch's factor grows by its share of 4 only.
        due = (4 * 1 / (32 / 27)) ** 0.5
        assert rates == pytest.approx([due, 1, 0.5])
        assert plan == nnlr.Plan.from_json(plan.to_json())

    def test_what_is_no_matrix_keeps_its_rate(self):
        """Vectors, which Muon does not train."""
        plan = nnlr.resolve(
            nn.Linear(64, 64), nnlr.mup(nn.Linear(32, 32), optimizer="muon"), lr=1, weight_decay=0
        )
        assert 1 == plan["bias"].lr_mult

    def test_factors_for_another_algorithm_are_refused(self):
        """In one optimizer each class is held against the factors of what it trains."""

        def net(n):
            return nn.ModuleDict(
                {"a": nn.Linear(n, n), "b": nn.Linear(n, n), "head": nn.Linear(n, 3)}
            )

        model, base, hidden = net(64), net(32), nnlr.role("matrix")
        route = nnlr.route("muon", "adamw")
        classes = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}

        def build(*schemes, **others):
            lr = {"muon": 0.02, "adamw": 1e-3}
            plan = nnlr.resolve(model, route, *schemes, lr=lr, weight_decay=0.1)
            return plan.optimizer({**classes, **others}, init="done")

        with pytest.raises(ConfigError, match=r"Muon does not go with mup\(ModuleDict\)"):
            build(nnlr.mup(base))
        with pytest.raises(ConfigError, match=r"AdamW does not go with mup.* what 'adamw' trains"):
            build(nnlr.mup(base, optimizer="muon"))
        halves = nnlr.mup(base).where(~hidden), nnlr.mup(base, optimizer="muon").where(hidden)
        assert {"muon", "adamw"} == set(build(*halves).algorithms)
        assert {"muon", "adamw"} == set(build(nnlr.mup(base).where(~hidden)).algorithms)
        other = functools.partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
        with pytest.raises(ConfigError, match="use adjust_lr_fn='original'"):
            build(*halves, muon=other)
        build(*halves, muon=functools.partial(torch.optim.Muon, adjust_lr_fn="original"))
