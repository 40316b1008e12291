"""Plans on PEFT's models: every type of adapter trains at the rates that the plan says."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import nnlr
from tests.helpers import thinned

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

BASE, DECAY, STEPS, HALF = 1e-2, 0.1, 4, 2
FLOOR = {"T_max": STEPS, "eta_min": 5e-3}
SCHEME = nnlr.layer_decay(0.5) * nnlr.lora_plus(16)
TARGETS = ["q_proj", "v_proj"]

# What a type needs to fit a model this small, beside rank 2 and the two projections.
SETTINGS = {
    "ADALORA": {"total_step": 100, "r": 8},  # its own default: it wants no other
    "ADAPTION_PROMPT": {"target_modules": "self_attn", "adapter_layers": 2, "adapter_len": 2},
    "C3A": {"block_size": 4},
    "CPT": {
        "cpt_token_ids": [1, 2, 3, 4],
        "cpt_mask": [1, 1, 1, 1],
        "cpt_tokens_type_mask": [1, 2, 3, 4],
        "opt_projection_epsilon": 0.2,
    },
    "FOURIERFT": {"n_frequency": 8},
    "IA3": {"feedforward_modules": []},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MULTITASK_PROMPT_TUNING": {"num_tasks": 2},
    "OFT": {"r": 0, "oft_block_size": 4},
    "POLY": {"n_tasks": 2},
    "ROAD": {"group_size": 4},
    "SHADOW": {"target_modules": None},
    "SUPERTUNING": {"sparsity": 0.5},
    "TRAINABLE_TOKENS": {"token_indices": [1, 2], "target_modules": ["embed_tokens"]},
    "VBLORA": {"vector_length": 4, "num_vectors": 8},
    "WAVEFT": {"n_frequency": 8},
    "XLORA": {"hidden_size": 8,},
}  # fmt: skip

# What the model is called with, beside words and labels.
INPUTS = {
    "CPT": {"input_type_mask": torch.full((2, 6), 4)},
    "MULTITASK_PROMPT_TUNING": {"task_ids": torch.tensor([0, 1])},
    "POLY": {"task_ids": torch.tensor([0, 1])},
}

TYPES = [each.value for each in peft.PeftType]


def base():
    """Two layers of Llama with random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32,
        pad_token_id=0, use_cache=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def config_of(kind, folder, **settings):
    """The smallest configuration of a type."""
    cls = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)]
    usual = {"r": 2, "target_modules": TARGETS, "num_virtual_tokens": 2}
    known = {name: v for name, v in usual.items() if hasattr(cls, name) or name in fields(cls)}
    if kind == "XLORA":
        peft.get_peft_model(base(), config_of("LORA", folder)).save_pretrained(folder)
        settings["adapters"] = {"0": str(folder)}  # a mixture of trained adapters
    return cls(task_type="CAUSAL_LM", **{**known, **SETTINGS.get(kind, {}), **settings})


def fields(cls):
    return cls.__dataclass_fields__


def adapted(kind, folder, **settings):
    """The model with adapters, the same each time."""
    config = config_of(kind, folder, **settings)
    model = base()
    torch.manual_seed(1)
    return peft.get_peft_model(model, config)


