"""Gradual unfreezing: phases of training, each of which opens more of the network.

    lr(p, t) = 0                                    before the phase of p: locked, no state
    lr(p, t) = base(t) * lr_mult * move(p, t)       from then on; see _phases/move.py

References: Howard and Ruder 2018 (arXiv 1801.06146), Kumar et al. 2022 (arXiv 2202.10054);
the order of phases as data follows finetuning-scheduler.
"""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Final, Literal, get_args

from nnlr._arguments import Written, as_call, choice, flag, number, whole
from nnlr._declare.factor import NEUTRAL, Factor, Step, Trace
from nnlr._declare.moves import Moves
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, warning
from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Indices, Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural, shown
from nnlr.errors import CoverageError, NnlrError, PatternError
from nnlr.schemes._layer_groups import AnyGroups, GroupPlace, Groups, as_groups
from nnlr.schemes._phases.move import Member, Mode, Phases
from nnlr.schemes._phases.phase import Checked, Phase, checked, in_order
from nnlr.schemes._phases.presets import PATIENCE, PRESETS, Preset, phases_of

Rest = Literal["error", "frozen", "trained"]
BatchNorm = Literal["eval", "train"]

Parts = tuple[Selector | int, ...]

_LOCKED: Final = Factor(lr_mult=0, why="in no phase")


def unfreeze(
    phases: Preset | Sequence[Phase],
    groups: AnyGroups = None,
    *,
    epochs: int | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    mode: Mode = "min",
    warmup: int = 0,
    keep: Selector | str | None = None,
    rest: Rest = "error",
    batch_norm: BatchNorm = "eval",
    restore_best: bool = False,
) -> Scheme:
    """Unfreeze a network in phases: what is not yet trained has no gradient and no state.

    ``lr_mult`` is 0 before the phase of a parameter, and that of the phase from then on. Groups
    are there from the start, so that nothing is rebuilt. :func:`nnlr.attach` has it act, and
    ``attached.end_epoch(metric)`` tells it of epochs. References: arXiv 1801.06146 (ULMFiT),
    2202.10054 (linear probing, then fine-tuning).

    Args:
        phases: A list of mappings, in the order in which they begin. ``train`` says what is
            trained from then on: a pattern, a selector, the number of a group (-1 is the last), or
            a list of these; of several phases the first that matches a parameter has it. The first
            phase begins with training, each other at ``epoch`` (epochs that have ended), ``step``,
            ``fraction`` (of the run), or once the metric has not improved for ``patience`` epochs,
            whichever comes first. It may have ``lr_mult`` or an absolute ``lr``, ``warmup`` steps
            from its beginning on, and ``earlier``, a factor on the rates of all earlier phases
            from then on. Or a published order: ``"ulmfit"``, the last group first and one more
            after each epoch; ``"lp_ft"``, the last group, then everything at a tenth;
            ``"fine_tune"``, likewise at half the rate, as in fastai; ``"finetuning_scheduler"``,
            the schedule that finetuning-scheduler generates.
        groups: What numbers count, from the input to the head, as in :func:`discriminative`.
        epochs: How many epochs a phase of a published order lasts; with ``patience``, phase n
            begins at epoch ``n * epochs`` at the latest. By default 1, or without end.
        patience: That of all phases that have none of their own, >= 1.
        min_delta: By how much a metric has to be better to count as better, >= 0.
        mode: Whether a metric is better if it is ``"min"`` or ``"max"``.
        warmup: That of all phases but the first that have none of their own, in steps.
        keep: What is trained from the start all the same: ``nnlr.role("norm")``.
        rest: What becomes of parameters in no phase: an ``"error"``, ``"frozen"`` for the whole
            run, or ``"trained"`` from the start.
        batch_norm: ``"eval"``: running statistics of layers that wait stand still, and normalise
            as in evaluation, however often ``model.train()`` is called. ``"train"``: they run.
        restore_best: Begin each phase from the weights and buffers at which the metric was
            best. A copy is kept on the CPU and saved with the optimizer; sharded weights are
            refused at ``attach``.

    Raises:
        NnlrError: If a phase is none, or phases do not begin one after another; at resolve, if
            there is no such group.
        PatternError: At resolve, if a phase is left with nothing, or ``keep`` with nothing to keep.
        CoverageError: At resolve, if a trainable parameter is in no phase.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> scheme = unfreeze([{"train": "1.*"}, {"train": "0.*", "epoch": 1, "lr_mult": 0.1}])
        >>> plan = nnlr.resolve(net, scheme, lr=0.5, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.Adam)
        >>> attached = nnlr.attach(optimizer, plan)
        >>> for epoch in range(2):
        ...     print([(group["name"], group["lr"]) for group in optimizer.param_groups])
        ...     attached.end_epoch()
        [('lr1_wd1', 0.5), ('phase1_lr0.1_wd1', 0.0)]
        [('lr1_wd1', 0.5), ('phase1_lr0.1_wd1', 0.05)]
    """
    warmup = whole(warmup, "warmup", minimum=0)
    patience = None if patience is None else whole(patience, "patience", minimum=1)
    order: Preset | tuple[tuple[Parts, Checked], ...]
    if isinstance(phases, str):
        order = choice(phases, "phases", PRESETS)
        epochs = None if epochs is None else whole(epochs, "epochs", minimum=1)
    else:
        if epochs is not None:
            raise NnlrError("epochs= is for published orders; phases have an 'epoch' each.")
        order = _order(phases, patience, warmup)
        numbered = any(isinstance(part, int) for parts, _ in order for part in parts)
        if groups is not None and not numbered:
            raise NnlrError(
                f"groups={shown(groups)} is what numbers of groups count, and no phase has one: "
                "{'train': -1}."
            )
    return Unfreeze(
        phases if isinstance(phases, str) else [dict(phase) for phase in phases],
        order,
        as_groups(groups),
        epochs=epochs,
        patience=patience,
        min_delta=number(min_delta, "min_delta"),
        mode=choice(mode, "mode", get_args(Mode)),
        warmup=warmup,
        keep=None if keep is None else as_selector(keep, "keep"),
        rest=choice(rest, "rest", get_args(Rest)),
        batch_norm=choice(batch_norm, "batch_norm", get_args(BatchNorm)),
        restore_best=flag(restore_best, "restore_best"),
    )


