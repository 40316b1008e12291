"""No argument gets in that should not, and none comes out as an error of Python's.

Random public calls that would work, in which one or two arguments are replaced by what nobody
should pass. A call is refused with an NnlrError and leaves everything as it was, or it is
accepted: then the argument was of the annotated kind, and what came of it makes sense.
"""

import importlib
import inspect
import math
import random
import warnings
from collections import Counter
from contextlib import suppress

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer

import nnlr
from nnlr._model.roles import ROLES
from tests.laws.hostile_values import LABELS, NoiseError, hostile
from tests.laws.mutate import mutated
from tests.laws.public_calls import MODULES, World, fits

pytestmark = pytest.mark.no_cover

SAMPLE = 300
ALL = 10_000


@pytest.fixture(autouse=True)
def nothing_switched_on():
    """Calls of the samples switch numba and the methods of modules on, for the whole process."""
    yield
    nnlr.optim.use_numba(False)
    nnlr.uninstall()


# Errors of others that a call hands on, as its docstring says.
DOCUMENTED = {
    "nnlr.checkpoint.load_dcp": (OSError, CheckpointException),
    # Torch copies its argument before all else, and walks through state that holds itself.
    "optimizer.load_state_dict": (AttributeError, RecursionError),
}

KEYWORDS = inspect.Parameter.VAR_KEYWORD
POSITIONS = inspect.Parameter.VAR_POSITIONAL
BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def arguments(call, world, replaced, optional):
    """Positional and keyword arguments that work, but for those that are replaced."""
    args, kwargs = [], {}
    by_position = True
    for name, parameter in call.parameters.items():
        if parameter.kind is KEYWORDS:
            kwargs |= call.example(world, name) or {}
            continue
        if parameter.kind is POSITIONS:
            values = [replaced[name]] if name in replaced else []
            if (example := call.example(world, name)) is not None:
                values.append(example)
            args += values if by_position else []
            continue
        if name not in replaced and not call.needs(name) and name not in optional:
            by_position = by_position and parameter.kind not in BY_POSITION
            continue
        value = replaced[name] if name in replaced else call.sample(world, name)
        if by_position and parameter.kind in BY_POSITION:
            args.append(value)
        else:
            kwargs[name] = value
    return args, kwargs


def faults(number, world):
    """What is wrong about the answer to one hostile call: its story, or nothing."""
    rng = random.Random(number)  # noqa: S311 - a seed that can be replayed
    table = world.calls
    call = table[rng.choice(sorted(table))]
    candidates = [
        name
        for name, parameter in call.parameters.items()
        if parameter.kind is not KEYWORDS
        and (parameter.kind is not POSITIONS or call.example(world, name) is not None)
    ]
    if not candidates:
        return None
    chosen = rng.sample(candidates, min(len(candidates), rng.choice([1, 1, 1, 2])))
    labels, replaced = {}, {}
    for name in chosen:
        if rng.random() < 0.5 and isinstance(call.example(world, name), dict | list):
            labels[name], replaced[name] = mutated(call.example(world, name), rng)
        else:
            labels[name] = rng.choice(LABELS)
            replaced[name] = hostile(labels[name])
    if isinstance(replaced.get("steps"), int) and replaced["steps"] > 100:
        return None  # a study that would take years is no mistake
    optional = {name for name in candidates if rng.random() < 0.2}
    story = f"{number}: {call.name} with {labels}"
    return judged(call, world, replaced, optional, story)


def judged(call, world, replaced, optional, story):
    """What is wrong about the answer to a call with some arguments replaced."""
    args, kwargs = arguments(call, world, replaced, optional)
    if call.method:
        world.thing(call.name.partition(".")[0])
    before = world.fingerprint()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call.made(world, *args, **kwargs)
            for name, value in replaced.items():
                if fits(call.kinds[name], value) is False:
                    return f"{story}: accepted {name}"
            trouble = nonsense(result, world)
            return f"{story}: {trouble}" if trouble else None
    except nnlr.NnlrError as error:
        str(error)
        return f"{story}: changed something" if world.fingerprint() != before else None
    except Exception as error:  # noqa: BLE001 - the very thing that must not be
        if is_allowed(error, call, replaced, story):
            return None
        return f"{story}: raw {type(error).__name__}: {error}"


def is_allowed(error, call, replaced, story):
    """Whether an error is documented, or comes from an object or a function of the user's."""
    if isinstance(error, DOCUMENTED.get(call.name, ())):
        return True
    if isinstance(error, NoiseError) and "] = " in story:  # inside of a state that was loaded
        return True
    # torch's own load asks whatever is in a state for its length, which a scripted module has not.
    if isinstance(error, NotImplementedError) and "got scripted beside it" in story:
        return True
    return any(
        fits(call.kinds[name], value) is not False
        and callable(value)
        and (isinstance(error, NoiseError) or not is_ours(value))
        for name, value in replaced.items()
    )


