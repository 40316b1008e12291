"""Trainers' integrations compare the plans of two processes; the other one is a thread here."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from torch import nn

import nnlr
from nnlr import _agree as agreement

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)


def scheme(mult):
    return nnlr.rule("weight", lr_mult=mult)


def by_transformers(net, mult):
    pytest.importorskip("transformers")
    factory, settings = nnlr.integrations.transformers.optimizer(
        scheme(mult), cls=torch.optim.SGD, lr=0.1, weight_decay=0
    )
    return factory()(net, **settings)


def by_lightning(net, mult):
    pytest.importorskip("lightning")
    plan = nnlr.resolve(net, scheme(mult), lr=0.1, weight_decay=0)
    return nnlr.integrations.lightning.configure(net, plan, torch.optim.SGD)


@pytest.fixture
def rank_one():
    """A process group of two, and what the second does with its plan."""
    # It registers the backend of that name.
    from torch.testing._internal.distributed import fake_pg  # noqa: F401

    store = dist.HashStore()
    dist.init_process_group("fake", store=store, rank=0, world_size=2)
    plan = nnlr.resolve(nn.Linear(2, 1), scheme(0.5), lr=0.1, weight_decay=0)
    place = dist.distributed_c10d._get_default_store()
    with ThreadPoolExecutor(1) as pool:
        yield lambda: pool.submit(
            agreement.compare, agreement.facts_of(plan), place, 1, [0, 1], 20.0
        )
    dist.destroy_process_group()


@pytest.mark.parametrize("build", [by_transformers, by_lightning])
def test_plans_of_ranks_are_compared(rank_one, build):
    """Equal ones build; another one is an error in both processes."""
    other = rank_one()
    assert build(nn.Linear(2, 1), 0.5)
    assert other.result() is None
    other = rank_one()
    with pytest.raises(nnlr.PlanMismatchError, match=r"0\.025 on rank 0 and 0\.05 on rank 1"):
        build(nn.Linear(2, 1), 0.25)
    assert isinstance(other.exception(), nnlr.PlanMismatchError)


@pytest.mark.parametrize("build", [by_transformers, by_lightning])
def test_shapes_of_fsdp1_are_not_compared(rank_one, build):
    """Each process has its own part of a flat parameter: nobody is waited for."""
    from torch.distributed.fsdp._common_utils import _set_fsdp_flattened

    net = nn.Linear(2, 1)
    for parameter in net.parameters():
        _set_fsdp_flattened(parameter)
    assert build(net, 0.25)
