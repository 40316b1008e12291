"""Compare the plans of many processes before they train together.

Processes exchange text through the key-value store by which they found each other, not through a
collective: it works with every backend, touches no device, and a process that never comes
can be named.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from itertools import chain, product, zip_longest
from typing import TYPE_CHECKING, Any, Final

import torch.distributed as dist

from nnlr._arguments import number
from nnlr._plan import Plan
from nnlr._text import listed, plural, shown
from nnlr.errors import NnlrError, PlanMismatchError

if TYPE_CHECKING:  # some builds of torch are without them
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import Store

# What must be equal of a plan and of each row. Depth, role and trace are not compared: their
# texts may differ from process to process where the rates are equal.
_BASES: Final = ("lr", "weight_decay", "decay")

_FIELDS: Final = (
    *("aliases", "shape", "lr", "weight_decay", "lr_mult", "wd_mult", "eps_mult", "init_mult"),
    *("unlocked_lr_mult", "options", "algorithm", "locked", "trainable", "group"),
)

# So many different plans are compared; more would only make the message longer.
_MOST_PLANS: Final = 8

# Seconds that a process waits, before it leaves, for those that came to have read. They stand at
# the store already.
_PARTING: Final = 10.0

_OUTSIDE: Final = -100  # what torch gives to those outside a new group

_FIX: Final = (
    "Resolve the same schemes at the same base rates on every rank, and the same whole model: "
    "before it is sharded or cut into stages."
)

Facts = dict[str, Any]


def agree(plan: Plan, group: "ProcessGroup | None" = None, *, timeout: float = 300.0) -> None:
    """Check that every process has the same plan; all of them must call it.

    Call it after ``nnlr.resolve`` and before the first collective of the model. Each process
    puts a digest of its plan in the store of ``torch.distributed``; only if they differ are
    rows exchanged. Without ``torch.distributed``, or with one process, it does nothing, and
    neither does it in processes outside ``group``. Of a pipeline, compare the plans of the
    whole model.

    Args:
        plan: The plan.
        group: Compare within this process group; ``None`` for all processes.
        timeout: Seconds that one process waits for another to come, > 0.

    Raises:
        PlanMismatchError: If plans differ: in every process the same error, with the first
            difference, both values and the ranks that have them.
        NnlrError: If a process does not come in time, in every process that came. The ranks
            are in ``missing``.

    Examples:
        >>> import nnlr, torch
        >>> plan = nnlr.resolve(torch.nn.Linear(2, 1), lr=0.1, weight_decay=0)
        >>> nnlr.agree(plan)  # one process: it agrees with itself
    """
    if not isinstance(plan, Plan):
        raise NnlrError(
            f"agree compares plans, got {shown(plan, typed=True)}. The groups of an optimizer "
            "follow from its plan."
        )
    seconds = number(timeout, "timeout", above=0)
    outside = isinstance(group, int) and group == _OUTSIDE
    if not (group is None or outside or hasattr(group, "rank")):
        raise NnlrError(f"group must be a process group of torch or None, got {shown(group)}.")
    if not (dist.is_available() and dist.is_initialized()):
        return
    if outside:
        return
    ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
    rank = dist.get_rank()
    if len(ranks) > 1 and rank in ranks:
        # Every process group has a store and none of torch's public functions gives it.
        store = dist.distributed_c10d._get_default_store()
        compare(facts_of(plan), store, rank, ranks, seconds)


def compare(facts: Facts, store: "Store", rank: int, ranks: Sequence[int], timeout: float) -> None:
    """Compare the facts of this process's plan with those of the others."""
    try:
        # The number of this call is in the store, so that it ends with the process group.
        base = f"nnlr/agree/{sha256(repr(list(ranks)).encode()).hexdigest()[:16]}"
        call = store.add(f"{base}/calls/{rank}", 1)
        meeting = _Meeting(store, f"{base}/{call}", rank, ranks, timeout)
        # Where the rates come from may be worded differently.
        text = _text({**facts, "sources": None})
        digests = meeting.gather("digest", sha256(text.encode()).hexdigest(), ranks)
        if rank == ranks[0]:  # all have come, so all have left the call before
            keys = (*ranks, "count", "missing", "left")
            for what, key in product(("digest", "facts", "parting"), keys):
                store.delete_key(f"{base}/{call - 1}/{what}/{key}")
        holders: dict[bytes, list[int]] = {}
        for digest, holder in zip(digests, ranks, strict=True):
            holders.setdefault(digest, []).append(holder)
        if len(holders) == 1:
            return meeting.part(ranks)
        different = list(holders.values())[:_MOST_PLANS]
        # Compressed, as a store takes a few MB at most, and rows repeat themselves.
        packed = zlib.compress(json.dumps(facts).encode()).hex()
        sent = meeting.gather("facts", packed, [members[0] for members in different])
        meeting.part(ranks)
    except dist.DistNetworkError as error:
        raise NnlrError(
            "The store of torch.distributed cannot be reached: the process that holds it has "
            "probably ended. Look for the first error in the output of the other ranks."
        ) from error
    plans = [json.loads(zlib.decompress(bytes.fromhex(packed.decode()))) for packed in sent]
    raise first_difference(plans, different)


