"""examples/lora_plus.py runs with few steps."""

import pytest

from tests.helpers import example


@pytest.mark.full  # 5 s
def test_lora_plus():
    """The last plan is that of LoRA+: B learns 16 times as fast as A."""
    before, losses, plan = example("lora_plus").runs({"pretrain": 1, "adapt": 1})
    assert 6 == len(losses)
    assert all(abs(loss - before) < 1 for loss in losses.values())
    assert {1.0, 16.0} == {row.lr_mult for row in plan if row.trainable}
