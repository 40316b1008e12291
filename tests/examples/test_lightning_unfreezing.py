"""examples/lightning_unfreezing.py opens one part more in each epoch."""

import pytest

from tests.helpers import example

pytest.importorskip("lightning")


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, loggers and more
@pytest.mark.usefixtures("one_thread")
def test_parts_open_one_by_one():
    """The head from the first step on, the block before it in the second epoch, no more."""
    unfreezing = example("lightning_unfreezing")
    module, monitor, _ = unfreezing.run(epochs=2)
    first, last = monitor.history[0], monitor.history[-1]
    assert ["head"] == [layer.name for layer in first.layers if layer.update]
    assert ["blocks.3", "head"] == [layer.name for layer in last.layers if layer.update]
    rates = {layer.name: layer.lr for layer in last.layers}
    assert 0.7 == pytest.approx(rates["blocks.3"] / rates["head"])
    assert () == monitor.findings
    assert 6 == len({row.lr_mult for row in module.plan()})
