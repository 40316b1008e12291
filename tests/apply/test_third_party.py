"""Every optimizer class of other libraries: right through the life of a plan, or refused.

Each library has a golden file with a line for each class. Of those that the tests do not
install, ``make census`` does.
"""

from importlib.metadata import PackageNotFoundError, version

import pytest

from docs import _markers, make_optimizer_table
from tests.apply.third_party import LIBRARIES, census

# Classes whose own counters, or loads, stand in the way of other groups.
WRONG = {
    "pytorch_optimizer.AvaGrad",
    "pytorch_optimizer.DAdaptSGD",
    "torch_optimizer.Apollo",
}

SAMPLE = ("dadaptation", "prodigyopt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.no_cover
@pytest.mark.parametrize(
    "library",
    [
        pytest.param(library, marks=() if library in SAMPLE else pytest.mark.full)
        for library in LIBRARIES
    ],
)
def test_each_class_is_right_or_refused_with_its_reason(library, golden):
    """Built, scheduled, stepped, resumed under other groups, regrouped and checked."""
    try:
        version(library)
    except PackageNotFoundError:
        pytest.skip(f"{library} is not installed: make census")
    text = census(library)
    golden(f"third_party_{library}", text)
    wrong = ("step: ", "schedule: ", "resume: ", "regroup: ", "build: ")
    pairs = [line.split(": ", 1) for line in text.splitlines()]
    assert {name for name, fared in pairs if fared.startswith(wrong)} <= WRONG


def test_the_tables_of_the_page_are_those_of_the_golden_files():
    """Run docs/make_optimizer_table.py after a census."""
    for part, text in make_optimizer_table.parts().items():
        assert text == _markers.read(make_optimizer_table.PAGE, part)
