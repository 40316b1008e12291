"""Make the pictures of the README and of docs/pictures.md.

    python docs/make_pictures.py [FOLDER]

They are drawn on the meta device, from plans alone, in a few seconds. Needs timm and matplotlib.
"""

import io
import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

import nnlr
from nnlr.report._plot_style import Scale, layer_ticks, new_figure, plain, ramp, styled

STEPS, WARM = 1000, 100
LR = 1e-3


def warm_up_and_cosine(optimizer):
    """Ten percent warm-up, then half a cosine."""
    warm = LinearLR(optimizer, 0.01, total_iters=WARM)
    return SequentialLR(optimizer, [warm, CosineAnnealingLR(optimizer, STEPS - WARM)], [WARM])


def save(figure, path, dpi=160):
    """Save a PNG with few colours, which is a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    Image.open(buffer).convert("RGB").quantize(192).save(path, optimize=True)


def vit(scheme):
    """A plan for ViT-B/16."""
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224")
    return nnlr.resolve(model, scheme, lr=LR, weight_decay=0.05)


@styled()
def readme(path):
    """Rates over layers, and beside them the same over time: one colour for each layer."""
    plan = vit(nnlr.layer_decay(0.65))
    (layers,) = plan.layers.values()
    rows = [plan[names[0]] for names in layers]
    course = nnlr.report.rates_over_time(plan, warm_up_and_cosine, STEPS)
    colours = ramp(len(rows))
    figure = new_figure(7.6, 2.75)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.25])
    scale = Scale([rows[0].lr / 3], "y", 2.2, top=LR)
    for axes in (left, right):
        plain(axes)
        scale.apply(axes, "")
    left.vlines(range(len(rows)), scale.low, [row.lr for row in rows], colors=colours, linewidth=6)
    for at, row in enumerate(rows):
        left.plot(at, row.lr, "o", color=colours[at], markersize=8, clip_on=False)
        right.plot(course.positions, [v or None for v in course.lr[row.group]], color=colours[at])
    left.set_title("layer_decay(0.65): a rate per layer", fontsize=9, fontweight="bold")
    right.set_title("schedule(...): the ratios hold at every step", fontsize=9, fontweight="bold")
    left.set_xlabel("layer of a ViT-B/16 (0: patch embedding, 13: head)")
    left.set_ylabel("learning rate (log scale)")
    left.set_xlim(-0.7, len(rows) - 0.3)
    layer_ticks(left, "x", 14)
    right.set_xlabel("step (warm-up, then cosine)")
    right.margins(x=0.02)
    for at, words, shift in ((len(rows) - 1, "head", 1.12), (0, "patch embedding", 0.42)):
        place = (STEPS * 0.14, rows[at].lr * shift)
        right.annotate(words, place, color=colours[at], fontweight="bold")
    save(figure, path, dpi=220)


def awake(t, layer):
    """The head first; each layer below it begins later."""
    start = 0.5 * layer.below / layer.last
    return min(max(8 * (t - start), 0.0), 1.0)


def main():
    """Draw them all."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
    readme(folder / "plan.png")
    base = nnlr.layer_decay(0.65) * nnlr.no_weight_decay()
    plan = vit(base)
    save(plan.plot(), folder / "layers.png")
    save(plan.plot_schedule(warm_up_and_cosine, STEPS), folder / "schedule.png")
    locked = nnlr.rule("patch_embed.*", lr_mult=0) * nnlr.rule("blocks.[0-3].*", lr_mult=0)
    other = vit(nnlr.layer_decay(0.75) * nnlr.no_weight_decay() * locked)
    save(plan.diff(other).plot(), folder / "difference.png")
    moving = vit(nnlr.layer_decay(0.8).at(awake))
    save(moving.plot_schedule(CosineAnnealingLR, STEPS, T_max=STEPS), folder / "moving.png")
    save(vit(nnlr.freeze_out()).plot_schedule(None, STEPS), folder / "freeze_out.png")


if __name__ == "__main__":
    main()
