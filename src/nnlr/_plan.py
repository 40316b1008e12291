"""The plan: what was decided for one model, and everything that can be done with it."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

from torch import Tensor
from torch.optim import Optimizer

from nnlr._apply.locate import Located, locate
from nnlr._apply.lock import plan_locks, plan_unlock
from nnlr._apply.optimizer import build
from nnlr._apply.param_groups import FittedPlan, ParamGroup
from nnlr._apply.vectors import vectors
from nnlr._arguments import choice, flag, instance, number
from nnlr._findings import Finding
from nnlr._model.names import Source
from nnlr._model.reference import Reference, model_of, unknown
from nnlr._rows.groups import Locked, make_groups
from nnlr._rows.rates import Bases, Rate, changed, make_bases
from nnlr._rows.row import PlanRow, refuse_unrouted, with_bases, with_groups
from nnlr._rows.to_dict import plan_facts, plan_from_facts
from nnlr.checkpoint import Policy
from nnlr.checkpoint._on_load import POLICIES
from nnlr.errors import ConfigError
from nnlr.optim._mixed import Mixed
from nnlr.report._diff import PlanDiff, diff
from nnlr.report._views import PlanViews

Opt = TypeVar("Opt", bound=Optimizer)


class Plan(PlanViews):
    """The rates of every parameter of one model: names and numbers, and how they came about.

    Made by :func:`nnlr.resolve`. A plan holds no tensors; what needs them looks them up by name in
    the model, which it remembers weakly, or in the ``model=`` it is given.

    Attributes:
        rows: One :class:`PlanRow` for each parameter, in the order of ``model.parameters()``.
        groups: The parameter groups it comes to, as names.
        lr: Base learning rate; of several algorithms the first's.
        weight_decay: Base weight decay; likewise.
        algorithms: The base rates of each algorithm, by name.
        decay: The weight decay mode.
        label: Class name of the model.
        findings: What is legal but probably not meant.
    """

    def __init__(
        self,
        rows: Sequence[PlanRow],
        bases: Bases,
        label: str,
        findings: tuple[Finding, ...] = (),
        reference: Reference = unknown,
    ) -> None:
        self.groups = make_groups(rows, bases.algorithms)
        self.rows = with_groups(rows, {name: g.name for g in self.groups for name in g.names})
        self._bases = bases
        self.label = label
        self.findings = findings
        self._reference = reference

    def __eq__(self, other: object) -> bool:
        """Equal rows, bases and model class."""
        if not isinstance(other, Plan):
            return NotImplemented
        mine = (self._bases, self.label, self.rows, self.findings)
        theirs = (other._bases, other.label, other.rows, other.findings)
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]  # compared by value

    def diff(self, other: "Plan") -> PlanDiff:
        """What another plan changes: rows added, removed, and rates with the factor behind."""
        return diff(self.rows, instance(other, "other", Plan).rows)

    # --- vary and keep --------------------------------------------------------------

    def with_rates(self, *, lr: Rate | None = None, weight_decay: Rate | None = None) -> "Plan":
        """The same plan on other base rates; rates that a rule sets absolutely stay.

        Args:
            lr: New base learning rate; ``None`` keeps it. Of several algorithms those that
                ``{name: lr}`` names.
            weight_decay: New base weight decay; likewise.

        Raises:
            ConfigError: If one number is passed for several algorithms, or the plan lacks one.
        """
        bases = make_bases(
            changed(self._bases.lr, lr, "lr", self.algorithms),
            changed(self._bases.weight_decay, weight_decay, "weight_decay", self.algorithms),
            self.decay,
        )
        rows = with_bases(self.rows, bases)
        refuse_unrouted(rows, bases, self.label)
        return Plan(rows, bases, self.label, self.findings, self._reference)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain dicts, lists, strings and numbers; see :meth:`from_dict`."""
        return plan_facts(self.rows, self._bases, self.label, self.findings)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Plan":
        """The plan that :meth:`to_dict` wrote. It knows no model: pass ``model=`` to use it.

        Raises:
            ConfigError: If something is missing or not as written.
        """
        return cls(*plan_from_facts(facts))

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that :meth:`to_json` wrote.

        Raises:
            ConfigError: If the text is not JSON or not a plan.
        """
        try:
            facts = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"This is not a plan: {error}.") from None
        return cls.from_dict(facts)

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep: all but the way back to the model."""
        state = {key: value for key, value in vars(self).items() if key != "_by_name"}
        return {**state, "_reference": unknown}

    # --- apply ----------------------------------------------------------------------

    def lock(self, model: Source | None = None, *, partial: bool = False) -> list[str]:
        """Switch off the gradients of locked parameters, and restore what an earlier plan locked.

        Sets ``requires_grad=False`` and ``.grad=None``, and notes on the owner that nnlr did
        it. ``param_groups`` and ``optimizer`` do this last. With DDP, lock or build the
        optimizer before wrapping: DDP decides at construction whose gradients it exchanges.

        Returns:
            Names of the parameters that were changed.

        Raises:
            PlanMismatchError: If the model is not the one resolved.
            NnlrError: If the model is inside DDP already.
        """
        source, located = self._located(model, partial=partial)
        return plan_locks(located, source).apply()

    def unlock(self, model: Source | None = None, *, partial: bool = False) -> list[str]:
        """Undo the locks of nnlr, and no others; returns the names."""
        source, located = self._located(model, partial=partial)
        return plan_unlock(located, source).apply()

    def vectors(self, model: Source | None = None) -> tuple[Tensor, Tensor]:
        """Learning rate and weight decay of every element of the flattened parameters.

        Returns:
            ``(learning_rates, weight_decays)``, each of shape ``(total,)``, default float
            dtype, on the parameters' device, aligned with
            ``torch.nn.utils.parameters_to_vector(model.parameters())``. Frozen and locked
            elements are 0 in both.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> layer = nnlr.learning_rate(nn.Linear(1, 2), "bias", 0.5)
            >>> nnlr.resolve(layer, lr=1.0, weight_decay=0.0).vectors()[0]
            tensor([1.0000, 1.0000, 0.5000, 0.5000])
        """
        return vectors(self._located(model)[1])

    def param_groups(
        self,
        model: Source | None = None,
        *,
        partial: bool = False,
        names: bool = True,
        tensor_lr: bool = False,
        locked: Locked = "drop",
        eps: float | None = None,
        init: str | None = None,
    ) -> list[ParamGroup]:
        """Parameter groups for any torch optimizer, and the locks that go with them.

        Args:
            model: The model; ``None`` for the one resolved.
            partial: The model is one stage or shard of it.
            names: Give ``(name, tensor)`` pairs; ``False`` gives plain tensors, for
                optimizers that sort or split them.
            tensor_lr: Give each group its own 0-dim float32 tensor as ``lr``.
            locked: ``"drop"`` leaves locked parameters out, ``"keep"`` puts them in a group
                of learning rate 0 and leaves their gradients on.
            eps: The optimizer's ``eps``, which ``eps_mult`` multiplies.
            init: ``"done"`` says that a plan with ``init_mult`` has been applied by hand.

        Raises:
            PlanMismatchError: If the model is not the one resolved.
            NnlrError: If the plan needs ``eps`` or ``apply_init`` first.
        """
        as_pairs, as_tensors = flag(names, "names"), flag(tensor_lr, "tensor_lr")
        base_eps = None if eps is None else number(eps, "eps")
        fit = self.fit(model, partial=partial, locked=locked, init=init)
        groups = fit.param_groups(names=as_pairs, tensor_lr=as_tensors, eps=base_eps)
        fit.locks.apply()
        return groups

    @overload
    def optimizer(
        self,
        cls: Callable[..., Opt],
        *,
        model: Source | None = ...,
        partial: bool = ...,
        names: bool = ...,
        tensor_lr: bool = ...,
        locked: Locked = ...,
        init: str | None = ...,
        resume: Policy | None = ...,
        **settings: Any,
    ) -> Opt: ...

    @overload
    def optimizer(self, cls: Mapping[str, Any], **arguments: Any) -> Mixed: ...

    def optimizer(
        self,
        cls: Callable[..., Optimizer] | Mapping[str, Any],
        *,
        model: Source | None = None,
        partial: bool = False,
        names: bool = True,
        tensor_lr: bool = False,
        locked: Locked = "drop",
        init: str | None = None,
        resume: Policy | None = "code",
        **settings: Any,
    ) -> Optimizer:
        """Build an optimizer of any class on the plan's groups, and lock what they leave out.

        With DDP, build it before wrapping, or call :meth:`lock` before.

        Args:
            cls: The optimizer class; or, for a plan of several algorithms, one for each by its
                name, settings in a ``functools.partial``. See :class:`nnlr.optim.Mixed`.
            model: The model; ``None`` for the one resolved.
            partial: As in :meth:`param_groups`; so are ``names``, ``tensor_lr``, ``locked``
                and ``init``.
            names: See ``partial``.
            tensor_lr: See ``partial``.
            locked: See ``partial``.
            init: See ``partial``.
            resume: Whose rates count when it loads a checkpoint, which is matched by name:
                ``"code"`` or ``"checkpoint"``; ``None`` leaves loading to torch. See
                :mod:`nnlr.checkpoint`.
            **settings: Other arguments of the class: ``betas=``, ``momentum=``, ``fused=``.

        Raises:
            ConfigError: If the class does not know an option, or cannot decay, or refuses; if
                classes and algorithms do not match one to one.
            CoverageError: If no algorithm trains a parameter.
            PlanMismatchError: If the model is not the one resolved.

        Examples:
            >>> import nnlr, torch
            >>> net = torch.nn.Linear(2, 1)
            >>> plan = nnlr.resolve(net, nnlr.rule("bias", lr_mult=2), lr=0.1, weight_decay=0.01)
            >>> optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
            >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
            [('lr1_wd1', 0.1), ('lr2_wd1', 0.2)]
        """
        if resume is not None:
            choice(resume, "resume", POLICIES)
        as_pairs, as_tensors = flag(names, "names"), flag(tensor_lr, "tensor_lr")
        fit = self.fit(model, partial=partial, locked=locked, init=init)
        return build(cls, settings, fit, names=as_pairs, tensor_lr=as_tensors, resume=resume)

    def to_code(
        self,
        cls: Callable[..., Optimizer] | Mapping[str, Any] | None = None,
        *,
        model: Source | None = None,
        **settings: Any,
    ) -> str:
        r"""The plan as plain torch code, which needs nnlr no more.

        A module with ``param_groups(model)``: a table of names with their rates, in which loops and
        patterns stand for layers that are alike. Its groups are those of :meth:`optimizer`, in the
        same order and to the last bit; a trainable parameter that is in no group is an error
        there too. With a class it has ``make_optimizer(model)``; for several algorithms
        ``make_optimizers(model)``, which gives one for each; for a plan that scales initial
        weights ``scale_initial_weights(model)``.

        Args:
            cls: The optimizer class, or one for each algorithm, as in :meth:`optimizer`; ``None``
                for the groups alone. For those of ``nnlr.optim`` torch's are written.
            model: The model, for the names of its tensors; ``None`` for the one resolved, and
                where that is gone or was never known, for the plan's own names. The two differ
                for parametrizations and PEFT only.
            **settings: Other arguments of the class: ``betas=``, ``momentum=``, ``fused=``.

        Raises:
            ConfigError: As in :meth:`optimizer`; if a class cannot be imported by the code, or a
                setting is more than numbers, text, lists and mappings; if the plan multiplies
                ``eps`` and no class is named; if it moves multipliers while training, which plain
                groups do not.
            PlanMismatchError: If the model is not the one resolved.

        Examples:
            >>> import nnlr, torch
            >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
            >>> plan = nnlr.resolve(net, nnlr.rule("1.*", lr_mult=10), lr=0.1, weight_decay=0)
            >>> text = plan.to_code(torch.optim.SGD, momentum=0.9)
            >>> print(*text.splitlines()[18:22], sep="\n")
                # Names (* is any text), learning rate, weight decay. Equal rows are one group.
                table = [
                    ("0.*", 0.1, 0.0),
                    ("1.*", 1.0, 0.0),
            >>> namespace = {}
            >>> exec(text, namespace)
            >>> optimizer = namespace["make_optimizer"](net)
            >>> print(nnlr.check(plan, optimizer))
            nothing found
        """
        from nnlr._code.write import code

        source = self._reference() if model is None else model
        return code(self.rows, self._bases, self.label, source, cls=cls, settings=settings)

    def fit(
        self,
        model: Source | None = None,
        *,
        partial: bool = False,
        locked: Locked = "drop",
        init: str | None = None,
    ) -> FittedPlan:
        """What :meth:`param_groups`, :meth:`optimizer` and ``regroup`` go by; locks nothing.

        Takes their arguments and raises their errors.
        """
        source = self._model(model)
        return FittedPlan.of(
            self.rows, self._bases, source, partial=partial, locked=locked, init=init
        )

    def _located(
        self, model: Source | None, *, partial: bool = False
    ) -> tuple[Source, list[Located]]:
        """The model to use, and each row with its tensor there."""
        source = self._model(model)
        return source, locate(self.rows, source, partial=flag(partial, "partial"))

    def _model(self, model: Source | None) -> Source:
        """The model to use: the one passed, else the one that was resolved."""
        return model_of(self._reference, self.label) if model is None else model
