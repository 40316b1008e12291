"""Fill a template of the page: one text in ASCII that needs no other file and no network."""

import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nnlr._text import plural, printable
from nnlr.errors import NnlrError
from nnlr.report._text import amount, rate

if TYPE_CHECKING:
    from jinja2 import Environment


def render(
    template: str, facts: dict[str, Any], data: object = None, *, scripts: Sequence[str]
) -> str:
    """A whole page.

    Its security policy allows the one style sheet and the one script by their hashes and
    nothing else, so that nothing from a name of a model could run or load anything.

    Args:
        template: File name of the template.
        facts: What it shows.
        data: What its script reads, as JSON.
        scripts: File names of the parts of its script.

    Raises:
        NnlrError: If jinja2 is not installed.
    """
    style, code = _read("page.css"), "".join(map(_read, scripts))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(code)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = environment().get_template(template)
    text = page.render(**facts, style=style, script=code, policy=policy, data=_embedded(data))
    return text.encode("ascii", "xmlcharrefreplace").decode()


def render_view(template: str, facts: dict[str, Any], style: str) -> str:
    """An element for a page of others, with a style sheet that speaks of it alone."""
    text = environment().get_template(template).render(**facts, style=_read(style))
    return text.encode("ascii", "xmlcharrefreplace").decode()


@cache
def environment() -> "Environment":
    """What reads the templates and escapes whatever is put into them."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise NnlrError(
            "A page needs jinja2, which is not installed.\n"
            '  Fix: pip install "nnlr[page]". Or print the plan instead.',
            package="jinja2",
        ) from error
    loaded = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    loaded.filters.update(rate=rate, amount=amount, printable=printable, plural=plural)
    return loaded


def _read(name: str) -> str:
    """A file that stands beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The name of an inline style or script in a security policy."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _embedded(data: object) -> str:
    """JSON that cannot end the element that it stands in, in ASCII."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
