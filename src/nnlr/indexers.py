"""The depth indexers that papers and their code use, exactly as released."""

from collections.abc import Callable
from typing import Final

from nnlr.layers import Indexer

PUBLISHED: Final[dict[str, Callable[..., Indexer]]] = {}
