"""Small tensors are stepped with one thread, and nobody else notices."""

import threading

import pytest
import torch

import nnlr
from nnlr.optim import _threads as threads


@pytest.fixture
def two_threads():
    """Torch with two threads and its own kernels, whatever came before."""
    nnlr.optim.use_numba(False)
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    threads._openmp.cache_clear()
    yield
    threads._openmp.cache_clear()
    torch.set_num_threads(usual)


@pytest.mark.usefixtures("two_threads")
class TestOneThread:
    def test_it_lasts_as_long_as_the_block(self):
        """Also if that ends in an error."""
        with threads.one_thread():
            assert 1 == torch.get_num_threads()
        assert 2 == torch.get_num_threads()
        with pytest.raises(KeyError, match="mine"), threads.one_thread():
            raise KeyError("mine")
        assert 2 == torch.get_num_threads()

    def test_other_threads_keep_theirs(self):
        """The setting belongs to the thread that asks."""
        seen = []
        with threads.one_thread():
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
        assert [2] == seen

    def test_without_openmp_nothing_changes(self, monkeypatch):
        """Builds of torch with threads of their own step everything with all of them."""
        import threadpoolctl

        monkeypatch.setattr(
            threadpoolctl.ThreadpoolController,
            "select",
            lambda *_, **__: type("None_", (), {"lib_controllers": []})(),
        )
        with threads.one_thread():
            assert 2 == torch.get_num_threads()

    def test_a_library_that_torch_does_not_use_is_passed_over(self, monkeypatch):
        """Several OpenMP libraries may be loaded; one that torch ignores is as it was."""

        class Deaf:
            number = 7

            def get_num_threads(self):
                return self.number

            def set_num_threads(self, number):
                self.number = number

        import threadpoolctl

        deaf = Deaf()
        monkeypatch.setattr(
            threadpoolctl.ThreadpoolController,
            "select",
            lambda *_, **__: type("One", (), {"lib_controllers": [deaf]})(),
        )
        with threads.one_thread():
            assert 2 == torch.get_num_threads()
        assert 7 == deaf.number

    def test_a_step_leaves_the_number_as_it_was(self):
        """Small and large tensors, in one step and many."""
        params = [torch.nn.Parameter(torch.zeros(n)) for n in (8, threads.GRAIN)]
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer = nnlr.optim.AdamW(params)
        for _ in range(3):
            optimizer.step()
            assert 2 == torch.get_num_threads()
        (table,) = optimizer._sorting.tables
        assert [[params[0]]] == [run.params for run in table.small_runs]
        assert [[params[1]]] == [run.params for run in table.large_runs]


def test_one_thread_of_one_needs_nothing(one_thread, monkeypatch):
    """Where torch has one thread, no library is looked for."""
    monkeypatch.setattr(threads, "_openmp", lambda: pytest.fail("looked for one"))
    with threads.one_thread():
        assert 1 == torch.get_num_threads()
