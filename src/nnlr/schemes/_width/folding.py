"""Folding: a factor in the forward pass turned into factors on one parameter's settings.

A layer ``y = c * (W x)`` is the layer ``y = V x`` with ``V = c W``, and V follows c W exactly,
step for step, if it is trained with

    ============================  ========  =========  =======  =====
    optimizer                     lr        decay      eps      init
    ============================  ========  =========  =======  =====
    SGD, with momentum too        c ** 2    c ** -2    -        c
    Adam (decay in the gradient)  c         c ** -2    c ** -1  c
    AdamW (decoupled decay)       c         c ** -1    c ** -1  c
    ============================  ========  =========  =======  =====

because the gradient of V is that of W divided by c, and Adam's step does not depend on the
scale of gradients once eps has that scale. Clipping by the norm of the gradient does see it.
"""

from typing import Final, NamedTuple

from nnlr._declare.factor import Factor, Update

# Exponents of c for lr, weight decay and eps.
_EXPONENTS: Final = {"sgd": (2, -2, 0), "adam": (1, -2, -1), "adamw": (1, -1, -1)}


class Scales(NamedTuple):
    """Factors on the settings of one parameter, before they become a ``Factor``.

    Attributes:
        lr: On the learning rate.
        wd: On the weight decay.
        eps: On the optimizer's eps.
        init: On the initial weights.
        why: What they are for.
    """

    lr: float = 1.0
    wd: float = 1.0
    eps: float = 1.0
    init: float = 1.0
    why: str = ""

    def folded(self, c: float, optimizer: Update) -> "Scales":
        """The same for ``c`` times the parameter."""
        lr, wd, eps = _EXPONENTS[optimizer]
        return Scales(
            self.lr * c**lr,
            self.wd * c**wd,
            self.eps * c**eps,
            self.init * c,
            f"{self.why}, forward x {c:.3g}",
        )

    def factor(self, optimizer: Update) -> Factor:
        """The factor; its decay is meant as it is, whatever the learning rate."""
        rates = self.lr, self.wd, self.eps, self.init
        return Factor(
            lr_mult=self.lr,
            wd_mult=self.wd,
            eps_mult=self.eps,
            init_mult=self.init,
            why=self.why,
            compensates_decay=True,
            update=None if set(rates) == {1} else optimizer,
        )
