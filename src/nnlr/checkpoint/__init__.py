"""Save and load optimizer state by parameter name, whatever the groups are.

``optimizer.load_state_dict`` matches by position. Other groups are an error at best; groups of
the same sizes in another order swap the state of their parameters in silence, and the
multipliers in the checkpoint win over those in the code. Here state is matched by canonical
parameter name, and a *policy* says whose rates count:

``"code"``
    What training moved continues; what the code wrote is the code's. Each group notes its
    settings as built under ``origin``: a saved value that equals the saved note gives way to
    the code's, one that had moved continues. A rate is base times multiplier, judged apart; the
    base continues as ``new_base * saved / saved_origin``.
``"checkpoint"``
    All is the checkpoint's, parameter by parameter.

Which class and kernels run (``fused``, ``foreach``, ...) is always decided by the code.

:func:`on_load` makes ``optimizer.load_state_dict`` do so; ``plan.optimizer`` calls it.
:func:`fit_state` and :func:`fit_named_state` are the same as functions, and
:func:`load_dcp` reads a distributed checkpoint. Only torch is needed:
all of it works with anyone's groups.
"""

from nnlr.checkpoint._hook import Policy as Policy
from nnlr.checkpoint._load_dcp import load_dcp as load_dcp
from nnlr.checkpoint._on_load import fit_named_state as fit_named_state
from nnlr.checkpoint._on_load import fit_state as fit_state
from nnlr.checkpoint._on_load import installed as installed
from nnlr.checkpoint._on_load import last_report as last_report
from nnlr.checkpoint._on_load import on_load as on_load
from nnlr.checkpoint._report import Difference as Difference
from nnlr.checkpoint._report import Report as Report
from nnlr.checkpoint._split import split as split
