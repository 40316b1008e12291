"""The documentation: a table of contents of all pages, links that lead somewhere, every name."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

import nnlr
from docs import conf
from nnlr import schemes
from tests.helpers import public_names, syntax
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
    text = index.read_text(encoding="utf-8")
    tree = conf.table_of_contents(conf.with_links_from(text, index.parent, index.parent))
    below = {(index.parent / f"{name}.md").resolve() for name in re.findall(r"<(\S+)>", tree)}
    return below.union(*(in_contents(page) for page in below if page.name == "index.md"))


def documented():
    """The dotted names that the reference shows or mentions."""
    names = set()
    for page in (DOCS / "reference").glob("*.md"):
        module = ""
        for directive, name, mention in _DOCUMENTED.findall(page.read_text(encoding="utf-8")):
            if directive.endswith("module"):
                module = name
            elif directive:
                names.add(f"{module}.{name}" if module else name)
            names.add(mention)
    return names


def defined_in(path):
    """The public functions and classes of a file, which is not imported: it may load a trainer."""
    source = Path(nnlr.__path__[0], *path.split(".")[1:]).with_suffix(".py")
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = {node.name for node in syntax(source).body if isinstance(node, kinds)}
    return {f"{path}.{name}" for name in names if not name.startswith("_")}


def exported_by(path):
    """The public functions and classes of a folder."""
    module = import_module(path)
    return {f"{path}.{name}" for name in public_names(module) if callable(getattr(module, name))}


def test_every_public_name_is_in_the_reference():
    """As a directive of docs/reference/*.md, or as a name in its text; schemes as those of nnlr."""
    modules = PUBLIC - {"nnlr.cli", "nnlr.integrations"}  # a command, and a folder of files
    names = set().union(*(exported_by(path) for path in {"nnlr", *filter(is_folder, modules)}))
    names = names.union(*(defined_in(path) for path in modules if not is_folder(path)))
    names = {name.replace("nnlr.schemes.", "nnlr.") for name in names}
    errors = {f"nnlr.{name}" for name in public_names(nnlr.errors)}  # shown as nnlr.errors.X
    assert set() == names - documented() - errors


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


def test_promises_are_made_for_the_versions_that_the_tests_run_on():
    """Those of constraints.txt."""
    page = (DOCS / "promised.md").read_text(encoding="utf-8").partition("## ")[0]
    pins = (DOCS.parent / "constraints.txt").read_text(encoding="utf-8").lower()
    versions = re.findall(r"(\w+)\s+(\d+\.\d+\.\d+)", page)
    assert len(versions) == 8
    assert [] == [
        (name, version)
        for name, version in versions
        if not re.search(rf"^{name.lower()}(-lite)?=={version}", pins, re.MULTILINE)
    ]


def test_every_scheme_has_a_page_that_is_in_the_index():
    """docs/schemes/<name>.md exists, and docs/schemes/index.md leads to it."""
    pages = {(DOCS / "schemes" / f"{name}.md").resolve() for name in public_names(schemes)}
    assert set() == pages - in_contents(DOCS / "schemes/index.md")


def test_every_page_is_in_the_contents():
    """Also every script's, benchmark's and change's: no page is left that nobody finds."""
    assert set(PAGES) - {DOCS / "README.md", DOCS / "index.md"} == in_contents(DOCS / "index.md")


@pytest.mark.no_cover
def test_every_link_leads_somewhere():
    """To a file that is there, and to a heading that it has."""
    for page, link in [(one, link) for one in PAGES for link in links(one)]:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), (page, link)
        if anchor:
            assert anchor in anchors(target), (page, link)


@pytest.mark.no_cover
def test_every_example_is_one_that_the_tests_run():
    """A fence called otherwise than python would be skipped without a word."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        skipped = [body for kind, body in fences if ">>>" in body and kind != "python"]
        assert [] == skipped, page


def test_links_of_an_included_file_lead_on_from_its_page():
    """To pages where there are such, with their anchors; what is no link stays."""
    text = "[a](docs/check.md#all-findings) [b](benchmarks/README.md) [c](README.md) f[0](x)"
    moved = "[a](check.md#all-findings) [b](benchmarks.md) [c](index.md) f[0](x)"
    assert moved == conf.with_links_from(text, DOCS.parent, DOCS)


def test_the_readme_counts_what_moves_over():
    """Functions and faults of the gallery, recipes, and pages on other systems."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    gallery = (DOCS / "gallery" / "index.md").read_text(encoding="utf-8")
    functions = re.search(r"(\d+) functions", gallery)[1]
    threads, questions = map(int, re.search(r"(\d+) of the (\d+) threads", gallery).group(2, 1))
    systems = in_contents(DOCS / "from" / "index.md")
    counts = {
        f"restates {functions} functions",
        f"faults that {threads - questions} of them had",
        f"{len(nnlr.config.recipe_names())} published [recipes]",
        f"[{['Nine', 'Ten', 'Eleven'][len(systems) - 9]} pages](docs/from/index.md)",
    }
    assert set() == {count for count in counts if count not in " ".join(readme.split())}


def test_the_readme_counts_the_schemes_and_links_each():
    """Their number in words, and a page for each."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    names = [name for name in vars(schemes) if callable(getattr(schemes, name))]
    assert (27, True) == (len(names), "Twenty-seven schemes" in readme)
    assert [] == [name for name in names if f"docs/schemes/{name}.md" not in readme]
