"""One optimizer of several algorithms: each parameter group is stepped by its own class."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import isclass, signature
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._arguments import is_listing
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError

ALGORITHM: Final = "algorithm"  # the key of a group

Group = dict[str, Any]
Factory = Callable[..., Optimizer]

# Set on an optimizer by a gradient scaler while it steps.
_OF_A_SCALER: Final = ("grad_scale", "found_inf")

# Called between training and evaluation, where an algorithm has two sets of weights.
_MODES: Final = ("train", "eval")


class Mixed(Optimizer):
    """Several optimizer classes as one optimizer: Muon for the matrices, AdamW for the rest.

    It is a real ``torch.optim.Optimizer``. Its groups stand in ``param_groups`` in the order
    in which they are passed, each with its ``"algorithm"`` and with the settings of that
    algorithm's class. State is kept per parameter, in the layout of that class. Schedulers,
    gradient scalers, clipping, trainers and checkpoints see one optimizer, and a step gives,
    to the last bit, what the classes give that are stepped one after the other.

    A closure is evaluated once, before the first of them; hooks run once per step. Each
    parameter is in one group. An algorithm may be without parameters.

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

    _members: dict[str, Optimizer]
    _factories: dict[str, Factory]
    _saved: Mapping[str, Any] | None = None  # the state dict that is being loaded

    def __init__(
        self, groups: Iterable[Mapping[str, Any]], algorithms: Mapping[str, Factory]
    ) -> None:
        self._factories = _as_factories(algorithms)
        self._members = {}
        groups = _as_groups(groups)
        names = [self._algorithm_of(group) for group in groups]
        filled: dict[str, list[Group]] = {}
        for name in self._factories:
            if own := [group for group, of in zip(groups, names, strict=True) if of == name]:
                self._members[name], filled[name] = _build(name, self._factories[name], own)
        super().__init__([filled[name].pop(0) for name in names], {})
        self.defaults = common_defaults(self._members.values())
        for member in self._members.values():
            self.state.update(member.state)
        self._share()

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
        if not torch.compiler.is_compiling():
            self._share()
        for member in self._members.values():
            _undecorated_step(member)(member)
        return loss

    def _share(self) -> None:
        """Give each algorithm its groups, the state of all, and what a scaler has set."""
        groups: dict[str, list[Group]] = {name: [] for name in self._members}
        for group in self.param_groups:
            groups[group[ALGORITHM]].append(group)
        for name, member in self._members.items():
            member.param_groups[:] = groups[name]
            member.state = self.state
            for key in _OF_A_SCALER:
                if key in vars(self):
                    setattr(member, key, getattr(self, key))
                elif key in vars(member):
                    delattr(member, key)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether all algorithms unscale gradients themselves, as torch's fused classes do."""
        supports = [getattr(m, "_step_supports_amp_scaling", False) for m in self._members.values()]
        return all(supports)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a method
        """``train`` and ``eval``, if an algorithm has them (schedule-free ones do)."""
        members = vars(self).get("_members", {}).values()
        methods = [getattr(m, name) for m in members if name in _MODES and hasattr(m, name)]
        if not methods:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._share()
        return lambda: [method() for method in methods] and None

    # --- groups ---------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, which names its ``"algorithm"``.

        Raises:
            ConfigError: If it names none, or the class refuses it.
        """
        name = self._algorithm_of(param_group)
        member = self._members.get(name)
        if member is None:
            self._members[name], (filled,) = _build(name, self._factories[name], [param_group])
            member = self._members[name]
        elif not any(param_group is group for group in member.param_groups):
            member.add_param_group({k: v for k, v in param_group.items() if k != ALGORITHM})
            filled = member.param_groups[-1]
        else:
            filled = param_group
        filled[ALGORITHM] = name
        try:
            super().add_param_group(filled)
        except Exception:
            member.param_groups.remove(filled)
            raise

    def _algorithm_of(self, group: Mapping[str, Any]) -> str:
        """The algorithm that a group names."""
        name = group.get(ALGORITHM)
        if name not in self._factories:
            names = listed(map(repr, self._factories))
            problem = f"names the algorithm {shown(name)}" if ALGORITHM in group else "names none"
            raise ConfigError(
                f"Each group of a Mixed optimizer has a key 'algorithm', one of {names}; a group "
                f"with the keys {listed(map(repr, group))} {problem}. "
                f"{nearest_hint(str(name), self._factories)}".rstrip(),
                algorithm=name,
            )
        return str(name)

    # --- keep -----------------------------------------------------------------------

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` gave, as ``torch.optim.Optimizer`` does.

        The part of an algorithm whose class has a way of its own is loaded in that way.
        """

        def note(_: Optimizer, final: Mapping[str, Any]) -> None:
            self._saved = final

        last = self.register_load_state_dict_pre_hook(note)  # others may have changed it
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            last.remove()
            self._saved = None

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep."""
        return {
            **super().__getstate__(),
            "_factories": self._factories,
            "_members": self._members,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up state and groups; each class completes what is missing in its own."""
        super().__setstate__(state)
        if "_members" not in state:  # a load
            for name, member in self._members.items():
                self._hand_over(name, member)
        self._share()

    def _hand_over(self, name: str, member: Optimizer) -> None:
        """Let a class take up its part of what has been loaded."""
        groups = [group for group in self.param_groups if group[ALGORITHM] == name]
        params = [param for group in groups for param in group["params"]]
        own = {param: self.state.pop(param) for param in params if param in self.state}
        if type(member).load_state_dict is Optimizer.load_state_dict or self._saved is None:
            member.__setstate__({"state": defaultdict(dict, own), "param_groups": groups})
        else:
            saved = self._saved["param_groups"]
            parts = [g for g, live in zip(saved, self.param_groups, strict=True) if live in groups]
            member.param_groups = groups
            member.load_state_dict({"state": self._saved["state"], "param_groups": parts})
            for group, loaded in zip(groups, member.param_groups, strict=True):
                group.update(loaded)
        self.state.update(member.state)


