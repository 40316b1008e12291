"""Small tensors of any number of rates in one call, by kernels that numba compiles.

Data flow: groups -> sheets (tables of addresses and rates) -> kernels.
"""
