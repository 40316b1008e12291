"""Findings about several algorithms that share a model: Muon for matrices, Adam for the rest.

Whatever class is called Muon, or has settings of Newton-Schulz, is taken for it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from math import isclose, prod
from typing import Final, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._checks.fixes import regrouped, resolve_again, routed, selector, with_rates
from nnlr._checks.subject import Subject, Trained, rate, start
from nnlr._findings import Finding, note, warning
from nnlr._sandbox import undisturbed
from nnlr._text import plural
from nnlr.optim._members import ALGORITHM
from nnlr.optim._update_size import Size, is_adam, shape_factor, update_size

# Roles of what is no map from one hidden space to another.
_UNFIT: Final = frozenset(
    {
        *("embedding", "head", "position", "token", "norm", "bias"),
        *("gain", "scalar", "vector", "state"),
    }
)

# Matrices of several layers in one, by their names, and how many there are.
_FUSED: Final = {
    r"(.*_)?w?qkv(_?(proj|linear|weight))?|c_attn|query_key_value|in_proj_weight": 3,
    r"(.*_)?w?kv(_?(proj|linear|weight))?|key_value|(gate_?up|up_?gate)(_proj)?": 2,
}

# The factor between updates of two algorithms from which on one of them is as good as still; and
# that up to which they are as large as they should be.
_APART: Final = 30
_NEAR: Final = 3

# A rate of AdamW that only tables and scalars have been trained with, and a usual one.
_HIGH: Final = 1e-2
_USUAL: Final = 1e-3
_MAY_BE_HIGH: Final = frozenset({"embedding", "position", "token", "scalar", "gain"})


def unfit(subject: Subject) -> Iterator[Finding]:
    """Parameters that are no matrices for Muon, and matrices that are none any more."""
    reasons, flat = {}, []
    for trained in subject.beside_muon:
        if not trained.muon:
            continue
        name, tensor = trained.member.name, trained.member.tensor
        if _is_flat(trained):
            flat.append(name)
        elif reason := _reason_against(trained):
            shape = "x".join(map(str, tensor.shape)) or "scalar"
            reasons[name] = f"{name!r} ({shape}) is {reason}"
    if reasons:
        yield warning(
            "unfit-for-muon",
            reasons,
            cause=f"Muon trains {plural(len(reasons), 'parameter')} beside maps from one hidden "
            f"space to another: {next(iter(reasons.values()))}. It makes all directions of an "
            "update equally large, which has no meaning there",
            fix=f"Send them to the other algorithm{away}"
            if (away := _sent_away(subject, list(reasons)))
            else f"Route by roles and shapes, in place of what routes now: {routed(subject)}",
        )
    if flat:
        yield warning(
            "flat-for-muon",
            flat,
            cause=f"{plural(len(flat), 'parameter', 'are')} flat pieces of FSDP1, which are no "
            "matrices: Muon refuses them, or hands them to its fallback and is switched off",
            fix="Shard with torch.distributed.fsdp.fully_shard, which keeps matrices, and a Muon "
            "that takes DTensors; or train all by AdamW: optimizer = torch.optim.AdamW("
            "model.parameters(), lr=3e-4, weight_decay=wd)",
        )


def _is_flat(trained: Trained) -> bool:
    """Whether it is a piece of FSDP1: a vector of what were matrices."""
    tensor = trained.member.tensor
    matrix = trained.param.role in {"matrix", "conv"}
    return getattr(tensor, "_is_flat_param", False) or (matrix and tensor.ndim == 1)


def _reason_against(trained: Trained) -> str | None:
    """What a parameter is, if it is nothing for Muon."""
    param, part = trained.param, trained.part
    if param.role in {"embedding", "head"}:
        return f"of role {param.role}{', and tied to another layer' if param.aliases else ''}"
    # Some classes hand what is no matrix to a fallback of their own.
    if any("fallback" in key for key in part.defaults):
        return None
    if param.role in _UNFIT:
        return f"of role {param.role}"
    if sum(size > 1 for size in param.shape) < 2:
        return "a vector"
    depthwise = param.role == "conv" and param.shape[1] == 1
    return "a kernel that sums over no channels (depthwise)" if depthwise else None


def fused(subject: Subject) -> Iterator[Finding]:
    """Matrices of several layers in one, whose shape factor is that of the whole."""
    texts = {}
    for trained in subject.beside_muon:
        if not trained.muon or len(trained.param.shape) != 2:
            continue
        words = trained.member.name.rsplit(".", 2)[-2:]
        parts = next((n for pattern, n in _FUSED.items() if _named(pattern, words)), None)
        if parts is not None:
            texts[trained.member.name] = _told(trained, parts)
    if texts:
        first = next(iter(texts))
        yield note(
            "fused-matrix",
            texts,
            cause=f"Muon trains fused matrices ({len(texts)}) as one: {first!r} is {texts[first]}",
            fix="Nothing to do if its rate was tuned so. Else have a layer for each, or send it "
            f"to the other algorithm{_sent_away(subject, list(texts)) or '.'}",
        )


def _named(pattern: str, words: Sequence[str]) -> bool:
    """Whether a leaf or its owner is called so."""
    return any(re.fullmatch(pattern, word, re.IGNORECASE) for word in words)


def _told(trained: Trained, parts: int) -> str:
    """A fused matrix and its factor beside that of one of its parts."""
    rows, columns = shape = trained.param.shape
    part = (rows // parts, columns) if rows >= columns or parts == 2 else (rows, columns // parts)
    whole, one = (shape_factor(trained.member.group, each) for each in (shape, part))
    if whole is None or one is None:
        return f"{rows} x {columns}"
    return (
        f"{rows} x {columns} and gets the shape factor {whole:.3g}; {part[0]} x {part[1]}, one of "
        f"its {parts} alone, would get {one:.3g}"
    )


def _sent_away(subject: Subject, names: Sequence[str]) -> str:
    """How to send parameters elsewhere; empty if there is no plan, or a rule has sent them here."""
    rows = {row.name: row for row in subject.plan or ()}
    steps = [step for name in names if name in rows for step in rows[name].trace]
    own = {rows[name].algorithm for name in names if name in rows}
    by_muon = {
        trained.member.group.get(ALGORITHM) for trained in subject.beside_muon if trained.muon
    }
    if own and own.isdisjoint(by_muon):  # the plan has sent them there
        return f": {regrouped(subject)}"
    others = [row.algorithm for row in rows.values() if row.algorithm not in own]
    if not others or any(step.explicit and step.factor.algorithm for step in steps):
        return ""
    rule = f"nnlr.rule({selector(names, list(rows))}, algorithm={others[0]!r})"
    return f": {resolve_again(subject, rule)}"


def normalised_momentum(subject: Subject) -> Iterator[Finding]:
    """Muon that normalises its momentum in place, as torch's does in bfloat16 without Nesterov."""
    tried: dict[object, bool] = {}
    names = []
    for trained in subject.beside_muon:
        group, tensor = trained.member.group, trained.member.tensor
        plain = trained.muon and group.get("nesterov") is False and tensor.ndim == 2
        if plain and tensor.dtype == torch.bfloat16:
            key = (id(trained.part), repr(group.get("momentum")))
            if key not in tried:
                tried[key] = _normalises(trained.part, group)
            if tried[key]:
                names.append(trained.member.name)
    if names:
        yield warning(
            "normalised-momentum",
            names,
            cause=f"Muon normalises the momentum of {plural(len(names), 'parameter')} in place, in "
            "each step: with bfloat16 gradients and nesterov=False it takes the buffer itself for "
            "the update, so that old gradients count by their direction only",
            fix="Use Nesterov, which copies, or float32 weights: [group.update(nesterov=True) for "
            f"{_each_group(subject)} if group.get('nesterov') is False]",
        )


