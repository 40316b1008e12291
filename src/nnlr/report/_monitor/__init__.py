"""The monitor: what training really does to each layer, at a cadence.

Data flow: steps of an optimizer -> sums over elements -> readings -> findings, table, outputs.
"""
