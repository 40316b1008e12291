"""Gradual unfreezing in Lightning: the head first, then one part more in each epoch.

    python examples/lightning_unfreezing.py [--out DIR]

A small network that knows the digits 0 to 4 is fine-tuned to tell 5 to 9: layers nearer the input
learn more slowly and begin later, under one one-cycle schedule. The table at the end shows what
each step did to each layer; where a dot stands it was locked. Needs lightning and scikit-learn,
and matplotlib for the picture.
"""

import argparse
import logging
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

import nnlr

try:
    import lightning
    from sklearn.datasets import load_digits

    from nnlr.integrations.lightning import EpochCallback, LayerMonitor, configure
except (ImportError, RuntimeError) as error:
    raise SystemExit(
        f"{error}\nFix: pip install lightning scikit-learn matplotlib\n"
        "A torchvision that was built for another torch breaks it: pip uninstall torchvision"
    ) from None

# From the input to the output; opened from the last on, one more after each epoch.
PARTS = ["embedding.*", "blocks.0.*", "blocks.1.*", "blocks.2.*", "blocks.3.*", "head.*"]
LAYERS = {part: layer for layer, part in enumerate(PARTS)}


class Digits(lightning.LightningModule):
    """An embedding, four blocks and a head, opened one by one."""

    def __init__(self, lr=1e-2):
        super().__init__()
        self.lr = lr
        self.embedding = nn.Linear(64, 48)
        self.blocks = nn.ModuleList(nn.Linear(48, 48) for _ in range(4))
        self.head = nn.Linear(48, 5)

    def forward(self, x):
        """Logits of five digits."""
        x = self.embedding(x).relu()
        for block in self.blocks:
            x = x + block(x).relu()
        return self.head(x)

    def plan(self):
        """Layers nearer the input learn more slowly, and begin later."""
        scheme = nnlr.unfreeze("ulmfit", PARTS) * nnlr.layer_decay(0.7, indexer=LAYERS)
        return nnlr.resolve(self, scheme * nnlr.no_weight_decay(), lr=self.lr, weight_decay=0.05)

    def configure_optimizers(self):
        """The plan's optimizer, whose multipliers move, under a schedule of the whole training."""
        steps = int(self.trainer.estimated_stepping_batches) + 1
        cycle = partial(OneCycleLR, max_lr=self.lr, total_steps=steps)
        return configure(self, self.plan(), torch.optim.AdamW, schedule=cycle, interval="step")

    def training_step(self, batch, _):
        """The loss of one batch."""
        return F.cross_entropy(self(batch[0]), batch[1])


def digits(first):
    """Images and labels of five digits, half for training and half for testing."""
    data = load_digits()
    chosen = (data.target >= first) & (data.target < first + 5)
    images = torch.from_numpy(data.data[chosen]).float() / 16
    labels = torch.from_numpy(data.target[chosen]) - first
    return [TensorDataset(images[half::2], labels[half::2]) for half in (0, 1)]


def run(epochs=12):
    """The fine-tuned module, its monitor, and the share of test images that it recognises."""
    torch.manual_seed(0)
    module, (old, _), (new, test) = Digits(), digits(0), digits(5)
    pretraining = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(60):
        F.cross_entropy(module(old.tensors[0]), old.tensors[1]).backward()
        pretraining.step()
        pretraining.zero_grad()
    watch = LayerMonitor(every=6)
    off = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[EpochCallback(), watch],
        **dict.fromkeys(off, False),
    ).fit(module, DataLoader(new, batch_size=56, shuffle=True))
    right = module(test.tensors[0]).argmax(1) == test.tensors[1]
    return module, watch.monitors[0], right.float().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default=None, help="folder for the picture")
    folder = Path(parser.parse_args().out or tempfile.mkdtemp(prefix="nnlr-"))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # Lightning's advice on workers
    torch.set_num_threads(1)  # the same sums on every machine
    module, monitor, accuracy = run()
    print(module.plan(), monitor, sep="\n\n")
    print(f"\naccuracy on unseen images: {accuracy:.3f}")
    monitor.plot(folder / "unfreezing.png")
    print(f"picture: {folder / 'unfreezing.png'}")
