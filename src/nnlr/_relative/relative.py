"""Relative updates on any optimizer: LARS, LAMB, a fixed relative change, a fixed norm."""

import copy
from collections.abc import Mapping
from math import inf
from typing import Any, Final, Literal

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nnlr._model.names import Source
from nnlr._relative.gradients import Gradients
from nnlr._relative.kinds import Lars, kind_of
from nnlr._relative.rescale import Rescale
from nnlr._relative.targets import Targets
from nnlr._relative.update import Update, updates_of
from nnlr._sandbox import arguments, undisturbed
from nnlr._schedule.base_rate import runs_step_hooks
from nnlr._select.selector import Selector, as_selector
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, NnlrError
from nnlr.optim._mixed import by_algorithm, member_of
from nnlr.optim._wrapped import unwrapped


def relative(
    optimizer: Optimizer,
    kind: str,
    *,
    select: Selector | str | None = None,
    stacked: Selector | str | Literal[False] | None = None,
    algorithm: str | None = None,
    model: Source | None = None,
    **settings: bool | float,
) -> RemovableHandle:
    r"""Measure what each step adds to a weight by how large the weight is.

    W is a weight matrix, g its gradient, U what the optimizer's own step would add to W, lr
    the rate of its group, norms are Euclidean ones, in float32 or wider:

    ===============  =====================================================================
    ``"relative"``   W becomes W + lr \|W\| U / \|U\|
    ``"hyperball"``  V = W + lr R U / \|U\|; W becomes R V / \|V\|; R is \|W\| before the
                     first step
    ``"lamb"``       W becomes W + r U; r = lr \|W\| / \|U\|
    ``"lars"``       g becomes r (g + wd W); r = trust_coeff \|W\| / (\|g\| + wd \|W\| + eps)
    ===============  =====================================================================

    Under the first two ``group["lr"]`` *is* the relative change of a matrix in a step, and
    ``lr_mult`` multiplies it. They act on matrices: parameters with at least two axes longer
    than 1; the others are stepped as before. A stack of matrices (experts) has a norm for each,
    and so have sharded ones that of the whole. ``"lamb"`` makes LAMB of AdamW, ``"lars"`` makes
    LARS of SGD with momentum; as in timm they act on all parameters of groups with weight decay,
    or on all with ``always_adapt``. Where one of their norms is 0, r is 1.

    Parameters without a gradient stay as they are. There is a copy of what is acted on (of its
    gradients under ``"lars"``): on a GPU while a step runs, on a CPU between steps too. Under
    ``"hyperball"`` R stands in the state of each parameter as ``"radius"``, and is saved with it.

    Args:
        optimizer: Any torch optimizer, or one of ``nnlr.optim``.
        kind: ``"relative"``, ``"hyperball"``, ``"lamb"`` or ``"lars"``.
        select: Which parameters are acted on, in place of the rules above.
        stacked: Which parameters of three or more axes are stacks of matrices, those of the last
            two axes; ``False`` for none. ``None`` for what is no convolution's by the model, or
            else by its name. Every other parameter is one matrix.
        algorithm: Act on the groups of one algorithm of :class:`nnlr.optim.Mixed` only.
        model: The model, where ``select`` or ``stacked`` look at more than names, or the
            optimizer does not know these. One that a plan has built knows its model.
        **settings: Of ``"lamb"`` and ``"lars"``: ``trust_clip``, r is at most 1 (LAMBC, LARC);
            ``always_adapt``, act on groups without weight decay too. Of ``"lars"`` also
            ``trust_coeff=0.001`` and ``eps=1e-8``, both at least 0.

    Returns:
        A handle; ``handle.remove()`` ends it, and drops R. It does not travel with copies and
        checkpoints of the optimizer: call it again on those.

    Raises:
        ConfigError: If nothing is acted on, or a parameter is by two calls; if one is complex, or a
            matrix is 0, or has weight decay under ``"hyperball"``; if the optimizer has no ``lr``,
            or under ``"lars"`` its steps do not depend on the size of gradients. Later on, before
            a step, if that holds for a parameter that has come in.
        PatternError: If a selector matches no parameter.
        NnlrError: If an argument is none of these.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Linear(16, 16)
        >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        >>> handle = nnlr.relative(optimizer, "relative")
        >>> before = net.weight.detach().clone()
        >>> net(torch.ones(1, 16)).square().sum().backward()
        >>> optimizer.step()
        >>> change = (net.weight - before).norm() / before.norm()
        >>> print(f"{change.item():.6f}")
        0.010000

    References:
        You et al., `LARS <https://arxiv.org/abs/1708.03888>`_, 2017, and
        `LAMB <https://arxiv.org/abs/1904.00962>`_, 2019; Wen et al.,
        `Hyperball <https://arxiv.org/abs/2606.16899>`_, 2026.
    """
    optimizer = _optimizer(optimizer)
    rule = kind_of(kind, settings)
    names = [name for name in by_algorithm(optimizer, empty=True) if name is not None]
    if algorithm is not None and algorithm not in names:
        raise ConfigError(
            f"algorithm={shown(algorithm)} is none of the optimizer's: "
            f"{listed(map(repr, names)) or 'its groups name none'}. "
            f"{nearest_hint(str(algorithm), names)}".rstrip(),
            algorithm=algorithm,
        )
    targets = Targets(
        rule,
        None if select is None else as_selector(select, "select"),
        stacked if stacked is None or stacked is False else as_selector(stacked, "stacked"),
        algorithm,
        model,
    )
    update: Update = Gradients(rule, targets) if isinstance(rule, Lars) else Rescale(rule, targets)
    members = list(update.members(optimizer))
    if not members:
        why = {
            True: "none of its parameters has two axes longer than 1 (those of FSDP1 are flat)",
            False: "none of its groups has weight decay; pass always_adapt=True to act on all",
        }
        reason = (
            "select chooses none that it trains" if select is not None else why[rule.only_matrices]
        )
        raise ConfigError(f"relative(..., {kind!r}) would act on nothing: {reason}.")
    if any("lr" not in group for _, _, group in members):
        raise ConfigError(
            f"relative(..., {kind!r}) goes by the rate, and the param_groups of "
            f"{type(optimizer).__name__} have no 'lr'. Use a class that has learning rates."
        )
    if flat := [
        target.name for param, target, _ in members if getattr(param, "_fsdp_flattened", False)
    ]:
        raise ConfigError(
            f"{plural(len(flat), 'parameter', 'are')} flattened by FSDP1, of which each process "
            f"measures a part only: {listed(flat)}. Use fully_shard, whose norms are of the whole.",
            names=flat,
        )
    if strays := [target for param, target, _ in members if param.is_complex()]:
        raise ConfigError(
            f"relative(..., {kind!r}) is for real numbers, and "
            f"{plural(len(strays), 'parameter', 'are')} complex: "
            f"{listed(stray.name for stray in strays)}. Leave them out: "
            f"{targets.without(optimizer, strays)}.",
            names=[stray.name for stray in strays],
        )
    _refuse_overlap(optimizer, [(id(param), target.name) for param, target, _ in members])
    if isinstance(rule, Lars):
        _refuse_inert(optimizer, [group for group, _ in targets.members(optimizer)])
    update.refuse(optimizer, [each for each in members if each[0].requires_grad])
    return update.install(optimizer)


