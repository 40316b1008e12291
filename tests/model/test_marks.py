"""nnlr._model.marks: the notes on a user's modules are plain data that travels with them."""

import copy
import pickle

import pytest
import torch
from torch import nn

from nnlr._model import marks


def lock(layer, name, locked=True):
    marks.set_locked(getattr(layer, name), layer, name, locked=locked)


def locked(layer, name):
    return marks.is_locked(getattr(layer, name), layer, name)


def noted():
    layer = nn.Linear(2, 2)
    marks.declare(layer, "weight", {"lr_mult": 0.5})
    lock(layer, "bias")
    marks.set_init_applied(layer)
    return layer


class TestNotes:
    def test_a_module_without_notes_says_nothing(self):
        """Nothing declared, nothing locked, nothing scaled."""
        layer = nn.Linear(2, 2)
        assert marks.declared(layer) == {}
        assert not locked(layer, "weight")
        assert not marks.init_applied(layer)

    def test_a_declaration_adds_to_what_was_declared_before(self):
        """The last value of a multiplier counts, the others stay."""
        layer = noted()
        marks.declare(layer, "weight", {"wd_mult": 0.0})
        marks.declare(layer, "weight", {"lr_mult": 2.0})
        marks.declare(layer, "bias", {"lr_mult": 3.0})
        expected = {
            "weight": {"lr_mult": 2.0, "wd_mult": 0.0},
            "bias": {"lr_mult": 3.0},
        }
        assert expected == marks.declared(layer)

    def test_locks_are_kept_by_name_and_leave_no_trace_when_undone(self):
        """An unlocked module looks as it did before."""
        layer = nn.Linear(2, 2)
        before = set(vars(layer))
        lock(layer, "weight")
        lock(layer, "bias")
        lock(layer, "weight", locked=False)
        assert [False, True] == [locked(layer, name) for name in ("weight", "bias")]
        lock(layer, "bias", locked=False)
        lock(layer, "bias", locked=False)
        assert before == set(vars(layer))
        assert [{}, {}] == [vars(layer.weight), vars(layer.bias)]

    def test_a_bare_tensor_can_be_locked(self):
        """Where there is no module, the tensor itself carries the note."""
        tensor = torch.ones(2, requires_grad=True)
        marks.set_locked(tensor, None, "a", locked=True)
        assert marks.is_locked(tensor, None, "a")

    def test_either_note_is_enough(self):
        """The tensor's own, whoever holds it now, or the module's, where it was replaced."""
        layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
        lock(layer, "weight")
        other.weight = layer.weight
        layer.weight = nn.Parameter(torch.ones(2, 2))
        assert [True, True] == [locked(each, "weight") for each in (layer, other)]


class TestTravel:
    @pytest.mark.parametrize(
        "journey",
        [
            copy.deepcopy,
            lambda m: pickle.loads(pickle.dumps(m)),
            lambda m: m.to(torch.float64),
        ],
        ids=["deepcopy", "pickle", "to"],
    )
    def test_notes_survive(self, journey):
        """Copies, saved models and moved models keep what was said of them."""
        layer = journey(noted())
        assert marks.declared(layer) == {"weight": {"lr_mult": 0.5}}
        assert locked(layer, "bias")
        assert marks.init_applied(layer)

    def test_notes_stay_out_of_the_state_dict(self):
        """A checkpoint holds tensors."""
        assert list(noted().state_dict()) == ["weight", "bias"]

    def test_a_shallow_copy_does_not_share_what_is_noted_later(self):
        """Notes are replaced, never changed in place."""
        layer = noted()
        twin = copy.copy(layer)
        marks.declare(twin, "weight", {"lr_mult": 9.0})
        lock(twin, "weight")
        assert marks.declared(layer) == {"weight": {"lr_mult": 0.5}}
        assert [["bias"], ["bias", "weight"]] == [
            vars(each)["_nnlr_locked"] for each in (layer, twin)
        ]

    def test_a_compiled_module_does_not_show_the_notes_of_the_one_inside(self):
        """OptimizedModule forwards attributes; a note would count twice."""
        assert marks.declared(torch.compile(noted(), backend="eager")) == {}
