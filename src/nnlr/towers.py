"""Depth found in the structure of a model: repeated blocks, tower by tower."""

from nnlr.describe import ModelInfo
from nnlr.layers import Indexer, Layers


def auto() -> Indexer:
    """Depth from the model's own matcher, else from its repeated blocks."""
    return _Auto()


class _Auto(Indexer):
    def layers(self, model: ModelInfo) -> Layers:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "auto()"
