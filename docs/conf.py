"""How `make docs` turns these pages into a site. They are plain Markdown, and read on GitHub too.

Three things are done to a page on its way: the list of links on an `index.md` becomes the
table of contents, `{include}` brings a file from outside of docs/ with its links, and links to
such files lead to the page that includes them.
"""

import os
import re
from importlib import import_module
from pathlib import Path

import nnlr

DOCS = Path(__file__).parent

project = "nnlr"
author = "the nnlr authors"
release = version = nnlr.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "index"
exclude_patterns = ["_build", "README.md"]
suppress_warnings = ["config.cache"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_class_signature = "mixed"
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 76
python_trailing_comma_in_multi_line_signatures = False
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!nnlr\b).*"),  # names of others, whose pages are not read
    (
        r"py:.*",
        r"nnlr\..*\.(Key|KeyLike|Module|Opt|Param|Scheduling|Scope|Slot|Writer)",
    ),  # types without a page
]

html_theme = "furo"
html_title = "nnlr"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = html_favicon = "_static/logo.svg"
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1f5f9f",
        "color-brand-content": "#1f5f9f",
        "color-brand-visited": "#1f5f9f",
        "color-api-name": "#1f5f9f",
        "color-api-pre-name": "#5b7488",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8fc1ee",
        "color-brand-content": "#8fc1ee",
        "color-brand-visited": "#8fc1ee",
        "color-api-name": "#8fc1ee",
        "color-api-pre-name": "#8fa3b3",
    },
}
html_copy_source = html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "github-dark"

# --- pages ----------------------------------------------------------------------------

INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")
ENTRY = re.compile(r"^[*|-] \[`?([^\]`]+)`?\]\(([\w/.-]+)\.md\)", re.MULTILINE)
STUBS = {
    (page.parent / match[1]).resolve(): page
    for page in DOCS.glob("*.md")
    if (match := INCLUDE.search(page.read_text(encoding="utf-8")))
}


def with_links_from(text, old, new):
    """The text of a page in one folder, for a page in another; included files are their pages."""

    def moved(match):
        target = (old / match[1]).resolve()
        if not target.exists():
            return match[0]  # not a link
        target = STUBS.get(target, DOCS / "index.md" if target.name == "README.md" else target)
        return f"]({os.path.relpath(target, new)}{match[2] or ''})"

    return LINK.sub(moved, text)


def table_of_contents(text):
    """A hidden table of contents for each heading of an index: what its lists and tables link."""
    trees = []
    for section in re.split(r"^#(?=# )", text, flags=re.MULTILINE):
        entries = [f"{title} <{page}>" for title, page in ENTRY.findall(section)]
        if entries:
            caption = section.partition("\n")[0].removeprefix("# ")
            head = ["```{toctree}", ":hidden:", f":caption: {caption}", ""]
            trees.append("\n".join([*head, *entries, "```"]))
    return "\n\n".join(trees)


def read(app, docname, source):
    """Prepare the text of a page; see the top of this file."""
    folder = (DOCS / docname).parent
    text = with_links_from(source[0], folder, folder)
    if include := INCLUDE.search(text):
        path = (folder / include[1]).resolve()
        app.env.note_dependency(str(path))
        there = with_links_from(path.read_text(encoding="utf-8"), path.parent, folder)
        text = text.replace(include[0], there)
    if docname == "report-page":  # GitHub has no example to show
        example = '<p><a href="example-report.html">An example: a ViT with layer decay</a></p>'
        text = text.replace("\n```python", f"\n{example}\n\n```python", 1)
    if docname.endswith("index"):
        text += "\n\n" + table_of_contents(text)
    source[0] = text.replace("\n\n```\n", "\n```\n")  # doctest wants an empty line, readers do not


def write_example(app, error):
    """Write the report page of a plan beside the pages."""
    if error or app.builder.name != "html":
        return
    import timm
    from torch import device, optim

    with device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    scheme = nnlr.layer_decay(0.75) * nnlr.no_weight_decay() * nnlr.rule("head.*", lr_mult=10)
    plan = nnlr.resolve(model, scheme, lr=1e-3, weight_decay=0.05)
    one_cycle = optim.lr_scheduler.OneCycleLR
    rates = nnlr.report.rates_over_time(plan, one_cycle, 1000, max_lr=1e-3, total_steps=1000)
    page = Path(app.outdir, "example-report.html")
    page.write_text(plan.to_html(schedule=rates), encoding="utf-8")


# --- names ----------------------------------------------------------------------------

MODULES = ("checkpoint", "config", "depth", "errors", "optim", "report", "torch7")


def public_names():
    """Where each public object is documented, by where it is defined."""
    names = {}
    for module in (*(f"nnlr.{name}" for name in MODULES), "nnlr"):
        for name, value in vars(import_module(module)).items():
            if not name.startswith("_") and getattr(value, "__module__", "").startswith("nnlr."):
                names[f"{value.__module__}.{value.__qualname__}"] = f"{module}.{name}"
    return names


def name_publicly(_app, doctree):
    """Refer to an object by its public name, wherever it is defined, and to others' in short."""
    from docutils.nodes import Text
    from sphinx.addnodes import pending_xref

    for node in doctree.findall(pending_xref):
        path = node["reftarget"]
        node["reftarget"] = PUBLIC.get(path, path)
        if "._" in path or not path.startswith("nnlr."):
            for text in [text for text in node.findall(Text) if text == path]:
                text.parent.replace(text, Text(path.rpartition(".")[2]))


def skip_fields(_app, _what, _name, obj, *_):
    """Leave out the fields of named tuples: the docstring lists them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def hide_constructor(_app, what, name, *_):
    """Leave out the arguments of classes that functions make, and users do not."""
    made = {"Plan", "PlanRow", "PlanDiff", "Movement", "RatesOverTime"}
    made |= {"CoordinateCheck", "LrSweep", "Report"}
    private = "._" in name or name.rpartition(".")[2] in made
    return ("", None) if what == "class" and private else None


def keep_colon(_app, what, _name, _obj, _options, lines):
    """Let napoleon not take what stands before a colon for the type of a property."""
    if what == "property" and lines:
        lines.insert(0, "\\ ")


PUBLIC = public_names()


def setup(app):
    """Connect the functions above."""
    from sphinx.domains.python import PyObject

    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # as in the docstrings
    app.connect("source-read", read)
    app.connect("build-finished", write_example)
    app.connect("doctree-read", name_publicly)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("autodoc-process-docstring", keep_colon, priority=400)
