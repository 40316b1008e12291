"""nnlr._model.names: canonical names, whatever a model is wrapped in."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import nnlr
from nnlr._model.names import inside_ddp, nodes, resolve_name, slots, unwrap
from nnlr.errors import NnlrError
from tests import zoo

TERMINATES = [case for case in zoo.ZOO if case is not zoo.inside_itself]


def names_of(model):
    return [slot.name for slot in slots(model)]


class TestSlots:
    @pytest.mark.parametrize("case", TERMINATES)
    def test_raw_names_and_order_are_those_of_named_parameters(self, case):
        """Every place, in the very order of named_parameters(remove_duplicate=False)."""
        model = case()
        expected = [(name, id(p)) for name, p in model.named_parameters(remove_duplicate=False)]
        assert expected == [(slot.raw(), id(slot.tensor)) for slot in slots(model)]

    @pytest.mark.parametrize("case", zoo.ZOO)
    def test_first_places_are_in_the_order_of_parameters(self, case):
        """plan.vectors() relies on it."""
        model = case()
        expected = [id(p) for p in model.parameters()]
        found = dict.fromkeys(id(slot.tensor) for slot in slots(model))
        assert expected == list(found)

    @pytest.mark.parametrize("case", zoo.ZOO)
    def test_one_name_never_means_two_tensors(self, case):
        """A name is enough to find a tensor."""
        holders = {}
        for slot in slots(case()):
            assert holders.setdefault(slot.name, slot.tensor) is slot.tensor

    @pytest.mark.parametrize("case", zoo.ZOO)
    def test_every_raw_name_resolves_to_its_canonical_name(self, case):
        """What named_parameters() prints can be pasted into explain()."""
        found = slots(case())
        known = {slot.name for slot in found}
        expected = [slot.name for slot in found]
        assert expected == [resolve_name(slot.raw(), known) for slot in found]

    def test_a_module_inside_itself_is_visited_once(self):
        """named_parameters(remove_duplicate=False) would not end."""
        assert names_of(zoo.inside_itself()) == ["fc.weight", "fc.bias"]

    def test_shared_modules_are_met_at_every_place(self):
        """2**6 places of one layer with two parameters."""
        assert len(slots(zoo.deeply_shared())) == 2 * 2**6

    def test_parametrized_tensors_are_called_after_what_they_compute(self):
        """fc.parametrizations.weight.original is fc.weight."""
        expected = ["fc.bias", "fc.weight"]
        assert expected == names_of(zoo.spectral_norm())
        assert expected == names_of(zoo.orthogonal())

    def test_the_two_parts_of_a_weight_norm_keep_their_names(self):
        """They cannot both be fc.weight."""
        originals = [f"fc.parametrizations.weight.original{i}" for i in range(2)]
        assert ["fc.bias", *originals] == names_of(zoo.weight_norm())

    def test_the_two_parts_of_a_weight_norm_keep_their_names_without_wrappers(self):
        """Names that collide get back their parts, and no wrapper."""
        wrapped = AveragedModel(zoo.weight_norm())
        assert names_of(zoo.weight_norm()) == names_of(wrapped)

    def test_a_parametrization_seen_from_inside_has_no_owner(self):
        """The list alone does not know whose weight it computes."""
        inner = zoo.spectral_norm().fc.parametrizations
        assert names_of(inner) == ["weight.original"]
        assert names_of(inner.weight) == ["original"]

    def test_names_that_collide_through_a_wrapper_stay_raw(self):
        """An attribute beside the wrapped model may have the name of one inside it."""
        wrapped = AveragedModel(nn.Sequential(nn.Linear(2, 2)))
        wrapped.add_module("0", nn.Linear(2, 2))
        expected = [name for name, _ in wrapped.named_parameters()]
        assert expected == names_of(wrapped)

    def test_a_users_own_module_attribute_keeps_its_name(self):
        """Segments go only where the owner is the wrapper."""
        expected = [name for name, _ in zoo.user_module_attribute().named_parameters()]
        assert expected == names_of(zoo.user_module_attribute())

    def test_nodes_know_their_raw_path(self):
        """As named_modules spells it."""
        model = AveragedModel(zoo.plain())
        expected = [name for name, _ in model.named_modules()]
        assert expected == [node.raw() for node in nodes(model)]


class TestBareTensors:
    def test_mappings_and_pairs_are_taken_as_they_are(self):
        """A mapping, a generator of pairs and a list of pairs say the same."""
        model = zoo.plain()
        expected = [name for name, _ in model.named_parameters()]
        assert expected == names_of(dict(model.named_parameters()))
        assert expected == names_of(model.named_parameters())
        assert expected == names_of(list(model.named_parameters()))

    @pytest.mark.parametrize(
        "prefix",
        [
            "module.",
            "_orig_mod.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "_fsdp_wrapped_module.",
            "_checkpoint_wrapped_module.",
            "base_model.model.",
            "module.base_model.model.",
        ],
    )
    def test_wrappers_that_all_names_begin_with_are_dropped(self, prefix):
        """A state dict of a wrapped model speaks of the same parameters."""
        pairs = {
            f"{prefix}fc.weight": torch.ones(2, 2),
            f"{prefix}fc.bias": torch.ones(2),
        }
        found = slots(pairs)
        assert [slot.name for slot in found] == ["fc.weight", "fc.bias"]
        assert [slot.raw() for slot in found] == ["fc.weight", "fc.bias"]
        assert [slot.key for slot in found] == ["weight", "bias"]

    @pytest.mark.parametrize("prefix", ["model.", "base_model.", "my.module."])
    def test_what_may_be_a_part_of_the_model_stays(self, prefix):
        """Half of all models have a part called `model`; the module keeps it too."""
        name = f"{prefix}fc.weight"
        assert names_of({name: torch.ones(2)}) == [name]

    def test_a_prefix_that_not_all_names_have_stays(self):
        """Then it is a part of the model."""
        pairs = {"module.a": torch.ones(2), "b": torch.ones(2)}
        assert names_of(pairs) == ["module.a", "b"]

    def test_no_tensors_are_no_slots(self):
        """An empty mapping is an empty model."""
        assert slots({}) == []

    def test_stacked_and_functional_parameters_are_accepted(self):
        """functional_call and stack_module_state work on dicts of plain tensors."""
        model = zoo.plain()
        stacked, _ = torch.func.stack_module_state([zoo.plain(), zoo.plain()])
        expected = names_of(model)
        assert expected == names_of(stacked)
        assert slots(stacked)[0].tensor.shape == (2, 10, 4)

    def test_a_name_given_twice_is_refused(self):
        """Two tensors of one name cannot be told apart."""
        pairs = [("a", torch.ones(1)), ("a", torch.ones(2))]
        with pytest.raises(NnlrError, match=r"'a': each name may be given once") as error:
            slots(pairs)
        assert error.value.names == ["a"]

    @pytest.mark.parametrize("source", [3, "model", torch.ones(2), None])
    def test_what_is_no_model_is_refused(self, source):
        """The message says what is wanted."""
        with pytest.raises(NnlrError, match=r"model must be a torch.nn.Module, a mapping"):
            slots(source)

    @pytest.mark.parametrize(
        "pairs", [["ab"], [("a", 1)], [(1, torch.ones(1))], [("a", torch.ones(1), 2)]]
    )
    def test_what_is_no_pair_of_name_and_tensor_is_refused(self, pairs):
        """The message names the type found."""
        with pytest.raises(NnlrError, match=r"; it holds ."):
            slots(pairs)

    def test_plain_parameters_get_a_hint(self):
        """model.parameters() is what one tries first."""
        with pytest.raises(NnlrError, match=r"pass model.named_parameters\(\)"):
            slots(zoo.plain().parameters())


class TestUnwrap:
    def test_wrappers_around_the_whole_are_taken_off(self):
        """However many there are."""
        model = zoo.plain()
        wrapped = AveragedModel(nn.DataParallel(model))
        assert unwrap(wrapped).__class__ is zoo.Net
        assert unwrap(model) is model

    def test_an_empty_wrapper_is_the_innermost(self):
        """A wrapper whose model was taken out holds None."""
        wrapped = nn.DataParallel(zoo.plain())
        wrapped.module = None
        assert unwrap(wrapped) is wrapped

    def test_no_other_wrapper_counts_as_ddp(self):
        """Only DDP has decided whose gradients to exchange."""
        assert not inside_ddp(AveragedModel(zoo.plain()))


class TestResolveName:
    @pytest.mark.parametrize(
        ("raw", "known"),
        [
            ("fc.weight", "fc.weight"),
            ("module.fc.weight", "fc.weight"),
            ("module._orig_mod.fc.weight", "fc.weight"),
            ("blocks.0._checkpoint_wrapped_module.fc.weight", "blocks.0.fc.weight"),
            ("_fsdp_wrapped_module.a._fsdp_wrapped_module.b", "a.b"),
            ("base_model.model.fc.base_layer.weight", "fc.weight"),
            ("base_model.model.model.fc.weight", "model.fc.weight"),
            ("base_model.model.fc.weight", "model.fc.weight"),
            ("base_model.fc.modules_to_save.default.weight", "fc.weight"),
            ("fc.parametrizations.weight.original", "fc.weight"),
            ("module.block.module.weight", "block.module.weight"),
            ("module.module.weight", "module.weight"),
        ],
    )
    def test_a_raw_name_means_the_known_name_without_wrappers(self, raw, known):
        """Wherever the wrappers stand."""
        assert resolve_name(raw, {known, "other"}) == known

    @pytest.mark.parametrize("name", ["fc.wieght", "fc", "x.fc.weight", "model.fc.weight"])
    def test_anything_else_means_nothing(self, name):
        """A part of the model's own is never left out."""
        assert resolve_name(name, {"fc.weight"}) is None

    def test_of_several_that_fit_the_longest_counts(self):
        """The least is left out."""
        known = {"module.weight", "weight"}
        assert resolve_name("module.module.weight", known) == "module.weight"


