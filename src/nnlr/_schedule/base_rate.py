"""The base rate that schedulers change and that groups follow by their multipliers.

    group["lr"] = base_rate(t) * group["lr_mult"]

A scheduler works on a proxy of its own (``course``). Courses beside each other multiply, a
course after another takes its place, and groups may have courses of their own. Only torch is
needed: this works with anyone's groups.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf, isclose
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._arguments import number
from nnlr._schedule.course import Course, first_of
from nnlr._schedule.course import Proxy as Proxy  # noqa: PLC0414 # where version 0.1 had it
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN, as_built
from nnlr._text import listed
from nnlr.errors import ConfigError
from nnlr.optim._members import ALGORITHM
from nnlr.optim._mixed import by_algorithm, member_of

Group = MutableMapping[str, Any]

EVERY_GROUP: Final = "*"


@dataclass
class Share:
    """The courses of one schedule, by patterns of groups' names; ``None`` for a constant rate."""

    courses: dict[str, Course | None]
    following: frozenset[str] = frozenset()  # patterns of groups whose decay follows the rate

    def __post_init__(self) -> None:
        self.is_for_all = next(iter(self.courses)) == EVERY_GROUP  # groups have the same course
        self.each = [course for course in self.courses.values() if course is not None]

    def of(self, group: Mapping[str, Any]) -> Course | None:
        """Return the course of a group: that of the first pattern that it matches."""
        pattern = self.pattern_of(group)
        return None if pattern is None else self.courses[pattern]

    def pattern_of(self, group: Mapping[str, Any]) -> str | None:
        """Return the first pattern that a group matches."""
        return next((pattern for pattern in self.courses if matches(pattern, group)), None)

    @property
    def begun(self) -> bool:
        """Whether it has a say: it does not wait for its first step after another schedule."""
        return all(course.begun for course in self.each)


class BaseRate:
    """A base rate, ``lr`` or ``weight_decay``, that schedules change and groups follow."""

    # Whose course groups follow where their pattern says so; of weight decay the learning rate.
    leader: "BaseRate | None" = None

    def __init__(self, key: str, bases: Mapping[str | None, float]) -> None:
        self.key, self.mult = key, MULTIPLIERS[key]
        self.bases = dict(bases)  # of each algorithm; of one class under None
        self.scale = 1.0  # factor on the whole, set by hand
        # The schedules that take each other's place; those of one list are beside each other.
        self.turns: list[list[Share]] = [[]]
        self.replaced_by: str | None = None  # the schedule that started a new course

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes; those of version 0.1 have one proxy, which its schedules shared."""
        if "proxy" in state:
            state = {**vars(BaseRate(state["key"], {None: state["base"]})), "scale": state["scale"]}
        self.__dict__.update(state)

    @property
    def reference(self) -> str | None:
        """The algorithm whose base rate schedulers work on: the first that has one."""
        for name, base in self.bases.items():
            if base:
                return name
        return next(iter(self.bases))

    @property
    def base(self) -> float:
        """The base rate that schedulers work on, where they start."""
        return self.bases[self.reference]

    def base_of(self, group: Mapping[str, Any]) -> float:
        """Return the base rate that a group's multiplier refers to, as built."""
        base = self.bases.get(group.get(ALGORITHM))
        return self.base if base is None else base

    @property
    def now(self) -> int:
        """The position of the turn that it is: the last whose first schedule has begun."""
        if len(self.turns) == 1:
            return 0
        return max(at for at, turn in enumerate(self.turns) if not turn or turn[0].begun)

    @property
    def current(self) -> list[Share]:
        """The schedules that have a say now."""
        return self.turns[self.now]

    def turn_of(self, share: Share) -> int:
        """Return the position of the turn that a schedule has its say in."""
        return next(at for at, turn in enumerate(self.turns) if any(share is s for s in turn))

    def value(self, group: Mapping[str, Any] | None = None) -> float:
        """Return the base rate now, of a group if it has a course of its own."""
        group = {ALGORITHM: self.reference} if group is None else group
        of_group = [share.of(group) for share in self.current]
        courses = [course for course in of_group if course is not None]
        base = self.base_of(group)
        if self.leader is not None:
            follows = any(share.pattern_of(group) in share.following for share in self.current)
            base *= self.leader.relative(group) if follows else 1.0
        if not courses:
            return base * self.scale
        rate = courses[0].rate * (base / courses[0].unit) * self.scale
        for other in courses[1:]:
            rate *= other.rate / other.unit
        return rate

    def relative(self, group: Mapping[str, Any]) -> float:
        """Return the base rate now, of a group, relative to where its curve starts."""
        start = self.base_of(group) * self.scale
        return self.value(group) / start if start else 1.0

    @property
    def uniform(self) -> bool:
        """Whether all groups have one base rate."""
        return len(self.bases) == 1 and all(share.is_for_all for share in self.current)

    @property
    def cycles(self) -> bool:
        """Whether a course cycles momentum or betas."""
        return any(course.cycled for share in self.current for course in share.each)

    def begin(self, course: Course) -> None:
        """Let a course begin that has waited for its first step, from the rate of this moment."""
        course.begin(self.value() / self.scale, self.base or 1.0)

    def rates(self, groups: Iterable[Group]) -> list[tuple[Group, float]]:
        """Return what is due for each group that follows; refuse what no training can use."""
        mult, marked = self.mult, [group for group in groups if self.mult in group]
        for group in marked:
            if type(group[mult]) is not float and not isinstance(group[mult], int | Tensor):
                number(group[mult], f"{mult} of {_label(group)}")
        if self.uniform and (self.leader is None or self.leader.uniform):
            base = self.value()
            due = [(group, base * group[mult]) for group in marked]
        else:
            due = [(group, self.value(group) * group[mult]) for group in marked]
        for group, rate in due:
            if not 0 <= rate < inf:
                raise ConfigError(
                    f"The {self.key} of {_label(group)} would be {float(rate):g}: the base rate is "
                    f"{self.value(group):g} and its {mult} {float(group[mult]):g}. Both have to be "
                    "finite and not negative."
                )
        return due

    def write(self, groups: Iterable[Group]) -> None:
        """Put the present base rate, times its multiplier, into each group."""
        put(self.key, self.rates(groups))

    def adopt(self, groups: Iterable[Group]) -> None:
        """Give groups that were added later, or written into since, the multiplier they show."""
        for group in groups:
            rate, base = as_float(group[self.key]), self.value(group)
            if self.mult in group and (
                self.mult in group.get(ORIGIN, group)  # the code gave it one
                or isclose(rate, base * group[self.mult], rel_tol=1e-6)
            ):
                continue
            if not base > 0:
                raise ConfigError(
                    f"{_label(group)} was added while the base rate is 0: its ratio "
                    f"cannot be told from its {self.key} of {rate:g}. Set group[{self.mult!r}]."
                )
            group.setdefault(ORIGIN, as_built(group))
            group[self.mult] = rate / base
            group.setdefault(f"initial_{self.key}", self.base_of(group) * group[self.mult])


