"""The table, the story of one row, and the difference of two plans."""

import random
import re
import sys

import pytest
import torch
from torch import nn

import nnlr
from nnlr._rows.rates import Bases
from nnlr.report import _table as tables
from nnlr.report._explain import explain
from nnlr.report._table import LIMIT
from nnlr.report._text import WIDTH


def encoder(layers: int = 4) -> nn.Module:
    """A small transformer encoder with an embedding and a head."""
    model = nn.Module()
    model.embeddings = nn.Embedding(11, 8)
    model.encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16), layers, enable_nested_tensor=False
    )
    model.head = nn.Linear(8, 3)
    return model


def decayed(layers: int) -> nnlr.Scheme:
    """A different rate for each layer, no decay on vectors."""
    scheme = nnlr.rule(nnlr.role("norm", "bias"), wd_mult=0)
    for layer in range(layers):
        pattern = f"encoder.layers.{layer}.*"
        scheme = scheme * nnlr.rule(pattern, lr_mult=0.75 ** (layers - layer))
    return scheme


def test_the_first_table_draws_no_random_numbers(monkeypatch):
    """Rich draws one as it is loaded; the numbers of a user who prints a plan stay as they were."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    before = random.getstate()
    str(resolved(nn.ModuleDict({"層": nn.PReLU()})))
    assert "rich.style" in sys.modules
    assert before == random.getstate()


def resolved(model, *schemes, **settings):
    """A plan on the base rates of most examples."""
    return nnlr.resolve(model, *schemes, lr=1e-3, weight_decay=0.05, **settings)


class TestTable:
    """`print(plan)` and `plan.table(full=True)`."""

    def test_equal_siblings_share_a_line(self, golden):
        """Blocks with equal rates are folded into one line with their numbers in braces."""
        golden("table_folded", str(resolved(encoder(), nnlr.rule("head.*", lr_mult=10))))

    def test_layers_of_different_rates_are_cut(self, golden):
        """Where braces do not help, names are cut, and roles tell equal labels apart."""
        golden("table_cut", str(resolved(encoder(8), decayed(8))))

    def test_states_options_and_ties_are_noted(self, golden):
        """Locked, frozen, tied parameters and group options can be seen."""
        model = encoder(1)
        model.output = nn.Linear(8, 11, bias=False)
        model.output.weight = model.embeddings.weight
        model.head.bias.requires_grad_(False)
        plan = resolved(
            model,
            nnlr.rule("encoder.*.self_attn.*", lr_mult=0),
            nnlr.rule("encoder.*.linear1.*", options={"betas": (0.9, 0.95)}),
            nnlr.rule("encoder.*.norm?.*", wd_mult=0.5, lr_mult=1e-5),
            decay="independent",
        )
        golden("table_states", str(plan))

    def test_full_has_every_row(self, golden):
        """`full=True` has one line for each parameter, whatever the length."""
        golden("table_full", resolved(encoder(1), decayed(1)).table(full=True))

    def test_a_plan_of_nothing_is_a_heading(self):
        """A model without parameters has a table too."""
        text = str(resolved(nn.ReLU()))
        assert text.splitlines()[0] == "ReLU: 0 parameters (0), 0 groups"

    @pytest.mark.parametrize("layers", [1, 5, 12, 40, 100])
    def test_it_fits_a_screen(self, layers):
        """However deep the model: at most 60 lines of at most 80 columns."""
        lines = str(resolved(encoder(layers), decayed(layers))).splitlines()
        assert len(lines) <= LIMIT
        assert max(map(len, lines)) <= WIDTH

    def test_what_was_left_out_is_said(self):
        """Where no folding helps the middle is left out: stem and head stay, and a word on it."""
        model = nn.ModuleDict({f"{chr(97 + k % 26)}{'z' * k}": nn.PReLU() for k in range(90)})
        model["head"] = nn.PReLU()
        scheme = nnlr.rule("*")
        for at, name in enumerate(model):
            scheme = scheme * nnlr.rule(f"{name}.weight", lr_mult=1 / (1 + at))
        lines = str(resolved(model, scheme)).splitlines()
        left_out = next(k for k, line in enumerate(lines) if line.startswith("... and"))
        assert re.fullmatch(r"\.\.\. and \d+ more lines: see table\(full=True\)", lines[left_out])
        assert "..." in lines
        assert lines[4].startswith("a.weight")
        assert lines[left_out - 1].startswith("head")
        assert len(lines) <= LIMIT

    def test_inner_layers_share_a_line_where_room_is_short(self):
        """The outermost layers stay, of those within the range of their rates is told."""
        text = str(resolved(encoder(100), decayed(100)))
        assert re.search(r"encoder\.layers\.\{\d+\.\.\d+\}\.\*.*\.\.", text)
        assert "more lines" not in text

    def test_room_that_is_left_opens_the_largest_parts(self):
        """Where folding has gone too far for a part of the model, its inner parts get lines."""

        def bush(first):
            deep = nn.ModuleDict({"d": nn.ModuleDict({"e": nn.ModuleDict({"f": nn.PReLU()})})})
            inner = {"v": nn.ModuleDict({"a": nn.PReLU()}), "y": deep}
            inner["w"] = nn.ModuleDict({"b": nn.ModuleDict({"c": nn.PReLU()})})
            return nn.ModuleDict({first: nn.PReLU(), **inner, "top": nn.PReLU()})

        many = {f"{letter}_part": bush("u") for letter in "abcdefghijklmnopqrst"}
        lines = str(resolved(nn.ModuleDict({**many, "other": bush("t")}))).splitlines()
        assert len(lines) <= LIMIT
        assert "a_part.*.weight" in " ".join(lines)
        assert "other.y.d.e.f.weight" in " ".join(lines)

    def test_no_note_is_clipped(self):
        """The columns of numbers and a note leave less room for names, and none clips the note."""
        model = encoder(1)
        model.output = nn.Linear(8, 11, bias=False)
        model.output.weight = model.embeddings.weight
        scheme = nnlr.rule("encoder.*.weight", lr_mult=0.12345, wd_mult=1.2345)
        text = str(resolved(model, scheme))
        assert "tied" in text
        assert "…" not in text

    def test_long_names_break_at_dots(self):
        """A name too long for its column goes on below, indented, and loses nothing."""
        outer, inner = "a" * 60, "b" * 30
        model = nn.ModuleDict({outer: nn.ModuleDict({inner: nn.PReLU()})})
        _, _, heading, _, *rows, _ = resolved(model).table(full=True).splitlines()
        assert max(map(len, rows)) <= WIDTH
        column = heading.index("numel") - 2  # where the next column may begin
        name = "".join(row[:column].strip() for row in rows)
        assert name == f"{outer}.{inner}.weight"

    def test_the_numel_column_sums_to_the_model(self):
        """Folding loses no element: exact counts in the full table add up."""
        model = encoder(2)
        text = resolved(model).table(full=True)
        counts = [
            int(match[1].replace(",", ""))
            for line in text.splitlines()[4:]
            if (match := re.search(r"\s([\d,]+)\s+0\.001\s+0\.05", line))
        ]
        assert sum(p.numel() for p in model.parameters()) == sum(counts)

    def test_findings_stand_below(self):
        """What is probably a mistake is printed with the plan."""
        text = str(resolved(nn.Linear(2, 1), nnlr.rule("bias", lr_mult=1e-5)))
        assert "looks like an absolute one" in " ".join(text.split())


class TestExplain:
    """`plan.explain(name)`."""

    def test_every_factor_is_listed(self, golden):
        """The story has base, factors, sources, state and group."""
        plan = resolved(encoder(), decayed(4))
        golden("explain_product", plan.explain("encoder.layers.2.linear1.weight"))

    def test_every_kind_of_entry(self, golden):
        """Ties, absolute rates, modes, options, shadowed rules, locks and freezes."""
        model = encoder(1)
        model.output = nn.Linear(8, 11, bias=False)
        model.output.weight = model.embeddings.weight
        model.head.weight.requires_grad_(False)
        table = nnlr.rules(
            [
                nnlr.rule("output.*", lr=5e-4, weight_decay=0.01),
                nnlr.rule("encoder.*.bias", lr_mult=0),
                nnlr.rule("*", lr_mult=0.5, options={"eps": 1e-6}),
            ]
        )
        plan = resolved(model, table, Doubled(), decay="sqrt")
        names = [
            "embeddings.weight",
            "encoder.layers.0.linear1.bias",
            "head.weight",
            "head.bias",
        ]
        golden("explain_kinds", "\n\n".join(map(plan.explain, names)))

    def test_raw_names_and_aliases_are_accepted(self):
        """What a wrapped model's state_dict says is understood."""
        plan = resolved(encoder(1))
        assert plan.explain("head.bias") == plan.explain("module._orig_mod.head.bias")

    def test_absolute_decay_of_zero_over_zero(self):
        """No decay is no decay, whatever the base."""
        plan = nnlr.resolve(
            nn.Linear(1, 1), nnlr.rule("bias", weight_decay=0), lr=1, weight_decay=0
        )
        assert "x 0 " in plan.explain("bias")


