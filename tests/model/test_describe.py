"""nnlr._model.describe: a model as plain data, and every special parameter of the stack."""

import copy
import gc
from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic
from torch.nn.utils import parametrize

from nnlr._model import marks
from nnlr._model.describe import ParamInfo, check_role, describe, with_roles
from nnlr.errors import NnlrError
from tests import zoo
from tests.cost import calls


def params_of(model):
    return {param.name: param for param in describe(model).params}


def names_of(model):
    return [param.name for param in describe(model).params]


class TestEveryModel:
    @pytest.mark.parametrize("case", zoo.ZOO)
    def test_each_parameter_is_described_once_in_the_order_of_parameters(self, case):
        """One row for each tensor, with its shape and dtype."""
        model = case()
        expected = [(tuple(p.shape), p.numel(), p.dtype) for p in model.parameters()]
        assert expected == [(p.shape, p.numel, p.dtype) for p in describe(model).params]

    @pytest.mark.parametrize("case", zoo.ZOO)
    def test_the_first_place_gives_the_name_the_others_are_aliases(self, case):
        """Places and parameters line up."""
        info = describe(case())
        for param, places in zip(info.params, info.places, strict=True):
            assert param.name == places[0].name
            assert {place.name for place in places} == set(param.names)
            assert len(param.names) == len(set(param.names))

    @pytest.mark.parametrize("case", zoo.ZOO)
    def test_ancestors_lead_from_the_root_to_the_owner(self, case):
        """Their paths are prefixes of the owner's."""
        model = case()
        for param in describe(model).params:
            paths = [path for path, _ in param.ancestors]
            assert paths[0] == ""
            assert (param.owner, param.owner_type) == param.ancestors[-1]
            assert all(param.owner.startswith(path) for path in paths)
            assert param.ancestors[0][1] is type(model)

    @pytest.mark.parametrize("case", zoo.ZOO)
    def test_describing_changes_nothing_and_twice_gives_the_same(self, case):
        """Descriptions are plain data and compare equal."""
        model = case()
        before = [(id(p), p.requires_grad) for p in model.parameters()]
        assert describe(model).params == describe(model).params
        assert before == [(id(p), p.requires_grad) for p in model.parameters()]

    def test_spellings_hold_every_name_and_its_position(self):
        """Aliases come after all names."""
        names, positions = describe(zoo.tied()).spellings
        assert names[positions.index(0)] == "embed.weight"
        assert (names[-1], positions[-1]) == ("head.weight", 0)
        assert len(names) == len(positions) == 10


