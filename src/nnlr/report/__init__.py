"""Look: what a plan says, and what training does to a model.

The table, the explanation of one row and the difference of two plans are what :class:`nnlr.Plan`
prints. :func:`movement` shows how far each layer moved in training, :class:`Monitor` what each
step does to it, :func:`rates_over_time` what a schedule will make of the rates of all groups.
:func:`coordinate_check` and :func:`lr_sweep` measure whether a parametrization
carries over from width to width. Data flow: rows -> folded lines -> text.
"""

from nnlr.report._course import RatesOverTime as RatesOverTime
from nnlr.report._course import rates_over_time as rates_over_time
from nnlr.report._diff import PlanDiff as PlanDiff
from nnlr.report._monitor.monitor import Monitor as Monitor
from nnlr.report._monitor.reading import LayerReading as LayerReading
from nnlr.report._monitor.reading import Reading as Reading
from nnlr.report._movement import Movement as Movement
from nnlr.report._movement import movement as movement
from nnlr.report._scaling.coordinate_check import coordinate_check as coordinate_check
from nnlr.report._scaling.coordinate_result import CoordinateCheck as CoordinateCheck
from nnlr.report._scaling.lr_sweep import LrSweep as LrSweep
from nnlr.report._scaling.lr_sweep import lr_sweep as lr_sweep
