"""Lines to paste that several findings offer.

They speak of what every script has: ``model``, ``scheme``, ``lr``, ``wd``, ``plan``,
``optimizer``, or ``optimizers`` where there are several, and ``scheduler``.
"""

from collections.abc import Collection, Iterable
from typing import Final

from torch.optim import Optimizer

from nnlr import checkpoint
from nnlr._checks.subject import Subject, rate
from nnlr._rows.rates import written
from nnlr.optim._members import ALGORITHM
from nnlr.optim._mixed import Mixed
from nnlr.optim._update_size import is_muon

# A new plan of the model as it is.
RESOLVE: Final = "plan = nnlr.resolve(model, scheme, lr=lr, weight_decay=wd)"


def resolve_again(subject: Subject, more: str = "") -> str:
    """A new plan, perhaps with one more scheme, and its groups for the optimizer if there is one.

    The optimizer keeps the state of each parameter. Muon and another beside each other, which no
    plan has built, become one.
    """
    if subject.plan is None and len(subject.optimizers) > 1 and subject.beside_muon:
        return routed(subject, more)
    plan = RESOLVE.replace("scheme", f"scheme * {more}") if more else RESOLVE
    return f"{plan}; {regrouped(subject)}" if subject.optimizers else plan


def regrouped(subject: Subject) -> str:
    """The groups of a plan for the optimizer, which then loads checkpoints by name."""
    names = [part.param_groups[0].get(ALGORITHM) for _, part in subject.parts]
    if len(subject.optimizers) > 1 and None not in names and not _is_mixed(subject):
        of_each = ", ".join(f"{name!r}: type(optimizers[{at}])" for at, name in enumerate(names))
        return f"optimizer = plan.optimizer({{{of_each}}}); optimizers = [optimizer]"
    code = "nnlr.regroup(optimizer, plan)"
    if all(map(checkpoint.installed, subject.optimizers)):
        return code
    return f"{code}; nnlr.checkpoint.on_load(optimizer, model=model)"


def routed(subject: Subject, scheme: str = "") -> str:
    """Muon and AdamW as one optimizer, each at the base rates of today; perhaps with a scheme."""
    rates: dict[str, dict[str, float]] = {"lr": {}, "weight_decay": {}}
    for _, part in subject.parts:
        muon = is_muon(type(part), part.param_groups[0])
        for key, of in rates.items():
            of.setdefault("muon" if muon else "adamw", part.defaults.get(key) or 0.0)
    rates["lr"].setdefault("adamw", 3e-4)
    rates["weight_decay"].setdefault("adamw", 0.0)
    settings = ", ".join(f"{key}={written(of)}" for key, of in rates.items())
    decayed = {
        subject.described[member.name].role
        for member in subject.members
        if member.name in subject.described and rate(member.group, "weight_decay")
    }
    more = "" if decayed & {"norm", "bias"} else " * nnlr.no_weight_decay()"
    more += f" * {scheme}" if scheme else ""
    return (
        f"plan = nnlr.resolve(model, nnlr.route('muon', 'adamw'){more}, {settings}); optimizer = "
        "plan.optimizer({'muon': torch.optim.Muon, 'adamw': torch.optim.AdamW})"
        + ("; optimizers = [optimizer]" if len(subject.optimizers) > 1 else "")
    )


def with_rates(subject: Subject, part: Optimizer, factor: float) -> str:
    """The rate of one of several algorithms multiplied."""
    names = [each.param_groups[0].get(ALGORITHM) for _, each in subject.parts]
    own = part.param_groups[0].get(ALGORITHM)
    if subject.plan is not None and (bases := subject.plan.algorithms) and None not in names:
        lr = {key: base.lr * (factor if key == own else 1) for key, base in bases.items()}
        return f"plan = plan.with_rates(lr={written(lr)}); {regrouped(subject)}"
    at = [id(each) for _, each in subject.parts].index(id(part))
    loop = "optimizer.param_groups"
    if len(subject.optimizers) > 1:
        loop = f"optimizers[{at}].param_groups"
    else:
        loop += f" if group['algorithm'] == {own!r}"
    return f"[group.update(lr=group['lr'] * {factor:.2g}) for group in {loop}]"


def rebuilt(subject: Subject) -> str:
    """An optimizer of torch on the groups of the plan."""
    code = f"optimizer = plan.optimizer({classes(subject, 'torch.optim.AdamW')})"
    return code if subject.plan else f"{RESOLVE}; {code}"


def classes(subject: Subject, cls: str) -> str:
    """What ``plan.optimizer`` builds: this class, of several algorithms each by it."""
    return f"{{name: {cls} for name in optimizer.algorithms}}" if _is_mixed(subject) else cls


def same_classes(subject: Subject) -> str:
    """What ``plan.optimizer`` has built, to build it again."""
    if _is_mixed(subject):
        return "{name: type(each) for name, each in optimizer.algorithms.items()}"
    return "type(optimizer)"


def _is_mixed(subject: Subject) -> bool:
    """Whether several algorithms are one optimizer."""
    return any(isinstance(optimizer, Mixed) for optimizer in subject.optimizers)


def defaults(subject: Subject) -> str:
    """The defaults of the class that steps a ``group`` of ``optimizer``, as code."""
    member = ".algorithms[group['algorithm']]" if _is_mixed(subject) else ""
    return f"optimizer{member}.defaults"


def frozen(names: Iterable[str], all_names: Collection[str]) -> str:
    """The scheme that freezes these parameters and no other, by the fewest patterns."""
    return f"nnlr.freeze({selector(names, all_names)})"


def selector(names: Iterable[str], all_names: Collection[str]) -> str:
    """A selector of exactly these names, as code."""
    chosen = set(names)
    patterns: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        prefixes = [".".join(parts[:length]) + "." for length in range(1, len(parts))]
        pattern = name
        for prefix in prefixes:  # the shortest that has no other parameter
            if all(other in chosen for other in all_names if other.startswith(prefix)):
                pattern = f"{prefix}*"
                break
        patterns[pattern] = None
    first, *others = map(repr, patterns)
    return " | ".join([f"nnlr.glob({first})" if others else first, *others])