class Doubled(nnlr.Scheme):
    """A recipe that also scales eps and the initial weights."""

    def factors(self, model):
        """One factor for all."""
        return [nnlr.Factor(eps_mult=2, init_mult=0.5, why="twice as wide")] * len(model.params)


class Halves(nnlr.Scheme):
    """Another rate for the first parameter, no decay for the second."""

    def factors(self, model):
        """One factor for each of two."""
        return [nnlr.Factor(lr_mult=2), nnlr.Factor(wd_mult=0)]


class TestDiff:
    """`plan.diff(other)`."""

    def test_it_says_what_changed_and_why(self, golden):
        """Old and new rates, with the factors that came and went."""
        old = resolved(encoder(2), nnlr.rule("encoder.*", lr_mult=0.1))
        new = resolved(
            encoder(3),
            nnlr.rule("encoder.*", lr_mult=0),
            nnlr.rule("head.weight", lr=0.01, options={"betas": (0.9, 0.95)}),
            Doubled().where("embeddings.*"),
        )
        golden("diff", str(old.diff(new)))
        golden("diff_back", str(new.diff(old)))

    def test_no_difference_is_false(self):
        """A plan does not differ from itself."""
        difference = resolved(encoder(1)).diff(resolved(encoder(1)))
        assert not difference
        assert str(difference) == "no difference"

    def test_a_block_for_each_cause_on_a_screen(self):
        """Two schemes by layer differ in one cause, and other base rates are one too."""
        model = encoder(60)
        old, new = resolved(model, decayed(60)), resolved(model, nnlr.layer_decay(0.9))
        lines = str(old.diff(new)).splitlines()
        assert len(lines) <= LIMIT
        assert max(map(len, lines)) <= WIDTH
        text = str(old.diff(old.with_rates(lr=2e-3)))
        assert "with other base rates" in text
        assert "encoder.layers.{" in text

    def test_another_algorithm_brings_its_own_base_rates(self):
        """Plans of the same base rates: what changed is who trains the parameter."""
        rates = {"muon": 0.02, "adamw": 3e-4}
        old, new = (
            nnlr.resolve(
                nn.Linear(8, 8, bias=False),
                nnlr.rule("*", algorithm=name),
                lr=rates,
                weight_decay=0,
            )
            for name in rates
        )
        assert "with the base rates of adamw" in str(old.diff(new)).splitlines()
        faster = new.with_rates(lr={"muon": 0.02, "adamw": 1e-3})
        assert "with other base rates" in str(new.diff(faster)).splitlines()

    def test_what_the_model_says_is_laid_to_no_base(self):
        """Another shape, and another requires_grad, at the same rates."""
        frozen, wider = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 3)
        for other, column in ((frozen, "state"), (wider, "shape")):
            lines = str(resolved(nn.Linear(2, 2)).diff(resolved(other))).splitlines()
            assert ["parameter", column] == lines[1].split()

    def test_what_is_the_same_is_not_in_a_label(self):
        """A star would take in what did not change: then names stay."""
        model = encoder(2)
        new = resolved(model, nnlr.rule("encoder.layers.*.linear1.*", lr_mult=2))
        text = str(resolved(model).diff(new))
        assert "encoder.layers.{0,1}.linear1.weight" in text
        assert "*" not in text.partition("lr_mult 2")[2]

    def test_what_did_not_change_of_a_row_is_empty(self):
        """Rows of one cause of which one setting differs here and another there."""
        model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        rows = str(resolved(model).diff(resolved(model, Halves()))).splitlines()[4:]
        assert [["0.weight", "0.001", "->", "0.002"], ["1.weight", "0.05", "->", "0"]] == [
            row.split() for row in rows
        ]

    def test_more_than_a_screen_is_cut(self):
        """What no folding brings on a screen is counted, and data have it all."""
        names = [f"{chr(97 + k % 26)}{'z' * k}" for k in range(90)]
        model = nn.ModuleDict({name: nn.PReLU() for name in names})
        rules = [nnlr.rule(f"{name}.weight", lr_mult=2 + at) for at, name in enumerate(names)]
        lines = str(resolved(model).diff(resolved(model, *rules))).splitlines()
        assert LIMIT == len(lines)
        assert re.fullmatch(r"\.\.\. and \d+ more lines: see PlanDiff\.to_dict\(\)", lines[-1])

    def test_options_of_many_kinds(self):
        """Settings that differ among rows of one line are told as several."""
        model = encoder(60)
        scheme = nnlr.rule("*")
        for at in range(60):
            options = {"betas": (0.9, 1 - 1 / (at + 2))}
            scheme = scheme * nnlr.rule(f"encoder.layers.{at}.*", options=options, lr_mult=1 + at)
        text = str(resolved(model).diff(resolved(model, scheme)))
        assert len(text.splitlines()) <= LIMIT

    def test_parts_can_be_read(self):
        """The rows are there as data."""
        old, new = resolved(nn.Linear(1, 1)), resolved(nn.Linear(1, 1, bias=False))
        assert ["bias"] == [row.name for row in old.diff(new).removed]
        assert ["bias"] == [row.name for row in new.diff(old).added]
        slower = old.with_rates(lr=1e-4)
        assert [(1e-3, 1e-4)] * 2 == [(a.lr, b.lr) for a, b in old.diff(slower).changed]

    def test_what_looks_alike_is_told_in_full(self):
        """Four digits where they differ, all digits where they do not."""
        old = resolved(nn.Linear(1, 1), nnlr.rule("*", lr_mult=0.1))
        text = str(old.diff(resolved(nn.Linear(1, 1), nnlr.rule("*", lr_mult=0.1000001))))
        assert "0.0001 -> 0.0001000001" in text
        assert "now rule '*': lr_mult 0.1000001" in text

    def test_only_plans_are_compared(self):
        """Anything else is refused."""
        with pytest.raises(nnlr.NnlrError, match=r"other must be a Plan, got \{\}"):
            resolved(nn.Linear(1, 1)).diff({})


def test_large_plans_are_folded_before_they_are_drawn(monkeypatch):
    """Of thousands of rows only what fits is drawn."""
    with torch.device("meta"):
        model = nn.ModuleList(nn.ModuleList(nn.Linear(1, 1) for _ in range(60)) for _ in range(50))
    drawn = []
    monkeypatch.setattr(tables, "grid", lambda _, names, *rest: drawn.append(len(names)) or ["x"])
    assert "x" in str(resolved(model))
    assert max(drawn) <= LIMIT


def test_the_layer_is_told_where_it_is_known():
    """A row with a depth says which layer of which tower it is."""
    row = resolved(nn.Linear(1, 1)).rows[0]
    bases = Bases(lr=1e-3, weight_decay=0.05)
    assert "layer 3 of 12 of vision" in explain(row._replace(depth=(3, 12), tower="vision"), bases)
    assert "layer 3 of 12\n" in explain(row._replace(depth=(3, 12)), bases)
