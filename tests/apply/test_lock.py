"""Locks: what a multiplier of 0 does to a model, and how it is undone."""

import copy
import pickle
import textwrap

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import parametrizations

import nnlr


def network():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))


def locking(*patterns):
    scheme = nnlr.rule("*")
    for pattern in patterns:
        scheme = scheme * nnlr.rule(pattern, lr_mult=0)
    return scheme


def resolved(model, *patterns):
    return nnlr.resolve(model, locking(*patterns), lr=0.1, weight_decay=0.01)


def flags(model):
    return [parameter.requires_grad for parameter in model.parameters()]


def backward(model):
    model(torch.ones(1, 2)).sum().backward()


class TestLock:
    """lock() switches gradients off, and notes that it did."""

    def test_it_switches_off_the_gradients_of_locked_parameters(self):
        """requires_grad is False, .grad is None, and the names are returned."""
        net = network()
        backward(net)
        assert ["0.weight", "0.bias"] == resolved(net, "0.*").lock()
        assert [False] * 2 + [True] * 4 == flags(net)
        assert [None, None] == [net[0].weight.grad, net[0].bias.grad]
        assert net[1].weight.grad is not None

    def test_the_preview_touches_nothing(self):
        """plan.groups and everything that only looks leave the model alone."""
        net = network()
        plan = resolved(net, "0.*")
        _ = (plan.groups, str(plan), plan.vectors(), plan.with_rates(lr=1.0))
        assert [True] * 6 == flags(net)

    @pytest.mark.parametrize("apply", ["param_groups", "optimizer"])
    def test_groups_and_optimizer_lock_too(self, apply):
        """So that what is not trained costs no gradient."""
        net = network()
        plan = resolved(net, "0.*")
        if apply == "param_groups":
            plan.param_groups()
        else:
            plan.optimizer(torch.optim.SGD)
        assert [False] * 2 + [True] * 4 == flags(net)

    def test_locking_twice_changes_nothing_the_second_time(self):
        """The names that changed are none."""
        net = network()
        plan = resolved(net, "0.*")
        plan.lock()
        assert [] == plan.lock()
        assert [False] * 2 + [True] * 4 == flags(net)

    def test_a_gradient_that_came_back_is_dropped(self):
        """An optimizer built before would go on applying it."""
        net = network()
        plan = resolved(net, "0.*")
        plan.lock()
        net[0].bias.grad = torch.ones(2)
        assert ["0.bias"] == plan.lock()
        assert net[0].bias.grad is None

    def test_the_notes_stay_out_of_the_state_dict(self):
        """A lock is no weight."""
        net = network()
        before = list(net.state_dict())
        resolved(net, "0.*").lock()
        assert before == list(net.state_dict())

    def test_a_later_plan_that_trains_it_restores_it(self):
        """Resolve takes what nnlr locked as trainable."""
        net = network()
        resolved(net, "0.*", "1.*").lock()
        later = resolved(net, "0.*")
        assert [row.name for row in later if row.locked] == ["0.weight", "0.bias"]
        assert ["1.weight", "1.bias"] == later.lock()
        assert [False] * 2 + [True] * 4 == flags(net)

    def test_keep_restores_what_an_earlier_plan_locked(self):
        """locked="keep" leaves gradients on, also where they had been off."""
        net = network()
        plan = resolved(net, "0.*")
        plan.lock()
        groups = plan.param_groups(locked="keep")
        assert [True] * 6 == flags(net)
        assert [0.1, 0.0] == [group["lr"] for group in groups]

    def test_what_the_user_froze_stays_frozen(self):
        """Neither lock nor unlock touches it, whatever the plan says of it."""
        net = network()
        net[0].weight.requires_grad_(False)
        plan = resolved(net, "1.*")
        assert ["1.weight", "1.bias"] == plan.lock()
        assert ["1.weight", "1.bias"] == plan.unlock()
        assert [False] + [True] * 5 == flags(net)

    def test_frozen_parameters_are_not_claimed_by_a_lock(self):
        """A rule of 0 on what the user froze leaves the freeze the user's."""
        net = network()
        net[0].weight.requires_grad_(False)
        plan = resolved(net, "0.*")
        assert ["0.bias"] == plan.lock()
        assert ["0.bias"] == plan.unlock()
        assert [False] + [True] * 5 == flags(net)


