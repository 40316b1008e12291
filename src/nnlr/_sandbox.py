"""Try things out without side effects: random states, hooks and output stay as they were."""

import contextlib
import inspect
import io
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch.optim import optimizer as hooks

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Restore random states and step hooks afterwards; drop warnings, output and logs."""
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    python_state = random.getstate()
    # Hooks of all optimizers count steps, or write somewhere, for optimizers that train.
    all_hooks: tuple[dict[int, Any], ...] = (
        hooks._global_optimizer_pre_hooks,
        hooks._global_optimizer_post_hooks,
    )
    copies = [dict(registered) for registered in all_hooks]
    for registered in all_hooks:
        registered.clear()
    logs = logging.root.manager.disable
    logging.disable()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(logs)
        for registered, registered_before in zip(all_hooks, copies, strict=True):
            registered.update(registered_before)
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)


def arguments(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class, and those which its ``**kwargs`` hand to the classes it is of."""
    bases = (base for base in cls.__mro__ if "__init__" in vars(base))
    accepted: dict[str, inspect.Parameter] = {}
    more = True
    while more:
        own = inspect.signature(next(bases)).parameters
        accepted = {**own, **accepted}
        more = any(each.kind is each.VAR_KEYWORD for each in own.values())
    return {key: each for key, each in accepted.items() if each.kind in _NAMED}
