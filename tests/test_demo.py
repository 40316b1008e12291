"""nnlr.demo: the example network, its data, its two runs and what they leave behind."""

import copy
import gzip
import io
import json
import math
import re
import sys

import pytest
import torch
from rich.console import Console

import nnlr
from nnlr.demo import compare, record
from nnlr.demo import data as demo_data
from nnlr.demo import train as training
from nnlr.demo.compare import demo, usable_device
from nnlr.demo.idx import read_idx
from nnlr.demo.movement import Layer, layers, ticks, weights
from nnlr.demo.network import network
from nnlr.demo.options import RECIPES, Method, Options
from nnlr.demo.train import batches, count_right, train

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
FILES = [f"{split}-{kind}" for split in ("train", "t10k") for kind in (IMAGES, LABELS)]


def idx(values, kind=0x08):
    """The bytes of an IDX file, written without the reader's help."""
    header = bytes([0, 0, kind, values.dim()])
    lengths = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + lengths + bytes(values.flatten().int().tolist())


def drawn(count, seed):
    """Noisy images with a bright bar whose place is the label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    images = torch.randint(0, 60, (count, 28, 28), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[2 * label + 3 : 2 * label + 6] += 190
    return images.to(torch.uint8), labels.to(torch.uint8)


def contents():
    """The four files of a tiny data set, by name."""
    train_set, test_set = drawn(40, seed=1), drawn(20, seed=2)
    return dict(zip(FILES, map(idx, (*train_set, *test_set)), strict=True))


@pytest.fixture
def folder(tmp_path):
    """A folder with a tiny data set in MNIST's format."""
    place = tmp_path / "mnist"
    place.mkdir()
    for name, content in contents().items():
        (place / name).write_bytes(content)
    return place


def quiet(**settings):
    """Run the demo for two epochs of small batches; the outcome and what it printed."""
    console = Console(file=io.StringIO(), width=80, highlight=False)
    outcome = demo(Options(**{"epochs": 2, "batch_size": 10, **settings}), console)
    return outcome, console.file.getvalue()


def numbers(outcome):
    """All that must not depend on the clock."""
    runs = (outcome.declared, outcome.uniform)
    return outcome.layers, [(run.losses, run.right, run.tested) for run in runs]


class TestNetwork:
    def test_it_has_the_rates_of_the_lua_example(self):
        """conv1 locked, conv2 at 0.1 and 0.2 with an undecayed bias, the rest plain."""
        plan = nnlr.resolve(network(), lr=0.1, weight_decay=1e-4)
        special = {
            "conv1.weight": (0, 0),
            "conv1.bias": (0, 0),
            "conv2.weight": (0.1, 1),
            "conv2.bias": (0.2, 0),
        }
        expected = {row.name: special.get(row.name, (1, 1)) for row in plan.rows}
        assert expected == {row.name: (row.lr_mult, row.wd_mult) for row in plan.rows}
        assert {"conv1.weight", "conv1.bias"} == {row.name for row in plan.rows if row.locked}

    def test_it_needs_images_of_32_by_32(self):
        """The convolutions leave 2352 features, as in the Lua example."""
        net = network()
        assert net.full1.in_features == 2352
        logs = net(torch.zeros(2, 1, 32, 32))
        assert logs.shape == (2, 10)
        assert torch.allclose(torch.ones(2), logs.exp().sum(dim=1))