class TestUnlock:
    """unlock() undoes exactly what nnlr locked."""

    def test_it_undoes_the_locks_of_any_plan(self):
        """Also those of another plan of the same model."""
        net = network()
        resolved(net, "0.*", "1.bias").lock()
        assert ["0.weight", "0.bias", "1.bias"] == resolved(net).unlock()
        assert [True] * 6 == flags(net)

    def test_a_second_time_there_is_nothing_to_undo(self):
        """A freeze that came after is the user's."""
        net = network()
        plan = resolved(net, "0.*")
        plan.lock()
        plan.unlock()
        net[0].bias.requires_grad_(False)
        again = resolved(net)
        assert [] == again.unlock()
        assert [True, False, True, True, True, True] == flags(net)

    def test_a_lock_the_user_opened_is_noted_as_open(self):
        """requires_grad_(True) by hand, then a plan that trains it: the note goes."""
        net = network()
        plan = resolved(net, "0.*")
        plan.lock()
        net[0].requires_grad_(True)
        resolved(net).lock()
        net[0].weight.requires_grad_(False)
        assert [] == resolved(net).unlock()


class TestSurvival:
    """A lock is known to be nnlr's wherever the model goes."""

    @pytest.mark.parametrize(
        "travel",
        [
            copy.deepcopy,
            copy.copy,
            lambda model: pickle.loads(pickle.dumps(model)),
            lambda model: model.to(torch.float64),
        ],
        ids=["deepcopy", "copy", "pickle", "to"],
    )
    def test_it_survives_copies(self, travel):
        """A plan of the copy can undo it."""
        net = network()
        resolved(net, "0.*").lock()
        other = travel(net)
        assert ["0.weight", "0.bias"] == resolved(other).unlock()
        assert [True] * 6 == flags(other)

    def test_a_lock_of_a_copy_is_the_copys(self):
        """Notes are replaced, never changed in place."""
        net = network()
        other = copy.deepcopy(net)
        resolved(other, "0.*").lock()
        assert [True] * 6 == flags(net)
        assert [] == resolved(net).unlock()

    def test_it_survives_new_parameter_objects(self):
        """to_empty and load_state_dict(assign=True) put other tensors in."""
        net = network()
        resolved(net, "0.*").lock()
        net.load_state_dict(network().state_dict(), assign=True)
        assert ["0.weight", "0.bias"] == resolved(net).unlock()

    def test_tied_tensors_are_locked_at_every_place(self):
        """And known to be, if one of the places goes."""
        net = network()
        net[1].weight = net[0].weight
        plan = resolved(net, "0.weight")
        assert ["0.weight"] == plan.lock()
        last = nn.Sequential(net[1])
        assert ["0.weight"] == resolved(last).unlock()
        assert net[0].weight.requires_grad

    def test_parametrised_weights_are_locked_by_their_name(self):
        """weight-norm's gain and direction each have one."""
        net = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)))
        plan = resolved(net, "*.original*")
        plan.lock()
        assert {"0.bias": True} == {row.name: row.trainable for row in plan if row.trainable}
        assert [True, False, False] == flags(net)
        plan.unlock()
        assert [True] * 3 == flags(net)

    def test_bare_tensors_are_locked_and_unlocked(self):
        """Without modules the note is on the tensor."""
        tensors = {
            "a": torch.ones(2, requires_grad=True),
            "b": nn.Parameter(torch.ones(2)),
        }
        plan = resolved(tensors, "a")
        assert ["a"] == plan.lock()
        assert not tensors["a"].requires_grad
        assert ["a"] == resolved(tensors).unlock()
        assert tensors["a"].requires_grad

    @pytest.mark.parametrize("bare_first", [True, False])
    def test_modules_and_their_bare_tensors_know_each_others_locks(self, bare_first):
        """Locked as one and resolved as the other, it is restored, and nobody's any more."""
        net = network()
        sources = [dict(net.named_parameters()), net]
        first, then = sources if bare_first else reversed(sources)
        assert ["0.weight"] == resolved(first, "0.weight").lock()
        assert ["0.weight"] == resolved(then).lock()
        assert [True] * 6 == flags(net)
        net[0].weight.requires_grad_(False)
        assert [True, True] == [resolved(each)["0.weight"].frozen for each in sources]

    def test_tensors_computed_from_others_cannot_be_locked(self):
        """Autograd decides for them; the leaves are to be passed."""
        leaf = torch.ones(2, requires_grad=True)
        tensors = {"a": leaf * 2, "b": leaf}
        plan = resolved(tensors, "a")
        with pytest.raises(nnlr.NnlrError, match=r"^a cannot be locked: the tensor is") as e:
            plan.lock()
        assert ["a"] == e.value.names


