"""Findings about the tensors of a model and those in the groups of its optimizers."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import chain
from math import floor, inf, log2
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from nnlr._checks.fixes import frozen, regrouped, resolve_again, same_classes
from nnlr._checks.optimizer_probe import probe_of
from nnlr._checks.subject import Subject, highest_lr
from nnlr._findings import Finding, error, note, warning
from nnlr._model.names import Source
from nnlr._sandbox import undisturbed
from nnlr._schedule.moved import MOVED
from nnlr._text import plural
from nnlr.optim._update_size import update_size

_HALF: Final = (torch.bfloat16, torch.float16)

# How many numbers stand for a tensor.
_SAMPLE: Final = 4096

# What people call a copy of a model that follows it.
_FOLLOWS: Final = re.compile("ema|target|teacher|momentum|average|swa|shadow", re.IGNORECASE)


def stale(subject: Subject) -> Iterator[Finding]:
    """Parameters of the optimizer that the model does not have, or not any more."""
    if names := [member.name for member in subject.members if member.slot is None]:
        yield error(
            "stale-parameter",
            names,
            cause=f"{len(names)} of {plural(len(subject.members), 'parameter')} of the optimizer "
            "are not in the model: sharding, to_empty, load_state_dict(assign=True), "
            "a merge or removed parametrizations put others in their place, and steps "
            "go to tensors that nobody uses",
            fix="Pass the whole model if that is a part of it. Else build the optimizer after "
            "that, or give it the new tensors: "
            f"{resolve_again(subject)}",
        )


def left_out(subject: Subject) -> Iterator[Finding]:
    """Trainable parameters of the model that no optimizer has."""
    if not subject.optimizers:
        return
    in_groups = {id(member.tensor) for member in subject.members}
    stale_names = {member.name for member in subject.members if member.slot is None}
    locked_names = {row.name for row in subject.plan or () if row.locked}
    absent_slots = [
        slot
        for slot in subject.slots.values()
        if slot.tensor.requires_grad and id(slot.tensor) not in in_groups
    ]
    averages = _averages(subject.source, in_groups) if absent_slots else set()
    absent = [slot.name for slot in absent_slots if id(slot.tensor) not in averages]
    unlocked = [name for name in absent if name in locked_names]
    missing = [name for name in absent if name not in locked_names | stale_names]
    if missing:
        they, them = "they stay as they are, and the gradients that they get", "them"
        if len(missing) == 1:
            they, them = "it stays as it is, and the gradients that it gets", "it"
        yield error(
            "untrained-parameter",
            missing,
            cause=f"{plural(len(missing), 'trainable parameter', 'are')} in no group: {they} add "
            "up from step to step, which gradient clipping counts",
            fix=f"If another optimizer trains {them}, pass both in a list; if nothing should, "
            f"freeze {them}; else give the optimizer groups of the whole model: "
            f"{resolve_again(subject)}",
        )
    if unlocked:
        yield warning(
            "not-locked",
            unlocked,
            cause="the plan locks these, and their gradients are on: what is computed adds up "
            "from step to step, which gradient clipping counts",
            fix="Lock them, before wrapping in DDP: plan.lock()",
        )


def _averages(model: Source, in_groups: Set[int]) -> set[int]:
    """The tensors of copies of a model that follow it, which no step should train.

    They are torch's ``AveragedModel``, and modules called so that hold what a trained one does.
    """
    if not isinstance(model, nn.Module):
        return set()
    averages: set[int] = set()
    trained, copies = [], []
    for path, module in model.named_modules():
        params = dict(module.named_parameters())
        tensors = {id(tensor) for tensor in params.values()}
        form = type(module), [(name, tensor.shape) for name, tensor in params.items()]
        if tensors and tensors <= in_groups:
            trained.append(form)
        elif not tensors.isdisjoint(in_groups):
            continue
        elif isinstance(module, AveragedModel):
            averages |= tensors
        elif _FOLLOWS.search(path.rpartition(".")[2]):
            copies.append((form, tensors))
    return averages.union(*(tensors for form, tensors in copies if form in trained))


def not_trained(subject: Subject) -> Iterator[Finding]:
    """Parameters in groups whose gradients are off."""
    members = [m for m in subject.members if not m.tensor.requires_grad]
    off = [m for m in members if not (m.locked and MOVED in m.group)]  # it comes back
    without = [member for member in off if member.tensor.grad is None]
    if driven := [member.name for member in off if member.tensor.grad is not None]:
        yield warning(
            "frozen-with-gradient",
            driven,
            cause=f"{plural(len(driven), 'frozen parameter', 'have')} a "
            "gradient left, which the next step applies; with momentum or decay, later ones too",
            fix="Clear it, and leave them out: optimizer.zero_grad(set_to_none=True); "
            f"{resolve_again(subject)}",
        )
    if locked := [member.name for member in without if member.locked]:
        yield warning(
            "locked-in-group",
            locked,
            cause=f"{plural(len(locked), 'parameter', 'are')} in groups though nnlr locked them: "
            "the optimizer was not built from the plan that did. They do not train, whatever "
            "rate their group shows",
            fix="Leave them out, by the plan that locked them; the others keep their state: "
            f"{regrouped(subject)}",
        )
    if frozen := [member.name for member in without if not member.locked]:
        yield note(
            "frozen-in-group",
            frozen,
            cause=f"{plural(len(frozen), 'frozen parameter', 'are')} in "
            "groups (requires_grad is False); they do not train, whatever rate is shown",
            fix="If they should train, unfreeze them; else leave them out: "
            f"{resolve_again(subject)}",
        )


def repeated(subject: Subject) -> Iterator[Finding]:
    """Parameters that several steps move."""
    counts = Counter(id(member.tensor) for member in subject.members)
    if len(counts) == len(subject.members):
        return
    twice = [member.name for member in subject.members if counts[id(member.tensor)] > 1]
    yield error(
        "repeated-parameter",
        dict.fromkeys(twice),
        cause=f"{plural(len(twice), 'place')} in the groups hold a parameter that another "
        "holds too: each step moves it as often as it is there",
        fix=f"Have each parameter in one group: {resolve_again(subject)}"
        if len(subject.optimizers) == 1
        else _parted(subject.optimizers),
    )


def _parted(optimizers: Sequence[Optimizer]) -> str:
    """How to take what other optimizers train out of the groups of one that has more."""
    tensors = [
        {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
        for optimizer in optimizers
    ]
    counts = Counter(chain(*tensors))
    alone = [sum(counts[tensor] == 1 for tensor in taken) for taken in tensors]
    if not any(alone):
        return "Leave them to one optimizer: del optimizers[1:]"
    largest = f"optimizers[{alone.index(max(alone))}]"
    return (
        "Leave to the others what they have: taken = {id(t) for other in optimizers if other is "
        f"not {largest} for group in other.param_groups for t in group['params']}}; "
        "[group.update([(key, [item for item, t in zip(group[key], group['params']) if id(t) not "
        "in taken]) for key in ('param_names', 'params') if key in group]) for group in "
        f"{largest}.param_groups]; {largest}.param_groups[:] = [group for group in "
        f"{largest}.param_groups if group['params']]"
    )


def mixed_meshes(subject: Subject) -> Iterator[Finding]:
    """Groups whose tensors no one step can take together."""
    meshes: dict[int, set[object]] = {}  # by the identity of the group: two may share a name
    labels = {}
    for member in subject.members:
        labels[id(member.group)] = member.label
        mesh = getattr(member.tensor, "device_mesh", None)
        meshes.setdefault(id(member.group), set()).add(mesh)
    if mixed := [labels[group] for group, kinds in meshes.items() if len(kinds) > 1]:
        yield error(
            "mixed-mesh",
            mixed,
            cause=f"{plural(len(mixed), 'group', 'hold')} both sharded and plain parameters, or "
            "several meshes: foreach and fused steps and clip_grad_norm_ raise on them",
            fix="Build the groups after sharding, which splits them by mesh: "
            f"optimizer = plan.optimizer({same_classes(subject)}, model=model)",
        )


def gradients(subject: Subject) -> Iterator[Finding]:
    """Parameters that the last backward did not reach, if there was one."""
    trained = []
    for optimizer in subject.optimizers:  # each has a backward of its own, as in a GAN
        groups = {id(group) for group in optimizer.param_groups}
        members = [
            member
            for member in subject.members
            if id(member.group) in groups and member.tensor.requires_grad
        ]
        if any(member.tensor.grad is not None for member in members):
            trained += members
    without = [member.name for member in trained if member.tensor.grad is None]
    if without:
        yield warning(
            "no-gradient",
            without,
            cause=f"{len(without)} of {plural(len(trained), 'trained parameter')} got no "
            "gradient in the last backward: the loss does not depend on them, or did not in "
            "this batch, or they were unlocked after it, or they are not the tensors that the "
            "model computes with",
            fix="Freeze what is never used: "
            f"{resolve_again(subject, frozen(without, subject.names))}",
        )
    # A shard of zeros says nothing about the other shards, so only whole tensors count; in the
    # first step zeros are the rule behind a layer of zeros, such as LoRA's B.
    stepped = {id(tensor) for optimizer in subject.optimizers for tensor in optimizer.state}
    whole = [
        (member.name, grad)
        for member in trained
        if id(member.tensor) in stepped
        and type(grad := member.tensor.grad) is Tensor
        and grad.layout == torch.strided
        and grad.is_floating_point()
        and not grad.is_meta
        and grad.numel()
    ]
    # Most have something in their first numbers; only the others are read to the end.
    first = _norms([_sample(grad) for _, grad in whole], inf)
    whole = [pair for pair, size in zip(whole, first, strict=True) if not size]
    largest = _norms([grad for _, grad in whole], inf)
    if zero := [name for (name, _), size in zip(whole, largest, strict=True) if not size]:
        yield note(
            "zero-gradient",
            zero,
            cause=f"the gradient of {len(zero)} of {plural(len(trained), 'trained parameter')} "
            "is 0 everywhere, after steps have been taken: what follows them lets nothing "
            "through, or did not take part in the last backward",
            fix="Look at what follows them; freeze what is never used: "
            f"{resolve_again(subject, frozen(zero, subject.names))}",
        )


def vanishing_updates(subject: Subject) -> Iterator[Finding]:
    """Weights in half precision that a step of their rate rounds away.

    A weight ``w`` of ``p`` significant bits changes by ``eps * 2**floor(log2 w)`` or not at
    all. Adaptive optimizers move it by about the learning rate, Muon by less.
    """
    part_of = {id(group): part for _, part in subject.parts for group in part.param_groups}
    half = [
        (member, highest)
        for member in subject.members
        if member.tensor.dtype in _HALF
        and member.tensor.requires_grad
        and not member.tensor.is_meta
        and type(member.tensor.data) is Tensor
        and member.tensor.numel()
        and (highest := highest_lr(member.group))
    ]
    too_coarse = []
    sums = _norms([_sample(member.tensor.detach()) for member, _ in half], 1)
    loses: dict[object, bool] = {}  # for each optimizer whether rounding takes its steps
    for (member, lr), total in zip(half, sums, strict=True):
        size = total / _sample(member.tensor).numel()  # the mean absolute value
        # The smallest change of a weight of that size.
        unit = torch.finfo(member.tensor.dtype).eps * 2 ** floor(log2(size)) if size else 0.0
        part = part_of.get(id(member.group), subject.optimizers[0])
        relative = update_size(type(part), member.group, member.tensor.shape)
        is_relative = id(member.tensor) in subject.relative
        step = lr * (size if is_relative else 1.0 if relative is None else relative.high)
        if step >= unit / 2:
            continue
        key = is_relative or (id(part), member.tensor.dtype)
        if key not in loses:
            loses[key] = is_relative or _loses_small_steps(subject, part, member.tensor.dtype)
        if loses[key]:
            too_coarse.append((member, step, size, unit))
    if too_coarse:
        first, step, size, unit = too_coarse[0]
        yield warning(
            "vanishing-update",
            (member.name for member, *_ in too_coarse),
            cause=f"{len(too_coarse)} of {plural(len(half), 'weight')} in half precision are too "
            f"coarse for their rate: {first.name!r} has weights of about {size:.2g} in "
            f"{str(first.tensor.dtype).removeprefix('torch.')}, which change by "
            f"{unit:.2g} or not at all, and steps of the optimizer are of about {step:.2g}",
            fix="Have the weights in float32 and compute in half precision: "
            f"model.float(); context = torch.autocast({first.tensor.device.type!r}, "
            f"{first.tensor.dtype})",
        )


def _loses_small_steps(subject: Subject, part: Optimizer, dtype: torch.dtype) -> bool:
    """Whether rounding takes the steps of an optimizer.

    Not where a step goes by the size of the gradient, as that of SGD; nor where the optimizer,
    or DeepSpeed, keeps what is rounded away.
    """
    halves = [(subject.deepspeed or {}).get(key) for key in ("bf16", "fp16")]
    if any(isinstance(half, Mapping) and half.get("enabled", True) for half in halves):
        return False
    with undisturbed():
        try:
            probe = probe_of(subject, part)
            return probe.step_is_the_rate() and not probe.adds_up(dtype)
        except Exception:  # noqa: BLE001 - anyone's optimizer
            return False


def _sample(tensor: Tensor) -> Tensor:
    """The first numbers of a tensor, without copying it; all where they do not lie in a row."""
    return tensor.view(-1)[:_SAMPLE] if tensor.is_contiguous() else tensor


@torch.no_grad()
def _norms(tensors: Sequence[Tensor], order: float) -> list[float]:
    """The norm of each tensor; one read from each device."""
    norms = [0.0] * len(tensors)
    by_device: dict[torch.device, list[int]] = {}
    for position, tensor in enumerate(tensors):
        by_device.setdefault(tensor.device, []).append(position)
    for positions in by_device.values():
        there = [tensors[position] for position in positions]
        dtype = torch.float32 if order == 1 else None  # a sum can overflow in half precision
        scalars = [norm.float() for norm in torch._foreach_norm(there, order, dtype=dtype)]
        for position, norm in zip(positions, torch.stack(scalars).tolist(), strict=True):
            norms[position] = norm
    return norms
