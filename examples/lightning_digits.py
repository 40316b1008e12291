"""Layer-wise rates in Lightning: plan, fit, interrupt, resume, and end at the same weights.

    python examples/lightning_digits.py

Trains a small perceptron on scikit-learn's digits, its lower layers at lower rates, under a
one-cycle schedule, prints the plan and the last rates, and goes on from the checkpoint of half
way in a new module and a new trainer. Needs lightning and scikit-learn.
"""

import logging
import tempfile
import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

import nnlr

try:
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint
    from sklearn.datasets import load_digits

    from nnlr.integrations.lightning import RateMonitor, configure
except (ImportError, RuntimeError) as error:
    raise SystemExit(
        f"{error}\nFix: pip install lightning scikit-learn\n"
        "A torchvision that was built for another torch breaks it: pip uninstall torchvision"
    ) from None

LOWER = nnlr.rule("0.*", lr_mult=0.1) * nnlr.rule("2.*", lr_mult=0.3)
SCHEME = LOWER * nnlr.no_weight_decay()


class Digits(lightning.LightningModule):
    """A perceptron with two hidden layers."""

    def __init__(self, lr=1e-2):
        super().__init__()
        self.lr = lr
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def plan(self):
        """What every parameter's rates are."""
        return nnlr.resolve(self.net, SCHEME, lr=self.lr, weight_decay=0.05)

    def configure_optimizers(self):
        """The plan's optimizer, and a schedule as long as the training."""

        def schedule(opt):
            steps = self.trainer.estimated_stepping_batches
            return OneCycleLR(opt, self.lr, total_steps=steps + 1)

        cls = torch.optim.AdamW
        return configure(self, self.plan(), cls, schedule=schedule, interval="step")

    def training_step(self, batch, _):
        """The loss of one batch."""
        return F.cross_entropy(self.net(batch[0]), batch[1])


def digits():
    """All images, in batches that are the same in every run."""
    data = load_digits()
    images = torch.from_numpy(data.data).float()
    images = (images - images.mean()) / images.std()
    return TensorDataset(images, torch.from_numpy(data.target))


def trainer(epochs, *callbacks):
    """A quiet trainer."""
    off = ("logger", "enable_progress_bar", "enable_model_summary")
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[RateMonitor(), *callbacks],
        enable_checkpointing=bool(callbacks),
        **dict.fromkeys(off, False),
    )


def run(epochs):
    """Fit, and resume from the middle: both networks, and the rates at the end."""
    data = DataLoader(digits(), batch_size=256)
    whole, resumed = Digits(), Digits()
    with tempfile.TemporaryDirectory(prefix="nnlr-") as folder:
        every = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
        fitting = trainer(epochs, every)
        fitting.fit(whole, data)
        half = f"{folder}/epoch={epochs // 2 - 1}.ckpt"
        trainer(epochs).fit(resumed, data, ckpt_path=half)
    return whole, resumed, fitting.callback_metrics


def accuracy(module):
    """Share of the images that are recognised."""
    images, labels = digits().tensors
    with torch.no_grad():
        return (module.net(images).argmax(1) == labels).float().mean().item()


def main():
    """Train, resume, print."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # Lightning's advice on workers
    torch.set_num_threads(1)  # the same sums on every machine
    print(Digits().plan())
    whole, resumed, rates = run(epochs=6)
    pairs = zip(whole.parameters(), resumed.parameters(), strict=True)
    equal = all(torch.equal(*pair) for pair in pairs)
    print(f"\nrates of the last step: {rates['lr']:.2g}, lowest {rates['lr_min']:.2g}")
    print(f"accuracy on the training images: {accuracy(whole):.3f}")
    print(f"resumed run ends at the same weights: {equal}")


if __name__ == "__main__":
    main()
