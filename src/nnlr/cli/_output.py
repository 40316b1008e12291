"""Where a result goes, and in which format: to the terminal, or to a file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nnlr._text import nearest_hint
from nnlr.cli._terminal import out as show
from nnlr.cli._terminal import say, working
from nnlr.errors import NnlrError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The format that a file's ending asks for.
_ENDINGS: Final = {
    **dict.fromkeys((".txt", ".text"), "table"),
    ".json": "json",
    **dict.fromkeys((".yaml", ".yml"), "yaml"),
    ".csv": "csv",
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    **dict.fromkeys((".html", ".htm"), "html"),
    ".py": "python",
}
_PICTURES: Final = (".png", ".svg", ".pdf")

# What makes the text of each format that a result has.
Views = Mapping[str, Callable[[], str]]


# The format that is wished, and the file; ``None`` where nothing is said.
Target = tuple[str | None, Path | None]


def deliver(views: Views, target: Target, picture: "Callable[[], Figure] | None" = None) -> None:
    """Write a result.

    Args:
        views: What makes its text, by format.
        target: The format, by default that of the file's ending, else the first; and the file,
            by default, or by ``-``, the output.
        picture: What draws it, for a file whose ending is a picture's.

    Raises:
        NnlrError: If it has no such format, or the file cannot be written.
    """
    format_name, out = target
    if out == Path("-"):  # as other commands call their output
        out = None
    ending = "" if out is None else out.suffix.lower()
    if ending in _PICTURES and format_name is None:
        if picture is None or out is None:
            raise NnlrError(f"There is no picture of this: {_formats(views)}.", value=ending)
        with working("drawing"):
            figure = picture()
            _write(out, lambda: figure.savefig(out, bbox_inches="tight", dpi=150))
        return
    if out is not None and format_name is None and ending and ending not in _ENDINGS:
        endings = [each for each, name in _ENDINGS.items() if name in views]
        raise NnlrError(
            f"--out {str(out)!r}: the ending {ending!r} says no format. "
            f"{nearest_hint(ending, endings)}".rstrip()
            + " Say it by --format.",
            value=ending,
        )
    chosen = format_name or _ENDINGS.get(ending) or next(iter(views))
    if chosen not in views:
        raise NnlrError(f"This has no format {chosen!r}: {_formats(views)}.", value=chosen)
    with working(f"writing {chosen}"):
        text = views[chosen]()
    if out is None:
        show(text)
    else:
        _write(out, lambda: out.write_text(text.rstrip("\n") + "\n", encoding="utf-8"))


def _formats(views: Views) -> str:
    """The formats that a result has, for messages."""
    return f"it comes as {', '.join(views)}"


def _write(out: Path, write: Callable[[], object]) -> None:
    """Write a file, and say so."""
    if not out.parent.is_dir():
        raise NnlrError(
            f"--out {str(out)!r}: there is no folder {str(out.parent)!r}.", value=str(out)
        )
    try:
        write()
    except OSError as error:
        raise NnlrError(
            f"--out {str(out)!r} cannot be written: {error.strerror or error}.", value=str(out)
        ) from None
    say(f"wrote {out} ({out.stat().st_size / 1000:,.1f} kB)")
