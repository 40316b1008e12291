"""Options of groups: judged by the optimizer's own class, and read by its step."""

import functools

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import nnlr
from nnlr._apply.trial import Recorded

INF = float("inf")
ABROAD = "abroad"

# Options that a class refuses as arguments, or that no step survives, and what is said of them.
REFUSED = [
    ("AdamW", {"betas": (1.5, 2)}, {}, "Invalid beta parameter at index 0: 1.5"),
    ("AdamW", {"betas": (0.9,)}, {}, "tuple index out of range"),
    ("AdamW", {"betas": (0.9, 0.99, 0.5)}, {}, r"cannot step .* too many values to unpack"),
    ("AdamW", {"eps": -1}, {}, "Invalid epsilon value: -1"),
    ("AdamW", {"eps": None}, {}, "'<=' not supported"),
    ("AdamW", {"eps": INF}, {}, "moves no weight with an option that is infinite"),
    ("AdamW", {"fused": True, "foreach": True}, {}, "`fused` and `foreach` cannot be"),
    ("AdamW", {"capturable": True}, {}, "params and state_steps must be on supported devices"),
    ("SGD", {"momentum": -1}, {}, "Invalid momentum value: -1"),
    ("SGD", {"momentum": "abc"}, {}, "TypeError: '<' not supported"),
    ("SGD", {"momentum": INF}, {}, "makes weights NaN or infinite"),
    ("SGD", {"nesterov": True}, {}, "Nesterov momentum requires a momentum"),
    ("SGD", {"nesterov": True, "momentum": 0}, {"momentum": 0.9}, "Nesterov momentum requires"),
    ("NAdam", {"momentum_decay": -1}, {}, "Invalid momentum_decay value: -1"),
    ("RMSprop", {"alpha": -0.5}, {}, "Invalid alpha value: -0.5"),
    ("Rprop", {"etas": (1.5, 0.5)}, {}, "Invalid eta values: 1.5, 0.5"),
    ("Adadelta", {"rho": 2}, {}, "Invalid rho value: 2"),
    ("Adagrad", {"lr_decay": -1}, {}, "Invalid lr_decay value: -1"),
    ("Adafactor", {"eps": (INF, 1e-3)}, {}, "moves no weight with an option that is infinite"),
    ("Adafactor", {"d": 0.5}, {}, "Clipping threshold d should be >= 1"),
]

TAKEN = [
    ("AdamW", {"betas": (0.5, 0.9), "eps": 0.0, "amsgrad": True}, {}),
    ("AdamW", {"fused": True}, {}),
    ("SGD", {"nesterov": True}, {"momentum": 0.9}),
    ("SGD", {"nesterov": True, "momentum": 0.9}, {}),
    ("SGD", {"maximize": True}, {}),
    ("RMSprop", {"centered": True, "momentum": 0.5}, {}),
    ("Adafactor", {"d": INF}, {}),
]


# A plan remembers its model weakly; the tests do not want to.
MODELS = []


