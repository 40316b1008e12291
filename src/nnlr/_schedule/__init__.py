"""Keep: schedulers move one base rate, and every group follows by its multiplier.

Data flow: scheduler -> base_rate -> groups of the optimizer. Works with anyone's groups.
"""
