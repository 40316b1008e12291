"""Schemes that compare a model with a narrower one: muP and CompleteP.

Data flow: base -> growth of every axis -> exponents -> scheme (factors, findings).
"""
