"""embedding_lr: rates of embedding tables."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr.schemes import embedding_lr
from nnlr.testing import SchemeLaws, rates
from tests import zoo

LR, WD = 1e-3, 0.1


def resolve(model, *schemes):
    """A plan at the base rates of these tests."""
    return nnlr.resolve(model, *schemes, lr=LR, weight_decay=WD)


class Towers(nn.Module):
    """Two embeddings of different widths, one of positions, a table of biases, a head."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 64)
        self.position = nn.Embedding(16, 64)
        self.relative_position = nn.Embedding(8, 2)
        self.chars = nn.Embedding(20, 16)
        self.fc = nn.Linear(64, 64)
        self.head = nn.Linear(64, 50)


class TestEmbeddingLaws(SchemeLaws):
    """The rules keep the laws of schemes."""

    def schemes(self):
        """All three rules."""
        return [
            embedding_lr("decoupled", lr=0.02, position=True),
            embedding_lr("sqrt_width", base_width=3, mult=0.7),
            embedding_lr("width", base_width=3, position=True),
        ]

    def models(self):
        """Models with an embedding, tied and not."""
        return [zoo.plain(), zoo.tied(), Towers()]


@pytest.mark.parametrize(
    ("scheme", "words", "chars"),
    [
        (embedding_lr("width", base_width=16), 4.0, 1.0),
        (embedding_lr("width", base_width=1), 64.0, 16.0),
        (embedding_lr("width", base_width=128, mult=10), 5.0, 1.25),
        (embedding_lr("sqrt_width", base_width=16), 2.0, 1.0),
        (embedding_lr("sqrt_width", base_width=256, mult=8), 4.0, 2.0),
    ],
)
def test_the_factor_follows_from_each_table_s_own_width(scheme, words, chars):
    """A table gets mult * (width / base_width) ** (1/2 or 1), nothing else moves."""
    plan = resolve(Towers(), scheme)
    expected = {row.name: 1.0 for row in plan}
    expected |= {"words.weight": words, "chars.weight": chars}
    assert expected == {row.name: row.lr_mult for row in plan}


def test_the_ratio_between_two_widths_is_the_paper_s():
    """Four times the width: twice the ratio for sqrt_width, four times for width."""
    for rule, expected in (("sqrt_width", 2.0), ("width", 4.0)):
        scheme = embedding_lr(rule, base_width=32)
        mults = [
            resolve(nn.Sequential(nn.Embedding(9, n)), scheme)["0.weight"].lr_mult
            for n in (48, 192)
        ]
        assert expected == pytest.approx(mults[1] / mults[0], rel=1e-12)


def test_decoupled_sets_embeddings_and_output_layers():
    """The absolute rate for both; positions and the head's bias stay, as in Megatron-LM."""
    plan = resolve(Towers(), embedding_lr("decoupled", lr=0.02))
    moved = {"words.weight", "chars.weight", "head.weight"}
    assert moved == {row.name for row in plan if row.lr == 0.02}
    assert {LR} == {row.lr for row in plan if row.name not in moved}


def test_decoupled_does_not_follow_the_base_rate():
    """Another base rate, the same rate for embeddings."""
    scheme = embedding_lr("decoupled", lr=0.02)
    for base in (1e-4, 0.5):
        plan = nnlr.resolve(Towers(), scheme, lr=base, weight_decay=0)
        assert plan["words.weight"].lr == 0.02


def test_position_adds_position_embeddings_but_no_bias_tables():
    """A table of attention biases is as wide as there are heads: no embedding."""
    plan = resolve(Towers(), embedding_lr("width", base_width=16, position=True))
    mults = {row.name: row.lr_mult for row in plan}
    assert mults["position.weight"] == 4
    assert mults["relative_position.weight"] == 1


def test_the_trace_has_the_formula():
    """It shows width, base width and mult."""
    plan = resolve(Towers(), embedding_lr("sqrt_width", base_width=16, mult=3))
    assert "3 x (64/16)^0.5" in " ".join(plan.explain("words.weight").split())
    plan = resolve(Towers(), embedding_lr("width", base_width=16))
    assert "64/16, embedding" in plan.explain("words.weight")


def test_a_tied_output_layer_is_a_finding_of_the_width_rules():
    """Its rate should not grow with width; decoupled means both anyway."""
    for rule in ("sqrt_width", "width"):
        found = resolve(zoo.tied(), embedding_lr(rule, base_width=2)).findings
        assert [("tied-embedding-width", ("embed.weight",))] == [
            (finding.kind, finding.names) for finding in found
        ]
    assert () == tuple(resolve(zoo.tied(), embedding_lr("decoupled", lr=1e-2)).findings)
    assert () == tuple(resolve(zoo.plain(), embedding_lr("width", base_width=2)).findings)


def test_one_embedding_shared_by_two_places_is_no_finding():
    """Both places are embeddings."""
    table = nn.Embedding(9, 4)
    model = nn.ModuleDict({"encoder": table, "decoder": nn.Sequential(table)})
    assert () == tuple(resolve(model, embedding_lr("width", base_width=2)).findings)


class ScaledEmbedding(nn.Embedding):
    """An embedding that multiplies what it looks up."""


