"""What ``--out`` writes: the numbers as JSON, and the picture."""

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import nnlr
from nnlr.demo import picture
from nnlr.demo.data import Digits
from nnlr.demo.movement import Layer
from nnlr.demo.options import Options
from nnlr.demo.train import Run
from nnlr.errors import NnlrError

NUMBERS: Final = "movement.json"
PICTURE: Final = "movement.png"
_PACKAGES: Final = ("torch", "numpy", "scikit-learn", "matplotlib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo found.

    Attributes:
        layers: How far each layer moved, in both runs.
        declared: The run at the declared rates.
        uniform: The run at one rate for all.
        seconds: Wall time of everything.
    """

    layers: list[Layer]
    declared: Run
    uniform: Run
    seconds: float


def prepare(folder: Path) -> None:
    """See to it, before any training, that the results can be written at its end.

    Raises:
        NnlrError: If the folder cannot be made or written to, or matplotlib is missing.
    """
    picture.check()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NnlrError(
            f"--out {str(folder)!r} cannot be written to: {error.strerror}.\n"
            "  Fix: pass a folder of yours; it is made if it does not exist.",
            path=folder,
        ) from error


def write(folder: Path, options: Options, data: Digits, outcome: Outcome) -> None:
    """Write ``movement.json`` and ``movement.png``."""
    text = json.dumps(facts(options, data, outcome), indent=2, allow_nan=False)
    (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")
    labels = (
        f"declared rates, test accuracy {outcome.declared.accuracy:.1%}",
        f"one rate for all, {outcome.uniform.accuracy:.1%}",
    )
    title = f"How far each layer moved ({options.duration}, {options.optimizer})"
    picture.draw(outcome.layers, labels, title, folder / PICTURE)


def facts(options: Options, data: Digits, outcome: Outcome) -> dict[str, Any]:
    """Everything worth keeping of a run, as plain data.

    Returns:
        ``options``, ``optimizer`` (its class, base rates and settings), ``data``,
        ``layers`` (rates and both movements), ``runs`` (``declared`` and ``uniform``:
        losses, accuracy, seconds), ``seconds`` in total, and ``versions``.
    """
    recipe = options.recipe
    return {
        "options": {
            name: value if value is None or isinstance(value, int) else str(value)
            for name, value in asdict(options).items()
        },
        "optimizer": {
            "name": recipe.label,
            "lr": recipe.lr,
            "weight_decay": recipe.weight_decay,
            **recipe.settings,
        },
        "data": {
            "source": data.source,
            "train": len(data.train_labels),
            "test": len(data.test_labels),
        },
        "layers": [asdict(layer) for layer in outcome.layers],
        "runs": {"declared": _run(outcome.declared), "uniform": _run(outcome.uniform)},
        "seconds": round(outcome.seconds, 3),
        "versions": {
            "python": platform.python_version(),
            "nnlr": nnlr.__version__,
            **{package: _version(package) for package in _PACKAGES},
        },
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "test_accuracy": run.accuracy,
        "right": run.right,
        "tested": run.tested,
        "losses": list(run.losses),
        "seconds": round(run.seconds, 3),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