def _order(phases: object, patience: int | None, warmup: int) -> tuple[tuple[Parts, Checked], ...]:
    """Check a list of phases, and give them what they have from outside."""
    if not isinstance(phases, list | tuple):
        raise NnlrError(
            f"unfreeze needs a list of phases, or one of {', '.join(map(repr, PRESETS))}; got "
            f"{shown(phases, typed=True)}."
        )
    order = []
    for position, phase in enumerate(phases):
        parts, settings = checked(phase, position)
        if position:
            if settings.patience is None:
                settings = replace(settings, patience=patience)
            if "warmup" not in phase:
                settings = replace(settings, warmup=warmup)
        order.append((parts, settings))
    in_order([settings for _, settings in order])
    return tuple(order)


@dataclass(frozen=True, repr=False, eq=False)
class Unfreeze(Scheme):
    """Phases of training; made by :func:`unfreeze`."""

    phases: Preset | list[dict[str, object]]  # as they were written
    order: Preset | tuple[tuple[Parts, Checked], ...]
    groups: Groups
    _: KW_ONLY
    epochs: int | None
    patience: int | None
    min_delta: float
    mode: Mode
    warmup: int
    keep: Selector | None
    rest: Rest
    batch_norm: BatchNorm
    restore_best: bool

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for each phase; neutral for what is in none."""
        steps = self.steps(model)
        return [steps[i][0].factor if i in steps else NEUTRAL for i in range(len(model.params))]

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """One step for each phase, and one for what is trained from the start all the same."""
        phases = self._phases(model)
        settings = [each for _, each in phases]
        protected = self._kept(model, phases)
        first_moves = self.restore_best or any(
            each.warmup if not position else each.earlier is not None
            for position, each in enumerate(settings)
        )
        members: dict[str, Member] = {}
        move = Phases(
            phases=settings,
            members=members,
            min_delta=self.min_delta,
            mode=self.mode,
            norm_eval=self.batch_norm == "eval",
            restore_best=self.restore_best,
        )
        traces: dict[int, Trace] = {}
        for position, (indices, each) in enumerate(phases):
            for always in (False, True):
                chosen = indices & protected if always else indices - protected
                name = f"phase{position}_kept" if always else f"phase{position}"
                how = _how(settings, position, self.mode, always=always)
                factor = Factor(lr_mult=each.lr_mult, lr=each.lr, why=how)
                if position or first_moves:
                    members[name] = Member(position, always)
                    factor = replace(factor, why="", moves=Moves("lr", name, how), move=move)
                step = Step(f"unfreeze phase {position}", factor)
                traces |= dict.fromkeys(sorted(chosen), (step,))
        if self.rest == "frozen":
            rest = (Step("unfreeze", _LOCKED),)
            traces |= {i: rest for i in range(len(model.params)) if i not in traces}
        elif self.restore_best:  # a unit of its own, so that it is restored with the phases
            members["rest"] = Member(len(phases), always=True)
            moves = Moves("lr", "rest", "trained from the start, x 1")
            rest = (Step("unfreeze", Factor(moves=moves, move=move)),)
            traces |= {i: rest for i in range(len(model.params)) if i not in traces}
        return traces

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Those of the groups, and parameters that no phase can open."""
        findings: list[Finding] = list(self.groups.findings(model)) if self._counts else []
        names = [
            model.params[index].name
            for indices, _ in self._phases(model)
            for index in sorted(indices)
            if not model.params[index].requires_grad
        ]
        if names:
            cause = "phases of unfreeze open these, and requires_grad is off, not by nnlr"
            fix = "Leave requires_grad on: unfreeze locks what waits, and opens it in its phase."
            findings.append(warning("frozen-in-a-phase", names, cause, fix))
        return findings

    @property
    def _counts(self) -> bool:
        """Whether groups of layers are asked for."""
        if isinstance(self.order, str):
            return self.order != "finetuning_scheduler"
        return any(isinstance(part, int) for parts, _ in self.order for part in parts)

    def _phases(self, model: ModelInfo) -> list[tuple[Indices, Checked]]:
        """What each phase trains, and its settings."""
        places = self.groups.of(model) if self._counts else []
        if isinstance(self.order, str):
            patience, epochs = self.patience, self.epochs
            if self.order == "finetuning_scheduler" and patience is None and epochs is None:
                patience = PATIENCE
            elif patience is None and epochs is None:
                epochs = 1
            phases = phases_of(self.order, model, places, epochs, patience)
            return [
                (indices, replace(each, warmup=self.warmup if position else 0))
                for position, (indices, each) in enumerate(phases)
            ]
        taken: set[int] = set()
        phases = []
        for position, (parts, settings) in enumerate(self.order):
            what = f"phase {position} of unfreeze,"
            matched: Indices = frozenset().union(*self._matched(parts, what, model, places))
            if not (left := matched - taken):
                raise PatternError(
                    f"{what} is left with no parameter of {model.label}: all that it trains (such "
                    f"as {model.params[min(matched)].name}) is in earlier phases.\n"
                    "  The first phase that matches a parameter has it: narrow the earlier ones.",
                    pattern=repr(parts[0]),
                    nearest=[],
                )
            taken |= left
            phases.append((frozenset(left), settings))
        missing = [p.name for i, p in enumerate(model.params) if p.requires_grad and i not in taken]
        if missing and self.rest == "error":
            raise CoverageError(
                f"{plural(len(missing), 'trainable parameter')} of {model.label} "
                f"{'is' if len(missing) == 1 else 'are'} in no phase of unfreeze: "
                f"{listed(missing)}.\n  Add them to a phase ('*' in the last one takes all that is "
                "left), or say rest='frozen' or rest='trained'.",
                names=missing,
            )
        return phases

    def _matched(
        self, parts: Parts, what: str, model: ModelInfo, places: Sequence[GroupPlace | None]
    ) -> Iterator[Indices]:
        """The parameters of each part of a phase, which must be some."""
        for part in parts:
            if isinstance(part, Selector):
                yield must_match(part, model, f"{what} {part!r}", may_be_optional=False)
                continue
            chosen = frozenset(
                index
                for index, place in enumerate(places)
                if place and place.position == part + (place.last + 1 if part < 0 else 0)
            )
            if not chosen:
                count = max((place.last + 1 for place in places if place), default=0)
                raise NnlrError(
                    f"{what} trains group {part}, and there {'is' if count == 1 else 'are'} "
                    f"{plural(count, 'group')} in {model.label} (groups={self.groups!r}): 0 to "
                    f"{count - 1}, or -1 to {-count}."
                )
            yield chosen

    def _kept(self, model: ModelInfo, phases: Sequence[tuple[Indices, Checked]]) -> Indices:
        """What is trained from the start, though its phase begins later."""
        if self.keep is None:
            return frozenset()
        chosen = must_match(self.keep, model, f"keep={self.keep!r}", may_be_optional=False)
        later: Indices = frozenset().union(*(indices for indices, _ in phases[1:]))
        if not chosen & later:
            raise PatternError(
                f"keep={self.keep!r} has no effect: what it matches of {model.label} is in no "
                "phase that begins later. Leave it out, or widen it.",
                pattern=repr(self.keep),
                nearest=[],
            )
        return chosen & later

    def written_as(self) -> Written:
        """The call of :func:`unfreeze`."""
        return as_call(
            unfreeze,
            self.phases,
            groups=None if self.groups.written_as() is None else self.groups,
            epochs=self.epochs,
            patience=self.patience,
            min_delta=self.min_delta,
            mode=self.mode,
            warmup=self.warmup,
            keep=self.keep,
            rest=self.rest,
            batch_norm=self.batch_norm,
            restore_best=self.restore_best,
        )


def _how(phases: Sequence[Checked], position: int, mode: Mode, *, always: bool) -> str:
    """How a phase moves, in words: ``"frozen until epoch 2, then x 0.5 over 100 steps"``."""
    phase = phases[position]
    how = f"trained from the start, {(replace(phase, warmup=0) if always else phase).rate}"
    if not always and position:
        better = "fallen" if mode == "min" else "risen"
        how = f"frozen until {phase.when(better)}, then {phase.rate}"
    later = [
        f"x {after.earlier:.4g} from phase {at} on"
        for at, after in enumerate(phases[position + 1 :], position + 1)
        if after.earlier is not None
    ]
    return "; ".join([how, *later])
