"""Published orders of phases.

``ulmfit``: Howard and Ruder 2018, arXiv 1801.06146, section 3.3: the last group of layers first,
one more each epoch, all that are open go on.
``lp_ft``: Kumar et al. 2022, arXiv 2202.10054: the head, then everything. The rate of the second
phase is tuned there; 0.1 is a customary start.
``fine_tune``: fastai's ``Learner.fine_tune``: the last group, then everything at half the rate;
times ``discriminative(lr_mults=slice(0.01, 1))`` it is the whole of its rates.
``finetuning_scheduler``: the schedule that finetuning-scheduler 2.14 generates: two parameters a
phase, from the last to the first, each at a rate of 1e-5 once the metric has stalled.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal, get_args

from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Indices
from nnlr.errors import NnlrError
from nnlr.schemes._layer_groups import GroupPlace
from nnlr.schemes._phases.phase import Checked

Preset = Literal["ulmfit", "lp_ft", "fine_tune", "finetuning_scheduler"]

PRESETS: Final[tuple[Preset, ...]] = get_args(Preset)

# base_max_lr of FinetuningScheduler, and the patience of Lightning's EarlyStopping.
_LR: Final = 1e-5
PATIENCE: Final = 3


def phases_of(
    preset: Preset,
    model: ModelInfo,
    places: Sequence[GroupPlace | None],
    epochs: int | None,
    patience: int | None,
) -> list[tuple[Indices, Checked]]:
    """Return what each phase of a preset trains, and its settings."""
    if preset == "finetuning_scheduler":
        order = range(len(model.params))[::-1]
        parts = [frozenset(order[at : at + 2]) for at in range(0, len(order), 2)]
    else:
        parts = _by_groups(preset, model, places)
    phases = [(parts[0], Checked())]
    for position, indices in enumerate(parts[1:], 1):
        epoch = None if epochs is None else epochs * position
        phases.append((indices, replace(_LATER[preset], epoch=epoch, patience=patience)))
    return phases


# What later phases say beside when they begin.
_LATER: Final[dict[Preset, Checked]] = {
    "ulmfit": Checked(),
    "lp_ft": Checked(lr_mult=0.1, earlier=0.1),
    "fine_tune": Checked(lr_mult=0.5, earlier=0.5),
    "finetuning_scheduler": Checked(lr=_LR),
}


def _by_groups(
    preset: Preset, model: ModelInfo, places: Sequence[GroupPlace | None]
) -> list[Indices]:
    """Return the parameters of each phase by how far their group is from the last."""
    below = {index: place.last - place.position for index, place in enumerate(places) if place}
    deepest = max(below.values(), default=0)
    if not deepest:
        raise NnlrError(
            f"unfreeze({preset!r}) needs two groups of layers, and {model.label} has one: pass "
            "groups=['body.*', 'head.*'], from the input to the head, or write the phases."
        )
    if preset == "ulmfit":
        distances = [{distance} for distance in range(deepest + 1)]
    else:
        distances = [{0}, set(range(1, deepest + 1))]
    phases = [
        frozenset(index for index, distance in below.items() if distance in chosen)
        for chosen in distances
    ]
    return [phase for phase in phases if phase]
