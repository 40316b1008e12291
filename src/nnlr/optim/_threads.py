"""One thread for small tensors.

Torch's fused kernels share every tensor among all threads, be it of a hundred elements. To
start and await them takes longer than the work. Most other kernels of torch begin to do so
at 32,768 elements, and here that is the rule: what is smaller is stepped with one thread.

How many threads OpenMP gives to a kernel is a setting of the thread that calls it, so nobody
else notices. Torch can change it only together with settings of the whole process, hence
``threadpoolctl``. Without OpenMP, everything is stepped with all threads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import torch

# Elements from which on threads pay: at::internal::GRAIN_SIZE of torch.
GRAIN: Final = 32_768


@contextmanager
def one_thread() -> Iterator[None]:
    """Have the kernels that this thread calls use one thread."""
    usual = torch.get_num_threads()
    openmp = _openmp() if usual > 1 else None
    if openmp is None:
        yield
        return
    openmp.set_num_threads(1)
    try:
        yield
    finally:
        openmp.set_num_threads(usual)


@cache
def _openmp() -> Any | None:  # noqa: ANN401 - a controller of threadpoolctl, which has no types
    """The OpenMP library that torch uses: the one by which torch's number changes."""
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().select(user_api="openmp").lib_controllers:
        usual = library.get_num_threads()
        library.set_num_threads(1)
        heard = torch.get_num_threads() == 1
        library.set_num_threads(usual)
        if heard:
            return library
    return None