class TestDigits:
    def test_the_split_is_stratified_and_has_every_image_once(self):
        """Each digit's share of the test images is its share of all, to one image."""
        digits = demo_data.load(None, seed=0)
        assert (1437, 360) == (len(digits.train_labels), len(digits.test_labels))
        train_share = digits.train_labels.bincount() / 1437
        test_share = digits.test_labels.bincount() / 360
        assert (train_share - test_share).abs().max() < 1 / 360
        # All 1,797 differ, so an image in both halves, or in neither, would show.
        everything = torch.cat([digits.train_images, digits.test_images])
        assert len(everything.flatten(1).unique(dim=0)) == 1797

    def test_images_are_enlarged_four_times(self):
        """Each of the 64 pixels becomes a block of 4 x 4."""
        images = demo_data.load(None, seed=0).train_images
        assert images.shape[1:] == (1, 32, 32)
        small = images[:, :, ::4, ::4]
        assert torch.equal(images, small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))

    def test_the_test_images_have_no_say_in_the_normalisation(self):
        """Mean 0 and deviation 1 over the training images; not quite over the others."""
        digits = demo_data.load(None, seed=0)
        assert digits.train_images.mean().item() == pytest.approx(0, abs=1e-5)
        assert digits.train_images.std().item() == pytest.approx(1, abs=1e-5)
        assert abs(digits.test_images.mean().item()) > 1e-5

    def test_the_seed_gives_the_split(self):
        """The same for the same seed, another for another."""
        first, again, other = (demo_data.load(None, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first.test_images, again.test_images)
        assert not torch.equal(first.test_labels, other.test_labels)

    def test_without_scikit_learn_the_error_says_what_to_install(self, monkeypatch):
        """The extra's name, and the way around it."""
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(nnlr.NnlrError, match=r"pip install 'nnlr\[demo\]'.*--data DIR"):
            demo_data.load(None, seed=0)

    def test_mnist_needs_no_scikit_learn(self, monkeypatch, folder):
        """Its files are read without any package beyond torch."""
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        assert len(demo_data.load(folder, seed=0).train_labels) == 40


class TestIdx:
    @pytest.mark.parametrize("zipped", [False, True], ids=["raw", "gz"])
    @pytest.mark.parametrize("dotted", [False, True], ids=["dash", "dot"])
    def test_every_spelling_of_the_files_is_read(self, tmp_path, zipped, dotted):
        """Plain or gzipped, with a dash or a dot before idx: padded by 2, values kept."""
        for name, content in contents().items():
            path = tmp_path / (name.replace("-idx", ".idx") if dotted else name)
            if zipped:
                path = path.with_name(f"{path.name}.gz")
            path.write_bytes(gzip.compress(content) if zipped else content)
        digits = demo_data.load(tmp_path, seed=0)
        images, labels = drawn(40, seed=1)
        padded = torch.zeros(40, 1, 32, 32)
        padded[:, 0, 2:-2, 2:-2] = images.float()
        wanted = (padded - padded.mean()) / padded.std()
        assert torch.allclose(wanted, digits.train_images, atol=1e-6)
        assert labels.tolist() == digits.train_labels.tolist()
        assert digits.test_images.shape == (20, 1, 32, 32)

    def test_whether_a_file_is_gzipped_is_seen_from_its_bytes(self, folder):
        """A gzipped file that lost its suffix is read all the same."""
        path = folder / FILES[0]
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert demo_data.load(folder, seed=0).train_images.shape == (40, 1, 32, 32)

    @pytest.mark.parametrize(
        ("name", "damage", "message"),
        [
            (
                0,
                lambda old: b"",
                r"images-idx3-ubyte: is empty; expected an IDX file of im",
            ),
            (0, lambda old: old[:3], r"begins with 00 00 08; expected .* 00 00 08 03"),
            (
                0,
                lambda old: b"\x89PNG" + old,
                r"begins with 89 50 4e 47; expected an IDX",
            ),
            (0, lambda old: old[:9], r"ends in its header; .*Download it again"),
            (
                0,
                lambda old: old[:-5],
                r"holds only 31,355 of them; expected 31,360 bytes for 40",
            ),
            (
                0,
                lambda old: old + b"!",
                r"holds more; expected 31,360 bytes for 40 images",
            ),
            (
                0,
                lambda old: idx(torch.zeros(3, 28, 28), 0x0D),
                r"32-bit floats \(type byte 0d",
            ),
            (
                0,
                lambda old: idx(torch.zeros(3, 28, 28), 0x77),
                r"unknown type \(type byte 77",
            ),
            (0, lambda old: idx(torch.zeros(40)), r"has 1 axis; expected 3.*swapped"),
            (
                1,
                lambda old: idx(torch.zeros(1, 2, 2)),
                r"has 3 axes; expected 1.*swapped",
            ),
            (
                0,
                lambda old: idx(torch.zeros(4, 8, 9)),
                r"images of 8x9; expected 28x28",
            ),
            (
                0,
                lambda old: idx(torch.zeros(0, 28, 28)),
                r"holds no images; expected at least",
            ),
            (
                1,
                lambda old: idx(torch.zeros(39)),
                r"has 39 labels; expected 40, one for each",
            ),
            (
                3,
                lambda old: idx(torch.full((20,), 10)),
                r"holds the label 10; expected digits",
            ),
            (
                2,
                lambda old: gzip.compress(old)[:-20],
                r"t10k-images-idx3-ubyte: is damaged",
            ),
            (
                2,
                lambda old: gzip.compress(old)[:-8] + b"\1" * 8,
                r"is damaged \(CRC check",
            ),
            (
                2,
                lambda old: b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9,
                r"is damaged \(Error -3",
            ),
        ],
        ids=[
            "empty",
            "short-magic",
            "other-format",
            "short-header",
            "truncated",
            "too-long",
            "floats",
            "unknown-type",
            "labels-as-images",
            "images-as-labels",
            "wrong-size",
            "no-images",
            "wrong-count",
            "wrong-label",
            "gz-truncated",
            "gz-wrong-sum",
            "gz-garbage",
        ],
    )
    def test_a_bad_file_is_named_with_what_it_holds(self, folder, name, damage, message):
        """The file, what was found, what was expected and what to do, in that order."""
        path = folder / FILES[name]
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(nnlr.NnlrError, match=f"(?s){message}") as caught:
            quiet(data=folder)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n  Fix: " in str(caught.value)
        assert caught.value.path == path

    @pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gz"])
    def test_a_header_that_promises_terabytes_is_refused(self, folder, pack):
        """Only what is there is read; a single request of that size runs out of memory."""
        path = folder / FILES[0]
        content = path.read_bytes()
        path.write_bytes(pack(content[:4] + b"\xff" * 4 + content[8:]))
        with pytest.raises(
            nnlr.NnlrError, match=r"only 31,360 of them; .* for 4,294,967,295 images"
        ):
            quiet(data=folder)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named_with_all_its_spellings(self, folder, name):
        """So that one sees what was looked for."""
        (folder / name).unlink()
        dotted = name.replace("-idx", ".idx")
        spellings = f"looked for {name}, {name}.gz, {dotted}, {dotted}.gz."
        with pytest.raises(nnlr.NnlrError, match=spellings.replace(".", r"\.")):
            quiet(data=folder)

    def test_a_folder_that_is_none_is_refused(self, folder):
        """Missing, or a file."""
        with pytest.raises(nnlr.NnlrError, match=r"nowhere: does not exist; expected a folder"):
            quiet(data=folder / "nowhere")
        with pytest.raises(nnlr.NnlrError, match=r"ubyte: is a file, not a folder"):
            quiet(data=folder / FILES[0])

    def test_a_file_that_cannot_be_opened_is_refused(self, folder):
        """With the system's reason."""
        (folder / "sub").mkdir()
        with pytest.raises(nnlr.NnlrError, match=r"sub: cannot be read: Is a directory"):
            read_idx(folder / "sub", axes=1)

    @pytest.mark.parametrize(
        ("count", "shade", "message"),
        [
            (1, 9, r"train on 1 image\(s\)"),
            (8, 0, r"8 image\(s\) with pixels that vary by 0"),
        ],
        ids=["one-image", "blank"],
    )
    def test_images_that_cannot_be_trained_on_are_refused(self, folder, count, shade, message):
        """A single one, or blank ones: batch norm and the normalisation would fail."""
        images = torch.zeros(count, 28, 28)
        images[:, 0, 0] = shade
        (folder / FILES[0]).write_bytes(idx(images))
        (folder / FILES[1]).write_bytes(idx(torch.zeros(count)))
        with pytest.raises(nnlr.NnlrError, match=message):
            quiet(data=folder)


class TestTraining:
    def test_the_clock_runs_while_training_only(self, folder, monkeypatch):
        """Building the first optimizer of a process imports much, which is not training."""
        now = [0.0]
        build = training._stepper

        def slow(*given):
            now[0] += 1000
            return build(*given)

        monkeypatch.setattr(training, "_stepper", slow)
        monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
        outcome, _ = quiet(data=folder, epochs=1)
        assert (0, 0) == (outcome.declared.seconds, outcome.uniform.seconds)

    def test_a_seed_gives_the_same_numbers_twice(self, folder):
        """Bit for bit on the CPU, whatever the caller drew from torch's generator."""
        first, _ = quiet(data=folder)
        torch.rand(3)
        again, _ = quiet(data=folder)
        other, _ = quiet(data=folder, seed=1)
        assert numbers(first) == numbers(again)
        assert numbers(first) != numbers(other)

    def test_the_callers_random_numbers_stay(self, folder):
        """The demo seeds itself and leaves torch's generator as it was."""
        state = torch.get_rng_state()
        quiet(data=folder)
        assert torch.equal(state, torch.get_rng_state())

    @pytest.mark.parametrize("method", Method)
    def test_the_locked_layer_moves_by_exactly_0(self, folder, method):
        """However it is trained; every other layer moves, and so does it at one rate."""
        outcome, _ = quiet(data=folder, optimizer=method)
        conv1, *others = outcome.layers
        assert ("conv1", True, 0.0) == (conv1.name, conv1.locked, conv1.declared)
        assert conv1.uniform > 0
        assert all(layer.declared > 0 and not layer.locked for layer in others)

    @pytest.mark.parametrize("declared", [True, False], ids=["declared", "uniform"])
    def test_the_torch7_way_comes_to_the_same_as_sgd(self, folder, declared):
        """To float32 round-off, in every weight and running statistic, after 20 steps."""
        digits = demo_data.load(folder, seed=0)
        torch.manual_seed(0)
        start, trained = network(), {}
        for method in (Method.sgd, Method.torch7):
            net = copy.deepcopy(start)
            source = net if declared else dict(net.named_parameters())
            plan = nnlr.resolve(source, lr=0.1, weight_decay=1e-4)
            options = Options(optimizer=method, epochs=5, batch_size=10)
            train(net, plan, digits, options, tick=lambda: None)
            trained[method] = net.state_dict()
        for name, expected in trained[Method.sgd].items():
            actual = trained[Method.torch7][name]
            assert torch.allclose(expected, actual, rtol=1e-4, atol=1e-5), name

    def test_the_torch7_way_steps_the_flattened_parameters(self, folder, monkeypatch):
        """Every step of both runs goes through nnlr.torch7.sgd, with the plan's vectors."""
        steps = []

        def spy(feval, x, config):
            steps.append((x, config["learning_rates"], config["weight_decays"]))
            return sgd(feval, x, config)

        sgd = nnlr.torch7.sgd
        monkeypatch.setattr(nnlr.torch7, "sgd", spy)
        quiet(data=folder, epochs=1, optimizer=Method.torch7)
        assert len(steps) == 2 * 4
        expected = nnlr.get_optim_config(network(), 0.1, 1e-4)
        for x, *vectors in steps[:4]:
            assert x is steps[0][0]
            assert all(map(torch.equal, expected, vectors))
        for x, rates, decays in steps[4:]:
            assert torch.equal(torch.full_like(x, 0.1), rates)
            assert torch.equal(torch.full_like(x, 1e-4), decays)

    def test_the_rates_of_both_sgds_are_those_of_torch7(self):
        """Base lr 0.1, decay 0.0001, momentum 0.9, dampening as Torch7 has it."""
        for method in (Method.sgd, Method.torch7):
            recipe = RECIPES[method]
            assert (0.1, 1e-4) == (recipe.lr, recipe.weight_decay)
            assert {"momentum": 0.9, "dampening": 0.9} == recipe.settings

    @pytest.mark.parametrize(("images", "size"), [(1437, 64), (10, 64), (65, 64), (40, 10)])
    def test_an_epoch_has_every_image_once_in_even_batches(self, images, size):
        """Shuffled, none smaller than asked for unless there are too few images."""
        parts = list(batches(images, size, torch.Generator().manual_seed(0)))
        assert list(range(images)) == sorted(torch.cat(parts).tolist())
        assert list(range(images)) != torch.cat(parts).tolist()
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert min(size, images) <= min(sizes) <= max(size, images)

    def test_right_answers_are_counted_over_all_parts(self):
        """2,500 images in three parts, of which the even ones are told right."""
        truth = torch.arange(2500) % 10
        told = torch.where(truth % 2 == 0, truth, (truth + 1) % 10)
        images = torch.nn.functional.one_hot(told, 10).float()
        assert count_right(torch.nn.Identity(), images, truth) == 1250

    def test_a_loss_that_is_no_number_ends_the_run(self, folder):
        """With the epoch in the message, rather than a table of nan."""
        digits = demo_data.load(folder, seed=0)
        digits.train_images[0] = math.nan
        net = network()
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        options = Options(epochs=1, batch_size=10)
        with pytest.raises(nnlr.NnlrError, match=r"loss became nan in epoch 1"):
            train(net, plan, digits, options, tick=lambda: None)

    @pytest.mark.no_cover
    def test_real_digits_are_learnt(self):
        """Two epochs on scikit-learn's digits tell nine of ten test images right."""
        outcome, _ = quiet(batch_size=64)
        assert outcome.declared.tested == outcome.uniform.tested == 360
        assert outcome.declared.accuracy >= 0.9
        assert outcome.declared.losses[1] < outcome.declared.losses[0]

    @pytest.mark.full
    @pytest.mark.parametrize("method", Method)
    def test_the_defaults_reach_95_percent(self, method):
        """The declared rates, on unseen digits, with each optimizer."""
        outcome, _ = quiet(epochs=Options().epochs, batch_size=64, optimizer=method)
        assert outcome.declared.accuracy >= 0.95


class TestMovement:
    def test_it_is_the_distance_over_the_norm_of_the_whole_layer(self):
        """Weight and bias together, against plain arithmetic."""
        net = torch.nn.Sequential(torch.nn.Linear(2, 1))
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        before = {"0.weight": torch.tensor([[1.0, 2.0]]), "0.bias": torch.tensor([2.0])}
        after = {"0.weight": torch.tensor([[1.0, 2.0]]), "0.bias": torch.tensor([5.0])}
        (layer,) = layers(plan, before, after, before)
        assert (1.0, 0.0) == (layer.declared, layer.uniform)
        assert ("0", 3, "1") == (layer.name, layer.numel, layer.rates)

    def test_weights_are_copies(self):
        """What was saved before stays as it was."""
        net = torch.nn.Linear(2, 1)
        before = weights(net)
        old = before["bias"].clone()
        with torch.no_grad():
            net.bias += 1
        assert torch.equal(old, before["bias"])
        assert before["bias"].dtype == torch.float64

    def test_a_locked_layer_that_moved_is_an_error(self):
        """The promise is checked, whatever the optimizer did."""
        net = network()
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        before, after = weights(net), weights(net)
        after["conv1.bias"][3] += 1e-7
        with pytest.raises(nnlr.NnlrError, match=r"conv1 is locked, yet it moved by .*bug"):
            layers(plan, before, after, before)

    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0.03, 0.4, [0.02, 0.05, 0.1, 0.2, 0.5]),
            (1.0, 1.0, [1.0, 2.0]),
            (
                math.nextafter(0.001, 0),
                0.2,
                [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
            ),
            (7e-10, 8e-10, [5e-10, 1e-9]),
        ],
    )
    def test_the_scale_encloses_what_moved(self, low, high, expected):
        """Tight, above the largest, and blind to an exact 0."""
        pair = Layer(
            name="a",
            numel=1,
            lr_mult={},
            wd_mult={},
            locked=False,
            declared=low,
            uniform=high,
        )
        still = Layer(
            name="b",
            numel=1,
            lr_mult={},
            wd_mult={},
            locked=True,
            declared=0,
            uniform=high,
        )
        assert expected == ticks([pair, still])