@pytest.fixture
def process_group(tmp_path):
    """A process group of this process alone, which is enough for DDP."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
class TestDataParallel:
    """DDP decides at construction whose gradients it exchanges."""

    def test_locking_through_ddp_is_an_error(self):
        """However the plan came to the instance; nothing flips."""
        net = network()
        plan = resolved(net, "0.*")
        ddp = nn.parallel.DistributedDataParallel(net)
        message = r"^0\.weight, 0\.bias cannot be locked or unlocked inside Distributed"
        with pytest.raises(nnlr.NnlrError, match=message) as caught:
            plan.lock(ddp)
        assert ["0.weight", "0.bias"] == caught.value.names
        with pytest.raises(nnlr.NnlrError, match=message):
            resolved(ddp, "0.*").param_groups()
        assert [True] * 6 == flags(net)

    def test_a_lock_from_before_wrapping_is_fine(self):
        """Nothing is left to switch; unlocking would be."""
        net = network()
        plan = resolved(net, "0.*")
        plan.lock()
        ddp = nn.parallel.DistributedDataParallel(net)
        assert [] == plan.lock(ddp)
        assert 1 == len(plan.optimizer(torch.optim.SGD, model=ddp).param_groups)
        with pytest.raises(nnlr.NnlrError, match="cannot be locked or unlocked"):
            plan.unlock(ddp)
        assert [False] * 2 + [True] * 4 == flags(net)

    def test_a_lock_the_user_opened_before_wrapping_is_no_obstacle(self):
        """Only its note has to go, and that is none of DDP's business."""
        net = network()
        resolved(net, "0.*").lock()
        net.requires_grad_(True)
        ddp = nn.parallel.DistributedDataParallel(net)
        assert ["0.weight", "0.bias"] == resolved(ddp).lock()
        assert [] == resolved(ddp).lock()


class TestFailures:
    """Nothing is switched if the call fails."""

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"lr": 0.5}, "lr=0.5 is not passed here"),
            ({"momentun": 0.9}, "SGD has no argument 'momentun'"),
            ({"momentum": -1.0}, "Invalid momentum value"),
            ({"fused": True, "foreach": True}, "cannot be `True` together"),
            ({"locked": "yes"}, "locked must be"),
            ({"init": "yes"}, "init must be None or 'done', got 'yes'"),
            ({"model": nn.Linear(2, 2)}, "parameters that the plan does not know"),
        ],
    )
    def test_an_optimizer_that_cannot_be_built_locks_nothing(self, settings, message):
        """Every reason for which plan.optimizer fails."""
        net = network()
        backward(net)
        with pytest.raises(nnlr.NnlrError, match=message):
            resolved(net, "0.*").optimizer(torch.optim.SGD, **settings)
        assert [True] * 6 == flags(net)
        assert all(parameter.grad is not None for parameter in net.parameters())

    def test_a_plan_that_does_not_fit_locks_nothing(self):
        """The last parameter is checked before the first is locked."""
        net = network()
        plan = resolved(net, "0.*")
        net[2].bias = nn.Parameter(torch.ones(5))
        with pytest.raises(nnlr.PlanMismatchError, match=r"'2.bias' has the shape \(5,\)"):
            plan.lock()
        assert [True] * 6 == flags(net)


