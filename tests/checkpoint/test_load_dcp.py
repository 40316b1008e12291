"""Distributed checkpoints in one process; several are in tests/integrations/test_dcp.py."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard

import nnlr
from nnlr.checkpoint import last_report, load_dcp

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def one_step(net, optimizer):
    optimizer.zero_grad()
    net(torch.ones(2, 3)).square().mean().backward()
    optimizer.step()


def save(path, state):
    """Save in one process, which torch warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.save(state, checkpoint_id=path)


def saved(path, cls=torch.optim.AdamW, options=None, key="optimizer", **settings):
    """A net and its plain optimizer after two steps, saved in a checkpoint."""
    net = network()
    optimizer = cls(net.parameters(), lr=0.1, **settings)
    one_step(net, optimizer)
    one_step(net, optimizer)
    state = get_optimizer_state_dict(net, copy.copy(optimizer), options=options)
    save(path, {"model": net.state_dict(), key: state})
    return net, optimizer


def split(net, cls=torch.optim.AdamW, **settings):
    """An optimizer of one group for each parameter, in another order."""
    groups = [{"params": [pair]} for pair in reversed(list(net.named_parameters()))]
    return cls(groups, lr=0.1, **settings)


@pytest.mark.parametrize("options", [None, FLAT], ids=["nested", "flat"])
@pytest.mark.parametrize("through", [str, lambda path: path, dcp.FileSystemReader])
def test_state_is_found_by_name(tmp_path, options, through):
    """Every tensor reaches its parameter, from a path or a reader, in either layout."""
    net, old = saved(tmp_path, options=options)
    new = split(net)
    report = load_dcp(through(tmp_path), new, net)
    assert "Optimizer state: 4 moved, 0 fresh, 0 unused." == str(report)
    for parameter in net.parameters():
        for key, value in old.state[parameter].items():
            assert torch.equal(value, new.state[parameter][key])
        assert new.state[parameter]["exp_avg"] is not old.state[parameter]["exp_avg"]


