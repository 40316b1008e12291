"""Every optimizer class of torch, and others: trained at the plan's rates, or refused."""

import functools
import inspect
import io
import math

import pytest
import torch
from torch import nn

import nnlr

BASE = 1e-2
DECAY = 0.1
STEPS = 4
MULTS = {"a": 1.0, "b": 0.1, "c": 0.01}


class Matrices(nn.Module):
    """Four equal matrices, so that only their rates can tell them apart."""

    def __init__(self):
        super().__init__()
        for name in ("a", "b", "c", "locked"):
            self.register_parameter(name, nn.Parameter(torch.ones(3, 3, dtype=torch.float64)))


def rates(extra=None):
    scheme = nnlr.rule("b", lr_mult=0.1) * nnlr.rule("c", lr_mult=0.01)
    scheme *= nnlr.rule("locked", lr_mult=0)
    return scheme if extra is None else scheme * extra


# A plan remembers its model weakly; the tests do not want to.
MODELS = []


def planned(model, extra=None, *, weight_decay=0.0, decay="coupled"):
    MODELS.append(model)
    return nnlr.resolve(model, rates(extra), lr=BASE, weight_decay=weight_decay, decay=decay)


def shrink(lr, weight_decay, steps=STEPS):
    """What decoupled decay, or decay in plain SGD, leaves of a weight of 1."""
    return (1 - lr * weight_decay) ** steps


def adafactor_law(lr, gradient):
    """Relative steps: rate times the root mean square of the weights, which shrink."""
    return 1 - (1 - lr) ** STEPS


def asgd_law(lr, gradient, lambd=1e-4, alpha=0.75):
    """Averaged SGD: its own small decay, and a rate that falls with lr * lambd * t."""
    weight, eta = 1.0, lr
    for step in range(1, STEPS + 1):
        weight = weight * (1 - lambd * eta) - eta * gradient
        eta = lr / (1 + lambd * lr * step) ** alpha
    return 1 - weight


# How each class decays: in proportion to lr * weight_decay, inside a rescaled gradient
# ("adaptive"), or not at all (None). `law` is for those whose displacement under a constant
# gradient is not proportional to lr.
CASES = {
    "Adadelta": {"decays": "adaptive"},
    "Adafactor": {"decays": "plain", "law": adafactor_law},
    "Adagrad": {"decays": "adaptive"},
    "Adam": {"decays": "adaptive"},
    "AdamW": {"decays": "plain"},
    "Adamax": {"decays": "adaptive"},
    "ASGD": {"decays": "plain", "law": asgd_law, "no_own_decay": {"lambd": 0.0}},
    "LBFGS": {"refused": "takes one parameter group, and the plan has 3"},
    "Muon": {"decays": "plain"},
    "NAdam": {"decays": "adaptive"},
    "Optimizer": {"refused": "missing 1 required positional argument: 'defaults'"},
    "RAdam": {"decays": "adaptive"},
    "RMSprop": {"decays": "adaptive"},
    "Rprop": {"decays": None},
    "SGD": {"decays": "plain"},
    "SparseAdam": {"decays": None, "sparse": True},
}
TRAINED = sorted(name for name, case in CASES.items() if "refused" not in case)
DECAYING = [name for name in TRAINED if CASES[name]["decays"]]
ADAPTIVE = [name for name in TRAINED if CASES[name]["decays"] == "adaptive"]


def takes(name, setting):
    return setting in inspect.signature(getattr(torch.optim, name)).parameters


# Flags that make decay plain in classes that otherwise put it into the gradient.
DECOUPLED = [name for name in ADAPTIVE if takes(name, "decoupled_weight_decay")]


def torch_classes():
    """Optimizer classes of torch.optim: listed, attributes, and subclasses anywhere in it."""
    listed = [getattr(torch.optim, name) for name in torch.optim.__all__]
    found = {cls for cls in [*listed, *vars(torch.optim).values()] if is_class(cls)}
    fresh = [torch.optim.Optimizer]
    while fresh:
        cls = fresh.pop()
        found |= {cls} if cls.__module__.startswith("torch.optim.") else set()
        fresh += cls.__subclasses__()
    return {cls.__name__ for cls in found}


def is_class(thing):
    return isinstance(thing, type) and issubclass(thing, torch.optim.Optimizer)


def gradient(name, value):
    return value.to_sparse(1) if CASES[name].get("sparse") else value


def train(name, optimizer, model, gradients):
    for each in gradients:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = gradient(name, each.clone())
        optimizer.step()


def constant(value=0.5):
    return [torch.full((3, 3), value, dtype=torch.float64)] * STEPS


