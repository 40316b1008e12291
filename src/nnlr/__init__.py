"""Layer-wise learning rates and weight decays for PyTorch.

    declare  ->  resolve  ->  apply  ->  look
    (scheme)     (plan)      (groups, vectors, optimizer)   (table, explain, diff)

A *scheme* says how fast parameters learn relative to the rest. ``resolve`` turns schemes, and
what is declared on modules, into a *plan*: one row for each parameter of one model, with its
learning rate, its weight decay and the trace that led there. Everything else reads the plan.

    scheme = nnlr.rule("backbone.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
    plan = nnlr.resolve(model, scheme, lr=1e-3, weight_decay=0.05)
    print(plan)
    optimizer = plan.optimizer(torch.optim.AdamW)
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nnlr import (
        checkpoint,
        depth,
        integrations,
        optim,
        report,
        schemes,
        testing,
        torch7,
    )
    from nnlr.audit import check
    from nnlr.clipping import clip_grad_norm_
    from nnlr.declare import annotate, learning_rate, weight_decay
    from nnlr.describe import ModelInfo, ParamInfo
    from nnlr.errors import (
        ConfigError,
        CoverageError,
        NnlrError,
        NnlrWarning,
        PatternError,
        PlanMismatchError,
    )
    from nnlr.factor import Factor
    from nnlr.init import apply_init
    from nnlr.methods import get_optim_config, install, uninstall
    from nnlr.plan import Plan
    from nnlr.ranks import agree
    from nnlr.rates import rate_summary
    from nnlr.ratios import keep_ratios
    from nnlr.regrouping import regroup
    from nnlr.resolving import param_groups, resolve
    from nnlr.rows import PlanRow
    from nnlr.rulebook import rule, rules
    from nnlr.scheduling import schedule
    from nnlr.scheme import Scheme
    from nnlr.schemes import (
        big_vision,
        blockwise,
        caffe,
        complete_p,
        detectron2,
        discriminative,
        embedding_lr,
        freeze,
        layer_decay,
        lora_plus,
        megatron,
        mmengine,
        mup,
        no_weight_decay,
        roles,
        torchtitan,
    )
    from nnlr.select import glob, module_type, ndim, predicate, regex, role

# Public name -> the module it lives in; loaded when first asked for.
_HOME = {
    "resolve": "resolving",
    "param_groups": "resolving",
    "regroup": "regrouping",
    "schedule": "scheduling",
    "keep_ratios": "ratios",
    "rate_summary": "rates",
    "check": "audit",
    "Plan": "plan",
    "agree": "ranks",
    "clip_grad_norm_": "clipping",
    "PlanRow": "rows",
    "ParamInfo": "describe",
    "ModelInfo": "describe",
    "Scheme": "scheme",
    "Factor": "factor",
    "rule": "rulebook",
    "rules": "rulebook",
    "glob": "select",
    "regex": "select",
    "module_type": "select",
    "role": "select",
    "ndim": "select",
    "predicate": "select",
    "learning_rate": "declare",
    "weight_decay": "declare",
    "annotate": "declare",
    "get_optim_config": "methods",
    "install": "methods",
    "uninstall": "methods",
    "apply_init": "init",
    **dict.fromkeys(
        (
            "layer_decay",
            "no_weight_decay",
            "discriminative",
            "freeze",
            "lora_plus",
            "caffe",
            "mmengine",
            "detectron2",
            "big_vision",
            "megatron",
            "torchtitan",
            "mup",
            "complete_p",
            "roles",
            "blockwise",
            "embedding_lr",
        ),
        "schemes",
    ),
    "checkpoint": "checkpoint",
    "depth": "depth",
    "integrations": "integrations",
    "optim": "optim",
    "report": "report",
    "schemes": "schemes",
    "testing": "testing",
    "torch7": "torch7",
    "NnlrError": "errors",
    "PatternError": "errors",
    "CoverageError": "errors",
    "PlanMismatchError": "errors",
    "ConfigError": "errors",
    "NnlrWarning": "errors",
}

__all__ = [
    "ConfigError",
    "CoverageError",
    "Factor",
    "ModelInfo",
    "NnlrError",
    "NnlrWarning",
    "ParamInfo",
    "PatternError",
    "Plan",
    "PlanMismatchError",
    "PlanRow",
    "Scheme",
    "agree",
    "annotate",
    "apply_init",
    "big_vision",
    "blockwise",
    "caffe",
    "check",
    "checkpoint",
    "clip_grad_norm_",
    "complete_p",
    "depth",
    "detectron2",
    "discriminative",
    "embedding_lr",
    "freeze",
    "get_optim_config",
    "glob",
    "install",
    "integrations",
    "keep_ratios",
    "layer_decay",
    "learning_rate",
    "lora_plus",
    "megatron",
    "mmengine",
    "module_type",
    "mup",
    "ndim",
    "no_weight_decay",
    "optim",
    "param_groups",
    "predicate",
    "rate_summary",
    "regex",
    "regroup",
    "report",
    "resolve",
    "role",
    "roles",
    "rule",
    "rules",
    "schedule",
    "schemes",
    "testing",
    "torch7",
    "torchtitan",
    "uninstall",
    "weight_decay",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'nnlr' has no attribute {name!r}")
    module = import_module(f"nnlr.{home}")
    value: object = module if name == home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
