"""A model and the optimizers that should train it: the same tensors, each once."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import floor, inf, log2
from typing import Final

import torch
from torch import Tensor

from nnlr._checks.subject import Member, Subject, peak
from nnlr._findings import Finding, error, note, warning
from nnlr._text import plural

_HALF: Final = (torch.bfloat16, torch.float16)


def replaced(subject: Subject) -> Iterator[Finding]:
    """Parameters of the optimizer that the model does not have, or not any more."""
    stale = [member for member in subject.members if member.slot is None]
    if stale:
        yield error(
            "stale-parameter",
            tuple(member.name for member in stale),
            cause=f"{len(stale)} of {plural(len(subject.members), 'parameter')} of the optimizer "
            "are not in the model: sharding, to_empty, load_state_dict(assign=True), "
            "a merge or removed parametrizations put others in their place, and steps "
            "go to tensors that nobody uses",
            fix="Build the optimizer after that, or give it the new tensors: "
            "nnlr.regroup(optimizer, nnlr.resolve(model, scheme, lr=lr, weight_decay=wd))",
        )


def left_out(subject: Subject) -> Iterator[Finding]:
    """Trainable parameters of the model that no optimizer has."""
    if not subject.optimizers:
        return
    held = {id(member.tensor) for member in subject.members}
    stale = {member.name for member in subject.members if member.slot is None}
    rows = {row.name: row for row in subject.plan.rows} if subject.plan else {}
    missing: list[str] = []
    unlocked: list[str] = []
    for slot in subject.slots.values():
        if slot.tensor.requires_grad and id(slot.tensor) not in held:
            row = rows.get(slot.name)
            (unlocked if row is not None and row.locked else missing).append(slot.name)
    if missing := [name for name in missing if name not in stale]:
        yield error(
            "untrained-parameter",
            missing,
            cause=f"{plural(len(missing), 'trainable parameter', 'are')} in no group: "
            "they stay as they are, and their gradients add up from step to step, which "
            "gradient clipping counts",
            fix="Build the optimizer from a plan of the whole model, or freeze them. If "
            "another optimizer trains them, pass both: nnlr.check(model, [one, other])",
        )
    if unlocked:
        yield warning(
            "not-locked",
            unlocked,
            cause="the plan locks these, and their gradients are on: they are computed, and "
            "add up from step to step, which gradient clipping counts",
            fix="Lock them, before wrapping in DDP: plan.lock()",
        )


def not_trained(subject: Subject) -> Iterator[Finding]:
    """Parameters in groups whose gradients are off."""
    off = [each for each in subject.members if not each.tensor.requires_grad]
    driven = [each for each in off if each.tensor.grad is not None]
    still = [each for each in off if each.tensor.grad is None]
    locked = [each for each in still if each.locked]
    frozen = [each for each in still if not each.locked]
    if driven:
        yield warning(
            "frozen-with-gradient",
            _names(driven),
            cause=f"{plural(len(driven), 'frozen parameter', 'have')} a "
            "gradient left, which the next step applies; with momentum or decay, later ones too",
            fix="Clear it: optimizer.zero_grad(set_to_none=True)",
        )
    if locked:
        yield warning(
            "locked-in-group",
            _names(locked),
            cause=f"{plural(len(locked), 'parameter', 'are')} in groups though nnlr locked them: "
            "the optimizer was not built from the plan that did. They do not train, whatever "
            "rate their group shows",
            fix="Leave them out, state kept: nnlr.regroup(optimizer, plan)",
        )
    if frozen:
        yield note(
            "frozen-in-group",
            _names(frozen),
            cause=f"{plural(len(frozen), 'frozen parameter', 'are')} in "
            "groups (requires_grad is False); they do not train, whatever rate is shown",
            fix="Unfreeze them, or leave them out: nnlr.regroup(optimizer, plan)",
        )


def repeated(subject: Subject) -> Iterator[Finding]:
    """Parameters that several steps move."""
    counts = Counter(id(member.tensor) for member in subject.members)
    if len(counts) == len(subject.members):
        return
    twice = [each for each in subject.members if counts[id(each.tensor)] > 1]
    yield error(
        "repeated-parameter",
        dict.fromkeys(_names(twice)),
        cause=f"{plural(len(twice), 'place')} in the groups hold a parameter that another "
        "holds too: each step moves it as often as it is there",
        fix="Put each parameter into one group: plan.param_groups()",
    )


def meshes(subject: Subject) -> Iterator[Finding]:
    """Groups whose tensors no one step can take together."""
    kinds: dict[str, set[object]] = {}
    for member in subject.members:
        mesh = getattr(member.tensor, "device_mesh", None)
        kinds.setdefault(member.label, set()).add(mesh)
    mixed = [label for label, found in kinds.items() if len(found) > 1]
    if mixed:
        yield error(
            "mixed-mesh",
            mixed,
            cause=f"{plural(len(mixed), 'group', 'hold')} both sharded and plain parameters, or "
            "several meshes: foreach and fused steps and clip_grad_norm_ raise on them",
            fix="Build the groups after sharding, which splits them by mesh: "
            "plan.optimizer(cls, model=model)",
        )


def gradients(subject: Subject) -> Iterator[Finding]:
    """What the last backward did not reach, if there was one."""
    trained = [each for each in subject.members if each.tensor.requires_grad]
    without = [each for each in trained if each.tensor.grad is None]
    if len(without) == len(trained):
        return
    if without:
        yield warning(
            "no-gradient",
            _names(without),
            cause=f"{len(without)} of {plural(len(trained), 'trained parameter')} got no "
            "gradient in the last backward: the loss does not depend on them, or they "
            "are not the tensors that the model computes with",
            fix="Freeze what is not used, for example by the scheme: nnlr.freeze('name.*')",
        )
    zero = _all_zero(trained)
    if zero:
        yield note(
            "zero-gradient",
            _names(zero),
            cause=f"the gradient of {len(zero)} of {plural(len(trained), 'trained parameter')} "
            "is 0 everywhere. In the first steps that is the rule behind a layer of "
            "zeros (LoRA's A); later it says that nothing comes through",
            fix="Look again after some steps; if it stays so, look at what follows them.",
        )


def _all_zero(members: Sequence[Member]) -> list[Member]:
    """Those with a dense gradient of zeros; one look at each device."""
    dense: dict[torch.device, list[tuple[Member, Tensor]]] = {}
    for member in members:
        grad = member.tensor.grad
        if grad is not None and _countable(grad):
            dense.setdefault(grad.device, []).append((member, grad))
    found = []
    for pairs in dense.values():
        with torch.no_grad():
            sizes = torch._foreach_norm([grad for _, grad in pairs], inf)
            largest = torch.stack([size.float() for size in sizes]).tolist()
        found += [each for (each, _), size in zip(pairs, largest, strict=True) if not size]
    return found


def _countable(grad: Tensor) -> bool:
    """Whether all of a gradient is here: a shard of zeros says nothing about the others."""
    plain = type(grad) is Tensor and grad.layout == torch.strided and not grad.is_meta
    return plain and grad.is_floating_point() and grad.numel() > 0


def vanishing(subject: Subject) -> Iterator[Finding]:
    """Weights in half precision that a step of their rate rounds away.

    A weight ``w`` of ``p`` significant bits changes by ``eps * 2**floor(log2 w)`` or not at
    all, and adaptive optimizers move it by about the learning rate.
    """
    half = [
        each
        for each in subject.members
        if each.tensor.dtype in _HALF
        and each.tensor.requires_grad
        and not each.tensor.is_meta
        and type(each.tensor.data) is Tensor
        and each.tensor.numel()
        and peak(each.group)
    ]
    lost = [
        (each, size, unit)
        for each, size in zip(half, _mean_sizes(half), strict=True)
        if size > 0
        and (peak(each.group) or 0.0)
        < (unit := torch.finfo(each.tensor.dtype).eps * 2 ** floor(log2(size))) / 2
    ]
    if lost:
        first, size, unit = lost[0]
        yield warning(
            "vanishing-update",
            _names(each for each, _, _ in lost),
            cause=f"{len(lost)} of {plural(len(half), 'weight')} in half precision are too "
            f"coarse for their rate: {first.name!r} has weights of about {size:.2g} in "
            f"{str(first.tensor.dtype).removeprefix('torch.')}, which change by "
            f"{unit:.2g} or not at all, and its rate is {peak(first.group):.2g}",
            fix="Keep the weights in float32 and compute in half precision: "
            "torch.autocast(device, torch.bfloat16)",
        )


def _mean_sizes(members: Sequence[Member]) -> list[float]:
    """The mean absolute value of each; one look at each device."""
    found = [0.0] * len(members)
    by_device: dict[torch.device, list[int]] = {}
    for position, member in enumerate(members):
        by_device.setdefault(member.tensor.device, []).append(position)
    for places in by_device.values():
        tensors = [members[place].tensor.detach() for place in places]
        sums = torch._foreach_norm(tensors, 1, dtype=torch.float32)
        for place, total in zip(places, torch.stack(list(sums)).tolist(), strict=True):
            found[place] = total / members[place].tensor.numel()
    return found


def _names(members: Iterable[Member]) -> tuple[str, ...]:
    return tuple(member.name for member in members)
