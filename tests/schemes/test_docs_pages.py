"""The documentation: a page for each scheme, an index of all, links that lead somewhere."""

import re
from pathlib import Path

import pytest

from nnlr import schemes
from tests.helpers import public_names

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page):
    """The targets of a page's links within the repository, without those to the web."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [link for link in _LINK.findall(text) if "://" not in link]


def anchors(page):
    """What a link into a page may name: its headings, as GitHub spells them."""
    text = page.read_text(encoding="utf-8")
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", public_names(schemes))
def test_every_scheme_has_a_page_that_is_in_the_index(name):
    """docs/schemes/<name>.md exists, and docs/README.md leads to it."""
    page = DOCS / "schemes" / f"{name}.md"
    assert page.exists()
    index = DOCS / "README.md"
    assert f"schemes/{name}.md" in links(index)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    """To a file that is there, and to a heading that it has."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_index():
    """No page is left that nobody finds."""
    index = DOCS / "README.md"
    listed = {(DOCS / link).resolve() for link in links(index)}
    assert set() == {page.resolve() for page in PAGES} - listed - {index.resolve()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_is_one_that_the_tests_run(page):
    """A fence called otherwise than python would be skipped without a word."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    skipped = [body for kind, body in fences if ">>>" in body and kind != "python"]
    assert [] == skipped
