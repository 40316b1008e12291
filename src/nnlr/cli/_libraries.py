"""Models of timm, torchvision and transformers by name; nothing is ever downloaded."""

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from nnlr._text import listed, nearest_hint
from nnlr.cli._python import described
from nnlr.errors import NnlrError

Maker = Callable[..., object]

# How classes of models of transformers are called, but for those that stand for any.
_MODEL_CLASS: Final = re.compile(r"(?!Auto)\w+(Model|For[A-Z]\w+)")


def _library(name: str) -> ModuleType:
    """A library, which must not fetch anything.

    Raises:
        NnlrError: If it is not installed, or cannot be imported.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise NnlrError(f"{name} needs {error.name}, which is not installed.") from None
        raise NnlrError(
            f"{name}:... needs {name}, which is not installed.\n  Fix: pip install {name}",
            value=name,
        ) from None
    except Exception as error:
        raise NnlrError(f"{name} cannot be imported: {described(error)}", value=name) from error


def _unknown(library: str, name: str, names: Iterable[str], more: str = "") -> NnlrError:
    """The error on a model that a library does not know."""
    hint = nearest_hint(name, names)
    return NnlrError(f"{library} has no model {name!r}. {hint}".rstrip() + more, value=name)


def timm(name: str) -> Maker:
    """The function that makes a model of timm.

    Raises:
        NnlrError: If there is none of that name.
    """
    library = _library("timm")
    plain = name.partition(".")[0]
    if not library.is_model(plain):
        more = ""
        if ":" in name:
            more = "\n  Models of a hub are not downloaded; name the architecture."
        raise _unknown("timm", plain, library.list_models(), more)
    if plain != name and name not in library.list_pretrained(f"{plain}.*"):
        raise _unknown("timm", name, library.list_pretrained(f"{plain}.*"))
    return functools.partial(library.create_model, name, pretrained=False)


def torchvision(name: str) -> Maker:
    """The function that makes a model of torchvision.

    Raises:
        NnlrError: If there is none of that name.
    """
    models = _library("torchvision").models
    try:
        maker: Maker = models.get_model_builder(name)
    except ValueError:
        raise _unknown("torchvision", name, models.list_models()) from None
    # A detector's backbone has weights of its own, which are fetched by default.
    weights = [
        w for w in ("weights", "weights_backbone") if w in inspect.signature(maker).parameters
    ]
    return functools.partial(maker, **dict.fromkeys(weights))


def transformers(name: str) -> Maker:
    """The function that makes a model of transformers: of a type, a class or a configuration.

    Raises:
        NnlrError: If there is none of that name.
    """
    library = _library("transformers")
    types = library.CONFIG_MAPPING
    path = Path(name).expanduser()
    if path.exists():
        return _of_configuration(library, str(path / "config.json" if path.is_dir() else path))
    if name in types:
        return _of_class(library, types[name], _of_type(library, types[name]))
    model_class = getattr(library, name, None)
    if isinstance(model_class, type) and hasattr(model_class, "config_class"):
        return _of_class(library, model_class.config_class, model_class)
    try:  # a model of the hub that was downloaded once
        return _of_configuration(library, name)
    except NnlrError:
        classes = [cls for cls in dir(library) if _MODEL_CLASS.fullmatch(cls)]
        more = "\n  Nothing is downloaded; of a model on the hub pass the path of its config.json."
        raise _unknown("transformers", name, [*types, *classes], more) from None


def _of_type(library: ModuleType, config_class: type) -> Maker:
    """What makes the base model of a type of configuration.

    Raises:
        NnlrError: If it has none, with the classes that it has.
    """
    if config_class in library.MODEL_MAPPING:
        make: Maker = library.AutoModel.from_config
        return make
    stem = config_class.__name__.removesuffix("Config")
    model_class: Maker | None = getattr(library, f"{stem}Model", None)
    if model_class is None:
        classes = [name for name in dir(library) if name.startswith(f"{stem}For")]
        hint = f"Name a class: {listed(classes)}." if classes else "It is a part of others."
        raise NnlrError(f"This type of transformers has no base model. {hint}")
    return model_class


def _of_class(library: ModuleType, config_class: type, make_model: Maker) -> Maker:
    """The function that makes a model with the defaults of its configuration."""

    def make(**settings: object) -> object:
        return make_model(_with_settings(library, config_class(), settings))

    return make


def _of_configuration(library: ModuleType, source: str) -> Maker:
    """The function that makes the model of a ``config.json``, or of a name in the cache."""
    try:
        config = library.AutoConfig.from_pretrained(
            source, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise NnlrError(
            f"transformers cannot read {source!r}: {described(error)}", value=source
        ) from error
    names = getattr(config, "architectures", None) or [""]
    model_class = getattr(library, names[0], None) or functools.partial(
        library.AutoModel.from_config, trust_remote_code=False
    )

    def make(**settings: object) -> object:
        return model_class(_with_settings(library, config, settings))

    return make


def _with_settings(library: ModuleType, config: Any, settings: Mapping[str, object]) -> object:  # noqa: ANN401
    """A configuration with other settings.

    Raises:
        NnlrError: If it has no such setting; transformers would take any.
    """
    names = {*vars(config), *type(config).attribute_map, *vars(library.PretrainedConfig())}
    names |= {"num_labels", *type(config).sub_configs}
    for name in settings:
        if name not in names:
            raise NnlrError(
                f"{type(config).__name__} has no setting {name!r}. "
                f"{nearest_hint(name, names)}".rstrip(),
                value=name,
            )
    return type(config).from_dict({**config.to_dict(), **settings})
