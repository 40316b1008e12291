"""Distributed checkpoints: state dicts keyed by parameter names, and sharded parameters."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import nnlr
from nnlr.checkpoint import Report, fit_named_state, fit_state, last_report, on_load
from tests.helpers import same_weights

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

LR = 0.05


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """A mesh of one process: parameters are sharded all the same."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "s"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


class Unknown(torch.optim.Optimizer):
    """An optimizer that cannot be tried out: shapes alone tell what fits."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})


class Net(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.head(self.body(inputs))


def train(model, optimizer, numbers):
    for number in numbers:
        source = torch.Generator().manual_seed(number)
        model(torch.randn(8, 3, generator=source)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


GROUPINGS = {
    "one": lambda pairs: [pairs],
    "each backwards": lambda pairs: [[pair] for pair in reversed(pairs)],
    "by rank": lambda pairs: [pairs[::2], pairs[1::2]],
}


def grouped(model, grouping="one", cls=torch.optim.AdamW, **settings):
    groups = GROUPINGS[grouping](list(model.named_parameters()))
    return cls([{"params": group} for group in groups], lr=LR, **settings)


def planned(model, *rules, **settings):
    plan = nnlr.resolve(model, *rules, lr=LR, weight_decay=0.1)
    return plan.optimizer(torch.optim.AdamW, **settings)


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


FORMS = {
    "nested": {},
    "flattened": {"flatten_optimizer_state_dict": True},
    "full": {"full_state_dict": True},
}


def saved(model, optimizer, form="nested"):
    options = StateDictOptions(**FORMS[form])
    return copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))


def put(model, optimizer, state, form="nested"):
    options = StateDictOptions(full_state_dict=form == "full")
    set_optimizer_state_dict(model, optimizer, state, options=options)


PAIRS = [
    ("one", "each backwards"),
    ("each backwards", "by rank"),
    ("by rank", "one"),
]


SETTINGS = {
    torch.optim.AdamW: {"amsgrad": True},
    torch.optim.SGD: {"momentum": 0.9},
    torch.optim.Adafactor: {},
}


@pytest.mark.usefixtures("mesh")
class TestGroups:
    @pytest.mark.parametrize("hooked", [True, False])
    @pytest.mark.parametrize("cls", SETTINGS)
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
    @pytest.mark.no_cover
    def test_other_groups_continue_bit_for_bit(self, pair, form, cls, hooked):
        """Three steps, other groups, three steps: the weights of the uninterrupted run."""
        (before, after), settings = pair, SETTINGS[cls]
        straight = Net()
        halted = copy.deepcopy(straight)
        train(straight, grouped(straight, before, cls, **settings), range(6))
        first = grouped(halted, before, cls, **settings)
        train(halted, first, range(3))
        second = grouped(halted, after, cls, **settings)
        if hooked:
            on_load(second, model=halted)
        state, report = fit_named_state(saved(halted, first, form), second, halted)
        put(halted, second, state, form)
        train(halted, second, range(3, 6))
        assert same_weights(straight, halted)
        assert (4, (), {}) == (len(report.moved), report.fresh, report.unused)

    @pytest.mark.parametrize("form", FORMS)
    def test_rates_are_the_codes_and_the_schedule_goes_on(self, form):
        """Every group has its rate, its multiplier and its settings."""
        model = Net()
        first = planned(model)
        scheduler = nnlr.schedule(
            first, torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda s: 0.5**s
        )
        train(model, first, [0])
        scheduler.step()
        second = planned(model, nnlr.rule("body.*", lr_mult=0.1))
        if form == "full":
            resumed = nnlr.schedule(
                second, torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda s: 0.5**s
            )
            resumed.load_state_dict(scheduler.state_dict())
        state = saved(model, first, form)
        with pytest.warns(nnlr.NnlrWarning, match="lr_mult is 1 in the") as caught:
            state, _ = fit_named_state(state, second, model, full=form == "full")
        assert [__file__] == [warning.filename for warning in caught]
        put(model, second, state, form)
        expected = {("lr1_wd1", LR / 2, 1.0), ("lr0.1_wd1", LR * 0.1 * 0.5, 0.1)}
        assert expected == {
            (group["name"], group["lr"], group["lr_mult"]) for group in second.param_groups
        }
        train(model, second, [1])
        assert all("nnlr" not in group for group in second.param_groups)

    @pytest.mark.parametrize("form", FORMS)
    def test_the_policy_of_the_call_counts(self, form):
        """The optimizer's own hook sees that the dictionary fits already."""
        model = Net()
        first = planned(model, nnlr.rule("body.*", lr_mult=0.5))
        train(model, first, [0])
        second = planned(model, nnlr.rule("body.*", lr_mult=0.1))
        state = saved(model, first, form)
        with pytest.warns(nnlr.NnlrWarning, match=r"counts \(checkpoint\)"):
            state, _ = fit_named_state(state, second, model, policy="checkpoint")
        put(model, second, state, form)
        assert [LR, LR * 0.5] == [group["lr"] for group in second.param_groups]
        assert [1.0, 0.5] == [group["lr_mult"] for group in second.param_groups]
        assert 4 == len(last_report(second).moved)

    @pytest.mark.parametrize("form", ["nested", "flattened"])
    def test_rates_that_no_scheduler_noted_go_on(self, form):
        """Halved by hand, or by a plateau: the base in the checkpoint tells by how much."""
        model = Net()
        first = planned(model)
        train(model, first, [0])
        first.param_groups[0]["lr"] = LR / 2
        second = planned(model, nnlr.rule("*", lr_mult=1))
        state, _ = fit_named_state(saved(model, first, form), second, model)
        put(model, second, state)
        assert [LR / 2] == [group["lr"] for group in second.param_groups]

    def test_the_hook_alone_mends_groups_that_torch_leaves_bare(self):
        """Of two groups into four, three have no setting at all."""
        model = Net()
        first = grouped(model, "by rank")
        train(model, first, range(2))
        second = grouped(model, "each backwards")
        put(model, second, saved(model, first))
        with pytest.raises(KeyError, match="betas"):
            train(model, second, [2])
        third = grouped(model, "each backwards")
        on_load(third, model=model)
        put(model, third, saved(model, first))
        assert [LR] * 4 == [group["lr"] for group in third.param_groups]
        train(model, third, [2])

    @pytest.mark.parametrize("form", FORMS)
    def test_new_parameters_start_afresh(self, form):
        """With the strict loading that is torch's default."""
        model = Net()
        first = grouped(model)
        train(model, first, range(3))
        state = saved(model, first, form)
        model.extra = nn.Linear(2, 2)
        second = grouped(model, "each backwards")
        fitted, report = fit_named_state(state, second, model)
        assert ("extra.bias", "extra.weight") == report.fresh
        put(model, second, fitted, form)
        assert [LR] * 6 == [group["lr"] for group in second.param_groups]
        steps = {
            name: second.state[p]["step"].item()
            for name, p in model.named_parameters()
            if second.state[p]
        }
        kept = dict.fromkeys(("body.weight", "body.bias", "head.weight", "head.bias"), 3.0)
        if form == "full":  # the step of rate 0 by which torch makes room
            kept |= {"extra.weight": 1.0, "extra.bias": 1.0}
        assert kept == steps

    def test_removed_and_frozen_parameters_are_listed(self):
        """As by positions."""
        model = Net()
        first = grouped(model)
        train(model, first, range(3))
        state = saved(model, first)
        model.body.requires_grad_(False)
        model.head = nn.Linear(4, 2, bias=False)
        second = torch.optim.AdamW([("head.weight", model.head.weight)], lr=LR)
        with pytest.warns(nnlr.NnlrWarning, match=r"of that name: head\.bias"):
            fitted, report = fit_named_state(state, second, model)
        expected = {
            "body.weight": "frozen",
            "body.bias": "frozen",
            "head.bias": "gone",
        }
        assert expected == report.unused
        put(model, second, fitted)

    @pytest.mark.parametrize("form", ["nested", "flattened"])
    def test_tied_parameters_go_by_either_name(self, form):
        """Torch keeps the one under which it was saved; nnlr finds it under the other."""
        saved_model, model = nn.ModuleDict(), nn.ModuleDict()
        for names, module in (("ab", saved_model), ("ba", model)):
            for name in names:
                module[name] = nn.Linear(3, 3)
            module[names[1]].weight = module[names[0]].weight
        first = grouped(saved_model)
        for number, p in enumerate(saved_model.parameters(), 1):
            p.grad = torch.full_like(p, number)
        first.step()
        first.zero_grad()
        second = grouped(model, "each backwards")
        fitted, report = fit_named_state(saved(saved_model, first, form), second, model)
        assert 3 == len(report.moved)
        put(model, second, fitted)
        moments = [second.state[p]["exp_avg"].mean().item() for p in model.parameters()]
        assert pytest.approx([0.1, 0.3, 0.2]) == moments  # b.weight, b.bias, a.bias

    def test_nested_state_is_read_from_its_flattened_form(self):
        """As Shampoo's; the longest name that fits is the parameter's."""
        pairs = [(name, nn.Parameter(torch.ones(2))) for name in ("a", "a_b")]
        model = nn.ParameterDict(dict(pairs))
        optimizer = Unknown(pairs[::-1], lr=LR)
        flat = {
            "state.a.left.0": torch.ones(2),
            "state.a.left.1": torch.zeros(2),
            "state.a_b.step": 3,
            "state.lost.step": 4,
            "param_groups.a.lr": LR,
            "param_groups.a_b.lr": LR,
        }
        state, report = fit_named_state(flat, optimizer, model)
        assert {"left": {"0": flat["state.a.left.0"], "1": flat["state.a.left.1"]}} == (
            state["state"]["a"]
        )
        assert {"step": 3} == state["state"]["a_b"]
        assert ("a_b", "a") == report.moved
        assert ["a_b", "a"] == state["param_groups"][0]["params"]


