"""A whole recipe: base rates, a scheme, the optimizer and its schedule."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Final

from torch.optim import Optimizer, lr_scheduler

from nnlr._arguments import instance
from nnlr._declare.scheme import Scheme
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._resolve import resolve
from nnlr._rows.rates import Decay, Rate, make_bases
from nnlr._schedule.ratio_scheduler import RatioPlateau, RatioScheduler
from nnlr._schedule.schedule import schedule
from nnlr._text import listed, nearest_hint, shown
from nnlr.config._classes import Factory
from nnlr.errors import ConfigError

Factories = Factory | Mapping[str, Any]

_EXAMPLES: Final = {
    "algorithms": "torch.optim.AdamW or functools.partial(torch.optim.AdamW, betas=(0.9, 0.95))",
    "schedule": "functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=100)",
}


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that a training run says about learning rates; made by :func:`load` or in Python.

    Attributes:
        lr: Base learning rate > 0, or one for each algorithm by its name.
        weight_decay: Base weight decay >= 0; likewise.
        decay: The weight decay mode: ``"coupled"``, ``"independent"`` or ``"sqrt"``; see
            :func:`nnlr.resolve`.
        scheme: The scheme; ``None`` for the same rates everywhere.
        algorithms: An optimizer class, a ``functools.partial`` of one, or one for each
            algorithm by its name: what ``plan.optimizer`` takes.
        schedule: A scheduler class, a ``functools.partial`` of one or any function of an
            optimizer that gives one, or a mapping from patterns of group names to such: what
            :func:`nnlr.schedule` takes. ``None`` for constant rates.

    Raises:
        NnlrError: If a rate is out of range or a field of another kind.
        ConfigError: If rates and algorithms go by different names.

    Examples:
        >>> import functools, nnlr, torch
        >>> cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        >>> recipe = Recipe(
        ...     lr=1e-3, weight_decay=0.05, scheme=nnlr.rule("0.*", lr_mult=0.1),
        ...     algorithms=torch.optim.AdamW, schedule=functools.partial(cosine, T_max=100),
        ... )
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> optimizer = recipe.optimizer(net)
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.001, 0.0001]
        >>> scheduler = recipe.scheduler(optimizer)
    """

    _: KW_ONLY
    lr: Rate
    weight_decay: Rate
    decay: Decay = "coupled"
    scheme: Scheme | None = None
    algorithms: Factories | None = None
    schedule: Factories | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        make_bases(self.lr, self.weight_decay, self.decay)
        if self.scheme is not None:
            instance(self.scheme, "scheme", Scheme, "Make one of data: nnlr.config.scheme(data).")
        for field, example in _EXAMPLES.items():
            value = getattr(self, field)
            several = value.values() if isinstance(value, Mapping) else [value]
            if not all(one is None or callable(one) for one in several):
                raise ConfigError(f"{field} must be a class such as {example}, got {shown(value)}.")
        names = [set(v) for v in (self.lr, self.weight_decay) if isinstance(v, Mapping)]
        if isinstance(self.algorithms, Mapping):
            for name in self.algorithms:
                if lacking := [each for each in names if name not in each]:
                    hint = nearest_hint(name, lacking[0]) or f"Rates: {listed(sorted(lacking[0]))}."
                    raise ConfigError(f"algorithm {name!r} has no base rate. {hint}", name=name)

    def resolve(self, model: Source) -> Plan:
        """The plan for a model: :func:`nnlr.resolve` with the scheme and the base rates."""
        schemes = [] if self.scheme is None else [self.scheme]
        return resolve(
            model, *schemes, lr=self.lr, weight_decay=self.weight_decay, decay=self.decay
        )

    def optimizer(self, model: Source, **settings: Any) -> Optimizer:
        """The optimizer for a model, built on its plan; locked parameters are locked.

        Args:
            model: The model.
            **settings: Arguments of ``plan.optimizer`` beside the class, such as ``resume=``
                or ``fused=``.

        Raises:
            ConfigError: If the recipe names no optimizer; else as ``plan.optimizer``.
        """
        if self.algorithms is None:
            raise ConfigError(
                "The recipe names no optimizer. Add algorithms: AdamW to the file, or use "
                "recipe.resolve(model).optimizer(cls)."
            )
        return self.resolve(model).optimizer(self.algorithms, **settings)

    def scheduler(self, optimizer: Optimizer, **settings: Any) -> RatioScheduler | RatioPlateau:
        """The schedule of an optimizer, in which all ratios hold: :func:`nnlr.schedule`.

        Args:
            optimizer: What :meth:`optimizer` returned, or another.
            **settings: Settings of the scheduler that only the run knows, such as
                ``total_steps=``; they overrule those of the recipe. Where groups have courses
                of their own, those of each.

        Raises:
            ConfigError: If there are settings, and no schedule that they could be for; else as
                :func:`nnlr.schedule`.
        """
        if self.schedule is None:
            if settings:
                raise ConfigError(
                    f"The recipe names no schedule that {listed(settings)} could be for: its rates "
                    "are constant. Name one in the recipe, or use "
                    "nnlr.schedule(optimizer, cls, ...)."
                )
            return schedule(optimizer, lr_scheduler.ConstantLR, factor=1.0)
        if isinstance(self.schedule, Mapping):  # the settings are those of each course
            courses = {
                key: course and partial(course, **settings) for key, course in self.schedule.items()
            }
            return schedule(optimizer, courses)
        return schedule(optimizer, self.schedule, **settings)
