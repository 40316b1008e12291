"""The report page in a browser: it draws, searches, sorts, explains, and works by keyboard."""

import pytest
from torch import nn

import nnlr
from tests.report.browser import CHROMIUM, browser
from tests.report.test_page import HOSTILE, resolved, routed, tower
from tests.zoo import moe_tree

# Together a quarter of a minute.
pytestmark = [
    pytest.mark.full,
    pytest.mark.no_cover,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

ROWS = "document.querySelectorAll('#rows tr[id]').length"
ACTIVE = "document.querySelector('#rows tr.active td.name button').textContent"
NAMES = "[...document.querySelectorAll('#rows td.name button')].map(b => b.textContent)"
COUNT = "document.getElementById('count').textContent"


@pytest.fixture(scope="module")
def page():
    """A tab that all tests share."""
    with browser() as tab:
        yield tab


@pytest.fixture
def quiet(page):
    """The tab, of which the test must not make the console or the network speak."""
    page.complaints.clear()
    page.requests.clear()
    yield page
    assert [] == page.complaints
    assert all(url.startswith(("file:", "about:", "data:")) for url in page.requests)


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """The page of a net with twelve blocks."""
    path = tmp_path_factory.mktemp("pages") / "vision.html"
    scheme = nnlr.layer_decay(0.75) * nnlr.no_weight_decay() * nnlr.rule("stem.*", lr_mult=0)
    path.write_text(resolved(scheme, model=tower(12)).to_html(), encoding="ascii")
    return path


def saved(folder, text):
    """A page in a file."""
    path = folder / "page.html"
    path.write_text(text, encoding="ascii")
    return path


def test_the_tree_shows_modules_with_their_ranges(quiet, vision):
    """Modules first, closed where there are many; a range where rates differ."""
    quiet.open(vision)
    assert ["stem", "weight", "bias", "blocks", "0"] == quiet.run(NAMES)[:5]
    quiet.click("#collapse")
    assert ["stem", "blocks", "head"] == quiet.run(NAMES)
    quiet.click("#expand")
    assert (
        1 + 2 + 1 + 12 * (1 + 2 * 3) + 1 + 2 == quiet.run("+grid.getAttribute('aria-rowcount')") - 1
    )
    text = quiet.run("document.querySelector('#rows').textContent")
    assert "locked" in text
    assert "\u2013" in text


def test_search_narrows_the_rows_and_the_address(quiet, vision):
    """By parts of names and by patterns; the address leads back to the same view."""
    quiet.open(vision)
    quiet.click("#search")
    quiet.write("blocks.3 bias")
    assert "2 of 52 parameters" in quiet.run(COUNT)
    assert "q=blocks.3+bias" in quiet.run("location.hash")
    quiet.run("search.select()")
    quiet.write("*.1.weight")
    assert "12 of 52" in quiet.run(COUNT)
    address = quiet.run("location.hash")
    quiet.open(vision, address)
    assert "12 of 52" in quiet.run(COUNT)
    assert "*.1.weight" == quiet.run("search.value")
    quiet.click("#reset")
    assert "52 parameters" in quiet.run(COUNT)
    quiet.click("#search")
    quiet.write("nowhere")
    assert not quiet.run("document.getElementById('none').hidden")
    assert quiet.run("grid.hidden")


def test_filters_combine(quiet, vision):
    """State and role together; a bar of a layer and a group's button filter too."""
    quiet.open(vision, "#state=trained&role=bias")
    assert "13 of 52" in quiet.run(COUNT)
    quiet.click("g[data-layer='5'] text")
    assert "layer=5" in quiet.run("location.hash")
    assert "4 of 52" in quiet.run(COUNT)
    quiet.click("[data-group]")
    assert quiet.run("location.hash").startswith("#group=")


def test_the_table_sorts(quiet, vision):
    """First the highest, then the lowest, then as in the model; the header says which."""
    quiet.open(vision)
    quiet.click("[data-sort=lr]")
    assert "head.weight" == quiet.run(NAMES)[0]
    sorts = "[...document.querySelectorAll('th')].map(th => th.getAttribute('aria-sort'))"
    assert ["descending"] == [sort for sort in quiet.run(sorts) if sort]
    assert "grid" == quiet.run("grid.getAttribute('role')")
    quiet.click("[data-sort=lr]")
    assert "stem.weight" == quiet.run(NAMES)[0]
    assert ["ascending"] == [sort for sort in quiet.run(sorts) if sort]
    quiet.click("[data-sort=lr]")
    assert [] == [sort for sort in quiet.run(sorts) if sort]
    quiet.click("[data-sort=name]")
    assert "blocks.0.0.bias" == quiet.run(NAMES)[0]
    quiet.click("#as-tree")
    assert "treegrid" == quiet.run("grid.getAttribute('role')")


def test_a_click_explains(quiet, vision):
    """The panel has the factors of `explain`; Escape closes it."""
    plan = resolved(
        nnlr.layer_decay(0.75) * nnlr.no_weight_decay() * nnlr.rule("stem.*", lr_mult=0),
        model=tower(12),
    )
    quiet.open(vision, "#view=table&q=blocks.3.1.weight")
    quiet.click("#rows td.name button")
    text = quiet.run("panel.textContent")
    told = plan.explain("blocks.3.1.weight").replace("depth ", "")
    assert all(word in text for word in told.replace("      x ", "").split())
    assert "row=blocks.3.1.weight" in quiet.run("location.hash")
    quiet.press("Escape")
    assert quiet.run("panel.hidden")
    assert "grid" == quiet.run("document.activeElement.id")


def test_arrow_keys_walk_the_tree(quiet, vision):
    """Right opens, then goes in; left goes out, then closes; Home and End are the ends."""
    quiet.open(vision)
    quiet.click("#collapse")
    quiet.run("grid.focus()")
    assert "stem" == quiet.run(ACTIVE)
    quiet.press("ArrowDown", "ArrowRight", "ArrowRight")
    assert "0" == quiet.run(ACTIVE)
    expanded = "document.querySelector('#rows tr.active').getAttribute('aria-expanded')"
    assert "false" == quiet.run(expanded)
    quiet.press("ArrowRight")
    assert "true" == quiet.run(expanded)
    quiet.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert "weight" == quiet.run(ACTIVE)
    assert "4" == quiet.run("document.querySelector('#rows tr.active').getAttribute('aria-level')")
    quiet.press("Enter")
    assert "blocks.0.0.weight" == quiet.run("document.getElementById('explain-name').textContent")
    assert "explain" == quiet.run("document.activeElement.id")
    quiet.press("Escape", "ArrowLeft", "ArrowLeft")
    assert "true" != quiet.run(expanded)
    quiet.press("End")
    assert "head" == quiet.run(ACTIVE)
    quiet.press("Home", " ")
    assert "true" == quiet.run(expanded)
    described = quiet.run(
        "document.getElementById(grid.getAttribute('aria-activedescendant')).className"
    )
    assert "active" in described


def test_the_panel_follows_the_arrow_keys(quiet, vision):
    """With the panel open, the next row is explained as it is reached."""
    quiet.open(vision, "#row=stem.weight")
    quiet.run("grid.focus()")
    quiet.press("ArrowDown")
    assert "stem.bias" == quiet.run("document.getElementById('explain-name').textContent")


def test_tab_reaches_everything_once(quiet, vision):
    """Skip link, navigation, fields, headers and the grid; the focus can be seen."""
    quiet.open(vision)
    seen = []
    for _ in range(40):
        quiet.press("Tab")
        seen.append(quiet.run("document.activeElement.id || document.activeElement.textContent"))
        if seen[-1] == "lr1_wd1":  # the first group, after the grid
            break
    assert "Skip to the parameters" == seen[0]
    assert {"search", "by-role", "as-table", "expand", "Rate"} < set(seen)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["vision", "hostile", "routed", "diff", "tall"])
