"""examples/mup_coordinate_check.py finds what it says."""

import pytest

from tests.helpers import example


@pytest.mark.no_cover
@pytest.mark.usefixtures("one_thread")
def test_only_mup_is_flat():
    """On digits, few widths: the standard parametrization is not flat, muP is."""
    standard, mup = example("mup_coordinate_check").checks((64, 128, 256), range(2))
    assert {"hidden", "readout"} == set(standard.faults())
    assert {} == mup.faults()
