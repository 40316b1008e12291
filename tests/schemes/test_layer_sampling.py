"""layer_sampling: which blocks are trained when, what that saves, and resuming in a period."""

import io
from collections import Counter
from itertools import combinations, pairwise

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import NnlrError
from nnlr.testing import SchemeLaws
from tests.helpers import same_weights

BLOCKS = {f"{at}.*": at - 1 for at in range(1, 7)}
BY_NUMBER = nnlr.depth.by_function(lambda param: int(param.name.split(".")[0]))


@pytest.mark.no_cover
class TestLayerSamplingLaws(SchemeLaws):
    """The laws; the runs in them end in the second period, or later."""

    def schemes(self):
        return [nnlr.layer_sampling(1, 3, indexer=BY_NUMBER)]


def make(optimizer=torch.optim.AdamW, *schemes, width=4, **settings):
    """An embedding, six blocks and a head, attached."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(6)]
    net = nn.Sequential(nn.Linear(2, width), *blocks, nn.Linear(width, 1))
    scheme = nnlr.layer_sampling(**{"indexer": BLOCKS, **settings})
    plan = nnlr.resolve(net, scheme, *schemes, lr=0.01, weight_decay=0.1)
    optimizer = plan.optimizer(optimizer)
    return net, optimizer, nnlr.attach(optimizer, plan)


def train(net, optimizer, attached, steps):
    """Some steps, on data that depend on the step."""
    for _ in range(steps):
        torch.manual_seed(attached.progress.step)
        optimizer.zero_grad()
        inputs = torch.randn(8, 2)
        (net(inputs) - inputs.prod(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def trained(attached):
    """The numbers of the blocks that are trained now."""
    return tuple(at for at, unit in enumerate(attached.units) if unit.mult)


def periods(count, **settings):
    """The blocks of some periods of one step."""
    _, optimizer, attached = make(torch.optim.SGD, every=1, **settings)
    chosen = []
    for _ in range(count):
        chosen.append(trained(attached))
        optimizer.step()
    return chosen


@pytest.mark.no_cover
def test_random_is_uniform_without_replacement():
    """Of 600 periods each block is in a third, each pair in a fifteenth, and none is like the last.

    Five standard deviations are allowed; the draw is fixed by its seed.
    """
    chosen = periods(600)
    assert {2} == {len(blocks) for blocks in chosen}
    each = Counter(block for blocks in chosen for block in blocks)
    assert all(abs(each[block] - 200) < 5 * (600 * 2 / 9) ** 0.5 for block in range(6))
    pairs = Counter(chosen)
    assert all(
        abs(pairs[pair] - 40) < 5 * (600 * 14 / 225) ** 0.5 for pair in combinations(range(6), 2)
    )
    again = sum(one == two for one, two in pairwise(chosen))
    assert abs(again - 40) < 5 * (600 * 14 / 225) ** 0.5


def test_the_draw_is_a_function_of_seed_and_period():
    """The same whatever else draws random numbers, another for another seed."""
    first = periods(20)
    torch.manual_seed(1)
    assert first == periods(20)
    assert first != periods(20, seed=1)


@pytest.mark.parametrize(
    ("order", "active", "expected"),
    [
        ("descending", 1, [(5,), (4,), (3,), (2,), (1,), (0,), (5,)]),
        ("ascending", 1, [(0,), (1,), (2,), (3,), (4,), (5,), (0,)]),
        ("ascending", 4, [(0, 1, 2, 3), (0, 1, 4, 5), (2, 3, 4, 5), (0, 1, 2, 3)]),
        ([3], 1, [(3,), (3,)]),
        ([5, 0, 2], 2, [(0, 5), (2, 5), (0, 2), (0, 5)]),
    ],
)
def test_blocks_go_round(order, active, expected):
    """As BAdam's orders: from the last or the first, or over the blocks that are named."""
    assert expected == periods(len(expected), order=order, active=active)


