"""Declarations on modules: the Lua package's own tests, and what it got wrong made right."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization

import nnlr

BASE_LR, BASE_WD = 0.1, 0.0001


class OnlyOne(nn.Module):
    """A module with a single parameter of a given name and length."""

    def __init__(self, name, length):
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.zeros(length)))


def vectors_of(module):
    """The Lua package's getOptimConfig at the base rates of its tests, as lists."""
    lrs, decays = nnlr.get_optim_config(module, BASE_LR, BASE_WD)
    return lrs, decays


def expect(module, lrs, decays):
    """Compare both vectors with relative values times the base rates."""
    found_lrs, found_decays = vectors_of(module)
    torch.testing.assert_close(torch.tensor(lrs) * BASE_LR, found_lrs)
    torch.testing.assert_close(torch.tensor(decays) * BASE_WD, found_decays)


class TestTheLuaPackagesOwnTests:
    def test_a_layer_with_everything_set(self):
        """Linear(2, 4) with all four relative rates gives the vectors of the Lua tests."""
        layer = nn.Linear(2, 4)
        nnlr.learning_rate(layer, "weight", 0.1)
        nnlr.learning_rate(layer, "bias", 0.2)
        nnlr.weight_decay(layer, "weight", 1)
        nnlr.weight_decay(layer, "bias", 0)
        expect(layer, [0.1] * 8 + [0.2] * 4, [1.0] * 8 + [0.0] * 4)

    def test_what_is_not_set_is_one(self):
        """Only the weight's rate and the bias's decay set: the rest keeps the base rates."""
        layer = nn.Linear(2, 4)
        nnlr.learning_rate(layer, "weight", 0.1)
        nnlr.weight_decay(layer, "bias", 0)
        expect(layer, [0.1] * 8 + [1.0] * 4, [1.0] * 8 + [0.0] * 4)

    @pytest.mark.parametrize(
        ("name", "missing", "length"), [("bias", "weight", 5), ("weight", "bias", 4)]
    )
    def test_a_module_with_one_parameter(self, name, missing, length):
        """What is there can be set; what is not is an error in both calls."""
        module = OnlyOne(name, length)
        for call in (nnlr.learning_rate, nnlr.weight_decay):
            with pytest.raises(nnlr.NnlrError, match=f"OnlyOne has a parameter '{missing}'"):
                call(module, missing, 0.1)
        nnlr.weight_decay(nnlr.learning_rate(module, name, 0.2), name, 0)
        expect(module, [0.2] * length, [0.0] * length)

    @pytest.mark.parametrize("call", [nnlr.learning_rate, nnlr.weight_decay])
    @pytest.mark.parametrize("name", ["weight", "bias"])
    def test_a_module_without_parameters(self, call, name):
        """Setting anything on a ReLU is an error, and its vectors are empty."""
        with pytest.raises(nnlr.NnlrError, match="ReLU has no parameters"):
            call(nn.ReLU(), name, 0.1)
        lrs, decays = vectors_of(nn.ReLU())
        assert (0,) == lrs.shape == decays.shape

    @pytest.mark.parametrize("call", [nnlr.learning_rate, nnlr.weight_decay])
    def test_a_name_that_is_nowhere(self, call):
        """Setting foobar on a Linear is an error that lists what there is."""
        with pytest.raises(nnlr.NnlrError, match=r"'foobar'\. It has 'bias', 'weight'"):
            call(nn.Linear(2, 4), "foobar", 0.1)

    def test_a_container(self):
        """Two layers, each with its own settings, line up with the flattened parameters."""
        first, second = nn.Linear(2, 2), nn.Linear(2, 1)
        nnlr.learning_rate(first, "weight", 0.1)
        nnlr.learning_rate(first, "bias", 0.2)
        nnlr.weight_decay(first, "bias", 0)
        nnlr.weight_decay(second, "bias", 0)
        expect(
            nn.Sequential(first, second),
            [0.1] * 4 + [0.2] * 2 + [1.0] * 3,
            [1.0] * 4 + [0.0] * 2 + [1.0] * 2 + [0.0],
        )


