"""detectron2's default parameter groups: by norm classes, names of parameters, and a function.

    weight_decay(p) = weight_decay_norm              [norm layers]
    weight_decay(p) = weight_decay_embed             [nn.Embedding]
    lr(p)           = base_lr * lr_factor_func(name)
    then, by the parameter's own name on its module, absolute values replace both:
    overrides[leaf(p)], where overrides["bias"] may come from bias_lr_factor and
    weight_decay_bias

After ``detectron2.solver.build.get_default_optimizer_params`` (Facebook AI Research).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from nnlr._arguments import number, options
from nnlr._declare.factor import Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Slot
from nnlr._text import shown
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import (
    Claims,
    Imported,
    Watch,
    dotted,
    inside,
    mapping,
    unreached_norms,
)
from nnlr.schemes._frameworks.detectron2_config import KNOWN_LEAVES, read, vit_decay, vit_layer

# detectron2 names LocalResponseNorm as well, which has no parameters.
NORMS: Final = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
)

LrFactor = Callable[[str], float]

BIAS_LR_FACTOR: Final = 1.0


def detectron2(
    config: object = None,
    *,
    weight_decay_norm: float | None = None,
    weight_decay_embed: float | None = None,
    bias_lr_factor: float | None = BIAS_LR_FACTOR,
    weight_decay_bias: float | None = None,
    lr_factor_func: LrFactor | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    strict: bool = True,
) -> Scheme:
    """detectron2's ``get_default_optimizer_params``, with its own keywords or from a configuration.

    Its ``base_lr`` and ``weight_decay`` are the ``lr`` and ``weight_decay`` of ``resolve``.

    Args:
        config: A LazyConfig's ``optimizer``, ``nnlr.detectron2(cfg.optimizer)``, or ``cfg.SOLVER``
            of the older configurations, also that of MaskFormer; or the whole of either. Instead
            of the other settings.
        weight_decay_norm: Absolute decay of the parameters of norm layers, by class.
        weight_decay_embed: Absolute decay of ``nn.Embedding``: MaskFormer's.
        bias_lr_factor: Factor on the base rate for everything called ``bias``, those of norm
            layers too; it replaces ``lr_factor_func`` there.
        weight_decay_bias: Absolute decay for the same; it replaces ``weight_decay_norm``
            there.
        lr_factor_func: From a parameter's name to a factor on the learning rate. A parameter
            of the root has a leading dot in its name.
        overrides: By the parameter's own name on its module (``"weight"``,
            ``"relative_position_bias_table"``): absolute ``lr``, ``weight_decay``, and other
            settings of the group.
        strict: Refuse what detectron2 passes over in silence: misspelt keys and overrides
            that match nothing. With ``False`` they are findings; overrides that detectron2's own
            configurations have for other models are findings anyway.

    Raises:
        ConfigError: If settings are malformed or contradict each other.
        PatternError: At resolve, if an override matches nothing.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
        >>> scheme = detectron2(weight_decay_norm=0.0)
        >>> plan = nnlr.resolve(net, scheme, lr=0.02, weight_decay=1e-4)
        >>> [row.weight_decay for row in plan]
        [0.0001, 0.0, 0.0]
    """
    watch = Watch("detectron2", strict=strict)
    settings: dict[str, Any] = {
        "weight_decay_norm": weight_decay_norm,
        "weight_decay_embed": weight_decay_embed,
        "bias_lr_factor": bias_lr_factor,
        "weight_decay_bias": weight_decay_bias,
        "lr_factor_func": lr_factor_func,
        "overrides": overrides,
    }
    if config is not None:
        defaults = {**dict.fromkeys(settings), "bias_lr_factor": BIAS_LR_FACTOR}
        beside = [name for name, value in settings.items() if value is not defaults[name]]
        if beside:
            raise ConfigError(
                f"{beside[0]} stands beside a configuration, which has its own: change it there.",
                key=beside[0],
            )
        settings |= read(config, watch)
    return _scheme(watch, **settings)


def _scheme(
    watch: Watch,
    *,
    weight_decay_norm: float | None,
    weight_decay_embed: float | None,
    bias_lr_factor: float | None,
    weight_decay_bias: float | None,
    lr_factor_func: LrFactor | None,
    overrides: Mapping[str, Mapping[str, Any]] | None,
) -> "Detectron":
    """The scheme of checked settings."""
    if lr_factor_func is not None and not callable(lr_factor_func):
        raise ConfigError(
            "lr_factor_func must be a function from a parameter's name to a factor, got "
            f"{shown(lr_factor_func)}."
        )
    written = mapping({} if overrides is None else overrides, "overrides")
    # What the two settings for biases come to; nothing if they leave all as it is.
    biases: dict[str, Any] = {}
    if bias_lr_factor is not None and number(bias_lr_factor, "bias_lr_factor") != 1:
        biases["lr_mult"] = number(bias_lr_factor, "bias_lr_factor")
    if weight_decay_bias is not None:
        biases["weight_decay"] = number(weight_decay_bias, "weight_decay_bias")
    if biases and "bias" in written:
        raise ConfigError(
            "overrides has 'bias' beside bias_lr_factor or weight_decay_bias: both speak of "
            "everything called bias. Put all of it into overrides['bias'].",
            key="bias",
        )
    arguments = {"bias": biases} if biases else {}
    for leaf, item in written.items():
        what = f"override {leaf!r}"
        settings = mapping(item, what)
        for key in watch.misspelt_keys(settings, ("lr", "weight_decay"), what):
            del settings[key]
        rates = [key for key in ("lr", "weight_decay") if key in settings]
        arguments[leaf] = {key: number(settings.pop(key), f"{key} of {what}") for key in rates}
        if settings:
            arguments[leaf]["options"] = options(settings, what)
    norm = None if weight_decay_norm is None else number(weight_decay_norm, "weight_decay_norm")
    embed = None if weight_decay_embed is None else number(weight_decay_embed, "weight_decay_embed")
    call = watch.call(
        detectron2,
        weight_decay_norm=norm,
        weight_decay_embed=embed,
        bias_lr_factor=bias_lr_factor,
        weight_decay_bias=weight_decay_bias,
        lr_factor_func=lr_factor_func,
        overrides=overrides,
    )
    return Detectron(watch, call, norm, lr_factor_func, arguments, frozenset(written), embed)


@dataclass(frozen=True, repr=False, eq=False)
class Detectron(Imported):
    """detectron2's rules; made by :func:`detectron2`."""

    weight_decay_norm: float | None
    lr_factor_func: LrFactor | None
    overrides: Mapping[str, Mapping[str, Any]]  # arguments of Factor, by a parameter's own name
    written: frozenset[str]  # the names of the overrides that the user wrote
    weight_decay_embed: float | None = None  # not in pickles of version 0.1

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The module's class and the function first, then what the parameter's name replaces."""
        self._check_overrides(model)
        factors = []
        for slot in self.slots(model):
            lr_mult = self._lr_mult(slot)
            layer = vit_layer(self.lr_factor_func, dotted(slot.name))
            arguments: dict[str, Any] = {"lr_mult": lr_mult, "layer": layer}
            why = []
            if self._is_norm(slot):
                arguments["weight_decay"] = self.weight_decay_norm
                why.append("norm layer")
            if self.weight_decay_embed is not None and inside(slot, (nn.Embedding,)):
                arguments["weight_decay"] = self.weight_decay_embed
                why.append("embedding")
            if lr_mult != 1:
                why.append(f"lr_factor_func{'' if layer is None else f', {layer}'}")
            if slot.key in self.overrides:
                override = self.overrides[slot.key]
                if "lr" in override:
                    arguments["lr_mult"] = 1.0
                arguments |= override
                why.append(f"override {slot.key!r}" if slot.key in self.written else "a bias")
            factors.append(Factor(**arguments, why=", ".join(why)))
        return factors

    def _lr_mult(self, slot: Slot) -> float:
        """The factor of the user's function on the learning rate."""
        if self.lr_factor_func is None:
            return 1.0
        name = dotted(slot.name)
        return number(self.lr_factor_func(name), f"lr_factor_func({name!r})")

    def _is_norm(self, slot: Slot) -> bool:
        """Whether the decay of norm layers is for a parameter."""
        return self.weight_decay_norm is not None and inside(slot, NORMS)

    def _check_overrides(self, model: ModelInfo) -> list[Finding]:
        """Refuse overrides for names that no parameter has on its module."""
        leaves = [places[0].key for places in model.places]
        all_leaves = {slot.key for places in model.places for slot in places}
        others = sorted((self.written & KNOWN_LEAVES) - all_leaves)
        tests = [(leaf, leaf.__eq__) for leaf in sorted(self.written.difference(others))]
        claims = Claims.of("override", tests, leaves, all_leaves)
        cause = "the override {!r} of detectron2's models is for no parameter of this one"
        return [
            *(note("no-effect", (), cause.format(leaf), "Nothing to do.") for leaf in others),
            *claims.check(self.watch, model, sorted(set(leaves))),
        ]

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Where a setting replaces another, and norm layers not reached."""
        findings = [*self.watch.noted, *self._check_overrides(model)]
        norm_decay = self.weight_decay_norm
        if norm_decay is not None:
            findings += unreached_norms(model, NORMS, "weight_decay_norm")
        findings += self._on_function(model)
        slots = [slot for slot, *_ in model.places if slot.key in self.overrides]
        overridden = [(slot, self.overrides[slot.key]) for slot in slots]
        decayed = [
            slot.name
            for slot, override in overridden
            if self._is_norm(slot) and override.get("weight_decay", norm_decay) != norm_decay
        ]
        if decayed:
            cause = "the weight decay for this name replaces weight_decay_norm"
            fix = "Let the two agree if norms must not decay."
            findings.append(warning("norm-decay-replaced", decayed, cause, fix))
        biases = [slot.name for slot in slots if slot.key == "bias" and inside(slot, NORMS)]
        if biases and not decayed:
            cause = "biases of norm layers are treated as biases"
            findings.append(note("norm-bias", biases, cause, "Nothing to do if meant."))
        scaled = [
            slot.name
            for slot, override in overridden
            if {"lr", "lr_mult"} & override.keys() and self._lr_mult(slot) != 1
        ]
        if scaled:
            cause = "the learning rate for this name replaces lr_factor_func"
            fix = "To have both, multiply: detectron2(lr_factor_func=...) * nnlr.rule(...)."
            findings.append(warning("lr-factor-replaced", scaled, cause, fix))
        return findings

    def _on_function(self, model: ModelInfo) -> list[Finding]:
        """A function that changes nothing, and a decay for fewer layers than there are."""
        if self.lr_factor_func is None:
            return []
        mults = {places[0].name: self._lr_mult(places[0]) for places in model.places}
        if {*mults.values()} == {1.0}:
            cause = f"lr_factor_func gives 1 for every parameter of {model.label}"
            fix = f"It gets names such as {dotted(next(iter(mults)))!r}."
            return [warning("no-effect", (), cause, fix)]
        faster = [name for name, mult in mults.items() if mult > 1]
        if faster and (decay := vit_decay(self.lr_factor_func)):
            cause = f"num_layers={decay['num_layers']} is less than the blocks: these are faster"
            fix = "Pass the number of blocks as num_layers."
            return [warning("too-few-layers", faster, cause, fix)]
        return []
