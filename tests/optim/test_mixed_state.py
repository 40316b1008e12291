"""Several classes in one optimizer: copied, saved, resumed, grown, and what is refused."""

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr.errors import ConfigError
from tests.optim.mixed import (
    ADAMW,
    MUON,
    NAMES,
    SETS,
    SGD,
    parameters,
    same,
    same_state,
    separate,
    together,
    train,
)

Mixed = nnlr.optim.Mixed
PAIR = SETS["muon-adamw"]
SHORT = ("muon-our_adamw", "adafactor-adamw", "muon-adamw-sgd")
EACH = [pytest.param(name, marks=() if name in SHORT else pytest.mark.full) for name in SETS]


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("name", EACH)
def test_a_copy_trains_on(name, how):
    """Of parameters, optimizer and scheduler together; the original is not touched."""
    params = parameters()
    mixed = together(SETS[name], params)
    scheduler = lrs.ExponentialLR(mixed, 0.9)  # it wraps the step of the optimizer
    train(params, [mixed], range(4), lambda _: scheduler.step())
    pair = (params, mixed, scheduler)
    copied = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    before = [param.detach().clone() for param in params]
    train(copied[0], [copied[1]], range(4, 7), lambda _: copied[2].step())
    assert same(before, params)
    train(params, [mixed], range(4, 7), lambda _: scheduler.step())
    assert same(params, copied[0])
    assert copied[1].algorithms["first"].state is copied[1].state
    assert copied[1].param_groups[0] is copied[1].algorithms["first"].param_groups[0]


@pytest.mark.parametrize("name", EACH)
def test_twenty_resumes_in_a_row(name):
    """Of optimizer and scheduler, through files that are loaded safely."""
    ones, others = parameters(), parameters()
    apart, mixed = separate(SETS[name], ones), together(SETS[name], others)
    schedules = [lrs.ExponentialLR(optimizer, 0.98) for optimizer in apart]
    scheduler = lrs.ExponentialLR(mixed, 0.98)
    for step in range(20):
        train(ones, apart, [step], lambda _: [each.step() for each in schedules])
        train(others, [mixed], [step], lambda _, s=scheduler: s.step())
        saved = [through_a_file(thing.state_dict()) for thing in (mixed, scheduler)]
        others = [nn.Parameter(param.detach().clone()) for param in others]
        mixed = together(SETS[name], others)
        scheduler = lrs.ExponentialLR(mixed, 0.98)
        mixed.load_state_dict(saved[0])
        scheduler.load_state_dict(saved[1])
    assert same(ones, others)
    assert same_state(apart, mixed, ones, others)
    assert [NAMES[at] for at in range(len(SETS[name]))] * 2 == [
        group["algorithm"] for group in mixed.param_groups
    ]


def test_a_state_without_algorithms():
    """Saved by one class on the same groups: the names are those of the code."""
    params = parameters()
    alone = ADAMW([{"params": params[:3]}, {"params": params[3:]}], lr=0.02)
    train(params, [alone], range(2))
    groups = [{"params": p, "algorithm": "only"} for p in (params[:3], params[3:])]
    mixed = Mixed(groups, {"only": ADAMW})
    mixed.load_state_dict(alone.state_dict())
    assert ["only"] * 2 == [group["algorithm"] for group in mixed.param_groups]
    assert same_state([alone], mixed, params, params)


def test_a_state_of_another_algorithm_is_refused():
    """Before anything has changed."""
    params = parameters()
    mixed = together(PAIR, params)
    train(params, [mixed], range(2))
    saved = mixed.state_dict()
    other = together((MUON, ADAMW), params)
    saved["param_groups"][0]["algorithm"] = "second"
    with pytest.raises(ConfigError, match=r"param_groups\[0\] was saved by the algorithm 'second'"):
        other.load_state_dict(saved)
    assert not other.state
    assert not other._optimizer_load_state_dict_pre_hooks
    with pytest.raises(ValueError, match="different number of parameter groups"):
        other.load_state_dict({**saved, "param_groups": []})


