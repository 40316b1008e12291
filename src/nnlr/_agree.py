"""Plans of many processes: whether they are one and the same.

Processes talk through the key-value store by which they found each other, not through a
collective: it works with every backend, touches no device, and a process that never comes
can be named.
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final

import torch.distributed as dist

from nnlr._arguments import number
from nnlr._plan import Plan
from nnlr._text import listed, plural, shown
from nnlr.errors import NnlrError, PlanMismatchError

if TYPE_CHECKING:  # some builds of torch are without them
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import Store

# What must be equal of a plan and of each row. How a rate came about (depth, role, trace) may
# be told in words that differ from process to process.
_BASES: Final = ("lr", "weight_decay", "decay")

_FIELDS: Final = (
    *("aliases", "shape", "lr", "weight_decay", "lr_mult", "wd_mult", "eps_mult"),
    *(
        "init_mult",
        "unlocked_lr_mult",
        "options",
        "tag",
        "locked",
        "trainable",
        "group",
    ),
)

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
    if not (dist.is_available() and dist.is_initialized()):
        return
    if isinstance(group, int):  # what torch gives to those outside a new group
        return
    ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
    rank = dist.get_rank()
    if len(ranks) > 1 and rank in ranks:
        # Every process group has a store and none of torch's public functions gives it.
        store = dist.distributed_c10d._get_default_store()
        compare(_facts(plan), store, rank, ranks, seconds)


def compare(facts: Facts, store: "Store", rank: int, ranks: Sequence[int], timeout: float) -> None:
    """Compare the facts of one process with those of the others.

    The first rank collects and gives the verdict, so that all hear the same.
    """
    try:
        meeting = _Meeting(store, rank, ranks, timeout)
        said = (meeting.lead if rank == ranks[0] else meeting.follow)(facts)
    except dist.DistNetworkError as error:
        raise NnlrError(
            "The store of torch.distributed cannot be reached: the process that holds it has "
            "probably ended. Look for the first error in the output of the other ranks."
        ) from error
    if said:
        kind = PlanMismatchError if "name" in said else NnlrError
        raise kind(said.pop("message"), **said)


class _Meeting:
    """One call of :func:`agree`, in one process."""

    def __init__(self, store: "Store", rank: int, ranks: Sequence[int], timeout: float) -> None:
        self.store = store
        self.rank = rank
        self.ranks = ranks
        self.timeout = timeout
        place = f"nnlr/agree/{sha256(repr(list(ranks)).encode()).hexdigest()[:16]}"
        # The count is in the store, so that it ends with the process group.
        call = store.add(f"{place}/calls/{rank}", 1)
        self.before, self.place = f"{place}/{call - 1}", f"{place}/{call}"

    def lead(self, facts: Facts) -> Facts:
        """Collect, compare, and tell the others; what is told, or nothing."""
        mine = self._come(facts)
        absent = self._absent(self.ranks, "digest", self.timeout)
        if self.store.check([f"{self.place}/left"]):  # somebody did not wait for us
            return self._tell(self._read("left"))
        if absent:
            return self._tell(self._missing(absent))
        alike: dict[bytes, list[int]] = {}
        for rank in self.ranks:
            digest = self.store.get(f"{self.place}/digest/{rank}")
            alike.setdefault(digest, []).append(rank)
        # All have come, so all have heard what was said in the call before.
        self._forget()
        if len(alike) == 1:
            return self._tell({})
        chosen = [members[0] for members in alike.values()]
        self._write("chosen", chosen)
        self._write(f"facts/{self.rank}", mine)
        if absent := self._absent(chosen, "facts", self.timeout):
            return self._tell(self._missing(absent))
        plans = [self._read(f"facts/{rank}") for rank in chosen]
        return self._tell(first_difference(plans, list(alike.values())))

    def follow(self, facts: Facts) -> Facts:
        """Send what the first rank asks for, and wait for what it says."""
        mine = self._come(facts)
        if self._absent(self.ranks[:1], "digest", self.timeout):
            absent = self._absent(self.ranks, "digest", 0.01)
            self._write("left", self._missing(absent or self.ranks[:1]))
            return dict(self._read("left"))
        # The first rank waits that long for the others, and for their rows.
        if not self._wait(["chosen"], 2 * self.timeout):
            return self._missing(self.ranks[:1])
        if self.rank in self._read("chosen"):
            self._write(f"facts/{self.rank}", mine)
        if not self._wait(["verdict"], 2 * self.timeout):
            return self._missing(self.ranks[:1])
        return dict(self._read("verdict"))

    def _come(self, facts: Facts) -> Facts:
        digest = sha256(_text({**facts, "sources": None}).encode()).hexdigest()
        self.store.set(f"{self.place}/digest/{self.rank}", digest)
        return facts

    def _forget(self) -> None:
        """Take what the call before has left out of the store."""
        each = [f"{what}/{rank}" for rank in self.ranks for what in ("digest", "facts")]
        for key in (*each, "chosen", "verdict", "left"):
            self.store.delete_key(f"{self.before}/{key}")

    def _tell(self, verdict: Facts) -> Facts:
        self._write("verdict", verdict)
        if not self.store.check([f"{self.place}/chosen"]):
            self._write("chosen", [])
        return verdict

    def _missing(self, absent: Sequence[int]) -> Facts:
        came = [rank for rank in self.ranks if rank not in absent]
        return {
            "message": f"{_ranks(absent)} did not come to nnlr.agree within "
            f"{self.timeout:g} s; {_ranks(came)} did. Look for an earlier error in the output "
            "of what is missing, and see that every rank calls agree, equally often. If a "
            "rank only needs longer to build its model, pass a larger timeout.",
            "missing": list(absent),
        }

    def _absent(self, ranks: Sequence[int], what: str, seconds: float) -> list[int]:
        """The ranks that have not written something within the time."""
        keys = {rank: f"{what}/{rank}" for rank in ranks}
        if self._wait(list(keys.values()), seconds):
            return []
        return [rank for rank, key in keys.items() if not self.store.check([f"{self.place}/{key}"])]

    def _wait(self, keys: Sequence[str], seconds: float) -> bool:
        try:
            self.store.wait([f"{self.place}/{key}" for key in keys], timedelta(seconds=seconds))
        except dist.DistNetworkError:
            raise
        except RuntimeError:  # of a time that is up; its class depends on the store
            return False
        return True

    def _write(self, key: str, value: object) -> None:
        # Packed: a store takes a few MB at most, and rows repeat themselves.
        packed = zlib.compress(json.dumps(value).encode())
        self.store.set(f"{self.place}/{key}", packed.hex())

    def _read(self, key: str) -> Any:  # noqa: ANN401 - whatever was written
        packed = bytes.fromhex(self.store.get(f"{self.place}/{key}").decode())
        return json.loads(zlib.decompress(packed))


def _facts(plan: Plan) -> Facts:
    """What must be equal, as JSON has it, and where the rates come from."""
    return {
        "bases": [getattr(plan, base) for base in _BASES],
        "names": [row.name for row in plan.rows],
        "rows": [[_plain(getattr(row, f)) for f in _FIELDS] for row in plan.rows],
        "groups": [group.name for group in plan.groups],
        "sources": [[step.source for step in row.trace] for row in plan.rows],
    }


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _text(value: object) -> str:
    # 1, 1.0 and True are equal but not the same setting of a group; their texts differ.
    return json.dumps(value, sort_keys=True)


def _differ(values: Iterable[object]) -> bool:
    return len(set(map(_text, values))) > 1


def first_difference(plans: Sequence[Facts], holders: Sequence[Sequence[int]]) -> Facts:
    """The first place where plans differ, as the message and the facts of an error.

    Args:
        plans: Two or more, none equal to another.
        holders: For each the ranks that have it.
    """
    for position, base in enumerate(_BASES):
        values = [plan["bases"][position] for plan in plans]
        if _differ(values):
            return _difference(f"the base {base}", values, holders, field=base)
    names = [plan["names"] for plan in plans]
    if _differ(names):
        return _other_names(names, holders)
    unequal = [
        index for index in range(len(names[0])) if _differ(plan["rows"][index] for plan in plans)
    ]
    if unequal:
        return _other_row(plans, holders, unequal)
    return _other_order("group", [plan["groups"] for plan in plans], holders)


def _difference(
    what: str,
    values: Sequence[object],
    holders: Sequence[Sequence[int]],
    more: str = "",
    **facts: object,
) -> Facts:
    """The values of one thing, and who has each."""
    shared: dict[str, list[int]] = {}
    for value, ranks in zip(values, holders, strict=True):
        shared.setdefault(_text(value), []).extend(ranks)
    has = [(json.loads(text), sorted(ranks)) for text, ranks in shared.items()]
    told = " and ".join(f"{shown(value)} on {_ranks(ranks)}" for value, ranks in has)
    message = f"The plans of the ranks differ. First difference: {what} is {told}."
    return {
        "name": None,
        **facts,
        "message": f"{message}{more}\n  {_FIX}",
        "values": has,
    }


def _other_row(
    plans: Sequence[Facts], holders: Sequence[Sequence[int]], unequal: Sequence[int]
) -> Facts:
    """The first row that differs, and its first field that does."""
    index = unequal[0]
    columns = list(zip(*(plan["rows"][index] for plan in plans), strict=True))
    position = next(n for n, column in enumerate(columns) if _differ(column))
    sources = [plan["sources"][index] for plan in plans]
    more = ""
    if len(unequal) > 1:
        more = f" {plural(len(unequal), 'parameter')} differ."
    if _differ(sources):
        more += "".join(
            f"\n  On {_ranks(ranks)} it comes from {listed(said) or 'no scheme'}."
            for said, ranks in zip(sources, holders, strict=True)
        )
    name, field = plans[0]["names"][index], _FIELDS[position]
    what = f"{field} of {name!r}"
    return _difference(what, columns[position], holders, more, name=name, field=field)


def _other_names(names: Sequence[Sequence[str]], holders: Sequence[Sequence[int]]) -> Facts:
    """Parameters that some plans have and others have not, or in another order."""
    known = [set(own) for own in names]
    common = set.intersection(*known)
    lost = [n for n in dict.fromkeys(chain.from_iterable(names)) if n not in common]
    if not lost:
        return _other_order("parameter", names, holders)
    has = ["there" if lost[0] in own else "missing" for own in known]
    more = f" {plural(len(lost), 'parameter')} are not in every plan."
    return _difference(
        f"{lost[0]!r}", has, holders, more * (len(lost) > 1), name=lost[0], field="name"
    )


def _other_order(
    what: str, names: Sequence[Sequence[str]], holders: Sequence[Sequence[int]]
) -> Facts:
    """The first place at which names differ."""
    columns = enumerate(zip_longest(*names))
    place, column = next((n, column) for n, column in columns if _differ(column))
    return _difference(f"{what} {place}", column, holders, field=what)


def _ranks(ranks: Sequence[int]) -> str:
    """Ranks in words."""
    noun = "rank" if len(ranks) == 1 else "ranks"
    return f"{noun} {listed(map(str, ranks), 8)}"
