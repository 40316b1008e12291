"""The updates of SGD, Adam and AdamW on many tensors in one call, compiled by numba.

A table of addresses stands for the tensors: row ``i`` says where parameter, gradient and
moments of one lie in memory, how many elements they have, and its own rates. All are
``float32`` and dense, and lie in memory alike. The arithmetic is that of torch's fused
kernels, in the same order, in ``float32``; settings are rounded to it where torch rounds.
"""

from typing import Any

import numpy as np
from numba import carray, config, njit, types
from numba.extending import intrinsic

COMPILES = not config.DISABLE_JIT  # by an environment variable of numba

_FLAGS = {"nogil": True, "error_model": "numpy"}

_TABLE = "int64[::1], int64[::1], int64[::1], int64[::1]"  # sizes and addresses


def _compiled(signature: str) -> Any:
    """Compile at once, and keep the result on disk where there is a place for it."""

    def decorate(function: Any) -> Any:
        try:
            return njit(signature, cache=True, **_FLAGS)(function)
        except RuntimeError:  # nowhere to write it
            return njit(signature, **_FLAGS)(function)

    return decorate


@intrinsic
def _floats(_context: Any, _address: Any) -> Any:  # pragma: no cover - while compiling
    """A pointer to the ``float32`` at an address."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], kind)

    return types.CPointer(types.float32)(types.int64), code


@intrinsic
def _fma(  # pragma: no cover - while compiling
    _context: Any, _one: Any, _other: Any, _third: Any
) -> Any:
    """``one * other + third``, rounded once."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), code


@njit(**_FLAGS)
def _slope(param, grad, decay, sign):  # pragma: no cover - compiled
    """A gradient with its sign, and with coupled decay if there is any."""
    slope = sign * grad
    if decay != 0:
        slope = _fma(param, decay, slope)
    return slope


@njit(**_FLAGS)
def _adam_row(  # pragma: no cover - compiled
    param,
    grad,
    first,
    second,
    size,
    shrink,
    decay,
    sign,
    rest1,
    betas2,
    rate,
    root,
    eps,
):
    p = carray(_floats(param), size)
    g = carray(_floats(grad), size)
    m = carray(_floats(first), size)
    v = carray(_floats(second), size)
    for i in range(size):
        slope = _slope(p[i], g[i], decay, sign)
        mean = _fma(rest1, slope - m[i], m[i])
        square = _fma(betas2[1] * slope, slope, v[i] * betas2[0])
        m[i] = mean
        v[i] = square
        p[i] = p[i] * shrink + rate * mean / (np.sqrt(square) / root + eps)


@_compiled(
    f"void({_TABLE}, int64[::1], float64[::1], float64[::1], int64[::1], float32[::1], "
    "float64, float64, float64, boolean, boolean, int64, int64)"
)
def adam(  # pragma: no cover - compiled
    sizes,
    params,
    grads,
    firsts,
    seconds,
    lrs,
    decays,
    counted,
    steps,
    beta1,
    beta2,
    eps,
    decoupled,
    maximize,
    start,
    stop,
):
    """Step rows ``start`` to ``stop``; ``steps[counted[i]]`` counts those of row ``i``."""
    single = np.float32
    sign = single(-1 if maximize else 1)
    betas2 = (single(beta2), single(1 - beta2))
    for i in range(start, stop):
        step = np.float64(steps[counted[i]])
        rate = lrs[i] / (1 - beta1**step)
        root = np.sqrt(1 - beta2**step)
        shrink = 1 - lrs[i] * decays[i] if decoupled else 1.0
        decay = 0.0 if decoupled else decays[i]
        _adam_row(
            params[i],
            grads[i],
            firsts[i],
            seconds[i],
            sizes[i],
            single(shrink),
            single(decay),
            sign,
            single(1 - beta1),
            betas2,
            single(-rate),
            single(root),
            single(eps),
        )


@njit(**_FLAGS)
def _sgd_row(  # pragma: no cover - compiled
    param, grad, moment, size, rate, decay, sign, momentum, rest, nesterov
):
    p = carray(_floats(param), size)
    g = carray(_floats(grad), size)
    m = carray(_floats(moment), size)
    for i in range(size):
        slope = _slope(p[i], g[i], decay, sign)
        mean = _fma(slope, rest, m[i] * momentum)
        m[i] = mean
        p[i] = _fma(_fma(mean, momentum, slope) if nesterov else mean, rate, p[i])


@njit(**_FLAGS)
def _plain_row(  # pragma: no cover - compiled
    param, grad, size, rate, decay, sign
):
    p = carray(_floats(param), size)
    g = carray(_floats(grad), size)
    for i in range(size):
        slope = _slope(p[i], g[i], decay, sign)
        p[i] = _fma(slope, rate, p[i])


@_compiled(
    f"void({_TABLE}, float64[::1], float64[::1], float64, float64, boolean, boolean, int64, int64)"
)
def sgd(  # pragma: no cover - compiled
    sizes,
    params,
    grads,
    moments,
    lrs,
    decays,
    momentum,
    dampening,
    nesterov,
    maximize,
    start,
    stop,
):
    """Step rows ``start`` to ``stop``; without momentum ``moments`` is not looked at."""
    single = np.float32
    sign = single(-1 if maximize else 1)
    for i in range(start, stop):
        rate, decay = single(-lrs[i]), single(decays[i])
        if momentum == 0:
            _plain_row(params[i], grads[i], sizes[i], rate, decay, sign)
        else:
            _sgd_row(
                params[i],
                grads[i],
                moments[i],
                sizes[i],
                rate,
                decay,
                sign,
                single(momentum),
                single(1 - dampening),
                nesterov,
            )
