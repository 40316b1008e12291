"""MMEngine's default constructor: multipliers by substrings of names, and by kinds of layers.

    lr(p) = base_lr * lr_mult,   weight_decay(p) = base_weight_decay * decay_mult

The longest custom key that is a substring of a parameter's name decides, and then nothing
else. For all other parameters the first rule that is set and applies:

    lr:    dcn_offset_lr_mult, bias_lr_mult
    decay: norm_decay_mult, bias_decay_mult, dwconv_decay_mult, flat_decay_mult

After ``DefaultOptimWrapperConstructor`` of MMEngine 0.10 (OpenMMLab). With
``force_default_settings``, mmsegmentation's ``ForceDefaultOptimWrapperConstructor``, the rules
act where a custom key claims too, and overrule its rates.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from nnlr._arguments import Written
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Slot, lineage, outermost
from nnlr._model.scopes import module_class
from nnlr.schemes._frameworks.claims import (
    Imported,
    cut_names,
    dotted,
    inside,
    unreached_norms,
)
from nnlr.schemes._frameworks.mmengine.keys import check, claim, claimed
from nnlr.schemes._frameworks.mmengine.settings import Constructor, Settings

NORMS: Final = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)

LR_RULES: Final = ("dcn_offset_lr_mult", "bias_lr_mult")

WD_RULES: Final = ("norm_decay_mult", "bias_decay_mult", "dwconv_decay_mult", "flat_decay_mult")

KEYS: Final = ("custom_keys", *LR_RULES, *WD_RULES, "bypass_duplicate")

_DEFORMABLE: Final = frozenset(
    {
        "mmcv.ops.deform_conv.DeformConv2d",
        "mmcv.ops.modulated_deform_conv.ModulatedDeformConv2d",
    }
)


@dataclass(frozen=True, repr=False, eq=False)
class Paramwise(Imported):
    """MMEngine's rules; made by :func:`nnlr.mmengine`."""

    custom: Mapping[str, Factor]  # by custom key, the longest first
    rules: Mapping[str, float]  # the value of each rule that is set
    forced: bool = False  # whether the rules overrule custom keys

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The longest custom key's factor, or else that of the rules."""
        keys, _ = self._keys(model)
        return [
            by_rules
            if key is None
            else _overruled(self.custom[key], by_rules)
            if self.forced
            else self.custom[key]
            for key, by_rules in zip(keys, self._by_rules(model), strict=True)
        ]

    def _keys(self, model: ModelInfo) -> tuple[list[str | None], list[Finding]]:
        """The custom key that claims each parameter, and findings on keys without effect."""
        claims = claim(self.custom, model, dotted)
        return claimed(claims), check(claims, self.custom, self.watch, model)

    def _by_rules(self, model: ModelInfo) -> list[Factor]:
        """What the rules alone would give each parameter."""
        if not self.rules:
            return [NEUTRAL] * len(model.params)
        factors = []
        for slot, param in zip(self.slots(model), model.params, strict=True):
            norm, bias = inside(slot, NORMS), slot.key == "bias"
            deformable = _in_deformable(slot)
            offset = deformable and "conv_offset" in (slot.node.path if slot.node else "")
            applies = {
                "dcn_offset_lr_mult": offset and inside(slot, (nn.Conv2d,)),
                "bias_lr_mult": bias and not norm and not deformable,
                "norm_decay_mult": norm,
                "bias_decay_mult": bias and not deformable,
                "dwconv_decay_mult": _is_depthwise(slot),
                "flat_decay_mult": param.ndim == 1 and not deformable,
            }
            lr = next((r for r in LR_RULES if r in self.rules and applies[r]), "")
            wd = next((r for r in WD_RULES if r in self.rules and applies[r]), "")
            lr_mult, wd_mult = self.rules.get(lr, 1.0), self.rules.get(wd, 1.0)
            why = ", ".join(filter(None, (lr, wd)))
            factors.append(Factor(lr_mult=lr_mult, wd_mult=wd_mult, why=why))
        return factors

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Rules that a custom key cancels, and where MMEngine's rules do not reach."""
        keys, on_keys = self._keys(model)
        findings = [*self.watch.noted, *on_keys]
        # A custom key switches all rules off where it claims; no matter where both agree.
        cancelled: dict[str, list[str]] = {}
        for param, key, by_rules in zip(model.params, keys, self._by_rules(model), strict=True):
            if key is None or self.forced:
                continue
            custom = self.custom[key]
            lr_mult = custom.lr_mult if custom.lr is None else None
            wd_mult = custom.wd_mult if custom.weight_decay is None else None
            if by_rules.lr_mult not in {1, lr_mult} or by_rules.wd_mult not in {1, wd_mult}:
                cancelled.setdefault(key, []).append(param.name)
        for key, names in cancelled.items():
            cause = (
                f"custom key {key!r} cancels the rules on norms, biases and so on "
                "where it claims (mmengine #846)"
            )
            fix = (
                "To have both, leave the key out and multiply: "
                f"mmengine(...) * nnlr.rule({'*' + key + '*'!r}, lr_mult=...)."
            )
            findings.append(warning("rules-cancelled", names, cause, fix))
        findings += cut_names(
            "custom key",
            (
                (key, param.name, re.finditer(re.escape(key), dotted(param.name)))
                for key, param in zip(keys, model.params, strict=True)
                if key
            ),
        )
        if "norm_decay_mult" in self.rules:
            findings += unreached_norms(model, NORMS, "norm_decay_mult")
        # Where MMEngine does other than its documentation says.
        biases = [
            slot
            for (slot, *_), key in zip(model.places, keys, strict=True)
            if slot.key == "bias" and key is None
        ]
        of_norms = [slot.name for slot in biases if inside(slot, NORMS)]
        if of_norms and "bias_decay_mult" in self.rules and "norm_decay_mult" not in self.rules:
            cause = "bias_decay_mult acts on the biases of norm layers too"
            fix = "Set norm_decay_mult to part them."
            findings.append(note("norm-bias", of_norms, cause, fix))
        depthwise = [slot.name for slot in biases if _is_depthwise(slot)]
        if depthwise and {"bias_decay_mult", "dwconv_decay_mult"} <= self.rules.keys():
            cause = "biases of depthwise convolutions get bias_decay_mult, not dwconv's"
            findings.append(note("dwconv-bias", depthwise, cause, "Nothing to do if meant."))
        return findings


