"""No weight decay for what scales or shifts: norms, biases, gains, tokens, positions.

    wd_mult(p) = 0 if the preset exempts p, else 1

AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) decays every parameter alike. That norms and
biases are better left out is practice older than its first citation ("Bag of Tricks", He et
al. 2018, arXiv 1812.01187, section 3.1). What differs between codebases is how they tell:
:mod:`nnlr.schemes._no_weight_decay_presets` has their rules.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from nnlr._arguments import Call, choice, flag
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Slot
from nnlr._model.scopes import module_class
from nnlr.errors import NnlrError
from nnlr.schemes._no_weight_decay_presets import PRESETS, ParamView


def no_weight_decay(preset: str = "nnlr", *, embeddings: bool = False) -> Scheme:
    """No weight decay for some parameters: ``wd_mult`` 0 for them, 1 for the rest.

    The default goes by roles. It exempts norms of every kind, biases of every kind,
    LayerScale, weight-norm magnitudes, PReLU, tokens, position embeddings and
    relative-position tables, scalars, and the recurrence of state-space layers; it honours
    ``no_weight_decay()`` of modules, and ``_no_weight_decay`` and ``_optim`` on parameters.
    The other presets are equal to the code they are named after, mistakes included.

    Args:
        preset: Whose rule: ``"nnlr"`` or another preset, such as ``"timm"`` or ``"hf"``.
        embeddings: Exempt embedding tables too, whatever the preset says of them. Off,
            because most codebases decay them; OLMo 2 found its training steadier without.
            A table that is also the output layer counts as an embedding.

    Raises:
        NnlrError: If the preset is unknown; at resolve, if it goes by classes of modules
            and there are only tensors.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1))
        >>> plan = nnlr.resolve(net, no_weight_decay(), lr=1e-3, weight_decay=0.1)
        >>> [row.name for row in plan if row.weight_decay]
        ['0.weight', '2.weight']
    """
    return NoWeightDecay(
        choice(preset, "preset", PRESETS), embeddings=flag(embeddings, "embeddings")
    )


@dataclass(frozen=True, repr=False, eq=False)
class NoWeightDecay(Call, Scheme):
    """No weight decay for some parameters; made by :func:`no_weight_decay`."""

    preset: str = "nnlr"
    _: KW_ONLY
    embeddings: bool = False

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for each reason to be exempt; the neutral one for all that decays."""
        rule, _, reads, classes = PRESETS[self.preset]
        if classes and model.module is None:
            raise NnlrError(
                f"{self!r} goes by the classes of modules, and there are only tensors. Pass "
                "the model itself, or use no_weight_decay(), which can go by names."
            )
        declarations = Declarations(model, reads)
        factor_of: dict[str | None, Factor] = {None: NEUTRAL}
        factors = []
        for param, places in zip(model.params, model.places, strict=True):
            why = rule(ParamView(param, places[0], declarations.of(places)))
            if self.embeddings and param.role == "embedding":
                why = "embedding (embeddings=True)"
            elif why is not None:
                why += f" ({self.preset} preset)"
            if why is not None and why not in factor_of:
                factor_of[why] = Factor(wd_mult=0.0, why=why)
            factors.append(factor_of[why])
        return factors

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Requests about decay in the model's code that could not be followed."""
        reads = PRESETS[self.preset].declared
        findings = [
            warning(
                "no-weight-decay-hook",
                (module_class(module).__name__,),
                f"what a module asks for cannot be read: {error}",
                "Make the hook return a set of names, or exempt them by a rule.",
            )
            for module, hooks in Declarations(model, reads).hooks.items()
            for error in hooks.errors
        ]
        if reads in {"outermost", "every"} and model.module is None:
            findings.append(
                note(
                    "no-weight-decay-hook",
                    [param.name for param in model.params],
                    "tensors without modules have no no_weight_decay() that could be asked",
                    "Pass the model itself if it has one.",
                )
            )
        # Settings in `_optim` that are not the absence of decay, one finding for each.
        other_settings: dict[str, list[str]] = {}
        for places in model.places if reads == "marks" else ():
            for key, value in _optim(places[0].tensor).items():
                if (key, value) != ("weight_decay", 0):
                    other_settings.setdefault(f"{key}={value!r}", []).append(places[0].name)
        findings += [
            note(
                "optim-attribute",
                names,
                f"_optim asks for {setting}, which no_weight_decay does not set",
                f"Unless another scheme does, add nnlr.rule(..., {setting}).",
            )
            for setting, names in other_settings.items()
        ]
        return findings


