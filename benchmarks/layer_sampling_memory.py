"""What layer sampling saves in memory, and what it costs in loss.

A language model of eight transformer blocks that has learnt to go on with periodic sequences of
tokens, one period, is trained for another one: all blocks at once; two at a time as LISA, with
state dropped and kept; one at a time as BAdam; and none but embedding and head. Bytes are
those of gradients and of AdamW's state after a step in the last period, in the same process;
losses are means over the last 20 batches, of three seeds.

    python benchmarks/layer_sampling_memory.py      # five minutes
"""

import copy
import statistics

import torch
from _timing import machine
from torch import Tensor, nn

import nnlr

SEEDS = 3
STEPS = 400
WIDTH, BLOCKS, TOKENS, LENGTH = 64, 8, 16, 24
SCHEMES = {
    "all blocks": None,
    "LISA: 2 of 8, 20 steps": nnlr.layer_sampling(),
    "the same, state kept": nnlr.layer_sampling(keep_state=True),
    "BAdam: 1 of 8, 50 steps": nnlr.layer_sampling(1, 50, order="descending"),
    "no block": nnlr.freeze("blocks.*"),
}


class Model(nn.Module):
    """A small language model."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        settings = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, **settings) for _ in range(BLOCKS)
        )
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return self.head(self.norm(x))


def loss_of(model: nn.Module, period: int) -> Tensor:
    """The loss on a batch of sequences of this period, where they can be known."""
    begin = torch.randint(TOKENS, (32, period))
    tokens = begin.repeat(1, LENGTH // period + 2)[:, : LENGTH + 1]
    logits = model(tokens[:, :-1])[:, period:]
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, period + 1 :].flatten())


def train(
    model: nn.Module, scheme: nnlr.Scheme | None, period: int, seed: int
) -> tuple[float, ...]:
    """Train; return the loss, and the bytes of gradients and state."""
    torch.manual_seed(seed)
    plan = nnlr.resolve(model, *([scheme] if scheme else []), lr=1e-3, weight_decay=0.01)
    optimizer = plan.optimizer(torch.optim.AdamW)
    if any(row.moves for row in plan):
        nnlr.attach(optimizer, plan)
    losses = []
    for _ in range(STEPS + 1):  # the last is the first of a period
        optimizer.zero_grad()
        loss = loss_of(model, period)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    state = sum(v.nbytes for s in optimizer.state.values() for v in s.values())
    return statistics.mean(losses[-20:]), gradients, state


def main() -> None:
    """Print bytes, and medians and spreads of losses."""
    print(machine())
    results: dict[str, list[tuple[float, ...]]] = {name: [] for name in SCHEMES}
    before = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = Model()
        train(model, None, 5, seed)
        with torch.no_grad():
            before.append(statistics.mean(loss_of(model, 7).item() for _ in range(20)))
        for name, scheme in SCHEMES.items():
            results[name].append(train(copy.deepcopy(model), scheme, 7, seed))
    weights = sum(p.nbytes for p in model.parameters())
    print(f"weights {weights / 1e6:.2f} MB; loss before {statistics.median(before):.3f}")
    for name, runs in results.items():
        losses, gradients, state = zip(*runs, strict=True)
        print(
            f"{name:25} gradients {gradients[0] / 1e6:.2f} MB, state {state[0] / 1e6:.2f} MB, loss "
            f"{statistics.median(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})"
        )


if __name__ == "__main__":
    main()
