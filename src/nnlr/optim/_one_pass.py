"""The step that takes all groups in one pass; what the three optimizers share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import unwrap
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import _use_grad_for_differentiable

from nnlr.optim import _fast_path as obstacles
from nnlr.optim._fast_path import MISTAKEN, FastPathReport
from nnlr.optim._roster import Group, Roster

if TYPE_CHECKING:
    from nnlr.optim._table import Call

Closure = Callable[[], Any]


def step_of(cls: type[Optimizer]) -> Callable[..., Any]:
    """The method that makes the step of a class of torch, in one pass.

    ``inspect.unwrap`` leads to torch's: it is that step which this one makes.
    """
    torchs = unwrap(cls.step)

    @_use_grad_for_differentiable
    @wraps(torchs, assigned=())
    def step(self: "OnePass", closure: Closure | None = None) -> Any:  # noqa: ANN401
        """Step all that have a gradient; ``closure`` evaluates anew and returns the loss."""
        if torch.compiler.is_compiling():  # pragma: no cover - traced, not run
            self._part_counters()
            return torchs(self, closure)
        return self._one_pass(closure)

    made: Callable[..., Any] = step
    return made


class OnePass(Optimizer):
    """An optimizer of torch with another way through its step.

    A subclass names the step that it takes the place of, and the kernel.
    """

    _torchs: ClassVar[type[Optimizer]]
    _torchs_step: ClassVar[Callable[..., Any]]  # undecorated: hooks are ours to run
    _init_group: Callable[..., Any]
    _roster: Roster | None = None

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
        return obstacles.report(self, self._obstacle(), self._unfit)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a state; what the lists hold of the old one is let go."""
        self._roster = None
        super().__setstate__(state)

    # --- what a subclass says

    def _unfit(self, param: Tensor) -> str | None:
        """Why the kernel of this class in particular cannot take a parameter, if so."""
        return None

    if TYPE_CHECKING:

        def _prepare(self, group: Group, params: list[Tensor]) -> None:
            """Make the state that a first step of these needs."""

        def _moments(self, group: Group) -> tuple[str, ...]:
            """The names in the state of what the kernel takes beside the parameters."""

        def _call(
            self,
            group: Group,
            first: bool,
            moments: list[list[Tensor]],
            steps: list[Tensor],
        ) -> "Call":
            """The fused call with the settings of a group."""

    def _refuse_capture(self) -> None:
        """Refuse to be captured in a graph where torch's class does."""

    # --- the step

    def _one_pass(self, closure: Closure | None) -> Any:  # noqa: ANN401 - a loss
        self._refuse_capture()
        if self.defaults["differentiable"]:
            return self._torchs_step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        roster, grads = self._ready()
        if grads is None:  # something is not what it seems: torch's step makes no guesses
            roster.forget()
            self._roster = None
            self._torchs_step()
            return loss
        scale, inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        try:
            roster.step(grads, scale, inf)
        except BaseException:
            roster.forget()
            self._roster = None
            raise
        if roster.first:
            self._roster = None  # moments that have begun go on by another call
        if roster.slow:
            self._step_slow(roster, scale, inf)
        return loss

    def _ready(self) -> tuple[Roster, list[list[Tensor]] | None]:
        """The roster, made anew if anything has moved, and the gradients."""
        roster = self._roster
        if roster is not None:
            grads = roster.gradients(self)
            if grads is not None:
                roster.settle(self)
                return roster, grads
        self._roster = roster = Roster(self)
        return roster, roster.gradients(self)

    def _obstacle(self) -> str | None:
        """Why no parameter at all can take the fast path, if so."""
        cls = type(self)
        # Looked up each time: torch.compile wraps it.
        if cls._init_group is not cls._torchs._init_group:  # type: ignore[attr-defined]
            return f"{cls.__name__} has an _init_group of its own"
        params = [param for group in self.param_groups for param in group["params"]]
        if len(params) != len(set(map(id, params))):
            return "a parameter is in the optimizer twice"
        return None

    # --- torch's own step for a part of the parameters

    def _step_slow(
        self, roster: Roster, grad_scale: Tensor | None, found_inf: Tensor | None
    ) -> None:
        """Make torch's own step with those that cannot take the fast path.

        Of torch's ways only the fused one knows of a gradient scaler; before the others
        gradients are unscaled here.
        """
        fused: dict[int, Group] = {}
        loose: dict[int, Group] = {}
        for at, param, why, _ in roster.slow:
            group = self.param_groups[at]
            if group["fused"] and why not in MISTAKEN:
                fused.setdefault(at, {**group, "params": []})["params"].append(param)
            else:
                own = {**group, "params": [], "fused": group["fused"] and False}
                loose.setdefault(at, own)["params"].append(param)
        if fused:
            with self._being(param_groups=list(fused.values())):
                self._torchs_step()
        if loose and not (found_inf is not None and found_inf.item()):
            if grad_scale is not None:
                for group in loose.values():
                    for param in group["params"]:
                        if param.grad is not None:
                            param.grad.div_(grad_scale)
            groups = list(loose.values())
            with self._being(param_groups=groups, grad_scale=None, found_inf=None):
                self._torchs_step()

    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _part_counters(self) -> None:
        """Give each counter a tensor of its own, which a compiler can follow."""
        for kept in self.state.values():
            step = kept.get("step")
            if isinstance(step, Tensor) and step._is_view():
                kept["step"] = step.clone()

    @contextmanager
    def _being(self, **attributes: object) -> Iterator[None]:
        """Have other attributes for a moment: be an optimizer of some parameters."""
        own = self.__dict__
        kept = {name: own[name] for name in attributes if name in own}
        own.update(attributes)
        try:
            yield
        finally:
            for name in attributes:
                del own[name]
            own.update(kept)