def network():
    MODELS.append(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    return MODELS[-1]


def planned(model, options, pattern="0.*", **more):
    rule = nnlr.rule(pattern, options=options, lr_mult=0.5)
    return nnlr.resolve(model, rule, lr=0.1, weight_decay=0, **more)


class TestValues:
    """What a class refuses as an argument it is not given in a group."""

    @pytest.mark.parametrize(("name", "options", "settings", "message"), REFUSED)
    def test_options_that_the_class_refuses_are_its_own_error(
        self, name, options, settings, message
    ):
        """With the rule that set them and the parameters; nothing is locked, nothing built."""
        model, cls = network(), getattr(torch.optim, name)
        lock = nnlr.rule("1.bias", lr_mult=0)
        plan = nnlr.resolve(model, nnlr.rule("0.*", options=options), lock, lr=0.1, weight_decay=0)
        with pytest.raises(nnlr.ConfigError, match=message) as caught:
            plan.optimizer(cls, **settings)
        text = str(caught.value)
        assert text.startswith(f"{name} ")
        assert "(0.weight, 0.bias), set by rule '0.*'." in text
        assert ["0.weight", "0.bias"] == caught.value.names
        assert caught.value.options == nnlr.Factor(options=options).options
        assert model[1].bias.requires_grad

    @pytest.mark.parametrize(("name", "options", "settings"), TAKEN)
    def test_options_that_the_class_takes_reach_their_group(self, name, options, settings):
        """Also those that need another setting beside them."""
        optimizer = planned(network(), options).optimizer(getattr(torch.optim, name), **settings)
        group = next(g for g in optimizer.param_groups if "0.weight" in g["param_names"])
        assert options == {key: group[key] for key in options}

    @pytest.mark.parametrize("cls", [nnlr.optim.AdamW, nnlr.optim.Adam])
    def test_classes_of_our_own_judge_as_torchs(self, cls):
        """They derive from them."""
        with pytest.raises(nnlr.ConfigError, match=r"Invalid beta .*, set by rule '0\.\*'"):
            planned(network(), {"betas": (1.5, 2)}).optimizer(cls)

    @pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.AdamW])
    def test_what_a_subclass_hands_on_is_judged_by_the_class_it_is_of(self, base):
        """Its own signature says `**kwargs`, and an eps of -1 shows in no step."""

        class Open(base):
            def __init__(self, params, *args, **kwargs):
                super().__init__(params, *args, **kwargs)

        with pytest.raises(nnlr.ConfigError, match="Invalid epsilon value: -1"):
            planned(network(), {"eps": -1}).optimizer(Open)
        assert planned(network(), {"eps": 1e-6}).optimizer(Open)

    def test_an_empty_tensor_does_not_stand_for_the_others(self):
        """No value makes it move, or NaN."""
        tensors = {
            "0.full": torch.nn.Parameter(torch.ones(3)),
            "0.empty": torch.nn.Parameter(torch.ones(0)),
        }
        with pytest.raises(nnlr.ConfigError, match="moves no weight with an option that is inf"):
            planned(tensors, {"eps": INF}).optimizer(torch.optim.AdamW, model=tensors)

    def test_partials_and_functions_are_judged_by_what_they_build(self):
        """A function's optimizer has a class too."""
        plan = planned(network(), {"betas": (0.9, 2.0)})
        for factory in (
            functools.partial(torch.optim.AdamW, amsgrad=True),
            lambda groups: torch.optim.AdamW(groups, eps=1e-6),
        ):
            with pytest.raises(nnlr.ConfigError, match=r"Invalid beta parameter at index 1: 2\.0"):
                plan.optimizer(factory)
        nesterov = planned(network(), {"nesterov": True})
        nesterov.optimizer(functools.partial(torch.optim.SGD, momentum=0.9))

    def test_each_distinct_set_is_tried_once(self, monkeypatch):
        """However many groups have it."""
        built = []

        class Counted(torch.optim.SGD):
            def __init__(self, params, **settings):
                built.append(1)
                super().__init__(params, **settings)

        def count(model, *schemes):
            plan = nnlr.resolve(model, *schemes, lr=0.1, weight_decay=0.1)
            built.clear()
            plan.optimizer(Counted)
            return len(built)

        model = network()
        halves = nnlr.rule("*.bias", wd_mult=0.5)
        assert 1 == count(model, halves)
        assert 2 == count(model, halves, nnlr.rule("*", options={"momentum": 0.5}))
        assert 3 == count(
            model,
            nnlr.rule("*.bias", options={"momentum": 0.5}),
            nnlr.rule("*.weight", options={"momentum": 0.25}),
        )

    def test_regroup_judges_them_and_changes_nothing(self):
        """It gives the settings to an optimizer in use."""
        model = network()
        optimizer = nnlr.resolve(model, lr=0.1, weight_decay=0).optimizer(torch.optim.SGD)
        groups = [dict(group) for group in optimizer.param_groups]
        with pytest.raises(nnlr.ConfigError, match="Invalid momentum value: -1"):
            nnlr.regroup(optimizer, planned(model, {"momentum": -1}))
        assert groups == optimizer.param_groups
        nnlr.regroup(optimizer, planned(model, {"momentum": 0.5}))
        assert {0.5, 0} == {group["momentum"] for group in optimizer.param_groups}

    def test_a_class_that_needs_more_than_groups_is_built_as_it_is(self):
        """A small one cannot be built, so nothing is known of its options."""

        class Needy(torch.optim.SGD):
            def __init__(self, params, model, lr, momentum=0.0):
                assert model is not None
                super().__init__(params, lr=lr, momentum=momentum)

        plan, model = planned(network(), {"momentum": -1.0}), network()
        optimizer = plan.optimizer(lambda groups, lr: Needy(groups, model, lr))
        assert {-1.0, 0.0} == {group["momentum"] for group in optimizer.param_groups}

    def test_what_fails_on_small_tensors_only_is_taken(self):
        """A rank above the side of the small tensor fits the true one."""

        class Ranked(torch.optim.SGD):
            def __init__(self, params, lr, rank=1):
                super().__init__(params, lr=lr)
                self.defaults["rank"] = rank
                for group in self.param_groups:
                    group.setdefault("rank", rank)

            def step(self, closure=None):
                for group in self.param_groups:
                    if any(group["rank"] > max(p.shape) for p in group["params"]):
                        raise ValueError("rank too large")
                return super().step(closure)

        model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 2))
        assert planned(model, {"rank": 16}).optimizer(Ranked)
        with pytest.raises(nnlr.ConfigError, match=r"cannot step .*rank too large.*'rank': 64"):
            planned(model, {"rank": 64}).optimizer(Ranked)
        # Of a tensor that is too large to try, a smaller one of its kind is.
        large = {"0.weight": nn.Parameter(torch.empty(2, 1000, 1000, device="meta"))}
        assert planned(large, {"momentum": 0.5}).optimizer(torch.optim.SGD)
        with pytest.raises(nnlr.ConfigError, match="Invalid momentum value"):
            planned(large, {"momentum": -1}).optimizer(torch.optim.SGD)

    def test_trials_leave_no_trace(self):
        """Random numbers, hooks and output are as they were."""
        model, calls = network(), []
        handle = register_optimizer_step_post_hook(lambda *args: calls.append(args))
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        planned(model, {"momentum": 0.5}).optimizer(torch.optim.SGD)
        handle.remove()
        assert torch.equal(expected, torch.rand(2))
        assert [] == calls
        assert all(param.grad is None for param in model.parameters())