def _each_group(subject: Subject) -> str:
    """A loop over all groups, as code."""
    if len(subject.optimizers) == 1:
        return "group in optimizer.param_groups"
    return "each in optimizers for group in each.param_groups"


def _normalises(part: Optimizer, group: Mapping[str, object]) -> bool:
    """Whether a step leaves a momentum of norm 1, whatever the gradient."""
    param = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16, device="cpu"))
    with undisturbed():
        try:
            settings = {"nesterov": False, "momentum": group["momentum"], "lr": 1e-3}
            optimizer = cast(Callable[..., Optimizer], type(part))(
                [{"params": [param], **settings}]
            )
            param.grad = torch.eye(4, dtype=param.dtype, device="cpu") * 1000
            optimizer.step()
            buffers = [v for v in optimizer.state[param].values() if isinstance(v, Tensor)]
        except Exception:  # noqa: BLE001 - anyone's optimizer
            return False
    return any(isclose(float(buffer.norm()), 1, rel_tol=0.05) for buffer in buffers)


class _Reach(NamedTuple):
    """How large the updates of an optimizer are: the smallest and the largest."""

    name: str
    part: Optimizer
    low: float
    high: float
    muon: bool


def _reaches(subject: Subject) -> list[_Reach]:
    """The sizes of the updates of Muon and of Adam, where both are known."""
    sizes: dict[int, list[tuple[Trained, Size]]] = {}
    kinds = {(id(t.member.group), t.param.shape): t for t in subject.beside_muon}
    for trained in kinds.values():
        if size := trained.size:
            sizes.setdefault(id(trained.part), []).append((trained, size))
    return [
        _Reach(
            type(first.part).__name__,
            first.part,
            min(size.low for _, size in members),
            max(size.high for _, size in members),
            first.muon,
        )
        for members in sizes.values()
        for first, _ in members[:1]
    ]


