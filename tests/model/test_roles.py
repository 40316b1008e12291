"""What a parameter is for, on real models, and where rules of thumb are wrong."""

import random

import pytest
import torch
from torch import nn

from nnlr._model.describe import describe
from nnlr._model.role_tables import TABLE
from nnlr._model.roles import BASES, ROLES
from tests import zoo

ARCHITECTURES = [
    ("bert", "BertForMaskedLM"),
    ("gpt2", "GPT2LMHeadModel"),
    ("t5", "T5ForConditionalGeneration"),
    ("llama", "LlamaForCausalLM"),
    ("vit", "ViTForImageClassification"),
    ("convnext", "ConvNextForImageClassification"),
    ("wav2vec2", "Wav2Vec2ForCTC"),
    ("mamba", "MambaForCausalLM"),
    ("swin", "SwinForImageClassification"),
    ("mixtral", "MixtralForCausalLM"),
    ("whisper", "WhisperForConditionalGeneration"),
    ("gptj", "GPTJForCausalLM"),
]


def roles_of(model):
    return {param.name: param.role for param in describe(model).params}


def bases_of(model):
    return {param.name: param.role_basis for param in describe(model).params}


def words(seed):
    """Random words without vowels, which no table can know."""
    letters = random.Random(seed)  # noqa: S311  names, not secrets
    return lambda: "".join(letters.choices("qxzjkw", k=16))


def assert_types_survive_renaming(model, seed=0):
    """The law: a role found by type does not depend on what attributes are called."""
    before = describe(model)
    tensors = [places[0].tensor for places in before.places]
    expected = {
        id(tensor): param.role
        for tensor, param in zip(tensors, before.params, strict=True)
        if param.role_basis == "type"
    }
    after = describe(zoo.renamed(model, words(seed)))
    # Tied tensors: which place comes first is a matter of order, which renaming keeps.
    found = {
        id(places[0].tensor): param.role
        for places, param in zip(after.places, after.params, strict=True)
    }
    assert expected == {key: found[key] for key in expected}
    return len(expected)


class TestRenaming:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("case", zoo.ZOO)
    def test_attribute_names_change_no_role_found_by_type(self, case, seed):
        """Of every odd model."""
        assert_types_survive_renaming(case(), seed)

    @pytest.mark.parametrize(("kind", "head"), ARCHITECTURES)
    def test_attribute_names_change_no_role_of_real_models(self, kind, head):
        """Most of their parameters have a role by type."""
        assert assert_types_survive_renaming(zoo.from_transformers(kind, head)) > 10

    @pytest.mark.full
    def test_attribute_names_change_no_role_of_any_architecture(self):
        """Every architecture of transformers that builds from its default config."""
        transformers = pytest.importorskip("transformers")
        built = 0
        for kind in transformers.CONFIG_MAPPING:
            try:
                model = zoo.from_transformers(kind)
            except Exception:  # noqa: BLE001, S112  it needs a package or has no default
                continue
            assert_types_survive_renaming(model)
            built += 1
        assert built > 250

    def test_the_words_hit_no_row_but_the_last(self):
        """Otherwise the law would be about luck."""
        net = zoo.renamed(zoo.raw_parameters(), words(1))
        expected = {"vector", "matrix", "scalar", "bias"}
        assert expected == set(roles_of(net).values())


