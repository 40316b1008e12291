"""The notes that nnlr writes on a user's modules.

Each is plain data in the module's ``__dict__``: it survives ``deepcopy``, ``pickle``,
``.to()``, ``torch.compile``, DDP and ``fully_shard``, and stays out of ``state_dict``. A note
is replaced, never changed in place, so that a shallow copy of a module does not share it.

===============  ==========================================  =======================
note             value                                       written by
===============  ==========================================  =======================
``_nnlr``        ``{"weight": {"lr_mult": 0.1}}``            ``annotate`` and others
``_nnlr_locked``  names of parameters nnlr has locked         ``plan.lock``
``_nnlr_init``   ``True`` once the weights were scaled       ``apply_init``
===============  ==========================================  =======================

A lock is noted on the tensor too (``_nnlr_locked = True``), since the same tensor may be
passed without its module the next time. Copies and replacements of parameters lose that note;
then the module's note counts.
"""

from collections.abc import Mapping

from torch import Tensor, nn

_DECLARED = "_nnlr"
_LOCKED = "_nnlr_locked"
_INIT = "_nnlr_init"


def declared(module: nn.Module) -> Mapping[str, Mapping[str, float]]:
    """Relative rates set on a module: parameter name -> multiplier name -> value."""
    # Not getattr: wrappers such as OptimizedModule forward it to the module inside.
    rates: Mapping[str, Mapping[str, float]] = module.__dict__.get(_DECLARED, {})
    return rates


def declare(module: nn.Module, name: str, values: Mapping[str, float]) -> None:
    """Set relative rates of one parameter; the others stay."""
    old = declared(module)
    module.__dict__[_DECLARED] = {**old, name: {**old.get(name, {}), **values}}


def is_locked(tensor: Tensor, module: nn.Module | None, key: str) -> bool:
    """Whether nnlr has locked a tensor, or what is ``key`` in the module that holds it."""
    on_tensor: bool | None = tensor.__dict__.get(_LOCKED)
    if on_tensor is not None or module is None:
        return bool(on_tensor)
    return key in module.__dict__.get(_LOCKED, ())


def set_locked(tensor: Tensor, module: nn.Module | None, key: str, *, locked: bool) -> None:
    """Note on a tensor and the module that holds it that nnlr has locked it, or not."""
    if module is None:
        tensor.__dict__[_LOCKED] = locked  # False overrules a module out of reach
        return
    _note(tensor, locked)
    keys = {*module.__dict__.get(_LOCKED, ())} - {key}
    _note(module, sorted(keys | {key} if locked else keys))


def _note(holder: nn.Module | Tensor, value: bool | list[str]) -> None:
    if value:
        holder.__dict__[_LOCKED] = value
    else:
        holder.__dict__.pop(_LOCKED, None)


def init_applied(module: nn.Module) -> bool:
    """Whether ``apply_init`` has scaled this model's weights."""
    return bool(module.__dict__.get(_INIT))


def set_init_applied(module: nn.Module) -> None:
    """Note that ``apply_init`` has scaled this model's weights."""
    module.__dict__[_INIT] = True
