"""CompleteP: the published table, the released groups, and forward factors folded exactly."""

from dataclasses import replace
from itertools import pairwise

import mup as peer
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from transformers import GPT2Config, GPT2LMHeadModel

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.schemes._width.base import shapes
from nnlr.testing import SchemeLaws, rates

ENDS = "*.c_proj.*"


class Branch(nn.Module):
    """One residual branch of a GPT, of which only the shapes matter here."""

    def __init__(self, first, width, factor):
        super().__init__()
        sizes = {"c_attn": (width, 3 * width), "c_fc": (width, 4 * width)}
        setattr(self, first, nn.Linear(*sizes[first]))
        self.first = first
        self.c_proj = nn.Linear(sizes[first][1], width)
        self.factor = factor

    def forward(self, x):
        return self.factor * self.c_proj(F.gelu(getattr(self, self.first)(x)))


class Block(nn.Module):
    def __init__(self, width, factor):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Branch("c_attn", width, factor)
        self.mlp = Branch("c_fc", width, factor)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Net(nn.Module):
    """Named like nanoGPT, with its readout untied; multiplies itself if told to."""

    def __init__(self, width, depth, *, branch=1.0, readout=1.0):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, width), nn.Embedding(6, width)
        self.h = nn.ModuleList(Block(width, branch) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, 11, bias=False)
        self.readout = readout

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe.weight
        for block in self.h:
            x = block(x)
        return self.lm_head(self.readout * self.ln_f(x))


def plan(model, *schemes, **kwargs):
    return nnlr.resolve(model, *schemes, lr=1.0, weight_decay=0.1, **kwargs)


def block(param):
    """The block that a parameter is in, by its name."""
    path = param.name.split(".")
    return int(path[1]) if path[0] == "h" else None


GROUPS = {
    "embedding": "wte.weight",
    "norm": "h.0.ln_1.weight",
    "hidden": "h.0.attn.c_attn.weight",
    "end": "h.0.mlp.c_proj.weight",
    "bias": "h.0.mlp.c_fc.bias",
    "final norm": "ln_f.weight",
    "readout": "lm_head.weight",
}


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors on many threads wait for each other more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.no_cover
class TestCompletePLaws(SchemeLaws):
    """The laws of schemes hold."""

    def schemes(self):
        base = Net(4, 2)
        return [
            nnlr.complete_p(base, indexer=block, residual_out=ENDS),
            nnlr.complete_p(base, indexer="auto", alpha=0.5, forward="in_model"),
        ]

    def models(self):
        frozen = Net(8, 4)
        frozen.wte.requires_grad_(False)
        return [frozen]


