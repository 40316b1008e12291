"""Plans: look things up, vary them, keep them, and lose the model they were made for."""

import copy
import gc
import json
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import nnlr
from nnlr.report import PlanDiff
from nnlr.testing import rates


class Tied(nn.Module):
    """A table used twice, and a layer of its own."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.body = nn.Linear(2, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight


SCHEME = nnlr.rules(
    [
        nnlr.rule("body.weight", lr_mult=0.3, options={"betas": (0.9, 0.95), "amsgrad": True}),
        nnlr.rule("body.*", lr=0.07, weight_decay=0.3),
        nnlr.rule("*", lr_mult=0, optional=True),
    ]
)


def planned(model, *schemes, **settings):
    """A plan at the base rates 0.1 and 0.01."""
    return nnlr.resolve(model, *schemes, **{"lr": 0.1, "weight_decay": 0.01} | settings)


class TestLookup:
    def test_by_name_alias_and_raw_name(self):
        """All spellings lead to one row."""
        model = Tied()
        plan = planned(torch.compile(model, backend="eager"))
        row = plan["embed.weight"]
        assert row is plan["head.weight"] is plan["_orig_mod.embed.weight"]
        assert row is plan["module.head.weight"]
        assert "module.head.weight" in plan

    def test_parametrized_names_lead_back(self):
        """The raw names behind a parametrization are accepted."""
        plan = planned(nn.Sequential(parametrizations.orthogonal(nn.Linear(2, 2))))
        assert "0.weight" == plan["0.parametrizations.weight.original"].name

    @pytest.mark.parametrize("name", ["embed.wieght", "", 3, None])
    def test_an_unknown_name_is_an_error(self, name):
        """The message has the model and the nearest name."""
        plan = planned(Tied())
        assert name not in plan
        with pytest.raises(nnlr.NnlrError, match="plan for Tied has no parameter") as caught:
            plan[name]
        assert ("Nearest: 'embed.weight'" in str(caught.value)) == (name == "embed.wieght")

    def test_a_plan_is_its_rows(self):
        """Length and iteration are those of the rows, in the order of parameters()."""
        model = Tied()
        plan = planned(model)
        assert list(plan.rows) == list(plan)
        assert len(list(model.parameters())) == len(plan)
        assert [name for name, _ in model.named_parameters()] == [row.name for row in plan]


class TestTexts:
    def test_repr_is_one_line(self):
        """The repr says what it is for, print shows the table."""
        plan = planned(Tied(), nnlr.rule("body.*", lr_mult=0.5))
        assert "Plan(Tied: 3 parameters, 2 groups, lr=0.1, weight_decay=0.01)" == repr(plan)
        assert plan.table() == str(plan)
        assert repr(planned(nn.Linear(1, 1, bias=False))).startswith(
            "Plan(Linear: 1 parameter, 1 group, "
        )

    def test_findings_are_printed(self):
        """What is probably not meant is under the table."""
        plan = planned(Tied(), nnlr.rule("body.*", lr_mult=1e-5))
        assert 1 == len(plan.findings)
        assert plan.findings[0].cause.split(",")[0] in " ".join(str(plan).split())
        assert "looks like an absolute one" in " ".join(plan.table(full=True).split())

    def test_explain_takes_every_spelling(self):
        """The method explain looks names up as [] does."""
        plan = planned(Tied())
        assert plan.explain("embed.weight") == plan.explain("module.head.weight")
        with pytest.raises(nnlr.NnlrError, match="no parameter 'x'"):
            plan.explain("x")

    def test_diff_takes_a_plan(self):
        """Equal plans have no difference; something else is refused."""
        plan = planned(Tied())
        assert not plan.diff(planned(Tied()))
        assert isinstance(plan.diff(planned(Tied(), SCHEME)), PlanDiff)
        with pytest.raises(nnlr.NnlrError, match=r"other must be a Plan, got \{\} \(dict\)"):
            plan.diff({})


class TestWithRates:
    def test_it_equals_resolving_anew(self):
        """Rows, groups and bases are those of a fresh resolve, absolute rules too."""
        model = Tied()
        for decay in ("coupled", "independent", "sqrt"):
            plan = planned(model, SCHEME, decay=decay)
            fresh = nnlr.resolve(model, SCHEME, lr=3e-4, weight_decay=0.7, decay=decay)
            moved = plan.with_rates(lr=3e-4, weight_decay=0.7)
            assert fresh == moved
            assert fresh.groups == moved.groups
        assert 0.07 == pytest.approx(moved["body.bias"].lr, rel=1e-15)

    def test_what_is_not_given_stays(self):
        """Each base can be changed alone."""
        plan = planned(Tied())
        assert (0.2, 0.01) == (
            plan.with_rates(lr=0.2).lr,
            plan.with_rates(lr=0.2).weight_decay,
        )
        assert (0.1, 0.5) == (
            plan.with_rates(weight_decay=0.5).lr,
            plan.with_rates(weight_decay=0.5).weight_decay,
        )
        assert plan == plan.with_rates()

    def test_it_keeps_the_way_to_the_model(self):
        """A sweep builds optimizers without passing the model again."""
        model = Tied()
        optimizer = planned(model).with_rates(lr=0.5).optimizer(torch.optim.SGD)
        assert 0.5 == optimizer.param_groups[0]["lr"]

    @pytest.mark.parametrize("rates", [{"lr": 0}, {"lr": float("nan")}, {"weight_decay": -1}])
    def test_bad_rates_are_refused(self, rates):
        """The ranges are those of resolve."""
        with pytest.raises(nnlr.NnlrError, match="must be a finite number"):
            planned(Tied()).with_rates(**rates)


class TestRoundTrips:
    def test_dict_and_json(self):
        """Rows, traces, options, findings and bases come back exactly."""
        model = Tied()
        nnlr.learning_rate(model.body, "bias", 1e-5)
        plan = planned(model, SCHEME, nnlr.rule("head.*", wd_mult=0.1), decay="sqrt")
        assert plan.findings
        for again in (
            nnlr.Plan.from_dict(plan.to_dict()),
            nnlr.Plan.from_json(plan.to_json()),
        ):
            assert plan == again
            assert plan.rows == again.rows
            assert plan.groups == again.groups
            assert str(plan) == str(again)
            assert [plan.explain(r.name) for r in plan] == [again.explain(r.name) for r in again]
            assert plan.with_rates(lr=0.3) == again.with_rates(lr=0.3)

    def test_the_dict_is_plain(self):
        """Nothing in it but what JSON has, and it is not the plan's own."""
        plan = planned(Tied(), SCHEME)
        facts = plan.to_dict()
        assert facts == json.loads(json.dumps(facts))
        facts["rows"][1]["options"]["betas"] = None
        assert (0.9, 0.95) == plan["body.weight"].options["betas"]

    def test_what_came_back_asks_for_a_model(self):
        """A plan from a file knows no model until it is given one."""
        model = Tied()
        again = nnlr.Plan.from_json(planned(model).to_json())
        with pytest.raises(nnlr.NnlrError, match=r"loaded .* no model: pass model=\.$"):
            again.param_groups()
        assert 1 == len(again.param_groups(model))

    @pytest.mark.parametrize(
        "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
    )
    def test_copies_and_pickles(self, copied):
        """A copy is equal, and does not drag the model along."""
        plan = planned(Tied(), SCHEME)
        assert plan["head.weight"].locked  # fills the table of names
        again = copied(plan)
        assert plan == again
        assert plan["head.weight"] == again["head.weight"]

    def test_infinite_options_survive(self):
        """JSON has no infinity of its own; Python's readers and ours do."""
        plan = planned(Tied(), nnlr.rule("*", options={"clip": float("inf")}))
        assert plan == nnlr.Plan.from_json(plan.to_json())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: f.pop("nnlr_plan"), "not a plan: it has no 'nnlr_plan' version"),
            (lambda f: f.update(nnlr_plan=99), "has the layout 99; this nnlr reads 2"),
            (lambda f: f.pop("rows"), "cannot be read: the plan lacks 'rows'"),
            (lambda f: f.update(lr=0), "cannot be read: lr must be"),
            (lambda f: f.update(decay="x"), "decay must be one of"),
            (lambda f: f.update(steps=3), r"cannot be read: steps must be a list, got 3 \(int\)"),
            (
                lambda f: f["rows"][1].update(trace=[99]),
                r"cannot be read: rows\[1\]\.trace must be positions in the 3 steps, got 99",
            ),
            (lambda f: f["rows"][1].pop("lr"), r"cannot be read: rows\[1\] lacks 'lr'"),
            (lambda f: f["steps"][0]["factor"].update(lr_mult=-1), "lr_mult must be"),
            (
                lambda f: f["steps"][0]["factor"].update(speed=1),
                r"steps\[0\]\.factor has 'speed', which is none of lr_mult",
            ),
            (
                lambda f: f["rows"][1].update(lr=7),
                r"changed: rows\[1\]\.lr of 'body.weight' is 7.0, and 0.03 follows",
            ),
            (
                lambda f: f["rows"].append(f["rows"][1]),
                r"rows\[3\] has the name 'body.weight', the same as in rows\[1\]",
            ),
            (
                lambda f: f["findings"].append({"kind": "x"}),
                r"findings\[0\] lacks 'severity', 'names', 'cause', 'fix'",
            ),
        ],
    )
    def test_what_is_not_as_written_is_refused(self, change, message):
        """A missing, wrong or edited entry is an error that says which."""
        facts = planned(Tied(), SCHEME).to_dict()
        change(facts)
        with pytest.raises(nnlr.ConfigError, match=message):
            nnlr.Plan.from_dict(facts)

    @pytest.mark.parametrize(
        ("moves", "message"),
        [
            (
                ["rate", "a", "b"],
                r"steps\[0\]\.factor\.moves\[0\] must be one of 'lr', 'weight_decay'",
            ),
            (["lr", "a"], r"steps\[0\]\.factor\.moves must be a list of 3"),
            (["lr", 3, "b"], r"steps\[0\]\.factor\.moves\[1\] must be a string, got 3"),
        ],
    )
    def test_a_move_that_cannot_be_is_refused(self, moves, message):
        """What moves, its unit and how are words, and what moves is the rate or the decay."""
        facts = planned(Tied(), SCHEME).to_dict()
        facts["steps"][0]["factor"]["moves"] = moves
        with pytest.raises(nnlr.ConfigError, match=message):
            nnlr.Plan.from_dict(facts)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("role", "matrx", r"rows\[1\]\.role must be one of 'embedding', .*, got 'matrx'"),
            ("role", -1, r"rows\[1\]\.role must be a string, got -1"),
            ("numel", 3, r"rows\[1\]\.numel must be 4, the product of its shape, got 3"),
            ("numel", float("nan"), r"rows\[1\]\.numel must be a whole number >= 0, got nan"),
            ("lr", 10**400, r"rows\[1\]\.lr must be a finite number, got an int"),
            ("depth", [1], r"rows\[1\]\.depth must be a list of 2, got \[1\]"),
            ("options", {"a": {}}, r"option 'a' of rows\[1\] must be a number, a string"),
            ("locked", True, r"rows\[1\]\.locked of 'body.weight' is True, and False follows"),
            (
                "trainable",
                "yes",
                r"rows\[1\]\.trainable must be true or false, got 'yes'",
            ),
            ("shape", [2.5, 2], r"rows\[1\]\.shape\[0\] must be a whole number >= 0, got 2.5"),
            ("shape", [-2, 2], r"rows\[1\]\.shape\[0\] must be a whole number >= 0, got -2"),
        ],
        ids=str,
    )
    def test_an_entry_that_cannot_be_is_refused(self, field, value, message):
        """A state that the trace does not lead to, and a shape of no tensor."""
        facts = planned(Tied(), SCHEME).to_dict()
        facts["rows"][1][field] = value
        with pytest.raises(nnlr.ConfigError, match=message):
            nnlr.Plan.from_dict(facts)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "This is not a plan: Expecting"),
            ("[]", "no 'nnlr_plan'"),
            ("3", "no 'nnlr_plan'"),
            (3, "This is not a plan: the JSON object must be str"),
        ],
    )
    def test_text_that_is_no_plan_is_refused(self, text, message):
        """Neither broken JSON nor other JSON is a plan."""
        with pytest.raises(nnlr.ConfigError, match=message):
            nnlr.Plan.from_json(text)


