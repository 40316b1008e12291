"""Rates or decay by what the network shows: a probe, a mapping, and when to look.

    multiplier(unit) = mapping(statistics of all units)(unit)

The general form of TempBalance, LLR, AlphaDecay, auto-RGN and auto-SNR, which are a line of it
each: see the files beside this one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self, cast

from nnlr._arguments import Written, as_call, choice, whole
from nnlr._declare.factor import NEUTRAL, Factor, Update
from nnlr._declare.moves import Moves, Setting
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note
from nnlr._model.describe import ModelInfo
from nnlr._text import shown
from nnlr.errors import ConfigError, NnlrError
from nnlr.schemes._measured.mappings import SetMap
from nnlr.schemes._measured.measured import Measured, Rule
from nnlr.schemes._measured.probes import Alpha, Probe, alpha_text
from nnlr.schemes._measured.units import BY, By, Unit, units_of

if TYPE_CHECKING:
    from torch import Tensor


def assign(
    probe: "str | Callable[[Any], Tensor | float | None]",
    mapping: str | Callable[[Sequence[float]], Sequence[float]],
    *,
    every: int | str,
    setting: Setting = "lr",
    ramp: int = 0,
    by: By = "module",
    batches: int = 1,
) -> Scheme:
    """Rates, or decay, by a statistic that is measured while training.

    Over the first ``batches`` steps of each period the probe is read for every unit, in all its
    steps with the gradients there; then the mapping turns the statistics of all units into their
    multipliers. A unit without a statistic stays where it is, which is 1 at the start. Restrict it
    by ``where``: only what it acts on is measured. ``nnlr.attach`` has it act.

    Args:
        probe: ``"rgn"``, ``"snr"``, ``"grad_norm"``, ``"weight_norm"``, ``"update"``, ``"alpha"``
            or ``"alpha(min_eigenvalues=50, max_size=4096)"``; or a function of a unit, which has
            ``unit.tensors``, ``unit.names``, ``unit.params`` and ``unit.optimizer``, that returns
            a number, a tensor of one element, or ``None``. Of several processes all must
            return the same.
        mapping: ``"linear(s1, s2)"``, ``"rank(s1, s2)"``, ``"sqrt"``, ``"log2"``,
            ``"sigmoid(4)"``, ``"max"``, ``"threshold(t)"`` or ``"balance(p, s1, s2)"``; or a
            function of the list of statistics that returns as many multipliers, finite, >= 0.
        every: How long a period is: optimizer steps, >= 1, or ``"epoch"``, as ended by
            ``attached.end_epoch()``.
        setting: What moves, ``"lr"`` or ``"weight_decay"``.
        ramp: Steps of the straight line from the old multiplier to the new one, >= 0.
        by: What moves together: a ``"tensor"``, a ``"module"`` (bias with weight, a batch norm
            with its layer), or a ``"layer"`` by depth.
        batches: Steps whose statistics are averaged, >= 1 and at most a period. An epoch that
            has fewer gives what it has, at its end.

    Raises:
        ConfigError: If there is no such probe or mapping, or its arguments are wrong; while
            training, if a function returns something else.
        NnlrError: If another argument is none of these; at resolve, if no depth is found.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
        >>> plan = nnlr.resolve(net, assign("rgn", "max", every=10), lr=0.1, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.SGD)
        >>> attached = nnlr.attach(optimizer, plan)
        >>> net(torch.randn(8, 64)).square().mean().backward()
        >>> optimizer.step()
        >>> max(unit.mult for unit in attached.units)
        1.0
    """
    return Assign.of(
        probe, mapping, every=every, setting=setting, ramp=ramp, by=by, batches=batches
    )


SETTINGS: Final[tuple[Setting, ...]] = ("lr", "weight_decay")

# What a scheme gives to parameters that it does not move, by position.
Fixed = Callable[[ModelInfo], Mapping[int, Factor]]


def nothing(_: ModelInfo) -> Mapping[int, Factor]:
    """No parameter is fixed."""
    return {}


@dataclass(frozen=True, repr=False, eq=False)
class Assign(Scheme):
    """Measured multipliers; made by :func:`assign` and by the schemes that are a case of it.

    Attributes:
        rule: What is measured, what becomes of it, when, and what it moves.
        by: What moves together.
        update: Whose steps it is right for.
        fixed: What parameters get that do not move, if the scheme says so.
        written: The call of a published scheme.
    """

    rule: Rule
    by: By
    update: Update | None
    fixed: Fixed = nothing
    written: Written | None = None

    @classmethod
    def of(
        cls,
        probe: object,
        mapping: object,
        *,
        every: object,
        setting: object = "lr",
        ramp: object = 0,
        by: object = "module",
        batches: object = 1,
        update: Update | None = None,
    ) -> Self:
        """Check the arguments of :func:`assign`."""
        if isinstance(every, str) and every != "epoch":
            raise NnlrError(
                f"every must be a number of optimizer steps, or 'epoch'; got {shown(every)}.",
                what="every",
                value=every,
            )
        rule = Rule(
            cast("str | Probe", probe),
            cast("str | SetMap", mapping),
            every if isinstance(every, str) else whole(every, "every", minimum=1),
            whole(batches, "batches", minimum=1),
            whole(ramp, "ramp", minimum=0),
            choice(setting, "setting", SETTINGS),
        )
        rule.as_probe()
        rule.as_mapping()
        if isinstance(rule.every, int) and rule.batches > rule.every:
            raise ConfigError(
                f"batches={rule.batches} is more than a period has: every={rule.every} steps. Pass "
                f"batches={rule.every}, or a longer period.",
                what="batches",
                value=rule.batches,
            )
        return cls(rule, choice(by, "by", BY), update)

    def published(
        self,
        written: Written,
        fixed: Fixed = nothing,
    ) -> Scheme:
        """The same as a scheme with a name of its own, that fixes some parameters."""
        return replace(self, written=written, fixed=fixed)

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """A move for each parameter of a unit, with one name for all of the unit."""
        move, factors = Measured(self.rule), [NEUTRAL] * len(model.params)
        for index, factor in self.fixed(model).items():
            factors[index] = factor
        for unit in self._moving(model):
            moves = Moves(self.rule.setting, unit.name, self._how())
            for index in unit.members:
                factors[index] = Factor(
                    moves=moves, move=move, layer=unit.layer, update=self.update
                )
        return factors

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Which matrices have no spectrum taken, as they are too large, or too small."""
        probe = self.rule.as_probe()
        if not isinstance(probe, Alpha):
            return ()
        fixed = self.fixed(model)
        names: dict[str, list[str]] = {}
        for index, param in enumerate(model.params):
            why = probe.why_not(param.shape, param.role)
            if why and index not in fixed and param.requires_grad:
                names.setdefault(why, []).append(param.name)
        return [
            note(
                "not-measured",
                left,
                f"{self!r} takes no spectrum of what has {why}, and leaves it at the base rate",
                "Nothing has to be done; other bounds are those of "
                "nnlr.assign('alpha(min_eigenvalues=50, max_size=4096)', ...)",
            )
            for why, left in names.items()
        ]

    def _moving(self, model: ModelInfo) -> Iterator[Unit]:
        """The units that have something to measure."""
        fixed, probe = self.fixed(model), self.rule.as_probe()
        params = model.params
        among = [i for i, param in enumerate(params) if param.requires_grad and i not in fixed]
        for unit in units_of(model, self.by, among):
            members = [params[index] for index in unit.members]
            if not isinstance(probe, Alpha) or any(
                probe.why_not(param.shape, param.role) is None for param in members
            ):
                yield unit

    def _how(self) -> str:
        """How it moves, in a phrase."""
        probe, mapping = _Name.of(self.rule.probe), _Name.of(self.rule.mapping)
        every = {1: "step", "epoch": "epoch"}.get(self.rule.every, f"{self.rule.every} steps")
        return f"by {probe}, {mapping}, every {every}"

    def written_as(self) -> Written:
        """The call that makes it."""
        return self.written or as_call(
            assign,
            self.rule.probe,
            self.rule.mapping,
            every=self.rule.every,
            setting=self.rule.setting,
            ramp=self.rule.ramp,
            by=self.by,
            batches=self.rule.batches,
        )

    def __repr__(self) -> str:
        """The call, with functions by their names."""
        written = self.written_as()
        args = tuple(map(_Name.of, written.args))
        kwargs = {key: _Name.of(value) for key, value in written.kwargs.items()}
        return repr(replace(written, args=args, kwargs=kwargs))


def by_spectrum(
    published: Callable[..., Scheme],
    fixed: Fixed,
    *,
    setting: Setting = "lr",
    **arguments: Any,
) -> Scheme:
    """The scheme of a published function that goes by spectra, from its arguments in order."""
    probe = alpha_text(arguments["min_eigenvalues"], arguments["max_size"])
    every, ramp = arguments["every"], arguments["ramp"]
    scheme = Assign.of(probe, arguments["mapping"], every=every, ramp=ramp, setting=setting)
    return scheme.published(as_call(published, **arguments), fixed)


class _Name(str):
    """The name of a function, in a call."""

    __slots__ = ()

    @classmethod
    def of(cls, value: object) -> object:
        """The name of a function; any other value as it is."""
        return cls(getattr(value, "__name__", type(value).__name__)) if callable(value) else value

    def __repr__(self) -> str:
        return str(self)
