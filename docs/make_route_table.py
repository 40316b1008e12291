"""Writes the table of schemes/route.md: where the default routing sends what real models have.

The counts are kept in tests/reference/route_census.json, which the long tests count again. Run it
from the root of the repository: ``PYTHONPATH=.:src python docs/make_route_table.py``; with
``count`` as an argument it counts all models first, which takes some minutes.
"""

import json
import sys
from pathlib import Path

from docs import _markers
from nnlr._model.roles import ROLES

PAGE = "schemes/route.md"

KEPT = Path(__file__).parent.parent / "tests" / "reference" / "route_census.json"

MATRIX = "a hidden matrix"


def count():
    """Count every model of both libraries."""
    from tests.schemes import route_census

    found = {
        library: route_census.judged(route_census.models(library))
        for library in route_census.LIBRARIES
    }
    KEPT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def kept():
    """The counts as they were kept."""
    return json.loads(KEPT.read_text(encoding="utf-8"))


def row(cells):
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |\n"


def table(found):
    """Who trains what, and how many tensors of how many models that is."""
    columns = [found[library] for library in ("timm", "transformers")]
    names = [f"{library}, {found[library]['models']:,} models" for library in found]
    text = row(["to", "what", *names]) + row(["---", "---", "--:", "--:"])
    reasons = {reason for column in columns for reason in column["tensors"]}
    for reason in sorted(reasons, key=lambda r: (r != MATRIX, -columns[1]["tensors"].get(r, 0), r)):
        role = reason.removeprefix("role ")
        what = f"`{role}`: {ROLES[role]}" if role in ROLES else reason
        algorithm = "Muon" if reason == MATRIX else "AdamW"
        numbers = [f"{column['tensors'].get(reason, 0):,}" for column in columns]
        text += row([algorithm, what, *numbers])
    return text


if __name__ == "__main__":
    if "count" in sys.argv[1:]:
        count()
    _markers.write(PAGE, "counts", table(kept()))