class TestTorchModules:
    def test_norms_of_all_kinds_are_norms(self):
        """Gain and shift, torch's and one's own, of shapes (C,) and (C, 1, 1)."""
        roles = roles_of(zoo.norms())
        others = {
            "linear.weight",
            "linear.shift",
            "pre.offset",
            "pre.fn.weight",
            "pre.fn.bias",
        }
        assert {name for name, role in roles.items() if role != "norm"} == others

    def test_a_class_that_only_sounds_like_a_norm_is_none(self):
        """It owns a matrix, or it holds a layer."""
        roles = roles_of(zoo.norms())
        assert roles["linear.weight"] == "matrix"
        assert roles["pre.offset"] == "vector"

    def test_a_norm_may_hold_modules_without_parameters(self):
        """An activation changes nothing."""
        norm = zoo.RMSNormOfMine(3)
        norm.act = nn.ReLU()
        assert roles_of(norm) == {"g": "norm"}

    def test_a_norm_of_two_lengths_is_none(self):
        """One gain for channels, one for rows: something else."""
        norm = zoo.RMSNormOfMine(3)
        norm.rows = nn.Parameter(torch.ones(5))
        assert set(roles_of(norm).values()) == {"gain", "vector"}

    def test_a_norm_with_a_matrix_as_long_as_its_vector_is_none(self):
        """Length is not shape."""
        norm = zoo.RMSNormOfMine(4)
        norm.mix = nn.Parameter(torch.ones(2, 2))
        assert roles_of(norm) == {"g": "gain", "mix": "matrix"}

    def test_prelu_and_layer_scale_are_gains(self):
        """1-D weights that are no biases."""
        assert set(roles_of(zoo.gains()).values()) == {"gain"}
        assert set(bases_of(zoo.gains()).values()) == {"type"}

    @pytest.mark.parametrize(
        "case", [zoo.attention, zoo.attention_of_three_widths, zoo.lstm, zoo.gru_cell]
    )
    def test_biases_of_attention_and_recurrence_are_biases(self, case):
        """in_proj_bias, bias_k of shape (1, 1, D), bias_hh_l0_reverse: no suffix helps."""
        expected = {
            param.name: "bias" if "bias" in param.leaf else "matrix"
            for param in describe(case()).params
        }
        assert expected == roles_of(case())
        assert set(bases_of(case()).values()) == {"type"}

    def test_convolutions_are_convolutions_whatever_their_groups(self):
        """A depthwise kernel (C, 1, K) is no vector."""
        roles = roles_of(zoo.convolutions())
        convs = {name for name, role in roles.items() if role == "conv"}
        assert convs == {"grouped.weight", "depthwise.weight", "transposed.weight"}

    @pytest.mark.parametrize("case", [zoo.weight_norm, zoo.old_weight_norm])
    def test_the_magnitude_of_a_weight_norm_is_a_gain(self, case):
        """Its shape is (out, 1): a rule by axes would decay it."""
        (gain,) = [param for param in describe(case()).params if param.role == "gain"]
        assert gain.shape == (4, 1)
        assert gain.role_basis == "type"

    def test_a_parametrization_that_is_no_weight_norm_has_no_magnitude(self):
        """original0 of another parametrization is a part of the weight."""

        class Split(nn.Module):
            def forward(self, one, two):
                return one + two

            def right_inverse(self, whole):
                return whole / 2, whole / 2

        layer = nn.Linear(2, 2, bias=False)
        nn.utils.parametrize.register_parametrization(layer, "weight", Split())
        assert set(roles_of(nn.Sequential(layer)).values()) == {"matrix"}

    def test_own_classes_are_known_by_the_name_of_the_class(self):
        """Embedding, linear, convolution, GPT-2's Conv1D; positions by attribute."""
        expected = {
            "a.weight": "position",
            "b.table": "embedding",
            "c.w": "matrix",
            "c.b": "bias",
            "d.kernel": "conv",
            "e.weight": "matrix",
            "e.bias": "bias",
            "positions.weight": "position",
        }
        assert expected == roles_of(zoo.own_classes())
        assert bases_of(zoo.own_classes())["positions.weight"] == "name"

    def test_scripted_modules_have_the_roles_of_what_was_scripted(self):
        """RecursiveScriptModule says nothing, its original_name does."""
        model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        expected = roles_of(model)
        with pytest.warns(DeprecationWarning, match="script"):
            scripted = torch.jit.script(model)
        assert expected == roles_of(scripted)
        owners = [param.owner_type for param in describe(scripted).params]
        assert owners == [nn.Linear, nn.Linear, nn.LayerNorm, nn.LayerNorm]