class TestMismatch:
    """A plan refuses a model it does not speak of, and names the first difference."""

    def test_a_missing_parameter_is_named(self):
        """With the way out for pipeline stages."""
        net = network()
        plan = resolved(net)
        net[2].bias = None
        with pytest.raises(
            nnlr.PlanMismatchError,
            match=r"Sequential lacks 1 parameter of the plan: 2\.bias\.\n.*partial=True",
        ) as caught:
            plan.param_groups()
        assert ("2.bias", ["2.bias"]) == (caught.value.name, caught.value.names)

    def test_new_parameters_are_named(self):
        """Those of a layer that came later, five at most."""
        net = network()
        plan = resolved(net)
        net.extend([nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)])
        with pytest.raises(
            nnlr.PlanMismatchError,
            match=r"has 6 parameters that the plan does not know: 3\.weight, 3\.bias, "
            r"4\.weight, 4\.bias, 5\.weight and 1 more\.",
        ) as caught:
            plan.vectors()
        assert "3.weight" == caught.value.name

    def test_a_renamed_parameter_is_named_with_the_nearest_name(self):
        """What the plan calls it is in the message."""
        plan = resolved({"encoder.weight": torch.ones(1, requires_grad=True)})
        renamed = {"encodr.weight": torch.ones(1, requires_grad=True)}
        with pytest.raises(
            nnlr.PlanMismatchError, match=r"the given tensors has 1 .*'encoder.weight'"
        ):
            plan.param_groups(renamed)

    def test_a_newly_tied_parameter_is_named_with_what_it_is_tied_to(self):
        """One tensor cannot have two rates."""
        net = network()
        plan = resolved(net)
        net[1].weight = net[0].weight
        with pytest.raises(
            nnlr.PlanMismatchError,
            match=r"lacks 1 .*: 1\.weight\. It is now tied to '0\.weight'\.",
        ):
            plan.lock()

    def test_a_newly_untied_parameter_is_named_with_what_it_was_tied_to(self):
        """PEFT's modules_to_save unties heads."""
        net = network()
        net[1].weight = net[0].weight
        plan = resolved(net)
        net[1].weight = nn.Parameter(torch.ones(2, 2))
        with pytest.raises(
            nnlr.PlanMismatchError, match=r"1\.weight\. It was tied to '0\.weight' when"
        ):
            plan.lock()

    def test_another_shape_is_named(self):
        """A resized vocabulary is another model."""
        plan = resolved(nn.Linear(2, 2))
        with pytest.raises(
            nnlr.PlanMismatchError,
            match=r"'weight' has the shape \(2, 3\), the plan was made for \(2, 2\)\.",
        ):
            plan.param_groups(nn.Linear(3, 2))

    @pytest.mark.parametrize(
        ("then", "now", "message"),
        [
            (True, False, "was trainable when the plan was made and is frozen now"),
            (False, True, "was frozen when the plan was made and is trainable now"),
        ],
    )
    def test_a_changed_freeze_is_named(self, then, now, message):
        """Its rate was decided for the other case."""
        net = network()
        net[0].weight.requires_grad_(then)
        plan = resolved(net)
        net[0].weight.requires_grad_(now)
        with pytest.raises(nnlr.PlanMismatchError, match=f"'0.weight' {message}"):
            plan.param_groups()

    def test_partial_takes_stages_and_shards(self):
        """Missing parameters and local shapes are expected there; new names are not."""
        net = network()
        plan = resolved(net, "0.*")
        shard = {
            "0.bias": nn.Parameter(torch.ones(1)),
            "1.bias": nn.Parameter(torch.ones(1)),
        }
        assert ["0.bias"] == plan.lock(shard, partial=True)
        assert ["0.bias"] == plan.unlock(shard, partial=True)
        with pytest.raises(nnlr.PlanMismatchError, match=r"not know: 9\.bias"):
            plan.lock({"9.bias": torch.ones(1)}, partial=True)

    def test_a_plan_made_on_meta_fits_the_materialised_model(self):
        """to_empty and load_state_dict(assign=True) make new tensors of the same names."""
        with torch.device("meta"):
            net = network()
        plan = resolved(net, "0.*")
        net.to_empty(device="cpu")
        net.load_state_dict(network().state_dict(), assign=True)
        optimizer = plan.optimizer(torch.optim.SGD)
        (group,) = optimizer.param_groups
        assert [id(p) for p in net[1:].parameters()] == [id(p) for p in group["params"]]
        assert [False] * 2 + [True] * 4 == flags(net)

    def test_a_plan_whose_model_is_gone_asks_for_it(self):
        """The reference is weak, so that a plan keeps no weights alive."""
        plan = resolved(network(), "0.*")
        with pytest.raises(nnlr.NnlrError, match=r"\(Sequential\) is gone: pass model=\."):
            plan.lock()
        net = network()
        assert ["0.weight", "0.bias"] == plan.lock(net)


