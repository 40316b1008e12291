"""Torch7's two call shapes: flattened parameters, and SGD on one vector.

:func:`get_parameters` turns a module's parameters and gradients into two vectors, and
:func:`sgd` steps such a vector with one learning rate and one weight decay per element.
The vectors line up with ``plan.vectors()``, so that training code written for Torch7's
``getParameters`` and ``optim.sgd`` translates line by line.
"""

from nnlr.torch7._get_parameters import get_parameters as get_parameters
from nnlr.torch7._sgd import sgd as sgd
