"""mmpretrain's layer decay: rates by the depth that the model itself states.

    depth, layers = model.get_layer_depth(name)
    lr(p) = base_lr * layer_decay_rate ** (layers - 1 - depth)
    weight_decay(p) = base_weight_decay * decay_mult

``decay_mult`` is that of the longest custom key in the name, or else the first that is set of
``norm_decay_mult``, ``bias_decay_mult`` and ``flat_decay_mult`` and applies.

After ``LearningRateDecayOptimWrapperConstructor`` of mmpretrain 1.2 (OpenMMLab).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nnlr._arguments import Written
from nnlr._declare.factor import Factor
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo
from nnlr.depth._layer import Layer
from nnlr.schemes._frameworks.claims import Claims, Imported, inside, unreached_norms
from nnlr.schemes._frameworks.mmengine.depths import layer_depths
from nnlr.schemes._frameworks.mmengine.keys import check, claim, claimed
from nnlr.schemes._frameworks.mmengine.paramwise import NORMS
from nnlr.schemes._frameworks.mmengine.settings import Constructor, Settings

RULES: Final = ("norm_decay_mult", "bias_decay_mult", "flat_decay_mult")


@dataclass(frozen=True, repr=False, eq=False)
class ByDepth(Imported):
    """Layer decay by ``get_layer_depth``; made by :func:`nnlr.mmengine`."""

    decay_rate: float
    custom: Mapping[str, Factor]  # by custom key, the longest first
    rules: Mapping[str, float]  # the value of each rule that is set

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The rate of the layer, and the decay of the custom key or of the rules."""
        slots = self.slots(model)
        keys = claimed(self._claims(model))
        factors = []
        layers = layer_depths(model)
        for slot, param, key, layer in zip(slots, model.params, keys, layers, strict=True):
            applies = {
                "norm_decay_mult": inside(slot, NORMS),
                "bias_decay_mult": slot.key == "bias",
                "flat_decay_mult": param.ndim == 1,
            }
            rule = next((rule for rule in self.rules if applies[rule]), "")
            factor = Factor(wd_mult=self.rules.get(rule, 1.0), why=rule)
            if key is not None:
                factor = self.custom[key]
            factors.append(_in_layer(factor, self.decay_rate, layer))
        return factors

    def _claims(self, model: ModelInfo) -> Claims:
        """What each custom key claims; a name at the root has no dot before it here."""
        return claim(self.custom, model, str)

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Custom keys without effect, and norms that the rule does not reach."""
        findings = [*self.watch.noted, *check(self._claims(model), self.custom, self.watch, model)]
        if "norm_decay_mult" in self.rules:
            findings += unreached_norms(model, NORMS, "norm_decay_mult")
        return findings


def _in_layer(factor: Factor, decay_rate: float, layer: Layer) -> Factor:
    """A factor with the rate of a layer."""
    why = f"{decay_rate:g}^{layer.below}, {layer}"
    return replace(
        factor,
        lr_mult=decay_rate**layer.below,
        why=f"{why}, {factor.why}" if factor.why else why,
        layer=layer,
    )


def _make(settings: Settings, call: Written) -> ByDepth:
    """The scheme of a ``paramwise_cfg``."""
    return ByDepth(
        settings.watch,
        call,
        settings.number("layer_decay_rate", 1.0),
        settings.custom_keys(unread=("lr_mult", "lr")),
        settings.rules(RULES),
    )


CONSTRUCTOR: Final = Constructor(("layer_decay_rate", "custom_keys", *RULES), _make)
