"""examples/classify_text.py runs with few steps."""

import pytest

import nnlr
from tests.helpers import example


@pytest.mark.full  # 5 s
def test_classify_text():
    """Every scheme has a result at every rate; locked layers stay, and the head moves."""
    accuracies, models = example("classify_text").runs(1, {"pretrain": 1, "finetune": 1})
    assert 25 == len(accuracies) == len(models)
    assert all(0 <= result <= 1 for (result,) in accuracies.values())
    rows = nnlr.report.movement(*models["head only", 1e-2]).rows
    assert ["head"] == [row.name for row in rows if row.relative > 0]
