"""The law of wrapping: no wrapper changes a canonical name, a role, a class or a shape."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    checkpoint_wrapper,
)
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp._common_utils import TrainingState
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from nnlr._model.describe import describe
from nnlr._model.names import inside_ddp, resolve_name, slots, unwrap
from tests import zoo
from tests.processes import said_by, tell

peft = pytest.importorskip("peft")


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def checkpointed(model):
    """Each child of the model in a wrapper of its own, and the children of lists."""
    for name, child in list(model.named_children()):
        if isinstance(child, nn.ModuleList):
            checkpointed(child)
        else:
            setattr(model, name, checkpoint_wrapper(child))
    return model


def half_checkpointed(model):
    """Only some of equal blocks are wrapped."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            child[0] = checkpoint_wrapper(child[0])
    return model


WRAPPERS = {
    "compile": compiled,
    "compile in place": compiled_in_place,
    "average": AveragedModel,
    "data parallel": nn.DataParallel,
    "checkpoint": checkpointed,
    "some checkpoints": half_checkpointed,
    "average of compiled checkpoints": lambda m: AveragedModel(compiled(checkpointed(m))),
    "compiled data parallel": lambda m: compiled(nn.DataParallel(m)),
}

# Not wrapped: what holds itself.
CASES = [case for case in zoo.ZOO if case is not zoo.inside_itself]


def assert_unchanged(make, wrap):
    """The description of the wrapped model is that of the model, to the last field."""
    expected = describe(make())
    wrapped = wrap(make())
    actual = describe(wrapped)
    assert expected.params == actual.params
    assert expected.label == actual.label
    assert_raw_names_resolve(wrapped)


def assert_raw_names_resolve(model):
    """Raw to canonical, and back."""
    found = slots(model)
    raw = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert raw == [slot.raw() for slot in found]
    known = {slot.name for slot in found}
    assert [slot.name for slot in found] == [resolve_name(name, known) for name in raw]


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("case", CASES)
def test_wrapping_changes_nothing_in_a_description(case, wrap):
    """Names, aliases, roles, owners, ancestors, shapes: every field, of every odd model."""
    assert_unchanged(case, wrap)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("gpt2", "GPT2LMHeadModel"),
        ("llama", "LlamaForCausalLM"),
        ("mixtral", "MixtralForCausalLM"),
        ("whisper", "WhisperForConditionalGeneration"),
    ],
)
def test_wrapping_a_real_model_changes_nothing(kind, head):
    """The model's own hooks are asked through the wrappers."""
    assert_unchanged(lambda: zoo.from_transformers(kind, head), compiled)


def test_a_bare_mapping_of_a_wrapped_model_has_the_names_of_the_model():
    """Its leading prefixes are dropped, and all that is left is said of names."""
    wrapped = compiled(AveragedModel(zoo.plain()))
    expected = [param.name for param in describe(zoo.plain()).params]
    named = dict(wrapped.named_parameters())
    assert next(iter(named)).startswith("_orig_mod.module.")
    assert expected == [param.name for param in describe(named).params]


