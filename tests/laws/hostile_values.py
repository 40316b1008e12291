"""What a user may hand in by mistake, or on purpose; each value is made anew."""

import math
import re
import warnings
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import torch
from torch import nn

import nnlr


class NoiseError(Exception):
    """What a loud object or a function of the user's raises: no error of ours."""


class Loud:
    """An object that objects to nearly everything."""

    def _refuse(self, *args):
        raise NoiseError

    __repr__ = __str__ = __eq__ = __len__ = __bool__ = __hash__ = _refuse
    __float__ = __int__ = __index__ = __lt__ = __contains__ = _refuse


class Speed(Enum):
    FAST = 1


class Lookalike(str):
    """Text of a class of its own."""


def endless():
    """A list that holds itself."""
    inside = [1]
    inside.append(inside)
    return inside


def function_that(returns):
    """A function that takes anything."""
    return lambda *args, **kwargs: returns


def raises(*args, **kwargs):
    raise NoiseError


def hostile(label):
    """A value by its label, made without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is on its way out
        return VALUES[label]()


VALUES: dict[str, Callable[[], object]] = {
    **{
        repr(value): lambda value=value: value
        for value in (
            *(None, True, False, 0, 1, 2, 3, -1, -0.0, 0.5, 1.5, -0.5, 1e-320, 1e308),
            *(math.nan, math.inf, -math.inf, 2**31, 2**63, -(2**63), 1j, b"x", b""),
            *(
                "",
                "no",
                "auto",
                "1e-3",
                "nan",
                "*",
                "\n",
                "a\nb",
                "0.*",
                "weight",
                ".",
                "..",
                "x.y",
            ),
            *("naïve ⊕", "\u202egnp", "\x00", "\ud800", "[", "(?P<", "{}", "%s", "None"),
            *((), (1,), ("a",), (0.9, 0.95), (None,), frozenset(), range(0), range(3), Ellipsis),
            *(NotImplemented, slice(None), slice(1, 2), int, object, type, nn.Linear, nn.Module),
            *(Exception, nnlr.Scheme, nnlr.Plan, torch.optim.SGD, Speed.FAST, len),
            *(Decimal("0.1"), Decimal("NaN"), Fraction(1, 2), Path("x"), re.compile("a.*")),
            *(torch.float16, torch.device("meta"), nnlr.glob("0.*"), nnlr.role("bias")),
        )
    },
    "10**400": lambda: 10**400,
    "-10**5000": lambda: -(10**5000),
    "[]": list,
    "{}": dict,
    "set()": set,
    "[None]": lambda: [None],
    "[[]]": lambda: [[]],
    "['0.*', 1]": lambda: ["0.*", 1],
    "['0.*']": lambda: ["0.*"],
    "[0.1, 0.2]": lambda: [0.1, 0.2],
    "[1, 1]": lambda: [1, 1],
    "[nan]": lambda: [math.nan],
    "{'a': 1}": lambda: {"a": 1},
    "{1: 2}": lambda: {1: 2},
    "{None: None}": lambda: {None: None},
    "{'0.*': 'x'}": lambda: {"0.*": "x"},
    "{'0.*': nan}": lambda: {"0.*": math.nan},
    "{'lr': -1}": lambda: {"lr": -1},
    "{'weight': tensor}": lambda: {"weight": torch.zeros(2)},
    "{'param_groups': []}": lambda: {"param_groups": [], "state": {}},
    "{'param_groups': 3}": lambda: {"param_groups": 3, "state": None},
    "{'param_groups': [{}]}": lambda: {"param_groups": [{}], "state": {0: 1}},
    "{'param_groups': [params]}": lambda: {"param_groups": [{"params": ["a"]}], "state": {}},
    "endless()": endless,
    "deque": deque,
    "object()": object,
    "Loud()": Loud,
    "Loud class": lambda: Loud,
    "[Loud()]": lambda: [Loud()],
    "Mock()": Mock,
    "Lookalike": lambda: Lookalike("auto"),
    "generator": lambda: (value for value in (1, 2)),
    "iter([])": lambda: iter([]),
    "map": lambda: map(str, [1]),
    "raises": lambda: raises,
    **{
        f"function that returns {value!r}": lambda value=value: function_that(value)
        for value in (None, True, "x", math.nan, -1, 0.5, 1j, (), (1, 2), [None])
    },
    "function that returns Loud": lambda: function_that(Loud()),
    "nn.Linear(1, 1)": lambda: nn.Linear(1, 1),
    "nn.ReLU()": nn.ReLU,
    "nn.LazyLinear(1)": lambda: nn.LazyLinear(1),
    "nn.Linear on meta": lambda: nn.Linear(1, 1, device="meta"),
    "parameters": lambda: nn.Linear(1, 1).parameters(),
    "named_parameters": lambda: nn.Linear(1, 1).named_parameters(),
    "state_dict": lambda: nn.Linear(1, 1).state_dict(),
    "scripted": lambda: torch.jit.script(nn.Linear(1, 1)),
    "tensor(0.1)": lambda: torch.tensor(0.1),
    "tensor(nan)": lambda: torch.tensor(math.nan),
    "zeros(0)": lambda: torch.zeros(0),
    "zeros(2, 2)": lambda: torch.zeros(2, 2),
    "meta tensor": lambda: torch.zeros(2, device="meta"),
    "integers": lambda: torch.arange(3),
    "complex tensor": lambda: torch.zeros(2, dtype=torch.complex64),
    "sparse tensor": lambda: torch.zeros(2, 2).to_sparse(),
    "half tensor": lambda: torch.zeros(2, dtype=torch.float16),
    "[tensor]": lambda: [torch.zeros(2)],
    "[meta tensor]": lambda: [torch.zeros(2, device="meta", requires_grad=True)],
    "np.float32(0.1)": lambda: np.float32(0.1),
    "np.float64(nan)": lambda: np.float64(math.nan),
    "np.int64(-1)": lambda: np.int64(-1),
    "np.True_": lambda: np.True_,
    "np.str_": lambda: np.str_("auto"),
    "np.array(1.0)": lambda: np.array(1.0),
    "np.array([1.0, 2.0])": lambda: np.array([1.0, 2.0]),
    "np.array objects": lambda: np.array([None, "x"], dtype=object),
    "a scheme": lambda: nnlr.rule("*"),
    "[a scheme]": lambda: [nnlr.rule("*")],
    "a factor": nnlr.Factor,
    "a layer": lambda: nnlr.depth.Layer(1, 0),
    "an optimizer": lambda: torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1),
    "an optimizer without state": lambda: torch.optim.Adam([torch.zeros(1, device="meta")]),
    "a plan": lambda: nnlr.resolve(nn.Linear(1, 1), lr=1.0, weight_decay=0.0),
    "an exception": lambda: NoiseError("x"),
    "a module": lambda: math,
}

LABELS = sorted(VALUES)
