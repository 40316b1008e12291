"""The model that is named on the command line: code, a library's, or a file of names and shapes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn

import nnlr
from nnlr._text import listed, nearest_hint
from nnlr.cli import _libraries, _python, _state
from nnlr.cli._terminal import note, working
from nnlr.errors import NnlrError

# Files that a model can be read from.
FILES: Final = frozenset({*_state.SUFFIXES, ".json", ".py"})

# The libraries whose models are named, and how a model of each is made.
LIBRARIES: Final[Mapping[str, Callable[[str], Callable[..., object]]]] = {
    "timm": _libraries.timm,
    "torchvision": _libraries.torchvision,
    "transformers": _libraries.transformers,
}

FORMS: Final = """\
  MODEL is one of
    timm:NAME, torchvision:NAME        such as timm:vit_base_patch16_224
    transformers:TYPE or a config.json such as transformers:bert, transformers:LlamaForCausalLM
    package.module:callable            or file.py:callable, with --arg name=value
    a state file                       .safetensors, .pt, .pth, .bin, .ckpt, or its index.json
    a plan                             .json, as nnlr show --out plan.json writes it"""

Arguments = Mapping[str, Any]


class Subject(NamedTuple):
    """What is looked at: a model, or a plan that was saved of one."""

    model: nn.Module | None
    plan: "nnlr.Plan | None" = None


def load(text: str, arguments: Arguments) -> Subject:
    """The model, or the saved plan, that MODEL names.

    Raises:
        NnlrError: If there is none, or it cannot be made.
    """
    kind, colon, name = text.partition(":")
    path = Path(text).expanduser()
    if text and path.exists():
        return _of_path(path, arguments)
    if not kind.strip() or (colon and not name):
        raise NnlrError(f"{text!r} names no model.\n{FORMS}", value=text)
    if kind in LIBRARIES and colon:
        return Subject(_made(text, lambda: LIBRARIES[kind](name), arguments))
    if colon:
        return Subject(_made(text, lambda: _python.find(kind, name, LIBRARIES), arguments))
    beside = [str(path.with_name(other)) for other in _names_in(path.parent)]
    hint = nearest_hint(text, beside)
    if hint or path.suffix in FILES:
        raise NnlrError(f"There is no file {text!r}. {hint}".rstrip(), value=text)
    sources = ["transformers"] if "/" in text else LIBRARIES
    raise NnlrError(
        f"{text!r} is no file, and does not say where the model comes from.\n"
        f"  Of a library: {', '.join(f'{library}:{text}' for library in sources)}.\n{FORMS}",
        value=text,
    )


def _names_in(folder: Path) -> list[str]:
    """The names of what is in a folder, if there is one."""
    return [other.name for other in folder.iterdir()] if folder.is_dir() else []


def _of_path(path: Path, arguments: Arguments) -> Subject:
    """The plan, the configuration or the state that a file or a folder holds."""
    facts: object = None
    file = path / "config.json" if (path / "config.json").is_file() else path
    if file.suffix == ".json":
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise NnlrError(f"{str(file)!r} is no JSON file: {error}.", value=str(file)) from None
    if isinstance(facts, dict) and "nnlr_plan" in facts:
        _refuse_arguments(arguments, "a saved plan")
        return Subject(None, nnlr.Plan.from_dict(facts))
    if isinstance(facts, dict) and "model_type" in facts:
        name = f"transformers:{file}"
        return Subject(_made(name, lambda: _libraries.transformers(str(file)), arguments))
    if file.suffix == ".py":
        raise NnlrError(
            f"{str(path)!r} is a program: say what in it makes the model, {path}:make_model.",
            value=str(path),
        )
    key = arguments.get("key")
    _refuse_arguments({name: value for name, value in arguments.items() if name != "key"}, "a file")
    with working(f"reading {path.name}"):
        state = _state.read(path, None if key is None else str(key))
    for remark in state.remarks:
        note(remark)
    return Subject(state.model)


def _refuse_arguments(arguments: Arguments, what: str) -> None:
    """Refuse ``--arg`` where nothing is called."""
    if arguments:
        raise NnlrError(f"--arg {listed(arguments)}: {what} takes no arguments.", value=arguments)


def _made(text: str, find: Callable[[], object], arguments: Arguments) -> nn.Module:
    """The model that a callable makes, on the meta device if it can be; or the model itself."""
    with working(f"loading {text}"):
        maker = find()
    if isinstance(maker, nn.Module):
        _refuse_arguments(arguments, "a model that is made already")
        return maker
    if not callable(maker):
        raise NnlrError(
            f"{text!r} is {_article(maker)}, neither a model nor a function that makes one.",
            value=text,
        )
    _python.check_arguments(text, maker, arguments)
    with working(f"building {text}"):
        remark = ""
        try:
            with torch.device("meta"):
                model = maker(**arguments)
        except (Exception, SystemExit) as on_meta:  # noqa: BLE001 - code of others raises anything
            try:
                model = maker(**arguments)
            except NnlrError:
                raise
            except (Exception, SystemExit) as error:
                raise _python.build_error(text, error) from error
            remark = f"built on the CPU; on the meta device it raises {_python.described(on_meta)}"
    if not isinstance(model, nn.Module):
        raise NnlrError(
            f"{text!r} gave {_article(model)}, not a torch.nn.Module. Name a function that returns "
            "the model alone.",
            value=text,
        )
    if remark:
        note(remark)
    if not any(True for _ in model.parameters()):
        raise NnlrError(f"{text} has no parameters: there is nothing to train.", value=text)
    return model


def _article(value: object) -> str:
    """What something is, in two words."""
    name = type(value).__name__
    return f"{'an' if name[:1] in tuple('AEIOUaeiou') else 'a'} {name}"
