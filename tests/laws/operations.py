"""What may happen to a run: each operation is done by nnlr and told to the reference.

An operation that does not apply where it stands does nothing and returns ``False``, so
that every list of operations is a sequence, and a part of a failing one can be left out.
"""

import contextlib
import copy
import io
import itertools
import math
import pickle
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nnlr
from tests.laws.reference_run import Recipe, ReferenceRun, RefusedError
from tests.laws.sequences import WRAPPERS, Network, equal

CHANGES = ("grow", "shrink", "untie", "resize")
BAD_FILES = ("strangers", "another", "torn", "partial")


class Operation:
    """Something that happens to a run."""

    def play(self, run):
        """Do it, unless it does not apply; then return ``False``."""
        raise NotImplementedError


# --- training ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Train(Operation):
    """Some steps of optimizer and scheduler."""

    times: int = 1

    def play(self, run):
        """Gradients for all."""
        for _ in range(self.times):
            Step().play(run)
            run.tick()


@dataclass(frozen=True)
class Step(Operation):
    """The optimizer alone; what matches is not used, so it has no gradient."""

    unused: str = ""

    def play(self, run):
        """The same step for both."""
        run.clock += 1
        unused = [n for n in run.ref.weights if run.ref.layout.matches(n, self.unused)]
        run.backward(unused)
        run.optimizer.step()
        run.stepped = True
        run.ref.step(run.clock, unused)


@dataclass(frozen=True)
class Tick(Operation):
    """The scheduler alone: a resumed run, or an optimizer step that was skipped."""

    metric: float = 1.0

    def play(self, run):
        """It warns where the optimizer has not been stepped yet."""
        early = run.scheduler and not run.stepped and not run.over()
        run.stepped = True  # or said once
        with (
            pytest.warns(nnlr.NnlrWarning, match="stepped before the optimizer")
            if early
            else contextlib.nullcontext()
        ):
            return run.tick(self.metric)


# --- schedule and plan ----------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule(Operation):
    """The run gets its scheduler."""

    kind: str
    decay_kind: str | None = None

    def play(self, run):
        """Once; a decay of 0 cannot be scheduled."""
        if run.scheduler:
            return False
        decay_kind = self.decay_kind if run.ref.bases["weight_decay"] else None
        run.schedule(self.kind, decay_kind)
        run.ref.schedule(self.kind, decay_kind)
        return True


@dataclass(frozen=True)
class SetBase(Operation):
    """Move the whole curve."""

    lr: float

    def play(self, run):
        """By the scheduler's own handle."""
        if not run.scheduler:
            return False
        run.scheduler.set_base_lr(self.lr)
        run.ref.set_base(self.lr)
        return True


@dataclass(frozen=True)
class Regroup(Operation):
    """Another plan in mid-run; one that trains nothing is refused."""

    recipe: Recipe

    def play(self, run):
        """RefusedError by both or by neither."""
        try:
            run.ref.regroup(self.recipe)
        except RefusedError:
            with unchanged(run, nnlr.ConfigError, "trains nothing"):
                regroup(run, self.recipe)
        else:
            regroup(run, self.recipe)


def regroup(run, recipe):
    """What a user writes."""
    locked = "keep" if recipe.keep else "drop"
    nnlr.regroup(run.optimizer, run.plan(recipe), model=run.wrapped, locked=locked)


@dataclass(frozen=True)
class Gradient(Operation):
    """Freeze or unfreeze by hand, without a word to nnlr; the next plan finds it so."""

    pattern: str
    on: bool

    def play(self, run):
        """What a plan has locked is left alone."""
        tensors = run.parameters()
        chosen = run.ref.set_gradient(self.pattern, self.on)
        for name in chosen:
            tensors[name].requires_grad_(self.on)
        return bool(chosen)


# --- parameters come and go -----------------------------------------------------------------


@dataclass(frozen=True)
class Change(Operation):
    """Another layout, and a plan for it: a block more or less, a new or an untied head."""

    what: str
    recipe: Recipe

    def play(self, run):
        """Not where the plan would train nothing, or the change makes no sense."""
        layout = self.layout(run.ref.layout)
        trial = copy.deepcopy(run.ref)
        if layout is None or not possible(trial, layout, self.recipe):
            return False
        run.ref = trial
        model, blocks = run.model, run.model.blocks
        old = run.parameters()
        if self.what == "grow":
            blocks.append(type(blocks[0])().double())
        elif self.what == "shrink":
            del blocks[-1]
        elif self.what == "untie":
            model.head.weight = nn.Parameter(model.head.weight.detach().clone())
        else:
            model.head = nn.Linear(2, layout.classes).double()
        new = {n for n, tensor in run.parameters().items() if tensor is not old.get(n)}
        run.fill({name: trial.weights[name] for name in new})
        regroup(run, self.recipe)
        return True

    def layout(self, layout):
        """The layout that it makes of another, or ``None``."""
        blocks, classes = layout.blocks, layout.classes
        return {
            "grow": blocks < 4 and replace(layout, blocks=blocks + 1),
            "shrink": blocks > 2 and replace(layout, blocks=blocks - 1),
            "untie": layout.tied and replace(layout, tied=False),
            "resize": not layout.tied and replace(layout, classes=classes + 1),
        }[self.what] or None


