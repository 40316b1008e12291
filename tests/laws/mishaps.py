"""What happens to a run beside training: checkpoints are taken and loaded, and things fail."""

import contextlib
import copy
import io
import itertools
import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import nnlr
from tests.laws.operations import Change, Operation, Tick
from tests.laws.reference_curves import FLOOR
from tests.laws.reference_run import Recipe, ReferenceRun, RefusedError
from tests.laws.sequences import Network, equal, unchanged

BAD_FILES = ("strangers", "another", "torn", "partial")

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
    floor: float = FLOOR  # of the schedule, in that code

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
            if part == "schedule":
                self.load_schedule(run, file, target, saved)
            else:
                load(run, part, file, target, saved)
        target.load(saved, self.floor)
        run.stepped = run.stepped or bool(saved.curves)
        return True

    def load_schedule(self, run, file, target, saved):
        """Build it, if there is none, and load it; another floor in the code is one warning."""
        if not saved.curves:
            return
        if not run.scheduler:
            decay = saved.curves.get("weight_decay")
            run.schedule(saved.curves["lr"].kind, decay and decay.kind, self.floor)
        # Those of a live schedule are as it was built.
        floors = {key: curve.floor for key, curve in target.curves.items()}
        with (
            pytest.warns(nnlr.NnlrWarning, match="saved with other settings, and those of the code")
            if any(each.misses(floors.get(key, self.floor)) for key, each in saved.curves.items())
            else contextlib.nullcontext()
        ):
            run.scheduler.load_state_dict(file["schedule"])

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
        {key: curve.kind for key, curve in each.curves.items()} for each in (target, saved)
    )
    if live and kinds and others and kinds != others:
        return False  # another schedule
    if not kinds and "weight_decay" in others and not target.bases["weight_decay"]:
        return False  # nothing to schedule
    if one.classes != other.classes or one.tied > other.tied:
        return False
    # Two multipliers that a hand has moved do not fit into one group.
    return all(
        len({mult for mult, _ in mults}) == 1 or all(mult == plan for mult, plan in mults)
        for mults in target.multipliers(saved).values()
    )


def load(run, part, file, target, saved):
    """Load one part of a checkpoint; the optimizer says what differs, and nothing else."""
    if part == "model":
        run.model.load_state_dict(file["model"], strict=False)
    elif part == "optimizer":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.optimizer.load_state_dict(file["optimizer"])
        texts = [str(each.message) for each in caught]
        assert all("optimizer and its checkpoint differ" in text for text in texts), texts
        assert len(texts) <= 1, texts
        if told := differences(target, saved):
            assert texts, f"nothing is said of {told}"
        elif target.members == saved.members and target.bases == saved.bases:
            assert not texts, texts


def differences(target, saved):
    """What a checkpoint says of rates and the code does not."""
    found = {key for key, base in target.bases.items() if base != saved.bases[key]}
    for name in target.members.keys() & saved.members.keys():
        one, other = target.members[name], saved.members[name]
        if not math.isclose(one.planned, other.planned, rel_tol=1e-6):
            found.add(name)
    return found - {"weight_decay"}  # may be said of groups that have none


# --- faults -----------------------------------------------------------------------------------


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
        error, match = nnlr.ConfigError, "does not know the option|trains nothing"
        if self.kind == "option":
            flavour = nnlr.rule("*", lr_mult=0.5, options={"flavour": 1})
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
                group["lr"] = 7.0 * group["lr_mult"]
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