def stepped(optimizer, net):
    """The optimizer, after a step on all gradients that there are."""
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


class TestOtherOptimizers:
    """A plan that takes tensors away from another living optimizer says so."""

    @pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}])
    def test_locking_what_another_has_stepped_is_a_warning(self, settings):
        """With both named; with or without state. It is no error: cells are run twice."""
        net = network()
        first = stepped(resolved(net).optimizer(torch.optim.SGD, **settings), net)
        plan = resolved(net, "0.*")
        message = (
            r"A living SGD trains 2 parameters that the plan of this AdamW locks: 0\.weight, "
            r"0\.bias\. From now on nothing trains them"
        )
        with pytest.warns(nnlr.NnlrWarning, match=message) as caught:
            plan.optimizer(torch.optim.AdamW)
        assert [__file__] == [warning.filename for warning in caught]
        assert not net[0].weight.requires_grad
        del first

    def test_plan_lock_says_so_too(self):
        """Also for a part of them; what it turns into an error locks nothing."""
        net = network()
        first = stepped(resolved(net).optimizer(torch.optim.SGD), net)
        with pytest.raises(nnlr.NnlrWarning, match=r"1 parameter that this plan locks: 0\.bias"):
            resolved(net, "0.bias").lock()
        assert net[0].bias.requires_grad
        assert 1 == len(first.param_groups)

    def test_two_halves_of_a_model_are_told_before_any_step(self):
        """Each locks what the other is to train."""
        net = network()
        weights = resolved(net, "*.bias").optimizer(torch.optim.SGD)
        with pytest.warns(nnlr.NnlrWarning, match="A living SGD trains 3 parameters that"):
            resolved(net, "*.weight").optimizer(torch.optim.AdamW)
        assert 3 == len(weights.param_groups[0]["params"])

    def test_an_optimizer_that_is_replaced_or_gone_is_no_matter(self):
        """One that has not begun, one that was deleted, the same plan again, a regroup."""
        net = network()
        unused = resolved(net).optimizer(torch.optim.SGD)
        plan = resolved(net, "0.*")
        used = stepped(plan.optimizer(torch.optim.SGD, momentum=0.9), net)
        again = plan.optimizer(torch.optim.SGD)
        nnlr.regroup(used, resolved(net, "[01].*"))
        assert unused is not again
        with pytest.warns(nnlr.NnlrWarning, match="A living SGD trains 2 parameters"):
            resolved(net, "[02].*").lock()
        del used
        schedule = nnlr.schedule(again, torch.optim.lr_scheduler.StepLR, step_size=1)
        stepped(again, net)
        del again, schedule  # refer to each other
        resolved(net, "2.weight").lock()

    def test_tensors_without_a_version_are_compared_by_state(self):
        """Torch does not count changes of inference tensors."""
        with torch.inference_mode():
            tensors = {name: nn.Parameter(torch.ones(2)) for name in ("a", "b")}
            first = nnlr.resolve(tensors, lr=0.1, weight_decay=0)
            optimizer = first.optimizer(torch.optim.SGD, model=tensors)
            nnlr.resolve(tensors, nnlr.rule("a", lr_mult=0), lr=0.1, weight_decay=0).lock(tensors)
        assert 1 == len(optimizer.param_groups)


def test_the_advice_to_route_a_model_trains_all_of_it():
    """What Muon's refusal says to do, done: one optimizer, every tensor by one class."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    plan = nnlr.resolve(model, nnlr.rule("1.*", lr_mult=0.5), lr=0.02, weight_decay=0.1)
    with pytest.raises(nnlr.ConfigError, match="Muon trains matrices only, and 4") as caught:
        plan.optimizer(torch.optim.Muon)
    advice = str(caught.value).partition("in one optimizer:\n")[2]
    names = {"model": model, "torch": torch, "nnlr": nnlr}
    exec(textwrap.dedent(advice), names)  # noqa: S102 - what a user would paste
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    model(torch.arange(5)).square().sum().backward()
    names["optimizer"].step()
    assert not [
        name for name, param in model.named_parameters() if torch.equal(param, before[name])
    ]