class TestRawParameters:
    def test_the_table_names_the_usual_ones(self):
        """State-space, vision and attention parameters."""
        expected = {
            "mixer.A_log": "state",
            "mixer.D": "state",
            "mixer.dt_bias": "state",
            "mixer.in_proj.weight": "matrix",
            "mixer.in_proj.bias": "bias",
            "dictionary.D": "matrix",
            "vision.cls_token": "token",
            "vision.register_tokens": "token",
            "vision.mask_embed": "token",
            "vision.pos_embed": "position",
            "vision.rel_pos_h": "position",
            "vision.relative_position_bias_table": "position",
            "vision.gamma_1": "gain",
            "vision.logit_scale": "scalar",
            "vision.level_embed": "token",
            "vision.whatever": "vector",
            "vision.kernel": "matrix",
            "vision.query": "token",
            "attention.query": "matrix",
            "attention.key": "matrix",
            "attention.w_query": "matrix",
        }
        assert expected == roles_of(zoo.raw_parameters())

    @pytest.mark.parametrize(
        ("name", "shape", "role"),
        [
            ("b", (4,), "bias"),
            ("B", (4, 4), "matrix"),
            ("b1", (1, 4, 1), "bias"),
            ("pos_weight", (4,), "vector"),
            ("rope_bias_free", (4, 4), "matrix"),
            ("bias_free_proj", (4, 4), "matrix"),
            ("pos_bias_u", (2, 4), "bias"),
            ("position_bias", (8, 4), "position"),
            ("attention_bias", (4,), "bias"),
            ("attention_biases", (4, 9), "position"),
            ("latent_bias_factor", (), "scalar"),
            ("bias", (1, 1, 1, 4), "bias"),
            ("gate", (1,), "scalar"),
            ("gate", (4,), "gain"),
            ("gate", (4, 4), "matrix"),
            ("gru", (4,), "vector"),
            ("ls1", (4,), "gain"),
            ("lambda_q1", (4,), "gain"),
            ("temperature", (1, 1, 1), "scalar"),
            ("log_alpha", (1,), "scalar"),
            ("w_lora_a", (2, 4), "lora_a"),
            ("lora_down", (2, 4), "lora_a"),
            ("lora_B", (4, 2), "lora_b"),
            ("class_embedding", (8,), "token"),
            ("class_embedding", (10, 8), "embedding"),
            ("prompts_visual_projection", (8, 8), "matrix"),
            ("time_decay", (8,), "state"),
            ("queries", (1, 3, 8), "token"),
            ("latents", (16, 8), "token"),
            ("time_embeddings", (1, 4, 8), "position"),
            ("height_rel", (7, 8), "position"),
            ("ape", (7, 8), "position"),
            ("freqs", (2, 3, 8), "position"),
            ("attn_bias", (2, 5, 5), "bias"),
            ("_bias_", (2, 4, 8), "bias"),
            ("token_embedding", (10, 8), "embedding"),
            ("token_mixing_weight", (10, 8), "matrix"),
            ("weight_query", (8, 8), "matrix"),
            ("query_proj", (8, 8), "matrix"),
            ("scale", (4, 8), "gain"),
            ("alpha", (4, 8), "gain"),
            ("scale_shift_table", (6, 8), "gain"),
            ("modulation", (1, 6, 8), "gain"),
            ("upscale", (4, 8), "matrix"),
            ("embedding_weight", (10, 8), "embedding"),
            ("embed_tokens_weight", (10, 8), "embedding"),
            ("embed_proj_weight", (10, 8), "matrix"),
            ("pos_embed_weight", (10, 8), "position"),
            ("W_gamma", (8, 8), "matrix"),
            ("w_query", (8, 8), "matrix"),
            ("w_scale", (8,), "gain"),
            ("W_emb", (10, 8), "embedding"),
            ("W_pos", (10, 8), "position"),
        ],
    )
    def test_a_leaf_name_counts_as_a_whole_and_with_its_axes(self, name, shape, role):
        """No substring decides, and a vector is not a matrix."""
        module = nn.Module()
        module.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        assert roles_of(module) == {name: role}

    def test_a_b_beside_a_w_is_a_bias_with_an_axis_for_heads(self):
        """W_Q and b_Q of a transformer written in raw parameters."""
        module = nn.Module()
        module.W_Q = nn.Parameter(torch.zeros(2, 8, 4))
        module.b_Q = nn.Parameter(torch.zeros(2, 4))
        assert roles_of(module) == {"W_Q": "matrix", "b_Q": "bias"}
        del module.W_Q
        assert roles_of(module) == {"b_Q": "matrix"}

    def test_a_table_of_one_row_is_a_token_and_a_flat_shard_is_none(self):
        """Nothing is looked up by an index that is always 0."""
        assert roles_of(nn.Embedding(1, 4)) == {"weight": "token"}
        for flat in (0, 20):  # as fully_sharded_data_parallel leaves it
            table = nn.Embedding(10, 4)
            table.weight = nn.Parameter(torch.zeros(flat))
            assert roles_of(table) == {"weight": "embedding"}

    def test_a_parameter_list_speaks_with_its_own_name(self):
        """prompts.0 is a prompt."""
        module = nn.Module()
        module.prompts = nn.ParameterList([torch.zeros(3, 4)])
        assert roles_of(module) == {"prompts.0": "token"}

    def test_every_row_has_a_known_role_and_the_last_takes_all(self):
        """A role that is not in ROLES could not be selected."""
        assert {trait.role for trait in TABLE} <= ROLES.keys()
        assert TABLE[-1].pattern == ".*"