def fsdp1(model):
    """FSDP1 asks for an accelerator; this is the tree of modules that it makes."""
    wrapped = FullyShardedDataParallel.__new__(FullyShardedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.training_state = TrainingState.IDLE
    wrapped._fsdp_wrapped_module = model
    return wrapped


def fsdp1_of_parts(model):
    for name, child in list(model.named_children()):
        model.add_module(name, fsdp1(child))
    return fsdp1(model)


@pytest.mark.parametrize("case", CASES)
def test_fsdp1_changes_nothing_in_a_description(case):
    """Around every part, leaves among them, and around the whole."""
    assert_unchanged(case, fsdp1_of_parts)


def _hold(self, model):
    nn.Module.__init__(self)
    self.module = model


def test_an_engine_of_deepspeed_is_a_wrapper():
    """Known by its qualified name; the package is never imported."""
    engine = type("DeepSpeedEngine", (nn.Module,), {"__init__": _hold})
    engine.__module__ = "deepspeed.runtime.engine"
    assert_unchanged(zoo.plain, engine)


def language_model():
    return zoo.from_transformers(
        "gpt2", "GPT2LMHeadModel", n_layer=2, n_embd=8, n_head=2, vocab_size=20
    ).to_empty(device="cpu")


def llama():
    return zoo.from_transformers(
        "llama",
        "LlamaForCausalLM",
        num_hidden_layers=2,
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=20,
    ).to_empty(device="cpu")


def adapted(make, config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints about layouts and tied weights
        return peft.get_peft_model(make(), config)


def said_of(model):
    return {
        param.name: (param.role, param.owner, param.owner_type, param.leaf, param.shape)
        for param in describe(model).params
    }


PEFT_CONFIGS = {
    "lora": (
        language_model,
        peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True),
    ),
    "dora": (llama, peft.LoraConfig(target_modules=["q_proj"], use_dora=True)),
    "embedding": (llama, peft.LoraConfig(target_modules=["embed_tokens", "q_proj"])),
    "every layer": (
        llama,
        peft.LoraConfig(target_modules="all-linear", lora_bias=True),
    ),
    "ia3": (
        llama,
        peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
    "loha": (llama, peft.LoHaConfig(target_modules=["q_proj"])),
    "saved": (
        llama,
        peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head", "norm"]),
    ),
    "prompt": (
        language_model,
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ),
}


class TestPeft:
    @pytest.mark.parametrize(("make", "config"), PEFT_CONFIGS.values(), ids=PEFT_CONFIGS)
    def test_adapters_leave_the_base_models_names_and_roles(self, make, config):
        """Every parameter of the base model is described as without the adapter."""
        expected = said_of(make())
        model = adapted(make, config)
        actual = said_of(model)
        assert expected == {name: actual.get(name) for name in expected}
        assert actual.keys() > expected.keys()
        assert_raw_names_resolve(model)

    @pytest.mark.parametrize(("make", "config"), PEFT_CONFIGS.values(), ids=PEFT_CONFIGS)
    def test_wrapping_an_adapted_model_changes_nothing(self, make, config):
        """Stacks of wrappers with PEFT inside."""
        assert_unchanged(lambda: adapted(make, config), lambda m: AveragedModel(compiled(m)))

    def test_low_rank_factors_have_roles_of_their_own(self):
        """LoRA+ needs them, and the embedding's factors have no `.weight`."""
        roles = said_of(adapted(*PEFT_CONFIGS["embedding"]))
        layer = "model.layers.0.self_attn.q_proj"
        assert roles[f"{layer}.lora_A.default.weight"][0] == "lora_a"
        assert roles[f"{layer}.lora_B.default.weight"][0] == "lora_b"
        assert roles["model.embed_tokens.lora_embedding_A.default"][0] == "lora_a"
        assert roles["model.embed_tokens.lora_embedding_B.default"][0] == "lora_b"

    def test_a_magnitude_of_dora_is_a_gain(self):
        """As weight norm's is."""
        roles = said_of(adapted(*PEFT_CONFIGS["dora"]))
        magnitudes = {v[0] for k, v in roles.items() if "lora_magnitude_vector" in k}
        assert magnitudes == {"gain"}

    def test_a_bias_of_a_low_rank_factor_is_a_bias(self):
        """lora_bias=True gives the second factor one."""
        roles = said_of(adapted(*PEFT_CONFIGS["every layer"]))
        assert roles["model.layers.0.mlp.up_proj.lora_B.default.bias"][0] == "bias"

    @pytest.mark.parametrize("name", ["ia3", "loha"])
    def test_other_adapters_are_adapters(self, name):
        """Whatever they add."""
        make, config = PEFT_CONFIGS[name]
        added = said_of(adapted(make, config)).items() - said_of(make()).items()
        assert {said[0] for _, said in added} == {"adapter"}

    def test_saved_modules_take_the_name_and_untie(self):
        """The trained copy is what the name means; the original keeps a longer one."""
        params = {p.name: p for p in describe(adapted(*PEFT_CONFIGS["saved"])).params}
        assert params["lm_head.weight"].requires_grad
        assert not params["lm_head.original_module.weight"].requires_grad
        assert params["lm_head.weight"].role == "head"
        assert params["model.norm.weight"].role == "norm"

    def test_two_saved_copies_keep_the_names_of_their_adapters(self):
        """They cannot both be `lm_head.weight`."""
        model = adapted(*PEFT_CONFIGS["saved"])
        model.add_adapter(
            "second",
            peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        )
        names = set(said_of(model))
        assert {f"lm_head.modules_to_save.{a}.weight" for a in ("default", "second")} < names
        assert "model.norm.weight" in names
        assert_raw_names_resolve(model)

    def test_merging_gives_the_base_model_back(self):
        """merge_and_unload leaves no trace of the adapter."""
        model = adapted(*PEFT_CONFIGS["dora"]).merge_and_unload()
        assert said_of(llama()) == said_of(model)


def ddp():
    """DDP around the whole model, also compiled and with PEFT inside."""
    for case in (zoo.plain, zoo.tied, zoo.weight_norm, zoo.mixtures, zoo.lstm):
        assert_unchanged(case, DistributedDataParallel)
        assert_unchanged(case, lambda m: compiled(DistributedDataParallel(m)))
        assert_unchanged(case, lambda m: DistributedDataParallel(compiled(m)))
    make, config = PEFT_CONFIGS["lora"]
    assert_unchanged(lambda: adapted(make, config), DistributedDataParallel)


def inside():
    """inside_ddp sees DDP below other wrappers, and unwrap goes through."""
    model = DistributedDataParallel(zoo.plain())
    assert inside_ddp(model)
    assert inside_ddp(compiled(model))
    assert unwrap(compiled(model)) is model.module


def sharded(model):
    """FSDP2: every part that has parameters, then the whole."""
    containers = nn.ModuleList | nn.ModuleDict
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            sharded(child)
        elif any(True for _ in child.parameters()):
            fully_shard(child)
    return model if isinstance(model, containers) else fully_shard(model)


def fsdp2():
    """fully_shard changes classes in place; names, classes and global shapes stay."""
    cases = (zoo.plain, zoo.mixtures, zoo.norms, zoo.transformer_layer)
    for case in cases:
        assert_unchanged(case, sharded)
        assert_unchanged(case, lambda m: sharded(checkpointed(m)))
        assert_unchanged(case, lambda m: compiled(sharded(m)))
    assert_unchanged(zoo.tied, fully_shard)  # tied tensors must be in one shard group
    model = sharded(zoo.plain())
    assert all(isinstance(p, DTensor) for p in model.parameters())
    make, config = PEFT_CONFIGS["lora"]
    assert_unchanged(lambda: adapted(make, config), fully_shard)


SCENARIOS = [ddp, inside, fsdp2]


said = said_by(SCENARIOS, 2, full=1)


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_process_agrees(said, scenario):
    """The scenario's own docstring is the claim; no process may object."""
    tell(said[scenario.__name__])