class TestPrinted:
    def test_the_plan_the_movement_and_both_accuracies_are_there(self, folder):
        """In 80 columns, without escape codes where it is no terminal."""
        outcome, text = quiet(data=folder, epochs=1)
        net = network()
        assert str(nnlr.resolve(net, lr=0.1, weight_decay=1e-4)) in text
        assert "40 to train, 20 to test" in text
        assert "1 epoch of 4 batches, seed 0, on cpu" in text
        assert "torch.optim.SGD, momentum 0.9, dampening 0.9" in text
        for layer in outcome.layers:
            assert f"\n{layer.name} " in text.partition("How far each layer moved")[2]
        for run in (outcome.declared, outcome.uniform):
            assert f"test accuracy {run.accuracy:.1%} ({run.right} of 20)" in text
        assert "conv1 is locked and moved by exactly 0" in text
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 80

    @pytest.mark.parametrize("width", [40, 60, 76])
    def test_a_narrow_console_gets_the_numbers_without_the_tracks(self, folder, width):
        """Whole rows, nothing cut and no blanks at the ends of lines."""
        console = Console(file=io.StringIO(), width=width, highlight=False)
        demo(Options(data=folder, epochs=1, batch_size=10), console)
        lines = console.file.getvalue().partition("How far")[2].splitlines()
        assert max(map(len, lines)) <= width
        assert any(re.fullmatch(r"conv2   0\.1 / 0\.2 +[\d.]+ +[\d.]+", x) for x in lines)
        assert "●" not in "".join(lines)
        assert "…" not in "".join(lines)
        assert [] == [line for line in lines if line.endswith(" ")]

    def test_the_tracks_need_77_columns(self, folder):
        """And get them."""
        console = Console(file=io.StringIO(), width=77, highlight=False)
        demo(Options(data=folder, epochs=1, batch_size=10), console)
        lines = console.file.getvalue().partition("How far")[2].splitlines()
        assert any(line.startswith("conv1 ") and "●─" in line for line in lines)
        assert lines[-1] == "locked: it went on learning."
        assert lines[-2].endswith("is not")

    @pytest.mark.parametrize(("count", "text"), [(1, "1 thread"), (2, "2 threads")])
    def test_threads_are_counted(self, folder, monkeypatch, count, text):
        """One is not several."""
        monkeypatch.setattr(torch, "get_num_threads", lambda: count)
        assert f"on cpu, {text}\n" in quiet(data=folder, epochs=1)[1]

    def test_the_base_rates_of_adamw_are_printed(self, folder):
        """It has rates of its own."""
        _, text = quiet(data=folder, epochs=1, optimizer=Method.adamw)
        assert "base rates  lr 0.001, weight decay 0.01" in text

    def test_marks_stand_where_the_numbers_are(self, folder, golden, monkeypatch):
        """Exact zeros apart, equal places as one mark, small numbers in short form."""
        fixed = [
            ("conv1", "locked", 0.0, 0.4),
            ("conv2", "0.1 / 0.2", 0.0123, 0.2),
            ("full1", "1", 1.5, 1.51),
            ("full2", "1", 0.00021, 0.03),
        ]
        made = [
            Layer(
                name=name,
                numel=1,
                lr_mult=dict(enumerate(map(float, rates.split(" / ")))) if locked else {},
                wd_mult={},
                locked=not locked,
                declared=declared,
                uniform=uniform,
            )
            for name, rates, declared, uniform in fixed
            for locked in [rates != "locked"]
        ]
        monkeypatch.setattr(compare, "layers", lambda *_: made)
        _, text = quiet(data=folder, epochs=1)
        table = text.partition("How far")[2].partition("● declared rates")[0]
        golden("demo_movement", "How far" + "\n".join(map(str.rstrip, table.splitlines())))

    def test_a_terminal_gets_a_bar_for_each_run(self, folder):
        """Which goes away at the end."""
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        demo(Options(data=folder, epochs=1, batch_size=10), console)
        text = console.file.getvalue()
        before_table = text.partition("How far each layer")[0]
        for run in ("declared rates", "one rate for all"):
            assert run in before_table
        assert "100 %" in before_table


