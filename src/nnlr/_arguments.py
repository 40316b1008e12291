"""Checks of the numbers and settings that users hand in."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from inspect import signature
from numbers import Integral, Real
from typing import Any, ClassVar, TypeAlias, TypeGuard, TypeVar

import torch

from nnlr._text import nearest_hint, shown
from nnlr.errors import ConfigError, NnlrError

Word = TypeVar("Word", bound=str)
Kind = TypeVar("Kind")

Plain: TypeAlias = "bool | int | float | str | tuple[Plain, ...] | None"

# Group keys that nnlr or torch writes; as an option they would be overwritten unnoticed.
RESERVED_OPTIONS = frozenset(
    {
        *("params", "param_names", "name", "lr", "initial_lr", "weight_decay"),
        *("lr_mult", "wd_mult", "lr_scale", "algorithm", "origin", "nnlr"),
    }
)


def number(
    value: object,
    what: str,
    *,
    minimum: float = 0.0,
    above: float | None = None,
    maximum: float = math.inf,
    infinite: bool = False,
) -> float:
    """Return a finite number as a float, or refuse it; ``above`` excludes the bound itself.

    ``infinite`` allows infinity too.
    """
    bounds = [f"> {above:g}"] if above is not None else []
    if above is None and minimum > -math.inf:
        bounds.append(f">= {minimum:g}")
    if maximum < math.inf:
        bounds.append(f"<= {maximum:g}")
    bound = f" {' and '.join(bounds)}" if bounds else ""
    requirement = f"{what} must be a {'' if infinite else 'finite '}number{bound}"
    if isinstance(value, torch.Tensor):
        fix = f", for example {what}.item()."
        if what == "lr":
            use = "plan.optimizer(..., tensor_lr=True)"
            fix = f"; for a learning rate that lives in a tensor use {use}."
        message = f"{requirement}, got a Tensor. Pass a float{fix}"
        raise NnlrError(message, what=what, value=value)
    if isinstance(value, bool) or not isinstance(value, Real):
        message = f"{requirement}, got {shown(value, typed=True)}."
        raise NnlrError(f"{message}{_as_number(value)}", what=what, value=value)
    try:
        result = float(value) + 0.0  # -0.0 is 0.0
    except OverflowError:
        result = math.inf
    too_small = result <= above if above is not None else result < minimum
    not_finite = math.isnan(result) or (math.isinf(result) and not infinite)
    if not_finite or too_small or result > maximum:
        raise NnlrError(f"{requirement}, got {shown(value)}.", what=what, value=value)
    return result


def _as_number(value: object) -> str:
    """A sentence on text that reads as a number, such as YAML's 1e-3; else nothing."""
    try:
        return f" It is text: pass {float(value)!r}." if isinstance(value, str) else ""
    except ValueError:
        return ""


def whole(
    value: object, what: str, *, minimum: int | None = None, maximum: int | None = None
) -> int:
    """Return a whole number, or refuse it; a bool is none.

    Examples:
        >>> whole(3, "steps", minimum=1)
        3
    """
    least = -math.inf if minimum is None else minimum
    most = math.inf if maximum is None else maximum
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not least <= int(value) <= most:  # type: ignore[call-overload]
        bounds = [
            f"{sign} {bound}"
            for sign, bound in ((">=", minimum), ("<=", maximum))
            if bound is not None
        ]
        requirement = " ".join(["a whole number", " and ".join(bounds)]).rstrip()
        raise NnlrError(
            f"{what} must be {requirement}, got {shown(value, typed=True)}.",
            what=what,
            value=value,
        )
    return int(value)  # type: ignore[call-overload, no-any-return]


def word(value: object, what: str) -> str:
    """Return a string that is not empty, or refuse what is none.

    Examples:
        >>> word("muon", "algorithm")
        'muon'
    """
    if not isinstance(value, str) or not value.strip():
        raise NnlrError(f"{what} must be a name, got {shown(value)}.", what=what, value=value)
    return value


