"""Rules: rates for the parameters that a selector chooses.

``rule`` is a scheme like any other. ``rules`` is an ordered list of rules; the first that
matches a parameter claims it, as in configuration files.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from numbers import Real
from operator import or_
from typing import Any, ClassVar

from nnlr._arguments import Written, as_call, flag, is_listing
from nnlr._arguments import options as checked_options
from nnlr._declare.factor import NEUTRAL, Factor, Step, Trace, settings_of
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Indices, Selector, as_selector
from nnlr._select.suggestions import must_match, unmatched_parts
from nnlr._text import listed, plural, shown
from nnlr.errors import CallError, CoverageError, NnlrError, PatternError


class _Claims(Scheme):
    """A scheme with at most one step for each parameter, from which its factors follow."""

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The factor of each parameter's step; neutral where there is none."""
        steps = self.steps(model)
        return [steps[i][0].factor if i in steps else NEUTRAL for i in range(len(model.params))]


@dataclass(frozen=True, repr=False, eq=False)
class Rule(_Claims):
    """A selector and what it sets; made by :func:`rule`."""

    word: ClassVar[str] = "rule"  # what traces and messages call it

    selector: Selector
    factor: Factor
    optional: bool

    def matches(self, model: ModelInfo, what: str) -> Indices:
        """Positions it matches, which must be some unless the rule is optional."""
        if self.optional:
            return self.selector.matches(model)
        return must_match(self.selector, model, f"{what} {self.selector!r}")

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """One step, shared by all parameters that have one name."""
        step = Step(f"{self.word} {self.selector!r}", self.factor, explicit=True)
        traces: dict[int, Trace] = dict.fromkeys(sorted(self.matches(model, self.word)), (step,))
        for index in traces:
            if model.params[index].aliases:
                traces[index] = (replace(step, via=self.via(model, index)),)
        return traces

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Names in its selector that no parameter has, unless it may match nothing."""
        what = f"{self.word} {self.selector!r}"
        return [] if self.optional else unmatched_parts(self.selector, model, what)

    def via(self, model: ModelInfo, index: int) -> tuple[str, ...]:
        """The names by which the rule reaches a tied parameter."""
        return tuple(sorted(self.selector.reach(model, index)))

    def written_as(self) -> Written:
        """The call of :func:`rule`."""
        settings = settings_of(self.factor)
        return as_call(rule, self.selector, **settings, optional=self.optional)


def rule(
    selector: Selector | str,
    *more: object,
    lr_mult: float = 1.0,
    wd_mult: float = 1.0,
    lr: float | None = None,
    weight_decay: float | None = None,
    options: Mapping[str, Any] | None = None,
    algorithm: str | None = None,
    group: str | None = None,
    optional: bool = False,
) -> Scheme:
    """Set the rates of the parameters that a selector chooses.

    ``lr = base_lr * lr_mult`` and ``weight_decay = base_weight_decay * wd_mult``. Several
    rules multiply where they meet; :func:`rules` is the first-match form.

    Args:
        selector: A pattern over whole names (``"head.*"``) or a selector.
        *more: Nothing: selectors are joined with ``|``, and rates go by name.
        lr_mult: Factor on the learning rate, finite, >= 0. 0 locks the parameters.
        wd_mult: Factor on the weight decay, finite, >= 0.
        lr: Absolute learning rate >= 0, instead of ``lr_mult``.
        weight_decay: Absolute weight decay >= 0, instead of ``wd_mult``; the ``decay`` of
            ``resolve`` leaves it as it is.
        options: Other settings of the group: ``betas``, ``eps``, ``momentum``, ...
        algorithm: Which of several algorithms trains the parameters, by its name in
            ``plan.optimizer({name: class, ...})``. Overrules :func:`nnlr.route`.
        group: Keep the parameters in groups of their own, whose names begin with this one: for a
            course of their own, ``nnlr.schedule(optimizer, {"means*": ..., "*": ...})``.
        optional: Whether the rule may match nothing.

    Raises:
        NnlrError: If a number is not finite or negative, or absolute and relative meet.
        PatternError: At resolve, if nothing matches and the rule is not optional.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> plan = nnlr.resolve(net, rule("0.*", lr_mult=0.1), lr=0.5, weight_decay=0)
        >>> plan["0.weight"].lr, plan["1.weight"].lr
        (0.05, 0.5)
    """
    if more:
        if any(isinstance(item, Real) for item in more):
            fix = f"Write rates by name: rule({shown(selector)}, lr_mult={shown(more[0])})."
        else:
            joined = reduce(or_, [as_selector(item, "rule") for item in (selector, *more)])
            fix = f"Join selectors: rule({joined!r}, ...)."
        raise CallError(f"rule takes one selector, got {1 + len(more)} arguments. {fix}")
    chosen = as_selector(selector, "rule")
    factor = Factor(
        lr_mult=lr_mult,
        wd_mult=wd_mult,
        lr=lr,
        weight_decay=weight_decay,
        options=checked_options({} if options is None else options, f"rule {chosen!r}"),
        algorithm=algorithm,
        group=group,
    )
    return Rule(chosen, factor, flag(optional, "optional"))


@dataclass(frozen=True, repr=False, eq=False)
class Rules(_Claims):
    """An ordered list of rules; made by :func:`rules`."""

    members: tuple[Rule, ...]
    complete: bool

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """One step for each claimed parameter, from the rule that claims it."""
        names = [f"rule {i} {member.selector!r}" for i, member in enumerate(self.members)]
        matched = [member.matches(model, f"rule {i}") for i, member in enumerate(self.members)]
        claimed: dict[int, int] = {}
        shadowed: dict[int, tuple[str, ...]] = {}  # later rules that match a claimed parameter
        for position, indices in enumerate(matched):
            unclaimed = indices - claimed.keys()
            if indices and not unclaimed and not self.members[position].optional:
                raise self._without_effect(names, matched[: position + 1], model)
            for index in indices - unclaimed:
                shadowed[index] = (*shadowed.get(index, ()), names[position])
            claimed.update(dict.fromkeys(unclaimed, position))
        missing = [
            p.name for i, p in enumerate(model.params) if p.requires_grad and i not in claimed
        ]
        if self.complete and missing:
            raise CoverageError(
                f"No rule claims {plural(len(missing), 'trainable parameter')} of "
                f"{model.label}: {listed(missing)}.\n"
                "  Add a rule for them, end the list with nnlr.rule('*'), or drop complete=True.",
                names=missing,
            )
        shared: dict[tuple[int, tuple[str, ...]], Trace] = {}
        traces = {}
        for index in sorted(claimed):
            position, later = key = claimed[index], shadowed.get(index, ())
            member = self.members[position]
            if key not in shared:
                factor = replace(member.factor, shadowed=later) if later else member.factor
                shared[key] = (Step(names[position], factor, explicit=True),)
            traces[index] = shared[key]
            if model.params[index].aliases:
                traces[index] = (replace(shared[key][0], via=member.via(model, index)),)
        return traces

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The findings of all members."""
        return [finding for member in self.members for finding in member.findings(model)]

    def _without_effect(
        self, names: list[str], matched: list[Indices], model: ModelInfo
    ) -> PatternError:
        """The error for a rule, the last of ``matched``, whose matches earlier rules claim."""
        *earlier, indices = matched
        position = len(earlier)
        takers = [
            f"{name} took {len(indices & others)}"
            for name, others in zip(names, earlier, strict=False)
            if indices & others
        ]
        first = model.params[min(indices)].name
        return PatternError(
            f"{names[position]} has no effect: its {len(indices)} matches in {model.label} "
            f"(such as {first}) were claimed by earlier rules ({listed(takers)}).\n"
            f"  Move rule {position} up, narrow the earlier ones, or pass optional=True if it "
            "may have nothing to claim.",
            pattern=repr(self.members[position].selector),
            nearest=[],
        )

    def written_as(self) -> Written:
        """The call of :func:`rules`."""
        return as_call(rules, list(self.members), complete=self.complete)


