"""A training run in plain arithmetic, by parameter name: what test_sequences.py expects.

Written from the documentation, with NumPy. It knows nothing of torch or of the package.
"""

import copy
import functools
import math
import zlib
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from tests.laws.reference_curves import FLOOR, Curve

MOMENTUM, BETA2, EPS = 0.9, 0.999, 1e-8


class RefusedError(Exception):
    """What was asked is to be refused, and to change nothing."""


# --- the network, as far as a run has to know it ----------------------------------------


@dataclass(frozen=True)
class Layout:
    """Which parameters there are."""

    blocks: int = 2
    tied: bool = True
    classes: int = 4
    adapter: bool = False

    def shapes(self):
        """Shape of every parameter, in the order of the model."""
        found = {"tok.weight": (4, 2)}
        for block in range(self.blocks):
            for name, shape in (
                *(("norm.weight", (2,)), ("norm.bias", (2,))),
                *(("up.weight", (3, 2)), ("up.bias", (3,))),
                *(("down.weight", (2, 3)), ("down.bias", (2,))),
            ):
                found[f"blocks.{block}.{name}"] = shape
        found |= {"norm.weight": (2,), "norm.bias": (2,)}
        if not self.tied:
            found["head.weight"] = (self.classes, 2)
        found["head.bias"] = (self.classes,)
        if self.adapter:
            found["adapter.weight"] = (2, 2)
        return found

    def layer(self, name):
        """How far up a parameter is: embedding 0, blocks from 1, final norm with the last."""
        if name == "tok.weight":
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.blocks if name.startswith("norm.") else self.blocks + 1

    def matches(self, name, pattern):
        """A tied tensor is meant by either of its names."""
        tied = self.tied and name == "tok.weight"
        names = [name, "head.weight"] if tied else [name]
        return any(fnmatchcase(each, pattern) for each in names)


@functools.cache
def numbers(name, shape, when):
    """Numbers in [-1, 1] that differ between names and moments, always the same."""
    start = zlib.crc32(name.encode()) % 1000 + 1.7 * when
    return np.sin(start + 0.7 * np.arange(math.prod(shape))).reshape(shape)


