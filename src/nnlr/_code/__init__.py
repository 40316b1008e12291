"""A plan as plain torch code, which needs nnlr no more.

Data flow: names and their groups -> ``fold.py`` patterns -> ``table.py`` rows and loops ->
``write.py`` functions, of which ``lines.py`` fits the lines, ``powers.py`` writes rates that fall
from layer to layer, and ``classes.py`` names the optimizer.
"""
