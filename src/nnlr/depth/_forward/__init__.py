"""One forward, and the layers that follow from it.

Data flow: model and example -> ``run`` (with or without values) -> ``record`` (what is before
each parameter) -> ``units`` (blocks and layers, and their order) -> ``order`` (layers).
"""
