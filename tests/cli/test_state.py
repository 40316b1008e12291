"""State files on the command line: names and shapes suffice, and nothing in them is run."""

import argparse
import json
import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import nnlr
from nnlr.cli import _state
from nnlr.errors import NnlrError


class Block(nn.Module):
    """A block of a small transformer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 4)


class Small(nn.Module):
    """An embedding, eleven blocks, a batch norm and a head that shares the embedding's weights."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(11))
        self.last = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embed.weight


class Settings(dict):
    """A class of a user's own, as checkpoints hold them."""


@pytest.fixture
def model():
    """A model to save."""
    return Small()


def names_of(path, key=None):
    """The parameters that are read from a file."""
    return [name for name, _ in _state.read(path, key).model.named_parameters()]


def expected(model):
    """The parameters of the model that was saved."""
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("form", ["plain", "old", "nested", "whole"])
def test_what_torch_saves(tmp_path, model, form):
    """A state, in either format of the file, in a checkpoint, or the whole model.

    Tied tensors stay one parameter, and buffers are left out.
    """
    path = tmp_path / "model.pt"
    state = model.state_dict()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    saved = {
        "plain": state,
        "old": state,
        "nested": {
            "ema": state,
            "model": state,
            "optimizer": optimizer.state_dict(),
            "args": argparse.Namespace(lr=1),
            "best": np.float64(0.5),
            "epoch": 3,
        },
        "whole": model,
    }
    torch.save(saved[form], path, _use_new_zipfile_serialization=form != "old")
    read = _state.read(path, None)
    assert expected(model) == [name for name, _ in read.model.named_parameters()]
    assert {"meta"} == {parameter.device.type for parameter in read.model.parameters()}
    told = " ".join(read.remarks)
    assert ("left out 3 buffers: last.running_mean" in told) == (form != "whole")
    assert ("took 'model'; --arg key=NAME takes another: ema" in told) == (form == "nested")
    if form == "nested":
        assert expected(model) == names_of(path, "ema")


def test_a_plan_of_a_file_is_that_of_the_model(tmp_path, model):
    """Roles, ties and depth follow from names and shapes."""
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path)
    scheme = nnlr.layer_decay(0.5) * nnlr.no_weight_decay()
    plans = [
        nnlr.resolve(source, scheme, lr=1, weight_decay=1)
        for source in (_state.read(path, None).model, model)
    ]
    assert [(row.name, row.lr, row.weight_decay, row.role) for row in plans[0]] == [
        (row.name, row.lr, row.weight_decay, row.role) for row in plans[1]
    ]
    assert "model.pt" == plans[0].label


