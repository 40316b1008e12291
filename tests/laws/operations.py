"""What may happen to a run: each operation is done by nnlr and told to the reference.

An operation that does not apply where it stands does nothing and returns ``False``, so
that every list of operations is a sequence, and a part of a failing one can be left out.
"""

import contextlib
import copy
import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nnlr
from tests.laws.reference_run import Recipe, RefusedError
from tests.laws.sequences import WRAPPERS, unchanged

CHANGES = ("grow", "shrink", "untie", "resize")


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
    """The run gets a scheduler: a new course, which ends an earlier one."""

    kind: str
    decay_kind: str | None = None

    def play(self, run):
        """A decay of 0 cannot be scheduled."""
        earlier = run.scheduler
        decay_kind = self.decay_kind if run.ref.bases["weight_decay"] else None
        run.schedule(self.kind, decay_kind)
        run.ref.schedule(self.kind, decay_kind)
        if earlier:
            with unchanged(run, nnlr.ConfigError, "was replaced by a later schedule"):
                earlier.step()


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


@dataclass(frozen=True)
class Flip(Operation):
    """A setting of which no plan speaks, by hand: updates go the other way."""

    def play(self, run):
        """In all groups."""
        run.ref.flip()
        for group in run.optimizer.param_groups:
            group["maximize"] = not group["maximize"]


@dataclass(frozen=True)
class Tilt(Operation):
    """Another ratio for some groups, by hand."""

    pattern: str
    factor: float

    def play(self, run):
        """The rate goes with it; a schedule would write it at its next step."""
        chosen = run.ref.tilt(self.pattern, self.factor)
        for group in run.optimizer.param_groups:
            if not set(chosen).isdisjoint(group["param_names"]):
                group["lr_mult"] *= self.factor
                group["lr"] *= self.factor
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
        before, run.ref = run.ref, trial
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
        misfits = [
            name
            for name in before.state.keys() & trial.members.keys()
            if before.weights[name].shape != trial.weights[name].shape
        ]
        with (
            pytest.warns(nnlr.NnlrWarning, match="does not fit .* dropped")
            if misfits
            else contextlib.nullcontext()
        ):
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
