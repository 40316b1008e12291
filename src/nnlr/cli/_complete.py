"""What a shell offers to complete; it must come at once, so nothing here loads torch."""

from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Final

# The published schemes, and what else a configuration calls a scheme.
SCHEMES: Final = (
    *("alpha_decay", "assign", "auto_rgn", "auto_snr"),
    *("big_vision", "caffe", "caffe_prototxt", "complete_p", "detectron2", "discriminative"),
    *("freeze", "freeze_out", "grad_norm_balance"),
    *("layer_decay", "layer_sampling", "llr", "lora_plus", "megatron", "mmengine", "mup"),
    *("no_weight_decay", "roles", "route", "rule", "rules", "temp_balance", "torchtitan"),
    *("unfreeze", "warmup"),
)
COLUMNS: Final = (
    *("algorithm", "bytes", "eps_mult", "group", "init_mult", "layer", "lr", "lr_mult", "moves"),
    *("numel", "options", "role", "shape", "state", "tensors", "tower", "unit", "update"),
    *("wd_mult", "weight_decay"),
)
OPTIMIZERS: Final = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
)
_FORMS: Final = ("timm:", "torchvision:", "transformers:")
_FILES: Final = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".json", ".py", ".yaml", ".yml")


def version() -> str:
    """The version of nnlr that is installed."""
    return version_of("nnlr")


def scheme_names(incomplete: str) -> list[str]:
    """Names of schemes that begin like this."""
    return [name for name in SCHEMES if name.startswith(incomplete)]


def schemes(incomplete: str) -> list[str]:
    """The same; most need a value."""
    return scheme_names(incomplete)


def columns(incomplete: str) -> list[str]:
    """Names of columns, after those that are there already."""
    done, comma, last = incomplete.rpartition(",")
    plus, last = ("+", last[1:]) if last.startswith("+") else ("", last)
    return [f"{done}{comma}{plus}{name}" for name in COLUMNS if name.startswith(last)]


def optimizers(incomplete: str) -> list[str]:
    """Classes of torch.optim, after the name of an algorithm if there is one."""
    algorithm, sign, name = incomplete.rpartition("=")
    return [f"{algorithm}{sign}{cls}" for cls in OPTIMIZERS if cls.startswith(name)]


def models(incomplete: str) -> list[str]:
    """Libraries, files and folders that begin like this."""
    forms = [form for form in _FORMS if form.startswith(incomplete)]
    return [*forms, *_paths(incomplete)]


def _paths(incomplete: str) -> Iterator[str]:
    """Files that a model can be read from, and folders."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        entries = sorted(Path(f"{folder}{slash}" or ".").iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(start) and not (entry.name.startswith(".") and not start):
            if entry.is_dir():
                yield f"{folder}{slash}{entry.name}/"
            elif entry.suffix in _FILES:
                yield f"{folder}{slash}{entry.name}"
