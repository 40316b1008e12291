"""Schemes: how fast parameters learn relative to the rest, said without a model.

A scheme turns a described model into factors, one for each parameter. Schemes combine in
two ways and no third: ``a * b`` multiplies, ``rules([...])`` lets the first rule that
matches a parameter claim it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nnlr.describe import ModelInfo, ParamInfo
from nnlr.errors import CoverageError, NnlrError, PatternError, listed
from nnlr.select import Indices, Selector, as_selector, must_match
from nnlr.values import number, options


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """What one scheme says of one parameter.

    Attributes:
        lr_mult: Factor on the learning rate, finite, >= 0. 0 locks the parameter.
        wd_mult: Factor on the weight decay, finite, >= 0.
        eps_mult: Factor on the optimizer's ``eps``, finite, > 0.
        init_mult: Factor on the initial weights, finite, > 0; ``nnlr.apply_init`` applies it.
        lr: Absolute learning rate instead of ``lr_mult``; becomes ``lr / base`` at resolve.
        weight_decay: Absolute decay instead of ``wd_mult``; likewise.
        options: Other settings of the parameter's group, such as ``{"betas": (0.9, 0.95)}``.
        why: One short phrase for the trace: ``"0.75^9, block 4 of 13"``.
        compensates_decay: The factor already corrects decay for its ``lr_mult``, so the
            weight decay modes of ``resolve`` leave it alone.
        tag: Name of the optimizer that should take the parameter; ``None`` for the only one.
        shadowed: Rules that matched too but came later.

    Examples:
        >>> Factor(lr_mult=0.5).wd_mult
        1.0
    """

    lr_mult: float = 1.0
    wd_mult: float = 1.0
    eps_mult: float = 1.0
    init_mult: float = 1.0
    lr: float | None = None
    weight_decay: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    compensates_decay: bool = False
    tag: str | None = None
    shadowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers, so that no scheme can hand on a NaN."""
        put = object.__setattr__
        put(self, "lr_mult", number(self.lr_mult, "lr_mult"))
        put(self, "wd_mult", number(self.wd_mult, "wd_mult"))
        put(self, "eps_mult", number(self.eps_mult, "eps_mult", above=0))
        put(self, "init_mult", number(self.init_mult, "init_mult", above=0))
        for absolute, relative in (("lr", "lr_mult"), ("weight_decay", "wd_mult")):
            value = getattr(self, absolute)
            if value is None:
                continue
            put(self, absolute, number(value, absolute))
            if getattr(self, relative) != 1:
                raise NnlrError(
                    f"{absolute}={value!r} is absolute and {relative}="
                    f"{getattr(self, relative)!r} is relative: pass one of them."
                )
        if self.options:
            put(self, "options", options(self.options, "a factor"))


NEUTRAL: Final = Factor()


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a parameter's trace: who said what.

    Attributes:
        source: The scheme, as a user would write it.
        factor: What it says.
        via: For a tied parameter and an explicit declaration, the names by which it came.
    """

    source: str
    factor: Factor
    via: tuple[str, ...] = ()


Trace = tuple[Step, ...]


class Scheme:
    """How fast parameters learn relative to the rest; knows no model until it is resolved.

    Subclass it and write :meth:`factors` for a scheme of your own.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> class HalfForBiases(nnlr.Scheme):
        ...     def factors(self, model):
        ...         half = nnlr.Factor(lr_mult=0.5, why="a bias")
        ...         return [half if p.role == "bias" else nnlr.Factor() for p in model.params]
        >>> plan = nnlr.resolve(nn.Linear(2, 1), HalfForBiases(), lr=0.1, weight_decay=0)
        >>> plan["bias"].lr
        0.05
    """

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """Say what the scheme does to each parameter.

        Args:
            model: The described model.

        Returns:
            One factor for each of ``model.params``, in order.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define factors(model)")

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """Trace entries by position; parameters the scheme says nothing of are left out."""
        factors = self.factors(model)
        if len(factors) != len(model.params):
            raise NnlrError(
                f"{self!r} gave {len(factors)} factors for the {len(model.params)} parameters "
                f"of {model.label}: factors(model) returns one for each, in order."
            )
        source = repr(self)
        # Equal rates share one Step, which is what makes large models cheap to combine.
        shared: dict[int, Trace] = {}
        said = {}
        for index, factor in enumerate(factors):
            if not isinstance(factor, Factor):
                raise NnlrError(
                    f"{self!r} gave {factor!r} for {model.params[index].name!r}: "
                    "factors(model) returns nnlr.Factor objects."
                )
            if factor.why or factor != NEUTRAL:
                said[index] = shared.setdefault(id(factor), (Step(source, factor),))
        return said

    def where(self, selector: Selector | str) -> "Scheme":
        """The same scheme, resolved on the whole model, but acting on these parameters only.

        Raises:
            PatternError: At resolve, if the selector matches nothing.
        """
        return Where(self, as_selector(selector, "where"))

    def within(self, path: str) -> "Scheme":
        """The scheme resolved on one submodule as if it were the model; identity outside.

        Args:
            path: Canonical path of the submodule, such as ``"model.backbone"``.

        Raises:
            NnlrError: At resolve, if there is no such submodule.
        """
        if not isinstance(path, str) or not path:
            raise NnlrError(f"within needs a module's path such as 'backbone', got {path!r}.")
        return Within(self, path)

    def __mul__(self, other: "Scheme") -> "Scheme":
        """Both schemes: multipliers multiply, options are joined."""
        if not isinstance(other, Scheme):
            return NotImplemented
        return Product((*_members(self), *_members(other)))

    def __repr__(self) -> str:
        """The scheme as a user would write it."""
        return f"{type(self).__name__}()"