def varying():
    source = torch.Generator().manual_seed(1)
    return [torch.randn(3, 3, dtype=torch.float64, generator=source) for _ in range(STEPS)]


def test_every_torch_optimizer_has_a_case_here():
    """A class that torch adds fails this test until it has a case."""
    assert set(CASES) == torch_classes()


class TestDisplacement:
    """Each class trains each group at its own measured displacement."""

    @pytest.mark.parametrize("tensor_lr", [False, True])
    @pytest.mark.parametrize("name", TRAINED)
    def test_displacements_are_in_the_ratio_of_the_multipliers(self, name, tensor_lr):
        """Under a constant gradient: 1 to 0.1 to 0.01, or as the class's law says."""
        model = Matrices()
        plan = planned(model)
        optimizer = plan.optimizer(getattr(torch.optim, name), tensor_lr=tensor_lr)
        train(name, optimizer, model, constant())
        moved = {key: 1 - getattr(model, key)[0, 0].item() for key in (*MULTS, "locked")}
        law = CASES[name].get("law", lambda lr, gradient: moved["a"] * lr / BASE)
        expected = {key: law(BASE * mult, 0.5) for key, mult in MULTS.items()}
        assert expected | {"locked": 0.0} == pytest.approx(moved, rel=1e-6)
        assert moved["a"] > 0

    @pytest.mark.parametrize("tensor_lr", [False, True])
    @pytest.mark.parametrize(
        ("name", "weight_decay"),
        [*((name, 0.0) for name in TRAINED), *((name, DECAY) for name in DECAYING)],
    )
    @pytest.mark.no_cover
    def test_a_group_trains_as_an_optimizer_of_its_own(self, name, weight_decay, tensor_lr):
        """Bit for bit: torch's class on one parameter at base * mult, decayed or not."""
        cls, model = getattr(torch.optim, name), Matrices()
        plan = planned(model, nnlr.rule("b", wd_mult=0.5), weight_decay=weight_decay)
        train(name, plan.optimizer(cls, tensor_lr=tensor_lr), model, varying())
        for key, mult in MULTS.items():
            alone = nn.ParameterDict({key: torch.ones(3, 3, dtype=torch.float64)})
            lr = BASE * mult
            settings = {"lr": torch.tensor(lr) if tensor_lr else lr}
            if CASES[name]["decays"]:
                settings["weight_decay"] = weight_decay * (0.5 if key == "b" else 1)
            train(name, cls(alone.parameters(), **settings), alone, varying())
            assert torch.equal(alone[key], getattr(model, key)), key

    @pytest.mark.parametrize("name", [n for n in TRAINED if takes(n, "foreach")])
    def test_optimizers_built_with_foreach_train_or_are_refused(self, name):
        """A tensor rate that foreach cannot take fails when built, not at the first step."""
        cls, model = getattr(torch.optim, name), Matrices()
        try:
            optimizer = planned(model).optimizer(cls, tensor_lr=True, foreach=True)
        except nnlr.ConfigError as error:
            assert "lr as a Tensor is not supported" in str(error)  # noqa: PT017
            assert model.locked.requires_grad
        else:
            train(name, optimizer, model, constant())
            assert model.a[0, 0] < 1