def test_no_window_scrolls_sideways(quiet, vision, tmp_path, *, width, dark, kind):
    """Phone and desktop, light and dark, whatever the names are."""
    if kind == "vision":
        path = vision
    elif kind == "hostile":
        path = saved(tmp_path, hostile().to_html())
    elif kind == "routed":
        path = saved(tmp_path, routed().to_html())
    elif kind == "diff":
        path = saved(tmp_path, hostile().diff(hostile(3)).to_html())
    else:
        path = saved(tmp_path, resolved(model=nn.ModuleList(tower(2) for _ in range(40))).to_html())
    quiet.open(path, width=width, dark=dark)
    assert 0 >= quiet.run("document.documentElement.scrollWidth - innerWidth")
    colour = quiet.run("getComputedStyle(document.body).backgroundColor")
    assert dark == (sum(map(int, colour[4:-1].split(", "))) < 384)


def hostile(mult=1):
    """A plan of a model whose names attack the page."""
    model = nn.Module()
    for name in HOSTILE:
        model.add_module(name, nn.Linear(2, 2))
    return resolved(nnlr.rule("*", lr_mult=mult), model=model)


def test_hostile_names_are_shown(quiet, tmp_path):
    """Each name is in the tree as it is written, and none of them ran."""
    quiet.open(saved(tmp_path, hostile().to_html()))
    names = quiet.run(NAMES)
    assert "</script><script>alert(1)</script>" in names
    assert "__proto__" in names
    assert "\U0001f600" in names
    quiet.open(saved(tmp_path, hostile().to_html()), "#q=__proto__&row=__proto__.bias")
    assert "2 of 24" in quiet.run(COUNT)
    assert "__proto__.bias" == quiet.run("document.getElementById('explain-name').textContent")


