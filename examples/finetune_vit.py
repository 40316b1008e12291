"""Fine-tune a vision transformer with layer decay, and see what it gains.

    python examples/finetune_vit.py [--out DIR]

A small ViT is trained on scikit-learn's handwritten digits 0 to 4, gets a new head, and is
fine-tuned on 5 to 9 with ten images of each: with one rate for all layers, and with layer decay,
at three base rates. It prints accuracies on the images it has not seen, and draws the schedule
and how far each layer moved. Needs timm, scikit-learn and matplotlib.
"""

import argparse
import copy
import tempfile
from pathlib import Path
from statistics import fmean

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

import nnlr

try:
    import matplotlib as _  # noqa: F401  before anything is trained
    import timm
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(f"{error}\nFix: pip install timm scikit-learn matplotlib") from None

SCHEMES = {
    "one rate": nnlr.no_weight_decay(),
    "layer decay": nnlr.layer_decay(0.6) * nnlr.no_weight_decay(),
}
LRS = (1e-3, 4e-3, 1.6e-2)
STEPS = {"pretrain": 300, "finetune": 40}


def digits(labels):
    """Images of some digits, and their classes from 0 on."""
    images, classes = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 8 - 1
    chosen = (classes >= labels[0]) & (classes <= labels[1])
    return images[chosen], classes[chosen] - labels[0]


def warm_up_and_cosine(optimizer, total):
    """A tenth of warm-up, then half a cosine."""
    first = total // 10
    warm = LinearLR(optimizer, 0.1, total_iters=first)
    return SequentialLR(optimizer, [warm, CosineAnnealingLR(optimizer, total - first)], [first])


def train(model, plan, steps, data, seed):
    """Train a model by its plan, on batches of images and classes."""
    images, classes = data
    generator = torch.Generator().manual_seed(seed)
    optimizer = plan.optimizer(nnlr.optim.AdamW)
    scheduler = nnlr.schedule(optimizer, warm_up_and_cosine, total=steps)
    for _ in range(steps):
        batch = torch.randint(len(images), (min(64, len(images)),), generator=generator)
        loss = F.cross_entropy(model(images[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


def runs(seeds, steps):
    """Accuracies by scheme and rate, over seeds; the model before, and the last run of each."""
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 32}
    pretrained = timm.models.VisionTransformer(**sizes, depth=4, num_heads=4, num_classes=5)
    plan = nnlr.resolve(pretrained, SCHEMES["one rate"], lr=2e-3, weight_decay=0.05)
    train(pretrained, plan, steps["pretrain"], digits((0, 4)), seed=0)
    images, classes = digits((5, 9))
    accuracies, models = {}, {}
    for name, scheme in SCHEMES.items():
        for lr in LRS:
            results = []
            for seed in range(seeds):
                order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
                few = torch.cat([order[classes[order] == k][:10] for k in range(5)])
                rest = order[~torch.isin(order, few)]
                torch.manual_seed(seed)
                model = copy.deepcopy(pretrained)
                model.reset_classifier(5)
                before = copy.deepcopy(model)
                plan = nnlr.resolve(model, scheme, lr=lr, weight_decay=0.05)
                train(model, plan, steps["finetune"], (images[few], classes[few]), seed)
                with torch.no_grad():
                    right = model.eval()(images[rest]).argmax(1) == classes[rest]
                results.append(right.float().mean().item())
            accuracies[name, lr], models[name, lr] = results, (before, model, plan)
    return accuracies, models


def main():
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    folder = parser.parse_args().out or Path(tempfile.mkdtemp(prefix="nnlr-"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # so small a model is slower on more
    accuracies, models = runs(3, STEPS)
    print(f"accuracy, mean and range of 3 seeds\n{'base lr':>20}", *(f"{lr:>20g}" for lr in LRS))
    for name in SCHEMES:
        results = [accuracies[name, lr] for lr in LRS]
        cells = (f"{fmean(r):.3f} ({min(r):.3f}..{max(r):.3f})" for r in results)
        print(f"{name:>20}", *cells)
    same, slower = (nnlr.report.movement(*models[name, LRS[1]], label=name) for name in SCHEMES)
    print(f"\n{slower.table(same)}")
    slower.plot(folder / "movement.png", same)
    figure = models["layer decay", LRS[1]][2].plot_schedule(warm_up_and_cosine, 40, total=40)
    figure.savefig(folder / "schedule.png")
    print(f"\npictures: {folder}")


if __name__ == "__main__":
    main()