class TestWhereTheLuaPackageWasWrong:
    def test_nested_containers_are_reached(self):
        """A container inside a container does not hide its layers."""
        net = nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.Linear(1, 1))
        nnlr.learning_rate(net, "weight", 0.5)
        expect(net, [0.5, 1.0, 0.5, 1.0], [1.0] * 4)

    def test_tied_weights_stay_aligned(self):
        """A tied weight is in the vectors once, as in the flattened parameters."""
        net = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3))
        net[1].weight = net[0].weight
        nnlr.learning_rate(net[1], "bias", 0.5)
        expect(net, [1.0] * 6 + [0.5] * 3, [1.0] * 9)
        flat = nn.utils.parameters_to_vector(net.parameters())
        assert flat.shape == vectors_of(net)[0].shape

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            (nn.MultiheadAttention(4, 2), "in_proj_weight"),
            (nn.LSTM(2, 3), "weight_ih_l0"),
            (nn.LSTM(2, 3, num_layers=2, bidirectional=True), "bias_hh_l1_reverse"),
            (OnlyOne("scale", 3), "scale"),
        ],
    )
    def test_any_parameter_name_works(self, module, name):
        """Names other than weight and bias are parameters like any other."""
        nnlr.annotate(module, name, lr_mult=0.5, wd_mult=0.25)
        plan = nnlr.resolve(module, lr=1, weight_decay=1)
        changed = {row.name: (row.lr, row.weight_decay) for row in plan if row.lr != 1}
        assert {name: (0.5, 0.25)} == changed

    @pytest.mark.parametrize("call", [nnlr.learning_rate, nnlr.weight_decay])
    @pytest.mark.parametrize(
        "value",
        [
            float("nan"),
            float("inf"),
            -0.1,
            True,
            "1",
            None,
            pytest.param(10**400, id="huge"),
        ],
    )
    def test_both_calls_check_their_value(self, call, value):
        """A value that is no finite number >= 0 is refused, and nothing is written."""
        layer = nn.Linear(1, 1)
        with pytest.raises(nnlr.NnlrError, match="must be a finite number >= 0"):
            call(layer, "weight", value)
        assert "_nnlr" not in vars(layer)

    @pytest.mark.parametrize("call", [nnlr.learning_rate, nnlr.weight_decay])
    def test_both_calls_check_their_module_and_name(self, call):
        """Something else than a module, or than a name, is refused by what it is."""
        with pytest.raises(nnlr.NnlrError, match=r"must be a torch.nn.Module, got .* \(list\)"):
            call([nn.Linear(1, 1)], "weight", 1)
        with pytest.raises(nnlr.NnlrError, match=r"name must be a string such as .weight., got 3"):
            call(nn.Linear(1, 1), 3, 1)

    def test_a_tensor_is_refused_with_the_way_out(self):
        """A Tensor is not silently turned into a float."""
        with pytest.raises(nnlr.NnlrError, match=r"got a Tensor. Pass a float"):
            nnlr.learning_rate(nn.Linear(1, 1), "weight", torch.tensor(0.1))


