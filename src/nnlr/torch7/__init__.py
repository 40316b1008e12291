"""Torch7's two call shapes: flattened parameters, and SGD on one vector.

:func:`get_parameters` turns a module's parameters and gradients into two vectors, and
:func:`sgd` steps such a vector with one learning rate and one weight decay per element.
The vectors line up with ``plan.vectors()``, so that training code written for Torch7's
``getParameters`` and ``optim.sgd`` translates line by line.
"""

from nnlr.torch7.descent import sgd
from nnlr.torch7.flatten import get_parameters

__all__ = ["get_parameters", "sgd"]