def test_weight_norm_inside_a_wrapper_resolves():
    """The raw name of a wrapped original is found although it is no single weight."""
    model = AveragedModel(nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))))
    known = {slot.name for slot in slots(model)}
    raw = "module.0.parametrizations.weight.original1"
    assert resolve_name(raw, known) == "0.parametrizations.weight.original1"


class TestOddModels:
    def test_a_newline_in_a_name(self):
        """Torch allows it; the plan is made, printed, explained and written all the same."""
        model = nn.Linear(2, 2)
        model.register_parameter("a\nb", nn.Parameter(torch.zeros(2)))
        plan = nnlr.resolve(model, nnlr.rule("a?b", lr_mult=2), lr=0.1, weight_decay=0)
        assert plan["a\nb"].role == "vector"
        for text in (str(plan), plan.table(full=True), plan.explain("a\nb")):
            assert "a\\nb" in text
        assert plan == nnlr.Plan.from_json(plan.to_json())

    def test_a_tensor_of_many_axes(self):
        """Torch has up to 64; beyond 10 of them no row of the tables fitted."""
        model = nn.ParameterDict({"core": torch.zeros([2] * 12)})
        assert nnlr.resolve(model, lr=0.1, weight_decay=0)["core"].role == "matrix"
        bare = {"core": torch.zeros([2] * 12)}
        assert nnlr.resolve(bare, lr=0.1, weight_decay=0)["core"].role == "matrix"

    @pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
    @pytest.mark.parametrize(
        "make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.ones(1, 2))]
    )
    def test_scripted_and_traced_models(self, make):
        """They have the rows, roles and rates of the model that they were made of, and train."""

        class Gained(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
                self.gain = nn.Parameter(torch.ones(2))

            def forward(self, x):
                return self.body(x) * self.gain

        scheme = nnlr.no_weight_decay() * nnlr.rule("body.0.*", lr_mult=0.1)
        model = Gained()
        made = make(model)
        plain, plan = (nnlr.resolve(m, scheme, lr=0.1, weight_decay=0.1) for m in (model, made))
        described = [(row.name, row.role, row.lr, row.weight_decay) for row in plain]
        assert described == [(row.name, row.role, row.lr, row.weight_decay) for row in plan]
        before = made.gain.clone()
        optimizer = plan.optimizer(torch.optim.SGD)
        made(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        assert not torch.equal(before, made.gain)
