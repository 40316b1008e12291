"""Which layer a parameter is in, by its name alone."""

from collections.abc import Iterable


def layer_names(names: Iterable[str]) -> dict[str, str]:
    """The layer of each parameter.

    It is the outermost numbered part of a list of three or more (``blocks.3``), else of two,
    else the module that owns the parameter, else the parameter itself.

    Examples:
        >>> layer_names(["stem.weight", "blocks.0.fc.0.weight", "blocks.2.norm.bias", "token"])
        {'stem.weight': 'stem', 'blocks.0.fc.0.weight': 'blocks.0', 'blocks.2.norm.bias': 'blocks.2', 'token': 'token'}
    """  # noqa: E501 - the dict is one line
    names = list(names)
    members: dict[str, set[str]] = {}
    for name in names:
        for path, part in _numbered(name):
            members.setdefault(path, set()).add(part)
    return {name: _layer(name, members) for name in names}


def _layer(name: str, members: dict[str, set[str]]) -> str:
    """The layer of one parameter, by the parts that each list has."""
    lists = list(_numbered(name))
    # A list of numbers from 0 has as many parts as its last number says, though some hold nothing.
    for least in (3, 2):
        for path, part in lists:
            if max(map(int, members[path])) + 1 >= least:
                return f"{path}{part}"
    return name.rpartition(".")[0] or name


def _numbered(name: str) -> Iterable[tuple[str, str]]:
    """The numbers in the path of a parameter, each with what stands before it."""
    path = ""
    for part in name.split(".")[:-1]:
        if part.isdecimal():
            yield path, part
        path += f"{part}."
