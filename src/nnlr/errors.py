"""The exceptions and warnings of nnlr.

    ValueError
    └── NnlrError                 a value, name or call that nnlr cannot accept
        ├── PatternError          a selector matches nothing, or a rule has no effect
        ├── CoverageError         parameters that no rule claims, where all must be claimed
        ├── PlanMismatchError     a plan that does not fit a model, or those of other processes
        ├── ConfigError           settings that contradict each other or the optimizer
        └── CallError             a call that Python refuses, with what was meant; a TypeError too
    UserWarning
    └── NnlrWarning               nothing is wrong yet, but probably not what was meant

Every message says what happened, where, why, and what to do. The facts in it are
attributes of the exception too, so that a caller need not parse the text.
"""

from typing import Any


class NnlrError(ValueError):
    """A value, name or call that nnlr cannot accept.

    Args:
        message: What, where, why and the fix.
        facts: What the message is about; each becomes an attribute.

    Examples:
        >>> error = NnlrError("lr must be > 0, got 0", value=0)
        >>> error.value
        0
    """

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = facts
        for name, fact in facts.items():
            setattr(self, name, fact)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a fact of any type
        # Reached only for names that __init__ did not set.
        raise AttributeError(f"{type(self).__name__} has no fact {name!r}")


class PatternError(NnlrError):
    """A selector that matches nothing, or a rule that has no effect.

    Attributes: ``pattern``, ``nearest`` (names close to it).
    """


class CoverageError(NnlrError):
    """Trainable parameters that no rule claims, where all must be claimed.

    Attributes: ``names``.
    """


class PlanMismatchError(NnlrError):
    """A plan that does not fit a model (or a set of tensors), or those of other processes.

    Attributes: ``name`` (the first parameter that differs).
    """


class ConfigError(NnlrError):
    """Settings that contradict each other, or that the optimizer does not know."""


class CallError(NnlrError, TypeError):
    """A call that Python refuses with a TypeError, and that has a likely meaning."""


class NnlrWarning(UserWarning):
    """Nothing is wrong yet, but it is probably not what was meant."""
