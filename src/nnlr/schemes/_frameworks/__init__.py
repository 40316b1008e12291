"""Schemes that read the configurations of other frameworks.

Data flow: configuration -> ordered claims on parameters -> factors.
"""