class TestTable:
    """Number by number."""

    @pytest.mark.parametrize(
        ("alpha", "lr"),
        [(1, (1, 1, 0.25, 1, 1)), (0.5, (1, 0.5, 0.125, 0.5, 1))],
    )
    def test_released_groups(self, alpha, lr):
        """4 x as wide and deep: embedding, norm, hidden, bias, final norm, as measured.

        The released optimizer gave these groups in a run of the authors' code (branch
        ``completep``), with decay 0.1: 0.4 for hidden weights, and one eps for all.
        """
        scheme = nnlr.complete_p(Net(8, 2), alpha=alpha, form="as_released", forward="in_model")
        found = plan(Net(32, 8), scheme)
        groups = ("embedding", "norm", "hidden", "bias", "final norm")
        rows = [found[GROUPS[group]] for group in groups]
        assert list(lr) == [row.lr for row in rows]
        assert 0.4 == pytest.approx(rows[2].weight_decay, rel=1e-12)
        assert {0.1} == {row.weight_decay for row in rows if row is not rows[2]}
        expected = 4**-1 * 4**-alpha
        assert [pytest.approx(expected, rel=1e-12)] * 5 == [r.eps_mult for r in rows]

    @pytest.mark.parametrize("alpha", [0.5, 0.75, 1])
    @pytest.mark.parametrize(("n", "deep"), [(4, 4), (2, 3), (3, 0.5), (1, 4), (4, 1)])
    def test_published_table(self, alpha, n, deep):
        """Table 1 and equation 40, for widths and depths up and down, unfolded."""
        scheme = nnlr.complete_p(Net(8, 4), alpha=alpha, init="constant", forward="in_model")
        found = plan(Net(8 * n, int(4 * deep)), scheme)
        inside, outside = 1 / n * deep**-alpha, 1 / n
        expected = {  # lr, wd, eps, init
            "embedding": (1, 1, outside, 1),
            "norm": (deep ** (alpha - 1), 1, inside, 1),
            "hidden": (deep ** (alpha - 1) / n, n, inside, n**-0.5),
            "end": (deep ** (alpha - 1) / n, n, inside, n**-0.5),
            "bias": (deep ** (alpha - 1), 1, inside, 1),
            "final norm": (1, 1, outside, 1),
            "readout": (1, 1, outside, 1),
        }
        for group, numbers in expected.items():
            row = found[GROUPS[group]]
            actual = (row.lr_mult, row.wd_mult, row.eps_mult, row.init_mult)
            assert pytest.approx(numbers, rel=1e-12) == actual, group

    def test_folded_table(self):
        """The ends of branches take 1 / l, the readout 1 / n: lr c, wd and eps 1 / c."""
        scheme = nnlr.complete_p(Net(8, 2), init="constant", residual_out=ENDS)
        found = plan(Net(32, 8), scheme)
        end, bias = found["h.0.mlp.c_proj.weight"], found["h.0.mlp.c_proj.bias"]
        head = found["lm_head.weight"]
        assert (1 / 16, 16, 1 / 4, 1 / 8) == rates_of(end)
        assert (1 / 4, 4, 1 / 4, 1 / 4) == rates_of(bias)
        assert (1 / 4, 4, 1, 1 / 4) == rates_of(head)

    def test_width_alone_is_mup_with_its_epsilon(self):
        """At the base's depth all but eps is muP's, for AdamW."""
        base, wide = Net(8, 2), Net(32, 2)
        ours, theirs = plan(wide, nnlr.complete_p(base)), plan(wide, nnlr.mup(base))
        for row in theirs:
            assert rates_of(row)[:2] == rates_of(ours[row.name])[:2]
            assert row.init_mult == ours[row.name].init_mult
            assert pytest.approx(row.eps_mult / 4) == ours[row.name].eps_mult

    def test_epsilon_follows_the_readout(self):
        """Gradients shrink with the width of the readout, however many layers are wider."""
        layers = nn.Sequential(*(nn.Linear(32, 32) for _ in range(4)))
        model = nn.Sequential(layers, nn.Linear(8, 2))

        def inner(param):
            return int(param.name[2]) if param.name[0] == "0" else None

        scheme = nnlr.complete_p({32: 8, 8: 4}, base_depth=4, forward="in_model", indexer=inner)
        assert {0.5} == {row.eps_mult for row in plan(model, scheme)}

    def test_initialisation_of_gpt2(self):
        """GPT-2 starts the ends of branches smaller with depth; CompleteP does not."""
        given = {"init": "gpt2", "residual_out": ENDS}
        for forward, c in (("folded", 0.25), ("in_model", 1)):
            scheme = nnlr.complete_p(Net(8, 2), forward=forward, **given)
            found = plan(Net(32, 8), scheme)
            assert 0.5 * 2 * c == found["h.0.mlp.c_proj.weight"].init_mult
            assert 1 * c == found["h.0.mlp.c_proj.bias"].init_mult
            assert 0.5 == found["h.0.mlp.c_fc.weight"].init_mult


def rates_of(row):
    return row.lr_mult, row.wd_mult, row.eps_mult, row.init_mult