@pytest.mark.parametrize("active", [1, 2, 4])
def test_shuffled_has_each_block_in_each_pass(active):
    """No block comes again before all have been, in another order each time."""
    passes = -(-6 // active)
    chosen = periods(8 * passes, order="shuffled", active=active)
    by_pass = [chosen[at : at + passes] for at in range(0, len(chosen), passes)]
    assert all({*range(6)} == {b for blocks in each for b in blocks} for each in by_pass)
    assert len({tuple(each) for each in by_pass}) > 1


def test_a_block_is_trained_for_its_period():
    """For as many steps as every says; what is in no block, always."""
    net, optimizer, attached = make(every=3, active=1, order="ascending")
    for step in range(9):
        before = [param.detach().clone() for param in net.parameters()]
        train(net, optimizer, attached, 1)
        after = [param.detach() for param in net.parameters()]
        moved = {at // 2 for at in range(16) if not torch.equal(before[at], after[at])}
        assert moved == {0, 1 + step // 3, 7}


@pytest.mark.parametrize("kind", [torch.optim.AdamW, nnlr.optim.AdamW], ids=["torch", "nnlr"])
@pytest.mark.parametrize("keep_state", [False, True])
def test_memory_falls(kind, keep_state):
    """Gradients and state are those of what is trained; state of all where it is to be kept."""
    settings = {"every": 2, "order": "ascending", "keep_state": keep_state}
    net, optimizer, attached = make(kind, width=16, **settings)
    train(net, optimizer, attached, 7)  # each block had its turn
    block, rest = 16 * 16 + 16, 3 * 16 + 17
    gradients = sum(p.grad.numel() for p in net.parameters() if p.grad is not None)
    assert gradients == rest + 2 * block
    state = sum(v.numel() for s in optimizer.state.values() for k, v in s.items() if k != "step")
    assert state == 2 * (rest + block * (6 if keep_state else 2))


class Residual(nn.Module):
    """A block that adds to its input."""

    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(x)))


@pytest.mark.full  # 4 s
def test_it_trains_as_well_as_all_at_once():
    """On a toy, two of six blocks at a time come near the loss of all; the head alone does not."""
    losses = {}
    for active in (2, 6, None):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 16), *(Residual(16) for _ in range(6)), nn.Linear(16, 1))
        none = nnlr.freeze("[123456].*") * nnlr.rule("*").at(lambda t: 1.0)
        sampled = nnlr.layer_sampling(active or 2, 10, indexer=BLOCKS)
        plan = nnlr.resolve(net, sampled if active else none, lr=0.01, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.AdamW)
        train(net, optimizer, nnlr.attach(optimizer, plan), 400)
        inputs = torch.randn(500, 2)
        losses[active] = (net(inputs) - inputs.prod(1, keepdim=True)).square().mean().item()
    assert losses[2] < 4 * losses[6]  # 0.060 and 0.026 here
    assert losses[2] < 0.5 * losses[None], losses


@pytest.mark.parametrize("kind", [torch.optim.AdamW, nnlr.optim.AdamW], ids=["torch", "nnlr"])
def test_a_run_resumed_in_a_period_goes_on_to_the_last_bit(kind):
    """Saved after 7 steps of periods of 5: the same blocks are trained, with their state."""
    whole = make(kind, every=5)
    train(*whole, 7)
    file = io.BytesIO()
    torch.save([whole[0].state_dict(), whole[1].state_dict()], file)
    train(*whole, 6)
    resumed = make(kind, every=5)
    file.seek(0)
    for part, state in zip(resumed[:2], torch.load(file), strict=True):
        part.load_state_dict(state)
    train(*resumed, 6)
    assert same_weights(whole[0], resumed[0])
    assert trained(whole[2]) == trained(resumed[2])


def test_what_is_frozen_takes_no_turn():
    """Blocks that another scheme freezes are not among those that are drawn."""
    frozen = nnlr.freeze("[123].*")
    _, optimizer, attached = make(torch.optim.SGD, frozen, every=1, active=1, order="ascending")
    names = []
    for _ in range(4):
        names += [unit.name for unit in attached.units if unit.mult]
        optimizer.step()
    assert ["layer3", "layer4", "layer5", "layer3"] == names
    _, _, attached = make(torch.optim.SGD, frozen, active=5)
    assert trained(attached) == (0, 1, 2)


