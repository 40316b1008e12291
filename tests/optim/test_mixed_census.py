"""Every optimizer class of other libraries beside AdamW in one optimizer: equal, or refused.

Of those that the tests do not install, ``make census`` does.
"""

import contextlib
import copy
import io
import logging
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

import nnlr
from tests.apply import third_party

REASONS = "keeps state under|wraps an optimizer|into other groups|evaluates the loss"
NAMES = ("theirs", "adamw")
SAMPLE = ("prodigyopt",)
ADAMW = torch.optim.AdamW


def trained(name, cls, start, *, together):
    """The parameters after four steps, a resume and three more."""
    torch.manual_seed(0)
    model = copy.deepcopy(start)
    cls = partial(cls, **third_party.ARGUMENTS.get(name, {}))
    more = third_party.OPTIONS.get(name, ({}, {}))[0]

    def built(model):
        matrices = [model.body.weight, model.mid.weight]
        rest = [model.head.weight, *(p for p in model.parameters() if p.ndim == 1)]
        parts = [{"params": matrices, "lr": 0.01, **more}], [{"params": rest, "lr": 0.02}]
        if not together:
            return [factory(part) for factory, part in zip((cls, ADAMW), parts, strict=True)]
        named = [{**part, "algorithm": n} for n, (part,) in zip(NAMES, parts, strict=True)]
        return [nnlr.optim.Mixed(named, dict(zip(NAMES, (cls, ADAMW), strict=True)))]

    def train(optimizers, steps):
        for step in steps:
            x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
            model.zero_grad()
            second = name.rpartition(".")[2] in third_party.SECOND
            model(x).square().mean().backward(create_graph=second)
            torch.manual_seed(step)
            for optimizer in optimizers:
                if hasattr(optimizer, "train"):
                    optimizer.train()
                optimizer.step()

    optimizers = built(model)
    train(optimizers, range(4))
    states = [third_party.through_a_file(optimizer.state_dict()) for optimizer in optimizers]
    fresh = copy.deepcopy(start)
    fresh.load_state_dict(model.state_dict())
    model, optimizers = fresh, built(fresh)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    train(optimizers, range(4, 7))
    return list(model.parameters())


def outcome(name, cls, start):
    """Equal, refused and why, or what is wrong; nothing of a class that does not run alone."""
    try:
        alone = trained(name, cls, start, together=False)
    except Exception:  # noqa: BLE001 - anyone's optimizer
        return "does not run"
    try:
        mixed = trained(name, cls, start, together=True)
    except Exception as error:  # noqa: BLE001 - anyone's optimizer
        return f"{type(error).__name__}: {error}"
    equal = all(torch.equal(one, other) for one, other in zip(alone, mixed, strict=True))
    return "equal" if equal else "differs"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.no_cover
@pytest.mark.parametrize(
    "library",
    [
        pytest.param(library, marks=() if library in SAMPLE else pytest.mark.full)
        for library in third_party.LIBRARIES
    ],
)
def test_each_class_beside_adamw(library):
    """Trained and resumed to the last bit, or refused with the reason."""
    try:
        version(library)
    except PackageNotFoundError:
        pytest.skip(f"{library} is not installed: make census")
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            torch.compiler.set_stance("force_eager"),
        ):
            torch.manual_seed(0)
            start = third_party.Net(bias=True)
            classes = third_party.classes(library).items()
            found = {name: outcome(name, cls, start) for name, cls in classes}
    finally:
        logging.disable(logging.NOTSET)
    refused = nnlr.ConfigError.__name__
    wrong = {
        name: how
        for name, how in found.items()
        if how not in {"equal", "does not run"}
        and not (how.startswith(refused) and any(reason in how for reason in REASONS.split("|")))
    }
    assert wrong == {}
