"""Which parameters a rule is about: selectors, and suggestions where one matches nothing.

Data flow: ModelInfo -> selectors -> positions of parameters.
"""
