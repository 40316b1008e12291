"""examples/mup_lr_transfer.py finds what it says."""

import pytest

from tests.helpers import example


@pytest.mark.no_cover
@pytest.mark.usefixtures("one_thread")
def test_only_with_mup_the_best_rate_stays():
    """On digits, shortened: the standard optimum drifts, muP's stays; at the base they agree."""
    standard, mup = example("mup_lr_transfer").sweeps(
        widths=(64, 256),
        lrs=[2.0**octave for octave in range(-8, -2)],
        seeds=[0],
        steps=20,
    )
    assert standard.drift <= -1
    assert 0 == mup.drift
    assert standard.losses(64) == pytest.approx(mup.losses(64))
    assert standard.regret(256) > mup.regret(256)
