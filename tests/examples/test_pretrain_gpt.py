"""examples/pretrain_gpt.py does what it says."""

import sys

import pytest
import torch

from tests.helpers import example


@pytest.fixture
def gpt():
    """The script."""
    return example("pretrain_gpt")


def test_muon_trains_the_matrices_of_the_blocks(gpt):
    """All of them, and nothing else; no norm decays."""
    plan, optimizer = gpt.mixed(gpt.GPT())
    matrices = {row.name for row in plan if row.algorithm == "muon"}
    assert matrices == {row.name for row in plan if "blocks" in row.name and len(row.shape) == 2}
    assert {0} == {row.weight_decay for row in plan if "norm" in row.name}
    assert {"muon": 0.02, "adamw": 0.01} == {
        g["algorithm"]: g["lr"] for g in optimizer.param_groups
    }


def test_the_text_is_made_of_its_letters_and_is_the_same_every_time(gpt):
    """Another seed is other text."""
    one, same, other = gpt.text(0, 20), gpt.text(0, 20), gpt.text(1, 20)
    assert torch.equal(one, same)
    assert not torch.equal(one[:99], other[:99])
    assert one.max() < len(gpt.LETTERS)


@pytest.mark.usefixtures("one_thread")
def test_it_learns_and_prints_a_table(gpt, monkeypatch, capsys):
    """A short run: both losses fall from the start, line by line in the table."""
    monkeypatch.setattr(sys, "argv", ["pretrain_gpt.py", "--seeds", "1", "--steps", "20"])
    monkeypatch.setattr(gpt, "LAYERS", 1)
    gpt.main()
    heading, *table = capsys.readouterr().out.splitlines()[-11:]
    assert heading.split() == ["step", "Muon", "and", "AdamW", "AdamW", "alone"]
    first, last = table[0], table[-1]
    assert float(last.split()[1]) < float(first.split()[1])
    assert float(last.split()[5]) < float(first.split()[5])
