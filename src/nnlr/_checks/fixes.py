"""Lines to paste that several findings offer.

They speak of what every script has: ``model``, ``scheme``, ``lr``, ``wd``, ``plan``,
``optimizer``, or ``optimizers`` where there are several, and ``scheduler``.
"""

from collections.abc import Collection, Iterable
from typing import Final

from nnlr import checkpoint
from nnlr._checks.subject import Subject

# A new plan of the model as it is.
RESOLVE: Final = "plan = nnlr.resolve(model, scheme, lr=lr, weight_decay=wd)"

# An optimizer that reads all that the groups of a plan say.
_ADAMW: Final = "optimizer = plan.optimizer(torch.optim.AdamW)"


def resolve_again(subject: Subject, more: str = "") -> str:
    """A new plan, perhaps with one more scheme, and its groups for the optimizer if there is one.

    The optimizer keeps the state of each parameter.
    """
    plan = RESOLVE.replace("scheme", f"scheme * {more}") if more else RESOLVE
    return f"{plan}; {regrouped(subject)}" if subject.optimizers else plan


def regrouped(subject: Subject) -> str:
    """The groups of a plan for the optimizer, which then loads checkpoints by name."""
    code = "nnlr.regroup(optimizer, plan)"
    if all(map(checkpoint.installed, subject.optimizers)):
        return code
    return f"{code}; nnlr.checkpoint.on_load(optimizer, model=model)"


def rebuilt(subject: Subject) -> str:
    """An optimizer of torch on the groups of the plan."""
    return _ADAMW if subject.plan else f"{RESOLVE}; {_ADAMW}"


def frozen(names: Iterable[str], all_names: Collection[str]) -> str:
    """The scheme that freezes these parameters and no other, by the fewest patterns."""
    return f"nnlr.freeze({_selector(names, all_names)})"


def _selector(names: Iterable[str], all_names: Collection[str]) -> str:
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