class TestDecay:
    """Weight decay acts where and as much as it should."""

    @pytest.mark.parametrize("name", DECAYING)
    def test_decay_shrinks_by_the_formula_and_spares_undecayed_groups(self, name):
        """Without gradients: (1 - lr wd)^n where decay is plain, and never at wd_mult 0."""
        model, case = Matrices(), CASES[name]
        plan = planned(model, nnlr.rule("b", wd_mult=0), weight_decay=DECAY)
        settings = case.get("no_own_decay", {})
        optimizer = plan.optimizer(getattr(torch.optim, name), **settings)
        train(name, optimizer, model, constant(0.0))
        assert torch.equal(torch.ones(3, 3, dtype=torch.float64), model.b)
        if case["decays"] == "plain":
            left = {"a": shrink(BASE, DECAY), "c": shrink(BASE * 0.01, DECAY)}
            assert left == pytest.approx(
                {key: getattr(model, key)[0, 0].item() for key in left}, rel=1e-9
            )
        else:
            assert model.a[0, 0] < model.c[0, 0] < 1

    @pytest.mark.parametrize("name", DECOUPLED)
    def test_decoupled_variants_shrink_by_the_formula(self, name):
        """decoupled_weight_decay=True makes an adaptive class decay plainly."""
        model = Matrices()
        optimizer = planned(model, weight_decay=DECAY, decay="independent").optimizer(
            getattr(torch.optim, name), decoupled_weight_decay=True
        )
        train(name, optimizer, model, constant(0.0))
        left = [getattr(model, key)[0, 0].item() for key in MULTS]
        assert [shrink(BASE, DECAY)] * 3 == pytest.approx(left, rel=1e-12)

    @pytest.mark.parametrize(
        ("mode", "power"), [("coupled", 1.0), ("sqrt", 0.5), ("independent", 0.0)]
    )
    def test_decay_modes_shrink_by_their_formula(self, mode, power):
        """AdamW: a weight shrinks by 1 - lr * mult^p * wd, p = 1, 1/2, 0."""
        model = Matrices()
        plan = planned(model, weight_decay=DECAY, decay=mode)
        train("AdamW", plan.optimizer(torch.optim.AdamW), model, constant(0.0))
        expected = [shrink(BASE * mult**power, DECAY) for mult in MULTS.values()]
        left = [getattr(model, key)[0, 0].item() for key in MULTS]
        assert expected == pytest.approx(left, rel=1e-12)

    @pytest.mark.parametrize("mode", ["sqrt", "independent"])
    @pytest.mark.parametrize("name", DECAYING)
    def test_decay_modes_warn_where_they_mean_nothing(self, name, mode, recwarn):
        """Adam, RMSprop and their like rescale the decay; the others say nothing."""
        plan = planned(Matrices(), weight_decay=DECAY, decay=mode)
        if CASES[name]["decays"] == "adaptive":
            with pytest.warns(
                nnlr.NnlrWarning,
                match=f"decay='{mode}' has no clear meaning with {name}: it adds decay",
            ) as caught:
                plan.optimizer(getattr(torch.optim, name))
            assert [__file__] == [warning.filename for warning in caught]
        else:
            plan.optimizer(getattr(torch.optim, name))
            assert [] == list(recwarn)

    def test_decay_modes_do_not_warn_where_nothing_decays(self):
        """With a base decay of 0 no mode makes a difference."""
        optimizer = planned(Matrices(), decay="sqrt").optimizer(torch.optim.Adam)
        assert {0.0} == {group["weight_decay"] for group in optimizer.param_groups}

    def test_a_warning_turned_into_an_error_locks_nothing(self):
        """The warning comes before the locks."""
        model = Matrices()
        plan = planned(model, weight_decay=DECAY, decay="sqrt")
        with pytest.raises(nnlr.NnlrWarning, match="no clear meaning with Adam"):
            plan.optimizer(torch.optim.Adam)
        assert model.locked.requires_grad


