"""Resume of a Mixed optimizer: by name, and state with the class that made it."""

import copy
import tempfile
import warnings
from functools import partial

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

import nnlr
from nnlr.checkpoint import last_report, load_dcp, on_load
from tests.checkpoint.test_foreign import matrices, network, others, train

CLASSES = {"muon": torch.optim.Muon, "adamw": partial(nnlr.optim.AdamW, betas=(0.9, 0.95))}
LR = {"muon": 0.02, "adamw": 1e-3}


def mixed(model, *rules, lr=LR, decay=0.1, classes=CLASSES, **settings):
    """Matrices to Muon and the rest to AdamW, but for what rules say."""
    plan = nnlr.resolve(model, nnlr.route("muon", "adamw"), *rules, lr=lr, weight_decay=decay)
    return plan.optimizer(classes, **settings)


def trained(model, *rules, **settings):
    optimizer = mixed(model, *rules, **settings)
    train(model, optimizer)
    return optimizer


def loaded(optimizer, saved):
    """Load without looking at the warning, and return it."""
    with warnings.catch_warnings(record=True, action="always") as warned:
        optimizer.load_state_dict(copy.deepcopy(saved))
    assert len(warned) <= 1
    return "\n".join(str(each.message) for each in warned)


TO_ADAMW = nnlr.rule("1.weight", algorithm="adamw")


class TestRouting:
    """State goes on where its class does; whose algorithm changed is named."""

    @pytest.mark.parametrize(("before", "after"), [((), (TO_ADAMW,)), ((TO_ADAMW,), ())])
    def test_another_algorithm(self, before, after):
        """It starts afresh at the rate of its algorithm; the others go on."""
        model = network()
        saved = trained(model, *before).state_dict()
        second = mixed(model, *after)
        said = loaded(second, saved)
        assert "another algorithm trained them, so these start afresh: 1.weight" in said
        assert "lr is 0.0" in said
        assert said.endswith("parameter: 1.weight")
        report = last_report(second)
        assert (report.fresh, report.unused) == (("1.weight",), {"1.weight": "algorithm"})
        assert len(report.moved) == 4
        train(model, second, first=4)

    def test_equal_keys_are_no_excuse(self):
        """SGD and Muon both keep a momentum_buffer, of other sizes."""
        model = network()
        classes = {"muon": torch.optim.Muon, "sgd": partial(torch.optim.SGD, momentum=0.9)}
        lr = {"muon": 0.02, "sgd": 1e-3}
        rest = nnlr.rule("*", algorithm="sgd").where(~nnlr.glob("0.weight"))
        first = mixed(model, rest, lr=lr, classes=classes)
        train(model, first)
        to_sgd = nnlr.rule(nnlr.glob("*.bias") | "2.weight", algorithm="sgd")
        second = mixed(model, to_sgd, lr=lr, classes=classes)
        assert "so these start afresh: 1.weight" in loaded(second, first.state_dict())

    def test_another_name_for_an_algorithm(self):
        """The class is what state is of."""
        model = network()
        saved = trained(model).state_dict()
        plan = nnlr.resolve(
            model,
            nnlr.route("matrices", "rest"),
            lr={"matrices": 0.02, "rest": 1e-3},
            weight_decay=0.1,
        )
        second = plan.optimizer({"matrices": CLASSES["muon"], "rest": CLASSES["adamw"]})
        assert loaded(second, saved) == ""
        assert len(last_report(second).moved) == 5

    def test_a_third_algorithm(self):
        """What it trains starts afresh, and an older checkpoint goes on."""
        model = network()
        saved = trained(model).state_dict()
        classes = {**CLASSES, "lion": partial(torch.optim.SGD, momentum=0.9)}
        lr = {**LR, "lion": 1e-4}
        second = mixed(model, nnlr.rule("0.*", algorithm="lion"), lr=lr, classes=classes)
        assert "so these start afresh: 0.weight, 0.bias" in loaded(second, saved)
        train(model, second, first=4)
        assert len(second.state) == 5
        third = mixed(model)
        assert "so these start afresh" in loaded(third, second.state_dict())

    def test_without_parameters(self):
        """An algorithm that has become empty is in no checkpoint, and a later one may fill it."""
        model = network()
        all_adamw = nnlr.rule("*", algorithm="adamw")
        first = mixed(model, all_adamw)
        train(model, first)
        second = mixed(model)
        assert "another algorithm" in loaded(second, first.state_dict())
        assert len(last_report(second).moved) == 3
        train(model, second, first=4)
        assert "another algorithm" in loaded(first, second.state_dict())