def linear():
    """A square layer."""
    return nn.Linear(4, 4)


class NoAttention(nn.Module):
    """What attends without weights."""


class AngularLoss(nn.Module):
    """A loss that holds a vector for each class."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 9))


class TestHooksAndNames:
    def test_output_layers_are_heads_and_blocks_hold_none(self):
        """`score` and `fc_out` inside one of several equal blocks are plain layers."""
        model = zoo.heads()
        heads = {name for name, role in roles_of(model).items() if role == "head"}
        assert heads == {"classifier.0.weight", "classifier.2.weight", "fc.weight"}

    def test_only_the_last_fc_is_a_head(self):
        """`fc` is any layer; as the last one it is what torchvision means."""
        blocks = nn.ModuleDict({"fc": nn.Linear(2, 2), "act": nn.PReLU()})
        assert roles_of(blocks)["fc.weight"] == "matrix"

    @pytest.mark.parametrize(
        ("model", "heads"),
        [
            (nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 9)), "3"),
            (nn.Sequential(linear(), nn.Sequential(linear(), nn.Tanh(), linear())), "1.2"),
            (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), "1"),
            (nn.DataParallel(nn.Sequential(linear(), linear())), "1"),
            (zoo.calling(words=nn.Embedding(9, 4), norm=nn.LayerNorm(4), out=linear()), "out"),
            (zoo.calling(net=nn.Sequential(linear(), linear())), "net.1"),
            (zoo.calling(one=nn.Sequential(linear()), two=nn.Sequential(linear())), "two.0"),
            (zoo.calling(model=zoo.calling(norm=nn.LayerNorm(4), out=linear())), "model.out"),
            (zoo.calling(first=nn.Linear(4, 8), last=nn.Linear(8, 4)), "last"),
        ],
    )
    def test_the_last_layer_is_the_head_where_its_place_says_so(self, model, heads):
        """At the end of plain Sequentials, as the last child of the model, or both."""
        assert {f"{heads}.weight"} == {n for n, role in roles_of(model).items() if role == "head"}
        assert bases_of(model)[f"{heads}.weight"] == "place"

    @pytest.mark.parametrize(
        "model",
        [
            linear(),  # alone it is the first as well
            nn.Sequential(linear()),
            nn.Sequential(linear(), nn.LayerNorm(4)),
            nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 4)),
            nn.ModuleDict({"one": linear(), "two": linear()}),  # nobody runs them in order
            nn.ModuleList([linear(), linear()]),
            nn.MultiheadAttention(4, 2),
            zoo.calling(net=nn.Sequential(linear()), pooler=zoo.calling(dense=linear())),
            zoo.calling(vision=nn.Linear(8, 4), text=linear()),  # of two towers
            zoo.Speaking(),  # it would say so
        ],
    )
    def test_elsewhere_the_last_layer_is_a_layer(self, model):
        """A guess would be as often wrong as right."""
        assert "head" not in roles_of(model).values()

    def test_a_network_that_is_called_a_head_has_one_at_its_end(self):
        """Attention pooling is no output layer, nor are the blocks of a decoder."""
        block = zoo.calling(up=linear(), down=linear())
        pooling = zoo.calling(attention=nn.MultiheadAttention(4, 2), mlp=zoo.calling(fc1=linear()))
        decoder = zoo.calling(layers=nn.ModuleList([block, zoo.Block()]), final=linear())
        decoder.layers.append(zoo.Block())
        model = zoo.calling(
            head=pooling,
            prediction_head=decoder,
            empty_head=nn.ModuleList([nn.Identity(), zoo.calling(attention=NoAttention())]),
            bbox_embed=nn.ModuleList([zoo.calling(layers=nn.ModuleList([linear()])) for _ in "12"]),
            norm=nn.LayerNorm(4),
        )
        assert {n for n, role in roles_of(model).items() if role == "head"} == {
            *("head.mlp.fc1.weight", "prediction_head.final.weight"),
            *(f"bbox_embed.{i}.layers.0.weight" for i in (0, 1)),
        }

    def test_raw_weights_of_a_head_are_of_the_head(self):
        """A stack of heads, and a vector for each class inside a loss."""
        model = zoo.calling(
            codebooks_head=nn.Module(), objective=AngularLoss(), norm=nn.LayerNorm(4)
        )
        model.codebooks_head.weight = nn.Parameter(torch.zeros(3, 4, 9))
        roles = roles_of(model)
        assert [roles["codebooks_head.weight"], roles["objective.weight"]] == ["head", "head"]

    @pytest.mark.parametrize("name", ["head_dist", "class_embed", "decoder_pred", "ctc_proj"])
    def test_other_names_of_heads(self, name):
        """Of distillation, detection, masked images and speech."""
        model = zoo.calling(**{name: linear()}, norm=nn.LayerNorm(4))
        assert roles_of(model)[f"{name}.weight"] == "head"

    def test_a_linear_layer_of_relative_positions_is_a_table(self):
        """It is given one-hot positions."""
        model = zoo.calling(rel_pos_x_bias=nn.Linear(8, 4, bias=False), norm=nn.LayerNorm(4))
        assert roles_of(model)["rel_pos_x_bias.weight"] == "position"

    @pytest.mark.parametrize("table", [nn.Embedding(9, 4), "head"])
    def test_a_matrix_that_is_tied_to_another_is_what_that_is(self, table):
        """Whichever comes first, under whatever name."""
        first = nn.Linear(4, 9, bias=False)
        parts = {"mix": first, "head": nn.Linear(4, 9)} if table == "head" else {"mix": first}
        model = zoo.calling(**parts, words=table if table != "head" else nn.LayerNorm(4))
        other = model.head if table == "head" else model.words
        other.weight = first.weight
        expected = "head" if table == "head" else "embedding"
        assert roles_of(model)["mix.weight"] == expected

    def test_the_models_own_hooks_say_what_is_input_and_output(self):
        """get_output_embeddings, whatever the layer is called."""
        assert roles_of(zoo.hooked()) == {
            "wte.weight": "embedding",
            "out.weight": "head",
        }
        assert bases_of(zoo.hooked())["out.weight"] == "attribute"

    def test_a_tied_head_that_comes_first_is_the_embedding(self):
        """One tensor, one role: the table is what the model looks words up in."""
        assert roles_of(zoo.tied_head_first()) == {"out.weight": "embedding"}

    def test_hooks_that_raise_or_return_anything_say_nothing(self):
        """A hook that does not apply must not stop a description."""

        class Odd(nn.Linear):
            def get_input_embeddings(self):
                raise NotImplementedError

            def get_output_embeddings(self):
                return "nothing"

            def get_classifier(self):
                return self.holder

        model = Odd(2, 2)
        model.holder = type("Holder", (), {"weight": model.weight})()
        assert roles_of(model) == {"weight": "matrix", "bias": "bias"}

    def test_an_input_layer_that_is_no_table_is_no_embedding(self):
        """Vision models name their patch projection as their input."""
        model = zoo.convolutions()
        model.get_input_embeddings = lambda: model["grouped"]
        assert roles_of(model)["grouped.weight"] == "conv"

    def test_the_parts_of_a_position_embedding_are_positions(self):
        """A table for rows and one for columns; not the tokens beside positions."""
        parts = {name: nn.Embedding(3, 4) for name in ("row", "token_table")}
        model = nn.ModuleDict({"pos_embed": nn.ModuleDict(parts)})
        model["tok_pos_embed"] = nn.ModuleDict({"first": nn.Embedding(3, 4)})
        roles = roles_of(model)
        assert {"pos_embed.row.weight"} == {
            name for name, role in roles.items() if role == "position"
        }

    def test_gated_layers_route_nothing(self):
        """A gating unit holds plain layers, a gating network sends tokens to experts."""
        for name, role in (("SpatialGatingUnit", "matrix"), ("GatingNet", "router")):
            gate = type(name, (nn.Module,), {})()
            gate.proj = nn.Linear(4, 2, bias=False)
            assert roles_of(gate) == {"proj.weight": role}

    def test_routers_are_known_by_class_and_beside_experts(self):
        """An expert's own gate routes nothing."""
        routers = {n for n, r in roles_of(zoo.mixtures()).items() if r == "router"}
        assert routers == {"moe.gate.weight", "router.layer.weight"}
        assert bases_of(zoo.mixtures())["router.layer.weight"] == "type"

    def test_a_linear_subclass_that_routes_is_a_router(self):
        """By the name of the class."""
        router = type("ExpertRouter", (nn.Linear,), {})(4, 2)
        assert roles_of(router) == {"weight": "router", "bias": "bias"}

    def test_stacked_experts_have_biases_with_two_axes(self):
        """(experts, width): a rule by axes would decay them."""
        assert roles_of(zoo.StackedExperts(4, 3)) == {
            "gate_up_proj": "matrix",
            "gate_up_proj_bias": "bias",
        }

    def test_adapters_written_by_hand_are_known_by_name(self):
        """lora_A and lora_B as layers."""
        roles = roles_of(zoo.lora_by_hand())
        assert roles["0.lora_A.weight"] == "lora_a"
        assert roles["0.lora_B.weight"] == "lora_b"
        assert roles["0.base.weight"] == "matrix"


