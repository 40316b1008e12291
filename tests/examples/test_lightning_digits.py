"""examples/lightning_digits.py does what it says."""

import pytest
import torch

from tests.helpers import example

pytest.importorskip("lightning")


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, loggers and more
@pytest.mark.usefixtures("one_thread")
def test_the_resumed_run_ends_at_the_same_weights():
    """Two epochs: the rates of the last step keep the ratio, and something was learnt."""
    digits = example("lightning_digits")
    start = digits.Digits()
    whole, resumed, rates = digits.run(epochs=2)
    pairs = zip(whole.parameters(), resumed.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert 0.1 == pytest.approx((rates["lr_min"] / rates["lr"]).item(), rel=1e-5)
    assert digits.accuracy(whole) > digits.accuracy(start) + 0.3
    assert {1.0, 0.3, 0.1} == {row.lr_mult for row in start.plan()}