class TestSpecialParameters:
    def test_tied_tensors_are_one_parameter_with_aliases(self):
        """The first name counts; the role is the embedding's."""
        param = params_of(zoo.tied())["embed.weight"]
        assert ("head.weight",) == param.aliases
        assert param.role == "embedding"

    @pytest.mark.parametrize(
        ("kind", "head", "name", "alias"),
        [
            ("gpt2", "GPT2LMHeadModel", "transformer.wte.weight", "lm_head.weight"),
            (
                "t5",
                "T5ForConditionalGeneration",
                "shared.weight",
                "encoder.embed_tokens.weight",
            ),
        ],
    )
    def test_gpt2_and_t5_are_tied_under_the_first_name(self, kind, head, name, alias):
        """As named_parameters() gives it; a walk over modules would meet the alias again."""
        param = params_of(zoo.from_transformers(kind, head))[name]
        assert alias in param.aliases
        assert param.role == "embedding"

    def test_a_module_under_several_names_is_described_by_the_first(self):
        """Its owner is the first place."""
        weight = params_of(zoo.shared_module())["a.weight"]
        assert ("b.weight", "c.0.weight") == weight.aliases
        assert weight.owner == "a"

    def test_a_parameter_with_two_keys_that_mean_one_name_has_no_alias(self):
        """Saved copies and originals may be one tensor."""
        layer = nn.Linear(2, 2, bias=False)
        net = nn.DataParallel(nn.Sequential(layer))
        net.add_module("0", layer)
        assert names_of(net) == ["0.weight"]
        assert params_of(net)["0.weight"].aliases == ()

    @pytest.mark.parametrize("case", [zoo.spectral_norm, zoo.orthogonal])
    def test_a_parametrized_weight_belongs_to_its_layer(self, case):
        """Owner, class and leaf are those of the plain layer."""
        param = params_of(case())["fc.weight"]
        assert ("fc", nn.Linear, "weight") == (
            param.owner,
            param.owner_type,
            param.leaf,
        )
        assert (None, None) != (param.fan_in, param.fan_out)

    def test_both_parts_of_a_weight_norm_belong_to_the_weight(self):
        """The bias comes first, and both originals have the leaf `weight`."""
        params = describe(zoo.weight_norm()).params
        assert [param.leaf for param in params] == ["bias", "weight", "weight"]
        assert {param.owner for param in params} == {"fc"}

    def test_old_weight_norm_and_pruning_belong_to_the_weight_too(self):
        """weight_g, weight_v and weight_orig compute `weight`."""
        for case in (zoo.old_weight_norm, zoo.pruned):
            leaves = {param.leaf for param in describe(case()).params}
            assert leaves == {"weight", "bias"}

    def test_a_suffix_without_a_computed_tensor_is_part_of_the_name(self):
        """`weight_g` alone, or beside a parameter `weight`, is just called so."""
        layer = nn.Linear(2, 2, bias=False)
        layer.weight_g = nn.Parameter(torch.ones(2))
        layer.other_v = nn.Parameter(torch.ones(2))
        leaves = [param.leaf for param in describe(layer).params]
        assert leaves == ["weight", "weight_g", "other_v"]

    def test_a_property_of_the_user_is_not_run(self):
        """Only a plain tensor is what weight_norm leaves behind: no property, no buffer."""

        class Fused(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight_v = nn.Parameter(torch.ones(2))
                self.scale_g = nn.Parameter(torch.ones(2))
                self.register_buffer("scale", torch.ones(2))

            @property
            def weight(self):
                raise RuntimeError("too expensive to look at")

        leaves = [param.leaf for param in describe(Fused()).params]
        assert leaves == ["weight_v", "scale_g"]

    def test_removing_a_parametrization_gives_a_new_parameter_of_the_old_name(self):
        """Names hold while tensors change."""
        model = zoo.spectral_norm()
        parametrize.remove_parametrizations(model.fc, "weight")
        assert {"fc.weight", "fc.bias"} == set(names_of(model))
        assert params_of(model)["fc.weight"].owner_type is nn.Linear

    def test_lists_and_dicts_of_parameters_are_looked_through(self):
        """The owner is the module that holds the list."""
        params = params_of(zoo.bag())
        assert {param.owner for param in params.values()} == {""}
        assert {param.owner_type for param in params.values()} == {zoo.Bag}
        expected = ["scale", "weights", "weights", "bias", "gamma"]
        assert expected == [param.leaf for param in params.values()]

    def test_a_list_of_parameters_alone_owns_them_itself(self):
        """There is nobody to look through to."""
        (param,) = describe(nn.ParameterList([torch.ones(2)])).params
        assert ("0", nn.ParameterList) == (param.leaf, param.owner_type)

    def test_scalars_have_an_empty_shape_and_one_element(self):
        """0-dim parameters are normal."""
        scale = params_of(zoo.bag())["scale"]
        assert ((), 1, 0) == (scale.shape, scale.numel, scale.ndim)

    @pytest.mark.parametrize("lazy", [nn.LazyLinear(3), nn.LazyConv2d(3, 3)])
    def test_lazy_parameters_are_refused_until_they_have_a_shape(self, lazy):
        """Their ndim would say 1, which is wrong."""
        model = nn.Sequential(lazy)
        with pytest.raises(NnlrError, match=r"'0.weight' \(Lazy\w+\) has no shape yet") as error:
            describe(model)
        assert error.value.name == "0.weight"

    def test_lazy_parameters_without_a_module_are_refused_too(self):
        """The message says where they come from."""
        with pytest.raises(NnlrError, match=r"'weight' \(lazy module\) has no shape"):
            describe(dict(nn.LazyLinear(3).named_parameters()))

    def test_lazy_parameters_are_described_after_the_first_forward(self):
        """The parameter object is kept, the class changes."""
        model = nn.Sequential(nn.LazyLinear(3))
        model(torch.ones(1, 2))
        assert (3, 2) == params_of(model)["0.weight"].shape
        assert params_of(model)["0.weight"].owner_type is nn.Linear

    def test_complex_parameters_are_described(self):
        """Numel counts complex numbers."""
        weight = params_of(zoo.complex_linear())["weight"]
        assert (torch.complex64, 4) == (weight.dtype, weight.numel)

    def test_sparse_gradients_are_flagged(self):
        """Weight decay must know."""
        flags = {name: param.sparse for name, param in params_of(zoo.sparse_embedding()).items()}
        assert {"a.weight": True, "b.weight": True, "c.weight": False} == flags

    def test_int8_weights_are_frozen_rows(self):
        """Described as they are."""
        weight = params_of(zoo.int8())["0.weight"]
        assert (torch.int8, False) == (weight.dtype, weight.requires_grad)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
    def test_dynamically_quantised_layers_have_no_parameters(self):
        """They are skipped: there is nothing to train."""
        model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        quantised = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        assert names_of(quantised) == ["1.weight", "1.bias"]

    def test_meta_models_are_described_as_real_ones(self):
        """Resolve on meta, then load."""
        assert describe(zoo.plain()).params == describe(zoo.on_meta()).params

    def test_materialised_and_assigned_parameters_keep_their_descriptions(self):
        """to_empty and load_state_dict(assign=True) make new objects of the old names."""
        expected = describe(zoo.plain()).params
        emptied = zoo.on_meta().to_empty(device="cpu")
        assigned = zoo.on_meta()
        assigned.load_state_dict(zoo.plain().state_dict(), assign=True)
        assert expected == describe(emptied).params
        assert expected == describe(assigned).params

    def test_modules_and_tensors_that_are_no_parameters_are_invisible(self):
        """A plain list of modules, a plain tensor: named_parameters() misses them too."""
        net = zoo.plain()
        net.hidden = [nn.Linear(2, 2)]
        net.constant = torch.ones(2, requires_grad=True)
        assert names_of(zoo.plain()) == names_of(net)

    def test_functional_parameters_are_described_by_name_and_shape(self):
        """stack_module_state adds an axis; there is no module to ask."""
        stacked, _ = torch.func.stack_module_state([zoo.plain(), zoo.plain()])
        info = describe(stacked)
        assert info.module is None
        assert info.label == "tensors"
        assert (2, 10, 4) == info.params[0].shape
        assert {param.role_basis for param in info.params} == {"name"}

    def test_tied_bare_tensors_are_one_parameter(self):
        """As in a module."""
        tensor = torch.ones(3, 3)
        (param,) = describe({"a.weight": tensor, "b.weight": tensor}).params
        assert ("a.weight", "b.weight") == param.names


class TestTrained:
    def test_frozen_parameters_are_seen_as_frozen(self):
        """By the user's own requires_grad."""
        model = zoo.plain()
        model.embed.weight.requires_grad_(False)
        assert not params_of(model)["embed.weight"].requires_grad

    def test_what_nnlr_locked_counts_as_trained(self):
        """A later plan may train it again."""
        model = zoo.plain()
        model.embed.weight.requires_grad_(False)
        marks.set_locked(model.embed.weight, model.embed, "weight", locked=True)
        assert params_of(model)["embed.weight"].requires_grad

    def test_a_lock_on_any_place_of_a_tied_tensor_counts(self):
        """The lock may have been set by the other name."""
        model = zoo.tied()
        model.head.weight.requires_grad_(False)
        marks.set_locked(model.head.weight, model.head, "weight", locked=True)
        assert params_of(model)["embed.weight"].requires_grad

    def test_a_locked_bare_tensor_counts_as_trained(self):
        """Its note is on the tensor."""
        tensor = torch.ones(2)
        assert not params_of({"a": tensor})["a"].requires_grad
        marks.set_locked(tensor, None, "a", locked=True)
        assert params_of({"a": tensor})["a"].requires_grad


class TestFans:
    @pytest.mark.parametrize(
        ("case", "expected"),
        [
            (
                zoo.convolutions,
                {
                    "grouped.weight": (36, 18),
                    "depthwise.weight": (5, 5),
                    "transposed.weight": (36, 18),
                    "bilinear.weight": (6, 4),
                },
            ),
            (
                zoo.sparse_embedding,
                dict.fromkeys(["a.weight", "b.weight", "c.weight"], (5, 2)),
            ),
            (
                zoo.attention_of_three_widths,
                {
                    "q_proj_weight": (8, 8),
                    "k_proj_weight": (4, 8),
                    "v_proj_weight": (6, 8),
                    "out_proj.weight": (8, 8),
                },
            ),
            (zoo.gru_cell, {"weight_ih": (3, 12), "weight_hh": (4, 12)}),
            (zoo.weight_norm, {"fc.parametrizations.weight.original1": (3, 4)}),
            (lambda: zoo.StackedExperts(4, 3), {}),
            (zoo.Conv1D, {"weight": (3, 9)}),
            (zoo.Mixer, {"in_proj.weight": (3, 6)}),
        ],
    )
    def test_fans_count_inputs_and_outputs(self, case, expected):
        """Inputs that reach one output, outputs that one input reaches; else None."""
        fans = {
            param.name: (param.fan_in, param.fan_out)
            for param in describe(case()).params
            if param.fan_in is not None
        }
        assert expected == fans

    def test_fans_of_an_ungrouped_convolution_are_torchs(self):
        """_calculate_fan_in_and_fan_out, which knows no groups."""
        layer = nn.Conv2d(8, 6, (3, 5))
        expected = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        weight = params_of(layer)["weight"]
        assert expected == (weight.fan_in, weight.fan_out)


class TestModelInfo:
    def test_a_submodel_has_relative_names(self):
        """As if the part were the model."""
        info = describe(zoo.plain()).submodel("blocks.1")
        assert [p.name for p in info.params] == names_of(zoo.Block())
        assert info.label == "Block"

    def test_a_path_is_text(self):
        """The module itself is none."""
        with pytest.raises(NnlrError, match="path must be a string such as 'backbone', got 0"):
            describe(nn.Sequential(nn.Linear(1, 1))).submodel(0)

    def test_a_submodel_of_bare_tensors_is_cut_out_by_prefix(self):
        """Names are all there is."""
        info = describe(dict(zoo.plain().named_parameters())).submodel("blocks.1")
        assert [p.name for p in info.params] == names_of(zoo.Block())

    def test_a_wrapped_part_is_the_wrapper_with_what_it_adds(self):
        """A wrapper and the layer inside it share a path; the path means the whole."""
        peft = pytest.importorskip("peft")
        model = nn.Sequential(OrderedDict(fc=nn.Linear(2, 2), head=nn.Linear(2, 1)))
        adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["fc"]))
        names = [param.name for param in describe(adapted).submodel("fc").params]
        assert {"weight", "lora_A.default.weight"} <= set(names)

    def test_a_part_that_is_not_there_is_refused(self):
        """With the nearest names."""
        with pytest.raises(NnlrError, match=r"Net has no module 'block.1'. Nearest: 'blocks.1'"):
            describe(zoo.plain()).submodel("block.1")
        bare = describe(dict(zoo.plain().named_parameters()))
        with pytest.raises(NnlrError, match=r"No parameter's name starts with 'block.1.'"):
            bare.submodel("block.1")

    def test_roles_may_be_set_by_position(self):
        """The basis says that the user did it; the model given stays as it was."""
        info = describe(nn.Linear(2, 2))
        changed = with_roles(info, {0: "head"})
        assert ("head", "user") == (
            changed.params[0].role,
            changed.params[0].role_basis,
        )
        assert info.params[1] == changed.params[1]
        assert info.params[0].role == "matrix"

    def test_a_role_set_by_the_user_has_its_own_fans(self):
        """The rows of an embedding are inputs, those of a matrix outputs; a norm has neither."""
        info = describe(nn.Linear(2, 5))
        found = [
            (param.fan_in, param.fan_out)
            for role in ("matrix", "embedding", "norm")
            for param in with_roles(info, {0: role}).params[:1]
        ]
        assert [(2, 5), (5, 2), (None, None)] == found
        bare = with_roles(describe({"w": torch.zeros(5, 2)}), {0: "embedding"})
        assert (None, None) == (bare.params[0].fan_in, bare.params[0].fan_out)

    def test_only_a_role_can_be_set(self):
        """By position too, a role that is none is refused."""
        with pytest.raises(NnlrError, match="'haed' is no role"):
            with_roles(describe(nn.Linear(2, 2)), {0: "haed"})

    @pytest.mark.parametrize("role", ["nrom", "", None, 3])
    def test_a_role_that_is_none_is_refused(self, role):
        """With all roles, and the nearest."""
        with pytest.raises(NnlrError, match=r"is no role. Roles: embedding, position"):
            check_role(role)
        assert check_role("norm") == "norm"

    def test_the_label_is_the_class_inside_all_wrappers(self):
        """Messages speak of the user's model."""
        assert describe(nn.DataParallel(zoo.plain())).label == "Net"

    def test_a_param_info_needs_little_to_be_made(self):
        """For tests of schemes."""
        param = ParamInfo(name="a.b", leaf="b", shape=(2,), numel=2, role="bias", role_basis="user")
        assert (1, ("a.b",), "", None, ()) == (
            param.ndim,
            param.names,
            param.owner,
            param.owner_type,
            param.ancestors,
        )


