"""Starts the ``nnlr`` command before torch is loaded: help and completion do without."""

import sys
from importlib.util import find_spec, module_from_spec


def main() -> int:
    """Run ``nnlr.cli.main`` in a package ``nnlr`` whose own code has not run yet.

    ``import nnlr`` loads torch, which takes seconds. Commands that need it run that code first,
    by ``nnlr.cli._app``.
    """
    if "nnlr" not in sys.modules and (spec := find_spec("nnlr")) is not None:
        sys.modules["nnlr"] = module_from_spec(spec)
    from nnlr.cli import main as run

    return run()