class TestRefusals:
    """What an optimizer would ignore, swallow or fail on later is an error at once."""

    @pytest.mark.parametrize(
        "name", sorted(name for name, case in CASES.items() if "refused" in case)
    )
    def test_classes_that_cannot_take_groups_are_refused(self, name):
        """LBFGS has one step size, and Optimizer itself is no optimizer."""
        model = Matrices()
        with pytest.raises(nnlr.ConfigError, match=CASES[name]["refused"]):
            planned(model).optimizer(getattr(torch.optim, name))
        assert model.locked.requires_grad

    @pytest.mark.parametrize("name", ["Rprop", "SparseAdam"])
    def test_decay_is_refused_by_classes_without_it(self, name):
        """Rprop and SparseAdam would swallow the key."""
        with pytest.raises(
            nnlr.ConfigError,
            match=f"^{name} has no weight decay, and the plan decays 3 of 3 groups",
        ):
            planned(Matrices(), weight_decay=DECAY).optimizer(getattr(torch.optim, name))

    @pytest.mark.parametrize("name", ["Rprop", "SparseAdam"])
    def test_groups_of_classes_without_decay_have_no_such_key(self, name):
        """What means nothing to the optimizer is not left lying in its groups."""
        optimizer = planned(Matrices()).optimizer(getattr(torch.optim, name))
        assert all("weight_decay" not in group for group in optimizer.param_groups)
        assert "weight_decay" not in optimizer.defaults

    def test_lbfgs_trains_a_plan_of_one_group(self):
        """With equal rates there is nothing it could ignore."""
        layer = nn.Linear(3, 1)
        plan = nnlr.resolve(layer, nnlr.rule("*", lr_mult=0.5), lr=0.2, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.LBFGS, max_iter=2)
        before = layer.weight.detach().clone()

        def closure():
            optimizer.zero_grad()
            loss = layer(torch.ones(4, 3)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        assert [0.1] == [group["lr"] for group in optimizer.param_groups]
        assert not torch.equal(before, layer.weight)

    def test_muon_names_what_is_no_matrix(self):
        """Vectors and convolutions are listed; a plan that locks them is taken."""
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2))
        with pytest.raises(
            nnlr.ConfigError,
            match=r"Muon trains matrices only, and 3 parameters have another number of "
            r"axes: 0\.weight, 0\.bias, 1\.bias\.",
        ) as caught:
            nnlr.resolve(net, lr=0.1, weight_decay=0.1).optimizer(torch.optim.Muon)
        assert ["0.weight", "0.bias", "1.bias"] == caught.value.names
        locks = nnlr.rule("0.*", lr_mult=0) * nnlr.rule("*.bias", lr_mult=0)
        plan = nnlr.resolve(net, locks, lr=0.1, weight_decay=0.1)
        optimizer = plan.optimizer(functools.partial(torch.optim.Muon, momentum=0.9))
        assert [["1.weight"]] == [g["param_names"] for g in optimizer.param_groups]

    def test_muon_looks_at_the_given_stage_only(self):
        """Vectors on other pipeline stages are not its business."""
        net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0.1)
        stage = {"0.weight": net[0].weight}
        optimizer = plan.optimizer(torch.optim.Muon, model=stage, partial=True)
        assert 1 == len(optimizer.param_groups)

    def test_a_plan_that_trains_nothing_is_refused(self):
        """Everything locked or frozen: there is nothing to give."""
        layer = nn.Linear(2, 2)
        layer.bias.requires_grad_(False)
        plan = nnlr.resolve(layer, nnlr.rule("weight", lr_mult=0), lr=0.1, weight_decay=0)
        with pytest.raises(nnlr.ConfigError, match="The plan trains nothing: every"):
            plan.optimizer(torch.optim.SGD)
        assert layer.weight.requires_grad

    def test_a_stage_without_parameters_is_refused(self):
        """Also one of which everything is locked."""
        layer = nn.Linear(2, 2)
        lock = nnlr.rule("bias", lr_mult=0)
        plan = nnlr.resolve(layer, lock, lr=0.1, weight_decay=0)
        for stage in ({}, {"bias": layer.bias}):
            with pytest.raises(nnlr.ConfigError, match="The plan trains nothing: ever"):
                plan.optimizer(torch.optim.SGD, model=stage, partial=True)

    @pytest.mark.parametrize(
        ("cls", "elsewhere", "message"),
        [
            (torch.optim.LBFGS, {"lr_mult": 0.5, "wd_mult": 0}, "and the plan has 2"),
            (torch.optim.Rprop, {"lr_mult": 0.5}, "Rprop has no weight decay"),
            (torch.optim.SGD, {"options": {"betas": (0.9, 0.9)}}, "know the option"),
        ],
        ids=["groups", "decay", "options"],
    )
    def test_groups_of_other_stages_are_not_its_business(self, cls, elsewhere, message):
        """What is refused for them is not refused here."""
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        schemes = (nnlr.rule("0.*", wd_mult=0), nnlr.rule("1.*", **elsewhere))
        plan = nnlr.resolve(net, *schemes, lr=0.1, weight_decay=0.1)
        with pytest.raises(nnlr.ConfigError, match=message):
            plan.optimizer(cls)
        stage = {"0.weight": net[0].weight, "0.bias": net[0].bias}
        optimizer = plan.optimizer(cls, model=stage, partial=True)
        assert [2] == [len(group["params"]) for group in optimizer.param_groups]

    def test_a_plan_for_two_optimizers_is_refused(self):
        """It takes one class for each of its algorithms."""

        class Routed(nnlr.Scheme):
            def factors(self, model):
                return [
                    nnlr.Factor(algorithm="muon" if p.role == "matrix" else None)
                    for p in model.params
                ]

        layer = nn.Linear(2, 2)
        plan = nnlr.resolve(layer, Routed(), lr=0.1, weight_decay=0)
        assert {"muon", None} == {group.algorithm for group in plan.groups}
        with pytest.raises(
            nnlr.ConfigError,
            match=r"routes parameters to 'muon', None, and <class .*SGD'> is one class",
        ):
            plan.optimizer(torch.optim.SGD)

    @pytest.mark.parametrize("base", ["lr", "weight_decay"])
    def test_base_rates_are_not_passed_a_second_time(self, base):
        """The plan has them; the message says how to change them."""
        net = nn.Linear(2, 2)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0.2)
        message = rf"{base}=0\.5 is not passed here.*plan\.with_rates\({base}=0\.5\)"
        with pytest.raises(nnlr.ConfigError, match=message):
            plan.optimizer(torch.optim.SGD, **{base: 0.5})
        with pytest.raises(nnlr.ConfigError, match=message):
            plan.optimizer(functools.partial(torch.optim.SGD, **{base: 0.5}))

    def test_params_are_the_plans(self):
        """Torch's classes have an argument of that name, which the plan fills."""
        net = nn.Linear(2, 2)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0.2)
        message = r"params is not passed here: .* Leave it out: plan\.optimizer\(AdamW\)\."
        with pytest.raises(nnlr.ConfigError, match=message):
            plan.optimizer(torch.optim.AdamW, params=net.parameters())
        (group,) = plan.optimizer(torch.optim.AdamW).param_groups
        assert list(map(id, net.parameters())) == list(map(id, group["params"]))

        def function(groups, params):
            return torch.optim.SGD(groups, lr=params)

        assert {"lr": 0.1}.items() <= plan.optimizer(function, params=0.1).defaults.items()

    def test_an_unknown_setting_is_refused_with_the_reason(self):
        """A typing error in a keyword is told with the nearest one."""
        with pytest.raises(
            nnlr.ConfigError, match=r"SGD has no argument 'momentun'\. .*'momentum'"
        ):
            planned(Matrices()).optimizer(torch.optim.SGD, momentun=0.9)

    @pytest.mark.parametrize(
        ("cls", "option", "message"),
        [
            (
                torch.optim.SGD,
                {"betas": (0.9, 0.9)},
                "SGD does not know the option 'betas'",
            ),
            (torch.optim.AdamW, {"momentum": 0.9}, "AdamW does not know the option"),
            (
                torch.optim.AdamW,
                {"beta": 0.9},
                r"of group .* \(b\): its step does not read it\. Nearest: 'betas'\.",
            ),
            (
                lambda groups: torch.optim.SGD(groups, momentum=0.5),
                {"betas": 1},
                "does not know the opt",
            ),
        ],
    )
    def test_an_option_the_class_does_not_know_is_refused(self, cls, option, message):
        """Torch would accept any key in a group and never look at it."""
        model = Matrices()
        plan = planned(model, nnlr.rule("b", options=option))
        with pytest.raises(nnlr.ConfigError, match=message):
            plan.optimizer(cls)
        assert model.locked.requires_grad

    def test_an_option_the_class_knows_reaches_its_group_only(self):
        """Group options override the constructor's setting where they are set."""
        plan = planned(Matrices(), nnlr.rule("b", options={"momentum": 0.5}))
        optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
        assert {"a": 0.9, "b": 0.5, "c": 0.9} == {
            group["param_names"][0]: group["momentum"] for group in optimizer.param_groups
        }

    @pytest.mark.parametrize("thing", [3, "AdamW", None])
    def test_what_cannot_be_called_is_no_optimizer(self, thing):
        """The message shows what is wanted."""
        with pytest.raises(
            nnlr.ConfigError,
            match=r"needs an optimizer class such as torch.optim.AdamW",
        ):
            planned(Matrices()).optimizer(thing)