class TestEquality:
    def test_plans_are_compared_by_value(self):
        """Equal decisions are equal; another base, scheme or type is not."""
        model = Tied()
        plan = planned(model)
        assert plan == planned(model)
        assert plan != planned(model, lr=0.2)
        assert plan != planned(model, SCHEME)
        assert plan != "plan"

    def test_a_plan_is_no_key(self):
        """Compared by value, it has no hash."""
        with pytest.raises(TypeError, match="unhashable"):
            hash(planned(Tied()))


class TestTheModelItWasMadeFor:
    def test_the_model_is_held_weakly(self):
        """A plan does not keep a model alive, and says so when it is gone."""
        model = Tied()
        plan = planned(model)
        assert 1 == len(plan.param_groups())
        del model
        gc.collect()
        with pytest.raises(nnlr.NnlrError, match=r"model this plan was made for .* is gone"):
            plan.param_groups()

    def test_a_temporary_compile_wrapper_may_go(self):
        """The plan remembers what the wrapper wraps."""
        model = Tied()
        plan = planned(torch.compile(model, backend="eager"))
        gc.collect()
        assert 1 == len(plan.param_groups())

    def test_bare_tensors_are_held_weakly_too(self):
        """Of a mapping each tensor is remembered, not the mapping."""
        tensors = {"w": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(1))}
        plan = planned(dict(tensors))
        assert [2, 1] == [tensor.numel() for _, tensor in plan.param_groups()[0]["params"]]
        del tensors["w"]
        gc.collect()
        with pytest.raises(nnlr.NnlrError, match=r"\(tensors\) is gone"):
            plan.param_groups()

    def test_pairs_from_an_iterator_are_enough(self):
        """named_parameters() is used up once, and the plan works all the same."""
        model = Tied()
        assert 1 == len(planned(model.named_parameters()).param_groups())
        groups = nnlr.param_groups(model.named_parameters(), lr=0.1, weight_decay=0)
        assert 3 == len(groups[0]["params"])

    def test_the_plan_fits_a_model_of_the_same_names(self):
        """Resolve on the meta device, apply to the real thing, wrapped or not."""
        with torch.device("meta"):
            plan = planned(Tied())
        model = Tied()
        assert 3 == len(plan.param_groups(model)[0]["params"])
        assert 3 == len(plan.param_groups(AveragedModel(model))[0]["params"])


