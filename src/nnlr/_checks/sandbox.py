"""A place to try things out: what happens there is not seen outside."""

import contextlib
import io
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim import optimizer as hooks


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep random states, step hooks, warnings and output from what is tried inside."""
    numpy = sys.modules.get("numpy")
    before = numpy.random.get_state() if numpy else None
    ours = random.getstate()
    # They count steps, or write somewhere, for optimizers that train.
    stepping: tuple[dict[int, Any], ...] = (
        hooks._global_optimizer_pre_hooks,
        hooks._global_optimizer_post_hooks,
    )
    waiting = [dict(each) for each in stepping]
    for each in stepping:
        each.clear()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            yield
    finally:
        for each, held in zip(stepping, waiting, strict=True):
            each.update(held)
        random.setstate(ours)
        if numpy:
            numpy.random.set_state(before)
