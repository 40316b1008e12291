"""The step that goes through all groups at once; SGD, Adam and AdamW share it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from inspect import unwrap
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import _use_grad_for_differentiable

from nnlr.optim._fast_path import (
    WRONG_IN_TORCH,
    FastPathReport,
    Group,
    reason_of_group,
    reason_of_parameter,
)
from nnlr.optim._sorting import Sorting

Closure = Callable[[], Any]


def step_of(cls: type[Optimizer]) -> Callable[..., Any]:
    """The method ``step`` that makes the step of a torch class in one pass.

    ``inspect.unwrap`` leads to torch's: it is that step which this one makes.
    """
    torch_step = unwrap(cls.step)

    @_use_grad_for_differentiable
    @wraps(torch_step, assigned=())
    def step(self: "OnePass", closure: Closure | None = None) -> Any:  # noqa: ANN401
        """Step all parameters with a gradient; ``closure`` computes it again, returns a loss."""
        if torch.compiler.is_compiling():  # pragma: no cover - traced, not run
            self._separate_counters()
            return torch_step(self, closure)
        return self._one_pass(closure)

    method: Callable[..., Any] = step
    return method


class OnePass(Optimizer):
    """An optimizer of torch whose step goes through all groups at once.

    A subclass names the torch class whose step it makes, and the fused kernel.
    """

    _torch_class: ClassVar[type[Optimizer]]
    _torch_step: ClassVar[Callable[..., Any]]  # undecorated: hooks run around ours
    _settings: ClassVar[tuple[str, ...]]  # keys of its groups, beside those of all classes
    _moment_lists: ClassVar[int]  # how many lists of moments the kernel takes
    _init_group: Callable[..., Any]
    _sorting: Sorting | None = None

    def fast_path_report(self) -> FastPathReport:
        """Say which parameters take the fast path, and why the others do not.

        They are judged as they are now: a parameter without a gradient may have a sparse one
        in the next step. Call it after a backward pass.

        Examples:
            >>> import torch, nnlr
            >>> table, head = torch.nn.Embedding(9, 2, sparse=True), torch.nn.Linear(2, 1)
            >>> params = [*table.named_parameters("table"), *head.named_parameters("head")]
            >>> optimizer = nnlr.optim.SGD(params, lr=0.1)
            >>> head(table(torch.tensor([1, 2]))).sum().backward()
            >>> print(optimizer.fast_path_report())
            2 of 3 parameters on the fast path
              1 by torch's own step, because its gradient is sparse: table.weight
        """
        fast: list[str] = []
        slow: dict[str, list[str]] = {}
        of_optimizer = self._reason_of_optimizer()
        for position, group in enumerate(self.param_groups):
            params = group["params"]
            of_group = of_optimizer or reason_of_group(group)
            places = [f"param_groups[{position}]['params'][{at}]" for at in range(len(params))]
            for name, param in zip(group.get("param_names") or places, params, strict=True):
                reason = (
                    of_group
                    or self._reason_of_class(param)
                    or reason_of_parameter(param, param.grad)
                )
                (fast if reason is None else slow.setdefault(reason, [])).append(name)
        return FastPathReport(tuple(fast), {reason: tuple(names) for reason, names in slow.items()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a state; the lists of the old one are dropped."""
        self._sorting = None
        super().__setstate__(state)

    # --- what a subclass adds

    def _reason_of_class(self, param: Tensor) -> str | None:
        """Why the kernel of this class in particular cannot take a parameter."""
        return None

    if TYPE_CHECKING:

        def _make_state(self, group: Group, params: list[Tensor]) -> None:
            """Make the state that a first step of these parameters needs."""

        def _moments(self, group: Group) -> tuple[str, ...]:
            """The names of the moments in the state, in the order of the kernel."""

        def _kernel(self, group: Group, *, first: bool) -> partial[Any]:
            """The fused kernel with the settings of a group, all but the rates."""

    def _refuse_capture(self) -> None:
        """Refuse to be captured in a graph where torch's class does."""

    # --- the step

    def _one_pass(self, closure: Closure | None) -> Any:  # noqa: ANN401 - a loss
        self._refuse_capture()
        if self.defaults["differentiable"]:
            return self._torch_step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale, inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        sorting, grads = self._sorted()
        if grads is None:  # lists that were just made do not pass the checks either
            sorting.remove_new_moments()
            self._sorting = None
            self._torch_step()
            return loss
        try:
            sorting.step(grads, scale, inf)
        except BaseException:
            sorting.remove_new_moments()
            self._sorting = None
            raise
        if sorting.new_moments:
            self._sorting = None  # from the second step on the kernel is called differently
        if sorting.slow:
            self._step_slow(sorting, scale, inf)
        return loss

    def _sorted(self) -> tuple[Sorting, list[list[Tensor]] | None]:
        """The sorted parameters, sorted again if anything has changed, and the gradients."""
        if self._sorting is not None:
            grads = self._sorting.gradients(self)
            if grads is not None:
                return self._sorting, grads
        self._sorting = Sorting(self)
        return self._sorting, self._sorting.gradients(self)

    def _reason_of_optimizer(self) -> str | None:
        """Why all parameters are slow; ``None`` if they need not be."""
        cls = type(self)
        # Looked up each time: torch.compile wraps it.
        if cls._init_group is not cls._torch_class._init_group:  # type: ignore[attr-defined]
            return f"{cls.__name__} has an _init_group of its own"
        params = [param for group in self.param_groups for param in group["params"]]
        if len(params) != len(set(map(id, params))):
            return "a parameter is in the optimizer twice"
        return None

    # --- torch's own step for a part of the parameters

    def _step_slow(
        self, sorting: Sorting, grad_scale: Tensor | None, found_inf: Tensor | None
    ) -> None:
        """Make torch's own step with the slow parameters.

        Of torch's ways only the fused one knows of a gradient scaler; before the others
        gradients are unscaled here.
        """
        fused: dict[int, Group] = {}
        loop: dict[int, Group] = {}
        for position, param, reason, _ in sorting.slow:
            group = {**self.param_groups[position], "params": []}
            groups = fused if group["fused"] and reason not in WRONG_IN_TORCH else loop
            if groups is loop and group["fused"]:
                group["fused"] = False
            groups.setdefault(position, group)["params"].append(param)
        if fused:
            with self._attributes(param_groups=list(fused.values())):
                self._torch_step()
        if loop and not (found_inf is not None and found_inf.item()):
            for group in loop.values() if grad_scale is not None else ():
                for param in group["params"]:
                    if param.grad is not None:
                        param.grad.div_(grad_scale)
            groups_left = list(loop.values())
            with self._attributes(param_groups=groups_left, grad_scale=None, found_inf=None):
                self._torch_step()

    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _separate_counters(self) -> None:
        """Give each counter a tensor of its own, which a compiler can follow."""
        for state in self.state.values():
            step = state.get("step")
            if isinstance(step, Tensor) and step._is_view():
                state["step"] = step.clone()

    @contextmanager
    def _attributes(self, **temporary: object) -> Iterator[None]:
        """Replace attributes for a while, to be an optimizer of some parameters only."""
        attributes = self.__dict__
        before = {name: attributes[name] for name in temporary if name in attributes}
        attributes.update(temporary)
        try:
            yield
        finally:
            for name in temporary:
                del attributes[name]
            attributes.update(before)
