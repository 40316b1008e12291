"""One training run, through a torch optimizer or in Torch7's way."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nnlr
from nnlr.demo.data import Digits
from nnlr.demo.options import Method, Options, Recipe

Step = Callable[[Tensor, Tensor], Tensor]  # images, labels -> mean loss before the step


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came out of a training run.

    Attributes:
        losses: Mean training loss of each epoch.
        right: Test images told right at the end.
        tested: Test images.
        seconds: Wall time of the training.
    """

    losses: tuple[float, ...]
    right: int
    tested: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of the test images told right, 0 to 1."""
        return self.right / self.tested


def train(
    net: nn.Module,
    plan: nnlr.Plan,
    data: Digits,
    options: Options,
    tick: Callable[[], None],
) -> Run:
    """Train a network at the rates of a plan, and test it.

    Args:
        net: The network; it is trained in place.
        plan: The rates.
        data: The images, on the network's device.
        options: What was chosen; the batches depend on its seed alone.
        tick: Called after every step.

    Raises:
        NnlrError: If the loss is no number any more.
    """
    step = _stepper(net, plan, options)
    begin = time.perf_counter()  # the first optimizer of a process imports much
    order = torch.Generator().manual_seed(options.seed)
    losses = []
    net.train()
    for epoch in range(1, options.epochs + 1):
        total = torch.zeros((), device=data.train_images.device)
        for batch in batches(len(data.train_labels), options.batch_size, order):
            loss = step(data.train_images[batch], data.train_labels[batch])
            total += loss * len(batch)
            tick()
        losses.append(float(total) / len(data.train_labels))
        if not math.isfinite(losses[-1]):
            raise nnlr.NnlrError(
                f"The training loss became {losses[-1]} in epoch {epoch}: training diverged.",
                epoch=epoch,
            )
    seconds = time.perf_counter() - begin
    return Run(
        losses=tuple(losses),
        right=count_right(net, data.test_images, data.test_labels),
        tested=len(data.test_labels),
        seconds=seconds,
    )


def batch_count(images: int, size: int) -> int:
    """How many steps an epoch has.

    Examples:
        >>> batch_count(1437, 64), batch_count(10, 64)
        (22, 1)
    """
    return max(1, images // size)


def batches(images: int, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Split the images of one epoch into batches, shuffled.

    The batches differ by one image at most and have ``size`` or a few more, rather than a
    small one at the end, which batch norm would choke on.
    """
    shuffled = torch.randperm(images, generator=order)
    yield from torch.tensor_split(shuffled, batch_count(images, size))


def count_right(net: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Count the images that a network tells right."""
    net.eval()
    right = 0
    with torch.no_grad():
        for part in torch.split(torch.arange(len(labels)), 1000):
            right += int((net(images[part]).argmax(dim=1) == labels[part]).sum())
    return right


def _stepper(net: nn.Module, plan: nnlr.Plan, options: Options) -> Step:
    if options.optimizer is Method.torch7:
        return _torch7(net, plan, options.recipe)
    cls = torch.optim.AdamW if options.optimizer is Method.adamw else torch.optim.SGD
    return _torch(net, plan.optimizer(cls, **options.recipe.settings))


def _torch(net: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """Torch's way: parameter groups."""

    def step(images: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.nll_loss(net(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def _torch7(net: nn.Module, plan: nnlr.Plan, recipe: Recipe) -> Step:
    """Torch7's way: all parameters in one vector, beside one of rates and one of decays."""
    params, grad_params = nnlr.torch7.get_parameters(net)
    learning_rates, weight_decays = plan.vectors()
    config = {
        "learning_rates": learning_rates,
        "weight_decays": weight_decays,
        **recipe.settings,
    }

    def step(images: Tensor, labels: Tensor) -> Tensor:
        def feval(_: Tensor) -> tuple[Tensor, Tensor]:
            grad_params.zero_()
            loss = F.nll_loss(net(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss, grad_params

        _, losses = nnlr.torch7.sgd(feval, params, config)
        loss: Tensor = losses[0]
        return loss

    return step
