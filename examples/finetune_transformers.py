"""Fine-tune with the Trainer of transformers: layer-wise rates, a floor, a monitor, a resume.

    python examples/finetune_transformers.py [--out DIR]

A small BERT with random weights learns whether two symbols of a row are the same. Nothing is
downloaded. The second run starts at the middle checkpoint of the first and must end at the
same weights. The table at the end shows what each step did to each layer. Needs transformers and
accelerate.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import nnlr

try:
    import accelerate as _  # noqa: F401  the Trainer needs it
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        TrainingArguments,
        set_seed,
    )

    from nnlr.integrations.transformers import RatioTrainer, log_layers, log_rates, optimizer
except (ImportError, RuntimeError) as error:
    raise SystemExit(
        f"{error}\nFix: pip install transformers accelerate\n"
        "A torchvision that was built for another torch breaks it: pip uninstall torchvision"
    ) from None

# The lower a layer, the slower; no decay for norms and biases; a faster head.
SCHEME = nnlr.layer_decay(0.8) * nnlr.no_weight_decay()
SCHEME *= nnlr.rule("classifier.*", lr_mult=3)


def bert():
    """Four layers, 32 wide."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 8}
    config = BertConfig(vocab_size=12, num_hidden_layers=4, num_attention_heads=4, **sizes)
    return BertForSequenceClassification(config)


class Pairs(TensorDataset):
    """Eight symbols, and whether the first and the fifth are the same."""

    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        symbols = torch.randint(2, 12, (count, 8), generator=generator)
        labels = torch.rand(count, generator=generator) < 0.5
        symbols[labels, 4] = symbols[labels, 0]
        super().__init__(symbols, (symbols[:, 0] == symbols[:, 4]).long())

    def __getitem__(self, index):
        """A row as the model takes it."""
        symbols, label = super().__getitem__(index)
        return {"input_ids": symbols, "labels": label}


def trainer_of(folder, steps):
    """A Trainer that builds its model, its optimizer and its scheduler itself."""
    args = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_steps=steps // 10,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 2e-4},  # of the base rate: the others in proportion
        save_steps=steps // 2,
        logging_steps=steps // 6,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = RatioTrainer(
        model_init=bert,
        args=args,
        train_dataset=Pairs(4096, seed=0),
        eval_dataset=Pairs(512, seed=1),
        compute_metrics=lambda found: {
            "accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())
        },
        optimizer_cls_and_kwargs=optimizer(SCHEME, args=args),
    )
    log_rates(trainer)
    return trainer, log_layers(trainer, every=10)


def runs(folder, steps=300):
    """The run in one go with its monitor, and the same one resumed from the middle."""
    whole, watch = trainer_of(folder, steps)
    whole.train()
    resumed, _ = trainer_of(folder, steps)
    resumed.train(resume_from_checkpoint=str(Path(folder) / f"checkpoint-{steps // 2}"))
    return whole, resumed, watch.monitor


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default=None, help="folder for checkpoints")
    folder = parser.parse_args().out or tempfile.mkdtemp(prefix="nnlr-")
    torch.set_num_threads(1)  # so small a model is slower on more
    set_seed(0)
    print(nnlr.resolve(bert(), SCHEME, lr=2e-3, weight_decay=0.05))
    whole, resumed, monitor = runs(folder)
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    print("accuracy:", whole.evaluate()["eval_accuracy"])
    print("the resumed run has the same weights:", all(torch.equal(*p) for p in pairs))
    print("", monitor, sep="\n")