def as_schemes(schemes: Iterable[object]) -> tuple[Scheme, ...]:
    """Check that everything given is a scheme.

    Raises:
        NnlrError: If something is not.
    """
    checked = []
    for scheme in schemes:
        if not isinstance(scheme, Scheme):
            hint = " Put rules in nnlr.rules([...])." if isinstance(scheme, list | tuple) else ""
            raise NnlrError(
                f"Expected a scheme such as nnlr.rule('head.*', lr_mult=10), got {scheme!r} "
                f"({type(scheme).__name__}).{hint}"
            )
        checked.append(scheme)
    return tuple(checked)


def merge(traces: Iterable[Mapping[int, Trace]]) -> dict[int, Trace]:
    """Join what several schemes say of each parameter."""
    merged: dict[int, Trace] = {}
    for said in traces:
        for index, trace in said.items():
            merged[index] = (*merged[index], *trace) if index in merged else trace
    return merged


def _members(scheme: Scheme) -> tuple[Scheme, ...]:
    return scheme.members if isinstance(scheme, Product) else (scheme,)


class _Combined(Scheme):
    """A scheme made of others: its steps are theirs, so it has no factors of its own."""

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        raise NnlrError(
            f"{self!r} combines schemes and has no single factors; use "
            "nnlr.resolve(model, scheme, ...).rows."
        )


class Product(_Combined):
    """A flat product of schemes; see :meth:`Scheme.__mul__`."""

    def __init__(self, members: tuple[Scheme, ...]) -> None:
        self.members = members

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        return merge(scheme.steps(model) for scheme in self.members)

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.members))


class Where(_Combined):
    """A scheme restricted to some parameters; see :meth:`Scheme.where`."""

    def __init__(self, inner: Scheme, selector: Selector) -> None:
        self.inner = inner
        self.selector = selector

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        chosen = must_match(self.selector, model, f"where({self.selector!r})")
        return {i: trace for i, trace in self.inner.steps(model).items() if i in chosen}

    def __repr__(self) -> str:
        return f"{_bracketed(self.inner)}.where({self.selector!r})"


class Within(_Combined):
    """A scheme resolved on a submodule; see :meth:`Scheme.within`."""

    def __init__(self, inner: Scheme, path: str) -> None:
        self.inner = inner
        self.path = path

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        part = model.submodel(self.path)
        position = {id(places[0].tensor): i for i, places in enumerate(model.places)}
        return {
            position[id(part.places[i][0].tensor)]: tuple(map(self._from_outside, trace))
            for i, trace in self.inner.steps(part).items()
        }

    def _from_outside(self, step: Step) -> Step:
        if not step.via:
            return step
        return replace(step, via=tuple(f"{self.path}.{name}" for name in step.via))

    def __repr__(self) -> str:
        return f"{_bracketed(self.inner)}.within({self.path!r})"


def _bracketed(scheme: Scheme) -> str:
    return f"({scheme!r})" if isinstance(scheme, Product) else repr(scheme)


class Rule(Scheme):
    """A selector and what it sets; made by :func:`rule`."""

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
        source = f"rule {self.selector!r}"
        trace = (Step(source, self.factor),)
        said = dict.fromkeys(sorted(self.matches(model, "rule")), trace)
        for index in said:
            if model.params[index].aliases:
                said[index] = (Step(source, self.factor, self.via(model.params[index])),)
        return said

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        chosen = self.matches(model, "rule")
        return [self.factor if i in chosen else NEUTRAL for i in range(len(model.params))]

    def via(self, param: ParamInfo) -> tuple[str, ...]:
        """The names by which the rule reaches a tied parameter."""
        return tuple(sorted(self.selector.reach(param)))

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
        weight_decay: Absolute weight decay >= 0, instead of ``wd_mult``.
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
    if not isinstance(optional, bool):
        raise NnlrError(f"optional must be True or False, got {optional!r}.")
    factor = Factor(
        lr_mult=lr_mult,
        wd_mult=wd_mult,
        lr=lr,
        weight_decay=weight_decay,
        options=options or {},
    )
    return Rule(chosen, factor, optional=optional)


class Rules(Scheme):
    """An ordered list of rules; made by :func:`rules`."""

    def __init__(self, members: tuple[Rule, ...], *, complete: bool) -> None:
        self.members = members
        self.complete = complete

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
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
                via = self.members[key[0]].via(model.params[index])
                said[index] = (replace(said[index][0], via=via),)
        return said

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        said = self.steps(model)
        return [said[i][0].factor if i in said else NEUTRAL for i in range(len(model.params))]

    def _step(self, position: int, later: tuple[int, ...]) -> Step:
        member = self.members[position]
        names = tuple(self._name(other) for other in later)
        factor = replace(member.factor, shadowed=names) if names else member.factor
        return Step(self._name(position), factor)

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
                f"No rule claims {len(missing)} trainable parameter"
                f"{'s' if len(missing) != 1 else ''} of {model.label}: {listed(missing)}.\n"
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
        NnlrError: If a member is not a rule.
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
    checked = []
    for position, member in enumerate(members):
        if not isinstance(member, Rule):
            raise NnlrError(
                f"rules takes nnlr.rule(...) objects; member {position} is {member!r} "
                f"({type(member).__name__}). Multiply other schemes with *."
            )
        checked.append(member)
    if not checked:
        raise NnlrError("rules needs at least one nnlr.rule(...).")
    return Rules(tuple(checked), complete=complete)
