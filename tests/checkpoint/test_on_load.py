"""Optimizer state by name: any grouping into any other, and the run goes on as one."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn

from nnlr.checkpoint import fit_state, on_load
from tests.helpers import same_weights

LR, DECAY = 0.05, 0.02


class Net(nn.Module):
    """Two matrices and what goes with them, all named."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.head(self.norm(self.body(inputs)))


def train(model, optimizer, batches):
    """Steps on batches known by their numbers."""
    for number in batches:
        source = torch.Generator().manual_seed(number)
        optimizer.zero_grad()
        model(torch.randn(8, 3, generator=source)).square().mean().backward()
        optimizer.step()


def matrices(model):
    return [(name, p) for name, p in model.named_parameters() if p.ndim == 2]


# Each gives a list of lists of (name, tensor); the rates are the same in all groups.
GROUPINGS = {
    "one": lambda pairs: [pairs],
    "each": lambda pairs: [[pair] for pair in pairs],
    "each_backwards": lambda pairs: [[pair] for pair in reversed(pairs)],
    "backwards": lambda pairs: [pairs[::-1]],
    "decay_or_not": lambda pairs: [
        [pair for pair in pairs if pair[1].ndim == 2],
        [pair for pair in pairs if pair[1].ndim != 2],
    ],
    "no_decay_first": lambda pairs: [
        [pair for pair in pairs if pair[1].ndim != 2],
        [pair for pair in pairs if pair[1].ndim == 2],
    ],
    "by_layer": lambda pairs: [
        list(group) for _, group in itertools.groupby(pairs, lambda p: p[0].partition(".")[0])
    ],
    "halves": lambda pairs: [pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]],
    "halves_swapped": lambda pairs: [
        pairs[len(pairs) // 2 :],
        pairs[: len(pairs) // 2],
    ],
    "interleaved": lambda pairs: [pairs[::2], pairs[1::2]],
    "rotated": lambda pairs: [pairs[1:] + pairs[:1]],
    "shuffled": lambda pairs: [
        [pairs[at] for at in torch.randperm(len(pairs), generator=_seed()).tolist()]
    ],
}


def _seed():
    return torch.Generator().manual_seed(3)


def grouped(cls, pairs, grouping, **settings):
    groups = [group for group in GROUPINGS[grouping](pairs) if group]
    return cls([{"params": group} for group in groups], lr=LR, **settings)


OPTIMIZERS = {
    "AdamW": (torch.optim.AdamW, {}),
    "AdamW_amsgrad_foreach": (torch.optim.AdamW, {"amsgrad": True, "foreach": True}),
    "AdamW_fused": (torch.optim.AdamW, {"fused": True}),
    "SGD_momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "Adafactor": (torch.optim.Adafactor, {}),
    "RMSprop": (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
}
if hasattr(torch.optim, "Muon"):
    OPTIMIZERS["Muon"] = (torch.optim.Muon, {})

ORDER = list(GROUPINGS)
# Each into another; with make full, into a second one too.
PAIRS = [
    pytest.param(
        ORDER[at],
        ORDER[(at + ahead) % len(ORDER)],
        marks=[pytest.mark.full] if ahead > 1 else [],
    )
    for ahead in (1, 5)
    for at in range(len(ORDER))
]


def pairs_for(optimizer, model):
    return matrices(model) if optimizer == "Muon" else list(model.named_parameters())


def moved_into(saved, optimizer, **kwargs):
    """Save to a file and load from it, as a run that was interrupted does."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    state, report = fit_state(torch.load(file, weights_only=True), optimizer, **kwargs)
    optimizer.load_state_dict(state)
    return report


@pytest.mark.usefixtures("one_thread")
class TestContinuation:
    @pytest.mark.parametrize(("before", "after"), PAIRS)
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_other_groups_continue_bit_for_bit(self, name, before, after):
        """Three steps, other groups, three steps: the weights of the uninterrupted run."""
        cls, settings = OPTIMIZERS[name]
        whole = Net()
        halted = copy.deepcopy(whole)
        train(whole, grouped(cls, pairs_for(name, whole), before, **settings), range(6))
        first = grouped(cls, pairs_for(name, halted), before, **settings)
        train(halted, first, range(3))
        second = grouped(cls, pairs_for(name, halted), after, **settings)
        report = moved_into(first.state_dict(), second)
        train(halted, second, range(3, 6))
        assert same_weights(whole, halted)
        assert (len(pairs_for(name, halted)), (), {}) == (
            len(report.moved),
            report.fresh,
            report.unused,
        )

    @pytest.mark.parametrize("by_name", [False, True])
    def test_torch_alone_swaps_state_in_silence(self, by_name):
        """What this is for: with the names in plain sight, torch goes by position."""
        net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        pairs = list(net.named_parameters())
        old = torch.optim.SGD(pairs, lr=LR, momentum=0.9)
        for number, (_, tensor) in enumerate(pairs):
            tensor.grad = torch.full_like(tensor, number)
        old.step()
        new = torch.optim.SGD(pairs[2:] + pairs[:2], lr=LR, momentum=0.9)
        if by_name:
            on_load(new)
        new.load_state_dict(old.state_dict())
        held = [new.state[p]["momentum_buffer"].mean().item() for _, p in pairs]
        assert ([0, 1, 2, 3] if by_name else [2, 3, 0, 1]) == held