class Undeclared(torch.optim.Optimizer):
    """Reads from its groups what it has no defaults for, as some variants of Muon do."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self):
        for group in self.param_groups:
            flip = -1 if group.get("flip") else 1
            for tensor in group["params"]:
                decay = 1 - group["lr"] * group.get("weight_decay", 0)
                tensor.data.mul_(decay).sub_(tensor.grad, alpha=flip * group["lr"])


class Copying(Undeclared):
    """Puts copies of the groups it gets into its own, and goes through all settings."""

    def __init__(self, params):
        super().__init__([dict(group) for group in params])

    def step(self):
        for group in self.param_groups:
            settings = dict(group.items())
            assert settings.keys() == set(group)
            for tensor in group["params"]:
                tensor.data.sub_(tensor.grad, alpha=settings["lr"] * settings.get("any", 1))


class Strict(Undeclared):
    """Takes groups of exactly the keys that it knows, and sorts their tensors."""

    def __init__(self, params):
        for group in params:
            group["params"] = sorted(group["params"], key=torch.Tensor.numel)
            assert group.keys() - {"flip", "weight_decay"} == {"params", "lr"}
        super().__init__(params)


class OnCondition(torch.optim.SGD):
    """Reads a setting for large tensors only."""

    def step(self, closure=None):
        for group in self.param_groups:
            if any(max(tensor.shape) > 100 for tensor in group["params"]):
                group.get("large", 0)
        return super().step(closure)


class Together(torch.optim.Optimizer):
    """Steps only where processes train together."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self):
        raise RuntimeError("no process group")


