"""Rules: what a user says of the parameters that a selector chooses.

``rule`` is one such statement, and a scheme like any other. ``rules`` is an ordered list of
which the first that matches a parameter claims it: the form of configuration files.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from nnlr._arguments import flag
from nnlr._arguments import options as checked_options
from nnlr._declare.factor import NEUTRAL, Factor, Step, Trace
from nnlr._declare.scheme import Scheme
from nnlr._model.describe import ModelInfo
from nnlr._select.selectors import Indices, Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural, shown
from nnlr.errors import CoverageError, NnlrError, PatternError


class _Claims(Scheme):
    """At most one step for each parameter: the steps give the factors."""

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The factor of each parameter's step; neutral where nothing is said."""
        said = self.steps(model)
        return [said[i][0].factor if i in said else NEUTRAL for i in range(len(model.params))]


class Rule(_Claims):
    """A selector and what it sets; made by :func:`rule`."""

    word: ClassVar[str] = "rule"  # what traces and messages call it

    def __init__(self, selector: Selector, factor: Factor, *, optional: bool) -> None:
        self.selector = selector
        self.factor = factor
        self.optional = optional

    def matches(self, model: ModelInfo, what: str) -> Indices:
        """Positions it matches, which must be some unless the rule is optional."""
        if self.optional:
            return self.selector.matches(model)
        return must_match(self.selector, model, f"{what} {self.selector!r}")

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """One step, shared by all parameters that have one name."""
        step = Step(f"{self.word} {self.selector!r}", self.factor, explicit=True)
        trace: Trace = (step,)
        said = dict.fromkeys(sorted(self.matches(model, self.word)), trace)
        for index in said:
            if model.params[index].aliases:
                said[index] = (replace(step, via=self.via(model, index)),)
        return said

    def via(self, model: ModelInfo, index: int) -> tuple[str, ...]:
        """The names by which the rule reaches a tied parameter."""
        return tuple(sorted(self.selector.reach(model, index)))

    def __repr__(self) -> str:
        settings = ("lr_mult", "wd_mult", "lr", "weight_decay", "options")
        given = [
            f"{name}={value!r}"
            for name in settings
            if (value := getattr(self.factor, name)) != getattr(NEUTRAL, name)
        ]
        if self.optional:
            given.append("optional=True")
        return f"rule({', '.join([repr(self.selector), *given])})"


def rule(
    selector: Selector | str,
    *,
    lr_mult: float = 1.0,
    wd_mult: float = 1.0,
    lr: float | None = None,
    weight_decay: float | None = None,
    options: Mapping[str, Any] | None = None,
    optional: bool = False,
) -> Scheme:
    """Set the rates of the parameters that a selector chooses.

    ``lr = base_lr * lr_mult`` and ``weight_decay = base_weight_decay * wd_mult``. Several
    rules multiply where they meet; :func:`rules` is the first-match form.

    Args:
        selector: A pattern over whole names (``"head.*"``) or a selector.
        lr_mult: Factor on the learning rate, finite, >= 0. 0 locks the parameters.
        wd_mult: Factor on the weight decay, finite, >= 0.
        lr: Absolute learning rate >= 0, instead of ``lr_mult``.
        weight_decay: Absolute weight decay >= 0, instead of ``wd_mult``; the ``decay`` of
            ``resolve`` leaves it as it is.
        options: Other settings of the group: ``betas``, ``eps``, ``momentum``, ...
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
    chosen = as_selector(selector, "rule")
    given = {} if options is None else options
    factor = Factor(
        lr_mult=lr_mult,
        wd_mult=wd_mult,
        lr=lr,
        weight_decay=weight_decay,
        options=checked_options(given, f"rule {chosen!r}"),
    )
    return Rule(chosen, factor, optional=flag(optional, "optional"))


class Rules(_Claims):
    """An ordered list of rules; made by :func:`rules`."""

    def __init__(self, members: tuple[Rule, ...], *, complete: bool) -> None:
        self.members = members
        self.complete = complete

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """One step for each claimed parameter, from the rule that claims it."""
        matched = [
            member.matches(model, f"rule {position}")
            for position, member in enumerate(self.members)
        ]
        claimed: dict[int, int] = {}
        later: dict[int, tuple[int, ...]] = {}
        for position, indices in enumerate(matched):
            fresh = indices - claimed.keys()
            if indices and not fresh and not self.members[position].optional:
                raise self._shadowed(position, matched, model)
            for index in indices - fresh:
                later[index] = (*later.get(index, ()), position)
            claimed.update(dict.fromkeys(fresh, position))
        if self.complete:
            self._check_coverage(claimed, model)
        step_of: dict[tuple[int, tuple[int, ...]], Trace] = {}
        said = {}
        for index in sorted(claimed):
            key = (claimed[index], later.get(index, ()))
            if key not in step_of:
                step_of[key] = (self._step(*key),)
            said[index] = step_of[key]
            if model.params[index].aliases:
                via = self.members[key[0]].via(model, index)
                said[index] = (replace(said[index][0], via=via),)
        return said

    def _step(self, position: int, later: tuple[int, ...]) -> Step:
        member = self.members[position]
        names = tuple(self._name(other) for other in later)
        factor = replace(member.factor, shadowed=names) if names else member.factor
        return Step(self._name(position), factor, explicit=True)

    def _name(self, position: int) -> str:
        return f"rule {position} {self.members[position].selector!r}"

    def _shadowed(self, position: int, matched: list[Indices], model: ModelInfo) -> PatternError:
        lost = matched[position]
        takers = [
            f"{self._name(earlier)} took {len(lost & matched[earlier])}"
            for earlier in range(position)
            if lost & matched[earlier]
        ]
        first = model.params[min(lost)].name
        return PatternError(
            f"{self._name(position)} has no effect: its {len(lost)} matches in {model.label} "
            f"(such as {first}) were claimed by earlier rules ({listed(takers)}).\n"
            f"  Move rule {position} up, narrow the earlier ones, or pass optional=True if it "
            "may have nothing to claim.",
            pattern=repr(self.members[position].selector),
            nearest=[],
        )

    def _check_coverage(self, claimed: Mapping[int, int], model: ModelInfo) -> None:
        missing = [
            param.name
            for index, param in enumerate(model.params)
            if param.requires_grad and index not in claimed
        ]
        if missing:
            raise CoverageError(
                f"No rule claims {plural(len(missing), 'trainable parameter')} of "
                f"{model.label}: {listed(missing)}.\n"
                "  Add a rule for them, end the list with nnlr.rule('*'), or drop complete=True.",
                names=missing,
            )

    def __repr__(self) -> str:
        complete = ", complete=True" if self.complete else ""
        return f"rules([{', '.join(map(repr, self.members))}]{complete})"


def rules(members: Iterable[Scheme], *, complete: bool = False) -> Scheme:
    """An ordered list of rules of which the first that matches a parameter claims it.

    Args:
        members: Results of :func:`rule`.
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
    if isinstance(members, Scheme):
        raise NnlrError(f"rules takes a list of rules: nnlr.rules([{shown(members)}]).")
    if isinstance(members, str) or not isinstance(members, Iterable):
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
    return Rules(tuple(checked), complete=flag(complete, "complete"))
