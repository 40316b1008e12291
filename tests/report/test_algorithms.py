"""What is told of several algorithms: columns, lines, sizes of updates, and what was rerouted."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn

import nnlr
from nnlr.optim._update_size import FACTORS, is_adam, is_muon, update_size
from nnlr.report._text import WIDTH

RATES = {"muon": 0.02, "adamw": 3e-4}

BOTH = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}


def decoder():
    net = nn.ModuleDict(
        {
            "wte": nn.Embedding(16, 8),
            "blocks": nn.ModuleList(
                nn.ModuleDict({"norm": nn.LayerNorm(8), "up": nn.Linear(8, 32)}) for _ in range(3)
            ),
            "head": nn.Linear(8, 16, bias=False),
        }
    )
    MODELS[:] = [net]
    return net


# Plans hold theirs weakly.
MODELS = []


def routed(*schemes, net=None, lr=None, **settings):
    net = decoder() if net is None else net
    scheme = nnlr.route("muon", "adamw")
    return nnlr.resolve(net, scheme, *schemes, lr=lr or RATES, weight_decay=0.1, **settings)


class TestTable:
    """Which algorithm trains what, and how much."""

    def test_a_column_and_a_line_for_each(self, golden):
        """Rates of both bases stand beside each other."""
        golden("table_routed", str(routed(nnlr.no_weight_decay())))

    def test_a_plan_for_one_class_has_none(self):
        """Neither column nor line."""
        text = str(nnlr.resolve(decoder(), lr=0.1, weight_decay=0))
        assert "algorithm" not in text
        assert "\nbase lr 0.1, base weight decay 0\n" in text

    def test_one_base_rate_for_both(self):
        """The base has a line of its own, and what nobody trains is said."""
        net = decoder()
        scheme = nnlr.rule("*.up.weight", algorithm="muon")
        text = str(nnlr.resolve(net, scheme, lr=0.1, weight_decay=0))
        assert "\nbase lr 0.1, base weight decay 0\n" in text
        assert "\nmuon: 3 tensors (768)\n" in text
        assert "\nno algorithm: 11 tensors (400)\n" in text

    def test_an_algorithm_without_parameters(self):
        """Its line says so."""
        plan = nnlr.resolve(
            decoder(), nnlr.rule("*", algorithm="adamw"), lr=RATES, weight_decay=0.1
        )
        assert "muon: base lr 0.02, base weight decay 0.1, 0 tensors (0)" in str(plan)

    def test_rows_of_two_algorithms_never_share_a_line(self):
        """Also where all their rates are equal."""
        net = decoder()
        scheme = nnlr.rule("blocks.1.*", algorithm="b") * nnlr.rule("blocks.0.*", algorithm="a")
        text = str(nnlr.resolve(net, scheme, lr=0.1, weight_decay=0))
        assert "blocks.0.up.weight" in text
        assert "blocks.1.up.weight" in text

    def test_hostile_names_fit(self):
        """A long name, and one that holds a line break."""
        net = decoder()
        scheme = nnlr.rule("blocks.*", algorithm="x" * 70) * nnlr.rule("wte*", algorithm="a\nb")
        text = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0).table(full=True)
        assert max(map(len, text.splitlines())) <= WIDTH
        assert "xxxxxxxxx..." in text
        assert "x" * 70 in text

    def test_the_bytes_of_the_state(self):
        """Before the first step those that it will take; after it, those that it takes."""
        plan = routed()
        optimizer = plan.optimizer(BOTH)
        before = plan.table(optimizer=optimizer).replace("\n  ", " ")
        for param in MODELS[0].parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
        after = plan.table(optimizer=optimizer).replace("\n  ", " ")
        sizes = {
            name: sum(
                value.nbytes
                for group in member.param_groups
                for param in group["params"]
                for value in optimizer.state[param].values()
            )
            for name, member in optimizer.algorithms.items()
        }
        for text in (before, after):
            assert f"{sizes['muon']} bytes of state (Muon)" in text
            assert f"{sizes['adamw']} bytes of state (AdamW)" in text

    def test_the_bytes_of_one_class(self):
        """On the line of the base rates, also of a model without tensors to speak of."""
        with torch.device("meta"):
            net = nn.Linear(10_000, 10_000, bias=False)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
        assert "decay 0, 400.0 MB of state (SGD)" in plan.table(optimizer=optimizer)
        bare = plan.optimizer(torch.optim.SGD)
        assert "decay 0, 0 bytes of state (SGD)" in plan.table(optimizer=bare)

    def test_a_state_that_nobody_can_tell(self):
        """A class that cannot be tried says so."""

        class Closed(torch.optim.Optimizer):
            def __init__(self, params, lr):
                super().__init__(params, {"lr": lr})

            def step(self, closure=None):
                raise RuntimeError("not now")

        plan = nnlr.resolve(net := nn.Linear(2, 2), lr=0.1, weight_decay=0)
        text = plan.table(optimizer=plan.optimizer(Closed)).replace("\n  ", " ")
        assert "beside that of 2 tensors, which is not known (Closed)" in text
        assert net is not None

    @pytest.mark.parametrize("value", [3, "adamw", torch.optim.AdamW])
    def test_what_is_no_optimizer(self, value):
        """It is refused where it is received."""
        plan = routed()
        with pytest.raises(nnlr.NnlrError, match="optimizer must be"):
            plan.table(optimizer=value)
        with pytest.raises(nnlr.NnlrError, match="optimizer must be"):
            plan.explain("wte.weight", value)


class TestExplain:
    """The rate that a step really has."""

    def test_by_shape_alone(self, golden):
        """The three factors of Muon, and the range of Adam."""
        plan = routed()
        golden(
            "explain_routed",
            f"{plan.explain('blocks.0.up.weight')}\n{plan.explain('wte.weight')}",
        )

    def test_nothing_is_said_of_other_names(self):
        """What an algorithm called "a" does, nobody knows; nor what a locked one would."""
        net = decoder()
        scheme = nnlr.rule("*", algorithm="a") * nnlr.rule("head.*", lr_mult=0)
        plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
        assert "update" not in plan.explain("blocks.0.up.weight")
        assert "update" not in routed(nnlr.rule("head.*", lr_mult=0)).explain("head.weight")

    @pytest.mark.parametrize("word", [None, "original", "match_rms_adamw"])
    def test_by_the_class(self, word):
        """The factor is that of its group: the step moves by the size that is told."""
        plan = routed(nnlr.rule("*.up.weight", wd_mult=0))
        classes = {**BOTH, "muon": partial(torch.optim.Muon, adjust_lr_fn=word)}
        optimizer = plan.optimizer(classes)
        weight = MODELS[0]["blocks"][0]["up"].weight
        text = plan.explain("blocks.0.up.weight", optimizer).replace("\n" + " " * 16, " ")
        times = FACTORS[word or "original"](32, 8)
        assert f"lr x {times:.4g}, the shape factor {word or 'original'!r} of Muon" in text
        told = float(text.partition("RMS about ")[2].split()[0])
        before = weight.detach().clone()
        for param in MODELS[0].parameters():
            param.grad = torch.randn_like(param)
        optimizer.step()
        moved = float((weight.detach() - before).square().mean().sqrt())
        assert moved == pytest.approx(told, rel=0.25)  # Newton-Schulz comes near only

    def test_of_adam_and_of_others(self):
        """A range, or nothing."""
        plan = routed()
        classes = {**BOTH, "adamw": nnlr.optim.AdamW}
        text = plan.explain("wte.weight", plan.optimizer(classes))
        assert "by AdamW, RMS about 6e-05 to 0.0003: 0.2 to 1 x lr" in text
        text = plan.explain("wte.weight", plan.optimizer({**BOTH, "adamw": torch.optim.SGD}))
        assert "by SGD, whose size is not known" in text
        single = nnlr.resolve(MODELS[0], lr=0.1, weight_decay=0)
        text = single.explain("wte.weight", single.optimizer(torch.optim.Adam))
        assert "by Adam, RMS about 0.02 to 0.1" in text

    def test_an_optimizer_that_lacks_it(self):
        """Nobody knows its group then."""
        plan = routed()
        with pytest.raises(nnlr.NnlrError, match=r"No group of SGD names 'wte.weight'"):
            plan.explain("wte.weight", torch.optim.SGD(MODELS[0].parameters()))


class TestDiff:
    """What went elsewhere."""

    def test_it_says_who_rerouted(self, golden):
        """With the rate that comes with it."""
        net = decoder()
        rule = nnlr.rule("*.1.up.weight", algorithm="adamw", lr_mult=5)
        golden("diff_rerouted", str(routed(net=net).diff(routed(rule, net=net))))


class TestUpdateSize:
    """Which classes are known."""

    @pytest.mark.parametrize(
        ("group", "muon"),
        [
            ({}, False),
            ({"ns_steps": 5}, True),
            ({"ns_steps": 5, "use_muon": False}, False),
            ({"newton_schulz": True, "use_fallback": True}, False),
            ({"ns_coefficients": (1, 2), "kind": "adamw"}, False),
            ({"ns_steps": 5, "algorithm": "Lion"}, False),
            ({"ns_steps": 5, "algorithm": "hidden"}, True),
        ],
    )
    def test_muon_by_settings(self, group, muon):
        """Whatever a class is called; flags of a group say what steps it."""
        assert muon is is_muon(torch.optim.SGD, group)

    def test_muon_by_name(self):
        """As most are called."""
        assert is_muon(type("MuonWithAuxAdam", (torch.optim.Optimizer,), {}), {})

    def test_adam_by_its_step(self):
        """A class with a step of its own is another; ours give torch's numbers."""
        own = type("Own", (torch.optim.Adam,), {"step": lambda self, closure=None: None})
        same = type("Same", (torch.optim.Adam,), {})
        assert [True, False, True] == [is_adam(c) for c in (same, own, nnlr.optim.Adam)]
        assert not is_adam(torch.optim.SGD)

    @pytest.mark.parametrize("word", ["rms_to_rms", "original"])
    def test_factors_of_other_words_are_not_known(self, word):
        """Nor those of tensors of four axes, nor where no word is."""
        group = {"adjust_lr_fn": word}
        size = update_size(torch.optim.Muon, group, (8, 2))
        assert (size is None) is (word != "original")
        assert update_size(torch.optim.Muon, group, (8, 2, 3, 3)) is None
        assert update_size(torch.optim.Muon, {}, (8, 2)) is None

    def test_adams_range(self):
        """Many steps of random gradients, and of one gradient, stay in it."""
        for noise in (0.0, 1.0):
            param = nn.Parameter(torch.zeros(400))
            optimizer = torch.optim.Adam([param], lr=1.0)
            torch.manual_seed(0)
            for _ in range(60):
                before = param.detach().clone()
                param.grad = 1 + noise * 3 * torch.randn(400)
                optimizer.step()
            moved = float((param.detach() - before).square().mean().sqrt())
            assert 0.2 <= moved <= 1.0 + 1e-3


