"""How long resolving takes, against one pass of ``list(model.named_parameters())``.

The model is a mixture-of-experts tree on the meta device: 3,000 and 40,000 tensors. The plan
is complete each time: every row with its trace. Targets: at most 4 passes with 20 rules,
20 rules at most 1.3 times one rule, linear from 3,000 to 40,000 tensors.
"""

import statistics

import torch
from _timing import interleaved, machine, ratios, summary
from torch import nn

import nnlr

ROUNDS = 15
SIZES = {"3,000": (16, 60), "40,000": (48, 272)}  # layers, experts


class Expert(nn.Module):
    """A gated feed-forward expert: three matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 8, bias=False)
        self.up = nn.Linear(4, 8, bias=False)
        self.down = nn.Linear(8, 4, bias=False)
        self.act = nn.SiLU()


class Block(nn.Module):
    """Attention and a layer of experts."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(4)
        self.attn = nn.MultiheadAttention(4, 1)
        self.norm2 = nn.LayerNorm(4)
        self.router = nn.Linear(4, experts, bias=False)
        self.experts = nn.ModuleList(Expert() for _ in range(experts))


def mixture(layers: int, experts: int) -> nn.Module:
    """The whole model, without values."""
    with torch.device("meta"):
        model = nn.Module()
        model.embed = nn.Embedding(10, 4)
        model.layers = nn.ModuleList(Block(experts) for _ in range(layers))
        model.norm = nn.LayerNorm(4)
        model.head = nn.Linear(4, 10)
    return model


def one_rule() -> nnlr.Scheme:
    """A single rule."""
    return nnlr.rule("*.bias", wd_mult=0)


def product_of_20() -> nnlr.Scheme:
    """Twenty rules of every kind, multiplied."""
    scheme = one_rule()
    for layer in range(10):
        scheme = scheme * nnlr.rule(f"layers.{layer}.*", lr_mult=0.9 ** (10 - layer))
    return (
        scheme
        * nnlr.rule("*norm*", wd_mult=0)
        * nnlr.rule(nnlr.role("embedding"), lr_mult=2)
        * nnlr.rule("head.*", lr_mult=3)
        * nnlr.rule("*.experts.*.up.weight", lr_mult=0.3)
        * nnlr.rule("*.attn.*", lr_mult=0.7)
        * nnlr.rule("*.router.weight", lr_mult=0.5)
        * nnlr.rule(nnlr.ndim(max=1), wd_mult=0.5)
        * nnlr.rule("layers.1?.experts.*", lr_mult=0.5)
        * nnlr.rule(nnlr.regex(r"layers\.\d+\.norm1\..*"), lr_mult=1.5)
    )


def list_of_20() -> nnlr.Scheme:
    """Twenty rules of which the first that matches claims a parameter."""
    members = [nnlr.rule(f"layers.{layer}.experts.*", lr_mult=0.9**layer) for layer in range(14)]
    return nnlr.rules(
        [
            nnlr.rule("*.bias", wd_mult=0),
            nnlr.rule("*norm*", wd_mult=0),
            *members,
            nnlr.rule("*.attn.*", lr_mult=0.7),
            nnlr.rule("embed.*", lr_mult=2),
            nnlr.rule("head.*", lr_mult=3),
            nnlr.rule("*"),
        ]
    )


def main() -> None:
    """Print a table for both sizes."""
    print(machine())
    medians = {}
    for label, size in SIZES.items():
        model = mixture(*size)
        schemes = {
            "one rule": one_rule(),
            "product of 20": product_of_20(),
            "list of 20": list_of_20(),
        }
        tasks = {"pass": lambda model=model: list(model.named_parameters())}
        for name, scheme in schemes.items():
            tasks[name] = lambda model=model, scheme=scheme: nnlr.resolve(
                model, scheme, lr=1e-3, weight_decay=0.1
            )
        times = interleaved(tasks, ROUNDS)
        tensors = len(tasks["pass"]())
        print(f"\n{tensors:,} tensors, {len(list(model.modules())):,} modules")
        print(f"  {'task':<15}{'ms: median (spread)':<28}{'ratio to one pass':<26}to one rule")
        for name, values in times.items():
            to_pass = summary(ratios(values, times["pass"]))
            to_one = summary(ratios(values, times["one rule"]))
            print(f"  {name:<15}{summary(values):<28}{to_pass:<26}{to_one}")
        medians[label] = {name: statistics.median(v) / tensors for name, v in times.items()}
    small, large = medians.values()
    growth = {name: large[name] / small[name] for name in large}
    print("\ntime per tensor, 40,000 against 3,000: ", end="")
    print(", ".join(f"{name} {value:.2f}" for name, value in growth.items()))


if __name__ == "__main__":
    main()
