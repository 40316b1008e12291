"""The documentation: a table of contents of all pages, links that lead somewhere, every name."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import nnlr
from docs import conf
from nnlr import schemes
from tests.helpers import public_names
from tests.test_layout import PUBLIC, is_folder

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_DOCUMENTED = re.compile(r"\.\. (module|currentmodule|auto\w+):: (\S+)|`(nnlr\.[\w.]+)`")


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


def in_contents(index):
    """The pages below one of the table of contents of an index."""
    tree = conf.table_of_contents(index.read_text(encoding="utf-8"))
    below = {(index.parent / f"{name}.md").resolve() for name in re.findall(r"<(\S+)>", tree)}
    return below.union(*(in_contents(page) for page in below if page.name == "index.md"))


def documented():
    """The objects that the reference shows, and the names that it mentions."""
    objects, mentioned = [], set()
    for page in (DOCS / "reference").glob("*.md"):
        module = ""
        for directive, name, mention in _DOCUMENTED.findall(page.read_text(encoding="utf-8")):
            if directive.endswith("module"):
                module = name
            elif directive:
                path, _, leaf = (f"{module}.{name}" if module else name).rpartition(".")
                objects.append(getattr(import_module(path), leaf))
            mentioned.add(mention)
    return objects, mentioned


def public_objects():
    """Every function and class that the package offers, by name; of a file those it defines."""
    for path in ("nnlr", *sorted(PUBLIC - {"nnlr.cli"})):  # a command, not a library
        module = import_module(path)
        home = "nnlr" if path == "nnlr" or is_folder(path) else path
        for name in public_names(module):
            value = getattr(module, name)
            if callable(value) and getattr(value, "__module__", "").startswith(home):
                yield f"{path}.{name}", value


def test_every_public_name_is_in_the_reference():
    """As a directive of docs/reference/*.md, or as a name in its text."""
    objects, mentioned = documented()
    shown = set(map(id, objects))
    assert [] == [
        name for name, value in public_objects() if id(value) not in shown and name not in mentioned
    ]


def test_every_role_is_explained():
    """`nnlr.role` names each role that there is."""
    roles = re.findall(r'``"(\w+)"``', nnlr.role.__doc__)
    assert sorted(import_module("nnlr._model.roles").ROLES) == sorted(roles)


def test_what_is_promised_names_tests_that_exist():
    """Each file and function that docs/promised.md points to."""
    page = (DOCS / "promised.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 30
    for path, name in named:
        assert not name or f"def {name}(" in (DOCS.parent / path).read_text(encoding="utf-8"), name
        assert (DOCS.parent / path).exists(), path


@pytest.mark.parametrize("name", public_names(schemes))
def test_every_scheme_has_a_page_that_is_in_the_index(name):
    """docs/schemes/<name>.md exists, and docs/schemes/index.md leads to it."""
    assert (DOCS / "schemes" / f"{name}.md").resolve() in in_contents(DOCS / "schemes/index.md")


def test_every_page_is_in_the_contents():
    """Also every script's, benchmark's and change's: no page is left that nobody finds."""
    assert set(PAGES) - {DOCS / "README.md", DOCS / "index.md"} == in_contents(DOCS / "index.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_link_leads_somewhere(page):
    """To a file that is there, and to a heading that it has."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_example_is_one_that_the_tests_run(page):
    """A fence called otherwise than python would be skipped without a word."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    skipped = [body for kind, body in fences if ">>>" in body and kind != "python"]
    assert [] == skipped


def test_links_of_an_included_file_lead_on_from_its_page():
    """To pages where there are such, with their anchors; what is no link stays."""
    text = "[a](docs/check.md#all-findings) [b](benchmarks/README.md) [c](README.md) f[0](x)"
    moved = "[a](check.md#all-findings) [b](benchmarks.md) [c](index.md) f[0](x)"
    assert moved == conf.with_links_from(text, DOCS.parent, DOCS)