class TestKept:
    """Routed plans in everything else that plans do."""

    def test_copies_and_texts_are_equal(self):
        """Pickle, deepcopy, JSON."""
        plan = routed(nnlr.layer_decay(0.5, {"wte.*": 0, "blocks.*": 1, "head.*": 2}))
        copies = [pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)]
        copies += [nnlr.Plan.from_json(plan.to_json()), nnlr.Plan.from_dict(plan.to_dict())]
        for each in copies:
            assert plan == each
            assert plan.algorithms == each.algorithms
            assert str(plan) == str(each)

    def test_vectors_hold_the_rates_of_both(self):
        """Element by element."""
        plan = routed()
        lrs, _ = plan.vectors()
        sizes = [row.numel for row in plan]
        due = torch.cat([torch.full((n,), row.lr) for n, row in zip(sizes, plan, strict=True)])
        assert torch.equal(due, lrs)

    def test_groups_have_the_key(self):
        """In one call too, and a plain optimizer takes the groups of one algorithm."""
        groups = nnlr.param_groups(
            decoder(), nnlr.route("muon", "adamw"), lr=RATES, weight_decay=0.1
        )
        assert ["muon", "adamw"] == [group["algorithm"] for group in groups]
        torch.optim.Muon(groups[:1], lr=0.02)

    def test_locks(self):
        """A rule locks on either side."""
        plan = routed(nnlr.rule("*.0.up.weight", lr_mult=0), nnlr.rule("wte.*", lr_mult=0))
        assert ["blocks.0.up.weight", "wte.weight"] == sorted(plan.lock())
        assert sorted(plan.unlock()) == ["blocks.0.up.weight", "wte.weight"]

    def test_roles_route_too(self):
        """A table of roles has what a rule has."""
        net = decoder()
        table = nnlr.roles({"matrix": {"algorithm": "muon"}}, default={"algorithm": "adamw"})
        plan = nnlr.resolve(net, table, lr=RATES, weight_decay=0)
        assert {row.name: row.algorithm for row in plan} == {
            row.name: row.algorithm for row in routed(net=net)
        }
        overruled = routed(nnlr.roles({"matrix": {"algorithm": "adamw"}}), net=net)
        assert {"adamw"} == {row.algorithm for row in overruled}

    def test_schemes_multiply_on_both_sides(self):
        """Layer decay, no decay and LoRA+ go by parameter, whoever trains it."""
        net = decoder()
        net["lora_B"] = nn.Linear(8, 8, bias=False)
        indexer = {"wte.*": 0, "blocks.*": 1, "head.*": 2, "lora*": 2}
        schemes = nnlr.layer_decay(0.5, indexer), nnlr.no_weight_decay(), nnlr.lora_plus(16)
        alone = nnlr.resolve(net, *schemes, lr=1.0, weight_decay=1.0)
        both = routed(*schemes, net=net)
        for one, two in zip(alone, both, strict=True):
            assert (one.lr_mult, one.wd_mult) == (two.lr_mult, two.wd_mult)
            assert math.isclose(two.lr, RATES[two.algorithm] * one.lr_mult)

    def test_summary_of_rates(self):
        """One rate for each algorithm, the first's as the rate."""
        plan = routed(nnlr.rule("*.up.weight", lr_mult=0.5))
        assert nnlr.rate_summary(plan.optimizer(BOTH)) == {
            "lr": 0.01,
            "lr_min": 3e-4,
            "lr_max": 0.01,
            "lr_muon": 0.01,
            "lr_adamw": 3e-4,
        }

    def test_rates_of_a_sweep(self):
        """Those that are named change."""
        plan = routed().with_rates(lr={"muon": 0.1})
        assert (0.1, 3e-4) == (plan["blocks.0.up.weight"].lr, plan["wte.weight"].lr)
        with pytest.raises(nnlr.ConfigError, match="one number for 2 algorithms"):
            plan.with_rates(lr=0.1)
        with pytest.raises(nnlr.NnlrError, match=r"names 'moun', .* Nearest: 'muon'"):
            plan.with_rates(lr={"moun": 0.1})

    @pytest.mark.parametrize(
        ("lr", "message"),
        [
            ({}, r"lr=\{\} names no algorithm"),
            ({1: 0.1}, "an algorithm in lr must be a name, got 1"),
            ({" ": 0.1}, "an algorithm in lr must be a name, got ' '"),
            ({"muon": math.nan, "adamw": 1}, r"lr\['muon'\] must be a finite number > 0, got nan"),
            ({"muon": 0, "adamw": 1}, r"lr\['muon'\] must be a finite number > 0, got 0"),
            ({"muon": 1}, "sends 'wte.weight' to 'adamw', which has no base rate"),
            ({"muon": "fast", "adamw": 1}, r"lr\['muon'\] must be"),
        ],
    )
    def test_hostile_rates(self, lr, message):
        """At the call, with the name."""
        decays = {"muon": 0.1} if lr == {"muon": 1} else 0.1
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.resolve(decoder(), nnlr.route("muon", "adamw"), lr=lr, weight_decay=decays)

    def test_the_way_out_of_rates_without_a_route(self):
        """What the message offers for one algorithm and for two, and each has been tried."""
        net = decoder()
        one = r"Route them: nnlr\.rule\('\*', algorithm='muon'\)\."
        with pytest.raises(nnlr.CoverageError, match=one):
            nnlr.resolve(net, lr={"muon": 1}, weight_decay=0)
        two = r"nnlr\.route\('muon', 'adamw'\), or nnlr\.rule\('\*', algorithm='adamw'\)"
        with pytest.raises(nnlr.CoverageError, match=two):
            nnlr.resolve(net, lr=RATES, weight_decay=0)
        nnlr.resolve(net, nnlr.rule("*", algorithm="muon"), lr={"muon": 1}, weight_decay=0)
        nnlr.resolve(net, nnlr.route("muon", "adamw"), lr=RATES, weight_decay=0)

    @pytest.mark.parametrize("name", ["", " ", 3])
    def test_names_are_names(self, name):
        """Of rules too."""
        with pytest.raises(nnlr.NnlrError, match="algorithm must be a name"):
            nnlr.rule("*", algorithm=name)

    def test_groups_for_timm(self):
        """Each has the base of its algorithm, which timm's schedulers move."""
        to_timm = pytest.importorskip("nnlr.integrations.timm").to_timm
        groups = to_timm(routed(nnlr.rule("*.up.weight", lr_mult=0.5)))
        assert [("muon", 0.02, 0.5), ("adamw", 3e-4, 1.0)] == [
            (group["algorithm"], group["lr"], group["lr_scale"]) for group in groups
        ]