def is_ours(function):
    """Whether a function is one of this test's, which raise a NoiseError or nothing."""
    return inspect.isfunction(function) and function.__module__ == "tests.laws.hostile_values"


def nonsense(result, world):
    """What a result of an accepted call has that makes no sense."""
    if isinstance(result, nnlr.Plan):
        return nonsense_of_plan(result)
    if isinstance(result, Optimizer):
        return nonsense_of_groups(result.param_groups)
    if isinstance(result, nnlr.Scheme):
        repr(result)
        with suppress(nnlr.NnlrError):
            return nonsense_of_plan(nnlr.resolve(world.model, result, lr=0.1, weight_decay=0.01))
        return None
    if isinstance(result, list) and result and isinstance(result[0], dict):
        return nonsense_of_groups(result)
    str(result), repr(result)
    return None


def nonsense_of_plan(plan):
    """Rates that are none, roles that are none."""
    str(plan), plan.table(full=True), plan.to_json()
    for row in plan:
        rates = (row.lr, row.weight_decay, row.lr_mult, row.wd_mult, row.eps_mult, row.init_mult)
        if not all(isinstance(r, float) and math.isfinite(r) and r >= 0 for r in rates):
            return f"{row.name} has {rates}"
        if row.role not in ROLES:
            return f"{row.name} has the role {row.role!r}"
        plan.explain(row.name)
    return nonsense_of_groups([vars_of(group) for group in plan.groups])


def vars_of(group):
    return {key: getattr(group, key) for key in ("lr", "weight_decay", "lr_mult", "wd_mult")}


def nonsense_of_groups(groups):
    """Settings of groups that no optimizer should get."""
    for group in groups:
        for key in ("lr", "weight_decay", "lr_mult", "wd_mult", "eps"):
            value = group.get(key, 0.0)
            value = value.item() if isinstance(value, torch.Tensor) else value
            if isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
                return f"a group has {key}={value!r}"
    return None


def run(numbers, modules=MODULES):
    """All faults among some numbers of hostile calls."""
    world = World(modules)
    troubles = []
    for number in numbers:
        before = world.fingerprint()
        if trouble := faults(number, world):
            troubles.append(trouble)
        if world.fingerprint() != before:
            world = World(modules)
    return troubles


def samples_work(world):
    """Make every call with its samples."""
    before = world.fingerprint()
    for name in sorted(world.calls):
        call = world.calls[name]
        args, kwargs = arguments(call, world, {}, ())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call.made(world, *args, **kwargs)
        if world.fingerprint() != before:
            world = World(world.modules)


def test_every_call_works_with_its_samples(tmp_path, monkeypatch):
    """So that a hostile argument is the only reason to refuse a call."""
    monkeypatch.chdir(tmp_path)
    world = World()
    assert len(world.calls) > 60
    samples_work(world)


def test_hostile_calls_are_refused_or_make_sense(tmp_path, monkeypatch):
    """A sample of what `make full` tries."""
    monkeypatch.chdir(tmp_path)
    assert [] == run(range(SAMPLE))


@pytest.mark.full
def test_hostile_calls_of_the_integrations(tmp_path, monkeypatch):
    """The functions for trainers too."""
    monkeypatch.chdir(tmp_path)
    trainers = ("accelerate", "lightning", "timm", "transformers")
    modules = tuple(importlib.import_module(f"nnlr.integrations.{name}") for name in trainers)
    samples_work(World(modules))
    assert [] == run(range(1000), modules)


@pytest.mark.full
@pytest.mark.parametrize("thousand", range(ALL // 1000))
def test_thousands_of_hostile_calls(thousand, tmp_path, monkeypatch):
    """No raw error, nothing accepted that is no such argument, nothing changed by a refusal."""
    monkeypatch.chdir(tmp_path)
    assert [] == run(range(1000 * thousand, 1000 * thousand + 1000))


def test_the_generator_can_fail():
    """It finds a raw error, an argument that is not checked, and a change before the refusal."""
    world = World()
    call = world.calls["nnlr.glob"]

    def raw(pattern: str) -> str:
        return pattern.lower()

    def unchecked(pattern: bool) -> bool:
        return pattern

    def half(pattern: str) -> str:
        world.model[0].weight.requires_grad_(False)
        raise nnlr.NnlrError("too late")

    seen = Counter()
    for function in (raw, unchecked, half):
        call.function, call.kinds = function, {"pattern": function.__annotations__["pattern"]}
        seen[judged(call, world, {"pattern": 3}, (), "x").split(" ")[1]] += 1
    assert {"raw": 1, "accepted": 1, "changed": 1} == seen
