"""Writes the pages of gallery/ from the entries in tests/gallery/entries, which the tests run.

Run it from the root of the repository: ``PYTHONPATH=.:src python docs/make_gallery.py``.
"""

from pathlib import Path

from tests.gallery.entries_of import NAMES, body, entry

FOLDER = Path(__file__).parent / "gallery"

FAMILIES = {
    "vision": "Image models",
    "detection": "Detection and segmentation",
    "language": "Language models",
    "speech": "Speech and sound",
    "multimodal": "Text with images",
    "adapters": "Adapters and diffusion",
    "algorithms": "Muon and other algorithms",
    "fields": "Scenes, graphs, tables and recommenders",
}


def of_family(family):
    """The entries of one page."""
    return [module for module in map(entry, NAMES) if family == module.FAMILY]


def fence(lines, kind):
    """A block of code or text."""
    return "\n".join([f"```{kind}", *lines, "```"])


def fault(module):
    """What went wrong with a function, and what nnlr says of it."""
    text = module.shown().strip().splitlines()
    return f"**{thread(module)}** {module.FAULT}\n\n{fence(text, 'text')}"


def thread(module):
    """The number of the thread, with its address (which serves pull requests too)."""
    repository, _, number = module.THREAD.partition("#")
    return f"[{module.THREAD}](https://github.com/{repository}/issues/{number})"


def section(module):
    """One entry: what it does, the same with nnlr, and its fault."""
    title, _, what = module.__doc__.strip().partition("\n")
    name, _, gist = title.partition(": ")
    url = f"https://github.com/{module.REPOSITORY}"
    parts = [
        f"## {name}",
        f"*{gist[0].upper()}{gist[1:]}* [{module.REPOSITORY}]({url}), `{module.SOURCE}`.",
        what.strip(),
        "By hand:",
        fence(body(module.by_hand), "python"),
        "With nnlr:",
        fence(body(module.with_nnlr), "python"),
    ]
    if hasattr(module, "CANNOT"):
        parts.append(f"What a plan does not say: {module.CANNOT}")
    if hasattr(module, "THREAD"):
        parts.append(fault(module))
    return "\n\n".join(parts)


def text(page):
    """The whole text of a page."""
    if page == "index":
        return index()
    head = f"""# {FAMILIES[page]}

Group functions of public repositories, restated, and the same rates and decays for every
parameter with nnlr; `net` is the model. [About these pages](index.md)."""
    return "\n\n".join([head, *map(section, of_family(page))]) + "\n"


INDEX = """# Published group functions, each in three lines

{functions} functions that build parameter groups by hand, from {repositories} public repositories.
Each is restated in words and code of our own, on a small model of the same structure. A test
compares the rate, the decay and the options of every parameter.

The rule is that of the file that is named. The numbers are its defaults, or those of a
configuration or command that the repository publishes, as they could be read in autumn 2026. A
number that the function takes from outside and for which we took an example is marked by the word
"here". Repositories change: where a section is about an earlier version, it says so.

| page | functions |
|---|---|
{pages}

## What went wrong

What a public thread says of the function, in its own repository or in one that uses it.
{questions} of the {threads} threads are questions rather than faults, and begin so.

| function | thread | what, and how nnlr shows it |
|---|---|---|
{faults}

## What a plan does not say

| function | what, and why |
|---|---|
{cannot}
"""


def index():
    """The text of the front page."""
    modules = list(map(entry, NAMES))
    pages = [
        f"| [{title}]({family}.md) | {'; '.join(map(name_of, of_family(family)))} |"
        for family, title in FAMILIES.items()
    ]
    faulty = [module for module in modules if hasattr(module, "THREAD")]
    faults = [f"| {name_of(m)} | {thread(m)} | {m.FAULT} |" for m in faulty]
    cannot = [f"| {name_of(m)} | {m.CANNOT} |" for m in modules if hasattr(m, "CANNOT")]
    return INDEX.format(
        functions=len(modules),
        repositories=len({module.REPOSITORY for module in modules}),
        pages="\n".join(pages),
        threads=len(faulty),
        questions=sum(module.FAULT.startswith("A question") for module in faulty),
        faults="\n".join(faults),
        cannot="\n".join(cannot),
    )


def name_of(module):
    """The short name of an entry."""
    return module.__doc__.partition(":")[0]


def read(page):
    """The text of a page that is there now."""
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    for page in [*FAMILIES, "index"]:
        (FOLDER / f"{page}.md").write_text(text(page), encoding="utf-8")
