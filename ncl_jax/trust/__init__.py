"""How far a classifier and its data can be trusted: pure functions of scores, features and counts, in NumPy.

Usable without a run: `from ncl_jax.trust import sets`.
"""
