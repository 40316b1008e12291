"""examples/finetune_vit.py runs with few steps."""

import pytest

import nnlr
from tests.helpers import example


@pytest.mark.full  # 5 s
def test_finetune_vit():
    """It trains few steps of each run, and the movement of one can be told."""
    accuracies, models = example("finetune_vit").runs(1, {"pretrain": 2, "finetune": 1})
    assert 6 == len(accuracies) == len(models)
    moved = nnlr.report.movement(*models["layer decay", 1e-3])
    assert "lr_mult" in moved.table()
