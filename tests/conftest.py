"""Fixtures that many tests share."""

from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random numbers."""
    # Of the CPU alone, where there is nothing else: torch.manual_seed would note for devices
    # that may come who has asked, which takes a millisecond.
    torch.manual_seed(0) if torch.cuda.is_available() else torch.default_generator.manual_seed(0)


@pytest.fixture
def golden(request):
    """Compare a text with tests/golden/<name>.txt; a missing file is a failure."""

    def compare(name, text):
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.write_text(text + "\n", encoding="utf-8")
        assert path.exists(), f"{path.name} is missing: look at the text, then --update-golden"
        assert path.read_text(encoding="utf-8") == text + "\n"

    return compare


@pytest.fixture
def one_thread():
    """Small matrices on one thread: quick on a busy machine, the same sums on every one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