class TestFolding:
    """A folded model is the model that multiplies in its forward pass."""

    @pytest.mark.parametrize("alpha", [0.5, pytest.param(1, marks=pytest.mark.full)])
    @pytest.mark.no_cover
    def test_steps_are_the_same(self, alpha):
        """120 steps of AdamW with decay and a large eps, to 1e-6."""
        n, deep = 3, 2
        ours = Net(12, 4).double()
        theirs = Net(12, 4, branch=deep**-alpha, readout=1 / n).double()
        theirs.load_state_dict(ours.state_dict())
        base = Net(4, 2)
        folded = nnlr.complete_p(base, alpha=alpha, residual_out=ENDS)
        explicit = nnlr.complete_p(base, alpha=alpha, forward="in_model")
        steps = []
        for model, scheme in ((ours, folded), (theirs, explicit)):
            found = nnlr.resolve(model, scheme, lr=0.01, weight_decay=0.1)
            nnlr.apply_init(model, found)
            steps.append((model, found.optimizer(torch.optim.AdamW, eps=1e-3)))
        tokens = torch.randint(11, (4, 6))
        start, end = None, None
        for _ in range(120):
            outs = []
            for model, optimizer in steps:
                out = model(tokens)
                end = F.cross_entropy(out.flatten(0, 1), tokens.flatten())
                end.backward()
                optimizer.step()
                optimizer.zero_grad()
                outs.append(out.detach())
            start = start or end.item()
            torch.testing.assert_close(*outs, rtol=1e-6, atol=1e-9)
        assert end.item() < start / 2

    @pytest.mark.no_cover
    def test_depth_leaves_activations_where_they_are(self):
        """From 2 to 32 blocks, four steps: the last block moves by less than a third."""
        base = Net(16, 2)

        def size(depth, *schemes):
            torch.manual_seed(0)
            model = Net(16, depth)
            found = nnlr.resolve(model, *schemes, lr=0.01, weight_decay=0)
            nnlr.apply_init(model, found)
            optimizer = found.optimizer(torch.optim.AdamW)
            seen = []
            model.h[-1].register_forward_hook(
                lambda m, i, out: seen.append(out.detach().abs().mean())
            )
            torch.manual_seed(1)
            tokens = torch.randint(11, (8, 6))
            for _ in range(5):
                loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            return float(seen[-1])

        scheme = nnlr.complete_p(base, residual_out=ENDS)
        assert 0.67 < size(32, scheme) / size(2, scheme) < 1.5
        assert size(32) / size(2) > 2