# --- what a plan decides ------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """A product of schemes and the base rates.

    Parts are ``("rule", pattern, lr_mult, wd_mult)``, ``("own", pattern, momentum)``,
    ``("list", (rule, ...))`` of which the first match counts, ``("freeze", pattern)``,
    ``("layers", decay)`` and ``("no decay",)``.
    """

    parts: tuple = ()
    lr: float = 0.1
    weight_decay: float = 0.05
    decay: str = "coupled"
    keep: bool = False


@dataclass
class Member:
    """How a parameter in a group is trained."""

    lr_mult: float
    wd_mult: float
    own: float | None = None  # momentum, or first beta, other than the optimizer's
    planned: float = 1.0  # the first multiplier, where a hand has written another
    uphill: bool = False  # maximized: only a hand writes that
    noted: bool = False  # the same, as it was when the group was first noted
    apart: bool = False  # in a group made by hand
    late: bool = False  # added by hand: the schedule has not come by yet


def decided(recipe, layout):
    """Multipliers of every parameter."""
    return {name: _member(recipe, layout, name) for name in layout.shapes()}


def _member(recipe, layout, name):
    lrs, decays, own = [1.0], [1.0], None
    for kind, *rest in recipe.parts:
        if kind == "rule":
            claims = [rest] if layout.matches(name, rest[0]) else []
        elif kind == "list":
            claims = [rule for rule in rest[0] if layout.matches(name, rule[0])][:1]
        elif kind == "freeze":
            claims = [(rest[0], 0.0, 1.0)] if layout.matches(name, rest[0]) else []
        elif kind == "layers":
            above = layout.blocks + 1 - layout.layer(name)
            claims = [(None, rest[0] ** above, 1.0)]
        elif kind == "no decay":
            exempt = name.endswith("bias") or "norm" in name
            claims = [(None, 1.0, 0.0 if exempt else 1.0)]
        else:  # "own"
            claims = []
            if layout.matches(name, rest[0]):
                own = rest[1]
        lrs += [lr for _, lr, _ in claims]
        decays += [decay for _, _, decay in claims]
    lr_mult, wd_mult = math.prod(sorted(lrs)), math.prod(sorted(decays))
    if recipe.decay == "independent" and lr_mult:
        wd_mult /= lr_mult
    if recipe.decay == "sqrt" and lr_mult:
        wd_mult /= math.sqrt(lr_mult)
    return Member(lr_mult, wd_mult, own, planned=lr_mult)


# --- the run ----------------------------------------------------------------------------------


@dataclass
class Saved:
    """What is in a checkpoint; the code beside it knows layout and recipe."""

    layout: Layout
    recipe: Recipe
    weights: dict
    state: dict
    members: dict
    curves: dict
    bases: dict


@dataclass
class ReferenceRun:
    """A run with AdamW, or SGD with momentum."""

    adaptive: bool
    layout: Layout
    recipe: Recipe
    weights: dict = field(default_factory=dict)
    gradient: dict = field(default_factory=dict)  # name -> requires_grad
    locked: set = field(default_factory=set)  # by the plan, not by hand
    members: dict = field(default_factory=dict)
    state: dict = field(default_factory=dict)
    bases: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)

    @classmethod
    def begin(cls, adaptive, layout, recipe):
        """Weights, and an optimizer on the plan's groups."""
        run = cls(adaptive, layout, recipe)
        run.bases = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
        run.arrange(layout)
        run.regroup(recipe)
        return run

    # --- what the optimizer is to hold

    def base(self, key):
        """A base rate at this moment."""
        curve = self.curves.get(key)
        return curve.value() if curve else self.bases[key]

    def rate(self, name):
        """Learning rate of a parameter."""
        return self.base("lr") * self.members[name].lr_mult

    def decay(self, name):
        """Weight decay of a parameter."""
        return self.base("weight_decay") * self.members[name].wd_mult

    def momentum(self, name):
        """Momentum, or first beta, of a parameter."""
        member, curve = self.members[name], self.curves.get("lr")
        cycled = curve.momentum() if curve and not member.late else None
        usual = MOMENTUM if cycled is None else cycled
        return usual if member.own is None else member.own

    # --- what happens

    def step(self, when, unused=()):
        """Train everything that has a gradient once."""
        for name, weight in self.weights.items():
            if not self.gradient[name] or name not in self.members or name in unused:
                continue
            gradient = numbers(name, weight.shape, when) + 0.1 * weight
            gradient = -gradient if self.members[name].uphill else gradient
            update = self._adamw if self.adaptive else self._sgd
            update(name, weight, gradient)

    def _adamw(self, name, weight, gradient):
        zeros = np.zeros_like(weight)
        state = self.state.setdefault(name, {"step": 0, "m": zeros, "v": zeros})
        beta, lr = self.momentum(name), self.rate(name)
        state["step"] += 1
        state["m"] = beta * state["m"] + (1 - beta) * gradient
        state["v"] = BETA2 * state["v"] + (1 - BETA2) * gradient**2
        mean = state["m"] / (1 - beta ** state["step"])
        spread = np.sqrt(state["v"] / (1 - BETA2 ** state["step"])) + EPS
        shrunk = weight * (1 - lr * self.decay(name))
        self.weights[name] = shrunk - lr * mean / spread

    def _sgd(self, name, weight, gradient):
        gradient = gradient + self.decay(name) * weight
        held = self.state.get(name)
        moved = gradient + self.momentum(name) * held["m"] if held else gradient
        self.state[name] = {"m": moved}
        self.weights[name] = weight - self.rate(name) * moved

    def schedule(self, kind, decay_kind=None):
        """Begin a new course of the learning rate, and maybe one of the weight decay.

        It starts at the base rates of the plan, and what was scheduled before has ended.
        """
        kinds = {"lr": kind, "weight_decay": decay_kind}
        self.curves = {
            key: Curve(each, *[self.bases[key]] * 3) for key, each in kinds.items() if each
        }
        self.reach_all()

    def tick(self, metric):
        """Step the schedules."""
        for curve in self.curves.values():
            curve.step(metric)
        self.reach_all()

    def reach_all(self):
        """A schedule comes by all groups, also those made by hand."""
        self.members = {n: replace(m, late=False) for n, m in self.members.items()}

    def set_base(self, lr):
        """Move the curve of the learning rate."""
        self.curves["lr"].now = lr
        self.reach_all()

    def arrange(self, layout):
        """Parameters come, go, or change their shape; what is new starts afresh."""
        wanted = layout.shapes()
        for name in [*self.weights]:
            if self.weights[name].shape != wanted.get(name):
                for held in (self.weights, self.gradient, self.members, self.state):
                    held.pop(name, None)
                self.locked.discard(name)
        for name, shape in wanted.items():
            if name not in self.weights:
                self.weights[name] = numbers(name, shape, -1)
                self.gradient[name] = True
        self.weights = {name: self.weights[name] for name in wanted}
        self.layout = layout

    def regroup(self, recipe):
        """A new plan: rates are its own, state stays with what it trains."""
        plan = decided(recipe, self.layout)
        free = [n for n in self.weights if self.gradient[n] or n in self.locked]
        stay = {n: plan[n] for n in free if plan[n].lr_mult or recipe.keep}
        if not stay:
            raise RefusedError("the plan trains nothing")
        uphill = bool(self.members) and all(member.uphill for member in self.members.values())
        self.members = {name: replace(member, uphill=uphill) for name, member in stay.items()}
        self.state = {name: self.state[name] for name in stay if name in self.state}
        self.locked = set(free) - set(stay)
        self.gradient |= {name: name in stay for name in free}
        self._rebase({"lr": recipe.lr, "weight_decay": recipe.weight_decay})
        self.recipe = recipe

    def _rebase(self, bases):
        """Schedules go on at other base rates."""
        for key, new in bases.items():
            if curve := self.curves.get(key):
                old = self.bases[key]
                curve.now = curve.now * (new / old) if old else new
        self.bases = bases

    def add_adapter(self, lr_mult):
        """One more parameter, in a group made by hand."""
        self.arrange(replace(self.layout, adapter=True))
        self.members["adapter.weight"] = Member(
            lr_mult, 1.0, late=True, planned=lr_mult, apart=True
        )

    def flip(self):
        """Turn the sign of all updates by hand."""
        for member in self.members.values():
            member.uphill = not member.uphill
            member.noted = member.uphill if member.late else member.noted

    def tilt(self, pattern, factor):
        """Multiply the multipliers of some groups by hand; return the parameters in them.

        Of a group that nobody has noted yet nothing tells a hand's multiplier from the code's.
        """
        groups = {self._group(n) for n in self.members if self.layout.matches(n, pattern)}
        chosen = [name for name in self.members if self._group(name) in groups]
        for member in (self.members[name] for name in chosen):
            member.lr_mult *= factor
            member.planned = member.lr_mult if member.late else member.planned
        return chosen

    def set_gradient(self, pattern, value):
        """Switch gradients by hand, but for what a plan has locked."""
        chosen = [
            name
            for name in self.weights
            if self.layout.matches(name, pattern) and name not in self.locked
        ]
        self.gradient |= dict.fromkeys(chosen, value)
        return chosen

    def save(self):
        """A checkpoint."""
        names = ("layout", "recipe", "weights", "state", "members", "curves", "bases")
        return Saved(**copy.deepcopy({name: getattr(self, name) for name in names}))

    def load(self, saved, floor=FLOOR):
        """State and weights by name; what training moved continues, the rest is the code's.

        Plans write rates and momenta, so these are the code's. What a hand has written is the
        checkpoint's: a sign where all of a group were saved with it, and a multiplier.
        """
        saved = copy.deepcopy(saved)
        weights = dict(saved.weights)
        if saved.layout.tied and not self.layout.tied:
            weights["head.weight"] = weights["tok.weight"]
        self.weights |= {n: weights[n] for n in self.weights if n in weights}
        self.state = {n: saved.state[n] for n in self.members if n in saved.state}
        signs = {}
        for name in self.members.keys() & saved.members.keys():
            other = saved.members[name]
            moved = other.late or other.uphill != other.noted
            signs.setdefault(self._group(name), set()).add((other.uphill, moved))
        mults = self.multipliers(saved)
        groups = {name: self._group(name) for name in self.members}
        for name, member in self.members.items():
            sign = signs.get(groups[name], ())
            agreed = {each for each, _ in sign} if all(moved for _, moved in sign) else ()
            member.uphill = next(iter(agreed)) if len(agreed) == 1 else member.noted
            member.lr_mult = member.planned
            if moved := [m for m, plan in mults.get(groups[name], ()) if m != plan]:
                member.lr_mult = moved[0]
        if saved.curves:
            codes = {key: (curve.code, curve.floor) for key, curve in self.curves.items()}
            self.curves = {
                key: curve.resumed(saved.bases[key], base, *codes.get(key, (base, floor)))
                for key, curve in saved.curves.items()
                for base in [self.bases[key]]
            }
            self.reach_all()

    def multipliers(self, saved):
        """Saved and planned multipliers of the parameters of each group of this code."""
        found = {}
        for name in self.members.keys() & saved.members.keys():
            other = saved.members[name]
            found.setdefault(self._group(name), set()).add((other.lr_mult, other.planned))
        return found

    def _group(self, name):
        """What parameters have in common that are in one group."""
        member = self.members[name]
        decay = member.wd_mult if self.bases["weight_decay"] else 0.0
        return member.planned, decay, member.own, member.apart
