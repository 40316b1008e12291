"""Measured multipliers: what the network shows while it trains decides how fast its parts learn.

Data flow: rows of a plan -> units, the parameters that move together; the tensors of a unit -> a
probe -> one statistic; the statistics of all units -> a mapping -> a multiplier for each unit.
"""
