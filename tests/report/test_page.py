"""The report page as HTML: what it says, and that names of a model stay text."""

import json
import math
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import nnlr
from nnlr._findings import note
from nnlr.errors import NnlrError
from nnlr.report._page import plan_page, render
from nnlr.report._page.labels import labels
from nnlr.report._page.scale import Scale
from tests.helpers import hide_package

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><b>",
    "a\nb",
    "\u202egnirts",
    "\u05e9\u05dc",
    "__proto__",
    "{{ 7*7 }}",
    "&lt;",
    "\U0001f600",
    "\ud800",
    "x" * 200,
)


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the text of each kind of element."""

    VOID = ("meta", "link", "input", "img", "br")

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.stack = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack:
            self.texts.setdefault(self.stack[-1], []).append(data)

    def text(self, *tags):
        return " ".join(" ".join(self.texts.get(tag, ())) for tag in tags)


def data_of(page):
    """What the page's script reads."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def names_of(data):
    """The names, put together as the page's script does."""
    names, before = [], []
    for shared, rest in zip(data["shared"], data["rest"], strict=True):
        path = before[:shared] + rest.split(".")
        before = path[:-1]
        names.append(".".join(path))
    return names


def tower(layers=3):
    """A net with blocks, in the way of a vision model."""
    net = nn.Module()
    net.stem = nn.Linear(4, 4)
    net.blocks = nn.ModuleList(
        nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(layers)
    )
    net.head = nn.Linear(4, 2)
    return net


def resolved(*schemes, model=None, lr=1e-3, weight_decay=0.05):
    """A plan of a net with blocks."""
    return nnlr.resolve(model or tower(), *schemes, lr=lr, weight_decay=weight_decay)


def routed():
    """A plan of two algorithms."""
    return resolved(
        nnlr.route("muon", "adamw") * nnlr.no_weight_decay(),
        lr={"muon": 0.02, "adamw": 3e-4},
        weight_decay={"muon": 0.01, "adamw": 0.1},
    )