class TestDevice:
    @pytest.mark.parametrize("name", ["cuda:99", "mps:99", "xpu:99", "meta", "fridge", ""])
    def test_what_is_not_here_is_refused_with_what_is(self, name):
        """Before anything is loaded, in one message."""
        with pytest.raises(nnlr.NnlrError, match=r"--device .*cannot be used \(.*\n.*: cpu"):
            usable_device(name)

    def test_a_long_reason_is_cut(self):
        """Torch lists every backend there is."""
        with pytest.raises(nnlr.NnlrError, match=r"\(Expected one of cpu.* \.\.\.\)") as e:
            usable_device("fridge")
        assert len(str(e.value).splitlines()[0]) <= 150

    def test_an_accelerator_is_offered(self, monkeypatch):
        """By its type, beside the CPU."""
        found = torch.device("cuda")
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: found)
        with pytest.raises(nnlr.NnlrError, match=r"choose what is here: cpu, cuda\."):
            usable_device("fridge")


class TestRecord:
    def test_the_numbers_and_the_picture_are_written(self, folder, tmp_path):
        """The folder is made; the JSON has all that was printed, and more."""
        out = tmp_path / "new" / "folder"
        outcome, text = quiet(data=folder, out=out, optimizer=Method.adamw, seed=3)
        found = json.loads((out / "movement.json").read_text())
        options = {
            "data": str(folder),
            "optimizer": "adamw",
            "epochs": 2,
            "batch_size": 10,
            "seed": 3,
            "device": "cpu",
            "out": str(out),
        }
        assert options == found["options"]
        wanted = {"name": "torch.optim.AdamW", "lr": 0.001, "weight_decay": 0.01}
        assert wanted == found["optimizer"]
        assert (40, 20) == (found["data"]["train"], found["data"]["test"])
        movements = [(layer.name, layer.declared, layer.uniform) for layer in outcome.layers]
        assert movements == [
            (layer["name"], layer["declared"], layer["uniform"]) for layer in found["layers"]
        ]
        assert found["layers"][0]["locked"] is True
        assert {"weight": 0.1, "bias": 0.2} == found["layers"][2]["lr_mult"]
        assert {"weight": 1.0, "bias": 0.0} == found["layers"][2]["wd_mult"]
        for name in ("declared", "uniform"):
            run = getattr(outcome, name)
            assert list(run.losses) == found["runs"][name]["losses"]
            assert run.right / 20 == found["runs"][name]["test_accuracy"]
            assert 0 < found["runs"][name]["seconds"] <= found["seconds"]
        assert nnlr.__version__ == found["versions"]["nnlr"]
        picture = (out / "movement.png").read_bytes()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(picture) > 10_000
        assert sorted(path.name for path in out.iterdir()) == [
            "movement.json",
            "movement.png",
        ]
        assert "movement.json" in text

    def test_a_run_on_digits_says_null_for_no_folder(self):
        """Options that were not given are null."""
        options = Options()
        run = training.Run(losses=(1.0,), right=1, tested=2, seconds=0.1)
        outcome = record.Outcome(layers=[], declared=run, uniform=run, seconds=1.0)
        facts = record.facts(options, demo_data.load(None, seed=0), outcome)
        assert (None, None) == (facts["options"]["data"], facts["options"]["out"])

    def test_a_package_that_is_not_there_has_no_version(self, monkeypatch, folder):
        """Null, not an error."""
        monkeypatch.setattr(record, "_PACKAGES", ("torch", "no-such-package"))
        run = training.Run(losses=(1.0,), right=1, tested=2, seconds=0.1)
        outcome = record.Outcome(layers=[], declared=run, uniform=run, seconds=1.0)
        facts = record.facts(Options(), demo_data.load(folder, seed=0), outcome)
        assert facts["versions"]["no-such-package"] is None
        assert facts["versions"]["torch"]

    def test_without_matplotlib_only_the_picture_is_refused(self, monkeypatch, folder, tmp_path):
        """Before any training; without --out the demo runs as ever."""
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(nnlr.NnlrError, match=r"matplotlib.*\n.*'nnlr\[demo\]'.*--out"):
            quiet(data=folder, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        outcome, _ = quiet(data=folder, epochs=1)
        assert outcome.layers[0].declared == 0

    def test_a_place_that_cannot_be_written_to_is_refused_first(self, folder):
        """Here a file stands where the folder should be."""
        for out in (folder / FILES[0], folder / FILES[0] / "below"):
            with pytest.raises(nnlr.NnlrError, match=r"--out .*cannot be written to: .*\n.*Fix"):
                quiet(data=folder / "never looked at", out=out)
