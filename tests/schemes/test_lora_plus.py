"""LoRA+: by role on adapters of every kind, and PEFT's own grouping parameter by parameter."""

import functools
import gc
import itertools
import math

import peft
import pytest
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError
from nnlr.testing import SchemeLaws
from tests import zoo
from tests.helpers import thinned

LR = 2e-4
DECAY = 0.03


def llama():
    """A LLaMA with two layers."""
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config)


def bert():
    """A BERT classifier with two layers."""
    config = transformers.BertConfig(
        vocab_size=32,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    return transformers.BertForSequenceClassification(config)


def tied_gpt2():
    """A GPT-2 whose output layer is its embedding; its layers are Conv1D."""
    config = transformers.GPT2Config(vocab_size=32, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


class Convolutional(nn.Module):
    """Convolutions, an embedding and a linear layer, without transformers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(8, 4)
        self.conv = nn.Conv2d(4, 8, 3)
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 2)


class Mixed(nn.Module):
    """Torch's attention, a linear layer, and experts stacked in one tensor."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.fc = nn.Linear(8, 8)
        self.experts = nn.Module()
        self.experts.weight = nn.Parameter(torch.zeros(4, 8, 8))


LAYERS = {
    llama: ["q_proj", "v_proj"],
    bert: ["query", "value"],
    tied_gpt2: ["c_attn"],
    Convolutional: ["conv", "fc"],
}
TABLE = {
    llama: "embed_tokens",
    bert: "word_embeddings",
    tied_gpt2: "wte",
    Convolutional: "table",
}
SAVED = {
    llama: "lm_head",
    bert: "classifier",
    tied_gpt2: "ln_f",
    Convolutional: "norm",
}
CONFIGS = {
    "plain": lambda model: {},
    "dora": lambda model: {"use_dora": True},
    "rslora": lambda model: {"use_rslora": True},
    "biases": lambda model: {"bias": "all"},
    "own biases": lambda model: {"bias": "lora_only"},
    "embedding": lambda model: {"target_modules": [*LAYERS[model], TABLE[model]]},
    "saved": lambda model: {"modules_to_save": [SAVED[model]]},
    "bias of B": lambda model: {"lora_bias": True},
    "everything": lambda model: {
        "target_modules": [*LAYERS[model], TABLE[model]],
        "modules_to_save": [SAVED[model]],
        "bias": "all",
        "use_dora": True,
    },
}


@functools.cache
def adapted(model, kind):
    """A PEFT model; made once, as nothing here changes it."""
    torch.manual_seed(0)
    settings = {"r": 2, "target_modules": LAYERS[model], **CONFIGS[kind](model)}
    if model is tied_gpt2:
        settings["fan_in_fan_out"] = True
    return peft.get_peft_model(model(), peft.LoraConfig(**settings))


CASES = [
    (model, kind)
    for model, kind in itertools.product(LAYERS, CONFIGS)
    # PEFT warns that tied layers are adapted; a bias of B needs a biased layer
    if not (model is tied_gpt2 and kind in {"embedding", "everything"})
    and not (kind == "bias of B" and model is llama)
]


def in_peft(model, ratio, **settings):
    """(lr, weight_decay) that PEFT's optimizer gives each trained parameter, by identity."""
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=LR, loraplus_lr_ratio=ratio, **settings
    )
    return {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def in_nnlr(model, *schemes, weight_decay=DECAY):
    """The same from a plan's groups."""
    plan = nnlr.resolve(model, *schemes, lr=LR, weight_decay=weight_decay)
    return {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in plan.param_groups(names=False)
        for parameter in group["params"]
    }


def lr_mults(model, scheme, **settings):
    """lr_mult of every trained parameter by canonical name."""
    plan = nnlr.resolve(model, scheme, lr=LR, weight_decay=DECAY, **settings)
    return {row.name: row.lr_mult for row in plan if row.trainable}


def mult_of(actual, part):
    """The one lr_mult of all parameters whose name has this part."""
    (mult,) = {mult for name, mult in actual.items() if part in name}
    return mult


def assert_same(expected, actual):
    """The same parameters with the same rates, to twelve digits."""
    assert expected.keys() == actual.keys()
    for key, rates in expected.items():
        assert all(map(functools.partial(math.isclose, rel_tol=1e-12), rates, actual[key]))


class LowRank(nn.Module):
    """A layer with an adapter written by hand, in the names of another package."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 4)
        self.down = nn.Parameter(torch.zeros(2, 4))
        self.up = nn.Parameter(torch.zeros(4, 2))


@pytest.mark.no_cover
class TestLoraPlusLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.lora_plus(),
            nnlr.lora_plus(4, embedding_ratio=2),
            nnlr.lora_plus(8, grouping="peft"),
        ]

    def models(self):
        return [*super().models(), zoo.lora_by_hand()]


class TestPeftGrouping:
    @pytest.mark.parametrize("case", thinned(CASES, 2))
    @pytest.mark.no_cover
    def test_rates_are_those_of_peft(self, case):
        """Learning rate and decay of every parameter, on every kind of adapter."""
        model, kind = case
        tuned = adapted(model, kind)
        expected = in_peft(tuned, 16, loraplus_weight_decay=DECAY)
        assert_same(expected, in_nnlr(tuned, nnlr.lora_plus(16, grouping="peft")))

    @pytest.mark.parametrize(
        ("model", "config", "layers"),
        [
            pytest.param(
                transformers.LlamaForCausalLM,
                transformers.LlamaConfig,
                "all-linear",
                marks=pytest.mark.full,
            ),
            (
                transformers.BertModel,
                transformers.BertConfig,
                ["query", "word_embeddings"],
            ),
            (transformers.ViTModel, transformers.ViTConfig, "all-linear"),
            (transformers.T5Model, transformers.T5Config, ["q", "v", "wo"]),
        ],
        ids=["llama-7b", "bert", "vit", "t5"],
    )
    @pytest.mark.no_cover
    def test_rates_are_those_of_peft_on_full_size_models(self, model, config, layers):
        """The published sizes, without storage."""
        lora = peft.LoraConfig(
            r=8, target_modules=layers, bias="all", use_dora=False, modules_to_save=None
        )
        with torch.device("meta"):
            tuned = peft.get_peft_model(model(config()), lora)
        expected = in_peft(tuned, 16, loraplus_weight_decay=DECAY)
        assert len(expected) > 50
        assert_same(expected, in_nnlr(tuned, nnlr.lora_plus(grouping="peft")))

    @pytest.mark.parametrize("ratio", [1, 0.5, 20])
    def test_ratio_and_embedding_rate_are_those_of_peft(self, ratio):
        """Whatever numbers the two are given."""
        tuned = adapted(llama, "everything")
        expected = in_peft(tuned, ratio, loraplus_lr_embedding=3e-5, loraplus_weight_decay=DECAY)
        scheme = nnlr.lora_plus(ratio, grouping="peft", embedding_lr=3e-5)
        assert_same(expected, in_nnlr(tuned, scheme))

    @pytest.mark.parametrize(
        "config",
        [
            peft.LoHaConfig(r=2, target_modules=["query"]),
            peft.LoKrConfig(r=2, target_modules=["query"]),
            peft.IA3Config(target_modules=["query"], feedforward_modules=[]),
            peft.VeraConfig(r=2, target_modules=["query"]),
            peft.AdaLoraConfig(init_r=2, target_modules=["query"], total_step=10),
            peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
        ],
        ids=lambda config: config.peft_type.value,
    )
    def test_other_tuners_are_as_in_peft(self, config):
        """PEFT's function takes them too, and so does the preset."""
        tuned = peft.get_peft_model(bert(), config)
        expected = in_peft(tuned, 16, loraplus_weight_decay=DECAY)
        assert_same(expected, in_nnlr(tuned, nnlr.lora_plus(grouping="peft")))

    def test_attention_and_experts(self):
        """Adapters around torch's attention, and of parameters that no layer holds."""
        attention = peft.LoraConfig(r=2, target_modules=["attention", "fc"])
        experts = peft.LoraConfig(r=2, target_modules=["fc"], target_parameters=["experts.weight"])
        for config in (attention, experts):
            tuned = peft.get_peft_model(Mixed(), config)
            expected = in_peft(tuned, 16, loraplus_weight_decay=DECAY)
            assert_same(expected, in_nnlr(tuned, nnlr.lora_plus(grouping="peft")))
            actual = lr_mults(tuned, nnlr.lora_plus())
            assert 16 == mult_of(actual, ".lora_B.")
            assert 1 == mult_of(actual, ".lora_A.")

    def test_a_mixed_model(self):
        """Adapters of two tuners at once; only LoRA's have a B."""
        tuned = peft.get_peft_model(
            bert(), peft.LoraConfig(r=2, target_modules=["query"]), mixed=True
        )
        tuned.add_adapter("other", peft.LoHaConfig(r=2, target_modules=["query"]))
        tuned.set_adapter(["default", "other"])
        expected = in_peft(tuned, 16, loraplus_weight_decay=DECAY)
        assert_same(expected, in_nnlr(tuned, nnlr.lora_plus(grouping="peft")))
        actual = lr_mults(tuned, nnlr.lora_plus())
        assert 16 == mult_of(actual, ".lora_B.default.")
        assert 1 == mult_of(actual, ".hada_")

    def test_a_compiled_model(self):
        """Names as PEFT sees them, whatever is around the model."""
        tuned = adapted(llama, "everything")
        expected = in_peft(tuned, 16, loraplus_weight_decay=DECAY)
        compiled = torch.compile(tuned, backend="eager")
        assert_same(expected, in_nnlr(compiled, nnlr.lora_plus(grouping="peft")))

    def test_a_layer_by_itself(self):
        """An adapted embedding that is the whole model is no embedding to PEFT."""
        layer = adapted(Convolutional, "embedding").base_model.model.table
        expected = in_peft(layer, 16, loraplus_weight_decay=DECAY)
        assert_same(expected, in_nnlr(layer, nnlr.lora_plus(grouping="peft")))

    def test_a_compiled_model_with_parameters_of_the_wrapper(self):
        """The plan remembers PEFT's wrapper, which has the prompts, not a temporary one."""
        config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
        tuned = peft.get_peft_model(bert(), config)
        compiled = torch.compile(tuned, backend="eager")
        plan = nnlr.resolve(compiled, lr=LR, weight_decay=DECAY)
        del compiled
        gc.collect()
        (group,) = plan.param_groups()
        trained = [p for p in tuned.parameters() if p.requires_grad]
        assert list(map(id, trained)) == [id(tensor) for _, tensor in group["params"]]

    def test_on_a_model_that_was_never_adapted(self):
        """Names and shapes decide alone: norms and biases are sped up, as in PEFT."""
        net = bert()
        expected = in_peft(net, 16, loraplus_weight_decay=DECAY)
        assert_same(expected, in_nnlr(net, nnlr.lora_plus(grouping="peft")))

    def test_decay_is_not_lost(self):
        """PEFT drops `weight_decay=`; here the base decay is what it calls its own."""
        tuned = adapted(bert, "plain")
        lost = in_peft(tuned, 16, weight_decay=DECAY)
        assert {0.0} == {decay for _, decay in lost.values()}
        kept = in_nnlr(tuned, nnlr.lora_plus(grouping="peft"))
        assert {DECAY} == {decay for _, decay in kept.values()}
        ours = in_nnlr(tuned, nnlr.lora_plus())
        assert {DECAY} == {decay for _, decay in ours.values()}

    def test_sped_up_vectors_are_pointed_out(self):
        """Trained biases and magnitudes get the ratio in PEFT, which may be unwanted."""
        plan = nnlr.resolve(
            adapted(bert, "biases"),
            nnlr.lora_plus(grouping="peft"),
            lr=LR,
            weight_decay=0,
        )
        (finding,) = plan.findings
        assert "lora-plus-vectors" == finding.kind
        assert all(name.endswith("bias") for name in finding.names)
        quiet = nnlr.lora_plus(1, grouping="peft")
        assert () == nnlr.resolve(adapted(bert, "biases"), quiet, lr=LR, weight_decay=0).findings
        assert (
            ()
            == nnlr.resolve(
                adapted(bert, "plain"),
                nnlr.lora_plus(grouping="peft"),
                lr=LR,
                weight_decay=0,
            ).findings
        )

    def test_it_needs_the_model(self):
        """It asks for the classes of modules, which tensors do not have."""
        with pytest.raises(NnlrError, match=r"here are only tensors: pass the model"):
            lr_mults(
                dict(nn.Linear(2, 2).named_parameters()),
                nnlr.lora_plus(grouping="peft"),
            )


class TestByRole:
    @pytest.mark.parametrize(("model", "kind"), CASES)
    def test_the_ratio_is_on_b_and_nothing_else(self, model, kind):
        """A, magnitudes, biases and saved modules keep the base rate and all their decay."""
        tuned = adapted(model, kind)
        plan = nnlr.resolve(tuned, nnlr.lora_plus(16), lr=LR, weight_decay=DECAY)
        for row in plan:
            is_b = ".lora_B." in row.name or ".lora_embedding_B." in row.name
            is_b = is_b and not row.name.endswith("bias")
            assert (16 if is_b else 1) == row.lr_mult, row.name
            assert 1 == row.wd_mult
        assert () == plan.findings

    def test_the_default_is_the_papers(self):
        """2**4."""
        assert 16 == mult_of(lr_mults(adapted(llama, "plain"), nnlr.lora_plus()), ".lora_B.")

    def test_embeddings_have_an_option(self):
        """Their B may have a ratio of its own; what is called embedding elsewhere has not."""
        actual = lr_mults(adapted(llama, "embedding"), nnlr.lora_plus(16, embedding_ratio=2))
        assert 2 == mult_of(actual, ".lora_embedding_B.")
        assert 1 == mult_of(actual, ".lora_embedding_A.")
        assert 16 == mult_of(actual, ".lora_B.")
        named = peft.get_peft_model(
            bert(),
            peft.LoraConfig(r=2, target_modules=["query"]),
            adapter_name="embedding_b",
        )
        actual = lr_mults(named, nnlr.lora_plus(16, embedding_ratio=2))
        assert 16 == mult_of(actual, ".lora_B.")

    def test_adalora_and_stacked_adapters(self):
        """What has role lora_b, whatever the tuner is called."""
        config = peft.AdaLoraConfig(init_r=2, target_modules=["query"], total_step=10)
        actual = lr_mults(peft.get_peft_model(bert(), config), nnlr.lora_plus())
        assert 16 == mult_of(actual, ".lora_B.")
        assert 1 == mult_of(actual, ".lora_A.") == mult_of(actual, ".lora_E.")

    def test_by_hand(self):
        """Adapters under the usual names, and others once their role is given."""
        actual = lr_mults(zoo.lora_by_hand(), nnlr.lora_plus())
        assert {16.0} == {mult for name, mult in actual.items() if "lora_B" in name}
        actual = lr_mults(LowRank(), nnlr.lora_plus(), roles={"up": "lora_b"})
        assert {"base.weight": 1, "base.bias": 1, "down": 1, "up": 16} == actual

    def test_by_names_alone(self):
        """A mapping of tensors has roles by name."""
        tensors = dict(zoo.lora_by_hand().named_parameters())
        assert 16 == lr_mults(tensors, nnlr.lora_plus())["0.lora_B.weight"]

    def test_only_the_active_adapter_is_trained(self):
        """Of two adapters the inactive one is frozen, and switching moves the ratio."""
        tuned = peft.get_peft_model(bert(), peft.LoraConfig(r=2, target_modules=["query"]))
        tuned.add_adapter("other", peft.LoraConfig(r=3, target_modules=["query"]))
        for name in ("default", "other"):
            tuned.set_adapter(name)
            actual = lr_mults(tuned, nnlr.lora_plus())
            assert {f".{name}."} == {
                f".{each}." for each in ("default", "other") for n in actual if f".{each}." in n
            }
            assert 16 == mult_of(actual, ".lora_B.")
            expected = in_peft(tuned, 16, loraplus_weight_decay=DECAY)
            assert_same(expected, in_nnlr(tuned, nnlr.lora_plus(grouping="peft")))

    def test_two_active_adapters_with_unlike_ratios(self):
        """where() tells adapters apart by their names."""
        tuned = peft.get_peft_model(bert(), peft.LoraConfig(r=2, target_modules=["query"]))
        tuned.add_adapter("other", peft.LoraConfig(r=3, target_modules=["query"]))
        tuned.base_model.set_adapter(["default", "other"])
        scheme = nnlr.lora_plus(16).where("*.default.*") * nnlr.lora_plus(4).where("*.other.*")
        actual = lr_mults(tuned, scheme)
        assert 16 == mult_of(actual, ".lora_B.default.")
        assert 4 == mult_of(actual, ".lora_B.other.")

    def test_embedding_like_peft_with_a_rule(self):
        """An absolute rate for embeddings' adapters is a rule, as the error proposes."""
        scheme = nnlr.lora_plus(16, embedding_ratio=1) * nnlr.rule("*lora_embedding_*", lr=1e-6)
        plan = nnlr.resolve(adapted(llama, "embedding"), scheme, lr=LR, weight_decay=0)
        (rate,) = {row.lr for row in plan if "lora_embedding" in row.name}
        assert math.isclose(1e-6, rate, rel_tol=1e-12)


class TestFindings:
    @pytest.mark.parametrize(
        "config",
        [
            peft.LoHaConfig(r=2, target_modules=["query"]),
            peft.IA3Config(target_modules=["query"], feedforward_modules=[]),
            peft.VeraConfig(r=2, target_modules=["query"]),
            peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
        ],
        ids=lambda config: config.peft_type.value,
    )
    @pytest.mark.parametrize("grouping", ["nnlr", "peft"])
    def test_adapters_without_b(self, config, grouping):
        """The scheme says that it does nothing there, and names what is trained."""
        tuned = peft.get_peft_model(bert(), config)
        scheme = nnlr.lora_plus(grouping=grouping)
        plan = nnlr.resolve(tuned, scheme, lr=LR, weight_decay=DECAY)
        actual = plan.findings[0]
        assert "no-lora-b" == actual.kind
        assert {row.name for row in plan if row.trainable} >= set(actual.names)
        assert len(actual.names) >= 1
        if grouping == "nnlr":
            assert {1.0} == {row.lr_mult for row in plan}

    def test_no_adapters_at_all(self):
        """Resolved before the adapters were added."""
        (finding,) = nnlr.resolve(bert(), nnlr.lora_plus(), lr=LR, weight_decay=0).findings
        assert "no-lora-b" == finding.kind
        assert "warning" == finding.severity
        assert "Add the adapters before resolve" in finding.fix

    def test_adapters_that_are_frozen(self):
        """Loaded for inference, or none of them active."""
        tuned = peft.get_peft_model(
            bert(), peft.LoraConfig(r=2, target_modules=["query"], inference_mode=True)
        )
        (finding,) = nnlr.resolve(tuned, nnlr.lora_plus(), lr=LR, weight_decay=0).findings
        assert "lora-b-frozen" == finding.kind
        assert all("lora_B" in name for name in finding.names)


class TestArguments:
    @pytest.mark.parametrize(
        ("scheme", "text"),
        [
            (nnlr.lora_plus(), "lora_plus(16.0)"),
            (
                nnlr.lora_plus(8, embedding_ratio=1),
                "lora_plus(8.0, embedding_ratio=1.0)",
            ),
            (nnlr.lora_plus(grouping="peft"), "lora_plus(16.0, grouping='peft')"),
            (
                nnlr.lora_plus(grouping="peft", embedding_lr=1e-5),
                "lora_plus(16.0, grouping='peft', embedding_lr=1e-05)",
            ),
        ],
    )
    def test_repr_is_the_call(self, scheme, text):
        """A scheme prints as it was written."""
        assert text == repr(scheme)

    @pytest.mark.parametrize("value", [0, -1, float("inf"), True, "16"])
    def test_ratios_are_positive(self, value):
        """Finite and above 0; refused at the call."""
        with pytest.raises(NnlrError, match=r"^ratio must be a finite number > 0"):
            nnlr.lora_plus(value)
        with pytest.raises(NnlrError, match=r"^embedding_ratio must be a finite number > 0"):
            nnlr.lora_plus(embedding_ratio=value)

    def test_the_embedding_rate_is_not_negative(self):
        """An absolute learning rate, 0 included."""
        with pytest.raises(NnlrError, match="embedding_lr must be a finite number >= 0"):
            nnlr.lora_plus(grouping="peft", embedding_lr=-1)

    def test_groupings_are_known(self):
        """A misspelt grouping is told the right one."""
        with pytest.raises(NnlrError, match="grouping must be one of 'nnlr', 'peft'"):
            nnlr.lora_plus(grouping="PEFT")

    def test_arguments_of_the_other_grouping(self):
        """Each grouping has its own way with embeddings; the other's is refused."""
        with pytest.raises(ConfigError, match="pass embedding_lr= instead of"):
            nnlr.lora_plus(grouping="peft", embedding_ratio=1)
        with pytest.raises(ConfigError, match="embedding_lr= is a part of grouping='peft'"):
            nnlr.lora_plus(embedding_lr=1e-6)
