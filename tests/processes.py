"""Run scenarios in real processes that communicate over gloo, and collect their errors."""

import faulthandler
import inspect
import os
import sys
import traceback
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from nnlr import NnlrWarning

# Processes are forked from one that has imported these, once for all tests; it has a single
# thread and no process group, so that nothing is shared by the fork but code.
multiprocessing.set_forkserver_preload(
    [
        "pytest",
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.fsdp",
        "torch.distributed.tensor.parallel",
        "torch.nn.parallel",
        "nnlr._plan",
    ]
)


def outcomes(scenarios, world, folder, seconds=200):
    """Return for each scenario the traceback of each process, "" where all is well.

    Args:
        scenarios: Functions of a module, called in turn in every process, with the folder
            if they take an argument. A barrier stands between them.
        world: Number of processes.
        folder: Where they find each other and write.
        seconds: After so long a process writes its stacks and ends.

    Returns:
        For each scenario's name one text per process.
    """
    folder.mkdir(exist_ok=True)
    died = ""
    try:
        multiprocessing.start_processes(
            _process,
            args=(world, folder, scenarios, seconds),
            nprocs=world,
            start_method="forkserver",
        )
    except (
        multiprocessing.ProcessExitedException,
        multiprocessing.ProcessRaisedException,
    ) as error:
        stacks = [path.read_text() for path in sorted(folder.glob("stacks.*"))]
        died = "\n".join(["the processes did not reach the end", str(error), *stacks])
    return {
        scenario.__name__: [
            path.read_text() if path.exists() else died
            for path in (folder / f"{scenario.__name__}.{n}" for n in range(world))
        ]
        for scenario in scenarios
    }


def said_by(scenarios, world, *, full):
    """Return a fixture with the outcomes in all processes, run once for each number of them.

    Args:
        scenarios: See :func:`outcomes`.
        world: Number of processes.
        full: Another number, for the long tests.
    """
    worlds = [
        pytest.param(world, id=f"world{world}"),
        pytest.param(full, id=f"world{full}", marks=pytest.mark.full),
    ]

    @pytest.fixture(scope="module", params=worlds)
    def said(request, tmp_path_factory):
        folder = tmp_path_factory.mktemp(f"world{request.param}")
        return outcomes(scenarios, request.param, folder)

    return said


def tell(said):
    """Fail with the whole traceback of every process that has one."""
    failures = [f"rank {n}: {text}" for n, text in enumerate(said) if text]
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)


def _process(rank, world, folder, scenarios, seconds):
    """Run every scenario in turn in one process; write the error of each to a file."""
    stacks = (folder / f"stacks.{rank}").open("w")
    faulthandler.dump_traceback_later(seconds, exit=True, file=stacks)
    warnings.simplefilter("error", NnlrWarning)
    torch.set_num_threads(1)
    # What torchrun would set, and trainers read; the port is not opened.
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        GROUP_RANK="0",
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="29500",
        TORCHELASTIC_RUN_ID="nnlr",
    )
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=seconds / 3),
    )
    for scenario in scenarios:
        try:
            scenario(*[folder] * len(inspect.signature(scenario).parameters))
            said = ""
        except BaseException:  # noqa: BLE001 - told in the test
            # Torch's own frames are many; the scenario's are the first and the reason the last.
            said = traceback.format_exc(limit=-12)
        (folder / f"{scenario.__name__}.{rank}").write_text(said)
        dist.barrier()
    if "coverage" in sys.modules:
        from coverage import Coverage

        if current := Coverage.current():
            current.stop()
            current.save()
    # Threads of gloo sometimes abort a process that ends in the ordinary way.
    os._exit(0)
