"""What version 0.1.0 pickled still loads: schemes, plans, optimizers, schedules."""

import gzip
import importlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

import nnlr

# Written by version 0.1.0: name -> {"pickle": bytes, "repr": str}, and the text of the plan.
SAVED = pickle.loads(
    gzip.decompress((Path(__file__).parent / "reference" / "saved_by_0_1_0.pkl.gz").read_bytes())
)
PICKLES = {name: entry for name, entry in SAVED.items() if "pickle" in entry}


def network():
    """The model of the saved plan and optimizer."""
    return nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))


@pytest.mark.parametrize("name", PICKLES)
def test_it_loads_and_looks_the_same(name):
    """No module, class or attribute that a pickle names is missing."""
    value = pickle.loads(PICKLES[name]["pickle"])
    if text := PICKLES[name]["repr"]:
        # What later versions added is neutral.
        today = repr(value).replace(", group=None", "").replace(", moves=None", "")
        assert text.replace("tag=", "algorithm=").replace(", group=None", "") == today
    assert type(value) is type(pickle.loads(pickle.dumps(value)))


@pytest.mark.parametrize(
    "name",
    [
        *("rule", "rules", "product", "where", "within", "layer_decay", "freeze"),
        *("no_weight_decay", "discriminative", "roles", "caffe", "mmengine", "detectron2"),
        *("big_vision", "torchtitan"),
    ],
)
def test_a_scheme_still_resolves(name):
    """The loaded scheme gives the rates of the same scheme written today."""
    scheme = pickle.loads(PICKLES[f"scheme_{name}"]["pickle"])
    text = PICKLES[f"scheme_{name}"]["repr"]
    loaded = nnlr.resolve(network(), scheme, lr=1e-3, weight_decay=0.05)
    if "..." not in text:
        today = eval(text, vars(nnlr))  # noqa: S307 - a repr is the call
        written = nnlr.resolve(network(), today, lr=1e-3, weight_decay=0.05)
        assert [row.lr for row in written] == [row.lr for row in loaded]
        assert [row.weight_decay for row in written] == [row.weight_decay for row in loaded]
    assert len(loaded.rows) == 6


def test_a_plan_says_the_same():
    """A pickled plan, and one saved as JSON, print what they did, and layers, and fit the model.

    But for the decay of what is locked, which acts no more than its rate does.
    """
    plan = pickle.loads(PICKLES["plan"]["pickle"])
    words = iter(str(plan).split())
    text = SAVED["plan_table"]["text"].replace("0.05  locked", "-  locked")
    then = (word for word in text.split() if word.strip("─"))
    assert all(word in words for word in then)  # in that order
    again = nnlr.Plan.from_json(pickle.loads(PICKLES["plan_json"]["pickle"]))
    assert str(plan) == str(again)
    assert 4 <= len(plan.optimizer(torch.optim.AdamW, model=network()).param_groups)


def test_a_schedule_goes_on():
    """An optimizer and its schedule step on from where they were saved."""
    optimizer, scheduler = pickle.loads(PICKLES["schedule"]["pickle"])
    before = scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
    assert before != scheduler.get_last_lr()
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(scheduler.base_lr * group["lr_mult"])


@pytest.mark.parametrize("name", ["plan", "layers", "nnlr.nothing", "torch.plan"])
def test_other_modules_are_as_missing_as_before(name):
    """A user's module may have the name of an old one: whether it is there is not ours to say."""
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module(name)