def possible(trial, layout, recipe):
    """Tell the reference, if the plan trains anything."""
    trial.arrange(layout)
    try:
        trial.regroup(recipe)
    except RefusedError:
        return False
    return True


@dataclass(frozen=True)
class Adapter(Operation):
    """One more layer, given to the optimizer in a group made by hand."""

    lr_mult: float

    def play(self, run):
        """Once."""
        ref = run.ref
        if ref.layout.adapter:
            return False
        ref.add_adapter(self.lr_mult)
        run.model.adapter = nn.Linear(2, 2, bias=False).double()
        run.fill({"adapter.weight": ref.weights["adapter.weight"]})
        rate = ref.rate("adapter.weight")
        run.optimizer.add_param_group(
            {
                "params": [("adapter.weight", run.model.adapter.weight)],
                "lr": torch.tensor(rate) if run.setup.tensor_lr else rate,
                "weight_decay": ref.decay("adapter.weight"),
                "lr_mult": self.lr_mult,
                "wd_mult": 1.0,
            }
        )
        return True


# --- wrapping and copying --------------------------------------------------------------------


@dataclass(frozen=True)
class Wrap(Operation):
    """The model is wrapped, or taken out again; plans are made for what there is."""

    kind: str

    def play(self, run):
        """Names get prefixes, and nothing else happens."""
        run.wrapped = WRAPPERS[self.kind](run.model) if self.kind else run.model


@dataclass(frozen=True)
class Copied(Operation):
    """The run goes on with a copy of model, optimizer and scheduler."""

    by: str

    def play(self, run):
        """All three at once, as they belong together."""
        held = (run.model, run.optimizer, run.scheduler)
        pickled = self.by == "pickle"
        copied = pickle.loads(pickle.dumps(held)) if pickled else copy.deepcopy(held)
        run.model, run.optimizer, run.scheduler = copied
        run.wrapped = run.model
        nnlr.checkpoint.on_load(run.optimizer, model=run.model)  # hooks do not travel


@dataclass(frozen=True)
class Swap(Operation):
    """The same names, other tensors: the optimizer is moved to a copy of the model."""

    recipe: Recipe

    def play(self, run):
        """Averaging wraps a deep copy."""
        if not possible(trial := copy.deepcopy(run.ref), trial.layout, self.recipe):
            return False
        run.kept = run.model  # as one does with averages
        run.ref, run.wrapped = trial, AveragedModel(run.model)
        run.model = run.wrapped.module
        regroup(run, self.recipe)
        return True


# --- checkpoints --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Save(Operation):
    """A checkpoint; taking it changes nothing."""

    def play(self, run):
        """Into memory."""
        before = run.everything()
        run.checkpoints.append((run.save(), run.ref.save()))
        assert equal(before, run.everything()), "saving changed something"


@dataclass(frozen=True)
class Load(Operation):
    """Back to a checkpoint: into the live run, or into one that is built anew."""

    which: int
    order: int = 0
    fresh: bool = True
    twice: bool = False
    recipe: Recipe | None = None  # of the code that loads it; None: as it was saved
    change: str = ""  # of the layout, in that code

    def play(self, run):
        """Model, optimizer and scheduler in any order; a second time changes nothing."""
        if not run.checkpoints:
            return False
        data, saved = run.checkpoints[self.which % len(run.checkpoints)]
        target = self.target(run, saved)
        if target is None or not loadable(target, saved, live=not self.fresh):
            return False
        if self.fresh:
            run.ref = target
            run.begin(target.layout, target.recipe)
            run.fill(target.weights)
        file = torch.load(io.BytesIO(data), weights_only=True)
        parts = ("model", "optimizer", "schedule")
        order = [*itertools.permutations(parts)][self.order]
        for part in order * (1 + self.twice):
            load(run, part, file, target, saved)
        target.load(saved)
        run.stepped = run.stepped or bool(saved.curves)
        return True

    def target(self, run, saved):
        """The reference of the run that loads it, before it does."""
        if not self.fresh:
            return run.ref
        layout, recipe = saved.layout, self.recipe or saved.recipe
        changed = Change(self.change, recipe).layout(layout) if self.change else None
        try:
            return ReferenceRun.begin(run.setup.adaptive, changed or layout, recipe)
        except RefusedError:
            return None


def loadable(target, saved, *, live):
    """Whether code of this kind can be expected to load it."""
    one, other = target.layout, saved.layout
    kinds, others = (
        {key: curve.kind for key, curve in each.curves.items()}
        for each in (target, saved)
    )
    if live and kinds and others and kinds != others:
        return False  # another schedule
    if not kinds and "weight_decay" in others and not target.bases["weight_decay"]:
        return False  # nothing to schedule
    return one.tied <= other.tied and one.classes == other.classes