class TestBareTensors:
    @pytest.mark.parametrize(
        ("name", "shape", "role"),
        [
            ("blocks.0.norm1.weight", (4,), "norm"),
            ("ln_f.bias", (4,), "norm"),
            ("bn1.weight", (4,), "norm"),
            ("fc.bias", (4,), "bias"),
            ("fc.weight", (4, 4), "matrix"),
            ("conv1.weight", (4, 3, 3, 3), "conv"),
            ("act.weight", (4,), "vector"),
            ("act.weight", (1,), "scalar"),
            ("embed_tokens.weight", (9, 4), "embedding"),
            ("transformer.wte.weight", (9, 4), "embedding"),
            ("transformer.wpe.weight", (9, 4), "position"),
            ("lm_head.weight", (9, 4), "head"),
            ("classifier.0.weight", (9, 4), "head"),
            ("h.0.mlp.fc_out.weight", (9, 4), "matrix"),
            ("q.lora_A.weight", (2, 4), "lora_a"),
            ("mixer.A_log", (4, 2), "state"),
            ("cls_token", (1, 1, 4), "token"),
            ("x.D", (4, 2), "matrix"),
        ],
    )
    def test_name_and_shape_decide(self, name, shape, role):
        """There is nothing else to ask, and the basis says so."""
        (param,) = describe({name: torch.zeros(shape)}).params
        assert (role, "name") == (param.role, param.role_basis)
        assert param.owner_type is None
        assert param.ancestors == ()