def text(value: object, what: str, example: str = "") -> str:
    """Return a string, or refuse what is none.

    Examples:
        >>> text("blocks.0", "path")
        'blocks.0'
    """
    if not isinstance(value, str):
        such_as = f" such as {example!r}" if example else ""
        raise NnlrError(
            f"{what} must be a string{such_as}, got {shown(value, typed=True)}.",
            what=what,
            value=value,
        )
    return value


def is_listing(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether something lists values; text does not, nor does an array without axes.

    Examples:
        >>> is_listing([1]), is_listing("ab"), is_listing(torch.tensor(1.0))
        (True, False, False)
    """
    listing = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    return listing and getattr(value, "ndim", 1) != 0


def names(value: object, what: str, example: str) -> tuple[str, ...]:
    """Return a list of names as a tuple, or refuse it; one string is no list.

    Examples:
        >>> names(["a", "b"], "modules", "['a']")
        ('a', 'b')
    """
    ordered = is_listing(value) and not isinstance(value, Mapping | Set)
    members: tuple[Any, ...] = tuple(value) if ordered else ()  # type: ignore[arg-type]
    if not ordered or not all(isinstance(member, str) for member in members):
        raise NnlrError(
            f"{what} must be a list of names such as {example}, got {shown(value)}.",
            what=what,
            value=value,
        )
    return members


def instance(value: object, what: str, kind: type[Kind], fix: str = "") -> Kind:
    """Return an object of a class, or refuse it; ``fix`` says what to pass.

    Examples:
        >>> instance(torch.zeros(1), "x", torch.Tensor)
        tensor([0.])
    """
    if not isinstance(value, kind):
        name = {"Module": "torch.nn.Module"}.get(kind.__name__, kind.__name__)
        article = "an" if name[0] in "AEIOU" else "a"
        is_class = isinstance(value, type) and issubclass(value, kind)
        hint = f"Make one: {kind.__name__}(...)." if is_class else fix
        raise NnlrError(
            f"{what} must be {article} {name}, got {shown(value, typed=True)}. {hint}".rstrip(),
            what=what,
            value=value,
        )
    return value


def optional_mapping(value: object, what: str, example: str) -> Mapping[Any, Any]:
    """Return a mapping, which is empty for None, or refuse anything else.

    Examples:
        >>> optional_mapping(None, "roles", "{selector: role}")
        {}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise NnlrError(f"{what} must be a mapping {example}, got {shown(value)}.", value=value)
    return value


def function(value: object, what: str, example: str) -> Callable[..., Any]:
    """Return something that can be called, or refuse it; ``example`` is such a function.

    Examples:
        >>> function(len, "test", "lambda x: True")([1])
        1
    """
    if not callable(value):
        raise NnlrError(
            f"{what} must be a function such as {example}, got {shown(value, typed=True)}.",
            what=what,
            value=value,
        )
    return value


def choice(value: object, what: str, words: Collection[Word]) -> Word:
    """Return one of the allowed words, or refuse any other value.

    Examples:
        >>> choice("adam", "optimizer", ("adam", "sgd"))
        'adam'
    """
    if isinstance(value, str):
        for word in words:
            if word == value:
                return word
    hint = nearest_hint(value, words) if isinstance(value, str) else ""
    raise NnlrError(
        f"{what} must be one of {', '.join(map(repr, words))}; got {shown(value)}. {hint}".rstrip(),
        what=what,
        value=value,
    )


@dataclass(frozen=True, repr=False, eq=False)
class Written:
    """A call that a user would write. Its repr is that call; configurations read its parts."""

    name: str
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The call."""
        arguments = [_as_code(value) for value in self.args]
        arguments += [f"{name}={_as_code(value)}" for name, value in self.kwargs.items()]
        return f"{self.name}({', '.join(arguments)})"


def _as_code(value: object) -> str:
    """A value as one writes it: ``slice(0.1)``, not ``slice(None, 0.1, None)``."""
    if not isinstance(value, slice):
        return repr(value)
    start = "" if value.start is None else f"{value.start!r}, "
    return f"slice({start}{value.stop!r})"


def as_call(function: Callable[..., object], *args: object, **kwargs: object) -> Written:
    """The call that a user would write; arguments at their defaults are left out.

    Examples:
        >>> def power(base, exponent=2): ...
        >>> as_call(power, 3, exponent=2), as_call(power, base=3, exponent=4)
        (power(3), power(base=3, exponent=4))
    """
    defaults = signature(function).parameters
    others = {
        name: value
        for name, value in kwargs.items()
        if name not in defaults or value != defaults[name].default
    }
    return Written(function.__name__, args, others)


def by_fields(value: object) -> Written:
    """The call of a class with the fields of a dataclass, none for other objects.

    Examples:
        >>> by_fields(object())
        object()
    """
    by_name = fields(value) if is_dataclass(value) else ()
    return Written(
        type(value).__name__, (), {each.name: getattr(value, each.name) for each in by_name}
    )


class Call:
    """Base of frozen dataclasses that are written as the call that makes them.

    Fields before ``KW_ONLY`` are written by position, those after it by name; what equals its
    default is left out. The function is called like the class in snake case, unless ``_call``
    names it.

    Examples:
        >>> from dataclasses import KW_ONLY, dataclass
        >>> @dataclass(frozen=True, repr=False)
        ... class LayerPower(Call):
        ...     base: float
        ...     _: KW_ONLY
        ...     exponent: int = 2
        >>> LayerPower(3), LayerPower(3, exponent=4)
        (layer_power(3), layer_power(3, exponent=4))
    """

    _call: ClassVar[str] = ""

    def written_as(self) -> Written:
        """The call that a user would write."""
        by_position, args, kwargs = True, [], {}
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            factory = each.default_factory
            default = each.default if factory is MISSING else factory()
            if default is not MISSING and value == default:
                by_position = False  # what comes after a gap needs its name
            elif by_position and not each.kw_only:
                args.append(value)
            else:
                kwargs[each.name] = value
        name = self._call or re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        return Written(name, tuple(args), kwargs)

    def __repr__(self) -> str:
        """The call that a user would write."""
        return repr(self.written_as())


def options(values: object, where: str) -> dict[str, Plain]:
    """Return per-group settings as plain Python values, or refuse them.

    Only plain values survive ``torch.load(weights_only=True)``, which trainers use to
    resume. So numpy scalars are converted, and what cannot be converted is refused.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"options of {where} must be a mapping such as {{'betas': (0.9, 0.95)}}, "
            f"got {shown(values, typed=True)}."
        )
    plain = {}
    for key, value in dict(values).items():
        if not isinstance(key, str) or not key.isidentifier():
            raise ConfigError(
                f"options of {where} has the key {shown(key)}: a key must be the name of an "
                "optimizer argument.",
                key=key,
            )
        if key in RESERVED_OPTIONS:
            fix = {
                "lr": "use lr= or lr_mult=",
                "weight_decay": "use weight_decay= or wd_mult=",
                "lr_mult": "pass lr_mult= beside options",
                "wd_mult": "pass wd_mult= beside options",
            }.get(key, "leave it out, it is written for you")
            raise ConfigError(f"options of {where} may not set {key!r}: {fix}.", key=key)
        plain[key] = _plain(value, f"option {key!r} of {where}")
    return plain


def _plain(value: object, what: str) -> Plain:
    """The value of an option as plain Python, or refuse it."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        if math.isnan(value):
            raise ConfigError(f"{what} is NaN.", value=value)
        return float(value)
    if isinstance(value, list | tuple):
        try:
            return tuple(_plain(item, what) for item in value)
        except RecursionError:
            raise ConfigError(f"{what} holds itself.", value=value) from None
    raise ConfigError(
        f"{what} must be a number, a string, a bool, None or a tuple of these (what a "
        f"checkpoint can hold), got {shown(value, typed=True)}.",
        value=value,
    )


def flag(value: object, what: str) -> bool:
    """Return a switch, or refuse what is not one."""
    if not isinstance(value, bool):
        raise NnlrError(
            f"{what} must be True or False, got {shown(value)}.", what=what, value=value
        )
    return value
