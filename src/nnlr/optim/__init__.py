"""Optimizers whose step costs the same for one parameter group and for many.

:class:`SGD`, :class:`Adam` and :class:`AdamW` are torch's own classes with another way
through the step: same constructor, same ``param_groups``, same ``state_dict``, same numbers.
Torch goes through its groups one after the other, and through every parameter of each in
Python; these keep the lists that torch's fused kernels want, check at every step that
nothing has moved, and call one kernel for each pair of a learning rate and a weight decay.

What a kernel cannot take (sparse gradients, complex numbers, ...) makes torch's own step,
within the same call; ``optimizer.fast_path_report()`` says what and why.

    optimizer = plan.optimizer(nnlr.optim.AdamW)
    optimizer = nnlr.optim.AdamW(groups, lr=1e-3)   # anyone's groups
"""

from nnlr.optim._adam import Adam as Adam
from nnlr.optim._adam import AdamW as AdamW
from nnlr.optim._mixed import Mixed as Mixed
from nnlr.optim._numba.use_numba import use_numba as use_numba
from nnlr.optim._sgd import SGD as SGD
