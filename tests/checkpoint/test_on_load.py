"""Optimizer state by name: any grouping into any other, and the run goes on as one."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn

import nnlr
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
    @pytest.mark.no_cover
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


class TestDamagedStates:
    """A state that is not built like one is refused by the place that is wrong."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: {1: s}, "'state' and 'param_groups', got a dict"),
            (lambda s: [s], "'state' and 'param_groups', got a list"),
            (lambda s: {**s, "state": 3}, "'state' must be a dictionary, got 3"),
            (lambda s: {**s, "param_groups": {}}, "'param_groups' must be a list of dictionaries"),
            (lambda s: {**s, "param_groups": [3]}, r"param_groups\[0\] must be a dictionary of"),
            (
                lambda s: {**s, "param_groups": [{1: 2}]},
                r"param_groups\[0\] must be a dictionary of",
            ),
            (lambda s: _with(s, params=None), r"\['params'\] must be a list of positions or names"),
            (
                lambda s: _with(s, params=[True, 1]),
                r"\['params'\] must be a list of positions or n",
            ),
            (lambda s: _with(s, param_names=[3]), r"\['param_names'\] must be a list of names"),
            (lambda s: _with(s, nnlr="x"), r"\['nnlr'\] must be what nnlr noted there, got 'x'"),
            (lambda s: _with(s, nnlr={"classes": 3}), r"\['nnlr'\] must be what nnlr noted"),
        ],
        ids=range(11),
    )
    def test_the_place_is_named(self, change, message):
        """By loading and by fitting; the optimizer stays as it was."""
        net = torch.nn.Linear(2, 1)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        state = change(optimizer.state_dict())
        before = copy.deepcopy(optimizer.state_dict())
        with pytest.raises(nnlr.NnlrError, match=message):
            optimizer.load_state_dict(state)
        assert str(before) == str(optimizer.state_dict())
        if isinstance(state, dict):
            with pytest.raises(nnlr.NnlrError, match=message):
                nnlr.checkpoint.fit_state(state, optimizer)

    def test_after_the_hook_is_gone_torch_is_asked(self):
        """What it takes then is torch's affair."""
        net = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(net.named_parameters(), lr=0.1)
        nnlr.checkpoint.on_load(optimizer).remove()
        with pytest.raises(AttributeError, match="has no attribute 'copy'"):
            optimizer.load_state_dict(3)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                lambda o, n: nnlr.checkpoint.on_load(o, saved_names="ab"),
                "saved_names must be a list",
            ),
            (
                lambda o, n: nnlr.checkpoint.fit_state(o.state_dict(), o, saved_names={"a"}),
                "saved_n",
            ),
            (
                lambda o, n: nnlr.checkpoint.fit_named_state(3, o, n),
                "state_dict must be what get_opt",
            ),
            (lambda o, n: nnlr.checkpoint.fit_named_state({1: 2}, o, n), "state_dict must be what"),
            (
                lambda o, n: nnlr.checkpoint.fit_named_state({}, o, n, full=1),
                "full must be True or",
            ),
            (
                lambda o, n: nnlr.checkpoint.installed(n),
                "installed needs a torch optimizer, got Lin",
            ),
            (lambda o, n: nnlr.checkpoint.last_report(None), "last_report needs a torch optimizer"),
            (
                lambda o, n: nnlr.checkpoint.load_dcp(3, o, n),
                "checkpoint must be a directory or a r",
            ),
            (
                lambda o, n: nnlr.checkpoint.load_dcp("", o, n),
                "checkpoint must be a directory or a r",
            ),
            (
                lambda o, n: nnlr.checkpoint.load_dcp("x", o, n, key=3),
                "key must be a string such as",
            ),
            (
                lambda o, n: nnlr.checkpoint.load_dcp("x", o, n, partial=1),
                "partial must be True or",
            ),
        ],
        ids=range(11),
    )
    def test_other_arguments_are_named(self, call, message):
        """Where they are received."""
        net = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(net.named_parameters(), lr=0.1)
        with pytest.raises(nnlr.NnlrError, match=message):
            call(optimizer, net)


def _with(state, **settings):
    """A state whose first group has other settings."""
    first, *others = state["param_groups"]
    return {**state, "param_groups": [{**first, **settings}, *others]}
