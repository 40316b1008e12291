"""Which saved state goes on in which parameter, and what is said of the rest."""

import copy
import gc
import pickle
import re
import warnings
import weakref
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import nnlr
from nnlr.checkpoint import Report, fit_state, installed, last_report, on_load

LR = 0.1


class Wrapper(nn.Module):
    """A wrapper that no table knows."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def net(*widths):
    widths = widths or (3, 4, 2)
    return nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(widths)))


def adam(source, **settings):
    named = source.named_parameters() if isinstance(source, nn.Module) else source
    return torch.optim.Adam(list(named), lr=LR, **settings)


def stepped(optimizer):
    """One step on gradients that are different for every parameter."""
    number = 0
    for group in optimizer.param_groups:
        for tensor in group["params"]:
            number += 1
            tensor.grad = torch.full_like(tensor, number)
    optimizer.step()
    return optimizer


def moments(optimizer, key="exp_avg"):
    """The mean of each parameter's state, by the optimizer's own names."""
    return {
        name: round(optimizer.state[tensor][key].float().mean().item(), 4)
        for group in optimizer.param_groups
        for name, tensor in zip(group["param_names"], group["params"], strict=True)
        if tensor in optimizer.state
    }


def loaded(optimizer, saved, **kwargs):
    state, report = fit_state(saved, optimizer, **kwargs)
    optimizer.load_state_dict(state)
    return report


class Unknown(torch.optim.Optimizer):
    """An optimizer that cannot be tried out: shapes alone tell what fits."""

    def __init__(self, params, lr=LR):
        super().__init__(params, {"lr": lr})


class TestParameters:
    """Added, removed, frozen, resized: what is left is matched, and the rest is told."""

    def test_new_parameters_start_afresh(self):
        """The others go on."""
        old = net()
        saved = stepped(adam(old)).state_dict()
        new = nn.Sequential(*old, nn.Linear(2, 2))
        optimizer = adam(new)
        report = loaded(optimizer, saved, model=new)
        assert ("2.weight", "2.bias") == report.fresh
        assert {"0.weight": 0.1, "0.bias": 0.2, "1.weight": 0.3, "1.bias": 0.4} == (
            moments(optimizer)
        )

    def test_removed_parameters_are_listed(self):
        """A layer, and a bias, are gone."""
        old = net()
        saved = stepped(adam(old)).state_dict()
        new = nn.Sequential(nn.Linear(3, 4, bias=False))
        optimizer = adam(new)
        with pytest.warns(
            nnlr.NnlrWarning, match=r"no parameter of that name: 0\.bias, 1\.weight,\s+1\.bias"
        ):
            report = loaded(optimizer, saved, model=new)
        assert dict.fromkeys(("0.bias", "1.weight", "1.bias"), "gone") == report.unused
        assert {"0.weight": 0.1} == moments(optimizer)

    def test_frozen_parameters_are_listed_and_goes_without_saying(self):
        """Who froze them knows."""
        model = net()
        saved = stepped(adam(model)).state_dict()
        model[0].requires_grad_(False)
        optimizer = adam(model[1].named_parameters(prefix="1"))
        report = loaded(optimizer, saved, model=model)
        assert {"0.weight": "frozen", "0.bias": "frozen"} == report.unused
        assert {"1.weight": 0.3, "1.bias": 0.4} == moments(optimizer)
        assert 2 == len(optimizer.state)

    def test_unfrozen_parameters_start_afresh(self):
        """As new ones do."""
        model = net()
        saved = stepped(adam(model[1].named_parameters(prefix="1"))).state_dict()
        assert ("0.weight", "0.bias") == loaded(adam(model), saved, model=model).fresh

    def test_parameters_without_saved_state_go_on_without(self):
        """They had no gradient yet, or part of the checkpoint is missing: the report says so."""
        model = net()
        old = adam(model)
        model[0].weight.grad = torch.ones_like(model[0].weight)
        old.step()
        optimizer = adam(model)
        report = loaded(optimizer, old.state_dict())
        assert (("0.bias", "1.weight", "1.bias"), ("0.weight",)) == (report.fresh, report.moved)
        assert {"0.weight": 0.1} == moments(optimizer)
        nothing = torch.optim.SGD(model.named_parameters(), lr=LR)
        assert 4 == len(loaded(nothing, nothing.state_dict()).moved)

    def test_parameters_of_another_shape_start_afresh(self):
        """A vocabulary that grew: its state would not fit, that of the rest does."""
        old = nn.ModuleDict({"words": nn.Embedding(5, 4), "head": nn.Linear(4, 2)})
        saved = stepped(adam(old)).state_dict()
        old["words"] = nn.Embedding(7, 4)
        optimizer = adam(old)
        with pytest.warns(nnlr.NnlrWarning, match=r"start afresh: words\.weight"):
            report = loaded(optimizer, saved, model=old)
        assert ({"words.weight": "shape"}, ("words.weight",)) == (
            report.unused,
            report.fresh,
        )
        stepped(optimizer)

    def test_parameters_of_another_rank_start_afresh(self):
        """Nothing of 3 axes is a factor of a matrix."""
        old = [("w", nn.Parameter(torch.ones(2, 3, 3)))]
        saved = stepped(adam(old)).state_dict()
        with pytest.warns(nnlr.NnlrWarning, match="shape"):
            report = loaded(adam([("w", nn.Parameter(torch.ones(3, 3)))]), saved)
        assert {"w": "shape"} == report.unused

    @pytest.mark.parametrize(
        ("state", "fits"),
        [
            ({"row": (4, 1), "col": (1, 3)}, True),  # torch's Adafactor
            ({"row": (4,), "col": (3,)}, True),  # that of transformers
            ({"row": (5,), "col": (3,)}, False),
            ({"row": (4, 1), "col": (1, 5)}, False),
            ({"q": (4, 3), "absmax": (7,)}, True),  # quantised in blocks
            ({"exp_avg": (4, 3), "left": (4, 4), "right": (3, 3)}, True),
            ({"step": (), "list": [(4, 3)]}, True),
            ({"step": (), "list": [(3, 4)]}, False),
            ({"step": 3}, True),
            ({"nested": {"deep": (4, 2)}}, False),
        ],
    )
    def test_factors_and_blocks_are_no_other_shape(self, state, fits):
        """What optimizers keep need not look like the parameter."""

        def tensors(value):
            if isinstance(value, dict):
                return {key: tensors(each) for key, each in value.items()}
            if isinstance(value, list):
                return [tensors(each) for each in value]
            return torch.ones(value) if isinstance(value, tuple) else value

        optimizer = Unknown([("w", nn.Parameter(torch.ones(4, 3)))])
        saved = optimizer.state_dict()
        saved["state"] = {0: tensors(state)}
        if fits:
            _, report = fit_state(saved, optimizer)
        else:
            with pytest.warns(nnlr.NnlrWarning, match="shape"):
                _, report = fit_state(saved, optimizer)
        assert fits == (report.moved == ("w",))

    def test_momentum_that_is_none_starts_afresh(self):
        """SGD of older versions notes None where there is none yet."""
        model = net()
        old = torch.optim.SGD(model.named_parameters(), lr=LR, momentum=0.9)
        saved = old.state_dict()
        saved["state"] = {at: {"momentum_buffer": None} for at in range(4)}
        new = torch.optim.SGD(
            [{"params": [pair]} for pair in model.named_parameters()],
            lr=LR,
            momentum=0.9,
        )
        assert 4 == len(loaded(new, saved).fresh)
        stepped(new)

    @pytest.mark.parametrize("flag", ["fused", "capturable", None])
    def test_step_counters_are_kept_as_the_code_needs_them(self, flag):
        """Whatever wrote them; the numbers are what counts."""
        model = net()
        old = adam(model, fused=True)
        stepped(stepped(old))
        new = adam(model, **({flag: True} if flag == "fused" else {}))
        if flag == "capturable":  # refused on CPU before the step, not before loading
            new.param_groups[0]["capturable"] = True
        with warnings.catch_warnings(action="ignore"):  # that the code's kernels count
            state, _ = fit_state(old.state_dict(), new)
        new.load_state_dict(state)
        assert {2.0} == {held["step"].item() for held in new.state.values()}
        assert (flag == "fused") == bool(new.param_groups[0]["fused"])
        if flag != "capturable":
            stepped(new)

    def test_state_of_no_parameter_stays(self):
        """Some optimizers keep something about all of them, under a key of their own."""
        model = net()
        old = stepped(adam(model))
        old.state["all"] = {"count": 7}
        new = torch.optim.Adam([{"params": [p]} for p in model.named_parameters()], lr=LR)
        loaded(new, old.state_dict())
        assert {"count": 7} == new.state["all"]

    def test_other_parts_of_the_dictionary_stay(self):
        """Wrappers add theirs."""
        optimizer = stepped(adam(net()))
        state, _ = fit_state({**optimizer.state_dict(), "version": 3}, optimizer)
        assert 3 == state["version"]

    def test_one_flat_history_fits_the_same_order_only(self):
        """LBFGS lays all parameters end to end."""
        model = net()
        old = torch.optim.LBFGS(model.named_parameters(), lr=LR)

        def closure():
            old.zero_grad()
            loss = model(torch.ones(2, 3)).square().mean()
            loss.backward()
            return loss

        old.step(closure)
        new = torch.optim.LBFGS(model.named_parameters(), lr=LR)
        loaded(new, old.state_dict())
        assert (
            old.state_dict()["state"][0]["func_evals"]
            == (new.state_dict()["state"][0]["func_evals"])
        )
        backwards = torch.optim.LBFGS(reversed([*model.named_parameters()]), lr=LR)
        with pytest.raises(nnlr.ConfigError, match="LBFGS keeps one flat history"):
            fit_state(old.state_dict(), backwards)


WRAPPED = {
    "DDP": "module.{}",
    "compiled": "_orig_mod.{}",
    "both": "module._orig_mod.{}",
    "the other way": "_orig_mod.module.{}",
    "PEFT": "base_model.model.{}",
    "FSDP": "_fsdp_wrapped_module.{}",
    "checkpointed part": "0._checkpoint_wrapped_module.{}",
}


class TestNames:
    """One parameter, whatever it was wrapped in when it was saved and is now."""

    @pytest.mark.parametrize("with_model", [True, False])
    @pytest.mark.parametrize("pattern", WRAPPED.values(), ids=WRAPPED)
    def test_names_of_wrapped_models_are_understood(self, pattern, with_model):
        """Saved from the wrapped model, loaded into the bare one, and back."""
        model = nn.Sequential(net())
        inner = dict(model[0].named_parameters())
        bare = [(f"0.{name}", p) for name, p in inner.items()]
        if pattern.startswith("0."):
            wrapped = [(pattern.format(name), p) for name, p in inner.items()]
        else:
            wrapped = [(pattern.format(name), p) for name, p in bare]
        known = {"model": model} if with_model else {}
        for one, other in ((wrapped, bare), (bare, wrapped)):
            optimizer = adam(reversed(other))
            report = loaded(optimizer, stepped(adam(one)).state_dict(), **known)
            assert ((), {}) == (report.fresh, report.unused)
            assert [0.4, 0.3, 0.2, 0.1] == list(moments(optimizer).values())
            assert [name for name, _ in reversed(other)] == (
                optimizer.param_groups[0]["param_names"]
            )

    def test_real_wrappers_are_seen_through(self):
        """Compiled and averaged models, by the names that they give themselves."""
        model = net()
        compiled = torch.compile(model, backend="eager")
        averaged = torch.optim.swa_utils.AveragedModel(model)
        saved = stepped(adam(compiled)).state_dict()
        assert "_orig_mod.0.weight" == saved["param_groups"][0]["param_names"][0]
        for other in (model, averaged):
            pairs = list(other.named_parameters())[::-1]
            report = loaded(adam(pairs), saved, model=other)
            assert 4 == len(report.moved)

    def test_a_users_own_module_attribute_is_part_of_the_name(self):
        """An exact name counts before one that only means the same."""
        pairs = [
            ("module.a", torch.ones(2)),
            ("a", torch.ones(2)),
            ("b", torch.ones(2)),
        ]
        pairs = [(name, nn.Parameter(value)) for name, value in pairs]
        saved = stepped(adam(pairs)).state_dict()
        optimizer = adam(pairs[::-1])
        loaded(optimizer, saved)
        assert {"b": 0.3, "a": 0.2, "module.a": 0.1} == moments(optimizer)
        fewer = adam(pairs[1:])
        with pytest.warns(nnlr.NnlrWarning, match=r"of that name: module\.a"):
            loaded(fewer, saved)
        assert {"a": 0.2, "b": 0.3} == moments(fewer)

    def test_parametrized_weights_are_their_owners(self):
        """A weight that was parametrized since is the same weight."""
        model = net()
        saved = stepped(adam(model)).state_dict()
        parametrizations.orthogonal(model[0])
        optimizer = adam(model)
        report = loaded(optimizer, saved, model=model)
        assert ((), 4) == (report.fresh, len(report.moved))
        assert 0.1 == moments(optimizer)["0.parametrizations.weight.original"]

    @staticmethod
    def tied(first, other):
        """A model in which one tensor has two names, in the given order."""
        model = nn.ModuleDict({first: nn.Linear(3, 3), other: nn.Linear(3, 3)})
        model[other].weight = model[first].weight
        return model

    def test_tied_parameters_are_found_under_any_of_their_names(self):
        """Saved under the one, loaded under the other."""
        saved = stepped(adam(self.tied("words", "head"))).state_dict()
        model = self.tied("head", "words")
        optimizer = adam(model)
        report = loaded(optimizer, saved, model=model)
        assert ((), {}) == (report.fresh, report.unused)
        assert {"head.weight": 0.1, "head.bias": 0.3, "words.bias": 0.2} == (moments(optimizer))

    def test_an_untied_parameter_starts_afresh(self):
        """The name that it was saved under goes on."""
        saved = stepped(adam(self.tied("words", "head"))).state_dict()
        model = nn.ModuleDict({"words": nn.Linear(3, 3), "head": nn.Linear(3, 3)})
        report = loaded(adam(model), saved, model=model)
        assert ("head.weight",) == report.fresh

    def test_of_two_that_are_tied_now_the_first_name_counts(self):
        """One tensor can go on from one; the other is listed."""
        apart = nn.ModuleDict({"head": nn.Linear(3, 3), "words": nn.Linear(3, 3)})
        saved = stepped(adam(apart)).state_dict()
        model = self.tied("words", "head")
        optimizer = adam(model)
        with pytest.warns(nnlr.NnlrWarning, match=r"one tensor now(?s:.*): head\.weight"):
            report = loaded(optimizer, saved, model=model)
        assert {"head.weight": "tied"} == report.unused
        assert 0.3 == moments(optimizer)["words.weight"]

    def test_names_that_are_all_unknown_are_an_error(self):
        """Renamed parts must not start afresh in silence."""
        model = net()
        saved = stepped(adam(Wrapper(model))).state_dict()
        with pytest.raises(
            nnlr.ConfigError,
            match=r"None of the 4 names .* it has 'inner\.0\.weight', .* trains '0\.weight'",
        ):
            fit_state(saved, adam(model), model=model)

    def test_a_checkpoint_of_frozen_parameters_alone_is_none(self):
        """The head is trained from now on; that is another thing."""
        model = net()
        saved = stepped(adam(model[0].named_parameters(prefix="0"))).state_dict()
        report = loaded(adam(model[1].named_parameters(prefix="1")), saved, model=model)
        assert {"frozen"} == set(report.unused.values())
        assert ("1.weight", "1.bias") == report.fresh


class TestUnnamedCheckpoints:
    """Old ones have no names; then position counts, or names have to be given."""

    def test_the_same_sizes_go_by_position(self):
        """As torch does; settings are settled as ever."""
        model = net()
        old = stepped(torch.optim.Adam(model.parameters(), lr=LR))
        optimizer = adam(model)
        report = loaded(optimizer, old.state_dict())
        assert ("0.weight", "0.bias", "1.weight", "1.bias") == report.moved
        assert [0.1, 0.2, 0.3, 0.4] == list(moments(optimizer).values())
        unnamed = torch.optim.Adam(model.parameters(), lr=LR)
        report = loaded(unnamed, old.state_dict())
        assert "parameter 3" == report.moved[3]

    def test_other_sizes_need_names(self):
        """The error says how to get them."""
        model = net()
        old = stepped(torch.optim.Adam(model.parameters(), lr=LR)).state_dict()
        groups = [{"params": [pair]} for pair in reversed([*model.named_parameters()])]
        optimizer = torch.optim.Adam(groups, lr=LR)
        with pytest.raises(
            nnlr.ConfigError,
            match=r"no parameter names, .* \(4\) than those of Adam \(1, 1, 1, 1\)(?s:.*)"
            r"\[name for name, p in model\.named_parameters\(\) if p\.requires_grad\]",
        ):
            fit_state(old, optimizer)
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        loaded(optimizer, old, saved_names=names)
        assert {"1.bias": 0.4, "1.weight": 0.3, "0.bias": 0.2, "0.weight": 0.1} == (
            moments(optimizer)
        )

    def test_many_groups_are_counted(self):
        """Not listed one by one."""
        pairs = [(f"p{at}", nn.Parameter(torch.ones(1))) for at in range(12)]
        old = torch.optim.SGD([p for _, p in pairs], lr=LR)
        new = torch.optim.SGD([{"params": [pair]} for pair in pairs], lr=LR)
        with pytest.raises(nnlr.ConfigError, match=r"1, 1 and 4 more"):
            fit_state(old.state_dict(), new)

    @pytest.mark.parametrize(
        ("names", "told"), [(["a"], "1 names"), (["a"] * 4, r"4 names \(1 different")]
    )
    def test_names_that_do_not_count_up_are_an_error(self, names, told):
        """One for each saved parameter, and no two alike."""
        model = net()
        old = torch.optim.Adam(model.parameters(), lr=LR).state_dict()
        with pytest.raises(
            nnlr.ConfigError,
            match=f"saved_names has {told}.*checkpoint has 4 parameters",
        ):
            fit_state(old, adam(model), saved_names=names)

    def test_shapes_that_do_not_fit_by_position_are_an_error(self):
        """The order was another; torch would fail at the next step, or not at all."""
        model = net()
        old = stepped(torch.optim.Adam(model.parameters(), lr=LR)).state_dict()
        with pytest.raises(
            nnlr.ConfigError,
            match=r"'1\.bias' is of another shape: the order (?s:.*)saved_names",
        ):
            fit_state(old, adam(reversed([*model.named_parameters()])))

    def test_names_in_the_checkpoint_count_before_those_given(self):
        """A hook that was told about the old checkpoint loads the new ones too."""
        model = net()
        optimizer = adam(model)
        on_load(optimizer, saved_names=["0.weight"])
        optimizer.load_state_dict(stepped(adam(model)).state_dict())
        assert 4 == len(last_report(optimizer).moved)

    def test_optimizers_without_names_need_the_model(self):
        """Nothing else tells which of their tensors is which."""
        model = net()
        saved = stepped(adam(model)).state_dict()
        unnamed = torch.optim.Adam(reversed([*model.parameters()]), lr=LR)
        for call in (lambda: fit_state(saved, unnamed), lambda: on_load(unnamed)):
            with pytest.raises(
                nnlr.ConfigError, match=r"4 tensors of Adam have no name.*Pass model="
            ):
                call()
        loaded(unnamed, saved, model=model)
        held = [unnamed.state[p]["exp_avg"].mean().item() for p in model.parameters()]
        assert [0.1, 0.2, 0.3, 0.4] == pytest.approx(held)
        assert "param_names" not in unnamed.param_groups[0]
        unnamed.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


class TestPurity:
    def test_nothing_is_changed_and_tensors_are_handed_on(self):
        """Neither the dictionary, nor the optimizer, nor a tensor's place in memory."""
        model = net()
        saved = stepped(adam(model)).state_dict()
        before = copy.deepcopy(saved)
        optimizer = adam(reversed([*model.named_parameters()]))
        groups = [dict(group) for group in optimizer.param_groups]
        state, _ = fit_state(saved, optimizer)
        assert before["param_groups"] == saved["param_groups"]
        assert before["state"].keys() == saved["state"].keys()
        assert state["state"][0] is saved["state"][3]
        assert groups[0].keys() == optimizer.param_groups[0].keys()
        assert {} == dict(optimizer.state)

    @pytest.mark.parametrize("named", [True, False])
    def test_the_same_groups_are_the_identity_on_state(self, named):
        """State as it is, under the numbers as they are; settings too."""
        model = net()
        groups = [list(layer.named_parameters(prefix=str(at))) for at, layer in enumerate(model)]
        tensors = [[p for _, p in group] for group in groups]
        optimizer = stepped(
            torch.optim.AdamW(
                [{"params": group} for group in (groups if named else tensors)], lr=LR
            )
        )
        saved = optimizer.state_dict()
        state, report = fit_state(saved, optimizer, model=model)
        assert saved == state
        assert all(state["state"][at] is saved["state"][at] for at in range(4))
        assert ((), {}, ()) == (report.fresh, report.unused, report.differences)

    def test_other_things_are_refused(self):
        """With what to pass instead."""
        model = net()
        optimizer = adam(model)
        with pytest.raises(nnlr.NnlrError, match=r"no optimizer's state dict.*'state'"):
            fit_state({"optimizer": optimizer.state_dict()}, optimizer)
        for call in (
            lambda: fit_state(optimizer.state_dict(), model),
            lambda: on_load(model),
        ):
            with pytest.raises(nnlr.NnlrError, match="needs a torch optimizer, got a Seq"):
                call()


