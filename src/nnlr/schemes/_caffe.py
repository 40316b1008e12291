"""Caffe's convention: biases learn twice as fast and do not decay.

    (lr_mult, wd_mult) = (1, 1) for weights, (2, 0) for biases; 10 times the lr for a new head

Jia et al. 2014 (arXiv 1408.5093). Caffe gives two such numbers to each blob of a layer,
``lr_mult`` and ``decay_mult``; these values are those of its reference models.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from nnlr._arguments import Call, number
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Indices, Selector, as_selector
from nnlr._select.selectors import Role
from nnlr._select.suggestions import must_match
from nnlr.errors import ConfigError

_BIASES = Role(("bias",))

# That of Caffe's fine-tuning example.
HEAD_MULT = 10.0


def caffe(
    *,
    bias_lr_mult: float = 2.0,
    bias_wd_mult: float = 0.0,
    head: Selector | str | None = None,
    head_mult: float = HEAD_MULT,
    biases: Selector | str | None = None,
) -> Scheme:
    """Caffe's convention: ``lr_mult`` 1 and 2, ``wd_mult`` 1 and 0 for weights and biases.

    Reference: arXiv 1408.5093, and the models that came with Caffe.

    Args:
        bias_lr_mult: ``lr_mult`` of biases, >= 0.
        bias_wd_mult: ``wd_mult`` of biases, >= 0.
        head: A newly initialised output layer: a pattern or selector. Its weights get
            ``head_mult`` and its biases ``head_mult * bias_lr_mult``: 10 and 20, as in Caffe's
            fine-tuning example. ``nnlr.role("head")`` has an output layer's weights only, so
            name the layer: ``"fc8.*"``.
        head_mult: ``lr_mult`` of the head, >= 0; only with ``head``.
        biases: What counts as a bias. By default role ``bias``: what a linear map, a
            convolution, an attention or recurrent layer adds. The shift of a normalisation
            layer is none, as Caffe's models leave their Scale layers at 1 and 1.

    Raises:
        NnlrError: If a number is out of range.
        ConfigError: If ``head_mult`` is given and no ``head``.
        PatternError: At resolve, if ``head`` or ``biases`` match nothing.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> plan = nnlr.resolve(net, caffe(head="1.*"), lr=0.01, weight_decay=5e-4)
        >>> [(row.lr_mult, row.wd_mult) for row in plan]
        [(1.0, 1.0), (2.0, 0.0), (10.0, 1.0), (20.0, 0.0)]
    """
    head_mult = number(head_mult, "head_mult")
    if head is None and head_mult != HEAD_MULT:
        raise ConfigError(
            f"head_mult={head_mult:g} is for a head: say which layer that is, head='fc8.*'."
        )
    return Caffe(
        bias_lr_mult=number(bias_lr_mult, "bias_lr_mult"),
        bias_wd_mult=number(bias_wd_mult, "bias_wd_mult"),
        head=None if head is None else as_selector(head, "head"),
        head_mult=head_mult,
        biases=None if biases is None else as_selector(biases, "biases"),
    )


@dataclass(frozen=True, repr=False, eq=False)
class Caffe(Call, Scheme):
    """Caffe's convention; made by :func:`caffe`."""

    _: KW_ONLY
    bias_lr_mult: float = 2.0
    bias_wd_mult: float = 0.0
    head: Selector | None = None
    head_mult: float = HEAD_MULT
    biases: Selector | None = None

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """Weights, biases, and both once more for the head."""
        biases = _matches(self.biases, "biases", model)
        if self.biases is None:
            biases = _BIASES.matches(model)
        head = _matches(self.head, "head", model)
        lr, wd = self.bias_lr_mult, self.bias_wd_mult
        of_kind = {
            (False, False): NEUTRAL,
            (True, False): Factor(lr_mult=lr, wd_mult=wd, why="a bias"),
            (False, True): Factor(lr_mult=self.head_mult, why="the head"),
            (True, True): Factor(lr_mult=self.head_mult * lr, wd_mult=wd, why="a bias of the head"),
        }
        return [of_kind[i in biases, i in head] for i in range(len(model.params))]


def _matches(selector: Selector | None, what: str, model: ModelInfo) -> Indices:
    """What a selector of the user matches, which must be some; nothing without one."""
    if selector is None:
        return frozenset()
    return must_match(selector, model, f"{what}={selector!r}", may_be_optional=False)