class TestTheShortcut:
    def test_it_is_resolve_and_param_groups(self):
        """nnlr.param_groups gives what the two calls give."""
        model = Tied()
        expected = planned(model, SCHEME, decay="sqrt").param_groups(locked="keep", names=False)
        found = nnlr.param_groups(
            model,
            SCHEME,
            lr=0.1,
            weight_decay=0.01,
            decay="sqrt",
            locked="keep",
            names=False,
        )
        assert expected == found

    def test_it_works_on_a_mapping(self):
        """Bare tensors are a model too."""
        tensors = {"w": nn.Parameter(torch.ones(2))}
        groups = nnlr.param_groups(tensors, nnlr.rule("w", lr_mult=2), lr=1, weight_decay=0)
        assert 2 == groups[0]["lr"]


class TestResolve:
    def test_several_schemes_multiply(self):
        """Arguments of resolve are a product."""
        model = Tied()
        one, two = nnlr.rule("body.*", lr_mult=0.3), nnlr.rule("*.bias", lr_mult=0.7)
        assert rates(planned(model, one, two)) == rates(planned(model, two * one))

    @pytest.mark.parametrize("bad", [3, None, "model", torch.zeros(2), [torch.zeros(2)]])
    def test_what_is_no_model_is_refused(self, bad):
        """A module, a mapping or pairs; nothing else."""
        with pytest.raises(nnlr.NnlrError, match=r"model must be a torch.nn.Module"):
            planned(bad)

    def test_an_empty_model_has_an_empty_plan(self):
        """A model without parameters is no error as long as nothing speaks of any."""
        plan = planned(nn.ReLU())
        assert ((), ()) == (plan.rows, plan.groups)
        assert plan == nnlr.Plan.from_json(plan.to_json())


