"""Fixtures that many tests share."""

from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def processes_of_no_cover(request, monkeypatch):
    """What a test that is not measured starts, is not measured either."""
    if request.node.get_closest_marker("no_cover"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


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
