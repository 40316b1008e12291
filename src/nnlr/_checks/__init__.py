"""Look: what makes layer-wise rates go wrong in silence, in a plan, its optimizer or trainer.

Data flow: what the user passed -> subject -> the functions of each file -> findings. A file for
each thing that is looked at; ``check.LOOKS`` lists all functions.
"""