class Quiet(torch.optim.SGD):
    """A third-party class whose constructor hides its settings."""

    def __init__(self, params, **settings):
        super().__init__(params, **settings)


class Stateful(torch.optim.SGD):
    """A third-party class that writes keys of its own into its groups."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        for group in self.param_groups:
            group["k"] = 0


class RateFree(torch.optim.Optimizer):
    """A third-party class that has no learning rate."""

    def __init__(self, params, alpha=1.0):
        super().__init__(params, {"alpha": alpha})

    def step(self):
        for group in self.param_groups:
            for tensor in group["params"]:
                tensor.data.sub_(tensor.grad, alpha=group["alpha"])


class Decayless(torch.optim.Optimizer):
    """A third-party class that hides that it cannot decay."""

    def __init__(self, params, **settings):
        super().__init__(params, {"lr": 1.0, **settings})

    def step(self):
        for group in self.param_groups:
            for tensor in group["params"]:
                tensor.data.sub_(tensor.grad, alpha=group["lr"])


class Broken(torch.optim.SGD):
    """A third-party class that fails."""

    def __init__(self, params, lr, weight_decay=0.0):
        raise LookupError("no licence")


class Wrapper:
    """A third-party optimizer that is no torch optimizer and has no defaults."""

    def __init__(self, params, lr):
        self.param_groups = params
        self.lr = lr


def make(groups, lr, weight_decay):
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)


def make_plain(groups):
    return torch.optim.AdamW(groups)


def make_open(groups, **settings):
    return torch.optim.AdamW(groups, **settings)


class Flattening(torch.optim.SGD):
    """A third-party class that makes one group of all it is given."""

    def __init__(self, params, lr, weight_decay=0.0):
        flat = [pair for group in params for pair in group["params"]]
        super().__init__(flat, lr=lr, weight_decay=weight_decay)


class Undecaying(torch.optim.SGD):
    """A third-party class that decays only its first group."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        for group in self.param_groups[1:]:
            group["weight_decay"] = 0.0


