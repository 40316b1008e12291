"""``nnlr.config.from_finetuning_scheduler``: a schedule of phases, against the original."""

import json
import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import nnlr
from nnlr.config import from_finetuning_scheduler
from nnlr.errors import ConfigError, NnlrWarning, PatternError
from tests.helpers import same_weights

lightning = pytest.importorskip("lightning")
with warnings.catch_warnings(action="ignore"):
    fts = pytest.importorskip("finetuning_scheduler")
light = nnlr.integrations.lightning

SCHEDULE = r"""
0:
  params: [head.weight, head.bias]
  max_transition_epoch: 2
1:
  params: ['blocks\.1\..*', lstm.weight_ih_l0]
  lr: 1e-03
  max_transition_epoch: 3
2:
  params: ['blocks\.0']
  max_transition_epoch: 4
"""

# Every metric of an epoch: it stalls from time to time.
SCORES = [1.0, 0.9, 0.95, 0.92, 0.8, 0.85, 0.81, 0.7, 0.75, 0.76]


class Net(lightning.LightningModule):
    """Two blocks, a recurrent layer and a head; notes what each step trains, and its rate."""

    def __init__(self, scheme=None):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.lstm = nn.LSTM(3, 2, bidirectional=True)
        self.head = nn.Linear(4, 1)
        self.scheme, self.noted = scheme, []

    def training_step(self, batch, _):
        names = {id(param): name for name, param in self.named_parameters()}
        self.noted.append(
            {
                names[id(param)]: float(f"{group['lr']:.12g}")
                for group in self.trainer.optimizers[0].param_groups
                for param in group["params"]
                if param.requires_grad
            }
        )
        return self.head(self.lstm(self.blocks(batch))[0]).square().mean()

    def validation_step(self, batch, _):
        self.log("val_loss", SCORES[self.current_epoch])

    def configure_optimizers(self):
        if self.scheme is None:
            trained = [param for param in self.parameters() if param.requires_grad]
            return torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.05)
        plan = nnlr.resolve(self, self.scheme, lr=1e-2, weight_decay=0.05)
        return light.configure(self, plan, torch.optim.AdamW)


