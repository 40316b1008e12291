"""The Lua package's methods on modules: put there on demand, and taken off."""

import pytest
import torch
from torch import nn

import nnlr

BASE_LR, BASE_WD = 0.1, 0.0001


def test_the_lua_example_translates_line_by_line():
    """With the methods on, layers chain as in the Lua package."""
    with nnlr.install():
        net = nn.Sequential(nn.Linear(2, 2).learning_rate("weight", 0.1).weight_decay("bias", 0))
        lrs, decays = net.get_optim_config(BASE_LR, BASE_WD)
    expected = nnlr.get_optim_config(net, BASE_LR, BASE_WD)
    assert torch.equal(expected[0], lrs)
    assert torch.equal(expected[1], decays)


def test_the_methods_are_gone_afterwards():
    """The context manager takes them off, also when its body fails."""
    with pytest.raises(KeyError, match="body"), nnlr.install():
        raise KeyError("body")
    assert not hasattr(nn.Module, "learning_rate")


def test_nested_installs_end_with_the_outermost():
    """An inner context manager leaves what an outer one has put there."""
    with nnlr.install():
        with nnlr.install():
            pass
        assert hasattr(nn.Module, "weight_decay")
    assert not hasattr(nn.Module, "weight_decay")


def test_a_plain_call_stays_until_uninstall():
    """Without with, the methods stay; uninstall is harmless twice."""
    nnlr.install()
    try:
        assert hasattr(nn.Module, "get_optim_config")
    finally:
        nnlr.uninstall()
    nnlr.uninstall()
    assert not hasattr(nn.Module, "get_optim_config")


def test_a_foreign_method_is_left_alone(monkeypatch):
    """Somebody else's method of that name is an error, and neither call touches it."""

    def theirs(module):
        return "theirs"

    monkeypatch.setattr(nn.Module, "weight_decay", theirs, raising=False)
    with pytest.raises(nnlr.NnlrError, match="already has 'weight_decay', and not from nnlr"):
        nnlr.install()
    assert not hasattr(nn.Module, "learning_rate")
    nnlr.uninstall()
    assert "theirs" == nn.ReLU().weight_decay()


def test_nothing_is_installed_on_import():
    """The methods are opt-in."""
    assert not {"learning_rate", "weight_decay", "get_optim_config"} & vars(nn.Module).keys()


@pytest.mark.parametrize(("lr", "decay"), [(0, 0), (-1, 0), (1, -1), (1, float("nan")), ("1", 0)])
def test_base_rates_are_checked(lr, decay):
    """get_optim_config refuses base rates out of range."""
    with pytest.raises(nnlr.NnlrError, match="must be a finite number"):
        nnlr.get_optim_config(nn.Linear(1, 1), lr, decay)
