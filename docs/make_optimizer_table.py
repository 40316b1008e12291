"""Writes the table of optimizers.md: how the optimizer classes of other libraries fare.

It reads the golden files that ``make census`` compares. Run it from the root of the repository:
``PYTHONPATH=.:src python docs/make_optimizer_table.py``.
"""

from pathlib import Path

from docs import _markers

PAGE = "optimizers.md"

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"

RIGHT, REFUSED, ALONE, SAME = (
    *("right", "refused: ", "does not run: ", "loads the same groups only: "),
)


def outcomes():
    """How each class fares, by library."""
    found = {}
    for path in sorted(GOLDEN.glob("third_party_*.txt")):
        library = path.stem.removeprefix("third_party_")
        lines = path.read_text(encoding="utf-8").splitlines()
        found[library] = {
            name.rpartition(".")[2]: fared
            for name, fared in (line.split(": ", 1) for line in lines)
        }
    return found


def row(cells):
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |\n"


def counts(found):
    """How many classes of each library fare how."""
    begins = [RIGHT, REFUSED, SAME, ALONE]
    heading = ["library", "classes", "right", "refused", "load the same groups only"]
    heading += ["do not run without nnlr either", "wrong"]
    text = row(heading) + row(["---", *["--:"] * (len(heading) - 1)])
    totals = [0] * (len(heading) - 1)
    for library, classes in found.items():
        numbers = [sum(fared.startswith(b) for fared in classes.values()) for b in begins]
        numbers = [len(classes), *numbers, len(classes) - sum(numbers)]
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        text += row([f"`{library}`", *(number or "" for number in numbers)])
    return text + row(["*all*", *totals])


def exceptions(found):
    """Who is not simply right, and why; who ignores the rates of its groups."""
    text = row(["class", "what it says"]) + row(["---", "---"])
    ignoring = []
    for library, classes in found.items():
        for name, fared in classes.items():
            if "ignores-rate" in fared:
                ignoring.append(f"`{name}` ({library})")
            if not fared.startswith(RIGHT):
                said = fared.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
                text += row([f"`{name}` ({library})", said])
    tail = "Right, and train all groups at one rate, which `check` finds: "
    return f"{text}\n{tail}{', '.join(ignoring)}.\n"


def parts():
    """Every generated part of the page, by the name of its markers."""
    found = outcomes()
    return {"counts": counts(found), "exceptions": exceptions(found)}


if __name__ == "__main__":
    for part, text in parts().items():
        _markers.write(PAGE, part, text)
