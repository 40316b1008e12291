"""One optimizer of several algorithms: each parameter group is stepped by its own class."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._text import shown
from nnlr.errors import ConfigError
from nnlr.optim._members import (
    ALGORITHM,
    Factory,
    Group,
    algorithm_of,
    as_factories,
    as_groups,
    build,
    common_defaults,
    refuse_foreign_keys,
    undecorated_step,
)


class Mixed(Optimizer):
    """Several optimizer classes as one optimizer: Muon for the matrices, AdamW for the rest.

    It is a real ``torch.optim.Optimizer``. Its groups stand in ``param_groups`` in the order
    in which they are passed, each with its ``"algorithm"`` and with the settings of that
    algorithm's class. State is kept per parameter, in the layout of that class. Schedulers,
    gradient scalers, clipping, trainers and checkpoints see one optimizer, and a step gives,
    to the last bit, what the classes give that are stepped one after the other.

    A closure is evaluated once, before the first of them; hooks run once per step. Each
    parameter is in one group. An algorithm may be without parameters. ``defaults`` are the
    settings that all classes have, as the first has them. ``OneCycleLR`` and ``CyclicLR`` cycle
    betas or momentum of all groups: where one class has the one and another the other, they
    raise; use :func:`nnlr.schedule`, or ``cycle_momentum=False``.

    Args:
        groups: Parameter groups as ``torch.optim`` takes them, each with ``"algorithm"``: one
            of the names of ``algorithms``. A group without ``lr`` has its class's default.
        algorithms: For each name an optimizer class, or a ``functools.partial`` of one.

    Raises:
        ConfigError: If a group names no algorithm, or a class refuses its groups or needs a
            closure (LBFGS), which evaluates the loss of all parameters more than once.

    Examples:
        >>> import nnlr, torch
        >>> from functools import partial
        >>> net = torch.nn.Linear(4, 8)
        >>> groups = [
        ...     {"params": [net.weight], "lr": 0.02, "algorithm": "muon"},
        ...     {"params": [net.bias], "lr": 3e-4, "algorithm": "adamw"},
        ... ]
        >>> classes = {"muon": torch.optim.Muon, "adamw": partial(torch.optim.AdamW, eps=1e-6)}
        >>> optimizer = nnlr.optim.Mixed(groups, classes)
        >>> net(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> [sorted(optimizer.state[param]) for param in (net.weight, net.bias)]
        [['momentum_buffer'], ['exp_avg', 'exp_avg_sq', 'step']]
    """

    # An optimizer of each class that has parameters; it shares its groups and the state.
    _members: Mapping[str, Optimizer] = MappingProxyType({})
    _factories: dict[str, Factory]
    _loading: Mapping[str, Any] | None = None  # the state dict that is being loaded
    _sizes = 0  # how many keys the state had when it was looked at

    def __init__(self, groups: Iterable[Mapping[str, Any]], algorithms: Mapping[str, Any]) -> None:
        self._factories = as_factories(algorithms)
        groups = as_groups(groups)
        names = [algorithm_of(group, self._factories) for group in groups]
        members = {}
        for name, factory in self._factories.items():
            if own := [group for group, of in zip(groups, names, strict=True) if of == name]:
                members[name] = build(name, factory, own)
        filled = {name: iter(member.param_groups) for name, member in members.items()}
        super().__init__([next(filled[name]) for name in names], common_defaults(members.values()))
        self._members = members
        for member in members.values():
            self.state.update(member.state)
        self._share()
        self.register_state_dict_post_hook(Mixed._save_parts)

    @property
    def algorithms(self) -> Mapping[str, Optimizer]:
        """The optimizer of each algorithm that has parameters: to look at, not to step.

        They share the groups and the state of this one.
        """
        return MappingProxyType(self._members)

    # --- step -----------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 - a loss
        """Step all algorithms, in the order of ``algorithms``.

        Args:
            closure: Computes the loss and its gradients again; evaluated once.

        Returns:
            The closure's loss; ``None`` without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not torch.compiler.is_compiling():  # pragma: no branch - traced, not run
            self._share()
        for member in self._members.values():
            if member.param_groups:
                undecorated_step(member)(member)
        return loss

    def _share(self) -> None:
        """Give each algorithm its groups, the state of all, and what a scaler has set."""
        if len(self.state) != self._sizes:
            self._sizes = len(self.state)
            refuse_foreign_keys(self.state, self._members)
        groups: dict[str, list[Group]] = {name: [] for name in self._members}
        for group in self.param_groups:
            groups[algorithm_of(group, groups)].append(group)
        for name, member in self._members.items():
            member.param_groups[:] = groups[name]
            member.state = self.state
            member.grad_scale = getattr(self, "grad_scale", None)  # type: ignore[attr-defined]
            member.found_inf = getattr(self, "found_inf", None)  # type: ignore[attr-defined]

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether all algorithms unscale gradients themselves, as torch's fused classes do."""
        members = self._members.values()
        return all(getattr(member, "_step_supports_amp_scaling", False) for member in members)

    def train(self) -> None:
        """Call ``train`` of the algorithms that have it: schedule-free ones."""
        self._call("train")

    def eval(self) -> None:
        """Call ``eval`` of the algorithms that have it: schedule-free ones."""
        self._call("eval")

    def _call(self, method: str) -> None:
        """Call a method of the algorithms that have it."""
        self._share()
        for member in self._members.values():
            if hasattr(member, method):
                getattr(member, method)()

    # --- groups ---------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, which names its ``"algorithm"``; where that fails, nothing is changed.

        Raises:
            ConfigError: If it names none, or is the first of a class, which refuses it.
        """
        if not self._members:  # the constructor adds groups that their classes have filled
            super().add_param_group(param_group)
            return
        (group,) = as_groups([param_group])
        name = algorithm_of(group, self._factories)
        self._share()
        member, defaults = self._members.get(name), self.defaults
        if member is None:
            member = build(name, self._factories[name], [group])
        else:
            member.add_param_group({k: v for k, v in group.items() if k != ALGORITHM})
        filled = member.param_groups[-1]
        filled[ALGORITHM] = name
        # Torch adds to a group what its class may not have.
        self.defaults = {k: v for k, v in defaults.items() if k in member.defaults}
        try:
            super().add_param_group(filled)
        except Exception:
            del member.param_groups[-1]
            self.defaults = defaults
            raise
        members = {**self._members, name: member}
        self._members = {each: members[each] for each in self._factories if each in members}
        self.state.update(member.state)
        self._share()

    # --- keep -----------------------------------------------------------------------

    def _save_parts(self: Any, saved: dict[str, Any]) -> None:
        """Save the part of a class that has a way of its own in that way.

        ``state_dict`` calls this first of all hooks. What a class saves besides stands under the
        name of its algorithm, in ``"algorithms"``.
        """
        if "param_groups" not in saved:
            return  # somebody has put a hook before this one
        for name, member, groups in self._parts(saved):
            if type(member).state_dict is Optimizer.state_dict:
                continue
            member.state = self._state_of(member)
            part = member.state_dict()
            pairs = zip(groups, part.pop("param_groups"), member.param_groups, strict=True)
            for group, own, live in pairs:
                for key, number in zip(own["params"], group["params"], strict=True):
                    if key in part["state"]:
                        saved["state"][number] = part["state"][key]
                for key in live.keys() - own.keys():
                    del group[key]
                group.update({**own, "params": group["params"]})
            del part["state"]
            if part:
                saved.setdefault("algorithms", {})[name] = part
        self._share()

    def load_state_dict(self, state_dict: Mapping[str, Any] | Sequence[Any]) -> None:
        """Load what ``state_dict`` gave, as ``torch.optim.Optimizer`` does.

        The part of an algorithm whose class has a way of its own is loaded in that way.

        Raises:
            ConfigError: If a group was saved by another algorithm.
        """

        def note(_: Optimizer, final: Any) -> None:  # noqa: ANN401 - what hooks of others gave
            if not isinstance(final, Mapping) or not final.keys() >= {"state", "param_groups"}:
                raise ConfigError(
                    "Mixed was given a state without 'state' and 'param_groups'. What separate "
                    "optimizers saved is loaded by name: nnlr.checkpoint.on_load(optimizer)."
                )
            pairs = zip(self.param_groups, final["param_groups"], strict=False)
            for at, (group, saved) in enumerate(pairs):
                if saved.get(ALGORITHM, group[ALGORITHM]) != group[ALGORITHM]:
                    raise ConfigError(
                        f"param_groups[{at}] was saved by the algorithm {shown(saved[ALGORITHM])} "
                        f"and is stepped by {group[ALGORITHM]!r}, which cannot read its state. "
                        "Load by name: nnlr.checkpoint.on_load(optimizer)."
                    )
            self._loading = final

        copied: Any = list(state_dict) if isinstance(state_dict, list | tuple) else {}
        if isinstance(state_dict, Mapping):
            copied = dict(state_dict)
        last = self.register_load_state_dict_pre_hook(note)  # after the hooks of others
        try:
            super().load_state_dict(copied)
        finally:
            last.remove()
            self._loading = None

    def _parts(self, saved: Mapping[str, Any]) -> Iterator[tuple[str, Optimizer, list[Group]]]:
        """Each algorithm with its groups in a state dict."""
        pairs = list(zip(self.param_groups, saved["param_groups"], strict=True))
        for name, member in self._members.items():
            yield name, member, [part for group, part in pairs if group[ALGORITHM] == name]

    def _state_of(self, member: Optimizer) -> defaultdict[Any, Any]:
        """The state of an algorithm's parameters."""
        params = {param for group in member.param_groups for param in group["params"]}
        items = self.state.items()
        own = {k: v for k, v in items if k in params or not isinstance(k, Tensor)}
        return defaultdict(dict, own)

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep."""
        own = {"_factories": self._factories, "_members": self._members}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up state and groups; each class completes what is missing in its own."""
        if "_members" in state:  # a copy
            super().__setstate__(state)
            self.register_state_dict_post_hook(Mixed._save_parts)
            return
        for group, loaded in zip(self.param_groups, state["param_groups"], strict=True):
            loaded[ALGORITHM] = group[ALGORITHM]
        super().__setstate__(state)
        self._share()
        for name, member, groups in self._parts(self._loading or state):
            self._load_part(name, member, groups)
        self._share()

    def _load_part(self, name: str, member: Optimizer, saved: list[Group]) -> None:
        """Let a class take up its part of what has been loaded."""
        groups = list(member.param_groups)
        member.state = self._state_of(member)
        if type(member).load_state_dict is Optimizer.load_state_dict or self._loading is None:
            member.__setstate__({"state": member.state, "param_groups": groups})
        else:
            state, more = self._loading["state"], self._loading.get("algorithms", {})
            ids = [each for group in saved for each in group["params"] if each in state]
            part = {"state": {each: state[each] for each in ids}, "param_groups": saved}
            member.load_state_dict({**more.get(name, {}), **part})
            for group, loaded in zip(groups, member.param_groups, strict=True):
                group.update({**loaded, ALGORITHM: name})
        self.state.update(member.state)


def member_of(optimizer: Optimizer, group: Mapping[str, Any]) -> Optimizer:
    """The optimizer that steps a group: the one of its algorithm, or the only one."""
    return optimizer.algorithms[group[ALGORITHM]] if isinstance(optimizer, Mixed) else optimizer


def by_algorithm(optimizer: Optimizer, *, empty: bool = False) -> dict[str | None, list[Group]]:
    """The groups of each algorithm, in the order of these; ``None`` where groups name none.

    ``empty`` adds the algorithms that train nothing.
    """
    order: Iterable[str] = ()
    if isinstance(optimizer, Mixed):
        order = optimizer._factories if empty else optimizer.algorithms
    groups: dict[str | None, list[Group]] = {name: [] for name in order}
    for group in optimizer.param_groups:
        groups.setdefault(group.get(ALGORITHM), []).append(group)
    return groups


def bound_rate(optimizer: Optimizer, algorithm: str | None, key: str) -> float | None:
    """The rate that is bound to the class of an algorithm that trains nothing."""
    factory = optimizer._factories.get(str(algorithm)) if isinstance(optimizer, Mixed) else None
    rate = getattr(factory, "keywords", {}).get(key)
    return None if rate is None else float(rate)