def _optimizer(value: object) -> Optimizer:
    """The optimizer, without a trainer's wrapper, or refuse what runs no hooks."""
    optimizer = unwrapped(value)
    if not isinstance(optimizer, Optimizer):
        raise NnlrError(
            f"relative needs a torch optimizer, got {shown(value, typed=True)}.", value=value
        )
    if not runs_step_hooks(optimizer):
        raise ConfigError(
            f"{type(optimizer).__name__} runs no step hooks. Call relative on the optimizer that "
            "it wraps."
        )
    return optimizer


def _refuse_overlap(optimizer: Optimizer, members: list[tuple[int, str]]) -> None:
    """Refuse to act on a parameter twice."""
    for other in updates_of(optimizer):
        taken = {id(param) for param, _, _ in other.members(optimizer)}
        if both := [name for key, name in members if key in taken]:
            raise ConfigError(
                f"relative(..., {other.kind.name!r}) acts on {plural(len(both), 'parameter')} of "
                f"these already: {listed(both)}. Call remove() of the handle that it returned, or "
                "choose others with select= or algorithm=.",
                names=both,
            )


# How much larger gradients are tried, how much longer the steps must become at least, and how
# many there are: those that RAdam begins with do grow with the gradient.
_LARGER: Final = 8.0
_LONGER: Final = 4.0
_STEPS: Final = 10

# What has no part in the length of a step, or asks for certain devices.
_OFF: Final = {
    "fused": None,
    "foreach": False,
    "capturable": False,
    "differentiable": False,
    "weight_decay": 0.0,
}


def _refuse_inert(optimizer: Optimizer, groups: list[Mapping[str, Any]]) -> None:
    """Refuse a class whose steps do not grow with the gradient: a trust ratio is divided out."""
    for member in {id(each): each for each in (member_of(optimizer, g) for g in groups)}.values():
        short, long = _step_of(member, 1.0), _step_of(member, _LARGER)
        if short > 0 and long < _LONGER * short:
            raise ConfigError(
                "relative(..., 'lars') multiplies gradients, and the steps of "
                f"{type(member).__name__} hardly depend on the size of gradients: with "
                f"{_LARGER:g} times larger ones they are {long / short:.3g} times as long. "
                "Use SGD with momentum, or "
                f"relative(..., 'lamb') with {type(member).__name__}."
            )


def _step_of(optimizer: Optimizer, size: float) -> float:
    """How far the last of some steps moves a small parameter, for a size of gradients.

    0 if unknown.
    """
    settings = {**optimizer.defaults, **_OFF, "lr": 0.01}
    accepted = arguments(type(optimizer))
    built_with = {key: copy.deepcopy(settings[key]) for key in accepted if key in settings}
    source = torch.Generator("cpu").manual_seed(0)
    with undisturbed():
        param = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.float64, device="cpu"))
        before = param.detach().clone()
        try:
            trial = type(optimizer)([param], **built_with)
            for _ in range(_STEPS):
                before.copy_(param.detach())
                param.grad = size * torch.randn(4, 4, generator=source, dtype=torch.float64)
                trial.step()
        except Exception:  # noqa: BLE001 - anyone's optimizer
            return 0.0
    distance = float((param.detach() - before).norm())
    return distance if distance < inf else 0.0