def load(run, part, file, target, saved):
    """Load one part of a checkpoint; the optimizer says what differs, and nothing else."""
    if part == "model":
        run.model.load_state_dict(file["model"], strict=False)
    elif part == "optimizer":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.optimizer.load_state_dict(file["optimizer"])
        texts = [str(each.message) for each in caught]
        assert all("does not fit as it was saved" in text for text in texts), texts
        assert len(texts) <= 1, texts
        if told := differences(target, saved):
            assert texts, f"nothing is said of {told}"
        elif target.members == saved.members and target.bases == saved.bases:
            assert not texts, texts
    elif saved.curves:
        if not run.scheduler:
            run.schedule(*[curve.kind for curve in saved.curves.values()])
        run.scheduler.load_state_dict(file["schedule"])


def differences(target, saved):
    """What a checkpoint says of rates and the code does not."""
    found = {key for key, base in target.bases.items() if base != saved.bases[key]}
    for name in target.members.keys() & saved.members.keys():
        one, other = target.members[name], saved.members[name]
        if not math.isclose(one.lr_mult, other.lr_mult, rel_tol=1e-6):
            found.add(name)
    return found - {"weight_decay"}  # may be said of groups that have none


# --- faults -----------------------------------------------------------------------------------


@contextlib.contextmanager
def unchanged(run, error, match):
    """Something is refused, and everything is as before, bit for bit."""
    before = run.everything()
    with pytest.raises(error, match=match):
        yield
    assert equal(before, run.everything()), "a refusal left something behind"


@dataclass(frozen=True)
class Crash(Operation):
    """The closure of a step raises when the gradients are there."""

    def play(self, run):
        """No step was taken."""

        def closure():
            run.backward()
            raise RuntimeError("out of memory")

        with unchanged(run, RuntimeError, "out of memory"):
            run.optimizer.step(closure)


@dataclass(frozen=True)
class Poison(Operation):
    """NaN in the state of one parameter."""

    which: int

    def play(self, run):
        """It stays with that parameter."""
        if not run.ref.state:
            return False
        name = sorted(run.ref.state)[self.which % len(run.ref.state)]
        held = run.optimizer.state[run.parameters()[name]]
        held["exp_avg" if run.ref.adaptive else "momentum_buffer"].fill_(float("nan"))
        run.ref.state[name]["m"] = np.full_like(run.ref.weights[name], np.nan)
        return True


@dataclass(frozen=True)
class BadPlan(Operation):
    """A plan that does not fit the optimizer or the model."""

    kind: str

    def play(self, run):
        """RefusedError before anything is touched."""
        plan = run.plan(Recipe())
        error, match = nnlr.ConfigError, "does not know the option"
        if self.kind == "option":
            flavour = nnlr.rule("*.bias", lr_mult=0.5, options={"flavour": 1})
            plan = nnlr.resolve(run.model, flavour, lr=0.7, weight_decay=0.1)
        elif self.kind == "model":
            layout = replace(run.ref.layout, blocks=5)
            plan = nnlr.resolve(Network(layout), lr=0.7, weight_decay=0.1)
            error, match = nnlr.PlanMismatchError, "lacks"
        elif "norm.bias" in run.ref.locked:
            return False  # whatever its flag says, it is for plans to train
        else:
            run.model.norm.bias.requires_grad_(not run.model.norm.bias.requires_grad)
            error, match = nnlr.PlanMismatchError, "when the plan was made"
        try:
            with unchanged(run, error, match):
                nnlr.regroup(run.optimizer, plan, model=run.model)
        finally:
            run.model.norm.bias.requires_grad_(run.ref.gradient["norm.bias"])
        return True


@dataclass(frozen=True)
class BadFile(Operation):
    """A checkpoint that is not of this run, or broken."""

    kind: str

    def play(self, run):
        """RefusedError, with everything as it was."""
        if self.kind == "strangers":
            state = copy.deepcopy(run.optimizer.state_dict())
            for group in state["param_groups"]:
                group["lr"] = 7.0
                group["param_names"] = [f"other.{n}" for n in group["param_names"]]
            with unchanged(run, nnlr.ConfigError, "None of the .* names"):
                run.optimizer.load_state_dict(state)
            return True
        if not run.scheduler:
            return False
        state = copy.deepcopy(run.scheduler.state_dict())
        inner = copy.deepcopy(run.scheduler.scheduler.state_dict())
        Tick().play(run)  # so that the file is of another moment
        broken = {
            "another": inner,
            "torn": {**state, "lr": {"scheduler": state["lr"]["scheduler"]}},
            "partial": {key: {} for key in state},
        }[self.kind]
        with unchanged(run, nnlr.ConfigError, "is not the state of such a schedule"):
            run.scheduler.load_state_dict(broken)
        return True