class TestBase:
    """What depth is compared with."""

    def test_stored_shapes_need_the_depth(self):
        """Shapes say nothing of blocks; with base_depth they give the same plan."""
        base, deep = Net(8, 2), Net(32, 8)
        given = {"residual_out": ENDS}
        expected = rates(plan(deep, nnlr.complete_p(base, **given)))
        stored = shapes(base, Net(16, 2))
        scheme = nnlr.complete_p(stored, base_depth=2, **given)
        assert expected == rates(plan(deep, scheme))
        scheme = nnlr.complete_p(base, delta=Net(16, 2), **given)
        assert expected == rates(plan(deep, scheme))
        with pytest.raises(NnlrError, match="pass base_depth="):
            nnlr.complete_p(stored)

    def test_own_names_of_blocks(self):
        """An indexer of the user's own gives the same plan."""
        given = {"residual_out": ENDS}
        expected = rates(plan(Net(32, 8), nnlr.complete_p(Net(8, 2), **given)))
        scheme = nnlr.complete_p(Net(8, 2), indexer=block, **given)
        assert expected == rates(plan(Net(32, 8), scheme))

    def test_transformers_model(self):
        """GPT-2 from a config, tied and with GPT-2's initialisation."""

        def gpt(width, depth):
            config = GPT2Config(
                n_embd=width,
                n_head=width // 4,
                n_layer=depth,
                vocab_size=13,
                n_positions=8,
                bos_token_id=0,
                eos_token_id=0,
            )
            return GPT2LMHeadModel(config)

        scheme = nnlr.complete_p(
            gpt(8, 2),
            init="gpt2",
            residual_out=ENDS,
            readout_input="transformer.ln_f.*",
        )
        found = plan(gpt(32, 4), scheme)
        assert (1, 1, 1 / 4, 1) == rates_of(found["transformer.wte.weight"])
        assert (1 / 4, 4, 1, 1 / 4) == rates_of(found["transformer.ln_f.weight"])
        end = found["transformer.h.3.mlp.c_proj.weight"]
        assert pytest.approx((1 / 8, 8, 1 / 4, 0.5 * 2**0.5 / 2)) == rates_of(end)
        assert () == found.findings

    def test_growing_heads(self):
        """head_growth is muP's: folded into the queries."""
        scheme = nnlr.complete_p(Net(8, 2), head_growth={"*.c_attn.*": 4})
        row = plan(Net(32, 2), scheme)["h.0.attn.c_attn.bias"]
        assert (0.5, 2) == (row.lr_mult, row.wd_mult)

    def test_blocks_of_unlike_shapes_are_refused(self):
        """Of a deeper model nothing tells to which block of the base a block belongs."""

        def net(*widths):
            layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
            return nn.Sequential(*layers)

        scheme = nnlr.complete_p(
            net(4, 8, 6, 8), forward="in_model", indexer=lambda p: int(p.name[0])
        )
        with pytest.raises(NnlrError, match="without one in the base"):
            plan(net(4, 16, 12, 16, 12), scheme)

    def test_towers_must_be_the_same(self):
        """A base without the model's tower has no depth to compare."""
        base = nn.ModuleDict({"a": Net(8, 2), "b": Net(8, 2)})
        deep = nn.ModuleDict({"a": Net(8, 4), "b": Net(8, 8)})
        scheme = nnlr.complete_p(base, alpha=0.5, forward="in_model")
        found = plan(deep, scheme)
        assert pytest.approx(2**-0.5) == found["a.h.0.ln_1.weight"].lr_mult
        assert pytest.approx(4**-0.5) == found["b.h.0.ln_1.weight"].lr_mult
        scheme = replace(scheme, base_blocks={"a": 2})
        with pytest.raises(NnlrError, match="same towers"):
            plan(deep, scheme)

    def test_readouts_of_mup_keep_their_initial_weights(self):
        """A model of the package mup has been scaled by it already, as for mup."""

        def net(width, depth):
            model = Net(width, depth)
            model.lm_head = peer.MuReadout(width, 11)
            return model

        wide = net(32, 2)
        peer.set_base_shapes(wide, net(8, 2))
        found = plan(wide, nnlr.complete_p(net(8, 2)))
        assert {1} == {row.init_mult for row in found}
        assert () == found.findings

    def test_gains_that_hang_on_the_block(self):
        """A LayerScale beside other parameters of the block may end a branch alone."""

        def net(width, depth):
            model = Net(width, depth)
            for each in model.h:
                each.gamma = nn.Parameter(torch.ones(width))
                each.table = nn.Parameter(torch.ones(3))
            return model

        scheme = nnlr.complete_p(net(8, 2), residual_out="*.gamma")
        assert 0.5 == plan(net(8, 4), scheme)["h.0.gamma"].lr_mult


