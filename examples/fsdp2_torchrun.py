"""Layer-wise rates over FSDP2: train on some processes, resume on more with another plan.

    torchrun --nproc-per-node 2 examples/fsdp2_torchrun.py one
    torchrun --nproc-per-node 3 examples/fsdp2_torchrun.py two --resume one --decay 0.9

The first call trains a small network and writes a distributed checkpoint to the folder ``one``; the
second goes on from there. The table shows what each step did to each layer, measured on the shards.
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.fsdp import fully_shard
from torch.optim import lr_scheduler

import nnlr

WIDTH, CLASSES, ROWS = 15, 5, 12  # rows of each step's batch, over any number of processes


class Network(nn.Module):
    """An embedding, blocks and a head."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(8, WIDTH)
        layers = [(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(4)]
        self.blocks = nn.ModuleList(nn.Sequential(*block) for block in layers)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs):
        """Logits of each class."""
        hidden = self.embedding(inputs)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(hidden)


def batch(step, device):
    """This process's rows of a step's batch, which is the same on any number of processes."""
    inputs = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(step))
    rows = torch.arange(ROWS).chunk(dist.get_world_size())[dist.get_rank()]
    return inputs[rows].to(device), inputs[rows, :CLASSES].argmax(dim=1).to(device)


def arguments():
    """What torchrun was given behind the script's name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="where the checkpoint goes")
    parser.add_argument("--resume", help="a checkpoint to go on from")
    parser.add_argument("--decay", type=float, default=0.75, help="of rates, by layer")
    parser.add_argument("--steps", type=int, default=5)
    if "WORLD_SIZE" not in os.environ:
        parser.error("start it with torchrun --nproc-per-node 2 examples/fsdp2_torchrun.py ...")
    return parser.parse_args()


def main():
    """Train, save, and resume."""
    args = arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = dist.init_device_mesh(device, (int(os.environ["WORLD_SIZE"]),))
    tell = print if mesh.get_rank() == 0 else (lambda *_: None)

    # 1. Resolve the whole model before anything is sharded; on meta it takes no memory.
    with torch.device("meta"):
        model = Network()
    schemes = nnlr.layer_decay(args.decay), nnlr.no_weight_decay()
    plan = nnlr.resolve(model, *schemes, lr=1e-2, weight_decay=0.05)
    nnlr.agree(plan)  # every process has the same, or all stop here
    tell(plan)

    # 2. Shard and materialise.
    for part in (*model.blocks, model):
        fully_shard(part, mesh=mesh)
    model.to_empty(device=device)

    # 3. Only now the optimizer, and the schedule on it.
    optimizer = plan.optimizer(torch.optim.AdamW)
    schedule = nnlr.schedule(optimizer, lr_scheduler.CosineAnnealingLR, T_max=20, eta_min=1e-3)
    state = {"model": states.get_model_state_dict(model), "schedule": schedule, "step": 0}
    if args.resume:  # whatever plan and number of processes it was saved with
        dcp.load(state, checkpoint_id=args.resume)
        states.set_model_state_dict(model, state["model"])
        report = nnlr.checkpoint.load_dcp(args.resume, optimizer, model)
        tell(f"{len(report.moved)} parameters go on with their state")
    else:  # what would come from a file: the whole weights, on one process only
        torch.manual_seed(0)
        weights = Network().state_dict() if mesh.get_rank() == 0 else {}
        whole = states.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        states.set_model_state_dict(model, weights, options=whole)

    monitor = nnlr.report.Monitor(plan, optimizer, every=1, start=state["step"])
    for step in range(state["step"], state["step"] + args.steps):
        inputs, labels = batch(step, device)
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        nnlr.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        dist.all_reduce(mean := loss.detach() / dist.get_world_size())
        tell(f"step {step}: loss {mean:.6f}, base rate {schedule.base_lr:.6f}")
    tell(monitor)

    state = {"model": states.get_model_state_dict(model), "schedule": schedule, "step": step + 1}
    flat = states.StateDictOptions(flatten_optimizer_state_dict=True)
    state["optimizer"] = states.get_optimizer_state_dict(model, optimizer, options=flat)
    dcp.save(state, checkpoint_id=args.folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