class TestReach:
    def test_numpy_scalars_are_welcome(self):
        """A numpy number counts as the number it is, kept as a plain float."""
        layer = nnlr.learning_rate(nn.Linear(1, 1), "weight", np.float64(0.5))
        assert {"weight": {"lr_mult": 0.5}} == vars(layer)["_nnlr"]
        assert float is type(vars(layer)["_nnlr"]["weight"]["lr_mult"])

    def test_the_calls_nest_and_chain(self):
        """Each call returns the module it was given."""
        layer = nn.Linear(1, 1)
        assert layer is nnlr.weight_decay(nnlr.learning_rate(layer, "bias", 2), "bias", 0)

    def test_the_last_call_wins_at_any_level(self):
        """Container after layer overrides the layer, layer after container the container."""
        inner, other = nn.Linear(1, 1), nn.Linear(1, 1)
        net = nn.Sequential(nn.Sequential(inner), other)
        nnlr.learning_rate(inner, "weight", 0.1)
        nnlr.learning_rate(net, "weight", 0.2)
        nnlr.learning_rate(other, "weight", 0.3)
        plan = nnlr.resolve(net, lr=1, weight_decay=0)
        assert [0.2, 0.3] == [plan["0.0.weight"].lr, plan["1.weight"].lr]

    def test_setting_one_thing_leaves_the_other(self):
        """The rate and the decay of a parameter are set independently."""
        layer = nnlr.annotate(nn.Linear(1, 1), "weight", lr_mult=0.5, wd_mult=0.5)
        nnlr.learning_rate(layer, "weight", 0.1)
        row = nnlr.resolve(layer, lr=1, weight_decay=1)["weight"]
        assert (0.1, 0.5) == (row.lr, row.weight_decay)

    def test_modules_added_later_are_not_reached(self):
        """A call writes at once; what comes later keeps 1."""
        net = nn.Sequential(nn.Linear(1, 1))
        nnlr.learning_rate(net, "weight", 0.1)
        net.append(nn.Linear(1, 1))
        assert 1 == nnlr.resolve(net, lr=1, weight_decay=0)["1.weight"].lr

    def test_a_parameter_that_is_none_does_not_count(self):
        """bias=False means that there is no bias to set."""
        net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1))
        nnlr.learning_rate(net, "bias", 0.1)
        assert "_nnlr" not in vars(net[0])
        with pytest.raises(nnlr.NnlrError, match=r"'bias'. It has 'weight'"):
            nnlr.learning_rate(net[0], "bias", 0.1)

    def test_a_shared_module_holds_one_value(self):
        """Set through one of its places, it is set at the other."""
        shared = nn.Linear(1, 1)
        net = nn.Sequential(nn.Sequential(shared), shared)
        nnlr.learning_rate(net[0], "weight", 0.1)
        row = nnlr.resolve(net, lr=1, weight_decay=0)["1.weight"]
        assert (0.1, "0.0.weight") == (row.lr, row.name)

    def test_a_parametrized_weight_goes_by_its_own_name(self):
        """Behind a parametrization the name is still weight, for all of its originals."""
        layer = parametrizations.weight_norm(nn.Linear(2, 2))
        nnlr.learning_rate(layer, "weight", 0.1)
        plan = nnlr.resolve(layer, lr=1, weight_decay=0)
        assert {"bias": 1.0} == {row.name: row.lr for row in plan if row.lr != 0.1}
        assert 3 == len(plan)

    def test_one_original_can_be_set_apart(self):
        """A value set on one original counts before one set on the whole weight."""
        layer = parametrizations.weight_norm(nn.Linear(2, 2))
        nnlr.annotate(layer, "weight", lr_mult=0.1, wd_mult=0.5)
        nnlr.learning_rate(layer.parametrizations.weight, "original0", 0.2)
        plan = nnlr.resolve(layer, lr=1, weight_decay=1)
        actual = sorted((row.lr, row.weight_decay) for row in plan)
        assert [(0.1, 0.5), (0.2, 0.5), (1.0, 1.0)] == actual

    def test_a_parametrized_buffer_is_no_parameter(self):
        """A parametrization of a buffer owns no parameter, so there is nothing to set."""

        class Doubled(nn.Module):
            def forward(self, x):
                return 2 * x

        layer = nn.BatchNorm1d(2)
        register_parametrization(layer, "running_mean", Doubled())
        with pytest.raises(nnlr.NnlrError, match="It has 'bias', 'weight'"):
            nnlr.learning_rate(layer, "running_mean", 0.1)

    @pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
    @pytest.mark.parametrize("wrap", [weight_norm, spectral_norm])
    def test_old_style_reparametrization_goes_by_its_own_name(self, wrap):
        """weight_g, weight_v and weight_orig are reached as weight."""
        layer = nnlr.learning_rate(wrap(nn.Linear(2, 2)), "weight", 0.1)
        plan = nnlr.resolve(layer, lr=1, weight_decay=0)
        assert {"bias"} == {row.name for row in plan if row.lr != 0.1}
        with pytest.raises(nnlr.NnlrError, match=r"'wieght'.* Nearest: 'weight'"):
            nnlr.learning_rate(layer, "wieght", 0.1)

    @pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
    def test_one_half_of_an_old_style_weight_can_be_set_apart(self):
        """A value set on weight_g counts before one set on weight."""
        layer = nnlr.learning_rate(weight_norm(nn.Linear(2, 2)), "weight", 0.1)
        nnlr.learning_rate(layer, "weight_g", 0.2)
        plan = nnlr.resolve(layer, lr=1, weight_decay=0)
        assert [0.2, 0.1] == [plan["weight_g"].lr, plan["weight_v"].lr]

    @pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
    def test_the_last_call_wins_over_originals_too(self):
        """A value set later on the whole weight replaces those set on its parts."""
        new = parametrizations.weight_norm(nn.Linear(2, 2, bias=False))
        nnlr.learning_rate(new, "original0", 0.2)
        old = weight_norm(nn.Linear(2, 2, bias=False))
        nnlr.learning_rate(old, "weight_g", 0.2)
        for layer in (new, old):
            nnlr.learning_rate(layer, "weight", 0.1)
            plan = nnlr.resolve(layer, lr=1, weight_decay=0)
            assert [0.1, 0.1] == [row.lr for row in plan]

    def test_nothing_to_set_is_an_error(self):
        """A call of annotate without a multiplier is a forgotten argument."""
        with pytest.raises(nnlr.NnlrError, match="Nothing to set: pass lr_mult="):
            nnlr.annotate(nn.Linear(1, 1), "weight")


