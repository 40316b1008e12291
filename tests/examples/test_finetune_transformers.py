"""examples/finetune_transformers.py resumes to the same weights."""

import pytest
import torch

from tests.helpers import example

transformers = pytest.importorskip("transformers")


def test_the_resumed_run_has_the_same_weights(tmp_path):
    """Few steps of it: layer-wise rates, a floor that is the base rate's, all rates logged."""
    transformers.set_seed(0)
    whole, resumed, monitor = example("finetune_transformers").runs(tmp_path, steps=12)
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    last = [row for row in whole.state.log_history if "learning_rate" in row][-1]
    assert pytest.approx(3 * last["learning_rate"]) == last["lr_max"]
    assert pytest.approx(0.8**5 * last["learning_rate"]) == last["lr_min"]
    assert [1, 10] == [reading.step for reading in monitor.history]
    assert {"trained"} == {layer.state for layer in monitor.history[-1].layers}