class TestPlan:
    """`plan.to_html()`."""

    def test_the_data_are_those_of_the_plan(self):
        """Names, shapes, roles, rates, layers and groups are the rows', one by one."""
        model = tower()
        model.extra = model.blocks[1]
        model.head.bias.requires_grad_(False)
        scheme = nnlr.layer_decay(0.5) * nnlr.rule("stem.*", lr_mult=0)
        plan = resolved(scheme * nnlr.rule("head.weight", options={"eps": 1e-6}), model=model)
        data = data_of(plan.to_html())
        assert [row.name for row in plan] == names_of(data)
        kinds, shapes, roles = data["of"]
        for row, kind, shape, role in zip(plan, kinds, shapes, roles, strict=True):
            record = data["kinds"][kind]
            assert (row.lr, row.weight_decay, row.state) == (
                *(record["lr"], record["wd"]),
                record["state"],
            )
            assert list(row.shape) == data["shapes"][shape]
            assert [row.role, row.role_basis] == data["roles"][role]
            assert row.group == record.get("group")
            assert row.depth == (record["layer"], record["last"])
        tied = {plan.rows[int(at)].name: aliases for at, aliases in data["aliases"].items()}
        assert {row.name: list(row.aliases) for row in plan if row.aliases} == tied
        assert "eps=1e-06" in data["kinds"][kinds[names_of(data).index("head.weight")]]["options"]

    def test_the_explanation_is_that_of_explain(self):
        """Every word that `explain` says from the state on is in the data, and no other."""
        for plan in (resolved(nnlr.layer_decay(0.5) * nnlr.no_weight_decay()), routed()):
            data = data_of(plan.to_html())
            for row, kind in zip(plan, data["of"][0], strict=True):
                lines = [data["lines"][at] for at in data["kinds"][kind]["why"]]
                told = " ".join(f"{title} {text}" for title, text in lines).split()
                text = plan.explain(row.name)
                assert text[text.index("\n  state ") :].split() == told

    def test_what_rows_share_stands_once(self):
        """Rows of one kind share a record, which has each line of text once."""
        data = data_of(resolved(model=tower(200)).to_html())
        assert 1 == len(data["kinds"])
        assert len(data["lines"]) == len({tuple(line) for line in data["lines"]})

    def test_the_header_counts_states(self):
        """Trained, locked and frozen parameters, with their elements."""
        model = tower()
        model.head.weight.requires_grad_(False)
        page = resolved(nnlr.rule("stem.*", lr_mult=0), model=model).to_html()
        text = " ".join(Parsed(page).text("span", "small").split())
        for words in ("13 trained", "2 locked", "1 frozen"):
            assert words in text

    def test_without_scripts_there_is_a_plain_table(self, monkeypatch):
        """Each row of the plan is a row of a table in `noscript`; of huge plans a way out is."""
        plan = resolved(nnlr.rule("stem.*", lr_mult=0))
        plain = re.search(r"<noscript>(.*?)</noscript>", plan.to_html(), re.DOTALL)[1]
        assert len(plan) == plain.count('<th scope="row">')
        assert 2 == plain.count("<td>locked</td>")
        monkeypatch.setattr(plan_page, "_PLAIN", 3)
        assert "too many parameters" in plan.to_html()

    def test_code_of_a_fix_is_whole(self):
        """The colons of a dict are not the one before the code."""
        finding = note("kind", ["stem.bias"], "cause", "Do this: f({'a': 1, 'b': 2})")
        page = resolved().to_html(findings=[finding])
        assert "Do this: <code>f({&#39;a&#39;: 1, &#39;b&#39;: 2})</code>" in page
        plain = note("kind", ["stem.bias"], "cause", "One of {a: b}.")
        assert re.search(r"One of \{a: b\}\.\s*</p>", resolved().to_html(findings=[plain]))

    def test_findings_stand_at_the_top(self):
        """The plan's own, or those that are passed; severity, names, cause and fix."""
        plan = resolved(nnlr.rule("*.bias", lr_mult=1e-5))
        own = Parsed(plan.to_html())
        assert "warning" in own.text("strong")
        assert "looks like an absolute one" in own.text("p")
        assert "and" in own.text("p")  # more names than are listed
        assert "Findings" not in Parsed(plan.to_html(findings=[])).text("h2")

    @pytest.mark.parametrize("findings", ["text", 3, [1]])
    def test_findings_of_another_kind_are_refused(self, findings):
        """The error says what to pass."""
        with pytest.raises(NnlrError, match=r"findings must be a Finding.*nnlr\.check"):
            resolved().to_html(findings=findings)

    def test_the_course_of_a_schedule(self):
        """A line for groups of equal rates, a chart for each algorithm; ends are told."""
        plan = routed()
        falling = tuple(1 - step / 400 for step in range(400))
        rates = course(plan, falling, incomplete="ValueError: too many steps")
        page = Parsed(plan.to_html(schedule=rates))
        lines = [facts["points"] for tag, facts in page.tags if tag == "polyline"]
        assert 2 == len(lines)
        assert all(240 == len(line.split()) for line in lines)
        assert "muon adamw" in " ".join(page.text("figcaption").split())
        assert "It ended early" in page.text("p")

    def test_a_course_of_many_groups_names_some(self):
        """The legend has the highest, the lowest and some between; a metric is told."""
        plan = resolved(nnlr.layer_decay(0.5), model=tower(10))
        rates = course(plan, (1.0,), metric=True)
        page = plan.to_html(schedule=rates)
        legend = re.search(r'class="keys-of".*?</ul>', page, re.DOTALL)[0]
        assert 6 == legend.count("<li>") < page.count("<polyline")
        assert "follows a metric" in page

    def test_a_schedule_of_another_kind_is_refused(self):
        """The error says how to make one."""
        with pytest.raises(NnlrError, match=r"schedule must be a RatesOverTime.*rates_over_time"):
            resolved().to_html(schedule=torch.optim.lr_scheduler.StepLR)

    def test_plans_at_the_edges(self):
        """Of a model without parameters, of one that trains nothing, of scalars."""
        assert "0 tensors" in resolved(model=nn.Identity()).to_html()
        page = resolved(nnlr.rule("*", lr_mult=0)).to_html()
        assert "rates in use" not in page
        assert "Groups" not in Parsed(page).text("h2")
        assert [[]] == data_of(resolved(model=scalar()).to_html())["shapes"]


def course(plan, factors, *, metric=False, incomplete=None):
    """What `rates_over_time` would return: all rates of a plan times some factors."""
    return nnlr.report.RatesOverTime(
        label="LinearLR",
        positions=tuple(range(len(factors))),
        groups=tuple(group.name for group in plan.groups),
        lr={group.name: tuple(group.lr * factor for factor in factors) for group in plan.groups},
        weight_decay={},
        metric=metric,
        incomplete=incomplete,
    )


