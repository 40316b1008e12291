"""The modules of examples/digits, which stand in no package."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "digits"))

data, eye, network, train = map(import_module, ("data", "eye", "network", "train"))