def test_forty_thousand_rows_open(quiet, tmp_path):
    """Only the rows in sight are drawn; the last one can be reached, and all can be searched."""
    plan = resolved(nnlr.no_weight_decay(), model=moe_tree(64, 200))
    assert len(plan) > 25_000
    quiet.open(saved(tmp_path, plan.to_html()), "#view=table")
    assert 100 > quiet.run(ROWS)
    quiet.run("grid.focus()")
    quiet.press("End")
    assert plan.rows[-1].name in quiet.run(NAMES)
    assert 100 > quiet.run(ROWS)
    assert quiet.run("scrollY") > 500_000


def test_scrolling_draws_each_row_once(quiet, vision):
    """However far, forth and back: the rows in sight are there, in order, and none twice."""
    quiet.open(vision, "#view=table", height=400)
    drawn = "[...document.querySelectorAll('#rows tr[id]')].map(tr => +tr.id.slice(4))"
    heights = set()
    for way in (500, 500, 300, -200, -700, 1500, -1500, 90):
        quiet.run(f"scrollBy(0, {way})")
        numbers = quiet.run(drawn)
        assert list(range(numbers[0], numbers[-1] + 1)) == numbers
        heights.add(quiet.run("document.documentElement.scrollHeight"))
    assert 1 >= max(heights) - min(heights)  # rounded


def test_print_has_every_row(quiet, vision, tmp_path):
    """Printing opens the tree, and afterwards it is as before."""
    quiet.open(vision)
    before = quiet.run(ROWS)
    quiet.run("dispatchEvent(new Event('beforeprint'))")
    assert 1 + 2 + 1 + 12 * 7 + 1 + 2 == quiet.run(ROWS)
    quiet.run("dispatchEvent(new Event('afterprint'))")
    assert before == quiet.run(ROWS)
    quiet.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000


def test_without_scripts_the_table_is_there(quiet, vision):
    """The plain table shows each row, and the charts and groups are there too."""
    quiet.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        quiet.open(vision)
        root = quiet.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
        rows = quiet.call("DOM.querySelectorAll", nodeId=root, selector="table.plain tbody tr")
        assert 52 == len(rows["nodeIds"])
    finally:
        quiet.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_difference_can_be_searched(quiet, tmp_path):
    """By names in closed lists too, and by kind; the address says it."""
    old, new = resolved(nnlr.layer_decay(0.5)), resolved(nnlr.layer_decay(0.6), model=tower(5))
    path = saved(tmp_path, old.diff(new).to_html())
    quiet.open(path)
    whole = quiet.run(COUNT)
    quiet.click("#search")
    quiet.write("blocks.4")
    assert "8 parameters" == quiet.run(COUNT) != whole
    quiet.open(path, "#kind=added")
    assert "8 parameters" == quiet.run(COUNT)
    quiet.click("#open")
    assert quiet.run("[...document.querySelectorAll('details')].every(d => d.open)")


def test_a_notebook_needs_no_script(quiet, tmp_path):
    """The view of a notebook draws in light and dark, and no wider than its cell."""
    view = resolved(nnlr.layer_decay(0.5), model=tower(12))._repr_html_()
    style = '<meta name="color-scheme" content="light dark">'
    quiet.open(saved(tmp_path, f"<!doctype html>{style}{view}"), width=390, dark=True)
    assert 0 >= quiet.run("document.documentElement.scrollWidth - innerWidth")
    assert 14 == quiet.run("document.querySelectorAll('.nnlr-plan g').length")
