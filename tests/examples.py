"""The scripts of examples/, as modules for tests."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def example(name):
    """A script of examples/ as a module."""
    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = spec_from_file_location(name, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