def rules(members: Iterable[Scheme], *more: object, complete: bool = False) -> Scheme:
    """An ordered list of rules of which the first that matches a parameter claims it.

    Args:
        members: Results of :func:`rule`, in a list.
        *more: Nothing: all of them are in the list.
        complete: Whether every trainable parameter must be claimed.

    Raises:
        NnlrError: If a member is not a rule, or there is none.
        PatternError: At resolve, if a rule matches nothing or has nothing left to claim.
        CoverageError: At resolve, with ``complete=True``, if parameters are left over.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> table = nnlr.rules([nnlr.rule("*.bias", lr_mult=2), nnlr.rule("*", lr_mult=0.5)])
        >>> plan = nnlr.resolve(nn.Sequential(nn.Linear(2, 1)), table, lr=0.1, weight_decay=0)
        >>> plan["0.bias"].lr_mult, plan["0.weight"].lr_mult
        (2.0, 0.5)
    """
    if more or isinstance(members, Scheme):
        written = ", ".join(map(shown, (members, *more)))
        raise CallError(f"rules takes a list of rules: nnlr.rules([{written}]).")
    if not is_listing(members):
        raise NnlrError(
            f"rules takes a list of rules: nnlr.rules([nnlr.rule(...)]), got {shown(members)}."
        )
    checked = []
    for position, member in enumerate(members):
        if not isinstance(member, Rule):
            raise NnlrError(
                f"rules takes nnlr.rule(...) objects; member {position} is "
                f"{shown(member, typed=True)}. Multiply other schemes with *."
            )
        checked.append(member)
    if not checked:
        raise NnlrError("rules needs at least one nnlr.rule(...).")
    return Rules(tuple(checked), flag(complete, "complete"))
