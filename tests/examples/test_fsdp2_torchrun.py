"""examples/fsdp2_torchrun.py: 2 processes, then 3 with another plan; under torchrun in full."""

import contextlib
import io
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from nnlr import NnlrWarning
from tests.helpers import example
from tests.processes import outcomes, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

SCRIPT = Path(__file__).parents[2] / "examples" / "fsdp2_torchrun.py"


def torchrun(processes, *arguments):
    """What the script prints."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*start, "--nproc-per-node", str(processes), SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(text):
    return [float(number) for number in re.findall(r"loss ([\d.]+)", text)]


class ByHand:
    """The same run in one process, with rates worked out here."""

    def __init__(self):
        self.script = example("fsdp2_torchrun")
        torch.manual_seed(0)
        self.net = self.script.Network()
        self.state = {}

    def train(self, decay, steps):
        groups = []
        for name, parameter in self.net.named_parameters():
            block = re.match(r"blocks\.(\d)", name)
            above = 4 - int(block[1]) if block else 5 if "embedding" in name else 0
            matrix = parameter.ndim > 1
            groups.append(
                {
                    "params": [parameter],
                    "weight_decay": 0.05 if matrix else 0.0,
                    "mult": decay**above,
                }
            )
        optimizer = torch.optim.AdamW(groups)
        optimizer.state.update(self.state)
        found = []
        for step in steps:
            base = 0.001 + 0.009 * (1 + math.cos(math.pi * step / 20)) / 2
            for group in optimizer.param_groups:
                group["lr"] = base * group["mult"]
            source = torch.Generator().manual_seed(step)
            inputs = torch.randn(12, 8, generator=source)
            loss = cross_entropy(self.net(inputs), inputs[:, :5].argmax(dim=1))
            optimizer.zero_grad()
            loss.backward()
            norm = torch.cat([p.grad.flatten() for p in self.net.parameters()]).norm()
            for parameter in self.net.parameters():
                parameter.grad *= min(1.0, 1.0 / (norm + 1e-6))
            optimizer.step()
            found.append(loss.item())
        self.state = dict(optimizer.state)
        return found


def two_then_two(folder):
    """The script saves, and goes on with another plan; one process prints."""
    said = io.StringIO()
    resumed = [str(folder / "b"), "--resume", str(folder / "a"), "--decay", "0.9"]
    for arguments in ([str(folder / "a"), "--steps", "3"], resumed):
        with (
            warnings.catch_warnings(),
            mock.patch.object(sys, "argv", ["fsdp2_torchrun.py", *arguments]),
            mock.patch.dict(os.environ, WORLD_SIZE="2"),
            mock.patch.object(dist, "destroy_process_group"),  # the test's own, used again
            contextlib.redirect_stdout(said),
        ):
            warnings.simplefilter("ignore", NnlrWarning)  # that the plan is another
            example("fsdp2_torchrun").main()
    (folder / f"said.{dist.get_rank()}").write_text(said.getvalue())


@pytest.mark.full  # 6 s
@pytest.mark.no_cover
def test_two_processes_train_as_one(tmp_path):
    """Each plan is printed once, and every loss is that of one process by hand."""
    tell(outcomes([two_then_two], 2, tmp_path)["two_then_two"])
    text = (tmp_path / "said.0").read_text()
    assert "" == (tmp_path / "said.1").read_text()
    assert 2 == text.count("20 parameters (1,295), 12 groups")
    assert 1 == text.count("20 parameters go on with their state")
    assert ["3 readings, step 1 to 3", "5 readings, step 4 to 8"] == re.findall(
        r"AdamW, step \d \((.*)\)", text
    )
    ratios = [float(row.split()[2]) for row in text.splitlines() if row.startswith("blocks.3 ")]
    assert all(1e-3 < ratio < 0.1 for ratio in ratios), ratios
    hand = ByHand()
    expected = hand.train(0.75, range(3)) + hand.train(0.9, range(3, 8))
    assert expected == pytest.approx(losses(text), abs=2e-6)


@pytest.mark.full
def test_three_processes_go_on_with_another_plan(tmp_path):
    """Two processes save, three resume at other rates; and one resumes from three."""
    hand = ByHand()
    text = torchrun(2, tmp_path / "one", "--steps", 3)
    assert 1 == text.count("20 parameters (1,295), 12 groups")
    assert hand.train(0.75, range(3)) == pytest.approx(losses(text), abs=2e-6)
    text = torchrun(3, tmp_path / "two", "--resume", tmp_path / "one", "--decay", 0.9, "--steps", 4)
    assert "20 parameters go on with their state" in text
    assert hand.train(0.9, range(3, 7)) == pytest.approx(losses(text), abs=2e-6)
    text = torchrun(1, tmp_path / "three", "--resume", tmp_path / "two", "--decay", 0.5)
    assert hand.train(0.5, range(7, 12)) == pytest.approx(losses(text), abs=2e-6)