class TestMessages:
    """What is refused, and what the message proposes."""

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"alpha": 0.4}, "alpha must be a finite number >= 0.5 and <= 1"),
            ({"alpha": 2}, "alpha must"),
            ({"form": "released"}, "form must be one of"),
            ({"init": "he"}, "init must be one of 'fan_in', 'constant', 'mup', 'gpt2'"),
            ({"forward": "no"}, "forward must be"),
            ({"base_depth": 0}, "base_depth must be a whole number"),
            ({"base_depth": True}, "base_depth must be a whole number >= 1"),
            ({"base_depth": 1.5}, "base_depth must be a whole"),
            ({"indexer": 3}, "indexer must be"),
            ({"residual_out": 3}, "residual_out"),
            ({"readout_input": "ln_f.*", "forward": "in_model"}, "pass one of them"),
        ],
        ids=str,
    )
    def test_refused_at_the_call(self, given, says):
        """Bad arguments are refused where they are given."""
        with pytest.raises(NnlrError, match=says):
            nnlr.complete_p(Net(4, 2), **given)

    def test_no_base(self):
        """There is nothing to read depth from without one."""
        with pytest.raises(NnlrError, match="needs a base"):
            nnlr.complete_p(None)

    def test_ends_are_proposed(self):
        """The error names the last weights of each part of the blocks."""
        with pytest.raises(NnlrError, match=r"are '\*\.c_proj\.\*', by name"):
            plan(Net(8, 4), nnlr.complete_p(Net(8, 2)))

    @pytest.mark.parametrize(
        ("ends", "says"),
        [
            ("*.c_proj.weight", "but not 'h.0.attn.c_proj.bias'"),
            ("*c_proj*|*", "matches no parameter"),
            ("h.1.*.c_proj.*", "names nothing in 3 blocks of Net, such as layer"),
            (nnlr.glob(ENDS) | "ln_f.*", "'ln_f.weight', which is in no block"),
        ],
    )
    def test_ends_that_do_not_end_every_branch(self, ends, says):
        """Biases and blocks left out, and parameters outside of blocks."""
        with pytest.raises((NnlrError, PatternError), match=says):
            plan(Net(8, 4), nnlr.complete_p(Net(8, 2), residual_out=ends))

    def test_computed_ends(self):
        """Weight norm's direction takes no factor."""
        base, deep = Net(8, 2), Net(8, 4)
        for each in (*base.h, *deep.h):
            weight_norm(each.mlp.c_proj)
        scheme = nnlr.complete_p(base, residual_out="*.mlp.c_proj.*")
        with pytest.raises(NnlrError, match="is computed from 'original0'"):
            plan(deep, scheme)

    def test_another_optimizer(self):
        """The table is for AdamW."""
        deep = Net(8, 4)
        found = plan(deep, nnlr.complete_p(Net(8, 2), residual_out=ENDS))
        with pytest.raises(NnlrError, match=r"SGD does not go with complete_p\("):
            found.optimizer(torch.optim.SGD, init="done")

    def test_no_blocks(self):
        """A model whose indexer sees no blocks has no depth."""

        class Stem(nnlr.depth.Indexer):
            def layers(self, model):
                return [None] * len(model.params)

            def __repr__(self):
                return "Stem()"

        scheme = nnlr.complete_p(nn.Linear(2, 2), indexer=Stem())
        with pytest.raises(NnlrError, match=r"Stem\(\) finds no blocks in Linear"):
            plan(nn.Linear(4, 4), scheme)

    def test_shown_as_written(self):
        """The call, with what is not the default."""
        assert "complete_p(Net, alpha=0.5, residual_out='*.c_proj.*')" == repr(
            nnlr.complete_p(Net(4, 2), alpha=0.5, residual_out=ENDS)
        )
        scheme = nnlr.complete_p({8: 4}, base_depth=2, indexer=block)
        assert "complete_p({8: 4}, base_depth=2, indexer=block)" == repr(scheme)


def test_muon_beside_it_is_refused_by_name():
    """Nothing is published for it; where() leaves what Muon trains at its base."""

    def net(width, depth):
        blocks = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))
        return nn.Sequential(nn.Linear(3, width), blocks, nn.Linear(width, 2))

    depth = nnlr.complete_p(net(8, 2), forward="in_model")
    model, hidden = net(16, 4), nnlr.role("matrix")
    classes = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}

    def build(scheme):
        schemes = nnlr.route("muon", "adamw"), scheme
        lr = {"muon": 0.02, "adamw": 1e-3}
        return nnlr.resolve(model, *schemes, lr=lr, weight_decay=0.1).optimizer(
            classes, init="done"
        )

    with pytest.raises(ConfigError, match=r"Muon does not go with complete_p.* for what 'muon'"):
        build(depth)
    optimizer = build(depth.where(~hidden))
    assert {0.02} == {group["lr"] for group in optimizer.algorithms["muon"].param_groups}
