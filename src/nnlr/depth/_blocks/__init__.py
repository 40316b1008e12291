"""Repeated blocks of a model: the tree of its modules, stacks of blocks, towers of stacks.

Data flow: tree -> steps -> stacks -> towers -> layout (a layer for each parameter).
"""
