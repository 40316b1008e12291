"""Resolve: what the factors of each parameter multiply to, as the rows and groups of a plan.

Data flow: traces -> rates -> row -> groups; findings and to_dict read the rows.
"""
