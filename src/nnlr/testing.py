"""Laws that every scheme must keep, as a base class for a scheme's tests.

A test class names the schemes; pytest collects the laws with it::

    class TestHalfForBiases(nnlr.testing.SchemeLaws):
        def schemes(self):
            return [HalfForBiases(), HalfForBiases(floor=0.1)]

The laws are plain methods with plain ``assert``, so that nothing but a test runner is needed
and this module does not import one. Every assertion has a message of its own, because pytest
explains only the asserts of files that it collects.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from nnlr._arguments import instance
from nnlr._attach.attach import Attachment, attach
from nnlr._declare.factor import Factor
from nnlr._declare.moves import Move
from nnlr._declare.on_modules import learning_rate
from nnlr._declare.rules import rule
from nnlr._declare.scheme import Scheme
from nnlr._model.describe import ModelInfo, describe
from nnlr._plan import Plan
from nnlr._resolve import resolve
from nnlr._select.selectors import predicate
from nnlr.errors import NnlrError

LR = 1e-3
WEIGHT_DECAY = 0.05

# Steps of the runs in which multipliers move; an epoch ends in the middle.
_STEPS = 6

# What torch calls when a gradient arrives.
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class SchemeLaws:
    """The laws; subclass, name the class ``Test...`` and write :meth:`schemes`.

    Examples:
        >>> import nnlr
        >>> class TestRules(SchemeLaws):
        ...     def schemes(self):
        ...         return [nnlr.rule("*.bias", lr_mult=2)]
        >>> TestRules().test_resolve_gives_the_same_plan_twice()
    """

    def schemes(self) -> Sequence[Scheme]:
        """The schemes that must keep the laws."""
        raise NnlrError(f"{type(self).__name__} must say which schemes() to test.")

    def models(self) -> Sequence[nn.Module]:
        """The models to try them on; override it if the schemes need others."""
        tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
        tied[1].weight = tied[0].weight
        frozen = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        frozen[0].requires_grad_(False)
        blocks = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)), nn.Linear(3, 2))
        learning_rate(blocks[0], "bias", 0.5)
        for parameter in blocks.parameters():
            parameter.grad = torch.ones_like(parameter)
        conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        return [tied, frozen, blocks, conv]

    def optimizer(self, plan: Plan, model: nn.Module) -> Optimizer:
        """The optimizer for schemes that move; override it if they need another."""
        return plan.optimizer(AdamW, model=model)

    def _cases(self) -> Iterator[tuple[Scheme, nn.Module]]:
        schemes = self.schemes()
        assert schemes, f"{type(self).__name__}.schemes() is empty, so nothing is tested"
        for model in self.models():
            for scheme in schemes:
                yield scheme, model

    def test_every_parameter_gets_one_finite_row(self) -> None:
        """One row for each parameter, multipliers finite and >= 0, no factor left over."""
        for scheme, model in self._cases():
            info = describe(model)
            strays = scheme.steps(info).keys() - set(range(len(info.params)))
            assert not strays, f"{scheme!r} speaks of positions without a parameter: {strays}"
            plan = _resolve(model, scheme)
            count = len(list(model.parameters()))
            assert len(plan) == count, f"{scheme!r}: {len(plan)} rows for {count} parameters"
            for row in plan:
                rates = (row.lr_mult, row.wd_mult, row.eps_mult, row.init_mult)
                good = all(math.isfinite(rate) and rate >= 0 for rate in rates)
                assert good, f"{scheme!r} gives {row.name!r} {rates}"

    def test_resolve_gives_the_same_plan_twice(self) -> None:
        """Nothing is random or kept from the first call."""
        for scheme, model in self._cases():
            same = _resolve(model, scheme) == _resolve(model, scheme)
            assert same, f"{scheme!r} says something else the second time"

    def test_resolve_leaves_the_model_alone(self) -> None:
        """Weights, gradients, ``requires_grad``, hooks and attributes are as they were."""
        for scheme, model in self._cases():
            before = _state(model)
            _resolve(model, scheme)
            after = _state(model)
            changed = [key for key in before | after if not _same(before, after, key)]
            assert not changed, f"{scheme!r} changed {changed} of the model"

    def test_a_rule_that_sets_nothing_is_neutral(self) -> None:
        """Multiplying with ``rule("*")`` from either side changes no bit."""
        for scheme, model in self._cases():
            alone = rates(_resolve(model, scheme))
            for both in (scheme * rule("*"), rule("*") * scheme):
                assert alone == rates(_resolve(model, both)), f"{both!r} is not {scheme!r}"

    def test_order_and_nesting_of_a_product_change_no_bit(self) -> None:
        """``*`` with other schemes commutes and associates exactly."""
        one, two = _Other(3), _Other(7)
        for scheme, model in self._cases():
            expected = rates(_resolve(model, scheme * one * two))
            for other in (one * scheme * two, two * (one * scheme), (two * one) * scheme):
                assert expected == rates(_resolve(model, other)), f"{other!r} differs"
            actual = rates(_resolve(model, two, scheme, one))
            assert expected == actual, f"{scheme!r} differs as an argument of resolve"

    def test_wrapping_changes_no_row(self) -> None:
        """``torch.compile`` and ``AveragedModel`` leave every rate as it is."""
        for scheme, model in self._cases():
            expected = rates(_resolve(model, scheme))
            for wrapped in (torch.compile(model, backend="eager"), AveragedModel(model)):
                assert isinstance(wrapped, nn.Module), "a wrapper is a module"
                actual = rates(_resolve(wrapped, scheme))
                assert expected == actual, f"{scheme!r} differs in {type(wrapped).__name__}"

    def test_where_everything_is_the_scheme_itself(self) -> None:
        """Restricting to all parameters changes no bit."""
        for scheme, model in self._cases():
            actual = rates(_resolve(model, scheme.where("*")))
            assert rates(_resolve(model, scheme)) == actual, f"{scheme!r}.where('*') differs"

    def test_where_nothing_is_the_identity(self) -> None:
        """Restricting to no parameter leaves every rate at its base."""
        nothing = predicate(lambda param: False)
        for scheme, model in self._cases():
            actual = rates(_resolve(model, scheme.where(nothing, optional=True)))
            assert rates(_resolve(model)) == actual, f"{scheme!r} acts where it must not"

    def test_outside_of_where_nothing_changes(self) -> None:
        """Restricted to biases, a scheme acts on them as before, and on nothing else."""
        biases = predicate(lambda param: param.leaf == "bias")
        for scheme, model in self._cases():
            whole, base = rates(_resolve(model, scheme)), rates(_resolve(model))
            expected = {
                name: (whole if name.rpartition(".")[2] == "bias" else base)[name] for name in whole
            }
            actual = rates(_resolve(model, scheme.where(biases, optional=True)))
            assert expected == actual, f"{scheme!r}.where(biases) acts elsewhere"

    def test_a_plan_survives_a_dict_and_json(self) -> None:
        """``from_dict(to_dict())`` and ``from_json(to_json())`` give the plan back."""
        for scheme, model in self._cases():
            plan = _resolve(model, scheme)
            assert Plan.from_dict(plan.to_dict()) == plan, f"{scheme!r}: dict changes it"
            assert Plan.from_json(plan.to_json()) == plan, f"{scheme!r}: JSON changes it"

    def test_what_moves_says_how(self) -> None:
        """What moves has a move and words for it, and no group mixes what moves differently."""
        for scheme, model in self._cases():
            plan = _resolve(model, scheme)
            for row in plan:
                for step in (step for step in row.trace if step.factor.moves is not None):
                    moves, move = step.factor.moves, step.factor.move
                    told = moves is not None and isinstance(move, Move) and bool(moves.how)
                    assert told, f"{scheme!r} moves {row.name!r} by {move!r}: {moves!r}"
            for group in plan.groups:
                ways = {
                    tuple((s.source, s.factor.moves) for s in plan[name].trace if s.factor.moves)
                    for name in group.names
                }
                assert len(ways) == 1, f"{scheme!r} mixes {ways} in {group.name!r}"

    def test_rates_are_base_times_plan_times_moves(self) -> None:
        """While it trains, each group has the product of the plan's rate and its moves."""
        for scheme, plan, model in self._moving():
            optimizer, attached = self._attached(plan, model)
            for _ in range(_STEPS):
                _train(model, optimizer, attached, 1)
                for group in optimizer.param_groups:
                    name = group["param_names"][0]
                    units = [unit for unit in attached.units if name in unit.names]
                    for base, setting, key in (
                        (LR, "lr", "lr_mult"),
                        (WEIGHT_DECAY, "weight_decay", "wd_mult"),
                    ):
                        moves = (unit.mult for unit in units if unit.setting == setting)
                        mult = math.prod(moves, start=getattr(plan[name], key))
                        right = math.isclose(group[key], mult, rel_tol=1e-9, abs_tol=1e-12)
                        right = right and math.isclose(group[setting], base * mult, abs_tol=1e-12)
                        assert right, (
                            f"{scheme!r}: {key} of {name!r} is {group[key]} at "
                            f"{attached.progress!r}, and {mult} is due"
                        )

    def test_a_resumed_run_moves_on_exactly(self) -> None:
        """A run that is saved and loaded in the middle ends with the weights of one that was not.

        Whatever a move remembers has to stand in ``unit.memory``.
        """
        for scheme, plan, model in self._moving():
            other = copy.deepcopy(model)
            whole = self._attached(plan, model)
            _train(model, *whole, _STEPS // 2 + 1)
            weights = copy.deepcopy(model.state_dict())
            state = copy.deepcopy(whole[0].state_dict())
            _train(model, *whole, _STEPS // 2)
            resumed = self._attached(_resolve(other, scheme), other)
            other.load_state_dict(weights)
            resumed[0].load_state_dict(state)
            _train(other, *resumed, _STEPS // 2)
            differ = [
                name
                for (name, one), two in zip(
                    model.named_parameters(), other.parameters(), strict=True
                )
                if not torch.equal(one, two)
            ]
            assert not differ, f"{scheme!r}: a resumed run has other {differ}"

    def _moving(self) -> Iterator[tuple[Scheme, Plan, nn.Module]]:
        """The schemes that move something, with their plans, each on a model of its own."""
        for scheme, model in self._cases():
            own = copy.deepcopy(model)
            plan = _resolve(own, scheme)
            if any(row.moves and row.trainable for row in plan):
                yield scheme, plan, own

    def _attached(self, plan: Plan, model: nn.Module) -> tuple[Optimizer, Attachment]:
        """An optimizer on a plan that moves, with the moves at work."""
        optimizer = self.optimizer(plan, model)
        return optimizer, attach(optimizer, plan, model=model, total_steps=2 * _STEPS)


def rates(plan: Plan) -> dict[str, tuple[Any, ...]]:
    """All values of a plan for each parameter, without the traces.

    Args:
        plan: The plan.

    Returns:
        Canonical name -> the values; two plans with equal rates compare equal.

    Raises:
        NnlrError: If it is no plan.

    Examples:
        >>> import nnlr
        >>> plan = nnlr.resolve(nn.Linear(1, 1, bias=False), lr=0.5, weight_decay=0.1)
        >>> rates(plan)["weight"][:2]
        (0.5, 0.1)
    """
    settings = attrgetter(
        *("lr", "weight_decay", "lr_mult", "wd_mult", "eps_mult", "init_mult"),
        *("unlocked_lr_mult", "options", "algorithm", "locked", "trainable", "moves"),
    )
    return {row.name: settings(row) for row in instance(plan, "plan", Plan)}


@dataclass(frozen=True)
class _Other(Scheme):
    """Factors whose product differs in its last bits if they are multiplied in another order."""

    seed: int

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """Thirds, sevenths and so on, different for neighbours."""
        return [
            Factor(lr_mult=1 / (self.seed + i % 5), wd_mult=(self.seed + i % 3) / 10)
            for i in range(len(model.params))
        ]


def _train(model: nn.Module, optimizer: Optimizer, attached: Attachment, steps: int) -> None:
    """Some steps with gradients that depend on the step alone; an epoch is three of them."""
    for _ in range(steps):
        torch.manual_seed(attached.progress.step)
        for parameter in model.parameters():
            gradient = torch.randn(parameter.shape)
            parameter.grad = gradient if parameter.requires_grad else None
        optimizer.step()
        if attached.progress.step % 3 == 0:
            attached.end_epoch(1.0)


def _resolve(model: nn.Module, *schemes: Scheme) -> Plan:
    return resolve(model, *schemes, lr=LR, weight_decay=WEIGHT_DECAY)


def _state(model: nn.Module) -> dict[str, Any]:
    """All values that a scheme must not change, by name."""
    state: dict[str, Any] = {
        f"value of {name}": value.clone() for name, value in model.state_dict().items()
    }
    for name, tensor in model.named_parameters():
        state[f"requires_grad of {name}"] = tensor.requires_grad
        state[f"gradient of {name}"] = copy.deepcopy(tensor.grad)
        state[f"hooks of {name}"] = _plain([getattr(tensor, hook) for hook in _HOOKS])
        state[f"attributes of {name}"] = _plain(vars(tensor))
    for path, module in model.named_modules():
        state[f"attributes of {path or 'the model'}"] = _plain(vars(module))
    return state


def _plain(value: object) -> object:
    """Dicts and lists as copies, all else that could be changed in place as its identity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float | str | None) else id(value)


def _same(before: dict[str, Any], after: dict[str, Any], key: str) -> bool:
    old, new = before.get(key), after.get(key)
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        return torch.equal(old, new)
    return bool(old == new)
