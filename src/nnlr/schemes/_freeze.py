"""Freezing: parameters that stay as they are, without gradient and optimizer state.

    lr_mult(p) = 0 if p is chosen else 1

A layer is frozen by a selector, or by its depth: ``freeze(below=k)`` is fastai's
``freeze_to(k)``. What makes it more than a rate of 0 is what a plan does with a static 0: it
locks the parameter (see ``Plan.lock``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from nnlr._arguments import Written, as_call, flag
from nnlr._declare.factor import Factor
from nnlr._declare.rules import Rule
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note
from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Indices, Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural, shown
from nnlr.errors import NnlrError, PatternError
from nnlr.schemes._layer_groups import AnyGroups, Groups, as_groups

_FROZEN = Factor(lr_mult=0, why="frozen")


def freeze(
    selector: Selector | str | None = None,
    *,
    below: int | None = None,
    groups: AnyGroups = "auto",
    keep: Selector | str | None = None,
    optional: bool = False,
) -> Scheme:
    """Freeze parameters: ``lr_mult = 0``, hence no gradient and no optimizer state.

    Pass ``selector`` or ``below``.

    Args:
        selector: What to freeze: a pattern over whole names or a selector.
            ``~nnlr.glob("head.*")`` is all but the head.
        below: Freeze every group before this one, counted as Python does: 3 freezes the
            groups 0, 1 and 2, -1 all but the last.
        groups: The groups that ``below`` counts, as in :func:`discriminative`; by default
            every layer is one. What is outside every tower stays trained.
        keep: What stays trained of it all the same. ``nnlr.role("norm")`` keeps
            normalisation layers, as fastai's ``train_bn``.
        optional: Whether there may be nothing to freeze, or nothing to keep of it.

    Raises:
        NnlrError: If arguments are missing or contradict each other; at resolve, if there
            are no such groups.
        PatternError: At resolve, if nothing is left to freeze, or to keep, and that is not
            optional.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1))
        >>> scheme = freeze(~nnlr.glob("2.*"), keep=nnlr.role("norm"))
        >>> plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
        >>> [row.name for row in plan if row.locked]
        ['0.weight', '0.bias']
        >>> plan = nnlr.resolve(
        ...     net, freeze(below=-1, groups=["0.*", "1.*", "2.*"]), lr=0.1, weight_decay=0
        ... )
        >>> [row.name for row in plan if row.trainable]
        ['2.weight', '2.bias']
    """
    if (selector is None) == (below is None):
        raise NnlrError(
            "freeze needs a selector, such as freeze('backbone.*'), or below=, such as "
            f"freeze(below=-1); got {'neither' if selector is None else 'both'}."
        )
    if below is None:
        if not isinstance(groups, str) or groups != "auto":
            raise NnlrError(
                f"groups={shown(groups)} is what below= counts: pass freeze(below=..., "
                "groups=...), or leave it out."
            )
        if isinstance(selector, Integral) and not isinstance(selector, bool):
            raise NnlrError(
                f"freeze({shown(selector)}) is no selector. To freeze by depth: "
                f"freeze(below={shown(selector)})."
            )
        chosen = as_selector(selector, "freeze")
    else:
        if not isinstance(below, Integral) or isinstance(below, bool) or not below:
            raise NnlrError(
                "below must be a whole number other than 0 (1 freezes the first group, -1 all "
                f"but the last), got {shown(below, typed=True)}.",
                value=below,
            )
        chosen = _Below(int(below), as_groups(groups))
    keep = None if keep is None else as_selector(keep, "keep")
    return Freeze(chosen, _FROZEN, flag(optional, "optional"), keep)


@dataclass(frozen=True, repr=False, eq=False)
class Freeze(Rule):
    """A rule that freezes; made by :func:`freeze`. Fit for ``nnlr.rules([...])`` too."""

    word = "freeze"

    keep: Selector | None

    def matches(self, model: ModelInfo, what: str) -> Indices:
        """Positions of what it freezes, which must be some unless it is optional."""
        chosen = super().matches(model, what)
        if self.keep is None:
            return chosen
        if self.optional:
            return chosen - self.keep.matches(model)
        protected = must_match(self.keep, model, f"keep={self.keep!r}")
        frozen = chosen - protected
        if frozen and frozen != chosen:
            return frozen
        ending = "has no effect: it matches none of them"
        if not frozen:
            ending = "leaves nothing to freeze: it keeps all of them"
        names = [model.params[index].name for index in sorted(chosen)]
        raise PatternError(
            f"{self!r} chooses {listed(names)} of {model.label}, and keep={self.keep!r} "
            f"{ending}.\n  Fix one of the two, or pass optional=True.",
            pattern=repr(self.keep),
            nearest=[],
        )

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Those of the groups; tied tensors of which only one name was chosen are frozen whole."""
        others = list(super().findings(model))
        if isinstance(self.selector, _Below):
            others += self.selector.groups.findings(model)
        names: list[str] = []
        for index in sorted(self.matches(model, self.word)):
            if model.params[index].aliases:
                names += sorted({*model.params[index].names} - {*self.via(model, index)})
        if not names:
            return others
        return [
            *others,
            note(
                "tied-frozen",
                names,
                f"{self!r} does not speak of these, but they are tied to what it freezes: one "
                "tensor, which stays as it is",
                "Untie them if they should learn.",
            ),
        ]

    def written_as(self) -> Written:
        """The call of :func:`freeze`."""
        if not isinstance(self.selector, _Below):
            return as_call(freeze, self.selector, keep=self.keep, optional=self.optional)
        chosen: dict[str, object] = {"below": self.selector.count}
        if repr(self.selector.groups) != "auto()":
            chosen["groups"] = self.selector.groups
        return as_call(freeze, **chosen, keep=self.keep, optional=self.optional)


@dataclass(frozen=True, repr=False, eq=False)
class _Below(Selector):
    """The groups before one of them."""

    count: int
    groups: Groups

    def matches(self, model: ModelInfo) -> Indices:
        places = self.groups.of(model)
        for last in sorted({place.last for place in places if place and place.inside}):
            if abs(self.count) > last:
                range_ = f"1 to {last}, or -1 to {-last}" if last else "a selector instead"
                raise NnlrError(
                    f"below={self.count}, but there {'are' if last else 'is'} "
                    f"{plural(last + 1, 'group')} in {model.label} (groups="
                    f"{self.groups!r}): pass {range_}.",
                    below=self.count,
                    groups=last + 1,
                )
        return frozenset(
            index
            for index, place in enumerate(places)
            if place
            and place.inside
            and place.position < self.count + (place.last + 1 if self.count < 0 else 0)
        )

    def reach(self, model: ModelInfo, index: int) -> frozenset[str]:
        # A tied tensor has its place in depth by its first name.
        return frozenset((model.params[index].name,))

    def __repr__(self) -> str:
        return f"below={self.count}"