def member_of(optimizer: Optimizer, group: Mapping[str, Any]) -> Optimizer:
    """The optimizer that steps a group: the one of its algorithm, or the only one."""
    return optimizer.algorithms[group[ALGORITHM]] if isinstance(optimizer, Mixed) else optimizer


def by_algorithm(optimizer: Optimizer) -> dict[str | None, list[Group]]:
    """The groups of each algorithm, in the order of these; ``None`` where groups name none."""
    order = optimizer.algorithms if isinstance(optimizer, Mixed) else ()
    groups: dict[str | None, list[Group]] = {name: [] for name in order}
    for group in optimizer.param_groups:
        groups.setdefault(group.get(ALGORITHM), []).append(group)
    return groups


def _as_factories(algorithms: object) -> dict[str, Factory]:
    """The classes, by name."""
    if not isinstance(algorithms, Mapping) or not algorithms:
        raise ConfigError(
            "algorithms maps names to optimizer classes, such as "
            "{'muon': torch.optim.Muon, 'adamw': torch.optim.AdamW}; got "
            f"{shown(algorithms, typed=True)}."
        )
    for name, factory in algorithms.items():
        cls = factory.func if isinstance(factory, partial) else factory
        if not isinstance(name, str) or not callable(factory):
            raise ConfigError(
                f"algorithms[{shown(name)}] must be an optimizer class, or a functools.partial "
                f"of one, under a name, got {shown(factory, typed=True)}."
            )
        if isclass(cls) and issubclass(cls, Optimizer) and needs_closure(cls):
            raise ConfigError(
                f"algorithms[{name!r}]: {cls.__name__} evaluates the loss in its step, perhaps "
                "several times, while the other algorithms stand still. Use it on its own."
            )
    return dict(algorithms)


def needs_closure(cls: type[Optimizer]) -> bool:
    """Whether a class cannot step without a closure."""
    closure = signature(cls.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def _as_groups(groups: object) -> list[Group]:
    """Copies of the groups, each with a list of its parameters."""
    if not is_listing(groups) or isinstance(groups, Mapping):
        raise ConfigError(f"groups must be a list of parameter groups, got {shown(groups)}.")
    copies = []
    for position, group in enumerate(groups):
        if not isinstance(group, Mapping) or "params" not in group:
            raise ConfigError(
                f"groups[{position}] must be a dict with 'params' and 'algorithm', got "
                f"{shown(group, typed=True)}."
            )
        params = group["params"]
        copies.append({**group, "params": [params] if isinstance(params, Tensor) else list(params)})
    if not copies:
        raise ConfigError("Mixed needs at least one parameter group.")
    return copies


def _build(name: str, factory: Factory, groups: Sequence[Group]) -> tuple[Optimizer, list[Group]]:
    """The optimizer of an algorithm, and its groups in their order."""
    try:
        member = factory([{k: v for k, v in g.items() if k != ALGORITHM} for g in groups])
    except Exception as error:
        raise ConfigError(
            f"algorithms[{name!r}] cannot be built on its {plural(len(groups), 'group')}: "
            f"{type(error).__name__}: {error}",
            algorithm=name,
        ) from error
    if not isinstance(member, Optimizer):
        raise ConfigError(
            f"algorithms[{name!r}] built {shown(member, typed=True)}, which is no "
            "torch.optim.Optimizer."
        )
    built = list(member.param_groups)
    if list(map(_tensors, built)) != list(map(_tensors, groups)):
        raise ConfigError(
            f"algorithms[{name!r}]: {type(member).__name__} puts its parameters into other groups "
            "than it is given, so it cannot be one of several algorithms."
        )
    for group in built:
        group[ALGORITHM] = name
    return member, built


def _tensors(group: Mapping[str, Any]) -> set[int]:
    """The tensors of a group, by identity."""
    return {id(item[1] if isinstance(item, tuple) else item) for item in group["params"]}


def common_defaults(members: Iterable[Optimizer]) -> dict[str, Any]:
    """The settings that all optimizers have, as the first has them."""
    first, *others = [member.defaults for member in members]
    return {key: value for key, value in first.items() if all(key in d for d in others)}


def _undecorated_step(member: Optimizer) -> Callable[..., Any]:
    """The step of a class without torch's hooks, which run around the whole."""
    step = type(member).step
    return getattr(step, "__wrapped__", step) if hasattr(step, "hooked") else step
