"""Declare: what a user writes, on modules or as schemes, becomes factors on each parameter's rates.

Data flow: ModelInfo -> scheme (rules, products, where, within) -> factors -> trace.
"""
