"""Plans in the hands of trainers and model libraries, one thin file for each.

Each file translates and delegates. It is loaded, and the library that it is for is imported,
when the file is first asked for: ``nnlr.integrations.timm`` needs timm, ``nnlr`` does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnlr.integrations import accelerate, lightning, timm, transformers

__all__ = [
    "accelerate",
    "lightning",
    "timm",
    "transformers",
]


def __getattr__(name: str) -> object:
    """Load an integration."""
    if name not in __all__:
        raise AttributeError(f"module 'nnlr.integrations' has no attribute {name!r}")
    return import_module(f"nnlr.integrations.{name}")


def __dir__() -> list[str]:
    """The integrations."""
    return list(__all__)
