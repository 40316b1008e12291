"""Guard a load: state goes in by name and as it was fitted, or not at all.

The ``load_state_dict`` of torch calls hooks first. A class with one of its own may not, and then
goes by position: it is given what was fitted to its positions, and what it holds afterwards is
compared with that. A load that fails is undone.
"""

import weakref
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr.checkpoint._hook import hook_of, runs_hooks
from nnlr.checkpoint._sides import NOTE, same
from nnlr.errors import ConfigError
from nnlr.optim._mixed import Mixed


def guard(optimizer: Optimizer) -> None:
    """Wrap the ``load_state_dict`` of an optimizer whose class has one of its own.

    A wrapper that runs no hooks has a form of its own too: it refuses state of other groups.
    """
    method = type(optimizer).load_state_dict
    classes = optimizer.algorithms.values() if isinstance(optimizer, Mixed) else [optimizer]
    is_torchs = all(type(each).load_state_dict is Optimizer.load_state_dict for each in classes)
    if is_torchs or "load_state_dict" in vars(optimizer):
        return
    this = weakref.ref(optimizer)  # no cycle: it is gone when nobody needs it any more

    def load_state_dict(state_dict: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the class's
        """Load a state by name, as nnlr.checkpoint.on_load describes."""
        live = this()
        if live is None:
            raise ConfigError("The optimizer is gone: keep it in a variable while it loads.")
        hook = hook_of(live)
        if hook is None:
            if not runs_hooks(live):
                _refuse_other_groups(live, state_dict)
            return method(live, state_dict, *args, **kwargs)
        earlier, before = hook.report, Before(live)
        result = hook.fit(hook, live, state_dict)
        hook.has_fitted = True
        try:
            returned = method(live, result, *args, **kwargs)
            for group in live.param_groups:
                group.pop(NOTE, None)
            _compare(live, result)
        except Exception:
            before.restore(live)
            hook.report = earlier
            raise
        finally:
            hook.has_fitted = False
        return returned

    vars(optimizer)["load_state_dict"] = load_state_dict


def _refuse_other_groups(optimizer: Optimizer, state_dict: object) -> None:
    """Refuse a state whose groups hold other parameters, where both have names."""
    saved = [group["param_names"] for group in _groups_in(state_dict) if "param_names" in group]
    if saved and saved != [group.get("param_names") for group in optimizer.param_groups]:
        raise ConfigError(
            f"{type(optimizer).__name__} loads by position, and the state is of other groups or "
            "parameters than it trains now: their state would be mixed up. Build the plan that "
            "it was saved with. Nothing was loaded."
        )


def _groups_in(state: object) -> list[Mapping[str, Any]]:
    """Return the first parameter groups in nested state."""
    if not isinstance(state, Mapping):
        return []
    return state.get("param_groups") or next(filter(None, map(_groups_in, state.values())), [])


def undo_if_refused(optimizer: Optimizer) -> None:
    """Have torch's ``load_state_dict`` leave everything as it was if the class refuses the state.

    It hands state and groups to ``__setstate__``, which takes them over before it looks at them.
    """
    this, before = weakref.ref(optimizer), Before(optimizer)

    def __setstate__(state: dict[str, Any]) -> None:  # noqa: N807 - what torch calls
        """Take state and groups over, or leave all as it was."""
        live = cast(Optimizer, this())  # it is being loaded
        vars(live).pop("__setstate__", None)
        try:
            live.__setstate__(state)
        except Exception:
            before.restore(live)
            raise

    vars(optimizer)["__setstate__"] = __setstate__


class Before:
    """Groups and state as they were before a load; tensors are not copied."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._list, self._groups = optimizer.param_groups, list(optimizer.param_groups)
        self._settings = [dict(group) for group in self._groups]
        self._state, self._items = optimizer.state, dict(optimizer.state)
        self._parts = {
            key: dict(value) for key, value in self._items.items() if isinstance(value, dict)
        }

    def restore(self, optimizer: Optimizer) -> None:
        """Put them back."""
        for group, settings in zip(self._groups, self._settings, strict=True):
            group.clear()
            group.update(settings)
        self._list[:] = self._groups
        self._state.clear()
        self._state.update(self._items)
        for key, parts in self._parts.items():
            self._items[key].clear()
            self._items[key].update(parts)
        optimizer.param_groups, optimizer.state = self._list, self._state


def _compare(optimizer: Optimizer, fitted: Mapping[str, Any]) -> None:
    """Refuse an optimizer that holds other settings or state than it was given."""
    for group, packed in zip(optimizer.param_groups, fitted["param_groups"], strict=True):
        for key, value in packed.items():
            if key not in {"params", NOTE} and not same(group.get(key), value):
                raise _error(optimizer, key)
    # Some classes save in another form than they keep.
    there = _leaves(optimizer.state_dict()["state"])
    ids = [param_id for packed in fitted["param_groups"] for param_id in packed["params"]]
    position = {param_id: at for at, param_id in enumerate(ids)}  # it may be a name
    for path, value in _leaves(fitted["state"]).items():
        if not _is_equal(there.get((position.get(path[0], path[0]), *path[1:])), value):
            raise _error(optimizer, str(path[-1]))


def _leaves(value: object, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Tensor]:
    """Return the tensors in nested state, by the ways to them."""
    if isinstance(value, Tensor):
        return {path: value}
    items = value.items() if isinstance(value, Mapping) else ()
    return {way: leaf for key, item in items for way, leaf in _leaves(item, (*path, key)).items()}


def _is_equal(present: Tensor | None, wanted: Tensor) -> bool:
    """Whether a loaded tensor is the fitted one, perhaps in another precision or place."""
    if present is None or present.shape != wanted.shape:
        return False
    there = wanted.to(device=present.device, dtype=present.dtype)
    return bool(torch.equal(present, there) or torch.allclose(present, there, equal_nan=True))


def _error(optimizer: Optimizer, key: str) -> ConfigError:
    """Return the error of an optimizer that loads in its own way."""
    name = type(optimizer).__name__
    return ConfigError(
        f"{name} holds another {key!r} than it was given to load: it loads in a way of its own, "
        "so that state may be with other parameters. It is as it was. To leave loading to it, by "
        f"position, build it with plan.optimizer({name}, resume=None).",
        key=key,
    )