class Packed(torch.optim.SGD):
    """Keeps bytes and a counter, saves and loads in its own way, as 8-bit optimizers do."""

    count = 0

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    state = self.state[param]
                    state.setdefault("bytes", torch.zeros(4, dtype=torch.uint8)).add_(1)
                    param.data -= group["lr"] * state["bytes"][0].float() * param.grad / self.count

    def state_dict(self):
        saved = super().state_dict()
        packed = {key: {"packed": state} for key, state in saved["state"].items()}
        return {**saved, "state": packed, "count": self.count}

    def load_state_dict(self, state_dict):
        unpacked = {key: dict(state["packed"]) for key, state in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": {}})
        order = [param for group in self.param_groups for param in group["params"]]
        numbers = [each for group in state_dict["param_groups"] for each in group["params"]]
        for number, param in zip(numbers, order, strict=True):
            if number in unpacked:
                self.state[param] = unpacked[number]
        self.count = state_dict["count"]


class Open(torch.optim.SGD):
    """Has in its groups what cannot be saved."""

    def __init__(self, params):
        super().__init__(params, momentum=0.9)
        for group in self.param_groups:
            group["_open"] = object()

    def state_dict(self):
        saved = super().state_dict()
        for group in saved["param_groups"]:
            group.pop("_open", None)
        return saved


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("cls", [Packed, Open])
def test_a_class_that_saves_and_loads_in_its_own_way(cls, by_name):
    """Bytes stay bytes, what it saves besides comes back, and what cannot be saved is left out."""

    def built(build, params):
        optimizers = build((MUON, cls, SGD), params)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer in optimizers if by_name and build is together else ():
            pairs = [(f"p{at}", param) for at, param in enumerate(params)]
            nnlr.checkpoint.on_load(optimizer, model=pairs)
        return optimizers

    runs = []
    for build in (separate, together):
        params = parameters()
        optimizers = built(build, params)
        train(params, optimizers, range(3))
        for step in range(3, 6):
            saved = [through_a_file(optimizer.state_dict()) for optimizer in optimizers]
            params = [nn.Parameter(param.detach().clone()) for param in params]
            optimizers = built(build, params)
            for optimizer, state in zip(optimizers, saved, strict=True):
                optimizer.load_state_dict(state)
            train(params, optimizers, [step])
        runs.append((params, optimizers))
    (ones, apart), (others, (mixed,)) = runs
    assert same(ones, others)
    assert same_state(apart, mixed, ones, others)
    member = mixed.algorithms["second"]
    assert member.state is mixed.state
    if cls is Packed:
        assert torch.uint8 == mixed.state[others[4]]["bytes"].dtype
        assert apart[1].count == member.count
        assert ["count"] == list(mixed.state_dict()["algorithms"]["second"])


@pytest.mark.parametrize("copied", [False, True])
def test_hooks_see_what_classes_save(copied):
    """Theirs run after the classes, and have the last word; one before them all may replace it."""
    params = parameters()
    mixed = together((MUON, Packed), params)
    train(params, [mixed], range(2))
    mixed = copy.deepcopy(mixed) if copied else mixed
    seen = []
    mixed.register_state_dict_post_hook(lambda _, saved: seen.append(dict(saved["state"])))
    mixed.register_state_dict_post_hook(lambda _, saved: saved["state"].clear())
    assert {} == mixed.state_dict()["state"]
    assert {"momentum_buffer", "packed"} == {key for state in seen[0].values() for key in state}
    mixed.register_state_dict_post_hook(lambda *_: {"replaced": True}, prepend=True)
    for handle in list(mixed._optimizer_state_dict_post_hooks)[2:]:
        del mixed._optimizer_state_dict_post_hooks[handle]
    assert {"replaced": True} == mixed.state_dict()


@pytest.mark.parametrize("state", [3, [], {}, {"state": {}}, [{"state": {}, "param_groups": []}]])
def test_what_is_no_state_is_refused(state):
    """Also the states of separate optimizers, which are loaded by name."""
    with pytest.raises(ConfigError, match="without 'state' and 'param_groups'"):
        together(PAIR, parameters()).load_state_dict(state)


@pytest.mark.parametrize("extra", [False, True])
def test_setstate_without_a_load(extra):
    """Somebody hands state and groups over directly: taken up as they are."""
    params = parameters()
    mixed = together((MUON, Packed) if extra else PAIR, params)
    train(params, [mixed], range(2))
    state = dict(mixed.state)
    mixed.__setstate__({"state": mixed.state, "param_groups": mixed.param_groups})
    assert state == dict(mixed.state)


class ScheduleFree(torch.optim.SGD):
    """Has two sets of weights, which its methods exchange."""

    mode = None

    def train(self):
        self.mode = "train", len(self.param_groups)

    def eval(self):
        self.mode = "eval", len(self.param_groups)


def test_modes_of_schedule_free_classes():
    """`train` and `eval` reach the classes that have them."""
    mixed = together((MUON, ScheduleFree), parameters())
    member = mixed.algorithms["second"]
    assert mixed.train() is None
    assert ("train", 2) == member.mode
    mixed.eval()
    assert ("eval", 2) == member.mode
    together(PAIR, parameters()).train()


class TestAddParamGroup:
    def test_of_an_algorithm_that_is_there_and_of_a_new_one(self):
        """It trains as the optimizers apart do; a new class steps in the order of the names."""
        groups = [{"params": p, "algorithm": "third"} for p in (parameters()[:2],)]
        classes = {"first": torch.optim.Adagrad, "second": MUON, "third": SGD}
        mixed = Mixed(groups, classes)
        assert ["third"] == list(mixed.algorithms)
        more, late = parameters(), parameters()
        mixed.add_param_group({"params": more[4:6], "lr": 0.2, "algorithm": "first"})
        mixed.add_param_group({"params": late[0], "lr": 0.3, "algorithm": "second"})
        mixed.add_param_group({"params": iter(late[1:2]), "lr": 0.4, "algorithm": "third"})
        assert ["first", "second", "third"] == list(mixed.algorithms)
        assert "momentum" not in mixed.defaults
        assert "dampening" not in mixed.param_groups[1].keys() | mixed.param_groups[2].keys()
        twins = [parameters()[:2], parameters()[4:6], parameters()[:1], parameters()[1:2]]
        apart = [
            SGD([{"params": twins[0]}, {"params": twins[3], "lr": 0.4}]),
            torch.optim.Adagrad(twins[1], lr=0.2),
            MUON(twins[2], lr=0.3),
        ]
        ones = [param for twin in twins for param in twin]
        others = [param for group in mixed.param_groups for param in group["params"]]
        for _ in range(2):
            train(ones, apart, range(3, 6))
            train(others, [mixed], range(3, 6))
            assert same(ones, others)
            assert same_state(apart, mixed, ones, others)
            mixed = copy.deepcopy(mixed)
            others = [param for group in mixed.param_groups for param in group["params"]]

    @pytest.mark.parametrize(
        ("number", "algorithm", "error"),
        [
            (0, "first", "more than one parameter group"),
            (4, "first", "more than one parameter group"),
            (4, "second", "more than one parameter group"),
            (0, "third", "more than one parameter group"),
            (None, "fourth", "only supports 2D"),
            (None, None, "names none"),
            (None, "frist", "'first'"),
        ],
    )
    def test_what_is_refused_leaves_everything_as_it_was(self, number, algorithm, error):
        """Also where the class has taken the group already."""
        params = parameters()
        classes = {"first": MUON, "second": ADAMW, "third": SGD, "fourth": MUON}
        groups = [
            {"params": params[:2], "algorithm": "first"},
            {"params": params[2:4], "algorithm": "first"},
            {"params": params[4:], "algorithm": "second"},
        ]
        mixed = Mixed(groups, classes)
        before = repr(mixed), dict(mixed.defaults), list(mixed.algorithms)
        wrong = {"params": nn.Parameter(torch.ones(2)) if number is None else params[number]}
        if algorithm:
            wrong["algorithm"] = algorithm
        with pytest.raises(ValueError, match=error):
            mixed.add_param_group(wrong)
        for wrong in ({"params": 3}, {"params": {params[0]}}, {}):
            with pytest.raises(ConfigError, match=r"not iterable|ordered coll|dict with 'params'"):
                mixed.add_param_group({**wrong, "algorithm": "third"})
        with pytest.raises(ConfigError, match="must be a dict with 'params'"):
            mixed.add_param_group([nn.Parameter(torch.ones(2))])
        assert before == (repr(mixed), mixed.defaults, list(mixed.algorithms))
        counts = {name: len(m.param_groups) for name, m in mixed.algorithms.items()}
        assert {"first": 2, "second": 1} == counts
        train(params, [mixed], range(2))

    def test_names_of_parameters(self):
        """Named and unnamed ones do not mix, as in torch."""
        params = parameters()
        named = [(f"p{at}", param) for at, param in enumerate(params)]
        groups = [{"params": named[:1], "algorithm": "first"}]
        mixed = Mixed(groups, {"first": MUON, "second": ADAMW})
        mixed.add_param_group({"params": named[4:5], "algorithm": "second"})
        assert [["p0"], ["p4"]] == [group["param_names"] for group in mixed.param_groups]
        with pytest.raises(ValueError, match="with/without names"):
            mixed.add_param_group({"params": params[5], "algorithm": "second"})
        assert 1 == len(mixed.algorithms["second"].param_groups)


class Stray(torch.optim.SGD):
    """Keeps a counter in its state."""

    def step(self, closure=None):
        self.state["steps"] = self.state.get("steps", 0) + 1
        return super().step(closure)


class Split(torch.optim.SGD):
    """Puts each parameter into a group of its own."""

    def __init__(self, params, lr=0.1):
        super().__init__([{"params": p} for g in params for p in g["params"]], lr=lr)


class Wrapped(torch.optim.Optimizer):
    """Keeps groups and state in an optimizer inside."""

    def __init__(self, params):
        self.inner = SGD(params)
        self.defaults = {}

    param_groups = property(lambda self: self.inner.param_groups)
    state = property(lambda self: self.inner.state)

    def step(self, closure=None):
        self.inner.step(closure)


class TestRefused:
    def test_state_under_keys_that_are_no_parameters(self):
        """Two classes could use the same key; a single one may."""
        params = parameters()
        mixed = together((Stray, SGD), params)
        train(params, [mixed], range(1))
        with pytest.raises(ConfigError, match="keeps state under 'steps', which is no parameter"):
            train(params, [mixed], range(1))
        alone = Mixed([{"params": params, "algorithm": "only"}], {"only": Stray})
        train(params, [alone], range(3))
        again = Mixed([{"params": params, "algorithm": "only"}], {"only": Stray})
        again.load_state_dict(alone.state_dict())
        assert 3 == again.state["steps"]

    @pytest.mark.parametrize(
        ("cls", "error"),
        [
            (torch.optim.LBFGS, "'first'.*LBFGS evaluates the loss in its step"),
            (lambda groups: torch.optim.LBFGS(groups[0]["params"]), "LBFGS evaluates the loss"),
            (partial(torch.optim.LBFGS, lr=0.1), "LBFGS evaluates the loss"),
            (Split, "Split puts its parameters into other groups"),
            (Wrapped, "Wrapped wraps an optimizer"),
            (lambda groups: groups, r"built a list, which is no torch.optim.Optimizer"),
            (partial(ADAMW, betas=(2, 3)), "'first'.* cannot be built on its 1 group: ValueError"),
            (3, "must be an optimizer class"),
        ],
    )
    def test_classes(self, cls, error):
        """What cannot be one of several says so when it is built."""
        groups = [{"params": parameters(), "algorithm": "first"}]
        with pytest.raises(ConfigError, match=error):
            Mixed(groups, {"first": cls})

    def test_a_class_with_a_key_of_that_name(self):
        """Dion's classes tell their own algorithms apart by it."""

        class Several(torch.optim.SGD):
            def __init__(self, params):
                super().__init__([{"algorithm": "muon", **group} for group in params])

        with pytest.raises(ConfigError, match="a setting 'algorithm' of its own, 'muon'"):
            together((Several, SGD), parameters())
        mixed = Mixed([{"params": parameters(), "algorithm": "muon"}], {"muon": Several})
        assert "muon" == mixed.param_groups[0]["algorithm"]

    @pytest.mark.parametrize("algorithms", [{}, None, [ADAMW], {1: ADAMW}])
    def test_no_classes_by_name(self, algorithms):
        """A mapping from names to classes."""
        with pytest.raises(ConfigError, match=r"algorithms(\[1\] must be| maps names)"):
            Mixed([{"params": parameters(), "algorithm": "first"}], algorithms)

    @pytest.mark.parametrize(
        ("groups", "error"),
        [
            ([], "at least one parameter group"),
            (3, "groups must be a list"),
            ({"params": []}, "groups must be a list"),
            ([nn.Parameter(torch.ones(2))], r"groups\[0\] must be a dict with 'params'"),
            ([{"algorithm": "first"}], r"groups\[0\] must be a dict with 'params'"),
            ([{"params": []}], "names none"),
            ([{"params": [], "algorithm": "frist"}], "names the algorithm 'frist'.*'first'"),
        ],
    )
    def test_groups(self, groups, error):
        """Each is a dict with parameters and a name."""
        with pytest.raises(ConfigError, match=error):
            Mixed(groups, {"first": ADAMW})

    def test_groups_that_are_renamed_by_hand(self):
        """The next step says which names there are."""
        params = parameters()
        mixed = together(PAIR, params)
        mixed.param_groups[0]["algorithm"] = "frist"
        with pytest.raises(ConfigError, match=r"names the algorithm 'frist'.*'first'"):
            train(params, [mixed], range(1))
        assert same(params, parameters())

    def test_a_parameter_twice(self):
        """Of two algorithms: it would be stepped twice."""
        params = parameters()
        groups = [{"params": params[:2], "algorithm": name} for name in ("first", "second")]
        with pytest.raises(ValueError, match="more than one parameter group"):
            Mixed(groups, {"first": MUON, "second": ADAMW})


def test_an_algorithm_without_parameters():
    """It is no error, is not built, and may get some later."""
    mixed = Mixed(
        [{"params": parameters(), "algorithm": "second"}], {"first": MUON, "second": ADAMW}
    )
    assert ["second"] == list(mixed.algorithms)
    with pytest.raises(TypeError, match="does not support item assignment"):
        mixed.algorithms["first"] = None