def words(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randint(1, 16, (2, 6), generator=generator)


def loss_of(model, kind, step):
    """The same dropout for all who ask for the same step."""
    torch.manual_seed(step)
    found = words(step)
    more = INPUTS.get(kind, {})
    mask = torch.ones_like(found)
    return model(input_ids=found, labels=found, attention_mask=mask, **more).loss


# What is in no block, and the layer it counts to: that of the embeddings, under both blocks,
# or none. The one vector of Uni-LoRA stands in every block, and in the model around them.
OUTSIDE = {
    r"prompt_encoder\.default\.(embedding|delta_embedding|prefix_task)": 0.5**3,
    r"base_model\.model\.model\.embed_tokens": 0.5**3,
    r".*unilora_theta_d": 0.5**3,
    r"prompt_encoder\.default\.(mlp_head|trainable_embedding)": 1.0,
    r"base_model\.(internal_xlora_classifier|shadow_backbone)": 1.0,
}


def multiplier(name, kind):
    """By hand, from PEFT's names: half for each layer down, 16 for the B of LoRA."""
    if kind == "P_TUNING":  # its encoder makes what the first layer takes
        return 0.5**3
    for pattern, mult in OUTSIDE.items():
        if re.match(pattern, name):
            return mult
    block = re.match(r"base_model\.model\.model\.layers\.(\d)\.", name)
    return 0.5 ** (2 - int(block[1])) * (16 if ".lora_B." in name else 1)


def train(model, kind, optimizer, scheduler, steps):
    for step in steps:
        loss_of(model, kind, step).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()


def planned(model, scheme=SCHEME, **settings):
    plan = nnlr.resolve(model, scheme, lr=BASE, weight_decay=DECAY)
    optimizer = plan.optimizer(torch.optim.AdamW, **settings)
    return plan, optimizer, nnlr.schedule(optimizer, CosineAnnealingLR, **FLOOR)


def by_hand(model, kind):
    """A group for each parameter, and torch's scheduler on a tensor of no use."""
    groups = [
        {"params": [p], "mult": multiplier(name, kind)}
        for name, p in model.named_parameters()
        if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(groups, lr=BASE, weight_decay=DECAY)
    one = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = CosineAnnealingLR(one, **FLOOR)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = one.param_groups[0]["lr"] * group["mult"]
        loss_of(model, kind, step).backward()
        optimizer.step()
        optimizer.zero_grad()
        one.step()
        scheduler.step()


def same(expected, model):
    pairs = zip(expected.state_dict().items(), model.state_dict().items(), strict=True)
    return all(a == b and torch.equal(one, other) for (a, one), (b, other) in pairs)


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


# What was trained and does not come back from a folder, whoever built the optimizer.
NOT_LOADED = {
    "P_TUNING": "PEFT saves the prompts that come out, not the encoder",
    "CPT": "likewise",
    "XLORA": "PEFT's from_pretrained leaves the classifier as it was made",
}


def loaded(folder, model):
    """Adapters from a folder, to go on training."""
    config = model.active_peft_config
    if config.peft_type in NOT_LOADED:
        again = peft.get_peft_model(base(), config)
        again.load_state_dict(model.state_dict())
        return again
    if not config.is_prompt_learning:
        return peft.PeftModel.from_pretrained(base(), folder, is_trainable=True)
    # PEFT loads prompts for inference only; the weights go into a model made anew.
    again = peft.get_peft_model(base(), config)
    peft.set_peft_model_state_dict(again, peft.load_peft_weights(folder))
    return again


pytestmark = [
    # What PEFT and torch say about these configurations; none of it is about rates.
    pytest.mark.filterwarnings(f"ignore:{text}:UserWarning")
    for text in (
        "Unsupported layer type",
        "Detected that the base layer has no bias term",
        "Failed to load the CUDA extension",
        "Setting boft_n_butterfly_factor to 1",
        "Sparse invariant checks are implicitly disabled",
    )
]


@pytest.mark.parametrize("kind", thinned(TYPES, 4))
@pytest.mark.no_cover
def test_every_type_trains_and_resumes_as_the_loop_by_hand(tmp_path, kind):
    """Bit for bit, under a schedule with a floor; the base stays as it was.

    One run goes through, another goes on from what was saved half way: adapters as PEFT saves
    them, optimizer and schedule as torch does.
    """
    ours, theirs = (adapted(kind, tmp_path / "lora") for _ in range(2))
    start = copy.deepcopy(dict(ours.named_parameters()))
    names = trained(ours)
    plan, optimizer, scheduler = planned(ours)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = {id(p) for name, p in ours.named_parameters() if name in names}
    assert own == held
    assert not any(row.locked for row in plan)

    train(ours, kind, optimizer, scheduler, range(HALF))
    ours.save_pretrained(tmp_path / "adapter")
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    resumed = loaded(tmp_path / "adapter", ours)

    train(ours, kind, optimizer, scheduler, range(HALF, STEPS))
    by_hand(theirs, kind)
    assert same(theirs, ours)
    moved = {n for n, p in ours.named_parameters() if not torch.equal(start[n], p)}
    assert moved
    assert moved <= names

    resumed.train()
    _, optimizer, scheduler = planned(resumed)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    train(resumed, kind, optimizer, scheduler, range(HALF, STEPS))
    assert same(theirs, resumed)


class TestLora:
    @pytest.mark.parametrize(
        "settings",
        [
            pytest.param({"use_dora": True}, id="dora"),
            pytest.param({"target_modules": ["embed_tokens", "q_proj"]}, id="embedding"),
            pytest.param({"use_rslora": True, "bias": "all"}, id="rslora"),
            pytest.param({"modules_to_save": ["lm_head"]}, id="modules_to_save"),
            pytest.param({"init_lora_weights": "olora"}, id="olora"),
            pytest.param({"layer_replication": [(0, 2), (1, 2)]}, id="replication"),
        ],
    )
    def test_variants_keep_the_ratio_of_b_to_a(self, tmp_path, settings):
        """And what is saved beside adapters trains at the base rate."""
        model = adapted("LORA", tmp_path, **settings)
        _, optimizer, scheduler = planned(model, nnlr.lora_plus(16))
        train(model, "LORA", optimizer, scheduler, range(STEPS))
        rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        found = {name: rate[id(p)] for name, p in model.named_parameters() if p.requires_grad}
        faster = {name for name in found if re.search(r"lora_(embedding_)?B\b", name)}
        assert faster
        for name, value in found.items():
            assert pytest.approx(5e-3 * (16 if name in faster else 1)) == value
        assert len(found) == len(rate)

    def test_names_are_those_of_the_model(self, tmp_path):
        """Rules for the model without adapters reach those of its modules."""
        model = adapted("LORA", tmp_path, modules_to_save=["lm_head"])
        scheme = nnlr.rule("model.layers.1.*", lr_mult=0.5)
        plan = nnlr.resolve(model, scheme, lr=1.0, weight_decay=0)
        at = "model.layers.{}.self_attn.q_proj.lora_A.default.weight"
        assert (1.0, 0.5) == (plan[at.format(0)].lr, plan[at.format(1)].lr)
        assert 0.5 == plan[f"base_model.model.{at.format(1)}"].lr

    def test_frozen_is_not_locked(self, tmp_path):
        """PEFT froze the base, and its owner may thaw it: nnlr leaves the flags alone."""
        model = adapted("LORA", tmp_path)
        plan, *_ = planned(model)
        frozen = [row for row in plan if row.frozen]
        assert len(frozen) == len(list(base().parameters()))
        assert not any(row.locked or row.trainable for row in frozen)
        assert [] == plan.unlock()

    def test_switching_adapters_wants_a_new_plan(self, tmp_path):
        """PEFT trains one adapter at a time; regroup keeps what the optimizer knows."""
        model = adapted("LORA", tmp_path)
        model.add_adapter("other", config_of("LORA", tmp_path))
        _, optimizer, scheduler = planned(model)
        train(model, "LORA", optimizer, scheduler, range(2))
        first = {id(p) for g in optimizer.param_groups for p in g["params"]}
        model.set_adapter("other")
        frozen = copy.deepcopy(model.state_dict())
        nnlr.regroup(optimizer, nnlr.resolve(model, SCHEME, lr=BASE, weight_decay=DECAY))
        train(model, "LORA", optimizer, scheduler, range(2, 4))
        held = {id(p) for g in optimizer.param_groups for p in g["params"]}
        own = {id(p) for name, p in model.named_parameters() if ".other." in name}
        assert own == held
        assert not own & first
        moved = {name for name, t in model.state_dict().items() if not torch.equal(frozen[name], t)}
        assert moved
        assert all(".other." in name for name in moved)

    def test_set_adapter_undoes_locks(self, tmp_path):
        """It switches all gradients of the adapter on; `plan.lock` puts the locks back."""
        model = adapted("LORA", tmp_path)
        plan, optimizer, _ = planned(model, nnlr.rule("model.layers.0.*", lr_mult=0))
        locked = {name for name in trained(adapted("LORA", tmp_path)) if "layers.0" in name}
        assert locked
        assert not locked & trained(model)
        model.set_adapter("default")
        assert locked <= trained(model)
        plan.lock()
        assert not locked & trained(model)
        assert len(trained(model)) == sum(len(g["params"]) for g in optimizer.param_groups)

    def test_after_merging_there_is_nothing_to_train(self, tmp_path):
        """The optimizer's tensors are in no model any more, and a new plan says so."""
        model = adapted("LORA", tmp_path)
        _, optimizer, _ = planned(model)
        merged = model.merge_and_unload()
        left = {id(p) for p in merged.parameters()}
        assert not left & {id(p) for g in optimizer.param_groups for p in g["params"]}
        plan = nnlr.resolve(merged, lr=BASE, weight_decay=DECAY)
        with pytest.raises(nnlr.ConfigError, match="trains nothing"):
            plan.optimizer(torch.optim.AdamW)

    def test_two_adapters_at_two_rates(self, tmp_path):
        """Names end in the adapter's: one rule for each."""
        model = adapted("LORA", tmp_path)
        model.add_adapter("other", config_of("LORA", tmp_path))
        model.base_model.set_adapter(["default", "other"])
        scheme = nnlr.lora_plus(16) * nnlr.rule("*.other.*", lr_mult=0.1)
        plan = nnlr.resolve(model, scheme, lr=1.0, weight_decay=0)
        at = "model.layers.0.self_attn.q_proj.lora_{}.{}.weight"
        found = [plan[at.format(*pair)].lr for pair in (("A", "other"), ("B", "other"))]
        assert [0.1, 1.6] == pytest.approx(found)
        assert (1.0, 16.0) == (
            plan[at.format("A", "default")].lr,
            plan[at.format("B", "default")].lr,
        )


def test_the_trainer_of_transformers_trains_and_resumes_adapters(tmp_path):
    """As the loop by hand; the checkpoint holds the adapter and the optimizer."""
    rows = [{"input_ids": w, "labels": w} for step in range(4) for w in words(step)]
    hf = nnlr.integrations.transformers
    args = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=2, learning_rate=BASE,
        weight_decay=DECAY, lr_scheduler_type="linear", max_grad_norm=0.0, save_steps=2,
        report_to=[], use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip

    def run(**settings):
        model = adapted("LORA", tmp_path)
        made = hf.optimizer(SCHEME, args=args, cls=torch.optim.AdamW)
        trainer = hf.RatioTrainer(model, args, train_dataset=rows, optimizer_cls_and_kwargs=made)
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)
        trainer.train(**settings)
        return model

    theirs = adapted("LORA", tmp_path)
    groups = [
        {"params": [p], "lr": BASE * multiplier(name, "LORA")}
        for name, p in theirs.named_parameters()
        if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=DECAY)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, 0, 4)
    theirs.train()
    for step in range(4):
        theirs(input_ids=words(step), labels=words(step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    assert same(theirs, run())
    assert same(theirs, run(resume_from_checkpoint=str(tmp_path / "checkpoint-2")))