def test_a_safetensors_file(nnlr_command, tmp_path, model):
    """The header is read; blocks come in the order of their numbers."""
    path = tmp_path / "model.safetensors"
    state = {name: t for name, t in model.state_dict().items() if name != "head.weight"}
    state |= {"codes": torch.zeros(3, dtype=torch.int32), "blocks.0.fc.inv_freq": torch.zeros(2)}
    save_file({name: t.clone() for name, t in state.items()}, path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    status, output, errors = nnlr_command("show", path, "-s", "layer_decay=0.5")
    assert 0 == status
    assert output.startswith("model.safetensors: 48 parameters")
    assert "left out 5 buffers: " in errors
    assert f"the model's own classes tell more: transformers:{tmp_path}" in errors
    names = names_of(path)
    assert names.index("blocks.2.fc.weight") < names.index("blocks.10.fc.weight")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(tmp_path, model, kind):
    """An index names the files, which are beside it; a folder with an index will do."""
    state = {name: t for name, t in model.state_dict().items() if name != "head.weight"}
    halves = [dict(list(state.items())[:20]), dict(list(state.items())[20:])]
    where = {}
    for at, half in enumerate(halves):
        file = f"model-{at}.{kind}"
        save = save_file if kind == "safetensors" else torch.save
        save({name: t.clone() for name, t in half.items()}, tmp_path / file)
        where |= dict.fromkeys(half, file)
    stem = "model" if kind == "safetensors" else "pytorch_model"
    index = tmp_path / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    assert sorted({*expected(model)} - {"head.weight"}) == sorted(names_of(index))
    assert names_of(index) == names_of(tmp_path)


def test_a_folder_with_one_state_file(tmp_path, model):
    """It is that file; of several one has to be named."""
    torch.save(model.state_dict(), tmp_path / "last.pth")
    assert expected(model) == names_of(tmp_path)
    torch.save(model.state_dict(), tmp_path / "best.pth")
    with pytest.raises(NnlrError, match=r"It holds best\.pth, last\.pth: name one"):
        _state.read(tmp_path, None)


class Call:
    """An object whose loading would call a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("function", [os.mkdir, OrderedDict], ids=["dangerous", "harmless"])
def test_nothing_in_a_file_is_run(tmp_path, function, zipped):
    """What would call a function is refused, or stands for nothing."""
    path, folder = tmp_path / "model.pt", tmp_path / "made"
    extra = Call(function, *([str(folder)] if function is os.mkdir else []))
    saved = {"model": {"fc.weight": torch.zeros(2, 2)}, "extra": extra}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    if function is os.mkdir:
        with pytest.raises(NnlrError, match=r"holds more than tensors, such as posix\.mkdir"):
            _state.read(path, None)
    else:
        assert ["fc.weight"] == names_of(path)
    assert not folder.exists()


def test_a_class_of_a_user_is_not_loaded(tmp_path):
    """Its object becomes an empty one, whatever it would do."""
    path = tmp_path / "model.pt"
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}, "x": Call(print, "run!")}, path)
    assert ["fc.weight"] == names_of(path)


def test_a_dict_of_a_class_of_a_user(tmp_path):
    """It cannot be left out, and the message names the class and what to do."""
    path = tmp_path / "model.pt"
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}, "settings": Settings(a=1)}, path)
    with pytest.raises(NnlrError, match=r"such as .*Settings(.|\n)*Fix: save the state alone"):
        _state.read(path, None)


def _texts(tmp_path):
    """Files that hold no model, by name, and what is said of each."""
    zipped = tmp_path / "cut.pt"
    torch.save({"w": torch.zeros(1000)}, zipped)
    whole = tmp_path / "whole.safetensors"
    save_file({"w": torch.zeros(3)}, whole)
    ids = tmp_path / "ids.pt"
    torch.save({"ids": torch.zeros(3, dtype=torch.int64)}, ids)
    listing = tmp_path / "list.pt"
    torch.save([1, 2], listing)
    endless = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pt")
    unwritable = {
        "cut.pt": zipped.read_bytes()[:2000],
        "junk.pt": b"no file of torch",
        "empty.pt": b"",
        "disks.pt": b"PK\x06\x07" + b"\x01" * 16 + b"PK\x05\x06" + b"\0" * 18,
        "empty.safetensors": b"",
        "cut.safetensors": whole.read_bytes()[:20],
        "junk.safetensors": (9).to_bytes(8, "little") + b'{"a": {}}',
        "words.safetensors": (4).to_bytes(8, "little") + b"true",
        "negative.safetensors": (46).to_bytes(8, "little")
        + b'{"w": {"dtype": "F32", "shape": [-1, 2], "a":1}}'[:46],
        "x.npz": b"",
        "list.json": b"[1]",
        "bad.json": b"{",
        "bad.index.json": b"{}",
        "deep.json": b"[" * 100_000,
        "deep.index.json": b"[" * 100_000,
        "lost.index.json": b'{"weight_map": {"w": "gone.bin"}}',
        "number.index.json": b'{"weight_map": {"w": 3}}',
        "up.index.json": b'{"weight_map": {"w": "../cut.pt"}}',
    }
    for name, content in unwritable.items():
        (tmp_path / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.pt", "is not what torch.save writes, or cut off"),
        ("junk.pt", "is not what torch.save writes, or cut off"),
        ("empty.pt", "is not what torch.save writes, or cut off"),
        ("disks.pt", "is not what torch.save writes, or cut off"),
        ("ids.pt", "holds no parameters"),
        ("list.pt", "holds no state of a model"),
        ("empty.safetensors", "is no safetensors file, or cut off"),
        ("cut.safetensors", "is no safetensors file, or cut off"),
        ("junk.safetensors", "is no safetensors file, or cut off"),
        ("words.safetensors", "is no safetensors file, or cut off"),
        ("negative.safetensors", "is no safetensors file, or cut off"),
        ("x.npz", "is no file that nnlr reads: these end in .safetensors, .bin"),
        ("list.json", "is no file that nnlr reads"),
        ("bad.json", "is no JSON file: Expecting"),
        ("deep.json", "is no JSON file: maximum recursion depth"),
        ("deep.index.json", "is no"),
        ("bad.index.json", "is no index of shards: it has no 'weight_map'"),
        ("lost.index.json", "lists 'gone.bin', which is not beside it"),
        ("number.index.json", "lists '3', which is not beside it"),
        ("up.index.json", "lists '../cut.pt', which is not beside it"),
        ("endless.pt", "holds no state of a model"),
        ("nothing", "is a folder. It holds no state file"),
    ],
)
def test_files_that_hold_no_model(nnlr_command, tmp_path, name, message):
    """A line that says what is wrong with it, and no traceback."""
    _texts(tmp_path)
    (tmp_path / "nothing").mkdir()
    status, output, errors = nnlr_command("show", tmp_path / name)
    assert (2, "") == (status, output)
    assert message in errors


def test_odd_names_and_layouts(nnlr_command, tmp_path):
    """A part called like an attribute of a module or like a parameter, and a sparse tensor."""
    path = tmp_path / "odd.pt"
    state = {"training.w": torch.zeros(2), "a": torch.zeros(3), "a.b": torch.zeros(2, 2)}
    torch.save(state | {"sparse": torch.eye(2).to_sparse()}, path)
    assert {*state, "sparse"} == {*names_of(path)}
    assert 0 == nnlr_command("show", path)[0]


@pytest.mark.parametrize("name", ["", ".a", "a.", "a..b"])
def test_names_that_no_model_has(nnlr_command, tmp_path, name):
    """A part without a name."""
    torch.save({name: torch.zeros(2)}, tmp_path / "odd.pt")
    status, _, errors = nnlr_command("show", tmp_path / "odd.pt")
    assert 2 == status
    assert f"odd.pt' holds names that no model has: {name!r}." in errors


def test_keys_of_a_checkpoint(nnlr_command, tmp_path, model):
    """A typo names the nearest, and another argument is refused."""
    path = tmp_path / "model.pt"
    torch.save({"ema": model.state_dict(), "student": {"net": model.state_dict()}}, path)
    assert 0 == nnlr_command("show", path, "-a", "key=student.net")[0]
    assert "Nearest: 'student.net'" in nnlr_command("show", path, "-a", "key=student")[2]
    assert "It has: ema, student.net." in nnlr_command("show", path, "-a", "key=3")[2]
    assert "--arg depth: a file takes no" in nnlr_command("show", path, "-a", "depth=3")[2]
