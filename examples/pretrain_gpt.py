"""Pre-train a small GPT with Muon and AdamW in one optimizer, and with AdamW alone.

    python examples/pretrain_gpt.py

The text is made here: short sentences, sums and words spelt backwards, so that there is something
to learn at every scale. Both runs of a seed see the same batches from the same first weights, and
both follow the same schedule, each at the best base rates of a small search. Prints the plan, and
the loss on text that neither has seen. It takes about a minute.
"""

import argparse
import random
from functools import partial
from itertools import count

import torch
from torch import nn
from torch.nn import functional as F

import nnlr

WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 64, 4, 4, 64, 16

LETTERS = "\n ,.0123456789abcdefghijklmnopqrstuvwxyz"

# Base rates, the best of a small search over 200 steps with two seeds: AdamW alone at 0.003, 0.01,
# 0.02 and 0.04 (all ended between 1.2 and 2.0), Muon at 0.01 and 0.02 beside AdamW at 0.003, 0.01.
ALONE = 0.02
MIXED = {"muon": 0.02, "adamw": 0.01}
DECAY = 0.1

AdamW = partial(torch.optim.AdamW, betas=(0.9, 0.95))


class Block(nn.Module):
    """Attention and a perceptron, each added to what comes in."""

    def __init__(self):
        super().__init__()
        linear = partial(nn.Linear, bias=False)
        self.norm1 = nn.RMSNorm(WIDTH)
        self.query, self.key, self.value = (linear(WIDTH, WIDTH) for _ in range(3))
        self.out = linear(WIDTH, WIDTH)
        self.norm2 = nn.RMSNorm(WIDTH)
        self.up, self.down = linear(WIDTH, 4 * WIDTH), linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        """(batch, time, width) to the same."""
        y = self.norm1(x)
        layers = self.query, self.key, self.value
        heads = [layer(y).unflatten(2, (HEADS, -1)).transpose(1, 2) for layer in layers]
        attended = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Characters and positions, blocks, and a score for each next character."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(len(LETTERS), WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(LETTERS), bias=False)
        for table in (self.tokens, self.positions, self.head):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens):
        """(batch, time) to (batch, time, letters)."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def sentence(rng):
    """One line of text."""
    name, other = rng.sample(["anna", "ben", "carla", "david", "emma", "frank"], 2)
    thing = rng.choice(["apple", "stone", "letter", "button", "feather"])
    one, two = rng.randint(1, 9), rng.randint(1, 9)
    return rng.choice(
        [
            f"{name} has {one} {thing}s and {other} has {two}, together {one + two}.",
            f"{name} gives {other} a {thing}, and {other} thanks {name}.",
            f"{thing} read backwards is {thing[::-1]}.",
            f"{one} times {two} is {one * two}.",
        ]
    )


def text(seed, lines):
    """So many lines of made-up text, as numbers of letters."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    written = "\n".join(sentence(rng) for _ in range(lines))
    return torch.tensor([LETTERS.index(letter) for letter in written])


def batches(tokens, seed):
    """Windows of the text at random places, without end."""
    places = torch.Generator().manual_seed(seed)
    for _ in count():
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH,), generator=places)
        yield torch.stack([tokens[start : start + CONTEXT + 1] for start in starts])


def loss_of(model, batch):
    """Nats per character."""
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def mixed(model):
    """Muon for the matrices of the blocks, AdamW for the rest: plan and optimizer."""
    scheme = nnlr.route("muon", "adamw") * nnlr.no_weight_decay()
    plan = nnlr.resolve(model, scheme, lr=MIXED, weight_decay=DECAY)
    return plan, plan.optimizer({"muon": torch.optim.Muon, "adamw": AdamW})


def alone(model):
    """AdamW for all: plan and optimizer."""
    plan = nnlr.resolve(model, nnlr.no_weight_decay(), lr=ALONE, weight_decay=DECAY)
    return plan, plan.optimizer(AdamW)


def train(recipe, seed, steps):
    """Losses on unseen text, at ten times of the training."""
    torch.manual_seed(seed)
    model = GPT()
    _, optimizer = recipe(model)
    warm = max(1, steps // 10)

    def rise_and_fall(step):
        return min((step + 1) / warm, (steps - step) / (steps - warm))

    scheduler = nnlr.schedule(optimizer, torch.optim.lr_scheduler.LambdaLR, lr_lambda=rise_and_fall)
    source, losses = batches(text(seed, 5000), seed), []
    unseen = text(seed + 1000, 1000)
    for step in range(1, steps + 1):
        loss_of(model, next(source)).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        if step % (steps // 10) == 0:
            test = batches(unseen, seed=0)
            with torch.no_grad():
                losses.append(sum(loss_of(model, next(test)).item() for _ in range(8)) / 8)
    return losses


def main():
    """Train each seed in both ways, and print the losses."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="of training, at least 10")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine
    print(mixed(GPT())[0])
    print(f"\nnats per character on unseen text, {args.seeds} seeds (lowest to highest)")
    print("step   Muon and AdamW          AdamW alone")
    runs = [[train(how, seed, args.steps) for seed in range(args.seeds)] for how in (mixed, alone)]
    for at in range(10):
        cells = []
        for run in runs:
            losses = [one[at] for one in run]
            mean = sum(losses) / len(losses)
            cells.append(f"{mean:.3f} ({min(losses):.3f} to {max(losses):.3f})")
        print(f"{(at + 1) * (args.steps // 10):4}   {cells[0]}  {cells[1]}")


if __name__ == "__main__":
    main()
