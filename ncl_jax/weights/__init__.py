"""Weights of other programs: reading their files, and their names in ours."""