@pytest.mark.usefixtures("mesh")
class TestRefusals:
    """Where torch fails later without saying why, or loses the state."""

    def test_an_empty_dictionary_is_handed_on(self):
        """As ranks have it that wait for a broadcast."""
        model = Net()
        assert ({}, Report()) == fit_named_state({}, grouped(model), model)

    def test_gradients_of_an_optimizer_without_state_are_in_the_way(self):
        """Torch makes room for state by a step of rate 0, and not if that would train."""
        model = Net()
        first = grouped(model)
        train(model, first, [0])
        state = saved(model, first)
        second = grouped(model, "by rank")
        model(torch.ones(1, 3)).sum().backward()
        with pytest.raises(
            nnlr.ConfigError,
            match=r"taken no step yet and .* Call optimizer\.zero_grad\(\)",
        ):
            fit_named_state(state, second, model)
        with pytest.raises(AssertionError, match="Expected device to be set"):
            put(model, second, state, "full")
        second.zero_grad()
        fit_named_state(state, second, model)

    def test_empty_groups_are_refused(self):
        """Torch's own checkpoints cannot load them."""
        model = Net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
        optimizer.add_param_group({"params": []})
        with pytest.raises(nnlr.ConfigError, match="Group 1 of AdamW is empty"):
            fit_named_state(saved(model, grouped(model)), optimizer, model)

    def test_other_things_are_refused(self):
        """With what they are and where they belong."""
        model = Net()
        optimizer = grouped(model)
        with pytest.raises(nnlr.NnlrError, match=r"keyed by positions.*fit_state is for"):
            fit_named_state(optimizer.state_dict(), optimizer, model)
        with pytest.raises(nnlr.NnlrError, match=r"has the key 'model\.head'"):
            fit_named_state({"model.head": 1}, optimizer, model)
        with pytest.raises(nnlr.NnlrError, match=r"needs the model, got a list"):
            fit_named_state({}, optimizer, list(model.named_parameters()))
        with pytest.raises(nnlr.ConfigError, match="4 tensors of AdamW have no name"):
            fit_named_state(
                saved(model, optimizer),
                torch.optim.AdamW([torch.nn.Parameter(p) for p in model.parameters()]),
                nn.Linear(1, 1),
            )


