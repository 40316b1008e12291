"""nnlr.report.Monitor: table, picture, terminal, files and trackers."""

import json
import math
import os
import pty
import subprocess
import sys

import pytest
import torch
from torch import nn

import nnlr
from nnlr._findings import Findings
from nnlr.report import LayerReading, Monitor, Reading
from nnlr.report._monitor.text import line, table


def reading(step, **ratios):
    """A reading of layers with these ratios."""
    layers = tuple(
        LayerReading(name, "trained", 0.1, 0.1, ratio, 1.0, 2.0) for name, ratio in ratios.items()
    )
    return Reading(step, {"all": 0.1}, layers)


def trained(steps=4, schemes=(), **settings):
    """A monitor that has watched a small network."""
    net = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b", "c")})
    plan = nnlr.resolve(net, nnlr.rule("a.*", lr_mult=0), *schemes, lr=0.1, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.AdamW)
    monitor = Monitor(plan, optimizer, every=2, **settings)
    for _ in range(steps):
        net["c"](net["b"](torch.ones(4, 2))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return monitor


class TestTable:
    def test_the_whole_of_it(self, golden):
        """Layers with all states, courses of a rise and of zeros, findings in full."""
        layers = {
            "embed": [0.0, 0.0, 0.0, 0.0],
            "encoder.block.0": [1e-4, 2e-4, 5e-4, 1e-3],
            "encoder.block.1": [1e-3, 2e-3, 5e-3, math.nan],
            "head\n[red]": [1e-2, 1e-2, 1e-2, math.inf],
        }
        history = [
            reading(50 * at, **{name: ratios[at] for name, ratios in layers.items()})
            for at in range(4)
        ]
        extra = (
            LayerReading("locked", "locked", 0.0, 0.0, 0.0, 0.0, None),
            LayerReading("spare", "trained", 0.1, 0.01, 0.0, 1.0, None),
        )
        last = Reading(200, {"all": 0.1}, (*history[-1].layers, *extra))
        monitor = trained(0)
        monitor.history = [*history, last]
        monitor._findings = [
            nnlr._findings.warning("no-gradient", ["spare"], "1 parameter has none", "Lock it: x")
        ]
        text = str(monitor)
        assert max(map(len, text.splitlines())) <= 80
        golden("monitor", text)

    def test_before_the_first_reading(self):
        """It says so."""
        assert "AdamW: no step was looked at yet" == str(trained(0))

    def test_one_reading_has_no_course(self):
        """There is nothing to draw."""
        text = table([reading(7, a=0.5)], "SGD", Findings())
        assert text.splitlines()[0] == "SGD, step 7"
        assert "course" not in text.splitlines()[1] or "█" not in text

    def test_long_names_and_many_layers(self):
        """80 columns, broken at dots; `lines` keeps the ends and says how many are missing."""
        names = {
            f"backbone.encoder.transformer.layers.{at}.attention.projection": 0.1
            for at in range(30)
        }
        history = [reading(1, **names), reading(2, **names)]
        text = table(history, "SGD", Findings())
        assert max(map(len, text.splitlines())) <= 80
        short = table(history, "SGD", Findings(), lines=5)
        assert 5 == short.count("backbone.")
        assert "layers.0." in short
        assert "layers.29." in short
        assert "... and 25 more layers" in short

    def test_wide_letters_keep_the_columns(self):
        """They take two columns of a terminal each."""
        history = [reading(1, **{"層" * 5: 0.1, "b": 0.1})]
        _, _, _, wide, narrow = table(history, "SGD", Findings()).splitlines()
        assert len(narrow) == len(wide) + 5

    def test_names_that_no_encoding_has(self, tmp_path):
        """A file takes half of a pair of surrogates too."""
        net = nn.ModuleDict({"\ud800": nn.Linear(2, 2)})
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        Monitor(plan, optimizer, jsonl=tmp_path / "run.jsonl")
        optimizer.step()
        (text,) = (tmp_path / "run.jsonl").read_text().splitlines()
        assert ["\ud800"] == list(json.loads(text)["layers"])

    def test_a_long_course_is_thinned(self):
        """Sixteen bars, from the first reading to the last."""
        history = [reading(at, a=10.0 ** (at / 20 - 6)) for at in range(100)]
        (row,) = [row for row in table(history, "SGD", Findings()).splitlines() if row[0] == "a"]
        bars = row.split()[3]
        assert (16, "▁", "█") == (len(bars), bars[0], bars[-1])

    def test_findings_in_short(self):
        """Where lines are few, a line each."""
        monitor = trained(2)
        names = ["a", "b", "c", "d"]
        monitor._findings = [
            nnlr._findings.error("in-no-group", names, "they are in none", "Fix: x")
        ]
        assert "error [in-no-group]: a, b and 2 more" == monitor.table(lines=2).splitlines()[-1]

    def test_lines_are_checked(self):
        """The first and the last, at least."""
        with pytest.raises(nnlr.NnlrError, match="lines must be a whole number >= 2"):
            trained(0).table(lines=1)

    def test_a_line_of_nothing(self):
        """All layers locked."""
        layer = LayerReading("a", "locked", 0.0, 0.0, 0.0, 0.0, None)
        text = line(Reading(3, {}, (layer,)))
        assert "step 3: lr none, |Δw| / |w| none, |gradient| none" == text


class TestPlot:
    def test_a_line_for_each_layer_that_trains(self, tmp_path):
        """In three panels over the steps; saved by its path."""
        pytest.importorskip("matplotlib")
        figure = trained().plot(tmp_path / "run.png")
        assert (tmp_path / "run.png").stat().st_size > 10_000
        assert ["learning rate", "|Δw| / |w| of one step", "|gradient|"] == [
            axes.get_title("left") for axes in figure.axes
        ]
        for axes in figure.axes:
            assert ["b", "c"] == [curve.get_label() for curve in axes.lines]
            assert [1, 2, 4] == list(axes.lines[0].get_xdata())

    def test_layers_that_come_and_go(self):
        """A layer that is unfrozen later begins there; many layers share a short legend."""
        pytest.importorskip("matplotlib")
        monitor = trained(0)
        many = {f"block.with.a.long.name.{at}": 0.1 for at in range(30)}
        monitor.history = [reading(1, late=0.0), reading(2, **many), reading(3, late=0.5, **many)]
        figure = monitor.plot()
        assert 14 == len(figure.legends[0].get_texts())
        late = next(curve for curve in figure.axes[1].lines if curve.get_label() == "late")
        assert [True, True, False] == [math.isnan(value) for value in late.get_ydata()]

    def test_nothing_to_draw_is_an_error(self):
        """Before the first reading."""
        with pytest.raises(nnlr.NnlrError, match="nothing to draw yet"):
            trained(0).plot()


class TestOutputs:
    def test_json_lines(self, tmp_path):
        """A line for each reading and each finding; a second run appends."""
        path = tmp_path / "run.jsonl"
        monitor = trained(2, jsonl=path)
        trained(2, jsonl=str(path))
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        assert [1, 2, 1, 2] == [facts["step"] for facts in lines]
        first = monitor.history[0]
        assert json.loads(json.dumps(first.to_dict())) == lines[0]
        assert ("locked", None, 0.0) == tuple(
            lines[0]["layers"]["a"][key] for key in ("state", "gradient", "ratio")
        )

    @pytest.mark.filterwarnings("ignore::nnlr.NnlrWarning")
    def test_findings_are_among_them(self, tmp_path, capsys):
        """In the file and, in full, among the lines."""
        net = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b")})
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = torch.optim.SGD(net["a"].parameters())
        Monitor(plan, optimizer, live=True, jsonl=tmp_path / "run.jsonl")
        net["a"](torch.ones(1, 2)).sum().backward()
        optimizer.step()
        finding = json.loads((tmp_path / "run.jsonl").read_text().splitlines()[1])["finding"]
        assert ("in-no-group", ["b.weight", "b.bias"]) == (finding["kind"], finding["names"])
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("step 1: lr 0.001, |Δw| / |w| ")
        assert second.startswith("error: the optimizer does not have 2 parameters")

    def test_tensorboard(self, tmp_path):
        """A curve for each number, read back from the file."""
        tensorboard = pytest.importorskip("torch.utils.tensorboard")
        event_accumulator = pytest.importorskip(
            "tensorboard.backend.event_processing.event_accumulator"
        )
        with tensorboard.SummaryWriter(tmp_path) as writer:
            monitor = trained(tensorboard=writer)
        events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
        tags = events.Tags()["scalars"]
        assert {"lr/lr1_wd1", "update_ratio/b", "grad_norm/c"} <= set(tags)
        points = events.Scalars("update_ratio/b")
        assert [1, 2, 4] == [point.step for point in points]
        ratios = [reading.layers[1].ratio for reading in monitor.history]
        assert ratios == pytest.approx([point.value for point in points], rel=1e-6)

    def test_any_function_of_values_and_a_step(self):
        """As wandb.log and accelerator.log are."""
        calls = []
        monitor = trained(log=lambda values, step: calls.append((step, values)))
        assert [(reading.step, reading.scalars()) for reading in monitor.history] == calls
        assert sorted(calls[0][1]) == [
            *("grad_norm/b", "grad_norm/c", "lr/lr1_wd1", "update_ratio/b", "update_ratio/c"),
        ]

    def test_on_a_terminal_one_table_is_drawn_over(self, monkeypatch):
        """The cursor goes up, and is shown again at the end."""
        written = []

        class Terminal:
            encoding = "utf-8"

            def isatty(self):
                return True

            def write(self, text):
                written.append(text)

            def flush(self):
                pass

        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("TERM", "xterm")
        monitor = trained(live=True)
        monitor.close()
        text = "".join(written)
        assert "AdamW, step 4 (3 readings" in text
        assert "\x1b[1A" in text
        assert text.rstrip().endswith("\x1b[?25h")
        monitor.close()

    @pytest.mark.full  # 3 s on an idle machine
    @pytest.mark.no_cover
    def test_a_real_terminal_has_its_cursor_back(self, tmp_path):
        """Also where nobody closes the monitor."""
        script = tmp_path / "run.py"
        script.write_text(
            "import torch, nnlr\n"
            "net = torch.nn.Linear(2, 1)\n"
            "plan = nnlr.resolve(net, lr=0.1, weight_decay=0)\n"
            "optimizer = plan.optimizer(torch.optim.SGD)\n"
            "monitor = nnlr.report.Monitor(plan, optimizer, live=True)\n"
            "net(torch.ones(1, 2)).sum().backward()\n"
            "optimizer.step()\n"
        )
        main, other = pty.openpty()
        env = {**os.environ, "TERM": "xterm"}
        subprocess.run([sys.executable, script], stdout=other, env=env, check=True)
        os.close(other)
        text = os.read(main, 100_000).decode()
        os.close(main)
        assert "SGD, step 1" in text
        assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")