class TestApplying:
    def test_a_lock_is_set_and_undone(self):
        """Locking takes the gradient of locked rows only, unlocking gives it back."""
        model = Tied()
        model.body.bias.requires_grad_(False)
        plan = planned(model, nnlr.rule("body.weight", lr_mult=0))
        assert ["body.weight"] == plan.lock()
        assert not model.body.weight.requires_grad
        assert ["body.weight"] == plan.unlock()
        assert model.body.weight.requires_grad
        assert not model.body.bias.requires_grad

    def test_vectors_are_those_of_the_rows(self):
        """Effective rates, element by element; frozen elements are 0 in both."""
        model = nn.Linear(2, 1)
        model.bias.requires_grad_(False)
        lrs, decays = planned(model, nnlr.rule("weight", lr_mult=0.5)).vectors()
        torch.testing.assert_close(torch.tensor([0.05, 0.05, 0.0]), lrs)
        torch.testing.assert_close(torch.tensor([0.01, 0.01, 0.0]), decays)

    @pytest.mark.parametrize("base", ["lr", "weight_decay"])
    def test_a_base_rate_is_not_passed_twice(self, base):
        """The plan has both base rates; another goes by with_rates."""
        plan = planned(nn.Linear(1, 1))
        with pytest.raises(nnlr.ConfigError, match=f"Use plan.with_rates\\({base}=0.5\\)"):
            plan.optimizer(torch.optim.SGD, model=nn.Linear(1, 1), **{base: 0.5})

    def test_locked_is_drop_or_keep(self):
        """Another word is refused, with the two there are."""
        model = Tied()
        with pytest.raises(
            nnlr.NnlrError, match="locked must be one of 'drop', 'keep'; got 'lose'"
        ):
            planned(model).param_groups(locked="lose")

    def test_scaled_weights_come_first(self):
        """With init_mult a plan is refused until the weights are scaled, or said to be."""

        class Half(nnlr.Scheme):
            def factors(self, model):
                return [nnlr.Factor(init_mult=0.5)] * len(model.params)

        model = nn.Linear(1, 1)
        plan = planned(model, Half())
        with pytest.raises(nnlr.NnlrError, match=r"call nnlr\.apply_init"):
            plan.param_groups()
        with pytest.raises(nnlr.NnlrError, match=r"init must be None or 'done', got 'yes'"):
            plan.param_groups(init="yes")
        assert 1 == len(plan.param_groups(init="done"))
        nnlr.apply_init(model, plan)
        assert 1 == len(plan.param_groups())

    def test_a_live_optimizer_gets_a_new_plan(self):
        """An optimizer's groups are replaced in place; anything else is refused."""
        model = Tied()
        optimizer = planned(model).optimizer(torch.optim.SGD)
        plan = planned(model, nnlr.rule("body.*", lr_mult=0.5))
        nnlr.regroup(optimizer, plan)
        assert [0.1, 0.05] == [group["lr"] for group in optimizer.param_groups]
        with pytest.raises(nnlr.NnlrError, match="needs a torch optimizer, got Linear"):
            nnlr.regroup(nn.Linear(1, 1), plan)
        with pytest.raises(nnlr.NnlrError, match="needs a Plan, got dict"):
            nnlr.regroup(optimizer, plan.to_dict())