def test_a_plan_hears_what_happened(tmp_path):
    """The hook that plan.optimizer installs takes the report, and loads by name afterwards."""
    net, _ = saved(tmp_path)
    plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.5), lr=0.2, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.AdamW)
    with pytest.warns(nnlr.NnlrWarning, match=r"lr is 0\.1 in the checkpoint") as said:
        report = load_dcp(tmp_path, optimizer, net, policy="code")
    assert [__file__] == [each.filename for each in said]
    assert report is last_report(optimizer)
    assert [0.2, 0.1] == [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(optimizer.state_dict())
    assert report is not last_report(optimizer)


def test_rates_of_the_checkpoint(tmp_path):
    """policy="checkpoint" is not undone by the hook, whose policy is the code."""
    net, _ = saved(tmp_path, weight_decay=0.3)
    plan = nnlr.resolve(net, lr=0.2, weight_decay=0.1)
    optimizer = plan.optimizer(torch.optim.AdamW)
    with pytest.warns(nnlr.NnlrWarning, match=r"0\.1 counts \(checkpoint\)"):
        load_dcp(tmp_path, optimizer, net, policy="checkpoint")
    group = optimizer.param_groups[0]
    assert (0.1, 0.3) == (group["lr"], group["weight_decay"])


def test_an_optimizer_that_refuses_is_as_it_was(tmp_path):
    """A failing load leaves nothing behind, not even in the hook."""
    net, _ = saved(tmp_path)
    plan = nnlr.resolve(net, lr=0.1, weight_decay=0.01)
    optimizer = plan.optimizer(torch.optim.AdamW)

    def refuse(*_):
        raise RuntimeError("not today")

    handle = optimizer.register_load_state_dict_pre_hook(refuse)
    with pytest.raises(RuntimeError, match="not today"):
        load_dcp(tmp_path, optimizer, net)
    assert not optimizer.state
    handle.remove()
    other = split(net)
    one_step(net, other)
    optimizer.load_state_dict(other.state_dict())
    assert last_report(optimizer).moved == ("0.weight", "0.bias", "1.weight", "1.bias")


class Odd(torch.optim.Optimizer):
    """Keeps state in dictionaries, lists and numbers, and some of no parameter."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        self.state["steps"] = torch.tensor(3.0)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["count"] = 7
                state["inner"] = {"a": torch.full_like(parameter, 2.0)}
                state["past"] = [torch.full_like(parameter, float(n)) for n in (4, 5)]
                state["row"] = torch.full(parameter.shape[:1], 6.0)


def test_odd_state_is_loaded_whole(tmp_path):
    """Dictionaries, lists, numbers and factors within a state, as deep as they go."""
    net = network()
    old = Odd(net.named_parameters(), 0.1)
    old.step()
    names = [name for name, _ in net.named_parameters()]
    state = {
        "state": {
            **dict(zip(names, map(old.state.get, net.parameters()), strict=True)),
            "steps": old.state["steps"],
        },
        "param_groups": [{"lr": 0.1, "params": names}],
    }
    save(tmp_path, {"app": {"optim": state}})
    new = split(net, Odd)
    load_dcp(tmp_path, new, net, key="app.optim")
    assert torch.equal(torch.tensor(3.0), new.state["steps"])
    for parameter in net.parameters():
        got = new.state[parameter]
        assert 7 == got["count"]
        assert torch.equal(torch.full_like(parameter, 2.0), got["inner"]["a"])
        assert torch.equal(torch.full_like(parameter, 5.0), got["past"][1])
        assert torch.equal(torch.full(parameter.shape[:1], 6.0), got["row"])


def test_an_optimizer_without_state(tmp_path):
    """SGD without momentum keeps nothing, and nothing is missed."""
    net, _ = saved(tmp_path, torch.optim.SGD)
    report = load_dcp(tmp_path, split(net, torch.optim.SGD), net)
    assert 4 == len(report.moved)


def test_the_part_is_named_where_there_are_several(tmp_path):
    """Two optimizers in one checkpoint: key= says which, and the error says which there are."""
    net, generator = network(), None
    parts = {}
    for key, lr in (("generator", 0.1), ("critic", 0.2)):
        optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=lr)
        one_step(net, optimizer)
        parts[key] = get_optimizer_state_dict(net, optimizer)
        generator = generator or optimizer
    save(tmp_path, parts)
    new = split(net, torch.optim.SGD, momentum=0.1)
    with pytest.raises(
        nnlr.ConfigError,
        match="no state of an optimizer that is the only one; it has 'generator', 'critic'",
    ):
        load_dcp(tmp_path, new, net)
    with pytest.raises(nnlr.ConfigError, match="no state of an optimizer under 'disc'"):
        load_dcp(tmp_path, new, net, key="disc")
    load_dcp(tmp_path, new, net, key="generator")
    for parameter in net.parameters():
        assert torch.equal(
            generator.state[parameter]["momentum_buffer"],
            new.state[parameter]["momentum_buffer"],
        )


def test_a_checkpoint_of_weights_only(tmp_path):
    """It has no optimizer, and is said so."""
    net = network()
    save(tmp_path, {"model": net.state_dict()})
    with pytest.raises(nnlr.ConfigError, match="that is the only one; it has none"):
        load_dcp(tmp_path, split(net), net)


def test_other_stages_are_passed_over(tmp_path):
    """partial=True takes what the module has and reports nothing else."""
    net, old = saved(tmp_path)
    stage = nn.ModuleDict({"1": net[1]})
    new = split(stage)
    with pytest.warns(nnlr.NnlrWarning, match=r"of that name: 0.weight, 0.bias"):
        load_dcp(tmp_path, new, stage)
    report = load_dcp(tmp_path, new, stage, partial=True)
    assert ({"1.weight", "1.bias"}, {}) == (set(report.moved), report.unused)
    weight = net[1].weight
    assert torch.equal(old.state[weight]["exp_avg"], new.state[weight]["exp_avg"])


@pytest.fixture
def one_process():
    """A process group of one."""
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("needs gloo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_factors_of_shards_are_whole(tmp_path, one_process):
    """State of a shard's shape is sharded like it, and any other is on every process."""
    net = network()
    old = Odd(net.named_parameters(), 0.1)
    old.step()
    del old.state["steps"]
    save(tmp_path, {"optimizer": get_optimizer_state_dict(net, old)})
    fully_shard(net)
    new = split(net, Odd)
    load_dcp(tmp_path, new, net)
    for parameter in net.parameters():
        got = new.state[parameter]
        inner, row = got["inner"]["a"], got["row"]
        assert (parameter.placements, (Shard(0),)) == (
            inner.placements,
            inner.placements,
        )
        assert row.placements == ((Shard(0),) if parameter.ndim == 1 else (Replicate(),))
        assert torch.equal(torch.full(parameter.shape, 2.0), inner.full_tensor())
        assert torch.equal(torch.full(parameter.shape[:1], 6.0), row.full_tensor())


def test_arguments_are_checked(tmp_path):
    """What is no optimizer, no model or no policy, and a model that is not there yet."""
    net, _ = saved(tmp_path)
    with pytest.raises(nnlr.NnlrError, match="load_dcp needs a torch optimizer"):
        load_dcp(tmp_path, net, net)
    with pytest.raises(nnlr.NnlrError, match="load_dcp needs the model, got 'net'"):
        load_dcp(tmp_path, split(net), "net")
    with pytest.raises(nnlr.NnlrError, match="policy must be one of"):
        load_dcp(tmp_path, split(net), net, policy="mine")
    with torch.device("meta"):
        ghost = network()
    with pytest.raises(nnlr.ConfigError, match="The model is on the meta device"):
        load_dcp(tmp_path, split(ghost), ghost)
