"""Learned queries, prompts and levels are tokens, whatever class holds them; words are not."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr._model.describe import describe
from tests import zoo


def roles_of(model):
    return {param.name: param.role for param in describe(model).params}


def holding(**tables):
    """A module with an nn.Embedding of a shape, or a module, under each name."""
    module = nn.Module()
    for name, table in tables.items():
        module.add_module(name, nn.Embedding(*table) if isinstance(table, tuple) else table)
    return module


LEARNED = [
    "query",
    "queries",
    "query_embed",
    "query_embedding",
    "query_embeddings",
    "queries_embedder",
    "query_feat",
    "query_pos",
    "query_position_embeddings",
    "query_768_resolution",
    "queryEmbed",
    "object_queries",
    "bev_queries",
    "query_tokens",
    "refpoint_embed",
    "reference_points",
    "point_embed",
    "level_embed",
    "level_embeds",
    "lvl_embed",
    "feature_level_embedding",
    "level_encoding",
    "mask_tokens",
    "register_tokens",
    "audio_bos_eos_token",
    "learnable_tokens",
    "latents",
    "prompt_embeddings",
    "deep_prompt_embeddings",
    "soft_prompt",
    "prefix_embeddings",
    "embed_global",
]


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_input_is_a_token_in_an_embedding_and_in_a_parameter(name):
    """The class that holds it says nothing about what it is for."""
    table = holding(**{name: (10, 4)})
    assert roles_of(table) == {f"{name}.weight": "token"}
    plan = nnlr.resolve(table, nnlr.no_weight_decay(), lr=1, weight_decay=1)
    assert 0 == plan.rows[0].weight_decay
    if name != "embed_global":  # a vector of a whole graph, a weight: nobody knows
        raw = nn.Module()
        raw.register_parameter(name, nn.Parameter(torch.zeros(10, 4)))
        assert roles_of(raw) == {name: "token"}


@pytest.mark.parametrize(
    "name",
    [
        "embed_tokens",
        "token_embedding",
        "tok_embeddings",
        "tokens",
        "text_tokens",
        "image_tokens",
        "wte",
        "embed",
        "embeddings",
        "shared",
        "word_embeddings",
        "token_type_embeddings",
        "query_type_embeddings",
        "query_token_type_embeddings",
        "education_level",
        "search_query_terms",
        "education_level_embedding",
        "tgt_embed",
        "user_embedding",
        "codebook",
    ],
)
def test_what_is_looked_up_is_never_a_token(name):
    """Words, types and categories."""
    assert roles_of(holding(**{name: (10, 4)})) == {f"{name}.weight": "embedding"}
    assert describe({f"{name}.weight": torch.zeros(10, 4)}).params[0].role != "token"


@pytest.mark.parametrize(
    "table",
    [
        nn.Embedding(5000, 2),
        nn.Embedding(10, 4, padding_idx=0),
        nn.Embedding(10, 4, sparse=True),
        nn.Embedding(10, 4, scale_grad_by_freq=True),
        nn.EmbeddingBag(10, 4),
    ],
    ids=["vocabulary", "padding", "sparse", "by frequency", "bag"],
)
def test_a_table_of_words_of_queries_is_looked_up(table):
    """As in retrieval: its size or its settings show it."""
    assert roles_of(holding(query_embeddings=table)) == {"query_embeddings.weight": "embedding"}


@pytest.mark.parametrize("other", ["doc_embeddings", "passage_embedding", "item_table"])
def test_queries_beside_what_they_are_compared_with_are_looked_up(other):
    """Two towers, of which one is for queries."""
    model = holding(query_embeddings=(10, 4), **{other: (10, 4)})
    assert set(roles_of(model).values()) == {"embedding"}


def test_the_tables_of_a_tower_or_encoder_are_looked_up():
    """It is named after what it reads."""
    tower = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4))
    encoder = nn.ModuleDict({"embed": nn.Embedding(10, 4)})
    roles = roles_of(holding(query_tower=tower, prompt_encoder=encoder))
    assert roles["query_tower.0.weight"] == roles["prompt_encoder.embed.weight"] == "embedding"


def test_the_table_of_words_by_the_models_own_word():
    """get_input_embeddings is right, whatever the table is called."""
    model = holding(query_embed=(10, 4))
    model.get_input_embeddings = lambda: model.query_embed
    assert roles_of(model) == {"query_embed.weight": "embedding"}


class Holder(nn.Module):
    """A module whose one parameter has a name that says nothing."""

    def __init__(self, key="weight"):
        super().__init__()
        self.register_parameter(key, nn.Parameter(torch.zeros(10, 4)))


def test_a_module_of_its_own_may_hold_it():
    """By the name of the attribute, or of the class."""
    inner = holding(embedding=(10, 4))
    lists = nn.ModuleList([nn.Embedding(2, 4), nn.Embedding(3, 4)])
    roles = roles_of(holding(query_embed=inner, level_embed=lists))
    assert set(roles.values()) == {"token"}
    for name in ("ObjectQueries", "QueryEmbedding", "LevelEmbedding", "VisualPrompter"):
        raw = type(name, (Holder,), {})()
        assert roles_of(holding(part=raw)) == {"part.weight": "token"}
    prefix = type("PrefixEncoder", (nn.Module,), {})()
    prefix.embedding = nn.Embedding(5, 4)
    prefix.transform = nn.Linear(4, 4)
    assert roles_of(holding(part=prefix))["part.embedding.weight"] == "token"
    learner = type("PromptLearner", (Holder,), {})("ctx")
    assert roles_of(learner) == {"ctx": "token"}


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("query_embed.weight", (10, 4), "token"),
        ("query_position_embeddings.weight", (10, 4), "token"),
        ("mask_tokens.weight", (10, 4), "token"),
        ("level_embed.weight", (10, 4), "token"),
        ("level_embed", (10, 4), "token"),
        ("prompt_embeddings", (1, 10, 4), "token"),
        ("query_embeddings.weight", (5000, 2), "embedding"),
        ("attention.query.weight", (4, 4), "matrix"),
        ("reference_points.weight", (2, 4), "matrix"),
        ("cls_token1", (1, 1, 4), "token"),
    ],
)
def test_without_modules_names_must_say_more(name, shape, role):
    """A `query` in a state dict is a layer of attention more often than not."""
    assert describe({name: torch.zeros(shape)}).params[0].role == role


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("query_proj", (4, 4), "matrix"),
        ("query_weight", (4, 4), "matrix"),
        ("W_query", (4, 4), "matrix"),
        ("latent_dynamics_matrix", (4, 4), "matrix"),
        ("query_scale", (4,), "gain"),
        ("query_bias", (4,), "bias"),
        ("rel_pos_query", (4, 4), "position"),
        ("rpb", (2, 5, 5), "position"),
        ("seg_embed", (2, 4, 4), "position"),
        ("seg_embed", (2, 4), "embedding"),
    ],
)
def test_a_part_of_a_layer_that_is_named_after_queries_is_no_token(name, shape, role):
    """Projections, gains, shifts and tables of distances."""
    raw = nn.Module()
    raw.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    assert roles_of(raw) == {name: role}


def test_rows_and_columns_are_positions():
    """Of patches on a grid."""
    roles = roles_of(holding(row_embedder=(9, 4), column_embedder=(9, 4), temporal_embed=(9, 4)))
    assert set(roles.values()) == {"position"}


def test_an_a_beside_a_d_is_a_state():
    """A minimal state-space layer: neither decays."""
    raw = nn.Module()
    for name in ("A", "D"):
        raw.register_parameter(name, nn.Parameter(torch.zeros(4, 4)))
    assert roles_of(raw) == {"A": "state", "D": "state"}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("detr", {"query_position_embeddings.weight"}),
        ("dab-detr", {"query_refpoint_embeddings.weight"}),
        ("deformable_detr", {"level_embed", "query_position_embeddings.weight"}),
        ("rf_detr", {"query_feat.weight", "reference_point_embed.weight"}),
        (
            "maskformer",
            {"transformer_module.queries_embedder.weight"},
        ),
        (
            "mask2former",
            {
                "transformer_module.queries_embedder.weight",
                "transformer_module.queries_features.weight",
                "transformer_module.level_embed.weight",
            },
        ),
        ("sam", {"mask_decoder.mask_tokens.weight", "mask_decoder.iou_token.weight"}),
    ],
)
@pytest.mark.no_cover
def test_the_queries_of_real_models(kind, names):
    """None of them decays."""
    model = zoo.from_transformers(kind)
    plan = nnlr.resolve(model, nnlr.no_weight_decay(), lr=1, weight_decay=1)
    roles = roles_of(model)
    assert {roles[name] for name in names} == {"token"}
    assert {plan[name].weight_decay for name in names} == {0}


def test_soft_prompts_of_peft_are_tokens():
    """Prompt, prefix and P-tuning keep theirs in a table without a name."""
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 5}
    config = transformers.GPT2Config(
        n_layer=1, n_embd=8, n_head=1, vocab_size=9, bos_token_id=1, eos_token_id=1
    )
    for make in (
        peft.PromptTuningConfig(**settings),
        peft.PrefixTuningConfig(**settings),
        peft.PromptEncoderConfig(**settings, encoder_hidden_size=4),
    ):
        model = peft.get_peft_model(transformers.GPT2LMHeadModel(config), make)
        assert roles_of(model)["prompt_encoder.default.embedding.weight"] == "token"


def test_a_class_of_embeddings_may_hold_tokens_and_positions_itself():
    """Its own names count before the name of the class."""
    holder = type("PatchEmbedding", (nn.Module,), {})()
    for name in ("table", "mask_tokens", "pos_embed"):
        holder.register_parameter(name, nn.Parameter(torch.zeros(3, 4)))
    assert roles_of(holder) == {
        "table": "embedding",
        "mask_tokens": "token",
        "pos_embed": "position",
    }