class TestUndeclared:
    """Settings that a step reads are taken, whether or not the class declares them."""

    @pytest.mark.parametrize("cls", [Undeclared, Strict])
    def test_settings_that_the_step_reads_are_taken(self, cls):
        """The rate and the decay among them, which count."""
        model = network()
        scheme = nnlr.rule("0.*", options={"flip": True}, lr_mult=0.5)
        plan = nnlr.resolve(model, scheme, lr=0.1, weight_decay=0.5)
        optimizer = plan.optimizer(cls)
        assert 0.1 == optimizer.defaults["lr"]  # where schedulers look
        before = {name: param.detach().clone() for name, param in model.named_parameters()}
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
        for name, param in model.named_parameters():
            lr, flip = (0.05, -1) if name.startswith("0") else (0.1, 1)
            expected = before[name] * (1 - lr * 0.5) - flip * lr
            torch.testing.assert_close(expected, param.detach(), rtol=1e-6, atol=1e-6)

    def test_names_and_notes_are_written_beside_the_tensors_they_belong_to(self):
        """Also where the class sorts its tensors and refuses what it does not know."""
        model = network()
        optimizer = nnlr.resolve(model, lr=0.1, weight_decay=0).optimizer(Strict)
        (group,) = optimizer.param_groups
        tensors = dict(model.named_parameters())
        pairs = list(zip(group["param_names"], group["params"], strict=True))
        assert all(tensors[name] is tensor for name, tensor in pairs)
        assert ["1.bias", "0.bias", "1.weight", "0.weight"] == [name for name, _ in pairs]
        assert ("lr1_wd1", 1.0, 1.0) == (group["name"], group["lr_mult"], group["wd_mult"])

    @pytest.mark.parametrize(
        ("cls", "key"), [(Copying, "any"), (OnCondition, "large"), (Undeclared, "flip")]
    )
    def test_what_may_be_read_is_not_refused(self, cls, key):
        """A step that goes through all settings, or names one in its code."""
        optimizer = planned(network(), {key: 2}).optimizer(cls)
        assert [2] == [group[key] for group in optimizer.param_groups if key in group]

    def test_each_way_to_ask_a_group_is_noted(self):
        """By key, by default, by membership; who goes through all of it asks for all."""
        group = Recorded({"a": 1, "b": 2, "g": 0})
        assert (1, 3, False) == (group["a"], group.get("c", 3), "d" in group)
        assert (5, 6, 0) == (group.setdefault("e", 5), group.pop("f", 6), group.pop("g"))
        assert {"a", "c", "d", "e", "f", "g"} == group.read
        for go_through in (
            list,
            dict,
            dict.copy,
            lambda g: {**g},
            lambda g: {} | g,
            Recorded.items,
        ):
            group = Recorded({"a": 1, "b": 2})
            go_through(group)
            assert {"a", "b"} == group.read

    def test_what_was_written_before_is_not_asked_for(self):
        """A counter that a step keeps there is nobody's setting."""
        group = Recorded({"a": 1})
        group["k"] = 0
        assert 0 == group["k"]
        assert set() == group.read

    @pytest.mark.parametrize("ask", [Recorded.pop, Recorded.setdefault, Recorded.get])
    def test_a_helper_outside_of_the_class_may_ask(self, ask):
        """Neither the class nor its methods have the word then."""

        class Elsewhere(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    ask(group, ABROAD, None)
                return super().step(closure)

        optimizer = planned(network(), {ABROAD: 2}).optimizer(Elsewhere)
        assert 2 in [group.get(ABROAD) for group in optimizer.param_groups]

    @pytest.mark.parametrize("cls", [Undeclared, OnCondition, torch.optim.AdamW])
    def test_what_no_step_reads_is_refused(self, cls):
        """Anything may stand in a group of torch."""
        with pytest.raises(nnlr.ConfigError, match=r"know the option 'flap' .*does not read it"):
            planned(network(), {"flap": True}).optimizer(cls)

    def test_a_step_that_cannot_be_tried_is_a_warning(self):
        """Nothing can tell, so nothing is refused, and nothing claimed."""
        plan = planned(network(), {"flap": True})
        with pytest.warns(
            nnlr.NnlrWarning, match="Together declares no setting '.*', and whether its step reads"
        ) as caught:
            optimizer = plan.optimizer(Together)
        assert ["'flap'", "'lr'"] == sorted(str(w.message).split()[4][:-1] for w in caught)
        assert [0.1, 0.05] == [group["lr"] for group in optimizer.param_groups]

    def test_processes_that_train_together_are_not_made_to_step(self, monkeypatch):
        """One that steps alone may wait for the others for ever; constructors are asked."""
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(Together, "step", lambda self: pytest.fail("it stepped"))
        plan = planned(network(), {"momentum": -1})
        with pytest.raises(nnlr.ConfigError, match="Invalid momentum value: -1"):
            plan.optimizer(torch.optim.SGD)
        with pytest.warns(nnlr.NnlrWarning, match="Together declares no setting"):
            planned(network(), {"momentum": -1}).optimizer(Together)

    @pytest.mark.parametrize("decay", [0.0, 0.5])
    def test_a_decay_that_no_step_reads_is_refused(self, decay):
        """Undeclared and unread; a plan without decay is taken, and its groups have no key."""

        class Plain(Undeclared):
            def step(self):
                for group in self.param_groups:
                    for tensor in group["params"]:
                        tensor.data.sub_(tensor.grad, alpha=group["lr"])

        plan = nnlr.resolve(network(), lr=0.1, weight_decay=decay)
        if decay:
            with pytest.raises(nnlr.ConfigError, match=r"^Plain has no weight decay, and the plan"):
                plan.optimizer(Plain)
        else:
            assert "weight_decay" not in plan.optimizer(Plain).param_groups[0]


class OneRate(torch.optim.SGD):
    """Raises at its first step where groups have different rates, as Prodigy does."""

    def step(self, closure=None):
        if len({group["lr"] for group in self.param_groups} - {0.0}) > 1:
            raise RuntimeError("different lr values are not supported")
        return super().step(closure)


class TestRates:
    """A class whose step raises on different rates is refused before it is used."""

    def test_different_rates_are_refused(self):
        """With what the step says; nothing is locked."""
        model = network()
        lock = nnlr.rule("1.bias", lr_mult=0)
        plan = nnlr.resolve(model, nnlr.rule("0.*", lr_mult=0.5), lock, lr=0.1, weight_decay=0)
        with pytest.raises(
            nnlr.ConfigError,
            match=r"^OneRate cannot step with groups of different rates \(RuntimeError: different",
        ):
            plan.optimizer(OneRate)
        assert model[1].bias.requires_grad

    def test_one_rate_is_not(self):
        """Nor are groups that are kept at 0."""
        model = network()
        keep = nnlr.rule("0.*", lr_mult=0)
        plan = nnlr.resolve(model, keep, lr=0.1, weight_decay=0)
        assert 2 == len(plan.optimizer(OneRate, locked="keep").param_groups)

    def test_a_class_that_steps_at_no_rates_at_all_is_built(self):
        """Its rates are not what it fails on."""
        plan = planned(network(), {"flap": True})
        with pytest.warns(nnlr.NnlrWarning, match="Together declares no setting"):
            plan.optimizer(Together)


class AdamOrMomentum(torch.optim.Optimizer):
    """Groups of two kinds, each with settings of its own and no defaults, as in Muon."""

    def __init__(self, params):
        for group in params:
            group.setdefault("weight_decay", 0.0)
            if group["adam"]:
                group.setdefault("betas", (0.9, 0.95))
                group.setdefault("eps", 1e-10)
            else:
                group.setdefault("momentum", 0.95)
        super().__init__(params, {})

    def step(self):
        for group in self.param_groups:
            for tensor in group["params"]:
                state = self.state[tensor]
                if not state:
                    state["mean"] = torch.zeros_like(tensor)
                beta = group["betas"][0] - group["eps"] if group["adam"] else group["momentum"]
                state["mean"].lerp_(tensor.grad, 1 - beta)
                tensor.data.mul_(1 - group["lr"] * group["weight_decay"])
                tensor.data.sub_(state["mean"], alpha=group["lr"])


def test_regroup_keeps_settings_without_default_with_their_tensors():
    """Where there is no default to put in, the next step would have to do without."""
    net = network()
    kinds = nnlr.rule("*.weight", options={"adam": False}) * nnlr.rule(
        "*.bias", options={"adam": True, "betas": (0.8, 0.9)}
    )
    optimizer = nnlr.resolve(net, kinds, lr=0.1, weight_decay=0).optimizer(AdamOrMomentum)
    stepped(optimizer, net)
    new = nnlr.resolve(net, kinds, nnlr.rule("0.*", lr_mult=0.5), lr=0.1, weight_decay=0)
    nnlr.regroup(optimizer, new)
    assert 4 == len(optimizer.param_groups)
    for group in optimizer.param_groups:
        own = {"betas": (0.8, 0.9), "eps": 1e-10} if group["adam"] else {"momentum": 0.95}
        assert own == {key: group[key] for key in ("betas", "eps", "momentum") if key in group}
    stepped(optimizer, net)


def stepped(optimizer, net):
    """A step on all gradients that there are."""
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
