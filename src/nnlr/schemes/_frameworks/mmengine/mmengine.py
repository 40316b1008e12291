"""MMEngine's ``optim_wrapper``, unchanged: a scheme for each constructor that it may name.

| constructor | from | learning rates |
|---|---|---|
| ``DefaultOptimWrapperConstructor`` | MMEngine 0.10 | keys and kinds of layers |
| ``ForceDefaultOptimWrapperConstructor`` | mmsegmentation 1.2 | the same, rules before keys |
| ``LearningRateDecayOptimWrapperConstructor`` | mmpretrain 1.2 | by the model's own depth |
| ``LearningRateDecayOptimizerConstructor`` | mmsegmentation, mmdetection 3.3 | by names |
| ``LayerDecayOptimizerConstructor`` | BEiT, mmsegmentation | by names |
| ``LayerDecayOptimWrapperConstructor`` | mmpose 1.3 | by names |
| ``CustomLayerDecayOptimizerConstructor`` | InternImage | by names |
| ``SwinOptimWrapperConstructor`` | mmaction2 1.2 | products of keys |
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from nnlr._declare.scheme import Scheme
from nnlr._text import nearest_hint
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import Watch, mapping, optional
from nnlr.schemes._frameworks.mmengine import by_depth, by_name, by_product, paramwise
from nnlr.schemes._frameworks.mmengine.settings import Constructor, Settings

_DEFAULT: Final = "DefaultOptimWrapperConstructor"

CONSTRUCTORS: Final[Mapping[str, Constructor]] = {
    _DEFAULT: paramwise.DEFAULT,
    "DefaultOptimizerConstructor": paramwise.DEFAULT,  # mmcv 1
    "ForceDefaultOptimWrapperConstructor": paramwise.FORCED,
    "LearningRateDecayOptimWrapperConstructor": by_depth.CONSTRUCTOR,
    "LearningRateDecayOptimizerConstructor": by_name.LEARNING_RATE_DECAY,
    "LayerDecayOptimizerConstructor": by_name.LAYER_DECAY,
    "LayerDecayOptimWrapperConstructor": by_name.POSE,
    "CustomLayerDecayOptimizerConstructor": by_name.INTERN_IMAGE,
    "SwinOptimWrapperConstructor": by_product.CONSTRUCTOR,
}

# Keys of an optim_wrapper, none of which a paramwise_cfg has.
_WHOLE: Final = ("optimizer", "paramwise_cfg", "constructor", "type", "clip_grad")

# Factors on the weight decay, for which there must be one.
_RELATIVE: Final = ("bias_decay_mult", "norm_decay_mult", "dwconv_decay_mult")


def mmengine(config: Mapping[str, Any] | None, *, strict: bool = True) -> Scheme:
    """MMEngine's ``optim_wrapper`` or its ``paramwise_cfg``, unchanged.

    The base rates are those of ``resolve``: the ``lr`` and ``weight_decay`` of the
    configuration's optimizer. :func:`nnlr.config.from_mmengine` reads these too.

    Settings of a custom key beside ``lr_mult`` and ``decay_mult`` become options of the group,
    an ``lr`` or ``weight_decay`` there is absolute, as in MMEngine. A tied parameter always
    counts once, by its first name.

    Args:
        config: A whole ``optim_wrapper`` with its ``constructor`` and ``paramwise_cfg`` (or
            the ``optimizer`` of mmcv 1, which has these inside), or a configuration that has it;
            what says nothing on parameters (``clip_grad``, ``type``, ...) is passed over. Or a
            ``paramwise_cfg``
            alone, which is the default constructor's: ``custom_keys``, ``bias_lr_mult``,
            ``bias_decay_mult``, ``norm_decay_mult``, ``dwconv_decay_mult``,
            ``flat_decay_mult``, ``dcn_offset_lr_mult``, ``bypass_duplicate``.
        strict: Refuse what MMEngine passes over in silence: unknown and misspelt keys, custom
            keys without effect, unless it is one of another architecture (then a note says
            so). With ``False`` all are findings.

    Raises:
        ConfigError: If the configuration is malformed, has unknown keys, or names a
            constructor that is not known.
        PatternError: At resolve, if a custom key has no effect.
        NnlrError: At resolve, if a constructor that goes by depth does not know the model.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> optim_wrapper = {
        ...     "type": "OptimWrapper",
        ...     "optimizer": {"type": "SGD", "lr": 0.01, "weight_decay": 0.1},
        ...     "paramwise_cfg": {
        ...         "custom_keys": {"backbone": {"lr_mult": 0.1}}, "bias_decay_mult": 0
        ...     },
        ... }
        >>> scheme = mmengine(optim_wrapper)
        >>> plan = nnlr.resolve(net, scheme, lr=0.01, weight_decay=0.1)
        >>> [(row.lr, row.weight_decay) for row in plan]
        [(0.001, 0.1), (0.001, 0.1), (0.01, 0.1), (0.01, 0.0)]
    """
    watch = Watch("mmengine", strict=strict)
    whole = mapping({} if config is None else config, "paramwise_cfg")
    if "optim_wrapper" in whole:
        whole = mapping(whole["optim_wrapper"], "optim_wrapper")
    paramwise_cfg, name = whole, _DEFAULT
    if any(key in _WHOLE or _like(key) for key in whole if key not in paramwise.KEYS):
        constructor = whole.get("constructor")
        name = short_name(_DEFAULT if constructor is None else constructor)
        paramwise_cfg = _inner(whole, watch)
    if name not in CONSTRUCTORS:
        hint = nearest_hint(name, CONSTRUCTORS) or f"Known: {', '.join(CONSTRUCTORS)}."
        raise ConfigError(
            f"constructor {name!r} is none that nnlr knows. {hint}\n"
            "  Of your own: write what it does as schemes, such as nnlr.layer_decay(0.75) * "
            "nnlr.rule('head.*', lr_mult=10), or as a subclass of nnlr.Scheme "
            "(docs/custom-schemes.md).",
            key="constructor",
        )
    constructor = CONSTRUCTORS[name]
    is_default = constructor is paramwise.DEFAULT
    call = paramwise_cfg if is_default else {"constructor": name, "paramwise_cfg": paramwise_cfg}
    written = watch.call(mmengine, None if config is None else call)
    owners = {key: label for label, one in CONSTRUCTORS.items() for key in one.reads}
    settings = Settings(
        name, paramwise_cfg, constructor, watch, owners=owners, inherited=paramwise.KEYS
    )
    return constructor.make(settings, written)


def short_name(kind: object) -> str:
    """The name of a class without its package, from the class or from its name."""
    name = getattr(kind, "__name__", None) or str(kind)
    return str(name).rpartition(".")[2]


def _like(key: str) -> list[str]:
    """The keys of an ``optim_wrapper`` that a key looks like."""
    return get_close_matches(key, _WHOLE[:3], n=1, cutoff=0.8)


def _inner(whole: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """The ``paramwise_cfg`` of an ``optim_wrapper``, or of the ``optimizer`` of mmcv 1."""
    for key in whole:
        if key not in _WHOLE and (close := _like(key)):
            cause = f"the optim_wrapper has the key {key!r}, which looks like {close[0]!r}"
            watch.refuse("misspelt-key", key, cause, f"Nearest: {close[0]!r}.")
    inner = optional(whole.get("paramwise_cfg"), "paramwise_cfg")
    optimizer = mapping(whole.get("optimizer", whole), "optimizer")
    custom_keys = optional(inner.get("custom_keys"), "custom_keys")
    relative = [key for key in _RELATIVE if key in inner] + [
        f"decay_mult of custom key {key!r}"
        for key, item in custom_keys.items()
        if "decay_mult" in mapping(item, f"custom key {key!r}")
    ]
    if relative and "type" in optimizer and optimizer.get("weight_decay") is None:
        raise ConfigError(
            f"{relative[0]} is a factor on the weight_decay of the optimizer, which has none: "
            "MMEngine refuses that too. Write weight_decay into the optimizer.",
            key="weight_decay",
        )
    return inner