class Unscheduled(torch.optim.SGD):
    """A third-party class whose groups lose their rate."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            group["lr"] = None


class Picky(torch.optim.SGD):
    """A third-party class that sorts its tensors by size, and cannot take names."""

    def __init__(self, params, lr):
        groups = [{**g, "params": sorted(g["params"], key=lambda p: p.numel())} for g in params]
        super().__init__(groups, lr=lr)


class TestFactories:
    """Whatever builds an optimizer from groups will do."""

    @pytest.mark.parametrize(
        "factory",
        [
            make,
            functools.partial(make),
            functools.partial(torch.optim.AdamW, betas=(0.8, 0.9)),
            make_plain,
            make_open,
            Quiet,
            Stateful,
        ],
        ids=["function", "partial", "partial-class", "plain", "open", "quiet", "keys"],
    )
    def test_factories_get_the_groups_and_both_bases(self, factory):
        """HF schedulers read optimizer.defaults["lr"], however it was built."""
        plan = planned(Matrices(), nnlr.rule("c", wd_mult=0), weight_decay=DECAY)
        optimizer = plan.optimizer(factory)
        assert (BASE, DECAY) == (
            optimizer.defaults["lr"],
            optimizer.defaults["weight_decay"],
        )
        assert [(BASE, DECAY), (BASE * 0.1, DECAY), (BASE * 0.01, 0.0)] == [
            (group["lr"], group["weight_decay"]) for group in optimizer.param_groups
        ]

    def test_a_partial_keeps_its_settings(self):
        """What was bound stays bound."""
        optimizer = planned(Matrices()).optimizer(functools.partial(torch.optim.SGD, momentum=0.7))
        assert {0.7} == {group["momentum"] for group in optimizer.param_groups}

    def test_an_optimizer_without_a_rate_is_refused(self):
        """It would train every group alike."""
        with pytest.raises(
            nnlr.ConfigError, match=r"RateFree has no setting 'lr'.* settings are alpha"
        ):
            planned(Matrices()).optimizer(RateFree)

    def test_an_optimizer_that_swallows_decay_is_refused(self):
        """Its defaults tell what its constructor does not."""
        with pytest.raises(nnlr.ConfigError, match="Decayless has no weight decay"):
            planned(Matrices(), weight_decay=DECAY).optimizer(Decayless)
        plain = planned(Matrices()).optimizer(Decayless)
        assert BASE == plain.defaults["lr"]

    def test_a_constructor_that_fails_locks_nothing(self):
        """Any exception becomes a ConfigError with it as the cause."""
        model = Matrices()
        with pytest.raises(nnlr.ConfigError, match="3 groups: LookupError: no licence") as caught:
            planned(model).optimizer(Broken)
        assert isinstance(caught.value.__cause__, LookupError)
        assert model.locked.requires_grad

    def test_a_factory_may_attach_a_scheduler(self):
        """Its first step moves the rates, and notes from where."""

        def warmed(groups, **settings):
            optimizer = torch.optim.AdamW(groups, **settings)
            optimizer.warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1)
            return optimizer

        model = Matrices()
        optimizer = nnlr.resolve(model, lr=0.1, weight_decay=0).optimizer(warmed)
        assert [0.1] == [group["initial_lr"] for group in optimizer.param_groups]

    @pytest.mark.parametrize("settings", [{}, {"names": False}, {"tensor_lr": True}])
    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            (
                Flattening,
                "'b' trains at lr=0.01, weight_decay=0.1; the plan trains it at lr=0.001, ",
            ),
            (
                Undecaying,
                r"'b' trains at lr=0.001, weight_decay=0; .* weight_decay=0\.1\. Use a ",
            ),
            (
                Unscheduled,
                "'a' trains at weight_decay=0; the plan trains it at lr=0.01",
            ),
            (
                lambda groups: torch.optim.SGD(groups[:1], lr=BASE, weight_decay=DECAY),
                "'b' trains not at all; the plan trains it at lr=0.001",
            ),
            (lambda groups: None, "gave NoneType, which has no param_groups"),
        ],
        ids=["flat", "decay", "no-rate", "dropped", "nothing"],
    )
    def test_an_optimizer_that_ignores_the_groups_is_refused(self, factory, message, settings):
        """It would train at other rates than the plan shows; nothing is locked."""
        model = Matrices()
        decay = 0.0 if factory is Unscheduled else DECAY
        with pytest.raises(nnlr.ConfigError, match=message):
            planned(model, weight_decay=decay).optimizer(factory, **settings)
        assert model.locked.requires_grad

    def test_a_factory_that_builds_from_the_model_is_refused(self):
        """Also where one rate is right for all, as it would train what is locked."""
        model = Matrices()
        plan = nnlr.resolve(model, nnlr.rule("locked", lr_mult=0), lr=BASE, weight_decay=DECAY)

        def build(groups, lr, weight_decay):
            return torch.optim.SGD(model.parameters(), lr=lr, weight_decay=weight_decay)

        message = "'locked' trains at lr=0.01, weight_decay=0.1; the plan trains it not at"
        with pytest.raises(nnlr.ConfigError, match=message) as caught:
            plan.optimizer(build)
        assert "locked" == caught.value.name
        assert model.locked.requires_grad

    def test_a_constructor_that_chokes_on_names_gets_plain_tensors(self):
        """Its groups have the names all the same, beside the tensors that they belong to."""
        for settings in ({}, {"names": False}):
            model = Matrices()
            optimizer = planned(model).optimizer(Picky, **settings)
            assert [BASE, BASE * 0.1, BASE * 0.01] == [g["lr"] for g in optimizer.param_groups]
            assert all({"name", "lr_mult", "wd_mult"} <= g.keys() for g in optimizer.param_groups)
            tensors = dict(model.named_parameters())
            for group in optimizer.param_groups:
                assert ("param_names" in group) == (settings == {})
                pairs = zip(group.get("param_names", ()), group["params"], strict=False)
                assert all(tensors[name] is tensor for name, tensor in pairs)

    def test_a_constructor_that_fails_in_every_way_tells_of_the_first(self):
        """The groups as the plan has them."""
        for factory, settings, message in (
            (Broken, {}, "no licence$"),
            (lambda groups: 1 + (), {"names": False}, "'tuple'$"),
        ):
            with pytest.raises(nnlr.ConfigError, match=message):
                planned(Matrices()).optimizer(factory, **settings)

    def test_rates_are_compared_by_value(self):
        """A class that keeps them as float32 tensors keeps the groups."""

        def build(groups, lr):
            optimizer = torch.optim.SGD(groups, lr=lr)
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
            return optimizer

        optimizer = planned(Matrices()).optimizer(build)
        assert [BASE, BASE * 0.1, BASE * 0.01] == pytest.approx(
            [group["lr"].item() for group in optimizer.param_groups]
        )

    def test_a_wrapper_without_defaults_is_taken_as_it_is(self):
        """There is nothing to ask, so there is nothing to refuse."""
        wrapper = planned(Matrices()).optimizer(Wrapper)
        assert (BASE, 3) == (wrapper.lr, len(wrapper.param_groups))

    def test_a_callable_without_a_signature_is_tried(self):
        """Classes written in C do not say what they take."""
        with pytest.raises(nnlr.ConfigError, match=r"^dict cannot be built on the plan's"):
            planned(Matrices()).optimizer(dict)


class TestResult:
    """What the built optimizer holds."""

    def test_both_bases_are_its_defaults_with_a_tensor_rate_too(self):
        """The default stays a float, which schedulers can compute with."""
        optimizer = planned(Matrices(), weight_decay=DECAY).optimizer(
            torch.optim.AdamW, tensor_lr=True
        )
        assert (BASE, DECAY) == (
            optimizer.defaults["lr"],
            optimizer.defaults["weight_decay"],
        )
        assert isinstance(optimizer.defaults["lr"], float)

    def test_its_groups_know_the_names_of_their_parameters(self):
        """Torch fills param_names from the pairs."""
        optimizer = planned(Matrices()).optimizer(torch.optim.SGD)
        assert [["a"], ["b"], ["c"]] == [g["param_names"] for g in optimizer.param_groups]
        plain = planned(Matrices()).optimizer(torch.optim.SGD, names=False)
        assert all("param_names" not in group for group in plain.param_groups)

    def test_its_state_dict_loads_with_weights_only(self):
        """Plain Python values only, as trainers need to resume."""
        import numpy as np

        model = Matrices()
        scheme = nnlr.rule("a", options={"betas": [np.float32(0.5), np.float64(0.9)]})
        optimizer = nnlr.resolve(
            model, scheme, lr=np.float64(0.1), weight_decay=np.float32(0.5)
        ).optimizer(torch.optim.AdamW)
        train("AdamW", optimizer, model, constant())
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        assert optimizer.state_dict()["param_groups"] == loaded["param_groups"]
        values = [value for group in loaded["param_groups"] for value in group.values()]
        values += [each for note in values if isinstance(note, dict) for each in note.values()]
        assert {float, int, str, bool, tuple, list, dict, type(None)} >= {*map(type, values)}

    def test_eps_mult_multiplies_the_default_or_the_given_eps(self):
        """1e-8 of AdamW, or what is passed, or the group's own option."""

        class Narrow(nnlr.Scheme):
            def factors(self, model):
                own = {"c": {"eps": 1e-3}}
                return [
                    nnlr.Factor(
                        eps_mult=0.5 if p.name in "bc" else 1,
                        options=own.get(p.name, {}),
                    )
                    for p in model.params
                ]

        plan = planned(Matrices(), Narrow())
        default = plan.optimizer(torch.optim.AdamW)
        assert [1e-8, 5e-9, 5e-4] == [group["eps"] for group in default.param_groups]
        given = plan.optimizer(torch.optim.AdamW, eps=1e-6)
        assert [1e-6, 5e-7, 5e-4] == [group["eps"] for group in given.param_groups]

    @pytest.mark.parametrize(
        ("cls", "message"),
        [
            (
                torch.optim.SGD,
                "SGD has no setting eps, and the plan multiplies that of 3 of 3 groups. Use",
            ),
            (
                lambda groups, lr, **_: torch.optim.AdamW(groups, lr),
                "there is no eps to multiply: pass eps=, for example",
            ),
            (
                torch.optim.Adafactor,
                r"eps of group 'lr1_wd1.*' must be a finite number",
            ),
        ],
    )
    def test_eps_mult_without_one_number_to_multiply_is_refused(self, cls, message):
        """SGD has no eps, a function does not say, and that of Adafactor is a pair."""

        class Half(nnlr.Scheme):
            def factors(self, model):
                return [nnlr.Factor(eps_mult=0.5) for _ in model.params]

        model = Matrices()
        with pytest.raises(nnlr.NnlrError, match=message):
            planned(model, Half()).optimizer(cls)
        assert model.locked.requires_grad

    def test_a_rate_below_one_float32_step_of_the_weight_is_exact_in_float64(self):
        """The plan's numbers go in unrounded."""
        model = Matrices()
        plan = nnlr.resolve(model, lr=1e-3, weight_decay=1e-5)
        (group,) = plan.optimizer(torch.optim.SGD).param_groups
        assert (1e-3, 1e-5) == (group["lr"], group["weight_decay"])
        assert math.isclose(1e-3, plan["a"].lr, rel_tol=0)


