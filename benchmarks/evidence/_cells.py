"""What the experiments on transfer, adapters and freezing share: cells of any settings, and tables.

A cell is one training: its settings, then what was measured. Cells are saved as they come, so a run
that was stopped goes on where it was; with all of them there, nothing is run.
"""

import argparse
import time
from pathlib import Path

import torch
from _paired import append, interval, read


def arguments(doc, script):
    """Read the command line: the file of the cells, and whether a small part of them is wanted."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    default = Path(script).with_suffix(".csv")
    parser.add_argument("--cells", type=Path, default=default, help="the file; run what it lacks")
    parser.add_argument("--small", action="store_true", help="a part of the cells, in minutes")
    torch.set_num_threads(1)
    return parser.parse_args()


def run(path, wanted, measure):
    """All cells of a file, after measuring those that it lacks of what is wanted."""
    rows = numbers(read(path))
    done = [{key: row[key] for key in wanted[0]} for row in rows]
    lacking = [cell for cell in wanted if cell not in done]
    start = time.process_time()
    for cell in lacking:
        row = cell | measure(**cell)
        append(path, row)
        rows.append(row)
    if lacking:
        print(f"{len(lacking)} cells in {time.process_time() - start:.0f} s of CPU time\n")
    return rows


def cells(module):
    """The committed cells of a script of this folder."""
    return numbers(read(Path(module.__file__).with_suffix(".csv")))


def numbers(rows):
    """The same cells, with numbers where the texts are some."""
    return [{key: _value(text) for key, text in row.items()} for row in rows]


def _value(text):
    """A number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def select(rows, **settings):
    """The cells with these settings."""
    return [row for row in rows if settings.items() <= row.items()]


def spread(values, digits=2):
    """``-0.12 ± 0.05``: the mean and its 95 % interval."""
    if len(set(values)) == 1:
        return f"{values[0]:.{digits}f}"
    mean, half = interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def table(header, lines):
    """A table in Markdown."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
