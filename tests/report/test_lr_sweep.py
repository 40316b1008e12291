"""The sweep over learning rates: where the optimum is, and whether it moves."""

import math
import random
import sys

import pytest
import torch

from nnlr.errors import NnlrError
from nnlr.report import lr_sweep

LRS = [2.0**octave for octave in range(-6, 0)]
NAN = float("nan")

pytestmark = pytest.mark.usefixtures("one_thread")


def valley(best, seed_moves=0.0):
    """Losses with their minimum of 1 at a rate that may depend on width."""

    def train(width, lr):
        shift = seed_moves * (torch.initial_seed() % 2)
        return 1 + (math.log2(lr / best(width)) + shift) ** 2

    return train


drifting = valley(lambda width: 1 / width)
staying = valley(lambda width: 1 / 8)


class TestOptimum:
    """Where the best rate is."""

    def test_a_drift_is_found(self):
        """An optimum that halves with each doubling moves by one octave for each."""
        sweep = lr_sweep(drifting, [4, 8, 16], LRS, seeds=[0])
        assert {4: 1 / 4, 8: 1 / 8, 16: 1 / 16} == sweep.best
        assert -2.0 == sweep.drift
        assert [1.0, 2.0, 5.0] == [sweep.regret(width) for width in sweep.widths]
        assert () == sweep.at_edge()

    def test_what_stays_put_does_not_drift(self):
        """No drift, and the narrow model's rate is the wide one's."""
        sweep = lr_sweep(staying, [4, 64], LRS, seeds=[0])
        assert 0.0 == sweep.drift
        assert 1.0 == sweep.regret(64)

    def test_seeds_are_averaged_and_kept_apart(self):
        """The best rate is that of the mean loss; the seeds' own show how sure it is."""
        sweep = lr_sweep(valley(lambda _: 1 / 8, 2.0), [2, 4], LRS, seeds=[0, 1])
        assert {2: 1 / 16, 4: 1 / 16} == sweep.best
        assert (1 / 8, 1 / 32) == sweep.best_of_seeds(2)
        assert 2.0 == sweep.losses(2)[1 / 16]

    def test_an_optimum_at_the_edge_is_pointed_out(self):
        """The smallest or largest rate may not be the best there is."""
        sweep = lr_sweep(valley(lambda width: 1 / width), [2, 8, 64], LRS, seeds=[0])
        assert (2, 64) == sweep.at_edge()
        assert "best lr at the edge for width 2, 64: try more rates" in sweep.table()

    def test_divergence_is_no_optimum(self):
        """NaN and infinity lose against any number, in one seed as well."""

        def train(width, lr):
            if lr == 1 / 8 and torch.initial_seed() == 1:
                return NAN
            return torch.tensor(math.inf) if lr > 1 / 8 else staying(width, lr)

        sweep = lr_sweep(train, [2, 4], LRS, seeds=[0, 1])
        assert {2: 1 / 16, 4: 1 / 16} == sweep.best
        assert [math.inf] * 3 == [sweep.losses(2)[lr] for lr in (1 / 8, 1 / 4, 1 / 2)]
        assert {math.inf} == {row.loss for row in sweep.rows if row.lr > 1 / 8}

    def test_all_diverged(self):
        """A width where nothing trains has no best rate, and the table says so."""
        sweep = lr_sweep(
            lambda width, lr: NAN if width == 4 else staying(width, lr),
            [2, 4],
            LRS,
            seeds=[0, 1],
        )
        assert math.isnan(sweep.best[4])
        assert math.isnan(sweep.drift)
        assert math.isnan(sweep.regret(4))
        assert "every run diverged at width 4" in sweep.table()

    def test_a_loss_of_zero_has_no_ratio(self):
        """Where the lowest loss is 0 a ratio means nothing."""
        sweep = lr_sweep(lambda width, lr: lr - LRS[0], [2, 4], LRS, seeds=[0])
        assert math.isnan(sweep.regret(4))

    def test_an_unknown_width_is_refused(self):
        """Asking for a width that was not run is an error, not an empty answer."""
        with pytest.raises(NnlrError, match=r"No run has the width 3; widths: \(2, 4\)"):
            lr_sweep(staying, [2, 4], LRS, seeds=[0]).losses(3)


class TestRuns:
    """How `train` is called."""

    def test_every_run_is_seeded_alike(self):
        """Each run gets the random numbers of its seed, whatever ran before."""
        drawn = {}

        def train(width, lr):
            seed = torch.initial_seed()
            drawn.setdefault(seed, set()).add((torch.rand(()).item(), random.getrandbits(32)))
            return 1.0

        sweep = lr_sweep(train, [4, 2], LRS[::-1], seeds=[5, 3])
        assert {5: 1, 3: 1} == {seed: len(values) for seed, values in drawn.items()}
        assert ((2, 4), tuple(LRS), (5, 3)) == (sweep.widths, sweep.lrs, sweep.seeds)
        assert 2 * 2 * len(LRS) == len(sweep.rows)

    def test_random_states_come_back(self):
        """The caller's next random numbers are those that would have come, errors or not."""
        torch.manual_seed(5)
        random.seed(5)
        expected = torch.rand(3), random.getrandbits(32)
        torch.manual_seed(5)
        random.seed(5)
        lr_sweep(lambda width, lr: torch.rand(()).item(), [2, 4], LRS)
        with pytest.raises(RuntimeError, match="broken"):
            lr_sweep(broken, [2, 4], LRS)
        actual = torch.rand(3), random.getrandbits(32)
        assert torch.equal(expected[0], actual[0])
        assert expected[1] == actual[1]

    def test_progress_goes_to_standard_error(self, capsys):
        """A bar only where one is wanted, and never between the results."""
        lr_sweep(staying, [2, 4], LRS)
        assert ("", "") == capsys.readouterr()
        lr_sweep(staying, [2, 4], LRS, progress=True)
        assert "" == capsys.readouterr().out


