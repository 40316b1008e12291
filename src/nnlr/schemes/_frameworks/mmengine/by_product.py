"""mmaction2's constructor for Swin: every key in a name counts, and their factors multiply.

    lr(p) = base_lr * product of lr_mult
    weight_decay(p) = base_weight_decay * product of decay_mult

over the keys that are substrings of the name. The keys stand in ``custom_keys``, in many
configurations directly in ``paramwise_cfg``.

After ``SwinOptimWrapperConstructor`` of mmaction2 1.x (OpenMMLab).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nnlr._arguments import Written
from nnlr._declare.factor import Factor
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo
from nnlr.schemes._frameworks.claims import Claims, Imported, dotted
from nnlr.schemes._frameworks.mmengine.keys import check, claim
from nnlr.schemes._frameworks.mmengine.settings import Constructor, Settings


@dataclass(frozen=True, repr=False, eq=False)
class ByProduct(Imported):
    """Products of the factors of keys; made by :func:`nnlr.mmengine`."""

    custom: Mapping[str, Factor]  # by key

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The product of the factors of all keys in a name."""
        keys = list(self.custom)
        return [
            Factor(
                lr_mult=math.prod(self.custom[keys[at]].lr_mult for at in matching),
                wd_mult=math.prod(self.custom[keys[at]].wd_mult for at in matching),
                why=", ".join(f"key {keys[at]!r}" for at in matching),
            )
            for matching in claim(self.custom, model, dotted).matching
        ]

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Keys that no name contains."""
        claims = claim(self.custom, model, dotted)
        # Each match counts, not only the first.
        acting = sorted({at for matching in claims.matching for at in matching})
        each = Claims(
            claims.what, claims.patterns, [(at,) for at in acting], claims.matching_aliases
        )
        return [*self.watch.noted, *check(each, self.custom, self.watch, model)]


def _make(settings: Settings, call: Written) -> ByProduct:
    """The scheme of a ``paramwise_cfg``."""
    return ByProduct(
        settings.watch, call, settings.custom_keys(unread=("lr", "weight_decay"), flat=True)
    )


CONSTRUCTOR: Final = Constructor(("custom_keys",), _make, open=True)
