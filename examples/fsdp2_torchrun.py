"""Layer-wise rates over FSDP2: train on some processes, resume on more with another plan.

    torchrun --nproc-per-node 2 examples/fsdp2_torchrun.py one
    torchrun --nproc-per-node 3 examples/fsdp2_torchrun.py two --resume one --decay 0.9

The first call fine-tunes a small network and writes a distributed checkpoint to the folder
``one``; the second goes on from there. On CPUs it talks over gloo, on GPUs over nccl.
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

import nnlr

WIDTH, CLASSES = 15, 5
ROWS = 12  # of each step's batch, over any number of processes


def block() -> nn.Module:
    """A block of the network."""
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Tanh())


class Network(nn.Module):
    """An embedding, blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, WIDTH)
        self.blocks = nn.ModuleList(block() for _ in range(4))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of each class."""
        hidden = self.embedding(inputs)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(hidden)


def batch(step: int, device: str) -> tuple[Tensor, Tensor]:
    """This process's rows of a step's batch, which is the same on any number of processes."""
    source = torch.Generator().manual_seed(step)
    inputs = torch.randn(ROWS, 8, generator=source)
    labels = inputs[:, :CLASSES].argmax(dim=1)
    rank, world = dist.get_rank(), dist.get_world_size()
    return inputs.chunk(world)[rank].to(device), labels.chunk(world)[rank].to(device)


def pretrained() -> dict[str, Tensor]:
    """What would come from a file: the whole weights, on one process only."""
    torch.manual_seed(0)
    return Network().state_dict() if dist.get_rank() == 0 else {}


def resume(
    folder: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
) -> int:
    """Load everything, whatever plan and number of processes it was saved with."""
    state = {"model": get_model_state_dict(model), "schedule": schedule, "step": 0}
    dcp.load(state, checkpoint_id=folder)
    set_model_state_dict(model, state["model"])
    report = nnlr.checkpoint.load_dcp(folder, optimizer, model)
    if dist.get_rank() == 0:
        print(f"{len(report.moved)} parameters go on with their state")
    return state["step"]


def main() -> None:
    """Train, save, and resume."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="where the checkpoint goes")
    parser.add_argument("--resume", help="a checkpoint to go on from")
    parser.add_argument("--decay", type=float, default=0.75, help="of rates, by layer")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    if "WORLD_SIZE" not in os.environ:
        parser.error("start it with torchrun --nproc-per-node 2 examples/fsdp2_torchrun.py ...")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (int(os.environ["WORLD_SIZE"]),))

    # 1. Resolve the whole model before anything is sharded; on meta it takes no memory.
    with torch.device("meta"):
        model = Network()
    scheme = nnlr.layer_decay(args.decay) * nnlr.no_weight_decay()
    plan = nnlr.resolve(model, scheme, lr=1e-2, weight_decay=0.05)
    nnlr.agree(plan)  # every process has the same, or all stop here
    if dist.get_rank() == 0:
        print(plan)

    # 2. Shard and materialise.
    for part in (*model.blocks, model):
        fully_shard(part, mesh=mesh)
    model.to_empty(device=device)

    # 3. Only now the optimizer, and the schedule on it.
    optimizer = plan.optimizer(torch.optim.AdamW)
    schedule = nnlr.schedule(optimizer, CosineAnnealingLR, T_max=20, eta_min=1e-3)
    start = 0
    if args.resume:
        start = resume(args.resume, model, optimizer, schedule)
    else:
        whole = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(model, pretrained(), options=whole)

    for step in range(start, start + args.steps):
        inputs, labels = batch(step, device)
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        nnlr.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        if mesh.get_rank() == 0:
            print(f"step {step}: loss {mean:.6f}, base rate {schedule.base_lr:.6f}")

    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    state = {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=flat),
        "schedule": schedule,
        "step": start + args.steps,
    }
    dcp.save(state, checkpoint_id=args.folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
