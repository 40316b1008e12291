"""MMEngine's ``paramwise_cfg``: multipliers by substrings of names, and by kinds of layers.

    lr(p) = base_lr * lr_mult,   weight_decay(p) = base_weight_decay * decay_mult

The longest custom key that is a substring of a parameter's name decides, and then nothing
else. For all other parameters the first rule that is set and applies:

    lr:    dcn_offset_lr_mult, bias_lr_mult
    decay: norm_decay_mult, bias_decay_mult, dwconv_decay_mult, flat_decay_mult

After ``DefaultOptimWrapperConstructor`` of MMEngine 0.10 (OpenMMLab).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from nnlr._arguments import flag, number, options
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Slot, lineage, outermost
from nnlr._model.scopes import module_class
from nnlr.schemes._frameworks.claims import (
    Claims,
    Imported,
    Watch,
    cut_names,
    dotted,
    inside,
    key_hint,
    mapping,
    unreached_norms,
)

NORMS: Final = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)

LR_RULES: Final = ("dcn_offset_lr_mult", "bias_lr_mult")

WD_RULES: Final = ("norm_decay_mult", "bias_decay_mult", "dwconv_decay_mult", "flat_decay_mult")

KEYS: Final = ("custom_keys", *LR_RULES, *WD_RULES, "bypass_duplicate")

# Of a custom key: MMEngine's name -> that of Factor.
ITEM_KEYS: Final = {
    "lr_mult": "lr_mult",
    "decay_mult": "wd_mult",
    "lr": "lr",
    "weight_decay": "weight_decay",
}

# Keys of other constructors, which the default one does not read.
_LAYER_DECAY: Final = ("num_layers", "decay_rate", "decay_type", "layer_decay_rate")

_DEFORMABLE: Final = frozenset(
    {
        "mmcv.ops.deform_conv.DeformConv2d",
        "mmcv.ops.modulated_deform_conv.ModulatedDeformConv2d",
    }
)


def mmengine(paramwise_cfg: Mapping[str, Any] | None, *, strict: bool = True) -> Scheme:
    """MMEngine's ``paramwise_cfg``, unchanged.

    The base rates are those of ``resolve``: the ``lr`` and ``weight_decay`` of the
    configuration's optimizer. Settings of a custom key beside ``lr_mult`` and ``decay_mult``
    become options of the group, an ``lr`` or ``weight_decay`` there is absolute, as in
    MMEngine.

    Args:
        paramwise_cfg: ``custom_keys``, ``bias_lr_mult``, ``bias_decay_mult``,
            ``norm_decay_mult``, ``dwconv_decay_mult``, ``flat_decay_mult``,
            ``dcn_offset_lr_mult`` and ``bypass_duplicate`` (a tied parameter always counts
            once, by its first name).
        strict: Refuse what MMEngine passes over in silence: unknown and misspelt keys, custom
            keys without effect. With ``False`` they are findings.

    Raises:
        ConfigError: If the configuration is malformed or has unknown keys.
        PatternError: At resolve, if a custom key has no effect.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> cfg = {"custom_keys": {"backbone": {"lr_mult": 0.1}}, "bias_decay_mult": 0}
        >>> plan = nnlr.resolve(net, mmengine(cfg), lr=0.01, weight_decay=0.1)
        >>> [(row.lr, row.weight_decay) for row in plan]
        [(0.001, 0.1), (0.001, 0.1), (0.01, 0.1), (0.01, 0.0)]
    """
    config = mapping({} if paramwise_cfg is None else paramwise_cfg, "paramwise_cfg")
    watch = Watch("mmengine", strict=strict)
    for key in filter(config.__contains__, _LAYER_DECAY):
        cause = f"paramwise_cfg has {key!r}, which is for another constructor"
        watch.refuse("unknown-key", key, cause, "Take it out and multiply with nnlr.layer_decay.")
    for key in config:
        if key not in (*KEYS, *_LAYER_DECAY):
            cause = f"paramwise_cfg has the unknown key {key!r}"
            watch.refuse("unknown-key", key, cause, key_hint(key, KEYS))
    flag(config.get("bypass_duplicate", False), "bypass_duplicate")
    rules = {
        key: number(config[key], key)
        for key in (*LR_RULES, *WD_RULES)
        if config.get(key) is not None
    }
    custom_keys = mapping(config.get("custom_keys", {}), "custom_keys")
    longest_first = sorted(sorted(custom_keys), key=len, reverse=True)
    custom = {key: _custom(key, custom_keys[key], watch) for key in longest_first}
    return Paramwise(watch, watch.call(mmengine, paramwise_cfg), custom, rules)


def _custom(key: str, item: object, watch: Watch) -> Factor:
    """The factor that a custom key gives."""
    what = f"custom key {key!r}"
    settings = mapping(item, what)
    ignored = {*watch.misspelt_keys(settings, ITEM_KEYS, what)}
    for absolute, relative in (("lr", "lr_mult"), ("weight_decay", "decay_mult")):
        if absolute in settings and relative in settings:
            cause = f"{what} has {relative!r} beside {absolute!r}, which overrides it"
            watch.refuse("overridden-key", relative, cause, f"Drop {relative!r}.")
            ignored.add(relative)
    settings = {name: value for name, value in settings.items() if name not in ignored}
    rates: dict[str, Any] = {
        argument: number(settings.pop(name), f"{name} of {what}")
        for name, argument in ITEM_KEYS.items()
        if name in settings
    }
    return Factor(**rates, options=options(settings, what), why=what)


@dataclass(frozen=True, repr=False, eq=False)
class Paramwise(Imported):
    """MMEngine's rules; made by :func:`mmengine`."""

    custom: Mapping[str, Factor]  # by custom key, the longest first
    rules: Mapping[str, float]  # the value of each rule that is set

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The longest custom key's factor, or else that of the rules."""
        keys, _ = self._keys(model)
        return [
            by_rules if key is None else self.custom[key]
            for key, by_rules in zip(keys, self._by_rules(model), strict=True)
        ]

    def _keys(self, model: ModelInfo) -> tuple[list[str | None], list[Finding]]:
        """The custom key that claims each parameter, and findings on keys without effect."""
        # A default argument: else each test would see the last key.
        tests = [(key, lambda name, key=key: key in dotted(name)) for key in self.custom]
        names = [param.name for param in model.params]
        claims = Claims.of("custom key", tests, names, model.spellings[0])
        keys = [None if at is None else claims.patterns[at] for at in claims.first]
        return keys, claims.check(self.watch, model)

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
            if key is None:
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
