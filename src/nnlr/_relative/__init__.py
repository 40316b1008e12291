"""Keep: what a step does to a parameter is measured by how large that parameter is.

Data flow: kinds (the rules) and targets (which parameters) -> update (hooks around a step), which
is gradients (before it) or rescale (after it), on batches, with norms of whole matrices.
"""
