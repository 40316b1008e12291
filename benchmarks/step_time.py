"""How long an optimizer's step takes: many rates, one rate, and what memory allows.

Parameters shaped like a ViT of depth 12 (152 tensors) at four widths, and many small tensors
as experts and adapters have. ``28`` groups are 14 layers times with and without decay;
``all`` gives every tensor a rate of its own. Every optimizer steps the same parameters and
gradients, each with its own state; they take turns within a round.

    python benchmarks/step_time.py            # all of it, 15 minutes on 2 idle cores
    python benchmarks/step_time.py --quick    # two small models, AdamW, half a minute
    python benchmarks/step_time.py --numba    # ours with nnlr.optim.use_numba()
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec

import torch
from _timing import interleaved, machine, ratios, summary
from torch import Tensor, nn

import nnlr

LAYERS = 14
SIZES = {"0.7M": 64, "5.7M": 192, "22M": 384, "86M": 768}
SMALL = {"1,000 tensors": (1_000, 84), "10,000 tensors": (10_000, 44)}
QUICK = ("0.7M", "1,000 tensors")
# Without peers and foreach: they take seconds a step, or 0.7 GB of state each.
ALONE = ("86M", "10,000 tensors")
BASE = "torch fused, 1 group"
OURS, CHANGING = "nnlr", "nnlr, all rates changing"
SETTINGS = {
    "AdamW": {"lr": 1e-6, "weight_decay": 0.05},
    "SGD": {"lr": 1e-6, "weight_decay": 0.05, "momentum": 0.9},
}

Group = dict[str, object]
Task = Callable[[], object]


def vit(width: int) -> Iterator[tuple[int, nn.Parameter]]:
    """The tensors of a ViT with 1,000 classes, each with its layer."""

    def tensors(layer: int, *shapes: tuple[int, ...]) -> Iterator:
        for shape in shapes:
            yield layer, nn.Parameter(torch.randn(shape))

    yield from tensors(0, (1, 1, width), (1, 197, width), (width, 3, 16, 16), (width,))
    for block in range(1, 13):
        yield from tensors(block, (width,), (width,))
        yield from tensors(block, (3 * width, width), (3 * width,))
        yield from tensors(block, (width, width), (width,))
        yield from tensors(block, (width,), (width,))
        yield from tensors(block, (4 * width, width), (4 * width,))
        yield from tensors(block, (width, 4 * width), (width,))
    yield from tensors(13, (width,), (width,), (1000, width), (1000,))


def parameters(model: str) -> list[tuple[int, nn.Parameter]]:
    """Each tensor with its layer; all have gradients."""
    torch.manual_seed(0)
    if model in SIZES:
        found = list(vit(SIZES[model]))
    else:
        number, side = SMALL[model]
        found = [
            (at * LAYERS // number, nn.Parameter(torch.randn(side, side))) for at in range(number)
        ]
        for _, param in found[::2]:
            param.data = param.data.flatten()  # half of them without decay
    for _, param in found:
        param.grad = torch.randn_like(param)
    return found


def grouped(
    params: list[tuple[int, nn.Parameter]], groups: str, settings: Mapping[str, float]
) -> list[Group]:
    """Parameter groups of 28 rates, or of one rate for each tensor."""
    made: dict[object, Group] = {}
    for at, (layer, param) in enumerate(params):
        decay = settings["weight_decay"] * (param.ndim > 1)
        rate = settings["lr"] * 0.75 ** (LAYERS - 1 - layer)
        key: object = (layer, decay)
        if groups == "all":
            key, rate = at, rate * (1 + at * 1e-6)
        made.setdefault(key, {"params": [], "lr": rate, "weight_decay": decay})
        made[key]["params"].append(param)
    return list(made.values())


def limit(kind: str, params: list[tuple[int, nn.Parameter]]) -> Task:
    """The fused kernel on one tensor of as many elements: what memory allows."""
    total = sum(param.numel() for _, param in params)
    whole = nn.Parameter(torch.randn(total))
    whole.grad = torch.randn(total)
    return getattr(torch.optim, kind)([whole], **SETTINGS[kind], fused=True).step


def tasks_of(kind: str, model: str, groups: str) -> dict[str, Task]:
    """One step of each optimizer."""
    params = parameters(model)
    settings = SETTINGS[kind]
    torchs, ours = getattr(torch.optim, kind), getattr(nnlr.optim, kind)

    def many() -> list[Group]:
        return grouped(params, groups, settings)

    changing = ours(many(), **settings)

    def change_and_step() -> None:
        for group in changing.param_groups:
            group["lr"] *= 0.999999
        changing.step()

    tasks: dict[str, Task] = {
        "limit": limit(kind, params),
        BASE: torchs([param for _, param in params], **settings, fused=True).step,
        "torch fused": torchs(many(), **settings, fused=True).step,
        OURS: ours(many(), **settings).step,
        CHANGING: change_and_step,
        "torch default": torchs(many(), **settings).step,
    }
    if model not in ALONE:
        tasks["torch foreach"] = torchs(many(), **settings, foreach=True).step
        tasks |= peers(kind, many, settings)
    return tasks


def peers(
    kind: str, many: Callable[[], list[Group]], settings: Mapping[str, float]
) -> dict[str, Task]:
    """torch-optimi, if it is there."""
    if find_spec("optimi") is None:
        return {}
    import optimi

    made = getattr(optimi, kind)
    return {
        "optimi foreach": made(many(), **settings, foreach=True).step,
        "optimi loop": made(many(), **settings, foreach=False).step,
    }


def measure(kind: str, model: str, groups: str, seconds: float) -> None:
    """Print the table of one model."""
    tasks = tasks_of(kind, model, groups)
    start = time.perf_counter()
    for task in tasks.values():
        task()
    once = time.perf_counter() - start
    rounds = max(5, min(101, int(seconds / once)))
    times = interleaved(tasks, rounds)
    print(f"\n{kind}, {model}, {groups} groups: {rounds} rounds")
    print(f"  {'':<26}{'ms: median (spread)':<28}ratio to {BASE}")
    for name, values in times.items():
        ratio = ratios(values, times[BASE])
        print(f"  {name:<26}{summary(values):<28}{summary(ratio)}")
    steady = statistics.median(ratios(times[CHANGING], times[OURS]))
    print(f"  rates changing / constant: {steady:.3f}")


def storage(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in the state, shared storages once."""
    held = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    }
    return sum(held.values())


