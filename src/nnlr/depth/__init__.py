"""Depth: which layer of which tower a parameter is in.

An indexer is named by a string (``"auto"``, ``"timm"``), made by the function of that name
here (``nnlr.depth.timm(fallback=True)``), or your own: a function of :class:`ParamInfo`, a
mapping of patterns to layer numbers, or a subclass of :class:`Indexer`.

Data flow: ModelInfo -> indexer -> one Layer, or None, for each parameter.
"""

from nnlr.depth._auto import auto as auto
from nnlr.depth._flow import flow as flow
from nnlr.depth._given import INDEXERS as INDEXERS
from nnlr.depth._given import _ByFunction, _ByPattern  # noqa: F401 - pickled here by 0.1
from nnlr.depth._given import as_indexer as as_indexer
from nnlr.depth._given import by_function as by_function
from nnlr.depth._given import by_pattern as by_pattern
from nnlr.depth._language import electra as electra
from nnlr.depth._language import xlnet as xlnet
from nnlr.depth._layer import Indexer as Indexer
from nnlr.depth._layer import Layer as Layer
from nnlr.depth._layer import with_final_norm as with_final_norm
from nnlr.depth._timm import timm as timm
from nnlr.depth._vision import convnext as convnext
from nnlr.depth._vision import dinov2 as dinov2
from nnlr.depth._vision import swin as swin
from nnlr.depth._vision import vit as vit
from nnlr.depth._vision import vitdet as vitdet
