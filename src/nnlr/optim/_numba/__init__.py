"""Small tensors of any number of rates in one call, by kernels that numba compiles.

Data flow: groups -> sheets (arrays of addresses and rates) -> kernels.
"""