class Around(torch.optim.Optimizer):
    """A wrapper as others write them: no constructor of torch, no hooks, a state of its own."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        self.defaults = optimizer.defaults

    def step(self, closure=None):
        self.optimizer.step(closure)

    def state_dict(self):
        return {"k": 5, "inner": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["inner"])


class TestClassesOfOtherArguments:
    @pytest.mark.parametrize("first", ["model", "named_parameters"])
    def test_one_that_takes_a_model_is_refused(self, first):
        """By its signature, not by the error of its constructor."""
        names = {}
        exec(f"class Whole:\n    def __init__(self, {first}): pass", names)  # noqa: S102 - a name
        net = nn.Linear(2, 1)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        with pytest.raises(nnlr.ConfigError, match=f"Whole takes '{first}' and groups the par"):
            plan.optimizer(names["Whole"])

    def test_one_around_an_optimizer_is_built_by_a_function(self):
        """As the message says."""
        net = nn.Linear(2, 1)
        plan = nnlr.resolve(net, nnlr.rule("bias", lr_mult=2), lr=0.1, weight_decay=0)
        with pytest.raises(nnlr.ConfigError, match="Around is built around") as error:
            plan.optimizer(Around)
        fix = str(error.value).partition("\n")[2].strip()
        built = eval(fix, {"plan": plan, "torch": torch, "Around": Around})  # noqa: S307 - ours
        assert [0.1, 0.2] == [group["lr"] for group in built.param_groups]

    @pytest.mark.parametrize("names", [True, False])
    def test_a_wrapper_that_goes_by_position_refuses_other_groups(self, names):
        """Of the same sizes in another order; its groups have names, or nothing tells."""

        def build(faster):
            net = nn.Linear(1, 1)
            plan = nnlr.resolve(net, nnlr.rule(faster, lr_mult=2), lr=0.1, weight_decay=0)
            adam = lambda groups: Around(torch.optim.Adam(groups))  # noqa: E731 - a factory
            return net, plan.optimizer(adam, names=names)

        net, before = build("bias")
        net(torch.ones(1)).backward()
        before.step()
        state = before.state_dict()
        (_same, same), (_other, other) = build("bias"), build("weight")
        same.load_state_dict(state)
        assert 2 == len(same.optimizer.state)
        if names:
            with pytest.raises(nnlr.ConfigError, match="Around loads by position"):
                other.load_state_dict(state)
            assert 0 == len(other.optimizer.state)
        else:
            other.load_state_dict(state)