WRAPPERS = {
    "none": lambda model: model,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "DDP": nn.parallel.DistributedDataParallel,
    "both": lambda model: nn.parallel.DistributedDataParallel(
        torch.compile(model, backend="eager")
    ),
    "averaged": torch.optim.swa_utils.AveragedModel,
}


@pytest.mark.usefixtures("mesh")
class TestWrappers:
    @pytest.mark.parametrize("wrapper", WRAPPERS)
    def test_names_are_those_that_torch_looks_for(self, wrapper):
        """What get_model_state_dict calls them, whatever is around the model."""
        model = WRAPPERS[wrapper](Net())
        optimizer = grouped(model, "each backwards")
        state, _ = fit_named_state(saved(model, grouped(model)), optimizer, model)
        names = [name for group in state["param_groups"] for name in group["params"]]
        known = get_model_state_dict(model)
        assert [name for name in known if "n_averaged" not in name] == names[::-1]
        put(model, optimizer, state)

    @pytest.mark.parametrize("form", FORMS)
    def test_a_run_goes_on_in_another_wrapper(self, form):
        """Saved under DDP, loaded into the bare model."""
        straight = Net()
        halted = copy.deepcopy(straight)
        train(straight, grouped(straight), range(6))
        wrapped = nn.parallel.DistributedDataParallel(halted)
        first = grouped(wrapped)
        train(wrapped, first, range(3))
        second = grouped(halted, "by rank")
        state, _ = fit_named_state(saved(wrapped, first, form), second, halted)
        put(halted, second, state, form)
        train(halted, second, range(3, 6))
        assert same_weights(straight, halted)