def put(key: str, due: Iterable[tuple[Group, float]]) -> None:
    """Write rates into groups; tensors are filled in place, for compiled steps."""
    written = set()
    for group, rate in due:
        old = group.get(key)
        if type(old) is type(rate) is float:
            group[key] = rate
            continue
        if not isinstance(old, Tensor):
            group[key] = as_float(rate)
            continue
        if id(old) in written:  # several groups share one tensor: give this one its own
            group[key] = torch.full_like(old, as_float(rate))
        else:
            old.fill_(rate)
        written.add(id(old))


def cycle(optimizer: Optimizer, shares: Iterable[Share], groups: Sequence[Group] = ()) -> None:
    """Write momentum, or betas, that a course cycles into the groups built with the default."""
    for share in shares:
        for course in share.each:
            for key, value in course.cycle().items():
                for group in following(optimizer, groups or optimizer.param_groups, key):
                    if share.of(group) is course:
                        set_first(group, key, value)


def settle(optimizer: Optimizer, rate: BaseRate, keys: Iterable[str]) -> None:
    """Write the cycled settings that stand after a load: the last of a course, or the origin."""
    for key in keys:
        for group in following(optimizer, optimizer.param_groups, key):
            set_first(group, key, first_of(group[ORIGIN][key]))
    so_far = [share for turn in rate.turns[: rate.now + 1] for share in turn if share.begun]
    cycle(optimizer, so_far)


def following(optimizer: Optimizer, groups: Iterable[Group], key: str) -> list[Group]:
    """Return the groups that were built with the momentum or betas of their class."""
    return [
        group
        for group in groups
        if key in group
        and key in (origin := group.get(ORIGIN, group))
        and first_of(origin[key]) == first_of(member_of(optimizer, group).defaults.get(key))
    ]


def set_first(group: Group, key: str, value: object) -> None:
    """Set momentum, or the first of the betas."""
    group[key] = (value, *group[key][1:]) if isinstance(group[key], tuple | list) else value