# Methods by which modules name their parameters -> how their words become globs. To
# open_clip a keyword is the end of a name; to Swin, where they are from, any part of one. Our
# own rule, which reads all forms, takes it as the end of a name or of a module's above it.
_HOOKS: Final = {
    "no_weight_decay": ("{}",),
    "no_weight_decay_patterns": ("{}",),
    "no_weight_decay_keywords": ("*{}", "*{}.*"),
}


class Hooks(NamedTuple):
    """The parameters that one module exempts, relative to it, and the errors of its hooks."""

    names: Collection[str]
    globs: Sequence[str]
    errors: Sequence[str]


class Declarations:
    """The requests for no weight decay in the code of a model's modules and on its parameters.

    What counts, ``reads``, is a preset's ``declared``; ``hooks`` are those of each module.
    """

    def __init__(self, model: ModelInfo, reads: str) -> None:
        self.hooks: dict[nn.Module, Hooks] = {}
        self._reads = reads
        if reads and model.module is not None:
            hooks = ("no_weight_decay",) if reads == "outermost" else tuple(_HOOKS)
            for module in model.module.modules():
                # Not by hasattr(module, ...): wrappers pass on the hooks of the module inside.
                cls: type = type(module)
                methods = [hook for hook in hooks if hasattr(cls, hook) or hook in vars(module)]
                # A whole model of timm's does not ask its parts for their hooks.
                is_timm_model = reads == "outermost" and "pretrained_cfg" in vars(module)
                if methods or is_timm_model:
                    self.hooks[module] = _ask(module, methods, reads)

    def of(self, places: Sequence[Slot]) -> str | None:
        """Who asks for no decay of the parameter with these places, if anybody."""
        if self._reads == "marks":
            if getattr(places[0].tensor, "_no_weight_decay", False):  # as in Mamba
                return "marked _no_weight_decay"
            if _optim(places[0].tensor).get("weight_decay") == 0:  # as in S4
                return "marked _optim"
        else:
            places = places[:1]  # the name that named_parameters() gives
        return next(filter(None, map(self._hooked, places)), None) if self.hooks else None

    def _hooked(self, slot: Slot) -> str | None:
        """The module above this place whose hook names the parameter, if any."""
        above = slot.node.above() if slot.node else ()
        asking = [node for node in above if node.module in self.hooks]
        if self._reads == "outermost":
            asking = asking[-1:]
        for node in asking:
            start = node.raw(wrappers=False)
            name = slot.raw(wrappers=False).removeprefix(f"{start}." if start else "")
            hooks = self.hooks[node.module]
            if name in hooks.names or any(fnmatchcase(name, glob) for glob in hooks.globs):
                return f"no_weight_decay() of {module_class(node.module).__name__}"
        return None


def _ask(module: nn.Module, methods: Iterable[str], reads: str) -> Hooks:
    """Call the hooks of a module."""
    names: set[str] = set()
    globs: list[str] = []
    errors: list[str] = []
    for method in methods:
        try:
            words = _words(getattr(module, method)())
        except Exception as error:  # noqa: BLE001  a user's hook may raise anything
            kind = module_class(module).__name__
            errors.append(f"{kind}.{method}() {type(error).__name__}: {error}")
            continue
        if method == "no_weight_decay":
            names.update(words)
            if reads == "every":  # open_clip takes names to the letter
                continue
            words = [word for word in words if any(c in word for c in "*?[")]
        forms = _HOOKS[method] if reads == "marks" else _HOOKS[method][:1]
        globs += [form.format(word) for form in forms for word in words]
    return Hooks(names, globs, errors)


def _words(asked: object) -> list[str]:
    """The names that a hook gave, in a set, a list or a dict."""
    if isinstance(asked, str) or not isinstance(asked, Collection):
        raise TypeError(f"expected a set of names, got {asked!r}")
    for word in asked:
        if not isinstance(word, str):
            raise TypeError(f"expected names, got {word!r}")
    return list(asked)


def _optim(tensor: Tensor) -> Mapping[str, Any]:
    settings = getattr(tensor, "_optim", None)
    return settings if isinstance(settings, Mapping) else {}
