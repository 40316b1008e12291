"""Writes the generated parts of depth.md: how `auto` fares on real architectures.

Run it from the root of the repository: ``PYTHONPATH=.:src python docs/make_depth_table.py``.

With models of timm: the layers that `auto` finds when it may not see a model's own matcher,
against those of the matcher. With models of transformers: the number of blocks in each
tower, against what the configuration says. All models are built on the meta device. The
figures are kept in tests/reference/auto_census.json.gz, from which the tables are made.
"""

import gzip
import json
import re
import warnings
from collections import Counter
from pathlib import Path

import torch

from docs import _markers
from nnlr._model.describe import describe
from nnlr.depth._auto import places_by_structure
from nnlr.depth._layer import numbered_layers
from nnlr.depth._timm import modules_with_matchers, places_in_tower
from nnlr.errors import NnlrError

CENSUS = Path(__file__).parents[1] / "tests" / "reference" / "auto_census.json.gz"
SAME, ORDER, OTHER = "same", "order", "other"

# Numbers of a configuration that say how many layers a part has.
_STATED = re.compile(r".*(layers?|depths?|blocks?|stages?)(_.*)?")


def timm_entry(name):
    """(family, verdict, why) of one model of timm; None if it has no matcher."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(name)
    info = describe(model)
    found = list(modules_with_matchers(info))
    if not found:
        return None
    family = type(model).__module__.rpartition(".")[2]
    theirs = numbered_layers(places_in_tower(info, found[0][0].path, found[0][1]))
    try:
        ours = numbered_layers(places_by_structure(info))
    except NnlrError:
        return family, OTHER, "refused"
    if {layer and layer.tower for layer in ours} != {""}:
        return family, OTHER, "several towers"
    pairs = list(zip(info.params, theirs, ours, strict=True))
    apart = [param.name for param, a, b in pairs if a.below != b.below]
    if not apart:
        return family, SAME, ""
    return family, *_compared(pairs, apart)


def _compared(pairs, apart):
    """(verdict, why) of a model in which some parameters have other multipliers."""
    crossed = crossing([(a.depth, b.depth) for _, a, b in pairs])
    if crossed is not None:
        names = [param.name for param, a, b in pairs if (a.depth, b.depth) == crossed]
        return OTHER, _plain(names[0])
    _, theirs, ours = pairs[0]
    if theirs.last != ours.last:
        return ORDER, f"{theirs.last + 1}:{ours.last + 1}"
    return ORDER, _plain(apart[0])


def _plain(name):
    """A name without its numbers: the same for all models of a family."""
    return re.sub(r"\.\d+", ".*", name)


def crossing(pairs):
    """A pair of depths that two parameters have in opposite order, if there is any.

    >>> crossing([(0, 0), (1, 0), (1, 2), (2, 2)])
    >>> crossing([(0, 1), (1, 0)])
    (1, 0)
    """
    highest, highest_here, last = -1, -1, None
    for theirs, ours in sorted(set(pairs)):
        if theirs != last:
            highest, last = max(highest, highest_here), theirs
        if ours < highest:
            return theirs, ours
        highest_here = max(highest_here, ours)
    return None


def transformers_entry(kind):
    """(towers, stated) of one architecture; None if it cannot be built like this.

    Towers: canonical path -> number of blocks. Stated: every number of layers that the
    configuration and its parts hold.
    """
    import transformers

    try:
        config = transformers.CONFIG_MAPPING[kind]()
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(config)
    except Exception:  # noqa: BLE001  needs a package, a nested configuration, weights
        return None
    info = describe(model)
    try:
        layers = numbered_layers(places_by_structure(info))
    except NnlrError:
        return {}, sorted(stated(config.to_dict()))
    blocks = {}
    for layer in layers:
        if layer is not None and layer.part == "block":
            blocks.setdefault(layer.tower, set()).add(layer.depth)
    towers = {tower: len(depths) for tower, depths in sorted(blocks.items())}
    return towers, sorted(stated(config.to_dict()))


def stated(config):
    """The numbers of layers in a configuration, sums of lists among them."""
    found = set()
    for key, value in config.items():
        if isinstance(value, dict):
            found |= stated(value)
        elif _STATED.fullmatch(str(key)) and isinstance(value, int):
            found.add(int(value))
        elif _STATED.fullmatch(str(key)) and isinstance(value, list):
            flat = [v for v in value if isinstance(v, int)]
            found |= {len(value), sum(flat)}
    return found


def verdict(towers, numbers):
    """Whether every tower has as many blocks as the configuration says.

    >>> verdict({"": 12}, [2, 12]), verdict({"": 18}, [6, 12]), verdict({"": 5}, [12])
    ('stated', 'sum', 'other')
    """
    if not towers:
        return "none"
    sums = {a + b for a in numbers for b in numbers}
    if set(towers.values()) <= set(numbers):
        return "stated"
    return "sum" if set(towers.values()) <= sums | set(numbers) else "other"


def census(start=0, step=1):
    """Every model, or every so many from one on."""
    import timm
    import transformers

    names = timm.list_models()[start::step]
    kinds = sorted(transformers.CONFIG_MAPPING)[start::step]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what models warn of while they are built
        return {
            "timm": _known(names, timm_entry),
            "transformers": _known(kinds, transformers_entry),
        }


def _known(names, look):
    found = {name: look(name) for name in names}
    return {name: entry for name, entry in found.items() if entry}


def kept():
    """The figures as they were found."""
    return json.loads(gzip.decompress(CENSUS.read_bytes()))


def timm_table(entries):
    """Rows by family: how many models give the same multipliers, how many the order."""
    families = {}
    for family, found, why in entries.values():
        families.setdefault(family, []).append((found, why))
    total = Counter(found for _, found, _ in entries.values())
    in_order = total[SAME] + total[ORDER]
    summary = (
        f"Of {len(entries)} models, {total[SAME]} ({total[SAME] / len(entries):.0%}) get "
        f"the same multipliers, {in_order} ({in_order / len(entries):.1%}) the same order."
    )
    lines = [
        summary,
        "",
        "| family | models | same | in order | why not the same |",
        "|---|---|---|---|---|",
    ]
    for family, found in sorted(families.items()):
        same = sum(kind == SAME for kind, _ in found)
        ordered = same + sum(kind == ORDER for kind, _ in found)
        reasons = Counter(
            f"**`{why}`**" if kind == OTHER else f"`{why}`" for kind, why in found if kind != SAME
        )
        shown = ", ".join(reason for reason, _ in reasons.most_common(3))
        lines.append(f"| {family} | {len(found)} | {same} | {ordered} | {shown} |")
    return "\n".join(lines) + "\n"


def transformers_table(entries):
    """How many have the stated number of blocks, and those that have not."""
    found = {kind: verdict(*entry) for kind, entry in entries.items()}
    count = Counter(found.values())
    others = []
    for kind, says in sorted(found.items()):
        if says == "other":
            blocks = ", ".join(map(str, entries[kind][0].values()))
            others.append(f"{kind} ({blocks})")
    none = [kind for kind, says in sorted(found.items()) if says == "none"]
    text = (
        f"Of {len(entries)} architectures, {count['stated']} have in every tower as many "
        "blocks as a number in their configuration says, "
        f"{count['sum']} as many as two such numbers together, {count['other']} another "
        f"number, and in {count['none']} no depth is found."
    )
    return f"{text}\n\nAnother number: {', '.join(others)}.\n\nNo depth: {', '.join(none)}.\n"


def main():
    """Make the census, keep it, and rewrite the page."""
    found = census()
    text = json.dumps(found, indent=0, sort_keys=True)
    CENSUS.write_bytes(gzip.compress(text.encode(), mtime=0))
    found = kept()
    _markers.write("depth.md", "timm", timm_table(found["timm"]))
    _markers.write("depth.md", "transformers", transformers_table(found["transformers"]))


if __name__ == "__main__":
    main()
