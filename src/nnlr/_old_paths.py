"""Where classes stood in version 0.1, so that what it pickled still loads.

A pickle names the module of each class. Modules of the old layout are not there any more;
when one is asked for, a stand-in is made that looks its names up in today's modules.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

# Old module -> today's modules, without the leading "nnlr.".
_MOVED: Final = {
    "finding": "_findings",
    "names": "_model.names",
    "describe": "_model.describe",
    "surroundings": "_model.scopes",
    "select": "_select.selectors _select.selector",
    "layers": "depth._layer",
    "towers": "depth._auto",
    "indexers": "depth._timm",
    "spelling": "depth._family",
    "indexers_vision": "depth._vision",
    "indexers_language": "depth._language",
    "factor": "_declare.factor",
    "scheme": "_declare.scheme",
    "rulebook": "_declare.rules",
    "rows": "_rows.row _rows.rates",
    "groups": "_rows.groups",
    "plan": "_plan _model.reference",
    "baserate": "_schedule.base_rate",
    "scheduling": "_schedule.schedule",
    "checkpoint.report": "checkpoint._report",
    "report.differ": "report._diff",
    "report.flatness": "report._scaling.coordinate_result",
    "report.sweep": "report._scaling.lr_sweep",
    "optim.adam": "optim._adam",
    "optim.sgd": "optim._sgd",
    "schemes.llrd": "schemes._layer_decay",
    "schemes.ulmfit": "schemes._discriminative",
    "schemes.frozen": "schemes._freeze",
    "schemes.layer_groups": "schemes._layer_groups",
    "schemes.exempt": "schemes._no_weight_decay",
    "schemes.presets": "schemes._no_weight_decay_presets",
    "schemes.loraplus": "schemes._lora_plus",
    "schemes.caffenet": "schemes._caffe",
    "schemes.role_table": "schemes._roles",
    "schemes.paramwise": "schemes._frameworks.mmengine.paramwise",
    "schemes.detectron": "schemes._frameworks.detectron2",
    "schemes.bigvision": "schemes._frameworks.big_vision",
    "schemes.paramkeys": "schemes._frameworks.megatron",
    "schemes.titan": "schemes._frameworks.torchtitan",
    "schemes.foreign": "schemes._frameworks.claims",
    "schemes.tensor_programs": "schemes._width.mup",
    "schemes.completep": "schemes._width.complete_p",
    "schemes.base_shapes": "schemes._width.base",
}


class _OldModule(ModuleType):
    """A module of the old layout; its names are found in today's modules."""

    def __getattr__(self, name: str) -> object:
        old = self.__name__.removeprefix("nnlr.")
        for home in _MOVED[old].split():
            module = import_module(f"nnlr.{home}")
            for today in (name, name.removeprefix("_")):  # many classes lost their underscore
                if hasattr(module, today):
                    return getattr(module, today)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _OldPaths(MetaPathFinder, Loader):
    """Finder and loader of the old modules."""

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A stand-in for an old module; nothing for any other name."""
        package, _, old = name.partition(".")
        return ModuleSpec(name, self) if package == "nnlr" and old in _MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty stand-in."""
        return _OldModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def install() -> None:
    """Let imports of the old modules succeed."""
    sys.meta_path.append(_OldPaths())
