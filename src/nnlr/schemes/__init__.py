"""Published recipes, a file for each, named like it, with the paper and the formula on top.

Each is a scheme: it composes with all others by ``*``, and ``where`` and ``within`` restrict
it. Data flow: arguments -> scheme -> a factor for each parameter of a model.
"""

from nnlr.schemes._caffe import caffe as caffe
from nnlr.schemes._discriminative import discriminative as discriminative
from nnlr.schemes._frameworks.big_vision import big_vision as big_vision
from nnlr.schemes._frameworks.caffe_prototxt import caffe_prototxt as caffe_prototxt
from nnlr.schemes._frameworks.detectron2 import detectron2 as detectron2
from nnlr.schemes._frameworks.megatron import megatron as megatron
from nnlr.schemes._frameworks.mmengine.mmengine import mmengine as mmengine
from nnlr.schemes._frameworks.torchtitan import torchtitan as torchtitan
from nnlr.schemes._freeze import freeze as freeze
from nnlr.schemes._freeze_out import freeze_out as freeze_out
from nnlr.schemes._layer_decay import layer_decay as layer_decay
from nnlr.schemes._layer_sampling import layer_sampling as layer_sampling
from nnlr.schemes._lora_plus import lora_plus as lora_plus
from nnlr.schemes._measured.alpha_decay import alpha_decay as alpha_decay
from nnlr.schemes._measured.assign import assign as assign
from nnlr.schemes._measured.auto_rgn import auto_rgn as auto_rgn
from nnlr.schemes._measured.auto_snr import auto_snr as auto_snr
from nnlr.schemes._measured.grad_norm_balance import grad_norm_balance as grad_norm_balance
from nnlr.schemes._measured.llr import llr as llr
from nnlr.schemes._measured.temp_balance import temp_balance as temp_balance
from nnlr.schemes._no_weight_decay import no_weight_decay as no_weight_decay
from nnlr.schemes._roles import roles as roles
from nnlr.schemes._route import route as route
from nnlr.schemes._unfreeze import unfreeze as unfreeze
from nnlr.schemes._warmup import warmup as warmup
from nnlr.schemes._width.complete_p import complete_p as complete_p
from nnlr.schemes._width.mup import mup as mup
