"""Declare: what a user says, on modules or as schemes, as factors on each parameter's rates.

Data flow: ModelInfo -> scheme (rules, products, where, within) -> factors -> trace.
"""
