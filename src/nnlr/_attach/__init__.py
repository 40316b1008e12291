"""Keep: multipliers that move while training, and the optimizer that they act on.

Data flow: rows -> units, groups -> attach -> multipliers -> locks, rates.
"""
