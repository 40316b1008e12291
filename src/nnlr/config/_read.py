"""Files as plain data: YAML and JSON, of which nothing is executed."""

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from nnlr._text import nearest_hint, printable
from nnlr.config._at import At
from nnlr.config._plain import plain
from nnlr.schemes._width.base import YamlMissingError


def read(path: str | os.PathLike[str], at: At) -> Any:  # noqa: ANN401 - of any shape
    """The plain data in a file."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in {".yaml", ".yml", ".json"}:
        at.refuse(f"its name must end in .yaml, .yml or .json, not in {kind!r}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = nearest_hint(path.name, _names_in(path.parent))
        at.refuse(f"there is no such file. {near}".rstrip())
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        at.refuse(f"cannot be read: {error}.")
    try:
        data = _from_json(text) if kind == ".json" else _from_yaml(text, path)
    except RecursionError:
        at.refuse("nested too deep to be read.")
    except ValueError as error:
        if isinstance(error, YamlMissingError):
            raise
        at.refuse(f"{str(error).rstrip('.')}.")
    return plain(data, at)


def _names_in(folder: Path) -> list[str]:
    """The names of the files of a folder, if there is one."""
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def _from_yaml(text: str, path: Path) -> Any:  # noqa: ANN401 - of any shape
    """The data of a YAML text."""
    try:
        from nnlr.config._yaml import parsed
    except ModuleNotFoundError as error:
        raise YamlMissingError(
            f"{path}: reading YAML needs PyYAML, which is not installed.\n"
            '  Fix: pip install "nnlr[cli]", or write the file as JSON.'
        ) from error
    return parsed(text)


def _from_json(text: str) -> Any:  # noqa: ANN401 - of any shape
    """The data of a JSON text."""
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping in which no key comes twice."""
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise ValueError(f"the key {printable(key)!r} comes twice")
        data[key] = value
    return data


def _no_number(word: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON has not."""
    raise ValueError(f"{word} is no JSON")