class TestArchitectures:
    @pytest.mark.parametrize(
        ("kind", "head", "expected"),
        [
            (
                "bert",
                "BertForMaskedLM",
                {
                    "bert.embeddings.word_embeddings.weight": "embedding",
                    "bert.embeddings.position_embeddings.weight": "position",
                    "bert.embeddings.token_type_embeddings.weight": "embedding",
                    "bert.encoder.layer.0.attention.self.query.weight": "matrix",
                    "bert.encoder.layer.1.output.LayerNorm.weight": "norm",
                    "cls.predictions.bias": "bias",
                },
            ),
            (
                "gpt2",
                "GPT2LMHeadModel",
                {
                    "transformer.wte.weight": "embedding",
                    "transformer.wpe.weight": "position",
                    "transformer.h.0.ln_1.weight": "norm",
                    "transformer.h.0.attn.c_attn.weight": "matrix",
                    "transformer.h.0.attn.c_attn.bias": "bias",
                },
            ),
            (
                "t5",
                "T5ForConditionalGeneration",
                {
                    "shared.weight": "embedding",
                    "encoder.block.0.layer.0.layer_norm.weight": "norm",
                    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
                        "position"
                    ),
                    "decoder.block.1.layer.2.DenseReluDense.wo.weight": "matrix",
                },
            ),
            (
                "llama",
                "LlamaForCausalLM",
                {
                    "model.embed_tokens.weight": "embedding",
                    "model.layers.0.input_layernorm.weight": "norm",
                    "model.layers.0.mlp.gate_proj.weight": "matrix",
                    "model.norm.weight": "norm",
                    "lm_head.weight": "head",
                },
            ),
            (
                "vit",
                "ViTForImageClassification",
                {
                    "vit.embeddings.cls_token": "token",
                    "vit.embeddings.position_embeddings": "position",
                    "vit.embeddings.patch_embeddings.projection.weight": "conv",
                    "classifier.weight": "head",
                },
            ),
            ("wav2vec2", "", {"masked_spec_embed": "token"}),
            ("whisper", "", {"encoder.embed_positions.weight": "position"}),
            (
                "mamba",
                "",
                {
                    "layers.0.mixer.A_log": "state",
                    "layers.0.mixer.D": "state",
                    "layers.0.mixer.conv1d.weight": "conv",
                    "layers.0.norm.weight": "norm",
                },
            ),
            (
                "swin",
                "",
                {"layernorm.weight": "norm"},
            ),
            (
                "gptj",
                "GPTJForCausalLM",
                {"transformer.h.0.mlp.fc_out.weight": "matrix"},
            ),
        ],
    )
    def test_the_parameters_of_real_models_have_the_roles_a_reader_would_give(
        self, kind, head, expected
    ):
        """The ones that rules of thumb get wrong among them."""
        roles = roles_of(zoo.from_transformers(kind, head))
        assert expected == {name: roles[name] for name in expected}

    def test_layer_scale_of_a_convnext_is_a_gain(self):
        """ConvNeXt's gamma, a raw vector of its layer."""
        params = describe(zoo.from_transformers("convnext")).params
        gains = {param.leaf for param in params if param.role == "gain"}
        assert gains == {"layer_scale_parameter"}

    def test_relative_tables_of_a_swin_are_positions(self):
        """Named a bias, and of two axes."""
        params = describe(zoo.from_transformers("swin")).params
        tables = {param.leaf for param in params if param.role == "position"}
        assert tables == {"relative_position_bias_table"}

    def test_a_mixtral_has_routers_by_type_and_stacked_experts(self):
        """Stacked experts are matrices without fans."""
        params = describe(zoo.from_transformers("mixtral")).params
        routers = [param for param in params if param.role == "router"]
        assert {param.role_basis for param in routers} == {"type"}
        stacked = [param for param in params if param.ndim == 3]
        assert {(param.role, param.fan_in) for param in stacked} == {("matrix", None)}

    def test_a_gpt2_weight_has_its_inputs_first(self):
        """The Conv1D of transformers is (in, out): 768 inputs, 3 * 768 outputs."""
        info = describe(zoo.from_transformers("gpt2"))
        (param,) = [p for p in info.params if p.name == "h.0.attn.c_attn.weight"]
        assert (768, 2304) == (param.fan_in, param.fan_out)


def test_every_basis_is_one_of_the_known():
    """BASES lists them for documents and selectors."""
    found = {basis for case in zoo.ZOO for basis in bases_of(case()).values()}
    assert found | {"user"} == set(BASES)