class TestHook:
    def test_plans_install_it(self):
        """For the policy asked for, or not at all."""
        model = net()
        plan = nnlr.resolve(model, lr=LR, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.Adam)
        assert (True, None) == (installed(optimizer), last_report(optimizer))
        optimizer.load_state_dict(stepped(adam(model)).state_dict())
        assert 4 == len(last_report(optimizer).moved)
        plain = plan.optimizer(torch.optim.Adam, resume=None)
        assert (False, None) == (installed(plain), last_report(plain))
        assert "nnlr" not in plain.state_dict()["param_groups"][0]

    def test_what_fit_state_gave_is_loaded_as_it_is(self):
        """Its policy counts, and nothing is said twice."""
        model = net()
        saved = stepped(torch.optim.Adam(model.named_parameters(), lr=0.7)).state_dict()
        plan = nnlr.resolve(model, lr=LR, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.Adam)
        with pytest.warns(nnlr.NnlrWarning, match=r"counts \(checkpoint\)") as caught:
            state, _ = fit_state(saved, optimizer, policy="checkpoint")
        assert [__file__] == [warning.filename for warning in caught]
        optimizer.load_state_dict(state)
        (group,) = optimizer.param_groups
        assert (0.7, False) == (group["lr"], "nnlr" in group)
        assert (4, ()) == (
            len(last_report(optimizer).moved),
            last_report(optimizer).differences,
        )

    def test_a_second_call_replaces_the_first(self):
        """One hook, and the old handle ends nothing."""
        optimizer = adam(net())
        first = on_load(optimizer)
        second = on_load(optimizer)
        assert 1 == len(optimizer._optimizer_load_state_dict_pre_hooks)
        first.remove()
        assert installed(optimizer)
        second.remove()
        assert not installed(optimizer)
        assert not optimizer._optimizer_state_dict_post_hooks

    def test_it_keeps_neither_model_nor_optimizer_alive(self):
        """No cycle either: both are gone at once, without the collector."""
        gc.collect()
        gc.disable()
        try:
            model = net()
            optimizer = nnlr.resolve(model, lr=LR, weight_decay=0).optimizer(torch.optim.Adam)
            on_load(optimizer, model=model)
            gone = [weakref.ref(model), weakref.ref(optimizer)]
            del optimizer
            assert gone[1]() is None
            del model
            assert gone[0]() is None
        finally:
            gc.enable()

    def test_it_does_not_travel_with_copies(self):
        """As no hook of torch does; copying and pickling go on working."""
        model = net()
        optimizer = nnlr.resolve(model, lr=LR, weight_decay=0).optimizer(torch.optim.Adam)
        for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert not installed(other)

    @pytest.mark.parametrize("bare", [True, False])
    def test_optimizers_without_names_save_and_load_by_name(self, bare):
        """The names are captured by tensor, and saved where the groups have none."""
        model = net()
        first = nnlr.resolve(model, lr=LR, weight_decay=0).optimizer(torch.optim.Adam, names=False)
        stepped(first)
        saved = first.state_dict()
        assert "param_names" not in saved["param_groups"][0]
        source = list(model.named_parameters())[::-1] if bare else model
        plan = nnlr.resolve(source, nnlr.rule("1.*", lr_mult=0.5), lr=LR, weight_decay=0)
        second = plan.optimizer(torch.optim.Adam, names=False)
        with pytest.warns(nnlr.NnlrWarning, match=r"lr_mult is 1 in .* and 0\.5"):
            second.load_state_dict(saved)
        held = [second.state[p]["exp_avg"].mean().item() for p in model.parameters()]
        assert [0.1, 0.2, 0.3, 0.4] == pytest.approx(held)
        assert all({"param_names", "nnlr"}.isdisjoint(g) for g in second.param_groups)

    def test_a_wrapper_that_nobody_keeps_is_no_loss(self):
        """The names were captured by tensor as well."""
        model = net()
        optimizer = torch.optim.Adam(reversed([*model.parameters()]), lr=LR)
        on_load(optimizer, model=nn.Sequential(*model))
        gc.collect()
        optimizer.load_state_dict(stepped(adam(model)).state_dict())
        assert 4 == len(last_report(optimizer).moved)

    @pytest.mark.parametrize("names", [True, False])
    @pytest.mark.parametrize("bare", [True, False])
    def test_it_reads_the_groups_of_the_moment(self, names, bare):
        """After regroup, also where the tensors were replaced."""
        model = net()
        source = dict(model.named_parameters()) if bare else model
        optimizer = nnlr.resolve(source, lr=LR, weight_decay=0).optimizer(
            torch.optim.Adam, names=names
        )
        saved = stepped(adam(model)).state_dict()
        model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
        source = dict(model.named_parameters()) if bare else model
        plan = nnlr.resolve(source, nnlr.rule("1.*", lr_mult=0.5), lr=LR, weight_decay=0)
        nnlr.regroup(optimizer, plan)
        with pytest.warns(nnlr.NnlrWarning, match="lr is 0.1"):
            optimizer.load_state_dict(saved)
        held = [optimizer.state[p]["exp_avg"].mean().item() for p in model.parameters()]
        assert [0.1, 0.2, 0.3, 0.4] == pytest.approx(held)

    def test_a_name_is_that_of_the_tensor_that_is_trained(self):
        """One that the model has replaced keeps it, until the optimizer is regrouped."""
        model = net()
        replaced = list(model.parameters())
        optimizer = nnlr.resolve(model, lr=LR, weight_decay=0).optimizer(
            torch.optim.Adam, names=False
        )
        saved = stepped(adam(model)).state_dict()
        model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
        optimizer.load_state_dict(saved)
        assert set(replaced) == set(optimizer.state)
        with pytest.warns(nnlr.NnlrWarning, match="knows 4 tensors that the model does"):
            nnlr.regroup(optimizer, nnlr.resolve(model, lr=LR, weight_decay=0))
        optimizer.load_state_dict(saved)
        assert set(model.parameters()) == set(optimizer.state)

    def test_groups_added_later_are_matched_too(self):
        """By the model, which the hook looks at anew."""
        model = net()
        saved = stepped(adam(model)).state_dict()
        optimizer = nnlr.resolve(
            model, nnlr.rule("1.*", lr_mult=0), lr=LR, weight_decay=0
        ).optimizer(torch.optim.Adam)
        optimizer.add_param_group({"params": [*model[1].named_parameters(prefix="1")]})
        with pytest.warns(nnlr.NnlrWarning, match="weight_decay|lr"):
            stepped(optimizer).load_state_dict(
                {**saved, "param_groups": [{**saved["param_groups"][0], "lr": 1.0}]}
            )
        assert 4 == len(last_report(optimizer).moved)

    def test_wrappers_without_hooks_are_refused(self):
        """And plan.optimizer builds them all the same."""

        class Ahead(torch.optim.Optimizer):
            def __init__(self, params, lr=LR):
                self.inner = torch.optim.SGD(params, lr=lr)
                self.param_groups = self.inner.param_groups
                self.defaults, self.state = self.inner.defaults, self.inner.state

        model = net()
        optimizer = nnlr.resolve(model, lr=LR, weight_decay=0).optimizer(Ahead)
        assert not installed(optimizer)
        with pytest.raises(nnlr.ConfigError, match=r"Ahead runs no hooks.*it wraps"):
            on_load(optimizer)

    def test_optimizers_with_tensors_of_their_own_are_left_to_torch(self):
        """Nobody can name those; the optimizer is built all the same."""
        model = net()

        def factory(params):
            optimizer = torch.optim.SGD(params, lr=LR)
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
            return optimizer

        plan = nnlr.resolve(model, lr=LR, weight_decay=0)
        optimizer = plan.optimizer(factory, names=False)
        assert not installed(optimizer)
        optimizer.load_state_dict(optimizer.state_dict())

    @pytest.mark.parametrize("state", [{"other": 1}, [1]])
    def test_what_is_no_state_is_refused(self, state):
        """It would go by position, if at all."""
        optimizer = adam(net())
        on_load(optimizer)
        with pytest.raises(nnlr.ConfigError, match="without 'state' and 'param_groups', got"):
            optimizer.load_state_dict(state)


