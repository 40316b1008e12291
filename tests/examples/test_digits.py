"""examples/digits: the network, its data, its two runs and what they print and write."""

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
from tests.helpers import example, hide_package

demo = example("digits/demo")
data = example("digits/data")
train = example("digits/train")
eye, show = (sys.modules[name] for name in ("eye", "show"))  # which the demo imported

pytestmark = [pytest.mark.no_cover, pytest.mark.usefixtures("one_thread")]

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
    return dict(zip(FILES, map(idx, (*drawn(40, seed=1), *drawn(20, seed=2))), strict=True))


@pytest.fixture
def folder(tmp_path):
    """A folder with a tiny data set in MNIST's format."""
    place = tmp_path / "mnist"
    place.mkdir()
    for name, content in contents().items():
        (place / name).write_bytes(content)
    return place


def parsed(**settings):
    """Options: two epochs of small batches, unless told otherwise."""
    settings = {"epochs": 2, "batch_size": 10, **settings}
    return demo.parse([f"--{key.replace('_', '-')}={value}" for key, value in settings.items()])


def run(width=80, **settings):
    """Run the demo; what it returned and what it printed."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    facts = demo.run(parsed(**settings), console)
    return facts, console.file.getvalue()


def numbers(facts):
    """All that must not depend on the clock."""
    runs = [(run["losses"], run["right"], run["tested"]) for run in facts["runs"].values()]
    return facts["layers"], runs


class TestNetwork:
    def test_it_has_the_rates_of_the_lua_example(self):
        """conv1 locked, conv2 at 0.1 and 0.2 with an undecayed bias, the others plain."""
        plan = nnlr.resolve(demo.network(), lr=0.1, weight_decay=1e-4)
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
        net = demo.network()
        assert net.full1.in_features == 2352
        logs = net(torch.zeros(2, 1, 32, 32))
        assert logs.shape == (2, 10)
        assert torch.allclose(torch.ones(2), logs.exp().sum(dim=1))


class TestDigits:
    def test_the_split_is_stratified_and_has_every_image_once(self):
        """Each digit's share of the test images is its share of all, to one image."""
        digits = data.load(None, seed=0)
        assert (1437, 360) == (len(digits.train_labels), len(digits.test_labels))
        train_share = digits.train_labels.bincount() / 1437
        test_share = digits.test_labels.bincount() / 360
        assert (train_share - test_share).abs().max() < 1 / 360
        # All 1,797 differ, so an image in both halves, or in neither, would show.
        everything = torch.cat([digits.train_images, digits.test_images])
        assert len(everything.flatten(1).unique(dim=0)) == 1797

    def test_images_are_enlarged_and_normalised_by_the_training_images(self):
        """Pixels become blocks of 4 x 4; mean 0 and deviation 1 over the training images only."""
        digits = data.load(None, seed=0)
        images = digits.train_images
        assert images.shape[1:] == (1, 32, 32)
        small = images[:, :, ::4, ::4]
        assert torch.equal(images, small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))
        assert images.mean().item() == pytest.approx(0, abs=1e-5)
        assert images.std().item() == pytest.approx(1, abs=1e-5)
        assert abs(digits.test_images.mean().item()) > 1e-5

    def test_the_seed_gives_the_split(self):
        """The same for the same seed, another for another."""
        first, again, other = (data.load(None, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first.test_images, again.test_images)
        assert not torch.equal(first.test_labels, other.test_labels)

    def test_without_scikit_learn_the_error_says_what_to_install(self, monkeypatch, folder):
        """The extra's name, and MNIST's files, which need no package beyond torch."""
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(nnlr.NnlrError, match=r"pip install scikit-learn.*--data DIR"):
            data.load(None, seed=0)
        assert len(data.load(folder, seed=0).train_labels) == 40


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
        digits = data.load(tmp_path, seed=0)
        images, labels = drawn(40, seed=1)
        padded = torch.zeros(40, 1, 32, 32)
        padded[:, 0, 2:-2, 2:-2] = images.float()
        expected = (padded - padded.mean()) / padded.std()
        assert torch.allclose(expected, digits.train_images, atol=1e-6)
        assert labels.tolist() == digits.train_labels.tolist()
        assert digits.test_images.shape == (20, 1, 32, 32)

    def test_whether_a_file_is_gzipped_is_seen_from_its_bytes(self, folder):
        """A gzipped file that lost its suffix is read all the same."""
        path = folder / FILES[0]
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert data.load(folder, seed=0).train_images.shape == (40, 1, 32, 32)

    @pytest.mark.parametrize(
        ("name", "damage", "message"),
        [
            (0, lambda old: b"", r"images-idx3-ubyte: is empty; expected an IDX file of im"),
            (0, lambda old: old[:3], r"begins with 00 00 08; expected .* 00 00 08 03"),
            (0, lambda old: b"\x89PNG" + old, r"begins with 89 50 4e 47; expected an IDX"),
            (0, lambda old: old[:9], r"ends in its header; .*Download it again"),
            (0, lambda old: old[:-5], r"only 31,355 of them; expected 31,360 bytes for 40"),
            (0, lambda old: old + b"!", r"holds more; expected 31,360 bytes for 40 images"),
            (0, lambda old: idx(torch.zeros(3, 28, 28), 0x0D), r"another type \(0d\); .*\(08\)"),
            (0, lambda old: idx(torch.zeros(40)), r"has 1 axis; expected 3.*swapped"),
            (1, lambda old: idx(torch.zeros(1, 2, 2)), r"has 3 axes; expected 1.*swapped"),
            (0, lambda old: idx(torch.zeros(4, 8, 9)), r"images of 8x9; expected 28x28"),
            (0, lambda old: idx(torch.zeros(0, 28, 28)), r"holds no images; expected at least"),
            (1, lambda old: idx(torch.zeros(39)), r"has 39 labels; expected 40, one for each"),
            (3, lambda old: idx(torch.full((20,), 10)), r"holds the label 10; expected digits"),
            (2, lambda old: gzip.compress(old)[:-20], r"t10k-images-idx3-ubyte: is damaged"),
            (2, lambda old: gzip.compress(old)[:-8] + b"\1" * 8, r"is damaged \(CRC check"),
            (2, lambda old: b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9, r"is damaged \(Error -3"),
            # A single request of that size would run out of memory.
            (0, lambda old: old[:4] + b"\xff" * 4 + old[8:], r"for 4,294,967,295 images"),
        ],
        ids=[
            *("empty", "short-magic", "other-format", "short-header", "truncated", "too-long"),
            *("floats", "labels-as-images", "images-as-labels", "wrong-size", "no-images"),
            *("wrong-count", "wrong-label", "gz-truncated", "gz-wrong-sum", "gz-garbage"),
            "terabytes",
        ],
    )
    def test_a_bad_file_is_named_with_what_it_holds(self, folder, name, damage, message):
        """The file, what it is, what was expected and what to do, in that order."""
        path = folder / FILES[name]
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(nnlr.NnlrError, match=f"(?s){message}") as caught:
            data.load(folder, seed=0)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n  Fix: " in str(caught.value)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named_with_all_its_spellings(self, folder, name):
        """So that one sees what was looked for."""
        (folder / name).unlink()
        dotted = name.replace("-idx", ".idx")
        spellings = f"looked for {name}, {name}.gz, {dotted}, {dotted}.gz."
        with pytest.raises(nnlr.NnlrError, match=spellings.replace(".", r"\.")):
            data.load(folder, seed=0)

    def test_what_cannot_be_opened_is_refused(self, folder):
        """A folder that is missing, a file as a folder, a folder as a file."""
        with pytest.raises(nnlr.NnlrError, match=r"nowhere: does not exist; expected a folder"):
            data.load(folder / "nowhere", seed=0)
        with pytest.raises(nnlr.NnlrError, match=r"ubyte: is a file, not a folder"):
            data.load(folder / FILES[0], seed=0)
        with pytest.raises(nnlr.NnlrError, match=r"mnist: cannot be read: Is a directory"):
            data.read_idx(folder, axes=1)

    @pytest.mark.parametrize(
        ("count", "shade", "message"),
        [(1, 9, r"train on 1 image\(s\)"), (8, 0, r"8 image\(s\) with pixels that vary by 0")],
        ids=["one-image", "blank"],
    )
    def test_images_that_cannot_be_trained_on_are_refused(self, folder, count, shade, message):
        """A single one, or blank ones: batch norm and the normalisation would fail."""
        images = torch.zeros(count, 28, 28)
        images[:, 0, 0] = shade
        (folder / FILES[0]).write_bytes(idx(images))
        (folder / FILES[1]).write_bytes(idx(torch.zeros(count)))
        with pytest.raises(nnlr.NnlrError, match=message):
            data.load(folder, seed=0)


class TestTraining:
    def test_a_seed_gives_the_same_numbers_twice(self, folder):
        """Bit for bit on the CPU, and the caller's random numbers stay as they are."""
        first, _ = run(data=folder)
        state = torch.get_rng_state()
        again, _ = run(data=folder)
        assert torch.equal(state, torch.get_rng_state())
        torch.rand(3)
        other, _ = run(data=folder, seed=1)
        assert numbers(first) == numbers(again) != numbers(other)

    @pytest.mark.parametrize("method", train.RECIPES)
    def test_the_locked_layer_moves_by_exactly_0(self, folder, method):
        """However it is trained; every other layer moves, and so does it at one rate."""
        facts, _ = run(data=folder, optimizer=method)
        conv1, *others = facts["layers"]
        assert ("conv1", True, 0.0) == (conv1["name"], conv1["locked"], conv1["declared"])
        assert conv1["uniform"] > 0
        assert all(layer["declared"] > 0 and not layer["locked"] for layer in others)
        # Torch7's way has one vector for all, so that what is locked takes part in it.
        trained = 286_250 - (0 if method == "torch7" else 832)
        declared, uniform = facts["runs"]["declared"], facts["runs"]["uniform"]
        assert (trained, trained) == (declared["gradients"], declared["state"])
        assert (286_250, 286_250) == (uniform["gradients"], uniform["state"])

    def test_a_locked_layer_that_moved_is_an_error(self, folder, monkeypatch):
        """The promise is checked, whatever the optimizer did."""

        def broken(net, *others):
            with torch.no_grad():
                net.conv1.bias[3] += 1e-7
            return trained(net, *others)

        trained = demo.train
        monkeypatch.setattr(demo, "train", broken)
        with pytest.raises(nnlr.NnlrError, match=r"conv1\.bias is locked, yet it moved by .*bug"):
            run(data=folder)

    @pytest.mark.parametrize("declared", [True, False], ids=["declared", "uniform"])
    def test_the_torch7_way_comes_to_the_same_as_sgd(self, folder, declared):
        """To float32 round-off, in every weight and running statistic, after 20 steps."""
        digits, weights = data.load(folder, seed=0), {}
        for method in ("sgd", "torch7"):
            torch.manual_seed(0)
            net = demo.network()
            source = net if declared else dict(net.named_parameters())
            plan = nnlr.resolve(source, lr=0.1, weight_decay=1e-4)
            train.train(net, plan, digits, parsed(optimizer=method, epochs=5), lambda: None)
            weights[method] = net.state_dict()
        for name, expected in weights["sgd"].items():
            assert torch.allclose(expected, weights["torch7"][name], rtol=1e-4, atol=1e-5), name

    def test_the_torch7_way_steps_the_flattened_parameters(self, folder, monkeypatch):
        """Every step of both runs goes through nnlr.torch7.sgd, with the plan's vectors."""
        steps = []

        def spy(feval, x, config):
            steps.append((x, config["learning_rates"], config["weight_decays"]))
            return sgd(feval, x, config)

        sgd = nnlr.torch7.sgd
        monkeypatch.setattr(nnlr.torch7, "sgd", spy)
        run(data=folder, epochs=1, optimizer="torch7")
        assert len(steps) == 2 * 4
        expected = nnlr.get_optim_config(demo.network(), 0.1, 1e-4)
        for x, *vectors in steps[:4]:
            assert x is steps[0][0]
            assert all(map(torch.equal, expected, vectors))
        for x, rates, decays in steps[4:]:
            assert torch.equal(torch.full_like(x, 0.1), rates)
            assert torch.equal(torch.full_like(x, 1e-4), decays)

    def test_the_rates_of_both_sgds_are_those_of_torch7(self):
        """Base lr 0.1, decay 0.0001, momentum 0.9, dampening as Torch7 has it."""
        for method in ("sgd", "torch7"):
            recipe = train.RECIPES[method]
            assert (0.1, 1e-4) == (recipe.lr, recipe.weight_decay)
            assert {"momentum": 0.9, "dampening": 0.9} == recipe.settings

    @pytest.mark.parametrize(("images", "size"), [(1437, 64), (10, 64), (65, 64), (40, 10)])
    def test_an_epoch_has_every_image_once_in_even_batches(self, images, size):
        """Shuffled, none smaller than asked for unless there are too few images."""
        parts = train.batches(images, size, torch.Generator().manual_seed(0))
        assert list(range(images)) == sorted(torch.cat(parts).tolist())
        assert list(range(images)) != torch.cat(parts).tolist()
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert min(size, images) <= min(sizes) <= max(size, images)

    def test_right_answers_are_counted_over_all_parts(self):
        """2,500 images in three parts, of which the even ones are recognised."""
        truth = torch.arange(2500) % 10
        answers = torch.where(truth % 2 == 0, truth, (truth + 1) % 10)
        images = torch.nn.functional.one_hot(answers, 10).float()
        assert train.count_right(torch.nn.Identity(), images, truth) == 1250

    def test_a_loss_that_is_no_number_ends_the_run(self, folder):
        """With the epoch in the message, rather than a table of nan."""
        digits, net = data.load(folder, seed=0), demo.network()
        digits.train_images[0] = math.nan
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        with pytest.raises(nnlr.NnlrError, match=r"loss became nan in epoch 1"):
            train.train(net, plan, digits, parsed(), lambda: None)

    def test_real_digits_are_learnt(self, short):
        """One epoch on scikit-learn's digits: nine of ten test images are recognised."""
        facts, _ = run(epochs=1, batch_size=32)
        declared, uniform = facts["runs"]["declared"], facts["runs"]["uniform"]
        assert declared["tested"] == uniform["tested"] == 360
        assert declared["test_accuracy"] >= 0.9
        assert (None, None) == (facts["options"]["data"], facts["options"]["out"])

    @pytest.mark.full
    @pytest.mark.parametrize("method", train.RECIPES)
    def test_the_defaults_reach_95_percent(self, method):
        """The declared rates, on unseen digits, with each optimizer."""
        facts, _ = run(epochs=6, batch_size=64, optimizer=method)
        assert facts["runs"]["declared"]["test_accuracy"] >= 0.95


class TestPrinted:
    def test_the_plan_the_movement_and_both_accuracies_are_there(self, folder, monkeypatch):
        """In 80 columns, without escape codes where it is no terminal."""
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        facts, text = run(data=folder, epochs=1)
        assert str(nnlr.resolve(demo.network(), lr=0.1, weight_decay=1e-4)) in text
        assert "40 to train, 20 to test" in text
        assert "1 epoch of 4 batches, seed 0, on cpu, 2 threads\n" in text
        assert "torch.optim.SGD, momentum 0.9, dampening 0.9" in text
        for layer in facts["layers"]:
            assert f"\n{layer['name']} " in text.partition("How far each layer moved")[2]
        assert "\n● declared   ○ uniform   ◉ both\n" in text
        for result in facts["runs"].values():
            accuracy = f"{result['test_accuracy']:.1%} ({result['right']} of 20)"
            assert f"test accuracy {accuracy}" in text
        assert "conv1 is locked and moved by exactly 0" in text
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 80

    @pytest.mark.parametrize(("width", "scale"), [(40, False), (76, True)])
    def test_a_narrow_console_gets_whole_rows(self, folder, width, scale):
        """The numbers in any case, the scale where there is room; no blanks at line ends."""
        _, text = run(width, data=folder, epochs=1)
        lines = text.partition("How far")[2].splitlines()
        assert max(map(len, lines)) <= max(width, 48)  # what a table needs
        assert any(line.startswith("conv2   0.1 / 0.2 ") for line in lines)
        assert scale == ("●─" in text)
        assert [] == [line for line in lines if line.endswith(" ")]

    def test_a_terminal_gets_colours_and_a_bar_for_each_run(self, folder):
        """The bars go away at the end."""
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        demo.run(parsed(data=folder, epochs=1, optimizer="adamw"), console)
        text, _, chart = console.file.getvalue().partition("How far each layer")
        assert all(label in text for label in (*demo.RUNS.values(), "100 %"))
        assert "lr 0.001, weight decay 0.01" in text
        assert "\x1b[94m●" in chart


@pytest.fixture
def short(monkeypatch):
    """Two rates, and two steps at each."""
    monkeypatch.setattr(eye, "STEPS", 2)
    monkeypatch.setattr(demo, "RATES", (1e-3, 1e-2))


@pytest.fixture
def larger(folder):
    """The tiny data set with enough images to learn from some and test on others."""
    for name, content in zip(FILES[2:], map(idx, drawn(60, seed=2)), strict=True):
        (folder / name).write_bytes(content)
    return folder


class TestNewEye:
    def test_the_camera_loses_nothing_of_its_three_views(self):
        """Three channels that an orthogonal matrix mixed: turned back they are what they were."""
        images = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        views = eye.camera(images, torch.eye(3))
        mix, _ = torch.linalg.qr(torch.rand(3, 3, generator=torch.Generator().manual_seed(1)))
        mixed = eye.camera(images, mix)
        assert (5, 3, 32, 32) == mixed.shape
        assert torch.allclose(views, torch.einsum("ndhw,dc->nchw", mixed, mix), atol=1e-6)
        assert torch.equal(-images, views[:, :1])

    def test_it_learns_from_two_images_of_each_digit_and_is_tested_on_others(self):
        """And the same seed gives the same images, camera and weights."""
        images, labels = (
            torch.arange(60.0).reshape(60, 1, 1, 1).expand(-1, 1, 32, 32),
            torch.arange(60) % 10,
        )
        task, again = (eye.prepare(demo.network(), images, labels, seed=4) for _ in range(2))
        assert [2] * 10 == task.labels.bincount().tolist()
        assert (20, 40) == (len(task.images), len(task.answers))
        both = torch.cat([task.images, task.unseen])[:, :, 16, 16]
        assert 60 == len(both.round(decimals=3).unique(dim=0))
        assert torch.equal(task.unseen, again.unseen)
        assert torch.equal(task.net.conv1.weight, again.net.conv1.weight)

    def test_the_new_layer_learns_at_the_base_rate_and_the_others_at_a_share_of_it(self):
        """Whatever was declared on them before; without a share they are locked."""
        net = eye.with_new_eye(demo.network())
        for slow in (1.0, 0.1, 0.0):
            plan = nnlr.resolve(eye.declare(net, slow), lr=1, weight_decay=0)
            new = {"conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"}
            expected = {row.name: 1 if row.name in new else slow for row in plan.rows}
            assert expected == {row.name: row.lr_mult for row in plan.rows}

    @pytest.mark.parametrize("optimizer", eye.OPTIMIZERS)
    def test_every_run_begins_at_the_same_weights(self, larger, short, optimizer):
        """The task stays as it is, and the same run gives the same count."""
        digits = data.load(larger, seed=0)
        task = eye.prepare(demo.network(), digits.test_images, digits.test_labels, seed=0)
        before = {name: value.clone() for name, value in task.net.state_dict().items()}
        counts = [eye.fine_tune(task, 0.1, optimizer, 0.01) for _ in range(2)]
        assert counts[0] == counts[1]
        assert all(
            torch.equal(before[name], value) for name, value in task.net.state_dict().items()
        )

    def test_the_demo_counts_each_arm_at_each_rate(self, larger, short):
        """Beside what ten other seeds gave, in 80 columns."""
        facts, text = run(data=larger, epochs=1)
        result = facts["new_eye"]
        assert 40 == result["tested"]
        assert list(eye.ARMS) == list(result["right"])
        assert all([1e-3, 1e-2] == list(counts) for counts in result["right"].values())
        part = text.partition("A new eye for a trained reader: how many of 40 ")[2]
        assert len(re.findall(r"^0\.01 +[\d.]+ +[\d.]+ +[\d.]+ .*[○●◆◉]", part, re.MULTILINE)) == 1
        assert " ".join(show.TEN_SEEDS.split()) in " ".join(part.split())
        assert max(map(len, text.splitlines())) <= 80

    def test_too_few_images_leave_it_out(self, folder):
        """Twenty test images are two of each digit: none is left to test on."""
        facts, text = run(data=folder, epochs=1)
        assert facts["new_eye"] is None
        assert "A new eye" not in text

    def test_the_chart_puts_each_arm_at_its_place(self):
        """From the lowest ten percent to all of them; arms at one place share a mark."""
        right = {"one rate": {0.01: 80, 0.1: 62}, "layer-wise": {0.01: 90, 0.1: 80}}
        right["new layer only"] = {0.01: 90, 0.1: 100}
        lines = show.eye_chart(right, 100, width=68).splitlines()
        assert lines[0].endswith("   60 %            100 %")
        assert lines[2:4] == [
            "0.01        80.0        90.0            90.0   ··········○────◉·····",
            "0.1         62.0        80.0           100.0   ·○────────●─────────◆",
        ]


class TestDevice:
    @pytest.mark.parametrize("name", ["cuda:99", "mps:99", "xpu:99", "meta", "fridge", ""])
    def test_what_is_not_here_is_refused_with_what_is(self, name):
        """In one message whose first line is short: torch lists every backend there is."""
        with pytest.raises(nnlr.NnlrError, match=r"--device .*cannot be used \(.*\n.*: cpu") as e:
            demo.usable_device(name)
        assert len(str(e.value).splitlines()[0]) <= 150

    def test_an_accelerator_is_offered(self, monkeypatch):
        """By its type, beside the CPU."""
        cuda = torch.device("cuda")
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: cuda)
        with pytest.raises(nnlr.NnlrError, match=r"choose what is here: cpu, cuda\."):
            demo.usable_device("fridge")


