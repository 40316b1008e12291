"""Plans in the Trainer of transformers: its optimizer, its schedulers and its logs.

The Trainer builds the optimizer itself, on the model that it has by then: after
``model_init``, after FSDP has wrapped it, again for each trial of a search. :func:`optimizer`
tells it what to build. Its schedulers write one rate into all groups if they have a floor:
:class:`RatioTrainer` lets them work on the base rate. It logs the rate of one group:
:func:`log_rates` adds the others, and :func:`log_layers` what each step does to each layer.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nnlr._apply.signature import Signature
from nnlr._arguments import choice, flag, number, optional_mapping
from nnlr._attach.attach import attach
from nnlr._declare.scheme import Scheme, as_schemes
from nnlr._model.names import unwrapping
from nnlr._plan import Plan
from nnlr._resolve import resolve
from nnlr._rows.rates import DECAYS, Decay, Rate
from nnlr._schedule.keep_ratios import keep_ratios
from nnlr._schedule.schedule import schedule
from nnlr._select.selector import Selector
from nnlr._text import shown, warn
from nnlr.errors import ConfigError, NnlrError
from nnlr.integrations._epochs import goes_by_epochs
from nnlr.integrations._installed import installed
from nnlr.integrations._processes import agree_if_whole
from nnlr.integrations._transformers_epochs import EpochCallback
from nnlr.integrations._transformers_logs import (
    LayerCallback,
    RateCallback,
    log_layers,
    log_rates,
)

# One, or one for each algorithm.
Classes = Callable[..., Optimizer] | Mapping[str, Any]

with installed("transformers"):
    from transformers import Trainer, TrainingArguments

__all__ = [
    "EpochCallback",
    "LayerCallback",
    "OptimizerFactory",
    "RateCallback",
    "RatioTrainer",
    "log_layers",
    "log_rates",
    "optimizer",
]


@dataclass(kw_only=True, eq=False)
class OptimizerFactory:
    """What the Trainer calls for its optimizer; made by :func:`optimizer`, which says the rest.

    Attributes:
        schemes: Schemes, which multiply.
        args: The Trainer's arguments, or ``None``.
        cls: The optimizer class; ``None`` for that of ``args``.
        rates: The base rates; those that are ``None`` are in ``args``.
        resolving: Other arguments of :func:`nnlr.resolve`.
        settings: Arguments of :meth:`nnlr.Plan.optimizer`.
        keep_ratios: Whether to call :func:`nnlr.keep_ratios`.
        plan: The plan of the last optimizer that was built; ``None`` before the first.
    """

    schemes: tuple[Scheme, ...]
    args: TrainingArguments | None = field(repr=False)  # a hundred lines
    cls: Classes | None
    rates: Mapping[str, Rate | None]
    resolving: Mapping[str, Any]
    settings: Mapping[str, Any]
    keep_ratios: bool
    plan: Plan | None = None

    def __call__(self, *old: object, **settings: object) -> Callable[..., Optimizer]:
        """What builds the optimizer from the model: the Trainer calls ``factory()(model)``.

        Raises:
            ConfigError: If the Trainer is of a release that calls it with parameters.
        """
        if old or settings:
            raise ConfigError(
                "This release of transformers takes optimizer classes only, no factories. "
                "Fix: pip install -U transformers. Or pass "
                "Trainer(optimizers=(plan.optimizer(cls), None))."
            )
        return self.build

    def build(self, model: nn.Module) -> Optimizer:
        """Resolve the schemes on a model, and build the plan's optimizer.

        Raises:
            PlanMismatchError: If the plans of several processes differ; see
                :func:`nnlr.agree`.
        """
        # Read now: a search for hyperparameters writes into the arguments.
        rates: dict[str, Any] = {
            name: getattr(self.args, _ARGUMENT[name]) if rate is None else rate
            for name, rate in self.rates.items()
        }
        self.plan = resolve(model, *self.schemes, **rates, **self.resolving)
        agree_if_whole(self.plan, model)
        cls, settings = self.cls, self.settings
        if cls is None:
            cls, named = Trainer.get_optimizer_cls_and_kwargs(self.args, model)  # type: ignore[arg-type] # any module
            # The base rates among them are left out: groups carry their rates.
            from_args = {key: value for key, value in named.items() if key not in _ARGUMENT}
            settings = {**from_args, **settings}
        built: Optimizer = self.plan.optimizer(cls, **settings)
        if self.keep_ratios:
            keep_ratios(built)
        return built


# The rates of a plan, and what TrainingArguments call them.
_ARGUMENT = {"lr": "learning_rate", "weight_decay": "weight_decay"}


def optimizer(
    *schemes: Scheme,
    args: TrainingArguments | None = None,
    cls: Classes | None = None,
    lr: Rate | None = None,
    weight_decay: Rate | None = None,
    decay: Decay = "coupled",
    tied: Mapping[str, str] | None = None,
    roles: Mapping[str | Selector, str] | None = None,
    keep_ratios: bool = False,
    **settings: Any,
) -> tuple[Any, dict[str, Any]]:  # the Trainer's type for a factory is a class of optimizers
    """An optimizer for the Trainer to build: ``Trainer(optimizer_cls_and_kwargs=...)``.

    When the Trainer asks for it, the schemes are resolved on the model that it has, and the
    plan builds the optimizer. The Trainer's own grouping does not apply: to exempt norms and
    biases from decay as it does, multiply by :func:`nnlr.no_weight_decay`.

    Args:
        *schemes: Schemes, which multiply.
        args: The Trainer's arguments. What is not given here is read from them when the
            optimizer is built: the base rates, and for want of ``cls`` the optimizer that
            they name (``optim``, ``adam_beta1``, ``optim_args``).
        cls: The optimizer class; its settings are then ``settings`` alone. For several
            algorithms one for each name.
        lr: Base learning rate, or one for each algorithm; ``None`` for ``args.learning_rate``.
        weight_decay: Base weight decay, or one for each algorithm; ``None`` for
            ``args.weight_decay``.
        decay: As in :func:`nnlr.resolve`; so are ``tied`` and ``roles``.
        tied: See ``decay``.
        roles: See ``decay``.
        keep_ratios: Call :func:`nnlr.keep_ratios` on the optimizer. :class:`RatioTrainer`
            is the better way where you can use it.
        **settings: Other arguments of :meth:`nnlr.Plan.optimizer` and of the class:
            ``betas=``, ``locked=``.

    Raises:
        NnlrError: If an argument is not what it should be, such as a plan for a scheme; as
            a ``ConfigError`` if neither ``args`` nor the value is given, or if DeepSpeed is
            configured to build the optimizer itself, on one flat list of parameters.

    Examples:
        >>> import nnlr, torch
        >>> from nnlr.integrations import transformers
        >>> made = transformers.optimizer(
        ...     nnlr.rule("bias", wd_mult=0), cls=torch.optim.AdamW, lr=1e-3, weight_decay=0.01
        ... )
        >>> factory, kwargs = made  # Trainer(model, args, optimizer_cls_and_kwargs=made)
        >>> optimizer = factory()(torch.nn.Linear(2, 1), **kwargs)  # as the Trainer does
        >>> [group["name"] for group in optimizer.param_groups]
        ['lr1_wd1', 'lr1_wd0']
    """
    rates = {"lr": lr, "weight_decay": weight_decay}
    # Checked now: the Trainer would come to these errors when it trains.
    for scheme in schemes:
        if isinstance(scheme, Plan):
            raise NnlrError(
                "optimizer takes schemes, got a plan: the Trainer has the schemes resolved on "
                "the model that it has by then. Pass what was given to nnlr.resolve; or pass "
                "Trainer(optimizers=(plan.optimizer(cls), None))."
            )
        if isinstance(scheme, TrainingArguments):
            raise NnlrError("Name the Trainer's arguments: optimizer(..., args=args).")
    as_schemes(schemes)
    if args is not None and not isinstance(args, TrainingArguments):
        raise NnlrError(f"args must be TrainingArguments, got {shown(args)}.")
    for factory in _each(cls):
        Signature.of(factory)
    for rate in _each(lr):
        number(rate, "lr", above=0)
    for rate in _each(weight_decay):
        number(rate, "weight_decay")
    choice(decay, "decay", DECAYS)
    flag(keep_ratios, "keep_ratios")
    optional_mapping(tied, "tied", "{alias: name}")
    optional_mapping(roles, "roles", "{selector: role}")
    if args is None:
        required = {"cls": cls, **rates}
        if missing := [name for name, value in required.items() if value is None]:
            raise ConfigError(
                f"The optimizer needs {' and '.join(missing)}: pass "
                f"{', '.join(f'{name}=' for name in missing)}, or args=, the Trainer's "
                "arguments, to take it from there."
            )
    else:
        plugin = getattr(args, "deepspeed_plugin", None)
        config = getattr(getattr(plugin, "hf_ds_config", None), "config", None) or {}
        if "optimizer" in config:
            raise ConfigError(
                "The DeepSpeed configuration has a section 'optimizer', so DeepSpeed builds the "
                "optimizer, on one flat list of parameters: every group would be lost. Take the "
                "section out; the Trainer then builds this one, and DeepSpeed wraps it."
            )
    factory = OptimizerFactory(
        schemes=schemes,
        args=args,
        cls=cls,
        rates=rates,
        resolving={"decay": decay, "tied": tied, "roles": roles},
        settings=settings,
        keep_ratios=keep_ratios,
    )
    return factory, {}


def _each(value: Any) -> Collection[Any]:  # noqa: ANN401 - an argument
    """One, or one for each algorithm; nothing of ``None``."""
    if isinstance(value, Mapping):
        return value.values()
    return () if value is None else (value,)


class RatioTrainer(Trainer):
    """A Trainer whose own schedulers keep the ratios between groups.

    The scheduler that ``lr_scheduler_type`` names works on the base rate alone, through
    :func:`nnlr.schedule`: floors and ceilings (``reduce_lr_on_plateau``, ``greedy``) speak of
    that, and its state fits after regrouping. To add this to another Trainer, put it first:
    ``class MyTrainer(RatioTrainer, Seq2SeqTrainer): pass``.

    Where schemes of :func:`optimizer` move multipliers it calls :func:`nnlr.attach`, with the
    number of steps of the run; other Trainers do not.
    """

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:  # noqa: ANN401 - the Trainer promises one of its own
        """The Trainer's scheduler, on the base rate; one that was given stays as it is."""
        create = super().create_scheduler
        wrapped: Any = self.optimizer if optimizer is None else optimizer
        self._attach(wrapped, num_training_steps)
        if self.lr_scheduler is not None:
            return create(num_training_steps, optimizer)
        # Accelerate has wrapped it by now.
        unwrapped = getattr(wrapped, "optimizer", wrapped)
        scheduler = schedule(unwrapped, lambda base: create(num_training_steps, base))
        self.lr_scheduler = scheduler  # type: ignore[assignment] # as above
        return scheduler

    def _attach(self, optimizer: Any, steps: int) -> None:  # noqa: ANN401 - as above
        """Have the moves of the plan act, on the model as Accelerate has wrapped it."""
        factory, _ = self.optimizer_cls_and_kwargs or (None, None)
        plan: Plan | None = getattr(factory, "plan", None)
        if plan is not None and any(row.moves and row.trainable for row in plan.rows):
            prepared = self.accelerator._models
            wrapper = next((m for m in prepared if self.model in [*unwrapping(m)]), None)
            attach(optimizer, plan, model=wrapper, total_steps=steps)
            callbacks = self.callback_handler.callbacks
            if goes_by_epochs(plan) and not any(isinstance(c, EpochCallback) for c in callbacks):
                warn(
                    "A scheme of the plan goes by epochs, and nothing tells it where they end. "
                    "Pass Trainer(callbacks=[EpochCallback('eval_loss')]), the callback of "
                    "nnlr.integrations.transformers."
                )