def test_embeddings_of_two_classes_are_no_output_layer():
    """One of the two places scales what it looks up, as in BART and M2M100."""
    model = nn.ModuleDict({"one": nn.Embedding(9, 4), "two": ScaledEmbedding(9, 4)})
    model["two"].weight = model["one"].weight
    assert () == tuple(resolve(model, embedding_lr("width", base_width=2)).findings)


def test_a_frozen_tied_table_is_no_finding():
    """No rate raises what does not learn."""
    model = zoo.tied()
    model.embed.weight.requires_grad_(False)
    found = resolve(model, embedding_lr("width", base_width=2)).findings
    assert "tied-embedding-width" not in [finding.kind for finding in found]


def test_bare_tensors_have_a_width_too():
    """Names and shapes are enough."""
    tensors = {name: t.detach() for name, t in zoo.plain().named_parameters()}
    plan = resolve(tensors, embedding_lr("width", base_width=2))
    assert plan["embed.weight"].lr_mult == 2


def test_it_composes():
    """Factors multiply; a rate of its own for the head is one rule more."""
    scheme = embedding_lr("width", base_width=16) * nnlr.rule("*", lr_mult=0.5)
    assert resolve(Towers(), scheme)["words.weight"].lr_mult == 2
    assert rates(resolve(Towers(), scheme)) == rates(
        resolve(
            Towers(),
            nnlr.rule("words.*", lr_mult=4) * nnlr.rule("*", lr_mult=0.5),
        )
    )


def test_width_is_the_ratio_of_mup():
    """Embedding by hidden rate of the wide model, relative to the base: the same number."""

    def net(n):
        return nn.Sequential(nn.Embedding(9, n), nn.Linear(n, n), nn.Linear(n, 9))

    mup = resolve(net(96), nnlr.mup(net(16)))
    expected = mup["0.weight"].lr_mult / mup["1.weight"].lr_mult
    found = resolve(net(96), embedding_lr("width", base_width=16))
    assert expected == found["0.weight"].lr_mult / found["1.weight"].lr_mult == 6


def test_decoupled_is_megatron_s():
    """The rates that its own overrides give to a model of embeddings, matrices and head."""
    expected = resolve(zoo.plain(), nnlr.megatron(decoupled_lr=0.02))
    found = resolve(zoo.plain(), embedding_lr("decoupled", lr=0.02))
    assert [row.lr for row in expected] == [row.lr for row in found]


def test_real_models():
    """BERT's two token tables, and no position; LLaMA's one and its head."""
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 4}
    with torch.device("meta"):
        bert = transformers.BertModel(transformers.BertConfig(**sizes))
        llama = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**sizes, vocab_size=100, intermediate_size=96)
        )
    plan = resolve(bert, embedding_lr("width", base_width=16))
    assert {
        "embeddings.word_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
    } == {row.name for row in plan if row.lr_mult == 4}
    plan = resolve(llama, embedding_lr("decoupled", lr=0.02))
    assert {"model.embed_tokens.weight", "lm_head.weight"} == {
        row.name for row in plan if row.lr == 0.02
    }


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: embedding_lr("widht"), nnlr.NnlrError, "Nearest: 'width'"),
        (lambda: embedding_lr(2.0), nnlr.NnlrError, "'decoupled', 'sqrt_width'"),
        (lambda: embedding_lr("decoupled"), nnlr.ConfigError, r"needs the rate.*>= 0"),
        (
            lambda: embedding_lr("decoupled", lr=-1),
            nnlr.NnlrError,
            "lr must be a finite number >= 0",
        ),
        (
            lambda: embedding_lr("decoupled", lr=1, base_width=8),
            nnlr.ConfigError,
            "base_width and mult belong",
        ),
        (
            lambda: embedding_lr("decoupled", lr=1, mult=2),
            nnlr.ConfigError,
            "takes an absolute lr",
        ),
        (lambda: embedding_lr("width"), nnlr.ConfigError, r"base_width=.*> 0"),
        (
            lambda: embedding_lr("width", base_width=0),
            nnlr.NnlrError,
            "base_width must be a finite number > 0",
        ),
        (
            lambda: embedding_lr("sqrt_width", base_width=8, mult=-1),
            nnlr.NnlrError,
            "mult must be a finite number >= 0",
        ),
        (
            lambda: embedding_lr("width", base_width=8, lr=1),
            nnlr.ConfigError,
            "takes no lr",
        ),
        (
            lambda: embedding_lr("width", base_width=8, position=1),
            nnlr.NnlrError,
            "position must be True or False",
        ),
        (
            lambda: resolve(nn.Linear(2, 2), embedding_lr("width", base_width=8)),
            nnlr.PatternError,
            r"no embedding in Linear \(2 par[\s\S]*bias, matrix[\s\S]*roles=\{pattern: 'emb",
        ),
    ],
)
def test_bad_calls_are_refused(call, error, message):
    """What, where and the range; a model without embeddings is refused at resolve."""
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "text",
    [
        "embedding_lr('decoupled', lr=0.02)",
        "embedding_lr('width', base_width=256.0)",
        "embedding_lr('sqrt_width', base_width=256.0, mult=4.0, position=True)",
    ],
)
def test_the_repr_is_the_call(text):
    """It can be pasted."""
    assert text == repr(eval(text, {"embedding_lr": embedding_lr}))  # noqa: S307
