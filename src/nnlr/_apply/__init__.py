"""Apply: a plan meets the tensors of a model and the class of an optimizer.

Data flow: rows -> locate -> lock, vectors, param_groups -> signature -> optimizer.
"""
