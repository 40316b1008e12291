"""A ``paramwise_cfg``, read key by key for the constructor that it is meant for."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nnlr._arguments import Written, flag, number, options, whole
from nnlr._declare.factor import Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import warning
from nnlr._text import listed, shown
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import MULTIPLIERS, Watch, key_hint, mapping, optional

# Of a custom key: MMEngine's name -> that of Factor.
ITEM_KEYS: Final = {
    "lr_mult": "lr_mult",
    "decay_mult": "wd_mult",
    "lr": "lr",
    "weight_decay": "weight_decay",
}

# Of the inheritance of configurations: MMEngine drops the one and ignores the other.
_INHERITANCE: Final = ("_delete_", "_delete")


@dataclass(frozen=True)
class Constructor:
    """A class that builds optimizers from an ``optim_wrapper``."""

    reads: tuple[str, ...]  # the keys of a paramwise_cfg
    make: Callable[["Settings", Written], Scheme]
    open: bool = False  # whether custom keys may stand in the paramwise_cfg itself


class Settings:
    """The keys of a ``paramwise_cfg``; what its constructor does not read is refused or noted.

    Args:
        name: The constructor's name.
        values: The ``paramwise_cfg``.
        constructor: Which keys it reads.
        watch: Refuses or notes.
        owners: The name of a constructor for each key that any of them reads.
        inherited: Keys of the default constructor, which base files hand on to others.
    """

    def __init__(
        self,
        name: str,
        values: Mapping[str, Any],
        constructor: Constructor,
        watch: Watch,
        *,
        owners: Mapping[str, str],
        inherited: Collection[str],
    ) -> None:
        self.name = name
        self.values = values
        self.watch = watch
        for key in values:
            if key in constructor.reads or key in _INHERITANCE:
                continue
            if constructor.open and key not in owners:
                continue
            if key not in owners:
                cause = f"paramwise_cfg has the unknown key {key!r}"
                watch.refuse("unknown-key", key, cause, key_hint(key, constructor.reads))
            elif key not in inherited:
                cause = f"paramwise_cfg has {key!r}, which is for another constructor"
                fix = (
                    f"Pass the whole optim_wrapper if it names {owners[key]}, or take the key out "
                    "and multiply with nnlr.layer_decay."
                )
                watch.refuse("unknown-key", key, cause, fix)
            else:  # inherited from a base file, as MMDetection's own configurations have it
                cause = f"{name} does not read {key!r} of paramwise_cfg"
                fix = "Take it out, or multiply with the nnlr scheme that does it."
                watch.noted.append(warning("unread-key", (), cause, fix))

    def number(self, key: str, default: float | None = None) -> float:
        """A number >= 0, or the default; without one the key is needed."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        return number(self._needed(key), key)

    def count(self, key: str) -> int:
        """A whole number >= 1, which is needed."""
        return whole(self._needed(key), key, minimum=1)

    def counts(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers >= 1, which is needed."""
        value = self._needed(key)
        if not isinstance(value, list | tuple) or not value:
            raise ConfigError(
                f"{key} must be a list of whole numbers, got {shown(value)}.", key=key
            )
        return tuple(whole(one, f"each of {key}", minimum=1) for one in value)

    def flag(self, key: str) -> bool:
        """A switch, off by default."""
        return flag(self.values.get(key, False), key)

    def _needed(self, key: str) -> object:
        """The value of a key, which may not lack."""
        if self.values.get(key) is None:
            raise ConfigError(
                f"{self.name} needs {key!r} in paramwise_cfg, which has "
                f"{listed(self.values) or 'nothing'}.",
                key=key,
            )
        return self.values[key]

    def rules(self, names: tuple[str, ...]) -> dict[str, float]:
        """The numbers of those rules that are set."""
        return {key: self.number(key) for key in names if self.values.get(key) is not None}

    def custom_keys(self, *, unread: tuple[str, ...] = (), flat: bool = False) -> dict[str, Factor]:
        """The factor of each custom key, the longest key first.

        ``unread`` are settings in the items that the constructor passes over; with ``flat``
        the keys may stand in the ``paramwise_cfg`` itself.
        """
        custom = optional(self.values.get("custom_keys"), "custom_keys")
        if flat and not custom:
            others = (key for key in self.values if key not in {*_INHERITANCE, "custom_keys"})
            custom = {key: self.values[key] for key in others}
        longest_first = sorted(sorted(custom), key=len, reverse=True)
        return {key: self._custom(key, custom[key], unread) for key in longest_first}

    def _custom(self, key: str, item: object, unread: tuple[str, ...]) -> Factor:
        """The factor that a custom key gives."""
        what = f"custom key {key!r}"
        settings = mapping(item, what)
        # A warning, as two of MMSegmentation's own configurations have it.
        ignored = {name for name in settings if name in MULTIPLIERS and name not in ITEM_KEYS}
        for name in sorted(ignored):
            cause = f"{what} has the key {name!r}, which no optimizer reads"
            meant = "lr_mult" if name == "lr_scale" else "decay_mult"
            fix = f"Write {meant!r} if that is meant."
            self.watch.noted.append(warning("misspelt-key", (), cause, fix))
        others = [name for name in settings if name not in ignored]
        ignored |= {*self.watch.misspelt_keys(others, ITEM_KEYS, what)}
        for name in filter(settings.__contains__, unread):
            cause = f"{what} has {name!r}, which {self.name} passes over"
            fix = f"Take it out and multiply with nnlr.rule({'*' + key + '*'!r}, {name}=...)."
            self.watch.refuse("unread-key", name, cause, fix)
            ignored.add(name)
        for absolute, relative in (("lr", "lr_mult"), ("weight_decay", "decay_mult")):
            if absolute in settings and relative in settings and relative not in ignored:
                cause = f"{what} has {relative!r} beside {absolute!r}, which overrides it"
                self.watch.refuse("overridden-key", relative, cause, f"Drop {relative!r}.")
                ignored.add(relative)
        settings = {name: value for name, value in settings.items() if name not in ignored}
        rates: dict[str, Any] = {
            argument: number(settings.pop(name), f"{name} of {what}")
            for name, argument in ITEM_KEYS.items()
            if name in settings
        }
        return Factor(**rates, options=options(settings, what), why=what)