@dataclass(frozen=True, slots=True)
class _Meeting:
    """One call of :func:`agree` in one process; ``place`` begins its keys in the store."""

    store: "Store"
    place: str
    rank: int
    ranks: Sequence[int]
    timeout: float

    def gather(self, what: str, value: str, senders: Sequence[int]) -> list[bytes]:
        """Send a value if this rank is among the senders; return the values of all senders.

        Who is missing is decided once, by the process that knows it first, so that all get the
        same answer, also those that come later.
        """
        store, place = self.store, f"{self.place}/{what}"
        keys = {rank: f"{place}/{rank}" for rank in senders}
        decision = f"{place}/missing"
        if self.rank in keys:
            store.set(keys[self.rank], value)
            if store.add(f"{place}/count", 1) == len(senders):  # the last one: nobody is missing
                store.compare_set(decision, "", "[]")
        try:
            store.wait([decision], timedelta(seconds=self.timeout))
        except dist.DistNetworkError:
            raise
        except RuntimeError:  # the time is up; the class of this error depends on the store
            absent = [rank for rank, key in keys.items() if not store.check([key])]
            store.compare_set(decision, "", json.dumps(absent))
        missing = json.loads(store.get(decision))
        if missing:
            came = [rank for rank in self.ranks if rank not in missing]
            if self.rank in came:
                self.part(came)
            raise NnlrError(
                f"{_ranks(missing)} did not come to nnlr.agree within {self.timeout:g} s; "
                f"{_ranks(came)} did. Look for an earlier error in the output of what is "
                "missing, and see that every rank calls agree, equally often. If a rank only "
                "needs longer to build its model, pass a larger timeout.",
                missing=missing,
            )
        return store.multi_get(list(keys.values()))

    def part(self, others: Sequence[int]) -> None:
        """Leave only when all others have read: the store ends with the process that holds it."""
        left = f"{self.place}/parting/left"
        # What was to be read has been read. Where the store is gone, or another process has ended
        # in between, this one leaves with what it knows.
        with suppress(RuntimeError):
            if self.store.add(f"{self.place}/parting/count", 1) == len(others):
                self.store.set(left, "")
            self.store.wait([left], timedelta(seconds=min(self.timeout, _PARTING)))


def facts_of(plan: Plan) -> Facts:
    """Return what must be equal in every process, and where the rates come from, for JSON."""
    return {
        "bases": {base: getattr(plan, base) for base in _BASES},
        "names": [row.name for row in plan.rows],
        # Options are a read-only mapping, which JSON does not take.
        "rows": [
            {**{name: getattr(row, name) for name in _FIELDS}, "options": dict(row.options)}
            for row in plan.rows
        ],
        "groups": [group.name for group in plan.groups],
        "sources": [[step.source for step in row.trace] for row in plan.rows],
    }


def _text(value: object) -> str:
    """Write a value as JSON: 1, 1.0 and True are equal, but other settings, and so other texts."""
    return json.dumps(value, sort_keys=True)


def _differ(values: Iterable[object]) -> bool:
    """Whether not all values are the same."""
    return len(set(map(_text, values))) > 1


def first_difference(plans: Sequence[Facts], holders: Sequence[Sequence[int]]) -> PlanMismatchError:
    """Return the error that names the first place where plans differ.

    No two of the plans are equal; ``holders`` are the ranks that have them.
    """
    for base in _BASES:
        values = [plan["bases"][base] for plan in plans]
        if _differ(values):
            return _mismatch(f"the base {base}", values, holders, field=base)

    names = [plan["names"] for plan in plans]
    common = set.intersection(*map(set, names))
    partly = [name for name in dict.fromkeys(chain(*names)) if name not in common]
    if partly:
        name, count = partly[0], len(partly)
        presence = ["there" if name in plan["names"] else "missing" for plan in plans]
        more = f" {plural(count, 'parameter')} are not in every plan." if count > 1 else ""
        return _mismatch(repr(name), presence, holders, more, name=name, field="name")
    if _differ(names):
        return _other_order("parameter", names, holders)

    rows = list(zip(*(plan["rows"] for plan in plans), strict=True))
    unequal = [index for index, column in enumerate(rows) if _differ(column)]
    if not unequal:
        return _other_order("group", [plan["groups"] for plan in plans], holders)
    index = unequal[0]
    field = next(field for field in _FIELDS if _differ(row[field] for row in rows[index]))
    more = f" {plural(len(unequal), 'parameter')} differ." if len(unequal) > 1 else ""
    sources = [plan["sources"][index] for plan in plans]
    if _differ(sources):
        more += "".join(
            f"\n  On {_ranks(ranks)} it comes from {listed(source) or 'no scheme'}."
            for source, ranks in zip(sources, holders, strict=True)
        )
    name = names[0][index]
    values = [row[field] for row in rows[index]]
    return _mismatch(f"{field} of {name!r}", values, holders, more, name=name, field=field)


def _other_order(
    what: str, names: Sequence[Sequence[str]], holders: Sequence[Sequence[int]]
) -> PlanMismatchError:
    """Return the error that names the first position at which lists of names differ."""
    columns = enumerate(zip_longest(*names))
    position, column = next((at, column) for at, column in columns if _differ(column))
    return _mismatch(f"{what} {position}", column, holders, field=what)


def _mismatch(
    what: str,
    values: Sequence[object],
    holders: Sequence[Sequence[int]],
    more: str = "",
    *,
    name: str | None = None,
    field: str,
) -> PlanMismatchError:
    """Return the error that tells which ranks have which value."""
    ranks_of: dict[str, list[int]] = {}
    for value, ranks in zip(values, holders, strict=True):
        ranks_of.setdefault(_text(value), []).extend(ranks)
    pairs = [(json.loads(text), sorted(ranks)) for text, ranks in ranks_of.items()]
    different = " and ".join(f"{shown(value)} on {_ranks(ranks)}" for value, ranks in pairs)
    return PlanMismatchError(
        f"The plans of the ranks differ. First difference: {what} is {different}.{more}\n  {_FIX}",
        name=name,
        field=field,
        values=pairs,
    )


def _ranks(ranks: Sequence[int]) -> str:
    """Name ranks in a message: ``ranks 0, 2``."""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {listed(map(str, ranks), 8)}"
