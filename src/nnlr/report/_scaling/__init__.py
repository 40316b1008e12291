"""Measure whether settings carry over from width to width: coordinate check and rate sweep.

Data flow: models of several widths -> runs -> result (table, findings, picture).
"""
