"""What a model is: names, shapes, roles and surroundings of its parameters, before any scheme.

Data flow: module -> names -> scopes and roles -> describe (one ParamInfo per parameter).
"""
