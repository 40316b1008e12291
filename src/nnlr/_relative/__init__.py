"""Relative updates: how far a parameter moves is measured by how large it is.

Data flow: kinds (the rules) and targets (which parameters) -> update (the hooks around a step),
which measures with norms.
"""
