"""LoRA+: the second matrix of an adapter learns faster than the first. What does it gain?

    python examples/lora_plus.py [--out DIR]

A small Llama with random weights learns the prose of Python's manual, letter by letter; then
low-rank adapters learn code, at three base rates, with B as fast as A (ratio 1) and 16 times as
fast (LoRA+). It prints the loss on code that was not seen, and draws the plan.
Needs transformers, peft and matplotlib.
"""

import argparse
import copy
import sysconfig
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

import nnlr

try:
    import matplotlib as _  # noqa: F401  before anything is trained
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM
except (ImportError, RuntimeError) as error:
    raise SystemExit(f"{error}\nFix: pip install transformers peft matplotlib") from None

RATIOS = (1, 16)
LRS = (1e-3, 3e-3, 1e-2)
STEPS = {"pretrain": 120, "adapt": 40}
LENGTH = 64  # letters of a row

FIRST = ("pydoc_data/topics.py",)
SECOND = ("opcode.py", "keyword.py", "token.py", "stat.py", "symtable.py")


def letters(files):
    """The letters of some files of Python's own, as numbers below 128."""
    folder = Path(sysconfig.get_path("stdlib"))
    text = "".join((folder / file).read_text(encoding="utf-8") for file in files)
    return torch.tensor([min(ord(letter), 127) for letter in text])


def batch(text, generator):
    """Sixteen rows from anywhere in a text."""
    starts = torch.randint(len(text) - LENGTH - 1, (16, 1), generator=generator)
    return text[starts + torch.arange(LENGTH + 1)]


def loss_of(model, rows):
    """Nats per letter."""
    return F.cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())


def train(model, plan, text, steps):
    """Train a model by its plan, with a cosine."""
    generator = torch.Generator().manual_seed(1)
    optimizer = plan.optimizer(nnlr.optim.AdamW)
    scheduler = nnlr.schedule(optimizer, CosineAnnealingLR, T_max=steps)
    for _ in range(steps):
        loss = loss_of(model, batch(text, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


def llama():
    """Three layers, 64 wide."""
    sizes = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 128}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes |= {"num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, **tokens))


def runs(steps):
    """The loss before, the losses by ratio and rate, and a plan of LoRA+."""
    torch.manual_seed(0)
    base = llama()
    plan = nnlr.resolve(base, nnlr.no_weight_decay(), lr=3e-3, weight_decay=0.1)
    train(base, plan, letters(FIRST), steps["pretrain"])
    seen, unseen = letters(SECOND).tensor_split([9000])
    held_out = batch(unseen, torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = loss_of(base, held_out).item()
    losses = {}
    for ratio in RATIOS:
        for lr in LRS:
            torch.manual_seed(0)
            config = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj", "up_proj"])
            model = peft.get_peft_model(copy.deepcopy(base), config)
            plan = nnlr.resolve(model, nnlr.lora_plus(ratio), lr=lr, weight_decay=0.0)
            train(model, plan, seen, steps["adapt"])
            with torch.no_grad():
                losses[ratio, lr] = loss_of(model, held_out).item()
    return before, losses, plan


def main():
    """Adapt, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the picture")
    folder = parser.parse_args().out or Path(tempfile.mkdtemp(prefix="nnlr-"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # so small a model is slower on more
    before, losses, plan = runs(STEPS)
    print(plan.table(trained=True))
    print(f"\nloss on unseen text, nats per letter; before: {before:.3f}")
    print(f"{'base lr':>10}", *(f"{lr:>8g}" for lr in LRS))
    for ratio in RATIOS:
        print(f"{f'ratio {ratio}':>10}", *(f"{losses[ratio, lr]:8.3f}" for lr in LRS))
    plan.plot().savefig(folder / "lora_plus.png")
    print(f"\npicture: {folder}")


if __name__ == "__main__":
    main()