class TestSharded:
    """Parameters that are DTensors, and state that is or is not."""

    @staticmethod
    def sharded(mesh, model):
        for layer in model.children():
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    @pytest.mark.parametrize("cls", [torch.optim.AdamW, torch.optim.SGD])
    @pytest.mark.parametrize("by_name", [True, False])
    def test_whole_state_is_sharded_as_the_parameters_are(self, mesh, by_name, cls):
        """Saved by one process, gone on with under fully_shard."""
        settings = {"momentum": 0.9} if cls is torch.optim.SGD else {}
        straight = Net()
        halted = copy.deepcopy(straight)
        train(straight, grouped(straight, cls=cls, **settings), range(6))
        first = grouped(halted, cls=cls, **settings)
        train(halted, first, range(3))
        state = saved(halted, first) if by_name else first.state_dict()
        self.sharded(mesh, halted)
        second = grouped(halted, "by rank", cls, **settings)
        if by_name:
            fitted, _ = fit_named_state(state, second, halted)
            put(halted, second, fitted)
        else:
            second.load_state_dict(fit_state(state, second, model=halted)[0])
        weight = halted.body.weight
        key = "momentum_buffer" if settings else "exp_avg"
        held = second.state[weight][key]
        assert isinstance(held, DTensor)
        assert (weight.placements, weight.device_mesh) == (
            held.placements,
            held.device_mesh,
        )
        train(halted, second, range(3, 6))
        assert same_weights(straight, halted)

    def test_sharded_state_is_made_whole_and_kept(self, mesh):
        """Out of fully_shard into one process; into the same mesh it is handed on."""
        straight = Net()
        halted = copy.deepcopy(straight)
        train(straight, grouped(straight), range(6))
        self.sharded(mesh, halted)
        first = grouped(halted)
        train(halted, first, range(3))
        alone = Net()
        alone.load_state_dict({k: whole(v) for k, v in halted.state_dict().items()})
        second = grouped(alone, "by rank")
        second.load_state_dict(fit_state(first.state_dict(), second)[0])
        train(alone, second, range(3, 6))
        assert same_weights(straight, alone)
        state, _ = fit_state(first.state_dict(), grouped(halted, "each backwards"))
        held = first.state[halted.body.weight]["exp_avg"]
        assert state["state"][3]["exp_avg"] is held

    def test_state_of_another_layout_is_laid_out_anew(self, mesh):
        """Replicated on one mesh or sharded on another, it ends up as the parameter is."""
        from torch.distributed.tensor import Replicate, distribute_tensor

        model = self.sharded(mesh, Net())
        weight = model.body.weight
        other = dist.init_device_mesh("cpu", (1, 1), mesh_dim_names=("a", "b"))
        optimizer = Unknown([("body.weight", weight)], lr=LR)
        for value in (
            distribute_tensor(torch.ones(4, 3), mesh, [Replicate()]),
            distribute_tensor(torch.ones(4, 3), other, [Replicate(), Replicate()]),
        ):
            saved_state = optimizer.state_dict()
            saved_state["state"] = {0: {"exp_avg": value, "row": torch.ones(4, 1), "n": 1}}
            state, _ = fit_state(saved_state, optimizer)
            moved = state["state"][0]["exp_avg"]
            assert weight.placements == moved.placements
            assert weight.device_mesh == moved.device_mesh
            assert (Replicate(),) == state["state"][0]["row"].placements
            assert 1 == state["state"][0]["n"]

    def test_torch_can_be_left_to_distribute(self, mesh):
        """For a broadcast from rank 0, which takes whole tensors only."""
        model = Net()
        first = grouped(model)
        train(model, first, [0])
        state = saved(model, first, "full")
        self.sharded(mesh, model)
        second = grouped(model, "by rank")
        fitted, _ = fit_named_state(state, second, model, full=True)
        assert not isinstance(fitted["state"]["body.weight"]["exp_avg"], DTensor)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_optimizer_state_dict(model, second, fitted, options=options)
        assert isinstance(second.state[model.body.weight]["exp_avg"], DTensor)
        train(model, second, [1])


def test_a_file_of_a_distributed_checkpoint_goes_on_in_other_groups(mesh, tmp_path):
    """Saved with one plan, loaded with another: the run of the loop by hand."""
    straight = Net()
    halted = copy.deepcopy(straight)
    train(straight, planned(straight), range(6))
    first = planned(halted)
    train(halted, first, range(3))
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    state = get_optimizer_state_dict(halted, first, options=flat)
    dcp.save({"optimizer": state}, checkpoint_id=tmp_path / "saved")
    second = planned(halted, nnlr.rule("*.bias", options={"maximize": False}))
    room = get_optimizer_state_dict(halted, second, options=flat)
    planner = dcp.DefaultLoadPlanner(allow_partial_load=True)
    holder = {"optimizer": room}
    dcp.load(holder, checkpoint_id=tmp_path / "saved", planner=planner)
    with warnings.catch_warnings(action="error"):
        fitted, report = fit_named_state(holder["optimizer"], second, halted)
    set_optimizer_state_dict(halted, second, fitted)
    train(halted, second, range(3, 6))
    assert same_weights(straight, halted)
    assert (4, ()) == (len(report.moved), report.fresh)
    assert 4 == len(last_report(second).moved)
