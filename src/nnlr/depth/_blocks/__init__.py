"""Repeated blocks of a model: the tree of its modules, stacks of blocks, towers of stacks.

Data flow: tree (units) -> stacks (groups of blocks) -> towers -> layout (a layer per parameter).
"""