def fit(module, path, epochs, *callbacks):
    """Train a module."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    theirs = module.scheme is None
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*callbacks],
        logger=False,
        enable_checkpointing=theirs,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
    )
    data = DataLoader(torch.ones(2, 3))
    trainer.fit(module, data, data)
    return module


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, and theirs
@pytest.mark.parametrize("by_metric", [True, pytest.param(False, marks=pytest.mark.full)])  # 1 s
def test_the_same_parameters_train_in_the_same_epochs_at_the_same_rates(tmp_path, by_metric):
    """As in the original, with early stopping and without it; the weights are equal in the end."""
    path = tmp_path / "schedule.yaml"
    path.write_text(SCHEDULE)
    settings = {"epoch_transitions_only": not by_metric, "restore_best": False}
    stopping = [fts.FTSEarlyStopping("val_loss", patience=1)] if by_metric else []
    before = Net()
    scheduler = fts.FinetuningScheduler(ft_schedule=str(path), **settings)
    fit(before, tmp_path, 6, scheduler, fts.FTSCheckpoint(tmp_path, monitor="val_loss"), *stopping)
    epochs = len(before.noted) // 2  # theirs ends when the metric stalls in the last phase
    after = Net(from_finetuning_scheduler(path, **settings, patience=1))
    fit(after, tmp_path, epochs, light.EpochCallback("val_loss"))
    assert before.noted == after.noted
    assert 3 == len({len(trained) for trained in after.noted})
    assert same_weights(before, after)


@pytest.mark.full  # 1.5 s
@pytest.mark.filterwarnings("ignore")  # as above
def test_the_schedule_that_it_generates_has_a_name(tmp_path):
    """Two parameters a phase, from the last to the first, each when the metric stalls."""
    stopping = fts.FTSEarlyStopping("val_loss", patience=1)
    checkpoint = fts.FTSCheckpoint(tmp_path, monitor="val_loss")
    scheduler = fts.FinetuningScheduler(restore_best=False)
    before = fit(Net(), tmp_path, 10, scheduler, checkpoint, stopping)
    scheme = nnlr.unfreeze("finetuning_scheduler", patience=1, batch_norm="train")
    after = fit(Net(scheme), tmp_path, 10, light.EpochCallback("val_loss"))
    assert before.noted == after.noted
    assert 12 == len(after.noted[-1])
    # And written out, as the file that it saves.
    [file] = tmp_path.glob("**/*_ft_schedule.yaml")
    scheme = from_finetuning_scheduler(file, restore_best=False, patience=1)
    plan = nnlr.resolve(Net(), scheme, lr=1e-2, weight_decay=0.05)
    other = nnlr.resolve(Net(), nnlr.unfreeze("finetuning_scheduler"), lr=1e-2, weight_decay=0.05)
    assert {row.name: row.lr for row in plan} == {row.name: row.lr for row in other}


def phases(scheme):
    """The phases as data."""
    return nnlr.config.dump(scheme)["unfreeze"]["phases"]


def test_ends_of_phases_are_beginnings_of_the_next():
    """Not two in one epoch; JSON has its keys as text; a phase beyond max_depth never begins."""
    schedule = {str(at): {"params": [f"{at}"], "max_transition_epoch": 2} for at in range(4)}
    made = from_finetuning_scheduler(schedule, base_max_lr=None, max_depth=2)
    begins = [phase.get("epoch") for phase in phases(made)]
    assert [None, 2, 3] == begins
    assert all("lr" not in phase for phase in phases(made))
    data = nnlr.config.dump(made)
    assert repr(nnlr.config.scheme(json.loads(json.dumps(data)))) == repr(made)


def test_other_names_of_a_tied_parameter_open_nothing():
    """It is opened with its first name, as there."""
    net = nn.ModuleDict({"embed": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    net["head"].weight = net["embed"].weight
    entries = [["head.weight", "head.bias"], ["embed"]]
    schedule = {at: {"params": params} for at, params in enumerate(entries)}
    scheme = from_finetuning_scheduler(schedule)
    plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
    assert {"embed.weight": 1e-5, "embed.bias": 1e-5, "head.bias": 1} == {
        r.name: r.lr for r in plan
    }


def test_a_rate_of_phase_0_is_not_read():
    """The base rate is that of resolve."""
    schedule = {0: {"params": ["a"], "lr": 1.0}, 1: {"params": ["b"], "lr": "1e-3"}}
    with pytest.warns(NnlrWarning, match=r"ft_schedule\[?'?0'?\]?.lr: the rate of phase 0 is not"):
        made = from_finetuning_scheduler(schedule)
    assert [None, 1e-3] == [phase.get("lr") for phase in phases(made)]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([], "maps numbers of phases"),
        ({"a": {}}, "'a' is no number of a phase"),
        ({0: {"params": ["a"]}, 2: {"params": ["b"]}}, r"without gaps, got \[0, 2\]"),
        ({0: ["a"], 1: {"params": ["b"]}}, "a phase is a mapping"),
        ({0: {"param": ["a"]}}, "a phase has no 'param'. Nearest: 'params'"),
        ({0: {"params": "a"}}, "needs 'params', a list"),
        ({0: {"params": ["a("]}, 1: {"params": ["b"]}}, "'a\\(' is no regular expression"),
        ({0: {"params": ["a"], "max_transition_epoch": 0}}, "whole number of epochs >= 1"),
        ({0: {"params": ["a"]}, 1: {"params": ["b"], "lr": "fast"}}, "number > 0, got 'fast'"),
        ({0: {"params": ["a"]}, 1: {"params": ["b"], "new_optimizer": {"a": 1}}}, "from the plan"),
        ({0: {"params": ["a"]}, 1: {"params": ["b"], "new_lr_scheduler": {"a": 1}}}, "new course"),
        ({0: {"params": ["a"]}}, "needs at least two phases"),
    ],
)
def test_what_is_no_schedule_is_refused(schedule, message):
    """With the key, and the nearest one."""
    with pytest.raises(ConfigError, match=message):
        from_finetuning_scheduler(schedule)


def test_a_phase_without_an_end_is_refused_where_epochs_alone_end_them():
    """Nothing would end it."""
    schedule = {0: {"params": ["a"]}, 1: {"params": ["b"]}}
    with pytest.raises(ConfigError, match="needs 'max_transition_epoch'"):
        from_finetuning_scheduler(schedule, epoch_transitions_only=True)


@pytest.mark.parametrize(
    ("entry", "message"),
    [("haed.weight", r"Nearest: 'head.weight'"), (r"(blocks|bloks)\.7", "matches no parameter")],
)
def test_an_entry_that_matches_nothing_is_refused_at_resolve(entry, message):
    """With the nearest name."""
    scheme = from_finetuning_scheduler({0: {"params": [entry]}, 1: {"params": ["head"]}})
    with pytest.raises(PatternError, match=message):
        nnlr.resolve(Net(), scheme, lr=1, weight_decay=0)
