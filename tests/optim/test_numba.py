"""Small tensors in one compiled call: the same numbers, whatever happens in between."""

import copy
import io
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

import nnlr
from nnlr.optim._numba import kernels, sheets
from nnlr.optim._numba import use_numba as compiled
from tests.optim.twins import (
    NAMES,
    USUAL,
    assert_equal,
    classes,
    give_gradients,
    pair,
    parameters,
    thirds,
    train,
)

VARIANTS = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.0}),
    ("SGD", {"momentum": 0.0, "weight_decay": 0.0, "maximize": True}),
    ("SGD", {"dampening": 0.3}),
    ("SGD", {"nesterov": True, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.0, "maximize": True}),
    ("Adam", {"betas": (0.8, 0.99), "eps": 1e-3}),
    ("Adam", {"decoupled_weight_decay": True}),
    ("AdamW", {}),
    ("AdamW", {"weight_decay": 0.0}),
    ("AdamW", {"betas": (0.6, 0.9), "maximize": True}),
]


@pytest.fixture(autouse=True)
def with_numba():
    """As users switch it on, for one test."""
    nnlr.optim.use_numba()
    yield
    nnlr.optim.use_numba(False)


def assert_close(expected, actual):
    """Equal to the round-off of float32."""
    for one, other in zip(expected, actual, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def finish(sides, optimizers, start=3):
    """Go on after a change, and compare; the compiled kernels are at work."""
    train(sides, optimizers, 4, start=start)
    assert_close(*sides)
    assert rows_in_sheets(optimizers[1])


def sheets_of(optimizer):
    """The sheets of all tables."""
    return [sheet for table in optimizer._sorting.tables for sheet in table.sheets]


def rows_in_sheets(optimizer):
    """How many parameters compiled kernels step."""
    return sum(len(sheet.rows) for sheet in sheets_of(optimizer))


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
class TestNumbers:
    @pytest.mark.no_cover
    def test_a_hundred_steps_are_those_of_torchs_fused(self, name, settings):
        """With changing rates; every parameter and every moment, in one call for all."""
        sides, optimizers = pair(name, {**USUAL[name], **settings})
        train(sides, optimizers, 100)
        assert_close(*sides)
        expected, actual = (each.state_dict()["state"] for each in optimizers)
        for key, kept in expected.items():
            for what, value in kept.items():
                if value is not None:
                    assert_close([value], [actual[key][what]])
        ours = optimizers[1]
        assert len(sides[1]) == rows_in_sheets(ours)
        (table,) = ours._sorting.tables
        assert [] == table.small_runs == table.large_runs
        assert 1 == len(table.sheets)

    def test_parameters_without_gradients_in_some_steps(self, name, settings):
        """They stay, and their counters do; in one step nobody has a gradient."""
        sides, optimizers = pair(name, {**USUAL[name], **settings})
        train(sides, optimizers, 3)

        def skip(step, at):
            return step == 5 or (step + at) % 3 == 0

        train(sides, optimizers, 6, start=3, skip=skip)
        assert_close(*sides)
        finish(sides, optimizers, start=9)


@pytest.mark.parametrize("name", NAMES)
class TestMoving:
    def test_parameters_and_moments_moved_in_memory(self, name):
        """Nothing is written to where they lay before."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        for optimizer in optimizers:
            old = []
            for param, state in list(optimizer.state.items())[::2]:
                for value in (param, *state.values()):
                    if value.dim():
                        old.append((value.data, value.data.clone()))
                        value.data = value.data.clone()
        finish(sides, optimizers)
        assert all(torch.equal(was, copied) for was, copied in old)

    def test_another_dtype_in_the_same_place(self, name):
        """What is behind its end belongs to others."""
        _, cls = classes(name)
        memory = torch.zeros(64)
        weight = nn.Parameter(torch.zeros(16))
        optimizer = cls([weight], **USUAL[name])
        for _ in range(4):
            weight.grad = torch.ones(16)
            optimizer.step()
        weight.data = memory[:16]
        optimizer.step()
        assert 1 == rows_in_sheets(optimizer)
        memory.zero_()
        weight.data = memory.view(torch.float16)[:16]
        optimizer.step()
        assert 0 == rows_in_sheets(optimizer)
        assert 0 == memory[8:].count_nonzero()

    @pytest.mark.parametrize("which", ["parameter", "gradient", "moment"])
    def test_no_memory_behind_a_tensor(self, name, which):
        """Torch says so, as ever."""
        _, cls = classes(name)
        params = [nn.Parameter(torch.ones(4)) for _ in range(3)]
        optimizer = cls(params, **USUAL[name])
        for _ in range(4):
            for param in params:
                param.grad = torch.ones(4)
            optimizer.step()
        (moment, *_) = [v for v in optimizer.state[params[1]].values() if v.dim()]
        empty = {"parameter": params[1], "gradient": params[1].grad, "moment": moment}
        empty[which].untyped_storage().resize_(0)
        with pytest.raises(RuntimeError, match="not allocated"):
            optimizer.step()

    def test_gradients_with_the_negative_bit(self, name):
        """Autograd makes them of conjugates; the memory holds the opposite."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        for step in range(3):
            give_gradients(step, *sides)
            optimizers[0].step()
            for param in sides[1]:
                param.grad = torch._neg_view(-param.grad)
            optimizers[1].step()
        assert_close(*sides)
        assert len(sides[1]) == rows_in_sheets(optimizers[1])

    @pytest.mark.parametrize("rate", ["0.1", np.array(0.1)])
    def test_a_rate_that_is_no_number(self, name, rate):
        """Refused as torch refuses it, also in mid-run."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        optimizers[1].param_groups[0]["lr"] = rate
        with pytest.raises(TypeError, match="invalid combination of arguments"):
            optimizers[1].step()

    def test_moments_replaced(self, name):
        """By others of the same name, as code that edits state does."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        for optimizer in optimizers:
            for state in optimizer.state.values():
                state.update({key: value * 0.5 for key, value in state.items() if value.dim()})
        finish(sides, optimizers)

    def test_a_group_added_later(self, name):
        """It joins the sheet when its moments have begun."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        for params, optimizer in zip(sides, optimizers, strict=True):
            more = parameters()[:3]
            params.extend(more)
            optimizer.add_param_group({"params": more, "lr": 0.003})
        finish(sides, optimizers)
        assert len(sides[1]) == rows_in_sheets(optimizers[1])

    def test_state_saved_and_loaded(self, name):
        """Through a file, into optimizers of both kinds."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        file = io.BytesIO()
        torch.save(optimizers[1].state_dict(), file)
        for optimizer in optimizers:
            file.seek(0)
            optimizer.load_state_dict(torch.load(file, weights_only=True))
        finish(sides, optimizers)

    def test_a_copy_goes_its_own_way(self, name):
        """It writes to its own tensors."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        before = copy.deepcopy(sides[1])
        params, other = copy.deepcopy((sides[1], optimizers[1]))
        train([params], [other], 3, start=3)
        assert_equal(before, sides[1])
        finish(sides, optimizers)
        train([params], [other], 1, start=6)
        assert_close(sides[0], params)

    def test_switched_off_and_on(self, name):
        """In the middle of a run; optimizers that exist follow."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        nnlr.optim.use_numba(False)
        train(sides, optimizers, 3, start=3)
        assert 0 == rows_in_sheets(optimizers[1])
        nnlr.optim.use_numba()
        finish(sides, optimizers, start=6)

    def test_a_backward_pass_through_old_values_is_refused(self, name):
        """The version of a parameter tells autograd that it has changed."""
        _, cls = classes(name)
        weight = nn.Parameter(torch.ones(3))
        optimizer = cls([weight], **USUAL[name])
        for _ in range(3):
            weight.grad = torch.ones(3)
            optimizer.step()
        loss = weight.square().sum()
        optimizer.step()
        assert 1 == rows_in_sheets(optimizer)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


class TestOthers:
    @pytest.mark.parametrize(
        ("name", "settings", "dtype"),
        [
            ("AdamW", {"amsgrad": True}, torch.float32),
            ("AdamW", {"betas": (0.5, 0.9)}, torch.float32),
            ("Adam", {"lr": torch.tensor(0.01)}, torch.float32),
            ("AdamW", {}, torch.float64),
            ("SGD", {}, torch.float64),
            ("Adam", {}, torch.bfloat16),
        ],
    )
    def test_what_the_kernels_do_not_cover_is_torchs(self, name, settings, dtype):
        """To the last bit, without a word."""
        theirs, ours = parameters(dtype=dtype), parameters(dtype=dtype)
        settings = {**USUAL[name], **settings}
        torchs_class, our_class = classes(name)
        sides = theirs, ours
        optimizers = (
            torchs_class(theirs, **settings, fused=True),
            our_class(ours, **settings),
        )
        train(sides, optimizers, 10)
        assert_equal(*sides)
        assert 0 == rows_in_sheets(optimizers[1])

    @pytest.mark.parametrize("name", NAMES)
    def test_large_tensors_beside_small_ones(self, name):
        """Large ones are stepped by torch's kernel, with all threads."""
        torchs_class, our_class = classes(name)
        shapes = [(40_000,), (16,), (200, 200), (3,)]
        theirs, ours = parameters(shapes), parameters(shapes)
        optimizers = (
            torchs_class(thirds(theirs), **USUAL[name], fused=True),
            our_class(thirds(ours), **USUAL[name]),
        )
        train((theirs, ours), optimizers, 10)
        assert_close(theirs, ours)
        assert len(ours) - 2 == rows_in_sheets(optimizers[1])

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("inf", [0.0, 1.0])
    def test_a_gradient_scaler(self, name, inf):
        """Torch's kernels unscale; and nothing is stepped where a gradient is infinite."""
        sides, optimizers = pair(name)
        train(sides, optimizers, 3)
        give_gradients(3, *sides)
        for optimizer in optimizers:
            optimizer.grad_scale = torch.tensor(4.0)
            optimizer.found_inf = torch.tensor(inf)
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf
        assert_close(*sides)
        finish(sides, optimizers, start=4)

    @pytest.mark.parametrize("name", NAMES)
    def test_enough_elements_for_two_threads(self, name):
        """A part for each, of whole tensors; the same numbers as with one."""
        usual = torch.get_num_threads()
        shapes = [(128, 130)] * 80
        torchs_class, our_class = classes(name)
        theirs, ours = parameters(shapes), parameters(shapes)
        optimizers = (
            torchs_class(thirds(theirs), **USUAL[name], fused=True),
            our_class(thirds(ours), **USUAL[name]),
        )
        try:
            torch.set_num_threads(2)
            train((theirs, ours), optimizers, 5)
        finally:
            torch.set_num_threads(usual)
        (sheet,) = sheets_of(optimizers[1])
        torch.set_num_threads(2)
        (start, half), (same, end) = sheets._parts(sheet.sizes)
        torch.set_num_threads(usual)
        assert (0, half, len(ours)) == (start, same, end)
        assert 30 < half < 50
        assert_close(theirs, ours)


def test_an_error_in_another_thread_comes_out(monkeypatch):
    """A part that was not stepped is never passed over."""

    def call(_sizes, start, _):
        if start:
            raise ValueError("the second part")

    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    params = [nn.Parameter(torch.zeros(16_000)) for _ in range(80)]
    optimizer = nnlr.optim.SGD(params, lr=0.1)
    for param in params:
        param.grad = torch.ones_like(param)
    try:
        optimizer.step()
        (sheet,) = sheets_of(optimizer)
        monkeypatch.setattr(sheet, "kernel", call)
        monkeypatch.setattr(sheet, "settings", ())
        with pytest.raises(ValueError, match="the second part"):
            sheet._call([sheet.sizes])
    finally:
        torch.set_num_threads(usual)


def test_an_interrupted_step_waits_for_its_threads(monkeypatch):
    """Nothing is written to parameters once the error is out."""
    done = []

    def kernel(*arguments):
        *_, start, _ = arguments
        if start == 0:
            raise KeyboardInterrupt("now")
        time.sleep(0.2)
        done.append(start)

    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    params = [nn.Parameter(torch.zeros(16_000)) for _ in range(80)]
    optimizer = nnlr.optim.SGD(params, lr=0.1)
    try:
        for _ in range(3):
            for param in params:
                param.grad = torch.ones_like(param)
            optimizer.step()
        monkeypatch.setattr(sheets_of(optimizer)[0], "kernel", kernel)
        with pytest.raises(KeyboardInterrupt, match="now"):
            optimizer.step()
    finally:
        torch.set_num_threads(usual)
    assert 1 == len(done)


class TestSwitch:
    @pytest.fixture
    def forgotten(self, monkeypatch):
        """As in a process that has not used it yet."""
        for module in ("sheets", "kernels"):
            monkeypatch.delitem(sys.modules, f"nnlr.optim._numba.{module}")
            monkeypatch.delattr(nnlr.optim._numba, module)

    @pytest.mark.usefixtures("forgotten")
    def test_without_numba_it_says_what_to_install(self, monkeypatch):
        """And everything is stepped by torch's kernels, as before."""
        nnlr.optim.use_numba(False)
        monkeypatch.setitem(sys.modules, "numba", None)
        with pytest.raises(nnlr.NnlrError, match=r'pip install "nnlr\[numba\]"'):
            nnlr.optim.use_numba()
        assert compiled.numba_sheets() is None

    @pytest.mark.usefixtures("forgotten")
    def test_another_library_that_is_missing_is_named_by_python(self, monkeypatch):
        """It is no matter of numba then."""
        monkeypatch.setitem(sys.modules, "numpy", None)
        with pytest.raises(ModuleNotFoundError, match="numpy"):
            nnlr.optim.use_numba()

    def test_numba_that_does_not_compile(self, monkeypatch):
        """Its switch for debugging leaves nothing that could be called."""
        nnlr.optim.use_numba(False)
        monkeypatch.setattr(kernels, "COMPILES", False)
        with pytest.raises(nnlr.ConfigError, match="NUMBA_DISABLE_JIT is set"):
            nnlr.optim.use_numba()
        assert compiled.numba_sheets() is None

    def test_nowhere_to_keep_the_kernels(self, monkeypatch):
        """They are compiled for this process then."""

        def njit(_signature, *, cache=False, **_):
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return lambda function: function

        monkeypatch.setattr(kernels, "njit", njit)
        assert sheets._kernel is kernels._compiled("int64(int64)")(sheets._kernel)