def test_layers_and_blocks_of_a_real_model():
    """Blocks are those of auto: the rest is trained always, or takes its turn as layers."""
    blocks = [nn.TransformerEncoderLayer(4, 1, 8) for _ in range(3)]
    net = nn.Sequential(nn.Linear(2, 4), *blocks, nn.LayerNorm(4), nn.Linear(4, 1))

    def plan(**settings):
        return nnlr.resolve(net, nnlr.layer_sampling(**settings), lr=1, weight_decay=0)

    names = {row.name.split(".")[0] for row in plan() if not row.moves}
    assert {"0", "4", "5"} == names
    assert all(row.moves for row in plan(of="layers"))
    said = plan(order="shuffled").explain("2.norm1.weight")
    assert (
        "2 of 3 blocks at a time, each once in random order, the next after 20 steps"
        in " ".join(said.split())
    )
    said = plan(order=[0, 2]).explain("2.norm1.weight")
    assert "2 of 3 blocks at a time, of [0, 2], the next after 20 steps" in " ".join(said.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"active": 7}, r"finds 6 blocks in Sequential, and layer_sampling\(active=7.*at least 7"),
        ({"order": [6, 0]}, "at least 7"),
        ({"indexer": {"1.*": 0, "2.*": 1}, "active": 3}, "finds 2 blocks.*or let layers take"),
        ({"indexer": {"1.*": 0, "2.*": 1}, "active": 3, "of": "layers"}, "finds 2 layers.*lower"),
    ],
)
def test_too_few_blocks_are_refused_with_the_ways_out(settings, message):
    """At resolve, with what was found."""
    with pytest.raises(NnlrError, match=message):
        make(torch.optim.SGD, **settings)


def test_the_way_out_works():
    """A mapping of blocks where the model has none that repeat."""
    net = nn.ModuleDict({"stem": nn.Linear(2, 3), "wide": nn.Linear(3, 5), "last": nn.Linear(5, 1)})
    with pytest.raises(NnlrError, match="finds no repeated blocks"):
        nnlr.resolve(net, nnlr.layer_sampling(1), lr=1, weight_decay=0)
    scheme = nnlr.layer_sampling(1, indexer={"stem.*": 0, "wide.*": 1})
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
    assert [row.name for row in plan if not row.moves] == ["last.weight", "last.bias"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"active": 0}, "active must be a whole number >= 1, got 0"),
        ({"every": 1.5}, "every must be a whole number >= 1, got 1.5"),
        ({"order": "desc"}, "order must be one of 'random', .*'descending'"),
        ({"order": []}, r"or a list of different numbers of blocks.*got \[\]"),
        ({"order": [1, 1]}, r"different numbers of blocks.*got \[1, 1\]"),
        ({"order": {0: 1}}, "different numbers of blocks"),
        ({"order": 3}, "different numbers of blocks.*got 3"),
        ({"order": [0, -1]}, r"order\[1\] must be a whole number >= 0"),
        ({"order": [3]}, r"order=\[3\] has 1 block, and active=2"),
        ({"of": "block"}, "of must be one of 'blocks', 'layers'"),
        ({"keep_state": 0}, "keep_state must be True or False"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"indexer": 3}, "indexer must be one of"),
    ],
)
def test_arguments_are_checked_at_the_call(arguments, message):
    """What is wrong is refused where it is written."""
    with pytest.raises(NnlrError, match=message):
        nnlr.layer_sampling(**arguments)


def test_the_repr_is_the_call():
    """Defaults are left out."""
    assert repr(nnlr.layer_sampling()) == "layer_sampling()"
    badam = nnlr.layer_sampling(1, 50, order="descending")
    assert repr(badam) == "layer_sampling(active=1, every=50, order='descending')"


def test_within_a_part_of_a_model():
    """Units that carry the path of the part take their turns as those of the part alone."""
    net = nn.ModuleDict({"part": nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))})
    scheme = nnlr.layer_sampling(1, 1, order=[2], indexer=BY_NUMBER).within("part")
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
    attached = nnlr.attach(plan.optimizer(torch.optim.SGD), plan)
    assert trained(attached) == (2,)
