"""Layer-wise learning rates and weight decays for PyTorch.

    declare  ->  resolve  ->  apply  ->  keep  ->  look
    (scheme)     (plan)       (groups, optimizer)  (schedules, checkpoints)  (table, explain, check)

A *scheme* says how fast parameters learn relative to the rest. ``resolve`` turns schemes, and
what is declared on modules, into a *plan*: one row for each parameter of one model, with its
learning rate, its weight decay and the trace that led there. Everything else reads the plan.

    scheme = nnlr.rule("backbone.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
    plan = nnlr.resolve(model, scheme, lr=1e-3, weight_decay=0.05)
    print(plan)
    optimizer = plan.optimizer(torch.optim.AdamW)
"""

# ruff: noqa: I001 - in the order of the sentence above, not of the alphabet

# Declare.
from nnlr._declare.on_modules import learning_rate as learning_rate
from nnlr._declare.on_modules import weight_decay as weight_decay
from nnlr._declare.on_modules import annotate as annotate
from nnlr._install import get_optim_config as get_optim_config
from nnlr._install import install as install
from nnlr._install import uninstall as uninstall
from nnlr._declare.rules import rule as rule
from nnlr._declare.rules import rules as rules
from nnlr.schemes import route as route
from nnlr._select.selector import glob as glob
from nnlr._select.selectors import regex as regex
from nnlr._select.selectors import module_type as module_type
from nnlr._select.selectors import role as role
from nnlr._select.selectors import ndim as ndim
from nnlr._select.selectors import predicate as predicate
from nnlr.schemes import layer_decay as layer_decay
from nnlr.schemes import no_weight_decay as no_weight_decay
from nnlr.schemes import discriminative as discriminative
from nnlr.schemes import freeze as freeze
from nnlr.schemes import freeze_out as freeze_out
from nnlr.schemes import unfreeze as unfreeze
from nnlr.schemes import layer_sampling as layer_sampling
from nnlr.schemes import warmup as warmup
from nnlr.schemes import lora_plus as lora_plus
from nnlr.schemes import caffe as caffe
from nnlr.schemes import caffe_prototxt as caffe_prototxt
from nnlr.schemes import roles as roles
from nnlr.schemes import mup as mup
from nnlr.schemes import complete_p as complete_p
from nnlr.schemes import mmengine as mmengine
from nnlr.schemes import detectron2 as detectron2
from nnlr.schemes import big_vision as big_vision
from nnlr.schemes import megatron as megatron
from nnlr.schemes import torchtitan as torchtitan
from nnlr.schemes import assign as assign
from nnlr.schemes import auto_rgn as auto_rgn
from nnlr.schemes import auto_snr as auto_snr
from nnlr.schemes import temp_balance as temp_balance
from nnlr.schemes import alpha_decay as alpha_decay
from nnlr.schemes import llr as llr
from nnlr.schemes import grad_norm_balance as grad_norm_balance
from nnlr._declare.scheme import Scheme as Scheme
from nnlr._declare.factor import Factor as Factor
from nnlr._declare.moves import Move as Move
from nnlr._declare.moves import Progress as Progress
from nnlr._findings import Finding as Finding

from nnlr.config._published import recipe as recipe
from nnlr.config._find import find_recipes as find_recipes

# Resolve.
from nnlr._resolve import resolve as resolve
from nnlr._resolve import param_groups as param_groups
from nnlr._plan import Plan as Plan
from nnlr._rows.row import PlanRow as PlanRow
from nnlr._model.describe import ModelInfo as ModelInfo
from nnlr._model.describe import ParamInfo as ParamInfo

# Apply.
from nnlr._regroup import regroup as regroup
from nnlr._apply_init import apply_init as apply_init
from nnlr._apply.clip import clip_grad_norm_ as clip_grad_norm_

# Keep.
from nnlr._schedule.schedule import schedule as schedule
from nnlr._schedule.warmup_decay import WarmupDecay as WarmupDecay
from nnlr._schedule.keep_ratios import keep_ratios as keep_ratios
from nnlr._attach.attach import attach as attach
from nnlr._relative.relative import relative as relative
from nnlr._schedule.rate_summary import rate_summary as rate_summary

# Look.
from nnlr._checks.check import check as check
from nnlr._agree import agree as agree

# Errors.
from nnlr.errors import NnlrError as NnlrError
from nnlr.errors import PatternError as PatternError
from nnlr.errors import CoverageError as CoverageError
from nnlr.errors import PlanMismatchError as PlanMismatchError
from nnlr.errors import ConfigError as ConfigError
from nnlr.errors import NnlrWarning as NnlrWarning

# Modules.
from nnlr import checkpoint as checkpoint
from nnlr import config as config
from nnlr import depth as depth
from nnlr import integrations as integrations
from nnlr import optim as optim
from nnlr import report as report
from nnlr import schemes as schemes
from nnlr import testing as testing
from nnlr import torch7 as torch7

from nnlr import _old_paths

_old_paths.install()

__version__ = "0.1.0"