def scalar():
    """A module that is one number."""
    net = nn.Module()
    net.scale = nn.Parameter(torch.ones(()))
    return net


class TestOverview:
    """The charts by layer, or by part."""

    def charts(self, plan):
        """The titles of the charts, and the bars of each in words."""
        page = plan.to_html()
        titles = [" ".join(t.split()) for t in re.findall(r"<figcaption>(.*?)</figcaption>", page)]
        bars = re.findall(r'<svg role="img" width="100%" height="\d+" aria-label="(.*?)"', page)
        heads = [re.sub(r"<.*?>", " ", title) for title in titles]
        return [" ".join(head.split()) for head in heads if "tensor" in head], bars

    def test_roles_that_are_treated_alike_share_a_chart(self):
        """Decayed matrices in one, and what does not decay in another."""
        plan = resolved(nnlr.layer_decay(0.5) * nnlr.no_weight_decay())
        titles, bars = self.charts(plan)
        assert ["matrix, head 5 tensors, 72 weight decay 0.05", 2] == [titles[0], len(titles)]
        assert titles[1].endswith("no weight decay")
        assert bars[0].startswith("layer 0: 6.25e-05, 1 tensor; layer 1: 0.000125")

    def test_rates_as_far_apart_as_numbers_go(self):
        """Their quotient is no number, nor is that of two that are next to each other."""
        scale = Scale(1e-20, 1e300)
        assert [0.08, 1.0] == [scale.share(1e-20), scale.share(1e300)]
        assert 0.0 < Scale(0.1, math.nextafter(0.1, 1)).share(0.1) <= 1.0

    def test_what_is_not_trained_comes_last(self):
        """Frozen roles share one chart, and a bar tells how many of its rows are locked."""
        model = tower()
        model.blocks.requires_grad_(False)
        scheme = nnlr.layer_decay(0.5) * nnlr.rule("stem.bias", lr_mult=0)
        titles, bars = self.charts(resolved(scheme, model=model))
        assert 2 == len(titles)
        assert titles[0].startswith("matrix, bias, head")
        assert "layer 0: 6.25e-05, 1 locked, 2 tensors; layer 1: frozen" in bars[0]
        assert titles[1].endswith("not trained")

    def test_a_layer_is_called_by_its_modules(self):
        """By the one that all its parameters are in, else by the first words of each."""
        model = tower()
        model.token = nn.Parameter(torch.zeros(4))
        scheme = nnlr.layer_decay(0.5, {"token": 0, "stem.*": 0, "blocks.*": 1, "head.*": 2})
        page = resolved(scheme, model=model).to_html()
        labels = re.findall(r'<li><b>(\d)</b><span><bdi dir="ltr">(.*?)</bdi>', page)
        assert {("0", "token, stem"), ("1", "blocks"), ("2", "head")} >= set(labels)

    def test_without_depth_the_parts_stand_for_layers(self):
        """As many segments of the names as there is room for; a long list stays short."""
        _, bars = self.charts(resolved(nnlr.rule("stem.*", lr_mult=0)))
        assert "stem: locked, 2 tensors; blocks.0.0: 0.001, 2 tensors" in bars[0]
        _, bars = self.charts(resolved(model=tower(50)))
        assert "blocks: 0.001, 200 tensors" in " ".join(bars)

    def test_towers_and_what_is_outside(self):
        """Each tower has charts of its own, and so has what is in no layer."""
        model = nn.ModuleDict({"text": tower(), "image": tower(), "join": nn.Linear(4, 2)})
        scheme = nnlr.layer_decay(0.5).within("text") * nnlr.layer_decay(0.7).within("image")
        page = Parsed(resolved(scheme, model=model).to_html())
        titles = page.text("h3")
        assert "Layers of text Layers of image Outside of the layers" == " ".join(titles.split())

    def test_mixed_states_and_decays(self):
        """A bar tells how many of its tensors are not trained, and which decays there are."""
        model = tower()
        model.blocks[0][1].weight.requires_grad_(False)
        scheme = nnlr.rules(
            [
                nnlr.rule("*blocks.1.1.weight", wd_mult=0.1),
                nnlr.rule("*blocks.2.1.weight", lr_mult=0),
                nnlr.rule("*stem.weight", lr_mult=0.5),
            ]
        )
        model = nn.ModuleDict({"part": model})
        titles, bars = self.charts(resolved(scheme, model=model))
        assert "weight decay 0.005 &#8211; 0.05" in " ".join(titles)
        text = " ".join(bars)
        assert "frozen" in text
        assert "locked" in text

    def test_a_part_with_several_rates_tells_their_range(self):
        """The least and the greatest, and how many are locked beside."""
        model = nn.ModuleList(nn.ModuleList(nn.PReLU() for _ in range(40)) for _ in range(2))
        scheme = nnlr.rules([nnlr.rule("0.1.*", lr_mult=0.1), nnlr.rule("0.2.*", lr_mult=0)])
        _, bars = self.charts(resolved(scheme, model=model))
        assert "0: 0.0001 &#8211; 0.001, 1 locked, 40 tensors" in bars[0]


