"""Phases of training: which parts are trained from when, and how fast.

Data flow: phases as data -> which parameters each has -> a move -> multipliers, best weights.
"""
