"""Findings about a run: a plan, its model, its optimizers, schedulers and trainer.

Each file has what is looked for in one of them, as functions from a
:class:`~nnlr.audit.subject.Subject` to findings; :data:`~nnlr.audit.checking.LOOKS` lists
them all.
"""

from nnlr.audit.checking import LOOKS, check

__all__ = ["LOOKS", "check"]