def unequal_updates(subject: Subject) -> Iterator[Finding]:
    """Two algorithms of which one hardly moves its parameters, beside the other."""
    for small, large in permutations(_reaches(subject), 2):
        gap = large.low / small.high
        if small.muon == large.muon or gap <= _NEAR:
            continue
        sizes = (
            f"updates of {small.name} have a root mean square of at most {small.high:.2g}, those "
            f"of {large.name} of at least {large.low:.2g}: {gap:.3g} times as large"
        )
        fix = f"If that is not meant, bring them together: {with_rates(subject, small.part, gap)}"
        own, other = rate(small.part.defaults, "lr"), rate(large.part.defaults, "lr")
        if gap > _APART:
            yield warning("unequal-updates", (), cause=sizes, fix=fix)
        elif small.muon and own == other:
            cause = f"{small.name} trains at the rate of {large.name}, {own or 0:g}; {sizes}"
            yield warning("rate-of-adamw", (), cause=cause, fix=fix)


def high_rates(subject: Subject) -> Iterator[Finding]:
    """Rates of Muon that AdamW trains with."""
    high: dict[int, tuple[Optimizer, dict[str, float]]] = {}
    for trained in subject.beside_muon:
        lr = start(trained.member.group) or 0.0
        may_be_high = trained.is_relative or trained.param.role in _MAY_BE_HIGH
        if lr >= _HIGH and is_adam(type(trained.part)) and not may_be_high:
            high.setdefault(id(trained.part), (trained.part, {}))[1][trained.member.name] = lr
    for part, rate_of in high.values():
        highest = max(rate_of.values())
        yield warning(
            "rate-of-muon",
            rate_of,
            cause=f"{type(part).__name__} trains {plural(len(rate_of), 'parameter')} at a rate of "
            f"{highest:g}, beside Muon: that is a rate for Muon, under which {type(part).__name__} "
            "moves each number by up to as much in a step",
            fix="If that is not meant, give it one of its own: "
            f"{with_rates(subject, part, _USUAL / highest)}",
        )


def rerouted_rates(subject: Subject) -> Iterator[Finding]:
    """Parameters that a rule took away from an algorithm whose updates are much larger."""
    rows = {row.name: row for row in subject.plan or () if row.algorithm is not None}
    parts = {part.param_groups[0].get(ALGORITHM): part for _, part in subject.parts}
    gaps: dict[str, tuple[str, float]] = {}
    bases = subject.plan.algorithms if subject.plan else {}
    for trained in subject.beside_muon if rows else ():
        row = rows.get(trained.member.name)
        routes = [s.factor.algorithm for s in row.trace if not s.explicit] if row else []
        for name in {*routes} & parts.keys() - {row and row.algorithm}:
            before = update_size(
                type(parts[name]), parts[name].param_groups[0], trained.param.shape
            )
            if row and before and name and (now := trained.size):
                mults = [step.factor.lr_mult for step in row.trace if not step.explicit]
                lr = bases[name].lr * prod(mults)
                if (gap := before.low * lr / now.high) > _NEAR:
                    gaps[row.name] = (name, gap)
    if gaps:
        name, (before_name, gap) = next(iter(gaps.items()))
        row = rows[name]
        rule = f"nnlr.rule({selector(gaps, list(rows))}, lr_mult={gap:.2g})"
        yield note(
            "rerouted-rate",
            gaps,
            cause=f"{plural(len(gaps), 'parameter')} went from {before_name!r} to "
            f"{row.algorithm!r} and to its rate: updates of {name!r} are at least {gap:.2g} times "
            f"smaller than {before_name!r} would make them",
            fix=f"If that is not meant, make up for it: {resolve_again(subject, rule)}",
        )