class TestOneClass:
    """To and from an optimizer of one class what fits goes on, by name."""

    def test_from_adamw(self):
        """Muon cannot go on with what AdamW saved."""
        model = network()
        old = torch.optim.AdamW(model.named_parameters(), lr=1e-3)
        train(model, old)
        second = mixed(model)
        said = loaded(second, old.state_dict())
        assert "the state that another optimizer saved does not fit Muon" in said
        assert set(last_report(second).moved) == {"0.bias", "2.weight", "2.bias"}
        on_load(old, model=model)
        said = loaded(second, old.state_dict())
        assert "the state that AdamW saved does not fit Muon, so these start afresh" in said

    def test_to_adamw(self):
        """And the other way round."""
        model = network()
        saved = trained(model).state_dict()
        plan = nnlr.resolve(model, lr=1e-3, weight_decay=0.1)
        second = plan.optimizer(torch.optim.AdamW)
        assert "the state that Muon saved does not fit AdamW" in loaded(second, saved)
        assert set(last_report(second).moved) == {"0.bias", "2.weight", "2.bias"}
        said = loaded(mixed(model), second.state_dict())  # nothing of matrices is there
        assert "goes on" not in said

    def test_other_classes_under_the_same_names(self):
        """What is said names those whose state does not fit."""
        model = network()
        saved = trained(model).state_dict()
        momentum = partial(torch.optim.SGD, momentum=0.9)
        second = mixed(model, classes={"muon": momentum, "adamw": torch.optim.RMSprop})
        assert "the state that AdamW saved does not fit RMSprop" in loaded(second, saved)
        third = mixed(model, classes={"muon": torch.optim.RMSprop, "adamw": momentum})
        both = "the state that Muon and AdamW saved does not fit RMSprop and SGD"
        assert both in loaded(third, saved)


class TestRates:
    """Each algorithm's base goes on in proportion to its own."""

    def test_other_bases(self):
        """``new_base * saved / saved_origin``."""
        model = network()
        first = mixed(model, nnlr.rule("0.*", lr_mult=0.5))
        for group in first.param_groups:
            group["lr"] *= 0.25
        second = mixed(model, nnlr.rule("2.*", lr_mult=0.5), lr={"muon": 0.04, "adamw": 5e-3})
        loaded(second, first.state_dict())
        for group in second.param_groups:
            base = {"muon": 0.04, "adamw": 5e-3}[group["algorithm"]]
            assert group["lr"] == pytest.approx(base * 0.25 * group["lr_mult"])

    def test_bases_that_moved_apart(self):
        """New parameters follow their own algorithm; so do those that are rerouted."""
        model = network()
        first = trained(model, nnlr.rule("2.bias", lr_mult=0), nnlr.rule("2.weight", lr_mult=0))
        for group in first.param_groups:
            group["lr"] *= {"muon": 0.5, "adamw": 0.25}[group["algorithm"]]
        second = mixed(model, TO_ADAMW)
        loaded(second, first.state_dict())
        rates = {group["algorithm"]: group["lr"] for group in second.param_groups}
        assert rates == {"muon": 0.01, "adamw": 0.25e-3}

    def test_all_is_the_checkpoints(self):
        """But not who trains what."""
        model = network()
        saved = trained(model).state_dict()
        second = mixed(model, TO_ADAMW, lr={"muon": 0.04, "adamw": 5e-3}, resume="checkpoint")
        loaded(second, saved)
        rates = {group["algorithm"]: group["lr"] for group in second.param_groups}
        assert rates == LR

    def test_a_group_that_was_added_later(self):
        """It started at its own algorithm's base, as far as anybody knows."""
        model = network()

        def by_hand(adamw, late):
            groups = [
                {"params": [("0.weight", model[0].weight)], "lr": 0.02, "algorithm": "muon"},
                {"params": [("0.bias", model[0].bias)], "lr": adamw, "algorithm": "adamw"},
            ]
            groups = [{**group, "lr_mult": 1.0} for group in groups]
            optimizer = nnlr.optim.Mixed(groups, CLASSES)
            on_load(optimizer, model=model)
            later = {"params": [("2.bias", model[2].bias)], "lr": late, "lr_mult": 0.5}
            optimizer.add_param_group({**later, "algorithm": "adamw"})
            return optimizer

        second = by_hand(2e-3, 3.0)
        loaded(second, by_hand(1e-3, 0.25e-3).state_dict())
        assert second.param_groups[-1]["lr"] == pytest.approx(0.5 * 0.5 * 2e-3)


def test_a_distributed_checkpoint():
    """Read into other groups, under another routing."""
    model = network()
    first = trained(model)
    path = tempfile.mkdtemp()
    with warnings.catch_warnings(action="ignore"):
        dcp.save({"optimizer": get_optimizer_state_dict(model, first)}, checkpoint_id=path)
    twin = network()
    second = mixed(twin, TO_ADAMW, nnlr.rule("0.*", lr_mult=0.5))
    with pytest.warns(nnlr.NnlrWarning, match=r"another algorithm trained .*1\.weight"):
        report = load_dcp(path, second, twin)
    assert len(report.moved) == 4
    for p, q in ((matrices(model)[0], matrices(twin)[0]), (others(model)[0], others(twin)[0])):
        for key, value in first.state[p].items():
            assert torch.equal(second.state[q][key], value)
