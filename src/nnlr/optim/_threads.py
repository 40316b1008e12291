"""One thread for small tensors.

Torch's fused kernels share every tensor among all threads, even one of a hundred elements.
Starting the threads and waiting for them then takes longer than the work. Most other kernels
of torch use threads from 32,768 elements on, and so do we: a smaller tensor is stepped with
one thread.

The number of threads that OpenMP gives to a kernel is a setting of the thread that calls it.
Torch can change it only together with settings of the whole process, hence ``threadpoolctl``.
Without OpenMP, everything is stepped with all threads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import torch

# From this number of elements on threads pay: at::internal::GRAIN_SIZE of torch.
GRAIN: Final = 32_768


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the kernels that this thread calls use one thread only."""
    threads = torch.get_num_threads()
    openmp = _openmp() if threads > 1 else None
    if openmp is None:
        yield
        return
    openmp.set_num_threads(1)
    try:
        yield
    finally:
        openmp.set_num_threads(threads)


@cache
def _openmp() -> Any | None:  # noqa: ANN401 - a controller of threadpoolctl, which has no types
    """The OpenMP library that torch uses: setting its number changes torch's."""
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().select(user_api="openmp").lib_controllers:
        threads = library.get_num_threads()
        library.set_num_threads(1)
        torch_follows = torch.get_num_threads() == 1
        library.set_num_threads(threads)
        if torch_follows:
            return library
    return None