class TestLabels:
    """Names that are listed together."""

    def test_words_and_numbers_are_folded(self):
        """Into braces that stand for each of the names, and no other."""
        rows = [row for row in resolved() if row.name.startswith("blocks")]
        assert ["blocks.{0..2}.{0,1}.{weight,bias}"] == labels(rows)

    def test_a_star_is_written_out(self):
        """Where braces cannot say it, the names stay apart: a star could mean others too."""
        model = nn.ModuleDict({"a": nn.PReLU(), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
        model = nn.ModuleDict({"x": model, "y": nn.PReLU()})
        chosen = [row for row in resolved(model=model) if row.name != "x.b.bias"]
        assert not [label for label in labels(chosen) if "*" in label]


class TestSafety:
    """One file that loads nothing, whatever the names of a model are."""

    @pytest.fixture
    def pages(self):
        """The pages of a model whose names attack them."""
        model = nn.Module()
        for name in HOSTILE:
            model.add_module(name, nn.Linear(2, 2))
        model.__class__ = type("</title><script>alert(2)</script>", (nn.Module,), {})
        plan = resolved(nnlr.rule("__proto__.*", lr_mult=0), model=model)
        changed = resolved(nnlr.rule("__proto__.*", lr_mult=3), lr=0.1, model=model)
        return plan, [plan.to_html(), plan.diff(changed).to_html(), plan._repr_html_()]

    def test_names_stay_text(self, pages):
        """No name opens a tag, ends an element or leaves an attribute."""
        for page, scripts in zip(pages[1], (2, 1, 0), strict=True):
            parsed = Parsed(page)  # fails where tags do not nest
            tags = [tag for tag, _ in parsed.tags]
            assert scripts == tags.count("script")
            assert "img" not in tags
            assert not [key for _, facts in parsed.tags for key in facts if key.startswith("on")]

    def test_the_text_is_ascii(self, pages):
        """It can be written in any encoding, and nothing in it turns the direction of text."""
        for page in pages[1]:
            assert page.isascii()

    def test_names_survive(self, pages):
        """Through JSON and back they are the names as `printable` writes them."""
        plan, texts = pages
        names = names_of(data_of(texts[0]))
        assert len(plan) == len(set(names))
        assert "</script><script>alert(1)</script>.weight" in names
        assert "a\\nb.weight" in names
        assert "\\u202egnirts.weight" in names

    def test_the_policy_forbids_everything_else(self, pages):
        """It names the style and the script by their hashes, and allows no address."""
        for page in pages[1][:2]:
            policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
            assert policy.startswith("default-src 'none'")
            assert "http" not in policy
            assert "unsafe" not in policy
            for tag in ("style", "script"):
                content = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[-1]
                digest = b64encode(sha256(content.encode()).digest()).decode()
                assert f"{tag}-src 'sha256-{digest}'" in policy
            assert "style=" not in page  # which the policy would not let act

    def test_nothing_is_loaded(self, pages):
        """No address but those of the page itself and its icon, which is in it."""
        for page in pages[1]:
            addresses = [
                facts[key]
                for _, facts in Parsed(page).tags
                for key in ("src", "href", "action", "data")
                if facts.get(key)
            ]
            assert all(address.startswith(("#", "data:image")) for address in addresses)


class TestDiff:
    """`plan.diff(other).to_html()`."""

    def test_changes_of_one_kind_stand_together(self):
        """Old and new, the factor between, and the declarations behind."""
        old = resolved(nnlr.layer_decay(0.5))
        page = Parsed(old.diff(resolved(nnlr.layer_decay(0.7))).to_html())
        text = " ".join(page.text("h2", "li", "td", "s", "small", "h1").split())
        assert "Learning rate of 14 parameters" in text
        assert "layer_decay(0.5)" in text
        assert "layer_decay(0.7)" in text
        assert "× 1.4" in text
        assert "14 parameters changed" in text

    def test_every_setting_is_compared(self):
        """State, algorithm, shape, options and multipliers on another base."""
        model, wider = tower(), tower()
        wider.head = nn.Linear(4, 3)
        scheme = nnlr.rules(
            [
                nnlr.rule("stem.*", lr_mult=0),
                nnlr.rule("blocks.0.*", options={"eps": 1e-6}, lr_mult=0.5),
                nnlr.rule("blocks.1.*", algorithm="muon", lr_mult=0.5 * (1 + 1e-9)),
            ]
        )
        old = resolved(nnlr.rule("*", lr_mult=1), model=model)
        new = resolved(scheme, model=wider, lr=2e-3)
        text = " ".join(Parsed(old.diff(new).to_html()).text("td", "s", "th").split())
        for words in ("locked", "eps=1e-06", "muon", "(3, 4)", "State", "Lr_mult", "Shape"):
            assert words in text
        assert "0.001" in text
        assert "0.001000000001" in text  # four digits do not tell it from the old one

    def test_added_and_removed_rows_are_listed(self):
        """By their folded names, each in a list that opens."""
        old, new = resolved(model=tower(3)), resolved(model=tower(1))
        removed = Parsed(old.diff(new).to_html())
        assert "8 parameters removed" in removed.text("h2")
        assert "blocks.2.1.bias" in removed.text("bdi")
        assert "8 parameters added" in Parsed(new.diff(old).to_html()).text("h2")

    def test_other_bases_are_named(self):
        """Where the factors are the same, the page says what is not."""
        plan = resolved()
        page = Parsed(plan.diff(plan.with_rates(lr=0.1)).to_html())
        assert "other base rates" in page.text("li")

    def test_the_factor_behind_is_told(self):
        """With its number, as the text has it."""
        page = Parsed(resolved().diff(resolved(nnlr.rule("stem.*", lr_mult=0.5))).to_html())
        assert "rule 'stem.*': lr_mult 0.5" in page.text("li")

    def test_no_difference_is_told(self):
        """A page too, with nothing to search."""
        plan = resolved()
        page = Parsed(plan.diff(plan).to_html())
        assert "No difference" in page.text("h1")
        assert "form" not in {tag for tag, _ in page.tags}


class TestNotebook:
    """What a notebook shows of a plan."""

    def test_it_has_charts_findings_and_the_table(self):
        """No script; its style speaks of its own elements only."""
        plan = resolved(nnlr.rule("head.bias", lr_mult=1e-5))
        view = plan._repr_html_()
        page = Parsed(view)
        assert "script" not in {tag for tag, _ in page.tags}
        assert plan.table() in page.text("pre")
        assert "warning" in page.text("b")
        for rule in re.findall(r"([^{}]+)\{[^{}]*\}", page.text("style")):
            assert all(".nnlr-plan" in selector for selector in rule.split(","))

    def test_a_difference_is_shown_as_text(self):
        """Not as the rows that it holds."""
        model = nn.ModuleDict({"<b>": nn.PReLU()})
        old = resolved(model=model)
        view = old.diff(old.with_rates(lr=0.5))._repr_html_()
        assert view.startswith("<pre>changed 1 parameter (1)")
        assert "&lt;b&gt;.weight" in view

    def test_several_towers_have_titles(self):
        """As on the page."""
        model = nn.ModuleDict({"text": tower(), "join": nn.Linear(4, 2)})
        view = resolved(nnlr.layer_decay(0.5).within("text"), model=model)._repr_html_()
        assert "Layers of text" in view


class TestWithoutJinja:
    """Where jinja2 is not installed."""

    @pytest.fixture(autouse=True)
    def hidden(self, monkeypatch):
        """Let the import of jinja2 fail."""
        hide_package(monkeypatch, "jinja2")
        render.environment.cache_clear()
        yield
        render.environment.cache_clear()

    def test_a_page_says_what_to_install(self):
        """The error names the extra, and the way without."""
        with pytest.raises(NnlrError, match=r'needs jinja2.*\n.*pip install "nnlr\[page\]"'):
            resolved().to_html()

    def test_a_notebook_shows_the_table(self):
        """As text, escaped."""
        model = nn.ModuleDict({"<b>": nn.PReLU()})
        view = resolved(model=model)._repr_html_()
        assert view.startswith("<pre>ModuleDict: 1 parameter")
        assert "&lt;b&gt;.weight" in view
