"""Rewrites the generated parts of pages: what stands between two markers."""

from pathlib import Path

DOCS = Path(__file__).parent


def _markers(name):
    return f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"


def read(page, name):
    """The generated part of a page that is there now."""
    start, end = _markers(name)
    return (DOCS / page).read_text(encoding="utf-8").split(start)[1].split(end)[0]


def write(page, name, text):
    """Replace the generated part of a page."""
    start, end = _markers(name)
    before, rest = (DOCS / page).read_text(encoding="utf-8").split(start)
    after = rest.split(end)[1]
    (DOCS / page).write_text(f"{before}{start}{text}{end}{after}", encoding="utf-8")