class TestReport:
    def test_it_prints_itself_in_80_columns(self):
        """Names are capped, and every reason and difference has its line."""
        layers = nn.ModuleDict(
            {f"a_layer_with_a_long_name_{at}": nn.Linear(3, 3) for at in range(12)}
        )
        old = stepped(adam(layers, betas=(0.5, 0.6)))
        kept = nn.ModuleDict(dict(list(layers.items())[:4]))
        kept["a_new_layer"] = nn.Linear(3, 3)
        with pytest.warns(nnlr.NnlrWarning, match="and 11") as caught:
            _, report = fit_state(old.state_dict(), adam(kept), model=kept)
        text = str(report)
        assert text.startswith("Optimizer state: 8 moved, 2 fresh, 16 unused.\n  fresh: a_n")
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "saved, and the optimizer has no parameter of that name" in text
        assert re.search(r"betas is \(0\.5, 0\.6\) in the checkpoint and \(0\.9,", text)
        assert "fresh" not in str(caught[0].message)

    def test_many_differences_are_counted(self):
        """The warning is to be read."""
        pairs = [(f"p{at}", nn.Parameter(torch.ones(1))) for at in range(12)]
        old, new = (
            torch.optim.SGD(
                [{"params": [pair], "lr": at + by} for at, pair in enumerate(pairs, 1)],
                lr=LR,
            )
            for by in (0.0, 0.5)
        )
        with pytest.warns(nnlr.NnlrWarning, match=r"lr of 12 parameters: 1 -> 1\.5 (?s:.*)9 more;"):
            _, report = fit_state(old.state_dict(), new)
        assert 12 == len(report.differences)

    def test_an_empty_one_is_short(self):
        """Nothing to tell."""
        assert "Optimizer state: 0 moved, 0 fresh, 0 unused." == str(Report())
