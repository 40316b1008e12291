"""Plans for trainers and model libraries, one short file for each library.

A file is loaded, and its library imported, when it is first used:
``nnlr.integrations.timm`` needs timm, ``nnlr`` does not.
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