class TestOut:
    def test_the_numbers_and_the_picture_are_written(self, folder, tmp_path, monkeypatch):
        """The folder is made; the JSON has all that was printed, and more."""
        monkeypatch.setattr(demo, "PACKAGES", ("torch", "no-such-package"))
        out = tmp_path / "new" / "folder"
        facts, text = run(data=folder, out=out, optimizer="adamw", seed=3)
        written = json.loads((out / "movement.json").read_text())
        assert facts == written
        assert written["options"] == {
            "data": str(folder),
            "optimizer": "adamw",
            "epochs": 2,
            "batch_size": 10,
            "seed": 3,
            "device": "cpu",
            "out": str(out),
        }
        optimizer = {"name": "torch.optim.AdamW", "lr": 0.001, "weight_decay": 0.01}
        assert optimizer == written["optimizer"]
        assert (40, 20) == (written["data"]["train"], written["data"]["test"])
        conv1, _, conv2, *_ = written["layers"]
        assert (832, True, 0.0) == (conv1["numel"], conv1["locked"], conv1["declared"])
        assert {"weight": 0.1, "bias": 0.2} == conv2["lr_mult"]
        assert {"weight": 1.0, "bias": 0.0} == conv2["wd_mult"]
        for result in written["runs"].values():
            assert len(result["losses"]) == 2
            assert result["right"] / 20 == result["test_accuracy"]
            assert 0 < result["seconds"] <= written["seconds"]
        assert nnlr.__version__ == written["versions"]["nnlr"]
        assert written["versions"]["torch"]
        assert written["versions"]["no-such-package"] is None
        picture = (out / "movement.png").read_bytes()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(picture) > 10_000
        assert {"movement.json", "movement.png"} == {path.name for path in out.iterdir()}
        assert f"Wrote {out / 'movement.json'} and {out / 'movement.png'}" in text

    def test_without_matplotlib_only_the_picture_is_refused(self, monkeypatch, folder, tmp_path):
        """Before any training; without --out the demo runs as ever."""
        hide_package(monkeypatch, "matplotlib")
        with pytest.raises(nnlr.NnlrError, match=r"matplotlib.*\n.*pip install matplotlib.*--out"):
            run(data=folder, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        facts, _ = run(data=folder, epochs=1)
        assert facts["layers"][0]["declared"] == 0

    def test_a_place_that_cannot_be_written_to_is_refused_first(self, folder):
        """Here a file stands where the folder should be."""
        for out in (folder / FILES[0], folder / FILES[0] / "below"):
            with pytest.raises(nnlr.NnlrError, match=r"--out .*cannot be written to: .*\n.*Fix"):
                run(data=folder / "never looked at", out=out)


class TestCommand:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--optimizer", "lbfgs"],
            ["--epochs", "0"],
            ["--epochs", "many"],
            ["--batch-size", "1"],
            ["--seed", "-1"],
            ["--seed", str(2**32)],
            ["--sed", "1"],
            ["surplus"],
        ],
        ids=" ".join,
    )
    def test_a_bad_option_is_named_and_ends_with_status_2(self, arguments, capsys):
        """Before anything runs."""
        with pytest.raises(SystemExit, match="2"):
            demo.main(arguments)
        assert arguments[0] in capsys.readouterr().err

    def test_an_error_is_red_and_ends_with_status_1(self, tmp_path, capsys, monkeypatch):
        """On the error stream, in full, without a traceback; without colour in a file."""
        for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
            monkeypatch.delenv(name, raising=False)
        arguments = ["--data", str(tmp_path / "nowhere")]
        assert demo.main(arguments) == 1
        assert capsys.readouterr().err.startswith("Error: ")
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        assert demo.main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("\x1b[31mError: ")
        assert "nowhere: does not exist; expected a folder with MNIST's" in error

    def test_it_runs_where_the_output_has_no_such_characters(self, folder, monkeypatch):
        """A stream of plain ASCII gets question marks, not a crash."""
        terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
        monkeypatch.setattr(sys, "stdout", terminal)
        assert demo.main(["--data", str(folder), "--epochs", "1", "--batch-size", "4"]) == 0
        terminal.flush()
        printed = terminal.buffer.getvalue()
        assert b"conv1 is locked and moved by exactly 0" in printed
        assert b"?" in printed
