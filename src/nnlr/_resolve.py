"""From a model and schemes to a plan: the front door of the library."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from torch import nn

from nnlr._apply.param_groups import ParamGroup
from nnlr._arguments import is_listing, optional_mapping
from nnlr._declare.factor import Factor, Step, Trace
from nnlr._declare.on_modules import declarations
from nnlr._declare.scheme import Scheme, as_schemes
from nnlr._declare.ties import check_settled, settle
from nnlr._declare.traces import merge
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo, check_role, describe, uncollected, with_roles
from nnlr._model.names import Source
from nnlr._model.reference import reference_to
from nnlr._plan import Plan
from nnlr._rows.findings import plan_findings, without_parameters
from nnlr._rows.groups import Locked
from nnlr._rows.rates import Decay, Rate, make_bases
from nnlr._rows.row import make_rows, refuse_unrouted
from nnlr._select.selector import Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import shown
from nnlr.errors import CallError, NnlrError

P = ParamSpec("P")
R = TypeVar("R")

_SPARSE: Final = Factor(wd_mult=0.0, why="optimizers cannot decay what has sparse gradients")


def needs_rates(function: Callable[P, R]) -> Callable[P, R]:
    """Say what to pass where ``lr`` or ``weight_decay`` is missing, before Python does."""

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, fix in _RATES.items():
            if name not in kwargs:
                raise CallError(f"{function.__name__} needs {name}=, by name: {fix}.", what=name)
        return function(*args, **kwargs)

    return checked


# What to pass for each base rate.
_RATES: Final = {
    "lr": "the base learning rate, which multipliers are relative to, such as lr=1e-3",
    "weight_decay": "the base weight decay; weight_decay=0 if nothing should decay",
}


@needs_rates
@uncollected()
def resolve(
    model: Source,
    *schemes: Scheme,
    lr: Rate,
    weight_decay: Rate,
    decay: Decay = "coupled",
    tied: Mapping[str, str] | None = None,
    roles: Mapping[str | Selector, str] | None = None,
) -> Plan:
    """Work out the learning rate and weight decay of every parameter.

    ``lr = base_lr * product(lr_mult)`` and ``weight_decay = base * product(wd_mult)``, over
    the factors of all schemes and of what is declared on the modules. The model is not
    touched.

    Args:
        model: A module, a mapping of names to tensors, or ``(name, tensor)`` pairs.
        *schemes: Schemes, which multiply.
        lr: Base learning rate, finite, > 0; or one for each algorithm of :func:`nnlr.route` or
            ``rule(..., algorithm=)``: ``{"muon": 0.02, "adamw": 3e-4}``.
        weight_decay: Base weight decay, finite, >= 0; likewise.
        decay: What a small ``lr_mult`` does to decay under AdamW, which shrinks weights by
            ``lr * weight_decay``: ``"coupled"`` shrinks them less (torch's own way),
            ``"independent"`` divides ``wd_mult`` by ``lr_mult`` so that they shrink as
            before, ``"sqrt"`` divides by its root. A decay set absolutely stays.
        tied: For tied tensors with declarations that disagree, ``{alias: name}``: what
            reached the tensor by ``alias`` does not count.
        roles: ``{selector: role}``, to correct what was found. Entries that
            reach one parameter must agree.

    Raises:
        NnlrError: If an argument is out of range.
        PatternError: If a selector matches nothing or a rule has no effect.
        CoverageError: If ``rules(..., complete=True)`` leaves parameters over, or base rates are
            those of algorithms and no algorithm trains one.
        ConfigError: If two schemes set one option differently.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.1), lr=0.01, weight_decay=0.1)
        >>> plan["0.weight"].lr
        0.001
        >>> plan
        Plan(Sequential: 4 parameters, 2 groups, lr=0.01, weight_decay=0.1)
    """
    bases = make_bases(lr, weight_decay, decay)
    schemes = as_schemes(schemes)

    # What the model is: names, shapes, roles, ties.
    info = describe(model)
    if not info.params and info.module is None:
        raise NnlrError(
            f"There is nothing to resolve: {shown(model)} holds no tensors. An iterator such as "
            "model.named_parameters() can be read once only; pass the model.",
            value=model,
        )
    info = _with_user_roles(info, roles)
    overruled = check_settled(tied, info)

    # What is declared about each parameter: its trace, one step for each factor.
    parts = [_sparse(info), declarations(info, overruled)]
    parts += [scheme.steps(info) for scheme in schemes]
    traces = settle(merge(parts), info, overruled)

    # What the factors multiply to: one row for each parameter.
    rows = make_rows(info.params, traces, bases)
    refuse_unrouted(rows, bases, info.label)
    findings = [*plan_findings(rows, info), *without_parameters(rows, bases)]
    for scheme in schemes:
        findings += _findings_of(scheme, info)
    return Plan(rows, bases, info.label, tuple(findings), reference_to(model, info))


def _findings_of(scheme: Scheme, info: ModelInfo) -> list[Finding]:
    """The findings of a scheme, which may be of a user's own."""
    findings = scheme.findings(info)
    if not is_listing(findings) or not all(isinstance(item, Finding) for item in findings):
        raise NnlrError(
            f"{scheme!r} gave {shown(findings)}: findings(model) returns a list of findings, "
            "which may be empty.",
            value=findings,
        )
    return list(findings)


def _with_user_roles(info: ModelInfo, roles: object) -> ModelInfo:
    """The same model with the roles of ``resolve(..., roles={selector: role})``."""
    roles = optional_mapping(roles, "roles", "{selector: role}")
    chosen: dict[int, str] = {}
    for selector, role in roles.items():
        entry = f"roles={{{shown(selector)}: {shown(role)}}}"
        check_role(role)
        matches = must_match(as_selector(selector, "roles"), info, entry, may_be_optional=False)
        for index in sorted(matches):
            if (earlier := chosen.setdefault(index, role)) != role:
                name = info.params[index].name
                raise NnlrError(
                    f"{entry} speaks of {name!r}, which an earlier entry of roles= makes "
                    f"{earlier!r}. Narrow one of them, so that each parameter has one role.",
                    name=name,
                )
    return with_roles(info, chosen) if chosen else info


def _sparse(info: ModelInfo) -> dict[int, Trace]:
    """Traces that switch the weight decay of sparse parameters off."""
    trace = (Step("sparse gradient", _SPARSE),)
    return {index: trace for index, param in enumerate(info.params) if param.sparse}


@needs_rates
def param_groups(
    model: Source,
    *schemes: Scheme,
    lr: Rate,
    weight_decay: Rate,
    decay: Decay = "coupled",
    names: bool = True,
    locked: Locked = "drop",
) -> list[ParamGroup]:
    """Parameter groups in one call: ``resolve(...).param_groups(...)``.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Linear(2, 1)
        >>> groups = nnlr.param_groups(net, nnlr.rule("bias", wd_mult=0), lr=0.1, weight_decay=0.01)
        >>> optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01)
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.01, 0.0]
    """
    plan = resolve(model, *schemes, lr=lr, weight_decay=weight_decay, decay=decay)
    # An iterator of pairs is used up by now; the plan remembers its tensors.
    reusable = model if isinstance(model, nn.Module | Mapping) else None
    return plan.param_groups(reusable, names=names, locked=locked)