def broken(width, lr):
    """A run that fails."""
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": [8]}, r"widths must be 2 or more different positive numbers, got \[8\]"),
        ({"lrs": [0.1, 0.2]}, r"lrs must be 3 or more different .* got \[0.1, 0.2\]"),
        ({"lrs": [0.1, 0.2, -1]}, "each of lrs must be a finite number > 0, got -1"),
        ({"lrs": [0.1, 0.2, NAN]}, "each of lrs must be a finite number > 0, got nan"),
        ({"lrs": 0.1}, r"lrs must be 3 or more positive numbers, got 0\.1"),
        ({"seeds": []}, r"seeds must be different whole numbers .* got \[\]"),
        ({"seeds": [0.5]}, r"each of seeds must be a whole number >= 0, got 0\.5"),
        ({"train": lambda width, lr: None}, "train must return the final loss as a .*None"),
        ({"train": lambda width, lr: True}, "train must return the final loss as a .*True"),
        ({"train": lambda width, lr: torch.ones(2)}, "train must return the final loss as"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(arguments, message):
    """Bad arguments and results are refused, with what would be right."""
    given = {"train": staying, "widths": [4, 8], "lrs": LRS, **arguments}
    with pytest.raises(NnlrError, match=message):
        lr_sweep(**given)


def test_the_table_has_a_line_for_each_width():
    """Best rate, its octave, the seeds' range, the losses and their ratio, in 80 columns."""
    sweep = lr_sweep(drifting, [4, 16], LRS, label="by hand")
    text = str(sweep)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "4 0.25 -2 -2 1 1 1.00" in lines
    assert "16 0.0625 -4 -4 1 5 5.00" in lines
    assert "by hand: 6 rates from 0.01562 to 0.5, 3 seeds" == lines[0]
    drift = "-2.0 octaves, -1.00 per doubling of the width"
    assert f"best lr from width 4 to 16: {drift}" == lines[-1]
    assert max(map(len, text.splitlines())) <= 80


def test_rates_that_are_no_powers_of_two():
    """Octaves of other rates have a decimal, and seeds that differ a range."""
    sweep = lr_sweep(valley(lambda _: 0.1, 4.0), [2, 4], [0.01, 0.1, 1.0], seeds=[0, 1])
    assert "-6.6 to -3.3" in sweep.table()


class TestPicture:
    """What is drawn."""

    def test_one_or_several_sweeps(self, tmp_path):
        """A picture for one sweep, and a wider one for two."""
        one = lr_sweep(drifting, [4, 8, 16], LRS, seeds=[0])
        one.plot(str(tmp_path / "one.png"))
        one.plot(tmp_path / "two.png", lr_sweep(staying, [4, 8], LRS, seeds=[0]))
        widths = [
            int.from_bytes((tmp_path / name).read_bytes()[16:20], "big")
            for name in ("one.png", "two.png")
        ]
        assert widths[0] < widths[1]

    def test_divergence_and_zeros_can_be_drawn(self, tmp_path):
        """Infinite and zero losses, even nothing else, are no trouble."""

        def train(width, lr):
            return {2: NAN, 4: 0.0}.get(width, staying(width, lr))

        lr_sweep(train, [2, 4, 8], LRS, seeds=[0]).plot(tmp_path / "some.svg")
        lr_sweep(train, [1, 2], LRS, seeds=[0]).plot(tmp_path / "more.svg")
        lr_sweep(lambda *_: NAN, [2, 4], LRS, seeds=[0]).plot(tmp_path / "none.svg")
        assert 3 == len(list(tmp_path.iterdir()))

    def test_without_matplotlib(self, tmp_path, monkeypatch):
        """The error says what to install."""
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(NnlrError, match=r"pip install 'nnlr\[plot\]'"):
            lr_sweep(staying, [2, 4], LRS).plot(tmp_path / "none.png")


class TestArguments:
    SWEEP = lr_sweep(lambda width, lr: lr, [1, 2], [0.1, 0.2, 0.4], seeds=[0])

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda s: s.losses(3), r"No run has the width 3; widths: \(1, 2\)"),
            (lambda s: s.losses(True), "width must be a whole number, got True"),
            (lambda s: s.best_of_seeds(3), "No run has the width 3"),
            (lambda s: s.regret("1"), "width must be a whole number, got '1'"),
            (lambda s: s.plot(None), "path must be that of a picture"),
            (lambda s: s.plot("a.png", 3), r"each of others must be a LrSweep, got 3"),
        ],
    )
    def test_of_the_result(self, call, message):
        """A width is one of those that were run."""
        with pytest.raises(NnlrError, match=message):
            call(self.SWEEP)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"train": 3}, r"train must be a function such as def train\(width, lr\)"),
            ({"train": lambda width, lr: torch.zeros((), device="meta")}, "final loss as a number"),
            ({"widths": [1.5, 2]}, r"each of widths must be a whole number >= 1, got 1\.5"),
            ({"lrs": torch.tensor(1.0)}, r"lrs must be 3 or more positive numbers, got tensor"),
            ({"label": 3}, "label must be a string"),
            ({"progress": "no"}, "progress must be True or False, got 'no'"),
            ({"seeds": [2**70]}, "seeds must be different whole numbers"),
        ],
    )
    def test_of_the_sweep(self, changed, message):
        """Before anything is trained."""
        arguments = {"train": lambda w, lr: lr, "widths": [1, 2], "lrs": [0.1, 0.2, 0.4]} | changed
        with pytest.raises(NnlrError, match=message):
            lr_sweep(**arguments)