def matches(pattern: str, group: Mapping[str, Any]) -> bool:
    """Whether a pattern is meant for a group, by its name or its algorithm."""
    if pattern == EVERY_GROUP:
        return True
    labels = (group.get("name"), group.get(ALGORITHM))
    texts = [label for label in labels if isinstance(label, str)]
    return pattern in texts or any(fnmatchcase(text, pattern) for text in texts)


# The base rates of each optimizer that has a schedule.
_RATES: Final[WeakKeyDictionary[Optimizer, dict[str, BaseRate]]] = WeakKeyDictionary()


def follow(optimizer: Optimizer, rates: Mapping[str, BaseRate]) -> None:
    """Note that an optimizer follows these base rates, and no others."""
    _RATES[optimizer] = dict(rates)


def scheduled(optimizer: Optimizer) -> Mapping[str, BaseRate]:
    """Return the base rates that an optimizer follows, by key."""
    return _RATES.get(optimizer, {})


def refuse_lost_courses(optimizer: Optimizer, groups: Sequence[Group]) -> None:
    """Refuse groups, of pairs, in which a course's parameters would be without any."""
    courses = [
        (share, pattern, course)
        for rate in scheduled(optimizer).values()
        for share in rate.current
        for pattern, course in share.courses.items()
        if not any(matches(pattern, group) for group in groups)
    ]
    for share, pattern, course in courses:
        followers = [group for group in optimizer.param_groups if share.of(group) is course]
        tensors = {id(tensor) for group in followers for tensor in group["params"]}
        names = [name for group in groups for name, t in group["params"] if id(t) in tensors]
        if names and not any(group.get(ALGORITHM) == pattern for group in followers):
            raise ConfigError(
                f"The schedule has a course for {pattern!r}, and no new group is called so: "
                f"{listed(names)} would lose theirs. Take patterns that match groups of both "
                "plans; or, to begin anew, give all groups one schedule, regroup, and schedule the "
                "new ones: nnlr.schedule(optimizer, LambdaLR, lr_lambda=lambda step: 1.0). "
                "Nothing was changed.",
                pattern=pattern,
                names=names,
            )


def rebase(optimizer: Optimizer) -> None:
    """Have the schedules of a regrouped optimizer go on from its new base rates, and write."""
    for key, rate in scheduled(optimizer).items():
        unused = set(by_algorithm(optimizer, empty=True)) - set(by_algorithm(optimizer))
        of_groups = {
            name: rate.base_of(groups[0]) if base is None else base
            for name, groups in by_algorithm(optimizer).items()
            for base in [as_float(member_of(optimizer, groups[0]).defaults.get(key))]
        }
        before = {k: base for k, base in rate.bases.items() if k in unused or k in of_groups}
        rate.bases = {**before, **of_groups}  # in the order of before: the reference stays
        for group in optimizer.param_groups:
            group.setdefault(f"initial_{key}", rate.base_of(group) * group[rate.mult])
        rate.write(optimizer.param_groups)
        if key == "lr":
            cycle(optimizer, rate.current)


def rewrite(optimizer: Optimizer, groups: Sequence[Group]) -> None:
    """Write the present rates of an optimizer's schedules into groups that it is to have."""
    for key, rate in scheduled(optimizer).items():
        rate.write(groups)
        if key == "lr":
            cycle(optimizer, rate.current, groups)


def runs_step_hooks(optimizer: Optimizer) -> bool:
    """Whether an optimizer calls its step hooks.

    A wrapper that skips torch's constructor has no hooks, or some that nobody calls; one that
    forwards to the hooks of the optimizer inside has them.
    """
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        return False
    has_its_own = "_optimizer_step_pre_hooks" in vars(optimizer)
    return not has_its_own or hasattr(type(optimizer).step, "hooked")


def as_float(value: object) -> float:
    """Return a rate as a float, whether it is a tensor or not."""
    return value.item() if isinstance(value, Tensor) else cast(float, value)


def undoing(rates: Iterable[BaseRate], courses: Iterable[Course]) -> Callable[[], None]:
    """Return what undoes steps and loads of courses and base rates from now on."""
    moments = [(course, course.moment()) for course in courses]
    bases = [(rate, rate.bases, rate.scale) for rate in rates]

    def undo() -> None:
        for course, moment in moments:
            course.put_back(moment)
        for rate, base, scale in bases:
            rate.bases, rate.scale = base, scale

    return undo


def _label(group: Mapping[str, Any]) -> str:
    """Return the name of a group in messages."""
    return f"group {group['name']!r}" if "name" in group else "a group"