def memory(kind: str, model: str) -> None:
    """Print what the state takes, and the objects around it."""
    params = parameters(model)
    for name, cls in (
        ("torch fused", getattr(torch.optim, kind)),
        (OURS, getattr(nnlr.optim, kind)),
    ):
        groups = grouped(params, "28", SETTINGS[kind])
        tracemalloc.start()
        optimizer = cls(groups, **SETTINGS[kind], fused=True)
        for _ in range(3):
            optimizer.step()
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(
            f"  {kind}, {model}, {name:<12} state {storage(optimizer):,} bytes; Python "
            f"objects {now:,} bytes, at most {peak:,}"
        )


def main() -> None:
    """Print a table for every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small models, AdamW")
    parser.add_argument("--optimizer", choices=list(SETTINGS), help="only this one")
    parser.add_argument("--models", nargs="+", choices=[*SIZES, *SMALL], help="only these")
    parser.add_argument("--numba", action="store_true", help="nnlr with use_numba()")
    parser.add_argument("--seconds", type=float, default=9, help="for each table")
    options = parser.parse_args()
    if find_spec("optimi") is None:
        print("torch-optimi is not installed: pip install --group bench")
    kinds = [options.optimizer] if options.optimizer else list(SETTINGS)
    models = options.models or [*SIZES, *SMALL]
    if options.quick:
        kinds, models, options.seconds = kinds[:1], list(QUICK), 4
    if options.numba:
        nnlr.optim.use_numba()
    print(machine() + (", nnlr with numba" if options.numba else ""))
    for kind in kinds:
        for model in models:
            for groups in ("28", "all"):
                measure(kind, model, groups, options.seconds)
    print("\nMemory after three steps")
    for kind in kinds:
        memory(kind, "1,000 tensors")


if __name__ == "__main__":
    main()