def _overruled(custom: Factor, by_rules: Factor) -> Factor:
    """A custom key's factor with the rates of the rules that apply."""
    rates: dict[str, Any] = {}
    if any(rule in by_rules.why for rule in LR_RULES):
        rates |= {"lr": None, "lr_mult": by_rules.lr_mult}
    if any(rule in by_rules.why for rule in WD_RULES):
        rates |= {"weight_decay": None, "wd_mult": by_rules.wd_mult}
    return replace(custom, **rates, why=", ".join(filter(None, (custom.why, by_rules.why))))


def _make(settings: Settings, call: Written) -> Paramwise:
    """The scheme of a ``paramwise_cfg``."""
    settings.flag("bypass_duplicate")
    return Paramwise(
        settings.watch,
        call,
        settings.custom_keys(),
        settings.rules((*LR_RULES, *WD_RULES)),
        settings.flag("force_default_settings"),
    )


DEFAULT: Final = Constructor(KEYS, _make)

FORCED: Final = Constructor((*KEYS, "force_default_settings"), _make)


def _is_depthwise(slot: Slot) -> bool:
    """Whether it hangs on a depthwise ``Conv2d``; 1-d and 3-d ones do not count."""
    module = slot.module
    return isinstance(module, nn.Conv2d) and module.in_channels == module.groups


def _in_deformable(slot: Slot) -> bool:
    """Whether the module it hangs on is a child of a deformable convolution."""
    if slot.node is None:
        return False
    parent = outermost(slot.node).parent
    return parent is not None and not _DEFORMABLE.isdisjoint(lineage(module_class(parent.module)))