class TestCost:
    def test_no_garbage_is_collected_while_a_model_is_described(self):
        """And collection goes on afterwards, if it was on."""
        try:
            gc.disable()
            describe(zoo.plain())
            assert not gc.isenabled()
        finally:
            gc.enable()
        describe(zoo.plain())
        assert gc.isenabled()

    def test_time_grows_with_the_number_of_tensors_only(self):
        """Ten times the tensors, ten times the work."""
        small, large = zoo.moe_tree(4, 10), zoo.moe_tree(4, 100)
        growth = len(list(large.parameters())) / len(list(small.parameters()))
        one, other = (calls(partial(describe, model)) for model in (small, large))
        assert other < 1.1 * growth * one

    def test_parameters_of_one_module_cost_no_more_than_those_of_many(self):
        """Ten times the parameters in one module, ten times the work."""

        def flat(count):
            module = nn.Module()
            for at in range(count):
                module.register_parameter(f"p{at}", nn.Parameter(torch.empty(1, device="meta")))
            return module

        one, other = (calls(partial(describe, flat(count))) for count in (50, 500))
        assert other < 11 * one

    def test_a_description_keeps_nothing_of_a_deep_copy_alive(self):
        """Two copies of a model are described apart."""
        model = zoo.plain()
        assert describe(model).params == describe(copy.deepcopy(model)).params