def declared():
    """A network with one declaration."""
    return nn.Sequential(nnlr.learning_rate(nn.Linear(2, 1), "weight", 0.25))


def rate(model):
    """The rate of its declared weight."""
    return nnlr.resolve(model, lr=1, weight_decay=0)["0.weight"].lr


class TestWhatDeclarationsSurvive:
    def test_deepcopy_pickle_and_casts(self):
        """Values go with the module through copies, files, dtypes and devices."""
        assert 0.25 == rate(copy.deepcopy(declared()))
        assert 0.25 == rate(pickle.loads(pickle.dumps(declared())))
        assert 0.25 == rate(declared().to(torch.float64))
        assert 0.25 == rate(declared().to("meta"))

    def test_torch_save(self):
        """Values go through torch.save of a whole model."""
        file = io.BytesIO()
        torch.save(declared(), file)
        file.seek(0)
        assert 0.25 == rate(torch.load(file, weights_only=False))

    def test_torch_compile(self):
        """A compiled wrapper shows the values, and setting through it reaches the model."""
        net = declared()
        wrapped = torch.compile(net, backend="eager")
        assert 0.25 == rate(wrapped)
        nnlr.learning_rate(wrapped, "weight", 0.5)
        assert 0.5 == rate(net)

    def test_a_copy_is_on_its_own(self):
        """Setting on a copy, deep or shallow, leaves the original as it was."""
        layer = nnlr.learning_rate(nn.Linear(1, 1), "weight", 0.25)
        nnlr.learning_rate(copy.copy(layer), "weight", 0.5)
        nnlr.learning_rate(copy.deepcopy(layer), "weight", 0.5)
        assert 0.25 == nnlr.resolve(layer, lr=1, weight_decay=0)["weight"].lr

    def test_the_state_dict_stays_clean(self):
        """Declarations add no key, so files stay loadable by everyone."""
        assert ["0.weight", "0.bias"] == list(declared().state_dict())

    def test_a_declared_zero_locks_and_comes_back(self):
        """0 takes the gradient when the optimizer is built, and 1 gives it back."""
        net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        nnlr.learning_rate(net[0], "weight", 0)
        nnlr.resolve(net, lr=1, weight_decay=0).optimizer(torch.optim.SGD)
        assert not net[0].weight.requires_grad
        nnlr.learning_rate(net[0], "weight", 1)
        nnlr.resolve(net, lr=1, weight_decay=0).optimizer(torch.optim.SGD)
        assert net[0].weight.requires_grad

    def test_schemes_multiply_what_is_declared(self):
        """A declared rate and a rule on the same parameter multiply."""
        plan = nnlr.resolve(declared(), nnlr.rule("*", lr_mult=0.5), lr=1, weight_decay=0)
        assert 0.125 == plan["0.weight"].lr
